/* SPDX-License-Identifier: MIT */
/*
 * cache: the page cache. Files' bytes in bounded memory, each read once however many want it, changed only by the
 * rules of folio.h, written back while they are changed.
 *
 * Used by: vfs, mm. Uses: base. Never: FUSE, formats; who owns the bytes is behind struct cache_ops.
 *
 * A mapping is an array of pages that its owner can read and write. The cache keeps them in folios of one size for
 * each mapping (a unit: the image's block, or a page). The memory of all folios together never exceeds the limit that
 * the cache was made with: who needs memory reclaims some, and waits if all of it is referenced, pinned or locked.
 *
 * Everything is thread safe. What sleeps (I/O, other threads' I/O, memory) says so, and is called without locks except
 * those that base/lock_order.h allows. Returns 0 or -errno; output is untouched on failure.
 */
#ifndef PINFS_CACHE_CACHE_H
#define PINFS_CACHE_CACHE_H

#include "base/util.h"
#include "cache/counters.h"
#include "cache/folio.h"
#include "cache/trace.h"

struct cache;
struct cache_mapping;

struct cache_fill {
	uint8_t *data; /* `len` bytes to fill; the cache zeroes the rest of the last page */
	uint32_t len;  /* in: as `size` has said; out: what is there. Less is a failure (R13) */
	int error;     /* out: 0, or -errno for this unit alone */
};

struct cache_write {
	uint64_t page;	   /* the first one */
	unsigned count;	   /* pages in a row */
	const uint8_t *const *data; /* each page's bytes; they don't change until writeback returns (R2) */
	size_t bytes;	   /* in all; the last page may lie half behind the end of the file */
};

/*
 * What an owner does for its mapping. All are called without any lock but, where it is said, the folio's; they may
 * sleep and do I/O. They must not wait for a fault, nor for a lock that is held where pages are faulted in.
 */
struct cache_ops {
	/* Bytes of a unit, 1 to the unit's size; or -errno. NULL: whole units. */
	int (*size)(void *owner, uint64_t unit);
	/*
	 * Fills units first … first + count - 1, each with its own result. Never twice at once for the same unit; perhaps while
	 * other pages of it, that were written whole before, are being written back: what it brings of those is not used.
	 */
	void (*read)(void *owner, uint64_t first, unsigned count, struct cache_fill *fills);
	/*
	 * Pages are about to become dirty, or to stay dirty over a writeback: takes what writing them will need, notes
	 * the file's times. -ENOSPC here, never later. Under the folio lock. NULL: the mapping is read-only (-EROFS).
	 */
	int (*mkwrite)(void *owner, uint64_t page, unsigned count);
	/* Pages that mkwrite allowed will not be written after all (truncated), or once less. Takes no folio lock. */
	void (*mkwrite_undo)(void *owner, uint64_t page, unsigned count);
	/* Writes pages and gives up what mkwrite took for them; on failure it keeps it. */
	int (*writeback)(void *owner, const struct cache_write *write);
	/*
	 * Bytes [from, to) have left the file (to UINT64_MAX: its end is at from now). They are in no page any more, none of
	 * them is being written, and nobody reads them until this returns: the owner drops its own, and says that they are
	 * not in place. May be NULL.
	 */
	void (*cut)(void *owner, uint64_t from, uint64_t to);
	/*
	 * Is the page still what lies in the image, to be mapped in place? mkwrite ends that for ever. Called under the page
	 * table's lock: takes no lock. NULL: nothing lies in place.
	 */
	bool (*in_place)(void *owner, uint64_t page);
	/* A failed writeback, once for each time; after it was noted for fsync. May be NULL. */
	void (*error)(void *owner, uint64_t page, int error);
};

