// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * A sequence that finds something becomes one that finds the same with fewer calls:
 * parts are left out, halves first and single calls at last, as long as it still
 * does. Each try is a process of its own. What needs luck is tried several times.
 */
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>

#include "fuzz.h"

#define CHILD_SECONDS	60

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec + ts.tv_nsec / 1e9;
}

/*
 * What is said of two failures of one kind: the words without the numbers, from the
 * operation's name on.
 */
static void kind_of(const char *why, char *kind, size_t size)
{
	const char *from = strncmp(why, "call ", 5) ? why : strchr(why, ',') ?: why;
	size_t n = 0;

	for (; *from && n + 1 < size; from++)
		if ((*from < '0' || *from > '9') && n < 60)
			kind[n++] = *from;
	kind[n] = 0;
}

static void run_child(const char *path, int out)
{
	dup2(out, STDOUT_FILENO);
	execl("/proc/self/exe", "fuzz", "-q", "-r", path, NULL);
	_exit(127);
}

/* What the child says that it found, or nothing. */
static void read_child(int fd, char *why, size_t size)
{
	struct pollfd poll_fd = { .fd = fd, .events = POLLIN };
	double end = now() + CHILD_SECONDS;
	size_t have = 0;
	ssize_t n;

	while (have + 1 < size && poll(&poll_fd, 1, (end - now()) * 1000) > 0) {
		n = read(fd, why + have, size - 1 - have);
		if (n <= 0)
			break;
		have += n;
	}
	why[have] = 0;
}

static bool still_fails(const struct sequence *s, const char *kind)
{
	char path[64], why[600], got[64], *found;
	int fds[2], status;
	FILE *file;
	pid_t pid;

	snprintf(path, sizeof(path), "/tmp/fuzz-try.%d", getpid());
	file = fopen(path, "we");
	if (!file || pipe2(fds, O_CLOEXEC))
		return false;
	trace_write(file, s, NULL);
	fclose(file);
	pid = fork();
	if (!pid)
		run_child(path, fds[1]);
	close(fds[1]);
	read_child(fds[0], why, sizeof(why));
	close(fds[0]);
	kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
	/* For who watches that something goes on */
	shared->calls++;
	found = strstr(why, "FOUND ");
	if (!found)
		return false;
	found = strstr(found, ": ");
	kind_of(found ? found + 2 : "", got, sizeof(got));
	got[strcspn(got, "\n")] = 0;
	return !strcmp(got, kind);
}

static bool fails_in(const struct sequence *s, const char *kind, int tries)
{
	while (tries--)
		if (still_fails(s, kind))
			return true;
	return false;
}

static void without(const struct sequence *s, uint32_t from, uint32_t count,
		    struct sequence *less)
{
	*less = *s;
	memmove(&less->calls[from], &s->calls[from + count],
		(s->count - from - count) * sizeof(struct call));
	less->count -= count;
}

void sequence_minimise(struct sequence *s, const char *why, double seconds)
{
	double end = now() + seconds;
	int tries = s->concurrent ? 5 : 1;
	struct sequence less;
	char kind[64];

	kind_of(why, kind, sizeof(kind));
	kind[strcspn(kind, "\n")] = 0;
	if (!fails_in(s, kind, tries))
		return;
	for (uint32_t part = s->count / 2; part; part /= 2)
		for (uint32_t from = 0; from + part <= s->count;) {
			if (now() > end)
				return;
			without(s, from, part, &less);
			if (fails_in(&less, kind, tries))
				*s = less;
			else
				from += part;
		}
}
