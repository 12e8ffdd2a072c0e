// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * Private memory as a running guest sees it: faults and their exits,
 * conversions, discards, huge mappings.
 */
#include <pthread.h>

#include "kselftest_harness.h"
#include "kvm_util.h"

#define SIZE		(4 * HUGE)
#define SLOT		1
#define OTHER_SLOT	2
#define OTHER		(2 * GIB)

/* A guest with SIZE bytes at DATA, all private; "hva" is the shared side. */
FIXTURE(guest) {
	uint64_t resident;
	struct vm vm;
	struct vcpu vcpu;
	int fd;
	char *hva;
};

FIXTURE_VARIANT(guest) {
	uint32_t thp;
};

FIXTURE_VARIANT_ADD(guest, small) {
	.thp = RESTRICTEDMEM_THP_NEVER,
};

FIXTURE_VARIANT_ADD(guest, huge) {
	.thp = RESTRICTEDMEM_THP_ALWAYS,
};

FIXTURE_SETUP(guest)
{
	self->resident = resident_total();
	vm_create(&self->vm, KVM_X86_SW_PROTECTED_VM);
	vcpu_create(&self->vm, &self->vcpu, 0);
	self->fd = create(SIZE, variant->thp);
	ASSERT_LE(0, self->fd);
	self->hva = map_anonymous(SIZE);
	vm_add_private(&self->vm, SLOT, DATA, SIZE, self->hva, self->fd);
}

FIXTURE_TEARDOWN(guest)
{
	vcpu_destroy(&self->vcpu);
	vm_destroy(&self->vm);
	close(self->fd);
	EXPECT_EQ(self->resident, resident_total());
}

#define EXPECT_FAULT(_gpa, _flags) do {					\
	struct restrictedmem_kvm_memory_fault *_f =			\
		vcpu_fault(&self->vcpu);				\
	EXPECT_EQ(EFAULT, self->vcpu.error);				\
	EXPECT_EQ(_gpa, _f->gpa);					\
	EXPECT_EQ(PAGE, _f->size);					\
	EXPECT_EQ(_flags, _f->flags);					\
} while (0)

#define PRIVATE		KVM_MEMORY_EXIT_FLAG_PRIVATE

static void start(struct vcpu *vcpu, void *function, uint64_t a, uint64_t b)
{
	vcpu_start(vcpu, function, a, b, 0);
}

/* What the guest does */

/* Read one word after the other, @step bytes apart; tell each. */
static GUEST void read_words(uint64_t gpa, uint64_t step)
{
	for (;; gpa += step)
		guest_sync(guest_read(gpa));
}

/* Write its number to each page of a range, once more for each sync. */
static GUEST void write_numbers(uint64_t gpa, uint64_t pages)
{
	for (;;) {
		for (uint64_t i = 0; i < pages; i++)
			guest_write(gpa + i * PAGE, i + 1);
		guest_sync(pages);
	}
}

/* Tell how many pages of a range do not have their number; over and over. */
static GUEST void count_wrong(uint64_t gpa, uint64_t pages)
{
	for (;;) {
		uint64_t wrong = 0;

		for (uint64_t i = 0; i < pages; i++)
			wrong += guest_read(gpa + i * PAGE) != i + 1;
		guest_sync(wrong);
	}
}

static GUEST void jump(uint64_t gpa)
{
	((void (*)(void))gpa)();
	guest_done();
}

static GUEST void spin_until_zero(uint64_t gpa, uint64_t pages)
{
	while (guest_read(gpa))
		;
	guest_done();
}

/* Faults */

TEST_F(guest, first_touch_reads_zero)
{
	start(&self->vcpu, read_words, DATA, PAGE);
	for (int i = 0; i < 4; i++)
		EXPECT_EQ(0, vcpu_sync(&self->vcpu));
}

TEST_F(guest, first_touch_takes_the_page)
{
	start(&self->vcpu, write_word, DATA + 5 * PAGE, 1);
	vcpu_done(&self->vcpu);
	EXPECT_EQ(variant->thp == RESTRICTEDMEM_THP_NEVER ? PAGE : HUGE,
		  resident(self->fd));
}

TEST_F(guest, all_of_the_slot_works)
{
	start(&self->vcpu, write_numbers, DATA, SIZE / PAGE);
	vcpu_sync(&self->vcpu);
	start(&self->vcpu, count_wrong, DATA, SIZE / PAGE);
	EXPECT_EQ(0, vcpu_sync(&self->vcpu));
	EXPECT_EQ(SIZE, resident(self->fd));
}

