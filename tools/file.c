// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * rmctl create, populate, punch, convert, window, revoke: for scripts, which
 * have no way to call an ioctl. Memory lives as long as a process has it open; so
 * create and window become the command that they are given, which inherits the
 * descriptor and finds its number in the environment.
 */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "rmctl.h"

#define FD_VARIABLE	"RESTRICTEDMEM_FD"
#define WINDOW_VARIABLE	"RESTRICTEDMEM_WINDOW_FD"

static bool parse_fd(const char *text, int *fd)
{
	uint64_t number;

	if (!parse_size(text, &number) || number > 1 << 20)
		return false;
	*fd = number;
	return true;
}

static int find_word(const char *word, const char *const *words, int nr)
{
	int i;

	for (i = 0; i < nr; i++)
		if (words[i] && !strcmp(word, words[i]))
			return i;
	return -1;
}

/* The descriptor as @number (-1: any), without close-on-exec; the old one goes. */
static int place_fd(int fd, int number)
{
	int placed;

	if (number == fd)
		return fcntl(fd, F_SETFD, 0) ? -1 : fd;
	if (number >= 0 && fcntl(number, F_GETFD) >= 0) {
		errno = EBUSY;
		return -1;
	}
	placed = number < 0 ? fcntl(fd, F_DUPFD, 3) : dup2(fd, number);
	if (placed >= 0)
		close(fd);
	return placed;
}

/* Becomes the command. */
static int exec_with(int fd, int number, const char *variable, char **argv)
{
	char text[16];
	int status;

	fd = place_fd(fd, number);
	if (fd < 0)
		return fail_errno("descriptor %d", number);
	snprintf(text, sizeof(text), "%d", fd);
	if (setenv(variable, text, true))
		return fail_errno("environment");
	execvp(argv[0], argv);
	status = errno == ENOENT ? EXIT_NO_COMMAND : EXIT_CANNOT_EXEC;
	fail_errno("%s", argv[0]);
	return status;
}

/* What a user can say to create */
struct create_request {
	struct restrictedmem_create args;
	int number;
	bool populate;
};

static const char *const thp_words[] = {
	[RESTRICTEDMEM_THP_DEFAULT] = "default",
	[RESTRICTEDMEM_THP_ALWAYS] = "always",
	[RESTRICTEDMEM_THP_NEVER] = "never",
	[RESTRICTEDMEM_THP_WITHIN_SIZE] = "within_size",
};

static const char *const numa_words[] = {
	[RESTRICTEDMEM_NUMA_DEFAULT] = "default",
	[RESTRICTEDMEM_NUMA_BIND] = "bind",
	[RESTRICTEDMEM_NUMA_PREFERRED] = "preferred",
	[RESTRICTEDMEM_NUMA_INTERLEAVE] = "interleave",
};

/* "0-1,3" */
static bool parse_nodes(const char *text, __u64 *nodes)
{
	unsigned long first, last;
	char *end;

	for (;; text = end + 1) {
		if (*text < '0' || *text > '9')
			return false;
		first = strtoul(text, &end, 10);
		last = first;
		if (*end == '-') {
			text = end + 1;
			last = strtoul(text, &end, 10);
			if (end == text)
				return false;
		}
		if (last > 63 || first > last)
			return false;
		*nodes |= ~0ULL >> (63 - (last - first)) << first;
		if (*end != ',')
			return !*end;
	}
}

/* "bind:0-1", as fdinfo has it */
static bool parse_numa(char *text, struct restrictedmem_create *args)
{
	char *nodes = strchr(text, ':');
	int word;

	if (nodes)
		*nodes++ = 0;
	word = find_word(text, numa_words, ARRAY_SIZE(numa_words));
	if (word < 0 || !word != !nodes)
		return false;
	args->numa = word;
	return !nodes || parse_nodes(nodes, &args->nodes);
}

static int create_and_exec(const struct create_request *request, char **argv)
{
	int device, fd;

	device = open_device();
	if (device < 0)
		return EXIT_FAILURE;
	fd = restrictedmem_create(device, &request->args);
	if (fd < 0)
		return fail_errno("RESTRICTEDMEM_CREATE");
	close(device);
	if (request->populate && restrictedmem_populate(fd, 0, request->args.length))
		return fail_errno("populate");
	return exec_with(fd, request->number, FD_VARIABLE, argv);
}

