// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * One memory and two VMs, which take turns or share it; and one memory in the
 * two address spaces of one VM.
 */
#include <pthread.h>

#include "kselftest_harness.h"
#include "delay.h"
#include "kvm_util.h"

#define SIZE		(2 * HUGE)
#define SLOT		1
#define SPACE		(1U << 16)	/* in kvm_userspace_memory_region2.slot */

/* Two VMs with a vCPU each, and a memory of which each has a view. */
FIXTURE(two) {
	uint64_t resident;
	struct vm vm[2];
	struct vcpu vcpu[2];
	int fd[2];
};

FIXTURE_VARIANT(two) {
	bool guest_memfd;
	uint32_t flags;
};

FIXTURE_VARIANT_ADD(two, restrictedmem) {
	.guest_memfd = false,
};

FIXTURE_VARIANT_ADD(two, guest_memfd) {
	.guest_memfd = true,
};

FIXTURE_VARIANT_ADD(two, side_by_side) {
	.flags = RESTRICTEDMEM_CREATE_VIEWS,
};

FIXTURE_SETUP(two)
{
	const struct restrictedmem_create args = {
		.size = sizeof(args),
		.length = SIZE,
		.flags = variant->flags,
	};
	struct kvm_create_guest_memfd memfd = { .size = SIZE };

	self->resident = resident_total();
	for (int i = 0; i < 2; i++) {
		vm_create(&self->vm[i], KVM_X86_SW_PROTECTED_VM);
		vcpu_create(&self->vm[i], &self->vcpu[i], 0);
		ASSERT_EQ(0, vm_set_private(&self->vm[i], DATA, SIZE, true));
	}
	self->fd[0] = variant->guest_memfd ?
			      ioctl(self->vm[0].fd, KVM_CREATE_GUEST_MEMFD, &memfd) :
			      create_with(&args);
	ASSERT_LE(0, self->fd[0]);
	self->fd[1] = link_view(self->fd[0]);
	ASSERT_LE(0, self->fd[1]);
}

FIXTURE_TEARDOWN(two)
{
	for (int i = 0; i < 2; i++) {
		vcpu_destroy(&self->vcpu[i]);
		vm_destroy(&self->vm[i]);
		close(self->fd[i]);
	}
	EXPECT_EQ(self->resident, resident_total());
}

#define ADD_SLOT(_i)	vm_region2(&self->vm[_i], SLOT, KVM_MEM_GUEST_MEMFD, \
				   DATA, SIZE, NULL, self->fd[_i], 0)
#define DELETE_SLOT(_i)	vm_region2(&self->vm[_i], SLOT, 0, DATA, 0, NULL, -1, 0)

static void start(struct vcpu *vcpu, void *function, uint64_t a, uint64_t b)
{
	vcpu_start(vcpu, function, a, b, 0);
}

TEST_F(two, deleted_slot_hands_the_contents_over)
{
	ASSERT_EQ(0, ADD_SLOT(0));
	start(&self->vcpu[0], write_word, DATA + 5 * PAGE, 42);
	vcpu_done(&self->vcpu[0]);
	if (!variant->flags) {
		EXPECT_FAILS(EBUSY, ADD_SLOT(1));
	}
	ASSERT_EQ(0, DELETE_SLOT(0));
	ASSERT_EQ(0, ADD_SLOT(1));
	start(&self->vcpu[1], watch_word, DATA + 5 * PAGE, 0);
	EXPECT_EQ(42, vcpu_sync(&self->vcpu[1]));
	if (!variant->flags) {
		EXPECT_FAILS(EBUSY, ADD_SLOT(0));
	}
}

TEST_F(two, vms_end_hands_the_contents_over)
{
	ASSERT_EQ(0, ADD_SLOT(0));
	start(&self->vcpu[0], write_word, DATA, 43);
	vcpu_done(&self->vcpu[0]);
	vcpu_destroy(&self->vcpu[0]);
	vm_destroy(&self->vm[0]);
	ASSERT_EQ(0, ADD_SLOT(1));
	start(&self->vcpu[1], watch_word, DATA, 0);
	EXPECT_EQ(43, vcpu_sync(&self->vcpu[1]));

	vm_create(&self->vm[0], KVM_X86_SW_PROTECTED_VM);
	vcpu_create(&self->vm[0], &self->vcpu[0], 0);
}

TEST_F(two, view_serves_its_vm_alone)
{
	ASSERT_EQ(0, ADD_SLOT(1));
	ASSERT_EQ(0, DELETE_SLOT(1));
	EXPECT_FAILS(EINVAL, vm_region2(&self->vm[0], SLOT, KVM_MEM_GUEST_MEMFD,
					DATA, SIZE, NULL, self->fd[1], 0));
	EXPECT_WORKS(ADD_SLOT(0));
}

