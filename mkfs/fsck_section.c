/* SPDX-License-Identifier: MIT */
/* Sections for fsck: which of their bytes can be read, and reading them. */
#include "mkfs/fsck_internal.h"

#include "codec/codec.h"

bool fsck_section_readable(struct fsck *f, unsigned type, uint64_t pos, uint64_t len)
{
	const struct image_section *s = fsck_section(f, type);

	if (!s || pos > s->raw_size || len > s->raw_size - pos)
		return false;
	return !len || bitset_all(&f->chunks[f->section_by_type[type]], pos / s->chunk_size,
			(pos + len - 1) / s->chunk_size + 1);
}

uint64_t fsck_section_where(struct fsck *f, unsigned type, uint64_t pos)
{
	const struct image_section *s = fsck_section(f, type);
	struct image_block b;

	if (!s)
		return 0;
	/* Only what is known to succeed: a failure here would hide the one that is being reported. */
	if (pos >= s->raw_size || !bitset_test(&f->chunks[f->section_by_type[type]], pos / s->chunk_size) ||
		image_chunk_info(f->image, (unsigned)f->section_by_type[type], pos / s->chunk_size, &b) < 0)
		return s->index_offset;
	return b.offset;
}

/*
 * image.h gives out decoded structs, no raw bytes; but what a struct does not show (flags that mean nothing, bytes
 * between two sets of attributes) must be looked at as well. The chunk was verified by the store pass.
 */
static int window_load(struct fsck *f, struct fsck_window *w, unsigned type, uint64_t no)
{
	const struct image_section *s = fsck_section(f, type);
	bool filtered = s->filter == PINFS_FILTER_DELTA;
	struct image_block b;
	int r;

	w->loaded = false;
	r = image_chunk_info(f->image, (unsigned)f->section_by_type[type], no, &b);
	if (r == 0)
		r = image_read_raw(f->image, b.offset, b.stored, w->stored);
	if (r == 0)
		r = codec_by_id(b.codec)->decompress(w->stored, b.stored, filtered ? w->plain : w->raw, b.raw);
	if (r < 0)
		return r;
	if (filtered)
		codec_unfilter_delta(w->plain, b.raw, s->record_size, w->raw);
	w->loaded = true;
	w->type = type;
	w->no = no;
	return 0;
}

int fsck_section_read(struct fsck *f, struct fsck_window *w, unsigned type, uint64_t pos, void *buf, size_t len)
{
	const struct image_section *s = fsck_section(f, type);
	uint8_t *out = buf;

	while (len) {
		size_t at = (size_t)(pos % s->chunk_size), n = MIN(len, s->chunk_size - at);
		uint64_t no = pos / s->chunk_size;
		int r = w->loaded && w->type == type && w->no == no ? 0 : window_load(f, w, type, no);

		if (r < 0)
			return r;
		memcpy(out, w->raw + at, n);
		out += n;
		pos += n;
		len -= n;
	}
	return 0;
}
