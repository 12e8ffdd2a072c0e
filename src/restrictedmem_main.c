// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * The module, its parameters, and /dev/restrictedmem with its ioctls.
 *
 * Every ioctl's argument begins with its size; rm_ioctls[] says how much of it
 * the first version of the ABI had, and rm_ioctl_execute() does the rest.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/cpuset.h>
#include <linux/log2.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/nodemask.h>
#include <linux/uaccess.h>

#include "restrictedmem_internal.h"
#include "restrictedmem_ioctl.h"

static unsigned long long limit;
module_param(limit, ullong, 0644);
MODULE_PARM_DESC(limit, "most bytes that all files together may hold (0: no limit)");

static bool thp = true;
module_param(thp, bool, 0644);
MODULE_PARM_DESC(thp, "huge pages for files that leave the choice to the module");

/**
 * rm_limit_pages() - the module's limit
 *
 * Context: Any.
 * Return: pages, 0 for none.
 */
u64 rm_limit_pages(void)
{
	u64 bytes = READ_ONCE(limit);

	return bytes ? max_t(u64, bytes >> PAGE_SHIFT, 1) : 0;
}

static u32 rm_thp_default(void)
{
	return READ_ONCE(thp) ? RESTRICTEDMEM_THP_ALWAYS :
				RESTRICTEDMEM_THP_NEVER;
}

/**
 * rm_default_config() - what a file is that nobody said anything about
 * @config: to be filled in
 *
 * Context: Any.
 */
void rm_default_config(struct rm_store_config *config)
{
	*config = (struct rm_store_config) {
		.ops = &rm_shmem_ops,
		.page_size = PAGE_SIZE,
		.thp = rm_thp_default(),
	};
}

static long rm_ioctl_info(struct file *file, void *arg, void __user *uarg,
			  u32 usize)
{
	struct restrictedmem_info *info = arg;
	u32 store;

	memset(info, 0, sizeof(*info));
	info->size = sizeof(*info);
	info->abi_version = RESTRICTEDMEM_ABI_VERSION;
	info->features = RESTRICTEDMEM_FEATURE_ALIASES |
			 RESTRICTEDMEM_FEATURE_LINK |
			 RESTRICTEDMEM_FEATURE_IN_PLACE;
	if (IS_ENABLED(CONFIG_NUMA))
		info->features |= RESTRICTEDMEM_FEATURE_NUMA;
	if (rm_kvm_is_loaded())
		info->features |= RESTRICTEDMEM_FEATURE_KVM;
	if (rm_shmem_has_huge())
		info->features |= RESTRICTEDMEM_FEATURE_THP;
	info->limit = READ_ONCE(limit);
	info->resident = rm_store_total_resident() << PAGE_SHIFT;
	for (store = 0; store < RESTRICTEDMEM_NR_STORES; store++) {
		const struct rm_store_ops *ops = rm_store_lookup_ops(store);

		if (ops)
			info->page_sizes[store] = ops->page_sizes();
	}

	if (copy_to_user(uarg, info, min_t(u32, usize, sizeof(*info))))
		return -EFAULT;
	return 0;
}

static int rm_config_store(const struct restrictedmem_create *args,
			   struct rm_store_config *config)
{
	const struct rm_store_ops *ops;
	u64 sizes, size;

	switch (args->store) {
	case RESTRICTEDMEM_STORE_SHMEM:
	case RESTRICTEDMEM_STORE_HUGETLB:
	case RESTRICTEDMEM_STORE_POOL:
		break;
	default:
		return -EINVAL;
	}
	ops = rm_store_lookup_ops(args->store);
	sizes = ops ? ops->page_sizes() : 0;
	if (!sizes)
		return -EOPNOTSUPP;
	size = args->page_size ?: sizes & -sizes;
	if (!is_power_of_2(size) || !(size & sizes))
		return -EINVAL;
	config->ops = ops;
	config->page_size = size;
	return 0;
}

static int rm_config_thp(const struct restrictedmem_create *args,
			 struct rm_store_config *config)
{
	if (args->store != RESTRICTEDMEM_STORE_SHMEM)
		return args->thp ? -EINVAL : 0;
	if (args->thp > RESTRICTEDMEM_THP_WITHIN_SIZE)
		return -EINVAL;
	config->thp = args->thp ?: rm_thp_default();
	return 0;
}

static int rm_config_numa(const struct restrictedmem_create *args,
			  struct rm_store_config *config)
{
	unsigned int node;

