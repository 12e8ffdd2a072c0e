// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * A host that does its worst to resident pages: everything that moves, splits,
 * drops or swaps pages of ordinary files. After each, every page that was not
 * punched is where it was, with what was written to it, and all accounts agree.
 *
 * Needs the machine of hostile_test.vm: node 1 has no memory but what is plugged
 * in, and that is offline after boot.
 */
#include <pthread.h>
#include <sys/socket.h>

#include "kselftest_harness.h"
#include "hostile.h"

/* The machine may be busy with other things. */
#undef TEST_TIMEOUT_DEFAULT
#define TEST_TIMEOUT_DEFAULT 200

#define ROUNDS		smaller(5)
#define TO_SWAP		(32 * MIB)

FIXTURE(host) {
	struct accounts accounts;
	int c;
	int fd;
	int id;
	bool swaps;
	uint64_t pages;
	uint64_t *pfns;
	struct plugged plugged;
};

FIXTURE_VARIANT(host) {
	uint32_t thp;
	uint64_t pages;
};

FIXTURE_VARIANT_ADD(host, small) {
	.thp = RESTRICTEDMEM_THP_NEVER,
	.pages = 2048,
};

FIXTURE_VARIANT_ADD(host, huge) {
	.thp = RESTRICTEDMEM_THP_ALWAYS,
	.pages = 4 * HUGE_PAGES,
};

/* Write a page's pattern and note where it is. */
static int fill(FIXTURE_DATA(host) *self, uint64_t index)
{
	if (write_pattern(self->c, self->id, index, index + 1))
		return -1;
	self->pfns[index] = get_pfn(self->c, self->id, index);
	return self->pfns[index] ? 0 : -1;
}

/*
 * Small pages alternate in physical memory with those of a file that is closed,
 * so that there is every reason to move them.
 */
FIXTURE_SETUP(host)
{
	int drop;

	ASSERT_EQ(0, accounts_begin(&self->accounts));
	self->pages = smaller(variant->pages);
	self->pfns = calloc(self->pages, sizeof(*self->pfns));
	self->c = consumer_open();
	ASSERT_LE(0, self->c);
	self->fd = create(self->pages * PAGE, variant->thp);
	ASSERT_LE(0, self->fd);
	self->id = bind_range(self->c, self->fd, 0, self->pages);
	ASSERT_LT(0, self->id);
	drop = create(self->pages * PAGE, variant->thp);
	ASSERT_LE(0, drop);
	for (uint64_t i = 0; i < self->pages; i++) {
		ASSERT_EQ(0, populate(drop, i * PAGE, PAGE));
		ASSERT_EQ(0, fill(self, i));
	}
	close(drop);
}

/* How many of [start, end) are no longer where they were? */
static uint64_t count_moved(FIXTURE_DATA(host) *self, uint64_t start,
			    uint64_t end)
{
	uint64_t moved = 0;

	for (uint64_t i = start; i < end; i++)
		moved += get_pfn(self->c, self->id, i) != self->pfns[i];
	return moved;
}

#define EXPECT_UNTOUCHED(_start, _end) do {				\
	EXPECT_EQ(0, count_moved(self, _start, _end));			\
	EXPECT_EQ(0, count_changed(self->c, self->id, _start, _end));	\
} while (0)

/* Whatever was freed behind our back is used for something else. */
static int scribble(void)
{
	void *map = mmap(NULL, 32 * MIB, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (map == MAP_FAILED)
		return -1;
	memset(map, 0xa5, 32 * MIB);
	return munmap(map, 32 * MIB);
}

#define EXPECT_ALL_UNTOUCHED() do {					\
	EXPECT_EQ(0, scribble());					\
	EXPECT_UNTOUCHED(0, self->pages);				\
	EXPECT_EQ(self->pages * PAGE, resident(self->fd));		\
	EXPECT_STREQ("", accounts_differ(&self->accounts));		\
} while (0)

