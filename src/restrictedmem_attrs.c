// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * The range map: which value has which key. KVM keeps one per layer of memory
 * attributes, its keys being guest frame numbers.
 *
 * Invariant: at rest no two neighbouring ranges of the tree have the same
 * value, keys without a range having the value 0. So the range around a key is
 * the whole of what is uniform there, and one walk from the root answers for a
 * gigabyte as for a page. rm_attrs_set() keeps the invariant by storing its
 * range joined with equal neighbours, in one store: it happens or it does not.
 *
 * The interface speaks of [start, end); the tree's ranges include their last
 * key. Variables are named "end" and "last" accordingly.
 *
 * Readers take no lock. Each key they look at has the value from before or
 * after a set that runs meanwhile, but keys looked up one after the other may
 * straddle it: whoever needs a range to stay as it is excludes writers, or
 * notices them as KVM does with mmu_invalidate_seq.
 *
 * MT_FLAGS_ALLOC_RANGE is for the layout of inner nodes that comes with it; the
 * gaps it keeps track of are of no use here. In the other layout a node with
 * one free slot keeps its own end there, and the tree, in RCU mode, follows
 * that like a pointer when it frees four levels or more at once.
 *
 * Readers retry while the writer replaces a node, and the writer does that
 * with its spinlock held. It is a spinlock so that no task can read on the CPU
 * of a writer halfway through. An interrupt could, and must not.
 */

#include <linux/errno.h>
#include <linux/gfp.h>
#include <linux/kernel.h>
#include <linux/maple_tree.h>
#include <linux/rcupdate.h>
#include <linux/sched/mm.h>
#include <linux/xarray.h>
#include <asm/barrier.h>

#include "restrictedmem_attrs.h"

/**
 * rm_attrs_init() - make an empty map, every key 0
 * @a: the map
 *
 * Context: Any.
 */
void rm_attrs_init(struct rm_attrs *a)
{
	mt_init_flags(&a->mt, MT_FLAGS_ALLOC_RANGE | MT_FLAGS_USE_RCU);
	a->stores = 0;
}

/**
 * rm_attrs_destroy() - free what the map holds
 * @a: the map; the caller sees to it that nobody reads or writes it any more
 *
 * The map can be used again only after rm_attrs_init().
 *
 * Context: Process context. Takes the map's spinlock.
 */
void rm_attrs_destroy(struct rm_attrs *a)
{
	mtree_destroy(&a->mt);
}

/*
 * The one way in for readers: the value of @key and the range [*first, *last]
 * around it, which has the same value.
 *
 * A store may change a node that a reader is in: a range's value in place, or
 * the border between two ranges together with the value of one of them. Every
 * such store alone is harmless, because it is ordered so that the reader pairs
 * the old border with an old value or the new with a new. But two stores let
 * it choose a slot by the old border and find there the later value of a range
 * that @key has left. Hence @stores: unchanged, it says that at most the one
 * store already begun ran beside us. That one may take its time, asleep for
 * memory; we do not wait for it.
 *
 * A border moved by that one store between our two looks at it can still leave
 * @key outside the range returned. The next walk sees it where it now is.
 */
static unsigned long rm_attrs_lookup(const struct rm_attrs *a,
				     unsigned long key, unsigned long *first,
				     unsigned long *last)
{
	MA_STATE(mas, (struct maple_tree *)&a->mt, key, key);
	unsigned long stores;
	void *entry;

	do {
		/* Pairs with rm_attrs_set(): see all of the stores before. */
		stores = smp_load_acquire(&a->stores);
		mas_set(&mas, key);
		rcu_read_lock();
		entry = mas_walk(&mas);
		rcu_read_unlock();
		/* Pairs with rm_attrs_set(): what we saw of a store, counts. */
		smp_rmb();
	} while (READ_ONCE(a->stores) != stores ||
		 key < mas.index || key > mas.last);

	*first = mas.index;
	*last = mas.last;
	return xa_to_value(entry);
}

/**
 * rm_attrs_set() - give all keys of a range one value
 * @a: the map
 * @start: first key
 * @end: the key after the last, above @start
 * @value: at most RM_ATTRS_VALUE_MAX; 0 removes
 *
 * Allocates nothing if the range has the value already. The cost does not
 * depend on the length of the range, only (in nodes to free) on how many
 * ranges it replaces.
 *
 * There is no choice of gfp flags because none works: the tree first tries
 * without sleeping and without __GFP_ACCOUNT whatever it is asked for, and
 * flags that forbid sleeping can make it retry for ever under its spinlock.
 *
 * Context: Process context, may sleep. The caller allows one writer at a time.
 * Takes the map's spinlock, and drops it to allocate.
 * Return: 0, -EINVAL for an empty range or a value too large, or -ENOMEM; in
 * case of an error nothing has changed.
 */
