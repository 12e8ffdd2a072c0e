// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * The guest's init. It does what the kernel's command line says and ends the
 * guest:
 *
 *	rm.do=boot	say that userspace is reached (the default)
 *	rm.do=demo	discard a page, keep a secret, wait for a line of input
 *	rm.do=check	try what a guest with all of its RAM private may lose
 *	rm.do=disk	use a disk
 *	rm.do=balloon	use memory, give it up, and wait for a line of input
 *	rm.do=pages	share pages and take them back, as lines of input say
 *	rm.do=shell	a shell
 *	rm.seed=N	what the secret is computed from
 *	rm.cpus=N	how many processors there should be
 *
 * Drivers are loaded by the script beside this file.
 *
 * What it says begins with "GUEST", one fact a line.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/io.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include <linux/types.h>

#include "secret.h"

typedef __u64 u64;

#define PAGE		4096UL
#define PORT_DISCARD	0x5f0
#define SECRET_PAGES	16
#define TLB_ROUNDS	2000
#define MAX_CPUS	255
#define RMPAGE_PAGES	512		/* of guest/rmpage.c */

#define ARRAY_SIZE(a)		(sizeof(a) / sizeof((a)[0]))
#define __printf(fmt, args)	__attribute__((format(printf, fmt, args)))

static char cmdline[4096];

static __printf(1, 2) void say(const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	printf("GUEST ");
	vprintf(fmt, args);
	printf("\n");
	va_end(args);
	fflush(stdout);
}

static __printf(2, 3) void verdict(bool ok, const char *fmt, ...)
{
	char text[256];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	say("%s %s", ok ? "OK" : "FAIL", text);
}

static void read_file(const char *path, char *buf, size_t size)
{
	int fd = open(path, O_RDONLY);
	ssize_t n = fd < 0 ? 0 : read(fd, buf, size - 1);

	buf[n > 0 ? n : 0] = 0;
	buf[strcspn(buf, "\n")] = 0;
	if (fd >= 0)
		close(fd);
}

/* The value of NAME=VALUE on the kernel's command line, or NULL */
static const char *parameter(const char *name)
{
	static char value[64];
	const char *p = strstr(cmdline, name);
	size_t len;

	if (!p || p[strlen(name)] != '=')
		return NULL;
	p += strlen(name) + 1;
	len = strcspn(p, " ");
	if (len >= sizeof(value))
		len = sizeof(value) - 1;
	memcpy(value, p, len);
	value[len] = 0;
	return value;
}

static unsigned long long number(const char *name, unsigned long long otherwise)
{
	const char *value = parameter(name);

	return value ? strtoull(value, NULL, 0) : otherwise;
}

