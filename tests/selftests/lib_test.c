// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * librestrictedmem: its functions do what the calls do, with the kernel's own
 * errno, and what it makes of fdinfo is what the kernel wrote there.
 */
#include <sys/wait.h>

#include <librestrictedmem.h>

#include "kselftest_harness.h"
#include "util.h"

FIXTURE(lib) {
	int device;
	int fd;
};

FIXTURE_SETUP(lib)
{
	const struct restrictedmem_create args = {
		.size = sizeof(args),
		.length = 4 * MIB,
		.thp = RESTRICTEDMEM_THP_NEVER,
		.flags = RESTRICTEDMEM_CREATE_ALIASES,
	};

	self->device = restrictedmem_open();
	ASSERT_LE(0, self->device);
	self->fd = restrictedmem_create(self->device, &args);
	ASSERT_LE(0, self->fd);
}

FIXTURE_TEARDOWN(lib)
{
	close(self->fd);
	close(self->device);
}

TEST_F(lib, descriptors_are_close_on_exec)
{
	int view = restrictedmem_link(self->fd);

	ASSERT_LE(0, view);
	EXPECT_EQ(FD_CLOEXEC, fcntl(self->device, F_GETFD));
	EXPECT_EQ(FD_CLOEXEC, fcntl(self->fd, F_GETFD));
	EXPECT_EQ(FD_CLOEXEC, fcntl(view, F_GETFD));
	close(view);
}

TEST_F(lib, info_is_the_kernels)
{
	struct restrictedmem_info info, direct;

	EXPECT_WORKS(restrictedmem_info(self->device, &info, sizeof(info)));
	EXPECT_WORKS(get_info(&direct));
	EXPECT_EQ(0, memcmp(&info, &direct, sizeof(info)));
}

TEST_F(lib, info_of_a_newer_program_has_zeros_at_its_end)
{
	struct {
		struct restrictedmem_info info;
		uint64_t later[4];
	} newer;

	memset(&newer, 0xff, sizeof(newer));
	EXPECT_WORKS(restrictedmem_info(self->device, &newer.info, sizeof(newer)));
	EXPECT_EQ(RESTRICTEDMEM_ABI_VERSION, newer.info.abi_version);
	EXPECT_EQ(0, newer.later[0]);
	EXPECT_EQ(0, newer.later[3]);
}

TEST_F(lib, info_without_room_is_refused)
{
	struct restrictedmem_info info;

	EXPECT_FAILS(EINVAL, restrictedmem_info(self->device, &info, 0));
	EXPECT_FAILS(EINVAL, restrictedmem_info(self->device, &info, 8));
}

TEST_F(lib, populate_and_punch)
{
	EXPECT_WORKS(restrictedmem_populate(self->fd, 0, 2 * MIB));
	EXPECT_EQ(2 * MIB, resident(self->fd));
	EXPECT_WORKS(restrictedmem_punch(self->fd, MIB, 3 * MIB));
	EXPECT_EQ(MIB, resident(self->fd));
}

TEST_F(lib, errno_is_the_kernels)
{
	struct restrictedmem_create args = { .size = sizeof(args), .length = 1 };

	EXPECT_FAILS(EINVAL, restrictedmem_create(self->device, &args));
	EXPECT_FAILS(EBADF, restrictedmem_create(-1, &args));
	EXPECT_FAILS(EINVAL, restrictedmem_populate(self->fd, 0, 8 * MIB));
	EXPECT_FAILS(EINVAL, restrictedmem_populate(self->fd, 1, PAGE));
	EXPECT_FAILS(EINVAL, restrictedmem_punch(self->fd, ~0ULL, PAGE));
	EXPECT_FAILS(ENOTTY, restrictedmem_link(self->device));
}

