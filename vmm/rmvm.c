// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * rmvm runs a Linux guest in memory that this process, and all others, cannot
 * touch. It is small on purpose: an example for authors of VMMs, and what the
 * project's own tests boot Linux with. See rmvm(1).
 *
 * Here: options, and the life of the VM from start to end.
 */
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "rmvm.h"

#define MIN_MEMORY	(16 * MIB)
#define MAX_MEMORY	(512 * GIB)

/* The end takes no longer, whatever holds it up. */
#define END_SECONDS	30

/*
 * No buses and no tables that this machine does not have, no random addresses
 * for the kernel, and reset by triple fault, which is how rmvm sees the end.
 */
#define CMDLINE		"console=ttyS0 %sacpi=off nokaslr reboot=t%s%s"
#define NO_PCI		"pci=off "

static const char help[] =
	"Usage: rmvm --kernel FILE [options]\n"
	"Runs a Linux guest in restricted memory.\n"
	"\n"
	"  -k, --kernel FILE      bzImage or ELF vmlinux\n"
	"  -i, --initrd FILE      initial RAM disk\n"
	"  -a, --append WORDS     more for the kernel's command line\n"
	"  -m, --memory SIZE      RAM in MiB, or with a suffix K, M or G (256M)\n"
	"  -c, --smp N            number of vCPUs (1)\n"
	"  -b, --backing KIND     restricted (default), in-place, guest_memfd or memfd\n"
	"      --huge yes|no      huge pages (yes)\n"
	"      --pool 2M|1G       RAM from the system's pool of pages of that size\n"
	"      --balloon          the guest's free memory goes back to the host\n"
	"      --vhost-user-blk SOCKET  a disk, from the backend that listens there\n"
	"      --backend-timeout SECONDS  how long backends may take (10)\n"
	"      --stats[=FILE]     the summary goes to FILE (standard error)\n"
	"      --report-fdinfo    show the memory file's fdinfo at the end\n"
	"      --timeout SECONDS  end the guest after that time\n"
	"  -v, --verbose          show where RAM is\n"
	"  -h, --help\n"
	"\n"
	"The guest's console is the terminal; Ctrl-A x ends the guest.\n";

static struct vm vm;
static sigset_t end_signals;

double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec + ts.tv_nsec / 1e9;
}

/*
 * The caller may have locks, and the guest the choice of the moment: who reads the
 * messages must not hold it up. One that there is no room for is lost. A pipe that
 * has room takes PIPE_BUF at once, unless another process was faster.
 */
static void vsay(const char *reason, const char *fmt, va_list args)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	struct pollfd to = { .fd = STDERR_FILENO, .events = POLLOUT };
	/* The terminal may be raw. */
	const char *end = isatty(STDERR_FILENO) ? "\r\n" : "\n";
	char text[PIPE_BUF - 512], line[PIPE_BUF];
	int len;

	vsnprintf(text, sizeof(text), fmt, args);
	len = snprintf(line, sizeof(line), "rmvm: %s%s%.256s%s", text, reason ? ": " : "",
		       reason ?: "", end);
	pthread_mutex_lock(&lock);
	if (poll(&to, 1, 0) > 0 && write(STDERR_FILENO, line, len) < len)
		len = 0;		/* and nobody to tell */
	pthread_mutex_unlock(&lock);
}

void say(const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	vsay(NULL, fmt, args);
	va_end(args);
}

int fail(const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	vsay(NULL, fmt, args);
	va_end(args);
	return -1;
}

/* What a guest can bring about again and again must not fill a log. */
int fail_once(bool *said, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	if (!*said)
		vsay(NULL, fmt, args);
	va_end(args);
	*said = true;
	return -1;
}

int fail_errno(const char *fmt, ...)
{
	const char *reason = strerror(errno);
	va_list args;

	va_start(args, fmt);
	vsay(reason, fmt, args);
	va_end(args);
	return -1;
}

static u64 parse_memory(const char *arg)
{
	unsigned long long value;
	u64 unit = MIB;
	char *end;

	errno = 0;
	value = strtoull(arg, &end, 10);
	if (*end && strchr("kK", *end))
		unit = KIB;
	else if (*end && strchr("gG", *end))
		unit = GIB;
	else if (*end && !strchr("mM", *end))
		return 0;
	if (errno || end == arg || (*end && end[1]) || *arg == '-' || value > MAX_MEMORY / unit)
		return 0;
	return value * unit;
}

static unsigned int parse_number(const char *arg, unsigned int max)
{
	unsigned long value;
	char *end;

	errno = 0;
	value = strtoul(arg, &end, 10);
	return errno || end == arg || *end || *arg == '-' || value > max ? 0 : value;
}

static int parse_word(const char *arg, const char *const *words, int nr)
{
	int i;

	for (i = 0; i < nr; i++)
		if (!strcmp(arg, words[i]))
			return i;
	return -1;
}