TEST_F(two, side_by_side_guests_see_each_other)
{
	const struct restrictedmem_create args = {
		.size = sizeof(args),
		.length = SIZE,
		.flags = RESTRICTEDMEM_CREATE_VIEWS,
	};

	for (int i = 0; i < 2; i++) {
		close(self->fd[i]);
		self->fd[i] = i ? link_view(self->fd[0]) : create_with(&args);
		ASSERT_LE(0, self->fd[i]);
		ASSERT_EQ(0, ADD_SLOT(i));
	}
	start(&self->vcpu[1], watch_word, DATA + PAGE, 0);
	EXPECT_EQ(0, vcpu_sync(&self->vcpu[1]));
	start(&self->vcpu[0], write_word, DATA + PAGE, 44);
	vcpu_done(&self->vcpu[0]);
	EXPECT_EQ(44, vcpu_sync(&self->vcpu[1]));
	ASSERT_EQ(0, punch(self->fd[0], 0, SIZE));
	EXPECT_EQ(0, vcpu_sync(&self->vcpu[1]));
	start(&self->vcpu[0], watch_word, DATA + PAGE, 0);
	EXPECT_EQ(0, vcpu_sync(&self->vcpu[0]));
}

/* The second address space, which is SMM's. */
FIXTURE(smm) {
	uint64_t resident;
	struct vm vm;
	struct vcpu vcpu;
	int fd;		/* may be aliased */
	int plain;	/* may not */
};

static int create_aliasing(void)
{
	const struct restrictedmem_create args = {
		.size = sizeof(args),
		.length = SIZE,
		.flags = RESTRICTEDMEM_CREATE_ALIASES,
	};

	return create_with(&args);
}

FIXTURE_SETUP(smm)
{
	self->resident = resident_total();
	vm_create(&self->vm, KVM_X86_SW_PROTECTED_VM);
	vcpu_create(&self->vm, &self->vcpu, 0);
	self->fd = create_aliasing();
	ASSERT_LE(0, self->fd);
	self->plain = create_small(SIZE);
	ASSERT_LE(0, self->plain);
}

FIXTURE_TEARDOWN(smm)
{
	vcpu_destroy(&self->vcpu);
	vm_destroy(&self->vm);
	close(self->fd);
	close(self->plain);
	EXPECT_EQ(self->resident, resident_total());
}

static int address_spaces(int fd)
{
	return ioctl(fd, KVM_CHECK_EXTENSION, KVM_CAP_MULTI_ADDRESS_SPACE);
}

#define ADD(_slot, _gpa, _size, _fd) \
	vm_region2(&self->vm, _slot, (_fd) < 0 ? 0 : KVM_MEM_GUEST_MEMFD, \
		   _gpa, _size, NULL, _fd, 0)

static int dirty_log(struct vm *vm, uint32_t slot)
{
	uint64_t bits[SIZE / PAGE / 64];
	struct kvm_dirty_log log = { .slot = slot, .dirty_bitmap = bits };

	return ioctl(vm->fd, KVM_GET_DIRTY_LOG, &log);
}

TEST_F(smm, private_vm_has_one_address_space)
{
	EXPECT_EQ(2, address_spaces(self->vm.kvm));
	EXPECT_EQ(1, address_spaces(self->vm.fd));
	EXPECT_FAILS(EINVAL, ADD(SPACE | SLOT, DATA, SIZE, self->fd));
	EXPECT_FAILS(EINVAL, ADD(SPACE | SLOT, DATA, SIZE, -1));
	EXPECT_FAILS(EINVAL, dirty_log(&self->vm, SPACE | SLOT));
	ASSERT_EQ(0, ADD(SLOT, DATA, SIZE, self->plain));
	EXPECT_EQ(1, address_spaces(self->vm.fd));
}

TEST_F(smm, ordinary_vm_has_two_address_spaces)
{
	struct vm other;

	vm_create(&other, KVM_X86_DEFAULT_VM);
	EXPECT_EQ(2, address_spaces(other.fd));
	EXPECT_WORKS(vm_region2(&other, SPACE | SLOT, 0, DATA, SIZE, NULL, -1, 0));
	vm_destroy(&other);
}

TEST_F(smm, aliasing_file_opens_the_second)
{
	ASSERT_EQ(0, ADD(SLOT, DATA, SIZE, self->fd));
	EXPECT_EQ(2, address_spaces(self->vm.fd));
	EXPECT_WORKS(ADD(SPACE | SLOT, DATA, SIZE, self->fd));
	EXPECT_WORKS(ADD(SPACE | 2, DATA + GIB, SIZE, -1));
	EXPECT_FAILS(EINVAL, ADD(2 * SPACE | 3, DATA, SIZE, -1));
	EXPECT_FAILS(ENOENT, dirty_log(&self->vm, SPACE | SLOT));
}

