/* SPDX-License-Identifier: MIT */
/* No readahead in the explorer: it needs threads that the scenarios don't list. */
#include "cache/internal.h"

void readahead_access(struct cache_mapping *m, uint64_t unit, unsigned run)
{
}

void readahead_init(struct cache *c, unsigned threads)
{
}

void readahead_destroy(struct cache *c)
{
}

void readahead_forget(struct cache_mapping *m)
{
}
