/* SPDX-License-Identifier: MIT */
/*
 * The input is an image. It is opened as a user would (checksums verified, found by itself), and once more with
 * checksums ignored, so that mutations reach the decoder; then everything that image.h offers is called, within a
 * budget. A finding is a crash, a sanitizer's report, an endless loop, or a promise of image.h that does not hold.
 */
#include "fuzz.h"

#include <dirent.h>
#include <sys/xattr.h>

#define STEPS 3000u	     /* calls of the decoder for one input */
#define INODES_MOST 48u	     /* by number; the tree may reach more */
#define ENTRIES_MOST 80u     /* of one directory */
#define BLOCKS_MOST 70u	     /* more than one batch of image_read_blocks() */
#define BLOCK_BYTES_MOST (1u << 20)
#define WINDOW 6000u

struct walk {
	struct image *image;
	const struct image_info *info;
	struct fuzz_random random;
	unsigned steps; /* left */
	unsigned depth;
};

static bool step(struct walk *w)
{
	if (!w->steps)
		return false;
	w->steps--;
	return true;
}

static void on_damage(void *context, uint64_t offset, const char *text)
{
	FUZZ_CHECK(text[0] && strlen(text) < IMAGE_ERROR_SIZE);
}

/* What a function of image.h may answer about a damaged image. */
static bool is_damage(int r)
{
	return r == -EUCLEAN || r == -EIO;
}

/* ---- superblock and sections ---- */

static void check_info(const struct walk *w, size_t size)
{
	const struct image_info *i = w->info;

	FUZZ_CHECK(i->offset <= size && i->image_size <= size - i->offset);
	FUZZ_CHECK(is_power_of_two(i->block_size) && i->block_size >= PINFS_BLOCK_SIZE_MIN &&
		i->block_size <= PINFS_BLOCK_SIZE_MAX);
	FUZZ_CHECK(i->data_offset <= i->data_end && i->data_end <= i->image_size);
	FUZZ_CHECK(i->section_count <= PINFS_SECTIONS_MAX && i->inode_count && i->dir_restart);
	FUZZ_CHECK(i->label[PINFS_LABEL_SIZE] == 0);
}

static void check_chunk(struct walk *w, unsigned section, uint64_t chunk)
{
	const struct image_section *s = &w->info->sections[section];
	struct image_block b;
	int r;

	if (!step(w))
		return;
	fuzz_fill(&b);
	r = image_chunk_info(w->image, section, chunk, &b);
	if (r < 0) {
		FUZZ_UNTOUCHED(&b);
		FUZZ_CHECK(is_damage(r) || (r == -ENOENT && chunk >= s->chunk_count));
	} else {
		FUZZ_CHECK(b.raw && b.raw <= s->chunk_size && b.stored && b.stored <= b.raw);
		FUZZ_CHECK(b.offset <= w->info->image_size && b.stored <= w->info->image_size - b.offset);
	}
	r = image_chunk_check(w->image, section, chunk);
	FUZZ_CHECK(r == 0 || is_damage(r) || (r == -ENOENT && chunk >= s->chunk_count));
}

static void check_sections(struct walk *w)
{
	for (unsigned i = 0; i < w->info->section_count; i++) {
		uint64_t count = w->info->sections[i].chunk_count;

		FUZZ_CHECK(image_section_name(w->info->sections[i].type)[0]);
		for (uint64_t c = 0; c < MIN(count, (uint64_t)4); c++)
			check_chunk(w, i, c);
		check_chunk(w, i, count - 1);
		check_chunk(w, i, count);
		check_chunk(w, i, PINFS_INDEX_ENTRIES);
	}
}

