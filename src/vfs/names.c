/* SPDX-License-Identifier: MIT */
/* Names come, go and move: each call is one transaction. */
#include "vfs/internal.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/sysmacros.h>

#define LINK_MAX_ (UINT32_MAX / 2)

/* Begins a transaction that changes names of a directory, and loads that. */
static int dir_begin(struct vfs *v, uint64_t parent, unsigned flags, struct vfs_inode *ret)
{
	int r;

	if (!v->delta)
		return -EROFS;
	r = delta_begin(v->delta, flags);
	if (r < 0)
		return r;
	r = inode_load_dir(v, parent, ret);
	/* A directory that has lost its name takes no new ones. */
	if (r == 0 && !ret->i.nlink)
		r = -ENOENT;
	if (r == 0)
		r = inode_may_change(ret);
	if (r < 0)
		delta_abort(v->delta);
	return r;
}

static int end(struct vfs *v, int r)
{
	if (r == 0)
		return delta_commit(v->delta);
	delta_abort(v->delta);
	return r;
}

/* The same, for who is told of an inode. */
static int end_known(struct vfs *v, int r, uint64_t ino)
{
	bool added;

	if (r == 0)
		r = known_add(v, ino);
	added = r == 0;
	r = end(v, r);
	/* Its number will be another file's. */
	if (r < 0 && added)
		vfs_forget(v, ino, 1);
	return r;
}

static int check_name(const char *name)
{
	size_t len = strlen(name);

	return len > PINFS_NAME_MAX ? -ENAMETOOLONG : !len || !strcmp(name, ".") || !strcmp(name, "..") || strchr(name, '/') ? -EINVAL : 0;
}

static void dir_changed(struct vfs_inode *dir, struct timespec now)
{
	dir->i.mtime = dir->i.ctime = now;
}

/* A name that wasn't there, or leads elsewhere now. */
static int name_set(struct vfs *v, struct vfs_inode *dir, const char *name, const struct vfs_inode *to)
{
	return delta_dirent_put(v->delta, dir->i.ino, name, strlen(name), to->i.ino, (uint8_t)((to->i.mode & S_IFMT) >> 12));
}

/* A name that was there is not any more. */
static int name_clear(struct vfs *v, struct vfs_inode *dir, const char *name, const struct vfs_name *found)
{
	size_t len = strlen(name);

	return found->in_image ? delta_dirent_put(v->delta, dir->i.ino, name, len, 0, 0) : delta_dirent_delete(v->delta, dir->i.ino, name, len);
}

/* ---- making ---- */

/* Attributes of a new inode, as its directory and who asks have it; its ACLs in the transaction. */
static int inherit(struct vfs *v, const struct vfs_inode *dir, struct vfs_inode *new, mode_t mode, const struct vfs_cred *cred)
{
	_cleanup_free_ uint8_t *acl = NULL;
	ssize_t n = 0;
	int r = 0;

	r = vfs_unmap_id(&v->uids, cred->uid, &new->i.uid);
	if (r == 0 && dir->i.mode & S_ISGID) {
		new->i.gid = dir->i.gid;
		if (S_ISDIR(mode))
			mode |= S_ISGID;
	} else if (r == 0) {
		r = vfs_unmap_id(&v->gids, cred->gid, &new->i.gid);
	}
	if (r < 0)
		return r;
	new->i.flags = dir->i.flags & (FS_NODUMP_FL | FS_NOATIME_FL | FS_SYNC_FL | (S_ISDIR(mode) ? FS_DIRSYNC_FL : 0));
	if (dir->i.flags & FS_PROJINHERIT_FL) {
		new->i.project = dir->i.project;
		new->i.flags |= S_ISDIR(mode) ? FS_PROJINHERIT_FL : 0;
	}
	new->i.mode = mode;
	if (S_ISLNK(mode))
		return 0;
	n = xattr_get(v, dir, ACL_DEFAULT, NULL, 0);
	if (n > 0) {
		acl = malloc((size_t)n);
		n = acl ? xattr_get(v, dir, ACL_DEFAULT, acl, (size_t)n) : -ENOMEM;
	}
	if (n == -ENODATA || n == 0 || n == -EOPNOTSUPP) {
		new->i.mode = mode & ~(cred->umask & 0777);
		return 0;
	}
	if (n < 0)
		return (int)n;
	if (!acl_valid(acl, (size_t)n))
		return -EUCLEAN;
	if (S_ISDIR(mode))
		r = delta_xattr_put(v->delta, new->i.ino, ACL_DEFAULT, acl, (size_t)n);
	if (r == 0 && !acl_create(acl, (size_t)n, &mode))
		r = delta_xattr_put(v->delta, new->i.ino, ACL_ACCESS, acl, (size_t)n);
	new->i.mode = mode;
	return r;
}

