// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * Bindings, through the consumer in restrictedmem_test.ko: who may bind what, and
 * what a binding keeps alive. Ranges are in pages, [start, end).
 */
#include "kselftest_harness.h"
#include "consumer.h"

FIXTURE(bind) {
	CONSUMER_AND_FILES;
};

FIXTURE_SETUP(bind)
{
	SETUP_CONSUMER_AND_FILES();
}

FIXTURE_TEARDOWN(bind)
{
	TEARDOWN_CONSUMER_AND_FILES();
}

/* Binding */

TEST_F(bind, bind_takes_no_other_file)
{
	int null = open("/dev/null", O_RDWR), dev = device_open();
	int memfd = memfd_create("x", 0);

	ASSERT_EQ(0, ftruncate(memfd, PAGE));
	EXPECT_FAILS(EINVAL, bind_range(self->c, null, 0, 1));
	EXPECT_FAILS(EINVAL, bind_range(self->c, dev, 0, 1));
	EXPECT_FAILS(EINVAL, bind_range(self->c, memfd, 0, 1));
	EXPECT_FAILS(EINVAL, bind_range(self->c, self->c, 0, 1));
}

TEST_F(bind, bind_refuses_an_empty_range)
{
	EXPECT_FAILS(EINVAL, bind_range(self->c, self->small, 0, 0));
	EXPECT_FAILS(EINVAL, bind_range(self->c, self->small, 3, 3));
	EXPECT_FAILS(EINVAL, bind_range(self->c, self->small, 4, 3));
}

TEST_F(bind, bind_refuses_what_is_beyond_the_end)
{
	EXPECT_FAILS(EINVAL, bind_range(self->c, self->small, 0, 17));
	EXPECT_FAILS(EINVAL, bind_range(self->c, self->small, 16, 17));
	EXPECT_FAILS(EINVAL, bind_range(self->c, self->small, 0, UINT64_MAX));
	EXPECT_FAILS(EINVAL, bind_range(self->c, self->small, UINT64_MAX - 1,
					UINT64_MAX));
	EXPECT_FAILS(EINVAL, bind_range(self->c, self->small, 0, 1ULL << 52));
}

TEST_F(bind, bind_reaches_to_the_very_end)
{
	EXPECT_LT(0, bind_range(self->c, self->small, 0, 16));
}

TEST_F(bind, bind_needs_a_size)
{
	int fd = create_small(0);

	ASSERT_LE(0, fd);
	EXPECT_FAILS(EINVAL, bind_range(self->c, fd, 0, 1));
	ASSERT_EQ(0, ftruncate(fd, PAGE));
	EXPECT_LT(0, bind_range(self->c, fd, 0, 1));
	close(fd);
}

TEST_F(bind, overlap_is_refused)
{
	ASSERT_LT(0, bind_range(self->c, self->small, 4, 8));
	EXPECT_FAILS(EBUSY, bind_range(self->c, self->small, 4, 8));
	EXPECT_FAILS(EBUSY, bind_range(self->c, self->small, 3, 5));
	EXPECT_FAILS(EBUSY, bind_range(self->c, self->small, 7, 9));
	EXPECT_FAILS(EBUSY, bind_range(self->c, self->small, 5, 6));
	EXPECT_FAILS(EBUSY, bind_range(self->c, self->small, 0, 16));
}

TEST_F(bind, neighbours_are_no_overlap)
{
	ASSERT_LT(0, bind_range(self->c, self->small, 4, 8));
	EXPECT_LT(0, bind_range(self->c, self->small, 0, 4));
	EXPECT_LT(0, bind_range(self->c, self->small, 8, 16));
	EXPECT_EQ(3, fdinfo_number(self->small, "bindings"));
}

TEST_F(bind, unbound_range_can_be_bound_again)
{
	int id = bind_range(self->c, self->small, 0, 16);

	ASSERT_LT(0, id);
	ASSERT_EQ(0, unbind(self->c, id));
	EXPECT_EQ(0, fdinfo_number(self->small, "bindings"));
	EXPECT_LT(0, bind_range(self->c, self->small, 0, 16));
}

TEST_F(bind, first_bind_claims_the_file)
{
	ASSERT_EQ(0, fdinfo_number(self->small, "owner"));
	ASSERT_LT(0, bind_range(self->c, self->small, 0, 1));
	EXPECT_LT(0, fdinfo_number(self->small, "owner"));
}

TEST_F(bind, failed_bind_claims_nothing)
{
	int other = consumer_open();

	ASSERT_LE(0, other);
	ASSERT_EQ(-1, bind_range(other, self->small, 0, 17));
	ASSERT_EQ(-1, bind_range(other, self->small, 1, 1));
	EXPECT_EQ(0, fdinfo_number(self->small, "owner"));
	EXPECT_EQ(0, fdinfo_number(self->small, "bindings"));
	EXPECT_LT(0, bind_range(self->c, self->small, 0, 1));
	close(other);
}

