/* SPDX-License-Identifier: MIT */
/*
 * Locks, conditions, atomics, waiting and threads, by one name each, so that the cache and what stands beside it can be
 * compiled against a second implementation that runs under a deterministic scheduler (tests/explore/shim/base/sync.h).
 * What threads share goes through this header, or is guarded by a mutex of it.
 *
 * The order of locks is in base/lock_order.h. No lock is held across I/O, decompression, a reply to the kernel or a
 * wait for another thread's I/O, except those that the table allows.
 */
#ifndef PINFS_BASE_SYNC_H
#define PINFS_BASE_SYNC_H

#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/lock_order.h"

/* ---- what the validator knows of this thread ---- */

struct sync_self {
	unsigned mm_held; /* R8: the thread's flag; kept in every build */
	uint32_t held;	  /* classes of which it holds a lock; only with PINFS_LOCK_CHECKS, as the rest */
	uint16_t count[LOCK_CLASS_COUNT]; /* how many of each */
};
extern _Thread_local struct sync_self sync_self;

/* R8: how often something slept, did I/O or allocated under a lock that forbids it. Fatal with PINFS_LOCK_CHECKS. */
uint64_t sync_violations(void);
void sync_violation(const char *what, enum lock_class class);

#ifdef PINFS_LOCK_CHECKS
void sync_lock_taken(enum lock_class class, bool tried);
void sync_lock_dropped(enum lock_class class);
void sync_check_may_sleep(const char *what);
#else
static inline void sync_lock_taken(enum lock_class class, bool tried)
{
	sync_self.mm_held += class == LOCK_MM;
}
static inline void sync_lock_dropped(enum lock_class class)
{
	sync_self.mm_held -= class == LOCK_MM;
}
static inline void sync_check_may_sleep(const char *what)
{
	if (__builtin_expect(sync_self.mm_held, 0))
		sync_violation(what, LOCK_MM);
}
#endif

/*
 * Called before everything that may take long: I/O, allocation, callbacks, waiting. A thread that holds a lock which
 * does not allow that is counted (rule R8), and the program ends where the validator is compiled in.
 */
static inline void sync_may_sleep(const char *what)
{
	sync_check_may_sleep(what);
}

/* ---- mutexes and conditions ---- */

struct mutex {
	pthread_mutex_t m;
	enum lock_class class;
};
struct cond {
	pthread_cond_t c;
};

static inline void mutex_init(struct mutex *m, enum lock_class class)
{
	pthread_mutex_init(&m->m, NULL);
	m->class = class;
}
static inline void mutex_destroy(struct mutex *m)
{
	pthread_mutex_destroy(&m->m);
}
static inline void mutex_lock(struct mutex *m)
{
	sync_lock_taken(m->class, false);
	pthread_mutex_lock(&m->m);
}
static inline bool mutex_trylock(struct mutex *m)
{
	if (pthread_mutex_trylock(&m->m))
		return false;
	sync_lock_taken(m->class, true);
	return true;
}
static inline void mutex_unlock(struct mutex *m)
{
	pthread_mutex_unlock(&m->m);
	sync_lock_dropped(m->class);
}
void cond_init(struct cond *c);
static inline void cond_destroy(struct cond *c)
{
	pthread_cond_destroy(&c->c);
}
/* m is the only lock held that does not sleep. */
static inline void cond_wait(struct cond *c, struct mutex *m)
{
	sync_lock_dropped(m->class);
	sync_may_sleep("wait");
	pthread_cond_wait(&c->c, &m->m);
	sync_lock_taken(m->class, false);
}
/* The same, for so many milliseconds at most. */
void cond_wait_for(struct cond *c, struct mutex *m, unsigned ms);
static inline void cond_signal(struct cond *c)
{
	pthread_cond_signal(&c->c);
}
static inline void cond_broadcast(struct cond *c)
{
	pthread_cond_broadcast(&c->c);
}

/* ---- atomics ---- */

/*
 * Words that are read and changed without a lock, also between processes. Plain names are relaxed; _acquire and
 * _release say so. The operations that read, change and write at once acquire and release; they are no full barrier
 * for what follows: where the order of a change and a later read matters (R10), sync_mb() stands between.
 */
