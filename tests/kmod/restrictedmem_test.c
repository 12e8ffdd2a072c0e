// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * A consumer of restrictedmem files that is driven from userspace: it binds,
 * takes pages, and writes down how its notifiers are called.
 *
 * A page that it "maps" is remembered without a reference, as KVM's page tables
 * do, together with a checksum. When invalidate_start comes for the page, it
 * must still be where it was: in the page cache, with the same contents. What
 * the API promises about the calls themselves (pairs, ranges, no call without a
 * binding) is checked as they come, and counted when it does not hold.
 *
 * Locks: rmt_consumer.log_lock is the only one that a notifier takes; nothing
 * of the API is called under it but in the atomic accesses, which may.
 * Ranges are [start, end).
 */
#include <linux/crc32.h>
#include <linux/delay.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/highmem.h>
#include <linux/list.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/uaccess.h>
#include <linux/xarray.h>

#include <linux/restrictedmem.h>

#include "restrictedmem_test.h"

#define RMT_MAX_EVENTS		4096
#define PMD_ORDER		(PMD_SHIFT - PAGE_SHIFT)

/**
 * struct rmt_consumer - one open file of the device
 * @owner: the token it binds with
 * @bindings: id to struct rmt_binding; a binding that is being made is a
 *	reserved entry
 * @kept: struct restrictedmem_pfn that bindings which are gone held
 * @delay: milliseconds that invalidate_start sleeps
 * @log_lock: guards all below, and @mapped and @in_progress of the bindings
 * @events: calls of notifiers since they were last asked for
 * @nr_events: how many
 * @nr_mapped: pages on the mapped lists of all bindings
 * @violations: broken promises
 */
struct rmt_consumer {
	u64 owner;
	struct xarray bindings;
	struct xarray kept;
	unsigned int delay;
	spinlock_t log_lock; /* of what follows */
	struct rmt_event *events;
	u32 nr_events;
	u32 nr_mapped;
	u32 violations;
};

/**
 * struct rmt_binding - a notifier and what hangs on it
 * @notifier: what was bound
 * @binding: what it was bound to
 * @consumer: whose it is
 * @id: its name in userspace
 * @start: first page
 * @end: the page after the last
 * @users: calls that use @binding, and the table
 * @idle: no user is left
 * @held: struct restrictedmem_pfn by index, of pages whose reference is kept
 * @sequence: counts the invalidations that began
 * @mapped: list of struct rmt_mapping
 * @in_progress: between invalidate_start and invalidate_end,
 * @cur_start: of this range,
 * @cur_end: up to here
 */
struct rmt_binding {
	struct restrictedmem_notifier notifier;
	struct restrictedmem_binding *binding;
	struct rmt_consumer *consumer;
	u32 id;
	pgoff_t start;
	pgoff_t end;
	refcount_t users;
	struct completion idle;
	struct xarray held;
	unsigned long sequence;
	struct list_head mapped;
	bool in_progress;
	pgoff_t cur_start;
	pgoff_t cur_end;
};

struct rmt_mapping {
	struct list_head node;
	pgoff_t index;
	struct page *page;
	struct address_space *mapping;
	bool shared;
	u32 crc;
};

static atomic64_t rmt_seq = ATOMIC64_INIT(0);

static u64 rmt_next_seq(void)
{
	return atomic64_inc_return(&rmt_seq);
}

/* Contents */

static u32 rmt_page_crc(struct page *page)
{
	void *addr = kmap_local_page(page);
	u32 crc = crc32_le(~0, addr, PAGE_SIZE);

	kunmap_local(addr);
	return crc;
}

static bool rmt_is_intact(const struct rmt_mapping *m)
{
	return page_count(m->page) > 0 &&
	       READ_ONCE(page_folio(m->page)->mapping) == m->mapping &&
	       (m->shared || rmt_page_crc(m->page) == m->crc);
}

/* Notifiers */

static void rmt_violation(struct rmt_binding *b, const char *what)
{
	lockdep_assert_held(&b->consumer->log_lock);
	pr_info("restrictedmem_test: binding %u: %s\n", b->id, what);
	b->consumer->violations++;
}

