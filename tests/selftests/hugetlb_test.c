// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * Files whose pages come from the system's pool of 2 MiB pages: the pool is
 * exact at all times, and nothing is taken from it that was not asked for.
 */
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>

#include "kselftest_harness.h"
#include "accounting.h"
#include "hostile.h"
#include "delay.h"
#include "hugetlb.h"
#include "poison.h"

#define POOL_PAGES	16
#define FILE_PAGES	8
#define SIZE		(FILE_PAGES * HUGE)

#define FREE()		pool_count(HUGE, "free_hugepages")
#define RESERVED()	pool_count(HUGE, "resv_hugepages")

/* What somebody has let go of is freed a moment later. */
static void until_all_are_free(void)
{
	for (int i = 0; i < 500 && FREE() != POOL_PAGES; i++)
		sleep_ms(10);
}

/*
 * @lost: pages with an error that this test made, which the kernel keeps
 * @stuck: the same, of earlier tests
 */
FIXTURE(pool) {
	int c;
	int fd;
	int id;
	int lost;
	int stuck;
	uint64_t resident;
	uint64_t charged;
	struct accounts accounts;
};

FIXTURE_SETUP(pool)
{
	ASSERT_EQ(0, accounts_begin(&self->accounts));
	self->resident = resident_total();
	self->charged = charged();
	self->stuck = pool_resize(HUGE, 0);
	pool_resize(HUGE, POOL_PAGES + self->stuck);
	ASSERT_EQ(POOL_PAGES, FREE());
	self->c = consumer_open();
	ASSERT_LE(0, self->c);
	self->fd = create_pooled(HUGE, SIZE, 0);
	ASSERT_LE(0, self->fd);
	self->id = bind_range(self->c, self->fd, 0, SIZE / PAGE);
	ASSERT_LT(0, self->id);
}

FIXTURE_TEARDOWN(pool)
{
	EXPECT_EQ(0, violations(self->c));
	close(self->c);
	self->accounts.errors = self->lost * HUGE;
	EXPECT_STREQ("", accounts_differ(&self->accounts));
	close(self->fd);
	EXPECT_STREQ("", accounts_end(&self->accounts));
	EXPECT_EQ(0, RESERVED());
	EXPECT_EQ(POOL_PAGES - self->lost, FREE());
	EXPECT_EQ(self->resident, resident_total());
	pool_resize(HUGE, 0);
}

/* Give the pool away, but for some pages. */
#define LEAVE_IN_POOL(_pages) ({					\
	int _fd = create_pooled(HUGE, POOL_PAGES * HUGE, 0);		\
									\
	ASSERT_EQ(0, populate(_fd, 0, (POOL_PAGES - (_pages)) * HUGE));	\
	ASSERT_EQ(_pages, FREE());					\
	_fd;								\
})

TEST_F(pool, info_has_its_page_sizes)
{
	struct restrictedmem_info info;

	ASSERT_EQ(0, get_info(&info));
	EXPECT_TRUE(info.page_sizes[RESTRICTEDMEM_STORE_HUGETLB] & HUGE);
	EXPECT_EQ(pool_count(GIB, "nr_hugepages") >= 0,
		  !!(info.page_sizes[RESTRICTEDMEM_STORE_HUGETLB] & GIB));
}

TEST_F(pool, file_says_what_it_is)
{
	struct stat st;

	EXPECT_STREQ("hugetlb", fdinfo(self->fd, "store"));
	EXPECT_EQ(HUGE, fdinfo_number(self->fd, "page_size"));
	EXPECT_EQ(0, fdinfo_number(self->fd, "reserved"));
	ASSERT_EQ(0, fstat(self->fd, &st));
	EXPECT_EQ(HUGE, st.st_blksize);
	EXPECT_EQ(SIZE, st.st_size);
	EXPECT_EQ(0, st.st_blocks);
	EXPECT_EQ(POOL_PAGES, FREE());
}

TEST_F(pool, smallest_page_size_is_the_default)
{
	int fd = create_pooled(0, HUGE, 0);

	ASSERT_LE(0, fd);
	EXPECT_EQ(HUGE, fdinfo_number(fd, "page_size"));
	close(fd);
}

TEST_F(pool, sizes_are_whole_huge_pages)
{
	int fd;

	EXPECT_FAILS(EINVAL, create_pooled(PAGE, HUGE, 0));
	EXPECT_FAILS(EINVAL, create_pooled(HUGE, HUGE + PAGE, 0));
	EXPECT_FAILS(EINVAL, create_pooled(HUGE, PAGE, 0));
	fd = create_pooled(HUGE, 0, 0);
	ASSERT_LE(0, fd);
	EXPECT_FAILS(EINVAL, ftruncate(fd, HUGE + PAGE));
	EXPECT_EQ(0, ftruncate(fd, 2 * HUGE));
	EXPECT_FAILS(EINVAL, ftruncate(fd, HUGE));
	close(fd);
}

