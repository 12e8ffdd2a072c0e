// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * What a guest's faults cost and how many there are, on private memory and on
 * a memfd slot of the same KVM.
 */
#include "bench.h"

#define SLOT		1
#define SMALL_SIZE	(16 * MIB)

/* Write to each page; the host looks at the clock when it hears of the ends. */
static GUEST void touch(uint64_t gpa, uint64_t pages)
{
	guest_sync(0);
	for (uint64_t i = 0; i < pages; i++)
		guest_write(gpa + i * PAGE, 1);
	guest_sync(pages);
	guest_done();
}

/* What is there before the guest comes. */
enum state {
	NOTHING,
	PAGES,		/* the file has its pages */
	MAPPED,		/* and they are mapped in the VMM: memfd only */
};

struct arena {
	struct vm vm;
	struct vcpu vcpu;
	bool private;
	enum state state;
	uint64_t size;
	int fd;
	void *hva;
	double ns;		/* how long touch_all() took, and its faults */
	uint64_t faults;
};

static void arena_create(struct arena *a, unsigned long type, int fd,
			 bool private, uint64_t size)
{
	*a = (struct arena){ .private = private, .size = size, .fd = fd };
	vm_create(&a->vm, type);
	vcpu_create(&a->vm, &a->vcpu, 0);
	CHECK(fd >= 0);
	a->hva = private ? map_anonymous(size) :
			   mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED,
				fd, 0);
	CHECK(a->hva != MAP_FAILED);
}

static void arena_destroy(struct arena *a)
{
	vcpu_destroy(&a->vcpu);
	vm_destroy(&a->vm);
	munmap(a->hva, a->size);
	close(a->fd);
}

static int create_memfd(uint64_t size)
{
	int fd = memfd_create("bench", MFD_CLOEXEC);

	CHECK(fd >= 0);
	CHECK(!ftruncate(fd, size));
	return fd;
}

static void bring_about(struct arena *a)
{
	CHECK(!madvise(a->hva, a->size, MADV_DONTNEED));
	CHECK(!punch(a->fd, 0, a->size));
	if (a->state >= PAGES)
		CHECK(!populate(a->fd, 0, a->size));
	if (a->state >= MAPPED)
		CHECK(!madvise(a->hva, a->size, MADV_POPULATE_WRITE));
	CHECK(resident(a->fd) == (a->state >= PAGES ? a->size : 0));
}

/* Have the guest touch all of a slot that it has never touched before. */
static void touch_all(struct arena *a)
{
	uint64_t faults;
	double begin;

	bring_about(a);
	if (a->private)
		vm_add_private(&a->vm, SLOT, DATA, a->size, a->hva, a->fd);
	else
		CHECK(!vm_region(&a->vm, SLOT, DATA, a->size, a->hva));
	vcpu_start(&a->vcpu, touch, DATA, a->size / PAGE, 0);
	vcpu_sync(&a->vcpu);
	faults = kvm_stat(a->vcpu.fd, "pf_fixed");
	begin = now_ns();
	vcpu_sync(&a->vcpu);
	a->ns = now_ns() - begin;
	a->faults = kvm_stat(a->vcpu.fd, "pf_fixed") - faults;
	CHECK(resident(a->fd) == a->size);
	CHECK(!vm_region(&a->vm, SLOT, DATA, 0, NULL));
}

/* Return: ns for a fault, each of one page. */
static double small_faults(void *arg)
{
	struct arena *a = arg;
	uint64_t pages = a->size / PAGE;

	touch_all(a);
	/* Some more are for the guest's own page tables. */
	CHECK(a->faults >= pages && a->faults <= pages + 8);
	return a->ns / pages;
}

static void small_figure(const char *what, const char *goal,
			 struct arena *ours, enum state our_state,
			 const char *name, struct arena *peer, enum state state)
{
	ours->state = our_state;
	peer->state = state;
	take_figure(&(struct figure){
		.what = what,
		.unit = "ns",
		.goal = goal,
		.rounds = 5,
		.ours = { "private", small_faults, ours },
		.peer = { name, small_faults, peer },
	});
}

static void small_pages(void)
{
	struct arena ours, peer, same;

	arena_create(&ours, KVM_X86_SW_PROTECTED_VM, create_small(SMALL_SIZE),
		     true, SMALL_SIZE);
	arena_create(&peer, KVM_X86_DEFAULT_VM, create_memfd(SMALL_SIZE), false,
		     SMALL_SIZE);
	arena_create(&same, KVM_X86_SW_PROTECTED_VM, create_memfd(SMALL_SIZE),
		     false, SMALL_SIZE);

	small_figure("4K fault, file populated", "0.7", &ours, PAGES,
		     "memfd", &peer, PAGES);
	small_figure("4K fault, file populated", NULL, &ours, PAGES,
		     "memfd, same VM type", &same, PAGES);
	small_figure("4K fault, file populated", NULL, &ours, PAGES,
		     "memfd, VMM mapped it", &peer, MAPPED);
	small_figure("4K fault with allocation", NULL, &ours, NOTHING,
		     "memfd", &peer, NOTHING);

	arena_destroy(&ours);
	arena_destroy(&peer);
	arena_destroy(&same);
}

static double count_faults(void *arg)
{
	struct arena *a = arg;

	touch_all(a);
	return a->faults;
}

/* Of the touch that was counted: it takes its time. */
static double time_of_touch(void *arg)
{
	const struct arena *a = arg;

	return a->ns / 1e6;
}

static void huge_pages(void)
{
	struct arena ours, peer;

	arena_create(&ours, KVM_X86_SW_PROTECTED_VM, create_huge(GIB), true, GIB);
	arena_create(&peer, KVM_X86_SW_PROTECTED_VM, create_small(GIB), true, GIB);
	take_figure(&(struct figure){
		.what = "faults of a first touch of 1 GiB",
		.unit = "faults",
		.goal = "1/400",
		.rounds = 1,
		.ours = { "THP", count_faults, &ours },
		.peer = { "order-0 store", count_faults, &peer },
	});
	take_figure(&(struct figure){
		.what = "time of a first touch of 1 GiB",
		.unit = "ms",
		.rounds = 1,
		.ours = { "THP", time_of_touch, &ours },
		.peer = { "order-0 store", time_of_touch, &peer },
	});
	arena_destroy(&ours);
	arena_destroy(&peer);
}

int main(void)
{
	small_pages();
	huge_pages();
	return 0;
}
