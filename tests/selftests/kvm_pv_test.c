// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * What KVM keeps in the guest's memory for the guest to read: clocks, steal
 * time, preemption marks, PV EOI. All of it is in private memory here.
 */
#include <pthread.h>
#include <sched.h>
#include <signal.h>

#include <linux/userfaultfd.h>

#include "kselftest_harness.h"
#include "delay.h"
#include "kvm_util.h"

#include <asm/kvm_para.h>

#define SIZE		HUGE
#define SLOT		1

/* Where a guest keeps what; the page of each is its own. */
#define CLOCK		(DATA + 1 * PAGE)
#define WALL_CLOCK	(DATA + 2 * PAGE)
#define STEAL(_cpu)	(DATA + (3 + (_cpu)) * PAGE)
#define EOI		(DATA + 6 * PAGE)
#define ASYNC_PF	(DATA + 7 * PAGE)

#define CLOCK_SHARED	((struct pvclock *)(self->hva + 1 * PAGE))

/* The guest's ABI, Documentation/virt/kvm/x86/msr.rst */
struct pvclock {
	uint32_t version;
	uint32_t pad;
	uint64_t tsc_timestamp;
	uint64_t system_time;
	uint32_t tsc_to_system_mul;
	int8_t tsc_shift;
	uint8_t flags;
	uint8_t pad2[2];
};

FIXTURE(pv) {
	struct vm vm;
	struct vcpu vcpu;
	int fd;
	char *hva;
};

FIXTURE_SETUP(pv)
{
	vm_create(&self->vm, KVM_X86_SW_PROTECTED_VM);
	ASSERT_EQ(0, ioctl(self->vm.fd, KVM_CREATE_IRQCHIP, 0));
	vcpu_create(&self->vm, &self->vcpu, 0);
	self->fd = create_small(SIZE);
	ASSERT_LE(0, self->fd);
	self->hva = map_anonymous(SIZE);
	vm_add_private(&self->vm, SLOT, DATA, SIZE, self->hva, self->fd);
}

FIXTURE_TEARDOWN(pv)
{
	vcpu_destroy(&self->vcpu);
	vm_destroy(&self->vm);
	close(self->fd);
}

#define START(_function) vcpu_start(&self->vcpu, _function, 0, 0, 0)

/* Did the host write to a page of the shared side? */
static bool is_clean(const char *page)
{
	for (int i = 0; i < PAGE; i++)
		if (page[i])
			return false;
	return true;
}

/* kvmclock */

static GUEST void use_clock(void)
{
	volatile struct pvclock *clock = (void *)CLOCK;

	guest_wrmsr(MSR_KVM_SYSTEM_TIME_NEW, CLOCK | 1);
	for (;;) {
		guest_sync(clock->version);
		guest_sync(clock->tsc_to_system_mul);
		guest_sync(clock->system_time);
		guest_sync(clock->tsc_timestamp);
	}
}

struct sample {
	uint64_t version, mul, system_time, tsc;
};

static struct sample take_sample(struct vcpu *vcpu)
{
	struct sample s = { vcpu_sync(vcpu) };

	s.mul = vcpu_sync(vcpu);
	s.system_time = vcpu_sync(vcpu);
	s.tsc = vcpu_sync(vcpu);
	return s;
}

/* Make KVM write the clock anew, before the guest goes on. */
static void refresh_clock(struct vcpu *vcpu)
{
	CHECK(!ioctl(vcpu->fd, KVM_KVMCLOCK_CTRL, 0));
}

TEST_F(pv, clock_is_written)
{
	struct sample s;

	START(use_clock);
	s = take_sample(&self->vcpu);
	EXPECT_LT(0, s.version);
	EXPECT_EQ(0, s.version & 1);
	EXPECT_LT(0, s.mul);
	EXPECT_LT(0, s.tsc);
	EXPECT_TRUE(is_clean((char *)CLOCK_SHARED));
}

TEST_F(pv, clock_is_written_again)
{
	struct sample first, second;

	START(use_clock);
	first = take_sample(&self->vcpu);
	sleep_ms(10);
	refresh_clock(&self->vcpu);
	second = take_sample(&self->vcpu);
	EXPECT_LT(first.version, second.version);
	EXPECT_LE(first.system_time, second.system_time);
	EXPECT_TRUE(is_clean((char *)CLOCK_SHARED));
}

