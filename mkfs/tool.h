/* SPDX-License-Identifier: MIT */
/*
 * What the tools share: opening an image with messages for people, progress on a terminal, worker threads.
 *
 * Used by: mkfs (all tools), cli. Uses: image, io, base.
 */
#ifndef PINFS_MKFS_TOOL_H
#define PINFS_MKFS_TOOL_H

#include "base/util.h"
#include "image/image.h"

/* fsck(8)'s exit codes; mkfs uses 0, 1 and MKFS_EXIT_CHANGED. */
enum fsck_exit {
	FSCK_OK = 0,
	FSCK_CORRECTED = 1,
	FSCK_UNCORRECTED = 4,
	FSCK_ERROR = 8,
	FSCK_USAGE = 16,
	FSCK_CANCELLED = 32,
};
/* mount(8)'s. */
enum mount_exit {
	MOUNT_OK = 0,
	MOUNT_USAGE = 1,
	MOUNT_SYSTEM = 2,
	MOUNT_USER = 8,
	MOUNT_FAIL = 32,
};

struct tool_damage {
	const char *path;     /* for the messages */
	unsigned long count;  /* damages reported so far; atomic */
	bool quiet;	      /* count only */
};

/*
 * Opens the image in `path`. offset_text: a number of bytes, "auto" or NULL (auto). Says on stderr what is wrong.
 * caching: tools use IO_CACHING_BUFFERED. Damage found later is logged with path and byte and counted in *damage,
 * which must outlive the image. Returns 0 or -errno (already said).
 */
int tool_image_open(const char *path, const char *offset_text, struct tool_damage *damage, struct image **ret);

/* Finds an absolute or relative path inside the image, following no symbolic links. -ENOENT, -ENOTDIR. */
int tool_image_walk(struct image *image, const char *path, struct image_inode *ret);

/* Online processors that this process may use. */
unsigned tool_cpus(void);

/*
 * Runs fn(context, worker) in `threads` threads, worker 0 to threads - 1, and waits for all. With one thread it runs
 * in the caller's. Returns the first error that a worker returned, or -errno if a thread could not be started.
 */
int tool_parallel(unsigned threads, int (*fn)(void *context, unsigned worker), void *context);

enum progress_mode {
	PROGRESS_AUTO, /* if stderr is a terminal */
	PROGRESS_NEVER,
	PROGRESS_ALWAYS,
};

/*
 * One line on stderr, redrawn at most five times a second: "label  41 %  1.2 GiB  310.0 MiB/s  ETA 0:04". Thread
 * safe; progress_add() costs an atomic addition.
 */
struct progress;
/* total: bytes; 0 if unknown. Returns NULL when nothing shall be shown; all functions accept NULL. */
struct progress *progress_begin(enum progress_mode mode, const char *label, uint64_t total);
void progress_set_total(struct progress *progress, uint64_t total);
void progress_add(struct progress *progress, uint64_t bytes);
/* Wipes the line and frees. */
void progress_end(struct progress *progress);

#endif
