// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * Unloading restrictedmem.ko: refused while anything of it lives, KVM first of
 * all, and clean at once after. Loads and unloads it itself, in a machine where
 * nobody else has a VM.
 */
#include "kselftest_harness.h"
#include "consumer.h"

static bool is_loaded(const char *name)
{
	return !access(path_of("/sys/module/%s", name), F_OK);
}

/* Runs first, while the patched KVM is loaded. */
TEST(kvm_holds_it)
{
	ASSERT_TRUE(is_loaded("kvm"));
	unload_module("restrictedmem_test");
	EXPECT_LT(0, module_refs("restrictedmem"));
	EXPECT_FAILS(EAGAIN, unload_module("restrictedmem"));

	unload_module("kvm_amd");
	unload_module("kvm_intel");
	EXPECT_EQ(0, unload_module("kvm"));
	EXPECT_EQ(0, module_refs("restrictedmem"));
	EXPECT_EQ(0, unload_module("restrictedmem"));
}

FIXTURE(module) {
};

FIXTURE_SETUP(module)
{
	ASSERT_EQ(0, load_module("restrictedmem.ko"));
	ASSERT_EQ(0, module_refs("restrictedmem"));
}

FIXTURE_TEARDOWN(module)
{
	if (is_loaded("restrictedmem_test"))
		unload_module("restrictedmem_test");
	EXPECT_EQ(0, unload_module("restrictedmem"));
	EXPECT_EQ(-1, access("/dev/restrictedmem", F_OK));
}

TEST_F(module, kvm_is_not_announced)
{
	struct restrictedmem_info info;

	ASSERT_EQ(0, get_info(&info));
	EXPECT_EQ(0, info.features & RESTRICTEDMEM_FEATURE_KVM);
}

TEST_F(module, unloads)
{
	EXPECT_EQ(0, unload_module("restrictedmem"));
	EXPECT_EQ(0, load_module("restrictedmem.ko"));
}

TEST_F(module, device_holds_it)
{
	int dev = device_open();

	ASSERT_LE(0, dev);
	EXPECT_FAILS(EAGAIN, unload_module("restrictedmem"));
	close(dev);
}

TEST_F(module, file_holds_it)
{
	int fd = create_small(PAGE);

	ASSERT_LE(0, fd);
	EXPECT_FAILS(EAGAIN, unload_module("restrictedmem"));
	EXPECT_EQ(0, populate(fd, 0, PAGE));
	EXPECT_FAILS(EAGAIN, unload_module("restrictedmem"));
	close(fd);
}

TEST_F(module, binding_holds_it)
{
	int c = consumer_open(), fd = create_small(PAGE);

	ASSERT_LE(0, c);
	ASSERT_LE(0, fd);
	ASSERT_LT(0, bind_range(c, fd, 0, 1));
	close(fd);
	EXPECT_FAILS(EAGAIN, unload_module("restrictedmem"));
	close(c);
}

/* Inodes are freed after a grace period: the module must wait for that. */
TEST_F(module, unloads_right_after_the_last_close)
{
	for (int i = 0; i < 10; i++) {
		int fds[32];

		for (int j = 0; j < ARRAY_SIZE(fds); j++) {
			fds[j] = create_huge(HUGE);
			ASSERT_LE(0, fds[j]);
			ASSERT_EQ(0, populate(fds[j], 0, PAGE));
		}
		for (int j = 0; j < ARRAY_SIZE(fds); j++)
			close(fds[j]);
		ASSERT_EQ(0, unload_module("restrictedmem"));
		ASSERT_EQ(0, load_module("restrictedmem.ko"));
	}
}

TEST_F(module, counts_start_again_at_zero)
{
	int fd = create_small(PAGE);

	ASSERT_LE(0, fd);
	ASSERT_EQ(0, populate(fd, 0, PAGE));
	close(fd);
	ASSERT_EQ(0, unload_module("restrictedmem"));
	ASSERT_EQ(0, load_module("restrictedmem.ko"));
	EXPECT_EQ(0, resident_total());
}

TEST_HARNESS_MAIN
