/* SPDX-License-Identifier: MIT */
/*
 * arena: frames of page memory and their descriptors, in one region. A buddy allocator.
 *
 * Used by: cache. Uses: base. Private to src/cache.
 *
 * What was touched once is kept, until arena_return(): the arena grows page by page to its limit and hands freed memory
 * out again before fresh memory (warm in the processor's caches, no page faults). Thread safe; its lock is a leaf.
 *
 * Single pages that can't go (dirty, and the disk takes no writes; pinned) could lie in every large chunk, and leave none whole. So
 * there are two zones: who needs the largest chunks gets them in both, everybody else in the low one alone.
 */
#ifndef PINFS_CACHE_ARENA_H
#define PINFS_CACHE_ARENA_H

#include "base/mem.h"
#include "cache/folio.h"

#define ARENA_ORDERS (CACHE_ORDER_MAX + 1)

struct arena {
	struct mem_region region; /* descriptors, then page memory */
	struct folio *frames;	  /* `capacity` descriptors */
	uint8_t *memory;
	uint32_t capacity; /* frames of address space */
	uint32_t split;	   /* const: the first frame of the high zone; on the border of two chunks of any order */

	struct mutex lock;
	struct arena_zone {
		uint32_t heads[2][ARENA_ORDERS]; /* lock: free chunks; [1]: whose memory the system has */
		uint32_t grown;			 /* lock: the first frame that was never on a free list */
	} zones[2];	   /* low, high */
	uint32_t limit;	   /* lock: frames that may be given out, in both */
	uint32_t used;	   /* lock: frames in use */
	uint32_t returned; /* lock: frames in the lists of [1] */
};

/* The high zone: an eighth of the memory, but 4 MiB if that is not more than three eighths: reads of some units fit. In frames. */
#define ARENA_HIGH(frames) MIN((uint64_t)(frames) * 3 / 8, MAX((uint64_t)(frames) / 8, (uint64_t)(4u << 20 >> CACHE_PAGE_SHIFT)))

/* capacity, limit: bytes. Address space is taken for capacity; limit of it may be used. 0 or -ENOMEM. */
int arena_init(struct arena *arena, size_t capacity, size_t limit);
void arena_destroy(struct arena *arena);
/* Raises the limit to at least `limit` bytes, but not over the capacity. */
void arena_raise_limit(struct arena *arena, size_t limit);

enum arena_source {
	ARENA_USED_BEFORE, /* only memory that was in use before */
	ARENA_FRESH,	   /* that, or else memory never touched so far */
	ARENA_NUMBERS,	   /* frames without memory: what was touched is given back first. Sleeps */
};

/* The smallest order whose chunk has room for `bytes`. */
static inline unsigned arena_order(size_t bytes)
{
	unsigned order = 0;

	while (((size_t)CACHE_PAGE_SIZE << order) < bytes)
		order++;
	return order;
}

/* The first of `count` frames, count up to 2^order of a chunk of which the rest is given back; or FRAME_NONE. high: also of the high zone. */
uint32_t arena_alloc(struct arena *arena, uint32_t count, bool high, enum arena_source source);
/* Any run of frames that is in use, also parts of what was allocated at once. numbers: they were that. */
void arena_free(struct arena *arena, uint32_t frame, uint32_t count, bool numbers);

static inline uint8_t *arena_address(const struct arena *arena, uint32_t frame)
{
	return arena->memory + ((size_t)frame << CACHE_PAGE_SHIFT);
}

/* Gives the memory of what is free back to the system. Frames; it may be used again as before. Sleeps. */
uint32_t arena_return(struct arena *arena);

/* Bytes: what may be in use, of it in the high zone; what is; and that with what is free but touched. */
size_t arena_limit(struct arena *arena);
size_t arena_high(struct arena *arena);
size_t arena_kept(struct arena *arena);
size_t arena_used(struct arena *arena);

#endif
