// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * Mappings of 1 GiB in a VM with private memory: they need a gigabyte of one
 * kind. Of the stores, hugetlb has folios of that size.
 */
#include <sys/mman.h>

#include "kselftest_harness.h"
#include "hugetlb.h"
#include "kvm_race.h"
#include "poison.h"

#define SIZE	GIB
#define SLOT	1

#ifndef MAP_HUGE_1GB
#define MAP_HUGE_1GB	(30 << 26)
#endif

FIXTURE(gigantic) {
	struct vm vm;
	struct vcpu vcpu;
	int fd;
	char *hva;
};

FIXTURE_SETUP(gigantic)
{
	vm_create(&self->vm, KVM_X86_SW_PROTECTED_VM);
	vcpu_create(&self->vm, &self->vcpu, 0);
	self->fd = create_huge(SIZE);
	ASSERT_LE(0, self->fd);
	self->hva = mmap(NULL, SIZE, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | MAP_HUGE_1GB,
			 -1, 0);
	ASSERT_NE(MAP_FAILED, self->hva);
	ASSERT_EQ(0, vm_region2(&self->vm, SLOT, KVM_MEM_GUEST_MEMFD, DATA, SIZE,
				self->hva, self->fd, 0));
	*(uint64_t *)(self->hva + 5 * PAGE) = 42;
}

FIXTURE_TEARDOWN(gigantic)
{
	vcpu_destroy(&self->vcpu);
	vm_destroy(&self->vm);
	munmap(self->hva, SIZE);
	close(self->fd);
}

#define READ(_gpa) ({							\
	vcpu_start(&self->vcpu, watch_word, _gpa, 0, 0);		\
	vcpu_sync(&self->vcpu);						\
})
#define PAGES(_level)	kvm_stat(self->vm.fd, "pages_" _level)

TEST_F(gigantic, shared_gigabyte_is_one_mapping)
{
	EXPECT_EQ(42, READ(DATA + 5 * PAGE));
	EXPECT_EQ(1, PAGES("1g"));
}

TEST_F(gigantic, private_page_splits_it)
{
	uint64_t before;

	ASSERT_EQ(42, READ(DATA + 5 * PAGE));
	before = PAGES("2m");
	ASSERT_EQ(0, vm_set_private(&self->vm, DATA + SIZE / 2, PAGE, true));
	EXPECT_EQ(42, READ(DATA + 5 * PAGE));
	EXPECT_EQ(0, PAGES("1g"));
	EXPECT_EQ(before + 1, PAGES("2m"));
	EXPECT_EQ(0, READ(DATA + SIZE / 2));
	EXPECT_EQ(0, PAGES("1g"));
}

TEST_F(gigantic, conversion_back_joins_it)
{
	ASSERT_EQ(0, vm_set_private(&self->vm, DATA + SIZE / 2, PAGE, true));
	ASSERT_EQ(42, READ(DATA + 5 * PAGE));
	ASSERT_EQ(0, PAGES("1g"));
	ASSERT_EQ(0, vm_set_private(&self->vm, DATA + SIZE / 2, PAGE, false));
	ASSERT_EQ(0, READ(DATA + SIZE / 2));
	EXPECT_EQ(1, PAGES("1g"));
	EXPECT_EQ(42, READ(DATA + 5 * PAGE));
}

TEST_F(gigantic, private_gigabyte_is_mapped_as_its_folios_are)
{
	uint64_t before;

	ASSERT_EQ(0, vm_set_private(&self->vm, DATA, SIZE, true));
	READ(0ULL);
	before = PAGES("2m");
	EXPECT_EQ(0, READ(DATA + 5 * PAGE));
	EXPECT_EQ(0, PAGES("1g"));
	EXPECT_EQ(before + 1, PAGES("2m"));
	EXPECT_EQ(HUGE, resident(self->fd));
}

TEST_F(gigantic, prefault_maps_a_gigabyte)
{
	struct kvm_pre_fault_memory range = { .gpa = DATA + 7 * PAGE, .size = PAGE };

	READ(0ULL);
	EXPECT_WORKS(ioctl(self->vcpu.fd, KVM_PRE_FAULT_MEMORY, &range));
	EXPECT_EQ(0, range.size);
	EXPECT_EQ(1, PAGES("1g"));
}

static GUEST void write_and_read(uint64_t gpa, uint64_t value)
{
	guest_write(gpa, value);
	guest_sync(0);
	guest_sync(guest_read(gpa));
}

/*
 * While a fault on the private page waits, the gigabyte becomes shared; to remove
 * what is mapped takes time.
 */
TEST_F(gigantic, fault_that_meets_a_conversion_maps_its_own_page)
{
	int delay = delay_open();
	struct conversion conversion = {
		.vm = &self->vm,
		.gpa = DATA,
		.size = SIZE,
		.delay = delay,
	};
	uint64_t value;

	/* The page is there, and not mapped. */
	ASSERT_EQ(0, vm_set_private(&self->vm, DATA, SIZE, true));
	vcpu_start(&self->vcpu, write_and_read, DATA + 5 * PAGE, 41, 0);
	vcpu_sync(&self->vcpu);
	ASSERT_EQ(0, vm_set_private(&self->vm, DATA, SIZE, false));
	ASSERT_EQ(0, vm_set_private(&self->vm, DATA, SIZE, true));
	conversion.place = delay_add(delay, "restrictedmem:restrictedmem_get_pfn",
				     10000, RMD_RETURN | RMD_THIS_THREAD);
	delay_add(delay, "kvm:kvm_zap_gfn_range", RMD_MAX_USEC,
		  RMD_OTHER_THREADS);
	conversion_start(&conversion);
	value = vcpu_sync(&self->vcpu);
	EXPECT_TRUE(value == 41 || value == 42);
	EXPECT_EQ(0, conversion_end(&conversion));
	EXPECT_EQ(42, READ(DATA + 5 * PAGE));
	close(delay);
}

