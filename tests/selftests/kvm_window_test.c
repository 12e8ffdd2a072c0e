// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * KVM's side of conversion in place: slots over files that were created for it,
 * beside others, and KVM_SET_MEMORY_ATTRIBUTES and the guest's hypercall, which
 * convert them.
 */
#include <pthread.h>
#include <sys/uio.h>

#include "kselftest_harness.h"
#include "delay.h"
#include "kvm_util.h"
#include "window.h"

#define SIZE		(2 * HUGE)
#define SLOT		1
#define OTHER_SLOT	2
#define OTHER		(DATA + SIZE)

/* A slot in place, all of it private, without a user address; and a window. */
FIXTURE(inplace) {
	uint64_t resident;
	struct vm vm;
	struct vcpu vcpu;
	int fd;
	int win;
	uint64_t *map;
};

static int create_in_place(uint64_t length)
{
	const struct restrictedmem_create args = {
		.size = sizeof(args),
		.flags = RESTRICTEDMEM_CREATE_IN_PLACE,
		.length = length,
	};

	return create_with(&args);
}

FIXTURE_SETUP(inplace)
{
	catch_sigbus();
	self->resident = resident_total();
	vm_create(&self->vm, KVM_X86_SW_PROTECTED_VM);
	vcpu_create(&self->vm, &self->vcpu, 0);
	self->fd = create_in_place(SIZE);
	ASSERT_LE(0, self->fd);
	vm_add_private(&self->vm, SLOT, DATA, SIZE, NULL, self->fd);
	self->win = open_window(self->fd, 0, SIZE, RESTRICTEDMEM_WINDOW_WRITE);
	ASSERT_LE(0, self->win);
	self->map = map_window(self->win, SIZE, PROT_READ | PROT_WRITE);
	ASSERT_NE(MAP_FAILED, self->map);
}

FIXTURE_TEARDOWN(inplace)
{
	vcpu_destroy(&self->vcpu);
	vm_destroy(&self->vm);
	close(self->fd);
	EXPECT_EQ(self->resident, resident_total());
	EXPECT_FALSE(is_visible(self->map));
	munmap(self->map, SIZE);
	close(self->win);
}

static int set_attributes(struct vm *vm, uint64_t gpa, uint64_t size,
			  uint64_t attributes, uint64_t flags)
{
	const struct kvm_memory_attributes args = {
		.address = gpa,
		.size = size,
		.attributes = attributes,
		.flags = flags,
	};

	return ioctl(vm->fd, KVM_SET_MEMORY_ATTRIBUTES, &args);
}

/* Write, tell, and tell again what is there when the host has had its turn. */
static GUEST void write_and_tell(uint64_t gpa, uint64_t value)
{
	guest_write(gpa, value);
	guest_sync(guest_read(gpa));
	for (;;)
		guest_sync(guest_read(gpa));
}

/* Touch every 4 KiB, so that what is mapped in 2 MiB is so. */
static GUEST void touch_all(uint64_t gpa, uint64_t pages)
{
	for (uint64_t i = 0; i < pages; i++)
		guest_write(gpa + i * PAGE, i);
	guest_sync(0);
	for (uint64_t i = 0; i < pages; i++)
		guest_read(gpa + i * PAGE);
	guest_sync(1);
	guest_done();
}

/* Ask for a conversion, then use what there is. */
static GUEST void share_by_hypercall(uint64_t gpa, uint64_t value)
{
	guest_write(gpa, value);
	guest_sync(guest_hypercall(KVM_HC_MAP_GPA_RANGE, gpa, 1,
				   KVM_MAP_GPA_RANGE_DECRYPTED));
	guest_sync(guest_read(gpa));
	guest_done();
}

/* Count upwards in one word, until there is something in the next. */
static GUEST void count_up(uint64_t gpa)
{
	for (uint64_t i = 1; !guest_read(gpa + 8); i++)
		guest_write(gpa, i);
	guest_done();
}

