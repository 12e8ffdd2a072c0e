// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * A disk whose backend is another process. The guest and the backend talk
 * through a queue in the guest's memory; this process sees no request. What the
 * backend has of that memory are windows on what the guest shares, and no more:
 * vhost_blk_sync() makes it so after each conversion.
 *
 * Regions that the backend has stay as they are for as long as all of them is
 * shared, because it may be at work there. The one with the queue stays as long as
 * the queue is shared; what is not shared any more is SIGBUS there, instead of no
 * address. If the backend can only be given all regions at once, or has too few,
 * they are made anew. From the driver's reset to its next start it has none.
 *
 * A start, a reset, and a conversion are an operation each, with one limit for all
 * that it waits for backends, however many there are. The end of the VM ends the waits.
 */
#include <stdlib.h>
#include <string.h>

#include <linux/vhost_types.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_ids.h>

#include "vhost_user.h"
#include "virtio.h"

#define QUEUE_SIZE	128
#define MAX_REGIONS	32
#define CONFIG_SIZE	60	/* what virtio 1.1 has */
#define CLASS_DISK	0x018000

#define FEATURES	(BIT(VIRTIO_BLK_F_SIZE_MAX) | BIT(VIRTIO_BLK_F_SEG_MAX) | \
			 BIT(VIRTIO_BLK_F_GEOMETRY) | BIT(VIRTIO_BLK_F_RO) | \
			 BIT(VIRTIO_BLK_F_BLK_SIZE) | BIT(VIRTIO_BLK_F_FLUSH) | \
			 BIT(VIRTIO_BLK_F_TOPOLOGY) | BIT(VIRTIO_BLK_F_DISCARD) | \
			 BIT(VIRTIO_BLK_F_WRITE_ZEROES) | BIT(VIRTIO_F_VERSION_1) | \
			 BIT(VIRTIO_RING_F_INDIRECT_DESC) | BIT(VIRTIO_RING_F_EVENT_IDX))

struct config_message {
	u32 offset;
	u32 size;
	u32 flags;
	u8 config[CONFIG_SIZE];
};

struct disk {
	struct virtio_dev dev;
	u8 config[CONFIG_SIZE] __aligned(8);

	/* Guarded by vm->mem_lock */
	struct vhost_user vu;
	bool slots;			/* regions come and go one by one */
	bool wanted;			/* a driver is there: the backend gets regions */
	bool started;
	/* What was said */
	bool full;			/* it did not get all */
	bool no_queue;			/* at its start */
	bool queue_lost;
	unsigned int max_regions;
	unsigned int nr_regions;
	struct window regions[MAX_REGIONS];
	struct virtio_queue queue;	/* where it is, or was */
};

static struct disk *disks[MAX_DISKS];	/* none is added once the guest runs */
static unsigned int nr_disks;
static double until;			/* the operation's end; guarded by vm->mem_lock */

static struct disk *to_disk(struct virtio_dev *dev)
{
	return (struct disk *)dev;
}

static struct vhost_user_region describe(const struct window *window)
{
	return (struct vhost_user_region){
		.gpa = window->gpa,
		.size = window->size,
		.user = window->gpa,
		.offset = window->offset,
	};
}

static int send_region(struct disk *disk, u32 request, const struct window *window)
{
	struct vhost_user_one_region region = { .region = describe(window) };

	return vhost_user_set(&disk->vu, request, &region, sizeof(region), &window->fd,
			      request == VHOST_USER_ADD_MEM_REG);
}

static void remove_region(struct disk *disk, unsigned int i)
{
	struct window *window = &disk->regions[i];

	if (disk->slots)
		send_region(disk, VHOST_USER_REM_MEM_REG, window);
	window_close(disk->dev.vm, window);
	memmove(window, window + 1, (--disk->nr_regions - i) * sizeof(*window));
}

