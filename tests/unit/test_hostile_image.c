/* SPDX-License-Identifier: MIT */
/*
 * image, against forgers and accidents: chunks and their index, the superblock and its copy, files that are cut off
 * or no image at all, and every single byte changed.
 */
#include "hostile.h"

/* ---- chunks and their index ---- */

struct index_change {
	unsigned section, what;
};

static void change_index(struct pinfs_index_page *page, void *context)
{
	const struct index_change *c = context;
	struct pinfs_block *b = &page->chunk[0];

	if (pinfs_get32(page->type) != c->section)
		return;
	switch (c->what) {
	case 1:
		page->magic = pinfs_put32(0);
		break;
	case 2:
		page->type = pinfs_put32(c->section + 1);
		break;
	case 3:
		page->first = pinfs_put64(169);
		break;
	case 4:
		b->offset = pinfs_put64(0);
		break;
	case 5:
		b->offset = pinfs_put64(UINT64_MAX);
		break;
	case 6:
		b->stored = pinfs_put32(0);
		break;
	case 7:
		b->stored = pinfs_put32(UINT32_MAX);
		break;
	case 8:
		b->raw = pinfs_put32(0);
		break;
	case 9:
		b->raw = pinfs_put32(pinfs_get32(b->raw) + 1);
		break;
	case 10:
		b->raw = pinfs_put32((1u << 16) + 1);
		break;
	case 11:
		b->raw = pinfs_put32(pinfs_get32(b->raw) | 7u << PINFS_BLOCK_CODEC_SHIFT);
		break;
	case 12: /* what is stored raw is no LZ4 */
		b->raw = pinfs_put32(pinfs_get32(b->raw) | PINFS_CODEC_LZ4 << PINFS_BLOCK_CODEC_SHIFT);
		break;
	case 13:
		b->checksum = pinfs_put64(pinfs_get64(b->checksum) + 1);
		break;
	case 14: /* shorter than the section says, consistently */
		b->raw = b->stored = pinfs_put32(pinfs_get32(b->raw) - 64);
		break;
	}
}

static void impossible_chunks_are_refused(void **state)
{
	static const unsigned types[] = {PINFS_SECTION_INODES, PINFS_SECTION_DIRS, PINFS_SECTION_BLOCKS,
		PINFS_SECTION_EXTENTS, PINFS_SECTION_SYMLINKS};

	for (size_t t = 0; t < ARRAY_SIZE(types); t++) {
		for (unsigned what = 1; what <= 14; what++) {
			struct index_change change = {types[t], what};
			struct opened o = {0};
			uint64_t errors;

			if (types[t] == PINFS_SECTION_SYMLINKS && what == 14)
				continue; /* has less than 64 bytes */
			forge_open(image_path, &o.forge);
			o.forge.change_index = change_index;
			o.forge.context = &change;
			build(&o);
			read_everything(o.img, &errors);
			if (!errors || !damages)
				fail_msg("section %u, case %u was accepted", types[t], what);
			assert_int_equal(image_chunk_check(o.img, types[t] - 1, 0), -EUCLEAN);
			assert_int_equal(image_chunk_check(o.img, types[t] - 1, 1000000), -ENOENT);
			done_all(&o);
		}
	}
}

/* ---- the superblock ---- */

static int try_super(void (*change)(struct pinfs_super *super))
{
	struct pinfs_super *super;
	struct image *img;
	uint8_t *bytes;
	size_t len;
	int r;

	bytes = read_file(image_path, &len);
	super = (void *)bytes;
	change(super);
	super_seal(super);
	r = open_bytes(bytes, len, 0, &img);
	if (r == 0)
		image_close(img);
	free(bytes);
	return r;
}

#define SUPER(name, statement)                                    \
	static void super_##name(struct pinfs_super *s)           \
	{                                                         \
		statement;                                        \
	}