/* Write and read all over the pages, until the word before them says so. */
static GUEST void roam(uint64_t gpa, uint64_t pages)
{
	uint64_t n = 1;

	while (!guest_read(gpa)) {
		n = n * 6364136223846793005ULL + 1442695040888963407ULL;
		guest_write(gpa + PAGE + (n >> 33) % pages * PAGE, n);
		guest_read(gpa + PAGE + (n >> 40) % pages * PAGE);
	}
	guest_done();
}

static void start(struct vcpu *vcpu, void *function, uint64_t a, uint64_t b)
{
	vcpu_start(vcpu, function, a, b, 0);
}

TEST_F(inplace, shared_gfn_is_the_same_page)
{
	start(&self->vcpu, write_and_tell, DATA + PAGE, 42);
	ASSERT_EQ(42, vcpu_sync(&self->vcpu));
	EXPECT_FALSE(is_visible(self->map + 512));
	ASSERT_EQ(0, set_attributes(&self->vm, DATA + PAGE, PAGE, 0, PRESERVE));
	EXPECT_EQ(42, self->map[512]);
	EXPECT_FALSE(is_visible(self->map));
	self->map[512] = 43;
	EXPECT_EQ(43, vcpu_sync(&self->vcpu));
	ASSERT_EQ(0, set_attributes(&self->vm, DATA + PAGE, PAGE,
				    KVM_MEMORY_ATTRIBUTE_PRIVATE, PRESERVE));
	EXPECT_FALSE(is_visible(self->map + 512));
	EXPECT_EQ(43, vcpu_sync(&self->vcpu));
	EXPECT_EQ(0, fdinfo_number(self->fd, "shared"));
}

TEST_F(inplace, default_is_to_zero)
{
	start(&self->vcpu, write_and_tell, DATA, 42);
	ASSERT_EQ(42, vcpu_sync(&self->vcpu));
	ASSERT_EQ(0, set_attributes(&self->vm, DATA, PAGE, 0, 0));
	EXPECT_EQ(0, self->map[0]);
	EXPECT_EQ(0, vcpu_sync(&self->vcpu));
	self->map[0] = 44;
	ASSERT_EQ(0, set_attributes(&self->vm, DATA, PAGE,
				    KVM_MEMORY_ATTRIBUTE_PRIVATE, ZERO));
	EXPECT_EQ(0, vcpu_sync(&self->vcpu));
}

TEST_F(inplace, huge_mapping_stays)
{
	uint64_t faults;

	start(&self->vcpu, touch_all, DATA, SIZE / PAGE);
	vcpu_sync(&self->vcpu);
	ASSERT_LE(2, kvm_stat(self->vm.fd, "pages_2m"));
	faults = kvm_stat(self->vcpu.fd, "pf_taken");
	ASSERT_EQ(0, set_attributes(&self->vm, DATA + 5 * PAGE, PAGE, 0, PRESERVE));
	vcpu_sync(&self->vcpu);
	EXPECT_LE(2, kvm_stat(self->vm.fd, "pages_2m"));
	EXPECT_EQ(faults, kvm_stat(self->vcpu.fd, "pf_taken"));
	vcpu_done(&self->vcpu);
}

/* The first touch of what is shared in part already */
TEST_F(inplace, mixed_range_is_mapped_by_a_huge_page)
{
	ASSERT_EQ(0, set_attributes(&self->vm, DATA + 5 * PAGE, PAGE, 0, 0));
	start(&self->vcpu, touch_all, DATA, HUGE / PAGE);
	vcpu_sync(&self->vcpu);
	EXPECT_LE(1, kvm_stat(self->vm.fd, "pages_2m"));
	EXPECT_EQ(5, self->map[5 * 512]);
	vcpu_sync(&self->vcpu);
	vcpu_done(&self->vcpu);
}

