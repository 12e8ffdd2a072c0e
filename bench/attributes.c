// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * What KVM_SET_MEMORY_ATTRIBUTES costs: by the range's length, by what is
 * behind the range, by how many ranges there are, and beside a call that does
 * nothing.
 */
#include "bench.h"

#define SLOT		1
#define CALLS		1000
#define RANDOM_CALLS	100000
#define RANGES		100000
/* The many ranges: half of them from here, half from there, and between. */
#define RANGES_BELOW	(16 * GIB)
#define DATA_BETWEEN	(32 * GIB)
#define RANGES_ABOVE	(48 * GIB)

struct range {
	struct vm *vm;
	uint64_t gpa;
	uint64_t size;
};

/* To private and back: each call changes something. Return: ns for a call. */
static double toggle(void *arg)
{
	const struct range *r = arg;
	double begin = now_ns();

	for (int i = 0; i < CALLS; i += 2) {
		CHECK(!vm_set_private(r->vm, r->gpa, r->size, true));
		CHECK(!vm_set_private(r->vm, r->gpa, r->size, false));
	}
	return (now_ns() - begin) / CALLS;
}

static void by_length(struct vm *vm, const char *what, const char *goal,
		      uint64_t gpa, double (*sample)(void *arg))
{
	struct range gigabyte = { vm, gpa, GIB }, page = { vm, gpa, PAGE };

	take_figure(&(struct figure){
		.what = what,
		.unit = "ns",
		.goal = goal,
		.ours = { "1 GiB", sample, &gigabyte },
		.peer = { "4 KiB", sample, &page },
	});
}

static void without_slot(void)
{
	struct vm vm;

	vm_create(&vm, KVM_X86_SW_PROTECTED_VM);
	by_length(&vm, "set attributes, no slot", "2", DATA, toggle);
	by_length(&vm, "set attributes, no slot, misaligned", "2", DATA + PAGE,
		  toggle);
	vm_destroy(&vm);
}

static void add_ranges(struct vm *vm)
{
	for (uint64_t i = 0; i < RANGES / 2; i++) {
		CHECK(!vm_set_private(vm, RANGES_BELOW + 2 * i * PAGE, PAGE, true));
		CHECK(!vm_set_private(vm, RANGES_ABOVE + 2 * i * PAGE, PAGE, true));
	}
}

static void among_many_ranges(void)
{
	struct range many, none;
	struct vm vm, empty;

	vm_create(&vm, KVM_X86_SW_PROTECTED_VM);
	vm_create(&empty, KVM_X86_SW_PROTECTED_VM);
	add_ranges(&vm);
	by_length(&vm, "set attributes, among 100,000 ranges", "2", DATA_BETWEEN,
		  toggle);
	many = (struct range){ &vm, DATA_BETWEEN, PAGE };
	none = (struct range){ &empty, DATA_BETWEEN, PAGE };
	take_figure(&(struct figure){
		.what = "set attributes of 4 KiB",
		.unit = "ns",
		.ours = { "100,000 ranges", toggle, &many },
		.peer = { "no ranges", toggle, &none },
	});
	vm_destroy(&empty);
	vm_destroy(&vm);
}

/* A slot that a guest has used */

static GUEST void touch(uint64_t gpa, uint64_t pages, uint64_t step)
{
	for (uint64_t i = 0; i < pages; i += step)
		guest_write(gpa + i * PAGE, 1);
	guest_sync(pages);
}

struct guest {
	struct vm vm;
	struct vcpu vcpu;
	int fd;
	void *hva;
};

static void guest_create(struct guest *g)
{
	vm_create(&g->vm, KVM_X86_SW_PROTECTED_VM);
	vcpu_create(&g->vm, &g->vcpu, 0);
	g->fd = create_huge(GIB);
	g->hva = map_anonymous(GIB);
	CHECK(g->fd >= 0);
	CHECK(!vm_region2(&g->vm, SLOT, KVM_MEM_GUEST_MEMFD, DATA, GIB, g->hva,
			  g->fd, 0));
	/* So that there are page tables, for the boot slot at least. */
	vcpu_start(&g->vcpu, touch, DATA, 0, 1);
	vcpu_sync(&g->vcpu);
}

