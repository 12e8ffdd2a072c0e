// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * A backend for a disk (vhost-user) that does more than it should, for tests and
 * demonstrations:
 *
 *	backend SOCKET [table]
 *
 * It serves a disk of 4 MiB in its own memory. What it is given of the guest's
 * memory it never gives up: regions that were taken away stay mapped. With
 * "table" it takes all regions at once, instead of one by one. Commands come on
 * stdin, a line each; to each it says what it found, and then DONE:
 *
 *	regions		what it has been given, and still has mapped
 *	look SEED	is the secret anywhere in it? (guest/secret.h)
 *	peek GPA	reads what is there, up to the length of a secret
 *	poke GPA TEXT	writes text
 *	hold GPA	has the kernel hold a page, in a pipe
 *	release		lets go of it
 *	beyond		tries to get more out of the descriptors than it was given
 *	garble		writes nonsense to the queue
 *	nonsense	answers the next message with nonsense
 *	stall		does not answer any more
 */
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#include <linux/falloc.h>
#include <linux/vhost_types.h>
#include <linux/virtio_blk.h>

#include "guest/secret.h"
#include "vhost_user.h"

#define DISK_SIZE	(4 * MIB)
#define SECTOR		512
#define MAX_MAPPED	256
#define VERSION		1
#define REPLY		BIT(2)
#define NEED_REPLY	BIT(3)

/* A region, in use or taken away */
struct mapped {
	struct vhost_user_region region;
	u8 *at;
	int fd;
	bool ours;		/* in use */
};

struct message {
	struct {
		u32 request;
		u32 flags;
		u32 size;
	} __packed head;
	union {
		u64 number;
		struct vhost_vring_state state;
		struct vhost_vring_addr address;
		struct vhost_user_one_region one;
		struct vhost_user_table table;
		struct {
			u32 offset, size, flags;
			u8 config[256];
		} config;
	};
	int fds[VHOST_USER_TABLE_MAX];
	unsigned int nr_fds;
};

static struct mapped mapped[MAX_MAPPED];
static unsigned int nr_mapped;
static u8 disk[DISK_SIZE];
static int sock = -1, kick = -1, call = -1;
static int held[2];		/* a pipe */
static bool slots = true, stalled, nonsense;

static struct {
	unsigned int size;
	struct vhost_vring_addr address;
	u16 next;
} queue;

static sigjmp_buf bus_error;

static void on_bus_error(int sig)
{
	siglongjmp(bus_error, sig);
}

/* Where the guest's address is mapped, and how much from there on, or NULL */
static u8 *find(u64 gpa, u64 *len, bool also_lost)
{
	unsigned int i;

	for (i = nr_mapped; i--; ) {
		const struct vhost_user_region *region = &mapped[i].region;

		if ((mapped[i].ours || also_lost) && gpa >= region->gpa &&
		    gpa - region->gpa < region->size) {
			if (len)
				*len = region->size - (gpa - region->gpa);
			return mapped[i].at + region->offset + (gpa - region->gpa);
		}
	}
	return NULL;
}

static void add_region(const struct vhost_user_region *region, int fd)
{
	struct mapped *m = &mapped[nr_mapped];

	if (nr_mapped == MAX_MAPPED)
		errx(1, "too many regions");
	*m = (struct mapped){ .region = *region, .fd = fd, .ours = true };
	m->at = mmap(NULL, region->size + region->offset, PROT_READ | PROT_WRITE, MAP_SHARED, fd,
		     0);
	if (m->at == MAP_FAILED)
		err(1, "mmap");
	nr_mapped++;
}

static void lose_region(const struct vhost_user_region *region)
{
	unsigned int i;

	for (i = 0; i < nr_mapped; i++)
		if (!region || !memcmp(&mapped[i].region, region, sizeof(*region)))
			mapped[i].ours = false;
}

/* Copies between the disk and a buffer of the guest's. Returns a status of virtio's. */
static u8 transfer(bool to_guest, u64 *at, u64 gpa, u64 len)
{
	u64 run = 0;
	u8 *p = find(gpa, &run, false);

	if (!p || run < len || *at > DISK_SIZE || len > DISK_SIZE - *at)
		return VIRTIO_BLK_S_IOERR;
	memcpy(to_guest ? p : disk + *at, to_guest ? disk + *at : p, len);
	*at += len;
	return VIRTIO_BLK_S_OK;
}

