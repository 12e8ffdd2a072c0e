// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * KVM_PRE_FAULT_MEMORY, on private and on ordinary memory.
 */
#include "kselftest_harness.h"
#include "kvm_util.h"

#define SIZE		(4 * HUGE)
#define SLOT		1

/* A guest that runs, and has a slot of SIZE bytes at DATA. */
FIXTURE(prefault) {
	struct vm vm;
	struct vcpu vcpu;
	int fd;
	char *hva;
	uint64_t mapped;
	uint64_t huge;
};

FIXTURE_VARIANT(prefault) {
	bool private;
};

FIXTURE_VARIANT_ADD(prefault, private) {
	.private = true,
};

FIXTURE_VARIANT_ADD(prefault, shared) {
	.private = false,
};

/* Read a word in each page of the range; tell when done. */
static GUEST void touch(uint64_t gpa, uint64_t size)
{
	guest_sync(0);
	for (uint64_t at = gpa; at < gpa + size; at += PAGE)
		guest_read(at);
	guest_sync(1);
}

static int pre_fault(struct vcpu *vcpu, struct kvm_pre_fault_memory *range)
{
	return ioctl(vcpu->fd, KVM_PRE_FAULT_MEMORY, range);
}

FIXTURE_SETUP(prefault)
{
	/* The guest's page tables, which it is yet to walk, are there too. */
	struct kvm_pre_fault_memory boot = { .gpa = 0, .size = BOOT_SIZE };

	vm_create(&self->vm, KVM_X86_SW_PROTECTED_VM);
	vcpu_create(&self->vm, &self->vcpu, 0);
	self->fd = create(SIZE, RESTRICTEDMEM_THP_ALWAYS);
	ASSERT_LE(0, self->fd);
	self->hva = map_anonymous(SIZE);
	vm_add_private(&self->vm, SLOT, DATA, SIZE, self->hva, self->fd);
	ASSERT_EQ(0, vm_set_private(&self->vm, DATA, SIZE, variant->private));
	vcpu_start(&self->vcpu, touch, DATA, SIZE, 0);
	vcpu_sync(&self->vcpu);
	ASSERT_EQ(0, pre_fault(&self->vcpu, &boot));
	self->huge = kvm_stat(self->vm.fd, "pages_2m");
	self->mapped = kvm_stat(self->vm.fd, "pages_4k") +
		       self->huge * (HUGE / PAGE);
}

FIXTURE_TEARDOWN(prefault)
{
	vcpu_destroy(&self->vcpu);
	vm_destroy(&self->vm);
	close(self->fd);
}

#define EXPECT_REFUSED(_errno, ...) do {				\
	struct kvm_pre_fault_memory _range = { __VA_ARGS__ };		\
									\
	EXPECT_EQ(-1, pre_fault(&self->vcpu, &_range));			\
	EXPECT_EQ(_errno, errno);					\
} while (0)

/* Pages that KVM maps for the guest, since the fixture was set up. */
#define mapped_pages() (kvm_stat(self->vm.fd, "pages_4k") +		\
	kvm_stat(self->vm.fd, "pages_2m") * (HUGE / PAGE) - self->mapped)

/* No guest was entered since, which would have thrown the old tables away. */
TEST_F(prefault, works_right_after_a_slot_went)
{
	struct kvm_pre_fault_memory range = { .gpa = DATA, .size = SIZE };

	ASSERT_EQ(0, vm_region(&self->vm, SLOT, 0, 0, NULL));
	vm_add_private(&self->vm, SLOT, DATA, SIZE, self->hva, self->fd);
	ASSERT_EQ(0, vm_set_private(&self->vm, DATA, SIZE, variant->private));
	EXPECT_EQ(0, pre_fault(&self->vcpu, &range));
	EXPECT_EQ(0, range.size);
	EXPECT_EQ(1, vcpu_sync(&self->vcpu));
}

TEST_F(prefault, capability_is_reported)
{
	EXPECT_EQ(1, ioctl(self->vm.kvm, KVM_CHECK_EXTENSION,
			   KVM_CAP_PRE_FAULT_MEMORY));
	EXPECT_EQ(1, ioctl(self->vm.fd, KVM_CHECK_EXTENSION,
			   KVM_CAP_PRE_FAULT_MEMORY));
}

TEST_F(prefault, wrong_arguments)
{
	EXPECT_REFUSED(EINVAL, .gpa = DATA, .size = PAGE, .flags = 1);
	EXPECT_REFUSED(EINVAL, .gpa = DATA, .size = 0);
	EXPECT_REFUSED(EINVAL, .gpa = DATA + 1, .size = PAGE);
	EXPECT_REFUSED(EINVAL, .gpa = DATA, .size = PAGE - 1);
	EXPECT_REFUSED(EINVAL, .gpa = -PAGE, .size = 2 * PAGE);
	EXPECT_REFUSED(EINVAL, .gpa = -PAGE, .size = PAGE);
	EXPECT_EQ(-1, pre_fault(&self->vcpu, NULL));
	EXPECT_EQ(EFAULT, errno);
	EXPECT_EQ(0, mapped_pages());
}

