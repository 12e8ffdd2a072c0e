// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * Lines of a key, a colon, a tab and a value, as fdinfo has them. The kernel's
 * own come first, and one of them ("flags") has a name that ours has too: so
 * those count only up to the line that ours begin with.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "librestrictedmem.h"

/* A caller has at least this much of the struct. */
#define FIRST_SIZE	(offsetof(struct restrictedmem_fdinfo, reserved0) + sizeof(uint32_t))

struct field {
	const char *key;
	size_t offset;
	size_t width;	/* of a number 4 or 8; else of a string */
	bool text;
};

#define NUMBER(_key, _member) { \
	.key = _key, \
	.offset = offsetof(struct restrictedmem_fdinfo, _member), \
	.width = sizeof(((struct restrictedmem_fdinfo *)0)->_member), \
}

#define TEXT(_key, _member) { \
	.key = _key, \
	.offset = offsetof(struct restrictedmem_fdinfo, _member), \
	.width = sizeof(((struct restrictedmem_fdinfo *)0)->_member), \
	.text = true, \
}

static const struct field memory_fields[] = {
	TEXT("store", store),
	TEXT("thp", thp),
	TEXT("numa", numa),
	NUMBER("page_size", page_size),
	NUMBER("size", size),
	NUMBER("reserved", reserved),
	NUMBER("resident", resident),
	NUMBER("poisoned", poisoned),
	NUMBER("shared", shared),
	NUMBER("owner", owner),
	NUMBER("flags", flags),
	NUMBER("bindings", bindings),
	NUMBER("view_bindings", view_bindings),
	NUMBER("windows", windows),
	{ .key = NULL },
};

static const struct field window_fields[] = {
	NUMBER("window", inode),
	NUMBER("offset", window_offset),
	NUMBER("length", window_length),
	NUMBER("write", window_write),
	NUMBER("revoked", window_revoked),
	{ .key = NULL },
};

static void store_number(void *member, size_t width, const char *value)
{
	unsigned long long number = strtoull(value, NULL, 0);

	if (width == sizeof(uint32_t))
		*(uint32_t *)member = number;
	else
		*(uint64_t *)member = number;
}

static void store_field(struct restrictedmem_fdinfo *info, const struct field *field,
			const char *value)
{
	void *member = (char *)info + field->offset;

	if (field->text)
		snprintf(member, field->width, "%s", value);
	else
		store_number(member, field->width, value);
}

/* "resident_order9" and its like: true if @key is one. */
static bool store_indexed(const char *key, const char *prefix, uint64_t *array,
			  size_t nr, const char *value)
{
	size_t len = strlen(prefix);
	unsigned long index;
	char *end;

	if (strncmp(key, prefix, len))
		return false;
	index = strtoul(key + len, &end, 10);
	if (end != key + len && !*end && index < nr)
		array[index] = strtoull(value, NULL, 0);
	return true;
}

static void take_own_line(struct restrictedmem_fdinfo *info, const char *key,
			  const char *value)
{
	const struct field *field = info->kind == RESTRICTEDMEM_KIND_WINDOW ?
					window_fields : memory_fields;

	if (store_indexed(key, "resident_order", info->resident_order,
			  RESTRICTEDMEM_NR_ORDERS, value) ||
	    store_indexed(key, "resident_node", info->resident_node,
			  RESTRICTEDMEM_NR_NODES, value))
		return;
	for (; field->key; field++)
		if (!strcmp(key, field->key)) {
			store_field(info, field, value);
			return;
		}
}

static void take_line(struct restrictedmem_fdinfo *info, char *line)
{
	char *value = strstr(line, ":\t");

	if (!value)
		return;
	*value = 0;
	value += 2;
	if (!info->kind && !strcmp(line, "ino")) {
		info->inode = strtoull(value, NULL, 10);
		info->file_inode = info->inode;
	} else if (!info->kind && !strcmp(line, "store")) {
		info->kind = RESTRICTEDMEM_KIND_MEMORY;
	} else if (!info->kind && !strcmp(line, "window")) {
		info->kind = RESTRICTEDMEM_KIND_WINDOW;
	}
	if (info->kind)
		take_own_line(info, line, value);
}

/* One read: seq_file gives all of it at once if there is room. */
static ssize_t read_all(int dirfd, const char *path, char *text, size_t size)
{
	int fd = openat(dirfd, path, O_RDONLY | O_CLOEXEC);
	size_t done = 0;
	ssize_t n;
	int saved;

	if (fd < 0)
		return -1;
	do {
		n = read(fd, text + done, size - 1 - done);
		if (n > 0)
			done += n;
	} while (n > 0 || (n < 0 && errno == EINTR));
	saved = errno;
	close(fd);
	errno = saved;
	text[done] = 0;
	return n < 0 ? -1 : (ssize_t)done;
}

int restrictedmem_fdinfo_at(int dirfd, const char *path,
			    struct restrictedmem_fdinfo *info, size_t size)
{
	struct restrictedmem_fdinfo found = {};
	char text[8192], *line, *next;

	if (size < FIRST_SIZE) {
		errno = EINVAL;
		return -1;
	}
	if (read_all(dirfd, path, text, sizeof(text)) < 0)
		return -1;
	for (line = strtok_r(text, "\n", &next); line; line = strtok_r(NULL, "\n", &next))
		take_line(&found, line);
	/* A key that others have too does not make it ours. */
	if (!(found.kind == RESTRICTEDMEM_KIND_WINDOW ? found.window_length : found.page_size)) {
		errno = ENOTTY;
		return -1;
	}
	memset(info, 0, size);
	memcpy(info, &found, size < sizeof(found) ? size : sizeof(found));
	return 0;
}

int restrictedmem_fdinfo(int fd, struct restrictedmem_fdinfo *info, size_t size)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	if (!restrictedmem_fdinfo_at(AT_FDCWD, path, info, size))
		return 0;
	if (errno == ENOENT && fcntl(fd, F_GETFD) < 0)
		errno = EBADF;
	return -1;
}
