/* SPDX-License-Identifier: MIT */
/*
 * fsck of a delta: the tree that image and delta make together. Only what the delta has to do with is looked at: the image's own names are as they were
 * where no directory of theirs has changed.
 *
 * Names of an inode = the image's, less those that the delta hides (one by one, or by a directory that is gone), and those that the delta adds.
 */
#include "mkfs/fsck_delta_internal.h"

#include <dirent.h>
#include <linux/fs.h>

#define LOST_FOUND "lost+found"
#define SHOWN_NAME (4 * PINFS_NAME_MAX + 8)

/* ---- what names lead to ---- */

/* The kind of an inode, by delta or image; 0: it isn't there. */
static int type_of(struct fsck_delta *f, uint64_t ino, unsigned *ret)
{
	const struct inode_entry *e = fsck_inode_find(f, ino);
	struct image_inode image;
	int r;

	*ret = 0;
	if (e && e->flags & INODE_DELTA) {
		*ret = e->flags & INODE_GONE ? 0 : e->type;
		return 0;
	}
	r = fsck_image_inode(f, ino, &image);
	if (r == 0)
		*ret = (image.mode & S_IFMT) >> 12;
	return r == -ENOENT ? 0 : r;
}

/* A name goes: what the image has under it stays hidden. */
static int fix_unname(struct fsck_delta *f, const struct delta_item *item, const struct delta_dirent *d)
{
	struct pinfs_delta_dirent *raw;
	struct image_dirent old;
	struct image_inode dir;
	struct delta_item hidden = *item;
	int r;

	if (!f->fix)
		return 0;
	r = fsck_image_inode(f, delta_item_ino(item), &dir);
	if (r == 0)
		r = image_dir_lookup(f->image, &dir, d->name, d->name_len, &old);
	if (r < 0)
		return r == -ENOENT || r == -EUCLEAN ? fsck_fix_delete(f, item->object, item->offset) : r;
	raw = (struct pinfs_delta_dirent *)hidden.value;
	raw->ino = pinfs_put64(0);
	raw->type = 0;
	r = delta_begin(f->delta, 0);
	if (r < 0)
		return r;
	r = delta_item_put(f->delta, item->object, item->offset, hidden.value, hidden.len);
	f->fixed++;
	if (r == 0)
		return delta_commit(f->delta);
	delta_abort(f->delta);
	return r;
}

static int fix_type(struct fsck_delta *f, const struct delta_item *item, unsigned type)
{
	struct delta_item right = *item;
	int r;

	if (!f->fix)
		return 0;
	((struct pinfs_delta_dirent *)right.value)->type = (uint8_t)type;
	r = delta_begin(f->delta, 0);
	if (r < 0)
		return r;
	r = delta_item_put(f->delta, item->object, item->offset, right.value, right.len);
	f->fixed++;
	if (r == 0)
		return delta_commit(f->delta);
	delta_abort(f->delta);
	return r;
}

static int check_target(struct fsck_delta *f, const struct delta_item *item)
{
	char shown[SHOWN_NAME];
	struct inode_entry *e;
	struct delta_dirent d;
	unsigned type;
	int r = delta_item_dirent(f->delta, item, &d);

	if (r < 0 || !d.ino)
		return r < 0 ? fsck_delta_caught(f, 0, 0, NULL) : 0;
	r = type_of(f, d.ino, &type);
	if (r < 0)
		return r;
	name_escape(d.name, d.name_len, shown, sizeof(shown));
	if (!type) {
		fsck_delta_problem(f, item->place, "directory inode %ju: '%s' leads to inode %ju, which is not there", (uintmax_t)delta_item_ino(item),
			shown, (uintmax_t)d.ino);
		if (f->fix)
			fsck_delta_note(f, "directory inode %ju: the name '%s', whose inode %ju is lost, was removed", (uintmax_t)delta_item_ino(item), shown, (uintmax_t)d.ino);
		return fix_unname(f, item, &d);
	}
	if (type != d.type) {
		fsck_delta_problem(f, item->place, "directory inode %ju: '%s' has type %u, its inode %ju has type %u", (uintmax_t)delta_item_ino(item), shown,
			d.type, (uintmax_t)d.ino, type);
		return fix_type(f, item, type);
	}
	e = type == DT_DIR ? fsck_inode(f, d.ino) : NULL;
	if (e && (e->flags & INODE_NAMED || d.ino == PINFS_ROOT_INO)) {
		fsck_delta_problem(f, item->place, "directory inode %ju: '%s' is one more name of directory inode %ju", (uintmax_t)delta_item_ino(item), shown,
			(uintmax_t)d.ino);
		return fix_unname(f, item, &d);
	}
	if (e)
		e->flags |= INODE_NAMED;
	return 0;
}

