/* SPDX-License-Identifier: MIT */
/*
 * vfs: the tree that programs see. Inodes, directories, names, attributes, content: those of an image, and, where a delta
 * says otherwise, those of the delta.
 *
 * Used by: fuse. Uses: cache, image, delta, io, base. Never: FUSE; permissions are left to the kernel (but for the flags immutable
 * and append-only, which it doesn't know of us).
 *
 * Inode numbers are the image's, new ones follow and are never used again; 1 is the root. Any number may be asked for (a
 * file handle of NFS, a hostile client): -ENOENT if there is none. Damage and failed reads are logged with the image's name and the byte (at most
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
#include "delta/delta.h"
#include "image/image.h"

struct vfs;

#define VFS_DAMAGE_BURST 20
#define VFS_ROOT_INO 1
#define VFS_READ_MAX (1u << 20)

#define VFS_IDMAP_RANGES 32
/*
 * How owners are shown. What no range covers stays as it is. Changes go the other way: who is shown for nobody that could be
 * stored makes no file and is given none (-EOVERFLOW). With `all` new files are their makers', and owners don't change.
 */
struct vfs_idmap {
	bool all; /* everybody is `all_as` */
	uint32_t all_as;
	unsigned count;
	struct vfs_idmap_range {
		uint32_t from, to, count;
	} ranges[VFS_IDMAP_RANGES];
};

/* Two ranges speak of one owner, stored or shown: writable mounts must not be made with it. */
bool vfs_idmap_ambiguous(const struct vfs_idmap *map);

struct vfs_options {
	const char *name; /* of the image, for messages; copied */
	uint64_t offset;  /* of the image in its file, or IMAGE_OFFSET_AUTO */
	size_t cache_limit;
	unsigned readahead_threads;
	struct vfs_idmap uids, gids;
	struct vfs_delta_options *delta; /* NULL: read-only */
};

enum vfs_atime {
	VFS_RELATIME, /* when it is older than the last change, or than a day */
	VFS_NOATIME,
	VFS_STRICTATIME,
};

struct vfs_delta_options {
	const char *path;   /* made if it isn't there; NULL: ephemeral, only for the life of the vfs */
	const char *dir;    /* ephemeral: where it lies meanwhile */
	uint64_t size_limit; /* bytes of the delta at most; 0: what the disk has */
	enum vfs_atime atime;
	bool nodiratime;
	bool sync, dirsync; /* as mount(8) has them: vfs_settle() */
	bool read_only;	    /* the delta is looked at, nothing is changed */
	struct store *store; /* instead of a path: tests; it belongs to the vfs from now on */
	bool norecovery;    /* fails if frames of the log would have to be applied */
	bool nosync;	    /* tests: fsync waits for no disk */
	bool no_threads;    /* tests: nothing is written in the background, each write has its cause in a call */
};

/* Opens the image in io, which belongs to the vfs from now on, also if this fails; errors as image_open(). Reads the
 * root inode. */
int vfs_new(struct io_file *io, const struct vfs_options *options, struct vfs **ret, char error[IMAGE_ERROR_SIZE]);
/* Starts the threads that it needs, which else happens when something is read or written for the first time. Not in front of a fork(). */
void vfs_start(struct vfs *vfs);
/* NULL is allowed. No call may be under way. */
void vfs_free(struct vfs *vfs);

const struct image_info *vfs_image_info(const struct vfs *vfs);
struct io_file *vfs_io(const struct vfs *vfs);
void vfs_cache_stats(struct vfs *vfs, struct cache_stats *ret);
struct cache *vfs_cache(struct vfs *vfs);
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
	uint64_t ino, parent;
	bool in_delta, has_image;
	struct image_inode inode; /* if has_image */
	struct image_dir_iter iter;
	struct image_dirent entry;
	struct delta_dirent changed;
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
	uint8_t *copy; /* or the bytes are here */
};
/*
 * Reads up to len (at most VFS_READ_MAX) bytes; fewer only at the end of the file. Nothing of *ret needs to be set
 * before. A thread has at most one read open. -EISDIR, -EINVAL.
 */
int vfs_read_begin(struct vfs *vfs, uint64_t ino, uint64_t offset, size_t len, struct vfs_read *ret);
/* The access time of a file, directory or link that was read, if it tells something new. Before the reply: who asks for it then gets it. */
void vfs_accessed(struct vfs *vfs, uint64_t ino);
/* kept: the reader keeps the bytes (the kernel's page cache); blocks that were read to their end may go first. */
void vfs_read_end(struct vfs *vfs, struct vfs_read *read, bool kept);

/* ---- files that other processes map ---- */

