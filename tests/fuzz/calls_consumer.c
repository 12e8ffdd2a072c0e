// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * Calls of consumers in the kernel, which are those of restrictedmem_test.ko.
 *
 * A family has two, which are owners of their own. Ids of bindings are reused by
 * the module, but not across consumers, and so within a family.
 */
#include <stdatomic.h>

#include "access.h"
#include "consumer.h"
#include "model.h"

/* What the processes of this machine know of a binding: consumer and id, or -1 */
static atomic_int binding_id[BINDINGS];
static atomic_int binding_consumer[BINDINGS];
static int violations_before[CONSUMERS];

static int consumer_of(unsigned int binding)
{
	return CONSUMER_FD + atomic_load(&binding_consumer[binding]);
}

/* bind */

enum { BIND_BINDING, BIND_CONSUMER, BIND_FILE, BIND_START, BIND_COUNT, BIND_HOW };

static uint32_t bind_start(const struct call *call)
{
	return call->arg[BIND_HOW] < 5 ? 0 : call->arg[BIND_START];
}

/* Often all of a small memory */
static uint32_t bind_count(const struct call *call)
{
	unsigned int family = family_of(call->arg[BIND_FILE]);

	return call->arg[BIND_HOW] < 4 ? (current->kind[family] == KIND_SMALL ? 8 : 512) :
					 call->arg[BIND_COUNT];
}

static void drop_binding(unsigned int binding, bool cancelled, struct result *result)
{
	int id = atomic_exchange(&binding_id[binding], -1);

	if (id < 0)
		result->error = ENOENT;
	else
		set_error(result, cancelled ? cancel(consumer_of(binding), id) :
					      unbind(consumer_of(binding), id));
}

static void bind_execute(const struct call *call, struct result *result)
{
	unsigned int binding = call->arg[BIND_BINDING];
	struct result ignored;
	int id;

	drop_binding(binding, false, &ignored);
	id = bind_range(CONSUMER_FD + call->arg[BIND_CONSUMER], FILE_FD + call->arg[BIND_FILE],
			bind_start(call), bind_start(call) + bind_count(call));
	set_error(result, id);
	if (id < 0)
		return;
	atomic_store(&binding_consumer[binding], call->arg[BIND_CONSUMER]);
	id = atomic_exchange(&binding_id[binding], id);
	/* Somebody else was quicker; a number can be lost here, and close ends it. */
	if (id >= 0)
		unbind(consumer_of(binding), id);
}

static const char *bind_check(const struct call *call, const struct result *result)
{
	struct bound *b = &model.bound[call->arg[BIND_BINDING]];
	uint64_t owner = call->arg[BIND_CONSUMER] + 1;
	struct view *v;
	int error;

	if (b->view)
		model_unbind(b, false);
	v = model.file[call->arg[BIND_FILE]];
	error = model_may_bind(v, bind_start(call), bind_count(call), owner);
	if (error == EPERM || error == EEXIST)
		error = EBUSY;
	if (!error)
		model_bind(b, v, bind_start(call), bind_count(call), owner);
	return expect(result, error);
}

static void unbind_execute(const struct call *call, struct result *result)
{
	/* To cancel is for what nobody has used yet; the kernel takes one's word. */
	drop_binding(call->arg[0], call->arg[1] == 5, result);
}

static const char *unbind_check(const struct call *call, const struct result *result)
{
	struct bound *b = &model.bound[call->arg[0]];

	if (!b->view)
		return expect(result, ENOENT);
	model_unbind(b, call->arg[1] == 5);
	return expect(result, 0);
}

/* get, put */

enum { GET_BINDING, GET_PAGE, GET_FLAGS };

/*
 * A pool's page that is held does not go back to the pool when it is discarded, which
 * is more than the model wants to know.
 */
static uint32_t get_flags(const struct call *call)
{
	uint32_t flags = call->arg[GET_FLAGS] | RMT_GET_SHARED;

	if (!current->concurrent && current->kind[call->arg[GET_BINDING] / 3] == KIND_POOL)
		flags &= ~RMT_GET_HOLD;
	return flags;
}

