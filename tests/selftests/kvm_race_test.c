// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * Guests that run while their memory changes under them: faults and the user's
 * own mappings against conversions, prefaults against the end of a slot. Delays
 * (delay.h) stretch the gaps that these tests are about.
 */
#include <pthread.h>
#include <stdatomic.h>

#include "kselftest_harness.h"
#include "kvm_race.h"

#define SLOT		1

/*
 * Each half of a slot of one huge page has huge pages or small ones. All pages of
 * both halves begin with their number, so that one foreign page is enough.
 */
FIXTURE(conversion) {
	struct vm vm;
	int fd;
	char *hva;
	int delay;
};

FIXTURE_VARIANT(conversion) {
	uint32_t thp;
	int advice;
};

FIXTURE_VARIANT_ADD(conversion, small_private_huge_shared) {
	.thp = RESTRICTEDMEM_THP_NEVER,
	.advice = MADV_HUGEPAGE,
};

FIXTURE_VARIANT_ADD(conversion, huge_private_small_shared) {
	.thp = RESTRICTEDMEM_THP_ALWAYS,
	.advice = MADV_NOHUGEPAGE,
};

/* The pages that the guests look at; not the first, which a huge page begins with. */
#define FIRST_SEEN	17
#define STEP		31

static GUEST void write_numbers(uint64_t gpa, uint64_t pages)
{
	for (uint64_t i = 0; i < pages; i++)
		guest_write(gpa + i * PAGE, i);
	guest_done();
}

/* Tell how many pages did not have their number; over and over. */
static GUEST void count_wrong(uint64_t gpa, uint64_t pages)
{
	for (;;) {
		uint64_t wrong = 0;

		for (uint64_t i = FIRST_SEEN; i < pages; i += STEP)
			wrong += guest_read(gpa + i * PAGE) != i;
		guest_sync(wrong);
	}
}

FIXTURE_SETUP(conversion)
{
	struct vcpu vcpu;

	vm_create(&self->vm, KVM_X86_SW_PROTECTED_VM);
	vcpu_create(&self->vm, &vcpu, 0);
	self->fd = create(HUGE, variant->thp);
	ASSERT_LE(0, self->fd);
	self->hva = map_anonymous(HUGE);
	ASSERT_EQ(0, madvise(self->hva, HUGE, variant->advice));
	vm_add_private(&self->vm, SLOT, DATA, HUGE, self->hva, self->fd);
	/* From the last, so that small pages do not lie as a huge one's would. */
	for (int i = HUGE_PAGES - 1; i >= 0; i--) {
		ASSERT_EQ(0, populate(self->fd, i * PAGE, PAGE));
		*(uint64_t *)(self->hva + i * PAGE) = i;
	}
	vcpu_start(&vcpu, write_numbers, DATA, HUGE_PAGES, 0);
	vcpu_done(&vcpu);
	vcpu_destroy(&vcpu);
	self->delay = delay_open();
}

FIXTURE_TEARDOWN(conversion)
{
	close(self->delay);
	vm_destroy(&self->vm);
	munmap(self->hva, HUGE);
	close(self->fd);
}

/* A vCPU in a thread that counts what the guest's syncs tell. */
struct runner {
	struct vcpu vcpu;
	pthread_t thread;
	atomic_bool stop;
	atomic_ulong syncs;
	uint64_t sum;
};

static void *runner_loop(void *arg)
{
	struct runner *r = arg;

	while (!r->stop) {
		r->sum += vcpu_sync(&r->vcpu);
		r->syncs++;
	}
	return NULL;
}

static void runner_start(struct runner *r, struct vm *vm, unsigned int id,
			 void *function, uint64_t a, uint64_t b)
{
	*r = (struct runner){};
	vcpu_create(vm, &r->vcpu, id);
	vcpu_start(&r->vcpu, function, a, b, 0);
	CHECK(!pthread_create(&r->thread, NULL, runner_loop, r));
}

static uint64_t runner_stop(struct runner *r)
{
	r->stop = true;
	CHECK(!pthread_join(r->thread, NULL));
	vcpu_destroy(&r->vcpu);
	return r->sum;
}

