/* SPDX-License-Identifier: MIT */
/*
 * image, against forgers: every promise that the decoder makes about an inode, a directory and attributes is broken
 * once, with all checksums right; the decoder must notice, say so, and leave the rest alone. What is around them
 * (chunks, superblock, the file itself): test_hostile_image.c.
 */
#include "hostile.h"

#include <dirent.h>
#include <sys/stat.h>

static uint32_t ino_run, ino_packed, ino_extents, ino_hole, ino_dir, ino_sub, ino_link, ino_fifo, ino_xip;

static void the_forge_changes_nothing_by_itself(void **state)
{
	uint64_t want, got, want_errors, got_errors;
	struct opened o = {0};
	struct image *img;
	uint8_t *bytes;
	size_t len;

	forge_open(image_path, &o.forge);
	build(&o);
	bytes = read_file(image_path, &len);
	assert_int_equal(open_bytes(bytes, len, 0, &img), 0);
	want = read_everything(img, &want_errors);
	got = read_everything(o.img, &got_errors);
	assert_int_equal(want_errors, 0);
	assert_int_equal(got_errors, 0);
	assert_true(got == want);
	image_close(img);
	free(bytes);
	ino_run = look_up(o.img, 1, "run");
	ino_packed = look_up(o.img, 1, "packed");
	ino_extents = look_up(o.img, 1, "extents");
	ino_hole = look_up(o.img, 1, "hole");
	ino_dir = look_up(o.img, 1, "dir");
	ino_sub = look_up(o.img, ino_dir, "sub");
	ino_link = look_up(o.img, 1, "link");
	ino_fifo = look_up(o.img, 1, "fifo");
	ino_xip = look_up(o.img, 1, "xip");
	assert_int_equal(forge_inode(&o.forge, ino_run)->layout, PINFS_LAYOUT_RUN);
	assert_int_equal(forge_inode(&o.forge, ino_packed)->layout, PINFS_LAYOUT_PACKED);
	assert_int_equal(forge_inode(&o.forge, ino_extents)->layout, PINFS_LAYOUT_EXTENTS);
	assert_int_equal(forge_inode(&o.forge, ino_hole)->layout, PINFS_LAYOUT_NONE);
	assert_int_equal(forge_inode(&o.forge, ino_xip)->flags, PINFS_INODE_XIP);
	done_all(&o);
}

/* ---- inodes ---- */

enum field { END, MODE, LAYOUT, FLAGS, NLINK, SIZE, NSEC, XATTR, POS, ARG0, ARG1, ALLOC };

static void set_field(struct pinfs_inode *i, enum field field, uint64_t v)
{
	switch (field) {
	case END:
		break;
	case MODE:
		i->mode = pinfs_put16((uint16_t)v);
		break;
	case LAYOUT:
		i->layout = (uint8_t)v;
		break;
	case FLAGS:
		i->flags = (uint8_t)v;
		break;
	case NLINK:
		i->nlink = pinfs_put32((uint32_t)v);
		break;
	case SIZE:
		i->size = pinfs_put64(v);
		break;
	case NSEC:
		i->mtime_nsec = pinfs_put32((uint32_t)v);
		break;
	case XATTR:
		i->xattr = pinfs_put32((uint32_t)v);
		break;
	case POS:
		i->pos = pinfs_put64(v);
		break;
	case ARG0:
		i->arg0 = pinfs_put32((uint32_t)v);
		break;
	case ARG1:
		i->arg1 = pinfs_put32((uint32_t)v);
		break;
	case ALLOC:
		i->alloc = pinfs_put64(v);
		break;
	}
}

#define HUGE (1ull << 63)