TEST_F(lib, fdinfo_is_what_the_kernel_wrote)
{
	struct restrictedmem_fdinfo info;
	struct stat st;

	ASSERT_EQ(0, restrictedmem_populate(self->fd, 0, MIB));
	ASSERT_EQ(0, fstat(self->fd, &st));
	ASSERT_EQ(0, restrictedmem_fdinfo(self->fd, &info, sizeof(info)));
	EXPECT_EQ(RESTRICTEDMEM_KIND_MEMORY, info.kind);
	EXPECT_EQ(st.st_ino, info.inode);
	EXPECT_STREQ("shmem", info.store);
	EXPECT_STREQ("never", info.thp);
	EXPECT_STREQ("default", info.numa);
	EXPECT_EQ(PAGE, info.page_size);
	EXPECT_EQ(4 * MIB, info.size);
	EXPECT_EQ(0, info.reserved);
	EXPECT_EQ(MIB, info.resident);
	EXPECT_EQ(MIB, info.resident_order[0]);
	EXPECT_EQ(0, info.resident_order[HUGE_ORDER]);
	EXPECT_EQ(MIB, info.resident_node[0]);
	EXPECT_EQ(0, info.poisoned);
	EXPECT_EQ(0, info.bindings);
	EXPECT_EQ(0, info.owner);
	EXPECT_EQ(RESTRICTEDMEM_CREATE_ALIASES, info.flags);
}

TEST_F(lib, fdinfo_of_another_process)
{
	struct restrictedmem_fdinfo info;
	pid_t child = fork();

	ASSERT_LE(0, child);
	if (!child) {
		pause();
		_exit(0);
	}
	EXPECT_WORKS(restrictedmem_fdinfo_at(AT_FDCWD,
			path_of("/proc/%d/fdinfo/%d", child, self->fd),
			&info, sizeof(info)));
	EXPECT_EQ(4 * MIB, info.size);
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	EXPECT_FAILS(ENOENT, restrictedmem_fdinfo_at(AT_FDCWD,
			path_of("/proc/%d/fdinfo/%d", child, self->fd),
			&info, sizeof(info)));
}

TEST_F(lib, fdinfo_of_what_is_not_ours)
{
	struct restrictedmem_fdinfo info;
	int other = memfd_create("restrictedmem", MFD_CLOEXEC);

	EXPECT_FAILS(ENOTTY, restrictedmem_fdinfo(other, &info, sizeof(info)));
	EXPECT_FAILS(ENOTTY, restrictedmem_fdinfo(self->device, &info, sizeof(info)));
	close(other);
	EXPECT_FAILS(EBADF, restrictedmem_fdinfo(other, &info, sizeof(info)));
	EXPECT_FAILS(EINVAL, restrictedmem_fdinfo(self->fd, &info, 8));
}

/* Memory of 4 MiB of which the second is shared, or -1 */
static int create_shared(int device)
{
	const struct restrictedmem_create args = {
		.size = sizeof(args),
		.length = 4 * MIB,
		.flags = RESTRICTEDMEM_CREATE_IN_PLACE,
	};
	int fd = restrictedmem_create(device, &args);
	uint64_t done;

	if (restrictedmem_convert(fd, MIB, MIB, 0, 0, &done) || done != 2 * MIB)
		return -1;
	return fd;
}

TEST_F(lib, convert_tells_how_far_it_got)
{
	int fd = create_shared(self->device);
	uint64_t done = 1;

	ASSERT_LE(0, fd);
	EXPECT_FAILS(EINVAL, restrictedmem_convert(fd, MIB, 8 * MIB, 0, 0, &done));
	EXPECT_EQ(MIB, done);
	EXPECT_FAILS(EOPNOTSUPP, restrictedmem_convert(self->fd, MIB, MIB, 0, 0, NULL));
	EXPECT_WORKS(restrictedmem_convert(fd, 0, 4 * MIB, RESTRICTEDMEM_ATTRIBUTE_PRIVATE,
					   RESTRICTEDMEM_CONVERT_PRESERVE, NULL));
	close(fd);
}

