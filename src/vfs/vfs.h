/* SPDX-License-Identifier: MIT */
/*
 * vfs: the tree that programs see. Inodes, directories, names, attributes, content; today those of an image alone.
 *
 * Used by: fuse. Uses: cache, image, io, base. Never: FUSE; permissions are left to the kernel.
 *
 * Inode numbers are the image's; 1 is the root. Any number may be asked for (a file handle of NFS, a hostile client):
 * -ENOENT if there is none. Damage and failed reads are logged with the image's name and the byte (at most
 * VFS_DAMAGE_BURST lines in ten seconds, and the same byte once) and come back as -EUCLEAN or -EIO. All functions are thread safe and may
 * sleep, unless they say otherwise; they are called without locks. Output is untouched on failure.
 */
#ifndef PINFS_VFS_VFS_H
#define PINFS_VFS_VFS_H

#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/uio.h>

#include "base/util.h"
#include "cache/cache.h"
#include "image/image.h"

struct vfs;

#define VFS_DAMAGE_BURST 20
#define VFS_ROOT_INO 1
#define VFS_READ_MAX (1u << 20)

#define VFS_IDMAP_RANGES 32
/* How owners are shown. What no range covers stays as it is. */
struct vfs_idmap {
	bool all; /* everybody is `all_as` */
	uint32_t all_as;
	unsigned count;
	struct vfs_idmap_range {
		uint32_t from, to, count;
	} ranges[VFS_IDMAP_RANGES];
};

struct vfs_options {
	const char *name; /* of the image, for messages; copied */
	uint64_t offset;  /* of the image in its file, or IMAGE_OFFSET_AUTO */
	size_t cache_limit;
	unsigned readahead_threads;
	struct vfs_idmap uids, gids;
};

/* Opens the image in io, which belongs to the vfs from now on, also if this fails; errors as image_open(). Reads the
 * root inode. */
int vfs_new(struct io_file *io, const struct vfs_options *options, struct vfs **ret, char error[IMAGE_ERROR_SIZE]);
/* NULL is allowed. No call may be under way. */
void vfs_free(struct vfs *vfs);

const struct image_info *vfs_image_info(const struct vfs *vfs);
struct io_file *vfs_io(const struct vfs *vfs);
void vfs_cache_stats(struct vfs *vfs, struct cache_stats *ret);
/* What its cache does, if it is switched on. */
struct trace *vfs_trace(struct vfs *vfs);

/* ---- names and attributes ---- */

int vfs_getattr(struct vfs *vfs, uint64_t ino, struct stat *ret);
/* "." and ".." are found too. The inode's number is in ret->st_ino. */
int vfs_lookup(struct vfs *vfs, uint64_t parent, const char *name, struct stat *ret);
int vfs_readlink(struct vfs *vfs, uint64_t ino, char ret[PINFS_SYMLINK_MAX + 1]);
int vfs_statfs(struct vfs *vfs, struct statvfs *ret);

/* False: no file of the tree has any. */
bool vfs_has_xattrs(const struct vfs *vfs);
bool vfs_has_acls(const struct vfs *vfs);
/* As image_xattr_get() and image_xattr_list(). The ids in ACLs are mapped like owners. */
ssize_t vfs_getxattr(struct vfs *vfs, uint64_t ino, const char *name, void *value, size_t size);
ssize_t vfs_listxattr(struct vfs *vfs, uint64_t ino, char *list, size_t size);

/* ---- directories ---- */

/*
 * Walks a directory: ".", "..", then its names in their order. A cookie is the number of the entry after it, the same
 * for ever: 0 is the beginning. Each walker has its own; not thread safe.
 */
struct vfs_dir {
	struct vfs *vfs;
	struct image_inode inode;
	struct image_dir_iter iter;
	struct image_dirent entry;
	uint64_t cookie;
	bool began;
};
struct vfs_dirent {
	const char *name; /* until the next call */
	uint64_t ino;
	uint8_t type;	 /* DT_* */
	uint64_t cookie; /* to go on after this entry */
};
int vfs_dir_begin(struct vfs *vfs, uint64_t ino, uint64_t cookie, struct vfs_dir *ret);
/* 1: *ret is the next entry; 0: no more; <0: error. */
int vfs_dir_next(struct vfs_dir *dir, struct vfs_dirent *ret);
/* The attributes of the entry that vfs_dir_next() has just given. */
int vfs_dir_getattr(struct vfs_dir *dir, const struct vfs_dirent *entry, struct stat *ret);
/* Also after an error. */
void vfs_dir_end(struct vfs_dir *dir);

/* ---- content ---- */

/* SEEK_DATA or SEEK_HOLE. */
int vfs_seek(struct vfs *vfs, uint64_t ino, uint64_t offset, bool hole, uint64_t *ret);

/* One piece for each block of the smallest size, and one more for each end that is not aligned. */
#define VFS_READ_PIECES (VFS_READ_MAX / PINFS_BLOCK_SIZE_MIN + 2)

/* Bytes of a file where they lie: in cached blocks, or zeros. Valid until vfs_read_end(). */
struct vfs_read {
	size_t bytes;
	unsigned count;
	struct iovec iov[VFS_READ_PIECES];
	unsigned reserved, ref_count; /* private, as all below */
	struct cache_ref refs[VFS_READ_PIECES];
	bool consumed[VFS_READ_PIECES];
};
/*
 * Reads up to len (at most VFS_READ_MAX) bytes; fewer only at the end of the file. Nothing of *ret needs to be set
 * before. A thread has at most one read open. -EISDIR, -EINVAL.
 */
int vfs_read_begin(struct vfs *vfs, uint64_t ino, uint64_t offset, size_t len, struct vfs_read *ret);
/* kept: the reader keeps the bytes (the kernel's page cache); blocks that were read to their end may go first. */
void vfs_read_end(struct vfs *vfs, struct vfs_read *read, bool kept);

#endif
