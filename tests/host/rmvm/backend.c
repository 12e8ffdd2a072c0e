// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * A disk's backend that answers, as late as it is told to, or does not, and maps
 * nothing.
 */
#include <err.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "../../../vmm/vhost_user.h"
#undef PAGE
#include "machine.h"

#define HEAD		12
#define NEED_REPLY	BIT(3)

static struct {
	u32 request, flags, size;
} message;
static u64 payload[64];

static void fill(int kick)
{
	u64 most = UINT64_MAX - 1;

	fcntl(kick, F_SETFL, 0);
	if (write(kick, &most, sizeof(most)) < 0)
		warn("kick");
}

static void take(int fd)
{
	switch (message.request) {
	case VHOST_USER_SET_FEATURES:
		world->features = payload[0];
		break;
	case VHOST_USER_ADD_MEM_REG:
		world->regions++;
		break;
	case VHOST_USER_REM_MEM_REG:
		world->regions--;
		break;
	case VHOST_USER_SET_MEM_TABLE:
		world->regions = (u32)payload[0];
		break;
	case VHOST_USER_SET_VRING_CALL:
		world->call_id = eventfd_id(fd);
		break;
	case VHOST_USER_SET_VRING_KICK:
		if (world->fills_kick)
			fill(fd);
		break;
	}
}

static u32 answer(void)
{
	switch (message.request) {
	case VHOST_USER_GET_FEATURES:
		payload[0] = BIT(32) | BIT(VHOST_USER_F_PROTOCOL_FEATURES);
		return sizeof(u64);
	case VHOST_USER_GET_PROTOCOL_FEATURES:
		payload[0] = BIT(VHOST_USER_PROTOCOL_F_CONFIG) |
			     BIT(VHOST_USER_PROTOCOL_F_REPLY_ACK) |
			     (world->no_slots ? 0 : BIT(VHOST_USER_PROTOCOL_F_MEM_SLOTS));
		return sizeof(u64);
	case VHOST_USER_GET_MAX_MEM_SLOTS:
		payload[0] = 32;
		return sizeof(u64);
	case VHOST_USER_GET_CONFIG:
		return message.size;
	case VHOST_USER_GET_VRING_BASE:
		return sizeof(u64);
	default:
		payload[0] = 0;
		return message.flags & NEED_REPLY ? sizeof(u64) : 0;
	}
}

static bool receive(int sock, int *fd)
{
	char control[CMSG_SPACE(8 * sizeof(int))];
	struct iovec iov = { &message, HEAD };
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control,
		.msg_controllen = sizeof(control),
	};

	if (recvmsg(sock, &msg, MSG_WAITALL) != HEAD)
		return false;
	if (CMSG_FIRSTHDR(&msg))
		memcpy(fd, CMSG_DATA(CMSG_FIRSTHDR(&msg)), sizeof(*fd));
	return !message.size ||
	       recv(sock, payload, message.size, MSG_WAITALL) == (ssize_t)message.size;
}

static void serve(int sock, unsigned int self)
{
	int fd = -1;

	while (receive(sock, &fd)) {
		world->requests[message.request]++;
		take(fd);
		if ((int)message.request == world->stalls_at && self == world->staller) {
			world->unanswered++;
			continue;
		}
		world->skew += world->lag;
		message.size = answer();
		message.flags = 1 | 4;
		if (message.size &&
		    (send(sock, &message, HEAD, MSG_NOSIGNAL | MSG_MORE) < 0 ||
		     send(sock, payload, message.size, MSG_NOSIGNAL) < 0))
			break;
	}
	world->gone = true;
}

const char *backend_start(void)
{
	static struct sockaddr_un addresses[2];
	static unsigned int nr;
	struct sockaddr_un *address = &addresses[nr];
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	address->sun_family = AF_UNIX;
	snprintf(address->sun_path, sizeof(address->sun_path), "/tmp/rmvm_test.%d.%u", getpid(),
		 nr);
	unlink(address->sun_path);
	if (bind(fd, (struct sockaddr *)address, sizeof(*address)) || listen(fd, 1))
		err(1, "%s", address->sun_path);
	if (!fork()) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		serve(accept(fd, NULL, NULL), nr);
		for (;;)
			pause();	/* with all that it was given */
	}
	nr++;
	return address->sun_path;
}
