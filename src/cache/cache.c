/* SPDX-License-Identifier: MIT */
/* The blocks: finding, filling and waiting for them. */
#include "cache/internal.h"

#include <assert.h>

struct shard *shard_of(struct cache *c, const struct cache_mapping *m, uint64_t index, unsigned *ret_bucket)
{
	uint64_t h = (index + m->id) * 0x9e3779b97f4a7c15ull;

	*ret_bucket = (unsigned)(h >> 32) & c->bucket_mask;
	return &c->shards[h >> 60];
}
_Static_assert(SHARDS == 16, "shard_of() takes the highest four bits");

struct cache_block *block_find_locked(struct shard *s, unsigned bucket, const struct cache_mapping *m, uint64_t index)
{
	struct cache_block *b = s->buckets[bucket];

	while (b && (b->index != index || b->mapping != m))
		b = b->hash_next;
	return b;
}

void block_insert_locked(struct shard *s, unsigned bucket, struct cache_block *b)
{
	b->hash_next = s->buckets[bucket];
	s->buckets[bucket] = b;
}

void block_unhash_locked(struct cache *c, struct shard *s, struct cache_block *b)
{
	struct cache_block **p;
	unsigned bucket;

	shard_of(c, b->mapping, b->index, &bucket);
	p = &s->buckets[bucket];
	while (*p != b)
		p = &(*p)->hash_next;
	*p = b->hash_next;
}

void block_list_push_locked(struct cache *c, struct shard *s, struct cache_block *b, bool cold)
{
	struct block_list *l = cold ? &s->cold : &s->main;

	b->cold = cold;
	b->newer = NULL;
	b->older = l->newest;
	if (l->newest)
		l->newest->newer = b;
	else
		l->oldest = b;
	l->newest = b;
	if (cold)
		atomic_fetch_add_explicit(&c->cold_bytes, (size_t)b->pages << ARENA_PAGE_SHIFT, memory_order_relaxed);
}

void block_list_remove_locked(struct cache *c, struct shard *s, struct cache_block *b)
{
	struct block_list *l = b->cold ? &s->cold : &s->main;

	if (s->hand == b)
		s->hand = b->newer;
	if (b->newer)
		b->newer->older = b->older;
	else
		l->newest = b->older;
	if (b->older)
		b->older->newer = b->newer;
	else
		l->oldest = b->newer;
	if (b->cold)
		atomic_fetch_sub_explicit(&c->cold_bytes, (size_t)b->pages << ARENA_PAGE_SHIFT, memory_order_relaxed);
	b->cold = false;
}

struct cache_block *block_new(struct cache_mapping *m, uint64_t index)
{
	struct cache_block *b = calloc(1, sizeof(*b));

	if (!b)
		return NULL;
	b->mapping = m;
	b->index = index;
	b->state = BLOCK_FILLING;
	b->refs = 1;
	b->page = ARENA_NONE;
	return b;
}

/* Drops a reference; true: it was the last one of a failed block, which the caller frees. */
static bool block_unref_locked(struct cache_block *b)
{
	assert(b->refs);
	b->refs--;
	return !b->refs && b->state == BLOCK_FAILED;
}

void block_complete(struct cache_block *b, const struct cache_fill *fill, bool keep)
{
	struct cache_mapping *m = b->mapping;
	struct cache *c = m->cache;
	bool failed = fill->error < 0, last = false;
	unsigned bucket;
	struct shard *s = shard_of(c, m, b->index, &bucket);

	assert(failed || (fill->len && fill->len <= m->block_size));
	if (!failed) {
		memory_trim(c, b, fill->len);
	} else if (b->page != ARENA_NONE) {
		arena_free(&c->arena, b->page, b->pages);
		b->page = ARENA_NONE;
	}
	atomic_fetch_add_explicit(failed ? &c->fill_errors : &c->fills, 1, memory_order_relaxed);

	mutex_lock(&s->lock);
	assert(b->state == BLOCK_FILLING);
	if (failed) {
		block_unhash_locked(c, s, b);
		b->state = BLOCK_FAILED;
		b->error = fill->error;
	} else {
		b->state = BLOCK_UPTODATE;
		b->len = fill->len;
		block_list_push_locked(c, s, b, false);
	}
	if (b->waiters)
		cond_broadcast(&s->filled);
	if (!keep)
		last = block_unref_locked(b);
	mutex_unlock(&s->lock);
	if (last)
		free(b);
	memory_event(c);
}

