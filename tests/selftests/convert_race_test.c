// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * Conversion against what changes beside it: mappings of other pages of the same
 * huge page, and memory errors that the kernel knows of and we do not yet.
 */
#include <linux/kernel-page-flags.h>
#include <pthread.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/uio.h>
#include <sys/wait.h>

#include "kselftest_harness.h"
#include "delay.h"
#include "hugetlb.h"
#include "poison.h"
#include "window.h"

#define BAD	5	/* the page that has the error */

static uint64_t *word(uint64_t *map, uint64_t page)
{
	return map + page * (PAGE / sizeof(*map));
}

/* One huge page, in place and bound, and a window on it, mapped. */
FIXTURE(race) {
	struct accounts accounts;
	uint64_t resident;
	long pool;
	int lost;
	int c;
	int fd;
	int id;
	int win;
	int delays;
	uint64_t *map;
};

FIXTURE_VARIANT(race) {
	uint32_t store;
};

FIXTURE_VARIANT_ADD(race, huge) {
};

FIXTURE_VARIANT_ADD(race, pool) {
	.store = RESTRICTEDMEM_STORE_HUGETLB,
};

FIXTURE_SETUP(race)
{
	const struct restrictedmem_create args = {
		.size = sizeof(args),
		.flags = RESTRICTEDMEM_CREATE_IN_PLACE,
		.length = HUGE,
		.store = variant->store,
		.thp = variant->store ? 0 : RESTRICTEDMEM_THP_ALWAYS,
	};

	catch_sigbus();
	/* What others have lost to memory errors stays. */
	self->pool = pool_resize(HUGE, 0);
	ASSERT_EQ(self->pool + 2, pool_resize(HUGE, self->pool + 2));
	ASSERT_EQ(0, hwpoison_init());
	ASSERT_EQ(0, accounts_begin(&self->accounts));
	self->resident = resident_total();
	self->delays = delay_open();
	self->c = consumer_open();
	ASSERT_LE(0, self->c);
	self->fd = create_with(&args);
	ASSERT_LE(0, self->fd);
	self->id = bind_range(self->c, self->fd, 0, HUGE_PAGES);
	ASSERT_LT(0, self->id);
	ASSERT_EQ(0, write_pattern(self->c, self->id, 0, HUGE_PAGES));
	self->win = open_window(self->fd, 0, HUGE, RESTRICTEDMEM_WINDOW_WRITE);
	ASSERT_LE(0, self->win);
	self->map = map_window(self->win, HUGE, PROT_READ | PROT_WRITE);
	ASSERT_NE(MAP_FAILED, self->map);
}

FIXTURE_TEARDOWN(race)
{
	EXPECT_EQ(0, violations(self->c));
	munmap(self->map, HUGE);
	close(self->win);
	close(self->delays);
	self->accounts.errors = self->lost * (variant->store ? HUGE : PAGE);
	EXPECT_STREQ("", accounts_differ(&self->accounts));
	close(self->c);
	close(self->fd);
	EXPECT_EQ(self->resident, resident_total());
	EXPECT_STREQ("", accounts_end(&self->accounts));
	EXPECT_EQ(self->pool + (variant->store ? self->lost : 0),
		  pool_resize(HUGE, 0));
}

static int run_on_last(bool last)
{
	static cpu_set_t all;	/* as they were before the first call */
	cpu_set_t set;
	int cpu = -1;

	if (!CPU_COUNT(&all))
		sched_getaffinity(0, sizeof(all), &all);
	for (int i = 0; i < CPU_SETSIZE && (last || cpu < 0); i++)
		if (CPU_ISSET(i, &all))
			cpu = i;
	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	return sched_setaffinity(0, sizeof(set), &set);
}

/*
 * A process that maps all pages but the first, and drops them one by one, for
 * ever. On a processor of its own it has nobody to tell of it, and is quick.
 */
