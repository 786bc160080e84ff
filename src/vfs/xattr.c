/* SPDX-License-Identifier: MIT */
/* Extended attributes: the image's, until one is changed; then all of them are the delta's. */
#include "vfs/internal.h"

#include <linux/fs.h>
#include <sys/xattr.h>

bool vfs_has_xattrs(const struct vfs *v)
{
	return v->delta || image_get_info(v->image)->compat & PINFS_COMPAT_XATTR;
}

bool vfs_has_acls(const struct vfs *v)
{
	return v->delta || image_get_info(v->image)->compat & PINFS_COMPAT_ACL;
}

/* Ids in ACLs are shown, and stored, like owners. */
static int map_acl(const struct vfs *v, uint8_t *value, size_t size, bool store)
{
	struct {
		pinfs_le16 tag, perm;
		pinfs_le32 id;
	} entry;

	for (size_t at = sizeof(pinfs_le32); at + sizeof(entry) <= size; at += sizeof(entry)) {
		const struct vfs_idmap *map;
		uint32_t id;
		int r = 0;

		memcpy(&entry, value + at, sizeof(entry));
		map = pinfs_get16(entry.tag) == 0x02 ? &v->uids : pinfs_get16(entry.tag) == 0x08 ? &v->gids : NULL;
		if (!map)
			continue;
		if (store)
			r = vfs_unmap_id(map, pinfs_get32(entry.id), &id);
		else
			id = vfs_map_id(map, pinfs_get32(entry.id));
		if (r < 0)
			return r;
		entry.id = pinfs_put32(id);
		memcpy(value + at, &entry, sizeof(entry));
	}
	return 0;
}

static bool is_acl(const char *name)
{
	return !strcmp(name, ACL_ACCESS) || !strcmp(name, ACL_DEFAULT);
}

ssize_t xattr_get(struct vfs *v, const struct vfs_inode *inode, const char *name, void *value, size_t size)
{
	if (inode->in_delta && inode->i.own_xattrs)
		return delta_xattr_get(v->delta, inode->i.ino, name, value, size);
	return inode->has_image ? image_xattr_get(v->image, &inode->image, name, value, size) : -ENODATA;
}

ssize_t vfs_getxattr(struct vfs *v, uint64_t ino, const char *name, void *value, size_t size)
{
	struct vfs_inode inode;
	ssize_t n;

	vfs_lock(v);
	n = inode_load(v, ino, &inode);
	if (n == 0)
		n = xattr_get(v, &inode, name, value, size);
	vfs_unlock(v);
	if (n > 0 && size && is_acl(name))
		map_acl(v, value, (size_t)n, false);
	return n;
}

static ssize_t list_own(struct vfs *v, uint64_t ino, char *list, size_t size)
{
	char name[PINFS_XATTR_NAME_MAX + 1];
	uint64_t hash = 0;
	size_t used = 0, value;
	int r;

	while ((r = delta_xattr_next(v->delta, ino, hash, &hash, name, &value)) == 0) {
		size_t len = strlen(name) + 1;

		if (size && used + len > size)
			return -ERANGE;
		if (size)
			memcpy(list + used, name, len);
		used += len;
		hash++;
	}
	return r == -ENOENT ? (ssize_t)used : r;
}

ssize_t vfs_listxattr(struct vfs *v, uint64_t ino, char *list, size_t size)
{
	struct vfs_inode inode;
	ssize_t n;

	vfs_lock(v);
	n = inode_load(v, ino, &inode);
	if (n == 0 && inode.in_delta && inode.i.own_xattrs)
		n = list_own(v, ino, list, size);
	else if (n == 0 && inode.has_image)
		n = image_xattr_list(v->image, &inode.image, list, size);
	vfs_unlock(v);
	return n;
}

/* ---- the image's attributes become the delta's ---- */

/* What one transaction copies at most, so that the delta has room for it. */
#define COPY_COUNT 8u
#define COPY_BYTES (32u << 10)

/* The names of an image file's attributes. *ret: terminated, one after the other. */
static ssize_t image_names(struct vfs *v, const struct vfs_inode *inode, char **ret)
{
	_cleanup_free_ char *list = NULL;
	ssize_t n = inode->has_image ? image_xattr_list(v->image, &inode->image, NULL, 0) : 0;

	if (n <= 0)
		return n;
	list = malloc((size_t)n);
	n = list ? image_xattr_list(v->image, &inode->image, list, (size_t)n) : -ENOMEM;
	if (n > 0)
		*ret = steal_pointer(&list);
	return n;
}

