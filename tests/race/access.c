// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * Accesses that may end in SIGBUS. Not all SIGBUS ends one: memory errors are
 * told to threads that have nothing to do with the page, too.
 */
#include "race.h"

static __thread volatile bool in_access;

static void on_any_sigbus(int sig, siginfo_t *info, void *context)
{
	if (in_access)
		on_sigbus(sig, info, context);
}

void catch_any_sigbus(void)
{
	struct sigaction action = {
		.sa_sigaction = on_any_sigbus,
		.sa_flags = SA_SIGINFO | SA_NODEFER,
	};

	sigaction(SIGBUS, &action, NULL);
}

/* As peek(): 0, or -1 when that is SIGBUS. */
int look_at(const void *p, uint64_t *value)
{
	int r;

	in_access = true;
	r = peek(p, value);
	in_access = false;
	return r;
}

/* As poke() */
int write_at(void *p, uint64_t value)
{
	int r;

	in_access = true;
	r = poke(p, value);
	in_access = false;
	return r;
}