/*
 * The half that a fault saw is no longer the current one when the fault maps its
 * page: between its looks, and between the map's change and the end of what was
 * mapped, there is time.
 */
TEST_F(conversion, fault_maps_what_it_looked_up)
{
	struct runner runners[2];
	uint64_t wrong = 0;

	for (int i = 0; i < 2; i++)
		runner_start(&runners[i], &self->vm, i + 1, count_wrong, DATA,
			     HUGE_PAGES);
	delay_add(self->delay, "restrictedmem:restrictedmem_get_pfn", 300,
		  RMD_RETURN | RMD_OTHER_THREADS);
	delay_add(self->delay, "kvm:__gfn_to_pfn_memslot", 300,
		  RMD_RETURN | RMD_OTHER_THREADS);
	delay_add(self->delay, "kvm:kvm_zap_gfn_range", 3000, RMD_THIS_THREAD);
	for (uint64_t i = 0; i < rounds(40); i++) {
		ASSERT_EQ(0, vm_set_private(&self->vm, DATA, HUGE, i % 2));
		sleep_ms(2);
	}
	for (int i = 0; i < 2; i++) {
		wrong += runner_stop(&runners[i]);
		EXPECT_LT(0, runners[i].syncs);
	}
	EXPECT_EQ(0, wrong);
}

/* A user mapping against a conversion. */

/* Both are shared and mapped, and between them there is a private page. */
#define RUN_PAGES	32
#define TWO_RUNS	(2 * RUN_PAGES + 1)
#define VICTIM		(DATA + (TWO_RUNS - 1) * PAGE)

/*
 * The second run's page becomes private while the user's mapping goes: between
 * the runs the notifier lets the conversion in, which changes the map, but is
 * slow to remove what is mapped. The page that the host has freed must not be
 * seen any more by then.
 */
TEST(freed_page_of_a_gfn_that_becomes_private_is_not_mapped)
{
	int fd = create_small(HUGE), delay = delay_open();
	char *hva = map_anonymous(HUGE);
	struct vcpu vcpu;
	struct vm vm;
	struct conversion conversion = {
		.vm = &vm,
		.gpa = VICTIM,
		.size = PAGE,
		.private = true,
		.delay = delay,
	};

	ASSERT_LE(0, fd);
	vm_create(&vm, KVM_X86_SW_PROTECTED_VM);
	vcpu_create(&vm, &vcpu, 0);
	ASSERT_EQ(0, madvise(hva, HUGE, MADV_NOHUGEPAGE));
	vm_add_private(&vm, SLOT, DATA, HUGE, hva, fd);
	ASSERT_EQ(0, vm_set_private(&vm, DATA, RUN_PAGES * PAGE, false));
	ASSERT_EQ(0, vm_set_private(&vm, DATA + (RUN_PAGES + 1) * PAGE,
				    RUN_PAGES * PAGE, false));
	vcpu_start(&vcpu, write_numbers, DATA, HUGE_PAGES, 0);
	vcpu_done(&vcpu);
	ASSERT_EQ(TWO_RUNS - 1, *(uint64_t *)(hva + (TWO_RUNS - 1) * PAGE));
	vcpu_start(&vcpu, watch_word, VICTIM, 0, 0);
	ASSERT_EQ(TWO_RUNS - 1, vcpu_sync(&vcpu));

	/* Until the conversion waits for the lock; and until it has the map. */
	conversion.place = delay_add(delay, "kvm:kvm_tdp_mmu_unmap_gfn_range",
				     10000, RMD_THIS_THREAD);
	delay_add(delay, "kvm:kvm_tdp_mmu_unmap_gfn_range", 5000,
		  RMD_THIS_THREAD | RMD_RETURN);
	delay_add(delay, "kvm:kvm_zap_gfn_range", RMD_MAX_USEC,
		  RMD_OTHER_THREADS);
	conversion_start(&conversion);
	ASSERT_EQ(0, madvise(hva, TWO_RUNS * PAGE, MADV_DONTNEED));
	EXPECT_EQ(0, vcpu_sync(&vcpu));
	EXPECT_EQ(0, conversion_end(&conversion));
	EXPECT_EQ(0, vcpu_sync(&vcpu));

	vcpu_destroy(&vcpu);
	vm_destroy(&vm);
	close(delay);
	munmap(hva, HUGE);
	close(fd);
}

