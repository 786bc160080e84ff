/* SPDX-License-Identifier: MIT */
/* Sections for fsck: which of their bytes can be read, and reading them. */
#include "mkfs/fsck_internal.h"

/* For section_read() alone: format.h lets mkfs see raw structs, image.h has no reader for them. */
#include "image/internal.h"

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

int fsck_section_read(struct fsck *f, unsigned type, uint64_t pos, void *buf, size_t len)
{
	return section_read(f->image, type, pos, buf, len);
}
