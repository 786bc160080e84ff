/* SPDX-License-Identifier: MIT */
/*
 * base/sync.h for the explorer: the same names and signatures as src/base/sync.h, but every operation stops and asks
 * the scheduler of tests/explore/engine.h. Code under test is compiled with tests/explore/shim before src in the
 * include path. What the operations promise is said in src/base/sync.h; how the explorer carries them out, in engine.h.
 *
 * The operations are macros here, since each names the place it was called from: &mutex_lock does not exist.
 * The order of locks and who may sleep are always checked. thread_start() fails the run: a program's threads are listed.
 */
#ifndef PINFS_BASE_SYNC_H
#define PINFS_BASE_SYNC_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/lock_order.h"
#include "../../engine.h"

/* ---- what the validator knows of this thread ---- */

struct sync_self {
	unsigned mm_held;
	uint32_t held; /* a bit per class */
	uint16_t count[LOCK_CLASS_COUNT];
};
/* Of the thread that runs: the engine changes it with the thread. */
extern struct sync_self sync_self;

/* Always 0 in a run that goes on: the first one ends it. */
uint64_t sync_violations(void);
#define sync_violation(what, class) explore_slept((what), (class), EXPLORE_SITE())
#define sync_may_sleep(what) explore_may_sleep((what), EXPLORE_SITE())
#define sync_check_may_sleep(what) explore_may_sleep((what), EXPLORE_SITE())
/* For locks that are made of words. */
#define sync_lock_taken(class, tried) explore_lock_taken((class), (tried), EXPLORE_SITE())
#define sync_lock_dropped(class) explore_lock_dropped((class), EXPLORE_SITE())

/* ---- mutexes and conditions ---- */

/* Plain data, without pointers. */
struct mutex {
	struct explore_mutex m;
};
struct cond {
	struct explore_cond c;
};

static inline void shim_mutex_init(struct mutex *m, enum lock_class class, const struct explore_site *site)
{
	explore_mutex_init(&m->m, class, site);
}
static inline void shim_mutex_destroy(struct mutex *m, const struct explore_site *site)
{
	explore_mutex_destroy(&m->m, site);
}
static inline void shim_cond_init(struct cond *c, const struct explore_site *site)
{
	explore_cond_init(&c->c, site);
}
static inline void shim_cond_destroy(struct cond *c, const struct explore_site *site)
{
	explore_cond_destroy(&c->c, site);
}
static inline uint64_t shim_mutex(unsigned op, struct mutex *m, const struct explore_site *site)
{
	return explore_op(op, &m->m, 0, 0, site);
}
static inline uint64_t shim_cond(unsigned op, struct cond *c, struct mutex *m, const struct explore_site *site)
{
	return explore_op(op, &c->c, (uintptr_t)m, 0, site);
}

#define mutex_init(m, class) shim_mutex_init((m), (class), EXPLORE_SITE())
#define mutex_destroy(m) shim_mutex_destroy((m), EXPLORE_SITE())
#define mutex_lock(m) ((void)shim_mutex(EXPLORE_LOCK, (m), EXPLORE_SITE()))
#define mutex_trylock(m) ((bool)shim_mutex(EXPLORE_TRYLOCK, (m), EXPLORE_SITE()))
#define mutex_unlock(m) ((void)shim_mutex(EXPLORE_UNLOCK, (m), EXPLORE_SITE()))
#define cond_init(c) shim_cond_init((c), EXPLORE_SITE())
#define cond_destroy(c) shim_cond_destroy((c), EXPLORE_SITE())
#define cond_wait(c, m) ((void)shim_cond(EXPLORE_COND_WAIT, (c), (m), EXPLORE_SITE()))
#define cond_signal(c) ((void)shim_cond(EXPLORE_SIGNAL, (c), NULL, EXPLORE_SITE()))
#define cond_broadcast(c) ((void)shim_cond(EXPLORE_BROADCAST, (c), NULL, EXPLORE_SITE()))

/* ---- atomics ---- */

struct a32 {
	uint32_t v;
};
struct a64 {
	uint64_t v;
};

