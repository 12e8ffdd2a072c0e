// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * Sequences as text, a call a line:
 *
 *   # what was wrong
 *   sequence seed=17 concurrent=1 kinds=small,thp,pool
 *   2 convert file=1 start=3 count=4 private=1 flags=2 skew=0
 *
 * The first number is the thread. What is not given is 0; # begins a comment.
 */
#include "fuzz.h"

static const char * const kind_names[KINDS] = { "small", "thp", "pool" };

void trace_call(FILE *file, const struct sequence *s, const struct call *call)
{
	const struct op *op = ops[call->op];

	fprintf(file, "%u %s", call->thread, op->name);
	for (int i = 0; i < MAX_ARGS && op->params[i].name; i++)
		fprintf(file, " %s=%u", op->params[i].name, call->arg[i]);
	fprintf(file, "\n");
}

void trace_write(FILE *file, const struct sequence *s, const char *why)
{
	if (why)
		fprintf(file, "# %s\n", why);
	fprintf(file, "sequence seed=%llu concurrent=%d kinds=%s,%s,%s\n",
		(unsigned long long)s->seed, s->concurrent, kind_names[s->kind[0]],
		kind_names[s->kind[1]], kind_names[s->kind[2]]);
	for (uint32_t i = 0; i < s->count; i++)
		trace_call(file, s, &s->calls[i]);
}

static int read_head(char *line, struct sequence *s)
{
	char names[FAMILIES][16] = {};
	unsigned long long seed;
	int concurrent;

	if (sscanf(line, "sequence seed=%llu concurrent=%d kinds=%15[a-z],%15[a-z],%15[a-z]",
		   &seed, &concurrent, names[0], names[1], names[2]) != 5)
		return -1;
	s->seed = seed;
	s->concurrent = concurrent;
	for (int f = 0; f < FAMILIES; f++)
		for (int k = 0; k < KINDS; k++)
			if (!strcmp(names[f], kind_names[k]))
				s->kind[f] = k;
	return 0;
}

static int read_arg(const struct op *op, struct call *call, char *word)
{
	char *value = strchr(word, '=');

	if (!value)
		return -1;
	*value++ = 0;
	for (int i = 0; i < MAX_ARGS && op->params[i].name; i++) {
		if (strcmp(op->params[i].name, word))
			continue;
		call->arg[i] = strtoul(value, NULL, 0);
		return 0;
	}
	return -1;
}

static int read_call(char *line, struct call *call)
{
	char *next, *word = strtok_r(line, " \t\n", &next);
	const struct op *op;

	*call = (struct call) { .thread = atoi(word) };
	word = strtok_r(NULL, " \t\n", &next);
	op = word ? op_find(word, &call->op) : NULL;
	if (!op || call->thread >= THREADS)
		return -1;
	while ((word = strtok_r(NULL, " \t\n", &next)))
		if (read_arg(op, call, word))
			return -1;
	return 0;
}

/* Return: 0, or -1 with a message. */
int trace_read(const char *path, struct sequence *s)
{
	FILE *file = fopen(path, "re");
	unsigned int nr = 0;
	char line[512];
	int r = 0;

	memset(s, 0, sizeof(*s));
	if (!file) {
		fprintf(stderr, "fuzz: %s: %m\n", path);
		return -1;
	}
	while (!r && fgets(line, sizeof(line), file)) {
		line[strcspn(line, "#\n")] = 0;
		nr++;
		if (!line[strspn(line, " \t")])
			continue;
		if (!strncmp(line, "sequence ", 9))
			r = read_head(line, s);
		else
			r = s->count < MAX_CALLS ? read_call(line, &s->calls[s->count++]) : -1;
	}
	fclose(file);
	if (r)
		fprintf(stderr, "fuzz: %s:%u: not understood\n", path, nr);
	return r;
}
