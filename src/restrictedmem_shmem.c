// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * The shmem store: anonymous memory from tmpfs mounts of our own.
 *
 * The backing file is used through exported functions alone; none of its
 * operations is replaced. Its mapping is unevictable and allocates nothing
 * movable, and every folio is dirty, so that the pin of the resident table is
 * never the only thing between a page and those who would like to move it.
 *
 * There is one mount for each huge page policy. "always" is tmpfs's
 * "within_size": a huge page that would reach beyond the end of the file is
 * never made, so that what is charged is what the file holds.
 */
#include <linux/err.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/mm.h>
#include <linux/mount.h>
#include <linux/pagemap.h>
#include <linux/shmem_fs.h>
#include <linux/slab.h>

#include "restrictedmem_internal.h"

static struct vfsmount *rm_shmem_mnt[] = {
	[RESTRICTEDMEM_THP_ALWAYS] = NULL,
	[RESTRICTEDMEM_THP_NEVER] = NULL,
};

static const char * const rm_shmem_options[] = {
	[RESTRICTEDMEM_THP_ALWAYS] = "huge=within_size",
	[RESTRICTEDMEM_THP_NEVER] = "huge=never",
};

static u64 rm_shmem_page_sizes(void)
{
	return PAGE_SIZE;
}

static bool rm_shmem_huge(void)
{
	return IS_ENABLED(CONFIG_TRANSPARENT_HUGEPAGE) &&
	       has_transparent_hugepage();
}

static struct address_space *rm_shmem_mapping(struct rm_store *store)
{
	return store->backing->f_mapping;
}

static int rm_shmem_set_up(struct rm_store *store, loff_t size)
{
	struct address_space *mapping;
	struct file *file;

	file = shmem_file_setup_with_mnt(rm_shmem_mnt[store->thp],
					 "restrictedmem", size, VM_NORESERVE);
	if (IS_ERR(file))
		return PTR_ERR(file);

	mapping = file->f_mapping;
	mapping_set_unevictable(mapping);
	mapping_set_gfp_mask(mapping, GFP_HIGHUSER);
	store->backing = file;
	return 0;
}

static void rm_shmem_destroy(struct rm_store *store)
{
	/* The last fput may be deferred, the memory is not to be. */
	shmem_truncate_range(file_inode(store->backing), 0, (loff_t)-1);
	fput(store->backing);
	store->backing = NULL;
}

static struct folio *rm_shmem_get(struct rm_store *store, pgoff_t index)
{
	struct address_space *mapping = rm_shmem_mapping(store);
	struct folio *folio;
	struct page *page;

	page = shmem_read_mapping_page_gfp(mapping, index,
					   mapping_gfp_mask(mapping));
	if (IS_ERR(page)) {
		/* shmem's word for a poisoned page */
		if (PTR_ERR(page) == -EIO)
			return ERR_PTR(-EHWPOISON);
		return ERR_CAST(page);
	}
	folio = page_folio(page);
	folio_mark_dirty(folio);
	return folio;
}

static struct folio *rm_shmem_find(struct rm_store *store, pgoff_t index)
{
	struct page *page;

	page = pagecache_get_page(rm_shmem_mapping(store), index, 0, 0);
	return page ? page_folio(page) : NULL;
}

static bool rm_shmem_lock(struct rm_store *store, struct folio *folio)
{
	folio_lock(folio);
	if (folio->mapping == rm_shmem_mapping(store))
		return true;
	folio_unlock(folio);
	return false;
}

static void rm_shmem_discard(struct rm_store *store, pgoff_t start, pgoff_t end)
{
	shmem_truncate_range(file_inode(store->backing),
			     (loff_t)start << PAGE_SHIFT,
			     ((loff_t)end << PAGE_SHIFT) - 1);
}

const struct rm_store_ops rm_shmem_ops = {
	.name = "shmem",
	.page_sizes = rm_shmem_page_sizes,
	.huge = rm_shmem_huge,
	.init = rm_shmem_set_up,
	.destroy = rm_shmem_destroy,
	.get = rm_shmem_get,
	.find = rm_shmem_find,
	.lock = rm_shmem_lock,
	.unlock = folio_unlock,
	.discard = rm_shmem_discard,
};

/**
 * rm_shmem_init() - mount what the files will live on
 *
 * Context: Module load.
 * Return: 0 or -errno.
 */
int rm_shmem_init(void)
{
	struct file_system_type *type = get_fs_type("tmpfs");
	u32 thp;
	int r = 0;

	if (!type)
		return -ENODEV;

	for (thp = RESTRICTEDMEM_THP_ALWAYS; thp < ARRAY_SIZE(rm_shmem_mnt);
	     thp++) {
		/* tmpfs writes into the string while it takes it apart. */
		char *options = kstrdup(rm_shmem_options[thp], GFP_KERNEL);
		struct vfsmount *mnt;

		mnt = options ? vfs_kern_mount(type, SB_KERNMOUNT,
					       "restrictedmem", options)
			      : ERR_PTR(-ENOMEM);
		kfree(options);
		if (IS_ERR(mnt)) {
			r = PTR_ERR(mnt);
			rm_shmem_exit();
			break;
		}
		rm_shmem_mnt[thp] = mnt;
	}
	module_put(type->owner);
	return r;
}

/**
 * rm_shmem_exit() - undo rm_shmem_init()
 *
 * Context: Module unload; no file is left.
 */
void rm_shmem_exit(void)
{
	u32 thp;

	for (thp = 0; thp < ARRAY_SIZE(rm_shmem_mnt); thp++) {
		mntput(rm_shmem_mnt[thp]);
		rm_shmem_mnt[thp] = NULL;
	}
}
