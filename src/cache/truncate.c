/* SPDX-License-Identifier: MIT */
/* Leaving the file: truncation, holes, invalidation. */
#include "cache/internal.h"

/*
 * Takes a folio out of the file, dirty or not. First nobody finds it any more and nobody has it mapped, then its
 * reference goes; what is pinned keeps its memory until the last unpin, and its late writes reach nobody (R5).
 */
static void folio_detach(struct cache_mapping *m, struct folio *f)
{
	struct cache *c = m->cache;
	uint64_t base = folio_first_page(m, f);

	assert_folio_state(c, f);
	mapping_zap(m, base, f->pages);
	sync_mb();
	/* What is on its way to the disk arrives before its place is given away. */
	for (unsigned i = 0; i < f->pages; i++)
		page_wait_writeback(&f[i]);
	for (unsigned i = 0; i < f->pages; i++)
		if (a32_read(&f[i].state) & PAGE_DIRTY && m->ops->mkwrite_undo)
			m->ops->mkwrite_undo(m->owner, base + i, 1);
	counter_add(c, pgdetach, f->pages);
	trace_event(&c->trace, detach, base, f->pages);
	if (folio_pinned(c, f))
		counter_inc(c, pgdetach_pinned);
	mapping_remove(m, f);
	assert_folio_state(c, f);
}

/* Folios that lie wholly in [first, end) of pages. */
static void detach_range(struct cache_mapping *m, uint64_t first, uint64_t end)
{
	uint64_t unit = DIV_ROUND_UP(first, 1ull << m->order);
	struct folio *f;

	while ((f = mapping_next(m, &unit, false))) {
		bool past = folio_first_page(m, f) + f->pages > end, gone = false;

		if (!past) {
			folio_lock(f);
			gone = folio_attached(f, m);
			if (gone)
				folio_detach(m, f);
			folio_unlock(f);
		}
		unit = f->unit + 1;
		folio_put(m->cache, f);
		if (gone)
			folio_put(m->cache, f); /* the mapping's */
		if (past || !unit)
			break;
	}
	memory_event(m->cache);
}

static void zero_locked(struct cache_mapping *m, struct folio *f, uint64_t from, uint64_t to)
{
	uint64_t start = f->unit << (m->order + CACHE_PAGE_SHIFT);

	to = MIN(to, start + ((uint64_t)f->pages << CACHE_PAGE_SHIFT));
	for (uint64_t at = from, next; at < to; at = next) {
		struct folio *page = &f[(at - start) >> CACHE_PAGE_SHIFT];

		next = MIN((at | (CACHE_PAGE_SIZE - 1)) + 1, to);
		page_wait_writeback(page);
		/* What isn't there comes from the owner, who has dropped those bytes by then. */
		if (a32_read(&page->state) & PAGE_UPTODATE)
			memset(folio_data(m->cache, f) + (at - start), 0, next - at);
	}
}

void zero_range(struct cache_mapping *m, uint64_t from, uint64_t to)
{
	struct folio *f = from < to ? mapping_find(m, from >> (m->order + CACHE_PAGE_SHIFT)) : NULL;

	if (!f)
		return;
	folio_lock(f);
	if (folio_attached(f, m))
		zero_locked(m, f, from, to);
	folio_unlock(f);
	folio_put(m->cache, f);
}

/* Pages of the folio that the end now lies in, behind that end: there is nothing of them to write. */
static void forget_dirty(struct cache_mapping *m, uint64_t page)
{
	struct folio *f = mapping_find(m, page >> m->order);
	int cleaned = 0;

	if (!f)
		return;
	folio_lock(f);
	/* A fault that had looked at the size before it changed may have mapped them since they were taken away. */
	if (folio_attached(f, m))
		mapping_zap(m, page, folio_first_page(m, f) + f->pages - page);
	for (unsigned i = 0; folio_attached(f, m) && i < f->pages; i++) {
		if (folio_first_page(m, f) + i < page ||
			!(a32_fetch_and(&f[i].state, ~(uint32_t)PAGE_DIRTY) & PAGE_DIRTY))
			continue;
		cleaned++;
		if (m->ops->mkwrite_undo)
			m->ops->mkwrite_undo(m->owner, folio_first_page(m, f) + i, 1);
	}
	if (cleaned)
		mapping_account_dirty(m, f, -cleaned);
	folio_unlock(f);
	folio_put(m->cache, f);
}