struct cache_options {
	size_t limit;		    /* bytes for all folios; at least 8 of the largest are used */
	unsigned readahead_threads; /* 0: no readahead */
	/* Dirty pages are written after this time at the latest; how often that is looked for. 0: 30 s, 5 s */
	unsigned dirty_expire_ms, dirty_interval_ms;
	unsigned dirty_background; /* per cent of the memory: more that is dirty is written at once. 0: 12 */
	/*
	 * Has POLLPRI when the system is short of memory (mem_pressure_open()): then the cache gives some back. It is the
	 * cache's from now on, also if cache_new() fails. 0: none.
	 */
	int pressure_fd;
};

/* Starts its threads when they are needed for the first time, or by cache_start(). */
int cache_new(const struct cache_options *options, struct cache **ret);
/* So that the first who reads or writes need not wait until there is a thread. Not in front of a fork(). */
void cache_start(struct cache *cache);
/* No mapping, reference or pin may be left. Ends the threads. NULL is allowed. */
void cache_free(struct cache *cache);

enum {
	/* Who maps the pages may store into them in spite of write protection: always bounce (R2). */
	CACHE_MAPPING_UNTRUSTED = 1u << 0,
};

/* unit_size: a power of two from a page to 1 MiB. size: of the file, in bytes. */
int cache_mapping_new(struct cache *cache, const struct cache_ops *ops, void *owner, uint32_t unit_size, uint64_t size,
	unsigned flags, struct cache_mapping **ret);
/* Drops all pages, dirty ones too: cache_sync() comes first. No reference may be held; pinned memory outlives it. */
void cache_mapping_free(struct cache_mapping *mapping);
/* All pages leave, dirty ones too, of a file that nobody will look at any more. Sleeps. */
void cache_mapping_drop(struct cache_mapping *mapping);
uint64_t cache_size(struct cache_mapping *mapping);

/*
 * Memory outside the arena: a file whose pages other processes map has them all in one memfd, each at the place that it has in the
 * file. They count as those in the arena do, whose memory is given back for as many; so one limit holds for all.
 */
struct cache_outside {
	uint8_t *base;	/* of the file's first page, in this process */
	uint64_t pages; /* that have room there; others can't be had (-EFBIG) */
	/*
	 * The pages' bytes go: nothing of them is there any more, nor in the page tables of whoever maps that memory. Under the
	 * folio's lock, or what is as good; it can't fail, and waits for no fault and no lock of the cache.
	 */
	void (*clear)(void *context, uint64_t page, unsigned count);
	void *context;
	/* Who maps it may store in spite of write protection: what is written comes from copies (as CACHE_MAPPING_UNTRUSTED). */
	bool untrusted;
};
/*
 * From now on the mapping's pages lie there; NULL: in the arena. What it has is written and leaves first. The owner keeps others from
 * moving it, and, where the old memory is to go, waits for 0: none of it is in use any more. -EBUSY: some is referenced or pinned, and
 * leaves as soon as it can; again later. -EMFILE: too many are outside. -errno: something couldn't be written, nothing was done.
 * Sleeps.
 */
int cache_mapping_move(struct cache_mapping *mapping, const struct cache_outside *outside);
/* Has it dirty pages? NULL is allowed. Doesn't sleep. */
bool cache_mapping_dirty(const struct cache_mapping *mapping);

/* ---- reading ---- */

struct cache_ref {
	const uint8_t *data;
	uint32_t len;
	struct folio *folio; /* private */
};

/*
 * Before a thread takes references to several units at once it reserves their number, and gives it back when it has
 * put them all; otherwise readers who each hold some could wait for each other's memory. Who holds one at a time and
 * nothing else reserves 1. Sleeps; never while references are held. -ENOMEM: more than the cache can hold (the
 * arena's high zone, if it has mappings that can be written).
 */
int cache_reserve(struct cache_mapping *mapping, unsigned units);
void cache_unreserve(struct cache_mapping *mapping, unsigned units);

/*
 * References a unit, reading it if needed; those who want it at the same time wait for one read. A failed read is the
 * error of everybody who waited for it, and leaves nothing behind: the next reader tries again (R13). Recognises
 * ascending access and reads ahead of it. Sleeps.
 */
