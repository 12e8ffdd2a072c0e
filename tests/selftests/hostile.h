/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * What a host can do to make pages go or move, by the kernel's own switches.
 * None of it is wrong; all of it is what an administrator or a busy machine
 * does. Each returns 0, or -1 if the machine cannot do it.
 */
#ifndef HOSTILE_H
#define HOSTILE_H

#include <linux/kernel-page-flags.h>
#include <sched.h>
#include <signal.h>
#include <sys/swap.h>
#include <sys/wait.h>

#include "accounting.h"
#include "consumer.h"

#define THP		"/sys/kernel/mm/transparent_hugepage"
#define KSM		"/sys/kernel/mm/ksm"
#define MEMORY		"/sys/devices/system/memory"

/* A counter of the kernel, or -1. */
static inline long long vmstat(const char *key)
{
	return cgroup_number("/proc", "vmstat", key);
}

static inline int drop_caches(void)
{
	return write_text("/proc/sys/vm/drop_caches", "3");
}

static inline int compact(void)
{
	return write_text("/proc/sys/vm/compact_unevictable_allowed", "1") ||
	       write_text("/proc/sys/vm/compact_memory", "1") ? -1 : 0;
}

/*
 * Pages come to the LRU by a list of each processor's, a few at a time, and when
 * compaction has failed to move them once more. The kernel does not know that it
 * could move those that are still on such a list, and they are not free before
 * they have left it. This empties the lists; it moves nothing.
 */
static inline int drain_lists(void)
{
	unsigned long node = 1 << 0;

	return syscall(SYS_migrate_pages, 0, 8 * sizeof(node), &node, &node);
}

/* The kernel's answer matters: 0 if the page has gone. */
static inline int soft_offline(uint64_t pfn)
{
	return write_text(MEMORY "/soft_offline_page",
			  path_of("%#llx", (unsigned long long)(pfn * PAGE)));
}

/* Reclaim from a cgroup what can be. */
static inline void reclaim(const char *group)
{
	char file[96];

	snprintf(file, sizeof(file), "%s/memory.reclaim", group);
	write_text(file, "64M");
}

static inline int swap_on(void)
{
	return system("modprobe zram && echo 96M >/sys/block/zram0/disksize && "
		      "mkswap -q /dev/zram0 && swapon /dev/zram0");
}

static inline int swap_off(void)
{
	return swapoff("/dev/zram0") ||
	       write_text("/sys/block/zram0/reset", "1") ? -1 : 0;
}

/* Look for huge pages to make as often as can be. */
static inline int khugepaged_hurry(void)
{
	return write_text(THP "/khugepaged/scan_sleep_millisecs", "0") ||
	       write_text(THP "/khugepaged/alloc_sleep_millisecs", "0") ||
	       write_text(THP "/khugepaged/pages_to_scan", "100000") ? -1 : 0;
}

static inline void khugepaged_rest(void)
{
	write_text(THP "/khugepaged/scan_sleep_millisecs", "10000");
	write_text(THP "/khugepaged/alloc_sleep_millisecs", "60000");
	write_text(THP "/khugepaged/pages_to_scan", "4096");
}

/* The policy of all tmpfs mounts: "never" leaves it to each mount. */
static inline int shmem_policy(const char *policy)
{
	return write_text(THP "/shmem_enabled", policy);
}

static inline int ksm_run(const char *run)
{
	return write_text(KSM "/pages_to_scan", "10000") ||
	       write_text(KSM "/sleep_millisecs", "0") ||
	       write_text(KSM "/run", run) ? -1 : 0;
}

/* Anonymous memory of @bytes, each page written to; NULL if there is none. */
static inline char *hog(size_t bytes)
{
	char *map = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (map == MAP_FAILED)
		return NULL;
	for (size_t i = 0; i < bytes; i += PAGE)
		map[i] = 1 + i / PAGE % 100;
	return map;
}

/* A child in a cgroup, which takes @bytes; its wait status, or -1. */
static inline int hog_in_child(const char *group, size_t bytes)
{
	pid_t child = fork();
	int status;

	if (!child) {
		/* Should all memory be gone, it is this one that goes. */
		if (write_text("/proc/self/oom_score_adj", "1000") ||
		    (group && cgroup_enter(group)))
			_exit(1);
		_exit(hog(bytes) ? 0 : 2);
	}
	return waitpid(child, &status, 0) == child ? status : -1;
}

static inline bool was_oom_killed(int status)
{
	return status != -1 && WIFSIGNALED(status) &&
	       WTERMSIG(status) == SIGKILL;
}

/*
 * Memory that is plugged in: what lies above 4 GiB, the only memory of node 1.
 * It is one range of 1 GiB, too, of which a gigantic page could be made.
 *
 * One page there of the kernel's own, and it does not even try to take a block
 * offline (EBUSY). A task's policy must therefore not lead there: it holds for
 * all that the kernel allocates for the task, if only to end the policy. Nor may
 * cgroups or slab caches be made while it is online, of which each node gets its
 * part; modules bring such caches.
 */

#define PLUGGED_NODE	1
#define MAX_BLOCKS	64
#define PLUGGED_GIGANTIC						\
	"/sys/devices/system/node/node1/hugepages/hugepages-1048576kB/nr_hugepages"