static void impossible_inodes_are_refused(void **state)
{
	const struct {
		uint32_t ino;
		struct {
			enum field field;
			uint64_t value;
		} set[4];
	} cases[] = {
		/* of every type */
		{ino_run, {{NLINK, 0}}},
		{ino_run, {{NSEC, 1000000000}}},
		{ino_run, {{NSEC, UINT32_MAX}}},
		{ino_run, {{ALLOC, HUGE}}},
		{ino_run, {{SIZE, HUGE}}},
		{ino_run, {{SIZE, UINT64_MAX}}},
		{ino_run, {{MODE, 0}}},
		{ino_run, {{MODE, 0030644}}},
		{ino_run, {{MODE, 0170644}}},
		{ino_run, {{XATTR, 1000000}}},
		{ino_run, {{XATTR, UINT32_MAX}}},
		/* regular files */
		{ino_run, {{LAYOUT, 7}}},
		{ino_run, {{LAYOUT, 255}}},
		{ino_run, {{LAYOUT, PINFS_LAYOUT_DIR}}},
		{ino_run, {{LAYOUT, PINFS_LAYOUT_SYMLINK}}},
		{ino_run, {{LAYOUT, PINFS_LAYOUT_DEVICE}}},
		{ino_run, {{POS, 1000000}}},
		{ino_run, {{POS, UINT64_MAX}}},
		{ino_run, {{SIZE, 0}}},
		{ino_run, {{SIZE, 1 << 30}}},
		{ino_run, {{SIZE, HUGE - 1}}},
		{ino_run, {{SIZE, HUGE - 1}, {POS, UINT64_MAX - 10}}},
		{ino_packed, {{SIZE, 0}}},
		{ino_packed, {{SIZE, BLOCK + 1}}},
		{ino_packed, {{ARG0, BLOCK}}},
		{ino_packed, {{ARG0, UINT32_MAX}}},
		{ino_packed, {{POS, 1000000}}},
		{ino_packed, {{POS, UINT64_MAX}}},
		{ino_packed, {{FLAGS, PINFS_INODE_XIP}}},
		{ino_extents, {{SIZE, 0}}},
		{ino_extents, {{ARG0, 0}}},
		{ino_extents, {{ARG0, 1000000}}},
		{ino_extents, {{POS, 1000000}}},
		{ino_extents, {{POS, UINT64_MAX}}},
		{ino_extents, {{FLAGS, PINFS_INODE_XIP}}},
		{ino_hole, {{FLAGS, PINFS_INODE_XIP}}},
		/* directories */
		{ino_dir, {{LAYOUT, PINFS_LAYOUT_NONE}}},
		{ino_dir, {{LAYOUT, PINFS_LAYOUT_RUN}}},
		{ino_dir, {{ARG0, UINT32_MAX}}},
		{ino_dir, {{ARG1, 0}}},
		{ino_dir, {{ARG1, 1000000}}},
		{ino_dir, {{POS, 1 << 20}}},
		{ino_dir, {{POS, UINT64_MAX}}},
		{ino_dir, {{SIZE, 1 << 20}}},
		{ino_dir, {{SIZE, HUGE - 1}, {POS, HUGE - 1}}},
		{ino_run, {{MODE, S_IFDIR | 0755}}},
		/* links */
		{ino_link, {{LAYOUT, PINFS_LAYOUT_NONE}}},
		{ino_link, {{SIZE, 0}}},
		{ino_link, {{SIZE, PINFS_SYMLINK_MAX + 1}}},
		{ino_link, {{POS, 1 << 20}}},
		{ino_link, {{POS, UINT64_MAX - 2}}},
		{ino_run, {{MODE, S_IFLNK | 0777}}},
		/* the rest */
		{ino_fifo, {{LAYOUT, PINFS_LAYOUT_RUN}}},
		{ino_fifo, {{LAYOUT, PINFS_LAYOUT_DEVICE}}},
		{ino_fifo, {{MODE, S_IFCHR | 0600}}},
		{ino_fifo, {{MODE, S_IFBLK | 0600}}},
		{ino_run, {{MODE, S_IFSOCK | 0600}}},
		{ino_run, {{MODE, S_IFIFO | 0600}}},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct image_inode inode, other;
		struct opened o = {0};

		forge_open(image_path, &o.forge);
		for (size_t k = 0; k < 4 && cases[i].set[k].field; k++)
			set_field(forge_inode(&o.forge, cases[i].ino), cases[i].set[k].field, cases[i].set[k].value);
		build(&o);
		memset(&inode, 0x5a, sizeof(inode));
		other = inode;
		if (image_inode_get(o.img, cases[i].ino, &inode) != -EUCLEAN)
			fail_msg("case %zu was accepted", i);
		assert_memory_equal(&inode, &other, sizeof(inode));
		assert_true(damages == 1 && strstr(last_damage, "inode "));
		assert_int_equal(image_inode_get(o.img, 1, &inode), 0);
		done_all(&o);
	}
}

