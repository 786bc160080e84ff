/* SPDX-License-Identifier: MIT */
/*
 * delta: the crash-safe change file of a writable mount (include/pinfs/delta_format.h).
 *
 * Used by: vfs, cli, mkfs (fsck), tests. Uses: codec, io (store.h), base. Never: the cache, FUSE, what the image holds.
 *
 * A delta is a set of items, found by inode number and kind, and the pages that some of them refer to. Changes are made in
 * transactions: each is a frame of the log, written (not flushed) before delta_commit() returns, so that it survives the death of the
 * process; after a power cut the delta is as it was after some transaction, and not before the last one that delta_flush() was
 * asked for. In the background a thread flushes what is older than some seconds, and makes checkpoints, so that the log stays short.
 *
 * Locks: everything between delta_begin() and delta_commit() or delta_abort(), or between delta_lock() and delta_unlock(), is one
 * critical section (LOCK_DELTA), in which items are read from the disk. Functions that need it say so by their name's place here.
 * Damage is -EUCLEAN, and told to on_damage. After an error of the disk that leaves it unknown what is there (a failed flush, a failed
 * write of the log) the delta takes no more changes: delta_failed().
 */
#ifndef PINFS_DELTA_DELTA_H
#define PINFS_DELTA_DELTA_H

#include <sys/stat.h>

#include "base/util.h"
#include "io/store.h"
#include "pinfs/delta_format.h"

struct delta;

#define DELTA_ERROR_SIZE 512

struct delta_options {
	uint8_t image_uuid[16], image_hash[16]; /* what it has to belong to */
	uint64_t image_size, image_inodes;
	uint64_t limit;	      /* bytes; 0: what the disk has */
	uint64_t log_size;    /* of a new delta; 0: by the limit */
	unsigned commit_ms;   /* what is older is flushed; 0: 5 s */
	size_t cache;	      /* bytes for nodes; 0: 16 MiB */
	bool read_only;	      /* changes are refused, nothing is written; what is in the log counts */
	bool no_recovery;     /* -EUCLEAN if something is in the log */
	bool no_flush;	      /* nothing waits for the disk: ephemeral mounts */
	bool no_thread;	      /* nothing happens in the background: tools */
	bool salvage;	      /* fsck -y: what is damaged is left out, delta_get_salvage() says what that was; unless read_only, the pages in use are found anew */
	bool any_image;	      /* tools that have no image: whatever it belongs to, as delta_info says */
	/* Called from any thread, perhaps under the delta's lock; may be NULL. offset: byte of the delta. */
	void (*on_damage)(void *context, uint64_t offset, const char *text);
	/* Something that the user should know. */
	void (*on_message)(void *context, const char *text);
	void *context;
};

/* A new delta in an empty store, or in one with a delta that was never finished. */
int delta_create(struct store *store, const struct delta_options *options, struct delta **ret, char error[DELTA_ERROR_SIZE]);
/* A crash came while it was made: there is nothing in it, and nobody can have had anything from it. An error counts as no. */
bool delta_unfinished(struct store *store);
/*
 * -EMEDIUMTYPE: no delta. -ESTALE: of another image. -EOPNOTSUPP: a later version. -EUCLEAN: damaged. -ENOSPC, -EDQUOT: content in its log has no other
 * place to go to, and it can only be opened read_only. The store is the delta's from now on, if that succeeds.
 */
int delta_open(struct store *store, const struct delta_options *options, struct delta **ret, char error[DELTA_ERROR_SIZE]);
/* Without a checkpoint: what is in the log is there the next time. NULL is allowed. */
void delta_close(struct delta *delta);

struct delta_info {
	uint8_t uuid[16], image_uuid[16]; /* its own; the image's that it belongs to */
	uint64_t image_inodes;
	uint64_t generation;	 /* checkpoints so far */
	uint64_t log_bytes, log_used;
	uint64_t frames;	 /* written by this process */
	uint64_t replayed;	 /* frames of the log that were applied when it was opened */
	uint64_t items;
	uint64_t next_ino, files;
	uint32_t ino_generation;
	uint64_t hash_seed;
	uint64_t live_pages, pending_pages, free_pages, reserved_pages;
	uint64_t flushes, checkpoints;
	uint64_t durable, written; /* numbers of frames */
};
void delta_get_info(struct delta *delta, struct delta_info *ret);
struct store *delta_store(const struct delta *delta);

/* 0, or why it takes no changes any more. */
int delta_failed(const struct delta *delta);
/* From now on nothing is written or flushed, and everything fails with `error` (negative). */
void delta_fail(struct delta *delta, int error);

