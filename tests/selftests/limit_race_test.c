// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * The module's limit in a race: who asks for too much makes nobody else fail, and
 * nobody gets past it, by what is still held, either.
 */
#include <pthread.h>
#include <sys/uio.h>

#include "kselftest_harness.h"
#include "consumer.h"
#include "delay.h"
#include "hugetlb.h"
#include "window.h"

static void until_charged(uint64_t bytes)
{
	for (int i = 0; i < 1000 && charged() != bytes; i++)
		sleep_ms(10);
}

/* A thread that does something until it is stopped */
struct worker {
	pthread_t thread;
	int (*work)(struct worker *w);
	int fd;
	bool stop;
	uint64_t worked;
	uint64_t failed;
};

static void *works(void *arg)
{
	struct worker *w = arg;

	while (!__atomic_load_n(&w->stop, __ATOMIC_RELAXED))
		if (w->work(w))
			w->failed++;
		else
			w->worked++;
	return NULL;
}

static void begin_work(struct worker *w, int (*work)(struct worker *), int fd)
{
	*w = (struct worker) { .work = work, .fd = fd };
	pthread_create(&w->thread, NULL, works, w);
}

static void end_work(struct worker *w)
{
	__atomic_store_n(&w->stop, true, __ATOMIC_RELAXED);
	pthread_join(w->thread, NULL);
}

FIXTURE(limit) {
	uint64_t base;
	long pool;
};

FIXTURE_SETUP(limit)
{
	catch_sigbus();
	self->base = charged();
	self->pool = pool_resize(HUGE, 0);
	ASSERT_EQ(self->pool + 2, pool_resize(HUGE, self->pool + 2));
}

FIXTURE_TEARDOWN(limit)
{
	EXPECT_EQ(0, set_limit(0));
	until_charged(self->base);
	EXPECT_EQ(self->base, charged());
	EXPECT_EQ(self->pool, pool_resize(HUGE, 0));
}

/* A reservation of all that the limit allows, and some more */
static int reserves_too_much(struct worker *w)
{
	int fd = create_pooled(HUGE, 64 * GIB, RESTRICTEDMEM_CREATE_RESERVE);

	if (fd >= 0)
		close(fd);
	return fd < 0 && errno == ENOSPC;
}

/* One that the limit allows, but not the pool */
static int reserves_what_is_not_there(struct worker *w)
{
	int fd = create_pooled(HUGE, 8 * HUGE, RESTRICTEDMEM_CREATE_RESERVE);

	if (fd >= 0)
		close(fd);
	return fd < 0 && errno == ENOSPC;
}

static int populates_too_much(struct worker *w)
{
	return populate(w->fd, 0, HUGE) && errno == ENOSPC;
}

/* Somebody else, who has room */
static void expect_room(struct __test_metadata *_metadata, uint64_t length, uint64_t nr)
{
	int fd = create_small(length);
	uint64_t failed = 0;

	for (uint64_t i = 0; i < nr; i++) {
		failed += populate(fd, 0, length) != 0;
		punch(fd, 0, length);
	}
	close(fd);
	EXPECT_EQ(0, failed);
}

TEST_F(limit, who_reserves_too_much_disturbs_nobody)
{
	struct worker w;

	ASSERT_EQ(0, set_limit(self->base + GIB));
	begin_work(&w, reserves_too_much, -1);
	expect_room(_metadata, PAGE, rounds(300));
	end_work(&w);
	EXPECT_EQ(0, w.worked);
	EXPECT_LT(0, w.failed);
}

TEST_F(limit, who_reserves_what_is_not_there_disturbs_nobody)
{
	int delay = delay_open(), place;
	struct worker w;

	place = delay_add(delay, "restrictedmem:rm_hugetlb_set_up", 2000, RMD_OTHER_THREADS);
	ASSERT_EQ(0, set_limit(self->base + 9 * HUGE));
	begin_work(&w, reserves_what_is_not_there, -1);
	while (!delay_waits(delay, place))
		sched_yield();
	expect_room(_metadata, 2 * HUGE, rounds(50));
	end_work(&w);
	close(delay);
	EXPECT_EQ(0, w.worked);
	EXPECT_LT(0, w.failed);
}

TEST_F(limit, who_asks_for_a_page_too_large_disturbs_nobody)
{
	int fd = create_huge(HUGE);
	struct worker w;

	ASSERT_EQ(0, set_limit(self->base + HUGE / 2));
	begin_work(&w, populates_too_much, fd);
	expect_room(_metadata, PAGE, rounds(300));
	end_work(&w);
	close(fd);
	EXPECT_EQ(0, w.worked);
	EXPECT_LT(0, w.failed);
}

/* Nor does it take a page of the pool, where somebody else would miss it. */
TEST_F(limit, who_is_refused_takes_nothing_from_the_pool)
{
	int fd = create_pooled(HUGE, HUGE, 0);
	int delay = delay_open();
	int place = delay_add(delay, "hugetlbfs_fallocate", 0, 0);

	ASSERT_EQ(0, set_limit(self->base + HUGE / 2));
	EXPECT_FAILS(ENOSPC, populate(fd, 0, HUGE));
	EXPECT_EQ(0, delay_waits(delay, place));
	ASSERT_EQ(0, set_limit(self->base + HUGE));
	EXPECT_WORKS(populate(fd, 0, HUGE));
	close(delay);
	close(fd);
}

