// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * New pages are zeroed where the kernel does not do so by itself: on a machine
 * that was booted with init_on_alloc=0, and whose free memory is not zero.
 */
#include <sys/mman.h>

#include "kselftest_harness.h"
#include "consumer.h"
#include "hugetlb.h"

#define SIZE	(8 * HUGE)
#define DIRT	(64 * HUGE)

FIXTURE(zero) {
	int c;
	int fd;
	int id;
};

FIXTURE_VARIANT(zero) {
	uint32_t store;
	uint32_t thp;
};

FIXTURE_VARIANT_ADD(zero, small) {
	.thp = RESTRICTEDMEM_THP_NEVER,
};

FIXTURE_VARIANT_ADD(zero, huge) {
	.thp = RESTRICTEDMEM_THP_ALWAYS,
};

FIXTURE_VARIANT_ADD(zero, pool) {
	.store = RESTRICTEDMEM_STORE_HUGETLB,
};

FIXTURE_SETUP(zero)
{
	const struct restrictedmem_create args = {
		.size = sizeof(args),
		.length = SIZE,
		.store = variant->store,
		.thp = variant->thp,
	};
	char *dirt = mmap(NULL, DIRT, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	/* unload_test shares the machine, and leaves none. */
	if (access("/sys/module/restrictedmem", F_OK))
		ASSERT_EQ(0, load_module("restrictedmem.ko"));
	ASSERT_NE(MAP_FAILED, dirt);
	/* For its speed: small pages do as well. */
	madvise(dirt, DIRT, MADV_HUGEPAGE);
	memset(dirt, 0xa5, DIRT);
	ASSERT_EQ(0, munmap(dirt, DIRT));
	pool_resize(HUGE, variant->store ? SIZE / HUGE : 0);
	self->c = consumer_open();
	ASSERT_LE(0, self->c);
	self->fd = create_with(&args);
	ASSERT_LE(0, self->fd);
	self->id = bind_range(self->c, self->fd, 0, SIZE / PAGE);
	ASSERT_LT(0, self->id);
}

FIXTURE_TEARDOWN(zero)
{
	close(self->c);
	close(self->fd);
	pool_resize(HUGE, 0);
}

/* Else nothing here means anything. */
TEST(kernel_does_not_do_it)
{
	char text[4096];

	ASSERT_LT(0, read_text("/proc/cmdline", text, sizeof(text)));
	EXPECT_NE(NULL, strstr(text, "init_on_alloc=0"));
}

TEST_F(zero, populated_pages)
{
	ASSERT_EQ(0, populate(self->fd, 0, SIZE));
	EXPECT_EQ(0, count_nonzero(self->c, self->id, 0, SIZE / PAGE));
}

TEST_F(zero, faulted_pages)
{
	EXPECT_EQ(0, count_nonzero(self->c, self->id, 0, SIZE / PAGE));
}

TEST_F(zero, pages_used_before)
{
	for (int i = 0; i < 4; i++) {
		ASSERT_EQ(0, write_pattern(self->c, self->id, 0, SIZE / PAGE));
		ASSERT_EQ(0, punch(self->fd, 0, SIZE));
		ASSERT_EQ(0, count_nonzero(self->c, self->id, 0, SIZE / PAGE));
	}
}

TEST_HARNESS_MAIN
