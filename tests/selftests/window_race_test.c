// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * Windows in a race: faults against the end of the memory, faults that are killed or
 * that wait, and discards that take long.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <sys/uio.h>
#include <sys/wait.h>

#include "kselftest_harness.h"
#include "consumer.h"
#include "delay.h"
#include "hugetlb.h"
#include "window.h"

#define SIZE		(2 * HUGE)
#define PAGES		(SIZE / PAGE)
#define CHUNK		(64 * MIB)	/* the module's RM_CHUNK */

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

static uint64_t *at(uint64_t *map, uint64_t page)
{
	return map + page * (PAGE / sizeof(*map));
}

/* A file that is shared, and a window on it, mapped; or NULL. */
static uint64_t *open_shared(int *fd, int *win, uint64_t length, uint32_t store,
			     uint32_t thp)
{
	uint64_t *map;

	*fd = create_in_place(length, store, thp);
	if (*fd < 0 || convert(*fd, 0, length, SHARED, 0))
		return NULL;
	*win = open_window(*fd, 0, length, RESTRICTEDMEM_WINDOW_WRITE);
	map = map_window(*win, length, PROT_READ | PROT_WRITE);
	return map == MAP_FAILED ? NULL : map;
}

/* The state of a thread of this process or another, as ps shows it */
static char task_state(pid_t pid, pid_t tid)
{
	char text[512], *end;

	if (read_text(path_of("/proc/%d/task/%d/stat", pid, tid), text, sizeof(text)) <= 0)
		return 0;
	end = strrchr(text, ')');
	return end ? end[2] : 0;
}

/* Until a thread waits for a lock in the kernel */
static void until_waits(pid_t pid, pid_t tid)
{
	while (task_state(pid, tid) != 'D')
		sleep_ms(1);
}

/* Until a notifier of a consumer was called */
static void until_event(int c)
{
	struct rmt_event event;
	struct rmt_events events;

	do {
		events = (struct rmt_events) { .buf = (uintptr_t)&event, .count = 1 };
		ioctl(c, RMT_EVENTS, &events);
	} while (!events.count);
}

/* Faults against the last close */

struct ending {
	uint64_t *map;		/* of the round */
	bool stop;
	pthread_barrier_t begin;
	pthread_barrier_t end;
	uint64_t seen;
};

static void *touches(void *arg)
{
	struct ending *e = arg;
	uint64_t value;

	for (;;) {
		pthread_barrier_wait(&e->begin);
		if (e->stop)
			return NULL;
		for (int i = 0; i < 16; i++)
			if (!peek(at(e->map, i), &value))
				e->seen++;
		pthread_barrier_wait(&e->end);
	}
}

FIXTURE(ending) {
	uint64_t resident;
	int delay;
	int place;
	struct ending e;
	pthread_t thread;
};

FIXTURE_VARIANT(ending) {
	const char *place;
	uint32_t flags;
	uint32_t usec;
	uint64_t rounds;
	bool limited;
};

FIXTURE_VARIANT_ADD(ending, as_it_comes) {
	.rounds = 200,
};

/* Before a page is taken, */
FIXTURE_VARIANT_ADD(ending, slow_to_take) {
	.place = "restrictedmem:rm_get_folio",
	.usec = 2000,
	.rounds = 30,
};

FIXTURE_VARIANT_ADD(ending, slow_to_allocate) {
	.place = "restrictedmem:rm_store_get",
	.usec = 2000,
	.rounds = 30,
};

/* and before one is given back that is beyond the limit. */
FIXTURE_VARIANT_ADD(ending, at_the_limit) {
	.place = "restrictedmem:rm_store_get",
	.flags = RMD_RETURN,
	.usec = 5000,
	.rounds = 50,
	.limited = true,
};

