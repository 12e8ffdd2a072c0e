// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * What a guest, a backend and whoever reads the console can do to rmvm, and what
 * rmvm then may not do. Needs no machine: see machine.h.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pty.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <linux/virtio_ring.h>

#include "kselftest_harness.h"
#include "machine.h"

#define P		0x200000UL	/* a page */
#define Q		0x400000UL	/* a queue */
#define Q2		0x402000UL
#define SERIAL		0x3f8
#define LSR		(SERIAL + 5)
#define THRE		0x20
#define DISCARD		0x5f0
#define VERSION_1	(1UL << 32)
#define RING_SIZE	32

#define IS_SHARED(gpa)	(world->shared[(gpa) / PAGE])

/* What rmvm(1) promises as exit statuses */
enum { ENDED = 0, FAILED = 1, TIMEOUT = 3, KILLED = 4 };

static void end_guest(void)
{
	g_out(0x64, 0xfe, 1);
	g_halt();
}

static int run(const struct plan *plan)
{
	return machine_wait(machine_start(plan));
}

static int term(pid_t pid)
{
	kill(pid, SIGTERM);
	return machine_wait(pid);
}

FIXTURE(vm) {
	struct plan plan;
	pid_t pid;
};

FIXTURE_SETUP(vm)
{
	world_make();
}

FIXTURE_TEARDOWN(vm)
{
}

/*
 * Faults. notes[0] is what the guest has to say, [1] how far it is.
 */

static void converts_to_and_fro(void)
{
	g_convert(P, 1, false);
	g_convert(P, 1, true);
	world->conversions = 0;
	world->notes[1] = 1;
	until(world->notes[1] == 2);
	end_guest();
}

static void faults_late(void)
{
	until(world->notes[1] == 1);
	g_fault(P, false, EFAULT);
	world->notes[0] = IS_SHARED(P);
	world->notes[1] = 2;
}

/* KVM looked when the page was shared, and could not have it when it no longer was. */
TEST_F(vm, stale_fault_shares_nothing)
{
	self->plan.guest[0] = converts_to_and_fro;
	self->plan.guest[1] = faults_late;
	EXPECT_EQ(ENDED, run(&self->plan));
	EXPECT_EQ(2, world->notes[1]);
	EXPECT_EQ(0, world->notes[0]);
	EXPECT_EQ(0, world->conversions);
	EXPECT_FALSE(IS_SHARED(P));
}

static void faults_as_private(void)
{
	g_convert(P, 1, false);
	g_fault(P, true, EFAULT);
	world->notes[0] = IS_SHARED(P);
	end_guest();
}

TEST_F(vm, stale_fault_takes_nothing_back)
{
	self->plan.guest[0] = faults_as_private;
	EXPECT_EQ(ENDED, run(&self->plan));
	EXPECT_EQ(1, world->notes[0]);
}

static void faults_again(void)
{
	g_fault(P, false, EFAULT);
	world->notes[0] = 1;
	g_fault(P, false, EFAULT);
	world->notes[0] = 2;
}

TEST_F(vm, fault_that_comes_again_ends_it)
{
	self->plan.guest[0] = faults_again;
	EXPECT_EQ(FAILED, run(&self->plan));
	EXPECT_EQ(1, world->notes[0]);
	EXPECT_EQ(0, world->conversions);
}

static void faults_between_conversions(void)
{
	int i;

	for (i = 0; i < 200; i++) {
		g_fault(P, false, EFAULT);
		g_convert(P + PAGE, 1, i % 2);
	}
	end_guest();
}

/* However often it was stale, it is again. */
TEST_F(vm, stale_faults_are_not_counted)
{
	self->plan.guest[0] = faults_between_conversions;
	EXPECT_EQ(ENDED, run(&self->plan));
	EXPECT_FALSE(IS_SHARED(P));
}

static void faults_on_poison(void)
{
	g_fault(P, true, EHWPOISON);
	g_fault(P, true, EHWPOISON);
	world->notes[0] = 1;
}

TEST_F(vm, lost_page_ends_it)
{
	self->plan.guest[0] = faults_on_poison;
	EXPECT_EQ(FAILED, run(&self->plan));
	EXPECT_EQ(0, world->notes[0]);
}

static void converts_without_punch(void)
{
	world->no_punch = true;
	g_convert(P, 1, false);
}

TEST_F(vm, page_whose_private_copy_stays_is_not_shared)
{
	self->plan.guest[0] = converts_without_punch;
	EXPECT_EQ(FAILED, run(&self->plan));
	EXPECT_EQ(1, world->conversions);
	EXPECT_FALSE(IS_SHARED(P));
}

static void shares_twice_without_punch(void)
{
	g_convert(P, 1, false);
	world->no_punch = true;
	g_convert(P, 2, false);
}

TEST_F(vm, page_that_was_shared_stays_so)
{
	self->plan.guest[0] = shares_twice_without_punch;
	EXPECT_EQ(FAILED, run(&self->plan));
	EXPECT_TRUE(IS_SHARED(P));
	EXPECT_FALSE(IS_SHARED(P + PAGE));
}

TEST(set_of_ranges_is_a_set)
{
	EXPECT_TRUE(shared_is_a_set());
}

#define RANGES		100

static void shares_many(void)
{
	unsigned int i;

	for (i = 0; i < RANGES; i++)
		g_convert(P + 2 * i * PAGE, 1, false);
	world->held = P + 2 * RANGES * PAGE;
	world->conversions = 0;
}