FIXTURE_TEARDOWN(host)
{
	EXPECT_EQ(0, violations(self->c));
	EXPECT_STREQ("", accounts_differ(&self->accounts));
	close(self->c);
	close(self->fd);
	EXPECT_STREQ("", accounts_end(&self->accounts));
	if (self->swaps)
		EXPECT_EQ(0, swap_off());
	/* Should the test have failed, that is no matter for the next one. */
	plugged_set(&self->plugged, "offline");
	free(self->pfns);
}

#define LIMITED		CGROUP "/rm-limited"
#define LIMITED_BYTES	(16 * MIB)

/* Take each page of a file, as a vCPU does. */
static int fault_all(int c, int id, uint64_t pages)
{
	for (uint64_t i = 0; i < pages; i++)
		if (!get_pfn(c, id, i))
			return -1;
	return 0;
}

/*
 * A child that takes all of a file in a cgroup with a limit: by faults through
 * the binding @id, or by fallocate if that is 0. Return: its status.
 */
static int take_limited(int fd, int c, int id, const char *oom_score_adj)
{
	pid_t child = fork();
	int status;

	if (!child) {
		if (write_text(LIMITED "/memory.max", "16M") ||
		    write_text("/proc/self/oom_score_adj", oom_score_adj) ||
		    cgroup_enter(LIMITED))
			_exit(1);
		status = id ? fault_all(c, id, 64 * MIB / PAGE) :
			      populate(fd, 0, 64 * MIB);
		_exit(status ? errno : 0);
	}
	return waitpid(child, &status, 0) == child ? status : -1;
}

/* It got as far as it says, and not a page further; and then all of it goes. */
#define EXPECT_LIMITED(_fd) do {					\
	EXPECT_GE(LIMITED_BYTES, resident(_fd));			\
	EXPECT_LT(LIMITED_BYTES / 2, resident(_fd));			\
	EXPECT_EQ(resident(_fd), cgroup_shmem(LIMITED));		\
	EXPECT_EQ(self->accounts.total + self->pages * PAGE +		\
		  resident(_fd), resident_total());			\
	close(_fd);							\
	EXPECT_EQ(0, cgroup_shmem(LIMITED));				\
	EXPECT_EQ(0, rmdir(LIMITED));					\
} while (0)

TEST_F(host, drops_caches)
{
	for (uint64_t i = 0; i < ROUNDS; i++)
		ASSERT_EQ(0, drop_caches());
	EXPECT_ALL_UNTOUCHED();
}

TEST_F(host, compacts_memory)
{
	long long scanned = vmstat("compact_migrate_scanned");

	for (uint64_t i = 0; i < ROUNDS; i++)
		ASSERT_EQ(0, compact());
	EXPECT_LT(scanned, vmstat("compact_migrate_scanned"));
	EXPECT_ALL_UNTOUCHED();
}

TEST_F(host, takes_pages_offline)
{
	for (uint64_t i = 0; i < self->pages; i += 61)
		EXPECT_EQ(-1, soft_offline(self->pfns[i]));
	EXPECT_EQ(-1, soft_offline(self->pfns[self->pages - 1]));
	EXPECT_ALL_UNTOUCHED();
}

TEST_F(host, swaps)
{
	long long swapped = vmstat("pswpout");
	char *map;

	self->swaps = !swap_on();
	ASSERT_TRUE(self->swaps);
	map = hog(TO_SWAP);
	ASSERT_NE(NULL, map);
	reclaim(self->accounts.group);
	EXPECT_LT(swapped, vmstat("pswpout"));
	EXPECT_ALL_UNTOUCHED();
	munmap(map, TO_SWAP);
}

/* More than there is: what can be swapped or dropped is, and then who asks dies. */
TEST_F(host, runs_out_of_memory)
{
	long long swapped = vmstat("pswpout");

	self->swaps = !swap_on();
	ASSERT_TRUE(self->swaps);
	EXPECT_TRUE(was_oom_killed(hog_in_child(NULL, 16 * GIB)));
	EXPECT_LT(swapped, vmstat("pswpout"));
	EXPECT_ALL_UNTOUCHED();
}

