// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * Shared memory: conversion of ranges, in place, and windows, through which a
 * process can map what is shared.
 *
 * Which pages are shared is in a range map of the inode. It changes with the
 * invalidate_lock held for writing, and a page gets into a process with the lock
 * held for reading: what the map says while one has the lock is what windows
 * show. The mappings of all windows hang on the inode's own i_mapping, by page of
 * the memory, so that a range is taken from all of them in one step, wherever
 * pages go: here, and in rm_invalidate_start().
 *
 * Private means that no process maps a page, and that nobody holds it who found
 * it through a mapping. Folios are first taken from all processes, as wholes, so
 * that what is left are the references of the page cache and of the table of
 * resident folios, and whatever there is beyond these is somebody's. Pages of the
 * system's pool are mapped by number, as a device's would be. Processes cannot
 * hold them then, but a virtual machine can that has a window as its memory.
 *
 * A window holds the inode, so that its mappings have something to hang on, but
 * not the memory: that goes with the last view.
 *
 * Indices are pages of the memory, ranges [start, end).
 */
#include <linux/cpu.h>
#include <linux/delay.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/list.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/pagemap.h>
#include <linux/sched/signal.h>
#include <linux/seq_file.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/workqueue.h>

#include "compat/fs.h"
#include "compat/mm.h"
#include "restrictedmem_attrs.h"
#include "restrictedmem_internal.h"
#include "restrictedmem_ioctl.h"
#include "restrictedmem_trace.h"

/* The value of a shared page in the inode's map; private ones have none. */
#define RM_SHARED		1UL

/* Pages that are converted with the lock taken once. */
#define RM_CONVERT_CHUNK	(SZ_64M >> PAGE_SHIFT)

/* Pages that a fault maps at most, up to a multiple of that many. */
#define RM_FAULT_AROUND		16

/*
 * How often a folio is looked at again that somebody holds, perhaps in passing, or
 * one with an error until it is known where: that takes the kernel longer.
 */
#define RM_HELD_TRIES		20
#define RM_UNSURE_TRIES		100

/**
 * struct rm_window - what file->private_data of a window is
 * @list: in its view's list, while it is not revoked; guarded by the inode's
 *	invalidate_lock
 * @ri: the memory, with a reference
 * @view_id: of the view that it was made through
 * @start: first page
 * @end: the page after the last
 * @revoked: nothing can be accessed any more; set under the invalidate_lock
 *
 * Constant, but for @list and @revoked.
 */
struct rm_window {
	struct list_head list;
	struct rm_inode *ri;
	u64 view_id;
	pgoff_t start;
	pgoff_t end;
	bool revoked;
};

static long rm_drain_cpu(void *unused)
{
	rm_drain_this_cpu();
	return 0;
}

/*
 * What a processor keeps back before it puts pages on their lists, it holds. KVM's
 * locks are held here, which are not to depend on that of hotplug. A processor that
 * goes away meanwhile empties its list by itself.
 */
static void rm_drain_lru(void)
{
	int cpu;

	for_each_online_cpu(cpu)
		work_on_cpu(cpu, rm_drain_cpu, NULL);
}

/**
 * rm_unmap_windows() - take a range from every process
 * @ri: the inode
 * @start: first page
 * @end: the page after the last
 *
 * Context: Process context, may sleep. With the invalidate_lock held for writing
 * nobody gets it back before the lock is dropped.
 */
void rm_unmap_windows(struct rm_inode *ri, pgoff_t start, pgoff_t end)
{
	if (ri->shared)
		unmap_mapping_range(ri->vfs_inode.i_mapping,
				    (loff_t)start << PAGE_SHIFT,
				    (loff_t)(end - start) << PAGE_SHIFT, true);
}

/* Is any page of a range what it is not asked to be? */
static bool rm_has_other(struct rm_inode *ri, pgoff_t start, pgoff_t end,
			 unsigned long value)
{
	return !rm_attrs_is_uniform(ri->shared, start, end, ~0UL, value);
}

/*
 * Where in [start, end) something is in the way of converting what is not @value
 * yet, and @error what it is: a folio that somebody holds, contents that are lost
 * and were to be kept, or a huge page of a pool with an error that is not located
 * yet (-EBUSY). @end if nothing is.
 */