TEST_F(pool, ranges_are_whole_huge_pages)
{
	ASSERT_EQ(0, populate(self->fd, 0, SIZE));
	EXPECT_FAILS(EINVAL, populate(self->fd, PAGE, HUGE));
	EXPECT_FAILS(EINVAL, populate(self->fd, 0, HUGE - PAGE));
	EXPECT_FAILS(EINVAL, punch(self->fd, PAGE, HUGE));
	EXPECT_FAILS(EINVAL, punch(self->fd, HUGE, HUGE + PAGE));
	EXPECT_FAILS(EINVAL, populate(self->fd, 0, SIZE + HUGE));
	EXPECT_EQ(SIZE, resident(self->fd));
}

TEST_F(pool, populate_takes_exactly_that)
{
	ASSERT_EQ(0, populate(self->fd, HUGE, 3 * HUGE));
	EXPECT_EQ(POOL_PAGES - 3, FREE());
	EXPECT_EQ(3 * HUGE, resident(self->fd));
	EXPECT_EQ(3 * HUGE, fdinfo_number(self->fd, "resident_order9"));
	EXPECT_EQ(self->resident + 3 * HUGE, resident_total());
	ASSERT_EQ(0, populate(self->fd, 0, SIZE));
	EXPECT_EQ(POOL_PAGES - FILE_PAGES, FREE());
}

/* Every range, against a model: the pages lie in several files. */
TEST_F(pool, any_range_can_be_punched)
{
	for (int start = 0; start < FILE_PAGES; start++) {
		for (int end = start + 1; end <= FILE_PAGES; end++) {
			ASSERT_EQ(0, populate(self->fd, 0, SIZE));
			ASSERT_EQ(0, write_pattern(self->c, self->id, 0, 1));
			ASSERT_EQ(0, punch(self->fd, start * HUGE,
					   (end - start) * HUGE));
			ASSERT_EQ(POOL_PAGES - FILE_PAGES + end - start, FREE());
			ASSERT_EQ(SIZE - (end - start) * HUGE,
				  resident(self->fd));
			ASSERT_EQ(start == 0 ? 1 : 0,
				  count_changed(self->c, self->id, 0, 1));
		}
	}
}

TEST_F(pool, each_page_is_its_own)
{
	for (int i = 0; i < FILE_PAGES; i++)
		ASSERT_EQ(0, write_pattern(self->c, self->id, i * HUGE_PAGES + i,
					   i * HUGE_PAGES + i + 1));
	for (int i = 0; i < FILE_PAGES; i++) {
		uint64_t page = i * HUGE_PAGES;

		EXPECT_EQ(0, count_changed(self->c, self->id, page + i,
					   page + i + 1));
		EXPECT_EQ(0, count_nonzero(self->c, self->id, page + i + 1,
					   page + i + 20));
	}
}

TEST_F(pool, fault_takes_one_huge_page)
{
	struct rmt_page page;

	ASSERT_EQ(0, get_page(self->c, self->id, 2 * HUGE_PAGES + 77, 0, &page));
	EXPECT_EQ(9, page.order);
	EXPECT_EQ(77, page.pfn % HUGE_PAGES);
	EXPECT_EQ(POOL_PAGES - 1, FREE());
	EXPECT_EQ(page.pfn + 1, get_pfn(self->c, self->id, 2 * HUGE_PAGES + 78));
}

TEST_F(pool, order_is_clipped_to_the_binding)
{
	struct rmt_page page;

	ASSERT_EQ(0, unbind(self->c, self->id));
	self->id = bind_range(self->c, self->fd, 1, HUGE_PAGES);
	ASSERT_LT(0, self->id);
	ASSERT_EQ(0, get_page(self->c, self->id, 300, 0, &page));
	EXPECT_EQ(8, page.order);
}

TEST_F(pool, pages_come_back_zeroed)
{
	ASSERT_EQ(0, write_pattern(self->c, self->id, 0, 64));
	ASSERT_EQ(0, punch(self->fd, 0, SIZE));
	ASSERT_EQ(0, populate(self->fd, 0, SIZE));
	EXPECT_EQ(0, count_nonzero(self->c, self->id, 0, SIZE / PAGE));
}