static void serve_request(struct vring_desc *desc, u16 head, struct vring_used *used)
{
	struct virtio_blk_outhdr *header = (void *)find(desc[head].addr, NULL, false);
	u64 at = header ? header->sector * SECTOR : 0;
	u8 status = VIRTIO_BLK_S_OK, *to;
	u32 written = 1;
	u16 i;

	for (i = desc[head].next; desc[i].flags & VRING_DESC_F_NEXT; i = desc[i].next) {
		bool to_guest = desc[i].flags & VRING_DESC_F_WRITE;

		if (header && header->type == VIRTIO_BLK_T_GET_ID)
			continue;
		status |= transfer(to_guest, &at, desc[i].addr, desc[i].len);
		written += to_guest ? desc[i].len : 0;
	}
	to = find(desc[i].addr, NULL, false);
	if (to)
		*to = status;
	used->ring[used->idx % queue.size] = (struct vring_used_elem){ head, written };
	__atomic_store_n(&used->idx, used->idx + 1, __ATOMIC_RELEASE);
}

/* The guest is not hostile here: what it says of the queue is believed. */
static void serve_queue(void)
{
	struct vring_avail *avail = (void *)find(queue.address.avail_user_addr, NULL, false);
	struct vring_desc *desc = (void *)find(queue.address.desc_user_addr, NULL, false);
	struct vring_used *used = (void *)find(queue.address.used_user_addr, NULL, false);
	u64 events, one = 1;

	if (read(kick, &events, sizeof(events)) < 0 || stalled || !avail || !desc || !used)
		return;
	while (queue.next != __atomic_load_n(&avail->idx, __ATOMIC_ACQUIRE))
		serve_request(desc, avail->ring[queue.next++ % queue.size] % queue.size, used);
	if (write(call, &one, sizeof(one)) < 0)
		warn("call");
}

static bool get_message(struct message *m)
{
	char control[CMSG_SPACE(sizeof(m->fds))];
	struct iovec iov = { &m->head, sizeof(m->head) };
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control,
		.msg_controllen = sizeof(control),
	};
	struct cmsghdr *c;

	m->nr_fds = 0;
	if (recvmsg(sock, &msg, MSG_WAITALL | MSG_CMSG_CLOEXEC) != sizeof(m->head))
		return false;
	c = CMSG_FIRSTHDR(&msg);
	if (c) {
		m->nr_fds = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		memcpy(m->fds, CMSG_DATA(c), m->nr_fds * sizeof(int));
	}
	if (m->head.size > sizeof(m->table) && m->head.size > sizeof(m->config))
		errx(1, "a message of %u bytes", m->head.size);
	return !m->head.size ||
	       recv(sock, &m->number, m->head.size, MSG_WAITALL) == (ssize_t)m->head.size;
}

static void reply(struct message *m, u32 size)
{
	m->head.flags = VERSION | REPLY;
	m->head.size = size;
	if (nonsense)
		m->head.request ^= 1;
	nonsense = false;
	/* Both are one block of memory. */
	if (send(sock, &m->head, sizeof(m->head), MSG_NOSIGNAL | MSG_MORE) < 0 ||
	    send(sock, &m->number, size, MSG_NOSIGNAL) < 0)
		warn("send");
}

static void reply_number(struct message *m, u64 number)
{
	m->number = number;
	reply(m, sizeof(number));
}

static void set_table(const struct message *m)
{
	unsigned int i;

	lose_region(NULL);
	for (i = 0; i < m->table.nr && i < m->nr_fds; i++)
		add_region(&m->table.regions[i], m->fds[i]);
}

/* Returns true if it was answered. */
static bool serve_get(struct message *m)
{
	struct virtio_blk_config config = { .capacity = DISK_SIZE / SECTOR };

	switch (m->head.request) {
	case VHOST_USER_GET_FEATURES:
		reply_number(m, BIT(VIRTIO_F_VERSION_1) | BIT(VHOST_USER_F_PROTOCOL_FEATURES));
		return true;
	case VHOST_USER_GET_PROTOCOL_FEATURES:
		reply_number(m, BIT(VHOST_USER_PROTOCOL_F_CONFIG) |
			     BIT(VHOST_USER_PROTOCOL_F_REPLY_ACK) |
			     (slots ? BIT(VHOST_USER_PROTOCOL_F_MEM_SLOTS) : 0));
		return true;
	case VHOST_USER_GET_MAX_MEM_SLOTS:
		reply_number(m, 4);
		return true;
	case VHOST_USER_GET_CONFIG:
		memcpy(m->config.config, &config, sizeof(config));
		reply(m, m->head.size);
		return true;
	case VHOST_USER_GET_VRING_BASE:
		m->state.num = queue.next;
		queue.size = 0;
		reply(m, sizeof(m->state));
		return true;
	default:
		return false;
	}
}