int rm_attrs_set(struct rm_attrs *a, unsigned long start, unsigned long end,
		 unsigned long value)
{
	MA_STATE(mas, &a->mt, start, end - 1);
	unsigned long first, last, stores;
	int ret = 0;

	if (start >= end || value > RM_ATTRS_VALUE_MAX)
		return -EINVAL;
	might_alloc(GFP_KERNEL);

	mas_lock(&mas);

	if (rm_attrs_lookup(a, start, &first, &last) == value &&
	    last >= end - 1)
		goto out_unlock;

	/* The range before, or the part of its range before @start. */
	if (start && rm_attrs_lookup(a, start - 1, &first, &last) == value)
		mas.index = first;
	/* The range after, or the part of its range from @end on. */
	if (rm_attrs_lookup(a, end, &first, &last) == value)
		mas.last = last;

	stores = a->stores + 1;
	/* Pairs with rm_attrs_lookup(): the stores before are complete. */
	smp_store_release(&a->stores, stores);
	/* Pairs with rm_attrs_lookup(): counted before any of it is seen. */
	smp_wmb();

	ret = mas_store_gfp(&mas, value ? xa_mk_value(value) : NULL,
			    GFP_KERNEL);

	/* A second writer while we slept: the neighbours may have changed. */
	WARN_ON_ONCE(a->stores != stores);

out_unlock:
	mas_unlock(&mas);
	return ret;
}

/**
 * rm_attrs_get() - the value of one key
 * @a: the map
 * @key: any
 *
 * Context: Any but interrupts, also under spinlocks. Takes no lock.
 * Return: the value, 0 if none is set.
 */
unsigned long rm_attrs_get(const struct rm_attrs *a, unsigned long key)
{
	unsigned long first, last;

	return rm_attrs_lookup(a, key, &first, &last);
}

/**
 * rm_attrs_next() - visit a range run by run
 * @a: the map
 * @run: the run visited last; for the first call only its end matters, and
 *	 says where to begin. Set to the run that begins there.
 * @end: where to stop; the last run is cut off here
 *
 * Visits the runs whose value is 0 as well. The runs join up without gaps and
 * are as long as can be, except that a run next to one that was set since may
 * have the same value as it. Between calls the caller may do as it likes,
 * change the map included.
 *
 * Context: Any but interrupts, also under spinlocks. Takes no lock.
 * Return: true if there was a run, false (and @run unchanged) at @end.
 */
bool rm_attrs_next(const struct rm_attrs *a, struct rm_attrs_run *run,
		   unsigned long end)
{
	unsigned long first, last;

	if (run->end >= end)
		return false;

	run->start = run->end;
	run->value = rm_attrs_lookup(a, run->start, &first, &last);
	run->end = min(last, end - 1) + 1;
	return true;
}

/**
 * rm_attrs_is_uniform() - do all keys of a range agree in some bits?
 * @a: the map
 * @start: first key
 * @end: the key after the last
 * @mask: the bits to look at
 * @value: what they should be; with a bit outside @mask nothing matches
 *
 * One walk if the keys have one value, else one for each run up to the first
 * that does not match.
 *
 * Context: Any but interrupts, also under spinlocks. Takes no lock.
 * Return: true if every key's value, masked, is @value. So it is for the empty
 * range.
 */
bool rm_attrs_is_uniform(const struct rm_attrs *a, unsigned long start,
			 unsigned long end, unsigned long mask,
			 unsigned long value)
{
	struct rm_attrs_run run = { .end = start };

	while (rm_attrs_next(a, &run, end)) {
		if ((run.value & mask) != value)
			return false;
	}
	return true;
}

/**
 * rm_attrs_uniform_order() - how large a block around a key has one value?
 * @a: the map
 * @key: any key of the block
 * @max_order: the largest order of interest
 *
 * A block of order n is 2^n keys, the first being a multiple of 2^n.
 *
 * Context: Any but interrupts, also under spinlocks. Takes no lock.
 * Return: the order of the largest block, at most @max_order and always less
 * than BITS_PER_LONG.
 */
unsigned int rm_attrs_uniform_order(const struct rm_attrs *a,
				    unsigned long key, unsigned int max_order)
{
	unsigned long first, last, offset;
	unsigned int order;

	rm_attrs_lookup(a, key, &first, &last);

	for (order = 0; order < max_order; order++) {
		if (order == BITS_PER_LONG - 1)
			break;
		/* The bits of a key within a block of the next order. */
		offset = (2UL << order) - 1;
		if ((key & ~offset) < first || (key | offset) > last)
			break;
	}
	return order;
}
