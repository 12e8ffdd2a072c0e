// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * What guests do: read and write by themselves, by KVM's emulator, through page
 * tables that are in the memory itself; and what a VMM does when they exit.
 *
 * A guest tells the host by PORT_WRONG of each word that cannot be where it is.
 */
#include "race.h"

#define PORT_WRONG	0x13
#define MAX_REPEATS	1000	/* of what could not be served, one after the other */
#define STEPS		64	/* between two exits */

#define FORCE_EMULATION "/sys/module/kvm/parameters/force_emulation_prefix"

/* What runs in the guest */

GUEST_INLINE void guest_wrong(uint64_t gpa, uint64_t value)
{
	asm volatile("outb %%al, %1" : : "a"(0), "i"(PORT_WRONG), "D"(gpa),
		     "S"(value) : "memory");
}

GUEST_INLINE uint64_t guest_pick(uint64_t *seed)
{
	uint64_t page = next_random(seed) % GUEST_PAGES;

	return next_random(seed) % 2 ? page : page % 12 + page / PAGES * PAGES;
}

/* One of the words that anybody may read */
GUEST_INLINE uint64_t guest_word(uint64_t *seed)
{
	uint64_t r = next_random(seed), word = r / 4 % IN_USE;

	switch (r % 4) {
	case 0:
		return GUEST_WORDS + word;
	case 1:
		return EMULATED_WORDS + word;
	case 2:
		return HOST_WORDS + word;
	default:
		return SECRET_WORDS + word;
	}
}

GUEST_INLINE void guest_check(uint64_t world, uint64_t page, uint64_t word)
{
	uint64_t gpa = DATA + page * PAGE + word * 8, value = guest_read(gpa);

	if (!is_legal(value, world, page))
		guest_wrong(gpa, value);
}

GUEST_INLINE void guest_sweep(uint64_t *seed, uint64_t world)
{
	uint64_t page = next_random(seed) % (GUEST_PAGES - STEPS);

	for (uint64_t end = page + STEPS; page < end; page++)
		if (page != TABLE_PAGE)
			guest_check(world, page, HOST_WORDS);
}

static GUEST void guest_fault(uint64_t seed, uint64_t world)
{
	for (uint64_t n = 1;; n++) {
		uint64_t page = guest_pick(&seed);
		uint64_t word = next_random(&seed) % IN_USE;

		if (n % STEPS == 0)
			guest_sync(0);
		if (n % (16 * STEPS) == 0)
			guest_sweep(&seed, world);
		if (page == TABLE_PAGE)
			continue;
		guest_check(world, page, guest_word(&seed));
		if (n % 2)
			guest_write(DATA + page * PAGE + (GUEST_WORDS + word) * 8,
				    identity(BY_GUEST, world, page, n));
	}
}

static GUEST void guest_prefetch(uint64_t seed, uint64_t world)
{
	for (;;) {
		guest_sweep(&seed, world);
		guest_sync(0);
	}
}

GUEST_INLINE uint64_t emulated_read(uint64_t address)
{
	uint64_t value;

	asm volatile(EMULATE "mov (%1), %0" : "=a"(value) : "D"(address) : "memory");
	return value;
}

GUEST_INLINE void emulated_write(uint64_t address, uint64_t value)
{
	asm volatile(EMULATE "mov %0, (%1)" : : "a"(value), "D"(address) : "memory");
}

GUEST_INLINE void emulated_exchange(uint64_t address, uint64_t value)
{
	uint64_t old = guest_read(address);

	asm volatile(EMULATE "lock cmpxchg %1, (%2)"
		     : "+a"(old) : "b"(value), "D"(address) : "memory", "cc");
}

GUEST_INLINE void string_out(uint64_t address)
{
	uint64_t count = 8;

	asm volatile("rep outsb" : "+S"(address), "+c"(count)
		     : "d"(PORT_DATA) : "memory");
}

GUEST_INLINE void string_in(uint64_t address)
{
	uint64_t count = 8;

	asm volatile("rep insb" : "+D"(address), "+c"(count)
		     : "d"(PORT_DATA) : "memory");
}

