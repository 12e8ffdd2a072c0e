// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * rmctl list: every memory, who holds it, who has windows on it, who maps them.
 */
#include <getopt.h>
#include <inttypes.h>
#include <string.h>

#include "scan.h"

static struct json_object *process_as_json(const struct process *process)
{
	struct json_object *object = json_object_new_object();

	add_number(object, "pid", process->pid);
	add_text(object, "command", process->name);
	return object;
}

static struct json_object *file_as_json(const struct holder *holder)
{
	struct json_object *object = process_as_json(&holder->process);

	add_number(object, "fd", holder->fd);
	add_number(object, "owner", holder->info.owner);
	add_number(object, "bindings", holder->info.view_bindings);
	return object;
}

static struct json_object *window_as_json(const struct holder *holder)
{
	struct json_object *object = process_as_json(&holder->process);

	add_number(object, "fd", holder->fd);
	add_number(object, "offset", holder->info.window_offset);
	add_number(object, "length", holder->info.window_length);
	add_bool(object, "write", holder->info.window_write);
	add_bool(object, "revoked", holder->info.window_revoked);
	return object;
}

static struct json_object *mapping_as_json(const struct mapping *mapping)
{
	struct json_object *object = process_as_json(&mapping->process);

	add_number(object, "address", mapping->start);
	add_number(object, "offset", mapping->offset);
	add_number(object, "length", mapping->end - mapping->start);
	add_bool(object, "write", mapping->write);
	return object;
}

static void add_mappings(struct json_object *object, const struct mapping *mappings, size_t nr)
{
	struct json_object *array = json_object_new_array();
	size_t i;

	for (i = 0; i < nr; i++)
		json_object_array_add(array, mapping_as_json(&mappings[i]));
	json_object_object_add(object, "mappings", array);
}

static struct json_object *memory_as_json(const struct memory *memory)
{
	struct json_object *object = json_object_new_object(), *files, *windows;
	const struct restrictedmem_fdinfo *info = &memory->info;
	size_t i;

	add_number(object, "inode", info->inode);
	add_text(object, "store", info->store);
	add_text(object, "thp", info->thp);
	add_text(object, "numa", info->numa);
	add_number(object, "page_size", info->page_size);
	add_number(object, "size", info->size);
	add_number(object, "reserved", info->reserved);
	add_number(object, "resident", info->resident);
	add_number(object, "shared", info->shared);
	add_number(object, "poisoned", info->poisoned);
	add_number(object, "flags", info->flags);
	add_number(object, "bindings", info->bindings);
	add_number(object, "windows", info->windows);
	files = json_object_new_array();
	for (i = 0; i < memory->nr_files; i++)
		json_object_array_add(files, file_as_json(&memory->files[i]));
	json_object_object_add(object, "held_by", files);
	windows = json_object_new_array();
	for (i = 0; i < memory->nr_windows; i++)
		json_object_array_add(windows, window_as_json(&memory->windows[i]));
	json_object_object_add(object, "windows_held_by", windows);
	add_mappings(object, memory->mappings, memory->nr_mappings);
	return object;
}

static int list_as_json(const struct scan *found)
{
	struct json_object *object = json_object_new_object();
	struct json_object *array = json_object_new_array();
	size_t i;

	for (i = 0; i < found->nr_memories; i++)
		json_object_array_add(array, memory_as_json(&found->memories[i]));
	json_object_object_add(object, "memories", array);
	add_mappings(object, found->loose, found->nr_loose);
	add_number(object, "hidden_processes", found->nr_hidden);
	add_bool(object, "bound_only_included", found->all);
	return print_json(object);
}

static void show_process(const struct process *process)
{
	printf("%s (%d)", process->name, process->pid);
}

static void show_mapping(const struct mapping *mapping)
{
	char length[SIZE_TEXT], offset[SIZE_TEXT];

	printf("       mapped by ");
	show_process(&mapping->process);
	printf(" at %#" PRIx64 ": %s at %s, %s\n", mapping->start,
	       size_text(length, mapping->end - mapping->start),
	       size_text(offset, mapping->offset), mapping->write ? "writable" : "read-only");
}

