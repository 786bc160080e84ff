/* SPDX-License-Identifier: MIT */
/*
 * Dirty pages: how they become that, how their bytes are taken, and what happens when they can't be written.
 *
 * The order is the whole of it (R2): write-protect in every address range; barrier; read the pins; decide where the
 * bytes come from; take them. A page that nobody can store into any more is written from where it is, and whoever wants
 * to store into it waits. A page that is write-pinned, or mapped by who isn't trusted, is copied first, and if it was
 * pinned it stays dirty (R3): what the device stores after the copy is written the next time.
 */
#include "cache/internal.h"

/* ---- errseq, as in the kernel: an error's number, whether anybody has seen it, and a count ---- */

#define ERRSEQ_ERRNO 0xfffu
#define ERRSEQ_SEEN 0x1000u
#define ERRSEQ_STEP 0x2000u

static void errseq_set(struct cache_mapping *m, int error)
{
	uint32_t old = a32_read(&m->errors), new;

	do {
		new = ((old & ~(ERRSEQ_ERRNO | ERRSEQ_SEEN)) | (uint32_t)-error) + (old & ERRSEQ_SEEN ? ERRSEQ_STEP : 0);
	} while (new != old && !a32_cas(&m->errors, &old, new));
}

void cache_errseq_sample(struct cache_mapping *m, struct cache_errseq *ret)
{
	uint32_t now = a32_read_acquire(&m->errors);

	/* What nobody has seen is news for who opens the file now, too. */
	ret->seen = now & ERRSEQ_SEEN ? now : 0;
}

static int errseq_check(struct cache_mapping *m, struct cache_errseq *e)
{
	uint32_t old = a32_read_acquire(&m->errors), new = old | ERRSEQ_SEEN;

	if (old == e->seen)
		return 0;
	/* It may fail because somebody else has seen it, or because of a newer error, which the next one here sees. */
	if (new != old)
		a32_cas(&m->errors, &old, new);
	e->seen = new;
	return -(int)(new & ERRSEQ_ERRNO);
}

/* ---- becoming dirty ---- */

/* Makes a run of clean pages dirty. */
static int mkwrite_run(struct cache *c, struct cache_mapping *m, struct folio *f, unsigned first, unsigned count)
{
	int r = m->ops->mkwrite ? m->ops->mkwrite(m->owner, folio_first_page(m, f) + first, count) : -EROFS;

	if (r < 0) {
		counter_inc(c, pgmkwrite_refused);
		return r;
	}
	/* Who maps it in place must come to this page instead. Pairs with the look at in_place under their table's lock. */
	if (m->ops->in_place) {
		sync_mb();
		mapping_zap(m, folio_first_page(m, f) + first, count);
	}
	for (unsigned i = first; i < first + count; i++)
		a32_fetch_or(&f[i].state, PAGE_DIRTY);
	mapping_account_dirty(m, f, (int)count);
	counter_add(c, pgmkwrite, count);
	trace_event(&c->trace, mkwrite, folio_first_page(m, f) + first, count);
	return 0;
}

static struct cache_mapping *mapping_locked(struct cache *c, const struct folio *f)
{
	struct cache_mapping *m;

	mutex_lock(&c->mappings_lock);
	m = c->mappings[f->mapping];
	mutex_unlock(&c->mappings_lock);
	return m;
}

int folio_mkwrite(struct cache *c, struct folio *f, unsigned first, unsigned count)
{
	struct cache_mapping *m = mapping_locked(c, f);

	assert_folio_state(c, f);
	assert(folio_attached(f, m) && count && first + count <= f->pages);
	for (unsigned i = first; i < first + count;) {
		unsigned n = 0;
		int r;

		/* What is being written from where it is doesn't change (R2). */
		if (!(a32_read(&f[i].state) & PAGE_BOUNCED))
			page_wait_writeback(&f[i]);
		while (i + n < first + count && !(a32_read(&f[i + n].state) & (PAGE_DIRTY | PAGE_WRITEBACK)))
			n++;
		if (!n) {
			if (a32_read(&f[i].state) & PAGE_DIRTY) {
				i++;
				continue;
			}
			n = 1; /* clean, and being written from a copy */
		}
		r = mkwrite_run(c, m, f, i, n);
		if (r < 0)
			return r;
		i += n;
	}
	return 0;
}