TEST_F(guest, populated_page_is_used)
{
	ASSERT_EQ(0, populate(self->fd, 0, HUGE));
	start(&self->vcpu, write_word, DATA + 5 * PAGE, 1);
	vcpu_done(&self->vcpu);
	EXPECT_EQ(HUGE, resident(self->fd));
}

TEST_F(guest, user_mapping_sees_nothing_of_private_memory)
{
	start(&self->vcpu, write_numbers, DATA, SIZE / PAGE);
	vcpu_sync(&self->vcpu);
	for (uint64_t i = 0; i < SIZE; i += PAGE)
		ASSERT_EQ(0, *(uint64_t *)(self->hva + i));
}

/* The secret is made by the guest, and nowhere else is it as it is. */
static volatile uint64_t secret_key = 0x5bd1e9955bd1e995;
static volatile uint64_t secret_locked = 0x0123456789abcdef ^ 0x5bd1e9955bd1e995;

static GUEST void write_secret(uint64_t gpa, uint64_t half, uint64_t shift)
{
	for (uint64_t i = 0; i < 64; i++)
		guest_write(gpa + i * 8, half << shift | 0x89abcdef);
	asm volatile("xor %%eax, %%eax; xor %%ecx, %%ecx; xor %%esi, %%esi"
		     : : : "rax", "rcx", "rsi");
	guest_done();
}

/* How often is it in this process's memory, as /proc/self/mem has it? */
static unsigned int count_secrets(void)
{
	static uint64_t buf[64 * KIB / 8];
	FILE *maps = fopen("/proc/self/maps", "r");
	int mem = open("/proc/self/mem", O_RDONLY);
	unsigned long start, end, pos;
	unsigned int found = 0;
	char line[512], mode;

	CHECK(maps && mem >= 0);
	while (fgets(line, sizeof(line), maps)) {
		if (sscanf(line, "%lx-%lx %c", &start, &end, &mode) != 3 ||
		    mode != 'r' || start >> 63)
			continue;
		for (pos = start; pos < end; pos += sizeof(buf)) {
			ssize_t n = pread(mem, buf, sizeof(buf), pos);

			for (ssize_t i = 0; i < n / 8; i++)
				found += (buf[i] ^ secret_key) == secret_locked;
			buf[0] = 0;
		}
	}
	fclose(maps);
	close(mem);
	return found;
}

TEST_F(guest, no_mapping_of_the_vmm_has_the_contents)
{
	vcpu_start(&self->vcpu, write_secret, DATA + 5 * PAGE, 0x1234567, 32);
	vcpu_done(&self->vcpu);
	EXPECT_EQ(0, count_secrets());
	/* The search itself is right. */
	ASSERT_EQ(0, vm_set_private(&self->vm, DATA + 5 * PAGE, PAGE, false));
	vcpu_start(&self->vcpu, write_secret, DATA + 5 * PAGE, 0x1234567, 32);
	vcpu_done(&self->vcpu);
	EXPECT_LE(64, count_secrets());
}

TEST_F(guest, code_runs_in_private_memory)
{
	start(&self->vcpu, write_word, DATA, 0xc3);	/* ret */
	vcpu_done(&self->vcpu);
	start(&self->vcpu, jump, DATA, 0);
	vcpu_done(&self->vcpu);
}

TEST_F(guest, private_gfn_of_an_ordinary_slot_exits)
{
	char *hva = map_anonymous(HUGE);

	/* Here is a huge page, which must not be mapped as such. */
	memset(hva, 0, HUGE);
	ASSERT_EQ(0, vm_region(&self->vm, OTHER_SLOT, OTHER, HUGE, hva));
	ASSERT_EQ(0, vm_set_private(&self->vm, OTHER + PAGE, PAGE, true));
	start(&self->vcpu, read_words, OTHER, PAGE);
	EXPECT_EQ(0, vcpu_sync(&self->vcpu));
	EXPECT_FAULT(OTHER + PAGE, PRIVATE);
}

TEST_F(guest, private_gfn_without_a_slot_exits)
{
	ASSERT_EQ(0, vm_set_private(&self->vm, OTHER, PAGE, true));
	start(&self->vcpu, read_words, OTHER, PAGE);
	EXPECT_FAULT(OTHER, PRIVATE);
	start(&self->vcpu, write_word, OTHER, 1);
	EXPECT_FAULT(OTHER, PRIVATE);
	start(&self->vcpu, jump, OTHER, 0);
	EXPECT_FAULT(OTHER, PRIVATE);
}

