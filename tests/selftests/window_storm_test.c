// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * Hostile neighbours: conversions in a race with everything that processes can do
 * with windows, thousands of rounds of it. Pages hold a secret whenever they are
 * private, and nobody may ever see it through a window.
 */
#include <pthread.h>
#include <sys/prctl.h>
#include <sys/uio.h>
#include <sys/wait.h>

#include "kselftest_harness.h"
#include "consumer.h"
#include "window.h"

#define SIZE		(2 * HUGE)
#define PAGES		(SIZE / PAGE)
#define USED		64		/* pages at the start that are in play */
#define WORDS		(PAGE / 8)
#define SECRET		0x5ec2e7ULL
#define MAX_THREADS	16

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE	25
#endif

/* Who takes part, and what all of them share */
struct storm {
	int c;
	int id;
	int fd;
	int win;
	uint64_t *map;
	int disk;		/* where there is one */
	uint64_t rounds;
	bool stop;
	uint64_t seen;		/* secrets that somebody saw */
	uint64_t visible;	/* reads that worked */
	uint64_t converted;	/* pages that became private */
	uint64_t held;		/* times that one did not */
	uint64_t errors;	/* what should not fail and did */
	pthread_t threads[MAX_THREADS];
	int nr_threads;
};

FIXTURE(storm) {
	struct accounts accounts;
	uint64_t resident;
	struct storm s;
};

FIXTURE_VARIANT(storm) {
	uint32_t thp;
};

FIXTURE_VARIANT_ADD(storm, small) {
	.thp = RESTRICTEDMEM_THP_NEVER,
};

FIXTURE_VARIANT_ADD(storm, huge) {
	.thp = RESTRICTEDMEM_THP_ALWAYS,
};

FIXTURE_SETUP(storm)
{
	const struct restrictedmem_create args = {
		.size = sizeof(args),
		.flags = RESTRICTEDMEM_CREATE_IN_PLACE,
		.length = SIZE,
		.thp = variant->thp,
	};
	struct storm *s = &self->s;

	catch_sigbus();
	ASSERT_EQ(0, accounts_begin(&self->accounts));
	self->resident = resident_total();
	s->c = consumer_open();
	ASSERT_LE(0, s->c);
	s->fd = create_with(&args);
	ASSERT_LE(0, s->fd);
	s->id = bind_range(s->c, s->fd, 0, PAGES);
	ASSERT_LT(0, s->id);
	s->win = open_window(s->fd, 0, SIZE, RESTRICTEDMEM_WINDOW_WRITE);
	ASSERT_LE(0, s->win);
	s->map = map_window(s->win, SIZE, PROT_READ | PROT_WRITE);
	ASSERT_NE(MAP_FAILED, s->map);
	s->rounds = rounds(600);
}

FIXTURE_TEARDOWN(storm)
{
	struct storm *s = &self->s;

	EXPECT_EQ(0, s->seen);
	EXPECT_EQ(0, s->errors);
	EXPECT_EQ(0, violations(s->c));
	/* Nobody holds anything any more. */
	EXPECT_WORKS(convert(s->fd, 0, SIZE, PRIVATE, PRESERVE));
	munmap(s->map, SIZE);
	close(s->win);
	EXPECT_STREQ("", accounts_differ(&self->accounts));
	close(s->c);
	close(s->fd);
	EXPECT_EQ(self->resident, resident_total());
	EXPECT_STREQ("", accounts_end(&self->accounts));
}

static void count(uint64_t *counter)
{
	__atomic_add_fetch(counter, 1, __ATOMIC_RELAXED);
}

static bool stopped(struct storm *s)
{
	return __atomic_load_n(&s->stop, __ATOMIC_RELAXED);
}

static uint64_t *word(uint64_t *map, unsigned int n)
{
	return map + n % USED * WORDS + n / USED % WORDS;
}

/* Look at a word through a mapping of a window. */
static void look(struct storm *s, uint64_t *map, unsigned int n)
{
	uint64_t value;

	if (peek(word(map, n), &value))
		return;
	count(&s->visible);
	if (value == SECRET)
		count(&s->seen);
}

static void start(struct storm *s, void *(*neighbour)(void *))
{
	pthread_create(&s->threads[s->nr_threads++], NULL, neighbour, s);
}

static int fill_with_secrets(struct storm *s, unsigned int page)
{
	uint64_t words[WORDS];

	for (unsigned int i = 0; i < WORDS; i++)
		words[i] = SECRET;
	return write_data(s->c, s->id, page * PAGE, words, PAGE);
}

/* One page to private, where it gets secrets, and back, without them. */
static void convert_one(struct storm *s, unsigned int page)
{
	if (convert(s->fd, page * PAGE, PAGE, PRIVATE, PRESERVE)) {
		if (errno == EAGAIN)
			count(&s->held);
		else
			count(&s->errors);
		return;
	}
	count(&s->converted);
	if (fill_with_secrets(s, page) ||
	    convert(s->fd, page * PAGE, PAGE, SHARED, ZERO))
		count(&s->errors);
}

