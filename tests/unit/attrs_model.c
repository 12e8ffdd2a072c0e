// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * The range map's model, and how the two are compared.
 */
#include <string.h>

#include "attrs.h"
#include "tree.h"

struct rm_attrs map;
static bool map_in_use;

void map_begin(void)
{
	/* A test that failed has left things as they were. */
	if (map_in_use)
		map_end();
	map_in_use = true;
	tree_alloc = TREE_ALLOC_PLENTY;
	tree_reader_step = NULL;
	tree_writer_step = NULL;
	tree_torn_walks = 0;
	rm_attrs_init(&map);
}

void map_end(void)
{
	rm_attrs_destroy(&map);
	map_in_use = false;
}

unsigned long map_entries(void)
{
	unsigned long entries = tree_entries(&map.mt);

	tree_validate(&map.mt);
	/* What the map is charged for, and limited to */
	if (map.nr_entries != entries)
		return ULONG_MAX;
	return entries;
}

static unsigned long rnd_state;

void rnd_seed(unsigned long seed)
{
	rnd_state = seed * 0x9e3779b97f4a7c15UL + 1;
}

unsigned long rnd_from(unsigned long *state, unsigned long below)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return (*state >> 11) % below;
}

unsigned long rnd(unsigned long below)
{
	return rnd_from(&rnd_state, below);
}

void model_begin(struct model *m, unsigned long base, unsigned long size)
{
	map_begin();
	m->base = base;
	m->size = size;
	m->shortage = false;
	memset(m->value, 0, sizeof(m->value));
}

unsigned long model_get(const struct model *m, unsigned long key)
{
	return key - m->base < m->size ? m->value[key - m->base] : 0;
}

void model_set(struct model *m, struct op op)
{
	memset(m->value + (op.start - m->base), op.value, op.end - op.start);
}

/* Mostly short ranges, so that there are many. */
struct op random_op(const struct model *m)
{
	unsigned long most = rnd(8) ? min(m->size, 24UL) : m->size;
	unsigned long length = 1 + rnd(most);
	struct op op;

	op.start = m->base + rnd(m->size - length + 1);
	op.end = op.start + length;
	op.value = rnd(3) ? rnd(MODEL_VALUES) : 0;
	return op;
}

static bool model_matches_runs(const struct model *m)
{
	unsigned long stop = m->base + m->size;
	unsigned long key = m->base, ranges = 0;
	struct rm_attrs_run run = { .end = key };
	unsigned long before = ~0UL;

	while (rm_attrs_next(&map, &run, stop)) {
		CHECK(run.start == key);
		CHECK(run.end > key && run.end <= stop);
		CHECK(run.value != before);
		for (; key < run.end; key++)
			CHECK(model_get(m, key) == run.value);
		before = run.value;
		ranges += run.value != 0;
	}
	CHECK(key == stop);
	CHECK(rm_attrs_is_uniform(&map, 0, m->base, ~0UL, 0));
	CHECK(rm_attrs_is_uniform(&map, stop, ULONG_MAX, ~0UL, 0));
	/* Around a block, runs may be cut. */
	if (RM_ATTRS_BLOCK_ORDER)
		CHECK(map_entries() <= 2 * ranges + 1);
	else
		CHECK(map_entries() == ranges);
	return true;
}

static bool model_matches_keys(const struct model *m)
{
	unsigned long key;

	for (key = m->base; key < m->base + m->size; key++)
		CHECK(rm_attrs_get(&map, key) == model_get(m, key));
	return true;
}

static bool model_uniform(const struct model *m, unsigned long start,
			  unsigned long end, unsigned long mask,
			  unsigned long value)
{
	for (; start < end; start++) {
		if ((model_get(m, start) & mask) != value)
			return false;
	}
	return true;
}

bool model_matches_uniform(const struct model *m)
{
	unsigned long key = m->base + rnd(m->size);
	unsigned long end = key + rnd(m->base + m->size - key + 1);
	unsigned long mask = rnd(2) ? ~0UL : rnd(16);
	unsigned long value = (rnd(4) ? model_get(m, key) : rnd(16)) & mask;

	if (rnd(4))
		end = min(end, key + 16);
	CHECK(rm_attrs_is_uniform(&map, key, end, mask, value) ==
	      model_uniform(m, key, end, mask, value));
	return true;
}

bool model_matches_order(const struct model *m)
{
	unsigned long key = m->base + rnd(m->size);
	unsigned long offset, i;
	unsigned int max_order = rnd(13), order, found;

	for (order = 0; order < max_order; order++) {
		offset = (2UL << order) - 1;
		for (i = 0; i <= offset; i++) {
			if (model_get(m, (key & ~offset) + i) !=
			    model_get(m, key))
				break;
		}
		if (i <= offset)
			break;
	}
	found = rm_attrs_uniform_order(&map, key, max_order);
	if (m->shortage && RM_ATTRS_BLOCK_ORDER)
		CHECK(found <= order &&
		      found >= min(order, (unsigned int)RM_ATTRS_BLOCK_ORDER));
	else
		CHECK(found == order);
	return true;
}

bool model_matches(const struct model *m)
{
	return model_matches_runs(m) && model_matches_keys(m) &&
	       model_matches_uniform(m) && model_matches_order(m);
}
