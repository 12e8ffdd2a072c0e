// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * Invalidation, through the consumer in restrictedmem_test.ko: when its notifier
 * is called, for which range, and who waits for whom. Ranges are in pages,
 * [start, end).
 */
#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>

#include "kselftest_harness.h"
#include "consumer.h"

#define MAX_EVENTS	64

FIXTURE(notifier) {
	CONSUMER_AND_FILES;
	struct rmt_event events[MAX_EVENTS];
	unsigned int nr_events;
};

FIXTURE_SETUP(notifier)
{
	SETUP_CONSUMER_AND_FILES();
}

/* Append what was logged since; return what all the time was broken. */
static int take_events(FIXTURE_DATA(notifier) *self)
{
	struct rmt_events arg = {
		.buf = (uintptr_t)&self->events[self->nr_events],
		.count = MAX_EVENTS - self->nr_events,
	};

	if (ioctl(self->c, RMT_EVENTS, &arg))
		return -1;
	self->nr_events += arg.count;
	return arg.violations;
}

static int nr_mapped(int c)
{
	struct rmt_events arg = {};

	return ioctl(c, RMT_EVENTS, &arg) ? -1 : arg.mapped;
}

/* No promise was broken, and nothing is left. */
FIXTURE_TEARDOWN(notifier)
{
	self->nr_events = 0;
	EXPECT_EQ(0, take_events(self));
	TEARDOWN_CONSUMER_AND_FILES();
}

/* Invalidation */

#define EXPECT_PAIR(_i, _id, _start, _end) do {				\
	EXPECT_EQ(RMT_START, self->events[_i].type);			\
	EXPECT_EQ(_id, self->events[_i].id);				\
	EXPECT_EQ(_start, self->events[_i].start);			\
	EXPECT_EQ(_end, self->events[_i].end);				\
	EXPECT_EQ(RMT_END, self->events[(_i) + 1].type);		\
	EXPECT_EQ(_id, self->events[(_i) + 1].id);			\
	EXPECT_EQ(_start, self->events[(_i) + 1].start);		\
	EXPECT_EQ(_end, self->events[(_i) + 1].end);			\
	EXPECT_LT(self->events[_i].seq, self->events[(_i) + 1].seq);	\
} while (0)

TEST_F(notifier, punch_hole_notifies)
{
	int id = bind_range(self->c, self->small, 0, 16);

	ASSERT_LT(0, id);
	ASSERT_EQ(0, populate(self->small, 0, 16 * PAGE));
	ASSERT_EQ(0, punch(self->small, 3 * PAGE, 2 * PAGE));
	EXPECT_EQ(0, take_events(self));
	ASSERT_EQ(2, self->nr_events);
	EXPECT_PAIR(0, id, 3, 5);
}

TEST_F(notifier, punch_hole_notifies_before_discard)
{
	int id = bind_range(self->c, self->small, 0, 16);
	struct rmt_page page;

	ASSERT_LT(0, id);
	ASSERT_EQ(0, write_pattern(self->c, id, 0, 16));
	for (int i = 2; i < 6; i++)
		ASSERT_EQ(0, get_page(self->c, id, i, RMT_GET_MAP, &page));
	ASSERT_EQ(4, nr_mapped(self->c));
	ASSERT_EQ(0, punch(self->small, 3 * PAGE, 2 * PAGE));
	EXPECT_EQ(0, take_events(self));
	ASSERT_EQ(2, self->nr_events);
	EXPECT_EQ(2, self->events[0].mapped);
	EXPECT_EQ(2, self->events[0].intact);
	EXPECT_EQ(2, nr_mapped(self->c));
}

/* All that time the page must not go. */
TEST_F(notifier, discard_waits_for_a_slow_consumer)
{
	int id = bind_range(self->c, self->small, 0, 16);
	struct rmt_page page;

	ASSERT_LT(0, id);
	ASSERT_EQ(0, write_pattern(self->c, id, 0, 16));
	ASSERT_EQ(0, get_page(self->c, id, 3, RMT_GET_MAP, &page));
	ASSERT_EQ(0, ioctl(self->c, RMT_SET_DELAY, 100));
	ASSERT_EQ(0, punch(self->small, 0, 16 * PAGE));
	EXPECT_EQ(0, take_events(self));
	ASSERT_EQ(2, self->nr_events);
	EXPECT_EQ(1, self->events[0].mapped);
	EXPECT_EQ(1, self->events[0].intact);
}

