// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * What the kernel has to say meanwhile: a short form of tests/vm/dmesg-check, to
 * know which sequence it was.
 */
#include "fuzz.h"

static int log_fd = -1;

void kernel_log_begin(void)
{
	log_fd = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	if (log_fd >= 0)
		lseek(log_fd, 0, SEEK_END);
}

static bool is_complaint(const char *line)
{
	static const char * const words[] = {
		"BUG:", "WARNING:", "Oops", "KASAN", "general protection", "bad page",
		"Bad page", "refcount_t:", "possible circular", "blocked for more than",
		"list_del corruption", "list_add corruption", "ODEBUG:", "UBSAN",
	};

	for (unsigned int i = 0; i < sizeof(words) / sizeof(*words); i++)
		if (strstr(line, words[i]))
			return true;
	return false;
}

/* The first complaint since the last call, or NULL. KCSAN's are not looked at here. */
const char *kernel_log_complaint(void)
{
	static char found[200];
	char line[1024];
	bool any = false;
	ssize_t n;

	if (log_fd < 0)
		return NULL;
	while ((n = read(log_fd, line, sizeof(line) - 1)) > 0 || (n < 0 && errno == EPIPE)) {
		char *text;

		if (n < 0)
			continue;
		line[n] = 0;
		text = strchr(line, ';');
		if (any || !text || strstr(text, "KCSAN") || !is_complaint(text))
			continue;
		any = true;
		snprintf(found, sizeof(found), "%.*s", (int)strcspn(text + 1, "\n"), text + 1);
	}
	return any ? found : NULL;
}
