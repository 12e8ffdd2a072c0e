// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * Messages of the vhost-user protocol, as the front end. The backend is trusted
 * with nothing: however many messages an operation takes, its waits have one end
 * (vhost_user_begin()), and after the first answer that is late, wrong or missing
 * the connection is given up, with a message, and never used again. Descriptors that
 * a backend sends are not taken.
 */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "vhost_user.h"

#define VERSION		1
#define VERSION_MASK	3
#define FLAG_REPLY	BIT(2)
#define FLAG_NEED_REPLY	BIT(3)

struct header {
	u32 request;
	u32 flags;
	u32 size;		/* of what follows, in bytes */
};

static const char *const names[VHOST_USER_MAX] = {
	[VHOST_USER_GET_FEATURES] = "GET_FEATURES",
	[VHOST_USER_SET_FEATURES] = "SET_FEATURES",
	[VHOST_USER_SET_OWNER] = "SET_OWNER",
	[VHOST_USER_SET_MEM_TABLE] = "SET_MEM_TABLE",
	[VHOST_USER_SET_VRING_NUM] = "SET_VRING_NUM",
	[VHOST_USER_SET_VRING_ADDR] = "SET_VRING_ADDR",
	[VHOST_USER_SET_VRING_BASE] = "SET_VRING_BASE",
	[VHOST_USER_GET_VRING_BASE] = "GET_VRING_BASE",
	[VHOST_USER_SET_VRING_KICK] = "SET_VRING_KICK",
	[VHOST_USER_SET_VRING_CALL] = "SET_VRING_CALL",
	[VHOST_USER_GET_PROTOCOL_FEATURES] = "GET_PROTOCOL_FEATURES",
	[VHOST_USER_SET_PROTOCOL_FEATURES] = "SET_PROTOCOL_FEATURES",
	[VHOST_USER_SET_VRING_ENABLE] = "SET_VRING_ENABLE",
	[VHOST_USER_GET_CONFIG] = "GET_CONFIG",
	[VHOST_USER_GET_MAX_MEM_SLOTS] = "GET_MAX_MEM_SLOTS",
	[VHOST_USER_ADD_MEM_REG] = "ADD_MEM_REG",
	[VHOST_USER_REM_MEM_REG] = "REM_MEM_REG",
};

/* Gives the connection up. vhost_user_wait_lost() returns. */
static int give_up(struct vhost_user *vu, const char *why, u32 request)
{
	if (!__atomic_load_n(&vu->over, __ATOMIC_ACQUIRE))
		fail("%s: %s %s; it is given up", vu->path, why, names[request]);
	vu->lost = true;
	shutdown(vu->sock, SHUT_RDWR);
	return -1;
}

/* Returns false when the backend's time for the operation is over. */
static bool wait_for(struct vhost_user *vu, short event)
{
	struct pollfd pollfd = { .fd = vu->sock, .events = event };
	double left = vu->until - now();

	/* An interrupted wait is one that the caller begins again. */
	return left > 0 && poll(&pollfd, 1, left * 1000 + 1);
}

