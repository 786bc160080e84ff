/* SPDX-License-Identifier: MIT */
/* codec: what was compressed comes back, what was not is refused without a byte out of bounds. */
#include "support.h"

#include "codec/codec.h"

/* Compresses into exactly as much memory as is promised, and back, both against guard pages. */
static void roundtrip(struct codec_context *c, const uint8_t *data, size_t len)
{
	struct guard src = guard_new(len, true), out = guard_new(len, true), back = guard_new(len, true);
	size_t n;

	memcpy(src.data, data, len);
	n = codec_compress_lz4(c, src.data, len, out.data, len);
	if (n) {
		struct guard packed = guard_new(n, true);

		assert_true(n < len);
		memcpy(packed.data, out.data, n);
		assert_int_equal(codec_by_id(PINFS_CODEC_LZ4)->decompress(packed.data, n, back.data, len), 0);
		assert_memory_equal(back.data, data, len);
		guard_free(&packed);
	}
	assert_int_equal(codec_by_id(PINFS_CODEC_RAW)->decompress(src.data, len, back.data, len), 0);
	assert_memory_equal(back.data, data, len);
	guard_free(&src);
	guard_free(&out);
	guard_free(&back);
}

static void every_size_comes_back(void **state)
{
	static const int levels[] = {CODEC_LEVEL_FAST, 1, CODEC_HC_LEVEL_DEFAULT, CODEC_HC_LEVEL_MAX};
	static const size_t sizes[] = {4095, 4096, 4097, 65535, 65536, 65537, 131072, (1 << 20) - 1, 1 << 20};
	uint8_t *data = malloc(1 << 20);
	struct rng rng = {1};

	assert_non_null(data);
	for (size_t l = 0; l < ARRAY_SIZE(levels); l++) {
		struct codec_context *c;

		assert_int_equal(codec_context_new(levels[l], &c), 0);
		for (size_t len = 1; len <= 400; len++) {
			rng_text(&rng, data, len);
			roundtrip(c, data, len);
		}
		for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
			rng_text(&rng, data, sizes[i]);
			roundtrip(c, data, sizes[i]);
			rng_bytes(&rng, data, sizes[i]);
			roundtrip(c, data, sizes[i]);
			memset(data, 'x', sizes[i]);
			roundtrip(c, data, sizes[i]);
		}
		codec_context_free(c);
	}
	free(data);
}

static void what_does_not_get_smaller_is_not_compressed(void **state)
{
	uint8_t data[4096], out[4096];
	struct codec_context *c;
	struct rng rng = {2};

	assert_int_equal(codec_context_new(CODEC_LEVEL_FAST, &c), 0);
	rng_bytes(&rng, data, sizeof(data));
	assert_int_equal(codec_compress_lz4(c, data, sizeof(data), out, sizeof(out)), 0);
	assert_int_equal(codec_compress_lz4(c, data, 1, out, 1), 0);
	assert_int_equal(codec_compress_lz4(c, data, 0, out, 0), 0);
	codec_context_free(c);
	codec_context_free(NULL);
}

static void a_context_gives_the_same_bytes_whatever_it_did_before(void **state)
{
	uint8_t data[8192], one[8192], two[8192], other[65536], scrap[65536];
	struct rng rng = {3};

	rng_text(&rng, data, sizeof(data));
	rng_text(&rng, other, sizeof(other));
	for (int level = 0; level <= CODEC_HC_LEVEL_MAX; level += 3) {
		struct codec_context *c;
		size_t n, m;

		assert_int_equal(codec_context_new(level, &c), 0);
		n = codec_compress_lz4(c, data, sizeof(data), one, sizeof(one));
		codec_compress_lz4(c, other, sizeof(other), scrap, sizeof(scrap));
		m = codec_compress_lz4(c, data, sizeof(data), two, sizeof(two));
		assert_true(n > 0);
		assert_int_equal(n, m);
		assert_memory_equal(one, two, n);
		codec_context_free(c);
	}
}