static void get_execute(const struct call *call, struct result *result)
{
	int id = atomic_load(&binding_id[call->arg[GET_BINDING]]);
	struct rmt_page page;

	set_error(result, get_page(consumer_of(call->arg[GET_BINDING]), id,
				   call->arg[GET_PAGE], get_flags(call), &page));
	result->done = page.order;
}

/* Within a binding; the errors of taking the page */
static int bound_error(struct bound *b, uint32_t page)
{
	if (!b->view)
		return ENOENT;
	if (page < b->start || page >= b->end)
		return EINVAL;
	return memory_touch(b->view->memory, page);
}

static const char *get_check(const struct call *call, const struct result *result)
{
	struct bound *b = &model.bound[call->arg[GET_BINDING]];
	uint32_t page = call->arg[GET_PAGE];
	int error;

	if (get_flags(call) & RMT_GET_ORDER_ONLY)
		return expect(result, b->view ? 0 : ENOENT);
	error = bound_error(b, page);
	if (!error && get_flags(call) & RMT_GET_HOLD) {
		if (b->held[page])
			error = EBUSY;
		else
			b->held[page] = 1;
		if (!error)
			b->view->memory->held[page]++;
	}
	return expect(result, error);
}

static void put_execute(const struct call *call, struct result *result)
{
	int id = atomic_load(&binding_id[call->arg[GET_BINDING]]);

	set_error(result, put_page(consumer_of(call->arg[GET_BINDING]), id,
				   call->arg[GET_PAGE]));
}

static const char *put_check(const struct call *call, const struct result *result)
{
	struct bound *b = &model.bound[call->arg[GET_BINDING]];
	uint32_t page = call->arg[GET_PAGE];

	if (!b->view || !b->held[page])
		return expect(result, ENOENT);
	b->held[page] = 0;
	if (b->view->memory->held[page])
		b->view->memory->held[page]--;
	return expect(result, 0);
}

/* look, store: contents */

enum { DATA_BINDING, DATA_PAGE, DATA_WORD, DATA_HOW };

static uint32_t data_flags(const struct call *call)
{
	static const uint32_t flags[] = { 0, RMT_RW_ATOMIC, RMT_RW_MAP };

	return flags[call->arg[DATA_HOW] % 3];
}

static void look_execute(const struct call *call, struct result *result)
{
	int id = atomic_load(&binding_id[call->arg[DATA_BINDING]]);
	uint64_t page[PAGE / 8];

	set_error(result, access_data(consumer_of(call->arg[DATA_BINDING]), id, data_flags(call),
				      call->arg[DATA_PAGE] * PAGE, page, PAGE));
	if (!result->error)
		words_of(page, result);
}

/* An atomic access does not wait for a page that is not there. */
static int data_error(const struct call *call, const struct result *result)
{
	struct bound *b = &model.bound[call->arg[DATA_BINDING]];
	uint32_t page = call->arg[DATA_PAGE];
	struct memory *m;

	if (!b->view)
		return ENOENT;
	if (page < b->start || page >= b->end)
		return EINVAL;
	m = b->view->memory;
	if (data_flags(call) != RMT_RW_ATOMIC)
		return memory_touch(m, page);
	if (m->vague)
		return result->error == EAGAIN ? EAGAIN : 0;
	return m->resident[page] ? 0 : EAGAIN;
}

static const char *look_check(const struct call *call, const struct result *result)
{
	int error = data_error(call, result);
	uint32_t page = call->arg[DATA_PAGE];

	if (error || result->error)
		return expect(result, error);
	return expect_words(result,
			    model.bound[call->arg[DATA_BINDING]].view->memory->words[page],
			    call->arg[DATA_BINDING], page);
}

static const char *look_look(const struct call *call, const struct result *result)
{
	if (result->error)
		return NULL;
	return stamp_check(result, call->arg[DATA_BINDING] / 3, call->arg[DATA_PAGE], STAMP_USER);
}

static uint64_t stamp_for(const struct call *call)
{
	unsigned int family = call->arg[DATA_BINDING] / 3;
	bool secret = call->arg[DATA_PAGE] >= secret_start(family);

	return stamp_of(family, call->arg[DATA_WORD], call->arg[DATA_PAGE],
			STAMP_FILE | (secret ? STAMP_SECRET : 0), call - current->calls);
}

