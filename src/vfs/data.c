/* SPDX-License-Identifier: MIT */
/*
 * Changing content. A file that is written gets pages of its own in the cache; the delta hears of them when they are written back, of
 * cuts and holes at once.
 *
 *	write ─► pages (mkwrite promises a place to each) ─► writeback ─► delta_write: extents, and the size up to there
 *	truncate, punch ─► cache takes the pages out ─► cut ─► the delta takes the extents out
 *
 * The size on the disk is that of what is there: behind it, what was written and not written back so far is lost in a crash, and nothing
 * appears in its place.
 */
#include "vfs/internal.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <linux/falloc.h>

/* ---- the cache's way down ---- */

/* Bytes of one page that the delta says nothing of, or that are elsewhere in the image. */
static int fill_other(struct vfs *v, const struct vfs_inode *inode, const struct delta_extent *e, uint64_t page, uint8_t *data)
{
	struct image_inode other;
	int r;

	if (e->kind == DELTA_NOTHING && inode->has_image)
		return image_read_page(v, &inode->image, page, inode->i.image_end, data);
	if (e->kind == PINFS_DELTA_IMAGE) {
		r = image_inode_get(v->image, e->image_ino, &other);
		if (r == 0 && !S_ISREG(other.mode))
			r = -EUCLEAN;
		return r < 0 ? r : image_read_page(v, &other, e->start + (page - e->page), UINT64_MAX, data);
	}
	memset(data, 0, PINFS_PAGE_SIZE);
	return 0;
}

/* A run of pages that lies in one extent, or in none; how many of `count`. */
static int fill_run(struct vfs *v, uint64_t ino, uint64_t page, unsigned count, struct cache_fill *fills, unsigned *ret_n)
{
	struct vfs_inode inode;
	struct delta_extent e = {.kind = DELTA_NOTHING, .page = page, .pages = UINT64_MAX - page};
	uint8_t *data[64];
	unsigned n;
	int r;

	vfs_lock(v);
	r = inode_load(v, ino, &inode);
	if (r == 0 && v->delta)
		r = delta_extent_get(v->delta, ino, page, &e);
	vfs_unlock(v);
	if (r < 0)
		return r;
	n = (unsigned)MIN(MIN((uint64_t)count, e.pages), ARRAY_SIZE(data));
	for (unsigned i = 0; i < n; i++)
		data[i] = fills[i].data;
	switch (e.kind) {
	case PINFS_DELTA_RAW:
	case PINFS_DELTA_LZ4:
	case PINFS_DELTA_INLINE:
	case PINFS_DELTA_LOGGED:
		r = delta_extent_read(v->delta, ino, &e, page, n, data);
		break;
	default:
		for (unsigned i = 0; r == 0 && i < n; i++)
			r = fill_other(v, &inode, &e, page + i, data[i]);
	}
	*ret_n = n;
	return r;
}

static void node_read(void *owner, uint64_t first, unsigned count, struct cache_fill *fills)
{
	struct vfs_node *n = owner;

	for (unsigned i = 0, m; i < count; i += m) {
		unsigned tries = 0;
		int r;

		m = 1;
		do {
			/* The extent may have moved to another place while it was read. */
			r = fill_run(n->vfs, n->ino, first + i, count - i, fills + i, &m);
		} while (r == -ESTALE && tries++ < 100);
		for (unsigned j = i; j < i + m; j++) {
			fills[j].len = r < 0 ? 0 : PINFS_PAGE_SIZE;
			fills[j].error = r;
		}
	}
}

static void promise(struct vfs_node *n, int64_t pages)
{
	mutex_lock(&n->vfs->nodes_lock);
	n->promised += (uint64_t)pages;
	mutex_unlock(&n->vfs->nodes_lock);
}

static int node_mkwrite(void *owner, uint64_t page, unsigned count)
{
	struct vfs_node *n = owner;
	int r = vfs_writable(n->vfs) ? delta_reserve(n->vfs->delta, count) : -EROFS;

	if (r == 0)
		promise(n, count);
	return r;
}