TEST_F(notifier, punch_hole_notifies_whole_folio)
{
	int id = bind_range(self->c, self->huge, 0, 4 * HUGE_PAGES);
	struct rmt_page page;

	ASSERT_LT(0, id);
	ASSERT_EQ(0, populate(self->huge, 0, 4 * HUGE));
	ASSERT_EQ(0, get_page(self->c, id, HUGE_PAGES + 1, RMT_GET_MAP, &page));
	ASSERT_EQ(HUGE_ORDER, page.order);
	ASSERT_EQ(0, punch(self->huge, HUGE + 7 * PAGE, PAGE));
	EXPECT_EQ(0, take_events(self));
	ASSERT_EQ(2, self->nr_events);
	EXPECT_PAIR(0, id, HUGE_PAGES, 2 * HUGE_PAGES);
	EXPECT_EQ(1, self->events[0].mapped);
	EXPECT_EQ(1, self->events[0].intact);
}

TEST_F(notifier, punch_hole_notifies_folios_at_both_ends)
{
	int id = bind_range(self->c, self->huge, 0, 4 * HUGE_PAGES);

	ASSERT_LT(0, id);
	ASSERT_EQ(0, populate(self->huge, 0, 4 * HUGE));
	ASSERT_EQ(0, punch(self->huge, HUGE - PAGE, HUGE + 2 * PAGE));
	EXPECT_EQ(0, take_events(self));
	ASSERT_EQ(2, self->nr_events);
	EXPECT_PAIR(0, id, 0, 3 * HUGE_PAGES);
}

TEST_F(notifier, whole_folio_is_clipped_to_the_binding)
{
	int id = bind_range(self->c, self->huge, 3, 300);

	ASSERT_LT(0, id);
	ASSERT_EQ(0, populate(self->huge, 0, HUGE));
	ASSERT_EQ(0, punch(self->huge, 500 * PAGE, PAGE));
	EXPECT_EQ(0, take_events(self));
	ASSERT_EQ(2, self->nr_events);
	EXPECT_PAIR(0, id, 3, 300);
}

TEST_F(notifier, only_bindings_in_the_range_are_notified)
{
	int a = bind_range(self->c, self->small, 0, 4);
	int b = bind_range(self->c, self->small, 4, 8);
	int c = bind_range(self->c, self->small, 8, 12);

	ASSERT_LT(0, a);
	ASSERT_LT(0, b);
	ASSERT_LT(0, c);
	ASSERT_EQ(0, populate(self->small, 0, 16 * PAGE));
	ASSERT_EQ(0, punch(self->small, 4 * PAGE, 4 * PAGE));
	EXPECT_EQ(0, take_events(self));
	ASSERT_EQ(2, self->nr_events);
	EXPECT_PAIR(0, b, 4, 8);
}

TEST_F(notifier, punch_outside_of_all_bindings_notifies_nobody)
{
	ASSERT_LT(0, bind_range(self->c, self->small, 0, 4));
	ASSERT_EQ(0, populate(self->small, 0, 16 * PAGE));
	ASSERT_EQ(0, punch(self->small, 4 * PAGE, 12 * PAGE));
	ASSERT_EQ(0, punch(self->small, 16 * PAGE, PAGE));
	EXPECT_EQ(0, take_events(self));
	EXPECT_EQ(0, self->nr_events);
}

TEST_F(notifier, populate_notifies_nobody)
{
	ASSERT_LT(0, bind_range(self->c, self->small, 0, 16));
	ASSERT_EQ(0, populate(self->small, 0, 16 * PAGE));
	EXPECT_EQ(0, take_events(self));
	EXPECT_EQ(0, self->nr_events);
}

TEST_F(notifier, unbound_consumer_is_not_notified)
{
	int id = bind_range(self->c, self->small, 0, 16);

	ASSERT_LT(0, id);
	ASSERT_EQ(0, populate(self->small, 0, 16 * PAGE));
	ASSERT_EQ(0, unbind(self->c, id));
	ASSERT_EQ(0, punch(self->small, 0, 16 * PAGE));
	EXPECT_EQ(0, take_events(self));
	EXPECT_EQ(0, self->nr_events);
}

TEST_F(notifier, refused_fallocate_notifies_nobody)
{
	ASSERT_LT(0, bind_range(self->c, self->small, 0, 16));
	ASSERT_EQ(0, populate(self->small, 0, 16 * PAGE));
	ASSERT_EQ(-1, punch(self->small, 1, PAGE));
	ASSERT_EQ(-1, fallocate(self->small, FALLOC_FL_ZERO_RANGE, 0, PAGE));
	EXPECT_EQ(0, take_events(self));
	EXPECT_EQ(0, self->nr_events);
}

