// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * KVM's own access to private memory on the guest's behalf: the emulator's
 * instruction fetches and operands, string I/O, MMIO, the walk of page tables
 * that are private themselves, atomic exchanges.
 *
 * The guest's private memory, at DATA, holds its page tables, its code or its
 * data, as a test wants. A window of virtual addresses is mapped to a part of it
 * in 4 KiB pages, whose accessed and dirty bits nobody has set.
 */
#include <pthread.h>

#include "kselftest_harness.h"
#include "kvm_race.h"

#define SIZE		(4 * MIB)
#define SLOT		1

/* In private memory */
#define TABLES		DATA			/* PML4, PDPT, 4 PDs, a PT */
#define TABLE(_n)	(TABLES + (_n) * PAGE)
#define CODE		(DATA + 256 * KIB)
#define STACK		(DATA + 512 * KIB)	/* grows down */
#define BUFFER		(DATA + 1 * MIB)	/* what the window shows */

#define WINDOW		(2 * GIB)
#define WINDOW_PAGES	16

#define PTE_PRESENT	(1ULL << 0)
#define PTE_WRITABLE	(1ULL << 1)
#define PTE_ACCESSED	(1ULL << 5)
#define PTE_DIRTY	(1ULL << 6)

FIXTURE(emulated) {
	struct vm vm;
	struct vcpu vcpu;
	int fd;
	char *hva;
};

FIXTURE_VARIANT(emulated) {
	uint32_t thp;
};

FIXTURE_VARIANT_ADD(emulated, small) {
	.thp = RESTRICTEDMEM_THP_NEVER,
};

FIXTURE_VARIANT_ADD(emulated, huge) {
	.thp = RESTRICTEDMEM_THP_ALWAYS,
};

#define FORCE_EMULATION "/sys/module/kvm/parameters/force_emulation_prefix"

FIXTURE_SETUP(emulated)
{
	ASSERT_EQ(0, write_text(FORCE_EMULATION, "1"));
	vm_create(&self->vm, KVM_X86_SW_PROTECTED_VM);
	vcpu_create(&self->vm, &self->vcpu, 0);
	self->fd = create(SIZE, variant->thp);
	ASSERT_LE(0, self->fd);
	self->hva = map_anonymous(SIZE);
	vm_add_private(&self->vm, SLOT, DATA, SIZE, self->hva, self->fd);
}

/* Nothing of it all went to the shared side. */
FIXTURE_TEARDOWN(emulated)
{
	for (uint64_t i = 0; i < SIZE / 8; i++)
		if (((uint64_t *)self->hva)[i])
			EXPECT_EQ(0, ((uint64_t *)self->hva)[i]);
	vcpu_destroy(&self->vcpu);
	vm_destroy(&self->vm);
	close(self->fd);
}

/* What the guest does */

/* Copy the page tables to private memory, add the window, and use them. */
GUEST_INLINE void use_private_tables(void)
{
	for (uint64_t i = 0; i < 6 * PAGE; i += 8)
		guest_write(TABLES + i, guest_read(GUEST_TABLES + i));
	guest_write(TABLE(0), TABLE(1) | PTE_WRITABLE | PTE_PRESENT);
	for (uint64_t i = 0; i < 4; i++)
		guest_write(TABLE(1) + i * 8,
			    TABLE(2 + i) | PTE_WRITABLE | PTE_PRESENT);
	guest_write(TABLE(4), TABLE(6) | PTE_WRITABLE | PTE_PRESENT);
	for (uint64_t i = 0; i < WINDOW_PAGES; i++)
		guest_write(TABLE(6) + i * 8, (BUFFER + i * PAGE) |
			    PTE_WRITABLE | PTE_PRESENT);
	asm volatile("mov %0, %%cr3" : : "r"(TABLES) : "memory");
}

GUEST_INLINE uint64_t *pte_of(uint64_t window_page)
{
	return (uint64_t *)(TABLE(6) + window_page * 8);
}

GUEST_INLINE void outs_bytes(uint64_t address, uint64_t count)
{
	asm volatile("rep outsb" : "+S"(address), "+c"(count)
		     : "d"(PORT_DATA) : "memory");
}

GUEST_INLINE void ins_bytes(uint64_t address, uint64_t count)
{
	asm volatile("rep insb" : "+D"(address), "+c"(count)
		     : "d"(PORT_DATA) : "memory");
}

/* What the VMM does */

/* Collect what the guest puts out to PORT_DATA, until it syncs. */
static size_t collect_out(struct vcpu *vcpu, char *buf, size_t size)
{
	size_t n = 0;

	for (;;) {
		struct kvm_run *run = vcpu->run;
		size_t bytes;

		if (vcpu_run(vcpu) != KVM_EXIT_IO ||
		    run->io.port != PORT_DATA)
			return n;
		CHECK(run->io.direction == KVM_EXIT_IO_OUT);
		bytes = run->io.size * run->io.count;
		CHECK(n + bytes <= size);
		memcpy(buf + n, (char *)run + run->io.data_offset, bytes);
		n += bytes;
	}
}

/* Serve what it asks from PORT_DATA with 1, 2, 3, ..., until it syncs. */
static size_t serve_in(struct vcpu *vcpu)
{
	size_t n = 0;

	for (;;) {
		struct kvm_run *run = vcpu->run;
		uint8_t *data;

		if (vcpu_run(vcpu) != KVM_EXIT_IO ||
		    run->io.port != PORT_DATA)
			return n;
		CHECK(run->io.direction == KVM_EXIT_IO_IN);
		CHECK(run->io.size == 1);
		data = (uint8_t *)run + run->io.data_offset;
		for (uint32_t i = 0; i < run->io.count; i++)
			data[i] = ++n;
	}
}

/* A sync was the last exit; its value. */
static uint64_t synced(struct vcpu *vcpu)
{
	struct kvm_regs regs;

	CHECK(vcpu->reason == KVM_EXIT_IO && vcpu->run->io.port == PORT_SYNC);
	CHECK(!ioctl(vcpu->fd, KVM_GET_REGS, &regs));
	return regs.rdi;
}

static void expect_mmio_write(struct __test_metadata *_metadata,
			      struct vcpu *vcpu, uint64_t gpa, uint64_t value,
			      unsigned int len)
{
	uint64_t data = 0;

	ASSERT_EQ(KVM_EXIT_MMIO, vcpu_run(vcpu));
	EXPECT_EQ(gpa, vcpu->run->mmio.phys_addr);
	EXPECT_EQ(1, vcpu->run->mmio.is_write);
	EXPECT_EQ(len, vcpu->run->mmio.len);
	memcpy(&data, vcpu->run->mmio.data, len);
	EXPECT_EQ(value, data);
}

static void answer_mmio_read(struct __test_metadata *_metadata,
			     struct vcpu *vcpu, uint64_t gpa, uint64_t value,
			     unsigned int len)
{
	ASSERT_EQ(KVM_EXIT_MMIO, vcpu_run(vcpu));
	EXPECT_EQ(gpa, vcpu->run->mmio.phys_addr);
	EXPECT_EQ(0, vcpu->run->mmio.is_write);
	EXPECT_EQ(len, vcpu->run->mmio.len);
	memcpy(vcpu->run->mmio.data, &value, len);
}

