/* SPDX-License-Identifier: MIT */
#include "cli/merge.h"

#include <limits.h>
#include <sys/sysmacros.h>

#include "base/log.h"
#include "cli/cli.h"

/* A block that small files share stays as long as at least this share of it is still in use; else what is left is packed anew. */
#define LIVE_NUM 3u
#define LIVE_DEN 4u

#define WANTED UINT64_MAX

/* What becomes of a file's content. */
enum plan {
	PLAN_NONE,   /* there is none */
	PLAN_BLOCKS, /* its blocks stay */
	PLAN_SHARED, /* it lies in a block with others, that stays, or doesn't: then BYTES */
	PLAN_BYTES,  /* it is read and stored anew, but for whole blocks of the image that it still has */
};

struct file {
	struct inode *inode;
	enum plan plan;
	bool xip;
};

/* Where a small file lies. */
struct piece {
	uint32_t block, offset, length;
};

/* The blocks of a file that is executed in place: they stay together. */
struct run {
	uint32_t first, count;
	uint64_t size;
};

struct merge {
	struct merge_options o;
	struct tree *tree;
	struct delta *delta;
	struct pack *pack;
	uint64_t image_inodes, block_count;
	uint32_t block_size;
	uint64_t *blocks; /* of the image: 0: not needed, WANTED, or 1 + where it went (a seq) */
	struct file *files;
	size_t file_count, file_capacity;
	struct piece *pieces;
	size_t piece_count, piece_capacity;
	struct run *runs;
	size_t run_count, run_capacity;
	struct xattr_build build;
	struct merge_stats stats;
};

/* Says what can't be read, with its path in the tree. */
static int failed(const struct node *node, int r)
{
	char path[PATH_MAX], shown[PATH_MAX], *p = tree_path(node, path, sizeof(path));

	if (r == -EINTR || r == -EFBIG)
		return r;
	log_error("%s: can't be read: %s", name_escape(p, strlen(p), shown, sizeof(shown)), cli_strerror(r));
	return r;
}

/* ---- names and attributes ---- */

static int take_xattrs(struct merge *m, uint64_t ino, struct inode *inode)
{
	ssize_t len = vfs_listxattr(m->o.vfs, ino, NULL, 0);
	_cleanup_free_ char *list = NULL;
	_cleanup_free_ uint8_t *value = NULL;
	int r = 0;

	if (len <= 0)
		return (int)len;
	list = malloc((size_t)len);
	value = malloc(PINFS_XATTR_VALUE_MAX);
	if (!list || !value)
		return -ENOMEM;
	len = vfs_listxattr(m->o.vfs, ino, list, (size_t)len);
	for (const char *name = list; r == 0 && name < list + len; name += strlen(name) + 1) {
		ssize_t n = vfs_getxattr(m->o.vfs, ino, name, value, PINFS_XATTR_VALUE_MAX);

		r = n < 0 ? (int)n : xattr_build_add(&m->build, name, value, (size_t)n);
	}
	if (len < 0)
		r = (int)len;
	if (r == 0)
		r = tree_xattr_set(m->tree, inode, &m->build);
	xattr_build_clear(&m->build);
	return r;
}

static int take_target(struct merge *m, uint64_t ino, struct inode *inode)
{
	char target[PINFS_SYMLINK_MAX + 1];
	int r = vfs_readlink(m->o.vfs, ino, target);

	if (r < 0)
		return r;
	inode->size = strlen(target);
	inode->link.target = tree_alloc(m->tree, inode->size + 1);
	if (!inode->link.target)
		return -ENOMEM;
	memcpy(inode->link.target, target, inode->size);
	return 0;
}

static int take_inode(struct merge *m, const struct stat *st, struct inode **ret)
{
	struct inode *inode;
	int r = tree_inode_new(m->tree, st, &inode);

	if (r < 0)
		return r;
	r = take_xattrs(m, st->st_ino, inode);
	if (r == 0 && S_ISLNK(st->st_mode))
		r = take_target(m, st->st_ino, inode);
	if (S_ISCHR(st->st_mode) || S_ISBLK(st->st_mode)) {
		inode->device.major = major(st->st_rdev);
		inode->device.minor = minor(st->st_rdev);
	}
	if (S_ISREG(st->st_mode))
		inode->file.merged_ino = st->st_ino;
	*ret = inode;
	return r;
}

