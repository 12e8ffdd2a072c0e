// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * Memory errors. The kernel marks a page that has one, and cannot do more: no
 * process maps ours. What is left for us is to take the page from the consumers
 * that map it, to tell them, and to give it back to the kernel, which keeps it
 * out of use. A mark in its place makes restrictedmem_get_pfn() fail there until
 * somebody punches a hole, who then knows that the contents are gone.
 *
 * The kernel has no call for that, but it has a tracepoint. That is hit with
 * the page locked, so all that happens there is to note the page's number; the
 * rest runs from a workqueue. Until it has, or should more errors come at once
 * than there is room for notes, the kernel's flag on the page keeps it from being
 * handed out.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/delay.h>
#include <linux/kfifo.h>
#include <linux/mm.h>
#include <linux/spinlock.h>
#include <linux/string.h>
#include <linux/tracepoint.h>
#include <linux/workqueue.h>
#include <linux/xarray.h>

#include "restrictedmem_internal.h"

static DEFINE_KFIFO(rm_poison_pfns, unsigned long, 256);
static DEFINE_SPINLOCK(rm_poison_lock);
static struct tracepoint *rm_poison_tracepoint;

/* How often a page is looked at whose folio is perhaps being split. */
#define RM_FIND_TRIES	5

/* A page that an inode is looked for; @index is its place there. */
struct rm_poison_page {
	struct folio *folio;
	unsigned long nr;
	pgoff_t index;
};

/*
 * A store whose size is set stays as it is while its inode is listed. @by_node is what
 * is set last, when nothing can fail any more.
 */
static bool rm_poison_owns(struct rm_inode *ri, void *data)
{
	struct rm_store *store = &ri->store;
	struct rm_poison_page *page = data;
	pgoff_t first;

	/* Pairs with the release in rm_store_set_size(). */
	if (!smp_load_acquire(&store->by_node) ||
	    !store->config.ops->owns(store, page->folio, &first))
		return false;
	page->index = first + page->nr;
	return true;
}

/* The inode that had a page a moment ago, and where. rm_inode_put() is due. */
static struct rm_inode *rm_poison_find(struct page *page, pgoff_t *index)
{
	struct rm_poison_page at = { .folio = page_folio(page) };
	struct rm_inode *ri = NULL;

	/* A page of ours has a reference, but not while its folio is split. */
	if (!folio_try_get(at.folio))
		return NULL;
	/* From here on it is not. */
	if (page_folio(page) == at.folio) {
		at.nr = folio_page_idx(at.folio, page);
		ri = rm_inode_find(rm_poison_owns, &at);
		*index = at.index;
	}
	/* With it, nobody else could split the folio. */
	folio_put(at.folio);
	return ri;
}

/* Does an inode still have the page? With its invalidate_lock. */
static bool rm_poison_is_here(struct rm_inode *ri, struct page *page,
			      pgoff_t index)
{
	struct folio *folio = xa_load(&ri->store.folios, index);

	return folio && rm_folio_page(folio, index) == page;
}

/*
 * As a discard does it: the consumers let go of the whole folio, which is split
 * when the page goes.
 */
static void rm_poison_lose(struct rm_inode *ri, pgoff_t index)
{
	pgoff_t first = index, last = index + 1;

	rm_store_whole_folios(&ri->store, &first, &last);
	rm_invalidate_start(ri, first, last);
	rm_notify_error(ri, index, index + 1);
	rm_store_lose(&ri->store, index);
	rm_invalidate_end(ri, first, last);
}

static void rm_poison_handle(unsigned long pfn)
{
	struct page *page = pfn_to_online_page(pfn);
	int tries = RM_FIND_TRIES;
	struct rm_inode *ri;
	pgoff_t index;

	if (!page)
		return;
	while (!(ri = rm_poison_find(page, &index))) {
		if (!--tries)
			return;
		usleep_range(100, 1000);
	}
	down_write(&ri->invalidate_lock);
	if (rm_inode_pages(ri) && rm_poison_is_here(ri, page, index))
		rm_poison_lose(ri, index);
	up_write(&ri->invalidate_lock);
	rm_inode_put(ri);
}

static void rm_poison_work_fn(struct work_struct *work)
{
	unsigned long pfn;

	while (kfifo_out_spinlocked(&rm_poison_pfns, &pfn, 1, &rm_poison_lock))
		rm_poison_handle(pfn);
}

static DECLARE_WORK(rm_poison_work, rm_poison_work_fn);

/* The tracepoint memory_failure_event */
static void rm_poison_note(void *data, unsigned long pfn, int type, int result)
{
	unsigned long flags;
	bool noted;

	spin_lock_irqsave(&rm_poison_lock, flags);
	noted = kfifo_put(&rm_poison_pfns, pfn);
	spin_unlock_irqrestore(&rm_poison_lock, flags);

	if (!noted)
		pr_warn_ratelimited("too many memory errors, pfn %#lx stays mapped where it is\n",
				    pfn);
	schedule_work(&rm_poison_work);
}

static void rm_poison_find_tracepoint(struct tracepoint *tp, void *data)
{
	if (!strcmp(tp->name, "memory_failure_event"))
		rm_poison_tracepoint = tp;
}

/**
 * rm_poison_init() - listen to memory errors
 *
 * Context: Module load.
 * Return: 0, also on a kernel that does not handle memory errors; -ENOMEM.
 */
int rm_poison_init(void)
{
	for_each_kernel_tracepoint(rm_poison_find_tracepoint, NULL);
	if (!rm_poison_tracepoint)
		return 0;
	return tracepoint_probe_register(rm_poison_tracepoint, rm_poison_note,
					 NULL);
}

/**
 * rm_poison_exit() - undo rm_poison_init()
 *
 * Context: Module unload; no file is left.
 */
void rm_poison_exit(void)
{
	if (rm_poison_tracepoint)
		tracepoint_probe_unregister(rm_poison_tracepoint,
					    rm_poison_note, NULL);
	tracepoint_synchronize_unregister();
	flush_work(&rm_poison_work);
}