static struct rmt_event *rmt_log(struct rmt_binding *b, u32 type,
				 pgoff_t start, pgoff_t end)
{
	struct rmt_consumer *c = b->consumer;
	struct rmt_event *event;

	if (start >= end || start < b->start || end > b->end)
		rmt_violation(b, "a range that is not of the binding");
	if (c->nr_events == RMT_MAX_EVENTS)
		c->nr_events = 0;
	event = &c->events[c->nr_events++];
	*event = (struct rmt_event) {
		.seq = rmt_next_seq(),
		.start = start,
		.end = end,
		.id = b->id,
		.type = type,
	};
	return event;
}

/* Take the notes of [start, end) off; count those whose page is in place. */
static void rmt_unmap(struct rmt_binding *b, pgoff_t start, pgoff_t end,
		      u32 *mapped, u32 *intact)
{
	struct rmt_mapping *m, *next;

	list_for_each_entry_safe(m, next, &b->mapped, node) {
		if (m->index < start || m->index >= end)
			continue;
		++*mapped;
		if (rmt_is_intact(m))
			++*intact;
		list_del(&m->node);
		b->consumer->nr_mapped--;
		kfree(m);
	}
}

static void rmt_invalidate_start(struct restrictedmem_notifier *notifier,
				 pgoff_t start, pgoff_t end)
{
	struct rmt_binding *b = container_of(notifier, struct rmt_binding,
					     notifier);
	struct rmt_consumer *c = b->consumer;
	u32 mapped = 0, intact = 0;
	struct rmt_event *event;
	u32 slot;

	might_sleep();
	spin_lock(&c->log_lock);
	if (b->in_progress)
		rmt_violation(b, "nested start");
	b->in_progress = true;
	b->cur_start = start;
	b->cur_end = end;
	b->sequence++;
	event = rmt_log(b, RMT_START, start, end);
	slot = event - c->events;
	spin_unlock(&c->log_lock);

	if (READ_ONCE(c->delay))
		msleep(READ_ONCE(c->delay));

	/* The pages must be there until this returns. */
	spin_lock(&c->log_lock);
	rmt_unmap(b, start, end, &mapped, &intact);
	if (mapped != intact)
		rmt_violation(b, "a mapped page changed before its time");
	event = &c->events[slot];
	if (slot < c->nr_events && event->id == b->id) {
		event->mapped = mapped;
		event->intact = intact;
	}
	spin_unlock(&c->log_lock);
}

static void rmt_invalidate_end(struct restrictedmem_notifier *notifier,
			       pgoff_t start, pgoff_t end)
{
	struct rmt_binding *b = container_of(notifier, struct rmt_binding,
					     notifier);

	might_sleep();
	spin_lock(&b->consumer->log_lock);
	rmt_log(b, RMT_END, start, end);
	if (!b->in_progress)
		rmt_violation(b, "end without start");
	else if (b->cur_start != start || b->cur_end != end)
		rmt_violation(b, "end of another range than start");
	b->in_progress = false;
	spin_unlock(&b->consumer->log_lock);
}

static void rmt_error(struct restrictedmem_notifier *notifier, pgoff_t start,
		      pgoff_t end)
{
	struct rmt_binding *b = container_of(notifier, struct rmt_binding,
					     notifier);

	spin_lock(&b->consumer->log_lock);
	rmt_log(b, RMT_ERROR, start, end);
	if (!b->in_progress || start < b->cur_start || end > b->cur_end)
		rmt_violation(b, "error outside of an invalidation");
	spin_unlock(&b->consumer->log_lock);
}

static const struct restrictedmem_notifier_ops rmt_notifier_ops = {
	.owner = THIS_MODULE,
	.invalidate_start = rmt_invalidate_start,
	.invalidate_end = rmt_invalidate_end,
	.error = rmt_error,
};

/* Bindings */

static struct rmt_binding *rmt_find(struct rmt_consumer *c, u32 id)
{
	struct rmt_binding *b;

	xa_lock(&c->bindings);
	b = xa_load(&c->bindings, id);
	if (b)
		refcount_inc(&b->users);
	xa_unlock(&c->bindings);
	return b;
}

static void rmt_release(struct rmt_binding *b)
{
	if (refcount_dec_and_test(&b->users))
		complete(&b->idle);
}

