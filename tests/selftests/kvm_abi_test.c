// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * KVM's interface to private memory: capabilities, and the errno of every
 * request that is wrong, as mainline has them.
 */
#include "kselftest_harness.h"
#include "kvm_util.h"

#define SIZE		(16 * PAGE)
#define MAX_SLOTS	32000

FIXTURE(abi) {
	struct vm vm;
	int fd;
	char *hva;
};

FIXTURE_VARIANT(abi) {
	bool guest_memfd;
};

FIXTURE_VARIANT_ADD(abi, restrictedmem) {
	.guest_memfd = false,
};

FIXTURE_VARIANT_ADD(abi, guest_memfd) {
	.guest_memfd = true,
};

static int create_guest_memfd(int vm, uint64_t size, uint64_t flags)
{
	struct kvm_create_guest_memfd args = { .size = size, .flags = flags };

	return ioctl(vm, KVM_CREATE_GUEST_MEMFD, &args);
}

static int memfd(struct vm *vm, uint64_t size, bool guest_memfd)
{
	return guest_memfd ? create_guest_memfd(vm->fd, size, 0) :
			     create_small(size);
}

FIXTURE_SETUP(abi)
{
	vm_create(&self->vm, KVM_X86_SW_PROTECTED_VM);
	self->fd = memfd(&self->vm, SIZE, variant->guest_memfd);
	ASSERT_LE(0, self->fd);
	self->hva = map_anonymous(SIZE);
}

FIXTURE_TEARDOWN(abi)
{
	vm_destroy(&self->vm);
	close(self->fd);
	munmap(self->hva, SIZE);
}

#define REGION2(_slot, _gpa, _size, _fd, _offset) \
	vm_region2(&self->vm, _slot, KVM_MEM_GUEST_MEMFD, _gpa, _size, \
		   self->hva, _fd, _offset)

static int kvm_cap(int fd, long cap)
{
	return ioctl(fd, KVM_CHECK_EXTENSION, cap);
}

/* Capabilities and types */

TEST(capabilities_of_the_system)
{
	int kvm = open("/dev/kvm", O_RDWR);

	ASSERT_LE(0, kvm);
	EXPECT_EQ(1, kvm_cap(kvm, KVM_CAP_USER_MEMORY2));
	EXPECT_EQ(1, kvm_cap(kvm, KVM_CAP_MEMORY_FAULT_INFO));
	EXPECT_EQ(KVM_MEMORY_ATTRIBUTE_PRIVATE,
		  kvm_cap(kvm, KVM_CAP_MEMORY_ATTRIBUTES));
	EXPECT_EQ(1, kvm_cap(kvm, KVM_CAP_GUEST_MEMFD));
	EXPECT_EQ(1 << KVM_X86_DEFAULT_VM | 1 << KVM_X86_SW_PROTECTED_VM,
		  kvm_cap(kvm, KVM_CAP_VM_TYPES));
	EXPECT_EQ(0, kvm_cap(kvm, KVM_CAP_GUEST_MEMFD_FLAGS));
}

TEST(capabilities_of_a_vm_with_private_memory)
{
	struct vm vm;

	vm_create(&vm, KVM_X86_SW_PROTECTED_VM);
	EXPECT_EQ(1, kvm_cap(vm.fd, KVM_CAP_USER_MEMORY2));
	EXPECT_EQ(1, kvm_cap(vm.fd, KVM_CAP_MEMORY_FAULT_INFO));
	EXPECT_EQ(KVM_MEMORY_ATTRIBUTE_PRIVATE,
		  kvm_cap(vm.fd, KVM_CAP_MEMORY_ATTRIBUTES));
	EXPECT_EQ(1, kvm_cap(vm.fd, KVM_CAP_GUEST_MEMFD));
}

