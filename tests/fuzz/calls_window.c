// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * Calls about windows: conversion, the windows themselves, their mappings, and what
 * is done with the memory in these, by the processor and by the kernel.
 *
 * Mapping M has MAX_PAGES pages of address space, from map_base[M] on. What of it
 * shows no window shows an empty file, so that the addresses are nobody else's.
 */
#include <sys/uio.h>
#include <sys/wait.h>

#include "access.h"
#include "model.h"

static char *map_base[MAPS];
static bool map_used[MAPS];
static int empty = -1, hold_pipe[2] = { -1, -1 };
static __thread int copy_pipe[2] = { -1, -1 };

static char *map_page(unsigned int map, uint32_t page)
{
	return map_base[map] + page * PAGE;
}

static void reserve(unsigned int map, uint32_t start, uint32_t count)
{
	if (count && mmap(map_page(map, start), count * PAGE, PROT_NONE, MAP_SHARED | MAP_FIXED,
			  empty, 0) == MAP_FAILED)
		fail("address space of mapping %u: %m", map);
}

/* convert */

enum { CONVERT_FILE, CONVERT_START, CONVERT_COUNT, CONVERT_PRIVATE, CONVERT_FLAGS, CONVERT_SKEW };

/* Mostly flags that there are */
static uint32_t convert_flags(const struct call *call)
{
	return call->arg[CONVERT_FLAGS] < 21 ? call->arg[CONVERT_FLAGS] % 3 :
					       call->arg[CONVERT_FLAGS] - 18;
}

static void convert_execute(const struct call *call, struct result *result)
{
	set_error(result, convert_to(FILE_FD + call->arg[CONVERT_FILE],
				     call->arg[CONVERT_START] * PAGE + call->arg[CONVERT_SKEW],
				     call->arg[CONVERT_COUNT] * PAGE,
				     call->arg[CONVERT_PRIVATE] % 2 ? PRIVATE : SHARED,
				     convert_flags(call), &result->done));
}

static int range_error(struct view *v, uint32_t start, uint32_t count, uint32_t skew)
{
	if (!count || skew || start + count > v->memory->pages)
		return EINVAL;
	return v->memory->flags & RESTRICTEDMEM_CREATE_IN_PLACE ? 0 : EOPNOTSUPP;
}

/* Somebody may hold a page of it, and it is not known which: it went as it went. */
static const char *convert_vaguely(const struct call *call, const struct result *result,
				   struct memory *m)
{
	bool private = call->arg[CONVERT_PRIVATE] % 2;
	uint32_t start = call->arg[CONVERT_START], end = start + call->arg[CONVERT_COUNT];
	uint64_t done = result->done / PAGE;
	bool whole = done == end;

	if (result->error && result->error != EAGAIN)
		return expect(result, EAGAIN);
	if (done < start || done > end || whole == !!result->error)
		return text_of("error_offset is page %llu after %d", (unsigned long long)done,
			       result->error);
	memory_apply_convert(m, start, done, private, convert_flags(call) != PRESERVE);
	return NULL;
}

static const char *convert_check(const struct call *call, const struct result *result)
{
	uint32_t start = call->arg[CONVERT_START], count = call->arg[CONVERT_COUNT], done;
	struct view *v = model.file[call->arg[CONVERT_FILE]];
	bool private = call->arg[CONVERT_PRIVATE] % 2;
	int error = convert_flags(call) > 2 ? EINVAL : 0;
	uint32_t where;

	if (!v)
		return expect(result, EBADF);
	if (!error)
		error = range_error(v, start, count, call->arg[CONVERT_SKEW]);
	if (error)
		return expect(result, error);
	if (private && v->memory->vague &&
	    (v->memory->maybe_held || memory_is_held(v->memory, 0, v->memory->pages, &where)))
		return convert_vaguely(call, result, v->memory);
	error = memory_convert(v->memory, start, start + count, private,
			       convert_flags(call) != PRESERVE, &done);
	if (result->error == error && result->done != done * PAGE)
		return text_of("error_offset is %#llx, not page %u",
			       (unsigned long long)result->done, done);
	return expect(result, error);
}

/* window */

enum { WINDOW_WINDOW, WINDOW_FILE, WINDOW_START, WINDOW_COUNT, WINDOW_FLAGS, WINDOW_SKEW };