static void unusual_inodes_are_accepted(void **state)
{
	struct opened o = {0};
	struct image_inode i;

	forge_open(image_path, &o.forge);
	/* A file of 8 EiB minus one that is a hole, with the oldest time there is and all permission bits. */
	set_field(forge_inode(&o.forge, ino_hole), SIZE, INT64_MAX);
	set_field(forge_inode(&o.forge, ino_hole), NSEC, 999999999);
	set_field(forge_inode(&o.forge, ino_hole), MODE, S_IFREG | 07777);
	set_field(forge_inode(&o.forge, ino_hole), NLINK, UINT32_MAX);
	forge_inode(&o.forge, ino_hole)->mtime_sec = pinfs_put64(1ull << 63);
	set_field(forge_inode(&o.forge, ino_fifo), MODE, S_IFSOCK | 0600);
	build(&o);
	assert_int_equal(image_inode_get(o.img, ino_hole, &i), 0);
	assert_true(i.size == INT64_MAX && i.mtime.tv_sec == INT64_MIN && i.nlink == UINT32_MAX);
	for (uint64_t at = 0; at < INT64_MAX - 4096ull; at = at * 3 + 4711) {
		uint64_t found;
		uint8_t byte = 1;

		assert_int_equal(image_pread(o.img, &i, &byte, 1, at), 1);
		assert_int_equal(byte, 0);
		assert_int_equal(image_seek(o.img, &i, at, false, &found), -ENXIO);
		assert_int_equal(image_seek(o.img, &i, at, true, &found), 0);
	}
	assert_int_equal(image_inode_get(o.img, ino_fifo, &i), 0);
	done_all(&o);
}

static void a_link_with_a_nul_byte_is_refused(void **state)
{
	char target[PINFS_SYMLINK_MAX + 1] = "untouched";
	struct opened o = {0};
	struct image_inode i;

	forge_open(image_path, &o.forge);
	o.forge.sections[PINFS_SECTION_SYMLINKS].raw[3] = 0;
	build(&o);
	assert_int_equal(image_inode_get(o.img, ino_link, &i), 0);
	assert_int_equal(image_readlink(o.img, &i, target), -EUCLEAN);
	assert_string_equal(target, "untouched");
	done_all(&o);
}

/* ---- extents and blocks ---- */

static struct image_inode get(struct opened *o, uint32_t ino)
{
	struct image_inode i;

	assert_int_equal(image_inode_get(o->img, ino, &i), 0);
	return i;
}

static void impossible_extents_are_refused(void **state)
{
	static const struct {
		uint64_t lblk;
		uint32_t block, count;
	} bad[] = {{0, 0, 0}, {0, 100000, 1}, {0, UINT32_MAX, UINT32_MAX}, {0, 0, UINT32_MAX}, {1ull << 52, 0, 1},
		{UINT64_MAX, 0, 1}};

	for (size_t k = 0; k < ARRAY_SIZE(bad); k++) {
		struct opened o = {0};
		struct pinfs_extent *e;
		struct image_inode i;
		uint64_t found;
		uint8_t byte;

		forge_open(image_path, &o.forge);
		e = (void *)o.forge.sections[PINFS_SECTION_EXTENTS].raw;
		*e = (struct pinfs_extent){pinfs_put64(bad[k].lblk), pinfs_put32(bad[k].block), pinfs_put32(bad[k].count)};
		e[1] = e[2] = e[0];
		build(&o);
		i = get(&o, ino_extents);
		assert_int_equal(image_pread(o.img, &i, &byte, 1, 0), -EUCLEAN);
		assert_int_equal(image_seek(o.img, &i, 0, false, &found), -EUCLEAN);
		assert_true(damages > 0);
		i = get(&o, ino_run);
		assert_int_equal(image_pread(o.img, &i, &byte, 1, 0), 1);
		done_all(&o);
	}
}

