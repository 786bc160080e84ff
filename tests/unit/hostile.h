/* SPDX-License-Identifier: MIT */
/*
 * What the tests against forgers share: an image with one file of each kind, opening its bytes after a change, and
 * reading all of it. The harness of test_hostile.c and test_hostile_image.c.
 */
#ifndef PINFS_TESTS_HOSTILE_H
#define PINFS_TESTS_HOSTILE_H

#include "support.h"

#include "image/image.h"

#define BLOCK 4096u

/* Made by hostile_setup(): blocks of 4 KiB, stored raw; "xip" in place. */
extern char *image_path;
/* Does the temporary directory keep extended attributes? */
extern bool have_xattrs;

/* For the group of tests. */
int hostile_setup(void **state);
int hostile_teardown(void **state);

/* What the image that was opened last has reported: how often, and the last text; and why it couldn't be opened. */
extern unsigned damages;
extern char last_damage[IMAGE_ERROR_SIZE], open_error[IMAGE_ERROR_SIZE];

/* image_open() of bytes in memory, which must stay there. */
int open_bytes(const uint8_t *bytes, size_t len, uint64_t offset, struct image **ret);

struct opened {
	struct forge forge;
	uint8_t *bytes;
	size_t len;
	struct image *img;
};
/* Opens what the forge makes; it must open. done() undoes build(), done_all() forge_open() as well. */
void build(struct opened *o);
void done(struct opened *o);
void done_all(struct opened *o);

/* The inode of a name that must be there. */
uint32_t look_up(struct image *img, uint32_t dir, const char *name);
/* Reads everything that can be reached, and adds it up; errors count, too. */
uint64_t read_everything(struct image *img, uint64_t *ret_errors);

#endif
