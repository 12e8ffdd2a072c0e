/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * The system's pools of huge pages.
 */
#ifndef HUGETLB_H
#define HUGETLB_H

#include "util.h"

#define POOL	"/sys/kernel/mm/hugepages/hugepages-%llukB/%s"

static inline const char *pool_path(uint64_t page_size, const char *what)
{
	return path_of(POOL, (unsigned long long)page_size / 1024, what);
}

/* One of "nr_hugepages", "free_hugepages", "resv_hugepages"; or -1. */
static inline long pool_count(uint64_t page_size, const char *what)
{
	char text[32];

	if (read_text(pool_path(page_size, what), text, sizeof(text)) <= 0)
		return -1;
	return strtol(text, NULL, 10);
}

/* Return: how many pages the pool has then. */
static inline long pool_resize(uint64_t page_size, long pages)
{
	char text[32];

	snprintf(text, sizeof(text), "%ld", pages);
	write_text(pool_path(page_size, "nr_hugepages"), text);
	return pool_count(page_size, "nr_hugepages");
}

/* A file of pages of a pool, or -1 with errno. */
static inline int create_pooled(uint64_t page_size, uint64_t length,
				uint32_t flags)
{
	const struct restrictedmem_create args = {
		.size = sizeof(args),
		.length = length,
		.flags = flags,
		.page_size = page_size,
		.store = RESTRICTEDMEM_STORE_HUGETLB,
	};

	return create_with(&args);
}

#endif /* HUGETLB_H */