TEST_F(pool, punch_notifies_whole_pages)
{
	struct rmt_page page;
	struct rmt_event events[4];
	struct rmt_events got = { .buf = (uintptr_t)events, .count = 4 };

	ASSERT_EQ(0, get_page(self->c, self->id, 5, RMT_GET_MAP, &page));
	ASSERT_EQ(0, ioctl(self->c, RMT_EVENTS, &got));
	ASSERT_EQ(0, punch(self->fd, 0, HUGE));
	got.count = 4;
	ASSERT_EQ(0, ioctl(self->c, RMT_EVENTS, &got));
	ASSERT_EQ(2, got.count);
	EXPECT_EQ(0, events[0].start);
	EXPECT_EQ(HUGE_PAGES, events[0].end);
	EXPECT_EQ(1, events[0].mapped);
}

TEST_F(pool, page_that_a_consumer_holds_goes_back_when_it_lets_go)
{
	struct rmt_page page;

	ASSERT_EQ(0, get_page(self->c, self->id, 5, RMT_GET_HOLD, &page));
	ASSERT_EQ(0, punch(self->fd, 0, HUGE));
	EXPECT_EQ(0, resident(self->fd));
	EXPECT_EQ(POOL_PAGES - 1, FREE());
	ASSERT_EQ(0, put_page(self->c, self->id, 5));
	/* It is found within a second, and at once by who needs it. */
	until_all_are_free();
	EXPECT_EQ(POOL_PAGES, FREE());
}

/*
 * A page that leaves a file with a reservation while somebody holds it is still the
 * reservation's: the pool's account is right when all is over.
 */
TEST_F(pool, held_page_of_a_reservation_spoils_no_account)
{
	int fd = create_pooled(HUGE, POOL_PAGES * HUGE, RESTRICTEDMEM_CREATE_RESERVE);
	struct rmt_page page;
	int id;

	ASSERT_LE(0, fd);
	EXPECT_EQ(POOL_PAGES, RESERVED());
	id = bind_range(self->c, fd, 0, HUGE_PAGES);
	ASSERT_LT(0, id);
	ASSERT_EQ(0, get_page(self->c, id, 5, RMT_GET_HOLD, &page));
	ASSERT_EQ(0, populate(fd, 0, POOL_PAGES * HUGE));
	ASSERT_EQ(0, punch(fd, 0, HUGE));
	/* There is none, until it is let go. */
	EXPECT_FAILS(ENOSPC, populate(fd, 0, HUGE));
	ASSERT_EQ(0, put_page(self->c, id, 5));
	EXPECT_EQ(0, populate(fd, 0, HUGE));
	ASSERT_EQ(0, unbind(self->c, id));
	close(fd);
	for (int i = 0; i < 500 && (RESERVED() || FREE() != POOL_PAGES); i++)
		sleep_ms(10);
	EXPECT_EQ(0, RESERVED());
	EXPECT_EQ(POOL_PAGES, FREE());
}

/*
 * Nothing is set aside for a file that is gone, whoever holds a page of it: the pool's
 * account does not wait for that page.
 */
TEST_F(pool, held_page_keeps_no_reservation)
{
	int fd = create_pooled(HUGE, POOL_PAGES * HUGE, RESTRICTEDMEM_CREATE_RESERVE);
	int holder = consumer_open();
	struct rmt_page page;
	int id;

	ASSERT_LE(0, fd);
	ASSERT_LE(0, holder);
	id = bind_range(holder, fd, 0, HUGE_PAGES);
	ASSERT_LT(0, id);
	ASSERT_EQ(0, get_page(holder, id, 5, RMT_GET_HOLD, &page));
	ASSERT_EQ(0, unbind_keep(holder, id));
	ASSERT_EQ(0, populate(fd, 0, 4 * HUGE));
	EXPECT_EQ(POOL_PAGES - 4, RESERVED());
	close(fd);
	EXPECT_EQ(0, RESERVED());
	EXPECT_EQ(POOL_PAGES - 1, FREE());
	EXPECT_EQ(self->charged + HUGE, charged());
	close(holder);
	until_all_are_free();
	EXPECT_EQ(0, RESERVED());
	EXPECT_EQ(POOL_PAGES, FREE());
	EXPECT_EQ(self->charged, charged());
}

/*
 * A page that is held when it is punched is no longer the reservation's. The one that
 * takes its place counts anew, and there may be no room for it.
 */