static void cannot_take_many_back(void)
{
	int64_t ret;
	int i;

	shares_many();
	/* Half of the first range stays out of it. */
	g_convert(P, 2, false);
	ret = g_convert(P + PAGE, 2 * RANGES, true);
	world->notes[0] = ret == -EAGAIN;
	for (i = 0; i < RANGES; i++)
		world->notes[1] += IS_SHARED(P + 2 * i * PAGE);
	world->notes[2] = IS_SHARED(P + PAGE);
	world->notes[3] = IS_SHARED(P + 3 * PAGE);
	/* Nothing is shared but what was so, in rmvm's books too. */
	world->held = 0;
	world->notes[4] = !g_convert(P, 2 * RANGES, true);
	end_guest();
}

TEST_F(vm, pages_before_one_that_is_held_are_shared_again)
{
	self->plan.args[0] = "--backing=in-place";
	self->plan.guest[0] = cannot_take_many_back;
	EXPECT_EQ(ENDED, run(&self->plan));
	EXPECT_EQ(1, world->notes[0]);
	EXPECT_EQ(RANGES, world->notes[1]);
	EXPECT_EQ(1, world->notes[2]);
	EXPECT_EQ(0, world->notes[3]);
	EXPECT_EQ(1, world->notes[4]);
}

static void is_long_in_sharing_them_again(void)
{
	shares_many();
	world->sharing_takes = 20000;
	g_convert(P, 2 * RANGES + 1, true);
	g_halt();
}

/* It takes two seconds. */
TEST_F(vm, end_does_not_wait_until_all_is_shared_again)
{
	self->plan.args[0] = "--backing=in-place";
	self->plan.args[1] = "--timeout=1";
	self->plan.guest[0] = is_long_in_sharing_them_again;
	EXPECT_EQ(TIMEOUT, run(&self->plan));
	EXPECT_GT(RANGES, world->conversions);
}

/* The end, and the console */

static void deaf_guest(void)
{
	g_stuck_until_kicked(0);
}

static void says_that_it_runs(void)
{
	world->notes[0]++;
	g_halt();
}

TEST_F(vm, all_vcpus_are_kicked_before_one_is_waited_for)
{
	self->plan.guest[0] = says_that_it_runs;
	self->plan.guest[1] = deaf_guest;
	self->pid = machine_start(&self->plan);
	until(world->notes[0]);
	EXPECT_EQ(KILLED, term(self->pid));
}

/* How many threads have such a line in a file of theirs in /proc? */
static unsigned int count_threads(pid_t pid, const char *file, bool (*match)(const char *line))
{
	char path[300], line[128];
	unsigned int nr = 0;
	struct dirent *d;
	DIR *dir;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	dir = opendir(path);
	while ((d = readdir(dir))) {
		snprintf(path, sizeof(path), "/proc/%d/task/%s/%s", pid, d->d_name, file);
		f = fopen(path, "r");
		while (f && fgets(line, sizeof(line), f))
			nr += match(line);
		if (f)
			fclose(f);
	}
	closedir(dir);
	return nr;
}

static bool opens(const char *line)
{
	return !strncmp(line, "257 ", 4);	/* openat() */
}

static bool takes_sigterm(const char *line)
{
	unsigned long long blocked;

	return sscanf(line, "SigBlk: %llx", &blocked) == 1 && !(blocked >> (SIGTERM - 1) & 1);
}

TEST_F(vm, signal_is_heard_before_the_guest_runs)
{
	char path[64], option[80];

	snprintf(path, sizeof(path), "/tmp/rmvm_test.%d.fifo", getpid());
	snprintf(option, sizeof(option), "--kernel=%s", path);
	ASSERT_EQ(0, mkfifo(path, 0600));
	self->plan.args[0] = option;
	self->plan.guest[0] = says_that_it_runs;
	self->pid = machine_start(&self->plan);
	until(count_threads(self->pid, "syscall", opens));
	EXPECT_EQ(KILLED, term(self->pid));
	unlink(path);
}

/* But for the one that waits for it: which of them has it otherwise, is chance. */
TEST_F(vm, signal_is_not_for_the_devices_threads)
{
	self->plan.args[0] = "--balloon";
	self->plan.guest[0] = says_that_it_runs;
	self->pid = machine_start(&self->plan);
	until(world->notes[0]);
	EXPECT_GE(1, count_threads(self->pid, "status", takes_sigterm));
	EXPECT_EQ(KILLED, term(self->pid));
}

/* Without a look at whether it can */
static void babbles(void)
{
	int i;

	for (i = 0; i < 140000; i++) {
		g_out(SERIAL, 'x', 1);
		world->notes[0]++;
	}
	g_halt();
}

static void tells_the_time(void)
{
	until(world->notes[0] > 70000);
	g_in(0x71, 1);
	world->notes[1] = 1;
}

static int stalled_console(struct plan *plan, int flags)
{
	int ends[2];

	if (pipe2(ends, flags))
		return -1;
	plan->out = ends[1];
	plan->guest[0] = babbles;
	plan->guest[1] = tells_the_time;
	return machine_start(plan);
}

TEST_F(vm, stalled_console_stops_no_vcpu)
{
	self->pid = stalled_console(&self->plan, 0);
	until(world->notes[0] == 140000 && world->notes[1]);
	EXPECT_EQ(KILLED, term(self->pid));
}

TEST_F(vm, full_console_that_does_not_block_stops_no_vcpu)
{
	self->pid = stalled_console(&self->plan, O_NONBLOCK);
	until(world->notes[0] == 140000 && world->notes[1]);
	EXPECT_EQ(KILLED, term(self->pid));
}

