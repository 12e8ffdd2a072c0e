/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * What all tests need: an expected errno, and files to try things on.
 */
#ifndef UTIL_H
#define UTIL_H

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <linux/falloc.h>
#include <restrictedmem.h>

#define KIB		1024UL
#define MIB		(1024 * KIB)
#define GIB		(1024 * MIB)
#define PAGE		(4 * KIB)
#define HUGE		(2 * MIB)
#define HUGE_ORDER	9
#define HUGE_PAGES	(HUGE / PAGE)

#define PUNCH		(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)

/* What a test cannot go on without, where there is no test's ASSERT_*() */
#define CHECK(_condition) do {						\
	if (!(_condition)) {						\
		fprintf(stderr, "# %s:%d: %s (errno %d)\n", __FILE__,	\
			__LINE__, #_condition, errno);			\
		abort();						\
	}								\
} while (0)

/* The call returns -1 with this errno. */
#define EXPECT_FAILS(_errno, _call) do {		\
	errno = 0;					\
	EXPECT_EQ(-1, (long)(_call));			\
	EXPECT_EQ(_errno, errno);			\
} while (0)

#define EXPECT_WORKS(_call)	EXPECT_EQ(0, (long)(_call))

static inline int device_open(void)
{
	return open("/dev/restrictedmem", O_RDWR | O_CLOEXEC);
}

static inline int create_with(const struct restrictedmem_create *args)
{
	int dev = device_open(), fd, saved;

	fd = dev < 0 ? -1 : ioctl(dev, RESTRICTEDMEM_CREATE, args);
	saved = errno;
	if (dev >= 0)
		close(dev);
	errno = saved;
	return fd;
}

/* A file of @length bytes with a THP policy, or -1 with errno. */
static inline int create(uint64_t length, uint32_t thp)
{
	const struct restrictedmem_create args = {
		.size = sizeof(args),
		.length = length,
		.thp = thp,
	};

	return create_with(&args);
}

static inline int create_small(uint64_t length)
{
	return create(length, RESTRICTEDMEM_THP_NEVER);
}

static inline int create_huge(uint64_t length)
{
	return create(length, RESTRICTEDMEM_THP_ALWAYS);
}

/* Another view of a file's memory, or -1 with errno. */
static inline int link_view(int fd)
{
	const struct restrictedmem_link args = { .size = sizeof(args) };

	return ioctl(fd, RESTRICTEDMEM_LINK, &args);
}

static inline int get_info(struct restrictedmem_info *info)
{
	int dev = device_open(), r;

	memset(info, 0, sizeof(*info));
	info->size = sizeof(*info);
	r = ioctl(dev, RESTRICTEDMEM_INFO, info);
	close(dev);
	return r;
}

/* Bytes that all files hold. */
static inline uint64_t resident_total(void)
{
	struct restrictedmem_info info;

	return get_info(&info) ? ~0ULL : info.resident;
}

static inline int populate(int fd, off_t offset, off_t len)
{
	return fallocate(fd, FALLOC_FL_KEEP_SIZE, offset, len);
}

static inline int punch(int fd, off_t offset, off_t len)
{
	return fallocate(fd, PUNCH, offset, len);
}

/* Bytes that one file holds. */
static inline uint64_t resident(int fd)
{
	struct stat st;

	return fstat(fd, &st) ? ~0ULL : st.st_blocks * 512ULL;
}

static inline void sleep_ms(unsigned int ms)
{
	const struct timespec ts = {
		.tv_sec = ms / 1000,
		.tv_nsec = ms % 1000 * 1000000L,
	};

	nanosleep(&ts, NULL);
}

/* How often to do what is done many times; $RM_SLOW is how slow the kernel is. */
static inline uint64_t rounds(uint64_t count)
{
	const char *slow = getenv("RM_SLOW");

	return slow ? count / atoi(slow) : count;
}

/* How much of what takes long for its size alone: less on a kernel that is slow */
static inline uint64_t smaller(uint64_t amount)
{
	return getenv("RM_SLOW") ? amount / 2 : amount;
}

/* A path below /proc/self/fd or another pattern; one buffer for all. */
static inline const char *path_of(const char *format, ...)
{
	static char path[128];
	va_list args;

	va_start(args, format);
	vsnprintf(path, sizeof(path), format, args);
	va_end(args);
	return path;
}

/* Return: the bytes read, and a string in @buf, or -1. */
static inline ssize_t read_text(const char *path, char *buf, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	buf[0] = 0;
	if (fd < 0)
		return -1;
	n = read(fd, buf, size - 1);
	buf[n < 0 ? 0 : n] = 0;
	close(fd);
	return n;
}

static inline int write_text(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return -1;
	n = write(fd, text, strlen(text));
	close(fd);
	return n == (ssize_t)strlen(text) ? 0 : -1;
}

#define LIMIT "/sys/module/restrictedmem/parameters/limit"

/* Bytes that count against the limit */
static inline uint64_t charged(void)
{
	char text[32];

	if (read_text("/sys/kernel/debug/restrictedmem/charged", text, sizeof(text)) <= 0)
		return ~0ULL;
	return strtoull(text, NULL, 10);
}

static inline int set_limit(uint64_t bytes)
{
	return write_text(LIMIT, path_of("%llu", (unsigned long long)bytes));
}

/*
 * A value of the file's fdinfo, or NULL; one buffer for all. The kernel's own
 * keys come first, of which "flags" is one.
 */
static inline const char *fdinfo(int fd, const char *key)
{
	static char text[4096];
	char *line, *next, *value = NULL;
	size_t len = strlen(key);

	if (read_text(path_of("/proc/self/fdinfo/%d", fd), text,
		      sizeof(text)) <= 0)
		return NULL;
	for (line = strtok_r(text, "\n", &next); line;
	     line = strtok_r(NULL, "\n", &next))
		if (!strncmp(line, key, len) && line[len] == ':' &&
		    line[len + 1] == '\t')
			value = line + len + 2;
	return value;
}

static inline long long fdinfo_number(int fd, const char *key)
{
	const char *value = fdinfo(fd, key);

	return value ? strtoll(value, NULL, 0) : -1;
}

#endif /* UTIL_H */