static void truncated_input_is_refused(void **state)
{
	const struct codec_ops *lz4 = codec_by_id(PINFS_CODEC_LZ4);
	uint8_t data[2000], packed[2000];
	struct guard dst = guard_new(sizeof(data), true);
	struct codec_context *c;
	struct rng rng = {4};
	size_t n;

	assert_int_equal(codec_context_new(CODEC_LEVEL_FAST, &c), 0);
	rng_text(&rng, data, sizeof(data));
	n = codec_compress_lz4(c, data, sizeof(data), packed, sizeof(packed));
	assert_true(n > 0);
	for (size_t len = 0; len < n; len++) {
		struct guard src = guard_new(len, true);

		memcpy(src.data, packed, len);
		assert_int_equal(lz4->decompress(src.data, len, dst.data, sizeof(data)), -EUCLEAN);
		guard_free(&src);
	}
	codec_context_free(c);
	guard_free(&dst);
}

static void a_wrong_size_is_refused(void **state)
{
	const struct codec_ops *lz4 = codec_by_id(PINFS_CODEC_LZ4), *raw = codec_by_id(PINFS_CODEC_RAW);
	uint8_t data[2000], packed[2000], dst[2001];
	struct codec_context *c;
	struct rng rng = {5};
	size_t n;

	assert_int_equal(codec_context_new(CODEC_LEVEL_FAST, &c), 0);
	rng_text(&rng, data, sizeof(data));
	n = codec_compress_lz4(c, data, sizeof(data), packed, sizeof(packed));
	assert_int_equal(lz4->decompress(packed, n, dst, sizeof(data) + 1), -EUCLEAN);
	assert_int_equal(lz4->decompress(packed, n, dst, sizeof(data) - 1), -EUCLEAN);
	assert_int_equal(raw->decompress(data, sizeof(data), dst, sizeof(data) + 1), -EUCLEAN);
	assert_int_equal(raw->decompress(data, sizeof(data), dst, sizeof(data) - 1), -EUCLEAN);
	codec_context_free(c);
}

static void garbage_never_leaves_the_buffers(void **state)
{
	const struct codec_ops *lz4 = codec_by_id(PINFS_CODEC_LZ4);
	struct guard src[2], dst[2];
	struct rng rng = {6};

	for (unsigned round = 0; round < 400; round++) {
		size_t src_len = 1 + rng_below(&rng, 300), dst_len = 1 + rng_below(&rng, 2000);

		for (unsigned end = 0; end < 2; end++) {
			src[end] = guard_new(src_len, end);
			dst[end] = guard_new(dst_len, end);
		}
		for (unsigned i = 0; i < 200; i++) {
			unsigned end = i & 1;
			int r;

			rng_bytes(&rng, src[end].data, src_len);
			/* Long runs of literals and matches, far offsets: what a forger would write. */
			if (i % 4 == 0)
				memset(src[end].data, 0xff, src_len / 2);
			r = lz4->decompress(src[end].data, src_len, dst[end].data, dst_len);
			assert_true(r == 0 || r == -EUCLEAN);
		}
		for (unsigned end = 0; end < 2; end++) {
			guard_free(&src[end]);
			guard_free(&dst[end]);
		}
	}
}

static void unknown_codecs_are_unknown(void **state)
{
	assert_non_null(codec_by_id(PINFS_CODEC_RAW));
	assert_non_null(codec_by_id(PINFS_CODEC_LZ4));
	assert_null(codec_by_id(2));
	assert_null(codec_by_id(255));
	assert_null(codec_by_id(UINT32_MAX));
}

