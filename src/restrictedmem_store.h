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
#include <linux/types.h>
#include <linux/xarray.h>

struct file;
struct folio;
struct rm_store;

/**
 * struct rm_store_ops - one kind of store
 * @name: as fdinfo shows it
 * @page_sizes: what a file can ask for, in bytes, or-ed together; 0 when the
 *	store does not work on this machine
 * @huge: whether it can give folios larger than the page size now
 * @init: set up for a size in bytes; may sleep. Return: 0 or -errno.
 * @destroy: undo @init; the table is empty
 * @get: the folio at an index: found, or allocated, zeroed and charged to
 *	current; with a reference for the caller. May sleep. Return: the folio
 *	or an ERR_PTR: -ENOMEM, -ENOSPC, -EHWPOISON, -EINTR.
 * @find: the folio at an index with a reference, or NULL; never allocates
 * @lock: take the folio's lock; false, without it, when the folio is no longer
 *	the store's
 * @unlock: drop it
 * @discard: free the pages of a range; a folio that is only partly in the
 *	range is split if possible, and else zeroed there. The table holds no
 *	reference on any folio that is touched.
 */
struct rm_store_ops {
	const char *name;
	u64 (*page_sizes)(void);
	bool (*huge)(void);
	int (*init)(struct rm_store *store, loff_t size);
	void (*destroy)(struct rm_store *store);
	struct folio *(*get)(struct rm_store *store, pgoff_t index);
	struct folio *(*find)(struct rm_store *store, pgoff_t index);
	bool (*lock)(struct rm_store *store, struct folio *folio);
	void (*unlock)(struct folio *folio);
	void (*discard)(struct rm_store *store, pgoff_t start, pgoff_t end);
};

/**
 * struct rm_store - the pages of one inode
 * @ops: what kind it is; NULL until the size is set
 * @backing: the file of another filesystem that holds the pages; never enters
 *	an fd table
 * @thp: enum restrictedmem_thp, resolved; constant
 * @folios: index to folio, multi-index entries, or to a mark (a value entry)
 *	where a page was lost to a memory error; changed under the inode's
 *	invalidate_lock: filled by its readers, emptied by its writers
 * @busy: entries of [@busy_start, @busy_end) may be going away; lock-free
 *	readers stay out
 * @busy_start: first page of that range; changed while @busy is false
 * @busy_end: the page after its last; changed while @busy is false
 * @resident: pages in @folios
 * @poisoned: marks in @folios
 */
struct rm_store {
	const struct rm_store_ops *ops;
	struct file *backing;
	u32 thp;
	struct xarray folios;
	bool busy;
	pgoff_t busy_start;
	pgoff_t busy_end;
	atomic_long_t resident;
	unsigned long poisoned;
};

extern const struct rm_store_ops rm_shmem_ops;

int rm_shmem_init(void);
void rm_shmem_exit(void);

const struct rm_store_ops *rm_store_lookup_ops(u32 store);
u64 rm_store_total_resident(void);

void rm_store_init(struct rm_store *store, u32 thp);
int rm_store_set_size(struct rm_store *store, const struct rm_store_ops *ops,
		      loff_t size);
void rm_store_destroy(struct rm_store *store);

int rm_store_get(struct rm_store *store, pgoff_t index, struct folio **folio);
void rm_store_trim(struct rm_store *store, pgoff_t index);
struct folio *rm_store_peek(struct rm_store *store, pgoff_t index);
void rm_store_whole_folios(struct rm_store *store, pgoff_t *start,
			   pgoff_t *end);
void rm_store_discard(struct rm_store *store, pgoff_t start, pgoff_t end);
void rm_store_lose(struct rm_store *store, pgoff_t index);

#endif /* RESTRICTEDMEM_STORE_H */