/* Ordinary pages that stay where they are */
static void *pages(size_t nr)
{
	void *p = mmap(NULL, nr * PAGE, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		return NULL;
	madvise(p, nr * PAGE, MADV_NOHUGEPAGE);
	return mlock(p, nr * PAGE) ? NULL : p;
}

/* The guest physical page that an address is in, or 0 */
static u64 pfn_of(const void *p)
{
	int fd = open("/proc/self/pagemap", O_RDONLY);
	u64 entry = 0;

	if (fd >= 0) {
		if (pread(fd, &entry, sizeof(entry), (uintptr_t)p / PAGE * sizeof(entry)) !=
		    sizeof(entry))
			entry = 0;
		close(fd);
	}
	return entry >> 63 ? entry & ((1ULL << 55) - 1) : 0;
}

/* Reads anew what the compiler may think it knows. */
static bool all_bytes(const unsigned char *p, unsigned char value)
{
	size_t i;

	for (i = 0; i < PAGE; i++)
		if (__atomic_load_n(&p[i], __ATOMIC_RELAXED) != value)
			return false;
	return true;
}

/* Gives a page in use back to the host: its contents must be gone. */
static void check_discard(void)
{
	unsigned char *p = pages(2);
	u64 pfn;

	if (!p || ioperm(PORT_DISCARD, 4, 1)) {
		verdict(false, "discard: %s", strerror(errno));
		return;
	}
	memset(p, 0x5a, 2 * PAGE);
	pfn = pfn_of(p);
	if (!pfn) {
		verdict(false, "discard: the page's number is not known");
		return;
	}
	outl(pfn, PORT_DISCARD);
	verdict(all_bytes(p, 0), "discard: page %#llx reads as zeros",
		pfn);
	verdict(all_bytes(p + PAGE, 0x5a), "discard-neighbour: the page beside it is as it was");
	memset(p, 0xa5, PAGE);
	verdict(all_bytes(p, 0xa5), "discard-reuse: the page takes and keeps new contents");
}

static void keep_secret(void)
{
	unsigned char *p = pages(SECRET_PAGES);
	char secret[SECRET_LEN];
	size_t i;

	if (!p) {
		verdict(false, "secret: %s", strerror(errno));
		return;
	}
	secret_make(number("rm.seed", 1), secret);
	for (i = 0; i < SECRET_PAGES * PAGE; i++)
		p[i] = secret[i % PAGE % SECRET_LEN];
	say("SECRET gpa %#llx", pfn_of(p) * PAGE);
}

static void do_demo(void)
{
	struct utsname uts;
	struct sysinfo info;
	char line[64];

	uname(&uts);
	sysinfo(&info);
	say("UNAME %s %s %s %s %s", uts.sysname, uts.nodename, uts.release, uts.version,
	    uts.machine);
	say("MEMORY %lu MiB", (unsigned long)(info.totalram * info.mem_unit >> 20));
	check_discard();
	keep_secret();
	say("READY");
	if (!fgets(line, sizeof(line), stdin))
		say("FAIL input: %s", strerror(errno));
}

static void check_cpus(void)
{
	unsigned long want = number("rm.cpus", 0);
	long have = sysconf(_SC_NPROCESSORS_ONLN);
	char present[64], online[64];

	read_file("/sys/devices/system/cpu/present", present, sizeof(present));
	read_file("/sys/devices/system/cpu/online", online, sizeof(online));
	verdict(!strcmp(present, online) && (!want || (long)want == have),
		"cpus: %ld online (%s of %s)", have, online, present);
}

/* Every word of a page differs from those of every other. */
static void check_memory(void)
{
	struct sysinfo info;
	size_t nr, i, bad = 0;
	u64 *p;

	sysinfo(&info);
	nr = info.freeram * info.mem_unit / PAGE * 3 / 4;
	p = mmap(NULL, nr * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED) {
		verdict(false, "memory: %s", strerror(errno));
		return;
	}
	for (i = 0; i < nr * PAGE / sizeof(*p); i++)
		p[i] = i * 0x9e3779b97f4a7c15ULL;
	for (i = 0; i < nr * PAGE / sizeof(*p); i++)
		bad += p[i] != i * 0x9e3779b97f4a7c15ULL;
	munmap(p, nr * PAGE);
	verdict(!bad, "memory: %zu MiB written and read, %zu words wrong", nr * PAGE >> 20, bad);
}

static void check_steal(void)
{
	unsigned long long steal;
	char line[256];
	int n;

	read_file("/proc/stat", line, sizeof(line));
	n = sscanf(line, "cpu %*u %*u %*u %*u %*u %*u %*u %llu", &steal);
	verdict(n == 1, "steal: %llu ticks of stolen time", n == 1 ? steal : 0);
}

static void check_clock(void)
{
	char source[64];

	read_file("/sys/devices/system/clocksource/clocksource0/current_clocksource", source,
		  sizeof(source));
	verdict(!strcmp(source, "kvm-clock"), "clocksource: %s", source);
}

static void pin(unsigned int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	sched_setaffinity(0, sizeof(set), &set);
}

/* Time must not go backwards from one processor to the next. */
static void check_time(void)
{
	long nr = sysconf(_SC_NPROCESSORS_ONLN);
	struct timespec last = { 0 }, ts;
	unsigned int i, bad = 0;

	for (i = 0; i < 500; i++) {
		pin(i % nr);
		clock_gettime(CLOCK_MONOTONIC, &ts);
		bad += ts.tv_sec < last.tv_sec ||
		       (ts.tv_sec == last.tv_sec && ts.tv_nsec < last.tv_nsec);
		last = ts;
	}
	verdict(!bad, "time: went backwards %u times", bad);
}

static struct {
	u64 *page;
	u64 want;			/* no reader may see less */
	bool stop;
	unsigned int stale;
} tlb;

static void *tlb_reader(void *arg)
{
	u64 want, have;

	pin((uintptr_t)arg);
	while (!__atomic_load_n(&tlb.stop, __ATOMIC_RELAXED)) {
		want = __atomic_load_n(&tlb.want, __ATOMIC_ACQUIRE);
		have = __atomic_load_n(tlb.page, __ATOMIC_RELAXED);
		if (have < want)
			__atomic_add_fetch(&tlb.stale, 1, __ATOMIC_RELAXED);
	}
	return NULL;
}

/*
 * Once a page is mapped elsewhere, no processor may read where it was. A guest
 * whose note "this processor does not run" is wrong leaves flushes out.
 */
static void check_tlb(void)
{
	long nr = sysconf(_SC_NPROCESSORS_ONLN);
	int fd = memfd_create("tlb", 0);
	pthread_t readers[MAX_CPUS];
	u64 i;
	long cpu;

	if (fd < 0 || ftruncate(fd, TLB_ROUNDS * PAGE)) {
		verdict(false, "tlb: %s", strerror(errno));
		return;
	}
	for (i = 0; i < TLB_ROUNDS; i++)
		if (pwrite(fd, &i, sizeof(i), i * PAGE) != sizeof(i))
			verdict(false, "tlb: %s", strerror(errno));
	tlb.page = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0);
	pin(0);
	for (cpu = 1; cpu < nr; cpu++)
		pthread_create(&readers[cpu], NULL, tlb_reader, (void *)cpu);
	for (i = 1; i < TLB_ROUNDS; i++) {
		if (mmap(tlb.page, PAGE, PROT_READ, MAP_SHARED | MAP_FIXED, fd, i * PAGE) ==
		    MAP_FAILED)
			verdict(false, "tlb: %s", strerror(errno));
		__atomic_store_n(&tlb.want, i, __ATOMIC_RELEASE);
		sched_yield();
	}
	__atomic_store_n(&tlb.stop, true, __ATOMIC_RELAXED);
	for (cpu = 1; cpu < nr; cpu++)
		pthread_join(readers[cpu], NULL);
	close(fd);
	verdict(!tlb.stale, "tlb: %u stale reads on %ld other processors", tlb.stale, nr - 1);
}

