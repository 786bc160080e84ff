/* SPDX-License-Identifier: MIT */
#include "memstore.h"

#include "delta/internal.h"
#include "support.h"

#define PAGE PINFS_PAGE_SIZE

void memstore_init(struct memstore *m, uint64_t capacity)
{
	*m = (struct memstore){.capacity = capacity ? capacity : 1u << 20};
	pthread_mutex_init(&m->lock, NULL);
	pthread_cond_init(&m->changed, NULL);
}

void memstore_destroy(struct memstore *m)
{
	for (uint64_t i = 0; i < m->count; i++)
		free(m->pages[i]);
	free(m->pages);
	free(m->backed);
	pthread_cond_destroy(&m->changed);
	pthread_mutex_destroy(&m->lock);
}

static void room(struct memstore *m, uint64_t pages)
{
	uint64_t n = MAX(pages, m->count * 2);

	if (pages <= m->count)
		return;
	m->pages = realloc(m->pages, n * sizeof(*m->pages));
	m->backed = realloc(m->backed, n * sizeof(*m->backed));
	must(m->pages && m->backed);
	memset(m->pages + m->count, 0, (n - m->count) * sizeof(*m->pages));
	memset(m->backed + m->count, 0, (n - m->count) * sizeof(*m->backed));
	m->count = n;
}

/* Counts a call; the error that it shall have. */
static int strike(struct memstore *m, enum memstore_op op)
{
	uint64_t n = ++m->ops[op].count;

	if (m->read_only && op != MEM_READ && op != MEM_FLUSH)
		return -EBADF;
	if (!m->ops[op].fail_at || n < m->ops[op].fail_at || (n > m->ops[op].fail_at && !m->ops[op].forever))
		return 0;
	return m->ops[op].error;
}

/* 0: the whole length; else fewer bytes, or -EINTR. */
static ssize_t shake(struct memstore *m, size_t len)
{
	struct rng rng = {m->dice};
	uint64_t x;

	if (!m->jitter)
		return (ssize_t)len;
	x = rng_below(&rng, m->jitter);
	m->dice = rng.state;
	return x == 0 ? -EINTR : x == 1 && len > 1 ? (ssize_t)(1 + rng_below(&rng, len - 1)) : (ssize_t)len;
}

static int back(struct memstore *m, uint64_t page)
{
	if (m->backed[page])
		return 0;
	if (m->taken >= m->capacity)
		return -ENOSPC;
	m->backed[page] = true;
	m->taken++;
	return 0;
}

static ssize_t mem_pread(void *context, void *buf, size_t len, uint64_t offset)
{
	struct memstore *m = context;
	ssize_t n;

	pthread_mutex_lock(&m->lock);
	n = strike(m, MEM_READ);
	if (n == 0)
		n = offset >= m->size ? 0 : shake(m, (size_t)MIN((uint64_t)len, m->size - offset));
	for (ssize_t done = 0; done < n;) {
		uint64_t at = offset + (uint64_t)done, page = at / PAGE;
		size_t piece = MIN((size_t)(n - done), PAGE - at % PAGE);

		if (page < m->count && m->pages[page])
			memcpy((uint8_t *)buf + done, m->pages[page] + at % PAGE, piece);
		else
			memset((uint8_t *)buf + done, 0, piece);
		done += (ssize_t)piece;
	}
	pthread_mutex_unlock(&m->lock);
	return n;
}

static ssize_t write_locked(struct memstore *m, const void *buf, ssize_t n, uint64_t offset)
{
	ssize_t done = 0;

	while (done < n) {
		uint64_t at = offset + (uint64_t)done, page = at / PAGE;
		size_t piece = MIN((size_t)(n - done), PAGE - at % PAGE);

		room(m, page + 1);
		if (back(m, page) < 0)
			return done ? done : -ENOSPC;
		if (!m->pages[page])
			m->pages[page] = calloc(1, PAGE);
		must(m->pages[page]);
		memcpy(m->pages[page] + at % PAGE, (const uint8_t *)buf + done, piece);
		done += (ssize_t)piece;
		m->size = MAX(m->size, at + piece);
	}
	return n;
}

static ssize_t mem_pwrite(void *context, const void *buf, size_t len, uint64_t offset)
{
	struct memstore *m = context;
	ssize_t n;

	pthread_mutex_lock(&m->lock);
	n = strike(m, MEM_WRITE);
	if (n == 0)
		n = shake(m, len);
	if (n > 0)
		n = write_locked(m, buf, n, offset);
	pthread_mutex_unlock(&m->lock);
	return n;
}

static int mem_flush(void *context)
{
	struct memstore *m = context;
	int r;

	pthread_mutex_lock(&m->lock);
	m->waiting++;
	pthread_cond_broadcast(&m->changed);
	while (m->hold)
		pthread_cond_wait(&m->changed, &m->lock);
	m->waiting--;
	r = strike(m, MEM_FLUSH);
	pthread_mutex_unlock(&m->lock);
	return r;
}

