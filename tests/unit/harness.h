/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * What the kernel's harness for its maple tree lacks and src/ needs. Included
 * before everything else.
 */
#ifndef RM_UNIT_HARNESS_H
#define RM_UNIT_HARNESS_H

#define rcu_access_pointer(p)	READ_ONCE(p)
#define cond_resched()		((void)0)

#endif /* RM_UNIT_HARNESS_H */