/* A new inode, without a name so far. -ENOSPC: there are no numbers left. */
static int inode_new(struct vfs *v, const struct vfs_inode *dir, mode_t mode, dev_t rdev, const struct vfs_cred *cred, struct vfs_inode *ret)
{
	bool device = S_ISCHR(mode) || S_ISBLK(mode);
	struct timespec now = time_now();

	*ret = (struct vfs_inode){.i = {
		.ino = delta_ino_new(v->delta),
		.nlink = S_ISDIR(mode) ? 2 : 1,
		.atime = now,
		.mtime = now,
		.ctime = now,
		.btime = now,
		.major = device ? major(rdev) : 0,
		.minor = device ? minor(rdev) : 0,
		.generation = delta_ino_generation(v->delta),
		.parent = S_ISDIR(mode) ? dir->i.ino : 0,
		.own_xattrs = true,
	}};
	return ret->i.ino ? inherit(v, dir, ret, mode, cred) : -ENOSPC;
}

/* Everything that makes a name and an inode. */
static int make(struct vfs *v, uint64_t parent, const char *name, mode_t mode, dev_t rdev, const char *target, const struct vfs_cred *cred,
	struct stat *ret)
{
	struct vfs_inode dir, new;
	struct vfs_name found;
	int r = check_name(name);

	if (r < 0)
		return r == -EINVAL ? -EEXIST : r;
	r = dir_begin(v, parent, 0, &dir);
	if (r < 0)
		return r;
	r = name_find(v, &dir, name, &found);
	r = r == 0 ? -EEXIST : r == -ENOENT ? 0 : r;
	if (r == 0 && S_ISDIR(mode) && dir.i.nlink >= LINK_MAX_)
		r = -EMLINK;
	if (r == 0)
		r = inode_new(v, &dir, mode, rdev, cred, &new);
	if (r == 0 && target) {
		new.i.size = new.size = strlen(target);
		r = delta_symlink_put(v->delta, new.i.ino, target);
	}
	if (r == 0)
		r = inode_store(v, &new);
	if (r == 0)
		r = name_set(v, &dir, name, &new);
	if (r == 0) {
		dir_changed(&dir, new.i.ctime);
		dir.i.entries++;
		dir.i.nlink += S_ISDIR(mode);
		r = inode_store(v, &dir);
	}
	if (r == 0)
		r = delta_files_add(v->delta, 1);
	r = end_known(v, r, new.i.ino);
	if (r == 0)
		inode_stat(v, &new, ret);
	return r;
}

int vfs_mknod(struct vfs *v, uint64_t parent, const char *name, mode_t mode, dev_t rdev, const struct vfs_cred *cred, struct stat *ret)
{
	switch (mode & S_IFMT) {
	case 0:
		mode |= S_IFREG;
		break;
	case S_IFREG:
	case S_IFCHR:
	case S_IFBLK:
	case S_IFIFO:
	case S_IFSOCK:
		break;
	default:
		return v->delta ? -EINVAL : -EROFS;
	}
	return make(v, parent, name, mode & (S_IFMT | 07777), rdev, NULL, cred, ret);
}

int vfs_mkdir(struct vfs *v, uint64_t parent, const char *name, mode_t mode, const struct vfs_cred *cred, struct stat *ret)
{
	return make(v, parent, name, S_IFDIR | (mode & 07777), 0, NULL, cred, ret);
}

int vfs_symlink(struct vfs *v, uint64_t parent, const char *name, const char *target, const struct vfs_cred *cred, struct stat *ret)
{
	size_t len = strlen(target);

	if (!len)
		return -ENOENT;
	if (len > PINFS_SYMLINK_MAX)
		return -ENAMETOOLONG;
	return make(v, parent, name, S_IFLNK | 0777, 0, target, cred, ret);
}