struct a32 {
	_Atomic uint32_t v;
};
struct a64 {
	_Atomic uint64_t v;
};

#define SYNC_ATOMICS(T, word)                                                                           \
	static inline word T##_read(const struct T *p)                                                  \
	{                                                                                               \
		return atomic_load_explicit(&p->v, memory_order_relaxed);                               \
	}                                                                                               \
	static inline word T##_read_acquire(const struct T *p)                                          \
	{                                                                                               \
		return atomic_load_explicit(&p->v, memory_order_acquire);                               \
	}                                                                                               \
	static inline void T##_set(struct T *p, word v)                                                 \
	{                                                                                               \
		atomic_store_explicit(&p->v, v, memory_order_relaxed);                                  \
	}                                                                                               \
	static inline void T##_set_release(struct T *p, word v)                                         \
	{                                                                                               \
		atomic_store_explicit(&p->v, v, memory_order_release);                                  \
	}                                                                                               \
	/* The value before. */                                                                         \
	static inline word T##_fetch_add(struct T *p, word n)                                           \
	{                                                                                               \
		return atomic_fetch_add_explicit(&p->v, n, memory_order_acq_rel);                       \
	}                                                                                               \
	static inline word T##_fetch_or(struct T *p, word bits)                                         \
	{                                                                                               \
		return atomic_fetch_or_explicit(&p->v, bits, memory_order_acq_rel);                     \
	}                                                                                               \
	static inline word T##_fetch_and(struct T *p, word bits)                                        \
	{                                                                                               \
		return atomic_fetch_and_explicit(&p->v, bits, memory_order_acq_rel);                    \
	}                                                                                               \
	static inline word T##_exchange(struct T *p, word v)                                            \
	{                                                                                               \
		return atomic_exchange_explicit(&p->v, v, memory_order_acq_rel);                        \
	}                                                                                               \
	/* If *p is *expected, it becomes `want`; else *expected becomes what it is. */                 \
	static inline bool T##_cas(struct T *p, word *expected, word want)                              \
	{                                                                                               \
		return atomic_compare_exchange_strong_explicit(&p->v, expected, want,                   \
			memory_order_acq_rel, memory_order_acquire);                                    \
	}                                                                                               \
	/* Statistics: seen by nobody's decision, so the explorer does not switch here. */              \
	static inline void T##_count(struct T *p, word n)                                               \
	{                                                                                               \
		atomic_fetch_add_explicit(&p->v, n, memory_order_relaxed);                              \
	}
SYNC_ATOMICS(a32, uint32_t)
SYNC_ATOMICS(a64, uint64_t)

/* The full barrier: what stands before is seen by everybody before anything after it is read. */
static inline void sync_mb(void)
{
#ifdef __SANITIZE_THREAD__
	/* ThreadSanitizer knows no fences; on the processors that it runs on this is one. */
	_Atomic int barrier = 0;

	atomic_fetch_add_explicit(&barrier, 1, memory_order_seq_cst);
#else
	atomic_thread_fence(memory_order_seq_cst);
#endif
}

/* In a loop that waits for another thread's next instructions. */
static inline void sync_relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#endif
}

/*
 * Sleeps while *p is `expected`: until a32_wake(), or for no reason. Between processes too, if p is in memory that
 * they share. a32_wake: `most` of the sleepers.
 */
void a32_wait(struct a32 *p, uint32_t expected);
void a32_wake(struct a32 *p, unsigned most);

/*
 * Copies bytes that somebody may change meanwhile (a pinned page, a mapped one): what comes may be torn, but each
 * aligned 8 bytes are some that were there. dst and src are aligned to 8, len is a multiple of it.
 */
void sync_copy_torn(void *dst, const void *src, size_t len);

/* ---- threads ---- */

/* Starts a thread with all signals blocked (the main thread takes them). Returns 0 or -errno. */
int thread_start(pthread_t *ret, void *(*fn)(void *), void *arg);

#endif
