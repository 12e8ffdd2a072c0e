// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * Blocks of the range map: when there are any, and what they cost. KEYS is how
 * many keys one has.
 */
#include <errno.h>
#include <limits.h>

#include "attrs.h"
#include "tree.h"

#define KEYS	(1UL << RM_ATTRS_BLOCK_ORDER)

/* Every second key of [@start, @end), which makes a block of each part. */
static bool stripes(unsigned long start, unsigned long end)
{
	for (unsigned long key = start; key < end; key += 2)
		CHECK(set(key, key + 1, 1) == 0);
	return true;
}

static bool first_cut_makes_no_block(void)
{
	map_begin();
	CHECK(set(KEYS + 3, KEYS + 4, 1) == 0);
	CHECK(tree_alloc.blocks == 0);
	CHECK(set(4 * KEYS, 6 * KEYS, 1) == 0);
	CHECK(set(4 * KEYS + 1, 5 * KEYS - 1, 0) == 0);
	CHECK(tree_alloc.blocks == 0);
	map_end();
	return true;
}

static bool second_cut_does(void)
{
	map_begin();
	CHECK(set(KEYS + 3, KEYS + 4, 1) == 0);
	CHECK(set(KEYS + 8, KEYS + 9, 2) == 0);
	CHECK(tree_alloc.blocks == 2);
	CHECK(map_entries() == 1);
	for (unsigned long key = 0; key < 3 * KEYS; key++)
		CHECK(get(key) == (key == KEYS + 3 ? 1 : key == KEYS + 8 ? 2 : 0));
	map_end();
	return true;
}

static bool undone_cut_makes_no_block(void)
{
	map_begin();
	CHECK(set(0, 2 * KEYS, 1) == 0);
	CHECK(set(3, 4, 0) == 0);
	CHECK(set(3, 4, 1) == 0);
	CHECK(tree_alloc.blocks == 0);
	CHECK(map_entries() == 1);
	map_end();
	return true;
}

static bool uniform_block_becomes_a_range(void)
{
	map_begin();
	CHECK(set(0, KEYS, 1) == 0);
	CHECK(set(2 * KEYS, 3 * KEYS, 1) == 0);
	CHECK(stripes(KEYS, 2 * KEYS));
	CHECK(map_entries() == 3);
	for (unsigned long key = KEYS + 1; key < 2 * KEYS; key += 2)
		CHECK(set(key, key + 1, 1) == 0);
	CHECK(map_entries() == 1);
	CHECK(rm_attrs_uniform_order(&map, 0, RM_ATTRS_BLOCK_ORDER + 1) ==
	      RM_ATTRS_BLOCK_ORDER + 1);
	map_end();
	return true;
}

static bool empty_block_goes(void)
{
	map_begin();
	CHECK(stripes(0, KEYS));
	CHECK(set(0, KEYS - 1, 0) == 0);
	CHECK(mtree_empty(&map.mt));
	map_end();
	return true;
}

static bool set_replaces_whole_blocks(void)
{
	map_begin();
	CHECK(stripes(0, 8 * KEYS));
	CHECK(set(KEYS, 7 * KEYS, 3) == 0);
	CHECK(map_entries() == 3);
	for (unsigned long key = 0; key < 8 * KEYS; key++)
		CHECK(get(key) == (key / KEYS % 7 ? 3 : !(key & 1)));
	map_end();
	return true;
}

static bool set_keeps_the_rest_of_blocks(void)
{
	map_begin();
	CHECK(stripes(0, 8 * KEYS));
	CHECK(set(KEYS - 3, 7 * KEYS + 3, 3) == 0);
	CHECK(map_entries() == 3);
	for (unsigned long key = 0; key < 8 * KEYS; key++)
		CHECK(get(key) == (key < KEYS - 3 || key >= 7 * KEYS + 3 ?
				   !(key & 1) : 3));
	map_end();
	return true;
}

static bool set_across_a_border_of_blocks(void)
{
	map_begin();
	CHECK(stripes(0, 2 * KEYS));
	CHECK(set(KEYS - 2, KEYS + 2, 5) == 0);
	CHECK(map_entries() == 2);
	for (unsigned long key = 0; key < 2 * KEYS; key++)
		CHECK(get(key) == (key >= KEYS - 2 && key < KEYS + 2 ? 5 :
				   !(key & 1)));
	CHECK(rm_attrs_is_uniform(&map, KEYS - 2, KEYS + 2, ~0UL, 5));
	CHECK(!rm_attrs_is_uniform(&map, KEYS - 3, KEYS + 2, ~0UL, 5));
	map_end();
	return true;
}

