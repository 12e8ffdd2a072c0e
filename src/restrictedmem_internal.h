/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * Private structures and the prototypes between the module's rooms.
 *
 * Lock order, outermost first:
 *
 *   mmap_lock			faults in windows, which let go of it to wait
 *   inode->i_rwsem		setting the size, fallocate's callers
 *   rm_inode.invalidate_lock	written by what discards or converts pages or sets
 *				the size, read by what takes pages
 *   rm_inode.binding_lock	written by bind and unbind, read from
 *				invalidate_start to invalidate_end
 *   i_mmap_rwsem		taking pages from windows
 *   store: folio lock, xa_lock of rm_store.folios
 *   attributes: the map's own spinlock
 *
 * Callbacks run with invalidate_lock (write) and binding_lock (read) held and
 * no folio lock.
 */
#ifndef RESTRICTEDMEM_INTERNAL_H
#define RESTRICTEDMEM_INTERNAL_H

#include <linux/fs.h>
#include <linux/interval_tree.h>
#include <linux/list.h>
#include <linux/restrictedmem.h>
#include <linux/rwsem.h>

#include <restrictedmem.h>

#include "restrictedmem_store.h"

struct rm_attrs;

/**
 * struct rm_inode - the memory
 * @list: in the list of all inodes, for rm_inode_find()
 * @vfs_inode: its visible side; i_size is set once, under @invalidate_lock
 * @invalidate_lock: held for reading while pages are taken, for writing while
 *	they are discarded; guards @store
 * @store: where the pages are; usable once the size is set
 * @binding_lock: guards @bindings, @nr_bindings and every struct rm_view
 * @bindings: interval tree of struct restrictedmem_binding, keys inclusive
 * @nr_bindings: how many there are
 * @flags: RESTRICTEDMEM_CREATE_*; constant
 * @shared: which pages are shared; written under @invalidate_lock; NULL without
 *	RESTRICTEDMEM_CREATE_IN_PLACE, constant
 * @nr_shared: how many pages that are; written under @invalidate_lock
 * @nr_windows: windows that are not revoked; guarded by @invalidate_lock
 * @nr_views: files that show it; guarded by @invalidate_lock, and 0 for ever
 *	after it was 0 again, with which the memory ends
 */
struct rm_inode {
	struct list_head list;
	struct inode vfs_inode;
	struct rw_semaphore invalidate_lock;
	struct rm_store store;
	struct rw_semaphore binding_lock;
	struct rb_root_cached bindings;
	unsigned int nr_bindings;
	u32 flags;
	struct rm_attrs *shared;
	unsigned long nr_shared;
	unsigned int nr_windows;
	unsigned int nr_views;
};

/**
 * struct rm_view - one file on an inode; file->private_data
 * @id: a number that no other view ever has; constant
 * @owner: whose consumers may bind through it, 0: nobody's yet
 * @claims: how often @owner was given it, by birth or by a bind that was not
 *	cancelled; it goes from 0 once
 * @nr_bindings: bindings made through it
 * @windows: list of struct rm_window made through it and not revoked
 *
 * Guarded by the inode's binding_lock, but for @windows: its invalidate_lock.
 */
struct rm_view {
	u64 id;
	u64 owner;
	u64 claims;
	unsigned int nr_bindings;
	struct list_head windows;
};

static inline struct rm_inode *rm_inode(struct inode *inode)
{
	return container_of(inode, struct rm_inode, vfs_inode);
}

/*
 * How many pages there can be: none before the size is set, and none after the last
 * view has gone, whatever i_size says. Who comes by a view or a binding, which keep
 * the memory, may go by i_size; who only has the inode must ask here, and has what he
 * was told for as long as he holds the lock.
 */
static inline pgoff_t rm_inode_pages(struct rm_inode *ri)
{
	lockdep_assert_held(&ri->invalidate_lock);
	return ri->nr_views ? ri->store.nr_pages : 0;
}

/* restrictedmem_main.c */
u64 rm_limit_pages(void);
void rm_default_config(struct rm_store_config *config);

/* restrictedmem_file.c */
int rm_file_init(void);
void rm_file_exit(void);
int rm_file_create_fd(const struct rm_store_config *config, loff_t size,
		      u32 flags, u64 owner);
struct file *rm_file_create_anon(const char *name, loff_t size, int flags,
				 const struct file_operations *fops,
				 const struct inode_operations *iops);
bool rm_file_has_aliases(struct file *file);
bool rm_file_is_in_place(struct file *file);
struct rm_inode *rm_inode_find(bool (*match)(struct rm_inode *ri, void *data),
			       void *data);
void rm_inode_put(struct rm_inode *ri);
void rm_inode_for_each(void (*fn)(struct rm_inode *ri, void *data), void *data);
int rm_get_folio(struct rm_inode *ri, pgoff_t index, bool must,
		 struct folio **folio);
bool rm_get_again(struct rm_inode *ri, pgoff_t index, unsigned int *tries,
		  int *r);

/* restrictedmem_notifier.c */
struct restrictedmem_binding *rm_bind(struct file *file, pgoff_t start,
				      pgoff_t end,
				      struct restrictedmem_notifier *notifier,
				      u64 owner);
struct rm_inode *rm_binding_inode(struct restrictedmem_binding *b);
void rm_invalidate_start(struct rm_inode *ri, pgoff_t start, pgoff_t end);
void rm_invalidate_end(struct rm_inode *ri, pgoff_t start, pgoff_t end);
void rm_notify_error(struct rm_inode *ri, pgoff_t start, pgoff_t end);

/* restrictedmem_window.c */
void rm_unmap_windows(struct rm_inode *ri, pgoff_t start, pgoff_t end);
int rm_convert(struct rm_inode *ri, pgoff_t start, pgoff_t end, bool private,
	       bool zero, pgoff_t *done);
void rm_revoke_windows(struct rm_inode *ri, struct rm_view *view);
long rm_ioctl_convert(struct file *file, void *arg, void __user *uarg,
		      u32 usize);
long rm_ioctl_window(struct file *file, void *arg, void __user *uarg, u32 usize);
long rm_ioctl_revoke(struct file *file, void *arg, void __user *uarg, u32 usize);

/* restrictedmem_poison.c */
int rm_poison_init(void);
void rm_poison_exit(void);

/* restrictedmem_stats.c */
void rm_stats_init(void);
void rm_stats_exit(void);
void rm_show_fdinfo(struct seq_file *m, struct file *file);

/* kvm_hooks.c */
bool rm_kvm_is_loaded(void);

#endif /* RESTRICTEDMEM_INTERNAL_H */
