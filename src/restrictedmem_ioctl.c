// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * The one way in for ioctl arguments: see restrictedmem_ioctl.h.
 */
#include <linux/build_bug.h>
#include <linux/errno.h>
#include <linux/uaccess.h>

#include "restrictedmem_ioctl.h"

/**
 * rm_ioctl_execute() - find an ioctl, fetch its argument, run it
 * @table: the ioctls that there are
 * @count: how many
 * @file: what it was called on
 * @cmd: which one was called
 * @uarg: the caller's struct, which begins with its size
 *
 * Context: Process context, may sleep.
 * Return: what the ioctl returns; -ENOTTY an unknown number; -EFAULT; -EINVAL a
 * struct shorter than its first version; -E2BIG an unknown tail that is not 0.
 */
long rm_ioctl_execute(const struct rm_ioctl *table, unsigned int count,
		      struct file *file, unsigned int cmd, void __user *uarg)
{
	u8 arg[RM_IOCTL_MAX_SIZE] __aligned(8) = {};
	const struct rm_ioctl *ioctl = NULL;
	unsigned int i;
	u32 usize;
	int r;

	for (i = 0; i < count && !ioctl; i++)
		if (table[i].cmd == cmd)
			ioctl = &table[i];
	if (!ioctl)
		return -ENOTTY;

	if (get_user(usize, (u32 __user *)uarg))
		return -EFAULT;
	if (usize < ioctl->min_size)
		return -EINVAL;
	r = copy_struct_from_user(arg, ioctl->size, uarg, usize);
	if (r)
		return r;
	return ioctl->execute(file, arg, uarg, usize);
}
