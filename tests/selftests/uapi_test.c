// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * The device's ioctls: the errnos of the contract in <restrictedmem.h>, and
 * that a call which fails leaves nothing behind.
 */
#include <dirent.h>
#include <sys/resource.h>
#include <sys/sysmacros.h>

#include "kselftest_harness.h"
#include "util.h"

/* What a newer caller's struct would look like. */
struct longer_info {
	struct restrictedmem_info info;
	uint8_t tail[64];
};

struct longer_create {
	struct restrictedmem_create create;
	uint8_t tail[64];
};

FIXTURE(device) {
	int dev;
	struct restrictedmem_create args;
	int open_fds;
	uint64_t resident;
};

static int count_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	int n = 0;

	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}

FIXTURE_SETUP(device)
{
	self->dev = device_open();
	ASSERT_LE(0, self->dev);
	self->args = (struct restrictedmem_create) {
		.size = sizeof(self->args),
		.length = 16 * PAGE,
	};
	self->resident = resident_total();
	self->open_fds = count_fds();
}

/* All files made by a test are closed by it. */
FIXTURE_TEARDOWN(device)
{
	EXPECT_EQ(self->open_fds, count_fds());
	EXPECT_EQ(self->resident, resident_total());
	close(self->dev);
}

static int do_create(int dev, void *args)
{
	return ioctl(dev, RESTRICTEDMEM_CREATE, args);
}

/* The device */

TEST_F(device, is_for_root_alone)
{
	struct stat st;

	ASSERT_EQ(0, fstat(self->dev, &st));
	EXPECT_TRUE(S_ISCHR(st.st_mode));
	EXPECT_EQ(0600, st.st_mode & 07777);
	EXPECT_EQ(10, major(st.st_rdev));
	EXPECT_EQ(0, st.st_uid);
}

TEST_F(device, has_no_contents)
{
	char byte;

	EXPECT_FAILS(EINVAL, read(self->dev, &byte, 1));
	EXPECT_FAILS(EINVAL, write(self->dev, "x", 1));
	EXPECT_FAILS(ENODEV, mmap(NULL, PAGE, PROT_READ, MAP_SHARED, self->dev, 0));
}

TEST_F(device, unknown_ioctl)
{
	uint32_t size = 4096;

	EXPECT_FAILS(ENOTTY, ioctl(self->dev, _IO(RESTRICTEDMEM_IOCTL_TYPE, 0xff),
				   &size));
	EXPECT_FAILS(ENOTTY, ioctl(self->dev, _IO('?', 0), &size));
	EXPECT_FAILS(ENOTTY, ioctl(self->dev, TCGETS, &size));
}

TEST_F(device, bad_pointer)
{
	EXPECT_FAILS(EFAULT, ioctl(self->dev, RESTRICTEDMEM_INFO, NULL));
	EXPECT_FAILS(EFAULT, ioctl(self->dev, RESTRICTEDMEM_CREATE, NULL));
	EXPECT_FAILS(EFAULT, ioctl(self->dev, RESTRICTEDMEM_CREATE, -8L));
}

/* The size can be read, what follows cannot. */
TEST_F(device, struct_that_ends_in_a_hole)
{
	char *map = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint32_t *size = (void *)(map + PAGE - sizeof(*size));

	ASSERT_NE(MAP_FAILED, map);
	ASSERT_EQ(0, mprotect(map + PAGE, PAGE, PROT_NONE));
	*size = sizeof(struct restrictedmem_create);
	EXPECT_FAILS(EFAULT, do_create(self->dev, size));
	*size = sizeof(struct restrictedmem_info);
	EXPECT_FAILS(EFAULT, ioctl(self->dev, RESTRICTEDMEM_INFO, size));
}