TEST_F(smm, second_stays_open)
{
	ASSERT_EQ(0, ADD(SLOT, DATA, SIZE, self->fd));
	ASSERT_EQ(0, ADD(SPACE | SLOT, DATA, SIZE, self->fd));
	ASSERT_EQ(0, ADD(SLOT, DATA, 0, -1));
	EXPECT_WORKS(ADD(SPACE | SLOT, DATA, 0, -1));
	EXPECT_EQ(2, address_spaces(self->vm.fd));
}

TEST_F(smm, failed_slot_opens_nothing)
{
	/* Beyond what any processor can address; found out late. */
	ASSERT_EQ(-1, ADD(SLOT, 1ULL << 58, SIZE, self->fd));
	EXPECT_EQ(1, address_spaces(self->vm.fd));
}

static void *add_beyond_all(void *data)
{
	struct vm *vm = data;
	int fd = create_aliasing(), r;

	r = vm_region2(vm, SLOT, KVM_MEM_GUEST_MEMFD, 1ULL << 58, SIZE, NULL, fd, 0);
	close(fd);
	return (void *)(long)r;
}

/* Nor for the moment in which it is not yet known that it fails. */
TEST_F(smm, failing_slot_opens_nothing_meanwhile)
{
	int delays = delay_open(), most = 1;
	pthread_t thread;
	void *result;
	int place;

	place = delay_add(delays, "restrictedmem:restrictedmem_kvm_cancel", 20000, 0);
	ASSERT_EQ(0, pthread_create(&thread, NULL, add_beyond_all, &self->vm));
	do {
		int now = address_spaces(self->vm.fd);

		most = now > most ? now : most;
	} while (pthread_tryjoin_np(thread, &result) == EBUSY);
	EXPECT_EQ(-1, (long)result);
	EXPECT_EQ(1, delay_waits(delays, place));
	EXPECT_EQ(1, most);
	close(delays);
}

TEST_F(smm, file_without_aliases_is_refused_in_the_second)
{
	ASSERT_EQ(0, ADD(SLOT, DATA, SIZE, self->fd));
	EXPECT_FAILS(EINVAL, ADD(SPACE | SLOT, DATA + GIB, SIZE, self->plain));
	EXPECT_EQ(0, fdinfo_number(self->plain, "owner"));
}

#define SMRAM		0x30000ULL	/* SMBASE after reset */
#define SMRAM_SIZE	0x10000ULL
#define SMI_HANDLER	0x8000ULL

/* mov $42, %al; out %al, $PORT_DATA; rsm; in 16-bit mode */
#define SMI_CODE	0xaa0f12e62ab0ULL

/* Writes the handler through the ordinary alias, and looks on. */
static GUEST void install_handler(uint64_t gpa, uint64_t code)
{
	guest_write(gpa + SMI_HANDLER, code);
	guest_sync(0);
	guest_sync(guest_read(gpa + 0xff00));
	guest_done();
}

/*
 * SMRAM is private, at another address, in another address space: KVM saves the
 * state there, the handler's code is fetched from there, and RSM finds the state.
 */
TEST_F(smm, handler_runs_in_aliased_private_memory)
{
	char *port = (char *)self->vcpu.run;

	ASSERT_EQ(0, ADD(SLOT, DATA, SIZE, self->fd));
	ASSERT_EQ(0, ADD(SPACE | SLOT, SMRAM, SMRAM_SIZE, self->fd));
	ASSERT_EQ(0, vm_set_private(&self->vm, DATA, SIZE, true));
	ASSERT_EQ(0, vm_set_private(&self->vm, SMRAM, SMRAM_SIZE, true));
	start(&self->vcpu, install_handler, DATA, SMI_CODE);
	ASSERT_EQ(0, vcpu_sync(&self->vcpu));

	ASSERT_EQ(0, ioctl(self->vcpu.fd, KVM_SMI));
	ASSERT_EQ(KVM_EXIT_IO, vcpu_run(&self->vcpu));
	EXPECT_EQ(PORT_DATA, self->vcpu.run->io.port);
	EXPECT_EQ(42, port[self->vcpu.run->io.data_offset]);
	EXPECT_TRUE(self->vcpu.run->flags & KVM_RUN_X86_SMM);
	/* Back from it, with its registers; the saved state lies in SMRAM. */
	vcpu_sync(&self->vcpu);
	EXPECT_FALSE(self->vcpu.run->flags & KVM_RUN_X86_SMM);
	vcpu_done(&self->vcpu);
}

TEST_HARNESS_MAIN