FIXTURE_SETUP(ending)
{
	catch_sigbus();
	self->resident = resident_total();
	pthread_barrier_init(&self->e.begin, NULL, 2);
	pthread_barrier_init(&self->e.end, NULL, 2);
	ASSERT_EQ(0, pthread_create(&self->thread, NULL, touches, &self->e));
	if (variant->limited) {
		ASSERT_EQ(0, set_limit(self->resident + PAGE));
	}
	self->delay = -1;
	if (variant->place) {
		self->delay = delay_open();
		self->place = delay_add(self->delay, variant->place, variant->usec,
					variant->flags | RMD_OTHER_THREADS);
	}
}

/* From at once to in the middle of it; or when the fault has come to the place */
static void until_it_faults(FIXTURE_DATA(ending) *self, uint64_t round, uint64_t waits)
{
	for (uint64_t n = round % 8 * 400; n; n--)
		asm volatile("" ::: "memory");
	for (int n = 0; self->delay >= 0 && n < 1000; n++)
		if (delay_waits(self->delay, self->place) > waits)
			break;
}

FIXTURE_TEARDOWN(ending)
{
	self->e.stop = true;
	pthread_barrier_wait(&self->e.begin);
	pthread_join(self->thread, NULL);
	if (self->delay >= 0)
		close(self->delay);
	EXPECT_EQ(0, set_limit(0));
	EXPECT_EQ(self->resident, resident_total());
}

TEST_F(ending, faults_in_a_window_find_no_memory)
{
	uint64_t nr = rounds(variant->rounds);
	int fd, win;

	for (uint64_t i = 0; i < nr; i++) {
		uint64_t waits = self->delay < 0 ? 0 :
			delay_waits(self->delay, self->place);

		self->e.map = open_shared(&fd, &win, HUGE, 0, RESTRICTEDMEM_THP_NEVER);
		ASSERT_NE(NULL, self->e.map);
		pthread_barrier_wait(&self->e.begin);
		until_it_faults(self, i, waits);
		close(fd);
		EXPECT_FALSE(is_visible(at(self->e.map, 3)));
		EXPECT_EQ(BUS_ADRERR, sigbus_code);
		pthread_barrier_wait(&self->e.end);
		EXPECT_FALSE(is_visible(self->e.map));
		EXPECT_FAILS(ENODEV, (long)map_window(win, PAGE, PROT_READ));
		EXPECT_EQ(1, fdinfo_number(win, "revoked"));
		munmap(self->e.map, HUGE);
		close(win);
	}
}

/* Faults that wait for a discard, which takes some time */

#define SLOW_MS	2000

FIXTURE(slow) {
	uint64_t resident;
	int c;
	int fd;
	int win;
	int id;
	uint64_t *map;
	pthread_t thread;
	atomic_bool done;
};

FIXTURE_SETUP(slow)
{
	catch_sigbus();
	self->resident = resident_total();
	self->c = consumer_open();
	ASSERT_LE(0, self->c);
	self->map = open_shared(&self->fd, &self->win, SIZE, 0, RESTRICTEDMEM_THP_NEVER);
	ASSERT_NE(NULL, self->map);
	self->id = bind_range(self->c, self->fd, 0, PAGES);
	ASSERT_LT(0, self->id);
}

FIXTURE_TEARDOWN(slow)
{
	munmap(self->map, SIZE);
	close(self->win);
	close(self->c);
	close(self->fd);
	EXPECT_EQ(self->resident, resident_total());
}

static void *punches(void *arg)
{
	FIXTURE_DATA(slow) *self = arg;

	punch(self->fd, 0, PAGE);
	self->done = true;
	return NULL;
}

/* Until @self->done the discard has the lock. */
static void begin_discard(FIXTURE_DATA(slow) *self)
{
	ioctl(self->c, RMT_SET_DELAY, SLOW_MS);
	pthread_create(&self->thread, NULL, punches, self);
	until_event(self->c);
}