static void check_supers(struct walk *w)
{
	uint8_t raw[512];
	int r = image_super_check(w->image, false);

	FUZZ_CHECK(r == 0 || is_damage(r));
	r = image_super_check(w->image, true);
	FUZZ_CHECK(r == 0 || is_damage(r));
	r = image_read_raw(w->image, w->info->image_size - sizeof(raw), sizeof(raw), raw);
	FUZZ_CHECK(r == 0);
	r = image_read_raw(w->image, fuzz_next(&w->random) >> fuzz_below(&w->random, 64), sizeof(raw), raw);
	FUZZ_CHECK(r == 0 || r == -EIO);
}

/* ---- blocks and extents ---- */

static void check_block(struct walk *w, uint64_t block)
{
	struct image_block b;
	int r;

	if (!step(w))
		return;
	fuzz_fill(&b);
	r = image_block_get(w->image, block, &b);
	if (r < 0) {
		FUZZ_UNTOUCHED(&b);
		FUZZ_CHECK(is_damage(r));
		return;
	}
	FUZZ_CHECK(block < w->info->block_count);
	FUZZ_CHECK(b.raw && b.raw <= w->info->block_size && b.stored && b.stored <= b.raw);
	FUZZ_CHECK(b.offset >= w->info->data_offset && b.offset <= w->info->data_end &&
		b.stored <= w->info->data_end - b.offset);
}

/* Each block has its own memory of just block_size bytes, and its own result. */
static void check_read_blocks(struct walk *w, uint64_t first, unsigned count)
{
	unsigned most = MAX(BLOCK_BYTES_MOST / w->info->block_size, 1u);
	struct image_read reads[BLOCKS_MOST];

	if (!step(w))
		return;
	count = MIN(count, MIN(most, BLOCKS_MOST));
	for (unsigned i = 0; i < count; i++) {
		reads[i] = (struct image_read){.data = malloc(w->info->block_size), .error = 1};
		FUZZ_CHECK(reads[i].data);
	}
	image_read_blocks(w->image, first, count, reads);
	for (unsigned i = 0; i < count; i++) {
		FUZZ_CHECK(reads[i].error == 0 || is_damage(reads[i].error));
		if (reads[i].error == 0)
			FUZZ_CHECK(reads[i].raw && reads[i].raw <= w->info->block_size);
		free(reads[i].data);
	}
}

static void check_blocks(struct walk *w)
{
	uint64_t count = w->info->block_count;

	for (uint64_t b = 0; b < MIN(count, (uint64_t)16); b++)
		check_block(w, b);
	check_block(w, count - 1);
	check_block(w, count);
	check_block(w, UINT64_MAX / sizeof(struct pinfs_block) + 2);
	if (count)
		check_read_blocks(w, 0, (unsigned)MIN(count + 1, (uint64_t)BLOCKS_MOST));
	check_read_blocks(w, count ? count - 1 : 0, 3);
}

static void check_extents(struct walk *w)
{
	for (uint64_t i = 0; i < 24 && step(w); i++) {
		struct image_extent e;
		int r;

		fuzz_fill(&e);
		r = image_extent_get(w->image, i, &e);
		if (r < 0) {
			FUZZ_UNTOUCHED(&e);
			FUZZ_CHECK(is_damage(r));
			break;
		}
		FUZZ_CHECK(e.count && e.block < w->info->block_count && e.count <= w->info->block_count - e.block);
		FUZZ_CHECK(e.lblk <= (uint64_t)INT64_MAX / w->info->block_size);
	}
}

/* ---- extended attributes and symbolic links ---- */

static void check_xattr(struct walk *w, const struct image_inode *i, const char *name)
{
	_cleanup_free_ uint8_t *value = NULL;
	ssize_t n, again;

	if (!step(w))
		return;
	n = image_xattr_get(w->image, i, name, NULL, 0);
	FUZZ_CHECK(n >= 0 || is_damage((int)n) || n == -ENODATA);
	if (n <= 0)
		return;
	FUZZ_CHECK(n <= (ssize_t)PINFS_XATTR_VALUE_MAX);
	value = malloc((size_t)n);
	FUZZ_CHECK(value);
	again = image_xattr_get(w->image, i, name, value, (size_t)n);
	FUZZ_CHECK(again == n || is_damage((int)again));
	if (n > 1)
		FUZZ_CHECK(image_xattr_get(w->image, i, name, value, (size_t)n - 1) == -ERANGE);
}

