// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * Files: what they say about themselves, their size, and their memory, which
 * comes and goes by fallocate(2).
 */
#include <signal.h>
#include <sys/time.h>
#include <sys/vfs.h>
#include <sys/wait.h>

#include "kselftest_harness.h"
#include "accounting.h"

/* What a file says about itself */

#define RM_DEBUGFS	"/sys/kernel/debug/restrictedmem"

TEST(fd_is_close_on_exec)
{
	int fd = create_small(PAGE);

	ASSERT_LE(0, fd);
	EXPECT_EQ(FD_CLOEXEC, fcntl(fd, F_GETFD));
}

TEST(fd_is_readable_and_writable)
{
	int fd = create_small(PAGE);

	ASSERT_LE(0, fd);
	EXPECT_EQ(O_RDWR, fcntl(fd, F_GETFL) & O_ACCMODE);
}

TEST(fstat_of_a_new_file)
{
	int fd = create_small(16 * PAGE);
	struct stat st;

	ASSERT_LE(0, fd);
	ASSERT_EQ(0, fstat(fd, &st));
	EXPECT_EQ(16 * PAGE, st.st_size);
	EXPECT_EQ(0, st.st_blocks);
	EXPECT_EQ(PAGE, st.st_blksize);
	EXPECT_EQ(0, st.st_nlink);
	EXPECT_EQ(S_IFREG | 0600, st.st_mode);
}

TEST(statx_agrees_with_fstat)
{
	int fd = create_small(16 * PAGE);
	struct statx stx;
	struct stat st;

	ASSERT_LE(0, fd);
	ASSERT_EQ(0, populate(fd, 0, 3 * PAGE));
	ASSERT_EQ(0, fstat(fd, &st));
	ASSERT_EQ(0, statx(fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS, &stx));
	EXPECT_EQ(st.st_size, stx.stx_size);
	EXPECT_EQ(st.st_blocks, stx.stx_blocks);
	EXPECT_EQ(st.st_blksize, stx.stx_blksize);
	EXPECT_EQ(st.st_ino, stx.stx_ino);
}

TEST(inode_numbers_differ)
{
	int a = create_small(PAGE), b = create_small(PAGE);
	struct stat st_a, st_b;

	ASSERT_LE(0, a);
	ASSERT_LE(0, b);
	ASSERT_EQ(0, fstat(a, &st_a));
	ASSERT_EQ(0, fstat(b, &st_b));
	EXPECT_EQ(st_a.st_dev, st_b.st_dev);
	EXPECT_NE(st_a.st_ino, st_b.st_ino);
}

TEST(fstatfs_has_our_type)
{
	int fd = create_small(PAGE);
	struct statfs fs;

	ASSERT_LE(0, fd);
	ASSERT_EQ(0, fstatfs(fd, &fs));
	EXPECT_EQ(RESTRICTEDMEM_FS_MAGIC, fs.f_type);
}

TEST(fdinfo_has_the_keys)
{
	int fd = create_small(16 * PAGE);

	ASSERT_LE(0, fd);
	ASSERT_EQ(0, populate(fd, 0, 2 * PAGE));
	ASSERT_NE(NULL, fdinfo(fd, "store"));
	EXPECT_STREQ("shmem", fdinfo(fd, "store"));
	EXPECT_EQ(PAGE, fdinfo_number(fd, "page_size"));
	EXPECT_EQ(16 * PAGE, fdinfo_number(fd, "size"));
	EXPECT_STREQ("never", fdinfo(fd, "thp"));
	EXPECT_STREQ("default", fdinfo(fd, "numa"));
	EXPECT_EQ(0, fdinfo_number(fd, "reserved"));
	EXPECT_EQ(2 * PAGE, fdinfo_number(fd, "resident"));
	EXPECT_EQ(2 * PAGE, fdinfo_number(fd, "resident_order0"));
	EXPECT_EQ(2 * PAGE, fdinfo_number(fd, "resident_node0"));
	EXPECT_EQ(NULL, fdinfo(fd, "resident_order9"));
	EXPECT_EQ(0, fdinfo_number(fd, "poisoned"));
	EXPECT_EQ(0, fdinfo_number(fd, "bindings"));
	EXPECT_EQ(0, fdinfo_number(fd, "owner"));
	EXPECT_EQ(0, fdinfo_number(fd, "flags"));
}

