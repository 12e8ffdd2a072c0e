// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * Tests of the range map, src/restrictedmem_attrs.c: one fact each.
 */
#include <errno.h>
#include <limits.h>

#include "attrs.h"
#include "tree.h"

#define KEYS_2M		512UL
#define KEYS_1G		262144UL
#define ORDER_2M	9
#define ORDER_1G	18

static bool empty_map_reads_zero(void)
{
	map_begin();
	CHECK(get(0) == 0);
	CHECK(get(12345) == 0);
	CHECK(get(ULONG_MAX) == 0);
	CHECK(rm_attrs_is_uniform(&map, 0, ULONG_MAX, ~0UL, 0));
	CHECK(map_entries() == 0);
	map_end();
	return true;
}

static bool set_covers_its_range_and_no_more(void)
{
	map_begin();
	CHECK(set(100, 200, 5) == 0);
	CHECK(get(99) == 0);
	CHECK(get(100) == 5);
	CHECK(get(199) == 5);
	CHECK(get(200) == 0);
	CHECK(set(150, 151, 7) == 0);
	CHECK(get(149) == 5);
	CHECK(get(150) == 7);
	CHECK(get(151) == 5);
	CHECK(map_entries() == 3);
	map_end();
	return true;
}

static bool set_zero_removes(void)
{
	map_begin();
	CHECK(set(0, 1000, 3) == 0);
	CHECK(set(10, 20, 0) == 0);
	CHECK(get(9) == 3);
	CHECK(get(10) == 0);
	CHECK(get(19) == 0);
	CHECK(get(20) == 3);
	CHECK(set(0, ULONG_MAX, 0) == 0);
	CHECK(get(0) == 0 && get(999) == 0);
	CHECK(mtree_empty(&map.mt));
	map_end();
	return true;
}

static bool set_refuses_wrong_arguments(void)
{
	map_begin();
	CHECK(set(10, 20, 1) == 0);
	CHECK(set(15, 15, 2) == -EINVAL);
	CHECK(set(0, 0, 2) == -EINVAL);
	CHECK(set(16, 15, 2) == -EINVAL);
	CHECK(set(ULONG_MAX, ULONG_MAX, 2) == -EINVAL);
	CHECK(set(15, 16, RM_ATTRS_VALUE_MAX + 1) == -EINVAL);
	CHECK(set(15, 16, ULONG_MAX) == -EINVAL);
	CHECK(get(15) == 1);
	CHECK(map_entries() == 1);
	map_end();
	return true;
}

static bool largest_value_is_kept(void)
{
	map_begin();
	CHECK(set(15, 16, RM_ATTRS_VALUE_MAX) == 0);
	CHECK(get(15) == RM_ATTRS_VALUE_MAX);
	map_end();
	return true;
}

static bool first_and_last_key_can_be_set(void)
{
	map_begin();
	CHECK(set(0, 1, 1) == 0);
	CHECK(get(0) == 1);
	CHECK(get(1) == 0);
	CHECK(set(MAX_KEY, MAX_KEY + 1, 2) == 0);
	CHECK(get(MAX_KEY - 1) == 0);
	CHECK(get(MAX_KEY) == 2);
	CHECK(get(ULONG_MAX) == 0);
	CHECK(set(0, ULONG_MAX, 3) == 0);
	CHECK(get(0) == 3);
	CHECK(get(MAX_KEY) == 3);
	CHECK(get(ULONG_MAX) == 0);
	CHECK(map_entries() == 1);
	CHECK(set(0, 1, 0) == 0);
	CHECK(get(0) == 0);
	CHECK(get(1) == 3);
	map_end();
	return true;
}