TEST(capabilities_of_a_default_vm)
{
	struct vm vm;

	vm_create(&vm, KVM_X86_DEFAULT_VM);
	EXPECT_EQ(1, kvm_cap(vm.fd, KVM_CAP_USER_MEMORY2));
	EXPECT_EQ(1, kvm_cap(vm.fd, KVM_CAP_MEMORY_FAULT_INFO));
	EXPECT_EQ(0, kvm_cap(vm.fd, KVM_CAP_MEMORY_ATTRIBUTES));
	EXPECT_EQ(0, kvm_cap(vm.fd, KVM_CAP_GUEST_MEMFD));
}

TEST(capabilities_are_not_enabled)
{
	static const long caps[] = {
		KVM_CAP_USER_MEMORY2, KVM_CAP_MEMORY_FAULT_INFO,
		KVM_CAP_MEMORY_ATTRIBUTES, KVM_CAP_GUEST_MEMFD,
		KVM_CAP_VM_TYPES, KVM_CAP_PRE_FAULT_MEMORY,
	};
	struct vcpu vcpu;
	struct vm vm;

	vm_create(&vm, KVM_X86_SW_PROTECTED_VM);
	vcpu_create(&vm, &vcpu, 0);
	for (int i = 0; i < ARRAY_SIZE(caps); i++) {
		struct kvm_enable_cap cap = { .cap = caps[i] };

		EXPECT_FAILS(EINVAL, ioctl(vm.fd, KVM_ENABLE_CAP, &cap));
		EXPECT_FAILS(EINVAL, ioctl(vcpu.fd, KVM_ENABLE_CAP, &cap));
	}
	vcpu_destroy(&vcpu);
	vm_destroy(&vm);
}

/* PRE_FAULT_MEMORY works exactly if it is announced. */
TEST(pre_fault_is_there_or_unknown)
{
	struct kvm_pre_fault_memory range = { .gpa = 0, .size = PAGE };
	struct vcpu vcpu;
	struct vm vm;

	vm_create(&vm, KVM_X86_SW_PROTECTED_VM);
	vcpu_create(&vm, &vcpu, 0);
	if (kvm_cap(vm.kvm, KVM_CAP_PRE_FAULT_MEMORY)) {
		EXPECT_EQ(0, ioctl(vcpu.fd, KVM_PRE_FAULT_MEMORY, &range));
	} else {
		EXPECT_NE(0, ioctl(vcpu.fd, KVM_PRE_FAULT_MEMORY, &range));
	}
}

TEST(unknown_vm_types)
{
	static const unsigned long types[] = { 2, 3, 63, 64, 1UL << 32, -1UL };
	int kvm = open("/dev/kvm", O_RDWR);

	ASSERT_LE(0, kvm);
	for (int i = 0; i < ARRAY_SIZE(types); i++)
		EXPECT_FAILS(EINVAL, ioctl(kvm, KVM_CREATE_VM, types[i]));
}

TEST(info_says_that_kvm_is_there)
{
	struct restrictedmem_info info;

	ASSERT_EQ(0, get_info(&info));
	EXPECT_TRUE(info.features & RESTRICTEDMEM_FEATURE_KVM);
}

/* Slots */

TEST_F(abi, private_slot_is_created_and_deleted)
{
	EXPECT_WORKS(REGION2(1, DATA, SIZE, self->fd, 0));
	EXPECT_EQ(1, fdinfo_number(self->fd, "bindings"));
	EXPECT_WORKS(vm_region(&self->vm, 1, DATA, 0, NULL));
	EXPECT_EQ(0, fdinfo_number(self->fd, "bindings"));
}

TEST_F(abi, deleted_slot_can_be_created_again)
{
	for (int i = 0; i < 3; i++) {
		EXPECT_WORKS(REGION2(1, DATA, SIZE, self->fd, 0));
		EXPECT_WORKS(REGION2(1, DATA, 0, self->fd, 0));
	}
}

