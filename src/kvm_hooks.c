// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * The KVM glue that needs nothing of KVM's internals: which gfns of a VM are
 * private, and which part of which file is behind them.
 *
 * A VM has an owner's token, one layer of attributes, and a list of slots; a
 * slot holds a binding and so the file, and the file never holds the VM. KVM
 * hands us its own pointer only to get it back in invalidate().
 *
 * Attributes are set in this order: KVM holds off faults, the map is written, what
 * is mapped is removed, faults go on. So a fault that maps something has seen one
 * state of the map, from its first look to the moment when it is done.
 *
 * A slot whose file was created with RESTRICTEDMEM_CREATE_IN_PLACE has all of its
 * gfns in the file, private or shared: the attributes of such a gfn decide what
 * windows show, and are of no importance to the guest.
 *
 * Ranges are gfns, [start, end).
 */
#include <linux/export.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/list.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/slab.h>

#include <linux/restrictedmem_kvm.h>

#include "restrictedmem_attrs.h"
#include "restrictedmem_internal.h"

/**
 * struct restrictedmem_kvm - a VM
 * @kvm: what KVM calls it
 * @ops: the KVM that it lives in
 * @owner: token for the files that it binds; constant
 * @attributes: gfn to KVM_MEMORY_ATTRIBUTE_*; written under KVM's slots_lock
 * @slots: list of struct restrictedmem_kvm_slot; guarded by KVM's slots_lock,
 *	or by being the VM's last user
 * @aliasing: there was a slot of a file with aliases, ever; written under KVM's
 *	slots_lock
 * @in_place: the same of a file in place
 */
struct restrictedmem_kvm {
	void *kvm;
	const struct restrictedmem_kvm_ops *ops;
	u64 owner;
	struct rm_attrs attributes;
	struct list_head slots;
	bool aliasing;
	bool in_place;
};

/* KVM_MEMORY_ATTRIBUTE_PRIVATE */
#define RM_KVM_PRIVATE		BIT(3)

static const struct restrictedmem_kvm_ops *rm_kvm_ops;

/**
 * restrictedmem_kvm_register() - a patched KVM is there
 * @ops: its functions
 *
 * Context: KVM's module load.
 * Return: 0, or -EBUSY when another one is.
 */
int restrictedmem_kvm_register(const struct restrictedmem_kvm_ops *ops)
{
	return cmpxchg(&rm_kvm_ops, NULL, ops) ? -EBUSY : 0;
}
EXPORT_SYMBOL_GPL(restrictedmem_kvm_register);

/**
 * restrictedmem_kvm_unregister() - it goes away
 * @ops: as registered
 *
 * Context: KVM's module unload; no VM is left.
 */
void restrictedmem_kvm_unregister(const struct restrictedmem_kvm_ops *ops)
{
	cmpxchg(&rm_kvm_ops, ops, NULL);
}
EXPORT_SYMBOL_GPL(restrictedmem_kvm_unregister);

/**
 * rm_kvm_is_loaded() - is there a KVM that takes our files?
 *
 * Context: Any.
 * Return: true if so.
 */
bool rm_kvm_is_loaded(void)
{
	return READ_ONCE(rm_kvm_ops);
}

/**
 * restrictedmem_kvm_create() - a VM begins
 * @kvm: KVM's name for it
 * @ops: KVM's functions
 *
 * Context: Process context, may sleep.
 * Return: the VM, or NULL without memory.
 */
struct restrictedmem_kvm *
restrictedmem_kvm_create(void *kvm, const struct restrictedmem_kvm_ops *ops)
{
	struct restrictedmem_kvm *vm;

	vm = kzalloc(sizeof(*vm), GFP_KERNEL_ACCOUNT);
	if (!vm)
		return NULL;
	vm->kvm = kvm;
	vm->ops = ops;
	vm->owner = restrictedmem_new_owner();
	rm_attrs_init(&vm->attributes);
	INIT_LIST_HEAD(&vm->slots);
	return vm;
}
EXPORT_SYMBOL_GPL(restrictedmem_kvm_create);