#define START(_function) vcpu_start(&self->vcpu, _function, 0, 0, 0)

/* String I/O */

static GUEST void put_out(uint64_t address, uint64_t count)
{
	for (uint64_t i = 0; i < count; i++)
		*(volatile uint8_t *)(address + i) = i + 1;
	outs_bytes(address, count);
	guest_sync(0);
}

static GUEST void take_in(uint64_t address, uint64_t count)
{
	uint64_t wrong = 0;

	ins_bytes(address, count);
	for (uint64_t i = 0; i < count; i++)
		wrong += *(volatile uint8_t *)(address + i) != (uint8_t)(i + 1);
	guest_sync(wrong);
}

TEST_F(emulated, string_output_from_private_memory)
{
	char buf[256];

	vcpu_start(&self->vcpu, put_out, BUFFER, 100, 0);
	ASSERT_EQ(100, collect_out(&self->vcpu, buf, sizeof(buf)));
	for (int i = 0; i < 100; i++)
		EXPECT_EQ(i + 1, buf[i]);
}

TEST_F(emulated, string_output_across_pages)
{
	char buf[256];

	vcpu_start(&self->vcpu, put_out, BUFFER + PAGE - 50, 100, 0);
	ASSERT_EQ(100, collect_out(&self->vcpu, buf, sizeof(buf)));
	for (int i = 0; i < 100; i++)
		EXPECT_EQ(i + 1, buf[i]);
}

static GUEST void put_out_untouched(uint64_t address, uint64_t count)
{
	outs_bytes(address, count);
	guest_sync(0);
}

TEST_F(emulated, string_output_from_a_page_that_is_not_there_yet)
{
	char buf[256];

	vcpu_start(&self->vcpu, put_out_untouched, BUFFER, 100, 0);
	ASSERT_EQ(100, collect_out(&self->vcpu, buf, sizeof(buf)));
	for (int i = 0; i < 100; i++)
		EXPECT_EQ(0, buf[i]);
}

TEST_F(emulated, string_input_to_private_memory)
{
	vcpu_start(&self->vcpu, take_in, BUFFER, 100, 0);
	EXPECT_EQ(100, serve_in(&self->vcpu));
	EXPECT_EQ(0, synced(&self->vcpu));
}

TEST_F(emulated, string_input_across_pages)
{
	vcpu_start(&self->vcpu, take_in, BUFFER + PAGE - 50, 100, 0);
	EXPECT_EQ(100, serve_in(&self->vcpu));
	EXPECT_EQ(0, synced(&self->vcpu));
}

static GUEST void string_io_with_private_tables(void)
{
	use_private_tables();
	*(volatile uint64_t *)(WINDOW + 8 * PAGE) = 0x0807060504030201;
	outs_bytes(WINDOW + 8 * PAGE, 8);
	ins_bytes(WINDOW + 9 * PAGE, 8);
	guest_sync(guest_read(BUFFER + 9 * PAGE));
}

TEST_F(emulated, string_io_through_private_page_tables)
{
	char buf[256];

	START(string_io_with_private_tables);
	/* The input that follows ends the output; answer it by hand. */
	ASSERT_EQ(KVM_EXIT_IO, vcpu_run(&self->vcpu));
	while (self->vcpu.run->io.direction == KVM_EXIT_IO_OUT) {
		memcpy(buf, (char *)self->vcpu.run + self->vcpu.run->io.data_offset,
		       8);
		ASSERT_EQ(KVM_EXIT_IO, vcpu_run(&self->vcpu));
	}
	EXPECT_EQ(PORT_DATA, self->vcpu.run->io.port);
	ASSERT_EQ(8, self->vcpu.run->io.count);
	memcpy((char *)self->vcpu.run + self->vcpu.run->io.data_offset, "abcdefgh",
	       8);
	EXPECT_EQ(0x6867666564636261, vcpu_sync(&self->vcpu));
}

/* MMIO */

static GUEST void mmio_registers(void)
{
	guest_write(NOWHERE, 0x1122334455667788);
	guest_sync(guest_read(NOWHERE + 8));
}

TEST_F(emulated, mmio_beside_private_memory)
{
	START(mmio_registers);
	expect_mmio_write(_metadata, &self->vcpu, NOWHERE, 0x1122334455667788, 8);
	answer_mmio_read(_metadata, &self->vcpu, NOWHERE + 8, 42, 8);
	EXPECT_EQ(42, vcpu_sync(&self->vcpu));
}

/* Runs at CODE: mov %rax, (%rdi); mov 8(%rdi), %rax; ret */
static GUEST void mmio_from_private_code(void)
{
	uint64_t value;

	guest_write(CODE, 0xc308478b48078948);
	asm volatile("mov $0x1122334455667788, %%rax; call *%1"
		     : "=&a"(value) : "r"(CODE), "D"(NOWHERE) : "memory");
	guest_sync(value);
}

TEST_F(emulated, mmio_by_code_in_private_memory)
{
	START(mmio_from_private_code);
	expect_mmio_write(_metadata, &self->vcpu, NOWHERE, 0x1122334455667788, 8);
	answer_mmio_read(_metadata, &self->vcpu, NOWHERE + 8, 42, 8);
	EXPECT_EQ(42, vcpu_sync(&self->vcpu));
}

/* The same, where the instruction lies across two pages. */
static GUEST void mmio_from_code_across_pages(void)
{
	uint64_t code = CODE + PAGE - 1, value;

	for (int i = 0; i < 8; i++)
		*(volatile uint8_t *)(code + i) =
			0xc308478b48078948 >> (i * 8);
	asm volatile("mov $0x1122334455667788, %%rax; call *%1"
		     : "=&a"(value) : "r"(code), "D"(NOWHERE) : "memory");
	guest_sync(value);
}

TEST_F(emulated, mmio_by_code_across_private_pages)
{
	START(mmio_from_code_across_pages);
	expect_mmio_write(_metadata, &self->vcpu, NOWHERE, 0x1122334455667788, 8);
	answer_mmio_read(_metadata, &self->vcpu, NOWHERE + 8, 42, 8);
	EXPECT_EQ(42, vcpu_sync(&self->vcpu));
}

static GUEST void mmio_to_memory(void)
{
	uint64_t from = NOWHERE, to = BUFFER + 64;

	asm volatile("movsq" : "+S"(from), "+D"(to) : : "memory");
	guest_sync(guest_read(BUFFER + 64));
}

TEST_F(emulated, mmio_is_copied_to_private_memory)
{
	START(mmio_to_memory);
	answer_mmio_read(_metadata, &self->vcpu, NOWHERE, 0x1234567890abcdef, 8);
	EXPECT_EQ(0x1234567890abcdef, vcpu_sync(&self->vcpu));
}

static GUEST void memory_to_mmio(void)
{
	uint64_t from = BUFFER + 64, to = NOWHERE;

	guest_write(BUFFER + 64, 0x1234567890abcdef);
	asm volatile("movsq" : "+S"(from), "+D"(to) : : "memory");
	guest_sync(0);
}

