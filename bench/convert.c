// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * What it costs to share guest memory and to take it back, in place, and how much
 * memory there is meanwhile. The peer is what there is without conversion in
 * place: the page is discarded and comes again, empty.
 */
#include "bench.h"
#include "window.h"

#define SLOT		1
#define SIZE		(32 * MIB)
#define PART		HUGE		/* what is converted */
#define PAGES		(PART / PAGE)

struct arena {
	struct vm vm;
	struct vcpu vcpu;
	bool in_place;
	int fd;
	uint64_t *map;		/* a window on all of it, or the slot's other half */
	uint64_t looked_at;	/* pages of what is shared that the host looks at */
	uint64_t most;		/* bytes of memory that there ever were */
};

/* Write to each page of a part, whenever the host asks. */
static GUEST void touch(uint64_t gpa, uint64_t pages)
{
	for (;;) {
		for (uint64_t i = 0; i < pages; i++)
			guest_write(gpa + i * PAGE, i);
		guest_sync(pages);
	}
}

static int create_file(uint32_t flags, uint32_t thp)
{
	const struct restrictedmem_create args = {
		.size = sizeof(args),
		.flags = flags,
		.length = SIZE,
		.thp = thp,
	};

	return create_with(&args);
}

static void arena_create(struct arena *a, bool in_place, uint32_t thp,
			 uint64_t looked_at)
{
	int win;

	*a = (struct arena){ .in_place = in_place, .looked_at = looked_at };
	vm_create(&a->vm, KVM_X86_SW_PROTECTED_VM);
	vcpu_create(&a->vm, &a->vcpu, 0);
	a->fd = create_file(in_place ? RESTRICTEDMEM_CREATE_IN_PLACE : 0, thp);
	CHECK(a->fd >= 0);
	if (in_place) {
		win = open_window(a->fd, 0, SIZE, RESTRICTEDMEM_WINDOW_WRITE);
		a->map = map_window(win, SIZE, PROT_READ | PROT_WRITE);
		close(win);
	} else {
		win = memfd_create("bench", MFD_CLOEXEC);
		CHECK(!ftruncate(win, SIZE));
		a->map = map_window(win, SIZE, PROT_READ | PROT_WRITE);
		close(win);
	}
	CHECK(a->map != MAP_FAILED);
	vm_add_private(&a->vm, SLOT, DATA, SIZE, in_place ? NULL : a->map, a->fd);
	CHECK(!populate(a->fd, 0, SIZE));
	vcpu_start(&a->vcpu, touch, DATA, PAGES, 0);
	vcpu_sync(&a->vcpu);
}

static void arena_destroy(struct arena *a)
{
	vcpu_destroy(&a->vcpu);
	vm_destroy(&a->vm);
	munmap(a->map, SIZE);
	close(a->fd);
}

static void set_attributes(struct arena *a, uint64_t size, bool private)
{
	const struct kvm_memory_attributes args = {
		.address = DATA,
		.size = size,
		.attributes = private ? KVM_MEMORY_ATTRIBUTE_PRIVATE : 0,
		.flags = a->in_place ? RESTRICTEDMEM_CONVERT_PRESERVE : 0,
	};

	CHECK(!ioctl(a->vm.fd, KVM_SET_MEMORY_ATTRIBUTES, &args));
}

static void look(struct arena *a, uint64_t pages)
{
	for (uint64_t i = 0; i < pages; i++)
		CHECK(*(volatile uint64_t *)(a->map + i * (PAGE / 8)) == i);
}

/* Return: us to share a part and take it back, used by both sides each time. */
static double there_and_back(void *arg)
{
	const int repeat = 8;
	struct arena *a = arg;
	double begin = now_ns();

	for (int i = 0; i < repeat; i++) {
		set_attributes(a, PART, false);
		vcpu_sync(&a->vcpu);
		look(a, a->looked_at);
		set_attributes(a, PART, true);
		vcpu_sync(&a->vcpu);
	}
	return (now_ns() - begin) / repeat / 1e3;
}

/* Return: us to discard a part and have it back, empty, used by the guest. */
static double punch_and_refault(void *arg)
{
	const int repeat = 8;
	struct arena *a = arg;
	double begin = now_ns();

	for (int i = 0; i < repeat; i++) {
		CHECK(!punch(a->fd, 0, PART));
		vcpu_sync(&a->vcpu);
	}
	return (now_ns() - begin) / repeat / 1e3;
}

static void compare(const char *what, const char *goal, uint32_t thp,
		    uint64_t looked_at)
{
	struct arena ours, peer;

	arena_create(&ours, true, thp, looked_at);
	arena_create(&peer, false, thp, 0);
	take_figure(&(struct figure){
		.what = what,
		.unit = "us",
		.goal = goal,
		.ours = { "in place", there_and_back, &ours },
		.peer = { "punch, refault", punch_and_refault, &peer },
	});
	CHECK(resident(ours.fd) == SIZE);
	arena_destroy(&ours);
	arena_destroy(&peer);
}

/* What the guest has, wherever it is: its file, and what is in the other half. */
static void note_memory(struct arena *a)
{
	uint64_t now = resident(a->fd);

	if (!a->in_place)
		now += rss_of(a->map) * KIB;
	if (now > a->most)
		a->most = now;
}

/*
 * Return: the most MiB that there were while all of the memory was shared and
 * taken back, with everything in use that can be.
 */
static double most_memory(void *arg)
{
	struct arena *a = arg;
	uint64_t pages = SIZE / PAGE;

	vcpu_start(&a->vcpu, touch, DATA, pages, 0);
	for (int i = 0; i < 2; i++) {
		vcpu_sync(&a->vcpu);
		note_memory(a);
		set_attributes(a, SIZE, false);
		vcpu_sync(&a->vcpu);
		look(a, pages);
		note_memory(a);
		/* As a VMM does it that has two halves. */
		if (!a->in_place)
			CHECK(!punch(a->fd, 0, SIZE));
		set_attributes(a, SIZE, true);
		vcpu_sync(&a->vcpu);
		note_memory(a);
		if (!a->in_place)
			CHECK(!madvise(a->map, SIZE, MADV_REMOVE));
	}
	return a->most / (double)MIB;
}

static double guest_size(void *arg)
{
	return SIZE / (double)MIB;
}

static void compare_memory(void)
{
	struct arena ours, peer;

	arena_create(&ours, true, RESTRICTEDMEM_THP_ALWAYS, 0);
	arena_create(&peer, false, RESTRICTEDMEM_THP_ALWAYS, 0);
	take_figure(&(struct figure){
		.what = "memory of a guest that shares all of it",
		.unit = "MiB",
		.goal = "1",
		.rounds = 3,
		.ours = { "in place", most_memory, &ours },
		.peer = { "its size", guest_size, NULL },
	});
	take_figure(&(struct figure){
		.what = "memory of a guest that shares all of it",
		.unit = "MiB",
		.rounds = 3,
		.ours = { "in place", most_memory, &ours },
		.peer = { "two halves", most_memory, &peer },
	});
	arena_destroy(&ours);
	arena_destroy(&peer);
}

int main(void)
{
	compare("2 MiB to shared and back, THP", "0.1", RESTRICTEDMEM_THP_ALWAYS, 1);
	compare("..., all of it seen through a window", NULL, RESTRICTEDMEM_THP_ALWAYS, PAGES);
	compare("2 MiB to shared and back, 4 KiB pages", "0.1", RESTRICTEDMEM_THP_NEVER, 1);
	compare_memory();
	return 0;
}
