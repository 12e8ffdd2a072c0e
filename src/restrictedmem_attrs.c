// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * The range map: which value has which key. KVM keeps one per layer of memory
 * attributes, its keys being guest frame numbers.
 *
 * A maple tree has the ranges. Where many short ones lie close together, the
 * tree has a block instead, an array with one value per key of an aligned part
 * of the key space: to change a range of the tree takes thousands of
 * instructions, to change a value in a block a few. A part becomes a block when
 * a range is set inside it that is not the first to cut it, and a range again
 * when all its values are equal.
 *
 * Invariant: at rest no two neighbouring ranges of the tree have the same
 * value, keys without a range having the value 0, and no block has one value
 * only (but for want of memory, when it was about to go). So the range around a
 * key is the whole of what is uniform there, blocks apart, and one walk from
 * the root answers for a gigabyte as for a page.
 *
 * A set happens or it does not. First parts become blocks where that has to be,
 * which changes no value; then the tree gets the new range, joined with equal
 * neighbours, in one store; last, when nothing can fail any more, values are
 * written into blocks at its ends.
 *
 * Whoever can set a range can set any number, far beyond the memory that there
 * is, and the tree's nodes are charged to nobody: the tree asks for them without
 * __GFP_ACCOUNT. So a map of more than a few ranges makes a deposit of memory that
 * is charged, as much as the nodes may take. A limit for all that a map may have
 * bounds how long one set, or the map's end, has the tree's lock and frees nodes.
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

#include <linux/bits.h>
#include <linux/errno.h>
#include <linux/gfp.h>
#include <linux/kernel.h>
#include <linux/maple_tree.h>
#include <linux/rcupdate.h>
#include <linux/sched.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/xarray.h>
#include <asm/barrier.h>

#include "restrictedmem_attrs.h"

#define RM_BLOCK_KEYS	BIT(RM_ATTRS_BLOCK_ORDER)

/* Ranges that a deposit is for, and how many need none. */
#define RM_DEPOSIT_RANGES	64UL

/**
 * struct rm_attrs_deposit - memory that is charged in place of nodes
 * @next: in the map's list
 * @rest: what a range takes of nodes of 256 bytes: with the gap after it two
 *	slots of a leaf that may be half empty, and a part of the nodes above
 */
struct rm_attrs_deposit {
	struct rm_attrs_deposit *next;
	u8 rest[RM_DEPOSIT_RANGES * 64 - sizeof(void *)];
};

/**
 * struct rm_attrs_block - the values of RM_BLOCK_KEYS keys, one by one
 * @start: the first key, a multiple of RM_BLOCK_KEYS
 * @values: of each key; read by anyone
 * @next: in the writer's list of blocks that are about to go
 * @rcu: frees it after the last reader
 */
struct rm_attrs_block {
	unsigned long start;
	u8 *values;
	struct rm_attrs_block *next;
	struct rcu_head rcu;
};

/*
 * What a look-up finds: the range [first, last] of the tree, and the value of
 * the key. With a block, the range is the block's, and other keys of it may have
 * other values.
 */
struct rm_attrs_spot {
	unsigned long first;
	unsigned long last;
	unsigned long value;
	struct rm_attrs_block *block;
};

static unsigned long rm_block_start(unsigned long key)
{
	return key & ~(RM_BLOCK_KEYS - 1);
}

static unsigned long rm_block_last(unsigned long key)
{
	return key | (RM_BLOCK_KEYS - 1);
}

static u8 *rm_block_value(const struct rm_attrs_block *b, unsigned long key)
{
	return &b->values[key & (RM_BLOCK_KEYS - 1)];
}

/* Do the keys [@start, @end) of a block all have @value? */
static bool rm_block_is_uniform(const struct rm_attrs_block *b,
				unsigned long start, unsigned long end,
				unsigned long value)
{
	return !memchr_inv(rm_block_value(b, start), value, end - start);
}

static void rm_block_free(struct rm_attrs_block *b)
{
	kfree(b->values);
	kfree(b);
}

static void rm_block_free_rcu(struct rcu_head *rcu)
{
	rm_block_free(container_of(rcu, struct rm_attrs_block, rcu));
}