static pgoff_t rm_first_obstacle(struct rm_inode *ri, pgoff_t start,
				 pgoff_t end, unsigned long value, bool zero,
				 int *error)
{
	struct rm_attrs_run run = { .end = start };
	struct rm_store *store = &ri->store;
	pgoff_t at, last;

	while (rm_attrs_next(ri->shared, &run, end)) {
		if (run.value == value)
			continue;
		last = run.end;
		at = rm_store_first_unsure(store, run.start, last);
		if (at < last) {
			*error = -EBUSY;
			last = at;
		}
		at = zero ? last : rm_store_first_lost(store, run.start, last);
		if (at < last) {
			*error = -EHWPOISON;
			last = at;
		}
		if (value != RM_SHARED)
			last = rm_store_first_held(store, run.start, last, error);
		if (last < run.end)
			return last;
	}
	return end;
}

/* Convert one run of pages that are alike. */
static int rm_convert_run(struct rm_inode *ri, const struct rm_attrs_run *run,
			  unsigned long value, bool zero)
{
	unsigned long nr = run->end - run->start;
	int r;

	/* It can fail, so it comes before the contents. */
	r = rm_attrs_set(ri->shared, run->start, run->end, value);
	if (r)
		return r;
	if (zero)
		rm_store_zero(&ri->store, run->start, run->end);
	WRITE_ONCE(ri->nr_shared, value == RM_SHARED ? ri->nr_shared + nr :
						       ri->nr_shared - nr);
	return 0;
}

/* Convert up to the first obstacle. */
static int rm_convert_locked(struct rm_inode *ri, pgoff_t start, pgoff_t end,
			     unsigned long value, bool zero, pgoff_t *done)
{
	struct rm_attrs_run run = { .end = start };
	pgoff_t first = start, last = end;
	int error = 0, r;

	lockdep_assert_held_write(&ri->invalidate_lock);

	*done = end;
	if (!rm_has_other(ri, start, end, value))
		return 0;
	if (value != RM_SHARED) {
		/*
		 * Mappings have references, too. As long as processes can drop
		 * some, even for other pages of a folio, nobody can tell these
		 * from others.
		 */
		rm_store_whole_folios(&ri->store, &first, &last);
		rm_unmap_windows(ri, first, last);
	}
	end = rm_first_obstacle(ri, start, end, value, zero, &error);
	*done = end;
	while (start < end && rm_attrs_next(ri->shared, &run, end)) {
		if (run.value == value)
			continue;
		r = rm_convert_run(ri, &run, value, zero);
		if (r) {
			*done = run.start;
			return r;
		}
	}
	return error;
}

static int rm_convert_tries(int error)
{
	switch (error) {
	case -EAGAIN:
		return RM_HELD_TRIES;
	case -EBUSY:
		return RM_UNSURE_TRIES;
	default:
		return 0;
	}
}

static int rm_convert_chunk(struct rm_inode *ri, pgoff_t start, pgoff_t end,
			    unsigned long value, bool zero, pgoff_t *done)
{
	int tries = 0;
	int r;

	*done = start;
	for (;;) {
		r = down_write_killable(&ri->invalidate_lock);
		if (r)
			return r;
		r = rm_convert_locked(ri, *done, end, value, zero, done);
		up_write(&ri->invalidate_lock);

		if (tries >= rm_convert_tries(r))
			return r == -EBUSY ? -EHWPOISON : r;
		/* New pages wait for their turn to go to a list of the kernel's. */
		if (!tries++)
			rm_drain_lru();
		else
			usleep_range(200, 1000);
		if (fatal_signal_pending(current))
			return -EINTR;
	}
}

/**
 * rm_convert() - make a range shared or private
 * @ri: an inode with RESTRICTEDMEM_CREATE_IN_PLACE
 * @start: first page
 * @end: the page after the last
 * @private: what it is to be
 * @zero: whether what changes is zeroed
 * @done: the page after the last that is as it was asked for; from there on
 *	nothing has changed
 *
 * Context: Process context, may sleep; waits a few milliseconds for who holds a
 * page. No lock may be held that a notifier takes.
 * Return: 0; -EINVAL beyond the end; -EAGAIN somebody holds the page at @done;
 * -EHWPOISON its contents are lost and were to be kept, or it is in a huge page of
 * a pool with an error; -ENOMEM, also when the map has too many ranges; -EINTR a
 * fatal signal.
 */