#ifdef PINFS_EXPLORE
void variant_set_dirty(struct cache *c, uint32_t frame)
{
	struct folio *page = folio_at(c, frame), *f = frame_folio(c, frame);

	folio_lock(f);
	if (!(a32_read(&f->flags) & (FOLIO_DETACHED | FOLIO_PRIVATE)) &&
		!(a32_fetch_or(&page->state, PAGE_DIRTY) & PAGE_DIRTY))
		mapping_account_dirty(mapping_locked(c, f), f, 1);
	folio_unlock(f);
}
#endif

/* ---- writing ---- */

#define BATCH (1u << CACHE_ORDER_MAX) /* a whole folio fits */

struct batch_page {
	uint64_t no;	       /* its place in the file */
	struct folio *page;    /* its descriptor; the folio is referenced once for each page */
	uint8_t *copy;	       /* a bounce copy, or NULL */
};

enum purpose {
	FOR_MEMORY, /* what can be reclaimed afterwards, without waking those who wait for memory */
	FOR_ROOM,   /* less shall be dirty */
	FOR_AGE,    /* what is dirty shall be on the disk some time: also what stays dirty */
	FOR_SYNC,   /* the same now, also what others are writing: waits for them */
};

/* Pages whose writeback has begun. Nobody waits for anything while the batch has pages: others may wait for them. */
struct batch {
	struct cache_mapping *m;
	enum purpose why;
	unsigned count;
	struct batch_page pages[BATCH]; /* ascending */
	const uint8_t *data[BATCH];
	bool cleaned;			/* some of them can be reclaimed now */
	int error;			/* the first one */
};

static void note_error(struct cache_mapping *m, uint64_t page, int error)
{
	counter_inc(m->cache, pgpgout_error);
	errseq_set(m, error);
	if (m->ops->error)
		m->ops->error(m->owner, page, error);
}

/*
 * A page that could not be written is as dirty as before, and keeps what was reserved for it (R13). Without the folio's
 * lock: whoever holds that may be waiting for the end of this writeback.
 */
static void page_redirty(struct cache_mapping *m, struct folio *f, const struct batch_page *p)
{
	/* Dirty again already, with a reservation of its own: one is enough. */
	if (!mapping_redirty(m, f, p->page) && m->ops->mkwrite_undo)
		m->ops->mkwrite_undo(m->owner, p->no, 1);
	/* Dirty, then counted, then over: whoever came too early to find it dirty finds the count changed (cache_sync). */
	a32_fetch_add(&m->failed, 1);
	page_end_writeback(p->page);
}

/* Writes pages [from, from + n) of the batch, which are neighbours. */
static int batch_write(struct batch *b, unsigned from, unsigned n)
{
	uint64_t first = b->pages[from].no, start = first << CACHE_PAGE_SHIFT, size = cache_size(b->m);
	struct cache_write w = {.page = first, .data = b->data + from};
	int r;

	/* Truncated meanwhile: there is nothing left to write, and nothing was used up. */
	if (start >= size) {
		if (b->m->ops->mkwrite_undo)
			b->m->ops->mkwrite_undo(b->m->owner, first, n);
		return 0;
	}
	w.bytes = (size_t)MIN(size - start, (uint64_t)n << CACHE_PAGE_SHIFT);
	w.count = (unsigned)DIV_ROUND_UP(w.bytes, CACHE_PAGE_SIZE);
	sync_may_sleep("I/O");
	trace_event(&b->m->cache->trace, writeback_begin, first, n);
	r = b->m->ops->writeback(b->m->owner, &w);
	trace_event(&b->m->cache->trace, writeback_end, first, -r);
	/* Those behind the end were truncated, too; if the others are dirty again, so are they, until the truncation gets there. */
	if (r == 0 && n > w.count && b->m->ops->mkwrite_undo)
		b->m->ops->mkwrite_undo(b->m->owner, first + w.count, n - w.count);
	return r;
}

