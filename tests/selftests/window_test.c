// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * Conversion in place, and windows: who sees what, until when, and what is
 * refused. The consumer stands for the guest.
 */
#include <sched.h>
#include <sys/resource.h>
#include <sys/uio.h>
#include <sys/wait.h>

#include "kselftest_harness.h"
#include "consumer.h"
#include "hugetlb.h"
#include "window.h"

#define SIZE		(2 * HUGE)
#define PAGES		(SIZE / PAGE)

/* A file in place, all of it bound, and a window on all of it, mapped. */
FIXTURE(window) {
	struct accounts accounts;
	uint64_t resident;
	long pool;
	int c;
	int fd;
	int id;
	int win;
	uint64_t *map;
};

FIXTURE_VARIANT(window) {
	uint32_t store;
	uint32_t thp;
};

FIXTURE_VARIANT_ADD(window, small) {
	.thp = RESTRICTEDMEM_THP_NEVER,
};

FIXTURE_VARIANT_ADD(window, huge) {
	.thp = RESTRICTEDMEM_THP_ALWAYS,
};

FIXTURE_VARIANT_ADD(window, pool) {
	.store = RESTRICTEDMEM_STORE_HUGETLB,
};

static int create_in_place(uint64_t length, uint32_t store, uint32_t thp)
{
	const struct restrictedmem_create args = {
		.size = sizeof(args),
		.flags = RESTRICTEDMEM_CREATE_IN_PLACE,
		.length = length,
		.store = store,
		.thp = thp,
	};

	return create_with(&args);
}

FIXTURE_SETUP(window)
{
	catch_sigbus();
	if (variant->store) {
		/* What others have lost to memory errors stays. */
		self->pool = pool_resize(HUGE, 0);
		ASSERT_EQ(self->pool + 4, pool_resize(HUGE, self->pool + 4));
	}
	ASSERT_EQ(0, accounts_begin(&self->accounts));
	self->resident = resident_total();
	self->c = consumer_open();
	ASSERT_LE(0, self->c);
	self->fd = create_in_place(SIZE, variant->store, variant->thp);
	ASSERT_LE(0, self->fd);
	self->id = bind_range(self->c, self->fd, 0, PAGES);
	ASSERT_LT(0, self->id);
	self->win = open_window(self->fd, 0, SIZE, RESTRICTEDMEM_WINDOW_WRITE);
	ASSERT_LE(0, self->win);
	self->map = map_window(self->win, SIZE, PROT_READ | PROT_WRITE);
	ASSERT_NE(MAP_FAILED, self->map);
}

FIXTURE_TEARDOWN(window)
{
	EXPECT_EQ(0, violations(self->c));
	munmap(self->map, SIZE);
	close(self->win);
	EXPECT_STREQ("", accounts_differ(&self->accounts));
	close(self->c);
	close(self->fd);
	EXPECT_EQ(self->resident, resident_total());
	EXPECT_STREQ("", accounts_end(&self->accounts));
	if (variant->store) {
		EXPECT_EQ(self->pool, pool_resize(HUGE, 0));
	}
}

static uint64_t *at(uint64_t *map, uint64_t page)
{
	return map + page * (PAGE / sizeof(*map));
}

/* A word of the memory as the guest sees it. */
static uint64_t guest_word(FIXTURE_DATA(window) *self, uint64_t page)
{
	uint64_t value = ~0ULL;

	read_data(self->c, self->id, page * PAGE, &value, sizeof(value));
	return value;
}

static int guest_set(FIXTURE_DATA(window) *self, uint64_t page, uint64_t value)
{
	return write_data(self->c, self->id, page * PAGE, &value, sizeof(value));
}

/* What is shared, and what is not */

TEST_F(window, all_is_private_at_first)
{
	ASSERT_EQ(0, guest_set(self, 0, 42));
	EXPECT_FALSE(is_visible(self->map));
	EXPECT_EQ(BUS_ADRERR, sigbus_code);
	EXPECT_FALSE(is_visible(at(self->map, PAGES - 1)));
	EXPECT_EQ(-1, poke(self->map, 1));
	EXPECT_EQ(42, guest_word(self, 0));
}

TEST_F(window, access_to_what_is_private_allocates_nothing)
{
	EXPECT_FALSE(is_visible(self->map));
	EXPECT_EQ(-1, poke(at(self->map, 7), 1));
	EXPECT_EQ(0, resident(self->fd));
}

