// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * The hugetlb store: huge pages from the system's pools, through hugetlbfs
 * mounts of our own and exported functions alone.
 *
 * A store has several backing files, and its huge pages go to them in turn:
 * hugetlbfs fills one file at a time under its inode's lock, zeroing included,
 * which would make threads that populate one memory wait for each other.
 *
 * Reservation is a property of a mount (min_size), so that a file that asks for
 * it has a mount to itself. Whoever may open the device may take from the pools,
 * as whoever may write to a hugetlbfs mount; the hugetlb cgroup controller
 * charges it.
 *
 * The backing files belong to the kernel, not to who happens to call: the
 * security modules are asked about the restrictedmem file.
 */
#include <linux/cred.h>
#include <linux/err.h>
#include <linux/falloc.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/hugetlb.h>
#include <linux/init_task.h>
#include <linux/mm.h>
#include <linux/mount.h>
#include <linux/mutex.h>
#include <linux/pagemap.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>

#include "compat/hugetlb.h"
#include "restrictedmem_internal.h"

#define RM_HUGETLB_MAX_FILES	16

/**
 * struct rm_hugetlb - what rm_store.private is here
 * @lock: fills one page at a time, once the reservation is less than the file
 * @shift: of the page size, in pages
 * @nr_files: how many there are
 * @files: huge page i is page i / @nr_files + f of file f = i % @nr_files
 *
 * Interleaving goes by a page's place in its file. File f has nothing before
 * page f, so that huge pages that follow one another go to nodes in turn.
 */
struct rm_hugetlb {
	struct mutex lock; /* of the account, over a fill */
	unsigned int shift;
	unsigned int nr_files;
	struct file *files[];
};

/* For files without a reservation; NULL where there is no such size */
static struct {
	unsigned long page_size;
	struct vfsmount *mnt;
} rm_hugetlb_mounts[] = {
	{ .page_size = PMD_SIZE },
	{ .page_size = PUD_SIZE },
};

static const struct cred *rm_hugetlb_cred;

static u64 rm_hugetlb_page_sizes(void)
{
	u64 sizes = 0;
	int i;

	for (i = 0; i < ARRAY_SIZE(rm_hugetlb_mounts); i++)
		if (rm_hugetlb_mounts[i].mnt)
			sizes |= rm_hugetlb_mounts[i].page_size;
	return sizes;
}

/* @reserve: bytes */
static struct vfsmount *rm_hugetlb_mount(unsigned long page_size, u64 reserve)
{
	struct file_system_type *type = get_fs_type("hugetlbfs");
	struct vfsmount *mnt = ERR_PTR(-ENOMEM);
	char *options;

	if (!type)
		return ERR_PTR(-ENODEV);
	/*
	 * Only with a maximum, though it is never reached, does the kernel count what
	 * is in use, as rm_hugetlb_forsake() wants it.
	 */
	options = reserve ?
		kasprintf(GFP_KERNEL, "mode=0700,pagesize=%lu,min_size=%llu,size=%llu",
			  page_size, reserve, (u64)LLONG_MAX) :
		kasprintf(GFP_KERNEL, "mode=0700,pagesize=%lu", page_size);
	if (options)
		mnt = vfs_kern_mount(type, SB_KERNMOUNT, "restrictedmem", options);
	kfree(options);
	module_put(type->owner);
	return mnt;
}

/* The mount for a store; mntput() is due. */
static struct vfsmount *rm_hugetlb_mount_get(struct rm_store *store)
{
	const struct rm_store_config *config = &store->config;
	struct vfsmount *mnt;
	int i;

	if (config->reserve) {
		mnt = rm_hugetlb_mount(config->page_size,
				       (u64)store->nr_pages << PAGE_SHIFT);
		/* hugetlbfs's word for a pool that is too small */
		return mnt == ERR_PTR(-ENOMEM) ? ERR_PTR(-ENOSPC) : mnt;
	}
	for (i = 0; i < ARRAY_SIZE(rm_hugetlb_mounts); i++)
		if (rm_hugetlb_mounts[i].page_size == config->page_size)
			return mntget(rm_hugetlb_mounts[i].mnt);
	return ERR_PTR(-EINVAL);
}

/* An empty file of some huge pages. The caller has the kernel's credentials. */
static struct file *rm_hugetlb_file_create(const struct rm_store_config *config,
					   struct vfsmount *mnt, loff_t size)
{
	const struct path root = { .mnt = mnt, .dentry = mnt->mnt_root };
	struct file *file;
	int r;

	file = file_open_root(&root, "/", O_TMPFILE | O_RDWR | O_LARGEFILE, 0600);
	/* hugetlbfs's word for no memory for an inode */
	if (file == ERR_PTR(-ENOSPC))
		return ERR_PTR(-ENOMEM);
	if (IS_ERR(file))
		return file;
	/* Nobody else knows it yet. */
	i_size_write(file_inode(file), size);
	r = rm_shmem_give_policy(config, &HUGETLBFS_I(file_inode(file))->policy);
	if (r) {
		fput(file);
		return ERR_PTR(r);
	}
	return file;
}

