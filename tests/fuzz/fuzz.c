// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * The fuzzer's program: a supervisor, which counts, tells and looks whether it goes
 * on, and a worker, which runs sequences (run.c).
 *
 * What sequence N of a run is follows from the run's seed and N. A sequence that
 * found something is written, made smaller, and written again.
 */
#include <dirent.h>
#include <getopt.h>
#include <signal.h>
#include <sys/wait.h>

#include "consumer.h"
#include "delay.h"
#include "fuzz.h"

#define HANG_SECONDS	120
#define MINIMISE_SECONDS 120
#define KINDS_KEPT	64

static struct {
	double seconds;
	uint64_t calls;
	uint64_t seed;
	const char *out;
	const char *mode;
	const char *corpus;
	unsigned int length;
	bool replay;
	bool quiet;
	bool stop;
	bool delays;
	bool verbose;
} options = {
	.mode = "both",
	.length = 200,
	.seed = 1,
};

static const char usage_text[] =
"Usage: fuzz [options] [-r FILE...]\n"
"\n"
"Makes random calls, and says what of their results cannot be.\n"
"\n"
"  -t SECONDS   how long (10, if -n is not given)\n"
"  -n CALLS     how many calls\n"
"  -s SEED      which ones (1)\n"
"  -m MODE      sequential, concurrent or both (both)\n"
"  -w NAME      without calls of that name; may be repeated\n"
"  -l CALLS     in a sequence (200)\n"
"  -c DIR       run the sequences DIR/*.txt first\n"
"  -o DIR       write what is found below DIR/findings, and to DIR/current which\n"
"               sequence is being run, for the case that the machine dies\n"
"  -1 SEED      run one sequence, that with this seed, and print it\n"
"  -d           with delays in the kernel\n"
"  -v           print at the end how many calls of each kind there were\n"
"  -x           end when something was found\n"
"  -q           print what is found alone, and make nothing smaller\n"
"  -r           run the sequences in the files that follow, and nothing else\n"
"\n"
"The last line is: N passed, N failed, N skipped (sequences).\n";

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec + ts.tv_nsec / 1e9;
}

static void say_found(const struct sequence *s)
{
	printf("FOUND seed=%llu %s: %s\n", (unsigned long long)s->seed,
	       s->concurrent ? "concurrent" : "sequential", shared->why);
	fflush(stdout);
}

static void write_finding(const struct sequence *s, const char *why, const char *what)
{
	char path[300];
	FILE *file;

	if (!options.out)
		return;
	snprintf(path, sizeof(path), "%s/findings", options.out);
	mkdir(path, 0755);
	snprintf(path, sizeof(path), "%s/findings/%llu%s.txt", options.out,
		 (unsigned long long)s->seed, what);
	file = fopen(path, "we");
	if (!file)
		return;
	trace_write(file, s, why);
	fclose(file);
}

/* One of each kind is worth a closer look. */
static bool is_new_kind(const char *why)
{
	static char kinds[KINDS_KEPT][64];
	static int nr;
	char kind[64];
	size_t n = 0;

	for (; *why && n < 63; why++)
		if (*why < '0' || *why > '9')
			kind[n++] = *why;
	kind[n] = 0;
	for (int i = 0; i < nr; i++)
		if (!strcmp(kinds[i], kind))
			return false;
	if (nr < KINDS_KEPT)
		strcpy(kinds[nr++], kind);
	return true;
}

static void found(const struct sequence *s)
{
	static struct sequence less;
	char why[sizeof(shared->why)];

	shared->findings++;
	say_found(s);
	if (options.quiet || !is_new_kind(shared->why))
		return;
	strcpy(why, shared->why);
	write_finding(s, why, "");
	less = *s;
	sequence_minimise(&less, why, MINIMISE_SECONDS);
	write_finding(&less, why, "-small");
	printf("# %u of %u calls do it:\n", less.count, s->count);
	trace_write(stdout, &less, NULL);
	fflush(stdout);
}

static void run_one(const struct sequence *s)
{
	if (!sequence_run(s))
		found(s);
}

/* Should the machine die: which one it was */
static void note_current(const struct sequence *s)
{
	static int fd = -2;
	char path[300], text[64];

	if (!options.out)
		return;
	if (fd == -2) {
		snprintf(path, sizeof(path), "%s/current", options.out);
		fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
	}
	snprintf(text, sizeof(text), "%-30llu %-30s\n", (unsigned long long)s->seed,
		 s->concurrent ? "concurrent" : "sequential");
	if (fd >= 0 && pwrite(fd, text, strlen(text), 0) < 0)
		options.out = NULL;
}