TEST_F(emulated, private_memory_is_copied_to_mmio)
{
	START(memory_to_mmio);
	expect_mmio_write(_metadata, &self->vcpu, NOWHERE, 0x1234567890abcdef, 8);
	EXPECT_EQ(0, vcpu_sync(&self->vcpu));
}

static GUEST void rep_memory_to_mmio(void)
{
	uint64_t from = BUFFER, to = NOWHERE, count = 4;

	for (uint64_t i = 0; i < 4; i++)
		guest_write(BUFFER + i * 8, i + 1);
	asm volatile("rep movsq" : "+S"(from), "+D"(to), "+c"(count) : : "memory");
	guest_sync(count);
}

TEST_F(emulated, repeated_copy_to_mmio)
{
	START(rep_memory_to_mmio);
	for (int i = 0; i < 4; i++)
		expect_mmio_write(_metadata, &self->vcpu, NOWHERE + i * 8, i + 1, 8);
	EXPECT_EQ(0, vcpu_sync(&self->vcpu));
}

static GUEST void push_mmio(void)
{
	uint64_t saved, value, at = NOWHERE;

	asm volatile("mov %%rsp, %0; mov %3, %%rsp; pushq (%2); pop %1; mov %0, %%rsp"
		     : "=&r"(saved), "=&r"(value) : "r"(at), "r"(STACK)
		     : "memory");
	guest_sync(value);
}

TEST_F(emulated, mmio_is_pushed_to_a_private_stack)
{
	START(push_mmio);
	answer_mmio_read(_metadata, &self->vcpu, NOWHERE, 0x1234567890abcdef, 8);
	EXPECT_EQ(0x1234567890abcdef, vcpu_sync(&self->vcpu));
}

static GUEST void pop_mmio(void)
{
	uint64_t saved, at = NOWHERE;

	guest_write(STACK, 0x1234567890abcdef);
	asm volatile("mov %%rsp, %0; mov %2, %%rsp; popq (%1); mov %0, %%rsp"
		     : "=&r"(saved) : "r"(at), "r"(STACK) : "memory");
	guest_sync(0);
}

TEST_F(emulated, private_stack_is_popped_to_mmio)
{
	START(pop_mmio);
	expect_mmio_write(_metadata, &self->vcpu, NOWHERE, 0x1234567890abcdef, 8);
	EXPECT_EQ(0, vcpu_sync(&self->vcpu));
}

static GUEST void mmio_with_private_tables(void)
{
	uint64_t from = WINDOW + 3 * PAGE, to = NOWHERE;

	use_private_tables();
	guest_write(BUFFER + 3 * PAGE, 0x1234567890abcdef);
	asm volatile("movsq" : "+S"(from), "+D"(to) : : "memory");
	from = NOWHERE + 16;
	to = WINDOW + 4 * PAGE;
	asm volatile("movsq" : "+S"(from), "+D"(to) : : "memory");
	guest_sync(guest_read(BUFFER + 4 * PAGE));
}

TEST_F(emulated, mmio_through_private_page_tables)
{
	START(mmio_with_private_tables);
	expect_mmio_write(_metadata, &self->vcpu, NOWHERE, 0x1234567890abcdef, 8);
	answer_mmio_read(_metadata, &self->vcpu, NOWHERE + 16, 42, 8);
	EXPECT_EQ(42, vcpu_sync(&self->vcpu));
}

/* The walker */

/* The bits that emulated accesses set; KVM comes to these pages first. */
static GUEST void accessed_and_dirty(void)
{
	use_private_tables();
	guest_sync(*pte_of(1) | *pte_of(2));
	outs_bytes(WINDOW + 1 * PAGE, 8);
	guest_sync(*pte_of(1));
	ins_bytes(WINDOW + 2 * PAGE, 8);
	guest_sync(*pte_of(2));
	guest_sync(*pte_of(3));
}

/* Answer all I/O at PORT_DATA up to the next sync. Return: its value. */
static uint64_t sync_past_io(struct vcpu *vcpu)
{
	do
		vcpu_run(vcpu);
	while (vcpu->reason == KVM_EXIT_IO && vcpu->run->io.port == PORT_DATA);
	return synced(vcpu);
}

TEST_F(emulated, walk_sets_accessed_and_dirty_in_private_tables)
{
	const uint64_t both = PTE_ACCESSED | PTE_DIRTY;

	START(accessed_and_dirty);
	EXPECT_EQ(0, vcpu_sync(&self->vcpu) & both);
	EXPECT_EQ(PTE_ACCESSED, sync_past_io(&self->vcpu) & both);
	EXPECT_EQ(both, sync_past_io(&self->vcpu) & both);
	EXPECT_EQ(0, vcpu_sync(&self->vcpu) & both);
}

/* The upper levels have an accessed bit each. */
static GUEST void accessed_above(void)
{
	use_private_tables();
	guest_write(TABLE(4), guest_read(TABLE(4)) & ~PTE_ACCESSED);
	asm volatile("mov %0, %%cr3" : : "r"(TABLES) : "memory");
	outs_bytes(WINDOW, 8);
	guest_sync(guest_read(TABLE(4)));
}

TEST_F(emulated, walk_sets_accessed_in_upper_private_tables)
{
	START(accessed_above);
	EXPECT_TRUE(sync_past_io(&self->vcpu) & PTE_ACCESSED);
}

static GUEST void write_to_read_only(void)
{
	use_private_tables();
	*pte_of(1) &= ~PTE_WRITABLE;
	asm volatile("mov %0, %%cr3" : : "r"(TABLES) : "memory");
	ins_bytes(WINDOW + PAGE, 8);
	guest_sync(0);
}

/* The page fault has no handler. */
TEST_F(emulated, walk_honours_read_only_private_entries)
{
	START(write_to_read_only);
	do
		vcpu_run(&self->vcpu);
	while (self->vcpu.reason == KVM_EXIT_IO &&
	       self->vcpu.run->io.port == PORT_DATA);
	EXPECT_EQ(KVM_EXIT_SHUTDOWN, self->vcpu.reason);
}

static GUEST void read_of_nothing(void)
{
	use_private_tables();
	*pte_of(1) = 0;
	asm volatile("mov %0, %%cr3" : : "r"(TABLES) : "memory");
	outs_bytes(WINDOW + PAGE, 8);
	guest_sync(0);
}

TEST_F(emulated, walk_honours_absent_private_entries)
{
	START(read_of_nothing);
	EXPECT_EQ(KVM_EXIT_SHUTDOWN, vcpu_run(&self->vcpu));
}

static GUEST void stay_with_private_tables(void)
{
	use_private_tables();
	for (;;)
		guest_sync(guest_read(WINDOW + 5 * PAGE));
}

TEST_F(emulated, kvm_translate_walks_private_tables)
{
	struct kvm_translation t = { .linear_address = WINDOW + 5 * PAGE + 8 };

	START(stay_with_private_tables);
	vcpu_sync(&self->vcpu);
	ASSERT_EQ(0, ioctl(self->vcpu.fd, KVM_TRANSLATE, &t));
	EXPECT_EQ(1, t.valid);
	EXPECT_EQ(BUFFER + 5 * PAGE + 8, t.physical_address);
}

