/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * Memory errors by the kernel's hwpoison-inject. Each one costs the machine a
 * page until it is rebooted.
 */
#ifndef POISON_H
#define POISON_H

#include <sys/mount.h>

#include "consumer.h"

#define DEBUGFS		"/sys/kernel/debug"
#define CORRUPT_PFN	DEBUGFS "/hwpoison/corrupt-pfn"

static inline int hwpoison_init(void)
{
	if (access(DEBUGFS "/tracing", F_OK))
		mount("none", DEBUGFS, "debugfs", 0, NULL);
	if (access(CORRUPT_PFN, W_OK) && system("modprobe hwpoison-inject"))
		return -1;
	return access(CORRUPT_PFN, W_OK);
}

/*
 * The kernel's answer is of no interest: it cannot recover a page that somebody
 * holds. What comes of it comes later, from a workqueue.
 */
static inline void poison_pfn(uint64_t pfn)
{
	write_text(CORRUPT_PFN, path_of("%#llx", (unsigned long long)pfn));
}

/* Wait until @bytes of a file are marked; -1 if that does not happen. */
static inline int wait_poisoned(int fd, long long bytes)
{
	for (int i = 0; i < 1000; i++) {
		if (fdinfo_number(fd, "poisoned") == bytes)
			return 0;
		sleep_ms(10);
	}
	return -1;
}

/*
 * A consumer was told of one error, on page @_bad, and to let go of
 * [@_start, @_end) around it, of which it had mapped one page.
 */
#define EXPECT_TOLD_ONCE(_c, _bad, _start, _end) do {			\
	struct rmt_event _events[8];					\
	struct rmt_events _got = {					\
		.buf = (uintptr_t)_events,				\
		.count = 8,						\
	};								\
									\
	/* Should it be told again */					\
	sleep_ms(50);							\
	ASSERT_EQ(0, ioctl(_c, RMT_EVENTS, &_got));			\
	ASSERT_EQ(3, _got.count);					\
	EXPECT_EQ(RMT_START, _events[0].type);				\
	EXPECT_EQ(_start, _events[0].start);				\
	EXPECT_EQ(_end, _events[0].end);				\
	EXPECT_EQ(1, _events[0].mapped);				\
	EXPECT_EQ(RMT_ERROR, _events[1].type);				\
	EXPECT_EQ(_bad, _events[1].start);				\
	EXPECT_EQ((_bad) + 1, _events[1].end);				\
	EXPECT_EQ(RMT_END, _events[2].type);				\
	EXPECT_EQ(0, _got.mapped);					\
} while (0)

#endif /* POISON_H */
