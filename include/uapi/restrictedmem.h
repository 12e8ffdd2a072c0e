/* SPDX-License-Identifier: GPL-2.0-only WITH Linux-syscall-note */
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * The ioctls of /dev/restrictedmem.
 *
 * Every argument is a struct whose first member, @size, is the size of the
 * struct as the caller knows it. A longer struct from a newer caller is
 * accepted when the part that the module does not know is zero (else E2BIG); a
 * shorter one from an older caller is filled up with zeros, but must hold the
 * first version of the struct (else EINVAL). Reserved members must be zero
 * (else EINVAL). Numbers are never reused.
 */
#ifndef _UAPI_RESTRICTEDMEM_H
#define _UAPI_RESTRICTEDMEM_H

#include <linux/ioctl.h>
#include <linux/types.h>

/**
 * DOC: Errors
 *
 * All calls on the device and on its files share one contract:
 *
 * ============ =============================================================
 * ENOTTY       the ioctl's number is unknown
 * E2BIG        the struct has a non-zero tail that this module does not know
 * EFAULT       the struct cannot be read or written
 * EINVAL       a value, a flag, an alignment or a range is wrong
 * EOPNOTSUPP   the request is understood, but not supported here
 * EPERM        policy forbids it
 * EBUSY        owned by, or bound to, somebody else
 * ENOSPC       the store or the module's limit is exhausted
 * ENOMEM       the kernel or the memory cgroup has no memory left
 * EHWPOISON    the page was lost to a memory error
 * EINTR        a signal arrived; what was done so far stays, call again
 * EAGAIN       somebody else holds a page just now; call again
 * ============ =============================================================
 *
 * On a file: read(2) and write(2) fail with EINVAL, mmap(2) with ENODEV,
 * lseek(2), pread(2) and pwrite(2) with ESPIPE, and opening it again through
 * /proc/self/fd with ENXIO. A call that fails has changed nothing, unless its
 * description says how far it got.
 */

#define RESTRICTEDMEM_ABI_VERSION	1

#define RESTRICTEDMEM_IOCTL_TYPE	0xB9

/* What fstatfs(2) says of a file or a window: f_type. No other file has it. */
#define RESTRICTEDMEM_FS_MAGIC	0x524d454d

/**
 * enum restrictedmem_store - where a file's pages come from
 * @RESTRICTEDMEM_STORE_SHMEM: anonymous memory, in pages of 4 KiB and, where
 *	the kernel can, transparent huge pages
 * @RESTRICTEDMEM_STORE_HUGETLB: the system's pool of huge pages
 * @RESTRICTEDMEM_STORE_POOL: physical ranges that were set aside at boot
 * @RESTRICTEDMEM_NR_STORES: size of &struct restrictedmem_info.page_sizes;
 *	not a store
 *
 * &struct restrictedmem_info says which of them this module has.
 */
enum restrictedmem_store {
	RESTRICTEDMEM_STORE_SHMEM = 0,
	RESTRICTEDMEM_STORE_HUGETLB = 1,
	RESTRICTEDMEM_STORE_POOL = 2,
	RESTRICTEDMEM_NR_STORES = 8,
};

/* Bits of restrictedmem_info.features. What is set, works. */

/* A KVM that takes our files for private memslots is loaded. */
#define RESTRICTEDMEM_FEATURE_KVM	(1ULL << 0)
/* RESTRICTEDMEM_CREATE_ALIASES is known. */
#define RESTRICTEDMEM_FEATURE_ALIASES	(1ULL << 1)
/* The shmem store can give huge pages now. */
#define RESTRICTEDMEM_FEATURE_THP	(1ULL << 2)
/* RESTRICTEDMEM_LINK and RESTRICTEDMEM_CREATE_VIEWS are known. */
#define RESTRICTEDMEM_FEATURE_LINK	(1ULL << 3)
/* restrictedmem_create.numa is known, and the kernel has NUMA policies. */
#define RESTRICTEDMEM_FEATURE_NUMA	(1ULL << 4)
/*
 * RESTRICTEDMEM_CREATE_IN_PLACE, RESTRICTEDMEM_CONVERT, RESTRICTEDMEM_WINDOW and
 * RESTRICTEDMEM_REVOKE are known.
 */
#define RESTRICTEDMEM_FEATURE_IN_PLACE	(1ULL << 5)

