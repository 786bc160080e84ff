/* SPDX-License-Identifier: MIT */
/*
 * fuse: serves a vfs to the kernel through libfuse's low-level interface.
 *
 * Used by: cli (mount). Uses: vfs, base. Never: blocks, extents.
 *
 * Node ids are the vfs's inode numbers and st_ino (1:1), so nothing is kept here for each inode: a file handle of NFS stays
 * valid over a restart. All changes come from the one kernel that asks, so it may cache for ever: attributes, names
 * (also those that don't exist), links, directories, content. On a read-only mount FORGET does nothing, and where the
 * kernel can do it even open(2) costs no request; on a writable one the vfs counts what the kernel knows and has open.
 * Notifications have the kernel write back what it has: of a file, where that must be known (late.c), and of all before the end (leave.c).
 * Errors: -EUCLEAN becomes EIO here; nowhere else is the sign flipped.
 */
#ifndef PINFS_FUSE_SERVER_H
#define PINFS_FUSE_SERVER_H

#include "base/util.h"
#include "vfs/vfs.h"

struct fuse_server;

/* Who keeps content. */
enum fuse_cache_mode {
	FUSE_CACHE_KERNEL,    /* the kernel; what is written comes here at once */
	FUSE_CACHE_WRITEBACK, /* the kernel; it writes back when it likes, and keeps size and times meanwhile */
	FUSE_CACHE_DAEMON,    /* not the kernel */
};

struct fuse_server_options {
	const char *image;	   /* absolute path, for PINFS_IOC_INFO */
	const char *mount_options; /* comma separated, escaped as libfuse's -o wants it; default_permissions is among them */
	enum fuse_cache_mode caching;
	unsigned threads;	   /* at most; 0: by the number of processors */
	bool debug;		   /* every request on stderr */
	bool elsewhere;		   /* mounted in another mount namespace, out of reach: the end doesn't unmount */
};

/* The strings are copied; the vfs must outlive the server. */
int fuse_server_new(struct vfs *vfs, const struct fuse_server_options *options, struct fuse_server **ret);

/*
 * Mounts, as root directly, else through fusermount3. Starts no thread. 0 or a negative number: then *ret_reason is
 * what libfuse said last, "" if it said nothing (fusermount3 speaks for itself); until the next call.
 */
int fuse_server_mount(struct fuse_server *server, const char *dir, const char **ret_reason);

/* Serves until the directory is unmounted, or SIGTERM, SIGINT or SIGHUP comes and the kernel has handed over what it
 * had to write (a second signal doesn't wait for that); then unmounts. 0 or -errno. Called by
 * the main thread. */
int fuse_server_run(struct fuse_server *server);

/* Unmounts if that was not done. NULL is allowed. */
void fuse_server_free(struct fuse_server *server);

#endif
