/* SPDX-License-Identifier: MIT */
/* The tree's nodes: their slots, their memory, and what they must be like when they come from the disk. */
#include "delta/tree_internal.h"

#include "base/mem.h"
#include "codec/codec.h"

/* ---- search ---- */

/* How many of the slots, `stride` bytes each, have keys < key; with `equal`, <= key. No branch depends on what is compared. */
static inline unsigned search(const uint8_t *slots, size_t stride, unsigned count, struct tree_key key, bool equal)
{
	const uint8_t *at = slots;

#define BEFORE(p)                                                                                                  \
	({                                                                                                         \
		struct tree_key k_ = key_get((const struct pinfs_delta_key *)(p));                                 \
		(k_.object < key.object) |                                                                         \
			((k_.object == key.object) & ((k_.offset < key.offset) | (equal & (k_.offset == key.offset)))); \
	})
	if (!count)
		return 0;
	while (count > 1) {
		unsigned half = count / 2;

		at += BEFORE(at + (half - 1) * stride) ? half * stride : 0;
		count -= half;
	}
	return (unsigned)((size_t)(at - slots) / stride) + BEFORE(at);
#undef BEFORE
}

unsigned leaf_find(const struct node *n, struct tree_key key)
{
	return search(n->bytes + NODE_HEADER, LEAF_SLOT, n->count, key, false);
}

unsigned inner_find(const struct node *n, struct tree_key key)
{
	/* The first key stands for "from the beginning". */
	return search(n->bytes + NODE_HEADER + INNER_SLOT, INNER_SLOT, n->count - 1u, key, true);
}

/* ---- slots of leaves ---- */

/* Bytes between slots and values. */
static unsigned leaf_gap(const struct node *n)
{
	return n->low - (unsigned)(NODE_HEADER + n->count * LEAF_SLOT);
}

void leaf_close_holes(struct tree *t, struct node *n)
{
	unsigned low = NODE_SIZE;

	memcpy(t->scratch + n->low, n->bytes + n->low, NODE_SIZE - n->low);
	for (unsigned i = 0; i < n->count; i++) {
		struct pinfs_delta_leaf_slot *s = leaf_slot(n, i);
		unsigned len = pinfs_get32(s->len);

		low -= len;
		memcpy(n->bytes + low, t->scratch + pinfs_get32(s->where), len);
		s->where = pinfs_put32(len ? low : NODE_SIZE);
	}
	n->low = (uint16_t)low;
	n->holes = 0;
}

/* Room for a value (and, before, for the slots); returns where it begins. A value of no bytes is at the node's end. */
static unsigned leaf_take(struct node *n, unsigned len)
{
	if (!len)
		return NODE_SIZE;
	n->low = (uint16_t)(n->low - len);
	return n->low;
}

static void leaf_give(struct node *n, unsigned where, unsigned len)
{
	if (where == n->low)
		n->low = (uint16_t)(n->low + len);
	else
		n->holes = (uint16_t)(n->holes + len);
}

static void leaf_open_slots(struct node *n, unsigned slot, unsigned count)
{
	memmove(leaf_slot(n, slot + count), leaf_slot(n, slot), (n->count - slot) * LEAF_SLOT);
	n->count = (uint16_t)(n->count + count);
}

static void leaf_close_slots(struct node *n, unsigned slot, unsigned count)
{
	memmove(leaf_slot(n, slot), leaf_slot(n, slot + count), (n->count - slot - count) * LEAF_SLOT);
	n->count = (uint16_t)(n->count - count);
}

void leaf_insert(struct tree *t, struct node *n, unsigned slot, struct tree_key key, const void *value, unsigned len)
{
	unsigned where;

	if (leaf_gap(n) < LEAF_SLOT + len)
		leaf_close_holes(t, n);
	assert(leaf_gap(n) >= LEAF_SLOT + len);
	leaf_open_slots(n, slot, 1);
	where = leaf_take(n, len);
	memcpy(n->bytes + where, value, len);
	*leaf_slot(n, slot) = (struct pinfs_delta_leaf_slot){key_put(key), pinfs_put32(where), pinfs_put32(len)};
	n->run = slot == n->follow ? (uint16_t)MIN(n->run + 1, UINT16_MAX) : 0;
	n->follow = (uint16_t)(slot + 1);
}

