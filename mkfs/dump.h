/* SPDX-License-Identifier: MIT */
/*
 * dump: the structure of an image, for those who work on the format.
 *
 * Used by: pinfs dump. Uses: image, space, base.
 *
 * Output is text with one field a line, or one JSON object with the same field names. What is damaged is told to the
 * image's on_damage and left out; the rest is shown.
 */
#ifndef PINFS_MKFS_DUMP_H
#define PINFS_MKFS_DUMP_H

#include "image/image.h"

struct dump_options {
	bool json;
	bool super; /* the superblock and the table of sections */
	bool map;   /* what each byte of the image holds */
	uint64_t inode; /* 0: none */
	bool has_block;
	uint64_t block;
};

/*
 * Writes what was asked for to `out`. 0; -ENOENT: there is no such inode or block (nothing was said about it);
 * -EUCLEAN: something could not be shown; other -errno.
 */
int dump_image(struct image *image, const struct dump_options *options, FILE *out);

#endif
