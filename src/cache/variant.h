/* SPDX-License-Identifier: MIT */
/*
 * The designs that lost the debates, at the place in the code where they differ from the one that won. Only the explorer
 * (tests/explore) can switch them on; everywhere else each is the constant false.
 */
#ifndef PINFS_CACHE_VARIANT_H
#define PINFS_CACHE_VARIANT_H

#include <stdbool.h>
#include <stdint.h>

/*	name			debate	what it does instead */
#define VARIANTS(X)                                                                                  \
	X(cow_by_page_count,	2,	"COW reuses a page if its reference count is one")               \
	X(cow_by_mapcount,	4,	"COW and fast GUP decide by a map count that is read without the lock") \
	X(bounce_too_late,	5,	"writeback looks at the pins after it has taken the bytes")      \
	X(dirty_at_unpin,	5,	"pins need no mkwrite; unpin sets the page dirty behind the filesystem's back") \
	X(lock_upgrade,		1,	"the fault path drops the mm lock and takes it again to go on where it was") \
	X(busy_is_success,	3,	"a page table entry that is there already counts as success, whatever it maps") \
	X(callback_under_lock,	2,	"fault and mkwrite run under the mm lock")                       \
	X(fork_protects_pinned,	4,	"fork write-protects pinned private pages instead of copying them") \
	X(pin_without_barrier,	4,	"no full barrier between the count of a fast pin and the second look") \
	X(reclaim_tests_first,	5,	"reclaim tests the pins before it unmaps")                       \
	X(clean_pinned,		5,	"writeback cleans a write-pinned page")                          \
	X(truncate_reuses,	5,	"truncate frees a pinned page's memory at once")

struct cache;

#ifdef PINFS_EXPLORE
struct variants {
#define VARIANT_FIELD(name, debate, what) bool name;
	VARIANTS(VARIANT_FIELD)
#undef VARIANT_FIELD
};
extern struct variants explore_variants;
#define variant(name) (explore_variants.name)
/* dirty_at_unpin: a page becomes dirty, and nobody was asked. */
void variant_set_dirty(struct cache *cache, uint32_t frame);
#else
#define variant(name) false
#define variant_set_dirty(cache, frame) ((void)(frame))
#endif

#endif
