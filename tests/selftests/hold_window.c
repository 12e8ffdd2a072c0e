// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * Usage: rmctl window [--write] ... -- hold_window [close]
 *
 * For tests in shell, which cannot map anything: maps the window, with "close"
 * gives up its descriptor, and for each line on standard input touches its first
 * byte and says what came of it.
 */
#include <err.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static sigjmp_buf no_access;

static void on_sigbus(int signal)
{
	siglongjmp(no_access, 1);
}

int main(int argc, char **argv)
{
	const char *variable = getenv("RESTRICTEDMEM_WINDOW_FD");
	int fd = variable ? atoi(variable) : -1;
	volatile unsigned char *byte;
	struct stat st;
	char line[16];

	signal(SIGBUS, on_sigbus);
	if (fstat(fd, &st))
		err(1, "the window");
	byte = mmap(NULL, st.st_size, PROT_READ, MAP_SHARED, fd, 0);
	if (byte == MAP_FAILED)
		err(1, "mmap");
	if (argc > 1)
		close(fd);
	setlinebuf(stdout);
	printf("mapped %lld\n", (long long)st.st_size);
	while (fgets(line, sizeof(line), stdin)) {
		if (sigsetjmp(no_access, 1))
			puts("SIGBUS");
		else
			printf("read %u\n", *byte);
	}
	return 0;
}
