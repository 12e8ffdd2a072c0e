/* SPDX-License-Identifier: GPL-2.0-only WITH Linux-syscall-note */
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * The ioctls of /dev/restrictedmem_delay, which makes named kernel functions
 * slow. For tests alone; no ABI.
 *
 * A place belongs to the open file through which it was added, and goes with it.
 */
#ifndef RESTRICTEDMEM_DELAY_H
#define RESTRICTEDMEM_DELAY_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define RMD_IOCTL_TYPE		0xBB

#define RMD_NAME_LEN		64
#define RMD_MAX_USEC		20000U
#define RMD_MAX_PLACES		32
#define RMD_HOLD_MSEC		5000U

/* Wait when the function returns, not when it is entered. */
#define RMD_RETURN		(1U << 0)
/* Wait for a random part of @usec each time. */
#define RMD_RANDOM		(1U << 1)
/* Only in the thread that added the place. */
#define RMD_THIS_THREAD		(1U << 2)
/* Only in threads that are not the one that added the place. */
#define RMD_OTHER_THREADS	(1U << 3)
/* Wait until RMD_GO, for RMD_HOLD_MSEC at most: whoever comes by before it. */
#define RMD_HOLD		(1U << 4)

/**
 * struct rmd_place - a function that is to be slow
 * @symbol: its name; "MODULE:NAME" for one of a module; ends with a zero
 * @offset: bytes into the function; 0 with RMD_RETURN
 * @usec: microseconds to wait, RMD_MAX_USEC at most, 0 with RMD_HOLD; with the
 *	processor busy and preemption off, because the place may hold a spinlock
 * @percent: in how many of 100 calls, 1 to 100
 * @flags: RMD_*
 * @seed: of the choice of calls and of RMD_RANDOM
 *
 * RMD_ADD fails with EINVAL for values out of range, with ENOENT where there is no
 * such function that can be probed, with ENOSPC beyond RMD_MAX_PLACES of one file,
 * and with ENOMEM. It returns the place's number, for RMD_HITS.
 */
struct rmd_place {
	char symbol[RMD_NAME_LEN];
	__u32 offset;
	__u32 usec;
	__u32 percent;
	__u32 flags;
	__u64 seed;
};

/* How often the place with number @place was come by, and waited at. */
struct rmd_hits {
	__u32 place;
	__u32 pad;
	__u64 calls;		/* out */
	__u64 waits;		/* out */
};

#define RMD_ADD		_IOW(RMD_IOCTL_TYPE, 0, struct rmd_place)
#define RMD_HITS	_IOWR(RMD_IOCTL_TYPE, 1, struct rmd_hits)
/* Remove all places of the file. */
#define RMD_CLEAR	_IO(RMD_IOCTL_TYPE, 2)
/* No waits any more at the file's places; who is held goes on. */
#define RMD_GO		_IO(RMD_IOCTL_TYPE, 3)

#endif /* RESTRICTEDMEM_DELAY_H */
