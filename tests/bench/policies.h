/* SPDX-License-Identifier: MIT */
/* Eviction policies, simulated over a sequence of accesses to units of one size. */
#ifndef PINFS_TESTS_POLICIES_H
#define PINFS_TESTS_POLICIES_H

#include "base/util.h"

struct access {
	uint32_t id;   /* of the unit, from 0 on */
	uint16_t run;  /* as recorded */
	uint8_t found; /* enum trace_found, as recorded */
	bool cold;     /* handed back with CACHE_COLD */
};

struct sequence {
	struct access *accesses;
	size_t count;
	uint32_t units; /* ids are below it */
};

enum policy {
	POLICY_LRU,
	POLICY_FIFO,
	POLICY_CLOCK,
	POLICY_SIEVE,
	POLICY_S3FIFO,
	POLICY_PROBATION, /* SIEVE behind a queue that new units must pass */
	POLICY_MIN, /* Belady: what is wanted last goes; nobody can be better */
	POLICIES
};
const char *policy_name(enum policy policy);

/* What a unit that is handed back cold (CACHE_COLD) is to a policy. */
enum hint {
	HINT_NOTHING,
	HINT_FIRST,  /* waits in a queue of its own and goes before all others, unless it is used again there */
	HINT_FORGET, /* stays where it is, but has not been used */
};

/* Hits of a cache of `capacity` units, at least 1. POLICY_MIN takes no hints. */
uint64_t policy_hits(enum policy policy, const struct sequence *sequence, uint32_t capacity, enum hint hint);

/* Compares all with naive implementations, MIN also with a search, SIEVE also with the page cache. False: said why. */
bool policies_check(void);

/* ---- replay_cache.c ---- */

struct cache_replay {
	unsigned readahead_threads;
	bool hints; /* as recorded; else all CACHE_KEEP */
	uint32_t unit_size;
	/* What a unit is called to the cache: of which mapping, and its number there. */
	const uint32_t *mapping; /* by id, from 1 */
	const uint64_t *number;	 /* by id */
	uint32_t mappings;
};
struct cache_replay_result {
	uint64_t hits, reads; /* reads: units, wanted or read ahead */
};
/* Replays the accesses through the page cache itself, one after another; readahead always comes in time. */
void cache_replay(const struct cache_replay *how, const struct sequence *sequence, uint32_t capacity,
	struct cache_replay_result *ret);

#endif
