// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * The matrix of races: every pair of actors, on one world, at the same time; some
 * rounds as they come, and some with delays in the kernel. See race.h, and "The lab"
 * in docs/testing.rst.
 *
 * Each pair is a process of its own, in a test machine with our modules. All that
 * is left to chance comes from a seed. Prints TAP, a line for each pair.
 */
#include <getopt.h>
#include <signal.h>
#include <sys/wait.h>

#include "race.h"
#include "delay.h"

static const struct actor *const actors[] = {
	&actor_fault, &actor_emulated, &actor_walk, &actor_prefetch,
	&actor_prefault, &actor_attributes, &actor_conversion, &actor_punch,
	&actor_populate, &actor_slots, &actor_window, &actor_unmap, &actor_fork,
	&actor_splice, &actor_direct, &actor_error, &actor_offline,
	&actor_reclaim, &actor_close, &actor_bind, &actor_limit, &actor_vm_end,
	&actor_unload,
};

#define NR_ACTORS	((int)ARRAY_SIZE(actors))
#define MAX_PAIRS	(NR_ACTORS * (NR_ACTORS + 1) / 2)

/* Where two were found to go wrong; they come first, should time be short. */
static const char *const first_pairs[][2] = {
	{ "fault", "attributes" }, { "window", "close" }, { "prefault", "slots" },
	{ "splice", "conversion" }, { "attributes", "unmap" }, { "walk", "attributes" },
	{ "direct", "conversion" }, { "fault", "punch" }, { "punch", "window" },
	{ "emulated", "attributes" }, { "fault", "unmap" }, { "attributes", "attributes" },
	{ "conversion", "fault" }, { "populate", "limit" }, { "vm-end", "conversion" },
};

struct pair {
	const struct actor *a, *b;
};

/* What a pair's process tells */
struct tally {
	bool failed;
	int messages;
	int rounds;
	int delayed;
	uint64_t steps[2];
	uint64_t waits;
};

struct options {
	uint64_t seed;
	unsigned int ms;	/* for each pair */
	uint64_t end;		/* when no other pair begins, by now_ms() */
	const char *store;
	const char *places;
	bool shadow;		/* the machine has no TDP MMU */
};

#define ROUND_MS	400
#define WHOLE		4	/* rounds after which the world is looked over as a whole */
#define POOL_PAGES	12	/* six for the memories, and what forked children keep */
#define RELOAD		8	/* pairs after which modules are unloaded once */
#define GRACE		60	/* seconds beyond its time that make a hang */

static struct tally *tally;

void fail(struct world *w, const char *format, ...)
{
	va_list args;

	w->failed = true;
	tally->failed = true;
	__atomic_store_n(&w->stop, true, __ATOMIC_RELAXED);
	if (__atomic_fetch_add(&tally->messages, 1, __ATOMIC_RELAXED) >= 5)
		return;
	va_start(args, format);
	flockfile(stdout);
	printf("# ");
	vprintf(format, args);
	printf("\n");
	fflush(stdout);
	funlockfile(stdout);
	va_end(args);
}

static uint64_t slowness(void)
{
	const char *slow = getenv("RM_SLOW");

	return slow ? atoi(slow) : 1;
}

static uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000ULL + ts.tv_nsec / 1000000;
}

static void *play(void *arg)
{
	struct player *p = arg;

	while (!stopped(p->world)) {
		p->actor->step(p);
		p->steps++;
	}
	if (p->actor->end)
		p->actor->end(p);
	return NULL;
}

static void enter(struct world *w, struct player *p, const struct actor *actor,
		  uint64_t seed, int nr)
{
	p->actor = actor;
	p->world = w;
	p->seed = seed;
	p->nr = nr;
	if (actor->has_vcpu)
		vcpu_create(&w->vm, &p->vcpu, w->nr_vcpus++);
	w->tolerates |= actor->does;
}

static void start(struct player *p)
{
	if (p->actor->begin)
		p->actor->begin(p);
	pthread_create(&p->thread, NULL, play, p);
}

/* Memory that has nothing to do with it, where freed pages would turn up. */
static void be_a_stranger(struct world *w, unsigned int ms)
{
	const uint64_t end = now_ms() + ms, value = (uint64_t)STRANGER * 0x0101010101010101;
	const unsigned int pages = 64;

	while (!stopped(w) && now_ms() < end) {
		uint64_t *map = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE,
				     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		CHECK(map != MAP_FAILED);
		for (unsigned int i = 0; i < pages * WORDS; i += 64)
			map[i] = value;
		sleep_ms(4);
		for (unsigned int i = 0; i < pages * WORDS; i += 64)
			if (map[i] != value)
				fail(w, "somebody has written to a stranger's memory: %#lx",
				     (unsigned long)map[i]);
		munmap(map, pages * PAGE);
	}
}

