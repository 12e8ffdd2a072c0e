// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * The virtual machine and its memory: this is the file to read for how a VMM
 * uses restricted memory.
 *
 *  1. KVM_CREATE_VM with type KVM_X86_SW_PROTECTED_VM.
 *  2. A memory file: RESTRICTEDMEM_CREATE on /dev/restrictedmem, or
 *     KVM_CREATE_GUEST_MEMFD on the VM.
 *  3. A slot with KVM_SET_USER_MEMORY_REGION2. Its private half is the file.
 *     Its shared half is a range of host addresses, here a reservation that
 *     nothing can touch (PROT_NONE) until the guest shares a page.
 *  4. KVM_SET_MEMORY_ATTRIBUTES makes the guest's addresses private.
 *  5. When the guest asks for it by hypercall, and at no other time, pages become
 *     ones of the other kind: vm_convert(). That KVM_RUN fails with a memory fault
 *     is no such wish (vcpu.c).
 *
 * With in-place memory there is no shared half: a page that the guest shares
 * stays where it is, and is given to others by windows (window.c).
 *
 * Invariant: a page of RAM has a host mapping only while it is shared.
 * Ranges are a guest physical address and a size in bytes.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <linux/falloc.h>
#include <linux/kvm_para.h>
#include <restrictedmem.h>

#include "rmvm.h"

/* Slot numbers: RAM has 0 and 1. */
#define LOADER_SLOT	2

/*
 * Seconds that a conversion waits for who holds a page. KVM tries for a while itself
 * each time, which is not in our hands.
 */
#define HOLD_SECONDS	0.1

static int create_restricted(struct vm *vm)
{
	struct restrictedmem_create create = {
		.size = sizeof(create),
		.length = vm->opt->memory,
		.store = RESTRICTEDMEM_STORE_SHMEM,
		.thp = vm->opt->huge ? RESTRICTEDMEM_THP_ALWAYS : RESTRICTEDMEM_THP_NEVER,
	};
	int dev = open("/dev/restrictedmem", O_RDWR | O_CLOEXEC);

	if (vm->opt->pool) {
		create.store = RESTRICTEDMEM_STORE_HUGETLB;
		create.page_size = vm->opt->pool;
		create.thp = RESTRICTEDMEM_THP_DEFAULT;
		create.flags = RESTRICTEDMEM_CREATE_RESERVE;
	}
	if (vm->in_place)
		create.flags |= RESTRICTEDMEM_CREATE_IN_PLACE;
	if (dev < 0)
		return fail_errno("cannot open /dev/restrictedmem");
	vm->mem_fd = ioctl(dev, RESTRICTEDMEM_CREATE, &create);
	if (vm->mem_fd < 0)
		fail_errno("RESTRICTEDMEM_CREATE");
	close(dev);
	return vm->mem_fd < 0 ? -1 : 0;
}

static int create_guest_memfd(struct vm *vm)
{
	struct kvm_create_guest_memfd create = {
		.size = vm->opt->memory,
	};

	vm->mem_fd = ioctl(vm->fd, KVM_CREATE_GUEST_MEMFD, &create);
	return vm->mem_fd < 0 ? fail_errno("KVM_CREATE_GUEST_MEMFD") : 0;
}

static int create_memfd(struct vm *vm)
{
	vm->mem_fd = memfd_create("rmvm", MFD_CLOEXEC);
	if (vm->mem_fd < 0 || ftruncate(vm->mem_fd, vm->opt->memory))
		return fail_errno("memfd_create");
	return 0;
}

/*
 * The host addresses of RAM begin at a multiple of 2 MiB, because KVM maps
 * ordinary memory by huge pages only where host and guest addresses agree
 * modulo their size.
 */
static int reserve_host(struct vm *vm)
{
	u64 memory = vm->opt->memory;
	u8 *p;

	if (vm->in_place)
		return 0;
	p = mmap(NULL, memory + HUGE_PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
		 -1, 0);
	if (p == MAP_FAILED)
		return fail_errno("cannot reserve %llu MiB of addresses", memory / MIB);
	vm->host = (u8 *)align_up((uintptr_t)p, HUGE_PAGE);
	if (vm->private)
		return 0;

	if (mmap(vm->host, memory, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
		 vm->mem_fd, 0) == MAP_FAILED)
		return fail_errno("cannot map the memory");
	/* Fails where the kernel has no huge pages for shared memory. */
	if (madvise(vm->host, memory, vm->opt->huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE) &&
	    errno != EINVAL)
		return fail_errno("madvise");
	return 0;
}

