/* SPDX-License-Identifier: MIT */
#include "cache/index.h"

#include <assert.h>

#define INDEX_MASK (INDEX_FAN - 1)

static struct index_node *node_at(const struct index_pool *p, uint32_t no)
{
	return &p->slabs[no >> CACHE_INDEX_SLAB_SHIFT][no & ((1u << CACHE_INDEX_SLAB_SHIFT) - 1)];
}

static unsigned shift_of(const struct index_pool *p, uint32_t no)
{
	return a32_read(&node_at(p, no)->shift);
}

static unsigned slot_of(uint64_t unit, unsigned shift)
{
	return shift < 64 ? (unsigned)(unit >> shift) & INDEX_MASK : 0;
}

/* Does `unit` lie outside of what a node with this shift covers, if it is the root? */
static bool outside(uint64_t unit, unsigned shift)
{
	return shift + CACHE_INDEX_SHIFT < 64 && unit >> (shift + CACHE_INDEX_SHIFT);
}

int index_pool_init(struct index_pool *p)
{
	*p = (struct index_pool){0};
	p->slabs = mem_alloc(CACHE_INDEX_SLABS * sizeof(*p->slabs));
	if (!p->slabs)
		return -ENOMEM;
	mutex_init(&p->lock, LOCK_ARENA);
	return 0;
}

void index_pool_destroy(struct index_pool *p)
{
	if (!p->slabs)
		return;
	for (uint32_t i = 0; i < a32_read(&p->count) >> CACHE_INDEX_SLAB_SHIFT; i++)
		mem_free(p->slabs[i]);
	mem_free(p->slabs);
	p->slabs = NULL;
	mutex_destroy(&p->lock);
}

/* Adds a slab; its nodes become free. */
static int pool_grow(struct index_pool *p)
{
	struct index_node *slab = mem_alloc(sizeof(*slab) << CACHE_INDEX_SLAB_SHIFT);
	uint32_t first;
	int r = 0;

	if (!slab)
		return -ENOMEM;
	mutex_lock(&p->lock);
	first = a32_read(&p->count);
	if (first >> CACHE_INDEX_SLAB_SHIFT == CACHE_INDEX_SLABS) {
		r = -ENOMEM;
	} else {
		p->slabs[first >> CACHE_INDEX_SLAB_SHIFT] = slab;
		for (uint32_t i = 0; i < 1u << CACHE_INDEX_SLAB_SHIFT; i++) {
			slab[i].parent = p->free;
			p->free = first + i + 1;
		}
		p->free_count += 1u << CACHE_INDEX_SLAB_SHIFT;
		a32_set_release(&p->count, first + (1u << CACHE_INDEX_SLAB_SHIFT));
	}
	mutex_unlock(&p->lock);
	if (r < 0)
		mem_free(slab);
	return r;
}

/* The most levels that a tree can have. */
#define LEVELS_MOST DIV_ROUND_UP(CACHE_INDEX_BITS, CACHE_INDEX_SHIFT)

int index_reserve(struct index_pool *p, unsigned *ret_nodes)
{
	/*
	 * A higher root over what is there, and a way down from it, beside all that is there. How high the root is, is not known before the
	 * lock is held: a low unit may come into a high tree.
	 */
	const unsigned want = 2 * LEVELS_MOST;

	for (;;) {
		bool enough;
		int r;

		mutex_lock(&p->lock);
		enough = p->free_count - p->reserved >= want;
		if (enough)
			p->reserved += want;
		mutex_unlock(&p->lock);
		if (enough) {
			*ret_nodes = want;
			return 0;
		}
		r = pool_grow(p);
		if (r < 0)
			return r;
	}
}

void index_unreserve(struct index_pool *p, unsigned nodes)
{
	mutex_lock(&p->lock);
	assert(nodes <= p->reserved);
	p->reserved -= nodes;
	mutex_unlock(&p->lock);
}

static uint32_t node_take(struct index_pool *p, unsigned shift, unsigned *nodes)
{
	struct index_node *n;
	uint32_t no;

	assert(*nodes);
	mutex_lock(&p->lock);
	no = p->free - 1;
	n = node_at(p, no);
	p->free = n->parent;
	p->free_count--;
	p->reserved--;
	mutex_unlock(&p->lock);
	(*nodes)--;
	n->parent = 0;
	n->count = 0;
	n->dirty = 0;
	a32_set(&n->shift, shift);
	return no;
}

static void node_give(struct index_pool *p, uint32_t no)
{
	mutex_lock(&p->lock);
	node_at(p, no)->parent = p->free;
	p->free = no + 1;
	p->free_count++;
	mutex_unlock(&p->lock);
}

uint32_t index_find(const struct index_pool *p, const struct index *ix, uint64_t unit)
{
	uint32_t at = a32_read_acquire(&ix->root);
	unsigned shift;

	if (!at)
		return FRAME_NONE;
	shift = a32_read(&node_at(p, at - 1)->shift);
	if (outside(unit, shift))
		return FRAME_NONE;
	for (;;) {
		at = a32_read_acquire(&node_at(p, at - 1)->slots[slot_of(unit, shift)]);
		if (!at)
			return FRAME_NONE;
		if (!shift)
			return at - 1;
		/* A node that has meanwhile become a lowest one holds frames, whose numbers may be no nodes'. */
		if (at > a32_read_acquire(&p->count))
			return FRAME_NONE;
		shift -= CACHE_INDEX_SHIFT;
	}
}

