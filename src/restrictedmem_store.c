// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * The resident folios of an inode, whatever store they come from.
 *
 * rm_store.folios has an entry for every folio that was ever handed out and was
 * not discarded since, and each entry holds a reference. That reference is the
 * pin: unevictable pages are still moved by compaction, and clean ones dropped
 * by drop_caches and soft-offline, but nothing takes a page whose references it
 * cannot account for. Entries are added by readers of the inode's
 * invalidate_lock and removed by its writer alone, so that whoever holds the
 * lock can use a folio of the table without further ado.
 *
 * Lock-free readers (rm_store_peek) must not find a folio whose reference the
 * writer drops: rm_store.busy sends them away first, and a grace period makes
 * sure that they have gone.
 *
 * Indices are pages, ranges [start, end).
 */
#include <linux/atomic.h>
#include <linux/delay.h>
#include <linux/mm.h>
#include <linux/pagemap.h>
#include <linux/rcupdate.h>
#include <linux/xarray.h>

#include "restrictedmem_internal.h"

/* How often a huge folio that somebody else holds is asked to split. */
#define RM_SPLIT_TRIES	5

/* Pages that all inodes hold. */
static atomic_long_t rm_total_resident = ATOMIC_LONG_INIT(0);

/**
 * rm_store_lookup_ops() - a store by its number in the uapi
 * @store: enum restrictedmem_store
 *
 * Context: Any.
 * Return: its operations, or NULL when this module does not have it.
 */
const struct rm_store_ops *rm_store_lookup_ops(u32 store)
{
	return store == RESTRICTEDMEM_STORE_SHMEM ? &rm_shmem_ops : NULL;
}

/**
 * rm_store_total_resident() - what all files hold
 *
 * Context: Any.
 * Return: pages.
 */
u64 rm_store_total_resident(void)
{
	return atomic_long_read(&rm_total_resident);
}

static void rm_store_account(struct rm_store *store, long nr_pages)
{
	atomic_long_add(nr_pages, &store->resident);
	atomic_long_add(nr_pages, &rm_total_resident);
}

/* Count @nr_pages more, unless that would pass the module's limit. */
static bool rm_store_try_account(struct rm_store *store, long nr_pages)
{
	u64 limit = rm_limit_pages();

	rm_store_account(store, nr_pages);
	if (!limit || rm_store_total_resident() <= limit)
		return true;
	rm_store_account(store, -nr_pages);
	return false;
}

/**
 * rm_store_init() - an inode begins, without a size
 * @store: the inode's store
 * @thp: enum restrictedmem_thp, not DEFAULT
 *
 * Context: Any.
 */
void rm_store_init(struct rm_store *store, u32 thp)
{
	memset(store, 0, sizeof(*store));
	store->thp = thp;
	xa_init(&store->folios);
}

/**
 * rm_store_set_size() - the size is known
 * @store: a store without a size
 * @ops: the kind of store
 * @size: bytes, a multiple of its page size
 *
 * Context: The inode's invalidate_lock is held for writing. May sleep.
 * Return: 0, or what the store's init says.
 */
int rm_store_set_size(struct rm_store *store, const struct rm_store_ops *ops,
		      loff_t size)
{
	int r = ops->init(store, size);

	if (!r)
		store->ops = ops;
	return r;
}

/*
 * Forget all folios of [start, end), which begins and ends with whole folios.
 * The caller holds the invalidate_lock for writing, or is the last user.
 */
static void rm_store_unpin(struct rm_store *store, pgoff_t start, pgoff_t end)
{
	unsigned long index = start;
	struct folio *folio;

	while ((folio = xa_find(&store->folios, &index, end - 1, XA_PRESENT))) {
		xa_erase(&store->folios, index);
		if (xa_is_value(folio)) {
			WRITE_ONCE(store->poisoned, store->poisoned - 1);
			continue;
		}
		rm_store_account(store, -folio_nr_pages(folio));
		folio_put(folio);
		cond_resched();
	}
}

/**
 * rm_store_destroy() - the inode ends; all of its pages are freed
 * @store: a store that nobody uses any more
 *
 * Context: Process context, may sleep.
 */