static bool equal_neighbours_become_one(void)
{
	map_begin();
	CHECK(set(100, 200, 4) == 0);
	CHECK(set(200, 300, 4) == 0);	/* to the left */
	CHECK(map_entries() == 1);
	CHECK(set(50, 100, 4) == 0);	/* to the right */
	CHECK(map_entries() == 1);
	CHECK(set(400, 500, 4) == 0);
	CHECK(map_entries() == 2);
	CHECK(set(300, 400, 4) == 0);	/* both */
	CHECK(map_entries() == 1);
	CHECK(set(250, 350, 6) == 0);
	CHECK(map_entries() == 3);
	CHECK(set(250, 350, 4) == 0);	/* over what divided them */
	CHECK(map_entries() == 1);
	CHECK(set(480, 520, 4) == 0);	/* overlapping the end */
	CHECK(set(40, 60, 4) == 0);	/* and the start */
	CHECK(map_entries() == 1);
	CHECK(set(520, 600, 5) == 0);	/* another value stays apart */
	CHECK(map_entries() == 2);
	CHECK(get(519) == 4 && get(520) == 5);
	map_end();
	return true;
}

static bool pages_set_one_by_one_become_one(void)
{
	unsigned long i;

	map_begin();
	for (i = 0; i < KEYS_2M; i += 2)
		CHECK(set(i, i + 1, 1) == 0);
	CHECK(map_entries() == KEYS_2M / 2);
	for (i = 1; i < KEYS_2M; i += 2)
		CHECK(set(i, i + 1, 1) == 0);
	CHECK(map_entries() == 1);
	CHECK(rm_attrs_uniform_order(&map, 77, ORDER_2M) == ORDER_2M);
	map_end();
	return true;
}

static bool set_again_allocates_nothing(void)
{
	map_begin();
	CHECK(set(100, 200, 4) == 0);
	CHECK(set(200, 300, 5) == 0);
	tree_alloc = TREE_ALLOC_NONE;
	CHECK(set(100, 200, 4) == 0);
	CHECK(set(100, 150, 4) == 0);
	CHECK(set(150, 200, 4) == 0);
	CHECK(set(120, 121, 4) == 0);
	CHECK(set(300, ULONG_MAX, 0) == 0);
	CHECK(set(0, 100, 0) == 0);
	CHECK(tree_alloc.nodes == 0);
	CHECK(tree_alloc.failures == 0);
	CHECK(map.stores == 2);
	map_end();
	return true;
}

/* Every other key of [0, 2n) has the value 1. */
static bool stripes(unsigned long n)
{
	unsigned long i;

	for (i = 0; i < n; i++)
		CHECK(set(2 * i, 2 * i + 1, 1) == 0);
	return true;
}

static bool long_set_costs_what_a_short_one_does(void)
{
	unsigned long short_walks, walks;

	map_begin();
	CHECK(stripes(20000));
	CHECK(map_entries() == 20000);

	walks = tree_walks;
	CHECK(set(20001, 20002, 2) == 0);
	short_walks = tree_walks - walks;

	walks = tree_walks;
	tree_alloc = TREE_ALLOC_SLEEPING;
	CHECK(set(7, 1UL << 60, 2) == 0);
	CHECK(tree_walks - walks <= short_walks);
	/* As the tree reserves them: three a level, and a root. */
	CHECK(tree_alloc.nodes <= 1 + 3 * 5);
	CHECK(map_entries() == 5);
	map_end();
	return true;
}

static bool uniform_answers_for_exactly_the_range(void)
{
	map_begin();
	CHECK(set(100, 200, 1) == 0);
	CHECK(rm_attrs_is_uniform(&map, 100, 200, ~0UL, 1));
	CHECK(!rm_attrs_is_uniform(&map, 99, 200, ~0UL, 1));
	CHECK(!rm_attrs_is_uniform(&map, 100, 201, ~0UL, 1));
	CHECK(rm_attrs_is_uniform(&map, 0, 100, ~0UL, 0));
	CHECK(!rm_attrs_is_uniform(&map, 0, 101, ~0UL, 0));
	CHECK(rm_attrs_is_uniform(&map, 200, ULONG_MAX, ~0UL, 0));
	CHECK(!rm_attrs_is_uniform(&map, 199, ULONG_MAX, ~0UL, 0));
	CHECK(!rm_attrs_is_uniform(&map, 0, ULONG_MAX, ~0UL, 0));
	map_end();
	return true;
}