TEST_F(abi, ordinary_slot_by_region2)
{
	EXPECT_WORKS(vm_region2(&self->vm, 1, 0, DATA, SIZE, self->hva, -1, 0));
	EXPECT_WORKS(vm_region2(&self->vm, 1, KVM_MEM_LOG_DIRTY_PAGES, DATA, SIZE,
				self->hva, -1, 0));
	EXPECT_WORKS(vm_region2(&self->vm, 1, 0, DATA, 0, NULL, -1, 0));
	EXPECT_WORKS(vm_region2(&self->vm, 2, KVM_MEM_READONLY, DATA, SIZE,
				self->hva, -1, 0));
}

TEST_F(abi, old_ioctl_knows_no_private_memory)
{
	struct kvm_userspace_memory_region region = {
		.slot = 1,
		.flags = KVM_MEM_GUEST_MEMFD,
		.guest_phys_addr = DATA,
		.memory_size = SIZE,
		.userspace_addr = (uintptr_t)self->hva,
	};

	EXPECT_FAILS(EINVAL, ioctl(self->vm.fd, KVM_SET_USER_MEMORY_REGION,
				   &region));
}

TEST_F(abi, unknown_slot_flags)
{
	for (int bit = 3; bit < 32; bit++) {
		EXPECT_FAILS(EINVAL, vm_region2(&self->vm, 1, 1U << bit, DATA, SIZE,
						self->hva, self->fd, 0));
		EXPECT_FAILS(EINVAL, vm_region2(&self->vm, 1,
						1U << bit | KVM_MEM_GUEST_MEMFD,
						DATA, SIZE, self->hva, self->fd, 0));
	}
}

TEST_F(abi, private_slot_is_neither_logged_nor_read_only)
{
	static const uint32_t flags[] = {
		KVM_MEM_LOG_DIRTY_PAGES, KVM_MEM_READONLY,
		KVM_MEM_LOG_DIRTY_PAGES | KVM_MEM_READONLY,
	};

	for (int i = 0; i < ARRAY_SIZE(flags); i++)
		EXPECT_FAILS(EINVAL, vm_region2(&self->vm, 1,
						KVM_MEM_GUEST_MEMFD | flags[i],
						DATA, SIZE, self->hva, self->fd, 0));
	EXPECT_EQ(0, fdinfo_number(self->fd, "bindings"));
}

TEST_F(abi, private_slot_has_no_dirty_log)
{
	uint64_t bitmap = 0;
	struct kvm_dirty_log log = { .slot = 1, .dirty_bitmap = &bitmap };

	ASSERT_EQ(0, REGION2(1, DATA, SIZE, self->fd, 0));
	EXPECT_FAILS(ENOENT, ioctl(self->vm.fd, KVM_GET_DIRTY_LOG, &log));
}

TEST_F(abi, bad_fd)
{
	int closed = dup(self->fd);

	close(closed);
	EXPECT_FAILS(EBADF, REGION2(1, DATA, SIZE, -1, 0));
	EXPECT_FAILS(EBADF, REGION2(1, DATA, SIZE, closed, 0));
	EXPECT_FAILS(EBADF, REGION2(1, DATA, SIZE, 1 << 30, 0));
}

TEST_F(abi, foreign_file)
{
	int null = open("/dev/null", O_RDWR), plain = memfd_create("x", 0);
	int dev = device_open();

	ASSERT_EQ(0, ftruncate(plain, SIZE));
	EXPECT_FAILS(EINVAL, REGION2(1, DATA, SIZE, null, 0));
	EXPECT_FAILS(EINVAL, REGION2(1, DATA, SIZE, plain, 0));
	EXPECT_FAILS(EINVAL, REGION2(1, DATA, SIZE, dev, 0));
	EXPECT_FAILS(EINVAL, REGION2(1, DATA, SIZE, self->vm.fd, 0));
}