TEST_F(host, lets_a_neighbour_run_out_of_memory)
{
	const char *group = CGROUP "/rm-neighbour";

	ASSERT_EQ(0, cgroup_make(group));
	ASSERT_EQ(0, write_text(path_of("%s/memory.max", group), "16M"));
	ASSERT_EQ(0, write_text(path_of("%s/memory.swap.max", group), "0"));
	for (int i = 0; i < 3; i++)
		EXPECT_TRUE(was_oom_killed(hog_in_child(group, 64 * MIB)));
	EXPECT_ALL_UNTOUCHED();
	EXPECT_EQ(0, rmdir(group));
}

/* Our own cgroup has to be smaller than it is. */
TEST_F(host, shrinks_our_cgroup)
{
	char file[96];

	snprintf(file, sizeof(file), "%s/memory.high", self->accounts.group);
	ASSERT_EQ(0, write_text(file, "1M"));
	for (uint64_t i = 0; i < ROUNDS; i++)
		reclaim(self->accounts.group);
	ASSERT_EQ(0, write_text(file, "max"));
	EXPECT_ALL_UNTOUCHED();
}

/* At the limit of its cgroup a fault has somebody in it killed, ... */
TEST_F(host, kills_who_faults_beyond_the_limit)
{
	int fd = create(64 * MIB, variant->thp), id;

	ASSERT_LE(0, fd);
	id = bind_range(self->c, fd, 0, 64 * MIB / PAGE);
	ASSERT_LT(0, id);
	ASSERT_EQ(0, cgroup_make(LIMITED));
	EXPECT_TRUE(was_oom_killed(take_limited(fd, self->c, id, "0")));
	ASSERT_EQ(0, unbind(self->c, id));
	EXPECT_LIMITED(fd);
	EXPECT_ALL_UNTOUCHED();
}

/* ... unless nobody can be, ... */
TEST_F(host, refuses_who_faults_beyond_the_limit)
{
	int fd = create(64 * MIB, variant->thp), id, status;

	ASSERT_LE(0, fd);
	id = bind_range(self->c, fd, 0, 64 * MIB / PAGE);
	ASSERT_LT(0, id);
	ASSERT_EQ(0, cgroup_make(LIMITED));
	status = take_limited(fd, self->c, id, "-1000");
	EXPECT_TRUE(WIFEXITED(status));
	EXPECT_EQ(ENOMEM, WEXITSTATUS(status));
	ASSERT_EQ(0, unbind(self->c, id));
	EXPECT_LIMITED(fd);
	EXPECT_ALL_UNTOUCHED();
}

/* ... and who populates is told. */
TEST_F(host, refuses_who_populates_beyond_the_limit)
{
	int fd = create(64 * MIB, variant->thp), status;

	ASSERT_LE(0, fd);
	ASSERT_EQ(0, cgroup_make(LIMITED));
	status = take_limited(fd, self->c, 0, "0");
	EXPECT_TRUE(WIFEXITED(status));
	EXPECT_EQ(ENOMEM, WEXITSTATUS(status));
	EXPECT_LIMITED(fd);
	EXPECT_ALL_UNTOUCHED();
}

/* What is left of a huge page after a punch is as safe as it was. */
TEST_F(host, splits_by_partial_punches)
{
	for (uint64_t i = 0; i < self->pages; i += HUGE_PAGES)
		ASSERT_EQ(0, punch(self->fd, i * PAGE, PAGE));
	for (int i = 0; i < 3; i++) {
		ASSERT_EQ(0, drop_caches());
		ASSERT_EQ(0, compact());
	}
	EXPECT_EQ(-1, soft_offline(self->pfns[1]));
	EXPECT_EQ(-1, soft_offline(self->pfns[HUGE_PAGES - 1]));
	for (uint64_t i = 0; i < self->pages; i += HUGE_PAGES) {
		EXPECT_UNTOUCHED(i + 1, i + HUGE_PAGES);
		EXPECT_EQ(0, count_nonzero(self->c, self->id, i, i + 1));
	}
	EXPECT_EQ(self->pages * PAGE, resident(self->fd));
}