static bool uniform_looks_at_masked_bits_only(void)
{
	map_begin();
	CHECK(set(0, 10, 1 | 8) == 0);
	CHECK(set(10, 20, 2 | 8) == 0);
	CHECK(set(20, 30, 8) == 0);
	CHECK(rm_attrs_is_uniform(&map, 0, 30, 8, 8));
	CHECK(!rm_attrs_is_uniform(&map, 0, 31, 8, 8));
	CHECK(rm_attrs_is_uniform(&map, 0, 31, 4, 0));
	CHECK(!rm_attrs_is_uniform(&map, 0, 30, 1, 1));
	CHECK(rm_attrs_is_uniform(&map, 0, 31, 0, 0));
	CHECK(!rm_attrs_is_uniform(&map, 0, 10, 1, 9));	/* 8 is not asked for */
	map_end();
	return true;
}

static bool empty_range_is_uniform(void)
{
	map_begin();
	CHECK(set(0, 10, 1) == 0);
	CHECK(rm_attrs_is_uniform(&map, 5, 5, ~0UL, 7));
	CHECK(rm_attrs_is_uniform(&map, 6, 5, ~0UL, 7));
	CHECK(rm_attrs_is_uniform(&map, ULONG_MAX, ULONG_MAX, ~0UL, 7));
	map_end();
	return true;
}

static bool uniform_costs_one_walk(void)
{
	unsigned long walks;

	map_begin();
	CHECK(stripes(1000));
	CHECK(set(KEYS_1G, 2 * KEYS_1G, 1) == 0);
	walks = tree_walks;
	CHECK(rm_attrs_is_uniform(&map, KEYS_1G, 2 * KEYS_1G, ~0UL, 1));
	CHECK(tree_walks - walks == 1);
	CHECK(rm_attrs_uniform_order(&map, KEYS_1G, ORDER_1G) == ORDER_1G);
	CHECK(tree_walks - walks == 2);
	CHECK(!rm_attrs_is_uniform(&map, 0, 2 * KEYS_1G, ~0UL, 1));
	CHECK(tree_walks - walks <= 4);
	map_end();
	return true;
}

static bool order_of_a_2m_block(void)
{
	unsigned long block = 7 * KEYS_2M;

	map_begin();
	CHECK(set(block, block + KEYS_2M, 1) == 0);
	CHECK(rm_attrs_uniform_order(&map, block, ORDER_2M) == ORDER_2M);
	CHECK(rm_attrs_uniform_order(&map, block + 300, ORDER_2M) == ORDER_2M);
	CHECK(rm_attrs_uniform_order(&map, block + 511, ORDER_2M) == ORDER_2M);
	CHECK(rm_attrs_uniform_order(&map, block, ORDER_1G) == ORDER_2M);
	CHECK(rm_attrs_uniform_order(&map, block - 1, ORDER_1G) == ORDER_2M);
	CHECK(rm_attrs_uniform_order(&map, block + KEYS_2M, ORDER_1G) == 12);
	CHECK(rm_attrs_uniform_order(&map, block, 0) == 0);
	CHECK(rm_attrs_uniform_order(&map, block, 4) == 4);
	/* One key less at either end. */
	CHECK(set(block, block + 1, 0) == 0);
	CHECK(rm_attrs_uniform_order(&map, block, ORDER_1G) == 0);
	CHECK(rm_attrs_uniform_order(&map, block + 1, ORDER_1G) == 0);
	CHECK(rm_attrs_uniform_order(&map, block + 2, ORDER_1G) == 1);
	CHECK(rm_attrs_uniform_order(&map, block + 511, ORDER_1G) == 8);
	CHECK(set(block, block + 1, 1) == 0);
	CHECK(set(block + 511, block + 512, 2) == 0);
	CHECK(rm_attrs_uniform_order(&map, block, ORDER_1G) == 8);
	CHECK(rm_attrs_uniform_order(&map, block + 511, ORDER_1G) == 0);
	map_end();
	return true;
}

