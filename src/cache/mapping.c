/* SPDX-License-Identifier: MIT */
/* Mappings: which folios a file has, which of them are dirty, and who maps them. */
#include "cache/internal.h"

/* In `users`: cache_mapping_free() waits for them. */
#define USERS_WAITER (1u << 31)

/* ---- the table of mappings ---- */

/* A number for the mapping. The lock is the last in the order: nothing is allocated under it. */
static int number_take(struct cache *c, struct cache_mapping *m)
{
	for (;;) {
		struct cache_mapping **larger, **old = NULL;
		size_t size = 0, want;

		mutex_lock(&c->mappings_lock);
		for (size_t i = 1; i < c->mappings_size; i++) {
			size_t no = 1 + (c->mappings_hint + i - 1) % (c->mappings_size - 1);

			if (c->mappings[no])
				continue;
			c->mappings[no] = m;
			c->mappings_hint = (uint32_t)no;
			m->number = (uint32_t)no;
			mutex_unlock(&c->mappings_lock);
			return 0;
		}
		size = c->mappings_size;
		mutex_unlock(&c->mappings_lock);

		want = MAX(2 * size, (size_t)16);
		larger = mem_alloc(want * sizeof(*larger));
		if (!larger)
			return -ENOMEM;
		mutex_lock(&c->mappings_lock);
		if (c->mappings_size < want) {
			if (c->mappings_size)
				memcpy(larger, c->mappings, c->mappings_size * sizeof(*larger));
			old = c->mappings;
			c->mappings = larger;
			c->mappings_size = want;
		} else {
			old = larger;
		}
		mutex_unlock(&c->mappings_lock);
		mem_free(old);
	}
}

int cache_mapping_new(struct cache *c, const struct cache_ops *ops, void *owner, uint32_t unit_size, uint64_t size,
	unsigned flags, struct cache_mapping **ret)
{
	struct cache_mapping *m;
	size_t limit, high;
	unsigned order;
	int r;

	assert(is_power_of_two(unit_size) && unit_size >= CACHE_PAGE_SIZE &&
		unit_size <= CACHE_PAGE_SIZE << CACHE_ORDER_MAX);
	m = mem_alloc(sizeof(*m));
	if (!m)
		return -ENOMEM;
	m->cache = c;
	m->ops = ops;
	m->owner = owner;
	m->unit_size = unit_size;
	m->order = arena_order(unit_size);
	m->flags = flags;
	a64_set(&m->size, size);
	r = number_take(c, m);
	if (r < 0) {
		mem_free(m);
		return r;
	}
	mutex_init(&m->lock, LOCK_INDEX);
	mutex_init(&m->rmap_lock, LOCK_RMAP);
	mutex_init(&m->stream_lock, LOCK_READAHEAD);
	arena_raise_limit(&c->arena, 8u * (size_t)unit_size);
	limit = arena_limit(&c->arena);
	high = arena_high(&c->arena);
	mutex_lock(&c->reserve_lock);
	order = a32_read(&c->max_order);
	/*
	 * Reservations count in units of the largest size. What may become dirty, and then perhaps can't be written, is
	 * promised to nobody: where that has smaller units, it doesn't lie in the arena's high zone, of which all else can go.
	 */
	if (m->order > order || !c->reserve_total || (ops->mkwrite && !c->writable)) {
		unsigned total;

		c->writable |= ops->mkwrite != NULL;
		order = MAX(order, m->order);
		a32_set(&c->max_order, order);
		/* No unit lies in both zones. */
		total = (unsigned)(high >> (order + CACHE_PAGE_SHIFT));
		if (!c->writable)
			total += (unsigned)((limit - high) >> (order + CACHE_PAGE_SHIFT));
		reclaim_set_shares(c, (uint32_t)(arena_limit(&c->arena) >> CACHE_PAGE_SHIFT), 1u << order);
		c->reserve_free += (int64_t)total - c->reserve_total;
		c->reserve_total = total;
		/* Who waits for more than there is now has to hear of that. */
		cond_broadcast(&c->reserve_freed);
	}
	mutex_unlock(&c->reserve_lock);
	*ret = m;
	return 0;
}

