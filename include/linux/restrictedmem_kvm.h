/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * What a patched KVM imports from restrictedmem.ko: everything about private
 * guest memory that needs none of KVM's internals. Implemented, with the
 * functions' documentation, in src/kvm_hooks.c.
 *
 * Ranges are in gfns and half-open, [start, end).
 */
#ifndef _LINUX_RESTRICTEDMEM_KVM_H
#define _LINUX_RESTRICTEDMEM_KVM_H

#include <linux/types.h>
#include <linux/restrictedmem.h>

struct restrictedmem_kvm;

/**
 * struct restrictedmem_kvm_ops - what a KVM does for us
 * @owner: KVM's module
 * @invalidate: remove every guest mapping of the gfns [start, end) of @kvm and
 *	make faults that are under way start again. May sleep; called with no
 *	lock of KVM's held.
 */
struct restrictedmem_kvm_ops {
	struct module *owner;
	void (*invalidate)(void *kvm, u64 start, u64 end);
};

/**
 * struct restrictedmem_kvm_slot - the private half of a memslot
 * @vm: the VM it belongs to
 * @binding: its range of the file; NULL once the VM was detached
 * @notifier: called for @binding
 * @list: in the VM's list of slots
 * @base_gfn: first gfn
 * @npages: number of gfns
 * @pgoff: page of the file that backs @base_gfn
 * @as_id: which of the VM's address spaces it is in
 * @aliases: the file was created for aliases
 * @in_place: all of its gfns are in the file, shared ones too
 *
 * Constant from bind to unbind, but for @binding and @list, which the VM's
 * slots_lock or its end guards.
 */
struct restrictedmem_kvm_slot {
	struct restrictedmem_kvm *vm;
	struct restrictedmem_binding *binding;
	struct restrictedmem_notifier notifier;
	struct list_head list;
	u64 base_gfn;
	u64 npages;
	u64 pgoff;
	unsigned int as_id;
	bool aliases;
	bool in_place;
};

int restrictedmem_kvm_register(const struct restrictedmem_kvm_ops *ops);
void restrictedmem_kvm_unregister(const struct restrictedmem_kvm_ops *ops);

struct restrictedmem_kvm *
restrictedmem_kvm_create(void *kvm, const struct restrictedmem_kvm_ops *ops);
void restrictedmem_kvm_detach(struct restrictedmem_kvm *vm);
void restrictedmem_kvm_destroy(struct restrictedmem_kvm *vm);

int restrictedmem_kvm_create_file(struct restrictedmem_kvm *vm, u64 size,
				  u64 flags);

struct restrictedmem_kvm_slot *
restrictedmem_kvm_bind(struct restrictedmem_kvm *vm, unsigned int fd,
		       u64 offset, u64 base_gfn, u64 npages,
		       unsigned int as_id);
void restrictedmem_kvm_commit(struct restrictedmem_kvm_slot *slot);
void restrictedmem_kvm_unbind(struct restrictedmem_kvm_slot *slot);
void restrictedmem_kvm_cancel(struct restrictedmem_kvm_slot *slot);
bool restrictedmem_kvm_has_aliases(struct restrictedmem_kvm *vm);

bool restrictedmem_kvm_is_private(struct restrictedmem_kvm *vm, u64 gfn);
int restrictedmem_kvm_convert(struct restrictedmem_kvm *vm, u64 start, u64 end,
			      u64 attributes, u64 flags);
int restrictedmem_kvm_set_attributes(struct restrictedmem_kvm *vm, u64 start,
				     u64 end, u64 attributes);
bool restrictedmem_kvm_has_attributes(struct restrictedmem_kvm *vm, u64 start,
				      u64 end, u64 attributes);
bool restrictedmem_kvm_next_shared(struct restrictedmem_kvm *vm, u64 *start,
				   u64 *end, u64 limit);
unsigned int restrictedmem_kvm_uniform_order(struct restrictedmem_kvm *vm,
					     u64 gfn, unsigned int max_order);

int restrictedmem_kvm_get_pfn(struct restrictedmem_kvm_slot *slot, u64 gfn,
			      struct restrictedmem_pfn *pfn);
int restrictedmem_kvm_read(struct restrictedmem_kvm_slot *slot, u64 gfn,
			   int offset, void *data, int len);
int restrictedmem_kvm_write(struct restrictedmem_kvm_slot *slot, u64 gfn,
			    int offset, const void *data, int len);
int restrictedmem_kvm_read_atomic(struct restrictedmem_kvm_slot *slot, u64 gfn,
				  int offset, void *data, int len);
int restrictedmem_kvm_write_atomic(struct restrictedmem_kvm_slot *slot,
				   u64 gfn, int offset, const void *data,
				   int len);
void *restrictedmem_kvm_map(struct restrictedmem_kvm_slot *slot, u64 gfn,
			    struct restrictedmem_pfn *pfn);

#endif /* _LINUX_RESTRICTEDMEM_KVM_H */
