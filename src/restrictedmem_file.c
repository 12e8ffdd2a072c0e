// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * Inodes and files: what userspace can see and do, which is little.
 *
 * The inode lives on a pseudo filesystem of our own and is the memory; a file
 * is a view of it that belongs to one owner. There is no read, write, mmap,
 * splice or llseek operation: what is missing cannot leak, and the VFS answers
 * with the errno that include/uapi/restrictedmem.h promises. Opening the file
 * again through /proc fails, because the inode has no open operation.
 *
 * The filesystem is mounted while there are inodes (simple_pin_fs), and the
 * mount holds the module, so that no code of ours is unloaded under an inode
 * that is still being evicted when its last file has let go of the module.
 *
 * Offsets and lengths are bytes, indices pages, ranges [start, end).
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/blk_types.h>
#include <linux/delay.h>
#include <linux/falloc.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/mount.h>
#include <linux/pagemap.h>
#include <linux/pseudo_fs.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/statfs.h>

#include "compat/fs.h"
#include "restrictedmem_attrs.h"
#include "restrictedmem_internal.h"
#include "restrictedmem_ioctl.h"
#include "restrictedmem_trace.h"

/*
 * How often a folio that is too large is cut and asked for again, or one with an
 * error until it is known where: that takes the kernel some milliseconds.
 */
#define RM_GET_TRIES	50

static struct kmem_cache *rm_inode_cache;
static struct vfsmount *rm_mnt;
static int rm_mnt_count;

/* All inodes, for who comes from a page */
static LIST_HEAD(rm_inodes);
static DEFINE_SPINLOCK(rm_inodes_lock);

/* Set the size of an inode that has none. */
static int rm_inode_set_size(struct inode *inode, loff_t size)
{
	struct rm_inode *ri = rm_inode(inode);
	int r;

	if (size <= 0 || !IS_ALIGNED(size, ri->store.config.page_size))
		return -EINVAL;

	down_write(&ri->invalidate_lock);
	r = -EINVAL;
	if (!i_size_read(inode)) {
		r = rm_store_set_size(&ri->store, size);
		if (!r)
			i_size_write(inode, size);
	}
	up_write(&ri->invalidate_lock);
	return r;
}

/* Free what rm_store_get() left behind. */
static void rm_trim(struct rm_inode *ri, pgoff_t index)
{
	down_write(&ri->invalidate_lock);
	if (index < rm_inode_pages(ri))
		rm_store_trim(&ri->store, index);
	up_write(&ri->invalidate_lock);
}

/**
 * rm_get_again() - what there is to do after rm_store_get()
 * @ri: the inode
 * @index: a page
 * @tries: how often it was called; 0 at first
 * @r: what rm_store_get() returned; becomes what to tell others
 *
 * Context: Process context, may sleep; the invalidate_lock was dropped.
 * Return: true if rm_store_get() is to be called again.
 */
bool rm_get_again(struct rm_inode *ri, pgoff_t index, unsigned int *tries,
		  int *r)
{
	if (*r == -ENOSPC || *r == -ENOMEM || *r == -EFBIG)
		rm_trim(ri, index);
	if (*r != -EFBIG && *r != -EBUSY)
		return false;
	if (++*tries == RM_GET_TRIES) {
		/* Whoever holds the folio that has to be split does so for long. */
		*r = *r == -EFBIG ? -ENOMEM : -EHWPOISON;
		return false;
	}
	if (fatal_signal_pending(current)) {
		*r = -EINTR;
		return false;
	}
	usleep_range(500, 2000);
	return true;
}

/**
 * rm_get_folio() - the folio at an index, allocated if need be
 * @ri: the inode
 * @index: a page
 * @must: rather call the OOM killer than fail
 * @folio: where it goes, with a reference for the caller
 *
 * Context: Process context, may sleep; waits for discards. A new folio is
 * charged to current's memcg.
 * Return: 0; -EINVAL beyond the end; -ENOSPC, -ENOMEM, -EHWPOISON; -EINTR a
 * fatal signal.
 */
int rm_get_folio(struct rm_inode *ri, pgoff_t index, bool must,
		 struct folio **folio)
{
	unsigned int tries = 0;
	int r;

