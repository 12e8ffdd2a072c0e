// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * Memory errors: who is told, what is lost, and what is not.
 */
#include "kselftest_harness.h"
#include "poison.h"
#include "window.h"

#define BAD	5	/* the page that has the error */

FIXTURE(poison) {
	CONSUMER_AND_FILES;
	int fd;
	uint64_t pages;
	int id;
};

FIXTURE_VARIANT(poison) {
	bool huge;
};

FIXTURE_VARIANT_ADD(poison, small) {
	.huge = false,
};

FIXTURE_VARIANT_ADD(poison, huge) {
	.huge = true,
};

FIXTURE_SETUP(poison)
{
	SETUP_CONSUMER_AND_FILES();
	ASSERT_EQ(0, hwpoison_init());
	self->fd = variant->huge ? self->huge : self->small;
	self->pages = variant->huge ? HUGE_PAGES : 16;
	self->id = bind_range(self->c, self->fd, 0, self->pages);
	ASSERT_LT(0, self->id);
	ASSERT_EQ(0, write_pattern(self->c, self->id, 0, self->pages));
	ASSERT_EQ(variant->huge ? HUGE : 16 * PAGE, resident(self->fd));
}

FIXTURE_TEARDOWN(poison)
{
	TEARDOWN_CONSUMER_AND_FILES();
}

/* An error on page BAD; done when the file knows. */
#define POISON() do {							\
	uint64_t _pfn = get_pfn(self->c, self->id, BAD);		\
	ASSERT_NE(0, _pfn);						\
	poison_pfn(_pfn);						\
	self->accounts.errors += PAGE;					\
	ASSERT_EQ(0, wait_poisoned(self->fd, PAGE));			\
} while (0)

TEST_F(poison, lost_page_is_refused)
{
	struct rmt_page page;
	char byte;

	POISON();
	EXPECT_FAILS(EHWPOISON, get_page(self->c, self->id, BAD, 0, &page));
	EXPECT_FAILS(EHWPOISON, get_page(self->c, self->id, BAD, 0, &page));
	EXPECT_FAILS(EHWPOISON, read_data(self->c, self->id, BAD * PAGE, &byte, 1));
	EXPECT_FAILS(EHWPOISON, write_data(self->c, self->id, BAD * PAGE, &byte, 1));
	EXPECT_EQ(-1, access_data(self->c, self->id, RMT_RW_ATOMIC, BAD * PAGE,
				  &byte, 1));
	EXPECT_FAILS(EHWPOISON, populate(self->fd, 0, self->pages * PAGE));
}

TEST_F(poison, neighbours_are_served_and_intact)
{
	POISON();
	EXPECT_EQ(0, count_changed(self->c, self->id, 0, BAD));
	EXPECT_EQ(0, count_changed(self->c, self->id, BAD + 1, self->pages));
	EXPECT_NE(0, get_pfn(self->c, self->id, BAD - 1));
	EXPECT_NE(0, get_pfn(self->c, self->id, BAD + 1));
}

TEST_F(poison, consumer_is_told_once)
{
	struct rmt_page page;
	struct rmt_events got = {};

	ASSERT_EQ(0, get_page(self->c, self->id, BAD, RMT_GET_MAP, &page));
	ASSERT_EQ(0, ioctl(self->c, RMT_EVENTS, &got));
	POISON();
	EXPECT_TOLD_ONCE(self->c, BAD, variant->huge ? 0 : BAD,
			 variant->huge ? HUGE_PAGES : BAD + 1);
}

TEST_F(poison, who_is_bound_elsewhere_is_not_told)
{
	int other = consumer_open(), id;
	struct rmt_events got = {};

	ASSERT_EQ(0, unbind(self->c, self->id));
	self->id = bind_range(self->c, self->fd, 0, 8);
	ASSERT_LT(0, self->id);
	ASSERT_EQ(0, ioctl(other, RMT_SET_OWNER, self->c));
	id = bind_range(other, self->fd, 8, 16);
	ASSERT_LT(0, id);
	POISON();
	ASSERT_EQ(0, ioctl(other, RMT_EVENTS, &got));
	/* The rest of its huge page it has to let go of. */
	EXPECT_EQ(variant->huge ? 2 : 0, got.count);
	close(other);
}

TEST_F(poison, page_that_nobody_has_bound)
{
	struct rmt_page page;
	uint64_t pfn = get_pfn(self->c, self->id, BAD);

	ASSERT_NE(0, pfn);
	ASSERT_EQ(0, unbind(self->c, self->id));
	poison_pfn(pfn);
	self->accounts.errors += PAGE;
	ASSERT_EQ(0, wait_poisoned(self->fd, PAGE));
	self->id = bind_range(self->c, self->fd, 0, 8);
	ASSERT_LT(0, self->id);
	EXPECT_FAILS(EHWPOISON, get_page(self->c, self->id, BAD, 0, &page));
	EXPECT_EQ(0, count_changed(self->c, self->id, 0, BAD));
}

TEST_F(poison, punch_brings_a_healthy_page)
{
	uint64_t pfn = get_pfn(self->c, self->id, BAD);

	POISON();
	ASSERT_EQ(0, punch(self->fd, BAD * PAGE, PAGE));
	EXPECT_EQ(0, fdinfo_number(self->fd, "poisoned"));
	EXPECT_NE(0, get_pfn(self->c, self->id, BAD));
	EXPECT_NE(pfn, get_pfn(self->c, self->id, BAD));
	EXPECT_EQ(0, count_nonzero(self->c, self->id, BAD, BAD + 1));
	EXPECT_EQ(0, count_changed(self->c, self->id, BAD + 1, self->pages));
}

