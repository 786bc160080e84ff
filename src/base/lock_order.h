/* SPDX-License-Identifier: MIT */
/*
 * The order of locks, as a table that is executed: the validator behind base/sync.h refuses to take a lock that does
 * not lie further down than all that the thread holds, and to sleep or allocate under one that does not allow it.
 *
 * Used by: all layers, through base/sync.h. The validator runs in all builds with assertions (meson: lock_checks).
 *
 * A class may be taken under any class above it in the list. Two locks of one class are never held at once, unless
 * the table says so. "sleeps": it may be held over I/O, waiting and allocation; all others are dropped before.
 */
#ifndef PINFS_BASE_LOCK_ORDER_H
#define PINFS_BASE_LOCK_ORDER_H

#include <stdbool.h>

/*	class		sleeps	nests	what it guards */
#define LOCK_CLASSES(X)                                                                              \
	X(DIRECTORY,	true,	false,	"the names of a directory (src/vfs)")                            \
	X(INODE,	true,	true,	"content and size of a file (src/vfs); nests in ascending order of numbers")                       \
	X(FOLIO,	true,	true,	"a folio's pages: who reads, cleans or removes them; nests in ascending order") \
	X(RMAP,		true,	false,	"the list of address ranges that map a file (src/cache)")        \
	X(PROCESS,	true,	false,	"what a process has mapped (src/mm/uffd.c)")                     \
	X(CHECKPOINT,	true,	false,	"who makes a checkpoint (src/delta)")                            \
	X(DELTA,	true,	false,	"the items of a delta, its log and its space (src/delta)")       \
	X(FLUSH,	false,	false,	"who flushes a delta, and who waits for that (src/delta)")       \
	X(NODES,	false,	false,	"which files are open or known (src/vfs)")                       \
	X(INDEX,	false,	false,	"a mapping's folios and their marks (src/cache)")                \
	X(MM,		false,	false,	"the address ranges of a process (src/mm); sets the thread's flag") \
	X(PT,		false,	true,	"a table of page table entries (src/mm); fork nests parent, child") \
	X(RECLAIM,	false,	false,	"the queues of folios that reclaim looks at (src/cache)")        \
	X(CACHE_SHARD,	false,	false,	"blocks and their queues (src/cache)")                           \
	X(CACHE_WAIT,	false,	false,	"those who wait for memory, and reservations (src/cache)")       \
	X(READAHEAD,	false,	false,	"streams and the queue of work (src/cache)")                     \
	X(ARENA,	false,	false,	"free page memory (src/cache)")                                  \
	X(CHUNK_CACHE,	false,	false,	"decoded metadata (src/image)")                                  \
	X(LANES,	false,	false,	"rings and buffers that are free (src/io)")                      \
	X(THREAD,	false,	false,	"when a thread in the background has something to do (src/delta, src/vfs, src/fuse)") \
	X(QUEUE,	false,	false,	"work for threads (mkfs)")                                       \
	X(TEST,		false,	false,	"what tests guard for themselves")

enum lock_class {
#define LOCK_CLASS_ENUM(name, sleeps, nests, what) LOCK_##name,
	LOCK_CLASSES(LOCK_CLASS_ENUM)
#undef LOCK_CLASS_ENUM
	LOCK_CLASS_COUNT
};

struct lock_class_info {
	const char *name, *what;
	bool sleeps, nests;
};
const struct lock_class_info *lock_class_info(enum lock_class class);

#endif
