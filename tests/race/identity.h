/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * What every word of the matrix's memory says: who wrote it, into which world,
 * for which page, in which generation. A reader, guest or host, knows which page
 * it reads, and so sees a page that is not the one.
 *
 * A word is zero or made of bytes that are not zero, since the kernel may copy it
 * byte by byte under a reader's eyes: a byte is then the right one or zero, and one
 * that is neither is a stranger's.
 */
#ifndef IDENTITY_H
#define IDENTITY_H

#include <stdbool.h>
#include <stdint.h>

/* Who wrote it */
#define BY_GUEST	0x11ULL
#define BY_HOST		0x22ULL		/* into what it may see */
#define SECRET		0x44ULL		/* into private memory, for nobody else's eyes */
#define STRANGER	0x88ULL		/* into memory that has nothing to do with it */

#define KIND(_word)	((_word) >> 56)

/* Words of a page that are in use; each writer has some of its own. */
#define WORDS		512
#define GUEST_WORDS	0		/* a guest writes, by itself */
#define EMULATED_WORDS	64		/* or KVM for it */
#define SCRATCH_WORDS	128		/* anybody, anything but a secret */
#define HOST_WORDS	192		/* the host, in what is shared */
#define SECRET_WORDS	256		/* a consumer, in what is private */
#define IN_USE		8		/* of each */

static inline __attribute__((always_inline)) uint64_t
identity(uint64_t kind, uint64_t world, uint64_t page, uint64_t generation)
{
	/* Bytes of the page's number, none of them zero */
	uint64_t bytes = ((page >> 6 & 0x3f) + 0x40) << 8 | ((page & 0x3f) + 0x40);

	return kind << 56 | world << 48 | bytes << 32 | (uint32_t)generation;
}

/* Can a word of a page say that? @world is not zero. */
static inline __attribute__((always_inline)) bool
is_legal(uint64_t word, uint64_t world, uint64_t page)
{
	const uint64_t right = identity(0, world, page, 0);
	uint64_t kind = KIND(word);

	if (kind && kind != BY_GUEST && kind != BY_HOST && kind != SECRET)
		return false;
	for (int shift = 32; shift < 56; shift += 8) {
		uint64_t byte = word >> shift & 0xff;

		if (byte && byte != (right >> shift & 0xff))
			return false;
	}
	return true;
}

/* Numbers that look random, from a seed: the same in a guest and on the host. */
static inline __attribute__((always_inline)) uint32_t next_random(uint64_t *seed)
{
	*seed = *seed * 6364136223846793005ULL + 1442695040888963407ULL;
	return *seed >> 33;
}

#endif /* IDENTITY_H */
