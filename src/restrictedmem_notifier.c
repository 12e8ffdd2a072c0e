// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * Bindings, owners and invalidation: the consumers' API.
 *
 * A binding ties the pages [start, end) of an inode to one notifier of one
 * owner. The binding lock makes a start and its end pair: it is held for
 * reading from the one to the other, so that a bind or unbind in between waits.
 * An invalidation holds the invalidate lock for writing as well, which is what
 * keeps get_pfn out.
 *
 * Owners are tokens that are never used twice, not addresses: a VM that happens
 * to be allocated where a dead one was does not inherit its files.
 *
 * The interval tree wants inclusive ends; rm_binding_last() is the one place
 * that makes them.
 */
#include <linux/export.h>
#include <linux/file.h>
#include <linux/highmem.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/slab.h>

#include "restrictedmem_internal.h"
#include "restrictedmem_trace.h"

/**
 * struct restrictedmem_binding - what a consumer holds
 * @node: [start, last] in the inode's tree
 * @file: the view it was made through; holds the inode and our module
 * @notifier: the consumer's
 * @start: first page
 * @end: the page after the last
 *
 * Constant, but for @node, which the inode's binding_lock guards.
 */
struct restrictedmem_binding {
	struct interval_tree_node node;
	struct file *file;
	struct restrictedmem_notifier *notifier;
	pgoff_t start;
	pgoff_t end;
};

/**
 * rm_binding_inode() - the memory that is bound
 * @b: a binding
 *
 * Context: Any.
 * Return: the inode; it stays as long as the binding.
 */
struct rm_inode *rm_binding_inode(struct restrictedmem_binding *b)
{
	return rm_inode(file_inode(b->file));
}

static unsigned long rm_binding_last(pgoff_t end)
{
	return end - 1;
}

/**
 * restrictedmem_new_owner() - an owner's token
 *
 * Context: Any.
 * Return: a number that was never returned before, not 0.
 */
u64 restrictedmem_new_owner(void)
{
	static atomic64_t last = ATOMIC64_INIT(0);

	return atomic64_inc_return(&last);
}
EXPORT_SYMBOL_GPL(restrictedmem_new_owner);

static struct rm_view *rm_binding_view(struct restrictedmem_binding *b)
{
	return b->file->private_data;
}

/* The binding after @b that touches [@start, @end); after NULL, the first. */
static struct restrictedmem_binding *
rm_next_binding(struct rm_inode *ri, struct restrictedmem_binding *b,
		pgoff_t start, pgoff_t end)
{
	unsigned long last = rm_binding_last(end);
	struct interval_tree_node *node;

	node = b ? interval_tree_iter_next(&b->node, start, last) :
		   interval_tree_iter_first(&ri->bindings, start, last);
	return node ? container_of(node, struct restrictedmem_binding, node)
		    : NULL;
}

/* Has @owner bound a page of [@start, @end), through whichever view? */
static bool rm_is_alias(struct rm_inode *ri, pgoff_t start, pgoff_t end,
			u64 owner)
{
	struct restrictedmem_binding *b = NULL;

	while ((b = rm_next_binding(ri, b, start, end)))
		if (rm_binding_view(b)->owner == owner)
			return true;
	return false;
}

/* May @owner bind [@start, @end) through @view? The errors are rm_bind()'s. */
static int rm_may_bind(struct rm_inode *ri, struct rm_view *view, pgoff_t start,
		       pgoff_t end, u64 owner)
{
	u64 pages = i_size_read(&ri->vfs_inode) >> PAGE_SHIFT;

	lockdep_assert_held_write(&ri->binding_lock);

	if (end > pages)
		return -EINVAL;
	if (view->owner && view->owner != owner)
		return -EPERM;
	if (!(ri->flags & RESTRICTEDMEM_CREATE_VIEWS) &&
	    ri->nr_bindings != view->nr_bindings)
		return -EBUSY;
	if (!(ri->flags & RESTRICTEDMEM_CREATE_ALIASES) &&
	    rm_is_alias(ri, start, end, owner))
		return -EEXIST;
	return 0;
}

/**
 * rm_bind() - restrictedmem_bind() with more to say
 * @file: a restrictedmem file
 * @start: first page
 * @end: the page after the last
 * @notifier: the consumer's
 * @owner: its token
 *
 * Context: As restrictedmem_bind().
 * Return: As restrictedmem_bind(), but that -EPERM is for a file of another
 * owner, -EEXIST for an overlap, and -EBUSY for another view that has bindings.
 */
