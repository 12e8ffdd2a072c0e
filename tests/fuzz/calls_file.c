// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * Calls on the device and on its files: create, size, populate, punch, link, and
 * all that is done with descriptors.
 */
#include <sys/socket.h>
#include <sys/wait.h>

#include "hugetlb.h"
#include "model.h"
#include "window.h"

/* Descriptors on their way: [0] is the worker's end, [1] the peer's. */
static int post[2] = { -1, -1 };
static struct view *in_post[16];
static unsigned int in_post_family[16], nr_in_post;

#define POST_MAX	6

/* A new descriptor goes where it belongs, and what was there is closed. */
static void settle(int fd, int where, struct result *result)
{
	if (fd < 0) {
		result->error = errno;
		return;
	}
	if (dup3(fd, where, O_CLOEXEC) < 0)
		result->error = errno;
	close(fd);
}

/* create */

enum { CREATE_FILE, CREATE_LENGTH, CREATE_STORE, CREATE_THP, CREATE_FLAGS, CREATE_SKEW };

/* Most are in place, few have what most cannot have. */
static uint32_t create_flags(const struct call *call)
{
	uint32_t n = call->arg[CREATE_FLAGS];

	if (n >= 60)
		return 1 << (n % 32);
	return (n % 8) ^ RESTRICTEDMEM_CREATE_IN_PLACE ^ (n >= 50 ? 8 : 0);
}

static uint32_t create_fixed_flags(const struct call *call)
{
	uint32_t flags = create_flags(call);

	/* Only a pool can reserve; half of the others say so. */
	if (call->arg[CREATE_STORE] != RESTRICTEDMEM_STORE_HUGETLB && call->arg[CREATE_FLAGS] % 32)
		flags &= ~RESTRICTEDMEM_CREATE_RESERVE;
	return flags;
}

static uint32_t create_thp(const struct call *call)
{
	unsigned int family = family_of(call->arg[CREATE_FILE]);

	if (call->arg[CREATE_THP] >= 40)
		return call->arg[CREATE_THP] - 38;	/* 2 and 3, and what there is not */
	return current->kind[family] == KIND_SMALL ? RESTRICTEDMEM_THP_NEVER :
	       current->kind[family] == KIND_THP ? RESTRICTEDMEM_THP_ALWAYS : 0;
}

static void create_execute(const struct call *call, struct result *result)
{
	const struct restrictedmem_create args = {
		.size = sizeof(args),
		.flags = create_fixed_flags(call),
		.length = call->arg[CREATE_LENGTH] * PAGE + call->arg[CREATE_SKEW],
		.store = call->arg[CREATE_STORE],
		.thp = create_thp(call),
	};

	settle(create_with(&args), FILE_FD + call->arg[CREATE_FILE], result);
}

static int create_error(const struct call *call)
{
	uint32_t store = call->arg[CREATE_STORE], flags = create_fixed_flags(call);
	uint64_t length = call->arg[CREATE_LENGTH] * PAGE + call->arg[CREATE_SKEW];

	if (flags & ~15 || store > RESTRICTEDMEM_STORE_POOL)
		return EINVAL;
	if (store == RESTRICTEDMEM_STORE_POOL)
		return EOPNOTSUPP;
	if (store == RESTRICTEDMEM_STORE_HUGETLB ? create_thp(call) : create_thp(call) > 3)
		return EINVAL;
	if (flags & RESTRICTEDMEM_CREATE_RESERVE && store != RESTRICTEDMEM_STORE_HUGETLB)
		return EOPNOTSUPP;
	return length % (store == RESTRICTEDMEM_STORE_HUGETLB ? HUGE : PAGE) ? EINVAL : 0;
}

