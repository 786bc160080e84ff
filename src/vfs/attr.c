/* SPDX-License-Identifier: MIT */
/* Attributes: of inodes, of the filesystem. */
#include "vfs/internal.h"

#include <linux/fs.h>

int vfs_getattr(struct vfs *v, uint64_t ino, struct stat *ret)
{
	struct vfs_inode inode;
	int r;

	vfs_lock(v);
	r = inode_load(v, ino, &inode);
	vfs_unlock(v);
	if (r == 0)
		inode_stat(v, &inode, ret);
	return r;
}

void vfs_kernel_times(struct vfs *v)
{
	v->kernel_times = true;
}

uint64_t vfs_generation(const struct vfs *v, uint64_t ino)
{
	return v->delta && ino > image_get_info(v->image)->inode_count ? delta_ino_generation(v->delta) : 1;
}

int vfs_readlink(struct vfs *v, uint64_t ino, char ret[PINFS_SYMLINK_MAX + 1])
{
	struct vfs_inode inode;
	int r;

	vfs_lock(v);
	r = inode_load(v, ino, &inode);
	if (r == 0 && !S_ISLNK(inode.i.mode))
		r = -EINVAL;
	if (r == 0 && !inode.has_image)
		r = delta_symlink_get(v->delta, ino, ret);
	else if (r == 0)
		r = image_readlink(v->image, &inode.image, ret);
	vfs_unlock(v);
	return r;
}

int vfs_statfs(struct vfs *v, struct statvfs *ret)
{
	const struct image_info *info = image_get_info(v->image);
	struct delta_info delta;

	*ret = (struct statvfs){
		.f_bsize = info->block_size,
		.f_frsize = PINFS_PAGE_SIZE,
		.f_blocks = DIV_ROUND_UP(info->file_bytes, PINFS_PAGE_SIZE),
		.f_files = info->inode_count,
		.f_namemax = PINFS_NAME_MAX,
	};
	if (!v->delta)
		return 0;
	delta_get_info(v->delta, &delta);
	ret->f_bsize = PINFS_PAGE_SIZE;
	ret->f_bfree = delta.free_pages + delta.pending_pages;
	ret->f_bavail = ret->f_bfree;
	ret->f_blocks += delta.live_pages + delta.reserved_pages + ret->f_bfree;
	/* Inodes cost pages, some of them for each. */
	ret->f_ffree = ret->f_favail = ret->f_bfree * (PINFS_PAGE_SIZE / 512);
	ret->f_files = delta.files + ret->f_ffree;
	return 0;
}

/* ---- changing ---- */

int inode_kill_priv(struct vfs *v, struct vfs_inode *inode)
{
	if (S_ISDIR(inode->i.mode))
		return 0;
	inode->i.mode &= ~(mode_t)S_ISUID;
	/* Without permission to execute it means something else. */
	if (inode->i.mode & S_IXGRP)
		inode->i.mode &= ~(mode_t)S_ISGID;
	return inode_kill_caps(v, inode);
}

int inode_kill_caps(struct vfs *v, struct vfs_inode *inode)
{
	ssize_t n;
	int r;

	n = xattr_get(v, inode, CAPABILITY, NULL, 0);
	if (n == -ENODATA || n == -EOPNOTSUPP)
		return 0;
	if (n < 0)
		return (int)n;
	r = xattrs_own(v, inode);
	return r < 0 ? r : delta_xattr_delete(v->delta, inode->i.ino, CAPABILITY);
}

/* The access ACL says the same as the mode. */
static int chmod_acl(struct vfs *v, struct vfs_inode *inode)
{
	ssize_t n = xattr_get(v, inode, ACL_ACCESS, NULL, 0);
	_cleanup_free_ uint8_t *acl = NULL;
	int r;

	if (n == -ENODATA || n == -EOPNOTSUPP || n == 0)
		return 0;
	if (n < 0)
		return (int)n;
	acl = malloc((size_t)n);
	n = acl ? xattr_get(v, inode, ACL_ACCESS, acl, (size_t)n) : -ENOMEM;
	if (n < 0)
		return (int)n;
	if (!acl_valid(acl, (size_t)n))
		return -EUCLEAN;
	acl_chmod(acl, (size_t)n, inode->i.mode);
	r = xattrs_own(v, inode);
	return r < 0 ? r : delta_xattr_put(v->delta, inode->i.ino, ACL_ACCESS, acl, (size_t)n);
}