/* ---- lost+found ---- */

/* A directory as it is, in the delta from now on. Within a transaction. */
static int load_directory(struct fsck_delta *f, uint64_t ino, struct delta_inode *ret)
{
	struct image_inode image;
	int r = delta_inode_get(f->delta, ino, ret);

	if (r != -ENOENT)
		return r;
	r = fsck_image_inode(f, ino, &image);
	if (r == 0)
		overlay_inode(&image, ret);
	return r;
}

static int make_lost_found(struct fsck_delta *f, uint64_t *ret)
{
	struct delta_inode root, new;
	struct delta_dirent d;
	struct image_dirent old;
	struct image_inode image;
	size_t len = strlen(LOST_FOUND);
	int r = delta_dirent_get(f->delta, PINFS_ROOT_INO, LOST_FOUND, len, &d);

	if (r == 0 && d.ino && d.type == DT_DIR) {
		*ret = d.ino;
		return 0;
	}
	if (r == -ENOENT && fsck_image_inode(f, PINFS_ROOT_INO, &image) == 0 && image_dir_lookup(f->image, &image, LOST_FOUND, len, &old) == 0) {
		*ret = old.ino;
		return old.type == DT_DIR ? 0 : -EEXIST;
	}
	if (r == 0 && d.ino)
		return -EEXIST;
	if (r < 0 && r != -ENOENT)
		return r;
	r = load_directory(f, PINFS_ROOT_INO, &root);
	if (r < 0)
		return r;
	new = (struct delta_inode){.ino = delta_ino_new(f->delta), .mode = S_IFDIR | 0700, .nlink = 2, .atime = root.mtime, .mtime = root.mtime,
		.ctime = root.ctime, .btime = root.mtime, .generation = delta_ino_generation(f->delta), .parent = PINFS_ROOT_INO, .own_xattrs = true};
	if (!new.ino)
		return -ENOSPC;
	root.entries++;
	root.nlink++;
	r = delta_inode_put(f->delta, &new);
	if (r == 0)
		r = delta_dirent_put(f->delta, PINFS_ROOT_INO, LOST_FOUND, len, new.ino, DT_DIR);
	if (r == 0)
		r = delta_inode_put(f->delta, &root);
	if (r == 0)
		r = delta_files_add(f->delta, 1);
	*ret = new.ino;
	return r;
}

/* An inode that has lost all its names gets one. Counts are the next round's work. */
static int reconnect(struct fsck_delta *f, uint64_t ino, unsigned type)
{
	struct delta_inode dir, inode;
	struct image_inode image;
	uint64_t lost = 0;
	char name[32];
	int r;

	if (!f->fix)
		return 0;
	snprintf(name, sizeof(name), "#%ju", (uintmax_t)ino);
	r = delta_begin(f->delta, 0);
	if (r < 0)
		return r;
	r = make_lost_found(f, &lost);
	if (r == 0 && lost == ino)
		r = -EEXIST;
	if (r == 0)
		r = load_directory(f, lost, &dir);
	if (r == 0)
		r = delta_inode_put(f->delta, &dir);
	if (r == 0)
		r = delta_inode_get(f->delta, ino, &inode);
	if (r == -ENOENT && fsck_image_inode(f, ino, &image) == 0) {
		overlay_inode(&image, &inode);
		r = 0;
	}
	if (r == 0 && type == DT_DIR)
		inode.parent = lost;
	if (r == 0)
		r = delta_inode_put(f->delta, &inode);
	if (r == 0)
		r = delta_dirent_put(f->delta, lost, name, strlen(name), ino, (uint8_t)type);
	if (r < 0) {
		delta_abort(f->delta);
		/* The name is somebody else's: it stays as it is. */
		return r == -EEXIST ? 0 : r;
	}
	f->fixed++;
	fsck_delta_note(f, "inode %ju, which had lost its name, is /%s/%s now", (uintmax_t)ino, LOST_FOUND, name);
	return delta_commit(f->delta);
}

