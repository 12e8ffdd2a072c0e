// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * Random operations on the range map, with and without memory. After each the
 * map must be what its model is.
 */
#include <errno.h>

#include "attrs.h"
#include "tree.h"

static struct model model;

static bool random_ops(unsigned long base, unsigned long size,
		       unsigned int ops)
{
	struct op op;

	model_begin(&model, base, size);
	while (ops--) {
		op = random_op(&model);
		tree_alloc.nowait_budget = rnd(2) ? UINT_MAX : rnd(4);
		CHECK(set(op.start, op.end, op.value) == 0);
		model_set(&model, op);
		CHECK(model_matches_uniform(&model));
		CHECK(model_matches_order(&model));
		if (size <= 100 || ops % 100 == 0)
			CHECK(model_matches(&model));
	}
	/* And take it down again, range by range. */
	while (!mtree_empty(&map.mt)) {
		op = random_op(&model);
		op.value = 0;
		CHECK(set(op.start, op.end, op.value) == 0);
		model_set(&model, op);
		if (rnd(size) < 10)
			CHECK(model_matches(&model));
	}
	map_end();
	return true;
}

static bool random_from_each_seed(unsigned long base, unsigned long size,
				  unsigned int ops)
{
	unsigned int i;

	for (i = 0; i < seed_count; i++) {
		rnd_seed(seeds[i]);
		if (!random_ops(base, size, ops)) {
			printf("# with seed %lu\n", seeds[i]);
			return false;
		}
	}
	return true;
}

static bool random_ops_in_one_node(void)
{
	return random_from_each_seed(0, 12, 4000);
}

static bool random_ops_in_a_few_nodes(void)
{
	return random_from_each_seed(1000, 100, 4000);
}

static bool random_ops_in_many_nodes(void)
{
	return random_from_each_seed(1UL << 40, MODEL_MAX, 10000);
}

static bool random_ops_at_the_last_keys(void)
{
	return random_from_each_seed(ULONG_MAX - 300, 300, 4000);
}

/* Failed allocations. */

static bool failed_set_changes_nothing(void)
{
	unsigned int i, failed = 0, ops = 3000;
	struct op op;
	int ret;

	rnd_seed(1);
	model_begin(&model, 0, 400);
	model.shortage = true;
	for (i = 0; i < ops; i++) {
		op = random_op(&model);
		tree_alloc = TREE_ALLOC_NONE;
		ret = set(op.start, op.end, op.value);
		CHECK(ret == 0 || ret == -ENOMEM);
		/* A block that cannot go stays, which is no failure. */
		CHECK(!ret || tree_alloc.failures);
		CHECK(!ret == !tree_alloc.failures || RM_ATTRS_BLOCK_ORDER);
		failed += !!ret;
		if (!ret)
			model_set(&model, op);
		CHECK(model_matches(&model));
		if (!ret)
			continue;

		/* And it can be had, once there is memory. */
		tree_alloc = TREE_ALLOC_SLEEPING;
		CHECK(set(op.start, op.end, op.value) == 0);
		model_set(&model, op);
		CHECK(model_matches(&model));
	}
	/* The larger the blocks, the less is allocated. */
	CHECK(failed > ops >> (2 + RM_ATTRS_BLOCK_ORDER));
	map_end();
	return true;
}

static bool set_survives_a_shortage(void)
{
	unsigned int i;
	struct op op;

	rnd_seed(2);
	model_begin(&model, 0, 400);
	model.shortage = true;
	for (i = 0; i < 3000; i++) {
		op = random_op(&model);
		tree_alloc.nowait_budget = 1 + rnd(6);
		tree_alloc.sleeping_failures = rnd(3);
		if (set(op.start, op.end, op.value) == 0)
			model_set(&model, op);
		CHECK(model_matches(&model));
	}
	map_end();
	return true;
}

const struct tap_test attrs_random_tests[] = {
	TEST(random_ops_in_one_node),
	TEST(random_ops_in_a_few_nodes),
	TEST(random_ops_in_many_nodes),
	TEST(random_ops_at_the_last_keys),
	TEST(failed_set_changes_nothing),
	TEST(set_survives_a_shortage),
	TEST_END
};
