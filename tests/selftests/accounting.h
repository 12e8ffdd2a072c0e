/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * Do all that count pages agree? The process goes into a cgroup of its own; what
 * its files hold is then counted by st_blocks, by fdinfo, by the module, in
 * debugfs too, and by the cgroup, whose memory controller counts shmem, and
 * whose hugetlb controller the pages of pools. At rest all are the same number.
 */
#ifndef ACCOUNTING_H
#define ACCOUNTING_H

#include <dirent.h>

#include "util.h"

#define CGROUP		"/sys/fs/cgroup"
#define MAX_INODES	64

/**
 * struct accounts - where a test began
 * @group: path of its cgroup
 * @total: bytes that all files of the machine held
 * @errors: bytes lost to memory errors since. The kernel takes such a page from
 *	its cgroup, but may leave it in the cgroup's statistics; that of a pool
 *	it leaves charged.
 */
struct accounts {
	char group[64];
	uint64_t total;
	uint64_t errors;
};

/* A number after "@key " in one of a cgroup's files, or -1. */
static inline long long cgroup_number(const char *group, const char *file,
				      const char *key)
{
	static char text[16384];
	char *line, *next;
	size_t len = strlen(key);

	if (read_text(path_of("%s/%s", group, file), text, sizeof(text)) <= 0)
		return -1;
	for (line = strtok_r(text, "\n", &next); line;
	     line = strtok_r(NULL, "\n", &next))
		if (!strncmp(line, key, len) && line[len] == ' ')
			return strtoll(line + len + 1, NULL, 10);
	return -1;
}

/* The number that is all of one of a cgroup's files, or 0. */
static inline uint64_t cgroup_value(const char *group, const char *file)
{
	char text[32];

	read_text(path_of("%s/%s", group, file), text, sizeof(text));
	return strtoull(text, NULL, 10);
}

/* Bytes of shmem charged to a cgroup: the kernel sums up when cpu.stat is read. */
static inline uint64_t cgroup_shmem(const char *group)
{
	cgroup_number(group, "cpu.stat", "usage_usec");
	return cgroup_number(group, "memory.stat", "shmem");
}

/* A new cgroup; 0, or -1 with errno. */
static inline int cgroup_make(const char *group)
{
	if (write_text(CGROUP "/cgroup.subtree_control", "+memory +hugetlb"))
		return -1;
	rmdir(group);
	return mkdir(group, 0755);
}

static inline int cgroup_enter(const char *group)
{
	return write_text(path_of("%s/cgroup.procs", group), "0");
}

static inline int accounts_begin(struct accounts *a)
{
	a->total = resident_total();
	a->errors = 0;
	snprintf(a->group, sizeof(a->group), CGROUP "/rm-test-%d", getpid());
	if (cgroup_make(a->group))
		return -1;
	return cgroup_enter(a->group);
}

/* Count an inode once, however many files there are on it. */
static inline bool accounts_is_new(ino_t *inodes, int *nr, ino_t inode)
{
	for (int i = 0; i < *nr; i++)
		if (inodes[i] == inode)
			return false;
	if (*nr < MAX_INODES)
		inodes[(*nr)++] = inode;
	return true;
}

/*
 * What the files of this process hold, by st_blocks and by fdinfo. Memory that
 * has no file left, but a binding, is not seen.
 */
static inline void accounts_of_files(uint64_t *blocks, uint64_t *fdinfos)
{
	DIR *dir = opendir("/proc/self/fd");
	ino_t inodes[MAX_INODES];
	struct dirent *entry;
	int nr = 0;

	*blocks = *fdinfos = 0;
	while (dir && (entry = readdir(dir))) {
		int fd = atoi(entry->d_name);
		struct stat st;

		if (entry->d_name[0] == '.' || !fdinfo(fd, "store") ||
		    fstat(fd, &st) || !accounts_is_new(inodes, &nr, st.st_ino))
			continue;
		*blocks += st.st_blocks * 512ULL;
		*fdinfos += fdinfo_number(fd, "resident");
	}
	if (dir)
		closedir(dir);
}

static inline uint64_t accounts_of_debugfs(void)
{
	char text[32];

	if (read_text("/sys/kernel/debug/restrictedmem/resident", text,
		      sizeof(text)) <= 0)
		return ~0ULL;
	return strtoull(text, NULL, 10);
}

/*
 * Return: "" when all agree, else who says what; one buffer for all. A page
 * that is on its way out is uncharged a moment later.
 */
static inline const char *accounts_differ(const struct accounts *a)
{
	static char text[256];
	uint64_t blocks, fdinfos, total, charged, debugfs;

	for (int i = 0; i < 100; i++) {
		accounts_of_files(&blocks, &fdinfos);
		total = resident_total();
		total -= a->total;
		debugfs = accounts_of_debugfs() - a->total;
		charged = cgroup_shmem(a->group) +
			  cgroup_value(a->group, "hugetlb.2MB.current") +
			  cgroup_value(a->group, "hugetlb.1GB.current");
		if (blocks == fdinfos && blocks == total && blocks == debugfs &&
		    blocks <= charged && charged <= blocks + a->errors)
			return "";
		sleep_ms(20);
	}
	snprintf(text, sizeof(text),
		 "st_blocks %lld, fdinfo %lld, module %lld, debugfs %lld, cgroup %lld",
		 (long long)blocks, (long long)fdinfos, (long long)total,
		 (long long)debugfs, (long long)charged);
	return text;
}

/* When all files are closed: "" or what is left. The cgroup goes. */
static inline const char *accounts_end(const struct accounts *a)
{
	const char *text = accounts_differ(a);

	if (cgroup_enter(CGROUP) || rmdir(a->group))
		return "the cgroup does not go";
	return text;
}

#endif /* ACCOUNTING_H */