TEST_F(inplace, held_page_is_eagain)
{
	struct iovec iov = { self->map, 8 };
	int pipefd[2];

	start(&self->vcpu, write_and_tell, DATA, 42);
	ASSERT_EQ(42, vcpu_sync(&self->vcpu));
	ASSERT_EQ(0, set_attributes(&self->vm, DATA, PAGE, 0, PRESERVE));
	ASSERT_EQ(42, self->map[0]);
	ASSERT_EQ(0, pipe(pipefd));
	ASSERT_EQ(8, vmsplice(pipefd[1], &iov, 1, 0));
	EXPECT_FAILS(EAGAIN, set_attributes(&self->vm, DATA, PAGE,
					    KVM_MEMORY_ATTRIBUTE_PRIVATE, PRESERVE));
	EXPECT_EQ(42, self->map[0]);
	EXPECT_EQ(42, vcpu_sync(&self->vcpu));
	close(pipefd[0]);
	close(pipefd[1]);
	EXPECT_WORKS(set_attributes(&self->vm, DATA, PAGE,
				    KVM_MEMORY_ATTRIBUTE_PRIVATE, PRESERVE));
	EXPECT_FALSE(is_visible(self->map));
}

TEST_F(inplace, guest_shares_by_hypercall)
{
	struct kvm_enable_cap cap = {
		.cap = KVM_CAP_EXIT_HYPERCALL,
		.args = { 1 << KVM_HC_MAP_GPA_RANGE },
	};
	struct kvm_run *run = self->vcpu.run;

	ASSERT_EQ(0, ioctl(self->vm.fd, KVM_ENABLE_CAP, &cap));
	start(&self->vcpu, share_by_hypercall, DATA + HUGE, 42);
	ASSERT_EQ(KVM_EXIT_HYPERCALL, vcpu_run(&self->vcpu));
	ASSERT_EQ(KVM_HC_MAP_GPA_RANGE, run->hypercall.nr);
	ASSERT_EQ(0, set_attributes(&self->vm, run->hypercall.args[0],
				    run->hypercall.args[1] * PAGE, 0, PRESERVE));
	run->hypercall.ret = 0;
	EXPECT_EQ(0, vcpu_sync(&self->vcpu));
	EXPECT_EQ(42, self->map[HUGE / 8]);
	self->map[HUGE / 8] = 43;
	EXPECT_EQ(43, vcpu_sync(&self->vcpu));
	vcpu_done(&self->vcpu);
}

/* What converts the file itself, and not through KVM */
TEST_F(inplace, file_is_converted_under_the_guest)
{
	start(&self->vcpu, write_and_tell, DATA, 42);
	ASSERT_EQ(42, vcpu_sync(&self->vcpu));
	ASSERT_EQ(0, convert(self->fd, 0, PAGE, SHARED, PRESERVE));
	EXPECT_EQ(42, self->map[0]);
	/* KVM's attribute says private already; the file does not. */
	ASSERT_EQ(0, set_attributes(&self->vm, DATA, PAGE,
				    KVM_MEMORY_ATTRIBUTE_PRIVATE, PRESERVE));
	EXPECT_FALSE(is_visible(self->map));
	EXPECT_EQ(42, vcpu_sync(&self->vcpu));
}

TEST_F(inplace, both_kinds_of_slot_in_one_vm)
{
	char *hva = map_anonymous(HUGE);
	int fd = create_huge(HUGE);

	ASSERT_LE(0, fd);
	vm_add_private(&self->vm, OTHER_SLOT, OTHER, HUGE, hva, fd);
	/* One call over both: the ordinary one gets its other half. */
	start(&self->vcpu, write_and_tell, OTHER, 42);
	ASSERT_EQ(42, vcpu_sync(&self->vcpu));
	ASSERT_EQ(0, set_attributes(&self->vm, OTHER - PAGE, 2 * PAGE, 0, 0));
	EXPECT_EQ(PAGE, fdinfo_number(self->fd, "shared"));
	EXPECT_TRUE(is_visible(self->map + SIZE / 8 - 1));
	EXPECT_EQ(0, vcpu_sync(&self->vcpu));
	*(uint64_t *)hva = 43;
	EXPECT_EQ(43, vcpu_sync(&self->vcpu));
	/* Contents cannot be kept where there are two copies. */
	EXPECT_FAILS(EINVAL, set_attributes(&self->vm, OTHER - PAGE, 2 * PAGE,
					    KVM_MEMORY_ATTRIBUTE_PRIVATE, PRESERVE));
	EXPECT_FAILS(EINVAL, set_attributes(&self->vm, OTHER, PAGE,
					    KVM_MEMORY_ATTRIBUTE_PRIVATE, ZERO));
	EXPECT_EQ(PAGE, fdinfo_number(self->fd, "shared"));
	ASSERT_EQ(0, set_attributes(&self->vm, OTHER - PAGE, 2 * PAGE,
				    KVM_MEMORY_ATTRIBUTE_PRIVATE, 0));
	EXPECT_EQ(42, vcpu_sync(&self->vcpu));
	close(fd);
}