TEST_F(guest, shared_gfn_without_a_slot_is_mmio)
{
	start(&self->vcpu, read_words, OTHER, PAGE);
	EXPECT_EQ(KVM_EXIT_MMIO, vcpu_run(&self->vcpu));
	EXPECT_EQ(OTHER, self->vcpu.run->mmio.phys_addr);
}

TEST_F(guest, fault_tells_the_page)
{
	ASSERT_EQ(0, vm_set_private(&self->vm, OTHER, HUGE, true));
	start(&self->vcpu, write_word, OTHER + 7 * PAGE + 0x128, 1);
	EXPECT_FAULT(OTHER + 7 * PAGE, PRIVATE);
}

TEST_F(guest, fault_that_is_not_resolved_comes_again)
{
	ASSERT_EQ(0, vm_set_private(&self->vm, OTHER, PAGE, true));
	start(&self->vcpu, write_word, OTHER, 1);
	for (int i = 0; i < 3; i++)
		EXPECT_FAULT(OTHER, PRIVATE);
}

TEST_F(guest, fault_is_resolved_by_a_slot)
{
	int fd = create(HUGE, variant->thp);

	ASSERT_LE(0, fd);
	ASSERT_EQ(0, vm_set_private(&self->vm, OTHER, HUGE, true));
	start(&self->vcpu, write_word, OTHER, 1);
	EXPECT_FAULT(OTHER, PRIVATE);
	ASSERT_EQ(0, vm_region2(&self->vm, OTHER_SLOT, KVM_MEM_GUEST_MEMFD, OTHER,
				HUGE, NULL, fd, 0));
	vcpu_done(&self->vcpu);
	EXPECT_LT(0, resident(fd));
	close(fd);
}

TEST_F(guest, deleted_slot_exits)
{
	start(&self->vcpu, watch_word, DATA, 0);
	EXPECT_EQ(0, vcpu_sync(&self->vcpu));
	ASSERT_EQ(0, vm_region(&self->vm, SLOT, DATA, 0, NULL));
	EXPECT_FAULT(DATA, PRIVATE);
}

TEST_F(guest, recreated_slot_has_the_contents)
{
	start(&self->vcpu, write_numbers, DATA, SIZE / PAGE);
	vcpu_sync(&self->vcpu);
	ASSERT_EQ(0, vm_region(&self->vm, SLOT, DATA, 0, NULL));
	ASSERT_EQ(0, vm_region2(&self->vm, SLOT, KVM_MEM_GUEST_MEMFD, OTHER, SIZE,
				self->hva, self->fd, 0));
	ASSERT_EQ(0, vm_set_private(&self->vm, OTHER, SIZE, true));
	start(&self->vcpu, count_wrong, OTHER, SIZE / PAGE);
	EXPECT_EQ(0, vcpu_sync(&self->vcpu));
}

TEST_F(guest, contents_outlive_the_fd)
{
	start(&self->vcpu, write_numbers, DATA, SIZE / PAGE);
	vcpu_sync(&self->vcpu);
	close(self->fd);
	start(&self->vcpu, count_wrong, DATA, SIZE / PAGE);
	EXPECT_EQ(0, vcpu_sync(&self->vcpu));
}

TEST_F(guest, offset_selects_the_page)
{
	start(&self->vcpu, write_numbers, DATA, SIZE / PAGE);
	vcpu_sync(&self->vcpu);
	ASSERT_EQ(0, vm_region(&self->vm, SLOT, DATA, 0, NULL));
	ASSERT_EQ(0, vm_region2(&self->vm, SLOT, KVM_MEM_GUEST_MEMFD, DATA, HUGE,
				self->hva, self->fd, HUGE + 3 * PAGE));
	start(&self->vcpu, read_words, DATA, PAGE);
	for (uint64_t i = 0; i < HUGE_PAGES; i++)
		ASSERT_EQ(HUGE_PAGES + 3 + i + 1, vcpu_sync(&self->vcpu));
}

