/* SPDX-License-Identifier: MIT */
/* What the files of src/cache share. */
#ifndef PINFS_CACHE_INTERNAL_H
#define PINFS_CACHE_INTERNAL_H

#include "cache/arena.h"
#include "cache/cache.h"
#include "cache/index.h"
#include "cache/trace.h"
#include "cache/variant.h"

#define STREAMS 8u
#define RA_QUEUE 64u
#define RA_THREADS_MAX 16u
/* At most this part of the memory is dirty, if that can't be written. */
#define CACHE_DIRTY_MOST_SHARE 2

/* In per cent of the young queue's share: see on_probation(). */
#ifndef CACHE_YOUNG_WINDOW
#define CACHE_YOUNG_WINDOW 75u
#endif

struct queue {
	uint32_t newest, oldest; /* frames */
	uint32_t pages, low;	 /* how many; of them in the arena's low zone */
};

/* One counter, beside others that other threads count: the groups keep them apart. */
#define COUNTER_GROUPS 8u
struct counters {
#define CACHE_COUNTER_ATOMIC(name, what) struct a64 name;
	CACHE_COUNTERS(CACHE_COUNTER_ATOMIC)
#undef CACHE_COUNTER_ATOMIC
	uint8_t apart[64]; /* no cache line has counters of two groups, wherever this begins */
};

/* flusher.c */
struct flusher {
	pthread_t thread;
	struct mutex lock;
	int wake_fd;	     /* an eventfd */
	int pressure_fd;     /* of cache_options; or -1 */
	struct a32 started;  /* changes under lock; or has failed to */
	struct a32 asked;    /* somebody has written to wake_fd since the last look */
	struct a32 stop;
	unsigned expire_ms, interval_ms;
};

struct ra_job {
	struct cache_mapping *mapping;
	uint64_t first;
	unsigned count;
	bool mark; /* its first folio gets the marker */
};

/* outside.c */
#ifndef CACHE_OUTSIDE_MAX
#define CACHE_OUTSIDE_MAX 4096u
#endif

struct outside {
	struct cache_outside o; /* const while a mapping has it, or a folio that somebody references */
	unsigned shift;		/* of a unit's bytes; const like that */
	bool taken;		/* mappings_lock: a mapping has it */
	struct a32 folios;	/* that have it */
	struct a32 parked;	/* of them those that wait for their last unpin alone */
};

struct cache {
	struct arena arena;
	struct outside *outside; /* CACHE_OUTSIDE_MAX; [0] is never taken. NULL: none ever was; else const. Changes under mappings_lock */
	struct index_pool nodes;
	struct a32 max_order; /* of all mappings' units; changes only in cache_mapping_new(), under reserve_lock */
	struct counters counters[COUNTER_GROUPS];
	struct trace trace;

	struct mutex mappings_lock;
	struct cache_mapping **mappings; /* mappings_lock; by number, from 1 */
	size_t mappings_size;		 /* mappings_lock */
	uint32_t mappings_hint;		 /* mappings_lock */
	struct cache_mapping *dirty_first, *dirty_last; /* mappings_lock: those with dirty pages */
	size_t dirty_mappings;		 /* mappings_lock: how many */

	struct mutex reclaim_lock;
	struct queue young, cold; /* reclaim_lock. First in, first out */
	struct queue main;	  /* reclaim_lock. SIEVE: newest first; the hand walks from the oldest to the newest */
	uint32_t hand;		  /* reclaim_lock */
	uint32_t queued;	  /* reclaim_lock: folios in all of them */
	struct a32 came;	  /* changes under reclaim_lock: pages that have come so far */
	struct a32 cold_pages;	  /* changes under reclaim_lock */
	/* Pages: of the young (and cold) that main ones make room for; of the cold, for which fresh memory is taken; on_probation() */
	struct a32 young_share, cold_share, young_window;

	struct a64 dirty;	 /* pages, of all mappings */
	/* Pages; const. More: the flusher writes; who makes pages dirty has to write some; if that fails, it may not. */
	size_t dirty_background, dirty_limit, dirty_most;
	struct flusher flusher;

	/* Waiting for memory: an event count. */
	struct a32 memory_events, memory_waiters;

	/* Admission: see cache_reserve(). */
	struct mutex reserve_lock;
	struct cond reserve_freed;
	unsigned reserve_total;			  /* reserve_lock */
	int64_t reserve_free;			  /* reserve_lock; below 0 after the total has shrunk */
	bool writable;				  /* reserve_lock: a mapping has been, at least */
	uint64_t reserve_ticket, reserve_serving; /* reserve_lock */