int cache_get(struct cache_mapping *mapping, uint64_t unit, struct cache_ref *ret);
/* The same; the caller will get the following run - 1 units next: missing ones are read meanwhile, in parallel. */
int cache_get_run(struct cache_mapping *mapping, uint64_t unit, unsigned run, struct cache_ref *ret);

enum cache_hint {
	CACHE_KEEP, /* may be wanted again */
	CACHE_COLD, /* was handed to the kernel's page cache in whole: the first to go */
};
void cache_put(struct cache_mapping *mapping, struct cache_ref *ref, enum cache_hint hint);

/* ---- pages, for src/mm and for writing ---- */

/* A referenced folio with page `page` uptodate (others perhaps not), not locked. -EFAULT: beyond the end. Sleeps. */
int cache_page_get(struct cache_mapping *mapping, uint64_t page, struct folio **ret);
/* The same if it is there (uptodate or not); else NULL. Never sleeps. */
struct folio *cache_page_find(struct cache_mapping *mapping, uint64_t page);
void folio_get(struct folio *folio);
/* Drops a reference; the last one frees, unless pins are left (R5). */
void folio_put(struct cache *cache, struct folio *folio);

void folio_lock(struct folio *folio);
bool folio_trylock(struct folio *folio);
void folio_unlock(struct folio *folio);
/* Locked, and still the page of the mapping that it was got for? After folio_lock() of what was got before. */
bool folio_attached(const struct folio *folio, const struct cache_mapping *mapping);

/*
 * Makes pages of a locked, attached folio dirty, which are uptodate or will be when it is unlocked, if the owner's mkwrite
 * allows it; waits for their writeback, unless that goes from a copy (R1, R2). Those that are dirty already cost nothing.
 * After it the bytes may be changed.
 */
int folio_mkwrite(struct cache *cache, struct folio *folio, unsigned first, unsigned count);

/*
 * Writes bytes into the file's pages; extends the file if they reach beyond its end. The owner keeps other writes and
 * changes of the size out meanwhile. Reads no page that is written whole, or lies behind the end. *ret_done: how many bytes are
 * written, also on failure; or NULL. Sleeps.
 */
int cache_write(struct cache_mapping *mapping, uint64_t offset, const void *buf, size_t len, size_t *ret_done);

uint32_t folio_frame(const struct cache *cache, const struct folio *folio);
struct folio *frame_folio(const struct cache *cache, uint32_t frame);
uint8_t *frame_data(const struct cache *cache, uint32_t frame);
/* Has the page its bytes? Others of its folio may not. */
bool frame_uptodate(const struct cache *cache, uint32_t frame);
/* The page's place in its file, of a frame of an attached folio. */
uint64_t folio_page(const struct cache_mapping *mapping, const struct folio *folio);
/* The first frame of the folio that holds page `page`, plus the page's place in it. */
uint32_t folio_page_frame(const struct cache *cache, const struct cache_mapping *mapping, const struct folio *folio,
	uint64_t page);

/* ---- pins ---- */

/*
 * Counts a reader or writer of a frame's bytes. The caller keeps the frame from being freed meanwhile (a reference, or
 * a page table entry under its lock). -EAGAIN: PIN_LIMIT.
 */
int frame_pin(struct cache *cache, uint32_t frame, bool write);
void frame_unpin(struct cache *cache, uint32_t frame, bool write);
/*
 * The lockless half of a fast pin (R10): counts, and orders that before what the caller reads next. The caller looks
 * at its page table entry again and calls frame_unpin() if it has changed. The frame may meanwhile be anybody's.
 */
int frame_pin_fast(struct cache *cache, uint32_t frame, bool write);

/* The counts, both halves. */
uint64_t frame_pins(const struct cache *cache, uint32_t frame);
/* Is the page of the file still in place? */
bool cache_in_place(const struct cache_mapping *mapping, uint64_t page);

/* ---- writing back, and leaving ---- */