static void check_xattrs(struct walk *w, const struct image_inode *i)
{
	_cleanup_free_ char *list = NULL;
	ssize_t n, again, at = 0;

	if (!step(w))
		return;
	n = image_xattr_list(w->image, i, NULL, 0);
	FUZZ_CHECK(n >= 0 || is_damage((int)n));
	FUZZ_CHECK(i->xattr || n == 0);
	check_xattr(w, i, "user.none");
	check_xattr(w, i, "");
	if (n <= 0 || n > (1 << 20))
		return;
	list = malloc((size_t)n);
	FUZZ_CHECK(list);
	again = image_xattr_list(w->image, i, list, (size_t)n);
	FUZZ_CHECK(again == n || is_damage((int)again));
	FUZZ_CHECK(image_xattr_list(w->image, i, list, (size_t)n - 1) == -ERANGE || n == 1);
	if (again < 0)
		return;
	FUZZ_CHECK(list[n - 1] == 0);
	for (int k = 0; k < 8 && at < n; k++) {
		FUZZ_CHECK(list[at]);
		check_xattr(w, i, list + at);
		at += (ssize_t)strlen(list + at) + 1;
	}
}

static void check_readlink(struct walk *w, const struct image_inode *i)
{
	char target[PINFS_SYMLINK_MAX + 1];
	int r;

	if (!step(w))
		return;
	fuzz_fill(&target);
	r = image_readlink(w->image, i, target);
	if (r < 0) {
		FUZZ_UNTOUCHED(&target);
		FUZZ_CHECK(S_ISLNK(i->mode) ? is_damage(r) : r == -EINVAL);
		return;
	}
	FUZZ_CHECK(S_ISLNK(i->mode) && target[0] && strlen(target) == i->size);
}

/* ---- content ---- */

/* 1: *ret is what is at offset; 0: nothing can be said. */
static int map(struct walk *w, const struct image_inode *i, uint64_t offset, struct image_map *ret)
{
	struct image_map m;
	int r;

	if (!step(w))
		return 0;
	fuzz_fill(&m);
	r = image_map(w->image, i, offset, &m);
	if (r < 0) {
		FUZZ_UNTOUCHED(&m);
		FUZZ_CHECK(is_damage(r) || (r == -EINVAL && offset >= i->size));
		return 0;
	}
	FUZZ_CHECK(offset < i->size && m.offset == offset && m.length && m.length <= i->size - offset);
	if (!m.hole) {
		FUZZ_CHECK(m.block < w->info->block_count);
		FUZZ_CHECK(m.block_offset < w->info->block_size && m.length <= w->info->block_size - m.block_offset);
	}
	*ret = m;
	return 1;
}

static void check_map(struct walk *w, const struct image_inode *i)
{
	struct image_map m;
	uint64_t offset = 0;

	for (int n = 0; n < 40 && offset < i->size && map(w, i, offset, &m); n++)
		offset += m.length;
	FUZZ_CHECK(offset <= i->size);
	map(w, i, i->size, &m);
	map(w, i, UINT64_MAX, &m);
	if (i->size) {
		map(w, i, i->size - 1, &m);
		map(w, i, i->size / 2, &m);
		map(w, i, fuzz_below(&w->random, i->size), &m);
	}
}

/* Where extents are out of order, what is a hole depends on who asks; only fsck looks at all of them. */
static bool in_order(struct walk *w, const struct image_inode *i)
{
	uint64_t end = 0;

	if (i->layout != PINFS_LAYOUT_EXTENTS)
		return true;
	for (uint64_t k = 0; k < MIN(i->arg0, 256u); k++) {
		struct image_extent e;

		if (image_extent_get(w->image, i->pos + k, &e) < 0 || e.lblk < end)
			return false;
		end = e.lblk + e.count;
	}
	return i->arg0 <= 256;
}

