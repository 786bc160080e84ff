/* SPDX-License-Identifier: MIT */
/* Descriptors: references, the lock, pins, the end of a folio. */
#include "cache/internal.h"

uint32_t folio_frame(const struct cache *c, const struct folio *f)
{
	return folio_no(c, f);
}

struct folio *frame_folio(const struct cache *c, uint32_t frame)
{
	return folio_at(c, a32_read(&folio_at(c, frame)->head));
}

uint8_t *frame_data(const struct cache *c, uint32_t frame)
{
	const struct folio *page = folio_at(c, frame);

	return page_data(c, frame_folio(c, frame), page);
}

bool frame_uptodate(const struct cache *c, uint32_t frame)
{
	return a32_read_acquire(&folio_at(c, frame)->state) & PAGE_UPTODATE;
}

uint64_t folio_page(const struct cache_mapping *m, const struct folio *f)
{
	return folio_first_page(m, f);
}

uint32_t folio_page_frame(const struct cache *c, const struct cache_mapping *m, const struct folio *f, uint64_t page)
{
	assert(page >= folio_first_page(m, f) && page - folio_first_page(m, f) < f->pages);
	return folio_no(c, f) + (uint32_t)(page - folio_first_page(m, f));
}

struct folio *folio_init(struct cache *c, uint32_t frame, unsigned pages, unsigned refs, uint32_t mapping, uint64_t unit,
	uint32_t len, uint32_t outside)
{
	struct folio *f = folio_at(c, frame);

	/* The pins are left: a fast pin that is about to be taken back may be counted there. */
	for (unsigned i = 0; i < pages; i++) {
		a32_set(&f[i].state, 0);
		a32_set(&f[i].head, frame);
	}
	f->pages = (uint16_t)pages;
	f->len = len;
	f->error = 0;
	f->mapping = mapping;
	f->unit = unit;
	f->outside = outside;
	a32_set(&f->flags, FOLIO_LOCKED);
	/* Whoever gets a reference from now on finds all of the above. */
	a32_set_release(&f->refs, refs);
	sync_lock_taken(LOCK_FOLIO, true);
	return f;
}

/* ---- references ---- */

void folio_get(struct folio *f)
{
	uint32_t before = a32_fetch_add(&f->refs, 1);

	assert(before);
	(void)before;
}

bool folio_try_get(struct folio *f)
{
	uint32_t n = a32_read(&f->refs);

	while (n)
		if (a32_cas(&f->refs, &n, n + 1))
			return true;
	return false;
}

bool folio_freeze(struct folio *f, uint32_t refs)
{
	return a32_cas(&f->refs, &refs, 0);
}

static uint32_t put(struct cache *c, struct folio *f)
{
	uint32_t before = a32_fetch_add(&f->refs, (uint32_t)-1);

	assert(before);
	if (before == 1)
		folio_release(c, f);
	return before;
}

void folio_put(struct cache *c, struct folio *f)
{
	/* Only its mapping has it now: who waits for memory may take it. */
	if (put(c, f) == 2)
		memory_event(c);
}

void folio_put_quietly(struct cache *c, struct folio *f)
{
	put(c, f);
}

/* ---- the end ---- */

bool folio_pinned(const struct cache *c, const struct folio *f)
{
	for (unsigned i = 0; i < f->pages; i++)
		if (a64_read_acquire(&f[i].pins))
			return true;
	return false;
}

bool folio_dirty(const struct folio *f)
{
	for (unsigned i = 0; i < f->pages; i++)
		if (a32_read(&f[i].state) & PAGE_DIRTY)
			return true;
	return false;
}

static void folio_free(struct cache *c, struct folio *f)
{
	uint32_t outside = f->outside;

	assert(!a32_read(&f->refs));
	assert(!(a32_read(&f->flags) & (FOLIO_LOCKED | FOLIO_QUEUED)));
	memory_free(c, folio_no(c, f), f->pages, outside);
	outside_put(c, outside);
	memory_event(c);
}