/* Copy on write, exit, exec's relatives: the page tables at work */
static void check_fork(void)
{
	unsigned int i, bad = 0;
	int status;
	char *p;

	p = mmap(NULL, 64 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	memset(p, 1, 64 * PAGE);
	for (i = 0; i < 50; i++) {
		pid_t pid = fork();

		if (!pid) {
			memset(p, 2, 64 * PAGE);
			_exit(p[63 * PAGE] == 2 ? 0 : 1);
		}
		bad += pid < 0 || waitpid(pid, &status, 0) != pid || status || p[63 * PAGE] != 1;
	}
	verdict(!bad, "fork: %u of %u children wrong", bad, i);
}

static void do_check(void)
{
	check_cpus();
	check_clock();
	check_time();
	check_memory();
	check_fork();
	check_tlb();
	check_discard();
	check_steal();
	say("CHECKED");
}

static void run_shell(const char *script)
{
	pid_t pid = fork();

	if (!pid) {
		setsid();
		execl("/bin/busybox", "sh", script, NULL);
		_exit(127);
	}
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
}

/* Puts the secret into pages of /dev/rmpage, or looks whether it is there. */
static void use_pages(char *all, const char *word, unsigned long first, unsigned long count)
{
	char secret[SECRET_LEN];
	unsigned long i, bad = 0;

	secret_make(number("rm.seed", 1), secret);
	for (i = 0; i < count; i++) {
		char *p = all + (first + i) * PAGE;

		if (!strcmp(word, "fill"))
			memcpy(p, secret, sizeof(secret));
		else if (!strcmp(word, "zero"))
			memset(p, 0, PAGE);
		else
			bad += memcmp(p, secret, sizeof(secret)) != 0;
	}
	verdict(!bad, "%s %lu %lu: %lu pages without the secret", word, first, count, bad);
}

static void convert_pages(int fd, const char *line, const char *word, unsigned long first,
			  unsigned long count)
{
	bool ok = write(fd, line, strlen(line)) > 0;

	verdict(ok, "%s %lu %lu: %s", word, first, count, ok ? "done" : strerror(errno));
}

static void discard_pages(unsigned long first, unsigned long count)
{
	char where[64];
	u64 pfn;

	read_file("/dev/rmpage", where, sizeof(where));
	pfn = strtoull(where, NULL, 0) / PAGE + first;
	if (ioperm(PORT_DISCARD, 4, 1)) {
		say("FAIL discard: %s", strerror(errno));
		return;
	}
	for (; count; count--, pfn++)
		outl(pfn, PORT_DISCARD);
	say("OK discard");
}

static bool use_disk(bool write_it)
{
	char secret[SECRET_LEN], *p = aligned_alloc(PAGE, 16 * PAGE);
	int i, fd = open("/dev/vda", O_RDWR | O_DIRECT);
	ssize_t n;

	if (fd < 0 || !p)
		return false;
	secret_make(number("rm.seed", 1), secret);
	for (i = 0; i < 16; i++)
		memcpy(p + i * PAGE, secret, sizeof(secret));
	n = write_it ? write(fd, p, 16 * PAGE) : read(fd, p, 16 * PAGE);
	return n == (ssize_t)(16 * PAGE);
}

/* What need not come back: the child is left alone with it. */
static void try_disk(const char *word)
{
	bool write_it = !strcmp(word, "write");
	pid_t pid = fork();
	int status, i;

	if (!pid)
		_exit(use_disk(write_it) ? 0 : 1);
	for (i = 0; i < 50; i++) {
		if (waitpid(pid, &status, WNOHANG) == pid) {
			verdict(!status, "%s: 64 KiB", word);
			return;
		}
		usleep(100000);
	}
	say("WAITS %s", word);
}

/*
 * FIRST COUNT are pages of /dev/rmpage; share@ and private@ take the guest's page
 * numbers. After each line: DONE.
 *	share | private | discard | fill | zero | look FIRST COUNT
 *	show FIRST	the text that is there
 *	check		is the guest still well?
 *	disk		read from the disk, to where the secret was
 *	write		write the secret to the disk
 */
static void pages_command(int fd, char *all, const char *line)
{
	unsigned long first = 0, count = 0;
	char word[16];

	if (sscanf(line, "%15s %lu %lu", word, &first, &count) < 1)
		return;
	if (!strncmp(word, "share", 5) || !strncmp(word, "private", 7))
		convert_pages(fd, line, word, first, count);
	else if (!strcmp(word, "discard"))
		discard_pages(first, count);
	else if (!strcmp(word, "show"))
		say("TEXT %.*s", SECRET_LEN, all + first * PAGE);
	else if (!strcmp(word, "check"))
		check_fork();
	else if (!strcmp(word, "disk") || !strcmp(word, "write"))
		try_disk(word);
	else
		use_pages(all, word, first, count);
}

static void do_pages(void)
{
	char line[128], where[64];
	char *all;
	int fd;

	run_shell("/drivers");
	fd = open("/dev/rmpage", O_RDWR);
	all = mmap(NULL, RMPAGE_PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (all == MAP_FAILED) {
		say("FAIL rmpage: %s", strerror(errno));
		return;
	}
	read_file("/dev/rmpage", where, sizeof(where));
	say("PAGES %s", where);
	say("DONE");
	while (fgets(line, sizeof(line), stdin) && strncmp(line, "end", 3)) {
		pages_command(fd, all, line);
		say("DONE");
	}
}

/* The driver reports what is free when it has been free for a while. */
static void do_balloon(void)
{
	char line[64];

	run_shell("/drivers");
	check_memory();
	say("FREE");
	while (fgets(line, sizeof(line), stdin) && strncmp(line, "end", 3)) {
		check_memory();
		say("FREE");
	}
}

static void do_boot(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_BOOTTIME, &ts);
	say("BOOT %lld.%02ld s after the kernel's start", (long long)ts.tv_sec,
	    ts.tv_nsec / 10000000);
}

static void do_shell(void)
{
	run_shell(NULL);
}

static void do_disk(void)
{
	run_shell("/drivers");
}

int main(void)
{
	static const struct {
		const char *name;
		void (*run)(void);
	} actions[] = {
		{ "boot", do_boot },
		{ "demo", do_demo },
		{ "check", do_check },
		{ "disk", do_disk },
		{ "pages", do_pages },
		{ "balloon", do_balloon },
		{ "shell", do_shell },
	};
	const char *what;
	size_t i;

	mkdir("/proc", 0755);
	mkdir("/sys", 0755);
	mount("proc", "/proc", "proc", 0, NULL);
	mount("sysfs", "/sys", "sysfs", 0, NULL);
	mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
	read_file("/proc/cmdline", cmdline, sizeof(cmdline));

	what = parameter("rm.do") ?: "boot";
	for (i = 0; i < ARRAY_SIZE(actions); i++)
		if (!strcmp(what, actions[i].name))
			break;
	if (i < ARRAY_SIZE(actions))
		actions[i].run();
	else
		say("FAIL rm.do=%s is unknown", what);

	say("END");
	tcdrain(STDOUT_FILENO);
	reboot(RB_AUTOBOOT);
	return 1;
}