TEST_F(host, collapses_huge_pages)
{
	const char *policies[] = { "always", "within_size", "advise", "never" };
	long long scans = vmstat("thp_collapse_alloc");
	char *map = mmap(NULL, 64 * MIB, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	ASSERT_NE(MAP_FAILED, map);
	ASSERT_EQ(0, madvise(map, 64 * MIB, MADV_NOHUGEPAGE));
	memset(map, 1, 64 * MIB);
	ASSERT_EQ(0, khugepaged_hurry());
	ASSERT_EQ(0, madvise(map, 64 * MIB, MADV_HUGEPAGE));
	for (int i = 0; i < ROUNDS || vmstat("thp_collapse_alloc") == scans; i++) {
		ASSERT_EQ(0, shmem_policy(policies[i % 4]));
		ASSERT_GT(1000, i);
		sleep_ms(20);
	}
	khugepaged_rest();
	ASSERT_EQ(0, shmem_policy("never"));
	EXPECT_ALL_UNTOUCHED();
	munmap(map, 64 * MIB);
}

/* Pages that came under another policy than others are as good. */
TEST_F(host, denies_huge_pages)
{
	ASSERT_EQ(0, punch(self->fd, 0, HUGE));
	ASSERT_EQ(0, shmem_policy("deny"));
	for (uint64_t i = 0; i < HUGE_PAGES; i++)
		ASSERT_EQ(0, fill(self, i));
	EXPECT_EQ(0, shmem_policy("never"));
	EXPECT_ALL_UNTOUCHED();
}

/* A switch for the kernel's own tests, which goes above the policy of any mount. */
TEST_F(host, forces_huge_pages)
{
	int fd = create(HUGE + 3 * PAGE, variant->thp), id;
	struct rmt_page page;

	ASSERT_LE(0, fd);
	id = bind_range(self->c, fd, 0, HUGE_PAGES + 3);
	ASSERT_LT(0, id);
	ASSERT_EQ(0, shmem_policy("force"));
	EXPECT_EQ(0, populate(fd, 0, HUGE + 3 * PAGE));
	EXPECT_EQ(0, shmem_policy("never"));
	EXPECT_EQ(HUGE + 3 * PAGE, resident(fd));
	ASSERT_EQ(0, get_page(self->c, id, 0, 0, &page));
	EXPECT_EQ(variant->thp == RESTRICTEDMEM_THP_NEVER ? 0 : HUGE_ORDER,
		  page.order);
	EXPECT_EQ(0, count_nonzero(self->c, id, 0, HUGE_PAGES + 3));
	EXPECT_STREQ("", accounts_differ(&self->accounts));
	ASSERT_EQ(0, unbind(self->c, id));
	close(fd);
	EXPECT_ALL_UNTOUCHED();
}

/* Pages of a process that are the same as ours are merged, but not with ours. */
TEST_F(host, merges_equal_pages)
{
	char *map = mmap(NULL, 256 * PAGE, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char text[32];
	int i;

	ASSERT_NE(MAP_FAILED, map);
	ASSERT_EQ(0, madvise(map, 256 * PAGE, MADV_MERGEABLE));
	for (i = 0; i < 256; i++)
		fill_page((uint64_t *)(map + i * PAGE), 1);
	ASSERT_EQ(0, ksm_run("1"));
	for (i = 0; i < 1000; i++) {
		if (read_text(KSM "/pages_shared", text, sizeof(text)) > 0 &&
		    atoi(text))
			break;
		sleep_ms(20);
	}
	EXPECT_GT(1000, i);
	EXPECT_ALL_UNTOUCHED();
	EXPECT_EQ(0, ksm_run("2"));
	EXPECT_EQ(0, ksm_run("0"));
	munmap(map, 256 * PAGE);
}

/* Move what this process has to another node, and change the LRU's kind. */
TEST_F(host, migrates_the_process)
{
	unsigned long from = 1 << 0, to = 1 << PLUGGED_NODE;

	NEEDS_PLUGGED(&self->plugged);
	ASSERT_EQ(0, plugged_set(&self->plugged, "online_movable"));
	EXPECT_LE(0, syscall(SYS_migrate_pages, 0, 8 * sizeof(from), &from, &to));
	EXPECT_ALL_UNTOUCHED();
	EXPECT_LE(0, syscall(SYS_migrate_pages, 0, 8 * sizeof(from), &to, &from));
	EXPECT_EQ(0, write_text("/sys/kernel/mm/lru_gen/enabled", "y"));
	reclaim(self->accounts.group);
	EXPECT_EQ(0, write_text("/sys/kernel/mm/lru_gen/enabled", "n"));
	EXPECT_EQ(0, plugged_set(&self->plugged, "offline"));
	EXPECT_ALL_UNTOUCHED();
}

/* Hotplug */

/* Give the file up for another one, all of it in plugged memory if it can be. */
static int move_to_plugged(FIXTURE_DATA(host) *self, uint32_t thp)
{
	if (unbind(self->c, self->id) || close(self->fd))
		return -1;
	self->fd = plugged_create(self->pages * PAGE, 0, thp);
	if (self->fd < 0)
		return -1;
	self->id = bind_range(self->c, self->fd, 0, self->pages);
	if (self->id <= 0)
		return -1;
	for (uint64_t i = 0; i < self->pages; i++)
		if (fill(self, i))
			return -1;
	return 0;
}

/* How many pages are in plugged memory? */
static uint64_t count_in_plugged(FIXTURE_DATA(host) *self)
{
	uint64_t nr = 0;

	for (uint64_t i = 0; i < self->pages; i++)
		nr += plugged_has(&self->plugged, self->pfns[i]);
	return nr;
}

/* All of our pages are in plugged memory, and none of the kernel's own. */
#define ASSERT_IN_PLUGGED() do {					\
	ASSERT_EQ(0, plugged_set(&self->plugged, "online_kernel"));	\
	ASSERT_EQ(0, move_to_plugged(self, variant->thp));		\
	ASSERT_EQ(self->pages, count_in_plugged(self));			\
	ASSERT_EQ(0, plugged_kernel_pages(&self->plugged));		\
} while (0)

TEST_F(host, unplugs_the_memory_we_are_in)
{
	unsigned int block;
	uint64_t failed;

	NEEDS_PLUGGED(&self->plugged);
	ASSERT_IN_PLUGGED();
	failed = vmstat("pgmigrate_fail");
	block = self->pfns[self->pages - 1] / self->plugged.block_pages;
	EXPECT_EQ(EINTR, block_offline_for(block, 3));
	EXPECT_LT(failed, vmstat("pgmigrate_fail"));
	EXPECT_TRUE(block_is_online(block));
	EXPECT_ALL_UNTOUCHED();

	/* Without us it goes. */
	ASSERT_EQ(0, punch(self->fd, 0, self->pages * PAGE));
	EXPECT_EQ(0, block_offline_for(block, 30));
	EXPECT_EQ(0, plugged_set(&self->plugged, "offline"));
}

/* To make a page of 1 GiB the kernel empties all of it, but not of us. */
TEST_F(host, wants_a_gigantic_page)
{
	uint64_t failed;

	NEEDS_PLUGGED(&self->plugged);
	ASSERT_IN_PLUGGED();
	failed = vmstat("pgmigrate_fail");
	for (int i = 0; i < 3; i++) {
		ASSERT_EQ(0, drain_lists());
		EXPECT_EQ(0, plugged_gigantic(1));
	}
	EXPECT_LT(failed, vmstat("pgmigrate_fail"));
	EXPECT_ALL_UNTOUCHED();

	/* Without us there is one. */
	ASSERT_EQ(0, punch(self->fd, 0, self->pages * PAGE));
	ASSERT_EQ(0, drain_lists());
	EXPECT_EQ(1, plugged_gigantic(1));
	EXPECT_EQ(0, plugged_gigantic(0));
	EXPECT_EQ(0, plugged_set(&self->plugged, "offline"));
}

/* Memory that is meant to be unplugged never gets a page of ours. */
TEST_F(host, unplugs_movable_memory)
{
	NEEDS_PLUGGED(&self->plugged);
	ASSERT_EQ(0, plugged_set(&self->plugged, "online_movable"));
	ASSERT_EQ(0, move_to_plugged(self, variant->thp));
	EXPECT_EQ(0, count_in_plugged(self));
	EXPECT_EQ(0, plugged_set(&self->plugged, "offline"));
	EXPECT_ALL_UNTOUCHED();
}

/* Files and descriptors */

struct hammer {
	int c;
	int id;
	uint64_t pages;
	const uint64_t *pfns;
	volatile bool stop;
	unsigned long right;
	unsigned long wrong;
};

/* Each page is where it was, whoever closes or passes what meanwhile. */
static void *hammer(void *data)
{
	struct hammer *h = data;
	unsigned int seed = (uintptr_t)&seed;

	while (!h->stop) {
		uint64_t i = rand_r(&seed) % h->pages;

		if (get_pfn(h->c, h->id, i) == h->pfns[i])
			h->right++;
		else
			h->wrong++;
	}
	return NULL;
}

/* Send an fd through a socket, as to another process. Return: what came out. */
static int pass_fd(int fd)
{
	char byte = 0, control[CMSG_SPACE(sizeof(int))] = {};
	struct iovec iov = { &byte, 1 };
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1,
		.msg_control = control, .msg_controllen = sizeof(control),
	};
	struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);
	int pair[2], got = -1;

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair))
		return -1;
	cmsg->cmsg_level = SOL_SOCKET;
	cmsg->cmsg_type = SCM_RIGHTS;
	cmsg->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(cmsg), &fd, sizeof(fd));
	if (sendmsg(pair[0], &msg, 0) == 1) {
		/* While it is on its way, it is open nowhere else. */
		close(fd);
		if (recvmsg(pair[1], &msg, MSG_CMSG_CLOEXEC) == 1)
			memcpy(&got, CMSG_DATA(CMSG_FIRSTHDR(&msg)), sizeof(got));
	}
	close(pair[0]);
	close(pair[1]);
	return got;
}

