/* SPDX-License-Identifier: GPL-2.0-only WITH Linux-syscall-note */
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * The ioctls of /dev/restrictedmem_test. For tests alone; no ABI.
 *
 * Each open file of the device is one consumer with an owner's token of its
 * own. Ranges are in pages, [start, end). Sequence numbers are taken from one
 * counter of the whole module, so that they order what any two consumers saw.
 */
#ifndef RESTRICTEDMEM_TEST_H
#define RESTRICTEDMEM_TEST_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define RMT_IOCTL_TYPE		0xBA

/* Bind pages of a file; @seq is taken when the call is done. */
struct rmt_bind {
	__s32 fd;
	__u32 id;		/* out */
	__u64 start;
	__u64 end;
	__u64 seq;		/* out */
};

/* As if it had never been bound. */
#define RMT_UNBIND_CANCEL	(1U << 0)
/* Keep what is held until the consumer is closed. */
#define RMT_UNBIND_KEEP		(1U << 1)

struct rmt_unbind {
	__u32 id;
	__u32 flags;		/* RMT_UNBIND_* */
	__u64 seq;		/* out */
};

/* Keep the reference until RMT_PUT, RMT_UNBIND without RMT_UNBIND_KEEP, or close. */
#define RMT_GET_HOLD		(1U << 0)
/* Note the page as mapped; the next invalidation of it removes the note. */
#define RMT_GET_MAP		(1U << 1)
/* Neither sleep nor allocate: only @order is filled in. */
#define RMT_GET_ORDER_ONLY	(1U << 2)
/* With RMT_GET_MAP: others may write to the page meanwhile. */
#define RMT_GET_SHARED		(1U << 3)

struct rmt_page {
	__u32 id;
	__u32 flags;		/* RMT_GET_* */
	__u64 index;
	__u64 pfn;		/* out */
	__u64 seq;		/* out, when the call is done */
	__u32 order;		/* out */
	__u32 pad;
};

/* Access contents. */
#define RMT_RW_WRITE		(1U << 0)
#define RMT_RW_ATOMIC		(1U << 1)	/* with interrupts off */
#define RMT_RW_MAP		(1U << 2)	/* by restrictedmem_map_page() */

#define RMT_RW_MAX		(1U << 20)

struct rmt_rw {
	__u32 id;
	__u32 flags;		/* RMT_RW_* */
	__u64 pos;
	__u64 buf;
	__u32 len;		/* RMT_RW_MAX at most */
	__u32 pad;
};

enum rmt_event_type {
	RMT_START = 1,
	RMT_END = 2,
	RMT_ERROR = 3,
};

/* One call of a notifier, @seq taken as it began. */
struct rmt_event {
	__u64 seq;
	__u64 start;
	__u64 end;
	__u32 id;
	__u32 type;
	__u32 mapped;		/* pages noted as mapped in the range, */
	__u32 intact;		/* of them still in place, contents and all */
};

struct rmt_events {
	__u64 buf;		/* struct rmt_event[count] */
	__u32 count;		/* in: room; out: how many there were */
	__u32 violations;	/* out: broken promises, all since open */
	__u32 mapped;		/* out: pages noted as mapped now */
	__u32 pad;
};

/* How long the kernel's own clear_page takes for that many bytes. */
struct rmt_clear {
	__u64 bytes;		/* a multiple of 2 MiB */
	__u64 ns;		/* out */
};

#define RMT_BIND	_IOWR(RMT_IOCTL_TYPE, 0, struct rmt_bind)
#define RMT_UNBIND	_IOWR(RMT_IOCTL_TYPE, 1, struct rmt_unbind)
#define RMT_GET_PFN	_IOWR(RMT_IOCTL_TYPE, 2, struct rmt_page)
#define RMT_PUT		_IOW(RMT_IOCTL_TYPE, 3, struct rmt_page)
#define RMT_RW		_IOW(RMT_IOCTL_TYPE, 4, struct rmt_rw)
/* Take, and so clear, the log of notifier calls. */
#define RMT_EVENTS	_IOWR(RMT_IOCTL_TYPE, 5, struct rmt_events)
/* Take over the owner of another consumer, whose fd is the argument. */
#define RMT_SET_OWNER	_IO(RMT_IOCTL_TYPE, 6)
/* Milliseconds that each invalidate_start takes: the argument. */
#define RMT_SET_DELAY	_IO(RMT_IOCTL_TYPE, 7)
#define RMT_CLEAR	_IOWR(RMT_IOCTL_TYPE, 8, struct rmt_clear)

#endif /* RESTRICTEDMEM_TEST_H */
