/* SPDX-License-Identifier: MIT */
/*
 * What the files of src/cache share.
 *
 * A block:
 *
 *	           block_insert            block_complete
 *	(absent) ───────────────► FILLING ───────────────► UPTODATE ──► (absent)   block_evict: no references
 *	                             │
 *	                             └───────────────────► FAILED ────► (freed)    with its last reference
 *	                                block_complete: out of the hash at once
 *
 * FILLING: in the hash; whoever fills it and whoever waits holds a reference. Its bytes belong to the filler.
 * UPTODATE: in the hash and in one of its shard's lists; its bytes don't change.
 * FAILED: in no hash and no list; exists only for those who waited, to read `error`.
 */
#ifndef PINFS_CACHE_INTERNAL_H
#define PINFS_CACHE_INTERNAL_H

#include "base/sync.h"
#include "cache/arena.h"
#include "cache/cache.h"

#define CACHE_BLOCK_MAX (1u << 20)
#define SHARDS 16u /* a power of two */
#define STREAMS 8u
#define RA_QUEUE 64u
#define RA_THREADS_MAX 16u
/* Cold blocks are kept this long: another request for the rest of the block may be under way. */
#define COLD_SLACK (4u << 20)

enum block_state {
	BLOCK_FILLING,
	BLOCK_UPTODATE,
	BLOCK_FAILED,
};

struct block_list {
	struct cache_block *newest, *oldest;
};

struct cache_block {
	struct cache_mapping *mapping; /* const */
	uint64_t index;		       /* const */
	struct cache_block *hash_next; /* shard lock, as all below */
	struct cache_block *newer, *older;
	enum block_state state;
	bool visited;	/* got since the hand last passed */
	bool cold;	/* in the shard's cold list, not in its main list */
	bool marker;	/* reading this block is the time to read further ahead */
	bool readahead; /* fetched ahead, and nobody has wanted it so far */
	unsigned refs, waiters;
	int error;
	uint32_t page, pages; /* in the arena: the filler's while FILLING, then const */
	uint32_t len;
};

struct shard {
	struct mutex lock;
	struct cond filled;
	struct cache_block **buckets;
	struct block_list main; /* SIEVE: newest first; the hand walks from the oldest to the newest */
	struct block_list cold; /* first in, first out */
	struct cache_block *hand;
	uint64_t hits, waits, readahead_used;
} __attribute__((aligned(64)));

struct ra_job {
	struct cache_mapping *mapping;
	uint64_t first;
	unsigned count;
	bool mark; /* its first block gets the marker */
};

struct cache {
	struct arena arena;
	unsigned max_order; /* of all mappings' blocks; changes only in cache_mapping_new() */
	unsigned bucket_mask;
	struct shard shards[SHARDS];

	/* Waiting for memory: an event count. */
	struct mutex memory_lock;
	struct cond memory_freed;
	uint64_t memory_events;	    /* memory_lock */
	atomic_uint memory_waiters;
	atomic_uint next_shard[2];  /* where the next eviction begins; of cold blocks: [1] */
	atomic_size_t cold_bytes;

	/* Admission: see cache_reserve(). */
	struct mutex reserve_lock;
	struct cond reserve_freed;
	unsigned reserve_free, reserve_total;	  /* reserve_lock */
	uint64_t reserve_ticket, reserve_serving; /* reserve_lock */

	size_t ra_limit; /* bytes in a batch at most; 0: no readahead. Const */
	struct mutex ra_lock;
	struct cond ra_work, ra_done;
	struct ra_job ra_queue[RA_QUEUE]; /* ra_lock, as all below: a ring */
	unsigned ra_first, ra_count;
	unsigned ra_wanted, ra_started, ra_idle;
	bool ra_stop;
	pthread_t ra_threads[RA_THREADS_MAX];

	atomic_uint_fast64_t misses, fills, fill_errors, readahead, evictions;
	atomic_uint mappings; /* for their numbers */
};

/* One reader (or several that look like one) who goes through ascending blocks. */
struct stream {
	uint64_t next;	 /* the block after the last one wanted */
	uint64_t end;	 /* everything before was asked for */
	unsigned window; /* blocks to read ahead; 0: not yet known to ascend */
	uint64_t used;	 /* clock, for replacement */
};

struct cache_mapping {
	struct cache *cache;
	const struct cache_ops *ops;
	void *owner;
	uint32_t block_size;
	unsigned order;
	unsigned id;
	uint64_t count;

	struct mutex stream_lock;
	struct stream streams[STREAMS]; /* stream_lock */
	uint64_t stream_clock;		/* stream_lock */
	unsigned ra_running;		/* cache.ra_lock: jobs being worked on */
};

/* ---- cache.c ---- */

struct shard *shard_of(struct cache *cache, const struct cache_mapping *mapping, uint64_t index, unsigned *ret_bucket);
struct cache_block *block_find_locked(struct shard *shard, unsigned bucket, const struct cache_mapping *mapping,
	uint64_t index);
/* A new FILLING block with one reference, in the hash. */
void block_insert_locked(struct shard *shard, unsigned bucket, struct cache_block *block);
void block_list_remove_locked(struct cache *cache, struct shard *shard, struct cache_block *block);
void block_list_push_locked(struct cache *cache, struct shard *shard, struct cache_block *block, bool cold);
void block_unhash_locked(struct cache *cache, struct shard *shard, struct cache_block *block);
struct cache_block *block_new(struct cache_mapping *mapping, uint64_t index);
/* Publishes the result of a fill and wakes who waits for it. keep: the caller's reference becomes a reader's. */
void block_complete(struct cache_block *block, const struct cache_fill *fill, bool keep);

/* ---- memory.c ---- */

/* Memory for a block of 2^order pages: its first page. wait: sleep until there is some; else ARENA_NONE. */
uint32_t memory_alloc(struct cache *cache, unsigned order, bool wait);
/* After something became evictable or free. Called without locks. */
void memory_event(struct cache *cache);
/* Gives back what a block of `len` bytes doesn't need of its 2^order pages; may move the bytes. */
void memory_trim(struct cache *cache, struct cache_block *block, uint32_t len);

/* ---- readahead.c ---- */

/* Block `index` was missing, or had the marker; it and the run - 1 blocks after it are wanted now. */
void readahead_access(struct cache_mapping *mapping, uint64_t index, unsigned run);
void readahead_init(struct cache *cache, unsigned threads);
/* Ends the threads. */
void readahead_destroy(struct cache *cache);
/* Drops the mapping's jobs and waits for those under way. */
void readahead_forget(struct cache_mapping *mapping);

#endif
