/* SPDX-License-Identifier: MIT */
/*
 * Readahead: who goes up through a mapping's units, and fetching what comes next.
 *
 * The detection costs nothing for units that are there: it runs when one is missing, and when one with the marker is
 * read (as the kernel's PG_readahead: the first unit of the newest batch). Units are given to the threads
 * in jobs, each of which is one read of neighbours and so, mostly, one large read.
 */
#include "cache/internal.h"

#include <assert.h>

#define RA_START_BYTES (128u << 10)
#define RA_BATCH_BYTES (2u << 20) /* twice this is read ahead at most */
#define RA_JOB_BYTES (512u << 10)
#define RA_RUN_MAX 128u /* units in one read */
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

/* Is the unit there? Then it gets the marker, if `mark`. */
static bool unit_present(struct cache_mapping *m, uint64_t unit, bool mark)
{
	struct folio *f = mapping_find(m, unit);

	if (!f)
		return false;
	if (mark)
		a32_fetch_or(&f->flags, FOLIO_MARKER);
	folio_put(m->cache, f);
	return true;
}

/* Puts a unit in, to be read. 0; -EEXIST: it has come meanwhile; else there is nothing to spare, or no such unit. */
static int unit_claim(struct cache_mapping *m, uint64_t unit, bool mark, struct folio **ret)
{
	struct cache *c = m->cache;
	struct folio *f, *there = NULL;
	unsigned nodes;
	int r;

	r = unit_alloc(m, unit, false, &f);
	if (r < 0)
		return r;
	a32_fetch_or(&f->flags, FOLIO_AHEAD | (mark ? (uint32_t)FOLIO_MARKER : 0));
	r = index_reserve(&c->nodes, &nodes);
	if (r == 0) {
		r = mapping_insert(m, f, &nodes, &there);
		index_unreserve(&c->nodes, nodes);
	}
	if (r == 0 && !there) {
		*ret = f;
		return 0;
	}
	unit_discard(c, f);
	if (there)
		folio_put(c, there);
	memory_event(c);
	return r < 0 ? r : -EEXIST;
}

/* Reads the units of a job that are missing, run by run. */
static void job_run(struct cache *c, const struct ra_job *job)
{
	struct cache_mapping *m = job->mapping;
	struct folio *folios[RA_RUN_MAX];
	struct cache_fill fills[RA_RUN_MAX];
	unsigned i = 0;
	int r = 0;

	while (i < job->count && (r == 0 || r == -EEXIST)) {
		uint64_t first = job->first + i;
		unsigned n = 0;

		while (i < job->count && n < RA_RUN_MAX) {
			bool mark = job->mark && !i;

			r = unit_present(m, job->first + i, mark) ? -EEXIST :
								    unit_claim(m, job->first + i, mark, &folios[n]);
			if (r < 0)
				break;
			fills[n] = (struct cache_fill){.data = folio_data(c, folios[n]), .len = folios[n]->len};
			n++;
			i++;
		}
		if (!n) {
			i++;
			continue;
		}
		trace_event(&c->trace, read_begin, first, n);
		m->ops->read(m->owner, first, n, fills);
		trace_event(&c->trace, read_end, first, fills[0].error < 0 ? -fills[0].error : 0);
		counter_add(c, pgreadahead, n);
		for (unsigned k = 0; k < n; k++) {
			unit_complete(m, folios[k], &fills[k]);
			folio_put(c, folios[k]);
		}
		memory_event(c);
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
static struct stream *stream_find_locked(struct cache_mapping *m, uint64_t unit, bool *ret_new)
{
	struct stream *oldest = &m->streams[0];

	*ret_new = false;
	for (unsigned i = 0; i < STREAMS; i++) {
		struct stream *t = &m->streams[i];

		if (t->used && unit + STREAM_SLACK >= t->next && unit <= MAX(t->end, t->next) + STREAM_SLACK) {
			t->used = ++m->stream_clock;
			return t;
		}
		if (t->used < oldest->used)
			oldest = t;
	}
	*oldest = (struct stream){.used = ++m->stream_clock, .next = unit + 1, .end = unit + 1};
	*ret_new = true;
	return oldest;
}

/*
 * What shall be read ahead because of this access: [*ret_first, *ret_end); nothing if they are equal. The marker is at
 * the beginning of the newest batch, so that the next one is asked for while a whole batch is still to be read.
 */
static void stream_advance_locked(struct cache_mapping *m, uint64_t unit, unsigned run, uint64_t *ret_first,
	uint64_t *ret_end)
{
	size_t bytes = MIN((size_t)RA_BATCH_BYTES, m->cache->ra_limit);
	unsigned most = (unsigned)MAX(bytes / m->unit_size, 1u);
	unsigned least = MIN(MAX(RA_START_BYTES / m->unit_size, 1u), most);
	uint64_t units = DIV_ROUND_UP(cache_size(m), m->unit_size), end;
	bool new;
	struct stream *t = stream_find_locked(m, unit, &new);

	end = MIN(unit + run, units);
	t->next = MAX(t->next, end);
	*ret_first = MAX(t->end, unit + 1);
	if (!new && *ret_first <= t->next + most) {
		t->window = t->window ? MIN(2 * t->window, most) : least;
		end = MIN(MAX(end, *ret_first + t->window), units);
	}
	*ret_end = t->end = MAX(*ret_first, end);
}

void readahead_access(struct cache_mapping *m, uint64_t unit, unsigned run)
{
	unsigned per_job = MIN(MAX(RA_JOB_BYTES / m->unit_size, 1u), RA_RUN_MAX);
	uint64_t first, end;
	bool mark = true;

	if (!m->cache->ra_limit)
		return;
	mutex_lock(&m->stream_lock);
	stream_advance_locked(m, unit, run, &first, &end);
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
