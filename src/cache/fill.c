/* SPDX-License-Identifier: MIT */
/* Reading: from a unit that is missing to a folio that is uptodate, once, however many want it. */
#include "cache/internal.h"

int unit_alloc(struct cache_mapping *m, uint64_t unit, bool wait, struct folio **ret)
{
	struct cache *c = m->cache;
	unsigned bytes, pages;
	uint32_t frame, outside;
	int r;

	bytes = mapping_unit_bytes(m, unit, &r);
	if (r < 0)
		return r;
	pages = (unsigned)DIV_ROUND_UP(bytes, CACHE_PAGE_SIZE);
	r = outside_get(m, (unit << m->order) + pages, &outside);
	if (r < 0)
		return r;
	frame = memory_alloc(c, pages, m->order, outside, wait);
	if (frame == FRAME_NONE) {
		outside_put(c, outside);
		return -ENOMEM;
	}
	/* One reference for the mapping, one for the caller. */
	*ret = folio_init(c, frame, pages, 2, m->number, unit, bytes, outside);
	return 0;
}

void unit_discard(struct cache *c, struct folio *f)
{
	a32_fetch_or(&f->flags, FOLIO_DETACHED);
	folio_unlock(f);
	folio_put(c, f);
	folio_put(c, f);
}

/* R13: a short read is a failed one. (-ESTALE would mean to us that it has left the file meanwhile.) */
static int fill_error(const struct folio *f, const struct cache_fill *fill)
{
	return fill->error == -ESTALE ? -EIO : fill->error < 0 ? fill->error : fill->len != f->len ? -EIO : 0;
}

int unit_complete(struct cache_mapping *m, struct folio *f, const struct cache_fill *fill)
{
	struct cache *c = m->cache;
	int error = fill_error(f, fill);

	if (error == 0) {
		memset(folio_data(c, f) + f->len, 0, ((size_t)f->pages << CACHE_PAGE_SHIFT) - f->len);
		if (!mapping_publish(m, f))
			error = -ESTALE;
	}
	if (error < 0) {
		/* R13: nothing of it is left; who waits reads why. */
		if (error != -ESTALE)
			counter_inc(c, pgpgin_error);
		f->error = error;
		mapping_remove(m, f);
		a32_fetch_or(&f->flags, FOLIO_FAILED);
	} else {
		counter_inc(c, pgpgin);
		queue_add(c, f, QUEUE_YOUNG);
	}
	assert_folio_state(c, f);
	folio_unlock(f);
	if (error < 0)
		folio_put(c, f); /* the mapping's */
	memory_event(c);
	return error;
}

int unit_read(struct cache_mapping *m, struct folio *f)
{
	struct cache_fill fill = {.data = folio_data(m->cache, f), .len = f->len};
	int r;

	sync_may_sleep("I/O");
	trace_event(&m->cache->trace, read_begin, f->unit, 1);
	m->ops->read(m->owner, f->unit, 1, &fill);
	r = unit_complete(m, f, &fill);
	trace_event(&m->cache->trace, read_end, f->unit, -r);
	if (r < 0)
		folio_put(m->cache, f);
	return r;
}

int unit_fill(struct cache_mapping *m, struct folio *f)
{
	_cleanup_mem_ uint8_t *copy = mem_alloc((size_t)f->pages << CACHE_PAGE_SHIFT);
	struct cache_fill fill = {.data = copy, .len = f->len};
	struct cache *c = m->cache;
	int r;

	if (!copy)
		return -ENOMEM;
	assert_folio_state(c, f);
	mapping_read_begin(m, f);
	sync_may_sleep("I/O");
	trace_event(&c->trace, read_begin, f->unit, 1);
	m->ops->read(m->owner, f->unit, 1, &fill);
	r = fill_error(f, &fill);
	trace_event(&c->trace, read_end, f->unit, -r);
	if (r < 0) {
		/* R13. What was written into the other pages stays. */
		counter_inc(c, pgpgin_error);
		return r;
	}
	for (unsigned i = 0; i < f->pages; i++) {
		size_t at = (size_t)i << CACHE_PAGE_SHIFT;

		if (!(a32_read(&f[i].state) & PAGE_UPTODATE))
			memcpy(folio_data(c, f) + at, copy + at, CACHE_PAGE_SIZE);
	}
	if (!mapping_publish(m, f))
		return -ESTALE;
	counter_inc(c, pgpgin);
	assert_folio_state(c, f);
	return 0;
}

static bool page_ready(const struct folio *f, int page)
{
	return a32_read_acquire(&f->flags) & FOLIO_UPTODATE ||
		(page >= 0 && page < f->pages && a32_read_acquire(&f[page].state) & PAGE_UPTODATE);
}

/*
 * Waits until a folio that another thread reads is done; reads what is missing of one that was written in part, unless
 * only `page` is wanted, and is there. On failure the reference is gone. -ESTALE: look again.
 */
static int unit_wait(struct cache_mapping *m, struct folio *f, int page)
{
	int r = 0;

	counter_inc(m->cache, cache_wait);
	folio_lock(f);
	if (a32_read(&f->flags) & FOLIO_FAILED)
		r = f->error;
	else if (!folio_attached(f, m))
		r = -ESTALE;
	else if (!page_ready(f, page))
		r = unit_fill(m, f);
	folio_unlock(f);
	if (r < 0)
		folio_put(m->cache, f);
	return r;
}

