/* SPDX-License-Identifier: MIT */
/*
 * image, against forgers: every promise that the decoder makes about an inode, a directory, attributes, chunks and
 * the superblock is broken once, with all checksums right; the decoder must notice, say so, and leave the rest alone.
 */
#include "support.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include "codec/codec.h"
#include "image/image.h"

#define BLOCK 4096u

static char *image_path;
static bool have_xattrs;
static uint32_t ino_run, ino_packed, ino_extents, ino_hole, ino_dir, ino_sub, ino_link, ino_fifo, ino_xip;

static void make(const char *dir, const char *name, size_t len)
{
	_cleanup_free_ char *path = NULL;
	uint8_t data[40000];
	struct rng rng = {len};

	assert_true(asprintf(&path, "%s/%s", dir, name) > 0);
	rng_bytes(&rng, data, len);
	write_file(path, data, len);
}

static int setup(void **state)
{
	_cleanup_free_ char *tree = temp_path("tree"), *sub = temp_path("tree/dir"), *subsub = temp_path("tree/dir/sub");
	_cleanup_free_ char *sparse = temp_path("tree/extents"), *hole = temp_path("tree/hole");
	_cleanup_free_ char *packed = temp_path("tree/packed"), *fifo = temp_path("tree/fifo");
	_cleanup_free_ char *link = temp_path("tree/link");
	int fd;

	assert_int_equal(mkdir(tree, 0755), 0);
	assert_int_equal(mkdir(sub, 0755), 0);
	assert_int_equal(mkdir(subsub, 0755), 0);
	make(tree, "run", 10000);
	make(tree, "packed", 1000);
	make(tree, "packed2", 500);
	make(tree, "xip", 9000);
	for (unsigned i = 0; i < 70; i++) {
		char name[16];

		snprintf(name, sizeof(name), "entry%02u", i);
		make(sub, name, 0);
	}
	fd = open(sparse, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(pwrite_all(fd, sparse, 5, i * 3 * BLOCK), 0);
	assert_int_equal(ftruncate(fd, 20 * BLOCK), 0);
	close(fd);
	write_file(hole, "", 0);
	assert_int_equal(truncate(hole, 5 * BLOCK), 0);
	assert_int_equal(symlink("target", link), 0);
	assert_int_equal(mkfifo(fifo, 0644), 0);
	have_xattrs = setxattr(packed, "user.one", "first", 5, 0) == 0 && setxattr(packed, "user.two", "2", 1, 0) == 0;
	image_path = temp_path("image");
	return mkfs("-b4K", "-znone", "--xip=xip", tree, image_path, NULL);
}

static int teardown(void **state)
{
	free(image_path);
	return support_end(state);
}

/* ---- opening what was forged ---- */

static unsigned damages;
static char last_damage[IMAGE_ERROR_SIZE], open_error[IMAGE_ERROR_SIZE];

static void on_damage(void *context, uint64_t offset, const char *text)
{
	damages++;
	snprintf(last_damage, sizeof(last_damage), "%s", text);
}

static int open_bytes(const uint8_t *bytes, size_t len, uint64_t offset, struct image **ret)
{
	struct image_options options = {.offset = offset, .on_damage = on_damage};
	struct io_file *io;
	int r;

	damages = 0;
	*last_damage = *open_error = 0;
	assert_int_equal(io_open_memory(bytes, len, &io), 0);
	r = image_open(io, &options, ret, open_error);
	if (r < 0) {
		assert_true(*open_error);
		io_close(io);
	}
	return r;
}

struct opened {
	struct forge forge;
	uint8_t *bytes;
	size_t len;
	struct image *img;
};

static void build(struct opened *o)
{
	o->bytes = forge_build(&o->forge, &o->len);
	assert_int_equal(open_bytes(o->bytes, o->len, 0, &o->img), 0);
}

static void done(struct opened *o)
{
	image_close(o->img);
	free(o->bytes);
	o->img = NULL;
	o->bytes = NULL;
}

static void done_all(struct opened *o)
{
	done(o);
	forge_free(&o->forge);
}

static uint32_t look_up(struct image *img, uint32_t dir, const char *name)
{
	struct image_inode i;
	struct image_dirent e;

	assert_int_equal(image_inode_get(img, dir, &i), 0);
	assert_int_equal(image_dir_lookup(img, &i, name, strlen(name), &e), 0);
	return e.ino;
}

/* Reads everything that can be reached, and adds it up; errors count, too. */
static uint64_t read_everything(struct image *img, uint64_t *ret_errors);

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

/* ---- everything ---- */

static uint64_t read_everything(struct image *img, uint64_t *ret_errors)
{
	uint64_t count = image_get_info(img)->inode_count, sum = 0, errors = 0;
	static uint8_t buf[20 * BLOCK];
	char target[PINFS_SYMLINK_MAX + 1], value[256];

	for (uint64_t ino = 1; ino <= count; ino++) {
		struct image_inode i;
		ssize_t n;

		if (image_inode_get(img, ino, &i) < 0) {
			errors++;
			continue;
		}
		sum = sum * 31 + i.size + i.mode * 3ull + i.nlink * 5ull + i.uid * 7ull + i.gid * 11ull + i.alloc * 13ull +
			(uint64_t)i.mtime.tv_sec * 17 + (uint64_t)i.mtime.tv_nsec;
		n = image_xattr_list(img, &i, value, sizeof(value));
		if (n < 0)
			errors++;
		for (const char *p = value; n > 0 && p < value + n; p += strlen(p) + 1) {
			ssize_t m = image_xattr_get(img, &i, p, buf, sizeof(buf));

			if (m < 0)
				errors++;
			sum = sum * 31 + codec_checksum(p, strlen(p)) + (m > 0 ? codec_checksum(buf, (size_t)m) : 0);
		}
		if (S_ISDIR(i.mode)) {
			struct image_dir_iter it = {0};
			struct image_dirent e;
			int r = image_dir_iter_begin(img, &i, 0, &it);

			while (r >= 0 && (r = image_dir_iter_next(&it, &e)) == 1)
				sum = sum * 31 + e.ino + e.type * 3ull + codec_checksum(e.name, e.name_len);
			if (r < 0)
				errors++;
			image_dir_iter_end(&it);
		} else if (S_ISLNK(i.mode)) {
			if (image_readlink(img, &i, target) < 0)
				errors++;
			else
				sum = sum * 31 + codec_checksum(target, i.size);
		} else if (S_ISREG(i.mode)) {
			n = image_pread(img, &i, buf, sizeof(buf), 0);
			if (n < 0)
				errors++;
			else
				sum = sum * 31 + codec_checksum(buf, (size_t)n);
		} else {
			sum = sum * 31 + i.arg0 + i.arg1 * 3ull;
		}
	}
	*ret_errors = errors;
	return sum;
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
		cmocka_unit_test(impossible_chunks_are_refused),
		cmocka_unit_test(impossible_superblocks_are_refused),
		cmocka_unit_test(the_copy_serves_where_the_first_superblock_is_damaged),
		cmocka_unit_test(the_copy_of_another_image_is_noticed),
		cmocka_unit_test(a_truncated_image_is_never_opened),
		cmocka_unit_test(what_is_no_image_is_none),
		cmocka_unit_test(no_single_changed_byte_gives_wrong_data),
	};

	return cmocka_run_group_tests_name("hostile", tests, setup, teardown);
}