static void node_mkwrite_undo(void *owner, uint64_t page, unsigned count)
{
	struct vfs_node *n = owner;

	delta_unreserve(n->vfs->delta, count);
	promise(n, -(int64_t)count);
}

/* ---- what stat(2) says of its blocks: content of the image counts as long as no extent lies over it ---- */

/* How many pages of [first, end) do. Under the lock. */
int image_pages_in(struct vfs *v, const struct delta_inode *i, uint64_t first, uint64_t end, uint64_t *ret)
{
	struct delta_extent e;
	uint64_t n = 0, count;
	int r;

	end = MIN(end, DIV_ROUND_UP(i->image_end, PINFS_PAGE_SIZE));
	for (; first < end; first += count) {
		r = delta_extent_get(v->delta, i->ino, first, &e);
		if (r < 0)
			return r;
		count = MIN(e.pages, end - first);
		n += e.kind == DELTA_NOTHING ? count : 0;
	}
	*ret = n;
	return 0;
}

void image_pages_lose(struct delta_inode *i, uint64_t n)
{
	/* Holes in the image were no blocks to begin with. */
	i->image_pages -= MIN(n, i->image_pages);
}

#define WRITTEN_MOST 256u

struct written {
	struct vfs_node *node;
	uint64_t page, first; /* of the write; page that the next update begins with */
	bool old[WRITTEN_MOST]; /* was the image's */
};

/* Which of the pages that are about to be written are the image's. */
static int written_begin(struct written *w, unsigned count)
{
	struct vfs *v = w->node->vfs;
	struct delta_inode i;
	int r;

	vfs_lock(v);
	r = delta_inode_get(v->delta, w->node->ino, &i);
	for (unsigned n = 0; r == 0 && i.image_end > w->page * PINFS_PAGE_SIZE && n < MIN(count, WRITTEN_MOST); n++) {
		uint64_t old;

		r = image_pages_in(v, &i, w->page + n, w->page + n + 1, &old);
		w->old[n] = r == 0 && old;
	}
	vfs_unlock(v);
	return r == -ENOENT ? 0 : r;
}

/* Under the delta's lock: content up to `end` is there now. */
static int written_update(void *context, struct delta_inode *i, uint64_t end)
{
	struct written *w = context;
	struct vfs_node *n = w->node;

	i->size = MAX(i->size, end);
	for (; w->first < DIV_ROUND_UP(end, PINFS_PAGE_SIZE); w->first++)
		image_pages_lose(i, w->first - w->page < WRITTEN_MOST && w->old[w->first - w->page]);
	mutex_lock(&n->vfs->nodes_lock);
	if (n->mtime_dirty) {
		i->mtime = n->mtime;
		i->ctime = later(n->ctime, i->ctime);
		n->mtime_dirty = false;
	}
	mutex_unlock(&n->vfs->nodes_lock);
	return 0;
}

static int node_writeback(void *owner, const struct cache_write *cw)
{
	struct vfs_node *n = owner;
	struct vfs *v = n->vfs;
	struct written w = {.node = n, .page = cw->page, .first = cw->page};
	uint8_t last[PINFS_PAGE_SIZE];
	const uint8_t *data[WRITTEN_MOST];
	size_t rest = cw->bytes % PINFS_PAGE_SIZE;
	struct delta_write dw = {
		.ino = n->ino,
		.page = cw->page,
		.count = cw->count,
		.data = cw->data,
		.bytes = cw->bytes,
		.reserved = cw->count,
		.whole = cw->page == 0 && cw->count == 1 && cache_size(n->mapping) <= PINFS_PAGE_SIZE,
	};
	int r;

	/* What stands behind the end of the file is nobody's business: it must be zero when the file grows. */
	if (rest && cw->count <= ARRAY_SIZE(data)) {
		memcpy(data, cw->data, cw->count * sizeof(data[0]));
		memcpy(last, cw->data[cw->count - 1], rest);
		memset(last + rest, 0, sizeof(last) - rest);
		data[cw->count - 1] = last;
		dw.data = data;
	}
	mutex_lock(&v->nodes_lock);
	dw.sync = n->syncing > 0;
	mutex_unlock(&v->nodes_lock);
	r = written_begin(&w, cw->count);
	if (r == 0)
		r = delta_write(v->delta, &dw, written_update, &w);
	if (r == -ENOSPC && delta_checkpoint(v->delta) == 0)
		/* Promised pages may lie in pieces that are too small, until what was given up is free. */
		r = delta_write(v->delta, &dw, written_update, &w);
	if (r == -ESTALE) {
		/* The file is gone. */
		delta_unreserve(v->delta, cw->count);
		r = 0;
	}
	if (r == 0)
		promise(n, -(int64_t)cw->count);
	return r;
}

