/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * The matrix: actors, two of which act upon one world at the same time.
 *
 * A world has a VM with two slots behind each other: a split one, whose shared
 * half is the user's, and one in place, with a window. A consumer is bound to
 * second views of both, and reads and writes what no process may. Beside it there is
 * memory in place without a VM ("loose"), whose views come and go.
 *
 * Pages are numbered through all of it: split, in place, loose.
 */
#ifndef RACE_H
#define RACE_H

#include <pthread.h>
#include <sys/uio.h>

#include "consumer.h"
#include "hugetlb.h"
#include "identity.h"
#include "kvm_util.h"
#include "window.h"

#define SIZE		(2 * HUGE)		/* of each memory */
#define PAGES		(SIZE / PAGE)
#define SPLIT		0ULL			/* first pages */
#define IN_PLACE	PAGES
#define LOOSE		(2 * PAGES)
#define GUEST_PAGES	(2 * PAGES)
#define SPLIT_SLOT	1
#define IN_PLACE_SLOT	2

/*
 * A page table of the guest's is in the first memory, the same in both halves,
 * and nobody discards it. Through it the guest sees pages at WINDOW, too.
 */
#define TABLE_PAGE	(HUGE_PAGES - 1)
#define WINDOW		(2 * GIB)

/* Pages in place that can hold secrets: only who keeps them shares these. */
#define HOLDS_SECRET(_page)	((_page) % 4 == 0)

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE	25
#endif
#ifndef ARRAY_SIZE
#define ARRAY_SIZE(_a)	(sizeof(_a) / sizeof((_a)[0]))
#endif

struct store {
	const char *name;
	uint32_t store;
	uint32_t thp;
	uint64_t granule;	/* of fallocate(2) */
};

struct actor;

/* One of the two that act, or one that only looks */
struct player {
	const struct actor *actor;
	struct world *world;
	pthread_t thread;
	struct vcpu vcpu;
	uint64_t seed;
	uint64_t steps;
	void *data;
	int nr;			/* which of the two */
};

struct world {
	const struct store *store;
	uint64_t id;		/* never zero */
	uint64_t generation;
	struct vm vm;
	struct vcpu looker;	/* for what is done when nobody acts */
	int consumer;
	int fds[2];		/* split and in place */
	int views[2];		/* the consumer's */
	int ids[2];
	char *user;		/* the shared half of the split slot */
	bool huge_user;
	int window;
	char *map;		/* of the memory in place */
	pthread_rwlock_t loose_lock;	/* of the numbers that follow */
	int loose;
	int loose_window;
	char *loose_map;
	struct player players[2];
	struct player bystander;	/* a guest that reads and writes */
	int nr_vcpus;
	unsigned int tolerates;	/* what the actors do to each other */
	bool stop;
	bool failed;
	uint64_t steps;
};

/* What an actor does that others have to live with */
#define TAKES_SLOTS	(1U << 0)
#define MAKES_ERRORS	(1U << 1)

/* What an actor needs of the machine */
#define NEEDS_SMALL	(1U << 0)	/* not the system's pool */
#define NEEDS_SHADOW	(1U << 1)	/* no TDP MMU */

/**
 * struct actor - what can be done
 * @name: on the command line
 * @needs: NEEDS_*
 * @does: what others have to live with
 * @guest: what its vCPU runs, if it has one; started with first page, pages,
 *	world; see actors_guest.c
 * @has_vcpu: it has one that it uses by itself
 * @begin: before each round; may be NULL
 * @step: again and again
 * @end: after each round, in its own thread; may be NULL
 */
struct actor {
	const char *name;
	unsigned int needs;
	unsigned int does;
	void *guest;
	bool has_vcpu;
	void (*begin)(struct player *p);
	void (*step)(struct player *p);
	void (*end)(struct player *p);
};

extern const struct actor actor_fault, actor_emulated, actor_walk, actor_prefetch;
extern const struct actor actor_prefault, actor_attributes, actor_slots, actor_vm_end;
extern const struct actor actor_conversion, actor_punch, actor_populate, actor_close;
extern const struct actor actor_bind, actor_limit;
extern const struct actor actor_window, actor_unmap, actor_fork, actor_splice, actor_direct;
extern const struct actor actor_error, actor_offline, actor_reclaim, actor_unload;

/* race.c */
void fail(struct world *w, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/* world.c */
extern const struct store stores[];
void world_make(struct world *w, const struct store *store, uint64_t id);
void world_settle(struct world *w, bool whole);
void world_end(struct world *w);
void world_add_slot(struct world *w, struct vm *vm, int slot, const int *fds);
int world_convert(struct world *w, uint64_t page, uint64_t pages, bool private);
int world_set_attributes(struct world *w, uint64_t page, uint64_t pages,
			 bool private);
int loose_make(int *fd, int *window, const struct store *store);
void check_shared(struct player *p, uint64_t page, const void *at);
void check_sink(struct player *p, uint64_t page, const uint64_t *words);

/* access.c */
void catch_any_sigbus(void);
int look_at(const void *p, uint64_t *value);
int write_at(void *p, uint64_t value);

/* actors_guest.c */
void vcpu_step(struct player *p);
void guest_scan(struct world *w, uint64_t kinds);

/* places.c */
int places_load(const char *path);
void places_add(int fd, const char *a, const char *b, uint64_t seed);
uint64_t places_waits(int fd);
const char *places_text(void);

/* watch.c */
void log_mark(const char *text);
void log_open(void);
int log_bad(void);
void dump_stacks(pid_t pid);

static inline bool stopped(struct world *w)
{
	return __atomic_load_n(&w->stop, __ATOMIC_RELAXED);
}

static inline uint32_t roll(struct player *p)
{
	return next_random(&p->seed);
}

/* A page of one of @memories; most of the time one of a few. */
static inline uint64_t pick_page(struct player *p, uint64_t first, uint64_t pages)
{
	uint64_t page = roll(p) % pages;

	return first + (roll(p) % 2 ? page : page % 12 + page / PAGES * PAGES);
}

static inline bool is_pool(struct world *w)
{
	return w->store->granule != PAGE;
}

/* Where a page of shared memory is to be seen on the host */
static inline char *shared_page(struct world *w, uint64_t page)
{
	if (page < IN_PLACE)
		return w->user + page * PAGE;
	if (page < LOOSE)
		return w->map + (page - IN_PLACE) * PAGE;
	return w->loose_map + (page - LOOSE) * PAGE;
}

#endif /* RACE_H */
