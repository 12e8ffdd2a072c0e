// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * The virtual processors: what they are (CPUID, first registers), and one
 * thread each that runs the guest and serves its exits.
 *
 * vCPU 0 starts in the loader (load.c); the guest starts the others itself,
 * through their interrupt controllers, which KVM has.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include <linux/kvm_para.h>

#include "rmvm.h"

#define MSR_MISC_ENABLE		0x1a0
#define MSR_MTRR_DEF_TYPE	0x2ff

/*
 * Ends the VM: wakes the main thread, which stops the vCPUs and leaves. The
 * first reason counts.
 */
void vm_end(struct vm *vm, enum end end)
{
	pthread_mutex_lock(&vm->end_lock);
	if (vm->end == END_NOT_YET)
		vm->end = end;
	pthread_cond_broadcast(&vm->end_cond);
	pthread_mutex_unlock(&vm->end_lock);
}

bool vm_ended(struct vm *vm)
{
	bool ended;

	pthread_mutex_lock(&vm->end_lock);
	ended = vm->end != END_NOT_YET;
	pthread_mutex_unlock(&vm->end_lock);
	return ended;
}

/* All vCPUs are cores of one processor. */
static void cpuid_entry_fix(const struct vcpu *vcpu, struct kvm_cpuid_entry2 *e)
{
	unsigned int nr = vcpu->vm->opt->smp;

	switch (e->function) {
	case 1:
		e->ebx = (e->ebx & 0xffff) | nr << 16 | vcpu->id << 24;
		e->ecx |= 1U << 31;		/* a hypervisor is there */
		if (ioctl(vcpu->vm->fd, KVM_CHECK_EXTENSION, KVM_CAP_TSC_DEADLINE_TIMER) > 0)
			e->ecx |= 1 << 24;
		e->edx = (e->edx & ~(1 << 28)) | (nr > 1) << 28;
		break;
	case 4:
		e->eax = (e->eax & 0x3fff) | (nr < 64 ? nr - 1 : 63) << 26;
		break;
	case 0xb:
	case 0x1f:
		e->eax = 0;
		e->ebx = 0;
		e->ecx = e->index;
		e->edx = vcpu->id;
		break;
	case KVM_CPUID_FEATURES:
		if (vcpu->vm->private)
			e->eax |= 1 << KVM_FEATURE_HC_MAP_GPA_RANGE;
		break;
	case 0x80000008:
		e->ecx = nr - 1;
		break;
	case 0x8000001e:
		e->eax = vcpu->id;
		e->ebx = vcpu->id & 0xff;
		e->ecx = 0;
		break;
	}
}

static int set_cpuid(struct vcpu *vcpu)
{
	const unsigned int max = 256;
	struct kvm_cpuid2 *cpuid;
	unsigned int i;
	int ret = 0;

	cpuid = calloc(1, sizeof(*cpuid) + max * sizeof(cpuid->entries[0]));
	if (!cpuid)
		return fail("out of memory");
	cpuid->nent = max;
	if (ioctl(vcpu->vm->kvm, KVM_GET_SUPPORTED_CPUID, cpuid)) {
		ret = fail_errno("KVM_GET_SUPPORTED_CPUID");
	} else {
		for (i = 0; i < cpuid->nent; i++)
			cpuid_entry_fix(vcpu, &cpuid->entries[i]);
		if (ioctl(vcpu->fd, KVM_SET_CPUID2, cpuid))
			ret = fail_errno("KVM_SET_CPUID2");
	}
	free(cpuid);
	return ret;
}

/* What firmware would have set: fast string moves, write-back caching. */
static int set_msrs(struct vcpu *vcpu)
{
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry entries[2];
	} msrs = {
		.head.nmsrs = 2,
		.entries = {
			{ .index = MSR_MISC_ENABLE, .data = 1 },
			{ .index = MSR_MTRR_DEF_TYPE, .data = 1 << 11 | 6 },
		},
	};

	if (ioctl(vcpu->fd, KVM_SET_MSRS, &msrs) != 2)
		return fail_errno("KVM_SET_MSRS");
	return 0;
}

int vcpu_create(struct vm *vm, unsigned int id)
{
	struct vcpu *vcpu = &vm->vcpus[id];

	vcpu->vm = vm;
	vcpu->id = id;
	vcpu->conversions = UINT64_MAX;	/* none failed */
	vcpu->fd = ioctl(vm->fd, KVM_CREATE_VCPU, id);
	if (vcpu->fd < 0)
		return fail_errno("KVM_CREATE_VCPU");
	vcpu->run = mmap(NULL, vm->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu->fd, 0);
	if (vcpu->run == MAP_FAILED)
		return fail_errno("cannot map the vCPU's run page");
	return set_cpuid(vcpu) || set_msrs(vcpu) ? -1 : 0;
}

static void describe(struct vcpu *vcpu, const char *what)
{
	struct kvm_regs regs = { 0 };

	ioctl(vcpu->fd, KVM_GET_REGS, &regs);
	fail("vCPU %u: %s (rip %#llx)", vcpu->id, what, regs.rip);
}

/*
 * KVM could not get at the memory for an access. That is no wish for memory of the
 * other kind, and nothing is converted for it: KVM may have looked at the page just
 * before another vCPU had it converted, so that what it says of the page is stale.
 * To share it now would show the host what the guest keeps there as private.
 *
 * The access is tried again. When one fails and there was no conversion since the
 * failure before, it was not that, and would fail for ever.
 */
