/* SPDX-License-Identifier: MIT */
/*
 * A disk in memory, for a delta to lie in: of bounded size, with reads, writes, flushes and promises that fail when they are told to,
 * short reads and writes, and flushes that wait to be let go. It outlives the stores that are opened on it. Thread safe.
 */
#ifndef PINFS_TESTS_MEMSTORE_H
#define PINFS_TESTS_MEMSTORE_H

#include <pthread.h>

#include "delta/delta.h"
#include "io/store.h"

enum memstore_op { MEM_READ, MEM_WRITE, MEM_FLUSH, MEM_PUNCH, MEM_ALLOCATE, MEM_OPS };

struct memstore {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	uint8_t **pages; /* NULL: never written, or given back */
	bool *backed;
	uint64_t count, size, taken, capacity; /* pages; size in bytes */
	bool read_only;			       /* whatever would change it is -EBADF */
	struct {
		uint64_t count;	  /* calls so far */
		uint64_t fail_at; /* the n-th call from then on fails; 0: none */
		int error;
		bool forever; /* and all that follow */
	} ops[MEM_OPS];
	unsigned jitter; /* of so many reads and writes one is short, one interrupted; 0: none */
	uint64_t dice;
	bool hold; /* flushes wait */
	unsigned waiting;
};

/* capacity: pages; 0: more than any test needs. */
void memstore_init(struct memstore *m, uint64_t capacity);
void memstore_destroy(struct memstore *m);
/* A store on it. Closing it changes nothing. */
struct store *memstore_open(struct memstore *m);
/* The n-th call from now on fails (1: the next one); 0: none does any more. */
void memstore_fail(struct memstore *m, enum memstore_op op, uint64_t n, int error, bool forever);
uint64_t memstore_count(struct memstore *m, enum memstore_op op);
/* All flushes wait, or go on. */
void memstore_hold(struct memstore *m, bool hold);
/* Waits until so many flushes wait. */
void memstore_wait_flushes(struct memstore *m, unsigned n);
/* Bytes as they lie there, to look at and to damage. */
void memstore_get(struct memstore *m, uint64_t offset, void *buf, size_t len);
void memstore_put(struct memstore *m, uint64_t offset, const void *buf, size_t len);
/* The same bytes on a disk of their own. */
void memstore_clone(struct memstore *m, struct memstore *ret);
/* The same, as a program copies them that leaves out zeroes, and then the disk is full. */
void memstore_clone_full(struct memstore *m, struct memstore *ret);

/*
 * Makes a checkpoint and looks at every item of a delta: extents of a file don't overlap, each inode counts its pages, each page of the delta is
 * referred to as often as its count says, and the pages that are used are these, the nodes of the tree, and the map. Ends the program if not.
 */
void delta_account(struct delta *d);

#endif