/* Those that have dirty pages are in a list, which may have some that have none any more. Under mappings_lock. */

static void dirty_unlink(struct cache *c, struct cache_mapping *m)
{
	if (!m->dirty_listed)
		return;
	*(m->dirty_prev ? &m->dirty_prev->dirty_next : &c->dirty_first) = m->dirty_next;
	*(m->dirty_next ? &m->dirty_next->dirty_prev : &c->dirty_last) = m->dirty_prev;
	m->dirty_prev = m->dirty_next = NULL;
	m->dirty_listed = false;
	c->dirty_mappings--;
}

static void dirty_append(struct cache *c, struct cache_mapping *m)
{
	m->dirty_prev = c->dirty_last;
	*(m->dirty_prev ? &m->dirty_prev->dirty_next : &c->dirty_first) = m;
	c->dirty_last = m;
	m->dirty_listed = true;
	c->dirty_mappings++;
}

/* After its count has become more than nothing: whoever found nothing before that, and took it off the list, came before us. */
static void dirty_note(struct cache_mapping *m)
{
	struct cache *c = m->cache;

	mutex_lock(&c->mappings_lock);
	if (!m->dirty_listed)
		dirty_append(c, m);
	mutex_unlock(&c->mappings_lock);
}

size_t mapping_count_dirty(struct cache *c)
{
	size_t n;

	mutex_lock(&c->mappings_lock);
	n = c->dirty_mappings;
	mutex_unlock(&c->mappings_lock);
	return n;
}

void cache_mapping_free(struct cache_mapping *m)
{
	struct cache *c;
	uint32_t users;

	if (!m)
		return;
	c = m->cache;
	readahead_forget(m);
	mutex_lock(&c->mappings_lock);
	m->ending = true;
	mutex_unlock(&c->mappings_lock);
	while ((users = a32_fetch_or(&m->users, USERS_WAITER) | USERS_WAITER) != USERS_WAITER)
		a32_wait(&m->users, users);
	mapping_drop(m);
	assert(!m->rmaps && !m->folios && !a64_read(&m->dirty));
	mutex_lock(&c->mappings_lock);
	dirty_unlink(c, m);
	c->mappings[m->number] = NULL;
	mutex_unlock(&c->mappings_lock);
	outside_leave(c, a32_read(&m->outside));
	outside_leave(c, m->outside_old);
	mutex_destroy(&m->stream_lock);
	mutex_destroy(&m->rmap_lock);
	mutex_destroy(&m->lock);
	mem_free(m);
}

struct cache_mapping *mapping_next_dirty(struct cache *c)
{
	struct cache_mapping *m, *next;

	mutex_lock(&c->mappings_lock);
	for (m = c->dirty_first; m; m = next) {
		next = m->dirty_next;
		if (!a64_read(&m->dirty))
			dirty_unlink(c, m);
		else if (!m->ending)
			break;
	}
	if (m) {
		/* The next time another one's turn comes first. */
		dirty_unlink(c, m);
		dirty_append(c, m);
		a32_fetch_add(&m->users, 1);
	}
	mutex_unlock(&c->mappings_lock);
	return m;
}

void mapping_put(struct cache_mapping *m)
{
	/* The last word on the mapping: after it, it may be gone. (To wake nobody at an address is allowed.) */
	if (a32_fetch_add(&m->users, (uint32_t)-1) & USERS_WAITER)
		a32_wake(&m->users, UINT32_MAX);
}

bool cache_mapping_dirty(const struct cache_mapping *m)
{
	return m && (a64_read(&m->dirty) || a32_read(&m->writers));
}

uint64_t cache_size(struct cache_mapping *m)
{
	return a64_read_acquire(&m->size);
}