/* ---- counts ---- */

/* Attributes as they should be. */
static int fix_counts(struct fsck_delta *f, const struct inode_entry *e, uint32_t nlink, uint64_t entries, uint64_t parent)
{
	struct delta_inode i;
	struct image_inode image;
	int r;

	if (!f->fix)
		return 0;
	delta_lock(f->delta);
	r = delta_inode_get(f->delta, e->ino, &i);
	delta_unlock(f->delta);
	if (r == -ENOENT) {
		r = fsck_image_inode(f, e->ino, &image);
		if (r == 0)
			overlay_inode(&image, &i);
	}
	if (r < 0)
		return r == -EUCLEAN ? fsck_delta_caught(f, 0, 0, NULL) : r;
	i.nlink = nlink;
	if (S_ISDIR(i.mode)) {
		i.entries = entries;
		i.parent = parent;
	}
	return fsck_fix_inode(f, &i);
}

static int fix_orphan(struct fsck_delta *f, uint64_t ino, bool add)
{
	int r;

	if (!f->fix)
		return 0;
	r = delta_begin(f->delta, 0);
	if (r < 0)
		return r;
	r = add ? delta_orphan_add(f->delta, ino) : delta_orphan_remove(f->delta, ino);
	f->fixed++;
	if (r == 0)
		return delta_commit(f->delta);
	delta_abort(f->delta);
	return r == -ENOENT ? 0 : r;
}

/* What delta and image say of an inode together. */
struct counted {
	unsigned type;
	uint32_t nlink;	  /* as it says */
	uint64_t entries; /* as it says */
	uint64_t parent;
	uint64_t names, subdirs, names_in; /* as they are */
	uint64_t named_in;
};

static int count_inode(struct fsck_delta *f, const struct inode_entry *e, struct counted *ret)
{
	struct image_inode image = {0};
	int r = fsck_image_inode(f, e->ino, &image);
	bool has_image = r == 0, dir = S_ISDIR(image.mode), root = e->ino == PINFS_ROOT_INO;
	/* Its names are hidden all at once. */
	bool removed = e->flags & INODE_DELTA && e->flags & INODE_ORPHAN && !e->nlink;

	if (r < 0 && r != -ENOENT)
		return r;
	*ret = (struct counted){
		.type = (image.mode & S_IFMT) >> 12,
		.nlink = image.nlink,
		.entries = dir ? image.arg0 : 0,
		.parent = dir ? image.arg1 : 0,
		.names = (has_image ? dir ? !root : image.nlink : 0) + (uint64_t)e->added - e->hidden,
		.subdirs = (dir ? image.nlink - 2 : 0) + (uint64_t)(int64_t)e->more_dirs,
		.names_in = (dir && !removed ? image.arg0 : 0) + (uint64_t)e->more,
		.named_in = e->added ? e->named_in : dir ? image.arg1 : 0,
	};
	if (e->flags & INODE_DELTA) {
		ret->type = e->type;
		ret->nlink = e->nlink;
		ret->entries = e->entries;
		ret->parent = e->parent;
	}
	return 0;
}

static int check_nameless(struct fsck_delta *f, const struct inode_entry *e, const struct counted *c)
{
	if (!c->nlink && e->flags & INODE_ORPHAN) {
		if (c->type == DT_DIR && (c->names_in || c->entries))
			fsck_delta_problem(f, 0, "directory inode %ju: it was removed, but has %ju names", (uintmax_t)e->ino, (uintmax_t)c->names_in);
		/* With names in it, it is one that still counts. */
		return c->type == DT_DIR && c->names_in ? reconnect(f, e->ino, c->type) :
			c->entries ? fix_counts(f, e, 0, 0, c->parent) : 0;
	}
	if (!c->nlink) {
		fsck_delta_problem(f, 0, "inode %ju: it has no name, and no note that it is to be removed", (uintmax_t)e->ino);
		return fix_orphan(f, e->ino, true);
	}
	fsck_delta_problem(f, 0, "inode %ju: no directory has a name for it", (uintmax_t)e->ino);
	return reconnect(f, e->ino, c->type);
}

