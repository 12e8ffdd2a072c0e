// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * What a pair leaves behind: lines in the kernel's log, and threads that hang.
 */
#include <dirent.h>

#include "race.h"

#define WORRYING	4	/* the kernel's own numbers: a warning, or worse */

static int log_fd = -1;

void log_mark(const char *text)
{
	write_text("/dev/kmsg", path_of("== race: %s ==\n", text));
}

/* From here on */
void log_open(void)
{
	if (log_fd < 0)
		log_fd = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	lseek(log_fd, 0, SEEK_END);
}

/*
 * Is there anything since then that no healthy kernel writes? Only a log that has
 * a warning is looked at closely, by what looks at the machine's in the end.
 */
int log_bad(void)
{
	char record[8192], path[] = "/tmp/race-log.XXXXXX";
	int fd = mkstemp(path), r = 0;
	bool worrying = false;
	ssize_t n;

	while ((n = read(log_fd, record, sizeof(record) - 1)) > 0 || errno == EPIPE) {
		char *text;

		if (n <= 0)
			continue;
		record[n] = 0;
		text = strchr(record, ';');
		worrying |= atoi(record) % 8 <= WORRYING;
		if (text && write(fd, text + 1, strlen(text + 1)) < 0)
			break;
	}
	if (worrying) {
		char command[128];

		snprintf(command, sizeof(command),
			 "tests/vm/dmesg-check <%s | head -n 40 | sed 's/^/# /'; exit ${PIPESTATUS[0]}",
			 path);
		fflush(stdout);
		setenv("BASH_COMMAND_TEXT", command, 1);
		r = system("bash -c \"$BASH_COMMAND_TEXT\"");
	}
	close(fd);
	unlink(path);
	return r;
}

static void dump_task(pid_t pid, const char *task)
{
	char name[32], text[8192], *line, *next;

	read_text(path_of("/proc/%d/task/%s/comm", pid, task), name, sizeof(name));
	read_text(path_of("/proc/%d/task/%s/stack", pid, task), text, sizeof(text));
	printf("# thread %s, %s", task, name);
	for (line = strtok_r(text, "\n", &next); line; line = strtok_r(NULL, "\n", &next))
		printf("#   %s\n", line);
}

/* Where its threads are; and what the kernel can say of all to its log. */
void dump_stacks(pid_t pid)
{
	DIR *dir = opendir(path_of("/proc/%d/task", pid));
	struct dirent *entry;

	while (dir && (entry = readdir(dir)))
		if (entry->d_name[0] != '.')
			dump_task(pid, entry->d_name);
	if (dir)
		closedir(dir);
	write_text("/proc/sysrq-trigger", "w");
	write_text("/proc/sysrq-trigger", "l");
}
