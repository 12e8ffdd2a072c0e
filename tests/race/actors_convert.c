// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * Who changes what is private: by KVM's attributes, and by the memory itself.
 *
 * One of them keeps secrets: it makes a page private, has a secret put there, looks
 * at it, and shares the page again, with zeros. Nobody else shares such a page, or
 * what is put there would be put there for all.
 */
#include "race.h"

/* Where one of them acts, and how */
struct converter {
	uint64_t first;		/* pages that it can choose from */
	uint64_t pages;
	int (*convert)(struct world *w, uint64_t page, uint64_t pages, bool private);
};

static bool converts(const struct player *p)
{
	return p->actor == &actor_attributes || p->actor == &actor_conversion;
}

static bool keeps_secrets(const struct player *p)
{
	return p->nr == 0 || !converts(&p->world->players[0]);
}

static bool is_explained(struct world *w)
{
	return errno == EAGAIN ||
	       (errno == EHWPOISON && w->tolerates & MAKES_ERRORS);
}

static int try(struct player *p, const struct converter *c, uint64_t page,
	       uint64_t pages, bool private)
{
	int r = c->convert(p->world, page, pages, private);

	if (r && !is_explained(p->world))
		fail(p->world, "%s of %lu pages from %lu to %s: %m", p->actor->name,
		     (unsigned long)pages, (unsigned long)page,
		     private ? "private" : "shared");
	return r;
}

/* Nobody has written there but who keeps the secret, or has discarded it. */
static void check_secrets(struct player *p, uint64_t page)
{
	struct world *w = p->world;
	uint64_t words[IN_USE];

	if (read_data(w->consumer, w->ids[1], (page - IN_PLACE) * PAGE +
		      SECRET_WORDS * 8, words, sizeof(words))) {
		if (!is_explained(w))
			fail(w, "the consumer cannot read page %lu: %m",
			     (unsigned long)page);
		return;
	}
	for (int i = 0; i < IN_USE; i++)
		if (words[i] && (KIND(words[i]) != SECRET ||
				 !is_legal(words[i], w->id, page)))
			fail(w, "somebody has written to page %lu, which is private: %#lx",
			     (unsigned long)page, (unsigned long)words[i]);
}

static void keep_secret(struct player *p, const struct converter *c)
{
	uint64_t page = IN_PLACE + pick_page(p, 0, PAGES) / 4 * 4;
	struct world *w = p->world;
	uint64_t words[IN_USE], value;

	if (try(p, c, page, 1, true))
		return;
	if (!look_at(shared_page(w, page), &value))
		fail(w, "page %lu is private, and can be read", (unsigned long)page);
	for (int i = 0; i < IN_USE; i++)
		words[i] = identity(SECRET, w->id, page, p->steps);
	if (write_data(w->consumer, w->ids[1], (page - IN_PLACE) * PAGE +
		       SECRET_WORDS * 8, words, sizeof(words)) && !is_explained(w))
		fail(w, "the consumer cannot write to page %lu: %m",
		     (unsigned long)page);
	if (roll(p) % 4 == 0)
		sleep_ms(1);
	check_secrets(p, page);
	try(p, c, page, 1, false);
}

/* One page, some, or all of a huge one */
static void convert_range(struct player *p, const struct converter *c)
{
	uint64_t page = pick_page(p, c->first, c->pages), pages;
	bool private = roll(p) % 2;

	switch (roll(p) % 4) {
	case 0:
		pages = 1;
		break;
	case 1:
		pages = 1 + roll(p) % 20;
		break;
	default:
		page = page / HUGE_PAGES * HUGE_PAGES;
		pages = HUGE_PAGES;
	}
	if (pages > c->first + c->pages - page)
		pages = c->first + c->pages - page;
	if (!private && !keeps_secrets(p) && page + pages > IN_PLACE) {
		page += HOLDS_SECRET(page);
		pages = 1 + roll(p) % (4 - page % 4);
	}
	try(p, c, page, pages, private);
}

static void step(struct player *p, struct converter *c)
{
	if (keeps_secrets(p) && roll(p) % 3 == 0)
		keep_secret(p, c);
	else
		convert_range(p, c);
}

static void attributes_step(struct player *p)
{
	struct converter c = { 0, GUEST_PAGES, world_set_attributes };

	/* All of a range of the first memory, back and forth, is what strains KVM. */
	if (roll(p) % 2)
		c.pages = IN_PLACE;
	step(p, &c);
}

static void conversion_step(struct player *p)
{
	struct converter c = { IN_PLACE, 2 * PAGES, world_convert };

	if (roll(p) % 2)
		c.pages = PAGES;
	step(p, &c);
}

const struct actor actor_attributes = {
	.name = "attributes",
	.step = attributes_step,
};

const struct actor actor_conversion = {
	.name = "conversion",
	.step = conversion_step,
};
