// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * See model.h.
 */
#include "hugetlb.h"
#include "model.h"

struct model model;

void model_reset(void)
{
	static long pool = -1;

	if (pool < 0)
		pool = pool_count(HUGE, "free_hugepages");
	for (int i = 0; i < MEMORIES; i++)
		model.memories[i].used = false;
	memset(model.views, 0, sizeof(model) - offsetof(struct model, views));
	model.pool_free = pool < 0 ? 0 : pool * HUGE_PAGES;
}

const char *expect(const struct result *result, int error)
{
	if (result->error == error)
		return NULL;
	return text_of("result %d (%s), not %d (%s)", result->error,
		       result->error < GOT_SIGNAL ? strerror(result->error) : "-", error,
		       error < GOT_SIGNAL ? strerror(error) : "-");
}

const char *expect_words(const struct result *result, const uint64_t *words,
			 unsigned int where, uint32_t page)
{
	if (result->dirt)
		return text_of("page %u of %u has what nobody wrote", page, where);
	for (int i = 0; i < WORDS; i++)
		if (result->words[i] != words[i])
			return text_of("page %u of %u has %#llx, not %#llx, in word %d", page,
				       where, (unsigned long long)result->words[i],
				       (unsigned long long)words[i], i);
	return NULL;
}

/* Memory */

struct memory *memory_create(bool pool, bool huge, uint32_t flags)
{
	struct memory *m = model.memories;

	while (m->used)
		m++;
	memset(m, 0, sizeof(*m));
	m->used = true;
	m->pool = pool;
	m->vague = huge;
	m->flags = flags;
	return m;
}

static bool is_reserved(struct memory *m)
{
	return m->flags & RESTRICTEDMEM_CREATE_RESERVE;
}

int memory_set_size(struct memory *m, uint32_t pages)
{
	if (is_reserved(m)) {
		if (model.limit && model.charged + pages > model.limit)
			return ENOSPC;
		if (pages > model.pool_free)
			return ENOSPC;
		model.charged += pages;
		model.pool_free -= pages;
	}
	m->pages = pages;
	/* A huge page has to fit. */
	if (!m->pool && pages < HUGE_PAGES)
		m->vague = false;
	return 0;
}

/* A page is to be there. */
int memory_touch(struct memory *m, uint32_t page)
{
	uint32_t nr = m->pool ? HUGE_PAGES : 1;

	if (m->resident[page])
		return 0;
	if (!is_reserved(m)) {
		if (model.limit && model.charged + nr > model.limit)
			return ENOSPC;
		if (m->pool && model.pool_free < nr)
			return ENOSPC;
		model.charged += nr;
		if (m->pool)
			model.pool_free -= nr;
	}
	page &= -nr;
	for (uint32_t i = page; i < page + nr; i++)
		m->resident[i] = true;
	m->resident_pages += nr;
	return 0;
}

void memory_discard(struct memory *m, uint32_t start, uint32_t end)
{
	for (uint32_t i = start; i < end; i++) {
		memset(m->words[i], 0, sizeof(m->words[i]));
		if (m->held[i] && m->vague)
			m->maybe_held = true;
		if (!m->vague)
			m->held[i] = 0;
		if (!m->resident[i])
			continue;
		m->resident[i] = false;
		m->resident_pages--;
		if (is_reserved(m))
			continue;
		model.charged--;
		if (m->pool)
			model.pool_free++;
	}
}

/* Of a pool's pages none is, see get_flags() in calls_consumer.c. */
bool memory_is_held(struct memory *m, uint32_t start, uint32_t end, uint32_t *where)
{
	for (uint32_t i = start; i < end; i++)
		if (m->held[i] && m->resident[i]) {
			*where = i;
			return true;
		}
	return false;
}

void memory_apply_convert(struct memory *m, uint32_t start, uint32_t end, bool private,
			  bool zero)
{
	for (uint32_t i = start; i < end; i++) {
		if (m->shared[i] == !private)
			continue;
		m->shared[i] = !private;
		m->shared_pages += private ? -1 : 1;
		if (zero)
			memset(m->words[i], 0, sizeof(m->words[i]));
	}
}

/* Up to the first page that is held; @done is where it ends. */
int memory_convert(struct memory *m, uint32_t start, uint32_t end, bool private, bool zero,
		   uint32_t *done)
{
	uint32_t i = start;
	int error = 0;

	for (; private && i < end; i++)
		if (m->shared[i] && memory_is_held(m, i, i + 1, done)) {
			error = EAGAIN;
			break;
		}
	*done = error ? i : end;
	memory_apply_convert(m, start, *done, private, zero);
	return error;
}

