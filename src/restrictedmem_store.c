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
#include <linux/highmem.h>
#include <linux/mm.h>
#include <linux/pagemap.h>
#include <linux/rcupdate.h>
#include <linux/slab.h>
#include <linux/xarray.h>

#include "compat/mm.h"
#include "restrictedmem_internal.h"

/* How often a huge folio that somebody else holds is asked to split. */
#define RM_SPLIT_TRIES	5

/* Pages that are discarded in one piece, or those of one huge page, if more */
#define RM_PIECE	(SZ_64M >> PAGE_SHIFT)

/* Pages that all inodes hold */
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
	switch (store) {
	case RESTRICTEDMEM_STORE_SHMEM:
		return &rm_shmem_ops;
	case RESTRICTEDMEM_STORE_HUGETLB:
		return &rm_hugetlb_ops;
	default:
		return NULL;
	}
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

/* A folio comes into the table, or goes. */
static void rm_store_count(struct rm_store *store, struct folio *folio,
			   long nr_pages)
{
	atomic_long_add(nr_pages, &rm_total_resident);
	atomic_long_add(nr_pages, &store->resident);
	atomic_long_add(nr_pages, &store->by_order[folio_order(folio)]);
	/* The node's bits stay, though others set flags beside them. */
	atomic_long_add(nr_pages, &store->by_node[data_race(folio_nid(folio))]);
}

/**
 * rm_store_init() - an inode begins, without a size
 * @store: the inode's store
 * @config: what it was asked to be, with all values checked
 *
 * Context: Any.
 */
void rm_store_init(struct rm_store *store, const struct rm_store_config *config)
{
	memset(store, 0, sizeof(*store));
	store->config = *config;
	xa_init(&store->folios);
	xa_init(&store->lost);
}

/**
 * rm_store_set_size() - the size is known
 * @store: a store without a size
 * @size: bytes, a multiple of its page size
 *
 * Context: The inode's invalidate_lock is held for writing. May sleep.
 * Return: 0; -ENOSPC a reservation beyond the module's limit; -ENOMEM; or what
 * the store's init says.
 */
int rm_store_set_size(struct rm_store *store, loff_t size)
{
	pgoff_t reserved = store->config.reserve ? size >> PAGE_SHIFT : 0;
	unsigned long freed = rm_count_freed();
	atomic_long_t *by_node;
	int r;

	/* Nothing is no matter for the limit, even when it is passed. */
	if (reserved && !rm_has_room(reserved))
		return -ENOSPC;
	by_node = kcalloc(nr_node_ids, sizeof(*by_node), GFP_KERNEL_ACCOUNT);
	if (!by_node)
		return -ENOMEM;

	store->nr_pages = size >> PAGE_SHIFT;
	do {
		r = store->config.ops->init(store);
	} while (r == -ENOSPC && rm_frees_more(&freed));
	if (r)
		goto err_free;
	/* Only what is had counts: others would miss what is not. */
	r = -ENOSPC;
	if (reserved && !rm_try_charge(reserved))
		goto err_destroy;
	WRITE_ONCE(store->reserved, reserved);
	atomic_long_set(&store->set_aside, reserved);
	/* Who only looks takes no lock. */
	smp_store_release(&store->by_node, by_node);
	return 0;

err_destroy:
	store->config.ops->destroy(store);
err_free:
	store->nr_pages = 0;
	kfree(by_node);
	return r;
}

/* Take pages off a count, if it has as many. */
static bool rm_take(atomic_long_t *count, long nr_pages)
{
	long left = atomic_long_read(count);

	while (left >= nr_pages)
		if (atomic_long_try_cmpxchg(count, &left, left - nr_pages))
			return true;
	return false;
}

/*
 * Pages come that were not in the table. What was set aside is paid for. Return: false
 * at the module's limit.
 */
static bool rm_store_charge(struct rm_store *store, long nr_pages)
{
	if (rm_take(&store->set_aside, nr_pages))
		return true;
	if (!rm_try_charge(nr_pages))
		return false;
	if (store->config.reserve)
		atomic_long_add(nr_pages, &store->extra);
	return true;
}

/*
 * Pages go. A reservation's are set aside again, once those beyond it are gone. It does
 * not matter which they are.
 */
static void rm_store_uncharge(struct rm_store *store, long nr_pages)
{
	if (!store->config.reserve || rm_take(&store->extra, nr_pages))
		rm_uncharge(nr_pages);
	else
		atomic_long_add(nr_pages, &store->set_aside);
}

