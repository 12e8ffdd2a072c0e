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
 * What kind of pages a file gets, and from which nodes, is decided by its
 * mount: there is one for each combination that is in use. Huge pages are
 * always tmpfs's "within_size": one that would reach beyond the end of the file
 * is never made, so that what is charged is what the file holds.
 */
#include <linux/cpuset.h>
#include <linux/err.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/highmem.h>
#include <linux/kref.h>
#include <linux/list.h>
#include <linux/mm.h>
#include <linux/mount.h>
#include <linux/mutex.h>
#include <linux/pagemap.h>
#include <linux/shmem_fs.h>
#include <linux/slab.h>

#include "compat/shmem.h"
#include "restrictedmem_internal.h"

/**
 * struct rm_shmem_mount - one of our mounts
 * @list: in rm_shmem_mounts
 * @ref: files that use it
 * @huge: whether it gives huge pages
 * @numa: enum restrictedmem_numa
 * @nodes: what @numa is about
 * @mnt: the mount
 */
struct rm_shmem_mount {
	struct list_head list;
	struct kref ref;
	bool huge;
	u32 numa;
	nodemask_t nodes;
	struct vfsmount *mnt;
};

/* What rm_store.private is here */
struct rm_shmem {
	struct rm_shmem_mount *mount;
	struct file *file;
};

static LIST_HEAD(rm_shmem_mounts);
static DEFINE_MUTEX(rm_shmem_lock);

static u64 rm_shmem_page_sizes(void)
{
	return PAGE_SIZE;
}

/**
 * rm_shmem_has_huge() - can the store give folios larger than a page?
 *
 * Context: Any.
 * Return: true if so.
 */
bool rm_shmem_has_huge(void)
{
	return IS_ENABLED(CONFIG_TRANSPARENT_HUGEPAGE) &&
	       has_transparent_hugepage();
}

/* The caller frees it; tmpfs writes into it while it takes it apart. */
static char *rm_shmem_options(const struct rm_store_config *config, bool huge)
{
	static const char * const modes[] = {
		[RESTRICTEDMEM_NUMA_BIND] = "bind",
		[RESTRICTEDMEM_NUMA_PREFERRED] = "prefer",
		[RESTRICTEDMEM_NUMA_INTERLEAVE] = "interleave",
	};
	const char *option = huge ? "huge=within_size" : "huge=never";

	if (config->numa == RESTRICTEDMEM_NUMA_DEFAULT)
		return kstrdup(option, GFP_KERNEL);
	return kasprintf(GFP_KERNEL, "%s,mpol=%s:%*pbl", option,
			 modes[config->numa], nodemask_pr_args(&config->nodes));
}

static struct rm_shmem_mount *
rm_shmem_mount_create(const struct rm_store_config *config, bool huge)
{
	struct file_system_type *type = get_fs_type("tmpfs");
	struct rm_shmem_mount *mount;
	char *options;
	int r = -ENOMEM;

	if (!type)
		return ERR_PTR(-ENODEV);
	options = rm_shmem_options(config, huge);
	mount = kzalloc(sizeof(*mount), GFP_KERNEL);
	if (!options || !mount)
		goto err_free;

	mount->mnt = vfs_kern_mount(type, SB_KERNMOUNT, "restrictedmem", options);
	r = PTR_ERR_OR_ZERO(mount->mnt);
	/* tmpfs's word for no memory for the policy, too */
	if (r == -EINVAL && nodes_subset(config->nodes, node_states[N_MEMORY]))
		r = -ENOMEM;
	if (r)
		goto err_free;
	kref_init(&mount->ref);
	mount->huge = huge;
	mount->numa = config->numa;
	mount->nodes = config->nodes;
	list_add(&mount->list, &rm_shmem_mounts);
	kfree(options);
	module_put(type->owner);
	return mount;

err_free:
	kfree(options);
	kfree(mount);
	module_put(type->owner);
	return ERR_PTR(r);
}

