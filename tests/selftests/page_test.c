// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * The pages that a consumer gets, through restrictedmem_test.ko: which they are,
 * what is in them, and that they stay where they are. Indices are pages.
 */
#include "kselftest_harness.h"
#include "consumer.h"

FIXTURE(page) {
	CONSUMER_AND_FILES;
};

FIXTURE_SETUP(page)
{
	SETUP_CONSUMER_AND_FILES();
}

FIXTURE_TEARDOWN(page)
{
	TEARDOWN_CONSUMER_AND_FILES();
}

/* Pages */

TEST_F(page, page_outside_of_the_binding)
{
	int id = bind_range(self->c, self->small, 4, 8);
	struct rmt_page page;

	ASSERT_LT(0, id);
	EXPECT_FAILS(EINVAL, get_page(self->c, id, 3, 0, &page));
	EXPECT_FAILS(EINVAL, get_page(self->c, id, 8, 0, &page));
	EXPECT_FAILS(EINVAL, get_page(self->c, id, 16, 0, &page));
	EXPECT_FAILS(EINVAL, get_page(self->c, id, UINT64_MAX, 0, &page));
	EXPECT_WORKS(get_page(self->c, id, 4, 0, &page));
	EXPECT_WORKS(get_page(self->c, id, 7, 0, &page));
	EXPECT_EQ(2 * PAGE, resident(self->small));
}

TEST_F(page, new_pages_are_zero)
{
	int id = bind_range(self->c, self->small, 0, 16);

	ASSERT_LT(0, id);
	EXPECT_EQ(0, count_nonzero(self->c, id, 0, 16));
}

TEST_F(page, new_huge_page_is_zero)
{
	int id = bind_range(self->c, self->huge, 0, HUGE_PAGES);

	ASSERT_LT(0, id);
	EXPECT_EQ(0, count_nonzero(self->c, id, 0, HUGE_PAGES));
}

