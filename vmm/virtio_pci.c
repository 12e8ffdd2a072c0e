// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * The registers of a virtio device on PCI, of version 1 and later
 * (VIRTIO_F_VERSION_1), all in BAR 0. How the guest's notifications come: KVM
 * writes to the queue's eventfd and the guest goes on at once.
 *
 * All devices offer VIRTIO_F_ACCESS_PLATFORM: a driver must not take its memory
 * for the device's, but ask the guest's DMA layer, which knows what is shared.
 */
#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <linux/pci_regs.h>
#include <linux/virtio_pci.h>

#include "virtio.h"

#define VENDOR_VIRTIO	0x1af4
#define DEVICE_VIRTIO	0x1040		/* and the number of the kind of device */

/* In BAR 0 */
#define COMMON		0x0000
#define ISR		0x1000
#define CONFIG		0x2000
#define NOTIFY		0x3000		/* 4 bytes for each queue */
#define MSIX_TABLE	0x4000
#define MSIX_PENDING	0x5000
#define BAR_SIZE	0x8000
#define REGION		0x1000

/* What the driver sets of the status; the rest is the device's to say. */
#define DRIVERS_STATUS	(VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | \
			 VIRTIO_CONFIG_S_DRIVER_OK | VIRTIO_CONFIG_S_FEATURES_OK | \
			 VIRTIO_CONFIG_S_FAILED)

#define REG(member)	offsetof(struct virtio_pci_common_cfg, member)

static struct virtio_dev *to_virtio(struct pci_dev *pci)
{
	return (struct virtio_dev *)((u8 *)pci - offsetof(struct virtio_dev, pci));
}

static struct virtio_queue *selected(struct virtio_dev *dev)
{
	return dev->queue_select < dev->nr_queues ? &dev->queues[dev->queue_select] : NULL;
}

/*
 * The guest's writes to the queue's notification address become a kick. KVM takes
 * them all: none is expected as an exit.
 */
static int listen(struct virtio_dev *dev, unsigned int nr)
{
	struct virtio_queue *queue = &dev->queues[nr];
	struct kvm_ioeventfd ioeventfd = {
		.addr = pci_bar(&dev->pci) + NOTIFY + 4 * nr,
		.fd = queue->kick,
	};

	if (ioctl(dev->vm->fd, KVM_IOEVENTFD, &ioeventfd))
		return fail_errno("KVM_IOEVENTFD");
	queue->listens = ioeventfd.addr;
	return 0;
}

/* Not at where the BAR is, which the guest may have moved. */
static void unlisten(struct virtio_dev *dev, unsigned int nr)
{
	struct virtio_queue *queue = &dev->queues[nr];
	struct kvm_ioeventfd ioeventfd = {
		.addr = queue->listens,
		.fd = queue->kick,
		.flags = KVM_IOEVENTFD_FLAG_DEASSIGN,
	};

	if (queue->listens && ioctl(dev->vm->fd, KVM_IOEVENTFD, &ioeventfd))
		fail_errno("KVM_IOEVENTFD");
	queue->listens = 0;
}

/* Only for an eventfd that no other process has. */
void virtio_signal(int event)
{
	u64 one = 1;

	while (write(event, &one, sizeof(one)) < 0 && errno == EINTR)
		;
}

/* The device cannot go on until its driver resets it. Under the device's lock. */
void virtio_failed(struct virtio_dev *dev)
{
	if (dev->status & VIRTIO_CONFIG_S_NEEDS_RESET || !dev->status)
		return;
	dev->status |= VIRTIO_CONFIG_S_NEEDS_RESET;
	virtio_signal(dev->msix.lines[dev->nr_queues].event);
}

/*
 * Who had the queues' eventfds, kicks nobody and gets no kick any more. The device
 * is of no use after it. Under the device's lock.
 */
void virtio_cut(struct virtio_dev *dev)
{
	unsigned int i;

	for (i = 0; i < dev->nr_queues; i++) {
		struct virtio_queue *queue = &dev->queues[i];

		unlisten(dev, i);
		close(queue->kick);
		queue->kick = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		msix_renew(&dev->msix, i);
		queue->call = dev->msix.lines[i].event;
	}
}

static void reset(struct virtio_dev *dev)
{
	unsigned int i;

	for (i = 0; i < dev->nr_queues; i++)
		unlisten(dev, i);
	if (dev->status & VIRTIO_CONFIG_S_DRIVER_OK)
		dev->ops->stop(dev);
	msix_reset(&dev->msix);
	for (i = 0; i < dev->nr_queues; i++) {
		struct virtio_queue *queue = &dev->queues[i];

		queue->enabled = false;
		queue->size = queue->max_size;
		queue->desc = 0;
		queue->driver = 0;
		queue->device = 0;
	}
	dev->accepted = 0;
	dev->status = 0;
}