bool leaf_replace(struct tree *t, struct node *n, unsigned slot, const void *value, unsigned len)
{
	struct pinfs_delta_leaf_slot *s = leaf_slot(n, slot);
	unsigned where = pinfs_get32(s->where), old = pinfs_get32(s->len);

	if (len && len <= old) {
		n->holes = (uint16_t)(n->holes + old - len);
	} else {
		leaf_give(n, where, old);
		s->len = pinfs_put32(0);
		s->where = pinfs_put32(NODE_SIZE);
		if (leaf_gap(n) + n->holes < len) {
			leaf_close_slots(n, slot, 1);
			return false;
		}
		if (leaf_gap(n) < len)
			leaf_close_holes(t, n);
		where = leaf_take(n, len);
	}
	memcpy(n->bytes + where, value, len);
	s->where = pinfs_put32(where);
	s->len = pinfs_put32(len);
	return true;
}

void leaf_remove(struct node *n, unsigned slot)
{
	leaf_give(n, pinfs_get32(leaf_slot(n, slot)->where), leaf_len(n, slot));
	leaf_close_slots(n, slot, 1);
	if (slot < n->follow)
		n->follow--;
}

void leaf_copy(struct tree *t, struct node *dst, unsigned slot, const struct node *src, unsigned from, unsigned count)
{
	unsigned bytes = 0;

	for (unsigned i = 0; i < count; i++)
		bytes += (unsigned)LEAF_SLOT + leaf_len(src, from + i);
	if (leaf_gap(dst) < bytes)
		leaf_close_holes(t, dst);
	assert(leaf_gap(dst) >= bytes);
	leaf_open_slots(dst, slot, count);
	for (unsigned i = 0; i < count; i++) {
		unsigned len = leaf_len(src, from + i), where = leaf_take(dst, len);
		struct pinfs_delta_leaf_slot *s = leaf_slot(dst, slot + i);

		memcpy(dst->bytes + where, leaf_value(src, from + i), len);
		*s = *leaf_slot(src, from + i);
		s->where = pinfs_put32(where);
	}
}

void leaf_cut(struct tree *t, struct node *n, unsigned count)
{
	n->count = (uint16_t)count;
	leaf_close_holes(t, n);
}

/* ---- slots of inner nodes ---- */

static void inner_open_slots(struct node *n, unsigned slot, unsigned count)
{
	assert(n->count + count <= INNER_MAX);
	memmove(inner_slot(n, slot + count), inner_slot(n, slot), (n->count - slot) * INNER_SLOT);
	memmove(n->child + slot + count, n->child + slot, (n->count - slot) * sizeof(n->child[0]));
	n->count = (uint16_t)(n->count + count);
}

static void inner_close_slots(struct node *n, unsigned slot, unsigned count)
{
	memmove(inner_slot(n, slot), inner_slot(n, slot + count), (n->count - slot - count) * INNER_SLOT);
	memmove(n->child + slot, n->child + slot + count, (n->count - slot - count) * sizeof(n->child[0]));
	n->count = (uint16_t)(n->count - count);
	memset(n->child + n->count, 0, count * sizeof(n->child[0]));
}

void inner_insert(struct node *n, unsigned slot, struct tree_key key, struct node *child)
{
	inner_open_slots(n, slot, 1);
	*inner_slot(n, slot) = (struct pinfs_delta_inner_slot){.key = key_put(key)};
	n->child[slot] = child;
	child->parent = n;
	n->resident++;
}

