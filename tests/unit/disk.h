/* SPDX-License-Identifier: MIT */
/*
 * A disk of a few pages, as the owner of a mapping: counts what was reserved, checks that bytes don't change while they are
 * written, and fails as it is told. Thread safe.
 */
#ifndef PINFS_TESTS_DISK_H
#define PINFS_TESTS_DISK_H

#include "base/sync.h"
#include "cache/cache.h"

#define DISK_PAGES 64u
#define DISK_PAGE 4096u

struct disk {
	struct mutex lock;		      /* of the bytes */
	uint8_t bytes[DISK_PAGES][DISK_PAGE]; /* page n begins as n + 1 in each byte */
	struct a32 reserved[DISK_PAGES];
	unsigned unit_pages;			      /* of the mapping */
	struct a32 fail_reads, fail_writes, no_space; /* all do, until that is over */
	struct a32 fail_page;		      /* writes of this page fail; counted from 1, 0: none */
	void (*during_write)(void *context);	      /* called before something is written; may be NULL */
	void *context;
	struct a32 writes, reads;		      /* pages */
};

extern const struct cache_ops disk_ops;
struct disk *disk_new(unsigned unit_pages);
/* The first word of a page. */
uint64_t disk_word(const struct disk *disk, unsigned page);

#endif
