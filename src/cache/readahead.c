/* SPDX-License-Identifier: MIT */
/*
 * Readahead: who goes up through a mapping's blocks, and fetching what comes next.
 *
 * The detection costs nothing for blocks that are there: it runs when a block is missing, and when a block with the
 * marker is read (as the kernel's PG_readahead: the first block of the newest batch). Blocks are given to the threads
 * in jobs, each of which is one fill of neighbours and so, mostly, one large read.
 */
#include "cache/internal.h"

#include <assert.h>

#define RA_START_BYTES (128u << 10)
#define RA_BATCH_BYTES (2u << 20) /* twice this is read ahead at most */
#define RA_JOB_BYTES (512u << 10)
#define RA_RUN_MAX 128u /* blocks in one fill */
/* Requests of one reader arrive slightly out of order when several threads serve them. */
#define STREAM_SLACK 2u


static void *ra_thread(void *arg);

/* Under ra_lock. Threads are started when there is work for the first time: a mount that nobody reads has none. */
static void threads_start_locked(struct cache *c)
{
	if (c->ra_idle > c->ra_count || c->ra_started >= c->ra_wanted)
		return;
	if (thread_start(&c->ra_threads[c->ra_started], ra_thread, c) == 0)
		c->ra_started++;
	else
		c->ra_wanted = c->ra_started;
}

/* Adds a job, unless the queue is full: what isn't fetched ahead will be fetched when it is wanted. */
static bool job_push(struct cache *c, const struct ra_job *job)
{
	bool pushed = false;

	mutex_lock(&c->ra_lock);
	if (c->ra_count < RA_QUEUE && !c->ra_stop) {
		threads_start_locked(c);
		if (c->ra_started) {
			c->ra_queue[(c->ra_first + c->ra_count) % RA_QUEUE] = *job;
			c->ra_count++;
			cond_signal(&c->ra_work);
			pushed = true;
		}
	}
	mutex_unlock(&c->ra_lock);
	return pushed;
}

/* Where a block stands: absent; or there, and then it gets the marker if `mark`. */
static bool block_present(struct cache_mapping *m, uint64_t index, bool mark)
{
	unsigned bucket;
	struct shard *s = shard_of(m->cache, m, index, &bucket);
	struct cache_block *b;

	mutex_lock(&s->lock);
	b = block_find_locked(s, bucket, m, index);
	if (b && mark)
		b->marker = true;
	mutex_unlock(&s->lock);
	return b;
}

/* Inserts a block to be fetched. 0; -EEXIST: it has come meanwhile; -ENOMEM: there is no memory to spare. */
static int block_claim(struct cache_mapping *m, uint64_t index, bool mark, struct cache_block **ret)
{
	struct cache *c = m->cache;
	struct cache_block *b, *there;
	unsigned bucket;
	struct shard *s = shard_of(c, m, index, &bucket);

	b = block_new(m, index);
	if (!b)
		return -ENOMEM;
	b->page = memory_alloc(c, m->order, false);
	b->pages = 1u << m->order;
	b->readahead = true;
	b->marker = mark;
	if (b->page == ARENA_NONE) {
		free(b);
		return -ENOMEM;
	}
	mutex_lock(&s->lock);
	there = block_find_locked(s, bucket, m, index);
	if (!there)
		block_insert_locked(s, bucket, b);
	mutex_unlock(&s->lock);
	if (!there) {
		*ret = b;
		return 0;
	}
	arena_free(&c->arena, b->page, b->pages);
	free(b);
	memory_event(c);
	return -EEXIST;
}

/* Fetches the blocks of a job that are missing, run by run. */
static void job_run(struct cache *c, const struct ra_job *job)
{
	struct cache_mapping *m = job->mapping;
	struct cache_block *blocks[RA_RUN_MAX];
	struct cache_fill fills[RA_RUN_MAX];
	unsigned i = 0;
	int r = 0;

	while (i < job->count && r != -ENOMEM) {
		uint64_t first = job->first + i;
		unsigned n = 0;

		while (i < job->count && n < RA_RUN_MAX) {
			bool mark = job->mark && !i;

			r = block_present(m, job->first + i, mark) ? -EEXIST :
								     block_claim(m, job->first + i, mark, &blocks[n]);
			if (r < 0)
				break;
			fills[n] = (struct cache_fill){.data = arena_address(&c->arena, blocks[n]->page)};
			n++;
			i++;
		}
		if (!n) {
			i++;
			continue;
		}
		m->ops->fill(m->owner, first, n, fills);
		atomic_fetch_add_explicit(&c->readahead, n, memory_order_relaxed);
		for (unsigned k = 0; k < n; k++) {
			if (!fills[k].error && !fills[k].len)
				fills[k].error = -EIO;
			block_complete(blocks[k], &fills[k], false);
		}
	}
}

