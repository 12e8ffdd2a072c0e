// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * Readers of the range map beside a writer: first at chosen points, in one
 * thread, then in threads and by chance.
 */
#include <pthread.h>
#include <time.h>

#include "attrs.h"
#include "tree.h"

/* Readers beside a writer, each meeting at a chosen point. */

#define PEER_KEYS	64UL

static struct model model, before, after;
static struct op peer_ops[3];
static unsigned int peer_op_count;
static bool peer_begun_earlier;
static long peer_wait;

static bool all_ok;

/* A reader is about to load a pointer: let the writer run now. */
static void write_beside_reader(void)
{
	unsigned long stores = map.stores;
	unsigned int i;

	if (peer_wait-- != 0)
		return;
	tree_reader_step = NULL;
	for (i = 0; i < peer_op_count; i++)
		all_ok &= !set(peer_ops[i].start, peer_ops[i].end,
			       peer_ops[i].value);
	if (peer_begun_earlier)
		map.stores = stores;
}

static bool old_or_new(unsigned long key, unsigned long value)
{
	return value == model_get(&before, key) ||
	       value == model_get(&after, key);
}

/* All keys of the run that begins at @key are as before or as after. */
static bool run_is_old_or_new(unsigned long key)
{
	struct rm_attrs_run run = { .end = key };

	CHECK(rm_attrs_next(&map, &run, PEER_KEYS));
	CHECK(run.start == key);
	CHECK(run.end > key && run.end <= PEER_KEYS);
	for (; key < run.end; key++)
		CHECK(old_or_new(key, run.value));
	return true;
}

static bool block_is_old_or_new(unsigned long key)
{
	unsigned int order = rm_attrs_uniform_order(&map, key, 6);
	unsigned long start = key & ~((1UL << order) - 1);
	unsigned long i, value = model_get(&before, key);
	bool was = true, is = true;

	for (i = start; i < start + (1UL << order); i++) {
		was &= old_or_new(i, value);
		is &= old_or_new(i, model_get(&after, key));
	}
	CHECK(was || is);
	return true;
}

/* A map of some random ranges, and where a writer then changes it. */
static void peer_begin(unsigned int ranges)
{
	struct op op;

	model_begin(&model, 0, PEER_KEYS);
	while (ranges--) {
		op = random_op(&model);
		set(op.start, op.end, op.value);
		model_set(&model, op);
	}
	before = model;
	after = model;
}

static bool read_beside_one_store(unsigned long seed, unsigned long key,
				  long step, bool *done)
{
	rnd_seed(seed);
	peer_begin(1 + rnd(40));
	peer_ops[0] = random_op(&before);
	peer_op_count = 1;
	model_set(&after, peer_ops[0]);

	/* The reader is to take it for the one that runs already. */
	peer_begun_earlier = true;
	all_ok = true;
	peer_wait = step;
	tree_reader_step = write_beside_reader;
	CHECK(seed & 1 ? run_is_old_or_new(key) : block_is_old_or_new(key));
	*done = tree_reader_step;
	tree_reader_step = NULL;
	CHECK(all_ok);
	map_end();
	return true;
}

static bool reader_beside_one_store_sees_old_or_new(void)
{
	unsigned long seed, key;
	long step;
	bool done;

	for (seed = 1; seed <= 600; seed++) {
		key = seed * 7 % PEER_KEYS;
		for (step = 0, done = false; !done; step++) {
			if (!read_beside_one_store(seed, key, step, &done)) {
				printf("# seed %lu, step %ld\n", seed, step);
				return false;
			}
		}
	}
	return true;
}

/*
 * Key 5 is 1 and then 2. Where its slot was, there are 1, 1 and then 3: by the
 * old border and the late value it would be 3.
 */
static bool reader_beside_two_stores_sees_no_third_value(void)
{
	unsigned long value;
	bool done = false;
	long step;

	for (step = 0; !done; step++) {
		map_begin();
		CHECK(set(0, 10, 1) == 0);
		CHECK(set(10, 20, 2) == 0);
		peer_ops[0] = (struct op){ 3, 20, 2 };
		peer_ops[1] = (struct op){ 0, 3, 3 };
		peer_op_count = 2;
		peer_begun_earlier = false;
		all_ok = true;
		peer_wait = step;
		tree_reader_step = write_beside_reader;
		value = get(5);
		done = tree_reader_step;
		tree_reader_step = NULL;
		CHECK(all_ok);
		CHECK(value == 1 || value == 2);
		map_end();
	}
	CHECK(step > 2);
	return true;
}

static unsigned long writer_steps;

/* The writer is somewhere in its store: look at all there is. */
static void read_beside_writer(void)
{
	unsigned long key;

	writer_steps++;
	for (key = 0; key < PEER_KEYS; key++)
		all_ok &= run_is_old_or_new(key);
}

static bool reader_within_a_store_sees_old_or_new(void)
{
	unsigned long seed;
	struct op op;

	writer_steps = 0;
	for (seed = 1; seed <= 1500; seed++) {
		rnd_seed(seed);
		peer_begin(1 + rnd(40));
		op = random_op(&before);
		model_set(&after, op);

		all_ok = true;
		tree_writer_step = read_beside_writer;
		CHECK(set(op.start, op.end, op.value) == 0);
		tree_writer_step = NULL;
		if (!all_ok)
			printf("# seed %lu\n", seed);
		CHECK(all_ok);
		map_end();
	}
	CHECK(writer_steps > 1500 >> RM_ATTRS_BLOCK_ORDER);
	return true;
}