/* Extents in the wrong order or over each other: any answer will do, but there must be one. */
static void disordered_extents_end(void **state)
{
	struct rng rng = {1};

	for (unsigned round = 0; round < 300; round++) {
		struct opened o = {0};
		struct pinfs_extent *e;
		struct image_inode i;
		uint8_t buf[20 * BLOCK];
		uint64_t at, blocks;

		forge_open(image_path, &o.forge);
		e = (void *)o.forge.sections[PINFS_SECTION_EXTENTS].raw;
		blocks = pinfs_get64(o.forge.super.block_count);
		for (unsigned k = 0; k < 3; k++) {
			uint32_t block = (uint32_t)rng_below(&rng, blocks);

			e[k] = (struct pinfs_extent){pinfs_put64(rng_below(&rng, 24)), pinfs_put32(block),
				pinfs_put32(1 + (uint32_t)rng_below(&rng, blocks - block))};
		}
		build(&o);
		i = get(&o, ino_extents);
		image_pread(o.img, &i, buf, sizeof(buf), 0);
		for (int hole = 0; hole < 2; hole++)
			for (uint64_t from = 0; from < i.size; from += 1000)
				if (image_seek(o.img, &i, from, hole, &at) == 0)
					assert_true(at >= from && at <= i.size);
		done_all(&o);
	}
}

static void impossible_blocks_are_refused(void **state)
{
	static const struct {
		uint64_t offset;
		uint32_t stored, raw;
		unsigned codec;
	} bad[] = {
		{4096, BLOCK, BLOCK, 2},
		{4096, BLOCK, BLOCK, 255},
		{4096, BLOCK, 0, PINFS_CODEC_RAW},
		{4096, 0, BLOCK, PINFS_CODEC_RAW},
		{4096, 0, 0, PINFS_CODEC_RAW},
		{4096, BLOCK - 1, BLOCK, PINFS_CODEC_RAW},
		{4096, BLOCK + 1, BLOCK + 1, PINFS_CODEC_RAW},
		{4096, BLOCK, BLOCK - 1, PINFS_CODEC_LZ4},
		{4096, UINT32_MAX, BLOCK, PINFS_CODEC_LZ4},
		{4095, 100, 100, PINFS_CODEC_RAW},
		{0, 100, 100, PINFS_CODEC_RAW},
		{1ull << 40, 100, 100, PINFS_CODEC_RAW},
		{UINT64_MAX, 100, 100, PINFS_CODEC_RAW},
		{UINT64_MAX - 50, 100, 100, PINFS_CODEC_RAW},
	};

	for (size_t k = 0; k < ARRAY_SIZE(bad); k++) {
		struct opened o = {0};
		uint8_t data[3 * BLOCK];
		struct image_read reads[3];
		struct image_block b;
		struct image_inode i;
		uint32_t first;

		forge_open(image_path, &o.forge);
		first = (uint32_t)pinfs_get64(forge_inode(&o.forge, ino_run)->pos);
		*forge_block(&o.forge, first + 1) = (struct pinfs_block){
			.offset = pinfs_put64(bad[k].offset),
			.stored = pinfs_put32(bad[k].stored),
			.raw = pinfs_put32(bad[k].raw | bad[k].codec << PINFS_BLOCK_CODEC_SHIFT),
		};
		build(&o);
		if (image_block_get(o.img, first + 1, &b) != -EUCLEAN)
			fail_msg("case %zu was accepted", k);
		/* Its neighbours are read all the same. */
		for (unsigned n = 0; n < 3; n++)
			reads[n] = (struct image_read){.data = data + n * BLOCK};
		image_read_blocks(o.img, first, 3, reads);
		assert_int_equal(reads[0].error, 0);
		assert_int_equal(reads[1].error, -EUCLEAN);
		assert_int_equal(reads[2].error, 0);
		i = get(&o, ino_run);
		assert_int_equal(image_pread(o.img, &i, data, sizeof(data), 0), -EUCLEAN);
		assert_int_equal(image_pread(o.img, &i, data, BLOCK, 0), BLOCK);
		done_all(&o);
	}
}