/* An option of create: false if its value makes no sense. */
static bool take_create_option(struct create_request *request, int option)
{
	struct restrictedmem_create *args = &request->args;
	uint64_t size;
	int word;

	switch (option) {
	case 's':
	case 'p':
		if (!parse_size(optarg, &size))
			return false;
		*(option == 's' ? &args->length : &args->page_size) = size;
		return true;
	case 'S':
		word = find_word(optarg, store_names, ARRAY_SIZE(store_names));
		args->store = word;
		return word >= 0;
	case 't':
		word = find_word(optarg, thp_words, ARRAY_SIZE(thp_words));
		args->thp = word;
		return word >= 0;
	case 'n':
		return parse_numa(optarg, args);
	case 'f':
		return parse_fd(optarg, &request->number);
	case 'P':
		request->populate = true;
		return true;
	case 'A':
		args->flags |= RESTRICTEDMEM_CREATE_ALIASES;
		return true;
	case 'V':
		args->flags |= RESTRICTEDMEM_CREATE_VIEWS;
		return true;
	case 'R':
		args->flags |= RESTRICTEDMEM_CREATE_RESERVE;
		return true;
	default:
		args->flags |= RESTRICTEDMEM_CREATE_IN_PLACE;
		return true;
	}
}

static int run_create(const struct command *command, int argc, char **argv)
{
	static const struct option options[] = {
		{ "size", required_argument, NULL, 's' },
		{ "store", required_argument, NULL, 'S' },
		{ "page-size", required_argument, NULL, 'p' },
		{ "thp", required_argument, NULL, 't' },
		{ "numa", required_argument, NULL, 'n' },
		{ "fd", required_argument, NULL, 'f' },
		{ "populate", no_argument, NULL, 'P' },
		{ "aliases", no_argument, NULL, 'A' },
		{ "views", no_argument, NULL, 'V' },
		{ "reserve", no_argument, NULL, 'R' },
		{ "in-place", no_argument, NULL, 'I' },
		{ "help", no_argument, NULL, 'h' },
		{}
	};
	struct create_request request = {
		.args.size = sizeof(request.args),
		.number = -1,
	};
	int option;

	while ((option = getopt_long(argc, argv, "+s:h", options, NULL)) >= 0) {
		if (option == 'h')
			return show_help(command);
		if (option == '?')
			return bad_option(command);
		if (!take_create_option(&request, option))
			return fail_usage(command, "create: \"%s\" makes no sense here", optarg);
	}
	if (!request.args.length)
		return fail_usage(command, "create: --size is needed");
	if (optind == argc)
		return fail_usage(command, "create: no command to give the memory to");
	return create_and_exec(&request, argv + optind);
}

/* What populate, punch, convert, window and revoke are told */
struct range_request {
	int fd;
	int number;	/* of a new descriptor, or of a window; -1: not said */
	uint64_t offset;
	uint64_t length;
	bool has_length;
	bool shared;
	bool private;
	bool preserve;
	bool write;
};

static const struct option range_options[] = {
	{ "fd", required_argument, NULL, 'f' },
	{ "offset", required_argument, NULL, 'o' },
	{ "length", required_argument, NULL, 'l' },
	{ "shared", no_argument, NULL, 's' },
	{ "private", no_argument, NULL, 'p' },
	{ "preserve", no_argument, NULL, 'k' },
	{ "write", no_argument, NULL, 'w' },
	{ "window-fd", required_argument, NULL, 'W' },
	{ "help", no_argument, NULL, 'h' },
	{}
};

/* Values of range_options that a command does not have are refused. */
static bool take_range_option(struct range_request *request, int option)
{
	switch (option) {
	case 'f':
		return parse_fd(optarg, &request->fd);
	case 'o':
		return parse_size(optarg, &request->offset);
	case 'l':
		request->has_length = true;
		return parse_size(optarg, &request->length);
	case 's':
		request->shared = true;
		return true;
	case 'p':
		request->private = true;
		return true;
	case 'k':
		request->preserve = true;
		return true;
	case 'w':
		request->write = true;
		return true;
	default:
		return parse_fd(optarg, &request->number);
	}
}

/* The descriptor from the environment, and all of it, unless told otherwise. */
static int complete_range(const struct command *command, struct range_request *request)
{
	const char *variable = getenv(FD_VARIABLE);
	struct restrictedmem_fdinfo info;

	if (request->fd < 0 && (!variable || !parse_fd(variable, &request->fd)))
		return fail_usage(command, "%s: --fd is needed, or $" FD_VARIABLE, command->name);
	if (restrictedmem_fdinfo(request->fd, &info, sizeof(info)))
		return fail_errno("descriptor %d", request->fd);
	if (info.kind != RESTRICTEDMEM_KIND_MEMORY)
		return fail("descriptor %d is a window, not memory", request->fd);
	if (!request->has_length && request->offset < info.size)
		request->length = info.size - request->offset;
	return 0;
}

