/* SPDX-License-Identifier: MIT */
#include "container.h"

#include "codec/codec.h"

/* A tampered section may claim anything; what is loaded stays small. */
#define CHUNK_MOST (1u << 20)

bool container_open(struct container *c, uint8_t *data, size_t size, size_t capacity)
{
	*c = (struct container){.data = data, .size = size, .capacity = capacity, .super = (void *)data};
	return size >= 2 * PINFS_SUPER_SIZE && size <= capacity &&
		!memcmp(c->super->magic, PINFS_MAGIC, PINFS_MAGIC_SIZE);
}

uint64_t container_chunk_count(const struct pinfs_section *s)
{
	uint64_t raw = pinfs_get64(s->raw_size), chunk = pinfs_get32(s->chunk_size);

	return chunk ? raw / chunk + !!(raw % chunk) : 0;
}

struct pinfs_section *container_section(struct container *c, unsigned type)
{
	for (unsigned i = 0; i < PINFS_SECTIONS_MAX; i++) {
		struct pinfs_section *s = &c->super->sections[i];
		uint64_t at = pinfs_get64(s->index_offset);

		if (pinfs_get32(s->type) == type && at >= PINFS_SUPER_SIZE && at <= c->size - PINFS_PAGE_SIZE &&
			at % PINFS_PAGE_SIZE == 0 && container_chunk_count(s))
			return s;
	}
	return NULL;
}

struct pinfs_block *container_descriptor(struct container *c, const struct pinfs_section *s, uint64_t chunk)
{
	uint64_t at = pinfs_get64(s->index_offset) + chunk / PINFS_INDEX_ENTRIES * PINFS_PAGE_SIZE;

	if (chunk >= container_chunk_count(s) || chunk / PINFS_INDEX_ENTRIES > c->size / PINFS_PAGE_SIZE ||
		at > c->size - PINFS_PAGE_SIZE)
		return NULL;
	return &((struct pinfs_index_page *)(c->data + at))->chunk[chunk % PINFS_INDEX_ENTRIES];
}

/* b: in the page. What was stored may have gone anywhere, also over the section's description. */
static void index_seal(struct container *c, const struct pinfs_block *b)
{
	size_t at = (size_t)((const uint8_t *)b - c->data) & ~(size_t)(PINFS_PAGE_SIZE - 1);
	struct pinfs_index_page *p = (void *)(c->data + at);

	p->checksum = pinfs_put64(codec_checksum(p, offsetof(struct pinfs_index_page, checksum)));
}

static bool filtered(const struct pinfs_section *s, size_t len)
{
	uint32_t record = pinfs_get32(s->record_size);

	return pinfs_get32(s->filter) == PINFS_FILTER_DELTA && record && record % 4 == 0 && len % record == 0;
}

uint8_t *container_load(struct container *c, const struct pinfs_section *s, uint64_t chunk, size_t *ret_len)
{
	const struct pinfs_block *b = container_descriptor(c, s, chunk);
	_cleanup_free_ uint8_t *plain = NULL;
	const struct codec_ops *codec;
	uint64_t offset;
	size_t stored, len;
	uint8_t *raw;

	if (!b)
		return NULL;
	offset = pinfs_get64(b->offset);
	stored = pinfs_get32(b->stored);
	len = pinfs_get32(b->raw) & PINFS_BLOCK_RAW_MASK;
	codec = codec_by_id(pinfs_get32(b->raw) >> PINFS_BLOCK_CODEC_SHIFT);
	if (!codec || !len || len > CHUNK_MOST || offset > c->size || stored > c->size - offset)
		return NULL;
	plain = malloc(len);
	FUZZ_CHECK(plain);
	if (codec->decompress(c->data + offset, stored, plain, len) < 0)
		return NULL;
	*ret_len = len;
	if (!filtered(s, len))
		return steal_pointer(&plain);
	raw = malloc(len);
	FUZZ_CHECK(raw);
	codec_unfilter_delta(plain, len, pinfs_get32(s->record_size), raw);
	return raw;
}

/* Makes room of `len` bytes before the second superblock. 0: there is none. */
static uint64_t grow(struct container *c, size_t len)
{
	size_t at = c->size & ~(size_t)(PINFS_PAGE_SIZE - 1), more = (size_t)align_up(len, PINFS_PAGE_SIZE);

	at -= PINFS_SUPER_SIZE;
	if (more > c->capacity || at + more + PINFS_SUPER_SIZE > c->capacity)
		return 0;
	memset(c->data + at, 0, more);
	memcpy(c->data + at + more, c->super, PINFS_SUPER_SIZE);
	c->size = at + more + PINFS_SUPER_SIZE;
	c->super->image_size = pinfs_put64(c->size);
	return at;
}

/* Compressed into the old place, if that is enough: an image that can't grow can still be tampered with. */
static size_t squeeze(uint8_t *dst, size_t room, const uint8_t *data, size_t len)
{
	struct codec_context *codec;
	size_t n;

	FUZZ_CHECK(codec_context_new(CODEC_LEVEL_FAST, &codec) == 0);
	n = codec_compress_lz4(codec, data, len, dst, room);
	codec_context_free(codec);
	return n;
}

bool container_store(struct container *c, struct pinfs_section *s, uint64_t chunk, const uint8_t *raw, size_t len)
{
	struct pinfs_block *b = container_descriptor(c, s, chunk);
	_cleanup_free_ uint8_t *plain = NULL;
	unsigned codec = PINFS_CODEC_RAW;
	size_t stored = len, room;
	uint64_t offset;

	if (!b || !len || len > pinfs_get32(s->chunk_size))
		return false;
	if (filtered(s, len)) {
		plain = malloc(len);
		FUZZ_CHECK(plain);
		codec_filter_delta(raw, len, pinfs_get32(s->record_size), plain);
		raw = plain;
	}
	offset = pinfs_get64(b->offset);
	room = pinfs_get32(b->stored);
	if (offset > c->size || room > c->size - offset)
		room = 0;
	if (room < len) {
		uint64_t at = grow(c, len);

		if (at) {
			offset = at;
			memcpy(c->data + at, raw, len);
		} else {
			codec = PINFS_CODEC_LZ4;
			stored = room ? squeeze(c->data + offset, room, raw, len) : 0;
			if (!stored)
				return false;
		}
	} else {
		memcpy(c->data + offset, raw, len);
	}
	if (chunk == container_chunk_count(s) - 1)
		s->raw_size = pinfs_put64(chunk * pinfs_get32(s->chunk_size) + len);
	*b = (struct pinfs_block){
		.offset = pinfs_put64(offset),
		.stored = pinfs_put32((uint32_t)stored),
		.raw = pinfs_put32((uint32_t)len | codec << PINFS_BLOCK_CODEC_SHIFT),
		.checksum = pinfs_put64(codec_checksum(c->data + offset, stored)),
	};
	index_seal(c, b);
	return true;
}

void container_seal(struct container *c)
{
	struct pinfs_super *backup = (void *)(c->data + c->size - PINFS_SUPER_SIZE);

	c->super->checksum = pinfs_put64(codec_checksum(c->super, offsetof(struct pinfs_super, checksum)));
	memcpy(backup, c->super, sizeof(*backup));
	backup->is_backup = pinfs_put32(1);
	backup->checksum = pinfs_put64(codec_checksum(backup, offsetof(struct pinfs_super, checksum)));
}