static struct rmt_binding *rmt_alloc(struct rmt_consumer *c, pgoff_t start,
				     pgoff_t end)
{
	struct rmt_binding *b = kzalloc(sizeof(*b), GFP_KERNEL);

	if (!b)
		return NULL;
	b->notifier.ops = &rmt_notifier_ops;
	b->consumer = c;
	b->start = start;
	b->end = end;
	refcount_set(&b->users, 1);
	init_completion(&b->idle);
	xa_init(&b->held);
	INIT_LIST_HEAD(&b->mapped);
	return b;
}

static long rmt_bind(struct rmt_consumer *c, struct rmt_bind __user *uarg)
{
	struct rmt_binding *b;
	struct rmt_bind arg;
	struct file *file;
	long r;

	if (copy_from_user(&arg, uarg, sizeof(arg)))
		return -EFAULT;
	file = fget(arg.fd);
	if (!file)
		return -EBADF;
	r = -ENOMEM;
	b = rmt_alloc(c, arg.start, arg.end);
	if (!b)
		goto out_put;
	/* A reserved entry, which nobody finds, until the binding is there. */
	r = xa_alloc(&c->bindings, &b->id, NULL, xa_limit_31b, GFP_KERNEL);
	if (r)
		goto err_free;
	b->binding = restrictedmem_bind(file, arg.start, arg.end, &b->notifier,
					c->owner);
	r = PTR_ERR_OR_ZERO(b->binding);
	if (r)
		goto err_release;
	arg.id = b->id;
	arg.seq = rmt_next_seq();
	r = -EFAULT;
	if (copy_to_user(uarg, &arg, sizeof(arg)))
		goto err_cancel;
	/* Cannot fail: the entry is reserved. */
	xa_store(&c->bindings, b->id, b, GFP_KERNEL);
	r = 0;
	goto out_put;

err_cancel:
	restrictedmem_cancel(b->binding);
err_release:
	xa_release(&c->bindings, b->id);
err_free:
	kfree(b);
out_put:
	fput(file);
	return r;
}

static void rmt_put_all(struct xarray *held)
{
	struct restrictedmem_pfn *pfn;
	unsigned long index;

	xa_for_each(held, index, pfn) {
		restrictedmem_put_pfn(pfn);
		kfree(pfn);
	}
	xa_destroy(held);
}

static void rmt_keep_held(struct rmt_binding *b)
{
	struct restrictedmem_pfn *pfn;
	unsigned long index;
	u32 id;

	xa_for_each(&b->held, index, pfn)
		WARN_ON(xa_alloc(&b->consumer->kept, &id, pfn, xa_limit_32b,
				 GFP_KERNEL | __GFP_NOFAIL));
	xa_destroy(&b->held);
}

/* Nobody finds @b any more. */
static void rmt_unbind_and_free(struct rmt_binding *b, u32 flags)
{
	struct rmt_consumer *c = b->consumer;
	u32 ignored = 0;

	if (!refcount_dec_and_test(&b->users))
		wait_for_completion(&b->idle);
	if (flags & RMT_UNBIND_KEEP)
		rmt_keep_held(b);
	if (flags & RMT_UNBIND_CANCEL)
		restrictedmem_cancel(b->binding);
	else
		restrictedmem_unbind(b->binding);

	spin_lock(&c->log_lock);
	if (b->in_progress)
		rmt_violation(b, "unbound during an invalidation");
	rmt_unmap(b, 0, ULONG_MAX, &ignored, &ignored);
	spin_unlock(&c->log_lock);
	rmt_put_all(&b->held);
	kfree(b);
}

static long rmt_unbind(struct rmt_consumer *c, struct rmt_unbind __user *uarg)
{
	struct rmt_binding *b;
	struct rmt_unbind arg;

	if (copy_from_user(&arg, uarg, sizeof(arg)))
		return -EFAULT;
	b = xa_erase(&c->bindings, arg.id);
	if (!b)
		return -ENOENT;
	rmt_unbind_and_free(b, arg.flags);
	arg.seq = rmt_next_seq();
	return copy_to_user(uarg, &arg, sizeof(arg)) ? -EFAULT : 0;
}