	size_t ra_limit; /* bytes in a batch at most; 0: no readahead. Const */
	struct mutex ra_lock;
	struct cond ra_work, ra_done;
	struct ra_job ra_queue[RA_QUEUE]; /* ra_lock, as all below: a ring */
	unsigned ra_first, ra_count;
	unsigned ra_wanted, ra_started, ra_idle;
	bool ra_stop;
	pthread_t ra_threads[RA_THREADS_MAX];
};

/* One reader (or several that look like one) who goes through ascending units. */
struct stream {
	uint64_t next;	 /* the unit after the last one wanted */
	uint64_t end;	 /* everything before was asked for */
	unsigned window; /* units to read ahead; 0: not yet known to ascend */
	uint64_t used;	 /* clock, for replacement */
};

struct cache_mapping {
	struct cache *cache;
	const struct cache_ops *ops;
	void *owner;
	uint32_t unit_size;
	unsigned order; /* of a unit, in pages */
	unsigned flags; /* CACHE_MAPPING_* */
	uint32_t number;
	struct a64 size; /* bytes; changed by whoever has the owner's inode lock */

	struct mutex lock;   /* INDEX */
	struct index index;  /* changes under lock */
	struct a32 outside;  /* changes under lock: where new folios have their bytes; see struct folio */
	uint32_t outside_old; /* of the one who moves it: where some may still have them; 0: nowhere outside */
	uint64_t folios;     /* lock: folios in the index */
	struct a64 dirty;    /* changes under lock: pages that are dirty */
	struct a64 dirty_since; /* flusher_now() when the first of them became that, or was written last by age */
	uint32_t cuts;	     /* lock: truncations and holes so far */
	bool cutting;	     /* lock: one is under way; the owner has one at a time */
	uint64_t cut_first, cut_end; /* lock: pages of the last one */
	struct a32 cut_done; /* to wait for its end */
	struct a32 errors;   /* errseq: see writeback.c */
	struct a32 failed;   /* pages whose writeback has failed, ever */
	struct a32 writers;  /* batches whose writeback is under way */
	struct a32 users;    /* who works on it without holding one of its folios; see mapping_next_dirty() */
	struct cache_mapping *dirty_prev, *dirty_next; /* cache.mappings_lock */
	bool dirty_listed;   /* cache.mappings_lock */
	bool ending;	     /* cache.mappings_lock: nobody becomes a user any more */

	struct mutex rmap_lock;
	struct cache_rmap *rmaps; /* rmap_lock */

	struct mutex stream_lock;
	struct stream streams[STREAMS]; /* stream_lock */
	uint64_t stream_clock;		/* stream_lock */
	unsigned ra_running;		/* cache.ra_lock: jobs being worked on */
};

/* ---- counters.c ---- */

unsigned counter_group(void);
#define counter_add(cache, name, n) a64_count(&(cache)->counters[counter_group()].name, (n))
#define counter_inc(cache, name) counter_add(cache, name, 1)

/* ---- folio.c ---- */

static inline struct folio *folio_at(const struct cache *c, uint32_t frame)
{
	return &c->arena.frames[frame];
}
static inline uint32_t folio_no(const struct cache *c, const struct folio *f)
{
	return (uint32_t)(f - c->arena.frames);
}
/* The bytes of a folio that somebody references or has locked, from its first page on. */
static inline uint8_t *folio_data(const struct cache *c, const struct folio *f)
{
	const struct outside *o;

	if (!f->outside)
		return arena_address(&c->arena, folio_no(c, f));
	o = &c->outside[f->outside];
	return o->o.base + (f->unit << o->shift);
}
/* Of one of its pages. */
static inline uint8_t *page_data(const struct cache *c, const struct folio *f, const struct folio *page)
{
	return folio_data(c, f) + ((size_t)(page - f) << CACHE_PAGE_SHIFT);
}
static inline uint64_t folio_first_page(const struct cache_mapping *m, const struct folio *f)
{
	return f->unit << m->order;
}
/* A reference, unless nobody has one any more. */
bool folio_try_get(struct folio *folio);
/* From `refs` references to none: nobody can get one any more. False: somebody has got another one. */
bool folio_freeze(struct folio *folio, uint32_t refs);
/*
 * Without telling those who wait for memory: for who is looking for some, and would wake itself. Others may have left the
 * folio alone meanwhile; when the search is over, they are told (memory_event()).
 */
void folio_put_quietly(struct cache *cache, struct folio *folio);
/* Any page of it pinned? Orders nothing by itself. */
bool folio_pinned(const struct cache *cache, const struct folio *folio);
bool folio_dirty(const struct folio *folio);
/*
 * A new one, locked, with `refs` references; frames are the caller's. From then on a reader whose look-up has gone astray
 * may reference it, so all that identifies it is there before. outside: from outside_get(), the folio's now.
 */