/* Waits until what was committed before is durable; in one flush for all who wait. Sleeps; without the lock. */
int delta_flush(struct delta *delta);
/* The same, and the log is empty afterwards. */
int delta_checkpoint(struct delta *delta);

/* ---- transactions ---- */

enum {
	DELTA_SHRINKS = 1u << 0,  /* it makes room: allowed when there is none */
	DELTA_PROMISED = 1u << 1, /* it puts down what was promised a place, or times: the same */
};
/*
 * Locks, and waits until the log has room for a transaction of DELTA_TXN_MAX bytes. -EROFS, -EIO (delta_failed), -ENOSPC: no room for
 * the nodes that it may change.
 */
int delta_begin(struct delta *delta, unsigned flags);
/* Writes the frame, and unlocks, also on failure: then nothing has happened. */
int delta_commit(struct delta *delta);
/* Undoes it all, and unlocks. */
void delta_abort(struct delta *delta);
/* Bytes that the transaction has so far: who makes long ones stops in time. */
size_t delta_txn_size(const struct delta *delta);
#define DELTA_TXN_MAX (256u << 10)

/* To read items only. */
void delta_lock(struct delta *delta);
void delta_unlock(struct delta *delta);

/* ---- inodes; under the lock, and what changes within a transaction ---- */

struct delta_inode {
	uint64_t ino;
	mode_t mode;
	uint32_t nlink, uid, gid;
	uint64_t size;
	struct timespec atime, mtime, ctime, btime;
	uint32_t major, minor;
	uint32_t flags;
	bool own_xattrs; /* the image's attributes don't count any more */
	bool gone;	 /* of the image, removed */
	uint32_t generation, project;
	uint64_t parent, entries;
	uint64_t image_end;
	uint64_t pages, image_pages;
};

/* -ENOENT: the delta has nothing of it. */
int delta_inode_get(struct delta *delta, uint64_t ino, struct delta_inode *ret);
int delta_inode_put(struct delta *delta, const struct delta_inode *inode);
/* The inode and all its items but extents, which must be gone. *ret_more: the transaction is long; go on in another one. */
int delta_inode_delete(struct delta *delta, uint64_t ino, bool *ret_more);
/* A number that was never used; 0: there are none left. */
uint64_t delta_ino_new(struct delta *delta);
/* The generation of new inodes. */
uint32_t delta_ino_generation(const struct delta *delta);
/* Files that there are, changed by `n`. */
int delta_files_add(struct delta *delta, int64_t n);
int delta_files_set(struct delta *delta, uint64_t n);

int delta_orphan_add(struct delta *delta, uint64_t ino);
int delta_orphan_remove(struct delta *delta, uint64_t ino);
/* The first one with a number from `ino` on. -ENOENT. */
int delta_orphan_next(struct delta *delta, uint64_t ino, uint64_t *ret);

/* ---- names ---- */

struct delta_dirent {
	uint64_t ino; /* 0: hides the image's name */
	uint8_t type; /* DT_* */
	uint8_t name_len;
	uint64_t hash; /* where it lies: the order of the directory */
	char name[PINFS_NAME_MAX + 1];
};
/* -ENOENT: the delta says nothing of that name. */
int delta_dirent_get(struct delta *delta, uint64_t dir, const char *name, size_t len, struct delta_dirent *ret);
int delta_dirent_put(struct delta *delta, uint64_t dir, const char *name, size_t len, uint64_t ino, uint8_t type);
int delta_dirent_delete(struct delta *delta, uint64_t dir, const char *name, size_t len);
/* The first one with a hash from `hash` on. -ENOENT. */
int delta_dirent_next(struct delta *delta, uint64_t dir, uint64_t hash, struct delta_dirent *ret);

/* ---- symbolic links and extended attributes ---- */

int delta_symlink_get(struct delta *delta, uint64_t ino, char ret[PINFS_SYMLINK_MAX + 1]);
int delta_symlink_put(struct delta *delta, uint64_t ino, const char *target);

/* As getxattr(2); -ENODATA. */
ssize_t delta_xattr_get(struct delta *delta, uint64_t ino, const char *name, void *value, size_t size);
int delta_xattr_put(struct delta *delta, uint64_t ino, const char *name, const void *value, size_t size);
/* -ENODATA */
int delta_xattr_delete(struct delta *delta, uint64_t ino, const char *name);
/* The first one with a hash from `hash` on; its name is terminated. -ENOENT. */
int delta_xattr_next(struct delta *delta, uint64_t ino, uint64_t hash, uint64_t *ret_hash, char ret_name[PINFS_XATTR_NAME_MAX + 1],
	size_t *ret_size);

/* ---- content ---- */

