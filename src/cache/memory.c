/* SPDX-License-Identifier: MIT */
/* Memory for blocks: allocation, eviction, admission. */
#include "cache/internal.h"

#include <assert.h>

/* Takes an unreferenced block out of its shard; its memory is the caller's to free. */
static void block_evict_locked(struct cache *c, struct shard *s, struct cache_block *b)
{
	assert(b->state == BLOCK_UPTODATE && !b->refs);
	block_list_remove_locked(c, s, b);
	block_unhash_locked(c, s, b);
}

/* The oldest cold block. One that was wanted again meanwhile goes back to the main list. */
static struct cache_block *cold_victim_locked(struct cache *c, struct shard *s)
{
	struct cache_block *b;

	while ((b = s->cold.oldest)) {
		if (!b->refs && !b->visited)
			return b;
		block_list_remove_locked(c, s, b);
		block_list_push_locked(c, s, b, false);
	}
	return NULL;
}

/*
 * SIEVE (Zhang et al., NSDI 2024): the hand walks from old to new, spares what was visited once more, and takes
 * the first that was not. New blocks come in behind the hand's back, so a scan doesn't push out what is in use.
 */
static struct cache_block *sieve_victim_locked(struct shard *s)
{
	struct cache_block *b = s->hand ? s->hand : s->main.oldest;

	/* Two rounds: the first may only clear `visited`. Begins and ends at the list's old end. */
	for (unsigned wraps = 0; b && wraps < 3;) {
		if (!b->refs && !b->visited) {
			s->hand = b;
			return b;
		}
		if (!b->refs)
			b->visited = false;
		b = b->newer;
		if (!b) {
			b = s->main.oldest;
			wraps++;
		}
	}
	s->hand = b;
	return NULL;
}

/* Evicts one block from any shard: a cold one, or the one that its SIEVE chooses. */
static bool evict_one(struct cache *c, bool cold)
{
	/* Two counters: each visits all shards in turn, whatever the other does. */
	unsigned start = atomic_fetch_add_explicit(&c->next_shard[cold], 1, memory_order_relaxed);

	for (unsigned i = 0; i < SHARDS; i++) {
		struct shard *s = &c->shards[(start + i) % SHARDS];
		struct cache_block *b;

		mutex_lock(&s->lock);
		b = cold ? cold_victim_locked(c, s) : sieve_victim_locked(s);
		if (b)
			block_evict_locked(c, s, b);
		mutex_unlock(&s->lock);
		if (b) {
			arena_free(&c->arena, b->page, b->pages);
			free(b);
			atomic_fetch_add_explicit(&c->evictions, 1, memory_order_relaxed);
			return true;
		}
	}
	return false;
}

/* Warm memory first: what is free, then what is cold; only then fresh pages, and what may be wanted again. */
static uint32_t memory_try(struct cache *c, unsigned order)
{
	uint32_t page;

	while (atomic_load_explicit(&c->cold_bytes, memory_order_relaxed) > COLD_SLACK) {
		page = arena_alloc(&c->arena, order, ARENA_USED_BEFORE, 0);
		if (page != ARENA_NONE)
			return page;
		if (!evict_one(c, true))
			break;
	}
	for (;;) {
		page = arena_alloc(&c->arena, order, ARENA_FRESH, 0);
		if (page != ARENA_NONE || (!evict_one(c, true) && !evict_one(c, false)))
			return page;
	}
}

uint32_t memory_alloc(struct cache *c, unsigned order, bool wait)
{
	uint32_t page;

	/* Readahead doesn't compete with readers who wait. */
	if (!wait)
		return atomic_load(&c->memory_waiters) ? ARENA_NONE : memory_try(c, order);
	page = memory_try(c, order);
	while (page == ARENA_NONE) {
		uint64_t seen;

		/*
		 * Pairs with memory_event(): either our look at the shards comes after the release that it tells
		 * of, or it finds us counted.
		 */
		atomic_fetch_add(&c->memory_waiters, 1);
		mutex_lock(&c->memory_lock);
		seen = c->memory_events;
		mutex_unlock(&c->memory_lock);
		page = memory_try(c, order);
		if (page == ARENA_NONE) {
			mutex_lock(&c->memory_lock);
			while (c->memory_events == seen)
				cond_wait(&c->memory_freed, &c->memory_lock);
			mutex_unlock(&c->memory_lock);
		}
		atomic_fetch_sub(&c->memory_waiters, 1);
	}
	return page;
}

void memory_event(struct cache *c)
{
	if (!atomic_load(&c->memory_waiters))
		return;
	mutex_lock(&c->memory_lock);
	c->memory_events++;
	cond_broadcast(&c->memory_freed);
	mutex_unlock(&c->memory_lock);
}

/*
 * A fill needs room for a whole block, the last block of a file may be short. What is at most half goes into the
 * rest of another split chunk, if there is one, so that short blocks share chunks and whole ones stay whole.
 */
void memory_trim(struct cache *c, struct cache_block *b, uint32_t len)
{
	uint32_t need = (len + ARENA_PAGE_SIZE - 1) >> ARENA_PAGE_SHIFT;
	unsigned order = b->mapping->order, small = arena_order(len);

	if (need == b->pages)
		return;
	if (small < order) {
		uint32_t page = arena_alloc(&c->arena, small, ARENA_PARTIAL, order);

		if (page != ARENA_NONE) {
			memcpy(arena_address(&c->arena, page), arena_address(&c->arena, b->page), len);
			arena_free(&c->arena, b->page, b->pages);
			b->page = page;
			b->pages = 1u << small;
			if (need == b->pages)
				return;
		}
	}
	arena_free(&c->arena, b->page + need, b->pages - need);
	b->pages = need;
}

int cache_reserve(struct cache_mapping *m, unsigned blocks)
{
	struct cache *c = m->cache;
	uint64_t ticket;
	int r = 0;

	mutex_lock(&c->reserve_lock);
	if (blocks > c->reserve_total) {
		r = -ENOMEM;
	} else {
		/* First come, first served: a long read isn't starved by short ones. */
		ticket = c->reserve_ticket++;
		while (ticket != c->reserve_serving || c->reserve_free < blocks)
			cond_wait(&c->reserve_freed, &c->reserve_lock);
		c->reserve_free -= blocks;
		c->reserve_serving++;
		if (c->reserve_serving != c->reserve_ticket)
			cond_broadcast(&c->reserve_freed);
	}
	mutex_unlock(&c->reserve_lock);
	return r;
}

void cache_unreserve(struct cache_mapping *m, unsigned blocks)
{
	struct cache *c = m->cache;

	mutex_lock(&c->reserve_lock);
	c->reserve_free += blocks;
	if (c->reserve_serving != c->reserve_ticket)
		cond_broadcast(&c->reserve_freed);
	mutex_unlock(&c->reserve_lock);
}
