/* SPDX-License-Identifier: MIT */
/*
 * folio: the descriptors of page memory. What a page is, who may touch it, and the rules that all of pinfs keeps.
 *
 * Used by: cache, mm. Uses: base.
 *
 * Page memory is numbered in frames of CACHE_PAGE_SIZE; each frame has one descriptor of 64 bytes in an array beside it.
 * A folio is up to 2^order frames in a row that belong to one unit of a mapping; the descriptor of its first frame
 * speaks for all of it (flags, refs, identity), each frame's own one for that page (state, pins). The array has no
 * pointers: folios name each other by frame, so that another process that maps it understands it. A file that is shared with
 * other processes has its bytes in memory of its own (cache_mapping_move()); its frames are then numbers that count, and no more.
 *
 * A page of a file:
 *
 *	            unit_complete             folio_mkwrite                page_begin
 *	(absent) ──────────────► UPTODATE ────────────────► UPTODATE ─────────────────────► UPTODATE
 *	                          clean  ◄──┐               DIRTY   ◄──┐  not pinned: WRITEBACK, from the page itself
 *	                            │       │                 │        │  write-pinned, or writable by who isn't
 *	                            │       └─────────────────┼────────┤  trusted: WRITEBACK|DIRTY, from a bounce copy
 *	                            │      page_end_writeback │        └──────────────────────────┘
 *	                            │                         │         mapping_redirty: error; or was pinned
 *	          folio_reclaim ────┤                         │
 *	          (no pins)         ▼                         ▼
 *	                        (freed)              folio_detach: DETACHED, leaves the file at once;
 *	                                             the memory is freed with the last reference and the last pin
 *
 * Each page of a folio goes its own way through this: some may be uptodate or dirty, and others absent, when a unit was
 * written in part and nobody has wanted its rest so far (unit_fill reads that, and leaves what is there).
 *
 * The rules; each is an assertion (assert_folio_state() or at its place), a counter (counters.h) and a property that
 * tests/explore checks. README.md beside this file has the table.
 *
 *  R1  A clean page becomes dirty only after `mkwrite` returned success for it.
 *  R2  The bytes that are compressed, checksummed or written never change under it: write-protect in every address
 *      range, then read the pins, then decide where the bytes come from, and only then take the first one.
 *  R3  A write-pinned page stays dirty after its writeback. Unpin never calls mkwrite.
 *  R4  A pinned page is neither reclaimed nor moved nor reused. Unmap, then test pins, then free.
 *  R5  Truncate and hole punch detach a pinned page: it leaves the file at once, its memory stays until the last unpin.
 *  R8  No I/O, no sleeping, no allocation under the mm lock (base/sync.h).
 *  R10 A fast pin: add to the count, full barrier, look at the page table entry again; changed: take it back.
 *      Cleaning: clear the writable bit, full barrier, read the count.
 *  R13 A short or failed read never makes a page uptodate. A failed writeback keeps the page dirty, and is reported
 *      once to each open file.
 *  (R6, R7, R9, R11, R12 are those of src/mm.)
 *
 * Locks: base/lock_order.h. The folio lock is a bit in `flags`; who holds it may sleep, but not wait for a fault or
 * for an inode lock. Folios are locked in ascending order of their place in a file.
 */
#ifndef PINFS_CACHE_FOLIO_H
#define PINFS_CACHE_FOLIO_H

#include <assert.h>

#include "base/sync.h"
#include "base/util.h"
#include "cache/page.h"

/* Bits of `flags`. */
enum {
	FOLIO_LOCKED = 1u << 0,
	FOLIO_WAITERS = 1u << 1,  /* somebody sleeps on `flags` */
	FOLIO_UPTODATE = 1u << 2, /* all pages are; set once. Lets readers of all of it look at one word */
	FOLIO_FAILED = 1u << 3,	  /* could not be read; in no mapping any more; `error` is why */
	FOLIO_DETACHED = 1u << 4, /* in no mapping any more */
	FOLIO_VISITED = 1u << 5,  /* wanted since reclaim last looked */
	FOLIO_MARKER = 1u << 6,	  /* reading it is the time to read further ahead */
	FOLIO_AHEAD = 1u << 7,	  /* read ahead, and nobody has wanted it so far */
	FOLIO_COLD = 1u << 8,	  /* RECLAIM lock: in the queue of those that go first */
	FOLIO_QUEUED = 1u << 9,	  /* RECLAIM lock: in a queue */
	FOLIO_PARKED = 1u << 10,  /* no reference is left, but pins are: the last unpin frees it */
	FOLIO_YOUNG = 1u << 12,	  /* RECLAIM lock: in the queue of those that came last */
	FOLIO_PRIVATE = 1u << 11, /* belongs to an address space, not to a file (src/mm) */
};

/* Bits of `state`, for each page. */
enum {
	PAGE_UPTODATE = 1u << 0,
	PAGE_DIRTY = 1u << 1,	  /* has space reserved, and is to be written */
	PAGE_WRITEBACK = 1u << 2, /* is being written */
	PAGE_BOUNCED = 1u << 3,	  /* with WRITEBACK: its bytes come from a copy, the page may change */
	PAGE_WAITERS = 1u << 4,	  /* somebody sleeps on `state` until WRITEBACK ends */
};

#define PIN_READ ((uint64_t)1)
#define PIN_WRITE ((uint64_t)1 << 32)
/* Far from where a half would run over, however many threads add one before they look. */
#define PIN_LIMIT (1u << 30)

struct folio {
	struct a32 flags;     /* FOLIO_* */
	struct a32 refs;      /* one for the mapping that it is in, one for each user; 0: free, or about to be */
	struct a64 pins;      /* each page's: readers in the low half, writers in the high half; exact (R10) */
	struct a32 state;     /* each page's: PAGE_*; changes under the folio lock, WRITEBACK's end excepted */
	uint32_t mapping;     /* number; const while refs */
	uint64_t unit;	      /* place in the mapping, in units; const while refs */
	uint32_t next, prev;  /* RECLAIM lock: queue; ARENA lock: free list. Frames */
	uint32_t len;	      /* bytes that it has; const while refs */
	union {
		int32_t error; /* with FAILED: -errno */
		uint32_t cuts; /* while it is being read: the mapping's count when that began */
	};
	uint16_t pages;	      /* frames that it has; const while refs */
	uint8_t order;	      /* ARENA lock: of a free chunk */
	uint8_t free;	      /* ARENA lock: first frame of a free chunk */
	struct a32 came;      /* when it was queued: pages that had come before it */
	struct a32 head;      /* each frame's: the first frame of the folio that it is in, or was in last */
	uint32_t outside;     /* where its bytes are: 0 in the arena, else one of cache.outside[]; const while refs */
};
_Static_assert(sizeof(struct folio) <= 64, "descriptors are one cache line");

static inline unsigned pins_reading(uint64_t pins)
{
	return (uint32_t)pins;
}
static inline unsigned pins_writing(uint64_t pins)
{
	return (uint32_t)(pins >> 32);
}

#endif
