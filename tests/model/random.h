/* SPDX-License-Identifier: MIT */
/* Numbers that depend on a seed only, the same on every machine. */
#ifndef PINFS_MODEL_RANDOM_H
#define PINFS_MODEL_RANDOM_H

#include <stdbool.h>
#include <stdint.h>

static inline uint64_t mix64(uint64_t x)
{
	x += 0x9e3779b97f4a7c15u;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
	return x ^ (x >> 31);
}

struct rng {
	uint64_t state;
};

static inline struct rng rng_new(uint64_t seed, uint64_t stream)
{
	return (struct rng){mix64(seed) ^ mix64(~stream)};
}
static inline uint64_t rng_next(struct rng *r)
{
	r->state += 0x9e3779b97f4a7c15u;
	return mix64(r->state);
}
/* 0 to n - 1; n > 0. */
static inline uint64_t rng_below(struct rng *r, uint64_t n)
{
	return rng_next(r) % n;
}
static inline bool rng_one_in(struct rng *r, uint64_t n)
{
	return rng_below(r, n) == 0;
}

#endif
