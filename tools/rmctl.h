/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * What the parts of rmctl share: commands, messages, sizes.
 */
#ifndef RMCTL_H
#define RMCTL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <json-c/json.h>
#include <librestrictedmem.h>

#define ARRAY_SIZE(_array)	(sizeof(_array) / sizeof((_array)[0]))

/* rmctl(1) promises these, beside EXIT_SUCCESS and EXIT_FAILURE. */
#define EXIT_USAGE		2
#define EXIT_CANNOT_EXEC	126
#define EXIT_NO_COMMAND		127

/**
 * struct command - one of rmctl's commands
 * @name: what the user types
 * @summary: a line for the list of commands
 * @help: all of --help
 * @run: does it; argv[0] is the name for messages
 */
struct command {
	const char *name;
	const char *summary;
	const char *help;
	int (*run)(const struct command *command, int argc, char **argv);
};

extern const struct command doctor_command, info_command, list_command,
	watch_command, create_command, populate_command, punch_command,
	convert_command, window_command, revoke_command, run_command;

/* Messages on standard error, with the program's name; what main() returns. */
int fail(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
int fail_errno(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
int fail_usage(const struct command *command, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

/* --help, or an option that getopt_long() has already complained about. */
int show_help(const struct command *command);
int bad_option(const struct command *command);

/* No argument is left over: 0, or what main() returns. */
int no_more_arguments(const struct command *command, int argc, char **argv);

/* "1G", "4096", "0x1000": false if it is none. */
bool parse_size(const char *text, uint64_t *bytes);

/* The same, the other way round; two digits after the point at most. */
#define SIZE_TEXT	24
const char *size_text(char text[SIZE_TEXT], uint64_t bytes);

/* By number of &enum restrictedmem_store; NULL: of a later version */
extern const char *const store_names[RESTRICTEDMEM_NR_STORES];

/* As restrictedmem_open(); says why not. */
int open_device(void);

/* An array of @nr elements gets room for another one, which is zeroed. */
void *append(void *array, size_t *nr, size_t width);

/* A small file without its last newline, or false with errno. */
bool read_text(const char *path, char *text, size_t size);

/* Writes it to standard output, and frees it. What main() returns. */
int print_json(struct json_object *object);

#define add_number(_object, _key, _value) \
	json_object_object_add(_object, _key, json_object_new_uint64(_value))
#define add_text(_object, _key, _value) \
	json_object_object_add(_object, _key, json_object_new_string(_value))
#define add_bool(_object, _key, _value) \
	json_object_object_add(_object, _key, json_object_new_boolean(_value))

#endif /* RMCTL_H */