static void play_round(struct world *w, unsigned int ms)
{
	bool looks = w->bystander.actor;

	w->stop = w->failed;
	if (looks)
		start(&w->bystander);
	start(&w->players[0]);
	start(&w->players[1]);
	be_a_stranger(w, ms);
	__atomic_store_n(&w->stop, true, __ATOMIC_RELAXED);
	pthread_join(w->players[0].thread, NULL);
	pthread_join(w->players[1].thread, NULL);
	if (looks)
		pthread_join(w->bystander.thread, NULL);
}

/* All rounds of a pair; a third of the time without delays. */
static void play_pair(const struct pair *pair, const struct store *store,
		      uint64_t seed, const struct options *o)
{
	const uint64_t ms = o->ms * slowness();
	struct world w = {};
	int delays = delay_open();
	bool delayed, last;
	uint64_t begin;

	world_make(&w, store, 1 + next_random(&seed) % 255);
	enter(&w, &w.players[0], pair->a, next_random(&seed), 0);
	enter(&w, &w.players[1], pair->b, next_random(&seed), 1);
	if (!pair->a->guest || !pair->b->guest)
		enter(&w, &w.bystander, &actor_fault, next_random(&seed), 2);
	world_settle(&w, true);

	begin = now_ms();
	do {
		delayed = now_ms() - begin >= ms / 3;
		if (delayed)
			places_add(delays, pair->a->name, pair->b->name,
				   next_random(&seed));
		play_round(&w, ROUND_MS * slowness());
		if (delayed) {
			tally->waits += places_waits(delays);
			tally->delayed++;
			ioctl(delays, RMD_CLEAR);
		}
		last = now_ms() - begin >= ms;
		if (!w.failed)
			world_settle(&w, last || tally->rounds % WHOLE == 0);
		if (w.failed && delayed)
			printf("# with delays:%s\n", places_text());
		tally->rounds++;
	} while (!w.failed && !last);
	for (int i = 0; i < 2; i++)
		tally->steps[i] = w.players[i].steps;
	if (w.failed)
		_exit(1);
	for (int i = 0; i < 2; i++)
		if (w.players[i].actor->has_vcpu)
			vcpu_destroy(&w.players[i].vcpu);
	if (w.bystander.actor)
		vcpu_destroy(&w.bystander.vcpu);
	world_end(&w);
}

static void run_child(const struct pair *pair, const struct store *store,
		      uint64_t seed, const struct options *o)
{
	setpgid(0, 0);
	catch_any_sigbus();
	play_pair(pair, store, seed, o);
	fflush(stdout);
	_exit(0);
}

/* Wait for a process; -1 if it is still there. */
static int wait_for(pid_t pid, uint64_t ms, int *status)
{
	const uint64_t end = now_ms() + ms;

	do {
		if (waitpid(pid, status, WNOHANG) == pid)
			return 0;
		sleep_ms(10);
	} while (now_ms() < end);
	return -1;
}

/* What must be as it was, and may take a moment */
struct counts {
	uint64_t resident;
	long refs;
	long pool;
};

static void take_counts(struct counts *c)
{
	c->resident = resident_total();
	c->refs = module_refs("restrictedmem");
	c->pool = pool_count(HUGE, "free_hugepages");
}

static bool counts_return(const struct counts *before)
{
	struct counts after;

	for (int i = 0; i < 100; i++) {
		take_counts(&after);
		if (!memcmp(before, &after, sizeof(after)))
			return true;
		sleep_ms(20);
	}
	printf("# left behind: resident %lld, references %ld, pages of the pool %ld\n",
	       (long long)(after.resident - before->resident),
	       after.refs - before->refs, before->pool - after.pool);
	return false;
}

/* The modules go when nobody uses them, and come back. */
static bool reload(void)
{
	static const char *const names[] = {
		"restrictedmem_test", "kvm_amd", "kvm", "restrictedmem",
	};
	char kvm[64], kvm_amd[64];

	snprintf(kvm, sizeof(kvm), "build/kvm-%s/kvm.ko", getenv("KVER"));
	snprintf(kvm_amd, sizeof(kvm_amd), "build/kvm-%s/kvm-amd.ko", getenv("KVER"));
	for (unsigned int i = 0; i < ARRAY_SIZE(names); i++) {
		if (unload_module(names[i])) {
			printf("# unloading %s, which is idle: %m\n", names[i]);
			return false;
		}
	}
	return !load_module("restrictedmem.ko") && !load_module(kvm) &&
	       !load_module(kvm_amd) &&
	       !load_module("tests/kmod/restrictedmem_test.ko");
}