static void node_error(void *owner, uint64_t page, int error)
{
	struct vfs_node *n = owner;
	unsigned suppressed;

	if (log_limit_pass(&n->vfs->damage_limit, VFS_DAMAGE_BURST, &suppressed))
		log_error("%s: inode %ju: page %ju can't be written: %s", n->vfs->delta_name, (uintmax_t)n->ino, (uintmax_t)page, strerror(-error));
}

/* ---- leaving the file ---- */

/* Within a transaction: the file ends at `size` on the disk, and what lies behind goes, as far as a transaction may. */
static int cut_end(struct vfs *v, struct delta_inode *i, uint64_t size, uint64_t *done)
{
	uint64_t mark, old = 0;
	bool was = false;
	int r;

	i->size = size;
	if (i->image_end > size) {
		r = image_pages_in(v, i, DIV_ROUND_UP(size, PINFS_PAGE_SIZE), UINT64_MAX, &old);
		if (r < 0)
			return r;
		image_pages_lose(i, old);
		i->image_end = size;
	}
	r = delta_extent_drop(v->delta, i, MAX(*done, DIV_ROUND_UP(size, PINFS_PAGE_SIZE)), UINT64_MAX, done);
	if (r < 0 || !i->nlink)
		return r;
	r = delta_orphan_next(v->delta, i->ino, &mark);
	was = r == 0 && mark == i->ino;
	if (r < 0 && r != -ENOENT)
		return r;
	/* If it takes more than one transaction, a crash in between leaves word of it. */
	if (*done < UINT64_MAX && !was)
		return delta_orphan_add(v->delta, i->ino);
	return *done == UINT64_MAX && was ? delta_orphan_remove(v->delta, i->ino) : 0;
}

struct cut {
	struct vfs_node *node;
	uint64_t size, done;
};

/* With the last page written anew, so that what was cut off doesn't come back when the file grows. */
static int cut_update(void *context, struct delta_inode *i, uint64_t end)
{
	struct cut *c = context;

	return cut_end(c->node->vfs, i, c->size, &c->done);
}

static int cut_tail(struct vfs_node *n, uint64_t size, struct cut *c)
{
	const uint8_t *data[1] = {n->tail};
	struct delta_write w = {
		.ino = n->ino,
		.page = size / PINFS_PAGE_SIZE,
		.count = 1,
		.data = data,
		.bytes = size % PINFS_PAGE_SIZE,
		.reserved = n->tail_reserved,
		.whole = size < PINFS_PAGE_SIZE,
	};
	int r = delta_write(n->vfs->delta, &w, cut_update, c);

	if (r == 0)
		n->tail_reserved = 0;
	return r;
}

static int cut_size(struct vfs_node *n, uint64_t size)
{
	struct cut c = {.node = n, .size = size};
	struct vfs *v = n->vfs;
	int r = n->tail ? cut_tail(n, size, &c) : 0;

	while (r == 0 && c.done < UINT64_MAX) {
		struct vfs_inode inode;

		r = delta_begin(v->delta, DELTA_SHRINKS);
		if (r < 0)
			break;
		r = inode_load(v, n->ino, &inode);
		if (r == 0)
			r = cut_end(v, &inode.i, size, &c.done);
		if (r == 0)
			r = inode_store(v, &inode);
		if (r < 0)
			delta_abort(v->delta);
		else
			r = delta_commit(v->delta);
	}
	return r;
}

