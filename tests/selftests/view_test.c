// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * Views: several files on one memory, and which of them may have bindings.
 */
#include <sys/resource.h>

#include "kselftest_harness.h"
#include "consumer.h"

/* "small" has a second view, and "other" is a second owner. */
FIXTURE(view) {
	CONSUMER_AND_FILES;
	int other;
	int link;
};

FIXTURE_SETUP(view)
{
	SETUP_CONSUMER_AND_FILES();
	self->other = consumer_open();
	ASSERT_LE(0, self->other);
	self->link = link_view(self->small);
	ASSERT_LE(0, self->link);
}

FIXTURE_TEARDOWN(view)
{
	close(self->link);
	EXPECT_EQ(0, violations(self->other));
	close(self->other);
	TEARDOWN_CONSUMER_AND_FILES();
}

/* The ioctl */

TEST_F(view, link_is_a_file_on_the_same_memory)
{
	struct stat a, b;

	ASSERT_EQ(0, fstat(self->small, &a));
	ASSERT_EQ(0, fstat(self->link, &b));
	EXPECT_EQ(a.st_ino, b.st_ino);
	EXPECT_EQ(a.st_size, b.st_size);
	EXPECT_EQ(FD_CLOEXEC, fcntl(self->link, F_GETFD));
	ASSERT_EQ(0, populate(self->small, 0, 3 * PAGE));
	EXPECT_EQ(3 * PAGE, resident(self->link));
	ASSERT_EQ(0, punch(self->link, 0, 2 * PAGE));
	EXPECT_EQ(PAGE, resident(self->small));
}

TEST_F(view, link_is_as_closed_as_the_file)
{
	char byte;

	EXPECT_FAILS(EINVAL, read(self->link, &byte, 1));
	EXPECT_FAILS(EINVAL, write(self->link, &byte, 1));
	EXPECT_EQ(MAP_FAILED, mmap(NULL, PAGE, PROT_READ, MAP_SHARED,
				   self->link, 0));
	EXPECT_EQ(ENODEV, errno);
}

TEST_F(view, link_of_a_link)
{
	int fd = link_view(self->link);

	ASSERT_LE(0, fd);
	ASSERT_EQ(0, populate(fd, 0, PAGE));
	EXPECT_EQ(PAGE, resident(self->small));
	close(fd);
}

TEST_F(view, link_with_wrong_arguments)
{
	struct {
		struct restrictedmem_link args;
		uint64_t tail;
	} longer = { .args.size = sizeof(longer) };
	struct restrictedmem_link args = { .size = sizeof(args) };
	int fd;

	for (int bit = 0; bit < 32; bit++) {
		args.flags = 1U << bit;
		EXPECT_FAILS(EINVAL, ioctl(self->small, RESTRICTEDMEM_LINK, &args));
	}
	args.flags = 0;
	args.size = 4;
	EXPECT_FAILS(EINVAL, ioctl(self->small, RESTRICTEDMEM_LINK, &args));
	EXPECT_FAILS(EFAULT, ioctl(self->small, RESTRICTEDMEM_LINK, NULL));
	fd = ioctl(self->small, RESTRICTEDMEM_LINK, &longer);
	EXPECT_LE(0, fd);
	close(fd);
	longer.tail = 1;
	EXPECT_FAILS(E2BIG, ioctl(self->small, RESTRICTEDMEM_LINK, &longer));
}

TEST_F(view, link_is_an_ioctl_of_files_alone)
{
	int dev = device_open();
	struct restrictedmem_info info = { .size = sizeof(info) };

	EXPECT_FAILS(ENOTTY, link_view(dev));
	EXPECT_FAILS(ENOTTY, ioctl(self->small, RESTRICTEDMEM_INFO, &info));
	EXPECT_FAILS(ENOTTY, ioctl(self->small, RESTRICTEDMEM_CREATE, &info));
	close(dev);
}

TEST_F(view, link_without_a_free_descriptor_changes_nothing)
{
	long refs = module_refs("restrictedmem");
	struct rlimit old, none = {};

	ASSERT_EQ(0, getrlimit(RLIMIT_NOFILE, &old));
	none.rlim_max = old.rlim_max;
	ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &none));
	EXPECT_FAILS(EMFILE, link_view(self->small));
	ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &old));
	EXPECT_EQ(refs, module_refs("restrictedmem"));
}

TEST_F(view, size_is_set_once_for_all_views)
{
	int a = create_small(0), b;

	ASSERT_LE(0, a);
	b = link_view(a);
	ASSERT_LE(0, b);
	ASSERT_EQ(0, ftruncate(b, PAGE));
	EXPECT_EQ(PAGE, fdinfo_number(a, "size"));
	EXPECT_FAILS(EINVAL, ftruncate(a, 2 * PAGE));
	close(a);
	close(b);
}

