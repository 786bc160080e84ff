/* SPDX-License-Identifier: MIT */
/*
 * The delta's tree against a sorted array: random changes, checkpoints to a disk in memory, trees opened again from there; changes
 * while a checkpoint is written; checkpoints, reads, allocations of places and of memory that fail; nodes that are damaged.
 *
 * Linked with --wrap for the functions of base/mem.h.
 */
#include "support.h"

#include <pthread.h>

#include "base/mem.h"
#include "codec/codec.h"
#include "delta/tree.h"

#define ID 0x1122334455667788ull
#define DISK_NODES 40000u
#define PAGES_PER_NODE PINFS_DELTA_NODE_PAGES

/* ---- memory ---- */

static uint64_t mem_made, mem_fail_at, mem_live;

void *__real_mem_alloc(size_t size);
void *__wrap_mem_alloc(size_t size);
void __real_mem_free(void *p);
void __wrap_mem_free(void *p);

void *__wrap_mem_alloc(size_t size)
{
	void *p;

	if (++mem_made == mem_fail_at)
		return NULL;
	p = __real_mem_alloc(size);
	mem_live += p != NULL;
	return p;
}

void __wrap_mem_free(void *p)
{
	mem_live -= p != NULL;
	__real_mem_free(p);
}

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

/* Node 0 is never used: page 0 is none. */
static unsigned place_of(const struct disk *d, uint64_t page)
{
	must(page % PAGES_PER_NODE == 0 && page / PAGES_PER_NODE > 0 && page / PAGES_PER_NODE < DISK_NODES);
	return (unsigned)(page / PAGES_PER_NODE);
}

static int disk_read(void *owner, uint64_t page, void *buf)
{
	struct disk *d = owner;
	unsigned n;

	if (++d->reads == d->fail_read_at)
		return -EIO;
	if (d->hostile && (page % PAGES_PER_NODE || page / PAGES_PER_NODE >= DISK_NODES || !d->nodes[page / PAGES_PER_NODE]))
		return -EIO;
	n = place_of(d, page);
	must(d->nodes[n] && (d->hostile || d->place[n] == PLACE_USED || d->place[n] == PLACE_PENDING));
	memcpy(buf, d->nodes[n], PINFS_DELTA_NODE_SIZE);
	return 0;
}

static int disk_alloc(void *owner, uint64_t *ret_page)
{
	struct disk *d = owner;

	if (++d->allocs == d->fail_alloc_at)
		return -ENOSPC;
	for (unsigned i = 0; i < DISK_NODES; i++) {
		unsigned n = 1 + (d->next + i) % (DISK_NODES - 1);

		if (d->place[n] != PLACE_FREE)
			continue;
		d->place[n] = PLACE_USED;
		d->used++;
		d->next = n;
		*ret_page = (uint64_t)n * PAGES_PER_NODE;
		return 0;
	}
	return -ENOSPC;
}

static void disk_free(void *owner, uint64_t page)
{
	struct disk *d = owner;
	unsigned n;

	if (d->hostile)
		return;
	n = place_of(d, page);
	must(d->place[n] == PLACE_USED);
	d->place[n] = d->durable[n] ? PLACE_PENDING : PLACE_FREE;
	d->used--;
	d->frees++;
}

static void disk_damaged(void *owner, uint64_t page, const char *what)
{
	struct disk *d = owner;

	d->damaged++;
	d->what = what;
}

static const struct tree_ops ops = {.read = disk_read, .alloc = disk_alloc, .free = disk_free, .damaged = disk_damaged};

static struct disk *disk_new(void)
{
	struct disk *d = calloc(1, sizeof(*d));

	must(d);
	return d;
}

static void disk_end(struct disk *d)
{
	for (unsigned i = 0; i < DISK_NODES; i++)
		free(d->nodes[i]);
	free(d);
}

/* A checkpoint is durable now: what it does not use may be used again. */
static void disk_commit(struct disk *d)
{
	for (unsigned i = 0; i < DISK_NODES; i++) {
		if (d->place[i] == PLACE_PENDING)
			d->place[i] = PLACE_FREE;
		d->durable[i] = d->place[i] == PLACE_USED;
	}
}

/* ---- the model ---- */

struct entry {
	struct tree_key key;
	uint32_t version, len;
};

struct model {
	struct entry *entries;
	size_t count, capacity;
};

