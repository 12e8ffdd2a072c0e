// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * Interrupts by message (MSI-X). KVM raises them itself: what has an interrupt
 * writes to an eventfd, KVM listens to that, and has from us a table of which
 * message it means. While a vector is masked, or the line has none, KVM does
 * not listen; what was written meanwhile counts when it does again.
 *
 * The table is one for the VM, and is always given to KVM as a whole.
 */
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <linux/pci_regs.h>

#include "virtio.h"

#define NR_PINS		24	/* of the I/O APIC: interrupts 0 to 23 */
#define NR_PIC_PINS	16
#define MAX_MESSAGES	64
#define ENTRY		PCI_MSIX_ENTRY_SIZE

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;	/* routes */
static struct {
	struct kvm_irq_routing head;
	struct kvm_irq_routing_entry entries[NR_PIC_PINS + NR_PINS + MAX_MESSAGES];
} routes;
static unsigned int nr_gsis = NR_PINS;

static void add_pin(unsigned int gsi, unsigned int chip, unsigned int pin)
{
	routes.entries[routes.head.nr++] = (struct kvm_irq_routing_entry){
		.gsi = gsi,
		.type = KVM_IRQ_ROUTING_IRQCHIP,
		.u.irqchip = { .irqchip = chip, .pin = pin },
	};
}

/* What KVM has by itself: pin N of both kinds of controller is interrupt N. */
static void add_pins(void)
{
	unsigned int i;

	for (i = 0; i < NR_PINS; i++) {
		if (i < NR_PIC_PINS)
			add_pin(i, i < 8 ? KVM_IRQCHIP_PIC_MASTER : KVM_IRQCHIP_PIC_SLAVE, i % 8);
		add_pin(i, KVM_IRQCHIP_IOAPIC, i);
	}
}

static int set_route(struct vm *vm, unsigned int gsi, u32 low, u32 high, u32 data)
{
	struct kvm_irq_routing_entry *entry = NULL;
	unsigned int i;
	int ret = 0;

	pthread_mutex_lock(&lock);
	if (!routes.head.nr)
		add_pins();
	for (i = 0; i < routes.head.nr && !entry; i++)
		if (routes.entries[i].gsi == gsi)
			entry = &routes.entries[i];
	if (!entry)
		entry = &routes.entries[routes.head.nr++];
	*entry = (struct kvm_irq_routing_entry){
		.gsi = gsi,
		.type = KVM_IRQ_ROUTING_MSI,
		.u.msi = { .address_lo = low, .address_hi = high, .data = data },
	};
	if (ioctl(vm->fd, KVM_SET_GSI_ROUTING, &routes))
		ret = fail_errno("KVM_SET_GSI_ROUTING");
	pthread_mutex_unlock(&lock);
	return ret;
}

static bool masked(const struct msix *msix, u16 vector)
{
	return msix->table[vector].control & PCI_MSIX_ENTRY_CTRL_MASKBIT;
}

static void attach(struct msix *msix, unsigned int line, bool on)
{
	u16 vector = msix->lines[line].vector;
	struct kvm_irqfd irqfd = {
		.fd = msix->lines[line].event,
		.gsi = msix->first_gsi + vector,
		.flags = on ? 0 : KVM_IRQFD_FLAG_DEASSIGN,
	};

	if (msix->lines[line].attached == on)
		return;
	if (on && set_route(msix->vm, irqfd.gsi, msix->table[vector].low,
			    msix->table[vector].high, msix->table[vector].data))
		return;
	if (ioctl(msix->vm->fd, KVM_IRQFD, &irqfd))
		fail_errno("KVM_IRQFD");
	else
		msix->lines[line].attached = on;
}

/* Has KVM listen to the lines of a vector, or to none of them. */
static void attach_vector(struct msix *msix, u16 vector, bool on)
{
	unsigned int i;

	for (i = 0; i < msix->nr_lines; i++)
		if (msix->lines[i].vector == vector)
			attach(msix, i, on);
}

/* The guest says which vector the line has, or that it has none. */
void msix_connect(struct msix *msix, unsigned int line, u16 vector)
{
	attach(msix, line, false);
	if (vector >= msix->nr_lines)
		vector = NO_VECTOR;
	msix->lines[line].vector = vector;
	if (vector < MAX_VECTORS && !masked(msix, vector))
		attach(msix, line, true);
}

/* An access to the table, in words that are aligned */
void msix_access(struct msix *msix, u32 offset, void *data, unsigned int size, bool write)
{
	u16 vector = offset / ENTRY;
	bool was_masked;
	u8 *entry;

	if (vector >= msix->nr_lines || offset % ENTRY + size > ENTRY) {
		if (!write)
			memset(data, 0, size);
		return;
	}
	entry = (u8 *)&msix->table[vector];
	if (!write) {
		memcpy(data, entry + offset % ENTRY, size);
		return;
	}
	was_masked = masked(msix, vector);
	memcpy(entry + offset % ENTRY, data, size);
	if (was_masked && masked(msix, vector))
		return;
	/* What it means may be another thing now. */
	attach_vector(msix, vector, false);
	if (!masked(msix, vector))
		attach_vector(msix, vector, true);
}

/* Who has the line's eventfd raises nothing any more: the line has a new one, or none. */
int msix_renew(struct msix *msix, unsigned int line)
{
	u16 vector = msix->lines[line].vector;
	int event;

	attach(msix, line, false);
	close(msix->lines[line].event);
	event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	msix->lines[line].event = event;
	if (event < 0)
		return fail_errno("eventfd");
	msix_connect(msix, line, vector);
	return 0;
}

void msix_reset(struct msix *msix)
{
	unsigned int i;

	for (i = 0; i < msix->nr_lines; i++)
		msix_connect(msix, i, NO_VECTOR);
}

/* As many vectors as lines. The events of the lines are the caller's to set. */
void msix_init(struct msix *msix, struct vm *vm, unsigned int nr_lines)
{
	unsigned int i;

	msix->vm = vm;
	msix->nr_lines = nr_lines;
	msix->first_gsi = nr_gsis;
	nr_gsis += nr_lines;
	for (i = 0; i < nr_lines; i++) {
		msix->table[i].control = PCI_MSIX_ENTRY_CTRL_MASKBIT;
		msix->lines[i].vector = NO_VECTOR;
	}
}
