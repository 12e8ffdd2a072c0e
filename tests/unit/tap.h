/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * Test results as TAP, the way kselftest prints them. A test is a function
 * that returns whether it held; CHECK() says which fact did not.
 */
#ifndef RM_UNIT_TAP_H
#define RM_UNIT_TAP_H

#include <stdbool.h>
#include <stdio.h>

struct tap_test {
	const char *name;
	bool (*run)(void);
};

#define TEST(name)	{ #name, name }
#define TEST_END	{ NULL, NULL }

#define CHECK(fact)							\
	do {								\
		if (!(fact)) {						\
			printf("# %s:%d: not so: %s\n", __FILE__,	\
			       __LINE__, #fact);			\
			return false;					\
		}							\
	} while (0)

/* Run arrays of tests that end in TEST_END. Returns the exit status. */
static inline int tap_run(const struct tap_test *const *groups)
{
	const struct tap_test *const *group;
	const struct tap_test *test;
	unsigned int n = 0, count = 0, failed = 0;
	bool ok;

	for (group = groups; *group; group++)
		for (test = *group; test->run; test++)
			count++;

	setvbuf(stdout, NULL, _IOLBF, 0);
	printf("TAP version 13\n1..%u\n", count);
	for (group = groups; *group; group++) {
		for (test = *group; test->run; test++) {
			ok = test->run();
			failed += !ok;
			printf("%sok %u %s\n", ok ? "" : "not ", ++n,
			       test->name);
		}
	}
	printf("# Totals: pass:%u fail:%u xfail:0 xpass:0 skip:0 error:0\n",
	       count - failed, failed);
	return failed ? 1 : 0;
}

#endif /* RM_UNIT_TAP_H */
