/* SPDX-License-Identifier: MIT */
/*
 * arena: page memory in powers of two, from 4 KiB to 1 MiB, out of one mapping. A buddy allocator.
 *
 * Used by: cache. Uses: base. Private to src/cache.
 *
 * What was touched once is kept: the arena grows page by page to its limit and hands freed memory out again before
 * fresh memory (warm in the processor's caches, no page faults). Thread safe; its lock is a leaf.
 */
#ifndef PINFS_CACHE_ARENA_H
#define PINFS_CACHE_ARENA_H

#include "base/sync.h"
#include "base/util.h"

#define ARENA_PAGE_SHIFT 12
#define ARENA_PAGE_SIZE (1u << ARENA_PAGE_SHIFT)
#define ARENA_ORDERS 9u /* 4 KiB … 1 MiB */
#define ARENA_NONE UINT32_MAX

struct arena_page {
	uint32_t next, prev; /* free list of its order, if this is the first page of a free chunk */
	uint8_t order;
	bool free; /* the first page of a free chunk */
};

struct arena {
	uint8_t *base;
	uint32_t capacity; /* pages of address space */

	struct mutex lock;
	struct arena_page *pages;     /* lock */
	uint32_t heads[ARENA_ORDERS]; /* lock: free chunks */
	uint32_t limit;		      /* lock: pages that may be given out */
	uint32_t grown;		      /* lock: pages that were ever on a free list */
	uint32_t used;		      /* lock: pages in use */
};

/* capacity, limit: bytes. Address space is taken for capacity; limit of it may be used. 0 or -ENOMEM. */
int arena_init(struct arena *arena, size_t capacity, size_t limit);
void arena_destroy(struct arena *arena);
/* Raises the limit to at least `limit` bytes, but not over the capacity. */
void arena_raise_limit(struct arena *arena, size_t limit);

enum arena_source {
	ARENA_USED_BEFORE, /* only memory that was in use before */
	ARENA_FRESH,	   /* that, or else memory never touched so far */
	ARENA_PARTIAL,	   /* only by splitting a chunk smaller than `below` */
};

static inline unsigned arena_order(size_t bytes)
{
	unsigned order = 0;

	while (((size_t)ARENA_PAGE_SIZE << order) < bytes)
		order++;
	return order;
}

/* The number of the first of 2^order pages, or ARENA_NONE. below: for ARENA_PARTIAL, an order. Never sleeps. */
uint32_t arena_alloc(struct arena *arena, unsigned order, enum arena_source source, unsigned below);
/* Any run of pages that is in use, also parts of what was allocated at once. */
void arena_free(struct arena *arena, uint32_t page, uint32_t count);

static inline uint8_t *arena_address(const struct arena *arena, uint32_t page)
{
	return arena->base + ((size_t)page << ARENA_PAGE_SHIFT);
}

size_t arena_limit(struct arena *arena);
size_t arena_used(struct arena *arena);

#endif
