// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * Calls of VMs, and of guests. A process has one VM, with a vCPU for each of its
 * threads; it is made when it is first wanted, and kept. Slot S is at
 * slot_gpa(S), and has room for MAX_PAGES pages; its user half is at user_base[S].
 */
#include "access.h"
#include "kvm_util.h"
#include "model.h"

static struct vm vm;
static struct vcpu vcpus[THREADS];
static bool have_vm, vm_used;
static char *user_base[SLOTS];
static bool user_used[SLOTS];
static int in_vm = -1;
static uint64_t vm_number = VM_OWNER;

/* Sequential: which gfns are private, and what is in user halves */
static bool private[SLOTS][MAX_PAGES];
static uint64_t user_words[SLOTS][MAX_PAGES][WORDS];
static bool plain[SLOTS];
static uint32_t plain_start[SLOTS], plain_end[SLOTS];

#define SLOT_GAP	(8 * MIB)

static uint64_t slot_gpa(unsigned int slot)
{
	return DATA + slot * SLOT_GAP;
}

static struct vcpu *this_vcpu(void)
{
	return &vcpus[is_peer() ? 0 : this_thread];
}

bool vm_is_there(void)
{
	struct restrictedmem_info info;

	if (in_vm < 0)
		in_vm = !get_info(&info) && info.features & RESTRICTEDMEM_FEATURE_KVM &&
			!access("/dev/kvm", R_OK | W_OK);
	return in_vm;
}

static void vm_make(void)
{
	vm_create(&vm, KVM_X86_SW_PROTECTED_VM);
	for (unsigned int i = 0; i < (is_peer() ? 1 : PEER); i++)
		vcpu_create(&vm, &vcpus[i], i);
	have_vm = true;
	vm_number++;
}