/**
 * struct restrictedmem_info - what this module can do (RESTRICTEDMEM_INFO)
 * @size: size of this struct in bytes; in. On return, the size that the module
 *	knows, of which at most the caller's size was written.
 * @abi_version: RESTRICTEDMEM_ABI_VERSION of the module; out
 * @features: RESTRICTEDMEM_FEATURE_* bits; out
 * @limit: the most bytes that all files together may hold, with what they have
 *	reserved and huge pages that they discarded and a process still holds; 0 when
 *	there is no limit but memory; out
 * @resident: bytes that all files together hold now; out
 * @page_sizes: for each store of &enum restrictedmem_store, the page sizes in
 *	bytes that a file can ask for, or-ed together; 0 where there is no such
 *	store; out
 *
 * Return: 0; EFAULT, EINVAL and E2BIG as for every call.
 */
struct restrictedmem_info {
	__u32 size;
	__u32 abi_version;
	__u64 features;
	__u64 limit;
	__u64 resident;
	__u64 page_sizes[RESTRICTEDMEM_NR_STORES];
};

#define RESTRICTEDMEM_INFO	_IO(RESTRICTEDMEM_IOCTL_TYPE, 0x00)

/* Flags of restrictedmem_create.flags */

/*
 * One owner may bind overlapping ranges: the same page at two guest addresses,
 * or in two of its address spaces, as SMRAM needs it. Without the flag overlap
 * is refused.
 */
#define RESTRICTEDMEM_CREATE_ALIASES	(1U << 0)
/*
 * Several views of the memory (see RESTRICTEDMEM_LINK) may have bindings at the
 * same time, over the same pages too. Without the flag one view has them.
 */
#define RESTRICTEDMEM_CREATE_VIEWS	(1U << 1)
/*
 * Set all pages of the size aside at once, so that none is missing later. Only
 * for RESTRICTEDMEM_STORE_HUGETLB, and not with RESTRICTEDMEM_NUMA_BIND.
 */
#define RESTRICTEDMEM_CREATE_RESERVE	(1U << 2)
/*
 * Ranges of the memory can be shared, in place: see RESTRICTEDMEM_CONVERT and
 * RESTRICTEDMEM_WINDOW. All of it is private at first. Without the flag all of it
 * is private always.
 */
#define RESTRICTEDMEM_CREATE_IN_PLACE	(1U << 3)

/**
 * enum restrictedmem_thp - huge page policy of a shmem file
 *
 * A huge page that reaches beyond the end of the file is never made, nor one
 * against what /sys/kernel/mm/transparent_hugepage/shmem_enabled denies.
 *
 * @RESTRICTEDMEM_THP_DEFAULT: what the module was loaded with (parameter
 *	"thp"), which is ALWAYS unless somebody said otherwise
 * @RESTRICTEDMEM_THP_ALWAYS: a huge page wherever one fits into the file and
 *	can be had
 * @RESTRICTEDMEM_THP_NEVER: pages of 4 KiB only
 * @RESTRICTEDMEM_THP_WITHIN_SIZE: the same as ALWAYS, by tmpfs's name for it
 */
enum restrictedmem_thp {
	RESTRICTEDMEM_THP_DEFAULT = 0,
	RESTRICTEDMEM_THP_ALWAYS = 1,
	RESTRICTEDMEM_THP_NEVER = 2,
	RESTRICTEDMEM_THP_WITHIN_SIZE = 3,
};

/**
 * enum restrictedmem_numa - which nodes a file's pages come from
 * @RESTRICTEDMEM_NUMA_DEFAULT: as the policy of the task says that populates
 *	or faults, see set_mempolicy(2)
 * @RESTRICTEDMEM_NUMA_BIND: only from the given nodes
 * @RESTRICTEDMEM_NUMA_PREFERRED: from the one given node, if it has any
 * @RESTRICTEDMEM_NUMA_INTERLEAVE: from the given nodes in turn
 *
 * As in mbind(2), the policy is that of the memory, whoever faults, and the
 * nodes are those of the given ones that the cpuset of the task has which sets
 * the file's size.
 */
enum restrictedmem_numa {
	RESTRICTEDMEM_NUMA_DEFAULT = 0,
	RESTRICTEDMEM_NUMA_BIND = 1,
	RESTRICTEDMEM_NUMA_PREFERRED = 2,
	RESTRICTEDMEM_NUMA_INTERLEAVE = 3,
};