static uint32_t window_flags(const struct call *call)
{
	uint32_t n = call->arg[WINDOW_FLAGS];

	return n < 30 ? n % 4 != 0 : n - 28;
}

/* Most windows begin where the memory does; concurrently, all. */
static uint32_t window_start(const struct call *call)
{
	return current->concurrent || call->arg[WINDOW_FLAGS] % 3 ? 0 : call->arg[WINDOW_START];
}

static uint32_t window_count(const struct call *call)
{
	/* All of a small memory, often */
	return call->arg[WINDOW_FLAGS] % 5 < 3 ? 8 : call->arg[WINDOW_COUNT];
}

static void window_execute(const struct call *call, struct result *result)
{
	int fd = open_window(FILE_FD + call->arg[WINDOW_FILE],
			     window_start(call) * PAGE + call->arg[WINDOW_SKEW],
			     window_count(call) * PAGE, window_flags(call));
	int where = WINDOW_FD + call->arg[WINDOW_WINDOW];

	set_error(result, fd);
	if (fd < 0)
		return;
	set_error(result, dup3(fd, where, O_CLOEXEC));
	close(fd);
}

static const char *window_check(const struct call *call, const struct result *result)
{
	struct view *v = model.file[call->arg[WINDOW_FILE]];
	uint32_t start = window_start(call), count = window_count(call);
	int error = window_flags(call) > 1 ? EINVAL : 0;

	if (!v)
		return expect(result, EBADF);
	if (!error)
		error = range_error(v, start, count, call->arg[WINDOW_SKEW]);
	if (!error)
		model_window_set(call->arg[WINDOW_WINDOW],
				 model_window_create(v, start, start + count, window_flags(call)));
	return expect(result, error);
}

static void close_window_execute(const struct call *call, struct result *result)
{
	set_error(result, close(WINDOW_FD + call->arg[0]));
}

static const char *close_window_check(const struct call *call, const struct result *result)
{
	bool open = model.window[call->arg[0]];

	model_window_set(call->arg[0], NULL);
	return expect(result, open ? 0 : EBADF);
}

/* revoke: one, or with @all = 0 all */
static void revoke_execute(const struct call *call, struct result *result)
{
	set_error(result, revoke_window(FILE_FD + call->arg[0], call->arg[2] ?
					(int)(WINDOW_FD + call->arg[1]) : -1));
}

static const char *revoke_check(const struct call *call, const struct result *result)
{
	struct window *w = model.window[call->arg[1]];
	struct view *v = model.file[call->arg[0]];

	if (!v)
		return expect(result, EBADF);
	if (call->arg[2]) {
		if (!w)
			return expect(result, EBADF);
		/* A window that was revoked remembers its view; the model does not. */
		if (!w->view)
			return result->error == EINVAL || !result->error ? NULL :
				expect(result, EINVAL);
		if (w->view != v)
			return expect(result, EINVAL);
		w->view = NULL;
		v->memory->windows--;
		return expect(result, 0);
	}
	for (int i = 0; i < MODEL_WINDOWS; i++)
		if (model.windows[i].view == v) {
			model.windows[i].view = NULL;
			v->memory->windows--;
		}
	return expect(result, 0);
}

/* map */

enum { MAP_MAP, MAP_WINDOW, MAP_START, MAP_COUNT, MAP_HOW };

static int map_prot(const struct call *call)
{
	static const int prots[] = { 3, 3, 3, 1, 1, 2, 0 };

	return prots[call->arg[MAP_HOW] % 7];
}

static int map_flags(const struct call *call)
{
	return call->arg[MAP_HOW] >= 28 ? MAP_PRIVATE : MAP_SHARED;
}

/* Most mappings are of the first eight pages. */
static uint32_t map_start(const struct call *call)
{
	return call->arg[MAP_HOW] % 4 ? 0 : call->arg[MAP_START];
}

static uint32_t map_count(const struct call *call)
{
	uint32_t count = call->arg[MAP_HOW] % 4 ? 8 : call->arg[MAP_COUNT];

	return clip(map_start(call), count);
}

