/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * Loading and unloading the modules, and all that the consumer in
 * restrictedmem_test.ko can be asked for.
 */
#ifndef CONSUMER_H
#define CONSUMER_H

#include <libgen.h>
#include <limits.h>

#include <restrictedmem_test.h>

#include "accounting.h"

/* @path is relative to the top of the tree, two above the program's folder. */
static inline int load_module(const char *path)
{
	char file[PATH_MAX + 64], exe[PATH_MAX] = {};
	int fd, r;

	if (readlink("/proc/self/exe", exe, sizeof(exe) - 1) < 0)
		return -1;
	snprintf(file, sizeof(file), "%s/../../%s", dirname(exe), path);
	fd = open(file, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	r = syscall(SYS_finit_module, fd, "", 0);
	close(fd);
	return r && errno == EEXIST ? 0 : r;
}

static inline int unload_module(const char *name)
{
	return syscall(SYS_delete_module, name, O_NONBLOCK);
}

static inline long module_refs(const char *name)
{
	char text[32];

	if (read_text(path_of("/sys/module/%s/refcnt", name), text,
		      sizeof(text)) <= 0)
		return -1;
	return strtol(text, NULL, 10);
}

/* A consumer; its fd, or -1. */
static inline int consumer_open(void)
{
	if (load_module("tests/kmod/restrictedmem_test.ko"))
		return -1;
	return open("/dev/restrictedmem_test", O_RDWR | O_CLOEXEC);
}

/* Return: the binding's id, or -1 with errno; @seq may be NULL. */
static inline int bind_seq(int consumer, int fd, uint64_t start, uint64_t end,
			   uint64_t *seq)
{
	struct rmt_bind arg = { .fd = fd, .start = start, .end = end };

	if (ioctl(consumer, RMT_BIND, &arg))
		return -1;
	if (seq)
		*seq = arg.seq;
	return arg.id;
}

static inline int bind_range(int consumer, int fd, uint64_t start, uint64_t end)
{
	return bind_seq(consumer, fd, start, end, NULL);
}

static inline int unbind(int consumer, int id)
{
	struct rmt_unbind arg = { .id = id };

	return ioctl(consumer, RMT_UNBIND, &arg);
}

/* What is held stays so until the consumer is closed. */
static inline int unbind_keep(int consumer, int id)
{
	struct rmt_unbind arg = { .id = id, .flags = RMT_UNBIND_KEEP };

	return ioctl(consumer, RMT_UNBIND, &arg);
}

/* Take a bind back that was never used. */
static inline int cancel(int consumer, int id)
{
	struct rmt_unbind arg = { .id = id, .flags = RMT_UNBIND_CANCEL };

	return ioctl(consumer, RMT_UNBIND, &arg);
}

static inline int get_page(int consumer, int id, uint64_t index, uint32_t flags,
			   struct rmt_page *page)
{
	*page = (struct rmt_page) { .id = id, .flags = flags, .index = index };
	return ioctl(consumer, RMT_GET_PFN, page);
}

/* Return: the pfn, or 0. */
static inline uint64_t get_pfn(int consumer, int id, uint64_t index)
{
	struct rmt_page page;

	return get_page(consumer, id, index, 0, &page) ? 0 : page.pfn;
}

static inline int put_page(int consumer, int id, uint64_t index)
{
	struct rmt_page page = { .id = id, .index = index };

	return ioctl(consumer, RMT_PUT, &page);
}

static inline int access_data(int consumer, int id, uint32_t flags,
			      uint64_t pos, void *buf, uint32_t len)
{
	struct rmt_rw arg = {
		.id = id,
		.flags = flags,
		.pos = pos,
		.buf = (uintptr_t)buf,
		.len = len,
	};

	return ioctl(consumer, RMT_RW, &arg);
}

static inline int read_data(int consumer, int id, uint64_t pos, void *buf,
			    uint32_t len)
{
	return access_data(consumer, id, 0, pos, buf, len);
}

static inline int write_data(int consumer, int id, uint64_t pos,
			     const void *buf, uint32_t len)
{
	return access_data(consumer, id, RMT_RW_WRITE, pos, (void *)buf, len);
}

/* Promises that were broken to a consumer since it was opened, or -1. */
static inline int violations(int consumer)
{
	struct rmt_events arg = {};

	return ioctl(consumer, RMT_EVENTS, &arg) ? -1 : arg.violations;
}

/* A file of small pages, made with flags. */
static inline int create_flagged(uint64_t length, uint32_t flags)
{
	const struct restrictedmem_create args = {
		.size = sizeof(args),
		.length = length,
		.flags = flags,
		.thp = RESTRICTEDMEM_THP_NEVER,
	};

	return create_with(&args);
}

/* A file that may be bound twice. */
static inline int create_aliased(uint64_t length)
{
	return create_flagged(length, RESTRICTEDMEM_CREATE_ALIASES);
}

static inline void fill_page(uint64_t *page, uint64_t seed)
{
	for (int i = 0; i < PAGE / 8; i++)
		page[i] = seed * 0x9e3779b97f4a7c15 + i;
}

/* Write a different pattern to each page of [start, end). */
static inline int write_pattern(int c, int id, uint64_t start, uint64_t end)
{
	uint64_t page[PAGE / 8];

	for (uint64_t i = start; i < end; i++) {
		fill_page(page, i + 1);
		if (write_data(c, id, i * PAGE, page, PAGE))
			return -1;
	}
	return 0;
}

/* How many pages of [start, end) do not have their pattern? */
static inline int count_changed(int c, int id, uint64_t start, uint64_t end)
{
	uint64_t page[PAGE / 8], expected[PAGE / 8];
	int changed = 0;

	for (uint64_t i = start; i < end; i++) {
		fill_page(expected, i + 1);
		if (read_data(c, id, i * PAGE, page, PAGE) ||
		    memcmp(page, expected, PAGE))
			changed++;
	}
	return changed;
}

/* How many pages of [start, end) are not all zeros? */
static inline int count_nonzero(int c, int id, uint64_t start, uint64_t end)
{
	static const char zeros[PAGE];
	char page[PAGE];
	int nonzero = 0;

	for (uint64_t i = start; i < end; i++)
		if (read_data(c, id, i * PAGE, page, PAGE) ||
		    memcmp(page, zeros, PAGE))
			nonzero++;
	return nonzero;
}

/*
 * What the fixtures have in common: a consumer and two files, of which "small"
 * has 4 KiB pages alone; and in the end no promise was broken, all accounts
 * agree, and nothing is left.
 */
#define CONSUMER_AND_FILES						\
	struct accounts accounts;					\
	int c;								\
	int small;							\
	int huge;							\
	uint64_t resident

#define SETUP_CONSUMER_AND_FILES() do {					\
	ASSERT_EQ(0, accounts_begin(&self->accounts));			\
	self->resident = resident_total();				\
	self->c = consumer_open();					\
	ASSERT_LE(0, self->c);						\
	self->small = create_small(16 * PAGE);				\
	ASSERT_LE(0, self->small);					\
	self->huge = create_huge(4 * HUGE);				\
	ASSERT_LE(0, self->huge);					\
} while (0)

#define TEARDOWN_CONSUMER_AND_FILES() do {				\
	EXPECT_EQ(0, violations(self->c));				\
	close(self->c);							\
	EXPECT_STREQ("", accounts_differ(&self->accounts));		\
	close(self->small);						\
	close(self->huge);						\
	EXPECT_EQ(self->resident, resident_total());			\
	EXPECT_STREQ("", accounts_end(&self->accounts));		\
} while (0)

#endif /* CONSUMER_H */