/* A line of debugfs's list of all memory, for one inode; or "". */
static const char *debugfs_line(ino_t inode)
{
	static char text[65536];
	char *line, *next;

	if (read_text(RM_DEBUGFS "/inodes", text, sizeof(text)) <= 0)
		return "";
	for (line = strtok_r(text, "\n", &next); line;
	     line = strtok_r(NULL, "\n", &next))
		if (strtoul(line, NULL, 10) == inode)
			return line;
	return "";
}

static uint64_t debugfs_bytes(const char *name)
{
	char text[32];

	if (read_text(path_of(RM_DEBUGFS "/%s", name), text, sizeof(text)) <= 0)
		return ~0ULL;
	return strtoull(text, NULL, 10);
}

TEST(debugfs_lists_all_memory)
{
	uint64_t charged = debugfs_bytes("charged");
	char expected[128];
	struct stat st;
	int fd;

	EXPECT_EQ(resident_total(), debugfs_bytes("resident"));
	fd = create_huge(2 * HUGE);
	ASSERT_LE(0, fd);
	ASSERT_EQ(0, populate(fd, 0, HUGE));
	ASSERT_EQ(0, fstat(fd, &st));
	snprintf(expected, sizeof(expected), "%lu\tshmem\t4096\t%lu\t%lu\t0\t0",
		 (unsigned long)st.st_ino, 2 * HUGE, HUGE);
	EXPECT_STREQ(expected, debugfs_line(st.st_ino));
	EXPECT_EQ(resident_total(), debugfs_bytes("resident"));
	EXPECT_EQ(charged + HUGE, debugfs_bytes("charged"));
	close(fd);
	EXPECT_STREQ("", debugfs_line(st.st_ino));
	EXPECT_EQ(charged, debugfs_bytes("charged"));
}

TEST(a_dup_is_the_same_file)
{
	int fd = create_small(PAGE), copy = dup(fd);

	ASSERT_LE(0, fd);
	ASSERT_LE(0, copy);
	ASSERT_EQ(0, populate(fd, 0, PAGE));
	close(fd);
	EXPECT_EQ(PAGE, resident(copy));
}

TEST(a_child_shares_the_memory)
{
	int fd = create_small(2 * PAGE), status;
	pid_t child;

	ASSERT_LE(0, fd);
	child = fork();
	ASSERT_LE(0, child);
	if (!child)
		_exit(populate(fd, 0, PAGE) ? 1 : 0);
	ASSERT_EQ(child, waitpid(child, &status, 0));
	EXPECT_EQ(0, status);
	EXPECT_EQ(PAGE, resident(fd));
}

/* The size */

FIXTURE(unsized) {
	int fd;
};

FIXTURE_SETUP(unsized)
{
	self->fd = create_small(0);
	ASSERT_LE(0, self->fd);
}

FIXTURE_TEARDOWN(unsized)
{
	close(self->fd);
}

TEST_F(unsized, size_is_zero)
{
	struct stat st;

	ASSERT_EQ(0, fstat(self->fd, &st));
	EXPECT_EQ(0, st.st_size);
}

TEST_F(unsized, ftruncate_sets_the_size)
{
	struct stat st;

	EXPECT_EQ(0, ftruncate(self->fd, 3 * PAGE));
	ASSERT_EQ(0, fstat(self->fd, &st));
	EXPECT_EQ(3 * PAGE, st.st_size);
	EXPECT_EQ(0, populate(self->fd, 2 * PAGE, PAGE));
}

TEST_F(unsized, size_is_set_once)
{
	struct stat st;

	ASSERT_EQ(0, ftruncate(self->fd, 3 * PAGE));
	EXPECT_FAILS(EINVAL, ftruncate(self->fd, 4 * PAGE));
	EXPECT_FAILS(EINVAL, ftruncate(self->fd, 2 * PAGE));
	EXPECT_FAILS(EINVAL, ftruncate(self->fd, 3 * PAGE));
	EXPECT_FAILS(EINVAL, ftruncate(self->fd, 0));
	ASSERT_EQ(0, fstat(self->fd, &st));
	EXPECT_EQ(3 * PAGE, st.st_size);
}

