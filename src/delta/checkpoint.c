/* SPDX-License-Identifier: MIT */
/*
 * Checkpoints: the tree, the map and the log's beginning, consistent with each other, in new places; then a superblock that says so.
 *
 *	freeze (locked: what the checkpoint is)  ►  write nodes and map  ►  flush  ►  write the superblock twice  ►  flush  ►
 *	thaw (locked: what only the last checkpoint used is free, the log begins later)
 *
 * Until the second flush the last checkpoint and the whole log are what a crash leads back to.
 */
#include "delta/internal.h"

/* How much of a map may change its compressed size between the first look and the snapshot. */
#define MAP_SLACK PINFS_PAGE_SIZE
/* Pages behind the file's end that a map may have. */
#define MAP_BEYOND (1u << 24)

int super_write(struct delta *d, const struct pinfs_delta_super *super)
{
	unsigned first = 2 * (unsigned)(pinfs_get64(super->generation) % 2);

	for (unsigned i = 0; i < 2; i++) {
		struct pinfs_delta_super s = *super;
		int r;

		s.slot = pinfs_put32(first + i);
		s.checksum = pinfs_put64(codec_checksum(&s, sizeof(s) - sizeof(s.checksum)));
		r = store_write(d->store, (uint64_t)(first + i) * PINFS_PAGE_SIZE, &s, sizeof(s));
		if (r < 0)
			return r;
	}
	return 0;
}

/* ---- the map ---- */

struct map_image {
	uint8_t *bytes; /* descriptors, then the stored chunks */
	size_t len, capacity;
	unsigned chunks;
	uint64_t checksum, bits;
};

static int map_compress(const uint8_t *map, uint64_t bits, struct map_image *m)
{
	size_t bytes = space_map_bytes(bits), at;
	struct codec_context *codec;
	int r = codec_context_new(CODEC_LEVEL_FAST, &codec);

	if (r < 0)
		return r;
	m->bits = bits;
	m->chunks = (unsigned)DIV_ROUND_UP(bytes, (size_t)PINFS_DELTA_MAP_CHUNK);
	at = m->chunks * sizeof(struct pinfs_delta_map_chunk);
	if (array_reserve(&m->bytes, &m->capacity, at + (size_t)m->chunks * PINFS_DELTA_MAP_CHUNK, 1) < 0) {
		codec_context_free(codec);
		return -ENOMEM;
	}
	for (unsigned i = 0; i < m->chunks; i++) {
		const uint8_t *raw = map + (size_t)i * PINFS_DELTA_MAP_CHUNK;
		size_t len = MIN(bytes - (size_t)i * PINFS_DELTA_MAP_CHUNK, (size_t)PINFS_DELTA_MAP_CHUNK), stored = 0;
		struct pinfs_delta_map_chunk c = {0};
		bool empty = len == 0 || (!raw[0] && !memcmp(raw, raw + 1, len - 1));

		if (!empty) {
			stored = codec_compress_lz4(codec, raw, len, m->bytes + at, len);
			if (!stored)
				memcpy(m->bytes + at, raw, len);
			c.stored = pinfs_put32(stored ? (uint32_t)stored : (uint32_t)len | PINFS_DELTA_MAP_RAW);
			stored = stored ? stored : len;
			c.checksum = pinfs_put64(codec_checksum(m->bytes + at, stored));
		}
		memcpy(m->bytes + i * sizeof(c), &c, sizeof(c));
		at += stored;
	}
	codec_context_free(codec);
	m->len = at;
	m->checksum = codec_checksum(m->bytes, m->chunks * sizeof(struct pinfs_delta_map_chunk));
	return 0;
}

