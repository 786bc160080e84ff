/* SPDX-License-Identifier: MIT */
/*
 * Reclaim: which folios go when memory is needed.
 *
 * SIEVE (Zhang et al., NSDI 2024): the hand walks from old to new, spares what was visited once more, and takes the first
 * that was not. New folios come in behind the hand's back, so a scan doesn't push out what is in use. What was handed
 * to the kernel's page cache in whole waits in a queue of its own, and goes first.
 */
#include "cache/internal.h"

#define SCAN_BATCH 64u /* folios looked at before the lock is dropped once */

static struct queue *queue_of(struct cache *c, const struct folio *f)
{
	return a32_read(&f->flags) & FOLIO_COLD ? &c->cold : &c->main;
}

static size_t folio_bytes(const struct folio *f)
{
	return (size_t)f->pages << CACHE_PAGE_SHIFT;
}

static void add_locked(struct cache *c, struct folio *f, bool cold)
{
	uint32_t no = folio_no(c, f);
	struct queue *q = cold ? &c->cold : &c->main;

	f->next = FRAME_NONE;
	f->prev = q->newest;
	if (q->newest != FRAME_NONE)
		folio_at(c, q->newest)->next = no;
	else
		q->oldest = no;
	q->newest = no;
	a32_fetch_or(&f->flags, FOLIO_QUEUED | (cold ? (uint32_t)FOLIO_COLD : 0));
	c->queued++;
	if (cold)
		a64_fetch_add(&c->cold_bytes, folio_bytes(f));
}

static void remove_locked(struct cache *c, struct folio *f)
{
	uint32_t no = folio_no(c, f), flags = a32_read(&f->flags);
	struct queue *q = queue_of(c, f);

	if (!(flags & FOLIO_QUEUED))
		return;
	if (c->hand == no)
		c->hand = f->next;
	if (f->next != FRAME_NONE)
		folio_at(c, f->next)->prev = f->prev;
	else
		q->newest = f->prev;
	if (f->prev != FRAME_NONE)
		folio_at(c, f->prev)->next = f->next;
	else
		q->oldest = f->next;
	if (flags & FOLIO_COLD)
		a64_fetch_add(&c->cold_bytes, 0 - folio_bytes(f));
	a32_fetch_and(&f->flags, ~(uint32_t)(FOLIO_QUEUED | FOLIO_COLD));
	c->queued--;
}

void queue_add(struct cache *c, struct folio *f, bool cold)
{
	mutex_lock(&c->reclaim_lock);
	/* It may have left its mapping before its reader hands it back. */
	if (!(a32_read(&f->flags) & (FOLIO_DETACHED | FOLIO_FAILED))) {
		remove_locked(c, f);
		add_locked(c, f, cold);
	}
	mutex_unlock(&c->reclaim_lock);
}

void queue_remove(struct cache *c, struct folio *f)
{
	mutex_lock(&c->reclaim_lock);
	remove_locked(c, f);
	mutex_unlock(&c->reclaim_lock);
}

/* Only the mapping has a reference: worth a closer look. */
static bool candidate(const struct folio *f)
{
	return a32_read(&f->refs) == 1 && !(a32_read(&f->flags) & FOLIO_LOCKED);
}

/* The oldest cold folio, with a reference. One that was wanted again meanwhile goes back to the main queue. */
static struct folio *cold_next_locked(struct cache *c, unsigned *budget)
{
	while (*budget && c->cold.oldest != FRAME_NONE) {
		struct folio *f = folio_at(c, c->cold.oldest);

		(*budget)--;
		if (!(a32_read(&f->flags) & FOLIO_VISITED) && candidate(f) && folio_try_get(f))
			return f;
		remove_locked(c, f);
		add_locked(c, f, false);
	}
	return NULL;
}

/* The folio that SIEVE's hand stops at, with a reference; the hand goes on behind it. */
static struct folio *main_next_locked(struct cache *c, unsigned *budget)
{
	for (unsigned i = 0; *budget && i < SCAN_BATCH; i++) {
		struct folio *f;
		uint32_t at = c->hand != FRAME_NONE ? c->hand : c->main.oldest;

		if (at == FRAME_NONE)
			break;
		(*budget)--;
		f = folio_at(c, at);
		c->hand = f->next;
		if (!candidate(f))
			continue;
		if (a32_read(&f->flags) & FOLIO_VISITED) {
			a32_fetch_and(&f->flags, ~(uint32_t)FOLIO_VISITED);
			counter_inc(c, pgrotated);
			continue;
		}
		if (folio_try_get(f))
			return f;
	}
	return NULL;
}

