/* SPDX-License-Identifier: MIT */
#include "codec/codec.h"

#include <lz4.h>
#include <lz4hc.h>
#include <xxhash.h>

static int raw_decompress(const uint8_t *src, size_t src_len, uint8_t *dst, size_t dst_len)
{
	if (src_len != dst_len)
		return -EUCLEAN;
	memcpy(dst, src, dst_len);
	return 0;
}

static int lz4_decompress(const uint8_t *src, size_t src_len, uint8_t *dst, size_t dst_len)
{
	int n = LZ4_decompress_safe((const char *)src, (char *)dst, (int)src_len, (int)dst_len);

	return n >= 0 && (size_t)n == dst_len ? 0 : -EUCLEAN;
}

static const struct codec_ops codecs[] = {
	[PINFS_CODEC_RAW] = {"none", raw_decompress},
	[PINFS_CODEC_LZ4] = {"lz4", lz4_decompress},
};

const struct codec_ops *codec_by_id(unsigned id)
{
	return id < ARRAY_SIZE(codecs) ? &codecs[id] : NULL;
}

struct codec_context {
	int level;
	void *state;
};

int codec_context_new(int level, struct codec_context **ret)
{
	struct codec_context *c = calloc(1, sizeof(*c));

	if (!c)
		return -ENOMEM;
	c->level = level;
	c->state = malloc((size_t)(level ? LZ4_sizeofStateHC() : LZ4_sizeofState()));
	if (!c->state) {
		free(c);
		return -ENOMEM;
	}
	*ret = c;
	return 0;
}

void codec_context_free(struct codec_context *c)
{
	if (!c)
		return;
	free(c->state);
	free(c);
}

size_t codec_compress_lz4(struct codec_context *c, const uint8_t *src, size_t src_len, uint8_t *dst, size_t dst_len)
{
	int n;

	if (dst_len < 2)
		return 0;
	/* One byte less than the capacity: what does not get smaller is not worth decompressing. */
	if (c->level)
		n = LZ4_compress_HC_extStateHC(c->state, (const char *)src, (char *)dst, (int)src_len,
			(int)dst_len - 1, c->level);
	else
		n = LZ4_compress_fast_extState(c->state, (const char *)src, (char *)dst, (int)src_len,
			(int)dst_len - 1, 1);
	return n > 0 ? (size_t)n : 0;
}

uint64_t codec_hash_seeded(const void *data, size_t len, uint64_t seed)
{
	return XXH3_64bits_withSeed(data, len, seed);
}

uint64_t codec_checksum(const void *data, size_t len)
{
	return XXH3_64bits(data, len);
}

struct codec_hash128 codec_hash128(const void *data, size_t len)
{
	XXH128_hash_t h = XXH3_128bits(data, len);

	return (struct codec_hash128){h.low64, h.high64};
}

void codec_hash128_bytes(struct codec_hash128 hash, uint8_t ret[16])
{
	XXH128_canonical_t c;

	XXH128_canonicalFromHash(&c, (XXH128_hash_t){hash.low, hash.high});
	memcpy(ret, c.digest, 16);
}

struct codec_hash_state *codec_hash_new(void)
{
	XXH3_state_t *s = XXH3_createState();

	if (s)
		XXH3_128bits_reset(s);
	return (struct codec_hash_state *)s;
}

void codec_hash_update(struct codec_hash_state *state, const void *data, size_t len)
{
	XXH3_128bits_update((XXH3_state_t *)state, data, len);
}

struct codec_hash128 codec_hash_digest(const struct codec_hash_state *state)
{
	XXH128_hash_t h = XXH3_128bits_digest((const XXH3_state_t *)state);

	return (struct codec_hash128){h.low64, h.high64};
}

void codec_hash_free(struct codec_hash_state *state)
{
	XXH3_freeState((XXH3_state_t *)state);
}

static uint32_t load32(const uint8_t *p)
{
	uint32_t v;

	memcpy(&v, p, 4);
	return le32toh(v);
}

void codec_filter_delta(const uint8_t *src, size_t len, size_t record_size, uint8_t *dst)
{
	size_t n = len / record_size;

	for (size_t w = 0; w < record_size; w += 4) {
		uint8_t *plane = dst + w * n;
		uint32_t prev = 0;

		for (size_t i = 0; i < n; i++) {
			uint32_t v = load32(src + i * record_size + w), d = v - prev;

			prev = v;
			for (size_t b = 0; b < 4; b++)
				plane[b * n + i] = (uint8_t)(d >> (8 * b));
		}
	}
}

void codec_unfilter_delta(const uint8_t *src, size_t len, size_t record_size, uint8_t *dst)
{
	size_t n = len / record_size;

	for (size_t w = 0; w < record_size; w += 4) {
		const uint8_t *p0 = src + w * n, *p1 = p0 + n, *p2 = p1 + n, *p3 = p2 + n;
		uint32_t v = 0;

		for (size_t i = 0; i < n; i++) {
			uint32_t le;

			v += (uint32_t)p0[i] | (uint32_t)p1[i] << 8 | (uint32_t)p2[i] << 16 | (uint32_t)p3[i] << 24;
			le = htole32(v);
			memcpy(dst + i * record_size + w, &le, 4);
		}
	}
}