	if (args->reserved || args->numa > RESTRICTEDMEM_NUMA_INTERLEAVE ||
	    !args->numa != !args->nodes)
		return -EINVAL;
	if (!args->numa)
		return 0;
	if (!IS_ENABLED(CONFIG_NUMA))
		return -EOPNOTSUPP;
	if (args->numa == RESTRICTEDMEM_NUMA_PREFERRED &&
	    !is_power_of_2(args->nodes))
		return -EINVAL;
	for (node = 0; node < BITS_PER_TYPE(args->nodes); node++) {
		if (!(args->nodes & BIT_ULL(node)))
			continue;
		if (node >= MAX_NUMNODES || !node_state(node, N_MEMORY))
			return -EINVAL;
		node_set(node, config->nodes);
	}
	/* That of a file whose size is set later is looked at again then. */
	if (!nodes_intersects(config->nodes, cpuset_current_mems_allowed))
		return -EINVAL;
	config->numa = args->numa;
	return 0;
}

static int rm_config_reserve(const struct restrictedmem_create *args,
			     struct rm_store_config *config)
{
	if (!(args->flags & RESTRICTEDMEM_CREATE_RESERVE))
		return 0;
	/* A pool sets pages aside on whatever node has them. */
	if (args->store != RESTRICTEDMEM_STORE_HUGETLB ||
	    args->numa == RESTRICTEDMEM_NUMA_BIND)
		return -EOPNOTSUPP;
	config->reserve = true;
	return 0;
}

static long rm_ioctl_create(struct file *file, void *arg, void __user *uarg,
			    u32 usize)
{
	struct restrictedmem_create *args = arg;
	struct rm_store_config config = {};
	int r;

	if (args->flags & ~(RESTRICTEDMEM_CREATE_ALIASES |
			    RESTRICTEDMEM_CREATE_VIEWS |
			    RESTRICTEDMEM_CREATE_RESERVE |
			    RESTRICTEDMEM_CREATE_IN_PLACE))
		return -EINVAL;
	r = rm_config_store(args, &config);
	if (!r)
		r = rm_config_thp(args, &config);
	if (!r)
		r = rm_config_numa(args, &config);
	if (!r)
		r = rm_config_reserve(args, &config);
	if (r)
		return r;
	if (!IS_ALIGNED(args->length, config.page_size) ||
	    args->length > MAX_LFS_FILESIZE)
		return -EINVAL;

	return rm_file_create_fd(&config, args->length, args->flags, 0);
}

static const struct rm_ioctl rm_ioctls[] = {
	{
		.cmd = RESTRICTEDMEM_INFO,
		.size = sizeof(struct restrictedmem_info),
		.min_size = offsetofend(struct restrictedmem_info, page_sizes),
		.execute = rm_ioctl_info,
	}, {
		.cmd = RESTRICTEDMEM_CREATE,
		.size = sizeof(struct restrictedmem_create),
		.min_size = offsetofend(struct restrictedmem_create, thp),
		.execute = rm_ioctl_create,
	},
};

/* The sizes are ABI. */
static_assert(sizeof(struct restrictedmem_info) == 96);
static_assert(sizeof(struct restrictedmem_info) <= RM_IOCTL_MAX_SIZE);
static_assert(sizeof(struct restrictedmem_create) == 48);

static long rm_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	return rm_ioctl_execute(rm_ioctls, ARRAY_SIZE(rm_ioctls), file, cmd,
				(void __user *)arg);
}

static const struct file_operations rm_device_ops = {
	.owner = THIS_MODULE,
	.unlocked_ioctl = rm_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
	.llseek = noop_llseek,
};

static struct miscdevice rm_device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "restrictedmem",
	.fops = &rm_device_ops,
	.mode = 0600,
};

static int __init rm_init(void)
{
	int r;

	r = rm_file_init();
	if (r)
		return r;
	r = rm_shmem_init();
	if (r)
		goto err_file;
	r = rm_hugetlb_init();
	if (r)
		goto err_shmem;
	r = rm_poison_init();
	if (r)
		goto err_hugetlb;
	r = misc_register(&rm_device);
	if (r)
		goto err_poison;
	rm_stats_init();
	return 0;

err_poison:
	rm_poison_exit();
err_hugetlb:
	rm_hugetlb_exit();
err_shmem:
	rm_shmem_exit();
err_file:
	rm_file_exit();
	return r;
}
module_init(rm_init);

static void __exit rm_exit(void)
{
	misc_deregister(&rm_device);
	rm_stats_exit();
	rm_poison_exit();
	rm_hugetlb_exit();
	rm_shmem_exit();
	rm_file_exit();
	rm_limit_exit();
}
module_exit(rm_exit);

MODULE_AUTHOR("The restrictedmem authors");
MODULE_DESCRIPTION("Memory for guests that the host's processes cannot touch");
MODULE_LICENSE("GPL");
