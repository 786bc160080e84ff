/* SPDX-License-Identifier: MIT */
/* What the files of src/delta share. */
#ifndef PINFS_DELTA_INTERNAL_H
#define PINFS_DELTA_INTERNAL_H

#include <assert.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/sync.h"
#include "codec/codec.h"
#include "delta/delta.h"
#include "delta/space.h"
#include "delta/tree.h"

#define KEY(ino, type, offset_) ((struct tree_key){(uint64_t)(ino) << 8 | (type), (offset_)})
/* Of checkpoints and frames: only what was forged comes near it. What has reached it writes no more, and what is there stays. */
#define COUNT_MOST (UINT64_C(1) << 62)
#define INO_MAX ((UINT64_MAX >> 8) - 2)

/* Nodes that a transaction may make dirty, and that a checkpoint must then have pages for. */
#define TXN_NODES 24u
/* Changes of the tree for which there is memory in reserve, so that undoing them can't fail. */
#define UNDO_RESERVE 16u
/* Pages that are kept for the next checkpoint beside those of its dirty nodes. */
#define CHECKPOINT_MARGIN 96u
/* Free runs of at least so many pages go back to the disk, after a checkpoint and in the end; smaller ones wait to be used again. */
#define PUNCH_LEAST 32u
/* So many bytes of dirty nodes are too much. */
#define DIRTY_NODES_MOST ((size_t)(48u << 20) / PINFS_DELTA_NODE_SIZE)

/* What a transaction has changed, to undo it: newest last. */
struct undo {
	enum { UNDO_ITEM, UNDO_ALLOC, UNDO_TAKE, UNDO_FREE } kind; /* ALLOC: they were in flight, and are again; TAKE: nobody's */
	struct tree_key key; /* ALLOC, FREE: first page, pages */
	bool existed;
	size_t at, len; /* of the old value in txn.old */
};

struct txn {
	bool active;
	uint8_t *out; /* the frame, behind a page of room for what stands before it in the log */
	size_t len;   /* of the payload so far */
	size_t capacity;
	struct undo *undo;
	size_t undo_count, undo_capacity;
	uint8_t *old;
	size_t old_len, old_capacity;
	uint64_t next_ino, files; /* before it */
	size_t logged;		  /* before it: how many pages were noted */
	size_t dirty;		  /* before it: nodes of the tree that were dirty */
	bool placed;		  /* log_prepare() has said where its frame will lie */
	int error;			    /* the first; it can only be aborted then */
};

struct log {
	uint64_t first, bytes; /* bytes of the delta */
	uint64_t head, tail;   /* in the log: where the next frame goes; where the first one is that a crash needs */
	uint64_t used;
	uint64_t limit;		     /* bytes of it that are in use so far */
	uint64_t sequence, previous; /* of the next frame */
	uint64_t ready;		     /* bytes of the log up to here were written once: flushing them needs nothing but that */
	uint8_t page[PINFS_PAGE_SIZE]; /* what stands in the head's page */
};

struct delta {
	struct store *store;
	struct delta_options options;
	uint8_t uuid[16];
	uint64_t id; /* its first 8 bytes */
	uint64_t hash_seed, created;
	uint32_t ino_generation;

	struct mutex checkpoint_lock;
	struct mutex lock;
	struct tree *tree;   /* lock */
	struct space *space; /* lock */
	struct txn txn;	     /* lock */
	struct log log;	     /* lock */
	uint64_t next_ino, files; /* lock */
	uint64_t generation;	  /* lock: of the durable checkpoint */
	uint64_t map_first, map_pages; /* lock: of the last checkpoint's map */
	/* lock: pages that lay in the log alone when they were written, each with a page of space promised. */
	struct logged {
		uint64_t ino, page;
	} *logged;
	size_t logged_count, logged_capacity;
	struct writer_memory *writers; /* lock: that nobody uses now */
	unsigned writers_count;
	bool settling; /* lock: a checkpoint moves them out of the log: no others come before it is frozen */
	uint64_t frames, replayed, checkpoints;
	uint64_t alloc_end; /* replay: no frame takes pages from here on */
	struct delta_salvage salvage;
	bool log_no_content; /* replay ended before a frame whose content isn't there */
	struct cond room;	  /* lock: the log has been shortened */
	uint8_t *map;		  /* checkpoint_lock: for space_snapshot() */
	bool swept;		  /* checkpoint_lock: free pages that an earlier mount has left went back to the disk */

