/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * A figure is a comparison: ours and a named peer, sampled in turn in one
 * process, reported as the median of each. bench/run makes the table of them.
 */
#ifndef BENCH_H
#define BENCH_H

#include "kvm_util.h"

#define ROUNDS	7

struct side {
	const char *name;
	double (*sample)(void *arg);	/* one measurement, in the figure's unit */
	void *arg;
};

struct figure {
	const char *what;
	const char *unit;
	const char *goal;	/* the most that ours / peer may be, as in "2" or
				 * "1/400"; NULL: only to be looked at
				 */
	unsigned int rounds;	/* at most and by default ROUNDS; the first, not
				 * counted, comes on top, unless there is only one
				 */
	struct side ours;
	struct side peer;
};

void take_figure(const struct figure *f);
double now_ns(void);

#endif /* BENCH_H */