static void check_seek(struct walk *w, const struct image_inode *i)
{
	bool hole = w->depth & 1, ordered = in_order(w, i);
	uint64_t offset = 0;

	for (int n = 0; n < 24 && step(w); n++, hole = !hole) {
		uint64_t next;
		struct image_map m;
		int r;

		fuzz_fill(&next);
		r = image_seek(w->image, i, offset, hole, &next);
		if (r < 0) {
			FUZZ_UNTOUCHED(&next);
			FUZZ_CHECK(is_damage(r) || (r == -ENXIO && (offset >= i->size || !hole)));
			return;
		}
		FUZZ_CHECK(next >= offset && next <= i->size && (next < i->size || hole));
		if (ordered && next < i->size && map(w, i, next, &m))
			FUZZ_CHECK(m.hole == hole);
		offset = next;
	}
}

/* The same bytes by image_map() and image_read_blocks(). */
static void check_same(struct walk *w, const struct image_inode *i, uint64_t offset, const uint8_t *bytes, size_t len)
{
	_cleanup_free_ uint8_t *block = malloc(w->info->block_size);
	size_t done = 0;

	FUZZ_CHECK(block);
	while (done < len) {
		struct image_read rd = {.data = block};
		struct image_map m;
		size_t n;

		if (!map(w, i, offset + done, &m))
			return;
		n = (size_t)MIN(m.length, (uint64_t)(len - done));
		if (m.hole) {
			for (size_t k = 0; k < n; k++)
				FUZZ_CHECK(bytes[done + k] == 0);
		} else {
			image_read_blocks(w->image, m.block, 1, &rd);
			FUZZ_CHECK(rd.error == 0 && m.block_offset + n <= rd.raw);
			FUZZ_CHECK(!memcmp(block + m.block_offset, bytes + done, n));
		}
		done += n;
	}
}

static void check_pread(struct walk *w, const struct image_inode *i, uint64_t offset)
{
	_cleanup_free_ uint8_t *buf = NULL;
	ssize_t n;

	if (!step(w))
		return;
	buf = malloc(WINDOW);
	FUZZ_CHECK(buf);
	n = image_pread(w->image, i, buf, WINDOW, offset);
	FUZZ_CHECK(n >= 0 || is_damage((int)n));
	if (offset >= i->size)
		FUZZ_CHECK(n == 0);
	else if (n >= 0)
		FUZZ_CHECK((uint64_t)n == MIN((uint64_t)WINDOW, i->size - offset));
	if (n > 0 && fuzz_chance(&w->random, 30))
		check_same(w, i, offset, buf, (size_t)n);
}

static void check_content(struct walk *w, const struct image_inode *i)
{
	check_map(w, i);
	check_seek(w, i);
	check_pread(w, i, 0);
	check_pread(w, i, i->size);
	if (i->size > WINDOW) {
		check_pread(w, i, i->size - WINDOW / 2);
		check_pread(w, i, fuzz_below(&w->random, i->size));
	}
}

static void check_xip(struct walk *w, const struct image_inode *i)
{
	uint64_t offset;
	int r;

	if (!step(w))
		return;
	fuzz_fill(&offset);
	r = image_xip_offset(w->image, i, &offset);
	if (r < 0) {
		FUZZ_UNTOUCHED(&offset);
		FUZZ_CHECK(i->xip ? is_damage(r) : r == -EINVAL);
		return;
	}
	/* All of the file must lie in the image, or a mapping of it would show what is behind. */
	FUZZ_CHECK(i->xip && offset % PINFS_PAGE_SIZE == 0);
	FUZZ_CHECK(offset - w->info->offset <= w->info->data_end &&
		i->size <= w->info->data_end - (offset - w->info->offset));
}

/* ---- directories ---- */