static void show_holders(const struct memory *memory)
{
	char length[SIZE_TEXT], offset[SIZE_TEXT];
	const struct holder *holder;
	size_t i;

	for (i = 0; i < memory->nr_files; i++) {
		holder = &memory->files[i];
		printf("       held by ");
		show_process(&holder->process);
		printf(" as descriptor %d, %u bindings", holder->fd, holder->info.view_bindings);
		if (holder->info.owner)
			printf(", owner %" PRIu64, holder->info.owner);
		putchar('\n');
	}
	if (!memory->nr_files)
		puts("       no descriptor that you may see");
	for (i = 0; i < memory->nr_windows; i++) {
		holder = &memory->windows[i];
		printf("       window of ");
		show_process(&holder->process);
		printf(" as descriptor %d: %s at %s, %s%s\n", holder->fd,
		       size_text(length, holder->info.window_length),
		       size_text(offset, holder->info.window_offset),
		       holder->info.window_write ? "writable" : "read-only",
		       holder->info.window_revoked ? ", revoked" : "");
	}
	for (i = 0; i < memory->nr_mappings; i++)
		show_mapping(&memory->mappings[i]);
}

static void show_memory(const struct memory *memory)
{
	char page_size[SIZE_TEXT], size[SIZE_TEXT], resident[SIZE_TEXT], shared[SIZE_TEXT],
	     poisoned[SIZE_TEXT];
	const struct restrictedmem_fdinfo *info = &memory->info;

	printf("%6" PRIu64 " %-7s %4s %8s %8s %8s %8s %8u %7u\n", info->inode,
	       *info->store ? info->store : "?", size_text(page_size, info->page_size),
	       size_text(size, info->size), size_text(resident, info->resident),
	       size_text(shared, info->shared), size_text(poisoned, info->poisoned),
	       info->bindings, info->windows);
	show_holders(memory);
}

static int list_as_text(const struct scan *found)
{
	size_t i;

	if (found->nr_memories)
		printf("%6s %-7s %4s %8s %8s %8s %8s %8s %7s\n", "INODE", "STORE", "PAGE", "SIZE",
		       "RESIDENT", "SHARED", "POISONED", "BINDINGS", "WINDOWS");
	else
		puts("No restricted memory.");
	for (i = 0; i < found->nr_memories; i++)
		show_memory(&found->memories[i]);
	if (found->nr_loose)
		puts("Of windows that you may see no descriptor of:");
	for (i = 0; i < found->nr_loose; i++)
		show_mapping(&found->loose[i]);
	if (found->nr_hidden)
		printf("%zu processes are not yours to look into; root sees them all.\n",
		       found->nr_hidden);
	return fflush(stdout) ? fail_errno("standard output") : EXIT_SUCCESS;
}

static int run_list(const struct command *command, int argc, char **argv)
{
	static const struct option options[] = {
		{ "json", no_argument, NULL, 'j' },
		{ "help", no_argument, NULL, 'h' },
		{}
	};
	struct scan found;
	bool json = false;
	int option, r;

	while ((option = getopt_long(argc, argv, "jh", options, NULL)) >= 0) {
		switch (option) {
		case 'j':
			json = true;
			break;
		case 'h':
			return show_help(command);
		default:
			return bad_option(command);
		}
	}
	r = no_more_arguments(command, argc - optind, argv + optind);
	if (!r)
		r = scan(&found);
	if (r)
		return r;
	r = json ? list_as_json(&found) : list_as_text(&found);
	scan_free(&found);
	return r;
}

const struct command list_command = {
	.name = "list",
	.summary = "all memory on this system, and who has it",
	.help = "Usage: rmctl list [--json]\n"
		"Shows all restricted memory on this system that you may see, from /proc: its\n"
		"numbers, which processes hold it and windows on it, and who maps which window.\n"
		"With access to debugfs (root), also what only a guest holds.\n"
		"\n"
		"  -j, --json   for programs; sizes are bytes\n"
		"  -h, --help\n"
		"\n"
		"Which processes have how much?\n"
		"\n"
		"  rmctl list --json |\n"
		"      jq -r '.memories[] | \"\\(.resident) \\(.held_by[].command)\"'\n",
	.run = run_list,
};
