// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * Unloading restrictedmem.ko: refused while anything of it lives, KVM first of
 * all, and clean at once after. Loads and unloads it itself, in a machine where
 * nobody else has a VM.
 */
#include <pthread.h>

#include "kselftest_harness.h"
#include "consumer.h"
#include "window.h"

#undef TEST_TIMEOUT_DEFAULT
#define TEST_TIMEOUT_DEFAULT 200

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

TEST_F(module, window_holds_it)
{
	int fd = create_flagged(PAGE, RESTRICTEDMEM_CREATE_IN_PLACE), win;
	char *map;

	ASSERT_LE(0, fd);
	win = open_window(fd, 0, PAGE, 0);
	ASSERT_LE(0, win);
	close(fd);
	EXPECT_FAILS(EAGAIN, unload_module("restrictedmem"));
	close(win);

	fd = create_flagged(PAGE, RESTRICTEDMEM_CREATE_IN_PLACE);
	win = open_window(fd, 0, PAGE, 0);
	map = map_window(win, PAGE, PROT_READ);
	ASSERT_NE(MAP_FAILED, map);
	close(fd);
	close(win);
	EXPECT_FAILS(EAGAIN, unload_module("restrictedmem"));
	munmap(map, PAGE);
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

/* Loads and unloads while others use what is there at the moment */

#define LOADS	smaller(100)

/* What a hundred loads may add to the kernel's memory: not a page for each. */
#define MAY_GROW	((int64_t)(LOADS * PAGE))

struct user {
	volatile bool *stop;
	unsigned long made;
	unsigned long bound;
};

/* Whatever fails because the module is not there is tried again. */
static void *use_module(void *data)
{
	struct user *u = data;

	while (!*u->stop) {
		int c = open("/dev/restrictedmem_test", O_RDWR | O_CLOEXEC);
		int fd = create_huge(HUGE), id;

		if (fd >= 0 && !populate(fd, 0, 4 * PAGE))
			u->made++;
		id = c >= 0 && fd >= 0 ? bind_range(c, fd, 0, 4) : -1;
		if (id > 0 && get_pfn(c, id, 0))
			u->bound++;
		if (fd >= 0)
			close(fd);
		if (c >= 0)
			close(c);
		/* Leave a gap in which it can be unloaded. */
		sleep_ms(2);
	}
	return NULL;
}

/* Kilobytes of a line of /proc/meminfo, as bytes */
static int64_t meminfo(const char *key)
{
	static char text[8192];
	const char *line;

	if (read_text("/proc/meminfo", text, sizeof(text)) <= 0)
		return -1;
	line = strstr(text, key);
	return line ? strtoll(line + strlen(key), NULL, 10) * 1024 : -1;
}

static const char * const kernel_memory[] = {
	"SUnreclaim:", "VmallocUsed:", "Percpu:",
};

/* RCU has freed, slabs hold no free pages, and all counters are summed up. */
static void take_kernel_memory(int64_t *bytes)
{
	sleep_ms(500);
	write_text("/proc/sys/vm/drop_caches", "3");
	system("for s in /sys/kernel/slab/*/shrink; do echo 1 >$s; done");
	write_text("/proc/sys/vm/stat_refresh", "1");
	for (int i = 0; i < ARRAY_SIZE(kernel_memory); i++)
		bytes[i] = meminfo(kernel_memory[i]);
}

/* Load both modules and unload them, if need be again and again. */
static int load_and_unload(void)
{
	if (load_module("restrictedmem.ko"))
		return -1;
	if (load_module("tests/kmod/restrictedmem_test.ko"))
		return -1;
	sleep_ms(5);
	while (unload_module("restrictedmem_test"))
		if (errno != EAGAIN)
			return -1;
	while (unload_module("restrictedmem"))
		if (errno != EAGAIN)
			return -1;
	return 0;
}

TEST_F(module, a_hundred_loads_under_load_leave_nothing)
{
	int64_t before[ARRAY_SIZE(kernel_memory)], after[ARRAY_SIZE(kernel_memory)];
	volatile bool stop = false;
	struct user users[2] = { { &stop }, { &stop } };
	pthread_t threads[ARRAY_SIZE(users)];

	ASSERT_EQ(0, unload_module("restrictedmem"));
	for (int i = 0; i < ARRAY_SIZE(users); i++)
		ASSERT_EQ(0, pthread_create(&threads[i], NULL, use_module, &users[i]));
	for (int i = 0; i < 10; i++)
		ASSERT_EQ(0, load_and_unload());
	take_kernel_memory(before);
	for (uint64_t i = 0; i < LOADS; i++)
		ASSERT_EQ(0, load_and_unload());
	take_kernel_memory(after);
	stop = true;
	for (int i = 0; i < ARRAY_SIZE(users); i++) {
		pthread_join(threads[i], NULL);
		TH_LOG("%lu files, %lu bindings", users[i].made, users[i].bound);
		EXPECT_LT(LOADS / 10, users[i].made);
		EXPECT_LT(LOADS / 10, users[i].bound);
	}
	for (int i = 0; i < ARRAY_SIZE(kernel_memory); i++) {
		TH_LOG("%s %lld more bytes", kernel_memory[i],
		       (long long)(after[i] - before[i]));
		EXPECT_GT(MAY_GROW, after[i] - before[i]);
	}
	ASSERT_EQ(0, load_module("restrictedmem.ko"));
}

TEST_HARNESS_MAIN