/* Returns -EAGAIN, without a message, if somebody holds pages of in-place memory. */
static int set_attributes(struct vm *vm, u64 gpa, u64 size, bool private)
{
	struct kvm_memory_attributes attributes = {
		.address = gpa,
		.size = size,
		.attributes = private ? KVM_MEMORY_ATTRIBUTE_PRIVATE : 0,
		.flags = vm->in_place ? RESTRICTEDMEM_CONVERT_PRESERVE : 0,
	};
	int ret;

	vm->conversions++;
	do
		ret = ioctl(vm->fd, KVM_SET_MEMORY_ATTRIBUTES, &attributes);
	while (ret && errno == EINTR);
	if (ret && vm->in_place && errno == EAGAIN)
		return -EAGAIN;
	return ret ? fail_errno("KVM_SET_MEMORY_ATTRIBUTES at %#llx", gpa) : 0;
}

static int add_ordinary_slot(struct vm *vm, unsigned int slot, u64 gpa,
			     u64 size, void *host)
{
	struct kvm_userspace_memory_region region = {
		.slot = slot,
		.guest_phys_addr = gpa,
		.memory_size = size,
		.userspace_addr = (uintptr_t)host,
	};

	if (ioctl(vm->fd, KVM_SET_USER_MEMORY_REGION, &region))
		return fail_errno("KVM_SET_USER_MEMORY_REGION at %#llx", gpa);
	return 0;
}

static int add_private_slot(struct vm *vm, unsigned int slot, const struct ram *ram)
{
	struct kvm_userspace_memory_region2 region = {
		.slot = slot,
		.flags = KVM_MEM_GUEST_MEMFD,
		.guest_phys_addr = ram->gpa,
		.memory_size = ram->size,
		.userspace_addr = vm->in_place ? 0 : (uintptr_t)vm->host + ram->offset,
		.guest_memfd = vm->mem_fd,
		.guest_memfd_offset = ram->offset,
	};

	if (ioctl(vm->fd, KVM_SET_USER_MEMORY_REGION2, &region))
		return fail_errno("KVM_SET_USER_MEMORY_REGION2 at %#llx", ram->gpa);
	return set_attributes(vm, ram->gpa, ram->size, true);
}

static int add_ram(struct vm *vm)
{
	u64 memory = vm->opt->memory, low = memory < LOW_END ? memory : LOW_END;
	unsigned int i;

	vm->ram[vm->nr_ram++] = (struct ram){ .size = low };
	if (memory > low)
		vm->ram[vm->nr_ram++] = (struct ram){
			.gpa = HIGH_START,
			.size = memory - low,
			.offset = low,
		};

	for (i = 0; i < vm->nr_ram; i++) {
		struct ram *ram = &vm->ram[i];

		if (vm->opt->verbose)
			say("ram gpa %#llx size %#llx host %#llx fd %d", ram->gpa, ram->size,
			    (u64)(uintptr_t)vm->host + ram->offset, vm->mem_fd);
		if (vm->private ? add_private_slot(vm, i, ram) :
		    add_ordinary_slot(vm, i, ram->gpa, ram->size, vm->host + ram->offset) ||
		    shared_reserve(vm))
			return -1;
		if (!vm->private)
			shared_add(vm, ram->gpa, ram->size);
	}
	return 0;
}

/* The parts of a PC that KVM has, and the guest's way to ask for conversion */
static int add_irqchip(struct vm *vm)
{
	struct kvm_pit_config pit = { .flags = KVM_PIT_SPEAKER_DUMMY };
	struct kvm_enable_cap cap = {
		.cap = KVM_CAP_EXIT_HYPERCALL,
		.args = { 1 << KVM_HC_MAP_GPA_RANGE },
	};
	u64 identity_map = 0xfeffc000;

	/* Intel's processors want three pages below 4 GiB that are not RAM. */
	if (ioctl(vm->fd, KVM_SET_IDENTITY_MAP_ADDR, &identity_map) ||
	    ioctl(vm->fd, KVM_SET_TSS_ADDR, identity_map + PAGE))
		return fail_errno("KVM_SET_TSS_ADDR");
	if (ioctl(vm->fd, KVM_CREATE_IRQCHIP, 0))
		return fail_errno("KVM_CREATE_IRQCHIP");
	if (ioctl(vm->fd, KVM_CREATE_PIT2, &pit))
		return fail_errno("KVM_CREATE_PIT2");
	if (vm->private && ioctl(vm->fd, KVM_ENABLE_CAP, &cap))
		return fail_errno("KVM_CAP_EXIT_HYPERCALL");
	return 0;
}

