// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * For a Linux guest whose RAM is private, for tests and demonstrations: some
 * pages that a program shares with the VMM and takes back (KVM_HC_MAP_GPA_RANGE,
 * which only the kernel may ask for).
 *
 *	/dev/rmpage	mmap(2) gives the pages. What is written to it is done:
 *			"share FIRST COUNT" or "private FIRST COUNT", in pages, or
 *			with "share@" and "private@" in the guest's page numbers,
 *			whosever pages these are. read(2) says where ours are.
 */
#include <linux/bits.h>
#include <linux/fs.h>
#include <linux/io.h>
#include <linux/kvm_para.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/uaccess.h>
#include <asm/kvm_para.h>

#define PAGES_ORDER	9
#define PAGES		BIT(PAGES_ORDER)

static char *pages;

static ssize_t rmpage_write(struct file *file, const char __user *from, size_t len, loff_t *pos)
{
	char text[64] = "", word[12];
	unsigned long first, count;
	long ret;

	if (len >= sizeof(text))
		return -EINVAL;
	if (copy_from_user(text, from, len))
		return -EFAULT;
	if (sscanf(text, "%11s %lu %lu", word, &first, &count) != 3)
		return -EINVAL;
	if (!strchr(word, '@')) {
		if (first >= PAGES || !count || count > PAGES - first)
			return -EINVAL;
		first += virt_to_phys(pages) >> PAGE_SHIFT;
	}
	ret = kvm_hypercall3(KVM_HC_MAP_GPA_RANGE, first << PAGE_SHIFT, count,
			     word[0] == 's' ? KVM_MAP_GPA_RANGE_DECRYPTED :
			     KVM_MAP_GPA_RANGE_ENCRYPTED);
	/* KVM's own numbers are not errno's. */
	return ret == -EAGAIN ? -EAGAIN : ret ? -EIO : len;
}

static ssize_t rmpage_read(struct file *file, char __user *to, size_t len, loff_t *pos)
{
	char text[32];
	int n = snprintf(text, sizeof(text), "%#llx %lu\n", (u64)virt_to_phys(pages), PAGES);

	return simple_read_from_buffer(to, len, pos, text, n);
}

static int rmpage_mmap(struct file *file, struct vm_area_struct *vma)
{
	unsigned long len = vma->vm_end - vma->vm_start;

	if (vma->vm_pgoff || len > PAGES * PAGE_SIZE)
		return -EINVAL;
	return remap_pfn_range(vma, vma->vm_start, virt_to_phys(pages) >> PAGE_SHIFT, len,
			       vma->vm_page_prot);
}

static const struct file_operations rmpage_fops = {
	.owner = THIS_MODULE,
	.read = rmpage_read,
	.write = rmpage_write,
	.mmap = rmpage_mmap,
};

static struct miscdevice rmpage_device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "rmpage",
	.fops = &rmpage_fops,
};

/* There is no way to unload it: a page that is shared must not be freed. */
static int __init rmpage_init(void)
{
	pages = (char *)__get_free_pages(GFP_KERNEL | __GFP_ZERO, PAGES_ORDER);
	if (!pages)
		return -ENOMEM;
	return misc_register(&rmpage_device);
}
module_init(rmpage_init);

MODULE_DESCRIPTION("Pages that a guest's program shares with the VMM");
MODULE_LICENSE("GPL");
