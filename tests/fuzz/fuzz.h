/* SPDX-License-Identifier: MIT */
/*
 * fuzz: what the fuzz targets share. A target is fuzz_NAME.c with LLVMFuzzerTestOneInput(); it is linked with
 * mutator.c, container.c and memory.c, and either with clang's libFuzzer or with replay.c, which runs files (and
 * mutations of them) without it.
 */
#ifndef PINFS_TESTS_FUZZ_H
#define PINFS_TESTS_FUZZ_H

#include "base/util.h"
#include "image/image.h"

/* libFuzzer's interface; it has no header. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned int seed);
size_t LLVMFuzzerCustomCrossOver(const uint8_t *data1, size_t size1, const uint8_t *data2, size_t size2, uint8_t *out,
	size_t max_size, unsigned int seed);

/* A broken promise of the decoder: says which, and dies. Unlike assert() it is never compiled out. */
#define FUZZ_CHECK(condition)                                                                        \
	do {                                                                                         \
		if (!(condition)) {                                                                  \
			fprintf(stderr, "%s:%d: broken promise: %s\n", __FILE__, __LINE__, #condition); \
			abort();                                                                     \
		}                                                                                    \
	} while (0)

/* "Output parameters are untouched on failure": fill before the call, check after it. */
#define FUZZ_FILL 0xa5
#define fuzz_fill(p) memset((p), FUZZ_FILL, sizeof(*(p)))
#define FUZZ_UNTOUCHED(p) FUZZ_CHECK(fuzz_is_filled((p), sizeof(*(p))))
static inline bool fuzz_is_filled(const void *p, size_t len)
{
	const uint8_t *b = p;

	return b[0] == FUZZ_FILL && !memcmp(b, b + 1, len - 1);
}

/* Numbers that depend on nothing but the seed. */
struct fuzz_random {
	uint64_t state;
};
static inline uint64_t fuzz_next(struct fuzz_random *r)
{
	uint64_t z = (r->state += 0x9e3779b97f4a7c15ull);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}
/* 0 … n - 1; 0 for n = 0. */
static inline uint64_t fuzz_below(struct fuzz_random *r, uint64_t n)
{
	return n ? fuzz_next(r) % n : 0;
}
static inline bool fuzz_chance(struct fuzz_random *r, unsigned percent)
{
	return fuzz_below(r, 100) < percent;
}

/*
 * Opens the image in [data, data + size). verify false: wrong checksums pass. NULL if it is refused; then the error
 * text has been checked. The bytes must stay until image_close().
 */
struct image *fuzz_image_open(const uint8_t *data, size_t size, const struct image_options *options);

#endif