static void serve_set(struct message *m)
{
	switch (m->head.request) {
	case VHOST_USER_SET_MEM_TABLE:
		set_table(m);
		break;
	case VHOST_USER_ADD_MEM_REG:
		add_region(&m->one.region, m->fds[0]);
		break;
	case VHOST_USER_REM_MEM_REG:
		lose_region(&m->one.region);
		break;
	case VHOST_USER_SET_VRING_NUM:
		queue.size = m->state.num;
		break;
	case VHOST_USER_SET_VRING_BASE:
		queue.next = m->state.num;
		break;
	case VHOST_USER_SET_VRING_ADDR:
		queue.address = m->address;
		break;
	case VHOST_USER_SET_VRING_KICK:
		kick = m->fds[0];
		break;
	case VHOST_USER_SET_VRING_CALL:
		call = m->fds[0];
		break;
	}
	if (m->head.flags & NEED_REPLY)
		reply_number(m, 0);
}

static void serve_message(void)
{
	static struct message m;

	if (!get_message(&m)) {
		warnx("the front end is gone");
		sock = -1;		/* and we stay, with what we have */
		return;
	}
	if (!stalled && !serve_get(&m))
		serve_set(&m);
}

static void show_regions(void)
{
	unsigned int i;

	for (i = 0; i < nr_mapped; i++)
		printf("%s gpa %#llx size %#llx\n", mapped[i].ours ? "REGION" : "LOST",
		       mapped[i].region.gpa, mapped[i].region.size);
}

enum state { CLEAR, SEEN, GONE };

static enum state look_at(const u8 *page, const char *secret)
{
	if (sigsetjmp(bus_error, 1))
		return GONE;
	return memmem(page, PAGE, secret, SECRET_LEN) ? SEEN : CLEAR;
}

/* Page for page, in all that it has mapped */
static void look(unsigned long long seed)
{
	unsigned int i, count[] = { [CLEAR] = 0, [SEEN] = 0, [GONE] = 0 };
	char secret[SECRET_LEN];
	u64 at;

	secret_make(seed, secret);
	for (i = 0; i < nr_mapped; i++)
		for (at = 0; at < mapped[i].region.size; at += PAGE)
			count[look_at(mapped[i].at + mapped[i].region.offset + at, secret)]++;
	printf("%s in %u of %u pages, SIGBUS in %u\n", count[SEEN] ? "SEEN" : "NOT SEEN",
	       count[SEEN], count[CLEAR] + count[SEEN] + count[GONE], count[GONE]);
}

static void peek(u64 gpa)
{
	u8 *p = find(gpa, NULL, true);
	char text[SECRET_LEN];

	if (!p) {
		printf("NO MAPPING\n");
	} else if (sigsetjmp(bus_error, 1)) {
		printf("SIGBUS\n");
	} else {
		memcpy(text, p, sizeof(text));
		printf("READ %.*s\n", SECRET_LEN, text);
	}
}

static void poke(u64 gpa, const char *text)
{
	u8 *p = find(gpa, NULL, true);

	if (!p)
		printf("NO MAPPING\n");
	else if (sigsetjmp(bus_error, 1))
		printf("SIGBUS\n");
	else
		printf("WROTE %s\n", strcpy((char *)p, text));
}

/* As direct I/O that does not end would */
static void hold(u64 gpa)
{
	struct iovec iov = { find(gpa, NULL, false), PAGE };

	if (!iov.iov_base)
		printf("NO MAPPING\n");
	else if (pipe(held) || vmsplice(held[1], &iov, 1, 0) != PAGE)
		printf("FAILED %s\n", strerrorname_np(errno));
	else
		printf("HELD\n");
}

static void release(void)
{
	close(held[0]);
	close(held[1]);
	printf("RELEASED\n");
}

static void attempt(const char *what, bool success)
{
	printf("%s %s: %s\n", success ? "SUCCEEDED" : "REFUSED", what,
	       success ? "" : strerrorname_np(errno));
}

