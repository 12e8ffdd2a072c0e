/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * Small VMs: one ordinary slot with code, page tables and stacks, whatever
 * slots a test adds, and vCPUs that start in a C function in 64-bit mode.
 *
 * A guest function is marked GUEST and copied, with all others of the program,
 * to GUEST_CODE. It may call other GUEST functions, but knows no data of the
 * program and no library. Guest virtual addresses are physical ones, up to
 * 4 GiB; there is no IDT, so that any exception ends in KVM_EXIT_SHUTDOWN.
 *
 * What a test takes for granted ends it with a message when it does not hold.
 */
#ifndef KVM_UTIL_H
#define KVM_UTIL_H

#include <linux/kvm.h>
#include <linux/kvm_para.h>
#include <restrictedmem_kvm.h>

#include "util.h"

/* Where things are in a guest */
#define BOOT_SIZE	(2 * MIB)
#define GUEST_TABLES	0x1000ULL
#define GUEST_CODE	0x10000ULL
#define GUEST_STACKS	0x100000ULL
#define GUEST_STACK	0x4000ULL
#define DATA		(1 * GIB)	/* where tests put their memory */
#define NOWHERE		0xd0000000ULL	/* never in a slot */

#define BOOT_SLOT	0

struct vm {
	int kvm;
	int fd;
	char *boot;		/* the boot slot's memory */
};

struct vcpu {
	struct vm *vm;
	int fd;
	unsigned int id;
	struct kvm_run *run;
	int error;		/* errno of the last KVM_RUN, or 0 */
	int reason;		/* its exit_reason, -1 if it has none */
};

void vm_create(struct vm *vm, unsigned long type);
void vm_destroy(struct vm *vm);
void vcpu_create(struct vm *vm, struct vcpu *vcpu, unsigned int id);
void vcpu_set_long_mode(struct vcpu *vcpu);
void vcpu_start(struct vcpu *vcpu, void *function, uint64_t arg1,
		uint64_t arg2, uint64_t arg3);
void vcpu_destroy(struct vcpu *vcpu);
int vcpu_run(struct vcpu *vcpu);
uint64_t vcpu_sync(struct vcpu *vcpu);
void vcpu_done(struct vcpu *vcpu);
struct restrictedmem_kvm_memory_fault *vcpu_fault(struct vcpu *vcpu);
uint64_t guest_address(void *function);

int vm_region(struct vm *vm, uint32_t slot, uint64_t gpa, uint64_t size,
	      void *hva);
int vm_region2(struct vm *vm, uint32_t slot, uint32_t flags, uint64_t gpa,
	       uint64_t size, const void *hva, int fd, uint64_t offset);
int vm_set_private(struct vm *vm, uint64_t gpa, uint64_t size, bool private);
uint64_t kvm_stat(int vm_or_vcpu, const char *name);
void *map_anonymous(uint64_t size);

/* A private slot whose gfns are all private. */
static inline void vm_add_private(struct vm *vm, uint32_t slot, uint64_t gpa,
				  uint64_t size, void *hva, int fd)
{
	CHECK(!vm_region2(vm, slot, KVM_MEM_GUEST_MEMFD, gpa, size, hva, fd, 0));
	CHECK(!vm_set_private(vm, gpa, size, true));
}

/* What runs in the guest */

#define GUEST		__attribute__((section("guest"), used, noinline))
#define GUEST_INLINE	static inline __attribute__((always_inline))

#define PORT_SYNC	0x10
#define PORT_DONE	0x11
#define PORT_DATA	0x12	/* left to the test */

/* Tell the host a value; go on when it runs the vCPU again. */
GUEST_INLINE void guest_sync(uint64_t value)
{
	asm volatile("outb %%al, %1" : : "a"(0), "i"(PORT_SYNC), "D"(value)
		     : "memory");
}

GUEST_INLINE void __attribute__((noreturn)) guest_done(void)
{
	for (;;)
		asm volatile("outb %%al, %1" : : "a"(0), "i"(PORT_DONE)
			     : "memory");
}

GUEST_INLINE uint64_t guest_read(uint64_t gpa)
{
	return *(volatile uint64_t *)gpa;
}

GUEST_INLINE void guest_write(uint64_t gpa, uint64_t value)
{
	*(volatile uint64_t *)gpa = value;
}

/* KVM_HC_*, as an AMD guest calls; Intel's instruction is patched in by KVM. */
GUEST_INLINE uint64_t guest_hypercall(uint64_t nr, uint64_t a, uint64_t b,
				      uint64_t c)
{
	asm volatile("vmmcall" : "+a"(nr) : "b"(a), "c"(b), "d"(c) : "memory");
	return nr;
}

GUEST_INLINE void guest_wrmsr(uint32_t index, uint64_t value)
{
	asm volatile("wrmsr" : : "c"(index), "a"((uint32_t)value),
		     "d"((uint32_t)(value >> 32)) : "memory");
}

/* What many guests do */

static GUEST void write_word(uint64_t gpa, uint64_t value)
{
	guest_write(gpa, value);
	guest_done();
}

/* Tell the word at @gpa each time the host asks. */
static GUEST void watch_word(uint64_t gpa)
{
	for (;;)
		guest_sync(guest_read(gpa));
}

/* One instruction, run by KVM's emulator (parameter force_emulation_prefix). */
#define EMULATE		"ud2; .ascii \"kvm\"; "

#endif /* KVM_UTIL_H */