int node_finish_cut(struct vfs_node *n, uint64_t size)
{
	return cut_size(n, size);
}

/* Pages [first, end) of the file become a hole. */
static int cut_hole(struct vfs_node *n, uint64_t first, uint64_t end)
{
	struct vfs *v = n->vfs;
	uint64_t done = first;
	int r = 0;

	while (r == 0 && done < end) {
		uint64_t from = done, image_end, old = 0, left = 0;
		struct vfs_inode inode;

		r = delta_begin(v->delta, DELTA_SHRINKS);
		if (r < 0)
			break;
		r = inode_load(v, n->ino, &inode);
		if (r == 0)
			r = image_pages_in(v, &inode.i, from, end, &old);
		if (r == 0)
			r = delta_extent_drop(v->delta, &inode.i, done, end, &done);
		if (r == 0)
			r = image_pages_in(v, &inode.i, done, end, &left);
		image_end = DIV_ROUND_UP(inode.i.image_end, PINFS_PAGE_SIZE);
		if (r == 0 && from < MIN(done, image_end)) {
			image_pages_lose(&inode.i, old - left);
			r = delta_extent_hole(v->delta, &inode.i, from, MIN(done, image_end) - from);
		}
		if (r == 0) {
			/* No page that leaves here will be written any more and bring the size with it. */
			inode.i.size = MAX(inode.i.size, MIN(done * PINFS_PAGE_SIZE, inode.size));
			r = inode_store(v, &inode);
		}
		if (r < 0)
			delta_abort(v->delta);
		else
			r = delta_commit(v->delta);
	}
	return r;
}

static void node_cut(void *owner, uint64_t from, uint64_t to)
{
	struct vfs_node *n = owner;
	int r;

	/* Shared pages take the place of what is there in one step: a crash finds these or those. */
	if (n->share)
		r = node_share(n);
	else
		r = to == UINT64_MAX ? cut_size(n, from) : cut_hole(n, from / PINFS_PAGE_SIZE, to / PINFS_PAGE_SIZE);
	if (r < 0 && !n->cut_error)
		n->cut_error = r;
}

const struct cache_ops vfs_node_ops = {
	.read = node_read,
	.mkwrite = node_mkwrite,
	.mkwrite_undo = node_mkwrite_undo,
	.writeback = node_writeback,
	.cut = node_cut,
	.error = node_error,
};

/* ---- nodes that are written ---- */

int node_map(struct vfs_node *n)
{
	struct cache_mapping *m;
	struct vfs *v = n->vfs;
	struct vfs_inode inode;
	int r;

	if (n->mapping)
		return 0;
	vfs_lock(v);
	r = inode_load(v, n->ino, &inode);
	vfs_unlock(v);
	if (r == 0)
		r = cache_mapping_new(v->cache, &vfs_node_ops, n, PINFS_PAGE_SIZE, inode.size, 0, &m);
	if (r < 0)
		return r;
	mutex_lock(&v->nodes_lock);
	n->mapping = m;
	mutex_unlock(&v->nodes_lock);
	return 0;
}

void node_touch(struct vfs_node *n)
{
	struct timespec now = time_now();

	if (n->vfs->kernel_times)
		return;
	mutex_lock(&n->vfs->nodes_lock);
	n->mtime = n->ctime = now;
	n->mtime_dirty = true;
	mutex_unlock(&n->vfs->nodes_lock);
}

