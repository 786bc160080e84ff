/* SPDX-License-Identifier: MIT */
#include "cache/internal.h"

/* Threads count in groups of their own, so that counting costs no cache line that others write. */
unsigned counter_group(void)
{
#ifdef PINFS_EXPLORE
	return 0;
#else
	static _Atomic unsigned next;
	static _Thread_local unsigned mine;

	if (__builtin_expect(!mine, 0))
		mine = 1 + atomic_fetch_add_explicit(&next, 1, memory_order_relaxed) % COUNTER_GROUPS;
	return mine - 1;
#endif
}

struct trace *cache_trace(struct cache *c)
{
	return &c->trace;
}

void cache_count(struct cache *c, enum cache_counter counter)
{
	a64_count((struct a64 *)&c->counters[counter_group()] + counter, 1);
}

void cache_get_stats(struct cache *c, struct cache_stats *ret)
{
	struct cache_stats o = {
		.limit = arena_limit(&c->arena),
		.used = arena_used(&c->arena),
		.kept = arena_kept(&c->arena),
		.dirty = a64_read(&c->dirty) << CACHE_PAGE_SHIFT,
	};

	for (unsigned g = 0; g < COUNTER_GROUPS; g++) {
#define CACHE_COUNTER_SUM(name, what) o.count.name += a64_read(&c->counters[g].name);
		CACHE_COUNTERS(CACHE_COUNTER_SUM)
#undef CACHE_COUNTER_SUM
	}
	*ret = o;
}
