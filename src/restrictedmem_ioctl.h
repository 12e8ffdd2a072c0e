/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * How an ioctl's argument comes in: structs that begin with their size, as
 * include/uapi/restrictedmem.h promises. The device and its files have a table
 * of ioctls each.
 */
#ifndef RESTRICTEDMEM_IOCTL_H
#define RESTRICTEDMEM_IOCTL_H

#include <linux/types.h>

struct file;

/* The largest argument's size in bytes. */
#define RM_IOCTL_MAX_SIZE	128

/**
 * struct rm_ioctl - one entry of an ioctl table
 * @cmd: its number
 * @size: bytes of its struct today
 * @min_size: bytes of its struct in the ABI's first version
 * @execute: gets the file, the struct with what the caller does not know zeroed,
 *	the caller's pointer and the caller's size
 */
struct rm_ioctl {
	unsigned int cmd;
	u32 size;
	u32 min_size;
	long (*execute)(struct file *file, void *arg, void __user *uarg,
			u32 usize);
};

long rm_ioctl_execute(const struct rm_ioctl *table, unsigned int count,
		      struct file *file, unsigned int cmd, void __user *uarg);

#endif /* RESTRICTEDMEM_IOCTL_H */