static void run_end(struct batch *b, unsigned from, unsigned n, int error)
{
	struct cache *c = b->m->cache;

	if (error < 0) {
		note_error(b->m, b->pages[from].no, error);
		if (!b->error)
			b->error = error;
	} else {
		counter_add(c, pgpgout, n);
		b->cleaned = true;
	}
	for (unsigned i = from; i < from + n; i++) {
		struct batch_page *p = &b->pages[i];
		struct folio *f = folio_at(c, a32_read(&p->page->head));

		if (error < 0)
			page_redirty(b->m, f, p);
		else
			page_end_writeback(p->page);
		mem_free(p->copy);
		folio_put(c, f);
	}
}

/* Writes what was begun, neighbours together. Called without a folio lock. */
static void batch_flush(struct batch *b)
{
	if (!b->count)
		return;
	for (unsigned i = 0, n; i < b->count; i += n) {
		for (n = 1; i + n < b->count && b->pages[i + n].no == b->pages[i].no + n;)
			n++;
		run_end(b, i, n, batch_write(b, i, n));
	}
	b->count = 0;
	a32_fetch_add(&b->m->writers, (uint32_t)-1);
	/* Who waits for memory would only try to write the same again, if nothing could be written. */
	if (b->cleaned)
		memory_event(b->m->cache);
	b->cleaned = false;
}

static void batch_add(struct batch *b, struct folio *f, struct folio *page, uint64_t no, uint8_t *copy)
{
	struct cache *c = b->m->cache;

	if (!b->count)
		a32_fetch_add(&b->m->writers, 1);
	folio_get(f);
	b->pages[b->count] = (struct batch_page){no, page, copy};
	b->data[b->count] = copy ? copy : page_data(c, f, page);
	b->count++;
}

/*
 * Where this page's bytes come from, now that nobody can begin to change it any more: itself, or a copy (R2). 1: it is
 * clean now; 0: it is in the batch and stays dirty (R3); -errno: it stays as it is.
 */
static int page_begin(struct batch *b, struct folio *f, struct folio *page, uint64_t no)
{
	struct cache_mapping *m = b->m;
	struct cache *c = m->cache;
	bool keep = pins_writing(a64_read_acquire(&page->pins)) > 0;
	uint8_t *copy = NULL;

	if ((keep || m->flags & CACHE_MAPPING_UNTRUSTED || outside_untrusted(c, f)) && !variant(bounce_too_late)) {
		copy = mem_alloc(CACHE_PAGE_SIZE);
		if (!copy)
			return -ENOMEM;
		counter_inc(c, pgbounce);
		trace_event(&c->trace, bounce, no, keep);
	}
	if (variant(clean_pinned))
		keep = false;
	if (keep) {
		/* It will have to be written once more, and needs what that needs. */
		int r = m->ops->mkwrite(m->owner, no, 1);

		if (r < 0) {
			counter_inc(c, pgmkwrite_refused);
			mem_free(copy);
			return r;
		}
		counter_inc(c, pgdirty_pinned);
	} else {
		a32_fetch_and(&page->state, ~(uint32_t)PAGE_DIRTY);
	}
	a32_fetch_or(&page->state, PAGE_WRITEBACK | (copy ? (uint32_t)PAGE_BOUNCED : 0));
	if (copy)
		sync_copy_torn(copy, page_data(c, f, page), CACHE_PAGE_SIZE);
	batch_add(b, f, page, no, copy);
	return !keep;
}

