/* SPDX-License-Identifier: MIT */
/*
 * codec: LZ4 blocks, XXH3 checksums and the delta filter of metadata chunks, behind one small table.
 *
 * Used by: image, mkfs, tests. Uses: base, format.h. No function here keeps state or locks; all are thread safe.
 */
#ifndef PINFS_CODEC_CODEC_H
#define PINFS_CODEC_CODEC_H

#include "base/util.h"
#include "pinfs/format.h"

struct codec_ops {
	const char *name;
	/* Exactly dst_len bytes must come out, and all of src must be used; otherwise -EUCLEAN. dst and src do not
	 * overlap. Never writes beyond dst_len or reads beyond src_len, whatever the bytes are. */
	int (*decompress)(const uint8_t *src, size_t src_len, uint8_t *dst, size_t dst_len);
};

/* NULL for a codec that this version does not know. */
const struct codec_ops *codec_by_id(unsigned id);

/* Compression levels: 0 is LZ4's fast mode, 1 to 12 are LZ4HC's. */
#define CODEC_LEVEL_FAST 0
/* Measured on trees of programs, of headers and of 100,000 tiny files: level 9 takes 1.6 to 2.1 times the CPU time of
 * level 6 and makes images 0.4 to 8 % smaller. */
#define CODEC_HC_LEVEL_DEFAULT 6
#define CODEC_HC_LEVEL_MAX 12

/* A compressor's working memory; one per thread. */
struct codec_context;
int codec_context_new(int level, struct codec_context **ret);
void codec_context_free(struct codec_context *context);

/*
 * Compresses src into dst (capacity dst_len). Returns the compressed size, or 0 where the result would not be
 * smaller than dst_len: then the block is stored as is.
 */
size_t codec_compress_lz4(struct codec_context *context, const uint8_t *src, size_t src_len, uint8_t *dst,
	size_t dst_len);

uint64_t codec_checksum(const void *data, size_t len);
/* Another function for each seed: for tables whose keys strangers choose. */
uint64_t codec_hash_seeded(const void *data, size_t len, uint64_t seed);

struct codec_hash128 {
	uint64_t low, high;
};
struct codec_hash128 codec_hash128(const void *data, size_t len);
/* As bytes in XXH3's canonical (big-endian) form. */
void codec_hash128_bytes(struct codec_hash128 hash, uint8_t ret[16]);

/* A running XXH3-128, for the content hash. */
struct codec_hash_state;
struct codec_hash_state *codec_hash_new(void);
void codec_hash_update(struct codec_hash_state *state, const void *data, size_t len);
struct codec_hash128 codec_hash_digest(const struct codec_hash_state *state);
void codec_hash_free(struct codec_hash_state *state);

/* PINFS_FILTER_DELTA, both ways; len is a multiple of record_size, record_size of 4; dst and src differ. */
void codec_filter_delta(const uint8_t *src, size_t len, size_t record_size, uint8_t *dst);
void codec_unfilter_delta(const uint8_t *src, size_t len, size_t record_size, uint8_t *dst);

#endif
