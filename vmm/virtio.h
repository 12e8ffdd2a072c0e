/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * The bus and its devices. A device is three things, one file each: a function
 * on the bus (pci.c), its interrupts (msix.c), and virtio's registers
 * (virtio_pci.c), which whoever is the device in the end gets as calls.
 *
 * Who is the device: a process elsewhere (vhost_user.c), or this one
 * (balloon.c).
 */
#ifndef RMVM_VIRTIO_H
#define RMVM_VIRTIO_H

#include <linux/virtio_config.h>

#include "rmvm.h"

#define MAX_QUEUES		4
#define MAX_VECTORS		(MAX_QUEUES + 1)
#define NO_VECTOR		0xffff

/* A function on bus 0, with one BAR of 32 bits */
struct pci_dev {
	u8 config[256];
	u8 writable[256];	/* the bits of config that the guest can write */
	u32 bar_size;
	u8 last_capability, free;
	void (*mmio)(struct pci_dev *pci, u64 offset, void *data, unsigned int size, bool write);
};

/*
 * Interrupts by message. A line is what raises one, by its eventfd; the guest
 * says which vector it is, and in the table, what each vector means. Guarded by
 * the device's lock.
 */
struct msix {
	struct vm *vm;
	unsigned int first_gsi;
	unsigned int nr_lines;
	struct {
		u32 low, high, data, control;
	} table[MAX_VECTORS];
	struct {
		int event;
		u16 vector;
		bool attached;	/* KVM listens to the eventfd */
	} lines[MAX_VECTORS];
};

struct virtio_queue {
	u16 size;
	u16 max_size;
	bool enabled;
	u64 desc, driver, device;	/* guest addresses of its three parts */
	/*
	 * Eventfds: the guest has something for the device, and the device for the
	 * guest. A backend that has one can fill it and clear O_NONBLOCK, so this
	 * process writes to neither, but for devices of its own.
	 */
	int kick;
	int call;
	u64 listens;		/* the address for which KVM writes to kick, or 0 */
};

struct virtio_dev;

struct virtio_ops {
	/* Reads from the device's own configuration, which is read-only. */
	void (*read_config)(struct virtio_dev *dev, u32 offset, void *data, unsigned int size);
	/* The driver is ready. May fail after a message; stop() comes all the same. */
	int (*start)(struct virtio_dev *dev);
	/*
	 * The driver resets the device: no queue is touched, and nobody has access
	 * to what the guest shares, from the return on.
	 */
	void (*stop)(struct virtio_dev *dev);
};

struct virtio_dev {
	struct pci_dev pci;
	struct vm *vm;
	const struct virtio_ops *ops;
	pthread_mutex_t lock;	/* all of the below; outside of vm->mem_lock */
	u64 offered;		/* features */
	u64 accepted;
	u32 offered_select;
	u32 accepted_select;
	u16 queue_select;
	u8 status;
	bool overlaps;		/* another one, which was said */
	unsigned int nr_queues;
	struct virtio_queue queues[MAX_QUEUES];
	struct msix msix;	/* line N is queue N, the last one the configuration */
};

/* pci.c */
int pci_add(struct pci_dev *pci, u16 vendor, u16 device, u32 class_code);
u8 pci_add_capability(struct pci_dev *pci, u8 id, const void *rest, u8 len);
u64 pci_bar(const struct pci_dev *pci);
bool pci_overlaps(const struct pci_dev *pci);

/* msix.c */
void msix_init(struct msix *msix, struct vm *vm, unsigned int nr_lines);
void msix_reset(struct msix *msix);
void msix_access(struct msix *msix, u32 offset, void *data, unsigned int size, bool write);
void msix_connect(struct msix *msix, unsigned int line, u16 vector);
int msix_renew(struct msix *msix, unsigned int line);

/* virtio_pci.c */
int virtio_add(struct vm *vm, struct virtio_dev *dev, unsigned int id, u32 class_code);
void virtio_failed(struct virtio_dev *dev);
void virtio_cut(struct virtio_dev *dev);
void virtio_signal(int event);

#endif /* RMVM_VIRTIO_H */