TEST_F(bind, second_owner_is_refused)
{
	int other = consumer_open();

	ASSERT_LE(0, other);
	ASSERT_LT(0, bind_range(self->c, self->small, 0, 4));
	EXPECT_FAILS(EBUSY, bind_range(other, self->small, 0, 4));
	EXPECT_FAILS(EBUSY, bind_range(other, self->small, 8, 9));
	close(other);
}

TEST_F(bind, owner_stays_after_the_last_unbind)
{
	int other = consumer_open(), id;

	ASSERT_LE(0, other);
	id = bind_range(self->c, self->small, 0, 4);
	ASSERT_LT(0, id);
	ASSERT_EQ(0, unbind(self->c, id));
	EXPECT_FAILS(EBUSY, bind_range(other, self->small, 0, 4));
	EXPECT_LT(0, bind_range(self->c, self->small, 0, 4));
	close(other);
}

TEST_F(bind, owner_stays_after_its_death)
{
	int other = consumer_open();

	ASSERT_LE(0, other);
	ASSERT_LT(0, bind_range(other, self->small, 0, 4));
	close(other);
	EXPECT_EQ(0, fdinfo_number(self->small, "bindings"));
	EXPECT_FAILS(EBUSY, bind_range(self->c, self->small, 0, 4));
}

TEST_F(bind, one_owner_may_have_several_consumers)
{
	int other = consumer_open();

	ASSERT_LE(0, other);
	ASSERT_EQ(0, ioctl(other, RMT_SET_OWNER, self->c));
	ASSERT_LT(0, bind_range(self->c, self->small, 0, 4));
	EXPECT_LT(0, bind_range(other, self->small, 4, 8));
	EXPECT_FAILS(EBUSY, bind_range(other, self->small, 0, 4));
	close(other);
}

/* Aliases */

TEST_F(bind, aliases_are_allowed_to_a_file_made_for_them)
{
	int fd = create_aliased(16 * PAGE);

	ASSERT_LE(0, fd);
	ASSERT_LT(0, bind_range(self->c, fd, 0, 8));
	EXPECT_LT(0, bind_range(self->c, fd, 4, 12));
	EXPECT_LT(0, bind_range(self->c, fd, 0, 8));
	close(fd);
}

TEST_F(bind, aliases_are_not_for_a_second_owner)
{
	int fd = create_aliased(16 * PAGE), other = consumer_open();

	ASSERT_LE(0, fd);
	ASSERT_LE(0, other);
	ASSERT_LT(0, bind_range(self->c, fd, 0, 8));
	EXPECT_FAILS(EBUSY, bind_range(other, fd, 4, 12));
	close(fd);
	close(other);
}

TEST_F(bind, aliases_see_the_same_page)
{
	int fd = create_aliased(16 * PAGE), a, b;

	ASSERT_LE(0, fd);
	a = bind_range(self->c, fd, 0, 8);
	b = bind_range(self->c, fd, 4, 12);
	ASSERT_LT(0, a);
	ASSERT_LT(0, b);
	EXPECT_NE(0, get_pfn(self->c, a, 5));
	EXPECT_EQ(get_pfn(self->c, a, 5), get_pfn(self->c, b, 5));
	close(fd);
}

/* The modules */

TEST_F(bind, file_holds_the_module)
{
	long refs = module_refs("restrictedmem");
	int fd = create_small(PAGE);

	ASSERT_LE(0, fd);
	EXPECT_LT(refs, module_refs("restrictedmem"));
	EXPECT_FAILS(EAGAIN, unload_module("restrictedmem"));
	close(fd);
	EXPECT_EQ(refs, module_refs("restrictedmem"));
}

TEST_F(bind, binding_holds_the_modules)
{
	long refs = module_refs("restrictedmem");
	long consumer_refs = module_refs("restrictedmem_test");
	int fd = create_small(PAGE), id;

	ASSERT_LE(0, fd);
	id = bind_range(self->c, fd, 0, 1);
	ASSERT_LT(0, id);
	close(fd);
	EXPECT_LT(refs, module_refs("restrictedmem"));
	EXPECT_LT(consumer_refs, module_refs("restrictedmem_test"));
	EXPECT_FAILS(EAGAIN, unload_module("restrictedmem"));
	EXPECT_FAILS(EAGAIN, unload_module("restrictedmem_test"));
	ASSERT_EQ(0, unbind(self->c, id));
	EXPECT_EQ(refs, module_refs("restrictedmem"));
	EXPECT_EQ(consumer_refs, module_refs("restrictedmem_test"));
}

TEST(consumer_module_unloads_when_it_is_idle)
{
	int c = consumer_open(), fd = create_small(PAGE);

	ASSERT_LE(0, c);
	ASSERT_LE(0, fd);
	ASSERT_LT(0, bind_range(c, fd, 0, 1));
	ASSERT_FALSE(!unload_module("restrictedmem_test"));
	close(c);
	EXPECT_EQ(0, unload_module("restrictedmem_test"));
	/* The file it had is still good. */
	EXPECT_EQ(0, populate(fd, 0, PAGE));
}

TEST_HARNESS_MAIN
