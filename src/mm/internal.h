/* SPDX-License-Identifier: MIT */
/* What the files of src/mm share. */
#ifndef PINFS_MM_INTERNAL_H
#define PINFS_MM_INTERNAL_H

#include "base/mem.h"
#include "cache/variant.h"
#include "mm/mm.h"

#define counter_inc(cache, name) cache_count(cache, COUNT_##name)

/* ---- page table entries ---- */

enum {
	PTE_PRESENT = 1u << 0,
	PTE_WRITE = 1u << 1,	 /* stores are allowed */
	PTE_PRIVATE = 1u << 2,	 /* a private page: the entry holds a reference */
	PTE_EXCLUSIVE = 1u << 3, /* and no other address space has it (R11) */
	PTE_COW = 1u << 5,	 /* a file's page in a private range: a store copies it, so nobody may pin it */
	PTE_XIP = 1u << 4,	 /* a page in place; the number is the image's */
};
#define PTE_SHIFT 8u

static inline uint64_t pte_make(uint64_t number, unsigned bits)
{
	return number << PTE_SHIFT | bits | PTE_PRESENT;
}
static inline uint64_t pte_number(uint64_t pte)
{
	return pte >> PTE_SHIFT;
}
static inline struct mmu_page pte_page(uint64_t pte)
{
	return pte & PTE_XIP ? (struct mmu_page){FRAME_NONE, pte_number(pte)} :
			       (struct mmu_page){(uint32_t)pte_number(pte), 0};
}

#ifndef MM_TABLE_SHIFT
#define MM_TABLE_SHIFT 9u
#define MM_LEVELS 4u /* 48 bits of address */
#endif
#define TABLE_FAN (1u << MM_TABLE_SHIFT)

/*
 * One node of the tree of page tables. Those of the lowest level have entries, the others pointers to the next one,
 * which are set once. Nodes live as long as the address space: who reads without a lock is never misled to freed memory.
 */
struct table {
	struct mutex lock;		/* PT: changes of entries */
	struct a64 entries[TABLE_FAN];
};

#define INSTALL_WAITER (1u << 31)

/* Never changes: it is replaced (vma.c). */
struct vma {
	struct mm *mm;
	uint64_t start, end;
	unsigned flags;
	struct cache_mapping *mapping;
	uint64_t page; /* of the mapping, at start */
	struct mm_xip xip;
	struct a32 refs;
	struct a32 seq;		  /* mm lock: counts what happens to the range, its end too (R6) */
	struct a32 busy;	  /* changes under the mm lock: about to be replaced; faults sleep on it, then begin again */
	struct a32 installing;	  /* faults between the look at `seq` and the back end's answer; INSTALL_WAITER */
	struct vma *left, *right; /* mm lock: a treap by start */
	uint32_t weight;	  /* mm lock */
	struct cache_rmap rmap;
};

struct mm {
	struct cache *cache;
	const struct mmu_ops *mmu;
	void *context;
	struct mutex lock;	 /* MM: the ranges */
	struct vma *ranges;	 /* lock */
	uint32_t weights;	 /* lock: seed */
	struct table *top;	 /* const */
	struct a64 longterm;	 /* pages pinned for long */
	uint64_t longterm_limit; /* const */
};

/* ---- table.c ---- */

struct table *table_new(void);
void table_free(struct table *table, unsigned level);
/* The lowest table for an address, made if needed. Sleeps. NULL: no memory. */
struct table *table_reserve(struct mm *mm, uint64_t addr);
/* The same if it is there. Takes no lock. */
struct table *table_find(const struct mm *mm, uint64_t addr);
static inline struct a64 *table_entry(struct table *table, uint64_t addr)
{
	return &table->entries[addr >> CACHE_PAGE_SHIFT & (TABLE_FAN - 1)];
}
/* Takes the entries of [start, end) away and drops what they reference. */
void table_zap(struct mm *mm, uint64_t start, uint64_t end);
/* The same for entries that map a file's pages; private ones stay. */
void table_zap_file(struct mm *mm, uint64_t start, uint64_t end);
/* Makes the tables of [start, end). Sleeps. */
int table_reserve_range(struct mm *mm, uint64_t start, uint64_t end);
/* Moves private pages to where there are tables and no entries; what maps a file is dropped, and comes back by faults. */
void table_move(struct mm *mm, uint64_t start, uint64_t end, uint64_t to);
/* Takes the right to store away from the entries of [start, end). */
void table_wrprotect(struct mm *mm, uint64_t start, uint64_t end);

/* ---- vma.c ---- */

struct vma *vma_find_locked(struct mm *mm, uint64_t addr);
void vma_get(struct vma *vma);
void vma_put(struct vma *vma);
/* Sleeps while a referenced range is busy. */
void vma_wait(struct vma *vma);
static inline uint64_t vma_page(const struct vma *vma, uint64_t addr)
{
	return vma->page + ((addr - vma->start) >> CACHE_PAGE_SHIFT);
}
int vma_insert(struct mm *mm, struct vma *vma);
struct vma *vma_new(struct mm *mm, uint64_t start, uint64_t end, unsigned flags, struct cache_mapping *mapping,
	uint64_t page, const struct mm_xip *xip);
/* The first range that ends behind addr. */
struct vma *vma_next_locked(struct mm *mm, uint64_t addr);

/* The first range with something of [start, end), now busy and referenced. NULL: none (any more). */
struct vma *change_begin(struct mm *mm, uint64_t start, uint64_t end);
/* It stays as it is. */
void change_give_up(struct mm *mm, struct vma *vma);

/* ---- fault.c ---- */

/* Maps the pages of a new range that lie in place. */
void xip_populate(struct vma *vma);

#endif