static size_t model_find(const struct model *m, struct tree_key key)
{
	size_t low = 0, high = m->count;

	while (low < high) {
		size_t mid = (low + high) / 2;

		if (tree_key_compare(m->entries[mid].key, key) < 0)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

static bool model_has(const struct model *m, size_t at, struct tree_key key)
{
	return at < m->count && tree_key_compare(m->entries[at].key, key) == 0;
}

static void model_put(struct model *m, struct entry e)
{
	size_t at = model_find(m, e.key);

	if (!model_has(m, at, e.key)) {
		must(array_reserve(&m->entries, &m->capacity, m->count + 1, sizeof(e)) == 0);
		memmove(m->entries + at + 1, m->entries + at, (m->count - at) * sizeof(e));
		m->count++;
	}
	m->entries[at] = e;
}

static void model_delete(struct model *m, size_t at)
{
	m->count--;
	memmove(m->entries + at, m->entries + at + 1, (m->count - at) * sizeof(*m->entries));
}

static struct model model_copy(const struct model *m)
{
	struct model copy = {.count = m->count, .capacity = m->count};

	copy.entries = malloc((m->count + 1) * sizeof(*m->entries));
	must(copy.entries);
	if (m->count)
		memcpy(copy.entries, m->entries, m->count * sizeof(*m->entries));
	return copy;
}

static void model_free(struct model *m)
{
	free(m->entries);
	*m = (struct model){0};
}

/* What the item's value is. */
static void value_make(const struct entry *e, uint8_t *buf)
{
	uint64_t x = e->key.object * 0x9e3779b97f4a7c15ull ^ e->key.offset * 0xc2b2ae3d27d4eb4full ^ e->version;

	for (size_t i = 0; i < e->len; i++)
		buf[i] = (uint8_t)((x >> (i % 7 * 8)) + i);
}

static void value_check(const struct entry *e, const void *value, size_t len)
{
	uint8_t buf[PINFS_DELTA_ITEM_MAX];

	must(len == e->len);
	value_make(e, buf);
	must(len == 0 || memcmp(buf, value, len) == 0);
}

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

static void both_open(struct both *b)
{
	must(tree_new(&ops, b->disk, ID, &b->root, b->cache, &b->tree) == 0);
}

static void both_begin(struct both *b, size_t cache)
{
	*b = (struct both){.disk = disk_new(), .cache = cache};
	both_open(b);
}

static int both_put(struct both *b, struct tree_key key, uint32_t len)
{
	struct entry e = {key, ++b->version, len};
	uint8_t buf[PINFS_DELTA_ITEM_MAX];
	int r;

	value_make(&e, buf);
	r = tree_put(b->tree, key, buf, len);
	if (r == 0)
		model_put(&b->model, e);
	must(tree_items(b->tree) == b->model.count);
	return r;
}

static int both_delete(struct both *b, struct tree_key key)
{
	size_t at = model_find(&b->model, key);
	int r = tree_delete(b->tree, key);

	if (!model_has(&b->model, at, key))
		must(r < 0);
	else if (r == 0)
		model_delete(&b->model, at);
	else
		must(r != -ENOENT);
	must(tree_items(b->tree) == b->model.count);
	return r;
}

static int both_get(struct both *b, struct tree_key key)
{
	size_t at = model_find(&b->model, key), len;
	const void *value;
	int r = tree_get(b->tree, key, &value, &len);

	if (r == 0) {
		must(model_has(&b->model, at, key));
		value_check(&b->model.entries[at], value, len);
	} else {
		must(r != -ENOENT || !model_has(&b->model, at, key));
	}
	return r;
}

static int both_find(struct both *b, struct tree_key from, struct tree_key end)
{
	size_t at = model_find(&b->model, from), len;
	bool there = at < b->model.count && tree_key_compare(b->model.entries[at].key, end) < 0;
	struct tree_key key;
	const void *value;
	int r = tree_find(b->tree, from, end, &key, &value, &len);

	if (r == 0) {
		must(there && tree_key_compare(key, b->model.entries[at].key) == 0);
		value_check(&b->model.entries[at], value, len);
	} else {
		must(r != -ENOENT || !there);
	}
	return r;
}

static int both_find_last(struct both *b, struct tree_key from, struct tree_key to)
{
	size_t at = model_find(&b->model, to), len;
	struct tree_key key;
	const void *value;
	bool there;
	int r = tree_find_last(b->tree, from, to, &key, &value, &len);

	at += model_has(&b->model, at, to);
	there = at-- > 0 && tree_key_compare(b->model.entries[at].key, from) >= 0;
	if (r == 0) {
		must(there && tree_key_compare(key, b->model.entries[at].key) == 0);
		value_check(&b->model.entries[at], value, len);
	} else {
		must(r != -ENOENT || !there);
	}
	return r;
}

/* Every item of the model is in the tree, and nothing else. */
static void compare_all(struct tree *tree, const struct model *m)
{
	struct tree_key at = {0}, end = {UINT64_MAX, UINT64_MAX}, key;
	const void *value;
	size_t len;

	must(tree_items(tree) == m->count);
	for (size_t i = 0; i < m->count; i++) {
		must(tree_find(tree, at, end, &key, &value, &len) == 0);
		must(tree_key_compare(key, m->entries[i].key) == 0);
		value_check(&m->entries[i], value, len);
		at = key;
		at.offset++;
	}
	must(tree_find(tree, at, end, &key, &value, &len) == -ENOENT);
}

struct shape {
	uint64_t nodes, leaves, items, dirty;
};

static int shape_visit(void *context, const struct tree_node_info *info)
{
	struct shape *s = context;

	s->nodes++;
	s->leaves += !info->level;
	s->dirty += !info->page;
	s->items += info->level ? 0 : info->count;
	return 0;
}

static void check_dirty(struct both *b)
{
	struct shape s = {0};
	uint64_t damaged;

	must(tree_walk(b->tree, shape_visit, &s, &damaged) == 0 && damaged == 0);
	must(s.items == b->model.count && s.dirty == tree_dirty(b->tree));
}

/* The places that are used are the tree's, no more. */
static void check_places(struct both *b)
{
	struct shape s = {0};
	uint64_t damaged;

	must(tree_walk(b->tree, shape_visit, &s, &damaged) == 0 && damaged == 0);
	must(s.items == b->model.count && s.dirty == tree_dirty(b->tree));
	if (!tree_dirty(b->tree))
		must(s.nodes == b->disk->used);
}

static void write_frozen(struct both *b)
{
	size_t cursor = 0;
	uint64_t page;
	const void *bytes;

	while (tree_frozen_next(b->tree, &cursor, &page, &bytes)) {
		unsigned n = place_of(b->disk, page);

		must(b->disk->place[n] == PLACE_USED);
		if (!b->disk->nodes[n])
			b->disk->nodes[n] = malloc(PINFS_DELTA_NODE_SIZE);
		must(b->disk->nodes[n]);
		memcpy(b->disk->nodes[n], bytes, PINFS_DELTA_NODE_SIZE);
	}
}

static void thaw_written(struct both *b, const struct tree_root *root)
{
	tree_thaw(b->tree, true);
	disk_commit(b->disk);
	b->root = *root;
}

static void checkpoint(struct both *b)
{
	struct tree_root root;

	must(tree_freeze(b->tree, ++b->generation, &root) == 0);
	must(tree_dirty(b->tree) == 0);
	write_frozen(b);
	thaw_written(b, &root);
	check_places(b);
}

static void reopen(struct both *b)
{
	tree_free(b->tree);
	both_open(b);
}

static void both_end(struct both *b)
{
	tree_free(b->tree);
	disk_end(b->disk);
	model_free(&b->model);
	assert_int_equal(mem_live, 0);
}

/* ---- random ---- */

/* Trees of three levels: few items of a leaf, and many of them. */
static bool tall;

static struct tree_key key_random(struct rng *rng)
{
	static const uint64_t objects[] = {0, 1, 2, 0x104, 0x105, 1ull << 40, UINT64_MAX};
	uint64_t object = objects[rng_below(rng, ARRAY_SIZE(objects))];

	if (rng_below(rng, 200) == 0)
		return (struct tree_key){object, rng_below(rng, 2) ? UINT64_MAX - 1 : 0};
	return (struct tree_key){object, rng_below(rng, tall ? 1u << 20 : 3000)};
}

static uint32_t len_random(struct rng *rng)
{
	if (tall)
		return rng_below(rng, 8) ? PINFS_DELTA_ITEM_MAX - (uint32_t)rng_below(rng, 300) : (uint32_t)rng_below(rng, 100);
	switch (rng_below(rng, 10)) {
	case 0:
		return 0;
	case 1:
		return PINFS_DELTA_ITEM_MAX - (uint32_t)rng_below(rng, 2);
	case 2:
	case 3:
		return (uint32_t)rng_below(rng, PINFS_DELTA_ITEM_MAX + 1);
	default:
		return (uint32_t)rng_below(rng, 300);
	}
}

static struct tree_key key_there(struct both *b, struct rng *rng)
{
	return b->model.count ? b->model.entries[rng_below(rng, b->model.count)].key : (struct tree_key){0};
}

/* One change or look. Deletes win where `shrink` is high, of 100. */
static int step(struct both *b, struct rng *rng, unsigned shrink)
{
	struct tree_key key = rng_below(rng, 2) ? key_random(rng) : key_there(b, rng);

	switch (rng_below(rng, 6)) {
	case 0:
		return both_get(b, key);
	case 1:
		return both_find(b, key, rng_below(rng, 3) ? key_random(rng) : (struct tree_key){UINT64_MAX, UINT64_MAX});
	case 2:
		return both_find_last(b, rng_below(rng, 3) ? key_random(rng) : (struct tree_key){0}, key);
	default:
		return rng_below(rng, 100) < shrink ? both_delete(b, key) : both_put(b, key, len_random(rng));
	}
}

/* Items to begin with: a tall tree has three levels then. */
static void fill(struct both *b, struct rng *rng, unsigned items)
{
	while (b->model.count < items)
		both_put(b, key_random(rng), len_random(rng));
	checkpoint(b);
	must(!tall || b->root.height == 3);
}

static void random_steps(size_t cache, unsigned rounds, uint64_t seed)
{
	struct rng rng = {seed};
	struct both b;

	both_begin(&b, cache);
	if (tall)
		fill(&b, &rng, 4000);
	for (unsigned round = 0; round < rounds; round++) {
		unsigned shrink = round % 20 < 12 ? 30 : 75;
		unsigned steps = 1 + (unsigned)rng_below(&rng, 800);

		for (unsigned i = 0; i < steps; i++) {
			int r = step(&b, &rng, shrink);

			must(r == 0 || r == -ENOENT);
		}
		checkpoint(&b);
		if (round % 3 == 0) {
			reopen(&b);
			compare_all(b.tree, &b.model);
		}
	}
	/* Down to nothing. */
	while (b.model.count) {
		must(both_delete(&b, key_there(&b, &rng)) == 0);
		if (b.model.count % 500 == 0)
			checkpoint(&b);
	}
	checkpoint(&b);
	assert_int_equal(b.root.height, 0);
	assert_true(b.root.page == 0);
	assert_int_equal(b.disk->used, 0);
	assert_int_equal(b.disk->damaged, 0);
	both_end(&b);
}

static void it_is_what_a_sorted_array_is(void **state)
{
	random_steps(64u << 20, 60, 1);
}

static void so_it_is_with_hardly_any_memory(void **state)
{
	random_steps(16 * PINFS_DELTA_NODE_SIZE, 60, 2);
	random_steps(0, 20, 3);
}

/* ---- orders ---- */

static struct shape shape_of(struct both *b)
{
	struct shape s = {0};
	uint64_t damaged;

	must(tree_walk(b->tree, shape_visit, &s, &damaged) == 0 && !damaged);
	return s;
}

static void insertion_in_order_fills_nodes(void **state)
{
	enum { COUNT = 40000, LEN = 100 };
	const double full = (double)(COUNT * (LEN + 24)) / (PINFS_DELTA_NODE_SIZE - 64);
	struct both b;
	struct shape s;

	/* Ascending at the tree's end. */
	both_begin(&b, 1u << 20);
	for (unsigned i = 0; i < COUNT; i++) {
		must(both_put(&b, (struct tree_key){5, i}, LEN) == 0);
		if (i % 5000 == 0)
			checkpoint(&b);
	}
	checkpoint(&b);
	s = shape_of(&b);
	assert_true((double)s.leaves < full * 1.02);
	reopen(&b);
	compare_all(b.tree, &b.model);
	both_end(&b);

	/* Ascending in front of others. */
	both_begin(&b, 1u << 20);
	for (unsigned i = 0; i < 50; i++)
		must(both_put(&b, (struct tree_key){9, i}, LEN) == 0);
	for (unsigned i = 0; i < COUNT; i++)
		must(both_put(&b, (struct tree_key){5, i}, LEN) == 0);
	s = shape_of(&b);
	assert_true((double)s.leaves < full * 1.05);
	checkpoint(&b);
	reopen(&b);
	compare_all(b.tree, &b.model);
	both_end(&b);

	/* Descending. */
	both_begin(&b, 1u << 20);
	for (unsigned i = COUNT; i-- > 0;)
		must(both_put(&b, (struct tree_key){5, i}, LEN) == 0);
	s = shape_of(&b);
	assert_true((double)s.leaves < full * 2.1);
	compare_all(b.tree, &b.model);
	both_end(&b);
}

static void nodes_stay_half_full(void **state)
{
	enum { COUNT = 30000 };
	struct rng rng = {7};
	struct both b;
	struct shape s;
	uint64_t bytes = 0;

	both_begin(&b, 1u << 20);
	for (unsigned i = 0; i < COUNT; i++)
		must(both_put(&b, (struct tree_key){rng_below(&rng, 5), rng_below(&rng, 1000000)}, 100) == 0);
	s = shape_of(&b);
	assert_true((double)s.leaves < (double)b.model.count * 124 / (PINFS_DELTA_NODE_SIZE - 64) / 0.6);
	/* Nine of ten go. */
	while (b.model.count > COUNT / 10)
		must(both_delete(&b, key_there(&b, &rng)) == 0);
	for (size_t i = 0; i < b.model.count; i++)
		bytes += b.model.entries[i].len + 24;
	s = shape_of(&b);
	assert_true((double)s.leaves < (double)bytes / (PINFS_DELTA_NODE_SIZE - 64) / 0.36);
	checkpoint(&b);
	both_end(&b);
}

/*
 * Full nodes throughout, three levels: an inner node loses its first child, gets items that belong there, and is merged; and changes
 * that copy and split all nodes on their way, out of what was reserved.
 */
static void inner_nodes_are_split_and_merged(void **state)
{
	enum { FANOUT = 510, LEAF = 4, BELOW = FANOUT * LEAF, COUNT = 3 * BELOW };
	struct both b;
	struct tree_root root;
	struct shape s;

	for (unsigned order = 0; order < 2; order++) {
		both_begin(&b, 1u << 20);
		for (unsigned i = 0; i < COUNT; i++)
			must(both_put(&b, (struct tree_key){1, i * 10}, PINFS_DELTA_ITEM_MAX) == 0);
		s = shape_of(&b);
		assert_int_equal(s.leaves, 3 * FANOUT);
		assert_int_equal(s.nodes, s.leaves + 4);
		must(tree_freeze(b.tree, ++b.generation, &root) == 0);
		assert_int_equal(root.height, 3);
		write_frozen(&b);
		must(tree_reserve(b.tree, 3) == 0);
		mem_fail_at = mem_made + 1;
		for (unsigned i = 0; i < 3; i++)
			must(both_put(&b, (struct tree_key){1, (i * BELOW + BELOW / 2) * 10 + 5}, PINFS_DELTA_ITEM_MAX) == 0);
		mem_fail_at = 0;
		thaw_written(&b, &root);
		assert_int_equal(shape_of(&b).nodes, s.nodes + 6);
		/* Back to what was written. */
		reopen(&b);
		for (unsigned i = 0; i < 3; i++)
			model_delete(&b.model, model_find(&b.model, (struct tree_key){1, (i * BELOW + BELOW / 2) * 10 + 5}));
		for (unsigned i = 0; i < DISK_NODES; i++)
			must((b.disk->place[i] == PLACE_USED) == b.disk->durable[i]);

		for (unsigned i = 0; i < LEAF; i++)
			must(both_delete(&b, (struct tree_key){1, (BELOW + i) * 10}) == 0);
		for (unsigned i = 0; i < LEAF; i++)
			must(both_put(&b, (struct tree_key){1, (BELOW + i) * 10 + 5}, 10) == 0);
		for (unsigned i = LEAF; i < BELOW - LEAF; i++)
			must(both_delete(&b, (struct tree_key){1, ((order ? 2 * BELOW - 1 : 0) + (order ? -1 : 1) * i) * 10}) == 0);
		for (unsigned i = LEAF; i < BELOW - LEAF; i++) {
			int r = both_delete(&b, (struct tree_key){1, ((order ? 0 : BELOW) + i) * 10});

			must(r == 0);
		}
		compare_all(b.tree, &b.model);
		s = shape_of(&b);
		assert_int_equal(s.nodes - s.leaves, 3);
		for (size_t i = 0; i < b.model.count; i++)
			must(both_get(&b, b.model.entries[i].key) == 0);
		checkpoint(&b);
		reopen(&b);
		compare_all(b.tree, &b.model);
		both_end(&b);
	}
}

/* ---- while a checkpoint is written ---- */

struct frozen_sums {
	uint64_t page[4096], sum[4096];
	size_t count;
};

static void frozen_sum(struct both *b, struct frozen_sums *s, bool check)
{
	size_t cursor = 0, i = 0;
	uint64_t page;
	const void *bytes;

	for (; tree_frozen_next(b->tree, &cursor, &page, &bytes); i++) {
		uint64_t sum = codec_checksum(bytes, PINFS_DELTA_NODE_SIZE);

		must(i < ARRAY_SIZE(s->sum));
		if (check)
			must(s->page[i] == page && s->sum[i] == sum);
		s->page[i] = page;
		s->sum[i] = sum;
	}
	must(!check || s->count == i);
	s->count = i;
}

static void frozen_rounds(size_t cache, unsigned rounds, uint64_t seed)
{
	static struct frozen_sums sums;
	struct rng rng = {seed};
	struct both b;

	both_begin(&b, cache);
	if (tall)
		fill(&b, &rng, 3000);
	for (unsigned round = 0; round < rounds; round++) {
		unsigned shrink = round % 30 < 18 ? 25 : 85, steps = (unsigned)rng_below(&rng, 300);
		bool written = rng_below(&rng, 3) > 0, late = rng_below(&rng, 2);
		struct model frozen_model;
		struct tree_root root;
		struct tree *other;

		for (unsigned i = 0; i < steps; i++)
			step(&b, &rng, shrink);
		must(tree_freeze(b.tree, ++b.generation, &root) == 0);
		frozen_model = model_copy(&b.model);
		frozen_sum(&b, &sums, false);
		if (!late)
			write_frozen(&b);
		steps = (unsigned)rng_below(&rng, 300);
		for (unsigned i = 0; i < steps; i++)
			step(&b, &rng, shrink);
		frozen_sum(&b, &sums, true);
		if (!late || !written)
			check_dirty(&b);
		if (written) {
			if (late)
				write_frozen(&b);
			thaw_written(&b, &root);
		} else {
			tree_thaw(b.tree, false);
		}
		check_dirty(&b);
		compare_all(b.tree, &b.model);
		if (written) {
			/* The checkpoint is what the tree was when it was frozen, whatever happened since. */
			must(tree_new(&ops, b.disk, ID, &root, cache, &other) == 0);
			compare_all(other, &frozen_model);
			tree_free(other);
			if (rng_below(&rng, 8) == 0) {
				/* A crash: what came later is lost, and its places with it. */
				model_free(&b.model);
				b.model = model_copy(&frozen_model);
				reopen(&b);
				for (unsigned i = 0; i < DISK_NODES; i++) {
					b.disk->used += b.disk->durable[i] - (b.disk->place[i] == PLACE_USED);
					b.disk->place[i] = b.disk->durable[i] ? PLACE_USED : PLACE_FREE;
				}
				check_places(&b);
			}
		}
		model_free(&frozen_model);
	}
	checkpoint(&b);
	reopen(&b);
	compare_all(b.tree, &b.model);
	both_end(&b);
}

static void frozen_nodes_stay_as_they_are(void **state)
{
	frozen_rounds(64u << 20, 150, 4);
	frozen_rounds(16 * PINFS_DELTA_NODE_SIZE, 150, 5);
}

static void *write_thread(void *arg)
{
	write_frozen(arg);
	return NULL;
}

static void another_thread_may_write_them(void **state)
{
	struct rng rng = {6};
	struct both b;

	both_begin(&b, 16 * PINFS_DELTA_NODE_SIZE);
	for (unsigned round = 0; round < 30; round++) {
		struct tree_root root;
		pthread_t thread;

		for (unsigned i = 0; i < 400; i++)
			step(&b, &rng, 30);
		must(tree_freeze(b.tree, ++b.generation, &root) == 0);
		must(pthread_create(&thread, NULL, write_thread, &b) == 0);
		/* What is in memory, or on the disk for longer: no place changes hands meanwhile. */
		for (unsigned i = 0; i < 200; i++)
			step(&b, &rng, 60);
		pthread_join(thread, NULL);
		thaw_written(&b, &root);
	}
	checkpoint(&b);
	reopen(&b);
	compare_all(b.tree, &b.model);
	both_end(&b);
}

/* ---- failures ---- */

static void no_space_changes_nothing(void **state)
{
	struct rng rng = {8};
	struct both b;
	unsigned failed = 0;

	both_begin(&b, 1u << 20);
	for (unsigned round = 0; round < 40; round++) {
		struct tree_root root;
		int r;

		for (unsigned i = 0; i < 200; i++)
			step(&b, &rng, round < 25 ? 20 : 80);
		for (unsigned n = 1;; n += 1 + n / 4) {
			size_t dirty = tree_dirty(b.tree);
			unsigned used = b.disk->used, frees = b.disk->frees;

			b.disk->allocs = 0;
			b.disk->fail_alloc_at = n;
			r = tree_freeze(b.tree, ++b.generation, &root);
			if (r == 0)
				break;
			must(r == -ENOSPC && tree_dirty(b.tree) == dirty && b.disk->used == used);
			must(b.disk->frees == frees + n - 1);
			failed++;
			if (n == 1)
				compare_all(b.tree, &b.model);
		}
		b.disk->fail_alloc_at = 0;
		write_frozen(&b);
		thaw_written(&b, &root);
		check_places(&b);
		reopen(&b);
		compare_all(b.tree, &b.model);
	}
	assert_true(failed > 100);
	both_end(&b);
}

static void failing_reads(unsigned rounds)
{
	struct rng rng = {9};
	struct both b;
	unsigned failed = 0;

	both_begin(&b, 16 * PINFS_DELTA_NODE_SIZE);
	fill(&b, &rng, 3000);
	for (unsigned round = 0; round < rounds; round++) {
		checkpoint(&b);
		reopen(&b);
		for (unsigned i = 0; i < 100; i++) {
			int r;

			b.disk->reads = 0;
			b.disk->fail_read_at = 1 + (unsigned)rng_below(&rng, 4);
			r = step(&b, &rng, 60);
			failed += r == -EIO;
			must(r == 0 || r == -ENOENT || r == -EIO);
			b.disk->fail_read_at = 0;
		}
		compare_all(b.tree, &b.model);
	}
	assert_true(failed > 100);
	both_end(&b);
}

static void a_read_that_fails_changes_nothing(void **state)
{
	failing_reads(40);
}

static void failing_memory(unsigned rounds)
{
	struct rng rng = {10};
	struct both b;
	unsigned failed = 0;

	both_begin(&b, 16 * PINFS_DELTA_NODE_SIZE);
	if (tall)
		fill(&b, &rng, 2200);
	for (unsigned round = 0; round < rounds; round++) {
		struct tree_root root;

		for (unsigned i = 0; i < 150; i++) {
			int r;

			mem_fail_at = mem_made + 1 + rng_below(&rng, 5);
			r = step(&b, &rng, round < rounds / 2 ? 20 : 70);
			must(r == 0 || r == -ENOENT || r == -ENOMEM);
			failed += r == -ENOMEM;
		}
		mem_fail_at = mem_made + 1;
		must(!tree_dirty(b.tree) || tree_freeze(b.tree, ++b.generation, &root) == -ENOMEM);
		mem_fail_at = 0;
		compare_all(b.tree, &b.model);
		/* While it is frozen, too. */
		must(tree_freeze(b.tree, ++b.generation, &root) == 0);
		for (unsigned i = 0; i < 50; i++) {
			mem_fail_at = mem_made + 1 + rng_below(&rng, 5);
			failed += step(&b, &rng, 50) == -ENOMEM;
		}
		mem_fail_at = 0;
		compare_all(b.tree, &b.model);
		write_frozen(&b);
		thaw_written(&b, &root);
		compare_all(b.tree, &b.model);
	}
	assert_true(failed > 100);
	both_end(&b);
}

static void memory_that_fails_changes_nothing(void **state)
{
	failing_memory(60);
}

/* Transactions that are undone while there is no memory at all. */
static void undo_rounds(unsigned rounds)
{
	enum { CHANGES = 12 };
	struct rng rng = {11};
	struct both b;

	both_begin(&b, 16 * PINFS_DELTA_NODE_SIZE);
	if (tall)
		fill(&b, &rng, 2200);
	for (unsigned round = 0; round < rounds; round++) {
		struct tree_root root;
		struct entry old[CHANGES];
		bool was[CHANGES];
		uint8_t buf[PINFS_DELTA_ITEM_MAX];
		unsigned count;

		for (unsigned i = 0; i < 30; i++)
			step(&b, &rng, round < rounds / 2 ? 20 : 60);
		must(tree_freeze(b.tree, ++b.generation, &root) == 0);
		write_frozen(&b);
		must(tree_reserve(b.tree, 2 * CHANGES) == 0);
		for (count = 0; count < CHANGES; count++) {
			struct tree_key key = rng_below(&rng, 2) ? key_random(&rng) : key_there(&b, &rng);
			size_t at = model_find(&b.model, key);
			int r;

			/* Looked at before. */
			r = both_get(&b, key);
			must(r == 0 || r == -ENOENT);
			was[count] = model_has(&b.model, at, key);
			old[count] = was[count] ? b.model.entries[at] : (struct entry){.key = key};
			mem_fail_at = mem_made + 1;
			r = was[count] && rng_below(&rng, 2) ? both_delete(&b, key) : both_put(&b, key, len_random(&rng));
			must(r == 0);
			mem_fail_at = 0;
		}
		while (count-- > 0) {
			mem_fail_at = mem_made + 1;
			if (was[count]) {
				value_make(&old[count], buf);
				must(tree_put(b.tree, old[count].key, buf, old[count].len) == 0);
				model_put(&b.model, old[count]);
			} else {
				must(both_delete(&b, old[count].key) == 0);
			}
			mem_fail_at = 0;
		}
		if (rng_below(&rng, 2))
			thaw_written(&b, &root);
		else
			tree_thaw(b.tree, false);
		compare_all(b.tree, &b.model);
	}
	both_end(&b);
}

static void what_was_reserved_can_be_undone(void **state)
{
	undo_rounds(400);
}

static void results_stay_for_eight_calls(void **state)
{
	struct rng rng = {12};
	struct both b;
	struct {
		struct entry entry;
		const void *value;
		size_t len;
	} results[9];

	both_begin(&b, 0);
	while (b.model.count < 20000)
		both_put(&b, (struct tree_key){1, rng_below(&rng, 1000000)}, 100);
	checkpoint(&b);
	for (unsigned i = 0; i < 20000; i++) {
		size_t at = rng_below(&rng, b.model.count);
		unsigned r = i % 9;

		results[r].entry = b.model.entries[at];
		must(tree_get(b.tree, results[r].entry.key, &results[r].value, &results[r].len) == 0);
		for (unsigned k = 0; k < 9 && k <= i; k++)
			value_check(&results[k].entry, results[k].value, results[k].len);
	}
	/* A value that is put may be in the tree. */
	for (unsigned i = 0; i < 2000; i++) {
		struct entry e = b.model.entries[rng_below(&rng, b.model.count)], copy;
		struct tree_key key = {1, 2000000 + rng_below(&rng, 1000)};
		const void *value;
		size_t len, at;
		uint8_t buf[PINFS_DELTA_ITEM_MAX];

		must(tree_get(b.tree, e.key, &value, &len) == 0);
		memcpy(buf, value, len);
		must(tree_put(b.tree, key, value, len) == 0);
		must(tree_get(b.tree, key, &value, &at) == 0 && at == len && memcmp(value, buf, len) == 0);
		copy = e;
		copy.key = key;
		must(tree_delete(b.tree, copy.key) == 0);
	}
	both_end(&b);
}

/* ---- damage ---- */

static void node_seal(uint8_t *bytes)
{
	((struct pinfs_delta_node *)bytes)->checksum = pinfs_put64(codec_checksum(bytes + 8, PINFS_DELTA_NODE_SIZE - 8));
}

static void damage_begin(struct both *b, struct rng *rng, unsigned items)
{
	both_begin(b, 64u << 20);
	fill(b, rng, items);
}

static unsigned node_random(struct both *b, struct rng *rng)
{
	unsigned n;

	/* The root, or any. */
	if (rng_below(rng, 4) == 0)
		return place_of(b->disk, b->root.page);
	do
		n = (unsigned)rng_below(rng, DISK_NODES);
	while (b->disk->place[n] != PLACE_USED);
	return n;
}

static void each_bit_that_flips_is_found(void **state)
{
	struct rng rng = {13};
	struct both b;

	damage_begin(&b, &rng, 700);
	for (unsigned i = 0; i < 1500; i++) {
		unsigned n = node_random(&b, &rng), bit = (unsigned)rng_below(&rng, PINFS_DELTA_NODE_SIZE * 8);
		struct shape s = {0};
		uint64_t damaged = 0;

		b.disk->nodes[n][bit / 8] ^= (uint8_t)(1 << bit % 8);
		b.disk->damaged = 0;
		reopen(&b);
		must(tree_walk(b.tree, shape_visit, &s, &damaged) == 0);
		if (damaged != 1 || b.disk->damaged != 1)
			fail_msg("seed 13, round %u: node %u, bit %u is not found", i, n, bit);
		b.disk->nodes[n][bit / 8] ^= (uint8_t)(1 << bit % 8);
	}
	reopen(&b);
	compare_all(b.tree, &b.model);
	both_end(&b);
}

struct contradiction {
	const char *what;
	bool leaf;
	size_t at; /* where in the node; counted from its slots' beginning: SLOTS + … */
	uint64_t value;
	unsigned size;
};
#define SLOTS sizeof(struct pinfs_delta_node)
#define NODE_END PINFS_DELTA_NODE_SIZE

/* The leaf has three values of 100, 0 and 50 bytes, keys (5, 100), (5, 200), (5, 300); the root has at least three children. */
static const struct contradiction contradictions[] = {
	{"it is no node", true, 8, 0, 4},
	{"it is of another delta", true, 32, ID + 1, 8},
	{"it belongs elsewhere", true, 16, 4000, 8},
	{"it is of another checkpoint than its parent says", true, 24, 7, 8},
	{"its level is wrong", true, 12, 1, 2},
	{"reserved bytes are not zero", true, 63, 1, 1},
	{"it is empty", true, 14, 0, 2},
	{"its slots and values overlap", true, 40, NODE_END + 1, 4},
	{"its slots and values overlap", true, 40, SLOTS + 3 * 24 - 1, 4},
	{"its slots and values overlap", true, 14, 700, 2},
	{"an item is too long", true, SLOTS + 20, PINFS_DELTA_ITEM_MAX + 1, 4},
	{"an item's value is not among the values", true, SLOTS + 16, NODE_END - 151, 4},
	{"an item's value is not among the values", true, SLOTS + 16, NODE_END - 99, 4},
	{"an item's value is not among the values", true, SLOTS + 16, UINT32_MAX, 4},
	{"an item's value is not among the values", true, SLOTS + 24 + 16, NODE_END + 1, 4},
	{"two values overlap", true, SLOTS + 48 + 16, NODE_END - 149, 4},
	{"there are gaps between the values", true, 40, NODE_END - 151, 4},
	{"there are gaps between the values", true, SLOTS + 20, 99, 4},
	{"what is unused is not zero", true, SLOTS + 72, 1, 1},
	{"what is unused is not zero", true, NODE_END - 151, 1, 1},
	{"its keys are out of order", true, SLOTS + 24 + 8, 100, 8},
	{"its keys are out of order", true, SLOTS + 24 + 8, 301, 8},
	{"its keys are below its parent's", true, SLOTS + 8, 99, 8},
	{"its keys are above its parent's", true, SLOTS + 48 + 8, 400, 8},
	{"its keys are above its parent's", true, SLOTS + 48, 6, 8},
	{"it has too many slots", false, 40, NODE_END - 1, 4},
	{"it has too many slots", false, 14, 511, 2},
	{"it is empty", false, 14, 0, 2},
	{"a child has no place", false, SLOTS + 32 + 16, 0, 8},
	{"what is unused is not zero", false, NODE_END - 1, 1, 1},
	{"its keys are out of order", false, SLOTS + 64, 4, 8},
	{"its level is wrong", false, 12, 0, 2},
};

static void each_contradiction_is_named(void **state)
{
	struct both b;
	uint32_t lens[] = {100, 0, 50};
	uint8_t good[PINFS_DELTA_NODE_SIZE], *bytes;

	/* Full leaves around one that has room: (5, 100) is its first key, (5, 400) that of the next. */
	both_begin(&b, 0);
	for (unsigned i = 0; i < 4; i++)
		must(both_put(&b, (struct tree_key){5, 10 + i}, PINFS_DELTA_ITEM_MAX) == 0);
	for (unsigned i = 0; i < 4; i++)
		must(both_put(&b, (struct tree_key){5, 100 + i}, PINFS_DELTA_ITEM_MAX) == 0);
	for (unsigned i = 0; i < 4; i++)
		must(both_put(&b, (struct tree_key){5, 400 + i}, PINFS_DELTA_ITEM_MAX) == 0);
	for (unsigned i = 0; i < 3; i++)
		must(both_put(&b, (struct tree_key){5, 100 * (i + 1)}, lens[i]) == 0);
	for (unsigned i = 1; i < 4; i++)
		must(both_delete(&b, (struct tree_key){5, 100 + i}) == 0);
	checkpoint(&b);
	assert_int_equal(b.disk->used, 4);
	for (unsigned i = 0; i < ARRAY_SIZE(contradictions); i++) {
		const struct contradiction *c = &contradictions[i];
		struct pinfs_delta_inner_slot *s =
			(struct pinfs_delta_inner_slot *)(b.disk->nodes[place_of(b.disk, b.root.page)] + SLOTS);
		uint64_t value = htole64(c->value);
		const void *p;
		size_t len;

		bytes = b.disk->nodes[place_of(b.disk, c->leaf ? pinfs_get64(s[1].child.page) : b.root.page)];
		memcpy(good, bytes, sizeof(good));
		memcpy(bytes + c->at, &value, c->size);
		node_seal(bytes);
		b.disk->what = "nothing";
		reopen(&b);
		if (tree_get(b.tree, (struct tree_key){5, 300}, &p, &len) != -EUCLEAN || strcmp(b.disk->what, c->what))
			fail_msg("contradiction %u, \"%s\": \"%s\" is found", i, c->what, b.disk->what);
		assert_int_equal(tree_put(b.tree, (struct tree_key){5, 300}, "", 1), -EUCLEAN);
		assert_int_equal(tree_delete(b.tree, (struct tree_key){5, 300}), -EUCLEAN);
		assert_int_equal(tree_dirty(b.tree), 0);
		memcpy(bytes, good, sizeof(good));
	}
	reopen(&b);
	compare_all(b.tree, &b.model);
	both_end(&b);
}

static void mutate(struct rng *rng, uint8_t *bytes)
{
	struct pinfs_delta_node *h = (struct pinfs_delta_node *)bytes;
	static const uint64_t odd[] = {0, 1, 4, 63, 64, 100, 509, 510, 511, 3900, 3901, 16383, 16384, 16385, 65535, UINT32_MAX,
		INT64_MAX, UINT64_MAX};
	size_t slots = pinfs_get16(h->level) ? 32 : 24, count = MAX(pinfs_get16(h->count), 1), at;
	uint64_t value = odd[rng_below(rng, ARRAY_SIZE(odd))];

	switch (rng_below(rng, 6)) {
	case 0:
		at = 8 + rng_below(rng, 56);
		bytes[at] = (uint8_t)value;
		break;
	case 1:
		h->count = pinfs_put16((uint16_t)(rng_below(rng, 2) ? value : (uint64_t)(count + rng_below(rng, 5) - 2)));
		break;
	case 2:
		h->low = pinfs_put32((uint32_t)(rng_below(rng, 2) ? value : pinfs_get32(h->low) + rng_below(rng, 64) - 32));
		break;
	default:
		/* A field of a slot. */
		at = MIN(64 + rng_below(rng, count) * slots + rng_below(rng, slots / 4) * 4, (size_t)PINFS_DELTA_NODE_SIZE - 8);
		if (rng_below(rng, 2))
			memcpy(bytes + at, &value, rng_below(rng, 2) ? 8 : 4);
		else
			bytes[at] ^= (uint8_t)(1 << rng_below(rng, 8));
	}
	if (rng_below(rng, 3) == 0)
		/* Another node's place, or its own. */
		memcpy(bytes + MIN(64 + rng_below(rng, count) * slots + 16, (size_t)PINFS_DELTA_NODE_SIZE - 8), bytes + 16, 8);
}

/* Whatever is in the nodes, no call goes out of bounds, and each ends. */
static void hostile_round(struct both *b, struct rng *rng, unsigned round)
{
	struct shape s = {0};
	struct tree_key key;
	struct tree_root root;
	uint64_t damaged, lost;
	const void *value;
	size_t len;
	uint8_t buf[PINFS_DELTA_ITEM_MAX] = {0};

	if (round % 3)
		tree_walk(b->tree, shape_visit, &s, &damaged);
	if (round % 5 == 0)
		must(tree_prune(b->tree, &lost) == 0);
	for (unsigned i = 0; i < 150; i++) {
		struct tree_key k = rng_below(rng, 2) ? key_random(rng) : key_there(b, rng);
		int r;

		switch (rng_below(rng, 5)) {
		case 0:
			r = tree_get(b->tree, k, &value, &len);
			break;
		case 1:
			r = tree_find(b->tree, k, (struct tree_key){UINT64_MAX, UINT64_MAX}, &key, &value, &len);
			break;
		case 2:
			r = tree_find_last(b->tree, (struct tree_key){0}, k, &key, &value, &len);
			break;
		case 3:
			r = tree_put(b->tree, k, buf, len_random(rng));
			break;
		default:
			r = tree_delete(b->tree, k);
		}
		must(r == 0 || r == -ENOENT || r == -EUCLEAN || r == -EIO);
		if (r == 0 && rng_below(rng, 40) == 0) {
			must(tree_freeze(b->tree, b->generation + 1, &root) == 0);
			tree_thaw(b->tree, false);
		}
	}
	must(tree_prune(b->tree, &lost) == 0);
	memset(&s, 0, sizeof(s));
	must(tree_walk(b->tree, shape_visit, &s, &damaged) == 0 && !damaged);
	must(s.items == tree_items(b->tree));
}

static void hostile_rounds(unsigned rounds, unsigned items)
{
	struct rng rng = {14};
	struct both b;

	damage_begin(&b, &rng, items);
	for (unsigned round = 0; round < rounds; round++) {
		struct disk *copy = calloc(1, sizeof(*copy)), *whole = b.disk;

		must(copy);
		*copy = *whole;
		copy->hostile = true;
		for (unsigned i = 0; i < DISK_NODES; i++)
			if (copy->nodes[i]) {
				copy->nodes[i] = malloc(PINFS_DELTA_NODE_SIZE);
				memcpy(copy->nodes[i], whole->nodes[i], PINFS_DELTA_NODE_SIZE);
			}
		for (unsigned n = 1 + (unsigned)rng_below(&rng, 3); n > 0; n--) {
			uint8_t *bytes = copy->nodes[node_random(&b, &rng)];

			mutate(&rng, bytes);
			node_seal(bytes);
		}
		tree_free(b.tree);
		b.disk = copy;
		both_open(&b);
		hostile_round(&b, &rng, round);
		tree_free(b.tree);
		disk_end(copy);
		b.disk = whole;
		both_open(&b);
	}
	both_end(&b);
}

static void hostile_nodes_do_no_harm(void **state)
{
	hostile_rounds(400, 700);
}

static void roots_that_can_not_be_are_refused(void **state)
{
	static const struct tree_root roots[] = {
		{.page = 4, .generation = 1, .height = 0, .items = 1},
		{.page = 0, .generation = 1, .height = 1, .items = 1},
		{.page = 4, .generation = 1, .height = PINFS_DELTA_HEIGHT_MAX + 1, .items = 1},
		{.page = 0, .generation = 0, .height = 0, .items = 1},
	};
	struct tree *tree = NULL;

	for (unsigned i = 0; i < ARRAY_SIZE(roots); i++) {
		assert_int_equal(tree_new(&ops, NULL, ID, &roots[i], 0, &tree), -EUCLEAN);
		assert_null(tree);
	}
	assert_int_equal(mem_live, 0);
}

/* Leaves that are damaged are taken out; all that was in others is there. */
static void prune_rounds(unsigned rounds, unsigned items)
{
	struct rng rng = {15};
	struct both b;

	for (unsigned round = 0; round < rounds; round++) {
		struct model left = {0};
		uint64_t lost, damaged;
		struct shape s = {0};
		unsigned broken = 1 + (unsigned)rng_below(&rng, 5), before;

		damage_begin(&b, &rng, items);
		before = b.disk->used;
		for (unsigned i = 0; i < broken; i++)
			b.disk->nodes[node_random(&b, &rng)][rng_below(&rng, PINFS_DELTA_NODE_SIZE)] ^= 1;
		reopen(&b);
		for (size_t i = 0; i < b.model.count; i++) {
			const void *value;
			size_t len;
			int r = tree_get(b.tree, b.model.entries[i].key, &value, &len);

			must(r == 0 || r == -EUCLEAN);
			if (r == 0)
				model_put(&left, b.model.entries[i]);
		}
		must(tree_prune(b.tree, &lost) == 0);
		must(lost <= broken && (lost > 0 || left.count == b.model.count));
		compare_all(b.tree, &left);
		must(tree_walk(b.tree, shape_visit, &s, &damaged) == 0 && !damaged && s.nodes <= before);
		/* What is lost keeps its place: it is not known to be its own. */
		{
			struct tree_root root;

			must(tree_freeze(b.tree, ++b.generation, &root) == 0);
			write_frozen(&b);
			thaw_written(&b, &root);
		}
		reopen(&b);
		compare_all(b.tree, &left);
		model_free(&left);
		both_end(&b);
	}
}

static void prune_keeps_what_is_whole(void **state)
{
	prune_rounds(20, 500);
}

/* All leaves below an inner node are lost: it goes, too. */
static void prune_takes_what_becomes_empty(void **state)
{
	struct rng rng = {17};
	struct both b;
	uint64_t lost, damaged;
	struct shape s = {0};
	struct tree_root root;

	tall = true;
	for (unsigned round = 0; round < 4; round++) {
		unsigned leaves = 0, inner = 0, keep = round < 2 ? round : 100;

		damage_begin(&b, &rng, 3000);
		for (unsigned n = 1; n < DISK_NODES; n++) {
			if (b.disk->place[n] != PLACE_USED || pinfs_get16(((struct pinfs_delta_node *)b.disk->nodes[n])->level)) {
				inner += b.disk->place[n] == PLACE_USED;
				continue;
			}
			if (leaves++ >= keep)
				b.disk->nodes[n][100] ^= 1;
		}
		must(leaves > 600 && inner > 2);
		reopen(&b);
		/* A root that can't be read is as good as damaged. */
		b.disk->reads = 0;
		b.disk->fail_read_at = round == 3 ? 1 : 0;
		must(tree_walk(b.tree, shape_visit, &s, &damaged) == 0);
		must(damaged == (round == 3 ? 1 : leaves - keep));
		must(tree_prune(b.tree, &lost) == 0 && lost == leaves - keep);
		s = (struct shape){0};
		must(tree_walk(b.tree, shape_visit, &s, &damaged) == 0 && !damaged && s.leaves == keep);
		must(s.items == tree_items(b.tree));
		must(tree_freeze(b.tree, ++b.generation, &root) == 0);
		must(root.height == (keep == 0 ? 0u : keep == 1 ? 1u : root.height));
		write_frozen(&b);
		thaw_written(&b, &root);
		both_end(&b);
	}
	tall = false;
}

/* The same once more, with three levels. */
static void tall_trees_are_no_different(void **state)
{
	tall = true;
	random_steps(16 * PINFS_DELTA_NODE_SIZE, 12, 21);
	random_steps(64u << 20, 12, 22);
	frozen_rounds(16 * PINFS_DELTA_NODE_SIZE, 25, 23);
	failing_reads(10);
	failing_memory(12);
	undo_rounds(40);
	hostile_rounds(60, 2200);
	prune_rounds(3, 2200);
	tall = false;
}

/* Freed while it is frozen, with copies made since. */
static void a_frozen_tree_can_be_freed(void **state)
{
	struct rng rng = {18};
	struct tree_root root;
	struct both b;

	both_begin(&b, 0);
	fill(&b, &rng, 2000);
	for (unsigned i = 0; i < 100; i++)
		step(&b, &rng, 50);
	must(tree_freeze(b.tree, ++b.generation, &root) == 0);
	for (unsigned i = 0; i < 500; i++)
		step(&b, &rng, 80);
	both_end(&b);
	tree_free(NULL);
}

/* ---- how fast ---- */

/* PINFS_BENCH=1: a million items of 100 bytes. */
static void how_fast_it_is(void **state)
{
	enum { COUNT = 1000000 };
	struct rng rng = {16};
	struct tree_root root = {0};
	struct disk *d;
	struct tree *tree;
	uint8_t value[100] = {1};
	const void *p;
	size_t len;
	uint64_t start, sum = 0;

	if (!getenv("PINFS_BENCH"))
		skip();
	for (unsigned order = 0; order < 2; order++) {
		d = disk_new();
		must(tree_new(&ops, d, ID, &root, 256u << 20, &tree) == 0);
		start = now_ns();
		for (unsigned i = 0; i < COUNT; i++)
			must(tree_put(tree, (struct tree_key){order ? rng_next(&rng) : 1, i}, value, sizeof(value)) == 0);
		print_message("%s: put %.0f ns", order ? "random" : "ascending", (double)(now_ns() - start) / COUNT);
		start = now_ns();
		must(tree_freeze(tree, 1, &root) == 0);
		print_message(", freeze %.1f ms for %u nodes", (double)(now_ns() - start) / 1e6, d->used);
		tree_thaw(tree, false);
		rng.state = 16;
		start = now_ns();
		for (unsigned i = 0; i < COUNT; i++) {
			uint64_t r = rng_next(&rng);
			struct tree_key key = {order ? r : 1, order ? i : r % COUNT};

			must(tree_get(tree, key, &p, &len) == 0);
			sum += *(const uint8_t *)p;
		}
		print_message(", random get %.0f ns", (double)(now_ns() - start) / COUNT);
		rng.state = 16;
		start = now_ns();
		for (unsigned i = 0; i < COUNT; i++) {
			uint64_t r = rng_next(&rng);
			struct tree_key key = {order ? r : 1, order ? i : r % COUNT};

			must(tree_put(tree, key, value, sizeof(value)) == 0);
		}
		print_message(", replace %.0f ns", (double)(now_ns() - start) / COUNT);
		rng.state = 16;
		start = now_ns();
		for (unsigned i = 0; i < COUNT; i++)
			must(tree_delete(tree, (struct tree_key){order ? rng_next(&rng) : 1, i}) == 0);
		print_message(", delete %.0f ns\n", (double)(now_ns() - start) / COUNT);
		must(sum && tree_items(tree) == 0);
		tree_free(tree);
		disk_end(d);
		root = (struct tree_root){0};
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(it_is_what_a_sorted_array_is),
		cmocka_unit_test(so_it_is_with_hardly_any_memory),
		cmocka_unit_test(insertion_in_order_fills_nodes),
		cmocka_unit_test(nodes_stay_half_full),
		cmocka_unit_test(inner_nodes_are_split_and_merged),
		cmocka_unit_test(frozen_nodes_stay_as_they_are),
		cmocka_unit_test(another_thread_may_write_them),
		cmocka_unit_test(no_space_changes_nothing),
		cmocka_unit_test(a_read_that_fails_changes_nothing),
		cmocka_unit_test(memory_that_fails_changes_nothing),
		cmocka_unit_test(what_was_reserved_can_be_undone),
		cmocka_unit_test(results_stay_for_eight_calls),
		cmocka_unit_test(roots_that_can_not_be_are_refused),
		cmocka_unit_test(each_bit_that_flips_is_found),
		cmocka_unit_test(each_contradiction_is_named),
		cmocka_unit_test(hostile_nodes_do_no_harm),
		cmocka_unit_test(prune_keeps_what_is_whole),
		cmocka_unit_test(prune_takes_what_becomes_empty),
		cmocka_unit_test(tall_trees_are_no_different),
		cmocka_unit_test(a_frozen_tree_can_be_freed),
		cmocka_unit_test(how_fast_it_is),
	};

	return cmocka_run_group_tests_name("tree", tests, NULL, support_end);
}