/* Pages */

/* Note @pfn as mapped, unless an invalidation began after @sequence. */
static int rmt_map(struct rmt_binding *b, pgoff_t index,
		   const struct restrictedmem_pfn *pfn, unsigned long sequence,
		   bool shared)
{
	struct rmt_mapping *m = kmalloc(sizeof(*m), GFP_KERNEL);
	struct rmt_consumer *c = b->consumer;
	int r = 0;

	if (!m)
		return -ENOMEM;
	m->index = index;
	m->page = pfn->page;
	m->mapping = page_folio(pfn->page)->mapping;
	m->shared = shared;
	m->crc = shared ? 0 : rmt_page_crc(pfn->page);

	spin_lock(&c->log_lock);
	if (b->sequence == sequence) {
		list_add(&m->node, &b->mapped);
		c->nr_mapped++;
		m = NULL;
	} else {
		r = -EAGAIN;
	}
	spin_unlock(&c->log_lock);
	kfree(m);
	return r;
}

static int rmt_hold(struct rmt_binding *b, pgoff_t index,
		    const struct restrictedmem_pfn *pfn)
{
	struct restrictedmem_pfn *held;
	int r;

	held = kmemdup(pfn, sizeof(*pfn), GFP_KERNEL);
	if (!held)
		return -ENOMEM;
	r = xa_insert(&b->held, index, held, GFP_KERNEL);
	if (r)
		kfree(held);
	return r;
}

static int rmt_get(struct rmt_binding *b, struct rmt_page *arg)
{
	struct restrictedmem_pfn pfn;
	unsigned long sequence;
	int r;

	if (arg->flags & RMT_GET_ORDER_ONLY) {
		arg->order = restrictedmem_pfn_order(b->binding, arg->index);
		return 0;
	}
	do {
		spin_lock(&b->consumer->log_lock);
		sequence = b->sequence;
		spin_unlock(&b->consumer->log_lock);

		r = restrictedmem_get_pfn(b->binding, arg->index, &pfn);
		if (r)
			return r;
		arg->seq = rmt_next_seq();
		arg->pfn = pfn.pfn;
		arg->order = pfn.order;
		if (arg->flags & RMT_GET_MAP)
			r = rmt_map(b, arg->index, &pfn, sequence,
				    arg->flags & RMT_GET_SHARED);
		if (!r && (arg->flags & RMT_GET_HOLD)) {
			r = rmt_hold(b, arg->index, &pfn);
			if (!r)
				return 0;
		}
		restrictedmem_put_pfn(&pfn);
	} while (r == -EAGAIN);
	return r;
}

static long rmt_get_pfn(struct rmt_consumer *c, struct rmt_page __user *uarg)
{
	struct rmt_binding *b;
	struct rmt_page arg;
	long r;

	if (copy_from_user(&arg, uarg, sizeof(arg)))
		return -EFAULT;
	b = rmt_find(c, arg.id);
	if (!b)
		return -ENOENT;
	r = rmt_get(b, &arg);
	rmt_release(b);
	if (!r && copy_to_user(uarg, &arg, sizeof(arg)))
		r = -EFAULT;
	return r;
}

static long rmt_put(struct rmt_consumer *c, struct rmt_page __user *uarg)
{
	struct restrictedmem_pfn *pfn;
	struct rmt_binding *b;
	struct rmt_page arg;

	if (copy_from_user(&arg, uarg, sizeof(arg)))
		return -EFAULT;
	b = rmt_find(c, arg.id);
	if (!b)
		return -ENOENT;
	pfn = xa_erase(&b->held, arg.index);
	if (pfn) {
		restrictedmem_put_pfn(pfn);
		kfree(pfn);
	}
	rmt_release(b);
	return pfn ? 0 : -ENOENT;
}

/* Contents, through the API */

static int rmt_access(struct rmt_binding *b, const struct rmt_rw *arg,
		      void *buf)
{
	return arg->flags & RMT_RW_WRITE ?
	       restrictedmem_write(b->binding, arg->pos, buf, arg->len) :
	       restrictedmem_read(b->binding, arg->pos, buf, arg->len);
}