TEST_F(abi, o_path_fd)
{
	int path = open(path_of("/proc/self/fd/%d", self->fd), O_PATH);

	ASSERT_LE(0, path);
	EXPECT_FAILS(EBADF, REGION2(1, DATA, SIZE, path, 0));
	close(path);
}

TEST_F(abi, file_without_a_size)
{
	int fd = create_small(0);

	ASSERT_LE(0, fd);
	EXPECT_FAILS(EINVAL, REGION2(1, DATA, SIZE, fd, 0));
	close(fd);
}

TEST_F(abi, file_of_another_vm)
{
	struct vm other;

	vm_create(&other, KVM_X86_SW_PROTECTED_VM);
	ASSERT_EQ(0, REGION2(1, DATA, SIZE / 2, self->fd, 0));
	EXPECT_FAILS(EINVAL, vm_region2(&other, 1, KVM_MEM_GUEST_MEMFD, DATA,
					SIZE / 2, self->hva, self->fd, 0));
	EXPECT_FAILS(EINVAL, vm_region2(&other, 1, KVM_MEM_GUEST_MEMFD, DATA,
					SIZE / 2, self->hva, self->fd, SIZE / 2));
	vm_destroy(&other);
}

TEST_F(abi, file_of_a_vm_that_is_dead)
{
	struct vm other;
	int fd;

	vm_create(&other, KVM_X86_SW_PROTECTED_VM);
	fd = memfd(&other, SIZE, variant->guest_memfd);
	ASSERT_LE(0, fd);
	ASSERT_EQ(0, vm_region2(&other, 1, KVM_MEM_GUEST_MEMFD, DATA, SIZE,
				self->hva, fd, 0));
	vm_destroy(&other);
	EXPECT_FAILS(EINVAL, REGION2(1, DATA, SIZE, fd, 0));
	close(fd);
}

TEST_F(abi, file_stays_the_vms_after_its_slot_is_deleted)
{
	struct vm other;

	ASSERT_EQ(0, REGION2(1, DATA, SIZE, self->fd, 0));
	ASSERT_EQ(0, REGION2(1, DATA, 0, self->fd, 0));
	vm_create(&other, KVM_X86_SW_PROTECTED_VM);
	EXPECT_FAILS(EINVAL, vm_region2(&other, 1, KVM_MEM_GUEST_MEMFD, DATA,
					SIZE, self->hva, self->fd, 0));
	vm_destroy(&other);
}

TEST_F(abi, overlap_in_the_file)
{
	ASSERT_EQ(0, REGION2(1, DATA, SIZE / 2, self->fd, 0));
	EXPECT_FAILS(EINVAL, REGION2(2, 2 * DATA, SIZE / 2, self->fd, 0));
	EXPECT_FAILS(EINVAL, REGION2(2, 2 * DATA, SIZE / 2, self->fd,
				     SIZE / 2 - PAGE));
	EXPECT_FAILS(EINVAL, REGION2(2, 2 * DATA, SIZE, self->fd, 0));
	EXPECT_WORKS(REGION2(2, 2 * DATA, SIZE / 2, self->fd, SIZE / 2));
}

TEST_F(abi, overlap_in_the_guest)
{
	ASSERT_EQ(0, REGION2(1, DATA, SIZE / 2, self->fd, 0));
	EXPECT_FAILS(EEXIST, REGION2(2, DATA + SIZE / 2 - PAGE, SIZE / 2, self->fd,
				     SIZE / 2));
	EXPECT_FAILS(EEXIST, REGION2(2, 0, SIZE / 2, self->fd, SIZE / 2));
	EXPECT_EQ(1, fdinfo_number(self->fd, "bindings"));
	EXPECT_WORKS(REGION2(2, DATA + SIZE / 2, SIZE / 2, self->fd, SIZE / 2));
}

