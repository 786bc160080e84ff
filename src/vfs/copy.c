/* SPDX-License-Identifier: MIT */
/* copy_file_range: whole pages are shared, the rest is read and written. */
#include "vfs/internal.h"

#include <linux/fs.h>

#define COPY_BUFFER ((size_t)256 << 10)

/* Bytes, the ordinary way. */
static ssize_t copy_bytes(struct vfs *v, uint64_t from, uint64_t from_offset, uint64_t to, uint64_t to_offset, size_t len)
{
	_cleanup_free_ struct vfs_read *read = malloc(sizeof(*read));
	_cleanup_free_ uint8_t *buf = malloc(COPY_BUFFER);
	size_t done = 0;
	ssize_t n = 0;

	if (!read || !buf)
		return -ENOMEM;
	while (done < len) {
		size_t got = 0;

		n = vfs_read_begin(v, from, from_offset + done, MIN(len - done, COPY_BUFFER), read);
		if (n < 0)
			break;
		for (unsigned i = 0; i < read->count; i++) {
			memcpy(buf + got, read->iov[i].iov_base, read->iov[i].iov_len);
			got += read->iov[i].iov_len;
		}
		vfs_read_end(v, read, false);
		if (!got)
			break;
		n = vfs_write(v, to, to_offset + done, buf, got, 0);
		if (n < 0)
			break;
		done += (size_t)n;
		if ((size_t)n < got)
			break;
	}
	return done ? (ssize_t)done : n;
}

/* Within a transaction: pages of a file become those of a file of the image; as many as fit into a transaction. */
static int image_some(struct vfs *v, struct vfs_inode *to, uint64_t to_page, uint64_t *n, uint32_t image_ino, uint64_t image_page)
{
	uint64_t done;
	int r = delta_extent_drop(v->delta, &to->i, to_page, to_page + *n, &done);

	*n = done - to_page;
	return r < 0 ? r : delta_extent_image(v->delta, &to->i, to_page, *n, image_ino, image_page);
}

/* Within a transaction: some pages of one file become those of another one. In *ret how many. */
static int share_some(struct vfs *v, uint64_t from, uint64_t page, struct vfs_inode *to, uint64_t to_page, uint64_t count, uint64_t *ret)
{
	struct vfs_inode source;
	struct delta_extent e;
	uint64_t n, done, image_last;
	int r = inode_load(v, from, &source);

	if (r == 0)
		r = delta_extent_get(v->delta, from, page, &e);
	if (r < 0)
		return r;
	n = MIN(count, e.pages);
	image_last = DIV_ROUND_UP(source.i.image_end, PINFS_PAGE_SIZE);
	switch (e.kind) {
	case PINFS_DELTA_RAW:
	case PINFS_DELTA_LZ4:
		r = delta_extent_share(v->delta, &to->i, to_page, n, from, &e, &n);
		break;
	case PINFS_DELTA_IMAGE:
		r = image_some(v, to, to_page, &n, e.image_ino, e.start);
		break;
	case DELTA_NOTHING:
		/* The page that the image's part ends in may be cut off in the middle: that can't be said by an extent. */
		if (page < image_last && (page + 1) * PINFS_PAGE_SIZE > source.i.image_end && source.i.image_end < source.image.size)
			return -EAGAIN;
		if (page < image_last) {
			n = MIN(n, MAX(source.i.image_end / PINFS_PAGE_SIZE, page + 1) - page);
			r = image_some(v, to, to_page, &n, source.image.ino, page);
			break;
		}
		/* fall through */
	case PINFS_DELTA_HOLE:
	case PINFS_DELTA_UNWRITTEN:
		r = delta_extent_drop(v->delta, &to->i, to_page, to_page + n, &done);
		n = done - to_page;
		if (r == 0 && to_page < DIV_ROUND_UP(to->i.image_end, PINFS_PAGE_SIZE))
			r = delta_extent_hole(v->delta, &to->i, to_page, n);
		break;
	default:
		return -EAGAIN;
	}
	*ret = n;
	return r;
}

/* What node_share() is to do, once the target's old pages have left the cache and nobody can read new ones. */
struct vfs_share {
	uint64_t from, page, to_page, count;
	uint64_t done; /* pages */
};