void inner_remove(struct node *n, unsigned slot)
{
	if (n->child[slot])
		n->resident--;
	/* What is first from now on goes down as far as what was: new neighbours may begin below the key that it had. */
	if (!slot && n->count > 1)
		inner_slot(n, 1)->key = inner_slot(n, 0)->key;
	inner_close_slots(n, slot, 1);
}

void inner_move(struct node *dst, unsigned slot, struct node *src, unsigned from, unsigned count)
{
	inner_open_slots(dst, slot, count);
	memcpy(inner_slot(dst, slot), inner_slot(src, from), count * INNER_SLOT);
	for (unsigned i = 0; i < count; i++) {
		struct node *child = src->child[from + i];

		dst->child[slot + i] = child;
		if (!child)
			continue;
		child->parent = dst;
		dst->resident++;
		src->resident--;
	}
	/* A frozen node that vanishes keeps its bytes: only the slots in memory are closed then, by who frees it. */
	if (src->state == NODE_DIRTY)
		inner_close_slots(src, from, count);
}

/* ---- memory ---- */

static const size_t spare_size[SPARE_KINDS] = {
	[SPARE_LEAF] = sizeof(struct node),
	[SPARE_INNER] = sizeof(struct node) + INNER_MAX * sizeof(struct node *),
	[SPARE_BYTES] = NODE_SIZE,
};

/*
 * What so many changes need at most: each a copy and a split of each node on its way, and a new root, by which the tree may get
 * higher meanwhile. Merging takes nothing.
 */
static size_t spares_for(const struct tree *t, enum spare_kind kind, unsigned changes)
{
	size_t levels = t->height + 2u;

	return kind == SPARE_LEAF ? changes + 1 : kind == SPARE_INNER ? changes * levels + 1 : 2 * changes * levels + 2;
}

static void spare_give(struct tree *t, enum spare_kind kind, void *p)
{
	struct spare *s = p;

	s->next = t->spare[kind];
	t->spare[kind] = s;
	t->spares[kind]++;
}

static void *spare_take(struct tree *t, enum spare_kind kind)
{
	struct spare *s = t->spare[kind];

	assert(s);
	t->spare[kind] = s->next;
	t->spares[kind]--;
	return s;
}

static void spare_free(struct tree *t, enum spare_kind kind, void *p)
{
	if (t->spares[kind] < spares_for(t, kind, 1))
		spare_give(t, kind, p);
	else
		mem_free(p);
}

/* As array_reserve(), but of memory that can be made to fail. */
static int gone_reserve(struct tree *t, size_t want)
{
	size_t capacity = MAX(want, t->gone_capacity * 2);
	uint64_t *gone;

	if (want <= t->gone_capacity)
		return 0;
	gone = mem_alloc(capacity * sizeof(*gone));
	if (!gone)
		return -ENOMEM;
	if (t->gone_count)
		memcpy(gone, t->gone, t->gone_count * sizeof(*gone));
	mem_free(t->gone);
	t->gone = gone;
	t->gone_capacity = capacity;
	return 0;
}

int spares_fill(struct tree *t, unsigned changes)
{
	for (unsigned kind = 0; kind < SPARE_KINDS; kind++) {
		size_t want = spares_for(t, kind, changes);

		while (t->spares[kind] < want) {
			void *p = mem_alloc(spare_size[kind]);

			if (!p)
				return -ENOMEM;
			spare_give(t, kind, p);
		}
	}
	/* At each level one on the way, a neighbour that it is merged with, and a root that is not needed any more. */
	return gone_reserve(t, t->gone_count + t->orphans + 3 * (size_t)changes * (t->height + 2));
}

void spares_trim(struct tree *t, bool all)
{
	for (unsigned kind = 0; kind < SPARE_KINDS; kind++)
		while (t->spares[kind] > (all ? 0 : spares_for(t, kind, 1)))
			mem_free(spare_take(t, kind));
}

