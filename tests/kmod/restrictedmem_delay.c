// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * Makes functions of the kernel slow, by name, for tests of races: a gap of some
 * nanoseconds between two steps becomes one of milliseconds. A test opens
 * /dev/restrictedmem_delay, adds places, and closes it when it is done.
 *
 * The wait is a busy one, from a kprobe or kretprobe, with preemption off: most of
 * the gaps worth stretching are under a spinlock or in RCU.
 *
 * Invariant: no probe is left once the file that asked for it is closed.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/atomic.h>
#include <linux/delay.h>
#include <linux/fs.h>
#include <linux/kprobes.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/uaccess.h>

#include "restrictedmem_delay.h"

#define RMD_FLAGS	(RMD_RETURN | RMD_RANDOM | RMD_THIS_THREAD | \
			 RMD_OTHER_THREADS | RMD_HOLD)

/**
 * struct rmd_probe - one place
 * @place: as it was asked for; constant
 * @owner: who asked, by thread id; constant
 * @calls: how often it was come by
 * @waits: how often it waited
 * @go: nobody is to wait any more
 * @entry: the probe, without RMD_RETURN
 * @ret: the probe, with RMD_RETURN
 */
struct rmd_probe {
	struct rmd_place place;
	pid_t owner;
	atomic64_t calls;
	atomic64_t waits;
	bool go;
	union {
		struct kprobe entry;
		struct kretprobe ret;
	};
};

/**
 * struct rmd_file - an open file
 * @lock: guards the rest
 * @nr: how many there are
 * @probes: places by number
 */
struct rmd_file {
	struct mutex lock; /* of nr and probes */
	unsigned int nr;
	struct rmd_probe *probes[RMD_MAX_PLACES];
};

/* splitmix64: well mixed from consecutive numbers */
static u64 rmd_mix(u64 x)
{
	x += 0x9e3779b97f4a7c15ULL;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
	return x ^ (x >> 31);
}

/* By the clock of loops: what the caller holds may keep other clocks from going. */
static void rmd_hold(struct rmd_probe *p)
{
	u32 i;

	for (i = 0; i < RMD_HOLD_MSEC * 200 && !READ_ONCE(p->go); i++)
		udelay(5);
}

static void rmd_wait(struct rmd_probe *p)
{
	const struct rmd_place *place = &p->place;
	bool own = task_pid_nr(current) == p->owner;
	u32 usec = place->usec;
	u64 r;

	if ((place->flags & RMD_THIS_THREAD && !own) ||
	    (place->flags & RMD_OTHER_THREADS && own) || READ_ONCE(p->go))
		return;
	r = rmd_mix(place->seed + atomic64_inc_return(&p->calls));
	if ((u32)r % 100 >= place->percent)
		return;
	if (place->flags & RMD_RANDOM)
		usec = (r >> 32) % (usec + 1);
	atomic64_inc(&p->waits);
	if (place->flags & RMD_HOLD) {
		rmd_hold(p);
		return;
	}
	mdelay(usec / 1000);
	udelay(usec % 1000);
}

static int rmd_entry(struct kprobe *probe, struct pt_regs *regs)
{
	rmd_wait(container_of(probe, struct rmd_probe, entry));
	return 0;
}

static int rmd_return(struct kretprobe_instance *instance, struct pt_regs *regs)
{
	struct kretprobe *probe = get_kretprobe(instance);

	if (probe)
		rmd_wait(container_of(probe, struct rmd_probe, ret));
	return 0;
}

static int rmd_register(struct rmd_probe *p)
{
	if (p->place.flags & RMD_RETURN) {
		p->ret.kp.symbol_name = p->place.symbol;
		p->ret.handler = rmd_return;
		p->ret.maxactive = 64;
		return register_kretprobe(&p->ret);
	}
	p->entry.symbol_name = p->place.symbol;
	p->entry.offset = p->place.offset;
	p->entry.pre_handler = rmd_entry;
	return register_kprobe(&p->entry);
}

