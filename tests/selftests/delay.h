/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * Delays in the kernel, by tests/kmod/restrictedmem_delay.c: a test of a race
 * stretches the gap that it is about. A place that is not there ends the test
 * with a message: a delay that is silently missing makes a test that cannot fail.
 */
#ifndef DELAY_H
#define DELAY_H

#include <pthread.h>
#include <stdatomic.h>

#include <restrictedmem_delay.h>

#include "util.h"

/* For delay_add(); close() removes all delays. */
static inline int delay_open(void)
{
	int fd = open("/dev/restrictedmem_delay", O_RDWR | O_CLOEXEC);

	if (fd < 0) {
		fprintf(stderr, "# /dev/restrictedmem_delay: %m\n");
		abort();
	}
	return fd;
}

/*
 * Wait @usec in @percent of 100 calls of @symbol, with RMD_* flags. Return: the
 * place's number.
 */
static inline int delay_add_some(int fd, const char *symbol, uint32_t usec,
				 uint32_t flags, uint32_t percent,
				 uint64_t seed)
{
	struct rmd_place place = {
		.usec = usec,
		.percent = percent,
		.flags = flags,
		.seed = seed,
	};
	int r;

	snprintf(place.symbol, sizeof(place.symbol), "%s", symbol);
	r = ioctl(fd, RMD_ADD, &place);
	if (r < 0) {
		fprintf(stderr, "# no delay at %s: %m\n", symbol);
		abort();
	}
	return r;
}

static inline int delay_add(int fd, const char *symbol, uint32_t usec,
			    uint32_t flags)
{
	return delay_add_some(fd, symbol, usec, flags, 100, 0);
}

/* How often a place has waited, or waits. */
static inline uint64_t delay_waits(int fd, int place)
{
	struct rmd_hits hits = { .place = place };

	return ioctl(fd, RMD_HITS, &hits) ? 0 : hits.waits;
}

/*
 * What another thread does while this one is held at a place: not for some time but
 * until that is done, however slow the machine is.
 */
struct meanwhile {
	int delay;
	int place;
	void (*act)(void *arg);
	void *arg;
	pthread_t thread;
	atomic_bool over;
};

static inline void *meanwhile_thread(void *arg)
{
	struct meanwhile *m = arg;

	while (!delay_waits(m->delay, m->place))
		if (m->over)
			return NULL;
	m->act(m->arg);
	CHECK(!ioctl(m->delay, RMD_GO));
	return NULL;
}

/*
 * @act must not wait for what this thread holds at @symbol, nor for RCU: its processor
 * is busy, with preemption off. @flags: RMD_RETURN or 0
 */
static inline void meanwhile_start_at(struct meanwhile *m, const char *symbol,
				      uint32_t flags, void (*act)(void *arg), void *arg)
{
	m->delay = delay_open();
	m->place = delay_add(m->delay, symbol, 0, RMD_HOLD | RMD_THIS_THREAD | flags);
	m->act = act;
	m->arg = arg;
	m->over = false;
	CHECK(!pthread_create(&m->thread, NULL, meanwhile_thread, m));
}

static inline void meanwhile_start(struct meanwhile *m, const char *symbol,
				   void (*act)(void *arg), void *arg)
{
	meanwhile_start_at(m, symbol, 0, act, arg);
}

/* Return: how often this thread was held; 0: @act was not called. */
static inline uint64_t meanwhile_end(struct meanwhile *m)
{
	uint64_t waits;

	m->over = true;
	CHECK(!pthread_join(m->thread, NULL));
	waits = delay_waits(m->delay, m->place);
	close(m->delay);
	return waits;
}

#endif /* DELAY_H */
