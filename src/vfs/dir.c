/* SPDX-License-Identifier: MIT */
/* Directories: the names of the image, but for those that the delta hides or replaces, then those of the delta. */
#include "vfs/internal.h"

/* Cookies from here on are names of the delta, by their hash. */
#define COOKIE_DELTA (1ull << 62)

int name_find(struct vfs *v, const struct vfs_inode *dir, const char *name, struct vfs_name *ret)
{
	struct delta_dirent changed;
	struct image_dirent old;
	size_t len = strlen(name);
	int r = -ENOENT;

	ret->in_image = false;
	if (dir->has_image && len) {
		r = image_dir_lookup(v->image, &dir->image, name, len, &old);
		if (r < 0 && r != -ENOENT)
			return r;
		ret->in_image = r == 0;
	} else if (len > PINFS_NAME_MAX) {
		return -ENAMETOOLONG;
	}
	if (v->delta && dir->in_delta && len) {
		int d = delta_dirent_get(v->delta, dir->i.ino, name, len, &changed);

		if (d < 0 && d != -ENOENT)
			return d;
		if (d == 0 && !changed.ino)
			return -ENOENT;
		if (d == 0) {
			ret->ino = changed.ino;
			ret->type = changed.type;
			return 0;
		}
	}
	if (r == 0) {
		ret->ino = old.ino;
		ret->type = old.type;
	}
	return r;
}

/* What a name of a directory leads to; checked as the image's own entries are. */
static int child_load(struct vfs *v, const struct vfs_inode *dir, uint64_t ino, uint8_t type, struct vfs_inode *ret)
{
	int r = inode_load(v, ino, ret);

	/* A name that leads nowhere is damage, and no reason to say that it isn't there. */
	if (r == -ENOENT || (r == 0 && type != (ret->i.mode & S_IFMT) >> 12)) {
		log_error("%s: directory %ju: a name in it leads to inode %ju, which %s", v->name, (uintmax_t)dir->i.ino,
			(uintmax_t)ino, r < 0 ? "is not there" : "is of another kind");
		return -EUCLEAN;
	}
	return r;
}

static int lookup(struct vfs *v, uint64_t parent, const char *name, struct vfs_inode *ret)
{
	struct vfs_inode dir;
	struct vfs_name found;
	int r = inode_load(v, parent, &dir);

	if (r < 0)
		return r;
	/* Who holds nothing but a file handle asks for these; "." also of what is not a directory. */
	if (!strcmp(name, ".")) {
		*ret = dir;
		return 0;
	}
	if (!S_ISDIR(dir.i.mode))
		return -ENOTDIR;
	if (!strcmp(name, ".."))
		return inode_load(v, dir.i.parent, ret);
	if (!dir.in_delta) {
		struct image_dirent entry;
		struct image_inode child;

		r = image_dir_lookup(v->image, &dir.image, name, strlen(name), &entry);
		/* In an unchanged directory entries are what the image says, and checked by it. */
		if (r == 0)
			r = image_dir_child(v->image, &dir.image, &entry, &child);
		return r < 0 ? r : inode_load(v, child.ino, ret);
	}
	r = name_find(v, &dir, name, &found);
	return r < 0 ? r : child_load(v, &dir, found.ino, found.type, ret);
}

int vfs_lookup(struct vfs *v, uint64_t parent, const char *name, struct stat *ret)
{
	struct vfs_inode inode;
	int r;

	vfs_lock(v);
	r = lookup(v, parent, name, &inode);
	/* Before anybody can take its last name away. */
	if (r == 0 && vfs_writable(v))
		r = known_add(v, inode.i.ino);
	vfs_unlock(v);
	if (r == 0)
		inode_stat(v, &inode, ret);
	return r;
}

int vfs_dir_begin(struct vfs *v, uint64_t ino, uint64_t cookie, struct vfs_dir *ret)
{
	struct vfs_inode dir;
	int r;

	vfs_lock(v);
	r = inode_load_dir(v, ino, &dir);
	vfs_unlock(v);
	if (r < 0)
		return r;
	*ret = (struct vfs_dir){.vfs = v, .ino = ino, .parent = dir.i.parent, .in_delta = dir.in_delta, .has_image = dir.has_image, .inode = dir.image, .cookie = cookie};
	return 0;
}

