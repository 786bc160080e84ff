/* SPDX-License-Identifier: MIT */
/*
 * What the files of the tree share. tree_node.c: nodes by themselves, their memory, reading and checking them. tree.c: looking
 * up and changing. tree_checkpoint.c: freezing and thawing. tree_check.c: what fsck needs.
 *
 * In memory the nodes are a tree of pointers. What always holds between two calls:
 *
 *  1. The parent of a node in memory is in memory, and has a pointer to it; others of its children may be on the disk only.
 *  2. The parent of a dirty node is dirty, the parent of a frozen node is frozen or dirty.
 *  3. Where a child is clean, frozen or not in memory, its parent's slot says where it lies. A dirty child's slot says nothing.
 *  4. A node that is in the tree has at least one slot, but for a leaf that is the root.
 *  5. gone[] has room for the places of all frozen nodes that were copied or have vanished since (orphans).
 *
 * Nothing here locks: tree_frozen_next() touches frozen[], which stays as it is until the thaw (but for .node, which it does not
 * read), and writes the checksums of frozen nodes, which nobody else reads.
 */
#ifndef PINFS_DELTA_TREE_INTERNAL_H
#define PINFS_DELTA_TREE_INTERNAL_H

#include <assert.h>

#include "delta/tree.h"

#define NODE_SIZE PINFS_DELTA_NODE_SIZE
#define NODE_HEADER sizeof(struct pinfs_delta_node)
#define NODE_ROOM (NODE_SIZE - NODE_HEADER) /* for slots and values */
#define LEAF_SLOT sizeof(struct pinfs_delta_leaf_slot)
#define INNER_SLOT sizeof(struct pinfs_delta_inner_slot)
#define INNER_MAX (NODE_ROOM / INNER_SLOT)
/* A full leaf and one more item can always be cut into two: one half is at most half of that and an item more. */
static_assert((NODE_ROOM + 3 * (PINFS_DELTA_ITEM_MAX + LEAF_SLOT)) / 2 <= NODE_ROOM, "a split makes room");
static_assert(4 * (PINFS_DELTA_ITEM_MAX + LEAF_SLOT) <= NODE_ROOM, "a leaf has room for four items");

enum node_state {
	NODE_CLEAN,
	NODE_DIRTY,
	NODE_FROZEN,
};

struct node {
	uint8_t *bytes; /* NODE_SIZE; the header is written by the freeze */
	struct node *parent;
	struct node *next, *prev; /* clean: the clock's circle */
	uint64_t page;		  /* clean, frozen: its place. dirty: 0 */
	size_t frozen;		  /* frozen: which one of frozen[] */
	uint16_t count;		  /* slots */
	uint16_t low;		  /* leaf: the lowest byte that values use */
	uint16_t holes;		  /* leaf: bytes from there on that no value uses */
	uint16_t resident;	  /* children in memory */
	uint16_t pins;		  /* it can't be evicted */
	uint16_t follow, run;	  /* leaf: the place behind the last insertion; insertions that came one behind the other */
	uint8_t level;
	uint8_t state; /* enum node_state */
	bool used;     /* since the clock's hand was here */
	struct node *child[]; /* above level 0: INNER_MAX; NULL: not in memory */
};

/* Memory that is kept so that a change can't fail half-way. */
enum spare_kind {
	SPARE_LEAF,  /* struct node of a leaf */
	SPARE_INNER, /* of others */
	SPARE_BYTES, /* node.bytes */
	SPARE_KINDS,
};

struct spare {
	struct spare *next;
};

struct frozen {
	uint64_t page;
	uint8_t *bytes;
	struct node *node; /* NULL: it was copied or has vanished, and the bytes are ours to free */
};

#define RECENT 9 /* leaves that results point into; one more than tree.h promises */

struct tree {
	const struct tree_ops *ops;
	void *owner;
	uint64_t id;
	struct node *root;	/* NULL: not in memory, or there is none */
	uint64_t root_page, root_generation; /* unless the root is dirty */
	unsigned height;
	uint64_t items;

	size_t clean, dirty;	/* nodes in memory */
	size_t limit;		/* clean nodes to keep */
	struct node *hand;	/* of the clock */
	struct node *recent[RECENT];
	unsigned recent_at;
	bool recent_any;

	struct frozen *frozen;
	size_t frozen_count, orphans;
	bool is_frozen;
	uint64_t *gone;	/* places that are not part of the tree any more, and are freed by the next freeze */
	size_t gone_count, gone_capacity;

	struct spare *spare[SPARE_KINDS];
	size_t spares[SPARE_KINDS];

	uint8_t value[PINFS_DELTA_ITEM_MAX]; /* what is put: it may point into a node that is changed */
	uint8_t scratch[NODE_SIZE];
};

