// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * rmctl shows what restricted memory there is, and tries things on it from the
 * shell. See rmctl(1). Here: the commands' names, and the one that is not ours.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "rmctl.h"

static const struct command *const commands[] = {
	&doctor_command,
	&info_command,
	&list_command,
	&watch_command,
	&create_command,
	&populate_command,
	&punch_command,
	&convert_command,
	&window_command,
	&revoke_command,
	&run_command,
};

static void print_help(FILE *to)
{
	size_t i;

	fputs("Usage: rmctl COMMAND [options]\n"
	      "Memory for guests that the host's processes cannot touch: what there is, and\n"
	      "what is in its way.\n\n", to);
	for (i = 0; i < ARRAY_SIZE(commands); i++)
		fprintf(to, "  %-10s%s\n", commands[i]->name, commands[i]->summary);
	fputs("\n"
	      "\"rmctl COMMAND --help\" explains one. To begin with:\n\n"
	      "  rmctl doctor                    can this machine do it?\n"
	      "  rmctl run --kernel /vmlinuz     run a guest on it\n"
	      "  rmctl list                      see its memory, from another terminal\n", to);
}

static int run_rmvm(const struct command *command, int argc, char **argv)
{
	int status;

	if (argc == 2 && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"))) {
		fputs(command->help, stdout);
		fflush(stdout);
	}
	argv[0] = (char *)"rmvm";
	execvp(argv[0], argv);
	status = errno == ENOENT ? EXIT_NO_COMMAND : EXIT_CANNOT_EXEC;
	fail_errno("rmvm");
	return status;
}

const struct command run_command = {
	.name = "run",
	.summary = "run a guest: hands over to rmvm",
	.help = "Usage: rmctl run [options of rmvm]\n"
		"Runs rmvm, found by $PATH, with these options, which are:\n\n",
	.run = run_rmvm,
};

static int run_command_named(int argc, char **argv)
{
	char name[32];
	size_t i;

	for (i = 0; i < ARRAY_SIZE(commands); i++) {
		if (strcmp(argv[0], commands[i]->name))
			continue;
		snprintf(name, sizeof(name), "rmctl %s", argv[0]);
		argv[0] = name;
		return commands[i]->run(commands[i], argc, argv);
	}
	fail("no command \"%s\"", argv[0]);
	fputs("Try \"rmctl --help\".\n", stderr);
	return EXIT_USAGE;
}

int main(int argc, char **argv)
{
	if (argc < 2) {
		print_help(stderr);
		return EXIT_USAGE;
	}
	if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h")) {
		print_help(stdout);
		return EXIT_SUCCESS;
	}
	if (!strcmp(argv[1], "--version")) {
		puts("rmctl " VERSION);
		return EXIT_SUCCESS;
	}
	return run_command_named(argc - 1, argv + 1);
}