/* Entries of the tree are nothing, values, or pointers to blocks. */
static struct rm_attrs_block *rm_entry_block(void *entry)
{
	return xa_is_value(entry) ? NULL : entry;
}

static struct rm_attrs_block __rcu **
rm_attrs_recent(struct rm_attrs *a, unsigned long key)
{
	return &a->recent[(key >> RM_ATTRS_BLOCK_ORDER) % RM_ATTRS_RECENT];
}

/**
 * rm_attrs_init() - make an empty map, every key 0
 * @a: the map
 *
 * Context: Any.
 */
void rm_attrs_init(struct rm_attrs *a)
{
	memset(a, 0, sizeof(*a));
	mt_init_flags(&a->mt, MT_FLAGS_ALLOC_RANGE | MT_FLAGS_USE_RCU);
}

static void rm_attrs_spot_block(struct rm_attrs_spot *spot, unsigned long key,
				struct rm_attrs_block *block)
{
	spot->first = block->start;
	spot->last = rm_block_last(block->start);
	spot->value = READ_ONCE(*rm_block_value(block, key));
	spot->block = block;
}

/*
 * The one way in for readers: what there is at @key. Within rcu_read_lock(),
 * for as long as the block is of interest.
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
static void rm_attrs_find(const struct rm_attrs *a, unsigned long key,
			  struct rm_attrs_spot *spot)
{
	MA_STATE(mas, (struct maple_tree *)&a->mt, key, key);
	struct rm_attrs_block *block;
	unsigned long stores;
	void *entry;

	block = rcu_dereference(*rm_attrs_recent((struct rm_attrs *)a, key));
	if (block && block->start == rm_block_start(key)) {
		rm_attrs_spot_block(spot, key, block);
		return;
	}
	do {
		/* Pairs with rm_attrs_store(): see all of the stores before. */
		stores = smp_load_acquire(&a->stores);
		mas_set(&mas, key);
		entry = mas_walk(&mas);
		/* Pairs with rm_attrs_store(): what we saw of a store, counts. */
		smp_rmb();
		block = rm_entry_block(entry);
	} while (READ_ONCE(a->stores) != stores ||
		 key < mas.index || key > mas.last ||
		 (block && block->start != rm_block_start(key)));

	if (block) {
		rm_attrs_spot_block(spot, key, block);
		return;
	}
	spot->first = mas.index;
	spot->last = mas.last;
	spot->value = xa_to_value(entry);
	spot->block = NULL;
}

/* For the writer, whom blocks do not escape. */
static void rm_attrs_find_writer(const struct rm_attrs *a, unsigned long key,
				 struct rm_attrs_spot *spot)
{
	rcu_read_lock();
	rm_attrs_find(a, key, spot);
	rcu_read_unlock();
}

/* How many ranges and blocks more there are with @entry at [@first, @last]. */
static long rm_attrs_growth(struct rm_attrs *a, unsigned long first,
			    unsigned long last, void *entry)
{
	MA_STATE(mas, &a->mt, first, first);
	long growth = entry ? 1 : 0;
	unsigned int entries = 0;
	void *old;

	rcu_read_lock();
	mas_for_each(&mas, old, last) {
		if (mas.index >= first && mas.last <= last)
			growth--;
		else if (mas.index < first && mas.last > last)
			growth++;
		if (++entries % 1024 == 0) {
			mas_pause(&mas);
			rcu_read_unlock();
			cond_resched();
			rcu_read_lock();
		}
	}
	rcu_read_unlock();
	return growth;
}

/* Have deposits for that many ranges and blocks. */
static int rm_attrs_pay(struct rm_attrs *a, unsigned long nr_entries)
{
	struct rm_attrs_deposit *deposit;

	while (nr_entries > (a->nr_deposits + 1) * RM_DEPOSIT_RANGES) {
		deposit = kmalloc(sizeof(*deposit), GFP_KERNEL_ACCOUNT);
		if (!deposit)
			return -ENOMEM;
		deposit->next = a->deposits;
		a->deposits = deposit;
		a->nr_deposits++;
	}
	return 0;
}

