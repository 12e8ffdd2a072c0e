// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * rmctl watch: what list shows, again and again, with what happened meanwhile.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <langinfo.h>
#include <locale.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "scan.h"
#include "trace.h"

#define TOP_LEFT	"\033[H"
#define CLEAR_LINE	"\033[K"
#define CLEAR_REST	"\033[J"
#define CLEAR_ALL	"\033[H\033[2J"
#define HIDE_CURSOR	"\033[?25l"
#define SHOW_CURSOR	"\033[?25h"

#define MAX_BAR		40
#define OTHER_COLUMNS	67

/* What was counted of a memory when it was last shown */
struct before {
	uint64_t inode;
	uint64_t counts[NR_TRACE_EVENTS];
};

struct watch {
	struct trace trace;
	struct before *before;
	size_t nr_before;
	struct timespec interval;
	unsigned long intervals;	/* 0: until a signal comes */
	double seconds;			/* that the last one really took */
	bool live;
	bool blocks;			/* the terminal has them */
};

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec + ts.tv_nsec / 1e9;
}

static uint64_t count_before(const struct watch *watch, uint64_t inode, enum trace_event event)
{
	size_t i;

	for (i = 0; i < watch->nr_before; i++)
		if (watch->before[i].inode == inode)
			return watch->before[i].counts[event];
	return 0;
}

/* What was counted of these is the past, from now on. */
static void remember(struct watch *watch, const struct scan *found)
{
	struct before *before;
	unsigned int event;
	size_t i;

	watch->nr_before = 0;
	for (i = 0; i < found->nr_memories; i++) {
		watch->before = append(watch->before, &watch->nr_before, sizeof(*watch->before));
		before = &watch->before[i];
		before->inode = found->memories[i].info.inode;
		for (event = 0; event < NR_TRACE_EVENTS; event++)
			before->counts[event] = trace_count(&watch->trace, event, before->inode);
	}
}

#define RATE_TEXT	16

static const char *rate_text(char text[RATE_TEXT], const struct watch *watch, uint64_t inode,
			     enum trace_event event)
{
	uint64_t count = trace_count(&watch->trace, event, inode) -
			 count_before(watch, inode, event);

	if (!watch->trace.events[event].available)
		return "-";
	snprintf(text, RATE_TEXT, "%.1f", watch->seconds > 0 ? count / watch->seconds : 0);
	return text;
}

static const char *process_text(char text[32], const struct memory *memory)
{
	const struct process *process;

	if (!memory->nr_files)
		return "-";
	process = &memory->files[0].process;
	snprintf(text, 32, "%s(%d)", process->name, process->pid);
	return text;
}

static unsigned int bar_width(void)
{
	struct winsize size;

	if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) || size.ws_col <= OTHER_COLUMNS)
		return 8;
	size.ws_col -= OTHER_COLUMNS;
	return size.ws_col < MAX_BAR ? size.ws_col : MAX_BAR;
}

/* Of the size, what is there: shared, and private; a part of a place is one. */
static void draw_bar(const struct watch *watch, const struct restrictedmem_fdinfo *info,
		     unsigned int width)
{
	double part = info->size ? (double)width / info->size : 0;
	unsigned int filled = info->resident * part + 0.999;
	unsigned int i;

	for (i = 0; i < width; i++)
		if (i < filled)
			fputs(watch->blocks ? "\u2588" : "#", stdout);
		else
			fputs(watch->blocks ? "\u2591" : ".", stdout);
}

static void show_live(const struct watch *watch, const struct scan *found)
{
	char process[32], resident[SIZE_TEXT], size[SIZE_TEXT], shared[SIZE_TEXT];
	char faults[RATE_TEXT], conversions[RATE_TEXT];
	unsigned int width = bar_width();
	const struct memory *memory;
	uint64_t total = 0;
	size_t i;

	for (i = 0; i < found->nr_memories; i++)
		total += found->memories[i].info.resident;
	printf(TOP_LEFT "%zu memories, %s resident%s" CLEAR_LINE "\n" CLEAR_LINE "\n",
	       found->nr_memories, size_text(size, total),
	       found->nr_hidden ? " (that you may see)" : "");
	printf("%-20s %*s%8s %8s %8s %9s %9s" CLEAR_LINE "\n", "PROCESS", width + 1, "",
	       "RESIDENT", "SIZE", "SHARED", "FAULTS/s", "CONV/s");
	for (i = 0; i < found->nr_memories; i++) {
		memory = &found->memories[i];
		printf("%-20.20s ", process_text(process, memory));
		draw_bar(watch, &memory->info, width);
		printf(" %8s %8s %8s %9s %9s%s" CLEAR_LINE "\n",
		       size_text(resident, memory->info.resident),
		       size_text(size, memory->info.size),
		       size_text(shared, memory->info.shared),
		       rate_text(faults, watch, memory->info.inode, TRACE_FAULTS),
		       rate_text(conversions, watch, memory->info.inode, TRACE_CONVERSIONS),
		       memory->info.poisoned ? " POISONED" : "");
	}
	if (watch->trace.reason)
		printf(CLEAR_LINE "\n%s" CLEAR_LINE "\n", watch->trace.reason);
	fputs(CLEAR_LINE "\nCtrl-C ends." CLEAR_REST, stdout);
}