SUPER(same, (void)s)
SUPER(next_major, s->version_major = pinfs_put16(2))
SUPER(no_major, s->version_major = pinfs_put16(0))
SUPER(next_minor, s->version_minor = pinfs_put16(1))
SUPER(incompat, s->incompat = pinfs_put64(1ull << 63))
SUPER(ro_compat, s->ro_compat = pinfs_put64(1ull << 63))
SUPER(compat, s->compat = pinfs_put64(1ull << 63))
SUPER(size_zero, s->image_size = pinfs_put64(0))
SUPER(size_small, s->image_size = pinfs_put64(4096))
SUPER(size_odd, s->image_size = pinfs_put64(pinfs_get64(s->image_size) - 1))
SUPER(size_long, s->image_size = pinfs_put64(pinfs_get64(s->image_size) + 4096))
SUPER(size_huge, s->image_size = pinfs_put64(1ull << 63))
SUPER(block_zero, s->block_size = pinfs_put32(0))
SUPER(block_small, s->block_size = pinfs_put32(2048))
SUPER(block_odd, s->block_size = pinfs_put32(12288))
SUPER(block_large, s->block_size = pinfs_put32(2 << 20))
SUPER(restart_zero, s->dir_restart = pinfs_put32(0))
SUPER(restart_huge, s->dir_restart = pinfs_put32(65537))
SUPER(sections_many, s->section_count = pinfs_put32(49))
SUPER(sections_none, s->section_count = pinfs_put32(0))
SUPER(nsec, s->created_nsec = pinfs_put32(1000000000))
SUPER(data_early, s->data_offset = pinfs_put64(4095))
SUPER(data_crossed, s->data_offset = pinfs_put64(pinfs_get64(s->data_end) + 1))
SUPER(data_late, s->data_end = pinfs_put64(pinfs_get64(s->image_size) + 1))
SUPER(no_inodes, s->inode_count = pinfs_put64(0))
SUPER(more_inodes, s->inode_count = pinfs_put64(pinfs_get64(s->inode_count) + 1))
SUPER(more_blocks, s->block_count = pinfs_put64(pinfs_get64(s->block_count) + 1))
SUPER(many_blocks, s->block_count = pinfs_put64(1ull << 33))
SUPER(type_zero, s->sections[0].type = pinfs_put32(0))
SUPER(type_order, s->sections[1].type = pinfs_put32(1))
SUPER(type_missing, s->sections[5].type = pinfs_put32(1000); s->sections[0].type = pinfs_put32(1); s->section_count =
	pinfs_put32(1))
SUPER(record_size, s->sections[0].record_size = pinfs_put32(32))
SUPER(record_zero, s->sections[5].type = pinfs_put32(99); s->sections[5].record_size = pinfs_put32(0))
SUPER(chunk_zero, s->sections[0].chunk_size = pinfs_put32(0))
SUPER(chunk_large, s->sections[1].chunk_size = pinfs_put32((1 << 16) + 1))
SUPER(chunk_odd, s->sections[0].chunk_size = pinfs_put32(32768 + 32))
SUPER(raw_odd, s->sections[0].raw_size = pinfs_put64(pinfs_get64(s->sections[0].raw_size) + 1))
SUPER(raw_huge, s->sections[1].raw_size = pinfs_put64(UINT64_MAX))
SUPER(filter, s->sections[0].filter = pinfs_put32(2))
SUPER(filter_bytes, s->sections[1].filter = pinfs_put32(PINFS_FILTER_DELTA))
SUPER(index_more, s->sections[0].index_pages = pinfs_put64(2))
SUPER(index_none, s->sections[0].index_pages = pinfs_put64(0))
SUPER(index_odd, s->sections[0].index_offset = pinfs_put64(pinfs_get64(s->sections[0].index_offset) + 1))
SUPER(index_far, s->sections[0].index_offset = pinfs_put64(pinfs_get64(s->image_size)))
SUPER(index_huge, s->sections[0].index_offset = pinfs_put64(UINT64_MAX - 4095))
SUPER(unknown_section, s->sections[6] = s->sections[5]; s->sections[6].type = pinfs_put32(77);
	s->sections[6].raw_size = s->sections[6].index_pages = s->sections[6].index_offset = pinfs_put64(0);
	s->section_count = pinfs_put32(7))