TEST_F(device, info_that_cannot_be_written)
{
	struct restrictedmem_info *info = mmap(NULL, PAGE, PROT_READ | PROT_WRITE,
					       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	ASSERT_NE(MAP_FAILED, info);
	info->size = sizeof(*info);
	ASSERT_EQ(0, mprotect(info, PAGE, PROT_READ));
	EXPECT_FAILS(EFAULT, ioctl(self->dev, RESTRICTEDMEM_INFO, info));
}

/* Sizes */

/* The first version of the struct had 32 bytes. */
#define CREATE_V1	32

TEST_F(device, short_struct)
{
	uint32_t sizes[] = { 0, 4, 8, CREATE_V1 - 1 };

	for (int i = 0; i < ARRAY_SIZE(sizes); i++) {
		self->args.size = sizes[i];
		EXPECT_FAILS(EINVAL, do_create(self->dev, &self->args));
		EXPECT_FAILS(EINVAL, ioctl(self->dev, RESTRICTEDMEM_INFO,
					   &self->args));
	}
}

TEST_F(device, create_as_first_published)
{
	int fd;

	self->args.size = CREATE_V1;
	/* Not the caller's */
	self->args.numa = UINT32_MAX;
	fd = do_create(self->dev, &self->args);
	EXPECT_LE(0, fd);
	close(fd);
}

TEST_F(device, longer_create_with_a_zero_tail)
{
	struct longer_create args = { .create = self->args };
	int fd;

	args.create.size = sizeof(args);
	fd = do_create(self->dev, &args);
	EXPECT_LE(0, fd);
	close(fd);
}

TEST_F(device, longer_create_with_an_unknown_tail)
{
	struct longer_create args = { .create = self->args };

	args.create.size = sizeof(args);
	args.tail[63] = 1;
	EXPECT_FAILS(E2BIG, do_create(self->dev, &args));
}

TEST_F(device, longer_info_with_a_zero_tail)
{
	struct longer_info args = { .info.size = sizeof(args) };

	EXPECT_EQ(0, ioctl(self->dev, RESTRICTEDMEM_INFO, &args));
	EXPECT_EQ(sizeof(struct restrictedmem_info), args.info.size);
	EXPECT_EQ(RESTRICTEDMEM_ABI_VERSION, args.info.abi_version);
}

TEST_F(device, longer_info_with_an_unknown_tail)
{
	struct longer_info args = { .info.size = sizeof(args), .tail[0] = 1 };

	EXPECT_FAILS(E2BIG, ioctl(self->dev, RESTRICTEDMEM_INFO, &args));
}

TEST_F(device, monstrous_size)
{
	struct restrictedmem_create *args = calloc(1, MIB);

	ASSERT_NE(NULL, args);
	*args = self->args;
	args->size = UINT32_MAX;
	errno = 0;
	EXPECT_EQ(-1, do_create(self->dev, args));
	EXPECT_TRUE(errno == E2BIG || errno == EFAULT);
	free(args);
}

/* INFO */

TEST_F(device, info_says_what_there_is)
{
	struct restrictedmem_info info;

	ASSERT_EQ(0, get_info(&info));
	EXPECT_EQ(sizeof(info), info.size);
	EXPECT_EQ(RESTRICTEDMEM_ABI_VERSION, info.abi_version);
	EXPECT_EQ(PAGE, info.page_sizes[RESTRICTEDMEM_STORE_SHMEM]);
	EXPECT_TRUE(info.features & RESTRICTEDMEM_FEATURE_ALIASES);
	EXPECT_TRUE(info.features & RESTRICTEDMEM_FEATURE_LINK);
	EXPECT_EQ(0, info.features & ~(RESTRICTEDMEM_FEATURE_KVM |
				       RESTRICTEDMEM_FEATURE_ALIASES |
				       RESTRICTEDMEM_FEATURE_LINK |
				       RESTRICTEDMEM_FEATURE_IN_PLACE |
				       RESTRICTEDMEM_FEATURE_NUMA |
				       RESTRICTEDMEM_FEATURE_THP));
	EXPECT_EQ(0, info.limit);
}

TEST_F(device, info_ignores_what_was_there)
{
	struct restrictedmem_info info;

	memset(&info, 0xff, sizeof(info));
	info.size = sizeof(info);
	EXPECT_EQ(0, ioctl(self->dev, RESTRICTEDMEM_INFO, &info));
	EXPECT_EQ(0, info.limit);
}

/* What INFO claims, works; what it does not, is refused. */
TEST_F(device, stores_are_as_info_says)
{
	struct restrictedmem_info info;
	int store, fd;

	ASSERT_EQ(0, get_info(&info));
	for (store = 0; store < RESTRICTEDMEM_NR_STORES; store++) {
		uint64_t sizes = info.page_sizes[store];

		self->args.store = store;
		self->args.page_size = sizes & -sizes;
		self->args.length = sizes & -sizes;
		if (sizes) {
			fd = do_create(self->dev, &self->args);
			EXPECT_LE(0, fd);
			close(fd);
		} else if (store <= RESTRICTEDMEM_STORE_POOL) {
			EXPECT_FAILS(EOPNOTSUPP, do_create(self->dev, &self->args));
		} else {
			EXPECT_FAILS(EINVAL, do_create(self->dev, &self->args));
		}
	}
}

TEST_F(device, info_counts_resident_bytes)
{
	int fd = create_small(16 * PAGE);

	ASSERT_LE(0, fd);
	ASSERT_EQ(0, populate(fd, 0, 5 * PAGE));
	EXPECT_EQ(self->resident + 5 * PAGE, resident_total());
	close(fd);
}

/* CREATE */

TEST_F(device, unknown_flags)
{
	for (int bit = 4; bit < 32; bit++) {
		self->args.flags = 1U << bit;
		EXPECT_FAILS(EINVAL, do_create(self->dev, &self->args));
	}
}

TEST_F(device, unknown_store)
{
	self->args.store = RESTRICTEDMEM_NR_STORES;
	EXPECT_FAILS(EINVAL, do_create(self->dev, &self->args));
	self->args.store = UINT32_MAX;
	EXPECT_FAILS(EINVAL, do_create(self->dev, &self->args));
}

TEST_F(device, unknown_thp)
{
	self->args.thp = 4;
	EXPECT_FAILS(EINVAL, do_create(self->dev, &self->args));
	self->args.thp = UINT32_MAX;
	EXPECT_FAILS(EINVAL, do_create(self->dev, &self->args));
}

TEST_F(device, thp_is_for_shmem_alone)
{
	self->args.store = RESTRICTEDMEM_STORE_HUGETLB;
	self->args.thp = RESTRICTEDMEM_THP_ALWAYS;
	EXPECT_FAILS(EINVAL, do_create(self->dev, &self->args));
}

TEST_F(device, wrong_page_size)
{
	static const uint64_t sizes[] = {
		1, 512, 4095, 4097, 8192, HUGE, GIB, 1ULL << 63, UINT64_MAX,
	};

	for (int i = 0; i < ARRAY_SIZE(sizes); i++) {
		self->args.page_size = sizes[i];
		EXPECT_FAILS(EINVAL, do_create(self->dev, &self->args));
	}
}

TEST_F(device, unaligned_length)
{
	static const uint64_t lengths[] = { 1, 511, 4095, 4097, HUGE + 1 };

	for (int i = 0; i < ARRAY_SIZE(lengths); i++) {
		self->args.length = lengths[i];
		EXPECT_FAILS(EINVAL, do_create(self->dev, &self->args));
	}
}

TEST_F(device, negative_length)
{
	static const uint64_t lengths[] = {
		1ULL << 63, -PAGE, UINT64_MAX, (1ULL << 63) + PAGE,
	};

	for (int i = 0; i < ARRAY_SIZE(lengths); i++) {
		self->args.length = lengths[i];
		EXPECT_FAILS(EINVAL, do_create(self->dev, &self->args));
	}
}

/* More than anybody has: memory is asked for when it is used. */
TEST_F(device, sparse_length)
{
	struct stat st;
	int fd;

	self->args.length = 1ULL << 46;
	fd = do_create(self->dev, &self->args);
	ASSERT_LE(0, fd);
	EXPECT_EQ(0, fstat(fd, &st));
	EXPECT_EQ(1LL << 46, st.st_size);
	EXPECT_EQ(0, populate(fd, (1LL << 46) - PAGE, PAGE));
	EXPECT_EQ(0, punch(fd, 0, 1LL << 46));
	EXPECT_EQ(0, resident(fd));
	close(fd);
}

TEST_F(device, every_policy_of_huge_pages)
{
	for (uint32_t thp = 0; thp <= RESTRICTEDMEM_THP_NEVER; thp++) {
		int fd = create(16 * PAGE, thp);

		EXPECT_LE(0, fd);
		close(fd);
	}
}

TEST_F(device, flags_are_shown)
{
	int fd;

	self->args.flags = RESTRICTEDMEM_CREATE_ALIASES;
	fd = do_create(self->dev, &self->args);
	ASSERT_LE(0, fd);
	EXPECT_EQ(RESTRICTEDMEM_CREATE_ALIASES, fdinfo_number(fd, "flags"));
	close(fd);
}

TEST_F(device, can_be_closed_before_its_files)
{
	int dev = device_open(), fd;

	ASSERT_LE(0, dev);
	fd = do_create(dev, &self->args);
	ASSERT_LE(0, fd);
	close(dev);
	EXPECT_EQ(0, populate(fd, 0, PAGE));
	close(fd);
}

TEST_F(device, file_table_is_full)
{
	struct rlimit old, none;

	ASSERT_EQ(0, getrlimit(RLIMIT_NOFILE, &old));
	none = old;
	none.rlim_cur = 0;
	ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &none));
	EXPECT_FAILS(EMFILE, do_create(self->dev, &self->args));
	EXPECT_EQ(0, setrlimit(RLIMIT_NOFILE, &old));
}