static void convert_all(struct storm *s)
{
	unsigned int seed = 1;

	if (convert(s->fd, 0, USED * PAGE, SHARED, ZERO))
		count(&s->errors);
	for (uint64_t i = 0; i < s->rounds; i++)
		convert_one(s, rand_r(&seed) % USED);
	__atomic_store_n(&s->stop, true, __ATOMIC_RELAXED);
	while (s->nr_threads)
		pthread_join(s->threads[--s->nr_threads], NULL);
}

/* The neighbours */

static void *reads_and_writes(void *arg)
{
	struct storm *s = arg;
	unsigned int seed = 2;

	while (!stopped(s)) {
		look(s, s->map, rand_r(&seed));
		poke(word(s->map, rand_r(&seed)), 1);
	}
	return NULL;
}

static void *maps_and_unmaps(void *arg)
{
	struct storm *s = arg;
	unsigned int seed = 3;

	while (!stopped(s)) {
		uint64_t *map = map_window(s->win, SIZE, PROT_READ);

		if (map == MAP_FAILED) {
			count(&s->errors);
			break;
		}
		for (int i = 0; i < 20; i++)
			look(s, map, rand_r(&seed));
		munmap(map, SIZE);
	}
	return NULL;
}

static void *forks(void *arg)
{
	struct storm *s = arg;

	while (!stopped(s)) {
		pid_t pid = fork();
		int status;

		if (!pid) {
			uint64_t before = s->seen;

			prctl(PR_SET_PDEATHSIG, SIGKILL);
			for (unsigned int n = 0; n < 200; n++)
				look(s, s->map, n);
			_exit(s->seen != before);
		}
		if (pid < 0 || waitpid(pid, &status, 0) != pid)
			count(&s->errors);
		else if (status)
			count(&s->seen);
	}
	return NULL;
}

/* Processes that end in the middle of it */
static void *dies(void *arg)
{
	struct storm *s = arg;

	while (!stopped(s)) {
		pid_t pid = fork();

		if (!pid) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			for (unsigned int n = 0;; n++)
				look(s, s->map, n);
		}
		if (pid < 0) {
			count(&s->errors);
			break;
		}
		sleep_ms(3);
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
	}
	return NULL;
}

/* Holds pages for as long as they are in a pipe. */
static void *holds(void *arg)
{
	struct storm *s = arg;
	unsigned int seed = 5;
	uint64_t value;
	int pipefd[2];

	if (pipe(pipefd)) {
		count(&s->errors);
		return NULL;
	}
	while (!stopped(s)) {
		struct iovec iov = { word(s->map, rand_r(&seed)), 8 };

		if (vmsplice(pipefd[1], &iov, 1, 0) != 8)
			continue;
		if (rand_r(&seed) % 16 == 0)
			sleep_ms(1);
		/* What was held was shared, and is so until it is let go. */
		if (read(pipefd[0], &value, 8) != 8)
			count(&s->errors);
		else if (value == SECRET)
			count(&s->seen);
	}
	close(pipefd[0]);
	close(pipefd[1]);
	return NULL;
}

static void *reads_by_the_kernel(void *arg)
{
	struct storm *s = arg;
	unsigned int seed = 6;
	uint64_t value;

	while (!stopped(s)) {
		struct iovec to = { &value, 8 };
		struct iovec from = { word(s->map, rand_r(&seed)), 8 };

		if (process_vm_readv(getpid(), &to, 1, &from, 1, 0) == 8 &&
		    value == SECRET)
			count(&s->seen);
	}
	return NULL;
}

static void *does_direct_io(void *arg)
{
	struct storm *s = arg;
	int disk = s->disk;
	static uint64_t copy[WORDS] __attribute__((aligned(PAGE)));
	unsigned int seed = 7;

	while (!stopped(s)) {
		uint64_t *page = s->map + rand_r(&seed) % USED * WORDS;

		if (pwrite(disk, page, PAGE, 0) != PAGE)
			continue;
		if (pread(disk, copy, PAGE, 0) != PAGE)
			count(&s->errors);
		else if (copy[0] == SECRET || copy[WORDS - 1] == SECRET)
			count(&s->seen);
		/* Should it be private by then: EFAULT, and nothing changes. */
		if (pread(disk, page, PAGE, 0) != PAGE && errno != EFAULT)
			count(&s->errors);
	}
	return NULL;
}

static void *punches(void *arg)
{
	struct storm *s = arg;
	unsigned int seed = 8;

	while (!stopped(s)) {
		if (punch(s->fd, rand_r(&seed) % USED * PAGE, PAGE))
			count(&s->errors);
		sleep_ms(1);
	}
	return NULL;
}