static const struct option long_options[] = {
	{ "kernel", required_argument, NULL, 'k' },
	{ "initrd", required_argument, NULL, 'i' },
	{ "append", required_argument, NULL, 'a' },
	{ "memory", required_argument, NULL, 'm' },
	{ "smp", required_argument, NULL, 'c' },
	{ "backing", required_argument, NULL, 'b' },
	{ "huge", required_argument, NULL, 'H' },
	{ "pool", required_argument, NULL, 'P' },
	{ "balloon", no_argument, NULL, 'B' },
	{ "vhost-user-blk", required_argument, NULL, 'D' },
	{ "backend-timeout", required_argument, NULL, 'O' },
	{ "stats", optional_argument, NULL, 'S' },
	{ "report-fdinfo", no_argument, NULL, 'F' },
	{ "timeout", required_argument, NULL, 'T' },
	{ "verbose", no_argument, NULL, 'v' },
	{ "help", no_argument, NULL, 'h' },
	{ }
};

/* Returns false after a message about an option that makes no sense. */
static bool parse_option(struct options *opt, int c)
{
	static const char *const backings[] = {
		"restricted", "in-place", "guest_memfd", "memfd"
	};
	static const char *const yes_no[] = { "no", "yes" };
	static const char *const pools[] = { "2M", "1G" };
	int word;

	switch (c) {
	case 'k':
		opt->kernel = optarg;
		return true;
	case 'i':
		opt->initrd = optarg;
		return true;
	case 'a':
		opt->append = optarg;
		return true;
	case 'S':
		opt->stats_file = optarg;
		return true;
	case 'F':
		opt->report_fdinfo = true;
		return true;
	case 'v':
		opt->verbose = true;
		return true;
	case 'm':
		opt->memory = parse_memory(optarg);
		if (opt->memory >= MIN_MEMORY && !(opt->memory % PAGE))
			return true;
		fail("--memory %s: not a size of whole pages from %lluM to %lluG", optarg,
		     MIN_MEMORY / MIB, MAX_MEMORY / GIB);
		return false;
	case 'c':
		opt->smp = parse_number(optarg, MAX_VCPUS);
		if (opt->smp)
			return true;
		fail("--smp %s: not a number from 1 to %d", optarg, MAX_VCPUS);
		return false;
	case 'B':
		opt->balloon = true;
		return true;
	case 'D':
		if (opt->nr_disks < MAX_DISKS) {
			opt->disks[opt->nr_disks++] = optarg;
			return true;
		}
		fail("--vhost-user-blk: at most %d", MAX_DISKS);
		return false;
	case 'O':
		opt->backend_timeout = parse_number(optarg, 3600);
		if (opt->backend_timeout)
			return true;
		fail("--backend-timeout %s: not a number of seconds", optarg);
		return false;
	case 'T':
		opt->timeout = parse_number(optarg, INT32_MAX);
		if (opt->timeout)
			return true;
		fail("--timeout %s: not a number of seconds", optarg);
		return false;
	case 'b':
		word = parse_word(optarg, backings, ARRAY_SIZE(backings));
		opt->backing = word;
		if (word >= 0)
			return true;
		fail("--backing %s: not one of restricted, in-place, guest_memfd, memfd", optarg);
		return false;
	case 'H':
		word = parse_word(optarg, yes_no, ARRAY_SIZE(yes_no));
		opt->huge = word;
		if (word >= 0)
			return true;
		fail("--huge %s: neither yes nor no", optarg);
		return false;
	case 'P':
		word = parse_word(optarg, pools, ARRAY_SIZE(pools));
		opt->pool = word ? GIB : 2 * MIB;
		if (word >= 0)
			return true;
		fail("--pool %s: neither 2M nor 1G", optarg);
		return false;
	default:
		return false;		/* getopt_long() has said why */
	}
}

static void parse_options(struct options *opt, int argc, char **argv)
{
	static char cmdline[8192];
	int c;

	while ((c = getopt_long(argc, argv, "k:i:a:m:c:b:vh", long_options, NULL)) != -1) {
		if (c == 'h') {
			fputs(help, stdout);
			exit(0);
		}
		if (!parse_option(opt, c))
			exit(END_USAGE);
	}
	if (optind < argc) {
		fail("%s: what is that for? (see --help)", argv[optind]);
		exit(END_USAGE);
	}
	if (!opt->kernel) {
		fail("no --kernel (see --help)");
		exit(END_USAGE);
	}
	if (opt->pool && opt->backing != BACKING_RESTRICTED && opt->backing != BACKING_IN_PLACE) {
		fail("--pool: only for --backing restricted or in-place");
		exit(END_USAGE);
	}
	if (opt->pool && opt->memory % opt->pool) {
		fail("--pool: only for a --memory of whole pages");
		exit(END_USAGE);
	}
	if (opt->nr_disks && opt->backing != BACKING_IN_PLACE && opt->backing != BACKING_MEMFD) {
		fail("--vhost-user-blk: only for --backing in-place, or memfd");
		exit(END_USAGE);
	}
	if (snprintf(cmdline, sizeof(cmdline), CMDLINE, opt->nr_disks || opt->balloon ? "" : NO_PCI,
		     opt->append ? " " : "", opt->append ?: "") >= (int)sizeof(cmdline)) {
		fail("--append: too long");
		exit(END_USAGE);
	}
	opt->append = cmdline;
}