TEST_F(abi, offset_off_a_page)
{
	EXPECT_FAILS(EINVAL, REGION2(1, DATA, PAGE, self->fd, 1));
	EXPECT_FAILS(EINVAL, REGION2(1, DATA, PAGE, self->fd, PAGE - 1));
	EXPECT_FAILS(EINVAL, REGION2(1, DATA, PAGE, self->fd, 512));
}

TEST_F(abi, offset_beyond_the_end)
{
	EXPECT_FAILS(EINVAL, REGION2(1, DATA, SIZE, self->fd, PAGE));
	EXPECT_FAILS(EINVAL, REGION2(1, DATA, PAGE, self->fd, SIZE));
	EXPECT_FAILS(EINVAL, REGION2(1, DATA, 2 * SIZE, self->fd, 0));
	EXPECT_WORKS(REGION2(1, DATA, PAGE, self->fd, SIZE - PAGE));
}

TEST_F(abi, offset_that_overflows)
{
	EXPECT_FAILS(EINVAL, REGION2(1, DATA, SIZE, self->fd, -SIZE));
	EXPECT_FAILS(EINVAL, REGION2(1, DATA, SIZE, self->fd, -PAGE));
	EXPECT_FAILS(EINVAL, REGION2(1, DATA, PAGE, self->fd, 1ULL << 63));
}

TEST_F(abi, wrong_addresses)
{
	EXPECT_FAILS(EINVAL, REGION2(1, DATA + 1, PAGE, self->fd, 0));
	EXPECT_FAILS(EINVAL, REGION2(1, DATA, PAGE + 1, self->fd, 0));
	EXPECT_FAILS(EINVAL, REGION2(1, -PAGE, 2 * PAGE, self->fd, 0));
	EXPECT_FAILS(EINVAL, vm_region2(&self->vm, 1, KVM_MEM_GUEST_MEMFD, DATA,
					PAGE, self->hva + 1, self->fd, 0));
	EXPECT_FAILS(EINVAL, vm_region2(&self->vm, 1, KVM_MEM_GUEST_MEMFD, DATA,
					PAGE, (void *)(1UL << 63), self->fd, 0));
	EXPECT_FAILS(EINVAL, REGION2(MAX_SLOTS + 1000, DATA, PAGE, self->fd, 0));
}

TEST_F(abi, user_address_need_not_be_mapped)
{
	EXPECT_WORKS(vm_region2(&self->vm, 1, KVM_MEM_GUEST_MEMFD, DATA, SIZE,
				NULL, self->fd, 0));
}

TEST_F(abi, private_slot_cannot_be_changed)
{
	ASSERT_EQ(0, REGION2(1, DATA, SIZE / 2, self->fd, 0));
	/* moved */
	EXPECT_FAILS(EINVAL, REGION2(1, 2 * DATA, SIZE / 2, self->fd, 0));
	/* other part of the file */
	EXPECT_FAILS(EINVAL, REGION2(1, DATA, SIZE / 2, self->fd, SIZE / 2));
	/* the very same */
	EXPECT_FAILS(EINVAL, REGION2(1, DATA, SIZE / 2, self->fd, 0));
	/* other size */
	EXPECT_FAILS(EINVAL, REGION2(1, DATA, SIZE, self->fd, 0));
	/* made ordinary */
	EXPECT_FAILS(EINVAL, vm_region(&self->vm, 1, DATA, SIZE / 2, self->hva));
	EXPECT_FAILS(EINVAL, vm_region2(&self->vm, 1, KVM_MEM_LOG_DIRTY_PAGES, DATA,
					SIZE / 2, self->hva, -1, 0));
	EXPECT_EQ(1, fdinfo_number(self->fd, "bindings"));
}

TEST_F(abi, ordinary_slot_cannot_become_private)
{
	ASSERT_EQ(0, vm_region(&self->vm, 1, DATA, SIZE, self->hva));
	EXPECT_FAILS(EINVAL, REGION2(1, DATA, SIZE, self->fd, 0));
	EXPECT_EQ(0, fdinfo_number(self->fd, "bindings"));
}