#define SHIM_ATOMICS(T, word, wide)                                                                            \
	static inline word shim_##T##_get(unsigned op, const struct T *p, const struct explore_site *site)     \
	{                                                                                                      \
		return (word)explore_op(op | (wide), p, 0, 0, site);                                           \
	}                                                                                                      \
	static inline word shim_##T(unsigned op, struct T *p, word v, const struct explore_site *site)         \
	{                                                                                                      \
		return (word)explore_op(op | (wide), p, v, 0, site);                                           \
	}                                                                                                      \
	static inline bool shim_##T##_cas(struct T *p, word *expected, word want,                              \
		const struct explore_site *site)                                                               \
	{                                                                                                      \
		word was = (word)explore_op(EXPLORE_CAS | (wide), p, *expected, want, site);                   \
		bool done = was == *expected;                                                                  \
                                                                                                               \
		if (!done)                                                                                     \
			*expected = was;                                                                       \
		return done;                                                                                   \
	}                                                                                                      \
	static inline void shim_##T##_count(struct T *p, word n)                                               \
	{                                                                                                      \
		explore_count(p, (wide), n);                                                                   \
	}
SHIM_ATOMICS(a32, uint32_t, 0u)
SHIM_ATOMICS(a64, uint64_t, EXPLORE_WIDE)

#define a32_read(p) shim_a32_get(EXPLORE_READ, (p), EXPLORE_SITE())
#define a32_read_acquire(p) shim_a32_get(EXPLORE_READ_ACQUIRE, (p), EXPLORE_SITE())
#define a32_set(p, v) ((void)shim_a32(EXPLORE_SET, (p), (v), EXPLORE_SITE()))
#define a32_set_release(p, v) ((void)shim_a32(EXPLORE_SET_RELEASE, (p), (v), EXPLORE_SITE()))
#define a32_fetch_add(p, n) shim_a32(EXPLORE_ADD, (p), (n), EXPLORE_SITE())
#define a32_fetch_or(p, bits) shim_a32(EXPLORE_OR, (p), (bits), EXPLORE_SITE())
#define a32_fetch_and(p, bits) shim_a32(EXPLORE_AND, (p), (bits), EXPLORE_SITE())
#define a32_exchange(p, v) shim_a32(EXPLORE_EXCHANGE, (p), (v), EXPLORE_SITE())
#define a32_cas(p, expected, want) shim_a32_cas((p), (expected), (want), EXPLORE_SITE())
#define a32_count(p, n) shim_a32_count((p), (n))

#define a64_read(p) shim_a64_get(EXPLORE_READ, (p), EXPLORE_SITE())
#define a64_read_acquire(p) shim_a64_get(EXPLORE_READ_ACQUIRE, (p), EXPLORE_SITE())
#define a64_set(p, v) ((void)shim_a64(EXPLORE_SET, (p), (v), EXPLORE_SITE()))
#define a64_set_release(p, v) ((void)shim_a64(EXPLORE_SET_RELEASE, (p), (v), EXPLORE_SITE()))
#define a64_fetch_add(p, n) shim_a64(EXPLORE_ADD, (p), (n), EXPLORE_SITE())
#define a64_fetch_or(p, bits) shim_a64(EXPLORE_OR, (p), (bits), EXPLORE_SITE())
#define a64_fetch_and(p, bits) shim_a64(EXPLORE_AND, (p), (bits), EXPLORE_SITE())
#define a64_exchange(p, v) shim_a64(EXPLORE_EXCHANGE, (p), (v), EXPLORE_SITE())
#define a64_cas(p, expected, want) shim_a64_cas((p), (expected), (want), EXPLORE_SITE())
#define a64_count(p, n) shim_a64_count((p), (n))

#define sync_mb() ((void)explore_op(EXPLORE_MB, NULL, 0, 0, EXPLORE_SITE()))
#define sync_relax() ((void)explore_op(EXPLORE_RELAX, NULL, 0, 0, EXPLORE_SITE()))

static inline void shim_wait(struct a32 *p, uint32_t expected, const struct explore_site *site)
{
	explore_may_sleep("wait", site);
	explore_op(EXPLORE_WAIT, p, expected, 0, site);
}
#define a32_wait(p, expected) shim_wait((p), (expected), EXPLORE_SITE())
#define a32_wake(p, most) ((void)shim_a32(EXPLORE_WAKE, (p), (most), EXPLORE_SITE()))

static inline void shim_copy_torn(void *dst, const void *src, size_t len, const struct explore_site *site)
{
	for (size_t i = 0; i + 8 <= len; i += 8)
		explore_op(EXPLORE_COPY | EXPLORE_WIDE, (const char *)src + i, (uintptr_t)dst + i, 0, site);
}
#define sync_copy_torn(dst, src, len) shim_copy_torn((dst), (src), (len), EXPLORE_SITE())

/* ---- threads ---- */

int thread_start(pthread_t *ret, void *(*fn)(void *), void *arg);

#endif
