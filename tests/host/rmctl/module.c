// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * The module that rmctl sees in its test, to be loaded before it (LD_PRELOAD). Files
 * whose name ends in "memory" are memory: their fdinfo says so, and windows can be
 * made on them. What costs the kernel's a descriptor does so here.
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <restrictedmem.h>

static const char text[] = "ino:\t7\nstore:\tshmem\npage_size:\t4096\nsize:\t1048576\n";

static bool is_memory(int fd)
{
	char path[64], name[256] = "";
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	n = readlink(path, name, sizeof(name) - 1);
	return n > 6 && !strcmp(name + n - 6, "memory");
}

int openat64(int dirfd, const char *path, int flags, ...)
{
	int (*next)(int, const char *, int, ...) = dlsym(RTLD_NEXT, "openat64");
	int of, fd;

	if (sscanf(path, "/proc/self/fdinfo/%d", &of) != 1 || !is_memory(of))
		return next(dirfd, path, flags, 0);
	fd = memfd_create("fdinfo", MFD_CLOEXEC);
	if (fd >= 0 && (write(fd, text, strlen(text)) < 0 || lseek(fd, 0, SEEK_SET)))
		return -1;
	return fd;
}

int ioctl(int fd, unsigned long request, ...)
{
	int (*next)(int, unsigned long, ...) = dlsym(RTLD_NEXT, "ioctl");
	va_list args;
	void *arg;

	va_start(args, request);
	arg = va_arg(args, void *);
	va_end(args);
	if (request == RESTRICTEDMEM_WINDOW && is_memory(fd))
		return memfd_create("window", MFD_CLOEXEC);
	return next(fd, request, arg);
}