/* Whoever finds a parked folio without pins first frees it: the parker, or the last unpin. */
static void folio_unpark(struct cache *c, struct folio *f)
{
	bool mine;

	mutex_lock(&c->reclaim_lock);
	mine = a32_read(&f->flags) & FOLIO_PARKED && !a32_read(&f->refs) && !folio_pinned(c, f);
	if (mine)
		a32_fetch_and(&f->flags, ~(uint32_t)FOLIO_PARKED);
	mutex_unlock(&c->reclaim_lock);
	if (mine) {
		outside_park(c, f->outside, -1);
		counter_inc(c, pgpark_free);
		folio_free(c, f);
	}
}

void folio_release(struct cache *c, struct folio *f)
{
	/* R10: a page table entry was taken away; a fast pin is counted before this, or finds that. Pairs with frame_pin_fast(). */
	sync_mb();
	if (!folio_pinned(c, f) || variant(truncate_reuses)) {
		folio_free(c, f);
		return;
	}
	trace_event(&c->trace, park, folio_no(c, f), f->pages);
	outside_park(c, f->outside, 1);
	/* R5. Pairs with frame_unpin(): it sees the flag, or we see its count. */
	a32_fetch_or(&f->flags, FOLIO_PARKED);
	sync_mb();
	if (!folio_pinned(c, f))
		folio_unpark(c, f);
}

/* ---- the lock ---- */

void folio_lock(struct folio *f)
{
	uint32_t v;

	sync_lock_taken(LOCK_FOLIO, false);
	while ((v = a32_fetch_or(&f->flags, FOLIO_LOCKED)) & FOLIO_LOCKED) {
		/* Said before we sleep; who unlocks takes it back and wakes everybody. */
		if (!(v & FOLIO_WAITERS) && !a32_cas(&f->flags, &v, v | FOLIO_WAITERS))
			continue;
		sync_lock_dropped(LOCK_FOLIO);
		a32_wait(&f->flags, v | FOLIO_WAITERS);
		sync_lock_taken(LOCK_FOLIO, false);
	}
}

bool folio_trylock(struct folio *f)
{
	if (a32_fetch_or(&f->flags, FOLIO_LOCKED) & FOLIO_LOCKED)
		return false;
	sync_lock_taken(LOCK_FOLIO, true);
	return true;
}

void folio_unlock(struct folio *f)
{
	uint32_t v = a32_fetch_and(&f->flags, ~(uint32_t)(FOLIO_LOCKED | FOLIO_WAITERS));

	assert(v & FOLIO_LOCKED);
	sync_lock_dropped(LOCK_FOLIO);
	if (v & FOLIO_WAITERS)
		a32_wake(&f->flags, UINT32_MAX);
}

void folio_wait_unlocked(struct folio *f)
{
	uint32_t v = a32_read_acquire(&f->flags);

	while (v & FOLIO_LOCKED) {
		if (!(v & FOLIO_WAITERS) && !a32_cas(&f->flags, &v, v | FOLIO_WAITERS))
			continue;
		a32_wait(&f->flags, v | FOLIO_WAITERS);
		return;
	}
}

bool folio_attached(const struct folio *f, const struct cache_mapping *m)
{
	return !(a32_read(&f->flags) & (FOLIO_DETACHED | FOLIO_FAILED | FOLIO_PRIVATE)) && f->mapping == m->number;
}

/* ---- the end of writeback ---- */

void page_wait_writeback(struct folio *page)
{
	uint32_t s;

	while ((s = a32_read_acquire(&page->state)) & PAGE_WRITEBACK) {
		if (!(s & PAGE_WAITERS) && !a32_cas(&page->state, &s, s | PAGE_WAITERS))
			continue;
		a32_wait(&page->state, s | PAGE_WAITERS);
	}
}

void page_end_writeback(struct folio *page)
{
	uint32_t s = a32_fetch_and(&page->state, ~(uint32_t)(PAGE_WRITEBACK | PAGE_BOUNCED | PAGE_WAITERS));

	assert(s & PAGE_WRITEBACK);
	if (s & PAGE_WAITERS)
		a32_wake(&page->state, UINT32_MAX);
}

