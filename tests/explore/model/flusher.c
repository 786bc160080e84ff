/* SPDX-License-Identifier: MIT */
/* No flusher in the explorer: scenarios write back as threads of their own, and there is no time. */
#include "cache/internal.h"

int flusher_init(struct cache *c, const struct cache_options *o)
{
	return 0;
}

void flusher_destroy(struct cache *c)
{
}

void flusher_start(struct cache *c)
{
}

void flusher_wake(struct cache *c)
{
}

uint64_t flusher_now(void)
{
	return 0;
}