TEST_F(window, shared_page_is_the_same_page)
{
	uint64_t pfn, held, value;

	ASSERT_EQ(0, guest_set(self, 3, 42));
	pfn = get_pfn(self->c, self->id, 3);
	held = resident(self->fd);
	ASSERT_EQ(0, convert(self->fd, 3 * PAGE, PAGE, SHARED, PRESERVE));
	ASSERT_EQ(0, peek(at(self->map, 3), &value));
	EXPECT_EQ(42, value);
	ASSERT_EQ(0, poke(at(self->map, 3), 43));
	EXPECT_EQ(43, guest_word(self, 3));
	ASSERT_EQ(0, guest_set(self, 3, 44));
	EXPECT_EQ(44, *at(self->map, 3));
	EXPECT_EQ(pfn, get_pfn(self->c, self->id, 3));
	EXPECT_EQ(held, resident(self->fd));
}

TEST_F(window, neighbours_stay_private)
{
	ASSERT_EQ(0, guest_set(self, 2, 1));
	ASSERT_EQ(0, guest_set(self, 4, 2));
	ASSERT_EQ(0, convert(self->fd, 3 * PAGE, PAGE, SHARED, PRESERVE));
	EXPECT_TRUE(is_visible(at(self->map, 3)));
	EXPECT_FALSE(is_visible(at(self->map, 2)));
	EXPECT_FALSE(is_visible(at(self->map, 4)));
	EXPECT_EQ(1, guest_word(self, 2));
	EXPECT_EQ(2, guest_word(self, 4));
}

TEST_F(window, page_that_comes_later_is_shared)
{
	uint64_t value = 1;

	ASSERT_EQ(0, convert(self->fd, 0, SIZE, SHARED, 0));
	EXPECT_EQ(0, resident(self->fd));
	ASSERT_EQ(0, peek(at(self->map, 5), &value));
	EXPECT_EQ(0, value);
	EXPECT_LT(0, resident(self->fd));
	ASSERT_EQ(0, poke(at(self->map, 5), 42));
	EXPECT_EQ(42, guest_word(self, 5));
}

TEST_F(window, private_again_is_gone_at_once)
{
	ASSERT_EQ(0, convert(self->fd, 0, SIZE, SHARED, 0));
	ASSERT_EQ(0, poke(self->map, 42));
	ASSERT_EQ(0, poke(at(self->map, 1), 43));
	ASSERT_EQ(0, convert(self->fd, 0, PAGE, PRIVATE, PRESERVE));
	EXPECT_FALSE(is_visible(self->map));
	EXPECT_TRUE(is_visible(at(self->map, 1)));
	EXPECT_EQ(42, guest_word(self, 0));
}

TEST_F(window, mapping_outlives_conversions)
{
	for (int i = 0; i < 10; i++) {
		ASSERT_EQ(0, convert(self->fd, 0, HUGE, SHARED, PRESERVE));
		ASSERT_EQ(0, poke(self->map, i));
		ASSERT_EQ(0, convert(self->fd, 0, HUGE, PRIVATE, PRESERVE));
		ASSERT_FALSE(is_visible(self->map));
		ASSERT_EQ(i, guest_word(self, 0));
	}
}

TEST_F(window, huge_page_stays_whole)
{
	struct rmt_page before, after;

	ASSERT_EQ(0, get_page(self->c, self->id, 0, 0, &before));
	ASSERT_EQ(0, convert(self->fd, 7 * PAGE, PAGE, SHARED, PRESERVE));
	ASSERT_TRUE(is_visible(at(self->map, 7)));
	ASSERT_EQ(0, convert(self->fd, 7 * PAGE, PAGE, PRIVATE, PRESERVE));
	ASSERT_EQ(0, get_page(self->c, self->id, 0, 0, &after));
	EXPECT_EQ(before.order, after.order);
	EXPECT_EQ(before.pfn, after.pfn);
}

/* Contents */

TEST_F(window, default_is_to_zero_on_the_way_out)
{
	ASSERT_EQ(0, guest_set(self, 0, 42));
	ASSERT_EQ(0, guest_set(self, 1, 43));
	ASSERT_EQ(0, convert(self->fd, 0, PAGE, SHARED, 0));
	EXPECT_EQ(0, *self->map);
	EXPECT_EQ(0, guest_word(self, 0));
	EXPECT_EQ(43, guest_word(self, 1));
}

TEST_F(window, default_is_to_zero_on_the_way_in)
{
	ASSERT_EQ(0, convert(self->fd, 0, 2 * PAGE, SHARED, 0));
	ASSERT_EQ(0, poke(self->map, 42));
	ASSERT_EQ(0, poke(at(self->map, 1), 43));
	ASSERT_EQ(0, convert(self->fd, 0, PAGE, PRIVATE, ZERO));
	EXPECT_EQ(0, guest_word(self, 0));
	EXPECT_EQ(43, *at(self->map, 1));
}

