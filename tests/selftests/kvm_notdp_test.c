// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * A KVM without two-dimensional paging: kvm_notdp_test.vm turns it off. The guest's
 * page tables are shadowed then, and there is no private memory.
 */
#include "kselftest_harness.h"
#include "kvm_util.h"

static GUEST void write_and_read(uint64_t gpa, uint64_t value)
{
	guest_write(gpa, value);
	guest_sync(guest_read(gpa));
	guest_done();
}

static int cap(int fd, long cap)
{
	return ioctl(fd, KVM_CHECK_EXTENSION, cap);
}

TEST(no_protected_vm_without_tdp)
{
	int kvm = open("/dev/kvm", O_RDWR);

	ASSERT_LE(0, kvm);
	EXPECT_EQ(1 << KVM_X86_DEFAULT_VM, cap(kvm, KVM_CAP_VM_TYPES));
	EXPECT_FAILS(EINVAL, ioctl(kvm, KVM_CREATE_VM, KVM_X86_SW_PROTECTED_VM));
	close(kvm);
}

TEST(no_prefault_without_tdp)
{
	struct kvm_pre_fault_memory range = { .gpa = 0, .size = PAGE };
	struct vcpu vcpu;
	struct vm vm;

	vm_create(&vm, KVM_X86_DEFAULT_VM);
	vcpu_create(&vm, &vcpu, 0);
	EXPECT_EQ(0, cap(vm.kvm, KVM_CAP_PRE_FAULT_MEMORY));
	EXPECT_FAILS(EOPNOTSUPP, ioctl(vcpu.fd, KVM_PRE_FAULT_MEMORY, &range));
	EXPECT_EQ(0, range.gpa);
	EXPECT_EQ(PAGE, range.size);
	vcpu_destroy(&vcpu);
	vm_destroy(&vm);
}

TEST(default_vm_runs_without_tdp)
{
	struct restrictedmem_kvm_memory_fault *fault;
	void *hva = map_anonymous(HUGE);
	struct vcpu vcpu;
	struct vm vm;

	vm_create(&vm, KVM_X86_DEFAULT_VM);
	vcpu_create(&vm, &vcpu, 0);
	ASSERT_EQ(0, vm_region2(&vm, 1, 0, DATA, HUGE, hva, -1, 0));
	vcpu_start(&vcpu, write_and_read, DATA + PAGE, 42, 0);
	EXPECT_EQ(42, vcpu_sync(&vcpu));
	EXPECT_EQ(42, *(uint64_t *)(hva + PAGE));
	vcpu_done(&vcpu);
	ASSERT_EQ(0, munmap(hva, HUGE));
	vcpu_start(&vcpu, write_and_read, DATA + PAGE, 42, 0);
	fault = vcpu_fault(&vcpu);
	EXPECT_EQ(EFAULT, vcpu.error);
	EXPECT_EQ(DATA + PAGE, fault->gpa);
	vcpu_destroy(&vcpu);
	vm_destroy(&vm);
}

TEST_HARNESS_MAIN
