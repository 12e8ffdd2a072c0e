// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * Free memory of the guest goes back to the host: a virtio balloon that is never
 * inflated, with free page reporting. The guest's kernel says from time to time
 * which large blocks nobody uses, and they are punched out of the memory file.
 *
 * No data goes through the device. All it wants to see of the guest's memory is
 * the queue, one page that has nothing else in it; where RAM is private, that
 * page is made a shared one while the queue is in use. The guest's stock driver
 * needs no help for this: it knows nothing of private memory, and need not.
 *
 * Who can write to the queue can have any page of RAM freed. So no backend may have
 * the page, and the balloon does without one that they have, be it only as a part of
 * a region that the guest does not share any more.
 */
#include <poll.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <linux/virtio_balloon.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_ring.h>

#include "virtio.h"

#define QUEUE_SIZE	32	/* what Linux reports at a time */
#define REPORTING	2	/* behind those to inflate and deflate, which do nothing */
#define CLASS_OTHER	0x00ff00
#define PIECE		(64 * MIB)	/* that is freed without a look at who waits */

static struct balloon {
	struct virtio_dev dev;
	bool misplaced, visible;	/* the queue was, which was said; guarded by dev.lock */

	/*
	 * Guards what follows, inside of vm->mem_lock. Held for one report at a
	 * time, and not for all of one that is long: the thread that serves them
	 * lets all go first who want it.
	 */
	pthread_mutex_t lock;
	unsigned int waiting;
	struct borrowed page;		/* with the queue */
	u64 desc, avail, used;		/* offsets in the page */
	u16 next;
	bool broken;			/* the driver is to hear of it */
	bool ahead;			/* the queue's index was, which was said */
} balloon = {
	.lock = PTHREAD_MUTEX_INITIALIZER,
};

static void lock_queue(void)
{
	__atomic_fetch_add(&balloon.waiting, 1, __ATOMIC_RELAXED);
	pthread_mutex_lock(&balloon.lock);
	__atomic_fetch_sub(&balloon.waiting, 1, __ATOMIC_RELAXED);
}

static void unlock_queue(void)
{
	pthread_mutex_unlock(&balloon.lock);
}

static struct vring_desc *desc_at(u16 i)
{
	return (struct vring_desc *)(balloon.page.at + balloon.desc) + i % QUEUE_SIZE;
}

/* Does somebody want the queue, or an end? A report is a hint: the rest of it can stay. */
static bool is_wanted(struct vm *vm)
{
	return __atomic_load_n(&balloon.waiting, __ATOMIC_RELAXED) || vm_ended(vm);
}

/* In pieces, which are whole pages of a pool: a block is up to 4 GiB. */
static void serve_block(struct vm *vm, u64 gpa, u64 end)
{
	u64 piece = vm->opt->pool > PIECE ? vm->opt->pool : PIECE;

	while (gpa < end && !is_wanted(vm)) {
		u64 next = (gpa / piece + 1) * piece;

		if (next > end)
			next = end;
		vm_discard(vm, gpa, next - gpa);
		gpa = next;
	}
}

/*
 * Punches the blocks of one report. The guest may change any word of the queue
 * at any time: each is read once.
 */
static void serve_report(struct vm *vm, u16 head)
{
	u16 i = head, nr;

	for (nr = 0; nr < QUEUE_SIZE && !is_wanted(vm); nr++) {
		struct vring_desc desc;

		memcpy(&desc, (const void *)desc_at(i), sizeof(desc));
		__atomic_signal_fence(__ATOMIC_SEQ_CST);
		if (vm_is_ram(vm, desc.addr, desc.len))
			serve_block(vm, desc.addr, desc.addr + desc.len);
		if (!(desc.flags & VRING_DESC_F_NEXT))
			break;
		i = desc.next;
	}
}

/* Returns false if there is no report, or no queue. */
static bool serve_one(struct vm *vm)
{
	struct vring_avail *avail;
	struct vring_used *used;
	u16 head, ahead;

	if (!balloon.page.at || balloon.broken)
		return false;
	avail = (void *)(balloon.page.at + balloon.avail);
	used = (void *)(balloon.page.at + balloon.used);
	ahead = __atomic_load_n(&avail->idx, __ATOMIC_ACQUIRE) - balloon.next;
	if (ahead > QUEUE_SIZE) {
		fail_once(&balloon.ahead,
			  "the balloon's queue has more in it than there is room for");
		balloon.broken = true;
	}
	if (!ahead || balloon.broken)
		return false;
	head = __atomic_load_n(&avail->ring[balloon.next % QUEUE_SIZE], __ATOMIC_RELAXED);
	serve_report(vm, head);
	used->ring[balloon.next % QUEUE_SIZE] = (struct vring_used_elem){
		.id = head % QUEUE_SIZE,
	};
	__atomic_store_n(&used->idx, ++balloon.next, __ATOMIC_RELEASE);
	return true;
}