TEST_F(guest, alias_is_the_same_page)
{
	const struct restrictedmem_create args = {
		.size = sizeof(args),
		.flags = RESTRICTEDMEM_CREATE_ALIASES,
		.length = HUGE,
		.thp = variant->thp,
	};
	int fd = create_with(&args);

	ASSERT_LE(0, fd);
	vm_add_private(&self->vm, OTHER_SLOT, OTHER, HUGE, NULL, fd);
	vm_add_private(&self->vm, OTHER_SLOT + 1, OTHER + HUGE, HUGE, NULL, fd);
	start(&self->vcpu, write_word, OTHER + 5 * PAGE, 42);
	vcpu_done(&self->vcpu);
	start(&self->vcpu, watch_word, OTHER + HUGE + 5 * PAGE, 0);
	EXPECT_EQ(42, vcpu_sync(&self->vcpu));
	ASSERT_EQ(0, punch(fd, 5 * PAGE, PAGE));
	EXPECT_EQ(0, vcpu_sync(&self->vcpu));
	close(fd);
}

TEST_F(guest, limit_is_an_error_and_no_loop)
{
	start(&self->vcpu, read_words, DATA, HUGE);
	EXPECT_EQ(0, vcpu_sync(&self->vcpu));
	ASSERT_EQ(0, set_limit(resident_total()));
	vcpu_run(&self->vcpu);
	EXPECT_EQ(0, set_limit(0));
	EXPECT_EQ(KVM_EXIT_MEMORY_FAULT, self->vcpu.reason);
	EXPECT_EQ(ENOSPC, self->vcpu.error);
	EXPECT_EQ(0, vcpu_sync(&self->vcpu));
}

/* Conversion */

TEST_F(guest, attributes_from_before_the_slot_are_honoured)
{
	char *hva = map_anonymous(HUGE);
	int fd = create(HUGE, variant->thp);

	ASSERT_LE(0, fd);
	memset(hva, 0xff, HUGE);
	ASSERT_EQ(0, vm_set_private(&self->vm, OTHER + PAGE, PAGE, true));
	ASSERT_EQ(0, vm_region2(&self->vm, OTHER_SLOT, KVM_MEM_GUEST_MEMFD, OTHER,
				HUGE, hva, fd, 0));
	start(&self->vcpu, read_words, OTHER, PAGE);
	EXPECT_EQ(-1, vcpu_sync(&self->vcpu));
	EXPECT_EQ(0, vcpu_sync(&self->vcpu));
	EXPECT_EQ(-1, vcpu_sync(&self->vcpu));
	close(fd);
}

TEST_F(guest, both_sides_of_a_page_are_separate)
{
	uint64_t *word = (uint64_t *)(self->hva + 5 * PAGE);

	*word = 0x11;
	start(&self->vcpu, write_word, DATA + 5 * PAGE, 0x22);
	vcpu_done(&self->vcpu);
	EXPECT_EQ(0x11, *word);

	start(&self->vcpu, watch_word, DATA + 5 * PAGE, 0);
	EXPECT_EQ(0x22, vcpu_sync(&self->vcpu));
	ASSERT_EQ(0, vm_set_private(&self->vm, DATA + 5 * PAGE, PAGE, false));
	EXPECT_EQ(0x11, vcpu_sync(&self->vcpu));
	*word = 0x33;
	EXPECT_EQ(0x33, vcpu_sync(&self->vcpu));
	ASSERT_EQ(0, vm_set_private(&self->vm, DATA + 5 * PAGE, PAGE, true));
	EXPECT_EQ(0x22, vcpu_sync(&self->vcpu));
}

TEST_F(guest, conversion_leaves_neighbours_alone)
{
	start(&self->vcpu, write_numbers, DATA, SIZE / PAGE);
	vcpu_sync(&self->vcpu);
	ASSERT_EQ(0, vm_set_private(&self->vm, DATA + 5 * PAGE, 3 * PAGE, false));
	start(&self->vcpu, count_wrong, DATA, SIZE / PAGE);
	EXPECT_EQ(3, vcpu_sync(&self->vcpu));
	ASSERT_EQ(0, vm_set_private(&self->vm, DATA, SIZE, true));
	EXPECT_EQ(0, vcpu_sync(&self->vcpu));
}

/* The guest accesses a private gfn that it wants shared: the VMM gives in. */
TEST_F(guest, implicit_conversion)
{
	char *hva = map_anonymous(HUGE);

	ASSERT_EQ(0, vm_region(&self->vm, OTHER_SLOT, OTHER, HUGE, hva));
	ASSERT_EQ(0, vm_set_private(&self->vm, OTHER, HUGE, true));
	start(&self->vcpu, write_word, OTHER + 8, 42);
	EXPECT_FAULT(OTHER, PRIVATE);
	ASSERT_EQ(0, vm_set_private(&self->vm, OTHER, PAGE, false));
	vcpu_done(&self->vcpu);
	EXPECT_EQ(42, *(uint64_t *)(hva + 8));
}

