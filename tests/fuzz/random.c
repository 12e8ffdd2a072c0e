// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * Sequences out of a seed.
 *
 * The numbers of a call do not depend on what the calls before it have done, so
 * that a sequence stays what it is when some of its calls are left out. What is
 * likely to exist is made first.
 */
#include "fuzz.h"

const struct op *ops[MAX_OPS];
unsigned int nr_ops, first_vm_op;

static void ops_add(const struct op *table)
{
	for (; table->name; table++)
		ops[nr_ops++] = table;
}

void ops_init(void)
{
	ops_add(file_ops);
	ops_add(window_ops);
	ops_add(consumer_ops);
	first_vm_op = nr_ops;
	ops_add(vm_ops);
}

const struct op *op_find(const char *name, uint8_t *number)
{
	for (unsigned int i = 0; i < nr_ops; i++) {
		if (strcmp(ops[i]->name, name))
			continue;
		*number = i;
		return ops[i];
	}
	return NULL;
}

static bool left_out[MAX_OPS];

void leave_out(const char *name)
{
	uint8_t number;

	if (op_find(name, &number)) {
		left_out[number] = true;
		return;
	}
	fprintf(stderr, "fuzz: no call is named %s\n", name);
	exit(2);
}

static unsigned int weight_of(unsigned int number, const struct sequence *s, bool has_vm)
{
	if (left_out[number] || (!has_vm && number >= first_vm_op))
		return 0;
	return ops[number]->weight[s->concurrent];
}

/* splitmix64 */
uint64_t random_next(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15ULL;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ z >> 27) * 0x94d049bb133111ebULL;
	return z ^ z >> 31;
}

uint64_t random_below(uint64_t *state, uint64_t limit)
{
	return random_next(state) % limit;
}

static bool one_in(uint64_t *state, unsigned int n)
{
	return !random_below(state, n);
}

static uint32_t pick_page(uint64_t *state, bool large)
{
	static const uint16_t edges[] = {
		0, 0, 1, 5, 255, 510, 511, 512, 512, 513, 960, 1023, 1024, 1039,
	};

	if (!one_in(state, 6))
		return random_below(state, 8);
	if (!large)
		return random_below(state, SMALL_PAGES);
	if (one_in(state, 3))
		return random_below(state, MAX_PAGES);
	return edges[random_below(state, sizeof(edges) / sizeof(*edges))];
}

static uint32_t pick_count(uint64_t *state, bool large)
{
	static const uint16_t counts[] = { 511, 512, 512, 512, 513, 1024, 1024, MAX_PAGES };

	if (one_in(state, 60))
		return 0;
	if (!one_in(state, large ? 3 : 10))
		return 1 + random_below(state, one_in(state, 4) ? 8 : 4);
	if (!large)
		return 1 + random_below(state, SMALL_PAGES);
	return counts[random_below(state, sizeof(counts) / sizeof(*counts))];
}

static uint32_t pick_length(uint64_t *state, enum kind kind, bool concurrent)
{
	static const uint16_t large[] = { 512, 1024, 1024, MAX_PAGES };

	if (!concurrent && one_in(state, 12))
		return random_below(state, 2) * random_below(state, 40);
	switch (kind) {
	case KIND_SMALL:
		return 8 * (1 + random_below(state, 4));
	case KIND_THP:
		return large[random_below(state, 4)];
	default:
		return large[random_below(state, 2)];
	}
}

static uint32_t pick(const struct sequence *s, uint64_t *state, const struct param *param,
		     unsigned int family)
{
	enum kind kind = s->kind[family];

	switch (param->kind) {
	case PARAM_NONE:
		return 0;
	case PARAM_FILE:
	case PARAM_WINDOW:
	case PARAM_MAP:
	case PARAM_SLOT:
		return 2 * family + one_in(state, 4);
	case PARAM_CONSUMER:
		return 2 * family + one_in(state, 6);
	case PARAM_BINDING:
		return 3 * family + (one_in(state, 3) ? random_below(state, 3) : 0);
	case PARAM_START:
		return pick_page(state, kind != KIND_SMALL);
	case PARAM_COUNT:
		return pick_count(state, kind != KIND_SMALL);
	case PARAM_LENGTH:
		return pick_length(state, kind, s->concurrent);
	case PARAM_STORE:
		if (one_in(state, 30))
			return RESTRICTEDMEM_STORE_POOL + random_below(state, 2);
		return kind == KIND_POOL ? RESTRICTEDMEM_STORE_HUGETLB :
					   RESTRICTEDMEM_STORE_SHMEM;
	case PARAM_WORD:
		return random_below(state, WORDS);
	case PARAM_SKEW:
		return one_in(state, 50) ? 1 + random_below(state, PAGE - 1) : 0;
	case PARAM_NUMBER:
		return random_below(state, param->max + 1);
	}
	return 0;
}

/* No secret is in a range that is to be shared. */
static void clip_range(const struct sequence *s, struct call *call, const struct op *op,
		       unsigned int family)
{
	uint32_t limit = s->kind[family] == KIND_SMALL ? 24 : 960;

	for (int i = 0; i < MAX_ARGS && op->params[i].name; i++)
		if (!strcmp(op->params[i].name, "private") && call->arg[i])
			return;
	for (int i = 0; i + 1 < MAX_ARGS; i++) {
		if (op->params[i].kind != PARAM_START)
			continue;
		call->arg[i] %= limit;
		if (call->arg[i + 1] > limit - call->arg[i])
			call->arg[i + 1] = limit - call->arg[i];
	}
}

