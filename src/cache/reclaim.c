/* SPDX-License-Identifier: MIT */
/*
 * Reclaim: which folios go when memory is needed.
 *
 * New folios wait in a queue of their own, the young. What was wanted there again, but not only right after it came, moves on
 * into the main queue when its turn comes; others go. The main queue is SIEVE (Zhang et al., NSDI 2024): the hand walks from
 * old to new, spares what was visited once more, and takes the first that was not; a scan stays among the young.
 * Young ones that were handed to the kernel's page cache in whole are cold. Their turn comes as if they were young, but no
 * fresh memory is taken to keep more than a share of them: the kernel has them, too.
 * tests/bench/README.md has the hit ratios of this and of others on recorded traces.
 */
#include "cache/internal.h"

#define SCAN_BATCH 64u /* folios looked at before the lock is dropped once */

/* Shares of the memory. Fewer young ones than so many units tell nothing of each other. */
#define YOUNG_SHARE 4u
#define YOUNG_UNITS 24u
#define COLD_SHARE 4u
#define COLD_LEAST (16u << 20 >> CACHE_PAGE_SHIFT)

void reclaim_set_shares(struct cache *c, uint32_t pages, uint32_t unit_pages)
{
	uint32_t units = pages / unit_pages, young = MIN(MAX(units / YOUNG_SHARE, YOUNG_UNITS), units * 9 / 10);

	a32_set(&c->young_share, young * unit_pages);
	a32_set(&c->young_window, young * CACHE_YOUNG_WINDOW / 100 * unit_pages);
	a32_set(&c->cold_share, MAX(pages / COLD_SHARE, COLD_LEAST));
}

static struct queue *queue_of(struct cache *c, uint32_t flags)
{
	return flags & FOLIO_COLD ? &c->cold : flags & FOLIO_YOUNG ? &c->young : &c->main;
}

static void add_locked(struct cache *c, struct folio *f, enum queue_kind kind)
{
	uint32_t no = folio_no(c, f), flags = FOLIO_QUEUED;
	struct queue *q;

	flags |= kind == QUEUE_COLD ? (uint32_t)FOLIO_COLD : kind == QUEUE_YOUNG ? (uint32_t)FOLIO_YOUNG : 0;
	q = queue_of(c, flags);
	f->next = FRAME_NONE;
	f->prev = q->newest;
	if (q->newest != FRAME_NONE)
		folio_at(c, q->newest)->next = no;
	else
		q->oldest = no;
	q->newest = no;
	q->pages += f->pages;
	q->low += no < c->arena.split ? f->pages : 0;
	a32_fetch_or(&f->flags, flags);
	c->queued++;
	if (kind == QUEUE_COLD)
		a32_set(&c->cold_pages, q->pages);
}

static void remove_locked(struct cache *c, struct folio *f)
{
	uint32_t no = folio_no(c, f), flags = a32_read(&f->flags);
	struct queue *q = queue_of(c, flags);

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
	q->pages -= f->pages;
	q->low -= no < c->arena.split ? f->pages : 0;
	if (flags & FOLIO_COLD)
		a32_set(&c->cold_pages, q->pages);
	a32_fetch_and(&f->flags, ~(uint32_t)(FOLIO_QUEUED | FOLIO_COLD | FOLIO_YOUNG));
	c->queued--;
}

void queue_add(struct cache *c, struct folio *f, enum queue_kind kind)
{
	mutex_lock(&c->reclaim_lock);
	/* It may have left its mapping before its reader hands it back. */
	if (!(a32_read(&f->flags) & (FOLIO_DETACHED | FOLIO_FAILED))) {
		if (kind == QUEUE_YOUNG) {
			a32_set(&c->came, a32_read(&c->came) + f->pages);
			a32_set(&f->came, a32_read(&c->came));
		}
		/* What has its place in the main queue keeps that. */
		if (kind == QUEUE_YOUNG || a32_read(&f->flags) & FOLIO_YOUNG) {
			remove_locked(c, f);
			add_locked(c, f, kind);
		}
	}
	mutex_unlock(&c->reclaim_lock);
}

void queue_remove(struct cache *c, struct folio *f)
{
	mutex_lock(&c->reclaim_lock);
	remove_locked(c, f);
	mutex_unlock(&c->reclaim_lock);
}

/* Only the mapping has a reference, and it lies where memory is wanted: worth a closer look. */
static bool candidate(const struct cache *c, const struct folio *f, uint32_t end)
{
	return a32_read(&f->refs) == 1 && !(a32_read(&f->flags) & FOLIO_LOCKED) && folio_no(c, f) < end;
}

/* QUEUE_TURN: of the young and the cold the queue whose oldest came first. NULL: it is empty. */
static struct queue *fifo_locked(struct cache *c, enum queue_kind kind)
{
	struct queue *young = kind == QUEUE_COLD || !c->young.pages ? NULL : &c->young;
	struct queue *cold = kind == QUEUE_YOUNG || !c->cold.pages ? NULL : &c->cold;