	might_sleep();
	do {
		r = down_read_killable(&ri->invalidate_lock);
		if (r)
			return r;
		r = -EINVAL;
		if (index < rm_inode_pages(ri))
			r = rm_store_get(&ri->store, index, must, folio);
		up_read(&ri->invalidate_lock);
	} while (rm_get_again(ri, index, &tries, &r));
	return r;
}

/*
 * Fill [start, end) with pages. Who asks for memory in advance wants to be told
 * that there is none, not that somebody was killed for it.
 */
static int rm_populate(struct rm_inode *ri, pgoff_t start, pgoff_t end)
{
	pgoff_t index = start;
	struct folio *folio;
	int r = 0;

	if (end > i_size_read(&ri->vfs_inode) >> PAGE_SHIFT)
		return -EINVAL;

	while (index < end) {
		if (signal_pending(current)) {
			r = -EINTR;
			break;
		}
		r = rm_get_folio(ri, index, false, &folio);
		if (r)
			break;
		/* One that was lost may be in the middle of a folio. */
		index = READ_ONCE(ri->store.nr_lost) ?
				index + 1 : rm_folio_end(folio, index);
		folio_put(folio);
		cond_resched();
	}
	trace_restrictedmem_populate(ri->vfs_inode.i_ino, start, end,
				     min(index, end), r);
	return r;
}

/* Discard [start, end) with the lock held. */
static void rm_discard(struct rm_inode *ri, pgoff_t start, pgoff_t end)
{
	pgoff_t first = start, last = end;

	/* Huge pages split: consumers have to let go of all of them. */
	rm_store_whole_folios(&ri->store, &first, &last);
	rm_invalidate_start(ri, first, last);
	rm_store_discard(&ri->store, start, end);
	rm_invalidate_end(ri, first, last);
}

/*
 * Discard [start, end); what lies beyond the end of the file is no error. One piece
 * at a time: faults, and whoever wants to end the caller, wait for no more than that.
 */
static int rm_punch_hole(struct rm_inode *ri, pgoff_t start, pgoff_t end)
{
	pgoff_t next;
	int r;

	while (start < end) {
		r = down_write_killable(&ri->invalidate_lock);
		if (r)
			return r;
		end = min(end, rm_inode_pages(ri));
		if (start < end) {
			next = rm_store_piece(&ri->store, start, end);
			rm_discard(ri, start, next);
			start = next;
		}
		up_write(&ri->invalidate_lock);
		if (start < end && fatal_signal_pending(current))
			return -EINTR;
		cond_resched();
	}
	return 0;
}

static long rm_fallocate(struct file *file, int mode, loff_t offset, loff_t len)
{
	struct rm_inode *ri = rm_inode(file_inode(file));
	unsigned long page_size = ri->store.config.page_size;
	pgoff_t start = offset >> PAGE_SHIFT;
	pgoff_t end = (offset + len) >> PAGE_SHIFT;

	if (mode != FALLOC_FL_KEEP_SIZE &&
	    mode != (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE))
		return -EOPNOTSUPP;
	if (!IS_ALIGNED(offset, page_size) || !IS_ALIGNED(len, page_size))
		return -EINVAL;

	if (mode & FALLOC_FL_PUNCH_HOLE)
		return rm_punch_hole(ri, start, end);
	return rm_populate(ri, start, end);
}

static void rm_inode_unlist(struct rm_inode *ri)
{
	spin_lock(&rm_inodes_lock);
	list_del_init(&ri->list);
	spin_unlock(&rm_inodes_lock);
}

/*
 * Windows that are still open keep the inode, but not the memory: the last view
 * takes it along, and what had to do with it. Once there is no view nobody else
 * looks for a page: see rm_inode_pages(). So nobody has to wait until all are freed.
 */
static void rm_put_view(struct rm_inode *ri)
{
	bool last;

	down_write(&ri->invalidate_lock);
	last = !--ri->nr_views;
	up_write(&ri->invalidate_lock);
	if (last) {
		rm_inode_unlist(ri);
		rm_store_destroy(&ri->store);
	}
}

