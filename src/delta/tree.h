/* SPDX-License-Identifier: MIT */
/*
 * The tree: all items of a delta in one B+tree of nodes that are never changed on disk, only written anew
 * (include/pinfs/delta_format.h has the nodes).
 *
 * Between two checkpoints changes are in memory alone, in dirty nodes. A checkpoint freezes the tree: each dirty node gets
 * its new place, and the frozen nodes, which nobody changes any more, can be written while the tree goes on: who changes
 * something in a frozen node gets a copy.
 *
 *	clean ──change──► dirty ──tree_freeze──► frozen ──tree_thaw(true)──► clean ──memory is short──► gone
 *	                   ▲  ▲                    │
 *	                   │  └─tree_thaw(false)───┤ (and its place is given back)
 *	                   └───────change──────────┘ (a copy; the frozen one stays until the thaw)
 *
 * One thread at a time (the delta's lock), but for tree_frozen_next(). Every function may read nodes, that is sleep. What
 * comes from the disk is checked before it is used: a node that contradicts itself or its parent is -EUCLEAN, told to
 * `damaged`; nothing was changed then. Functions that change the tree either do all or nothing (-ENOMEM, -EIO, -EUCLEAN).
 */
#ifndef PINFS_DELTA_TREE_H
#define PINFS_DELTA_TREE_H

#include "base/util.h"
#include "pinfs/delta_format.h"

struct tree;

struct tree_key {
	uint64_t object, offset;
};
static inline int tree_key_compare(struct tree_key a, struct tree_key b)
{
	return a.object != b.object ? (a.object < b.object ? -1 : 1) : a.offset != b.offset ? (a.offset < b.offset ? -1 : 1) : 0;
}

struct tree_root {
	uint64_t page, generation; /* page 0: empty */
	unsigned height;	   /* levels; 0: empty */
	uint64_t items;
};

struct tree_ops {
	/* The PINFS_DELTA_NODE_SIZE bytes from `page` on. 0 or -errno. */
	int (*read)(void *owner, uint64_t page, void *buf);
	/* PINFS_DELTA_NODE_PAGES pages for a node, that a checkpoint may use. 0, -ENOSPC or another error. */
	int (*alloc)(void *owner, uint64_t *ret_page);
	/* The node at `page` is not part of the tree any more (whatever an older checkpoint says). Can't fail. */
	void (*free)(void *owner, uint64_t page);
	/* Says what is wrong with the node at `page`. */
	void (*damaged)(void *owner, uint64_t page, const char *what);
};

/*
 * id: the first 8 bytes of the delta's UUID. root: of the checkpoint. cache: bytes of clean nodes to keep, at least; dirty and frozen ones
 * come on top. Reads nothing.
 */
int tree_new(const struct tree_ops *ops, void *owner, uint64_t id, const struct tree_root *root, size_t cache, struct tree **ret);
/* NULL is allowed. What is dirty is lost. */
void tree_free(struct tree *tree);

/*
 * The item with this key. *ret points into a node: valid until the next call that is no tree_get, tree_find or tree_find_last, and
 * at most 8 such calls. -ENOENT.
 */
int tree_get(struct tree *tree, struct tree_key key, const void **ret, size_t *ret_len);
/* The first item with a key >= `from`, and < `end`. Same lifetime. -ENOENT: there is none. */
int tree_find(struct tree *tree, struct tree_key from, struct tree_key end, struct tree_key *ret_key, const void **ret, size_t *ret_len);
/* The last item with a key <= `to`, and >= `from`. */
int tree_find_last(struct tree *tree, struct tree_key from, struct tree_key to, struct tree_key *ret_key, const void **ret, size_t *ret_len);

/* The item has this value now; it is made, if there is none. len <= PINFS_DELTA_ITEM_MAX. value may point into the tree. */
int tree_put(struct tree *tree, struct tree_key key, const void *value, size_t len);
/* -ENOENT */
int tree_delete(struct tree *tree, struct tree_key key);

/*
 * Makes sure that the next `changes` changes of items that were looked at since can't fail for want of memory: they are undone in that case.
 * -ENOMEM.
 */
int tree_reserve(struct tree *tree, unsigned changes);

/* Nodes that are dirty now, and how many a checkpoint would have to write. */
size_t tree_dirty(const struct tree *tree);
uint64_t tree_items(const struct tree *tree);

/*
 * Freezes what is dirty, as part of checkpoint `generation`: *ret_root is the tree as it is now, once all frozen nodes have been written. Their old
 * places are freed. -ENOSPC, and other errors of `alloc`: all is as it was (and what was allocated is freed). Not twice without tree_thaw().
 */
int tree_freeze(struct tree *tree, uint64_t generation, struct tree_root *ret_root);
/*
 * The next frozen node: where to write which PINFS_DELTA_NODE_SIZE bytes, checksum and all; they stay until the thaw. *cursor begins with 0.
 * False: no more. One thread may call this while another one uses the tree.
 */
bool tree_frozen_next(struct tree *tree, size_t *cursor, uint64_t *ret_page, const void **ret_bytes);
/*
 * The frozen nodes were written, and are clean now; or were not: what has not been copied since is dirty again, and all their new places are freed.
 * (Their old places stay free: there is no way back to the old tree, and the next freeze finds new ones.)
 */
void tree_thaw(struct tree *tree, bool written);

/*
 * Walks all nodes, as they are now, parents first: fsck. *ret points into the node, until the next call of the tree from `visit`'s return on.
 * A damaged node is told to `damaged`, counted, and left out; `visit` returns 0 to go on. Returns the first error of visit, else 0.
 */
struct tree_node_info {
	uint64_t page;	 /* 0: dirty, it has no place */
	unsigned level;
	unsigned count;
};
int tree_walk(struct tree *tree, int (*visit)(void *context, const struct tree_node_info *info), void *context, uint64_t *ret_damaged);
/* Places of nodes that were part of the checkpoint, are not part of the tree any more, and not freed so far. */
size_t tree_gone(const struct tree *tree, const uint64_t **ret);
/* Nobody will free those. */
void tree_forget_gone(struct tree *tree);
/* Byte of the delta where an item's value lies; 0: the node is dirty, or there is none. */
uint64_t tree_where(struct tree *tree, struct tree_key key);
/*
 * fsck -y: takes damaged nodes out of their parents, so that all others can be used: what was below them is lost; in *ret_lost how many nodes.
 */
int tree_prune(struct tree *tree, uint64_t *ret_lost);

#endif