static void map_execute(const struct call *call, struct result *result)
{
	unsigned int map = call->arg[MAP_MAP];
	uint32_t start = map_start(call), count = map_count(call);
	void *p;

	map_used[map] = true;
	p = mmap(map_page(map, start), count * PAGE, map_prot(call),
		 map_flags(call) | MAP_FIXED, WINDOW_FD + call->arg[MAP_WINDOW], start * PAGE);
	if (p != MAP_FAILED)
		return;
	result->error = errno;
	/* What failed late has unmapped what was there. */
	reserve(map, start, count);
}

static int map_error(const struct call *call, struct window *w)
{
	uint32_t start = map_start(call), count = map_count(call);

	if (!w)
		return EBADF;
	if (!count)
		return EINVAL;
	if (map_prot(call) & PROT_WRITE && map_flags(call) == MAP_SHARED && !w->write)
		return EACCES;
	if (!w->view)
		return ENODEV;
	if (map_flags(call) == MAP_PRIVATE || start + count > w->end - w->start)
		return EINVAL;
	return 0;
}

static const char *map_check(const struct call *call, const struct result *result)
{
	struct window *w = model.window[call->arg[MAP_WINDOW]];
	uint32_t start = map_start(call), count = map_count(call);
	struct mapped *p = model.map[call->arg[MAP_MAP]];
	int error = map_error(call, w);

	model_unmap(call->arg[MAP_MAP], start, count);
	if (error)
		return expect(result, error);
	model.areas++;
	for (uint32_t i = start; i < start + count; i++) {
		p[i] = (struct mapped) { w, w->start + i, model.areas, map_prot(call) };
		w->users++;
	}
	return expect(result, 0);
}

/* munmap, mprotect, mremap, madvise */

enum { RANGE_MAP, RANGE_START, RANGE_COUNT, RANGE_HOW };

static uint32_t range_count(const struct call *call)
{
	return clip(call->arg[RANGE_START], call->arg[RANGE_COUNT]);
}

static void unmap_execute(const struct call *call, struct result *result)
{
	/* mmap(2) in its place unmaps as munmap(2) does, and nobody slips in. */
	map_used[call->arg[RANGE_MAP]] = true;
	reserve(call->arg[RANGE_MAP], call->arg[RANGE_START], range_count(call));
}

static const char *unmap_check(const struct call *call, const struct result *result)
{
	model_unmap(call->arg[RANGE_MAP], call->arg[RANGE_START], range_count(call));
	return expect(result, 0);
}

static int protect_prot(const struct call *call)
{
	static const int prots[] = { 3, 1, 0, 2, 3 };

	return prots[call->arg[RANGE_HOW] % 5];
}

static void protect_execute(const struct call *call, struct result *result)
{
	map_used[call->arg[RANGE_MAP]] = true;
	set_error(result, mprotect(map_page(call->arg[RANGE_MAP], call->arg[RANGE_START]),
				   range_count(call) * PAGE, protect_prot(call)));
}

/* @count pages of a mapping become areas of their own. */
static void cut(struct mapped *p, uint32_t start, uint32_t count)
{
	uint32_t old = p[start].area, end = start + count;

	model.areas++;
	for (uint32_t i = start; i < end; i++)
		p[i].area = model.areas;
	model.areas++;
	for (uint32_t i = end; i < MAX_PAGES && p[i].window && p[i].area == old; i++)
		p[i].area = model.areas;
}

static const char *protect_check(const struct call *call, const struct result *result)
{
	uint32_t i = call->arg[RANGE_START], end = i + range_count(call), next;
	struct mapped *p = model.map[call->arg[RANGE_MAP]];
	int prot = protect_prot(call);

	for (; i < end; i = next) {
		next = i + 1;
		if (!p[i].window)
			continue;
		while (next < end && p[next].window && p[next].area == p[i].area)
			next++;
		if (prot & PROT_WRITE && !p[i].window->write)
			return expect(result, EACCES);
		if (p[i].prot == prot)
			continue;
		cut(p, i, next - i);
		for (uint32_t j = i; j < next; j++)
			p[j].prot = prot;
	}
	return expect(result, 0);
}

enum { MOVE_MAP, MOVE_TO, MOVE_START, MOVE_COUNT };

static uint32_t move_count(const struct call *call)
{
	return clip(call->arg[MOVE_START], call->arg[MOVE_COUNT]);
}