TEST_F(vm, time_limit_holds_with_a_stalled_console)
{
	self->plan.args[0] = "--timeout=1";
	EXPECT_EQ(TIMEOUT, machine_wait(stalled_console(&self->plan, 0)));
}

/* As Linux does: sixteen at a time when the transmitter is empty */
static void talks(void)
{
	unsigned int i, at = 0;

	while (at < 200000) {
		while (!(g_in(LSR, 1) & THRE))
			pause_a_moment();
		for (i = 0; i < 16; i++)
			g_out(SERIAL, at++ % 251, 1);
		world->notes[0] = at;
	}
	end_guest();
}

TEST_F(vm, slow_console_loses_nothing)
{
	unsigned int at = 0, bad = 0, i;
	unsigned char buf[4096];
	int ends[2];
	ssize_t n;

	ASSERT_EQ(0, pipe(ends));
	self->plan.out = ends[1];
	self->plan.guest[0] = talks;
	self->pid = machine_start(&self->plan);
	close(ends[1]);
	/* Nobody reads until the pipe and the ring are full. */
	until(world->notes[0] > 120000);
	while ((n = read(ends[0], buf, sizeof(buf))) > 0)
		for (i = 0; i < n; i++)
			bad += buf[i] != at++ % 251;
	EXPECT_EQ(200000, at);
	EXPECT_EQ(0, bad);
	EXPECT_EQ(ENDED, machine_wait(self->pid));
}

TEST_F(vm, escape_is_heard_when_the_guest_does_not_listen)
{
	char text[1000];
	int pty, tty, i;

	ASSERT_EQ(0, openpty(&pty, &tty, NULL, NULL, NULL));
	self->plan.in = tty;
	self->plan.guest[0] = says_that_it_runs;
	self->pid = machine_start(&self->plan);
	until(world->notes[0]);
	memset(text, 'x', sizeof(text));
	for (i = 0; i < 10; i++)
		ASSERT_EQ(sizeof(text), write(pty, text, sizeof(text)));
	ASSERT_EQ(2, write(pty, "\001x", 2));
	EXPECT_EQ(KILLED, machine_wait(self->pid));
}

static void listens(void)
{
	g_out(SERIAL + 1, 1, 1);
	world->notes[0] = 1;
	while (!(g_in(LSR, 1) & 1))
		pause_a_moment();
	world->notes[1] = g_in(SERIAL, 1);
	end_guest();
}

TEST_F(vm, input_that_does_not_block_is_read)
{
	int ends[2];

	ASSERT_EQ(0, pipe2(ends, O_NONBLOCK));
	self->plan.in = ends[0];
	self->plan.guest[0] = listens;
	self->pid = machine_start(&self->plan);
	until(world->notes[0]);
	pause_a_moment();
	ASSERT_EQ(1, write(ends[1], "k", 1));
	EXPECT_EQ(ENDED, machine_wait(self->pid));
	EXPECT_EQ('k', world->notes[1]);
}

/* The balloon */

static struct vring_avail *avail_of(uint64_t queue)
{
	return g_ram(queue + 2048);
}

static struct vring_used *used_of(uint64_t queue)
{
	return g_ram(queue + 3072);
}

static void start_balloon(unsigned int device, uint64_t queue)
{
	g_device_enable(device);
	g_device_features(device, VERSION_1 | 1 << 5);
	g_device_status(device, SET_STATUS_OK);
	g_device_queue(device, 2, queue);
	g_device_status(device, SET_DRIVER_OK);
}

static void kick(unsigned int device, unsigned int queue)
{
	g_write(NOTIFY(device, queue), queue, 4);
}

static void report_pages(void)
{
	struct vring_desc *desc = g_ram(Q);
	int i;

	for (i = 0; i < RING_SIZE; i++) {
		desc[i] = (struct vring_desc){ P + i * PAGE, PAGE, 0, 0 };
		avail_of(Q)->ring[i] = i;
	}
	world->punches = 0;
	__atomic_store_n(&avail_of(Q)->idx, RING_SIZE, __ATOMIC_RELEASE);
	kick(0, 2);
	until(__atomic_load_n(&used_of(Q)->idx, __ATOMIC_ACQUIRE) == RING_SIZE);
	world->notes[0] = g_device_status_now(0);
	end_guest();
}

static void reports(void)
{
	start_balloon(0, Q);
	report_pages();
}

TEST_F(vm, balloon_takes_a_full_queue)
{
	self->plan.args[0] = "--balloon";
	self->plan.guest[0] = reports;
	EXPECT_EQ(ENDED, run(&self->plan));
	EXPECT_EQ(SET_DRIVER_OK, world->notes[0]);
	EXPECT_EQ(RING_SIZE, world->punches);
}

static void runs_ahead(void)
{
	start_balloon(0, Q);
	world->punches = 0;
	__atomic_store_n(&avail_of(Q)->idx, RING_SIZE + 1, __ATOMIC_RELEASE);
	kick(0, 2);
	until(g_device_status_now(0) & NEEDS_RESET);
	world->notes[0] = used_of(Q)->idx;
	/* After the reset it works. */
	reports();
}

TEST_F(vm, index_beyond_the_queue_breaks_the_balloon)
{
	self->plan.args[0] = "--balloon";
	self->plan.guest[0] = runs_ahead;
	EXPECT_EQ(ENDED, run(&self->plan));
	EXPECT_EQ(SET_DRIVER_OK, world->notes[0]);
}