#define DELTA_NOTHING 0 /* as a kind of extent: the delta says nothing of these pages */

/* What the pages from `page` on are, as far as that is of one kind. */
struct delta_extent {
	uint64_t page;
	uint64_t pages; /* at least 1 */
	uint8_t kind;	/* enum pinfs_delta_extent_kind, or DELTA_NOTHING */
	uint64_t start; /* RAW, UNWRITTEN: the delta's page of `page`; LZ4: the first one stored; IMAGE: the image file's page; LOGGED: byte of the delta */
	uint32_t skip, raw_pages, stored, image_ino;
	uint64_t key; /* of its item */
	uint64_t checksum; /* LZ4, LOGGED */
};
/* Under the lock. */
int delta_extent_get(struct delta *delta, uint64_t ino, uint64_t page, struct delta_extent *ret);

/*
 * Reads pages [page, page + count) of an extent (RAW, LZ4, INLINE or LOGGED; of others nothing is in the delta), which lie in it; takes the lock itself. -ESTALE:
 * it is not what it was any more, look again. -EUCLEAN: the checksum is wrong.
 */
int delta_extent_read(struct delta *delta, uint64_t ino, const struct delta_extent *extent, uint64_t page, unsigned count,
	uint8_t *const *data);

struct delta_write {
	uint64_t ino, page; /* the first one */
	unsigned count;
	const uint8_t *const *data;
	size_t bytes;	   /* of the file's end, if that lies in the last page; else count pages */
	uint64_t reserved; /* pages that delta_reserve() has promised: they are given up, if that succeeds */
	bool sync;	   /* somebody waits for its flush: little data goes into the log itself */
	bool whole;	   /* there is nothing else in the file: one small page may be kept in its item */
};
/*
 * Writes pages to new places and has the file refer to them, in one or several transactions, in ascending order. `update` changes the inode with each, under the lock: up to
 * which byte of the file it is there. Without the lock; sleeps.
 */
int delta_write(struct delta *delta, const struct delta_write *write,
	int (*update)(void *context, struct delta_inode *inode, uint64_t end), void *context);

/* Promises pages to somebody who will write them; without the lock. A checkpoint is made if that helps. -ENOSPC, -EDQUOT. */
int delta_reserve(struct delta *delta, uint64_t pages);
/* One page out of those that are kept for the next checkpoint, for who makes room with it. */
int delta_reserve_last(struct delta *delta);
void delta_unreserve(struct delta *delta, uint64_t pages);

/*
 * Within a transaction: pages [first, end) of the file are nothing of the delta's any more: the image's below image_end, else a hole. Stops when the
 * transaction is long: *ret_done is where; the caller commits, and begins another one.
 */
int delta_extent_drop(struct delta *delta, struct delta_inode *inode, uint64_t first, uint64_t end, uint64_t *ret_done);
/* Pages, of which the delta says nothing, are a hole. */
int delta_extent_hole(struct delta *delta, struct delta_inode *inode, uint64_t first, uint64_t pages);
/* …are those of a file of the image. */
int delta_extent_image(struct delta *delta, struct delta_inode *inode, uint64_t first, uint64_t pages, uint32_t image_ino, uint64_t image_page);
/* These are as those, shared with them, whatever was there: as many as fit into the transaction, at least one; how many in *ret. */
int delta_extent_share(struct delta *delta, struct delta_inode *inode, uint64_t first, uint64_t pages, uint64_t from_ino, const struct delta_extent *from,
	uint64_t *ret);
/* Pages, of which the delta says nothing, have places of their own, and are zero. Up to `pages`; how many. -ENOSPC. */
int delta_extent_allocate(struct delta *delta, struct delta_inode *inode, uint64_t first, uint64_t pages, uint64_t *ret_pages);

/* Gives free space back to the disk. */
int delta_trim(struct delta *delta, uint64_t start, uint64_t len, uint64_t least, uint64_t *ret_bytes);

/* ---- for fsck and other tools ---- */

/* Under the lock: the first inode that the delta has something of, with a number from `ino` on. -ENOENT. */
int delta_inode_next(struct delta *delta, uint64_t ino, struct delta_inode *ret);

struct delta_super_info {
	bool valid; /* whole, and where it belongs */
	bool empty; /* nothing but zeroes: it was never written */
	uint64_t generation;
};
/* The four superblocks. Errors of the disk. */
int delta_supers_read(struct store *store, struct delta_super_info ret[PINFS_DELTA_SUPERS]);

struct delta_salvage {
	uint64_t lost_nodes; /* of the tree, with all items below them */
	bool map_lost;
	/* Number of the frame that contradicts what stands before it, where its payload lies; 0: none. It counts as the log's end. */
	uint64_t cut, cut_offset;
};
void delta_get_salvage(const struct delta *delta, struct delta_salvage *ret);

