// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * The device's and the files' calls. A struct's size is that of this library's
 * header, except where the caller brings his own.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>

#include <linux/falloc.h>

#include "librestrictedmem.h"

int restrictedmem_open(void)
{
	return open("/dev/restrictedmem", O_RDWR | O_CLOEXEC);
}

int restrictedmem_info(int device, struct restrictedmem_info *info, size_t size)
{
	if (size < sizeof(info->size) || size > UINT32_MAX) {
		errno = EINVAL;
		return -1;
	}
	memset(info, 0, size);
	info->size = size;
	return ioctl(device, RESTRICTEDMEM_INFO, info);
}

int restrictedmem_create(int device, const struct restrictedmem_create *args)
{
	return ioctl(device, RESTRICTEDMEM_CREATE, args);
}

int restrictedmem_link(int fd)
{
	const struct restrictedmem_link args = { .size = sizeof(args) };

	return ioctl(fd, RESTRICTEDMEM_LINK, &args);
}

/* The kernel refuses what is negative for it, with the same errno. */
int restrictedmem_populate(int fd, uint64_t offset, uint64_t length)
{
	return fallocate(fd, FALLOC_FL_KEEP_SIZE, offset, length);
}

int restrictedmem_punch(int fd, uint64_t offset, uint64_t length)
{
	return fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length);
}

int restrictedmem_convert(int fd, uint64_t offset, uint64_t length,
			  uint64_t attributes, uint32_t flags,
			  uint64_t *error_offset)
{
	struct restrictedmem_convert args = {
		.size = sizeof(args),
		.flags = flags,
		.offset = offset,
		.length = length,
		.attributes = attributes,
		.error_offset = offset,
	};
	int r = ioctl(fd, RESTRICTEDMEM_CONVERT, &args);

	if (error_offset)
		*error_offset = args.error_offset;
	return r;
}

int restrictedmem_window(int fd, uint64_t offset, uint64_t length,
			 uint32_t flags)
{
	const struct restrictedmem_window args = {
		.size = sizeof(args),
		.flags = flags,
		.offset = offset,
		.length = length,
	};

	return ioctl(fd, RESTRICTEDMEM_WINDOW, &args);
}

int restrictedmem_revoke(int fd, int window)
{
	const struct restrictedmem_revoke args = {
		.size = sizeof(args),
		.fd = window,
	};

	return ioctl(fd, RESTRICTEDMEM_REVOKE, &args);
}