/* What has to be so before the first byte changes: the delta knows the inode, and nobody's rights grow by it. */
static int prepare(struct vfs_node *n, unsigned flags, struct vfs_inode *ret)
{
	struct vfs *v = n->vfs;
	bool kill = false, caps = false;
	int r;

	/* Or the cache would show changes that nobody can keep. */
	if (delta_failed(v->delta))
		return delta_failed(v->delta);
	vfs_lock(v);
	r = inode_load(v, n->ino, ret);
	/* Asked for by the kernel with each write of who is not privileged: there is hardly ever something to take away. */
	if (r == 0 && flags & VFS_WRITE_KILL_PRIV)
		kill = ret->i.mode & (S_ISUID | S_ISGID);
	if (r == 0 && flags & (VFS_WRITE_KILL_PRIV | VFS_WRITE_KILL_CAPS))
		caps = xattr_get(v, ret, CAPABILITY, NULL, 0) >= 0;
	kill |= caps;
	vfs_unlock(v);
	if (r < 0)
		return r;
	if (!S_ISREG(ret->i.mode))
		return S_ISDIR(ret->i.mode) ? -EISDIR : -EINVAL;
	r = flags & VFS_WRITE_PAGE ? 0 : inode_may_change(ret);
	if (r == 0 && caps)
		r = xattrs_copy(v, n->ino);
	if (r == 0 && (!ret->in_delta || kill)) {
		r = delta_begin(v->delta, 0);
		if (r < 0)
			return r;
		r = inode_load(v, n->ino, ret);
		if (r == 0 && kill)
			r = flags & VFS_WRITE_KILL_PRIV ? inode_kill_priv(v, ret) : inode_kill_caps(v, ret);
		if (r == 0)
			r = inode_store(v, ret);
		if (r < 0)
			delta_abort(v->delta);
		else
			r = delta_commit(v->delta);
	}
	return r < 0 ? r : node_map(n);
}

int node_prepare(struct vfs_node *n)
{
	struct vfs_inode inode;

	return prepare(n, 0, &inode);
}

static int write_locked(struct vfs_node *n, uint64_t offset, const void *buf, size_t len, size_t *ret)
{
	int r = cache_reserve(n->mapping, NODE_RESERVE);

	if (r < 0)
		return r;
	r = cache_write(n->mapping, offset, buf, len, ret);
	cache_unreserve(n->mapping, NODE_RESERVE);
	return r;
}

ssize_t vfs_write(struct vfs *v, uint64_t ino, uint64_t offset, const void *buf, size_t len, unsigned flags)
{
	struct vfs_inode inode;
	struct vfs_node *n;
	size_t done = 0;
	int r;

	if (!vfs_writable(v))
		return -EROFS;
	if (delta_failed(v->delta))
		return delta_failed(v->delta);
	r = node_get(v, ino, &n);
	if (r < 0)
		return r;
	mutex_lock(&n->lock);
	r = prepare(n, flags, &inode);
	if (r == 0 && flags & VFS_WRITE_APPEND)
		offset = cache_size(n->mapping);
	if (r == 0 && (offset > PINFS_DELTA_FILE_MAX || len > PINFS_DELTA_FILE_MAX - offset)) {
		len = offset < PINFS_DELTA_FILE_MAX ? (size_t)(PINFS_DELTA_FILE_MAX - offset) : 0;
		r = len ? 0 : -EFBIG;
	}
	if (r == 0)
		r = write_locked(n, offset, buf, len, &done);
	if (done && !(flags & VFS_WRITE_CACHED))
		node_touch(n);
	/* Of a writeback the kernel doesn't look at how much was written: all of it, or it would never hear of the rest. */
	if (r < 0 && flags & VFS_WRITE_PAGE)
		done = 0;
	mutex_unlock(&n->lock);
	if (done && flags & (VFS_WRITE_SYNC | VFS_WRITE_DSYNC)) {
		int e = node_sync(n, NULL);

		if (e == 0)
			e = delta_flush(v->delta);
		if (e < 0) {
			r = e;
			done = 0;
		}
	}
	node_put(n);
	return done ? (ssize_t)done : r;
}

/* Is there content in the delta under the page in which the file is to end? */
static int tail_has_extent(struct vfs *v, uint64_t ino, uint64_t size, bool *ret)
{
	struct delta_extent e;
	int r;

	vfs_lock(v);
	r = delta_extent_get(v->delta, ino, size / PINFS_PAGE_SIZE, &e);
	vfs_unlock(v);
	*ret = r == 0 && e.kind != DELTA_NOTHING && e.kind != PINFS_DELTA_HOLE && e.kind != PINFS_DELTA_UNWRITTEN;
	return r;
}

