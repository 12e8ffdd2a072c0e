// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * The delays that tests of races use: they are where they are asked for, in the
 * threads that are asked for, and are gone afterwards.
 */
#include "kselftest_harness.h"
#include "delay.h"

/* A function of the module that each fallocate(2) of ours comes by */
#define PLACE	"restrictedmem:rm_fallocate"

FIXTURE(delay) {
	int fd;
	int file;
};

FIXTURE_SETUP(delay)
{
	self->fd = delay_open();
	self->file = create_small(MIB);
	ASSERT_LE(0, self->file);
}

FIXTURE_TEARDOWN(delay)
{
	close(self->file);
	close(self->fd);
}

TEST_F(delay, entry_and_return_wait)
{
	int entry = delay_add(self->fd, PLACE, 1000, 0);
	int leave = delay_add(self->fd, PLACE, 1000, RMD_RETURN);

	EXPECT_WORKS(populate(self->file, 0, PAGE));
	EXPECT_EQ(1, delay_waits(self->fd, entry));
	EXPECT_EQ(1, delay_waits(self->fd, leave));
}

TEST_F(delay, other_threads_alone)
{
	int place = delay_add(self->fd, PLACE, 10, RMD_OTHER_THREADS);

	EXPECT_WORKS(populate(self->file, 0, PAGE));
	EXPECT_EQ(0, delay_waits(self->fd, place));
}

TEST_F(delay, some_calls)
{
	int place = delay_add_some(self->fd, PLACE, 10, RMD_RANDOM, 50, 7);
	int i;

	for (i = 0; i < 200; i++)
		EXPECT_WORKS(populate(self->file, 0, PAGE));
	EXPECT_LT(50, delay_waits(self->fd, place));
	EXPECT_GT(150, delay_waits(self->fd, place));
}

TEST_F(delay, ends_with_its_file)
{
	int other = delay_open();
	int place = delay_add(self->fd, PLACE, 10, 0);

	delay_add(other, PLACE, 10, 0);
	close(other);
	EXPECT_WORKS(populate(self->file, 0, PAGE));
	EXPECT_EQ(1, delay_waits(self->fd, place));
	EXPECT_WORKS(ioctl(self->fd, RMD_CLEAR));
	EXPECT_WORKS(populate(self->file, 0, PAGE));
}

static void count_it(void *arg)
{
	int *count = arg;

	sleep_ms(50);
	(*count)++;
}

/* It has happened by the time that the call goes on, and once. */
TEST_F(delay, held_until_it_is_done)
{
	struct meanwhile m;
	int count = 0;

	meanwhile_start(&m, PLACE, count_it, &count);
	EXPECT_WORKS(populate(self->file, 0, PAGE));
	EXPECT_EQ(1, count);
	EXPECT_WORKS(populate(self->file, 0, PAGE));
	EXPECT_EQ(1, meanwhile_end(&m));
	EXPECT_EQ(1, count);
	meanwhile_start(&m, PLACE, count_it, &count);
	EXPECT_EQ(0, meanwhile_end(&m));
	EXPECT_EQ(1, count);
}

TEST_F(delay, refuses_what_it_cannot_do)
{
	struct rmd_place place = { .symbol = "rm_no_such_function",
				   .percent = 100 };

	EXPECT_FAILS(ENOENT, ioctl(self->fd, RMD_ADD, &place));
	place.usec = RMD_MAX_USEC + 1;
	EXPECT_FAILS(EINVAL, ioctl(self->fd, RMD_ADD, &place));
	place.usec = 0;
	place.percent = 0;
	EXPECT_FAILS(EINVAL, ioctl(self->fd, RMD_ADD, &place));
	place.percent = 100;
	place.usec = 1;
	place.flags = RMD_HOLD;
	EXPECT_FAILS(EINVAL, ioctl(self->fd, RMD_ADD, &place));
	place.flags = ~0U;
	EXPECT_FAILS(EINVAL, ioctl(self->fd, RMD_ADD, &place));
	EXPECT_FAILS(ENOTTY, ioctl(self->fd, 0));
}

TEST_HARNESS_MAIN
