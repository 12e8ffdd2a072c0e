/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * How often the module's tracepoints were passed, for each memory.
 */
#ifndef TRACE_H
#define TRACE_H

#include "rmctl.h"

enum trace_event {
	TRACE_FAULTS,
	TRACE_CONVERSIONS,
	NR_TRACE_EVENTS,
};

struct trace_count {
	uint64_t inode;
	uint64_t count;
};

/**
 * struct trace - an instance of tracefs of our own, which nobody else disturbs
 * @instance: its directory
 * @events: for each event
 * @events.available: the module has it
 * @events.counts: since the start, of those inodes that had any
 * @reason: why there is no instance; NULL if there is
 */
struct trace {
	char instance[64];
	struct {
		bool available;
		struct trace_count *counts;
		size_t nr_counts;
	} events[NR_TRACE_EVENTS];
	const char *reason;
};

/* Sets @trace up; without access, the reason and nothing else. */
void trace_start(struct trace *trace);
void trace_stop(struct trace *trace);

/* Reads the counts. */
void trace_update(struct trace *trace);
uint64_t trace_count(const struct trace *trace, enum trace_event event, uint64_t inode);

#endif /* TRACE_H */