static const char *create_check(const struct call *call, const struct result *result)
{
	bool pool = call->arg[CREATE_STORE] == RESTRICTEDMEM_STORE_HUGETLB;
	int error = create_error(call);
	struct memory *m;

	if (error)
		return expect(result, error);
	m = memory_create(pool, !pool && create_thp(call) != RESTRICTEDMEM_THP_NEVER,
			  create_fixed_flags(call));
	if (call->arg[CREATE_LENGTH])
		error = memory_set_size(m, call->arg[CREATE_LENGTH]);
	if (error)
		m->used = false;
	else
		file_set(call->arg[CREATE_FILE], view_create(m, 0));
	return expect(result, error);
}

/* close */

static void close_execute(const struct call *call, struct result *result)
{
	set_error(result, close(FILE_FD + call->arg[0]));
}

static const char *close_check(const struct call *call, const struct result *result)
{
	bool open = model.file[call->arg[0]];

	file_set(call->arg[0], NULL);
	return expect(result, open ? 0 : EBADF);
}

/* ftruncate */

static void size_execute(const struct call *call, struct result *result)
{
	set_error(result, ftruncate(FILE_FD + call->arg[0], call->arg[1] * PAGE + call->arg[2]));
}

static const char *size_check(const struct call *call, const struct result *result)
{
	struct view *v = model.file[call->arg[0]];
	uint32_t pages = call->arg[1];

	if (!v)
		return expect(result, EBADF);
	if (!pages || call->arg[2] || v->memory->pages ||
	    (v->memory->pool && pages % HUGE_PAGES))
		return expect(result, EINVAL);
	return expect(result, memory_set_size(v->memory, pages));
}

/* fallocate */

enum { SPACE_FILE, SPACE_START, SPACE_COUNT, SPACE_MODE, SPACE_SKEW };

static int space_mode(const struct call *call)
{
	static const int modes[] = {
		FALLOC_FL_KEEP_SIZE, PUNCH, FALLOC_FL_KEEP_SIZE, PUNCH, FALLOC_FL_KEEP_SIZE,
		PUNCH, FALLOC_FL_KEEP_SIZE, PUNCH, FALLOC_FL_KEEP_SIZE, PUNCH, 0,
		FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE,
	};

	return modes[call->arg[SPACE_MODE] % 12];
}

static void space_execute(const struct call *call, struct result *result)
{
	set_error(result, fallocate(FILE_FD + call->arg[SPACE_FILE], space_mode(call),
				    call->arg[SPACE_START] * PAGE + call->arg[SPACE_SKEW],
				    call->arg[SPACE_COUNT] * PAGE));
}

static const char *populate_check(struct memory *m, uint32_t start, uint32_t end,
				  const struct result *result)
{
	int error = end > m->pages ? EINVAL : 0;

	for (; !error && start < end; start++)
		error = memory_touch(m, start);
	return expect(result, error);
}

static const char *space_check(const struct call *call, const struct result *result)
{
	struct view *v = model.file[call->arg[SPACE_FILE]];
	uint32_t start = call->arg[SPACE_START], end = start + call->arg[SPACE_COUNT];
	int mode = space_mode(call);

	if (!v)
		return expect(result, EBADF);
	if (start == end)
		return expect(result, EINVAL);
	if (mode != PUNCH && mode != FALLOC_FL_KEEP_SIZE)
		return expect(result, EOPNOTSUPP);
	if (call->arg[SPACE_SKEW] || (v->memory->pool && (start | end) % HUGE_PAGES))
		return expect(result, EINVAL);
	if (mode == FALLOC_FL_KEEP_SIZE)
		return populate_check(v->memory, start, end, result);
	if (end > v->memory->pages)
		end = v->memory->pages;
	memory_discard(v->memory, start, end);
	return expect(result, 0);
}

/* link, dup */

static void link_execute(const struct call *call, struct result *result)
{
	settle(link_view(FILE_FD + call->arg[0]), FILE_FD + call->arg[1], result);
}

