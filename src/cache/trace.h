/* SPDX-License-Identifier: MIT */
/*
 * trace: what happened, as binary events in a ring. Off, an event costs one load of a word that nobody writes; on, a
 * ticket and 40 bytes. The ring takes no memory until it is switched on.
 *
 * Used by: cache, mm, and whoever shows it; trace_file.h writes it to a file. Uses: base.
 *
 * Writers never wait, nor do readers: what is overwritten before it was read is counted as lost (the sequence numbers
 * tell). In the explorer events are lines of its stories instead.
 */
#ifndef PINFS_CACHE_TRACE_H
#define PINFS_CACHE_TRACE_H

#include "base/sync.h"
#include "base/util.h"

/*	event			what its two numbers are; _begin and _end are a span */
#define TRACE_EVENTS(X)                                                                              \
	X(access, "unit", "use")                                                                         \
	X(put, "unit", "use")                                                                            \
	X(read_begin, "unit", "units")                                                                   \
	X(read_end, "unit", "errno")                                                                     \
	X(mkwrite, "page", "pages")                                                                      \
	X(mkclean, "page", "pages")                                                                      \
	X(writeback_begin, "page", "pages")                                                              \
	X(writeback_end, "page", "errno")                                                                \
	X(bounce, "page", "pins")                                                                        \
	X(pin, "frame", "pins")                                                                          \
	X(unpin, "frame", "pins")                                                                        \
	X(detach, "page", "pages")                                                                       \
	X(park, "frame", "pages")                                                                        \
	X(reclaim, "unit", "pages")                                                                      \
	X(fault_begin, "address", "write")                                                               \
	X(fault_end, "address", "result")                                                                \
	X(fork_copy, "address", "pins")

enum trace_type {
#define TRACE_ENUM(name, a, b) TRACE_##name,
	TRACE_EVENTS(TRACE_ENUM)
#undef TRACE_ENUM
	TRACE_TYPES
};

struct trace_event {
	uint64_t time; /* now_ns() */
	uint32_t thread;
	enum trace_type type;
	uint64_t a, b;
};

/* What an access finds: the unit; somebody who is reading it; nothing. */
enum trace_found { TRACE_HIT, TRACE_WAITED, TRACE_MISSED };

/* The second number of `access` and `put`. */
struct trace_use {
	uint32_t mapping; /* its number, from 1 */
	unsigned run;	  /* units that the reader wants in a row, this one included; 0 with put */
	unsigned pages;	  /* of the unit: the last one of a file may be short */
	unsigned what;	  /* enum trace_found; put: enum cache_hint */
};
static inline uint64_t trace_use_pack(struct trace_use u)
{
	return (uint64_t)u.mapping << 32 | (uint64_t)MIN(u.run, 0xffffu) << 16 | (u.pages & 0x3fff) << 2 | (u.what & 3);
}
static inline struct trace_use trace_use_unpack(uint64_t b)
{
	return (struct trace_use){(uint32_t)(b >> 32), (unsigned)(b >> 16) & 0xffff, (unsigned)(b >> 2) & 0x3fff, b & 3};
}

/*
 * An event in the ring. Writers of the same slot are a whole ring apart; if the earlier one has not ended yet, the later
 * one gives up its event, and if it has not begun, the earlier one.
 */
struct trace_slot {
	struct a64 seq; /* 1 + its number once it is whole; TRACE_BUSY while it is written */
	struct a64 time, who, a, b;
};
#define TRACE_BUSY UINT64_MAX

struct trace {
	uint8_t apart[64]; /* what others write often is in another cache line than `on` */
	struct a32 on;
	unsigned shift;
	struct trace_slot *slots; /* 2^shift; NULL before it is on for the first time */
	uint8_t apart_too[64];
	struct a64 next; /* number of the next event */
};

/* A ring of 2^shift events; off. */
void trace_init(struct trace *trace, unsigned shift);
void trace_destroy(struct trace *trace);
/* One caller at a time. 0 or -ENOMEM. */
int trace_switch(struct trace *trace, bool on);
/*
 * The first event from number *next on that is still there; *next is then the one after it, and *lost has grown by those
 * left out. False: no more so far.
 */
bool trace_read(struct trace *trace, uint64_t *next, uint64_t *lost, struct trace_event *ret);
/* The number that the next event will get. */
uint64_t trace_end(const struct trace *trace);
const char *trace_name(enum trace_type type);
/* What the two numbers are. */
void trace_fields(enum trace_type type, const char **ret_a, const char **ret_b);

#ifdef PINFS_EXPLORE
#define trace_event(trace, name, a, b) explore_note("%s %ju %ju", #name, (uintmax_t)(a), (uintmax_t)(b))
#else
void trace_record(struct trace *trace, enum trace_type type, uint64_t a, uint64_t b);
#define trace_event(trace, name, a, b)                                                  \
	do {                                                                            \
		if (__builtin_expect(a32_read(&(trace)->on), 0))                        \
			trace_record((trace), TRACE_##name, (uint64_t)(a), (uint64_t)(b)); \
	} while (0)
#endif

#endif