	if (!young || !cold)
		return young ? young : cold;
	return (int32_t)(a32_read(&folio_at(c, young->oldest)->came) - a32_read(&folio_at(c, cold->oldest)->came)) < 0 ?
		young : cold;
}

/*
 * The oldest young or cold folio that may go, with a reference. What was wanted again moves to the main queue. The others that
 * were looked at come last from now on.
 */
static struct folio *fifo_next_locked(struct cache *c, enum queue_kind kind, uint32_t end, unsigned *budget)
{
	struct queue *q;

	while (*budget && (q = fifo_locked(c, kind))) {
		struct folio *f = folio_at(c, q->oldest);
		bool visited = a32_read(&f->flags) & FOLIO_VISITED;

		(*budget)--;
		remove_locked(c, f);
		add_locked(c, f, visited ? QUEUE_MAIN : q == &c->cold ? QUEUE_COLD : QUEUE_YOUNG);
		/* Its time goes with it, or it would be this one's turn again. */
		a32_set(&f->came, a32_read(&c->came));
		if (visited) {
			a32_fetch_and(&f->flags, ~(uint32_t)FOLIO_VISITED);
			counter_inc(c, pgactivate);
		} else if (candidate(c, f, end) && folio_try_get(f)) {
			return f;
		}
	}
	return NULL;
}

/* The folio that SIEVE's hand stops at, with a reference; the hand goes on behind it. */
static struct folio *main_next_locked(struct cache *c, uint32_t end, unsigned *budget)
{
	for (unsigned i = 0; *budget && i < SCAN_BATCH; i++) {
		struct folio *f;
		uint32_t at = c->hand != FRAME_NONE ? c->hand : c->main.oldest;

		if (at == FRAME_NONE)
			break;
		(*budget)--;
		f = folio_at(c, at);
		c->hand = f->next;
		if (!candidate(c, f, end))
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

/*
 * The mapping of a locked folio, for which mapping_put() is called later: it could go once the folio is frozen, and in no
 * index. NULL: the folio has left it, or the mapping ends.
 */
static struct cache_mapping *mapping_of(struct cache *c, const struct folio *f)
{
	struct cache_mapping *m;

	if (a32_read(&f->flags) & (FOLIO_DETACHED | FOLIO_FAILED | FOLIO_PRIVATE))
		return NULL;
	mutex_lock(&c->mappings_lock);
	m = c->mappings[f->mapping];
	if (m && m->ending)
		m = NULL;
	if (m)
		a32_fetch_add(&m->users, 1);
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
		if (m)
			mapping_put(m);
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

/* Frees a folio of one queue. */
static bool reclaim_from(struct cache *c, enum queue_kind kind, uint32_t end)
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
		f = kind == QUEUE_MAIN ? main_next_locked(c, end, &budget) : fifo_next_locked(c, kind, end, &budget);
		none = !f && (kind != QUEUE_MAIN || c->main.oldest == FRAME_NONE);
		mutex_unlock(&c->reclaim_lock);
		if (f && folio_reclaim(c, f))
			return true;
		if (none)
			break;
	}
	return false;
}

bool reclaim_cold(struct cache *c)
{
	return reclaim_from(c, QUEUE_COLD, UINT32_MAX);
}

bool reclaim_one(struct cache *c, uint32_t end)
{
	bool share;

	mutex_lock(&c->reclaim_lock);
	/* What can't be had doesn't count, or those that came last would go for ever, and others never. */
	share = (end <= c->arena.split ? c->young.low + c->cold.low : c->young.pages + c->cold.pages) >= a32_read(&c->young_share);
	mutex_unlock(&c->reclaim_lock);
	if ((share && reclaim_from(c, QUEUE_TURN, end)) || reclaim_from(c, QUEUE_MAIN, end))
		return true;
	/* Each by itself: nobody's turn is lost to who can't go. And those looked at may have moved to the main queue. */
	return reclaim_from(c, QUEUE_YOUNG, end) || reclaim_from(c, QUEUE_COLD, end) || reclaim_from(c, QUEUE_MAIN, end);
}

size_t cache_reclaim(struct cache *c, size_t bytes)
{
	size_t before = arena_used(&c->arena), now = before;

	while (before - now < bytes && reclaim_one(c, UINT32_MAX)) {
		now = arena_used(&c->arena);
		/* Others allocate meanwhile. */
		before = MAX(before, now);
	}
	memory_event(c);
	return before - now;
}

/* Of what is in use, this part goes (if so much is clean and unused) when the system is short of memory; if it still is then, the same again. */
#define SHRINK_SHARE 4

size_t cache_shrink(struct cache *c)
{
	uint32_t n;

	cache_reclaim(c, arena_used(&c->arena) / SHRINK_SHARE);
	n = arena_return(&c->arena);
	/* While it was on its way, nobody could have it. */
	memory_event(c);
	counter_add(c, pgreturned, n);
	return (size_t)n << CACHE_PAGE_SHIFT;
}
