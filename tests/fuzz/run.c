// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * Running a sequence: all its calls in one thread, with the model beside it, or by
 * four threads at once, of which the last one is the peer process. Threads and peer
 * stay from one sequence to the next, as do what costs much to make: consumers, VMs,
 * address space. All that a sequence makes goes at its end.
 */
#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>

#include "model.h"

const struct sequence *current;
struct shared *shared;
__thread unsigned int this_thread;
static bool peer;

/* In memory that is shared with the peer */
struct meeting {
	pthread_barrier_t begin;
	pthread_barrier_t between;
	pthread_barrier_t end;
	volatile bool quit;
};

static struct meeting *meeting;

bool is_peer(void)
{
	return peer;
}

const char *text_of(const char *format, ...)
{
	static __thread char text[400];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	return text;
}

void fail(const char *format, ...)
{
	va_list args;

	if (__atomic_exchange_n((bool *)&shared->failed, true, __ATOMIC_ACQ_REL))
		return;
	va_start(args, format);
	vsnprintf(shared->why, sizeof(shared->why), format, args);
	va_end(args);
}

static void fail_in(const struct call *call, const char *text)
{
	fail("call %td, %s: %s", call - current->calls, ops[call->op]->name, text);
}

static void execute(const struct call *call, struct result *result)
{
	memset(result, 0, sizeof(*result));
	shared->doing[this_thread] = 1 + (call - current->calls);
	ops[call->op]->execute(call, result);
	shared->doing[this_thread] = 0;
	__atomic_add_fetch(&shared->calls, 1, __ATOMIC_RELAXED);
	__atomic_add_fetch(&shared->made[call->op][!result->error], 1, __ATOMIC_RELAXED);
}

static bool is_legal(const struct op *op, int error)
{
	if (!error || !op->errors || error == NOT_DONE)
		return true;
	for (const int *e = op->errors; *e; e++)
		if (*e == error)
			return true;
	return false;
}

/* What of the sequence is this thread's */
static void run_thread(void)
{
	for (uint32_t i = 0; i < current->count && !shared->failed; i++) {
		const struct call *call = &current->calls[i];
		const struct op *op = ops[call->op];
		const char *text = NULL;
		struct result result;

		if (call->thread != this_thread)
			continue;
		execute(call, &result);
		if (!is_legal(op, result.error))
			text = text_of("result %d (%s)", result.error,
				       result.error < GOT_SIGNAL ? strerror(result.error) : "-");
		else if (op->look)
			text = op->look(call, &result);
		if (text)
			fail_in(call, text);
	}
}

static void run_sequential(void)
{
	model_reset();
	for (uint32_t i = 0; i < current->count && !shared->failed; i++) {
		const struct call *call = &current->calls[i];
		const char *text;
		struct result result;

		if (!ops[call->op]->check)
			continue;
		execute(call, &result);
		text = ops[call->op]->check(call, &result);
		if (text)
			fail_in(call, text);
	}
	if (!shared->failed) {
		const char *text = files_audit();

		if (text)
			fail("at the end, %s", text);
	}
}

/* Does any of the process's calls need a VM? */
static bool needs_vm(void)
{
	for (uint32_t i = 0; i < current->count; i++) {
		bool is_peers = current->calls[i].thread == PEER;

		if (current->calls[i].op >= first_vm_op && is_peers == peer)
			return true;
	}
	return false;
}

static void prepare(void)
{
	if (needs_vm())
		vm_init();
}

static void reset(void)
{
	consumers_reset();
	vm_reset();
	windows_reset();
	files_reset();
}

static void init(void)
{
	windows_init();
	consumers_init();
}

static void *thread(void *arg)
{
	this_thread = (uintptr_t)arg;
	for (;;) {
		pthread_barrier_wait(&meeting->begin);
		if (meeting->quit)
			return NULL;
		run_thread();
		pthread_barrier_wait(&meeting->between);
		pthread_barrier_wait(&meeting->end);
	}
}

static void peer_main(void)
{
	peer = true;
	this_thread = PEER;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	init();
	for (;;) {
		pthread_barrier_wait(&meeting->begin);
		if (meeting->quit)
			_exit(0);
		prepare();
		run_thread();
		pthread_barrier_wait(&meeting->between);
		reset();
		pthread_barrier_wait(&meeting->end);
	}
}

void runner_start(void)
{
	pthread_barrierattr_t attr;
	pthread_t id;

	meeting = mmap(NULL, sizeof(*meeting), PROT_READ | PROT_WRITE,
		       MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pthread_barrierattr_init(&attr);
	pthread_barrierattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
	pthread_barrier_init(&meeting->begin, &attr, THREADS);
	pthread_barrier_init(&meeting->between, &attr, THREADS);
	pthread_barrier_init(&meeting->end, &attr, THREADS);
	current = &shared->sequence;
	files_init();
	/* The peer's barriers and threads of its own come before ours. */
	if (!fork())
		peer_main();
	init();
	for (uintptr_t i = 1; i < PEER; i++)
		if (pthread_create(&id, NULL, thread, (void *)i)) {
			perror("fuzz: thread");
			exit(1);
		}
}

void runner_stop(void)
{
	meeting->quit = true;
	pthread_barrier_wait(&meeting->begin);
}

/* All is closed: nothing may be left. What goes, goes in a moment. */
static void check_left(void)
{
	uint64_t left = 0;

	for (int i = 0; i < 400; i++) {
		left = resident_total();
		if (!left)
			return;
		sleep_ms(10);
	}
	fail("all is closed, and %llu bytes are left", (unsigned long long)left);
}

/* Return: whether all was as it has to be; else shared->why. */
bool sequence_run(const struct sequence *s)
{
	const char *complaint;

	shared->sequence = *s;
	shared->failed = false;
	prepare();
	if (s->concurrent) {
		pthread_barrier_wait(&meeting->begin);
		run_thread();
		pthread_barrier_wait(&meeting->between);
		reset();
		pthread_barrier_wait(&meeting->end);
	} else {
		run_sequential();
		reset();
	}
	check_left();
	complaint = kernel_log_complaint();
	if (complaint)
		fail("the kernel says: %s", complaint);
	shared->sequences++;
	return !shared->failed;
}
