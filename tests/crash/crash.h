/* SPDX-License-Identifier: MIT */
/* What the parts of the crash checker share: crash.c chooses workloads, points.c their crash points and states. */
#ifndef PINFS_TESTS_CRASH_CRASH_H
#define PINFS_TESTS_CRASH_CRASH_H

#include "ops.h"

/*
 * What a delta is in the beginning: not there; new; used, with a log that will soon go round; the same, and the log not empty; nearly full, with free
 * pages here and there.
 */
#define BASES 5u
#define BASE_FULL 4u

struct workload {
	unsigned base;
	unsigned ops[OPS_MAX];
	unsigned count;
	unsigned from; /* crash points from this operation on, counted from 1; 0: all. Others are looked at elsewhere. */
};

struct totals {
	uint64_t workloads, points, states, opened, violations;
};
extern struct totals totals;

struct options {
	uint64_t seed, random, from;
	unsigned part, parts; /* this one of so many parts of the sequences */
	unsigned sequences, seconds, per_point, most_violations;
	unsigned all;	 /* so many writes: all their subsets */
	unsigned torn;	 /* states with torn writes at each point */
	unsigned go_on;	 /* of so many states one is written on */
	unsigned nested; /* of so many states one is crashed again */
	const char *replay, *keep, *mutant;
	bool quiet;
};
extern struct options options;

extern uint8_t *image_bytes;
extern size_t image_size;

const char *workload_text(const struct workload *workload);
void set_current(const struct workload *workload, const char *where);
void violation(const struct workload *workload, const char *where, const char *text);
bool time_is_up(void);

/* ---- points.c ---- */

void bases_make(void);
void bases_free(void);
/* Only this crash point, and state: what is behind the @ of an ID. */
void replay_at(const char *where);
void workload_run(const struct workload *workload);

/* ---- wraps.c ---- */

/* Time and random numbers begin anew, and are the same each time. */
void world_reset(uint64_t seed);
/* Gives back what is kept from one to the next. */
void world_end(void);
/* What is logged as an error is a problem from now on. NULL: nobody wants to know. */
void watch_errors(struct problem *problem);
int mutant_choose(const char *name);
/* Transactions count as so many times longer than they are: what takes several of them does so with little. */
extern unsigned txn_scale;
/* A page of this file, which has one, is synced as if by another thread in the middle of the next checkpoint. 0: no */
extern uint64_t race_ino;
/* The disk was too full for it: nothing was written. */
extern bool race_lost;
enum { MUTANT_NONE, MUTANT_NOFLUSH, MUTANT_SUPERFLUSH, MUTANT_VERIFY, MUTANT_STRICT, MUTANT_REUSE };
extern int mutant;

#endif
