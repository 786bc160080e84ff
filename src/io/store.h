/* SPDX-License-Identifier: MIT */
/*
 * store: a file that is read, written and flushed; nothing of its meaning. What a delta lies in.
 *
 * Used by: delta, tests. Uses: base.
 *
 * Reads and writes go through the kernel's page cache, so it works on every filesystem, and a frame of the log that was
 * written survives the death of the process; but much that is written at once, from and to a page's boundary, goes past the
 * cache where the filesystem allows that (O_DIRECT), which is several times faster. It is not durable before the next flush either. Everything is thread safe. Errors are returned as -errno.
 *
 * What lies below is a table: tests record what is written (and cut the power at any point of it), or make it fail.
 */
#ifndef PINFS_IO_STORE_H
#define PINFS_IO_STORE_H

#include "base/util.h"

struct store;

struct store_ops {
	/* Contracts of pread(2) and pwrite(2) with -errno; beyond the end there is nothing. */
	ssize_t (*pread)(void *context, void *buf, size_t len, uint64_t offset);
	ssize_t (*pwrite)(void *context, const void *buf, size_t len, uint64_t offset);
	/* What was written before is durable when it returns. */
	int (*flush)(void *context);
	/* What was written lately shall be on its way to the disk; no promise. May be NULL. */
	void (*hurry)(void *context, uint64_t offset, uint64_t len);
	/* The bytes are not needed any more: they read as zeroes, and their place goes back to the disk. */
	int (*punch)(void *context, uint64_t offset, uint64_t len);
	/* Writing there can't fail for want of space afterwards. -EOPNOTSUPP: nobody can promise that. */
	int (*allocate)(void *context, uint64_t offset, uint64_t len);
	/* Bytes that the disk could still take. */
	int (*available)(void *context, uint64_t *ret);
	/* From `offset` on: the first byte that was never written, or given back. */
	int (*hole)(void *context, uint64_t offset, uint64_t *ret);
	/* The first run behind `offset` that has its place on the disk and is written there, so that it needs no more. -ENXIO: there is none. May be NULL. */
	int (*placed)(void *context, uint64_t offset, uint64_t *ret_first, uint64_t *ret_len);
	void (*close)(void *context);
};

enum {
	STORE_CREATE = 1u << 0,	   /* a new file, of mode 0600; -EEXIST */
	STORE_READ_ONLY = 1u << 1,
};
/*
 * Opens a file and locks it, so that nobody else writes it at the same time: -EBUSY (read-only: somebody writes it). It is close-on-exec. -EISDIR, -ENOTBLK: no regular file.
 * One that is there, to be written, is synced first: what is read is what the disk has. -EIO, -ENOSPC, …: it can't be.
 */
int store_open(const char *path, unsigned flags, struct store **ret);
/*
 * The name of a new file is durable, as its content is after a flush. Where its directory can't be opened or flushed, as on some filesystems,
 * nobody can do more: that is no error.
 */
int store_sync_name(const char *path);
/* A file without a name in the directory `dir`: it goes with the last descriptor. */
int store_open_unnamed(const char *dir, struct store **ret);
int store_open_ops(const struct store_ops *ops, void *context, uint64_t size, struct store **ret);
/* NULL is allowed. */
void store_close(struct store *store);

/* Bytes of the file when it was opened. */
uint64_t store_size(const struct store *store);

/* All of it, or an error. What lies beyond the end is zero. */
int store_read(struct store *store, uint64_t offset, void *buf, size_t len);
/* All of it, or an error: then any part of it may have been written. */
int store_write(struct store *store, uint64_t offset, const void *buf, size_t len);
int store_flush(struct store *store);
void store_hurry(struct store *store, uint64_t offset, uint64_t len);
int store_punch(struct store *store, uint64_t offset, uint64_t len);
int store_allocate(struct store *store, uint64_t offset, uint64_t len);
int store_available(struct store *store, uint64_t *ret);
int store_hole(struct store *store, uint64_t offset, uint64_t *ret);
/* -EOPNOTSUPP: nobody knows. */
int store_placed(struct store *store, uint64_t offset, uint64_t *ret_first, uint64_t *ret_len);

struct store_stats {
	uint64_t reads, read_bytes, writes, written_bytes, flushes, punched_bytes;
};
void store_get_stats(const struct store *store, struct store_stats *ret);

#endif