int rm_convert(struct rm_inode *ri, pgoff_t start, pgoff_t end, bool private,
	       bool zero, pgoff_t *done)
{
	unsigned long value = private ? 0 : RM_SHARED;
	int r = 0;

	might_sleep();
	*done = start;
	if (end > i_size_read(&ri->vfs_inode) >> PAGE_SHIFT)
		return -EINVAL;
	while (!r && *done < end) {
		r = rm_convert_chunk(ri, *done,
				     min(end, *done + RM_CONVERT_CHUNK), value,
				     zero, done);
		if (!r && fatal_signal_pending(current) && *done < end)
			r = -EINTR;
		cond_resched();
	}
	trace_restrictedmem_convert(ri->vfs_inode.i_ino, start, end, *done,
				    private, r);
	return r;
}

/* From bytes to pages. */
static int rm_parse_range(struct rm_inode *ri, u64 offset, u64 length,
			  pgoff_t *start, pgoff_t *end)
{
	u64 size = i_size_read(&ri->vfs_inode);

	if (!length || !PAGE_ALIGNED(offset) || !PAGE_ALIGNED(length))
		return -EINVAL;
	if (offset > size || length > size - offset)
		return -EINVAL;
	if (!ri->shared)
		return -EOPNOTSUPP;
	*start = offset >> PAGE_SHIFT;
	*end = (offset + length) >> PAGE_SHIFT;
	return 0;
}

/**
 * rm_ioctl_convert() - RESTRICTEDMEM_CONVERT
 * @file: a view
 * @arg: struct restrictedmem_convert
 * @uarg: where it came from
 * @usize: how much of it the caller has
 *
 * Context: Process context, may sleep.
 * Return: as include/uapi/restrictedmem.h says.
 */
long rm_ioctl_convert(struct file *file, void *arg, void __user *uarg, u32 usize)
{
	struct rm_inode *ri = rm_inode(file_inode(file));
	struct restrictedmem_convert *args = arg;
	struct restrictedmem_convert __user *uargs = uarg;
	pgoff_t start, end, done;
	int r;

	if (args->attributes & ~RESTRICTEDMEM_ATTRIBUTE_PRIVATE ||
	    args->flags & ~(RESTRICTEDMEM_CONVERT_ZERO |
			    RESTRICTEDMEM_CONVERT_PRESERVE) ||
	    args->flags == (RESTRICTEDMEM_CONVERT_ZERO |
			    RESTRICTEDMEM_CONVERT_PRESERVE))
		return -EINVAL;
	r = rm_parse_range(ri, args->offset, args->length, &start, &end);
	if (r)
		return r;
	/* What cannot be told must not be done. */
	if (put_user(args->offset, &uargs->error_offset))
		return -EFAULT;
	r = rm_convert(ri, start, end, args->attributes,
		       !(args->flags & RESTRICTEDMEM_CONVERT_PRESERVE), &done);
	if (put_user((u64)done << PAGE_SHIFT, &uargs->error_offset))
		return -EFAULT;
	return r;
}

static bool rm_window_allows(struct rm_window *window, pgoff_t index)
{
	return !READ_ONCE(window->revoked) &&
	       index >= window->start && index < window->end &&
	       rm_attrs_get(window->ri->shared, index) == RM_SHARED;
}

/*
 * Map what comes after a page that was faulted in and is as much to be had, rather
 * than to wait for a fault for each. With the lock of the page's folio, which the
 * kernel wants for parts of huge pages; others have one each.
 */
static void rm_window_map_next(struct rm_inode *ri, struct vm_fault *vmf,
			       struct folio *locked)
{
	struct rm_attrs_run run = { .end = vmf->pgoff + 1 };
	struct vm_area_struct *vma = vmf->vma;
	struct page *pages[RM_FAULT_AROUND];
	struct folio *folio;
	unsigned long nr = 0;
	pgoff_t index, end;