TEST_F(view, memory_lives_as_long_as_a_view)
{
	int a = create_small(PAGE), b, id;
	char byte = 42;

	ASSERT_LE(0, a);
	b = link_view(a);
	ASSERT_LE(0, b);
	id = bind_range(self->c, a, 0, 1);
	ASSERT_LT(0, id);
	ASSERT_EQ(0, write_data(self->c, id, 7, &byte, 1));
	ASSERT_EQ(0, unbind(self->c, id));
	close(a);
	id = bind_range(self->other, b, 0, 1);
	ASSERT_LT(0, id);
	byte = 0;
	EXPECT_EQ(0, read_data(self->other, id, 7, &byte, 1));
	EXPECT_EQ(42, byte);
	close(b);
}

/* Owners, and who may bind */

TEST_F(view, view_has_an_owner_of_its_own)
{
	int id = bind_range(self->c, self->small, 0, 16);

	ASSERT_LT(0, id);
	EXPECT_EQ(0, fdinfo_number(self->link, "owner"));
	ASSERT_EQ(0, unbind(self->c, id));
	ASSERT_LT(0, bind_range(self->other, self->link, 0, 16));
	EXPECT_NE(fdinfo_number(self->small, "owner"),
		  fdinfo_number(self->link, "owner"));
	EXPECT_FAILS(EBUSY, bind_range(self->c, self->link, 0, 16));
}

TEST_F(view, one_view_at_a_time_has_bindings)
{
	int id = bind_range(self->c, self->small, 0, 4);

	ASSERT_LT(0, id);
	EXPECT_FAILS(EBUSY, bind_range(self->other, self->link, 0, 4));
	EXPECT_FAILS(EBUSY, bind_range(self->other, self->link, 8, 9));
	/* Not even the same owner's. */
	EXPECT_FAILS(EBUSY, bind_range(self->c, self->link, 8, 9));
	EXPECT_LT(0, bind_range(self->c, self->small, 8, 9));
}

TEST_F(view, refused_bind_claims_nothing)
{
	ASSERT_LT(0, bind_range(self->c, self->small, 0, 4));
	ASSERT_EQ(-1, bind_range(self->other, self->link, 0, 4));
	EXPECT_EQ(0, fdinfo_number(self->link, "owner"));
	EXPECT_EQ(0, fdinfo_number(self->link, "view_bindings"));
}

TEST_F(view, last_unbind_hands_the_contents_over)
{
	int a = bind_range(self->c, self->small, 0, 8);
	int b = bind_range(self->c, self->small, 8, 16);

	ASSERT_LT(0, a);
	ASSERT_LT(0, b);
	ASSERT_EQ(0, write_pattern(self->c, a, 0, 8));
	ASSERT_EQ(0, unbind(self->c, a));
	EXPECT_FAILS(EBUSY, bind_range(self->other, self->link, 0, 16));
	ASSERT_EQ(0, unbind(self->c, b));

	a = bind_range(self->other, self->link, 0, 16);
	ASSERT_LT(0, a);
	EXPECT_EQ(0, count_changed(self->other, a, 0, 8));
	EXPECT_FAILS(EBUSY, bind_range(self->c, self->small, 0, 1));
}

TEST_F(view, owners_end_hands_the_contents_over)
{
	int id = bind_range(self->other, self->small, 0, 16);

	ASSERT_LT(0, id);
	ASSERT_EQ(0, write_pattern(self->other, id, 0, 16));
	EXPECT_FAILS(EBUSY, bind_range(self->c, self->link, 0, 16));
	close(self->other);
	self->other = consumer_open();
	id = bind_range(self->c, self->link, 0, 16);
	ASSERT_LT(0, id);
	EXPECT_EQ(0, count_changed(self->c, id, 0, 16));
}

TEST_F(view, fdinfo_tells_whose_bindings_they_are)
{
	ASSERT_LT(0, bind_range(self->c, self->small, 0, 4));
	EXPECT_EQ(1, fdinfo_number(self->small, "bindings"));
	EXPECT_EQ(1, fdinfo_number(self->small, "view_bindings"));
	EXPECT_EQ(1, fdinfo_number(self->link, "bindings"));
	EXPECT_EQ(0, fdinfo_number(self->link, "view_bindings"));
}

/* Side by side */