static int send_message(struct vhost_user *vu, u32 request, u32 flags, const void *payload,
			u32 size, const int *fds, unsigned int nr_fds)
{
	union {
		struct cmsghdr head;
		char space[CMSG_SPACE(VHOST_USER_TABLE_MAX * sizeof(int))];
	} control = { .head = {
		.cmsg_level = SOL_SOCKET,
		.cmsg_type = SCM_RIGHTS,
		.cmsg_len = CMSG_LEN(nr_fds * sizeof(int)),
	} };
	struct header header = { request, VERSION | flags, size };
	struct iovec iov[] = { { &header, sizeof(header) }, { (void *)payload, size } };
	struct msghdr message = { .msg_iov = iov, .msg_iovlen = size ? 2 : 1 };
	ssize_t n;

	if (vu->lost)
		return -1;
	if (nr_fds) {
		memcpy(CMSG_DATA(&control.head), fds, nr_fds * sizeof(int));
		message.msg_control = &control;
		message.msg_controllen = CMSG_SPACE(nr_fds * sizeof(int));
	}
	do
		n = sendmsg(vu->sock, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
	while (n < 0 && (errno == EINTR || (errno == EAGAIN && wait_for(vu, POLLOUT))));
	if (n == (ssize_t)(sizeof(header) + size))
		return 0;
	return give_up(vu, n < 0 && errno == EPIPE ? "the backend is gone before" :
		       "the backend does not take", request);
}

/* Returns NULL, or what is wrong. */
static const char *receive(struct vhost_user *vu, void *buf, size_t len)
{
	while (len) {
		ssize_t n;

		if (!wait_for(vu, POLLIN))
			return "the backend does not answer";
		n = recv(vu->sock, buf, len, MSG_DONTWAIT);
		if (n < 0 && (errno == EINTR || errno == EAGAIN))
			continue;
		if (n <= 0)
			return "the backend is gone without an answer to";
		buf = (u8 *)buf + n;
		len -= n;
	}
	return NULL;
}

static int receive_reply(struct vhost_user *vu, u32 request, void *payload, u32 size)
{
	struct header header;
	const char *wrong;

	wrong = receive(vu, &header, sizeof(header));
	if (!wrong && (header.request != request || header.size != size ||
		       (header.flags & (VERSION_MASK | FLAG_REPLY)) != (VERSION | FLAG_REPLY)))
		wrong = "the backend answers nonsense to";
	if (!wrong)
		wrong = receive(vu, payload, size);
	return wrong ? give_up(vu, wrong, request) : 0;
}

/* With payload comes the request's argument, of size bytes, and goes the reply. */
int vhost_user_get(struct vhost_user *vu, u32 request, void *payload, u32 size, u32 reply_size)
{
	if (send_message(vu, request, 0, payload, size, NULL, 0))
		return -1;
	return receive_reply(vu, request, payload, reply_size);
}

/* Returns when the backend has done it, if it can say so. */
int vhost_user_set(struct vhost_user *vu, u32 request, const void *payload, u32 size,
		   const int *fds, unsigned int nr_fds)
{
	u64 status = 0;

	if (send_message(vu, request, vu->acks ? FLAG_NEED_REPLY : 0, payload, size, fds, nr_fds))
		return -1;
	if (vu->acks && receive_reply(vu, request, &status, sizeof(status)))
		return -1;
	return status ? give_up(vu, "the backend refuses", request) : 0;
}

/* All messages from here on, until it is called again, have so many seconds together. */
void vhost_user_begin(struct vhost_user *vu, double seconds)
{
	vu->until = now() + seconds;
}

int vhost_user_connect(struct vhost_user *vu)
{
	struct timeval timeout = { .tv_sec = vu->timeout };
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	if (strlen(vu->path) >= sizeof(address.sun_path))
		return fail("%s: too long for a socket's name", vu->path);
	strcpy(address.sun_path, vu->path);
	vu->sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (vu->sock < 0)
		return fail_errno("socket");
	setsockopt(vu->sock, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout));
	if (connect(vu->sock, (struct sockaddr *)&address, sizeof(address)))
		return fail_errno("cannot connect to %s", vu->path);
	return 0;
}

/* Returns when the backend has closed the connection, or it was given up. */
void vhost_user_wait_lost(struct vhost_user *vu)
{
	struct pollfd pollfd = { .fd = vu->sock, .events = POLLRDHUP };

	while (poll(&pollfd, 1, -1) <= 0)
		;
}

/* The VM has ended: nobody waits for the backend any more. Takes no lock. */
void vhost_user_end(struct vhost_user *vu)
{
	__atomic_store_n(&vu->over, true, __ATOMIC_RELEASE);
	shutdown(vu->sock, SHUT_RDWR);
}