struct restrictedmem_binding *rm_bind(struct file *file, pgoff_t start,
				      pgoff_t end,
				      struct restrictedmem_notifier *notifier,
				      u64 owner)
{
	struct restrictedmem_binding *b;
	struct rm_view *view;
	struct rm_inode *ri;
	int r;

	if (!file_is_restrictedmem(file) || start >= end || !owner)
		return ERR_PTR(-EINVAL);
	view = file->private_data;
	ri = rm_inode(file_inode(file));

	b = kzalloc(sizeof(*b), GFP_KERNEL_ACCOUNT);
	if (!b)
		return ERR_PTR(-ENOMEM);
	b->node.start = start;
	b->node.last = rm_binding_last(end);
	b->notifier = notifier;
	b->start = start;
	b->end = end;

	r = -ENODEV;
	if (!try_module_get(notifier->ops->owner))
		goto err_free;
	r = down_write_killable(&ri->binding_lock);
	if (r)
		goto err_put_module;
	r = rm_may_bind(ri, view, start, end, owner);
	if (r)
		goto err_unlock;

	b->file = get_file(file);
	view->owner = owner;
	view->claims++;
	view->nr_bindings++;
	interval_tree_insert(&b->node, &ri->bindings);
	ri->nr_bindings++;
	trace_restrictedmem_bind(ri->vfs_inode.i_ino, start, end, owner);
	up_write(&ri->binding_lock);
	return b;

err_unlock:
	up_write(&ri->binding_lock);
err_put_module:
	module_put(notifier->ops->owner);
err_free:
	kfree(b);
	return ERR_PTR(r);
}

/**
 * restrictedmem_bind() - get access to a range of a file's pages
 * @file: a restrictedmem file
 * @start: first page
 * @end: the page after the last
 * @notifier: the consumer's; must stay until the binding is gone
 * @owner: a token from restrictedmem_new_owner(). The first owner that binds
 *	through a file keeps it for the file's life.
 *
 * The binding holds references on the file and on the consumer's module.
 *
 * Context: Process context, may sleep: waits for an invalidation that is under
 * way. No lock may be held that a notifier takes.
 * Return: the binding, or an ERR_PTR: -EINVAL not such a file, an empty range,
 * or one beyond the end of the file; -EBUSY the file is another owner's, or the
 * range overlaps another binding of @owner and the memory was not created for
 * aliases, or another view of it has bindings and it was not created for several
 * at once; -ENODEV the consumer's module is going away; -EINTR a fatal signal;
 * -ENOMEM.
 */
struct restrictedmem_binding *
restrictedmem_bind(struct file *file, pgoff_t start, pgoff_t end,
		   struct restrictedmem_notifier *notifier, u64 owner)
{
	struct restrictedmem_binding *b;

	b = rm_bind(file, start, end, notifier, owner);
	if (b == ERR_PTR(-EPERM) || b == ERR_PTR(-EEXIST))
		return ERR_PTR(-EBUSY);
	return b;
}
EXPORT_SYMBOL_GPL(restrictedmem_bind);

static void __restrictedmem_unbind(struct restrictedmem_binding *binding,
				   bool cancel)
{
	struct rm_inode *ri = rm_binding_inode(binding);
	struct rm_view *view = rm_binding_view(binding);
	struct module *owner = binding->notifier->ops->owner;

	down_write(&ri->binding_lock);
	interval_tree_remove(&binding->node, &ri->bindings);
	ri->nr_bindings--;
	view->nr_bindings--;
	if (cancel && !--view->claims)
		view->owner = 0;
	trace_restrictedmem_unbind(ri->vfs_inode.i_ino, binding->start,
				   binding->end);
	up_write(&ri->binding_lock);

	fput(binding->file);
	module_put(owner);
	kfree(binding);
}

/**
 * restrictedmem_unbind() - give a binding back
 * @binding: from restrictedmem_bind(); gone on return
 *
 * The consumer has removed its mappings before, and nobody is inside another
 * call with this binding. When it returns, no notifier call for it is under way
 * and none will come.
 *
 * Context: Process context, may sleep: waits for an invalidation that is under
 * way. No lock may be held that a notifier takes.
 */
void restrictedmem_unbind(struct restrictedmem_binding *binding)
{
	__restrictedmem_unbind(binding, false);
}
EXPORT_SYMBOL_GPL(restrictedmem_unbind);

