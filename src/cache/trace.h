/* SPDX-License-Identifier: MIT */
/*
 * trace: what happened, as binary events in a ring. Off, an event costs one load of a word that nobody writes; on, a
 * ticket and 40 bytes.
 *
 * Used by: cache, mm, and whoever shows it. Uses: base.
 *
 * Writers never wait, nor do readers: an event that is overwritten while it is read is left out (its sequence number
 * tells). In the explorer events are lines of its stories instead.
 */
#ifndef PINFS_CACHE_TRACE_H
#define PINFS_CACHE_TRACE_H

#include "base/sync.h"
#include "base/util.h"

/*	event			what its two numbers are; _begin and _end are a span */
#define TRACE_EVENTS(X)                                                                              \
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

/* An event in the ring. */
struct trace_slot {
	struct a64 seq; /* 1 + its number once it is whole; 0 while it is written */
	struct a64 time, who, a, b;
};

struct trace {
	struct a32 on;
	struct a64 next;	  /* number of the next event */
	struct trace_slot *slots; /* 2^shift */
	unsigned shift;
};

/* A ring of 2^shift events; off. 0 or -ENOMEM. */
int trace_init(struct trace *trace, unsigned shift);
void trace_destroy(struct trace *trace);
void trace_switch(struct trace *trace, bool on);
/* The first event from number *next on that is still there; *next is then the one after it. False: no more. */
bool trace_read(struct trace *trace, uint64_t *next, struct trace_event *ret);
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