static void a_damaged_block_hits_nobody_else(void **state)
{
	struct opened o = {0};
	struct image_read reads[3];
	uint8_t data[3 * BLOCK];
	struct image_inode i;
	uint32_t first;

	forge_open(image_path, &o.forge);
	first = (uint32_t)pinfs_get64(forge_inode(&o.forge, ino_run)->pos);
	o.forge.data[pinfs_get64(forge_block(&o.forge, first + 1)->offset) - PINFS_SUPER_SIZE + 4095] ^= 1;
	build(&o);
	for (unsigned n = 0; n < 3; n++)
		reads[n] = (struct image_read){.data = data + n * BLOCK};
	image_read_blocks(o.img, first, 3, reads);
	assert_int_equal(reads[0].error, 0);
	assert_int_equal(reads[1].error, -EUCLEAN);
	assert_int_equal(reads[2].error, 0);
	assert_int_equal(damages, 1);
	assert_non_null(strstr(last_damage, "checksum"));
	i = get(&o, ino_run);
	assert_int_equal(image_pread(o.img, &i, data, 100, 2 * BLOCK), 100);
	assert_int_equal(image_pread(o.img, &i, data, 100, BLOCK), -EUCLEAN);
	done_all(&o);
}

static void a_file_that_is_longer_than_its_block_is_refused(void **state)
{
	struct opened o = {0};
	struct image_inode i;
	uint8_t data[BLOCK];

	/* The last block of "run" has 10000 - 8192 bytes; the file is made to claim all of it. */
	forge_open(image_path, &o.forge);
	set_field(forge_inode(&o.forge, ino_run), SIZE, 3 * BLOCK);
	set_field(forge_inode(&o.forge, ino_packed), ARG0, BLOCK - 1000);
	build(&o);
	i = get(&o, ino_run);
	assert_int_equal(image_pread(o.img, &i, data, BLOCK, 2 * BLOCK), -EUCLEAN);
	assert_int_equal(image_pread(o.img, &i, data, BLOCK, BLOCK), BLOCK);
	i = get(&o, ino_packed);
	assert_int_equal(image_pread(o.img, &i, data, BLOCK, 0), -EUCLEAN);
	done_all(&o);
}

static void only_aligned_raw_blocks_are_in_place(void **state)
{
	for (unsigned k = 0; k < 3; k++) {
		struct opened o = {0};
		struct pinfs_block *b;
		struct image_inode i;
		uint64_t at;

		forge_open(image_path, &o.forge);
		b = forge_block(&o.forge, (uint32_t)pinfs_get64(forge_inode(&o.forge, ino_xip)->pos));
		if (k == 1)
			b->offset = pinfs_put64(pinfs_get64(b->offset) + 512);
		if (k == 2)
			b->raw = pinfs_put32(pinfs_get32(b->raw) | PINFS_CODEC_LZ4 << PINFS_BLOCK_CODEC_SHIFT);
		build(&o);
		i = get(&o, ino_xip);
		assert_int_equal(image_xip_offset(o.img, &i, &at), k ? -EUCLEAN : 0);
		done_all(&o);
	}
}

/* ---- directories ---- */

struct bytes {
	uint8_t data[4096];
	size_t len;
};

static void add_bytes(struct bytes *b, const void *data, size_t len)
{
	assert_true(b->len + len <= sizeof(b->data));
	memcpy(b->data + b->len, data, len);
	b->len += len;
}

static void add_first(struct bytes *b, uint32_t ino, uint8_t type, const char *name, size_t name_len)
{
	pinfs_le32 le = pinfs_put32(ino);
	uint8_t head[2] = {type, (uint8_t)name_len};

	add_bytes(b, &le, 4);
	add_bytes(b, head, 2);
	add_bytes(b, name, name_len);
}

/* Walks the forged directory and looks a name up. Every way must end; the result of the walk is returned. */
static int try_dir(const struct bytes *b, uint32_t count)
{
	struct image_dir_iter it = {0};
	struct image_dirent e;
	struct opened o = {0};
	struct image_inode i;
	size_t at;
	int r;

	forge_open(image_path, &o.forge);
	at = forge_add(&o.forge, PINFS_SECTION_DIRS, b->data, b->len);
	set_field(forge_inode(&o.forge, ino_sub), POS, at);
	set_field(forge_inode(&o.forge, ino_sub), SIZE, b->len);
	set_field(forge_inode(&o.forge, ino_sub), ARG0, count);
	build(&o);
	r = image_inode_get(o.img, ino_sub, &i);
	if (r == 0) {
		image_dir_lookup(o.img, &i, "name", 4, &e);
		image_dir_lookup(o.img, &i, "zzzz", 4, &e);
		r = image_dir_iter_begin(o.img, &i, count / 2, &it);
		image_dir_iter_end(&it);
		r = image_dir_iter_begin(o.img, &i, 0, &it);
		while (r >= 0 && (r = image_dir_iter_next(&it, &e)) == 1)
			assert_true(e.name_len && !memchr(e.name, '/', e.name_len) && strlen(e.name) == e.name_len);
		image_dir_iter_end(&it);
	}
	if (r < 0)
		assert_true(damages > 0);
	done_all(&o);
	return r;
}

