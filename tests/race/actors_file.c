// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * What is asked of the memory itself: to discard, to populate, to end, to be bound;
 * and of a limit that somebody runs into.
 */
#include "race.h"

/* Units of fallocate(2), without the guest's page table. */
static void pick_units(struct player *p, uint64_t *page, uint64_t *pages)
{
	uint64_t unit = p->world->store->granule / PAGE;

	*page = pick_page(p, 0, 3 * PAGES) / unit * unit;
	*pages = unit;
	if (unit == 1 && roll(p) % 4 == 0) {
		*page = *page / HUGE_PAGES * HUGE_PAGES;
		*pages = HUGE_PAGES;
	}
	if (*page <= TABLE_PAGE && TABLE_PAGE < *page + *pages) {
		*page = unit == 1 ? 0 : HUGE_PAGES;
		*pages = unit == 1 ? TABLE_PAGE : HUGE_PAGES;
	}
}

static void allocate(struct player *p, int mode)
{
	struct world *w = p->world;
	uint64_t page, pages;
	int r;

	pick_units(p, &page, &pages);
	if (page < LOOSE) {
		r = fallocate(w->fds[page / PAGES], mode, page % PAGES * PAGE,
			      pages * PAGE);
	} else {
		pthread_rwlock_rdlock(&w->loose_lock);
		r = fallocate(w->loose, mode, page % PAGES * PAGE, pages * PAGE);
		pthread_rwlock_unlock(&w->loose_lock);
	}
	if (r && !(errno == EHWPOISON && w->tolerates & MAKES_ERRORS) &&
	    !(errno == ENOSPC && is_pool(w) && page >= LOOSE))
		fail(w, "%s of %lu pages from %lu: %m", p->actor->name,
		     (unsigned long)pages, (unsigned long)page);
}

static void punch_step(struct player *p)
{
	allocate(p, PUNCH);
	if (roll(p) % 4 == 0)
		sleep_ms(1);
}

const struct actor actor_punch = {
	.name = "punch",
	.step = punch_step,
};

static void populate_step(struct player *p)
{
	allocate(p, FALLOC_FL_KEEP_SIZE);
	if (roll(p) % 4 == 0)
		sleep_ms(1);
}

const struct actor actor_populate = {
	.name = "populate",
	.step = populate_step,
};

/* The last view goes, and its windows stay mapped until new ones come. */
static void close_step(struct player *p)
{
	struct world *w = p->world;
	int fd, window;

	pthread_rwlock_wrlock(&w->loose_lock);
	close(w->loose);
	if (roll(p) % 2)
		sleep_ms(1);
	if (loose_make(&fd, &window, w->store))
		fail(w, "new memory cannot be shared: %m");
	CHECK(mmap(w->loose_map, SIZE, PROT_READ | PROT_WRITE,
		   MAP_SHARED | MAP_FIXED, window, 0) == w->loose_map);
	close(w->loose_window);
	w->loose = fd;
	w->loose_window = window;
	pthread_rwlock_unlock(&w->loose_lock);
}

const struct actor actor_close = {
	.name = "close",
	.step = close_step,
};

/* Another consumer comes, looks at some pages, and goes. */
static void bind_step(struct player *p)
{
	struct world *w = p->world;
	int memory = roll(p) % 2, view = link_view(w->fds[memory]), id;
	int consumer = consumer_open();
	struct rmt_page got;

	CHECK(consumer >= 0 && view >= 0);
	id = bind_range(consumer, view, 0, PAGES);
	if (id < 0)
		fail(w, "to bind a second view: %m");
	for (int i = 0; id >= 0 && i < 8; i++) {
		uint64_t index = pick_page(p, 0, PAGES), value;
		int word = SECRET_WORDS + roll(p) % IN_USE;

		if (get_page(consumer, id, index, roll(p) % 2 ? RMT_GET_MAP : 0, &got))
			continue;
		if (memory * PAGES + index != TABLE_PAGE &&
		    !read_data(consumer, id, index * PAGE + word * 8, &value, 8) &&
		    !is_legal(value, w->id, memory * PAGES + index))
			fail(w, "a consumer reads what is not of page %lu: %#lx",
			     (unsigned long)(memory * PAGES + index),
			     (unsigned long)value);
	}
	if (violations(consumer))
		fail(w, "promises to a consumer were broken: %d",
		     violations(consumer));
	if (roll(p) % 2)
		unbind(consumer, id);
	close(view);
	close(consumer);
}

const struct actor actor_bind = {
	.name = "bind",
	.step = bind_step,
};

/* Somebody asks for more than there may be, and nobody else is to feel it. */
static void limit_begin(struct player *p)
{
	CHECK(!set_limit(resident_total() + 64 * MIB));
}

static void limit_step(struct player *p)
{
	const struct restrictedmem_create args = {
		.size = sizeof(args),
		.flags = RESTRICTEDMEM_CREATE_RESERVE,
		.length = 16 * GIB,
		.page_size = HUGE,
		.store = RESTRICTEDMEM_STORE_HUGETLB,
	};

	if (create_with(&args) >= 0 || errno != ENOSPC)
		fail(p->world, "to ask for more than the limit: %m");
}

static void limit_end(struct player *p)
{
	CHECK(!set_limit(0));
}

const struct actor actor_limit = {
	.name = "limit",
	.begin = limit_begin,
	.step = limit_step,
	.end = limit_end,
};
