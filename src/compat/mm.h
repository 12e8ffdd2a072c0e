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
 * The references that the page cache has on a folio. Up to 6.6 it has one on a
 * folio of hugetlbfs; this may go when 6.1 is no longer built for.
 */
static inline long rm_folio_cache_refs(struct folio *folio)
{
	return folio_test_hugetlb(folio) ? 1 : folio_nr_pages(folio);
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
