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

#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/module.h>
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

/**
 * rm_thp_default() - what RESTRICTEDMEM_THP_DEFAULT stands for
 *
 * Context: Any.
 * Return: RESTRICTEDMEM_THP_ALWAYS or RESTRICTEDMEM_THP_NEVER.
 */
u32 rm_thp_default(void)
{
	return READ_ONCE(thp) ? RESTRICTEDMEM_THP_ALWAYS :
				RESTRICTEDMEM_THP_NEVER;
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
			 RESTRICTEDMEM_FEATURE_LINK;
	if (rm_kvm_is_loaded())
		info->features |= RESTRICTEDMEM_FEATURE_KVM;
	if (rm_shmem_ops.huge())
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

static long rm_ioctl_create(struct file *file, void *arg, void __user *uarg,
			    u32 usize)
{
	struct restrictedmem_create *args = arg;
	const struct rm_store_ops *ops;
	u64 page_sizes, page_size;

	if (args->flags & ~(RESTRICTEDMEM_CREATE_ALIASES |
			    RESTRICTEDMEM_CREATE_VIEWS))
		return -EINVAL;
	switch (args->store) {
	case RESTRICTEDMEM_STORE_SHMEM:
	case RESTRICTEDMEM_STORE_HUGETLB:
	case RESTRICTEDMEM_STORE_POOL:
		break;
	default:
		return -EINVAL;
	}
	if (args->thp > RESTRICTEDMEM_THP_NEVER ||
	    (args->thp && args->store != RESTRICTEDMEM_STORE_SHMEM))
		return -EINVAL;

	ops = rm_store_lookup_ops(args->store);
	page_sizes = ops ? ops->page_sizes() : 0;
	if (!page_sizes)
		return -EOPNOTSUPP;

	page_size = args->page_size ?: page_sizes & -page_sizes;
	if (!is_power_of_2(page_size) || !(page_size & page_sizes))
		return -EINVAL;
	if (!IS_ALIGNED(args->length, page_size) || args->length > MAX_LFS_FILESIZE)
		return -EINVAL;

	return rm_file_create_fd(args, 0);
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
static_assert(sizeof(struct restrictedmem_create) == 32);

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
	r = rm_poison_init();
	if (r)
		goto err_shmem;
	r = misc_register(&rm_device);
	if (r)
		goto err_poison;
	return 0;

err_poison:
	rm_poison_exit();
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
	rm_poison_exit();
	rm_shmem_exit();
	rm_file_exit();
}
module_exit(rm_exit);

MODULE_AUTHOR("The restrictedmem authors");
MODULE_DESCRIPTION("Memory for guests that the host's processes cannot touch");
MODULE_LICENSE("GPL");