static int mem_punch(void *context, uint64_t offset, uint64_t len)
{
	struct memstore *m = context;
	int r;

	pthread_mutex_lock(&m->lock);
	r = strike(m, MEM_PUNCH);
	must(offset % PAGE == 0 && len % PAGE == 0);
	for (uint64_t p = offset / PAGE; r == 0 && p < MIN((offset + len) / PAGE, m->count); p++) {
		free(m->pages[p]);
		m->pages[p] = NULL;
		m->taken -= m->backed[p];
		m->backed[p] = false;
	}
	pthread_mutex_unlock(&m->lock);
	return r;
}

static int mem_allocate(void *context, uint64_t offset, uint64_t len)
{
	struct memstore *m = context;
	uint64_t first = offset / PAGE, end = DIV_ROUND_UP(offset + len, PAGE), want = 0;
	int r;

	pthread_mutex_lock(&m->lock);
	r = strike(m, MEM_ALLOCATE);
	if (r == 0)
		room(m, end);
	for (uint64_t p = first; r == 0 && p < end; p++)
		want += !m->backed[p];
	if (r == 0 && m->taken + want > m->capacity)
		r = -ENOSPC;
	for (uint64_t p = first; r == 0 && p < end; p++)
		must(back(m, p) == 0);
	if (r == 0)
		m->size = MAX(m->size, offset + len);
	pthread_mutex_unlock(&m->lock);
	return r;
}

static int mem_available(void *context, uint64_t *ret)
{
	struct memstore *m = context;

	pthread_mutex_lock(&m->lock);
	*ret = (m->capacity - m->taken) * PAGE;
	pthread_mutex_unlock(&m->lock);
	return 0;
}

static int mem_hole(void *context, uint64_t offset, uint64_t *ret)
{
	struct memstore *m = context;
	uint64_t p = offset / PAGE;

	pthread_mutex_lock(&m->lock);
	while (p < m->count && m->pages[p])
		p++;
	pthread_mutex_unlock(&m->lock);
	*ret = MAX(p * PAGE, offset);
	return 0;
}

static const struct store_ops mem_ops = {
	.pread = mem_pread,
	.pwrite = mem_pwrite,
	.flush = mem_flush,
	.punch = mem_punch,
	.allocate = mem_allocate,
	.available = mem_available,
	.hole = mem_hole,
};

struct store *memstore_open(struct memstore *m)
{
	struct store *s;

	must(store_open_ops(&mem_ops, m, m->size, &s) == 0);
	return s;
}

void memstore_fail(struct memstore *m, enum memstore_op op, uint64_t n, int error, bool forever)
{
	pthread_mutex_lock(&m->lock);
	m->ops[op].fail_at = n ? m->ops[op].count + n : 0;
	m->ops[op].error = error;
	m->ops[op].forever = forever;
	pthread_mutex_unlock(&m->lock);
}

uint64_t memstore_count(struct memstore *m, enum memstore_op op)
{
	uint64_t n;

	pthread_mutex_lock(&m->lock);
	n = m->ops[op].count;
	pthread_mutex_unlock(&m->lock);
	return n;
}

void memstore_hold(struct memstore *m, bool hold)
{
	pthread_mutex_lock(&m->lock);
	m->hold = hold;
	pthread_cond_broadcast(&m->changed);
	pthread_mutex_unlock(&m->lock);
}

void memstore_wait_flushes(struct memstore *m, unsigned n)
{
	pthread_mutex_lock(&m->lock);
	while (m->waiting < n)
		pthread_cond_wait(&m->changed, &m->lock);
	pthread_mutex_unlock(&m->lock);
}

void memstore_get(struct memstore *m, uint64_t offset, void *buf, size_t len)
{
	pthread_mutex_lock(&m->lock);
	for (size_t i = 0; i < len; i++) {
		uint64_t p = (offset + i) / PAGE;

		((uint8_t *)buf)[i] = p < m->count && m->pages[p] ? m->pages[p][(offset + i) % PAGE] : 0;
	}
	pthread_mutex_unlock(&m->lock);
}

void memstore_put(struct memstore *m, uint64_t offset, const void *buf, size_t len)
{
	pthread_mutex_lock(&m->lock);
	must(write_locked(m, buf, (ssize_t)len, offset) == (ssize_t)len);
	pthread_mutex_unlock(&m->lock);
}

void memstore_clone(struct memstore *m, struct memstore *ret)
{
	memstore_init(ret, m->capacity);
	pthread_mutex_lock(&m->lock);
	room(ret, m->count);
	for (uint64_t p = 0; p < m->count; p++) {
		if (m->backed[p])
			back(ret, p);
		if (m->pages[p]) {
			ret->pages[p] = malloc(PAGE);
			must(ret->pages[p]);
			memcpy(ret->pages[p], m->pages[p], PAGE);
		}
	}
	ret->size = m->size;
	pthread_mutex_unlock(&m->lock);
}

void memstore_clone_full(struct memstore *m, struct memstore *ret)
{
	static const uint8_t zeroes[PAGE];

	memstore_clone(m, ret);
	for (uint64_t p = 0; p < ret->count; p++)
		if (ret->backed[p] && (!ret->pages[p] || !memcmp(ret->pages[p], zeroes, PAGE))) {
			free(ret->pages[p]);
			ret->pages[p] = NULL;
			ret->backed[p] = false;
			ret->taken--;
		}
	ret->capacity = ret->taken;
}