TEST_F(abi, default_vm_has_no_private_slots)
{
	struct vm other;

	vm_create(&other, KVM_X86_DEFAULT_VM);
	EXPECT_FAILS(EINVAL, vm_region2(&other, 1, KVM_MEM_GUEST_MEMFD, DATA, SIZE,
					self->hva, self->fd, 0));
	EXPECT_WORKS(vm_region2(&other, 1, 0, DATA, SIZE, self->hva, -1, 0));
	vm_destroy(&other);
}

TEST_F(abi, failed_slot_claims_nothing)
{
	struct vm other;

	if (variant->guest_memfd)
		return;
	ASSERT_EQ(-1, REGION2(1, 0, SIZE, self->fd, 0));
	ASSERT_EQ(-1, REGION2(1, DATA, SIZE, self->fd, PAGE));
	/* Beyond what any processor can address: found out after the bind. */
	EXPECT_FAILS(EINVAL, REGION2(1, 1ULL << 58, SIZE, self->fd, 0));
	EXPECT_EQ(0, fdinfo_number(self->fd, "bindings"));
	EXPECT_EQ(0, fdinfo_number(self->fd, "owner"));
	vm_create(&other, KVM_X86_SW_PROTECTED_VM);
	EXPECT_WORKS(vm_region2(&other, 1, KVM_MEM_GUEST_MEMFD, DATA, SIZE,
				self->hva, self->fd, 0));
	vm_destroy(&other);
}

TEST_F(abi, bad_pointers)
{
	EXPECT_FAILS(EFAULT, ioctl(self->vm.fd, KVM_SET_USER_MEMORY_REGION2, NULL));
	EXPECT_FAILS(EFAULT, ioctl(self->vm.fd, KVM_SET_MEMORY_ATTRIBUTES, NULL));
	EXPECT_FAILS(EFAULT, ioctl(self->vm.fd, KVM_CREATE_GUEST_MEMFD, NULL));
}

/* Files that a VM makes */

TEST_F(abi, guest_memfd_of_a_wrong_size)
{
	EXPECT_FAILS(EINVAL, create_guest_memfd(self->vm.fd, 0, 0));
	EXPECT_FAILS(EINVAL, create_guest_memfd(self->vm.fd, 1, 0));
	EXPECT_FAILS(EINVAL, create_guest_memfd(self->vm.fd, PAGE + 1, 0));
	EXPECT_FAILS(EINVAL, create_guest_memfd(self->vm.fd, -PAGE, 0));
	EXPECT_FAILS(EINVAL, create_guest_memfd(self->vm.fd, 1ULL << 63, 0));
}

TEST_F(abi, guest_memfd_with_flags)
{
	for (int bit = 0; bit < 64; bit++)
		EXPECT_FAILS(EINVAL, create_guest_memfd(self->vm.fd, PAGE,
							1ULL << bit));
}

TEST_F(abi, guest_memfd_looks_as_in_mainline)
{
	int fd = create_guest_memfd(self->vm.fd, 4 * PAGE, 0);
	int other = create_guest_memfd(self->vm.fd, 4 * PAGE, 0);
	struct stat a, b;

	ASSERT_LE(0, fd);
	ASSERT_LE(0, other);
	ASSERT_EQ(0, fstat(fd, &a));
	ASSERT_EQ(0, fstat(other, &b));
	EXPECT_EQ(4 * PAGE, a.st_size);
	EXPECT_EQ(PAGE, a.st_blksize);
	EXPECT_NE(a.st_ino, b.st_ino);
	EXPECT_EQ(FD_CLOEXEC, fcntl(fd, F_GETFD));
	close(fd);
	close(other);
}