/* Puts in a new folio: *ret_there is NULL; or finds one that has come meanwhile: *ret is discarded. -EAGAIN: as mapping_insert(). */
static int unit_insert(struct cache_mapping *m, uint64_t unit, struct folio **ret, struct folio **ret_there)
{
	struct folio *f, *there = NULL;
	struct cache *c = m->cache;
	unsigned nodes;
	int r = unit_alloc(m, unit, true, &f);

	if (r < 0)
		return r;
	r = index_reserve(&c->nodes, &nodes);
	if (r == 0) {
		r = mapping_insert(m, f, &nodes, &there);
		index_unreserve(&c->nodes, nodes);
	}
	if (r < 0 || there)
		unit_discard(c, f);
	if (r < 0)
		return r;
	*ret = f;
	*ret_there = there;
	return 0;
}

int unit_find(struct cache_mapping *m, uint64_t unit, struct folio **ret, bool *ret_new)
{
	struct folio *f = mapping_find(m, unit), *there;
	int r;

	*ret_new = false;
	if (f) {
		*ret = f;
		return 0;
	}
	flusher_start(m->cache);
	do {
		r = unit_insert(m, unit, &f, &there);
	} while (r == -EAGAIN);
	if (r < 0)
		return r;
	*ret = there ? there : f;
	*ret_new = !there;
	return 0;
}

/* Soon after it came it is used by whoever it came for: by one program, file for file, or page for page. */
static bool on_probation(const struct cache *c, const struct folio *f, uint32_t flags)
{
	return CACHE_YOUNG_WINDOW && flags & (FOLIO_YOUNG | FOLIO_COLD) &&
		a32_read(&c->came) - a32_read(&f->came) < a32_read(&c->young_window);
}

bool note_use(struct cache *c, struct folio *f)
{
	uint32_t flags = a32_read(&f->flags);
	bool marker = flags & FOLIO_MARKER;

	if (flags & FOLIO_AHEAD) {
		counter_inc(c, pgreadahead_used);
		a32_fetch_and(&f->flags, ~(uint32_t)(FOLIO_AHEAD | FOLIO_MARKER));
	} else {
		if (marker)
			a32_fetch_and(&f->flags, ~(uint32_t)FOLIO_MARKER);
		/* Written once, read often: the word stays in every processor's cache. */
		if (!(flags & FOLIO_VISITED) && !on_probation(c, f, flags))
			a32_fetch_or(&f->flags, FOLIO_VISITED);
	}
	return marker;
}

/* What a trace says of a use of the folio. */
static inline uint64_t use(const struct cache_mapping *m, const struct folio *f, unsigned run, unsigned what)
{
	return trace_use_pack((struct trace_use){.mapping = m->number, .run = run, .pages = f->pages, .what = what});
}

/* page: of the unit, the only one that is wanted; or -1. */
static int get(struct cache_mapping *m, uint64_t unit, unsigned run, int page, struct folio **ret)
{
	struct cache *c = m->cache;
	struct folio *f;
	bool new;
	int r;

	do {
		r = unit_find(m, unit, &f, &new);
		if (r < 0)
			return r;
		if (new) {
			/* First the threads that read ahead, then our own unit: they work at the same time. */
			counter_inc(c, cache_miss);
			trace_event(&c->trace, access, unit, use(m, f, run, TRACE_MISSED));
			readahead_access(m, unit, run);
			r = unit_read(m, f);
		} else {
			bool ready = page_ready(f, page);

			trace_event(&c->trace, access, unit, use(m, f, run, ready ? TRACE_HIT : TRACE_WAITED));
			if (ready)
				counter_inc(c, cache_hit);
			if (note_use(c, f))
				readahead_access(m, unit, run);
			if (!ready)
				r = unit_wait(m, f, page);
		}
		/* It left while it was being read, or right after that. */
		if (r == -ESTALE)
			mapping_cut_wait(m, unit);
	} while (r == -ESTALE);
	if (r == 0)
		*ret = f;
	return r;
}

int cache_get_run(struct cache_mapping *m, uint64_t unit, unsigned run, struct cache_ref *ret)
{
	struct folio *f;
	int r = get(m, unit, run, -1, &f);

	if (r == 0)
		*ret = (struct cache_ref){.data = folio_data(m->cache, f), .len = f->len, .folio = f};
	return r;
}

int cache_get(struct cache_mapping *m, uint64_t unit, struct cache_ref *ret)
{
	return cache_get_run(m, unit, 1, ret);
}

void cache_put(struct cache_mapping *m, struct cache_ref *ref, enum cache_hint hint)
{
	struct folio *f = ref->folio;

	if (!f)
		return;
	trace_event(&m->cache->trace, put, f->unit, use(m, f, 0, hint));
	if (hint == CACHE_COLD && !(a32_read(&f->flags) & FOLIO_COLD)) {
		a32_fetch_and(&f->flags, ~(uint32_t)FOLIO_VISITED);
		queue_add(m->cache, f, QUEUE_COLD);
	}
	folio_put(m->cache, f);
	*ref = (struct cache_ref){0};
}

int cache_page_get(struct cache_mapping *m, uint64_t page, struct folio **ret)
{
	int place = (int)(page & ((1u << m->order) - 1)), r;
	struct folio *f;

	if (page >= DIV_ROUND_UP(cache_size(m), CACHE_PAGE_SIZE))
		return -EFAULT;
	r = get(m, page >> m->order, 1, place, &f);
	if (r < 0)
		return r;
	/* A unit may end before its file does, where the owner says so. */
	if (place >= f->pages) {
		folio_put(m->cache, f);
		memory_event(m->cache);
		return -EFAULT;
	}
	*ret = f;
	return 0;
}

struct folio *cache_page_find(struct cache_mapping *m, uint64_t page)
{
	struct folio *f = mapping_find(m, page >> m->order);

	if (f && page - folio_first_page(m, f) >= f->pages) {
		folio_put(m->cache, f);
		f = NULL;
	}
	return f;
}