static int check_directory(struct fsck_delta *f, const struct inode_entry *e, const struct counted *c)
{
	uint64_t parent = e->ino == PINFS_ROOT_INO ? c->parent : c->named_in;
	bool bad = false;

	if (c->entries != c->names_in) {
		fsck_delta_problem(f, 0, "directory inode %ju: it counts %ju names, but has %ju", (uintmax_t)e->ino, (uintmax_t)c->entries, (uintmax_t)c->names_in);
		bad = true;
	}
	if (c->nlink != 2 + c->subdirs) {
		fsck_delta_problem(f, 0, "directory inode %ju: its link count is %u, but with %ju subdirectories it must be %ju", (uintmax_t)e->ino, c->nlink,
			(uintmax_t)c->subdirs, (uintmax_t)c->subdirs + 2);
		bad = true;
	}
	if (c->parent != parent) {
		fsck_delta_problem(f, 0, "directory inode %ju: it says that inode %ju is its parent, but its name is in inode %ju", (uintmax_t)e->ino,
			(uintmax_t)c->parent, (uintmax_t)parent);
		bad = true;
	}
	return bad ? fix_counts(f, e, (uint32_t)(2 + c->subdirs), c->names_in, parent) : 0;
}

/* An orphan of which there is nothing. */
static int check_no_inode(struct fsck_delta *f, const struct inode_entry *e)
{
	if (!(e->flags & INODE_ORPHAN))
		return 0;
	fsck_delta_problem(f, 0, "inode %ju is noted as one without a name, but is not there", (uintmax_t)e->ino);
	return fix_orphan(f, e->ino, false);
}

static int check_counts(struct fsck_delta *f, const struct inode_entry *e)
{
	struct counted c;
	int r = count_inode(f, e, &c);

	if (r < 0)
		return r;
	if (e->flags & INODE_GONE) {
		/* Those of the delta were told already. */
		if (c.names > e->added) {
			fsck_delta_problem(f, 0, "inode %ju: it is marked as gone, but %ju names of the image are left", (uintmax_t)e->ino,
				(uintmax_t)(c.names - e->added));
			return f->fix ? fsck_fix_forget(f, e->ino) : 0;
		}
		return check_no_inode(f, e);
	}
	if (!c.type)
		return check_no_inode(f, e);
	if (e->flags & INODE_ORPHAN && c.nlink && c.type != DT_REG) {
		fsck_delta_problem(f, 0, "inode %ju is noted as one without a name, but has %u", (uintmax_t)e->ino, c.nlink);
		if ((r = fix_orphan(f, e->ino, false)) < 0)
			return r;
	}
	if (e->ino == PINFS_ROOT_INO)
		return check_directory(f, e, &c);
	if (!c.names || c.names > INT64_MAX)
		return check_nameless(f, e, &c);
	/* One name too many was told where it is. */
	if (c.type == DT_DIR)
		return c.names == 1 && c.nlink ? check_directory(f, e, &c) : c.nlink ? 0 :
			fix_counts(f, e, (uint32_t)(2 + c.subdirs), c.names_in, c.named_in);
	if (c.names == c.nlink)
		return 0;
	fsck_delta_problem(f, 0, "inode %ju: its link count is %u, but it has %ju names", (uintmax_t)e->ino, c.nlink, (uintmax_t)c.names);
	r = fix_counts(f, e, (uint32_t)c.names, 0, 0);
	return r == 0 && !c.nlink && e->flags & INODE_ORPHAN ? fix_orphan(f, e->ino, false) : r;
}

/* ---- cycles ---- */

static int parent_of(struct fsck_delta *f, uint64_t ino, uint64_t *ret)
{
	const struct inode_entry *e = fsck_inode_find(f, ino);
	struct image_inode image;
	int r;

	if (e && e->flags & INODE_DELTA) {
		*ret = e->parent;
		return 0;
	}
	r = fsck_image_inode(f, ino, &image);
	/* The image's own directories can't have a cycle: a parent has the smaller number. */
	*ret = r == 0 && S_ISDIR(image.mode) && image.arg1 < ino ? image.arg1 : 0;
	return r == -ENOENT ? 0 : r;
}

