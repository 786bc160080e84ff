/* SPDX-License-Identifier: MIT */
#include "vfs/overlay.h"

void overlay_inode(const struct image_inode *image, struct delta_inode *ret)
{
	bool device = S_ISCHR(image->mode) || S_ISBLK(image->mode), regular = S_ISREG(image->mode), dir = S_ISDIR(image->mode);

	*ret = (struct delta_inode){
		.ino = image->ino,
		.mode = image->mode,
		.nlink = image->nlink,
		.uid = image->uid,
		.gid = image->gid,
		.size = image->size,
		.atime = image->mtime,
		.mtime = image->mtime,
		.ctime = image->mtime,
		.btime = image->mtime,
		.major = device ? image->arg0 : 0,
		.minor = device ? image->arg1 : 0,
		.generation = 1,
		.parent = dir ? image->arg1 : 0,
		.entries = dir ? image->arg0 : 0,
		.image_end = regular ? image->size : 0,
		.image_pages = regular ? DIV_ROUND_UP(image->alloc, PINFS_PAGE_SIZE) : 0,
	};
}