/**
 * restrictedmem_cancel() - undo restrictedmem_bind()
 * @binding: from restrictedmem_bind(), never used; gone on return
 *
 * For a consumer that bound and then failed. Unlike after
 * restrictedmem_unbind(), a file that was nobody's is nobody's again, unless it
 * was bound a second time meanwhile.
 *
 * Context: As restrictedmem_unbind().
 */
void restrictedmem_cancel(struct restrictedmem_binding *binding)
{
	__restrictedmem_unbind(binding, true);
}
EXPORT_SYMBOL_GPL(restrictedmem_cancel);

/**
 * rm_invalidate_start() - tell everybody who is bound to a range
 * @ri: the inode
 * @start: first page, on a folio's boundary
 * @end: the page after the last, on a folio's boundary
 *
 * On return no consumer maps a page of the range, nor does a process through a
 * window. rm_invalidate_end() with the
 * same range must follow.
 *
 * Context: The invalidate_lock is held for writing. May sleep. Returns with the
 * binding_lock held for reading.
 */
void rm_invalidate_start(struct rm_inode *ri, pgoff_t start, pgoff_t end)
{
	struct restrictedmem_binding *b = NULL;

	lockdep_assert_held_write(&ri->invalidate_lock);

	rm_unmap_windows(ri, start, end);
	down_read(&ri->binding_lock);
	trace_restrictedmem_invalidate(ri->vfs_inode.i_ino, start, end);
	while ((b = rm_next_binding(ri, b, start, end)))
		b->notifier->ops->invalidate_start(b->notifier,
						   max(start, b->start),
						   min(end, b->end));
}

/**
 * rm_invalidate_end() - the change is done
 * @ri: the inode
 * @start: as for rm_invalidate_start()
 * @end: as for rm_invalidate_start()
 *
 * Context: As rm_invalidate_start() left it; drops the binding_lock.
 */
void rm_invalidate_end(struct rm_inode *ri, pgoff_t start, pgoff_t end)
{
	struct restrictedmem_binding *b = NULL;

	lockdep_assert_held_write(&ri->invalidate_lock);

	while ((b = rm_next_binding(ri, b, start, end)))
		if (b->notifier->ops->invalidate_end)
			b->notifier->ops->invalidate_end(b->notifier,
							 max(start, b->start),
							 min(end, b->end));
	up_read(&ri->binding_lock);
}

/**
 * rm_notify_error() - tell everybody that pages are lost
 * @ri: the inode
 * @start: first page that is lost
 * @end: the page after the last
 *
 * Context: Between rm_invalidate_start() and rm_invalidate_end() of a range that
 * covers the pages. May sleep.
 */
void rm_notify_error(struct rm_inode *ri, pgoff_t start, pgoff_t end)
{
	struct restrictedmem_binding *b = NULL;

	lockdep_assert_held_write(&ri->invalidate_lock);

	trace_restrictedmem_poison(ri->vfs_inode.i_ino, start, end);
	while ((b = rm_next_binding(ri, b, start, end)))
		if (b->notifier->ops->error)
			b->notifier->ops->error(b->notifier,
						max(start, b->start),
						min(end, b->end));
}

/* The order at which @index can be mapped through @b. */
static unsigned int rm_mapping_order(struct restrictedmem_binding *b,
				     struct folio *folio, pgoff_t index)
{
	struct rm_store *store = &rm_binding_inode(b)->store;
	unsigned int order = folio_order(folio);

	/* Set on a huge page that is about to be split for an error. */
	if (order && !folio_test_hugetlb(folio) &&
	    folio_test_has_hwpoisoned(folio))
		return 0;
	while (order) {
		pgoff_t first = round_down(index, 1UL << order);
		pgoff_t end = first + (1UL << order);

		if (first >= b->start && end <= b->end &&
		    !rm_store_has_lost(store, first, end))
			break;
		order--;
	}
	return order;
}

/**
 * restrictedmem_get_pfn() - take a page
 * @binding: from restrictedmem_bind()
 * @index: a page of the file within the binding
 * @pfn: where it goes
 *
 * A page that was not there is allocated, zeroed and charged to current's
 * memcg. The reference keeps the page from being freed, not from being
 * discarded: who maps it must follow the protocol at the head of
 * include/linux/restrictedmem.h.
 *
 * Context: Process context, may sleep: waits for an invalidation that is under
 * way. Not from a notifier of the same file.
 * Return: 0, and restrictedmem_put_pfn() is due; -EINVAL outside of the
 * binding; -EHWPOISON the page was lost to a memory error; -ENOSPC the module's
 * limit; -ENOMEM; -EINTR a fatal signal.
 */