	/* Which does not go beyond the window's end: see rm_window_mmap(). */
	end = min(round_up(run.end, RM_FAULT_AROUND),
		  vma->vm_pgoff + vma_pages(vma));
	if (!rm_attrs_next(ri->shared, &run, end) || run.value != RM_SHARED)
		return;
	for (index = run.start; index < run.end; index++) {
		folio = rm_store_find(&ri->store, index);
		if (!folio || (folio != locked && folio_test_large(folio)))
			break;
		pages[nr++] = rm_folio_page(folio, index);
	}
	/* It stops at what is mapped already. */
	if (nr)
		vm_insert_pages(vma, vmf->address + PAGE_SIZE, pages, &nr);
}

static vm_fault_t rm_window_insert(struct rm_inode *ri, struct vm_fault *vmf,
				   struct folio *folio)
{
	struct page *page = rm_folio_page(folio, vmf->pgoff);
	vm_fault_t ret;

	if (vmf->vma->vm_flags & VM_PFNMAP)
		return vmf_insert_pfn(vmf->vma, vmf->address, page_to_pfn(page));
	folio_lock(folio);
	ret = vmf_insert_page(vmf->vma, vmf->address, page);
	if (ret == VM_FAULT_NOPAGE)
		rm_window_map_next(ri, vmf, folio);
	folio_unlock(folio);
	return ret;
}

/*
 * Take the lock, for reading. Return: 0, or what the fault is to return. A discard or a
 * conversion can take long; who waits for it lets go of mmap_lock, so that the rest of
 * the process does not wait, nor who looks at it, and the fault begins again.
 *
 * Only a fatal signal ends the wait. For an access by the kernel, NOPAGE would mean to
 * try again at once, for ever; with SIGBUS the access fails, and nobody lives to see it.
 */
static vm_fault_t rm_window_lock(struct rm_inode *ri, struct vm_fault *vmf)
{
	struct file *file;

	if (down_read_trylock(&ri->invalidate_lock))
		return 0;
	/* The second time it takes its turn, or others could always be first. */
	if (!fault_flag_allow_retry_first(vmf->flags))
		return down_read_killable(&ri->invalidate_lock) ?
			       VM_FAULT_SIGBUS : 0;
	if (vmf->flags & FAULT_FLAG_RETRY_NOWAIT)
		return VM_FAULT_RETRY;
	/* The mapping can go, and with it the window, which holds the inode. */
	file = get_file(vmf->vma->vm_file);
	mmap_read_unlock(vmf->vma->vm_mm);
	if (!down_read_killable(&ri->invalidate_lock))
		up_read(&ri->invalidate_lock);
	fput(file);
	return VM_FAULT_RETRY;
}

/*
 * Take a page and enter it, and its neighbours. Whether it may be had, what it is and
 * that it is entered is all under one hold of the lock: who takes pages away from all
 * processes would not see one that is entered later, and a reference that outlasts
 * the lock would look like a pin. A window that is not revoked has a view, and so
 * there is memory.
 */
static int rm_window_map(struct rm_window *window, struct vm_fault *vmf,
			 vm_fault_t *ret)
{
	struct rm_inode *ri = window->ri;
	struct folio *folio;
	int r;

	lockdep_assert_held_read(&ri->invalidate_lock);

	if (!rm_window_allows(window, vmf->pgoff))
		return -EINVAL;
	r = rm_store_get(&ri->store, vmf->pgoff, true, &folio);
	if (r)
		return r;
	*ret = rm_window_insert(ri, vmf, folio);
	folio_put(folio);
	return 0;
}

static vm_fault_t rm_window_error(int error)
{
	switch (error) {
	case -EHWPOISON:
		return VM_FAULT_HWPOISON;
	case -ENOMEM:
		return VM_FAULT_OOM;
	default:
		/* -EINTR, too: see rm_window_lock(). */
		return VM_FAULT_SIGBUS;
	}
}