static int rm_hugetlb_open(struct rm_hugetlb *huge, struct rm_store *store,
			   struct vfsmount *mnt)
{
	u64 nr_huge = store->nr_pages >> huge->shift;
	unsigned int i;

	for (i = 0; i < huge->nr_files; i++) {
		u64 nr = DIV_ROUND_UP_ULL(nr_huge - i, huge->nr_files) + i;
		struct file *file;

		file = rm_hugetlb_file_create(&store->config, mnt,
					      nr << (huge->shift + PAGE_SHIFT));
		if (IS_ERR(file)) {
			while (i--)
				fput(huge->files[i]);
			return PTR_ERR(file);
		}
		huge->files[i] = file;
	}
	return 0;
}

static int rm_hugetlb_set_up(struct rm_store *store)
{
	unsigned int shift = ilog2(store->config.page_size) - PAGE_SHIFT;
	unsigned int nr_files = min3(store->nr_pages >> shift,
				     (pgoff_t)num_online_cpus(),
				     (pgoff_t)RM_HUGETLB_MAX_FILES);
	const struct cred *old;
	struct rm_hugetlb *huge;
	struct vfsmount *mnt;
	int r;

	huge = kzalloc(struct_size(huge, files, nr_files), GFP_KERNEL_ACCOUNT);
	if (!huge)
		return -ENOMEM;
	mutex_init(&huge->lock);
	huge->shift = shift;
	huge->nr_files = nr_files;

	old = override_creds(rm_hugetlb_cred);
	mnt = rm_hugetlb_mount_get(store);
	if (IS_ERR(mnt)) {
		r = PTR_ERR(mnt);
	} else {
		r = rm_hugetlb_open(huge, store, mnt);
		/* From now on the files hold it. */
		mntput(mnt);
	}
	revert_creds(old);
	if (r)
		kfree(huge);
	else
		WRITE_ONCE(store->private, huge);
	return r;
}

/* Where the huge page with page @index is. */
static struct file *rm_hugetlb_locate(struct rm_store *store, pgoff_t index,
				      pgoff_t *in_file)
{
	struct rm_hugetlb *huge = store->private;
	unsigned int i;

	index >>= huge->shift;
	i = index % huge->nr_files;
	*in_file = index / huge->nr_files + i;
	return huge->files[i];
}

static struct folio *rm_hugetlb_find(struct rm_store *store, pgoff_t index)
{
	struct rm_hugetlb *huge = store->private;
	struct file *file;
	pgoff_t in_file;

	file = rm_hugetlb_locate(store, index, &in_file);
	return rm_hugetlb_get_folio(file->f_mapping, in_file, huge->shift);
}

/*
 * hugetlbfs gives up when any signal is pending. A guest's access must not fail
 * for that, nor can it be interrupted half way: the signal waits, unless it is
 * one that kills.
 */
static int rm_hugetlb_fill_file(struct file *file, loff_t offset, loff_t len)
{
	const struct cred *old = override_creds(rm_hugetlb_cred);
	bool signal = false, notify = false;
	int r;

	do {
		signal |= test_and_clear_tsk_thread_flag(current, TIF_SIGPENDING);
		notify |= test_and_clear_tsk_thread_flag(current,
							 TIF_NOTIFY_SIGNAL);
		if (signal && __fatal_signal_pending(current)) {
			r = -EINTR;
			break;
		}
		r = vfs_fallocate(file, FALLOC_FL_KEEP_SIZE, offset, len);
	} while (r == -EINTR);
	if (signal)
		set_tsk_thread_flag(current, TIF_SIGPENDING);
	if (notify)
		set_tsk_thread_flag(current, TIF_NOTIFY_SIGNAL);
	revert_creds(old);
	return r;
}

/*
 * A fill that fails gives back in two steps what it has taken from the mount's account.
 * What it gives is lost if more was in use than is reserved, and no longer is by the
 * second step. That takes a fill of beyond the reservation in between.
 */
static int rm_hugetlb_fill(struct rm_store *store, struct file *file,
			   loff_t offset, loff_t len)
{
	struct rm_hugetlb *huge = store->private;
	int r;

	/* Changed with the invalidate_lock held for writing */
	if (!store->config.reserve || store->reserved == store->nr_pages)
		return rm_hugetlb_fill_file(file, offset, len);
	if (mutex_lock_killable(&huge->lock))
		return -EINTR;
	r = rm_hugetlb_fill_file(file, offset, len);
	mutex_unlock(&huge->lock);
	return r;
}

static struct folio *rm_hugetlb_get(struct rm_store *store, pgoff_t index,
				    bool must)
{
	unsigned long page_size = store->config.page_size;
	struct folio *folio;
	struct file *file;
	pgoff_t in_file;
	int r;

	file = rm_hugetlb_locate(store, index, &in_file);
	while (!(folio = rm_hugetlb_find(store, index))) {
		r = rm_hugetlb_fill(store, file, (loff_t)in_file * page_size, page_size);
		if (r)
			return ERR_PTR(r);
	}
	return folio;
}

