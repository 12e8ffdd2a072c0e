// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * A walk through /proc. Descriptors and mappings are found by the name in their
 * path, which anybody can give to a file. That they are ours is known of a
 * descriptor from fdinfo, and of a mapping from the number of its file's device,
 * neither of which anybody can forge; that our files have this number, from a
 * descriptor. Processes come and go meanwhile: what is not there any more is not
 * an error.
 */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "scan.h"

#define FILE_NAME	"/restrictedmem"
#define WINDOW_NAME	"restrictedmem-window"
#define DEBUGFS_LIST	"/sys/kernel/debug/restrictedmem/inodes"

/* What is found first, before it is known which memory it belongs to */
struct found {
	struct holder *windows;
	size_t nr_windows;
	struct mapping *mappings;
	size_t nr_mappings;
	dev_t device;		/* of our files, 0: not known */
};

static struct memory *find_memory(struct scan *scan, uint64_t inode)
{
	size_t i;

	for (i = 0; i < scan->nr_memories; i++)
		if (scan->memories[i].info.inode == inode)
			return &scan->memories[i];
	return NULL;
}

static struct memory *need_memory(struct scan *scan, uint64_t inode)
{
	struct memory *memory = find_memory(scan, inode);

	if (memory)
		return memory;
	scan->memories = append(scan->memories, &scan->nr_memories, sizeof(*memory));
	memory = &scan->memories[scan->nr_memories - 1];
	memory->info.kind = RESTRICTEDMEM_KIND_MEMORY;
	memory->info.inode = inode;
	return memory;
}

static void add_holder(struct holder **array, size_t *nr, const struct holder *holder)
{
	*array = append(*array, nr, sizeof(*holder));
	(*array)[*nr - 1] = *holder;
}

static void add_mapping(struct mapping **array, size_t *nr, const struct mapping *mapping)
{
	*array = append(*array, nr, sizeof(*mapping));
	(*array)[*nr - 1] = *mapping;
}

static void add_memory_file(struct scan *scan, const struct holder *holder)
{
	struct memory *memory = need_memory(scan, holder->info.inode);

	memory->info = holder->info;
	add_holder(&memory->files, &memory->nr_files, holder);
}

/* One reference for both questions: the process may put another file there. */
static dev_t device_of(int dirfd, const char *path)
{
	int fd = openat(dirfd, path, O_PATH | O_CLOEXEC);
	dev_t device = 0;
	struct statfs fs;
	struct stat st;

	if (fd < 0)
		return 0;
	if (!fstatfs(fd, &fs) && fs.f_type == RESTRICTEDMEM_FS_MAGIC && !fstat(fd, &st))
		device = st.st_dev;
	close(fd);
	return device;
}

/* The same of a file of our own, for who may make one */
static dev_t device_of_new(void)
{
	const struct restrictedmem_create args = { .size = sizeof(args) };
	int device = restrictedmem_open(), fd = -1;
	char path[64];
	dev_t found = 0;

	if (device >= 0) {
		fd = restrictedmem_create(device, &args);
		close(device);
	}
	if (fd >= 0) {
		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		found = device_of(AT_FDCWD, path);
		close(fd);
	}
	return found;
}

static void look_at_fd(struct scan *scan, struct found *found, int proc,
		       const struct process *process, const char *name)
{
	struct holder holder = { .process = *process, .fd = atoi(name) };
	char path[64], target[128];
	ssize_t len;

	snprintf(path, sizeof(path), "fd/%d", holder.fd);
	len = readlinkat(proc, path, target, sizeof(target) - 1);
	if (len < 0)
		return;
	target[len] = 0;
	if (!strstr(target, FILE_NAME))
		return;
	snprintf(path, sizeof(path), "fdinfo/%d", holder.fd);
	if (restrictedmem_fdinfo_at(proc, path, &holder.info, sizeof(holder.info)))
		return;
	if (!found->device) {
		snprintf(path, sizeof(path), "fd/%d", holder.fd);
		found->device = device_of(proc, path);
	}
	if (holder.info.kind == RESTRICTEDMEM_KIND_WINDOW)
		add_holder(&found->windows, &found->nr_windows, &holder);
	else
		add_memory_file(scan, &holder);
}