static int rmt_access_atomic(struct rmt_binding *b, const struct rmt_rw *arg,
			     void *buf)
{
	unsigned long flags;
	int r;

	spin_lock_irqsave(&b->consumer->log_lock, flags);
	r = arg->flags & RMT_RW_WRITE ?
	    restrictedmem_write_atomic(b->binding, arg->pos, buf, arg->len) :
	    restrictedmem_read_atomic(b->binding, arg->pos, buf, arg->len);
	spin_unlock_irqrestore(&b->consumer->log_lock, flags);
	return r;
}

static int rmt_access_map(struct rmt_binding *b, const struct rmt_rw *arg,
			  void *buf)
{
	struct restrictedmem_pfn pfn;
	void *addr;

	if (arg->len > PAGE_SIZE - offset_in_page(arg->pos))
		return -EINVAL;
	addr = restrictedmem_map_page(b->binding, arg->pos >> PAGE_SHIFT, &pfn);
	if (IS_ERR(addr))
		return PTR_ERR(addr);
	if (arg->flags & RMT_RW_WRITE)
		memcpy(addr + offset_in_page(arg->pos), buf, arg->len);
	else
		memcpy(buf, addr + offset_in_page(arg->pos), arg->len);
	restrictedmem_unmap_page(addr, &pfn);
	return 0;
}

static long rmt_rw(struct rmt_consumer *c, struct rmt_rw __user *uarg)
{
	struct rmt_binding *b;
	struct rmt_rw arg;
	void *buf;
	long r;

	if (copy_from_user(&arg, uarg, sizeof(arg)))
		return -EFAULT;
	if (arg.len > RMT_RW_MAX)
		return -EINVAL;
	b = rmt_find(c, arg.id);
	if (!b)
		return -ENOENT;

	r = -ENOMEM;
	buf = kvzalloc(arg.len, GFP_KERNEL);
	if (!buf)
		goto out_release;
	r = -EFAULT;
	if ((arg.flags & RMT_RW_WRITE) &&
	    copy_from_user(buf, u64_to_user_ptr(arg.buf), arg.len))
		goto out_free;
	if (arg.flags & RMT_RW_ATOMIC)
		r = rmt_access_atomic(b, &arg, buf);
	else if (arg.flags & RMT_RW_MAP)
		r = rmt_access_map(b, &arg, buf);
	else
		r = rmt_access(b, &arg, buf);
	if (!r && !(arg.flags & RMT_RW_WRITE) &&
	    copy_to_user(u64_to_user_ptr(arg.buf), buf, arg.len))
		r = -EFAULT;

out_free:
	kvfree(buf);
out_release:
	rmt_release(b);
	return r;
}

/* The consumer itself */

static long rmt_events(struct rmt_consumer *c, struct rmt_events __user *uarg)
{
	struct rmt_event *copy;
	struct rmt_events arg;
	u32 count;
	long r = 0;

	if (copy_from_user(&arg, uarg, sizeof(arg)))
		return -EFAULT;
	arg.count = min_t(u32, arg.count, RMT_MAX_EVENTS);
	copy = kvmalloc_array(arg.count, sizeof(*copy), GFP_KERNEL);
	if (!copy)
		return -ENOMEM;

	spin_lock(&c->log_lock);
	count = min(arg.count, c->nr_events);
	memcpy(copy, c->events, count * sizeof(*copy));
	arg.count = c->nr_events;
	arg.violations = c->violations;
	arg.mapped = c->nr_mapped;
	c->nr_events = 0;
	spin_unlock(&c->log_lock);

	if (copy_to_user(u64_to_user_ptr(arg.buf), copy, count * sizeof(*copy)) ||
	    copy_to_user(uarg, &arg, sizeof(arg)))
		r = -EFAULT;
	kvfree(copy);
	return r;
}

/* For benchmarks: each page once, in pages of 2 MiB, which are there already. */
static u64 rmt_clear_pages(struct page **pages, u64 nr)
{
	u64 begin = ktime_get_ns(), i;
	unsigned int j;

	for (i = 0; i < nr; i++) {
		for (j = 0; j < 1 << PMD_ORDER; j++)
			clear_page(page_address(pages[i] + j));
		cond_resched();
	}
	return ktime_get_ns() - begin;
}

