// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * The ends of VMs and files, in every order and at once, by close and by
 * SIGKILL: nothing leaks, nothing hangs.
 */
#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>

#include "kselftest_harness.h"
#include "kvm_util.h"

#define SIZE		(2 * HUGE)
#define SLOT		1

FIXTURE(end) {
	uint64_t resident;
	struct vm vm;
	struct vcpu vcpu;
	int fd;
};

FIXTURE_VARIANT(end) {
	bool guest_memfd;
};

FIXTURE_VARIANT_ADD(end, restrictedmem) {
	.guest_memfd = false,
};

FIXTURE_VARIANT_ADD(end, guest_memfd) {
	.guest_memfd = true,
};

static GUEST void fill(uint64_t gpa, uint64_t size)
{
	for (uint64_t i = 0; i < size; i += PAGE)
		guest_write(gpa + i, i + 1);
	guest_sync(0);
	for (;;)
		guest_sync(guest_read(gpa));
}

static GUEST void fill_for_ever(uint64_t gpa, uint64_t size)
{
	for (;;)
		for (uint64_t i = 0; i < size; i += PAGE)
			guest_write(gpa + i, i + 1);
}

/* A VM with SIZE private bytes at DATA, from a new file. */
static int make_vm(struct vm *vm, struct vcpu *vcpu, bool guest_memfd)
{
	struct kvm_create_guest_memfd args = { .size = SIZE };
	int fd;

	vm_create(vm, KVM_X86_SW_PROTECTED_VM);
	vcpu_create(vm, vcpu, 0);
	fd = guest_memfd ? ioctl(vm->fd, KVM_CREATE_GUEST_MEMFD, &args) :
			   create_huge(SIZE);
	CHECK(fd >= 0);
	vm_add_private(vm, SLOT, DATA, SIZE, NULL, fd);
	vcpu_start(vcpu, fill, DATA, SIZE, 0);
	return fd;
}

/* Some of the end is done by others, a little later. */
static uint64_t resident_after(uint64_t expected)
{
	uint64_t now;

	for (int i = 0; i < 200; i++) {
		now = resident_total();
		if (now == expected)
			break;
		sleep_ms(10);
	}
	return now;
}

FIXTURE_SETUP(end)
{
	self->resident = resident_total();
	self->fd = make_vm(&self->vm, &self->vcpu, variant->guest_memfd);
}

/* The tests close what there is. */
FIXTURE_TEARDOWN(end)
{
	EXPECT_EQ(self->resident, resident_after(self->resident));
}

TEST_F(end, vm_before_file)
{
	vcpu_sync(&self->vcpu);
	vcpu_destroy(&self->vcpu);
	vm_destroy(&self->vm);
	EXPECT_EQ(SIZE, resident(self->fd));
	EXPECT_EQ(0, fdinfo_number(self->fd, "bindings"));
	close(self->fd);
}

TEST_F(end, file_before_vm)
{
	vcpu_sync(&self->vcpu);
	close(self->fd);
	EXPECT_EQ(self->resident + SIZE, resident_total());
	EXPECT_EQ(1, vcpu_sync(&self->vcpu));
	vcpu_destroy(&self->vcpu);
	vm_destroy(&self->vm);
}

TEST_F(end, file_before_the_guest_runs)
{
	close(self->fd);
	vcpu_sync(&self->vcpu);
	EXPECT_EQ(self->resident + SIZE, resident_total());
	vcpu_destroy(&self->vcpu);
	vm_destroy(&self->vm);
}

TEST_F(end, vm_before_vcpu)
{
	vcpu_sync(&self->vcpu);
	close(self->vm.fd);
	close(self->fd);
	EXPECT_EQ(1, vcpu_sync(&self->vcpu));
	vcpu_destroy(&self->vcpu);
	close(self->vm.kvm);
}

