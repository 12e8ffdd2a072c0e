// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * Holds one VM open for as long as the test machine runs, from a child in the
 * background; returns once the VM is there. KVM patches a static key in
 * __schedule when the first VM comes and when the last one goes, which a QEMU
 * before 8.1 survives only mostly ("Oops: int3"; see scripts/vm-qemu).
 */
#include <err.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <sys/ioctl.h>
#include <unistd.h>

int main(void)
{
	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);

	if (kvm < 0)
		err(1, "/dev/kvm");
	if (ioctl(kvm, KVM_CREATE_VM, 0) < 0)
		err(1, "KVM_CREATE_VM");
	close(kvm);
	if (daemon(0, 0))
		err(1, "daemon");
	for (;;)
		pause();
}
