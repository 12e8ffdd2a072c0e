// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * NUMA policies of files, on a machine with two nodes.
 */
#include <linux/mempolicy.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "kselftest_harness.h"
#include "consumer.h"
#include "hugetlb.h"

#define SIZE	(8 * HUGE)

#define NODE0	1ULL
#define NODE1	2ULL

#define NODE_POOL \
	"/sys/devices/system/node/node%d/hugepages/hugepages-2048kB/nr_hugepages"

FIXTURE(numa) {
	struct restrictedmem_create args;
	uint64_t resident;
};

FIXTURE_VARIANT(numa) {
	uint32_t store;
	uint32_t thp;
};

FIXTURE_VARIANT_ADD(numa, small) {
	.thp = RESTRICTEDMEM_THP_NEVER,
};

FIXTURE_VARIANT_ADD(numa, huge) {
	.thp = RESTRICTEDMEM_THP_ALWAYS,
};

FIXTURE_VARIANT_ADD(numa, pool) {
	.store = RESTRICTEDMEM_STORE_HUGETLB,
};

FIXTURE_SETUP(numa)
{
	self->resident = resident_total();
	self->args = (struct restrictedmem_create) {
		.size = sizeof(self->args),
		.length = SIZE,
		.store = variant->store,
		.thp = variant->thp,
	};
	for (int node = 0; node < 2; node++)
		ASSERT_EQ(0, write_text(path_of(NODE_POOL, node),
					variant->store ? "8" : "0"));
}

FIXTURE_TEARDOWN(numa)
{
	EXPECT_EQ(self->resident, resident_total());
	for (int node = 0; node < 2; node++)
		EXPECT_EQ(0, write_text(path_of(NODE_POOL, node), "0"));
}

/* A populated file with a policy */
#define CREATE(_numa, _nodes) ({					\
	int _fd;							\
									\
	self->args.numa = RESTRICTEDMEM_NUMA_##_numa;			\
	self->args.nodes = _nodes;					\
	_fd = create_with(&self->args);					\
	ASSERT_LE(0, _fd);						\
	ASSERT_EQ(0, populate(_fd, 0, SIZE));				\
	ASSERT_EQ(SIZE, resident(_fd));					\
	_fd;								\
})

#define EXPECT_ON_NODES(_fd, _node0, _node1) do {			\
	EXPECT_EQ(_node0, fdinfo_number(_fd, "resident_node0"));	\
	EXPECT_EQ(_node1, fdinfo_number(_fd, "resident_node1"));	\
} while (0)

TEST_F(numa, bind)
{
	int a = CREATE(BIND, NODE0), b = CREATE(BIND, NODE1);

	EXPECT_ON_NODES(a, SIZE, 0);
	EXPECT_ON_NODES(b, 0, SIZE);
	EXPECT_STREQ("bind:1", fdinfo(b, "numa"));
	close(a);
	close(b);
}

TEST_F(numa, interleave)
{
	int fd = CREATE(INTERLEAVE, NODE0 | NODE1);

	EXPECT_ON_NODES(fd, SIZE / 2, SIZE / 2);
	EXPECT_STREQ("interleave:0-1", fdinfo(fd, "numa"));
	close(fd);
}

TEST_F(numa, preferred)
{
	int a = CREATE(PREFERRED, NODE0), b = CREATE(PREFERRED, NODE1);

	EXPECT_ON_NODES(a, SIZE, 0);
	EXPECT_ON_NODES(b, 0, SIZE);
	EXPECT_STREQ("preferred:0", fdinfo(a, "numa"));
	close(a);
	close(b);
}

TEST_F(numa, default_is_the_tasks_policy)
{
	unsigned long nodes = NODE1;
	int fd;

	ASSERT_EQ(0, syscall(SYS_set_mempolicy, MPOL_BIND, &nodes, 8));
	fd = CREATE(DEFAULT, 0);
	EXPECT_ON_NODES(fd, 0, SIZE);
	EXPECT_STREQ("default", fdinfo(fd, "numa"));
	close(fd);
	ASSERT_EQ(0, syscall(SYS_set_mempolicy, MPOL_DEFAULT, NULL, 0));
}

/* The file's wins, whoever faults. */
TEST_F(numa, policy_of_the_file_goes_before_the_tasks)
{
	unsigned long nodes = NODE1;
	int fd;

	ASSERT_EQ(0, syscall(SYS_set_mempolicy, MPOL_BIND, &nodes, 8));
	fd = CREATE(BIND, NODE0);
	EXPECT_ON_NODES(fd, SIZE, 0);
	close(fd);
	ASSERT_EQ(0, syscall(SYS_set_mempolicy, MPOL_DEFAULT, NULL, 0));
}