/* The module's limit */

FIXTURE(limit) {
	int fd;
	uint64_t base;
};

FIXTURE_VARIANT(limit) {
	uint32_t thp;
};

FIXTURE_VARIANT_ADD(limit, small) {
	.thp = RESTRICTEDMEM_THP_NEVER,
};

FIXTURE_VARIANT_ADD(limit, huge) {
	.thp = RESTRICTEDMEM_THP_ALWAYS,
};

FIXTURE_SETUP(limit)
{
	self->fd = create(4 * HUGE, variant->thp);
	ASSERT_LE(0, self->fd);
	self->base = resident_total();
	ASSERT_EQ(0, set_limit(self->base + 2 * HUGE));
}

FIXTURE_TEARDOWN(limit)
{
	EXPECT_EQ(0, set_limit(0));
	close(self->fd);
}

TEST_F(limit, info_shows_it)
{
	struct restrictedmem_info info;

	ASSERT_EQ(0, get_info(&info));
	EXPECT_EQ(self->base + 2 * HUGE, info.limit);
}

TEST_F(limit, is_reached_and_not_passed)
{
	EXPECT_FAILS(ENOSPC, populate(self->fd, 0, 4 * HUGE));
	EXPECT_EQ(self->base + 2 * HUGE, resident_total());
	EXPECT_EQ(2 * HUGE, resident(self->fd));
}

