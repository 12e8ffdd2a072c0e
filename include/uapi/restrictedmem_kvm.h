/* SPDX-License-Identifier: GPL-2.0-only WITH Linux-syscall-note */
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * The part of mainline's KVM ABI for private memory that a KVM patched by this
 * project serves, for programs that are built against an older <linux/kvm.h>.
 * Each name is defined only where the system's header lacks it; where the
 * system's header has them all, this one adds nothing. Include it after
 * <linux/kvm.h>, which it includes itself.
 *
 * Specification: Documentation/virt/kvm/api.rst of Linux 6.12.
 */
#ifndef _UAPI_RESTRICTEDMEM_KVM_H
#define _UAPI_RESTRICTEDMEM_KVM_H

#include <linux/kvm.h>

#ifndef KVM_CAP_USER_MEMORY2
#define KVM_CAP_USER_MEMORY2		231
#endif
#ifndef KVM_CAP_MEMORY_FAULT_INFO
#define KVM_CAP_MEMORY_FAULT_INFO	232
#endif
#ifndef KVM_CAP_MEMORY_ATTRIBUTES
#define KVM_CAP_MEMORY_ATTRIBUTES	233
#endif
#ifndef KVM_CAP_GUEST_MEMFD
#define KVM_CAP_GUEST_MEMFD		234
#endif
#ifndef KVM_CAP_VM_TYPES
#define KVM_CAP_VM_TYPES		235
#endif
#ifndef KVM_CAP_PRE_FAULT_MEMORY
#define KVM_CAP_PRE_FAULT_MEMORY	236
#endif
#ifndef KVM_CAP_GUEST_MEMFD_FLAGS
#define KVM_CAP_GUEST_MEMFD_FLAGS	244
#endif

/* Types for KVM_CREATE_VM */
#ifndef KVM_X86_DEFAULT_VM
#define KVM_X86_DEFAULT_VM		0
#endif
#ifndef KVM_X86_SW_PROTECTED_VM
#define KVM_X86_SW_PROTECTED_VM		1
#endif

/* Slots with a private half */
#ifndef KVM_SET_USER_MEMORY_REGION2
#define KVM_MEM_GUEST_MEMFD		(1UL << 2)

struct kvm_userspace_memory_region2 {
	__u32 slot;
	__u32 flags;
	__u64 guest_phys_addr;
	__u64 memory_size;
	__u64 userspace_addr;
	__u64 guest_memfd_offset;
	__u32 guest_memfd;
	__u32 pad1;
	__u64 pad2[14];
};

#define KVM_SET_USER_MEMORY_REGION2 \
	_IOW(KVMIO, 0x49, struct kvm_userspace_memory_region2)
#endif

/* Which gfns are private */
#ifndef KVM_SET_MEMORY_ATTRIBUTES
#define KVM_MEMORY_ATTRIBUTE_PRIVATE	(1ULL << 3)

struct kvm_memory_attributes {
	__u64 address;
	__u64 size;
	__u64 attributes;
	__u64 flags;
};

#define KVM_SET_MEMORY_ATTRIBUTES \
	_IOW(KVMIO, 0xd2, struct kvm_memory_attributes)
#endif

/* A file owned by the VM from birth */
#ifndef KVM_CREATE_GUEST_MEMFD
struct kvm_create_guest_memfd {
	__u64 size;
	__u64 flags;
	__u64 reserved[6];
};

#define KVM_CREATE_GUEST_MEMFD \
	_IOWR(KVMIO, 0xd4, struct kvm_create_guest_memfd)
#endif

/* Populate the second-level page tables before the guest runs */
#ifndef KVM_PRE_FAULT_MEMORY
struct kvm_pre_fault_memory {
	__u64 gpa;
	__u64 size;
	__u64 flags;
	__u64 padding[5];
};

#define KVM_PRE_FAULT_MEMORY \
	_IOWR(KVMIO, 0xd5, struct kvm_pre_fault_memory)
#endif

/*
 * KVM_EXIT_MEMORY_FAULT: KVM_RUN fails with EFAULT or EHWPOISON and the run
 * page says which access could not be served. A struct kvm_run of an older
 * header has no member for it; the bytes are where the union begins.
 */
#ifndef KVM_EXIT_MEMORY_FAULT
#define KVM_EXIT_MEMORY_FAULT		39
#define KVM_MEMORY_EXIT_FLAG_PRIVATE	(1ULL << 3)
#endif

struct restrictedmem_kvm_memory_fault {
	__u64 flags;
	__u64 gpa;
	__u64 size;
};

/**
 * restrictedmem_kvm_memory_fault() - where a run page tells about a fault
 * @run: a vCPU's run page, after KVM_RUN failed with exit_reason
 *	KVM_EXIT_MEMORY_FAULT
 *
 * Return: the flags, the guest physical address and the size in bytes of the
 * access that could not be served.
 */
static inline struct restrictedmem_kvm_memory_fault *
restrictedmem_kvm_memory_fault(struct kvm_run *run)
{
	return (struct restrictedmem_kvm_memory_fault *)(void *)&run->hw;
}

#endif /* _UAPI_RESTRICTEDMEM_KVM_H */