static vm_fault_t rm_window_fault(struct vm_fault *vmf)
{
	struct rm_window *window = vmf->vma->vm_file->private_data;
	struct rm_inode *ri = window->ri;
	unsigned int tries = 0;
	vm_fault_t ret;
	int r;

	do {
		ret = rm_window_lock(ri, vmf);
		if (ret)
			return ret;
		r = rm_window_map(window, vmf, &ret);
		up_read(&ri->invalidate_lock);
	} while (rm_get_again(ri, vmf->pgoff, &tries, &r));
	return r ? rm_window_error(r) : ret;
}

static const struct vm_operations_struct rm_window_vm_ops = {
	.fault = rm_window_fault,
};

static int rm_window_mmap(struct file *file, struct vm_area_struct *vma)
{
	struct rm_window *window = file->private_data;
	pgoff_t size = window->end - window->start;
	bool by_page = window->ri->store.config.ops->maps_pages;

	if (READ_ONCE(window->revoked))
		return -ENODEV;
	/* A private mapping is a copy; VM_SHARED is not set for who only reads. */
	if (!(vma->vm_flags & VM_MAYSHARE))
		return -EINVAL;
	if (vma->vm_pgoff > size || vma_pages(vma) > size - vma->vm_pgoff)
		return -EINVAL;
	/* From here on in pages of the memory: see rm_unmap_windows(). */
	vma->vm_pgoff += window->start;
	rm_vm_flags_set(vma, VM_DONTEXPAND | VM_DONTDUMP |
			     (by_page ? VM_MIXEDMAP : VM_PFNMAP));
	vma->vm_ops = &rm_window_vm_ops;
	return 0;
}

/* Nothing can be mapped through it any more. False if it was so before. */
static bool rm_window_end(struct rm_window *window)
{
	struct rm_inode *ri = window->ri;

	lockdep_assert_held_write(&ri->invalidate_lock);

	if (window->revoked)
		return false;
	WRITE_ONCE(window->revoked, true);
	list_del_init(&window->list);
	WRITE_ONCE(ri->nr_windows, ri->nr_windows - 1);
	return true;
}

/* By who may, and what is mapped has to go. */
static bool rm_window_revoke(struct rm_window *window)
{
	if (!rm_window_end(window))
		return false;
	trace_restrictedmem_revoke(window->ri->vfs_inode.i_ino, window->start,
				   window->end);
	return true;
}

static int rm_window_release(struct inode *inode, struct file *file)
{
	struct rm_window *window = file->private_data;
	struct rm_inode *ri = window->ri;

	down_write(&ri->invalidate_lock);
	rm_window_end(window);
	up_write(&ri->invalidate_lock);
	kfree(window);
	iput(&ri->vfs_inode);
	return 0;
}

static void rm_window_show_fdinfo(struct seq_file *m, struct file *file)
{
	struct rm_window *window = file->private_data;
	u64 start = window->start, end = window->end;

	seq_printf(m, "window:\t%lu\n", window->ri->vfs_inode.i_ino);
	seq_printf(m, "offset:\t%llu\n", start << PAGE_SHIFT);
	seq_printf(m, "length:\t%llu\n", (end - start) << PAGE_SHIFT);
	seq_printf(m, "write:\t%d\n", !!(file->f_mode & FMODE_WRITE));
	seq_printf(m, "revoked:\t%d\n", READ_ONCE(window->revoked));
}

static const struct file_operations rm_window_ops = {
	.owner = THIS_MODULE,
	.release = rm_window_release,
	.mmap = rm_window_mmap,
	.show_fdinfo = rm_window_show_fdinfo,
};

static int rm_window_setattr(struct rm_idmap *idmap, struct dentry *dentry,
			     struct iattr *attr)
{
	return -EPERM;
}

static const struct inode_operations rm_window_inode_ops = {
	.setattr = rm_window_setattr,
};

/**
 * rm_ioctl_window() - RESTRICTEDMEM_WINDOW
 * @file: a view
 * @arg: struct restrictedmem_window
 * @uarg: where it came from
 * @usize: how much of it the caller has
 *
 * Context: Process context, may sleep.
 * Return: as include/uapi/restrictedmem.h says.
 */