TEST_F(pv, clock_follows_a_discard)
{
	int taker = create_small(64 * PAGE);
	struct sample s;

	ASSERT_LE(0, taker);
	START(use_clock);
	take_sample(&self->vcpu);
	ASSERT_EQ(0, punch(self->fd, CLOCK - DATA, PAGE));
	ASSERT_EQ(0, resident(self->fd));
	/* The old page goes to somebody else, so that the guest has another. */
	ASSERT_EQ(0, populate(taker, 0, 64 * PAGE));
	refresh_clock(&self->vcpu);
	s = take_sample(&self->vcpu);
	EXPECT_LT(0, s.mul);
	EXPECT_EQ(0, s.version & 1);
	close(taker);
}

TEST_F(pv, clock_follows_a_conversion_to_shared)
{
	struct sample s;

	START(use_clock);
	take_sample(&self->vcpu);
	ASSERT_EQ(0, vm_set_private(&self->vm, CLOCK, PAGE, false));
	refresh_clock(&self->vcpu);
	s = take_sample(&self->vcpu);
	EXPECT_LT(0, s.mul);
	EXPECT_EQ(s.mul, CLOCK_SHARED->tsc_to_system_mul);
}

TEST_F(pv, clock_follows_a_conversion_to_private)
{
	uint32_t version;
	struct sample s;

	ASSERT_EQ(0, vm_set_private(&self->vm, CLOCK, PAGE, false));
	START(use_clock);
	take_sample(&self->vcpu);
	version = CLOCK_SHARED->version;
	EXPECT_LT(0, version);
	ASSERT_EQ(0, vm_set_private(&self->vm, CLOCK, PAGE, true));
	refresh_clock(&self->vcpu);
	s = take_sample(&self->vcpu);
	EXPECT_LT(0, s.mul);
	EXPECT_EQ(version, CLOCK_SHARED->version);
}

TEST_F(pv, clock_follows_its_slot)
{
	struct sample s;
	int fd = create_small(SIZE);

	ASSERT_LE(0, fd);
	START(use_clock);
	take_sample(&self->vcpu);
	ASSERT_EQ(0, vm_region(&self->vm, SLOT, DATA, 0, NULL));
	ASSERT_EQ(0, vm_region2(&self->vm, SLOT, KVM_MEM_GUEST_MEMFD, DATA, SIZE,
				self->hva, fd, 0));
	refresh_clock(&self->vcpu);
	s = take_sample(&self->vcpu);
	EXPECT_LT(0, s.mul);
	EXPECT_LT(0, resident(fd));
	close(fd);
}

/* The user's mappings come and go, which is not the clock's business. */
TEST_F(pv, clock_needs_no_user_memory)
{
	struct sample s;

	ASSERT_EQ(0, munmap(self->hva, SIZE));
	START(use_clock);
	s = take_sample(&self->vcpu);
	EXPECT_LT(0, s.mul);
	refresh_clock(&self->vcpu);
	EXPECT_LT(s.version, take_sample(&self->vcpu).version);
}

/* Slots that may have one user address between them, but not one page. */
enum half { ORDINARY, SHARED_HALF, PRIVATE_HALF, IN_PLACE };

FIXTURE(moved) {
	struct vm vm;
	struct vcpu vcpu;
	char *hva;
	int fd[2];
};

FIXTURE_VARIANT(moved) {
	enum half half[2];
};

FIXTURE_VARIANT_ADD(moved, in_place) {
	.half = { IN_PLACE, IN_PLACE },
};

FIXTURE_VARIANT_ADD(moved, private_to_private) {
	.half = { PRIVATE_HALF, PRIVATE_HALF },
};

FIXTURE_VARIANT_ADD(moved, private_to_ordinary) {
	.half = { PRIVATE_HALF, ORDINARY },
};

FIXTURE_VARIANT_ADD(moved, ordinary_to_private) {
	.half = { ORDINARY, PRIVATE_HALF },
};

FIXTURE_VARIANT_ADD(moved, shared_to_private) {
	.half = { SHARED_HALF, PRIVATE_HALF },
};

/* Where the slots are, and the clock in each */
#define MOVED(_i)	(DATA + (_i) * SIZE)
#define MOVED_CLOCK(_i)	(MOVED(_i) + 5 * PAGE)