static int is_trace(const struct dirent *entry)
{
	size_t n = strlen(entry->d_name);

	return n > 4 && !strcmp(entry->d_name + n - 4, ".txt");
}

static void run_corpus(void)
{
	static struct sequence s;
	struct dirent **entries;
	char path[512];
	int n = options.corpus ? scandir(options.corpus, &entries, is_trace, alphasort) : 0;

	for (int i = 0; i < n; i++) {
		snprintf(path, sizeof(path), "%s/%s", options.corpus, entries[i]->d_name);
		if (trace_read(path, &s))
			exit(1);
		if (!options.quiet)
			printf("# %s\n", entries[i]->d_name);
		note_current(&s);
		run_one(&s);
	}
}

static void replay(char **paths)
{
	static struct sequence s;

	for (; *paths; paths++) {
		if (trace_read(*paths, &s))
			exit(1);
		run_one(&s);
	}
}

/* The delays stay as long as the descriptor. */
static void add_delays(uint64_t seed)
{
	static const struct {
		const char *symbol;
		uint32_t usec;
	} places[] = {
		{ "restrictedmem_get_pfn", 1000 }, { "rm_get_folio", 500 },
		{ "rm_store_discard", 2000 }, { "rm_store_destroy", 2000 },
		{ "rm_store_first_held", 1000 }, { "rm_store_zero", 1000 },
		{ "rm_unmap_windows", 1000 }, { "rm_window_fault", 1000 },
		{ "rm_invalidate_start", 1000 }, { "restrictedmem_kvm_get_pfn", 2000 },
		{ "restrictedmem_kvm_set_attributes", 2000 }, { "kvm_zap_gfn_range", 2000 },
		{ "rm_revoke_windows", 1000 },
	};
	int fd;

	if (load_module("tests/kmod/restrictedmem_delay.ko"))
		perror("fuzz: restrictedmem_delay.ko");
	fd = delay_open();
	for (unsigned int i = 0; i < sizeof(places) / sizeof(*places); i++) {
		struct rmd_place place = {
			.usec = places[i].usec,
			.percent = 3,
			.flags = i % 2 ? RMD_RETURN : 0,
			.seed = seed + i,
		};

		snprintf(place.symbol, sizeof(place.symbol), "%s", places[i].symbol);
		if (ioctl(fd, RMD_ADD, &place) < 0)
			printf("# no delay at %s: %m\n", place.symbol);
	}
}

static void run_random(void)
{
	double end = options.seconds ? now() + options.seconds : 0;
	uint64_t state = options.seed, first = shared->calls;
	static struct sequence s;
	bool has_vm = vm_is_there();

	for (uint64_t i = 0;; i++) {
		uint64_t seed = random_next(&state) >> 16;
		bool concurrent = !strcmp(options.mode, "concurrent") ||
				  (strcmp(options.mode, "sequential") && i % 2);

		if ((end && now() > end) ||
		    (options.calls && shared->calls - first >= options.calls))
			return;
		sequence_generate(&s, seed, concurrent, options.length, has_vm);
		note_current(&s);
		run_one(&s);
		if (options.stop && shared->findings)
			return;
	}
}

static void run_single(uint64_t seed)
{
	static struct sequence s;

	sequence_generate(&s, seed, !strcmp(options.mode, "concurrent"), options.length,
			  vm_is_there());
	trace_write(stdout, &s, NULL);
	fflush(stdout);
	run_one(&s);
}

static void worker(bool single, char **paths)
{
	kernel_log_begin();
	runner_start();
	if (options.delays)
		add_delays(options.seed);
	if (options.replay) {
		replay(paths);
	} else if (single) {
		run_single(options.seed);
	} else {
		run_corpus();
		run_random();
	}
	shared->ended = true;
	runner_stop();
	exit(0);
}

/* Supervision */

static void print_file(const char *path)
{
	char text[4096];

	if (read_text(path, text, sizeof(text)) > 0)
		printf("# %s:\n%s", path, text);
}