/* Give deposits back that are for more; some more, lest they come and go. */
static void rm_attrs_refund(struct rm_attrs *a, unsigned long nr_entries)
{
	struct rm_attrs_deposit *deposit;

	while (a->nr_deposits &&
	       nr_entries <= (a->nr_deposits - 1) * RM_DEPOSIT_RANGES) {
		deposit = a->deposits;
		a->deposits = deposit->next;
		a->nr_deposits--;
		kfree(deposit);
	}
}

/*
 * Put @entry at [@first, @last] of the tree. The tree first tries without
 * sleeping and without __GFP_ACCOUNT whatever it is asked for, and flags that
 * forbid sleeping can make it retry for ever under its spinlock.
 */
static int rm_attrs_store(struct rm_attrs *a, unsigned long first,
			  unsigned long last, void *entry)
{
	MA_STATE(mas, &a->mt, first, last);
	unsigned long stores;
	long growth;
	int ret;

	growth = rm_attrs_growth(a, first, last, entry);
	if (growth > 0 && a->nr_entries + growth > RM_ATTRS_MAX_RANGES)
		return -ENOMEM;
	ret = rm_attrs_pay(a, a->nr_entries + growth);
	if (ret)
		return ret;

	mas_lock(&mas);
	stores = a->stores + 1;
	/* Pairs with rm_attrs_find(): the stores before are complete. */
	smp_store_release(&a->stores, stores);
	/* Pairs with rm_attrs_find(): counted before any of it is seen. */
	smp_wmb();

	ret = mas_store_gfp(&mas, entry, GFP_KERNEL);

	/* A second writer while we slept: the neighbours may have changed. */
	WARN_ON_ONCE(a->stores != stores);
	mas_unlock(&mas);

	if (!ret)
		a->nr_entries += growth;
	rm_attrs_refund(a, a->nr_entries);
	return ret;
}

/* Readers find @block, if at all, by a walk, for as long as it is there. */
static void rm_attrs_forget(struct rm_attrs *a, struct rm_attrs_block *block)
{
	struct rm_attrs_block __rcu **recent = rm_attrs_recent(a, block->start);

	if (rcu_access_pointer(*recent) == block)
		RCU_INIT_POINTER(*recent, NULL);
}

/*
 * The list of the blocks in [@start, @end), which nobody finds by a short cut any
 * more. An @end of 0 is the end of the key space.
 */
static struct rm_attrs_block *rm_attrs_blocks(struct rm_attrs *a,
					      unsigned long start,
					      unsigned long end)
{
	MA_STATE(mas, &a->mt, start, start);
	struct rm_attrs_block *list = NULL, *block;
	unsigned int entries = 0;
	void *entry;

	if (!a->nr_blocks)
		return NULL;
	rcu_read_lock();
	mas_for_each(&mas, entry, end - 1) {
		block = rm_entry_block(entry);
		if (block) {
			rm_attrs_forget(a, block);
			block->next = list;
			list = block;
		}
		if (++entries % 1024 == 0) {
			mas_pause(&mas);
			rcu_read_unlock();
			cond_resched();
			rcu_read_lock();
		}
	}
	rcu_read_unlock();
	return list;
}

/**
 * rm_attrs_destroy() - free what the map holds
 * @a: the map; the caller sees to it that nobody reads or writes it any more
 *
 * The map can be used again only after rm_attrs_init().
 *
 * Context: Process context, may sleep. Takes the map's spinlock.
 */
void rm_attrs_destroy(struct rm_attrs *a)
{
	struct rm_attrs_block *list, *block;

	list = rm_attrs_blocks(a, 0, 0);
	mtree_destroy(&a->mt);
	rm_attrs_refund(a, 0);
	while (list) {
		block = list;
		list = block->next;
		rm_block_free(block);
		cond_resched();
	}
}

/*
 * Make [@start, @end) one range, joined with equal neighbours. Blocks are in it
 * as a whole or not at all; they go. Nothing has changed if it fails.
 */