TEST_F(inplace, unknown_flags)
{
	for (int bit = 2; bit < 64; bit++)
		EXPECT_FAILS(EINVAL, set_attributes(&self->vm, DATA, PAGE, 0,
						    1ULL << bit));
	EXPECT_FAILS(EINVAL, set_attributes(&self->vm, DATA, PAGE, 0,
					    ZERO | PRESERVE));
	/* Nowhere near a slot, and beyond its end */
	EXPECT_FAILS(EINVAL, set_attributes(&self->vm, NOWHERE, PAGE, 0, PRESERVE));
	EXPECT_FAILS(EINVAL, set_attributes(&self->vm, OTHER - PAGE, 2 * PAGE, 0,
					    PRESERVE));
	EXPECT_EQ(0, fdinfo_number(self->fd, "shared"));
}

/* Slots of files in place have nothing to do with what is at their address. */
TEST_F(inplace, user_mappings_do_not_matter)
{
	char *hva = map_anonymous(HUGE);
	int fd = create_in_place(HUGE);
	uint64_t faults;

	ASSERT_LE(0, fd);
	vm_add_private(&self->vm, OTHER_SLOT, OTHER, HUGE, hva, fd);
	start(&self->vcpu, write_and_tell, OTHER, 42);
	ASSERT_EQ(42, vcpu_sync(&self->vcpu));
	ASSERT_EQ(0, set_attributes(&self->vm, OTHER, PAGE, 0, PRESERVE));
	*(uint64_t *)hva = 17;
	EXPECT_EQ(42, vcpu_sync(&self->vcpu));
	faults = kvm_stat(self->vcpu.fd, "pf_taken");
	ASSERT_EQ(0, madvise(hva, HUGE, MADV_DONTNEED));
	ASSERT_EQ(0, munmap(hva, HUGE));
	EXPECT_EQ(42, vcpu_sync(&self->vcpu));
	EXPECT_EQ(faults, kvm_stat(self->vcpu.fd, "pf_taken"));
	/* Deleted and made anew, it is where it was. */
	ASSERT_EQ(0, vm_region2(&self->vm, OTHER_SLOT, 0, OTHER, 0, NULL, -1, 0));
	ASSERT_EQ(0, vm_region2(&self->vm, OTHER_SLOT, KVM_MEM_GUEST_MEMFD, OTHER,
				HUGE, NULL, fd, 0));
	EXPECT_EQ(42, vcpu_sync(&self->vcpu));
	close(fd);
}

/* A punch takes the page from guest and window alike. */
TEST_F(inplace, punched_page_is_zero_for_both)
{
	start(&self->vcpu, write_and_tell, DATA, 42);
	ASSERT_EQ(42, vcpu_sync(&self->vcpu));
	ASSERT_EQ(0, set_attributes(&self->vm, DATA, PAGE, 0, PRESERVE));
	ASSERT_EQ(42, self->map[0]);
	ASSERT_EQ(0, punch(self->fd, 0, PAGE));
	EXPECT_EQ(0, self->map[0]);
	self->map[0] = 43;
	EXPECT_EQ(43, vcpu_sync(&self->vcpu));
}