FIXTURE_SETUP(moved)
{
	vm_create(&self->vm, KVM_X86_SW_PROTECTED_VM);
	ASSERT_EQ(0, ioctl(self->vm.fd, KVM_CREATE_IRQCHIP, 0));
	vcpu_create(&self->vm, &self->vcpu, 0);
	self->hva = map_anonymous(SIZE);
	for (int i = 0; i < 2; i++) {
		const struct restrictedmem_create args = {
			.size = sizeof(args),
			.length = SIZE,
			.flags = variant->half[i] == IN_PLACE ?
					 RESTRICTEDMEM_CREATE_IN_PLACE : 0,
		};
		bool ordinary = variant->half[i] == ORDINARY;

		self->fd[i] = create_with(&args);
		ASSERT_LE(0, self->fd[i]);
		ASSERT_EQ(0, vm_region2(&self->vm, SLOT + i,
					ordinary ? 0 : KVM_MEM_GUEST_MEMFD,
					MOVED(i), SIZE,
					variant->half[i] == IN_PLACE ? NULL : self->hva,
					ordinary ? -1 : self->fd[i], 0));
		if (variant->half[i] == PRIVATE_HALF)
			ASSERT_EQ(0, vm_set_private(&self->vm, MOVED(i), SIZE, true));
	}
}

FIXTURE_TEARDOWN(moved)
{
	vcpu_destroy(&self->vcpu);
	vm_destroy(&self->vm);
	close(self->fd[0]);
	close(self->fd[1]);
}

static GUEST void move_clock(uint64_t from, uint64_t to)
{
	volatile struct pvclock *old = (void *)from, *new = (void *)to;

	guest_wrmsr(MSR_KVM_SYSTEM_TIME_NEW, from | 1);
	guest_sync(old->tsc_to_system_mul);
	guest_wrmsr(MSR_KVM_SYSTEM_TIME_NEW, to | 1);
	guest_sync(new->tsc_to_system_mul);
	guest_done();
}

/* The page is what counts, and not the address that the VMM gave for the slot. */
TEST_F(moved, clock_is_where_the_guest_put_it)
{
	vcpu_start(&self->vcpu, move_clock, MOVED_CLOCK(0), MOVED_CLOCK(1), 0);
	EXPECT_LT(0, vcpu_sync(&self->vcpu));
	EXPECT_LT(0, vcpu_sync(&self->vcpu));
	vcpu_done(&self->vcpu);
}

static GUEST void use_wall_clock(void)
{
	volatile uint32_t *clock = (void *)WALL_CLOCK;

	guest_wrmsr(MSR_KVM_WALL_CLOCK_NEW, WALL_CLOCK);
	guest_sync(clock[0]);
	guest_sync(clock[1]);
}

TEST_F(pv, wall_clock_is_written)
{
	uint64_t version;

	START(use_wall_clock);
	version = vcpu_sync(&self->vcpu);
	EXPECT_LT(0, version);
	EXPECT_EQ(0, version & 1);
	EXPECT_LT(0, vcpu_sync(&self->vcpu));
	EXPECT_TRUE(is_clean(self->hva + 2 * PAGE));
}

/* Steal time */

#define STEAL_OF(_cpu)	((volatile struct kvm_steal_time *)STEAL(_cpu))

static GUEST void use_steal_time(void)
{
	guest_wrmsr(MSR_KVM_STEAL_TIME, STEAL(0) | KVM_MSR_ENABLED);
	for (;;) {
		guest_sync(STEAL_OF(0)->version);
		guest_sync(STEAL_OF(0)->preempted);
	}
}

TEST_F(pv, steal_time_is_written)
{
	uint64_t version;

	START(use_steal_time);
	version = vcpu_sync(&self->vcpu);
	EXPECT_LT(0, version);
	EXPECT_EQ(0, version & 1);
	EXPECT_EQ(0, vcpu_sync(&self->vcpu));
	EXPECT_TRUE(is_clean(self->hva + 3 * PAGE));
}

TEST_F(pv, steal_time_outlives_a_discard)
{
	START(use_steal_time);
	vcpu_sync(&self->vcpu);
	vcpu_sync(&self->vcpu);
	ASSERT_EQ(0, punch(self->fd, 0, SIZE));
	for (int i = 0; i < 10; i++) {
		vcpu_sync(&self->vcpu);
		EXPECT_EQ(0, vcpu_sync(&self->vcpu));
		sleep_ms(1);
	}
}