/* The mapping of a locked folio; it can't go away while one of its folios is locked. NULL: the folio has left it. */
static struct cache_mapping *mapping_of(struct cache *c, const struct folio *f)
{
	struct cache_mapping *m;

	if (a32_read(&f->flags) & (FOLIO_DETACHED | FOLIO_FAILED | FOLIO_PRIVATE))
		return NULL;
	mutex_lock(&c->mappings_lock);
	m = c->mappings[f->mapping];
	mutex_unlock(&c->mappings_lock);
	return m;
}

static bool folio_idle(const struct folio *f)
{
	for (unsigned i = 0; i < f->pages; i++)
		if (a32_read(&f[i].state) & (PAGE_DIRTY | PAGE_WRITEBACK))
			return false;
	return true;
}

enum verdict { FREED, KEPT, CONTENDED };

/*
 * R4: unmap, then test pins, then free. A pin that is counted after the test finds the page table entry changed.
 * The folio is locked, and the caller has a reference, which goes if it was freed.
 */
static enum verdict evict(struct cache *c, struct cache_mapping *m, struct folio *f)
{
	bool pinned = false;

	assert_folio_state(c, f);
	if (!folio_idle(f))
		return KEPT;
	if (variant(reclaim_tests_first))
		pinned = folio_pinned(c, f);
	mapping_zap(m, folio_first_page(m, f), f->pages);
	/* Pairs with frame_pin_fast(). */
	sync_mb();
	if (!variant(reclaim_tests_first))
		pinned = folio_pinned(c, f);
	if (pinned) {
		counter_inc(c, pgsteal_pinned);
		return KEPT;
	}
	return mapping_evict(m, f) ? FREED : CONTENDED;
}

bool folio_reclaim(struct cache *c, struct folio *f)
{
	enum verdict verdict = CONTENDED;

	if (folio_trylock(f)) {
		struct cache_mapping *m = mapping_of(c, f);

		verdict = m ? evict(c, m, f) : KEPT;
		folio_unlock(f);
	}
	if (verdict == FREED) {
		counter_inc(c, pgsteal);
		trace_event(&c->trace, reclaim, f->unit, f->pages);
		folio_release(c, f);
		return true;
	}
	counter_inc(c, pgsteal_busy);
	folio_put_quietly(c, f);
	/* Two who reclaim may have stood in each other's way: neither may sleep because of the other. */
	if (verdict == CONTENDED)
		memory_event(c);
	return false;
}

bool reclaim_one(struct cache *c, bool cold)
{
	unsigned budget;

	mutex_lock(&c->reclaim_lock);
	/* Two rounds: the first may only clear what says that a folio was wanted. */
	budget = 2 * c->queued + 1;
	mutex_unlock(&c->reclaim_lock);
	while (budget) {
		struct folio *f;
		bool none;

		mutex_lock(&c->reclaim_lock);
		f = cold ? cold_next_locked(c, &budget) : main_next_locked(c, &budget);
		none = !f && (cold || c->main.oldest == FRAME_NONE);
		mutex_unlock(&c->reclaim_lock);
		if (f && folio_reclaim(c, f))
			return true;
		if (none)
			break;
	}
	return false;
}

size_t cache_reclaim(struct cache *c, size_t bytes)
{
	size_t before = arena_used(&c->arena), now = before;

	while (before - now < bytes && (reclaim_one(c, true) || reclaim_one(c, false))) {
		now = arena_used(&c->arena);
		/* Others allocate meanwhile. */
		before = MAX(before, now);
	}
	memory_event(c);
	return before - now;
}

/* Of what is in use, this part goes when the system is short of memory; if it still is then, the same again. */
#define SHRINK_SHARE 4

size_t cache_shrink(struct cache *c)
{
	uint32_t n;

	cache_reclaim(c, arena_used(&c->arena) / SHRINK_SHARE);
	n = arena_return(&c->arena);
	counter_add(c, pgreturned, n);
	return (size_t)n << CACHE_PAGE_SHIFT;
}