/* Fills a block that this thread has just inserted. On success the reference is the reader's. */
static int block_fill(struct cache_mapping *m, struct cache_block *b)
{
	struct cache *c = m->cache;
	struct cache_fill fill = {0};

	b->page = memory_alloc(c, m->order, true);
	b->pages = 1u << m->order;
	fill.data = arena_address(&c->arena, b->page);
	m->ops->fill(m->owner, b->index, 1, &fill);
	/* A fill that says neither how much nor why not has not filled (R13). */
	if (!fill.error && !fill.len)
		fill.error = -EIO;
	block_complete(b, &fill, fill.error == 0);
	return fill.error;
}

/* Waits until a block that another thread fills is done. Consumes the reference on failure. */
static int block_wait_locked(struct shard *s, struct cache_block *b)
{
	int r;

	s->waits++;
	b->waiters++;
	while (b->state == BLOCK_FILLING)
		cond_wait(&s->filled, &s->lock);
	b->waiters--;
	if (b->state == BLOCK_UPTODATE)
		return 0;
	r = b->error;
	if (block_unref_locked(b))
		free(b);
	return r;
}

/*
 * Finds the block, or inserts one that the caller has to fill (*ret_new): one critical section. *spare is used for
 * that and set to NULL; without a spare a missing block is *ret = NULL.
 */
static int block_get(struct cache_mapping *m, uint64_t index, struct cache_block **spare, struct cache_block **ret,
	bool *ret_new, bool *ret_marker)
{
	unsigned bucket;
	struct shard *s = shard_of(m->cache, m, index, &bucket);
	struct cache_block *b;
	int r = 0;

	*ret_new = *ret_marker = false;
	mutex_lock(&s->lock);
	b = block_find_locked(s, bucket, m, index);
	if (!b) {
		b = *spare;
		if (b) {
			block_insert_locked(s, bucket, b);
			*ret_new = true;
			*spare = NULL;
		}
	} else {
		b->refs++;
		*ret_marker = b->marker;
		b->marker = false;
		/* The first use of what was read ahead says nothing about a second one. */
		if (b->readahead)
			s->readahead_used++;
		else
			b->visited = true;
		b->readahead = false;
		if (b->state == BLOCK_FILLING)
			r = block_wait_locked(s, b);
		else
			s->hits++;
	}
	mutex_unlock(&s->lock);
	*ret = b;
	return r;
}

int cache_get(struct cache_mapping *m, uint64_t index, struct cache_ref *ret)
{
	return cache_get_run(m, index, 1, ret);
}

int cache_get_run(struct cache_mapping *m, uint64_t index, unsigned run, struct cache_ref *ret)
{
	struct cache *c = m->cache;
	struct cache_block *b, *spare = NULL;
	bool new, marker;
	int r;

	assert(index < m->count);
	r = block_get(m, index, &spare, &b, &new, &marker);
	if (r == 0 && !b) {
		spare = block_new(m, index);
		if (!spare)
			return -ENOMEM;
		r = block_get(m, index, &spare, &b, &new, &marker);
		free(spare);
	}
	if (new) {
		/* First the threads that read ahead, then our own block: they work at the same time. */
		atomic_fetch_add_explicit(&c->misses, 1, memory_order_relaxed);
		readahead_access(m, index, run);
		r = block_fill(m, b);
	} else if (marker) {
		readahead_access(m, index, run);
	}
	if (r < 0)
		return r;
	*ret = (struct cache_ref){.data = arena_address(&c->arena, b->page), .len = b->len, .block = b};
	return 0;
}

void cache_put(struct cache_mapping *m, struct cache_ref *ref, enum cache_hint hint)
{
	struct cache_block *b = ref->block;
	bool unused;
	unsigned bucket;
	struct shard *s;

	if (!b)
		return;
	s = shard_of(m->cache, m, b->index, &bucket);
	mutex_lock(&s->lock);
	assert(b->state == BLOCK_UPTODATE);
	block_unref_locked(b);
	unused = !b->refs;
	if (hint == CACHE_COLD && !b->cold) {
		block_list_remove_locked(m->cache, s, b);
		block_list_push_locked(m->cache, s, b, true);
		b->visited = false;
	}
	mutex_unlock(&s->lock);
	*ref = (struct cache_ref){0};
	if (unused)
		memory_event(m->cache);
}