/**
 * struct restrictedmem_create - make a file (RESTRICTEDMEM_CREATE)
 * @size: size of this struct in bytes; in
 * @flags: RESTRICTEDMEM_CREATE_* bits; in
 * @length: size of the memory in bytes, a multiple of @page_size; in. 0: set
 *	once, later, by ftruncate(2). It never changes after.
 * @page_size: the store's page size in bytes, 0 for its smallest; in. For shmem
 *	4096, whatever @thp says. To populate or to discard, offsets and lengths
 *	have to be multiples of it.
 * @store: one of &enum restrictedmem_store; in
 * @thp: one of &enum restrictedmem_thp; in
 * @numa: one of &enum restrictedmem_numa; in
 * @reserved: must be 0; in
 * @nodes: the nodes that @numa is about, a bit for each from 0 to 63; in. At
 *	least one, with memory; exactly one for RESTRICTEDMEM_NUMA_PREFERRED;
 *	0 for RESTRICTEDMEM_NUMA_DEFAULT.
 *
 * Pages of a pool (RESTRICTEDMEM_STORE_HUGETLB) are taken from it when they are
 * populated or faulted, which fails with ENOSPC when it is empty, unless they
 * were reserved. What is discarded is set aside again, with two exceptions: a
 * page that somebody holds as it goes, and any page while the pool has more on
 * the page's node than its size (nr_overcommit_hugepages). The memory cgroup is
 * not charged for the pages; the hugetlb cgroup is.
 *
 * Return: a new file descriptor, close-on-exec, to a file that holds no page
 * yet and belongs to nobody until a consumer binds it. EINVAL: an unknown
 * flag or store, a length or page size that does not fit, @thp on a store
 * other than shmem, @numa and @nodes that do not go together, or a node that
 * has no memory or all of which the task may not use. EOPNOTSUPP: a store that
 * this module or machine does not have, NUMA policies on a kernel without, or
 * RESTRICTEDMEM_CREATE_RESERVE where it cannot be had. ENOSPC: a reservation
 * that the pool or the module's limit cannot hold (from ftruncate(2) when
 * @length is 0). EMFILE, ENFILE, ENOMEM as open(2).
 */
struct restrictedmem_create {
	__u32 size;
	__u32 flags;
	__u64 length;
	__u64 page_size;
	__u32 store;
	__u32 thp;
	__u32 numa;
	__u32 reserved;
	__u64 nodes;
};

#define RESTRICTEDMEM_CREATE	_IO(RESTRICTEDMEM_IOCTL_TYPE, 0x01)

/**
 * struct restrictedmem_link - another view of a file's memory (RESTRICTEDMEM_LINK)
 * @size: size of this struct in bytes; in
 * @flags: must be 0; in
 *
 * An ioctl of a file, not of the device: of one from RESTRICTEDMEM_CREATE, from
 * KVM_CREATE_GUEST_MEMFD, or from RESTRICTEDMEM_LINK. The new file has the same
 * pages, size and store, and belongs to nobody until a consumer binds it, which
 * is how memory goes from one VM to another on the same host.
 *
 * Only one view at a time has bindings, unless the memory was created with
 * RESTRICTEDMEM_CREATE_VIEWS: while the first has any, to bind through another
 * fails with EBUSY. When its last slot is deleted, or its VM has ended, the next
 * view takes over the contents as they are.
 *
 * Return: a new file descriptor, close-on-exec. EINVAL: a flag. EMFILE, ENFILE,
 * ENOMEM as open(2). ENOTTY: not such a file.
 */
struct restrictedmem_link {
	__u32 size;
	__u32 flags;
};

#define RESTRICTEDMEM_LINK	_IO(RESTRICTEDMEM_IOCTL_TYPE, 0x02)

/* Values of restrictedmem_convert.attributes; those of KVM_MEMORY_ATTRIBUTE_* */
#define RESTRICTEDMEM_ATTRIBUTE_PRIVATE	(1ULL << 3)

/* Flags of restrictedmem_convert.flags; neither: as RESTRICTEDMEM_CONVERT_ZERO */

/* Pages that change are filled with zeros. */
#define RESTRICTEDMEM_CONVERT_ZERO	(1U << 0)
/* Pages keep their contents. */
#define RESTRICTEDMEM_CONVERT_PRESERVE	(1U << 1)