/* One chunk of a map that was read: into `raw`, of which `len` bytes are wanted. */
static bool map_chunk_load(const struct pinfs_delta_map_chunk *c, const uint8_t *stored, size_t left, uint8_t *raw, size_t len,
	size_t *ret_used)
{
	uint32_t word = pinfs_get32(c->stored);
	size_t n = word & ~PINFS_DELTA_MAP_RAW;

	*ret_used = n;
	if (!word) {
		memset(raw, 0, len);
		return true;
	}
	if (n > left || pinfs_get64(c->checksum) != codec_checksum(stored, n))
		return false;
	if (!(word & PINFS_DELTA_MAP_RAW))
		return codec_by_id(PINFS_CODEC_LZ4)->decompress(stored, n, raw, len) == 0;
	if (n != len)
		return false;
	memcpy(raw, stored, len);
	return true;
}

int map_load(struct delta *d, const struct pinfs_delta_super *s)
{
	uint64_t first = pinfs_get64(s->map_first), pages = pinfs_get64(s->map_pages), bits = pinfs_get64(s->map_bits);
	size_t bytes = space_map_bytes(bits), chunks = pinfs_get32(s->map_chunks), at, stored = (size_t)pages * PINFS_PAGE_SIZE;
	_cleanup_mem_ uint8_t *raw = NULL, *in = NULL;
	int r;

	if (!chunks)
		return 0;
	/* A map of so many pages is in no superblock that this program wrote; nor of many more than the file has (where the disk promises nothing, of some). */
	if (bits > UINT64_MAX / 2 || bits > store_size(d->store) / PINFS_PAGE_SIZE + MAP_BEYOND || pages > (UINT64_MAX >> 13) / PINFS_PAGE_SIZE || stored > bytes + (1u << 20) + chunks * 16 ||
		chunks != DIV_ROUND_UP(bytes, (size_t)PINFS_DELTA_MAP_CHUNK) || bytes > ((size_t)1 << 36) ||
		stored < chunks * sizeof(struct pinfs_delta_map_chunk))
		return delta_damaged(d, 0, "the superblock's map of %ju pages can't be", (uintmax_t)bits);
	raw = mem_alloc(bytes);
	in = mem_alloc(stored);
	if (!raw || !in)
		return -ENOMEM;
	r = store_read(d->store, first * PINFS_PAGE_SIZE, in, stored);
	if (r < 0)
		return r;
	at = chunks * sizeof(struct pinfs_delta_map_chunk);
	if (codec_checksum(in, at) != pinfs_get64(s->map_checksum))
		return delta_damaged(d, first * PINFS_PAGE_SIZE, "the map of used pages has a wrong checksum");
	for (size_t i = 0; i < chunks; i++) {
		struct pinfs_delta_map_chunk c;
		size_t len = MIN(bytes - i * PINFS_DELTA_MAP_CHUNK, (size_t)PINFS_DELTA_MAP_CHUNK), used;

		memcpy(&c, in + i * sizeof(c), sizeof(c));
		if (!map_chunk_load(&c, in + at, stored - at, raw + i * PINFS_DELTA_MAP_CHUNK, len, &used))
			return delta_damaged(d, first * PINFS_PAGE_SIZE + at, "piece %zu of the map of used pages is damaged", i);
		at += used;
	}
	return space_load(d->space, raw, bits);
}

/* ---- flushing ---- */

/*
 * One at a time: the kernel tells of a lost write once, and who flushes beside the one who is told believes that all is well. flush_lock is held, but not
 * meanwhile; d->flushing is not set.
 */
static int flush_locked(struct delta *d)
{
	int r;

	d->flushing = true;
	mutex_unlock(&d->flush_lock);
	r = store_flush(d->store);
	/* What the kernel had to write is perhaps lost, and it doesn't try again. */
	if (r < 0)
		delta_fail(d, r);
	mutex_lock(&d->flush_lock);
	d->flushing = false;
	cond_broadcast(&d->flushed);
	return r;
}

static int flush_alone(struct delta *d)
{
	int r;

	if (d->options.no_flush)
		return 0;
	mutex_lock(&d->flush_lock);
	while (d->flushing)
		cond_wait(&d->flushed, &d->flush_lock);
	r = a64_read(&d->failed) ? -(int)a64_read(&d->failed) : flush_locked(d);
	mutex_unlock(&d->flush_lock);
	return r;
}