TEST_F(window, what_is_so_already_keeps_its_contents)
{
	uint64_t done;

	ASSERT_EQ(0, guest_set(self, 0, 42));
	ASSERT_EQ(0, convert_to(self->fd, 0, PAGE, PRIVATE, ZERO, &done));
	EXPECT_EQ(PAGE, done);
	EXPECT_EQ(42, guest_word(self, 0));
	ASSERT_EQ(0, convert(self->fd, PAGE, PAGE, SHARED, 0));
	ASSERT_EQ(0, poke(at(self->map, 1), 43));
	ASSERT_EQ(0, convert(self->fd, 0, 2 * PAGE, SHARED, ZERO));
	EXPECT_EQ(0, *self->map);
	EXPECT_EQ(43, *at(self->map, 1));
}

TEST_F(window, all_bytes_of_a_range_are_kept)
{
	ASSERT_EQ(0, write_pattern(self->c, self->id, 0, PAGES));
	ASSERT_EQ(0, convert(self->fd, 0, SIZE, SHARED, PRESERVE));
	for (uint64_t i = 0; i < PAGES; i++) {
		uint64_t page[PAGE / 8];

		fill_page(page, i + 1);
		ASSERT_EQ(0, memcmp(page, at(self->map, i), PAGE));
	}
	ASSERT_EQ(0, convert(self->fd, 0, SIZE, PRIVATE, PRESERVE));
	EXPECT_EQ(0, count_changed(self->c, self->id, 0, PAGES));
}

TEST_F(window, punched_page_stays_shared_and_reads_zero)
{
	uint64_t page = variant->store ? HUGE : PAGE;

	ASSERT_EQ(0, convert(self->fd, 0, SIZE, SHARED, 0));
	ASSERT_EQ(0, poke(self->map, 42));
	ASSERT_EQ(0, poke(at(self->map, page / PAGE), 43));
	ASSERT_EQ(0, punch(self->fd, 0, page));
	EXPECT_EQ(0, *self->map);
	EXPECT_EQ(43, *at(self->map, page / PAGE));
	ASSERT_EQ(0, poke(self->map, 44));
	EXPECT_EQ(44, guest_word(self, 0));
}

/* Which pages are shared costs memory, and pages need not be there for that. */
TEST_F(window, ranges_without_pages_are_charged)
{
	uint64_t ranges = 10000, step = 32 * MIB, before, charged;
	const char *group = self->accounts.group;
	int fd;

	if (variant->store || variant->thp != RESTRICTEDMEM_THP_NEVER)
		return;		/* no matter of pages */
	fd = create_in_place(ranges * step, 0, RESTRICTEDMEM_THP_NEVER);
	ASSERT_LE(0, fd);
	before = cgroup_value(group, "memory.current");
	for (uint64_t i = 0; i < ranges; i++)
		ASSERT_EQ(0, convert(fd, i * step, PAGE, SHARED, 0));
	charged = cgroup_value(group, "memory.current") - before;
	/* The kernel charges some pages in advance, or late. */
	EXPECT_LE(ranges * 64, charged + 64 * PAGE);
	close(fd);
	EXPECT_GE(before + 128 * PAGE, cgroup_value(group, "memory.current"));
}

/* Somebody holds a page */

TEST_F(window, held_page_does_not_become_private)
{
	struct iovec iov;
	int pipefd[2];
	char byte;
	uint64_t done;

	if (variant->store)
		return;		/* see pages_of_a_pool_cannot_be_held_by_processes */
	ASSERT_EQ(0, convert(self->fd, 0, SIZE, SHARED, 0));
	ASSERT_EQ(0, poke(at(self->map, HUGE_PAGES + 3), 42));
	ASSERT_EQ(0, poke(self->map, 41));
	ASSERT_EQ(0, pipe(pipefd));
	iov = (struct iovec) { at(self->map, HUGE_PAGES + 3), 8 };
	ASSERT_EQ(8, vmsplice(pipefd[1], &iov, 1, 0));
	EXPECT_FAILS(EAGAIN, convert_to(self->fd, 0, SIZE, PRIVATE, PRESERVE, &done));
	EXPECT_EQ(variant->thp == RESTRICTEDMEM_THP_NEVER ? HUGE + 3 * PAGE : HUGE,
		  done);
	/* As far as it says, and no farther. */
	EXPECT_FALSE(is_visible(self->map));
	EXPECT_EQ(41, guest_word(self, 0));
	EXPECT_EQ(42, *at(self->map, HUGE_PAGES + 3));
	EXPECT_EQ(SIZE - done, fdinfo_number(self->fd, "shared"));
	for (int i = 0; i < 8; i++)
		ASSERT_EQ(1, read(pipefd[0], &byte, 1));
	EXPECT_WORKS(convert_to(self->fd, 0, SIZE, PRIVATE, PRESERVE, &done));
	EXPECT_EQ(SIZE, done);
	EXPECT_EQ(42, guest_word(self, HUGE_PAGES + 3));
	close(pipefd[0]);
	close(pipefd[1]);
}

