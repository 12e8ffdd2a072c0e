// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * Makes memory, populates and discards some of it, and shows what the kernel
 * says. A VMM would hand the descriptor to KVM instead, as guest_memfd of
 * KVM_SET_USER_MEMORY_REGION2.
 *
 *	cc example.c $(pkg-config --cflags --libs librestrictedmem)
 */
#include <librestrictedmem.h>

#include <err.h>
#include <stdio.h>
#include <unistd.h>

#define MIB	(1UL << 20)

static void show(const char *when, int fd)
{
	struct restrictedmem_fdinfo info;

	if (restrictedmem_fdinfo(fd, &info, sizeof(info)))
		err(1, "fdinfo");
	printf("%s: %lu of %lu MiB resident\n", when,
	       (unsigned long)(info.resident / MIB),
	       (unsigned long)(info.size / MIB));
}

int main(void)
{
	struct restrictedmem_create args = {
		.size = sizeof(args),
		.length = 16 * MIB,
	};
	struct restrictedmem_info info;
	int device, fd;
	char byte;

	device = restrictedmem_open();
	if (device < 0)
		err(1, "/dev/restrictedmem");
	if (restrictedmem_info(device, &info, sizeof(info)))
		err(1, "RESTRICTEDMEM_INFO");
	printf("KVM takes the files: %s\n",
	       info.features & RESTRICTEDMEM_FEATURE_KVM ? "yes" : "no");

	fd = restrictedmem_create(device, &args);
	if (fd < 0)
		err(1, "RESTRICTEDMEM_CREATE");
	show("new", fd);
	if (restrictedmem_populate(fd, 0, 8 * MIB))
		err(1, "populate");
	show("populated", fd);
	if (restrictedmem_punch(fd, 0, 4 * MIB))
		err(1, "punch");
	show("punched", fd);
	if (read(fd, &byte, 1) < 0)
		warn("as it should be, read");
	return 0;
}