static void runs_ahead_and_starts_anew(void)
{
	start_balloon(0, Q);
	/* The first is for the queue, the second to tell the driver. */
	world->waits_at_lock = 2;
	__atomic_store_n(&avail_of(Q)->idx, RING_SIZE + 1, __ATOMIC_RELEASE);
	kick(0, 2);
	until(world->waits);
	start_balloon(0, Q);
	avail_of(Q)->idx = 0;
	used_of(Q)->idx = 0;
	world->waits = false;
	report_pages();
}

TEST_F(vm, driver_does_not_hear_what_the_one_before_has_done)
{
	self->plan.args[0] = "--balloon";
	self->plan.guest[0] = runs_ahead_and_starts_anew;
	EXPECT_EQ(ENDED, run(&self->plan));
	EXPECT_EQ(SET_DRIVER_OK, world->notes[0]);
}

/* The queue is never empty: the index follows what was used. */
static void never_ends(void)
{
	struct vring_desc *desc;

	start_balloon(0, Q);
	desc = g_ram(Q);
	desc[0] = (struct vring_desc){ P, PAGE, 0, 0 };
	world->punch_takes = 20000;
	avail_of(Q)->idx = RING_SIZE - 1;
	kick(0, 2);
	world->notes[0] = 1;
	while (!world->notes[3])
		__atomic_store_n(&avail_of(Q)->idx,
				 __atomic_load_n(&used_of(Q)->idx, __ATOMIC_ACQUIRE) +
				 RING_SIZE - 1, __ATOMIC_RELEASE);
	end_guest();
}

static void converts_meanwhile(void)
{
	int i;

	until(world->notes[0]);
	for (i = 0; i < 20; i++)
		g_convert(P, 1, i % 2);
	world->notes[3] = 1;
}

TEST_F(vm, queue_that_never_ends_delays_no_conversion)
{
	self->plan.args[0] = "--balloon";
	self->plan.guest[0] = never_ends;
	self->plan.guest[1] = converts_meanwhile;
	EXPECT_EQ(ENDED, run(&self->plan));
}

static void converts_for_ever(void)
{
	until(world->notes[0]);
	for (;;) {
		g_convert(P, 1, false);
		world->notes[1]++;
	}
}

TEST_F(vm, queue_that_never_ends_does_not_delay_the_end)
{
	self->plan.args[0] = "--balloon";
	self->plan.args[1] = "--timeout=1";
	self->plan.guest[0] = never_ends;
	self->plan.guest[1] = converts_for_ever;
	EXPECT_EQ(TIMEOUT, run(&self->plan));
}

/* One report, as long as can be */
static void report_chain(const struct vring_desc *block, unsigned int nr)
{
	struct vring_desc *desc;
	unsigned int i;

	start_balloon(0, Q);
	desc = g_ram(Q);
	for (i = 0; i < nr; i++) {
		desc[i] = *block;
		desc[i].flags = i + 1 < nr ? VRING_DESC_F_NEXT : 0;
		desc[i].next = i + 1;
	}
	avail_of(Q)->ring[0] = 0;
	world->punches = 0;
	__atomic_store_n(&avail_of(Q)->idx, 1, __ATOMIC_RELEASE);
	kick(0, 2);
}

static void resets_during_a_report(void)
{
	world->punch_takes = 100000;
	report_chain(&(struct vring_desc){ P, PAGE }, RING_SIZE);
	until(world->punches);
	g_device_status(0, 0);
	world->notes[1] = world->punches;
	end_guest();
}

TEST_F(vm, long_report_delays_no_reset)
{
	self->plan.args[0] = "--balloon";
	self->plan.guest[0] = resets_during_a_report;
	EXPECT_EQ(ENDED, run(&self->plan));
	EXPECT_GT(RING_SIZE / 2, world->notes[1]);
}

static void report_block(uint64_t gpa, uint32_t len)
{
	report_chain(&(struct vring_desc){ gpa, len }, 1);
	until(__atomic_load_n(&used_of(Q)->idx, __ATOMIC_ACQUIRE));
	world->notes[0] = world->punches;
	end_guest();
}

static void reports_a_large_block(void)
{
	report_block(0x10000000, 0x10000000);
}

static void reports_a_page_of_the_pool(void)
{
	report_block(0x20000000, 0x60000000);
}

/* Of 64 MiB: there it looks who waits. */
TEST_F(vm, large_block_is_freed_in_pieces)
{
	self->plan.args[0] = "--balloon";
	self->plan.args[1] = "--memory=1G";
	self->plan.guest[0] = reports_a_large_block;
	EXPECT_EQ(ENDED, run(&self->plan));
	EXPECT_EQ(4, world->notes[0]);
}

/* Only whole pages of it can be freed. */
TEST_F(vm, large_block_of_a_pool_is_freed_in_whole_pages)
{
	self->plan.args[0] = "--balloon";
	self->plan.args[1] = "--memory=2G";
	self->plan.args[2] = "--pool=1G";
	self->plan.guest[0] = reports_a_page_of_the_pool;
	EXPECT_EQ(ENDED, run(&self->plan));
	EXPECT_EQ(1, world->notes[0]);
}

static void takes_the_queue_back(void)
{
	start_balloon(0, Q);
	world->notes[0] = IS_SHARED(Q);
	g_convert(Q, 1, true);
	world->notes[1] = IS_SHARED(Q);
	until(g_device_status_now(0) & NEEDS_RESET);
	end_guest();
}

TEST_F(vm, balloon_whose_queue_is_taken_back_says_so)
{
	self->plan.args[0] = "--balloon";
	self->plan.guest[0] = takes_the_queue_back;
	EXPECT_EQ(ENDED, run(&self->plan));
	EXPECT_EQ(1, world->notes[0]);
	EXPECT_EQ(0, world->notes[1]);
}