TEST_F(pool, held_pages_of_a_reservation_stay_within_the_limit)
{
	int fd = create_pooled(HUGE, 4 * HUGE, RESTRICTEDMEM_CREATE_RESERVE);
	int holder = consumer_open();
	struct rmt_page page;
	int id;

	ASSERT_LE(0, fd);
	ASSERT_LE(0, holder);
	EXPECT_EQ(self->charged + 4 * HUGE, charged());
	ASSERT_EQ(0, set_limit(self->charged + 4 * HUGE));
	id = bind_range(holder, fd, 0, 4 * HUGE_PAGES);
	ASSERT_LT(0, id);
	for (int i = 0; i < 2; i++)
		ASSERT_EQ(0, get_page(holder, id, i * HUGE_PAGES, RMT_GET_HOLD, &page));
	EXPECT_WORKS(punch(fd, 0, 4 * HUGE));
	EXPECT_EQ(2 * HUGE, fdinfo_number(fd, "reserved"));
	EXPECT_EQ(2, RESERVED());
	EXPECT_EQ(self->charged + 4 * HUGE, charged());
	EXPECT_FAILS(ENOSPC, populate(fd, 0, 3 * HUGE));
	EXPECT_EQ(2 * HUGE, resident(fd));
	EXPECT_EQ(self->charged + 4 * HUGE, charged());
	ASSERT_EQ(0, unbind(holder, id));
	EXPECT_WORKS(populate(fd, 0, 4 * HUGE));
	EXPECT_EQ(4 * HUGE, resident(fd));
	EXPECT_EQ(self->charged + 4 * HUGE, charged());
	EXPECT_EQ(2 * HUGE, fdinfo_number(fd, "reserved"));
	/* What was beyond the reservation goes first. */
	EXPECT_WORKS(punch(fd, 0, HUGE));
	EXPECT_EQ(self->charged + 3 * HUGE, charged());
	EXPECT_EQ(0, RESERVED());
	EXPECT_WORKS(punch(fd, 0, 4 * HUGE));
	EXPECT_EQ(self->charged + 2 * HUGE, charged());
	EXPECT_EQ(2, RESERVED());
	close(fd);
	EXPECT_EQ(0, RESERVED());
	EXPECT_EQ(self->charged, charged());
	EXPECT_EQ(0, set_limit(0));
	close(holder);
}

struct freer {
	int holder;
	int other;
};

/* Lets a page go, and sees to it that it is freed. */
static void free_page(void *arg)
{
	struct freer *f = arg;

	close(f->holder);
	populate(f->other, 0, HUGE);
}

/* A page is let go while a fill that found none has not yet given its claim back. */
TEST_F(pool, page_freed_beside_a_failing_fill_spoils_no_account)
{
	int fd = create_pooled(HUGE, POOL_PAGES * HUGE, RESTRICTEDMEM_CREATE_RESERVE);
	struct freer f = {
		.holder = consumer_open(),
		.other = create_pooled(HUGE, HUGE, 0),
	};
	struct meanwhile meanwhile;
	struct rmt_page page;
	int id;

	ASSERT_LE(0, fd);
	ASSERT_LE(0, f.holder);
	ASSERT_LE(0, f.other);
	id = bind_range(f.holder, fd, 0, HUGE_PAGES);
	ASSERT_LT(0, id);
	ASSERT_EQ(0, get_page(f.holder, id, 0, RMT_GET_HOLD, &page));
	ASSERT_EQ(0, populate(fd, 0, POOL_PAGES * HUGE));
	EXPECT_WORKS(punch(fd, 0, HUGE));
	meanwhile_start(&meanwhile, "hugetlb_cgroup_uncharge_cgroup", free_page, &f);
	EXPECT_FAILS(ENOSPC, populate(fd, 0, HUGE));
	EXPECT_LT(0, meanwhile_end(&meanwhile));
	EXPECT_EQ(HUGE, resident(f.other));
	close(fd);
	close(f.other);
	until_all_are_free();
	EXPECT_EQ(0, RESERVED());
	EXPECT_EQ(POOL_PAGES, FREE());
}

/* A cgroup that may have no page, for the process and for good. */
static void enter_poor_cgroup(const char *group)
{
	CHECK(!cgroup_make(group));
	CHECK(!write_text(path_of("%s/hugetlb.2MB.rsvd.max", group), "0"));
	CHECK(!cgroup_enter(group));
}

