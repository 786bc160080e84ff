/* SPDX-License-Identifier: MIT */
/*
 * io: bytes of an image file, and nothing of their meaning.
 *
 * Used by: image, mkfs, tests. Uses: base.
 *
 * A read goes through a lane: an io_uring with one registered, page-aligned buffer and the file registered; where
 * io_uring is not permitted (ENOSYS, EPERM, no locked memory), the same buffer and pread(2). Lanes are made when
 * needed, at most `lanes` of them; a reader that finds none free waits for one. With O_DIRECT the aligned range
 * around what was asked is read, so the caller never sees alignment.
 *
 * The file is never mapped: a file that shrinks or a device that vanishes gives -EIO, never SIGBUS.
 *
 * Every function is thread safe unless it says otherwise. Errors are returned as -errno.
 */
#ifndef PINFS_IO_IO_H
#define PINFS_IO_IO_H

#include "base/util.h"

struct io_file;

enum io_engine {
	IO_ENGINE_AUTO,	 /* io_uring, or pread where that is not permitted */
	IO_ENGINE_URING, /* io_uring, or fail */
	IO_ENGINE_PREAD,
};

enum io_caching {
	IO_CACHING_AUTO,     /* O_DIRECT where the file allows it */
	IO_CACHING_DIRECT,   /* O_DIRECT, or fail */
	IO_CACHING_BUFFERED, /* through the kernel's page cache */
};

struct io_options {
	enum io_engine engine;
	enum io_caching caching;
	unsigned lanes;	   /* most reads under way at once; 0: 8 */
	size_t max_read;   /* longest single read; 0: 1 MiB. A lane's buffer has this size and two pages */
};

/*
 * Opens path for reading. The descriptor is close-on-exec. Refuses what is neither a regular file nor a block
 * device: -EISDIR for a directory, -ENOTBLK for anything else. IO_ENGINE_URING where io_uring is not to be had
 * gives the reason's error (-EPERM, -ENOSYS). Free with io_close().
 */
int io_open(const char *path, const struct io_options *options, struct io_file **ret);

/* The bytes at data, which must stay valid until io_close(): for fuzzers and unit tests. */
int io_open_memory(const void *data, size_t size, struct io_file **ret);

/* A source below the file, for tests that inject faults. pread has the contract of pread(2) with -errno. */
struct io_source {
	ssize_t (*pread)(void *context, void *buf, size_t len, uint64_t offset);
	void *context;
	uint64_t size;
};
int io_open_source(const struct io_source *source, const struct io_options *options, struct io_file **ret);

/* NULL is allowed. No read may be under way. */
void io_close(struct io_file *file);

/* Changes the longest single read; only before the first read (mount learns the block size from the image). */
void io_set_max_read(struct io_file *file, size_t max_read);
size_t io_max_read(const struct io_file *file);

/* Size in bytes when the file was opened. */
uint64_t io_size(const struct io_file *file);
/* Of the underlying file, or -1: for fstat and for mapping XIP ranges. Stays owned by file. */
int io_fd(const struct io_file *file);

struct io_span {
	const uint8_t *data; /* the len bytes that were asked for, until io_span_put() */
	void *lane;
};

/*
 * Reads exactly [offset, offset + len), len at most max_read, into a lane's buffer. Past the end of the file, also
 * when it has shrunk since: -EIO. Sleeps. The caller holds no lock. A thread that holds a span must not ask for
 * another one (the lanes are bounded).
 */
int io_read(struct io_file *file, uint64_t offset, size_t len, struct io_span *ret);
void io_span_put(struct io_file *file, struct io_span *span);

/* "io_uring, O_DIRECT": what reads really use, once there was one; before that what was asked for. */
const char *io_describe(const struct io_file *file);

struct io_stats {
	uint64_t reads, bytes, errors;
};
void io_get_stats(const struct io_file *file, struct io_stats *ret);

#endif
