// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * Tries to get at a guest's memory from outside, as root, for the
 * demonstration:
 *
 *	probe refused PID FD ADDRESS	by every way there is, each with its errno
 *	probe peek PID ADDRESS SEED	is the secret at that address of the VMM?
 *	probe search FILE SEED		how often is the secret in the file?
 *
 * FD is the VMM's descriptor of the memory, ADDRESS a host address of its RAM.
 * Exit status: 0 refused or found, 1 not so, 2 the attempt itself failed.
 */
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "guest/secret.h"

#define PAGE	4096UL

static bool all_refused = true;

static void attempt(const char *what, bool success, int want)
{
	int error = errno;
	bool refused = !success && error == want;

	all_refused &= refused;
	if (success)
		printf("FAIL %s: succeeded\n", what);
	else if (refused)
		printf("PASS %s: refused with %s (%s)\n", what, strerrorname_np(error),
		       strerror(error));
	else
		printf("FAIL %s: %s, expected %s\n", what, strerrorname_np(error),
		       strerrorname_np(want));
}

static ssize_t read_process(pid_t pid, uintptr_t address, void *buf, size_t len)
{
	struct iovec local = { buf, len }, remote = { (void *)address, len };

	return process_vm_readv(pid, &local, 1, &remote, 1, 0);
}

static ssize_t write_process(pid_t pid, uintptr_t address, void *buf, size_t len)
{
	struct iovec local = { buf, len }, remote = { (void *)address, len };

	return process_vm_writev(pid, &local, 1, &remote, 1, 0);
}

/* The VMM's own descriptor, not a copy of ours: root may have it. */
static int steal_fd(pid_t pid, int fd)
{
	int pidfd = syscall(SYS_pidfd_open, pid, 0);
	int stolen;

	if (pidfd < 0)
		err(2, "pidfd_open");
	stolen = syscall(SYS_pidfd_getfd, pidfd, fd, 0);
	if (stolen < 0)
		err(2, "pidfd_getfd");
	close(pidfd);
	return stolen;
}

/*
 * /proc/PID/mem disregards protection (that is what debuggers need), and so
 * reads the VMM's empty reservation: zeros, where the guest has its memory.
 */
static void attempt_proc_mem(pid_t pid, uintptr_t address)
{
	unsigned char buf[PAGE], zeros[PAGE] = { 0 };
	char path[64];
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/mem", pid);
	fd = open(path, O_RDONLY);
	if (fd < 0)
		err(2, "%s", path);
	n = pread(fd, buf, sizeof(buf), address);
	close(fd);
	if (n < 0) {
		attempt("/proc/PID/mem", false, EIO);
	} else if (memcmp(buf, zeros, n)) {
		printf("FAIL /proc/PID/mem: has contents\n");
		all_refused = false;
	} else {
		printf("PASS /proc/PID/mem: only zeros, nothing of the guest's\n");
	}
}

static int refused(pid_t pid, int their_fd, uintptr_t address)
{
	int fd = steal_fd(pid, their_fd), pipes[2];
	char path[64], buf[64] = "";
	void *p;

	if (pipe(pipes))
		err(2, "pipe");
	attempt("read", read(fd, buf, sizeof(buf)) >= 0, EINVAL);
	attempt("write", write(fd, buf, sizeof(buf)) >= 0, EINVAL);
	attempt("pread", pread(fd, buf, sizeof(buf), 0) >= 0, ESPIPE);
	attempt("pwrite", pwrite(fd, buf, sizeof(buf), 0) >= 0, ESPIPE);
	attempt("lseek", lseek(fd, 0, SEEK_SET) >= 0, ESPIPE);
	attempt("splice", splice(fd, NULL, pipes[1], NULL, PAGE, 0) >= 0, EINVAL);
	p = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0);
	attempt("mmap, shared", p != MAP_FAILED, ENODEV);
	p = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, fd, 0);
	attempt("mmap, private", p != MAP_FAILED, ENODEV);
	snprintf(path, sizeof(path), "/proc/%d/fd/%d", pid, their_fd);
	attempt("reopen through /proc/PID/fd", open(path, O_RDWR) >= 0, ENXIO);
	attempt("process_vm_readv of its RAM",
		read_process(pid, address, buf, sizeof(buf)) >= 0, EFAULT);
	attempt("process_vm_writev of its RAM",
		write_process(pid, address, buf, sizeof(buf)) >= 0, EFAULT);
	attempt_proc_mem(pid, address);
	return all_refused ? 0 : 1;
}

static int peek(pid_t pid, uintptr_t address, unsigned long long seed)
{
	char secret[SECRET_LEN], buf[SECRET_LEN];
	ssize_t n = read_process(pid, address, buf, sizeof(buf));

	secret_make(seed, secret);
	if (n < 0)
		printf("%s (%s)\n", strerrorname_np(errno), strerror(errno));
	else if (n == sizeof(buf) && !memcmp(buf, secret, n))
		printf("%.*s\n", SECRET_LEN, buf);
	else
		printf("something else\n");
	return n == sizeof(buf) && !memcmp(buf, secret, n) ? 0 : 1;
}

static int search(const char *path, unsigned long long seed)
{
	int fd = open(path, O_RDONLY);
	char secret[SECRET_LEN];
	char *start, *p, *end;
	size_t count = 0;
	struct stat st;

	if (fd < 0 || fstat(fd, &st))
		err(2, "%s", path);
	start = mmap(NULL, st.st_size, PROT_READ, MAP_SHARED, fd, 0);
	if (start == MAP_FAILED)
		err(2, "%s", path);
	secret_make(seed, secret);
	end = start + st.st_size;
	for (p = start; (p = memmem(p, end - p, secret, SECRET_LEN)); p += SECRET_LEN)
		count++;
	printf("%zu\n", count);
	return count ? 0 : 1;
}

int main(int argc, char **argv)
{
	if (argc == 5 && !strcmp(argv[1], "refused"))
		return refused(atoi(argv[2]), atoi(argv[3]), strtoull(argv[4], NULL, 0));
	if (argc == 5 && !strcmp(argv[1], "peek"))
		return peek(atoi(argv[2]), strtoull(argv[3], NULL, 0), strtoull(argv[4], NULL, 0));
	if (argc == 4 && !strcmp(argv[1], "search"))
		return search(argv[2], strtoull(argv[3], NULL, 0));
	errx(2, "usage: probe refused PID FD ADDRESS | peek PID ADDRESS SEED | search FILE SEED");
}