static bool may_be(const struct pair *pair, const struct store *store)
{
	return store->granule == PAGE ||
	       !((pair->a->needs | pair->b->needs) & NEEDS_SMALL);
}

static const struct store *choose_store(const struct pair *pair, uint64_t *seed,
					const struct options *o)
{
	const struct store *s;

	for (s = stores; o->store && s->name; s++)
		if (!strcmp(s->name, o->store))
			return s;
	do {
		s = &stores[next_random(seed) % 3];
	} while (!may_be(pair, s));
	return s;
}

/* Each pair has a seed of its own, whatever else is run. */
static uint64_t seed_of(const struct pair *pair, uint64_t seed)
{
	const char * const names[] = { pair->a->name, pair->b->name };

	for (int i = 0; i < 2; i++)
		for (const char *c = names[i]; *c; c++)
			seed = (seed ^ *c) * 0x100000001b3;
	next_random(&seed);
	return seed;
}

/* A pair that hangs is told of in detail. Return: false if it cannot be ended. */
static bool end_hang(pid_t pid)
{
	int status;

	printf("# hangs\n");
	dump_stacks(pid);
	kill(-pid, SIGKILL);
	if (!wait_for(pid, 10000 * slowness(), &status))
		return true;
	printf("# and cannot be killed\n");
	return false;
}

static bool run_pair(int nr, const struct pair *pair, const struct options *o,
		     bool *usable)
{
	uint64_t seed = seed_of(pair, o->seed);
	const struct store *store = choose_store(pair, &seed, o);
	struct counts before;
	char name[64];
	int status = 0;
	bool good;
	pid_t pid;

	snprintf(name, sizeof(name), "%s,%s", pair->a->name, pair->b->name);
	if (store->granule != PAGE)
		pool_resize(store->granule, POOL_PAGES);
	memset(tally, 0, sizeof(*tally));
	memset(&before, 0, sizeof(before));
	take_counts(&before);
	log_mark(name);
	log_open();
	fflush(stdout);

	pid = fork();
	if (!pid)
		run_child(pair, store, seed, o);
	*usable = true;
	good = !wait_for(pid, (o->ms + GRACE * 1000) * slowness(), &status);
	if (!good)
		*usable = end_hang(pid);
	set_limit(0);
	if (good && status) {
		printf("# status %#x\n", status);
		good = false;
	}
	good &= !tally->failed;
	if (*usable)
		good &= counts_return(&before);
	/* Who reloads KVM on a machine with other parameters has none of these. */
	if (good && !o->shadow && !module_refs("kvm_amd") && nr % RELOAD == 0)
		good &= reload();
	if (log_bad())
		good = false;
	if (!good)
		printf("# again: tests/race/run -p %s -v %s -s %llu\n", name,
		       store->name, (unsigned long long)o->seed);
	printf("%s %d - %s: %s, %d rounds, %d with %llu delays, %llu and %llu steps\n",
	       good ? "ok" : "not ok", nr, name, store->name, tally->rounds,
	       tally->delayed, (unsigned long long)tally->waits,
	       (unsigned long long)tally->steps[0],
	       (unsigned long long)tally->steps[1]);
	fflush(stdout);
	return good;
}

static const struct actor *find_actor(const char *name)
{
	for (int i = 0; i < NR_ACTORS; i++)
		if (!strcmp(actors[i]->name, name))
			return actors[i];
	return NULL;
}

/* Pairs that the machine can run: with shadow paging only those that need it. */
static bool is_listed(const struct pair *pair, bool shadow)
{
	return !((pair->a->needs | pair->b->needs) & NEEDS_SHADOW) == !shadow;
}

static bool is_same(const struct pair *a, const struct pair *b)
{
	return (a->a == b->a && a->b == b->b) || (a->a == b->b && a->b == b->a);
}

static void add_pair(struct pair *pairs, int *nr, struct pair pair, bool shadow)
{
	for (int i = 0; i < *nr; i++)
		if (is_same(&pairs[i], &pair))
			return;
	if (is_listed(&pair, shadow))
		pairs[(*nr)++] = pair;
}