/* Nor may one come while a fill that failed has not yet given its claim back. */
TEST_F(pool, fill_beside_a_failing_fill_spoils_no_account)
{
	const char *group = CGROUP "/rm-test-poor";
	int fd = create_pooled(HUGE, 2 * HUGE, RESTRICTEDMEM_CREATE_RESERVE);
	int holder = consumer_open(), delay = delay_open(), place, status;
	struct rmt_page page;
	pid_t child;
	int id;

	ASSERT_LE(0, fd);
	ASSERT_LE(0, holder);
	id = bind_range(holder, fd, 0, HUGE_PAGES);
	ASSERT_LT(0, id);
	ASSERT_EQ(0, get_page(holder, id, 0, RMT_GET_HOLD, &page));
	ASSERT_EQ(0, unbind_keep(holder, id));
	EXPECT_WORKS(punch(fd, 0, HUGE));
	EXPECT_EQ(1, RESERVED());
	place = delay_add(delay, "hugetlb_cgroup_charge_cgroup_rsvd", 20000,
			  RMD_OTHER_THREADS);
	child = fork();
	if (!child) {
		enter_poor_cgroup(group);
		_exit(!populate(fd, 0, HUGE) || errno != ENOSPC);
	}
	while (!delay_waits(delay, place))
		;
	EXPECT_WORKS(populate(fd, HUGE, HUGE));
	ASSERT_EQ(child, waitpid(child, &status, 0));
	EXPECT_EQ(0, status);
	rmdir(group);
	close(delay);
	EXPECT_WORKS(punch(fd, HUGE, HUGE));
	EXPECT_EQ(1, RESERVED());
	close(fd);
	EXPECT_EQ(0, RESERVED());
	close(holder);
	until_all_are_free();
	EXPECT_EQ(POOL_PAGES, FREE());
}

struct refusal {
	int fd;
	int other;
	pthread_t thread;
};

static void *punch_second(void *arg)
{
	CHECK(!punch(*(int *)arg, HUGE, HUGE));
	return NULL;
}

/* Another file takes the room, and a punch waits until the refused fill is done. */
static void take_the_room(void *arg)
{
	struct refusal *r = arg;

	CHECK(!populate(r->other, 0, HUGE));
	CHECK(!pthread_create(&r->thread, NULL, punch_second, &r->fd));
	sleep_ms(50);
}

/* The page that was refused is still in the file while one that is held leaves it. */
TEST_F(pool, refused_page_is_not_the_reservation_s)
{
	struct refusal r = {
		.fd = create_pooled(HUGE, 2 * HUGE, RESTRICTEDMEM_CREATE_RESERVE),
		.other = create_pooled(HUGE, HUGE, 0),
	};
	int holder = consumer_open();
	struct meanwhile meanwhile;
	struct rmt_page page;
	int id;

	ASSERT_LE(0, r.fd);
	ASSERT_LE(0, r.other);
	ASSERT_LE(0, holder);
	id = bind_range(holder, r.fd, 0, 2 * HUGE_PAGES);
	ASSERT_LT(0, id);
	for (int i = 0; i < 2; i++)
		ASSERT_EQ(0, get_page(holder, id, i * HUGE_PAGES, RMT_GET_HOLD, &page));
	EXPECT_WORKS(punch(r.fd, 0, HUGE));
	ASSERT_EQ(0, set_limit(charged() + HUGE));
	meanwhile_start(&meanwhile, "restrictedmem:rm_try_charge", take_the_room, &r);
	EXPECT_FAILS(ENOSPC, populate(r.fd, 0, HUGE));
	ASSERT_EQ(1, meanwhile_end(&meanwhile));
	pthread_join(r.thread, NULL);
	EXPECT_EQ(0, resident(r.fd));
	EXPECT_EQ(0, RESERVED());
	EXPECT_EQ(0, fdinfo_number(r.fd, "reserved"));
	ASSERT_EQ(0, set_limit(0));
	close(r.fd);
	close(r.other);
	close(holder);
	until_all_are_free();
	EXPECT_EQ(0, RESERVED());
	EXPECT_EQ(POOL_PAGES, FREE());
	EXPECT_EQ(self->charged, charged());
}

/* One page with an error is one page less, whatever was set aside around it. */
TEST_F(pool, error_in_a_reservation_costs_one_page)
{
	int fd = create_pooled(HUGE, 4 * HUGE, RESTRICTEDMEM_CREATE_RESERVE);
	struct rmt_page page;
	int id;

	ASSERT_LE(0, fd);
	id = bind_range(self->c, fd, 0, HUGE_PAGES);
	ASSERT_LT(0, id);
	ASSERT_EQ(0, get_page(self->c, id, 3, 0, &page));
	ASSERT_EQ(0, hwpoison_init());
	poison_pfn(page.pfn);
	ASSERT_EQ(0, wait_poisoned(fd, PAGE));
	self->lost++;
	ASSERT_EQ(0, unbind(self->c, id));
	close(fd);
	EXPECT_EQ(0, RESERVED());
	EXPECT_EQ(POOL_PAGES - 1, FREE());
}

TEST_F(pool, empty_pool_is_enospc)
{
	int other = LEAVE_IN_POOL(0);
	struct rmt_page page;

	EXPECT_FAILS(ENOSPC, populate(self->fd, 0, HUGE));
	EXPECT_FAILS(ENOSPC, get_page(self->c, self->id, 0, 0, &page));
	EXPECT_EQ(0, resident(self->fd));
	close(other);
	EXPECT_EQ(POOL_PAGES, FREE());
	EXPECT_EQ(0, populate(self->fd, 0, HUGE));
}

