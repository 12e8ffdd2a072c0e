// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * rmvm, and accesses that KVM cannot serve because what it knew of the page is
 * stale: between KVM's look at the attributes and the one at the user's address,
 * another vCPU has the page made private (vmm/guest/stale.S). The rest of what
 * rmvm owes its guests is in tests/host/rmvm_test.sh.
 */
#include <libgen.h>
#include <sys/wait.h>

#include "kselftest_harness.h"
#include "delay.h"

#define USEC	20000

/* Runs the guest, and leaves what it says in @said. */
static int run_guest(const char *backing, char *said, size_t size)
{
	char self[256] = "", rmvm[300], kernel[300];
	int out[2], status;
	size_t len = 0;
	ssize_t n;
	pid_t pid;

	if (readlink("/proc/self/exe", self, sizeof(self) - 1) < 0 || pipe(out))
		return -1;
	dirname(self);
	snprintf(rmvm, sizeof(rmvm), "%s/../vmm/rmvm", self);
	snprintf(kernel, sizeof(kernel), "%s/../vmm/stale", self);
	pid = fork();
	if (!pid) {
		dup2(out[1], STDOUT_FILENO);
		execl(rmvm, "rmvm", "-k", kernel, "-m", "64", "-c", "2", "-b", backing,
		      "--timeout", "60", "--stats=/dev/null", NULL);
		_exit(127);
	}
	close(out[1]);
	while (len < size - 1 && (n = read(out[0], said + len, size - 1 - len)) > 0)
		len += n;
	said[len] = 0;
	close(out[0]);
	return waitpid(pid, &status, 0) == pid ? status : -1;
}

FIXTURE(guest) {
	int delays;
	int place;
	char said[256];
};

FIXTURE_SETUP(guest)
{
	self->delays = delay_open();
	self->place = delay_add(self->delays, "kvm:__gfn_to_pfn_memslot", USEC, 0);
}

FIXTURE_TEARDOWN(guest)
{
	close(self->delays);
}

static void check(struct __test_metadata *_metadata, FIXTURE_DATA(guest) *self,
		  const char *backing)
{
	EXPECT_EQ(0, run_guest(backing, self->said, sizeof(self->said)));
	EXPECT_STREQ("GUEST OK stale\n", self->said);
	EXPECT_LT(0, delay_waits(self->delays, self->place));
}

TEST_F_TIMEOUT(guest, keeps_what_it_wrote_after_a_stale_fault, 90)
{
	check(_metadata, self, "restricted");
}

TEST_F_TIMEOUT(guest, keeps_it_in_a_guest_memfd, 90)
{
	check(_metadata, self, "guest_memfd");
}

TEST_HARNESS_MAIN
