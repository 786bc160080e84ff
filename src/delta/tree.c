/* SPDX-License-Identifier: MIT */
/* Looking up and changing. A change first reads what it needs and gets memory for the worst case; from then on nothing can fail. */
#include "delta/tree_internal.h"

#include "base/mem.h"

/* A leaf or an inner node is merged with a neighbour if both together fill less than this; and looked at when it alone fills less than half. */
#define MERGE_BELOW (NODE_ROOM * 3 / 4)
/* So many insertions one behind the other are taken for the beginning of more. */
#define RUN 8

int tree_new(const struct tree_ops *ops, void *owner, uint64_t id, const struct tree_root *root, size_t cache, struct tree **ret)
{
	struct tree *t;

	if (root->height > PINFS_DELTA_HEIGHT_MAX || !root->height != !root->page || (!root->height && root->items))
		return -EUCLEAN;
	t = mem_alloc(sizeof(*t));
	if (!t)
		return -ENOMEM;
	t->ops = ops;
	t->owner = owner;
	t->id = id;
	t->root_page = root->page;
	t->root_generation = root->generation;
	t->height = root->height;
	t->items = root->items;
	t->limit = MAX(cache / NODE_SIZE, PINFS_DELTA_HEIGHT_MAX + 8u);
	*ret = t;
	return 0;
}

static void free_below(struct tree *t, struct node *n)
{
	for (unsigned i = 0; n->level && i < n->count; i++)
		if (n->child[i])
			free_below(t, n->child[i]);
	node_free(t, n);
}

void tree_free(struct tree *t)
{
	if (!t)
		return;
	if (t->root)
		free_below(t, t->root);
	for (size_t i = 0; i < t->frozen_count; i++)
		if (!t->frozen[i].node)
			mem_free(t->frozen[i].bytes);
	mem_free(t->frozen);
	mem_free(t->gone);
	spares_trim(t, true);
	mem_free(t);
}

size_t tree_dirty(const struct tree *t)
{
	return t->dirty;
}

uint64_t tree_items(const struct tree *t)
{
	return t->items;
}

int tree_reserve(struct tree *t, unsigned changes)
{
	return spares_fill(t, changes);
}

/* ---- looking up ---- */

/* From the root to the leaf that has the key, or would. slot[0] is not set. -ENOENT: the tree is empty. */
static int descend(struct tree *t, struct tree_key key, struct path *path)
{
	struct node *n;
	int r = node_root(t, &n);

	while (r == 0) {
		path->node[n->level] = n;
		if (!n->level)
			return 0;
		path->slot[n->level] = inner_find(n, key);
		r = node_child(t, n, path->slot[n->level], &n);
	}
	return r;
}

static bool leaf_has(const struct node *n, unsigned slot, struct tree_key key)
{
	return slot < n->count && tree_key_compare(leaf_key(n, slot), key) == 0;
}

static void give_item(struct tree *t, struct node *n, unsigned slot, const void **ret, size_t *ret_len)
{
	recent_add(t, n);
	*ret = leaf_value(n, slot);
	*ret_len = leaf_len(n, slot);
}

int tree_get(struct tree *t, struct tree_key key, const void **ret, size_t *ret_len)
{
	struct path path;
	unsigned slot;
	int r = descend(t, key, &path);

	if (r < 0)
		return r;
	slot = leaf_find(path.node[0], key);
	if (!leaf_has(path.node[0], slot, key))
		return -ENOENT;
	give_item(t, path.node[0], slot, ret, ret_len);
	return 0;
}

/* The outermost leaf below n's child `slot`. */
static int outermost(struct tree *t, struct node *n, unsigned slot, bool last, struct node **ret)
{
	int r = node_child(t, n, slot, &n);

	while (r == 0 && n->level)
		r = node_child(t, n, last ? n->count - 1u : 0, &n);
	if (r == 0)
		*ret = n;
	return r;
}

int tree_find(struct tree *t, struct tree_key from, struct tree_key end, struct tree_key *ret_key, const void **ret, size_t *ret_len)
{
	struct path path;
	struct node *n;
	unsigned slot, level = 1;
	int r = descend(t, from, &path);

	if (r < 0)
		return r;
	n = path.node[0];
	slot = leaf_find(n, from);
	if (slot == n->count) {
		/* The next leaf's first item, if its keys are not all behind the end. */
		while (level < t->height && path.slot[level] + 1 == path.node[level]->count)
			level++;
		if (level >= t->height || tree_key_compare(inner_key(path.node[level], path.slot[level] + 1), end) >= 0)
			return -ENOENT;
		r = outermost(t, path.node[level], path.slot[level] + 1, false, &n);
		if (r < 0)
			return r;
		slot = 0;
	}
	if (tree_key_compare(leaf_key(n, slot), end) >= 0)
		return -ENOENT;
	*ret_key = leaf_key(n, slot);
	give_item(t, n, slot, ret, ret_len);
	return 0;
}

