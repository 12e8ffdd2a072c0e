// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * What befalls a host: memory errors, pages that are to go elsewhere, memory that
 * is short, modules that somebody wants to unload.
 */
#include "race.h"
#include "hostile.h"
#include "poison.h"

/* Each error costs the machine a page. */
#define MAX_ERRORS	8

static uint64_t pick_pfn(struct player *p, uint64_t *page)
{
	struct world *w = p->world;

	*page = pick_page(p, 0, GUEST_PAGES);
	*page += *page == TABLE_PAGE;
	return get_pfn(w->consumer, w->ids[*page / PAGES], *page % PAGES);
}

static void error_begin(struct player *p)
{
	CHECK(!hwpoison_init());
	p->data = NULL;
}

static void error_step(struct player *p)
{
	struct world *w = p->world;
	uintptr_t errors = (uintptr_t)p->data;
	uint64_t page, pfn;

	sleep_ms(5);
	if (errors++ >= MAX_ERRORS)
		return;
	p->data = (void *)errors;
	pfn = pick_pfn(p, &page);
	if (page >= IN_PLACE && roll(p) % 2)
		madvise(shared_page(w, page), PAGE, MADV_HWPOISON);
	else if (pfn)
		poison_pfn(pfn);
	sleep_ms(5);
	if (roll(p) % 2)
		punch(w->fds[page / PAGES], page % PAGES * PAGE, PAGE);
}

const struct actor actor_error = {
	.name = "error",
	.needs = NEEDS_SMALL,
	.does = MAKES_ERRORS,
	.begin = error_begin,
	.step = error_step,
};

static void offline_step(struct player *p)
{
	uint64_t page, pfn = pick_pfn(p, &page);

	if (pfn)
		soft_offline(pfn);
	sleep_ms(2);
}

const struct actor actor_offline = {
	.name = "offline",
	.needs = NEEDS_SMALL,
	/* What a discard frees at that very moment may be the page that goes. */
	.does = MAKES_ERRORS,
	.step = offline_step,
};

static void reclaim_step(struct player *p)
{
	struct world *w = p->world;

	switch (roll(p) % 4) {
	case 0:
		compact();
		break;
	case 1:
		drop_caches();
		break;
	case 2:
		madvise(w->user, SIZE, MADV_COLD);
		madvise(w->map, SIZE, MADV_PAGEOUT);
		break;
	default:
		madvise(w->user, SIZE, MADV_COLLAPSE);
	}
	sleep_ms(1);
}

const struct actor actor_reclaim = {
	.name = "reclaim",
	.step = reclaim_step,
};

static void unload_step(struct player *p)
{
	static const char *const modules[] = {
		"restrictedmem", "restrictedmem_test", "kvm", "kvm_amd",
	};
	const char *name = modules[roll(p) % ARRAY_SIZE(modules)];

	if (!unload_module(name) || errno != EAGAIN)
		fail(p->world, "unloading %s in use: %m", name);
}

const struct actor actor_unload = {
	.name = "unload",
	.step = unload_step,
};
