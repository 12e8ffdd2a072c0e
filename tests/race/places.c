// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * Where the kernel is to be slow: tests/race/places has functions for each actor,
 * and a seed chooses some of them for a round. See delay.h.
 */
#include "race.h"
#include "delay.h"

#define MAX_LINES	256
#define MAX_CHOSEN	3

struct place {
	char actor[16];
	char symbol[RMD_NAME_LEN];
	bool there;
};

static struct place places[MAX_LINES];
static int nr_places;

/* What places_add() has chosen, for a report */
static char chosen_text[512];
static int nr_chosen;

static int by_symbol(const void *a, const void *b)
{
	const struct place *const *x = a, *const *y = b;

	return strcmp((*x)->symbol, (*y)->symbol);
}

static void read_places(const char *path)
{
	FILE *file = fopen(path, "re");
	char line[256];

	CHECK(file);
	while (fgets(line, sizeof(line), file)) {
		struct place *place = &places[nr_places];

		if (line[0] == '#' || line[0] == '\n')
			continue;
		CHECK(nr_places < MAX_LINES);
		CHECK(sscanf(line, "%15s %63s", place->actor, place->symbol) == 2);
		nr_places++;
	}
	fclose(file);
}

/* Mark what a line of /proc/kallsyms is about. */
static void find_symbol(struct place **sorted, const char *line)
{
	char name[128], module[64] = "";
	struct place key, *wanted = &key, **found;

	if (sscanf(line, "%*s %*[tTwW] %127s [%63[^]]]", name, module) < 1)
		return;
	if (snprintf(key.symbol, sizeof(key.symbol), "%s%s%s", module,
		     module[0] ? ":" : "", name) >= (int)sizeof(key.symbol))
		return;
	found = bsearch(&wanted, sorted, nr_places, sizeof(*sorted), by_symbol);
	if (!found)
		return;
	/* A function can be of several actors. */
	while (found > sorted && !by_symbol(found - 1, &wanted))
		found--;
	for (; found < sorted + nr_places && !by_symbol(found, &wanted); found++)
		(*found)->there = true;
}

/* Return: how many of the file's functions are not there. */
int places_load(const char *path)
{
	struct place *sorted[MAX_LINES];
	char line[256];
	int missing = 0;
	FILE *file;

	read_places(path);
	for (int i = 0; i < nr_places; i++)
		sorted[i] = &places[i];
	qsort(sorted, nr_places, sizeof(*sorted), by_symbol);
	file = fopen("/proc/kallsyms", "re");
	CHECK(file);
	while (fgets(line, sizeof(line), file))
		find_symbol(sorted, line);
	fclose(file);
	for (int i = 0; i < nr_places; i++) {
		if (places[i].there)
			continue;
		printf("# there is no function %s\n", places[i].symbol);
		missing++;
	}
	return missing;
}

static bool is_of(const struct place *place, const char *a, const char *b)
{
	return !strcmp(place->actor, a) || !strcmp(place->actor, b);
}

static void add_one(int fd, const struct place *place, uint64_t *seed)
{
	static const uint32_t usecs[] = { 30, 100, 300, 1000, 3000 };
	static const uint32_t percents[] = { 5, 20, 100 };
	uint32_t usec = usecs[next_random(seed) % ARRAY_SIZE(usecs)];
	uint32_t percent = percents[next_random(seed) % ARRAY_SIZE(percents)];
	uint32_t flags = next_random(seed) % 2 ? RMD_RETURN : 0;
	size_t len = strlen(chosen_text);

	delay_add_some(fd, place->symbol, usec, flags | RMD_RANDOM, percent,
		       next_random(seed));
	nr_chosen++;
	snprintf(chosen_text + len, sizeof(chosen_text) - len, " %s%s:%u:%u%%",
		 place->symbol, flags ? "()" : "", usec, percent);
}

/* Delays for a round of two actors */
void places_add(int fd, const char *a, const char *b, uint64_t seed)
{
	int of[MAX_LINES], nr = 0;

	for (int i = 0; i < nr_places; i++)
		if (is_of(&places[i], a, b))
			of[nr++] = i;
	chosen_text[0] = 0;
	nr_chosen = 0;
	for (int i = 1 + next_random(&seed) % MAX_CHOSEN; nr && i; i--)
		add_one(fd, &places[of[next_random(&seed) % nr]], &seed);
}

/* How often all of them have waited. */
uint64_t places_waits(int fd)
{
	uint64_t waits = 0;

	for (int i = 0; i < nr_chosen; i++)
		waits += delay_waits(fd, i);
	return waits;
}

const char *places_text(void)
{
	return chosen_text;
}
