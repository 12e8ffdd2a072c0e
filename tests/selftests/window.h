/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * Conversion and windows: the calls, and accesses that may end in SIGBUS.
 */
#ifndef WINDOW_H
#define WINDOW_H

#include <setjmp.h>
#include <signal.h>

#include <linux/loop.h>

#include "util.h"

#define PRIVATE		RESTRICTEDMEM_ATTRIBUTE_PRIVATE
#define SHARED		0
#define ZERO		RESTRICTEDMEM_CONVERT_ZERO
#define PRESERVE	RESTRICTEDMEM_CONVERT_PRESERVE
#define NO_OFFSET	0xdeadULL	/* what @done is when nobody has set it */

/* An access that gets SIGBUS: -1 or the signal's si_code */
static __thread sigjmp_buf sigbus_env;
static __thread volatile int sigbus_code;

static void on_sigbus(int sig, siginfo_t *info, void *context)
{
	sigbus_code = info->si_code;
	siglongjmp(sigbus_env, 1);
}

static inline void catch_sigbus(void)
{
	struct sigaction action = {
		.sa_sigaction = on_sigbus,
		.sa_flags = SA_SIGINFO | SA_NODEFER,
	};

	sigaction(SIGBUS, &action, NULL);
}

/* Read a word. Return: 0, or -1 when that is SIGBUS. */
static inline int peek(const volatile uint64_t *p, uint64_t *value)
{
	if (sigsetjmp(sigbus_env, 0))
		return -1;
	*value = *p;
	return 0;
}

static inline int poke(volatile uint64_t *p, uint64_t value)
{
	if (sigsetjmp(sigbus_env, 0))
		return -1;
	*p = value;
	return 0;
}

/* Can a word be read? */
static inline bool is_visible(const void *p)
{
	uint64_t value;

	return !peek(p, &value);
}

/* @done may be NULL; else it gets error_offset. Return: 0, or -1 with errno. */
static inline int convert_to(int fd, uint64_t offset, uint64_t length,
			     uint64_t attributes, uint32_t flags, uint64_t *done)
{
	struct restrictedmem_convert args = {
		.size = sizeof(args),
		.flags = flags,
		.offset = offset,
		.length = length,
		.attributes = attributes,
		.error_offset = NO_OFFSET,
	};
	int r = ioctl(fd, RESTRICTEDMEM_CONVERT, &args);

	if (done)
		*done = args.error_offset;
	return r;
}

static inline int convert(int fd, uint64_t offset, uint64_t length,
			  uint64_t attributes, uint32_t flags)
{
	return convert_to(fd, offset, length, attributes, flags, NULL);
}

/* Return: the window's descriptor, or -1 with errno. */
static inline int open_window(int fd, uint64_t offset, uint64_t length, uint32_t flags)
{
	const struct restrictedmem_window args = {
		.size = sizeof(args),
		.flags = flags,
		.offset = offset,
		.length = length,
	};

	return ioctl(fd, RESTRICTEDMEM_WINDOW, &args);
}

static inline int revoke_window(int fd, int window)
{
	const struct restrictedmem_revoke args = {
		.size = sizeof(args),
		.fd = window,
	};

	return ioctl(fd, RESTRICTEDMEM_REVOKE, &args);
}

static inline void *map_window(int window, uint64_t length, int prot)
{
	return mmap(NULL, length, prot, MAP_SHARED, window, 0);
}

/* Kilobytes of a mapping, which begins at @p, that are there; or -1. */
static inline long rss_of(const void *p)
{
	FILE *file = fopen("/proc/self/smaps", "re");
	unsigned long start, end;
	char line[512];
	bool inside = false;
	long rss = -1;

	while (file && rss < 0 && fgets(line, sizeof(line), file)) {
		if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
			inside = start == (uintptr_t)p;
		else if (inside)
			sscanf(line, "Rss: %ld kB", &rss);
	}
	if (file)
		fclose(file);
	return rss;
}

/*
 * A disk of @size bytes for direct I/O, which goes when it is closed; its
 * descriptor, or -1.
 */
static inline int open_disk(uint64_t size)
{
	struct loop_config config = { .info.lo_flags = LO_FLAGS_AUTOCLEAR };
	int control, n, disk;

	if (access("/dev/loop-control", F_OK) && system("modprobe loop"))
		return -1;
	control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
	n = ioctl(control, LOOP_CTL_GET_FREE);
	close(control);
	if (n < 0)
		return -1;
	disk = open(path_of("/dev/loop%d", n), O_RDWR | O_DIRECT | O_CLOEXEC);
	config.fd = memfd_create("disk", MFD_CLOEXEC);
	if (disk < 0 || ftruncate(config.fd, size) || ioctl(disk, LOOP_CONFIGURE, &config))
		return -1;
	close(config.fd);
	return disk;
}

#endif /* WINDOW_H */
