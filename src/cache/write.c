/* SPDX-License-Identifier: MIT */
/*
 * Writes that come from the daemon itself: the bytes change under the folio lock.
 *
 * Pages that are written whole, and those behind the end of the file, are not read first: a folio may have pages that are
 * uptodate and others that are not, until somebody wants those.
 */
#include "cache/internal.h"

/* One unit's part of a write. */
struct span {
	uint64_t start;	      /* of the unit, in the file */
	uint64_t from, to;    /* bytes of the file */
	uint64_t size;	      /* of the file before it; the caller keeps it as it is */
	unsigned first, last; /* pages of the unit */
};

/* Is something of the page wanted that the file has, and the write doesn't bring? */
static bool page_lacks(const struct span *s, const struct folio *f, unsigned i)
{
	uint64_t at = s->start + ((uint64_t)i << CACHE_PAGE_SHIFT), end = MIN(at + CACHE_PAGE_SIZE, s->size);

	return !(a32_read(&f[i].state) & PAGE_UPTODATE) && at < end && (s->from > at || s->to < end);
}

static bool span_lacks(const struct span *s, const struct folio *f)
{
	for (unsigned i = s->first; i <= s->last; i++)
		if (page_lacks(s, f, i))
			return true;
	return false;
}

/* Takes a new folio, of which nothing is uptodate, out again. */
static void drop_new(struct cache_mapping *m, struct folio *f)
{
	mapping_remove(m, f);
	folio_unlock(f);
	folio_put(m->cache, f);
	folio_put(m->cache, f);
	memory_event(m->cache);
}

/* The folio, referenced, locked and attached, with all the pages that the write changes in part. *ret_new: it is in no queue. */
static int span_folio(struct cache_mapping *m, const struct span *s, struct folio **ret, bool *ret_new)
{
	uint64_t unit = s->start / m->unit_size;
	struct cache *c = m->cache;
	struct folio *f;
	int r;

	for (;;) {
		r = unit_find(m, unit, &f, ret_new);
		if (r < 0)
			return r;
		if (*ret_new && s->last < f->pages && span_lacks(s, f)) {
			r = unit_read(m, f);
			if (r == -ESTALE) {
				mapping_cut_wait(m, unit);
				continue;
			}
			if (r < 0)
				return r;
			*ret_new = false;
		}
		if (!*ret_new) {
			note_use(c, f);
			folio_lock(f);
		}
		if (!folio_attached(f, m)) {
			folio_unlock(f);
			folio_put(c, f);
			continue;
		}
		r = s->last >= f->pages ? -EFBIG : span_lacks(s, f) ? unit_fill(m, f) : 0;
		if (r == 0) {
			*ret = f;
			return 0;
		}
		if (*ret_new) {
			drop_new(m, f);
		} else {
			folio_unlock(f);
			folio_put(c, f);
		}
		if (r != -ESTALE)
			return r;
		mapping_cut_wait(m, unit);
	}
}

/* The bytes, into pages that mkwrite has allowed. */
static void span_copy(struct cache_mapping *m, const struct span *s, struct folio *f, const uint8_t *buf)
{
	uint8_t *data = folio_data(m->cache, f);
	bool whole = true;

	for (unsigned i = s->first; i <= s->last; i++)
		if (!(a32_read(&f[i].state) & PAGE_UPTODATE))
			memset(data + ((size_t)i << CACHE_PAGE_SHIFT), 0, CACHE_PAGE_SIZE);
	memcpy(data + (s->from - s->start), buf, s->to - s->from);
	/* Who looks at the page without the lock finds its bytes. */
	for (unsigned i = s->first; i <= s->last; i++)
		if (!(a32_read(&f[i].state) & PAGE_UPTODATE))
			a32_fetch_or(&f[i].state, PAGE_UPTODATE);
	if (a32_read(&f->flags) & FOLIO_UPTODATE)
		return;
	for (unsigned i = 0; i < f->pages; i++)
		whole &= !!(a32_read(&f[i].state) & PAGE_UPTODATE);
	if (whole)
		a32_fetch_or(&f->flags, FOLIO_UPTODATE);
}

static int span_write(struct cache_mapping *m, const struct span *s, const uint8_t *buf)
{
	struct folio *f = NULL;
	bool new;
	int r = span_folio(m, s, &f, &new);

	if (r < 0)
		return r;
	r = folio_mkwrite(m->cache, f, s->first, s->last - s->first + 1);
	if (r < 0 && new) {
		drop_new(m, f);
		return r;
	}
	if (r == 0) {
		span_copy(m, s, f, buf);
		/* Before the lock goes: a writeback would find the page behind the end, and drop it. */
		if (s->to > cache_size(m))
			a64_set_release(&m->size, s->to);
	}
	assert_folio_state(m->cache, f);
	if (new)
		queue_add(m->cache, f, QUEUE_YOUNG);
	folio_unlock(f);
	folio_put(m->cache, f);
	memory_event(m->cache);
	return r;
}

int cache_write(struct cache_mapping *m, uint64_t offset, const void *buf, size_t len, size_t *ret_done)
{
	const uint8_t *in = buf;
	uint64_t old = cache_size(m);
	size_t all = len;

	if (ret_done)
		*ret_done = 0;
	/* Before anything is there behind the end: what a mapping has stored there is none of the file. */
	if (offset > old)
		zero_range(m, old, align_up(old, m->unit_size));
	while (len) {
		size_t n = (size_t)MIN((uint64_t)len, m->unit_size - offset % m->unit_size);
		struct span s = {.start = align_down(offset, (uint64_t)m->unit_size), .from = offset, .to = offset + n,
			.size = cache_size(m)};
		int r = cache_throttle(m);

		s.first = (unsigned)((s.from - s.start) >> CACHE_PAGE_SHIFT);
		s.last = (unsigned)((s.to - 1 - s.start) >> CACHE_PAGE_SHIFT);
		if (r == 0)
			r = span_write(m, &s, in);
		if (r < 0)
			return r;
		offset += n;
		in += n;
		len -= n;
		if (ret_done)
			*ret_done = all - len;
	}
	return 0;
}