int node_share(struct vfs_node *to)
{
	struct vfs_share *s = to->share;
	struct vfs *v = to->vfs;
	int r = 0;

	while (r == 0 && s->done < s->count) {
		uint64_t n = 0, old = 0, left = 0, at = s->to_page + s->done, end = s->to_page + s->count;
		struct vfs_inode inode;

		r = delta_begin(v->delta, 0);
		if (r < 0)
			break;
		r = inode_load(v, to->ino, &inode);
		if (r == 0)
			r = image_pages_in(v, &inode.i, at, end, &old);
		if (r == 0)
			r = share_some(v, s->from, s->page + s->done, &inode, at, s->count - s->done, &n);
		if (r == 0)
			r = image_pages_in(v, &inode.i, at + n, end, &left);
		if (r == 0) {
			image_pages_lose(&inode.i, old - left);
			inode.i.size = MAX(inode.i.size, (s->to_page + s->done + n) * PINFS_PAGE_SIZE);
			r = inode_store(v, &inode);
		}
		if (r < 0) {
			delta_abort(v->delta);
			break;
		}
		r = delta_commit(v->delta);
		if (r == 0)
			s->done += n;
	}
	/* What can't be shared is copied. */
	return r == -EAGAIN || r == -ESTALE ? 0 : r;
}

/* Under both locks: the source is on the disk, and keeps still. */
static int share(struct vfs_node *from, struct vfs_node *to, struct vfs_share *s)
{
	int r = node_prepare(to);

	if (r == 0 && from->mapping)
		r = cache_sync(from->mapping, s->page, s->count, NULL);
	/* Growing first: a hole, that the pages then fill. */
	if (r == 0 && cache_size(to->mapping) < (s->to_page + s->count) * PINFS_PAGE_SIZE)
		r = node_truncate(to, (s->to_page + s->count) * PINFS_PAGE_SIZE, false);
	/*
	 * Where nothing can be shared, what is there stays until it is copied over: so it has to be there. And what lies before it, if the end on
	 * the disk moves.
	 */
	if (r == 0)
		r = cache_sync(to->mapping, 0, s->to_page + s->count, NULL);
	if (r < 0)
		return r;
	to->cut_error = 0;
	to->share = s;
	cache_punch(to->mapping, s->to_page, s->count);
	to->share = NULL;
	node_touch(to);
	return to->cut_error;
}

static bool can_share(uint64_t from, uint64_t from_offset, uint64_t to, uint64_t to_offset, size_t len)
{
	return from != to && from_offset % PINFS_PAGE_SIZE == 0 && to_offset % PINFS_PAGE_SIZE == 0 && len >= 4 * PINFS_PAGE_SIZE;
}

ssize_t vfs_copy_range(struct vfs *v, uint64_t from, uint64_t from_offset, uint64_t to, uint64_t to_offset, size_t len)
{
	struct vfs_node *a, *b;
	struct stat st;
	struct vfs_share s = {.from = from, .page = from_offset / PINFS_PAGE_SIZE, .to_page = to_offset / PINFS_PAGE_SIZE};
	uint64_t shared;
	ssize_t n;
	int r;

	if (!vfs_writable(v))
		return -EROFS;
	r = vfs_getattr(v, from, &st);
	if (r < 0)
		return r;
	if (!S_ISREG(st.st_mode))
		return -EINVAL;
	if (from_offset >= (uint64_t)st.st_size)
		return 0;
	len = (size_t)MIN((uint64_t)len, (uint64_t)st.st_size - from_offset);
	if (to_offset > PINFS_DELTA_FILE_MAX || len > PINFS_DELTA_FILE_MAX - to_offset)
		return -EFBIG;
	if (!can_share(from, from_offset, to, to_offset, len))
		return copy_bytes(v, from, from_offset, to, to_offset, len);
	r = node_get(v, from, &a);
	if (r < 0)
		return r;
	r = node_get(v, to, &b);
	if (r < 0) {
		node_put(a);
		return r;
	}
	/* In the order of their numbers: two copies in opposite directions must not wait for each other. */
	mutex_lock(from < to ? &a->lock : &b->lock);
	mutex_lock(from < to ? &b->lock : &a->lock);
	s.count = len / PINFS_PAGE_SIZE;
	r = share(a, b, &s);
	mutex_unlock(&a->lock);
	mutex_unlock(&b->lock);
	node_put(a);
	node_put(b);
	if (r < 0)
		return r;
	shared = s.done * PINFS_PAGE_SIZE;
	if (shared >= len)
		return (ssize_t)len;
	/* What can't be shared. */
	n = copy_bytes(v, from, from_offset + shared, to, to_offset + shared, len - (size_t)shared);
	return n < 0 && !shared ? n : (ssize_t)shared + MAX(n, (ssize_t)0);
}