/* The owner drops its bytes; what lay in place does so no more, and whoever has it mapped so loses that. */
static void owner_cut(struct cache_mapping *m, uint64_t from, uint64_t to)
{
	if (m->ops->cut)
		m->ops->cut(m->owner, from, to);
	if (m->ops->in_place) {
		/* Pairs with the look at in_place under the page table's lock. */
		sync_mb();
		mapping_zap(m, from >> CACHE_PAGE_SHIFT, (to - from) >> CACHE_PAGE_SHIFT);
	}
}

/*
 * The file becomes longer. What a mapping has stored behind the old end does not become part of it: nobody can store there,
 * none of it is being written, and it is zero, when the size changes; all under the folio's lock.
 */
static void grow(struct cache_mapping *m, uint64_t old, uint64_t size)
{
	uint64_t unit = old / m->unit_size, page = old >> CACHE_PAGE_SHIFT;
	bool done = false;

	while (!done) {
		struct folio *f = old % m->unit_size ? mapping_find(m, unit) : NULL;

		if (!f) {
			/* Who puts one in comes after this, and finds the new size. */
			done = mapping_grow_absent(m, unit, old % m->unit_size != 0, size);
			continue;
		}
		folio_lock(f);
		done = folio_attached(f, m);
		if (done) {
			mapping_zap(m, page, folio_first_page(m, f) + f->pages - page);
			zero_locked(m, f, old, align_up(old, m->unit_size));
			a64_set_release(&m->size, size);
		}
		folio_unlock(f);
		folio_put(m->cache, f);
	}
}

void cache_truncate(struct cache_mapping *m, uint64_t size)
{
	uint64_t old = cache_size(m), unit = m->unit_size;

	if (size >= old) {
		grow(m, old, size);
		return;
	}
	mapping_cut_begin(m, size >> CACHE_PAGE_SHIFT, UINT64_MAX);
	/* First the size: faults that come from now on see it once they have the folio's lock. */
	a64_set_release(&m->size, size);
	sync_mb();
	mapping_zap(m, DIV_ROUND_UP(size, CACHE_PAGE_SIZE), UINT64_MAX);
	zero_range(m, size, align_up(size, unit));
	if (size % unit)
		forget_dirty(m, DIV_ROUND_UP(size, CACHE_PAGE_SIZE));
	detach_range(m, DIV_ROUND_UP(size, CACHE_PAGE_SIZE), UINT64_MAX);
	owner_cut(m, size, UINT64_MAX);
	mapping_cut_end(m);
}

void mapping_drop(struct cache_mapping *m)
{
	detach_range(m, 0, UINT64_MAX);
}

void cache_punch(struct cache_mapping *m, uint64_t first, uint64_t count)
{
	uint64_t end = first + count < first ? UINT64_MAX : first + count, units = 1ull << m->order;
	uint64_t inner = align_up(first, units), last = align_down(end, units);

	mapping_cut_begin(m, first, end);
	mapping_zap(m, first, end - first);
	if (inner > last) {
		zero_range(m, first << CACHE_PAGE_SHIFT, end << CACHE_PAGE_SHIFT);
	} else {
		zero_range(m, first << CACHE_PAGE_SHIFT, inner << CACHE_PAGE_SHIFT);
		detach_range(m, inner, end);
		if (last < end && end != UINT64_MAX)
			zero_range(m, last << CACHE_PAGE_SHIFT, end << CACHE_PAGE_SHIFT);
	}
	owner_cut(m, first << CACHE_PAGE_SHIFT, end > UINT64_MAX >> CACHE_PAGE_SHIFT ? UINT64_MAX : end << CACHE_PAGE_SHIFT);
	mapping_cut_end(m);
}

void cache_mapping_drop(struct cache_mapping *m)
{
	mapping_drop(m);
}

uint64_t cache_invalidate(struct cache_mapping *m, uint64_t first, uint64_t count)
{
	uint64_t end = first + count < first ? UINT64_MAX : first + count, unit = first >> m->order, left = 0;
	struct folio *f;

	while ((f = mapping_next(m, &unit, false))) {
		bool past = folio_first_page(m, f) >= end;

		unit = f->unit + 1;
		if (past) {
			folio_put(m->cache, f);
			break;
		}
		if (!folio_reclaim(m->cache, f))
			left++;
		if (!unit)
			break;
	}
	memory_event(m->cache);
	return left;
}