TEST_F(lib, window_can_be_mapped_until_it_is_revoked)
{
	int fd = create_shared(self->device), window;
	struct restrictedmem_fdinfo info, of_window;
	struct stat st;
	char *map;

	ASSERT_LE(0, fd);
	window = restrictedmem_window(fd, MIB, 2 * MIB, RESTRICTEDMEM_WINDOW_WRITE);
	ASSERT_LE(0, window);
	EXPECT_EQ(FD_CLOEXEC, fcntl(window, F_GETFD));
	map = mmap(NULL, MIB, PROT_READ | PROT_WRITE, MAP_SHARED, window, 0);
	ASSERT_NE(MAP_FAILED, map);
	map[0] = 1;

	ASSERT_EQ(0, restrictedmem_fdinfo(fd, &info, sizeof(info)));
	EXPECT_EQ(MIB, info.shared);
	EXPECT_EQ(1, info.windows);
	ASSERT_EQ(0, restrictedmem_fdinfo(window, &of_window, sizeof(of_window)));
	EXPECT_EQ(RESTRICTEDMEM_KIND_WINDOW, of_window.kind);
	EXPECT_EQ(info.inode, of_window.inode);
	ASSERT_EQ(0, fstat(window, &st));
	EXPECT_EQ(st.st_ino, of_window.file_inode);
	EXPECT_EQ(MIB, of_window.window_offset);
	EXPECT_EQ(2 * MIB, of_window.window_length);
	EXPECT_EQ(1, of_window.window_write);
	EXPECT_EQ(0, of_window.window_revoked);

	EXPECT_FAILS(EINVAL, restrictedmem_revoke(fd, fd));
	EXPECT_WORKS(restrictedmem_revoke(fd, window));
	ASSERT_EQ(0, restrictedmem_fdinfo(window, &of_window, sizeof(of_window)));
	EXPECT_EQ(1, of_window.window_revoked);
	EXPECT_WORKS(restrictedmem_revoke(fd, -1));
	munmap(map, MIB);
	close(window);
	close(fd);
}

/* Text that a kernel might write, without asking one. */
static int parse(const char *text, struct restrictedmem_fdinfo *info)
{
	int fd = memfd_create("fdinfo", MFD_CLOEXEC), r, saved;

	if (write(fd, text, strlen(text)) != (ssize_t)strlen(text))
		return -1;
	r = restrictedmem_fdinfo_at(AT_FDCWD, path_of("/proc/self/fd/%d", fd), info,
				    sizeof(*info));
	saved = errno;
	close(fd);
	errno = saved;
	return r;
}

#define KERNELS	"pos:\t0\nflags:\t02100002\nmnt_id:\t15\nino:\t77\n"

TEST(parse_memory)
{
	struct restrictedmem_fdinfo info;

	ASSERT_EQ(0, parse(KERNELS
			   "store:\thugetlb\npage_size:\t2097152\nthp:\t-\n"
			   "numa:\tbind:0-1,3\nsize:\t1073741824\n"
			   "resident_order9:\t4194304\nresident_order99:\t1\n"
			   "resident_node63:\t4096\nresident_nodeX:\t1\n"
			   "shared:\t8192\nwindows:\t2\nowner:\t18446744073709551615\n"
			   "flags:\t0x9\nsomething_new:\t5\n", &info));
	EXPECT_EQ(77, info.inode);
	EXPECT_STREQ("hugetlb", info.store);
	EXPECT_STREQ("bind:0-1,3", info.numa);
	EXPECT_EQ(2 * MIB, info.page_size);
	EXPECT_EQ(GIB, info.size);
	EXPECT_EQ(4 * MIB, info.resident_order[9]);
	EXPECT_EQ(4096, info.resident_node[63]);
	EXPECT_EQ(8192, info.shared);
	EXPECT_EQ(2, info.windows);
	EXPECT_EQ(~0ULL, info.owner);
	EXPECT_EQ(9, info.flags);
}

TEST(parse_window)
{
	struct restrictedmem_fdinfo info;

	ASSERT_EQ(0, parse(KERNELS
			   "window:\t78\noffset:\t4096\nlength:\t8192\nwrite:\t1\n"
			   "revoked:\t1\n", &info));
	EXPECT_EQ(RESTRICTEDMEM_KIND_WINDOW, info.kind);
	EXPECT_EQ(78, info.inode);
	EXPECT_EQ(77, info.file_inode);
	EXPECT_EQ(4096, info.window_offset);
	EXPECT_EQ(8192, info.window_length);
	EXPECT_EQ(1, info.window_write);
	EXPECT_EQ(1, info.window_revoked);
}

TEST(parse_nonsense)
{
	struct restrictedmem_fdinfo info;

	EXPECT_FAILS(ENOTTY, parse("", &info));
	EXPECT_FAILS(ENOTTY, parse(KERNELS, &info));
	EXPECT_FAILS(ENOTTY, parse(KERNELS "store:\twidgets\n", &info));
	EXPECT_FAILS(ENOTTY, parse(KERNELS "window:\t78\n", &info));
	EXPECT_FAILS(ENOTTY, parse("\n:\t\n:\nstore\n\t\n", &info));
}

TEST_HARNESS_MAIN