TEST_F(numa, faults_follow_it_too)
{
	int c = consumer_open(), fd, id;

	self->args.numa = RESTRICTEDMEM_NUMA_BIND;
	self->args.nodes = NODE1;
	fd = create_with(&self->args);
	ASSERT_LE(0, fd);
	id = bind_range(c, fd, 0, SIZE / PAGE);
	ASSERT_LT(0, id);
	for (int i = 0; i < SIZE / HUGE; i++)
		ASSERT_NE(0, get_pfn(c, id, i * HUGE_PAGES));
	EXPECT_EQ(0, fdinfo_number(fd, "resident_node0"));
	EXPECT_EQ(resident(fd), fdinfo_number(fd, "resident_node1"));
	close(c);
	close(fd);
}

TEST_F(numa, counts_follow_a_punch)
{
	int fd = CREATE(BIND, NODE1);

	ASSERT_EQ(0, punch(fd, 0, 3 * HUGE));
	EXPECT_ON_NODES(fd, 0, SIZE - 3 * HUGE);
	close(fd);
}

TEST_F(numa, what_does_not_go_together)
{
	static const struct {
		uint32_t numa;
		uint64_t nodes;
	} wrong[] = {
		{ RESTRICTEDMEM_NUMA_DEFAULT, NODE0 },
		{ RESTRICTEDMEM_NUMA_BIND, 0 },
		{ RESTRICTEDMEM_NUMA_PREFERRED, 0 },
		{ RESTRICTEDMEM_NUMA_PREFERRED, NODE0 | NODE1 },
		{ RESTRICTEDMEM_NUMA_INTERLEAVE, 0 },
		{ RESTRICTEDMEM_NUMA_BIND, 1ULL << 2 },
		{ RESTRICTEDMEM_NUMA_BIND, NODE0 | 1ULL << 63 },
		{ RESTRICTEDMEM_NUMA_INTERLEAVE + 1, NODE0 },
		{ UINT32_MAX, NODE0 },
	};

	for (int i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		self->args.numa = wrong[i].numa;
		self->args.nodes = wrong[i].nodes;
		EXPECT_FAILS(EINVAL, create_with(&self->args));
	}
	self->args.numa = RESTRICTEDMEM_NUMA_BIND;
	self->args.nodes = NODE0;
	self->args.reserved = 1;
	EXPECT_FAILS(EINVAL, create_with(&self->args));
}

/* To run in a cpuset that has only node 0 */
static int in_node0(struct restrictedmem_create *args)
{
	int fd = create_with(args), r;

	if (fd < 0 || args->length)
		return fd < 0 ? errno : close(fd);
	r = ftruncate(fd, HUGE) ? errno : 0;
	close(fd);
	return r;
}

#define IN_NODE0() ({							\
	int _status;							\
	pid_t _pid = fork();						\
									\
	if (!_pid) {							\
		if (write_text("/sys/fs/cgroup/node0/cgroup.procs", "0"))	\
			_exit(1);					\
		_exit(in_node0(&self->args));				\
	}								\
	ASSERT_EQ(_pid, waitpid(_pid, &_status, 0));			\
	ASSERT_TRUE(WIFEXITED(_status));				\
	WEXITSTATUS(_status);						\
})

TEST_F(numa, nodes_that_the_cpuset_does_not_have)
{
	int fd, dup;

	ASSERT_EQ(0, write_text("/sys/fs/cgroup/cgroup.subtree_control", "+cpuset"));
	mkdir("/sys/fs/cgroup/node0", 0755);
	ASSERT_EQ(0, write_text("/sys/fs/cgroup/node0/cpuset.mems", "0"));

	self->args.numa = RESTRICTEDMEM_NUMA_BIND;
	self->args.nodes = NODE1;
	EXPECT_EQ(EINVAL, IN_NODE0());
	self->args.nodes = NODE0 | NODE1;
	EXPECT_EQ(0, IN_NODE0());

	/* It is who sets the size that counts. */
	self->args.length = 0;
	self->args.nodes = NODE1;
	fd = create_with(&self->args);
	ASSERT_LE(0, fd);
	dup = fork();
	if (!dup) {
		if (write_text("/sys/fs/cgroup/node0/cgroup.procs", "0"))
			_exit(1);
		_exit(ftruncate(fd, HUGE) ? errno : 0);
	}
	int status;

	ASSERT_EQ(dup, waitpid(dup, &status, 0));
	EXPECT_EQ(EINVAL, WEXITSTATUS(status));
	EXPECT_EQ(0, ftruncate(fd, HUGE));
	close(fd);
	EXPECT_EQ(0, rmdir("/sys/fs/cgroup/node0"));
}

TEST_HARNESS_MAIN
