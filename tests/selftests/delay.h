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

#endif /* DELAY_H */
