/* SPDX-License-Identifier: MIT */
/* fsck of a delta: every item, in the order of their keys, which is that of inodes: attributes, names, extended attributes, content, target. */
#include "mkfs/fsck_delta_internal.h"

#include <dirent.h>

/* An extended attribute whose value lies in pieces. */
struct pieced {
	uint64_t slot;
	size_t size;
	unsigned pieces, seen;
};

/* The inode whose items are looked at. */
struct current {
	uint64_t ino;
	bool removed; /* a directory without a name: what it hides goes piece by piece, and all of the image's names in it are hidden until it is gone */
	bool has, forgotten; /* its attributes are there; they couldn't be, and all of it went */
	struct delta_inode i;
	bool has_image;
	struct image_inode image;
	uint64_t extent_end, counted, target;
	bool has_target, has_tail;
	uint64_t place; /* of its attributes */
	struct pieced *pieced;
	size_t pieced_count, pieced_capacity;
	/* The last name, and those before it with the same hash: two names in one. */
	struct delta_item last;
};

static const char *kind_name(unsigned type)
{
	static const char *const names[16] = {[DT_FIFO] = "a FIFO", [DT_CHR] = "a device", [DT_DIR] = "a directory", [DT_BLK] = "a device",
		[DT_REG] = "a file", [DT_LNK] = "a symbolic link", [DT_SOCK] = "a socket"};

	return type < 16 && names[type] ? names[type] : "of no kind";
}

/* An item that can't be used. */
static int item_bad(struct fsck_delta *f, const struct delta_item *item)
{
	return fsck_fix_delete(f, item->object, item->offset);
}

/* ---- attributes ---- */

static int gone_directory(struct fsck_delta *f, const struct image_inode *dir)
{
	struct image_dir_iter it;
	struct image_dirent e;
	int r = image_dir_iter_begin(f->image, dir, 0, &it);

	if (r < 0)
		return fsck_delta_caught(f, r, 0, "the image");
	while ((r = image_dir_iter_next(&it, &e)) > 0) {
		struct inode_entry *child = fsck_inode(f, e.ino);

		if (!child) {
			r = -ENOMEM;
			break;
		}
		child->hidden++;
	}
	image_dir_iter_end(&it);
	return r < 0 ? fsck_delta_caught(f, r, 0, "the image") : 0;
}

/* Says what is wrong with attributes; they are put right in c->i. */
static void check_attributes(struct fsck_delta *f, struct current *c, const struct delta_item *item)
{
	struct delta_inode *i = &c->i;
	uintmax_t ino = c->ino;

	if (i->gone && !c->has_image)
		fsck_delta_problem(f, item->place, "inode %ju: it is marked as gone, but the image has no such inode", ino);
	if (i->gone)
		return;
	if (!c->has_image && !i->own_xattrs) {
		fsck_delta_problem(f, item->place, "inode %ju: it is new, but has the image's extended attributes", ino);
		i->own_xattrs = true;
	}
	if (i->image_end && (!c->has_image || !S_ISREG(i->mode))) {
		fsck_delta_problem(f, item->place, "inode %ju: it has %ju bytes of the image's content, but there are none", ino, (uintmax_t)i->image_end);
		i->image_end = 0;
	} else if (i->image_end > (c->has_image ? c->image.size : 0) || i->image_end > i->size) {
		fsck_delta_problem(f, item->place, "inode %ju: its first %ju bytes are the image's, but it has %ju, and there are %ju", ino,
			(uintmax_t)i->image_end, (uintmax_t)i->size, (uintmax_t)c->image.size);
		i->image_end = MIN(i->size, c->image.size);
	}
	if (i->image_pages > (c->has_image && S_ISREG(i->mode) ? DIV_ROUND_UP(c->image.alloc, PINFS_PAGE_SIZE) : 0)) {
		fsck_delta_problem(f, item->place, "inode %ju: it counts %ju pages of the image, which has %ju for it", ino, (uintmax_t)i->image_pages,
			(uintmax_t)(c->has_image ? DIV_ROUND_UP(c->image.alloc, PINFS_PAGE_SIZE) : 0));
		i->image_pages = c->has_image && S_ISREG(i->mode) ? DIV_ROUND_UP(c->image.alloc, PINFS_PAGE_SIZE) : 0;
	}
}