/* Follows a directory's parents to the root, or to one that is known to lead there; marks the way. */
static int climb(struct fsck_delta *f, uint64_t from)
{
	uint64_t ino = from;
	bool cycle = false;
	int r = 0;

	for (;;) {
		struct inode_entry *e;

		if (ino == PINFS_ROOT_INO || !ino)
			break;
		e = fsck_inode(f, ino);
		if (!e)
			return -ENOMEM;
		if (e->flags & (INODE_SEEN | INODE_CLIMB)) {
			cycle = e->flags & INODE_CLIMB;
			break;
		}
		e->flags |= INODE_CLIMB;
		r = parent_of(f, ino, &ino);
		if (r < 0)
			return r;
	}
	if (cycle) {
		const struct inode_entry *e = fsck_inode_find(f, ino);

		fsck_delta_problem(f, 0, "directory inode %ju: it lies below itself", (uintmax_t)ino);
		r = e && e->added ? 0 : -EUCLEAN;
	}
	for (uint64_t at = from; at && at != PINFS_ROOT_INO;) {
		struct inode_entry *e = fsck_inode_find(f, at);

		if (!e || e->flags & INODE_SEEN)
			break;
		e->flags = (uint8_t)((e->flags & ~INODE_CLIMB) | INODE_SEEN);
		if (parent_of(f, at, &at) < 0)
			break;
	}
	/* Its name goes: then it has none, and the next round finds it a place. */
	if (cycle && f->fix && r == 0) {
		struct delta_item item;
		struct inode_entry *e = fsck_inode_find(f, ino);
		uint64_t dir = e->named_in, offset = 0;

		while ((r = delta_item_next(f->delta, ITEM_KEY(dir, PINFS_DELTA_DIRENT), offset, &item)) == 0 &&
			item.object == ITEM_KEY(dir, PINFS_DELTA_DIRENT)) {
			struct delta_dirent d;

			if (delta_item_dirent(f->delta, &item, &d) == 0 && d.ino == ino)
				return fix_unname(f, &item, &d);
			offset = item.offset + 1;
		}
	}
	return r == -ENOENT || r == -EUCLEAN ? 0 : r;
}

/* ---- all of them ---- */

/* Goes through the names of the delta alone. */
static int each_dirent(struct fsck_delta *f, int (*fn)(struct fsck_delta *f, const struct delta_item *item))
{
	_cleanup_free_ struct delta_item *item = malloc(sizeof(*item));
	uint64_t object = ITEM_KEY(1, PINFS_DELTA_DIRENT), offset = 0;
	int r = item ? 0 : -ENOMEM;

	while (r == 0 && (r = delta_item_next(f->delta, object, offset, item)) == 0) {
		uint64_t ino = delta_item_ino(item);
		const struct inode_entry *e;

		if (fsck_delta_cancelled(f))
			return -ECANCELED;
		if (delta_item_type(item) != PINFS_DELTA_DIRENT) {
			object = ITEM_KEY(ino + (delta_item_type(item) > PINFS_DELTA_DIRENT), PINFS_DELTA_DIRENT);
			offset = 0;
			continue;
		}
		e = fsck_inode_find(f, ino);
		/* Those of directories that aren't were told. */
		if (e && (e->flags & (INODE_DELTA | INODE_GONE)) == INODE_DELTA && e->type == DT_DIR)
			r = fn(f, item);
		object = item->object + (item->offset == UINT64_MAX);
		offset = item->offset + 1;
	}
	return r == -ENOENT ? 0 : r;
}

int fsck_delta_names(struct fsck_delta *f)
{
	_cleanup_free_ uint64_t *list = NULL;
	size_t count = 0;
	int r = each_dirent(f, check_target);

	if (r < 0)
		return r;
	/* Repairs and climbing make entries: the list stays. */
	list = malloc((f->inode_count + 1) * sizeof(*list));
	if (!list)
		return -ENOMEM;
	for (size_t i = 0; i < f->inode_slots; i++)
		if (f->inodes[i].ino)
			list[count++] = f->inodes[i].ino;
	for (size_t i = 0; r == 0 && i < count; i++) {
		struct inode_entry e = *fsck_inode_find(f, list[i]);

		r = fsck_delta_cancelled(f) ? -ECANCELED : check_counts(f, &e);
	}
	for (size_t i = 0; r == 0 && i < count; i++) {
		const struct inode_entry *e = fsck_inode_find(f, list[i]);

		if ((e->flags & (INODE_DELTA | INODE_GONE)) == INODE_DELTA && e->type == DT_DIR && e->nlink)
			r = climb(f, list[i]);
	}
	return r;
}

