/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * The kernel's maple tree, with handles for a test to hold: what allocations
 * do, and calls at the points where readers and writers can meet.
 */
#ifndef RM_UNIT_TREE_H
#define RM_UNIT_TREE_H

#include <stdbool.h>
#include <limits.h>

struct maple_tree;

/* What the allocator is to do. The tree asks without sleeping at first. */
struct tree_alloc {
	unsigned int nowait_budget;	/* non-sleeping successes, then none */
	unsigned int sleeping_budget;	/* sleeping successes, and then */
	unsigned int sleeping_failures;	/* sleeping failures, then none */
	unsigned long blocks;		/* counted: two allocations each */
	unsigned long nodes;		/* counted: handed out */
	unsigned long failures;		/* counted: refused */
};

extern struct tree_alloc tree_alloc;

#define TREE_ALLOC_PLENTY	((struct tree_alloc){ .nowait_budget = UINT_MAX })
#define TREE_ALLOC_SLEEPING	((struct tree_alloc){ .nowait_budget = 0 })
#define TREE_ALLOC_NONE		((struct tree_alloc){ .nowait_budget = 0, \
						      .sleeping_failures = 1 })

/* Called before a reader loads a pointer, having chosen which by its key. */
extern void (*tree_reader_step)(void);
/* Called after a writer stored a pointer, maybe with more to be written. */
extern void (*tree_writer_step)(void);

/* mas_walk(): how often called, and how many calls are to miss the key. */
extern unsigned long tree_walks;
extern unsigned int tree_torn_walks;

/* For each thread, around all it does with a tree. */
void tree_thread_begin(void);
void tree_thread_end(void);

/* Once, and at last: how many nodes nobody freed. */
void tree_begin(void);
int tree_leaked(void);

/* Abort, with a dump, unless the tree is as its authors want it. */
void tree_validate(struct maple_tree *mt);
unsigned long tree_entries(struct maple_tree *mt);

#endif /* RM_UNIT_TREE_H */