/* The mount for @config; rm_shmem_mount_put() is due. */
static struct rm_shmem_mount *
rm_shmem_mount_get(const struct rm_store_config *config)
{
	bool huge = config->thp && config->thp != RESTRICTEDMEM_THP_NEVER;
	struct rm_shmem_mount *mount;

	mutex_lock(&rm_shmem_lock);
	list_for_each_entry(mount, &rm_shmem_mounts, list) {
		if (mount->huge == huge && mount->numa == config->numa &&
		    nodes_equal(mount->nodes, config->nodes)) {
			kref_get(&mount->ref);
			goto out;
		}
	}
	mount = rm_shmem_mount_create(config, huge);
out:
	mutex_unlock(&rm_shmem_lock);
	return mount;
}

static void rm_shmem_mount_release(struct kref *ref)
{
	struct rm_shmem_mount *mount =
		container_of(ref, struct rm_shmem_mount, ref);

	list_del(&mount->list);
	mutex_unlock(&rm_shmem_lock);
	mntput(mount->mnt);
	kfree(mount);
}

static void rm_shmem_mount_put(struct rm_shmem_mount *mount)
{
	kref_put_mutex(&mount->ref, rm_shmem_mount_release, &rm_shmem_lock);
}

/*
 * tmpfs gives a new file its mount's policy, as far as the caller's cpuset
 * allows it, and silently none if it fails.
 */
static int rm_shmem_check_policy(const struct rm_store_config *config,
				 struct file *file)
{
#ifdef CONFIG_NUMA
	if (config->numa != RESTRICTEDMEM_NUMA_DEFAULT &&
	    RB_EMPTY_ROOT(&SHMEM_I(file_inode(file))->policy.root))
		return nodes_intersects(config->nodes,
					cpuset_current_mems_allowed) ?
			       -ENOMEM : -EINVAL;
#endif
	return 0;
}

static struct file *rm_shmem_file_create(const struct rm_store_config *config,
					 struct rm_shmem_mount *mount,
					 loff_t size)
{
	struct file *file;
	int r;

	file = shmem_file_setup_with_mnt(mount->mnt, "restrictedmem", size,
					 VM_NORESERVE);
	/* tmpfs's word for no memory for an inode; the mount has no limits. */
	if (file == ERR_PTR(-ENOSPC))
		return ERR_PTR(-ENOMEM);
	if (IS_ERR(file))
		return file;
	r = rm_shmem_check_policy(config, file);
	if (r) {
		fput(file);
		return ERR_PTR(r);
	}
	return file;
}

static int rm_shmem_set_up(struct rm_store *store)
{
	struct rm_shmem *shmem;
	int r;

	shmem = kzalloc(sizeof(*shmem), GFP_KERNEL_ACCOUNT);
	if (!shmem)
		return -ENOMEM;
	shmem->mount = rm_shmem_mount_get(&store->config);
	if (IS_ERR(shmem->mount)) {
		r = PTR_ERR(shmem->mount);
		goto err_free;
	}
	shmem->file = rm_shmem_file_create(&store->config, shmem->mount,
					   (loff_t)store->nr_pages << PAGE_SHIFT);
	if (IS_ERR(shmem->file)) {
		r = PTR_ERR(shmem->file);
		goto err_put;
	}
	mapping_set_unevictable(shmem->file->f_mapping);
	/* Nothing movable; the OOM killer is for rm_shmem_insist() alone. */
	mapping_set_gfp_mask(shmem->file->f_mapping, GFP_HIGHUSER |
			     __GFP_RETRY_MAYFAIL | __GFP_NOWARN);
	WRITE_ONCE(store->private, shmem);
	return 0;

err_put:
	rm_shmem_mount_put(shmem->mount);
err_free:
	kfree(shmem);
	return r;
}

static struct file *rm_shmem_file(struct rm_store *store)
{
	struct rm_shmem *shmem = store->private;

