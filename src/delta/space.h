/* SPDX-License-Identifier: MIT */
/*
 * space: which pages of a delta are used, promised, or free.
 *
 *	            reserve                 alloc                commit (live)
 *	free pages ────────► promised ────────────────► in flight ────────────► live
 *	    ▲                                              │ cancel               │ free
 *	    └──────────────────────────────────────────────┴── when the next ◄────┘
 *	                                                       checkpoint is durable
 *
 * A page is taken while it is in flight, live, or used by the checkpoint that a crash would lead back to: so what that
 * refers to is never overwritten. So is one that a frame behind that checkpoint refers to, also if a later frame has freed it: after a crash
 * the later one may be missing, and the content of frames that nobody knows to be durable is compared with their checksums. Pages are only handed out where the disk has promised that they can be written
 * (store_allocate), and promised to writers only then: a full disk is known before anything becomes dirty.
 *
 * One thread at a time: the delta's lock. Only what asks the disk for more does I/O.
 */
#ifndef PINFS_DELTA_SPACE_H
#define PINFS_DELTA_SPACE_H

#include "base/util.h"
#include "io/store.h"

struct space;

/* first: page before which nothing is handed out; limit: pages of the delta at most (0: none). */
int space_new(struct store *store, uint64_t first, uint64_t limit, struct space **ret);
void space_free_all(struct space *space);

/* ---- taking ---- */

/*
 * Promises `pages` to a writer (mkwrite). -ENOSPC; -EDQUOT and other errors of the disk. Pages of the delta's own reserve, that
 * checkpoints need, are kept back.
 */
int space_reserve(struct space *space, uint64_t pages);
void space_unreserve(struct space *space, uint64_t pages);
/* One of those that are kept for the next checkpoint. */
int space_reserve_last(struct space *space);
/* Keeps so many pages for the next checkpoint. Errors as space_reserve(); then it keeps what there is. */
int space_set_own(struct space *space, uint64_t pages);
/* Pages that can be handed out at once, promised ones among them. */
uint64_t space_ready(const struct space *space);

/*
 * Takes up to `want` free pages in a row, at least `least`: how many, 0 if there are none. They are in flight. They are the
 * caller's promised ones (he gives the promise up by himself), or a checkpoint's own.
 */
uint64_t space_alloc(struct space *space, uint64_t want, uint64_t least, uint64_t *ret_first);
/* Takes exactly so many in a row, for a checkpoint. 0, or why there are none. */
int space_alloc_run(struct space *space, uint64_t pages, uint64_t *ret_first);
/* In flight ones are not needed after all. */
void space_cancel(struct space *space, uint64_t first, uint64_t pages);
/* In flight ones (or, in replay, any) are part of the delta now. False: some are already, which is damage in replay. */
bool space_live(struct space *space, uint64_t first, uint64_t pages);
/* Live ones are not part of it any more. False: some are not live. */
bool space_free(struct space *space, uint64_t first, uint64_t pages);
/* The same for what frames of the log refer to: it stays taken until the log begins behind them. */
bool space_release(struct space *space, uint64_t first, uint64_t pages);
/* Pages that wait for that. */
uint64_t space_waiting(const struct space *space);
/* The opposite of space_release(), for a transaction that is undone. */
void space_unfree(struct space *space, uint64_t first, uint64_t pages);
void space_unlive(struct space *space, uint64_t first, uint64_t pages);

/* ---- checkpoints ---- */

/* Number of pages that a map has to describe, and a copy of which are live: space_map_bytes(bits) bytes. */
uint64_t space_bits(const struct space *space);
static inline size_t space_map_bytes(uint64_t bits)
{
	return (size_t)DIV_ROUND_UP(bits, 8);
}
/* bits: at least space_bits(). Whole bytes behind are set to 0. */
void space_snapshot(const struct space *space, uint64_t bits, uint8_t *ret_map);
/* What was released so far is free once a checkpoint is durable that is frozen now. */
void space_frozen(struct space *space);
/*
 * The checkpoint with this map is durable: what is neither in it nor live nor in flight, nor released since it was frozen, is free from now on. Allocates nothing.
 */
void space_checkpointed(struct space *space, const uint8_t *map, uint64_t bits);
/* The map of the checkpoint that was found at the start: live, and used by it. -ENOMEM. */
int space_load(struct space *space, const uint8_t *map, uint64_t bits);

/* ---- giving back ---- */

/*
 * Giving free pages of [first, *end) back to the disk, from the end on: takes the next run, of at least `least`, out of what is free, so that the
 * caller can punch it without the lock; how many, 0: there are no more. What is promised stays, and `keep` pages beside it. all: also what the
 * disk has perhaps, not only what it has promised. The run goes back with space_trim_end().
 */
uint64_t space_trim_begin(struct space *space, uint64_t first, uint64_t *end, uint64_t least, uint64_t keep, bool all, uint64_t *ret_first);
void space_trim_end(struct space *space, uint64_t first, uint64_t pages, bool given);

struct space_stats {
	uint64_t live;	   /* pages that the delta uses */
	uint64_t pending;  /* that will be free after the next checkpoint */
	uint64_t flight, reserved;
	uint64_t free;	   /* that the delta could still take, promised ones not among them; what the disk has at the moment */
	uint64_t bits;	   /* pages up to the last one that was ever taken */
	uint64_t backed;   /* free pages that the disk has promised */
};
/* Asks the disk. */
void space_get_stats(struct space *space, struct space_stats *ret);
bool space_is_live(const struct space *space, uint64_t page);

/* ---- for fsck ---- */

/* The next run of live pages from `page` on; 0: none. */
uint64_t space_live_next(const struct space *space, uint64_t page, uint64_t *ret_first);
/* Pages of this map are live; none up to `end` is handed out before the next checkpoint. -ENOMEM; errors of the disk, which has to promise others. */
int space_rebuild(struct space *space, const uint8_t *map, uint64_t bits, uint64_t end);

#endif