/* Caches that are not coherent with the guest's must forget the page, too. */
TEST_F(inplace, discard_is_told_to_the_architecture)
{
	int delays = delay_open();
	int place = delay_add(delays, "kvm:kvm_arch_guest_memory_reclaimed", 1,
			      RMD_THIS_THREAD);

	start(&self->vcpu, write_and_tell, DATA, 42);
	ASSERT_EQ(42, vcpu_sync(&self->vcpu));
	EXPECT_EQ(0, delay_waits(delays, place));
	ASSERT_EQ(0, punch(self->fd, 0, PAGE));
	EXPECT_EQ(1, delay_waits(delays, place));
	close(delays);
}

TEST_F(inplace, window_keeps_no_vm)
{
	long refs;
	char text[32];

	start(&self->vcpu, write_and_tell, DATA, 42);
	ASSERT_EQ(42, vcpu_sync(&self->vcpu));
	ASSERT_EQ(0, set_attributes(&self->vm, DATA, PAGE, 0, PRESERVE));
	ASSERT_EQ(42, self->map[0]);
	read_text("/sys/module/kvm/refcnt", text, sizeof(text));
	refs = strtol(text, NULL, 10);
	vcpu_destroy(&self->vcpu);
	vm_destroy(&self->vm);
	/* The VM is gone, and the file is still ours. */
	EXPECT_EQ(42, self->map[0]);
	close(self->fd);
	EXPECT_FALSE(is_visible(self->map));
	EXPECT_EQ(self->resident, resident_total());
	read_text("/sys/module/kvm/refcnt", text, sizeof(text));
	EXPECT_GE(refs, strtol(text, NULL, 10));
	/* For the fixture's end */
	vm_create(&self->vm, KVM_X86_SW_PROTECTED_VM);
	vcpu_create(&self->vm, &self->vcpu, 0);
	self->fd = create_in_place(SIZE);
}

static void *run_to_the_end(void *vcpu)
{
	vcpu_done(vcpu);
	return NULL;
}

/* Back and forth while the guest writes: nothing it wrote is lost. */
TEST_F(inplace, conversion_under_a_running_vcpu)
{
	uint64_t last = 0, value = 0;
	pthread_t thread;

	start(&self->vcpu, count_up, DATA + 3 * PAGE, 0);
	ASSERT_EQ(0, pthread_create(&thread, NULL, run_to_the_end, &self->vcpu));
	for (uint64_t i = 0; i < rounds(500); i++) {
		ASSERT_EQ(0, set_attributes(&self->vm, DATA, HUGE, 0, PRESERVE));
		ASSERT_EQ(0, peek(self->map + 3 * 512, &value));
		ASSERT_LE(last, value);
		last = value;
		ASSERT_EQ(0, set_attributes(&self->vm, DATA, HUGE,
					    KVM_MEMORY_ATTRIBUTE_PRIVATE, PRESERVE));
		ASSERT_FALSE(is_visible(self->map + 3 * 512));
	}
	ASSERT_EQ(0, set_attributes(&self->vm, DATA, HUGE, 0, PRESERVE));
	ASSERT_EQ(0, poke(self->map + 3 * 512 + 1, 1));
	pthread_join(thread, NULL);
	EXPECT_LT(0, last);
}

/* A fault that is under way holds its page: who does not wait asks again. */
static int set_in_the_end(struct vm *vm, uint64_t gpa, uint64_t size,
			  uint64_t attributes, uint64_t flags)
{
	int r, tries = 100;

	do {
		r = set_attributes(vm, gpa, size, attributes, flags);
	} while (r && errno == EAGAIN && --tries);
	return r;
}

struct neighbours {
	struct vm *vm;
	uint64_t *map;
	int fd;
	bool stop;
	uint64_t errors;
};

#define ROAMED	200		/* pages, behind the first, which has the word */

static void *looks(void *arg)
{
	struct neighbours *n = arg;
	unsigned int seed = 1;
	uint64_t value;

	while (!__atomic_load_n(&n->stop, __ATOMIC_RELAXED)) {
		peek(n->map + (1 + rand_r(&seed) % ROAMED) * 512, &value);
		poke(n->map + (1 + rand_r(&seed) % ROAMED) * 512, value);
		if (rand_r(&seed) % 64 == 0)
			madvise(n->map, SIZE, MADV_DONTNEED);
	}
	return NULL;
}