/* ---- pins ---- */

static int pin_count(struct cache *c, struct folio *page, bool write)
{
	uint64_t one = write ? PIN_WRITE : PIN_READ, before = a64_fetch_add(&page->pins, one);

	if ((write ? pins_writing(before) : pins_reading(before)) < PIN_LIMIT) {
		trace_event(&c->trace, pin, folio_no(c, page), before + one);
		return 0;
	}
	a64_fetch_add(&page->pins, 0 - one);
	counter_inc(c, pin_limit);
	return -EAGAIN;
}

int frame_pin(struct cache *c, uint32_t frame, bool write)
{
	int r = pin_count(c, folio_at(c, frame), write);

	if (r == 0)
		counter_inc(c, pin_slow);
	return r;
}

uint64_t frame_pins(const struct cache *c, uint32_t frame)
{
	return a64_read_acquire(&folio_at(c, frame)->pins);
}

int frame_pin_fast(struct cache *c, uint32_t frame, bool write)
{
	int r = pin_count(c, folio_at(c, frame), write);

	/* R10. Pairs with mkclean and with reclaim, who change the entry, then read the count. */
	if (!variant(pin_without_barrier))
		sync_mb();
	return r;
}

void frame_unpin(struct cache *c, uint32_t frame, bool write)
{
	struct folio *page = folio_at(c, frame), *f;
	uint64_t one = write ? PIN_WRITE : PIN_READ, before = a64_fetch_add(&page->pins, 0 - one);

	assert(write ? pins_writing(before) : pins_reading(before));
	trace_event(&c->trace, unpin, frame, before - one);
	if (before != one)
		return;
	/*
	 * R5. Pairs with folio_release(). The frame may have become anybody's: folio_unpark() looks closely. And who waits for
	 * memory has perhaps left it alone for this pin (R4): memory_event() has the barrier for both.
	 */
	memory_event(c);
	f = frame_folio(c, frame);
	if (a32_read(&f->flags) & FOLIO_PARKED)
		folio_unpark(c, f);
}

/* ---- memory that belongs to no file ---- */

int cache_private_new(struct cache *c, struct folio **ret)
{
	uint32_t frame = memory_alloc(c, 1, 0, false, true);
	struct folio *f;

	if (frame == FRAME_NONE)
		return -ENOMEM;
	f = folio_init(c, frame, 1, 1, 0, 0, CACHE_PAGE_SIZE, 0);
	a32_fetch_or(&f->flags, FOLIO_PRIVATE | FOLIO_UPTODATE);
	a32_fetch_or(&f->state, PAGE_UPTODATE);
	folio_unlock(f);
	*ret = f;
	return 0;
}

void assert_folio_state(const struct cache *c, const struct folio *f)
{
	uint32_t flags = a32_read(&f->flags);

	assert(flags & FOLIO_LOCKED);
	assert(a32_read(&f->refs));
	assert(f->pages && f->pages <= 1u << CACHE_ORDER_MAX);
	assert(!(flags & FOLIO_FAILED) || flags & FOLIO_DETACHED);
	assert(!(flags & FOLIO_PARKED));
	for (unsigned i = 0; i < f->pages; i++) {
		uint32_t s = a32_read(&f[i].state);

		assert(a32_read(&f[i].head) == folio_no(c, f));
		/* R13: what could not be read is nothing. */
		assert(!(flags & FOLIO_UPTODATE) || s & PAGE_UPTODATE);
		assert(!(s & (PAGE_DIRTY | PAGE_WRITEBACK)) || s & PAGE_UPTODATE);
		/* R5: what left its file has nothing to write any more. */
		assert(!(flags & FOLIO_DETACHED) || !(s & PAGE_DIRTY));
		assert(!(s & PAGE_BOUNCED) || s & PAGE_WRITEBACK);
	}
}
