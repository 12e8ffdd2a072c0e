// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * Memory errors under a running guest. A second view of the memory tells which
 * pages it has.
 */
#include "kselftest_harness.h"
#include "hugetlb.h"
#include "kvm_util.h"
#include "poison.h"

#define SIZE	(2 * HUGE)
#define SLOT	1
#define BAD	5

FIXTURE(poison) {
	uint64_t resident;
	struct vm vm;
	struct vcpu vcpu;
	int fd;
	int link;
	int c;
	int id;
};

/* @granule: what can be discarded at least */
FIXTURE_VARIANT(poison) {
	uint32_t store;
	uint32_t thp;
	uint64_t granule;
};

FIXTURE_VARIANT_ADD(poison, small) {
	.thp = RESTRICTEDMEM_THP_NEVER,
	.granule = PAGE,
};

FIXTURE_VARIANT_ADD(poison, huge) {
	.thp = RESTRICTEDMEM_THP_ALWAYS,
	.granule = PAGE,
};

FIXTURE_VARIANT_ADD(poison, pool) {
	.store = RESTRICTEDMEM_STORE_HUGETLB,
	.granule = HUGE,
};

FIXTURE_SETUP(poison)
{
	const struct restrictedmem_create args = {
		.size = sizeof(args),
		.length = SIZE,
		.flags = RESTRICTEDMEM_CREATE_VIEWS,
		.store = variant->store,
		.thp = variant->thp,
	};

	ASSERT_EQ(0, hwpoison_init());
	self->resident = resident_total();
	/* What earlier tests lost stays. */
	if (variant->store)
		pool_resize(HUGE, SIZE / HUGE + pool_resize(HUGE, 0));
	vm_create(&self->vm, KVM_X86_SW_PROTECTED_VM);
	vcpu_create(&self->vm, &self->vcpu, 0);
	self->fd = create_with(&args);
	ASSERT_LE(0, self->fd);
	self->link = link_view(self->fd);
	ASSERT_LE(0, self->link);
	self->c = consumer_open();
	ASSERT_LE(0, self->c);
	self->id = bind_range(self->c, self->link, 0, SIZE / PAGE);
	ASSERT_LT(0, self->id);
	vm_add_private(&self->vm, SLOT, DATA, SIZE, NULL, self->fd);
}

FIXTURE_TEARDOWN(poison)
{
	vcpu_destroy(&self->vcpu);
	vm_destroy(&self->vm);
	close(self->c);
	close(self->link);
	close(self->fd);
	EXPECT_EQ(self->resident, resident_total());
	pool_resize(HUGE, 0);
}

/* Write each page's number; then tell the word at @gpa, over and over. */
static GUEST void fill_and_watch(uint64_t start, uint64_t pages, uint64_t gpa)
{
	for (uint64_t i = 0; i < pages; i++)
		guest_write(start + i * PAGE, i + 1);
	for (;;)
		guest_sync(guest_read(gpa));
}

static void start(struct vcpu *vcpu, uint64_t page)
{
	vcpu_start(vcpu, fill_and_watch, DATA, SIZE / PAGE, DATA + page * PAGE);
}

#define POISON() do {							\
	poison_pfn(get_pfn(self->c, self->id, BAD));			\
	ASSERT_EQ(0, wait_poisoned(self->fd, PAGE));			\
} while (0)

#define EXPECT_POISON_EXIT() do {					\
	struct restrictedmem_kvm_memory_fault *_f =			\
		vcpu_fault(&self->vcpu);				\
	EXPECT_EQ(EHWPOISON, self->vcpu.error);				\
	EXPECT_EQ(DATA + BAD * PAGE, _f->gpa);				\
	EXPECT_EQ(PAGE, _f->size);					\
	EXPECT_EQ(KVM_MEMORY_EXIT_FLAG_PRIVATE, _f->flags);		\
} while (0)

TEST_F(poison, access_exits_with_the_error)
{
	start(&self->vcpu, BAD);
	ASSERT_EQ(BAD + 1, vcpu_sync(&self->vcpu));
	POISON();
	EXPECT_POISON_EXIT();
	/* Again and again, for as long as nothing is done about it. */
	EXPECT_POISON_EXIT();
}

TEST_F(poison, neighbours_stay)
{
	start(&self->vcpu, BAD + 1);
	ASSERT_EQ(BAD + 2, vcpu_sync(&self->vcpu));
	POISON();
	EXPECT_EQ(BAD + 2, vcpu_sync(&self->vcpu));
}

TEST_F(poison, punch_lets_the_guest_go_on)
{
	start(&self->vcpu, BAD);
	ASSERT_EQ(BAD + 1, vcpu_sync(&self->vcpu));
	POISON();
	EXPECT_POISON_EXIT();
	if (variant->store)
		pool_resize(HUGE, pool_count(HUGE, "nr_hugepages") + 1);
	ASSERT_EQ(0, punch(self->fd, BAD * PAGE / variant->granule * variant->granule,
			   variant->granule));
	EXPECT_EQ(0, vcpu_sync(&self->vcpu));
}

TEST_F(poison, prefault_says_so)
{
	struct kvm_pre_fault_memory range = {
		.gpa = DATA + BAD * PAGE,
		.size = PAGE,
	};

	start(&self->vcpu, BAD);
	ASSERT_EQ(BAD + 1, vcpu_sync(&self->vcpu));
	POISON();
	EXPECT_FAILS(EHWPOISON, ioctl(self->vcpu.fd, KVM_PRE_FAULT_MEMORY, &range));
	EXPECT_EQ(PAGE, range.size);
}

/* KVM sends a signal and would try again; nobody takes the signal. */
TEST(prefault_of_a_lost_shared_page_ends)
{
	struct kvm_pre_fault_memory range = { .gpa = DATA, .size = PAGE };
	char *hva = map_anonymous(HUGE);
	struct vcpu vcpu;
	sigset_t bus;
	struct vm vm;

	sigemptyset(&bus);
	sigaddset(&bus, SIGBUS);
	ASSERT_EQ(0, sigprocmask(SIG_BLOCK, &bus, NULL));
	vm_create(&vm, KVM_X86_SW_PROTECTED_VM);
	vcpu_create(&vm, &vcpu, 0);
	ASSERT_EQ(0, vm_region(&vm, SLOT, DATA, HUGE, hva));
	hva[0] = 1;
	ASSERT_EQ(0, madvise(hva, PAGE, MADV_HWPOISON));
	EXPECT_FAILS(EHWPOISON, ioctl(vcpu.fd, KVM_PRE_FAULT_MEMORY, &range));
	EXPECT_EQ(PAGE, range.size);
	vcpu_destroy(&vcpu);
	vm_destroy(&vm);
}

TEST_F(poison, shared_half_is_another_page)
{
	void *hva = map_anonymous(SIZE);

	ASSERT_EQ(0, vm_region(&self->vm, SLOT, DATA, 0, NULL));
	ASSERT_EQ(0, vm_region2(&self->vm, SLOT, KVM_MEM_GUEST_MEMFD, DATA, SIZE,
				hva, self->fd, 0));
	start(&self->vcpu, BAD);
	ASSERT_EQ(BAD + 1, vcpu_sync(&self->vcpu));
	POISON();
	ASSERT_EQ(0, vm_set_private(&self->vm, DATA + BAD * PAGE, PAGE, false));
	EXPECT_EQ(0, vcpu_sync(&self->vcpu));
	ASSERT_EQ(0, vm_set_private(&self->vm, DATA + BAD * PAGE, PAGE, true));
	EXPECT_POISON_EXIT();
}

TEST_HARNESS_MAIN
