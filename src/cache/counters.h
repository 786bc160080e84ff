/* SPDX-License-Identifier: MIT */
/* What the cache and src/mm count: one number for each rule and event, named as in the kernel's /proc/vmstat. */
#ifndef PINFS_CACHE_COUNTERS_H
#define PINFS_CACHE_COUNTERS_H

#include <stdint.h>

#define CACHE_COUNTERS(X)                                                                            \
	X(cache_hit, "lookups that found the folio uptodate")                                            \
	X(cache_miss, "lookups that had to read")                                                        \
	X(cache_wait, "lookups that waited for another's read")                                          \
	X(pgpgin, "folios read")                                                                         \
	X(pgpgin_error, "R13: folios that could not be read")                                            \
	X(pgreadahead, "folios read ahead")                                                              \
	X(pgreadahead_used, "folios read ahead and then wanted")                                         \
	X(pgmkwrite, "R1: pages that became dirty after mkwrite")                                        \
	X(pgmkwrite_refused, "R1: mkwrites that the owner refused (ENOSPC)")                             \
	X(pgpgout, "pages written back")                                                                 \
	X(pgpgout_error, "R13: pages whose writeback failed, and that stay dirty")                       \
	X(pgmkclean, "R2: pages write-protected before their bytes were taken")                          \
	X(pgbounce, "R2: pages that were copied for writeback, because they were pinned or not trusted") \
	X(pgdirty_pinned, "R3: pages that stayed dirty after writeback, because they were write-pinned") \
	X(pgsteal, "folios that reclaim freed")                                                          \
	X(pgsteal_pinned, "R4: folios that reclaim left alone, because they were pinned")                \
	X(pgsteal_busy, "folios that reclaim left alone, because they were locked or in use")            \
	X(pgactivate, "young or cold folios that moved into the main queue, because they were wanted again") \
	X(pgrotated, "folios that reclaim spared, because they were wanted")                             \
	X(pgdetach, "pages that left their file by truncation, punching or invalidation")                \
	X(pgdetach_pinned, "R5: folios that outlive that because of pins")                               \
	X(pgpark_free, "R5: folios freed by the last unpin")                                             \
	X(pin_fast, "fast pins")                                                                         \
	X(pin_fast_retry, "R10: fast pins taken back, because the page table entry had changed")         \
	X(pin_slow, "slow pins")                                                                         \
	X(pin_limit, "pins refused, because there are too many")                                         \
	X(pgfault, "faults")                                                                             \
	X(fault_retry, "R6, R7: faults that began again, because the address range changed meanwhile")   \
	X(fault_same, "R9: faults that found the same page there")                                       \
	X(fault_other, "R9: faults that found another page there, dropped theirs and began again")       \
	X(fault_sigbus, "faults beyond the end, or with an I/O error")                                   \
	X(fault_oom, "faults without memory")                                                            \
	X(cow_reuse, "R11: private pages used again, because they were exclusive")                       \
	X(cow_copy, "R11: private pages copied")                                                         \
	X(fork_copy_pinned, "R12: pinned private pages copied for the child at fork")                    \
	X(xip_mapped, "pages mapped in place")                                                           \
	X(xip_moved, "pages in place that a store moved into the cache")                                 \
	X(throttled, "writers that had to write some themselves, because too much was dirty")           \
	X(throttle_refused, "writers that were refused, because too much was dirty and could not be written") \
	X(fault_around, "pages mapped beside the one that was asked for")                               \
	X(flusher_runs, "times that the flusher had something to do")                                   \
	X(pressure, "times that the system was short of memory")                                        \
	X(pgreturned, "pages of free memory given back to the system")

struct cache_counters {
#define CACHE_COUNTER_FIELD(name, what) uint64_t name;
	CACHE_COUNTERS(CACHE_COUNTER_FIELD)
#undef CACHE_COUNTER_FIELD
};

enum cache_counter {
#define CACHE_COUNTER_ENUM(name, what) COUNT_##name,
	CACHE_COUNTERS(CACHE_COUNTER_ENUM)
#undef CACHE_COUNTER_ENUM
};

#endif