/* Where everything is shown as owned by one, it stays that, as on filesystems without owners. */
static int set_owner(const struct vfs_idmap *map, uint32_t id, uint32_t *owner)
{
	if (map->all)
		return id == map->all_as ? 0 : -EPERM;
	return vfs_unmap_id(map, id, owner);
}

static int set_attributes(struct vfs *v, struct vfs_inode *inode, const struct vfs_setattr *set)
{
	struct timespec now = time_now();
	int r = 0;

	if (set->valid & VFS_SET_KILL_PRIV)
		r = inode_kill_priv(v, inode);
	if (r == 0 && set->valid & VFS_SET_UID)
		r = set_owner(&v->uids, set->uid, &inode->i.uid);
	if (r == 0 && set->valid & VFS_SET_GID)
		r = set_owner(&v->gids, set->gid, &inode->i.gid);
	if (r == 0 && set->valid & VFS_SET_MODE) {
		inode->i.mode = (inode->i.mode & S_IFMT) | (set->mode & 07777);
		r = chmod_acl(v, inode);
	}
	if (set->valid & VFS_SET_ATIME_NOW)
		inode->i.atime = now;
	else if (set->valid & VFS_SET_ATIME)
		inode->i.atime = set->atime;
	if (set->valid & VFS_SET_MTIME_NOW)
		inode->i.mtime = now;
	else if (set->valid & VFS_SET_MTIME)
		inode->i.mtime = set->mtime;
	if (set->valid & VFS_SET_CTIME)
		inode->i.ctime = set->ctime;
	else if (!v->kernel_times || !S_ISREG(inode->i.mode))
		inode->i.ctime = now;
	return r;
}

static int set_size(struct vfs *v, uint64_t ino, uint64_t size, bool times)
{
	struct vfs_node *n;
	int r;

	if (size > PINFS_DELTA_FILE_MAX)
		return -EFBIG;
	r = node_get(v, ino, &n);
	if (r < 0)
		return r;
	mutex_lock(&n->lock);
	r = node_truncate(n, size, times);
	mutex_unlock(&n->lock);
	node_put(n);
	return r;
}

static int may_set(const struct vfs_inode *inode, const struct vfs_setattr *set)
{
	int r = inode_may_change(inode);

	/* Appending only: the times may be set to now, nothing else. */
	if (r == 0 && inode->i.flags & FS_APPEND_FL && set->valid & ~(unsigned)(VFS_SET_ATIME_NOW | VFS_SET_MTIME_NOW | VFS_SET_ATIME | VFS_SET_CTIME | VFS_SET_KILL_PRIV | VFS_SET_MTIME))
		r = -EPERM;
	return r;
}

/* All but the size. */
static int try_setattr(struct vfs *v, uint64_t ino, const struct vfs_setattr *set, struct vfs_inode *ret)
{
	struct delta_inode loaded;
	struct vfs_node *n;
	int r = delta_begin(v->delta, 0);

	if (r < 0)
		return r;
	r = inode_load(v, ino, ret);
	loaded = ret->i;
	if (r == 0)
		r = may_set(ret, set);
	if (r == 0)
		r = set_attributes(v, ret, set);
	if (r == 0)
		r = inode_store(v, ret);
	if (r < 0) {
		delta_abort(v->delta);
		return r;
	}
	n = node_find(v, ino);
	/* Those that it remembered when the inode was loaded are history; what has come since isn't. */
	if (n)
		times_stored(n, &loaded);
	r = delta_commit(v->delta);
	if (n && r < 0)
		times_not_stored(n, &loaded);
	if (n)
		node_put(n);
	return r;
}