TEST_F(end, file_is_punched_after_the_vm)
{
	vcpu_sync(&self->vcpu);
	vcpu_destroy(&self->vcpu);
	vm_destroy(&self->vm);
	EXPECT_EQ(0, punch(self->fd, 5 * PAGE, PAGE));
	EXPECT_EQ(SIZE - PAGE, resident(self->fd));
	EXPECT_EQ(0, punch(self->fd, 0, SIZE));
	EXPECT_EQ(0, resident(self->fd));
	close(self->fd);
}

TEST_F(end, slot_goes_before_the_file)
{
	vcpu_sync(&self->vcpu);
	ASSERT_EQ(0, vm_region(&self->vm, SLOT, DATA, 0, NULL));
	EXPECT_EQ(SIZE, resident(self->fd));
	close(self->fd);
	EXPECT_EQ(self->resident, resident_total());
	vcpu_destroy(&self->vcpu);
	vm_destroy(&self->vm);
}

TEST_F(end, last_reference_is_the_slots)
{
	vcpu_sync(&self->vcpu);
	close(self->fd);
	ASSERT_EQ(0, vm_region(&self->vm, SLOT, DATA, 0, NULL));
	EXPECT_EQ(self->resident, resident_total());
	vcpu_destroy(&self->vcpu);
	vm_destroy(&self->vm);
}

TEST_F(end, again_and_again)
{
	vcpu_destroy(&self->vcpu);
	vm_destroy(&self->vm);
	close(self->fd);
	for (int i = 0; i < 10; i++) {
		self->fd = make_vm(&self->vm, &self->vcpu, variant->guest_memfd);
		vcpu_sync(&self->vcpu);
		if (i & 1)
			close(self->fd);
		vcpu_destroy(&self->vcpu);
		vm_destroy(&self->vm);
		if (!(i & 1))
			close(self->fd);
		ASSERT_EQ(self->resident, resident_after(self->resident));
	}
}

static void *close_fd(void *data)
{
	close(*(int *)data);
	return NULL;
}

TEST_F(end, vm_and_file_at_once)
{
	pthread_t thread;

	for (int i = 0; i < 10; i++) {
		vcpu_sync(&self->vcpu);
		ASSERT_EQ(0, pthread_create(&thread, NULL, close_fd, &self->fd));
		vcpu_destroy(&self->vcpu);
		vm_destroy(&self->vm);
		pthread_join(thread, NULL);
		self->fd = make_vm(&self->vm, &self->vcpu, variant->guest_memfd);
	}
	vcpu_destroy(&self->vcpu);
	vm_destroy(&self->vm);
	close(self->fd);
}

struct punch_loop {
	int fd;
	volatile bool stop;
};

static void *punch_loop(void *data)
{
	struct punch_loop *p = data;
	unsigned int seed = 1;

	while (!p->stop) {
		uint64_t page = rand_r(&seed) % (SIZE / PAGE);

		CHECK(!punch(p->fd, page * PAGE, PAGE));
	}
	return NULL;
}

/* The VM may be half way through its end when the punch comes. */
TEST_F(end, punches_during_the_vms_end)
{
	for (int i = 0; i < 10; i++) {
		struct punch_loop p = { dup(self->fd) };
		pthread_t thread;

		vcpu_sync(&self->vcpu);
		ASSERT_EQ(0, pthread_create(&thread, NULL, punch_loop, &p));
		sleep_ms(2);
		vcpu_destroy(&self->vcpu);
		vm_destroy(&self->vm);
		sleep_ms(2);
		p.stop = true;
		pthread_join(thread, NULL);
		close(p.fd);
		close(self->fd);
		self->fd = make_vm(&self->vm, &self->vcpu, variant->guest_memfd);
	}
	vcpu_destroy(&self->vcpu);
	vm_destroy(&self->vm);
	close(self->fd);
}

