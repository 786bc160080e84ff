/* SPDX-License-Identifier: MIT */
/*
 * userfaultfd: the back end of src/mm for the page tables of real processes.
 *
 * Used by: the server of shared maps, tests. Uses: mm, cache. Linux only; what it needs of the kernel: uffd_missing().
 *
 * A process maps the memfd of a file whose pages lie there (cache_mapping_move()), registers that range with a userfaultfd of its
 * own and hands it to us. From then on its first touch of a page is a fault that we hear of, its first store to a page that was
 * cleaned too, and what the page tables of src/mm say is what the process's say, but for one thing:
 *
 *	install   UFFDIO_CONTINUE, write-protected unless it is for a store; or UFFDIO_WRITEPROTECT if it is mapped
 *	protect   UFFDIO_WRITEPROTECT
 *	zap       the same: there is no way to take a page out of another process's tables but to take it out of the memfd, which
 *	          the cache does next (cache_outside.clear), or else keeps the page. Until then it can be loaded from.
 *
 * Pins of the process are counts in a table that it shares with us (pinfs/protocol.h). They become pins of the cache when
 * it matters: protect and zap look at the counts after they have taken the right away, and pin the frame of what is counted
 * ("hold"). Such a page stays writable, if it was, so that a device that is told to write there later finds it so, also where the
 * kernel's own accesses can't be answered (UFFD_USER_MODE_ONLY). The hold goes when the process says so (uffd_unhold()), when somebody
 * looks again, and with the range.
 *
 * Nothing that the process can do to its userfaultfd, its ranges or the table harms others: what fails because of it marks the back
 * end as lost (uffd_lost()), and the server cuts the process off.
 */
#ifndef PINFS_MM_UFFD_H
#define PINFS_MM_UFFD_H

#include "mm/mm.h"
#include "pinfs/protocol.h"

struct uffd_mmu;

extern const struct mmu_ops uffd_mmu_ops;

/*
 * Features of UFFDIO_API that it can't do without (Linux 6.6 has them all), and that the process has to ask for; of 0 it is all of
 * them. 0: `features`, as a kernel has answered, are enough. (UFFD_FEATURE_WP_ASYNC it must not ask for: stores would be announced to nobody.)
 */
uint64_t uffd_missing(uint64_t features);
/* The first missing one, for people. */
const char *uffd_feature_name(uint64_t missing);

/*
 * fd: of the process's userfaultfd, after UFFDIO_API; it belongs to the back end from now on, also on failure. It is the context
 * of mm_new(). holds_most: so many pages may its pins keep.
 */
int uffd_mmu_new(int fd, uint64_t holds_most, struct uffd_mmu **ret);
/* After mm_free(). NULL is allowed. */
void uffd_mmu_free(struct uffd_mmu *mmu);
/* To read its events from. */
int uffd_fd(const struct uffd_mmu *mmu);

/*
 * Before mm_map(): the process has so many pages of the file at `start`, registered for missing and minor faults, and, if `writable`,
 * for write protection. table: theirs, which stays the caller's. -EEXIST: something is there; -ENOMEM.
 */
int uffd_range_add(struct uffd_mmu *mmu, uint64_t start, uint64_t pages, bool writable, struct pinfs_page *table);
/* After mm_unmap() of all of it: drops what its pins hold. */
void uffd_range_remove(struct uffd_mmu *mmu, struct cache *cache, uint64_t start);

/*
 * Accesses of the page fail from now on (SIGBUS): it lies behind the end of the file, can't be read, or there is no room for what
 * would be stored. install() ends that. -EBUSY: it is mapped; it has to leave the cache first. Who waits for it goes on.
 */
int uffd_poison(struct uffd_mmu *mmu, uint64_t addr);
/* Whoever waits for the page tries again. */
void uffd_wake(struct uffd_mmu *mmu, uint64_t addr);

/*
 * The process has counted a pin on the page in its table, and has not found it mapped as it needs: it is now, and stays so as long as it
 * counts. As mm_pin(), of which only PIN_FOR_WRITE and PIN_NOWAIT count.
 */
int uffd_pin(struct mm *mm, uint64_t addr, unsigned flags);
/* The process has no pins on some of these pages any more: what they held is let go. */
void uffd_unhold(struct uffd_mmu *mmu, struct cache *cache, uint64_t addr, uint64_t pages);

/* 0, or -errno: why it can't be used any more. -ESRCH: the process is gone; -EPROTO: it has done what it must not; -EDQUOT: its limit. */
int uffd_lost(const struct uffd_mmu *mmu);

#endif