TEST_F(notifier, every_alias_is_notified)
{
	int fd = create_aliased(16 * PAGE), a, b;

	ASSERT_LE(0, fd);
	a = bind_range(self->c, fd, 0, 8);
	b = bind_range(self->c, fd, 4, 12);
	ASSERT_LT(0, a);
	ASSERT_LT(0, b);
	ASSERT_EQ(0, populate(fd, 0, 16 * PAGE));
	ASSERT_EQ(0, punch(fd, 5 * PAGE, PAGE));
	ASSERT_EQ(0, take_events(self));
	ASSERT_EQ(4, self->nr_events);
	/* Both starts before both ends. */
	EXPECT_EQ(RMT_START, self->events[0].type);
	EXPECT_EQ(RMT_START, self->events[1].type);
	EXPECT_NE(self->events[0].id, self->events[1].id);
	EXPECT_EQ(RMT_END, self->events[2].type);
	EXPECT_EQ(RMT_END, self->events[3].type);
	EXPECT_NE(self->events[2].id, self->events[3].id);
	close(fd);
}

/* Waiting */

struct punch_arg {
	int fd;
	off_t offset;
	off_t len;
	int result;
};

static void *punch_thread(void *data)
{
	struct punch_arg *arg = data;

	arg->result = punch(arg->fd, arg->offset, arg->len);
	return NULL;
}

/* Start a punch that takes 300 ms; return within its invalidate_start. */
static pthread_t begin_slow_punch(FIXTURE_DATA(notifier) *self,
				  struct punch_arg *arg)
{
	pthread_t thread;

	ioctl(self->c, RMT_SET_DELAY, 300);
	pthread_create(&thread, NULL, punch_thread, arg);
	while (!self->nr_events) {
		sleep_ms(1);
		if (take_events(self) < 0)
			break;
	}
	return thread;
}

TEST_F(notifier, unbind_waits_for_an_invalidation)
{
	int id = bind_range(self->c, self->small, 0, 16);
	struct punch_arg arg = { self->small, 0, 16 * PAGE };
	struct rmt_unbind unbind = { .id = id };
	pthread_t thread;

	ASSERT_LT(0, id);
	ASSERT_EQ(0, populate(self->small, 0, 16 * PAGE));
	thread = begin_slow_punch(self, &arg);
	EXPECT_EQ(0, ioctl(self->c, RMT_UNBIND, &unbind));
	pthread_join(thread, NULL);
	EXPECT_EQ(0, arg.result);
	EXPECT_EQ(0, take_events(self));
	ASSERT_EQ(2, self->nr_events);
	EXPECT_PAIR(0, id, 0, 16);
	EXPECT_LT(self->events[1].seq, unbind.seq);
}

TEST_F(notifier, bind_waits_for_an_invalidation)
{
	int id = bind_range(self->c, self->small, 0, 8);
	struct punch_arg arg = { self->small, 0, 16 * PAGE };
	pthread_t thread;
	uint64_t seq = 0;

	ASSERT_LT(0, id);
	ASSERT_EQ(0, populate(self->small, 0, 16 * PAGE));
	thread = begin_slow_punch(self, &arg);
	EXPECT_LT(0, bind_seq(self->c, self->small, 8, 16, &seq));
	pthread_join(thread, NULL);
	EXPECT_EQ(0, take_events(self));
	/* The new binding is in the range, but came too late for its start. */
	ASSERT_EQ(2, self->nr_events);
	EXPECT_PAIR(0, id, 0, 8);
	EXPECT_LT(self->events[1].seq, seq);
}

TEST_F(notifier, get_pfn_waits_for_an_invalidation)
{
	int id = bind_range(self->c, self->small, 0, 16);
	struct punch_arg arg = { self->small, 0, 16 * PAGE };
	struct rmt_page page;
	pthread_t thread;

	ASSERT_LT(0, id);
	ASSERT_EQ(0, populate(self->small, 0, 16 * PAGE));
	thread = begin_slow_punch(self, &arg);
	EXPECT_WORKS(get_page(self->c, id, 3, 0, &page));
	pthread_join(thread, NULL);
	EXPECT_EQ(0, take_events(self));
	ASSERT_EQ(2, self->nr_events);
	EXPECT_LT(self->events[1].seq, page.seq);
	EXPECT_EQ(PAGE, resident(self->small));
}

TEST_F(notifier, two_invalidations_do_not_nest)
{
	struct punch_arg a = { self->small, 0, 8 * PAGE };
	struct punch_arg b = { self->small, 4 * PAGE, 8 * PAGE };
	int id = bind_range(self->c, self->small, 0, 16);
	pthread_t thread;

	ASSERT_LT(0, id);
	ASSERT_EQ(0, populate(self->small, 0, 16 * PAGE));
	thread = begin_slow_punch(self, &a);
	punch_thread(&b);
	pthread_join(thread, NULL);
	EXPECT_EQ(0, take_events(self));
	ASSERT_EQ(4, self->nr_events);
	EXPECT_PAIR(0, id, 0, 8);
	EXPECT_PAIR(2, id, 4, 12);
}