/* errseq: what an open file has seen of the mapping's failed writebacks. */
struct cache_errseq {
	uint32_t seen;
};
void cache_errseq_sample(struct cache_mapping *mapping, struct cache_errseq *ret);

/*
 * Writes the dirty pages of [first, first + count) and waits for them; for durability the owner flushes afterwards.
 * -errno: the first failure. errseq, if not NULL: also reports failures since it was last sampled, once. Sleeps.
 */
int cache_sync(struct cache_mapping *mapping, uint64_t first, uint64_t count, struct cache_errseq *errseq);
/* Writes some dirty pages of the mapping, at most `most`, without waiting for others' writeback; how many. */
unsigned cache_writeback(struct cache_mapping *mapping, unsigned most);
/*
 * Called by who is about to make pages dirty, without a folio lock: if too much is dirty it has to write some itself. -errno:
 * that failed (-ENOMEM: all of it is pinned), and half of the memory is dirty: nothing may become dirty now, so that readers
 * have the rest. Sleeps.
 */
int cache_throttle(struct cache_mapping *mapping);

/*
 * The owner keeps writes and other changes of the size out meanwhile, and drops its own bytes when `cut` is called. The
 * file ends at `size` now. Pages behind it leave at once, pinned ones keep their memory until the last unpin (R5);
 * the rest of the last page becomes zero. Sleeps.
 */
void cache_truncate(struct cache_mapping *mapping, uint64_t size);
/*
 * Pages of [first, first + count) leave, dirty or not: a hole. Of a unit that lies in it only in part the bytes become
 * zero. (R5 holds for whole units: files whose pages get pinned have units of one page.)
 */
void cache_punch(struct cache_mapping *mapping, uint64_t first, uint64_t count);
/* Clean pages that nobody uses leave; the number of those that stay. */
uint64_t cache_invalidate(struct cache_mapping *mapping, uint64_t first, uint64_t count);
/* Frees clean memory that nobody uses: at least `bytes` if there is as much. What was freed. */
size_t cache_reclaim(struct cache *cache, size_t bytes);
/*
 * The system is short of memory: frees as much as a quarter of what is in use, if that is clean and idle, and all that is
 * free goes back to it.
 * What the system got, in bytes. Sleeps.
 */
size_t cache_shrink(struct cache *cache);

/* ---- the way to the page tables: which src/mm registers ---- */

struct cache_rmap;
struct cache_rmap_ops {
	/* Takes the right to store away from whoever maps these pages of the file; what was mapped stays readable. */
	void (*mkclean)(struct cache_rmap *rmap, uint64_t page, unsigned count);
	/* Takes the pages out of the page tables. */
	void (*zap)(struct cache_rmap *rmap, uint64_t page, unsigned count);
};
/* An address range that maps pages [first, first + count) of a mapping. */
struct cache_rmap {
	const struct cache_rmap_ops *ops;
	struct cache_mapping *mapping;
	uint64_t first, count;
	struct cache_rmap *next, *prev; /* RMAP lock */
};
/* After it, and before anything is mapped, every mkclean and zap finds the range. Sleeps. */
void cache_rmap_add(struct cache_rmap *rmap);
void cache_rmap_remove(struct cache_rmap *rmap);

/* ---- memory that belongs to no file (src/mm: private copies) ---- */

/* One page, referenced once, content not set. Sleeps while there is none. -ENOMEM: there will be none. */
int cache_private_new(struct cache *cache, struct folio **ret);

/* ---- observing ---- */

void cache_count(struct cache *cache, enum cache_counter counter);
struct trace *cache_trace(struct cache *cache);
struct cache_stats {
	uint64_t limit, used, dirty; /* bytes */
	uint64_t kept;		     /* bytes of page memory that the system doesn't have: used, or free but touched */
	struct cache_counters count;
};
void cache_get_stats(struct cache *cache, struct cache_stats *ret);
/* Executes the rules that one folio can show by itself; ends the program where one is broken. Folio locked. */
void assert_folio_state(const struct cache *cache, const struct folio *folio);

#endif