static long rmt_clear(struct rmt_clear __user *uarg)
{
	struct rmt_clear arg;
	struct page **pages;
	long r = -ENOMEM;
	u64 nr, i;

	if (copy_from_user(&arg, uarg, sizeof(arg)))
		return -EFAULT;
	if (!arg.bytes || !IS_ALIGNED(arg.bytes, PMD_SIZE))
		return -EINVAL;
	nr = arg.bytes >> PMD_SHIFT;
	pages = kvcalloc(nr, sizeof(*pages), GFP_KERNEL);
	if (!pages)
		return -ENOMEM;
	for (i = 0; i < nr; i++) {
		pages[i] = alloc_pages(GFP_KERNEL | __GFP_RETRY_MAYFAIL, PMD_ORDER);
		if (!pages[i])
			goto out_free;
	}
	arg.ns = rmt_clear_pages(pages, nr);
	r = copy_to_user(uarg, &arg, sizeof(arg)) ? -EFAULT : 0;

out_free:
	for (i = 0; i < nr && pages[i]; i++)
		__free_pages(pages[i], PMD_ORDER);
	kvfree(pages);
	return r;
}

static const struct file_operations rmt_fops;

static long rmt_set_owner(struct rmt_consumer *c, int fd)
{
	struct file *file = fget(fd);
	struct rmt_consumer *other;
	long r = -EINVAL;

	if (!file)
		return -EBADF;
	if (file->f_op == &rmt_fops) {
		other = file->private_data;
		c->owner = other->owner;
		r = 0;
	}
	fput(file);
	return r;
}

static long rmt_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	struct rmt_consumer *c = file->private_data;
	void __user *uarg = (void __user *)arg;

	switch (cmd) {
	case RMT_BIND:
		return rmt_bind(c, uarg);
	case RMT_UNBIND:
		return rmt_unbind(c, uarg);
	case RMT_GET_PFN:
		return rmt_get_pfn(c, uarg);
	case RMT_PUT:
		return rmt_put(c, uarg);
	case RMT_RW:
		return rmt_rw(c, uarg);
	case RMT_EVENTS:
		return rmt_events(c, uarg);
	case RMT_SET_OWNER:
		return rmt_set_owner(c, arg);
	case RMT_SET_DELAY:
		WRITE_ONCE(c->delay, arg);
		return 0;
	case RMT_CLEAR:
		return rmt_clear(uarg);
	}
	return -ENOTTY;
}

static int rmt_open(struct inode *inode, struct file *file)
{
	struct rmt_consumer *c = kzalloc(sizeof(*c), GFP_KERNEL);

	if (!c)
		return -ENOMEM;
	c->events = kvmalloc_array(RMT_MAX_EVENTS, sizeof(*c->events),
				   GFP_KERNEL);
	if (!c->events) {
		kfree(c);
		return -ENOMEM;
	}
	c->owner = restrictedmem_new_owner();
	xa_init_flags(&c->bindings, XA_FLAGS_ALLOC1);
	xa_init_flags(&c->kept, XA_FLAGS_ALLOC);
	spin_lock_init(&c->log_lock);
	file->private_data = c;
	return 0;
}

static int rmt_close(struct inode *inode, struct file *file)
{
	struct rmt_consumer *c = file->private_data;
	struct rmt_binding *b;
	unsigned long id;

	xa_for_each(&c->bindings, id, b) {
		xa_erase(&c->bindings, id);
		rmt_unbind_and_free(b, 0);
	}
	xa_destroy(&c->bindings);
	rmt_put_all(&c->kept);
	kvfree(c->events);
	kfree(c);
	return 0;
}

static const struct file_operations rmt_fops = {
	.owner = THIS_MODULE,
	.open = rmt_open,
	.release = rmt_close,
	.unlocked_ioctl = rmt_ioctl,
	.llseek = noop_llseek,
};

static struct miscdevice rmt_device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "restrictedmem_test",
	.fops = &rmt_fops,
	.mode = 0600,
};
module_misc_device(rmt_device);

MODULE_DESCRIPTION("Consumer of restrictedmem files for tests");
MODULE_LICENSE("GPL");