/**
 * struct restrictedmem_convert - share a range, or take it back (RESTRICTEDMEM_CONVERT)
 * @size: size of this struct in bytes; in
 * @flags: RESTRICTEDMEM_CONVERT_* bits, not both; in
 * @offset: first byte of the range, a multiple of 4096; in
 * @length: bytes, a multiple of 4096, not 0; in
 * @attributes: what the range is to be: RESTRICTEDMEM_ATTRIBUTE_PRIVATE, or 0 for
 *	shared; in
 * @error_offset: out, also when the call fails with EAGAIN, EINTR, ENOMEM or
 *	EHWPOISON: from @offset to here the range is as it was asked for, from here
 *	on it is as it was. @offset + @length after success.
 *
 * An ioctl of a file whose memory was created with RESTRICTEDMEM_CREATE_IN_PLACE.
 * The pages stay what and where they are: nothing is copied or allocated, and
 * who has them bound, as a guest, goes on using them. What changes is whether
 * windows (RESTRICTEDMEM_WINDOW) give access to them. What is already as it is
 * asked for does not change, nor do its contents.
 *
 * To private: every process loses its mappings of the pages, and when nobody
 * holds one of them in another way (for direct I/O that is under way, in a pipe,
 * pinned for a device), the pages are private. Else the call fails with EAGAIN,
 * and @error_offset is the first page that somebody holds. That is known of
 * folios, not of pages: with huge pages it can be a neighbour that is held.
 *
 * Return: 0. EINVAL: a flag, an attribute, a range that is not of whole pages,
 * empty, or not within the size. EOPNOTSUPP: memory that was created without
 * RESTRICTEDMEM_CREATE_IN_PLACE. EAGAIN: see above. EHWPOISON: contents were to
 * be preserved that are lost, or there is an error somewhere in a pool's huge page.
 * EINTR. ENOMEM: as everywhere, or there would be too many ranges.
 */
struct restrictedmem_convert {
	__u32 size;
	__u32 flags;
	__u64 offset;
	__u64 length;
	__u64 attributes;
	__u64 error_offset;
};

#define RESTRICTEDMEM_CONVERT	_IO(RESTRICTEDMEM_IOCTL_TYPE, 0x03)

/* Flags of restrictedmem_window.flags */

/* The window can be written through; without it, it is read-only for ever. */
#define RESTRICTEDMEM_WINDOW_WRITE	(1U << 0)

/**
 * struct restrictedmem_window - a view of a range for others (RESTRICTEDMEM_WINDOW)
 * @size: size of this struct in bytes; in
 * @flags: RESTRICTEDMEM_WINDOW_* bits; in
 * @offset: first byte of the range, a multiple of 4096; in
 * @length: bytes, a multiple of 4096, not 0; in
 *
 * An ioctl of a file whose memory was created with RESTRICTEDMEM_CREATE_IN_PLACE.
 * The new descriptor can be given to another process, and mapped there with
 * mmap(2) (MAP_SHARED; offset 0 is @offset). What of the range is shared can be
 * accessed through the mapping; an access to what is private gets SIGBUS, from
 * the moment on at which RESTRICTEDMEM_CONVERT returns. The range may change back
 * and forth as often as it likes; the mapping stays. fstat(2) shows @length as the
 * size. read(2), write(2), ftruncate(2), fallocate(2) and opening it again fail.
 *
 * A window ends when it is revoked (RESTRICTEDMEM_REVOKE), and with the file that
 * it was made through: when its last descriptor is closed and its last binding is
 * gone. From then on all of it is SIGBUS, and mmap(2) fails with ENODEV. It keeps
 * neither the file, nor the memory, nor a VM alive.
 *
 * Return: a new file descriptor, close-on-exec. EINVAL: a flag, or a range as in
 * RESTRICTEDMEM_CONVERT. EOPNOTSUPP: memory that was created without
 * RESTRICTEDMEM_CREATE_IN_PLACE. EMFILE, ENFILE, ENOMEM as open(2).
 */
struct restrictedmem_window {
	__u32 size;
	__u32 flags;
	__u64 offset;
	__u64 length;
};

#define RESTRICTEDMEM_WINDOW	_IO(RESTRICTEDMEM_IOCTL_TYPE, 0x04)

/**
 * struct restrictedmem_revoke - end a window (RESTRICTEDMEM_REVOKE)
 * @size: size of this struct in bytes; in
 * @flags: must be 0; in
 * @fd: a window that was made through this file, or -1 for all of them; in
 * @reserved: must be 0; in
 *
 * An ioctl of the file that the window was made through. Who only holds a window
 * cannot revoke it. To revoke a window twice is no error.
 *
 * Return: 0, and nobody can access anything through the window any more (what
 * is held as described at RESTRICTEDMEM_CONVERT may still be used for that).
 * EBADF: not a descriptor. EINVAL: not a window, or not one of this file's; a
 * flag.
 */
struct restrictedmem_revoke {
	__u32 size;
	__u32 flags;
	__s32 fd;
	__u32 reserved;
};

#define RESTRICTEDMEM_REVOKE	_IO(RESTRICTEDMEM_IOCTL_TYPE, 0x05)

#endif /* _UAPI_RESTRICTEDMEM_H */