void node_free(struct tree *t, struct node *n)
{
	if (n->bytes)
		spare_free(t, SPARE_BYTES, n->bytes);
	spare_free(t, n->level ? SPARE_INNER : SPARE_LEAF, n);
}

struct node *node_new(struct tree *t, unsigned level)
{
	enum spare_kind kind = level ? SPARE_INNER : SPARE_LEAF;
	struct node *n = spare_take(t, kind);

	memset(n, 0, spare_size[kind]);
	n->bytes = spare_take(t, SPARE_BYTES);
	n->level = (uint8_t)level;
	n->low = NODE_SIZE;
	n->state = NODE_DIRTY;
	t->dirty++;
	return n;
}

/* ---- states ---- */

static void clock_remove(struct tree *t, struct node *n)
{
	if (t->hand == n)
		t->hand = n->next == n ? NULL : n->next;
	n->next->prev = n->prev;
	n->prev->next = n->next;
	n->next = n->prev = NULL;
	t->clean--;
}

void node_clean(struct tree *t, struct node *n)
{
	n->state = NODE_CLEAN;
	if (!t->hand) {
		t->hand = n->next = n->prev = n;
	} else {
		/* Behind the hand: its turn is last. */
		n->next = t->hand;
		n->prev = t->hand->prev;
		n->prev->next = n->next->prev = n;
	}
	t->clean++;
}

/* The node's place is not needed any more, and neither are a frozen node's bytes by the tree. */
static void node_leave_place(struct tree *t, struct node *n)
{
	switch ((enum node_state)n->state) {
	case NODE_CLEAN:
		assert(t->gone_count + t->orphans < t->gone_capacity);
		t->gone[t->gone_count++] = n->page;
		clock_remove(t, n);
		break;
	case NODE_FROZEN:
		assert(t->gone_count + t->orphans < t->gone_capacity);
		t->frozen[n->frozen].node = NULL;
		t->orphans++;
		n->bytes = NULL;
		break;
	case NODE_DIRTY:
		t->dirty--;
		break;
	}
	n->page = 0;
}

void node_dirty(struct tree *t, struct node *n)
{
	uint8_t *frozen = n->state == NODE_FROZEN ? n->bytes : NULL;

	if (n->state == NODE_DIRTY)
		return;
	node_leave_place(t, n);
	if (frozen) {
		/* Not the checksum, which another thread may be writing. */
		n->bytes = spare_take(t, SPARE_BYTES);
		memcpy(n->bytes + 8, frozen + 8, NODE_SIZE - 8);
	}
	n->state = NODE_DIRTY;
	t->dirty++;
}

void node_vanish(struct tree *t, struct node *n)
{
	assert(!n->pins && !n->resident);
	node_leave_place(t, n);
	node_free(t, n);
}

static unsigned node_slot(const struct node *n)
{
	unsigned slot = 0;

	while (n->parent->child[slot] != n)
		slot++;
	return slot;
}

static void node_evict(struct tree *t, struct node *n)
{
	clock_remove(t, n);
	if (n->parent) {
		n->parent->child[node_slot(n)] = NULL;
		n->parent->resident--;
	} else {
		t->root = NULL;
	}
	node_free(t, n);
}

void nodes_evict(struct tree *t)
{
	/* Twice around finds what there is to be found; what is in use may be more than the limit. */
	for (size_t steps = 2 * t->clean + 1; t->clean > t->limit && steps; steps--) {
		struct node *n = t->hand;

		t->hand = n->next;
		if (n->pins || n->resident)
			continue;
		if (n->used)
			n->used = false;
		else
			node_evict(t, n);
	}
}

void recent_drop(struct tree *t)
{
	if (!t->recent_any)
		return;
	for (unsigned i = 0; i < RECENT; i++)
		if (t->recent[i]) {
			t->recent[i]->pins--;
			t->recent[i] = NULL;
		}
	t->recent_any = false;
}