/* The way from the root to a leaf. */
struct path {
	struct node *node[PINFS_DELTA_HEIGHT_MAX]; /* by level */
	unsigned slot[PINFS_DELTA_HEIGHT_MAX];	   /* of the child in it; of the item in the leaf */
};

/* ---- fields of nodes ---- */

static inline struct pinfs_delta_leaf_slot *leaf_slot(const struct node *n, unsigned slot)
{
	return (struct pinfs_delta_leaf_slot *)(n->bytes + NODE_HEADER) + slot;
}

static inline struct pinfs_delta_inner_slot *inner_slot(const struct node *n, unsigned slot)
{
	return (struct pinfs_delta_inner_slot *)(n->bytes + NODE_HEADER) + slot;
}

static inline struct tree_key key_get(const struct pinfs_delta_key *key)
{
	return (struct tree_key){pinfs_get64(key->object), pinfs_get64(key->offset)};
}

static inline struct pinfs_delta_key key_put(struct tree_key key)
{
	return (struct pinfs_delta_key){pinfs_put64(key.object), pinfs_put64(key.offset)};
}

static inline struct tree_key leaf_key(const struct node *n, unsigned slot)
{
	return key_get(&leaf_slot(n, slot)->key);
}

static inline struct tree_key inner_key(const struct node *n, unsigned slot)
{
	return key_get(&inner_slot(n, slot)->key);
}

static inline unsigned leaf_len(const struct node *n, unsigned slot)
{
	return pinfs_get32(leaf_slot(n, slot)->len);
}

static inline const uint8_t *leaf_value(const struct node *n, unsigned slot)
{
	return n->bytes + pinfs_get32(leaf_slot(n, slot)->where);
}

/* Bytes of slots and values. */
static inline unsigned node_used(const struct node *n)
{
	return n->level ? n->count * (unsigned)INNER_SLOT : n->count * (unsigned)LEAF_SLOT + NODE_SIZE - n->low - n->holes;
}

/* ---- tree_node.c: slots ---- */

/* The first slot with a key >= key; count: none. */
unsigned leaf_find(const struct node *n, struct tree_key key);
/* The child that the key is below. */
unsigned inner_find(const struct node *n, struct tree_key key);
/* There must be room, if need be by closing the holes. */
void leaf_insert(struct tree *t, struct node *n, unsigned slot, struct tree_key key, const void *value, unsigned len);
/* False: there is no room; then the item is gone. */
bool leaf_replace(struct tree *t, struct node *n, unsigned slot, const void *value, unsigned len);
void leaf_remove(struct node *n, unsigned slot);
void leaf_close_holes(struct tree *t, struct node *n);
/* Copies slots [from, from + count) of src to dst's slot `slot`. There must be room. */
void leaf_copy(struct tree *t, struct node *dst, unsigned slot, const struct node *src, unsigned from, unsigned count);
/* Forgets the slots from `count` on. */
void leaf_cut(struct tree *t, struct node *n, unsigned count);
void inner_insert(struct node *n, unsigned slot, struct tree_key key, struct node *child);
void inner_remove(struct node *n, unsigned slot);
/* Moves slots [from, from + count) of src, and its children with them, to dst's slot `slot`. */
void inner_move(struct node *dst, unsigned slot, struct node *src, unsigned from, unsigned count);

/* ---- tree_node.c: memory and states ---- */

/* Makes sure that so many changes find the memory that they need: 0 or -ENOMEM. */
int spares_fill(struct tree *t, unsigned changes);
/* Frees what more than one change needs. */
void spares_trim(struct tree *t, bool all);
/* A new dirty node without slots, out of the spares. */
struct node *node_new(struct tree *t, unsigned level);
/* Makes a node writable, out of the spares. Its ancestors must be dirty. */
void node_dirty(struct tree *t, struct node *n);
/* The node is not part of the tree any more. Whoever pointed to it does not now. */
void node_vanish(struct tree *t, struct node *n);
/* A node has become clean. */
void node_clean(struct tree *t, struct node *n);
/* Frees the memory of clean nodes that nobody needs, down to the limit. */
void nodes_evict(struct tree *t);
/* Results of earlier calls are not valid any more. */
void recent_drop(struct tree *t);
void recent_add(struct tree *t, struct node *n);
/* Gives back a node's memory. */
void node_free(struct tree *t, struct node *n);

/* ---- tree_node.c: reading ---- */

/* The root; -ENOENT: there is none. */
int node_root(struct tree *t, struct node **ret);
int node_child(struct tree *t, struct node *parent, unsigned slot, struct node **ret);

/* ---- tree.c ---- */

/* Takes out roots that are empty or have one child only. The root is dirty. */
void root_collapse(struct tree *t);

#endif