int tree_find_last(struct tree *t, struct tree_key from, struct tree_key to, struct tree_key *ret_key, const void **ret,
	size_t *ret_len)
{
	struct path path;
	struct node *n;
	unsigned slot, level = 1;
	int r = descend(t, to, &path);

	if (r < 0)
		return r;
	n = path.node[0];
	slot = leaf_find(n, to);
	if (!leaf_has(n, slot, to) && slot-- == 0) {
		/* The last item of the leaf before, if its keys are not all before `from`: they are below this one's. */
		while (level < t->height && path.slot[level] == 0)
			level++;
		if (level >= t->height || tree_key_compare(inner_key(path.node[level], path.slot[level]), from) <= 0)
			return -ENOENT;
		r = outermost(t, path.node[level], path.slot[level] - 1, true, &n);
		if (r < 0)
			return r;
		slot = n->count - 1u;
	}
	if (tree_key_compare(leaf_key(n, slot), from) < 0)
		return -ENOENT;
	*ret_key = leaf_key(n, slot);
	give_item(t, n, slot, ret, ret_len);
	return 0;
}

/* ---- putting ---- */

/* From here on nothing can fail: the nodes of the path are read, and the spares suffice. */
static void path_dirty(struct tree *t, struct path *path)
{
	if (path->node[0]->state == NODE_DIRTY)
		return;
	for (unsigned level = t->height; level-- > 0;)
		node_dirty(t, path->node[level]);
}

static bool path_is_last(const struct tree *t, const struct path *path)
{
	for (unsigned level = 1; level < t->height; level++)
		if (path->slot[level] + 1 < path->node[level]->count)
			return false;
	return true;
}

static void root_split(struct tree *t, struct tree_key key, struct node *right)
{
	struct node *root = node_new(t, t->height);

	inner_insert(root, 0, (struct tree_key){0}, t->root);
	inner_insert(root, 1, key, right);
	t->root = root;
	t->height++;
}

/* Puts a new node right behind the one that the path has at its level; last: the path goes along the tree's right edge. */
static void insert_above(struct tree *t, struct path *path, struct tree_key key, struct node *child, bool last)
{
	for (unsigned level = child->level + 1u; level < t->height; level++) {
		struct node *n = path->node[level], *right;
		unsigned slot = path->slot[level] + 1, from;

		if (n->count < INNER_MAX) {
			inner_insert(n, slot, key, child);
			return;
		}
		/* What grows at its end alone gets full nodes. */
		from = last ? n->count : n->count / 2u;
		right = node_new(t, level);
		inner_move(right, 0, n, from, n->count - from);
		if (slot > from || last)
			inner_insert(right, slot - from, key, child);
		else
			inner_insert(n, slot, key, child);
		key = inner_key(right, 0);
		child = right;
	}
	root_split(t, key, child);
}

/*
 * Where to cut a leaf that has no room for an item of `size` bytes at `slot`: so many items, with the new one, stay on the
 * left. Both halves have room then.
 */
static unsigned split_at(const struct node *n, unsigned slot, unsigned size, bool last)
{
	unsigned all = node_used(n) + size, left = 0, s = 0;

	if (slot == n->count && (last || (n->run >= RUN && n->follow == slot)))
		return slot;
	/* A sequence that goes on in front of others: they are left behind, unless that makes no room. */
	if (n->run >= RUN && n->follow == slot) {
		for (unsigned i = 0; i < slot; i++)
			left += (unsigned)LEAF_SLOT + leaf_len(n, i);
		if (left + size <= NODE_ROOM)
			return slot + 1;
		return slot;
	}
	for (; left < all / 2; s++)
		left += s == slot ? size : (unsigned)LEAF_SLOT + leaf_len(n, s - (s > slot));
	return s;
}

static void put_and_split(struct tree *t, struct path *path, struct tree_key key, const void *value, unsigned len)
{
	struct node *n = path->node[0], *right = node_new(t, 0);
	bool last = path_is_last(t, path);
	unsigned slot = path->slot[0], at = split_at(n, slot, (unsigned)LEAF_SLOT + len, last);
	unsigned keep = at - (slot < at);

	right->run = n->run;
	leaf_copy(t, right, 0, n, keep, n->count - keep);
	leaf_cut(t, n, keep);
	if (slot < at)
		leaf_insert(t, n, slot, key, value, len);
	else
		leaf_insert(t, right, slot - at, key, value, len);
	insert_above(t, path, leaf_key(right, 0), right, last);
}

static void put_first(struct tree *t, struct tree_key key, const void *value, unsigned len)
{
	t->root = node_new(t, 0);
	t->height = 1;
	leaf_insert(t, t->root, 0, key, value, len);
	t->items++;
}

