// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * What there is to look at: fdinfo of each file, and in debugfs the totals and
 * a line for each inode, also for one that only a binding holds. All numbers are
 * bytes, and come from the counters that the module itself goes by.
 */
#include <linux/debugfs.h>
#include <linux/fs.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/nodemask.h>
#include <linux/seq_file.h>

#include "restrictedmem_internal.h"

static struct dentry *rm_debugfs;

static u64 rm_bytes(unsigned long nr_pages)
{
	return (u64)nr_pages << PAGE_SHIFT;
}

static u64 rm_read_bytes(atomic_long_t *nr_pages)
{
	return rm_bytes(atomic_long_read(nr_pages));
}

static const char *rm_thp_name(u32 thp)
{
	switch (thp) {
	case RESTRICTEDMEM_THP_ALWAYS:
		return "always";
	case RESTRICTEDMEM_THP_NEVER:
		return "never";
	case RESTRICTEDMEM_THP_WITHIN_SIZE:
		return "within_size";
	default:
		return "-";
	}
}

static const char * const rm_numa_names[] = {
	[RESTRICTEDMEM_NUMA_DEFAULT] = "default",
	[RESTRICTEDMEM_NUMA_BIND] = "bind:",
	[RESTRICTEDMEM_NUMA_PREFERRED] = "preferred:",
	[RESTRICTEDMEM_NUMA_INTERLEAVE] = "interleave:",
};

static void rm_show_config(struct seq_file *m,
			   const struct rm_store_config *config)
{
	seq_printf(m, "store:\t%s\n", config->ops->name);
	seq_printf(m, "page_size:\t%lu\n", config->page_size);
	seq_printf(m, "thp:\t%s\n", rm_thp_name(config->thp));
	seq_printf(m, "numa:\t%s%*pbl\n", rm_numa_names[config->numa],
		   nodemask_pr_args(&config->nodes));
}

/* Without a size there are no counters for the nodes. */
static void rm_show_resident(struct seq_file *m, struct rm_inode *ri)
{
	struct rm_store *store = &ri->store;
	/* Pairs with the release in rm_store_set_size(). */
	atomic_long_t *by_node = smp_load_acquire(&store->by_node);
	int order, node;

	seq_printf(m, "size:\t%lld\n", i_size_read(&ri->vfs_inode));
	seq_printf(m, "reserved:\t%llu\n",
		   rm_bytes(READ_ONCE(store->reserved)));
	seq_printf(m, "resident:\t%llu\n", rm_read_bytes(&store->resident));
	for (order = 0; order < RM_NR_ORDERS; order++)
		if (atomic_long_read(&store->by_order[order]))
			seq_printf(m, "resident_order%d:\t%llu\n", order,
				   rm_read_bytes(&store->by_order[order]));
	if (by_node)
		for_each_node_state(node, N_MEMORY)
			seq_printf(m, "resident_node%d:\t%llu\n", node,
				   rm_read_bytes(&by_node[node]));
	seq_printf(m, "poisoned:\t%llu\n", rm_bytes(READ_ONCE(store->nr_lost)));
	seq_printf(m, "shared:\t%llu\n", rm_bytes(READ_ONCE(ri->nr_shared)));
	seq_printf(m, "windows:\t%u\n", READ_ONCE(ri->nr_windows));
}

/**
 * rm_show_fdinfo() - the file's lines in /proc/PID/fdinfo
 * @m: where they go
 * @file: one of ours
 *
 * Context: Process context, may sleep.
 */
void rm_show_fdinfo(struct seq_file *m, struct file *file)
{
	struct rm_inode *ri = rm_inode(file_inode(file));
	struct rm_view *view = file->private_data;
	unsigned int bindings, own;
	u64 owner;

	rm_show_config(m, &ri->store.config);
	rm_show_resident(m, ri);
	down_read(&ri->binding_lock);
	bindings = ri->nr_bindings;
	own = view->nr_bindings;
	owner = view->owner;
	up_read(&ri->binding_lock);
	seq_printf(m, "bindings:\t%u\n", bindings);
	seq_printf(m, "view_bindings:\t%u\n", own);
	seq_printf(m, "owner:\t%llu\n", owner);
	seq_printf(m, "flags:\t%#x\n", ri->flags);
}

static int rm_resident_get(void *data, u64 *value)
{
	*value = rm_bytes(rm_store_total_resident());
	return 0;
}

static int rm_charged_get(void *data, u64 *value)
{
	*value = rm_bytes(rm_charged_pages());
	return 0;
}

DEFINE_DEBUGFS_ATTRIBUTE(rm_resident_fops, rm_resident_get, NULL, "%llu\n");
DEFINE_DEBUGFS_ATTRIBUTE(rm_charged_fops, rm_charged_get, NULL, "%llu\n");

static void rm_show_inode(struct rm_inode *ri, void *data)
{
	seq_printf(data, "%lu\t%s\t%lu\t%lld\t%llu\t%llu\t%u\n",
		   ri->vfs_inode.i_ino, ri->store.config.ops->name,
		   ri->store.config.page_size, i_size_read(&ri->vfs_inode),
		   rm_read_bytes(&ri->store.resident),
		   rm_bytes(READ_ONCE(ri->store.nr_lost)),
		   READ_ONCE(ri->nr_bindings));
}

static int rm_inodes_show(struct seq_file *m, void *data)
{
	seq_puts(m, "inode\tstore\tpage_size\tsize\tresident\tpoisoned\tbindings\n");
	rm_inode_for_each(rm_show_inode, m);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(rm_inodes);

/**
 * rm_stats_init() - make the files in debugfs
 *
 * Context: Module load. Nothing depends on them.
 */
void rm_stats_init(void)
{
	rm_debugfs = debugfs_create_dir("restrictedmem", NULL);
	debugfs_create_file_unsafe("resident", 0444, rm_debugfs, NULL,
				   &rm_resident_fops);
	debugfs_create_file_unsafe("charged", 0444, rm_debugfs, NULL,
				   &rm_charged_fops);
	debugfs_create_file("inodes", 0444, rm_debugfs, NULL, &rm_inodes_fops);
}

/**
 * rm_stats_exit() - undo rm_stats_init()
 *
 * Context: Module unload.
 */
void rm_stats_exit(void)
{
	debugfs_remove_recursive(rm_debugfs);
}
