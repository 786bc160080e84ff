/* SPDX-License-Identifier: MIT */
/* What the files of src/vfs share. */
#ifndef PINFS_VFS_INTERNAL_H
#define PINFS_VFS_INTERNAL_H

#include "base/log.h"
#include "vfs/vfs.h"

struct vfs {
	char *name;
	struct vfs_idmap uids, gids;
	struct image *image;
	struct cache *cache;
	struct cache_mapping *blocks; /* the image's data blocks, by number */
	uint8_t *zeros;		      /* VFS_READ_MAX bytes, mapped read-only: all of them one page of the kernel's */
	struct log_limit damage_limit;
	_Atomic(uint64_t) damage_last, damage_time; /* byte and time of the last message */
};

/* The cache's way down to the image. */
extern const struct cache_ops vfs_image_ops;

uint32_t vfs_map_id(const struct vfs_idmap *map, uint32_t id);
void vfs_fill_stat(const struct vfs *vfs, const struct image_inode *inode, struct stat *ret);
/* Something in the image contradicts itself, seen from here: logged as the image's own findings; -EUCLEAN. */
int vfs_damaged(struct vfs *vfs, const struct image_inode *inode, const char *what);

#endif