static void shares_the_queue_itself(void)
{
	g_convert(Q, 1, false);
	start_balloon(0, Q);
	world->notes[0] = g_device_status_now(0);
	g_device_status(0, 0);
	world->notes[1] = IS_SHARED(Q);
	end_guest();
}

TEST_F(vm, page_that_the_guest_shares_stays_shared_after_the_balloon)
{
	self->plan.args[0] = "--balloon";
	self->plan.guest[0] = shares_the_queue_itself;
	EXPECT_EQ(ENDED, run(&self->plan));
	EXPECT_EQ(SET_DRIVER_OK, world->notes[0]);
	EXPECT_EQ(1, world->notes[1]);
}

static void starts_the_balloon(void)
{
	start_balloon(0, Q);
	world->notes[0] = g_device_status_now(0);
	world->notes[1] = IS_SHARED(Q);
	end_guest();
}

TEST_F(vm, failed_look_at_a_page_leaves_it_private)
{
	self->plan.args[0] = "--balloon";
	self->plan.args[1] = "--backing=in-place";
	self->plan.guest[0] = starts_the_balloon;
	world->no_window = true;
	EXPECT_EQ(ENDED, run(&self->plan));
	EXPECT_TRUE(world->notes[0] & NEEDS_RESET);
	EXPECT_EQ(1, world->conversions);
	EXPECT_EQ(0, world->notes[1]);
}

TEST_F(vm, failed_look_at_a_page_out_of_place_leaves_it_private)
{
	self->plan.args[0] = "--balloon";
	self->plan.guest[0] = starts_the_balloon;
	world->no_punch = true;
	EXPECT_EQ(ENDED, run(&self->plan));
	EXPECT_TRUE(world->notes[0] & NEEDS_RESET);
	EXPECT_EQ(0, world->notes[1]);
}

static void cannot_end_the_balloon(void)
{
	start_balloon(0, Q);
	world->no_private = world->notes[0];
	g_device_status(0, 0);
	world->notes[1] = IS_SHARED(Q);
	g_halt();
}

/* The guest would put there what is its own. */
TEST_F(vm, page_that_is_held_after_the_balloon_ends_it)
{
	self->plan.args[0] = "--balloon";
	self->plan.args[1] = "--backing=in-place";
	self->plan.guest[0] = cannot_end_the_balloon;
	world->notes[0] = EAGAIN;
	EXPECT_EQ(FAILED, run(&self->plan));
	EXPECT_EQ(0, world->notes[1]);
}

TEST_F(vm, page_that_stays_shared_after_the_balloon_ends_it)
{
	self->plan.args[0] = "--balloon";
	self->plan.guest[0] = cannot_end_the_balloon;
	world->notes[0] = ENOMEM;
	EXPECT_EQ(FAILED, run(&self->plan));
	EXPECT_EQ(0, world->notes[1]);
}

/* Disks */

FIXTURE(disk) {
	struct plan plan;
	pid_t pid;
};

FIXTURE_SETUP(disk)
{
	world_make();
	self->plan.args[0] = "--backing=in-place";
	self->plan.args[1] = "--vhost-user-blk";
	self->plan.args[2] = backend_start();
}

FIXTURE_TEARDOWN(disk)
{
	unlink(self->plan.args[2]);
}

static void start_disk_privately(unsigned int device, uint64_t queue)
{
	g_device_enable(device);
	g_device_features(device, VERSION_1);
	g_device_status(device, SET_STATUS_OK);
	g_device_queue(device, 0, queue);
	g_device_status(device, SET_DRIVER_OK);
}

static void start_disk_at(unsigned int device, uint64_t queue)
{
	g_convert(queue, 1, false);
	start_disk_privately(device, queue);
}

static void start_disk(void)
{
	start_disk_at(0, Q);
}

static void uses_a_disk(void)
{
	start_disk();
	world->notes[0] = g_device_status_now(0);
	world->notes[1] = world->regions;
	g_convert(P, 1, false);
	world->notes[2] = world->regions;
	g_convert(P, 1, true);
	world->notes[3] = world->regions;
	end_guest();
}

TEST_F(disk, backend_gets_what_is_shared)
{
	self->plan.guest[0] = uses_a_disk;
	EXPECT_EQ(ENDED, run(&self->plan));
	EXPECT_EQ(SET_DRIVER_OK, world->notes[0]);
	EXPECT_EQ(1, world->notes[1]);
	EXPECT_EQ(2, world->notes[2]);
	EXPECT_EQ(1, world->notes[3]);
	EXPECT_EQ(VERSION_1 | 1 << 30, world->features);
}

/* Each message is answered within the limit, all of them are not. */
static void converts_with_a_slow_backend(void)
{
	int i;

	for (i = 0; i < 10; i++)
		g_convert(P + 2 * i * PAGE, 1, false);
	start_disk();
	world->lag = 9;
	g_convert(P, 20, true);
	world->lag = 0;
	end_guest();
}

TEST_F(disk, limit_is_for_the_operation)
{
	self->plan.guest[0] = converts_with_a_slow_backend;
	EXPECT_EQ(ENDED, run(&self->plan));
	EXPECT_EQ(2, world->requests[38]);	/* REM_MEM_REG */
	EXPECT_FALSE(IS_SHARED(P));
}

