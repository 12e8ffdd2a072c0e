// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * A PCI bus, present when a device is: configuration by the two ports of
 * mechanism #1, a host bridge, functions with one memory BAR each. There is no
 * firmware, so BARs have addresses from the start; the guest may move them.
 */
#include <string.h>

#include <linux/pci_regs.h>

#include "virtio.h"

#define PORT_ADDRESS	0xcf8
#define PORT_DATA	0xcfc
#define MAX_DEVICES	8
#define ENABLE		BIT(31)

/* Of linux/pci_ids.h, which programs do not get */
#define PCI_VENDOR_ID_RED_HAT	0x1b36
#define PCI_CLASS_BRIDGE_HOST	0x0600

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;	/* all of the below, and config[] */
static struct pci_dev *devices[MAX_DEVICES];	/* by number on the bus; none is removed */
static unsigned int nr_devices;
static u32 address;
static struct pci_dev bridge;

static void set16(struct pci_dev *pci, unsigned int reg, u16 value)
{
	memcpy(pci->config + reg, &value, sizeof(value));
}

static void set32(struct pci_dev *pci, unsigned int reg, u32 value)
{
	memcpy(pci->config + reg, &value, sizeof(value));
}

static u32 get32(const struct pci_dev *pci, unsigned int reg)
{
	u32 value;

	memcpy(&value, pci->config + reg, sizeof(value));
	return value;
}

static void init(struct pci_dev *pci, u16 vendor, u16 device, u32 class_code)
{
	set16(pci, PCI_VENDOR_ID, vendor);
	set16(pci, PCI_DEVICE_ID, device);
	set32(pci, PCI_CLASS_REVISION, class_code << 8 | 1);
	pci->writable[PCI_COMMAND] = PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER;
	pci->writable[PCI_COMMAND + 1] = PCI_COMMAND_INTX_DISABLE >> 8;
}

/* The device's bar_size is a power of 2, or 0. Only before the guest runs. */
int pci_add(struct pci_dev *pci, u16 vendor, u16 device, u32 class_code)
{
	static u64 next = PCI_START;
	u32 mask = -pci->bar_size;

	if (!nr_devices) {
		/* Linux looks for one, to be sure that there is a bus. */
		init(&bridge, PCI_VENDOR_ID_RED_HAT, 0x0008, PCI_CLASS_BRIDGE_HOST << 8);
		devices[nr_devices++] = &bridge;
	}
	if (nr_devices == MAX_DEVICES)
		return fail("too many devices");
	init(pci, vendor, device, class_code);
	if (pci->bar_size) {
		next = align_up(next, pci->bar_size);
		set32(pci, PCI_BASE_ADDRESS_0, next);
		memcpy(pci->writable + PCI_BASE_ADDRESS_0, &mask, sizeof(mask));
		next += pci->bar_size;
	}
	devices[nr_devices++] = pci;
	return 0;
}

/* Returns where in the configuration it is; len is that of what follows the two links. */
u8 pci_add_capability(struct pci_dev *pci, u8 id, const void *rest, u8 len)
{
	u8 at = pci->last_capability ? pci->free : PCI_STD_HEADER_SIZEOF;

	pci->config[pci->last_capability ? pci->last_capability + 1 : PCI_CAPABILITY_LIST] = at;
	pci->last_capability = at;
	pci->free = align_up(at + 2 + len, 4);
	pci->config[at] = id;
	memcpy(pci->config + at + 2, rest, len);
	set16(pci, PCI_STATUS, PCI_STATUS_CAP_LIST);
	return at;
}

static u64 bar_of(const struct pci_dev *pci)
{
	return get32(pci, PCI_BASE_ADDRESS_0) & PCI_BASE_ADDRESS_MEM_MASK;
}

/* Where it is now */
u64 pci_bar(const struct pci_dev *pci)
{
	u64 bar;

	pthread_mutex_lock(&lock);
	bar = bar_of(pci);
	pthread_mutex_unlock(&lock);
	return bar;
}

/* Does another device have some of the addresses, too? */
bool pci_overlaps(const struct pci_dev *pci)
{
	bool overlaps = false;
	unsigned int i;
	u64 bar;

	pthread_mutex_lock(&lock);
	bar = bar_of(pci);
	for (i = 0; i < nr_devices; i++)
		if (devices[i] != pci && bar < bar_of(devices[i]) + devices[i]->bar_size &&
		    bar_of(devices[i]) < bar + pci->bar_size)
			overlaps = true;
	pthread_mutex_unlock(&lock);
	return overlaps;
}

static struct pci_dev *addressed(void)
{
	unsigned int bus = address >> 16 & 0xff, number = address >> 11 & 0x1f;

	if (!(address & ENABLE) || bus || address >> 8 & 7 || number >= nr_devices)
		return NULL;
	return devices[number];
}

static void write_config(struct pci_dev *pci, unsigned int reg, const u8 *data, unsigned int size)
{
	unsigned int i;

	for (i = 0; i < size && reg + i < sizeof(pci->config); i++) {
		u8 mask = pci->writable[reg + i];

		pci->config[reg + i] = (pci->config[reg + i] & ~mask) | (data[i] & mask);
	}
}

static void read_config(const struct pci_dev *pci, unsigned int reg, u8 *data, unsigned int size)
{
	memset(data, 0xff, size);
	if (reg + size <= sizeof(pci->config))
		memcpy(data, pci->config + reg, size);
}

/* Returns false if the port is not the bus's. */
bool pci_io(bool out, u16 port, void *data, unsigned int size)
{
	struct pci_dev *pci;
	unsigned int reg;

	if (!nr_devices || port < PORT_ADDRESS || port + size > PORT_DATA + 4)
		return false;
	if (port < PORT_DATA && (port != PORT_ADDRESS || size != sizeof(address)))
		return false;

	pthread_mutex_lock(&lock);
	pci = addressed();
	reg = (address & 0xfc) + port - PORT_DATA;
	if (port == PORT_ADDRESS && out)
		memcpy(&address, data, sizeof(address));
	else if (port == PORT_ADDRESS)
		memcpy(data, &address, sizeof(address));
	else if (pci && out)
		write_config(pci, reg, data, size);
	else if (pci)
		read_config(pci, reg, data, size);
	else if (!out)
		memset(data, 0xff, size);
	pthread_mutex_unlock(&lock);
	return true;
}

/* Returns false if no device is there. */
bool pci_mmio(u64 gpa, void *data, unsigned int size, bool write)
{
	struct pci_dev *found = NULL;
	unsigned int i;
	u64 offset = 0;

	pthread_mutex_lock(&lock);
	for (i = 0; i < nr_devices && !found; i++) {
		struct pci_dev *pci = devices[i];

		offset = gpa - bar_of(pci);
		if (pci->config[PCI_COMMAND] & PCI_COMMAND_MEMORY && offset < pci->bar_size &&
		    size <= pci->bar_size - offset)
			found = pci;
	}
	pthread_mutex_unlock(&lock);
	if (found)
		found->mmio(found, offset, data, size, write);
	return found;
}