	struct a64 written; /* number of the last frame */
	struct a64 durable;
	struct a64 failed;  /* -errno as a positive number; 0 */

	struct mutex flush_lock;
	struct cond flushed;
	bool flushing; /* flush_lock */

	/* The thread. */
	struct mutex thread_lock;
	struct cond wake;
	pthread_t thread;
	bool thread_started; /* const while others may look */
	bool stop, asked;    /* thread_lock */
};

/* ---- damage ---- */

/* Tells, and returns -EUCLEAN. */
int delta_damaged(struct delta *delta, uint64_t offset, const char *fmt, ...) _printf_(3, 4);

/* ---- delta.c ---- */

/* Whole, and in the place where it belongs. */
bool super_valid(const struct pinfs_delta_super *super, unsigned slot);

/* ---- salvage.c ---- */

/* The tree without its damaged nodes. */
int salvage_tree(struct delta *delta);

/* ---- items.c: the forms of items ---- */

struct xattr_item {
	uint64_t slot;
	size_t size, name_len;
	unsigned pieces;
	const uint8_t *name, *value;
};
int inode_item_decode(struct delta *delta, uint64_t ino, const void *value, size_t len, struct delta_inode *ret);
int dirent_decode(struct delta *delta, uint64_t dir, uint64_t slot, const uint8_t *value, size_t len, struct delta_dirent *ret);
int xattr_decode(struct delta *delta, uint64_t ino, uint64_t slot, const uint8_t *value, size_t len, struct xattr_item *ret);
uint64_t name_hash(const struct delta *delta, const char *name, size_t len);

/* ---- txn.c: the items and pages of a transaction ---- */

int txn_put(struct delta *delta, struct tree_key key, const void *value, size_t len);
/* A record whose value for the log is another one than the tree's. */
int txn_put_logged(struct delta *delta, struct tree_key key, const void *value, size_t len, const void *log_value, size_t log_len, const void *log_data, size_t data_len);
int txn_delete(struct delta *delta, struct tree_key key);
int txn_alloc(struct delta *delta, uint64_t first, uint64_t pages);
/* The same, with pages that nobody wants if the transaction is undone. */
int txn_take(struct delta *delta, uint64_t first, uint64_t pages);
int txn_free(struct delta *delta, uint64_t first, uint64_t pages);
int txn_files(struct delta *delta);
/* It should end: by the nodes that it has made dirty, of which the next checkpoint has room for TXN_NODES; or by its length, too. */
static inline bool txn_wide(const struct delta *delta)
{
	return tree_dirty(delta->tree) > delta->txn.dirty + TXN_NODES / 2;
}
static inline bool txn_long(const struct delta *delta)
{
	return delta_txn_size(delta) > DELTA_TXN_MAX / 2 || txn_wide(delta);
}
/* As delta_begin(), for a checkpoint: it makes no room, which others have left for it. */
int txn_begin_settle(struct delta *delta);
/*
 * Has the disk promise what the first transaction needs, so that no change waits for that. Of errors that transaction hears.
 */
void txn_ask_ahead(struct delta *delta);
/* Bytes of the log that settling a page may take. */
#define SETTLE_RECORDS 512u
void txn_destroy(struct txn *txn);

/* ---- log.c ---- */

void log_init_at(struct log *log, uint64_t first, uint64_t bytes, uint64_t start, uint64_t sequence, uint64_t previous);
/* Makes it larger, if there is room on the disk, and in the place that it has. */
bool log_grow(struct delta *delta);
/* All of it that is in use is written once: it has its place on a disk that promises none. */
int log_ready(struct delta *delta);
/* Zeroes, where there is anything. No frame may be needed any more. */
int log_wipe(struct delta *delta);
/* Bytes that frames could still take. */
uint64_t log_room(const struct log *log);
/* The transaction's frame, if it has at most so many bytes, lies at the head: payload and all. If it has more, it may fail (-EAGAIN). */
int log_prepare(struct delta *delta, size_t bytes);
/* Byte of the delta where what is added to the transaction next will lie, after log_prepare(). */
uint64_t log_position(const struct delta *delta);
/* Frames the payload at txn.out, and writes it. */
int log_append(struct delta *delta);
/*
 * Calls `frame` for each valid frame from the log's start on, in order, until one isn't or it returns nonzero, which is returned if negative. The log's head is
 * behind the last one that it returned 0 for, if `take`.
 */