static void start(struct virtio_dev *dev)
{
	bool failed;
	unsigned int i;

	if (pci_overlaps(&dev->pci))
		failed = fail_once(&dev->overlaps, "the guest has two devices at one address");
	else
		failed = dev->ops->start(dev);
	for (i = 0; i < dev->nr_queues && !failed; i++)
		failed = dev->queues[i].enabled && listen(dev, i);
	if (failed)
		virtio_failed(dev);
}

static void set_status(struct virtio_dev *dev, u8 status)
{
	u8 news;

	if (!status) {
		reset(dev);
		return;
	}
	status &= DRIVERS_STATUS;
	news = status & ~dev->status;
	if (news & VIRTIO_CONFIG_S_FEATURES_OK &&
	    (dev->accepted & ~dev->offered || !(dev->accepted >> VIRTIO_F_VERSION_1 & 1)))
		status &= ~VIRTIO_CONFIG_S_FEATURES_OK;
	/* Not before it is settled what the device is to do. */
	if (!((dev->status | status) & VIRTIO_CONFIG_S_FEATURES_OK))
		status &= ~VIRTIO_CONFIG_S_DRIVER_OK;
	news = status & ~dev->status;
	dev->status |= status;
	if (news & VIRTIO_CONFIG_S_DRIVER_OK)
		start(dev);
}

static void half(u64 *to, u32 value, bool high)
{
	*to = high ? (*to & UINT32_MAX) | (u64)value << 32 : (*to & ~(u64)UINT32_MAX) | value;
}

static void write_queue(struct virtio_dev *dev, u64 reg, const struct virtio_pci_common_cfg *cfg)
{
	struct virtio_queue *queue = selected(dev);

	if (!queue || queue->enabled) {
		if (queue && reg == REG(queue_msix_vector))
			msix_connect(&dev->msix, dev->queue_select, cfg->queue_msix_vector);
		return;
	}
	switch (reg) {
	case REG(queue_size):
		if (cfg->queue_size && cfg->queue_size <= queue->max_size &&
		    !(cfg->queue_size & (cfg->queue_size - 1)))
			queue->size = cfg->queue_size;
		break;
	case REG(queue_msix_vector):
		msix_connect(&dev->msix, dev->queue_select, cfg->queue_msix_vector);
		break;
	case REG(queue_enable):
		queue->enabled = cfg->queue_enable == 1;
		break;
	case REG(queue_desc_lo):
		half(&queue->desc, cfg->queue_desc_lo, false);
		break;
	case REG(queue_desc_hi):
		half(&queue->desc, cfg->queue_desc_hi, true);
		break;
	case REG(queue_avail_lo):
		half(&queue->driver, cfg->queue_avail_lo, false);
		break;
	case REG(queue_avail_hi):
		half(&queue->driver, cfg->queue_avail_hi, true);
		break;
	case REG(queue_used_lo):
		half(&queue->device, cfg->queue_used_lo, false);
		break;
	case REG(queue_used_hi):
		half(&queue->device, cfg->queue_used_hi, true);
		break;
	}
}

static void write_common(struct virtio_dev *dev, u64 reg, const struct virtio_pci_common_cfg *cfg)
{
	switch (reg) {
	case REG(device_feature_select):
		dev->offered_select = cfg->device_feature_select;
		break;
	case REG(guest_feature_select):
		dev->accepted_select = cfg->guest_feature_select;
		break;
	case REG(guest_feature):
		if (dev->accepted_select < 2 && !(dev->status & VIRTIO_CONFIG_S_FEATURES_OK))
			half(&dev->accepted, cfg->guest_feature, dev->accepted_select);
		break;
	case REG(msix_config):
		msix_connect(&dev->msix, dev->nr_queues, cfg->msix_config);
		break;
	case REG(device_status):
		set_status(dev, cfg->device_status);
		break;
	case REG(queue_select):
		dev->queue_select = cfg->queue_select;
		break;
	default:
		write_queue(dev, reg, cfg);
	}
}

/* What the guest would read */
static void fill_common(struct virtio_dev *dev, struct virtio_pci_common_cfg *cfg)
{
	const struct virtio_queue *queue = selected(dev);

	*cfg = (struct virtio_pci_common_cfg){
		.device_feature_select = dev->offered_select,
		.device_feature = dev->offered_select < 2 ?
				  dev->offered >> 32 * dev->offered_select : 0,
		.guest_feature_select = dev->accepted_select,
		.guest_feature = dev->accepted_select < 2 ?
				 dev->accepted >> 32 * dev->accepted_select : 0,
		.msix_config = dev->msix.lines[dev->nr_queues].vector,
		.num_queues = dev->nr_queues,
		.device_status = dev->status,
		.queue_select = dev->queue_select,
		.queue_msix_vector = NO_VECTOR,
	};
	if (!queue)
		return;
	cfg->queue_size = queue->size;
	cfg->queue_msix_vector = dev->msix.lines[dev->queue_select].vector;
	cfg->queue_enable = queue->enabled;
	cfg->queue_notify_off = dev->queue_select;
	cfg->queue_desc_lo = queue->desc;
	cfg->queue_desc_hi = queue->desc >> 32;
	cfg->queue_avail_lo = queue->driver;
	cfg->queue_avail_hi = queue->driver >> 32;
	cfg->queue_used_lo = queue->device;
	cfg->queue_used_hi = queue->device >> 32;
}