int restrictedmem_get_pfn(struct restrictedmem_binding *binding, pgoff_t index,
			  struct restrictedmem_pfn *pfn)
{
	struct rm_inode *ri = rm_binding_inode(binding);
	struct folio *folio;
	struct page *page;
	int r;

	if (index < binding->start || index >= binding->end)
		return -EINVAL;

	r = rm_get_folio(ri, index, true, &folio);
	if (!r) {
		page = rm_folio_page(folio, index);
		pfn->page = page;
		pfn->pfn = page_to_pfn(page);
		pfn->order = rm_mapping_order(binding, folio, index);
	}
	trace_restrictedmem_get_pfn(ri->vfs_inode.i_ino, index,
				    r ? 0 : pfn->pfn, r ? 0 : pfn->order, r);
	return r;
}
EXPORT_SYMBOL_GPL(restrictedmem_get_pfn);

/**
 * restrictedmem_put_pfn() - drop the reference of restrictedmem_get_pfn()
 * @pfn: what it filled in
 *
 * Context: Process context.
 */
void restrictedmem_put_pfn(const struct restrictedmem_pfn *pfn)
{
	if (pfn->page)
		put_page(pfn->page);
}
EXPORT_SYMBOL_GPL(restrictedmem_put_pfn);

/**
 * restrictedmem_pfn_order() - how large a resident page is
 * @binding: from restrictedmem_bind()
 * @index: a page of the file
 *
 * Context: Any but NMI; neither sleeps nor allocates. The answer is a snapshot,
 * which the consumer's own check against invalidation makes good.
 * Return: the order as in &struct restrictedmem_pfn; 0 also for a page that is
 * outside of the binding or not resident.
 */
int restrictedmem_pfn_order(struct restrictedmem_binding *binding,
			    pgoff_t index)
{
	struct folio *folio;
	int order = 0;

	if (index < binding->start || index >= binding->end)
		return 0;
	rcu_read_lock();
	folio = rm_store_peek(&rm_binding_inode(binding)->store, index);
	if (folio)
		order = rm_mapping_order(binding, folio, index);
	rcu_read_unlock();
	return order;
}
EXPORT_SYMBOL_GPL(restrictedmem_pfn_order);

/**
 * restrictedmem_map_page() - take a page and its address
 * @binding: from restrictedmem_bind()
 * @index: a page of the file within the binding
 * @pfn: where the page goes
 *
 * For a consumer that must look into a page itself. What is written after the
 * page was discarded is lost.
 *
 * Context: As restrictedmem_get_pfn(). restrictedmem_unmap_page() is due, by
 * the same task, the last mapped page first.
 * Return: the kernel's address of the page, or an ERR_PTR with the errors of
 * restrictedmem_get_pfn().
 */
void *restrictedmem_map_page(struct restrictedmem_binding *binding,
			     pgoff_t index, struct restrictedmem_pfn *pfn)
{
	int r = restrictedmem_get_pfn(binding, index, pfn);

	return r ? ERR_PTR(r) : kmap_local_page(pfn->page);
}
EXPORT_SYMBOL_GPL(restrictedmem_map_page);

/**
 * restrictedmem_unmap_page() - undo restrictedmem_map_page()
 * @addr: what it returned
 * @pfn: what it filled in
 *
 * Context: The task that mapped it.
 */
void restrictedmem_unmap_page(void *addr, const struct restrictedmem_pfn *pfn)
{
	kunmap_local(addr);
	restrictedmem_put_pfn(pfn);
}
EXPORT_SYMBOL_GPL(restrictedmem_unmap_page);

static bool rm_range_is_bound(struct restrictedmem_binding *b, loff_t pos,
			      size_t len)
{
	loff_t start = (loff_t)b->start << PAGE_SHIFT;
	loff_t end = (loff_t)b->end << PAGE_SHIFT;

	return pos >= start && pos <= end && len <= end - pos;
}

static void rm_copy(void *page, void *buf, size_t len, bool write)
{
	if (write)
		memcpy(page, buf, len);
	else
		memcpy(buf, page, len);
}