/* The debug kernel has its own objects in all memory, which then stays. */
#define NEEDS_PLUGGED(_p) do {						\
	if (getenv("RM_SLOW"))						\
		SKIP(return, "no memory is plugged into the debug kernel"); \
	ASSERT_EQ(0, plugged_find(_p));					\
	if (!plugged_is_offline(_p))					\
		SKIP(return, "a test that failed has left memory online"); \
} while (0)

struct plugged {
	unsigned int blocks[MAX_BLOCKS];
	unsigned int nr;
	uint64_t block_pages;
};

/* Pages in a block of memory, or 0. */
static inline uint64_t block_pages(void)
{
	char text[32];

	if (read_text(MEMORY "/block_size_bytes", text, sizeof(text)) <= 0)
		return 0;
	return strtoull(text, NULL, 16) / PAGE;
}

static inline int plugged_find(struct plugged *p)
{
	DIR *dir = opendir(MEMORY);
	struct dirent *entry;
	unsigned int block;

	p->nr = 0;
	p->block_pages = block_pages();
	if (!p->block_pages)
		return -1;
	while (dir && (entry = readdir(dir)))
		if (sscanf(entry->d_name, "memory%u", &block) == 1 &&
		    block * p->block_pages >= 4 * GIB / PAGE &&
		    p->nr < MAX_BLOCKS)
			p->blocks[p->nr++] = block;
	if (dir)
		closedir(dir);
	return p->nr ? 0 : -1;
}

static inline bool plugged_has(const struct plugged *p, uint64_t pfn)
{
	for (int i = 0; i < p->nr; i++)
		if (pfn / p->block_pages == p->blocks[i])
			return true;
	return false;
}

static inline bool block_is_online(unsigned int block)
{
	char text[32];

	return read_text(path_of(MEMORY "/memory%u/state", block), text,
			 sizeof(text)) > 0 && !strcmp(text, "online\n");
}

static inline bool plugged_is_offline(const struct plugged *p)
{
	for (int i = 0; i < p->nr; i++)
		if (block_is_online(p->blocks[i]))
			return false;
	return true;
}

/* @state: "online_kernel", "online_movable" or "offline" */
static inline int block_set(unsigned int block, const char *state)
{
	return write_text(path_of(MEMORY "/memory%u/state", block), state);
}

/*
 * To take a block offline the kernel tries to move its pages until a signal
 * comes. Return: 0 if it is offline, or the errno.
 */
static inline int block_offline_for(unsigned int block, unsigned int seconds)
{
	pid_t child = fork();
	int status;

	if (!child) {
		const struct sigaction action = { .sa_handler = SIG_DFL };

		sigaction(SIGALRM, &action, NULL);
		alarm(seconds);
		_exit(block_set(block, "offline") ? errno : 0);
	}
	if (waitpid(child, &status, 0) != child)
		return ECHILD;
	return WIFEXITED(status) ? WEXITSTATUS(status) : EINTR;
}

/* What is online already stays what it is; one block that fails is not all. */
static inline int plugged_set(const struct plugged *p, const char *state)
{
	bool off = !strcmp(state, "offline");
	int r = 0;

	for (int i = 0; i < p->nr; i++) {
		unsigned int block = p->blocks[i];

		if (block_is_online(block) == off &&
		    (off ? block_offline_for(block, 30) : block_set(block, state)))
			r = -1;
	}
	return r;
}

/* Ask for so many pages of 1 GiB; how many there are then, or -1. */
static inline int plugged_gigantic(unsigned int nr)
{
	char text[32];

	write_text(PLUGGED_GIGANTIC, path_of("%u", nr));
	if (read_text(PLUGGED_GIGANTIC, text, sizeof(text)) <= 0)
		return -1;
	return atoi(text);
}

/*
 * A file whose pages come from plugged memory while there is any, and nothing
 * else because of it.
 */
static inline int plugged_create(uint64_t length, uint32_t flags, uint32_t thp)
{
	const struct restrictedmem_create args = {
		.size = sizeof(args),
		.length = length,
		.flags = flags,
		.thp = thp,
		.numa = RESTRICTEDMEM_NUMA_PREFERRED,
		.nodes = 1ULL << PLUGGED_NODE,
	};

	return create_with(&args);
}

/* How many pages of plugged memory are slabs or page tables? */
static inline uint64_t plugged_kernel_pages(const struct plugged *p)
{
	const uint64_t kernel = 1ULL << KPF_SLAB | 1ULL << KPF_PGTABLE;
	int fd = open("/proc/kpageflags", O_RDONLY | O_CLOEXEC);
	uint64_t flags[512], nr = 0;

	for (uint64_t i = 0; i < p->nr * p->block_pages; i += ARRAY_SIZE(flags)) {
		uint64_t pfn = p->blocks[i / p->block_pages] * p->block_pages +
			       i % p->block_pages;

		if (pread(fd, flags, sizeof(flags), pfn * sizeof(*flags)) !=
		    sizeof(flags)) {
			nr = ~0ULL;
			break;
		}
		for (int j = 0; j < ARRAY_SIZE(flags); j++)
			nr += !!(flags[j] & kernel);
	}
	close(fd);
	return nr;
}

#endif /* HOSTILE_H */