/* Returns 1 if the backend has no room for it. */
static int add_region(struct disk *disk, const struct range *range)
{
	struct window *window = &disk->regions[disk->nr_regions];

	if (disk->nr_regions == disk->max_regions) {
		fail_once(&disk->full,
			  "%s: the backend takes no more than %u regions; %#llx is not one",
			  disk->vu.path, disk->max_regions, range->gpa);
		return 1;
	}
	if (window_open(disk->dev.vm, window, range->gpa, range->size))
		return -1;
	disk->nr_regions++;
	return disk->slots ? send_region(disk, VHOST_USER_ADD_MEM_REG, window) : 0;
}

/* The first regions, in one message. The backend gives up those that it had. */
static int send_table(struct disk *disk, unsigned int nr)
{
	struct vhost_user_table table = { .nr = nr };
	int fds[VHOST_USER_TABLE_MAX];
	unsigned int i;

	for (i = 0; i < nr; i++) {
		table.regions[i] = describe(&disk->regions[i]);
		fds[i] = disk->regions[i].fd;
	}
	return vhost_user_set(&disk->vu, VHOST_USER_SET_MEM_TABLE, &table,
			      sizeof(table) - sizeof(table.regions) +
			      table.nr * sizeof(table.regions[0]), fds, table.nr);
}

static void remove_regions(struct disk *disk)
{
	if (!disk->slots && disk->nr_regions)
		send_table(disk, 0);
	while (disk->nr_regions)
		remove_region(disk, disk->nr_regions - 1);
}

/* Is a part of the queue in it? The backend does not let go of that one. */
static bool has_queue(const struct disk *disk, u64 gpa, u64 size)
{
	const struct virtio_queue *queue = &disk->queue;

	return queue->desc - gpa < size || queue->driver - gpa < size ||
	       queue->device - gpa < size;
}

/* The backend that takes all at once gets as few as there can be. */
static int renew_regions(struct disk *disk)
{
	struct vm *vm = disk->dev.vm;
	unsigned int i, nr_old = disk->nr_regions;
	struct window old[MAX_REGIONS];
	int ret = 0;

	memcpy(old, disk->regions, nr_old * sizeof(old[0]));
	disk->nr_regions = 0;
	for (i = 0; i < vm->nr_shared && !ret; i++)
		if (has_queue(disk, vm->shared[i].gpa, vm->shared[i].size))
			ret = add_region(disk, &vm->shared[i]);
	for (i = 0; i < vm->nr_shared && !ret; i++)
		if (!has_queue(disk, vm->shared[i].gpa, vm->shared[i].size))
			ret = add_region(disk, &vm->shared[i]);
	if (send_table(disk, disk->nr_regions))
		ret = -1;
	while (nr_old)
		window_close(vm, &old[--nr_old]);
	return ret;
}

/* Finds the first part of the range, from start on, that is in no region. */
static bool find_gap(const struct disk *disk, const struct range *range, u64 start,
		     struct range *gap)
{
	u64 end = range->gpa + range->size;
	unsigned int i;

	for (i = 0; i < disk->nr_regions; i++) {
		const struct window *region = &disk->regions[i];

		if (start >= region->gpa && start - region->gpa < region->size) {
			start = region->gpa + region->size;
			i = -1;		/* the next one can be anywhere */
		}
	}
	if (start >= end)
		return false;
	for (i = 0; i < disk->nr_regions; i++)
		if (disk->regions[i].gpa > start && disk->regions[i].gpa < end)
			end = disk->regions[i].gpa;
	*gap = (struct range){ start, end - start };
	return true;
}

static unsigned int count_gaps(const struct disk *disk)
{
	const struct vm *vm = disk->dev.vm;
	unsigned int i, nr = 0;
	struct range gap;

	for (i = 0; i < vm->nr_shared; i++) {
		u64 start = vm->shared[i].gpa;

		while (find_gap(disk, &vm->shared[i], start, &gap)) {
			start = gap.gpa + gap.size;
			nr++;
		}
	}
	return nr;
}