/* Returns false if the queue is broken. */
static bool serve_queue(struct vm *vm)
{
	bool more, broken;

	do {
		while (__atomic_load_n(&balloon.waiting, __ATOMIC_RELAXED))
			sched_yield();
		pthread_mutex_lock(&balloon.lock);
		more = serve_one(vm);
		broken = balloon.broken;
		pthread_mutex_unlock(&balloon.lock);
	} while (more && !vm_ended(vm));
	return !broken;
}

/* The driver may have reset the device since, and another one is not to hear of it. */
static void tell_the_driver(void)
{
	bool broken;

	pthread_mutex_lock(&balloon.dev.lock);
	pthread_mutex_lock(&balloon.lock);
	broken = balloon.broken;
	pthread_mutex_unlock(&balloon.lock);
	if (broken)
		virtio_failed(&balloon.dev);
	pthread_mutex_unlock(&balloon.dev.lock);
}

static void *balloon_thread(void *arg)
{
	const struct virtio_queue *queue = &balloon.dev.queues[REPORTING];
	struct pollfd kick = { .fd = queue->kick, .events = POLLIN };
	struct vm *vm = arg;
	u64 count;

	for (;;) {
		poll(&kick, 1, -1);
		if (read(kick.fd, &count, sizeof(count)) < 0)
			continue;
		if (serve_queue(vm))
			virtio_signal(queue->call);
		else
			tell_the_driver();
	}
	return NULL;
}

/* All three parts of the queue are in one page, as Linux puts them. */
static int start(struct virtio_dev *dev)
{
	const struct virtio_queue *queue = &dev->queues[REPORTING];
	u64 gpa = queue->desc / PAGE * PAGE;
	struct vm *vm = dev->vm;
	struct borrowed page = { 0 };
	int ret;

	if (queue->size != QUEUE_SIZE || queue->driver - gpa > PAGE - 128 ||
	    queue->device - gpa > PAGE - 512 || queue->desc - gpa > PAGE - 512 ||
	    (queue->desc | queue->device) % 4 || queue->driver % 2 ||
	    !vm_is_ram(vm, gpa, PAGE))
		return fail_once(&balloon.misplaced, "the balloon's queue is not in one page");
	pthread_mutex_lock(&vm->mem_lock);
	if (vm->in_place && vm->opt->nr_disks &&
	    (shared_covers(vm, gpa, PAGE) || vhost_blk_has(gpa)))
		ret = fail_once(&balloon.visible,
				"the balloon's queue is in a page that backends can write to");
	else
		ret = vm_borrow(vm, &page, gpa);
	if (!ret) {
		lock_queue();
		balloon.page = page;
		balloon.desc = queue->desc - gpa;
		balloon.avail = queue->driver - gpa;
		balloon.used = queue->device - gpa;
		balloon.next = 0;
		balloon.broken = false;
		unlock_queue();
	}
	pthread_mutex_unlock(&vm->mem_lock);
	return ret;
}

/* Under vm->mem_lock */
static void give_back(struct vm *vm)
{
	struct borrowed page;

	lock_queue();
	page = balloon.page;
	balloon.page.at = NULL;
	unlock_queue();
	if (page.at)
		vm_give_back(vm, &page);
}

static void stop(struct virtio_dev *dev)
{
	pthread_mutex_lock(&dev->vm->mem_lock);
	give_back(dev->vm);
	lock_queue();
	balloon.broken = false;
	unlock_queue();
	pthread_mutex_unlock(&dev->vm->mem_lock);
}

/*
 * The guest has other plans for the range. Should the queue be there, this is its
 * end. Under vm->mem_lock.
 */
void balloon_leave(struct vm *vm, u64 gpa, u64 size)
{
	if (!balloon.page.at || balloon.page.gpa < gpa || balloon.page.gpa - gpa >= size)
		return;
	give_back(vm);
	lock_queue();
	balloon.broken = true;
	unlock_queue();
	virtio_signal(balloon.dev.queues[REPORTING].kick);
}

/* The guest is to give up no page: all numbers are 0. */
static void read_config(struct virtio_dev *dev, u32 offset, void *data, unsigned int size)
{
	(void)dev;
	(void)offset;
	memset(data, 0, size);
}

static const struct virtio_ops ops = {
	.read_config = read_config,
	.start = start,
	.stop = stop,
};

int balloon_add(struct vm *vm)
{
	struct virtio_dev *dev = &balloon.dev;
	pthread_t thread;
	int ret;

	dev->ops = &ops;
	dev->offered = BIT(VIRTIO_BALLOON_F_REPORTING);
	for (dev->nr_queues = 0; dev->nr_queues <= REPORTING; dev->nr_queues++)
		dev->queues[dev->nr_queues].max_size = QUEUE_SIZE;
	if (virtio_add(vm, dev, VIRTIO_ID_BALLOON, CLASS_OTHER))
		return -1;
	ret = pthread_create(&thread, NULL, balloon_thread, vm);
	return ret ? fail("cannot start a thread: %s", strerror(ret)) : 0;
}
