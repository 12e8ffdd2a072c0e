// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * The module's limit: pages that files hold or have reserved, and huge pages that
 * have left their file and are held by somebody else.
 *
 * Only what fits is ever charged, so that who asks for too much takes nothing from
 * others meanwhile.
 *
 * A huge page that is discarded while a process holds one of its small ones, in a pipe
 * say, stays as a whole for as long. Without further ado a pipe's few pages would be
 * worth 512 times as much memory beyond the limit. So it stays charged: it goes to a
 * list, with a reference, and is freed when that is the only one that is left. Who
 * comes to the limit looks for such pages, and a worker does now and then. A small page
 * is as much as its holder has to account for, and is let go at once.
 */
#include <linux/atomic.h>
#include <linux/list.h>
#include <linux/mm.h>
#include <linux/mutex.h>
#include <linux/slab.h>
#include <linux/workqueue.h>

#include "restrictedmem_internal.h"

#define RM_STRAGGLER_PERIOD	(HZ / 2)

/**
 * struct rm_straggler - a huge folio without a file
 * @list: in rm_stragglers
 * @folio: with a reference
 */
struct rm_straggler {
	struct list_head list;
	struct folio *folio;
};

static LIST_HEAD(rm_stragglers);
static DEFINE_MUTEX(rm_stragglers_lock);

/* How many were freed; written under rm_stragglers_lock. */
static unsigned long rm_nr_freed;

/* How often somebody has begun to look for them; changed under rm_stragglers_lock. */
static atomic_long_t rm_nr_scans = ATOMIC_LONG_INIT(0);

static atomic_long_t rm_charged = ATOMIC_LONG_INIT(0);

static bool rm_fits(long charged, long nr_pages)
{
	u64 limit = rm_limit_pages();

	return !limit || (u64)charged + nr_pages <= limit;
}

static bool rm_try_charge_once(long nr_pages)
{
	long charged = atomic_long_read(&rm_charged);

	do {
		if (!rm_fits(charged, nr_pages))
			return false;
	} while (!atomic_long_try_cmpxchg(&rm_charged, &charged,
					  charged + nr_pages));
	return true;
}

/*
 * Is our reference the last one? Nobody can find the folio to take another. One
 * with a memory error is the kernel's, which holds it for ever.
 */
static bool rm_is_let_go(struct folio *folio)
{
	if (folio_test_hwpoison(folio) ||
	    (!folio_test_hugetlb(folio) && folio_test_has_hwpoisoned(folio)))
		return true;
	return folio_ref_count(folio) == 1;
}

/**
 * rm_uncharge() - undo rm_try_charge()
 * @nr_pages: pages
 *
 * Context: Any.
 */
void rm_uncharge(long nr_pages)
{
	atomic_long_sub(nr_pages, &rm_charged);
}

/*
 * Free huge pages without a file that nobody holds any more. The list may be long, and
 * many may ask at the limit: one look is for all that came before it began.
 */
static void rm_free_stragglers(void)
{
	struct rm_straggler *s, *next;
	long seen;

	smp_mb();	/* What was let go until now is found by the next look. */
	seen = atomic_long_read(&rm_nr_scans);
	mutex_lock(&rm_stragglers_lock);
	if (atomic_long_read(&rm_nr_scans) != seen) {
		mutex_unlock(&rm_stragglers_lock);
		return;
	}
	atomic_long_inc(&rm_nr_scans);
	smp_mb__after_atomic();	/* pairs with the one above */
	list_for_each_entry_safe(s, next, &rm_stragglers, list) {
		long nr_pages = folio_nr_pages(s->folio);

		if (rm_is_let_go(s->folio)) {
			list_del(&s->list);
			folio_put(s->folio);
			rm_uncharge(nr_pages);
			kfree(s);
			WRITE_ONCE(rm_nr_freed, rm_nr_freed + 1);
		}
		cond_resched();
	}
	mutex_unlock(&rm_stragglers_lock);
}

