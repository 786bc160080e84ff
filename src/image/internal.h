/* SPDX-License-Identifier: MIT */
/* What the files of src/image share. */
#ifndef PINFS_IMAGE_INTERNAL_H
#define PINFS_IMAGE_INTERNAL_H

#include "base/log.h"
#include "base/sync.h"
#include "image/image.h"

#define CHUNK_CACHE_DEFAULT (8u << 20)
#define CHUNK_BUCKETS 512u /* a power of two */

/*
 * A decoded chunk of a section, or an index page. Referenced by whoever uses it and once by the cache; its bytes
 * never change. Freed with the last reference.
 */
struct image_chunk {
	uint64_t key;		  /* section index, index page or chunk, number: see chunk_key() */
	atomic_uint refs;
	bool visited;		  /* chunk cache lock: second chance of the clock */
	struct image_chunk *next; /* chunk cache lock: in its bucket */
	size_t len;
	uint8_t data[];
};

struct chunk_cache {
	struct mutex lock;
	struct image_chunk *buckets[CHUNK_BUCKETS];
	struct image_chunk **slots; /* the clock: every chunk in the cache */
	size_t slot_count, hand;
};

struct image {
	struct io_file *io;
	struct image_options options;
	struct image_info info;
	int section_by_type[PINFS_SECTION_TYPES]; /* index into info.sections, or -1 */
	struct chunk_cache cache;
};

/* The one place where damage is raised: reports and returns -EUCLEAN. offset: byte in the image. */
int image_damaged(struct image *image, uint64_t offset, const char *fmt, ...) _printf_(3, 4);

/* io_read() of image bytes; a failed read is reported like damage, and is -EIO or -ENOMEM. */
int image_io_read(struct image *image, uint64_t offset, size_t len, struct io_span *ret);

int chunk_cache_init(struct chunk_cache *cache, size_t bytes);
void chunk_cache_destroy(struct chunk_cache *cache);

/* A reference to chunk chunk_no of the section of this type; -EUCLEAN if the section has no such chunk. */
int section_chunk_get(struct image *image, unsigned type, uint64_t chunk_no, struct image_chunk **ret);
void section_chunk_put(struct image_chunk *chunk);
/* NULL if the image has no such section. */
const struct image_section *section_get(const struct image *image, unsigned type);
/* Copies [pos, pos + len) of the section's raw bytes. */
int section_read(struct image *image, unsigned type, uint64_t pos, void *buf, size_t len);
/* Where in the image a byte of a section is kept, for messages: the offset of its chunk, 0 if unknown. */
uint64_t section_where(struct image *image, unsigned type, uint64_t pos);

/* Decodes and checks the superblock. error as in image_open(). */
int super_decode(const struct pinfs_super *sb, bool no_verify, struct image_info *ret, char error[IMAGE_ERROR_SIZE]);
/* Decodes one descriptor; raw_max: largest raw size that is allowed. limits: [low, high) for its stored bytes. */
int block_decode(struct image *image, const struct pinfs_block *b, uint64_t where, uint32_t raw_max, uint64_t low,
	uint64_t high, struct image_block *ret);

#endif