static int rm_release(struct inode *inode, struct file *file)
{
	struct rm_inode *ri = rm_inode(inode);
	struct rm_view *view = file->private_data;

	if (ri->shared)
		rm_revoke_windows(ri, view);
	rm_put_view(ri);
	kfree(view);
	return 0;
}

static const struct file_operations rm_file_ops;

/* Another file on @inode, whose reference it takes over when it succeeds. */
static struct file *rm_view_create(struct inode *inode, u64 owner)
{
	static atomic64_t last_id = ATOMIC64_INIT(0);
	struct rm_inode *ri = rm_inode(inode);
	struct rm_view *view;
	struct file *file;

	view = kzalloc(sizeof(*view), GFP_KERNEL_ACCOUNT);
	if (!view)
		return ERR_PTR(-ENOMEM);
	view->id = atomic64_inc_return(&last_id);
	view->owner = owner;
	view->claims = !!owner;
	INIT_LIST_HEAD(&view->windows);

	/* alloc_file_pseudo() does not take it, but __fput() drops it. */
	__module_get(THIS_MODULE);
	file = alloc_file_pseudo(inode, rm_mnt, "restrictedmem",
				 O_RDWR | O_LARGEFILE, &rm_file_ops);
	if (IS_ERR(file)) {
		module_put(THIS_MODULE);
		kfree(view);
		return file;
	}
	file->private_data = view;
	down_write(&ri->invalidate_lock);
	ri->nr_views++;
	up_write(&ri->invalidate_lock);
	return file;
}

/* The mount stays: the file that this is called on is on it. */
static long rm_ioctl_link(struct file *file, void *arg, void __user *uarg,
			  u32 usize)
{
	const struct restrictedmem_link *args = arg;
	struct inode *inode = file_inode(file);
	struct file *view;
	int fd;

	if (args->flags)
		return -EINVAL;
	fd = get_unused_fd_flags(O_CLOEXEC);
	if (fd < 0)
		return fd;

	ihold(inode);
	view = rm_view_create(inode, 0);
	if (IS_ERR(view)) {
		iput(inode);
		put_unused_fd(fd);
		return PTR_ERR(view);
	}
	trace_restrictedmem_link(inode->i_ino);
	fd_install(fd, view);
	return fd;
}

static const struct rm_ioctl rm_file_ioctls[] = {
	{
		.cmd = RESTRICTEDMEM_LINK,
		.size = sizeof(struct restrictedmem_link),
		.min_size = offsetofend(struct restrictedmem_link, flags),
		.execute = rm_ioctl_link,
	}, {
		.cmd = RESTRICTEDMEM_CONVERT,
		.size = sizeof(struct restrictedmem_convert),
		.min_size = offsetofend(struct restrictedmem_convert,
					error_offset),
		.execute = rm_ioctl_convert,
	}, {
		.cmd = RESTRICTEDMEM_WINDOW,
		.size = sizeof(struct restrictedmem_window),
		.min_size = offsetofend(struct restrictedmem_window, length),
		.execute = rm_ioctl_window,
	}, {
		.cmd = RESTRICTEDMEM_REVOKE,
		.size = sizeof(struct restrictedmem_revoke),
		.min_size = offsetofend(struct restrictedmem_revoke, reserved),
		.execute = rm_ioctl_revoke,
	},
};

static_assert(sizeof(struct restrictedmem_link) == 8);
static_assert(sizeof(struct restrictedmem_convert) == 40);
static_assert(sizeof(struct restrictedmem_window) == 24);
static_assert(sizeof(struct restrictedmem_revoke) == 16);

static long rm_file_ioctl(struct file *file, unsigned int cmd,
			  unsigned long arg)
{
	return rm_ioctl_execute(rm_file_ioctls, ARRAY_SIZE(rm_file_ioctls),
				file, cmd, (void __user *)arg);
}

/*
 * Also how a file is told apart: owner and the rest are set by
 * rm_view_create() alone.
 */
static const struct file_operations rm_file_ops = {
	.owner = THIS_MODULE,
	.release = rm_release,
	.unlocked_ioctl = rm_file_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
	.fallocate = rm_fallocate,
	.show_fdinfo = rm_show_fdinfo,
};