static int rm_attrs_set_range(struct rm_attrs *a, unsigned long start,
			      unsigned long end, unsigned long value)
{
	struct rm_attrs_block *list = NULL, *block;
	unsigned long first = start, last = end - 1;
	struct rm_attrs_spot spot, other;
	int ret;

	/*
	 * The range before, or the part of its range before @start, and the
	 * same after. What lies in the range around @start needs no look.
	 */
	rm_attrs_find_writer(a, start, &spot);
	if (!spot.block && spot.value == value) {
		first = spot.first;
	} else if (start && spot.first == start) {
		rm_attrs_find_writer(a, start - 1, &other);
		if (!other.block && other.value == value)
			first = other.first;
	}
	if (spot.block || spot.last <= last) {
		list = rm_attrs_blocks(a, start, end);
		rm_attrs_find_writer(a, end, &other);
		if (!other.block && other.value == value)
			last = other.last;
	} else if (spot.value == value) {
		return 0;
	}

	ret = rm_attrs_store(a, first, last,
			     value ? xa_mk_value(value) : NULL);
	if (ret)
		return ret;
	while (list) {
		block = list;
		list = block->next;
		a->nr_blocks--;
		call_rcu(&block->rcu, rm_block_free_rcu);
	}
	return 0;
}

/*
 * The block that @key is in, made of ranges if there is none. Return: the block,
 * or NULL without memory; no value has changed.
 */
static struct rm_attrs_block *rm_attrs_make_block(struct rm_attrs *a,
						  unsigned long key)
{
	struct rm_attrs_block *block = kzalloc(sizeof(*block),
					       GFP_KERNEL_ACCOUNT);
	struct rm_attrs_spot spot;
	unsigned long last;

	if (!block)
		return NULL;
	block->values = kmalloc(RM_BLOCK_KEYS, GFP_KERNEL_ACCOUNT);
	if (!block->values)
		goto err_free;
	block->start = rm_block_start(key);
	last = rm_block_last(key);
	for (key = block->start; ; key = spot.last + 1) {
		rm_attrs_find_writer(a, key, &spot);
		spot.last = min(spot.last, last);
		memset(rm_block_value(block, key), spot.value,
		       spot.last - key + 1);
		if (spot.last == last)
			break;
	}
	if (rm_attrs_store(a, block->start, last, block))
		goto err_free;
	a->nr_blocks++;
	return block;

err_free:
	rm_block_free(block);
	return NULL;
}

/*
 * Before [@start, @end) gets @value: the block around @key, which is inside, if
 * that part of the key space is one or has to become one. It has not if the set
 * covers it, or cuts it for the first time, or makes it uniform.
 */
static int rm_attrs_prepare(struct rm_attrs *a, unsigned long key,
			    unsigned long start, unsigned long end,
			    unsigned long value, struct rm_attrs_block **block)
{
	unsigned long first = rm_block_start(key), last = rm_block_last(key);
	struct rm_attrs_spot spot;

	*block = NULL;
	/* At the very end of the key space, keys would overflow. */
	if ((start <= first && end - 1 >= last) || last == ULONG_MAX)
		return 0;
	rm_attrs_find_writer(a, key, &spot);
	if (spot.block) {
		*block = spot.block;
		return 0;
	}
	if (spot.first <= first && spot.last >= last)
		return 0;
	if (rm_attrs_is_uniform(a, first, max(first, start), ~0UL, value) &&
	    (end > last || rm_attrs_is_uniform(a, end, last + 1, ~0UL, value)))
		return 0;
	*block = rm_attrs_make_block(a, key);
	return *block ? 0 : -ENOMEM;
}