static const char *link_check(const struct call *call, const struct result *result)
{
	struct view *v = model.file[call->arg[0]];

	if (!v)
		return expect(result, EBADF);
	file_set(call->arg[1], view_create(v->memory, 0));
	return expect(result, 0);
}

static void dup_execute(const struct call *call, struct result *result)
{
	set_error(result, dup2(FILE_FD + call->arg[0], FILE_FD + call->arg[1]));
}

static const char *dup_check(const struct call *call, const struct result *result)
{
	struct view *v = model.file[call->arg[0]];

	if (!v)
		return expect(result, EBADF);
	if (call->arg[0] != call->arg[1])
		file_set(call->arg[1], v);
	return expect(result, 0);
}

/* SCM_RIGHTS */

static int post_end(bool receive)
{
	if (current->concurrent)
		return post[is_peer()];
	return post[receive];
}

static void send_execute(const struct call *call, struct result *result)
{
	char control[CMSG_SPACE(sizeof(int))] = {};
	uint8_t family = family_of(call->arg[0]);
	struct iovec iov = { &family, 1 };
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control,
		.msg_controllen = sizeof(control),
	};
	struct cmsghdr *head = CMSG_FIRSTHDR(&msg);
	int fd = FILE_FD + call->arg[0];

	if (!current->concurrent && nr_in_post >= POST_MAX) {
		result->error = NOT_DONE;
		return;
	}
	head->cmsg_level = SOL_SOCKET;
	head->cmsg_type = SCM_RIGHTS;
	head->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(head), &fd, sizeof(int));
	set_error(result, sendmsg(post_end(false), &msg, MSG_DONTWAIT));
}

static const char *send_check(const struct call *call, const struct result *result)
{
	struct view *v = model.file[call->arg[0]];

	if (nr_in_post >= POST_MAX)
		return expect(result, NOT_DONE);
	if (!v)
		return expect(result, EBADF);
	v->fds++;
	in_post_family[nr_in_post] = family_of(call->arg[0]);
	in_post[nr_in_post++] = v;
	return expect(result, 0);
}

/* The descriptor of the next message, whose family is @family; or -1. */
static int receive(int socket, uint8_t *family)
{
	char control[CMSG_SPACE(sizeof(int))];
	struct iovec iov = { family, 1 };
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control,
		.msg_controllen = sizeof(control),
	};
	struct cmsghdr *head;
	int fd;

	if (recvmsg(socket, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC) < 0)
		return -1;
	head = CMSG_FIRSTHDR(&msg);
	errno = EPROTO;
	if (!head)
		return -1;
	memcpy(&fd, CMSG_DATA(head), sizeof(int));
	return fd;
}

static void receive_execute(const struct call *call, struct result *result)
{
	uint8_t family = 0;
	int fd = receive(post_end(true), &family);

	settle(fd, FILE_FD + 2 * family + call->arg[0] % 2, result);
}

static const char *receive_check(const struct call *call, const struct result *result)
{
	struct view *v = in_post[0];

	if (!nr_in_post)
		return expect(result, EAGAIN);
	file_set(2 * in_post_family[0] + call->arg[0] % 2, v);
	v->fds--;
	nr_in_post--;
	memmove(in_post, in_post + 1, nr_in_post * sizeof(*in_post));
	memmove(in_post_family, in_post_family + 1, nr_in_post * sizeof(*in_post_family));
	return expect(result, 0);
}

/* The module's limit; only where it is known how many pages there are */

static bool limit_is_exact(void)
{
	for (int f = 0; f < FAMILIES; f++)
		if (current->kind[f] == KIND_THP)
			return false;
	return true;
}

static void limit_execute(const struct call *call, struct result *result)
{
	if (!limit_is_exact())
		result->error = NOT_DONE;
	else
		set_error(result, set_limit(call->arg[0] > 60 ? 0 : call->arg[0] * PAGE));
}

static const char *limit_check(const struct call *call, const struct result *result)
{
	if (!limit_is_exact())
		return expect(result, NOT_DONE);
	model.limit = call->arg[0] > 60 ? 0 : call->arg[0];
	return expect(result, 0);
}

