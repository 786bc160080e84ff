/* SPDX-License-Identifier: MIT */
#include "tree_model.h"

#include "base/mem.h"

/* ---- memory ---- */

uint64_t mem_made, mem_fail_at, mem_live;

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

/* Node 0 is never used: page 0 is none. */
unsigned place_of(const struct disk *d, uint64_t page)
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

const struct tree_ops model_ops = {.read = disk_read, .alloc = disk_alloc, .free = disk_free, .damaged = disk_damaged};

struct disk *disk_new(void)
{
	struct disk *d = calloc(1, sizeof(*d));

	must(d);
	return d;
}

void disk_end(struct disk *d)
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

size_t model_find(const struct model *m, struct tree_key key)
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

bool model_has(const struct model *m, size_t at, struct tree_key key)
{
	return at < m->count && tree_key_compare(m->entries[at].key, key) == 0;
}

void model_put(struct model *m, struct entry e)
{
	size_t at = model_find(m, e.key);

	if (!model_has(m, at, e.key)) {
		must(array_reserve(&m->entries, &m->capacity, m->count + 1, sizeof(e)) == 0);
		memmove(m->entries + at + 1, m->entries + at, (m->count - at) * sizeof(e));
		m->count++;
	}
	m->entries[at] = e;
}

void model_delete(struct model *m, size_t at)
{
	m->count--;
	memmove(m->entries + at, m->entries + at + 1, (m->count - at) * sizeof(*m->entries));
}

struct model model_copy(const struct model *m)
{
	struct model copy = {.count = m->count, .capacity = m->count};

	copy.entries = malloc((m->count + 1) * sizeof(*m->entries));
	must(copy.entries);
	if (m->count)
		memcpy(copy.entries, m->entries, m->count * sizeof(*m->entries));
	return copy;
}

void model_free(struct model *m)
{
	free(m->entries);
	*m = (struct model){0};
}

void value_make(const struct entry *e, uint8_t *buf)
{
	uint64_t x = e->key.object * 0x9e3779b97f4a7c15ull ^ e->key.offset * 0xc2b2ae3d27d4eb4full ^ e->version;

	for (size_t i = 0; i < e->len; i++)
		buf[i] = (uint8_t)((x >> (i % 7 * 8)) + i);
}

void value_check(const struct entry *e, const void *value, size_t len)
{
	uint8_t buf[PINFS_DELTA_ITEM_MAX];

	must(len == e->len);
	value_make(e, buf);
	must(len == 0 || memcmp(buf, value, len) == 0);
}

/* ---- both ---- */

static void both_open(struct both *b)
{
	must(tree_new(&model_ops, b->disk, ID, &b->root, b->cache, &b->tree) == 0);
}

void both_begin(struct both *b, size_t cache)
{
	*b = (struct both){.disk = disk_new(), .cache = cache};
	both_open(b);
}

int both_put(struct both *b, struct tree_key key, uint32_t len)
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

int both_delete(struct both *b, struct tree_key key)
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

int both_get(struct both *b, struct tree_key key)
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

int both_find(struct both *b, struct tree_key from, struct tree_key end)
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

int both_find_last(struct both *b, struct tree_key from, struct tree_key to)
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

void compare_all(struct tree *tree, const struct model *m)
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

int shape_visit(void *context, const struct tree_node_info *info)
{
	struct shape *s = context;

	s->nodes++;
	s->leaves += !info->level;
	s->dirty += !info->page;
	s->items += info->level ? 0 : info->count;
	return 0;
}

void check_dirty(struct both *b)
{
	struct shape s = {0};
	uint64_t damaged;

	must(tree_walk(b->tree, shape_visit, &s, &damaged) == 0 && damaged == 0);
	must(s.items == b->model.count && s.dirty == tree_dirty(b->tree));
}

void check_places(struct both *b)
{
	struct shape s = {0};
	uint64_t damaged;

	must(tree_walk(b->tree, shape_visit, &s, &damaged) == 0 && damaged == 0);
	must(s.items == b->model.count && s.dirty == tree_dirty(b->tree));
	if (!tree_dirty(b->tree))
		must(s.nodes == b->disk->used);
}

void write_frozen(struct both *b)
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

void thaw_written(struct both *b, const struct tree_root *root)
{
	tree_thaw(b->tree, true);
	disk_commit(b->disk);
	b->root = *root;
}

void checkpoint(struct both *b)
{
	struct tree_root root;

	must(tree_freeze(b->tree, ++b->generation, &root) == 0);
	must(tree_dirty(b->tree) == 0);
	write_frozen(b);
	thaw_written(b, &root);
	check_places(b);
}

void reopen(struct both *b)
{
	tree_free(b->tree);
	both_open(b);
}

void both_end(struct both *b)
{
	tree_free(b->tree);
	disk_end(b->disk);
	model_free(&b->model);
	assert_int_equal(mem_live, 0);
}

/* ---- random ---- */

bool tall;

struct tree_key key_random(struct rng *rng)
{
	static const uint64_t objects[] = {0, 1, 2, 0x104, 0x105, 1ull << 40, UINT64_MAX};
	uint64_t object = objects[rng_below(rng, ARRAY_SIZE(objects))];

	if (rng_below(rng, 200) == 0)
		return (struct tree_key){object, rng_below(rng, 2) ? UINT64_MAX - 1 : 0};
	return (struct tree_key){object, rng_below(rng, tall ? 1u << 20 : 3000)};
}

uint32_t len_random(struct rng *rng)
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

struct tree_key key_there(struct both *b, struct rng *rng)
{
	return b->model.count ? b->model.entries[rng_below(rng, b->model.count)].key : (struct tree_key){0};
}

int step(struct both *b, struct rng *rng, unsigned shrink)
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

void fill(struct both *b, struct rng *rng, unsigned items)
{
	while (b->model.count < items)
		both_put(b, key_random(rng), len_random(rng));
	checkpoint(b);
	must(!tall || b->root.height == 3);
}

struct shape shape_of(struct both *b)
{
	struct shape s = {0};
	uint64_t damaged;

	must(tree_walk(b->tree, shape_visit, &s, &damaged) == 0 && !damaged);
	return s;
}
