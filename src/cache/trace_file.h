/* SPDX-License-Identifier: MIT */
/*
 * trace_file: events of the ring in a file, to be looked at and replayed elsewhere (tests/bench/replay.c).
 *
 * Used by: cli (mount -o trace=), tests. Uses: base.
 *
 * The file, version 1; numbers are little-endian, `varint` is LEB128 of at most 10 bytes, `signed` a varint of
 * (n << 1) ^ (n >> 63):
 *
 *	8 bytes		"pinfstrc"
 *	4 bytes		version
 *	4 bytes		bytes of a page
 *	1 byte		number of types, at most TRACE_FILE_TYPES
 *	for each	three strings, each ended by a zero byte: the type's name, and what its numbers a and b are
 *	records		until one that is TRACE_FILE_END
 *
 * A record is an event:
 *
 *	1 byte		its type (the place in the list above), and which of the following differ from the event before
 *	signed		TRACE_FILE_TIME: microseconds since it
 *	varint		TRACE_FILE_THREAD: the thread
 *	signed		a, less that of the last event whose `a` has the same name: a unit that is used and put is a 0
 *	signed		TRACE_FILE_B: b, less that of the last event of this type
 *
 * or one of these, of one byte and what follows:
 *
 *	TRACE_FILE_LOST	varint: so many events are missing here
 *	TRACE_FILE_END	varint, varint: events in the file, and those lost. Nothing comes after it. A file without it was
 *			cut short: the program was killed, or there was no space
 *
 * All differences wrap at 64 bits and begin with 0. Times are since something arbitrary (now_ns()).
 */
#ifndef PINFS_CACHE_TRACE_FILE_H
#define PINFS_CACHE_TRACE_FILE_H

#include "cache/trace.h"

#define TRACE_FILE_MAGIC "pinfstrc"
#define TRACE_FILE_VERSION 1u
#define TRACE_FILE_TYPES 30u
enum {
	TRACE_FILE_LOST = 30,
	TRACE_FILE_END = 31,
	TRACE_FILE_TYPE = 0x1f, /* mask */
	TRACE_FILE_TIME = 0x20,
	TRACE_FILE_THREAD = 0x40,
	TRACE_FILE_B = 0x80,
};
_Static_assert((unsigned)TRACE_TYPES <= TRACE_FILE_TYPES, "a type has five bits");

/* What differences are to. */
struct trace_file_state {
	uint64_t time; /* microseconds */
	uint32_t thread;
	uint64_t a[TRACE_FILE_TYPES]; /* by the first type that gives it the same name */
	uint64_t b[TRACE_FILE_TYPES];
};

/* ---- writing ---- */

struct trace_writer {
	int fd;
	int error; /* the first one; nothing is written after it */
	uint64_t events, lost;
	uint8_t space[TRACE_FILE_TYPES]; /* index of `a` in the state */
	struct trace_file_state state;
	size_t len;
	uint8_t buf[1 << 16];
};
/* Begins the file in an empty one. The descriptor stays the caller's. */
void trace_writer_init(struct trace_writer *writer, int fd);
void trace_writer_event(struct trace_writer *writer, const struct trace_event *event);
void trace_writer_lost(struct trace_writer *writer, uint64_t count);
/* 0 or the first error. */
int trace_writer_flush(struct trace_writer *writer);
int trace_writer_end(struct trace_writer *writer);

/* ---- reading ---- */

struct trace_reader {
	const uint8_t *at, *end;
	uint32_t page_size;
	uint64_t events, lost;
	bool complete; /* has come to TRACE_FILE_END */
	unsigned types;
	int type[TRACE_FILE_TYPES];	 /* what it is here; -1: not known */
	uint8_t space[TRACE_FILE_TYPES];
	struct trace_file_state state;
};
/* The bytes of a file, which stay until the end. -EUCLEAN: it is none. */
int trace_reader_init(struct trace_reader *reader, const void *data, size_t len);
/* 1: *ret is the next event of a known type; 0: no more; -EUCLEAN: it is damaged, or cut short within a record. */
int trace_reader_next(struct trace_reader *reader, struct trace_event *ret);

/* ---- from a ring to a file, while it fills ---- */

struct trace_drain;
struct trace_drain_result {
	uint64_t events, lost;
	int error; /* of writing; then not all of it is there */
};
/* Switches the trace on and starts a thread that writes what happens. fd is the drain's, also on failure. */
int trace_drain_start(struct trace *trace, int fd, struct trace_drain **ret);
/* Switches it off, writes the rest, closes the file. NULL is allowed; ret is untouched then. */
void trace_drain_stop(struct trace_drain *drain, struct trace_drain_result *ret);

#endif
