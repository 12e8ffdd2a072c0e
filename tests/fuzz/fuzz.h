/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * The fuzzer: what all of its files need.
 *
 * A sequence is a short list of calls. A call is the number of an operation, the
 * thread that makes it, and a few numbers, which mean what the operation's table
 * says: that table is all there is to add for a new one. Objects are named by
 * number, and descriptors by number, too: file 3 is descriptor FILE_FD + 3 for
 * ever, open or not. So any part of a sequence is a sequence.
 *
 * Files, windows, mappings, bindings and slots belong to a family: family F has
 * two of each, 2F and 2F + 1, but for bindings, 3F to 3F + 2. Calls stay within a
 * family, and page N of a memory is page N of a mapping and of a slot. So a page
 * says whose it is (see stamp.h), whatever was reached on the way to it.
 *
 * The last thread is a process of its own, the peer.
 *
 * Ranges are pages, [start, start + count).
 */
#ifndef FUZZ_H
#define FUZZ_H

#include <stddef.h>

#include "util.h"

#define FAMILIES	3
#define FILES		(2 * FAMILIES)
#define WINDOWS		(2 * FAMILIES)
#define MAPS		(2 * FAMILIES)
#define SLOTS		(2 * FAMILIES)
#define CONSUMERS	(2 * FAMILIES)
#define BINDINGS	(3 * FAMILIES)

#define FILE_FD		100
#define WINDOW_FD	120
#define CONSUMER_FD	140

#define SMALL_PAGES	32	/* the most that a small memory has */
#define MAX_PAGES	1040	/* and any other */
#define WORDS		4	/* that are ever written in a page */

#define THREADS		4
#define PEER		(THREADS - 1)
#define MAX_CALLS	256
#define MAX_ARGS	6
#define MAX_OPS		64

/* What a family's memory is made of */
enum kind { KIND_SMALL, KIND_THP, KIND_POOL, KINDS };

struct call {
	uint8_t op;
	uint8_t thread;
	uint32_t arg[MAX_ARGS];
};

/**
 * struct sequence - calls that begin with nothing, and what they need
 * @seed: what it was made from
 * @concurrent: by all threads at once; else by the first, one after the other
 * @kind: of each family's memory
 * @count: of calls
 * @calls: the calls
 */
struct sequence {
	uint64_t seed;
	bool concurrent;
	uint8_t kind[FAMILIES];
	uint32_t count;
	struct call calls[MAX_CALLS];
};

/* Beside errnos: how an access can end */
#define GOT_SIGNAL	1000	/* SIGBUS or SIGSEGV */
#define GOT_EXIT	2000	/* + KVM_EXIT_* */
#define NOT_DONE	3000	/* not possible here, and so not done */

/* What a call brought. */
struct result {
	int error;		/* 0, an errno, or one of these */
	int signal;
	uint64_t done;		/* how far it got */
	uint64_t words[WORDS];
	bool dirt;		/* a word that nobody ever writes is not 0 */
};

/* How a number is chosen, and what it is */
enum param_kind {
	PARAM_NONE,
	PARAM_FILE,
	PARAM_WINDOW,
	PARAM_MAP,
	PARAM_SLOT,
	PARAM_CONSUMER,
	PARAM_BINDING,
	PARAM_START,
	PARAM_COUNT,
	PARAM_LENGTH,		/* pages of a new memory */
	PARAM_STORE,
	PARAM_WORD,
	PARAM_SKEW,		/* bytes off a page, mostly 0 */
	PARAM_NUMBER,		/* up to @max, which includes some that are wrong */
};

struct param {
	const char *name;
	enum param_kind kind;
	uint32_t max;
};

/**
 * struct op - one kind of call
 * @name: in traces
 * @weight: how often, of sequential and of concurrent calls
 * @only: the one thread that makes it, + 1; 0: any
 * @shares: its range may be made visible for others, so it has no secrets
 * @params: its numbers
 * @execute: makes the call
 * @check: sequential: compares with the model, and brings that up to date;
 *	returns what is wrong, or NULL
 * @errors: concurrent: what there may be beside 0, ended by 0; NULL: anything
 * @look: concurrent: looks at what was read; as @check
 */
struct op {
	const char *name;
	unsigned int weight[2];
	unsigned int only;
	bool shares;
	struct param params[MAX_ARGS];
	void (*execute)(const struct call *call, struct result *result);
	const char *(*check)(const struct call *call, const struct result *result);
	const int *errors;
	const char *(*look)(const struct call *call, const struct result *result);
};

/* Made by the files with calls; each ends with an op without a name. */
extern const struct op file_ops[], window_ops[], consumer_ops[], vm_ops[];

extern const struct op *ops[];
extern unsigned int nr_ops, first_vm_op;
void ops_init(void);
void leave_out(const char *name);
const struct op *op_find(const char *name, uint8_t *number);

/* random.c */
uint64_t random_next(uint64_t *state);
uint64_t random_below(uint64_t *state, uint64_t limit);
void sequence_generate(struct sequence *s, uint64_t seed, bool concurrent,
		       unsigned int calls, bool has_vm);

/* trace.c */
void trace_call(FILE *file, const struct sequence *s, const struct call *call);
void trace_write(FILE *file, const struct sequence *s, const char *why);
int trace_read(const char *path, struct sequence *s);

/* run.c */
void runner_start(void);
void runner_stop(void);
bool sequence_run(const struct sequence *s);

/* kernel_log.c */
void kernel_log_begin(void);
const char *kernel_log_complaint(void);

/* minimise.c */
void sequence_minimise(struct sequence *s, const char *why, double seconds);

/* The process's own: which sequence it is in, and who it is. */
extern const struct sequence *current;
extern __thread unsigned int this_thread;
bool is_peer(void);

/**
 * struct shared - what all processes share
 * @calls: that were made
 * @sequences: that are done
 * @findings: of them, those that found something
 * @ended: the worker is through
 * @made: of each op, calls that brought an error, and that did not
 * @doing: which call each thread is in, + 1
 * @failed: something is wrong
 * @why: what
 * @sequence: the current one
 */
struct shared {
	volatile uint64_t calls;
	volatile uint64_t sequences;
	volatile uint64_t findings;
	volatile bool ended;
	uint64_t made[MAX_OPS][2];
	volatile uint32_t doing[THREADS];
	volatile bool failed;
	char why[512];
	struct sequence sequence;
};

extern struct shared *shared;

/* Says that something is wrong; the first one counts. */
void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* A text that lives until the thread's next one. */
const char *text_of(const char *format, ...) __attribute__((format(printf, 1, 2)));

static inline unsigned int family_of(unsigned int number)
{
	return number / 2;
}

/* A call came back with @r, and, if that is -1, with errno. */
static inline void set_error(struct result *result, long r)
{
	result->error = r < 0 ? errno : 0;
}

/* How many of @count pages from @start on there can be. */
static inline uint32_t clip(uint32_t start, uint32_t count)
{
	return count > MAX_PAGES - start ? MAX_PAGES - start : count;
}

/* Pages from here on are never shared; a window never shows them. */
static inline uint32_t secret_start(unsigned int family)
{
	return current->kind[family] == KIND_SMALL ? 24 : 960;
}

/* calls_*.c: before the first call of a process, and after the last of each sequence */
void files_init(void);
void files_reset(void);
void windows_init(void);
void windows_reset(void);
void consumers_init(void);
void consumers_reset(void);
void vm_init(void);
bool vm_is_there(void);
void vm_reset(void);
const char *files_audit(void);

#endif /* FUZZ_H */
