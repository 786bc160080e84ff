/* SPDX-License-Identifier: MIT */
/*
 * The software MMU: a back end of src/mm in which a program's loads and stores are function calls. For the explorer, for
 * tests, and as the plainest example of what a back end has to do.
 *
 * Used by: the explorer, tests. Uses: mm, cache.
 *
 * It has one translation for each page of a window of addresses, as a TLB would: zap and protect return when no access
 * by the old translation is under way any more, which is what a TLB shootdown promises.
 */
#ifndef PINFS_MM_SOFT_H
#define PINFS_MM_SOFT_H

#include "mm/mm.h"

struct soft_mmu;

extern const struct mmu_ops soft_mmu_ops;

struct soft_options {
	uint64_t base; /* the window of addresses */
	unsigned pages;
	const uint8_t *image; /* what pages in place show, by page number; may be NULL */
	/* Told of each access while the translation still holds; may be NULL. */
	void (*observe)(void *context, uint64_t addr, bool write, uint64_t value);
	void *context;
};
/* 0 or -ENOMEM. */
int soft_mmu_new(const struct soft_options *options, struct soft_mmu **ret);
/* That of the options. */
void *soft_mmu_context(const struct soft_mmu *mmu);
/* After mm_free(). */
void soft_mmu_free(struct soft_mmu *mmu);

/*
 * A load or store of 8 aligned bytes by a program, with the faults that it takes; mm_new()'s context is the soft_mmu.
 * 0; -EFAULT: SIGBUS or SIGSEGV; -ENOMEM.
 */
int soft_load(struct mm *mm, uint64_t addr, uint64_t *ret);
int soft_store(struct mm *mm, uint64_t addr, uint64_t value);
/*
 * The same by themselves, for another back end that has one of these for its process's MMU (the explorer's model of userfaultfd). allows:
 * is there a translation, to store by it?
 */
void soft_mmu_install(struct soft_mmu *mmu, uint64_t addr, struct mmu_page page, bool writable);
void soft_mmu_protect(struct soft_mmu *mmu, uint64_t addr, uint64_t pages);
void soft_mmu_zap(struct soft_mmu *mmu, uint64_t addr, uint64_t pages);
bool soft_mmu_allows(struct soft_mmu *mmu, uint64_t addr, bool write);
int soft_mmu_load(struct soft_mmu *mmu, struct mm *mm, uint64_t addr, uint64_t *ret);
int soft_mmu_store(struct soft_mmu *mmu, struct mm *mm, uint64_t addr, uint64_t value);
/* What a device does with a pinned frame: no translation, no fault. */
uint64_t soft_dma_load(struct cache *cache, uint32_t frame, unsigned offset);
void soft_dma_store(struct cache *cache, uint32_t frame, unsigned offset, uint64_t value);

#endif