/*
 * @allowed: the options' letters, as for getopt(). A command may follow if there
 * is a '+' first. What main() returns, or -1 to go on.
 */
static int parse_range(const struct command *command, int argc, char **argv,
		       const char *allowed, struct range_request *request)
{
	int option, r;

	*request = (struct range_request) { .fd = -1, .number = -1 };
	while ((option = getopt_long(argc, argv, "+f:o:l:h", range_options, NULL)) >= 0) {
		if (option == 'h')
			return show_help(command);
		if (option == '?')
			return bad_option(command);
		if (!strchr(allowed, option))
			return fail_usage(command, "%s has no such option", command->name);
		if (!take_range_option(request, option))
			return fail_usage(command, "%s: \"%s\" makes no sense here",
					  command->name, optarg);
	}
	if (*allowed != '+') {
		r = no_more_arguments(command, argc - optind, argv + optind);
		if (r)
			return r;
	}
	r = complete_range(command, request);
	return r ? r : -1;
}

static int run_populate(const struct command *command, int argc, char **argv)
{
	struct range_request request;
	int r = parse_range(command, argc, argv, "fol", &request);

	if (r >= 0)
		return r;
	if (restrictedmem_populate(request.fd, request.offset, request.length))
		return fail_errno("populate");
	return EXIT_SUCCESS;
}

static int run_punch(const struct command *command, int argc, char **argv)
{
	struct range_request request;
	int r = parse_range(command, argc, argv, "fol", &request);

	if (r >= 0)
		return r;
	if (restrictedmem_punch(request.fd, request.offset, request.length))
		return fail_errno("punch");
	return EXIT_SUCCESS;
}

static int run_convert(const struct command *command, int argc, char **argv)
{
	struct range_request request;
	uint64_t done;
	int r = parse_range(command, argc, argv, "folspk", &request);

	if (r >= 0)
		return r;
	if (request.shared == request.private)
		return fail_usage(command, "convert: one of --shared and --private is needed");
	if (restrictedmem_convert(request.fd, request.offset, request.length,
				  request.private ? RESTRICTEDMEM_ATTRIBUTE_PRIVATE : 0,
				  request.preserve ? RESTRICTEDMEM_CONVERT_PRESERVE :
						     RESTRICTEDMEM_CONVERT_ZERO, &done))
		return fail_errno("convert, done up to offset %#" PRIx64, done);
	return EXIT_SUCCESS;
}

/*
 * What cannot be looked at may be memory: that is an error. It takes a descriptor,
 * and there may be none left.
 */
static int keep_if_memory(int fd)
{
	struct restrictedmem_fdinfo info;

	if (restrictedmem_fdinfo(fd, &info, sizeof(info)))
		return errno == ENOTTY || errno == EBADF ? 0 : fail_errno("descriptor %d", fd);
	if (info.kind == RESTRICTEDMEM_KIND_MEMORY && fcntl(fd, F_SETFD, FD_CLOEXEC))
		return fail_errno("descriptor %d", fd);
	return 0;
}

/*
 * A command that is given a window is to have no more than that: memory, the window's
 * own and any other, whoever made it, stays here.
 */
static int keep_memory(int memory)
{
	struct dirent *entry;
	int r = 0;
	DIR *dir;

	if (fcntl(memory, F_SETFD, FD_CLOEXEC))
		return fail_errno("descriptor %d", memory);
	dir = opendir("/proc/self/fd");
	if (!dir)
		return fail_errno("/proc/self/fd");
	do {
		errno = 0;
		entry = readdir(dir);
		if (entry && isdigit((unsigned char)*entry->d_name))
			r = keep_if_memory(atoi(entry->d_name));
		else if (!entry && errno)
			r = fail_errno("/proc/self/fd");
	} while (entry && !r);
	closedir(dir);
	return r || !unsetenv(FD_VARIABLE) ? r : fail_errno("environment");
}

static int run_window(const struct command *command, int argc, char **argv)
{
	struct range_request request;
	int window, r = parse_range(command, argc, argv, "+folwW", &request);

	if (r >= 0)
		return r;
	if (optind == argc)
		return fail_usage(command, "window: no command to give the window to");
	window = restrictedmem_window(request.fd, request.offset, request.length,
				      request.write ? RESTRICTEDMEM_WINDOW_WRITE : 0);
	if (window < 0)
		return fail_errno("RESTRICTEDMEM_WINDOW");
	r = keep_memory(request.fd);
	if (r)
		return r;
	return exec_with(window, request.number, WINDOW_VARIABLE, argv + optind);
}