static void on_kick(int sig)
{
	(void)sig;
}

/* Something holds up the end: the summary goes to a pipe that nobody reads, for example. */
static void on_alarm(int sig)
{
	(void)sig;
	serial_exit();
	_exit(vm.end == END_GUEST ? END_ERROR : vm.end);
}

/*
 * Signals that end the VM come to one thread, which waits for them; the vCPUs'
 * threads get only the kick, which is there to interrupt KVM_RUN. Blocked before
 * there is any other thread, and so in all of them.
 */
static void block_signals(void)
{
	struct sigaction kick = { .sa_handler = on_kick };
	struct sigaction alarm = { .sa_handler = on_alarm };

	sigaction(SIGUSR1, &kick, NULL);
	sigaction(SIGALRM, &alarm, NULL);
	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&end_signals);
	sigaddset(&end_signals, SIGINT);
	sigaddset(&end_signals, SIGTERM);
	sigaddset(&end_signals, SIGHUP);
	pthread_sigmask(SIG_BLOCK, &end_signals, NULL);
}

/* The end begins here: before the guest runs, too, when nobody waits for it yet. */
static void *signal_thread(void *arg)
{
	int sig;

	while (!sigwait(arg, &sig)) {
		if (!vm_ended(&vm))
			alarm(END_SECONDS);
		vm_end(&vm, END_USER);
	}
	return NULL;
}

static int start_signals(void)
{
	pthread_t thread;
	int ret = pthread_create(&thread, NULL, signal_thread, &end_signals);

	return ret ? fail("cannot start a thread: %s", strerror(ret)) : 0;
}

static int create(const struct options *opt)
{
	pthread_condattr_t attr;
	unsigned int i;

	if (vm_create(&vm, opt))
		return -1;
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&vm.end_cond, &attr);
	if (start_signals())
		return -1;

	for (i = 0; i < opt->nr_disks; i++)
		if (vm_ended(&vm) || vhost_blk_add(&vm, opt->disks[i]))
			return -1;
	if (opt->balloon && balloon_add(&vm))
		return -1;
	vm.vcpus = calloc(opt->smp, sizeof(*vm.vcpus));
	if (!vm.vcpus)
		return fail("out of memory");
	for (i = 0; i < opt->smp; i++)
		if (vcpu_create(&vm, i))
			return -1;
	return load_guest(&vm);
}

static void wait_for_end(unsigned int timeout)
{
	struct timespec until;
	int ret = 0;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += timeout;
	pthread_mutex_lock(&vm.end_lock);
	while (vm.end == END_NOT_YET && ret != ETIMEDOUT)
		ret = timeout ? pthread_cond_timedwait(&vm.end_cond, &vm.end_lock, &until) :
		      pthread_cond_wait(&vm.end_cond, &vm.end_lock);
	if (vm.end == END_NOT_YET)
		vm.end = END_TIMEOUT;
	pthread_mutex_unlock(&vm.end_lock);
}

static void run(const struct options *opt)
{
	unsigned int started = 0, i;

	vm.start = now();
	while (started < opt->smp && !vcpu_start(&vm.vcpus[started]))
		started++;
	if (started < opt->smp)
		vm_end(&vm, END_ERROR);
	wait_for_end(opt->timeout);
	alarm(END_SECONDS);
	/* All of them first: one may wait for another, or for a backend. */
	vhost_blk_end();
	for (i = 0; i < started; i++)
		vcpu_kick(&vm.vcpus[i]);
	for (i = 0; i < started; i++)
		pthread_join(vm.vcpus[i].thread, NULL);
	serial_flush();
}

static int report(const struct options *opt)
{
	FILE *to = stderr;

	stats_sample(&vm);
	if (opt->stats_file)
		to = fopen(opt->stats_file, "we");
	if (!to)
		return fail_errno("cannot write %s", opt->stats_file);
	stats_print(&vm, to);
	if (opt->report_fdinfo)
		stats_fdinfo(&vm, to);
	if (to != stderr && fclose(to))
		return fail_errno("cannot write %s", opt->stats_file);
	return 0;
}

int main(int argc, char **argv)
{
	struct options opt = {
		.memory = 256 * MIB,
		.smp = 1,
		.huge = true,
		.backend_timeout = 10,
	};

	parse_options(&opt, argc, argv);
	block_signals();
	if (create(&opt) || serial_init(&vm))
		return vm_ended(&vm) ? vm.end : END_ERROR;
	run(&opt);
	serial_exit();
	if (vm.end == END_TIMEOUT)
		fail("time is over after %u s", opt.timeout);
	if (report(&opt))
		return END_ERROR;
	return vm.end;
}