/* Takes the dirty pages of a locked folio into the batch, which has room. Those under writeback are left. */
static int folio_begin(struct batch *b, struct folio *f, uint64_t first, uint64_t end)
{
	struct cache_mapping *m = b->m;
	uint64_t base = folio_first_page(m, f);
	int cleaned = 0, error = 0;

	assert_folio_state(m->cache, f);
	mapping_mkclean(m, base, f->pages);
	/* Pairs with frame_pin_fast(): it finds the entry changed, or we find its count. */
	sync_mb();
	for (unsigned i = 0; i < f->pages; i++) {
		int r;

		if (base + i < first || base + i >= end ||
			(a32_read(&f[i].state) & (PAGE_DIRTY | PAGE_WRITEBACK)) != PAGE_DIRTY)
			continue;
		/* It would stay dirty (R3): who wants memory or room would write it again and again until it is unpinned. */
		if (b->why <= FOR_ROOM && pins_writing(a64_read_acquire(&f[i].pins)))
			continue;
		r = page_begin(b, f, &f[i], base + i);
		if (r > 0)
			cleaned++;
		/* Nothing was tried, nothing is lost: who asked for it hears of it, others' fsync tries again. */
		if (r < 0)
			error = r;
	}
	if (cleaned)
		mapping_account_dirty(m, f, -cleaned);
	assert_folio_state(m->cache, f);
	return error;
}

static bool folio_under_writeback(const struct folio *f)
{
	for (unsigned i = 0; i < f->pages; i++)
		if (a32_read(&f[i].state) & PAGE_WRITEBACK)
			return true;
	return false;
}

/* Locks a folio for folio_begin(), without waiting for anything while the batch has pages. */
static void lock_for_batch(struct batch *b, struct folio *f, bool wait)
{
	if (b->count + f->pages > BATCH || !folio_trylock(f)) {
		batch_flush(b);
		folio_lock(f);
	}
	if (!wait || !folio_under_writeback(f))
		return;
	if (b->count) {
		folio_unlock(f);
		batch_flush(b);
		folio_lock(f);
	}
	for (unsigned i = 0; i < f->pages; i++)
		page_wait_writeback(&f[i]);
}

/* Writes dirty pages of [first, end), at most about `most`; how many in *ret. The first error. */
static int writeback_range(struct cache_mapping *m, uint64_t first, uint64_t end, enum purpose why, uint64_t most,
	unsigned *ret)
{
	/* Not allocated: who needs memory comes here, too. */
	struct batch b;
	uint64_t unit = first >> m->order;
	unsigned written = 0;
	struct folio *f;

	b.m = m;
	b.why = why;
	b.count = 0;
	b.cleaned = false;
	b.error = 0;
	while (written < most && (f = mapping_next(m, &unit, true))) {
		bool past = folio_first_page(m, f) >= end;

		if (!past) {
			lock_for_batch(&b, f, why == FOR_SYNC);
			if (folio_attached(f, m)) {
				unsigned before = b.count;
				int r = folio_begin(&b, f, first, end);

				written += b.count - before;
				if (r < 0 && !b.error)
					b.error = r;
			}
			folio_unlock(f);
		}
		unit = f->unit + 1;
		if (why == FOR_MEMORY)
			folio_put_quietly(m->cache, f);
		else
			folio_put(m->cache, f);
		if (past || !unit)
			break;
	}
	batch_flush(&b);
	*ret = written;
	return b.error;
}

/* A few: whoever does it wants memory, not to clean up. */
#define MEMORY_PAGES 32u