static int check_inode(struct fsck_delta *f, struct current *c, const struct delta_item *item)
{
	struct delta_inode was;
	struct inode_entry *e;
	int r = delta_item_inode(f->delta, item, &c->i);

	if (r == 0 && c->has_image && (c->i.mode & S_IFMT) != (c->image.mode & S_IFMT)) {
		fsck_delta_problem(f, item->place, "inode %ju: the delta says that it is %s, the image %s", (uintmax_t)c->ino,
			kind_name((c->i.mode & S_IFMT) >> 12), kind_name((c->image.mode & S_IFMT) >> 12));
		r = -EUCLEAN;
	} else if (r == 0 && c->i.gone && c->ino == 1) {
		fsck_delta_problem(f, item->place, "inode 1: it is the root directory, and marked as gone");
		r = -EUCLEAN;
	} else if (r < 0) {
		r = fsck_delta_caught(f, r, item->place, NULL);
		r = r < 0 ? r : -EUCLEAN;
	}
	if (r == -EUCLEAN) {
		c->forgotten = f->fix;
		return f->fix ? fsck_fix_forget(f, c->ino) : 0;
	}
	if (r < 0)
		return r;
	was = c->i;
	check_attributes(f, c, item);
	if (f->fix && c->i.gone && !c->has_image) {
		c->forgotten = true;
		return fsck_fix_forget(f, c->ino);
	}
	if (f->fix && memcmp(&was, &c->i, sizeof(was)) != 0 && (r = fsck_fix_inode(f, &c->i)) < 0)
		return r;
	c->has = true;
	c->place = item->place;
	f->report->inodes++;
	f->new_inodes += !c->has_image;
	f->gone += c->i.gone;
	f->highest = MAX(f->highest, c->ino);
	e = fsck_inode(f, c->ino);
	if (!e)
		return -ENOMEM;
	e->flags |= INODE_DELTA | (c->i.gone ? INODE_GONE : 0);
	e->type = (uint8_t)((c->i.mode & S_IFMT) >> 12);
	e->parent = c->i.parent;
	e->nlink = c->i.nlink;
	e->entries = c->i.entries;
	c->removed = S_ISDIR(c->i.mode) && !c->i.nlink && e->flags & INODE_ORPHAN;
	return (c->i.gone || c->removed) && S_ISDIR(c->i.mode) && c->has_image ? gone_directory(f, &c->image) : 0;
}

/* ---- names ---- */

/* Is a name's slot among those of its hash? Told, and put right. */
static int check_slot(struct fsck_delta *f, struct current *c, const struct delta_item *item, const char *what, const char *name, size_t len, bool *ret_ok)
{
	uint64_t hash = delta_name_hash(f->delta, name, len);
	char shown[4 * PINFS_NAME_MAX + 8];

	*ret_ok = (item->offset & ~0xffull) == hash;
	if (*ret_ok)
		return 0;
	fsck_delta_problem(f, item->place, "inode %ju: %s '%s' lies at hash %#jx, where nobody finds it; its own is %#jx", (uintmax_t)c->ino, what,
		name_escape(name, len, shown, sizeof(shown)), (uintmax_t)item->offset, (uintmax_t)hash);
	return item_bad(f, item);
}

/* A name of the image that is hidden or replaced. */
static int hide(struct fsck_delta *f, struct current *c, const struct image_dirent *old)
{
	struct inode_entry *child = fsck_inode(f, old->ino), *dir;

	if (!child)
		return -ENOMEM;
	child->hidden++;
	dir = fsck_inode(f, c->ino);
	if (!dir)
		return -ENOMEM;
	dir->more--;
	dir->more_dirs -= old->type == DT_DIR;
	f->report->hidden++;
	return 0;
}

static int add_name(struct fsck_delta *f, struct current *c, const struct delta_dirent *d)
{
	struct inode_entry *child = fsck_inode(f, d->ino), *dir;

	if (!child)
		return -ENOMEM;
	child->added++;
	child->named_in = c->ino;
	dir = fsck_inode(f, c->ino);
	if (!dir)
		return -ENOMEM;
	dir->more++;
	dir->more_dirs += d->type == DT_DIR;
	f->report->names++;
	return 0;
}

/* Do two items have the same name? Those of one hash lie one after the other. */
static bool same_name(struct fsck_delta *f, const struct delta_item *a, const struct delta_dirent *d)
{
	struct delta_dirent other;

	return a->object == ITEM_KEY(delta_item_ino(a), PINFS_DELTA_DIRENT) && (a->offset & ~0xffull) == (d->hash & ~0xffull) &&
		delta_item_dirent(f->delta, a, &other) == 0 && other.name_len == d->name_len && !memcmp(other.name, d->name, d->name_len);
}