/* What the file says of itself */

/* A number of the text of an fdinfo, the last of that name: the kernel's comes first. */
static long long number_in(const char *text, const char *key)
{
	long long value = -1;
	const char *at = text;
	char line[32];

	snprintf(line, sizeof(line), "\n%s:\t", key);
	while ((at = strstr(at, line))) {
		at += strlen(line);
		value = strtoll(at, NULL, 0);
	}
	return value;
}

static const char *fdinfo_check(int fd, struct view *v)
{
	struct memory *m = v->memory;
	const struct {
		const char *key;
		long long value;
	} expected[] = {
		{ "size", m->pages * PAGE },
		{ "shared", m->shared_pages * PAGE },
		{ "windows", m->windows },
		{ "bindings", m->bindings },
		{ "view_bindings", v->bindings },
		{ "flags", m->flags },
		{ "poisoned", 0 },
		{ "resident", m->vague ? resident(fd) : m->resident_pages * PAGE },
	};
	const char *text = NULL;
	char info[2048];

	if (read_text(path_of("/proc/self/fdinfo/%d", fd), info, sizeof(info)) <= 0)
		return "no fdinfo";
	for (unsigned int i = 0; !text && i < sizeof(expected) / sizeof(*expected); i++) {
		long long value = number_in(info, expected[i].key);

		if (value != expected[i].value)
			text = text_of("fdinfo of file %d: %s is %lld, not %lld", fd - FILE_FD,
				       expected[i].key, value, expected[i].value);
	}
	if (!text && !number_in(info, "owner") != !v->owner)
		text = text_of("fdinfo of file %d: owner", fd - FILE_FD);
	return text;
}

static void stat_execute(const struct call *call, struct result *result)
{
	struct stat st = {};

	set_error(result, fstat(FILE_FD + call->arg[0], &st));
	result->done = st.st_blocks / (PAGE / 512);
	result->words[0] = st.st_size / PAGE;
}

static const char *stat_check(const struct call *call, const struct result *result)
{
	struct view *v = model.file[call->arg[0]];

	if (!v)
		return expect(result, EBADF);
	if (result->words[0] != v->memory->pages)
		return text_of("size %llu, not %u", (unsigned long long)result->words[0],
			       v->memory->pages);
	if (!v->memory->vague && result->done != v->memory->resident_pages)
		return text_of("%llu pages resident, not %u", (unsigned long long)result->done,
			       v->memory->resident_pages);
	return fdinfo_check(FILE_FD + call->arg[0], v);
}

/* What there is not */
static void refused_execute(const struct call *call, struct result *result)
{
	int fd = FILE_FD + call->arg[0];
	char byte;

	switch (call->arg[1]) {
	case 0:
		set_error(result, read(fd, &byte, 1));
		break;
	case 1:
		set_error(result, mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0) == MAP_FAILED ?
				  -1 : 0);
		break;
	case 2:
		set_error(result, lseek(fd, 0, SEEK_SET));
		break;
	default:
		set_error(result, ioctl(fd, _IO(RESTRICTEDMEM_IOCTL_TYPE, 0x3f), 0));
	}
}

static const char *refused_check(const struct call *call, const struct result *result)
{
	static const int errors[] = { EINVAL, ENODEV, ESPIPE, ENOTTY };

	return expect(result, model.file[call->arg[0]] ? errors[call->arg[1]] : EBADF);
}

/* Between sequences */

void files_reset(void)
{
	uint8_t family;
	int fd;

	if (post[0] < 0)
		return;
	for (int i = 0; i < FILES; i++)
		close(FILE_FD + i);
	for (int end = 0; end < 2; end++)
		while ((fd = receive(post[end], &family)) >= 0 || errno == EPROTO)
			close(fd);
	nr_in_post = 0;
	if (model.limit)
		set_limit(0);
	model.limit = 0;
}

