/* SPDX-License-Identifier: MIT */
/*
 * bitset: one bit for each of many things, with summaries: a bit of level k + 1 says that a whole 64-bit word of
 * level k is ones. So a range that is all ones is known to be so in a few steps, however long it is; fsck owes it to
 * this that a hostile image, in which a million files share the same million blocks, costs no more than any other.
 *
 * Used by: fsck, dump. Uses: base.
 *
 * Setting is thread safe against setting, clearing against clearing, reading against both; setting and clearing
 * must not meet. Memory is touched, and so really taken, only where a bit was set.
 */
#ifndef PINFS_MKFS_BITSET_H
#define PINFS_MKFS_BITSET_H

#include "base/util.h"

#define BITSET_LEVELS 9 /* 64^9 bits */

struct bitset {
	uint64_t bits;
	unsigned levels;
	uint64_t *level[BITSET_LEVELS];
};

/* All clear. 0 or -ENOMEM. `bits` may be 0. */
int bitset_init(struct bitset *b, uint64_t bits);
/* Also for one that was zeroed and never initialised. */
void bitset_destroy(struct bitset *b);

bool bitset_test(const struct bitset *b, uint64_t i);
void bitset_set(struct bitset *b, uint64_t i);
void bitset_clear(struct bitset *b, uint64_t i);
/* Sets [from, to); what is set already costs next to nothing. */
void bitset_fill(struct bitset *b, uint64_t from, uint64_t to);

/* The first clear bit in [from, to), or `to`. */
uint64_t bitset_next_clear(const struct bitset *b, uint64_t from, uint64_t to);
/* The first set bit in [from, to), or `to`; time grows with the distance. */
uint64_t bitset_next_set(const struct bitset *b, uint64_t from, uint64_t to);
/* How many are set. */
uint64_t bitset_count(const struct bitset *b);

/* Is all of [from, to) set? */
static inline bool bitset_all(const struct bitset *b, uint64_t from, uint64_t to)
{
	return bitset_next_clear(b, from, to) == to;
}

#endif