struct waiting {
	struct node *node;
	uint64_t ino;
};

struct stack {
	struct waiting *items;
	size_t count, capacity;
};

static int take_entry(struct merge *m, struct node *dir, const struct vfs_dirent *e, const struct stat *st, struct stack *stack)
{
	struct inode *inode = !S_ISDIR(st->st_mode) && st->st_nlink > 1 ? tree_link_find(m->tree, 0, st->st_ino) : NULL;
	bool known = inode;
	struct node *node;
	int r = known ? 0 : take_inode(m, st, &inode);

	if (r == 0)
		r = tree_node_new(m->tree, dir, e->name, strlen(e->name), inode, &node);
	if (r < 0 || known)
		return r;
	if (S_ISDIR(st->st_mode)) {
		r = array_reserve(&stack->items, &stack->capacity, stack->count + 1, sizeof(*stack->items));
		if (r == 0)
			stack->items[stack->count++] = (struct waiting){node, st->st_ino};
	} else if (st->st_nlink > 1) {
		r = tree_link_add(m->tree, 0, st->st_ino, inode);
	}
	if (r == 0 && S_ISREG(st->st_mode)) {
		m->tree->file_count++;
		m->tree->file_bytes += inode->size;
	}
	return r;
}

static int take_directory(struct merge *m, const struct waiting *w, struct stack *stack)
{
	struct vfs_dirent e;
	struct vfs_dir dir;
	struct stat st;
	int r = vfs_dir_begin(m->o.vfs, w->ino, 2, &dir);

	if (r < 0)
		return failed(w->node, r);
	while ((r = vfs_dir_next(&dir, &e)) > 0 && !mkfs_interrupted) {
		r = vfs_dir_getattr(&dir, &e, &st);
		if (r == 0)
			r = take_entry(m, w->node, &e, &st, stack);
		if (r < 0)
			break;
	}
	vfs_dir_end(&dir);
	if (r >= 0 && mkfs_interrupted)
		r = -EINTR;
	if (r < 0)
		return failed(w->node, r);
	tree_dir_sort(w->node->inode);
	return 0;
}

static int take_tree(struct merge *m)
{
	struct stack stack = {0};
	struct inode *inode;
	struct stat st;
	int r = vfs_getattr(m->o.vfs, VFS_ROOT_INO, &st);

	if (r == 0)
		r = take_inode(m, &st, &inode);
	if (r == 0)
		r = tree_node_new(m->tree, NULL, "", 0, inode, &m->tree->root);
	if (r == 0)
		r = array_reserve(&stack.items, &stack.capacity, 1, sizeof(*stack.items));
	if (r < 0) {
		log_error("the root directory can't be read: %s", cli_strerror(r));
		return r;
	}
	stack.items[stack.count++] = (struct waiting){m->tree->root, VFS_ROOT_INO};
	while (r == 0 && stack.count) {
		struct waiting w = stack.items[--stack.count];

		r = take_directory(m, &w, &stack);
	}
	free(stack.items);
	return r;
}

/* ---- content: what stays ---- */

static int want_blocks(struct merge *m, uint64_t first, uint64_t count)
{
	if (first > m->block_count || count > m->block_count - first)
		return -EUCLEAN;
	for (uint64_t b = first; b < first + count; b++)
		m->blocks[b] = WANTED;
	return 0;
}

static int want_extents(struct merge *m, const struct image_inode *i)
{
	struct image_extent e;
	int r = 0;

	for (uint32_t k = 0; r == 0 && k < i->arg0; k++) {
		r = image_extent_get(m->o.image, i->pos + k, &e);
		if (r == 0)
			r = want_blocks(m, e.block, e.count);
	}
	return r;
}

