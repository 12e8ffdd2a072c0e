// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * The kernel counts: a histogram by inode hangs on each tracepoint, in an
 * instance of its own. Nothing goes through a trace buffer, so nothing is lost and
 * a guest that faults fast is not slowed down by us reading.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "trace.h"

#define TRACEFS		"/sys/kernel/tracing"
#define HISTOGRAM	"hist:keys=ino"

static const char *const event_names[NR_TRACE_EVENTS] = {
	[TRACE_FAULTS] = "restrictedmem_get_pfn",
	[TRACE_CONVERSIONS] = "restrictedmem_convert",
};

#define PATH_SIZE	192

static const char *event_path(char path[PATH_SIZE], const struct trace *trace,
			      enum trace_event event, const char *file)
{
	snprintf(path, PATH_SIZE, "%s/events/restrictedmem/%s/%s", trace->instance,
		 event_names[event], file);
	return path;
}

static bool write_trigger(const struct trace *trace, enum trace_event event, const char *text)
{
	char path[PATH_SIZE];
	int fd = open(event_path(path, trace, event, "trigger"), O_WRONLY | O_CLOEXEC);
	bool done;

	if (fd < 0)
		return false;
	done = write(fd, text, strlen(text)) == (ssize_t)strlen(text);
	close(fd);
	return done;
}

#define NOT_COUNTED	"faults and conversions are not counted: "

static const char *why_not(int error)
{
	switch (error) {
	case EACCES:
	case EPERM:
		return NOT_COUNTED "only root may use " TRACEFS;
	case ENOENT:
		return NOT_COUNTED "no tracefs at " TRACEFS;
	default:
		return NOT_COUNTED TRACEFS " refuses";
	}
}

void trace_start(struct trace *trace)
{
	char path[PATH_SIZE];
	unsigned int event;

	memset(trace, 0, sizeof(*trace));
	snprintf(trace->instance, sizeof(trace->instance), TRACEFS "/instances/rmctl-%d", getpid());
	if (mkdir(trace->instance, 0700)) {
		trace->reason = why_not(errno);
		return;
	}
	snprintf(path, sizeof(path), "%s/events/restrictedmem", trace->instance);
	if (access(path, F_OK))
		trace->reason = NOT_COUNTED "the module is not loaded";
	for (event = 0; event < NR_TRACE_EVENTS; event++)
		trace->events[event].available = write_trigger(trace, event, HISTOGRAM);
	if (!trace->reason && !trace->events[TRACE_FAULTS].available)
		trace->reason = NOT_COUNTED "the kernel has no histograms";
}

void trace_stop(struct trace *trace)
{
	unsigned int event;

	for (event = 0; event < NR_TRACE_EVENTS; event++) {
		if (trace->events[event].available)
			write_trigger(trace, event, "!" HISTOGRAM);
		free(trace->events[event].counts);
	}
	rmdir(trace->instance);
}

static void read_histogram(struct trace *trace, enum trace_event event)
{
	char path[PATH_SIZE], *line = NULL;
	struct trace_count count, *counts = NULL;
	size_t size = 0, nr = 0;
	FILE *histogram = fopen(event_path(path, trace, event, "hist"), "re");

	if (!histogram)
		return;
	while (getline(&line, &size, histogram) > 0) {
		if (sscanf(line, "{ ino: %" SCNu64 " } hitcount: %" SCNu64, &count.inode,
			   &count.count) != 2)
			continue;
		counts = append(counts, &nr, sizeof(*counts));
		counts[nr - 1] = count;
	}
	free(line);
	fclose(histogram);
	free(trace->events[event].counts);
	trace->events[event].counts = counts;
	trace->events[event].nr_counts = nr;
}

void trace_update(struct trace *trace)
{
	unsigned int event;

	for (event = 0; event < NR_TRACE_EVENTS; event++)
		if (trace->events[event].available)
			read_histogram(trace, event);
}

uint64_t trace_count(const struct trace *trace, enum trace_event event, uint64_t inode)
{
	size_t i;

	for (i = 0; i < trace->events[event].nr_counts; i++)
		if (trace->events[event].counts[i].inode == inode)
			return trace->events[event].counts[i].count;
	return 0;
}
