/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * The connection to a process that is a device's backend (vhost_user.c). Numbers
 * and structs are those of the vhost-user protocol.
 */
#ifndef RMVM_VHOST_USER_H
#define RMVM_VHOST_USER_H

#include "rmvm.h"

#define VHOST_USER_GET_FEATURES			1
#define VHOST_USER_SET_FEATURES			2
#define VHOST_USER_SET_OWNER			3
#define VHOST_USER_SET_MEM_TABLE		5
#define VHOST_USER_SET_VRING_NUM		8
#define VHOST_USER_SET_VRING_ADDR		9
#define VHOST_USER_SET_VRING_BASE		10
#define VHOST_USER_GET_VRING_BASE		11
#define VHOST_USER_SET_VRING_KICK		12
#define VHOST_USER_SET_VRING_CALL		13
#define VHOST_USER_GET_PROTOCOL_FEATURES	15
#define VHOST_USER_SET_PROTOCOL_FEATURES	16
#define VHOST_USER_SET_VRING_ENABLE		18
#define VHOST_USER_GET_CONFIG			24
#define VHOST_USER_GET_MAX_MEM_SLOTS		36
#define VHOST_USER_ADD_MEM_REG			37
#define VHOST_USER_REM_MEM_REG			38
#define VHOST_USER_MAX				39

#define VHOST_USER_F_PROTOCOL_FEATURES		30

#define VHOST_USER_PROTOCOL_F_REPLY_ACK		3
#define VHOST_USER_PROTOCOL_F_CONFIG		9
#define VHOST_USER_PROTOCOL_F_MEM_SLOTS		15

#define VHOST_USER_TABLE_MAX			8	/* regions in a SET_MEM_TABLE */

struct vhost_user_region {
	u64 gpa;
	u64 size;
	u64 user;		/* the same place, as SET_VRING_ADDR names it */
	u64 offset;		/* in the descriptor */
};

struct vhost_user_one_region {
	u64 padding;
	struct vhost_user_region region;
};

struct vhost_user_table {
	u32 nr;
	u32 padding;
	struct vhost_user_region regions[VHOST_USER_TABLE_MAX];
};

/* Guarded by vm->mem_lock, once the guest runs */
struct vhost_user {
	const char *path;
	unsigned int timeout;	/* seconds that an operation may take */
	double until;		/* the end of what it has of that for this operation */
	int sock;
	bool lost;		/* no message is sent any more */
	bool acks;		/* the backend confirms what it has done */
	bool over;		/* the VM has ended; guarded by nothing, and stays */
};

int vhost_user_connect(struct vhost_user *vu);
void vhost_user_begin(struct vhost_user *vu, double seconds);
int vhost_user_set(struct vhost_user *vu, u32 request, const void *payload, u32 size,
		   const int *fds, unsigned int nr_fds);
int vhost_user_get(struct vhost_user *vu, u32 request, void *payload, u32 size, u32 reply_size);
void vhost_user_wait_lost(struct vhost_user *vu);
void vhost_user_end(struct vhost_user *vu);

#endif /* RMVM_VHOST_USER_H */