TEST_F(unsized, size_is_whole_pages)
{
	EXPECT_FAILS(EINVAL, ftruncate(self->fd, 1));
	EXPECT_FAILS(EINVAL, ftruncate(self->fd, PAGE + 512));
	EXPECT_FAILS(EINVAL, ftruncate(self->fd, 0));
	EXPECT_FAILS(EINVAL, ftruncate(self->fd, -PAGE));
	EXPECT_EQ(0, ftruncate(self->fd, PAGE));
}

TEST_F(unsized, cannot_be_populated)
{
	EXPECT_FAILS(EINVAL, populate(self->fd, 0, PAGE));
}

TEST_F(unsized, punch_does_nothing)
{
	EXPECT_EQ(0, punch(self->fd, 0, PAGE));
}

TEST(size_given_at_creation_stays)
{
	int fd = create_small(2 * PAGE);

	ASSERT_LE(0, fd);
	EXPECT_FAILS(EINVAL, ftruncate(fd, 3 * PAGE));
	EXPECT_FAILS(EINVAL, ftruncate(fd, PAGE));
	EXPECT_FAILS(EINVAL, ftruncate(fd, 0));
}

/* fallocate */

FIXTURE(space) {
	struct accounts accounts;
	int fd;
};

FIXTURE_VARIANT(space) {
	uint32_t thp;
};

FIXTURE_VARIANT_ADD(space, small) {
	.thp = RESTRICTEDMEM_THP_NEVER,
};

FIXTURE_VARIANT_ADD(space, huge) {
	.thp = RESTRICTEDMEM_THP_ALWAYS,
};

FIXTURE_SETUP(space)
{
	ASSERT_EQ(0, accounts_begin(&self->accounts));
	self->fd = create(4 * HUGE, variant->thp);
	ASSERT_LE(0, self->fd);
}

FIXTURE_TEARDOWN(space)
{
	EXPECT_STREQ("", accounts_differ(&self->accounts));
	close(self->fd);
	EXPECT_STREQ("", accounts_end(&self->accounts));
}

TEST_F(space, populate_fills_the_range)
{
	EXPECT_EQ(0, populate(self->fd, HUGE, 2 * HUGE));
	EXPECT_EQ(2 * HUGE, resident(self->fd));
}

TEST_F(space, populate_twice_changes_nothing)
{
	ASSERT_EQ(0, populate(self->fd, 0, HUGE));
	EXPECT_EQ(0, populate(self->fd, 0, HUGE));
	EXPECT_EQ(HUGE, resident(self->fd));
}

TEST_F(space, populate_beyond_the_end)
{
	EXPECT_FAILS(EINVAL, populate(self->fd, 4 * HUGE, PAGE));
	EXPECT_FAILS(EINVAL, populate(self->fd, 4 * HUGE - PAGE, 2 * PAGE));
	EXPECT_FAILS(EINVAL, populate(self->fd, 1UL << 40, PAGE));
	EXPECT_EQ(0, resident(self->fd));
}

TEST_F(space, populate_never_grows_the_file)
{
	struct stat st;

	populate(self->fd, 4 * HUGE, PAGE);
	ASSERT_EQ(0, fstat(self->fd, &st));
	EXPECT_EQ(4 * HUGE, st.st_size);
}

TEST_F(space, populate_unaligned)
{
	EXPECT_FAILS(EINVAL, populate(self->fd, 1, PAGE));
	EXPECT_FAILS(EINVAL, populate(self->fd, 0, PAGE - 1));
	EXPECT_FAILS(EINVAL, populate(self->fd, 0, 0));
	EXPECT_FAILS(EINVAL, populate(self->fd, -PAGE, PAGE));
	EXPECT_EQ(0, resident(self->fd));
}

TEST_F(space, overflowing_range)
{
	EXPECT_FAILS(EFBIG, populate(self->fd, INT64_MAX & -PAGE, 2 * PAGE));
	EXPECT_FAILS(EFBIG, punch(self->fd, INT64_MAX & -PAGE, 2 * PAGE));
}