/* Called before threads are, if any of the calls needs a VM. */
void vm_init(void)
{
	vm_used = true;
	if (have_vm)
		return;
	for (int i = 0; i < SLOTS; i++) {
		user_base[i] = map_anonymous(SLOT_GAP);
		/* Every other may have huge pages, whatever the system does. */
		madvise(user_base[i], SLOT_GAP, i % 2 ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
	}
	vm_make();
}

static struct bound *slot_bound(unsigned int slot)
{
	return &model.bound[BINDINGS + slot];
}

/* What KVM knows as no slot any more */
static void model_forget_slot(unsigned int slot)
{
	struct bound *b = slot_bound(slot);

	if (b->view)
		model_unbind(b, false);
	plain[slot] = false;
}

static bool model_has_slot(unsigned int slot)
{
	return plain[slot] || slot_bound(slot)->view;
}

/* slot */

enum { SLOT_SLOT, SLOT_FILE, SLOT_START, SLOT_COUNT, SLOT_HOW };

static bool slot_is_plain(const struct call *call)
{
	return call->arg[SLOT_HOW] == 11;
}

static uint32_t slot_start(const struct call *call)
{
	return call->arg[SLOT_HOW] < 8 ? 0 : call->arg[SLOT_START];
}

/* Often all of a memory */
static uint32_t slot_count(const struct call *call)
{
	unsigned int family = family_of(call->arg[SLOT_FILE]);
	uint32_t count = call->arg[SLOT_COUNT] ? call->arg[SLOT_COUNT] : 1;

	if (call->arg[SLOT_HOW] < 8)
		count = current->kind[family] == KIND_SMALL ? 8 : 512;
	return clip(slot_start(call), count);
}

static int delete_slot(unsigned int slot)
{
	return vm_region2(&vm, slot + 1, 0, slot_gpa(slot), 0, NULL, -1, 0);
}

static void slot_execute(const struct call *call, struct result *result)
{
	unsigned int slot = call->arg[SLOT_SLOT];
	uint32_t start = slot_start(call);

	user_used[slot] = true;
	delete_slot(slot);
	set_error(result, vm_region2(&vm, slot + 1, slot_is_plain(call) ? 0 : KVM_MEM_GUEST_MEMFD,
				     slot_gpa(slot) + start * PAGE, slot_count(call) * PAGE,
				     user_base[slot] + start * PAGE,
				     FILE_FD + call->arg[SLOT_FILE], start * PAGE));
}

static const char *slot_check(const struct call *call, const struct result *result)
{
	uint32_t start = slot_start(call), count = slot_count(call);
	unsigned int slot = call->arg[SLOT_SLOT];
	struct view *v;
	int error;

	model_forget_slot(slot);
	if (slot_is_plain(call)) {
		plain[slot] = true;
		plain_start[slot] = start;
		plain_end[slot] = start + count;
		return expect(result, 0);
	}
	v = model.file[call->arg[SLOT_FILE]];
	error = model_may_bind(v, start, count, vm_number);
	if (error == EPERM || error == EEXIST)
		error = EINVAL;
	if (!error)
		model_bind(slot_bound(slot), v, start, count, vm_number);
	return expect(result, error);
}

static void delete_execute(const struct call *call, struct result *result)
{
	set_error(result, delete_slot(call->arg[0]));
}

static const char *delete_check(const struct call *call, const struct result *result)
{
	bool has = model_has_slot(call->arg[0]);

	model_forget_slot(call->arg[0]);
	return expect(result, has ? 0 : EINVAL);
}

/* attributes */

enum { ATTR_SLOT, ATTR_START, ATTR_COUNT, ATTR_PRIVATE, ATTR_FLAGS };

static uint32_t attr_count(const struct call *call)
{
	return clip(call->arg[ATTR_START], call->arg[ATTR_COUNT]);
}

static uint32_t attr_flags(const struct call *call)
{
	return call->arg[ATTR_FLAGS] > 5 ? call->arg[ATTR_FLAGS] - 5 : 0;
}

static void attributes_execute(const struct call *call, struct result *result)
{
	const struct kvm_memory_attributes args = {
		.address = slot_gpa(call->arg[ATTR_SLOT]) + call->arg[ATTR_START] * PAGE,
		.size = attr_count(call) * PAGE,
		.attributes = call->arg[ATTR_PRIVATE] ? KVM_MEMORY_ATTRIBUTE_PRIVATE : 0,
		.flags = attr_flags(call),
	};

	set_error(result, ioctl(vm.fd, KVM_SET_MEMORY_ATTRIBUTES, &args));
}

static bool is_in_place(struct bound *b)
{
	return b->view && b->view->memory->flags & RESTRICTEDMEM_CREATE_IN_PLACE;
}

static const char *attributes_check(const struct call *call, const struct result *result)
{
	uint32_t start = call->arg[ATTR_START], end = start + attr_count(call), from, to, done;
	struct bound *b = slot_bound(call->arg[ATTR_SLOT]);
	uint32_t flags = attr_flags(call), where;
	bool to_private = call->arg[ATTR_PRIVATE], vague;
	int error = 0;

	if (start == end)
		return expect(result, EINVAL);
	if (flags && (flags > 2 || !is_in_place(b) || start < b->start || end > b->end))
		return expect(result, EINVAL);
	from = b->start > start ? b->start : start;
	to = b->end < end ? b->end : end;
	if (is_in_place(b) && from < to) {
		vague = to_private && b->view->memory->vague &&
			(b->view->memory->maybe_held ||
			 memory_is_held(b->view->memory, 0, b->view->memory->pages, &where));
		if (vague && result->error == EAGAIN)
			return NULL;	/* in part, perhaps; see below */
		if (vague)
			memory_apply_convert(b->view->memory, from, to, true, flags != PRESERVE);
		else
			error = memory_convert(b->view->memory, from, to, to_private,
					       flags != PRESERVE, &done);
	}
	if (!error)
		for (uint32_t i = start; i < end; i++)
			private[call->arg[ATTR_SLOT]][i] = to_private;
	return expect(result, error);
}

/* prefault */

static void prefault_execute(const struct call *call, struct result *result)
{
	struct kvm_pre_fault_memory args = {
		.gpa = slot_gpa(call->arg[0]) + call->arg[1] * PAGE,
		.size = call->arg[2] * PAGE,
	};

	set_error(result, ioctl(this_vcpu()->fd, KVM_PRE_FAULT_MEMORY, &args));
}

/*
 * Where a gfn's page is: a memory, a user half (words alone), or nowhere. KVM remembers
 * of a gfn without a slot that it was MMIO, also when it becomes private.
 */
static int find_page(unsigned int slot, uint32_t page, const struct result *result,
		     struct memory **m, uint64_t **words)
{
	struct bound *b = slot_bound(slot);
	bool inside = b->view ? page >= b->start && page < b->end :
		      plain[slot] && page >= plain_start[slot] && page < plain_end[slot];

	*m = NULL;
	*words = NULL;
	if (!(inside && is_in_place(b)) && private[slot][page]) {
		if (!inside && result->error == GOT_EXIT + KVM_EXIT_MMIO)
			return result->error;
		if (!inside || !b->view)
			return EFAULT;
	} else if (!inside) {
		return GOT_EXIT + KVM_EXIT_MMIO;
	} else if (!is_in_place(b)) {
		*words = user_words[slot][page];
		return 0;
	}
	*m = b->view->memory;
	*words = (*m)->words[page];
	return memory_touch(*m, page);
}

static const char *prefault_check(const struct call *call, const struct result *result)
{
	uint32_t page = call->arg[1], end = page + call->arg[2];
	bool progress = false;
	int error = page < end ? 0 : EINVAL;

	for (; !error && page < end && page < MAX_PAGES; page++) {
		struct memory *m;
		uint64_t *words;

		error = find_page(call->arg[0], page, result, &m, &words);
		progress |= !error;
	}
	if (error == GOT_EXIT + KVM_EXIT_MMIO || (!error && page < end))
		error = ENOENT;
	return expect(result, progress ? 0 : error);
}

/* Guests */

/* Tell four words of a page. */
static GUEST void tell_page(uint64_t gpa)
{
	uint64_t a = guest_read(gpa), b = guest_read(gpa + 8);
	uint64_t c = guest_read(gpa + 255 * 8), d = guest_read(gpa + 511 * 8);

	asm volatile("outb %%al, %1" : : "a"(0), "i"(PORT_SYNC), "D"(a), "S"(b), "d"(c),
		     "c"(d) : "memory");
	guest_done();
}

/*
 * Is each page's first word its own? @base is the stamp of page 0, flags aside. A
 * page that is not is told, with the word.
 */
static GUEST void scan_pages(uint64_t gpa, uint64_t pages, uint64_t base)
{
	for (uint64_t i = 0; i < pages; i++) {
		uint64_t word = guest_read(gpa + i * PAGE);

		if (word && (word ^ (base + (i << 24))) & STAMP_IDENTITY)
			asm volatile("outb %%al, %1" : : "a"(0), "i"(PORT_DATA), "D"(word),
				     "S"(i) : "memory");
	}
	guest_done();
}

/* Write each page's stamp into it. */
static GUEST void fill_pages(uint64_t gpa, uint64_t pages, uint64_t base)
{
	for (uint64_t i = 0; i < pages; i++)
		guest_write(gpa + i * PAGE, base + (i << 24));
	guest_done();
}

/* KVM emulates what MMIO the guest was at, before the vCPU can begin anew. */
static void finish_mmio(struct vcpu *vcpu)
{
	vcpu->run->immediate_exit = 1;
	ioctl(vcpu->fd, KVM_RUN, 0);
	vcpu->run->immediate_exit = 0;
}

/* Run a guest up to its end, or to what ends it. Return: whether it told something. */
static bool run_guest(struct result *result, struct kvm_regs *regs)
{
	struct vcpu *vcpu = this_vcpu();
	int reason = vcpu_run(vcpu);

	if (reason == KVM_EXIT_IO && vcpu->run->io.port == PORT_DONE)
		return false;
	if (reason == KVM_EXIT_IO) {
		ioctl(vcpu->fd, KVM_GET_REGS, regs);
		return true;
	}
	result->error = reason == KVM_EXIT_MEMORY_FAULT || reason < 0 ? vcpu->error :
			GOT_EXIT + reason;
	if (reason == KVM_EXIT_MMIO)
		finish_mmio(vcpu);
	return false;
}

enum { GUEST_SLOT, GUEST_PAGE, GUEST_WORD };

static uint64_t guest_gpa(const struct call *call)
{
	return slot_gpa(call->arg[GUEST_SLOT]) + call->arg[GUEST_PAGE] * PAGE;
}

static void guest_read_execute(const struct call *call, struct result *result)
{
	struct kvm_regs regs;

	vcpu_start(this_vcpu(), tell_page, guest_gpa(call), 0, 0);
	if (!run_guest(result, &regs))
		return;
	result->words[0] = regs.rdi;
	result->words[1] = regs.rsi;
	result->words[2] = regs.rdx;
	result->words[3] = regs.rcx;
}

static const char *guest_read_check(const struct call *call, const struct result *result)
{
	unsigned int slot = call->arg[GUEST_SLOT];
	uint32_t page = call->arg[GUEST_PAGE];
	struct memory *m;
	uint64_t *words;
	int error = find_page(slot, page, result, &m, &words);

	if (error || result->error)
		return expect(result, error);
	return expect_words(result, words, slot, page);
}

static const char *guest_look(const struct call *call, const struct result *result)
{
	unsigned int slot = call->arg[GUEST_SLOT];

	if (result->error)
		return NULL;
	return stamp_check(result, family_of(slot), call->arg[GUEST_PAGE],
			   slot % 2 ? 0 : STAMP_SLOT);
}

static uint64_t guest_stamp(const struct call *call, unsigned int word)
{
	unsigned int family = family_of(call->arg[GUEST_SLOT]);

	return stamp_of(family, word, call->arg[GUEST_PAGE], STAMP_GUEST,
			call - current->calls);
}

static void guest_write_execute(const struct call *call, struct result *result)
{
	struct kvm_regs regs;

	vcpu_start(this_vcpu(), write_word,
		   guest_gpa(call) + stamp_words[call->arg[GUEST_WORD]] * 8,
		   guest_stamp(call, call->arg[GUEST_WORD]), 0);
	run_guest(result, &regs);
}

static const char *guest_write_check(const struct call *call, const struct result *result)
{
	struct memory *m;
	uint64_t *words;
	int error = find_page(call->arg[GUEST_SLOT], call->arg[GUEST_PAGE], result, &m, &words);

	if (!error)
		words[call->arg[GUEST_WORD]] = guest_stamp(call, call->arg[GUEST_WORD]);
	return expect(result, error);
}

/* Many pages at once; concurrent alone */
enum { SCAN_SLOT, SCAN_START, SCAN_COUNT };

static uint32_t scan_count(const struct call *call)
{
	return clip(call->arg[SCAN_START], call->arg[SCAN_COUNT]);
}

static uint64_t scan_base(const struct call *call)
{
	return stamp_of(family_of(call->arg[SCAN_SLOT]), 0, call->arg[SCAN_START], STAMP_GUEST,
			call - current->calls);
}

static void scan_execute(const struct call *call, struct result *result)
{
	struct kvm_regs regs;

	vcpu_start(this_vcpu(), scan_pages,
		   slot_gpa(call->arg[SCAN_SLOT]) + call->arg[SCAN_START] * PAGE,
		   scan_count(call), scan_base(call));
	if (!run_guest(result, &regs))
		return;
	result->words[0] = regs.rdi;
	result->done = 1 + call->arg[SCAN_START] + regs.rsi;
}

static const char *scan_look(const struct call *call, const struct result *result)
{
	if (!result->done)
		return NULL;
	return text_of("the guest reads %#llx in page %llu of slot %u, which is not its own",
		       (unsigned long long)result->words[0],
		       (unsigned long long)result->done - 1, call->arg[SCAN_SLOT]);
}

static void fill_execute(const struct call *call, struct result *result)
{
	struct kvm_regs regs;

	vcpu_start(this_vcpu(), fill_pages,
		   slot_gpa(call->arg[SCAN_SLOT]) + call->arg[SCAN_START] * PAGE,
		   scan_count(call), scan_base(call));
	run_guest(result, &regs);
}

/* User halves */

static char *user_page(const struct call *call)
{
	return user_base[call->arg[0]] + call->arg[1] * PAGE;
}

static void user_read_execute(const struct call *call, struct result *result)
{
	user_used[call->arg[0]] = true;
	access_read(user_page(call), result);
}

static const char *user_read_check(const struct call *call, const struct result *result)
{
	return expect_words(result, user_words[call->arg[0]][call->arg[1]], call->arg[0],
			    call->arg[1]);
}

static const char *user_look(const struct call *call, const struct result *result)
{
	return stamp_check(result, family_of(call->arg[0]), call->arg[1],
			   STAMP_SECRET | STAMP_FILE | (call->arg[0] % 2 ? 0 : STAMP_SLOT));
}

static uint64_t user_stamp(const struct call *call)
{
	return stamp_of(family_of(call->arg[0]), call->arg[2], call->arg[1],
			STAMP_USER | (call->arg[0] % 2 ? STAMP_SLOT : 0), call - current->calls);
}

static void user_write_execute(const struct call *call, struct result *result)
{
	user_used[call->arg[0]] = true;
	access_write(user_page(call), call->arg[2], user_stamp(call), result);
}

static const char *user_write_check(const struct call *call, const struct result *result)
{
	user_words[call->arg[0]][call->arg[1]][call->arg[2]] = user_stamp(call);
	return expect(result, 0);
}

static uint32_t drop_count(const struct call *call)
{
	return clip(call->arg[1], call->arg[2]);
}

static void user_drop_execute(const struct call *call, struct result *result)
{
	set_error(result, madvise(user_page(call), drop_count(call) * PAGE, MADV_DONTNEED));
}

static const char *user_drop_check(const struct call *call, const struct result *result)
{
	memset(user_words[call->arg[0]][call->arg[1]], 0,
	       drop_count(call) * sizeof(user_words[0][0]));
	return expect(result, 0);
}

/* A file that is the VM's from birth */

static void guest_memfd_execute(const struct call *call, struct result *result)
{
	struct kvm_create_guest_memfd args = { .size = call->arg[1] * PAGE + call->arg[2] };
	int fd = ioctl(vm.fd, KVM_CREATE_GUEST_MEMFD, &args);

	set_error(result, fd);
	if (fd < 0)
		return;
	set_error(result, dup3(fd, FILE_FD + call->arg[0], O_CLOEXEC));
	close(fd);
}

static const char *guest_memfd_check(const struct call *call, const struct result *result)
{
	struct memory *m;

	if (!call->arg[1] || call->arg[2])
		return expect(result, EINVAL);
	m = memory_create(false, true, 0);
	memory_set_size(m, call->arg[1]);
	file_set(call->arg[0], view_create(m, vm_number));
	return expect(result, 0);
}

/* The VM ends, and another begins. */

static void vm_forget(void)
{
	for (int i = 0; i < SLOTS; i++)
		model_forget_slot(i);
	memset(private, 0, sizeof(private));
}

static void vm_end(void)
{
	for (unsigned int i = 0; i < (is_peer() ? 1 : PEER); i++)
		vcpu_destroy(&vcpus[i]);
	vm_destroy(&vm);
}

static void new_vm_execute(const struct call *call, struct result *result)
{
	vm_end();
	vm_make();
}

static const char *new_vm_check(const struct call *call, const struct result *result)
{
	uint64_t now = vm_number;

	/* Bindings of the old one end as what they were. */
	vm_forget();
	vm_number = now;
	return expect(result, 0);
}

/* Between sequences */

void vm_reset(void)
{
	if (!have_vm || !vm_used)
		return;
	vm_used = false;
	for (int i = 0; i < SLOTS; i++) {
		if (!user_used[i])
			continue;
		delete_slot(i);
		madvise(user_base[i], SLOT_GAP, MADV_DONTNEED);
		memset(user_words[i], 0, sizeof(user_words[i]));
		user_used[i] = false;
		plain[i] = false;
	}
	if (vm_set_private(&vm, DATA, SLOTS * SLOT_GAP, false))
		fail("attributes cannot be reset: %m");
	memset(private, 0, sizeof(private));
}

static const int slot_errors[] = { EBADF, EINVAL, EBUSY, EEXIST, 0 };
static const int delete_errors[] = { EINVAL, 0 };
static const int attribute_errors[] = { EINVAL, EAGAIN, 0 };
static const int prefault_errors[] = { EFAULT, ENOENT, ENOSPC, EAGAIN, EINVAL, 0 };
static const int guest_errors[] = { EFAULT, ENOSPC, GOT_EXIT + KVM_EXIT_MMIO, 0 };
static const int nothing[] = { 0 };
static const int create_errors[] = { EINVAL, EBUSY, 0 };

#define GUEST_PARAMS {							\
	{ "slot", PARAM_SLOT }, { "page", PARAM_START }, { "word", PARAM_WORD },	\
}

