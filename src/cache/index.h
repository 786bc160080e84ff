/* SPDX-License-Identifier: MIT */
/*
 * index: which folio holds which unit of a mapping. A radix tree with a mark for what is dirty.
 *
 * Used by: cache. Private to src/cache.
 *
 * Changed under the mapping's INDEX lock. Read without any: nodes are only ever reused as nodes, so a reader that
 * meets a change goes astray but never out of bounds; what it finds it must reference and then compare with what it
 * looked for (cache.c, lookup).
 *
 * Nodes come from a pool. It grows only in index_reserve(), which may sleep and comes before the lock.
 */
#ifndef PINFS_CACHE_INDEX_H
#define PINFS_CACHE_INDEX_H

#include "base/mem.h"
#include "base/sync.h"
#include "cache/page.h"

#ifndef CACHE_INDEX_SHIFT
#define CACHE_INDEX_SHIFT 6u
#endif
#define INDEX_FAN (1u << CACHE_INDEX_SHIFT)
/* Of a unit's number. */
#ifndef CACHE_INDEX_BITS
#define CACHE_INDEX_BITS 64u
#endif
#ifndef CACHE_INDEX_SLABS
#define CACHE_INDEX_SLABS 65536u
#define CACHE_INDEX_SLAB_SHIFT 6u
#endif

struct index_node {
	struct a32 slots[INDEX_FAN]; /* 0: none; else 1 + a node, or in the lowest level 1 + a frame */
	uint64_t dirty;		     /* INDEX lock: slots with something dirty below */
	uint32_t parent;	     /* INDEX lock: 1 + node; in the pool's list: the next free one */
	uint16_t count;		     /* INDEX lock: slots in use */
	struct a32 shift;	     /* of a unit's number, for the slot; const while in the tree */
	uint8_t offset;		     /* INDEX lock: the slot in its parent */
};

struct index_pool {
	struct mutex lock;
	struct a32 count;	    /* nodes that exist */
	uint32_t free;		    /* lock: 1 + the first free one */
	uint32_t free_count;	    /* lock */
	uint32_t reserved;	    /* lock: free ones that are promised */
	struct index_node **slabs;  /* CACHE_INDEX_SLABS; written before `count` says so */
};

struct index {
	struct a32 root; /* 1 + node; 0: empty */
};

int index_pool_init(struct index_pool *pool);
void index_pool_destroy(struct index_pool *pool);

/* Promises the nodes that inserting a unit may need; how many goes to index_unreserve() with those not used. Sleeps. */
int index_reserve(struct index_pool *pool, unsigned *ret_nodes);
void index_unreserve(struct index_pool *pool, unsigned nodes);

/* Without a lock: the frame, or FRAME_NONE; perhaps of a folio that has just left, or of another unit. */
uint32_t index_find(const struct index_pool *pool, const struct index *index, uint64_t unit);

/* Under the INDEX lock. Insert: the unit is not there; *nodes is what was reserved, and then what is left of it. */
void index_insert_locked(struct index_pool *pool, struct index *index, uint64_t unit, uint32_t frame, unsigned *nodes);
void index_remove_locked(struct index_pool *pool, struct index *index, uint64_t unit);
void index_mark_locked(struct index_pool *pool, struct index *index, uint64_t unit, bool dirty);
/* The first unit from *unit on that is there (and dirty): its frame, and *unit is it; FRAME_NONE: no more. */
uint32_t index_next_locked(struct index_pool *pool, const struct index *index, uint64_t *unit, bool dirty);

#endif
