/* SPDX-License-Identifier: MIT */
/* Sections: their index, their chunks, and the bounded cache of decoded chunks. */
#include "image/internal.h"

#include "codec/codec.h"

#define KEY_INDEX (1ull << 55)

static uint64_t chunk_key(unsigned section, bool index, uint64_t no)
{
	return (uint64_t)section << 56 | (index ? KEY_INDEX : 0) | no;
}

static struct image_chunk **chunk_bucket(struct chunk_cache *c, uint64_t key)
{
	return &c->buckets[(key * 0x9e3779b97f4a7c15ull) >> 55 & (CHUNK_BUCKETS - 1)];
}

int chunk_cache_init(struct chunk_cache *c, size_t bytes)
{
	mutex_init(&c->lock, LOCK_CHUNK_CACHE);
	/* Most chunks have 32 KiB; index pages and chunks of small sections are less. */
	c->slot_count = MAX((bytes ? bytes : CHUNK_CACHE_DEFAULT) / (32u << 10), (size_t)8);
	c->slots = calloc(c->slot_count, sizeof(*c->slots));
	return c->slots ? 0 : -ENOMEM;
}

void chunk_cache_destroy(struct chunk_cache *c)
{
	for (size_t i = 0; c->slots && i < c->slot_count; i++)
		section_chunk_put(c->slots[i]);
	free(c->slots);
	mutex_destroy(&c->lock);
}

void section_chunk_put(struct image_chunk *chunk)
{
	if (chunk && atomic_fetch_sub_explicit(&chunk->refs, 1, memory_order_acq_rel) == 1)
		free(chunk);
}

static struct image_chunk *cache_find_locked(struct chunk_cache *c, uint64_t key)
{
	for (struct image_chunk *k = *chunk_bucket(c, key); k; k = k->next) {
		if (k->key == key) {
			atomic_fetch_add_explicit(&k->refs, 1, memory_order_relaxed);
			k->visited = true;
			return k;
		}
	}
	return NULL;
}

static void cache_unhash_locked(struct chunk_cache *c, struct image_chunk *chunk)
{
	struct image_chunk **p = chunk_bucket(c, chunk->key);

	while (*p != chunk)
		p = &(*p)->next;
	*p = chunk->next;
}

/*
 * Puts a chunk that was just loaded into the cache, or drops it for the one that another thread has put there
 * meanwhile; the check and the insertion are one critical section. The clock's victim may still be in use: its
 * users hold references, and its bytes don't change.
 */
static struct image_chunk *cache_insert(struct chunk_cache *c, struct image_chunk *chunk)
{
	struct image_chunk *found, *victim;
	size_t slot;

	mutex_lock(&c->lock);
	found = cache_find_locked(c, chunk->key);
	if (found) {
		mutex_unlock(&c->lock);
		section_chunk_put(chunk);
		return found;
	}
	while ((victim = c->slots[c->hand]) && victim->visited) {
		victim->visited = false;
		c->hand = (c->hand + 1) % c->slot_count;
	}
	slot = c->hand;
	c->hand = (c->hand + 1) % c->slot_count;
	if (victim)
		cache_unhash_locked(c, victim);
	c->slots[slot] = chunk;
	chunk->next = *chunk_bucket(c, chunk->key);
	*chunk_bucket(c, chunk->key) = chunk;
	atomic_fetch_add_explicit(&chunk->refs, 1, memory_order_relaxed);
	mutex_unlock(&c->lock);
	section_chunk_put(victim);
	return chunk;
}

static struct image_chunk *chunk_alloc(uint64_t key, size_t len)
{
	struct image_chunk *k = malloc(sizeof(*k) + len);

	if (!k)
		return NULL;
	*k = (struct image_chunk){.key = key, .refs = 1, .len = len};
	return k;
}

const struct image_section *section_get(const struct image *img, unsigned type)
{
	int i = img->section_by_type[type];

	return i < 0 ? NULL : &img->info.sections[i];
}