long rm_ioctl_window(struct file *file, void *arg, void __user *uarg, u32 usize)
{
	struct rm_inode *ri = rm_inode(file_inode(file));
	const struct restrictedmem_window *args = arg;
	bool write = args->flags & RESTRICTEDMEM_WINDOW_WRITE;
	struct rm_view *view = file->private_data;
	struct rm_window *window;
	struct file *wfile;
	int fd, r;

	if (args->flags & ~RESTRICTEDMEM_WINDOW_WRITE)
		return -EINVAL;
	window = kzalloc(sizeof(*window), GFP_KERNEL_ACCOUNT);
	if (!window)
		return -ENOMEM;
	r = rm_parse_range(ri, args->offset, args->length, &window->start,
			   &window->end);
	if (r)
		goto err_free;
	fd = get_unused_fd_flags(O_CLOEXEC);
	if (fd < 0) {
		r = fd;
		goto err_free;
	}
	wfile = rm_file_create_anon("restrictedmem-window", args->length,
				    write ? O_RDWR : O_RDONLY, &rm_window_ops,
				    &rm_window_inode_ops);
	if (IS_ERR(wfile)) {
		r = PTR_ERR(wfile);
		goto err_put_fd;
	}
	/* From here on the file's end is the window's. */
	window->ri = ri;
	window->view_id = view->id;
	ihold(&ri->vfs_inode);
	wfile->f_mapping = ri->vfs_inode.i_mapping;
	wfile->private_data = window;
	down_write(&ri->invalidate_lock);
	list_add(&window->list, &view->windows);
	WRITE_ONCE(ri->nr_windows, ri->nr_windows + 1);
	up_write(&ri->invalidate_lock);

	trace_restrictedmem_window(ri->vfs_inode.i_ino, window->start,
				   window->end, write);
	fd_install(fd, wfile);
	return fd;

err_put_fd:
	put_unused_fd(fd);
err_free:
	kfree(window);
	return r;
}

/**
 * rm_revoke_windows() - end all windows that were made through a view
 * @ri: the view's inode
 * @view: the view
 *
 * Context: Process context, may sleep.
 */
void rm_revoke_windows(struct rm_inode *ri, struct rm_view *view)
{
	struct rm_window *window, *next;
	pgoff_t start = ULONG_MAX, end = 0;

	down_write(&ri->invalidate_lock);
	list_for_each_entry_safe(window, next, &view->windows, list) {
		start = min(start, window->start);
		end = max(end, window->end);
		rm_window_revoke(window);
	}
	/* From other views' windows, too, which will find their pages again. */
	if (start < end)
		rm_unmap_windows(ri, start, end);
	up_write(&ri->invalidate_lock);
}

static int rm_revoke_one(struct rm_inode *ri, struct rm_view *view, int fd)
{
	struct file *file = fget(fd);
	struct rm_window *window;
	int r = -EINVAL;

	if (!file)
		return -EBADF;
	window = file->f_op == &rm_window_ops ? file->private_data : NULL;
	if (window && window->ri == ri && window->view_id == view->id) {
		down_write(&ri->invalidate_lock);
		/* From other windows, too, as above. */
		if (rm_window_revoke(window))
			rm_unmap_windows(ri, window->start, window->end);
		up_write(&ri->invalidate_lock);
		r = 0;
	}
	fput(file);
	return r;
}

/**
 * rm_ioctl_revoke() - RESTRICTEDMEM_REVOKE
 * @file: a view
 * @arg: struct restrictedmem_revoke
 * @uarg: where it came from
 * @usize: how much of it the caller has
 *
 * Context: Process context, may sleep.
 * Return: as include/uapi/restrictedmem.h says.
 */
long rm_ioctl_revoke(struct file *file, void *arg, void __user *uarg, u32 usize)
{
	struct rm_inode *ri = rm_inode(file_inode(file));
	const struct restrictedmem_revoke *args = arg;
	struct rm_view *view = file->private_data;

	if (args->flags || args->reserved || args->fd < -1)
		return -EINVAL;
	if (args->fd != -1)
		return rm_revoke_one(ri, view, args->fd);
	rm_revoke_windows(ri, view);
	return 0;
}
