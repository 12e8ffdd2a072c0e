// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * For QEMU (LD_PRELOAD): what the kernel hardly ever answers. While the file $RM_FAIL
 * is there, its line says which call fails next; then it is removed.
 *
 *	attributes ERRNO	KVM_SET_MEMORY_ATTRIBUTES
 *	punch ERRNO		fallocate()
 *	fault ERRNO GPA FLAGS	KVM_RUN, with a memory-fault exit (both in hexadecimal)
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <linux/kvm.h>

#include <restrictedmem_kvm.h>

/* Is it this call's turn? Then errno is set; of several threads, one only. */
static bool to_fail(const char *call, unsigned long long *gpa, unsigned long long *flags)
{
	const char *path = getenv("RM_FAIL");
	FILE *file = path ? fopen(path, "re") : NULL;
	int nr = 0, error = 0;
	char word[16] = "";

	if (!file)
		return false;
	nr = fscanf(file, "%15s %d %llx %llx", word, &error, gpa, flags);
	fclose(file);
	if (nr < 2 || strcmp(word, call) || unlink(path))
		return false;
	errno = error;
	return true;
}

static void memory_fault(int vcpu, unsigned long long gpa, unsigned long long flags)
{
	int error = errno;
	struct kvm_run *run = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);

	if (run == MAP_FAILED)
		abort();
	run->exit_reason = KVM_EXIT_MEMORY_FAULT;
	*restrictedmem_kvm_memory_fault(run) = (struct restrictedmem_kvm_memory_fault){
		.flags = flags,
		.gpa = gpa,
		.size = 4096,
	};
	munmap(run, 4096);
	errno = error;
}

int ioctl(int fd, unsigned long request, ...)
{
	static int (*real)(int fd, unsigned long request, ...);
	unsigned long long gpa = 0, flags = 0;
	va_list args;
	void *arg;

	if (!real)
		real = dlsym(RTLD_NEXT, "ioctl");
	va_start(args, request);
	arg = va_arg(args, void *);
	va_end(args);
	if (request == KVM_SET_MEMORY_ATTRIBUTES && to_fail("attributes", &gpa, &flags))
		return -1;
	if (request == KVM_RUN && to_fail("fault", &gpa, &flags)) {
		memory_fault(fd, gpa, flags);
		return -1;
	}
	return real(fd, request, arg);
}

int fallocate64(int fd, int mode, off64_t offset, off64_t len)
{
	static int (*real)(int fd, int mode, off64_t offset, off64_t len);
	unsigned long long unused;

	if (!real)
		real = dlsym(RTLD_NEXT, "fallocate64");
	return to_fail("punch", &unused, &unused) ? -1 : real(fd, mode, offset, len);
}
