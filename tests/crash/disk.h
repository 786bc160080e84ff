/* SPDX-License-Identifier: MIT */
/*
 * A disk in memory, whose power can fail. It logs what is written to it, and what of that a crash leaves is put together from the log.
 *
 * Pages are shared between a disk and those forked from it: the older one stays unchanged, and is freed last.
 */
#ifndef PINFS_TESTS_CRASH_DISK_H
#define PINFS_TESTS_CRASH_DISK_H

#include "base/util.h"
#include "io/store.h"
#include "pinfs/format.h"

#define DISK_PAGES 4096u
#define DISK_SECTOR 512u

enum event_kind { EVENT_WRITE, EVENT_PUNCH, EVENT_FLUSH, EVENT_MARK };
struct event {
	enum event_kind kind;
	uint64_t offset, len;
	uint8_t *data; /* WRITE */
	int op;	       /* MARK: who made it */
	int what;
};

struct disk {
	uint8_t *pages[DISK_PAGES]; /* NULL: never written */
	bool own[DISK_PAGES];
	uint64_t hashes[DISK_PAGES]; /* of pages that are there, where not stale */
	bool stale[DISK_PAGES];
	uint16_t stales[DISK_PAGES];
	unsigned stale_count;
	uint64_t hash; /* of all of them, as far as not stale */
	uint64_t size;
	bool logging;
	struct event *events;
	size_t count, capacity;
};

struct disk *disk_new(void);
struct disk *disk_fork(const struct disk *from);
/* NULL is allowed. */
void disk_free(struct disk *disk);
/* What is written to the store goes to the disk, which outlives it. */
struct store *disk_store(struct disk *disk);
void disk_mark(struct disk *disk, int op, int what);
/* The bytes, or part of them, of an event: nothing is logged. */
void disk_apply(struct disk *disk, const struct event *event, uint64_t from, uint64_t len);
/* Of its content. */
uint64_t disk_hash(struct disk *disk);
void disk_save(const struct disk *disk, const char *path);

#endif