/* Is one region all around it? */
static bool in_region(const struct disk *disk, u64 gpa, u64 size)
{
	unsigned int i;

	for (i = 0; i < disk->nr_regions; i++) {
		const struct window *region = &disk->regions[i];

		if (gpa >= region->gpa && gpa - region->gpa < region->size)
			return size <= region->size - (gpa - region->gpa);
	}
	return false;
}

/* Sizes of the queue's parts: the event index is one more word in the last two. */
static bool queue_covered(const struct disk *disk,
			  bool (*covered)(const struct disk *disk, u64 gpa, u64 size))
{
	const struct virtio_queue *queue = &disk->queue;

	return covered(disk, queue->desc, queue->size * 16ULL) &&
	       covered(disk, queue->driver, 6 + queue->size * 2ULL) &&
	       covered(disk, queue->device, 6 + queue->size * 8ULL);
}

static bool is_shared(const struct disk *disk, u64 gpa, u64 size)
{
	return shared_covers(disk->dev.vm, gpa, size);
}

static int update_regions(struct disk *disk)
{
	struct vm *vm = disk->dev.vm;
	struct range gap;
	unsigned int i;
	bool full;
	int ret = 0;

	for (i = disk->nr_regions; i--; )
		if (!shared_covers(vm, disk->regions[i].gpa, disk->regions[i].size) &&
		    !(disk->started && has_queue(disk, disk->regions[i].gpa,
						 disk->regions[i].size)))
			remove_region(disk, i);
	full = disk->nr_regions + count_gaps(disk) > disk->max_regions;
	for (i = disk->nr_regions; full && i--; )
		if (!has_queue(disk, disk->regions[i].gpa, disk->regions[i].size))
			remove_region(disk, i);
	for (i = 0; i < vm->nr_shared && !ret; i++)
		while (!ret && find_gap(disk, &vm->shared[i], vm->shared[i].gpa, &gap))
			ret = add_region(disk, &gap);
	return ret;
}

/* Gives the backend what is shared now, and takes from it what is not. */
static int sync_regions(struct disk *disk)
{
	return disk->slots ? update_regions(disk) : renew_regions(disk);
}

static int set_state(struct disk *disk, u32 request, u32 value)
{
	struct vhost_vring_state state = { .num = value };

	return vhost_user_set(&disk->vu, request, &state, sizeof(state), NULL, 0);
}

static int set_event(struct disk *disk, u32 request, int event)
{
	u64 queue = 0;

	return vhost_user_set(&disk->vu, request, &queue, sizeof(queue), &event, 1);
}

static int start_queue(struct disk *disk)
{
	const struct virtio_queue *queue = &disk->queue;
	struct vhost_vring_addr address = {
		.desc_user_addr = queue->desc,
		.avail_user_addr = queue->driver,
		.used_user_addr = queue->device,
	};

	if (!queue_covered(disk, in_region))
		return fail_once(&disk->no_queue,
				 "%s: the guest does not share the queue of this disk",
				 disk->vu.path);
	disk->started = !set_state(disk, VHOST_USER_SET_VRING_NUM, queue->size) &&
			!set_state(disk, VHOST_USER_SET_VRING_BASE, 0) &&
			!vhost_user_set(&disk->vu, VHOST_USER_SET_VRING_ADDR, &address,
					sizeof(address), NULL, 0) &&
			!set_event(disk, VHOST_USER_SET_VRING_CALL, queue->call) &&
			!set_event(disk, VHOST_USER_SET_VRING_KICK, queue->kick) &&
			!set_state(disk, VHOST_USER_SET_VRING_ENABLE, 1);
	return disk->started ? 0 : -1;
}

static void stop_queue(struct disk *disk)
{
	struct vhost_vring_state state = { 0 };

	if (!disk->started)
		return;
	disk->started = false;
	if (!set_state(disk, VHOST_USER_SET_VRING_ENABLE, 0))
		vhost_user_get(&disk->vu, VHOST_USER_GET_VRING_BASE, &state, sizeof(state),
			       sizeof(state));
}