void rm_store_destroy(struct rm_store *store)
{
	if (!store->ops)
		return;
	rm_store_unpin(store, 0, ULONG_MAX);
	WARN_ON_ONCE(atomic_long_read(&store->resident));
	store->ops->destroy(store);
	store->ops = NULL;
}

/*
 * Enter a folio into the table, with a reference of its own. Return: 0, also
 * when it is there already; -ENOMEM; -ENOSPC at the module's limit; -EAGAIN
 * when the folio is no longer the store's.
 */
static int rm_store_pin(struct rm_store *store, struct folio *folio, gfp_t gfp,
			bool limited)
{
	XA_STATE_ORDER(xas, &store->folios, folio->index, folio_order(folio));
	long nr_pages = folio_nr_pages(folio);
	bool known = false;
	void *old;

	if (!store->ops->lock(store, folio))
		return -EAGAIN;
	if (!limited) {
		rm_store_account(store, nr_pages);
	} else if (!rm_store_try_account(store, nr_pages)) {
		known = xa_load(&store->folios, folio->index) == folio;
		store->ops->unlock(folio);
		return known ? 0 : -ENOSPC;
	}
	do {
		xas_lock(&xas);
		old = xas_load(&xas);
		if (old) {
			known = true;
		} else {
			xas_store(&xas, folio);
			if (!xas_error(&xas))
				folio_get(folio);
		}
		xas_unlock(&xas);
	} while (xas_nomem(&xas, gfp));
	store->ops->unlock(folio);

	if (known || xas_error(&xas))
		rm_store_account(store, -nr_pages);
	WARN_ON_ONCE(old && old != folio);
	return known ? 0 : xas_error(&xas);
}

/**
 * rm_store_get() - the folio at an index, allocated if need be
 * @store: a store with a size
 * @index: a page within the size
 * @folio: where it goes, with a reference for the caller
 *
 * Context: The inode's invalidate_lock is held for reading. May sleep; a new
 * folio is charged to current's memcg.
 * Return: 0, -ENOMEM, -ENOSPC, -EHWPOISON, -EINTR. After -ENOMEM and -ENOSPC
 * the caller must call rm_store_trim() once it has dropped the lock.
 */
int rm_store_get(struct rm_store *store, pgoff_t index, struct folio **folio)
{
	struct folio *f;
	int r;

	f = xa_load(&store->folios, index);
	if (xa_is_value(f))
		return -EHWPOISON;
	if (f) {
		folio_get(f);
		*folio = f;
		return 0;
	}
	if (rm_limit_pages() && rm_store_total_resident() >= rm_limit_pages())
		return -ENOSPC;
	do {
		f = store->ops->get(store, index);
		if (IS_ERR(f))
			return PTR_ERR(f);
		r = rm_store_pin(store, f, GFP_KERNEL_ACCOUNT, true);
		if (r)
			folio_put(f);
	} while (r == -EAGAIN);
	if (!r)
		*folio = f;
	return r;
}

/**
 * rm_store_trim() - free a folio that could not be entered into the table
 * @store: a store with a size
 * @index: where rm_store_get() failed
 *
 * Does nothing when somebody else has entered it since.
 *
 * Context: The inode's invalidate_lock is held for writing. May sleep.
 */
void rm_store_trim(struct rm_store *store, pgoff_t index)
{
	struct folio *folio;
	pgoff_t start, end;

	if (xa_load(&store->folios, index))
		return;
	folio = store->ops->find(store, index);
	if (!folio)
		return;
	start = folio->index;
	end = start + folio_nr_pages(folio);
	folio_put(folio);
	store->ops->discard(store, start, end);
}

/**
 * rm_store_peek() - a resident folio, without locks
 * @store: a store with a size
 * @index: a page within the size
 *
 * Context: Within rcu_read_lock(); any context but NMI. The folio may be used
 * until rcu_read_unlock(), without a reference.
 * Return: the folio, or NULL when it is not resident, lost to a memory error, or
 * may be going away.
 */
struct folio *rm_store_peek(struct rm_store *store, pgoff_t index)
{
	struct folio *folio;

	RCU_LOCKDEP_WARN(!rcu_read_lock_held(), "no RCU read lock");
	/*
	 * Pairs with the releases in rm_store_discard(). Should the range be
	 * that of the next discard already, or half of it, then that one is
	 * still waiting for our grace period, and this one is over.
	 */
	if (smp_load_acquire(&store->busy) &&
	    index >= READ_ONCE(store->busy_start) &&
	    index < READ_ONCE(store->busy_end))
		return NULL;
	folio = xa_load(&store->folios, index);
	return xa_is_value(folio) ? NULL : folio;
}

