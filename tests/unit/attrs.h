/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * What the tests of the range map share: one map, random numbers, and a model
 * of the map that is an array with one value per key.
 */
#ifndef RM_UNIT_ATTRS_H
#define RM_UNIT_ATTRS_H

#include <stdbool.h>
#include <linux/kernel.h>

#include "../../src/restrictedmem_attrs.h"
#include "tap.h"

#define MAX_KEY		(ULONG_MAX - 1)	/* the largest that can be set */

/* Each test makes the map anew. */
extern struct rm_attrs map;

void map_begin(void);
void map_end(void);

static inline int set(unsigned long start, unsigned long end,
		      unsigned long value)
{
	return rm_attrs_set(&map, start, end, value);
}

static inline unsigned long get(unsigned long key)
{
	return rm_attrs_get(&map, key);
}

/* How many ranges the tree holds, having had it validate itself. */
unsigned long map_entries(void);

/* xorshift, so that a seed means the same everywhere. */
void rnd_seed(unsigned long seed);
unsigned long rnd(unsigned long below);
unsigned long rnd_from(unsigned long *state, unsigned long below);

#define MODEL_MAX	4096
#define MODEL_VALUES	9

struct model {
	unsigned long base;		/* the key of value[0] */
	unsigned long size;
	bool shortage;	/* a block may be left that could be a range */
	unsigned char value[MODEL_MAX];	/* keys elsewhere have 0 */
};

struct op {
	unsigned long start;
	unsigned long end;
	unsigned long value;
};

/* An empty map, and the model of it. */
void model_begin(struct model *m, unsigned long base, unsigned long size);
unsigned long model_get(const struct model *m, unsigned long key);
void model_set(struct model *m, struct op op);
struct op random_op(const struct model *m);

/* Is the map what the model says? The first two look at random places. */
bool model_matches_uniform(const struct model *m);
bool model_matches_order(const struct model *m);
bool model_matches(const struct model *m);

/* The seeds to run random tests from. */
extern unsigned long seeds[];
extern unsigned int seed_count;

extern const struct tap_test attrs_tests[];
extern const struct tap_test attrs_block_tests[];
extern const struct tap_test attrs_random_tests[];
extern const struct tap_test attrs_readers_tests[];

#endif /* RM_UNIT_ATTRS_H */
