// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * See kvm_util.h.
 */
#include "kvm_util.h"

/* All GUEST functions of the program, if any; the names are the linker's. */
extern char __start_guest[] __attribute__((weak));
extern char __stop_guest[] __attribute__((weak));

void *map_anonymous(uint64_t size)
{
	/* On a 2 MiB boundary, for the sake of huge pages. */
	char *map = mmap(NULL, size + HUGE, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	char *start = (char *)(((uintptr_t)map + HUGE - 1) & -HUGE);

	CHECK(map != MAP_FAILED);
	munmap(map, start - map);
	munmap(start + size, map + HUGE - start);
	return start;
}

/* Page tables for the first 4 GiB, one to one, in pages of 2 MiB. */
static void build_tables(char *boot)
{
	const uint64_t table = 0x3, huge = 0x83;	/* present, writable; 2M */
	uint64_t *pml4 = (void *)(boot + GUEST_TABLES);
	uint64_t *pdpt = pml4 + 512, *pd = pdpt + 512;

	pml4[0] = (GUEST_TABLES + PAGE) | table;
	for (uint64_t i = 0; i < 4; i++)
		pdpt[i] = (GUEST_TABLES + (2 + i) * PAGE) | table;
	for (uint64_t i = 0; i < 4 * 512; i++)
		pd[i] = i * HUGE | huge;
}

void vm_create(struct vm *vm, unsigned long type)
{
	size_t code = __stop_guest - __start_guest;

	vm->kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	CHECK(vm->kvm >= 0);
	vm->fd = ioctl(vm->kvm, KVM_CREATE_VM, type);
	CHECK(vm->fd >= 0);

	vm->boot = map_anonymous(BOOT_SIZE);
	build_tables(vm->boot);
	CHECK(code <= GUEST_STACKS - GUEST_CODE);
	memcpy(vm->boot + GUEST_CODE, __start_guest, code);
	CHECK(!vm_region(vm, BOOT_SLOT, 0, BOOT_SIZE, vm->boot));
}

void vm_destroy(struct vm *vm)
{
	close(vm->fd);
	close(vm->kvm);
	munmap(vm->boot, BOOT_SIZE);
}

static void set_cpuid(struct vcpu *vcpu)
{
	struct {
		struct kvm_cpuid2 cpuid;
		struct kvm_cpuid_entry2 entries[128];
	} c = { .cpuid.nent = 128 };

	CHECK(!ioctl(vcpu->vm->kvm, KVM_GET_SUPPORTED_CPUID, &c));
	CHECK(!ioctl(vcpu->fd, KVM_SET_CPUID2, &c));
}

/* As a new vCPU is, and one that has ended in KVM_EXIT_SHUTDOWN is not. */
void vcpu_set_long_mode(struct vcpu *vcpu)
{
	const struct kvm_segment data = {
		.limit = ~0, .selector = 0x10, .type = 3, .present = 1, .db = 1,
		.s = 1, .g = 1,
	};
	struct kvm_segment code = data;
	struct kvm_sregs s;

	code.selector = 0x8;
	code.type = 11;
	code.db = 0;
	code.l = 1;

	CHECK(!ioctl(vcpu->fd, KVM_GET_SREGS, &s));
	s.cs = code;
	s.ds = s.es = s.fs = s.gs = s.ss = data;
	s.idt.limit = 0;
	s.cr0 = 0x80010033;	/* PG, WP, NE, ET, MP, PE */
	s.cr3 = GUEST_TABLES;
	s.cr4 = 0x620;		/* OSXMMEXCPT, OSFXSR, PAE */
	s.efer = 0x500;		/* LMA, LME */
	CHECK(!ioctl(vcpu->fd, KVM_SET_SREGS, &s));
}

void vcpu_create(struct vm *vm, struct vcpu *vcpu, unsigned int id)
{
	int size = ioctl(vm->kvm, KVM_GET_VCPU_MMAP_SIZE, 0);

	vcpu->vm = vm;
	vcpu->id = id;
	vcpu->fd = ioctl(vm->fd, KVM_CREATE_VCPU, (unsigned long)id);
	CHECK(vcpu->fd >= 0);
	vcpu->run = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED,
			 vcpu->fd, 0);
	CHECK(vcpu->run != MAP_FAILED);
	set_cpuid(vcpu);
	vcpu_set_long_mode(vcpu);
}

/* Where a GUEST function is in the guest. */
uint64_t guest_address(void *function)
{
	return GUEST_CODE + ((char *)function - __start_guest);
}

/* (Re)start at a GUEST function. Each vCPU has a stack, by its number. */
void vcpu_start(struct vcpu *vcpu, void *function, uint64_t arg1,
		uint64_t arg2, uint64_t arg3)
{
	uint64_t stack = GUEST_STACKS + (vcpu->id % 16 + 1) * GUEST_STACK - 8;
	struct kvm_regs regs = {
		.rip = guest_address(function),
		.rsp = stack,
		.rflags = 2,
		.rdi = arg1,
		.rsi = arg2,
		.rdx = arg3,
	};
	const struct kvm_mp_state running = { KVM_MP_STATE_RUNNABLE };

	CHECK(!ioctl(vcpu->fd, KVM_SET_REGS, &regs));
	/* Beside an in-kernel APIC, all but the first would wait for an IPI. */
	ioctl(vcpu->fd, KVM_SET_MP_STATE, &running);
}

