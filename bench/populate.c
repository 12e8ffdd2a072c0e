// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * What it costs to fill a file, and whether threads can share the work.
 */
#include <pthread.h>

#include "bench.h"
#include "consumer.h"
#include "hugetlb.h"

#define SIZE		(256 * MIB)
#define MAX_THREADS	2

struct work {
	int fd;
	unsigned int threads;
};

struct part {
	pthread_t thread;
	int fd;
	uint64_t offset;
	uint64_t len;
};

static void *populate_part(void *arg)
{
	struct part *part = arg;

	CHECK(!populate(part->fd, part->offset, part->len));
	return NULL;
}

/* Return: ms to fill the file, by one or more threads. */
static double fill(void *arg)
{
	struct work *work = arg;
	struct part parts[MAX_THREADS];
	double begin;

	CHECK(!punch(work->fd, 0, SIZE));
	CHECK(!resident(work->fd));
	begin = now_ns();
	for (unsigned int i = 0; i < work->threads; i++) {
		parts[i].fd = work->fd;
		parts[i].len = SIZE / work->threads;
		parts[i].offset = i * parts[i].len;
		CHECK(!pthread_create(&parts[i].thread, NULL, populate_part,
				      &parts[i]));
	}
	for (unsigned int i = 0; i < work->threads; i++)
		CHECK(!pthread_join(parts[i].thread, NULL));
	begin = now_ns() - begin;
	CHECK(resident(work->fd) == SIZE);
	return begin / 1e6;
}

/* Return: ms that the kernel's clear_page takes for as much. */
static double clear_pages(void *arg)
{
	struct rmt_clear clear = { .bytes = SIZE };

	CHECK(!ioctl(*(int *)arg, RMT_CLEAR, &clear));
	return clear.ns / 1e6;
}

static double fill_memfd(void *arg)
{
	int fd = memfd_create("bench", MFD_CLOEXEC);
	double begin;

	CHECK(fd >= 0);
	CHECK(!ftruncate(fd, SIZE));
	begin = now_ns();
	CHECK(!fallocate(fd, 0, 0, SIZE));
	begin = now_ns() - begin;
	CHECK(resident(fd) == SIZE);
	close(fd);
	return begin / 1e6;
}

static void figures(const char *name, int fd, const char *order, int consumer,
		    const char *goal)
{
	struct work one = { fd, 1 }, two = { fd, MAX_THREADS };

	CHECK(fd >= 0);
	CHECK(!populate(fd, 0, SIZE));
	CHECK(fdinfo_number(fd, order) == SIZE);
	take_figure(&(struct figure){
		.what = "populate 256 MiB",
		.unit = "ms",
		.goal = goal,
		.rounds = 5,
		.ours = { name, fill, &one },
		.peer = { "clear_page", clear_pages, &consumer },
	});
	if (sysconf(_SC_NPROCESSORS_ONLN) >= MAX_THREADS)
		take_figure(&(struct figure){
			.what = "populate 256 MiB, by two threads",
			.unit = "ms",
			.rounds = 5,
			.ours = { name, fill, &two },
			.peer = { "one thread", fill, &one },
		});
	close(fd);
}

int main(void)
{
	int consumer = consumer_open();

	CHECK(consumer >= 0);
	figures("THP", create_huge(SIZE), "resident_order9", consumer, "1.1");
	CHECK(pool_resize(HUGE, SIZE / HUGE) == SIZE / HUGE);
	figures("pool, 2 MiB", create_pooled(HUGE, SIZE, 0), "resident_order9",
		consumer, "1.1");
	CHECK(!pool_resize(HUGE, 0));
	figures("4 KiB", create_small(SIZE), "resident_order0", consumer, NULL);
	take_figure(&(struct figure){
		.what = "populate 256 MiB",
		.unit = "ms",
		.rounds = 5,
		.ours = { "4 KiB", fill,
			  &(struct work){ create_small(SIZE), 1 } },
		.peer = { "memfd", fill_memfd },
	});
	return 0;
}