int vfs_tmpfile(struct vfs *v, uint64_t parent, mode_t mode, const struct vfs_cred *cred, struct stat *ret)
{
	struct vfs_inode dir, new;
	int r = dir_begin(v, parent, 0, &dir);

	if (r < 0)
		return r;
	r = inode_new(v, &dir, S_IFREG | (mode & 07777), 0, cred, &new);
	new.i.nlink = 0;
	if (r == 0)
		r = inode_store(v, &new);
	if (r == 0)
		r = delta_orphan_add(v->delta, new.i.ino);
	if (r == 0)
		r = delta_files_add(v->delta, 1);
	r = end_known(v, r, new.i.ino);
	if (r < 0)
		return r;
	inode_stat(v, &new, ret);
	orphan_new(v, new.i.ino);
	return 0;
}

int vfs_link(struct vfs *v, uint64_t ino, uint64_t parent, const char *name, struct stat *ret)
{
	struct vfs_inode dir, inode;
	struct vfs_name found;
	bool was_orphan = false;
	int r = check_name(name);

	if (r < 0)
		return r == -EINVAL ? -EEXIST : r;
	r = dir_begin(v, parent, 0, &dir);
	if (r < 0)
		return r;
	r = name_find(v, &dir, name, &found);
	r = r == 0 ? -EEXIST : r == -ENOENT ? inode_load(v, ino, &inode) : r;
	if (r == 0 && S_ISDIR(inode.i.mode))
		r = -EPERM;
	if (r == 0 && inode.i.flags & (FS_IMMUTABLE_FL | FS_APPEND_FL))
		r = -EPERM;
	if (r == 0 && inode.i.nlink >= LINK_MAX_)
		r = -EMLINK;
	if (r == 0) {
		was_orphan = !inode.i.nlink;
		inode.i.ctime = time_now();
		inode.i.nlink++;
		r = inode_store(v, &inode);
	}
	if (r == 0 && was_orphan)
		r = delta_orphan_remove(v->delta, ino);
	if (r == 0)
		r = name_set(v, &dir, name, &inode);
	if (r == 0) {
		dir_changed(&dir, inode.i.ctime);
		dir.i.entries++;
		r = inode_store(v, &dir);
	}
	r = end_known(v, r, ino);
	if (r < 0)
		return r;
	if (was_orphan)
		orphan_named(v);
	inode_stat(v, &inode, ret);
	return 0;
}

/* ---- taking away ---- */

/* Within a transaction: an inode loses a name; a directory, which is empty, its only one. *ret_last: it has none any more. */
static int inode_unname(struct vfs *v, struct vfs_inode *inode, struct timespec now, bool *ret_last)
{
	int r;

	inode->i.ctime = now;
	if (S_ISDIR(inode->i.mode))
		inode->i.nlink = 0;
	else
		inode->i.nlink -= inode->i.nlink > 0;
	*ret_last = !inode->i.nlink;
	r = inode_store(v, inode);
	if (r == 0 && *ret_last)
		r = delta_orphan_add(v->delta, inode->i.ino);
	return r;
}

static int may_unname(const struct vfs_inode *dir, const struct vfs_inode *inode)
{
	return dir->i.flags & FS_APPEND_FL || inode->i.flags & (FS_IMMUTABLE_FL | FS_APPEND_FL) ? -EPERM : 0;
}

static int remove_name(struct vfs *v, uint64_t parent, const char *name, bool directory)
{
	struct vfs_inode dir, inode;
	struct vfs_name found;
	bool last = false;
	int r;

	if (directory && !strcmp(name, "."))
		return -EINVAL;
	if (directory && !strcmp(name, ".."))
		return -ENOTEMPTY;
	r = check_name(name);
	if (r < 0)
		return r == -EINVAL ? -EISDIR : r;
	r = dir_begin(v, parent, DELTA_SHRINKS, &dir);
	if (r < 0)
		return r;
	r = name_find(v, &dir, name, &found);
	if (r == 0)
		r = inode_load(v, found.ino, &inode);
	if (r == 0 && directory != S_ISDIR(inode.i.mode))
		r = directory ? -ENOTDIR : -EISDIR;
	if (r == 0)
		r = may_unname(&dir, &inode);
	if (r == 0 && directory && inode.i.entries)
		r = -ENOTEMPTY;
	if (r == 0)
		r = name_clear(v, &dir, name, &found);
	if (r == 0) {
		dir_changed(&dir, time_now());
		dir.i.entries -= dir.i.entries > 0;
		dir.i.nlink -= directory && dir.i.nlink > 2;
		r = inode_store(v, &dir);
	}
	if (r == 0)
		r = inode_unname(v, &inode, dir.i.ctime, &last);
	r = end(v, r);
	if (r == 0 && last)
		orphan_new(v, inode.i.ino);
	return r;
}