/* Ask for @gpa to be shared, talk to the host there, and make it private. */
static GUEST void convert_and_talk(uint64_t gpa)
{
	uint64_t r;

	guest_write(gpa, 0x1111);
	r = guest_hypercall(KVM_HC_MAP_GPA_RANGE, gpa, 1,
			    KVM_MAP_GPA_RANGE_DECRYPTED);
	guest_sync(r);
	guest_write(gpa, 0x2222);
	guest_sync(0);
	guest_sync(guest_read(gpa));
	r = guest_hypercall(KVM_HC_MAP_GPA_RANGE, gpa, 1,
			    KVM_MAP_GPA_RANGE_ENCRYPTED);
	guest_sync(r);
	guest_sync(guest_read(gpa));
	guest_done();
}

/* What a VMM does on KVM_EXIT_HYPERCALL. */
static void handle_map_gpa_range(struct vcpu *vcpu)
{
	const __u64 *args = vcpu->run->hypercall.args;

	CHECK(vcpu_run(vcpu) == KVM_EXIT_HYPERCALL);
	CHECK(vcpu->run->hypercall.nr == KVM_HC_MAP_GPA_RANGE);
	CHECK(!vm_set_private(vcpu->vm, args[0], args[1] * PAGE,
			      args[2] & KVM_MAP_GPA_RANGE_ENCRYPTED));
	vcpu->run->hypercall.ret = 0;
}

TEST_F(guest, explicit_conversion)
{
	const struct kvm_enable_cap cap = {
		.cap = KVM_CAP_EXIT_HYPERCALL,
		.args[0] = 1 << KVM_HC_MAP_GPA_RANGE,
	};
	uint64_t *word = (uint64_t *)self->hva;

	ASSERT_EQ(0, ioctl(self->vm.fd, KVM_ENABLE_CAP, &cap));
	start(&self->vcpu, convert_and_talk, DATA, 0);
	handle_map_gpa_range(&self->vcpu);
	EXPECT_EQ(0, vcpu_sync(&self->vcpu));
	EXPECT_EQ(0, *word);
	EXPECT_EQ(0, vcpu_sync(&self->vcpu));
	EXPECT_EQ(0x2222, *word);
	*word = 0x3333;
	EXPECT_EQ(0x3333, vcpu_sync(&self->vcpu));
	handle_map_gpa_range(&self->vcpu);
	EXPECT_EQ(0, vcpu_sync(&self->vcpu));
	EXPECT_EQ(0x1111, vcpu_sync(&self->vcpu));
	vcpu_done(&self->vcpu);
}

TEST_F(guest, whole_slot_shared)
{
	ASSERT_EQ(0, vm_set_private(&self->vm, DATA, SIZE, false));
	start(&self->vcpu, write_numbers, DATA, SIZE / PAGE);
	vcpu_sync(&self->vcpu);
	EXPECT_EQ(0, resident(self->fd));
	EXPECT_EQ(SIZE / PAGE, *(uint64_t *)(self->hva + SIZE - PAGE));
}

TEST_F(guest, shared_gfn_without_user_memory_fails)
{
	ASSERT_EQ(0, vm_set_private(&self->vm, DATA, PAGE, false));
	ASSERT_EQ(0, munmap(self->hva, PAGE));
	start(&self->vcpu, write_word, DATA, 1);
	EXPECT_FAULT(DATA, 0);
}

/* Discard */

TEST_F(guest, punched_page_reads_zero)
{
	start(&self->vcpu, write_numbers, DATA, SIZE / PAGE);
	vcpu_sync(&self->vcpu);
	start(&self->vcpu, watch_word, DATA + 5 * PAGE, 0);
	EXPECT_EQ(6, vcpu_sync(&self->vcpu));
	ASSERT_EQ(0, punch(self->fd, 5 * PAGE, PAGE));
	EXPECT_EQ(SIZE - PAGE, resident(self->fd));
	EXPECT_EQ(0, vcpu_sync(&self->vcpu));
}

TEST_F(guest, punch_leaves_neighbours_alone)
{
	start(&self->vcpu, write_numbers, DATA, SIZE / PAGE);
	vcpu_sync(&self->vcpu);
	ASSERT_EQ(0, punch(self->fd, HUGE - 2 * PAGE, 5 * PAGE));
	start(&self->vcpu, count_wrong, DATA, SIZE / PAGE);
	EXPECT_EQ(5, vcpu_sync(&self->vcpu));
}