static bool set_in_a_block_is_cheap(void)
{
	unsigned long walks;

	map_begin();
	CHECK(stripes(0, KEYS));
	walks = tree_walks;
	tree_alloc = TREE_ALLOC_NONE;
	CHECK(set(7, 8, 1) == 0);
	CHECK(set(7, 8, 1) == 0);
	CHECK(get(7) == 1);
	CHECK(tree_walks == walks);
	CHECK(!tree_alloc.nodes && !tree_alloc.failures);
	map_end();
	return true;
}

/* RM_ATTRS_RECENT blocks can be found without a walk; these two not at once. */
static bool blocks_that_share_a_place(void)
{
	const unsigned long other = RM_ATTRS_RECENT * KEYS;

	map_begin();
	CHECK(stripes(0, KEYS));
	CHECK(stripes(other, other + KEYS));
	for (int i = 0; i < 4; i++) {
		CHECK(set(1, 2, i & 1) == 0);
		CHECK(set(other + 1, other + 2, !(i & 1)) == 0);
		CHECK(get(1) == (i & 1) && get(other + 1) == !(i & 1));
	}
	CHECK(set(0, KEYS, 0) == 0);
	CHECK(get(0) == 0 && get(other) == 1);
	map_end();
	return true;
}

static bool order_in_a_block(void)
{
	map_begin();
	CHECK(stripes(0, KEYS));
	CHECK(set(8, KEYS, 1) == 0);
	CHECK(rm_attrs_uniform_order(&map, 0, 9) == 0);
	CHECK(rm_attrs_uniform_order(&map, 8, 9) == 3);
	CHECK(rm_attrs_uniform_order(&map, 15, 2) == 2);
	CHECK(rm_attrs_uniform_order(&map, KEYS - 1, 99) == RM_ATTRS_BLOCK_ORDER - 1);
	map_end();
	return true;
}

static bool run_goes_on_from_block_to_range(void)
{
	struct rm_attrs_run run = { .end = KEYS - 4 };

	map_begin();
	CHECK(stripes(0, KEYS));
	CHECK(set(KEYS - 4, 3 * KEYS, 1) == 0);
	CHECK(stripes(3 * KEYS, 4 * KEYS));
	CHECK(rm_attrs_next(&map, &run, 4 * KEYS));
	CHECK(run.start == KEYS - 4 && run.end == 3 * KEYS + 1 && run.value == 1);
	CHECK(rm_attrs_next(&map, &run, 4 * KEYS));
	CHECK(run.end == 3 * KEYS + 2 && run.value == 0);
	map_end();
	return true;
}

/* Keys from the last multiple of KEYS on would overflow. */
static bool last_keys_are_never_a_block(void)
{
	map_begin();
	for (unsigned long i = 2; i < 12; i += 2)
		CHECK(set(ULONG_MAX - i, ULONG_MAX - i + 1, 1) == 0);
	CHECK(tree_alloc.blocks == 0);
	CHECK(set(ULONG_MAX - 10 * KEYS, ULONG_MAX, 2) == 0);
	CHECK(map_entries() == 1);
	map_end();
	return true;
}

static bool block_without_memory_changes_nothing(void)
{
	map_begin();
	CHECK(set(3, 4, 1) == 0);
	/* The block, its values, then the tree's node. */
	for (unsigned int budget = 0; budget < 3; budget++) {
		tree_alloc = TREE_ALLOC_SLEEPING;
		tree_alloc.sleeping_budget = budget;
		tree_alloc.sleeping_failures = 1;
		CHECK(set(8, 9, 1) == -ENOMEM);
		CHECK(get(3) == 1 && get(8) == 0);
	}
	tree_alloc = TREE_ALLOC_PLENTY;
	CHECK(set(8, 9, 1) == 0);
	CHECK(get(3) == 1 && get(8) == 1);
	map_end();
	return true;
}

static bool many_blocks_are_freed(void)
{
	map_begin();
	CHECK(stripes(0, 1000 * 16));
	CHECK(set(0, 500 * 16, 2) == 0);
	map_end();
	CHECK(tree_leaked() == 0);
	return true;
}

const struct tap_test attrs_block_tests[] = {
	TEST(first_cut_makes_no_block),
	TEST(second_cut_does),
	TEST(undone_cut_makes_no_block),
	TEST(uniform_block_becomes_a_range),
	TEST(empty_block_goes),
	TEST(set_replaces_whole_blocks),
	TEST(set_keeps_the_rest_of_blocks),
	TEST(set_across_a_border_of_blocks),
	TEST(set_in_a_block_is_cheap),
	TEST(blocks_that_share_a_place),
	TEST(order_in_a_block),
	TEST(run_goes_on_from_block_to_range),
	TEST(last_keys_are_never_a_block),
	TEST(block_without_memory_changes_nothing),
	TEST(many_blocks_are_freed),
	TEST_END
};