TEST_F(abi, guest_memfd_has_an_owner_from_birth)
{
	int fd = create_guest_memfd(self->vm.fd, 4 * PAGE, 0);
	struct vm other;

	ASSERT_LE(0, fd);
	EXPECT_LT(0, fdinfo_number(fd, "owner"));
	vm_create(&other, KVM_X86_SW_PROTECTED_VM);
	EXPECT_FAILS(EINVAL, vm_region2(&other, 1, KVM_MEM_GUEST_MEMFD, DATA,
					4 * PAGE, self->hva, fd, 0));
	vm_destroy(&other);
	close(fd);
}

TEST_F(abi, guest_memfd_of_a_default_vm)
{
	struct vm other;
	int fd;

	vm_create(&other, KVM_X86_DEFAULT_VM);
	fd = create_guest_memfd(other.fd, 4 * PAGE, 0);
	EXPECT_LE(0, fd);
	EXPECT_EQ(0, populate(fd, 0, PAGE));
	EXPECT_FAILS(EINVAL, vm_region2(&other, 1, KVM_MEM_GUEST_MEMFD, DATA,
					4 * PAGE, self->hva, fd, 0));
	close(fd);
	vm_destroy(&other);
}

TEST_F(abi, guest_memfd_works_after_its_vm)
{
	struct vm other;
	int fd;

	vm_create(&other, KVM_X86_SW_PROTECTED_VM);
	fd = create_guest_memfd(other.fd, 4 * PAGE, 0);
	ASSERT_LE(0, fd);
	vm_destroy(&other);
	EXPECT_EQ(0, populate(fd, 0, 2 * PAGE));
	EXPECT_EQ(2 * PAGE, resident(fd));
	EXPECT_EQ(0, punch(fd, 0, PAGE));
	EXPECT_EQ(PAGE, resident(fd));
	close(fd);
}

/* fallocate, to the errno of mainline's guest_memfd; more in file_test */
TEST_F(abi, fallocate_as_in_mainline)
{
	EXPECT_FAILS(EOPNOTSUPP, fallocate(self->fd, 0, 0, PAGE));
	EXPECT_FAILS(EOPNOTSUPP, fallocate(self->fd, FALLOC_FL_PUNCH_HOLE, 0, PAGE));
	EXPECT_FAILS(EINVAL, populate(self->fd, PAGE - 1, PAGE));
	EXPECT_FAILS(EINVAL, populate(self->fd, 0, PAGE - 1));
	EXPECT_FAILS(EINVAL, populate(self->fd, SIZE, PAGE));
	EXPECT_FAILS(EINVAL, populate(self->fd, SIZE - PAGE, 2 * PAGE));
	EXPECT_FAILS(EINVAL, punch(self->fd, PAGE, PAGE - 1));
	EXPECT_WORKS(punch(self->fd, SIZE, PAGE));
	EXPECT_WORKS(punch(self->fd, SIZE + PAGE, PAGE));
	EXPECT_WORKS(punch(self->fd, SIZE - PAGE, 2 * PAGE));
	EXPECT_WORKS(populate(self->fd, 0, PAGE));
	EXPECT_WORKS(punch(self->fd, 0, PAGE));
}

/* Attributes */

static int set_attributes(int vm, uint64_t address, uint64_t size,
			  uint64_t attributes, uint64_t flags)
{
	const struct kvm_memory_attributes args = {
		.address = address,
		.size = size,
		.attributes = attributes,
		.flags = flags,
	};

	return ioctl(vm, KVM_SET_MEMORY_ATTRIBUTES, &args);
}

#define PRIVATE KVM_MEMORY_ATTRIBUTE_PRIVATE

TEST_F(abi, attributes_with_flags)
{
	for (int bit = 0; bit < 64; bit++)
		EXPECT_FAILS(EINVAL, set_attributes(self->vm.fd, DATA, PAGE, PRIVATE,
						    1ULL << bit));
}

TEST_F(abi, unknown_attributes)
{
	for (int bit = 0; bit < 64; bit++) {
		if (1ULL << bit == PRIVATE)
			continue;
		EXPECT_FAILS(EINVAL, set_attributes(self->vm.fd, DATA, PAGE,
						    1ULL << bit, 0));
	}
}

