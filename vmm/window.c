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

/* The first range that ends behind gpa: the guest can have very many. */
static unsigned int find(const struct vm *vm, u64 gpa)
{
	unsigned int first = 0, end = vm->nr_shared;

	while (first < end) {
		unsigned int middle = first + (end - first) / 2;

		if (end_of(&vm->shared[middle]) <= gpa)
			first = middle + 1;
		else
			end = middle;
	}
	return first;
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
	unsigned int first = find(vm, gpa), last;
	u64 end = gpa + size;

	if (first && end_of(&vm->shared[first - 1]) == gpa)
		first--;
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
	unsigned int first = find(vm, gpa), last, nr = 0;
	u64 end = gpa + size;
	struct range rest[2] = { 0 };

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
	unsigned int i = find(vm, gpa);
	u64 end = gpa + size;

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

/* A copy of the set, as many ranges as it says: to be freed, or NULL after a message. */
struct range *shared_save(const struct vm *vm, unsigned int *nr)
{
	struct range *to = malloc((vm->nr_shared + 1) * sizeof(*to));

	*nr = vm->nr_shared;
	if (to)
		memcpy(to, vm->shared, *nr * sizeof(*to));
	else
		fail("out of memory");
	return to;
}

/* The set is again what it was when it was saved. There is still room for it. */
void shared_restore(struct vm *vm, const struct range *from, unsigned int nr)
{
	memcpy(vm->shared, from, nr * sizeof(*from));
	vm->nr_shared = nr;
}

bool shared_covers(const struct vm *vm, u64 gpa, u64 size)
{
	unsigned int i = find(vm, gpa);

	return i < vm->nr_shared && vm->shared[i].gpa <= gpa &&
	       size <= end_of(&vm->shared[i]) - gpa;
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
		say("window gpa %#llx size %#llx fd %d", gpa, size, window->fd);
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
		say("no window gpa %#llx size %#llx", window->gpa, window->size);
}
