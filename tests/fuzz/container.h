/* SPDX-License-Identifier: MIT */
/*
 * container: takes an image apart far enough to tamper with what is inside, and puts it back. Not a second decoder:
 * it only finds sections and chunks, believes whatever it can't disprove, and gives up where a reader would report.
 */
#ifndef PINFS_TESTS_FUZZ_CONTAINER_H
#define PINFS_TESTS_FUZZ_CONTAINER_H

#include "fuzz.h"
#include "pinfs/format.h"

struct container {
	uint8_t *data;
	size_t size, capacity; /* the image's bytes; it may grow to capacity */
	struct pinfs_super *super;
};

/* false: no superblock with sections at the beginning. */
bool container_open(struct container *c, uint8_t *data, size_t size, size_t capacity);

/* A section of this type whose index can be reached, or NULL. */
struct pinfs_section *container_section(struct container *c, unsigned type);
uint64_t container_chunk_count(const struct pinfs_section *section);
/* The descriptor of one chunk in the index, or NULL. */
struct pinfs_block *container_descriptor(struct container *c, const struct pinfs_section *section, uint64_t chunk);

/* The raw bytes of a chunk: decompressed, unfiltered, the caller's to free. NULL: can't be had. */
uint8_t *container_load(struct container *c, const struct pinfs_section *section, uint64_t chunk, size_t *ret_len);
/*
 * Puts raw bytes back, filtered as the section says, stored raw: in place where they fit, else behind everything
 * else (the second superblock moves on). Checksums become right again. A last chunk may change its length; the
 * section then changes too. false: no room.
 */
bool container_store(struct container *c, struct pinfs_section *section, uint64_t chunk, const uint8_t *raw,
	size_t len);

/* Right checksums for the superblock and its copy, which is made anew from it. */
void container_seal(struct container *c);

#endif