/* @at is where the page is for the guest. */
GUEST_INLINE void emulated_step(uint64_t *seed, uint64_t world, uint64_t page,
				uint64_t at)
{
	uint64_t r = next_random(seed), word = r / 8 % IN_USE;
	uint64_t mine = identity(BY_GUEST, world, page, r), value;

	switch (r % 8) {
	case 0:
		string_out(at + SCRATCH_WORDS * 8);
		break;
	case 1:
		string_in(at + SCRATCH_WORDS * 8);
		break;
	case 2:
		emulated_exchange(at + (EMULATED_WORDS + word) * 8, mine);
		break;
	case 3:
	case 4:
		emulated_write(at + (EMULATED_WORDS + word) * 8, mine);
		break;
	default:
		word = guest_word(seed);
		value = emulated_read(at + word * 8);
		if (!is_legal(value, world, page))
			guest_wrong(DATA + page * PAGE + word * 8, value);
	}
}

static GUEST void guest_emulated(uint64_t seed, uint64_t world)
{
	for (uint64_t n = 1;; n++) {
		uint64_t page = guest_pick(&seed);

		if (n % STEPS == 0)
			guest_sync(0);
		if (page != TABLE_PAGE)
			emulated_step(&seed, world, page, DATA + page * PAGE);
	}
}

/* The entries' accessed and dirty bits go, so that they have to be set again. */
static GUEST void guest_walk(uint64_t seed, uint64_t world)
{
	for (uint64_t n = 1;; n++) {
		uint64_t i = next_random(&seed) % (n % 2 ? 16 : TABLE_PAGE);
		uint64_t page = i % 2 ? IN_PLACE + i : i, at = WINDOW + i * PAGE;

		if (n % STEPS == 0)
			guest_sync(0);
		guest_write(DATA + TABLE_PAGE * PAGE + i * 8,
			    (DATA + page * PAGE) | 3);
		asm volatile("invlpg (%0)" : : "r"(at) : "memory");
		if (n % 4)
			emulated_step(&seed, world, page, at);
		else
			guest_write(at + GUEST_WORDS * 8,
				    identity(BY_GUEST, world, page, n));
	}
}

/*
 * Is each page what it was told to be, in this very generation? @kind is who has
 * told all of them; 0: the pages of the first memory may be of either half, and a
 * consumer has told the others.
 */
static GUEST void scan_all(uint64_t world, uint64_t generation, uint64_t kind)
{
	for (uint64_t page = 0; page < GUEST_PAGES; page++) {
		uint64_t gpa = DATA + page * PAGE;
		uint64_t host = guest_read(gpa + HOST_WORDS * 8);
		uint64_t secret = guest_read(gpa + SECRET_WORDS * 8);
		bool shared = host == identity(BY_HOST, world, page, generation) &&
			      !secret;
		bool private = secret == identity(SECRET, world, page, generation) &&
			       !host;

		if (page == TABLE_PAGE || (shared && kind != SECRET) ||
		    (private && kind != BY_HOST))
			continue;
		if (page >= IN_PLACE && !kind) {
			gpa += GUEST_WORDS * 8;
			host = guest_read(gpa);
			if (host == identity(BY_GUEST, world, page, generation))
				continue;
		}
		guest_wrong(gpa, kind == BY_HOST ? host : secret);
	}
	guest_done();
}

/* What a VMM does */

static void tell_wrong(struct world *w, struct vcpu *vcpu)
{
	struct kvm_regs regs;
	uint64_t page;

	CHECK(!ioctl(vcpu->fd, KVM_GET_REGS, &regs));
	page = (regs.rdi - DATA) / PAGE;
	fail(w, "a guest reads %#llx at word %llu of page %lu of world %#lx (should be %#lx..)",
	     regs.rsi, regs.rdi % PAGE / 8, (unsigned long)page,
	     (unsigned long)w->id,
	     (unsigned long)(identity(0, w->id, page, 0) >> 32));
}

static void tell_exit(struct world *w, struct vcpu *vcpu)
{
	struct restrictedmem_kvm_memory_fault *f =
		restrictedmem_kvm_memory_fault(vcpu->run);
	struct kvm_regs regs;

	CHECK(!ioctl(vcpu->fd, KVM_GET_REGS, &regs));
	fail(w, "exit %d (%s) at rip %#llx, rdi %#llx; suberror %u; gpa %#llx, flags %#llx",
	     vcpu->reason, strerror(vcpu->error), regs.rip, regs.rdi,
	     vcpu->reason == KVM_EXIT_INTERNAL_ERROR ? vcpu->run->internal.suberror : 0,
	     vcpu->reason == KVM_EXIT_MMIO ? vcpu->run->mmio.phys_addr : f->gpa,
	     f->flags);
}