static void show_plain(const struct watch *watch, const struct scan *found, unsigned long interval)
{
	char process[32], faults[RATE_TEXT], conversions[RATE_TEXT];
	const struct memory *memory;
	size_t i;

	for (i = 0; i < found->nr_memories; i++) {
		memory = &found->memories[i];
		printf("%lu\t%" PRIu64 "\t%s\t%" PRIu64 "\t%" PRIu64 "\t%" PRIu64 "\t%" PRIu64
		       "\t%s\t%s\n", interval, memory->info.inode, process_text(process, memory),
		       memory->info.size, memory->info.resident, memory->info.shared,
		       memory->info.poisoned,
		       rate_text(faults, watch, memory->info.inode, TRACE_FAULTS),
		       rate_text(conversions, watch, memory->info.inode, TRACE_CONVERSIONS));
	}
}

/* False when it is time to end, with what main() returns. */
static bool show(struct watch *watch, unsigned long interval, int *status)
{
	struct scan found;

	*status = scan(&found);
	if (*status)
		return false;
	trace_update(&watch->trace);
	if (watch->live)
		show_live(watch, &found);
	else
		show_plain(watch, &found, interval);
	remember(watch, &found);
	scan_free(&found);
	if (fflush(stdout)) {
		/* Who reads it has had enough. */
		*status = errno == EPIPE ? EXIT_SUCCESS : fail_errno("standard output");
		return false;
	}
	return !watch->intervals || interval < watch->intervals;
}

/* Signals come while it waits, and only then. */
static int watch_until_signal(struct watch *watch, const sigset_t *signals)
{
	unsigned long interval = 0;
	double start = now();
	int status;

	for (;;) {
		if (sigtimedwait(signals, NULL, &watch->interval) > 0)
			return EXIT_SUCCESS;
		watch->seconds = now() - start;
		start = now();
		if (!show(watch, ++interval, &status))
			return status;
	}
}

static int watch_all(struct watch *watch)
{
	sigset_t signals;
	struct scan found;
	int status;

	sigemptyset(&signals);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGHUP);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	signal(SIGPIPE, SIG_IGN);

	trace_start(&watch->trace);
	status = scan(&found);
	if (!status) {
		trace_update(&watch->trace);
		remember(watch, &found);
		if (watch->live) {
			fputs(HIDE_CURSOR CLEAR_ALL, stdout);
			show_live(watch, &found);
			fflush(stdout);
		} else {
			if (watch->trace.reason)
				fprintf(stderr, "rmctl: %s\n", watch->trace.reason);
			puts("interval\tinode\tprocess\tsize\tresident\tshared\tpoisoned\t"
			     "faults/s\tconversions/s");
		}
		scan_free(&found);
		status = watch_until_signal(watch, &signals);
	}
	if (watch->live)
		puts(SHOW_CURSOR);
	trace_stop(&watch->trace);
	free(watch->before);
	return status;
}

static bool parse_interval(const char *text, struct timespec *interval)
{
	char *end;
	double seconds = strtod(text, &end);

	if (end == text || *end || !(seconds >= 0.01 && seconds <= 86400))
		return false;
	interval->tv_sec = seconds;
	interval->tv_nsec = (seconds - interval->tv_sec) * 1e9;
	return true;
}

static int run_watch(const struct command *command, int argc, char **argv)
{
	static const struct option options[] = {
		{ "interval", required_argument, NULL, 'i' },
		{ "intervals", required_argument, NULL, 'n' },
		{ "help", no_argument, NULL, 'h' },
		{}
	};
	struct watch watch = {
		.interval.tv_sec = 1,
		.live = isatty(STDOUT_FILENO),
	};
	uint64_t number;
	int option, r;

	while ((option = getopt_long(argc, argv, "i:n:h", options, NULL)) >= 0) {
		switch (option) {
		case 'i':
			if (!parse_interval(optarg, &watch.interval))
				return fail_usage(command, "watch: \"%s\" seconds?", optarg);
			break;
		case 'n':
			if (!parse_size(optarg, &number) || !number)
				return fail_usage(command, "watch: \"%s\" intervals?", optarg);
			watch.intervals = number;
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
	setlocale(LC_CTYPE, "");
	watch.blocks = !strcmp(nl_langinfo(CODESET), "UTF-8");
	return watch_all(&watch);
}

const struct command watch_command = {
	.name = "watch",
	.summary = "the same, live, with faults and conversions",
	.help = "Usage: rmctl watch [options]\n"
		"Shows all memory that you may see, with a bar for how much of it is resident,\n"
		"and how many faults (pages that a guest or another user of the memory asked\n"
		"for) and conversions there are in a second, which needs access to tracefs.\n"
		"\n"
		"  -i, --interval SECONDS   how often (1)\n"
		"  -n, --intervals N        end after so many\n"
		"  -h, --help\n"
		"\n"
		"Not on a terminal, it prints a line of fields for each memory and interval:\n"
		"\n"
		"  rmctl watch -n 10 | awk -F '\\t' '$8 > 1000 { print $3, $8 }'\n",
	.run = run_watch,
};