static int serve_memory_fault(struct vcpu *vcpu, int error)
{
	struct restrictedmem_kvm_memory_fault *fault = restrictedmem_kvm_memory_fault(vcpu->run);
	u64 conversions = vm_conversions(vcpu->vm);
	char what[160];

	if (vcpu->conversions != conversions) {
		vcpu->conversions = conversions;
		return 0;
	}
	snprintf(what, sizeof(what), "%s access to %#llx, %llu bytes, cannot be served: %s",
		 fault->flags & KVM_MEMORY_EXIT_FLAG_PRIVATE ? "private" : "shared", fault->gpa,
		 fault->size, strerror(error));
	describe(vcpu, what);
	return -1;
}

/* The guest asks for a conversion: KVM_HC_MAP_GPA_RANGE is the one we enabled. */
static int serve_hypercall(struct vcpu *vcpu)
{
	struct kvm_run *run = vcpu->run;
	u64 gpa = run->hypercall.args[0];
	u64 pages = run->hypercall.args[1];
	bool private = run->hypercall.args[2] & KVM_MAP_GPA_RANGE_ENCRYPTED;
	int ret;

	if (run->hypercall.nr != KVM_HC_MAP_GPA_RANGE) {
		run->hypercall.ret = -KVM_ENOSYS;
		return 0;
	}
	if (pages > UINT64_MAX / PAGE || !vm_is_ram(vcpu->vm, gpa, pages * PAGE)) {
		run->hypercall.ret = -KVM_EINVAL;
		return 0;
	}
	ret = vm_convert(vcpu->vm, gpa, pages * PAGE, private);
	run->hypercall.ret = ret;	/* -EAGAIN: a device holds a page, try again */
	return ret == -1 ? -1 : 0;
}

static void serve_io(struct vcpu *vcpu)
{
	struct kvm_run *run = vcpu->run;
	u8 *data = (u8 *)run + run->io.data_offset;
	u32 i;

	for (i = 0; i < run->io.count; i++, data += run->io.size)
		devices_io(vcpu->vm, run->io.direction == KVM_EXIT_IO_OUT, run->io.port, data,
			   run->io.size);
}

/* Returns -1 when the VM is to end in error; a clean end it declares itself. */
static int serve_exit(struct vcpu *vcpu)
{
	struct kvm_run *run = vcpu->run;
	char what[64];

	if (run->exit_reason < MAX_EXIT_REASON)
		vcpu->exits[run->exit_reason]++;

	switch (run->exit_reason) {
	case KVM_EXIT_IO:
		serve_io(vcpu);
		return 0;
	case KVM_EXIT_MMIO:
		if (!pci_mmio(run->mmio.phys_addr, run->mmio.data, run->mmio.len,
			      run->mmio.is_write) && !run->mmio.is_write)
			memset(run->mmio.data, 0xff, sizeof(run->mmio.data));
		return 0;
	case KVM_EXIT_HYPERCALL:
		return serve_hypercall(vcpu);
	case KVM_EXIT_INTR:
	case KVM_EXIT_IRQ_WINDOW_OPEN:
		return 0;
	case KVM_EXIT_SHUTDOWN:
		/* The triple fault of reboot=t, unless it never came so far */
		if (vcpu->vm->loader_size) {
			describe(vcpu, "triple fault in the loader");
			return -1;
		}
		/* Who never said a word did not come so far, either. */
		if (!serial_has_spoken()) {
			describe(vcpu, "triple fault before any output");
			return -1;
		}
		vm_end(vcpu->vm, END_GUEST);
		return 0;
	case KVM_EXIT_SYSTEM_EVENT:
		vm_end(vcpu->vm, END_GUEST);
		return 0;
	case KVM_EXIT_INTERNAL_ERROR:
		snprintf(what, sizeof(what), "KVM's internal error %u", run->internal.suberror);
		break;
	case KVM_EXIT_FAIL_ENTRY:
		snprintf(what, sizeof(what), "entry failed, reason %#llx",
			 run->fail_entry.hardware_entry_failure_reason);
		break;
	default:
		snprintf(what, sizeof(what), "exit reason %u", run->exit_reason);
	}
	describe(vcpu, what);
	return -1;
}

static int run_once(struct vcpu *vcpu)
{
	if (!ioctl(vcpu->fd, KVM_RUN, 0))
		return serve_exit(vcpu);
	if (errno == EINTR || errno == EAGAIN)
		return 0;
	if (vcpu->run->exit_reason == KVM_EXIT_MEMORY_FAULT) {
		vcpu->exits[KVM_EXIT_MEMORY_FAULT]++;
		return serve_memory_fault(vcpu, errno);
	}
	describe(vcpu, strerror(errno));
	return -1;
}

static void *vcpu_thread(void *arg)
{
	struct vcpu *vcpu = arg;

	while (!vm_ended(vcpu->vm))
		if (run_once(vcpu))
			vm_end(vcpu->vm, END_ERROR);
	return NULL;
}

int vcpu_start(struct vcpu *vcpu)
{
	int ret = pthread_create(&vcpu->thread, NULL, vcpu_thread, vcpu);

	return ret ? fail("cannot start a thread: %s", strerror(ret)) : 0;
}

/*
 * Makes the thread look at vm_ended(). The flag catches it on its way into
 * KVM_RUN, the signal when it is there.
 */
void vcpu_kick(struct vcpu *vcpu)
{
	vcpu->run->immediate_exit = 1;
	pthread_kill(vcpu->thread, SIGUSR1);
}