/* To share is no matter of who holds what. */
TEST_F(window, held_page_can_be_shared_and_its_neighbour_taken_back)
{
	struct iovec iov;
	int pipefd[2];

	if (variant->store || variant->thp != RESTRICTEDMEM_THP_NEVER)
		return;		/* a folio is held as a whole */
	ASSERT_EQ(0, convert(self->fd, 0, 2 * PAGE, SHARED, 0));
	ASSERT_EQ(0, poke(self->map, 42));
	ASSERT_EQ(0, poke(at(self->map, 1), 42));
	ASSERT_EQ(0, pipe(pipefd));
	iov = (struct iovec) { self->map, 8 };
	ASSERT_EQ(8, vmsplice(pipefd[1], &iov, 1, 0));
	EXPECT_WORKS(convert(self->fd, PAGE, PAGE, PRIVATE, PRESERVE));
	EXPECT_WORKS(convert(self->fd, 0, PAGE, SHARED, PRESERVE));
	close(pipefd[0]);
	close(pipefd[1]);
}

TEST_F(window, pages_of_a_pool_cannot_be_held_by_processes)
{
	struct iovec iov;
	int pipefd[2];

	if (!variant->store)
		return;
	ASSERT_EQ(0, convert(self->fd, 0, SIZE, SHARED, 0));
	ASSERT_EQ(0, poke(self->map, 42));
	ASSERT_EQ(0, pipe(pipefd));
	iov = (struct iovec) { self->map, 8 };
	EXPECT_FAILS(EFAULT, vmsplice(pipefd[1], &iov, 1, 0));
	EXPECT_EQ(8, write(pipefd[1], self->map, 8));
	EXPECT_WORKS(convert(self->fd, 0, SIZE, PRIVATE, PRESERVE));
	close(pipefd[0]);
	close(pipefd[1]);
}

static int run_on(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	return sched_setaffinity(0, sizeof(set), &set);
}

/*
 * A processor keeps new pages back for a while, before it puts them on a list.
 * To unmap them makes this one do so, but not the others. No reason to fail.
 */
TEST_F(window, new_pages_can_be_taken_back_at_once)
{
	int cpus = sysconf(_SC_NPROCESSORS_ONLN);

	for (uint64_t i = 0; i < rounds(200); i++) {
		ASSERT_EQ(0, convert(self->fd, 0, 2 * PAGE, SHARED, 0));
		ASSERT_EQ(0, run_on(cpus - 1));
		ASSERT_EQ(0, poke(self->map, i));
		ASSERT_EQ(0, poke(at(self->map, 1), i));
		ASSERT_EQ(0, run_on(0));
		ASSERT_EQ(0, convert(self->fd, 0, 2 * PAGE, PRIVATE, PRESERVE));
		ASSERT_EQ(i, guest_word(self, 1));
		ASSERT_EQ(0, punch(self->fd, 0, HUGE));
	}
}

TEST_F(window, direct_io_goes_through_it)
{
	int disk;

	if (variant->store)
		return;		/* see pages_of_a_pool_cannot_be_held_by_processes */
	disk = open_disk(MIB);
	ASSERT_LE(0, disk);
	ASSERT_EQ(0, convert(self->fd, 0, 4 * PAGE, SHARED, 0));
	ASSERT_EQ(0, poke(at(self->map, 1), 42));
	ASSERT_EQ(PAGE, pwrite(disk, at(self->map, 1), PAGE, 0));
	ASSERT_EQ(PAGE, pread(disk, at(self->map, 2), PAGE, 0));
	EXPECT_EQ(42, guest_word(self, 2));
	EXPECT_WORKS(convert(self->fd, 0, 4 * PAGE, PRIVATE, PRESERVE));
	EXPECT_FAILS(EFAULT, pwrite(disk, at(self->map, 1), PAGE, 0));
	close(disk);
}

/*
 * Who is asked whether a page is held may be on a huge page of which processes map
 * other parts.
 */
TEST_F(window, page_becomes_private_while_its_neighbours_are_mapped)
{
	ASSERT_EQ(0, convert(self->fd, 0, SIZE, SHARED, 0));
	for (uint64_t i = 0; i < 2 * HUGE_PAGES; i++)
		ASSERT_EQ(0, poke(at(self->map, i), i));
	ASSERT_EQ(0, convert(self->fd, 7 * PAGE, HUGE, PRIVATE, PRESERVE));
	for (uint64_t i = 0; i < 2 * HUGE_PAGES; i++)
		ASSERT_EQ(i < 7 || i >= HUGE_PAGES + 7, is_visible(at(self->map, i)));
	EXPECT_EQ(6, *at(self->map, 6));
	EXPECT_EQ(7, guest_word(self, 7));
}

/* Other processes */