void recent_add(struct tree *t, struct node *n)
{
	struct node **at = &t->recent[t->recent_at];

	t->recent_at = t->recent_at + 1 < RECENT ? t->recent_at + 1 : 0;
	t->recent_any = true;
	n->pins++;
	if (*at)
		(*at)->pins--;
	*at = n;
}

/* ---- reading ---- */

/* What the keys below a child must be. */
struct bounds {
	struct tree_key low, high;
	bool any_high;
};

static void bounds_of(const struct node *parent, unsigned slot, struct bounds *ret)
{
	bool low = false;

	*ret = (struct bounds){0};
	ret->any_high = true;
	for (; parent; parent = parent->parent) {
		if (!low && slot > 0) {
			ret->low = inner_key(parent, slot);
			low = true;
		}
		if (ret->any_high && slot + 1 < parent->count) {
			ret->high = inner_key(parent, slot + 1);
			ret->any_high = false;
		}
		if (parent->parent)
			slot = node_slot(parent);
	}
}

static bool is_zero(const uint8_t *p, size_t len)
{
	return !len || (!p[0] && !memcmp(p, p + 1, len - 1));
}

static const char *check_keys(const uint8_t *bytes, size_t stride, unsigned count, const struct bounds *bounds)
{
	struct tree_key last = {0};

	for (unsigned i = 0; i < count; i++) {
		struct tree_key key = key_get((const struct pinfs_delta_key *)(bytes + NODE_HEADER + i * stride));

		if (i ? tree_key_compare(key, last) <= 0 : tree_key_compare(key, bounds->low) < 0)
			return i ? "its keys are out of order" : "its keys are below its parent's";
		last = key;
	}
	if (count && !bounds->any_high && tree_key_compare(last, bounds->high) >= 0)
		return "its keys are above its parent's";
	return NULL;
}

/* Marks bytes [where, where + len); false: some are marked. */
static bool mark(uint64_t *map, unsigned where, unsigned len)
{
	while (len) {
		unsigned bit = where % 64, n = MIN(len, 64 - bit);
		uint64_t mask = (n == 64 ? UINT64_MAX : ((1ull << n) - 1)) << bit;

		if (map[where / 64] & mask)
			return false;
		map[where / 64] |= mask;
		where += n;
		len -= n;
	}
	return true;
}

static const char *check_leaf(const uint8_t *bytes, unsigned count, unsigned low)
{
	const struct pinfs_delta_leaf_slot *s = (const struct pinfs_delta_leaf_slot *)(bytes + NODE_HEADER);
	uint64_t map[NODE_SIZE / 64] = {0};
	size_t sum = 0, end = NODE_HEADER + count * LEAF_SLOT;

	if (low > NODE_SIZE || end > low)
		return "its slots and values overlap";
	for (unsigned i = 0; i < count; i++) {
		uint32_t where = pinfs_get32(s[i].where), len = pinfs_get32(s[i].len);

		if (len > PINFS_DELTA_ITEM_MAX)
			return "an item is too long";
		if (where < low || where > NODE_SIZE || len > NODE_SIZE - where)
			return "an item's value is not among the values";
		if (!mark(map, where, len))
			return "two values overlap";
		sum += len;
	}
	if (sum != NODE_SIZE - low)
		return "there are gaps between the values";
	return is_zero(bytes + end, low - end) ? NULL : "what is unused is not zero";
}

static const char *check_inner(const uint8_t *bytes, unsigned count, unsigned low)
{
	const struct pinfs_delta_inner_slot *s = (const struct pinfs_delta_inner_slot *)(bytes + NODE_HEADER);
	size_t end = NODE_HEADER + count * INNER_SLOT;

	if (low != NODE_SIZE || end > NODE_SIZE)
		return "it has too many slots";
	for (unsigned i = 0; i < count; i++)
		if (!pinfs_get64(s[i].child.page))
			return "a child has no place";
	return is_zero(bytes + end, NODE_SIZE - end) ? NULL : "what is unused is not zero";
}