#define SCAN_PARAMS {							\
	{ "slot", PARAM_SLOT }, { "start", PARAM_START }, { "count", PARAM_COUNT },	\
}

const struct op vm_ops[] = {
	{
		.name = "slot", .weight = { 5, 5 },
		.params = {
			{ "slot", PARAM_SLOT }, { "file", PARAM_FILE },
			{ "start", PARAM_START }, { "count", PARAM_COUNT },
			{ "how", PARAM_NUMBER, 11 },
		},
		.execute = slot_execute, .check = slot_check, .errors = slot_errors,
	}, {
		.name = "delete", .weight = { 1, 2 }, .params = { { "slot", PARAM_SLOT } },
		.execute = delete_execute, .check = delete_check, .errors = delete_errors,
	}, {
		.name = "attributes", .weight = { 16, 24 }, .shares = true,
		.params = {
			{ "slot", PARAM_SLOT }, { "start", PARAM_START },
			{ "count", PARAM_COUNT }, { "private", PARAM_NUMBER, 1 },
			{ "flags", PARAM_NUMBER, 8 },
		},
		.execute = attributes_execute, .check = attributes_check,
		.errors = attribute_errors,
	}, {
		.name = "prefault", .weight = { 4, 6 }, .params = SCAN_PARAMS,
		.execute = prefault_execute, .check = prefault_check,
		.errors = prefault_errors,
	}, {
		.name = "guest_read", .weight = { 16, 12 }, .params = GUEST_PARAMS,
		.execute = guest_read_execute, .check = guest_read_check,
		.errors = guest_errors, .look = guest_look,
	}, {
		.name = "guest_write", .weight = { 14, 10 }, .params = GUEST_PARAMS,
		.execute = guest_write_execute, .check = guest_write_check,
		.errors = guest_errors,
	}, {
		.name = "scan", .weight = { 0, 20 }, .params = SCAN_PARAMS,
		.execute = scan_execute, .errors = guest_errors, .look = scan_look,
	}, {
		.name = "fill", .weight = { 0, 10 }, .params = SCAN_PARAMS,
		.execute = fill_execute, .errors = guest_errors,
	}, {
		.name = "user_read", .weight = { 5, 6 }, .params = GUEST_PARAMS,
		.execute = user_read_execute, .check = user_read_check, .errors = nothing,
		.look = user_look,
	}, {
		.name = "user_write", .weight = { 5, 6 }, .params = GUEST_PARAMS,
		.execute = user_write_execute, .check = user_write_check,
		.errors = nothing,
	}, {
		.name = "user_drop", .weight = { 2, 4 }, .params = SCAN_PARAMS,
		.execute = user_drop_execute, .check = user_drop_check, .errors = nothing,
	}, {
		.name = "guest_memfd", .weight = { 2, 1 },
		.params = {
			{ "file", PARAM_FILE }, { "length", PARAM_LENGTH },
			{ "skew", PARAM_SKEW },
		},
		.execute = guest_memfd_execute, .check = guest_memfd_check,
		.errors = create_errors,
	}, {
		/* Other threads of a process use its VM, so only the peer's can end. */
		.name = "new_vm", .weight = { 1, 1 }, .only = PEER + 1,
		.execute = new_vm_execute, .check = new_vm_check, .errors = nothing,
	},
	{}
};