/* The next name of the image that the delta leaves. */
static int next_old(struct vfs_dir *d, struct vfs_dirent *ret)
{
	struct vfs *v = d->vfs;
	struct delta_dirent changed;
	int r;

	if (!d->began) {
		r = image_dir_iter_begin(v->image, &d->inode, d->cookie - 2, &d->iter);
		if (r < 0)
			return r;
		d->began = true;
	}
	for (;;) {
		r = image_dir_iter_next(&d->iter, &d->entry);
		if (r <= 0)
			return r;
		d->cookie = d->entry.index + 3;
		if (!v->delta || !d->in_delta)
			break;
		vfs_lock(v);
		r = delta_dirent_get(v->delta, d->ino, d->entry.name, d->entry.name_len, &changed);
		vfs_unlock(v);
		if (r == -ENOENT)
			break;
		if (r < 0)
			return r;
	}
	*ret = (struct vfs_dirent){.name = d->entry.name, .ino = d->entry.ino, .type = d->entry.type, .cookie = d->cookie};
	return 1;
}

static int next_new(struct vfs_dir *d, struct vfs_dirent *ret)
{
	struct vfs *v = d->vfs;
	int r;

	do {
		if (d->cookie >= INT64_MAX)
			return 0;
		vfs_lock(v);
		r = delta_dirent_next(v->delta, d->ino, d->cookie - COOKIE_DELTA, &d->changed);
		vfs_unlock(v);
		if (r < 0)
			return r == -ENOENT ? 0 : r;
		d->cookie = MIN(COOKIE_DELTA + d->changed.hash + 1, (uint64_t)INT64_MAX);
	} while (!d->changed.ino);
	*ret = (struct vfs_dirent){.name = d->changed.name, .ino = d->changed.ino, .type = d->changed.type, .cookie = d->cookie};
	return 1;
}

int vfs_dir_next(struct vfs_dir *d, struct vfs_dirent *ret)
{
	int r = 0;

	if (d->cookie < 2) {
		bool self = d->cookie == 0;

		d->cookie++;
		*ret = (struct vfs_dirent){
			.name = self ? "." : "..",
			.ino = self ? d->ino : d->parent,
			.type = S_IFDIR >> 12,
			.cookie = d->cookie,
		};
		return 1;
	}
	if (d->cookie < COOKIE_DELTA && d->has_image)
		r = next_old(d, ret);
	if (r)
		return r;
	if (!d->vfs->delta || !d->in_delta)
		return 0;
	d->cookie = MAX(d->cookie, (uint64_t)COOKIE_DELTA);
	return next_new(d, ret);
}

int vfs_dir_getattr(struct vfs_dir *d, const struct vfs_dirent *entry, struct stat *ret)
{
	struct vfs *v = d->vfs;
	struct vfs_inode child;
	int r = 0;

	vfs_lock(v);
	/* An entry of the image has to fit its inode there, in an unchanged directory. */
	if (entry->cookie > 2 && entry->cookie < COOKIE_DELTA && !d->in_delta) {
		struct image_inode old;

		r = image_dir_child(v->image, &d->inode, &d->entry, &old);
	}
	if (r == 0)
		r = inode_load(v, entry->ino, &child);
	/* It has become another one since its name was read, or is gone: a lookup will tell. */
	if (r == 0 && entry->type != (child.i.mode & S_IFMT) >> 12)
		r = -ENOENT;
	if (r == 0 && vfs_writable(v) && entry->cookie > 2)
		r = known_add(v, child.i.ino);
	vfs_unlock(v);
	if (r == 0)
		inode_stat(v, &child, ret);
	return r;
}

void vfs_dir_end(struct vfs_dir *d)
{
	if (d->began)
		image_dir_iter_end(&d->iter);
	d->began = false;
}
