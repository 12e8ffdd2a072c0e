/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * What a store must do, and the table of resident folios that all stores share.
 *
 * A store hands out folios of one inode. The table holds one reference on each
 * of them, from the first time somebody takes it until it is discarded, which
 * is what keeps it from being moved, swapped, split or dropped. Ranges are in
 * pages, [start, end).
 */
#ifndef RESTRICTEDMEM_STORE_H
#define RESTRICTEDMEM_STORE_H

#include <linux/atomic.h>
#include <linux/mm.h>
#include <linux/nodemask.h>
#include <linux/types.h>
#include <linux/xarray.h>

struct file;
struct folio;
struct rm_store;
struct shared_policy;

#define RM_NR_ORDERS	(PUD_SHIFT - PAGE_SHIFT + 1)

/**
 * struct rm_store_ops - one kind of store
 * @name: as fdinfo shows it
 * @maps_pages: a process can map its folios page by page; the kernel counts
 *	that. Where that is false they are mapped by number.
 * @page_sizes: what a file can ask for, in bytes, or-ed together; 0 when the
 *	store does not work on this machine
 * @init: set up for a size in pages; may sleep. Return: 0 or -errno.
 * @destroy: undo @init; no page is left
 * @forsake: a folio that has left the store, with a reference, is not the
 *	reservation's any more, because somebody holds it; nobody fills the store.
 *	It may be one of those beyond the reservation, which then stays as it is.
 *	Only stores that can reserve have it.
 * @get: the folio at an index: found, or allocated, zeroed and charged to
 *	current; with a reference for the caller. May sleep, and call the OOM
 *	killer if it is told that it must not fail for less. Return: the folio
 *	or an ERR_PTR: -ENOMEM, -ENOSPC, -EHWPOISON, -EINTR for a fatal signal.
 * @find: the folio at an index with a reference, or NULL; never allocates
 * @owns: whether a folio, with a reference but without its lock, is the
 *	store's, and the index of its first page; any context
 * @split: make small folios of the one with a page, unless somebody holds it;
 *	the contents stay. Where it is NULL all ranges to discard begin and end
 *	with whole folios. The table holds no reference on the folio.
 * @discard: free the pages of a range; a folio that is only partly in the
 *	range is split if possible, and else zeroed there, but for pages with an
 *	error. The table holds no reference on any folio that is only partly in the
 *	range.
 */
struct rm_store_ops {
	const char *name;
	bool maps_pages;
	u64 (*page_sizes)(void);
	int (*init)(struct rm_store *store);
	void (*destroy)(struct rm_store *store);
	void (*forsake)(struct folio *folio, bool beyond);
	struct folio *(*get)(struct rm_store *store, pgoff_t index, bool must);
	struct folio *(*find)(struct rm_store *store, pgoff_t index);
	bool (*owns)(struct rm_store *store, struct folio *folio, pgoff_t *first);
	void (*split)(struct rm_store *store, pgoff_t index);
	void (*discard)(struct rm_store *store, pgoff_t start, pgoff_t end);
};

/**
 * struct rm_store_config - what a file was asked to be; constant
 * @ops: what kind of store it is
 * @page_size: bytes, one of its page sizes
 * @thp: enum restrictedmem_thp, resolved; shmem alone
 * @numa: enum restrictedmem_numa
 * @nodes: nodes that @numa is about
 * @reserve: set all pages aside when the size is set
 */
struct rm_store_config {
	const struct rm_store_ops *ops;
	unsigned long page_size;
	u32 thp;
	u32 numa;
	nodemask_t nodes;
	bool reserve;
};