static void say_hang(pid_t pid)
{
	const struct sequence *s = &shared->sequence;
	struct dirent **tasks;
	char path[64];
	int n;

	snprintf(shared->why, sizeof(shared->why), "hang: no call came back for %d s",
		 HANG_SECONDS);
	say_found(s);
	for (int i = 0; i < THREADS; i++)
		if (shared->doing[i] && shared->doing[i] <= s->count) {
			printf("# thread %d is in call %u: ", i, shared->doing[i] - 1);
			trace_call(stdout, s, &s->calls[shared->doing[i] - 1]);
		}
	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	n = scandir(path, &tasks, NULL, NULL);
	for (int i = 0; i < n; i++)
		if (tasks[i]->d_name[0] != '.')
			print_file(path_of("/proc/%d/task/%s/stack", pid, tasks[i]->d_name));
	write_finding(s, shared->why, "-hang");
	write_text("/proc/sysrq-trigger", "w");
	shared->findings++;
	fflush(stdout);
}

/* Return: whether the worker came to its end. */
static bool supervise(pid_t pid)
{
	double begin = now(), moved = begin, told = begin;
	uint64_t calls = 0;
	int status;

	while (!waitpid(pid, &status, WNOHANG)) {
		sleep_ms(calls ? 200 : 20);
		if (shared->calls != calls)
			moved = now();
		calls = shared->calls;
		if (!options.quiet && now() - told >= 10) {
			told = now();
			printf("# %.0f s: %llu calls (%.0f/s) in %llu sequences, %llu findings\n",
			       told - begin, (unsigned long long)calls, calls / (told - begin),
			       (unsigned long long)shared->sequences,
			       (unsigned long long)shared->findings);
			fflush(stdout);
		}
		if (now() - moved > HANG_SECONDS) {
			say_hang(pid);
			kill(pid, SIGKILL);
			return false;
		}
	}
	if (!shared->ended) {
		snprintf(shared->why, sizeof(shared->why), "the worker died (%#x)", status);
		say_found(&shared->sequence);
		write_finding(&shared->sequence, shared->why, "-died");
		shared->findings++;
	}
	if (!options.quiet)
		printf("# %.1f s, %.0f calls/s\n", now() - begin, shared->calls / (now() - begin));
	return shared->ended;
}

/* A kind of call that always fails is no test. */
static void print_made(void)
{
	for (unsigned int i = 0; i < nr_ops; i++)
		printf("# %-14s %8llu, of them without error %8llu\n", ops[i]->name,
		       (unsigned long long)(shared->made[i][0] + shared->made[i][1]),
		       (unsigned long long)shared->made[i][1]);
}

static int usage(int status)
{
	fputs(usage_text, status ? stderr : stdout);
	return status;
}

int main(int argc, char **argv)
{
	bool single = false, ended;
	pid_t pid;
	int c;

	ops_init();
	while ((c = getopt(argc, argv, "t:n:s:m:l:c:o:1:w:dxqrvh")) >= 0) {
		switch (c) {
		case 't':
			options.seconds = atof(optarg);
			break;
		case 'n':
			options.calls = strtoull(optarg, NULL, 0);
			break;
		case '1':
			single = true;
			/* fall through */
		case 's':
			options.seed = strtoull(optarg, NULL, 0);
			break;
		case 'm':
			options.mode = optarg;
			break;
		case 'l':
			options.length = atoi(optarg);
			break;
		case 'c':
			options.corpus = optarg;
			break;
		case 'o':
			options.out = optarg;
			break;
		case 'd':
			options.delays = true;
			break;
		case 'x':
			options.stop = true;
			break;
		case 'w':
			leave_out(optarg);
			break;
		case 'v':
			options.verbose = true;
			break;
		case 'q':
			options.quiet = true;
			break;
		case 'r':
			options.replay = true;
			break;
		default:
			return usage(c == 'h' ? 0 : 2);
		}
	}
	if (!options.seconds && !options.calls)
		options.seconds = 10;
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pid = fork();
	if (!pid)
		worker(single, argv + optind);
	ended = supervise(pid);
	if (options.verbose)
		print_made();
	printf("%llu passed, %llu failed, 0 skipped\n",
	       (unsigned long long)(shared->sequences > shared->findings ?
				    shared->sequences - shared->findings : 0),
	       (unsigned long long)shared->findings);
	fflush(stdout);
	/* A worker that hangs is not waited for. */
	_exit(!ended || shared->findings);
}