TEST_F(pv, steal_time_follows_a_conversion)
{
	volatile struct kvm_steal_time *shared = (void *)(self->hva + 3 * PAGE);
	uint32_t version;

	START(use_steal_time);
	vcpu_sync(&self->vcpu);
	vcpu_sync(&self->vcpu);
	ASSERT_EQ(0, vm_set_private(&self->vm, STEAL(0), PAGE, false));
	/* The next time it is scheduled. */
	for (int i = 0; i < 100 && !shared->version; i++) {
		sleep_ms(1);
		vcpu_sync(&self->vcpu);
	}
	EXPECT_LT(0, shared->version);

	ASSERT_EQ(0, vm_set_private(&self->vm, STEAL(0), PAGE, true));
	version = shared->version;
	for (int i = 0; i < 10; i++) {
		sleep_ms(1);
		vcpu_sync(&self->vcpu);
	}
	EXPECT_EQ(version, shared->version);
}

/* Two vCPUs on one processor: while one of them runs, the other does not. */

#define STOP		0x8000		/* in the boot slot */

static GUEST void be_preempted(uint64_t cpu)
{
	guest_wrmsr(MSR_KVM_STEAL_TIME, STEAL(cpu) | KVM_MSR_ENABLED);
	guest_sync(0);
	while (!guest_read(STOP))
		;
	/* Taken back, for who runs is not preempted. */
	guest_sync(STEAL_OF(cpu)->preempted);
	guest_sync(STEAL_OF(cpu)->steal);
}

/* Wait for the other's mark; ask for a flush of its TLB. */
static GUEST void see_preempted(uint64_t cpu)
{
	uint8_t seen;

	/* As Linux does it: the mark may be taken back between two looks. */
	do {
		seen = KVM_VCPU_PREEMPTED;
		asm volatile("lock cmpxchgb %2, %1"
			     : "+a"(seen), "+m"(STEAL_OF(!cpu)->preempted)
			     : "q"((uint8_t)(KVM_VCPU_PREEMPTED |
					     KVM_VCPU_FLUSH_TLB)) : "memory");
	} while (seen != KVM_VCPU_PREEMPTED);
	guest_sync(seen | KVM_VCPU_FLUSH_TLB);
	guest_write(STOP, 1);
	guest_sync(0);
}

static void stay_on_one_processor(void)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(sched_getcpu(), &set);
	CHECK(!sched_setaffinity(0, sizeof(set), &set));
}

struct stolen {
	struct vcpu *vcpu;
	uint64_t preempted;
	uint64_t steal;
};

static void *run_preempted(void *data)
{
	struct stolen *stolen = data;

	stolen->preempted = vcpu_sync(stolen->vcpu);
	stolen->steal = vcpu_sync(stolen->vcpu);
	return NULL;
}

TEST_F(pv, preempted_vcpu_is_marked_and_unmarked)
{
	struct stolen stolen = { &self->vcpu };
	struct vcpu other;
	pthread_t thread;
	uint64_t mark;

	stay_on_one_processor();
	vcpu_create(&self->vm, &other, 1);
	vcpu_start(&self->vcpu, be_preempted, 0, 0, 0);
	vcpu_start(&other, see_preempted, 1, 0, 0);
	vcpu_sync(&self->vcpu);
	ASSERT_EQ(0, pthread_create(&thread, NULL, run_preempted, &stolen));
	mark = vcpu_sync(&other);
	EXPECT_EQ(KVM_VCPU_PREEMPTED | KVM_VCPU_FLUSH_TLB, mark);
	vcpu_sync(&other);
	pthread_join(thread, NULL);
	EXPECT_EQ(0, stolen.preempted);
	EXPECT_LT(0, stolen.steal);
	EXPECT_TRUE(is_clean(self->hva + 3 * PAGE));
	vcpu_destroy(&other);
}

/* Interrupts, for PV EOI */

#define GDT		0x9000		/* in the boot slot */
#define IDT		0xa000
#define VECTOR		0x41

