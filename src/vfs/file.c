/* SPDX-License-Identifier: MIT */
/* Content: from a range of a file to pieces of cached blocks. */
#include "vfs/internal.h"

#define FILL_BATCH 32u

static int unit_size(void *owner, uint64_t unit)
{
	struct vfs *v = owner;
	struct image_block b;
	int r = image_block_get(v->image, unit, &b);

	return r < 0 ? r : (int)b.raw;
}

static void read_units(void *owner, uint64_t first, unsigned count, struct cache_fill *fills)
{
	struct vfs *v = owner;

	while (count) {
		unsigned n = MIN(count, FILL_BATCH);
		struct image_read reads[FILL_BATCH];

		for (unsigned i = 0; i < n; i++)
			reads[i] = (struct image_read){.data = fills[i].data};
		image_read_blocks(v->image, first, n, reads);
		for (unsigned i = 0; i < n; i++) {
			fills[i].len = reads[i].raw;
			fills[i].error = reads[i].error;
		}
		first += n;
		fills += n;
		count -= n;
	}
}

const struct cache_ops vfs_image_ops = {.size = unit_size, .read = read_units};

int vfs_seek(struct vfs *v, uint64_t ino, uint64_t offset, bool hole, uint64_t *ret)
{
	struct image_inode i;
	int r = image_inode_get(v->image, ino, &i);

	return r < 0 ? r : image_seek(v->image, &i, offset, hole, ret);
}

/* The piece of data at m, at most `most` bytes; `run` blocks follow one after another. */
static int read_block(struct vfs *v, const struct image_inode *inode, const struct image_map *m, size_t most,
	unsigned run, struct vfs_read *out)
{
	size_t n = (size_t)MIN((uint64_t)most, m->length);
	struct cache_ref ref;
	int r;

	if (m->block >= image_get_info(v->image)->block_count)
		return vfs_damaged(v, inode, "its content lies outside the image's blocks");
	r = cache_get_run(v->blocks, m->block, run, &ref);
	if (r < 0)
		return r;
	out->refs[out->ref_count] = ref;
	out->consumed[out->ref_count] = m->block_offset + n == ref.len;
	out->ref_count++;
	if (m->block_offset > ref.len || n > ref.len - m->block_offset)
		return vfs_damaged(v, inode, "its content runs over the end of a block");
	/* An iovec has no const; nobody writes to it. */
	out->iov[out->count++] = (struct iovec){(uint8_t *)ref.data + m->block_offset, n};
	out->bytes += n;
	return 0;
}

static int read_pieces(struct vfs *v, const struct image_inode *inode, uint64_t offset, size_t len,
	struct vfs_read *out)
{
	uint32_t bs = image_get_info(v->image)->block_size;

	while (out->bytes < len) {
		uint64_t at = offset + out->bytes;
		size_t left = len - out->bytes;
		struct image_map m;
		int r = image_map(v->image, inode, at, &m);

		if (r < 0)
			return r;
		if (m.hole) {
			size_t n = (size_t)MIN((uint64_t)left, m.length);

			out->iov[out->count++] = (struct iovec){v->zeros, n};
			out->bytes += n;
			continue;
		}
		r = read_block(v, inode, &m, left,
			inode->layout == PINFS_LAYOUT_RUN ? (unsigned)DIV_ROUND_UP(m.block_offset + left, bs) : 1, out);
		if (r < 0)
			return r;
	}
	return 0;
}

int vfs_read_begin(struct vfs *v, uint64_t ino, uint64_t offset, size_t len, struct vfs_read *ret)
{
	uint32_t bs = image_get_info(v->image)->block_size;
	struct image_inode i;
	int r;

	r = image_inode_get(v->image, ino, &i);
	if (r < 0)
		return r;
	if (S_ISDIR(i.mode))
		return -EISDIR;
	if (!S_ISREG(i.mode) || len > VFS_READ_MAX)
		return -EINVAL;
	ret->bytes = 0;
	ret->count = ret->ref_count = ret->reserved = 0;
	if (offset >= i.size)
		return 0;
	len = (size_t)MIN((uint64_t)len, i.size - offset);
	if (i.layout == PINFS_LAYOUT_RUN || i.layout == PINFS_LAYOUT_EXTENTS)
		ret->reserved = (unsigned)((offset % bs + len + bs - 1) / bs);
	else if (i.layout == PINFS_LAYOUT_PACKED)
		ret->reserved = 1;
	if (ret->reserved) {
		r = cache_reserve(v->blocks, ret->reserved);
		if (r < 0)
			return r;
	}
	r = read_pieces(v, &i, offset, len, ret);
	if (r < 0)
		vfs_read_end(v, ret, false);
	return r;
}

void vfs_read_end(struct vfs *v, struct vfs_read *read, bool kept)
{
	for (unsigned i = 0; i < read->ref_count; i++)
		cache_put(v->blocks, &read->refs[i], kept && read->consumed[i] ? CACHE_COLD : CACHE_KEEP);
	if (read->reserved)
		cache_unreserve(v->blocks, read->reserved);
	read->ref_count = read->reserved = 0;
}