/* All pairs: those that come first, and the others, shuffled by the seed. */
static int list_pairs(struct pair *pairs, uint64_t seed, bool shadow)
{
	int nr = 0, first;

	for (unsigned int i = 0; i < ARRAY_SIZE(first_pairs); i++)
		add_pair(pairs, &nr, (struct pair){
			find_actor(first_pairs[i][0]), find_actor(first_pairs[i][1]),
		}, shadow);
	first = nr;
	for (int a = 0; a < NR_ACTORS; a++)
		for (int b = a; b < NR_ACTORS; b++)
			add_pair(pairs, &nr, (struct pair){ actors[a], actors[b] }, shadow);
	for (int i = nr - 1; i > first; i--) {
		int j = first + next_random(&seed) % (i - first + 1);
		struct pair other = pairs[i];

		pairs[i] = pairs[j];
		pairs[j] = other;
	}
	return nr;
}

static int parse_pairs(struct pair *pairs, char *list)
{
	int nr = 0;

	for (char *next, *name = strtok_r(list, " ", &next); name && nr < MAX_PAIRS;
	     name = strtok_r(NULL, " ", &next)) {
		char *second = strchr(name, ',');

		if (second)
			*second++ = 0;
		pairs[nr] = (struct pair){ find_actor(name),
					   find_actor(second ?: name) };
		if (!pairs[nr].a || !pairs[nr].b) {
			fprintf(stderr, "race: no actors %s,%s (see -l)\n", name, second);
			exit(2);
		}
		nr++;
	}
	return nr;
}

static bool has_no_tdp_mmu(void)
{
	char text[8];

	return read_text("/sys/module/kvm/parameters/tdp_mmu", text, sizeof(text)) > 0 &&
	       text[0] == 'N';
}

static int usage(int status)
{
	printf("race [-l [-S] | -a | -p 'A,B C,D...'] [-s SEED] [-t MILLISECONDS each]\n"
	       "     [-T SECONDS for all] [-v small|huge|pool] [-n FROM,TO] [-d PLACES]\n");
	return status;
}

static int run(struct pair *pairs, int from, int to, const struct options *o)
{
	bool usable = true, good = true;

	if (load_module("tests/kmod/restrictedmem_test.ko") ||
	    load_module("tests/kmod/restrictedmem_delay.ko")) {
		perror("race: the test modules");
		return 2;
	}
	if (places_load(o->places)) {
		printf("not ok %d - all of %s is there\n", from + 1, o->places);
		return 2;
	}
	printf("TAP version 13\n");
	fflush(stdout);
	for (int i = from; i < to && usable && now_ms() < o->end; i++)
		good &= run_pair(i + 1, &pairs[i], o, &usable);
	if (!usable)
		return 3;
	return !good;
}

int main(int argc, char **argv)
{
	struct options o = { .seed = 1, .ms = 2000, .places = "tests/race/places", .end = ~0ULL };
	int option, nr = 0, from = 0, to = MAX_PAIRS;
	struct pair pairs[MAX_PAIRS];
	char *list = NULL;
	bool only_list = false;

	while ((option = getopt(argc, argv, "hlaSp:s:t:T:v:n:d:")) != -1) {
		switch (option) {
		case 'l':
			only_list = true;
			break;
		case 'a':
			break;
		case 'S':
			o.shadow = true;
			break;
		case 'p':
			list = optarg;
			break;
		case 's':
			o.seed = strtoull(optarg, NULL, 0);
			break;
		case 't':
			o.ms = atoi(optarg);
			break;
		case 'T':
			o.end = now_ms() + atoi(optarg) * 1000ULL;
			break;
		case 'v':
			o.store = optarg;
			break;
		case 'n':
			if (sscanf(optarg, "%d,%d", &from, &to) < 1)
				return usage(2);
			break;
		case 'd':
			o.places = optarg;
			break;
		default:
			return usage(option == 'h' ? 0 : 2);
		}
	}
	if (!only_list)
		o.shadow = has_no_tdp_mmu();
	nr = list ? parse_pairs(pairs, list) : list_pairs(pairs, o.seed, o.shadow);
	if (to > nr)
		to = nr;
	for (int i = from; only_list && i < to; i++)
		printf("%s,%s\n", pairs[i].a->name, pairs[i].b->name);
	if (only_list)
		return 0;
	tally = mmap(NULL, sizeof(*tally), PROT_READ | PROT_WRITE,
		     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	return run(pairs, from, to, &o);
}