static int open_kvm(struct vm *vm)
{
	unsigned int type = vm->private ? KVM_X86_SW_PROTECTED_VM : KVM_X86_DEFAULT_VM;
	int n;

	vm->kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (vm->kvm < 0)
		return fail_errno("cannot open /dev/kvm");
	if (ioctl(vm->kvm, KVM_GET_API_VERSION, 0) != KVM_API_VERSION)
		return fail("/dev/kvm has another API version than %d", KVM_API_VERSION);
	n = ioctl(vm->kvm, KVM_CHECK_EXTENSION, KVM_CAP_VM_TYPES);
	if (vm->private && !(n & 1 << KVM_X86_SW_PROTECTED_VM))
		return fail("this KVM has no private memory: is the patched one loaded?");
	n = ioctl(vm->kvm, KVM_CHECK_EXTENSION, KVM_CAP_MAX_VCPUS);
	if (vm->opt->smp > (unsigned int)n)
		return fail("this KVM has at most %d vCPUs in a VM", n);

	n = ioctl(vm->kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
	if (n < 0)
		return fail_errno("KVM_GET_VCPU_MMAP_SIZE");
	vm->run_size = n;

	do
		vm->fd = ioctl(vm->kvm, KVM_CREATE_VM, type);
	while (vm->fd < 0 && errno == EINTR);
	return vm->fd < 0 ? fail_errno("KVM_CREATE_VM") : 0;
}

/* Makes the VM with its RAM, as yet without vCPUs and contents. */
int vm_create(struct vm *vm, const struct options *opt)
{
	static int (*const create[])(struct vm *vm) = {
		[BACKING_RESTRICTED] = create_restricted,
		[BACKING_IN_PLACE] = create_restricted,
		[BACKING_GUEST_MEMFD] = create_guest_memfd,
		[BACKING_MEMFD] = create_memfd,
	};

	*vm = (struct vm){
		.opt = opt,
		.kvm = -1,
		.fd = -1,
		.mem_fd = -1,
		.private = opt->backing != BACKING_MEMFD,
		.in_place = opt->backing == BACKING_IN_PLACE,
		.end = END_NOT_YET,
		.mem_lock = PTHREAD_MUTEX_INITIALIZER,
		.end_lock = PTHREAD_MUTEX_INITIALIZER,
	};
	if (open_kvm(vm) || add_irqchip(vm) || create[opt->backing](vm) || reserve_host(vm))
		return -1;
	return add_ram(vm);
}

/*
 * The loader's memory is ordinary. It is outside of RAM, holds what the guest
 * copies into its RAM itself (load.c), and then goes away.
 */
int vm_add_loader(struct vm *vm)
{
	return add_ordinary_slot(vm, LOADER_SLOT, LOADER_START, vm->loader_size, vm->loader);
}

void vm_remove_loader(struct vm *vm)
{
	pthread_mutex_lock(&vm->mem_lock);
	if (vm->loader_size) {
		if (add_ordinary_slot(vm, LOADER_SLOT, LOADER_START, 0, vm->loader))
			vm_end(vm, END_ERROR);
		munmap(vm->loader, LOADER_END - LOADER_START);
		vm->loader_size = 0;
		vm->counts.seconds_loader = now() - vm->start;
	}
	pthread_mutex_unlock(&vm->mem_lock);
}

static const struct ram *find_ram(const struct vm *vm, u64 gpa, u64 size)
{
	unsigned int i;

	for (i = 0; i < vm->nr_ram; i++) {
		const struct ram *ram = &vm->ram[i];

		if (gpa >= ram->gpa && gpa - ram->gpa < ram->size &&
		    size <= ram->size - (gpa - ram->gpa))
			return ram;
	}
	return NULL;
}

/* Of a pool, only whole pages go back. */
static int punch(struct vm *vm, u64 offset, u64 size)
{
	u64 page = vm->opt->pool ? vm->opt->pool : PAGE;
	u64 end = (offset + size) / page * page;

	offset = (offset + page - 1) / page * page;
	if (offset >= end)
		return 0;
	size = end - offset;
	if (fallocate(vm->mem_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, size))
		return fail_errno("cannot free the memory at %#llx", offset);
	return 0;
}

/* What the guest had there as shared pages is gone, and so is the host mapping. */
static int hide(struct vm *vm, u64 offset, u64 size)
{
	if (madvise(vm->host + offset, size, MADV_DONTNEED) ||
	    mprotect(vm->host + offset, size, PROT_NONE))
		return fail_errno("mprotect");
	return 0;
}

/*
 * The pages, all of them private, get their host mapping before the guest can
 * reach them as shared, and the private copy goes when the guest cannot reach it
 * any more. If it does not go, they are private again.
 */
static int share_range(struct vm *vm, const struct range *range)
{
	u64 gpa = range->gpa, size = range->size, offset = vm_offset(vm, gpa);

	if (mprotect(vm->host + offset, size, PROT_READ | PROT_WRITE))
		return fail_errno("mprotect");
	if (!set_attributes(vm, gpa, size, false)) {
		if (!punch(vm, offset, size)) {
			shared_add(vm, gpa, size);
			return 0;
		}
		set_attributes(vm, gpa, size, true);
	}
	hide(vm, offset, size);
	return -1;
}

static int make_shared(struct vm *vm, u64 gpa, u64 size)
{
	struct range gap;

	while (shared_gap(vm, gpa, size, &gap))
		if (shared_reserve(vm) || share_range(vm, &gap))
			return -1;
	return 0;
}

static int make_private(struct vm *vm, u64 gpa, u64 size)
{
	if (shared_reserve(vm) || set_attributes(vm, gpa, size, true))
		return -1;
	shared_remove(vm, gpa, size);
	return hide(vm, vm_offset(vm, gpa), size);
}

/* Where in the memory file that address of RAM is */
u64 vm_offset(const struct vm *vm, u64 gpa)
{
	const struct ram *ram = find_ram(vm, gpa, 1);

	return ram->offset + (gpa - ram->gpa);
}

/* Is all of it RAM, in whole pages, and in one slot? */
bool vm_is_ram(const struct vm *vm, u64 gpa, u64 size)
{
	return size && !((gpa | size) % PAGE) && find_ram(vm, gpa, size);
}

/* Until it gives up, who holds the pages may be done with them. */
static int set_private_in_place(struct vm *vm, u64 gpa, u64 size)
{
	double until = now() + HOLD_SECONDS;
	int ret;

	while ((ret = set_attributes(vm, gpa, size, true)) == -EAGAIN && now() < until &&
	       !vm_ended(vm))
		usleep(1000);
	return ret;
}

/* In the set of shared pages there is room for it. */
static int share_in_place(struct vm *vm, u64 gpa, u64 size)
{
	int ret = set_attributes(vm, gpa, size, false);

	if (!ret)
		shared_add(vm, gpa, size);
	return ret;
}

static u8 *map_window(struct vm *vm, u64 gpa)
{
	struct window window;
	u8 *page;

	if (window_open(vm, &window, gpa, PAGE))
		return NULL;
	page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, window.fd, 0);
	close(window.fd);
	if (page != MAP_FAILED)
		return page;
	fail_errno("cannot map a window");
	return NULL;
}

