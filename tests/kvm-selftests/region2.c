// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * Preloaded into selftests of newer kernels when they run on stock 6.1. All
 * of them add their memory by KVM_SET_USER_MEMORY_REGION2, which 6.1 has not;
 * the older ioctl takes the same struct, only shorter, and says EINVAL to the
 * flag for private memory. Nothing else changes, so that what they do with
 * ordinary memory can be compared.
 */
#include <restrictedmem_kvm.h>
#include <linux/kvm.h>
#include <stdarg.h>
#include <sys/syscall.h>
#include <unistd.h>

int ioctl(int fd, unsigned long request, ...)
{
	unsigned long arg;
	va_list args;

	va_start(args, request);
	arg = va_arg(args, unsigned long);
	va_end(args);

	if (request == KVM_SET_USER_MEMORY_REGION2)
		request = KVM_SET_USER_MEMORY_REGION;
	else if (request == KVM_CHECK_EXTENSION && arg == KVM_CAP_USER_MEMORY2)
		return 1;
	return syscall(SYS_ioctl, fd, request, arg);
}
