// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * Runs all unit tests.
 *
 * Usage: unit [SEED]
 *
 * Random tests run from a few fixed seeds, and from SEED if given.
 */
#include <stdlib.h>

#include "attrs.h"
#include "tree.h"

unsigned long seeds[5] = { 1, 2, 3, 4 };
unsigned int seed_count = 4;

static bool nothing_leaks(void)
{
	map_begin();
	map_end();
	CHECK(tree_leaked() == 0);
	return true;
}

static const struct tap_test last_tests[] = {
	TEST(nothing_leaks),
	TEST_END
};

int main(int argc, char **argv)
{
	const struct tap_test *const groups[] = {
		attrs_random_tests, attrs_readers_tests,
		/* These look into the tree. */
		RM_ATTRS_BLOCK_ORDER ? attrs_block_tests : attrs_tests,
		last_tests, NULL
	};

	if (argc > 1)
		seeds[seed_count++] = strtoul(argv[1], NULL, 0);
	printf("# %lu keys in a block\n", 1UL << RM_ATTRS_BLOCK_ORDER);
	tree_begin();
	return tap_run(groups);
}