TEST_F(guest, punch_of_everything)
{
	start(&self->vcpu, write_numbers, DATA, SIZE / PAGE);
	vcpu_sync(&self->vcpu);
	start(&self->vcpu, count_wrong, DATA, SIZE / PAGE);
	EXPECT_EQ(0, vcpu_sync(&self->vcpu));
	ASSERT_EQ(0, punch(self->fd, 0, SIZE));
	EXPECT_EQ(0, resident(self->fd));
	EXPECT_EQ(SIZE / PAGE, vcpu_sync(&self->vcpu));
	EXPECT_EQ(SIZE, resident(self->fd));
}

struct punch_later {
	int fd;
	off_t offset;
};

static void *punch_later(void *data)
{
	struct punch_later *arg = data;

	sleep_ms(50);
	CHECK(!punch(arg->fd, arg->offset, PAGE));
	return NULL;
}

TEST_F(guest, punch_reaches_a_running_guest)
{
	struct punch_later arg = { self->fd, 5 * PAGE };
	pthread_t thread;

	start(&self->vcpu, write_numbers, DATA, 16);
	vcpu_sync(&self->vcpu);
	start(&self->vcpu, spin_until_zero, DATA + 5 * PAGE, 0);
	pthread_create(&thread, NULL, punch_later, &arg);
	vcpu_done(&self->vcpu);
	pthread_join(thread, NULL);
}

TEST_F(guest, punch_beside_the_slot_takes_no_mapping)
{
	uint64_t faults;

	ASSERT_EQ(0, vm_region(&self->vm, SLOT, DATA, 0, NULL));
	ASSERT_EQ(0, vm_region2(&self->vm, SLOT, KVM_MEM_GUEST_MEMFD, DATA, HUGE,
				self->hva, self->fd, 0));
	ASSERT_EQ(0, populate(self->fd, 0, SIZE));
	start(&self->vcpu, write_numbers, DATA, HUGE_PAGES);
	vcpu_sync(&self->vcpu);
	faults = kvm_stat(self->vcpu.fd, "pf_fixed");
	ASSERT_EQ(0, punch(self->fd, HUGE, SIZE - HUGE));
	vcpu_sync(&self->vcpu);
	EXPECT_EQ(faults, kvm_stat(self->vcpu.fd, "pf_fixed"));
}

/* The user's side */

TEST_F(guest, munmap_does_not_disturb_private_pages)
{
	uint64_t faults;

	start(&self->vcpu, write_numbers, DATA, SIZE / PAGE);
	vcpu_sync(&self->vcpu);
	faults = kvm_stat(self->vcpu.fd, "pf_fixed");
	ASSERT_EQ(0, madvise(self->hva, SIZE, MADV_DONTNEED));
	ASSERT_EQ(0, munmap(self->hva, SIZE));
	vcpu_sync(&self->vcpu);
	EXPECT_EQ(faults, kvm_stat(self->vcpu.fd, "pf_fixed"));
}

TEST_F(guest, munmap_takes_shared_pages_away)
{
	memset(self->hva, 0xff, HUGE);
	ASSERT_EQ(0, vm_set_private(&self->vm, DATA, HUGE, false));
	start(&self->vcpu, watch_word, DATA, 0);
	EXPECT_EQ(-1, vcpu_sync(&self->vcpu));
	ASSERT_EQ(0, madvise(self->hva, HUGE, MADV_DONTNEED));
	EXPECT_EQ(0, vcpu_sync(&self->vcpu));
	ASSERT_EQ(0, munmap(self->hva, HUGE));
	EXPECT_FAULT(DATA, 0);
}

/* Huge mappings; the boot slot's are not counted. */

FIXTURE(huge) {
	struct vm vm;
	struct vcpu vcpu;
	int fd;
	char *hva;
	uint64_t before;
};

FIXTURE_SETUP(huge)
{
	vm_create(&self->vm, KVM_X86_SW_PROTECTED_VM);
	vcpu_create(&self->vm, &self->vcpu, 0);
	self->fd = create_huge(SIZE);
	ASSERT_LE(0, self->fd);
	self->hva = map_anonymous(SIZE);
	start(&self->vcpu, watch_word, 0, 0);
	vcpu_sync(&self->vcpu);
	self->before = kvm_stat(self->vm.fd, "pages_2m");
}

FIXTURE_TEARDOWN(huge)
{
	vcpu_destroy(&self->vcpu);
	vm_destroy(&self->vm);
	close(self->fd);
}