	return shmem->file;
}

static void rm_shmem_destroy(struct rm_store *store)
{
	struct rm_shmem *shmem = store->private;

	/* The last fput may be deferred, the memory is not to be. */
	shmem_truncate_range(file_inode(shmem->file), 0, (loff_t)-1);
	fput(shmem->file);
	rm_shmem_mount_put(shmem->mount);
	store->private = NULL;
	kfree(shmem);
}

/* A locked folio that shmem has left to its writer to fill, all of it. */
static void rm_shmem_zero(struct folio *folio)
{
	long i;

	/* Many kernels zero all memory as it is allocated; once is enough. */
	if (!want_init_on_alloc(GFP_HIGHUSER) && !want_init_on_free())
		for (i = 0; i < folio_nr_pages(folio); i++)
			clear_highpage(folio_page(folio, i));
	flush_dcache_folio(folio);
	folio_mark_uptodate(folio);
}

/*
 * As a write does it, because what reads does would have shmem zero pages that
 * are zero. Fails rather than call the OOM killer: see rm_shmem_set_up().
 */
static struct folio *rm_shmem_take(struct rm_store *store, pgoff_t index)
{
	struct folio *folio;

	folio = rm_shmem_write_begin(rm_shmem_file(store), index);
	if (IS_ERR(folio))
		return folio;
	if (!folio_test_uptodate(folio))
		rm_shmem_zero(folio);
	folio_mark_dirty(folio);
	folio_unlock(folio);
	return folio;
}

/* The same, but that somebody may have to die for it. */
static struct folio *rm_shmem_insist(struct rm_store *store, pgoff_t index)
{
	struct page *page;

	page = shmem_read_mapping_page_gfp(rm_shmem_file(store)->f_mapping,
					   index, GFP_HIGHUSER);
	if (IS_ERR(page))
		return ERR_CAST(page);
	folio_mark_dirty(page_folio(page));
	return page_folio(page);
}

static struct folio *rm_shmem_get(struct rm_store *store, pgoff_t index,
				  bool must)
{
	struct folio *folio = rm_shmem_take(store, index);

	if (folio == ERR_PTR(-ENOMEM) && must)
		folio = rm_shmem_insist(store, index);
	/* shmem's word for a poisoned page */
	return folio == ERR_PTR(-EIO) ? ERR_PTR(-EHWPOISON) : folio;
}

static struct folio *rm_shmem_find(struct rm_store *store, pgoff_t index)
{
	struct page *page;

	page = pagecache_get_page(rm_shmem_file(store)->f_mapping, index, 0, 0);
	return page ? page_folio(page) : NULL;
}

static bool rm_shmem_owns(struct rm_store *store, struct folio *folio,
			  pgoff_t *first)
{
	*first = folio->index;
	return READ_ONCE(folio->mapping) == rm_shmem_file(store)->f_mapping;
}

static void rm_shmem_split(struct rm_store *store, pgoff_t index)
{
	rm_shmem_split_folio(rm_shmem_file(store), index);
}

/* The folio that has the pages before and after a border, with a reference. */
static struct folio *rm_shmem_across(struct rm_store *store, pgoff_t border)
{
	struct folio *folio = rm_shmem_find(store, border);

	if (!folio || rm_folio_first(folio, border) < border)
		return folio;
	folio_put(folio);
	return NULL;
}

/* The same when it has been split if it can be. */
static struct folio *rm_shmem_cut(struct rm_store *store, pgoff_t border)
{
	struct folio *folio = rm_shmem_across(store, border);

	if (!folio)
		return NULL;
	folio_put(folio);
	rm_shmem_split(store, border);
	return rm_shmem_across(store, border);
}

/* Zero some pages of a folio, and drop the reference on it. */
static void rm_shmem_clear(struct folio *folio, pgoff_t index, pgoff_t end)
{
	for (; index < end; index++)
		/* Not even a write goes to a page with an error. */
		if (!PageHWPoison(rm_folio_page(folio, index)))
			clear_highpage(rm_folio_page(folio, index));
	folio_put(folio);
}

