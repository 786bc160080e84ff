/* SPDX-License-Identifier: MIT */
/* Memory for folios: allocation, waiting for it, admission. */
#include "cache/internal.h"

/* Warm memory first: what is free, then what is cold; only then fresh frames, and what may be wanted again. */
static uint32_t memory_try(struct cache *c, unsigned count, bool high, bool outside)
{
	uint32_t end = high ? UINT32_MAX : c->arena.split, frame;

	/* Cold is what has the largest units: most of it lies where others get nothing. */
	while (high && a32_read(&c->cold_pages) > a32_read(&c->cold_share)) {
		frame = arena_alloc(&c->arena, count, high, outside ? ARENA_NUMBERS : ARENA_USED_BEFORE);
		if (frame != FRAME_NONE)
			return frame;
		if (!reclaim_cold(c))
			break;
	}
	do {
		frame = arena_alloc(&c->arena, count, high, outside ? ARENA_NUMBERS : ARENA_FRESH);
	} while (frame == FRAME_NONE && reclaim_one(c, end));
	return frame;
}

/* The same; what is dirty is written, so that it can be reclaimed. */
static uint32_t memory_try_hard(struct cache *c, unsigned count, bool high, bool outside)
{
	uint32_t frame;

	do {
		frame = memory_try(c, count, high, outside);
	} while (frame == FRAME_NONE && writeback_for_memory(c));
	return frame;
}

uint32_t memory_alloc(struct cache *c, unsigned count, unsigned order, bool outside, bool wait)
{
	/* Reservations are in such units (cache_reserve()): they can all be had there. */
	bool high = order >= a32_read(&c->max_order);
	uint32_t frame;

	sync_may_sleep("allocation");
	/* Readahead doesn't compete with readers who wait. */
	if (!wait && a32_read(&c->memory_waiters))
		return FRAME_NONE;
	frame = wait ? memory_try_hard(c, count, high, outside) : memory_try(c, count, high, outside);
	while (wait && frame == FRAME_NONE) {
		uint32_t seen;

		/*
		 * Pairs with memory_event(): either our look at the folios comes after the release that it tells of, or
		 * it finds us counted.
		 */
		a32_fetch_add(&c->memory_waiters, 1);
		sync_mb();
		seen = a32_read_acquire(&c->memory_events);
		frame = memory_try_hard(c, count, high, outside);
		if (frame == FRAME_NONE)
			a32_wait(&c->memory_events, seen);
		a32_fetch_add(&c->memory_waiters, (uint32_t)-1);
	}
	/* Others who wait may have left folios alone because we were looking at them. */
	memory_event(c);
	return frame;
}

void memory_free(struct cache *c, uint32_t frame, unsigned count, bool outside)
{
	arena_free(&c->arena, frame, count, outside);
}

void memory_event(struct cache *c)
{
	sync_mb();
	if (!a32_read(&c->memory_waiters))
		return;
	a32_fetch_add(&c->memory_events, 1);
	a32_wake(&c->memory_events, UINT32_MAX);
}

int cache_reserve(struct cache_mapping *m, unsigned units)
{
	struct cache *c = m->cache;
	uint64_t ticket;
	int r = -ENOMEM;

	mutex_lock(&c->reserve_lock);
	/* First come, first served: a long read isn't starved by short ones. */
	ticket = c->reserve_ticket++;
	while (ticket != c->reserve_serving || (units <= c->reserve_total && c->reserve_free < units))
		cond_wait(&c->reserve_freed, &c->reserve_lock);
	if (units <= c->reserve_total) {
		c->reserve_free -= units;
		r = 0;
	}
	c->reserve_serving++;
	if (c->reserve_serving != c->reserve_ticket)
		cond_broadcast(&c->reserve_freed);
	mutex_unlock(&c->reserve_lock);
	return r;
}

void cache_unreserve(struct cache_mapping *m, unsigned units)
{
	struct cache *c = m->cache;

	mutex_lock(&c->reserve_lock);
	c->reserve_free += units;
	if (c->reserve_serving != c->reserve_ticket)
		cond_broadcast(&c->reserve_freed);
	mutex_unlock(&c->reserve_lock);
}