static int check_dirent(struct fsck_delta *f, struct current *c, const struct delta_item *item)
{
	struct delta_dirent d;
	struct image_dirent old;
	char shown[4 * PINFS_NAME_MAX + 8];
	bool ok, in_image = false, twice;
	int r = delta_item_dirent(f->delta, item, &d);

	if (r < 0)
		return (r = fsck_delta_caught(f, r, item->place, NULL)) < 0 ? r : item_bad(f, item);
	if (!strcmp(d.name, ".") || !strcmp(d.name, "..")) {
		fsck_delta_problem(f, item->place, "directory inode %ju: it has an entry '%s'", (uintmax_t)c->ino, d.name);
		return item_bad(f, item);
	}
	r = check_slot(f, c, item, "the name", d.name, d.name_len, &ok);
	if (r < 0 || !ok) {
		/* It goes to its place, unless that is taken. */
		if (r == 0 && f->fix && (r = delta_begin(f->delta, 0)) == 0) {
			struct delta_dirent there;

			r = delta_dirent_get(f->delta, c->ino, d.name, d.name_len, &there);
			r = r == -ENOENT ? delta_dirent_put(f->delta, c->ino, d.name, d.name_len, d.ino, d.type) : r;
			if (r == 0)
				r = delta_commit(f->delta);
			else
				delta_abort(f->delta);
		}
		return r;
	}
	twice = same_name(f, &c->last, &d);
	c->last = *item;
	if (twice) {
		fsck_delta_problem(f, item->place, "directory inode %ju: the name '%s' is there twice", (uintmax_t)c->ino,
			name_escape(d.name, d.name_len, shown, sizeof(shown)));
		return item_bad(f, item);
	}
	if (c->has_image) {
		r = image_dir_lookup(f->image, &c->image, d.name, d.name_len, &old);
		in_image = r == 0;
		if (r < 0 && r != -ENOENT)
			return fsck_delta_caught(f, r, 0, "the image");
	}
	if (!d.ino && !in_image) {
		fsck_delta_problem(f, item->place, "directory inode %ju: '%s' hides a name that the image doesn't have", (uintmax_t)c->ino,
			name_escape(d.name, d.name_len, shown, sizeof(shown)));
		return item_bad(f, item);
	}
	r = in_image && !c->removed ? hide(f, c, &old) : 0;
	return r < 0 || !d.ino ? r : add_name(f, c, &d);
}

/* ---- extended attributes ---- */

static int check_xattr(struct fsck_delta *f, struct current *c, const struct delta_item *item)
{
	struct delta_item_xattr x;
	bool ok;
	int r = delta_item_xattr(f->delta, item, &x);

	if (r < 0)
		return (r = fsck_delta_caught(f, r, item->place, NULL)) < 0 ? r : item_bad(f, item);
	r = check_slot(f, c, item, "the extended attribute", x.name, x.name_len, &ok);
	if (r < 0 || !ok)
		return r;
	if (!c->i.own_xattrs) {
		ssize_t n = image_xattr_get(f->image, &c->image, x.name, NULL, 0);

		/* A copy that wasn't finished. Where the image can't be read, it can't be compared. */
		if (n == -ENODATA || (n >= 0 && (size_t)n != x.size)) {
			fsck_delta_problem(f, item->place, "inode %ju: it has the extended attribute '%s' in the delta, but says that they are the image's",
				(uintmax_t)c->ino, x.name);
			return item_bad(f, item);
		}
	}
	f->report->xattrs++;
	if (!x.pieces)
		return 0;
	if (array_reserve(&c->pieced, &c->pieced_capacity, c->pieced_count + 1, sizeof(*c->pieced)) < 0)
		return -ENOMEM;
	c->pieced[c->pieced_count++] = (struct pieced){.slot = item->offset, .size = x.size, .pieces = x.pieces};
	return 0;
}