static void check_inode(struct walk *w, const struct image_inode *i);

static void check_dirent(const struct walk *w, const struct image_dirent *e)
{
	FUZZ_CHECK(e->ino > PINFS_ROOT_INO && e->ino <= w->info->inode_count);
	FUZZ_CHECK(e->name_len && strlen(e->name) == e->name_len && !strchr(e->name, '/'));
	FUZZ_CHECK(strcmp(e->name, ".") && strcmp(e->name, ".."));
}

static void lookup(struct walk *w, const struct image_inode *dir, const char *name, size_t len)
{
	struct image_dirent e;
	int r;

	if (!step(w))
		return;
	fuzz_fill(&e);
	r = image_dir_lookup(w->image, dir, name, len, &e);
	if (r < 0) {
		FUZZ_UNTOUCHED(&e);
		FUZZ_CHECK(is_damage(r) || r == -ENOENT || (r == -ENAMETOOLONG && len > PINFS_NAME_MAX) ||
			(r == -ENOTDIR && !S_ISDIR(dir->mode)));
		return;
	}
	check_dirent(w, &e);
	FUZZ_CHECK(e.name_len == len && !memcmp(e.name, name, len));
}

static void check_odd_names(struct walk *w, const struct image_inode *dir)
{
	static const char *const names[] = {"", ".", "..", "a", "\xff\xff", "zzzz", "\1", "/"};
	char name[PINFS_NAME_MAX + 1];

	lookup(w, dir, names[fuzz_below(&w->random, ARRAY_SIZE(names))],
		strlen(names[fuzz_below(&w->random, ARRAY_SIZE(names))]) ? 1 : 0);
	memset(name, (int)(1 + fuzz_below(&w->random, 255)), sizeof(name));
	lookup(w, dir, name, PINFS_NAME_MAX);
	lookup(w, dir, name, PINFS_NAME_MAX + 1);
}

/* From the middle and from behind the end. */
static void check_positions(struct walk *w, const struct image_inode *dir)
{
	uint64_t at[] = {dir->arg0, (uint64_t)dir->arg0 + 1, UINT64_MAX, 0, 0};

	at[3] = fuzz_below(&w->random, MIN(dir->arg0, 4 * ENTRIES_MOST));
	at[4] = dir->arg0 ? dir->arg0 - 1 : 0;
	for (size_t k = 0; k < ARRAY_SIZE(at); k++) {
		struct image_dir_iter it;
		struct image_dirent e;
		int r;

		if (!step(w))
			return;
		fuzz_fill(&it);
		r = image_dir_iter_begin(w->image, dir, at[k], &it);
		if (r < 0) {
			FUZZ_UNTOUCHED(&it);
			FUZZ_CHECK(is_damage(r));
			continue;
		}
		r = image_dir_iter_next(&it, &e);
		FUZZ_CHECK(r <= 1 && (r >= 0 || is_damage(r)));
		FUZZ_CHECK(r != 1 || (at[k] < dir->arg0 && e.index == at[k]));
		image_dir_iter_end(&it);
		/* It may go on after an end, and be ended again. */
		if (r == 1)
			FUZZ_CHECK(image_dir_iter_next(&it, &e) <= 1);
		image_dir_iter_end(&it);
	}
}