/**
 * restrictedmem_kvm_detach() - no guest will run again
 * @vm: the VM
 *
 * All its bindings go, so that no invalidation finds a VM that is being taken
 * apart. The slots stay until KVM unbinds them, and serve nothing.
 *
 * Context: Process context, may sleep. KVM has removed all guest mappings, and
 * the caller is the VM's last user.
 */
void restrictedmem_kvm_detach(struct restrictedmem_kvm *vm)
{
	struct restrictedmem_kvm_slot *slot;

	list_for_each_entry(slot, &vm->slots, list) {
		struct restrictedmem_binding *binding = slot->binding;

		slot->binding = NULL;
		restrictedmem_unbind(binding);
	}
}
EXPORT_SYMBOL_GPL(restrictedmem_kvm_detach);

/**
 * restrictedmem_kvm_destroy() - a VM ends
 * @vm: the VM, without slots; may be NULL
 *
 * Context: Process context, may sleep.
 */
void restrictedmem_kvm_destroy(struct restrictedmem_kvm *vm)
{
	if (!vm)
		return;
	WARN_ON_ONCE(!list_empty(&vm->slots));
	rm_attrs_destroy(&vm->attributes);
	kfree(vm);
}
EXPORT_SYMBOL_GPL(restrictedmem_kvm_destroy);

/**
 * restrictedmem_kvm_create_file() - KVM_CREATE_GUEST_MEMFD
 * @vm: who owns it from birth
 * @size: bytes
 * @flags: none are known
 *
 * Context: Process context, may sleep.
 * Return: an fd; -EINVAL for any flag and for a size that is 0, negative or not
 * whole pages; -EMFILE, -ENFILE, -ENOMEM.
 */
int restrictedmem_kvm_create_file(struct restrictedmem_kvm *vm, u64 size,
				  u64 flags)
{
	struct rm_store_config config;

	if (flags || !size || !PAGE_ALIGNED(size) || size > MAX_LFS_FILESIZE)
		return -EINVAL;
	rm_default_config(&config);
	return rm_file_create_fd(&config, size, 0, vm->owner);
}
EXPORT_SYMBOL_GPL(restrictedmem_kvm_create_file);

static pgoff_t rm_kvm_index(struct restrictedmem_kvm_slot *slot, u64 gfn)
{
	return gfn - slot->base_gfn + slot->pgoff;
}

/* The file's pages [start, end) are about to go. */
static void rm_kvm_invalidate_start(struct restrictedmem_notifier *notifier,
				    pgoff_t start, pgoff_t end)
{
	struct restrictedmem_kvm_slot *slot =
		container_of(notifier, struct restrictedmem_kvm_slot, notifier);
	u64 base = slot->base_gfn - slot->pgoff;

	slot->vm->ops->invalidate(slot->vm->kvm, base + start, base + end);
}

/*
 * There is nothing to do at the end: a fault that started in between has waited
 * in get_pfn. The binding needs no module reference: a VM holds KVM.
 */
static const struct restrictedmem_notifier_ops rm_kvm_notifier_ops = {
	.owner = THIS_MODULE,
	.invalidate_start = rm_kvm_invalidate_start,
};

/**
 * restrictedmem_kvm_bind() - the private half of a new memslot
 * @vm: the VM
 * @fd: a restrictedmem file of nobody's or of this VM
 * @offset: byte of the file that backs the first gfn
 * @base_gfn: first gfn
 * @npages: how many; neither it nor @base_gfn + @npages overflows
 * @as_id: which of the VM's address spaces it is in
 *
 * restrictedmem_kvm_commit() or restrictedmem_kvm_cancel() is due.
 *
 * Context: Process context, may sleep. KVM's slots_lock is held.
 * Return: the slot; -EBADF not an fd; -EINVAL not a restrictedmem file, an
 * offset that is not on a page or a range beyond the end, a file of another VM,
 * a range of the file that is bound already, or a file without aliases in an
 * address space other than the first; -EBUSY another view of the memory has
 * bindings; -EINTR; -ENOMEM.
 */
