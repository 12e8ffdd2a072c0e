/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * The words of a page, by an access that may end in a signal, and out of a copy.
 */
#ifndef ACCESS_H
#define ACCESS_H

#include "stamp.h"
#include "window.h"

/* Catches SIGBUS and SIGSEGV for access_*(). */
static inline void access_init(void)
{
	struct sigaction action;

	catch_sigbus();
	sigaction(SIGBUS, NULL, &action);
	sigaction(SIGSEGV, &action, NULL);
}

static inline void access_failed(struct result *result)
{
	result->error = GOT_SIGNAL;
}

static inline void access_read(const char *page, struct result *result)
{
	for (int i = 0; i < WORDS; i++)
		if (peek((const uint64_t *)page + stamp_words[i], &result->words[i]))
			access_failed(result);
}

static inline void access_write(char *page, unsigned int word, uint64_t value,
				struct result *result)
{
	if (poke((uint64_t *)page + stamp_words[word], value))
		access_failed(result);
}

/* All of a page */
static inline void words_of(const uint64_t *page, struct result *result)
{
	unsigned int next = 0;

	for (unsigned int i = 0; i < PAGE / 8; i++) {
		if (next < WORDS && i == stamp_words[next])
			result->words[next++] = page[i];
		else
			result->dirt |= !!page[i];
	}
}

#endif /* ACCESS_H */