TEST_F(pool, what_was_populated_before_the_end_stays)
{
	int other = LEAVE_IN_POOL(3);

	EXPECT_FAILS(ENOSPC, populate(self->fd, 0, SIZE));
	EXPECT_EQ(3 * HUGE, resident(self->fd));
	EXPECT_EQ(0, FREE());
	close(other);
	EXPECT_EQ(0, populate(self->fd, 0, SIZE));
	EXPECT_EQ(SIZE, resident(self->fd));
}

TEST_F(pool, reserved_pages_are_there_later)
{
	int fd = create_pooled(HUGE, 6 * HUGE, RESTRICTEDMEM_CREATE_RESERVE);
	int other;

	ASSERT_LE(0, fd);
	EXPECT_EQ(6, RESERVED());
	EXPECT_EQ(6 * HUGE, fdinfo_number(fd, "reserved"));
	EXPECT_EQ(0, resident(fd));
	other = create_pooled(HUGE, POOL_PAGES * HUGE, 0);
	EXPECT_FAILS(ENOSPC, populate(other, 0, POOL_PAGES * HUGE));
	EXPECT_EQ((POOL_PAGES - 6) * HUGE, resident(other));

	EXPECT_EQ(0, populate(fd, 0, 6 * HUGE));
	EXPECT_EQ(0, RESERVED());
	EXPECT_EQ(0, FREE());
	/* What is punched stays set aside. */
	ASSERT_EQ(0, punch(fd, 0, 2 * HUGE));
	EXPECT_EQ(2, RESERVED());
	EXPECT_FAILS(ENOSPC, populate(other, 0, POOL_PAGES * HUGE));
	EXPECT_EQ(0, populate(fd, 0, 6 * HUGE));
	close(other);
	close(fd);
	EXPECT_EQ(0, RESERVED());
	EXPECT_EQ(POOL_PAGES, FREE());
}

TEST_F(pool, reservation_that_does_not_fit)
{
	int fd;

	EXPECT_FAILS(ENOSPC, create_pooled(HUGE, (POOL_PAGES + 1) * HUGE,
					   RESTRICTEDMEM_CREATE_RESERVE));
	EXPECT_EQ(0, RESERVED());
	fd = create_pooled(HUGE, 0, RESTRICTEDMEM_CREATE_RESERVE);
	ASSERT_LE(0, fd);
	EXPECT_FAILS(ENOSPC, ftruncate(fd, (POOL_PAGES + 1) * HUGE));
	EXPECT_EQ(0, RESERVED());
	EXPECT_EQ(0, ftruncate(fd, POOL_PAGES * HUGE));
	EXPECT_EQ(POOL_PAGES, RESERVED());
	close(fd);
}

TEST_F(pool, reservation_counts_against_the_limit)
{
	int fd, other;

	ASSERT_EQ(0, set_limit(self->resident + 4 * HUGE));
	EXPECT_FAILS(ENOSPC, create_pooled(HUGE, 5 * HUGE,
					   RESTRICTEDMEM_CREATE_RESERVE));
	fd = create_pooled(HUGE, 3 * HUGE, RESTRICTEDMEM_CREATE_RESERVE);
	EXPECT_LE(0, fd);
	other = create_pooled(HUGE, SIZE, 0);
	EXPECT_FAILS(ENOSPC, populate(other, 0, SIZE));
	EXPECT_EQ(HUGE, resident(other));
	/* It never fails for the limit that it was admitted to. */
	EXPECT_EQ(0, populate(fd, 0, 3 * HUGE));
	close(fd);
	EXPECT_EQ(0, populate(other, 0, 4 * HUGE));
	close(other);
	EXPECT_EQ(0, set_limit(0));
}

TEST_F(pool, reservation_is_for_pools_alone)
{
	struct restrictedmem_create args = {
		.size = sizeof(args),
		.length = HUGE,
		.flags = RESTRICTEDMEM_CREATE_RESERVE,
	};

	EXPECT_FAILS(EOPNOTSUPP, create_with(&args));
	args.store = RESTRICTEDMEM_STORE_HUGETLB;
	args.numa = RESTRICTEDMEM_NUMA_BIND;
	args.nodes = 1;
	EXPECT_FAILS(EOPNOTSUPP, create_with(&args));
	args.numa = RESTRICTEDMEM_NUMA_PREFERRED;
	EXPECT_EQ(0, close(create_with(&args)));
}