/* The backend has nothing any more, until the driver starts the device again. */
static void withdraw(struct disk *disk)
{
	stop_queue(disk);
	remove_regions(disk);
	disk->wanted = false;
}

static void sync_disk(struct disk *disk)
{
	if (disk->started && !queue_covered(disk, is_shared)) {
		fail_once(&disk->queue_lost,
			  "%s: the guest no longer shares the queue of this disk", disk->vu.path);
		stop_queue(disk);
	}
	sync_regions(disk);
	if (disk->vu.lost)
		withdraw(disk);
}

/* All that backends are told from here on, until it is called again, is one operation. */
void vhost_blk_begin(struct vm *vm)
{
	until = now() + vm->opt->backend_timeout;
}

/*
 * Gives backends what is in vm->shared now. What they lost is closed on return. It
 * may be called so many times more for this operation.
 *
 * The time that is left is for this turn and those of others that are to come, in
 * equal parts: who is slow must not have those given up who are not.
 */
void vhost_blk_sync(struct vm *vm, unsigned int times_more)
{
	unsigned int i, nr = 0, turns;

	(void)vm;
	for (i = 0; i < nr_disks; i++)
		nr += disks[i]->wanted;
	turns = nr + times_more * (nr - 1);
	for (i = 0; i < nr_disks; i++) {
		struct disk *disk = disks[i];

		if (!disk->wanted)
			continue;
		vhost_user_begin(&disk->vu, (until - now()) / turns--);
		sync_disk(disk);
	}
}

/*
 * Has a backend a region that the page is in? It can also be one that is not shared
 * any more: then there is no access, until somebody shares the page. Under mem_lock.
 */
bool vhost_blk_has(u64 gpa)
{
	unsigned int i;

	for (i = 0; i < nr_disks; i++)
		if (in_region(disks[i], gpa, PAGE))
			return true;
	return false;
}

/* Takes no lock: who has it may be waiting for a backend. */
void vhost_blk_end(void)
{
	unsigned int i;

	for (i = 0; i < nr_disks; i++)
		vhost_user_end(&disks[i]->vu);
}

static int start(struct virtio_dev *dev)
{
	struct disk *disk = to_disk(dev);
	u64 features = (dev->accepted & dev->offered & ~BIT(VIRTIO_F_ACCESS_PLATFORM)) |
		       BIT(VHOST_USER_F_PROTOCOL_FEATURES);
	int ret;

	pthread_mutex_lock(&dev->vm->mem_lock);
	vhost_user_begin(&disk->vu, disk->vu.timeout);
	disk->wanted = true;
	disk->queue = dev->queues[0];
	ret = vhost_user_set(&disk->vu, VHOST_USER_SET_FEATURES, &features, sizeof(features),
			     NULL, 0) ||
	      sync_regions(disk) < 0 || start_queue(disk);
	if (ret)
		withdraw(disk);
	pthread_mutex_unlock(&dev->vm->mem_lock);
	return ret ? -1 : 0;
}

static void stop(struct virtio_dev *dev)
{
	struct disk *disk = to_disk(dev);

	pthread_mutex_lock(&dev->vm->mem_lock);
	vhost_user_begin(&disk->vu, disk->vu.timeout);
	withdraw(disk);
	pthread_mutex_unlock(&dev->vm->mem_lock);
}

static void read_config(struct virtio_dev *dev, u32 offset, void *data, unsigned int size)
{
	if (offset + size <= CONFIG_SIZE)
		memcpy(data, to_disk(dev)->config + offset, size);
}

static const struct virtio_ops ops = {
	.read_config = read_config,
	.start = start,
	.stop = stop,
};

/* Without its backend, the disk answers no more, and nobody has its windows. */
static void *watch_thread(void *arg)
{
	struct disk *disk = arg;
	struct vm *vm = disk->dev.vm;

	vhost_user_wait_lost(&disk->vu);
	if (vm_ended(vm))
		return NULL;
	pthread_mutex_lock(&vm->mem_lock);
	if (!disk->vu.lost)
		fail("%s: the backend is gone", disk->vu.path);
	fail("%s: the guest's requests to this disk wait from now on", disk->vu.path);
	disk->vu.lost = true;
	withdraw(disk);
	pthread_mutex_unlock(&vm->mem_lock);

	pthread_mutex_lock(&disk->dev.lock);
	virtio_cut(&disk->dev);
	virtio_failed(&disk->dev);
	pthread_mutex_unlock(&disk->dev.lock);
	return NULL;
}

