// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * Slots of other kinds beside a private one in the same VM: ROM, read-only slots,
 * file mappings as an NVDIMM has them, dirty logging, moved slots. The private
 * slot's contents and mappings are checked after each.
 */
#include <sys/mman.h>

#include "kselftest_harness.h"
#include "kvm_util.h"

#define SIZE		(2 * HUGE)
#define SLOT		1
#define OTHER_SLOT	2
#define OTHER		(DATA + SIZE)	/* right behind the private slot */

FIXTURE(slots) {
	uint64_t resident;
	struct vm vm;
	struct vcpu vcpu;
	int fd;
	char *hva;		/* of the other slot */
	uint64_t huge;		/* 2M mappings with the private slot's */
};

static GUEST void write_numbers(uint64_t gpa, uint64_t pages)
{
	for (uint64_t i = 0; i < pages; i++)
		guest_write(gpa + i * PAGE, i + 1);
	guest_done();
}

static GUEST void count_wrong(uint64_t gpa, uint64_t pages)
{
	uint64_t wrong = 0;

	for (uint64_t i = 0; i < pages; i++)
		wrong += guest_read(gpa + i * PAGE) != i + 1;
	guest_sync(wrong);
	guest_done();
}

/* Write, and after the write tell what is there. */
static GUEST void write_and_read(uint64_t gpa, uint64_t value)
{
	guest_write(gpa, value);
	guest_sync(guest_read(gpa));
	guest_done();
}

static void start(struct vcpu *vcpu, void *function, uint64_t a, uint64_t b)
{
	vcpu_start(vcpu, function, a, b, 0);
}

FIXTURE_SETUP(slots)
{
	self->resident = resident_total();
	vm_create(&self->vm, KVM_X86_SW_PROTECTED_VM);
	vcpu_create(&self->vm, &self->vcpu, 0);
	self->fd = create_huge(SIZE);
	ASSERT_LE(0, self->fd);
	self->hva = map_anonymous(SIZE);
	vm_add_private(&self->vm, SLOT, DATA, SIZE, NULL, self->fd);
	start(&self->vcpu, write_numbers, DATA, SIZE / PAGE);
	vcpu_done(&self->vcpu);
	self->huge = kvm_stat(self->vm.fd, "pages_2m");
}

/* Whatever a test did, the private slot is as it was. */
FIXTURE_TEARDOWN(slots)
{
	start(&self->vcpu, count_wrong, DATA, SIZE / PAGE);
	EXPECT_EQ(0, vcpu_sync(&self->vcpu));
	EXPECT_LE(self->huge, kvm_stat(self->vm.fd, "pages_2m"));
	vcpu_destroy(&self->vcpu);
	vm_destroy(&self->vm);
	close(self->fd);
	EXPECT_EQ(self->resident, resident_total());
}

static int add_other(struct vm *vm, uint32_t flags, uint64_t size, void *hva)
{
	return vm_region2(vm, OTHER_SLOT, flags, OTHER, size, hva, -1, 0);
}

/* The guest's next read is MMIO, and gets @value. Return: what it then tells. */
static uint64_t read_from_mmio(struct vcpu *vcpu, uint64_t value)
{
	CHECK(vcpu_run(vcpu) == KVM_EXIT_MMIO);
	CHECK(!vcpu->run->mmio.is_write && vcpu->run->mmio.len == 8);
	memcpy(vcpu->run->mmio.data, &value, 8);
	return vcpu_sync(vcpu);
}

/* Read-only */

TEST_F(slots, rom_is_read)
{
	*(uint64_t *)(self->hva + 8 * PAGE) = 42;
	ASSERT_EQ(0, add_other(&self->vm, KVM_MEM_READONLY, SIZE, self->hva));
	start(&self->vcpu, watch_word, OTHER + 8 * PAGE, 0);
	EXPECT_EQ(42, vcpu_sync(&self->vcpu));
}

TEST_F(slots, rom_write_is_mmio)
{
	*(uint64_t *)self->hva = 42;
	ASSERT_EQ(0, add_other(&self->vm, KVM_MEM_READONLY, SIZE, self->hva));
	start(&self->vcpu, write_and_read, OTHER, 7);
	ASSERT_EQ(KVM_EXIT_MMIO, vcpu_run(&self->vcpu));
	EXPECT_EQ(OTHER, self->vcpu.run->mmio.phys_addr);
	EXPECT_EQ(1, self->vcpu.run->mmio.is_write);
	EXPECT_EQ(7, self->vcpu.run->mmio.data[0]);
	EXPECT_EQ(42, vcpu_sync(&self->vcpu));
	EXPECT_EQ(42, *(uint64_t *)self->hva);
}

TEST_F(slots, rom_of_a_read_only_mapping)
{
	ASSERT_EQ(0, mprotect(self->hva, SIZE, PROT_READ));
	ASSERT_EQ(0, add_other(&self->vm, KVM_MEM_READONLY, SIZE, self->hva));
	start(&self->vcpu, watch_word, OTHER, 0);
	EXPECT_EQ(0, vcpu_sync(&self->vcpu));
}

