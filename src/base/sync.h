/* SPDX-License-Identifier: MIT */
/*
 * Locks, conditions and threads, by one name each, so that the cache and what stands beside it can be compiled
 * against a second implementation that runs under a deterministic scheduler (DESIGN: the explorer).
 *
 * Lock order, outermost first. A thread that holds a lock may only take locks further down.
 *
 *	cache shard (src/cache)		nothing is done under it but list and hash work
 *	readahead streams (src/cache)	leaf
 *	readahead queue (src/cache)	leaf
 *	memory events (src/cache)	leaf; waited on while a block of one's own is FILLING, with no other reference
 *					than what cache_reserve() allows
 *	reservations (src/cache)	leaf
 *	arena (src/cache)		leaf
 *	chunk cache (src/image)		leaf; never across I/O
 *	ring pool (src/io)		leaf
 *	job queue (mkfs/extract_file.c)	leaf
 *	log				leaf
 *
 * No lock is held across I/O, decompression, a reply to the kernel or a wait for another thread's I/O.
 */
#ifndef PINFS_BASE_SYNC_H
#define PINFS_BASE_SYNC_H

#include <pthread.h>
#include <stdatomic.h>

struct mutex {
	pthread_mutex_t m;
};
struct cond {
	pthread_cond_t c;
};

static inline void mutex_init(struct mutex *m)
{
	pthread_mutex_init(&m->m, NULL);
}
static inline void mutex_destroy(struct mutex *m)
{
	pthread_mutex_destroy(&m->m);
}
static inline void mutex_lock(struct mutex *m)
{
	pthread_mutex_lock(&m->m);
}
static inline void mutex_unlock(struct mutex *m)
{
	pthread_mutex_unlock(&m->m);
}
static inline void cond_init(struct cond *c)
{
	pthread_cond_init(&c->c, NULL);
}
static inline void cond_destroy(struct cond *c)
{
	pthread_cond_destroy(&c->c);
}
static inline void cond_wait(struct cond *c, struct mutex *m)
{
	pthread_cond_wait(&c->c, &m->m);
}
static inline void cond_signal(struct cond *c)
{
	pthread_cond_signal(&c->c);
}
static inline void cond_broadcast(struct cond *c)
{
	pthread_cond_broadcast(&c->c);
}

/* Starts a thread with all signals blocked (the main thread takes them). Returns 0 or -errno. */
int thread_start(pthread_t *ret, void *(*fn)(void *), void *arg);

#endif