/* Private memory in one page of the system's pool */
FIXTURE(pooled) {
	struct vm vm;
	struct vcpu vcpu;
	int fd;
	char *hva;
};

FIXTURE_SETUP(pooled)
{
	ASSERT_LE(1, pool_count(GIB, "free_hugepages"));
	vm_create(&self->vm, KVM_X86_SW_PROTECTED_VM);
	vcpu_create(&self->vm, &self->vcpu, 0);
	self->fd = create_pooled(GIB, SIZE, RESTRICTEDMEM_CREATE_RESERVE);
	ASSERT_LE(0, self->fd);
	self->hva = map_anonymous(SIZE);
	ASSERT_EQ(0, vm_region2(&self->vm, SLOT, KVM_MEM_GUEST_MEMFD, DATA, SIZE,
				self->hva, self->fd, 0));
	*(uint64_t *)(self->hva + SIZE / 2) = 42;
	ASSERT_EQ(0, vm_set_private(&self->vm, DATA, SIZE, true));
	/* Whatever else the guest needs is mapped. */
	READ(0ULL);
}

FIXTURE_TEARDOWN(pooled)
{
	vcpu_destroy(&self->vcpu);
	vm_destroy(&self->vm);
	munmap(self->hva, SIZE);
	close(self->fd);
}

TEST_F(pooled, private_gigabyte_is_one_mapping)
{
	EXPECT_EQ(0, READ(DATA + 5 * PAGE));
	EXPECT_EQ(1, PAGES("1g"));
	EXPECT_EQ(SIZE, resident(self->fd));
	EXPECT_EQ(SIZE, fdinfo_number(self->fd, "resident_order18"));
}

TEST_F(pooled, shared_page_splits_it)
{
	ASSERT_EQ(0, READ(DATA + 5 * PAGE));
	ASSERT_EQ(0, vm_set_private(&self->vm, DATA + SIZE / 2, PAGE, false));
	EXPECT_EQ(0, READ(DATA + 5 * PAGE));
	EXPECT_EQ(0, PAGES("1g"));
	EXPECT_EQ(42, READ(DATA + SIZE / 2));
	ASSERT_EQ(0, vm_set_private(&self->vm, DATA + SIZE / 2, PAGE, true));
	EXPECT_EQ(0, READ(DATA + SIZE / 2));
	EXPECT_EQ(1, PAGES("1g"));
}

TEST_F(pooled, prefault_maps_a_gigabyte)
{
	struct kvm_pre_fault_memory range = { .gpa = DATA + 7 * PAGE, .size = PAGE };

	EXPECT_WORKS(ioctl(self->vcpu.fd, KVM_PRE_FAULT_MEMORY, &range));
	EXPECT_EQ(1, PAGES("1g"));
}

TEST_F(pooled, discard_unmaps_it)
{
	vcpu_start(&self->vcpu, watch_word, DATA + 5 * PAGE, 0, 0);
	ASSERT_EQ(0, vcpu_sync(&self->vcpu));
	ASSERT_EQ(1, PAGES("1g"));
	EXPECT_FAILS(EINVAL, punch(self->fd, 0, HUGE));
	ASSERT_EQ(0, punch(self->fd, 0, SIZE));
	EXPECT_EQ(0, PAGES("1g"));
	EXPECT_EQ(0, resident(self->fd));
	EXPECT_EQ(0, vcpu_sync(&self->vcpu));
	EXPECT_EQ(1, PAGES("1g"));
}

/* The kernel keeps the gigabyte; there is one more than the other tests need. */
TEST(lost_page_leaves_the_rest)
{
	const uint64_t bad = 5;
	int c, fd, id;
	struct rmt_page page;

	ASSERT_EQ(0, hwpoison_init());
	ASSERT_LE(1, pool_count(GIB, "free_hugepages"));
	fd = create_pooled(GIB, SIZE, RESTRICTEDMEM_CREATE_RESERVE);
	ASSERT_LE(0, fd);
	c = consumer_open();
	ASSERT_LE(0, c);
	id = bind_range(c, fd, 0, SIZE / PAGE);
	ASSERT_LT(0, id);
	ASSERT_EQ(0, write_pattern(c, id, 0, 16));
	ASSERT_EQ(0, get_page(c, id, SIZE / 2 / PAGE, 0, &page));
	EXPECT_EQ(18, page.order);

	poison_pfn(get_pfn(c, id, bad));
	ASSERT_EQ(0, wait_poisoned(fd, PAGE));
	EXPECT_FAILS(EHWPOISON, get_page(c, id, bad, 0, &page));
	EXPECT_EQ(0, count_changed(c, id, 0, bad));
	EXPECT_EQ(0, count_changed(c, id, bad + 1, 16));
	ASSERT_EQ(0, get_page(c, id, SIZE / 2 / PAGE, 0, &page));
	EXPECT_EQ(17, page.order);
	EXPECT_EQ(SIZE, resident(fd));
	close(c);
	close(fd);
}

TEST_HARNESS_MAIN