struct folio *folio_init(struct cache *cache, uint32_t frame, unsigned pages, unsigned refs, uint32_t mapping,
	uint64_t unit, uint32_t len, uint32_t outside);
/* All that the last reference did: frees the memory, or parks it for the last unpin. */
void folio_release(struct cache *cache, struct folio *folio);
/* Sleeps while the folio in this frame is locked, whichever it is by now; perhaps not so long. No reference is needed. */
void folio_wait_unlocked(struct folio *folio);
void page_wait_writeback(struct folio *page);
void page_end_writeback(struct folio *page);

/* ---- mapping.c ---- */

/* The folio of a unit with a reference, if it is there. Takes no lock. */
struct folio *mapping_find(const struct cache_mapping *mapping, uint64_t unit);
/*
 * Puts a new folio (locked, with one reference for the mapping beside the caller's) in; or, if there is one meanwhile,
 * references that: *ret_there, else NULL. One critical section. -EAGAIN: the mapping has moved since the folio was made; neither.
 * Sleeps.
 */
int mapping_insert(struct cache_mapping *mapping, struct folio *folio, unsigned *nodes, struct folio **ret_there);
/* Sets the size, unless the unit is there and that matters (`unless`): then false. One critical section. */
bool mapping_grow_absent(struct cache_mapping *mapping, uint64_t unit, bool unless, uint64_t size);
/* A locked, attached folio is about to be read once more: see mapping_publish(). */
void mapping_read_begin(struct cache_mapping *mapping, struct folio *folio);
/*
 * Makes a folio that was read uptodate; or false: pages of it have left the file since the read began, so what was read
 * may be what is no longer there.
 */
bool mapping_publish(struct cache_mapping *mapping, struct folio *folio);
/* Pages [first, end) begin to leave the file, or have left it. */
void mapping_cut_begin(struct cache_mapping *mapping, uint64_t first, uint64_t end);
void mapping_cut_end(struct cache_mapping *mapping);
/* Sleeps while pages of the unit are leaving. */
void mapping_cut_wait(struct cache_mapping *mapping, uint64_t unit);
/* Takes a locked folio out of the mapping; the mapping's reference becomes the caller's. Its marks go. */
void mapping_remove(struct cache_mapping *mapping, struct folio *folio);
/*
 * The same for a folio that nobody but the mapping and the caller references, whose references both go: it is frozen, and
 * the caller's to free. False: somebody has got one meanwhile, nothing was done.
 */
bool mapping_evict(struct cache_mapping *mapping, struct folio *folio);
/* The next folio from *unit on with a reference, and *unit its place; NULL: no more. Sleeps. */
struct folio *mapping_next(struct cache_mapping *mapping, uint64_t *unit, bool dirty);
/* The same, of those that lie elsewhere than new ones do. */
struct folio *mapping_next_old(struct cache_mapping *mapping, uint64_t *unit);
/* Says that n pages of a folio became dirty, or -n clean; after their state says so. */
void mapping_account_dirty(struct cache_mapping *mapping, struct folio *folio, int n);
/* Makes a page of an attached folio dirty again, which it was. False: it is dirty. No lock of the folio is needed. */
bool mapping_redirty(struct cache_mapping *mapping, struct folio *folio, struct folio *page);
/* Some mapping with dirty pages, that stays until mapping_put(); NULL: none. */
struct cache_mapping *mapping_next_dirty(struct cache *cache);
/* How many there are, or a few more. */
size_t mapping_count_dirty(struct cache *cache);
void mapping_put(struct cache_mapping *mapping);
/* Has every address range write-protect, or drop, these pages. Sleeps. */
void mapping_mkclean(struct cache_mapping *mapping, uint64_t page, unsigned count);
void mapping_zap(struct cache_mapping *mapping, uint64_t page, uint64_t count);
unsigned mapping_unit_bytes(struct cache_mapping *mapping, uint64_t unit, int *ret_error);

/* ---- outside.c ---- */

/* Where a new folio has its bytes, up to page `end` of the file; until outside_put(), if it isn't 0. -EFBIG. */
int outside_get(struct cache_mapping *mapping, uint64_t end, uint32_t *ret);
void outside_put(struct cache *cache, uint32_t outside);
/* One of them is parked now (1), or about to be freed (-1). */
void outside_park(struct cache *cache, uint32_t outside, int n);
/* The mapping has it no more: the last folio frees it. */
void outside_leave(struct cache *cache, uint32_t outside);
/* Lie its bytes where others may store at any time? */
bool outside_untrusted(const struct cache *cache, const struct folio *folio);
/*
 * The bytes of a folio that leaves the mapping go, before another one can take its place in the index, and so in memory.
 * Folio locked, or frozen and locked.
 */
void outside_clear(struct cache_mapping *mapping, const struct folio *folio);

/* ---- memory.c ---- */