static void *opens_and_revokes(void *arg)
{
	struct storm *s = arg;
	unsigned int seed = 9;

	while (!stopped(s)) {
		int win = open_window(s->fd, 0, USED * PAGE, 0);
		uint64_t *map = win < 0 ? MAP_FAILED :
				map_window(win, USED * PAGE, PROT_READ);

		if (map == MAP_FAILED) {
			count(&s->errors);
			break;
		}
		for (int i = 0; i < 10; i++)
			look(s, map, rand_r(&seed));
		if (revoke_window(s->fd, win) || is_visible(word(map, 0)))
			count(&s->errors);
		munmap(map, USED * PAGE);
		close(win);
	}
	return NULL;
}

static void *moves_and_compacts(void *arg)
{
	struct storm *s = arg;

	while (!stopped(s)) {
		madvise(s->map, SIZE, MADV_PAGEOUT);
		madvise(s->map, SIZE, MADV_COLD);
		madvise(s->map, SIZE, MADV_COLLAPSE);
		write_text("/proc/sys/vm/compact_memory", "1");
		write_text("/proc/sys/vm/drop_caches", "3");
		sleep_ms(5);
	}
	return NULL;
}

/* Each kind by itself, so that one that makes the machine fall over is named */

TEST_F_TIMEOUT(storm, faults, 120)
{
	start(&self->s, reads_and_writes);
	start(&self->s, reads_and_writes);
	convert_all(&self->s);
	EXPECT_LT(0, self->s.visible);
	EXPECT_EQ(self->s.rounds, self->s.converted);
}

TEST_F_TIMEOUT(storm, mappings_that_come_and_go, 120)
{
	start(&self->s, maps_and_unmaps);
	start(&self->s, maps_and_unmaps);
	convert_all(&self->s);
	EXPECT_LT(0, self->s.visible);
}

TEST_F_TIMEOUT(storm, forks_and_exits, 120)
{
	start(&self->s, forks);
	start(&self->s, dies);
	convert_all(&self->s);
}

TEST_F_TIMEOUT(storm, pages_that_are_held, 120)
{
	start(&self->s, holds);
	start(&self->s, reads_by_the_kernel);
	convert_all(&self->s);
	EXPECT_LT(0, self->s.converted);
}

TEST_F_TIMEOUT(storm, direct_io, 120)
{
	self->s.disk = open_disk(MIB);
	ASSERT_LE(0, self->s.disk);
	start(&self->s, does_direct_io);
	convert_all(&self->s);
	EXPECT_LT(0, self->s.converted);
	close(self->s.disk);
}

TEST_F_TIMEOUT(storm, punches, 120)
{
	start(&self->s, punches);
	start(&self->s, reads_and_writes);
	convert_all(&self->s);
}

TEST_F_TIMEOUT(storm, windows_that_come_and_go, 120)
{
	start(&self->s, opens_and_revokes);
	start(&self->s, opens_and_revokes);
	convert_all(&self->s);
	EXPECT_EQ(1, fdinfo_number(self->s.fd, "windows"));
}

TEST_F_TIMEOUT(storm, all_at_once, 240)
{
	self->s.disk = open_disk(MIB);
	ASSERT_LE(0, self->s.disk);
	start(&self->s, reads_and_writes);
	start(&self->s, maps_and_unmaps);
	start(&self->s, forks);
	start(&self->s, dies);
	start(&self->s, holds);
	start(&self->s, reads_by_the_kernel);
	start(&self->s, does_direct_io);
	start(&self->s, punches);
	start(&self->s, opens_and_revokes);
	start(&self->s, moves_and_compacts);
	convert_all(&self->s);
	EXPECT_LT(0, self->s.visible);
	EXPECT_LT(0, self->s.converted);
	close(self->s.disk);
}

/* A neighbour that stops with a page in its hands delays nobody but that page. */
TEST_F(storm, neighbour_that_stalls)
{
	struct storm *s = &self->s;
	int ready[2], pipefd[2], status;
	struct iovec iov = { s->map, 8 };
	uint64_t done;
	pid_t pid;
	char byte;

	ASSERT_EQ(0, convert(s->fd, 0, SIZE, SHARED, ZERO));
	ASSERT_EQ(0, pipe(ready));
	pid = fork();
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (pipe(pipefd) || vmsplice(pipefd[1], &iov, 1, 0) != 8 ||
		    write(ready[1], "", 1) != 1)
			_exit(1);
		for (;;)
			pause();
	}
	ASSERT_EQ(1, read(ready[0], &byte, 1));
	ASSERT_EQ(0, kill(pid, SIGSTOP));
	EXPECT_FAILS(EAGAIN, convert_to(s->fd, 0, SIZE, PRIVATE, PRESERVE, &done));
	EXPECT_EQ(0, done);
	EXPECT_WORKS(convert(s->fd, HUGE, HUGE, PRIVATE, PRESERVE));
	/* Its end lets the page go. */
	ASSERT_EQ(0, kill(pid, SIGKILL));
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_WORKS(convert_to(s->fd, 0, SIZE, PRIVATE, PRESERVE, &done));
	EXPECT_EQ(SIZE, done);
	close(ready[0]);
	close(ready[1]);
}

TEST_HARNESS_MAIN