/* Some mapping writes at most about `most` of its dirty pages. How many; or -errno, if none could. */
static int writeback_some(struct cache *c, enum purpose why, unsigned most)
{
	struct cache_mapping *m;
	size_t n = mapping_count_dirty(c);
	int r = 0;

	/* Each once: all that is dirty in one may be pinned, or can't be written. */
	while (r <= 0 && n-- && (m = mapping_next_dirty(c))) {
		unsigned written = 0;
		int one = writeback_range(m, 0, UINT64_MAX, why, most, &written);

		mapping_put(m);
		if (one < 0)
			r = r < 0 ? r : one;
		else if (written)
			r = (int)written;
	}
	return r;
}

bool writeback_for_memory(struct cache *c)
{
	return writeback_some(c, FOR_MEMORY, MEMORY_PAGES) > 0;
}

/* ---- not too much at once ---- */

#define THROTTLE_BATCH 256u

int cache_throttle(struct cache_mapping *m)
{
	struct cache *c = m->cache;
	unsigned written = 0;
	int r;

	if (a64_read(&c->dirty) <= c->dirty_limit)
		return 0;
	counter_inc(c, throttled);
	r = writeback_range(m, 0, UINT64_MAX, FOR_ROOM, THROTTLE_BATCH, &written);
	/*
	 * Nobody may fill the memory with what can't be written, because the disk fails, or pins keep it dirty (R3): readers need
	 * some, too.
	 */
	while (a64_read(&c->dirty) > c->dirty_most && r >= 0)
		/* None can be written: all the rest is pinned. */
		if (!(r = writeback_some(c, FOR_ROOM, THROTTLE_BATCH)))
			r = -ENOMEM;
	if (r >= 0 || a64_read(&c->dirty) <= c->dirty_most)
		return 0;
	counter_inc(c, throttle_refused);
	return r;
}

void writeback_background(struct cache *c, size_t pages)
{
	while (a64_read(&c->dirty) > pages && writeback_some(c, FOR_ROOM, THROTTLE_BATCH) > 0)
		continue;
}

void writeback_old(struct cache *c, uint64_t before)
{
	struct cache_mapping *m;
	size_t n = mapping_count_dirty(c);

	/* Each mapping's turn comes once. */
	while (n-- && (m = mapping_next_dirty(c))) {
		unsigned written;

		if (a64_read(&m->dirty_since) <= before) {
			/* What is pinned stays dirty (R3), what fails does: they have time again. */
			a64_set(&m->dirty_since, flusher_now());
			writeback_range(m, 0, UINT64_MAX, FOR_AGE, UINT64_MAX, &written);
		}
		mapping_put(m);
	}
}

unsigned cache_writeback(struct cache_mapping *m, unsigned most)
{
	unsigned written;

	writeback_range(m, 0, UINT64_MAX, FOR_AGE, most, &written);
	return written;
}

/* Waits for what others have begun to write. */
static void wait_for_writers(struct cache_mapping *m, uint64_t first, uint64_t end)
{
	uint64_t unit = first >> m->order;
	struct folio *f;

	while (a32_read_acquire(&m->writers) && (f = mapping_next(m, &unit, false))) {
		bool past = folio_first_page(m, f) >= end;

		for (unsigned i = 0; !past && i < f->pages; i++)
			page_wait_writeback(&f[i]);
		unit = f->unit + 1;
		folio_put(m->cache, f);
		if (past || !unit)
			break;
	}
}

int cache_sync(struct cache_mapping *m, uint64_t first, uint64_t count, struct cache_errseq *e)
{
	uint64_t end = first + count < first ? UINT64_MAX : first + count;
	unsigned written;
	uint32_t failed;
	int r, seen = 0;

	/* What another has tried to write while we were at it was none of ours, and is dirty again. */
	do {
		failed = a32_read_acquire(&m->failed);
		r = writeback_range(m, first, end, FOR_SYNC, UINT64_MAX, &written);
		wait_for_writers(m, first, end);
	} while (r == 0 && a32_read_acquire(&m->failed) != failed);
	if (e)
		seen = errseq_check(m, e);
	return r < 0 ? r : seen;
}