static int add_piece(struct merge *m, const struct image_inode *i)
{
	int r = array_reserve(&m->pieces, &m->piece_capacity, m->piece_count + 1, sizeof(*m->pieces));

	if (r == 0 && (i->pos >= m->block_count || i->size > m->block_size))
		r = -EUCLEAN;
	if (r == 0)
		m->pieces[m->piece_count++] = (struct piece){(uint32_t)i->pos, i->arg0, (uint32_t)i->size};
	return r;
}

static int add_run(struct merge *m, const struct image_inode *i)
{
	int r = array_reserve(&m->runs, &m->run_capacity, m->run_count + 1, sizeof(*m->runs));

	if (r == 0)
		m->runs[m->run_count++] = (struct run){(uint32_t)i->pos, (uint32_t)DIV_ROUND_UP(i->size, m->block_size), i->size};
	return r;
}

/* A file whose content is the image's alone. */
static int plan_unchanged(struct merge *m, const struct image_inode *i, struct file *f)
{
	switch (i->layout) {
	case PINFS_LAYOUT_RUN:
		f->plan = PLAN_BLOCKS;
		f->xip = i->xip;
		return i->xip ? add_run(m, i) : want_blocks(m, i->pos, DIV_ROUND_UP(i->size, m->block_size));
	case PINFS_LAYOUT_EXTENTS:
		f->plan = PLAN_BLOCKS;
		return want_extents(m, i);
	case PINFS_LAYOUT_PACKED:
		f->plan = PLAN_SHARED;
		return add_piece(m, i);
	default:
		f->plan = PLAN_NONE;
		return 0;
	}
}

/*
 * The image's block that is bytes [offset, offset + len) of a file with a delta, a whole block or its last one. -ENOENT: they are not one. *image is the file's
 * inode there, or NULL. Under the delta's lock.
 */
static int find_block(struct merge *m, uint64_t ino, const struct delta_inode *own, const struct image_inode *image, uint64_t offset, uint32_t len,
	uint32_t *ret)
{
	struct image_inode other;
	struct image_block block;
	struct delta_extent e;
	struct image_map map;
	uint64_t at = offset;
	int r = delta_extent_get(m->delta, ino, offset / PINFS_PAGE_SIZE, &e);

	if (r < 0)
		return r;
	if (e.pages < DIV_ROUND_UP(len, PINFS_PAGE_SIZE))
		return -ENOENT;
	if (e.kind == PINFS_DELTA_IMAGE) {
		r = image_inode_get(m->o.image, e.image_ino, &other);
		if (r < 0)
			return r;
		image = &other;
		at = e.start * PINFS_PAGE_SIZE;
	} else if (e.kind != DELTA_NOTHING || !image || offset + len > own->image_end) {
		return -ENOENT;
	}
	if (at % m->block_size || !S_ISREG(image->mode) || at >= image->size)
		return -ENOENT;
	r = image_map(m->o.image, image, at, &map);
	if (r < 0)
		return r;
	if (map.hole || map.block_offset || image->layout == PINFS_LAYOUT_PACKED)
		return -ENOENT;
	r = image_block_get(m->o.image, map.block, &block);
	if (r < 0)
		return r;
	*ret = map.block;
	return block.raw == len ? 0 : -ENOENT;
}

/* A file with other content: which of the image's blocks it still has. */
static int plan_changed(struct merge *m, const struct inode *inode, const struct delta_inode *own, const struct image_inode *image)
{
	uint64_t ino = inode->file.merged_ino, next;

	for (uint64_t offset = 0; offset < inode->size && !mkfs_interrupted; offset = next) {
		uint32_t block;
		int r;

		delta_lock(m->delta);
		r = find_block(m, ino, own, image, offset, (uint32_t)MIN((uint64_t)m->block_size, inode->size - offset), &block);
		delta_unlock(m->delta);
		next = offset + m->block_size;
		if (r == 0) {
			m->blocks[block] = WANTED;
			continue;
		}
		if (r != -ENOENT)
			return r;
		/* Step by step a large hole would never end. */
		r = vfs_seek(m->o.vfs, ino, next, false, &next);
		if (r < 0)
			return r == -ENXIO ? 0 : r;
		next -= next % m->block_size;
	}
	return 0;
}

