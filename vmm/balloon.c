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
 */
#include <errno.h>
#include <poll.h>
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

static struct balloon {
	struct virtio_dev dev;

	/* Guarded by vm->mem_lock: the queue, and where we see its page, or NULL */
	u8 *page;
	u64 gpa;
	u64 desc, avail, used;	/* offsets in the page */
	u16 next;
} balloon;

static struct vring_desc *desc_at(u16 i)
{
	return (struct vring_desc *)(balloon.page + balloon.desc) + i % QUEUE_SIZE;
}

/*
 * Punches the blocks of one report. The guest may change any word of the queue
 * at any time: each is read once.
 */
static void serve_report(struct vm *vm, u16 head)
{
	u16 i = head, nr;

	for (nr = 0; nr < QUEUE_SIZE; nr++) {
		struct vring_desc desc;

		memcpy(&desc, (const void *)desc_at(i), sizeof(desc));
		__atomic_signal_fence(__ATOMIC_SEQ_CST);
		if (vm_is_ram(vm, desc.addr, desc.len))
			vm_discard_locked(vm, desc.addr, desc.len);
		if (!(desc.flags & VRING_DESC_F_NEXT))
			break;
		i = desc.next;
	}
}

static void serve_queue(struct vm *vm)
{
	struct vring_avail *avail = (void *)(balloon.page + balloon.avail);
	struct vring_used *used = (void *)(balloon.page + balloon.used);
	u64 one = 1;
	u16 head;

	while (balloon.next != __atomic_load_n(&avail->idx, __ATOMIC_ACQUIRE)) {
		head = __atomic_load_n(&avail->ring[balloon.next % QUEUE_SIZE], __ATOMIC_RELAXED);
		serve_report(vm, head);
		used->ring[balloon.next % QUEUE_SIZE] = (struct vring_used_elem){
			.id = head % QUEUE_SIZE,
		};
		__atomic_store_n(&used->idx, ++balloon.next, __ATOMIC_RELEASE);
	}
	if (write(balloon.dev.queues[REPORTING].call, &one, sizeof(one)) < 0)
		fail_errno("eventfd");
}

static void *balloon_thread(void *arg)
{
	struct vm *vm = arg;
	struct pollfd kick = { .fd = balloon.dev.queues[REPORTING].kick, .events = POLLIN };
	u64 count;

	for (;;) {
		poll(&kick, 1, -1);
		if (read(kick.fd, &count, sizeof(count)) < 0)
			continue;
		pthread_mutex_lock(&vm->mem_lock);
		if (balloon.page)
			serve_queue(vm);
		pthread_mutex_unlock(&vm->mem_lock);
	}
	return NULL;
}

/* All three parts of the queue are in one page, as Linux puts them. */
static int start(struct virtio_dev *dev)
{
	const struct virtio_queue *queue = &dev->queues[REPORTING];
	u64 gpa = queue->desc / PAGE * PAGE;
	u8 *page;

	if (queue->size != QUEUE_SIZE || queue->driver - gpa > PAGE - 128 ||
	    queue->device - gpa > PAGE - 512 || queue->desc - gpa > PAGE - 512 ||
	    (queue->desc | queue->device) % 4 || queue->driver % 2 ||
	    !vm_is_ram(dev->vm, gpa, PAGE))
		return fail("the balloon's queue is not in one page");
	pthread_mutex_lock(&dev->vm->mem_lock);
	page = vm_borrow(dev->vm, gpa);
	if (page) {
		balloon.page = page;
		balloon.gpa = gpa;
		balloon.desc = queue->desc - gpa;
		balloon.avail = queue->driver - gpa;
		balloon.used = queue->device - gpa;
		balloon.next = 0;
	}
	pthread_mutex_unlock(&dev->vm->mem_lock);
	return page ? 0 : -1;
}

static void stop(struct virtio_dev *dev)
{
	pthread_mutex_lock(&dev->vm->mem_lock);
	if (balloon.page)
		vm_give_back(dev->vm, balloon.page, balloon.gpa);
	balloon.page = NULL;
	pthread_mutex_unlock(&dev->vm->mem_lock);
}

/*
 * The guest takes the range for private use. Should the queue be there, this is
 * its end. Under vm->mem_lock.
 */
void balloon_leave(struct vm *vm, u64 gpa, u64 size)
{
	if (!balloon.page || balloon.gpa < gpa || balloon.gpa - gpa >= size)
		return;
	vm_give_back(vm, balloon.page, balloon.gpa);
	balloon.page = NULL;
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