struct restrictedmem_kvm_slot *
restrictedmem_kvm_bind(struct restrictedmem_kvm *vm, unsigned int fd,
		       u64 offset, u64 base_gfn, u64 npages,
		       unsigned int as_id)
{
	struct restrictedmem_kvm_slot *slot;
	struct file *file;
	bool aliases;
	int r = -EINVAL;

	if (!PAGE_ALIGNED(offset) ||
	    offset + (npages << PAGE_SHIFT) < offset)
		return ERR_PTR(-EINVAL);
	file = fget(fd);
	if (!file)
		return ERR_PTR(-EBADF);
	aliases = rm_file_has_aliases(file);
	if (as_id && !aliases)
		goto out_fput;

	slot = kzalloc(sizeof(*slot), GFP_KERNEL_ACCOUNT);
	if (!slot) {
		r = -ENOMEM;
		goto out_fput;
	}
	slot->vm = vm;
	slot->base_gfn = base_gfn;
	slot->npages = npages;
	slot->pgoff = offset >> PAGE_SHIFT;
	slot->notifier.ops = &rm_kvm_notifier_ops;
	slot->aliases = aliases;
	slot->as_id = as_id;
	slot->in_place = rm_file_is_in_place(file);
	slot->binding = rm_bind(file, slot->pgoff, slot->pgoff + npages,
				&slot->notifier, vm->owner);
	if (IS_ERR(slot->binding)) {
		r = PTR_ERR(slot->binding);
		/* mainline's word for somebody else's, and for an overlap */
		if (r == -EPERM || r == -EEXIST)
			r = -EINVAL;
		goto out_free;
	}
	list_add(&slot->list, &vm->slots);
	fput(file);
	return slot;

out_free:
	kfree(slot);
out_fput:
	fput(file);
	return ERR_PTR(r);
}
EXPORT_SYMBOL_GPL(restrictedmem_kvm_bind);

/**
 * restrictedmem_kvm_commit() - the memslot is there
 * @slot: from restrictedmem_kvm_bind(); may be NULL
 *
 * Only now does it count for what it makes possible: until it is sure to be there,
 * nobody may rely on it.
 *
 * Context: Process context. KVM's slots_lock is held.
 */
void restrictedmem_kvm_commit(struct restrictedmem_kvm_slot *slot)
{
	struct restrictedmem_kvm *vm;

	if (!slot)
		return;
	vm = slot->vm;
	if (slot->aliases)
		WRITE_ONCE(vm->aliasing, true);
	if (slot->in_place)
		vm->in_place = true;
}
EXPORT_SYMBOL_GPL(restrictedmem_kvm_commit);

/**
 * restrictedmem_kvm_unbind() - the memslot is gone
 * @slot: from restrictedmem_kvm_bind(); gone on return; may be NULL
 *
 * Context: Process context, may sleep. KVM's slots_lock is held, or the caller
 * is the VM's last user. KVM has removed the guest mappings, and no reader of
 * the old memslot is left.
 */
void restrictedmem_kvm_unbind(struct restrictedmem_kvm_slot *slot)
{
	if (!slot)
		return;
	list_del(&slot->list);
	if (slot->binding)
		restrictedmem_unbind(slot->binding);
	kfree(slot);
}
EXPORT_SYMBOL_GPL(restrictedmem_kvm_unbind);

/**
 * restrictedmem_kvm_cancel() - the memslot was not created after all
 * @slot: from restrictedmem_kvm_bind(), never seen by a guest; gone on return;
 *	may be NULL
 *
 * What the bind has changed, like the file's owner, is as it was.
 *
 * Context: Process context, may sleep. KVM's slots_lock is held.
 */
void restrictedmem_kvm_cancel(struct restrictedmem_kvm_slot *slot)
{
	if (!slot)
		return;
	list_del(&slot->list);
	restrictedmem_cancel(slot->binding);
	kfree(slot);
}
EXPORT_SYMBOL_GPL(restrictedmem_kvm_cancel);

/**
 * restrictedmem_kvm_has_aliases() - may there be more than one address space?
 * @vm: the VM
 *
 * In mainline a VM with private memory has one address space, because no page
 * may be bound twice. Here there is a second one (SMM) from the first slot on
 * whose file was created with RESTRICTEDMEM_CREATE_ALIASES.
 *
 * Context: Any.
 * Return: true from then on.
 */