static bool order_of_a_1g_block(void)
{
	map_begin();
	CHECK(set(KEYS_1G, 2 * KEYS_1G, 1) == 0);
	CHECK(rm_attrs_uniform_order(&map, KEYS_1G, ORDER_1G) == ORDER_1G);
	CHECK(rm_attrs_uniform_order(&map, 2 * KEYS_1G - 1, 30) == ORDER_1G);
	CHECK(rm_attrs_uniform_order(&map, KEYS_1G - 1, 30) == ORDER_1G);
	CHECK(rm_attrs_uniform_order(&map, 2 * KEYS_1G, 30) == 19);
	/* A gigabyte of keys, but off by one. */
	CHECK(set(KEYS_1G, KEYS_1G + 1, 0) == 0);
	CHECK(set(2 * KEYS_1G, 2 * KEYS_1G + 1, 1) == 0);
	CHECK(rm_attrs_uniform_order(&map, KEYS_1G + 600, ORDER_1G) == 9);
	CHECK(rm_attrs_uniform_order(&map, 2 * KEYS_1G - 1, ORDER_1G) == 17);
	CHECK(rm_attrs_uniform_order(&map, 2 * KEYS_1G, ORDER_1G) == 0);
	map_end();
	return true;
}

static bool order_is_less_than_a_word(void)
{
	map_begin();
	CHECK(rm_attrs_uniform_order(&map, 0, UINT_MAX) == 63);
	CHECK(rm_attrs_uniform_order(&map, ULONG_MAX, UINT_MAX) == 63);
	CHECK(set(0, ULONG_MAX, 1) == 0);
	CHECK(rm_attrs_uniform_order(&map, 0, 64) == 63);
	CHECK(rm_attrs_uniform_order(&map, MAX_KEY, 64) == 0);
	CHECK(rm_attrs_uniform_order(&map, ULONG_MAX - 2, 64) == 1);
	map_end();
	return true;
}

static bool next_is(struct rm_attrs_run *run, unsigned long stop,
		    unsigned long start, unsigned long end,
		    unsigned long value)
{
	return rm_attrs_next(&map, run, stop) && run->start == start &&
	       run->end == end && run->value == value;
}

static bool next_visits_each_run(void)
{
	struct rm_attrs_run run = { .end = 0 };

	map_begin();
	CHECK(set(10, 20, 1) == 0);
	CHECK(set(20, 30, 2) == 0);
	CHECK(set(40, 50, 1) == 0);
	CHECK(next_is(&run, ULONG_MAX, 0, 10, 0));
	CHECK(next_is(&run, ULONG_MAX, 10, 20, 1));
	CHECK(next_is(&run, ULONG_MAX, 20, 30, 2));
	CHECK(next_is(&run, ULONG_MAX, 30, 40, 0));
	CHECK(next_is(&run, ULONG_MAX, 40, 50, 1));
	CHECK(next_is(&run, ULONG_MAX, 50, ULONG_MAX, 0));
	CHECK(!rm_attrs_next(&map, &run, ULONG_MAX));
	CHECK(run.start == 50 && run.end == ULONG_MAX);
	map_end();
	return true;
}

static bool next_cuts_off_first_and_last(void)
{
	struct rm_attrs_run run = { .end = 15 };

	map_begin();
	CHECK(set(10, 20, 1) == 0);
	CHECK(set(20, 30, 2) == 0);
	CHECK(next_is(&run, 21, 15, 20, 1));
	CHECK(next_is(&run, 21, 20, 21, 2));
	CHECK(!rm_attrs_next(&map, &run, 21));
	run.end = 12;
	CHECK(next_is(&run, 13, 12, 13, 1));
	run.end = 12;
	CHECK(!rm_attrs_next(&map, &run, 12));
	map_end();
	return true;
}

static bool next_allows_sets_in_between(void)
{
	struct rm_attrs_run run = { .end = 0 };
	unsigned int visits = 0;

	map_begin();
	CHECK(stripes(100));
	while (rm_attrs_next(&map, &run, 200)) {
		visits++;
		if (run.value)
			CHECK(set(run.start, run.end, 0) == 0);
	}
	CHECK(visits == 200);
	CHECK(mtree_empty(&map.mt));
	map_end();
	return true;
}