int block_decode(struct image *img, const struct pinfs_block *b, uint64_t where, uint32_t raw_max, uint64_t low,
	uint64_t high, struct image_block *ret)
{
	struct image_block o = {
		.offset = pinfs_get64(b->offset),
		.stored = pinfs_get32(b->stored),
		.raw = pinfs_get32(b->raw) & PINFS_BLOCK_RAW_MASK,
		.codec = pinfs_get32(b->raw) >> PINFS_BLOCK_CODEC_SHIFT,
		.checksum = pinfs_get64(b->checksum),
	};

	if (!codec_by_id(o.codec))
		return image_damaged(img, where, "a block descriptor has unknown codec %u", o.codec);
	if (!o.raw || o.raw > raw_max || !o.stored || o.stored > o.raw ||
		(o.codec == PINFS_CODEC_RAW && o.stored != o.raw))
		return image_damaged(img, where, "a block descriptor has impossible sizes %u and %u", o.stored, o.raw);
	if (o.offset < low || o.offset > high || o.stored > high - o.offset)
		return image_damaged(img, where, "a block descriptor points outside, to byte %ju", (uintmax_t)o.offset);
	*ret = o;
	return 0;
}

static int index_load(struct image *img, unsigned si, uint64_t page, struct image_chunk **ret)
{
	const struct image_section *s = &img->info.sections[si];
	uint64_t at = s->index_offset + page * PINFS_PAGE_SIZE;
	const struct pinfs_index_page *p;
	struct image_chunk *k;
	struct io_span span;
	int r;

	k = chunk_alloc(chunk_key(si, true, page), PINFS_PAGE_SIZE);
	if (!k)
		return -ENOMEM;
	r = image_io_read(img, at, PINFS_PAGE_SIZE, &span);
	if (r < 0) {
		section_chunk_put(k);
		return r;
	}
	memcpy(k->data, span.data, PINFS_PAGE_SIZE);
	io_span_put(img->io, &span);
	p = (const void *)k->data;
	if (!img->options.no_verify &&
		codec_checksum(p, offsetof(struct pinfs_index_page, checksum)) != pinfs_get64(p->checksum))
		r = image_damaged(img, at, "wrong checksum of index page %ju of section '%s'", (uintmax_t)page,
			image_section_name(s->type));
	else if (pinfs_get32(p->magic) != PINFS_INDEX_MAGIC || pinfs_get32(p->type) != s->type ||
		pinfs_get64(p->first) != page * PINFS_INDEX_ENTRIES)
		r = image_damaged(img, at, "index page %ju of section '%s' is another page", (uintmax_t)page,
			image_section_name(s->type));
	if (r < 0) {
		section_chunk_put(k);
		return r;
	}
	*ret = k;
	return 0;
}

static int cached_index(struct image *img, unsigned si, uint64_t page, struct image_chunk **ret)
{
	struct image_chunk *k;
	int r;

	mutex_lock(&img->cache.lock);
	k = cache_find_locked(&img->cache, chunk_key(si, true, page));
	mutex_unlock(&img->cache.lock);
	if (!k) {
		r = index_load(img, si, page, &k);
		if (r < 0)
			return r;
		k = cache_insert(&img->cache, k);
	}
	*ret = k;
	return 0;
}

int image_chunk_info(struct image *img, unsigned si, uint64_t no, struct image_block *ret)
{
	const struct image_section *s = &img->info.sections[si];
	struct image_chunk *page;
	struct image_block b;
	uint64_t want, where;
	int r;

	if (no >= s->chunk_count)
		return -ENOENT;
	r = cached_index(img, si, no / PINFS_INDEX_ENTRIES, &page);
	if (r < 0)
		return r;
	where = s->index_offset + no / PINFS_INDEX_ENTRIES * PINFS_PAGE_SIZE;
	r = block_decode(img, &((const struct pinfs_index_page *)page->data)->chunk[no % PINFS_INDEX_ENTRIES], where,
		s->chunk_size, PINFS_SUPER_SIZE, img->info.image_size - PINFS_SUPER_SIZE, &b);
	section_chunk_put(page);
	if (r < 0)
		return r;
	want = MIN((uint64_t)s->chunk_size, s->raw_size - no * s->chunk_size);
	if (b.raw != want)
		return image_damaged(img, where, "chunk %ju of section '%s' has %u bytes instead of %ju",
			(uintmax_t)no, image_section_name(s->type), b.raw, (uintmax_t)want);
	*ret = b;
	return 0;
}