TEST_F(poison, whole_punch_clears_it_too)
{
	POISON();
	ASSERT_EQ(0, punch(self->fd, 0, self->pages * PAGE));
	EXPECT_EQ(0, fdinfo_number(self->fd, "poisoned"));
	EXPECT_EQ(0, resident(self->fd));
	EXPECT_EQ(0, populate(self->fd, 0, self->pages * PAGE));
	EXPECT_EQ(0, count_nonzero(self->c, self->id, 0, self->pages));
}

/* The kernel has it back, and keeps it: nobody may count it any more. */
TEST_F(poison, lost_page_is_not_counted)
{
	POISON();
	EXPECT_EQ((self->pages - 1) * PAGE, resident(self->fd));
	EXPECT_EQ(self->resident + (self->pages - 1) * PAGE, resident_total());
}

TEST_F(poison, error_on_a_page_that_was_ours)
{
	uint64_t pfn = get_pfn(self->c, self->id, BAD);

	ASSERT_NE(0, pfn);
	ASSERT_EQ(0, punch(self->fd, 0, self->pages * PAGE));
	poison_pfn(pfn);
	sleep_ms(50);
	EXPECT_EQ(0, fdinfo_number(self->fd, "poisoned"));
}

/* All around it is new, and may be one huge page with the mark in it. */
TEST_F(poison, new_pages_around_a_lost_one)
{
	struct rmt_page page;

	POISON();
	ASSERT_EQ(0, punch(self->fd, 0, BAD * PAGE));
	ASSERT_EQ(0, punch(self->fd, (BAD + 1) * PAGE,
			   (self->pages - BAD - 1) * PAGE));
	ASSERT_NE(0, get_pfn(self->c, self->id, BAD - 1));
	EXPECT_FAILS(EHWPOISON, get_page(self->c, self->id, BAD, 0, &page));
	ASSERT_EQ(0, get_page(self->c, self->id, BAD - 1, 0, &page));
	EXPECT_EQ(0, page.order);
	ASSERT_EQ(0, punch(self->fd, BAD * PAGE, PAGE));
	EXPECT_NE(0, get_pfn(self->c, self->id, BAD));
	EXPECT_EQ(0, count_nonzero(self->c, self->id, 0, self->pages));
}

TEST_F(poison, several_errors)
{
	for (uint64_t i = 0; i < 8; i += 2)
		poison_pfn(get_pfn(self->c, self->id, i));
	self->accounts.errors += 4 * PAGE;
	ASSERT_EQ(0, wait_poisoned(self->fd, 4 * PAGE));
	for (uint64_t i = 1; i < 8; i += 2)
		EXPECT_EQ(0, count_changed(self->c, self->id, i, i + 1));
	ASSERT_EQ(0, punch(self->fd, 0, 3 * PAGE));
	EXPECT_EQ(2 * PAGE, fdinfo_number(self->fd, "poisoned"));
}

/* A page that is shared and mapped by a process. Large and small folios alike */
TEST_F(poison, shared_page_is_taken_from_windows)
{
	const struct restrictedmem_create args = {
		.size = sizeof(args),
		.flags = RESTRICTEDMEM_CREATE_IN_PLACE,
		.length = HUGE,
		.thp = variant->huge ? RESTRICTEDMEM_THP_ALWAYS : RESTRICTEDMEM_THP_NEVER,
	};
	int fd = create_with(&args), win, id;
	uint64_t *map, pfn;

	catch_sigbus();
	win = open_window(fd, 0, HUGE, RESTRICTEDMEM_WINDOW_WRITE);
	map = map_window(win, HUGE, PROT_READ | PROT_WRITE);
	ASSERT_NE(MAP_FAILED, map);
	id = bind_range(self->c, fd, 0, HUGE_PAGES);
	ASSERT_LT(0, id);
	ASSERT_EQ(0, convert(fd, 0, HUGE, SHARED, 0));
	ASSERT_EQ(0, poke(map + BAD * 512, 42));
	ASSERT_EQ(0, poke(map + (BAD + 1) * 512, 43));
	pfn = get_pfn(self->c, id, BAD);
	ASSERT_NE(0, pfn);
	poison_pfn(pfn);
	self->accounts.errors += PAGE;
	ASSERT_EQ(0, wait_poisoned(fd, PAGE));
	/* A fault for the page before takes it for no neighbour. */
	EXPECT_TRUE(is_visible(map + (BAD - 1) * 512));
	EXPECT_FALSE(is_visible(map + BAD * 512));
	EXPECT_EQ(BUS_MCEERR_AR, sigbus_code);
	EXPECT_EQ(43, map[(BAD + 1) * 512]);
	/* What is lost cannot be kept, but it can be forgotten. */
	EXPECT_FAILS(EHWPOISON, convert(fd, BAD * PAGE, PAGE, PRIVATE, PRESERVE));
	EXPECT_WORKS(convert(fd, BAD * PAGE, PAGE, PRIVATE, ZERO));
	ASSERT_EQ(0, punch(fd, BAD * PAGE, PAGE));
	EXPECT_WORKS(convert(fd, BAD * PAGE, PAGE, SHARED, PRESERVE));
	EXPECT_EQ(0, map[BAD * 512]);
	ASSERT_EQ(0, unbind(self->c, id));
	munmap(map, HUGE);
	close(win);
	close(fd);
}

TEST_HARNESS_MAIN