int cache_new(const struct cache_options *options, struct cache **ret)
{
	size_t least = 8u * CACHE_BLOCK_MAX;
	struct cache *c = calloc(1, sizeof(*c));
	unsigned buckets = 64;
	int r;

	if (!c)
		return -ENOMEM;
	r = arena_init(&c->arena, MAX(options->limit, least), options->limit);
	if (r < 0) {
		free(c);
		return r;
	}
	/* One bucket for every two blocks of 4 KiB. */
	while (buckets < c->arena.capacity / 2 / SHARDS)
		buckets *= 2;
	c->bucket_mask = buckets - 1;
	mutex_init(&c->memory_lock, LOCK_CACHE_WAIT);
	cond_init(&c->memory_freed);
	mutex_init(&c->reserve_lock, LOCK_CACHE_WAIT);
	cond_init(&c->reserve_freed);
	for (unsigned i = 0; i < SHARDS; i++) {
		mutex_init(&c->shards[i].lock, LOCK_CACHE_SHARD);
		cond_init(&c->shards[i].filled);
		c->shards[i].buckets = calloc(buckets, sizeof(struct cache_block *));
		if (!c->shards[i].buckets)
			r = -ENOMEM;
	}
	readahead_init(c, options->readahead_threads);
	if (r < 0) {
		cache_free(c);
		return r;
	}
	*ret = c;
	return 0;
}

/* Frees the blocks of one mapping, or of all (NULL). */
static void blocks_free(struct cache *c, const struct cache_mapping *m)
{
	for (unsigned i = 0; i < SHARDS; i++) {
		struct shard *s = &c->shards[i];

		if (!s->buckets)
			continue;
		mutex_lock(&s->lock);
		for (unsigned k = 0; k <= c->bucket_mask; k++) {
			struct cache_block **p = &s->buckets[k];

			while (*p) {
				struct cache_block *b = *p;

				if (m && b->mapping != m) {
					p = &b->hash_next;
					continue;
				}
				assert(b->state == BLOCK_UPTODATE && !b->refs);
				*p = b->hash_next;
				block_list_remove_locked(c, s, b);
				arena_free(&c->arena, b->page, b->pages);
				free(b);
			}
		}
		mutex_unlock(&s->lock);
	}
}

void cache_free(struct cache *c)
{
	if (!c)
		return;
	readahead_destroy(c);
	blocks_free(c, NULL);
	for (unsigned i = 0; i < SHARDS; i++) {
		free(c->shards[i].buckets);
		cond_destroy(&c->shards[i].filled);
		mutex_destroy(&c->shards[i].lock);
	}
	cond_destroy(&c->reserve_freed);
	mutex_destroy(&c->reserve_lock);
	cond_destroy(&c->memory_freed);
	mutex_destroy(&c->memory_lock);
	arena_destroy(&c->arena);
	free(c);
}

int cache_mapping_new(struct cache *c, const struct cache_ops *ops, void *owner, uint32_t block_size, uint64_t count,
	struct cache_mapping **ret)
{
	struct cache_mapping *m;
	size_t limit;

	assert(is_power_of_two(block_size) && block_size >= ARENA_PAGE_SIZE && block_size <= CACHE_BLOCK_MAX);
	m = calloc(1, sizeof(*m));
	if (!m)
		return -ENOMEM;
	*m = (struct cache_mapping){
		.cache = c,
		.ops = ops,
		.owner = owner,
		.block_size = block_size,
		.order = arena_order(block_size),
		.id = atomic_fetch_add(&c->mappings, 1),
		.count = count,
	};
	mutex_init(&m->stream_lock, LOCK_READAHEAD);
	arena_raise_limit(&c->arena, 8u * (size_t)block_size);
	limit = arena_limit(&c->arena);
	mutex_lock(&c->reserve_lock);
	/* Reservations count in blocks of the largest size; nobody has reserved any before the first mapping. */
	if (m->order > c->max_order || !c->reserve_total) {
		unsigned total;

		c->max_order = MAX(c->max_order, m->order);
		total = (unsigned)(limit >> (c->max_order + ARENA_PAGE_SHIFT));
		c->reserve_free = c->reserve_free + total - c->reserve_total;
		c->reserve_total = total;
	}
	mutex_unlock(&c->reserve_lock);
	*ret = m;
	return 0;
}

void cache_mapping_free(struct cache_mapping *m)
{
	if (!m)
		return;
	readahead_forget(m);
	blocks_free(m->cache, m);
	mutex_destroy(&m->stream_lock);
	free(m);
}

void cache_get_stats(struct cache *c, struct cache_stats *ret)
{
	struct cache_stats o = {
		.misses = c->misses,
		.fills = c->fills,
		.fill_errors = c->fill_errors,
		.readahead = c->readahead,
		.evictions = c->evictions,
		.limit = arena_limit(&c->arena),
		.used = arena_used(&c->arena),
	};

	for (unsigned i = 0; i < SHARDS; i++) {
		struct shard *s = &c->shards[i];

		mutex_lock(&s->lock);
		o.hits += s->hits;
		o.waits += s->waits;
		o.readahead_used += s->readahead_used;
		mutex_unlock(&s->lock);
	}
	*ret = o;
}
