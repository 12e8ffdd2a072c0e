/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * What restricted memory there is, as far as the caller may see it in /proc and
 * in debugfs.
 */
#ifndef SCAN_H
#define SCAN_H

#include <sys/types.h>

#include "rmctl.h"

/**
 * struct process - one that holds something
 * @pid: its number
 * @name: its name, printable
 */
struct process {
	pid_t pid;
	char name[16];
};

/* A descriptor of a memory or of a window. */
struct holder {
	struct process process;
	int fd;
	struct restrictedmem_fdinfo info;
};

/* A mapping of a window; @offset is in the memory, @inode and @device the file's. */
struct mapping {
	struct process process;
	uint64_t start;
	uint64_t end;
	uint64_t offset;
	uint64_t inode;
	dev_t device;
	bool write;
};

/**
 * struct memory - one inode, and who has to do with it
 * @info: what a descriptor of it says; of the view only what all views share
 * @files: descriptors of it
 * @windows: descriptors of its windows
 * @mappings: mappings of its windows
 */
struct memory {
	struct restrictedmem_fdinfo info;
	struct holder *files;
	size_t nr_files;
	struct holder *windows;
	size_t nr_windows;
	struct mapping *mappings;
	size_t nr_mappings;
};

/**
 * struct scan - all of it
 * @memories: by inode number
 * @loose: mappings of windows that nobody visible has a descriptor of
 * @nr_hidden: processes that the caller may not look into
 * @all: memory that only a binding holds is among them, or there is none
 */
struct scan {
	struct memory *memories;
	size_t nr_memories;
	struct mapping *loose;
	size_t nr_loose;
	size_t nr_hidden;
	bool all;
};

/* 0, or what main() returns. */
int scan(struct scan *scan);
void scan_free(struct scan *scan);

#endif /* SCAN_H */
