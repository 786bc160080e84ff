/* SPDX-License-Identifier: MIT */
/*
 * What the unit tests share: cmocka with its headers, a temporary directory, running mkfs.pinfs, guard pages, and
 * taking an image apart and putting it together again with something changed (forge).
 */
#ifndef PINFS_TESTS_SUPPORT_H
#define PINFS_TESTS_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/util.h"
#include "pinfs/format.h"

/* For threads and child processes, which can't use cmocka's assertions: ends the whole test program. */
#define must(condition)                                                                              \
	do {                                                                                         \
		if (!(condition)) {                                                                  \
			fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #condition);    \
			abort();                                                                     \
		}                                                                                    \
	} while (0)

/* A sequence of numbers that is the same in each run. */
struct rng {
	uint64_t state;
};
uint64_t rng_next(struct rng *rng);
/* 0 to below - 1. */
uint64_t rng_below(struct rng *rng, uint64_t below);
/* Text-like bytes that compress about two to one. */
void rng_text(struct rng *rng, uint8_t *buf, size_t len);
void rng_bytes(struct rng *rng, uint8_t *buf, size_t len);

/* A directory that is there until support_end(); the same one for the whole test program. */
const char *temp_dir(void);
/* "DIR/name", in a buffer of its own; free with free(). */
char *temp_path(const char *name);
/* Removes the directory. For the group's teardown. */
int support_end(void **state);

void write_file(const char *path, const void *data, size_t len);
uint8_t *read_file(const char *path, size_t *ret_len);
void remove_tree(const char *path);

/* Runs fn in a child process; true if it came back (with must() it doesn't). */
bool in_child(void (*fn)(void *context), void *context);

/* Runs mkfs.pinfs (the environment's PINFS_MKFS, else the one of this build) with -q -f and these arguments, up to NULL; returns its exit status. */
int mkfs(const char *arg, ...) __attribute__((sentinel));

/*
 * `len` bytes right before a page that can't be touched, or right after one: what reads or writes over the edge is
 * killed by SIGSEGV. Free with guard_free().
 */
struct guard {
	uint8_t *data;
	size_t len;
	void *map;
	size_t map_len;
};
struct guard guard_new(size_t len, bool at_end);
void guard_free(struct guard *guard);

/*
 * An image taken apart: the superblock and the raw bytes of each section. A test changes what it likes, and
 * forge_build() makes an image with correct checksums of it: the data area as it was, then chunks stored raw, index
 * pages, superblock. Made for one page of sizes: everything is in memory.
 */
struct forge {
	struct pinfs_super super;
	struct {
		uint8_t *raw;
		size_t size;
	} sections[PINFS_SECTION_TYPES];
	uint8_t *data; /* bytes of the image from PINFS_SUPER_SIZE to data_end */
	size_t data_len;
	/* For changes that the superblock's fields and the sections can't express; may be NULL. Called before checksums
	 * are made. */
	void (*change_section)(struct pinfs_section *section, void *context);
	void (*change_index)(struct pinfs_index_page *page, void *context);
	void *context;
	bool keep_super; /* sizes, counts and section table of the superblock stay as they are in `super` */
};
/* From an image in a file, at its beginning. */
void forge_open(const char *path, struct forge *ret);
void forge_free(struct forge *forge);
struct pinfs_inode *forge_inode(struct forge *forge, uint32_t ino);
struct pinfs_block *forge_block(struct forge *forge, uint32_t block);
/* Appends to a section; returns the position. */
size_t forge_add(struct forge *forge, unsigned type, const void *data, size_t len);
/* The bytes of the new image; free() them. */
uint8_t *forge_build(const struct forge *forge, size_t *ret_len);
/* Makes the checksum of a superblock right. */
void super_seal(struct pinfs_super *super);

#endif