/* Write the part of [@start, @end) that is in a block; it may then go. */
static void rm_attrs_set_block(struct rm_attrs *a, struct rm_attrs_block *block,
			       unsigned long start, unsigned long end,
			       unsigned long value)
{
	unsigned long key, block_end = block->start + RM_BLOCK_KEYS;

	start = max(start, block->start);
	end = min(end, block_end);
	for (key = start; key < end; key++)
		WRITE_ONCE(*rm_block_value(block, key), value);
	/* Without memory it stays, and is as good. */
	if (rm_block_is_uniform(block, block->start, block_end, value))
		rm_attrs_set_range(a, block->start, block_end, value);
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
 * ranges and blocks it replaces.
 *
 * Blocks are charged to current's memcg, and so is what the nodes of the tree
 * take.
 *
 * Context: Process context, may sleep. The caller allows one writer at a time.
 * Takes the map's spinlock, and drops it to allocate.
 * Return: 0, -EINVAL for an empty range or a value too large, or -ENOMEM, also
 * for more than RM_ATTRS_MAX_RANGES; in case of an error nothing has changed.
 */
int rm_attrs_set(struct rm_attrs *a, unsigned long start, unsigned long end,
		 unsigned long value)
{
	unsigned long range_start = start, range_end = end;
	struct rm_attrs_block *head, *tail = NULL;
	struct rm_attrs_spot spot;
	int ret;

	if (start >= end || value > RM_ATTRS_VALUE_MAX)
		return -EINVAL;
	might_alloc(GFP_KERNEL);

	rm_attrs_find_writer(a, start, &spot);
	if (spot.block && end - 1 <= spot.last) {
		rcu_assign_pointer(*rm_attrs_recent(a, start), spot.block);
		rm_attrs_set_block(a, spot.block, start, end, value);
		return 0;
	}
	if (spot.value == value &&
	    rm_attrs_is_uniform(a, start, end, ~0UL, value))
		return 0;

	ret = rm_attrs_prepare(a, start, start, end, value, &head);
	if (!ret && rm_block_start(end - 1) != rm_block_start(start))
		ret = rm_attrs_prepare(a, end - 1, start, end, value, &tail);
	if (ret)
		return ret;

	if (head)
		range_start = min(end, head->start + RM_BLOCK_KEYS);
	if (tail)
		range_end = tail->start;
	if (range_start < range_end) {
		ret = rm_attrs_set_range(a, range_start, range_end, value);
		if (ret)
			return ret;
	}
	if (head)
		rm_attrs_set_block(a, head, start, end, value);
	if (tail)
		rm_attrs_set_block(a, tail, start, end, value);
	return 0;
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
	struct rm_attrs_spot spot;

	rcu_read_lock();
	rm_attrs_find(a, key, &spot);
	rcu_read_unlock();
	return spot.value;
}

/* The last key from @key on, but not above @last, that has its value. */
static unsigned long rm_attrs_run_last(const struct rm_attrs *a,
				       unsigned long key, unsigned long last,
				       unsigned long *value)
{
	struct rm_attrs_spot spot;

	rcu_read_lock();
	rm_attrs_find(a, key, &spot);
	last = min(last, spot.last);
	if (spot.block) {
		while (key < last &&
		       READ_ONCE(*rm_block_value(spot.block, key + 1)) == spot.value)
			key++;
		last = key;
	}
	rcu_read_unlock();
	*value = spot.value;
	return last;
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
	unsigned long last, next_last, value;

	if (run->end >= end)
		return false;

	run->start = run->end;
	last = rm_attrs_run_last(a, run->start, end - 1, &run->value);
	/* A run may go on from a block into a range, and the other way. */
	while (last < end - 1) {
		next_last = rm_attrs_run_last(a, last + 1, end - 1, &value);
		if (value != run->value)
			break;
		last = next_last;
	}
	run->end = last + 1;
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
 * One walk if the keys have one value, else one for each range or block up to
 * the first that does not match.
 *
 * Context: Any but interrupts, also under spinlocks. Takes no lock.
 * Return: true if every key's value, masked, is @value. So it is for the empty
 * range.
 */
bool rm_attrs_is_uniform(const struct rm_attrs *a, unsigned long start,
			 unsigned long end, unsigned long mask,
			 unsigned long value)
{
	unsigned long last, found;

	while (start < end) {
		last = rm_attrs_run_last(a, start, end - 1, &found);
		if ((found & mask) != value)
			return false;
		start = last + 1;
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
	unsigned long size, first;
	struct rm_attrs_spot spot;
	unsigned int order;

	rcu_read_lock();
	rm_attrs_find(a, key, &spot);

	for (order = 0; order < max_order; order++) {
		if (order == BITS_PER_LONG - 1)
			break;
		/* The block of the next order, and its half without @key */
		size = 2UL << order;
		if ((key & ~(size - 1)) < spot.first ||
		    (key | (size - 1)) > spot.last)
			break;
		first = (key ^ (1UL << order)) & ~((1UL << order) - 1);
		if (spot.block &&
		    !rm_block_is_uniform(spot.block, first,
					 first + (1UL << order), spot.value))
			break;
	}
	rcu_read_unlock();
	return order;
}
