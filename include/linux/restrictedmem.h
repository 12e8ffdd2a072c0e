/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * The consumers' API: how another part of the kernel gets at the pages of a
 * restrictedmem file. A consumer binds a range of the file, takes pages from
 * the binding, maps them wherever its guest looks, and takes the mappings away
 * when its notifier is called.
 *
 * Ranges are in pages of PAGE_SIZE within the file and half-open,
 * [start, end). All functions may sleep unless they say otherwise.
 *
 * The protocol between get_pfn and an invalidation
 * ------------------------------------------------
 *
 *	consumer				the file
 *	s = sequence
 *	restrictedmem_get_pfn()
 *						lock out get_pfn
 *						invalidate_start():
 *	lock				  lock; unmap; sequence++; unlock
 *	if (sequence == s) map the pfn	discard the pages
 *	unlock					invalidate_end()
 *	restrictedmem_put_pfn()		admit get_pfn
 *
 * From invalidate_start to invalidate_end get_pfn waits, so that a consumer
 * needs to remember no range, only that an invalidation began.
 */
#ifndef _LINUX_RESTRICTEDMEM_H
#define _LINUX_RESTRICTEDMEM_H

#include <linux/types.h>

struct file;
struct module;
struct page;
struct restrictedmem_binding;
struct restrictedmem_notifier;

/**
 * struct restrictedmem_notifier_ops - what a consumer is told
 * @owner: the consumer's module; held from bind to unbind
 * @invalidate_start: the pages [start, end) of the file are about to go away
 *	or to change place. On return the consumer has no mapping of them left,
 *	and will make none from a pfn that it got earlier.
 * @invalidate_end: the change is done; pages can be had again. Optional.
 * @error: the pages [start, end) were lost to a memory error: called once, after
 *	an invalidate_start that covers them and before its invalidate_end. From
 *	then on restrictedmem_get_pfn() says -EHWPOISON for them, until they are
 *	discarded. Optional.
 *
 * Start and end come in pairs, with the same range, which lies within the
 * binding, and never nested for one binding. They run in process context, may
 * sleep, and must not call bind, unbind, get_pfn, read, write or map_page of
 * the same file, nor take a lock under which the consumer does. The range may
 * be larger than what was discarded: it covers every huge page that is touched.
 */
struct restrictedmem_notifier_ops {
	struct module *owner;
	void (*invalidate_start)(struct restrictedmem_notifier *notifier,
				 pgoff_t start, pgoff_t end);
	void (*invalidate_end)(struct restrictedmem_notifier *notifier,
			       pgoff_t start, pgoff_t end);
	void (*error)(struct restrictedmem_notifier *notifier,
		      pgoff_t start, pgoff_t end);
};

/**
 * struct restrictedmem_notifier - embedded in the consumer's own object
 * @ops: its functions; constant while bound
 */
struct restrictedmem_notifier {
	const struct restrictedmem_notifier_ops *ops;
};

/**
 * struct restrictedmem_pfn - one page, as get_pfn returns it
 * @pfn: the page frame number
 * @order: the naturally aligned block of 1 << @order pages around the index
 *	is physically contiguous, lies inside the binding, and can be mapped in
 *	one piece, if the guest's address has the same alignment
 * @page: the struct page of @pfn, or NULL where the store has none
 */
struct restrictedmem_pfn {
	unsigned long pfn;
	unsigned int order;
	struct page *page;
};

bool file_is_restrictedmem(struct file *file);

u64 restrictedmem_new_owner(void);

struct restrictedmem_binding *
restrictedmem_bind(struct file *file, pgoff_t start, pgoff_t end,
		   struct restrictedmem_notifier *notifier, u64 owner);
void restrictedmem_unbind(struct restrictedmem_binding *binding);
void restrictedmem_cancel(struct restrictedmem_binding *binding);

int restrictedmem_get_pfn(struct restrictedmem_binding *binding, pgoff_t index,
			  struct restrictedmem_pfn *pfn);
void restrictedmem_put_pfn(const struct restrictedmem_pfn *pfn);
int restrictedmem_pfn_order(struct restrictedmem_binding *binding,
			    pgoff_t index);

int restrictedmem_read(struct restrictedmem_binding *binding, loff_t pos,
		       void *buf, size_t len);
int restrictedmem_write(struct restrictedmem_binding *binding, loff_t pos,
			const void *buf, size_t len);
int restrictedmem_read_atomic(struct restrictedmem_binding *binding,
			      loff_t pos, void *buf, size_t len);
int restrictedmem_write_atomic(struct restrictedmem_binding *binding,
			       loff_t pos, const void *buf, size_t len);

void *restrictedmem_map_page(struct restrictedmem_binding *binding,
			     pgoff_t index, struct restrictedmem_pfn *pfn);
void restrictedmem_unmap_page(void *addr, const struct restrictedmem_pfn *pfn);

#endif /* _LINUX_RESTRICTEDMEM_H */