/* A piece of a value; the attributes themselves came before, in the order of their slots. */
static int check_piece(struct fsck_delta *f, struct current *c, const struct delta_item *item)
{
	unsigned n = delta_item_type(item) - PINFS_DELTA_XVALUE;
	size_t low = 0, high = c->pieced_count, done = (size_t)n * PINFS_DELTA_ITEM_MAX;
	struct pieced *p;

	while (low < high) {
		size_t middle = (low + high) / 2;

		if (c->pieced[middle].slot < item->offset)
			low = middle + 1;
		else
			high = middle;
	}
	p = low < c->pieced_count && c->pieced[low].slot == item->offset ? &c->pieced[low] : NULL;
	if (p && n < p->pieces && item->len == MIN(p->size - done, (size_t)PINFS_DELTA_ITEM_MAX)) {
		p->seen++;
		return 0;
	}
	fsck_delta_problem(f, item->place, "inode %ju: piece %u of an extended attribute with %zu bytes %s", (uintmax_t)c->ino, n, item->len,
		p ? "does not fit its size" : "belongs to none");
	return item_bad(f, item);
}

static int end_xattrs(struct fsck_delta *f, struct current *c)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < c->pieced_count; i++) {
		if (c->pieced[i].seen == c->pieced[i].pieces)
			continue;
		fsck_delta_problem(f, c->place, "inode %ju: of an extended attribute with %zu bytes %u of %u pieces are there", (uintmax_t)c->ino,
			c->pieced[i].size, c->pieced[i].seen, c->pieced[i].pieces);
		r = fsck_fix_delete(f, ITEM_KEY(c->ino, PINFS_DELTA_XATTR), c->pieced[i].slot);
	}
	return r;
}

/* ---- content ---- */

static int content_bad(struct fsck_delta *f, struct current *c, const struct delta_item_extent *e, const struct delta_bad_pages *bad)
{
	struct inode_entry *entry = fsck_inode(f, c->ino);
	int r = 0;

	if (!entry)
		return -ENOMEM;
	entry->flags |= INODE_AFFECTED;
	fsck_delta_problem(f, bad->offset, "inode %ju: %ju of %ju pages of its content from byte %ju on %s", (uintmax_t)c->ino, (uintmax_t)bad->count,
		(uintmax_t)e->extent.pages, (uintmax_t)((e->extent.page + bad->first) * PINFS_PAGE_SIZE),
		bad->error == -EUCLEAN ? "are not what was written: a wrong checksum" : "can't be read");
	if (!f->fix_content)
		return 0;
	for (uint64_t i = 0; r == 0 && i < e->extent.pages; i++) {
		struct delta_inode inode;

		if (!bad->bad[i])
			continue;
		r = delta_begin(f->delta, 0);
		if (r < 0)
			break;
		r = delta_inode_get(f->delta, c->ino, &inode);
		if (r == 0)
			r = delta_extent_hole(f->delta, &inode, e->extent.page + i, 1);
		if (r == 0)
			r = delta_inode_put(f->delta, &inode);
		if (r == 0) {
			r = delta_commit(f->delta);
			f->fixed++;
			fsck_delta_note(f, "inode %ju: page %ju, which could not be read, is zero now", (uintmax_t)c->ino, (uintmax_t)(e->extent.page + i));
		} else {
			delta_abort(f->delta);
		}
	}
	return r;
}

static int check_image_extent(struct fsck_delta *f, struct current *c, const struct delta_item *item, const struct delta_extent *e)
{
	struct image_inode other;
	int r = fsck_image_inode(f, e->image_ino, &other);

	if (r < 0 && r != -ENOENT)
		return r;
	if (r == 0 && S_ISREG(other.mode) && e->start + e->pages <= DIV_ROUND_UP(other.size, PINFS_PAGE_SIZE))
		return 0;
	fsck_delta_problem(f, item->place, "inode %ju: its page %ju is page %ju of the image's inode %u, which has none", (uintmax_t)c->ino,
		(uintmax_t)e->page, (uintmax_t)e->start, e->image_ino);
	return item_bad(f, item);
}

