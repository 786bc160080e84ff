/* SPDX-License-Identifier: MIT */
/* Freezing the tree, giving out its frozen nodes, and thawing it. */
#include "delta/tree_internal.h"

#include "base/mem.h"
#include "codec/codec.h"

/* Finds places for all dirty nodes from n down, children first, in the order of their keys: so they lie on the disk. */
static int find_places(struct tree *t, struct node *n, uint64_t generation)
{
	int r;

	for (unsigned i = 0; n->level && i < n->count; i++) {
		struct node *child = n->child[i];

		if (!child || child->state != NODE_DIRTY)
			continue;
		r = find_places(t, child, generation);
		if (r < 0)
			return r;
		inner_slot(n, i)->child = (struct pinfs_delta_ref){pinfs_put64(child->page), pinfs_put64(generation)};
	}
	r = t->ops->alloc(t->owner, &n->page);
	if (r < 0) {
		n->page = 0;
		return r;
	}
	t->frozen[t->frozen_count++] = (struct frozen){.page = n->page, .bytes = n->bytes, .node = n};
	return 0;
}

/* All but the checksum. */
static void seal(struct tree *t, struct node *n, uint64_t generation)
{
	size_t end = NODE_HEADER + n->count * (n->level ? INNER_SLOT : LEAF_SLOT);

	if (n->holes)
		leaf_close_holes(t, n);
	memset(n->bytes + end, 0, n->low - end);
	*(struct pinfs_delta_node *)n->bytes = (struct pinfs_delta_node){
		.magic = pinfs_put32(PINFS_DELTA_NODE_MAGIC),
		.level = pinfs_put16(n->level),
		.count = pinfs_put16(n->count),
		.page = pinfs_put64(n->page),
		.generation = pinfs_put64(generation),
		.delta = pinfs_put64(t->id),
		.low = pinfs_put32(n->low),
	};
}

static void forget_frozen(struct tree *t)
{
	mem_free(t->frozen);
	t->frozen = NULL;
	t->frozen_count = 0;
}

int tree_freeze(struct tree *t, uint64_t generation, struct tree_root *ret_root)
{
	int r = 0;

	assert(!t->is_frozen);
	recent_drop(t);
	if (t->dirty) {
		t->frozen = mem_alloc(t->dirty * sizeof(*t->frozen));
		if (!t->frozen)
			return -ENOMEM;
		r = find_places(t, t->root, generation);
	}
	if (r < 0) {
		for (size_t i = 0; i < t->frozen_count; i++) {
			t->ops->free(t->owner, t->frozen[i].page);
			t->frozen[i].node->page = 0;
		}
		forget_frozen(t);
		return r;
	}
	assert(t->frozen_count == t->dirty);
	for (size_t i = 0; i < t->frozen_count; i++) {
		struct node *n = t->frozen[i].node;

		seal(t, n, generation);
		n->state = NODE_FROZEN;
		n->frozen = i;
	}
	if (t->dirty) {
		t->root_page = t->root->page;
		t->root_generation = generation;
	}
	t->dirty = 0;
	t->is_frozen = true;
	for (size_t i = 0; i < t->gone_count; i++)
		t->ops->free(t->owner, t->gone[i]);
	t->gone_count = 0;
	*ret_root = (struct tree_root){.page = t->root_page, .generation = t->root_generation, .height = t->height, .items = t->items};
	return 0;
}

bool tree_frozen_next(struct tree *t, size_t *cursor, uint64_t *ret_page, const void **ret_bytes)
{
	struct frozen *f;
	uint64_t checksum;

	if (*cursor >= t->frozen_count)
		return false;
	f = &t->frozen[(*cursor)++];
	/* Only now, since this takes a while, and the tree is not locked. Nobody else looks at a frozen node's checksum. */
	checksum = codec_checksum(f->bytes + 8, NODE_SIZE - 8);
	((struct pinfs_delta_node *)f->bytes)->checksum = pinfs_put64(checksum);
	*ret_page = f->page;
	*ret_bytes = f->bytes;
	return true;
}

void tree_thaw(struct tree *t, bool written)
{
	assert(t->is_frozen);
	recent_drop(t);
	for (size_t i = 0; i < t->frozen_count; i++) {
		struct frozen *f = &t->frozen[i];

		if (!f->node) {
			mem_free(f->bytes);
			t->orphans--;
			/* It is part of the checkpoint that was written just now. */
			if (written)
				t->gone[t->gone_count++] = f->page;
		} else if (written) {
			node_clean(t, f->node);
		} else {
			f->node->state = NODE_DIRTY;
			f->node->page = 0;
			t->dirty++;
		}
		if (!written)
			t->ops->free(t->owner, f->page);
	}
	forget_frozen(t);
	t->is_frozen = false;
	spares_trim(t, false);
	nodes_evict(t);
}