unsigned mapping_unit_bytes(struct cache_mapping *m, uint64_t unit, int *ret_error)
{
	int n = m->ops->size ? m->ops->size(m->owner, unit) : (int)m->unit_size;

	*ret_error = n < 0 ? n : n == 0 || (unsigned)n > m->unit_size ? -EIO : 0;
	return *ret_error ? 0 : (unsigned)n;
}

/* ---- the index ---- */

struct folio *mapping_find(const struct cache_mapping *m, uint64_t unit)
{
	const struct cache *c = m->cache;

	for (;;) {
		uint32_t frame = index_find(&c->nodes, &m->index, unit);
		struct folio *f;

		if (frame == FRAME_NONE || frame >= c->arena.capacity)
			return NULL;
		f = folio_at(c, frame);
		if (!folio_try_get(f))
			return NULL; /* it is leaving */
		/* Only now it can't become anything else. */
		if (f->mapping == m->number && f->unit == unit)
			return f;
		folio_put(m->cache, f);
		/* It had become another one before we got it: then the slot has changed, too, or is about to. */
		if (index_find(&c->nodes, &m->index, unit) == frame)
			return NULL;
	}
}

/*
 * The folio of an entry of the index, with a reference. False: it is frozen, and its bytes are on their way out of memory that it has
 * outside (mapping_evict()); the lock is dropped, and taken again when that may be over: look again.
 */
static bool entry_get_locked(struct cache_mapping *m, uint32_t frame, struct folio **ret)
{
	struct folio *f = folio_at(m->cache, frame);

	/* The mapping's own reference keeps all others while we hold the lock. */
	if (folio_try_get(f)) {
		*ret = f;
		return true;
	}
	mutex_unlock(&m->lock);
	folio_wait_unlocked(f);
	mutex_lock(&m->lock);
	return false;
}

int mapping_insert(struct cache_mapping *m, struct folio *f, unsigned *nodes, struct folio **ret_there)
{
	struct cache *c = m->cache;
	struct folio *there = NULL;
	uint32_t frame;
	int r = 0;

	mutex_lock(&m->lock);
	do {
		frame = index_find(&c->nodes, &m->index, f->unit);
	} while (frame != FRAME_NONE && !entry_get_locked(m, frame, &there));
	if (frame == FRAME_NONE && f->outside != a32_read(&m->outside)) {
		r = -EAGAIN;
	} else if (frame == FRAME_NONE) {
		f->cuts = m->cuts - m->cutting;
		index_insert_locked(&c->nodes, &m->index, f->unit, folio_no(c, f), nodes);
		m->folios++;
	}
	mutex_unlock(&m->lock);
	if (r == 0)
		*ret_there = there;
	return r;
}

bool mapping_grow_absent(struct cache_mapping *m, uint64_t unit, bool unless, uint64_t size)
{
	struct cache *c = m->cache;
	struct folio *there = NULL;
	uint32_t frame = FRAME_NONE;

	mutex_lock(&m->lock);
	do {
		frame = unless ? index_find(&c->nodes, &m->index, unit) : FRAME_NONE;
	} while (frame != FRAME_NONE && !entry_get_locked(m, frame, &there));
	if (frame == FRAME_NONE)
		a64_set_release(&m->size, size);
	mutex_unlock(&m->lock);
	if (there)
		folio_put(c, there);
	return frame == FRAME_NONE;
}

/* ---- pages that leave while others are being read ---- */

static bool cut_meets(const struct cache_mapping *m, uint64_t unit)
{
	return unit << m->order < m->cut_end && (unit + 1) << m->order > m->cut_first;
}

void mapping_read_begin(struct cache_mapping *m, struct folio *f)
{
	mutex_lock(&m->lock);
	f->cuts = m->cuts - m->cutting;
	mutex_unlock(&m->lock);
}

