// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * Compiles the kernel's lib/maple_tree.c with its self-checks, and puts the
 * hooks of tree.h under it: under its allocator and under mas_walk() by the
 * linker's --wrap, under its pointer accesses by macro.
 */
#define CONFIG_DEBUG_MAPLE_TREE
#include <stdio.h>
#include <stdlib.h>
#include <linux/init.h>
#include <linux/kernel.h>
#include <linux/lockdep.h>
#include <linux/rcupdate.h>
#include <linux/slab.h>

#include "tree.h"

#define module_init(x)
#define module_exit(x)
#define dump_stack()	abort()
/* The harness of 6.1 has not followed the stable updates of the tree. */
#ifndef fallthrough
#define fallthrough	__attribute__((__fallthrough__))
#endif

struct tree_alloc tree_alloc = { .nowait_budget = UINT_MAX };
void (*tree_reader_step)(void);
void (*tree_writer_step)(void);
unsigned long tree_walks;
unsigned int tree_torn_walks;

#undef rcu_dereference_check
#define rcu_dereference_check(p, c)			\
	({						\
		if (tree_reader_step)			\
			tree_reader_step();		\
		rcu_dereference(p);			\
	})

#undef rcu_assign_pointer
#define rcu_assign_pointer(p, v)			\
	do {						\
		rcu_set_pointer(&(p), v);		\
		if (tree_writer_step)			\
			tree_writer_step();		\
	} while (0)

#include "lib/maple_tree.c"

/* Of the harness, which declares it nowhere. */
extern int nr_allocated, kmalloc_nr_allocated;

static bool alloc_refused(gfp_t gfp, size_t nodes)
{
	bool refused;

	if (gfp & __GFP_DIRECT_RECLAIM && tree_alloc.sleeping_budget) {
		tree_alloc.sleeping_budget--;
		refused = false;
	} else if (gfp & __GFP_DIRECT_RECLAIM) {
		refused = tree_alloc.sleeping_failures;
		tree_alloc.sleeping_failures -= refused;
	} else {
		refused = tree_alloc.nowait_budget < nodes;
		if (!refused && tree_alloc.nowait_budget != UINT_MAX)
			tree_alloc.nowait_budget -= nodes;
	}
	if (refused)
		tree_alloc.failures++;
	else
		tree_alloc.nodes += nodes;
	return refused;
}

void *__real_kmem_cache_alloc_lru(struct kmem_cache *cache,
				  struct list_lru *lru, int gfp);

void *__wrap_kmem_cache_alloc_lru(struct kmem_cache *cache,
				  struct list_lru *lru, int gfp);
void *__wrap_kmem_cache_alloc_lru(struct kmem_cache *cache,
				  struct list_lru *lru, int gfp)
{
	if (alloc_refused(gfp, 1))
		return NULL;
	/* The harness refuses all that may not sleep: that is our business. */
	return __real_kmem_cache_alloc_lru(cache, lru,
					   gfp | __GFP_DIRECT_RECLAIM);
}

int __wrap_kmem_cache_alloc_bulk(struct kmem_cache *cache, gfp_t gfp,
				 size_t nodes, void **p);
int __wrap_kmem_cache_alloc_bulk(struct kmem_cache *cache, gfp_t gfp,
				 size_t nodes, void **p)
{
	size_t i;

	if (alloc_refused(gfp, nodes))
		return 0;
	for (i = 0; i < nodes; i++)
		p[i] = __real_kmem_cache_alloc_lru(cache, NULL,
						   gfp | __GFP_DIRECT_RECLAIM);
	return nodes;
}

void *__real_kmalloc(size_t size, gfp_t gfp);

void *__wrap_kmalloc(size_t size, gfp_t gfp);
void *__wrap_kmalloc(size_t size, gfp_t gfp)
{
	if (alloc_refused(gfp, 0))
		return NULL;
	tree_alloc.blocks++;
	return __real_kmalloc(size, gfp);
}

void *__real_mas_walk(struct ma_state *mas);

void *__wrap_mas_walk(struct ma_state *mas);
void *__wrap_mas_walk(struct ma_state *mas)
{
	unsigned long key = mas->index;
	void *entry = __real_mas_walk(mas);

	uatomic_inc(&tree_walks);
	if (!tree_torn_walks)
		return entry;

	/* As if the border had moved between two looks at it. */
	if (tree_torn_walks-- & 1)
		mas->last = key - 1;
	else
		mas->index = key + 1;
	return entry;
}

void tree_thread_begin(void)
{
	rcu_register_thread();
}

void tree_thread_end(void)
{
	rcu_unregister_thread();
}

void tree_begin(void)
{
	maple_tree_init();
	tree_thread_begin();
}

int tree_leaked(void)
{
	rcu_barrier();
	return uatomic_read(&nr_allocated) + uatomic_read(&kmalloc_nr_allocated);
}

void tree_validate(struct maple_tree *mt)
{
	mt_validate(mt);
}

unsigned long tree_entries(struct maple_tree *mt)
{
	MA_STATE(mas, mt, 0, 0);
	unsigned long n = 0;
	void *entry;

	rcu_read_lock();
	mas_for_each(&mas, entry, ULONG_MAX)
		n++;
	rcu_read_unlock();
	return n;
}