/*
 * A page that this process itself wants to look at, and that no backend gets
 * unless the guest shares it: the caller has asked for what they have already.
 * vm_give_back() is its end. After an error, with a message, all is as it was, or the
 * VM has ended. Under mem_lock.
 */
int vm_borrow(struct vm *vm, struct borrowed *page, u64 gpa)
{
	*page = (struct borrowed){
		.gpa = gpa,
		.was_shared = shared_covers(vm, gpa, PAGE),
	};
	if (!vm->in_place) {
		if (make_shared(vm, gpa, PAGE))
			return -1;
		page->at = vm->host + vm_offset(vm, gpa);
		return 0;
	}
	if (!page->was_shared && set_attributes(vm, gpa, PAGE, false))
		return -1;
	page->at = map_window(vm, gpa);
	if (page->at)
		return 0;
	vm_give_back(vm, page);
	return -1;
}

/* A page that the guest takes for private is so, or it runs no more. */
void vm_give_back(struct vm *vm, struct borrowed *page)
{
	int ret = 0;

	if (page->at && vm->in_place)
		munmap(page->at, PAGE);
	page->at = NULL;
	if (!page->was_shared)
		ret = vm->in_place ? set_private_in_place(vm, page->gpa, PAGE) :
		      make_private(vm, page->gpa, PAGE);
	if (ret == -EAGAIN)
		fail("the page at %#llx stays shared: somebody holds it", page->gpa);
	if (ret)
		vm_end(vm, END_ERROR);
}