#define X2APIC_ENABLE	0xfee00c00ULL
#define MSR_APIC_BASE	0x1b
#define MSR_X2APIC_SVR	0x80f
#define MSR_X2APIC_EOI	0x80b
#define MSR_X2APIC_ISR	0x810
#define MSR_X2APIC_SELF	0x83f

/*
 * Note in the word at EOI + 8 whether KVM offers to do without an EOI, and take
 * the offer, or else do it the old way.
 */
static GUEST void __attribute__((naked)) on_interrupt(void)
{
	asm volatile("push %%rax; push %%rcx; push %%rdx; push %%rdi\n\t"
		     "mov %0, %%rdi\n\t"
		     "lock btrl $0, (%%rdi)\n\t"
		     "setc %%al\n\t"
		     "movzbl %%al, %%eax\n\t"
		     "add $1, %%eax\n\t"
		     "mov %%rax, 8(%%rdi)\n\t"
		     "cmp $2, %%eax\n\t"
		     "je 1f\n\t"
		     "xor %%eax, %%eax; xor %%edx, %%edx; mov %1, %%ecx\n\t"
		     "wrmsr\n"
		     "1:\n\t"
		     "pop %%rdi; pop %%rdx; pop %%rcx; pop %%rax\n\t"
		     "iretq"
		     : : "i"(EOI), "i"(MSR_X2APIC_EOI));
}

static GUEST void interrupt_myself(void)
{
	guest_wrmsr(MSR_APIC_BASE, X2APIC_ENABLE);
	guest_wrmsr(MSR_X2APIC_SVR, 0x1ff);
	guest_wrmsr(MSR_KVM_PV_EOI_EN, EOI | KVM_MSR_ENABLED);
	asm volatile("sti");
	for (;;) {
		guest_write(EOI + 8, 0);
		guest_wrmsr(MSR_X2APIC_SELF, VECTOR);
		while (!guest_read(EOI + 8))
			;
		guest_sync(guest_read(EOI + 8) - 1);
	}
}

static void set_up_interrupts(struct vcpu *vcpu, uint64_t handler)
{
	uint64_t *gdt = (void *)(vcpu->vm->boot + GDT);
	uint64_t *idt = (void *)(vcpu->vm->boot + IDT);
	struct kvm_sregs s;

	gdt[1] = 0x00af9b000000ffff;		/* 64-bit code */
	gdt[2] = 0x00cf93000000ffff;		/* data */
	idt[2 * VECTOR] = (handler & 0xffff) | 0x8ULL << 16 | 0x8eULL << 40 |
			  (handler >> 16 & 0xffff) << 48;
	idt[2 * VECTOR + 1] = handler >> 32;

	CHECK(!ioctl(vcpu->fd, KVM_GET_SREGS, &s));
	s.gdt.base = GDT;
	s.gdt.limit = 3 * 8 - 1;
	s.idt.base = IDT;
	s.idt.limit = 256 * 16 - 1;
	CHECK(!ioctl(vcpu->fd, KVM_SET_SREGS, &s));
}

/* Does KVM offer to do without an EOI, within some interrupts? */
static bool is_offered(struct vcpu *vcpu)
{
	for (int i = 0; i < 20; i++)
		if (vcpu_sync(vcpu) == 1)
			return true;
	return false;
}

TEST_F(pv, eoi_is_offered)
{
	set_up_interrupts(&self->vcpu, guest_address(on_interrupt));
	START(interrupt_myself);
	/* Not every time: not while KVM believes that another one is pending. */
	EXPECT_TRUE(is_offered(&self->vcpu));
	EXPECT_TRUE(is_clean(self->hva + 6 * PAGE));
}

TEST_F(pv, eoi_follows_a_conversion)
{
	set_up_interrupts(&self->vcpu, guest_address(on_interrupt));
	START(interrupt_myself);
	EXPECT_TRUE(is_offered(&self->vcpu));
	ASSERT_EQ(0, vm_set_private(&self->vm, EOI, PAGE, false));
	EXPECT_TRUE(is_offered(&self->vcpu));
	EXPECT_EQ(2, *(uint64_t *)(self->hva + 6 * PAGE + 8));
	ASSERT_EQ(0, vm_set_private(&self->vm, EOI, PAGE, true));
	EXPECT_TRUE(is_offered(&self->vcpu));
}