/**
 * rm_store_whole_folios() - widen a range to the folios that it touches
 * @store: a store with a size
 * @start: first page; may become less
 * @end: the page after the last; may become more
 *
 * Context: The inode's invalidate_lock is held.
 */
void rm_store_whole_folios(struct rm_store *store, pgoff_t *start, pgoff_t *end)
{
	struct folio *folio;

	folio = xa_load(&store->folios, *start);
	if (folio && !xa_is_value(folio))
		*start = min(*start, folio->index);
	folio = xa_load(&store->folios, *end - 1);
	if (folio && !xa_is_value(folio))
		*end = max(*end, folio->index + folio_nr_pages(folio));
}

static bool rm_store_is_empty(struct rm_store *store, pgoff_t start,
			      pgoff_t end)
{
	unsigned long index = start;

	return !xa_find(&store->folios, &index, end - 1, XA_PRESENT);
}

/*
 * Enter again what is left of [start, end) after a folio lost a part. True if
 * a folio still reaches beyond the range, because it could not be split.
 */
static bool rm_store_repin(struct rm_store *store, pgoff_t start, pgoff_t end)
{
	struct folio *folio;
	bool beyond = false;
	pgoff_t index = start;

	while (index < end) {
		pgoff_t next = index + 1;

		folio = store->ops->find(store, index);
		if (folio) {
			next = folio->index + folio_nr_pages(folio);
			if (folio->index < start || next > end)
				beyond = true;
			/*
			 * These pages have been ours before, and their
			 * contents are not to be lost: this must not fail, and
			 * takes a few small nodes at most.
			 */
			rm_store_pin(store, folio, GFP_KERNEL | __GFP_NOFAIL,
				     false);
			folio_put(folio);
		}
		index = next;
	}
	return beyond;
}

/**
 * rm_store_discard() - free the pages of a range
 * @store: a store with a size
 * @start: first page
 * @end: the page after the last, within the size
 *
 * What is not freed because a huge folio could not be split reads as zeros, and
 * stays accounted.
 *
 * Context: The inode's invalidate_lock is held for writing, and every consumer
 * was told of the whole folios that the range touches. May sleep.
 */
void rm_store_discard(struct rm_store *store, pgoff_t start, pgoff_t end)
{
	pgoff_t first = start, last = end;
	int tries = RM_SPLIT_TRIES;
	bool beyond;

	if (rm_store_is_empty(store, start, end))
		return;
	rm_store_whole_folios(store, &first, &last);

	WRITE_ONCE(store->busy_start, first);
	WRITE_ONCE(store->busy_end, last);
	/* The range is there before it counts. */
	smp_store_release(&store->busy, true);
	synchronize_rcu_expedited();
	for (;;) {
		rm_store_unpin(store, first, last);
		store->ops->discard(store, start, end);
		beyond = rm_store_repin(store, first, start);
		beyond |= rm_store_repin(store, end, last);
		/* A passing reference, as a fault's, is gone in a moment. */
		if (!beyond || !--tries)
			break;
		usleep_range(100, 1000);
	}
	/* Lock-free readers that see this see the table as it is now. */
	smp_store_release(&store->busy, false);
}

/**
 * rm_store_lose() - a page has a memory error
 * @store: a store with a size
 * @index: the page
 *
 * The page goes, and the rest of its huge folio stays as small ones: freed in
 * one piece with its folio, the kernel would use it again. A mark takes its
 * place, so that nobody gets a new one unawares; to discard the page removes it.
 * A folio that cannot be split keeps the page, whose own mark then has to do.
 *
 * Context: As rm_store_discard().
 */
void rm_store_lose(struct rm_store *store, pgoff_t index)
{
	rm_store_discard(store, index, index + 1);
	if (xa_load(&store->folios, index))
		return;
	xa_store(&store->folios, index, xa_mk_value(0),
		 GFP_KERNEL | __GFP_NOFAIL);
	WRITE_ONCE(store->poisoned, store->poisoned + 1);
}