static void access_common(struct virtio_dev *dev, u64 reg, void *data, unsigned int size,
			  bool write)
{
	struct virtio_pci_common_cfg cfg;

	if (!write)
		memset(data, 0, size);
	fill_common(dev, &cfg);
	if (reg + size > sizeof(cfg))
		return;
	if (!write) {
		memcpy(data, (u8 *)&cfg + reg, size);
		return;
	}
	memcpy((u8 *)&cfg + reg, data, size);
	write_common(dev, reg, &cfg);
}

static void access_bar(struct pci_dev *pci, u64 offset, void *data, unsigned int size, bool write)
{
	struct virtio_dev *dev = to_virtio(pci);
	u64 reg = offset % REGION;

	pthread_mutex_lock(&dev->lock);
	switch (offset - reg) {
	case COMMON:
		access_common(dev, reg, data, size, write);
		break;
	case MSIX_TABLE:
		msix_access(&dev->msix, reg, data, size, write);
		break;
	case CONFIG:
		if (!write) {
			memset(data, 0, size);
			dev->ops->read_config(dev, reg, data, size);
		}
		break;
	default:
		/*
		 * Two are not used with interrupts by message, and a notification
		 * that KVM has not taken is for no queue that is in use.
		 */
		if (!write)
			memset(data, 0, size);
	}
	pthread_mutex_unlock(&dev->lock);
}

static void add_region(struct virtio_dev *dev, u8 kind, u32 offset, u32 length)
{
	struct {
		struct virtio_pci_cap cap;
		u32 notify_off_multiplier;
	} region = {
		.cap = {
			.cap_len = kind == VIRTIO_PCI_CAP_NOTIFY_CFG ? sizeof(region) :
				   sizeof(region.cap),
			.cfg_type = kind,
			.offset = offset,
			.length = length,
		},
		.notify_off_multiplier = 4,
	};

	pci_add_capability(&dev->pci, PCI_CAP_ID_VNDR, (u8 *)&region + 2, region.cap.cap_len - 2);
}

static void add_msix(struct virtio_dev *dev)
{
	struct {
		u16 control;
		u32 table, pending;
	} __packed msix = {
		.control = dev->nr_queues,	/* vectors, less one */
		.table = MSIX_TABLE,
		.pending = MSIX_PENDING,
	};
	u8 at = pci_add_capability(&dev->pci, PCI_CAP_ID_MSIX, &msix, sizeof(msix));

	/* Linux masks each vector when it says the same of all. */
	dev->pci.writable[at + PCI_MSIX_FLAGS + 1] =
		(PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL) >> 8;
}

/*
 * Puts a device on the bus. The caller has set ops, offered, nr_queues and the
 * max_size of the queues.
 */
int virtio_add(struct vm *vm, struct virtio_dev *dev, unsigned int id, u32 class_code)
{
	unsigned int i;

	dev->vm = vm;
	dev->offered |= 1ULL << VIRTIO_F_VERSION_1 | 1ULL << VIRTIO_F_ACCESS_PLATFORM;
	pthread_mutex_init(&dev->lock, NULL);
	msix_init(&dev->msix, vm, dev->nr_queues + 1);
	for (i = 0; i <= dev->nr_queues; i++) {
		dev->msix.lines[i].event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		if (dev->msix.lines[i].event < 0)
			return fail_errno("eventfd");
	}
	for (i = 0; i < dev->nr_queues; i++) {
		dev->queues[i].size = dev->queues[i].max_size;
		dev->queues[i].call = dev->msix.lines[i].event;
		dev->queues[i].kick = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		if (dev->queues[i].kick < 0)
			return fail_errno("eventfd");
	}

	dev->pci.bar_size = BAR_SIZE;
	dev->pci.mmio = access_bar;
	if (pci_add(&dev->pci, VENDOR_VIRTIO, DEVICE_VIRTIO + id, class_code))
		return -1;
	add_region(dev, VIRTIO_PCI_CAP_COMMON_CFG, COMMON, sizeof(struct virtio_pci_common_cfg));
	add_region(dev, VIRTIO_PCI_CAP_ISR_CFG, ISR, 4);
	add_region(dev, VIRTIO_PCI_CAP_DEVICE_CFG, CONFIG, REGION);
	add_region(dev, VIRTIO_PCI_CAP_NOTIFY_CFG, NOTIFY, 4 * dev->nr_queues);
	add_msix(dev);
	return 0;
}