static void move_execute(const struct call *call, struct result *result)
{
	unsigned int from = call->arg[MOVE_MAP], to = call->arg[MOVE_TO];
	uint32_t start = call->arg[MOVE_START], count = move_count(call);
	void *p;

	if (from == to || !count) {
		result->error = NOT_DONE;
		return;
	}
	map_used[from] = true;
	map_used[to] = true;
	p = mremap(map_page(from, start), count * PAGE, count * PAGE,
		   MREMAP_MAYMOVE | MREMAP_FIXED, map_page(to, start));
	set_error(result, p == MAP_FAILED ? -1 : 0);
	reserve(p == MAP_FAILED ? to : from, start, count);
}

static const char *move_check(const struct call *call, const struct result *result)
{
	struct mapped *from = model.map[call->arg[MOVE_MAP]];
	struct mapped *to = model.map[call->arg[MOVE_TO]];
	uint32_t start = call->arg[MOVE_START], count = move_count(call);
	bool one = true;

	if (from == to || !count)
		return expect(result, NOT_DONE);
	model_unmap(call->arg[MOVE_TO], start, count);
	for (uint32_t i = start; i < start + count; i++)
		one &= from[i].window && from[i].area == from[start].area;
	/* Of what shows no window it is not known what is one area. */
	if (one || !result->error) {
		for (uint32_t i = start; i < start + count; i++)
			to[i] = from[i];
		for (uint32_t i = start; i < start + count; i++)
			if (to[i].window)
				to[i].window->users++;
		model_unmap(call->arg[MOVE_MAP], start, count);
		return expect(result, 0);
	}
	return expect(result, EFAULT);
}

static int advice_of(const struct call *call)
{
	static const int advices[] = {
		MADV_DONTNEED, MADV_DONTNEED, MADV_DONTNEED, 22 /* MADV_POPULATE_READ */,
		23 /* MADV_POPULATE_WRITE */, MADV_WILLNEED, MADV_REMOVE, MADV_PAGEOUT,
		MADV_FREE, MADV_HUGEPAGE, MADV_COLD,
	};

	return advices[call->arg[RANGE_HOW] % (sizeof(advices) / sizeof(*advices))];
}

static bool advice_populates(int advice)
{
	return advice == 22 || advice == 23;
}

static void advise_execute(const struct call *call, struct result *result)
{
	unsigned int map = call->arg[RANGE_MAP];
	int advice = advice_of(call);

	/* Whole, it would take long. */
	if (advice_populates(advice) && range_count(call) > 40) {
		result->error = NOT_DONE;
		return;
	}
	map_used[map] = true;
	set_error(result, madvise(map_page(map, call->arg[RANGE_START]),
				  range_count(call) * PAGE, advice));
}

/* May an access be? The errors are its. */
static int mapped_error(const struct mapped *p, bool write)
{
	struct window *w = p->window;

	if (!w || !(p->prot & (write ? PROT_WRITE : 3)))
		return GOT_SIGNAL;
	if (!w->view || p->page >= w->end || !w->memory->shared[p->page])
		return GOT_SIGNAL;
	return memory_touch(w->memory, p->page) ? GOT_SIGNAL : 0;
}

static const char *advise_check(const struct call *call, const struct result *result)
{
	const struct mapped *p = model.map[call->arg[RANGE_MAP]] + call->arg[RANGE_START];
	int advice = advice_of(call);

	if (!advice_populates(advice) || result->error == NOT_DONE)
		return NULL;
	/* As accesses one after the other, up to the first that is refused */
	for (uint32_t i = 0; i < range_count(call); i++)
		if (!(p[i].prot & (advice == 23 ? PROT_WRITE : PROT_READ)) ||
		    (p[i].window && p[i].window->memory->pool) ||
		    mapped_error(&p[i], advice == 23))
			return result->error ? NULL : expect(result, EFAULT);
	/* The kernel refuses some kinds of areas before it looks at any page. */
	if (result->error == EINVAL || result->error == ENOMEM)
		return NULL;
	return expect(result, 0);
}

/* Accesses */

enum { ACCESS_MAP, ACCESS_PAGE, ACCESS_WORD };

static uint64_t stamp_for(const struct call *call)
{
	return stamp_of(family_of(call->arg[ACCESS_MAP]), call->arg[ACCESS_WORD],
			call->arg[ACCESS_PAGE], STAMP_FILE, call - current->calls);
}