int delta_flush(struct delta *d)
{
	uint64_t want = a64_read_acquire(&d->written);
	int r = 0;

	if (a64_read(&d->failed))
		return -(int)a64_read(&d->failed);
	if (d->options.no_flush || d->options.read_only)
		return 0;
	mutex_lock(&d->flush_lock);
	while (r == 0 && a64_read(&d->durable) < want) {
		uint64_t target;

		if (d->flushing) {
			cond_wait(&d->flushed, &d->flush_lock);
		} else {
			target = a64_read_acquire(&d->written);
			r = flush_locked(d);
			if (r == 0 && a64_read(&d->durable) < target)
				a64_set_release(&d->durable, target);
		}
		if (a64_read(&d->failed))
			r = -(int)a64_read(&d->failed);
	}
	mutex_unlock(&d->flush_lock);
	return r;
}

/* ---- one checkpoint ---- */

struct checkpoint {
	struct pinfs_delta_super super;
	struct map_image map;
	uint64_t map_first, map_pages; /* where the new one lies */
	uint64_t log_start, log_taken;  /* the new tail; how much of the log goes */
	uint64_t sequence;
};

static void super_fill(const struct delta *d, struct pinfs_delta_super *s)
{
	*s = (struct pinfs_delta_super){
		.version_major = pinfs_put16(PINFS_DELTA_VERSION_MAJOR),
		.version_minor = pinfs_put16(PINFS_DELTA_VERSION_MINOR),
		.generation = pinfs_put64(d->generation + 1),
		.image_size = pinfs_put64(d->options.image_size),
		.image_inodes = pinfs_put64(d->options.image_inodes),
		.log_first = pinfs_put64(d->log.first / PINFS_PAGE_SIZE),
		.log_pages = pinfs_put64(d->log.bytes / PINFS_PAGE_SIZE),
		.log_start = pinfs_put64(d->log.head),
		.log_sequence = pinfs_put64(d->log.sequence),
		.log_previous = pinfs_put64(d->log.previous),
		.next_ino = pinfs_put64(d->next_ino),
		.hash_seed = pinfs_put64(d->hash_seed),
		.ino_generation = pinfs_put32(d->ino_generation),
		.created_sec = pinfs_put64(d->created),
		.inodes = pinfs_put64(d->files),
	};
	memcpy(s->magic, PINFS_DELTA_MAGIC, sizeof(s->magic));
	memcpy(s->uuid, d->uuid, sizeof(s->uuid));
	memcpy(s->image_uuid, d->options.image_uuid, sizeof(s->image_uuid));
	memcpy(s->image_hash, d->options.image_hash, sizeof(s->image_hash));
}

static int snapshot(struct delta *d, struct map_image *map)
{
	uint64_t bits = space_bits(d->space);
	uint8_t *buf = mem_alloc(space_map_bytes(bits) + 8);
	int r;

	if (!buf)
		return -ENOMEM;
	space_snapshot(d->space, bits, buf);
	mem_free(d->map);
	d->map = buf;
	r = map_compress(buf, bits, map);
	return r;
}

/* Takes pages for the new map, and draws it, with those pages in it and the old map's not. */
static int map_place(struct delta *d, struct checkpoint *c)
{
	uint64_t want;
	int r;

	if (d->map_pages && !space_free(d->space, d->map_first, d->map_pages))
		delta_damaged(d, d->map_first * PINFS_PAGE_SIZE, "the map's own pages were free");
	d->map_pages = 0;
	for (unsigned tries = 0; tries < 4; tries++) {
		r = snapshot(d, &c->map);
		if (r < 0)
			return r;
		want = DIV_ROUND_UP(c->map.len + c->map.len / 16 + MAP_SLACK, (size_t)PINFS_PAGE_SIZE);
		r = space_alloc_run(d->space, want, &c->map_first);
		if (r < 0)
			return r;
		c->map_pages = want;
		space_live(d->space, c->map_first, want);
		r = snapshot(d, &c->map);
		if (r < 0 || c->map.len <= want * PINFS_PAGE_SIZE)
			return r;
		space_free(d->space, c->map_first, want);
		c->map_pages = 0;
	}
	return -ENOSPC;
}