static void impossible_superblocks_are_refused(void **state)
{
	static const struct {
		void (*change)(struct pinfs_super *super);
		int want;
	} cases[] = {
		{super_same, 0}, {super_next_minor, 0}, {super_compat, 0}, {super_ro_compat, 0}, {super_unknown_section, 0},
		{super_next_major, -EOPNOTSUPP}, {super_no_major, -EOPNOTSUPP}, {super_incompat, -EOPNOTSUPP},
		{super_size_zero, -EUCLEAN}, {super_size_small, -EUCLEAN}, {super_size_odd, -EUCLEAN},
		{super_size_long, -EUCLEAN}, {super_size_huge, -EUCLEAN}, {super_block_zero, -EUCLEAN},
		{super_block_small, -EUCLEAN}, {super_block_odd, -EUCLEAN}, {super_block_large, -EUCLEAN},
		{super_restart_zero, -EUCLEAN}, {super_restart_huge, -EUCLEAN}, {super_sections_many, -EUCLEAN},
		{super_sections_none, -EUCLEAN}, {super_nsec, -EUCLEAN}, {super_data_early, -EUCLEAN},
		{super_data_crossed, -EUCLEAN}, {super_data_late, -EUCLEAN}, {super_no_inodes, -EUCLEAN},
		{super_more_inodes, -EUCLEAN}, {super_more_blocks, -EUCLEAN}, {super_many_blocks, -EUCLEAN},
		{super_type_zero, -EUCLEAN}, {super_type_order, -EUCLEAN}, {super_type_missing, -EUCLEAN},
		{super_record_size, -EUCLEAN}, {super_record_zero, -EUCLEAN}, {super_chunk_zero, -EUCLEAN},
		{super_chunk_large, -EUCLEAN}, {super_chunk_odd, -EUCLEAN}, {super_raw_odd, -EUCLEAN},
		{super_raw_huge, -EUCLEAN}, {super_filter, -EUCLEAN}, {super_filter_bytes, -EUCLEAN},
		{super_index_more, -EUCLEAN}, {super_index_none, -EUCLEAN}, {super_index_odd, -EUCLEAN},
		{super_index_far, -EUCLEAN}, {super_index_huge, -EUCLEAN},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		int r = try_super(cases[i].change);

		if (r != cases[i].want)
			fail_msg("case %zu: %d instead of %d: %s", i, r, cases[i].want, open_error);
	}
	assert_int_equal(try_super(super_next_major), -EOPNOTSUPP);
	assert_non_null(strstr(open_error, "2.0"));
	assert_int_equal(try_super(super_incompat), -EOPNOTSUPP);
	assert_non_null(strstr(open_error, "0x8000000000000000"));
}

static void the_copy_serves_where_the_first_superblock_is_damaged(void **state)
{
	struct image *img;
	uint64_t errors;
	uint8_t *bytes;
	size_t len;

	bytes = read_file(image_path, &len);
	/* Any of its bytes. */
	for (size_t at = 0; at < PINFS_SUPER_SIZE; at += 13) {
		bytes[at] ^= 0x10;
		assert_int_equal(open_bytes(bytes, len, 0, &img), 0);
		assert_true(image_get_info(img)->from_backup);
		if (at == 13 * 20)
			read_everything(img, &errors);
		assert_int_equal(image_super_check(img, false), -EUCLEAN);
		assert_int_equal(image_super_check(img, true), 0);
		image_close(img);
		assert_int_equal(open_bytes(bytes, len, IMAGE_OFFSET_AUTO, &img), 0);
		image_close(img);
		bytes[at] ^= 0x10;
	}
	/* Both: what begins like an image is a damaged one, the rest is none. */
	bytes[len - 1] ^= 1;
	bytes[100] ^= 1;
	assert_int_equal(open_bytes(bytes, len, 0, &img), -EUCLEAN);
	bytes[0] ^= 1;
	assert_int_equal(open_bytes(bytes, len, 0, &img), -EMEDIUMTYPE);
	assert_int_equal(open_bytes(bytes, len, IMAGE_OFFSET_AUTO, &img), -EMEDIUMTYPE);
	free(bytes);
}

static void the_copy_of_another_image_is_noticed(void **state)
{
	struct pinfs_super *second;
	struct image *img;
	uint8_t *bytes;
	size_t len;

	bytes = read_file(image_path, &len);
	second = (void *)(bytes + len - PINFS_SUPER_SIZE);
	second->uuid[3] ^= 1;
	super_seal(second);
	assert_int_equal(open_bytes(bytes, len, 0, &img), 0);
	assert_int_equal(image_super_check(img, false), 0);
	assert_int_equal(image_super_check(img, true), -EUCLEAN);
	image_close(img);
	free(bytes);
}