/* Kill a child that waits in @call for a slow punch, before that is done. */
#define EXPECT_KILLABLE(_call) do {					\
	struct punch_arg _arg = { self->small, 0, 16 * PAGE };		\
	pthread_t _thread = begin_slow_punch(self, &_arg);		\
	pid_t _child = fork();						\
	int _status;							\
									\
	ASSERT_LE(0, _child);						\
	if (!_child) {							\
		_call;							\
		_exit(0);						\
	}								\
	sleep_ms(50);							\
	kill(_child, SIGKILL);						\
	ASSERT_EQ(_child, waitpid(_child, &_status, 0));		\
	EXPECT_TRUE(WIFSIGNALED(_status));				\
	EXPECT_EQ(0, take_events(self));				\
	EXPECT_EQ(1, self->nr_events);					\
	pthread_join(_thread, NULL);					\
} while (0)

TEST_F(notifier, waiting_get_pfn_can_be_killed)
{
	int id = bind_range(self->c, self->small, 0, 16);

	ASSERT_LT(0, id);
	EXPECT_KILLABLE(get_pfn(self->c, id, 3));
}

TEST_F(notifier, waiting_bind_can_be_killed)
{
	ASSERT_LT(0, bind_range(self->c, self->small, 0, 8));
	EXPECT_KILLABLE(bind_range(self->c, self->small, 8, 16));
	EXPECT_EQ(1, fdinfo_number(self->small, "bindings"));
}

TEST_F(notifier, waiting_punch_can_be_killed)
{
	ASSERT_LT(0, bind_range(self->c, self->small, 0, 16));
	EXPECT_KILLABLE(punch(self->small, 0, 16 * PAGE));
	EXPECT_EQ(0, take_events(self));
	EXPECT_EQ(2, self->nr_events);
}

/* Everything at once */

struct storm {
	int c;
	int fd;
	int id;
	uint64_t pages;
	volatile bool stop;
	unsigned long got;
	unsigned long punched;
};

static void *storm_get(void *data)
{
	struct storm *s = data;
	unsigned int seed = 1;
	struct rmt_page page;

	while (!s->stop)
		if (!get_page(s->c, s->id, rand_r(&seed) % s->pages, RMT_GET_MAP,
			      &page))
			s->got++;
	return NULL;
}

static void *storm_punch(void *data)
{
	struct storm *s = data;
	unsigned int seed = 2;

	while (!s->stop) {
		uint64_t start = rand_r(&seed) % s->pages;
		uint64_t len = 1 + rand_r(&seed) % 64;

		if (!punch(s->fd, start * PAGE, len * PAGE))
			s->punched++;
	}
	return NULL;
}

static void *storm_bind(void *data)
{
	struct storm *s = data;
	int id;

	while (!s->stop) {
		id = bind_range(s->c, s->fd, s->pages, s->pages + 8);
		if (id > 0)
			unbind(s->c, id);
	}
	return NULL;
}

static void *storm_populate(void *data)
{
	struct storm *s = data;

	while (!s->stop)
		populate(s->fd, 0, s->pages * PAGE);
	return NULL;
}

/* The teardown looks for violations. */
static void run_storm(struct __test_metadata *_metadata, int c, int fd,
		      uint64_t pages)
{
	static void *(*const threads[])(void *) = {
		storm_get, storm_punch, storm_get, storm_punch, storm_bind,
		storm_populate,
	};
	struct storm s = { .c = c, .fd = fd, .pages = pages };
	pthread_t ids[ARRAY_SIZE(threads)];

	s.id = bind_range(c, fd, 0, pages);
	ASSERT_LT(0, s.id);
	for (int i = 0; i < ARRAY_SIZE(threads); i++)
		ASSERT_EQ(0, pthread_create(&ids[i], NULL, threads[i], &s));
	sleep_ms(1500);
	s.stop = true;
	for (int i = 0; i < ARRAY_SIZE(threads); i++)
		pthread_join(ids[i], NULL);

	EXPECT_LT(0, s.got);
	EXPECT_LT(0, s.punched);
	EXPECT_EQ(1, fdinfo_number(fd, "bindings"));
	ASSERT_EQ(0, punch(fd, 0, (pages + 8) * PAGE));
	EXPECT_EQ(0, resident(fd));
	EXPECT_EQ(0, nr_mapped(c));
}

TEST_F(notifier, storm_on_small_pages)
{
	int fd = create_small(136 * PAGE);

	ASSERT_LE(0, fd);
	run_storm(_metadata, self->c, fd, 128);
	close(fd);
}

TEST_F(notifier, storm_on_huge_pages)
{
	run_storm(_metadata, self->c, self->huge, 4 * HUGE_PAGES - 8);
}

TEST_HARNESS_MAIN
