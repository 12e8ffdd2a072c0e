// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * A consumer of restrictedmem, as small as can be: it binds the first pages of a
 * file that it is given, takes a page when it is asked to, remembers it as a guest's
 * page table would, and forgets it when the file says so. docs/consumers.rst
 * walks through it.
 *
 * Page indices are those of the file, ranges [start, end).
 */
#include <linux/debugfs.h>
#include <linux/err.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/seq_file.h>
#include <linux/string.h>
#include <linux/uaccess.h>

#include <linux/restrictedmem.h>

#define NR_PAGES	1024

/*
 * command_lock is for who binds and takes pages, and is held around the calls of
 * the API. map_lock is what the notifier takes: no such call is made under it.
 */
static DEFINE_MUTEX(command_lock);
static DEFINE_MUTEX(map_lock);

static struct restrictedmem_binding *binding;	/* command_lock */
static unsigned long mapped[NR_PAGES];		/* map_lock; pfns, 0 for none */
static unsigned long sequence;			/* written under map_lock */
static struct dentry *control;
static u64 owner;

/* The pages go when this returns: here a TLB would be flushed. */
static void consumer_invalidate_start(struct restrictedmem_notifier *notifier,
				      pgoff_t start, pgoff_t end)
{
	mutex_lock(&map_lock);
	for (; start < end; start++)
		mapped[start] = 0;
	WRITE_ONCE(sequence, sequence + 1);
	mutex_unlock(&map_lock);
}

static const struct restrictedmem_notifier_ops consumer_ops = {
	.owner = THIS_MODULE,
	.invalidate_start = consumer_invalidate_start,
};

static struct restrictedmem_notifier consumer_notifier = {
	.ops = &consumer_ops,
};

static int consumer_bind(int fd)
{
	struct restrictedmem_binding *new;
	struct file *file;

	if (binding)
		return -EBUSY;
	file = fget(fd);
	if (!file)
		return -EBADF;
	if (file_is_restrictedmem(file))
		new = restrictedmem_bind(file, 0, NR_PAGES, &consumer_notifier,
					 owner);
	else
		new = ERR_PTR(-EINVAL);
	/* The binding has a reference of its own. */
	fput(file);
	if (IS_ERR(new))
		return PTR_ERR(new);
	binding = new;
	return 0;
}

static int consumer_unbind(void)
{
	if (!binding)
		return -EINVAL;
	/* The mappings go first: of what goes later nobody is told. */
	consumer_invalidate_start(&consumer_notifier, 0, NR_PAGES);
	restrictedmem_unbind(binding);
	binding = NULL;
	return 0;
}

/* A guest's fault: the sequence says whether the page may still be mapped. */
static int consumer_touch(unsigned long index)
{
	struct restrictedmem_pfn pfn;
	unsigned long before;
	bool stale;
	int r;

	if (!binding || index >= NR_PAGES)
		return -EINVAL;
	do {
		before = READ_ONCE(sequence);
		/* The sequence is read before the page is looked for. */
		smp_rmb();
		r = restrictedmem_get_pfn(binding, index, &pfn);
		if (r)
			return r;

		mutex_lock(&map_lock);
		stale = sequence != before;
		if (!stale)
			mapped[index] = pfn.pfn;
		mutex_unlock(&map_lock);
		/* The file keeps the page in place; we are told before it goes. */
		restrictedmem_put_pfn(&pfn);
	} while (stale);
	return 0;
}

static int consumer_command(char *text)
{
	unsigned int number;

	if (sscanf(text, "bind %u", &number) == 1)
		return consumer_bind(number);
	if (sscanf(text, "touch %u", &number) == 1)
		return consumer_touch(number);
	if (!strcmp(strim(text), "unbind"))
		return consumer_unbind();
	return -EINVAL;
}

static ssize_t consumer_write(struct file *file, const char __user *from,
			      size_t len, loff_t *pos)
{
	char text[32] = "";
	int r;

	if (len >= sizeof(text))
		return -EINVAL;
	if (copy_from_user(text, from, len))
		return -EFAULT;
	mutex_lock(&command_lock);
	r = consumer_command(text);
	mutex_unlock(&command_lock);
	return r ? r : len;
}

static int consumer_show(struct seq_file *m, void *data)
{
	unsigned long index;

	mutex_lock(&map_lock);
	for (index = 0; index < NR_PAGES; index++)
		if (mapped[index])
			seq_printf(m, "%lu\n", index);
	mutex_unlock(&map_lock);
	return 0;
}

static int consumer_open(struct inode *inode, struct file *file)
{
	return single_open(file, consumer_show, NULL);
}

static const struct file_operations consumer_fops = {
	.owner = THIS_MODULE,
	.open = consumer_open,
	.read = seq_read,
	.write = consumer_write,
	.llseek = seq_lseek,
	.release = single_release,
};

static int __init consumer_init(void)
{
	owner = restrictedmem_new_owner();
	control = debugfs_create_file("restrictedmem_consumer", 0600, NULL, NULL,
				      &consumer_fops);
	return PTR_ERR_OR_ZERO(control);
}
module_init(consumer_init);

/* A binding holds the module: there is none by now. */
static void __exit consumer_exit(void)
{
	debugfs_remove(control);
}
module_exit(consumer_exit);

MODULE_AUTHOR("The restrictedmem authors");
MODULE_DESCRIPTION("Example of a consumer of restrictedmem");
MODULE_LICENSE("GPL");