void index_insert_locked(struct index_pool *p, struct index *ix, uint64_t unit, uint32_t frame, unsigned *nodes)
{
	uint32_t root = a32_read(&ix->root), no;
	struct index_node *n;

	if (!root)
		root = node_take(p, 0, nodes) + 1;
	/* A root that covers the unit. */
	while (outside(unit, shift_of(p, root - 1))) {
		struct index_node *old = node_at(p, root - 1);

		no = node_take(p, shift_of(p, root - 1) + CACHE_INDEX_SHIFT, nodes);
		n = node_at(p, no);
		if (old->count) {
			n->count = 1;
			n->dirty = old->dirty ? 1 : 0;
			old->parent = no + 1;
			old->offset = 0;
			a32_set_release(&n->slots[0], root);
		} else {
			node_give(p, root - 1);
		}
		root = no + 1;
	}
	no = root - 1;
	for (n = node_at(p, no); shift_of(p, no); n = node_at(p, no)) {
		unsigned shift = shift_of(p, no), s = slot_of(unit, shift);
		uint32_t below = a32_read(&n->slots[s]);

		if (!below) {
			struct index_node *new;

			below = node_take(p, shift - CACHE_INDEX_SHIFT, nodes) + 1;
			new = node_at(p, below - 1);
			new->parent = no + 1;
			new->offset = (uint8_t)s;
			n->count++;
			a32_set_release(&n->slots[s], below);
		}
		no = below - 1;
	}
	assert(!a32_read(&n->slots[unit & INDEX_MASK]));
	n->count++;
	a32_set_release(&n->slots[unit & INDEX_MASK], frame + 1);
	if (a32_read(&ix->root) != root)
		a32_set_release(&ix->root, root);
}

/* The lowest node on the way to a unit that is there. */
static uint32_t leaf_of(struct index_pool *p, const struct index *ix, uint64_t unit)
{
	uint32_t no = a32_read(&ix->root) - 1;

	while (shift_of(p, no))
		no = a32_read(&node_at(p, no)->slots[slot_of(unit, shift_of(p, no))]) - 1;
	return no;
}

void index_remove_locked(struct index_pool *p, struct index *ix, uint64_t unit)
{
	uint32_t no = leaf_of(p, ix, unit);
	unsigned slot = unit & INDEX_MASK;

	index_mark_locked(p, ix, unit, false);
	for (;;) {
		struct index_node *n = node_at(p, no);
		uint32_t parent = n->parent;

		a32_set_release(&n->slots[slot], 0);
		if (--n->count)
			return;
		slot = n->offset;
		if (!parent)
			a32_set_release(&ix->root, 0);
		node_give(p, no);
		if (!parent)
			return;
		no = parent - 1;
	}
}

void index_mark_locked(struct index_pool *p, struct index *ix, uint64_t unit, bool dirty)
{
	uint32_t no = leaf_of(p, ix, unit);
	unsigned slot = unit & INDEX_MASK;

	for (;;) {
		struct index_node *n = node_at(p, no);
		uint64_t bit = 1ull << slot, before = n->dirty;

		n->dirty = dirty ? before | bit : before & ~bit;
		/* Above nothing changes, if there was something dirty beside it. */
		if (!n->parent || (dirty ? before != 0 : n->dirty != 0))
			return;
		slot = n->offset;
		no = n->parent - 1;
	}
}

/* The first slot from `from` on that is in use (and dirty); INDEX_FAN: none. */
static unsigned slot_next(const struct index_node *n, unsigned from, bool dirty)
{
	while (from < INDEX_FAN && !(dirty ? n->dirty >> from & 1 : a32_read(&n->slots[from]) != 0))
		from++;
	return from;
}

uint32_t index_next_locked(struct index_pool *p, const struct index *ix, uint64_t *unit, bool dirty)
{
	uint64_t at = *unit;

	while (a32_read(&ix->root)) {
		struct index_node *n = node_at(p, a32_read(&ix->root) - 1);
		unsigned shift = a32_read(&n->shift), slot;

		if (outside(at, shift))
			break;
		for (;;) {
			unsigned from = slot_of(at, shift);

			slot = slot_next(n, from, dirty);
			if (slot == INDEX_FAN)
				break;
			/* Everything before the slot is known to be empty. */
			if (slot > from)
				at = ((at >> shift & ~(uint64_t)INDEX_MASK) | slot) << shift;
			if (!shift) {
				*unit = at;
				return a32_read(&n->slots[slot]) - 1;
			}
			n = node_at(p, a32_read(&n->slots[slot]) - 1);
			shift -= CACHE_INDEX_SHIFT;
		}
		/* Nothing more below this node: behind it. */
		shift += CACHE_INDEX_SHIFT;
		if (shift >= 64)
			break;
		at = ((at >> shift) + 1) << shift;
		if (!at)
			break;
	}
	return FRAME_NONE;
}
