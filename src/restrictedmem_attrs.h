/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * The range map: keys (guest frame numbers, page indices) to small values.
 * See restrictedmem_attrs.c for the model, the guarantees and the locking.
 *
 * Ranges are [start, end), so the largest key that can be set is
 * ULONG_MAX - 1.
 */
#ifndef RESTRICTEDMEM_ATTRS_H
#define RESTRICTEDMEM_ATTRS_H

#include <linux/limits.h>
#include <linux/maple_tree.h>
#include <linux/types.h>

/* In a block each key has a byte. */
#define RM_ATTRS_VALUE_MAX	((unsigned long)U8_MAX)

/* Keys of a block, and how many blocks can be found without a walk. */
#ifndef RM_ATTRS_BLOCK_ORDER
#define RM_ATTRS_BLOCK_ORDER	12
#endif
#define RM_ATTRS_RECENT		64

/*
 * Ranges and blocks of a map. A part of the size of a block has one range, and the
 * end of another, before it becomes a block: that is enough for each 16 MiB of 8
 * TiB.
 */
#ifndef RM_ATTRS_MAX_RANGES
#define RM_ATTRS_MAX_RANGES	(1024UL * 1024)
#endif

struct rm_attrs_block;
struct rm_attrs_deposit;

/**
 * struct rm_attrs - a map from key ranges to values
 * @mt: inclusive ranges to value entries; no two neighbours are equal, and
 *	value 0 is stored as nothing; or to struct rm_attrs_block. Written under
 *	its own spinlock, and by one caller at a time.
 * @stores: how many stores into @mt were begun. Written under the spinlock
 *	of @mt, read by anyone.
 * @nr_blocks: how many are in @mt; the writer's
 * @nr_entries: ranges and blocks in @mt; the writer's
 * @nr_deposits: how many are in @deposits; the writer's
 * @deposits: list of what is charged for nodes of @mt; the writer's
 * @recent: blocks that were written lately, by number; each is in @mt as well.
 *	Written by the one writer, read under RCU.
 */
struct rm_attrs {
	struct maple_tree mt;
	unsigned long stores;
	unsigned long nr_blocks;
	unsigned long nr_entries;
	unsigned long nr_deposits;
	struct rm_attrs_deposit *deposits;
	struct rm_attrs_block __rcu *recent[RM_ATTRS_RECENT];
};

/**
 * struct rm_attrs_run - neighbouring keys that have one value
 * @start: first key
 * @end: the key after the last
 * @value: of every key in [@start, @end); 0 where nothing is set
 */
struct rm_attrs_run {
	unsigned long start;
	unsigned long end;
	unsigned long value;
};

void rm_attrs_init(struct rm_attrs *a);
void rm_attrs_destroy(struct rm_attrs *a);

int rm_attrs_set(struct rm_attrs *a, unsigned long start, unsigned long end,
		 unsigned long value);

unsigned long rm_attrs_get(const struct rm_attrs *a, unsigned long key);
bool rm_attrs_next(const struct rm_attrs *a, struct rm_attrs_run *run,
		   unsigned long end);
bool rm_attrs_is_uniform(const struct rm_attrs *a, unsigned long start,
			 unsigned long end, unsigned long mask,
			 unsigned long value);
unsigned int rm_attrs_uniform_order(const struct rm_attrs *a,
				    unsigned long key, unsigned int max_order);

#endif /* RESTRICTEDMEM_ATTRS_H */
