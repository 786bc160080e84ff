/* SPDX-License-Identifier: MIT */
/*
 * fsck, every inode by itself: its fields, and that what it refers to is there.
 *
 * A hostile image may have millions of files that share all its blocks and extents. So no file is followed block by
 * block: what matters of a block or an extent is one bit in a bitset, and a file asks for a range of them.
 */
#include "mkfs/fsck_internal.h"

#include <dirent.h>

#define INODE_STEP 1024u
#define EXTENT_STEP (16 * EXTENT_GROUP)
#define XATTR_STEP 65536u
#define ACL_PREFIX "system.posix_acl_"

struct inode_tally {
	struct fsck_report n; /* its figures only */
	uint64_t unknown, dir_bytes;
};

#define inode_problem(f, i, fmt, ...) \
	fsck_problem(f, fsck_inode_where(f, (i)->ino), "inode %u: " fmt, (i)->ino, ##__VA_ARGS__)

/* ---- extents ---- */

static void extent_note(struct fsck *f, uint64_t no, const struct image_extent *before, const struct image_extent *e)
{
	if (before->count && e->lblk >= before->lblk + before->count)
		bitset_set(&f->extent_follows, no);
	if (bitset_all(&f->full, e->block, (uint64_t)e->block + e->count))
		bitset_set(&f->extent_whole, no);
	if (bitset_all(&f->readable, e->block, (uint64_t)e->block + e->count))
		bitset_set(&f->extent_readable, no);
	/* Each group is one sweep's alone. */
	f->extent_sums[no / EXTENT_GROUP] += e->count;
}

/* 1: *ret is extent `no`; 0: it can't be read, which is known. */
static int extent_get(struct fsck *f, uint64_t no, struct image_extent *ret)
{
	uint64_t pos = no * sizeof(struct pinfs_extent);
	int r;

	if (!fsck_section_readable(f, PINFS_SECTION_EXTENTS, pos, sizeof(struct pinfs_extent)))
		return 0;
	r = image_extent_get(f->image, no, ret);
	return r < 0 ? r : 1;
}

static int extent_sweep(struct fsck *f, uint64_t from, uint64_t to, void *scratch)
{
	struct image_extent before = {0}, e;

	if (from && extent_get(f, from - 1, &before) <= 0)
		before.count = 0;
	fsck_forget_caught();
	for (uint64_t no = from; no < to; no++) {
		int r = extent_get(f, no, &e);

		if (r > 0)
			extent_note(f, no, &before, &e);
		else if (r < 0 && fsck_problem_caught(f, r, 0, NULL) < 0)
			return -ENOMEM;
		before = r > 0 ? e : (struct image_extent){0};
	}
	return 0;
}

static int check_extents(struct fsck *f, uint64_t extents)
{
	uint64_t sum = 0;
	int r = fsck_sweep(f, extents, EXTENT_STEP, 0, extent_sweep);

	for (uint64_t g = 0; r == 0 && g <= extents / EXTENT_GROUP; g++) {
		uint64_t group = f->extent_sums[g];

		f->extent_sums[g] = sum;
		sum += group;
	}
	return r;
}

/* Blocks in all extents before this one. */
static int extent_sum(struct fsck *f, uint64_t no, uint64_t *ret)
{
	uint64_t sum = f->extent_sums[no / EXTENT_GROUP];

	for (uint64_t k = no / EXTENT_GROUP * EXTENT_GROUP; k < no; k++) {
		struct image_extent e;
		int r = extent_get(f, k, &e);

		if (r == -ENOMEM)
			return r;
		fsck_forget_caught();
		sum += r > 0 ? e.count : 0;
	}
	*ret = sum;
	return 0;
}

/* Extents that some file has used: now their blocks are. */
static int extent_used_sweep(struct fsck *f, uint64_t from, uint64_t to, void *scratch)
{
	for (uint64_t no = from; (no = bitset_next_set(&f->extent_used, no, to)) < to; no++) {
		struct image_extent e;
		int r = extent_get(f, no, &e);

		if (r == -ENOMEM)
			return r;
		fsck_forget_caught();
		if (r > 0)
			bitset_fill(&f->used, e.block, (uint64_t)e.block + e.count);
	}
	return 0;
}

/* ---- regular files; 1: it needs something that can't be read, 0, or -ENOMEM ---- */

static int block_raw(struct fsck *f, uint64_t block, uint32_t *ret)
{
	struct image_block b = {.raw = f->info->block_size};
	int r = bitset_test(&f->full, block) ? 0 : image_block_get(f->image, block, &b);

	fsck_forget_caught();
	if (r < 0)
		return r == -ENOMEM ? r : 1;
	*ret = b.raw;
	return 0;
}

static uint64_t file_blocks(const struct fsck *f, const struct image_inode *i)
{
	return i->size / f->info->block_size + !!(i->size % f->info->block_size);
}

/* Bytes of the file in its last block. */
static uint32_t file_rest(const struct fsck *f, const struct image_inode *i)
{
	return (uint32_t)((i->size - 1) % f->info->block_size) + 1;
}

/* The page in which an XIP file ends is mapped as a whole: what follows the end must read as zeroes. */
static int check_xip_tail(struct fsck *f, const struct image_inode *i, uint64_t start)
{
	uint64_t end = start + i->size, page_end = align_up(f->info->offset + end, PINFS_PAGE_SIZE) - f->info->offset;
	uint8_t buf[PINFS_PAGE_SIZE];
	int r;

	if (end == page_end)
		return 0;
	r = image_read_raw(f->image, end, (size_t)(page_end - end), buf);
	if (r < 0)
		return fsck_problem_caught(f, r, end, "inode %u: the page after its end", i->ino);
	if (!fsck_all_zero(buf, (size_t)(page_end - end)))
		fsck_problem(f, end, "inode %u: marked for execution in place, but its last page shows other bytes "
			"after its end", i->ino);
	return 0;
}

static int check_xip(struct fsck *f, const struct image_inode *i, uint64_t blocks)
{
	uint64_t align = i->size >= PINFS_HUGE_ALIGN ? PINFS_HUGE_ALIGN : PINFS_PAGE_SIZE, break_at;
	struct image_block b;
	int r = image_block_get(f->image, i->pos, &b);

	if (r < 0)
		return fsck_problem_caught(f, r, 0, "inode %u", i->ino);
	break_at = bitset_next_clear(&f->chained, i->pos + 1, i->pos + blocks);
	if (b.codec != PINFS_CODEC_RAW || break_at < i->pos + blocks) {
		inode_problem(f, i, "marked for execution in place, but block %ju is compressed or stored elsewhere",
			(uintmax_t)(b.codec != PINFS_CODEC_RAW ? i->pos : break_at));
		return 0;
	}
	if ((f->info->offset + b.offset) % align) {
		inode_problem(f, i, "marked for execution in place, but byte %ju of the file that holds the image is "
			"no multiple of %ju (--prepend of mkfs.pinfs aligns it)",
			(uintmax_t)(f->info->offset + b.offset), (uintmax_t)align);
		return 0;
	}
	return check_xip_tail(f, i, b.offset);
}

static int check_run(struct fsck *f, const struct image_inode *i)
{
	uint64_t blocks = file_blocks(f, i), last = i->pos + blocks - 1, part;
	uint32_t raw = 0;
	int r;

	bitset_fill(&f->used, i->pos, i->pos + blocks);
	if (!bitset_all(&f->readable, i->pos, i->pos + blocks))
		return 1;
	r = block_raw(f, last, &raw);
	if (r)
		return r;
	part = bitset_next_clear(&f->full, i->pos, last);
	if (part < last || raw != file_rest(f, i)) {
		inode_problem(f, i, "block %ju has not the size that the file needs", (uintmax_t)part);
		return 0;
	}
	if (i->alloc != i->size)
		inode_problem(f, i, "has no hole, but %ju of its %ju bytes are allocated",
			(uintmax_t)i->alloc, (uintmax_t)i->size);
	return i->xip ? check_xip(f, i, blocks) : 0;
}

static int check_packed(struct fsck *f, const struct image_inode *i)
{
	uint32_t raw = 0;
	int r;

	bitset_set(&f->used, i->pos);
	if (!bitset_test(&f->readable, i->pos))
		return 1;
	r = block_raw(f, i->pos, &raw);
	if (r)
		return r;
	if (i->arg0 + i->size > raw)
		inode_problem(f, i, "bytes %ju to %ju of block %ju don't exist; it has %u", (uintmax_t)i->arg0,
			(uintmax_t)(i->arg0 + i->size - 1), (uintmax_t)i->pos, raw);
	if (i->alloc != i->size)
		inode_problem(f, i, "has no hole, but %ju of its %ju bytes are allocated",
			(uintmax_t)i->alloc, (uintmax_t)i->size);
	return 0;
}

/* The last extent is the only one that may have a block which is not full: the file's last. */
static int check_last_extent(struct fsck *f, const struct image_inode *i, const struct image_extent *e)
{
	uint64_t blocks = file_blocks(f, i), end = e->lblk + e->count, last = (uint64_t)e->block + e->count - 1, part;
	uint32_t raw = 0;
	int r;

	if (end > blocks) {
		inode_problem(f, i, "its last extent ends at block %ju, the file has %ju", (uintmax_t)end,
			(uintmax_t)blocks);
		return 0;
	}
	r = block_raw(f, last, &raw);
	if (r)
		return r;
	part = bitset_next_clear(&f->full, e->block, last);
	if (part < last || raw < (end == blocks ? file_rest(f, i) : f->info->block_size))
		inode_problem(f, i, "block %ju is shorter than the file needs", (uintmax_t)part);
	return 0;
}

static int check_alloc(struct fsck *f, const struct image_inode *i, const struct image_extent *last)
{
	uint64_t from = 0, to = 0, alloc;
	int r = extent_sum(f, i->pos, &from);

	if (r == 0)
		r = extent_sum(f, i->pos + i->arg0, &to);
	if (r < 0)
		return r;
	alloc = (to - from) * f->info->block_size;
	if (last->lblk + last->count == file_blocks(f, i))
		alloc -= f->info->block_size - file_rest(f, i);
	if (i->alloc != alloc)
		inode_problem(f, i, "its extents have %ju bytes, but %ju are allocated", (uintmax_t)alloc,
			(uintmax_t)i->alloc);
	return 0;
}

static int check_extents_file(struct fsck *f, const struct image_inode *i)
{
	uint64_t end = i->pos + i->arg0, bad;
	struct image_extent last;
	int r;

	bitset_fill(&f->extent_used, i->pos, end);
	if (!bitset_all(&f->extent_readable, i->pos, end))
		return 1;
	r = image_extent_get(f->image, end - 1, &last);
	if (r < 0)
		return fsck_problem_caught(f, r, 0, "inode %u", i->ino);
	bad = bitset_next_clear(&f->extent_follows, i->pos + 1, end);
	if (bad < end) {
		inode_problem(f, i, "extent %ju does not lie behind the one before it", (uintmax_t)bad);
		return 0;
	}
	bad = bitset_next_clear(&f->extent_whole, i->pos, end - 1);
	if (bad < end - 1) {
		inode_problem(f, i, "extent %ju has a block that is shorter than the file needs",
			(uintmax_t)bad);
		return 0;
	}
	r = check_last_extent(f, i, &last);
	return r ? r : check_alloc(f, i, &last);
}

static int check_regular(struct fsck *f, const struct image_inode *i)
{
	switch (i->layout) {
	case PINFS_LAYOUT_RUN:
		return check_run(f, i);
	case PINFS_LAYOUT_PACKED:
		return check_packed(f, i);
	case PINFS_LAYOUT_EXTENTS:
		return check_extents_file(f, i);
	default:
		if (i->alloc)
			inode_problem(f, i, "is one hole, but %ju bytes are allocated", (uintmax_t)i->alloc);
		return 0;
	}
}

/* ---- the other types, with the same results ---- */

static int check_symlink(struct fsck *f, const struct image_inode *i)
{
	char target[PINFS_SYMLINK_MAX + 1];
	int r;

	if (!fsck_section_readable(f, PINFS_SECTION_SYMLINKS, i->pos, i->size))
		return 1;
	r = image_readlink(f->image, i, target);
	return r < 0 ? fsck_problem_caught(f, r, fsck_inode_where(f, i->ino), NULL) : 0;
}

/* Its entries are looked at by the tree pass. */
static int check_directory(struct fsck *f, const struct image_inode *i)
{
	if (i->ino != PINFS_ROOT_INO && i->arg1 >= i->ino)
		inode_problem(f, i, "a directory that is its own parent");
	if (!i->arg0 && i->size)
		inode_problem(f, i, "a directory without entries has %ju bytes of them", (uintmax_t)i->size);
	return !fsck_section_readable(f, PINFS_SECTION_DIRS, i->pos, i->size);
}

/* Fields that mean nothing in this layout, and bits that mean nothing at all. */
static bool unused_fields_zero(const struct pinfs_inode *d)
{
	uint64_t pos = pinfs_get64(d->pos), alloc = pinfs_get64(d->alloc);
	uint32_t arg0 = pinfs_get32(d->arg0), arg1 = pinfs_get32(d->arg1);

	if (d->flags & ~PINFS_INODE_XIP)
		return false;
	if (!S_ISREG(pinfs_get16(d->mode)) && ((d->flags & PINFS_INODE_XIP) || alloc))
		return false;
	switch (d->layout) {
	case PINFS_LAYOUT_NONE:
		return !pos && !arg0 && !arg1 && (S_ISREG(pinfs_get16(d->mode)) || !pinfs_get64(d->size));
	case PINFS_LAYOUT_RUN:
	case PINFS_LAYOUT_SYMLINK:
		return !arg0 && !arg1;
	case PINFS_LAYOUT_PACKED:
	case PINFS_LAYOUT_EXTENTS:
		return !arg1;
	case PINFS_LAYOUT_DEVICE:
		return !pos && !pinfs_get64(d->size);
	default:
		return true;
	}
}

static int check_unused(struct fsck *f, const struct image_inode *i, struct fsck_window *w)
{
	struct pinfs_inode d;
	int r = fsck_section_read(f, w, PINFS_SECTION_INODES, (uint64_t)(i->ino - 1) * sizeof(d), &d, sizeof(d));

	if (r < 0)
		return fsck_problem_caught(f, r, 0, "inode %u", i->ino);
	if (!unused_fields_zero(&d))
		inode_problem(f, i, "flags or fields that it does not use are not zero");
	return 0;
}

static int check_by_type(struct fsck *f, const struct image_inode *i, struct inode_tally *t)
{
	switch (i->mode & S_IFMT) {
	case S_IFREG:
		t->n.regular++;
		t->n.file_bytes += i->size;
		t->n.xip_files += i->xip;
		return check_regular(f, i);
	case S_IFDIR:
		t->n.directories++;
		t->dir_bytes += i->size;
		return check_directory(f, i);
	case S_IFLNK:
		t->n.symlinks++;
		return check_symlink(f, i);
	case S_IFIFO:
		t->n.fifos++;
		return 0;
	case S_IFSOCK:
		t->n.sockets++;
		return 0;
	default:
		t->n.devices++;
		return 0;
	}
}

static int check_inode(struct fsck *f, const struct image_inode *i, struct inode_tally *t, struct fsck_window *w)
{
	int affected = check_by_type(f, i, t), r;

	r = affected < 0 ? affected : check_unused(f, i, w);
	if (r < 0)
		return r;
	if (i->xattr) {
		bitset_set(&f->xattr_sets, i->xattr - 1);
		affected |= !fsck_section_readable(f, PINFS_SECTION_XATTRS, (uint64_t)(i->xattr - 1) * 8,
			sizeof(struct pinfs_xattr_set));
	}
	if (!S_ISDIR(i->mode))
		t->n.hard_links += i->nlink - 1;
	f->kinds[i->ino] = (uint8_t)(i->mode >> 12 | (affected ? KIND_AFFECTED : 0));
	f->slots[i->ino] = S_ISDIR(i->mode) ? i->arg1 : i->nlink;
	return 0;
}

static void tally_merge(struct fsck *f, const struct inode_tally *t)
{
	struct fsck_report *rep = f->report;

	mutex_lock(&f->lock);
	rep->regular += t->n.regular;
	rep->directories += t->n.directories;
	rep->symlinks += t->n.symlinks;
	rep->devices += t->n.devices;
	rep->fifos += t->n.fifos;
	rep->sockets += t->n.sockets;
	rep->hard_links += t->n.hard_links;
	rep->xip_files += t->n.xip_files;
	rep->file_bytes += t->n.file_bytes;
	f->inodes_unknown += t->unknown;
	f->dir_bytes = MIN(f->dir_bytes, UINT64_MAX / 2) + MIN(t->dir_bytes, UINT64_MAX / 2);
	mutex_unlock(&f->lock);
}

/* Inode numbers [from + 1, to + 1). */
static int inode_sweep(struct fsck *f, uint64_t from, uint64_t to, void *scratch)
{
	struct inode_tally t = {0};
	int r = 0;

	for (uint64_t n = from; r == 0 && n < to; n++) {
		struct image_inode i;

		if (!fsck_section_readable(f, PINFS_SECTION_INODES, n * sizeof(struct pinfs_inode),
			sizeof(struct pinfs_inode))) {
			t.unknown++;
			continue;
		}
		r = image_inode_get(f->image, n + 1, &i);
		if (r == 0) {
			r = check_inode(f, &i, &t, scratch);
		} else {
			t.unknown++;
			r = fsck_problem_caught(f, r, 0, NULL);
		}
	}
	tally_merge(f, &t);
	fsck_progress(f, f->metadata, to - from, f->info->inode_count);
	return r;
}

/* ---- extended attributes ---- */

struct xattr_walk {
	struct fsck *f;
	struct fsck_window *window;
	uint64_t pos, end;
	size_t names; /* bytes so far, as listxattr(2) counts them */
	uint8_t name_len;
	char name[PINFS_XATTR_NAME_MAX];
	bool acl;
};

#define xattr_problem(f, pos, fmt, ...)                                   \
	fsck_problem(f, fsck_section_where(f, PINFS_SECTION_XATTRS, pos), \
		"extended attributes at byte %ju of their section: " fmt, (uintmax_t)(pos), ##__VA_ARGS__)

/* 0: *w is behind the attribute; 1: the rest makes no sense (said); <0: error (said). */
static int check_xattr(struct xattr_walk *w, bool first)
{
	struct pinfs_xattr_entry d;
	char name[PINFS_XATTR_NAME_MAX];
	uint64_t left = w->end - w->pos;
	int r, c;

	if (left < sizeof(d)) {
		xattr_problem(w->f, w->pos, "the set ends before its last attribute");
		return 1;
	}
	r = fsck_section_read(w->f, w->window, PINFS_SECTION_XATTRS, w->pos, &d, sizeof(d));
	if (r == 0 && (!d.name_len || pinfs_get32(d.value_size) > PINFS_XATTR_VALUE_MAX ||
		sizeof(d) + d.name_len + pinfs_get32(d.value_size) > left)) {
		xattr_problem(w->f, w->pos, "impossible sizes");
		return 1;
	}
	if (r == 0)
		r = fsck_section_read(w->f, w->window, PINFS_SECTION_XATTRS, w->pos + sizeof(d), name, d.name_len);
	if (r < 0) {
		r = fsck_problem_caught(w->f, r, 0, "extended attributes");
		return r < 0 ? r : 1;
	}
	if (!fsck_all_zero(d.reserved, sizeof(d.reserved)) || memchr(name, 0, d.name_len))
		xattr_problem(w->f, w->pos, "reserved bytes are not zero, or a name has a NUL");
	c = first ? 1 : memcmp(name, w->name, MIN(d.name_len, w->name_len));
	if (c < 0 || (c == 0 && d.name_len <= w->name_len))
		xattr_problem(w->f, w->pos, "the names are not sorted");
	w->acl |= d.name_len > strlen(ACL_PREFIX) && !memcmp(name, ACL_PREFIX, strlen(ACL_PREFIX));
	memcpy(w->name, name, d.name_len);
	w->name_len = d.name_len;
	w->pos += sizeof(d) + d.name_len + pinfs_get32(d.value_size);
	return 0;
}

/* The set at pos, and the bytes up to where the next one may begin. limit: where another one does begin. */
static int check_xattr_set(struct fsck *f, uint64_t pos, uint64_t limit, struct fsck_window *window)
{
	struct xattr_walk w = {.f = f, .window = window, .pos = pos + sizeof(struct pinfs_xattr_set)};
	uint64_t pad_end;
	uint8_t pad[8];
	struct pinfs_xattr_set d;
	int r;

	if (!fsck_section_readable(f, PINFS_SECTION_XATTRS, pos, sizeof(d)))
		return 0;
	r = fsck_section_read(f, window, PINFS_SECTION_XATTRS, pos, &d, sizeof(d));
	if (r < 0)
		return fsck_problem_caught(f, r, 0, "extended attributes");
	if (pinfs_get32(d.size) < sizeof(d) || pinfs_get32(d.size) > limit - pos) {
		xattr_problem(f, pos, "a set of %u bytes reaches over the next one or the end",
			pinfs_get32(d.size));
		return 0;
	}
	w.end = pos + pinfs_get32(d.size);
	if (!fsck_section_readable(f, PINFS_SECTION_XATTRS, pos, w.end - pos))
		return 0;
	for (uint32_t i = 0; r == 0 && i < pinfs_get32(d.count); i++) {
		r = check_xattr(&w, i == 0);
		w.names += w.name_len + 1u;
		if (w.names > PINFS_XATTR_LIST_MAX) {
			xattr_problem(f, pos, "a set has more names than can be listed");
			return MIN(r, 0);
		}
	}
	if (r)
		return MIN(r, 0);
	pad_end = MIN(align_up(w.end, 8), limit);
	r = fsck_section_read(f, window, PINFS_SECTION_XATTRS, w.end, pad, (size_t)(pad_end - w.end));
	if (r < 0)
		return fsck_problem_caught(f, r, 0, "extended attributes");
	if (w.pos != w.end || !fsck_all_zero(pad, (size_t)(pad_end - w.end)))
		xattr_problem(f, pos, "bytes after the last attribute");
	mutex_lock(&f->lock);
	f->report->xattr_sets++;
	f->acl_used |= w.acl;
	mutex_unlock(&f->lock);
	return 0;
}

static int xattr_sweep(struct fsck *f, uint64_t from, uint64_t to, void *scratch)
{
	uint64_t raw_size = fsck_section(f, PINFS_SECTION_XATTRS)->raw_size;
	int r = 0;

	for (uint64_t u = from; r == 0 && (u = bitset_next_set(&f->xattr_sets, u, to)) < to; u++) {
		uint64_t next = bitset_next_set(&f->xattr_sets, u + 1, f->xattr_sets.bits);

		r = check_xattr_set(f, u * 8, next < f->xattr_sets.bits ? next * 8 : raw_size, scratch);
	}
	return r;
}

/* ---- the pass ---- */

int fsck_check_inodes(struct fsck *f)
{
	const struct image_section *e = fsck_section(f, PINFS_SECTION_EXTENTS);
	uint64_t extents = e ? e->raw_size / sizeof(struct pinfs_extent) : 0;
	int r;

	f->report->extents = extents;
	r = check_extents(f, extents);
	if (r == 0)
		r = fsck_sweep(f, f->info->inode_count, INODE_STEP, sizeof(struct fsck_window), inode_sweep);
	if (r == 0)
		r = fsck_sweep(f, extents, EXTENT_STEP, 0, extent_used_sweep);
	if (r == 0)
		r = fsck_sweep(f, f->xattr_sets.bits, XATTR_STEP, sizeof(struct fsck_window), xattr_sweep);
	if (r == 0)
		f->report->blocks_unreferenced = f->info->block_count - bitset_count(&f->used);
	return r;
}