static void read_execute(const struct call *call, struct result *result)
{
	access_read(map_page(call->arg[ACCESS_MAP], call->arg[ACCESS_PAGE]), result);
}

static const char *seen_check(const struct call *call, const struct result *result, int error)
{
	struct mapped *p = &model.map[call->arg[ACCESS_MAP]][call->arg[ACCESS_PAGE]];
	int expected = mapped_error(p, false) ? error : 0;

	if (expected || result->error)
		return expect(result, expected);
	return expect_words(result, p->window->memory->words[p->page],
			    call->arg[ACCESS_MAP], p->page);
}

static const char *read_check(const struct call *call, const struct result *result)
{
	return seen_check(call, result, GOT_SIGNAL);
}

/* What is never shared is never seen. */
static const char *seen_look(const struct call *call, const struct result *result)
{
	unsigned int family = family_of(call->arg[ACCESS_MAP]);
	uint32_t page = call->arg[ACCESS_PAGE];

	if (result->error)
		return NULL;
	if (page >= secret_start(family))
		return text_of("page %u of mapping %u can be read, and was never shared", page,
			       call->arg[ACCESS_MAP]);
	return stamp_check(result, family, page, STAMP_SECRET | STAMP_USER);
}

static void write_execute(const struct call *call, struct result *result)
{
	access_write(map_page(call->arg[ACCESS_MAP], call->arg[ACCESS_PAGE]),
		     call->arg[ACCESS_WORD], stamp_for(call), result);
}

static const char *written_check(const struct call *call, const struct result *result, int error)
{
	struct mapped *p = &model.map[call->arg[ACCESS_MAP]][call->arg[ACCESS_PAGE]];
	int expected = mapped_error(p, true) ? error : 0;

	if (!expected)
		p->window->memory->words[p->page][call->arg[ACCESS_WORD]] = stamp_for(call);
	return expect(result, expected);
}

static const char *write_check(const struct call *call, const struct result *result)
{
	return written_check(call, result, GOT_SIGNAL);
}

/* The same, by the kernel: out of and into a pipe */

static bool have_pipe(void)
{
	if (copy_pipe[0] < 0 && pipe2(copy_pipe, O_CLOEXEC | O_NONBLOCK)) {
		fail("pipe: %m");
		return false;
	}
	return true;
}

static void copy_out_execute(const struct call *call, struct result *result)
{
	uint64_t page[PAGE / 8];
	ssize_t n;

	if (!have_pipe())
		return;
	n = write(copy_pipe[1], map_page(call->arg[ACCESS_MAP], call->arg[ACCESS_PAGE]), PAGE);
	set_error(result, n);
	if (n > 0 && read(copy_pipe[0], page, n) == n && n == PAGE)
		words_of(page, result);
}

static const char *copy_out_check(const struct call *call, const struct result *result)
{
	return seen_check(call, result, EFAULT);
}

static void copy_in_execute(const struct call *call, struct result *result)
{
	uint64_t stamp = stamp_for(call), rest;
	char *p;

	if (!have_pipe())
		return;
	set_error(result, write(copy_pipe[1], &stamp, 8));
	p = map_page(call->arg[ACCESS_MAP], call->arg[ACCESS_PAGE]);
	set_error(result, read(copy_pipe[0], p + stamp_words[call->arg[ACCESS_WORD]] * 8, 8));
	if (result->error && read(copy_pipe[0], &rest, 8) != 8)
		fail("the pipe has less than was written");
}

static const char *copy_in_check(const struct call *call, const struct result *result)
{
	return written_check(call, result, EFAULT);
}

/* hold: a page is in a pipe until all are let go */

static struct memory *held_memory[16];
static uint32_t held_page[16], nr_held;

static void hold_execute(const struct call *call, struct result *result)
{
	struct iovec iov = { map_page(call->arg[ACCESS_MAP], call->arg[ACCESS_PAGE]), 64 };

	set_error(result, vmsplice(hold_pipe[1], &iov, 1, SPLICE_F_NONBLOCK));
}