/* Under the lock: what the checkpoint is. */
static int checkpoint_freeze(struct delta *d, struct checkpoint *c)
{
	struct tree_root root;
	int r = d->generation + 1 < COUNT_MOST ? tree_freeze(d->tree, d->generation + 1, &root) : -EFBIG;

	if (r < 0)
		return r;
	r = map_place(d, c);
	if (r < 0) {
		tree_thaw(d->tree, false);
		if (c->map_pages)
			space_free(d->space, c->map_first, c->map_pages);
		return r;
	}
	super_fill(d, &c->super);
	c->super.root = (struct pinfs_delta_ref){pinfs_put64(root.page), pinfs_put64(root.generation)};
	c->super.height = pinfs_put32(root.height);
	c->super.items = pinfs_put64(root.items);
	c->super.map_chunks = pinfs_put32(c->map.chunks);
	c->super.map_first = pinfs_put64(c->map_first);
	c->super.map_pages = pinfs_put64(c->map_pages);
	c->super.map_bits = pinfs_put64(c->map.bits);
	c->super.map_checksum = pinfs_put64(c->map.checksum);
	space_frozen(d->space);
	c->log_start = d->log.head;
	c->log_taken = d->log.used;
	c->sequence = d->log.sequence - 1;
	return 0;
}

static int checkpoint_write(struct delta *d, struct checkpoint *c, bool *ret_lost)
{
	const void *bytes;
	size_t cursor = 0;
	uint64_t page;
	int r = 0;

	while (r == 0 && tree_frozen_next(d->tree, &cursor, &page, &bytes))
		r = store_write(d->store, page * PINFS_PAGE_SIZE, bytes, PINFS_DELTA_NODE_SIZE);
	if (r == 0 && c->map.len)
		r = store_write(d->store, c->map_first * PINFS_PAGE_SIZE, c->map.bytes, c->map.len);
	/* So far nothing refers to it: where there was no room, there may be some later. */
	*ret_lost = r != -ENOSPC && r != -EDQUOT;
	if (r < 0)
		return r;
	r = flush_alone(d);
	if (r == 0)
		r = super_write(d, &c->super);
	return r < 0 ? r : flush_alone(d);
}

/* Under the lock. */
static void checkpoint_end(struct delta *d, struct checkpoint *c, int error)
{
	if (error < 0) {
		tree_thaw(d->tree, false);
		space_free(d->space, c->map_first, c->map_pages);
		return;
	}
	d->generation++;
	d->checkpoints++;
	d->map_first = c->map_first;
	d->map_pages = c->map_pages;
	tree_thaw(d->tree, true);
	space_checkpointed(d->space, d->map, c->map.bits);
	d->log.tail = c->log_start;
	d->log.used -= c->log_taken;
	cond_broadcast(&d->room);
}

/* So many pages stay, and a share of those in use, up to what is given up between two checkpoints: what is written over and over again needs nothing new of the disk. */
#define PUNCH_KEEP 4096u
#define PUNCH_SHARE 4u
#define PUNCH_KEEP_MOST 32768u

int trim_free(struct delta *d, uint64_t first, uint64_t end, uint64_t least, uint64_t keep, bool all, uint64_t *ret)
{
	uint64_t given = 0, at = 0, n;
	int r;

	for (;;) {
		mutex_lock(&d->lock);
		/* What a checkpoint that went wrong has given up may be on the disk all the same. */
		r = -(int)a64_read(&d->failed);
		n = r == 0 ? space_trim_begin(d->space, first, &end, least, keep, all, &at) : 0;
		mutex_unlock(&d->lock);
		if (!n)
			break;
		r = store_punch(d->store, at * PINFS_PAGE_SIZE, n * PINFS_PAGE_SIZE);
		mutex_lock(&d->lock);
		space_trim_end(d->space, at, n, r == 0);
		mutex_unlock(&d->lock);
		if (r < 0)
			break;
		given += n;
	}
	*ret = given;
	return r;
}