static void memory_put(struct memory *m)
{
	if (--m->views)
		return;
	m->maybe_held = false;
	memory_discard(m, 0, m->pages);
	if (is_reserved(m)) {
		model.charged -= m->pages;
		model.pool_free += m->pages;
	}
	m->used = false;
}

/* Views */

struct view *view_create(struct memory *m, uint64_t owner)
{
	struct view *v = model.views;

	while (v->memory)
		v++;
	*v = (struct view) { .memory = m, .owner = owner, .claims = !!owner };
	m->views++;
	return v;
}

static void end_windows(struct view *v)
{
	for (int i = 0; i < MODEL_WINDOWS; i++)
		if (model.windows[i].view == v) {
			model.windows[i].view = NULL;
			v->memory->windows--;
		}
}

void view_put(struct view *v)
{
	if (v->fds || v->bindings)
		return;
	end_windows(v);
	memory_put(v->memory);
	v->memory = NULL;
}

void file_set(unsigned int file, struct view *v)
{
	struct view *old = model.file[file];

	if (v)
		v->fds++;
	model.file[file] = v;
	if (old) {
		old->fds--;
		view_put(old);
	}
}

/* Windows */

struct window *model_window_create(struct view *v, uint32_t start, uint32_t end, bool write)
{
	struct window *w = model.windows;

	while (w->users)
		w++;
	*w = (struct window) {
		.view = v,
		.memory = v->memory,
		.start = start,
		.end = end,
		.write = write,
	};
	v->memory->windows++;
	return w;
}

void model_window_put(struct window *w)
{
	if (--w->users || !w->view)
		return;
	w->view->memory->windows--;
	w->view = NULL;
}

void model_window_set(unsigned int window, struct window *w)
{
	struct window *old = model.window[window];

	if (w)
		w->users++;
	model.window[window] = w;
	if (old)
		model_window_put(old);
}

void model_unmap(unsigned int map, uint32_t start, uint32_t count)
{
	struct mapped *p = model.map[map];
	uint32_t area = start ? p[start - 1].area : 0;

	for (uint32_t i = start; i < start + count; i++) {
		if (p[i].window)
			model_window_put(p[i].window);
		p[i] = (struct mapped) {};
	}
	/* What is left of an area that is cut through are two. */
	if (!area || start + count >= MAX_PAGES || p[start + count].area != area)
		return;
	model.areas++;
	for (uint32_t i = start + count; i < MAX_PAGES && p[i].area == area; i++)
		p[i].area = model.areas;
}

/* Bindings */

int model_may_bind(struct view *v, uint32_t start, uint32_t count, uint64_t owner)
{
	struct memory *m;

	if (!v)
		return EBADF;
	m = v->memory;
	if (!count || start + count > m->pages)
		return EINVAL;
	if (v->owner && v->owner != owner)
		return EPERM;
	if (!(m->flags & RESTRICTEDMEM_CREATE_VIEWS) && m->bindings != v->bindings)
		return EBUSY;
	if (m->flags & RESTRICTEDMEM_CREATE_ALIASES)
		return 0;
	for (int i = 0; i < BINDINGS + SLOTS; i++) {
		struct bound *b = &model.bound[i];

		/* Who owns a view now counts, not who did. */
		if (b->view && b->view->memory == m && b->view->owner == owner &&
		    b->start < start + count && start < b->end)
			return EEXIST;
	}
	return 0;
}

void model_bind(struct bound *b, struct view *v, uint32_t start, uint32_t count,
		uint64_t owner)
{
	memset(b, 0, sizeof(*b));
	b->view = v;
	b->owner = owner;
	b->start = start;
	b->end = start + count;
	v->owner = owner;
	v->claims++;
	v->bindings++;
	v->memory->bindings++;
}

void model_unbind(struct bound *b, bool cancel)
{
	struct view *v = b->view;
	struct memory *m = v->memory;

	for (uint32_t i = b->start; i < b->end; i++)
		if (b->held[i] == 1 && m->held[i])
			m->held[i]--;
	b->view = NULL;
	v->bindings--;
	m->bindings--;
	if (cancel && !--v->claims)
		v->owner = 0;
	view_put(v);
}
