// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * rmvm's set of shared pages (vmm/window.c) against an array that says of each page
 * whether it is in there.
 */
#include <stdlib.h>
#include <string.h>

#include "../../../vmm/rmvm.h"
#undef PAGE
#include "machine.h"

#define NR_PAGES	64
#define TIMES		20000

static bool model[NR_PAGES];

static struct range random_range(void)
{
	u64 start = rand() % NR_PAGES, end = start + 1 + rand() % (NR_PAGES - start);

	return (struct range){ start * PAGE, (end - start) * PAGE };
}

/* Sorted ranges that do not touch, and just the model's pages */
static bool is_model(const struct vm *vm)
{
	bool pages[NR_PAGES] = { 0 };
	unsigned int i;
	u64 page;

	for (i = 0; i < vm->nr_shared; i++) {
		const struct range *range = &vm->shared[i];

		if (!range->size || (i && range->gpa <= range[-1].gpa + range[-1].size))
			return false;
		for (page = range->gpa / PAGE; page < (range->gpa + range->size) / PAGE; page++)
			pages[page] = true;
	}
	return !memcmp(pages, model, sizeof(pages));
}

static bool finds_the_gap(const struct vm *vm, u64 gpa, u64 size)
{
	u64 start = gpa / PAGE, limit = (gpa + size) / PAGE, end;
	struct range gap;

	while (start < limit && model[start])
		start++;
	for (end = start; end < limit && !model[end]; end++)
		;
	if (shared_covers(vm, gpa, size) != (start == limit))
		return false;
	if (!shared_gap(vm, gpa, size, &gap))
		return start == limit;
	return gap.gpa == start * PAGE && gap.size == (end - start) * PAGE;
}

bool shared_is_a_set(void)
{
	struct vm vm = { 0 };
	unsigned int i;

	srand(1);
	for (i = 0; i < TIMES; i++) {
		struct range range = random_range(), look = random_range();
		bool add = rand() % 2;

		if (shared_reserve(&vm))
			return false;
		(add ? shared_add : shared_remove)(&vm, range.gpa, range.size);
		memset(model + range.gpa / PAGE, add, range.size / PAGE);
		if (!is_model(&vm) || !finds_the_gap(&vm, look.gpa, look.size))
			return false;
	}
	free(vm.shared);
	return true;
}