/* The page in which the file is to end, as it will be. */
static int tail_load(struct vfs_node *n, uint64_t size)
{
	size_t rest = size % PINFS_PAGE_SIZE;
	struct cache_ref ref;
	uint8_t *tail;
	int r;

	tail = calloc(1, PINFS_PAGE_SIZE);
	if (!tail)
		return -ENOMEM;
	r = cache_reserve(n->mapping, NODE_RESERVE);
	if (r == 0) {
		r = cache_get(n->mapping, size / PINFS_PAGE_SIZE, &ref);
		if (r == 0) {
			memcpy(tail, ref.data, rest);
			cache_put(n->mapping, &ref, CACHE_KEEP);
		}
		cache_unreserve(n->mapping, NODE_RESERVE);
	}
	if (r == 0)
		r = delta_reserve_last(n->vfs->delta);
	if (r < 0) {
		free(tail);
		return r;
	}
	n->tail = tail;
	n->tail_reserved = 1;
	return 0;
}

/* The same size on the disk as in the cache, without anything in between: the file grows by a hole. */
static int grow_on_disk(struct vfs_node *n, uint64_t size)
{
	struct vfs *v = n->vfs;
	struct vfs_inode inode;
	int r = delta_begin(v->delta, 0);

	if (r < 0)
		return r;
	r = inode_load(v, n->ino, &inode);
	if (r == 0) {
		inode.i.size = MAX(inode.i.size, size);
		r = inode_store(v, &inode);
	}
	if (r < 0) {
		delta_abort(v->delta);
		return r;
	}
	return delta_commit(v->delta);
}

int node_truncate(struct vfs_node *n, uint64_t size, bool times)
{
	struct vfs *v = n->vfs;
	struct vfs_inode inode;
	bool tail = false;
	uint64_t old;
	int r = prepare(n, 0, &inode);

	if (r < 0)
		return r;
	old = cache_size(n->mapping);
	if (times)
		node_touch(n);
	/*
	 * What was written behind the end on the disk, or at the old end, is there before the end moves on, or a crash would show zeroes in
	 * its place.
	 */
	if (size > old || size > inode.i.size) {
		uint64_t first = MIN(inode.i.size, old) / PINFS_PAGE_SIZE;

		r = cache_sync(n->mapping, first, MIN(size, old) / PINFS_PAGE_SIZE + 1 - first, NULL);
		if (r < 0)
			return r;
	}
	if (size > old) {
		r = grow_on_disk(n, size);
		if (r == 0)
			cache_truncate(n->mapping, size);
		return r;
	}
	if (size % PINFS_PAGE_SIZE && size < old) {
		r = tail_has_extent(v, n->ino, size, &tail);
		if (r == 0 && tail)
			r = tail_load(n, size);
		if (r < 0)
			return r;
	}
	n->cut_error = 0;
	if (size < old || inode.i.size > size)
		cache_truncate(n->mapping, size);
	/* A size that stays calls nobody; what a crash has left behind the end has to go all the same. */
	if (size == old)
		r = cut_size(n, size);
	if (n->tail_reserved)
		delta_unreserve(v->delta, n->tail_reserved);
	n->tail_reserved = 0;
	free(n->tail);
	n->tail = NULL;
	return r < 0 ? r : n->cut_error;
}

/* ---- fallocate ---- */

/* Bytes become zero, in pages that are there or not. */
static int write_zeroes(struct vfs_node *n, uint64_t from, uint64_t to)
{
	static const uint8_t zeroes[PINFS_PAGE_SIZE];
	size_t done;

	/* Behind the end there is nothing that could be anything else. */
	to = MIN(to, cache_size(n->mapping));
	return from < to ? write_locked(n, from, zeroes, (size_t)(to - from), &done) : 0;
}