struct log_frame {
	uint64_t sequence, durable, offset; /* offset: byte of the delta where its payload lies */
	const uint8_t *payload;
	size_t len;
};
int log_walk(struct delta *delta, bool take, int (*frame)(void *context, const struct log_frame *frame), void *context);
/* Goes through a payload's records. False: it ends here, or -EUCLEAN in *error: it is none. */
struct log_record {
	unsigned op;
	struct tree_key key;
	const uint8_t *value;
	size_t len;
};
bool log_record_next(const struct log_frame *frame, size_t *at, struct log_record *ret, int *error);

/* ---- replay.c ---- */

int replay_log(struct delta *delta, char error[DELTA_ERROR_SIZE]);

/* ---- checkpoint.c ---- */

int super_write(struct delta *delta, const struct pinfs_delta_super *super);
int checkpoint_make(struct delta *delta);
/* The same, even if nothing has changed. */
int checkpoint_force(struct delta *delta);
/* As space_trim_begin(): gives back what is free. checkpoint_lock is held, the lock is not. */
int trim_free(struct delta *delta, uint64_t first, uint64_t end, uint64_t least, uint64_t keep, bool all, uint64_t *ret_pages);
int map_load(struct delta *delta, const struct pinfs_delta_super *super);
void thread_wake(struct delta *delta);
int delta_thread_start(struct delta *delta);
void thread_end(struct delta *delta);
/* Settles what lies in the log: checkpoints call it. Until `settling` is taken back nothing is written there alone. */
int content_settle(struct delta *delta);

/* ---- extents.c ---- */

/* An extent of the file, with what belongs to it; what it lies over goes. log_data: bytes that only the log gets. */
int extent_put(struct delta *delta, struct delta_inode *inode, uint64_t page, const struct pinfs_delta_extent *extent, const void *more,
	size_t more_len, const void *log_data, size_t log_len);
/*
 * Pages of a RAW or LZ4 extent at a new place, from `skip` on, those before having been put: as many as the transaction should have, at least one; up to
 * where in *ret. What they lie over goes.
 */
int extent_put_some(struct delta *delta, struct delta_inode *inode, uint64_t page, const struct pinfs_delta_extent *extent, const pinfs_le64 *sums,
	unsigned skip, unsigned *ret);
/* RAW pages of an extent that lie over UNWRITTEN ones, in their places. */
int extent_put_in_place(struct delta *delta, struct delta_inode *inode, uint64_t page, const struct pinfs_delta_extent *extent, const void *more,
	size_t more_len);
/* The checksum of page `page` of a RAW extent, whose item has this key. -ESTALE */
int extent_checksums(struct delta *delta, uint64_t ino, uint64_t page, unsigned count, const struct delta_extent *expected, uint64_t *ret);
/* An INLINE extent's bytes: its length, and what they are. -ESTALE */
int extent_inline(struct delta *delta, uint64_t ino, uint64_t page, uint8_t buf[PINFS_DELTA_INLINE_MAX], uint32_t *ret_len, bool *ret_lz4);
void content_free_writers(struct delta *delta);
/* A page of the file lies in the log alone. -ENOMEM */
int logged_note(struct delta *delta, uint64_t ino, uint64_t page);

/* ---- content.c ---- */

/* Are the pages of an extent, as the log has it, as its checksums say? 0, -EUCLEAN, or an error of the disk. */
int extent_verify(struct delta *delta, const void *value, size_t len, uint8_t *buf);
/* Pages of the delta that it refers to; what it counts for in its inode. */
uint64_t extent_stored_pages(const struct pinfs_delta_extent *extent);
uint64_t extent_counted_pages(const struct pinfs_delta_extent *extent);
bool extent_has_pages(unsigned kind);
/* Checks the form of an extent's value. */
bool extent_valid(const void *value, size_t len);
#define EXTENT_BUFFER ((size_t)PINFS_DELTA_RAW_PAGES * PINFS_PAGE_SIZE)

#endif