/* How many 2 MiB mappings are there after the guest wrote all of it? */
static uint64_t touch_all(FIXTURE_DATA(huge) *self, uint64_t pages)
{
	start(&self->vcpu, write_numbers, DATA, pages);
	vcpu_sync(&self->vcpu);
	start(&self->vcpu, count_wrong, DATA, pages);
	CHECK(!vcpu_sync(&self->vcpu));
	return kvm_stat(self->vm.fd, "pages_2m") - self->before;
}

TEST_F(huge, aligned_slot_is_mapped_with_huge_pages)
{
	vm_add_private(&self->vm, SLOT, DATA, SIZE, self->hva, self->fd);
	EXPECT_EQ(4, touch_all(self, SIZE / PAGE));
}

TEST_F(huge, one_fault_for_each_huge_page)
{
	uint64_t faults;

	vm_add_private(&self->vm, SLOT, DATA, SIZE, self->hva, self->fd);
	faults = kvm_stat(self->vcpu.fd, "pf_fixed");
	touch_all(self, SIZE / PAGE);
	/* And perhaps some for code and stack, that are mapped anew. */
	EXPECT_LE(4, kvm_stat(self->vcpu.fd, "pf_fixed") - faults);
	EXPECT_GE(8, kvm_stat(self->vcpu.fd, "pf_fixed") - faults);
}

TEST_F(huge, user_address_does_not_matter)
{
	ASSERT_EQ(0, vm_region2(&self->vm, SLOT, KVM_MEM_GUEST_MEMFD, DATA,
				SIZE - HUGE, self->hva + PAGE, self->fd, 0));
	ASSERT_EQ(0, vm_set_private(&self->vm, DATA, SIZE, true));
	EXPECT_EQ(3, touch_all(self, (SIZE - HUGE) / PAGE));
}

TEST_F(huge, skewed_offset_is_mapped_with_small_pages)
{
	ASSERT_EQ(0, vm_region2(&self->vm, SLOT, KVM_MEM_GUEST_MEMFD, DATA,
				SIZE - HUGE, self->hva, self->fd, PAGE));
	ASSERT_EQ(0, vm_set_private(&self->vm, DATA, SIZE, true));
	EXPECT_EQ(0, touch_all(self, (SIZE - HUGE) / PAGE));
}

TEST_F(huge, slot_with_odd_ends)
{
	/* Begins and ends 16 pages off; offset and gfn are congruent. */
	ASSERT_EQ(0, vm_region2(&self->vm, SLOT, KVM_MEM_GUEST_MEMFD,
				DATA + 16 * PAGE, SIZE - 32 * PAGE, self->hva,
				self->fd, 16 * PAGE));
	ASSERT_EQ(0, vm_set_private(&self->vm, DATA, SIZE, true));
	start(&self->vcpu, write_numbers, DATA + 16 * PAGE, SIZE / PAGE - 32);
	vcpu_sync(&self->vcpu);
	EXPECT_EQ(2, kvm_stat(self->vm.fd, "pages_2m") - self->before);
	start(&self->vcpu, count_wrong, DATA + 16 * PAGE, SIZE / PAGE - 32);
	EXPECT_EQ(0, vcpu_sync(&self->vcpu));
}

TEST_F(huge, conversion_of_a_page_splits_the_mapping)
{
	vm_add_private(&self->vm, SLOT, DATA, SIZE, self->hva, self->fd);
	ASSERT_EQ(4, touch_all(self, SIZE / PAGE));
	ASSERT_EQ(0, vm_set_private(&self->vm, DATA + HUGE + 5 * PAGE, PAGE, false));
	EXPECT_EQ(3, touch_all(self, SIZE / PAGE));
	EXPECT_EQ(HUGE_PAGES + 6, *(uint64_t *)(self->hva + HUGE + 5 * PAGE));
}

TEST_F(huge, conversion_back_joins_it)
{
	vm_add_private(&self->vm, SLOT, DATA, SIZE, self->hva, self->fd);
	ASSERT_EQ(0, vm_set_private(&self->vm, DATA + HUGE + 5 * PAGE, PAGE, false));
	ASSERT_EQ(3, touch_all(self, SIZE / PAGE));
	ASSERT_EQ(0, vm_set_private(&self->vm, DATA + HUGE + 5 * PAGE, PAGE, true));
	EXPECT_EQ(4, touch_all(self, SIZE / PAGE));
}