/*
 * An exit in between: KVM looks whether the guest has taken the offer, sees that
 * it has not, and takes it back. The interrupt is still in service.
 */
static GUEST void __attribute__((naked)) on_slow_interrupt(void)
{
	asm volatile("push %%rax; push %%rcx; push %%rdx; push %%rsi; push %%rdi\n\t"
		     "mov %0, %%rsi\n\t"
		     "mov (%%rsi), %%rdi\n\t"
		     "out %%al, %1\n\t"
		     "mov %2, %%ecx\n\t"
		     "rdmsr\n\t"
		     "mov %%eax, %%edi\n\t"
		     "out %%al, %1\n\t"
		     "mov (%%rsi), %%rdi\n\t"
		     "out %%al, %1\n\t"
		     "movq $1, 8(%%rsi)\n\t"
		     "xor %%eax, %%eax\n\t"
		     "xor %%edx, %%edx\n\t"
		     "mov %3, %%ecx\n\t"
		     "wrmsr\n\t"
		     "pop %%rdi; pop %%rsi; pop %%rdx; pop %%rcx; pop %%rax\n\t"
		     "iretq"
		     : : "i"(EOI), "i"(PORT_SYNC),
			 "i"(MSR_X2APIC_ISR + VECTOR / 32), "i"(MSR_X2APIC_EOI));
}

TEST_F(pv, eoi_offer_is_taken_back)
{
	bool offered = false;

	set_up_interrupts(&self->vcpu, guest_address(on_slow_interrupt));
	START(interrupt_myself);
	/* An exit of the host's can come before the guest has looked. */
	for (int i = 0; i < 20 && !offered; i++) {
		offered = vcpu_sync(&self->vcpu) & 1;
		EXPECT_TRUE(vcpu_sync(&self->vcpu) & 1 << VECTOR % 32);
		EXPECT_EQ(0, vcpu_sync(&self->vcpu) & 1);
		EXPECT_EQ(0, vcpu_sync(&self->vcpu));
	}
	EXPECT_TRUE(offered);
}

static GUEST void use_async_page_faults(void)
{
	guest_wrmsr(MSR_KVM_ASYNC_PF_INT, VECTOR);
	guest_wrmsr(MSR_KVM_ASYNC_PF_EN, ASYNC_PF | KVM_ASYNC_PF_ENABLED |
		    KVM_ASYNC_PF_DELIVERY_AS_INT);
	for (uint64_t i = 0; i < SIZE; i += PAGE)
		guest_write(DATA + i, i);
	guest_wrmsr(MSR_KVM_ASYNC_PF_EN, 0);
	guest_done();
}

TEST_F(pv, async_page_faults_can_be_enabled)
{
	START(use_async_page_faults);
	vcpu_done(&self->vcpu);
}

/* A page of an ordinary slot that takes its time, until UFFDIO_ZEROPAGE */
#define LATE		(2 * GIB)
#define LATE_SLOT	2
#define NMI_VECTOR	2

struct late {
	int fd;
	char *hva;
	pthread_t vcpu;
	pthread_t thread;
};

/* Interrupt the vCPU's thread when somebody waits for the page: that is a worker. */
static void *late_thread(void *arg)
{
	struct late *late = arg;
	struct uffd_msg msg;

	CHECK(read(late->fd, &msg, sizeof(msg)) == sizeof(msg));
	CHECK(!pthread_kill(late->vcpu, SIGUSR1));
	return NULL;
}

static void ignore_signal(int signal)
{
}

static void late_start(struct late *late)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register range = { .mode = UFFDIO_REGISTER_MODE_MISSING };
	const struct sigaction action = { .sa_handler = ignore_signal };

	late->hva = map_anonymous(PAGE);
	late->vcpu = pthread_self();
	range.range.start = (uintptr_t)late->hva;
	range.range.len = PAGE;
	late->fd = syscall(SYS_userfaultfd, O_CLOEXEC);
	CHECK(late->fd >= 0);
	CHECK(!ioctl(late->fd, UFFDIO_API, &api));
	CHECK(!ioctl(late->fd, UFFDIO_REGISTER, &range));
	CHECK(!sigaction(SIGUSR1, &action, NULL));
	CHECK(!pthread_create(&late->thread, NULL, late_thread, late));
}

