/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * The secret that the guest keeps in its RAM, and that the host then looks for.
 * Both compute it from a number on the guest's command line, so that the
 * secret itself is nowhere but where it was computed.
 */
#ifndef SECRET_H
#define SECRET_H

#include <stddef.h>

#define SECRET_LEN	48

/* 48 letters and digits, from the steps of a linear congruential generator */
static inline void secret_make(unsigned long long seed, char *out)
{
	static const char alphabet[32] = {
		'A', 'B', 'C', 'D', 'E', 'F', 'G', 'H', 'J', 'K', 'L', 'M', 'N', 'P', 'Q', 'R',
		'S', 'T', 'U', 'V', 'W', 'X', 'Y', 'Z', '2', '3', '4', '5', '6', '7', '8', '9',
	};
	size_t i;

	for (i = 0; i < SECRET_LEN; i++) {
		seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
		out[i] = alphabet[seed >> 59];
	}
}

#endif /* SECRET_H */