/**
 * rm_count_freed() - how many huge pages came free after their file let go of them
 *
 * Context: Any.
 * Return: how many since the module was loaded; for rm_frees_more().
 */
unsigned long rm_count_freed(void)
{
	return READ_ONCE(rm_nr_freed);
}

/**
 * rm_frees_more() - is it worth to ask a store again that had no page?
 * @seen: rm_count_freed() before it was asked; is brought up to date
 *
 * It is if a huge page came free since then, whoever freed it.
 *
 * Context: Process context, may sleep; a folio's lock may be held.
 * Return: true if so.
 */
bool rm_frees_more(unsigned long *seen)
{
	unsigned long before = *seen;

	rm_free_stragglers();
	*seen = rm_count_freed();
	return *seen != before;
}

static void rm_stragglers_work_fn(struct work_struct *work);
static DECLARE_DELAYED_WORK(rm_stragglers_work, rm_stragglers_work_fn);

static void rm_stragglers_work_fn(struct work_struct *work)
{
	bool more;

	rm_free_stragglers();
	mutex_lock(&rm_stragglers_lock);
	more = !list_empty(&rm_stragglers);
	mutex_unlock(&rm_stragglers_lock);
	if (more)
		queue_delayed_work(system_unbound_wq, &rm_stragglers_work,
				   RM_STRAGGLER_PERIOD);
}

/**
 * rm_charged_pages() - what counts against the module's limit
 *
 * Context: Any.
 * Return: pages.
 */
u64 rm_charged_pages(void)
{
	return atomic_long_read(&rm_charged);
}

/**
 * rm_has_room() - could so much be charged?
 * @nr_pages: pages
 *
 * To be asked before something is taken that rm_try_charge() might refuse.
 *
 * Context: Process context, may sleep.
 * Return: true if so, as of now.
 */
bool rm_has_room(long nr_pages)
{
	if (rm_fits(atomic_long_read(&rm_charged), nr_pages))
		return true;
	rm_free_stragglers();
	return rm_fits(atomic_long_read(&rm_charged), nr_pages);
}

/**
 * rm_try_charge() - charge pages, unless that would pass the module's limit
 * @nr_pages: how many
 *
 * Context: Process context, may sleep; a folio's lock may be held.
 * Return: true if they are charged.
 */
bool rm_try_charge(long nr_pages)
{
	if (rm_try_charge_once(nr_pages))
		return true;
	rm_free_stragglers();
	return rm_try_charge_once(nr_pages);
}

/**
 * rm_let_go() - drop the last reference of ours on a huge folio
 * @folio: one that is in no file any more; it is charged for as long as others hold it
 *
 * Context: Process context, may sleep.
 */
void rm_let_go(struct folio *folio)
{
	long nr_pages = folio_nr_pages(folio);
	struct rm_straggler *s;

	if (rm_is_let_go(folio)) {
		folio_put(folio);
		rm_uncharge(nr_pages);
		return;
	}
	s = kmalloc(sizeof(*s), GFP_KERNEL_ACCOUNT | __GFP_NOFAIL);
	s->folio = folio;
	mutex_lock(&rm_stragglers_lock);
	list_add(&s->list, &rm_stragglers);
	mutex_unlock(&rm_stragglers_lock);
	/* Most are held in passing, as by a fault, and are free in a moment. */
	queue_delayed_work(system_unbound_wq, &rm_stragglers_work, 1);
}

/**
 * rm_limit_exit() - forget what is still held
 *
 * Context: Module unload; no file is left. What is on the list belongs to those who
 * hold it.
 */
void rm_limit_exit(void)
{
	struct rm_straggler *s, *next;

	cancel_delayed_work_sync(&rm_stragglers_work);
	list_for_each_entry_safe(s, next, &rm_stragglers, list) {
		folio_put(s->folio);
		kfree(s);
	}
}