static void end_discard(FIXTURE_DATA(slow) *self)
{
	pthread_join(self->thread, NULL);
	ioctl(self->c, RMT_SET_DELAY, 0);
}

static pid_t begin_child(int (*call)(uint64_t *map), uint64_t *map)
{
	pid_t child = fork();

	if (!child)
		_exit(call(map));
	return child;
}

static int read_into(uint64_t *map)
{
	return read(open("/dev/zero", O_RDONLY), at(map, 5), 8) != 8;
}

static int touch(uint64_t *map)
{
	return *(volatile uint64_t *)at(map, 5);
}

static int splice_from(uint64_t *map)
{
	struct iovec iov = { at(map, 5), 8 };
	int fds[2];

	return pipe(fds) || vmsplice(fds[1], &iov, 1, 0) != 8;
}

/* A child that waits in @call is gone before what it waits for is done. */
#define EXPECT_KILLED_AT_ONCE(_call) do {				\
	pid_t _child;							\
	int _status;							\
									\
	begin_discard(self);						\
	_child = begin_child(_call, self->map);				\
	ASSERT_LT(0, _child);						\
	until_waits(_child, _child);					\
	kill(_child, SIGKILL);						\
	ASSERT_EQ(_child, waitpid(_child, &_status, 0));		\
	EXPECT_FALSE(self->done);					\
	EXPECT_TRUE(WIFSIGNALED(_status) && WTERMSIG(_status) == SIGKILL); \
	end_discard(self);						\
} while (0)

TEST_F(slow, waiting_access_of_a_process_can_be_killed)
{
	EXPECT_KILLED_AT_ONCE(touch);
}

TEST_F(slow, waiting_access_of_the_kernel_can_be_killed)
{
	EXPECT_KILLED_AT_ONCE(read_into);
}

TEST_F(slow, waiting_splice_can_be_killed)
{
	EXPECT_KILLED_AT_ONCE(splice_from);
}

struct toucher {
	uint64_t *map;
	atomic_int tid;
	int r;
};

static void *touches_once(void *arg)
{
	struct toucher *t = arg;

	t->tid = gettid();
	t->r = poke(at(t->map, 5), 7);
	return NULL;
}

/* Who waits in a fault does not make the whole process wait, or who looks at it. */
TEST_F(slow, process_is_not_held_up)
{
	struct toucher t = { .map = self->map };
	pthread_t thread;
	char text[64];
	void *p;

	begin_discard(self);
	ASSERT_EQ(0, pthread_create(&thread, NULL, touches_once, &t));
	while (!t.tid)
		sched_yield();
	until_waits(getpid(), t.tid);
	p = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	EXPECT_NE(MAP_FAILED, p);
	EXPECT_EQ(0, munmap(p, PAGE));
	EXPECT_LT(0, read_text("/proc/self/cmdline", text, sizeof(text)));
	EXPECT_FALSE(self->done);
	end_discard(self);
	pthread_join(thread, NULL);
	/* It gets its page in the end, unless that has gone. */
	EXPECT_EQ(0, t.r);
	EXPECT_EQ(7, *at(self->map, 5));
}