/* [from, to) of the file reads as zeroes: whole pages leave, parts are written. */
static int zero_range(struct vfs_node *n, uint64_t from, uint64_t to)
{
	uint64_t first = DIV_ROUND_UP(from, PINFS_PAGE_SIZE), last = to / PINFS_PAGE_SIZE;
	int r;

	if (first > last || (first == last && from / PINFS_PAGE_SIZE == last))
		return write_zeroes(n, from, to);
	r = write_zeroes(n, from, first * PINFS_PAGE_SIZE);
	if (r == 0)
		r = write_zeroes(n, last * PINFS_PAGE_SIZE, to);
	/* A last page that ends with the file goes whole. */
	if (r == 0 && first < last) {
		n->cut_error = 0;
		cache_punch(n->mapping, first, last - first);
		r = n->cut_error;
	}
	return r;
}

/* Places for pages of which neither delta nor image has any. */
static int allocate_range(struct vfs_node *n, uint64_t first, uint64_t end)
{
	struct vfs *v = n->vfs;
	int r = 0;

	while (r == 0 && first < end) {
		struct vfs_inode inode;
		struct delta_extent e;
		uint64_t count, got = 0;
		bool empty;

		r = delta_begin(v->delta, 0);
		if (r < 0)
			return r;
		r = inode_load(v, n->ino, &inode);
		if (r == 0)
			r = delta_extent_get(v->delta, n->ino, first, &e);
		count = r < 0 ? 1 : MIN(e.pages, end - first);
		empty = r == 0 && (e.kind == PINFS_DELTA_HOLE ||
			(e.kind == DELTA_NOTHING && first >= DIV_ROUND_UP(inode.i.image_end, PINFS_PAGE_SIZE)));
		if (r == 0 && e.kind == DELTA_NOTHING && !empty)
			count = MIN(count, DIV_ROUND_UP(inode.i.image_end, PINFS_PAGE_SIZE) - first);
		if (empty) {
			r = delta_extent_allocate(v->delta, &inode.i, first, count, &got);
			count = got;
			if (r == 0)
				r = inode_store(v, &inode);
		}
		if (r < 0) {
			delta_abort(v->delta);
			break;
		}
		r = delta_commit(v->delta);
		first += count;
	}
	return r;
}

static int fallocate_locked(struct vfs_node *n, int mode, uint64_t offset, uint64_t len)
{
	uint64_t end = offset + len, size = cache_size(n->mapping);
	bool keep = mode & FALLOC_FL_KEEP_SIZE;
	int r = 0;

	if (mode & FALLOC_FL_PUNCH_HOLE)
		return zero_range(n, offset, MIN(end, align_up(size, PINFS_PAGE_SIZE)) > offset ? MIN(end, align_up(size, PINFS_PAGE_SIZE)) : offset);
	if (mode & FALLOC_FL_ZERO_RANGE && offset < size)
		r = zero_range(n, offset, MIN(end, align_up(size, PINFS_PAGE_SIZE)));
	if (r == 0)
		r = allocate_range(n, offset / PINFS_PAGE_SIZE, DIV_ROUND_UP(end, PINFS_PAGE_SIZE));
	if (r == 0 && !keep && end > size)
		r = node_truncate(n, end, false);
	return r;
}

int vfs_fallocate(struct vfs *v, uint64_t ino, int mode, uint64_t offset, uint64_t len)
{
	struct vfs_inode inode;
	struct vfs_node *n;
	int r;

	if (!vfs_writable(v))
		return -EROFS;
	if (mode & ~(FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE) ||
		(mode & FALLOC_FL_PUNCH_HOLE && mode != (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)))
		return -EOPNOTSUPP;
	if (!len)
		return -EINVAL;
	if (offset > PINFS_DELTA_FILE_MAX || len > PINFS_DELTA_FILE_MAX - offset)
		return -EFBIG;
	r = node_get(v, ino, &n);
	if (r < 0)
		return r;
	mutex_lock(&n->lock);
	r = prepare(n, 0, &inode);
	if (r == 0 && inode.i.flags & FS_APPEND_FL && mode & ~FALLOC_FL_KEEP_SIZE)
		r = -EPERM;
	if (r == 0)
		r = fallocate_locked(n, mode, offset, len);
	if (r == 0)
		node_touch(n);
	mutex_unlock(&n->lock);
	node_put(n);
	return r;
}