/* A table that was discarded maps nothing. */
TEST_F(emulated, kvm_translate_sees_a_punched_table)
{
	struct kvm_translation t = { .linear_address = WINDOW + 5 * PAGE };

	START(stay_with_private_tables);
	vcpu_sync(&self->vcpu);
	ASSERT_EQ(0, punch(self->fd, 6 * PAGE, PAGE));
	ASSERT_EQ(0, ioctl(self->vcpu.fd, KVM_TRANSLATE, &t));
	EXPECT_EQ(0, t.valid);
	EXPECT_EQ(KVM_EXIT_SHUTDOWN, vcpu_run(&self->vcpu));
}

/* Whole instructions in the emulator */

static GUEST void emulated_moves(uint64_t gpa)
{
	uint64_t value;

	asm volatile(EMULATE "mov %1, (%0)" : : "r"(gpa), "r"(0x1122334455667788)
		     : "memory");
	guest_sync(guest_read(gpa));
	guest_write(gpa, 42);
	asm volatile(EMULATE "mov (%1), %0" : "=r"(value) : "r"(gpa) : "memory");
	guest_sync(value);
	asm volatile(EMULATE "addq $8, (%0)" : : "r"(gpa) : "memory", "cc");
	guest_sync(guest_read(gpa));
}

TEST_F(emulated, operands_in_private_memory)
{
	vcpu_start(&self->vcpu, emulated_moves, BUFFER + 64, 0, 0);
	EXPECT_EQ(0x1122334455667788, vcpu_sync(&self->vcpu));
	EXPECT_EQ(42, vcpu_sync(&self->vcpu));
	EXPECT_EQ(50, vcpu_sync(&self->vcpu));
}

TEST_F(emulated, operands_across_private_pages)
{
	vcpu_start(&self->vcpu, emulated_moves, BUFFER + PAGE - 3, 0, 0);
	EXPECT_EQ(0x1122334455667788, vcpu_sync(&self->vcpu));
	EXPECT_EQ(42, vcpu_sync(&self->vcpu));
	EXPECT_EQ(50, vcpu_sync(&self->vcpu));
}

/* One side private, one shared */
TEST_F(emulated, operands_across_a_conversion_boundary)
{
	ASSERT_EQ(0, vm_set_private(&self->vm, BUFFER + PAGE, PAGE, false));
	vcpu_start(&self->vcpu, emulated_moves, BUFFER + PAGE - 3, 0, 0);
	EXPECT_EQ(0x1122334455667788, vcpu_sync(&self->vcpu));
	EXPECT_EQ(0x1122334455, *(uint64_t *)(self->hva + MIB + PAGE));
	EXPECT_EQ(42, vcpu_sync(&self->vcpu));
	EXPECT_EQ(50, vcpu_sync(&self->vcpu));
	*(uint64_t *)(self->hva + MIB + PAGE) = 0;
}

static GUEST void emulated_store(uint64_t gpa)
{
	for (uint64_t value = 1;; value++) {
		asm volatile(EMULATE "mov %1, (%0)" : : "r"(gpa), "r"(value)
			     : "memory");
		guest_sync(guest_read(gpa));
	}
}

TEST_F(emulated, operands_follow_a_conversion)
{
	uint64_t *shared = (uint64_t *)(self->hva + 5 * PAGE);

	vcpu_start(&self->vcpu, emulated_store, DATA + 5 * PAGE, 0, 0);
	EXPECT_EQ(1, vcpu_sync(&self->vcpu));
	EXPECT_EQ(0, *shared);
	ASSERT_EQ(0, vm_set_private(&self->vm, DATA + 5 * PAGE, PAGE, false));
	EXPECT_EQ(2, vcpu_sync(&self->vcpu));
	EXPECT_EQ(2, *shared);
	ASSERT_EQ(0, vm_set_private(&self->vm, DATA + 5 * PAGE, PAGE, true));
	EXPECT_EQ(3, vcpu_sync(&self->vcpu));
	EXPECT_EQ(2, *shared);
	*shared = 0;
}

TEST_F(emulated, operands_follow_a_discard)
{
	vcpu_start(&self->vcpu, emulated_store, BUFFER, 0, 0);
	EXPECT_EQ(1, vcpu_sync(&self->vcpu));
	ASSERT_EQ(0, punch(self->fd, 0, SIZE));
	EXPECT_EQ(2, vcpu_sync(&self->vcpu));
	EXPECT_LT(0, resident(self->fd));
}

#define EXCHANGE(_type, _gpa, _old, _new) ({				\
	_type _seen = (_old);						\
									\
	asm volatile(EMULATE "lock cmpxchg %2, (%1)"			\
		     : "+a"(_seen) : "r"(_gpa), "r"((_type)(_new))	\
		     : "memory", "cc");					\
	(uint64_t)_seen;						\
})

static GUEST void exchanges(uint64_t gpa)
{
	guest_write(gpa, 0x1111111111111111);
	guest_sync(EXCHANGE(uint8_t, gpa, 0x11, 0x22));
	guest_sync(EXCHANGE(uint16_t, gpa + 2, 0x1111, 0x3333));
	guest_sync(EXCHANGE(uint32_t, gpa + 4, 0x11111111, 0x44444444));
	guest_sync(guest_read(gpa));
	guest_sync(EXCHANGE(uint64_t, gpa, 0x4444444433331122, 5));
	guest_sync(guest_read(gpa));
	/* and one that fails */
	guest_sync(EXCHANGE(uint64_t, gpa, 6, 7));
	guest_sync(guest_read(gpa));
}

TEST_F(emulated, atomic_exchanges)
{
	vcpu_start(&self->vcpu, exchanges, BUFFER + 64, 0, 0);
	EXPECT_EQ(0x11, vcpu_sync(&self->vcpu));
	EXPECT_EQ(0x1111, vcpu_sync(&self->vcpu));
	EXPECT_EQ(0x11111111, vcpu_sync(&self->vcpu));
	EXPECT_EQ(0x4444444433331122, vcpu_sync(&self->vcpu));
	EXPECT_EQ(0x4444444433331122, vcpu_sync(&self->vcpu));
	EXPECT_EQ(5, vcpu_sync(&self->vcpu));
	EXPECT_EQ(5, vcpu_sync(&self->vcpu));
	EXPECT_EQ(5, vcpu_sync(&self->vcpu));
}

static GUEST void locked_operations(uint64_t gpa)
{
	uint64_t value = 5;

	guest_write(gpa, 10);
	asm volatile(EMULATE "lock xaddq %0, (%1)" : "+r"(value) : "r"(gpa)
		     : "memory", "cc");
	guest_sync(value);
	guest_sync(guest_read(gpa));
	asm volatile(EMULATE "lock btsq $40, (%0)" : : "r"(gpa) : "memory", "cc");
	guest_sync(guest_read(gpa));
	value = 7;
	asm volatile(EMULATE "xchgq %0, (%1)" : "+r"(value) : "r"(gpa) : "memory");
	guest_sync(value);
	guest_sync(guest_read(gpa));
}