/*
 * shmem would zero its part of a folio that lies across a border, whatever is
 * wrong with a page there, and only then split it.
 */
static void rm_shmem_discard(struct rm_store *store, pgoff_t start, pgoff_t end)
{
	struct folio *folio;
	pgoff_t border;

	folio = rm_shmem_cut(store, start);
	if (folio) {
		border = min(rm_folio_end(folio, start), end);
		rm_shmem_clear(folio, start, border);
		start = border;
	}
	if (start == end)
		return;
	folio = rm_shmem_cut(store, end);
	if (folio) {
		border = rm_folio_first(folio, end);
		rm_shmem_clear(folio, border, end);
		end = border;
	}
	if (start == end)
		return;
	shmem_truncate_range(file_inode(rm_shmem_file(store)),
			     (loff_t)start << PAGE_SHIFT,
			     ((loff_t)end << PAGE_SHIFT) - 1);
}

const struct rm_store_ops rm_shmem_ops = {
	.name = "shmem",
	.maps_pages = true,
	.page_sizes = rm_shmem_page_sizes,
	.init = rm_shmem_set_up,
	.destroy = rm_shmem_destroy,
	.get = rm_shmem_get,
	.find = rm_shmem_find,
	.owns = rm_shmem_owns,
	.split = rm_shmem_split,
	.discard = rm_shmem_discard,
};

/**
 * rm_shmem_give_policy() - make a NUMA policy for a file of another filesystem
 * @config: the policy
 * @policy: where it goes; holds none yet
 *
 * The functions that make policies are not for modules, but tmpfs makes one for
 * each file of a mount that has it, and the file's can be taken away.
 *
 * Context: Process context, may sleep. Nobody else uses @policy yet.
 * Return: 0; -EINVAL current's cpuset has none of the nodes; -ENOMEM.
 */
int rm_shmem_give_policy(const struct rm_store_config *config,
			 struct shared_policy *policy)
{
#ifdef CONFIG_NUMA
	struct rm_shmem_mount *mount;
	struct file *file;

	if (config->numa == RESTRICTEDMEM_NUMA_DEFAULT)
		return 0;
	mount = rm_shmem_mount_get(config);
	if (IS_ERR(mount))
		return PTR_ERR(mount);
	file = rm_shmem_file_create(config, mount, 0);
	if (!IS_ERR(file)) {
		swap(policy->root, SHMEM_I(file_inode(file))->policy.root);
		fput(file);
	}
	rm_shmem_mount_put(mount);
	return PTR_ERR_OR_ZERO(file);
#else
	return 0;
#endif
}

static struct rm_shmem_mount *rm_shmem_defaults[2];

/**
 * rm_shmem_init() - mount what most files live on, and keep it
 *
 * Context: Module load.
 * Return: 0 or -errno.
 */
int rm_shmem_init(void)
{
	static const u32 thp[] = { RESTRICTEDMEM_THP_ALWAYS,
				   RESTRICTEDMEM_THP_NEVER };
	int i;

	for (i = 0; i < ARRAY_SIZE(thp); i++) {
		const struct rm_store_config config = { .thp = thp[i] };
		struct rm_shmem_mount *mount = rm_shmem_mount_get(&config);

		if (IS_ERR(mount)) {
			rm_shmem_exit();
			return PTR_ERR(mount);
		}
		rm_shmem_defaults[i] = mount;
	}
	return 0;
}

/**
 * rm_shmem_exit() - undo rm_shmem_init()
 *
 * Context: Module unload; no file is left.
 */
void rm_shmem_exit(void)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(rm_shmem_defaults); i++)
		if (rm_shmem_defaults[i])
			rm_shmem_mount_put(rm_shmem_defaults[i]);
}