bool mapping_publish(struct cache_mapping *m, struct folio *f)
{
	uint32_t since;
	bool fresh;

	mutex_lock(&m->lock);
	since = m->cuts - f->cuts;
	fresh = !since || (since == 1 && !cut_meets(m, f->unit));
	if (fresh) {
		for (unsigned i = 0; i < f->pages; i++)
			a32_fetch_or(&f[i].state, PAGE_UPTODATE);
		a32_fetch_or(&f->flags, FOLIO_UPTODATE);
	}
	mutex_unlock(&m->lock);
	return fresh;
}

void mapping_cut_begin(struct cache_mapping *m, uint64_t first, uint64_t end)
{
	mutex_lock(&m->lock);
	assert(!m->cutting);
	m->cuts++;
	m->cutting = true;
	m->cut_first = first;
	m->cut_end = end;
	mutex_unlock(&m->lock);
}

void mapping_cut_end(struct cache_mapping *m)
{
	mutex_lock(&m->lock);
	m->cutting = false;
	mutex_unlock(&m->lock);
	a32_fetch_add(&m->cut_done, 1);
	a32_wake(&m->cut_done, UINT32_MAX);
}

void mapping_cut_wait(struct cache_mapping *m, uint64_t unit)
{
	for (;;) {
		uint32_t seen = a32_read_acquire(&m->cut_done);
		bool wait;

		mutex_lock(&m->lock);
		wait = m->cutting && cut_meets(m, unit);
		mutex_unlock(&m->lock);
		if (!wait)
			return;
		a32_wait(&m->cut_done, seen);
	}
}

void mapping_remove(struct cache_mapping *m, struct folio *f)
{
	struct cache *c = m->cache;
	unsigned dirty = 0;

	assert(folio_attached(f, m));
	for (unsigned i = 0; i < f->pages; i++)
		dirty += !!(a32_fetch_and(&f[i].state, ~(uint32_t)PAGE_DIRTY) & PAGE_DIRTY);
	outside_clear(m, f);
	mutex_lock(&m->lock);
	index_remove_locked(&c->nodes, &m->index, f->unit);
	m->folios--;
	a64_fetch_add(&m->dirty, 0 - (uint64_t)dirty);
	mutex_unlock(&m->lock);
	if (dirty)
		a64_fetch_add(&c->dirty, 0 - (uint64_t)dirty);
	a32_fetch_or(&f->flags, FOLIO_DETACHED);
	queue_remove(c, f);
}

bool mapping_evict(struct cache_mapping *m, struct folio *f)
{
	bool frozen;

	mutex_lock(&m->lock);
	frozen = folio_freeze(f, 2);
	if (frozen && f->outside) {
		/* Whoever wants the unit waits for our lock on the folio. */
		mutex_unlock(&m->lock);
		outside_clear(m, f);
		mutex_lock(&m->lock);
	}
	if (frozen) {
		index_remove_locked(&m->cache->nodes, &m->index, f->unit);
		m->folios--;
	}
	mutex_unlock(&m->lock);
	if (frozen) {
		a32_fetch_or(&f->flags, FOLIO_DETACHED);
		queue_remove(m->cache, f);
	}
	return frozen;
}

struct folio *mapping_next(struct cache_mapping *m, uint64_t *unit, bool dirty)
{
	struct cache *c = m->cache;
	struct folio *f = NULL;
	uint32_t frame;

	mutex_lock(&m->lock);
	do {
		frame = index_next_locked(&c->nodes, &m->index, unit, dirty);
	} while (frame != FRAME_NONE && !entry_get_locked(m, frame, &f));
	mutex_unlock(&m->lock);
	return f;
}

struct folio *mapping_next_old(struct cache_mapping *m, uint64_t *unit)
{
	struct folio *f = NULL;
	bool end = false;