static void *gives_back(void *arg)
{
	struct neighbours *n = arg;
	unsigned int seed = 2;

	while (!__atomic_load_n(&n->stop, __ATOMIC_RELAXED)) {
		if (punch(n->fd, (1 + rand_r(&seed) % ROAMED) * PAGE, PAGE))
			__atomic_add_fetch(&n->errors, 1, __ATOMIC_RELAXED);
		sleep_ms(1);
	}
	return NULL;
}

/* Two vCPUs, a process that looks, and a VMM that gives pages back meanwhile. */
TEST_F_TIMEOUT(inplace, storm_with_two_vcpus, 120)
{
	struct neighbours n = { &self->vm, self->map, self->fd };
	pthread_t vcpus[2], others[3];
	unsigned int seed = 3;
	struct vcpu second;

	ASSERT_EQ(0, set_attributes(&self->vm, DATA, PAGE, 0, 0));
	vcpu_create(&self->vm, &second, 1);
	start(&self->vcpu, roam, DATA, ROAMED);
	start(&second, roam, DATA, ROAMED);
	pthread_create(&vcpus[0], NULL, run_to_the_end, &self->vcpu);
	pthread_create(&vcpus[1], NULL, run_to_the_end, &second);
	pthread_create(&others[0], NULL, looks, &n);
	pthread_create(&others[1], NULL, looks, &n);
	pthread_create(&others[2], NULL, gives_back, &n);
	for (uint64_t i = 0; i < rounds(500); i++) {
		uint64_t first = 1 + rand_r(&seed) % ROAMED;
		uint64_t pages = 1 + rand_r(&seed) % (ROAMED + 1 - first);
		bool private = rand_r(&seed) % 2;
		uint64_t value;

		ASSERT_EQ(0, set_in_the_end(&self->vm, DATA + first * PAGE, pages * PAGE,
					    private ? KVM_MEMORY_ATTRIBUTE_PRIVATE : 0,
					    rand_r(&seed) % 2 ? PRESERVE : ZERO));
		ASSERT_EQ(private ? -1 : 0, peek(self->map + first * 512, &value));
	}
	__atomic_store_n(&n.stop, true, __ATOMIC_RELAXED);
	for (int i = 0; i < 3; i++)
		pthread_join(others[i], NULL);
	ASSERT_EQ(0, poke(self->map, 1));
	pthread_join(vcpus[0], NULL);
	pthread_join(vcpus[1], NULL);
	EXPECT_EQ(0, n.errors);
	vcpu_destroy(&second);
}

/*
 * The second address space, SMM's, has other memory at the same gfns: what is in
 * place in the first alone is converted, and may be mapped no longer in the second.
 */
#define SPACE		(1U << 16)	/* in kvm_userspace_memory_region2.slot */
#define SMRAM		0x30000ULL	/* SMBASE after reset */
#define SMRAM_SIZE	0x10000ULL
#define SMI_HANDLER	0x8000ULL

/* mov DATA, %eax; out %eax, $PORT_DATA; rsm; in 16-bit mode */
static const uint8_t smi_code[] = {
	0x66, 0x67, 0xa1, DATA & 0xff, DATA >> 8 & 0xff, DATA >> 16 & 0xff,
	DATA >> 24, 0x66, 0xe7, PORT_DATA, 0x0f, 0xaa,
};

enum second { IN_PLACE_TOO, TWO_HALVES, ORDINARY };

FIXTURE(second) {
	uint64_t resident;
	struct vm vm;
	struct vcpu vcpu;
	int fd;		/* in place */
	int split;	/* not */
	char *smram;
	char *hva;
};

FIXTURE_VARIANT(second) {
	enum second kind;
};

FIXTURE_VARIANT_ADD(second, in_place_too) {
	.kind = IN_PLACE_TOO,
};

FIXTURE_VARIANT_ADD(second, has_two_halves) {
	.kind = TWO_HALVES,
};