TEST_F(end, punches_while_slots_come_and_go)
{
	struct punch_loop p = { self->fd };
	pthread_t thread;

	vcpu_sync(&self->vcpu);
	ASSERT_EQ(0, pthread_create(&thread, NULL, punch_loop, &p));
	for (int i = 0; i < 20; i++) {
		EXPECT_EQ(0, vm_region(&self->vm, SLOT, DATA, 0, NULL));
		EXPECT_EQ(0, vm_region2(&self->vm, SLOT, KVM_MEM_GUEST_MEMFD, DATA,
					SIZE, NULL, self->fd, 0));
		vcpu_start(&self->vcpu, fill, DATA, SIZE, 0);
		vcpu_sync(&self->vcpu);
	}
	p.stop = true;
	pthread_join(thread, NULL);
	vcpu_destroy(&self->vcpu);
	vm_destroy(&self->vm);
	close(self->fd);
}

/* SIGKILL */

static void *run_for_ever(void *data)
{
	struct vcpu *vcpu = data;

	vcpu_start(vcpu, fill_for_ever, DATA, SIZE, 0);
	vcpu_run(vcpu);
	return NULL;
}

/* A VMM with two vCPUs in the guest; tells by the pipe that it is set up. */
static void be_killed(bool guest_memfd, int pipe)
{
	struct vm vm;
	struct vcpu vcpus[2];
	pthread_t thread;

	make_vm(&vm, &vcpus[0], guest_memfd);
	vcpu_create(&vm, &vcpus[1], 1);
	pthread_create(&thread, NULL, run_for_ever, &vcpus[1]);
	if (write(pipe, "x", 1) != 1)
		_exit(1);
	run_for_ever(&vcpus[0]);
	_exit(2);
}

TEST_F(end, vmm_is_killed)
{
	int pipefd[2], status;
	char byte;

	vcpu_destroy(&self->vcpu);
	vm_destroy(&self->vm);
	close(self->fd);
	for (int i = 0; i < 3; i++) {
		pid_t child;

		ASSERT_EQ(0, pipe(pipefd));
		child = fork();
		ASSERT_LE(0, child);
		if (!child)
			be_killed(variant->guest_memfd, pipefd[1]);
		close(pipefd[1]);
		ASSERT_EQ(1, read(pipefd[0], &byte, 1));
		sleep_ms(50 * i);
		kill(child, SIGKILL);
		ASSERT_EQ(child, waitpid(child, &status, 0));
		EXPECT_TRUE(WIFSIGNALED(status));
		EXPECT_EQ(self->resident, resident_after(self->resident));
		close(pipefd[0]);
	}
}

/* The memory is older and stays; it belongs to the dead VM. */
TEST_F(end, vmm_is_killed_and_its_file_stays)
{
	int status, fd = create_huge(SIZE);
	pid_t child;

	ASSERT_LE(0, fd);
	child = fork();
	ASSERT_LE(0, child);
	if (!child) {
		struct vm vm;
		struct vcpu vcpu;

		vm_create(&vm, KVM_X86_SW_PROTECTED_VM);
		vcpu_create(&vm, &vcpu, 0);
		vm_add_private(&vm, SLOT, DATA, SIZE, NULL, fd);
		run_for_ever(&vcpu);
		_exit(1);
	}
	while (resident(fd) < SIZE)
		sleep_ms(5);
	kill(child, SIGKILL);
	ASSERT_EQ(child, waitpid(child, &status, 0));
	for (int i = 0; i < 200 && fdinfo_number(fd, "bindings"); i++)
		sleep_ms(10);
	EXPECT_EQ(0, fdinfo_number(fd, "bindings"));
	EXPECT_EQ(SIZE, resident(fd));
	EXPECT_FAILS(EINVAL, vm_region2(&self->vm, 2, KVM_MEM_GUEST_MEMFD, 2 * DATA,
					SIZE, NULL, fd, 0));
	close(fd);
	vcpu_destroy(&self->vcpu);
	vm_destroy(&self->vm);
	close(self->fd);
}

TEST_HARNESS_MAIN
