// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * rmctl info: RESTRICTEDMEM_INFO, for people and for programs.
 */
#include <getopt.h>
#include <unistd.h>

#include "rmctl.h"

static const struct {
	uint64_t bit;
	const char *name;
	const char *meaning;
} features[] = {
	{ RESTRICTEDMEM_FEATURE_KVM, "kvm", "the loaded KVM takes the files" },
	{ RESTRICTEDMEM_FEATURE_ALIASES, "aliases", "a page at several guest addresses" },
	{ RESTRICTEDMEM_FEATURE_THP, "thp", "transparent huge pages" },
	{ RESTRICTEDMEM_FEATURE_LINK, "link", "several views of a memory" },
	{ RESTRICTEDMEM_FEATURE_NUMA, "numa", "policies for nodes" },
	{ RESTRICTEDMEM_FEATURE_IN_PLACE, "in_place", "conversion in place, and windows" },
};

static const char *store_name(unsigned int store)
{
	return store_names[store] ?: "unknown";
}

static int info_as_json(const struct restrictedmem_info *info)
{
	struct json_object *object = json_object_new_object(), *by_store, *names, *sizes;
	unsigned int i, bit;

	add_number(object, "abi_version", info->abi_version);
	add_number(object, "limit", info->limit);
	add_number(object, "resident", info->resident);
	names = json_object_new_object();
	for (i = 0; i < ARRAY_SIZE(features); i++)
		add_bool(names, features[i].name, info->features & features[i].bit);
	json_object_object_add(object, "features", names);
	by_store = json_object_new_object();
	for (i = 0; i < RESTRICTEDMEM_NR_STORES; i++) {
		if (!info->page_sizes[i])
			continue;
		sizes = json_object_new_array();
		for (bit = 0; bit < 64; bit++)
			if (info->page_sizes[i] >> bit & 1)
				json_object_array_add(sizes, json_object_new_uint64(1ULL << bit));
		json_object_object_add(by_store, store_name(i), sizes);
	}
	json_object_object_add(object, "page_sizes", by_store);
	return print_json(object);
}

static int info_as_text(const struct restrictedmem_info *info)
{
	char text[SIZE_TEXT];
	unsigned int i, bit;

	printf("ABI version  %u\n", info->abi_version);
	printf("Resident     %s\n", size_text(text, info->resident));
	printf("Limit        %s\n", info->limit ? size_text(text, info->limit) : "none");
	for (i = 0; i < RESTRICTEDMEM_NR_STORES; i++) {
		if (!info->page_sizes[i])
			continue;
		printf("Store        %-9s pages of", store_name(i));
		for (bit = 0; bit < 64; bit++)
			if (info->page_sizes[i] >> bit & 1)
				printf(" %s", size_text(text, 1ULL << bit));
		putchar('\n');
	}
	for (i = 0; i < ARRAY_SIZE(features); i++)
		printf("%-13s%-10s%s\n", info->features & features[i].bit ? "Has" : "Has not",
		       features[i].name, features[i].meaning);
	return fflush(stdout) ? fail_errno("standard output") : EXIT_SUCCESS;
}

static int run_info(const struct command *command, int argc, char **argv)
{
	static const struct option options[] = {
		{ "json", no_argument, NULL, 'j' },
		{ "help", no_argument, NULL, 'h' },
		{}
	};
	struct restrictedmem_info info;
	int device, option, r;
	bool json = false;

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
	if (r)
		return r;

	device = open_device();
	if (device < 0)
		return EXIT_FAILURE;
	r = restrictedmem_info(device, &info, sizeof(info));
	close(device);
	if (r)
		return fail_errno("RESTRICTEDMEM_INFO");
	return json ? info_as_json(&info) : info_as_text(&info);
}

const struct command info_command = {
	.name = "info",
	.summary = "what the module can do",
	.help = "Usage: rmctl info [--json]\n"
		"Shows what the module that is loaded can do, as it says itself.\n"
		"\n"
		"  -j, --json   for programs; sizes are bytes\n"
		"  -h, --help\n"
		"\n"
		"Is there a KVM that runs guests on restricted memory?\n"
		"\n"
		"  rmctl info --json | jq .features.kvm\n",
	.run = run_info,
};