/**
 * file_is_restrictedmem() - is it one of ours?
 * @file: any file
 *
 * Context: Any.
 * Return: true for a file that restrictedmem_bind() would look at.
 */
bool file_is_restrictedmem(struct file *file)
{
	return file->f_op == &rm_file_ops;
}
EXPORT_SYMBOL_GPL(file_is_restrictedmem);

/**
 * rm_file_has_aliases() - may its pages be bound twice by one owner?
 * @file: any file
 *
 * Context: Any.
 * Return: true for a file of ours with RESTRICTEDMEM_CREATE_ALIASES.
 */
bool rm_file_has_aliases(struct file *file)
{
	return file_is_restrictedmem(file) &&
	       rm_inode(file_inode(file))->flags & RESTRICTEDMEM_CREATE_ALIASES;
}

/**
 * rm_file_is_in_place() - can ranges of it be shared?
 * @file: any file
 *
 * Context: Any.
 * Return: true for a file of ours with RESTRICTEDMEM_CREATE_IN_PLACE.
 */
bool rm_file_is_in_place(struct file *file)
{
	return file_is_restrictedmem(file) &&
	       rm_inode(file_inode(file))->shared;
}

static int rm_setattr(struct rm_idmap *idmap, struct dentry *dentry,
		      struct iattr *attr)
{
	/* Only the size, once, and only by who holds the file. */
	if (!(attr->ia_valid & ATTR_SIZE) || !(attr->ia_valid & ATTR_FILE))
		return -EPERM;
	return rm_inode_set_size(d_inode(dentry), attr->ia_size);
}

static int rm_getattr(struct rm_idmap *idmap, const struct path *path,
		      struct kstat *stat, u32 request_mask,
		      unsigned int query_flags)
{
	struct inode *inode = d_inode(path->dentry);

	rm_fill_stat(idmap, request_mask, inode, stat);
	stat->blksize = rm_inode(inode)->store.config.page_size;
	stat->blocks = atomic_long_read(&rm_inode(inode)->store.resident)
		       << (PAGE_SHIFT - SECTOR_SHIFT);
	return 0;
}

static const struct inode_operations rm_inode_ops = {
	.setattr = rm_setattr,
	.getattr = rm_getattr,
};

static struct inode *rm_alloc_inode(struct super_block *sb)
{
	struct rm_inode *ri;

	ri = alloc_inode_sb(sb, rm_inode_cache, GFP_KERNEL);
	if (!ri)
		return NULL;
	init_rwsem(&ri->invalidate_lock);
	init_rwsem(&ri->binding_lock);
	INIT_LIST_HEAD(&ri->list);
	ri->bindings = RB_ROOT_CACHED;
	ri->nr_bindings = 0;
	ri->flags = 0;
	ri->shared = NULL;
	ri->nr_shared = 0;
	ri->nr_windows = 0;
	ri->nr_views = 0;
	memset(&ri->store, 0, sizeof(ri->store));
	return &ri->vfs_inode;
}

static void rm_free_inode(struct inode *inode)
{
	kmem_cache_free(rm_inode_cache, rm_inode(inode));
}

static void rm_evict_inode(struct inode *inode)
{
	struct rm_inode *ri = rm_inode(inode);

	WARN_ON_ONCE(ri->nr_bindings || ri->nr_windows);
	rm_inode_unlist(ri);
	rm_store_destroy(&ri->store);
	if (ri->shared) {
		rm_attrs_destroy(ri->shared);
		kfree(ri->shared);
	}
	truncate_inode_pages_final(&inode->i_data);
	clear_inode(inode);
	/*
	 * Never the mount's last reference: the dying file has one, or who
	 * calls rm_inode_put(). The root directory goes with the mount and did
	 * not pin it.
	 */
	if (S_ISREG(inode->i_mode))
		simple_release_fs(&rm_mnt, &rm_mnt_count);
}

static const struct super_operations rm_super_ops = {
	.alloc_inode = rm_alloc_inode,
	.free_inode = rm_free_inode,
	.evict_inode = rm_evict_inode,
	.statfs = simple_statfs,
};