static void *ra_thread(void *arg)
{
	struct cache *c = arg;

	mutex_lock(&c->ra_lock);
	for (;;) {
		struct ra_job job;

		while (!c->ra_count && !c->ra_stop) {
			c->ra_idle++;
			cond_wait(&c->ra_work, &c->ra_lock);
			c->ra_idle--;
		}
		if (c->ra_stop)
			break;
		job = c->ra_queue[c->ra_first];
		c->ra_first = (c->ra_first + 1) % RA_QUEUE;
		c->ra_count--;
		job.mapping->ra_running++;
		mutex_unlock(&c->ra_lock);

		job_run(c, &job);

		mutex_lock(&c->ra_lock);
		if (!--job.mapping->ra_running)
			cond_broadcast(&c->ra_done);
	}
	mutex_unlock(&c->ra_lock);
	return NULL;
}

/* The stream that this access continues, or a new one in place of the one that was used least recently. */
static struct stream *stream_find_locked(struct cache_mapping *m, uint64_t index, bool *ret_new)
{
	struct stream *oldest = &m->streams[0];

	*ret_new = false;
	for (unsigned i = 0; i < STREAMS; i++) {
		struct stream *t = &m->streams[i];

		if (t->used && index + STREAM_SLACK >= t->next && index <= MAX(t->end, t->next) + STREAM_SLACK) {
			t->used = ++m->stream_clock;
			return t;
		}
		if (t->used < oldest->used)
			oldest = t;
	}
	*oldest = (struct stream){.used = ++m->stream_clock, .next = index + 1, .end = index + 1};
	*ret_new = true;
	return oldest;
}

/*
 * What shall be read ahead because of this access: [*ret_first, *ret_end); nothing if they are equal. The marker is at
 * the beginning of the newest batch, so that the next one is asked for while a whole batch is still to be read.
 */
static void stream_advance_locked(struct cache_mapping *m, uint64_t index, unsigned run, uint64_t *ret_first,
	uint64_t *ret_end)
{
	size_t bytes = MIN((size_t)RA_BATCH_BYTES, m->cache->ra_limit);
	unsigned most = (unsigned)MAX(bytes / m->block_size, 1u);
	unsigned least = MIN(MAX(RA_START_BYTES / m->block_size, 1u), most);
	uint64_t end = MIN(index + run, m->count);
	bool new;
	struct stream *t = stream_find_locked(m, index, &new);

	t->next = MAX(t->next, end);
	*ret_first = MAX(t->end, index + 1);
	if (!new && *ret_first <= t->next + most) {
		t->window = t->window ? MIN(2 * t->window, most) : least;
		end = MIN(MAX(end, *ret_first + t->window), m->count);
	}
	*ret_end = t->end = MAX(*ret_first, end);
}

void readahead_access(struct cache_mapping *m, uint64_t index, unsigned run)
{
	unsigned per_job = MIN(MAX(RA_JOB_BYTES / m->block_size, 1u), RA_RUN_MAX);
	uint64_t first, end;
	bool mark = true;

	if (!m->cache->ra_limit)
		return;
	mutex_lock(&m->stream_lock);
	stream_advance_locked(m, index, run, &first, &end);
	mutex_unlock(&m->stream_lock);
	while (first < end) {
		struct ra_job job = {.mapping = m, .first = first, .count = (unsigned)MIN(end - first, per_job), .mark = mark};

		if (!job_push(m->cache, &job))
			break;
		mark = false;
		first += job.count;
	}
}

void readahead_init(struct cache *c, unsigned threads)
{
	mutex_init(&c->ra_lock, LOCK_READAHEAD);
	cond_init(&c->ra_work);
	cond_init(&c->ra_done);
	c->ra_wanted = MIN(threads, RA_THREADS_MAX);
	/* Two batches shall not take more than a quarter of the memory. */
	c->ra_limit = threads ? MAX(arena_limit(&c->arena) / 8, (size_t)1) : 0;
}

void readahead_destroy(struct cache *c)
{
	mutex_lock(&c->ra_lock);
	c->ra_stop = true;
	cond_broadcast(&c->ra_work);
	mutex_unlock(&c->ra_lock);
	for (unsigned i = 0; i < c->ra_started; i++)
		pthread_join(c->ra_threads[i], NULL);
	cond_destroy(&c->ra_done);
	cond_destroy(&c->ra_work);
	mutex_destroy(&c->ra_lock);
}

void readahead_forget(struct cache_mapping *m)
{
	struct cache *c = m->cache;
	unsigned kept = 0;

	mutex_lock(&c->ra_lock);
	for (unsigned i = 0; i < c->ra_count; i++) {
		struct ra_job job = c->ra_queue[(c->ra_first + i) % RA_QUEUE];

		if (job.mapping != m)
			c->ra_queue[(c->ra_first + kept++) % RA_QUEUE] = job;
	}
	c->ra_count = kept;
	while (m->ra_running)
		cond_wait(&c->ra_done, &c->ra_lock);
	mutex_unlock(&c->ra_lock);
}
