/* SPDX-License-Identifier: MIT */
/* Symbolic links, devices, FIFOs and sockets. */
#include "mkfs/extract_internal.h"

#include <fcntl.h>
#include <sys/sysmacros.h>

static const char *node_what(mode_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFLNK:
		return "make symbolic link";
	case S_IFCHR:
	case S_IFBLK:
		return "make device";
	case S_IFIFO:
		return "make FIFO";
	default:
		return "make socket";
	}
}

static uint64_t *node_counter(struct extract *x, mode_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFLNK:
		return &x->stats.symlinks;
	case S_IFCHR:
	case S_IFBLK:
		return &x->stats.devices;
	case S_IFIFO:
		return &x->stats.fifos;
	default:
		return &x->stats.sockets;
	}
}

/* Without any permissions: it has the wrong owner still. */
static int node_create(const struct extract_dir *dir, const char *name, const struct image_inode *inode,
	const char *link)
{
	dev_t dev = 0;

	if (S_ISLNK(inode->mode))
		return symlinkat(link, dir->fd, name) < 0 ? -errno : 0;
	if (S_ISCHR(inode->mode) || S_ISBLK(inode->mode))
		dev = makedev(inode->arg0, inode->arg1);
	return mknodat(dir->fd, name, inode->mode & S_IFMT, dev) < 0 ? -errno : 0;
}

/* By descriptor, and only if it is still what was made: in a directory that others may write, they may rename. */
static int node_attributes(struct extract *x, struct extract_dir *dir, const char *name,
	const struct image_inode *inode)
{
	_cleanup_close_ int fd = openat(dir->fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		return -errno;
	if ((st.st_mode & S_IFMT) != (inode->mode & S_IFMT) || st.st_nlink != 1)
		return -ESTALE;
	if (S_ISLNK(inode->mode) && !inode->xattr && extract_owner_fits(x, dir, inode))
		extract_meta_time(x, fd, true, dir, name, inode);
	else
		extract_meta_apply(x, fd, true, dir, name, inode);
	return 0;
}

int extract_node_make(struct extract *x, struct extract_dir *dir, const char *name, const struct image_inode *inode)
{
	char link[PINFS_SYMLINK_MAX + 1] = "";
	int r = extract_dir_get(x, dir);

	if (r < 0)
		goto fail;
	if (S_ISLNK(inode->mode))
		r = image_readlink(x->image, inode, link);
	if (r == 0)
		r = node_create(dir, name, inode, link);
	if (r == -EEXIST) {
		r = extract_dir_clear_way(x, dir, name);
		if (r == 0)
			r = node_create(dir, name, inode, link);
	}
	if (r == 0) {
		extract_count(node_counter(x, inode->mode), 1);
		r = node_attributes(x, dir, name, inode);
	}
	extract_dir_put(dir);
	if (r == 0)
		return 0;
fail:
	if (r != -EINTR)
		extract_fail(x, dir, name, node_what(inode->mode), r);
	return r;
}