/*
 * Within a transaction: attributes from *name on are copied, unless they are there already: that much of an attempt that came to an
 * end is as good as new, since what is in the image doesn't change. *name: where to go on; `end` if all are there.
 */
static int copy_some(struct vfs *v, const struct vfs_inode *inode, const char **name, const char *end)
{
	_cleanup_free_ uint8_t *value = malloc(PINFS_XATTR_VALUE_MAX);
	size_t bytes = 0;
	unsigned count = 0;
	ssize_t len;
	int r = 0;

	if (!value)
		return -ENOMEM;
	while (r == 0 && *name < end && count < COPY_COUNT && bytes < COPY_BYTES) {
		len = delta_xattr_get(v->delta, inode->i.ino, *name, NULL, 0);
		if (len == -ENODATA) {
			len = image_xattr_get(v->image, &inode->image, *name, value, PINFS_XATTR_VALUE_MAX);
			r = len < 0 ? (int)len : delta_xattr_put(v->delta, inode->i.ino, *name, value, (size_t)len);
			bytes += len < 0 ? 0 : (size_t)len;
			count++;
		} else if (len < 0) {
			r = (int)len;
		}
		*name += strlen(*name) + 1;
	}
	return r;
}

int xattrs_own(struct vfs *v, struct vfs_inode *inode)
{
	_cleanup_free_ char *list = NULL;
	const char *name;
	ssize_t n;
	int r = 0;

	if (inode->i.own_xattrs)
		return 0;
	n = image_names(v, inode, &list);
	name = list;
	if (n > 0)
		r = copy_some(v, inode, &name, list + n);
	if (n < 0 || r < 0)
		return n < 0 ? (int)n : r;
	if (n > 0 && name < list + n)
		return -EAGAIN;
	inode->i.own_xattrs = true;
	return 0;
}

int xattrs_copy(struct vfs *v, uint64_t ino)
{
	_cleanup_free_ char *list = NULL;
	const char *name = NULL;
	struct vfs_inode inode;
	ssize_t n;
	int r;

	vfs_lock(v);
	r = inode_load(v, ino, &inode);
	n = r < 0 ? r : inode.i.own_xattrs ? 0 : image_names(v, &inode, &list);
	vfs_unlock(v);
	if (n <= 0)
		return (int)n;
	name = list;
	while (r == 0 && name < list + n) {
		r = delta_begin(v->delta, 0);
		if (r < 0)
			break;
		r = inode_load(v, ino, &inode);
		/* Another thread was faster: what it has changed since must not come back. */
		if (r == 0 && inode.i.own_xattrs) {
			delta_abort(v->delta);
			break;
		}
		if (r == 0)
			r = copy_some(v, &inode, &name, list + n);
		if (r == 0)
			r = inode_store(v, &inode);
		if (r < 0)
			delta_abort(v->delta);
		else
			r = delta_commit(v->delta);
	}
	return r;
}

/* ---- changing ---- */

/* -EOPNOTSUPP: not in a namespace that we have. -EINVAL: nothing but a namespace. */
static int check_namespace(const char *name)
{
	static const char *const prefixes[] = {"user.", "trusted.", "security."};

	if (is_acl(name))
		return 0;
	for (size_t i = 0; i < ARRAY_SIZE(prefixes); i++)
		if (!strncmp(name, prefixes[i], strlen(prefixes[i])))
			return name[strlen(prefixes[i])] ? 0 : -EINVAL;
	return -EOPNOTSUPP;
}

/* A new access ACL has the mode say the same; one that the mode says already isn't kept. 1: so it was. */
static int apply_acl(struct vfs *v, struct vfs_inode *inode, const char *name, const void *value, size_t size, bool kill_sgid)
{
	mode_t mode = inode->i.mode;
	bool access = !strcmp(name, ACL_ACCESS);

	if (!acl_valid(value, size))
		return -EINVAL;
	if (!access)
		return S_ISDIR(mode) ? 0 : -EACCES;
	if (acl_mode(value, size, &mode)) {
		inode->i.mode = mode;
		if (kill_sgid)
			inode->i.mode &= ~(mode_t)S_ISGID;
		return 1;
	}
	inode->i.mode = mode;
	if (kill_sgid)
		inode->i.mode &= ~(mode_t)S_ISGID;
	return 0;
}

/* Is there room for one more name in what listxattr(2) can return? */
static int check_list(struct vfs *v, uint64_t ino, const char *name)
{
	ssize_t n = list_own(v, ino, NULL, 0);

	return n < 0 ? (int)n : (size_t)n + strlen(name) + 1 > PINFS_XATTR_LIST_MAX ? -ENOSPC : 0;
}