/* ---- names of what is affected ---- */

struct way {
	char text[4096];
	size_t at;
};

static bool prepend(struct way *w, const char *name)
{
	size_t len = strlen(name);

	if (len + 1 > w->at)
		return false;
	w->at -= len;
	memcpy(w->text + w->at, name, len);
	w->text[--w->at] = '/';
	return true;
}

/* The name that a directory has for an inode. */
static bool name_in(struct fsck_delta *f, uint64_t dir, uint64_t ino, char ret[PINFS_NAME_MAX + 1])
{
	struct image_inode image;
	struct image_dir_iter it;
	struct image_dirent old;
	struct delta_dirent d;
	uint64_t hash = 0;
	bool found = false;
	int r;

	delta_lock(f->delta);
	while (!found && delta_dirent_next(f->delta, dir, hash, &d) == 0) {
		found = d.ino == ino;
		hash = d.hash + 1;
	}
	delta_unlock(f->delta);
	if (found) {
		memcpy(ret, d.name, sizeof(d.name));
		return true;
	}
	if (fsck_image_inode(f, dir, &image) < 0 || !S_ISDIR(image.mode) || image_dir_iter_begin(f->image, &image, 0, &it) < 0)
		return false;
	while (!found && (r = image_dir_iter_next(&it, &old)) > 0) {
		if (old.ino != ino)
			continue;
		delta_lock(f->delta);
		found = delta_dirent_get(f->delta, dir, old.name, old.name_len, &d) == -ENOENT;
		delta_unlock(f->delta);
		memcpy(ret, old.name, sizeof(old.name));
	}
	image_dir_iter_end(&it);
	return found;
}

/* Directories of the image that are searched for the names of what is affected, all together. */
#define SEARCH_MOST 20000u

/* A directory that has a name for an inode: the delta's, or else one of the image's. */
static uint64_t directory_of(struct fsck_delta *f, const struct inode_entry *e, unsigned *budget, char name[PINFS_NAME_MAX + 1])
{
	if (e->added && name_in(f, e->named_in, e->ino, name))
		return e->named_in;
	for (uint64_t dir = 1; dir <= f->info->inode_count && *budget && e->ino <= f->info->inode_count; dir++) {
		struct image_inode image;

		if (fsck_image_inode(f, dir, &image) < 0 || !S_ISDIR(image.mode))
			continue;
		--*budget;
		if (name_in(f, dir, e->ino, name))
			return dir;
	}
	return 0;
}

static char *path_of(struct fsck_delta *f, const struct inode_entry *e, unsigned *budget)
{
	struct way w = {.at = sizeof(w.text) - 1};
	char name[PINFS_NAME_MAX + 1], above[40];
	uint64_t dir = directory_of(f, e, budget, name), above_ino;
	bool ok = dir && prepend(&w, name);

	snprintf(above, sizeof(above), "(inode %ju)", (uintmax_t)e->ino);
	while (ok && dir != PINFS_ROOT_INO) {
		snprintf(above, sizeof(above), "(inode %ju)", (uintmax_t)dir);
		ok = parent_of(f, dir, &above_ino) == 0 && above_ino && name_in(f, above_ino, dir, name) && prepend(&w, name);
		dir = ok ? above_ino : dir;
	}
	if (!ok && w.at > strlen(above)) {
		w.at -= strlen(above);
		memcpy(w.text + w.at, above, strlen(above));
	}
	return strdup(w.text + w.at);
}

int fsck_delta_paths(struct fsck_delta *f)
{
	struct fsck_delta_report *rep = f->report;
	unsigned budget = SEARCH_MOST;

	for (size_t i = 0; i < f->inode_slots; i++) {
		if (!f->inodes[i].ino || !(f->inodes[i].flags & INODE_AFFECTED))
			continue;
		rep->affected++;
		if (rep->affected_count >= (f->options->max_problems ? f->options->max_problems : 100))
			continue;
		if (array_reserve(&rep->affected_paths, &rep->affected_capacity, rep->affected_count + 1, sizeof(char *)) < 0)
			return -ENOMEM;
		rep->affected_paths[rep->affected_count] = path_of(f, &f->inodes[i], &budget);
		if (!rep->affected_paths[rep->affected_count])
			return -ENOMEM;
		rep->affected_count++;
	}
	return 0;
}
