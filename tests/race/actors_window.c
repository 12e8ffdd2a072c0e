// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * What processes do with shared memory: look at it through windows and in the
 * user half, unmap it, fork with it, and hold pages of it for I/O.
 */
#include <sys/prctl.h>
#include <sys/uio.h>
#include <sys/wait.h>

#include "race.h"

/* In a window of its own, which is revoked under its eyes. */
static void open_and_revoke(struct player *p)
{
	struct world *w = p->world;
	int window = open_window(w->fds[1], 0, SIZE, 0);
	char *map;
	uint64_t value;

	CHECK(window >= 0);
	map = map_window(window, SIZE, PROT_READ);
	CHECK(map != MAP_FAILED);
	for (int i = 0; i < 8; i++) {
		uint64_t page = pick_page(p, 0, PAGES);

		check_shared(p, IN_PLACE + page, map + page * PAGE);
	}
	if (roll(p) % 2 && (revoke_window(w->fds[1], window) ||
			    !look_at(map, &value)))
		fail(w, "a revoked window shows something: %m");
	munmap(map, SIZE);
	close(window);
}

static void read_by_kernel(struct player *p, uint64_t page)
{
	uint64_t words[WORDS];
	struct iovec to = { words, PAGE };
	struct iovec from = { shared_page(p->world, page), PAGE };

	if (process_vm_readv(getpid(), &to, 1, &from, 1, 0) == PAGE)
		check_sink(p, page, words);
}

/* The kernel itself writes there, and is not to try for ever. */
static void write_by_kernel(struct player *p, uint64_t page)
{
	int zero = open("/dev/zero", O_RDONLY | O_CLOEXEC);
	char *at = shared_page(p->world, page) + SCRATCH_WORDS * 8;

	if (read(zero, at, IN_USE * 8) < 0 && errno != EFAULT)
		fail(p->world, "a read into page %lu: %m", (unsigned long)page);
	close(zero);
}

static void window_step(struct player *p)
{
	struct world *w = p->world;

	if (roll(p) % 16 == 0)
		open_and_revoke(p);
	for (int i = 0; i < 32; i++) {
		uint64_t page = pick_page(p, IN_PLACE, 2 * PAGES);
		int word = HOST_WORDS + roll(p) % IN_USE;
		char *at = shared_page(w, page);

		check_shared(p, page, at);
		if (roll(p) % 2)
			write_at(at + word * 8, identity(BY_HOST, w->id, page, p->steps));
		if (roll(p) % 16 == 0)
			read_by_kernel(p, page);
		if (roll(p) % 16 == 0)
			write_by_kernel(p, page);
		page = pick_page(p, SPLIT, PAGES);
		check_shared(p, page, shared_page(w, page));
	}
}

const struct actor actor_window = {
	.name = "window",
	.step = window_step,
};

/* The user half without the guest's page table */
static void unmap_user(struct player *p)
{
	struct world *w = p->world;
	uint64_t page = pick_page(p, SPLIT, PAGES), pages = 1 + roll(p) % 16;
	char *second = w->user + HUGE;

	switch (roll(p) % 4) {
	case 0:
		if (madvise(w->user, TABLE_PAGE * PAGE, MADV_DONTNEED))
			fail(w, "MADV_DONTNEED: %m");
		break;
	case 1:
		CHECK(mmap(second, HUGE, PROT_READ | PROT_WRITE, MAP_PRIVATE |
			   MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) == second);
		if (w->huge_user)
			madvise(second, HUGE, MADV_HUGEPAGE);
		break;
	default:
		if (page <= TABLE_PAGE && TABLE_PAGE < page + pages)
			page = 0;
		if (pages > PAGES - page)
			pages = PAGES - page;
		if (madvise(w->user + page * PAGE, pages * PAGE, MADV_DONTNEED))
			fail(w, "MADV_DONTNEED: %m");
	}
}