static bool rm_hugetlb_owns(struct rm_store *store, struct folio *folio,
			    pgoff_t *first)
{
	struct rm_hugetlb *huge = READ_ONCE(store->private);
	struct address_space *mapping = READ_ONCE(folio->mapping);
	unsigned int i;

	for (i = 0; i < huge->nr_files; i++) {
		if (huge->files[i]->f_mapping == mapping) {
			*first = ((rm_hugetlb_index(folio, huge->shift) - i) *
				  huge->nr_files + i) << huge->shift;
			return true;
		}
	}
	return false;
}

static void rm_hugetlb_discard(struct rm_store *store, pgoff_t start,
			       pgoff_t end)
{
	const struct cred *old = override_creds(rm_hugetlb_cred);
	loff_t page_size = store->config.page_size;
	struct rm_hugetlb *huge = store->private;
	unsigned int nr = huge->nr_files, i;

	start >>= huge->shift;
	end >>= huge->shift;
	for (i = 0; i < nr; i++) {
		/* The first of the file's that is not before the range's */
		pgoff_t from = start > i ? DIV_ROUND_UP(start - i, nr) : 0;
		pgoff_t to = end > i ? DIV_ROUND_UP(end - i, nr) : 0;

		if (from < to)
			WARN_ON_ONCE(vfs_fallocate(huge->files[i],
						   FALLOC_FL_PUNCH_HOLE |
						   FALLOC_FL_KEEP_SIZE,
						   (from + i) * page_size,
						   (to - from) * page_size));
	}
	revert_creds(old);
}

static void rm_hugetlb_destroy(struct rm_store *store)
{
	struct rm_hugetlb *huge = store->private;
	unsigned int i;

	/* The last fput may be deferred, the memory is not to be. */
	rm_hugetlb_discard(store, 0, store->nr_pages);
	for (i = 0; i < huge->nr_files; i++)
		fput(huge->files[i]);
	store->private = NULL;
	kfree(huge);
}

/*
 * Until it is freed, a page counts in an account of its mount's, the one with the
 * reservation. Page and mount both look whether they are the last to use the account,
 * after they have dropped its lock, and both could free it. A failing fill corrects it in
 * two steps, between which no page may be freed. So a page that somebody may let go of
 * at any time leaves the account here, where neither can happen, and takes its part of
 * the reservation along. What is still set aside, max(0, min - used), stays as it is:
 * while a page is beyond the reservation, that is nothing.
 *
 * Whether it is beyond is not asked of the account: that also has pages that were
 * refused and are still to be trimmed.
 */
static void rm_hugetlb_forsake(struct folio *folio, bool beyond)
{
	struct hugepage_subpool *spool = hugetlb_folio_subpool(folio);

	if (!spool)
		return;
	spin_lock_irq(&spool->lock);
	hugetlb_set_folio_subpool(folio, NULL);
	spool->used_hpages--;
	if (!beyond)
		spool->min_hpages--;
	spin_unlock_irq(&spool->lock);
}

const struct rm_store_ops rm_hugetlb_ops = {
	.name = "hugetlb",
	.page_sizes = rm_hugetlb_page_sizes,
	.init = rm_hugetlb_set_up,
	.destroy = rm_hugetlb_destroy,
	.forsake = rm_hugetlb_forsake,
	.get = rm_hugetlb_get,
	.find = rm_hugetlb_find,
	.owns = rm_hugetlb_owns,
	.discard = rm_hugetlb_discard,
};

/**
 * rm_hugetlb_init() - mount what files without a reservation live on
 *
 * Context: Module load.
 * Return: 0, also where there are no huge pages; -ENOMEM.
 */
int rm_hugetlb_init(void)
{
	int i;

	rm_hugetlb_cred = prepare_kernel_cred(&init_task);
	if (!rm_hugetlb_cred)
		return -ENOMEM;
	for (i = 0; i < ARRAY_SIZE(rm_hugetlb_mounts); i++) {
		unsigned long page_size = rm_hugetlb_mounts[i].page_size;
		struct vfsmount *mnt;

		/* It would say so in the log. */
		if (!rm_hugetlb_has_size(page_size))
			continue;
		mnt = rm_hugetlb_mount(page_size, 0);
		if (mnt == ERR_PTR(-ENOMEM)) {
			rm_hugetlb_exit();
			return -ENOMEM;
		}
		rm_hugetlb_mounts[i].mnt = IS_ERR(mnt) ? NULL : mnt;
	}
	return 0;
}

/**
 * rm_hugetlb_exit() - undo rm_hugetlb_init()
 *
 * Context: Module unload; no file is left.
 */
void rm_hugetlb_exit(void)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(rm_hugetlb_mounts); i++)
		mntput(rm_hugetlb_mounts[i].mnt);
	put_cred(rm_hugetlb_cred);
}