/* Decompresses and unfilters the stored bytes of a chunk into k->data. */
static int chunk_decode(struct image *img, const struct image_section *s, const struct image_block *b,
	const uint8_t *stored, struct image_chunk *k)
{
	_cleanup_free_ uint8_t *plain = NULL;
	uint8_t *dst = k->data;
	int r;

	if (s->filter == PINFS_FILTER_DELTA) {
		plain = malloc(b->raw);
		if (!plain)
			return -ENOMEM;
		dst = plain;
	}
	r = codec_by_id(b->codec)->decompress(stored, b->stored, dst, b->raw);
	if (r < 0)
		return image_damaged(img, b->offset, "a chunk of section '%s' can't be decompressed",
			image_section_name(s->type));
	if (plain)
		codec_unfilter_delta(plain, b->raw, s->record_size, k->data);
	return 0;
}

static int chunk_load(struct image *img, unsigned si, uint64_t no, struct image_chunk **ret)
{
	const struct image_section *s = &img->info.sections[si];
	struct image_chunk *k;
	struct image_block b;
	struct io_span span;
	int r;

	r = image_chunk_info(img, si, no, &b);
	if (r < 0)
		return r;
	k = chunk_alloc(chunk_key(si, false, no), b.raw);
	if (!k)
		return -ENOMEM;
	r = image_io_read(img, b.offset, b.stored, &span);
	if (r < 0)
		goto fail;
	if (!img->options.no_verify && codec_checksum(span.data, b.stored) != b.checksum)
		r = image_damaged(img, b.offset, "wrong checksum of chunk %ju of section '%s'", (uintmax_t)no,
			image_section_name(s->type));
	else
		r = chunk_decode(img, s, &b, span.data, k);
	io_span_put(img->io, &span);
	if (r < 0)
		goto fail;
	*ret = k;
	return 0;
fail:
	section_chunk_put(k);
	return r;
}

int image_chunk_check(struct image *img, unsigned si, uint64_t no)
{
	struct image_chunk *k;
	int r = chunk_load(img, si, no, &k);

	if (r == 0)
		section_chunk_put(k);
	return r;
}

int section_chunk_get(struct image *img, unsigned type, uint64_t no, struct image_chunk **ret)
{
	int si = img->section_by_type[type];
	struct image_chunk *k;
	int r;

	if (si < 0 || no >= img->info.sections[si].chunk_count)
		return image_damaged(img, 0, "something refers to chunk %ju of section '%s', which isn't there",
			(uintmax_t)no, image_section_name(type));
	mutex_lock(&img->cache.lock);
	k = cache_find_locked(&img->cache, chunk_key((unsigned)si, false, no));
	mutex_unlock(&img->cache.lock);
	if (!k) {
		r = chunk_load(img, (unsigned)si, no, &k);
		if (r < 0)
			return r;
		k = cache_insert(&img->cache, k);
	}
	*ret = k;
	return 0;
}

int section_read(struct image *img, unsigned type, uint64_t pos, void *buf, size_t len)
{
	const struct image_section *s = section_get(img, type);
	uint8_t *out = buf;

	if (!s || pos > s->raw_size || len > s->raw_size - pos)
		return image_damaged(img, 0, "something refers to bytes beyond the end of section '%s'",
			image_section_name(type));
	while (len) {
		struct image_chunk *k;
		size_t at = (size_t)(pos % s->chunk_size), n = MIN(len, s->chunk_size - at);
		int r = section_chunk_get(img, type, pos / s->chunk_size, &k);

		if (r < 0)
			return r;
		memcpy(out, k->data + at, n);
		section_chunk_put(k);
		out += n;
		pos += n;
		len -= n;
	}
	return 0;
}

uint64_t section_where(struct image *img, unsigned type, uint64_t pos)
{
	int si = img->section_by_type[type];
	struct image_block b;

	if (si < 0 || image_chunk_info(img, (unsigned)si, pos / img->info.sections[si].chunk_size, &b) < 0)
		return 0;
	return b.offset;
}
