/* SPDX-License-Identifier: MIT */
/* Accesses through the page cache itself (src/cache), whose owner reads nothing. */
#include "policies.h"

/* Private to the cache: only so can be seen when readahead has nothing left to do. */
#include "cache/internal.h"

static void must(bool ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "replay: %s\n", what);
	exit(2);
}

static void owner_read(void *owner, uint64_t first, unsigned count, struct cache_fill *fills)
{
	for (unsigned i = 0; i < count; i++)
		memset(fills[i].data, (int)(first + i), 64);
}

static const struct cache_ops ops = {.read = owner_read};

/* Until all that was asked for is there: a program takes longer for what it reads than the replay does. */
static void wait_readahead(struct cache *c, struct cache_mapping **mappings, uint32_t count)
{
	bool busy;

	do {
		mutex_lock(&c->ra_lock);
		busy = c->ra_count;
		for (uint32_t i = 0; i < count; i++)
			busy |= mappings[i] && mappings[i]->ra_running;
		mutex_unlock(&c->ra_lock);
		if (busy)
			sched_yield();
	} while (busy);
}

void cache_replay(const struct cache_replay *how, const struct sequence *seq, uint32_t capacity,
	struct cache_replay_result *ret)
{
	struct cache_options options = {.limit = (size_t)capacity * how->unit_size, .readahead_threads = how->readahead_threads};
	struct cache_mapping **mappings = calloc(how->mappings, sizeof(struct cache_mapping *));
	struct cache_stats stats;
	struct cache *c;

	must(mappings && cache_new(&options, &c) == 0, "out of memory");
	for (uint32_t i = 0; i < how->mappings; i++) {
		uint64_t units = 0;

		for (uint32_t id = 0; id < seq->units; id++)
			if (how->mapping[id] == i + 1)
				units = MAX(units, how->number[id] + 1);
		must(!units || cache_mapping_new(c, &ops, NULL, how->unit_size, units * how->unit_size, 0, &mappings[i]) == 0,
			"a mapping can't be made");
	}
	for (size_t i = 0; i < seq->count; i++) {
		const struct access *a = &seq->accesses[i];
		struct cache_mapping *m = mappings[how->mapping[a->id] - 1];
		struct cache_ref ref;

		must(cache_get_run(m, how->number[a->id], a->run, &ref) == 0, "a unit can't be read");
		cache_put(m, &ref, how->hints && a->cold ? CACHE_COLD : CACHE_KEEP);
		if (how->readahead_threads)
			wait_readahead(c, mappings, how->mappings);
	}
	cache_get_stats(c, &stats);
	ret->hits = seq->count - stats.count.cache_miss;
	ret->reads = stats.count.pgpgin;
	for (uint32_t i = 0; i < how->mappings; i++)
		cache_mapping_free(mappings[i]);
	cache_free(c);
	free(mappings);
}
