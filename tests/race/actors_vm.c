// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * What a VMM asks of KVM: prefaults, attributes, slots that go and come, and
 * VMs that end.
 */
#include "race.h"

static void prefault_step(struct player *p)
{
	struct kvm_pre_fault_memory range = {
		.gpa = DATA + pick_page(p, 0, GUEST_PAGES) * PAGE,
		.size = (1 + roll(p) % 64) * PAGE,
	};
	unsigned int tolerates = p->world->tolerates;

	while (range.size && ioctl(p->vcpu.fd, KVM_PRE_FAULT_MEMORY, &range)) {
		if (errno == EINTR || errno == EAGAIN)
			break;
		/* Behind the last slot, or where one was */
		if ((errno == ENOENT || errno == EFAULT) &&
		    (range.gpa >= DATA + 2 * SIZE || tolerates & TAKES_SLOTS))
			break;
		if (errno == EHWPOISON && tolerates & MAKES_ERRORS)
			break;
		fail(p->world, "KVM_PRE_FAULT_MEMORY at %#llx: %m", range.gpa);
		break;
	}
}

const struct actor actor_prefault = {
	.name = "prefault",
	.has_vcpu = true,
	.step = prefault_step,
};

static void slots_step(struct player *p)
{
	struct world *w = p->world;
	int slot = roll(p) % 2 ? SPLIT_SLOT : IN_PLACE_SLOT;

	/* Two of them have a slot each. */
	if (w->players[0].actor == w->players[1].actor)
		slot = p->nr ? SPLIT_SLOT : IN_PLACE_SLOT;
	if (vm_region(&w->vm, slot, slot == SPLIT_SLOT ? DATA : DATA + SIZE, 0, NULL)) {
		fail(w, "to delete slot %d: %m", slot);
		return;
	}
	if (roll(p) % 4 == 0)
		sleep_ms(1);
	world_add_slot(w, &w->vm, slot, w->fds);
}

const struct actor actor_slots = {
	.name = "slots",
	.does = TAKES_SLOTS,
	.step = slots_step,
};

static void close_views(const int *views)
{
	close(views[0]);
	close(views[1]);
}

/* A second VM on the same memory, by views of its own, and the same user half. */
static void vm_end_step(struct player *p)
{
	struct world *w = p->world;
	int views[2] = { link_view(w->fds[0]), link_view(w->fds[1]) };
	struct player guest = { .actor = &actor_fault, .world = w };
	bool views_first = roll(p) % 2;
	struct vm vm;

	CHECK(views[0] >= 0 && views[1] >= 0);
	vm_create(&vm, KVM_X86_SW_PROTECTED_VM);
	vcpu_create(&vm, &guest.vcpu, 0);
	world_add_slot(w, &vm, SPLIT_SLOT, views);
	world_add_slot(w, &vm, IN_PLACE_SLOT, views);
	if (roll(p) % 2)
		CHECK(!vm_set_private(&vm, DATA, SIZE, true));
	guest.seed = roll(p);
	actor_fault.begin(&guest);
	for (int i = 0; i < 8; i++)
		vcpu_step(&guest);
	if (views_first)
		close_views(views);
	vcpu_destroy(&guest.vcpu);
	vm_destroy(&vm);
	if (!views_first)
		close_views(views);
}

const struct actor actor_vm_end = {
	.name = "vm-end",
	.step = vm_end_step,
};