	while (!end && !f) {
		uint32_t frame;

		mutex_lock(&m->lock);
		frame = index_next_locked(&m->cache->nodes, &m->index, unit, false);
		end = frame == FRAME_NONE;
		/* Those that have come since are left alone: not even a reference. */
		if (!end && folio_at(m->cache, frame)->outside == a32_read(&m->outside))
			end = ++*unit == 0;
		else if (!end)
			entry_get_locked(m, frame, &f);
		mutex_unlock(&m->lock);
	}
	return f;
}

void mapping_account_dirty(struct cache_mapping *m, struct folio *f, int n)
{
	uint64_t all;
	bool first;

	mutex_lock(&m->lock);
	first = !a64_fetch_add(&m->dirty, (uint64_t)(int64_t)n) && n > 0;
	if (first)
		a64_set(&m->dirty_since, flusher_now());
	index_mark_locked(&m->cache->nodes, &m->index, f->unit, folio_dirty(f));
	mutex_unlock(&m->lock);
	if (first)
		dirty_note(m);
	all = a64_fetch_add(&m->cache->dirty, (uint64_t)(int64_t)n) + (uint64_t)(int64_t)n;
	if (first || (n > 0 && all > m->cache->dirty_background))
		flusher_wake(m->cache);
}

bool mapping_redirty(struct cache_mapping *m, struct folio *f, struct folio *page)
{
	bool clean, first = false;

	mutex_lock(&m->lock);
	/* Who takes it out of the file waits for its writeback first. */
	assert(!(a32_read(&f->flags) & FOLIO_DETACHED));
	clean = !(a32_fetch_or(&page->state, PAGE_DIRTY) & PAGE_DIRTY);
	if (clean) {
		first = !a64_fetch_add(&m->dirty, 1);
		if (first)
			a64_set(&m->dirty_since, flusher_now());
		index_mark_locked(&m->cache->nodes, &m->index, f->unit, true);
	}
	mutex_unlock(&m->lock);
	if (first)
		dirty_note(m);
	if (clean)
		a64_fetch_add(&m->cache->dirty, 1);
	/* It may have looked while nothing was dirty, but something being written. */
	if (first)
		flusher_wake(m->cache);
	return clean;
}

/* ---- who maps it ---- */

void cache_rmap_add(struct cache_rmap *r)
{
	struct cache_mapping *m = r->mapping;

	mutex_lock(&m->rmap_lock);
	r->prev = NULL;
	r->next = m->rmaps;
	if (r->next)
		r->next->prev = r;
	m->rmaps = r;
	mutex_unlock(&m->rmap_lock);
}

void cache_rmap_remove(struct cache_rmap *r)
{
	struct cache_mapping *m = r->mapping;

	mutex_lock(&m->rmap_lock);
	if (r->prev)
		r->prev->next = r->next;
	else
		m->rmaps = r->next;
	if (r->next)
		r->next->prev = r->prev;
	mutex_unlock(&m->rmap_lock);
}

static void rmap_walk(struct cache_mapping *m, uint64_t page, uint64_t count, bool zap)
{
	mutex_lock(&m->rmap_lock);
	for (struct cache_rmap *r = m->rmaps; r; r = r->next) {
		uint64_t from = MAX(page, r->first), end = MIN(page + count < page ? UINT64_MAX : page + count, r->first + r->count);

		if (from >= end)
			continue;
		(zap ? r->ops->zap : r->ops->mkclean)(r, from, (unsigned)(end - from));
	}
	mutex_unlock(&m->rmap_lock);
}

void mapping_mkclean(struct cache_mapping *m, uint64_t page, unsigned count)
{
	rmap_walk(m, page, count, false);
	counter_add(m->cache, pgmkclean, count);
	trace_event(&m->cache->trace, mkclean, page, count);
}

void mapping_zap(struct cache_mapping *m, uint64_t page, uint64_t count)
{
	rmap_walk(m, page, count, true);
}

bool cache_in_place(const struct cache_mapping *m, uint64_t page)
{
	return m->ops->in_place && m->ops->in_place(m->owner, page);
}