/* As QEMU does with pflash: ROM, then gone, then ROM again. */
TEST_F(slots, rom_comes_and_goes)
{
	*(uint64_t *)self->hva = 42;
	for (int i = 0; i < 5; i++) {
		ASSERT_EQ(0, add_other(&self->vm, KVM_MEM_READONLY, SIZE, self->hva));
		start(&self->vcpu, watch_word, OTHER, 0);
		ASSERT_EQ(42, vcpu_sync(&self->vcpu));
		ASSERT_EQ(0, add_other(&self->vm, 0, 0, NULL));
		ASSERT_EQ(17, read_from_mmio(&self->vcpu, 17));
	}
}

/* A private gfn of a slot that has no private half is nobody's. */
TEST_F(slots, private_rom_exits)
{
	ASSERT_EQ(0, add_other(&self->vm, KVM_MEM_READONLY, SIZE, self->hva));
	ASSERT_EQ(0, vm_set_private(&self->vm, OTHER, PAGE, true));
	start(&self->vcpu, watch_word, OTHER, 0);
	EXPECT_EQ(OTHER, vcpu_fault(&self->vcpu)->gpa);
	EXPECT_EQ(EFAULT, self->vcpu.error);
	ASSERT_EQ(0, vm_set_private(&self->vm, OTHER, PAGE, false));
	EXPECT_EQ(0, vcpu_sync(&self->vcpu));
}

/* A file that is mapped */

TEST_F(slots, nvdimm_is_the_file)
{
	int file = memfd_create("nvdimm", 0);
	uint64_t word;
	char *hva;

	ASSERT_EQ(0, ftruncate(file, SIZE));
	hva = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	ASSERT_NE(MAP_FAILED, hva);
	ASSERT_EQ(0, add_other(&self->vm, 0, SIZE, hva));
	start(&self->vcpu, write_word, OTHER + 3 * PAGE, 42);
	vcpu_done(&self->vcpu);
	ASSERT_EQ(8, pread(file, &word, 8, 3 * PAGE));
	EXPECT_EQ(42, word);

	/* What happens to the file reaches the guest by KVM's MMU notifier. */
	start(&self->vcpu, watch_word, OTHER + 3 * PAGE, 0);
	EXPECT_EQ(42, vcpu_sync(&self->vcpu));
	ASSERT_EQ(0, punch(file, 0, SIZE));
	EXPECT_EQ(0, vcpu_sync(&self->vcpu));
	munmap(hva, SIZE);
	close(file);
}

TEST_F(slots, nvdimm_beyond_its_file_exits)
{
	int file = memfd_create("nvdimm", 0);
	char *hva;

	ASSERT_EQ(0, ftruncate(file, PAGE));
	hva = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	ASSERT_NE(MAP_FAILED, hva);
	ASSERT_EQ(0, add_other(&self->vm, 0, SIZE, hva));
	start(&self->vcpu, watch_word, OTHER + 3 * PAGE, 0);
	EXPECT_EQ(OTHER + 3 * PAGE, vcpu_fault(&self->vcpu)->gpa);
	EXPECT_EQ(EFAULT, self->vcpu.error);
	munmap(hva, SIZE);
	close(file);
}

/* Dirty logging, which private slots refuse */

TEST_F(slots, ordinary_slot_is_logged)
{
	uint64_t bits[SIZE / PAGE / 64];
	struct kvm_dirty_log log = { .slot = OTHER_SLOT, .dirty_bitmap = bits };

	ASSERT_EQ(0, add_other(&self->vm, 0, SIZE, self->hva));
	start(&self->vcpu, write_word, OTHER, 1);
	vcpu_done(&self->vcpu);
	ASSERT_EQ(0, add_other(&self->vm, KVM_MEM_LOG_DIRTY_PAGES, SIZE, self->hva));
	start(&self->vcpu, write_word, OTHER + 70 * PAGE, 1);
	vcpu_done(&self->vcpu);
	ASSERT_EQ(0, ioctl(self->vm.fd, KVM_GET_DIRTY_LOG, &log));
	EXPECT_EQ(0, bits[0]);
	EXPECT_EQ(1ULL << 6, bits[1]);
}

TEST_F(slots, logging_comes_and_goes)
{
	ASSERT_EQ(0, add_other(&self->vm, 0, SIZE, self->hva));
	for (int i = 0; i < 5; i++) {
		ASSERT_EQ(0, add_other(&self->vm, KVM_MEM_LOG_DIRTY_PAGES, SIZE,
				       self->hva));
		start(&self->vcpu, write_and_read, OTHER + i * PAGE, 7);
		ASSERT_EQ(7, vcpu_sync(&self->vcpu));
		ASSERT_EQ(0, add_other(&self->vm, 0, SIZE, self->hva));
	}
}