TEST_F(pool, memory_outlives_the_fd_while_bound)
{
	ASSERT_EQ(0, write_pattern(self->c, self->id, 0, 4));
	close(self->fd);
	self->fd = -1;
	EXPECT_EQ(0, count_changed(self->c, self->id, 0, 4));
	EXPECT_EQ(POOL_PAGES - 1, FREE());
	ASSERT_EQ(0, unbind(self->c, self->id));
	EXPECT_EQ(POOL_PAGES, FREE());
}

/* Whoever may open the device; the pool's files are none of its business. */
TEST_F(pool, works_for_who_is_not_root)
{
	int dev = device_open(), status;
	pid_t pid = fork();

	if (!pid) {
		struct restrictedmem_create args = {
			.size = sizeof(args),
			.length = 2 * HUGE,
			.flags = RESTRICTEDMEM_CREATE_RESERVE,
			.store = RESTRICTEDMEM_STORE_HUGETLB,
		};
		int fd;

		if (setgid(65534) || setuid(65534))
			_exit(1);
		fd = ioctl(dev, RESTRICTEDMEM_CREATE, &args);
		if (fd < 0 || populate(fd, 0, HUGE) || punch(fd, 0, HUGE))
			_exit(2);
		_exit(populate(self->fd, 0, HUGE) ? 3 : 0);
	}
	close(dev);
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_EQ(0, status);
}

static void on_alarm(int signal)
{
}

/* hugetlbfs gives up when a signal is pending; a guest's access must not. */
TEST_F(pool, signals_do_not_disturb_a_fault)
{
	const struct sigaction action = { .sa_handler = on_alarm };
	const struct itimerval often = { { 0, 200 }, { 0, 200 } };
	const struct itimerval never = {};
	int failed = 0;
	sigset_t set;

	sigaction(SIGALRM, &action, NULL);
	setitimer(ITIMER_REAL, &often, NULL);
	for (int round = 0; round < 50; round++) {
		for (int i = 0; i < FILE_PAGES; i++)
			if (!get_pfn(self->c, self->id, i * HUGE_PAGES))
				failed++;
		while (punch(self->fd, 0, SIZE))
			;
	}
	setitimer(ITIMER_REAL, &never, NULL);
	EXPECT_EQ(0, failed);
	/* None was lost. */
	sigpending(&set);
	EXPECT_EQ(0, sigismember(&set, SIGALRM));
}

struct populater {
	int fd;
	int from;
	int result;
};

static void *populate_all(void *arg)
{
	struct populater *p = arg;

	/* Each begins elsewhere. */
	for (int i = 0; i < FILE_PAGES && !p->result; i++)
		p->result = populate(p->fd, (p->from + i) % FILE_PAGES * HUGE,
				     HUGE);
	return NULL;
}

TEST_F(pool, threads_populate_one_file)
{
	struct populater p[4];
	pthread_t threads[4];

	for (int round = 0; round < 20; round++) {
		for (int i = 0; i < 4; i++) {
			p[i] = (struct populater) { self->fd, i * 2 };
			ASSERT_EQ(0, pthread_create(&threads[i], NULL,
						    populate_all, &p[i]));
		}
		for (int i = 0; i < 4; i++) {
			pthread_join(threads[i], NULL);
			EXPECT_EQ(0, p[i].result);
		}
		ASSERT_EQ(SIZE, resident(self->fd));
		ASSERT_EQ(POOL_PAGES - FILE_PAGES, FREE());
		ASSERT_EQ(0, punch(self->fd, 0, SIZE));
	}
}

TEST_F(pool, stays_where_it_is_whatever_the_host_does)
{
	uint64_t pfns[FILE_PAGES];

	for (int i = 0; i < FILE_PAGES; i++) {
		ASSERT_EQ(0, write_pattern(self->c, self->id, i * HUGE_PAGES,
					   i * HUGE_PAGES + 16));
		pfns[i] = get_pfn(self->c, self->id, i * HUGE_PAGES);
	}
	for (int round = 0; round < 5; round++) {
		EXPECT_EQ(0, drop_caches());
		EXPECT_EQ(0, compact());
		/* All that is free goes, and comes back. */
		EXPECT_EQ(FILE_PAGES + self->stuck, pool_resize(HUGE, 0));
		EXPECT_EQ(POOL_PAGES + self->stuck,
			  pool_resize(HUGE, POOL_PAGES + self->stuck));
	}
	for (int i = 0; i < FILE_PAGES; i++)
		EXPECT_EQ(-1, soft_offline(pfns[i] + i));
	ASSERT_NE(0, block_pages());
	EXPECT_NE(0, block_offline_for(pfns[0] / block_pages(), 3));

	for (int i = 0; i < FILE_PAGES; i++) {
		EXPECT_EQ(pfns[i], get_pfn(self->c, self->id, i * HUGE_PAGES));
		EXPECT_EQ(0, count_changed(self->c, self->id, i * HUGE_PAGES,
					   i * HUGE_PAGES + 16));
	}
}

