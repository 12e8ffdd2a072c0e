// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * Which pages of RAM the guest shares, and what other processes may map of them.
 * With in-place memory they map them through windows: descriptors for one range
 * each, which give access for as long as the range is shared, and end when they
 * are revoked. With a memfd all of RAM is shared.
 *
 * vm->shared is the set of shared pages, as ranges [gpa, gpa + size) that are
 * sorted and do not touch. vm->mem_lock guards it.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <restrictedmem.h>

#include "rmvm.h"

static u64 end_of(const struct range *range)
{
	return range->gpa + range->size;
}

/*
 * Makes room for one more range, which is what one shared_add() or
 * shared_remove() may need: neither of them fails.
 */
int shared_reserve(struct vm *vm)
{
	unsigned int max = 2 * vm->nr_shared + 8;
	struct range *to;

	if (vm->nr_shared < vm->max_shared)
		return 0;
	to = realloc(vm->shared, max * sizeof(*to));
	if (!to)
		return fail("out of memory");
	vm->shared = to;
	vm->max_shared = max;
	return 0;
}

/* Puts the ranges [first, last) away, and up to two in their place. */
static void replace(struct vm *vm, unsigned int first, unsigned int last, const struct range *new,
		    unsigned int nr_new)
{
	struct range *at = vm->shared + first;

	memmove(at + nr_new, vm->shared + last, (vm->nr_shared - last) * sizeof(*at));
	memcpy(at, new, nr_new * sizeof(*at));
	vm->nr_shared = vm->nr_shared - (last - first) + nr_new;
}

void shared_add(struct vm *vm, u64 gpa, u64 size)
{
	struct range new = { gpa, size };
	unsigned int first = 0, last;
	u64 end = gpa + size;

	while (first < vm->nr_shared && end_of(&vm->shared[first]) < gpa)
		first++;
	for (last = first; last < vm->nr_shared && vm->shared[last].gpa <= end; last++) {
		if (vm->shared[last].gpa < new.gpa)
			new.gpa = vm->shared[last].gpa;
		if (end_of(&vm->shared[last]) > end)
			end = end_of(&vm->shared[last]);
	}
	new.size = end - new.gpa;
	replace(vm, first, last, &new, 1);
}

void shared_remove(struct vm *vm, u64 gpa, u64 size)
{
	unsigned int first = 0, last, nr = 0;
	u64 end = gpa + size;
	struct range rest[2] = { 0 };

	while (first < vm->nr_shared && end_of(&vm->shared[first]) <= gpa)
		first++;
	for (last = first; last < vm->nr_shared && vm->shared[last].gpa < end; last++) {
		const struct range *range = &vm->shared[last];

		if (range->gpa < gpa)
			rest[nr++] = (struct range){ range->gpa, gpa - range->gpa };
		if (end_of(range) > end)
			rest[nr++] = (struct range){ end, end_of(range) - end };
	}
	replace(vm, first, last, rest, nr);
}

/* Finds the first part of [gpa, gpa + size) that is not shared. */
bool shared_gap(const struct vm *vm, u64 gpa, u64 size, struct range *gap)
{
	u64 end = gpa + size;
	unsigned int i = 0;

	while (i < vm->nr_shared && end_of(&vm->shared[i]) <= gpa)
		i++;
	/* No two ranges touch: behind one of them there is a gap. */
	if (i < vm->nr_shared && vm->shared[i].gpa <= gpa)
		gpa = end_of(&vm->shared[i++]);
	if (gpa >= end)
		return false;
	if (i < vm->nr_shared && vm->shared[i].gpa < end)
		end = vm->shared[i].gpa;
	*gap = (struct range){ gpa, end - gpa };
	return true;
}

/* What of [gpa, gpa + size) is shared: as many ranges as it says, to be freed, or NULL. */
struct range *shared_within(const struct vm *vm, u64 gpa, u64 size, unsigned int *nr)
{
	struct range *to = malloc((vm->nr_shared + 1) * sizeof(*to));
	unsigned int i;

	*nr = 0;
	for (i = 0; to && i < vm->nr_shared; i++) {
		const struct range *range = &vm->shared[i];
		u64 start = range->gpa > gpa ? range->gpa : gpa;
		u64 end = end_of(range) < gpa + size ? end_of(range) : gpa + size;

		if (start < end)
			to[(*nr)++] = (struct range){ start, end - start };
	}
	if (!to)
		fail("out of memory");
	return to;
}

bool shared_covers(const struct vm *vm, u64 gpa, u64 size)
{
	unsigned int i;

	for (i = 0; i < vm->nr_shared; i++) {
		const struct range *range = &vm->shared[i];

		if (gpa >= range->gpa && gpa < end_of(range))
			return size <= end_of(range) - gpa;
	}
	return false;
}

/* The range is within one part of RAM. */
int window_open(struct vm *vm, struct window *window, u64 gpa, u64 size)
{
	struct restrictedmem_window args = {
		.size = sizeof(args),
		.flags = RESTRICTEDMEM_WINDOW_WRITE,
		.offset = vm_offset(vm, gpa),
		.length = size,
	};

	*window = (struct window){ .gpa = gpa, .size = size };
	if (vm->in_place) {
		window->fd = ioctl(vm->mem_fd, RESTRICTEDMEM_WINDOW, &args);
	} else {
		window->offset = args.offset;
		window->fd = fcntl(vm->mem_fd, F_DUPFD_CLOEXEC, 0);
	}
	if (window->fd < 0)
		return fail_errno("no window for %#llx, %llu bytes", gpa, size);
	vm->counts.windows++;
	if (vm->opt->verbose)
		fprintf(stderr, "rmvm: window gpa %#llx size %#llx fd %d\n", gpa, size, window->fd);
	return 0;
}

/* Nobody who was given it has any access through it from now on. */
void window_close(struct vm *vm, struct window *window)
{
	struct restrictedmem_revoke args = { .size = sizeof(args), .fd = window->fd };

	if (vm->in_place && ioctl(vm->mem_fd, RESTRICTEDMEM_REVOKE, &args))
		fail_errno("RESTRICTEDMEM_REVOKE");
	close(window->fd);
	if (vm->opt->verbose)
		fprintf(stderr, "rmvm: no window gpa %#llx size %#llx\n", window->gpa,
			window->size);
}