#define MANY_RUNS	200	/* two seconds for who does wait */

/*
 * Every other gfn is shared, and all of the user's mappings go at once: that is as many
 * runs as there are shared gfns. Who wants the lock need not wait for all of them.
 */
TEST(conversion_does_not_wait_for_all_runs_of_a_user_mapping)
{
	int fd = create_small(HUGE), delay = delay_open();
	char *hva = map_anonymous(HUGE);
	struct vcpu vcpu;
	struct vm vm;
	struct conversion conversion = {
		.vm = &vm,
		.gpa = DATA + HUGE - PAGE,
		.size = PAGE,
		.delay = delay,
		.go = true,
	};

	ASSERT_LE(0, fd);
	vm_create(&vm, KVM_X86_SW_PROTECTED_VM);
	vcpu_create(&vm, &vcpu, 0);
	vm_add_private(&vm, SLOT, DATA, HUGE, hva, fd);
	for (int i = 0; i < 2 * MANY_RUNS; i += 2)
		ASSERT_EQ(0, vm_set_private(&vm, DATA + i * PAGE, PAGE, false));
	vcpu_start(&vcpu, write_numbers, DATA, HUGE_PAGES, 0);
	vcpu_done(&vcpu);
	conversion.place = delay_add(delay, "kvm:kvm_tdp_mmu_unmap_gfn_range",
				     10000, RMD_THIS_THREAD);
	conversion_start(&conversion);
	ASSERT_EQ(0, madvise(hva, 2 * MANY_RUNS * PAGE, MADV_DONTNEED));
	EXPECT_EQ(0, conversion_end(&conversion));
	/* Those of after the conversion began may have been one: then nothing is left out. */
	EXPECT_LT(0, conversion.waits);
	EXPECT_GT(MANY_RUNS, conversion.waits);

	vcpu_destroy(&vcpu);
	vm_destroy(&vm);
	close(delay);
	munmap(hva, HUGE);
	close(fd);
}

/* Nor for all of one run, which is handled in pieces that end where huge pages do. */
TEST(long_run_of_a_user_mapping_is_handled_in_pieces)
{
	const uint64_t size = 256 * MIB, piece = 8 * MIB;
	int fd = create_small(size), delay = delay_open(), place;
	char *hva = map_anonymous(size);
	struct vcpu vcpu;
	struct vm vm;

	ASSERT_LE(0, fd);
	vm_create(&vm, KVM_X86_SW_PROTECTED_VM);
	vcpu_create(&vm, &vcpu, 0);
	ASSERT_EQ(0, madvise(hva, size, MADV_NOHUGEPAGE));
	ASSERT_EQ(0, vm_region2(&vm, SLOT, KVM_MEM_GUEST_MEMFD, DATA, size, hva, fd, 0));
	vcpu_start(&vcpu, write_word, DATA + size - PAGE, 1, 0);
	vcpu_done(&vcpu);
	place = delay_add(delay, "kvm:kvm_tdp_mmu_unmap_gfn_range", 1, RMD_THIS_THREAD);
	ASSERT_EQ(0, madvise(hva + piece - PAGE, 2 * PAGE, MADV_DONTNEED));
	EXPECT_EQ(2, delay_waits(delay, place));
	ASSERT_EQ(0, madvise(hva, size, MADV_DONTNEED));
	EXPECT_EQ(2 + size / piece, delay_waits(delay, place));
	vcpu_start(&vcpu, watch_word, DATA + size - PAGE, 0, 0);
	EXPECT_EQ(0, vcpu_sync(&vcpu));

	vcpu_destroy(&vcpu);
	vm_destroy(&vm);
	close(delay);
	munmap(hva, size);
	close(fd);
}

/* Prefaults against the end of the slot. */