static int rm_init_fs_context(struct fs_context *fc)
{
	struct pseudo_fs_context *ctx = init_pseudo(fc, RESTRICTEDMEM_FS_MAGIC);

	if (!ctx)
		return -ENOMEM;
	ctx->ops = &rm_super_ops;
	return 0;
}

static struct file_system_type rm_fs_type = {
	.owner = THIS_MODULE,
	.name = "restrictedmem",
	.init_fs_context = rm_init_fs_context,
	.kill_sb = kill_anon_super,
};

/**
 * rm_inode_find() - the first inode that somebody is looking for
 * @match: says whether it is this one; called under a spinlock
 * @data: for @match
 *
 * Context: Process context, may sleep.
 * Return: the inode, for which rm_inode_put() is due, or NULL.
 */
struct rm_inode *rm_inode_find(bool (*match)(struct rm_inode *ri, void *data),
			       void *data)
{
	struct rm_inode *ri, *found = NULL;

	spin_lock(&rm_inodes_lock);
	list_for_each_entry(ri, &rm_inodes, list) {
		/* igrab() fails for one that is on its way out. */
		if (match(ri, data) && igrab(&ri->vfs_inode)) {
			found = ri;
			break;
		}
	}
	spin_unlock(&rm_inodes_lock);

	/* Can't fail: while there is an inode, there is the mount. */
	if (found)
		WARN_ON_ONCE(simple_pin_fs(&rm_fs_type, &rm_mnt, &rm_mnt_count));
	return found;
}

/**
 * rm_inode_put() - undo rm_inode_find()
 * @ri: the inode
 *
 * Context: Process context, may sleep; perhaps the inode's end, for which the
 * mount has to be there.
 */
void rm_inode_put(struct rm_inode *ri)
{
	iput(&ri->vfs_inode);
	simple_release_fs(&rm_mnt, &rm_mnt_count);
}

/**
 * rm_inode_for_each() - do something for all inodes
 * @fn: called under a spinlock
 * @data: for @fn
 *
 * Context: Process context.
 */
void rm_inode_for_each(void (*fn)(struct rm_inode *ri, void *data), void *data)
{
	struct rm_inode *ri;

	spin_lock(&rm_inodes_lock);
	list_for_each_entry(ri, &rm_inodes, list)
		fn(ri, data);
	spin_unlock(&rm_inodes_lock);
}

/*
 * An inode that holds nothing yet. The caller has pinned the filesystem; the
 * inode pins it once more.
 */
static struct inode *rm_inode_alloc(unsigned int blkbits)
{
	struct inode *inode;
	int r;

	r = simple_pin_fs(&rm_fs_type, &rm_mnt, &rm_mnt_count);
	if (r)
		return ERR_PTR(r);
	inode = new_inode(rm_mnt->mnt_sb);
	if (!inode) {
		simple_release_fs(&rm_mnt, &rm_mnt_count);
		return ERR_PTR(-ENOMEM);
	}
	inode->i_ino = get_next_ino();
	inode->i_mode = S_IFREG | 0600;
	inode->i_uid = current_fsuid();
	inode->i_gid = current_fsgid();
	inode->i_atime = current_time(inode);
	inode->i_mtime = inode->i_atime;
	inode->i_ctime = inode->i_atime;
	inode->i_blkbits = blkbits;
	clear_nlink(inode);
	return inode;
}

/* The memory; as rm_inode_alloc(). */
static struct inode *rm_inode_create(const struct rm_store_config *config,
				     loff_t size, u32 flags)
{
	struct inode *inode;
	struct rm_inode *ri;
	int r = -ENOMEM;

	inode = rm_inode_alloc(ilog2(config->page_size));
	if (IS_ERR(inode))
		return inode;
	inode->i_op = &rm_inode_ops;
	ri = rm_inode(inode);
	ri->flags = flags;
	rm_store_init(&ri->store, config);

	if (flags & RESTRICTEDMEM_CREATE_IN_PLACE) {
		ri->shared = kzalloc(sizeof(*ri->shared), GFP_KERNEL_ACCOUNT);
		if (!ri->shared)
			goto err_iput;
		rm_attrs_init(ri->shared);
	}
	if (size) {
		r = rm_inode_set_size(inode, size);
		if (r)
			goto err_iput;
	}
	spin_lock(&rm_inodes_lock);
	list_add(&ri->list, &rm_inodes);
	spin_unlock(&rm_inodes_lock);
	return inode;

err_iput:
	iput(inode);
	return ERR_PTR(r);
}

