/* SPDX-License-Identifier: MIT */
/*
 * Folios whose bytes lie outside the arena, in memory that other processes map, too.
 *
 * A page's place there is the one that it has in the file. So the bytes of a page that leaves have to go before the page can come
 * again, and the index is what says so: whoever takes a folio out clears its place first, with the folio locked, or frozen and locked,
 * and only then its entry goes (mapping_remove(), mapping_evict()); who wants the page meanwhile waits for that lock.
 *
 * Clearing takes the pages out of other processes' page tables. What a device still reads or writes there by a pin keeps its memory,
 * which is nobody's from then on (R5).
 */
#include "cache/internal.h"

int outside_get(struct cache_mapping *m, uint64_t end, uint32_t *ret)
{
	uint32_t outside = 0;
	int r = 0;

	/* Who moves it out comes before or after us: mapping_insert() tells. */
	if (a32_read(&m->outside)) {
		mutex_lock(&m->lock);
		outside = a32_read(&m->outside);
		if (outside && end > m->cache->outside[outside].o.pages)
			r = -EFBIG;
		else if (outside)
			a32_fetch_add(&m->cache->outside[outside].folios, 1);
		mutex_unlock(&m->lock);
	}
	if (r == 0)
		*ret = outside;
	return r;
}

void outside_put(struct cache *c, uint32_t outside)
{
	if (outside)
		a32_fetch_add(&c->outside[outside].folios, (uint32_t)-1);
}

void outside_park(struct cache *c, uint32_t outside, int n)
{
	if (outside)
		a32_fetch_add(&c->outside[outside].parked, (uint32_t)n);
	/* Who waits for the last one needn't any more. */
	if (outside && n > 0)
		memory_event(c);
}

void outside_leave(struct cache *c, uint32_t outside)
{
	if (!outside)
		return;
	mutex_lock(&c->mappings_lock);
	c->outside[outside].taken = false;
	mutex_unlock(&c->mappings_lock);
}

bool outside_untrusted(const struct cache *c, const struct folio *f)
{
	return f->outside && c->outside[f->outside].o.untrusted;
}

void outside_clear(struct cache_mapping *m, const struct folio *f)
{
	const struct cache_outside *o;

	if (!f->outside)
		return;
	o = &m->cache->outside[f->outside].o;
	sync_may_sleep("clearing pages");
	o->clear(o->context, folio_first_page(m, f), f->pages);
}

/* The table, when the first one needs it. The lock is the last in the order: nothing is allocated under it. */
static int table_make(struct cache *c)
{
	_cleanup_mem_ struct outside *table = mem_alloc(CACHE_OUTSIDE_MAX * sizeof(*table));

	if (!table)
		return -ENOMEM;
	mutex_lock(&c->mappings_lock);
	if (!c->outside)
		c->outside = steal_pointer(&table);
	mutex_unlock(&c->mappings_lock);
	return 0;
}

static int outside_take(struct cache_mapping *m, const struct cache_outside *o, uint32_t *ret)
{
	struct cache *c = m->cache;
	int r = table_make(c);

	if (r < 0)
		return r;
	r = -EMFILE;
	mutex_lock(&c->mappings_lock);
	for (uint32_t i = 1; r < 0 && i < CACHE_OUTSIDE_MAX; i++) {
		struct outside *to = &c->outside[i];

		/* Parked folios may have it still. */
		if (to->taken || a32_read_acquire(&to->folios))
			continue;
		to->o = *o;
		to->shift = m->order + CACHE_PAGE_SHIFT;
		to->taken = true;
		*ret = i;
		r = 0;
	}
	mutex_unlock(&c->mappings_lock);
	return r;
}

/* Takes out what still lies elsewhere than new folios do. How many can't go now; *ret_pinned: some of them are pinned. */
static unsigned leave_old(struct cache_mapping *m, bool *ret_pinned)
{
	struct cache *c = m->cache;
	uint64_t unit = 0;
	unsigned left = 0;
	struct folio *f;

	while ((f = mapping_next_old(m, &unit))) {
		bool pinned = folio_pinned(c, f), gone = false;

		unit = f->unit + 1;
		/* Somebody else has it: when that one leaves it we hear of it, or now, if that was just before us. */
		if (a32_read(&f->refs) > 2)
			folio_put(c, f);
		else
			gone = folio_reclaim(c, f);
		if (!gone) {
			*ret_pinned |= pinned;
			left++;
		}
		if (!unit)
			break;
	}
	return left;
}

/* Folios that the mapping had where it was before, and that have left it, or never came: somebody holds them still, but no pin alone. */
static unsigned held_old(const struct cache_mapping *m)
{
	const struct outside *o = &m->cache->outside[m->outside_old];

	/* In this order: one that is being parked counts. */
	uint32_t parked = m->outside_old ? a32_read_acquire(&o->parked) : 0;

	return m->outside_old ? a32_read_acquire(&o->folios) - parked : 0;
}

/* The same, until all is gone. Who references a page, or writes it, is waited for; who has it pinned is not. */
static int wait_old(struct cache_mapping *m)
{
	struct cache *c = m->cache;
	bool pinned = false;
	unsigned left;

	do {
		int r = cache_sync(m, 0, UINT64_MAX, NULL);
		uint32_t seen;

		if (r < 0)
			return r;
		/* As in memory_alloc(): what ends after our look wakes us. */
		a32_fetch_add(&c->memory_waiters, 1);
		sync_mb();
		seen = a32_read_acquire(&c->memory_events);
		left = leave_old(m, &pinned) + held_old(m);
		if (left && !pinned && !cache_mapping_dirty(m))
			a32_wait(&c->memory_events, seen);
		a32_fetch_add(&c->memory_waiters, (uint32_t)-1);
	} while (left && !pinned);
	memory_event(c);
	return left ? -EBUSY : 0;
}

static int end_old(struct cache_mapping *m)
{
	int r = wait_old(m);

	if (r < 0)
		return r;
	/* What has left is pinned. */
	if (m->outside_old && a32_read_acquire(&m->cache->outside[m->outside_old].folios))
		return -EBUSY;
	outside_leave(m->cache, m->outside_old);
	m->outside_old = 0;
	return 0;
}

int cache_mapping_move(struct cache_mapping *m, const struct cache_outside *o)
{
	uint32_t now = a32_read(&m->outside), to = 0;
	struct cache *c = m->cache;
	int r;

	/* Before anything has changed: what can't be written stays as it is. */
	r = cache_sync(m, 0, UINT64_MAX, NULL);
	if (r == 0 && m->outside_old)
		r = end_old(m);
	if (r < 0)
		return r;
	if (!o != !now || (o && o->base != c->outside[now].o.base)) {
		/* From one place outside to another there is no way but through the arena. */
		assert(!o || !now);
		r = o ? outside_take(m, o, &to) : 0;
		if (r < 0)
			return r;
		mutex_lock(&m->lock);
		a32_set_release(&m->outside, to);
		mutex_unlock(&m->lock);
		m->outside_old = now;
	}
	return end_old(m);
}