static void fails_to_convert_with_a_slow_backend(void)
{
	int64_t ret;

	start_disk();
	g_convert(P, 1, false);
	world->held = P;
	world->lag = 6;
	ret = g_convert(P, 1, true);
	world->lag = 0;
	world->notes[0] = ret == -EAGAIN;
	world->notes[1] = world->windows - world->revoked;
	world->notes[2] = IS_SHARED(P);
	end_guest();
}

/* What is taken from a backend, and given to it again, too */
TEST_F(disk, limit_is_for_a_conversion_that_fails)
{
	self->plan.guest[0] = fails_to_convert_with_a_slow_backend;
	EXPECT_EQ(ENDED, run(&self->plan));
	EXPECT_EQ(1, world->requests[38]);
	EXPECT_EQ(1, world->notes[0]);
	EXPECT_EQ(0, world->notes[1]);
	EXPECT_EQ(1, world->notes[2]);
}

static void shares_with_two_backends(void)
{
	start_disk();
	start_disk_at(1, Q2);
	world->lag = world->notes[0];
	g_convert(P, 1, false);
	world->lag = 0;
	world->notes[1] = world->windows - world->revoked;
	world->notes[2] = g_device_status_now(1);
	end_guest();
}

static void run_with_two_backends(struct plan *plan, void (*guest)(void))
{
	plan->args[4] = plan->args[1];
	plan->args[5] = backend_start();
	plan->guest[0] = guest;
	if (run(plan) != ENDED)
		world->notes[1] = UINT64_MAX;
	unlink(plan->args[5]);
}

/* Neither takes more than the limit, but both. */
TEST_F(disk, limit_is_for_all_backends)
{
	world->notes[0] = 6;
	self->plan.args[3] = "--backend-timeout=10";
	run_with_two_backends(&self->plan, shares_with_two_backends);
	EXPECT_EQ(0, world->notes[1]);
}

static void shares_beside_one_that_is_silent(void)
{
	start_disk();
	start_disk_at(1, Q2);
	world->stalls_at = 37;			/* ADD_MEM_REG */
	g_convert(P, 1, false);
	/* The other one has both queues and the page. */
	world->notes[1] = world->windows - world->revoked;
	world->notes[2] = g_device_status_now(1);
	end_guest();
}

TEST_F(disk, backend_that_is_silent_takes_no_time_of_others)
{
	self->plan.args[3] = "--backend-timeout=4";
	run_with_two_backends(&self->plan, shares_beside_one_that_is_silent);
	EXPECT_EQ(1, world->unanswered);
	EXPECT_EQ(3, world->notes[1]);
	EXPECT_EQ(SET_DRIVER_OK, world->notes[2]);
}

static void takes_back_what_is_held(void)
{
	g_convert(P, 1, false);
	world->held = P;
	world->holding_takes = 1;
	world->notes[0] = g_convert(P, 1, true) == -EAGAIN;
	end_guest();
}

/* And not so many times, each of which takes its time in the kernel */
TEST_F(disk, held_page_is_tried_for_a_tenth_of_a_second)
{
	self->plan.guest[0] = takes_back_what_is_held;
	EXPECT_EQ(ENDED, run(&self->plan));
	EXPECT_EQ(1, world->notes[0]);
	EXPECT_EQ(1, world->tries);
}

static void waits_for_the_backend(void)
{
	start_disk();
	world->stalls_at = 37;			/* ADD_MEM_REG */
	world->notes[0] = 1;
	g_convert(P, 1, false);
	world->notes[1] = 1;
	g_halt();
}

static void discards_meanwhile(void)
{
	until(world->unanswered);
	g_out(DISCARD, (P + PAGE) / PAGE, 4);
	world->notes[2] = 1;
}

TEST_F(disk, end_does_not_wait_for_a_backend)
{
	self->plan.args[3] = "--backend-timeout=1000";
	self->plan.args[4] = "--timeout=1";
	self->plan.guest[0] = waits_for_the_backend;
	EXPECT_EQ(TIMEOUT, run(&self->plan));
	EXPECT_EQ(1, world->unanswered);
}

TEST_F(disk, signal_is_heard_when_a_backend_says_nothing)
{
	self->plan.args[3] = "--backend-timeout=1000";
	self->plan.guest[0] = waits_for_the_backend;
	world->stalls_at = 1;			/* GET_FEATURES */
	self->pid = machine_start(&self->plan);
	until(world->unanswered);
	EXPECT_EQ(KILLED, term(self->pid));
}

/* That it failed then is not the reason. */
TEST_F(disk, signal_is_the_reason_when_a_backend_fails_after_it)
{
	self->plan.args[3] = "--backend-timeout=2";
	self->plan.guest[0] = waits_for_the_backend;
	world->stalls_at = 1;
	self->pid = machine_start(&self->plan);
	until(world->unanswered);
	EXPECT_EQ(KILLED, term(self->pid));
}

TEST_F(disk, discard_does_not_wait_for_a_backend)
{
	self->plan.args[3] = "--backend-timeout=1000";
	self->plan.guest[0] = waits_for_the_backend;
	self->plan.guest[1] = discards_meanwhile;
	self->pid = machine_start(&self->plan);
	until(world->notes[2]);
	EXPECT_EQ(0, world->notes[1]);
	kill(self->pid, SIGKILL);
	machine_wait(self->pid);
}

static void makes_it_complain(void)
{
	start_disk_privately(0, Q);
	world->notes[0] = 1;
	g_convert(P, 1, false);
	end_guest();
}