/* The table's reference is the caller's. */
static void rm_store_erase(struct rm_store *store, struct folio *folio,
			   pgoff_t index)
{
	xa_erase(&store->folios, index);
	rm_store_count(store, folio, -folio_nr_pages(folio));
}

/* Is that a huge folio of which nothing stays when [start, end) goes? */
static bool rm_goes_whole(struct folio *folio, pgoff_t index, pgoff_t start,
			  pgoff_t end)
{
	return folio_test_large(folio) &&
	       rm_folio_first(folio, index) >= start &&
	       rm_folio_end(folio, index) <= end;
}

/*
 * Has a huge folio a page with an error that is not lost yet? Freed in one piece, the
 * kernel would use the bad page again.
 */
static bool rm_has_bad_page(struct rm_store *store, struct folio *folio)
{
	return store->config.ops->split && folio_test_large(folio) &&
	       folio_test_has_hwpoisoned(folio);
}

/* Make small folios of the one at an index. False if somebody holds it. */
static bool rm_split(struct rm_store *store, pgoff_t index)
{
	struct folio *folio;
	bool split;

	store->config.ops->split(store, index);
	folio = store->config.ops->find(store, index);
	if (!folio)
		return true;
	split = !folio_test_large(folio);
	folio_put(folio);
	return split;
}

/*
 * Before [start, end) is discarded: let go of all folios of [first, last), which
 * begins and ends with whole ones, but not of those that go whole, unless they have
 * to be split first. The caller holds the invalidate_lock for writing, or is the
 * last user. Return: pages, which are still charged.
 */
static long rm_store_unpin(struct rm_store *store, pgoff_t first, pgoff_t last,
			   pgoff_t start, pgoff_t end)
{
	unsigned long index = first;
	struct folio *folio;
	long nr_pages = 0;

	while (index < last &&
	       (folio = xa_find(&store->folios, &index, last - 1, XA_PRESENT))) {
		pgoff_t next = rm_folio_end(folio, index);
		bool bad = rm_has_bad_page(store, folio);
		int tries = RM_SPLIT_TRIES;

		if (bad || !rm_goes_whole(folio, index, start, end)) {
			rm_store_erase(store, folio, index);
			nr_pages += folio_nr_pages(folio);
			folio_put(folio);
		}
		/* Who has just marked it still holds it for a moment. */
		while (bad && tries-- && !rm_split(store, index))
			usleep_range(100, 1000);
		index = next;
		cond_resched();
	}
	return nr_pages;
}

/*
 * Take a page off those beyond the reservation. Who charged pages while others took
 * theirs back may have left both counts: then the reservation pays for what it can.
 */
static bool rm_store_take_extra(struct rm_store *store, long nr_pages)
{
	while (rm_take(&store->extra, nr_pages)) {
		if (!rm_take(&store->set_aside, nr_pages))
			return true;
		rm_uncharge(nr_pages);
	}
	return false;
}

/*
 * Drop the reference on a huge folio that is in no file any more. If somebody holds it,
 * it takes along what was charged for it, and is no longer the reservation's.
 */
static void rm_store_drop(struct rm_store *store, struct folio *folio)
{
	long nr_pages = folio_nr_pages(folio);

	if (folio_ref_count(folio) == 1) {
		folio_put(folio);
		rm_store_uncharge(store, nr_pages);
		return;
	}
	if (store->config.reserve) {
		bool beyond = rm_store_take_extra(store, nr_pages);

		store->config.ops->forsake(folio, beyond);
		if (!beyond)
			WRITE_ONCE(store->reserved, store->reserved - nr_pages);
	}
	rm_let_go(folio);
}

/* After that, of those that went whole. */
static void rm_store_unpin_whole(struct rm_store *store, pgoff_t start,
				 pgoff_t end)
{
	unsigned long index = start;
	struct folio *folio;

	while (index < end &&
	       (folio = xa_find(&store->folios, &index, end - 1, XA_PRESENT))) {
		pgoff_t next = rm_folio_end(folio, index);

		if (rm_goes_whole(folio, index, start, end)) {
			rm_store_erase(store, folio, index);
			rm_store_drop(store, folio);
		}
		index = next;
		cond_resched();
	}
}

/* As rm_store_unpin(), for the marks of lost pages. */
static void rm_store_forget_lost(struct rm_store *store, pgoff_t start,
				 pgoff_t end)
{
	unsigned long index = start;

	while (xa_find(&store->lost, &index, end - 1, XA_PRESENT)) {
		xa_erase(&store->lost, index);
		WRITE_ONCE(store->nr_lost, store->nr_lost - 1);
	}
}