/* What is held */

/* Memory in huge pages, all shared, of each of which a pipe holds one page */
struct held {
	int fd;
	int win;
	uint64_t *map;
	int pipe[2];
};

static int hold(struct held *h, uint64_t length)
{
	const struct restrictedmem_create args = {
		.size = sizeof(args),
		.flags = RESTRICTEDMEM_CREATE_IN_PLACE,
		.length = length,
		.thp = RESTRICTEDMEM_THP_ALWAYS,
	};

	h->fd = create_with(&args);
	if (h->fd < 0 || populate(h->fd, 0, length) ||
	    convert(h->fd, 0, length, SHARED, 0) || pipe(h->pipe))
		return -1;
	h->win = open_window(h->fd, 0, length, RESTRICTEDMEM_WINDOW_WRITE);
	h->map = map_window(h->win, length, PROT_READ | PROT_WRITE);
	if (h->map == MAP_FAILED)
		return -1;
	for (uint64_t i = 0; i < length; i += HUGE) {
		struct iovec iov = { (char *)h->map + i, 8 };

		if (vmsplice(h->pipe[1], &iov, 1, 0) != 8)
			return -1;
	}
	return 0;
}

static void let_go(struct held *h)
{
	close(h->pipe[0]);
	close(h->pipe[1]);
}

static void close_held(struct held *h)
{
	munmap(h->map, HUGE);
	close(h->win);
	if (h->fd >= 0)
		close(h->fd);
	h->fd = -1;
}

TEST_F(limit, punched_page_that_is_held_stays_charged)
{
	int fd = create_small(HUGE);
	struct held h;

	ASSERT_EQ(0, hold(&h, 2 * HUGE));
	ASSERT_EQ(self->base + 2 * HUGE, charged());
	EXPECT_WORKS(punch(h.fd, 0, 2 * HUGE));
	EXPECT_EQ(0, resident(h.fd));
	EXPECT_EQ(self->base + 2 * HUGE, charged());
	ASSERT_EQ(0, set_limit(self->base + 2 * HUGE));
	EXPECT_FAILS(ENOSPC, populate(fd, 0, PAGE));
	EXPECT_FAILS(ENOSPC, populate(h.fd, 0, PAGE));
	/* At the limit nobody waits for what was let go to be found. */
	let_go(&h);
	EXPECT_WORKS(populate(fd, 0, HUGE));
	EXPECT_WORKS(populate(h.fd, 0, HUGE));
	close_held(&h);
	close(fd);
}

TEST_F(limit, held_page_of_a_file_that_is_closed_stays_charged)
{
	struct held h;

	for (int i = 0; i < 2; i++) {
		ASSERT_EQ(0, hold(&h, HUGE));
		close_held(&h);
		EXPECT_EQ(self->base + HUGE, charged());
		let_go(&h);
		/* It is found without anybody who asks for memory, too. */
		until_charged(self->base);
		EXPECT_EQ(self->base, charged());
	}
}

TEST_F(limit, page_that_nobody_holds_goes_at_once)
{
	int fd = create_huge(4 * HUGE);

	ASSERT_EQ(0, populate(fd, 0, 4 * HUGE));
	EXPECT_WORKS(punch(fd, HUGE, HUGE));
	EXPECT_EQ(self->base + 3 * HUGE, charged());
	close(fd);
	EXPECT_EQ(self->base, charged());
}

static int populates_one(struct worker *w)
{
	return populate(w->fd, 0, HUGE);
}

/* Of a huge page that cannot be split nothing is free, not for a moment either. */
TEST_F(limit, nobody_gets_in_while_a_held_page_is_punched)
{
	int delay = delay_open(), fd = create_huge(HUGE);
	struct worker w;
	struct held h;
	int place;

	ASSERT_EQ(0, hold(&h, HUGE));
	ASSERT_EQ(0, set_limit(self->base + HUGE));
	place = delay_add(delay, "shmem_truncate_range", 20000, RMD_THIS_THREAD);
	begin_work(&w, populates_one, fd);
	for (uint64_t n = rounds(5) + 1; n; n--)
		EXPECT_WORKS(punch(h.fd, 0, PAGE));
	end_work(&w);
	EXPECT_LT(0, delay_waits(delay, place));
	close(delay);
	EXPECT_EQ(0, w.worked);
	EXPECT_LT(0, w.failed);
	EXPECT_EQ(self->base + HUGE, charged());
	let_go(&h);
	/* Now it can be split. */
	EXPECT_WORKS(punch(h.fd, 0, PAGE));
	EXPECT_EQ(self->base + HUGE - PAGE, charged());
	close_held(&h);
	close(fd);
}

TEST_HARNESS_MAIN