FIXTURE(prefault) {
	struct vm vm;
	struct vcpu vcpu;
	int fd;
	char *hva;
	int delay;
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

static void add_slot(struct vm *vm, char *hva, int fd, bool private)
{
	if (private)
		CHECK(!vm_region2(vm, SLOT, KVM_MEM_GUEST_MEMFD, DATA, HUGE,
				  hva, fd, 0));
	else
		CHECK(!vm_region(vm, SLOT, DATA, HUGE, hva));
}

FIXTURE_SETUP(prefault)
{
	vm_create(&self->vm, KVM_X86_SW_PROTECTED_VM);
	vcpu_create(&self->vm, &self->vcpu, 0);
	self->fd = create_small(HUGE);
	ASSERT_LE(0, self->fd);
	self->hva = map_anonymous(HUGE);
	ASSERT_EQ(0, madvise(self->hva, HUGE, MADV_NOHUGEPAGE));
	ASSERT_EQ(0, vm_set_private(&self->vm, DATA, HUGE, variant->private));
	add_slot(&self->vm, self->hva, self->fd, variant->private);
	self->delay = delay_open();
}

FIXTURE_TEARDOWN(prefault)
{
	close(self->delay);
	vcpu_destroy(&self->vcpu);
	vm_destroy(&self->vm);
	munmap(self->hva, HUGE);
	close(self->fd);
}

struct deletion {
	struct vm *vm;
	int delay;
	int place;
	uint64_t waits;		/* how many there have to be at the place before */
	pthread_t thread;
};

static void *delete_slot(void *arg)
{
	struct deletion *d = arg;

	while (d->waits && delay_waits(d->delay, d->place) < d->waits)
		;
	CHECK(!vm_region(d->vm, SLOT, 0, 0, NULL));
	return NULL;
}

/* The slot goes while a prefault is in the middle of it: both come to an end. */
TEST_F_TIMEOUT(prefault, slot_goes_during_a_prefault, 60)
{
	for (uint64_t i = 0; i < rounds(10); i++) {
		struct kvm_pre_fault_memory range = { .gpa = DATA, .size = HUGE };
		int place = delay_add(self->delay,
				      "kvm:kvm_arch_vcpu_pre_fault_memory", 100,
				      RMD_THIS_THREAD);
		struct deletion deletion = {
			.vm = &self->vm,
			.delay = self->delay,
			.place = place,
			.waits = 3,
		};

		ASSERT_EQ(0, pthread_create(&deletion.thread, NULL, delete_slot,
					    &deletion));
		EXPECT_EQ(0, ioctl(self->vcpu.fd, KVM_PRE_FAULT_MEMORY, &range));
		EXPECT_LT(DATA, range.gpa);
		EXPECT_LT(0, range.size);
		EXPECT_LT(0, delay_waits(self->delay, place));
		pthread_join(deletion.thread, NULL);
		ASSERT_EQ(0, ioctl(self->delay, RMD_CLEAR));
		add_slot(&self->vm, self->hva, self->fd, variant->private);
	}
}

/* A slot that is about to go is there, and is not: say so, as mainline does. */
TEST_F_TIMEOUT(prefault, slot_that_is_going_is_eagain, 60)
{
	const int gone = variant->private ? EFAULT : ENOENT;
	struct kvm_pre_fault_memory range = { .gpa = DATA, .size = PAGE };
	struct deletion deletion = { .vm = &self->vm };
	int place;

	place = delay_add(self->delay, "kvm:kvm_arch_flush_shadow_memslot", 0,
			  RMD_HOLD | RMD_OTHER_THREADS);
	ASSERT_EQ(0, pthread_create(&deletion.thread, NULL, delete_slot,
				    &deletion));
	while (!delay_waits(self->delay, place))
		;
	EXPECT_FAILS(EAGAIN, ioctl(self->vcpu.fd, KVM_PRE_FAULT_MEMORY, &range));
	EXPECT_EQ(0, ioctl(self->delay, RMD_GO));
	pthread_join(deletion.thread, NULL);
	EXPECT_FAILS(gone, ioctl(self->vcpu.fd, KVM_PRE_FAULT_MEMORY, &range));
	EXPECT_EQ(DATA, range.gpa);
	EXPECT_EQ(PAGE, range.size);
}

TEST_HARNESS_MAIN
