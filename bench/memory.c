// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * What the kernel keeps beside the memory itself.
 */
#include "bench.h"

#define SIZE		(256 * MIB)

/* What the slab allocator holds, in bytes. */
static double slab_bytes(void)
{
	unsigned long kib = 0;
	char line[128];
	FILE *f;
	int fd;

	/* Let RCU free what it has, and the counters of all CPUs be summed. */
	sleep_ms(100);
	fd = open("/proc/sys/vm/stat_refresh", O_WRONLY);
	CHECK(fd >= 0);
	CHECK(write(fd, "1", 1) == 1);
	close(fd);

	f = fopen("/proc/meminfo", "r");
	CHECK(f);
	while (!kib && fgets(line, sizeof(line), f))
		sscanf(line, "Slab: %lu kB", &kib);
	fclose(f);
	CHECK(kib);
	return kib * 1024.0;
}

/* Return: bytes of slab for each 4 KiB of a populated file, which is closed. */
static double for_a_page(int fd)
{
	double before;

	CHECK(fd >= 0);
	before = slab_bytes();
	CHECK(!populate(fd, 0, SIZE));
	CHECK(resident(fd) == SIZE);
	before = slab_bytes() - before;
	close(fd);
	return before / (SIZE / PAGE);
}

static double of_small(void *arg)
{
	return for_a_page(create_small(SIZE));
}

static double of_memfd(void *arg)
{
	int fd = memfd_create("bench", MFD_CLOEXEC);

	CHECK(!ftruncate(fd, SIZE));
	return for_a_page(fd);
}

int main(void)
{
	take_figure(&(struct figure){
		.what = "slab for each page of 4 KiB",
		.unit = "bytes",
		.rounds = 1,
		.ours = { "private", of_small },
		.peer = { "memfd", of_memfd },
	});
	return 0;
}
