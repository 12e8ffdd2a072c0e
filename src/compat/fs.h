/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * Filesystem interfaces that change between kernels. The rest of the module
 * uses the names defined here and knows no kernel version.
 */
#ifndef RESTRICTEDMEM_COMPAT_FS_H
#define RESTRICTEDMEM_COMPAT_FS_H

#include <linux/fs.h>

/*
 * What the inode operations get as their first argument. From 6.3 it is a
 * struct mnt_idmap; this may go when 6.1 is no longer built for.
 */
#define rm_idmap user_namespace

static inline void rm_fill_stat(struct rm_idmap *idmap, u32 request_mask,
				struct inode *inode, struct kstat *stat)
{
	generic_fillattr(idmap, inode, stat);
}

#endif /* RESTRICTEDMEM_COMPAT_FS_H */