static int rm_access(struct restrictedmem_binding *b, loff_t pos, void *buf,
		     size_t len, bool write)
{
	if (!rm_range_is_bound(b, pos, len))
		return -EINVAL;

	while (len) {
		size_t part = min_t(size_t, len, PAGE_SIZE - offset_in_page(pos));
		struct restrictedmem_pfn pfn;
		void *addr;

		addr = restrictedmem_map_page(b, pos >> PAGE_SHIFT, &pfn);
		if (IS_ERR(addr))
			return PTR_ERR(addr);
		rm_copy(addr + offset_in_page(pos), buf, part, write);
		restrictedmem_unmap_page(addr, &pfn);

		pos += part;
		buf += part;
		len -= part;
	}
	return 0;
}

/**
 * restrictedmem_read() - copy out of a file
 * @binding: from restrictedmem_bind()
 * @pos: byte of the file where to begin
 * @buf: the consumer's buffer
 * @len: bytes
 *
 * Context: As restrictedmem_get_pfn().
 * Return: 0; -EINVAL when [@pos, @pos + @len) is not inside the binding, with
 * nothing copied; else the errors of restrictedmem_get_pfn(), with the pages
 * before the one that failed copied.
 */
int restrictedmem_read(struct restrictedmem_binding *binding, loff_t pos,
		       void *buf, size_t len)
{
	return rm_access(binding, pos, buf, len, false);
}
EXPORT_SYMBOL_GPL(restrictedmem_read);

/**
 * restrictedmem_write() - copy into a file
 * @binding: from restrictedmem_bind()
 * @pos: byte of the file where to begin
 * @buf: the consumer's buffer
 * @len: bytes
 *
 * Context: As restrictedmem_get_pfn().
 * Return: As restrictedmem_read().
 */
int restrictedmem_write(struct restrictedmem_binding *binding, loff_t pos,
			const void *buf, size_t len)
{
	return rm_access(binding, pos, (void *)buf, len, true);
}
EXPORT_SYMBOL_GPL(restrictedmem_write);

static int rm_access_atomic(struct restrictedmem_binding *b, loff_t pos,
			    void *buf, size_t len, bool write)
{
	pgoff_t index = pos >> PAGE_SHIFT;
	struct rm_store *store = &rm_binding_inode(b)->store;
	struct folio *folio;
	int r = -EAGAIN;
	void *addr;

	if (!rm_range_is_bound(b, pos, len) ||
	    len > PAGE_SIZE - offset_in_page(pos))
		return -EINVAL;

	rcu_read_lock();
	folio = rm_store_peek(store, index);
	if (folio) {
		r = rm_store_check_page(store, folio, index);
		if (r == -EBUSY)
			r = -EAGAIN;
		if (!r) {
			addr = kmap_local_page(rm_folio_page(folio, index));
			rm_copy(addr + offset_in_page(pos), buf, len, write);
			kunmap_local(addr);
		}
	}
	rcu_read_unlock();
	return r;
}

/**
 * restrictedmem_read_atomic() - copy out of a resident page
 * @binding: from restrictedmem_bind()
 * @pos: byte of the file where to begin
 * @buf: the consumer's buffer
 * @len: bytes, all on one page
 *
 * Context: Any but NMI, with interrupts off and under spinlocks too. Neither
 * sleeps, nor allocates, nor frees.
 * Return: 0; -EAGAIN the page is not resident or is being discarded; -EINVAL
 * not inside the binding, or more than one page; -EHWPOISON.
 */
int restrictedmem_read_atomic(struct restrictedmem_binding *binding, loff_t pos,
			      void *buf, size_t len)
{
	return rm_access_atomic(binding, pos, buf, len, false);
}
EXPORT_SYMBOL_GPL(restrictedmem_read_atomic);

/**
 * restrictedmem_write_atomic() - copy into a resident page
 * @binding: from restrictedmem_bind()
 * @pos: byte of the file where to begin
 * @buf: the consumer's buffer
 * @len: bytes, all on one page
 *
 * Context: As restrictedmem_read_atomic().
 * Return: As restrictedmem_read_atomic().
 */
int restrictedmem_write_atomic(struct restrictedmem_binding *binding,
			       loff_t pos, const void *buf, size_t len)
{
	return rm_access_atomic(binding, pos, (void *)buf, len, true);
}
EXPORT_SYMBOL_GPL(restrictedmem_write_atomic);
