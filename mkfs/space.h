/* SPDX-License-Identifier: MIT */
/*
 * space: where the bytes of an image went. Everything that is stored (superblocks, index pages, chunks of sections,
 * data blocks) as ranges in ascending order, whatever order the descriptors have, in bounded memory.
 *
 * Used by: fsck (overlaps, padding), dump (the map). Uses: image, base.
 */
#ifndef PINFS_MKFS_SPACE_H
#define PINFS_MKFS_SPACE_H

#include "image/image.h"

enum space_kind {
	SPACE_SUPER,
	SPACE_BACKUP,
	SPACE_INDEX, /* one page, or with `merge` a section's whole index */
	SPACE_CHUNK,
	SPACE_BLOCK,
	SPACE_GAP,   /* what is left; space_walk() doesn't give these */
	SPACE_KINDS,
};

/* [offset, offset + length) of the image: things number first, first + 1, …, one right after the other. */
struct space_range {
	uint64_t offset, length;
	uint64_t first;
	uint32_t count;
	uint8_t kind;	 /* enum space_kind */
	uint8_t section; /* SPACE_INDEX, SPACE_CHUNK: index into image_info.sections */
};

struct space_options {
	bool metadata_only; /* without data blocks */
	bool merge;	    /* neighbours of one kind, in number and in place, become one range */
	/* Asked now and then, if not NULL: true ends the walk with -ECANCELED. */
	bool (*cancelled)(void *context);
};

/*
 * Calls fn for each range, in ascending order of offset, then of kind and number; a result other than 0 ends the
 * walk and becomes its result. What can't be decoded is left out, after the image's on_damage was called; then
 * *ret_chunks_missing or *ret_blocks_missing becomes true, before fn is called for the first time. -ENOMEM.
 */
int space_walk(struct image *image, const struct space_options *options,
	int (*fn)(void *context, const struct space_range *range), void *context, bool *ret_chunks_missing,
	bool *ret_blocks_missing);

/* "chunk 3 of section 'inodes'" into buf; returns buf. */
char *space_describe(const struct image_info *info, const struct space_range *range, char *buf, size_t size);

#endif