/**
 * rm_store_destroy() - the inode ends; all of its pages are freed
 * @store: a store that nobody uses any more
 *
 * Context: Process context, may sleep; takes as long as there are pages.
 */
void rm_store_destroy(struct rm_store *store)
{
	pgoff_t end = store->nr_pages;
	long nr_pages;

	if (!end)
		return;
	rm_store_forget_lost(store, 0, end);
	nr_pages = rm_store_unpin(store, 0, end, 0, end);
	store->config.ops->discard(store, 0, end);
	rm_store_uncharge(store, nr_pages);
	rm_store_unpin_whole(store, 0, end);
	WARN_ON_ONCE(atomic_long_read(&store->resident) ||
		     atomic_long_read(&store->extra) ||
		     atomic_long_read(&store->set_aside) != store->reserved);
	store->config.ops->destroy(store);
	rm_uncharge(store->reserved);
	kfree(store->by_node);
	store->by_node = NULL;
	store->nr_pages = 0;
}

/* As rm_store_pin(), for a folio that is locked and not in the table. */
static int rm_store_enter(struct rm_store *store, pgoff_t index,
			  struct folio *folio, gfp_t gfp, bool charge)
{
	XA_STATE_ORDER(xas, &store->folios, index, folio_order(folio));
	long nr_pages = folio_nr_pages(folio);

	if (charge && !rm_store_charge(store, nr_pages))
		return -ENOSPC;
	do {
		xas_lock(&xas);
		xas_store(&xas, folio);
		if (!xas_error(&xas)) {
			folio_get(folio);
			rm_store_count(store, folio, nr_pages);
		}
		xas_unlock(&xas);
	} while (xas_nomem(&xas, gfp));

	if (charge && xas_error(&xas))
		rm_store_uncharge(store, nr_pages);
	return xas_error(&xas);
}

/*
 * Enter a folio into the table, with a reference of its own. Return: 0, also
 * when it is there already; -ENOMEM; -ENOSPC at the module's limit; -EAGAIN
 * when the folio is no longer the store's.
 */
static int rm_store_pin(struct rm_store *store, pgoff_t index,
			struct folio *folio, gfp_t gfp, bool charge)
{
	struct folio *old;
	pgoff_t first;
	int r = 0;

	/* Who enters it at the same time waits, and finds it: it counts once. */
	folio_lock(folio);
	old = xa_load(&store->folios, index);
	if (!store->config.ops->owns(store, folio, &first))
		r = -EAGAIN;
	else if (!old)
		r = rm_store_enter(store, index, folio, gfp, charge);
	else
		WARN_ON_ONCE(old != folio);
	folio_unlock(folio);
	return r;
}

/*
 * Not beyond the end, and not huge where that is not wanted: an administrator
 * can make shmem give huge pages against all it was told ("force" in
 * transparent_hugepage/shmem_enabled).
 */
static bool rm_store_fits(struct rm_store *store, pgoff_t index,
			  struct folio *folio)
{
	if (store->config.thp == RESTRICTEDMEM_THP_NEVER &&
	    folio_test_large(folio))
		return false;
	return rm_folio_end(folio, index) <= store->nr_pages;
}

/**
 * rm_store_get() - the folio at an index, allocated if need be
 * @store: a store with a size
 * @index: a page within the size
 * @must: rather call the OOM killer than fail
 * @folio: where it goes, with a reference for the caller
 *
 * Context: The inode's invalidate_lock is held for reading. May sleep; a new
 * folio is charged to current's memcg.
 * Return: 0, -ENOMEM, -ENOSPC, -EHWPOISON, -EINTR for a fatal signal, -EFBIG
 * the store gave more than it should have, -EBUSY as rm_store_check_page().
 * After -ENOMEM, -ENOSPC and -EFBIG the caller must call rm_store_trim() once it
 * has dropped the lock. After -EFBIG and -EBUSY it may try again.
 */
int rm_store_get(struct rm_store *store, pgoff_t index, bool must,
		 struct folio **folio)
{
	unsigned long freed = rm_count_freed();
	struct folio *f;
	int r;