bool restrictedmem_kvm_has_aliases(struct restrictedmem_kvm *vm)
{
	return READ_ONCE(vm->aliasing);
}
EXPORT_SYMBOL_GPL(restrictedmem_kvm_has_aliases);

/**
 * restrictedmem_kvm_is_private() - which memory a gfn's accesses go to
 * @vm: the VM
 * @gfn: the gfn
 *
 * Context: Any but NMI.
 * Return: true if its attributes have PRIVATE.
 */
bool restrictedmem_kvm_is_private(struct restrictedmem_kvm *vm, u64 gfn)
{
	return rm_attrs_get(&vm->attributes, gfn) & RM_KVM_PRIVATE;
}
EXPORT_SYMBOL_GPL(restrictedmem_kvm_is_private);

/* Which part of [start, end) a slot has; false if none. */
static bool rm_kvm_overlap(struct restrictedmem_kvm_slot *slot, u64 *start,
			   u64 *end)
{
	*start = max(*start, slot->base_gfn);
	*end = min(*end, slot->base_gfn + slot->npages);
	return *start < *end;
}

/*
 * Is all of a range in slots of files in place, as guests see it who do not run in
 * the second address space?
 */
static bool rm_kvm_is_in_place(struct restrictedmem_kvm *vm, u64 start, u64 end)
{
	struct restrictedmem_kvm_slot *slot;
	u64 nr = 0;

	/* Slots of one address space do not overlap. */
	list_for_each_entry(slot, &vm->slots, list) {
		u64 from = start, to = end;

		if (slot->in_place && !slot->as_id &&
		    rm_kvm_overlap(slot, &from, &to))
			nr += to - from;
	}
	return nr == end - start;
}

static int rm_kvm_convert_slot(struct restrictedmem_kvm_slot *slot, u64 start,
			       u64 end, u64 attributes, bool zero)
{
	pgoff_t done;

	return rm_convert(rm_binding_inode(slot->binding),
			  rm_kvm_index(slot, start),
			  rm_kvm_index(slot, end), attributes & RM_KVM_PRIVATE,
			  zero, &done);
}

/* Kept apart from the many calls for VMs that have nothing in place. */
static noinline int rm_kvm_convert(struct restrictedmem_kvm *vm, u64 start,
				   u64 end, u64 attributes, u64 flags)
{
	struct restrictedmem_kvm_slot *slot;
	int r = 0;

	if (flags && ((flags != RESTRICTEDMEM_CONVERT_ZERO &&
		       flags != RESTRICTEDMEM_CONVERT_PRESERVE) ||
		      !rm_kvm_is_in_place(vm, start, end)))
		return -EINVAL;
	list_for_each_entry(slot, &vm->slots, list) {
		u64 from = start, to = end;

		if (slot->in_place && rm_kvm_overlap(slot, &from, &to))
			r = rm_kvm_convert_slot(slot, from, to, attributes,
						flags != RESTRICTEDMEM_CONVERT_PRESERVE);
		if (r)
			break;
	}
	return r;
}

/**
 * restrictedmem_kvm_convert() - convert what is in place of a range
 * @vm: the VM
 * @start: first gfn
 * @end: the gfn after the last
 * @attributes: KVM_MEMORY_ATTRIBUTE_*
 * @flags: RESTRICTEDMEM_CONVERT_*, 0 for the default; other than 0 only for a
 *	range that is all in slots of files in place
 *
 * To be called before the attributes are changed, also where they are as asked
 * for: the file can have been converted by itself.
 *
 * Context: Process context, may sleep. KVM's slots_lock is held.
 * Return: 0; -EINVAL flags; the errors of rm_convert(), with some of the range
 * converted: to repeat it goes on.
 */
int restrictedmem_kvm_convert(struct restrictedmem_kvm *vm, u64 start, u64 end,
			      u64 attributes, u64 flags)
{
	if (vm->in_place)
		return rm_kvm_convert(vm, start, end, attributes, flags);
	return flags ? -EINVAL : 0;
}
EXPORT_SYMBOL_GPL(restrictedmem_kvm_convert);