/* ---- adding up ---- */

struct account {
	uint64_t *refs, *want; /* of each page: extents that refer to it; what the delta says of it */
	uint64_t pages, nodes;
	uint64_t ino, ino_pages, ino_end; /* of the file whose extents are being counted */
	struct delta *d;
};

static int count_node(void *context, const struct tree_node_info *info)
{
	struct account *a = context;

	must(info->page && info->page + PINFS_DELTA_NODE_PAGES <= a->pages);
	for (unsigned i = 0; i < PINFS_DELTA_NODE_PAGES; i++)
		must(space_is_live(a->d->space, info->page + i) && !a->refs[info->page + i]++);
	a->nodes++;
	return 0;
}

static void count_file_end(struct account *a)
{
	struct delta_inode inode;

	if (!a->ino)
		return;
	must(delta_inode_get(a->d, a->ino, &inode) == 0);
	if (inode.pages != a->ino_pages)
		fprintf(stderr, "inode %ju says %ju pages, and has %ju\n", (uintmax_t)a->ino, (uintmax_t)inode.pages, (uintmax_t)a->ino_pages);
	must(inode.pages == a->ino_pages);
}

static void count_extent(struct account *a, struct tree_key key, const void *value, size_t len)
{
	struct pinfs_delta_extent e;
	uint64_t n = 0, start;

	if (key.object >> 8 != a->ino) {
		count_file_end(a);
		a->ino = key.object >> 8;
		a->ino_pages = a->ino_end = 0;
	}
	must(extent_valid(value, len));
	memcpy(&e, value, sizeof(e));
	must(key.offset >= a->ino_end);
	a->ino_end = key.offset + pinfs_get32(e.pages);
	start = pinfs_get64(e.start);
	if (e.kind == PINFS_DELTA_RAW || e.kind == PINFS_DELTA_UNWRITTEN)
		n = pinfs_get32(e.pages);
	else if (e.kind == PINFS_DELTA_LZ4)
		n = DIV_ROUND_UP(pinfs_get32(e.stored), PAGE);
	a->ino_pages += n + (e.kind == PINFS_DELTA_INLINE || e.kind == PINFS_DELTA_LOGGED);
	must(start + n <= a->pages || !n);
	for (uint64_t p = start; p < start + n; p++)
		a->refs[p]++;
}

void delta_account(struct delta *d)
{
	struct account a = {.d = d};
	struct space_stats stats;
	struct tree_key from = {0, 0}, key;
	const void *value;
	uint64_t bad, live = 0;
	size_t len;
	int r;

	r = delta_checkpoint(d);
	if (r < 0)
		fprintf(stderr, "no checkpoint: %s\n", strerror(-r));
	must(r == 0);
	delta_lock(d);
	/* Somebody was quicker: nodes that are dirty have no place to be counted. */
	if (tree_dirty(d->tree)) {
		delta_unlock(d);
		return;
	}
	space_get_stats(d->space, &stats);
	a.pages = space_bits(d->space) + 64;
	a.refs = calloc(a.pages, sizeof(*a.refs));
	a.want = calloc(a.pages, sizeof(*a.want));
	must(a.refs && a.want);
	must(tree_walk(d->tree, count_node, &a, &bad) == 0 && !bad);
	for (uint64_t p = d->map_first; p < d->map_first + d->map_pages; p++)
		must(!a.refs[p]++);
	while ((r = tree_find(d->tree, from, (struct tree_key){UINT64_MAX, UINT64_MAX}, &key, &value, &len)) == 0) {
		if (key.object >> 8 && (key.object & 0xff) == PINFS_DELTA_EXTENT)
			count_extent(&a, key, value, len);
		if (key.object == PINFS_DELTA_SHARED) {
			struct pinfs_delta_shared s;

			must(len == sizeof(s));
			memcpy(&s, value, sizeof(s));
			for (uint64_t p = key.offset; p < key.offset + pinfs_get32(s.pages); p++) {
				must(p < a.pages && !a.want[p]);
				a.want[p] = pinfs_get32(s.refs);
			}
		}
		from = (struct tree_key){key.object, key.offset + 1};
	}
	must(r == -ENOENT);
	count_file_end(&a);
	for (uint64_t p = 0; p < a.pages; p++) {
		bool is_live = space_is_live(d->space, p);

		if (is_live != (a.refs[p] > 0) || (a.refs[p] > 1 ? a.want[p] != a.refs[p] : a.want[p] != 0))
			fprintf(stderr, "page %ju: live %d, %ju references, %ju said\n", (uintmax_t)p, is_live, (uintmax_t)a.refs[p],
				(uintmax_t)a.want[p]);
		must(is_live == (a.refs[p] > 0));
		must(a.refs[p] > 1 ? a.want[p] == a.refs[p] : !a.want[p]);
		live += is_live;
	}
	must(live == stats.live);
	must(stats.flight == 0);
	delta_unlock(d);
	free(a.refs);
	free(a.want);
}