static int read_bytes(struct merge *m, uint64_t ino, void *buf, size_t len, uint64_t offset, size_t *ret)
{
	_cleanup_free_ struct vfs_read *read = malloc(sizeof(*read));
	size_t done = 0;
	int r = read ? 0 : -ENOMEM;

	while (r == 0 && done < len) {
		size_t got;

		r = vfs_read_begin(m->o.vfs, ino, offset + done, MIN(len - done, (size_t)VFS_READ_MAX), read);
		if (r < 0)
			break;
		got = read->bytes;
		for (unsigned i = 0; i < read->count; i++) {
			memcpy((uint8_t *)buf + done, read->iov[i].iov_base, read->iov[i].iov_len);
			done += read->iov[i].iov_len;
		}
		vfs_read_end(m->o.vfs, read, true);
		if (!got)
			break;
	}
	*ret = done;
	return r;
}

/* As for mkfs's other sources; a changed file that was executed in place still is, if no policy was given. */
static int decide_xip(struct merge *m, const struct inode *inode, const struct image_inode *image, bool *ret)
{
	const struct mkfs_options *o = m->tree->options;
	uint64_t hole = 0;
	uint8_t head[64];
	size_t n;
	int r = 0;

	*ret = image && image->xip && !m->o.xip_given ? true : xip_wanted(o, inode);
	if (!*ret && o->xip == XIP_AUTO && inode->size >= PINFS_PAGE_SIZE) {
		r = read_bytes(m, inode->file.merged_ino, head, sizeof(head), 0, &n);
		*ret = r == 0 && elf_is_loadable(head, n);
	}
	/* A file with real holes could be far larger than the disk: it is not stored whole. */
	if (r == 0 && *ret)
		r = vfs_seek(m->o.vfs, inode->file.merged_ino, 0, true, &hole);
	if (r == 0 && *ret)
		*ret = hole >= inode->size;
	return r;
}

/* What is the image's and what isn't; *ret_image: its inode there, *ret_known: there is one. */
static int compare(struct merge *m, uint64_t ino, struct delta_inode *ret_own, struct image_inode *ret_image, bool *ret_known, bool *ret_changed)
{
	int r = 0;

	*ret_known = ino <= m->image_inodes;
	*ret_changed = true;
	if (*ret_known)
		r = image_inode_get(m->o.image, ino, ret_image);
	if (r < 0)
		return r;
	delta_lock(m->delta);
	r = delta_inode_get(m->delta, ino, ret_own);
	if (r == 0)
		r = cli_delta_has_content(m->delta, ret_own, *ret_known ? ret_image : NULL, ret_changed);
	else if (r == -ENOENT && *ret_known)
		*ret_changed = (r = 0);
	delta_unlock(m->delta);
	return r;
}

static int plan_file(struct inode *inode, void *context)
{
	struct merge *m = context;
	struct image_inode image;
	struct delta_inode own;
	struct file f = {.inode = inode, .plan = PLAN_NONE};
	bool known, changed;
	int r = 0;

	if (mkfs_interrupted)
		return -EINTR;
	if (inode->size) {
		r = compare(m, inode->file.merged_ino, &own, &image, &known, &changed);
		if (r == 0 && !changed && !m->o.recompress) {
			r = plan_unchanged(m, &image, &f);
		} else if (r == 0) {
			f.plan = PLAN_BYTES;
			r = decide_xip(m, inode, known ? &image : NULL, &f.xip);
			if (r == 0 && changed && !f.xip && !m->o.recompress && inode->size >= m->block_size)
				r = plan_changed(m, inode, &own, known ? &image : NULL);
		}
		m->stats.files++;
	}
	if (r < 0)
		return failed(inode->name, r);
	r = array_reserve(&m->files, &m->file_capacity, m->file_count + 1, sizeof(*m->files));
	if (r == 0)
		m->files[m->file_count++] = f;
	return r;
}

