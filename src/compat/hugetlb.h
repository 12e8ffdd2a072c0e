/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * What changes between kernels about hugetlbfs. @shift is that of a huge page,
 * in pages.
 */
#ifndef RESTRICTEDMEM_COMPAT_HUGETLB_H
#define RESTRICTEDMEM_COMPAT_HUGETLB_H

#include <linux/hugetlb.h>
#include <linux/pagemap.h>

/*
 * Up to 6.6 hugetlbfs's page cache counts in huge pages, and page_index() and
 * the like count otherwise; this may go when 6.1 is no longer built for.
 */

/* The page at an index in huge pages, with a reference, or NULL */
static inline struct folio *rm_hugetlb_get_folio(struct address_space *mapping,
						 pgoff_t index,
						 unsigned int shift)
{
	struct page *page = pagecache_get_page(mapping, index, 0, 0);

	return page ? page_folio(page) : NULL;
}

/* Its index in huge pages */
static inline pgoff_t rm_hugetlb_index(struct folio *folio, unsigned int shift)
{
	return folio->index;
}

/* Whether there is a pool of that page size, however small */
static inline bool rm_hugetlb_has_size(unsigned long page_size)
{
	if (!IS_ENABLED(CONFIG_HUGETLBFS) || !hugepages_supported())
		return false;
#ifdef CONFIG_X86
	if (page_size == PUD_SIZE)
		return boot_cpu_has(X86_FEATURE_GBPAGES);
#endif
	return page_size == PMD_SIZE;
}

#endif /* RESTRICTEDMEM_COMPAT_HUGETLB_H */