static const char *hold_check(const struct call *call, const struct result *result)
{
	struct mapped *p = &model.map[call->arg[ACCESS_MAP]][call->arg[ACCESS_PAGE]];

	if (nr_held == 15)
		return result->error == EAGAIN || result->error == EFAULT || !result->error ?
		       NULL : expect(result, EAGAIN);
	/* What takes pages wants to be allowed to read, unless the page is mapped by now. */
	if (!(p->prot & PROT_READ) && result->error == EFAULT)
		return NULL;
	if (mapped_error(p, false) || p->window->memory->pool)
		return expect(result, EFAULT);
	held_memory[nr_held] = p->window->memory;
	held_page[nr_held++] = p->page;
	p->window->memory->held[p->page]++;
	return expect(result, 0);
}

static void let_go_execute(const struct call *call, struct result *result)
{
	char bytes[64];

	while (read(hold_pipe[0], bytes, sizeof(bytes)) > 0)
		;
}

static const char *let_go_check(const struct call *call, const struct result *result)
{
	while (nr_held) {
		struct memory *m = held_memory[--nr_held];

		if (m->used && m->held[held_page[nr_held]])
			m->held[held_page[nr_held]]--;
	}
	return expect(result, 0);
}

/* fork: what the child sees is what it is to see, too */
static void fork_execute(const struct call *call, struct result *result)
{
	pid_t child = fork();
	int status;

	if (!child) {
		read_execute(call, result);
		if (current->concurrent ? seen_look(call, result) : read_check(call, result))
			_exit(1);
		_exit(0);
	}
	set_error(result, child);
	if (child > 0 && waitpid(child, &status, 0) == child)
		result->done = status;
}

static const char *fork_check(const struct call *call, const struct result *result)
{
	/* The child has touched the page. */
	mapped_error(&model.map[call->arg[ACCESS_MAP]][call->arg[ACCESS_PAGE]], false);
	return result->done ? text_of("the child sees otherwise (%#x)", (int)result->done) :
			      expect(result, 0);
}

static const char *fork_look(const struct call *call, const struct result *result)
{
	return result->done ? text_of("the child sees what it must not (%#x)",
				      (int)result->done) : NULL;
}

/* Between sequences */

void windows_init(void)
{
	access_init();
	empty = memfd_create("empty", MFD_CLOEXEC);
	if (empty < 0 || pipe2(hold_pipe, O_CLOEXEC | O_NONBLOCK)) {
		perror("fuzz: windows");
		exit(1);
	}
	for (int i = 0; i < MAPS; i++) {
		map_base[i] = mmap(NULL, MAX_PAGES * PAGE, PROT_NONE, MAP_SHARED, empty, 0);
		if (map_base[i] == MAP_FAILED) {
			perror("fuzz: windows");
			exit(1);
		}
	}
}

void windows_reset(void)
{
	let_go_execute(NULL, NULL);
	nr_held = 0;
	for (int i = 0; i < WINDOWS; i++)
		close(WINDOW_FD + i);
	for (int i = 0; i < MAPS; i++)
		if (map_used[i]) {
			reserve(i, 0, MAX_PAGES);
			map_used[i] = false;
		}
}

static const int convert_errors[] = { EBADF, EINVAL, EOPNOTSUPP, EAGAIN, 0 };
static const int window_errors[] = { EBADF, EINVAL, EOPNOTSUPP, EBUSY, 0 };
static const int bad_fd[] = { EBADF, 0 };
static const int revoke_errors[] = { EBADF, EINVAL, 0 };
static const int map_errors[] = { EBADF, EINVAL, EACCES, ENODEV, 0 };
static const int nothing[] = { 0 };
static const int protect_errors[] = { EACCES, ENOMEM, 0 };
static const int move_errors[] = { EFAULT, EINVAL, NOT_DONE, 0 };
static const int advise_errors[] = {
	EINVAL, EFAULT, ENOMEM, EBADF, EACCES, EOPNOTSUPP, EPERM, EAGAIN, NOT_DONE, 0,
};

static const int access_errors[] = { GOT_SIGNAL, 0 };
static const int copy_errors[] = { EFAULT, 0 };
static const int hold_errors[] = { EFAULT, EAGAIN, 0 };

#define ACCESS_PARAMS {							\
	{ "map", PARAM_MAP }, { "page", PARAM_START }, { "word", PARAM_WORD },	\
}