/* Also while it waits, a mapping can go, and the window with it. */
TEST_F(slow, mapping_goes_under_a_fault)
{
	struct toucher t = { .map = self->map };
	pthread_t thread;

	begin_discard(self);
	ASSERT_EQ(0, pthread_create(&thread, NULL, touches_once, &t));
	while (!t.tid)
		sched_yield();
	until_waits(getpid(), t.tid);
	EXPECT_EQ(self->map, mmap(self->map, SIZE, PROT_READ | PROT_WRITE,
				  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
	EXPECT_FALSE(self->done);
	end_discard(self);
	pthread_join(thread, NULL);
	EXPECT_EQ(0, t.r);
	EXPECT_EQ(0, resident(self->fd));
}

/* Discards of much */

#define MAX_EVENTS	16

FIXTURE(much) {
	uint64_t resident;
	int c;
	int fd;
	int id;
	struct rmt_event events[MAX_EVENTS];
	unsigned int nr;
};

FIXTURE_SETUP(much)
{
	self->resident = resident_total();
	self->c = consumer_open();
	ASSERT_LE(0, self->c);
	self->fd = create_huge(1024 * GIB);
	ASSERT_LE(0, self->fd);
	self->id = bind_range(self->c, self->fd, 0, 1024 * GIB / PAGE);
	ASSERT_LT(0, self->id);
}

FIXTURE_TEARDOWN(much)
{
	EXPECT_EQ(0, violations(self->c));
	close(self->c);
	close(self->fd);
	EXPECT_EQ(self->resident, resident_total());
}

static void take_events(FIXTURE_DATA(much) *self)
{
	struct rmt_events arg = { .buf = (uintptr_t)self->events, .count = MAX_EVENTS };

	ioctl(self->c, RMT_EVENTS, &arg);
	self->nr = arg.count;
}

/* The pairs follow one another from @start to @end, and cut no huge page. */
#define EXPECT_PIECES(_nr, _start, _end) do {				\
	take_events(self);						\
	ASSERT_EQ(2 * (_nr), self->nr);					\
	EXPECT_EQ((_start) / PAGE, self->events[0].start);		\
	EXPECT_EQ((_end) / PAGE, self->events[self->nr - 1].end);	\
	for (unsigned int _i = 0; _i < self->nr; _i += 2) {		\
		EXPECT_EQ(RMT_START, self->events[_i].type);		\
		EXPECT_EQ(RMT_END, self->events[_i + 1].type);		\
		EXPECT_EQ(self->events[_i].start, self->events[_i + 1].start); \
		EXPECT_EQ(self->events[_i].end, self->events[_i + 1].end); \
		if (!_i)						\
			continue;					\
		EXPECT_EQ(self->events[_i - 1].end, self->events[_i].start); \
		EXPECT_EQ(0, self->events[_i].start % HUGE_PAGES);	\
	}								\
} while (0)

TEST_F(much, punch_is_done_piece_by_piece)
{
	ASSERT_EQ(0, populate(self->fd, 0, 3 * CHUNK));
	EXPECT_WORKS(punch(self->fd, 0, 3 * CHUNK));
	EXPECT_EQ(0, resident(self->fd));
	EXPECT_PIECES(3, 0, 3 * CHUNK);
}

TEST_F(much, pieces_cut_no_huge_page)
{
	ASSERT_EQ(0, populate(self->fd, HUGE, 2 * CHUNK));
	EXPECT_WORKS(punch(self->fd, HUGE + PAGE, 2 * CHUNK - 2 * PAGE));
	EXPECT_EQ(2 * PAGE, resident(self->fd));
	EXPECT_PIECES(3, HUGE, HUGE + 2 * CHUNK);
}

TEST_F(much, holes_cost_no_piece)
{
	ASSERT_EQ(0, populate(self->fd, 512 * GIB, HUGE));
	EXPECT_WORKS(punch(self->fd, 0, 1024 * GIB));
	EXPECT_EQ(0, resident(self->fd));
	EXPECT_PIECES(2, 0, 1024 * GIB);
}

/* A child that punches three pieces, and is at the first. */
static pid_t begin_long_punch(FIXTURE_DATA(much) *self)
{
	pid_t child;

	ioctl(self->c, RMT_SET_DELAY, 500);
	child = fork();
	if (!child)
		_exit(punch(self->fd, 0, 3 * CHUNK));
	until_event(self->c);
	return child;
}

TEST_F(much, punch_that_is_killed_stops)
{
	pid_t child;
	int status;

	ASSERT_EQ(0, populate(self->fd, 0, 3 * CHUNK));
	child = begin_long_punch(self);
	ASSERT_LT(0, child);
	kill(child, SIGKILL);
	ASSERT_EQ(child, waitpid(child, &status, 0));
	EXPECT_TRUE(WIFSIGNALED(status));
	EXPECT_LE(CHUNK, resident(self->fd));
	ioctl(self->c, RMT_SET_DELAY, 0);
}

/* Others get in between. */
TEST_F(much, fault_waits_for_a_piece_alone)
{
	struct rmt_page page;
	pid_t child;
	int status;

	ASSERT_EQ(0, populate(self->fd, 0, 3 * CHUNK));
	child = begin_long_punch(self);
	ASSERT_LT(0, child);
	EXPECT_WORKS(get_page(self->c, self->id, 4 * CHUNK / PAGE, 0, &page));
	EXPECT_LE(CHUNK, resident(self->fd));
	ASSERT_EQ(child, waitpid(child, &status, 0));
	EXPECT_EQ(0, status);
	ioctl(self->c, RMT_SET_DELAY, 0);
}

/* Windows and the views that they were made through */

TEST(window_of_a_view_that_is_gone_is_nobodys)
{
	uint64_t resident = resident_total(), taken = 0;
	int fd = create_in_place(SIZE, 0, RESTRICTEDMEM_THP_NEVER);
	int windows[64], views[64];

	ASSERT_LE(0, fd);
	for (int i = 0; i < 64; i++) {
		views[i] = link_view(fd);
		windows[i] = open_window(views[i], 0, SIZE, 0);
		ASSERT_LE(0, windows[i]);
	}
	for (int i = 0; i < 64; i++)
		close(views[i]);
	/* One of these may well be where one of those was. */
	for (int i = 0; i < 64; i++)
		views[i] = link_view(fd);
	for (int i = 0; i < 64; i++)
		for (int j = 0; j < 64; j++)
			taken += revoke_window(views[i], windows[j]) != -1 || errno != EINVAL;
	EXPECT_EQ(0, taken);
	for (int i = 0; i < 64; i++) {
		close(views[i]);
		close(windows[i]);
	}
	close(fd);
	EXPECT_EQ(resident, resident_total());
}

/* Pages of the pool */

FIXTURE(pool) {
	long pages;
};

FIXTURE_SETUP(pool)
{
	self->pages = pool_resize(HUGE, 0);
	ASSERT_EQ(self->pages + 1, pool_resize(HUGE, self->pages + 1));
}

FIXTURE_TEARDOWN(pool)
{
	EXPECT_EQ(self->pages, pool_resize(HUGE, 0));
}

/* Take a page, and give it back, over and over: by an access of the kernel's */
static int takes_for_ever(int fd, void *map)
{
	int zero = open("/dev/zero", O_RDONLY);

	while (read(zero, map, 8) == 8 && !punch(fd, 0, HUGE))
		;
	return 1;
}

/* The pool gives nothing to who is being killed; the fault must end all the same. */
TEST_F(pool, fault_of_a_killed_task_ends)
{
	int delay = delay_open(), fd, win, place, status, r;
	uint64_t *map;
	pid_t child;

	map = open_shared(&fd, &win, HUGE, RESTRICTEDMEM_STORE_HUGETLB, 0);
	ASSERT_NE(NULL, map);
	place = delay_add(delay, "restrictedmem:rm_window_fault", 20000, 0);
	for (uint64_t n = rounds(20) + 1; n; n--) {
		uint64_t waits = delay_waits(delay, place);

		child = fork();
		if (!child)
			_exit(takes_for_ever(fd, map));
		while (delay_waits(delay, place) == waits)
			sched_yield();
		kill(child, SIGKILL);
		/* Not for ever, should it fail */
		for (int i = 0; i < 500 && !(r = waitpid(child, &status, WNOHANG)); i++)
			sleep_ms(10);
		ASSERT_EQ(child, r);
		EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	}
	close(delay);
	munmap(map, HUGE);
	close(win);
	close(fd);
}

TEST_HARNESS_MAIN
