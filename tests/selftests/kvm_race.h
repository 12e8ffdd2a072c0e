/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * A conversion that comes in between: a thread makes it as soon as somebody waits
 * at a place of delay.h.
 */
#ifndef KVM_RACE_H
#define KVM_RACE_H

#include <pthread.h>

#include "delay.h"
#include "kvm_util.h"

struct conversion {
	struct vm *vm;
	uint64_t gpa;
	void *hva;		/* of the shared half, where it matters */
	uint64_t size;
	bool private;
	int delay;
	int place;
	bool go;		/* nobody is to wait any more, once it is over */
	int result;
	uint64_t waits;
	pthread_t thread;
};

static inline void *conversion_thread(void *arg)
{
	struct conversion *c = arg;

	while (!delay_waits(c->delay, c->place))
		;
	c->result = vm_set_private(c->vm, c->gpa, c->size, c->private);
	c->waits = delay_waits(c->delay, c->place);
	if (c->go)
		CHECK(!ioctl(c->delay, RMD_GO));
	return NULL;
}

/* @c: all but the thread, the result and how often the place had waited by then */
static inline void conversion_start(struct conversion *c)
{
	c->result = -1;
	CHECK(!pthread_create(&c->thread, NULL, conversion_thread, c));
}

static inline int conversion_end(struct conversion *c)
{
	CHECK(!pthread_join(c->thread, NULL));
	return c->result;
}

#endif /* KVM_RACE_H */