TEST_F(emulated, locked_operations)
{
	vcpu_start(&self->vcpu, locked_operations, BUFFER + 64, 0, 0);
	EXPECT_EQ(10, vcpu_sync(&self->vcpu));
	EXPECT_EQ(15, vcpu_sync(&self->vcpu));
	EXPECT_EQ((1ULL << 40) + 15, vcpu_sync(&self->vcpu));
	EXPECT_EQ((1ULL << 40) + 15, vcpu_sync(&self->vcpu));
	EXPECT_EQ(7, vcpu_sync(&self->vcpu));
}

static GUEST void exchange_eight_bytes(uint64_t gpa)
{
	uint32_t low = 1, high = 2;

	guest_write(gpa, 2ULL << 32 | 1);
	asm volatile(EMULATE "lock cmpxchg8b (%2)" : "+a"(low), "+d"(high)
		     : "r"(gpa), "b"(3), "c"(4) : "memory", "cc");
	guest_sync(guest_read(gpa));
}

TEST_F(emulated, atomic_exchange_of_eight_bytes)
{
	vcpu_start(&self->vcpu, exchange_eight_bytes, BUFFER + 64, 0, 0);
	EXPECT_EQ(4ULL << 32 | 3, vcpu_sync(&self->vcpu));
}

/* Atomic against another vCPU that does the same without the emulator */

#define ROUNDS		4000
#define READY		0x8000		/* in the boot slot */

static GUEST void add_emulated(uint64_t gpa)
{
	guest_write(READY, 1);
	for (int i = 0; i < ROUNDS; i++)
		asm volatile(EMULATE "lock incq (%0)" : : "r"(gpa)
			     : "memory", "cc");
	guest_write(READY, 2);
	guest_done();
}

/* Go on for as long as the other does. */
static GUEST void add_native(uint64_t gpa)
{
	uint64_t count = 0;

	while (!guest_read(READY))
		;
	do {
		asm volatile("lock incq (%0)" : : "r"(gpa) : "memory", "cc");
		count++;
	} while (guest_read(READY) == 1);
	guest_sync(count);
	guest_sync(guest_read(gpa));
}

static void *run_to_done(void *vcpu)
{
	vcpu_done(vcpu);
	return NULL;
}

TEST_F(emulated, locked_operations_are_atomic_against_the_guest)
{
	struct vcpu other;
	pthread_t thread;
	uint64_t count;

	vcpu_create(&self->vm, &other, 1);
	vcpu_start(&self->vcpu, add_emulated, BUFFER + 64, 0, 0);
	vcpu_start(&other, add_native, BUFFER + 64, 0, 0);
	ASSERT_EQ(0, pthread_create(&thread, NULL, run_to_done, &self->vcpu));
	count = vcpu_sync(&other);
	pthread_join(thread, NULL);
	EXPECT_LT(0, count);
	EXPECT_EQ(count + ROUNDS, vcpu_sync(&other));
	vcpu_destroy(&other);
}

/* The page becomes shared. */
static void share_page(void *arg)
{
	struct conversion *c = arg;

	c->result = vm_set_private(c->vm, c->gpa, c->size, false);
}

/* An exchange waits, and when it goes on its gfn has become shared. */
#define EXCHANGE_PLACE	"kvm:kvm_rmem_try_cmpxchg"

static GUEST void increment(uint64_t gpa)
{
	guest_write(gpa, 10);
	guest_sync(0);
	asm volatile(EMULATE "lock incq (%0)" : : "r"(gpa) : "memory", "cc");
	guest_sync(guest_read(gpa));
}

TEST_F(emulated, exchange_that_meets_a_conversion_is_done_again)
{
	uint64_t *shared = (uint64_t *)(self->hva + MIB);
	struct conversion conversion = {
		.vm = &self->vm,
		.gpa = BUFFER,
		.size = PAGE,
		.result = -1,
	};
	struct meanwhile meanwhile;

	*shared = 20;
	vcpu_start(&self->vcpu, increment, BUFFER, 0, 0);
	vcpu_sync(&self->vcpu);
	meanwhile_start(&meanwhile, EXCHANGE_PLACE, share_page, &conversion);
	EXPECT_EQ(21, vcpu_sync(&self->vcpu));
	EXPECT_EQ(1, meanwhile_end(&meanwhile));
	EXPECT_EQ(0, conversion.result);
	EXPECT_EQ(21, *shared);
	*shared = 0;
}

static GUEST void output_through_the_window(void)
{
	use_private_tables();
	guest_write(BUFFER + PAGE, 5);
	guest_sync(0);
	outs_bytes(WINDOW + PAGE, 8);
	guest_sync(guest_read(WINDOW + PAGE));
}

TEST_F(emulated, walk_that_meets_a_conversion_is_done_again)
{
	uint64_t *shared = (uint64_t *)(self->hva + TABLE(6) - DATA);
	struct conversion conversion = {
		.vm = &self->vm,
		.gpa = TABLE(6),
		.size = PAGE,
		.result = -1,
	};
	struct meanwhile meanwhile;

	START(output_through_the_window);
	vcpu_sync(&self->vcpu);
	for (uint64_t i = 0; i < WINDOW_PAGES; i++)
		shared[i] = (BUFFER + i * PAGE) | PTE_WRITABLE | PTE_PRESENT;
	meanwhile_start(&meanwhile, EXCHANGE_PLACE, share_page, &conversion);
	EXPECT_EQ(5, sync_past_io(&self->vcpu));
	EXPECT_EQ(1, meanwhile_end(&meanwhile));
	EXPECT_EQ(0, conversion.result);
	EXPECT_TRUE(shared[1] & PTE_ACCESSED);
	memset(shared, 0, PAGE);
}

/* The private page at @gpa cannot be had, because of the limit. */
static void expect_no_page(struct __test_metadata *_metadata, struct vcpu *vcpu,
			   uint64_t gpa)
{
	struct restrictedmem_kvm_memory_fault *fault =
		restrictedmem_kvm_memory_fault(vcpu->run);

	ASSERT_EQ(KVM_EXIT_MEMORY_FAULT, vcpu->reason);
	EXPECT_EQ(ENOSPC, vcpu->error);
	EXPECT_EQ(gpa, fault->gpa);
	EXPECT_EQ(PAGE, fault->size);
	EXPECT_EQ(KVM_MEMORY_EXIT_FLAG_PRIVATE, fault->flags);
}

/* The walker's page is gone, and the limit keeps it from having another. */
TEST(walk_of_a_table_that_cannot_be_had_is_an_exit)
{
	int fd = create_small(SIZE), first;
	struct vcpu vcpu;
	struct vm vm;

	ASSERT_LE(0, fd);
	vm_create(&vm, KVM_X86_SW_PROTECTED_VM);
	vcpu_create(&vm, &vcpu, 0);
	vm_add_private(&vm, SLOT, DATA, SIZE, NULL, fd);
	vcpu_start(&vcpu, output_through_the_window, 0, 0, 0);
	vcpu_sync(&vcpu);
	ASSERT_EQ(0, punch(fd, TABLE(6) - DATA, PAGE));
	ASSERT_EQ(0, set_limit(resident_total()));
	first = vcpu_run(&vcpu);
	vcpu_run(&vcpu);
	ASSERT_EQ(0, set_limit(0));
	EXPECT_EQ(KVM_EXIT_MEMORY_FAULT, first);
	/* It is the same again, as nothing was done about it. */
	expect_no_page(_metadata, &vcpu, TABLE(6));
	/* A new page has no entries: now it is the guest's page fault. */
	EXPECT_EQ(KVM_EXIT_SHUTDOWN, vcpu_run(&vcpu));
	vcpu_destroy(&vcpu);
	vm_destroy(&vm);
	close(fd);
}

