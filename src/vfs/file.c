/* SPDX-License-Identifier: MIT */
/* Reading content: from a range of a file to pieces of cached blocks, or, of what the delta has, to bytes from its pages. */
#include "vfs/internal.h"

#include <linux/fs.h>

#define FILL_BATCH 32u

/* ---- the image's blocks ---- */

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

/* A file that is the image's alone, or its first `end` bytes; behind them it is zero up to size. */
static int read_image(struct vfs *v, const struct image_inode *i, uint64_t end, uint64_t size, uint64_t offset, size_t len,
	struct vfs_read *ret)
{
	uint32_t bs = image_get_info(v->image)->block_size;
	size_t zeroes = 0;
	int r = 0;

	if (offset >= size)
		return 0;
	len = (size_t)MIN((uint64_t)len, size - offset);
	if (offset + len > end) {
		zeroes = offset >= end ? len : (size_t)(offset + len - end);
		len -= zeroes;
	}
	if (len && (i->layout == PINFS_LAYOUT_RUN || i->layout == PINFS_LAYOUT_EXTENTS))
		ret->reserved = (unsigned)((offset % bs + len + bs - 1) / bs);
	else if (len && i->layout == PINFS_LAYOUT_PACKED)
		ret->reserved = 1;
	if (ret->reserved) {
		r = cache_reserve(v->blocks, ret->reserved);
		if (r < 0) {
			ret->reserved = 0;
			return r;
		}
	}
	r = read_pieces(v, i, offset, len, ret);
	if (r == 0 && zeroes) {
		ret->iov[ret->count++] = (struct iovec){v->zeros, zeroes};
		ret->bytes += zeroes;
	}
	return r;
}

/* Bytes of one page of a file of the image, up to byte `end` of it; the rest is zero. For the cache's `read`: it holds no reference. */
int image_read_page(struct vfs *v, const struct image_inode *inode, uint64_t page, uint64_t end, uint8_t *data)
{
	uint64_t start = page * PINFS_PAGE_SIZE, stop = MIN(MIN(end, inode->size), start + PINFS_PAGE_SIZE);
	size_t done = 0, len = stop > start ? (size_t)(stop - start) : 0;
	int r;

	while (done < len) {
		struct image_map m;
		size_t n;

		r = image_map(v->image, inode, start + done, &m);
		if (r < 0)
			return r;
		n = (size_t)MIN((uint64_t)(len - done), m.length);
		if (m.hole) {
			memset(data + done, 0, n);
		} else {
			struct cache_ref ref;

			if (m.block >= image_get_info(v->image)->block_count)
				return vfs_damaged(v, inode, "its content lies outside the image's blocks");
			r = cache_get(v->blocks, m.block, &ref);
			if (r < 0)
				return r;
			if (m.block_offset > ref.len || n > ref.len - m.block_offset)
				r = vfs_damaged(v, inode, "its content runs over the end of a block");
			else
				memcpy(data + done, ref.data + m.block_offset, n);
			cache_put(v->blocks, &ref, CACHE_KEEP);
			if (r < 0)
				return r;
		}
		done += n;
	}
	memset(data + len, 0, PINFS_PAGE_SIZE - len);
	return 0;
}

/* ---- files that have pages of their own ---- */

/* Bytes of cached pages, copied: a reference to each page at once could be too many. */
static int read_pages(struct vfs *v, struct vfs_node *n, uint64_t offset, size_t len, struct vfs_read *ret)
{
	uint64_t size = cache_size(n->mapping);
	size_t done = 0;
	int r;

	if (offset >= size)
		return 0;
	len = (size_t)MIN((uint64_t)len, size - offset);
	ret->copy = malloc(len);
	if (!ret->copy)
		return -ENOMEM;
	r = cache_reserve(n->mapping, NODE_RESERVE);
	if (r < 0)
		return r;
	while (r == 0 && done < len) {
		uint64_t at = offset + done;
		size_t in_page = at % PINFS_PAGE_SIZE, piece = MIN(len - done, PINFS_PAGE_SIZE - in_page);
		unsigned run = (unsigned)MIN((len - done + in_page + PINFS_PAGE_SIZE - 1) / PINFS_PAGE_SIZE, (size_t)256);
		struct cache_ref ref;

		r = cache_get_run(n->mapping, at / PINFS_PAGE_SIZE, run, &ref);
		if (r < 0)
			break;
		memcpy(ret->copy + done, ref.data + in_page, piece);
		cache_put(n->mapping, &ref, CACHE_KEEP);
		done += piece;
	}
	cache_unreserve(n->mapping, NODE_RESERVE);
	/* It was cut off meanwhile: what is left is what there is. */
	if (r < 0 && offset + done >= cache_size(n->mapping))
		r = 0;
	if (r == 0 && done) {
		ret->iov[0] = (struct iovec){ret->copy, done};
		ret->count = 1;
		ret->bytes = done;
	}
	return r;
}