int vfs_unlink(struct vfs *v, uint64_t parent, const char *name)
{
	return remove_name(v, parent, name, false);
}

int vfs_rmdir(struct vfs *v, uint64_t parent, const char *name)
{
	return remove_name(v, parent, name, true);
}

/* ---- renaming ---- */

struct rename {
	struct vfs *v;
	struct vfs_inode from, to, moved, target; /* directories, what moves, what is at its new place */
	struct vfs_name from_name, to_name;
	const char *name, *new_name;
	bool same_dir, has_target, last;
	struct timespec now;
};

/* The directory that is changed twice is one struct. */
static struct vfs_inode *to_dir(struct rename *rn)
{
	return rn->same_dir ? &rn->from : &rn->to;
}

/* Does a directory lie below another one, or is it that? The kernel has looked; a hostile one may not have. */
static int lies_below(struct vfs *v, const struct vfs_inode *dir, uint64_t above)
{
	struct vfs_inode at = *dir;

	for (unsigned depth = 0; depth < 1u << 20; depth++) {
		int r;

		if (at.i.ino == above)
			return -EINVAL;
		if (at.i.ino == VFS_ROOT_INO || at.i.ino == at.i.parent)
			return 0;
		r = inode_load_dir(v, at.i.parent, &at);
		if (r < 0)
			return r;
	}
	return -EUCLEAN;
}

static int rename_load(struct rename *rn, uint64_t parent, uint64_t new_parent, unsigned flags)
{
	struct vfs *v = rn->v;
	int r;

	rn->same_dir = parent == new_parent;
	r = name_find(v, &rn->from, rn->name, &rn->from_name);
	if (r == 0)
		r = inode_load(v, rn->from_name.ino, &rn->moved);
	if (r == 0 && !rn->same_dir) {
		r = inode_load_dir(v, new_parent, &rn->to);
		if (r == 0 && !rn->to.i.nlink)
			r = -ENOENT;
		if (r == 0)
			r = inode_may_change(&rn->to);
	}
	if (r < 0)
		return r;
	r = name_find(v, to_dir(rn), rn->new_name, &rn->to_name);
	rn->has_target = r == 0;
	if (r == -ENOENT)
		r = flags & RENAME_EXCHANGE ? -ENOENT : 0;
	else if (r == 0)
		r = flags & RENAME_NOREPLACE ? -EEXIST : inode_load(v, rn->to_name.ino, &rn->target);
	return r;
}

static int rename_check(struct rename *rn, unsigned flags)
{
	struct vfs *v = rn->v;
	int r = may_unname(&rn->from, &rn->moved);

	if (r == 0 && rn->has_target)
		r = may_unname(to_dir(rn), &rn->target);
	if (r == 0 && S_ISDIR(rn->moved.i.mode) && !rn->same_dir)
		r = lies_below(v, &rn->to, rn->moved.i.ino);
	if (r < 0)
		return r;
	if (flags & RENAME_EXCHANGE)
		return S_ISDIR(rn->target.i.mode) && !rn->same_dir ? lies_below(v, &rn->from, rn->target.i.ino) : 0;
	if (!rn->has_target)
		return S_ISDIR(rn->moved.i.mode) && !rn->same_dir && rn->to.i.nlink >= LINK_MAX_ ? -EMLINK : 0;
	if (S_ISDIR(rn->target.i.mode))
		return !S_ISDIR(rn->moved.i.mode) ? -EISDIR : rn->target.i.entries ? -ENOTEMPTY : 0;
	return S_ISDIR(rn->moved.i.mode) ? -ENOTDIR : 0;
}

/* An inode has another directory now. */
static void reparent(struct vfs_inode *inode, struct vfs_inode *from, struct vfs_inode *to)
{
	if (!S_ISDIR(inode->i.mode) || from == to)
		return;
	inode->i.parent = to->i.ino;
	from->i.nlink -= from->i.nlink > 2;
	to->i.nlink++;
}

static int rename_exchange(struct rename *rn)
{
	struct vfs_inode *to = to_dir(rn);
	struct vfs *v = rn->v;
	int r;

	reparent(&rn->moved, &rn->from, to);
	reparent(&rn->target, to, &rn->from);
	rn->moved.i.ctime = rn->target.i.ctime = rn->now;
	r = name_set(v, &rn->from, rn->name, &rn->target);
	if (r == 0)
		r = name_set(v, to, rn->new_name, &rn->moved);
	if (r == 0)
		r = inode_store(v, &rn->moved);
	return r < 0 ? r : inode_store(v, &rn->target);
}

