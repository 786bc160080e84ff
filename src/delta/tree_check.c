/* SPDX-License-Identifier: MIT */
/* What fsck needs: a walk over all nodes, and taking out those that are damaged. */
#include "delta/tree_internal.h"

/* What a walk does not go on from. Everything else that reading says concerns this one node. */
static bool is_fatal(int r)
{
	return r == -ENOMEM || r == -EINTR;
}

/* ---- walk ---- */

struct walk {
	int (*visit)(void *context, const struct tree_node_info *info);
	void *context;
	uint64_t damaged;
};

static int walk_node(struct tree *t, struct walk *w, struct node *n)
{
	struct tree_node_info info = {.page = n->page, .level = n->level, .count = n->count};
	int r;

	n->pins++;
	r = w->visit(w->context, &info);
	for (unsigned i = 0; r == 0 && n->level && i < n->count; i++) {
		struct node *child;

		r = node_child(t, n, i, &child);
		if (r == 0) {
			r = walk_node(t, w, child);
		} else if (!is_fatal(r)) {
			if (r != -EUCLEAN)
				t->ops->damaged(t->owner, pinfs_get64(inner_slot(n, i)->child.page), "it can't be read");
			w->damaged++;
			r = 0;
		}
	}
	n->pins--;
	return r;
}

int tree_walk(struct tree *t, int (*visit)(void *context, const struct tree_node_info *info), void *context, uint64_t *ret_damaged)
{
	struct walk w = {.visit = visit, .context = context};
	struct node *root;
	int r = node_root(t, &root);

	recent_drop(t);
	if (r == 0) {
		r = walk_node(t, &w, root);
	} else if (r == -ENOENT) {
		r = 0;
	} else if (!is_fatal(r)) {
		if (r != -EUCLEAN)
			t->ops->damaged(t->owner, t->root_page, "it can't be read");
		w.damaged++;
		r = 0;
	}
	if (r == 0)
		*ret_damaged = w.damaged;
	return r;
}

size_t tree_gone(const struct tree *t, const uint64_t **ret)
{
	*ret = t->gone;
	return t->gone_count;
}

void tree_forget_gone(struct tree *t)
{
	t->gone_count = 0;
}

uint64_t tree_where(struct tree *t, struct tree_key key)
{
	struct node *n;
	unsigned slot;
	int r = node_root(t, &n);

	while (r == 0 && n->level)
		r = node_child(t, n, inner_find(n, key), &n);
	if (r < 0 || !n->page)
		return 0;
	slot = leaf_find(n, key);
	return slot < n->count && tree_key_compare(leaf_key(n, slot), key) == 0 ?
		n->page * PINFS_PAGE_SIZE + pinfs_get32(leaf_slot(n, slot)->where) : 0;
}

/* ---- prune ---- */

struct prune {
	uint64_t lost, items;
};

/*
 * Takes slot i out of n, and makes all of its ancestors writable for that. The place of what was there stays as it is: nobody knows
 * whether it is a node's, and only its own.
 */
static int prune_slot(struct tree *t, struct node *n, unsigned slot)
{
	int r = spares_fill(t, 1);

	if (r < 0)
		return r;
	for (unsigned level = t->height; level-- > n->level;) {
		struct node *above = n;

		while (above->level < level)
			above = above->parent;
		node_dirty(t, above);
	}
	inner_remove(n, slot);
	return 0;
}

/* Afterwards n may be without slots: the caller takes it out then. */
static int prune_node(struct tree *t, struct prune *p, struct node *n)
{
	int r = 0;

	if (!n->level)
		p->items += n->count;
	n->pins++;
	for (unsigned i = 0; n->level && i < n->count;) {
		struct node *child;

		r = node_child(t, n, i, &child);
		if (r == 0) {
			r = prune_node(t, p, child);
			if (r < 0)
				break;
			if (child->count) {
				i++;
				continue;
			}
			r = prune_slot(t, n, i);
			if (r < 0)
				break;
			node_vanish(t, child);
			continue;
		}
		if (is_fatal(r))
			break;
		r = prune_slot(t, n, i);
		if (r < 0)
			break;
		p->lost++;
	}
	n->pins--;
	return r;
}

int tree_prune(struct tree *t, uint64_t *ret_lost)
{
	struct prune p = {0};
	struct node *root;
	int r = node_root(t, &root);

	recent_drop(t);
	if (r == 0) {
		r = prune_node(t, &p, root);
		if (r < 0)
			return r;
	} else if (is_fatal(r)) {
		return r;
	} else if (r != -ENOENT) {
		t->root_page = t->root_generation = 0;
		t->height = 0;
		p.lost++;
	}
	/* What was taken out has left room in gone[]. */
	if (t->root && t->root->state == NODE_DIRTY)
		root_collapse(t);
	t->items = p.items;
	*ret_lost = p.lost;
	return 0;
}