	f = xa_load(&store->folios, index);
	if (f) {
		r = rm_store_check_page(store, f, index);
		if (r)
			return r;
		folio_get(f);
		*folio = f;
		return 0;
	}
	if (rm_store_has_lost(store, index, index + 1))
		return -EHWPOISON;
	/* Spare the store what rm_store_pin() would refuse. */
	if (!atomic_long_read(&store->set_aside) &&
	    !rm_has_room(store->config.page_size >> PAGE_SHIFT))
		return -ENOSPC;
	do {
		f = store->config.ops->get(store, index, must);
		if (IS_ERR(f)) {
			r = PTR_ERR(f);
			if (r == -ENOSPC && rm_frees_more(&freed))
				r = -EAGAIN;
			continue;
		}
		if (rm_store_fits(store, index, f))
			r = rm_store_pin(store, index, f, GFP_KERNEL_ACCOUNT,
					 true);
		else
			r = -EFBIG;
		if (!r)
			r = rm_store_check_page(store, f, index);
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
 * Of a folio that is larger than it should be, the page at @index stays.
 * Does nothing when somebody else has entered it since.
 *
 * Context: The inode's invalidate_lock is held for writing. May sleep.
 */
void rm_store_trim(struct rm_store *store, pgoff_t index)
{
	const struct rm_store_ops *ops = store->config.ops;
	struct folio *folio;
	pgoff_t start, end;
	bool fits;

	if (xa_load(&store->folios, index))
		return;
	folio = ops->find(store, index);
	if (!folio)
		return;
	start = rm_folio_first(folio, index);
	end = rm_folio_end(folio, index);
	fits = rm_store_fits(store, index, folio);
	folio_put(folio);

	if (fits) {
		ops->discard(store, start, end);
		return;
	}
	if (start < index)
		ops->discard(store, start, index);
	if (index + 1 < end)
		ops->discard(store, index + 1, end);
}

/**
 * rm_store_piece() - how much of a range to discard at a time
 * @store: a store with a size
 * @start: first page
 * @end: the page after the last
 *
 * Holes are part of the piece, however long, and no folio is of two pieces.
 *
 * Context: The inode's invalidate_lock is held.
 * Return: where the piece ends that begins at @start.
 */
pgoff_t rm_store_piece(struct rm_store *store, pgoff_t start, pgoff_t end)
{
	unsigned long size = max_t(unsigned long, RM_PIECE,
				   store->config.page_size >> PAGE_SHIFT);
	unsigned long next = round_down(start, size) + size;

	/* An entry is found at its first page, which is not before. */
	if (next >= end || !xa_find(&store->folios, &next, end - 1, XA_PRESENT))
		return end;
	return round_down(next, size);
}

/**
 * rm_store_peek() - a resident folio, without locks
 * @store: a store with a size
 * @index: a page within the size
 *
 * Context: Within rcu_read_lock(); any context but NMI. The folio may be used
 * until rcu_read_unlock(), without a reference.
 * Return: the folio, or NULL when it is not resident or may be going away.
 */
struct folio *rm_store_peek(struct rm_store *store, pgoff_t index)
{
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
	return xa_load(&store->folios, index);
}

/**
 * rm_store_has_lost() - was a page of a range lost to a memory error?
 * @store: a store with a size
 * @start: first page
 * @end: the page after the last
 *
 * Context: Any.
 * Return: true if so.
 */
bool rm_store_has_lost(struct rm_store *store, pgoff_t start, pgoff_t end)
{
	return rm_store_first_lost(store, start, end) < end;
}

/**
 * rm_store_first_lost() - the first page of a range that is lost
 * @store: a store with a size
 * @start: first page
 * @end: the page after the last
 *
 * Context: Any.
 * Return: the page, or @end.
 */
pgoff_t rm_store_first_lost(struct rm_store *store, pgoff_t start, pgoff_t end)
{
	unsigned long index = start;

	if (!READ_ONCE(store->nr_lost) ||
	    !xa_find(&store->lost, &index, end - 1, XA_PRESENT))
		return end;
	return index;
}

/*
 * The first page of a range for whose folio @is_so, or @end. Who has a page of a
 * large folio has all of it, as far as one can see.
 */
static pgoff_t rm_store_first(struct rm_store *store, pgoff_t start, pgoff_t end,
			      bool (*is_so)(struct rm_store *store,
					    struct folio *folio, pgoff_t index))
{
	unsigned long index = start;
	struct folio *folio;

	while (index < end &&
	       (folio = xa_find(&store->folios, &index, end - 1, XA_PRESENT))) {
		/* An entry is found at its first page, which may be before. */
		index = max(index, start);
		if (is_so(store, folio, index))
			return index;
		index = rm_folio_end(folio, index);
		cond_resched();
	}
	return end;
}

static bool rm_folio_is_unsure(struct rm_store *store, struct folio *folio,
			       pgoff_t index)
{
	return rm_store_check_page(store, folio, index) == -EBUSY;
}

/**
 * rm_store_first_unsure() - the first page of a range that may have an error
 * @store: a store with a size
 * @start: first page
 * @end: the page after the last
 *
 * Context: The inode's invalidate_lock is held for writing. May sleep.
 * Return: the page, of which rm_store_check_page() says -EBUSY, or @end.
 */
pgoff_t rm_store_first_unsure(struct rm_store *store, pgoff_t start, pgoff_t end)
{
	/* Others know it page by page. */
	if (store->config.ops->split)
		return end;
	return rm_store_first(store, start, end, rm_folio_is_unsure);
}

/*
 * Does anybody hold it, beside the page cache and the table? No process maps it,
 * none can begin to, and who is about to drop a mapping still has its reference:
 * that the count is this number once is proof.
 */
static bool rm_folio_is_held(struct rm_store *store, struct folio *folio,
			     pgoff_t index)
{
	return folio_ref_count(folio) != rm_folio_cache_refs(folio) + 1;
}

/**
 * rm_store_first_held() - the first page of a range that somebody holds
 * @store: a store with a size
 * @start: first page
 * @end: the page after the last
 * @error: set if there is one: -EAGAIN, or -EHWPOISON when it is the kernel that
 *	holds a huge page of a pool for ever, because of an error in it
 *
 * Context: The inode's invalidate_lock is held for writing, and since it is, the
 * folios with pages of the range were taken from all processes, as wholes. May
 * sleep.
 * Return: the page, or @end.
 */
pgoff_t rm_store_first_held(struct rm_store *store, pgoff_t start, pgoff_t end,
			    int *error)
{
	pgoff_t index = rm_store_first(store, start, end, rm_folio_is_held);

	if (index < end)
		*error = !store->config.ops->split &&
			 folio_test_hwpoison(xa_load(&store->folios, index)) ?
				-EHWPOISON : -EAGAIN;
	return index;
}

/**
 * rm_store_find() - the folio of a page that is resident and well
 * @store: a store with a size
 * @index: a page within the size
 *
 * Context: The inode's invalidate_lock is held, for as long as the folio is used;
 * there is no reference for the caller.
 * Return: the folio, or NULL: rm_store_get() knows why.
 */
struct folio *rm_store_find(struct rm_store *store, pgoff_t index)
{
	struct folio *folio = xa_load(&store->folios, index);

	if (!folio || rm_store_check_page(store, folio, index))
		return NULL;
	return folio;
}

/* Is it known of this very page that it has an error? */
static bool rm_store_is_bad(struct rm_store *store, struct folio *folio,
			    pgoff_t index)
{
	if (rm_store_has_lost(store, index, index + 1))
		return true;
	/* Of a pool's pages the kernel marks the huge one. */
	return store->config.ops->split &&
	       PageHWPoison(rm_folio_page(folio, index));
}

/**
 * rm_store_zero() - fill the resident pages of a range with zeros
 * @store: a store with a size
 * @start: first page
 * @end: the page after the last
 *
 * Leaves out pages of which is known that they have an error, and which nobody
 * gets for that. Of a huge page of a pool with an error in an unknown place all
 * are written.
 *
 * Context: The inode's invalidate_lock is held for writing. May sleep.
 */
void rm_store_zero(struct rm_store *store, pgoff_t start, pgoff_t end)
{
	unsigned long index = start;
	struct folio *folio;

	while (index < end &&
	       (folio = xa_find(&store->folios, &index, end - 1, XA_PRESENT))) {
		pgoff_t last;

		index = max(index, start);
		last = min(rm_folio_end(folio, index), end);
		for (; index < last; index++)
			/* Not even a write goes to a page with an error. */
			if (!rm_store_is_bad(store, folio, index))
				clear_highpage(rm_folio_page(folio, index));
		cond_resched();
	}
}

/**
 * rm_store_check_page() - was a page of a folio lost to a memory error?
 * @store: a store with a size
 * @folio: one of its folios
 * @index: a page of it
 *
 * Context: Any; the folio stays.
 * Return: 0; -EHWPOISON if so, also when only the kernel has marked the page so
 * far; -EBUSY for a folio with such a mark for all of it: rm_store_lose() will
 * be called for the page that it is about in a moment.
 */
int rm_store_check_page(struct rm_store *store, struct folio *folio,
			pgoff_t index)
{
	if (rm_store_is_bad(store, folio, index))
		return -EHWPOISON;
	if (!store->config.ops->split && folio_test_hwpoison(folio) &&
	    !rm_store_has_lost(store, rm_folio_first(folio, index),
			       rm_folio_end(folio, index)))
		return -EBUSY;
	return 0;
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
	if (folio)
		*start = rm_folio_first(folio, *start);
	folio = xa_load(&store->folios, *end - 1);
	if (folio)
		*end = rm_folio_end(folio, *end - 1);
}

static bool rm_store_is_empty(struct rm_store *store, pgoff_t start,
			      pgoff_t end)
{
	unsigned long index = start;

	return !xa_find(&store->folios, &index, end - 1, XA_PRESENT);
}

/*
 * Enter again what is left of [start, end) after a folio lost a part. It is still
 * charged: @charged is how many pages are that are not in the table. True if a
 * folio still reaches beyond the range, because it could not be split.
 */
static bool rm_store_repin(struct rm_store *store, pgoff_t start, pgoff_t end,
			   long *charged)
{
	struct folio *folio;
	bool beyond = false;
	pgoff_t index = start;

	while (index < end) {
		pgoff_t next = index + 1;

		folio = store->config.ops->find(store, index);
		if (folio) {
			next = rm_folio_end(folio, index);
			if (rm_folio_first(folio, index) < start || next > end)
				beyond = true;
			/*
			 * These pages have been ours before, and their
			 * contents are not to be lost: this must not fail, and
			 * takes a few small nodes at most. What reaches beyond
			 * may have been entered from the other side.
			 */
			if (!xa_load(&store->folios, index) &&
			    !rm_store_pin(store, index, folio,
					  GFP_KERNEL | __GFP_NOFAIL, false))
				*charged -= folio_nr_pages(folio);
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
 * stays accounted, all the time. So does a huge folio that has left the store and is
 * held, with the module: see rm_let_go().
 *
 * Context: The inode's invalidate_lock is held for writing, and every consumer
 * was told of the whole folios that the range touches. May sleep.
 */
void rm_store_discard(struct rm_store *store, pgoff_t start, pgoff_t end)
{
	pgoff_t first = start, last = end;
	int tries = RM_SPLIT_TRIES;
	long charged = 0;
	bool beyond;

	rm_store_forget_lost(store, start, end);
	if (rm_store_is_empty(store, start, end))
		return;
	rm_store_whole_folios(store, &first, &last);

	WRITE_ONCE(store->busy_start, first);
	WRITE_ONCE(store->busy_end, last);
	/* The range is there before it counts. */
	smp_store_release(&store->busy, true);
	synchronize_rcu_expedited();
	for (;;) {
		charged += rm_store_unpin(store, first, last, start, end);
		store->config.ops->discard(store, start, end);
		beyond = rm_store_repin(store, first, start, &charged);
		beyond |= rm_store_repin(store, end, last, &charged);
		/* A passing reference, as a fault's, is gone in a moment. */
		if (!beyond || !--tries)
			break;
		usleep_range(100, 1000);
	}
	rm_store_uncharge(store, charged);
	rm_store_unpin_whole(store, start, end);
	/* Lock-free readers that see this see the table as it is now. */
	smp_store_release(&store->busy, false);
}

/**
 * rm_store_lose() - a page has a memory error
 * @store: a store with a size
 * @index: the page
 *
 * The page goes, without being written to, and the rest of its huge folio stays as
 * small ones: freed in one piece with its folio, the kernel would use it again. A
 * huge folio that somebody holds cannot be split, and keeps the page until that
 * is over and the page is discarded. The pages of the system's pool stay whole,
 * and it is the pool that does not hand them out again. A mark takes the page's
 * place, so that nobody gets it, or a new one unawares; to discard the page
 * removes it.
 *
 * Context: As rm_store_discard().
 */
void rm_store_lose(struct rm_store *store, pgoff_t index)
{
	if (store->config.ops->split)
		rm_store_discard(store, index, index + 1);
	if (rm_store_has_lost(store, index, index + 1))
		return;
	xa_store(&store->lost, index, xa_mk_value(0),
		 GFP_KERNEL | __GFP_NOFAIL);
	WRITE_ONCE(store->nr_lost, store->nr_lost + 1);
}
