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

/* Objects of a slab cache that are in use, exactly: none linger in a CPU's. */
static double slab_objects(const char *cache)
{
	char path[96], text[64];
	FILE *f;

	snprintf(path, sizeof(path), "/sys/kernel/slab/%s/shrink", cache);
	f = fopen(path, "w");
	CHECK(f && fputs("1", f) >= 0 && !fclose(f));
	snprintf(path, sizeof(path), "/sys/kernel/slab/%s/objects", cache);
	f = fopen(path, "r");
	CHECK(f && fgets(text, sizeof(text), f) && !fclose(f));
	return strtod(text, NULL);
}

/*
 * Return: bytes of the page tables of files (nodes of 576 bytes) for each folio
 * of 2 MiB of a populated file, which is closed.
 */
static double for_a_huge_page(int fd)
{
	const double node = 576, size = 1 * GIB;
	double before;

	CHECK(fd >= 0);
	sleep_ms(100);
	before = slab_objects("radix_tree_node");
	CHECK(!populate(fd, 0, size));
	CHECK(resident(fd) == size);
	before = slab_objects("radix_tree_node") - before;
	close(fd);
	return before * node / (size / HUGE);
}

static double of_huge(void *arg)
{
	return for_a_huge_page(create_huge(1 * GIB));
}

static double of_huge_memfd(void *arg)
{
	int fd = memfd_create("bench", MFD_CLOEXEC);

	CHECK(!ftruncate(fd, 1 * GIB));
	return for_a_huge_page(fd);
}

/* What tmpfs does with a memfd, as an administrator sets it. */
static void memfd_policy(const char *policy)
{
	CHECK(!write_text("/sys/kernel/mm/transparent_hugepage/shmem_enabled",
			  policy));
}

int main(void)
{
	take_figure(&(struct figure){
		.what = "slab for each page of 4 KiB",
		.unit = "bytes",
		.goal = "2.5",
		.rounds = 1,
		.ours = { "private", of_small },
		.peer = { "memfd", of_memfd },
	});
	memfd_policy("always");
	take_figure(&(struct figure){
		.what = "tables for each huge page of 2 MiB",
		.unit = "bytes",
		.goal = "2.1",
		.rounds = 1,
		.ours = { "private", of_huge },
		.peer = { "memfd", of_huge_memfd },
	});
	memfd_policy("never");
	return 0;
}