static pid_t drop_neighbours(uint64_t *map, volatile bool *dropping)
{
	pid_t pid = fork();

	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	run_on_last(true);
	for (;;) {
		for (int i = 1; i < HUGE_PAGES; i++)
			poke(word(map, i), i);
		*dropping = true;
		/* One mapping less while somebody counts is what hides one holder. */
		for (int i = 1; i < HUGE_PAGES; i++) {
			madvise(word(map, i), PAGE, MADV_DONTNEED);
			sleep_ms(1);
		}
		*dropping = false;
	}
}

/*
 * One page is in a pipe. Its huge page stays held, whichever of the mappings of
 * its neighbours come and go while somebody counts.
 */
TEST_F(race, page_is_held_whatever_is_unmapped_beside_it)
{
	volatile bool *dropping = mmap(NULL, PAGE, PROT_READ | PROT_WRITE,
				       MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	uint64_t taken = 0, other = 0, refused = 0;
	struct iovec iov;
	int pipefd[2];
	pid_t pid;

	if (variant->store)
		return;		/* these are mapped by number, and not counted */
	ASSERT_EQ(0, convert(self->fd, 0, HUGE, SHARED, 0));
	ASSERT_EQ(0, poke(self->map, 42));
	ASSERT_EQ(0, pipe(pipefd));
	iov = (struct iovec) { self->map, 8 };
	ASSERT_EQ(8, vmsplice(pipefd[1], &iov, 1, 0));
	ASSERT_NE(MAP_FAILED, dropping);
	pid = drop_neighbours(self->map, dropping);
	ASSERT_LT(0, pid);
	ASSERT_EQ(0, run_on_last(false));
	for (uint64_t i = 0; i < rounds(60); i++) {
		while (!*dropping)
			sleep_ms(1);
		if (!convert(self->fd, 0, PAGE, PRIVATE, PRESERVE)) {
			taken++;
			ASSERT_EQ(0, convert(self->fd, 0, PAGE, SHARED, PRESERVE));
		} else if (errno == EAGAIN) {
			refused++;
		} else {
			other++;
		}
	}
	kill(pid, SIGKILL);
	ASSERT_EQ(pid, waitpid(pid, NULL, 0));
	EXPECT_EQ(0, taken);
	EXPECT_EQ(0, other);
	EXPECT_EQ(rounds(60), refused);
	munmap((void *)dropping, PAGE);
	close(pipefd[0]);
	close(pipefd[1]);
	EXPECT_WORKS(convert(self->fd, 0, HUGE, PRIVATE, PRESERVE));
}

/* A consumer stands for all who hold pages, as another VM does with a window. */
TEST_F(race, page_that_somebody_holds_does_not_become_private)
{
	struct rmt_page page;
	uint64_t done;

	ASSERT_EQ(0, convert(self->fd, 0, HUGE, SHARED, PRESERVE));
	ASSERT_TRUE(is_visible(self->map));
	ASSERT_EQ(0, get_page(self->c, self->id, 7, RMT_GET_HOLD, &page));
	EXPECT_FAILS(EAGAIN, convert_to(self->fd, 0, HUGE, PRIVATE, 0, &done));
	EXPECT_EQ(0, done);
	EXPECT_TRUE(is_visible(self->map));
	EXPECT_EQ(HUGE, fdinfo_number(self->fd, "shared"));
	EXPECT_EQ(0, count_changed(self->c, self->id, 0, HUGE_PAGES));
	ASSERT_EQ(0, put_page(self->c, self->id, 7));
	EXPECT_WORKS(convert(self->fd, 0, HUGE, PRIVATE, PRESERVE));
	EXPECT_FALSE(is_visible(self->map));
}

static uint64_t page_flags(uint64_t pfn)
{
	int fd = open("/proc/kpageflags", O_RDONLY | O_CLOEXEC);
	uint64_t flags = 0;

	if (pread(fd, &flags, sizeof(flags), pfn * sizeof(flags)) != sizeof(flags))
		flags = ~0ULL;
	close(fd);
	return flags;
}

static void *poison_from_elsewhere(void *arg)
{
	run_on_last(true);
	poison_pfn(*(uint64_t *)arg);
	return NULL;
}

/*
 * The kernel marks a page, of a pool the huge one, and later tells us which page
 * it is about. In between, here a long time, all are converted and zeroed: nobody
 * may see what the guest had in any of them.
 */
TEST_F(race, nothing_is_shared_unzeroed_for_an_error_beside_it)
{
	uint64_t pfn = get_pfn(self->c, self->id, BAD), value;
	uint64_t marked = variant->store ? pfn - BAD : pfn;
	int place, r, unzeroed = 0;
	pthread_t thread;

	ASSERT_LT(BAD, pfn);
	ASSERT_EQ(0, run_on_last(false));
	place = delay_add(self->delays, "restrictedmem:rm_poison_work_fn", 20000, 0);
	ASSERT_EQ(0, pthread_create(&thread, NULL, poison_from_elsewhere, &pfn));
	self->lost++;
	while (!(page_flags(marked) & 1ULL << KPF_HWPOISON))
		;
	/* As long as the error is not located it is one for all of the pages. */
	do {
		r = convert(self->fd, 0, HUGE, SHARED, ZERO);
	} while (r && errno == EHWPOISON);
	EXPECT_EQ(0, r);
	for (int i = 0; i < HUGE_PAGES; i++)
		if (!peek(word(self->map, i), &value) && value)
			unzeroed++;
	EXPECT_EQ(0, unzeroed);
	EXPECT_EQ(0, wait_poisoned(self->fd, PAGE));
	EXPECT_FALSE(is_visible(word(self->map, BAD)));
	EXPECT_EQ(BUS_MCEERR_AR, sigbus_code);
	for (int i = 0; i < HUGE_PAGES; i++)
		if (!peek(word(self->map, i), &value) && value)
			unzeroed++;
	EXPECT_EQ(0, unzeroed);
	EXPECT_LT(0, delay_waits(self->delays, place));
	pthread_join(thread, NULL);
}

/* The kernel holds a page of a pool that has an error, and so it is with others. */
TEST_F(race, pages_beside_an_error_become_private)
{
	uint64_t pfn = get_pfn(self->c, self->id, BAD);

	ASSERT_EQ(0, convert(self->fd, 0, HUGE, SHARED, PRESERVE));
	poison_pfn(pfn);
	self->lost++;
	ASSERT_EQ(0, wait_poisoned(self->fd, PAGE));
	if (variant->store) {
		EXPECT_FAILS(EHWPOISON, convert(self->fd, (BAD + 1) * PAGE, PAGE,
						PRIVATE, PRESERVE));
		EXPECT_TRUE(is_visible(word(self->map, BAD + 1)));
		ASSERT_EQ(0, punch(self->fd, 0, HUGE));
	}
	EXPECT_WORKS(convert(self->fd, (BAD + 1) * PAGE, PAGE, PRIVATE, PRESERVE));
	EXPECT_FALSE(is_visible(word(self->map, BAD + 1)));
	EXPECT_TRUE(is_visible(word(self->map, BAD + 2)));
}

/* Somebody holds the page, so that its huge page cannot be split. */
TEST_F(race, page_with_an_error_is_not_written_to)
{
	uint64_t pfn = get_pfn(self->c, self->id, BAD), value = 0;
	struct iovec iov;
	int pipefd[2];

	if (variant->store)
		return;
	ASSERT_EQ(0, convert(self->fd, 0, HUGE, SHARED, 0));
	ASSERT_EQ(0, poke(word(self->map, BAD), 42));
	ASSERT_EQ(0, poke(word(self->map, BAD + 1), 43));
	ASSERT_EQ(0, poke(word(self->map, BAD + 2), 44));
	ASSERT_EQ(0, pipe(pipefd));
	iov = (struct iovec) { word(self->map, BAD), 16 };
	ASSERT_EQ(16, vmsplice(pipefd[1], &iov, 1, 0));
	poison_pfn(pfn);
	self->lost++;
	ASSERT_EQ(0, wait_poisoned(self->fd, PAGE));
	EXPECT_FALSE(is_visible(word(self->map, BAD)));
	EXPECT_EQ(8, read(pipefd[0], &value, 8));
	EXPECT_EQ(42, value);
	/* Nor when the pages around it are punched, which then read as zeros. */
	ASSERT_EQ(0, punch(self->fd, BAD * PAGE, 2 * PAGE));
	EXPECT_FALSE(is_visible(word(self->map, BAD)));
	EXPECT_EQ(0, *word(self->map, BAD + 1));
	EXPECT_EQ(44, *word(self->map, BAD + 2));
	close(pipefd[0]);
	close(pipefd[1]);
	/* It goes when it is punched and nobody holds it. */
	ASSERT_EQ(0, punch(self->fd, BAD * PAGE, PAGE));
	EXPECT_EQ(0, *word(self->map, BAD));
	EXPECT_EQ(44, *word(self->map, BAD + 2));
	EXPECT_NE(pfn, get_pfn(self->c, self->id, BAD));
}

static void *punch_far_page(void *arg)
{
	punch(*(int *)arg, 300 * PAGE, PAGE);
	return NULL;
}

/* A punch of one page has all of the huge page in its hands meanwhile. */
TEST_F(race, error_beside_a_punch_is_noticed)
{
	uint64_t pfn = get_pfn(self->c, self->id, BAD);
	struct rmt_events got = {};
	pthread_t thread;
	int place;

	if (variant->store)
		return;		/* punched as wholes */
	ASSERT_EQ(0, ioctl(self->c, RMT_EVENTS, &got));
	place = delay_add(self->delays, "shmem_truncate_range", 20000,
			  RMD_OTHER_THREADS);
	ASSERT_EQ(0, pthread_create(&thread, NULL, punch_far_page, &self->fd));
	while (!delay_waits(self->delays, place))
		;
	poison_pfn(pfn);
	self->lost++;
	pthread_join(thread, NULL);
	EXPECT_EQ(0, wait_poisoned(self->fd, PAGE));
	EXPECT_EQ(0, count_changed(self->c, self->id, 0, BAD));
}

/* The last view goes before we have heard of the error. */
TEST_F(race, page_with_an_error_does_not_come_back)
{
	uint64_t pfn = get_pfn(self->c, self->id, BAD), other;
	pthread_t thread;
	int fd;

	if (variant->store)
		return;		/* that is the pool's business */
	ASSERT_EQ(0, run_on_last(false));
	delay_add(self->delays, "restrictedmem:rm_poison_work_fn", 20000, 0);
	ASSERT_EQ(0, pthread_create(&thread, NULL, poison_from_elsewhere, &pfn));
	self->lost++;
	while (!(page_flags(pfn) & 1ULL << KPF_HWPOISON))
		;
	sleep_ms(5);
	ASSERT_EQ(0, punch(self->fd, 0, HUGE));
	pthread_join(thread, NULL);
	/* To take any free page out of use empties the lists of free ones. */
	fd = create_small(PAGE);
	ASSERT_EQ(0, populate(fd, 0, PAGE));
	close(fd);
	other = pfn + 1;
	write_text("/sys/devices/system/memory/soft_offline_page",
		   path_of("%#llx", (unsigned long long)(other * PAGE)));
	EXPECT_TRUE(page_flags(pfn) & 1ULL << KPF_HWPOISON);
	EXPECT_FALSE(page_flags(pfn) & 1ULL << KPF_BUDDY);
}

TEST_HARNESS_MAIN
