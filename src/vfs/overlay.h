/* SPDX-License-Identifier: MIT */
/*
 * overlay: what a delta would say of an inode of the image if it said what the image does. Where mounts and fsck begin with it, they agree.
 *
 * Used by: vfs, mkfs (fsck), which has nothing else of the vfs. Uses: image, delta (their structures only), base.
 */
#ifndef PINFS_VFS_OVERLAY_H
#define PINFS_VFS_OVERLAY_H

#include "delta/delta.h"
#include "image/image.h"

/* As a mount shows an inode of the image that the delta says nothing of. */
void overlay_inode(const struct image_inode *image, struct delta_inode *ret);

#endif