static int compare_pieces(const void *pa, const void *pb)
{
	const struct piece *a = pa, *b = pb;

	return a->block != b->block ? (a->block < b->block ? -1 : 1) : a->offset != b->offset ? (a->offset < b->offset ? -1 : 1) : 0;
}

/* Which of the blocks that small files share stay: those that are in use, or nearly. */
static int plan_shared(struct merge *m)
{
	if (m->piece_count)
		qsort(m->pieces, m->piece_count, sizeof(*m->pieces), compare_pieces);
	for (size_t i = 0, next; i < m->piece_count; i = next) {
		uint64_t live = 0, end = 0;
		struct image_block b;
		int r = image_block_get(m->o.image, m->pieces[i].block, &b);

		if (r < 0) {
			log_error("%s: a block that small files share can't be found: %s", m->o.image_name, cli_strerror(r));
			return r;
		}
		for (next = i; next < m->piece_count && m->pieces[next].block == m->pieces[i].block; next++) {
			uint64_t from = MAX(end, (uint64_t)m->pieces[next].offset), to = (uint64_t)m->pieces[next].offset + m->pieces[next].length;

			if (to > from)
				live += to - from;
			end = MAX(end, to);
		}
		if (m->o.scrub ? live == b.raw : live * LIVE_DEN >= (uint64_t)b.raw * LIVE_NUM)
			m->blocks[m->pieces[i].block] = WANTED;
	}
	return 0;
}

static int compare_runs(const void *pa, const void *pb)
{
	const struct run *a = pa, *b = pb;

	return a->first != b->first ? (a->first < b->first ? -1 : 1) : a->count != b->count ? (a->count < b->count ? -1 : 1) : 0;
}

/* Files that are executed in place lie one after the other. (No image of mkfs.pinfs has others; such ones are stored anew.) */
static int plan_runs(struct merge *m)
{
	size_t kept = 0;
	int r = 0;

	if (m->run_count)
		qsort(m->runs, m->run_count, sizeof(*m->runs), compare_runs);
	for (size_t i = 0; r == 0 && i < m->run_count; i++) {
		if (kept && m->runs[i].first < m->runs[kept - 1].first + m->runs[kept - 1].count)
			continue;
		m->runs[kept++] = m->runs[i];
		r = want_blocks(m, m->runs[i].first, m->runs[i].count);
	}
	m->run_count = kept;
	return r;
}

static bool run_kept(const struct merge *m, const struct image_inode *i)
{
	const struct run key = {(uint32_t)i->pos, (uint32_t)DIV_ROUND_UP(i->size, m->block_size), 0};

	return m->run_count && bsearch(&key, m->runs, m->run_count, sizeof(*m->runs), compare_runs);
}

/* How much there is to do, now that it is known what stays. */
static int sum_up(struct merge *m)
{
	struct image_block b;
	int r = 0;

	for (uint64_t k = 0; r == 0 && k < m->block_count; k++) {
		if (m->blocks[k])
			r = image_block_get(m->o.image, k, &b);
		if (r == 0 && m->blocks[k])
			m->stats.total += b.stored;
	}
	for (size_t i = 0; i < m->file_count; i++)
		if (m->files[i].plan == PLAN_BYTES)
			m->stats.total += m->files[i].inode->size;
	return r;
}

int merge_scan(struct merge *m)
{
	int r = take_tree(m);

	if (r == 0)
		r = tree_for_each_file(m->tree, plan_file, m);
	if (r == 0)
		r = plan_shared(m);
	if (r == 0)
		r = plan_runs(m);
	/* Where a plan depended on other files. */
	for (size_t i = 0; r == 0 && i < m->file_count; i++) {
		struct file *f = &m->files[i];
		struct image_inode image;

		if (f->plan != PLAN_SHARED && !(f->plan == PLAN_BLOCKS && f->xip))
			continue;
		r = image_inode_get(m->o.image, f->inode->file.merged_ino, &image);
		if (r < 0)
			return failed(f->inode->name, r);
		if (f->plan == PLAN_SHARED ? !m->blocks[image.pos] : !run_kept(m, &image))
			f->plan = PLAN_BYTES;
	}
	return r < 0 ? r : sum_up(m);
}

