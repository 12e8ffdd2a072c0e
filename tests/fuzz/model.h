/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * What sequential calls have to bring: a naive model of memories, views, windows,
 * mappings and bindings.
 *
 * Where the kernel is free to choose (huge pages that it may or may not have), the
 * model follows what it sees, and says so with @vague.
 */
#ifndef MODEL_H
#define MODEL_H

#include "stamp.h"

#define MEMORIES	40
#define VIEWS		64
#define MODEL_WINDOWS	256

/* An owner: a consumer is its number + 1, a VM VM_OWNER + how many there were */
#define VM_OWNER	1000

struct memory {
	bool used;
	bool pool;
	bool vague;		/* which of its pages are there is not known */
	bool maybe_held;	/* somebody may hold a page that is not known */
	uint32_t flags;		/* RESTRICTEDMEM_CREATE_* */
	uint32_t pages;		/* 0: no size yet */
	uint32_t resident_pages;
	uint32_t shared_pages;
	int views;
	int bindings;
	int windows;
	bool resident[MAX_PAGES];
	bool shared[MAX_PAGES];
	uint8_t held[MAX_PAGES];
	uint64_t words[MAX_PAGES][WORDS];
};

struct view {
	struct memory *memory;	/* NULL: unused */
	uint64_t owner;
	uint64_t claims;
	int fds;
	int bindings;
};

struct window {
	struct view *view;	/* NULL: unused, or revoked */
	struct memory *memory;	/* stays */
	uint32_t start;
	uint32_t end;
	int users;		/* descriptor and mapped pages */
	bool write;
};

struct bound {
	struct view *view;	/* NULL: none */
	uint64_t owner;
	uint32_t start;
	uint32_t end;
	bool in_vm;
	uint8_t held[MAX_PAGES];
};

struct mapped {
	struct window *window;	/* NULL: none */
	uint32_t page;		/* of the memory */
	uint32_t area;		/* which call mapped it */
	uint8_t prot;
};

struct model {
	struct memory memories[MEMORIES];
	struct view views[VIEWS];
	struct window windows[MODEL_WINDOWS];
	struct view *file[FILES];
	struct window *window[WINDOWS];
	struct bound bound[BINDINGS + SLOTS];	/* consumers', then slots' */
	struct mapped map[MAPS][MAX_PAGES];
	uint64_t charged;	/* pages */
	uint64_t limit;		/* pages, 0: none */
	uint64_t pool_free;	/* pages, neither used nor reserved */
	uint32_t areas;
};

extern struct model model;

void model_reset(void);
struct memory *memory_create(bool pool, bool huge, uint32_t flags);
int memory_set_size(struct memory *m, uint32_t pages);
int memory_touch(struct memory *m, uint32_t page);
void memory_discard(struct memory *m, uint32_t start, uint32_t end);
int memory_convert(struct memory *m, uint32_t start, uint32_t end, bool private, bool zero,
		   uint32_t *done);
void memory_apply_convert(struct memory *m, uint32_t start, uint32_t end, bool private,
			  bool zero);
bool memory_is_held(struct memory *m, uint32_t start, uint32_t end, uint32_t *where);
struct view *view_create(struct memory *m, uint64_t owner);
void view_put(struct view *v);
void file_set(unsigned int file, struct view *v);
struct window *model_window_create(struct view *v, uint32_t start, uint32_t end, bool write);
void model_window_put(struct window *w);
void model_window_set(unsigned int window, struct window *w);
int model_may_bind(struct view *v, uint32_t start, uint32_t count, uint64_t owner);
void model_bind(struct bound *b, struct view *v, uint32_t start, uint32_t count,
		uint64_t owner);
void model_unbind(struct bound *b, bool cancel);
void model_unmap(unsigned int map, uint32_t start, uint32_t count);

/* NULL if an error is what it has to be. */
const char *expect(const struct result *result, int error);
const char *expect_words(const struct result *result, const uint64_t *words,
			 unsigned int where, uint32_t page);

#endif /* MODEL_H */