static bool torn_walk_is_repeated(void)
{
	struct rm_attrs_run run = { .end = 15 };
	unsigned long walks;

	map_begin();
	CHECK(set(10, 20, 1) == 0);
	walks = tree_walks;
	tree_torn_walks = 2;
	CHECK(rm_attrs_next(&map, &run, 100));
	CHECK(run.start == 15 && run.end == 20 && run.value == 1);
	/* Two torn ones, a good one, and one beyond the run's end. */
	CHECK(tree_walks - walks == 4);
	tree_torn_walks = 1;
	CHECK(rm_attrs_uniform_order(&map, 12, 6) == 2);
	map_end();
	return true;
}

/*
 * Threads. Keys below SWAP_KEYS are cut in two at a border that moves while
 * the values on both sides change in place; above, blocks come and go. For
 * each key there are values that it can never have.
 */

#define SWAP_KEYS	300UL
#define BLOCKS_START	1000UL
#define BLOCK_KEYS	16UL
#define BLOCKS		600UL
#define BLOCKS_END	(BLOCKS_START + BLOCKS * BLOCK_KEYS)
#define READERS		2
#define SECONDS		3

static bool readers_stop;

static unsigned long block_value(unsigned long key)
{
	return 1 + (key - BLOCKS_START) / BLOCK_KEYS % 5;
}

static bool possible(unsigned long key, unsigned long value)
{
	if (key < 110)
		return value == 1 || value == 3;
	if (key < 150)
		return value == 1 || value == 2;
	if (key < SWAP_KEYS)
		return value == 2;
	if (key < BLOCKS_START || key >= BLOCKS_END)
		return value == 0;
	return value == 0 || value == block_value(key);
}

static bool run_is_possible(const struct rm_attrs_run *run)
{
	unsigned long key;

	for (key = run->start; key < run->end; key++)
		CHECK(possible(key, run->value));
	return true;
}

static bool read_at_random(unsigned long *state)
{
	unsigned long all = BLOCKS_END + 100;
	struct rm_attrs_run run = { .end = rnd_from(state, all) };
	unsigned long end = run.end + rnd_from(state, 200);
	unsigned long key = rnd_from(state, 2) ? rnd_from(state, all) :
						 rnd_from(state, SWAP_KEYS);
	unsigned long at = run.end;

	CHECK(possible(key, rm_attrs_get(&map, key)));
	CHECK(rm_attrs_is_uniform(&map, 150, SWAP_KEYS, ~0UL, 2));
	CHECK(rm_attrs_uniform_order(&map, 160, 5) == 5);
	while (rm_attrs_next(&map, &run, end)) {
		CHECK(run.start == at && run.end > at && run.end <= end);
		CHECK(run_is_possible(&run));
		at = run.end;
	}
	return true;
}

static void *reader(void *arg)
{
	unsigned long state = (unsigned long)arg, reads = 0;
	bool ok = true;

	tree_thread_begin();
	while (ok && !__atomic_load_n(&readers_stop, __ATOMIC_RELAXED)) {
		ok = read_at_random(&state);
		reads++;
	}
	tree_thread_end();
	return ok ? (void *)reads : NULL;
}

static bool write_at_random(void)
{
	unsigned long block = BLOCKS_START + rnd(BLOCKS) * BLOCK_KEYS;
	unsigned long offset = rnd(BLOCK_KEYS);
	unsigned long key = block + offset;
	unsigned long end = key + 1 + rnd(BLOCK_KEYS - offset);

	CHECK(set(key, end, rnd(2) ? block_value(key) : 0) == 0);
	CHECK(set(0, 150, 1) == 0);
	CHECK(set(110, SWAP_KEYS, 2) == 0);
	CHECK(set(0, 110, 3) == 0);
	return true;
}

static bool readers_beside_a_writer(void)
{
	pthread_t thread[READERS];
	time_t stop = time(NULL) + SECONDS;
	unsigned long i, sets = 0;
	bool ok = true;
	void *reads;

	map_begin();
	rnd_seed(1);
	CHECK(set(0, 110, 3) == 0);
	CHECK(set(110, SWAP_KEYS, 2) == 0);
	__atomic_store_n(&readers_stop, false, __ATOMIC_RELAXED);
	for (i = 0; i < READERS; i++)
		CHECK(!pthread_create(&thread[i], NULL, reader,
				      (void *)(i + 1)));
	while (ok && time(NULL) < stop) {
		ok = write_at_random();
		sets += 4;
	}
	__atomic_store_n(&readers_stop, true, __ATOMIC_RELAXED);
	for (i = 0; i < READERS; i++) {
		CHECK(!pthread_join(thread[i], &reads));
		printf("# %lu sets, %lu rounds of reads\n", sets,
		       (unsigned long)reads);
		ok &= !!reads;
	}
	CHECK(ok);
	tree_validate(&map.mt);
	map_end();
	return true;
}

const struct tap_test attrs_readers_tests[] = {
	TEST(reader_beside_one_store_sees_old_or_new),
	TEST(reader_beside_two_stores_sees_no_third_value),
	TEST(reader_within_a_store_sees_old_or_new),
	TEST(torn_walk_is_repeated),
	TEST(readers_beside_a_writer),
	TEST_END
};