TEST_F(abi, attributes_of_an_unaligned_range)
{
	EXPECT_FAILS(EINVAL, set_attributes(self->vm.fd, DATA + 1, PAGE, PRIVATE, 0));
	EXPECT_FAILS(EINVAL, set_attributes(self->vm.fd, DATA, PAGE + 1, PRIVATE, 0));
	EXPECT_FAILS(EINVAL, set_attributes(self->vm.fd, DATA, 1, PRIVATE, 0));
	EXPECT_FAILS(EINVAL, set_attributes(self->vm.fd, DATA + PAGE / 2, PAGE / 2,
					    PRIVATE, 0));
}

TEST_F(abi, attributes_of_nothing)
{
	EXPECT_FAILS(EINVAL, set_attributes(self->vm.fd, DATA, 0, PRIVATE, 0));
}

TEST_F(abi, attributes_of_a_range_that_wraps)
{
	EXPECT_FAILS(EINVAL, set_attributes(self->vm.fd, -PAGE, 2 * PAGE, PRIVATE, 0));
	EXPECT_FAILS(EINVAL, set_attributes(self->vm.fd, DATA, -DATA, PRIVATE, 0));
	EXPECT_FAILS(EINVAL, set_attributes(self->vm.fd, DATA, -PAGE, PRIVATE, 0));
}

TEST_F(abi, attributes_outside_of_any_slot)
{
	EXPECT_WORKS(set_attributes(self->vm.fd, 1ULL << 40, GIB, PRIVATE, 0));
	EXPECT_WORKS(set_attributes(self->vm.fd, 1ULL << 40, GIB, 0, 0));
	EXPECT_WORKS(set_attributes(self->vm.fd, 0, -PAGE, PRIVATE, 0));
	EXPECT_WORKS(set_attributes(self->vm.fd, 0, -PAGE, 0, 0));
}

TEST_F(abi, attributes_twice)
{
	EXPECT_WORKS(set_attributes(self->vm.fd, DATA, SIZE, PRIVATE, 0));
	EXPECT_WORKS(set_attributes(self->vm.fd, DATA, SIZE, PRIVATE, 0));
	EXPECT_WORKS(set_attributes(self->vm.fd, DATA + PAGE, PAGE, 0, 0));
	EXPECT_WORKS(set_attributes(self->vm.fd, DATA, SIZE, PRIVATE, 0));
}

/* A range map of four levels, freed by one call and with its VM, was too much. */
TEST_F(abi, attributes_of_many_ranges)
{
	const uint64_t count = rounds(100000), step = 32 * MIB;

	for (int round = 0; round < 2; round++) {
		for (uint64_t i = 0; i < count; i++)
			ASSERT_EQ(0, set_attributes(self->vm.fd, i * step, PAGE,
						    PRIVATE, 0));
		if (!round)
			EXPECT_WORKS(set_attributes(self->vm.fd, 0, count * step,
						    PRIVATE, 0));
		EXPECT_WORKS(set_attributes(self->vm.fd, 0, GIB, 0, 0));
	}
}

TEST_F(abi, default_vm_has_no_attributes)
{
	struct vm other;

	vm_create(&other, KVM_X86_DEFAULT_VM);
	EXPECT_FAILS(EINVAL, set_attributes(other.fd, DATA, PAGE, PRIVATE, 0));
	vm_destroy(&other);
}

/* kvm_view_test.c has the way out. */
TEST_F(abi, second_address_space)
{
	EXPECT_EQ(1, kvm_cap(self->vm.fd, KVM_CAP_MULTI_ADDRESS_SPACE));
	EXPECT_FAILS(EINVAL, REGION2(1 << 16 | 1, DATA, SIZE, self->fd, 0));
}

TEST_HARNESS_MAIN