TEST_F(window, child_loses_it_as_well)
{
	int ask[2], tell[2], status;
	char byte;
	pid_t pid;

	ASSERT_EQ(0, pipe(ask));
	ASSERT_EQ(0, pipe(tell));
	ASSERT_EQ(0, convert(self->fd, 0, PAGE, SHARED, 0));
	ASSERT_EQ(0, poke(self->map, 42));
	pid = fork();
	if (!pid) {
		uint64_t value;
		int r = 0;

		if (peek(self->map, &value) || value != 42)
			r = 1;
		r |= write(tell[1], "", 1) != 1;
		r |= read(ask[0], &byte, 1) != 1;
		_exit(r ?: is_visible(self->map) ? 2 : 0);
	}
	ASSERT_EQ(1, read(tell[0], &byte, 1));
	ASSERT_EQ(0, convert(self->fd, 0, PAGE, PRIVATE, PRESERVE));
	ASSERT_EQ(1, write(ask[1], "", 1));
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_EQ(0, status);
	close(ask[0]);
	close(ask[1]);
	close(tell[0]);
	close(tell[1]);
}

TEST_F(window, read_only_window_stays_so)
{
	int win = open_window(self->fd, 0, PAGE, 0);
	uint64_t *map, value = 1;
	int mem;

	ASSERT_LE(0, win);
	ASSERT_EQ(0, convert(self->fd, 0, PAGE, SHARED, 0));
	ASSERT_EQ(0, poke(self->map, 42));
	EXPECT_EQ(MAP_FAILED, map_window(win, PAGE, PROT_READ | PROT_WRITE));
	EXPECT_EQ(EACCES, errno);
	map = map_window(win, PAGE, PROT_READ);
	ASSERT_NE(MAP_FAILED, map);
	EXPECT_EQ(42, *map);
	EXPECT_FAILS(EACCES, mprotect(map, PAGE, PROT_READ | PROT_WRITE));
	/* A debugger can write where a program cannot, but not here. */
	mem = open("/proc/self/mem", O_RDWR | O_CLOEXEC);
	ASSERT_LE(0, mem);
	EXPECT_EQ(-1, pwrite(mem, &value, 8, (off_t)(uintptr_t)map));
	EXPECT_EQ(42, *self->map);
	close(mem);
	EXPECT_FAILS(EACCES, fcntl(win, F_SETFL, O_RDWR) ?:
		     mprotect(map, PAGE, PROT_WRITE));
	munmap(map, PAGE);
	close(win);
}

TEST_F(window, shows_its_range_alone)
{
	int win = open_window(self->fd, HUGE, 2 * PAGE, RESTRICTEDMEM_WINDOW_WRITE);
	struct stat st;
	uint64_t *map;

	ASSERT_LE(0, win);
	ASSERT_EQ(0, fstat(win, &st));
	EXPECT_EQ(2 * PAGE, st.st_size);
	EXPECT_TRUE(S_ISREG(st.st_mode));
	EXPECT_EQ(FD_CLOEXEC, fcntl(win, F_GETFD));
	EXPECT_EQ(MAP_FAILED, map_window(win, 3 * PAGE, PROT_READ));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(MAP_FAILED, mmap(NULL, 2 * PAGE, PROT_READ, MAP_SHARED, win, PAGE));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(MAP_FAILED, mmap(NULL, PAGE, PROT_READ, MAP_SHARED, win,
				   (off_t)1 << 62));
	map = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, win, PAGE);
	ASSERT_NE(MAP_FAILED, map);
	EXPECT_EQ(MAP_FAILED, mremap(map, PAGE, 2 * PAGE, MREMAP_MAYMOVE));
	ASSERT_EQ(0, convert(self->fd, 0, SIZE, SHARED, 0));
	ASSERT_EQ(0, poke(map, 42));
	EXPECT_EQ(42, guest_word(self, HUGE_PAGES + 1));
	munmap(map, PAGE);
	close(win);
}

TEST_F(window, is_no_file_to_read_or_change)
{
	char byte = 1;

	ASSERT_EQ(0, convert(self->fd, 0, PAGE, SHARED, 0));
	EXPECT_FAILS(EINVAL, read(self->win, &byte, 1));
	EXPECT_FAILS(EINVAL, write(self->win, &byte, 1));
	EXPECT_FAILS(ESPIPE, lseek(self->win, 0, SEEK_SET));
	EXPECT_FAILS(EPERM, ftruncate(self->win, PAGE));
	EXPECT_FAILS(EPERM, fchmod(self->win, 0666));
	EXPECT_FAILS(EOPNOTSUPP, fallocate(self->win, FALLOC_FL_KEEP_SIZE, 0, PAGE));
	EXPECT_FAILS(EOPNOTSUPP, punch(self->win, 0, PAGE));
	EXPECT_FAILS(EOPNOTSUPP, madvise(self->map, PAGE, MADV_REMOVE));
	EXPECT_FAILS(ENXIO, open(path_of("/proc/self/fd/%d", self->win), O_RDWR));
	EXPECT_FAILS(ENOTTY, convert(self->win, 0, PAGE, SHARED, 0));
	EXPECT_FAILS(ENOTTY, open_window(self->win, 0, PAGE, 0));
	EXPECT_FAILS(ENOTTY, revoke_window(self->win, self->win));
	EXPECT_FAILS(ENOTTY, link_view(self->win));
	EXPECT_FAILS(EBUSY, bind_range(self->c, self->fd, 0, 1));
	EXPECT_FAILS(EINVAL, bind_range(self->c, self->win, 0, 1));
}

