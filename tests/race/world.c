// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * A world: made, looked over when nobody acts, and ended.
 *
 * When it is looked over, each half of each page is told anew what it is, by who
 * may write there, and a guest reads all of it: first as the actors have left it,
 * then with all pages shared, then with all private. A mapping that has outlived
 * its page, or shows the other half, reads something else.
 */
#include "race.h"

#define TABLES_2G	(GUEST_TABLES + 4 * PAGE)	/* see build_tables() */

const struct store stores[] = {
	{ "small", RESTRICTEDMEM_STORE_SHMEM, RESTRICTEDMEM_THP_NEVER, PAGE },
	{ "huge", RESTRICTEDMEM_STORE_SHMEM, RESTRICTEDMEM_THP_ALWAYS, PAGE },
	{ "pool", RESTRICTEDMEM_STORE_HUGETLB, RESTRICTEDMEM_THP_DEFAULT, HUGE },
	{ NULL },
};

static int memory_create(const struct store *store, uint32_t flags)
{
	const struct restrictedmem_create args = {
		.size = sizeof(args),
		.flags = flags,
		.length = SIZE,
		.page_size = store->granule,
		.store = store->store,
		.thp = store->thp,
	};
	int fd = create_with(&args);

	CHECK(fd >= 0);
	return fd;
}

/* New loose memory, all of it shared, and its window. */
int loose_make(int *fd, int *window, const struct store *store)
{
	*fd = memory_create(store, RESTRICTEDMEM_CREATE_IN_PLACE);
	*window = open_window(*fd, 0, SIZE, RESTRICTEDMEM_WINDOW_WRITE);
	CHECK(*window >= 0);
	return convert(*fd, 0, SIZE, SHARED, ZERO);
}

/* One of the two slots, of any VM. */
void world_add_slot(struct world *w, struct vm *vm, int slot, const int *fds)
{
	bool split = slot == SPLIT_SLOT;

	CHECK(!vm_region2(vm, slot, KVM_MEM_GUEST_MEMFD,
			  split ? DATA : DATA + SIZE, SIZE,
			  split ? w->user : NULL, fds[!split], 0));
}

int world_set_attributes(struct world *w, uint64_t page, uint64_t pages,
			 bool private)
{
	return vm_set_private(&w->vm, DATA + page * PAGE, pages * PAGE, private);
}

/* Of memory in place, with zeros. */
int world_convert(struct world *w, uint64_t page, uint64_t pages, bool private)
{
	int r;

	if (page < LOOSE)
		return convert(w->fds[1], (page - IN_PLACE) * PAGE, pages * PAGE,
			       private ? PRIVATE : SHARED, ZERO);
	pthread_rwlock_rdlock(&w->loose_lock);
	r = convert(w->loose, (page - LOOSE) * PAGE, pages * PAGE,
		    private ? PRIVATE : SHARED, ZERO);
	pthread_rwlock_unlock(&w->loose_lock);
	return r;
}

/* The page at entry @i of the guest's table */
static uint64_t table_entry(uint64_t i)
{
	uint64_t page = i % 2 ? IN_PLACE + i : i;

	return (DATA + page * PAGE) | 3;
}

static void write_table(struct world *w)
{
	uint64_t table[WORDS];

	for (int i = 0; i < WORDS; i++)
		table[i] = table_entry(i);
	CHECK(!write_data(w->consumer, w->ids[0], TABLE_PAGE * PAGE, table, PAGE));
	memcpy(shared_page(w, TABLE_PAGE), table, PAGE);
	*(uint64_t *)(w->vm.boot + TABLES_2G) = (DATA + TABLE_PAGE * PAGE) | 3;
}