/* ---- holes ---- */

/* What lies at `at`, in one extent or none: hole or data, and up to where (at most `end`). Under the lock. */
static int seek_step(struct vfs *v, const struct vfs_inode *inode, uint64_t at, uint64_t end, bool *ret_hole, uint64_t *ret_end)
{
	struct delta_extent e = {.pages = UINT64_MAX - at / PINFS_PAGE_SIZE, .page = at / PINFS_PAGE_SIZE};
	struct image_inode other;
	uint64_t start = 0, next;
	int r = 0;

	if (v->delta && inode->in_delta)
		r = delta_extent_get(v->delta, inode->i.ino, at / PINFS_PAGE_SIZE, &e);
	if (r < 0)
		return r;
	if (e.pages < end / PINFS_PAGE_SIZE + 1)
		end = MIN(end, (e.page + e.pages) * PINFS_PAGE_SIZE);
	*ret_end = end;
	*ret_hole = e.kind == PINFS_DELTA_HOLE || e.kind == PINFS_DELTA_UNWRITTEN || e.kind == DELTA_NOTHING;
	if (e.kind == DELTA_NOTHING && inode->has_image && at < inode->i.image_end) {
		other = inode->image;
		end = MIN(end, inode->i.image_end);
		start = at;
	} else if (e.kind == PINFS_DELTA_IMAGE) {
		r = image_inode_get(v->image, e.image_ino, &other);
		start = e.start * PINFS_PAGE_SIZE + at % PINFS_PAGE_SIZE;
	} else {
		return 0;
	}
	if (r == 0)
		r = image_seek(v->image, &other, start, false, &next);
	if (r == -ENXIO) {
		*ret_hole = true;
		*ret_end = e.kind == PINFS_DELTA_IMAGE ? *ret_end : end;
		return 0;
	}
	if (r < 0)
		return r;
	*ret_hole = next > start;
	if (!*ret_hole)
		r = image_seek(v->image, &other, start, true, &next);
	*ret_end = MIN(end, at + (next - start));
	return r;
}

int vfs_seek(struct vfs *v, uint64_t ino, uint64_t offset, bool hole, uint64_t *ret)
{
	struct vfs_inode inode;
	struct vfs_node *n;
	uint64_t at = offset;
	int r = 0;

	/* What is dirty is data, once it has a place. */
	n = v->delta ? node_find(v, ino) : NULL;
	if (n) {
		if (n->mapping && cache_mapping_dirty(n->mapping))
			r = cache_sync(n->mapping, 0, UINT64_MAX, NULL);
		node_put(n);
		/* Better no answer than one that calls it a hole. */
		if (r < 0)
			return r;
	}
	vfs_lock(v);
	r = inode_load(v, ino, &inode);
	if (r == 0 && !S_ISREG(inode.i.mode))
		r = S_ISDIR(inode.i.mode) ? -EISDIR : -EINVAL;
	if (r == 0 && offset >= inode.size)
		r = -ENXIO;
	if (r == 0 && !inode.in_delta) {
		r = image_seek(v->image, &inode.image, offset, hole, &at);
	} else if (r == 0) {
		bool is_hole = !hole;

		while (r == 0 && at < inode.size) {
			uint64_t end;

			r = seek_step(v, &inode, at, inode.size, &is_hole, &end);
			if (r < 0 || is_hole == hole)
				break;
			at = end;
		}
		/* Behind the end is a hole, and no data. */
		if (r == 0 && is_hole != hole)
			r = hole ? 0 : -ENXIO;
		at = MIN(at, inode.size);
	}
	vfs_unlock(v);
	if (r == 0)
		*ret = at;
	return r;
}