/* The writing end of a pipe that nobody reads */
static int full_pipe(void)
{
	char text[4096] = "";
	int ends[2];

	if (pipe2(ends, O_NONBLOCK))
		return -1;
	while (write(ends[1], text, sizeof(text)) > 0)
		;
	fcntl(ends[1], F_SETFL, 0);
	return ends[1];
}

TEST_F(disk, messages_that_nobody_reads_stop_no_vcpu)
{
	self->plan.args[3] = "--verbose";
	self->plan.err = full_pipe();
	self->plan.guest[0] = makes_it_complain;
	EXPECT_EQ(ENDED, run(&self->plan));
	EXPECT_EQ(1, world->notes[0]);
}

TEST_F(vm, end_does_not_wait_for_who_reads_the_summary)
{
	self->plan.args[0] = "--stats";
	self->plan.err = full_pipe();
	self->plan.guest[0] = says_that_it_runs;
	self->pid = machine_start(&self->plan);
	until(world->notes[0]);
	EXPECT_EQ(KILLED, term(self->pid));
}

static void move_bars(uint64_t first, uint64_t second)
{
	g_out(0xcf8, 0x80000000 | 1 << 11 | 0x10, 4);
	g_out(0xcfc, first, 4);
	g_out(0xcf8, 0x80000000 | 2 << 11 | 0x10, 4);
	g_out(0xcfc, second, 4);
}

static void makes_it_complain_of_everything(void)
{
	int i;

	g_convert(P, 1, false);
	for (i = 0; i < 3; i++) {
		start_disk_privately(0, Q);
		start_disk();
		start_balloon(1, P);
		start_balloon(1, Q2 + 2048);
		g_convert(Q, 1, true);
		start_balloon(1, Q2);
		avail_of(Q2)->idx = RING_SIZE + 1;
		kick(1, 2);
		until(g_device_status_now(1) & NEEDS_RESET);
		g_device_status(1, 0);
		move_bars(BAR(1), BAR(1));
		start_disk_privately(1, Q);
		g_device_status(1, 0);
		move_bars(BAR(0), BAR(1));
	}
	end_guest();
}

static unsigned int count(const char *text, const char *what)
{
	unsigned int nr = 0;

	while ((text = strstr(text, what))) {
		text++;
		nr++;
	}
	return nr;
}

TEST_F(disk, guest_does_not_fill_a_log)
{
	static char text[65536];
	int ends[2];

	ASSERT_EQ(0, pipe(ends));
	self->plan.args[3] = "--balloon";
	self->plan.err = ends[1];
	self->plan.guest[0] = makes_it_complain_of_everything;
	EXPECT_EQ(ENDED, run(&self->plan));
	close(ends[1]);
	ASSERT_LT(0, read(ends[0], text, sizeof(text) - 1));
	EXPECT_EQ(1, count(text, "does not share the queue of this disk"));
	EXPECT_EQ(1, count(text, "no longer shares the queue of this disk"));
	EXPECT_EQ(1, count(text, "balloon's queue is in a page that backends can write to"));
	EXPECT_EQ(1, count(text, "balloon's queue is not in one page"));
	EXPECT_EQ(1, count(text, "balloon's queue has more in it"));
	EXPECT_EQ(1, count(text, "two devices at one address"));
}

static bool call_is_heard(void)
{
	unsigned int i;

	for (i = 0; i < 16; i++)
		if (world->call_id && world->irqfds[i] == world->call_id)
			return true;
	return false;
}

static void gives_the_backend_up(void)
{
	start_disk();
	world->notes[0] = call_is_heard();
	world->stalls_at = 37;
	g_convert(P, 1, false);
	until(g_device_status_now(0) & NEEDS_RESET);
	world->notes[1] = call_is_heard();
	world->notes[2] = world->windows - world->revoked;
	end_guest();
}

TEST_F(disk, backend_that_is_given_up_interrupts_no_more)
{
	self->plan.args[3] = "--backend-timeout=1";
	self->plan.guest[0] = gives_the_backend_up;
	EXPECT_EQ(ENDED, run(&self->plan));
	EXPECT_TRUE(world->gone);
	EXPECT_EQ(1, world->notes[0]);
	EXPECT_EQ(0, world->notes[1]);
	EXPECT_EQ(0, world->notes[2]);
}

static void kicks_where_nobody_takes_it(void)
{
	start_disk();
	kick(0, 0);
	g_write(NOTIFY(0, 0) + 2, 0, 2);
	world->notes[0] = 1;
	end_guest();
}

TEST_F(disk, kick_that_is_full_stops_no_vcpu)
{
	self->plan.guest[0] = kicks_where_nobody_takes_it;
	world->fills_kick = true;
	EXPECT_EQ(ENDED, run(&self->plan));
	EXPECT_EQ(1, world->notes[0]);
}

static void skips_the_features(void)
{
	g_convert(Q, 1, false);
	g_device_enable(0);
	g_device_features(0, VERSION_1 | 1 << 26);
	g_device_queue(0, 0, Q);
	g_device_status(0, 3 | 4);
	world->notes[0] = g_device_status_now(0);
	g_device_status(0, SET_DRIVER_OK);
	world->notes[1] = g_device_status_now(0);
	end_guest();
}

TEST_F(disk, driver_is_not_ready_before_its_features_are)
{
	self->plan.guest[0] = skips_the_features;
	EXPECT_EQ(ENDED, run(&self->plan));
	EXPECT_EQ(0, world->requests[2]);	/* SET_FEATURES */
	EXPECT_EQ(3, world->notes[0]);
	EXPECT_EQ(3, world->notes[1]);
	EXPECT_EQ(0, world->regions);
}