TEST_F(view, side_by_side_if_created_so)
{
	int a = create_flagged(16 * PAGE, RESTRICTEDMEM_CREATE_VIEWS);
	int b = link_view(a), ida, idb;

	ASSERT_LE(0, a);
	ASSERT_LE(0, b);
	ida = bind_range(self->c, a, 0, 16);
	idb = bind_range(self->other, b, 4, 12);
	ASSERT_LT(0, ida);
	ASSERT_LT(0, idb);
	ASSERT_EQ(0, write_pattern(self->c, ida, 0, 16));
	EXPECT_EQ(0, count_changed(self->other, idb, 4, 12));
	EXPECT_NE(0, get_pfn(self->c, ida, 5));
	EXPECT_EQ(get_pfn(self->c, ida, 5), get_pfn(self->other, idb, 5));
	close(a);
	close(b);
}

TEST_F(view, side_by_side_everybody_is_notified)
{
	int a = create_flagged(16 * PAGE, RESTRICTEDMEM_CREATE_VIEWS);
	int b = link_view(a);
	struct rmt_page page;
	struct rmt_event events[4];
	struct rmt_events got = { .buf = (uintptr_t)events, .count = 4 };
	int ida, idb;

	ASSERT_LE(0, b);
	ida = bind_range(self->c, a, 0, 16);
	idb = bind_range(self->other, b, 0, 16);
	ASSERT_LT(0, ida);
	ASSERT_LT(0, idb);
	ASSERT_EQ(0, get_page(self->c, ida, 5, RMT_GET_MAP, &page));
	ASSERT_EQ(0, get_page(self->other, idb, 5, RMT_GET_MAP, &page));
	ASSERT_EQ(0, punch(b, 5 * PAGE, PAGE));
	ASSERT_EQ(0, ioctl(self->c, RMT_EVENTS, &got));
	EXPECT_EQ(2, got.count);
	EXPECT_EQ(0, got.mapped);
	got.count = 4;
	ASSERT_EQ(0, ioctl(self->other, RMT_EVENTS, &got));
	EXPECT_EQ(2, got.count);
	EXPECT_EQ(0, got.mapped);
	close(a);
	close(b);
}

TEST_F(view, side_by_side_one_owner_still_has_no_aliases)
{
	int a = create_flagged(16 * PAGE, RESTRICTEDMEM_CREATE_VIEWS);
	int b = link_view(a);

	ASSERT_LE(0, b);
	ASSERT_LT(0, bind_range(self->c, a, 0, 8));
	EXPECT_FAILS(EBUSY, bind_range(self->c, b, 4, 12));
	EXPECT_LT(0, bind_range(self->c, b, 8, 12));
	EXPECT_FAILS(EBUSY, bind_range(self->c, a, 11, 12));
	EXPECT_LT(0, bind_range(self->other, link_view(a), 4, 12));
	close(a);
	close(b);
}

TEST_F(view, side_by_side_and_aliases)
{
	int a = create_flagged(16 * PAGE, RESTRICTEDMEM_CREATE_VIEWS |
			       RESTRICTEDMEM_CREATE_ALIASES);
	int b = link_view(a);

	ASSERT_LE(0, b);
	ASSERT_LT(0, bind_range(self->c, a, 0, 8));
	EXPECT_LT(0, bind_range(self->c, b, 4, 12));
	EXPECT_LT(0, bind_range(self->c, a, 4, 12));
	close(a);
	close(b);
}

/* A bind that comes to nothing */

TEST_F(view, cancelled_bind_claims_nothing)
{
	int id = bind_range(self->c, self->small, 0, 4);

	ASSERT_LT(0, id);
	ASSERT_EQ(0, cancel(self->c, id));
	EXPECT_EQ(0, fdinfo_number(self->small, "owner"));
	EXPECT_EQ(0, fdinfo_number(self->small, "bindings"));
	EXPECT_LT(0, bind_range(self->other, self->small, 0, 4));
}

TEST_F(view, cancelled_bind_leaves_an_earlier_claim)
{
	int id = bind_range(self->c, self->small, 0, 4);

	ASSERT_LT(0, id);
	ASSERT_EQ(0, unbind(self->c, id));
	id = bind_range(self->c, self->small, 0, 4);
	ASSERT_LT(0, id);
	ASSERT_EQ(0, cancel(self->c, id));
	EXPECT_FAILS(EBUSY, bind_range(self->other, self->small, 0, 4));
}

TEST_F(view, cancelled_bind_leaves_a_later_claim)
{
	int a = bind_range(self->c, self->small, 0, 4);
	int b = bind_range(self->c, self->small, 4, 8);

	ASSERT_LT(0, a);
	ASSERT_LT(0, b);
	ASSERT_EQ(0, cancel(self->c, a));
	EXPECT_FAILS(EBUSY, bind_range(self->other, self->small, 0, 4));
	ASSERT_EQ(0, unbind(self->c, b));
	EXPECT_FAILS(EBUSY, bind_range(self->other, self->small, 0, 4));
}

TEST_HARNESS_MAIN