static int set_one(struct vfs *v, struct vfs_inode *inode, const char *name, const void *value, size_t size, int flags, bool kill_sgid)
{
	ssize_t old = xattr_get(v, inode, name, NULL, 0);
	int r = 0;

	if (old < 0 && old != -ENODATA)
		return (int)old;
	if (flags & XATTR_CREATE && old >= 0)
		return -EEXIST;
	if (flags & XATTR_REPLACE && old < 0)
		return -ENODATA;
	if (is_acl(name))
		r = apply_acl(v, inode, name, value, size, kill_sgid);
	if (r < 0)
		return r;
	if (r == 1 && old < 0) {
		r = 0;
	} else if (r == 1) {
		r = xattrs_own(v, inode);
		if (r == 0)
			r = delta_xattr_delete(v->delta, inode->i.ino, name);
	} else {
		r = xattrs_own(v, inode);
		if (r == 0 && old < 0)
			r = check_list(v, inode->i.ino, name);
		if (r == 0)
			r = delta_xattr_put(v->delta, inode->i.ino, name, value, size);
	}
	inode->i.ctime = time_now();
	return r < 0 ? r : inode_store(v, inode);
}

static int try_set(struct vfs *v, uint64_t ino, const char *name, const void *value, size_t size, int flags, bool kill_sgid)
{
	struct vfs_inode inode;
	int r = delta_begin(v->delta, 0);

	if (r < 0)
		return r;
	r = inode_load(v, ino, &inode);
	if (r == 0 && inode.i.flags & (FS_IMMUTABLE_FL | FS_APPEND_FL))
		r = -EPERM;
	if (r == 0)
		r = set_one(v, &inode, name, value, size, flags, kill_sgid);
	if (r < 0) {
		delta_abort(v->delta);
		return r;
	}
	return delta_commit(v->delta);
}

int vfs_setxattr(struct vfs *v, uint64_t ino, const char *name, const void *value, size_t size, int flags, bool kill_sgid)
{
	_cleanup_free_ uint8_t *mapped = NULL;
	int r;

	if (!vfs_writable(v))
		return -EROFS;
	if (!*name || strlen(name) > PINFS_XATTR_NAME_MAX)
		return -ERANGE;
	r = check_namespace(name);
	if (r < 0)
		return r;
	if (size > PINFS_XATTR_VALUE_MAX)
		return -E2BIG;
	if (is_acl(name) && size) {
		mapped = malloc(size);
		if (!mapped)
			return -ENOMEM;
		memcpy(mapped, value, size);
		r = map_acl(v, mapped, size, true);
		if (r < 0)
			return r;
		value = mapped;
	}
	while ((r = try_set(v, ino, name, value, size, flags, kill_sgid)) == -EAGAIN)
		if ((r = xattrs_copy(v, ino)) < 0)
			break;
	return r;
}

static int try_remove(struct vfs *v, uint64_t ino, const char *name)
{
	struct vfs_inode inode;
	ssize_t n;
	int r;

	/* It makes room, unless those of the image have to be copied first. */
	vfs_lock(v);
	r = inode_load(v, ino, &inode);
	vfs_unlock(v);
	r = delta_begin(v->delta, r == 0 && inode.i.own_xattrs ? DELTA_SHRINKS : 0);
	if (r < 0)
		return r;
	r = inode_load(v, ino, &inode);
	if (r == 0 && inode.i.flags & (FS_IMMUTABLE_FL | FS_APPEND_FL))
		r = -EPERM;
	n = r < 0 ? r : xattr_get(v, &inode, name, NULL, 0);
	/* To have no ACL is what was asked for. */
	if (n == -ENODATA && is_acl(name)) {
		delta_abort(v->delta);
		return 0;
	}
	r = n < 0 ? (int)n : xattrs_own(v, &inode);
	if (r == 0)
		r = delta_xattr_delete(v->delta, ino, name);
	if (r == 0) {
		inode.i.ctime = time_now();
		r = inode_store(v, &inode);
	}
	if (r < 0) {
		delta_abort(v->delta);
		return r;
	}
	return delta_commit(v->delta);
}

int vfs_removexattr(struct vfs *v, uint64_t ino, const char *name)
{
	int r;

	if (!vfs_writable(v))
		return -EROFS;
	while ((r = try_remove(v, ino, name)) == -EAGAIN)
		if ((r = xattrs_copy(v, ino)) < 0)
			break;
	return r;
}