/**
 * restrictedmem_kvm_set_attributes() - change a range's attributes
 * @vm: the VM
 * @start: first gfn
 * @end: the gfn after the last
 * @attributes: KVM_MEMORY_ATTRIBUTE_*, replacing what was there
 *
 * Context: Process context, may sleep. KVM's slots_lock is held. KVM must
 * invalidate the range afterwards, but for slots of files in place.
 * Return: 0, or -ENOMEM, also for too many ranges, with nothing changed.
 */
int restrictedmem_kvm_set_attributes(struct restrictedmem_kvm *vm, u64 start,
				     u64 end, u64 attributes)
{
	return rm_attrs_set(&vm->attributes, start, end, attributes);
}
EXPORT_SYMBOL_GPL(restrictedmem_kvm_set_attributes);

/**
 * restrictedmem_kvm_has_attributes() - is a range all alike?
 * @vm: the VM
 * @start: first gfn
 * @end: the gfn after the last
 * @attributes: KVM_MEMORY_ATTRIBUTE_*
 *
 * Context: Any but NMI.
 * Return: true if every gfn of the range has exactly @attributes.
 */
bool restrictedmem_kvm_has_attributes(struct restrictedmem_kvm *vm, u64 start,
				      u64 end, u64 attributes)
{
	return rm_attrs_is_uniform(&vm->attributes, start, end, ~0UL,
				   attributes);
}
EXPORT_SYMBOL_GPL(restrictedmem_kvm_has_attributes);

/**
 * restrictedmem_kvm_next_shared() - visit the shared parts of a range
 * @vm: the VM
 * @start: where to look; on return the first gfn of a shared run
 * @end: on return the gfn after its last
 * @limit: the gfn after the range's last
 *
 * Context: Any but NMI.
 * Return: false when there is no shared gfn in [@start, @limit).
 */
bool restrictedmem_kvm_next_shared(struct restrictedmem_kvm *vm, u64 *start,
				   u64 *end, u64 limit)
{
	struct rm_attrs_run run = { .end = *start };

	while (rm_attrs_next(&vm->attributes, &run, limit)) {
		if (run.value & RM_KVM_PRIVATE)
			continue;
		*start = run.start;
		*end = run.end;
		return true;
	}
	return false;
}
EXPORT_SYMBOL_GPL(restrictedmem_kvm_next_shared);

/**
 * restrictedmem_kvm_uniform_order() - how far a gfn's neighbours are alike
 * @vm: the VM
 * @gfn: the gfn
 * @max_order: do not look further
 *
 * Context: Any but NMI.
 * Return: the largest order, at most @max_order, so that the aligned block of
 * gfns around @gfn has one value of attributes.
 */
unsigned int restrictedmem_kvm_uniform_order(struct restrictedmem_kvm *vm,
					     u64 gfn, unsigned int max_order)
{
	return rm_attrs_uniform_order(&vm->attributes, gfn, max_order);
}
EXPORT_SYMBOL_GPL(restrictedmem_kvm_uniform_order);

static loff_t rm_kvm_pos(struct restrictedmem_kvm_slot *slot, u64 gfn,
			 int offset)
{
	return ((loff_t)rm_kvm_index(slot, gfn) << PAGE_SHIFT) + offset;
}

/**
 * restrictedmem_kvm_get_pfn() - the page behind a private gfn
 * @slot: the slot that has it
 * @gfn: the gfn
 * @pfn: where it goes; restrictedmem_put_pfn() is due
 *
 * The order is at most what the alignment of gfn and file against each other
 * allows; the gfns around may still have other attributes.
 *
 * Context: Process context, may sleep.
 * Return: As restrictedmem_get_pfn().
 */
int restrictedmem_kvm_get_pfn(struct restrictedmem_kvm_slot *slot, u64 gfn,
			      struct restrictedmem_pfn *pfn)
{
	u64 skew = slot->base_gfn ^ slot->pgoff;
	int r;