static int run_revoke(const struct command *command, int argc, char **argv)
{
	struct range_request request;
	int r = parse_range(command, argc, argv, "fW", &request);

	if (r >= 0)
		return r;
	if (restrictedmem_revoke(request.fd, request.number))
		return fail_errno("RESTRICTEDMEM_REVOKE");
	return EXIT_SUCCESS;
}

#define RANGE_HELP \
	"  -f, --fd N        the memory (default: $" FD_VARIABLE ")\n" \
	"  -o, --offset N    first byte (0)\n" \
	"  -l, --length N    bytes (to the end)\n"

#define SIZES_HELP \
	"\nSizes are bytes, or have a suffix K, M, G, T.\n"

const struct command create_command = {
	.name = "create",
	.summary = "make memory, and run a command with it",
	.help = "Usage: rmctl create --size N [options] [--] COMMAND [argument...]\n"
		"Makes memory and becomes COMMAND, which inherits the descriptor. Its number is\n"
		"in $" FD_VARIABLE ". The memory is there as long as anybody has it open.\n"
		"\n"
		"  -s, --size N          bytes\n"
		"      --store STORE     shmem (default) or hugetlb\n"
		"      --page-size N     of the store; its smallest if not said\n"
		"      --thp POLICY      default, always, never or within_size\n"
		"      --numa P:NODES    bind, preferred or interleave, and nodes as 0-1,3\n"
		"      --populate        allocate all pages at once\n"
		"      --reserve         set all pages of the pool aside\n"
		"      --aliases         one owner may bind a page more than once\n"
		"      --views           several views may have bindings at once\n"
		"      --in-place        ranges can be shared, see \"rmctl convert\"\n"
		"      --fd N            the descriptor's number (the first that is free)\n"
		"  -h, --help\n"
		SIZES_HELP
		"\nA shell with 64 MiB, to try things in:\n"
		"\n"
		"  rmctl create --size 64M -- bash\n"
		"  rmctl populate --length 16M\n"
		"  rmctl list\n"
		"\n"
		"Descriptor 9, in pages of 2 MiB from the pool:\n"
		"\n"
		"  rmctl create --size 1G --store hugetlb --fd 9 -- my-vmm --memory-fd 9\n",
	.run = run_create,
};

const struct command populate_command = {
	.name = "populate",
	.summary = "allocate the pages of a range",
	.help = "Usage: rmctl populate [options]\n"
		"Allocates pages in advance, so that none is missing later.\n"
		"\n"
		RANGE_HELP
		"  -h, --help\n"
		SIZES_HELP,
	.run = run_populate,
};

const struct command punch_command = {
	.name = "punch",
	.summary = "discard the pages of a range",
	.help = "Usage: rmctl punch [options]\n"
		"Takes pages from whoever uses them, a guest too, and gives them back to the\n"
		"system. What touches them again sees zeros.\n"
		"\n"
		RANGE_HELP
		"  -h, --help\n"
		SIZES_HELP,
	.run = run_punch,
};

const struct command convert_command = {
	.name = "convert",
	.summary = "share a range, or take it back",
	.help = "Usage: rmctl convert --shared|--private [options]\n"
		"Makes a range of memory from \"rmctl create --in-place\" accessible through\n"
		"windows, or takes it from everybody who maps it. Fails if somebody holds a page\n"
		"that is to be private, and says how far it got.\n"
		"\n"
		"      --shared      windows give access to the range\n"
		"      --private     nobody has access\n"
		"      --preserve    keep the contents (they are zeroed if not)\n"
		RANGE_HELP
		"  -h, --help\n"
		SIZES_HELP,
	.run = run_convert,
};

const struct command window_command = {
	.name = "window",
	.summary = "make a window on a range, and run a command with it",
	.help = "Usage: rmctl window [options] [--] COMMAND [argument...]\n"
		"Makes a window and becomes COMMAND, which inherits its descriptor and can map\n"
		"it. Its number is in $" WINDOW_VARIABLE ". No descriptor of memory is passed\n"
		"on; the window ends with the last of them.\n"
		"\n"
		"      --write         the window can be written through\n"
		"      --window-fd N   the window's number (the first that is free)\n"
		RANGE_HELP
		"  -h, --help\n"
		SIZES_HELP,
	.run = run_window,
};

const struct command revoke_command = {
	.name = "revoke",
	.summary = "end windows",
	.help = "Usage: rmctl revoke [--fd N] [--window-fd N]\n"
		"Ends all windows that were made through the descriptor of the memory, or one\n"
		"of them. Who maps one gets SIGBUS from then on.\n"
		"\n"
		"  -f, --fd N          the memory (default: $" FD_VARIABLE ")\n"
		"      --window-fd N   the window (default: all)\n"
		"  -h, --help\n",
	.run = run_revoke,
};