void files_init(void)
{
	if (socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, post)) {
		perror("fuzz: socketpair");
		exit(1);
	}
}

/* At the end of a sequential sequence: all that is open, page by page */
const char *files_audit(void)
{
	const char *text = NULL;

	for (unsigned int i = 0; !text && i < FILES; i++)
		if (model.file[i])
			text = fdinfo_check(FILE_FD + i, model.file[i]);
	return text;
}

static const int create_errors[] = { EINVAL, EOPNOTSUPP, ENOSPC, EBUSY, 0 };
static const int bad_fd[] = { EBADF, 0 };
static const int space_errors[] = { EBADF, EINVAL, EOPNOTSUPP, ENOSPC, 0 };
static const int size_errors[] = { EBADF, EINVAL, ENOSPC, 0 };
static const int dup_errors[] = { EBADF, EBUSY, 0 };
static const int post_errors[] = { EBADF, EAGAIN, EBUSY, ETOOMANYREFS, 0 };
static const int refused_errors[] = { EBADF, EINVAL, ENODEV, ESPIPE, ENOTTY, 0 };

const struct op file_ops[] = {
	{
		.name = "create", .weight = { 3, 3 },
		.params = {
			{ "file", PARAM_FILE }, { "length", PARAM_LENGTH },
			{ "store", PARAM_STORE }, { "thp", PARAM_NUMBER, 42 },
			{ "flags", PARAM_NUMBER, 63 }, { "skew", PARAM_SKEW },
		},
		.execute = create_execute, .check = create_check, .errors = create_errors,
	}, {
		.name = "close", .weight = { 1, 2 }, .params = { { "file", PARAM_FILE } },
		.execute = close_execute, .check = close_check, .errors = bad_fd,
	}, {
		.name = "size", .weight = { 2, 1 },
		.params = {
			{ "file", PARAM_FILE }, { "length", PARAM_LENGTH },
			{ "skew", PARAM_SKEW },
		},
		.execute = size_execute, .check = size_check, .errors = size_errors,
	}, {
		.name = "space", .weight = { 10, 10 },
		.params = {
			{ "file", PARAM_FILE }, { "start", PARAM_START },
			{ "count", PARAM_COUNT }, { "mode", PARAM_NUMBER, 11 },
			{ "skew", PARAM_SKEW },
		},
		.execute = space_execute, .check = space_check, .errors = space_errors,
	}, {
		.name = "link", .weight = { 3, 2 },
		.params = { { "file", PARAM_FILE }, { "to", PARAM_FILE } },
		.execute = link_execute, .check = link_check, .errors = dup_errors,
	}, {
		.name = "dup", .weight = { 2, 1 },
		.params = { { "file", PARAM_FILE }, { "to", PARAM_FILE } },
		.execute = dup_execute, .check = dup_check, .errors = dup_errors,
	}, {
		.name = "send", .weight = { 2, 6 }, .params = { { "file", PARAM_FILE } },
		.execute = send_execute, .check = send_check, .errors = post_errors,
	}, {
		.name = "receive", .weight = { 2, 5 }, .params = { { "file", PARAM_FILE } },
		.execute = receive_execute, .check = receive_check, .errors = post_errors,
	}, {
		.name = "limit", .weight = { 1, 0 }, .params = { { "pages", PARAM_NUMBER, 90 } },
		.execute = limit_execute, .check = limit_check,
	}, {
		.name = "stat", .weight = { 4, 2 }, .params = { { "file", PARAM_FILE } },
		.execute = stat_execute, .check = stat_check, .errors = bad_fd,
	}, {
		.name = "refused", .weight = { 1, 1 },
		.params = { { "file", PARAM_FILE }, { "what", PARAM_NUMBER, 3 } },
		.execute = refused_execute, .check = refused_check, .errors = refused_errors,
	},
	{}
};