static void give_back(struct delta *d)
{
	struct space_stats stats;
	uint64_t keep, given;

	mutex_lock(&d->lock);
	space_get_stats(d->space, &stats);
	mutex_unlock(&d->lock);
	keep = PUNCH_KEEP + MIN(stats.live / PUNCH_SHARE, (uint64_t)PUNCH_KEEP_MOST);
	/* Not each time a little. What an earlier mount has left is looked for once. An error is no harm: they are used again. */
	if (stats.backed <= stats.reserved + keep + keep / 2)
		return;
	trim_free(d, 0, UINT64_MAX, PUNCH_LEAST, keep, !d->swept, &given);
	d->swept = true;
}

static int make_one(struct delta *d, bool force)
{
	struct checkpoint c = {0};
	int r;

	r = content_settle(d);
	mutex_lock(&d->lock);
	if (r == 0)
		r = a64_read(&d->failed) ? -(int)a64_read(&d->failed) : d->options.read_only ? -EROFS : 0;
	/* Nothing has happened since the last one. */
	if (r < 0 || (!force && !d->log.used && !tree_dirty(d->tree) && d->generation)) {
		d->settling = false;
		mutex_unlock(&d->lock);
		return r;
	}
	r = checkpoint_freeze(d, &c);
	d->settling = false;
	mutex_unlock(&d->lock);
	if (r == 0) {
		bool lost;

		r = checkpoint_write(d, &c, &lost);
		mutex_lock(&d->lock);
		/* Whether the superblock is there is not known after that. */
		if (r < 0 && lost)
			delta_fail(d, r);
		if (r == 0 && c.sequence > a64_read(&d->durable))
			a64_set_release(&d->durable, c.sequence);
		checkpoint_end(d, &c, r);
		mutex_unlock(&d->lock);
		if (r == 0)
			give_back(d);
	}
	free(c.map.bytes);
	return r;
}

int checkpoint_make(struct delta *d)
{
	return make_one(d, false);
}

int checkpoint_force(struct delta *d)
{
	return make_one(d, true);
}

int delta_checkpoint(struct delta *d)
{
	int r;

	mutex_lock(&d->checkpoint_lock);
	r = checkpoint_make(d);
	mutex_unlock(&d->checkpoint_lock);
	return r;
}

/* ---- the thread ---- */

#define COMMIT_MS 5000u

static void *thread_main(void *arg)
{
	struct delta *d = arg;
	unsigned ms = d->options.commit_ms ? d->options.commit_ms : COMMIT_MS;

	mutex_lock(&d->thread_lock);
	while (!d->stop) {
		bool asked;

		if (!d->asked)
			cond_wait_for(&d->wake, &d->thread_lock, ms);
		asked = d->asked;
		d->asked = false;
		if (d->stop)
			break;
		mutex_unlock(&d->thread_lock);
		/* Their errors are those of who waits for the same: delta_failed() keeps them. */
		if (asked)
			delta_checkpoint(d);
		else
			delta_flush(d);
		mutex_lock(&d->thread_lock);
	}
	mutex_unlock(&d->thread_lock);
	return NULL;
}

void thread_wake(struct delta *d)
{
	if (!d->thread_started)
		return;
	mutex_lock(&d->thread_lock);
	d->asked = true;
	cond_signal(&d->wake);
	mutex_unlock(&d->thread_lock);
}

int delta_thread_start(struct delta *d)
{
	int r = thread_start(&d->thread, thread_main, d);

	d->thread_started = r == 0;
	return r;
}

void thread_end(struct delta *d)
{
	if (!d->thread_started)
		return;
	mutex_lock(&d->thread_lock);
	d->stop = true;
	cond_signal(&d->wake);
	mutex_unlock(&d->thread_lock);
	pthread_join(d->thread, NULL);
	d->thread_started = false;
}