/*
 * Of a tree of four levels or more the tree's own code, in RCU mode, is wrong
 * about inner nodes with one free slot, unless they are of the kind that we ask
 * for. It shows, as a crash, when they are freed.
 */
#define MANY_RANGES	100000UL

static bool one_set_replaces_many_ranges(void)
{
	map_begin();
	CHECK(stripes(MANY_RANGES));
	CHECK(set(0, 2 * MANY_RANGES, 2) == 0);
	CHECK(map_entries() == 1);
	map_end();
	return true;
}

static bool map_of_many_ranges_is_freed(void)
{
	map_begin();
	CHECK(stripes(MANY_RANGES));
	map_end();
	CHECK(tree_leaked() == 0);
	return true;
}

/* Ranges that nothing coalesces, and no block replaces: one in each part. */
#define SPARSE_KEY(i)	((i) * (4UL << RM_ATTRS_BLOCK_ORDER))

static bool sparse(unsigned long ranges)
{
	for (unsigned long i = 0; i < ranges; i++)
		CHECK(set(SPARSE_KEY(i), SPARSE_KEY(i) + 1, 1) == 0);
	return true;
}

static bool too_many_ranges_are_refused(void)
{
	unsigned long max = RM_ATTRS_MAX_RANGES, last = SPARSE_KEY(max - 1);

	map_begin();
	CHECK(sparse(max));
	CHECK(map_entries() == max);
	CHECK(set(SPARSE_KEY(max), SPARSE_KEY(max) + 1, 1) == -ENOMEM);
	CHECK(get(SPARSE_KEY(max)) == 0);
	/* One that is longer, or in place of another, is not one more. */
	CHECK(set(last + 1, last + 2, 1) == 0);
	CHECK(set(last, last + 2, 2) == 0);
	CHECK(set(last, last + 2, 0) == 0);
	CHECK(set(SPARSE_KEY(max), SPARSE_KEY(max) + 1, 1) == 0);
	CHECK(set(0, SPARSE_KEY(max), 2) == 0);
	CHECK(map_entries() == 2);
	map_end();
	return true;
}

static bool ranges_are_paid_for(void)
{
	map_begin();
	CHECK(sparse(64));
	CHECK(map.nr_deposits == 0);
	tree_alloc = TREE_ALLOC_SLEEPING;
	tree_alloc.sleeping_failures = 1;
	CHECK(set(SPARSE_KEY(64), SPARSE_KEY(64) + 1, 1) == -ENOMEM);
	CHECK(get(SPARSE_KEY(64)) == 0);
	tree_alloc = TREE_ALLOC_PLENTY;
	CHECK(sparse(1000));
	CHECK(map_entries() == 1000);
	CHECK(map.nr_deposits == 15);
	CHECK(set(0, SPARSE_KEY(1000), 0) == 0);
	CHECK(map.nr_deposits == 0);
	CHECK(sparse(1000));
	map_end();
	CHECK(map.nr_deposits == 0);
	return true;
}

const struct tap_test attrs_tests[] = {
	TEST(empty_map_reads_zero),
	TEST(set_covers_its_range_and_no_more),
	TEST(set_zero_removes),
	TEST(set_refuses_wrong_arguments),
	TEST(largest_value_is_kept),
	TEST(first_and_last_key_can_be_set),
	TEST(equal_neighbours_become_one),
	TEST(pages_set_one_by_one_become_one),
	TEST(set_again_allocates_nothing),
	TEST(long_set_costs_what_a_short_one_does),
	TEST(uniform_answers_for_exactly_the_range),
	TEST(uniform_looks_at_masked_bits_only),
	TEST(empty_range_is_uniform),
	TEST(uniform_costs_one_walk),
	TEST(order_of_a_2m_block),
	TEST(order_of_a_1g_block),
	TEST(order_is_less_than_a_word),
	TEST(next_visits_each_run),
	TEST(next_cuts_off_first_and_last),
	TEST(next_allows_sets_in_between),
	TEST(one_set_replaces_many_ranges),
	TEST(map_of_many_ranges_is_freed),
	TEST(too_many_ranges_are_refused),
	TEST(ranges_are_paid_for),
	TEST_END
};
