/* SPDX-License-Identifier: MIT */
/* Requests about attributes, plain and extended, and about the whole. */
#include "fuse/internal.h"

void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct fuse_server *s = server_of(req);
	struct stat st;
	int r = vfs_getattr(s->vfs, ino, &st);

	if (r < 0)
		reply_error(req, r);
	else
		fuse_reply_attr(req, &st, fuse_attr_timeout(s, &st));
}

/* The time of day is said by two bits, of which the vfs wants the second alone. */
static unsigned set_time(int to_set, int set, int now, unsigned vfs_set, unsigned vfs_now)
{
	return to_set & now ? vfs_now : to_set & set ? vfs_set : 0;
}

void op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set, struct fuse_file_info *fi)
{
	struct fuse_server *s = server_of(req);
	struct vfs_setattr set = {
		.mode = attr->st_mode & 07777,
		.uid = attr->st_uid,
		.gid = attr->st_gid,
		.size = (uint64_t)attr->st_size,
		.atime = attr->st_atim,
		.mtime = attr->st_mtim,
		.ctime = attr->st_ctim,
	};
	struct stat st;
	int r;

	set.valid |= to_set & FUSE_SET_ATTR_MODE ? VFS_SET_MODE : 0;
	set.valid |= to_set & FUSE_SET_ATTR_UID ? VFS_SET_UID : 0;
	set.valid |= to_set & FUSE_SET_ATTR_GID ? VFS_SET_GID : 0;
	set.valid |= to_set & FUSE_SET_ATTR_SIZE ? VFS_SET_SIZE : 0;
	set.valid |= to_set & FUSE_SET_ATTR_CTIME ? VFS_SET_CTIME : 0;
	set.valid |= set_time(to_set, FUSE_SET_ATTR_ATIME, FUSE_SET_ATTR_ATIME_NOW, VFS_SET_ATIME, VFS_SET_ATIME_NOW);
	set.valid |= set_time(to_set, FUSE_SET_ATTR_MTIME, FUSE_SET_ATTR_MTIME_NOW, VFS_SET_MTIME, VFS_SET_MTIME_NOW);
	set.valid |= fuse_marks()->kill_priv ? VFS_SET_KILL_PRIV : 0;
	/* Nothing: the kernel would have killed setuid itself, and then left it to us and the write that follows. */
	r = set.valid ? settled(req, vfs_setattr(s->vfs, ino, &set, &st), ino) : vfs_getattr(s->vfs, ino, &st);
	if (r < 0)
		reply_error(req, r);
	else
		fuse_reply_attr(req, &st, fuse_attr_timeout(s, &st));
}

void op_statfs(fuse_req_t req, fuse_ino_t ino)
{
	struct statvfs st;
	int r = vfs_statfs(server_of(req)->vfs, &st);

	if (r < 0)
		reply_error(req, r);
	else
		fuse_reply_statfs(req, &st);
}

/* ENOSYS: the kernel doesn't ask again, for any file. */
static bool never_any_xattrs(const struct fuse_server *s)
{
	return !s->writable && !vfs_has_xattrs(s->vfs);
}

static void reply_xattr(fuse_req_t req, ssize_t n, const char *buf, size_t size)
{
	if (n < 0)
		reply_error(req, (int)n);
	else if (!size)
		fuse_reply_xattr(req, (size_t)n);
	else
		fuse_reply_buf(req, buf, (size_t)n);
}

void op_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
	struct fuse_server *s = server_of(req);
	_cleanup_free_ char *buf = NULL;
	ssize_t n;

	if (never_any_xattrs(s)) {
		fuse_reply_err(req, ENOSYS);
		return;
	}
	size = MIN(size, (size_t)PINFS_XATTR_VALUE_MAX);
	buf = size ? malloc(size) : NULL;
	n = size && !buf ? -ENOMEM : vfs_getxattr(s->vfs, ino, name, buf, size);
	reply_xattr(req, n, buf, size);
}

/* Names of which getxattr(2) would say that they aren't there: the kernel answers that by itself. Returns what is left. */
static ssize_t hide_trusted(fuse_req_t req, char *list, size_t len)
{
	static const char trusted[] = "trusted.";
	int may = -1;
	size_t to = 0;

	for (size_t at = 0, n; at < len; at += n) {
		n = strnlen(list + at, len - at) + 1;
		if (!strncmp(list + at, trusted, sizeof(trusted) - 1)) {
			if (may < 0)
				may = fuse_caller_has_admin(req);
			if (!may)
				continue;
		}
		memmove(list + to, list + at, n);
		to += n;
	}
	return (ssize_t)to;
}

void op_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
	struct fuse_server *s = server_of(req);
	_cleanup_free_ char *buf = NULL;
	ssize_t n;

	if (never_any_xattrs(s)) {
		fuse_reply_err(req, ENOSYS);
		return;
	}
	buf = malloc(PINFS_XATTR_LIST_MAX);
	n = buf ? vfs_listxattr(s->vfs, ino, buf, PINFS_XATTR_LIST_MAX) : -ENOMEM;
	if (n > 0)
		n = hide_trusted(req, buf, (size_t)n);
	reply_xattr(req, size && n > (ssize_t)size ? -ERANGE : n, buf, size);
}

void op_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size, int flags)
{
	int r = vfs_setxattr(server_of(req)->vfs, ino, name, value, size, flags, fuse_marks()->acl_kill_sgid);

	reply_error(req, settled(req, r, ino));
}

void op_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name)
{
	reply_error(req, settled(req, vfs_removexattr(server_of(req)->vfs, ino, name), ino));
}