/* What is wrong with a node, or NULL. */
static const char *node_check(const struct tree *t, const uint8_t *bytes, uint64_t page, uint64_t generation, unsigned level,
	bool is_root, const struct bounds *bounds)
{
	const struct pinfs_delta_node *h = (const struct pinfs_delta_node *)bytes;
	unsigned count = pinfs_get16(h->count), low = pinfs_get32(h->low);
	const char *what;

	if (pinfs_get64(h->checksum) != codec_checksum(bytes + 8, NODE_SIZE - 8))
		return "its checksum is wrong";
	if (pinfs_get32(h->magic) != PINFS_DELTA_NODE_MAGIC)
		return "it is no node";
	if (pinfs_get64(h->delta) != t->id)
		return "it is of another delta";
	if (pinfs_get64(h->page) != page)
		return "it belongs elsewhere";
	if (pinfs_get64(h->generation) != generation)
		return "it is of another checkpoint than its parent says";
	if (pinfs_get16(h->level) != level)
		return "its level is wrong";
	if (!is_zero(h->reserved, sizeof(h->reserved)))
		return "reserved bytes are not zero";
	if (!count && (level || !is_root))
		return "it is empty";
	what = level ? check_inner(bytes, count, low) : check_leaf(bytes, count, low);
	return what ? what : check_keys(bytes, level ? INNER_SLOT : LEAF_SLOT, count, bounds);
}

/* Memory for a node that is read: never out of the spares, which are for changes. */
static struct node *node_alloc(unsigned level)
{
	struct node *n = mem_alloc(spare_size[level ? SPARE_INNER : SPARE_LEAF]);

	if (!n)
		return NULL;
	n->level = (uint8_t)level;
	n->bytes = mem_alloc(NODE_SIZE);
	if (n->bytes)
		return n;
	mem_free(n);
	return NULL;
}

/* Reads a node that is not in memory; it is where it belongs then. */
static int node_read(struct tree *t, struct node *parent, unsigned slot, struct node **ret)
{
	unsigned level = parent ? parent->level - 1u : t->height - 1u;
	uint64_t page = parent ? pinfs_get64(inner_slot(parent, slot)->child.page) : t->root_page;
	uint64_t generation = parent ? pinfs_get64(inner_slot(parent, slot)->child.generation) : t->root_generation;
	struct node *n = node_alloc(level);
	const char *what;
	struct bounds bounds;
	int r;

	if (!n)
		return -ENOMEM;
	bounds_of(parent, slot, &bounds);
	r = t->ops->read(t->owner, page, n->bytes);
	what = r < 0 ? NULL : node_check(t, n->bytes, page, generation, level, !parent, &bounds);
	if (r < 0 || what) {
		if (what)
			t->ops->damaged(t->owner, page, what);
		node_free(t, n);
		/* -ENOENT has a meaning of its own. */
		return what ? -EUCLEAN : r == -ENOENT ? -EIO : r;
	}
	n->page = page;
	n->count = pinfs_get16(((struct pinfs_delta_node *)n->bytes)->count);
	n->low = (uint16_t)pinfs_get32(((struct pinfs_delta_node *)n->bytes)->low);
	n->parent = parent;
	if (parent) {
		parent->child[slot] = n;
		parent->resident++;
	} else {
		t->root = n;
	}
	node_clean(t, n);
	/* Its ancestors can't go, since they have it. */
	n->pins++;
	nodes_evict(t);
	n->pins--;
	*ret = n;
	return 0;
}

int node_root(struct tree *t, struct node **ret)
{
	if (!t->height)
		return -ENOENT;
	if (!t->root)
		return node_read(t, NULL, 0, ret);
	t->root->used = true;
	*ret = t->root;
	return 0;
}

int node_child(struct tree *t, struct node *parent, unsigned slot, struct node **ret)
{
	struct node *child = parent->child[slot];

	if (!child)
		return node_read(t, parent, slot, ret);
	child->used = true;
	*ret = child;
	return 0;
}