/*
 * The first of `count` frames, for a unit of up to 2^order; outside: their memory isn't used. wait: sleep until there are
 * some; else FRAME_NONE.
 */
uint32_t memory_alloc(struct cache *cache, unsigned count, unsigned order, bool outside, bool wait);
void memory_free(struct cache *cache, uint32_t frame, unsigned count, bool outside);
/* After something became evictable or free. Called without locks that don't sleep. */
void memory_event(struct cache *cache);

/* ---- reclaim.c ---- */

enum queue_kind { QUEUE_YOUNG, QUEUE_MAIN, QUEUE_COLD, QUEUE_TURN /* the young or the cold: reclaim.c */ };
void queue_add(struct cache *cache, struct folio *folio, enum queue_kind kind);
/* Out of whatever queue it is in. */
void queue_remove(struct cache *cache, struct folio *folio);
/* Frees this one, if it may be. Consumes the reference, quietly: memory_event() comes after the last one. */
bool folio_reclaim(struct cache *cache, struct folio *folio);
/* Frees one folio: the next cold one. False: there is none that can be freed. memory_event() comes after it. */
bool reclaim_cold(struct cache *cache);
/* The same; whichever is the next to go of those that lie before frame `end`. */
bool reclaim_one(struct cache *cache, uint32_t end);
/* What young and cold folios may have of a memory of so many pages, if units have up to so many. */
void reclaim_set_shares(struct cache *cache, uint32_t pages, uint32_t unit_pages);

/* ---- fill.c ---- */

/* A folio for a unit, not in the mapping. -ENOMEM, or what `size` says. wait: for memory. */
int unit_alloc(struct cache_mapping *mapping, uint64_t unit, bool wait, struct folio **ret);
/* A new folio that came too late, or for nothing: unlocks and frees it. */
void unit_discard(struct cache *cache, struct folio *folio);
/* Publishes the result of reading a folio that the caller has inserted and locked; unlocks it. The reference stays. Its error. */
int unit_complete(struct cache_mapping *mapping, struct folio *folio, const struct cache_fill *fill);

/* Finds the folio, or puts in a new one, locked, that the caller has to read or to fill (*ret_new). Sleeps. */
int unit_find(struct cache_mapping *mapping, uint64_t unit, struct folio **ret, bool *ret_new);
/* Reads a folio that this thread has just put into the mapping, and unlocks it. On failure the reference is gone. */
int unit_read(struct cache_mapping *mapping, struct folio *folio);
/*
 * Reads those pages of a locked, attached folio that are not uptodate so far; the others, which may be dirty, stay as they
 * are. -ESTALE: some of it is leaving the file; once it is unlocked, mapping_cut_wait(), and look again.
 */
int unit_fill(struct cache_mapping *mapping, struct folio *folio);
/* Somebody wants it. True: it has the marker. The first use of what was read ahead says nothing about a second one. */
bool note_use(struct cache *cache, struct folio *folio);

/* ---- truncate.c ---- */

/* Bytes [from, to) of one folio, if it is there, become zero. What is written of them later is zero, too. Sleeps. */
void zero_range(struct cache_mapping *mapping, uint64_t from, uint64_t to);
/* All folios leave; the owner keeps what it has. */
void mapping_drop(struct cache_mapping *mapping);

/* ---- writeback.c ---- */

/* Has some mapping write a few pages, so that memory can be reclaimed. False: there was nothing to write, or it failed. */
bool writeback_for_memory(struct cache *cache);

/* Writes until at most so many pages are dirty, or until that fails, or brings nothing. Sleeps. */
void writeback_background(struct cache *cache, size_t pages);
/* Writes mappings whose oldest dirty page has been that since before then. Sleeps. */
void writeback_old(struct cache *cache, uint64_t before);

/* ---- flusher.c ---- */

/* Takes over the pressure_fd. */
int flusher_init(struct cache *cache, const struct cache_options *options);
/* Ends the thread; writes nothing. */
void flusher_destroy(struct cache *cache);
/* Starts the thread, if that was not done so far. Called when there is something for it to look after. Sleeps. */
void flusher_start(struct cache *cache);
/* There is something to write. Doesn't sleep. */
void flusher_wake(struct cache *cache);
/* now_ns(); in the explorer time stands still. */
uint64_t flusher_now(void);

/* ---- readahead.c ---- */

/* Unit `unit` was missing, or had the marker; it and the run - 1 units after it are wanted now. */
void readahead_access(struct cache_mapping *mapping, uint64_t unit, unsigned run);
void readahead_init(struct cache *cache, unsigned threads);
/* Ends the threads. */
void readahead_destroy(struct cache *cache);
/* Drops the mapping's jobs and waits for those under way. */
void readahead_forget(struct cache_mapping *mapping);

#endif