static GUEST void output_from(uint64_t gpa)
{
	guest_sync(0);
	outs_bytes(gpa, 8);
	guest_done();
}

/* It is RAM, even if there is none: nothing that userspace could answer as MMIO. */
TEST(operand_that_cannot_be_had_is_an_exit)
{
	const uint64_t gpa = DATA + SIZE - PAGE;
	int fd = create_small(SIZE);
	struct vcpu vcpu;
	struct vm vm;

	ASSERT_LE(0, fd);
	vm_create(&vm, KVM_X86_SW_PROTECTED_VM);
	vcpu_create(&vm, &vcpu, 0);
	vm_add_private(&vm, SLOT, DATA, SIZE, NULL, fd);
	/* So that there is something that the limit can be. */
	ASSERT_EQ(0, populate(fd, 0, PAGE));
	vcpu_start(&vcpu, output_from, gpa, 0, 0);
	vcpu_sync(&vcpu);
	ASSERT_EQ(0, set_limit(resident_total()));
	vcpu_run(&vcpu);
	ASSERT_EQ(0, set_limit(0));
	expect_no_page(_metadata, &vcpu, gpa);
	EXPECT_EQ(KVM_EXIT_IO, vcpu_run(&vcpu));
	vcpu_destroy(&vcpu);
	vm_destroy(&vm);
	close(fd);
}

/* What failed was the private page: whatever has happened since, it is no MMIO. */
TEST_F(emulated, missing_operand_that_meets_a_conversion_is_an_exit)
{
	uint64_t *shared = (uint64_t *)(self->hva + SIZE - PAGE);
	struct conversion conversion = {
		.vm = &self->vm,
		.gpa = DATA + SIZE - PAGE,
		.size = PAGE,
		.result = -1,
	};
	struct meanwhile meanwhile;

	ASSERT_EQ(0, populate(self->fd, 0, PAGE));
	ASSERT_EQ(0, set_limit(resident_total()));
	vcpu_start(&self->vcpu, emulated_store, conversion.gpa, 0, 0);
	meanwhile_start_at(&meanwhile, "restrictedmem:restrictedmem_kvm_write", RMD_RETURN,
			   share_page, &conversion);
	vcpu_run(&self->vcpu);
	EXPECT_EQ(1, meanwhile_end(&meanwhile));
	ASSERT_EQ(0, set_limit(0));
	EXPECT_EQ(0, conversion.result);
	expect_no_page(_metadata, &self->vcpu, conversion.gpa);
	/* It is done again, with the page that there is now. */
	EXPECT_EQ(1, vcpu_sync(&self->vcpu));
	EXPECT_EQ(1, *shared);
	*shared = 0;
}

/* The page becomes private, and the user's goes. */
static void take_shared_page(void *arg)
{
	struct conversion *c = arg;

	c->result = vm_set_private(c->vm, c->gpa, c->size, true);
	CHECK(!mprotect(c->hva, c->size, PROT_NONE));
}

static GUEST void emulated_load(uint64_t gpa)
{
	uint64_t value;

	guest_sync(guest_read(gpa));
	asm volatile(EMULATE "mov (%1), %0" : "=r"(value) : "r"(gpa) : "memory");
	guest_sync(value);
}

/*
 * @function comes to a shared page of which it has synced the value @before, and is
 * held when it knows that it is shared. Return: what it syncs then.
 */
static uint64_t meet_conversion_to_private(struct __test_metadata *_metadata,
					   struct vcpu *vcpu, char *hva, void *function,
					   uint64_t before)
{
	struct conversion conversion = {
		.vm = vcpu->vm,
		.gpa = BUFFER,
		.hva = hva + MIB,
		.size = PAGE,
		.result = -1,
	};
	struct meanwhile meanwhile;
	uint64_t waits;

	EXPECT_EQ(0, vm_set_private(vcpu->vm, BUFFER, PAGE, false));
	vcpu_start(vcpu, function, BUFFER, 0, 0);
	EXPECT_EQ(before, vcpu_sync(vcpu));
	meanwhile_start_at(&meanwhile, "restrictedmem:restrictedmem_kvm_is_private",
			   RMD_RETURN, take_shared_page, &conversion);
	vcpu_run(vcpu);
	waits = meanwhile_end(&meanwhile);
	CHECK(!mprotect(conversion.hva, PAGE, PROT_READ | PROT_WRITE));
	EXPECT_EQ(1, waits);
	EXPECT_EQ(0, conversion.result);
	EXPECT_EQ(before, *(uint64_t *)conversion.hva);
	*(uint64_t *)conversion.hva = 0;
	EXPECT_EQ(KVM_EXIT_IO, vcpu->reason);
	return vcpu->reason == KVM_EXIT_IO ? synced(vcpu) : -1;
}

TEST_F(emulated, write_that_meets_a_conversion_goes_to_the_private_page)
{
	EXPECT_EQ(2, meet_conversion_to_private(_metadata, &self->vcpu, self->hva,
						emulated_store, 1));
}

TEST_F(emulated, read_that_meets_a_conversion_is_of_the_private_page)
{
	uint64_t *shared = (uint64_t *)(self->hva + MIB);

	*shared = 5;
	EXPECT_EQ(0, meet_conversion_to_private(_metadata, &self->vcpu, self->hva,
						emulated_load, 5));
}

struct taker {
	int fd;
	uint64_t offset;
};

/* The page goes, and there is no other. */
static void take_page(void *arg)
{
	struct taker *t = arg;

	CHECK(!set_limit(resident_total() - PAGE));
	CHECK(!punch(t->fd, t->offset, PAGE));
}

static GUEST void take_in_words(uint64_t address, uint64_t count)
{
	uint64_t to = address;

	asm volatile("rep insl" : "+D"(to), "+c"(count) : "d"(PORT_DATA) : "memory");
	guest_sync(guest_read(address));
}

static GUEST void take_in_backwards(uint64_t address, uint64_t count)
{
	uint64_t to = address + count - 1;

	asm volatile("std; rep insb; cld" : "+D"(to), "+c"(count) : "d"(PORT_DATA)
		     : "memory");
	guest_sync(guest_read(address));
}

/*
 * The page at MISSING cannot be had. When a string goes there, nothing is asked from
 * the port before it can.
 */
FIXTURE(input) {
	struct vm vm;
	struct vcpu vcpu;
	int fd;
};

FIXTURE_SETUP(input)
{
	vm_create(&self->vm, KVM_X86_SW_PROTECTED_VM);
	vcpu_create(&self->vm, &self->vcpu, 0);
	self->fd = create_small(SIZE);
	ASSERT_LE(0, self->fd);
	vm_add_private(&self->vm, SLOT, DATA, SIZE, NULL, self->fd);
	ASSERT_EQ(0, populate(self->fd, 0, PAGE));
}