int vfs_setattr(struct vfs *v, uint64_t ino, const struct vfs_setattr *set, struct stat *ret)
{
	struct vfs_inode inode;
	bool size = set->valid & VFS_SET_SIZE;
	unsigned others = set->valid & ~(unsigned)VFS_SET_SIZE;
	int r;

	if (!vfs_writable(v))
		return -EROFS;
	if (size) {
		vfs_lock(v);
		r = inode_load(v, ino, &inode);
		vfs_unlock(v);
		if (r == 0)
			r = may_set(&inode, set);
		if (r == 0 && !S_ISREG(inode.i.mode))
			r = S_ISDIR(inode.i.mode) ? -EISDIR : -EINVAL;
		/* Of a file whose size was set the times are new, even if it is the same. */
		if (r == 0)
			r = set_size(v, ino, set->size, !(set->valid & (VFS_SET_MTIME | VFS_SET_MTIME_NOW)));
		if (r < 0)
			return r;
		if (!others)
			return vfs_getattr(v, ino, ret);
	}
	while ((r = try_setattr(v, ino, set, &inode)) == -EAGAIN)
		if ((r = xattrs_copy(v, ino)) < 0)
			break;
	if (r == 0)
		inode_stat(v, &inode, ret);
	return r;
}

/* ---- durable at once ---- */

static bool wants_sync(const struct vfs *v, const struct vfs_inode *inode)
{
	bool dir = S_ISDIR(inode->i.mode);

	return v->options.sync || (dir && v->options.dirsync) || inode->i.flags & (FS_SYNC_FL | (dir ? FS_DIRSYNC_FL : 0));
}

int vfs_settle(struct vfs *v, uint64_t ino)
{
	struct vfs_inode inode;
	struct vfs_node *n;
	bool yes;
	int r = 0, e;

	if (!vfs_writable(v))
		return 0;
	vfs_lock(v);
	yes = inode_load(v, ino, &inode) == 0 && wants_sync(v, &inode);
	vfs_unlock(v);
	if (!yes)
		return 0;
	n = node_find(v, ino);
	if (n) {
		r = node_sync(n, NULL);
		node_put(n);
	}
	e = delta_flush(v->delta);
	return r < 0 ? r : e;
}

/* ---- flags ---- */

/* What FS_IOC_SETFLAGS may change. The others that are known are shown, and can't be. */
#define FLAGS_CHANGE (FS_IMMUTABLE_FL | FS_APPEND_FL | FS_NODUMP_FL | FS_NOATIME_FL | FS_SYNC_FL | FS_DIRSYNC_FL | FS_PROJINHERIT_FL)

int vfs_getflags(struct vfs *v, uint64_t ino, uint32_t *ret_flags, uint32_t *ret_project)
{
	struct vfs_inode inode;
	int r;

	vfs_lock(v);
	r = inode_load(v, ino, &inode);
	vfs_unlock(v);
	if (r == 0 && !S_ISREG(inode.i.mode) && !S_ISDIR(inode.i.mode))
		r = -ENOTTY;
	if (r < 0)
		return r;
	*ret_flags = inode.i.flags;
	*ret_project = inode.i.project;
	return 0;
}

int vfs_setflags(struct vfs *v, uint64_t ino, uint32_t flags, uint32_t project)
{
	struct vfs_inode inode;
	int r;

	if (!vfs_writable(v))
		return -EROFS;
	if (flags & ~(uint32_t)FLAGS_CHANGE)
		return -EOPNOTSUPP;
	r = delta_begin(v->delta, 0);
	if (r < 0)
		return r;
	r = inode_load(v, ino, &inode);
	if (r == 0 && !S_ISREG(inode.i.mode) && !S_ISDIR(inode.i.mode))
		r = -ENOTTY;
	if (r == 0 && flags & (FS_DIRSYNC_FL | FS_PROJINHERIT_FL) && !S_ISDIR(inode.i.mode))
		r = -EINVAL;
	/* The kernel keeps what is written, and can't be told of such files. */
	if (r == 0 && v->kernel_times && flags & ~inode.i.flags & FS_SYNC_FL)
		r = -EOPNOTSUPP;
	if (r == 0) {
		inode.i.flags = flags;
		inode.i.project = project;
		inode.i.ctime = time_now();
		r = inode_store(v, &inode);
	}
	if (r < 0) {
		delta_abort(v->delta);
		return r;
	}
	return delta_commit(v->delta);
}
