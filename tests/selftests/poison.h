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

#endif /* POISON_H */