/**
 * struct rm_store - the pages of one inode
 * @config: what it is
 * @nr_pages: its size, 0 until that is set
 * @private: the kind's own, with the files of another filesystem that hold the
 *	pages and never enter an fd table; NULL until the size is set
 * @folios: index to folio, multi-index entries; changed under the inode's
 *	invalidate_lock: filled by its readers, emptied by its writers
 * @lost: index to a mark where a page was lost to a memory error; changed under
 *	the invalidate_lock, held for writing
 * @busy: entries of [@busy_start, @busy_end) may be going away; lock-free
 *	readers stay out
 * @busy_start: first page of that range; changed while @busy is false
 * @busy_end: the page after its last; changed while @busy is false
 * @resident: pages in @folios
 * @by_order: the same, for each order of folio
 * @by_node: the same, for each node; NULL until the size is set
 * @nr_lost: marks in @lost
 * @reserved: pages that are charged as a reservation, resident or not; changed
 *	under the invalidate_lock, held for writing, or by the last user
 * @set_aside: those of them that are not resident
 * @extra: resident pages that are charged beyond a reservation; always 0 where
 *	there was none
 */
struct rm_store {
	struct rm_store_config config;
	pgoff_t nr_pages;
	void *private;
	struct xarray folios;
	struct xarray lost;
	bool busy;
	pgoff_t busy_start;
	pgoff_t busy_end;
	atomic_long_t resident;
	atomic_long_t by_order[RM_NR_ORDERS];
	atomic_long_t *by_node;
	unsigned long nr_lost;
	long reserved;
	atomic_long_t set_aside;
	atomic_long_t extra;
};

/* The first page of the folio that has a page of the store; they are aligned. */
static inline pgoff_t rm_folio_first(struct folio *folio, pgoff_t index)
{
	return round_down(index, folio_nr_pages(folio));
}

static inline pgoff_t rm_folio_end(struct folio *folio, pgoff_t index)
{
	return rm_folio_first(folio, index) + folio_nr_pages(folio);
}

static inline struct page *rm_folio_page(struct folio *folio, pgoff_t index)
{
	return folio_page(folio, index - rm_folio_first(folio, index));
}

extern const struct rm_store_ops rm_shmem_ops;
extern const struct rm_store_ops rm_hugetlb_ops;

int rm_shmem_init(void);
void rm_shmem_exit(void);
bool rm_shmem_has_huge(void);
int rm_shmem_give_policy(const struct rm_store_config *config,
			 struct shared_policy *policy);

int rm_hugetlb_init(void);
void rm_hugetlb_exit(void);

/* restrictedmem_limit.c */
u64 rm_charged_pages(void);
bool rm_has_room(long nr_pages);
bool rm_try_charge(long nr_pages);
void rm_uncharge(long nr_pages);
unsigned long rm_count_freed(void);
bool rm_frees_more(unsigned long *seen);
void rm_let_go(struct folio *folio);
void rm_limit_exit(void);

const struct rm_store_ops *rm_store_lookup_ops(u32 store);
u64 rm_store_total_resident(void);

void rm_store_init(struct rm_store *store, const struct rm_store_config *config);
int rm_store_set_size(struct rm_store *store, loff_t size);
void rm_store_destroy(struct rm_store *store);

int rm_store_get(struct rm_store *store, pgoff_t index, bool must,
		 struct folio **folio);
void rm_store_trim(struct rm_store *store, pgoff_t index);
pgoff_t rm_store_piece(struct rm_store *store, pgoff_t start, pgoff_t end);
struct folio *rm_store_peek(struct rm_store *store, pgoff_t index);
int rm_store_check_page(struct rm_store *store, struct folio *folio,
			pgoff_t index);
bool rm_store_has_lost(struct rm_store *store, pgoff_t start, pgoff_t end);
pgoff_t rm_store_first_lost(struct rm_store *store, pgoff_t start, pgoff_t end);
pgoff_t rm_store_first_unsure(struct rm_store *store, pgoff_t start, pgoff_t end);
pgoff_t rm_store_first_held(struct rm_store *store, pgoff_t start, pgoff_t end,
			    int *error);
struct folio *rm_store_find(struct rm_store *store, pgoff_t index);
void rm_store_zero(struct rm_store *store, pgoff_t start, pgoff_t end);
void rm_store_whole_folios(struct rm_store *store, pgoff_t *start,
			   pgoff_t *end);
void rm_store_discard(struct rm_store *store, pgoff_t start, pgoff_t end);
void rm_store_lose(struct rm_store *store, pgoff_t index);

#endif /* RESTRICTEDMEM_STORE_H */
