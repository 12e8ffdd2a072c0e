// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * The ports that KVM leaves to the VMM: the clock's CMOS, the keyboard
 * controller that is not there, the serial port (serial.c), the bus if there is
 * one (pci.c), and our own two.
 * No device here touches the guest's memory, and none waits for anybody: the lock
 * is one for all.
 *
 * A port that nobody has reads as ones. For the keyboard controller that means
 * "absent" at the first look, where Linux would else poll it for seconds.
 */
#include <string.h>
#include <time.h>

#include "rmvm.h"

#define PORT_CMOS_INDEX	0x70
#define PORT_CMOS_DATA	0x71
#define PORT_KEYBOARD	0x64
#define KEYBOARD_RESET	0xfe
#define PORT_SERIAL	0x3f8

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;	/* all of the below */
static u8 cmos_index;

static u8 bcd(int value)
{
	return value / 10 << 4 | value % 10;
}

/*
 * The clock is never seen in the middle of an update, for which Linux would
 * wait with thousands of reads.
 */
static u8 cmos_read(void)
{
	time_t t = time(NULL);
	struct tm tm;

	gmtime_r(&t, &tm);
	switch (cmos_index) {
	case 0x00:
		return bcd(tm.tm_sec);
	case 0x02:
		return bcd(tm.tm_min);
	case 0x04:
		return bcd(tm.tm_hour);
	case 0x06:
		return bcd(tm.tm_wday + 1);
	case 0x07:
		return bcd(tm.tm_mday);
	case 0x08:
		return bcd(tm.tm_mon + 1);
	case 0x09:
		return bcd(tm.tm_year % 100);
	case 0x0a:			/* 32,768 Hz, no update in progress */
		return 0x26;
	case 0x0b:			/* 24 hours, BCD */
		return 0x02;
	case 0x0d:			/* the battery is well */
		return 0x80;
	case 0x32:
		return bcd((tm.tm_year + 1900) / 100);
	default:
		return 0;
	}
}

static u8 read_byte(u16 port)
{
	if (port == PORT_CMOS_DATA)
		return cmos_read();
	if (port >= PORT_SERIAL && port < PORT_SERIAL + 8)
		return serial_read(port - PORT_SERIAL);
	return 0xff;
}

static void write_byte(struct vm *vm, u16 port, u8 value)
{
	if (port == PORT_CMOS_INDEX)
		cmos_index = value & 0x7f;
	else if (port == PORT_KEYBOARD && value == KEYBOARD_RESET)
		vm_end(vm, END_GUEST);
	else if (port >= PORT_SERIAL && port < PORT_SERIAL + 8)
		serial_write(port - PORT_SERIAL, value);
}

/* A page that is not RAM is ignored: a guest's mistake is its own affair. */
static void discard(struct vm *vm, u32 pfn)
{
	u64 gpa = pfn * PAGE;

	if (vm_is_ram(vm, gpa, PAGE) && vm_discard(vm, gpa, PAGE))
		vm_end(vm, END_ERROR);
}

/* One access of 1, 2 or 4 bytes; wider ones go to as many ports in a row. */
void devices_io(struct vm *vm, bool out, u16 port, void *data, unsigned int size)
{
	u8 *byte = data;
	unsigned int i;
	u32 pfn;

	if (out && port == PORT_LOADED) {
		vm_remove_loader(vm);
		return;
	}
	if (out && port == PORT_DISCARD && size == sizeof(pfn)) {
		memcpy(&pfn, data, sizeof(pfn));
		discard(vm, pfn);
		return;
	}

	if (pci_io(out, port, data, size))
		return;

	pthread_mutex_lock(&lock);
	for (i = 0; i < size; i++) {
		if (out)
			write_byte(vm, port + i, byte[i]);
		else
			byte[i] = read_byte(port + i);
	}
	pthread_mutex_unlock(&lock);
}
