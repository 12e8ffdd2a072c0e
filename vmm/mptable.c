// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * The table of processors and interrupts that a guest without ACPI reads:
 * Intel's MultiProcessor Specification 1.4. The layout is the one that KVM's
 * interrupt controllers have from birth: IRQ n is pin n of the I/O APIC.
 */
#include <string.h>

#include "rmvm.h"

#define APIC_BASE	0xfee00000
#define IOAPIC_BASE	0xfec00000
#define APIC_VERSION	0x14
#define IOAPIC_VERSION	0x11
#define NR_IRQS		16

struct mp_pointer {
	char signature[4];
	u32 table;
	u8 length;			/* in units of 16 bytes */
	u8 revision;
	u8 checksum;
	u8 features[5];
};

struct mp_table {
	char signature[4];
	u16 length;
	u8 revision;
	u8 checksum;
	char oem[8];
	char product[12];
	u32 oem_table;
	u16 oem_size;
	u16 nr_entries;
	u32 lapic;
	u32 reserved;
};

struct mp_cpu {
	u8 type;			/* 0 */
	u8 apic_id;
	u8 apic_version;
	u8 flags;			/* 1: enabled, 2: boots the system */
	u32 signature;
	u32 features;
	u64 reserved;
} __packed;

struct mp_bus {
	u8 type;			/* 1 */
	u8 id;
	char name[6];
};

struct mp_ioapic {
	u8 type;			/* 2 */
	u8 id;
	u8 version;
	u8 flags;			/* 1: usable */
	u32 address;
};

struct mp_interrupt {
	u8 type;			/* 3: to an I/O APIC, 4: to local APICs */
	u8 kind;			/* 0: vectored, 1: NMI, 3: from the PICs */
	u16 flags;			/* 0: as the bus does */
	u8 source_bus;
	u8 source_irq;
	u8 apic;
	u8 pin;
};

static u8 checksum(const void *p, size_t len)
{
	const u8 *byte = p;
	u8 sum = 0;

	while (len--)
		sum += *byte++;
	return -sum;
}

/*
 * Writes the pointer, which the guest looks for below 1 MiB, and the table
 * behind it. Returns their length in bytes.
 */
size_t mptable_build(u8 *buf, u64 gpa, unsigned int nr_cpus)
{
	struct mp_pointer pointer = {
		.signature = "_MP_",
		.table = gpa + sizeof(pointer),
		.length = 1,
		.revision = 4,
	};
	struct mp_table table = {
		.signature = "PCMP",
		.revision = 4,
		.oem = "RMEM    ",
		.product = "rmvm        ",
		.lapic = APIC_BASE,
	};
	struct mp_bus bus = { .type = 1, .name = "ISA   " };
	struct mp_ioapic ioapic = {
		.type = 2,
		.id = nr_cpus,
		.version = IOAPIC_VERSION,
		.flags = 1,
		.address = IOAPIC_BASE,
	};
	u8 *p = buf + sizeof(pointer) + sizeof(table);
	unsigned int i;

#define ADD(entry) do {					\
		memcpy(p, &(entry), sizeof(entry));	\
		p += sizeof(entry);			\
		table.nr_entries++;			\
	} while (0)

	for (i = 0; i < nr_cpus; i++) {
		struct mp_cpu cpu = {
			.apic_id = i,
			.apic_version = APIC_VERSION,
			.flags = i ? 1 : 3,
			.signature = 0x600,
			.features = 0x201,	/* an FPU, an APIC */
		};

		ADD(cpu);
	}
	ADD(bus);
	ADD(ioapic);
	for (i = 0; i < NR_IRQS; i++) {
		struct mp_interrupt irq = {
			.type = 3,
			.source_irq = i,
			.apic = ioapic.id,
			.pin = i,
		};

		ADD(irq);
	}
	for (i = 0; i < 2; i++) {
		struct mp_interrupt lint = {
			.type = 4,
			.kind = i ? 1 : 3,
			.apic = 0xff,		/* every one */
			.pin = i,
		};

		ADD(lint);
	}
#undef ADD

	table.length = p - buf - sizeof(pointer);
	memcpy(buf + sizeof(pointer), &table, sizeof(table));
	table.checksum = checksum(buf + sizeof(pointer), table.length);
	memcpy(buf + sizeof(pointer), &table, sizeof(table));
	pointer.checksum = checksum(&pointer, sizeof(pointer));
	memcpy(buf, &pointer, sizeof(pointer));
	return p - buf;
}
