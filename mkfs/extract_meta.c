/* SPDX-License-Identifier: MIT */
/* Owner, extended attributes, mode and times of what was extracted, always by descriptor. */
#include "mkfs/extract_internal.h"

#include <fcntl.h>
#include <sys/xattr.h>

/* What attributes are given to. */
struct target {
	int fd;
	bool path_only; /* O_PATH: goes by proc where there is no other way */
	char proc[32];
	const struct extract_dir *in;
	const char *name;
};

static void target_init(struct target *t, int fd, bool path_only, const struct extract_dir *in, const char *name)
{
	*t = (struct target){.fd = fd, .path_only = path_only, .in = in, .name = name};
	if (path_only)
		snprintf(t->proc, sizeof(t->proc), "/proc/self/fd/%d", fd);
}

static int target_error(const struct target *t)
{
	/* The file is there, we have it open; so it is /proc that is missing. */
	return errno == ENOENT && t->path_only ? -ENOSYS : -errno;
}

bool extract_owner_fits(const struct extract *x, const struct extract_dir *dir, const struct image_inode *inode)
{
	return !x->options->same_owner || (dir->plain && inode->uid == x->uid && inode->gid == x->gid);
}

static void apply_owner(struct extract *x, const struct target *t, const struct image_inode *inode)
{
	/* A directory of an earlier run may have any owner. */
	if (!x->options->same_owner || (t->name && extract_owner_fits(x, t->in, inode)))
		return;
	if (fchownat(t->fd, "", inode->uid, inode->gid, AT_EMPTY_PATH) < 0)
		extract_fail(x, t->in, t->name, "set the owner of", -errno);
}

/* Those that an ordinary user may set. */
static bool xattr_ordinary(const char *name)
{
	return !strncmp(name, "user.", 5) || !strncmp(name, "system.posix_acl_", 17);
}

static void xattr_failed(struct extract *x, const struct target *t, const char *xattr, int error)
{
	char what[PINFS_XATTR_NAME_MAX * 4 + 64], shown[PINFS_XATTR_NAME_MAX * 4 + 8];

	if (error == -EPERM && x->uid != 0 && !xattr_ordinary(xattr)) {
		extract_count(&x->stats.xattrs_skipped, 1);
		return;
	}
	/* All others will fail, too: said once, and at the end how many there were. */
	if (error == -EOPNOTSUPP && __atomic_fetch_add(&x->xattr_unsupported, 1, __ATOMIC_RELAXED)) {
		extract_count(&x->stats.errors, 1);
		return;
	}
	name_escape(xattr, strlen(xattr), shown, sizeof(shown));
	snprintf(what, sizeof(what), "set extended attribute %s of", shown);
	extract_fail(x, t->in, t->name, what, error);
}

static void apply_xattr(struct extract *x, const struct target *t, const struct image_inode *inode, const char *xattr,
	void *value)
{
	ssize_t n = image_xattr_get(x->image, inode, xattr, value, PINFS_XATTR_VALUE_MAX);
	int r;

	if (n < 0) {
		xattr_failed(x, t, xattr, (int)n);
		return;
	}
	if (t->path_only)
		r = setxattr(t->proc, xattr, value, (size_t)n, 0);
	else
		r = fsetxattr(t->fd, xattr, value, (size_t)n, 0);
	if (r < 0)
		xattr_failed(x, t, xattr, target_error(t));
}

static void apply_xattrs(struct extract *x, const struct target *t, const struct image_inode *inode)
{
	_cleanup_free_ void *value = NULL;
	_cleanup_free_ char *list = NULL;
	ssize_t size;

	if (!inode->xattr || x->options->no_xattrs)
		return;
	size = image_xattr_list(x->image, inode, NULL, 0);
	if (size > 0) {
		list = malloc((size_t)size);
		value = malloc(PINFS_XATTR_VALUE_MAX);
		size = list && value ? image_xattr_list(x->image, inode, list, (size_t)size) : -ENOMEM;
	}
	if (size < 0)
		extract_fail(x, t->in, t->name, "read the extended attributes of", (int)size);
	for (char *p = list; p && p < list + size; p += strlen(p) + 1)
		apply_xattr(x, t, inode, p, value);
}

/* What a new file has inherited from its directory, or a directory has had before, is not in the image. */
static void drop_other_acl(const struct extract *x, const struct target *t)
{
	if (!t->name && t->in->existed && !x->options->no_xattrs) {
		fremovexattr(t->fd, "system.posix_acl_access");
		fremovexattr(t->fd, "system.posix_acl_default");
	} else if (t->name && t->in->default_acl && t->path_only) {
		removexattr(t->proc, "system.posix_acl_access");
	} else if (t->name && t->in->default_acl) {
		fremovexattr(t->fd, "system.posix_acl_access");
	}
}

static void apply_mode(struct extract *x, const struct target *t, const struct image_inode *inode)
{
	mode_t mode = inode->mode & 07777;
	struct stat st;
	int r;

	if (S_ISLNK(inode->mode))
		return;
	/* A program that should run as somebody else must not run as whoever has extracted it. */
	if ((mode & (S_ISUID | S_ISGID)) && !S_ISDIR(inode->mode)) {
		r = fstat(t->fd, &st);
		if (r < 0 || st.st_uid != inode->uid)
			mode &= ~(mode_t)S_ISUID;
		if (r < 0 || st.st_gid != inode->gid)
			mode &= ~(mode_t)S_ISGID;
	}
	r = t->path_only ? chmod(t->proc, mode) : fchmod(t->fd, mode);
	if (r < 0)
		extract_fail(x, t->in, t->name, "set the mode of", target_error(t));
}

static void apply_time(struct extract *x, const struct target *t, const struct image_inode *inode)
{
	struct timespec ts[2] = {{.tv_nsec = UTIME_OMIT}, inode->mtime};
	int r;

	if (!t->path_only)
		r = futimens(t->fd, ts);
	else
		r = utimensat(t->fd, "", ts, AT_EMPTY_PATH);
	/* Before Linux 5.8. */
	if (r < 0 && errno == EINVAL && t->path_only)
		r = utimensat(AT_FDCWD, t->proc, ts, 0);
	if (r < 0)
		extract_fail(x, t->in, t->name, "set the time of", target_error(t));
}

void extract_meta_apply(struct extract *x, int fd, bool path_only, const struct extract_dir *in, const char *name,
	const struct image_inode *inode)
{
	struct target t;

	target_init(&t, fd, path_only, in, name);
	apply_owner(x, &t, inode);
	if (!S_ISLNK(inode->mode))
		drop_other_acl(x, &t);
	apply_xattrs(x, &t, inode);
	apply_mode(x, &t, inode);
	apply_time(x, &t, inode);
}

void extract_meta_time(struct extract *x, int fd, bool path_only, const struct extract_dir *in, const char *name,
	const struct image_inode *inode)
{
	struct target t;

	target_init(&t, fd, path_only, in, name);
	apply_time(x, &t, inode);
}