/* A file whose pages lie in a memfd, at their places; until vfs_unshare(). */
struct vfs_shared {
	struct vfs_node *node; /* private */
	struct cache_mapping *mapping;
	int memfd;	       /* the file's, not to be closed; its size can't be changed by who gets it */
	uint64_t pages;	       /* that it has room for: the file can't grow beyond them meanwhile (-EFBIG) */
	unsigned reserve;      /* units that who faults on a page reserves: cache_reserve() */
};
/*
 * Also of read-only mounts, whose files refuse stores (-EROFS). -EINVAL, -EISDIR: no regular file. -EOPNOTSUPP: no memfd can be made
 * so large (RLIMIT_FSIZE). -EBUSY: pages are pinned where they lie now. -EIO, …: what is dirty can't be written.
 */
int vfs_share(struct vfs *vfs, uint64_t ino, struct vfs_shared *ret);
/* A description of the memfd of its own, for another process; write: that can be mapped to store. Its descriptor, or -errno. */
int vfs_shared_open(const struct vfs_shared *shared, bool write);
/* Nothing maps it through this one any more. All zeroes is allowed. */
void vfs_unshare(struct vfs *vfs, struct vfs_shared *shared);
bool vfs_is_shared(struct vfs *vfs, uint64_t ino);

/* ---- writable mounts; on others all of it is -EROFS ---- */

bool vfs_writable(const struct vfs *vfs);
/* What it was opened for came to nothing: a delta that is new goes. Before vfs_free(), while its options' path is still there. */
void vfs_abandon(struct vfs *vfs);
/* NULL: there is none. */
struct delta *vfs_delta(const struct vfs *vfs);
/* All counters, a line for each: its name, a space, the number. Returns the length without the 0 behind it; what doesn't fit is left out. */
size_t vfs_stat_text(struct vfs *vfs, char *buf, size_t size);
/* Went down (vfs_shutdown), or the disk has failed: only reading goes on, if that. */
bool vfs_failed(const struct vfs *vfs);
/*
 * From now on the kernel keeps the mtime and ctime of regular files itself (it caches what is written), and tells both with
 * vfs_setattr() sooner or later: what changes content leaves them alone. Before anything else is asked.
 */
void vfs_kernel_times(struct vfs *vfs);
/* Of the inode number, for file handles: another one if the number means another file. */
uint64_t vfs_generation(const struct vfs *vfs, uint64_t ino);

/*
 * Writes what is dirty, makes a checkpoint. Before vfs_free(), which loses it; and for syncfs(2). -errno: what of it failed.
 */
int vfs_sync(struct vfs *vfs);

/* Who asks. The kernel has checked that they may. */
struct vfs_cred {
	uid_t uid;
	gid_t gid;
	mode_t umask;
};

/*
 * On a writable vfs each inode that is given out by lookup, create, mkdir, …, and vfs_dir_getattr() is counted as known to the
 * caller once more, until vfs_forget(): what has no name any more lives while it is known or open.
 */
void vfs_forget(struct vfs *vfs, uint64_t ino, uint64_t count);

/* mode has the type: a regular file, FIFO, socket or device (rdev). The umask or the directory's default ACL applies. -EEXIST. */
int vfs_mknod(struct vfs *vfs, uint64_t parent, const char *name, mode_t mode, dev_t rdev, const struct vfs_cred *cred,
	struct stat *ret);
int vfs_mkdir(struct vfs *vfs, uint64_t parent, const char *name, mode_t mode, const struct vfs_cred *cred, struct stat *ret);
int vfs_symlink(struct vfs *vfs, uint64_t parent, const char *name, const char *target, const struct vfs_cred *cred, struct stat *ret);
/* A regular file without a name, that vfs_link() can give one. */
int vfs_tmpfile(struct vfs *vfs, uint64_t parent, mode_t mode, const struct vfs_cred *cred, struct stat *ret);
int vfs_link(struct vfs *vfs, uint64_t ino, uint64_t parent, const char *name, struct stat *ret);
int vfs_unlink(struct vfs *vfs, uint64_t parent, const char *name);
int vfs_rmdir(struct vfs *vfs, uint64_t parent, const char *name);
/* flags: RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT as renameat2(2); others -EINVAL. */
int vfs_rename(struct vfs *vfs, uint64_t parent, const char *name, uint64_t new_parent, const char *new_name, unsigned flags,
	const struct vfs_cred *cred);

enum {
	VFS_SET_MODE = 1u << 0,
	VFS_SET_UID = 1u << 1,
	VFS_SET_GID = 1u << 2,
	VFS_SET_SIZE = 1u << 3,
	VFS_SET_ATIME = 1u << 4,
	VFS_SET_MTIME = 1u << 5,
	VFS_SET_CTIME = 1u << 6,
	VFS_SET_ATIME_NOW = 1u << 7,
	VFS_SET_MTIME_NOW = 1u << 8,
	/* setuid, setgid and file capabilities go, as when somebody without CAP_FSETID changes content or owner. */
	VFS_SET_KILL_PRIV = 1u << 9,
};
struct vfs_setattr {
	unsigned valid; /* VFS_SET_* */
	mode_t mode;	/* permissions */
	uid_t uid;
	gid_t gid;
	uint64_t size;
	struct timespec atime, mtime, ctime;
};
int vfs_setattr(struct vfs *vfs, uint64_t ino, const struct vfs_setattr *set, struct stat *ret);