/*
 * Is the exit what the other actors explain? An access that KVM could not serve is
 * repeated, as each VMM has to.
 */
static bool is_tolerated(struct world *w, struct vcpu *vcpu)
{
	if (vcpu->error == EHWPOISON)
		return w->tolerates & MAKES_ERRORS;
	switch (vcpu->reason) {
	case -1:
	case KVM_EXIT_MEMORY_FAULT:
		return vcpu->error == EAGAIN || vcpu->error == EFAULT;
	case KVM_EXIT_MMIO:
	case KVM_EXIT_SHUTDOWN:
	case KVM_EXIT_INTERNAL_ERROR:
		return w->tolerates & (TAKES_SLOTS | MAKES_ERRORS);
	}
	return false;
}

/* Serve one exit. Return: whether it is the one that was waited for. */
static bool serve(struct world *w, struct vcpu *vcpu, int port)
{
	struct kvm_run *run = vcpu->run;

	if (vcpu->reason == KVM_EXIT_IO && run->io.port == port)
		return true;
	if (vcpu->reason == KVM_EXIT_IO && run->io.port == PORT_WRONG) {
		tell_wrong(w, vcpu);
		return false;
	}
	if (vcpu->reason == KVM_EXIT_IO && run->io.port == PORT_DATA) {
		if (run->io.direction == KVM_EXIT_IO_IN)
			memset((char *)run + run->io.data_offset, 0,
			       run->io.size * run->io.count);
		return false;
	}
	if (!is_tolerated(w, vcpu))
		tell_exit(w, vcpu);
	else if (vcpu->reason == KVM_EXIT_MMIO)
		memset(run->mmio.data, 0, sizeof(run->mmio.data));
	else
		sleep_ms(1);
	return false;
}

static void start_player(struct player *p)
{
	vcpu_set_long_mode(&p->vcpu);
	vcpu_start(&p->vcpu, p->actor->guest, roll(p), p->world->id, 0);
}

static void begin(struct player *p)
{
	if (p->actor != &actor_fault && p->actor != &actor_prefetch)
		CHECK(!write_text(FORCE_EMULATION, "1"));
	start_player(p);
}

/* Up to its next exit of its own will. */
void vcpu_step(struct player *p)
{
	struct world *w = p->world;
	int others = 0;

	while (!w->failed) {
		vcpu_run(&p->vcpu);
		if (serve(w, &p->vcpu, PORT_SYNC))
			return;
		if (p->vcpu.reason != KVM_EXIT_IO && p->vcpu.reason != KVM_EXIT_MMIO &&
		    ++others > MAX_REPEATS)
			tell_exit(w, &p->vcpu);
		if (p->vcpu.reason == KVM_EXIT_SHUTDOWN ||
		    p->vcpu.reason == KVM_EXIT_INTERNAL_ERROR)
			start_player(p);
		if (stopped(w) && p->vcpu.reason != KVM_EXIT_IO)
			return;
	}
}

/* All pages, when nobody acts; see scan_all(). */
void guest_scan(struct world *w, uint64_t kind)
{
	unsigned int tolerates = w->tolerates;
	int others = 0;

	w->tolerates = 0;
	vcpu_set_long_mode(&w->looker);
	vcpu_start(&w->looker, scan_all, w->id, w->generation, kind);
	do {
		vcpu_run(&w->looker);
		if (w->looker.reason != KVM_EXIT_IO && ++others > MAX_REPEATS)
			tell_exit(w, &w->looker);
	} while (!serve(w, &w->looker, PORT_DONE) && !w->failed);
	w->tolerates = tolerates;
}

const struct actor actor_fault = {
	.name = "fault",
	.guest = guest_fault,
	.has_vcpu = true,
	.begin = begin,
	.step = vcpu_step,
};

const struct actor actor_emulated = {
	.name = "emulated",
	.guest = guest_emulated,
	.has_vcpu = true,
	.begin = begin,
	.step = vcpu_step,
};

const struct actor actor_walk = {
	.name = "walk",
	.guest = guest_walk,
	.has_vcpu = true,
	.begin = begin,
	.step = vcpu_step,
};

const struct actor actor_prefetch = {
	.name = "prefetch",
	.needs = NEEDS_SHADOW,
	.guest = guest_prefetch,
	.has_vcpu = true,
	.begin = begin,
	.step = vcpu_step,
};