static void a_truncated_image_is_never_opened(void **state)
{
	struct image *img;
	uint8_t *bytes;
	size_t len;

	bytes = read_file(image_path, &len);
	for (size_t n = 0; n < len; n += n < 5000 ? 97 : 1013) {
		uint8_t *part = malloc(n + 1);
		int r;

		memcpy(part, bytes, n);
		r = open_bytes(part, n, n % 2 ? 0 : IMAGE_OFFSET_AUTO, &img);
		assert_int_equal(r, n < PINFS_SUPER_SIZE ? -EMEDIUMTYPE : -EUCLEAN);
		if (n >= PINFS_SUPER_SIZE)
			assert_non_null(strstr(open_error, "truncated"));
		free(part);
	}
	free(bytes);
}

static void what_is_no_image_is_none(void **state)
{
	struct rng rng = {77};
	uint8_t *bytes = malloc(1 << 20);
	struct image *img;

	for (unsigned k = 0; k < 3; k++) {
		if (k == 0)
			memset(bytes, 0, 1 << 20);
		else
			rng_bytes(&rng, bytes, 1 << 20);
		if (k == 2)
			memcpy(bytes, "\x7f" "ELF", 4);
		assert_int_equal(open_bytes(bytes, 1 << 20, 0, &img), -EMEDIUMTYPE);
		assert_int_equal(open_bytes(bytes, 1 << 20, IMAGE_OFFSET_AUTO, &img), -EMEDIUMTYPE);
		assert_int_equal(open_bytes(bytes, 1 << 20, 123456, &img), -EMEDIUMTYPE);
		assert_int_equal(open_bytes(bytes, 1 << 20, 1 << 20, &img), -EMEDIUMTYPE);
		assert_int_equal(open_bytes(bytes, 1 << 20, UINT64_MAX - 5, &img), -EMEDIUMTYPE);
	}
	free(bytes);
}

/* ThreadSanitizer has nothing to see here, and makes it slow. */
#ifdef __SANITIZE_THREAD__
#define FLIP_STEP 29
#else
#define FLIP_STEP 1
#endif

/* Every byte of the image is changed once: either nothing that is read differs, or there is an error. */
static void no_single_changed_byte_gives_wrong_data(void **state)
{
	unsigned noticed = 0, harmless = 0;
	struct rng rng = {99};
	uint64_t want, errors;
	struct image *img;
	uint8_t *bytes;
	size_t len;

	bytes = read_file(image_path, &len);
	assert_int_equal(open_bytes(bytes, len, 0, &img), 0);
	want = read_everything(img, &errors);
	image_close(img);
	for (size_t at = 0; at < len; at += FLIP_STEP) {
		uint8_t flip = (uint8_t)(1 + rng_below(&rng, 255));
		uint64_t got;

		bytes[at] ^= flip;
		if (open_bytes(bytes, len, 0, &img) < 0) {
			noticed++;
		} else {
			got = read_everything(img, &errors);
			if (!errors && got != want)
				fail_msg("byte %zu ^ 0x%02x: wrong data", at, flip);
			if (errors) {
				noticed++;
				assert_true(damages > 0);
			} else {
				harmless++;
			}
			image_close(img);
		}
		bytes[at] ^= flip;
	}
	print_message("%zu bytes: %u noticed, %u where nothing is read\n", len, noticed, harmless);
	assert_true(noticed > len / FLIP_STEP / 4);
	free(bytes);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(impossible_chunks_are_refused),
		cmocka_unit_test(impossible_superblocks_are_refused),
		cmocka_unit_test(the_copy_serves_where_the_first_superblock_is_damaged),
		cmocka_unit_test(the_copy_of_another_image_is_noticed),
		cmocka_unit_test(a_truncated_image_is_never_opened),
		cmocka_unit_test(what_is_no_image_is_none),
		cmocka_unit_test(no_single_changed_byte_gives_wrong_data),
	};

	return cmocka_run_group_tests_name("hostile_image", tests, hostile_setup, hostile_teardown);
}