	if (!slot->binding)
		return -EINVAL;
	r = restrictedmem_get_pfn(slot->binding, rm_kvm_index(slot, gfn), pfn);
	if (!r && skew)
		pfn->order = min_t(unsigned int, pfn->order, __ffs64(skew));
	return r;
}
EXPORT_SYMBOL_GPL(restrictedmem_kvm_get_pfn);

/**
 * restrictedmem_kvm_read() - copy out of a private gfn
 * @slot: the slot that has it
 * @gfn: the gfn
 * @offset: byte within the page where to begin
 * @data: the buffer
 * @len: bytes; @offset + @len is at most a page
 *
 * Context: Process context, may sleep.
 * Return: As restrictedmem_read().
 */
int restrictedmem_kvm_read(struct restrictedmem_kvm_slot *slot, u64 gfn,
			   int offset, void *data, int len)
{
	if (!slot->binding)
		return -EINVAL;
	return restrictedmem_read(slot->binding, rm_kvm_pos(slot, gfn, offset),
				  data, len);
}
EXPORT_SYMBOL_GPL(restrictedmem_kvm_read);

/**
 * restrictedmem_kvm_write() - copy into a private gfn
 * @slot: the slot that has it
 * @gfn: the gfn
 * @offset: byte within the page where to begin
 * @data: the buffer
 * @len: bytes; @offset + @len is at most a page
 *
 * Context: Process context, may sleep.
 * Return: As restrictedmem_write().
 */
int restrictedmem_kvm_write(struct restrictedmem_kvm_slot *slot, u64 gfn,
			    int offset, const void *data, int len)
{
	if (!slot->binding)
		return -EINVAL;
	return restrictedmem_write(slot->binding, rm_kvm_pos(slot, gfn, offset),
				   data, len);
}
EXPORT_SYMBOL_GPL(restrictedmem_kvm_write);

/**
 * restrictedmem_kvm_read_atomic() - copy out of a resident private gfn
 * @slot: the slot that has it
 * @gfn: the gfn
 * @offset: byte within the page where to begin
 * @data: the buffer
 * @len: bytes; @offset + @len is at most a page
 *
 * Context: Any but NMI; does not sleep.
 * Return: As restrictedmem_read_atomic().
 */
int restrictedmem_kvm_read_atomic(struct restrictedmem_kvm_slot *slot, u64 gfn,
				  int offset, void *data, int len)
{
	if (!slot->binding)
		return -EINVAL;
	return restrictedmem_read_atomic(slot->binding,
					 rm_kvm_pos(slot, gfn, offset), data,
					 len);
}
EXPORT_SYMBOL_GPL(restrictedmem_kvm_read_atomic);

/**
 * restrictedmem_kvm_write_atomic() - copy into a resident private gfn
 * @slot: the slot that has it
 * @gfn: the gfn
 * @offset: byte within the page where to begin
 * @data: the buffer
 * @len: bytes; @offset + @len is at most a page
 *
 * Context: Any but NMI; does not sleep.
 * Return: As restrictedmem_write_atomic().
 */
int restrictedmem_kvm_write_atomic(struct restrictedmem_kvm_slot *slot,
				   u64 gfn, int offset, const void *data,
				   int len)
{
	if (!slot->binding)
		return -EINVAL;
	return restrictedmem_write_atomic(slot->binding,
					  rm_kvm_pos(slot, gfn, offset), data,
					  len);
}
EXPORT_SYMBOL_GPL(restrictedmem_kvm_write_atomic);

/**
 * restrictedmem_kvm_map() - the address of a private gfn's page
 * @slot: the slot that has it
 * @gfn: the gfn
 * @pfn: where the page goes
 *
 * Context: As restrictedmem_map_page(); restrictedmem_unmap_page() is due.
 * Return: As restrictedmem_map_page().
 */
void *restrictedmem_kvm_map(struct restrictedmem_kvm_slot *slot, u64 gfn,
			    struct restrictedmem_pfn *pfn)
{
	if (!slot->binding)
		return ERR_PTR(-EINVAL);
	return restrictedmem_map_page(slot->binding, rm_kvm_index(slot, gfn),
				      pfn);
}
EXPORT_SYMBOL_GPL(restrictedmem_kvm_map);
