/* SPDX-License-Identifier: MIT */
/*
 * packed: a delta as fuzzers have it, whose log would be a megabyte of zeroes: a magic, then its pages that are not zero, each behind its number
 * (4 bytes, little-endian), in ascending order. And a disk in memory that holds one.
 */
#ifndef PINFS_TESTS_FUZZ_PACKED_H
#define PINFS_TESTS_FUZZ_PACKED_H

#include "fuzz.h"
#include "io/store.h"

#define PACKED_MAGIC "PDELTA1\n"
#define PACKED_MAGIC_SIZE 8u
#define PACKED_ENTRY (4u + PINFS_PAGE_SIZE)
/* Pages of the disk. */
#define PACKED_PAGES 4096u

struct packed {
	uint8_t *pages[PACKED_PAGES]; /* NULL: zero */
	uint64_t size;		      /* bytes */
};

/* false: it is none; then there is nothing to free. What can't be is left out. */
bool packed_open(struct packed *p, const uint8_t *data, size_t size);
void packed_copy(const struct packed *p, struct packed *ret);
void packed_free(struct packed *p);
/* Into `to`; 0: there is no room. */
size_t packed_save(const struct packed *p, uint8_t *to, size_t capacity);
/* false: beyond the end. */
bool packed_get(const struct packed *p, uint64_t offset, void *buf, size_t len);
bool packed_put(struct packed *p, uint64_t offset, const void *buf, size_t len);
/* A store on it; closing it changes nothing. */
struct store *packed_store(struct packed *p);

#endif