TEST_F(prefault, range_is_mapped)
{
	struct kvm_pre_fault_memory range = { .gpa = DATA, .size = SIZE };

	ASSERT_EQ(0, pre_fault(&self->vcpu, &range));
	EXPECT_EQ(DATA + SIZE, range.gpa);
	EXPECT_EQ(0, range.size);
	EXPECT_EQ(SIZE / PAGE, mapped_pages());
	if (variant->private) {
		EXPECT_EQ(SIZE, resident(self->fd));
		EXPECT_EQ(4, kvm_stat(self->vm.fd, "pages_2m") - self->huge);
	}
}

TEST_F(prefault, guest_takes_no_more_faults)
{
	struct kvm_pre_fault_memory range = { .gpa = DATA, .size = SIZE };
	uint64_t faults;

	ASSERT_EQ(0, pre_fault(&self->vcpu, &range));
	faults = kvm_stat(self->vcpu.fd, "pf_taken");
	EXPECT_EQ(1, vcpu_sync(&self->vcpu));
	EXPECT_EQ(faults, kvm_stat(self->vcpu.fd, "pf_taken"));
}

TEST_F(prefault, mapped_range_is_passed_over)
{
	struct kvm_pre_fault_memory range = { .gpa = DATA, .size = SIZE };

	EXPECT_EQ(1, vcpu_sync(&self->vcpu));
	EXPECT_EQ(0, pre_fault(&self->vcpu, &range));
	EXPECT_EQ(0, range.size);
	EXPECT_EQ(SIZE / PAGE, mapped_pages());
}

TEST_F(prefault, one_page_maps_what_a_fault_would)
{
	struct kvm_pre_fault_memory range = { .gpa = DATA + PAGE, .size = PAGE };

	ASSERT_EQ(0, pre_fault(&self->vcpu, &range));
	EXPECT_EQ(DATA + 2 * PAGE, range.gpa);
	if (variant->private)
		EXPECT_EQ(HUGE / PAGE, mapped_pages());
}

TEST_F(prefault, nothing_is_mapped_where_there_is_no_slot)
{
	EXPECT_REFUSED(ENOENT, .gpa = NOWHERE, .size = PAGE);
	EXPECT_EQ(0, mapped_pages());
}

TEST_F(prefault, it_stops_at_the_slots_end)
{
	struct kvm_pre_fault_memory range = {
		.gpa = DATA + SIZE - 2 * PAGE,
		.size = 4 * PAGE,
	};

	EXPECT_EQ(0, pre_fault(&self->vcpu, &range));
	EXPECT_EQ(DATA + SIZE, range.gpa);
	EXPECT_EQ(2 * PAGE, range.size);
	EXPECT_EQ(-1, pre_fault(&self->vcpu, &range));
	EXPECT_EQ(ENOENT, errno);
	EXPECT_EQ(2 * PAGE, range.size);
}

TEST_F(prefault, private_gfn_without_a_slot_fails)
{
	ASSERT_EQ(0, vm_set_private(&self->vm, NOWHERE, PAGE, true));
	EXPECT_REFUSED(EFAULT, .gpa = NOWHERE, .size = PAGE);
}

static GUEST void read_register(uint64_t gpa)
{
	guest_sync(guest_read(gpa));
}

/* The answer to another exit is in kvm_run already. */
TEST_F(prefault, failure_leaves_the_last_exit_alone)
{
	const uint64_t gpa = variant->private ? NOWHERE + PAGE : DATA + SIZE - PAGE;
	struct kvm_run *run = self->vcpu.run;
	const uint64_t answer = 42;

	ASSERT_EQ(0, variant->private ? vm_set_private(&self->vm, gpa, PAGE, true) :
		     munmap(self->hva + SIZE - PAGE, PAGE));
	vcpu_start(&self->vcpu, read_register, NOWHERE, 0, 0);
	ASSERT_EQ(KVM_EXIT_MMIO, vcpu_run(&self->vcpu));
	memcpy(run->mmio.data, &answer, sizeof(answer));
	EXPECT_REFUSED(EFAULT, .gpa = gpa, .size = PAGE);
	EXPECT_EQ(KVM_EXIT_MMIO, run->exit_reason);
	EXPECT_EQ(NOWHERE, run->mmio.phys_addr);
	EXPECT_EQ(answer, vcpu_sync(&self->vcpu));
}

TEST(prefault_of_a_default_vm)
{
	struct kvm_pre_fault_memory range = { .gpa = 0, .size = BOOT_SIZE };
	struct vcpu vcpu;
	struct vm vm;

	vm_create(&vm, KVM_X86_DEFAULT_VM);
	vcpu_create(&vm, &vcpu, 0);
	EXPECT_EQ(0, pre_fault(&vcpu, &range));
	EXPECT_EQ(0, range.size);
	vcpu_destroy(&vcpu);
	vm_destroy(&vm);
}

TEST_HARNESS_MAIN
