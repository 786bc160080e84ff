/* SPDX-License-Identifier: MIT */
/* What the files of src/vfs share. */
#ifndef PINFS_VFS_INTERNAL_H
#define PINFS_VFS_INTERNAL_H

#include <assert.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/sync.h"
#include "delta/delta.h"
#include "vfs/vfs.h"

/*
 * A file that is open, has pages in the cache, or is being worked on. Found by its number in a table; freed when it is none of that.
 *
 * lock (LOCK_INODE): who changes its content or size, and who opens or removes it. Everything else is guarded by vfs.nodes_lock.
 */
struct vfs_node {
	struct vfs *vfs;
	uint64_t ino;
	struct mutex lock;
	unsigned users; /* who work on it, and open files */
	unsigned opens, writers; /* open files; those that can be written */
	unsigned syncing; /* who wait for its content to be durable */
	struct a32 cached; /* vfs_note_cached() */
	uint64_t promised; /* pages that are or become dirty, and have no place so far */
	struct cache_mapping *_Atomic mapping; /* set once, under lock; NULL: all of its content is in the image, or it is empty */
	/* Times that the delta doesn't know so far. */
	bool mtime_dirty, atime_dirty;
	struct timespec mtime, ctime, atime;
	int cut_error;	 /* lock: what went wrong while pages left it */
	uint8_t *tail;	 /* lock: the last page as it will be, for `cut` */
	uint64_t tail_reserved;
	struct mem_region memory; /* lock: where its pages lie while it is shared (shared.c); else all zeroes, or a rest of that */
	unsigned shares;	  /* lock */
	struct vfs_share *share; /* lock: what `cut` puts in the place of what leaves */
	struct vfs_node *next;		/* in its bucket */
	struct vfs_node *newer, *older; /* among those that nobody uses */
	bool idle;
	uint64_t idle_since;
};

struct vfs_file {
	struct vfs_node *node;
	struct cache_errseq seen;
	bool errseq; /* `seen` was sampled */
	int flags;
};

#define NODE_BUCKETS 1024u
/* How many nodes that nobody uses keep their pages. */
#define NODES_IDLE 512u

/* How often each inode is known to the kernel: open addressing. */
struct known {
	struct known_entry {
		uint64_t ino, count;
	} *entries;
	size_t size, used;
};

struct vfs {
	char *name;
	struct vfs_idmap uids, gids;
	struct image *image;
	struct cache *cache;
	struct cache_mapping *blocks; /* the image's data blocks, by number */
	uint8_t *zeros;		      /* VFS_READ_MAX bytes, mapped read-only: all of them one page of the kernel's */
	struct log_limit damage_limit;
	_Atomic(uint64_t) damage_last, damage_time; /* byte and time of the last message */

	/* Writable mounts. */
	struct delta *delta; /* NULL: read-only */
	bool kernel_times;   /* vfs_kernel_times(), before the first request */
	struct vfs_delta_options options;
	char *delta_name;
	bool delta_new;
	struct mutex nodes_lock;
	struct vfs_node *buckets[NODE_BUCKETS]; /* nodes_lock */
	struct vfs_node *idle_newest, *idle_oldest;
	unsigned idle_count;
	struct known known;	 /* nodes_lock */
	uint64_t orphans;	 /* nodes_lock: inodes without a name that are still there */
	struct cond node_freed;
	/* The thread that writes and frees what nobody uses any more. */
	pthread_t janitor;
	struct mutex janitor_lock;
	struct cond janitor_wake;
	bool janitor_started, janitor_stop, janitor_asked;
};

/* The cache's way down to the image. */
extern const struct cache_ops vfs_image_ops;
extern const struct cache_ops vfs_node_ops;

uint32_t vfs_map_id(const struct vfs_idmap *map, uint32_t id);
/* The other way: what is stored for an owner that is shown as `id`. -EOVERFLOW: nobody is. (With map->all everybody keeps his own.) */
int vfs_unmap_id(const struct vfs_idmap *map, uint32_t id, uint32_t *ret);
/* Something in the image contradicts itself, seen from here: logged as the image's own findings; -EUCLEAN. */
int vfs_damaged(struct vfs *vfs, const struct image_inode *inode, const char *what);

/* ---- inode.c: a file as it is, by image and delta ---- */

struct vfs_inode {
	struct delta_inode i; /* as the delta has it, or would; size: what is on the disk */
	uint64_t size;	      /* as programs see it */
	uint64_t promised;    /* pages that will be part of it */
	bool in_delta;
	bool has_image;
	struct image_inode image;
};

/* Under the delta's lock, if there is one. -ENOENT */
int inode_load(struct vfs *vfs, uint64_t ino, struct vfs_inode *ret);
/* The same, and it is a directory. -ENOTDIR */
int inode_load_dir(struct vfs *vfs, uint64_t ino, struct vfs_inode *ret);
/* Within a transaction: with times that only the node knows so far. */
int inode_store(struct vfs *vfs, struct vfs_inode *inode);
void inode_stat(const struct vfs *vfs, const struct vfs_inode *inode, struct stat *ret);
/* Locks and loads, or not: read-only mounts have no lock. */
void vfs_lock(struct vfs *vfs);
void vfs_unlock(struct vfs *vfs);
/* Has it content in the delta? */
int inode_has_extents(struct vfs *vfs, const struct vfs_inode *inode, bool *ret);
struct timespec time_now(void);
struct timespec later(struct timespec a, struct timespec b);
/* -EPERM: it is immutable, or only takes appended bytes. */
int inode_may_change(const struct vfs_inode *inode);