/* Has the file to be read through its own pages? Then its node, with a user more. */
static int own_pages(struct vfs *v, struct vfs_inode *inode, struct vfs_node **ret)
{
	struct vfs_node *n = node_find(v, inode->i.ino);
	bool extents;
	int r;

	*ret = NULL;
	if (n && n->mapping) {
		*ret = n;
		return 0;
	}
	if (n)
		node_put(n);
	vfs_lock(v);
	r = inode_has_extents(v, inode, &extents);
	vfs_unlock(v);
	if (r < 0 || !extents)
		return r;
	r = node_get(v, inode->i.ino, &n);
	if (r < 0)
		return r;
	mutex_lock(&n->lock);
	r = node_map(n);
	mutex_unlock(&n->lock);
	if (r < 0)
		node_put(n);
	else
		*ret = n;
	return r;
}

void vfs_accessed(struct vfs *v, uint64_t ino)
{
	struct timespec now = time_now();
	struct vfs_inode inode;
	const struct delta_inode *i = &inode.i;
	struct vfs_node *n;
	int r;

	if (!vfs_writable(v) || v->options.atime == VFS_NOATIME)
		return;
	vfs_lock(v);
	r = inode_load(v, ino, &inode);
	vfs_unlock(v);
	if (r < 0 || (v->options.nodiratime && S_ISDIR(i->mode)))
		return;
	if (i->flags & FS_NOATIME_FL)
		return;
	/* Not atime + a day: any number of seconds can have been set. */
	if (v->options.atime == VFS_RELATIME && i->atime.tv_sec > now.tv_sec - 86400 &&
		(i->atime.tv_sec > i->mtime.tv_sec || (i->atime.tv_sec == i->mtime.tv_sec && i->atime.tv_nsec > i->mtime.tv_nsec)) &&
		(i->atime.tv_sec > i->ctime.tv_sec || (i->atime.tv_sec == i->ctime.tv_sec && i->atime.tv_nsec > i->ctime.tv_nsec)))
		return;
	if (delta_failed(v->delta) || node_get(v, i->ino, &n) < 0)
		return;
	mutex_lock(&v->nodes_lock);
	n->atime = now;
	n->atime_dirty = true;
	mutex_unlock(&v->nodes_lock);
	node_put(n);
}

int vfs_read_begin(struct vfs *v, uint64_t ino, uint64_t offset, size_t len, struct vfs_read *ret)
{
	struct vfs_inode inode;
	struct vfs_node *n = NULL;
	int r;

	vfs_lock(v);
	r = inode_load(v, ino, &inode);
	vfs_unlock(v);
	if (r < 0)
		return r;
	if (S_ISDIR(inode.i.mode))
		return -EISDIR;
	if (!S_ISREG(inode.i.mode) || len > VFS_READ_MAX)
		return -EINVAL;
	ret->bytes = 0;
	ret->count = ret->ref_count = ret->reserved = 0;
	ret->copy = NULL;
	if (v->delta) {
		r = delta_failed(v->delta) == -ESHUTDOWN ? -EIO : own_pages(v, &inode, &n);
		if (r < 0)
			return r;
	}
	if (n) {
		r = read_pages(v, n, offset, len, ret);
		node_put(n);
	} else {
		r = read_image(v, &inode.image, inode.has_image ? inode.i.image_end : 0, inode.size, offset, len, ret);
	}
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
	free(read->copy);
	read->copy = NULL;
}