/**
 * rm_file_create_anon() - a file on an inode of its own that is no memory
 * @name: as /proc shows it
 * @size: bytes, as stat shows them
 * @flags: O_RDONLY or O_RDWR
 * @fops: its operations; they get no call before the caller is done with it
 * @iops: its inode's
 *
 * Context: Process context, may sleep. The filesystem is mounted, and stays.
 * Return: the file, or an ERR_PTR as open(2).
 */
struct file *rm_file_create_anon(const char *name, loff_t size, int flags,
				 const struct file_operations *fops,
				 const struct inode_operations *iops)
{
	struct inode *inode = rm_inode_alloc(PAGE_SHIFT);
	struct file *file;

	if (IS_ERR(inode))
		return ERR_CAST(inode);
	inode->i_op = iops;
	i_size_write(inode, size);
	/* alloc_file_pseudo() does not take it, but __fput() drops it. */
	__module_get(THIS_MODULE);
	file = alloc_file_pseudo(inode, rm_mnt, name, flags | O_LARGEFILE, fops);
	if (IS_ERR(file)) {
		module_put(THIS_MODULE);
		iput(inode);
	}
	return file;
}

/**
 * rm_file_create_fd() - a new inode, a file on it and an fd for that
 * @config: where its pages come from
 * @size: bytes, a multiple of the page size, or 0 for later
 * @flags: RESTRICTEDMEM_CREATE_*
 * @owner: who owns the file from birth, or 0
 *
 * Context: Process context, may sleep. All values were checked.
 * Return: the fd, or -ENOMEM, -EMFILE, -ENFILE, -EINVAL for a length or nodes
 * that the store cannot have, -ENOSPC for a reservation that it cannot have.
 */
int rm_file_create_fd(const struct rm_store_config *config, loff_t size,
		      u32 flags, u64 owner)
{
	struct inode *inode;
	struct file *file;
	int fd, r;

	fd = get_unused_fd_flags(O_CLOEXEC);
	if (fd < 0)
		return fd;

	r = simple_pin_fs(&rm_fs_type, &rm_mnt, &rm_mnt_count);
	if (r)
		goto err_put_fd;

	inode = rm_inode_create(config, size, flags);
	if (IS_ERR(inode)) {
		r = PTR_ERR(inode);
		goto err_release_fs;
	}
	file = rm_view_create(inode, owner);
	if (IS_ERR(file)) {
		r = PTR_ERR(file);
		iput(inode);
		goto err_release_fs;
	}
	trace_restrictedmem_create(inode->i_ino, size, flags);
	simple_release_fs(&rm_mnt, &rm_mnt_count);
	fd_install(fd, file);
	return fd;

err_release_fs:
	simple_release_fs(&rm_mnt, &rm_mnt_count);
err_put_fd:
	put_unused_fd(fd);
	return r;
}

static void rm_inode_init_once(void *ri)
{
	inode_init_once(&((struct rm_inode *)ri)->vfs_inode);
}

/**
 * rm_file_init() - set up the inode cache
 *
 * Context: Module load.
 * Return: 0 or -ENOMEM.
 */
int rm_file_init(void)
{
	rm_inode_cache = kmem_cache_create("restrictedmem_inode",
					   sizeof(struct rm_inode), 0,
					   SLAB_RECLAIM_ACCOUNT | SLAB_ACCOUNT,
					   rm_inode_init_once);
	return rm_inode_cache ? 0 : -ENOMEM;
}

/**
 * rm_file_exit() - undo rm_file_init()
 *
 * Context: Module unload; no file is left, but RCU may not have freed the last
 * inodes yet.
 */
void rm_file_exit(void)
{
	rcu_barrier();
	kmem_cache_destroy(rm_inode_cache);
}