/* ---- dir.c ---- */

struct vfs_name {
	uint64_t ino;
	uint8_t type;
	bool in_image; /* the image has this name, too: to remove it, it has to be hidden */
};
/* Under the lock. -ENOENT: no such name (in_image may be set all the same). */
int name_find(struct vfs *vfs, const struct vfs_inode *dir, const char *name, struct vfs_name *ret);

/* ---- node.c ---- */

/* A user more; made if need be. -ENOMEM */
int node_get(struct vfs *vfs, uint64_t ino, struct vfs_node **ret);
/* If there is one. */
struct vfs_node *node_find(struct vfs *vfs, uint64_t ino);
void node_put(struct vfs_node *node);
int nodes_init(struct vfs *vfs);
void nodes_destroy(struct vfs *vfs);
/* Known to the kernel once more. -ENOMEM */
int known_add(struct vfs *vfs, uint64_t ino);
/* Under no lock: an inode has lost its last name. */
void orphan_new(struct vfs *vfs, uint64_t ino);
/* One has a name again. */
void orphan_named(struct vfs *vfs);
/* Those that a crash has left. */
int orphans_recover(struct vfs *vfs);
/* Changes [first, …) of pages have left the file: gives their places back, in as many transactions as it takes. */
int node_destroy(struct vfs *vfs, uint64_t ino);
/* The delta has these times of it now. */
void times_stored(struct vfs_node *node, const struct delta_inode *inode);
/* It has not, after all. */
void times_not_stored(struct vfs_node *node, const struct delta_inode *inode);
/* One who had it open (write: for writing) has it no more: a user less. Without a name, and with nobody else, it goes. */
void node_closed(struct vfs_node *node, bool write);
/* shared.c: the memfd of a file that nobody shares any more goes, if its pages can. */
void node_room_end(struct vfs_node *node);
/* Writes what is dirty of it, content and times. */
int node_sync(struct vfs_node *node, struct cache_errseq *seen);

/* ---- data.c ---- */

/* A page of a file, and the block of the image that it may come from: what a reader or writer of such pages reserves. */
#define NODE_RESERVE 2u
/* The file has pages in the cache from now on. Under node->lock. */
int node_map(struct vfs_node *node);
/* Under node->lock: what has to be so before its content changes. */
int node_prepare(struct vfs_node *node);
/* Under the lock: how many pages of [first, end) are the image's, no extent lying over them. */
int image_pages_in(struct vfs *vfs, const struct delta_inode *inode, uint64_t first, uint64_t end, uint64_t *ret);
/* So many stop being that: what stat(2) says of its blocks. */
void image_pages_lose(struct delta_inode *inode, uint64_t n);
/* copy.c, while pages leave: others take their place. */
int node_share(struct vfs_node *node);
/* Under node->lock: the file ends there. */
int node_truncate(struct vfs_node *node, uint64_t size, bool times);
/* Under node->lock: what a cut that a crash has interrupted left behind the end goes; whatever the file's flags are by now, since it was begun. */
int node_finish_cut(struct vfs_node *node, uint64_t size);
/* Reads bytes of pages of the image. */
int image_read_page(struct vfs *vfs, const struct image_inode *inode, uint64_t page, uint64_t end, uint8_t *data);
/* Its content has changed: new times. */
void node_touch(struct vfs_node *node);
/* Within a transaction: setuid, setgid and file capabilities go. */
int inode_kill_priv(struct vfs *vfs, struct vfs_inode *inode);
/* The same: only file capabilities. */
int inode_kill_caps(struct vfs *vfs, struct vfs_inode *inode);

/* ---- xattr.c, acl.c ---- */

#define ACL_ACCESS "system.posix_acl_access"
#define ACL_DEFAULT "system.posix_acl_default"
#define CAPABILITY "security.capability"
/* ssize_t, as getxattr; under the lock; ids as stored. */
ssize_t xattr_get(struct vfs *vfs, const struct vfs_inode *inode, const char *name, void *value, size_t size);
/* Within a transaction: the delta has the inode's attributes, all of them. -EAGAIN: they are too many for it; xattrs_copy() comes first. */
int xattrs_own(struct vfs *vfs, struct vfs_inode *inode);
/* In as many transactions as it takes: the delta has all of the image's attributes, that nobody looks at before xattrs_own(). */
int xattrs_copy(struct vfs *vfs, uint64_t ino);
bool acl_valid(const void *acl, size_t size);
/* The permissions that it amounts to. True: it says no more than these. */
bool acl_mode(const void *acl, size_t size, mode_t *mode);
/* It grants what a mode says. */
void acl_chmod(void *acl, size_t size, mode_t mode);
/* The ACL of a new file in a directory with this default one, for which `mode` was asked. *mode: what it has. True: the mode says it all. */
bool acl_create(void *acl, size_t size, mode_t *mode);

#endif