static void impossible_names_are_refused(void **state)
{
	static const struct {
		const char *name;
		size_t len;
		int want;
	} cases[] = {{"name", 4, 0}, {"..x", 3, 0}, {"...", 3, 0}, {" ", 1, 0}, {"\xff", 1, 0}, {"", 0, -EUCLEAN},
		{".", 1, -EUCLEAN}, {"..", 2, -EUCLEAN}, {"a/b", 3, -EUCLEAN}, {"/", 1, -EUCLEAN}, {"a\0b", 3, -EUCLEAN},
		{"\0", 1, -EUCLEAN}};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct bytes b = {0};

		add_first(&b, ino_run, DT_REG, cases[i].name, cases[i].len);
		assert_int_equal(try_dir(&b, 1), cases[i].want);
	}
}

static void impossible_entries_are_refused(void **state)
{
	static const uint8_t bad_types[] = {0, 3, 5, 7, 9, 11, 13, 14, 15, 16, 255};
	static const uint32_t bad_inos[] = {0, 1, 100000, UINT32_MAX};
	struct bytes b;

	for (size_t i = 0; i < ARRAY_SIZE(bad_types); i++) {
		b = (struct bytes){0};
		add_first(&b, ino_run, bad_types[i], "name", 4);
		assert_int_equal(try_dir(&b, 1), -EUCLEAN);
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad_inos); i++) {
		b = (struct bytes){0};
		add_first(&b, bad_inos[i], DT_REG, "name", 4);
		assert_int_equal(try_dir(&b, 1), -EUCLEAN);
	}
	/* Cut off anywhere; and with something left over. */
	b = (struct bytes){0};
	add_first(&b, ino_run, DT_REG, "name", 4);
	for (size_t len = 0; len < 10; len++) {
		b.len = len;
		assert_int_equal(try_dir(&b, 1), -EUCLEAN);
	}
	b.len = 11;
	assert_int_equal(try_dir(&b, 1), -EUCLEAN);
	b.len = 10;
	assert_int_equal(try_dir(&b, 1), 0);
	/* Fewer entries than are said, and more. */
	assert_int_equal(try_dir(&b, 2), -EUCLEAN);
	add_first(&b, ino_run, DT_REG, "other", 5);
	assert_int_equal(try_dir(&b, 1), -EUCLEAN);
}

static void impossible_numbers_are_refused(void **state)
{
	static const struct {
		uint8_t varint[6];
		size_t len;
		int want;
	} cases[] = {
		{{0x00}, 1, 0}, /* the number after the one before */
		{{0x01}, 1, 0}, /* the one before once more: another name of it */
		{{0x80, 0x00}, 2, 0}, /* longer than it needs to be; what mkfs never writes, but no contradiction */
		{{0xff, 0xff, 0xff, 0xff, 0x0f}, 5, -EUCLEAN}, /* far below 0 */
		{{0xff, 0xff, 0xff, 0xff, 0x1f}, 5, -EUCLEAN}, /* 33 bits */
		{{0xff, 0xff, 0xff, 0xff, 0xff, 0x01}, 6, -EUCLEAN}, /* six bytes */
		{{0xfe, 0xff, 0xff, 0xff, 0x0f}, 5, -EUCLEAN}, /* far beyond the last inode */
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		uint8_t head[2] = {DT_REG, 2};
		struct bytes b = {0};

		add_first(&b, ino_run, DT_REG, "aa", 2);
		add_bytes(&b, cases[i].varint, cases[i].len);
		add_bytes(&b, head, 2);
		add_bytes(&b, "bb", 2);
		assert_int_equal(try_dir(&b, 2), cases[i].want);
	}
}