FIXTURE_TEARDOWN(input)
{
	vcpu_destroy(&self->vcpu);
	vm_destroy(&self->vm);
	close(self->fd);
}

#define MISSING		(DATA + PAGE)

/* Run into the missing page, and then to the port, which is asked for all. */
static void run_to_input(struct __test_metadata *_metadata, struct vcpu *vcpu,
			 uint32_t size, uint32_t count)
{
	struct kvm_run *run = vcpu->run;

	ASSERT_EQ(0, set_limit(resident_total()));
	vcpu_run(vcpu);
	ASSERT_EQ(0, set_limit(0));
	expect_no_page(_metadata, vcpu, MISSING);
	ASSERT_EQ(KVM_EXIT_IO, vcpu_run(vcpu));
	ASSERT_EQ(PORT_DATA, run->io.port);
	EXPECT_EQ(KVM_EXIT_IO_IN, run->io.direction);
	EXPECT_EQ(size, run->io.size);
	ASSERT_EQ(count, run->io.count);
	memcpy((char *)run + run->io.data_offset, "abcdefgh", size * count);
}

TEST_F(input, is_not_lost_for_want_of_memory)
{
	vcpu_start(&self->vcpu, take_in_words, MISSING + 64, 2, 0);
	run_to_input(_metadata, &self->vcpu, 4, 2);
	EXPECT_EQ(0x6867666564636261, vcpu_sync(&self->vcpu));
}

TEST_F(input, is_not_lost_for_want_of_the_second_page)
{
	vcpu_start(&self->vcpu, take_in_words, MISSING - 2, 2, 0);
	run_to_input(_metadata, &self->vcpu, 4, 2);
	EXPECT_EQ(0x6867666564636261, vcpu_sync(&self->vcpu));
}

TEST_F(input, is_not_lost_backwards)
{
	vcpu_start(&self->vcpu, take_in_backwards, MISSING + 64, 8, 0);
	run_to_input(_metadata, &self->vcpu, 1, 8);
	EXPECT_EQ(0x6162636465666768, vcpu_sync(&self->vcpu));
}

/* The VMM takes the page while it answers: that is its own doing, and told. */
TEST_F(input, of_which_the_page_is_taken_meanwhile_is_asked_for_again)
{
	struct taker taker = { .fd = self->fd, .offset = PAGE };

	vcpu_start(&self->vcpu, take_in_words, MISSING + 64, 2, 0);
	run_to_input(_metadata, &self->vcpu, 4, 2);
	take_page(&taker);
	run_to_input(_metadata, &self->vcpu, 4, 2);
	EXPECT_EQ(0x6867666564636261, vcpu_sync(&self->vcpu));
}

static GUEST void take_in_behind_sti(uint64_t address, uint64_t count)
{
	asm volatile("sti; rep insl; cli" : "+D"(address), "+c"(count)
		     : "d"(PORT_DATA) : "memory");
	guest_done();
}

/* The instruction is done again, and no interrupt comes between it and STI then either. */
TEST_F(input, is_still_in_the_shadow_of_sti)
{
	struct kvm_vcpu_events events;

	vcpu_start(&self->vcpu, take_in_behind_sti, MISSING + 64, 2, 0);
	ASSERT_EQ(0, set_limit(resident_total()));
	vcpu_run(&self->vcpu);
	ASSERT_EQ(0, set_limit(0));
	expect_no_page(_metadata, &self->vcpu, MISSING);
	ASSERT_EQ(0, ioctl(self->vcpu.fd, KVM_GET_VCPU_EVENTS, &events));
	EXPECT_TRUE(events.interrupt.shadow & KVM_X86_SHADOW_INT_STI);
}

/* A table of 4 KiB pages, in the boot slot as is all else below 2 MiB */
#define LOW_TABLE	0x9000ULL
#define LOW_CODE	0xa000ULL
#define LOW_PAGE	0xb000ULL	/* and one behind it, for tests to map */
#define LAST_GPA	(DATA + SIZE - PAGE)

/* Map what is below 2 MiB as it was, but in small pages. */
static uint64_t *use_small_pages(struct vm *vm)
{
	uint64_t *pd = (void *)(vm->boot + GUEST_TABLES + 2 * PAGE);
	uint64_t *pt = (void *)(vm->boot + LOW_TABLE);

	for (uint64_t i = 0; i < 512; i++)
		pt[i] = (i * PAGE) | PTE_WRITABLE | PTE_PRESENT;
	pd[0] = LOW_TABLE | PTE_WRITABLE | PTE_PRESENT;
	return pt;
}

/* Map the last 2 MiB of the 64-bit addresses, and of 4 GiB, to those of DATA. */
static void use_last_pages(struct vm *vm)
{
	uint64_t *pml4 = (void *)(vm->boot + GUEST_TABLES);
	uint64_t *pdpt = pml4 + 512, *last_pd = pdpt + 4 * 512;

	pml4[511] = pml4[0];
	pdpt[511] = pdpt[3];
	last_pd[511] = (DATA + SIZE - HUGE) | 0x83;
}

/* @code, a string, in 32-bit mode */
static void start_32(struct vm *vm, struct vcpu *vcpu, const char *code,
		     const struct kvm_regs *regs)
{
	struct kvm_sregs s;

	strcpy(vm->boot + LOW_CODE, code);
	CHECK(!ioctl(vcpu->fd, KVM_GET_SREGS, &s));
	s.cs.l = 0;
	s.cs.db = 1;
	CHECK(!ioctl(vcpu->fd, KVM_SET_SREGS, &s));
	CHECK(!ioctl(vcpu->fd, KVM_SET_REGS, regs));
}

#define SYNC_32		"\xe6\x10"	/* out %al, $PORT_SYNC */

TEST_F(input, is_not_lost_in_the_last_page)
{
	struct kvm_run *run = self->vcpu.run;

	use_last_pages(&self->vm);
	vcpu_start(&self->vcpu, take_in_words, -8, 2, 0);
	ASSERT_EQ(0, set_limit(resident_total()));
	vcpu_run(&self->vcpu);
	ASSERT_EQ(0, set_limit(0));
	expect_no_page(_metadata, &self->vcpu, LAST_GPA);
	ASSERT_EQ(KVM_EXIT_IO, vcpu_run(&self->vcpu));
	ASSERT_EQ(2, run->io.count);
	memcpy((char *)run + run->io.data_offset, "abcdefgh", 8);
	EXPECT_EQ(0x6867666564636261, vcpu_sync(&self->vcpu));
}

static GUEST void take_in_words_backwards(uint64_t address, uint64_t count)
{
	uint64_t to = address;

	asm volatile("std; rep insl; cld" : "+D"(to), "+c"(count) : "d"(PORT_DATA)
		     : "memory");
	guest_sync(guest_read(address & -PAGE));
}

