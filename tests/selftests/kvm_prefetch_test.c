// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * KVM's older MMU, which maps more than it is asked for: kvm_prefetch_test.vm turns
 * the TDP MMU off. A nested guest's memory is mapped in the same way.
 */
#include "kselftest_harness.h"
#include "kvm_util.h"

#define SLOT	1
#define PAGES	8

static GUEST void read_two(uint64_t first, uint64_t second)
{
	guest_sync(guest_read(first));
	guest_sync(guest_read(second));
}

TEST(tdp_mmu_is_off)
{
	char buf[16];

	ASSERT_LT(0, read_text("/sys/module/kvm/parameters/tdp_mmu", buf,
			       sizeof(buf)));
	EXPECT_EQ('N', buf[0]);
}

/* Beside shared gfns that are mapped; in a slot without a private half. */
TEST(private_gfn_of_an_ordinary_slot_is_not_prefetched)
{
	struct restrictedmem_kvm_memory_fault *fault;
	char *hva = map_anonymous(HUGE);
	struct vcpu vcpu;
	struct vm vm;

	vm_create(&vm, KVM_X86_SW_PROTECTED_VM);
	vcpu_create(&vm, &vcpu, 0);
	ASSERT_EQ(0, madvise(hva, HUGE, MADV_NOHUGEPAGE));
	for (int i = 0; i < PAGES; i++)
		*(uint64_t *)(hva + i * PAGE) = i + 1;
	ASSERT_EQ(0, vm_region(&vm, SLOT, DATA, HUGE, hva));
	ASSERT_EQ(0, vm_set_private(&vm, DATA + PAGE, PAGE, true));
	/* Its neighbours on both sides, one after the other. */
	vcpu_start(&vcpu, read_two, DATA, DATA + 2 * PAGE, 0);
	EXPECT_EQ(1, vcpu_sync(&vcpu));
	EXPECT_EQ(3, vcpu_sync(&vcpu));
	vcpu_start(&vcpu, read_two, DATA + PAGE, DATA, 0);
	fault = vcpu_fault(&vcpu);
	EXPECT_EQ(EFAULT, vcpu.error);
	EXPECT_EQ(DATA + PAGE, fault->gpa);
	EXPECT_EQ(KVM_MEMORY_EXIT_FLAG_PRIVATE, fault->flags);
	vcpu_destroy(&vcpu);
	vm_destroy(&vm);
	munmap(hva, HUGE);
}

TEST_HARNESS_MAIN