TEST_F(huge, partial_punch_splits_the_mapping)
{
	vm_add_private(&self->vm, SLOT, DATA, SIZE, self->hva, self->fd);
	ASSERT_EQ(4, touch_all(self, SIZE / PAGE));
	ASSERT_EQ(0, punch(self->fd, HUGE + 5 * PAGE, PAGE));
	EXPECT_EQ(3, touch_all(self, SIZE / PAGE));
}

TEST_F(huge, whole_punch_brings_it_back)
{
	vm_add_private(&self->vm, SLOT, DATA, SIZE, self->hva, self->fd);
	ASSERT_EQ(4, touch_all(self, SIZE / PAGE));
	ASSERT_EQ(0, punch(self->fd, HUGE, HUGE));
	EXPECT_EQ(3, kvm_stat(self->vm.fd, "pages_2m") - self->before);
	EXPECT_EQ(4, touch_all(self, SIZE / PAGE));
}

/* Conversions and discards under running vCPUs */

#define NR_VCPUS	2
#define STOP		0x8000		/* in the boot slot: the guests' end */
#define ARENA_PAGES	448
#define LEDGER(_cpu)	(DATA + (ARENA_PAGES + 16 + (_cpu)) * PAGE)

/*
 * Keep a count in a page that stays private, in the very huge page where others
 * come and go; write its number to pages of the arena, where each side holds
 * either that or, if it is new, zero.
 */
static GUEST void hammer(uint64_t cpu)
{
	uint64_t random = cpu * 2 + 1, count = 0;

	while (!guest_read(STOP)) {
		uint64_t page, gpa, value;

		random = random * 6364136223846793005 + 1442695040888963407;
		page = (random >> 33) % ARENA_PAGES;
		gpa = DATA + page * PAGE + cpu * 8;

		guest_write(LEDGER(cpu), ++count);
		value = guest_read(gpa);
		if (value && value != page + 1) {
			guest_sync(1);
			guest_sync(value);
		}
		guest_write(gpa, page + 1);
		if (guest_read(LEDGER(cpu)) != count)
			guest_sync(2);
	}
	guest_sync(guest_read(LEDGER(cpu)) == count ? 0 : 3);
	guest_sync(count);
	guest_done();
}

static void *run_hammer(void *data)
{
	struct vcpu *vcpu = data;
	uint64_t trouble = vcpu_sync(vcpu);
	uint64_t count = vcpu_sync(vcpu);

	if (trouble)
		fprintf(stderr, "# guest: trouble %ju, value %#jx\n",
			(uintmax_t)trouble, (uintmax_t)count);
	return (void *)(trouble ? 0 : count);
}

static void convert_at_random(struct vm *vm, int fd, unsigned int ms)
{
	struct timespec begin, now;
	unsigned int seed = 1;

	clock_gettime(CLOCK_MONOTONIC, &begin);
	do {
		uint64_t page = rand_r(&seed) % ARENA_PAGES;
		uint64_t pages = 1 + rand_r(&seed) % 16;

		if (page + pages > ARENA_PAGES)
			pages = ARENA_PAGES - page;
		if (rand_r(&seed) % 8)
			CHECK(!vm_set_private(vm, DATA + page * PAGE,
					      pages * PAGE, rand_r(&seed) & 1));
		else
			CHECK(!punch(fd, page * PAGE, pages * PAGE));
		clock_gettime(CLOCK_MONOTONIC, &now);
	} while ((now.tv_sec - begin.tv_sec) * 1000 +
		 (now.tv_nsec - begin.tv_nsec) / 1000000 < ms);
}

TEST_F(guest, conversions_and_discards_under_running_vcpus)
{
	struct vcpu vcpus[NR_VCPUS] = { self->vcpu };
	pthread_t threads[NR_VCPUS];
	void *count;

	for (int i = 0; i < NR_VCPUS; i++) {
		if (i)
			vcpu_create(&self->vm, &vcpus[i], i);
		start(&vcpus[i], hammer, i, 0);
		ASSERT_EQ(0, pthread_create(&threads[i], NULL, run_hammer,
					    &vcpus[i]));
	}
	convert_at_random(&self->vm, self->fd, 2000);
	*(volatile uint64_t *)(self->vm.boot + STOP) = 1;
	for (int i = 0; i < NR_VCPUS; i++) {
		pthread_join(threads[i], &count);
		EXPECT_NE(NULL, count);
		if (i)
			vcpu_destroy(&vcpus[i]);
	}
}

TEST_HARNESS_MAIN