static int check_extent(struct fsck_delta *f, struct current *c, const struct delta_item *item)
{
	struct delta_item_extent e;
	struct delta_bad_pages bad;
	int r = delta_item_extent(f->delta, item, &e);

	if (r < 0)
		return (r = fsck_delta_caught(f, r, item->place, NULL)) < 0 ? r : item_bad(f, item);
	if (!S_ISREG(c->i.mode)) {
		fsck_delta_problem(f, item->place, "inode %ju: it is %s, but has content", (uintmax_t)c->ino, kind_name((c->i.mode & S_IFMT) >> 12));
		return item_bad(f, item);
	}
	if (e.extent.page < c->extent_end) {
		fsck_delta_problem(f, item->place, "inode %ju: its extents of page %ju and of the pages before page %ju overlap", (uintmax_t)c->ino,
			(uintmax_t)e.extent.page, (uintmax_t)c->extent_end);
		return item_bad(f, item);
	}
	if (e.extent.kind == PINFS_DELTA_IMAGE && (r = check_image_extent(f, c, item, &e.extent)) < 0)
		return r;
	c->extent_end = e.extent.page + e.extent.pages;
	c->counted += e.counted;
	c->has_tail |= e.extent.kind != PINFS_DELTA_UNWRITTEN && c->extent_end > DIV_ROUND_UP(c->i.size, PINFS_PAGE_SIZE);
	f->report->extents++;
	f->report->content_pages += e.stored;
	r = e.stored ? fsck_use_add(f, e.first, e.stored, 0) : 0;
	if (r == 0)
		r = delta_item_verify(f->delta, item, &bad);
	if (r < 0)
		return r;
	f->report->verified_pages += e.stored;
	return bad.count ? content_bad(f, c, &e, &bad) : 0;
}

/* ---- an inode as a whole ---- */

static int end_inode(struct fsck_delta *f, struct current *c)
{
	struct delta_inode i = c->i;
	struct inode_entry *e;
	bool orphan;
	int r;

	if (!c->has)
		return 0;
	r = end_xattrs(f, c);
	if (r < 0)
		return r;
	if (i.gone)
		return 0;
	if (i.pages != c->counted) {
		fsck_delta_problem(f, c->place, "inode %ju: it counts %ju pages in the delta, its extents have %ju", (uintmax_t)c->ino, (uintmax_t)i.pages,
			(uintmax_t)c->counted);
		i.pages = c->counted;
	}
	if (S_ISLNK(i.mode) && !c->has_image && (!c->has_target || i.size != c->target)) {
		fsck_delta_problem(f, c->place, "inode %ju: a symbolic link of %ju bytes, whose target has %ju", (uintmax_t)c->ino, (uintmax_t)i.size,
			(uintmax_t)c->target);
		if (f->fix && !c->has_target)
			return fsck_fix_forget(f, c->ino);
		i.size = c->target;
	}
	if (S_ISLNK(i.mode) && c->has_image && i.size != c->image.size) {
		fsck_delta_problem(f, c->place, "inode %ju: a symbolic link of %ju bytes, whose target has %ju", (uintmax_t)c->ino, (uintmax_t)i.size,
			(uintmax_t)c->image.size);
		i.size = c->image.size;
	}
	e = fsck_inode_find(f, c->ino);
	orphan = e && e->flags & INODE_ORPHAN;
	if (c->has_tail && !orphan) {
		fsck_delta_problem(f, c->place, "inode %ju: there is content behind its end, byte %ju, and no note that it has to be cut off",
			(uintmax_t)c->ino, (uintmax_t)i.size);
		if (f->fix) {
			/* The next mount cuts it off. */
			r = delta_begin(f->delta, 0);
			if (r == 0)
				r = (r = delta_orphan_add(f->delta, c->ino)) == 0 ? delta_commit(f->delta) : (delta_abort(f->delta), r);
			f->fixed++;
		}
	}
	return r < 0 || !memcmp(&i, &c->i, sizeof(i)) ? r : fsck_fix_inode(f, &i);
}

/* The next inode's items begin. */
static int begin_inode(struct fsck_delta *f, struct current *c, uint64_t ino)
{
	int r = end_inode(f, c);

	if (r < 0)
		return r;
	c->ino = ino;
	c->removed = c->has = c->forgotten = c->has_target = c->has_tail = false;
	c->i = (struct delta_inode){.ino = ino};
	c->extent_end = c->counted = c->target = c->place = 0;
	c->pieced_count = 0;
	c->last.object = 0;
	r = fsck_image_inode(f, ino, &c->image);
	c->has_image = r == 0;
	if (r == -ENOENT)
		c->image = (struct image_inode){0};
	return r == -ENOENT ? 0 : r;
}

