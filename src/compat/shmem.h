/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * What changes between kernels about shmem.
 */
#ifndef RESTRICTEDMEM_COMPAT_SHMEM_H
#define RESTRICTEDMEM_COMPAT_SHMEM_H

#include <linux/fs.h>
#include <linux/pagemap.h>
#include <linux/shmem_fs.h>

/*
 * The locked folio with page @index of a shmem file, to be written, with a
 * reference; allocated by the mapping's gfp mask if need be, and then not
 * up to date. Or an ERR_PTR: -ENOMEM, -ENOSPC, -EIO for a page with an error.
 *
 * From 6.12 write_begin gives the folio itself; this may go when 6.1 is no
 * longer built for.
 */
static inline struct folio *rm_shmem_write_begin(struct file *file,
						 pgoff_t index)
{
	struct address_space *mapping = file->f_mapping;
	struct page *page;
	void *fsdata;
	int r;

	r = mapping->a_ops->write_begin(file, mapping,
					(loff_t)index << PAGE_SHIFT, PAGE_SIZE,
					&page, &fsdata);
	return r ? ERR_PTR(r) : page_folio(page);
}

/*
 * Make small folios of the one with page @index of a shmem file, if nobody holds
 * it but the page cache. The kernel's function for that is not for modules, but
 * shmem splits a folio of which it is to free a part, after it has zeroed that:
 * here not a single byte.
 */
static inline void rm_shmem_split_folio(struct file *file, pgoff_t index)
{
	loff_t pos = (loff_t)index << PAGE_SHIFT;

	shmem_truncate_range(file_inode(file), pos + 1, pos);
}

#endif /* RESTRICTEDMEM_COMPAT_SHMEM_H */