/* What lies in the log where it ends, and behind that. */
struct delta_log_end {
	uint64_t offset;   /* byte of the delta: there it ends */
	uint64_t sequence; /* number of the frame that would come next */
	bool torn;	   /* a frame of that number begins there, but is not whole */
	bool no_content;   /* it is whole, but not what it refers to */
	uint64_t behind;   /* whole frames that would follow it */
	bool flushed;	   /* one of these says that the missing one had been flushed: no power cut explains that */
};
int delta_log_end(struct delta *delta, struct delta_log_end *ret);

/* An item as it stands in the tree, of whatever kind. */
struct delta_item {
	uint64_t object, offset; /* its key */
	uint64_t place;		 /* byte of the delta where its value lies; 0: not in a checkpoint so far */
	size_t len;
	uint8_t value[PINFS_DELTA_ITEM_MAX];
};
static inline uint64_t delta_item_ino(const struct delta_item *item)
{
	return item->object >> 8;
}
static inline unsigned delta_item_type(const struct delta_item *item)
{
	return (unsigned)(item->object & 0xff);
}
/* The first one with a key from there on. -ENOENT. Takes the lock itself. */
int delta_item_next(struct delta *delta, uint64_t object, uint64_t offset, struct delta_item *ret);

/* Their decoders, one for each kind; without any lock. -EUCLEAN: on_damage was told why. */
int delta_item_inode(struct delta *delta, const struct delta_item *item, struct delta_inode *ret);
int delta_item_dirent(struct delta *delta, const struct delta_item *item, struct delta_dirent *ret);
struct delta_item_xattr {
	char name[PINFS_XATTR_NAME_MAX + 1];
	size_t name_len, size;
	unsigned pieces;
};
int delta_item_xattr(struct delta *delta, const struct delta_item *item, struct delta_item_xattr *ret);
struct delta_item_extent {
	struct delta_extent extent; /* page, pages, kind, start… as the item has them */
	uint64_t first, stored;	    /* pages of the delta that it refers to */
	uint64_t counted;	    /* what it counts for in delta_inode.pages */
};
int delta_item_extent(struct delta *delta, const struct delta_item *item, struct delta_item_extent *ret);
struct delta_item_shared {
	uint64_t first, pages;
	uint32_t refs;
};
int delta_item_shared(struct delta *delta, const struct delta_item *item, struct delta_item_shared *ret);
/* Bits 8 to 61 of a name's hash, as the slots of DIRENT and XATTR items have them. */
uint64_t delta_name_hash(const struct delta *delta, const char *name, size_t len);

/*
 * Reads the content of an extent, and compares it with its checksums: *ret_bad has a bit for each page of the item that doesn't hold (all bits, where
 * they are compressed together). Errors of the disk count as damage; -ENOMEM.
 */
struct delta_bad_pages {
	uint64_t count, first; /* pages; the first one, counted from the item's */
	uint64_t offset;       /* byte of the delta where it is expected */
	bool bad[PINFS_DELTA_RAW_PAGES];
	int error;	       /* -EUCLEAN, or the disk's */
};
int delta_item_verify(struct delta *delta, const struct delta_item *item, struct delta_bad_pages *ret);

/* Within a transaction: an item has this value, or is gone, whatever that means. -ENOENT */
int delta_item_put(struct delta *delta, uint64_t object, uint64_t offset, const void *value, size_t len);
int delta_item_delete(struct delta *delta, uint64_t object, uint64_t offset);
/* Numbers below this one are used; the next checkpoint says so. */
void delta_ino_raise(struct delta *delta, uint64_t ino);

/* The next run of pages that the map and the log call used, from `page` on. -ENOENT */
int delta_live_next(struct delta *delta, uint64_t page, uint64_t *ret_first, uint64_t *ret_pages);
/*
 * Pages that are used, and not by content: nodes of the tree (those that the last checkpoint alone uses, too) and the map itself.
 */
int delta_walk_places(struct delta *delta, int (*visit)(void *context, uint64_t first, uint64_t pages, bool map), void *context);
/* The pages in use are those that nodes and extents refer to, and no others. Until the next checkpoint nothing is written over that was ever used. */
int delta_rebuild_space(struct delta *delta);
/*
 * Two checkpoints, even if nothing has changed: all four superblocks are new. Then the log is zeroed: frames that were damaged or given up
 * still lie there, and those that are written later may get their numbers, if the superblock that was sound counted from less.
 */
int delta_rewrite(struct delta *delta);

#endif