static void rmd_unregister(struct rmd_probe *p)
{
	if (p->place.flags & RMD_RETURN)
		unregister_kretprobe(&p->ret);
	else
		unregister_kprobe(&p->entry);
}

static bool rmd_is_valid(const struct rmd_place *place)
{
	return strnlen(place->symbol, RMD_NAME_LEN) < RMD_NAME_LEN &&
	       place->usec <= RMD_MAX_USEC && place->percent &&
	       place->percent <= 100 && !(place->flags & ~RMD_FLAGS) &&
	       !(place->flags & RMD_RETURN && place->offset) &&
	       !(place->flags & RMD_HOLD && place->usec);
}

static long rmd_add(struct rmd_file *f, const void __user *arg)
{
	struct rmd_probe *p;
	long r;

	p = kzalloc(sizeof(*p), GFP_KERNEL);
	if (!p)
		return -ENOMEM;
	r = -EFAULT;
	if (copy_from_user(&p->place, arg, sizeof(p->place)))
		goto err_free;
	r = -EINVAL;
	if (!rmd_is_valid(&p->place))
		goto err_free;
	p->owner = task_pid_nr(current);
	r = -ENOSPC;
	if (f->nr == RMD_MAX_PLACES)
		goto err_free;
	r = rmd_register(p);
	if (r)
		goto err_free;
	f->probes[f->nr] = p;
	return f->nr++;

err_free:
	kfree(p);
	return r;
}

static long rmd_hits(struct rmd_file *f, void __user *arg)
{
	struct rmd_hits hits;

	if (copy_from_user(&hits, arg, sizeof(hits)))
		return -EFAULT;
	if (hits.place >= f->nr)
		return -EINVAL;
	hits.calls = atomic64_read(&f->probes[hits.place]->calls);
	hits.waits = atomic64_read(&f->probes[hits.place]->waits);
	return copy_to_user(arg, &hits, sizeof(hits)) ? -EFAULT : 0;
}

static void rmd_go(struct rmd_file *f)
{
	unsigned int i;

	for (i = 0; i < f->nr; i++)
		WRITE_ONCE(f->probes[i]->go, true);
}

static void rmd_clear(struct rmd_file *f)
{
	while (f->nr) {
		struct rmd_probe *p = f->probes[--f->nr];

		rmd_unregister(p);
		kfree(p);
	}
}

static long rmd_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	struct rmd_file *f = file->private_data;
	long r = 0;

	mutex_lock(&f->lock);
	switch (cmd) {
	case RMD_ADD:
		r = rmd_add(f, (void __user *)arg);
		break;
	case RMD_HITS:
		r = rmd_hits(f, (void __user *)arg);
		break;
	case RMD_GO:
		rmd_go(f);
		break;
	case RMD_CLEAR:
		rmd_clear(f);
		break;
	default:
		r = -ENOTTY;
	}
	mutex_unlock(&f->lock);
	return r;
}

static int rmd_open(struct inode *inode, struct file *file)
{
	struct rmd_file *f = kzalloc(sizeof(*f), GFP_KERNEL);

	if (!f)
		return -ENOMEM;
	mutex_init(&f->lock);
	file->private_data = f;
	return 0;
}

static int rmd_release(struct inode *inode, struct file *file)
{
	struct rmd_file *f = file->private_data;

	rmd_clear(f);
	kfree(f);
	return 0;
}

static const struct file_operations rmd_ops = {
	.owner = THIS_MODULE,
	.open = rmd_open,
	.release = rmd_release,
	.unlocked_ioctl = rmd_ioctl,
};

static struct miscdevice rmd_device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "restrictedmem_delay",
	.fops = &rmd_ops,
	.mode = 0600,
};
module_misc_device(rmd_device);

MODULE_AUTHOR("The restrictedmem authors");
MODULE_DESCRIPTION("Delays at named functions, for tests of races");
MODULE_LICENSE("GPL");