static void sets_the_devices_status(void)
{
	start_disk();
	g_device_status(0, SET_DRIVER_OK | NEEDS_RESET);
	world->notes[0] = g_device_status_now(0);
	end_guest();
}

TEST_F(disk, driver_does_not_say_that_the_device_is_broken)
{
	self->plan.guest[0] = sets_the_devices_status;
	EXPECT_EQ(ENDED, run(&self->plan));
	EXPECT_EQ(SET_DRIVER_OK, world->notes[0]);
}

static void resets_a_disk(void)
{
	start_disk();
	g_convert(P, 1, false);
	world->notes[0] = world->regions;
	g_device_status(0, 0);
	world->notes[1] = world->regions;
	world->notes[2] = world->windows - world->revoked;
	g_convert(P + 2 * PAGE, 1, false);
	world->notes[3] = world->regions;
	start_disk();
	world->notes[4] = world->regions;
	world->notes[5] = g_device_status_now(0);
	end_guest();
}

static void check_reset(struct __test_metadata *_metadata)
{
	EXPECT_EQ(2, world->notes[0]);
	EXPECT_EQ(0, world->notes[1]);
	EXPECT_EQ(0, world->notes[2]);
	EXPECT_EQ(0, world->notes[3]);
	EXPECT_EQ(3, world->notes[4]);
	EXPECT_EQ(SET_DRIVER_OK, world->notes[5]);
}

TEST_F(disk, backend_has_nothing_after_a_reset)
{
	self->plan.guest[0] = resets_a_disk;
	EXPECT_EQ(ENDED, run(&self->plan));
	check_reset(_metadata);
}

TEST_F(disk, backend_that_takes_tables_has_nothing_after_a_reset)
{
	self->plan.guest[0] = resets_a_disk;
	world->no_slots = true;
	EXPECT_EQ(ENDED, run(&self->plan));
	check_reset(_metadata);
}

static void has_both_queues_in_one_page(void)
{
	start_disk();
	start_balloon(1, Q);
	world->notes[0] = g_device_status_now(1);
	start_balloon(1, Q2);
	world->notes[1] = g_device_status_now(1);
	/* Now the backend is to get that page. */
	g_convert(Q2, 1, false);
	until(g_device_status_now(1) & NEEDS_RESET);
	end_guest();
}

/* Who can write to the balloon's queue has pages of the guest freed. */
TEST_F(disk, balloon_uses_no_page_that_a_backend_has)
{
	self->plan.args[3] = "--balloon";
	self->plan.guest[0] = has_both_queues_in_one_page;
	EXPECT_EQ(ENDED, run(&self->plan));
	EXPECT_TRUE(world->notes[0] & NEEDS_RESET);
	EXPECT_EQ(SET_DRIVER_OK, world->notes[1]);
}

static void takes_back_a_part_of_a_region(void)
{
	g_convert(Q, 4, false);
	start_disk();
	g_convert(Q2, 1, true);
	world->notes[2] = world->regions;
	start_balloon(1, Q2);
	world->notes[0] = g_device_status_now(1);
	world->notes[1] = IS_SHARED(Q2);
	start_balloon(1, P);
	world->notes[3] = g_device_status_now(1);
	end_guest();
}

/* The backend keeps the region that its queue is in, and a mapping of all of it. */
TEST_F(disk, balloon_uses_no_page_of_a_region_that_is_kept)
{
	self->plan.args[3] = "--balloon";
	self->plan.guest[0] = takes_back_a_part_of_a_region;
	EXPECT_EQ(ENDED, run(&self->plan));
	EXPECT_EQ(1, world->notes[2]);
	EXPECT_TRUE(world->notes[0] & NEEDS_RESET);
	EXPECT_EQ(0, world->notes[1]);
	EXPECT_EQ(SET_DRIVER_OK, world->notes[3]);
}

static void moves_a_bar_over_another(void)
{
	g_device_enable(0);
	g_device_enable(1);
	move_bars(BAR(1), BAR(1));
	g_convert(Q, 1, false);
	/* What is there now is one of the two. */
	g_device_features(1, VERSION_1);
	g_device_status(1, SET_STATUS_OK);
	g_device_queue(1, 0, Q);
	g_device_status(1, SET_DRIVER_OK);
	world->notes[0] = g_device_status_now(1);
	end_guest();
}

TEST_F(disk, two_devices_at_one_address_do_not_start)
{
	self->plan.args[3] = "--balloon";
	self->plan.guest[0] = moves_a_bar_over_another;
	EXPECT_EQ(ENDED, run(&self->plan));
	EXPECT_TRUE(world->notes[0] & NEEDS_RESET);
}

static void moves_a_bar(void)
{
	start_disk();
	g_out(0xcf8, 0x80000000 | 1 << 11 | 0x10, 4);
	g_out(0xcfc, BAR(5), 4);
	g_write(BAR(5) + 20, 0, 1);
	world->notes[2] = world->ioeventfds;
	g_out(0xcf8, 0x80000000 | 1 << 11 | 0x10, 4);
	g_out(0xcfc, BAR(0), 4);
	start_disk();
	world->notes[0] = g_device_status_now(0);
	end_guest();
}

/* KVM's eventfd goes where it was, not where the BAR is by then. */
TEST_F(disk, bar_that_moved_leaves_no_eventfd)
{
	self->plan.guest[0] = moves_a_bar;
	EXPECT_EQ(ENDED, run(&self->plan));
	EXPECT_EQ(SET_DRIVER_OK, world->notes[0]);
	EXPECT_EQ(0, world->notes[2]);
}

TEST_HARNESS_MAIN