TEST_F(limit, what_is_there_stays_usable)
{
	ASSERT_EQ(0, populate(self->fd, 0, 2 * HUGE));
	EXPECT_EQ(0, populate(self->fd, 0, 2 * HUGE));
}

TEST_F(limit, holds_for_all_files_together)
{
	int other = create(4 * HUGE, variant->thp);

	ASSERT_LE(0, other);
	ASSERT_EQ(0, populate(self->fd, 0, HUGE));
	EXPECT_EQ(0, populate(other, 0, HUGE));
	EXPECT_FAILS(ENOSPC, populate(other, HUGE, HUGE));
	EXPECT_EQ(HUGE, resident(other));
	close(other);
}

TEST_F(limit, punch_makes_room)
{
	ASSERT_EQ(0, populate(self->fd, 0, 2 * HUGE));
	ASSERT_EQ(0, punch(self->fd, 0, HUGE));
	EXPECT_EQ(0, populate(self->fd, 2 * HUGE, HUGE));
}

TEST_F(limit, can_fall_below_what_is_there)
{
	ASSERT_EQ(0, populate(self->fd, 0, 2 * HUGE));
	ASSERT_EQ(0, set_limit(PAGE));
	EXPECT_EQ(0, populate(self->fd, 0, 2 * HUGE));
	EXPECT_FAILS(ENOSPC, populate(self->fd, 2 * HUGE, PAGE));
	EXPECT_EQ(2 * HUGE, resident(self->fd));
	/* A new file holds nothing yet. */
	EXPECT_WORKS(close(create_small(PAGE)));
}

TEST_F(limit, can_be_lifted)
{
	ASSERT_EQ(-1, populate(self->fd, 0, 4 * HUGE));
	ASSERT_EQ(0, set_limit(0));
	EXPECT_EQ(0, populate(self->fd, 0, 4 * HUGE));
	EXPECT_EQ(4 * HUGE, resident(self->fd));
}

TEST_F(limit, failure_leaves_no_stray_page)
{
	uint64_t before = resident_total();

	ASSERT_EQ(0, set_limit(self->base + PAGE));
	for (int i = 0; i < 8; i++)
		populate(self->fd, HUGE, 2 * HUGE);
	EXPECT_GE(self->base + PAGE, resident_total());
	EXPECT_EQ(resident_total() - before, resident(self->fd));
	EXPECT_EQ(0, punch(self->fd, 0, 4 * HUGE));
	EXPECT_EQ(before, resident_total());
}

TEST(limit_rejects_what_is_no_number)
{
	EXPECT_EQ(-1, write_text(LIMIT, "plenty"));
	EXPECT_EQ(-1, write_text(LIMIT, "-1"));
}

TEST_HARNESS_MAIN