static struct call *add_call(struct sequence *s, uint64_t *state, uint8_t number,
			     unsigned int family)
{
	const struct op *op = ops[number];
	struct call *call = &s->calls[s->count++];

	*call = (struct call) { .op = number };
	if (s->concurrent)
		call->thread = op->only ? op->only - 1 : random_below(state, THREADS);
	for (int i = 0; i < MAX_ARGS; i++)
		call->arg[i] = pick(s, state, &op->params[i], family);
	if (s->concurrent && op->shares)
		clip_range(s, call, op, family);
	return call;
}

/* A call with some of its numbers given; the others are random. */
struct start {
	const char *name;
	int unlikely;		/* made with a probability of 1 in that many; 0: always */
	struct {
		int arg;	/* which, -1: no more */
		uint32_t value;
		bool in_family;	/* the value is counted from the family's first */
	} given[4];
};

/*
 * Something to begin with: a memory with a window and a binding, and a second view of
 * it, or another memory, for the VM.
 */
static const struct start starts[] = {
	{ "create", 0, { { 0, 0, true }, { 4, 2 }, { 5, 0 }, { -1 } } },
	{ "link", 2, { { 0, 0, true }, { 1, 1, true }, { -1 } } },
	{ "create", 3, { { 0, 1, true }, { 4, 56 }, { 5, 0 }, { -1 } } },
	{ "window", 0, { { 0, 0, true }, { 1, 0, true }, { 4, 1 }, { -1 } } },
	{ "convert", 0, { { 0, 0, true }, { 1, 0 }, { 2, 8 }, { 3, 0 } } },
	{ "map", 0, { { 0, 0, true }, { 1, 0, true }, { 4, 1 }, { -1 } } },
	{ "bind", 0, { { 0, 0, true }, { 1, 0, true }, { 2, 0, true }, { 5, 0 } } },
	{ "slot", 0, { { 0, 0, true }, { 1, 1, true }, { 4, 0 }, { -1 } } },
	{ "slot", 2, { { 0, 1, true }, { 1, 0, true }, { -1 } } },
	{ "attributes", 2, { { 0, 0, true }, { 1, 0 }, { 2, 8 }, { 3, 1 } } },
	{ "map", 2, { { 0, 1, true }, { 1, 0, true }, { -1 } } },
};

static void add_start(struct sequence *s, uint64_t *state, const struct start *start,
		      unsigned int family, bool has_vm)
{
	struct call *call;
	uint8_t number = 0;

	op_find(start->name, &number);
	if (!has_vm && number >= first_vm_op)
		return;
	call = add_call(s, state, number, family);
	/* They are made in their order. */
	call->thread = 0;
	for (int i = 0; i < 4 && start->given[i].arg >= 0; i++)
		call->arg[start->given[i].arg] = start->given[i].value +
						 (start->given[i].in_family ? 2 * family : 0);
	if (!strcmp(start->name, "bind"))
		call->arg[0] = 3 * family;
	if (!strcmp(start->name, "create"))
		call->arg[4] &= ~4;
	if (!strcmp(start->name, "map"))
		call->arg[4] = 1 + call->arg[4] % 3;
}

static void add_prefix(struct sequence *s, uint64_t *state, unsigned int families, bool has_vm)
{
	for (unsigned int f = 0; f < families; f++)
		for (unsigned int i = 0; i < sizeof(starts) / sizeof(*starts); i++)
			if (!starts[i].unlikely || one_in(state, starts[i].unlikely))
				add_start(s, state, &starts[i], f, has_vm);
}

void sequence_generate(struct sequence *s, uint64_t seed, bool concurrent,
		       unsigned int calls, bool has_vm)
{
	uint64_t state = seed, total = 0, at;
	unsigned int families;
	uint8_t i;

	memset(s, 0, offsetof(struct sequence, calls));
	s->seed = seed;
	s->concurrent = concurrent;
	families = one_in(&state, 2) ? 1 : 1 + random_below(&state, FAMILIES);
	for (unsigned int f = 0; f < FAMILIES; f++) {
		uint64_t n = random_below(&state, 10);

		s->kind[f] = n < 6 ? KIND_SMALL : n < 9 ? KIND_THP : KIND_POOL;
	}
	/* Half of the sequences leave VMs, which are slow, alone. */
	if (one_in(&state, 2))
		has_vm = false;
	for (i = 0; i < nr_ops; i++)
		total += weight_of(i, s, has_vm);

	if (calls > MAX_CALLS)
		calls = MAX_CALLS;
	add_prefix(s, &state, families, has_vm);
	while (s->count < calls) {
		at = random_below(&state, total);
		for (i = 0; i < nr_ops; i++) {
			if (at < weight_of(i, s, has_vm))
				break;
			at -= weight_of(i, s, has_vm);
		}
		add_call(s, &state, i, random_below(&state, families));
	}
}