static void late_give(struct late *late)
{
	struct uffdio_zeropage range = { };

	range.range.start = (uintptr_t)late->hva;
	range.range.len = PAGE;
	CHECK(!ioctl(late->fd, UFFDIO_ZEROPAGE, &range));
}

static GUEST void __attribute__((naked)) on_nmi(void)
{
	asm volatile("iretq");
}

/* Only with interrupts on does KVM leave the page to a worker. */
static GUEST void read_with_interrupts(uint64_t gpa)
{
	asm volatile("sti");
	guest_sync(guest_read(gpa));
}

static GUEST void read_register(uint64_t gpa)
{
	guest_sync(guest_read(gpa));
}

/* Take from KVM what its workers have done, without running the vCPU. */
static void take_async_pages(struct vcpu *vcpu)
{
	struct {
		struct kvm_msrs msrs;
		struct kvm_msr_entry entry;
	} ack = {
		.msrs.nmsrs = 1,
		.entry = { .index = MSR_KVM_ASYNC_PF_ACK, .data = 1 },
	};

	CHECK(ioctl(vcpu->fd, KVM_SET_MSRS, &ack) == 1);
}

/*
 * While a worker waits for a page, an NMI takes the guest to a device. The page is
 * there when userspace has the answer in kvm_run already, but cannot be mapped: its
 * gfn has become private, in a slot that has no such half.
 */
TEST_F(pv, async_page_that_is_not_mapped_leaves_the_last_exit_alone)
{
	uint64_t *idt = (uint64_t *)(self->vm.boot + IDT);
	struct kvm_run *run = self->vcpu.run;
	const uint64_t answer = 42;
	int delay = delay_open(), place;
	struct late late;

	late_start(&late);
	ASSERT_EQ(0, vm_region(&self->vm, LATE_SLOT, LATE, PAGE, late.hva));
	set_up_interrupts(&self->vcpu, guest_address(on_nmi));
	memcpy(idt + 2 * NMI_VECTOR, idt + 2 * VECTOR, 16);
	vcpu_start(&self->vcpu, read_with_interrupts, LATE, 0, 0);
	EXPECT_FAILS(EINTR, ioctl(self->vcpu.fd, KVM_RUN, 0));
	ASSERT_EQ(0, pthread_join(late.thread, NULL));

	vcpu_start(&self->vcpu, read_register, NOWHERE, 0, 0);
	ASSERT_EQ(0, ioctl(self->vcpu.fd, KVM_NMI));
	ASSERT_EQ(KVM_EXIT_MMIO, vcpu_run(&self->vcpu));
	memcpy(run->mmio.data, &answer, sizeof(answer));
	ASSERT_EQ(0, vm_set_private(&self->vm, LATE, PAGE, true));
	place = delay_add(delay, "kvm:kvm_arch_async_page_ready", 1, RMD_THIS_THREAD);
	late_give(&late);
	for (int i = 0; i < 500 && !delay_waits(delay, place); i++) {
		sleep_ms(10);
		take_async_pages(&self->vcpu);
	}
	EXPECT_EQ(1, delay_waits(delay, place));
	EXPECT_EQ(KVM_EXIT_MMIO, run->exit_reason);
	EXPECT_EQ(NOWHERE, run->mmio.phys_addr);
	EXPECT_EQ(answer, vcpu_sync(&self->vcpu));
	close(delay);
	close(late.fd);
	munmap(late.hva, PAGE);
}

/* Guest addresses where there is no memory are refused or ignored. */
static GUEST void use_addresses_in_nothing(void)
{
	guest_wrmsr(MSR_KVM_STEAL_TIME, NOWHERE | KVM_MSR_ENABLED);
	guest_wrmsr(MSR_KVM_SYSTEM_TIME_NEW, NOWHERE | 1);
	guest_wrmsr(MSR_KVM_WALL_CLOCK_NEW, NOWHERE);
	guest_done();
}

TEST_F(pv, private_addresses_without_memory_are_harmless)
{
	ASSERT_EQ(0, vm_set_private(&self->vm, NOWHERE, PAGE, true));
	START(use_addresses_in_nothing);
	vcpu_run(&self->vcpu);
	EXPECT_TRUE(self->vcpu.reason == KVM_EXIT_IO ||
		    self->vcpu.reason == KVM_EXIT_SHUTDOWN);
}

TEST_HARNESS_MAIN
