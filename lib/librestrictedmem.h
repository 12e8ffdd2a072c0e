/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * librestrictedmem: the calls of /dev/restrictedmem as functions, and what
 * /proc says of its files as a struct.
 *
 * Every function is one system call, or close to it. There is no state: what a
 * function needs is in its arguments, and all of them can be called from any
 * thread. On failure they return -1 and set errno to what the kernel said.
 * Descriptors are close-on-exec. Offsets and lengths are bytes; what is a
 * multiple of what, and every errno, is told in <restrictedmem.h> at the struct
 * of the same name.
 */
#ifndef LIBRESTRICTEDMEM_H
#define LIBRESTRICTEDMEM_H

#include <stddef.h>
#include <stdint.h>

#include <restrictedmem.h>

#ifdef __cplusplus
extern "C" {
#endif

/**
 * restrictedmem_open() - open the device
 *
 * Return: a descriptor for restrictedmem_info() and restrictedmem_create().
 * ENOENT: the module is not loaded. EACCES: the caller may not. Else as open(2).
 */
int restrictedmem_open(void);

/**
 * restrictedmem_info() - what the module can do (RESTRICTEDMEM_INFO)
 * @device: from restrictedmem_open()
 * @info: where it goes; what this module does not know yet is 0
 * @size: sizeof(*@info)
 *
 * Return: 0.
 */
int restrictedmem_info(int device, struct restrictedmem_info *info, size_t size);

/**
 * restrictedmem_create() - make a file (RESTRICTEDMEM_CREATE)
 * @device: from restrictedmem_open()
 * @args: what it is to be; its member size is sizeof(*@args)
 *
 * Return: a descriptor of the new file.
 */
int restrictedmem_create(int device, const struct restrictedmem_create *args);

/**
 * restrictedmem_link() - another view of a file's memory (RESTRICTEDMEM_LINK)
 * @fd: the file
 *
 * Return: a descriptor of the new view.
 */
int restrictedmem_link(int fd);

/**
 * restrictedmem_populate() - allocate the pages of a range
 * @fd: the file
 * @offset: first byte
 * @length: bytes
 *
 * fallocate(2) with FALLOC_FL_KEEP_SIZE. After EINTR what was populated stays; to
 * go on, call again.
 *
 * Return: 0.
 */
int restrictedmem_populate(int fd, uint64_t offset, uint64_t length);

/**
 * restrictedmem_punch() - discard the pages of a range
 * @fd: the file
 * @offset: first byte
 * @length: bytes
 *
 * fallocate(2) with FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE.
 *
 * Return: 0.
 */
int restrictedmem_punch(int fd, uint64_t offset, uint64_t length);

/**
 * restrictedmem_convert() - share a range, or take it back (RESTRICTEDMEM_CONVERT)
 * @fd: the file
 * @offset: first byte
 * @length: bytes
 * @attributes: RESTRICTEDMEM_ATTRIBUTE_PRIVATE, or 0 for shared
 * @flags: RESTRICTEDMEM_CONVERT_*
 * @error_offset: how far it got, also on failure, where that is known, else
 *	@offset; may be NULL
 *
 * Return: 0. After EAGAIN or EINTR, call again, for what is left.
 */
int restrictedmem_convert(int fd, uint64_t offset, uint64_t length,
			  uint64_t attributes, uint32_t flags,
			  uint64_t *error_offset);

/**
 * restrictedmem_window() - a view of a range for others (RESTRICTEDMEM_WINDOW)
 * @fd: the file
 * @offset: first byte
 * @length: bytes
 * @flags: RESTRICTEDMEM_WINDOW_*
 *
 * Return: a descriptor of the window, for mmap(2).
 */
int restrictedmem_window(int fd, uint64_t offset, uint64_t length,
			 uint32_t flags);

/**
 * restrictedmem_revoke() - end a window (RESTRICTEDMEM_REVOKE)
 * @fd: the file that the window was made through
 * @window: the window, or -1 for all that were made through @fd
 *
 * Return: 0.
 */
int restrictedmem_revoke(int fd, int window);

/**
 * enum restrictedmem_kind - what a descriptor is
 * @RESTRICTEDMEM_KIND_MEMORY: a file from restrictedmem_create(),
 *	restrictedmem_link() or KVM_CREATE_GUEST_MEMFD
 * @RESTRICTEDMEM_KIND_WINDOW: from restrictedmem_window()
 */
enum restrictedmem_kind {
	RESTRICTEDMEM_KIND_MEMORY = 1,
	RESTRICTEDMEM_KIND_WINDOW = 2,
};

#define RESTRICTEDMEM_NR_ORDERS	32
#define RESTRICTEDMEM_NR_NODES	64

/**
 * struct restrictedmem_fdinfo - what /proc/PID/fdinfo/FD says
 * @kind: one of &enum restrictedmem_kind, which says what else there is
 * @flags: RESTRICTEDMEM_CREATE_*, of memory
 * @inode: number of the memory's inode, of a window too
 * @file_inode: number of the descriptor's own inode, which fstat(2) and
 *	/proc/PID/maps show; the same for memory
 *
 * @store: ``shmem``, ``hugetlb``, ...; memory, as all that follow
 * @thp: ``always``, ``within_size``, ``never`` or ``-``
 * @numa: the policy, as ``default`` or ``bind:0-1``
 * @page_size: bytes
 * @size: bytes, 0 while it is not set
 * @reserved: bytes set aside
 * @resident: bytes
 * @resident_order: bytes in folios of that order
 * @resident_node: bytes on that node
 * @poisoned: bytes lost to memory errors
 * @shared: bytes that windows give access to
 * @owner: whose the view is, 0 for nobody's
 * @bindings: ranges that are bound, through all views
 * @view_bindings: through this one
 * @windows: how many there are on the memory
 *
 * @window_offset: first byte of the window in the memory; windows, as all that
 *	follow
 * @window_length: bytes
 * @window_write: not 0: it can be written through
 * @window_revoked: not 0: it has ended
 *
 * @reserved0: 0
 *
 * What the kernel does not say is 0, or an empty string.
 */
struct restrictedmem_fdinfo {
	uint32_t kind;
	uint32_t flags;
	uint64_t inode;
	uint64_t file_inode;

	char store[16];
	char thp[16];
	char numa[96];
	uint64_t page_size;
	uint64_t size;
	uint64_t reserved;
	uint64_t resident;
	uint64_t resident_order[RESTRICTEDMEM_NR_ORDERS];
	uint64_t resident_node[RESTRICTEDMEM_NR_NODES];
	uint64_t poisoned;
	uint64_t shared;
	uint64_t owner;
	uint32_t bindings;
	uint32_t view_bindings;
	uint32_t windows;

	uint32_t window_write;
	uint64_t window_offset;
	uint64_t window_length;
	uint32_t window_revoked;
	uint32_t reserved0;
};

/**
 * restrictedmem_fdinfo() - what the kernel says of a file or window
 * @fd: the file or window, of this process
 * @info: where it goes
 * @size: sizeof(*@info)
 *
 * Return: 0. EBADF: not a descriptor. ENOTTY: neither a file nor a window of
 * ours. EINVAL: @size is smaller than the first version of the struct.
 */
int restrictedmem_fdinfo(int fd, struct restrictedmem_fdinfo *info, size_t size);

/**
 * restrictedmem_fdinfo_at() - the same, from a file in /proc
 * @dirfd: a directory as for openat(2), or AT_FDCWD
 * @path: the file, such as /proc/PID/fdinfo/FD
 * @info: where it goes
 * @size: sizeof(*@info)
 *
 * Return: 0. ENOTTY: the descriptor is not ours. EINVAL: as above. Else as
 * openat(2) and read(2); ENOENT when the descriptor or the process is gone.
 */
int restrictedmem_fdinfo_at(int dirfd, const char *path,
			    struct restrictedmem_fdinfo *info, size_t size);

#ifdef __cplusplus
}
#endif

#endif /* LIBRESTRICTEDMEM_H */