TEST_F(host, closes_and_passes_files_during_faults)
{
	struct hammer h = {
		.c = self->c, .id = self->id, .pages = self->pages,
		.pfns = self->pfns,
	};
	pthread_t threads[2];
	int status;

	for (int i = 0; i < ARRAY_SIZE(threads); i++)
		ASSERT_EQ(0, pthread_create(&threads[i], NULL, hammer, &h));
	for (int i = 0; i < 50; i++) {
		int view = link_view(self->fd);
		pid_t child = fork();

		ASSERT_LE(0, child);
		if (!child)
			_exit(0); /* which closes everything */
		ASSERT_LE(0, view);
		EXPECT_EQ(0, close(view));
		self->fd = pass_fd(self->fd);
		ASSERT_LE(0, self->fd);
		ASSERT_EQ(child, waitpid(child, &status, 0));
		EXPECT_EQ(0, status);
	}
	h.stop = true;
	for (int i = 0; i < ARRAY_SIZE(threads); i++)
		pthread_join(threads[i], NULL);
	EXPECT_LT(0, h.right);
	EXPECT_EQ(0, h.wrong);
	EXPECT_ALL_UNTOUCHED();
}

/* The binding alone keeps them: the file's last descriptor goes in a storm. */
TEST_F(host, drops_caches_after_the_last_close)
{
	int view;

	ASSERT_EQ(0, close(self->fd));
	for (int i = 0; i < 3; i++) {
		ASSERT_EQ(0, drop_caches());
		ASSERT_EQ(0, compact());
	}
	EXPECT_UNTOUCHED(0, self->pages);
	EXPECT_EQ(self->accounts.total + self->pages * PAGE, resident_total());
	EXPECT_EQ(self->pages * PAGE, cgroup_shmem(self->accounts.group));

	/* For the teardown, which counts by files. */
	ASSERT_EQ(0, unbind(self->c, self->id));
	view = create(PAGE, variant->thp);
	ASSERT_LE(0, view);
	self->fd = view;
}

TEST_HARNESS_MAIN
