/* SPDX-License-Identifier: MIT */
/*
 * mm: address spaces that map the cache's pages. Address ranges, page tables, faults, pins, fork.
 *
 * Used by: the explorer, tests; the server of shared mappings. Uses: cache, base. Never: FUSE.
 *
 * The page tables here are the truth; a back end (struct mmu_ops) makes an MMU obey them: the software MMU of the
 * explorer and the tests, or userfaultfd for a client's process. The way of a fault:
 *
 *	mm_fault ─► find the range under the mm lock, reference it, note its sequence count; drop the lock
 *	         ─► without the lock: get the page from the cache (I/O), lock its folio, ask mkwrite      R6, R8
 *	         ─► under the mm lock: is the range still what it was? no: RETRY, from the beginning      R6, R7
 *	         ─► under the page table's lock: is the entry still what it was?                          R9
 *	            the same page is there: NOPAGE; another one: drop ours, count, RETRY
 *	         ─► tell the back end, while the folio is still locked: cleaning and truncation wait
 *
 * An entry of a file's page holds no reference: whatever takes the page out of its file, or cleans it, has the folio
 * locked and goes through all ranges first (cache_rmap). An entry of a private page holds one.
 *
 * Rules (cache/folio.h has the others):
 *  R6  fault and mkwrite run without the mm lock, with a reference to the range; the result is installed under the lock
 *      only if the range is the same.
 *  R7  Whoever dropped the lock returns RETRY and touches nothing but what it has references to. No lock is upgraded.
 *  R9  Installing finds the same page: NOPAGE. Another page: drop the reference, count, RETRY.
 *  R11 Whether a private page is written where it is, is decided by the entry's exclusive bit under the page table's
 *      lock, never by counts.
 *  R12 fork copies pinned private pages for the child; the parent keeps the very page that it pinned.
 */
#ifndef PINFS_MM_MM_H
#define PINFS_MM_MM_H

#include "cache/cache.h"

struct mm;
struct vma;

enum fault_result {
	FAULT_LOCKED, /* the page is there, its folio locked (inside src/mm) */
	FAULT_NOPAGE, /* the page is mapped */
	FAULT_RETRY,  /* the lock was dropped, and something has changed: look everything up again */
	FAULT_SIGBUS, /* beyond the end, no such range, or an I/O error */
	FAULT_OOM,
};
const char *fault_result_name(enum fault_result result);

enum {
	VM_READ = 1u << 0,
	VM_WRITE = 1u << 1,
	VM_SHARED = 1u << 2,
	VM_RANDOM = 1u << 3, /* faults map one page only, as after madvise(MADV_RANDOM) */
};

/* What an entry maps: a frame of the cache, or a page of a range that is executed in place. */
struct mmu_page {
	uint32_t frame; /* FRAME_NONE: in place */
	uint64_t xip;	/* page in the image */
};

/*
 * A back end. install: under the folio's lock; it may fail with -ENOMEM, or with -ENOENT if the range is gone in the
 * meantime, which is as good as done. protect and zap: nobody can store into (or reach) the pages after they return.
 * For private pages and pages in place all are called under the page table's lock, and must not sleep: a back end for
 * real processes has none of those, they are the kernel's.
 */
struct mmu_ops {
	int (*install)(struct mm *mm, uint64_t addr, struct mmu_page page, bool writable);
	void (*protect)(struct mm *mm, uint64_t addr, unsigned pages);
	void (*zap)(struct mm *mm, uint64_t addr, unsigned pages);
};

/* context: the back end's. */
int mm_new(struct cache *cache, const struct mmu_ops *mmu, void *context, struct mm **ret);
/* Unmaps everything. No other thread uses it any more. NULL is allowed. */
void mm_free(struct mm *mm);
void *mm_context(const struct mm *mm);

/* Where a mapping's pages lie in the image, in a row and page aligned, so that they can be mapped in place. */
struct mm_xip {
	uint64_t first; /* page in the image of page 0 of the mapping */
	bool valid;
};

/*
 * Maps pages [page, page + len / size of a page) of mapping at addr; mapping NULL: private memory that begins as zeroes.
 * xip, if valid: reads and private mappings go to the image itself, mapped at once. -EEXIST: something is there. -EINVAL: not
 * aligned, 2^31 pages or more, or beyond the 48 bits of addresses; -EOVERFLOW: beyond the pages that files have. The mapping
 * may be freed when nothing maps it any more and no call that works on the range is under way.
 */
int mm_map(struct mm *mm, uint64_t addr, uint64_t len, unsigned flags, struct cache_mapping *mapping, uint64_t page,
	const struct mm_xip *xip);
int mm_unmap(struct mm *mm, uint64_t addr, uint64_t len);
/* Changes VM_READ and VM_WRITE of what is mapped there. */
int mm_protect(struct mm *mm, uint64_t addr, uint64_t len, unsigned flags);
/* Moves a whole range; -EEXIST: something is there. */
int mm_remap(struct mm *mm, uint64_t addr, uint64_t len, uint64_t to);

/* Makes the page at addr accessible, and if it is only read those around it that are in the cache: NOPAGE, SIGBUS or OOM; never RETRY. Sleeps. */
enum fault_result mm_fault(struct mm *mm, uint64_t addr, bool write);

/* The child's address space, with the parent's ranges. Sleeps. */
int mm_fork(struct mm *parent, void *context, struct mm **ret);

enum {
	PIN_FOR_WRITE = 1u << 0,
	PIN_LONGTERM = 1u << 1,	 /* counted, and limited, apart */
	PIN_NOWAIT = 1u << 2,	 /* -EAGAIN instead of a fault */
};

/*
 * Pins `count` pages from addr on and returns their frames: their bytes may be read (and with PIN_FOR_WRITE changed, the
 * file's pages being dirty by then: R1) until mm_unpin(). -EFAULT, -ENOMEM, -EAGAIN: none is pinned.
 */
int mm_pin(struct mm *mm, uint64_t addr, unsigned count, unsigned flags, uint32_t *ret_frames);
/* The lockless way for one page; false: mm_pin() has to do it. */
bool mm_pin_fast(struct mm *mm, uint64_t addr, bool write, uint32_t *ret_frame);
/* Never calls mkwrite: what was pinned for writing is dirty already, and has stayed that (R3). */
void mm_unpin(struct mm *mm, const uint32_t *frames, unsigned count, unsigned flags);

#endif