static void make_memory(struct world *w)
{
	for (int i = 0; i < 2; i++) {
		w->fds[i] = memory_create(w->store, RESTRICTEDMEM_CREATE_VIEWS |
					  (i ? RESTRICTEDMEM_CREATE_IN_PLACE : 0));
		w->views[i] = link_view(w->fds[i]);
		CHECK(w->views[i] >= 0);
		w->ids[i] = bind_range(w->consumer, w->views[i], 0, PAGES);
		CHECK(w->ids[i] > 0);
	}
	w->user = map_anonymous(SIZE);
	madvise(w->user, SIZE, w->huge_user ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
	w->window = open_window(w->fds[1], 0, SIZE, RESTRICTEDMEM_WINDOW_WRITE);
	CHECK(w->window >= 0);
	w->map = map_window(w->window, SIZE, PROT_READ | PROT_WRITE);
	CHECK(w->map != MAP_FAILED);
	CHECK(!loose_make(&w->loose, &w->loose_window, w->store));
	w->loose_map = map_window(w->loose_window, SIZE, PROT_READ | PROT_WRITE);
	CHECK(w->loose_map != MAP_FAILED);
}

void world_make(struct world *w, const struct store *store, uint64_t id)
{
	w->store = store;
	w->id = id;
	/* Either half may be in huge pages where the other is not. */
	w->huge_user = id % 4;
	pthread_rwlock_init(&w->loose_lock, NULL);
	w->consumer = consumer_open();
	CHECK(w->consumer >= 0);
	make_memory(w);
	vm_create(&w->vm, KVM_X86_SW_PROTECTED_VM);
	world_add_slot(w, &w->vm, SPLIT_SLOT, w->fds);
	world_add_slot(w, &w->vm, IN_PLACE_SLOT, w->fds);
	write_table(w);
	vcpu_create(&w->vm, &w->looker, w->nr_vcpus++);
}

/* Who may write there says what the page is. */
static void tell_shared(struct world *w, uint64_t first)
{
	for (uint64_t page = first; page < first + PAGES; page++) {
		uint64_t *words = (uint64_t *)shared_page(w, page);

		if (page != TABLE_PAGE &&
		    write_at(words + HOST_WORDS,
			     identity(BY_HOST, w->id, page, w->generation)))
			fail(w, "page %lu is shared, but not to be had",
			     (unsigned long)page);
	}
}

static void tell_consumer(struct world *w, int memory, int word, uint64_t kind)
{
	for (uint64_t i = 0; i < PAGES; i++) {
		uint64_t page = memory * PAGES + i;
		uint64_t value = identity(kind, w->id, page, w->generation);

		if (page != TABLE_PAGE &&
		    write_data(w->consumer, w->ids[memory], i * PAGE + word * 8,
			       &value, 8))
			fail(w, "the consumer cannot write to page %lu: %m",
			     (unsigned long)page);
	}
}

/* Errors go with their pages, but for the guest's table. */
static void mend(struct world *w)
{
	if (punch(w->fds[0], 0, TABLE_PAGE * PAGE) ||
	    punch(w->fds[0], HUGE, SIZE - HUGE) || punch(w->fds[1], 0, SIZE) ||
	    punch(w->loose, 0, SIZE))
		fail(w, "punch: %m");
}

/* Nobody holds anything any more, but what was let go may take a moment. */
static void set_all(struct world *w, bool private)
{
	int tries = 20;

	while (world_set_attributes(w, 0, GUEST_PAGES, private)) {
		if (errno == EAGAIN && tries--) {
			sleep_ms(5);
			continue;
		}
		fail(w, "to make all pages %s: %m", private ? "private" : "shared");
		return;
	}
}

static void check_all_hidden(struct world *w)
{
	uint64_t value;

	for (uint64_t page = IN_PLACE; page < LOOSE; page++)
		if (!look_at(shared_page(w, page), &value))
			fail(w, "page %lu is private, and is seen through the window",
			     (unsigned long)page);
}

/*
 * Nobody acts. @whole: not only as they were left; it leaves all pages private,
 * and secrets in them.
 */
void world_settle(struct world *w, bool whole)
{
	w->generation++;
	if (w->tolerates & MAKES_ERRORS)
		mend(w);
	/* As they were left */
	tell_shared(w, SPLIT);
	tell_consumer(w, 0, SECRET_WORDS, SECRET);
	tell_consumer(w, 1, GUEST_WORDS, BY_GUEST);
	guest_scan(w, 0);
	if (violations(w->consumer))
		fail(w, "promises to the consumer were broken: %d",
		     violations(w->consumer));
	if (!whole || w->failed)
		return;

	set_all(w, false);
	w->generation++;
	tell_shared(w, SPLIT);
	tell_shared(w, IN_PLACE);
	guest_scan(w, BY_HOST);

	set_all(w, true);
	w->generation++;
	check_all_hidden(w);
	tell_consumer(w, 0, SECRET_WORDS, SECRET);
	tell_consumer(w, 1, SECRET_WORDS, SECRET);
	guest_scan(w, SECRET);
}

void world_end(struct world *w)
{
	vcpu_destroy(&w->looker);
	vm_destroy(&w->vm);
	close(w->consumer);
	munmap(w->map, SIZE);
	munmap(w->loose_map, SIZE);
	close(w->window);
	close(w->loose_window);
	close(w->loose);
	for (int i = 0; i < 2; i++) {
		close(w->views[i]);
		close(w->fds[i]);
	}
	munmap(w->user, SIZE);
}

static void check_word(struct player *p, uint64_t page, int word, uint64_t value)
{
	if (KIND(value) == SECRET)
		fail(p->world, "%s sees a secret at word %d of page %lu: %#lx",
		     p->actor->name, word, (unsigned long)page, (unsigned long)value);
	else if (!is_legal(value, p->world->id, page))
		fail(p->world, "%s sees what is not of page %lu at word %d: %#lx",
		     p->actor->name, (unsigned long)page, word, (unsigned long)value);
}

/* What a process sees of a page, if it does. */
void check_shared(struct player *p, uint64_t page, const void *at)
{
	static const int words[] = { GUEST_WORDS, HOST_WORDS, SECRET_WORDS };
	const uint64_t *first = at;
	uint64_t value;

	for (int i = 0; page != TABLE_PAGE && i < 3; i++) {
		int word = words[i] + roll(p) % IN_USE;

		if (look_at(first + word, &value))
			return;
		check_word(p, page, word, value);
	}
}

/* What has come out of a page that was held. */
void check_sink(struct player *p, uint64_t page, const uint64_t *words)
{
	for (int i = 0; page != TABLE_PAGE && i < WORDS; i++)
		if (words[i])
			check_word(p, page, i, words[i]);
}