/* Leave as much dirt behind as may be, and look whether any of it comes back. */
TEST_F(page, pages_are_zeroed_whatever_was_there)
{
	int id = bind_range(self->c, self->huge, 0, 4 * HUGE_PAGES);
	char *dirt = mmap(NULL, 64 * MIB, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	ASSERT_LT(0, id);
	ASSERT_NE(MAP_FAILED, dirt);
	memset(dirt, 0xa5, 64 * MIB);
	ASSERT_EQ(0, munmap(dirt, 64 * MIB));
	EXPECT_EQ(0, count_nonzero(self->c, id, 0, 4 * HUGE_PAGES));
	EXPECT_EQ(4 * HUGE, resident(self->huge));
}

TEST_F(page, page_stays_the_same)
{
	int id = bind_range(self->c, self->small, 0, 16);
	uint64_t pfn;

	ASSERT_LT(0, id);
	pfn = get_pfn(self->c, id, 5);
	EXPECT_NE(0, pfn);
	EXPECT_EQ(pfn, get_pfn(self->c, id, 5));
	EXPECT_NE(pfn, get_pfn(self->c, id, 6));
	EXPECT_EQ(2 * PAGE, resident(self->small));
}

TEST_F(page, populated_page_is_used)
{
	int id = bind_range(self->c, self->small, 0, 16);

	ASSERT_LT(0, id);
	ASSERT_EQ(0, populate(self->small, 0, 16 * PAGE));
	EXPECT_NE(0, get_pfn(self->c, id, 5));
	EXPECT_EQ(16 * PAGE, resident(self->small));
}

TEST_F(page, page_outlives_unbind_and_bind)
{
	int id = bind_range(self->c, self->small, 0, 16);
	uint64_t pfn;

	ASSERT_LT(0, id);
	ASSERT_EQ(0, write_pattern(self->c, id, 0, 16));
	pfn = get_pfn(self->c, id, 5);
	ASSERT_EQ(0, unbind(self->c, id));
	id = bind_range(self->c, self->small, 4, 8);
	ASSERT_LT(0, id);
	EXPECT_EQ(pfn, get_pfn(self->c, id, 5));
	EXPECT_EQ(0, count_changed(self->c, id, 4, 8));
}

TEST_F(page, order_is_zero_without_huge_pages)
{
	int fd = create_small(2 * HUGE), id;
	struct rmt_page page;

	ASSERT_LE(0, fd);
	id = bind_range(self->c, fd, 0, 2 * HUGE_PAGES);
	ASSERT_LT(0, id);
	ASSERT_EQ(0, get_page(self->c, id, 0, 0, &page));
	EXPECT_EQ(0, page.order);
	EXPECT_EQ(PAGE, resident(fd));
	close(fd);
}

TEST_F(page, order_of_a_huge_page)
{
	int id = bind_range(self->c, self->huge, 0, 4 * HUGE_PAGES);
	struct rmt_page page;

	ASSERT_LT(0, id);
	ASSERT_EQ(0, get_page(self->c, id, HUGE_PAGES + 5, 0, &page));
	EXPECT_EQ(HUGE_ORDER, page.order);
	EXPECT_EQ(5, page.pfn % HUGE_PAGES);
	EXPECT_EQ(HUGE, resident(self->huge));
}

/* A block of the order never sticks out of the binding. */
TEST_F(page, order_is_clipped_to_the_binding)
{
	int id = bind_range(self->c, self->huge, 255, HUGE_PAGES);
	struct rmt_page page;

	ASSERT_LT(0, id);
	ASSERT_EQ(0, get_page(self->c, id, 255, 0, &page));
	EXPECT_EQ(0, page.order);
	ASSERT_EQ(0, get_page(self->c, id, 300, 0, &page));
	EXPECT_EQ(8, page.order);
	EXPECT_EQ(HUGE, resident(self->huge));
}

TEST_F(page, order_at_an_odd_end_of_the_file)
{
	int fd = create_huge(HUGE + 4 * PAGE), id;
	struct rmt_page page;

	ASSERT_LE(0, fd);
	id = bind_range(self->c, fd, 0, HUGE_PAGES + 4);
	ASSERT_LT(0, id);
	ASSERT_EQ(0, get_page(self->c, id, HUGE_PAGES, 0, &page));
	EXPECT_GE(2, page.order);
	EXPECT_GE(4 * PAGE, resident(fd));
	close(fd);
}

TEST_F(page, order_alone_allocates_nothing)
{
	int id = bind_range(self->c, self->huge, 0, 2 * HUGE_PAGES);
	struct rmt_page page;

	ASSERT_LT(0, id);
	ASSERT_EQ(0, get_page(self->c, id, 5, RMT_GET_ORDER_ONLY, &page));
	EXPECT_EQ(0, page.order);
	EXPECT_EQ(0, resident(self->huge));

	ASSERT_NE(0, get_pfn(self->c, id, 5));
	ASSERT_EQ(0, get_page(self->c, id, 7, RMT_GET_ORDER_ONLY, &page));
	EXPECT_EQ(HUGE_ORDER, page.order);
	ASSERT_EQ(0, get_page(self->c, id, 2 * HUGE_PAGES, RMT_GET_ORDER_ONLY,
			      &page));
	EXPECT_EQ(0, page.order);
}

TEST_F(page, limit_reaches_consumers)
{
	int id = bind_range(self->c, self->small, 0, 16);
	struct rmt_page page;

	ASSERT_LT(0, id);
	ASSERT_NE(0, get_pfn(self->c, id, 0));
	ASSERT_EQ(0, set_limit(resident_total()));
	EXPECT_FAILS(ENOSPC, get_page(self->c, id, 1, 0, &page));
	EXPECT_WORKS(get_page(self->c, id, 0, 0, &page));
	EXPECT_EQ(0, set_limit(0));
	EXPECT_EQ(PAGE, resident(self->small));
	EXPECT_WORKS(get_page(self->c, id, 1, 0, &page));
}

/* The store had made one before it was known that it is too much. */
TEST_F(page, refused_huge_page_is_given_back)
{
	int id = bind_range(self->c, self->huge, 0, HUGE_PAGES);
	struct rmt_page page;

	ASSERT_LT(0, id);
	ASSERT_EQ(0, set_limit(resident_total() + PAGE));
	EXPECT_FAILS(ENOSPC, get_page(self->c, id, 0, 0, &page));
	EXPECT_EQ(0, set_limit(0));
	EXPECT_EQ(0, resident(self->huge));
	EXPECT_EQ(0, cgroup_shmem(self->accounts.group));
}

/* Contents */

TEST_F(page, what_was_written_is_read)
{
	int id = bind_range(self->c, self->small, 0, 16);
	char in[3 * PAGE], out[3 * PAGE];

	ASSERT_LT(0, id);
	memset(in, 0x5a, sizeof(in));
	EXPECT_WORKS(write_data(self->c, id, 100, in, sizeof(in)));
	EXPECT_WORKS(read_data(self->c, id, 100, out, sizeof(out)));
	EXPECT_EQ(0, memcmp(in, out, sizeof(in)));
	EXPECT_WORKS(read_data(self->c, id, 0, out, 100));
	EXPECT_EQ(0, out[99]);
}

TEST_F(page, access_outside_of_the_binding)
{
	int id = bind_range(self->c, self->small, 4, 8);
	char buf[PAGE] = {};

	ASSERT_LT(0, id);
	EXPECT_FAILS(EINVAL, read_data(self->c, id, 4 * PAGE - 1, buf, 2));
	EXPECT_FAILS(EINVAL, read_data(self->c, id, 8 * PAGE - 1, buf, 2));
	EXPECT_FAILS(EINVAL, read_data(self->c, id, 8 * PAGE, buf, 1));
	EXPECT_FAILS(EINVAL, write_data(self->c, id, 8 * PAGE - 1, buf, 2));
	EXPECT_FAILS(EINVAL, read_data(self->c, id, -1ULL, buf, 1));
	EXPECT_FAILS(EINVAL, read_data(self->c, id, INT64_MAX, buf, PAGE));
	EXPECT_EQ(0, resident(self->small));
}

TEST_F(page, atomic_access_to_an_absent_page_takes_none)
{
	int id = bind_range(self->c, self->small, 0, 16);
	char buf[8] = {};

	ASSERT_LT(0, id);
	EXPECT_FAILS(EAGAIN, access_data(self->c, id, RMT_RW_ATOMIC, 0, buf, 8));
	EXPECT_FAILS(EAGAIN, access_data(self->c, id, RMT_RW_ATOMIC | RMT_RW_WRITE,
					 0, buf, 8));
	EXPECT_EQ(0, resident(self->small));
}

TEST_F(page, atomic_access_to_a_resident_page)
{
	int id = bind_range(self->c, self->small, 0, 16);
	char buf[8] = {};

	ASSERT_LT(0, id);
	ASSERT_EQ(0, populate(self->small, 0, 16 * PAGE));
	EXPECT_WORKS(access_data(self->c, id, RMT_RW_ATOMIC | RMT_RW_WRITE,
				 3 * PAGE + 16, "private", 8));
	EXPECT_WORKS(access_data(self->c, id, RMT_RW_ATOMIC, 3 * PAGE + 16, buf, 8));
	EXPECT_STREQ("private", buf);
	memset(buf, 0, sizeof(buf));
	EXPECT_WORKS(read_data(self->c, id, 3 * PAGE + 16, buf, 8));
	EXPECT_STREQ("private", buf);
}

TEST_F(page, atomic_access_stays_on_one_page)
{
	int id = bind_range(self->c, self->small, 4, 8);
	char buf[PAGE] = {};

	ASSERT_LT(0, id);
	ASSERT_EQ(0, populate(self->small, 0, 16 * PAGE));
	EXPECT_FAILS(EINVAL, access_data(self->c, id, RMT_RW_ATOMIC, 5 * PAGE - 4,
					 buf, 8));
	EXPECT_FAILS(EINVAL, access_data(self->c, id, RMT_RW_ATOMIC, 8 * PAGE,
					 buf, 8));
	EXPECT_WORKS(access_data(self->c, id, RMT_RW_ATOMIC, 5 * PAGE, buf, PAGE));
}

TEST_F(page, atomic_access_to_any_part_of_a_huge_page)
{
	int id = bind_range(self->c, self->huge, 0, HUGE_PAGES);
	uint64_t expected[PAGE / 8], page[PAGE / 8];

	ASSERT_LT(0, id);
	ASSERT_EQ(0, write_pattern(self->c, id, 0, HUGE_PAGES));
	for (uint64_t i = 0; i < HUGE_PAGES; i += 73) {
		fill_page(expected, i + 1);
		EXPECT_WORKS(access_data(self->c, id, RMT_RW_ATOMIC, i * PAGE,
					 page, PAGE));
		EXPECT_EQ(0, memcmp(expected, page, PAGE));
	}
}

TEST_F(page, mapped_page_is_the_file)
{
	int id = bind_range(self->c, self->small, 0, 16);
	char buf[8] = {};

	ASSERT_LT(0, id);
	EXPECT_WORKS(access_data(self->c, id, RMT_RW_MAP | RMT_RW_WRITE,
				 3 * PAGE + 8, "private", 8));
	EXPECT_WORKS(read_data(self->c, id, 3 * PAGE + 8, buf, 8));
	EXPECT_STREQ("private", buf);
	memset(buf, 0, sizeof(buf));
	EXPECT_WORKS(access_data(self->c, id, RMT_RW_MAP, 3 * PAGE + 8, buf, 8));
	EXPECT_STREQ("private", buf);
}

TEST_F(page, contents_outlive_the_fd_while_bound)
{
	int fd = create_small(16 * PAGE), id;
	uint64_t before = resident_total();

	ASSERT_LE(0, fd);
	id = bind_range(self->c, fd, 0, 16);
	ASSERT_LT(0, id);
	ASSERT_EQ(0, write_pattern(self->c, id, 0, 16));
	close(fd);
	EXPECT_EQ(before + 16 * PAGE, resident_total());
	EXPECT_EQ(0, count_changed(self->c, id, 0, 16));
	EXPECT_EQ(0, unbind(self->c, id));
	EXPECT_EQ(before, resident_total());
}

TEST_F(page, consumer_that_closes_lets_go_of_everything)
{
	int fd = create_small(16 * PAGE), other = consumer_open(), id;
	uint64_t before = resident_total();
	struct rmt_page page;

	ASSERT_LE(0, fd);
	id = bind_range(other, fd, 0, 16);
	ASSERT_LT(0, id);
	ASSERT_EQ(0, get_page(other, id, 0, RMT_GET_HOLD | RMT_GET_MAP, &page));
	close(fd);
	EXPECT_EQ(before + PAGE, resident_total());
	close(other);
	EXPECT_EQ(before, resident_total());
}

/* What a punch leaves */

TEST_F(page, punched_pages_read_as_zeros)
{
	int id = bind_range(self->c, self->small, 0, 16);

	ASSERT_LT(0, id);
	ASSERT_EQ(0, write_pattern(self->c, id, 0, 16));
	ASSERT_EQ(0, punch(self->small, 3 * PAGE, 2 * PAGE));
	EXPECT_EQ(14 * PAGE, resident(self->small));
	EXPECT_EQ(0, count_nonzero(self->c, id, 3, 5));
	EXPECT_EQ(0, count_changed(self->c, id, 0, 3));
	EXPECT_EQ(0, count_changed(self->c, id, 5, 16));
}

TEST_F(page, punched_part_of_a_huge_page_reads_as_zeros)
{
	int id = bind_range(self->c, self->huge, 0, 2 * HUGE_PAGES);

	ASSERT_LT(0, id);
	ASSERT_EQ(0, write_pattern(self->c, id, 0, 2 * HUGE_PAGES));
	ASSERT_EQ(0, punch(self->huge, 7 * PAGE, 3 * PAGE));
	EXPECT_EQ(2 * HUGE - 3 * PAGE, resident(self->huge));
	EXPECT_EQ(0, count_nonzero(self->c, id, 7, 10));
	EXPECT_EQ(0, count_changed(self->c, id, 0, 7));
	EXPECT_EQ(0, count_changed(self->c, id, 10, 2 * HUGE_PAGES));
	EXPECT_EQ(2 * HUGE, resident(self->huge));
}

/* A page that is held cannot be split: the hole must be zeroed in place. */
TEST_F(page, punched_part_of_a_held_huge_page_reads_as_zeros)
{
	int id = bind_range(self->c, self->huge, 0, 2 * HUGE_PAGES);
	struct rmt_page page;

	ASSERT_LT(0, id);
	ASSERT_EQ(0, write_pattern(self->c, id, 0, HUGE_PAGES));
	ASSERT_EQ(0, get_page(self->c, id, 9, RMT_GET_HOLD, &page));
	ASSERT_EQ(0, punch(self->huge, 7 * PAGE, 3 * PAGE));
	EXPECT_EQ(0, count_nonzero(self->c, id, 7, 10));
	EXPECT_EQ(0, count_changed(self->c, id, 0, 7));
	EXPECT_EQ(0, count_changed(self->c, id, 10, HUGE_PAGES));
	EXPECT_EQ(HUGE, resident(self->huge));

	/* When nobody holds it any more, the memory comes back. */
	ASSERT_EQ(0, put_page(self->c, id, 9));
	ASSERT_EQ(0, punch(self->huge, 7 * PAGE, 3 * PAGE));
	EXPECT_EQ(HUGE - 3 * PAGE, resident(self->huge));
	EXPECT_EQ(0, count_changed(self->c, id, 10, HUGE_PAGES));
}

TEST_F(page, punched_held_page_is_replaced)
{
	int id = bind_range(self->c, self->small, 0, 16);
	struct rmt_page page;

	ASSERT_LT(0, id);
	ASSERT_EQ(0, write_pattern(self->c, id, 0, 16));
	ASSERT_EQ(0, get_page(self->c, id, 3, RMT_GET_HOLD, &page));
	ASSERT_EQ(0, punch(self->small, 3 * PAGE, PAGE));
	EXPECT_EQ(15 * PAGE, resident(self->small));
	EXPECT_NE(page.pfn, get_pfn(self->c, id, 3));
	EXPECT_EQ(0, count_nonzero(self->c, id, 3, 4));
}

TEST_F(page, huge_page_comes_back_after_a_punch_of_all_of_it)
{
	int id = bind_range(self->c, self->huge, 0, 4 * HUGE_PAGES);
	struct rmt_page page;

	ASSERT_LT(0, id);
	ASSERT_EQ(0, write_pattern(self->c, id, 0, HUGE_PAGES));
	ASSERT_EQ(0, punch(self->huge, 0, HUGE));
	ASSERT_EQ(0, resident(self->huge));
	ASSERT_EQ(0, get_page(self->c, id, 0, 0, &page));
	EXPECT_EQ(HUGE_ORDER, page.order);
	EXPECT_EQ(0, count_nonzero(self->c, id, 0, HUGE_PAGES));
}

TEST_F(page, order_falls_after_a_partial_punch)
{
	int id = bind_range(self->c, self->huge, 0, HUGE_PAGES);
	struct rmt_page page;

	ASSERT_LT(0, id);
	ASSERT_EQ(0, get_page(self->c, id, 0, 0, &page));
	ASSERT_EQ(HUGE_ORDER, page.order);
	ASSERT_EQ(0, punch(self->huge, 7 * PAGE, PAGE));
	ASSERT_EQ(0, get_page(self->c, id, 0, 0, &page));
	EXPECT_EQ(0, page.order);
}

/* Nothing moves */

/*
 * Files whose pages alternate in physical memory; one is closed, so that
 * compaction has every reason to move the other's.
 */
TEST_F(page, resident_pages_do_not_move)
{
	const uint64_t pages = 4096;
	int keep = create_small(pages * PAGE), drop = create_small(pages * PAGE);
	uint64_t *pfns = calloc(pages, sizeof(*pfns)), moved = 0;
	int id;

	ASSERT_LE(0, keep);
	ASSERT_LE(0, drop);
	id = bind_range(self->c, keep, 0, pages);
	ASSERT_LT(0, id);
	for (uint64_t i = 0; i < pages; i++) {
		ASSERT_EQ(0, populate(drop, i * PAGE, PAGE));
		ASSERT_EQ(0, write_pattern(self->c, id, i, i + 1));
		pfns[i] = get_pfn(self->c, id, i);
		ASSERT_NE(0, pfns[i]);
	}
	close(drop);

	ASSERT_EQ(0, write_text("/proc/sys/vm/compact_unevictable_allowed", "1"));
	for (int i = 0; i < 3; i++) {
		ASSERT_EQ(0, write_text("/proc/sys/vm/drop_caches", "3"));
		ASSERT_EQ(0, write_text("/proc/sys/vm/compact_memory", "1"));
	}
	for (uint64_t i = 0; i < pages; i++)
		moved += get_pfn(self->c, id, i) != pfns[i];
	EXPECT_EQ(0, moved);
	EXPECT_EQ(0, count_changed(self->c, id, 0, pages));
	EXPECT_EQ(pages * PAGE, resident(keep));
	close(keep);
	free(pfns);
}

TEST_F(page, soft_offline_leaves_a_resident_page_alone)
{
	int id = bind_range(self->c, self->small, 0, 16);
	uint64_t pfn;

	ASSERT_LT(0, id);
	ASSERT_EQ(0, write_pattern(self->c, id, 0, 16));
	pfn = get_pfn(self->c, id, 3);
	ASSERT_NE(0, pfn);
	EXPECT_EQ(-1, write_text("/sys/devices/system/memory/soft_offline_page",
				 path_of("%#llx", pfn * PAGE)));
	EXPECT_EQ(pfn, get_pfn(self->c, id, 3));
	EXPECT_EQ(0, count_changed(self->c, id, 0, 16));
	EXPECT_EQ(16 * PAGE, resident(self->small));
}

TEST_HARNESS_MAIN