TEST_F(window, private_mapping_is_refused)
{
	EXPECT_EQ(MAP_FAILED, mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE,
				   self->win, 0));
	EXPECT_EQ(EINVAL, errno);
}

TEST_F(window, says_what_it_holds)
{
	bool small = variant->thp == RESTRICTEDMEM_THP_NEVER;

	ASSERT_EQ(0, populate(self->fd, 0, HUGE));
	ASSERT_EQ(0, convert(self->fd, 0, SIZE, SHARED, 0));
	ASSERT_EQ(0, poke(self->map, 1));
	ASSERT_EQ(0, poke(at(self->map, 31), 1));
	/* Those of an aligned 64 KiB come together; mapped by number, nothing counts. */
	EXPECT_EQ(variant->store ? 0 : 64 + 4, rss_of(self->map));
	ASSERT_EQ(0, convert(self->fd, 0, PAGE, PRIVATE, PRESERVE));
	/* The rest of a huge page has to be faulted in again. */
	EXPECT_EQ(small ? 60 + 4 : 0, rss_of(self->map));
	ASSERT_TRUE(is_visible(at(self->map, 16)));
	EXPECT_EQ(variant->store ? 0 : small ? 60 + 64 : 64, rss_of(self->map));
}

TEST_F(window, shows_in_fdinfo)
{
	struct stat st;
	int win;

	ASSERT_EQ(0, fstat(self->fd, &st));
	EXPECT_EQ(0, fdinfo_number(self->fd, "shared"));
	EXPECT_EQ(1, fdinfo_number(self->fd, "windows"));
	ASSERT_EQ(0, convert(self->fd, PAGE, 3 * PAGE, SHARED, 0));
	ASSERT_EQ(0, convert(self->fd, 2 * PAGE, PAGE, PRIVATE, 0));
	EXPECT_EQ(2 * PAGE, fdinfo_number(self->fd, "shared"));
	win = open_window(self->fd, PAGE, HUGE, 0);
	ASSERT_LE(0, win);
	EXPECT_EQ(2, fdinfo_number(self->fd, "windows"));
	EXPECT_EQ(st.st_ino, fdinfo_number(win, "window"));
	EXPECT_EQ(PAGE, fdinfo_number(win, "offset"));
	EXPECT_EQ(HUGE, fdinfo_number(win, "length"));
	EXPECT_EQ(0, fdinfo_number(win, "write"));
	EXPECT_EQ(1, fdinfo_number(self->win, "write"));
	EXPECT_EQ(0, fdinfo_number(win, "revoked"));
	ASSERT_EQ(0, revoke_window(self->fd, win));
	EXPECT_EQ(1, fdinfo_number(win, "revoked"));
	EXPECT_EQ(1, fdinfo_number(self->fd, "windows"));
	close(win);
	EXPECT_EQ(1, fdinfo_number(self->fd, "windows"));
}

/* The end */

TEST_F(window, revoked_window_shows_nothing)
{
	int other = open_window(self->fd, 0, SIZE, 0);
	uint64_t *map = map_window(other, SIZE, PROT_READ);

	ASSERT_NE(MAP_FAILED, map);
	ASSERT_EQ(0, convert(self->fd, 0, SIZE, SHARED, 0));
	ASSERT_EQ(0, poke(self->map, 42));
	ASSERT_EQ(42, *map);
	EXPECT_WORKS(revoke_window(self->fd, self->win));
	EXPECT_FALSE(is_visible(self->map));
	EXPECT_FALSE(is_visible(at(self->map, 1)));
	EXPECT_EQ(MAP_FAILED, map_window(self->win, PAGE, PROT_READ));
	EXPECT_EQ(ENODEV, errno);
	EXPECT_WORKS(revoke_window(self->fd, self->win));
	EXPECT_EQ(42, *map);
	/* Shared it is still. */
	EXPECT_EQ(SIZE, fdinfo_number(self->fd, "shared"));
	munmap(map, SIZE);
	close(other);
}