/* Behind the window's end: no mapping, or one that cannot be touched */
static void attempt_map(const struct mapped *m, const char *what, u64 len, u64 offset, u64 touch)
{
	u8 *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, m->fd, offset);

	if (p == MAP_FAILED) {
		attempt(what, false);
		return;
	}
	if (sigsetjmp(bus_error, 1)) {
		printf("REFUSED %s: SIGBUS\n", what);
	} else {
		p[touch] = 1;
		attempt(what, true);
	}
	munmap(p, len);
}

static void beyond(void)
{
	struct mapped *m = NULL;
	char path[64], buf[8] = "";
	unsigned int i;

	for (i = 0; i < nr_mapped && !m; i++)
		if (mapped[i].ours)
			m = &mapped[i];
	if (!m) {
		printf("NO MAPPING\n");
		return;
	}
	attempt_map(m, "mmap of more", m->region.size + PAGE, 0, m->region.size);
	attempt_map(m, "mmap behind the end", PAGE, m->region.size, 0);
	attempt("mremap", mremap(m->at, m->region.size, 2 * m->region.size, 0) != MAP_FAILED);
	attempt("ftruncate", !ftruncate(m->fd, 2 * m->region.size));
	attempt("fallocate",
		!fallocate(m->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, PAGE));
	attempt("read", read(m->fd, buf, sizeof(buf)) >= 0);
	attempt("write", write(m->fd, buf, sizeof(buf)) >= 0);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", m->fd);
	attempt("open", open(path, O_RDWR) >= 0);
}

/* Entries that no request belongs to, and a count that is not true */
static void garble(void)
{
	struct vring_used *used = (void *)find(queue.address.used_user_addr, NULL, false);
	u64 one = 1;
	unsigned int i;

	if (!used) {
		printf("NO MAPPING\n");
		return;
	}
	for (i = 0; i < queue.size; i++)
		used->ring[i] = (struct vring_used_elem){ UINT32_MAX - i, UINT32_MAX };
	__atomic_store_n(&used->idx, used->idx + 7, __ATOMIC_RELEASE);
	if (write(call, &one, sizeof(one)) < 0)
		warn("call");
	printf("GARBLED\n");
}

static void command(void)
{
	char line[256], *word, *text, *end;
	unsigned long long number;

	if (!fgets(line, sizeof(line), stdin))
		exit(0);
	line[strcspn(line, "\n")] = 0;
	word = strtok_r(line, " ", &end) ?: "";
	number = strtoull(end, &text, 0);
	text += *text == ' ';
	if (!strcmp(word, "regions"))
		show_regions();
	else if (!strcmp(word, "look"))
		look(number);
	else if (!strcmp(word, "peek"))
		peek(number);
	else if (!strcmp(word, "poke"))
		poke(number, text);
	else if (!strcmp(word, "hold"))
		hold(number);
	else if (!strcmp(word, "release"))
		release();
	else if (!strcmp(word, "beyond"))
		beyond();
	else if (!strcmp(word, "garble"))
		garble();
	else if (!strcmp(word, "nonsense"))
		nonsense = true;
	else if (!strcmp(word, "stall"))
		stalled = true;
	printf("DONE\n");
	fflush(stdout);
}

static int accept_on(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	strncpy(address.sun_path, path, sizeof(address.sun_path) - 1);
	if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) || listen(fd, 1))
		err(1, "%s", path);
	fd = accept(fd, NULL, NULL);
	if (fd < 0)
		err(1, "accept");
	return fd;
}

int main(int argc, char **argv)
{
	struct sigaction action = { .sa_handler = on_bus_error };

	if (argc < 2 || argc > 3)
		errx(2, "usage: backend SOCKET [table]");
	slots = argc == 2;
	sigaction(SIGBUS, &action, NULL);
	setvbuf(stdin, NULL, _IONBF, 0);	/* poll() knows nothing of a buffer */
	sock = accept_on(argv[1]);
	for (;;) {
		struct pollfd fds[] = {
			{ .fd = sock, .events = POLLIN },
			{ .fd = STDIN_FILENO, .events = POLLIN },
			{ .fd = kick, .events = POLLIN },
		};

		if (poll(fds, ARRAY_SIZE(fds), -1) < 0)
			continue;
		if (fds[0].revents)
			serve_message();
		if (fds[1].revents)
			command();
		if (fds[2].revents)
			serve_queue();
	}
}
