/* SPDX-License-Identifier: MIT */
/*
 * Memory: allocation that may fail and says so, and regions of address space that processes can share.
 *
 * Used by: cache, mm. The explorer and the tests that inject failures put another implementation in its place
 * (tests/explore), so that each allocation of those layers can be made to fail.
 *
 * Allocation may sleep: a thread that holds a lock which forbids that is counted (rule R8, base/sync.h).
 */
#ifndef PINFS_BASE_MEM_H
#define PINFS_BASE_MEM_H

#include "base/util.h"

/* Zeroed; NULL if there is none. Free with mem_free(), which allows NULL. */
void *mem_alloc(size_t size);
void mem_free(void *p);

static inline void cleanup_mem(void *p)
{
	mem_free(*(void **)p);
}
#define _cleanup_mem_ _cleanup_(cleanup_mem)

/* Sparse: only what was touched takes memory. Not in core dumps; it has the contents of files. */
struct mem_region {
	uint8_t *base;
	size_t size;
	int fd; /* a memfd, to hand to another process; -1 where there can be none (RLIMIT_FSIZE, a sandbox) */
};
int mem_region_new(const char *name, size_t size, struct mem_region *ret);
/* Gives these bytes of it back to the system, as good as it can: they are zero, or as they were. Whole pages. */
void mem_region_return(const struct mem_region *region, size_t offset, size_t len);
/* A region that is all zeroes was never made: allowed. */
void mem_region_free(struct mem_region *region);

/*
 * A descriptor that has POLLPRI when something had to wait for memory for more than a tenth of two seconds (the kernel's
 * PSI; of our control group if it may be watched, else of the whole system). -errno: there is nothing to watch.
 */
int mem_pressure_open(void);

#endif
