/* SPDX-License-Identifier: MIT */
#include "mkfs/bitset.h"

#include <assert.h>

#define ONES UINT64_MAX

static uint64_t load(const uint64_t *w)
{
	return __atomic_load_n(w, __ATOMIC_RELAXED);
}

static uint64_t level_words(const struct bitset *b, unsigned level)
{
	uint64_t n = b->bits;

	for (unsigned k = 0; k <= level; k++)
		n = n / 64 + !!(n % 64);
	return n;
}

/* The bits beyond the end are ones, so that the last word of a level can become all ones like any other. */
static void level_close(uint64_t *words, uint64_t bits)
{
	if (bits % 64)
		words[bits / 64] = ONES << bits % 64;
}

int bitset_init(struct bitset *ret, uint64_t bits)
{
	struct bitset b = {.bits = bits};
	uint64_t below = bits, words;

	if (!bits) {
		*ret = b;
		return 0;
	}
	do {
		words = level_words(&b, b.levels);
		assert(b.levels < BITSET_LEVELS);
		b.level[b.levels] = words <= SIZE_MAX / sizeof(uint64_t) ? calloc(words, sizeof(uint64_t)) : NULL;
		if (!b.level[b.levels]) {
			bitset_destroy(&b);
			return -ENOMEM;
		}
		level_close(b.level[b.levels], below);
		below = words;
		b.levels++;
	} while (words > 1);
	*ret = b;
	return 0;
}

void bitset_destroy(struct bitset *b)
{
	for (unsigned k = 0; k < BITSET_LEVELS; k++)
		free(b->level[k]);
	*b = (struct bitset){0};
}

bool bitset_test(const struct bitset *b, uint64_t i)
{
	return i < b->bits && load(&b->level[0][i / 64]) >> i % 64 & 1;
}

/* Sets the bits of mask in a word of level 0, and tells the levels above if that made it all ones. */
static void set_word(struct bitset *b, uint64_t word, uint64_t mask)
{
	for (unsigned k = 0; k < b->levels; k++) {
		if ((load(&b->level[k][word]) & mask) == mask)
			return;
		if ((__atomic_fetch_or(&b->level[k][word], mask, __ATOMIC_RELAXED) | mask) != ONES)
			return;
		mask = 1ull << word % 64;
		word /= 64;
	}
}

void bitset_set(struct bitset *b, uint64_t i)
{
	assert(i < b->bits);
	set_word(b, i / 64, 1ull << i % 64);
}

void bitset_clear(struct bitset *b, uint64_t i)
{
	assert(i < b->bits);
	for (unsigned k = 0; k < b->levels; k++) {
		__atomic_fetch_and(&b->level[k][i / 64], ~(1ull << i % 64), __ATOMIC_RELAXED);
		i /= 64;
	}
}

/* If a summary says that everything around i is set: the first position after that. Otherwise i. */
static uint64_t leap(const struct bitset *b, uint64_t i)
{
	for (unsigned k = b->levels - 1; k >= 1; k--) {
		uint64_t j = i >> 6 * k;

		if (load(&b->level[k][j / 64]) >> j % 64 & 1)
			return (j + 1) << 6 * k;
	}
	return i;
}

void bitset_fill(struct bitset *b, uint64_t from, uint64_t to)
{
	assert(from <= to && to <= b->bits);
	while (from < to) {
		uint64_t next = leap(b, from);

		if (next == from) {
			uint64_t mask = ONES << from % 64;

			next = align_down(from, 64) + 64;
			if (next > to)
				mask &= ONES >> (next - to);
			set_word(b, from / 64, mask);
		}
		from = next;
	}
}

uint64_t bitset_next_clear(const struct bitset *b, uint64_t from, uint64_t to)
{
	assert(to <= b->bits);
	while (from < to) {
		uint64_t next = leap(b, from), clear;

		if (next == from) {
			clear = ~load(&b->level[0][from / 64]) >> from % 64;
			if (clear)
				return MIN(from + (unsigned)__builtin_ctzll(clear), to);
			next = align_down(from, 64) + 64;
		}
		from = next;
	}
	return to;
}

uint64_t bitset_next_set(const struct bitset *b, uint64_t from, uint64_t to)
{
	assert(to <= b->bits);
	while (from < to) {
		uint64_t set = load(&b->level[0][from / 64]) >> from % 64;

		if (set)
			return MIN(from + (unsigned)__builtin_ctzll(set), to);
		from = align_down(from, 64) + 64;
	}
	return to;
}

uint64_t bitset_count(const struct bitset *b)
{
	uint64_t n = 0, words = b->bits ? level_words(b, 0) : 0;

	for (uint64_t i = 0; i < words; i++)
		n += (unsigned)__builtin_popcountll(load(&b->level[0][i]));
	/* level_close()'s bits are nobody's. */
	return n - (b->bits % 64 ? 64 - b->bits % 64 : 0);
}
