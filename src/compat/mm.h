/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * What changes between kernels about mappings and references.
 */
#ifndef RESTRICTEDMEM_COMPAT_MM_H
#define RESTRICTEDMEM_COMPAT_MM_H

#include <linux/mm.h>
#include <linux/pagevec.h>

/*
 * From 6.3 the kernel has vm_flags_set(); this may go when 6.1 is no longer
 * built for.
 */
static inline void rm_vm_flags_set(struct vm_area_struct *vma,
				   unsigned long flags)
{
	vma->vm_flags |= flags;
}

/*
 * How often a folio is mapped by processes, by whole or part. From 6.9 the kernel
 * keeps count (folio_mapcount()); this may go when 6.1 is no longer built for.
 */
static inline long rm_folio_mapcount(struct folio *folio)
{
	long i, mapcount = 0;

	for (i = 0; i < folio_nr_pages(folio); i++)
		mapcount += atomic_read(&folio_page(folio, i)->_mapcount) + 1;
	return mapcount;
}

/*
 * Have pages that this processor keeps back put on their lists, as
 * lru_add_drain() does, which modules cannot call; to release no pages at all
 * begins with it. From 6.8 it is __folio_batch_release(); this may go when 6.1
 * is no longer built for.
 */
static inline void rm_drain_this_cpu(void)
{
	struct pagevec none;

	pagevec_init(&none);
	__pagevec_release(&none);
}

#endif /* RESTRICTEDMEM_COMPAT_MM_H */