/* Places */

TEST_F(slots, ordinary_slot_moves)
{
	*(uint64_t *)self->hva = 42;
	ASSERT_EQ(0, add_other(&self->vm, 0, SIZE, self->hva));
	start(&self->vcpu, watch_word, OTHER, 0);
	ASSERT_EQ(42, vcpu_sync(&self->vcpu));
	ASSERT_EQ(0, vm_region2(&self->vm, OTHER_SLOT, 0, OTHER + GIB, SIZE,
				self->hva, -1, 0));
	EXPECT_EQ(17, read_from_mmio(&self->vcpu, 17));
	start(&self->vcpu, watch_word, OTHER + GIB, 0);
	EXPECT_EQ(42, vcpu_sync(&self->vcpu));
}

TEST_F(slots, ordinary_slot_does_not_move_onto_a_private_one)
{
	ASSERT_EQ(0, add_other(&self->vm, 0, SIZE, self->hva));
	EXPECT_FAILS(EEXIST, vm_region2(&self->vm, OTHER_SLOT, 0, DATA + PAGE, SIZE,
					self->hva, -1, 0));
}

/* Private, ordinary, private, within one 2M page of the guest. */
TEST_F(slots, kinds_alternate_within_a_huge_page)
{
	int fd = create_huge(SIZE);

	ASSERT_LE(0, fd);
	ASSERT_EQ(0, vm_region2(&self->vm, 3, KVM_MEM_GUEST_MEMFD, OTHER, 8 * PAGE,
				NULL, fd, 0));
	ASSERT_EQ(0, vm_region2(&self->vm, 4, 0, OTHER + 8 * PAGE, 8 * PAGE,
				self->hva, -1, 0));
	ASSERT_EQ(0, vm_region2(&self->vm, 5, KVM_MEM_GUEST_MEMFD, OTHER + 16 * PAGE,
				HUGE - 16 * PAGE, NULL, fd, 16 * PAGE));
	ASSERT_EQ(0, vm_set_private(&self->vm, OTHER, 8 * PAGE, true));
	ASSERT_EQ(0, vm_set_private(&self->vm, OTHER + 16 * PAGE, HUGE, true));
	start(&self->vcpu, write_numbers, OTHER, HUGE_PAGES);
	vcpu_done(&self->vcpu);
	start(&self->vcpu, count_wrong, OTHER, HUGE_PAGES);
	EXPECT_EQ(0, vcpu_sync(&self->vcpu));
	for (uint64_t i = 0; i < 8; i++)
		EXPECT_EQ(8 + i + 1, *(uint64_t *)(self->hva + i * PAGE));
	EXPECT_EQ(0, *(uint64_t *)(self->hva + 8 * PAGE));
	close(fd);
}

/* A file may be cut up and put together in another order. */
TEST_F(slots, one_file_in_several_slots)
{
	int fd = create_huge(SIZE);

	ASSERT_LE(0, fd);
	ASSERT_EQ(0, vm_region2(&self->vm, 3, KVM_MEM_GUEST_MEMFD, OTHER, HUGE, NULL,
				fd, HUGE));
	ASSERT_EQ(0, vm_region2(&self->vm, 4, KVM_MEM_GUEST_MEMFD, OTHER + HUGE, HUGE,
				NULL, fd, 0));
	ASSERT_EQ(0, vm_set_private(&self->vm, OTHER, SIZE, true));
	start(&self->vcpu, write_word, OTHER + HUGE, 42);
	vcpu_done(&self->vcpu);
	ASSERT_EQ(0, punch(fd, HUGE, HUGE));
	start(&self->vcpu, watch_word, OTHER + HUGE, 0);
	EXPECT_EQ(42, vcpu_sync(&self->vcpu));
	ASSERT_EQ(0, punch(fd, 0, HUGE));
	EXPECT_EQ(0, vcpu_sync(&self->vcpu));
	close(fd);
}

/* KVM_CAP_MEMORY_FAULT_INFO is for VMs of every type. */
TEST(default_vm_tells_of_its_faults)
{
	struct restrictedmem_kvm_memory_fault *fault;
	struct vcpu vcpu;
	struct vm vm;

	vm_create(&vm, KVM_X86_DEFAULT_VM);
	vcpu_create(&vm, &vcpu, 0);
	ASSERT_EQ(0, vm_region2(&vm, SLOT, 0, DATA, SIZE, NULL, -1, 0));
	start(&vcpu, write_word, DATA + PAGE + 8, 1);
	fault = vcpu_fault(&vcpu);
	EXPECT_EQ(EFAULT, vcpu.error);
	EXPECT_EQ(DATA + PAGE, fault->gpa);
	EXPECT_EQ(PAGE, fault->size);
	EXPECT_EQ(0, fault->flags);
	vcpu_destroy(&vcpu);
	vm_destroy(&vm);
}

TEST_HARNESS_MAIN