/* One of the words is above 0, the other below. */
TEST_F(input, is_not_lost_backwards_over_0)
{
	use_small_pages(&self->vm)[0] = MISSING | PTE_WRITABLE | PTE_PRESENT;
	use_last_pages(&self->vm);
	ASSERT_EQ(0, populate(self->fd, LAST_GPA - DATA, PAGE));
	vcpu_start(&self->vcpu, take_in_words_backwards, 2, 2, 0);
	run_to_input(_metadata, &self->vcpu, 4, 2);
	EXPECT_EQ(0x0000646362616867, vcpu_sync(&self->vcpu));
}

TEST_F(input, is_not_lost_over_4_GiB)
{
	const struct kvm_regs regs = {
		.rip = LOW_CODE, .rflags = 2, .rdi = 0xfffffffe, .rcx = 2, .rdx = PORT_DATA,
	};

	use_small_pages(&self->vm)[0] = MISSING | PTE_WRITABLE | PTE_PRESENT;
	use_last_pages(&self->vm);
	ASSERT_EQ(0, populate(self->fd, LAST_GPA - DATA, PAGE));
	start_32(&self->vm, &self->vcpu, "\xf3\x6d" SYNC_32, &regs); /* rep insl */
	run_to_input(_metadata, &self->vcpu, 4, 2);
	EXPECT_EQ(6, vcpu_sync(&self->vcpu));
}

/* The first element has a page fault, whatever is the matter with the next. */
static void expect_page_fault(struct __test_metadata *_metadata, struct vm *vm,
			      struct vcpu *vcpu, int missing, void *function,
			      uint64_t address)
{
	uint64_t *pte = &use_small_pages(vm)[LOW_PAGE / PAGE];

	pte[missing] = MISSING | PTE_WRITABLE | PTE_PRESENT;
	pte[!missing] = 0;
	vcpu_start(vcpu, function, address, 3, 0);
	ASSERT_EQ(0, set_limit(resident_total()));
	EXPECT_EQ(KVM_EXIT_IO, vcpu_run(vcpu));
	EXPECT_EQ(KVM_EXIT_SHUTDOWN, vcpu_run(vcpu));
	ASSERT_EQ(0, set_limit(0));
}

TEST_F(input, has_the_page_fault_that_is_first)
{
	expect_page_fault(_metadata, &self->vm, &self->vcpu, 1, take_in_words,
			  LOW_PAGE + PAGE - 4);
}

TEST_F(input, has_the_page_fault_that_is_first_backwards)
{
	expect_page_fault(_metadata, &self->vm, &self->vcpu, 0, take_in_words_backwards,
			  LOW_PAGE + PAGE + 4);
}

/* The first of PUSHA's writes is MMIO, the others are to a page that cannot be had. */
TEST_F(input, leaves_no_mmio_behind)
{
	const struct kvm_regs regs = {
		.rip = LOW_CODE, .rflags = 2, .rax = 0x12345678, .rsp = LOW_PAGE + PAGE + 4,
		.rdi = 42,
	};
	uint64_t *pte = &use_small_pages(&self->vm)[LOW_PAGE / PAGE];

	ASSERT_EQ(0, write_text(FORCE_EMULATION, "1"));
	pte[0] = MISSING | PTE_WRITABLE | PTE_PRESENT;
	pte[1] = NOWHERE | PTE_WRITABLE | PTE_PRESENT;
	start_32(&self->vm, &self->vcpu, "\x0f\x0bkvm\x60" SYNC_32, &regs);
	ASSERT_EQ(0, set_limit(resident_total()));
	vcpu_run(&self->vcpu);
	ASSERT_EQ(0, set_limit(0));
	expect_no_page(_metadata, &self->vcpu, MISSING);
	/* All of it again; KVM warns of MMIO that nobody answers. */
	expect_mmio_write(_metadata, &self->vcpu, NOWHERE, 0x12345678, 4);
	EXPECT_EQ(42, vcpu_sync(&self->vcpu));
}

/* "outsb", "ret" */
#define OUTSB_RET	0xc36e

static GUEST void call_outsb(uint64_t code, uint64_t operand)
{
	guest_write(code, OUTSB_RET);
	guest_write(operand, 0);
	guest_sync(0);
	asm volatile("call *%[code]" : "+S"(operand) : "d"(PORT_DATA), [code] "r"(code)
		     : "memory");
	guest_done();
}

/* The processor has read the instruction, but KVM comes too late to do so. */
FIXTURE(code) {
	struct vm vm;
	struct vcpu vcpu;
	struct taker taker;
	struct meanwhile meanwhile;
	pthread_t thread;
	int delay;
	int discard;		/* a place that the taker comes by */
};

#define CODE_PAGE	(DATA + PAGE)

static void *take_page_thread(void *arg)
{
	take_page(arg);
	return NULL;
}

/*
 * The page is going, and who asks for it waits until it is gone. That takes a grace
 * period of RCU, and with that who is held at the place.
 */
static void begin_to_take_page(void *arg)
{
	FIXTURE_DATA(code) *self = arg;

	CHECK(!pthread_create(&self->thread, NULL, take_page_thread, &self->taker));
	while (!delay_waits(self->delay, self->discard))
		;
}

FIXTURE_SETUP(code)
{
	self->taker.fd = create_small(SIZE);
	ASSERT_LE(0, self->taker.fd);
	self->taker.offset = CODE_PAGE - DATA;
	vm_create(&self->vm, KVM_X86_SW_PROTECTED_VM);
	vcpu_create(&self->vm, &self->vcpu, 0);
	vm_add_private(&self->vm, SLOT, DATA, SIZE, NULL, self->taker.fd);
	vcpu_start(&self->vcpu, call_outsb, CODE_PAGE, DATA, 0);
	vcpu_sync(&self->vcpu);
	self->delay = delay_open();
	self->discard = delay_add(self->delay, "restrictedmem:rm_store_discard", 0, 0);
	meanwhile_start(&self->meanwhile, "kvm:x86_emulate_instruction",
			begin_to_take_page, self);
}

FIXTURE_TEARDOWN(code)
{
	pthread_join(self->thread, NULL);
	close(self->delay);
	vcpu_destroy(&self->vcpu);
	vm_destroy(&self->vm);
	close(self->taker.fd);
}

TEST_F(code, that_cannot_be_had_is_an_exit)
{
	vcpu_run(&self->vcpu);
	EXPECT_EQ(1, meanwhile_end(&self->meanwhile));
	ASSERT_EQ(0, set_limit(0));
	expect_no_page(_metadata, &self->vcpu, CODE_PAGE);
}

TEST_F(code, that_meets_a_conversion_as_well_is_an_exit)
{
	struct conversion conversion = {
		.vm = &self->vm,
		.gpa = CODE_PAGE,
		.size = PAGE,
		.result = -1,
	};
	struct meanwhile meanwhile;

	meanwhile_start_at(&meanwhile, "restrictedmem:restrictedmem_kvm_read", RMD_RETURN,
			   share_page, &conversion);
	vcpu_run(&self->vcpu);
	EXPECT_EQ(1, meanwhile_end(&meanwhile));
	EXPECT_EQ(1, meanwhile_end(&self->meanwhile));
	ASSERT_EQ(0, set_limit(0));
	EXPECT_EQ(0, conversion.result);
	expect_no_page(_metadata, &self->vcpu, CODE_PAGE);
}

TEST_HARNESS_MAIN