static void unmap_window(struct player *p)
{
	struct world *w = p->world;
	uint64_t page = pick_page(p, 0, PAGES);

	switch (roll(p) % 3) {
	case 0:
		CHECK(mmap(w->map, SIZE, PROT_READ | PROT_WRITE,
			   MAP_SHARED | MAP_FIXED, w->window, 0) == w->map);
		break;
	case 1:
		madvise(w->map, SIZE, MADV_DONTNEED);
		break;
	default:
		madvise(w->map + page * PAGE, PAGE, MADV_DONTNEED);
	}
}

static void unmap_step(struct player *p)
{
	for (int i = 0; i < 8; i++) {
		uint64_t page = pick_page(p, IN_PLACE, 2 * PAGES);

		check_shared(p, page, shared_page(p->world, page));
	}
	if (roll(p) % 2)
		unmap_user(p);
	else
		unmap_window(p);
}

const struct actor actor_unmap = {
	.name = "unmap",
	.step = unmap_step,
};

static void child_looks(struct player *p)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (int i = 0; i < 64; i++) {
		uint64_t page = pick_page(p, SPLIT, 3 * PAGES);

		check_shared(p, page, shared_page(p->world, page));
		if (page >= IN_PLACE && roll(p) % 4 == 0)
			write_by_kernel(p, page);
	}
	_exit(p->world->failed);
}

static void fork_step(struct player *p)
{
	int status;
	pid_t pid;

	roll(p);
	pid = fork();
	if (!pid)
		child_looks(p);
	if (roll(p) % 2) {
		sleep_ms(roll(p) % 4);
		kill(pid, SIGKILL);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		fail(p->world, "fork: %m");
	else if (WIFEXITED(status) && status)
		fail(p->world, "a child has seen something");
}

const struct actor actor_fork = {
	.name = "fork",
	.step = fork_step,
};

/* Mappings of the page's neighbours come and go, as far as they are shared. */
static void touch_neighbours(struct player *p, uint64_t page)
{
	for (int i = 0; i < 8; i++) {
		uint64_t neighbour = page ^ (1 + roll(p) % 15), value;
		char *at = shared_page(p->world, neighbour);

		if (!look_at(at, &value))
			madvise(at, PAGE, MADV_DONTNEED);
	}
}

/* Pages are held for as long as they are in a pipe. */
static void splice_step(struct player *p)
{
	struct world *w = p->world;
	uint64_t page = pick_page(p, SPLIT, 3 * PAGES), words[WORDS];
	struct iovec iov = { shared_page(w, page), PAGE };
	int fds[2];

	CHECK(!pipe(fds));
	if (vmsplice(fds[1], &iov, 1, 0) == PAGE) {
		if (page >= IN_PLACE)
			touch_neighbours(p, page);
		if (roll(p) % 4 == 0)
			sleep_ms(1 + roll(p) % 3);
		if (read(fds[0], words, PAGE) == PAGE)
			check_sink(p, page, words);
		else
			fail(w, "what is in a pipe cannot be read: %m");
	}
	close(fds[0]);
	close(fds[1]);
}

const struct actor actor_splice = {
	.name = "splice",
	.step = splice_step,
};

static void direct_begin(struct player *p)
{
	if (!p->data)
		p->data = (void *)(intptr_t)open_disk(3 * SIZE);
	CHECK((intptr_t)p->data > 0);
}

/* To a place of the page's own on the disk, and back to the page. */
static void direct_step(struct player *p)
{
	static __thread uint64_t words[WORDS] __attribute__((aligned(PAGE)));
	uint64_t page = pick_page(p, SPLIT, 3 * PAGES);
	char *at = shared_page(p->world, page);
	int disk = (intptr_t)p->data;

	/* The guest may change its table meanwhile. */
	if (page == TABLE_PAGE || pwrite(disk, at, PAGE, page * PAGE) != PAGE)
		return;
	if (pread(disk, words, PAGE, page * PAGE) != PAGE)
		fail(p->world, "the disk cannot be read: %m");
	check_sink(p, page, words);
	if (pread(disk, at, PAGE, page * PAGE) != PAGE && errno != EFAULT)
		fail(p->world, "direct I/O to page %lu: %m", (unsigned long)page);
}

const struct actor actor_direct = {
	.name = "direct",
	.begin = direct_begin,
	.step = direct_step,
};
