/* SPDX-License-Identifier: MIT */
/* A file as it is: what the delta says of it, else what the image does; and what only the cache knows so far. */
#include "vfs/internal.h"

#include <linux/fs.h>
#include <sys/sysmacros.h>
#include <time.h>

#include "vfs/overlay.h"

void vfs_lock(struct vfs *v)
{
	if (v->delta)
		delta_lock(v->delta);
}

void vfs_unlock(struct vfs *v)
{
	if (v->delta)
		delta_unlock(v->delta);
}

struct timespec time_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	return t;
}

struct timespec later(struct timespec a, struct timespec b)
{
	return a.tv_sec > b.tv_sec || (a.tv_sec == b.tv_sec && a.tv_nsec > b.tv_nsec) ? a : b;
}

/* What the node knows better; other changes of the inode may have been later than its. */
static void overlay(struct vfs *v, struct vfs_inode *inode)
{
	struct vfs_node *n;

	mutex_lock(&v->nodes_lock);
	for (n = v->buckets[inode->i.ino % NODE_BUCKETS]; n && n->ino != inode->i.ino; n = n->next)
		;
	if (n && n->mapping)
		inode->size = cache_size(n->mapping);
	if (n)
		inode->promised = n->promised;
	if (n && n->mtime_dirty) {
		inode->i.mtime = n->mtime;
		inode->i.ctime = later(n->ctime, inode->i.ctime);
	}
	if (n && n->atime_dirty)
		inode->i.atime = n->atime;
	mutex_unlock(&v->nodes_lock);
}

int inode_load(struct vfs *v, uint64_t ino, struct vfs_inode *ret)
{
	struct vfs_inode inode = {0};
	int r;

	if (ino <= image_get_info(v->image)->inode_count) {
		r = image_inode_get(v->image, ino, &inode.image);
		if (r < 0)
			return r;
		inode.has_image = true;
	}
	if (v->delta) {
		r = delta_inode_get(v->delta, ino, &inode.i);
		if (r < 0 && r != -ENOENT)
			return r;
		inode.in_delta = r == 0;
	}
	if (inode.in_delta && inode.i.gone)
		return -ENOENT;
	if (inode.in_delta && inode.has_image && (inode.i.mode & S_IFMT) != (inode.image.mode & S_IFMT))
		return vfs_damaged(v, &inode.image, "the delta has another kind of file for it");
	if (!inode.in_delta) {
		if (!inode.has_image)
			return -ENOENT;
		overlay_inode(&inode.image, &inode.i);
	}
	inode.size = inode.i.size;
	if (v->delta)
		overlay(v, &inode);
	*ret = inode;
	return 0;
}

int inode_load_dir(struct vfs *v, uint64_t ino, struct vfs_inode *ret)
{
	struct vfs_inode inode;
	int r = inode_load(v, ino, &inode);

	if (r < 0)
		return r;
	if (!S_ISDIR(inode.i.mode))
		return -ENOTDIR;
	*ret = inode;
	return 0;
}

int inode_store(struct vfs *v, struct vfs_inode *inode)
{
	int r = delta_inode_put(v->delta, &inode->i);

	if (r == 0)
		inode->in_delta = true;
	return r;
}

int inode_may_change(const struct vfs_inode *inode)
{
	return inode->i.flags & FS_IMMUTABLE_FL ? -EPERM : 0;
}

int inode_has_extents(struct vfs *v, const struct vfs_inode *inode, bool *ret)
{
	struct delta_extent e;
	int r;

	*ret = false;
	if (!v->delta || !inode->in_delta)
		return 0;
	r = delta_extent_get(v->delta, inode->i.ino, 0, &e);
	if (r == 0)
		*ret = e.kind || e.pages < PINFS_DELTA_FILE_MAX / PINFS_PAGE_SIZE;
	return r;
}

void inode_stat(const struct vfs *v, const struct vfs_inode *in, struct stat *ret)
{
	const struct delta_inode *i = &in->i;
	uint64_t image_pages = in->has_image && S_ISREG(i->mode) ? DIV_ROUND_UP(in->image.alloc, PINFS_PAGE_SIZE) : 0;
	/*
	 * The image's own number of blocks, down to half a KiB, as long as all content is the image's: looking at a file, which
	 * gives it an access time in the delta, doesn't change it.
	 */
	bool unchanged = in->has_image && !i->pages && !in->promised && i->image_pages == image_pages;
	uint64_t blocks = unchanged ? DIV_ROUND_UP(in->image.alloc, 512) :
				      (i->pages + i->image_pages + in->promised) * (PINFS_PAGE_SIZE / 512);

	*ret = (struct stat){
		.st_ino = i->ino,
		.st_mode = i->mode,
		.st_nlink = i->nlink,
		.st_uid = vfs_map_id(&v->uids, i->uid),
		.st_gid = vfs_map_id(&v->gids, i->gid),
		.st_rdev = makedev(i->major, i->minor),
		.st_size = (off_t)in->size,
		.st_blksize = PINFS_PAGE_SIZE,
		.st_blocks = (blkcnt_t)blocks,
		.st_atim = i->atime,
		.st_mtim = i->mtime,
		.st_ctim = i->ctime,
	};
}
