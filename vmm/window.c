// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * What other processes may map of the guest's RAM. With in-place memory that is
 * what the guest shares, through windows: descriptors for one range each, which
 * give access for as long as the range is shared, and end when they are revoked.
 * With a memfd it is all of RAM.
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

/* Puts the ranges [first, last) away, and up to two in their place. */
static int replace(struct vm *vm, unsigned int first, unsigned int last, const struct range *new,
		   unsigned int nr_new)
{
	unsigned int tail = vm->nr_shared - last, nr = first + nr_new + tail;
	struct range *to = malloc((nr + 1) * sizeof(*to));

	if (!to)
		return fail("out of memory");
	memcpy(to, vm->shared, first * sizeof(*to));
	memcpy(to + first, new, nr_new * sizeof(*to));
	memcpy(to + first + nr_new, vm->shared + last, tail * sizeof(*to));
	free(vm->shared);
	vm->shared = to;
	vm->nr_shared = nr;
	return 0;
}

int shared_add(struct vm *vm, u64 gpa, u64 size)
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
	return replace(vm, first, last, &new, 1);
}

int shared_remove(struct vm *vm, u64 gpa, u64 size)
{
	unsigned int first = 0, last, nr = 0;
	u64 end = gpa + size;
	struct range rest[2];

	while (first < vm->nr_shared && end_of(&vm->shared[first]) <= gpa)
		first++;
	for (last = first; last < vm->nr_shared && vm->shared[last].gpa < end; last++) {
		const struct range *range = &vm->shared[last];

		if (range->gpa < gpa)
			rest[nr++] = (struct range){ range->gpa, gpa - range->gpa };
		if (end_of(range) > end)
			rest[nr++] = (struct range){ end, end_of(range) - end };
	}
	return replace(vm, first, last, rest, nr);
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