TEST_F(window, all_are_revoked_at_once)
{
	int other = open_window(self->fd, 0, SIZE, 0);
	uint64_t *map = map_window(other, SIZE, PROT_READ);

	ASSERT_NE(MAP_FAILED, map);
	ASSERT_EQ(0, convert(self->fd, 0, SIZE, SHARED, 0));
	ASSERT_EQ(0, poke(self->map, 42));
	EXPECT_WORKS(revoke_window(self->fd, -1));
	EXPECT_FALSE(is_visible(self->map));
	EXPECT_FALSE(is_visible(map));
	EXPECT_EQ(0, fdinfo_number(self->fd, "windows"));
	munmap(map, SIZE);
	close(other);
}

TEST_F(window, revoke_of_what_is_not_ours)
{
	int view = link_view(self->fd);
	struct restrictedmem_revoke args = { .size = sizeof(args), .fd = self->win };

	EXPECT_FAILS(EBADF, revoke_window(self->fd, 1000));
	EXPECT_FAILS(EINVAL, revoke_window(self->fd, -2));
	EXPECT_FAILS(EINVAL, revoke_window(self->fd, self->fd));
	EXPECT_FAILS(EINVAL, revoke_window(self->fd, self->c));
	/* Another view's */
	EXPECT_FAILS(EINVAL, revoke_window(view, self->win));
	args.flags = 1;
	EXPECT_FAILS(EINVAL, ioctl(self->fd, RESTRICTEDMEM_REVOKE, &args));
	args.flags = 0;
	args.reserved = 1;
	EXPECT_FAILS(EINVAL, ioctl(self->fd, RESTRICTEDMEM_REVOKE, &args));
	EXPECT_EQ(0, fdinfo_number(self->win, "revoked"));
	close(view);
}

TEST_F(window, ends_with_its_view)
{
	int view = link_view(self->fd), win;
	uint64_t *map;

	win = open_window(view, 0, SIZE, 0);
	ASSERT_LE(0, win);
	map = map_window(win, SIZE, PROT_READ);
	ASSERT_NE(MAP_FAILED, map);
	ASSERT_EQ(0, convert(view, 0, SIZE, SHARED, 0));
	ASSERT_EQ(0, poke(self->map, 42));
	ASSERT_EQ(42, *map);
	close(view);
	EXPECT_FALSE(is_visible(map));
	EXPECT_EQ(1, fdinfo_number(win, "revoked"));
	EXPECT_EQ(42, *self->map);
	munmap(map, SIZE);
	close(win);
}

TEST_F(window, binding_keeps_it_open)
{
	ASSERT_EQ(0, convert(self->fd, 0, SIZE, SHARED, 0));
	ASSERT_EQ(0, poke(self->map, 42));
	close(self->fd);
	EXPECT_EQ(42, guest_word(self, 0));
	EXPECT_TRUE(is_visible(self->map));
	ASSERT_EQ(0, unbind(self->c, self->id));
	/* The last of it goes when the task returns to userspace. */
	EXPECT_FALSE(is_visible(self->map));
	EXPECT_EQ(self->resident, resident_total());
}

TEST_F(window, keeps_no_memory)
{
	ASSERT_EQ(0, convert(self->fd, 0, SIZE, SHARED, 0));
	ASSERT_EQ(0, populate(self->fd, 0, SIZE));
	ASSERT_EQ(0, poke(self->map, 42));
	ASSERT_EQ(0, unbind(self->c, self->id));
	close(self->fd);
	EXPECT_EQ(self->resident, resident_total());
	EXPECT_FALSE(is_visible(self->map));
	EXPECT_EQ(MAP_FAILED, map_window(self->win, PAGE, PROT_READ));
	EXPECT_EQ(ENODEV, errno);
	EXPECT_EQ(1, fdinfo_number(self->win, "revoked"));
}

TEST_F(window, mapping_outlives_descriptors)
{
	ASSERT_EQ(0, convert(self->fd, 0, PAGE, SHARED, 0));
	close(self->win);
	ASSERT_EQ(0, poke(self->map, 42));
	EXPECT_EQ(42, guest_word(self, 0));
	ASSERT_EQ(0, convert(self->fd, 0, PAGE, PRIVATE, 0));
	EXPECT_FALSE(is_visible(self->map));
	EXPECT_EQ(1, fdinfo_number(self->fd, "windows"));
	munmap(self->map, SIZE);
	EXPECT_EQ(0, fdinfo_number(self->fd, "windows"));
	self->map = MAP_FAILED;
}

/* Arguments */

TEST_F(window, convert_of_a_wrong_range)
{
	uint64_t done;

	EXPECT_FAILS(EINVAL, convert_to(self->fd, 1, PAGE, SHARED, 0, &done));
	EXPECT_EQ(NO_OFFSET, done);
	EXPECT_FAILS(EINVAL, convert(self->fd, 0, PAGE - 1, SHARED, 0));
	EXPECT_FAILS(EINVAL, convert(self->fd, 0, 0, SHARED, 0));
	EXPECT_FAILS(EINVAL, convert(self->fd, SIZE, PAGE, SHARED, 0));
	EXPECT_FAILS(EINVAL, convert(self->fd, PAGE, SIZE, SHARED, 0));
	EXPECT_FAILS(EINVAL, convert(self->fd, -PAGE, 2 * PAGE, SHARED, 0));
	EXPECT_FAILS(EINVAL, convert(self->fd, PAGE, -PAGE, SHARED, 0));
	EXPECT_EQ(0, fdinfo_number(self->fd, "shared"));
}