static void check_entries(struct walk *w, const struct image_inode *dir)
{
	struct image_dir_iter it;
	uint64_t index = 0;
	int r;

	fuzz_fill(&it);
	r = image_dir_iter_begin(w->image, dir, 0, &it);
	if (r < 0) {
		FUZZ_UNTOUCHED(&it);
		FUZZ_CHECK(is_damage(r) || (r == -ENOTDIR && !S_ISDIR(dir->mode)));
		return;
	}
	for (; index < ENTRIES_MOST && step(w); index++) {
		struct image_inode child;
		struct image_dirent e;

		fuzz_fill(&e);
		r = image_dir_iter_next(&it, &e);
		if (r <= 0) {
			FUZZ_UNTOUCHED(&e);
			FUZZ_CHECK(r == 0 ? index == dir->arg0 : is_damage(r));
			break;
		}
		FUZZ_CHECK(e.index == index);
		check_dirent(w, &e);
		if (index % 8 == 0)
			lookup(w, dir, e.name, e.name_len);
		fuzz_fill(&child);
		r = image_dir_child(w->image, dir, &e, &child);
		if (r < 0) {
			FUZZ_UNTOUCHED(&child);
			FUZZ_CHECK(is_damage(r));
			continue;
		}
		FUZZ_CHECK(child.ino == e.ino && child.mode >> 12 == e.type);
		/* What comes through here is a tree: this must end by itself. */
		if (S_ISDIR(child.mode)) {
			FUZZ_CHECK(child.ino > dir->ino);
			check_inode(w, &child);
		}
	}
	image_dir_iter_end(&it);
}

static void check_inode(struct walk *w, const struct image_inode *i)
{
	if (!step(w))
		return;
	FUZZ_CHECK(i->size <= INT64_MAX && i->nlink && i->mtime.tv_nsec < 1000000000);
	check_xattrs(w, i);
	check_readlink(w, i);
	check_xip(w, i);
	if (S_ISREG(i->mode))
		check_content(w, i);
	if (!S_ISDIR(i->mode) && fuzz_chance(&w->random, 90))
		return;
	w->depth++;
	check_odd_names(w, i);
	if (S_ISDIR(i->mode))
		check_positions(w, i);
	/* Deeper than any seed: the stack is the limit, and chains of directories are bounded by the inodes. */
	if (w->depth < 200)
		check_entries(w, i);
	w->depth--;
}

static void check_number(struct walk *w, uint64_t ino)
{
	struct image_inode i;
	int r;

	if (!step(w))
		return;
	fuzz_fill(&i);
	r = image_inode_get(w->image, ino, &i);
	if (r < 0) {
		FUZZ_UNTOUCHED(&i);
		FUZZ_CHECK(is_damage(r) || (r == -ENOENT && (!ino || ino > w->info->inode_count)));
		return;
	}
	FUZZ_CHECK(i.ino == ino);
	check_inode(w, &i);
}

/* ---- the input ---- */

static void walk_all(struct image *image, const uint8_t *data, size_t size, unsigned steps)
{
	struct walk w = {
		.image = image,
		.info = image_get_info(image),
		.random = {size},
		.steps = steps,
	};

	/* Chance depends on the input alone, so that a crash replays. */
	for (size_t i = 0; i < size; i += size / 61 + 1)
		w.random.state = w.random.state * 31 + data[i];
	check_info(&w, size);
	check_supers(&w);
	check_sections(&w);
	check_blocks(&w);
	check_extents(&w);
	/* The tree from its root gets half of the rest, single inodes what is left. */
	unsigned rest = w.steps / 2;

	w.steps -= rest;
	check_number(&w, PINFS_ROOT_INO);
	w.steps += rest;
	for (uint64_t ino = 2; ino < MIN(w.info->inode_count, (uint64_t)INODES_MOST); ino++)
		check_number(&w, ino);
	check_number(&w, 0);
	check_number(&w, w.info->inode_count);
	check_number(&w, w.info->inode_count + 1);
	check_number(&w, UINT64_MAX);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct image_options strict = {.offset = IMAGE_OFFSET_AUTO, .on_damage = on_damage};
	struct image_options lax = {.metadata_cache = 64u << 10, .no_verify = true, .on_damage = on_damage};
	struct image *image;

	image = fuzz_image_open(data, size, &strict);
	if (image) {
		walk_all(image, data, size, STEPS / 10);
		image_close(image);
	}
	image = fuzz_image_open(data, size, &lax);
	if (image) {
		walk_all(image, data, size, STEPS);
		image_close(image);
	}
	return 0;
}