TEST_F(space, punch_gives_the_memory_back)
{
	uint64_t before = resident_total();

	ASSERT_EQ(0, populate(self->fd, 0, 4 * HUGE));
	ASSERT_EQ(before + 4 * HUGE, resident_total());
	EXPECT_EQ(0, punch(self->fd, HUGE, HUGE));
	EXPECT_EQ(3 * HUGE, resident(self->fd));
	EXPECT_EQ(before + 3 * HUGE, resident_total());
}

TEST_F(space, punch_of_one_page_gives_back_one_page)
{
	ASSERT_EQ(0, populate(self->fd, 0, HUGE));
	EXPECT_EQ(0, punch(self->fd, 5 * PAGE, PAGE));
	EXPECT_EQ(HUGE - PAGE, resident(self->fd));
}

TEST_F(space, punch_across_two_huge_pages)
{
	ASSERT_EQ(0, populate(self->fd, 0, 2 * HUGE));
	EXPECT_EQ(0, punch(self->fd, HUGE - 3 * PAGE, 5 * PAGE));
	EXPECT_EQ(2 * HUGE - 5 * PAGE, resident(self->fd));
}

TEST_F(space, punched_page_can_be_populated_again)
{
	ASSERT_EQ(0, populate(self->fd, 0, HUGE));
	ASSERT_EQ(0, punch(self->fd, 5 * PAGE, PAGE));
	EXPECT_EQ(0, populate(self->fd, 5 * PAGE, PAGE));
	EXPECT_EQ(HUGE, resident(self->fd));
}

TEST_F(space, punch_of_nothing)
{
	EXPECT_EQ(0, punch(self->fd, HUGE, HUGE));
	EXPECT_EQ(0, resident(self->fd));
}

TEST_F(space, punch_beyond_the_end_does_nothing)
{
	ASSERT_EQ(0, populate(self->fd, 3 * HUGE, HUGE));
	EXPECT_EQ(0, punch(self->fd, 4 * HUGE, HUGE));
	EXPECT_EQ(HUGE, resident(self->fd));
}

TEST_F(space, punch_over_the_end_is_clipped)
{
	ASSERT_EQ(0, populate(self->fd, 3 * HUGE, HUGE));
	EXPECT_EQ(0, punch(self->fd, 3 * HUGE, 4 * HUGE));
	EXPECT_EQ(0, resident(self->fd));
}

TEST_F(space, punch_unaligned)
{
	ASSERT_EQ(0, populate(self->fd, 0, HUGE));
	EXPECT_FAILS(EINVAL, punch(self->fd, 1, PAGE));
	EXPECT_FAILS(EINVAL, punch(self->fd, 0, PAGE - 1));
	EXPECT_FAILS(EINVAL, punch(self->fd, PAGE / 2, PAGE));
	EXPECT_FAILS(EINVAL, punch(self->fd, 0, 0));
	EXPECT_EQ(HUGE, resident(self->fd));
}

TEST_F(space, other_modes_of_fallocate)
{
	static const int modes[] = {
		0, FALLOC_FL_PUNCH_HOLE, FALLOC_FL_COLLAPSE_RANGE,
		FALLOC_FL_ZERO_RANGE, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE,
		FALLOC_FL_INSERT_RANGE, FALLOC_FL_UNSHARE_RANGE,
		FALLOC_FL_UNSHARE_RANGE | FALLOC_FL_KEEP_SIZE, 1 << 30,
	};

	for (int i = 0; i < ARRAY_SIZE(modes); i++)
		EXPECT_FAILS(EOPNOTSUPP, fallocate(self->fd, modes[i], 0, PAGE));
	EXPECT_EQ(0, resident(self->fd));
}

TEST_F(space, close_gives_the_memory_back)
{
	uint64_t before = resident_total();
	int fd = create(2 * HUGE, variant->thp);

	ASSERT_LE(0, fd);
	ASSERT_EQ(0, populate(fd, 0, 2 * HUGE));
	EXPECT_EQ(before + 2 * HUGE, resident_total());
	close(fd);
	EXPECT_EQ(before, resident_total());
}