static int get_number(struct disk *disk, u32 request, u64 *number)
{
	*number = 0;
	return vhost_user_get(&disk->vu, request, number, 0, sizeof(*number));
}

/* What is asked and told once */
static int introduce(struct disk *disk)
{
	struct config_message config = { .size = CONFIG_SIZE };
	u64 features, protocol, slots;

	if (get_number(disk, VHOST_USER_GET_FEATURES, &features))
		return -1;
	if (!(features & BIT(VIRTIO_F_VERSION_1)) ||
	    !(features & BIT(VHOST_USER_F_PROTOCOL_FEATURES)))
		return fail("%s: the backend is too old", disk->vu.path);
	disk->dev.offered = features & FEATURES;
	if (get_number(disk, VHOST_USER_GET_PROTOCOL_FEATURES, &protocol))
		return -1;
	if (!(protocol & BIT(VHOST_USER_PROTOCOL_F_CONFIG)))
		return fail("%s: the backend does not say how large the disk is", disk->vu.path);
	protocol &= BIT(VHOST_USER_PROTOCOL_F_CONFIG) | BIT(VHOST_USER_PROTOCOL_F_REPLY_ACK) |
		    BIT(VHOST_USER_PROTOCOL_F_MEM_SLOTS);
	if (vhost_user_set(&disk->vu, VHOST_USER_SET_PROTOCOL_FEATURES, &protocol,
			   sizeof(protocol), NULL, 0) ||
	    vhost_user_set(&disk->vu, VHOST_USER_SET_OWNER, NULL, 0, NULL, 0))
		return -1;

	disk->vu.acks = protocol & BIT(VHOST_USER_PROTOCOL_F_REPLY_ACK);
	disk->slots = protocol & BIT(VHOST_USER_PROTOCOL_F_MEM_SLOTS);
	disk->max_regions = VHOST_USER_TABLE_MAX;
	if (disk->slots) {
		if (get_number(disk, VHOST_USER_GET_MAX_MEM_SLOTS, &slots))
			return -1;
		disk->max_regions = slots < MAX_REGIONS ? slots : MAX_REGIONS;
	}
	if (vhost_user_get(&disk->vu, VHOST_USER_GET_CONFIG, &config, sizeof(config),
			   sizeof(config)))
		return -1;
	memcpy(disk->config, config.config, CONFIG_SIZE);
	/* Some offer a limit of 0. */
	if (!((struct virtio_blk_config *)disk->config)->size_max)
		disk->dev.offered &= ~BIT(VIRTIO_BLK_F_SIZE_MAX);
	return 0;
}

/* The path is that of the backend's socket. */
int vhost_blk_add(struct vm *vm, const char *path)
{
	struct disk *disk = calloc(1, sizeof(*disk));
	pthread_t thread;
	int ret;

	if (!disk)
		return fail("out of memory");
	disk->vu.path = path;
	disk->vu.timeout = vm->opt->backend_timeout;
	disk->dev.ops = &ops;
	disk->dev.nr_queues = 1;
	disk->dev.queues[0].max_size = QUEUE_SIZE;
	if (vhost_user_connect(&disk->vu))
		return -1;
	vhost_user_begin(&disk->vu, disk->vu.timeout);
	if (introduce(disk) ||
	    virtio_add(vm, &disk->dev, VIRTIO_ID_BLOCK, CLASS_DISK))
		return -1;
	disks[nr_disks++] = disk;
	ret = pthread_create(&thread, NULL, watch_thread, disk);
	return ret ? fail("cannot start a thread: %s", strerror(ret)) : 0;
}
