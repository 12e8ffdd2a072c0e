// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * A guest of two vCPUs that reads and writes its memory, while the host does all
 * of hostile.h at once. What the guest wrote it reads, and its pages stay where
 * they are; where the host punches, it reads that or zeros.
 *
 * The memory is plugged in (hostile_test.vm), so that the host may try to
 * take it offline. A second view of it tells where the pages are.
 */
#include <pthread.h>

#include "kselftest_harness.h"
#include "hostile.h"
#include "kvm_util.h"

#undef TEST_TIMEOUT_DEFAULT
#define TEST_TIMEOUT_DEFAULT 600

#define SLOT		1
#define SIZE		(4 * HUGE)
#define STEADY		(2 * HUGE_PAGES)	/* pages that are never punched */
#define VCPUS		2
#define ROUNDS		2000	/* of each vCPU, at least */
#define TIMES		2	/* that each of the host's threads went round */

GUEST_INLINE uint64_t word_of(uint64_t gpa)
{
	return gpa * 0x9e3779b97f4a7c15;
}

/* One page each round: its first word counts rounds, the others stay. */
GUEST_INLINE uint64_t steady_page(uint64_t page, uint64_t round)
{
	uint64_t check = page + 8 + (round * 40 + page / PAGE * 8) % (PAGE - 8);
	uint64_t wrong = 0;

	if (round == 1) {
		for (uint64_t p = page; p < page + PAGE; p += 8)
			guest_write(p, word_of(p));
	} else if (guest_read(page) != round - 1 ||
		   guest_read(check) != word_of(check)) {
		wrong = 1;
	}
	guest_write(page, round);
	return wrong;
}

/* Tells how many words were wrong so far, after each round. */
static GUEST void live(uint64_t gpa, uint64_t steady, uint64_t scratch)
{
	uint64_t wrong = 0, word;

	for (uint64_t round = 1;; round++) {
		for (uint64_t i = 0; i < steady; i++)
			wrong += steady_page(gpa + i * PAGE, round);
		for (uint64_t p = gpa + SIZE / 2; scratch &&
		     p < gpa + SIZE / 2 + scratch * PAGE; p += PAGE) {
			word = guest_read(p);
			wrong += word && word != p;
			guest_write(p, p);
		}
		guest_sync(wrong);
	}
}

FIXTURE(guest) {
	struct accounts accounts;
	struct plugged plugged;
	struct vm vm;
	struct vcpu vcpus[VCPUS];
	int fd;
	int view;
	int c;
	int id;
	uint64_t pfns[STEADY];
};

FIXTURE_VARIANT(guest) {
	uint32_t thp;
};

FIXTURE_VARIANT_ADD(guest, small) {
	.thp = RESTRICTEDMEM_THP_NEVER,
};

FIXTURE_VARIANT_ADD(guest, huge) {
	.thp = RESTRICTEDMEM_THP_ALWAYS,
};

/* vCPU i has its part of both halves. */
static void start_vcpu(FIXTURE_DATA(guest) *self, int i)
{
	uint64_t steady = STEADY / VCPUS, scratch = STEADY / VCPUS;

	vcpu_create(&self->vm, &self->vcpus[i], i);
	vcpu_start(&self->vcpus[i], live, DATA + i * steady * PAGE, steady,
		   scratch);
}

FIXTURE_SETUP(guest)
{
	ASSERT_EQ(0, accounts_begin(&self->accounts));
	ASSERT_EQ(0, swap_on());
	ASSERT_EQ(0, plugged_find(&self->plugged));
	ASSERT_EQ(0, plugged_set(&self->plugged, "online_kernel"));
	self->fd = plugged_create(SIZE, RESTRICTEDMEM_CREATE_VIEWS, variant->thp);
	ASSERT_LE(0, self->fd);
	self->view = link_view(self->fd);
	ASSERT_LE(0, self->view);
	self->c = consumer_open();
	ASSERT_LE(0, self->c);
	self->id = bind_range(self->c, self->view, 0, SIZE / PAGE);
	ASSERT_LT(0, self->id);

	ASSERT_EQ(0, populate(self->fd, 0, SIZE));
	vm_create(&self->vm, KVM_X86_SW_PROTECTED_VM);
	vm_add_private(&self->vm, SLOT, DATA, SIZE, NULL, self->fd);
	for (int i = 0; i < VCPUS; i++) {
		start_vcpu(self, i);
		EXPECT_EQ(0, vcpu_sync(&self->vcpus[i]));
	}
	for (uint64_t i = 0; i < STEADY; i++) {
		self->pfns[i] = get_pfn(self->c, self->id, i);
		ASSERT_TRUE(plugged_has(&self->plugged, self->pfns[i]));
	}
	ASSERT_EQ(0, plugged_kernel_pages(&self->plugged));
}