static void impossible_restart_points_are_refused(void **state)
{
	static const uint32_t bad[] = {100000, UINT32_MAX, 1 << 20};
	struct opened o;

	/* "dir" has 71 entries: three groups. */
	for (unsigned group = 0; group < 3; group++) {
		for (size_t k = 0; k < ARRAY_SIZE(bad); k++) {
			pinfs_le32 le = pinfs_put32(bad[k]);
			struct image_dir_iter it = {0};
			struct image_dirent e;
			struct image_inode i;

			o = (struct opened){0};
			forge_open(image_path, &o.forge);
			memcpy(o.forge.sections[PINFS_SECTION_DIRS].raw + pinfs_get64(forge_inode(&o.forge, ino_dir)->pos) +
				4 * group, &le, 4);
			build(&o);
			i = get(&o, ino_dir);
			assert_int_equal(image_dir_iter_begin(o.img, &i, group * 32, &it), -EUCLEAN);
			assert_int_equal(image_dir_lookup(o.img, &i, group == 0 ? "a" : group == 1 ? "entry40" : "zzz",
				group == 1 ? 7 : group ? 3 : 1, &e), -EUCLEAN);
			done_all(&o);
		}
	}
	/* One that points into the middle of an entry, everywhere: an error or not, but an end. */
	for (uint32_t at = 0; at < 600; at += 7) {
		pinfs_le32 le = pinfs_put32(at);
		struct image_dir_iter it = {0};
		struct image_dirent e;
		struct image_inode i;

		o = (struct opened){0};
		forge_open(image_path, &o.forge);
		memcpy(o.forge.sections[PINFS_SECTION_DIRS].raw + pinfs_get64(forge_inode(&o.forge, ino_dir)->pos) + 4, &le, 4);
		build(&o);
		i = get(&o, ino_dir);
		image_dir_lookup(o.img, &i, "entry40", 7, &e);
		if (image_dir_iter_begin(o.img, &i, 40, &it) == 0) {
			unsigned n = 0;

			while (image_dir_iter_next(&it, &e) == 1)
				n++;
			assert_true(n <= 71);
			image_dir_iter_end(&it);
		}
		done_all(&o);
	}
}

static void a_table_longer_than_its_directory_is_refused(void **state)
{
	struct bytes b = {0};

	memset(b.data, 0, sizeof(b.data));
	b.len = 2000;
	/* 500 entries fit by their smallest size; their table of 16 words leaves little, and what is there is nonsense. */
	assert_int_equal(try_dir(&b, 500), -EUCLEAN);
	b.len = 132;
	assert_int_equal(try_dir(&b, 33), -EUCLEAN);
}

static void an_entry_must_fit_its_inode(void **state)
{
	struct image_dirent e;
	struct opened o = {0};
	struct image_inode dir, child;

	forge_open(image_path, &o.forge);
	build(&o);
	/* What a directory could say, without writing it: the type is wrong; a directory that is another's; itself; root. */
	dir = get(&o, ino_dir);
	e = (struct image_dirent){.ino = ino_run, .type = DT_DIR, .name = "x", .name_len = 1};
	assert_int_equal(image_dir_child(o.img, &dir, &e, &child), -EUCLEAN);
	e.type = DT_REG;
	assert_int_equal(image_dir_child(o.img, &dir, &e, &child), 0);
	e.ino = ino_sub;
	e.type = DT_DIR;
	assert_int_equal(image_dir_child(o.img, &dir, &e, &child), 0);
	e.ino = ino_dir;
	assert_int_equal(image_dir_child(o.img, &dir, &e, &child), -EUCLEAN);
	dir = get(&o, ino_sub);
	assert_int_equal(image_dir_child(o.img, &dir, &e, &child), -EUCLEAN);
	e.ino = 1;
	assert_int_equal(image_dir_child(o.img, &dir, &e, &child), -EUCLEAN);
	e.ino = 100000;
	assert_int_equal(image_dir_child(o.img, &dir, &e, &child), -EUCLEAN);
	done_all(&o);
}

/* ---- extended attributes ---- */