TEST_F(space, file_with_an_odd_end_holds_no_more_than_its_size)
{
	uint64_t before = resident_total();
	int fd = create(HUGE + 3 * PAGE, variant->thp);

	ASSERT_LE(0, fd);
	EXPECT_EQ(0, populate(fd, 0, HUGE + 3 * PAGE));
	EXPECT_EQ(HUGE + 3 * PAGE, resident(fd));
	EXPECT_EQ(before + HUGE + 3 * PAGE, resident_total());
	close(fd);
}

TEST(populate_of_one_page_takes_one_page)
{
	int fd = create_small(HUGE);

	ASSERT_LE(0, fd);
	ASSERT_EQ(0, populate(fd, 7 * PAGE, PAGE));
	EXPECT_EQ(PAGE, resident(fd));
}

static void on_alarm(int signal)
{
}

static void alarm_every_ms(unsigned int ms)
{
	const struct itimerval timer = {
		.it_value.tv_usec = ms * 1000,
		.it_interval.tv_usec = ms * 1000,
	};

	setitimer(ITIMER_REAL, &timer, NULL);
}

TEST(signal_interrupts_populate_which_keeps_its_progress)
{
	const struct sigaction action = { .sa_handler = on_alarm };
	const uint64_t size = smaller(smaller(192 * MIB));
	uint64_t before = 0, now;
	int fd = create_small(size), interrupted = 0;

	ASSERT_LE(0, fd);
	ASSERT_EQ(0, sigaction(SIGALRM, &action, NULL));
	alarm_every_ms(40);
	while (interrupted < 3 && populate(fd, 0, size)) {
		ASSERT_EQ(EINTR, errno);
		interrupted++;
		now = resident(fd);
		EXPECT_LE(before, now);
		EXPECT_GT(size, now);
		before = now;
	}
	alarm_every_ms(0);
	EXPECT_LT(0, interrupted);
	EXPECT_LT(0, before);
	EXPECT_EQ(0, populate(fd, 0, size));
	EXPECT_EQ(size, resident(fd));
}

TEST(fatal_signal_ends_populate)
{
	int fd = create_small(1 * GIB), status;
	pid_t child;

	ASSERT_LE(0, fd);
	child = fork();
	ASSERT_LE(0, child);
	if (!child) {
		populate(fd, 0, 1 * GIB);
		_exit(0);
	}
	while (!resident(fd))
		sleep_ms(5);
	kill(child, SIGKILL);
	ASSERT_EQ(child, waitpid(child, &status, 0));
	EXPECT_TRUE(WIFSIGNALED(status));
	EXPECT_GT(1 * GIB, resident(fd));
}

TEST(memory_is_charged_to_who_populates)
{
	const char *group = CGROUP "/restrictedmem_test";
	int fd = create_small(8 * MIB), status;
	char text[32];
	pid_t child;

	ASSERT_LE(0, fd);
	ASSERT_EQ(0, write_text(CGROUP "/cgroup.subtree_control", "+memory"));
	rmdir(group);
	ASSERT_EQ(0, mkdir(group, 0755));
	child = fork();
	ASSERT_LE(0, child);
	if (!child) {
		if (write_text(path_of("%s/cgroup.procs", group), "0"))
			_exit(1);
		_exit(populate(fd, 0, 8 * MIB) ? 2 : 0);
	}
	ASSERT_EQ(child, waitpid(child, &status, 0));
	ASSERT_EQ(0, status);
	ASSERT_LT(0, read_text(path_of("%s/memory.current", group), text,
			       sizeof(text)));
	EXPECT_LE(8 * MIB, strtoull(text, NULL, 10));
	EXPECT_GT(12 * MIB, strtoull(text, NULL, 10));
	close(fd);
	ASSERT_LT(0, read_text(path_of("%s/memory.current", group), text,
			       sizeof(text)));
	EXPECT_GT(4 * MIB, strtoull(text, NULL, 10));
	EXPECT_EQ(0, rmdir(group));
}

TEST_HARNESS_MAIN