FIXTURE_TEARDOWN(guest)
{
	for (int i = 0; i < VCPUS; i++)
		vcpu_destroy(&self->vcpus[i]);
	vm_destroy(&self->vm);
	EXPECT_EQ(0, violations(self->c));
	EXPECT_STREQ("", accounts_differ(&self->accounts));
	close(self->c);
	close(self->view);
	close(self->fd);
	EXPECT_STREQ("", accounts_end(&self->accounts));
	EXPECT_EQ(0, swap_off());
	EXPECT_EQ(0, ksm_run("0"));
	EXPECT_EQ(0, shmem_policy("never"));
	khugepaged_rest();
	plugged_set(&self->plugged, "offline");
}

/* The host's threads: each does its worst once, and is called again. */

static uint64_t any(uint64_t end)
{
	static unsigned int seed = 1;

	return rand_r(&seed) % end;
}

static int shrink(FIXTURE_DATA(guest) *self)
{
	char *map = hog(32 * MIB);

	reclaim(self->accounts.group);
	if (map)
		munmap(map, 32 * MIB);
	return drop_caches() || compact() ? -1 : 0;
}

static int discard(FIXTURE_DATA(guest) *self)
{
	static const char * const policies[] = { "never", "deny", "advise" };
	uint64_t start = STEADY + any(STEADY - 8);

	sleep_ms(5);
	if (shmem_policy(policies[any(3)]))
		return -1;
	return punch(self->fd, start * PAGE, (1 + any(8)) * PAGE);
}

/* It fails, or a page of the guest would be elsewhere in the end. */
static int take_offline(FIXTURE_DATA(guest) *self)
{
	uint64_t pfn = self->pfns[any(STEADY)];

	if (!soft_offline(pfn) || drain_lists() || plugged_gigantic(1) != 0)
		return -1;
	return block_offline_for(pfn / self->plugged.block_pages, 1) ? 0 : -1;
}

static int come_and_go(FIXTURE_DATA(guest) *self)
{
	int view = link_view(self->fd), status;
	pid_t child = fork();

	if (!child)
		_exit(0);
	sleep_ms(2);
	close(view);
	return waitpid(child, &status, 0) == child ? status : -1;
}

typedef int (*adversary)(FIXTURE_DATA(guest) *self);

static const adversary adversaries[] = {
	shrink, discard, take_offline, come_and_go,
};

struct worker {
	FIXTURE_DATA(guest) *self;
	adversary work;
	struct vcpu *vcpu;
	volatile bool *stop;
	volatile unsigned long times;
	volatile unsigned long failed;
};

static void *do_worst(void *data)
{
	struct worker *w = data;

	while (!*w->stop) {
		if (w->work(w->self))
			w->failed++;
		w->times++;
	}
	return NULL;
}

static void *run_guest(void *data)
{
	struct worker *w = data;

	while (!*w->stop) {
		w->failed = vcpu_sync(w->vcpu);
		w->times++;
	}
	return NULL;
}

TEST_F(guest, lives_through_all_of_it)
{
	struct worker hosts[ARRAY_SIZE(adversaries)], guests[VCPUS];
	pthread_t host_ids[ARRAY_SIZE(hosts)], guest_ids[VCPUS];
	volatile bool stop = false;
	uint64_t moved = 0, failed = vmstat("pgmigrate_fail");
	bool enough;

	ASSERT_EQ(0, khugepaged_hurry());
	ASSERT_EQ(0, ksm_run("1"));
	for (int i = 0; i < ARRAY_SIZE(hosts); i++) {
		hosts[i] = (struct worker) { self, adversaries[i], .stop = &stop };
		ASSERT_EQ(0, pthread_create(&host_ids[i], NULL, do_worst,
					    &hosts[i]));
	}
	for (int i = 0; i < VCPUS; i++) {
		guests[i] = (struct worker) { self, .vcpu = &self->vcpus[i],
					      .stop = &stop };
		ASSERT_EQ(0, pthread_create(&guest_ids[i], NULL, run_guest,
					    &guests[i]));
	}
	do {
		sleep_ms(100);
		enough = true;
		for (int i = 0; i < ARRAY_SIZE(hosts); i++)
			enough &= hosts[i].times >= TIMES;
		for (int i = 0; i < VCPUS; i++)
			enough &= guests[i].times >= ROUNDS;
	} while (!enough);
	stop = true;
	for (int i = 0; i < ARRAY_SIZE(hosts); i++)
		pthread_join(host_ids[i], NULL);
	for (int i = 0; i < VCPUS; i++)
		pthread_join(guest_ids[i], NULL);

	for (int i = 0; i < ARRAY_SIZE(hosts); i++) {
		TH_LOG("adversary %d: %lu times", i, hosts[i].times);
		EXPECT_EQ(0, hosts[i].failed);
	}
	EXPECT_LT(failed, vmstat("pgmigrate_fail"));
	for (int i = 0; i < VCPUS; i++) {
		TH_LOG("vCPU %d: %lu rounds", i, guests[i].times);
		EXPECT_EQ(0, guests[i].failed);
	}
	for (uint64_t i = 0; i < STEADY; i++)
		moved += get_pfn(self->c, self->id, i) != self->pfns[i];
	EXPECT_EQ(0, moved);
}

TEST_HARNESS_MAIN