/* The character device 0, 0 that overlayfs takes for "not there". */
static int whiteout(struct rename *rn, const struct vfs_cred *cred)
{
	struct vfs_inode new;
	int r = inode_new(rn->v, &rn->from, S_IFCHR, 0, cred, &new);

	if (r == 0)
		r = inode_store(rn->v, &new);
	if (r == 0)
		r = name_set(rn->v, &rn->from, rn->name, &new);
	if (r == 0)
		r = delta_files_add(rn->v->delta, 1);
	rn->from.i.entries++;
	return r;
}

static int rename_move(struct rename *rn, unsigned flags, const struct vfs_cred *cred)
{
	struct vfs_inode *to = to_dir(rn);
	struct vfs *v = rn->v;
	int r;

	r = name_clear(v, &rn->from, rn->name, &rn->from_name);
	rn->from.i.entries -= rn->from.i.entries > 0;
	if (r == 0 && rn->has_target) {
		to->i.nlink -= S_ISDIR(rn->target.i.mode) && to->i.nlink > 2;
		r = inode_unname(v, &rn->target, rn->now, &rn->last);
	} else {
		to->i.entries++;
	}
	if (r == 0)
		r = name_set(v, to, rn->new_name, &rn->moved);
	reparent(&rn->moved, &rn->from, to);
	rn->moved.i.ctime = rn->now;
	if (r == 0)
		r = inode_store(v, &rn->moved);
	if (r == 0 && flags & RENAME_WHITEOUT)
		r = whiteout(rn, cred);
	return r;
}

/*
 * What replaces another file by rename should have its content on the disk first, or a crash could leave an empty file in place of either:
 * many programs count on it.
 */
static void settle_before(struct vfs *v, uint64_t parent, const char *name, uint64_t new_parent, const char *new_name)
{
	struct vfs_inode dir, new_dir;
	struct vfs_name found, target;
	struct vfs_node *n = NULL;
	bool replaces;
	int r;

	vfs_lock(v);
	r = inode_load_dir(v, parent, &dir);
	if (r == 0)
		r = name_find(v, &dir, name, &found);
	replaces = r == 0 && inode_load_dir(v, new_parent, &new_dir) == 0 && name_find(v, &new_dir, new_name, &target) == 0;
	vfs_unlock(v);
	if (replaces)
		n = node_find(v, found.ino);
	if (!n)
		return;
	/* An error is kept for fsync. */
	if (n->mapping)
		cache_sync(n->mapping, 0, UINT64_MAX, NULL);
	node_put(n);
}

int vfs_rename(struct vfs *v, uint64_t parent, const char *name, uint64_t new_parent, const char *new_name, unsigned flags,
	const struct vfs_cred *cred)
{
	struct rename rn = {.v = v, .name = name, .new_name = new_name};
	int r = check_name(name), r2 = check_name(new_name);

	if (flags & ~(unsigned)(RENAME_NOREPLACE | RENAME_EXCHANGE | RENAME_WHITEOUT) ||
		(flags & RENAME_EXCHANGE && flags & (RENAME_NOREPLACE | RENAME_WHITEOUT)))
		return -EINVAL;
	if (r < 0 || r2 < 0)
		return r == -ENAMETOOLONG || r2 == -ENAMETOOLONG ? -ENAMETOOLONG : -EBUSY;
	if (v->delta && !(flags & (RENAME_EXCHANGE | RENAME_NOREPLACE)))
		settle_before(v, parent, name, new_parent, new_name);
	r = dir_begin(v, parent, 0, &rn.from);
	if (r < 0)
		return r;
	rn.now = time_now();
	r = rename_load(&rn, parent, new_parent, flags);
	/* Two names of one file: nothing happens. */
	if (r == 0 && rn.has_target && rn.target.i.ino == rn.moved.i.ino)
		return end(v, 0);
	if (r == 0)
		r = rename_check(&rn, flags);
	if (r == 0)
		r = flags & RENAME_EXCHANGE ? rename_exchange(&rn) : rename_move(&rn, flags, cred);
	if (r == 0) {
		dir_changed(&rn.from, rn.now);
		r = inode_store(v, &rn.from);
	}
	if (r == 0 && !rn.same_dir) {
		dir_changed(&rn.to, rn.now);
		r = inode_store(v, &rn.to);
	}
	r = end(v, r);
	if (r == 0 && rn.last)
		orphan_new(v, rn.target.i.ino);
	return r;
}
