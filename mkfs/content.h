/* SPDX-License-Identifier: MIT */
/*
 * content: reads files from the first byte to the last, for tools: many blocks with one read, the block that small
 * files share only once, holes told apart.
 *
 * Used by: mkfs (extract), cli. Uses: image, base. Not thread safe: each thread has its own reader.
 */
#ifndef PINFS_MKFS_CONTENT_H
#define PINFS_MKFS_CONTENT_H

#include "image/image.h"

struct content_reader;

int content_reader_new(struct image *image, struct content_reader **ret);
void content_reader_free(struct content_reader *reader);

struct content_piece {
	uint64_t offset, length; /* of the file; length is at least 1 */
	const uint8_t *data;	 /* NULL: a hole, or not readable; valid until the next call */
	int error;		 /* -errno: these bytes can't be read */
};

/*
 * The longest piece that begins at offset and is all of one kind; offset < end <= inode->size. A piece of data has
 * at most 1 MiB. Returns 0, also for a piece that can't be read, whose error is then set; or -errno where not even
 * the map of the file can be read.
 */
int content_next(struct content_reader *reader, const struct image_inode *inode, uint64_t offset, uint64_t end,
	struct content_piece *ret);

#endif