void vcpu_destroy(struct vcpu *vcpu)
{
	munmap(vcpu->run, ioctl(vcpu->vm->kvm, KVM_GET_VCPU_MMAP_SIZE, 0));
	close(vcpu->fd);
}

/* Return: the exit_reason, or -1 for an error without one. */
int vcpu_run(struct vcpu *vcpu)
{
	int r;

	vcpu->run->exit_reason = KVM_EXIT_UNKNOWN;
	do {
		r = ioctl(vcpu->fd, KVM_RUN, 0);
	} while (r && errno == EINTR);
	vcpu->error = r ? errno : 0;
	vcpu->reason = vcpu->run->exit_reason;
	if (r && vcpu->reason != KVM_EXIT_MEMORY_FAULT)
		vcpu->reason = -1;
	return vcpu->reason;
}

static void expect_reason(struct vcpu *vcpu, int reason)
{
	struct restrictedmem_kvm_memory_fault *f =
		restrictedmem_kvm_memory_fault(vcpu->run);
	struct kvm_regs regs;

	if (vcpu->reason == reason)
		return;
	CHECK(!ioctl(vcpu->fd, KVM_GET_REGS, &regs));
	fprintf(stderr, "# exit %d (errno %d) at rip %#llx, expected exit %d",
		vcpu->reason, vcpu->error, regs.rip, reason);
	if (vcpu->reason == KVM_EXIT_MEMORY_FAULT)
		fprintf(stderr, "; fault: gpa %#llx size %#llx flags %#llx",
			f->gpa, f->size, f->flags);
	if (vcpu->reason == KVM_EXIT_MMIO)
		fprintf(stderr, "; mmio: gpa %#llx", vcpu->run->mmio.phys_addr);
	if (vcpu->reason == KVM_EXIT_INTERNAL_ERROR)
		fprintf(stderr, "; suberror %u", vcpu->run->internal.suberror);
	fprintf(stderr, "\n");
	abort();
}

static void expect_port(struct vcpu *vcpu, int port)
{
	expect_reason(vcpu, KVM_EXIT_IO);
	CHECK(vcpu->run->io.port == port);
}

/* Run to the next guest_sync(). Return: its value. */
uint64_t vcpu_sync(struct vcpu *vcpu)
{
	struct kvm_regs regs;

	vcpu_run(vcpu);
	expect_port(vcpu, PORT_SYNC);
	CHECK(!ioctl(vcpu->fd, KVM_GET_REGS, &regs));
	return regs.rdi;
}

/* Run to the end. */
void vcpu_done(struct vcpu *vcpu)
{
	vcpu_run(vcpu);
	expect_port(vcpu, PORT_DONE);
}

/* Run to a memory fault. */
struct restrictedmem_kvm_memory_fault *vcpu_fault(struct vcpu *vcpu)
{
	vcpu_run(vcpu);
	expect_reason(vcpu, KVM_EXIT_MEMORY_FAULT);
	return restrictedmem_kvm_memory_fault(vcpu->run);
}

/* An ordinary slot; size 0 deletes any slot. */
int vm_region(struct vm *vm, uint32_t slot, uint64_t gpa, uint64_t size,
	      void *hva)
{
	const struct kvm_userspace_memory_region region = {
		.slot = slot,
		.guest_phys_addr = gpa,
		.memory_size = size,
		.userspace_addr = (uintptr_t)hva,
	};

	return ioctl(vm->fd, KVM_SET_USER_MEMORY_REGION, &region);
}

int vm_region2(struct vm *vm, uint32_t slot, uint32_t flags, uint64_t gpa,
	       uint64_t size, const void *hva, int fd, uint64_t offset)
{
	const struct kvm_userspace_memory_region2 region = {
		.slot = slot,
		.flags = flags,
		.guest_phys_addr = gpa,
		.memory_size = size,
		.userspace_addr = (uintptr_t)hva,
		.guest_memfd = fd,
		.guest_memfd_offset = offset,
	};

	return ioctl(vm->fd, KVM_SET_USER_MEMORY_REGION2, &region);
}

int vm_set_private(struct vm *vm, uint64_t gpa, uint64_t size, bool private)
{
	const struct kvm_memory_attributes attributes = {
		.address = gpa,
		.size = size,
		.attributes = private ? KVM_MEMORY_ATTRIBUTE_PRIVATE : 0,
	};

	return ioctl(vm->fd, KVM_SET_MEMORY_ATTRIBUTES, &attributes);
}

/* One of the binary statistics of a VM or vCPU. */
uint64_t kvm_stat(int vm_or_vcpu, const char *name)
{
	struct kvm_stats_header header;
	int fd = ioctl(vm_or_vcpu, KVM_GET_STATS_FD, 0);
	uint64_t value = ~0ULL;

	CHECK(fd >= 0);
	CHECK(pread(fd, &header, sizeof(header), 0) == sizeof(header));
	for (uint32_t i = 0; i < header.num_desc; i++) {
		size_t size = sizeof(struct kvm_stats_desc) + header.name_size;
		char buf[256];
		struct kvm_stats_desc *desc = (void *)buf;

		CHECK(size <= sizeof(buf));
		CHECK(pread(fd, buf, size, header.desc_offset + i * size) ==
		      (ssize_t)size);
		if (strcmp(desc->name, name))
			continue;
		CHECK(pread(fd, &value, 8, header.data_offset + desc->offset) == 8);
	}
	close(fd);
	CHECK(value != ~0ULL);
	return value;
}