/* ---- content: storing ---- */

static int take_blocks(struct merge *m)
{
	size_t run = 0;
	int r = 0;

	for (uint64_t b = 0; r == 0 && b < m->block_count; b++) {
		struct pack_stored s = {.image = m->o.image, .block = b};
		uint64_t seq;

		if (!m->blocks[b])
			continue;
		if (mkfs_interrupted)
			return -EINTR;
		while (run < m->run_count && m->runs[run].first + m->runs[run].count <= b)
			run++;
		if (run < m->run_count && m->runs[run].first <= b) {
			const struct run *x = &m->runs[run];

			if (b == x->first)
				s.align = x->size >= PINFS_HUGE_ALIGN ? PINFS_HUGE_ALIGN : PINFS_PAGE_SIZE;
			s.align_after = b == x->first + x->count - 1;
		}
		r = pack_take(m->pack, &s, &seq);
		if (r == 0)
			m->blocks[b] = seq + 1;
	}
	return r;
}

/* All of the file's blocks are in the new image. */
static int store_taken(struct merge *m, struct inode *inode)
{
	struct image_inode i;
	int r = image_inode_get(m->o.image, inode->file.merged_ino, &i);

	if (r < 0)
		return r;
	inode->file.alloc = i.alloc;
	inode->xip = i.xip;
	inode->content = CONTENT_BLOCKS;
	if (i.layout == PINFS_LAYOUT_PACKED) {
		inode->content = CONTENT_STORED;
		inode->file.pack = m->blocks[i.pos] - 1;
		inode->file.offset = i.arg0;
		return 0;
	}
	if (i.layout == PINFS_LAYOUT_RUN) {
		for (uint64_t k = 0; r == 0 && k < DIV_ROUND_UP(i.size, m->block_size); k++)
			r = pack_extent_add(inode, k, m->blocks[i.pos + k] - 1);
		return r;
	}
	for (uint32_t k = 0; r == 0 && k < i.arg0; k++) {
		struct image_extent e;

		r = image_extent_get(m->o.image, i.pos + k, &e);
		for (uint32_t n = 0; r == 0 && n < e.count; n++)
			r = pack_extent_add(inode, e.lblk + n, m->blocks[e.block + n] - 1);
	}
	return r;
}

/* One file's content, for pack_file(). */
struct content {
	struct merge *merge;
	uint64_t ino;
	struct delta_inode own;
	struct image_inode image;
	bool known;
	int error;
};

static ssize_t content_read(void *context, void *buf, size_t len, uint64_t offset)
{
	struct content *c = context;
	size_t n;
	int r = c->error < 0 ? c->error : read_bytes(c->merge, c->ino, buf, len, offset, &n);

	return r < 0 ? r : (ssize_t)n;
}

static uint64_t content_next_data(void *context, uint64_t offset)
{
	struct content *c = context;
	uint64_t at;
	int r = vfs_seek(c->merge->o.vfs, c->ino, offset, false, &at);

	if (r == 0)
		return at;
	if (r == -ENXIO)
		return UINT64_MAX;
	c->error = r;
	return offset;
}

static bool content_stored(void *context, uint64_t offset, uint32_t len, uint64_t *ret_seq)
{
	struct content *c = context;
	struct merge *m = c->merge;
	uint32_t block;
	int r;

	delta_lock(m->delta);
	r = find_block(m, c->ino, &c->own, c->known ? &c->image : NULL, offset, len, &block);
	delta_unlock(m->delta);
	if (r < 0 && r != -ENOENT)
		c->error = r;
	if (r < 0 || !m->blocks[block] || m->blocks[block] == WANTED)
		return false;
	*ret_seq = m->blocks[block] - 1;
	return true;
}