TEST_F(window, convert_with_wrong_arguments)
{
	struct {
		struct restrictedmem_convert args;
		uint64_t tail;
	} longer = {
		.args = { .size = sizeof(longer), .length = PAGE },
	};

	for (int bit = 2; bit < 32; bit++)
		EXPECT_FAILS(EINVAL, convert(self->fd, 0, PAGE, SHARED, 1U << bit));
	EXPECT_FAILS(EINVAL, convert(self->fd, 0, PAGE, SHARED, ZERO | PRESERVE));
	for (int bit = 0; bit < 64; bit++)
		if (1ULL << bit != PRIVATE) {
			EXPECT_FAILS(EINVAL, convert(self->fd, 0, PAGE, 1ULL << bit, 0));
		}
	EXPECT_FAILS(EFAULT, ioctl(self->fd, RESTRICTEDMEM_CONVERT, NULL));
	EXPECT_WORKS(ioctl(self->fd, RESTRICTEDMEM_CONVERT, &longer));
	longer.tail = 1;
	EXPECT_FAILS(E2BIG, ioctl(self->fd, RESTRICTEDMEM_CONVERT, &longer));
	longer.args.size = sizeof(longer.args) - 1;
	EXPECT_FAILS(EINVAL, ioctl(self->fd, RESTRICTEDMEM_CONVERT, &longer));
	EXPECT_EQ(PAGE, fdinfo_number(self->fd, "shared"));
}

TEST_F(window, window_with_wrong_arguments)
{
	for (int bit = 1; bit < 32; bit++)
		EXPECT_FAILS(EINVAL, open_window(self->fd, 0, PAGE, 1U << bit));
	EXPECT_FAILS(EINVAL, open_window(self->fd, 1, PAGE, 0));
	EXPECT_FAILS(EINVAL, open_window(self->fd, 0, 0, 0));
	EXPECT_FAILS(EINVAL, open_window(self->fd, 0, PAGE + 1, 0));
	EXPECT_FAILS(EINVAL, open_window(self->fd, SIZE, PAGE, 0));
	EXPECT_FAILS(EINVAL, open_window(self->fd, PAGE, -PAGE, 0));
	EXPECT_FAILS(EFAULT, ioctl(self->fd, RESTRICTEDMEM_WINDOW, NULL));
	EXPECT_EQ(1, fdinfo_number(self->fd, "windows"));
}

TEST_F(window, window_without_a_free_descriptor_changes_nothing)
{
	long refs = module_refs("restrictedmem");
	struct rlimit old, none = {};

	ASSERT_EQ(0, getrlimit(RLIMIT_NOFILE, &old));
	none.rlim_max = old.rlim_max;
	ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &none));
	EXPECT_FAILS(EMFILE, open_window(self->fd, 0, PAGE, 0));
	ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &old));
	EXPECT_EQ(refs, module_refs("restrictedmem"));
	EXPECT_EQ(1, fdinfo_number(self->fd, "windows"));
}

TEST_F(window, plain_memory_is_private_for_ever)
{
	int fd = create_small(PAGE);

	ASSERT_LE(0, fd);
	EXPECT_FAILS(EOPNOTSUPP, convert(fd, 0, PAGE, SHARED, 0));
	EXPECT_FAILS(EOPNOTSUPP, convert(fd, 0, PAGE, PRIVATE, 0));
	EXPECT_FAILS(EOPNOTSUPP, open_window(fd, 0, PAGE, 0));
	EXPECT_WORKS(revoke_window(fd, -1));
	EXPECT_FAILS(EINVAL, revoke_window(fd, self->win));
	close(fd);
}

TEST_F(window, memory_without_a_size)
{
	int fd = create_in_place(0, variant->store, variant->thp);

	ASSERT_LE(0, fd);
	EXPECT_FAILS(EINVAL, convert(fd, 0, PAGE, SHARED, 0));
	EXPECT_FAILS(EINVAL, open_window(fd, 0, PAGE, 0));
	ASSERT_EQ(0, ftruncate(fd, HUGE));
	EXPECT_WORKS(convert(fd, 0, PAGE, SHARED, 0));
	close(fd);
}

TEST(info_says_that_there_are_windows)
{
	struct restrictedmem_info info;

	ASSERT_EQ(0, get_info(&info));
	EXPECT_TRUE(info.features & RESTRICTEDMEM_FEATURE_IN_PLACE);
}

TEST_HARNESS_MAIN
