// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * libkmod knows the files, sysfs what is loaded. Two builds of a module differ in
 * their build id, an ELF note that sysfs shows as it stood in the file.
 */
#include <fcntl.h>
#include <libkmod.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "module.h"

static void find_file(struct module *module)
{
	struct kmod_ctx *ctx = kmod_new(NULL, NULL);
	struct kmod_module *mod;
	const char *path;

	if (!ctx)
		return;
	if (!kmod_module_new_from_name(ctx, module->name, &mod)) {
		path = kmod_module_get_path(mod);
		if (path)
			snprintf(module->path, sizeof(module->path), "%s", path);
		kmod_module_unref(mod);
	}
	kmod_unref(ctx);
}

static size_t read_note(const char *name, char *note, size_t size)
{
	char path[128];
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "/sys/module/%s/notes/.note.gnu.build-id", name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 0;
	n = read(fd, note, size);
	close(fd);
	return n < 0 ? 0 : n;
}

static bool file_has(const char *path, const void *bytes, size_t nr)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	bool found = false;
	struct stat st;
	void *map;

	if (fd < 0)
		return false;
	if (!fstat(fd, &st) && st.st_size > 0) {
		map = mmap(NULL, st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
		if (map != MAP_FAILED) {
			found = memmem(map, st.st_size, bytes, nr);
			munmap(map, st.st_size);
		}
	}
	close(fd);
	return found;
}

bool module_is_from(const struct module *module, const char *path)
{
	char note[64];
	size_t nr = read_note(module->name, note, sizeof(note));

	return nr && file_has(path, note, nr);
}

void module_look_up(struct module *module, const char *name)
{
	char path[64];

	*module = (struct module) { .name = name };
	snprintf(path, sizeof(path), "/sys/module/%s/initstate", name);
	module->loaded = !access(path, F_OK);
	snprintf(path, sizeof(path), "/sys/module/%s", name);
	module->builtin = !module->loaded && !access(path, F_OK);
	find_file(module);
	module->same = module->loaded && *module->path && module_is_from(module, module->path);
}
