/* SPDX-License-Identifier: MIT */
/*
 * What the tests of the delta's tree share: a sorted array that has the same items as the tree, a disk in memory that knows which
 * places may be read, used and freed, and allocations that fail (base/mem.h's functions are linked with --wrap).
 *
 * must() checks all of it, since most of this is called from within loops.
 */
#ifndef PINFS_TESTS_TREE_MODEL_H
#define PINFS_TESTS_TREE_MODEL_H

#include "support.h"

#include "delta/tree.h"

#define ID 0x1122334455667788ull
#define DISK_NODES 40000u
#define PAGES_PER_NODE PINFS_DELTA_NODE_PAGES

/* ---- memory ---- */

/* Allocations so far, the one that fails, and those that are not freed. */
extern uint64_t mem_made, mem_fail_at, mem_live;

/* ---- the disk ---- */

enum place {
	PLACE_FREE,
	PLACE_USED,
	PLACE_PENDING, /* freed, but the last durable checkpoint may refer to it: not to be used before the next */
};

struct disk {
	uint8_t *nodes[DISK_NODES];
	uint8_t place[DISK_NODES]; /* enum place */
	bool durable[DISK_NODES];  /* part of the last checkpoint that was written */
	unsigned next, used;
	unsigned allocs, fail_alloc_at; /* from 1; 0: never */
	unsigned reads, fail_read_at;
	unsigned frees, damaged;
	bool hostile; /* what is freed may be anything */
	const char *what;
};

extern const struct tree_ops model_ops; /* owner: struct disk */

struct disk *disk_new(void);
void disk_end(struct disk *d);
/* The number of the node that lies at a page. */
unsigned place_of(const struct disk *d, uint64_t page);

/* ---- the model ---- */

struct entry {
	struct tree_key key;
	uint32_t version, len;
};

struct model {
	struct entry *entries;
	size_t count, capacity;
};

/* Where the key is, or belongs. */
size_t model_find(const struct model *m, struct tree_key key);
bool model_has(const struct model *m, size_t at, struct tree_key key);
void model_put(struct model *m, struct entry e);
void model_delete(struct model *m, size_t at);
struct model model_copy(const struct model *m);
void model_free(struct model *m);
/* What the item's value is: it follows from key, version and length. */
void value_make(const struct entry *e, uint8_t *buf);
void value_check(const struct entry *e, const void *value, size_t len);

/* ---- both ---- */

struct both {
	struct disk *disk;
	struct tree *tree;
	struct model model;
	struct tree_root root; /* of the last checkpoint */
	uint64_t generation;
	size_t cache;
	uint32_t version;
};

void both_begin(struct both *b, size_t cache);
/* Everything is freed, and nothing is left. */
void both_end(struct both *b);
/* As the tree's functions; what they say is compared with the model. */
int both_put(struct both *b, struct tree_key key, uint32_t len);
int both_delete(struct both *b, struct tree_key key);
int both_get(struct both *b, struct tree_key key);
int both_find(struct both *b, struct tree_key from, struct tree_key end);
int both_find_last(struct both *b, struct tree_key from, struct tree_key to);
/* Every item of the model is in the tree, and nothing else. */
void compare_all(struct tree *tree, const struct model *m);

struct shape {
	uint64_t nodes, leaves, items, dirty;
};

int shape_visit(void *context, const struct tree_node_info *info);
/* Of a tree without damage. */
struct shape shape_of(struct both *b);
/* The nodes without a place are the dirty ones. */
void check_dirty(struct both *b);
/* The places that are used are the tree's, no more. */
void check_places(struct both *b);

/* Freezes, writes and thaws; or step by step. */
void checkpoint(struct both *b);
void write_frozen(struct both *b);
void thaw_written(struct both *b, const struct tree_root *root);
/* A new tree, from the last checkpoint. */
void reopen(struct both *b);

/* ---- random ---- */

/* Trees of three levels: few items of a leaf, and many of them. */
extern bool tall;

struct tree_key key_random(struct rng *rng);
struct tree_key key_there(struct both *b, struct rng *rng);
uint32_t len_random(struct rng *rng);
/* One change or look. Deletes win where `shrink` is high, of 100. */
int step(struct both *b, struct rng *rng, unsigned shrink);
/* Items to begin with, and a checkpoint: a tall tree has three levels then. */
void fill(struct both *b, struct rng *rng, unsigned items);

#endif