FIXTURE_VARIANT_ADD(second, is_ordinary) {
	.kind = ORDINARY,
};

static int create_aliasing(uint32_t flags)
{
	const struct restrictedmem_create args = {
		.size = sizeof(args),
		.flags = flags | RESTRICTEDMEM_CREATE_ALIASES,
		.length = SIZE,
	};

	return create_with(&args);
}

FIXTURE_SETUP(second)
{
	self->resident = resident_total();
	vm_create(&self->vm, KVM_X86_SW_PROTECTED_VM);
	vcpu_create(&self->vm, &self->vcpu, 0);
	self->fd = create_aliasing(RESTRICTEDMEM_CREATE_IN_PLACE);
	self->split = create_aliasing(0);
	ASSERT_LE(0, self->fd);
	ASSERT_LE(0, self->split);
	self->smram = map_anonymous(SMRAM_SIZE);
	self->hva = map_anonymous(SIZE);
	memcpy(self->smram + SMI_HANDLER, smi_code, sizeof(smi_code));
	*(uint32_t *)self->hva = 42;

	ASSERT_EQ(0, vm_region2(&self->vm, SLOT, KVM_MEM_GUEST_MEMFD, DATA, SIZE,
				NULL, self->fd, 0));
	ASSERT_EQ(0, vm_region2(&self->vm, SPACE | 2, 0, SMRAM, SMRAM_SIZE,
				self->smram, -1, 0));
	ASSERT_EQ(0, vm_region2(&self->vm, SPACE | SLOT,
				variant->kind == ORDINARY ? 0 : KVM_MEM_GUEST_MEMFD,
				DATA, SIZE, self->hva,
				variant->kind == TWO_HALVES ? self->split : self->fd, 0));
	ASSERT_EQ(0, set_attributes(&self->vm, DATA, SIZE, 0, 0));
}

FIXTURE_TEARDOWN(second)
{
	vcpu_destroy(&self->vcpu);
	vm_destroy(&self->vm);
	close(self->fd);
	close(self->split);
	EXPECT_EQ(self->resident, resident_total());
}

/* What SMM reads at DATA; -1 when it is not served. */
static long smm_reads(struct vcpu *vcpu)
{
	struct kvm_run *run = vcpu->run;

	if (ioctl(vcpu->fd, KVM_SMI) || vcpu_run(vcpu) != KVM_EXIT_IO ||
	    run->io.port != PORT_DATA)
		return -1;
	return *(uint32_t *)((char *)run + run->io.data_offset);
}

TEST_F(second, does_not_keep_what_became_private)
{
	struct restrictedmem_kvm_memory_fault *f;
	uint64_t faults;

	start(&self->vcpu, watch_word, DATA, 0);
	ASSERT_EQ(0, vcpu_sync(&self->vcpu));
	ASSERT_EQ(variant->kind == IN_PLACE_TOO ? 0 : 42, smm_reads(&self->vcpu));
	vcpu_sync(&self->vcpu);
	faults = kvm_stat(self->vcpu.fd, "pf_taken");
	ASSERT_EQ(0, set_attributes(&self->vm, DATA, SIZE,
				    KVM_MEMORY_ATTRIBUTE_PRIVATE, PRESERVE));
	if (variant->kind == ORDINARY) {
		EXPECT_EQ(-1, smm_reads(&self->vcpu));
		ASSERT_EQ(KVM_EXIT_MEMORY_FAULT, self->vcpu.reason);
		f = restrictedmem_kvm_memory_fault(self->vcpu.run);
		EXPECT_EQ(DATA, f->gpa);
		EXPECT_EQ(KVM_MEMORY_EXIT_FLAG_PRIVATE, f->flags);
		return;
	}
	EXPECT_EQ(0, smm_reads(&self->vcpu));
	/* Only what would be wrong has been removed. */
	if (variant->kind == IN_PLACE_TOO)
		EXPECT_EQ(faults, kvm_stat(self->vcpu.fd, "pf_taken"));
}

TEST_HARNESS_MAIN
