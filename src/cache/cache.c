/* SPDX-License-Identifier: MIT */
/* The cache as a whole: made and ended. */
#include "cache/internal.h"

/* Of the memory, what may be dirty before the flusher writes (per cent), and before writers have to (a fourth). */
#define DIRTY_BACKGROUND 12u
#define DIRTY_SHARE 4

#define TRACE_SHIFT 16u

int cache_new(const struct cache_options *options, struct cache **ret)
{
	size_t least = 8 * ((size_t)CACHE_PAGE_SIZE << CACHE_ORDER_MAX), pages = options->limit >> CACHE_PAGE_SHIFT;
	struct cache *c = mem_alloc(sizeof(*c));
	int r;

	if (!c) {
		if (options->pressure_fd > 0)
			close(options->pressure_fd);
		return -ENOMEM;
	}
	c->young = c->main = c->cold = (struct queue){FRAME_NONE, FRAME_NONE, 0, 0};
	c->hand = FRAME_NONE;
	c->dirty_background = pages * (options->dirty_background ? options->dirty_background : DIRTY_BACKGROUND) / 100;
	c->dirty_limit = MAX(pages / DIRTY_SHARE, (size_t)1);
	c->dirty_most = MAX(pages / CACHE_DIRTY_MOST_SHARE, (size_t)1);
	mutex_init(&c->mappings_lock, LOCK_CACHE_WAIT);
	mutex_init(&c->reclaim_lock, LOCK_RECLAIM);
	mutex_init(&c->reserve_lock, LOCK_CACHE_WAIT);
	cond_init(&c->reserve_freed);
	trace_init(&c->trace, TRACE_SHIFT);
	r = flusher_init(c, options);
	if (r == 0)
		r = arena_init(&c->arena, MAX(options->limit, least), options->limit);
	if (r == 0)
		r = index_pool_init(&c->nodes);
	readahead_init(c, r < 0 ? 0 : options->readahead_threads);
	if (r < 0) {
		cache_free(c);
		return r;
	}
	*ret = c;
	return 0;
}

void cache_free(struct cache *c)
{
	if (!c)
		return;
	flusher_destroy(c);
	readahead_destroy(c);
	for (size_t i = 0; i < c->mappings_size; i++)
		assert(!c->mappings[i]);
	assert(!c->arena.region.base || !arena_used(&c->arena));
	mem_free(c->mappings);
	mem_free(c->outside);
	trace_destroy(&c->trace);
	index_pool_destroy(&c->nodes);
	arena_destroy(&c->arena);
	cond_destroy(&c->reserve_freed);
	mutex_destroy(&c->reserve_lock);
	mutex_destroy(&c->reclaim_lock);
	mutex_destroy(&c->mappings_lock);
	mem_free(c);
}