static int store_bytes(struct merge *m, const struct file *f)
{
	struct content c = {.merge = m, .ino = f->inode->file.merged_ino};
	struct content_source source = {.read = content_read, .next_data = content_next_data, .context = &c};
	uint64_t size = f->inode->size;
	bool changed;
	int r = compare(m, c.ino, &c.own, &c.image, &c.known, &changed);

	if (r < 0)
		return r;
	if (changed && !m->o.recompress)
		source.stored = content_stored;
	r = pack_file(m->pack, f->inode, &source, f->xip);
	if (r == 0)
		r = c.error;
	return r == 0 && f->inode->size != size ? -EUCLEAN : r;
}

int merge_store(struct merge *m, struct pack *pack)
{
	int r;

	m->pack = pack;
	r = take_blocks(m);
	if (r < 0)
		return r;
	for (size_t i = 0; i < m->file_count; i++) {
		struct file *f = &m->files[i];

		if (mkfs_interrupted)
			return -EINTR;
		if (f->plan == PLAN_NONE)
			continue;
		r = f->plan == PLAN_BYTES ? store_bytes(m, f) : store_taken(m, f->inode);
		/* What a worker or the writer has met is no fault of this file. */
		if (r < 0)
			return pack_error(pack) ? r : failed(f->inode->name, r);
		m->stats.files_taken += f->plan != PLAN_BYTES;
	}
	return 0;
}

static bool uses_block(struct merge *m, const struct inode *inode, uint64_t block)
{
	struct image_inode i;
	struct image_map map;

	if (inode->file.merged_ino > m->image_inodes || image_inode_get(m->o.image, inode->file.merged_ino, &i) < 0)
		return false;
	for (uint64_t at = 0; at < i.size; at = map.offset + map.length) {
		if (image_map(m->o.image, &i, at, &map) < 0)
			return false;
		if (!map.hole && map.block == block)
			return true;
	}
	return false;
}

void merge_explain(struct merge *m, const struct pack *pack)
{
	struct image_read read = {.data = malloc(m->block_size)};
	uint64_t block, more = 0;
	const struct node *first = NULL;

	if (!pack_bad_block(pack, &block)) {
		free(read.data);
		return;
	}
	/* The image itself says where, and what is wrong. */
	if (read.data)
		image_read_blocks(m->o.image, block, 1, &read);
	free(read.data);
	for (size_t i = 0; i < m->file_count; i++) {
		const struct file *f = &m->files[i];

		/* Small ones with other content don't need it. */
		if (f->plan == PLAN_NONE || (f->plan == PLAN_BYTES && f->inode->size < m->block_size) || !uses_block(m, f->inode, block))
			continue;
		more += first != NULL;
		if (!first)
			first = f->inode->name;
	}
	if (first)
		failed(first, -EUCLEAN);
	if (more)
		log_error("%ju more file%s in the same block", (uintmax_t)more, more == 1 ? " lies" : "s lie");
}

/* ---- life ---- */

int merge_new(const struct merge_options *o, struct tree *tree, struct merge **ret)
{
	const struct image_info *info = image_get_info(o->image);
	struct merge *m = calloc(1, sizeof(*m));

	if (m) {
		m->o = *o;
		m->tree = tree;
		m->delta = vfs_delta(o->vfs);
		m->image_inodes = info->inode_count;
		m->block_count = info->block_count;
		m->block_size = info->block_size;
		m->o.recompress |= tree->options->block_size != info->block_size;
		m->blocks = calloc(MAX(info->block_count, (uint64_t)1), sizeof(*m->blocks));
	}
	if (!m || !m->blocks) {
		log_error("out of memory");
		merge_free(m);
		return -ENOMEM;
	}
	*ret = m;
	return 0;
}

void merge_free(struct merge *m)
{
	if (!m)
		return;
	xattr_build_clear(&m->build);
	free(m->blocks);
	free(m->files);
	free(m->pieces);
	free(m->runs);
	free(m);
}

void merge_get_stats(const struct merge *m, struct merge_stats *ret)
{
	*ret = m->stats;
}