static void store_execute(const struct call *call, struct result *result)
{
	int id = atomic_load(&binding_id[call->arg[DATA_BINDING]]);
	uint64_t stamp = stamp_for(call);

	set_error(result, access_data(consumer_of(call->arg[DATA_BINDING]), id,
				      data_flags(call) | RMT_RW_WRITE,
				      call->arg[DATA_PAGE] * PAGE +
				      stamp_words[call->arg[DATA_WORD]] * 8, &stamp, 8));
}

static const char *store_check(const struct call *call, const struct result *result)
{
	int error = data_error(call, result);
	uint32_t page = call->arg[DATA_PAGE];
	struct memory *m;

	if (!error) {
		m = model.bound[call->arg[DATA_BINDING]].view->memory;
		m->words[page][call->arg[DATA_WORD]] = stamp_for(call);
	}
	return expect(result, error);
}

/* Between sequences */

void consumers_init(void)
{
	for (int i = 0; i < CONSUMERS; i++) {
		int fd = consumer_open();

		if (fd < 0 || dup3(fd, CONSUMER_FD + i, O_CLOEXEC) < 0) {
			perror("fuzz: /dev/restrictedmem_test");
			exit(1);
		}
		close(fd);
		violations_before[i] = violations(CONSUMER_FD + i);
	}
	for (int i = 0; i < BINDINGS; i++)
		atomic_store(&binding_id[i], -1);
}

void consumers_reset(void)
{
	struct result ignored;

	for (int i = 0; i < BINDINGS; i++)
		drop_binding(i, false, &ignored);
	for (int i = 0; i < CONSUMERS; i++) {
		int now = violations(CONSUMER_FD + i);

		if (now != violations_before[i])
			fail("a promise to consumer %d was broken, see the kernel's log", i);
		violations_before[i] = now;
	}
}

static const int bind_errors[] = { EBADF, EINVAL, EBUSY, 0 };
static const int unbind_errors[] = { ENOENT, 0 };
static const int get_errors[] = { ENOENT, EINVAL, EBUSY, ENOSPC, 0 };
static const int data_errors[] = { ENOENT, EINVAL, EAGAIN, ENOSPC, 0 };

#define DATA_PARAMS {							\
	{ "binding", PARAM_BINDING }, { "page", PARAM_START },		\
	{ "word", PARAM_WORD }, { "how", PARAM_NUMBER, 2 },		\
}

const struct op consumer_ops[] = {
	{
		.name = "bind", .weight = { 4, 4 },
		.params = {
			{ "binding", PARAM_BINDING }, { "consumer", PARAM_CONSUMER },
			{ "file", PARAM_FILE }, { "start", PARAM_START },
			{ "count", PARAM_COUNT }, { "how", PARAM_NUMBER, 9 },
		},
		.execute = bind_execute, .check = bind_check, .errors = bind_errors,
	}, {
		.name = "unbind", .weight = { 2, 2 },
		.params = { { "binding", PARAM_BINDING }, { "how", PARAM_NUMBER, 5 } },
		.execute = unbind_execute, .check = unbind_check, .errors = unbind_errors,
	}, {
		.name = "get", .weight = { 10, 12 },
		.params = {
			{ "binding", PARAM_BINDING }, { "page", PARAM_START },
			{ "flags", PARAM_NUMBER, 7 },
		},
		.execute = get_execute, .check = get_check, .errors = get_errors,
	}, {
		.name = "put", .weight = { 5, 8 },
		.params = { { "binding", PARAM_BINDING }, { "page", PARAM_START } },
		.execute = put_execute, .check = put_check, .errors = unbind_errors,
	}, {
		.name = "look", .weight = { 14, 16 }, .params = DATA_PARAMS,
		.execute = look_execute, .check = look_check, .errors = data_errors,
		.look = look_look,
	}, {
		.name = "store", .weight = { 12, 14 }, .params = DATA_PARAMS,
		.execute = store_execute, .check = store_check, .errors = data_errors,
	},
	{}
};
