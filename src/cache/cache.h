/* SPDX-License-Identifier: MIT */
/*
 * cache: blocks of bytes in bounded memory, each filled once however many readers want it.
 *
 * Used by: vfs. Uses: base. Never: FUSE, formats; who owns the bytes is behind struct cache_ops.
 *
 * A mapping is an array of blocks that its owner can fill (the image's data blocks, by block number). A reader gets
 * a reference to a block's bytes; while it holds it the bytes stay where they are and don't change. The memory of
 * all blocks together never exceeds the limit that the cache was made with: a reader waits for memory if all of it
 * is referenced or being filled.
 *
 * All functions are thread safe. cache_get() sleeps (I/O, other readers' I/O) and is called without locks.
 */
#ifndef PINFS_CACHE_CACHE_H
#define PINFS_CACHE_CACHE_H

#include "base/util.h"

struct cache;
struct cache_mapping;
struct cache_block;

struct cache_fill {
	uint8_t *data; /* block_size bytes to fill */
	uint32_t len;  /* out: bytes that are there now, 1 to block_size */
	int error;     /* out: 0, or -errno for this block alone */
};

struct cache_ops {
	/* Fills blocks first … first + count - 1, each with its own result. Called without locks, from readers and
	 * from readahead threads, several at a time, never twice at once for the same block. */
	void (*fill)(void *owner, uint64_t first, unsigned count, struct cache_fill *fills);
};

struct cache_options {
	size_t limit;		    /* bytes for all blocks; at least 8 × block_size is used */
	unsigned readahead_threads; /* 0: no readahead */
};

int cache_new(const struct cache_options *options, struct cache **ret);
/* No reference may be held and no cache_get() under way. Ends the readahead threads. NULL is allowed. */
void cache_free(struct cache *cache);

/* block_size: a power of two from 4 KiB to 1 MiB; count: blocks in the mapping (readahead stops there). */
int cache_mapping_new(struct cache *cache, const struct cache_ops *ops, void *owner, uint32_t block_size,
	uint64_t count, struct cache_mapping **ret);
void cache_mapping_free(struct cache_mapping *mapping);

struct cache_ref {
	const uint8_t *data;
	uint32_t len;
	struct cache_block *block; /* private */
};

/*
 * Before a thread takes references to several blocks at once it reserves their number, and gives it back when it has
 * put them all; otherwise readers who each hold some blocks could wait for each other's memory. Who holds one block at
 * a time and nothing else reserves 1. Sleeps; never while references are held. -ENOMEM: more than the cache can hold.
 */
int cache_reserve(struct cache_mapping *mapping, unsigned blocks);
void cache_unreserve(struct cache_mapping *mapping, unsigned blocks);

/*
 * References block `index`, filling it if needed; concurrent readers of one block wait for one fill. A failed fill
 * is the error of everybody who waited for it, and leaves nothing behind: the next reader tries again (R13).
 * Recognises ascending access and reads ahead of it.
 */
int cache_get(struct cache_mapping *mapping, uint64_t index, struct cache_ref *ret);
/* The same; the caller will get the following run - 1 blocks next: missing ones are fetched meanwhile, in parallel. */
int cache_get_run(struct cache_mapping *mapping, uint64_t index, unsigned run, struct cache_ref *ret);

enum cache_hint {
	CACHE_KEEP, /* may be wanted again */
	CACHE_COLD, /* was handed to the kernel's page cache in whole: the first to go */
};
void cache_put(struct cache_mapping *mapping, struct cache_ref *ref, enum cache_hint hint);

struct cache_stats {
	uint64_t hits, misses, waits, fills, fill_errors, readahead, readahead_used, evictions;
	uint64_t limit, used; /* bytes */
};
void cache_get_stats(struct cache *cache, struct cache_stats *ret);

#endif