/* False if the caller may not. */
static bool look_at_fds(struct scan *scan, struct found *found, int proc,
			const struct process *process)
{
	int fd = openat(proc, "fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct dirent *entry;
	DIR *dir;

	if (fd < 0)
		return errno != EACCES && errno != EPERM;
	dir = fdopendir(fd);
	if (!dir) {
		close(fd);
		return true;
	}
	errno = 0;
	while ((entry = readdir(dir)))
		if (isdigit((unsigned char)entry->d_name[0]))
			look_at_fd(scan, found, proc, process, entry->d_name);
	closedir(dir);
	return true;
}

static void look_at_maps(struct found *found, int proc, const struct process *process)
{
	struct mapping mapping = { .process = *process };
	int fd = openat(proc, "maps", O_RDONLY | O_CLOEXEC);
	unsigned int major, minor;
	char *line = NULL, access[8];
	size_t size = 0;
	FILE *maps;

	maps = fd < 0 ? NULL : fdopen(fd, "r");
	if (!maps) {
		if (fd >= 0)
			close(fd);
		return;
	}
	while (getline(&line, &size, maps) > 0) {
		if (!strstr(line, WINDOW_NAME) ||
		    sscanf(line, "%" SCNx64 "-%" SCNx64 " %7s %" SCNx64 " %x:%x %" SCNu64,
			   &mapping.start, &mapping.end, access, &mapping.offset,
			   &major, &minor, &mapping.inode) != 7)
			continue;
		mapping.device = makedev(major, minor);
		mapping.write = access[1] == 'w';
		add_mapping(&found->mappings, &found->nr_mappings, &mapping);
	}
	free(line);
	fclose(maps);
}

/* Names are the processes' own choice. */
static void read_name(struct process *process, int proc)
{
	int fd = openat(proc, "comm", O_RDONLY | O_CLOEXEC);
	ssize_t n, i;

	n = fd < 0 ? 0 : read(fd, process->name, sizeof(process->name) - 1);
	if (fd >= 0)
		close(fd);
	process->name[n < 0 ? 0 : n] = 0;
	process->name[strcspn(process->name, "\n")] = 0;
	for (i = 0; process->name[i]; i++)
		if ((unsigned char)process->name[i] > 126 || process->name[i] < 32)
			process->name[i] = '?';
}

static void look_at_process(struct scan *scan, struct found *found, int all, const char *name)
{
	struct process process = { .pid = atoi(name) };
	int proc = openat(all, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (proc < 0)
		return;
	read_name(&process, proc);
	if (look_at_fds(scan, found, proc, &process))
		look_at_maps(found, proc, &process);
	else
		scan->nr_hidden++;
	close(proc);
}

/* Also what no process holds; what is in both is known better already. */
static bool look_at_debugfs(struct scan *scan)
{
	FILE *list = fopen(DEBUGFS_LIST, "re");
	struct restrictedmem_fdinfo info = { .kind = RESTRICTEDMEM_KIND_MEMORY };
	char *line = NULL;
	size_t size = 0;

	if (!list)
		return false;
	while (getline(&line, &size, list) > 0) {
		if (sscanf(line, "%" SCNu64 " %15s %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64
			   " %" SCNu32, &info.inode, info.store, &info.page_size, &info.size,
			   &info.resident, &info.poisoned, &info.bindings) != 7)
			continue;
		if (!find_memory(scan, info.inode))
			need_memory(scan, info.inode)->info = info;
	}
	free(line);
	fclose(list);
	return true;
}

/* Which memory a mapping is of: its window may be somebody's descriptor. */
static struct memory *memory_of_mapping(struct scan *scan, const struct found *found,
					const struct mapping *mapping)
{
	size_t i;

	for (i = 0; i < found->nr_windows; i++)
		if (found->windows[i].info.file_inode == mapping->inode)
			return find_memory(scan, found->windows[i].info.inode);
	return find_memory(scan, mapping->inode);
}

static void join(struct scan *scan, const struct found *found)
{
	struct memory *memory;
	size_t i;

	for (i = 0; i < found->nr_windows; i++) {
		memory = need_memory(scan, found->windows[i].info.inode);
		add_holder(&memory->windows, &memory->nr_windows, &found->windows[i]);
	}
	for (i = 0; i < found->nr_mappings; i++) {
		if (!found->device || found->mappings[i].device != found->device)
			continue;
		memory = memory_of_mapping(scan, found, &found->mappings[i]);
		if (memory)
			add_mapping(&memory->mappings, &memory->nr_mappings, &found->mappings[i]);
		else
			add_mapping(&scan->loose, &scan->nr_loose, &found->mappings[i]);
	}
}

static int compare_memories(const void *a, const void *b)
{
	uint64_t one = ((const struct memory *)a)->info.inode;
	uint64_t other = ((const struct memory *)b)->info.inode;

	return one < other ? -1 : one > other;
}

int scan(struct scan *scan)
{
	struct found found = {};
	struct dirent *entry;
	DIR *all;

	memset(scan, 0, sizeof(*scan));
	all = opendir("/proc");
	if (!all)
		return fail_errno("/proc");
	while ((entry = readdir(all)))
		if (isdigit((unsigned char)entry->d_name[0]))
			look_at_process(scan, &found, dirfd(all), entry->d_name);
	closedir(all);
	if (found.nr_mappings && !found.device)
		found.device = device_of_new();
	scan->all = look_at_debugfs(scan);
	join(scan, &found);
	free(found.windows);
	free(found.mappings);
	if (scan->nr_memories)
		qsort(scan->memories, scan->nr_memories, sizeof(*scan->memories),
		      compare_memories);
	return 0;
}

void scan_free(struct scan *scan)
{
	size_t i;

	for (i = 0; i < scan->nr_memories; i++) {
		free(scan->memories[i].files);
		free(scan->memories[i].windows);
		free(scan->memories[i].mappings);
	}
	free(scan->memories);
	free(scan->loose);
	memset(scan, 0, sizeof(*scan));
}
