/* SPDX-License-Identifier: MIT */
/* Directories: entries sorted by name, restart points, lookup by bisection. */
#include "image/internal.h"

#include <dirent.h>

static int dir_damaged(struct image *img, uint64_t pos, const char *what)
{
	return image_damaged(img, section_where(img, PINFS_SECTION_DIRS, pos), "directory entry at byte %ju: %s",
		(uintmax_t)pos, what);
}

/* Copies bytes at the iterator's position; stays in the referenced chunk while it can. */
static int iter_read(struct image_dir_iter *it, void *buf, size_t len)
{
	const struct image_section *s = section_get(it->image, PINFS_SECTION_DIRS);
	uint8_t *out = buf;

	if (len > it->end - it->pos)
		return dir_damaged(it->image, it->pos, "it runs over the end of its directory");
	while (len) {
		uint64_t no = it->pos / s->chunk_size;
		size_t at = (size_t)(it->pos % s->chunk_size), n = MIN(len, s->chunk_size - at);

		if (!it->chunk || it->chunk_no != no) {
			struct image_chunk *k;
			int r = section_chunk_get(it->image, PINFS_SECTION_DIRS, no, &k);

			if (r < 0)
				return r;
			section_chunk_put(it->chunk);
			it->chunk = k;
			it->chunk_no = no;
		}
		memcpy(out, it->chunk->data + at, n);
		out += n;
		it->pos += n;
		len -= n;
	}
	return 0;
}

static int iter_read_varint(struct image_dir_iter *it, uint32_t *ret)
{
	uint64_t v = 0;

	for (unsigned shift = 0; shift < 35; shift += 7) {
		uint8_t byte;
		int r = iter_read(it, &byte, 1);

		if (r < 0)
			return r;
		v |= (uint64_t)(byte & 0x7f) << shift;
		if (!(byte & 0x80)) {
			if (v > UINT32_MAX)
				break;
			*ret = (uint32_t)v;
			return 0;
		}
	}
	return dir_damaged(it->image, it->pos, "its inode number is not a varint");
}

static int iter_read_ino(struct image_dir_iter *it, uint32_t *ret)
{
	uint32_t ino;
	int r;

	if (it->index % it->image->info.dir_restart == 0) {
		pinfs_le32 le;

		r = iter_read(it, &le, sizeof(le));
		if (r < 0)
			return r;
		ino = pinfs_get32(le);
	} else {
		uint32_t z = 0;

		r = iter_read_varint(it, &z);
		if (r < 0)
			return r;
		ino = it->prev_ino + 1 + ((z >> 1) ^ (0u - (z & 1)));
	}
	/* The root is nobody's entry. */
	if (ino <= PINFS_ROOT_INO || ino > it->image->info.inode_count)
		return dir_damaged(it->image, it->pos, "its inode number is out of range");
	*ret = ino;
	return 0;
}

static bool name_valid(const char *name, size_t len)
{
	return len && !memchr(name, 0, len) && !memchr(name, '/', len) && !(len == 1 && name[0] == '.') &&
		!(len == 2 && name[0] == '.' && name[1] == '.');
}

static bool type_valid(uint8_t type)
{
	return type == DT_REG || type == DT_DIR || type == DT_LNK || type == DT_CHR || type == DT_BLK ||
		type == DT_FIFO || type == DT_SOCK;
}

int image_dir_iter_next(struct image_dir_iter *it, struct image_dirent *ret)
{
	struct image_dirent e = {.index = it->index};
	uint64_t start = it->pos;
	uint8_t head[2];
	int r;

	if (it->index >= it->count) {
		if (it->index == it->count && it->pos != it->end)
			return dir_damaged(it->image, it->pos, "bytes are left after the last entry");
		return 0;
	}
	r = iter_read_ino(it, &e.ino);
	if (r < 0)
		return r;
	r = iter_read(it, head, 2);
	if (r < 0)
		return r;
	e.type = head[0];
	e.name_len = head[1];
	r = iter_read(it, e.name, e.name_len);
	if (r < 0)
		return r;
	if (!type_valid(e.type) || !name_valid(e.name, e.name_len))
		return dir_damaged(it->image, start, "its type or name is not allowed");
	it->prev_ino = e.ino;
	it->index++;
	*ret = e;
	return 1;
}

void image_dir_iter_end(struct image_dir_iter *it)
{
	section_chunk_put(it->chunk);
	it->chunk = NULL;
}

static uint64_t group_count(const struct image *img, const struct image_inode *dir)
{
	return DIV_ROUND_UP((uint64_t)dir->arg0, img->info.dir_restart);
}