const struct op window_ops[] = {
	{
		.name = "convert", .weight = { 22, 30 }, .shares = true,
		.params = {
			{ "file", PARAM_FILE }, { "start", PARAM_START },
			{ "count", PARAM_COUNT }, { "private", PARAM_NUMBER, 1 },
			{ "flags", PARAM_NUMBER, 22 }, { "skew", PARAM_SKEW },
		},
		.execute = convert_execute, .check = convert_check, .errors = convert_errors,
	}, {
		.name = "window", .weight = { 3, 3 },
		.params = {
			{ "window", PARAM_WINDOW }, { "file", PARAM_FILE },
			{ "start", PARAM_START }, { "count", PARAM_COUNT },
			{ "flags", PARAM_NUMBER, 31 }, { "skew", PARAM_SKEW },
		},
		.execute = window_execute, .check = window_check, .errors = window_errors,
	}, {
		.name = "close_window", .weight = { 1, 1 },
		.params = { { "window", PARAM_WINDOW } },
		.execute = close_window_execute, .check = close_window_check, .errors = bad_fd,
	}, {
		.name = "revoke", .weight = { 1, 1 },
		.params = {
			{ "file", PARAM_FILE }, { "window", PARAM_WINDOW },
			{ "one", PARAM_NUMBER, 3 },
		},
		.execute = revoke_execute, .check = revoke_check, .errors = revoke_errors,
	}, {
		.name = "map", .weight = { 5, 6 },
		.params = {
			{ "map", PARAM_MAP }, { "window", PARAM_WINDOW },
			{ "start", PARAM_START }, { "count", PARAM_COUNT },
			{ "how", PARAM_NUMBER, 29 },
		},
		.execute = map_execute, .check = map_check, .errors = map_errors,
	}, {
		.name = "unmap", .weight = { 2, 2 },
		.params = {
			{ "map", PARAM_MAP }, { "start", PARAM_START },
			{ "count", PARAM_COUNT },
		},
		.execute = unmap_execute, .check = unmap_check, .errors = nothing,
	}, {
		.name = "protect", .weight = { 2, 2 },
		.params = {
			{ "map", PARAM_MAP }, { "start", PARAM_START },
			{ "count", PARAM_COUNT }, { "how", PARAM_NUMBER, 4 },
		},
		.execute = protect_execute, .check = protect_check, .errors = protect_errors,
	}, {
		.name = "move", .weight = { 3, 2 },
		.params = {
			{ "map", PARAM_MAP }, { "to", PARAM_MAP },
			{ "start", PARAM_START }, { "count", PARAM_COUNT },
		},
		.execute = move_execute, .check = move_check, .errors = move_errors,
	}, {
		.name = "advise", .weight = { 5, 6 },
		.params = {
			{ "map", PARAM_MAP }, { "start", PARAM_START },
			{ "count", PARAM_COUNT }, { "how", PARAM_NUMBER, 12 },
		},
		.execute = advise_execute, .check = advise_check, .errors = advise_errors,
	}, {
		.name = "read", .weight = { 22, 24 }, .params = ACCESS_PARAMS,
		.execute = read_execute, .check = read_check, .errors = access_errors,
		.look = seen_look,
	}, {
		.name = "write", .weight = { 16, 16 }, .params = ACCESS_PARAMS,
		.execute = write_execute, .check = write_check, .errors = access_errors,
	}, {
		.name = "copy_out", .weight = { 5, 6 }, .params = ACCESS_PARAMS,
		.execute = copy_out_execute, .check = copy_out_check, .errors = copy_errors,
		.look = seen_look,
	}, {
		.name = "copy_in", .weight = { 4, 5 }, .params = ACCESS_PARAMS,
		.execute = copy_in_execute, .check = copy_in_check, .errors = copy_errors,
	}, {
		.name = "hold", .weight = { 2, 3 }, .params = ACCESS_PARAMS,
		.execute = hold_execute, .check = hold_check, .errors = hold_errors,
	}, {
		.name = "let_go", .weight = { 4, 6 },
		.execute = let_go_execute, .check = let_go_check, .errors = nothing,
	}, {
		.name = "fork", .weight = { 1, 1 }, .params = ACCESS_PARAMS,
		.execute = fork_execute, .check = fork_check, .errors = nothing,
		.look = fork_look,
	},
	{}
};