static int try_xattrs(const void *data, size_t len)
{
	struct opened o = {0};
	struct image_inode i;
	char buf[256];
	ssize_t r;
	size_t at;

	forge_open(image_path, &o.forge);
	at = forge_add(&o.forge, PINFS_SECTION_XATTRS, "\0\0\0\0\0\0\0", -o.forge.sections[PINFS_SECTION_XATTRS].size & 7);
	at = forge_add(&o.forge, PINFS_SECTION_XATTRS, data, len);
	set_field(forge_inode(&o.forge, ino_packed), XATTR, at / 8 + 1);
	build(&o);
	i = get(&o, ino_packed);
	r = image_xattr_list(o.img, &i, buf, sizeof(buf));
	if (r < 0) {
		assert_true(damages > 0);
		assert_int_equal(image_xattr_list(o.img, &i, NULL, 0), r);
		assert_int_equal(image_xattr_get(o.img, &i, "user.zzz", buf, sizeof(buf)), r);
	}
	done_all(&o);
	return (int)r;
}

static void impossible_attributes_are_refused(void **state)
{
	struct {
		struct pinfs_xattr_set set;
		struct pinfs_xattr_entry entry;
		char rest[16];
	} x = {.set = {pinfs_put32(24), pinfs_put32(1)}, .entry = {.value_size = pinfs_put32(2), .name_len = 6}}, y;

	memcpy(x.rest, "user.avv", 8);
	assert_int_equal(try_xattrs(&x, 24), 7);
	y = x;
	y.set.size = pinfs_put32(7);
	assert_int_equal(try_xattrs(&y, 24), -EUCLEAN);
	y.set.size = pinfs_put32(0);
	assert_int_equal(try_xattrs(&y, 24), -EUCLEAN);
	y.set.size = pinfs_put32(25);
	assert_int_equal(try_xattrs(&y, 24), -EUCLEAN);
	y.set.size = pinfs_put32(UINT32_MAX);
	assert_int_equal(try_xattrs(&y, 24), -EUCLEAN);
	y = x;
	y.set.count = pinfs_put32(2);
	assert_int_equal(try_xattrs(&y, 24), -EUCLEAN);
	y.set.count = pinfs_put32(UINT32_MAX);
	assert_int_equal(try_xattrs(&y, 24), -EUCLEAN);
	y = x;
	y.entry.name_len = 0;
	assert_int_equal(try_xattrs(&y, 24), -EUCLEAN);
	y.entry.name_len = 9;
	assert_int_equal(try_xattrs(&y, 24), -EUCLEAN);
	y.entry.name_len = 255;
	assert_int_equal(try_xattrs(&y, 24), -EUCLEAN);
	y = x;
	y.entry.value_size = pinfs_put32(3);
	assert_int_equal(try_xattrs(&y, 24), -EUCLEAN);
	y.entry.value_size = pinfs_put32(UINT32_MAX);
	assert_int_equal(try_xattrs(&y, 24), -EUCLEAN);
	y.entry.value_size = pinfs_put32(PINFS_XATTR_VALUE_MAX + 1);
	assert_int_equal(try_xattrs(&y, 24), -EUCLEAN);
	y = x;
	y.rest[2] = 0;
	assert_int_equal(try_xattrs(&y, 24), -EUCLEAN);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		/* The first one also finds the inode numbers. */
		cmocka_unit_test(the_forge_changes_nothing_by_itself),
		cmocka_unit_test(impossible_inodes_are_refused),
		cmocka_unit_test(unusual_inodes_are_accepted),
		cmocka_unit_test(a_link_with_a_nul_byte_is_refused),
		cmocka_unit_test(impossible_extents_are_refused),
		cmocka_unit_test(disordered_extents_end),
		cmocka_unit_test(impossible_blocks_are_refused),
		cmocka_unit_test(a_damaged_block_hits_nobody_else),
		cmocka_unit_test(a_file_that_is_longer_than_its_block_is_refused),
		cmocka_unit_test(only_aligned_raw_blocks_are_in_place),
		cmocka_unit_test(impossible_names_are_refused),
		cmocka_unit_test(impossible_entries_are_refused),
		cmocka_unit_test(impossible_numbers_are_refused),
		cmocka_unit_test(impossible_restart_points_are_refused),
		cmocka_unit_test(a_table_longer_than_its_directory_is_refused),
		cmocka_unit_test(an_entry_must_fit_its_inode),
		cmocka_unit_test(impossible_attributes_are_refused),
	};

	return cmocka_run_group_tests_name("hostile", tests, hostile_setup, hostile_teardown);
}