/*
 * What of [gpa, gpa + size) is in these ranges is shared again. The end of the VM is
 * that of its memory, and does not wait for all of them.
 */
static int share_again(struct vm *vm, const struct range *ranges, unsigned int nr, u64 gpa,
		       u64 size)
{
	unsigned int i;

	for (i = 0; i < nr; i++) {
		u64 start = ranges[i].gpa, end = start + ranges[i].size;

		if (start < gpa)
			start = gpa;
		if (end > gpa + size)
			end = gpa + size;
		if (start < end && (vm_ended(vm) || set_attributes(vm, start, end - start, false)))
			return -1;
	}
	return 0;
}

/*
 * Backends are told first, so that they are not surprised. If a page is held,
 * the pages before it may have changed: what was shared is so again when the
 * guest hears of it, and nothing else.
 */
static int take_back_in_place(struct vm *vm, u64 gpa, u64 size)
{
	unsigned int nr;
	struct range *before = shared_save(vm, &nr);
	int ret;

	if (!before)
		return -1;
	shared_remove(vm, gpa, size);
	vhost_blk_sync(vm, 1);
	ret = set_private_in_place(vm, gpa, size);
	if (ret == -EAGAIN) {
		vm->counts.conversions_busy++;
		if (share_again(vm, before, nr, gpa, size)) {
			ret = -1;
		} else {
			shared_restore(vm, before, nr);
			vhost_blk_sync(vm, 0);
		}
	}
	free(before);
	return ret;
}

static int convert_in_place(struct vm *vm, u64 gpa, u64 size, bool to_private)
{
	int ret;

	if (shared_reserve(vm))
		return -1;
	vhost_blk_begin(vm);
	if (to_private)
		return take_back_in_place(vm, gpa, size);
	ret = share_in_place(vm, gpa, size);
	vhost_blk_sync(vm, 0);
	return ret;
}

/*
 * Converts pages of RAM to the other kind. Their contents are lost, unless they
 * are in-place memory. Nothing changes for pages that are of that kind already.
 * Returns -EAGAIN, and has changed nothing, if somebody holds one of the pages.
 */
int vm_convert(struct vm *vm, u64 gpa, u64 size, bool to_private)
{
	int ret;

	pthread_mutex_lock(&vm->mem_lock);
	balloon_leave(vm, gpa, size);
	if (vm->in_place)
		ret = convert_in_place(vm, gpa, size, to_private);
	else if (to_private)
		ret = make_private(vm, gpa, size);
	else
		ret = make_shared(vm, gpa, size);
	if (to_private && !ret)
		vm->counts.to_private += size / PAGE;
	else if (!ret)
		vm->counts.to_shared += size / PAGE;
	pthread_mutex_unlock(&vm->mem_lock);
	return ret;
}

/* How many there have been. If there is one under way, it waits for its end. */
u64 vm_conversions(struct vm *vm)
{
	u64 conversions;

	pthread_mutex_lock(&vm->mem_lock);
	conversions = vm->conversions;
	pthread_mutex_unlock(&vm->mem_lock);
	return conversions;
}

/*
 * Frees pages of RAM, whatever their kind. The guest finds zeros there, but for
 * pages of a pool, which stay. It takes no lock, and changes no page's kind.
 */
int vm_discard(struct vm *vm, u64 gpa, u64 size)
{
	u64 offset = vm_offset(vm, gpa);
	int ret = punch(vm, offset, size);

	if (!ret && vm->private && !vm->in_place && madvise(vm->host + offset, size, MADV_DONTNEED))
		ret = fail_errno("madvise");
	__atomic_fetch_add(&vm->counts.discarded, size / PAGE, __ATOMIC_RELAXED);
	return ret;
}