static void guest_destroy(struct guest *g)
{
	vcpu_destroy(&g->vcpu);
	vm_destroy(&g->vm);
	munmap(g->hva, GIB);
	close(g->fd);
}

struct mapped_range {
	struct guest *guest;
	uint64_t size;
};

/* To shared, of a range in memory that the guest has mapped. Return: ns. */
static double take_away(void *arg)
{
	const struct mapped_range *r = arg;
	struct guest *g = r->guest;
	uint64_t mapped, unmapped;
	double begin, end;

	CHECK(!vm_set_private(&g->vm, DATA, GIB, true));
	vcpu_start(&g->vcpu, touch, DATA, GIB / PAGE, HUGE_PAGES);
	vcpu_sync(&g->vcpu);
	mapped = kvm_stat(g->vm.fd, "pages_2m");
	begin = now_ns();
	CHECK(!vm_set_private(&g->vm, DATA, r->size, false));
	end = now_ns();
	unmapped = mapped - kvm_stat(g->vm.fd, "pages_2m");
	CHECK(unmapped == (r->size + HUGE - 1) / HUGE);
	return end - begin;
}

static void with_slot(void)
{
	struct guest g;
	struct mapped_range gigabyte = { &g, GIB }, page = { &g, PAGE };

	guest_create(&g);
	by_length(&g.vm, "set attributes, slot, nothing mapped", "2", DATA, toggle);
	CHECK(!populate(g.fd, 0, GIB));
	take_figure(&(struct figure){
		.what = "set attributes, mapped with 2M",
		.unit = "ns",
		.ours = { "1 GiB", take_away, &gigabyte },
		.peer = { "4 KiB", take_away, &page },
	});
	CHECK(!vm_set_private(&g.vm, DATA, GIB, false));
	by_length(&g.vm, "set attributes, empty page tables", NULL, DATA, toggle);
	guest_destroy(&g);
}

/*
 * Random calls, about half of which change something. Each sample has a VM of
 * its own, and the same numbers.
 */

static uint32_t next_random(uint64_t *state)
{
	*state = *state * 6364136223846793005 + 1442695040888963407;
	return *state >> 32;
}

static double random_sets(void *arg)
{
	uint64_t pages = *(uint64_t *)arg, state = 1;
	struct vm vm;
	double begin, end;

	vm_create(&vm, KVM_X86_SW_PROTECTED_VM);
	begin = now_ns();
	for (int i = 0; i < RANDOM_CALLS; i++) {
		uint32_t n = next_random(&state);

		CHECK(!vm_set_private(&vm, n % pages * PAGE, PAGE, n >> 31));
	}
	end = now_ns();
	vm_destroy(&vm);
	return (end - begin) / RANDOM_CALLS;
}

static double null_calls(void *arg)
{
	uint64_t state = 1;
	struct vm vm;
	double begin, end;

	vm_create(&vm, KVM_X86_SW_PROTECTED_VM);
	begin = now_ns();
	for (int i = 0; i < RANDOM_CALLS; i++) {
		next_random(&state);
		CHECK(ioctl(vm.fd, KVM_CHECK_EXTENSION, KVM_CAP_USER_MEMORY) == 1);
	}
	end = now_ns();
	vm_destroy(&vm);
	return (end - begin) / RANDOM_CALLS;
}

static void at_random(const char *what, const char *goal, uint64_t size)
{
	uint64_t pages = size / PAGE;

	take_figure(&(struct figure){
		.what = what,
		.unit = "ns",
		.goal = goal,
		.rounds = 3,
		.ours = { "100,000 calls", random_sets, &pages },
		.peer = { "KVM_CHECK_EXTENSION", null_calls },
	});
}

int main(void)
{
	without_slot();
	among_many_ranges();
	with_slot();
	at_random("set attributes, random 4 KiB of 1 GiB", "2", GIB);
	at_random("set attributes, random 4 KiB of 64 GiB", NULL, 64 * GIB);
	return 0;
}
