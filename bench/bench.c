// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * See bench.h. A figure is printed as one line of fields with tabs between:
 * FIGURE, what, unit, goal, and for ours and the peer each its name, median,
 * least and greatest sample.
 */
#include "bench.h"

double now_ns(void)
{
	struct timespec ts;

	CHECK(!clock_gettime(CLOCK_MONOTONIC, &ts));
	return ts.tv_sec * 1e9 + ts.tv_nsec;
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static void print_side(const struct side *side, double *samples, unsigned int n)
{
	double median;

	qsort(samples, n, sizeof(*samples), by_value);
	median = n % 2 ? samples[n / 2] :
			 (samples[n / 2 - 1] + samples[n / 2]) / 2;
	printf("\t%s\t%.6g\t%.6g\t%.6g", side->name, median, samples[0],
	       samples[n - 1]);
}

void take_figure(const struct figure *f)
{
	unsigned int rounds = f->rounds ? f->rounds : ROUNDS;
	double ours[ROUNDS], peer[ROUNDS];

	CHECK(rounds <= ROUNDS);
	if (rounds > 1) {
		f->ours.sample(f->ours.arg);
		f->peer.sample(f->peer.arg);
	}
	for (unsigned int i = 0; i < rounds; i++) {
		ours[i] = f->ours.sample(f->ours.arg);
		peer[i] = f->peer.sample(f->peer.arg);
	}
	printf("FIGURE\t%s\t%s\t%s", f->what, f->unit, f->goal ? f->goal : "-");
	print_side(&f->ours, ours, rounds);
	print_side(&f->peer, peer, rounds);
	printf("\n");
	fflush(stdout);
}