/* A tree that can't become higher. Its root alone is looked at: it has room as good as always. */
static bool is_full(const struct tree *t)
{
	return t->height == PINFS_DELTA_HEIGHT_MAX && t->root->count == INNER_MAX;
}

int tree_put(struct tree *t, struct tree_key key, const void *value, size_t len)
{
	struct path path;
	struct node *n;
	unsigned slot;
	int r;

	if (len > PINFS_DELTA_ITEM_MAX)
		return -EINVAL;
	if (len)
		memcpy(t->value, value, len);
	recent_drop(t);
	r = spares_fill(t, 1);
	if (r < 0)
		return r;
	if (!t->height) {
		put_first(t, key, t->value, (unsigned)len);
		return 0;
	}
	r = descend(t, key, &path);
	if (r < 0)
		return r;
	if (is_full(t))
		return -ENOSPC;
	path_dirty(t, &path);
	n = path.node[0];
	slot = path.slot[0] = leaf_find(n, key);
	if (leaf_has(n, slot, key)) {
		if (leaf_replace(t, n, slot, t->value, (unsigned)len))
			return 0;
	} else {
		t->items++;
	}
	if (node_used(n) + LEAF_SLOT + len <= NODE_ROOM)
		leaf_insert(t, n, slot, key, t->value, (unsigned)len);
	else
		put_and_split(t, &path, key, t->value, (unsigned)len);
	return 0;
}

/* ---- deleting ---- */

/* All of `gone`, the neighbour of n in `parent`, comes to n. */
static void merge_into(struct tree *t, struct node *parent, struct node *n, unsigned slot, struct node *gone, bool is_left)
{
	unsigned at = is_left ? 0 : n->count, middle = is_left ? gone->count : n->count;

	if (n->level) {
		inner_move(n, at, gone, 0, gone->count);
		/* The first key of the right one stood for "from the beginning". */
		inner_slot(n, middle)->key = inner_slot(parent, slot + !is_left)->key;
	} else {
		leaf_copy(t, n, at, gone, 0, gone->count);
		n->run = 0;
	}
	if (is_left) {
		parent->child[slot] = gone;
		parent->child[slot - 1] = n;
	}
	inner_remove(parent, slot + !is_left);
	node_vanish(t, gone);
}

/* True: the parent has one slot less. A neighbour that can't be read is no neighbour: merging is not needed. */
static bool try_merge(struct tree *t, struct node *parent, struct node *n, unsigned slot)
{
	if (node_used(n) >= NODE_ROOM / 2)
		return false;
	for (unsigned right = 0; right < 2; right++) {
		struct node *other;

		if (right ? slot + 1 >= parent->count : slot == 0)
			continue;
		if (node_child(t, parent, right ? slot + 1 : slot - 1, &other) < 0)
			continue;
		if (node_used(n) + node_used(other) > MERGE_BELOW)
			continue;
		merge_into(t, parent, n, slot, other, !right);
		return true;
	}
	return false;
}

/* The root is gone if it is empty, or has one child only. */
void root_collapse(struct tree *t)
{
	while (t->root && (!t->root->count || (t->root->count == 1 && t->root->level))) {
		struct node *root = t->root;

		t->root = NULL;
		t->root_page = t->root_generation = 0;
		t->height--;
		if (root->count) {
			const struct pinfs_delta_ref *ref = &inner_slot(root, 0)->child;

			t->root_page = pinfs_get64(ref->page);
			t->root_generation = pinfs_get64(ref->generation);
			t->root = root->child[0];
			if (t->root)
				t->root->parent = NULL;
			root->resident = 0;
		} else {
			t->height = 0;
		}
		node_vanish(t, root);
	}
}

static void tidy(struct tree *t, struct path *path)
{
	for (unsigned level = 0; level + 1 < t->height; level++) {
		struct node *n = path->node[level], *parent = path->node[level + 1];

		if (!n->count) {
			inner_remove(parent, path->slot[level + 1]);
			node_vanish(t, n);
		} else if (!try_merge(t, parent, n, path->slot[level + 1])) {
			return;
		}
	}
	root_collapse(t);
}

int tree_delete(struct tree *t, struct tree_key key)
{
	struct path path;
	unsigned slot;
	int r;

	recent_drop(t);
	r = spares_fill(t, 1);
	if (r == 0)
		r = descend(t, key, &path);
	if (r < 0)
		return r;
	slot = leaf_find(path.node[0], key);
	if (!leaf_has(path.node[0], slot, key))
		return -ENOENT;
	path_dirty(t, &path);
	leaf_remove(path.node[0], slot);
	/* A damaged tree may have more than it said. */
	if (t->items)
		t->items--;
	tidy(t, &path);
	return 0;
}