/* Puts the iterator on the first entry of a group. */
static int iter_seek_group(struct image_dir_iter *it, const struct image_inode *dir, uint64_t group)
{
	uint64_t groups = group_count(it->image, dir);
	pinfs_le32 le = pinfs_put32(0);
	uint64_t pos;

	if (groups > 1) {
		int r = section_read(it->image, PINFS_SECTION_DIRS, dir->pos + group * sizeof(le), &le, sizeof(le));

		if (r < 0)
			return r;
	}
	pos = it->base + pinfs_get32(le);
	if (pos >= it->end)
		return dir_damaged(it->image, dir->pos, "a restart point lies outside its directory");
	it->pos = pos;
	it->index = group * it->image->info.dir_restart;
	return 0;
}

static int iter_init(struct image *img, const struct image_inode *dir, struct image_dir_iter *ret)
{
	uint64_t groups = group_count(img, dir), table = groups > 1 ? groups * sizeof(pinfs_le32) : 0;

	if (!S_ISDIR(dir->mode))
		return -ENOTDIR;
	if (table > dir->size)
		return dir_damaged(img, dir->pos, "the table of restart points is longer than its directory");
	*ret = (struct image_dir_iter){
		.image = img,
		.base = dir->pos + table,
		.end = dir->pos + dir->size,
		.pos = dir->pos + table,
		.count = dir->arg0,
	};
	return 0;
}

int image_dir_iter_begin(struct image *img, const struct image_inode *dir, uint64_t index, struct image_dir_iter *ret)
{
	struct image_dir_iter it = {0};
	struct image_dirent skip;
	int r;

	r = iter_init(img, dir, &it);
	if (r < 0)
		return r;
	if (index >= it.count) {
		it.index = it.count;
		it.pos = it.end;
		*ret = it;
		return 0;
	}
	r = iter_seek_group(&it, dir, index / img->info.dir_restart);
	while (r >= 0 && it.index < index)
		r = image_dir_iter_next(&it, &skip);
	if (r < 0) {
		image_dir_iter_end(&it);
		return r;
	}
	*ret = it;
	return 0;
}

static int name_compare(const char *a, size_t alen, const char *b, size_t blen)
{
	int c = memcmp(a, b, MIN(alen, blen));

	return c ? c : (alen > blen) - (alen < blen);
}

/* The last group whose first name is not after `name`. */
static int find_group(struct image_dir_iter *it, const struct image_inode *dir, const char *name, size_t len,
	uint64_t *ret)
{
	uint64_t low = 0, high = group_count(it->image, dir);

	while (high - low > 1) {
		uint64_t mid = low + (high - low) / 2;
		struct image_dirent e;
		int r = iter_seek_group(it, dir, mid);

		if (r < 0)
			return r;
		r = image_dir_iter_next(it, &e);
		if (r < 0)
			return r;
		if (name_compare(e.name, e.name_len, name, len) <= 0)
			low = mid;
		else
			high = mid;
	}
	*ret = low;
	return 0;
}

int image_dir_lookup(struct image *img, const struct image_inode *dir, const char *name, size_t len,
	struct image_dirent *ret)
{
	struct image_dir_iter it = {0};
	uint64_t group = 0;
	int r;

	if (len > PINFS_NAME_MAX)
		return -ENAMETOOLONG;
	r = iter_init(img, dir, &it);
	if (r < 0)
		return r;
	if (!it.count)
		return -ENOENT;
	r = find_group(&it, dir, name, len, &group);
	if (r >= 0)
		r = iter_seek_group(&it, dir, group);
	for (unsigned n = 0; r >= 0 && n < img->info.dir_restart && it.index < it.count; n++) {
		struct image_dirent e;
		int c;

		r = image_dir_iter_next(&it, &e);
		if (r < 0)
			break;
		c = name_compare(e.name, e.name_len, name, len);
		if (c == 0) {
			*ret = e;
			image_dir_iter_end(&it);
			return 0;
		}
		if (c > 0)
			break;
	}
	image_dir_iter_end(&it);
	return r < 0 ? r : -ENOENT;
}

int image_dir_child(struct image *img, const struct image_inode *dir, const struct image_dirent *e,
	struct image_inode *ret)
{
	struct image_inode child;
	int r = image_inode_get(img, e->ino, &child);

	if (r < 0)
		return r == -ENOENT ? -EUCLEAN : r;
	if (child.mode >> 12 != e->type)
		return dir_damaged(img, dir->pos, "its type is not that of its inode");
	if (S_ISDIR(child.mode) && (child.arg1 != dir->ino || child.ino <= dir->ino))
		return dir_damaged(img, dir->pos, "it names a directory that belongs to another one");
	*ret = child;
	return 0;
}
