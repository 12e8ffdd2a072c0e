// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * Messages, sizes and small files.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

#include "rmctl.h"

const char *const store_names[RESTRICTEDMEM_NR_STORES] = {
	[RESTRICTEDMEM_STORE_SHMEM] = "shmem",
	[RESTRICTEDMEM_STORE_HUGETLB] = "hugetlb",
	[RESTRICTEDMEM_STORE_POOL] = "pool",
};

static const char units[] = "KMGTPE";

static void message(const char *reason, const char *fmt, va_list args)
{
	fflush(stdout);
	fputs("rmctl: ", stderr);
	vfprintf(stderr, fmt, args);
	fprintf(stderr, "%s%s\n", reason ? ": " : "", reason ?: "");
}

int fail(const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	message(NULL, fmt, args);
	va_end(args);
	return EXIT_FAILURE;
}

int fail_errno(const char *fmt, ...)
{
	const char *reason = strerror(errno);
	va_list args;

	va_start(args, fmt);
	message(reason, fmt, args);
	va_end(args);
	return EXIT_FAILURE;
}

int fail_usage(const struct command *command, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	message(NULL, fmt, args);
	va_end(args);
	return bad_option(command);
}

int show_help(const struct command *command)
{
	fputs(command->help, stdout);
	return fflush(stdout) ? fail_errno("standard output") : EXIT_SUCCESS;
}

int bad_option(const struct command *command)
{
	fprintf(stderr, "Try \"rmctl %s --help\".\n", command->name);
	return EXIT_USAGE;
}

int no_more_arguments(const struct command *command, int argc, char **argv)
{
	if (argc == 0)
		return 0;
	return fail_usage(command, "%s: what is \"%s\"?", command->name, argv[0]);
}

bool parse_size(const char *text, uint64_t *bytes)
{
	const char *unit;
	uint64_t value;
	int shift = 0;
	char *end;

	if (*text < '0' || *text > '9')
		return false;
	errno = 0;
	value = strtoull(text, &end, 0);
	if (errno)
		return false;
	if (*end) {
		unit = strchr(units, *end & ~0x20);
		if (!unit || !*unit || end[1])
			return false;
		shift = 10 * (unit - units + 1);
	}
	if (value << shift >> shift != value)
		return false;
	*bytes = value << shift;
	return true;
}

const char *size_text(char text[SIZE_TEXT], uint64_t bytes)
{
	int unit = -1, shift = 0;
	unsigned int hundredths;

	while (unit + 1 < (int)sizeof(units) - 1 && bytes >> (shift + 10)) {
		shift += 10;
		unit++;
	}
	if (unit < 0) {
		snprintf(text, SIZE_TEXT, "%llu", (unsigned long long)bytes);
		return text;
	}
	/* The remainder in parts of 1024 is exact enough for two digits. */
	hundredths = (bytes >> (shift - 10) & 1023) * 100 / 1024;
	if (!hundredths)
		snprintf(text, SIZE_TEXT, "%llu%c", (unsigned long long)bytes >> shift,
			 units[unit]);
	else
		snprintf(text, SIZE_TEXT, "%llu.%02u%c", (unsigned long long)bytes >> shift,
			 hundredths, units[unit]);
	return text;
}

int open_device(void)
{
	int device = restrictedmem_open();

	if (device < 0) {
		fail_errno("/dev/restrictedmem");
		fail("\"rmctl doctor\" says what to do");
	}
	return device;
}

void *append(void *array, size_t *nr, size_t width)
{
	char *larger = reallocarray(array, *nr + 1, width);

	if (!larger)
		exit(fail_errno("no memory"));
	memset(larger + *nr * width, 0, width);
	++*nr;
	return larger;
}

bool read_text(const char *path, char *text, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC), saved;
	ssize_t n;

	if (fd < 0)
		return false;
	n = read(fd, text, size - 1);
	saved = errno;
	close(fd);
	errno = saved;
	if (n < 0)
		return false;
	text[n] = 0;
	text[strcspn(text, "\n")] = 0;
	return true;
}

int print_json(struct json_object *object)
{
	puts(json_object_to_json_string_ext(object, JSON_C_TO_STRING_PRETTY |
					    JSON_C_TO_STRING_NOSLASHESCAPE));
	json_object_put(object);
	return fflush(stdout) ? fail_errno("standard output") : EXIT_SUCCESS;
}