/* flags: XATTR_CREATE, XATTR_REPLACE. ACLs are checked and change the mode; kill_sgid: as FUSE_SETXATTR_ACL_KILL_SGID. */
int vfs_setxattr(struct vfs *vfs, uint64_t ino, const char *name, const void *value, size_t size, int flags, bool kill_sgid);
int vfs_removexattr(struct vfs *vfs, uint64_t ino, const char *name);

/*
 * FS_*_FL as FS_IOC_GETFLAGS; and the project of FS_IOC_FSGETXATTR. Which flags can't be changed is -EOPNOTSUPP, and FS_SYNC_FL where the
 * kernel caches what is written.
 */
int vfs_getflags(struct vfs *vfs, uint64_t ino, uint32_t *ret_flags, uint32_t *ret_project);
int vfs_setflags(struct vfs *vfs, uint64_t ino, uint32_t flags, uint32_t project);

/* An open file: keeps its inode alive, and knows which failures of writing it was told of. */
struct vfs_file;
/* flags: as open(2) (O_ACCMODE, O_APPEND, O_TRUNC). kill_priv: with O_TRUNC, as VFS_SET_KILL_PRIV. */
int vfs_open(struct vfs *vfs, uint64_t ino, int flags, bool kill_priv, struct vfs_file **ret);
void vfs_release(struct vfs *vfs, struct vfs_file *file);

/*
 * Somebody reads the file into a cache of his own. Before the read: then who asks after a write whether there is a cache
 * with what was there before gets the right answer, until the file isn't open any more.
 */
void vfs_note_cached(struct vfs_file *file);
bool vfs_may_be_cached(struct vfs_file *file);

/* Has somebody it open for writing? */
bool vfs_has_writers(struct vfs *vfs, uint64_t ino);
/* The next one of those, with a number after `ino`. -ENOENT */
int vfs_next_writer(struct vfs *vfs, uint64_t ino, uint64_t *ret);

enum {
	VFS_WRITE_CACHED = 1u << 0, /* from the kernel's page cache, which keeps the times and the size itself */
	VFS_WRITE_KILL_PRIV = 1u << 1,
	VFS_WRITE_SYNC = 1u << 2,  /* durable when it returns (O_SYNC) */
	VFS_WRITE_DSYNC = 1u << 3, /* the same, but for attributes that reading doesn't need */
	VFS_WRITE_APPEND = 1u << 4, /* at the end of the file, wherever that is */
	VFS_WRITE_PAGE = 1u << 5,   /* a page of the kernel's, which a program has changed when it might: immutable by now or not */
	VFS_WRITE_KILL_CAPS = 1u << 6, /* file capabilities go, whoever writes */
};
/* The number of bytes that were written; fewer than len only if an error came after them. -ENOSPC, -EFBIG, … */
ssize_t vfs_write(struct vfs *vfs, uint64_t ino, uint64_t offset, const void *buf, size_t len, unsigned flags);
/* mode: FALLOC_FL_KEEP_SIZE, _PUNCH_HOLE, _ZERO_RANGE; others -EOPNOTSUPP. */
int vfs_fallocate(struct vfs *vfs, uint64_t ino, int mode, uint64_t offset, uint64_t len);
/* As copy_file_range(2); whole pages are shared, not copied. */
ssize_t vfs_copy_range(struct vfs *vfs, uint64_t from, uint64_t from_offset, uint64_t to, uint64_t to_offset, size_t len);
/* file: whose failed writebacks are reported, once each; or NULL. For directories too; for the root it is vfs_sync(). */
int vfs_fsync(struct vfs *vfs, uint64_t ino, struct vfs_file *file, bool data_only);

/*
 * After a change of the inode: it is durable on return, if the mount (sync) or its flags (FS_SYNC_FL) ask for that; of a directory,
 * whose names were changed, also by dirsync and FS_DIRSYNC_FL. Else nothing.
 */
int vfs_settle(struct vfs *vfs, uint64_t ino);

/* Gives free space of the delta between bytes [start, start + len) back to the disk, runs of at least `least` bytes. FITRIM. */
int vfs_trim(struct vfs *vfs, uint64_t start, uint64_t len, uint64_t least, uint64_t *ret_bytes);
/* No byte is written any more, all that asks gets -EIO: as if power had failed now. flush: vfs_sync() comes first. */
int vfs_shutdown(struct vfs *vfs, bool flush);

#endif