/* Items of an inode that has no attributes. */
static int check_homeless(struct fsck_delta *f, struct current *c, const struct delta_item *item)
{
	bool names = delta_item_type(item) == PINFS_DELTA_DIRENT;
	struct delta_inode i;

	if (c->last.object != item->object)
		fsck_delta_problem(f, item->place, "inode %ju: the delta has %s of it, but no attributes", (uintmax_t)c->ino,
			names ? "names" : delta_item_type(item) == PINFS_DELTA_EXTENT ? "content" : "parts");
	c->last.object = item->object;
	if (!f->fix || c->forgotten)
		return 0;
	/* A directory of the image keeps its names. */
	if (names && !c->has && c->has_image && S_ISDIR(c->image.mode)) {
		overlay_inode(&c->image, &i);
		c->forgotten = true;
		return fsck_fix_inode(f, &i);
	}
	return item_bad(f, item);
}

static int check_global(struct fsck_delta *f, const struct delta_item *item)
{
	struct delta_item_shared s;
	struct inode_entry *e;
	int r;

	switch (delta_item_type(item)) {
	case PINFS_DELTA_ORPHAN:
		if (item->len) {
			fsck_delta_problem(f, item->place, "the note that inode %ju has no name can't be", (uintmax_t)item->offset);
			return item_bad(f, item);
		}
		e = item->offset ? fsck_inode(f, item->offset) : NULL;
		if (!e)
			return item->offset ? -ENOMEM : item_bad(f, item);
		e->flags |= INODE_ORPHAN;
		f->report->orphans++;
		return 0;
	case PINFS_DELTA_SHARED:
		r = delta_item_shared(f->delta, item, &s);
		f->report->shared++;
		return r < 0 ? ((r = fsck_delta_caught(f, r, item->place, NULL)) < 0 ? r : item_bad(f, item)) : 0;
	default:
		fsck_delta_problem(f, item->place, "an item of unknown type %u", delta_item_type(item));
		return item_bad(f, item);
	}
}

static int check_item(struct fsck_delta *f, struct current *c, const struct delta_item *item)
{
	unsigned type = delta_item_type(item);

	if (!delta_item_ino(item))
		return check_global(f, item);
	if (type == PINFS_DELTA_INODE && (!item->offset || !c->has))
		return check_inode(f, c, item);
	if (!c->has || c->i.gone)
		return check_homeless(f, c, item);
	if (type >= PINFS_DELTA_XVALUE && type <= PINFS_DELTA_XVALUE_LAST)
		return check_piece(f, c, item);
	switch (type) {
	case PINFS_DELTA_DIRENT:
		if (!S_ISDIR(c->i.mode)) {
			fsck_delta_problem(f, item->place, "inode %ju: it is %s, but has names", (uintmax_t)c->ino, kind_name((c->i.mode & S_IFMT) >> 12));
			return item_bad(f, item);
		}
		return check_dirent(f, c, item);
	case PINFS_DELTA_XATTR:
		return check_xattr(f, c, item);
	case PINFS_DELTA_EXTENT:
		return check_extent(f, c, item);
	case PINFS_DELTA_SYMLINK:
		if (!S_ISLNK(c->i.mode) || c->has_image || item->offset > 1 || (item->offset == 1 && c->target != PINFS_DELTA_ITEM_MAX) ||
			c->target + item->len > PINFS_SYMLINK_MAX || !item->len || memchr(item->value, 0, item->len)) {
			fsck_delta_problem(f, item->place, "inode %ju: a target that can't be", (uintmax_t)c->ino);
			return item_bad(f, item);
		}
		c->target += item->len;
		c->has_target = true;
		return 0;
	default:
		fsck_delta_problem(f, item->place, "inode %ju: an item of unknown type %u", (uintmax_t)c->ino, type);
		return item_bad(f, item);
	}
}

int fsck_delta_items(struct fsck_delta *f)
{
	_cleanup_free_ struct current *c = calloc(1, sizeof(*c));
	_cleanup_free_ struct delta_item *item = calloc(1, sizeof(*item));
	uint64_t object = 0, offset = 0;
	int r = c && item ? 0 : -ENOMEM;

	while (r == 0 && (r = delta_item_next(f->delta, object, offset, item)) == 0) {
		if (fsck_delta_cancelled(f)) {
			r = -ECANCELED;
			break;
		}
		f->report->items++;
		if (delta_item_ino(item) != c->ino)
			r = begin_inode(f, c, delta_item_ino(item));
		if (r == 0)
			r = check_item(f, c, item);
		object = item->object + (item->offset == UINT64_MAX);
		offset = item->offset + 1;
	}
	if (r == -ENOENT)
		r = end_inode(f, c);
	if (c)
		free(c->pieced);
	return r;
}