static void the_filter_comes_back_for_every_shape(void **state)
{
	static const size_t records[] = {4, 8, 16, 24, 64, 1024};
	struct rng rng = {7};

	for (size_t k = 0; k < ARRAY_SIZE(records); k++) {
		for (size_t n = 0; n < 70; n += 1 + n / 8) {
			size_t len = n * records[k];
			struct guard src = guard_new(len, true), mid = guard_new(len, true), back = guard_new(len, true);

			rng_bytes(&rng, src.data, len);
			codec_filter_delta(src.data, len, records[k], mid.data);
			codec_unfilter_delta(mid.data, len, records[k], back.data);
			assert_memory_equal(src.data, back.data, len);
			/* And the other way: every chunk of bytes is the filtered form of something. */
			codec_unfilter_delta(src.data, len, records[k], mid.data);
			codec_filter_delta(mid.data, len, records[k], back.data);
			assert_memory_equal(src.data, back.data, len);
			guard_free(&src);
			guard_free(&mid);
			guard_free(&back);
		}
	}
}

static void the_filter_is_the_one_of_the_specification(void **state)
{
	/* Three records of two little-endian words: 1, 0x01020304; 3, 0x01020303; 2, 0x01020400. */
	static const uint8_t raw[] = {1, 0, 0, 0, 4, 3, 2, 1, 3, 0, 0, 0, 3, 3, 2, 1, 2, 0, 0, 0, 0, 4, 2, 1};
	/* Differences: 1, 2, -1; and 0x01020304, -1, 0xfd. Then byte 0 of all, byte 1 of all, … */
	static const uint8_t want[] = {1, 2, 0xff, 0, 0, 0xff, 0, 0, 0xff, 0, 0, 0xff, 4, 0xff, 0xfd, 3, 0xff, 0, 2, 0xff, 0,
		1, 0xff, 0};
	uint8_t got[sizeof(raw)];

	codec_filter_delta(raw, sizeof(raw), 8, got);
	assert_memory_equal(got, want, sizeof(want));
}

static void hashes_are_the_published_ones(void **state)
{
	static const uint8_t empty128[16] = {0x99, 0xaa, 0x06, 0xd3, 0x01, 0x47, 0x98, 0xd8, 0x60, 0x01, 0xc3, 0x24, 0x46,
		0x8d, 0x49, 0x7f};
	uint8_t bytes[16];

	assert_true(codec_checksum("", 0) == 0x2d06800538d394c2ull);
	codec_hash128_bytes(codec_hash128("", 0), bytes);
	assert_memory_equal(bytes, empty128, 16);
}

static void a_running_hash_does_not_depend_on_the_pieces(void **state)
{
	struct rng rng = {8};
	uint8_t data[5000];
	struct codec_hash128 want;

	rng_bytes(&rng, data, sizeof(data));
	want = codec_hash128(data, sizeof(data));
	for (unsigned round = 0; round < 50; round++) {
		struct codec_hash_state *s = codec_hash_new();
		struct codec_hash128 got;

		assert_non_null(s);
		for (size_t at = 0; at < sizeof(data);) {
			size_t n = 1 + rng_below(&rng, 1000);

			n = MIN(n, sizeof(data) - at);
			codec_hash_update(s, data + at, n);
			at += n;
		}
		got = codec_hash_digest(s);
		assert_true(got.low == want.low && got.high == want.high);
		codec_hash_free(s);
	}
	codec_hash_free(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_size_comes_back),
		cmocka_unit_test(what_does_not_get_smaller_is_not_compressed),
		cmocka_unit_test(a_context_gives_the_same_bytes_whatever_it_did_before),
		cmocka_unit_test(truncated_input_is_refused),
		cmocka_unit_test(a_wrong_size_is_refused),
		cmocka_unit_test(garbage_never_leaves_the_buffers),
		cmocka_unit_test(unknown_codecs_are_unknown),
		cmocka_unit_test(the_filter_comes_back_for_every_shape),
		cmocka_unit_test(the_filter_is_the_one_of_the_specification),
		cmocka_unit_test(hashes_are_the_published_ones),
		cmocka_unit_test(a_running_hash_does_not_depend_on_the_pieces),
	};

	return cmocka_run_group_tests_name("codec", tests, NULL, support_end);
}