#define BAD	5

#define POISON() do {							\
	ASSERT_EQ(0, hwpoison_init());					\
	poison_pfn(get_pfn(self->c, self->id, BAD));			\
	ASSERT_EQ(0, wait_poisoned(self->fd, PAGE));			\
	self->lost++;							\
} while (0)

TEST_F(pool, lost_page_is_refused_and_its_neighbours_are_served)
{
	struct rmt_page page;
	char byte;

	ASSERT_EQ(0, write_pattern(self->c, self->id, 0, 2 * HUGE_PAGES));
	POISON();
	EXPECT_FAILS(EHWPOISON, get_page(self->c, self->id, BAD, 0, &page));
	EXPECT_FAILS(EHWPOISON, read_data(self->c, self->id, BAD * PAGE, &byte, 1));
	EXPECT_FAILS(EHWPOISON, access_data(self->c, self->id, RMT_RW_ATOMIC,
					    BAD * PAGE, &byte, 1));
	EXPECT_FAILS(EHWPOISON, populate(self->fd, 0, HUGE));
	EXPECT_EQ(0, count_changed(self->c, self->id, 0, BAD));
	EXPECT_EQ(0, count_changed(self->c, self->id, BAD + 1, 2 * HUGE_PAGES));
	/* As large as can be without it. */
	ASSERT_EQ(0, get_page(self->c, self->id, BAD - 1, 0, &page));
	EXPECT_EQ(0, page.order);
	ASSERT_EQ(0, get_page(self->c, self->id, BAD + 1, 0, &page));
	EXPECT_EQ(1, page.order);
	ASSERT_EQ(0, get_page(self->c, self->id, 300, 0, &page));
	EXPECT_EQ(8, page.order);
	ASSERT_EQ(0, get_page(self->c, self->id, HUGE_PAGES, 0, &page));
	EXPECT_EQ(9, page.order);
	EXPECT_EQ(2 * HUGE, resident(self->fd));
}

struct neighbour {
	int c;
	int id;
	int failed;
	volatile int page;	/* the huge page, or less than 0 to end */
};

static void *get_neighbours(void *arg)
{
	struct neighbour *n = arg;

	for (int page; (page = n->page) >= 0;)
		if (!get_pfn(n->c, n->id, page * HUGE_PAGES + BAD + 1))
			n->failed++;
	return NULL;
}

/* The kernel marks the huge page before it says which page it is about. */
TEST_F(pool, neighbours_of_a_lost_page_are_served_at_all_times)
{
	struct neighbour n = { self->c, self->id };
	pthread_t thread;

	ASSERT_EQ(0, hwpoison_init());
	ASSERT_EQ(0, populate(self->fd, 0, SIZE));
	ASSERT_EQ(0, pthread_create(&thread, NULL, get_neighbours, &n));
	for (int i = 0; i < FILE_PAGES; i++) {
		n.page = i;
		sleep_ms(10);
		poison_pfn(get_pfn(self->c, self->id, i * HUGE_PAGES + BAD));
		ASSERT_EQ(0, wait_poisoned(self->fd, ++self->lost * PAGE));
	}
	n.page = -1;
	pthread_join(thread, NULL);
	EXPECT_EQ(0, n.failed);
}

TEST_F(pool, consumer_is_told_of_a_lost_page_once)
{
	struct rmt_page page;
	struct rmt_events got = {};

	ASSERT_EQ(0, get_page(self->c, self->id, BAD, RMT_GET_MAP, &page));
	ASSERT_EQ(0, ioctl(self->c, RMT_EVENTS, &got));
	POISON();
	EXPECT_TOLD_ONCE(self->c, BAD, 0, HUGE_PAGES);
}

TEST_F(pool, punch_brings_a_healthy_page)
{
	uint64_t pfn;

	ASSERT_EQ(0, write_pattern(self->c, self->id, 0, 2 * HUGE_PAGES));
	POISON();
	pfn = get_pfn(self->c, self->id, 0);
	ASSERT_EQ(0, punch(self->fd, 0, HUGE));
	EXPECT_EQ(0, fdinfo_number(self->fd, "poisoned"));
	/* All that are left. */
	for (int i = 0; i < FILE_PAGES; i++) {
		EXPECT_NE(0, get_pfn(self->c, self->id, i * HUGE_PAGES));
		EXPECT_NE(pfn, get_pfn(self->c, self->id, i * HUGE_PAGES));
	}
	EXPECT_EQ(0, count_nonzero(self->c, self->id, 0, HUGE_PAGES));
}

TEST_HARNESS_MAIN
