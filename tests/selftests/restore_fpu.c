// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * Usage: restore_fpu CPU
 *
 * Runs FXRSTOR on this processor until it is killed: see machine_test.sh.
 */
#include <err.h>
#include <sched.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
	static char state[512] __attribute__((aligned(16)));
	cpu_set_t set;

	if (argc != 2)
		errx(2, "usage: restore_fpu CPU");
	CPU_ZERO(&set);
	CPU_SET(atoi(argv[1]), &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		err(1, "CPU %s", argv[1]);
	asm volatile("fxsave64 %0" : "=m"(state));
	for (;;)
		asm volatile("fxrstor64 %0" : : "m"(state));
}
