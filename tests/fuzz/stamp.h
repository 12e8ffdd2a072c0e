/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * What is written into pages: a word that says which page it belongs to, who wrote
 * it, and whether anybody outside may see it.
 *
 *   63..56 magic   55..48 STAMP_* bits   47..44 family   43..40 which word
 *   39..24 page    23..8  sequence       7..0   counter
 */
#ifndef STAMP_H
#define STAMP_H

#include "fuzz.h"

#define STAMP_MAGIC	0xa5ULL

#define STAMP_SECRET	1	/* of a page that is never shared */
#define STAMP_USER	2	/* of a slot's user half, by the host */
#define STAMP_SLOT	4	/* of the family's second slot */
#define STAMP_FILE	8	/* of a memory, by a consumer or through a window */
#define STAMP_GUEST	16	/* by a guest, which does not know where it goes */

/* What has to be as it is, whoever wrote it */
#define STAMP_IDENTITY	0xff00ffffffffff00ULL

static const unsigned int stamp_words[WORDS] = { 0, 1, 255, 511 };

static inline uint64_t stamp_base(unsigned int family, unsigned int word)
{
	return STAMP_MAGIC << 56 | (uint64_t)family << 44 | (uint64_t)word << 40 |
	       (current->seed & 0xffff) << 8;
}

static inline uint64_t stamp_of(unsigned int family, unsigned int word, uint32_t page,
				unsigned int flags, unsigned int counter)
{
	return stamp_base(family, word) | (uint64_t)flags << 48 |
	       (uint64_t)(page & 0xffff) << 24 | (counter & 0xff);
}

static inline unsigned int stamp_flags(uint64_t stamp)
{
	return stamp >> 48 & 0xff;
}

/*
 * Are these words of a page that a reader may see? @flags: those that must not be
 * there. Return: what is wrong, or NULL.
 */
static inline const char *stamp_check(const struct result *result, unsigned int family,
				      uint32_t page, unsigned int flags)
{
	if (result->dirt)
		return text_of("page %u of family %u has what nobody wrote", page, family);
	for (unsigned int i = 0; i < WORDS; i++) {
		uint64_t word = result->words[i];

		if (!word)
			continue;
		if ((word ^ stamp_of(family, i, page, 0, 0)) & STAMP_IDENTITY)
			return text_of("page %u of family %u has %#llx, which is not its own",
				       page, family, (unsigned long long)word);
		if (stamp_flags(word) & flags)
			return text_of("page %u of family %u has %#llx, not to be seen here",
				       page, family, (unsigned long long)word);
	}
	return NULL;
}

#endif /* STAMP_H */
