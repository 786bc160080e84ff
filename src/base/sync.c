/* SPDX-License-Identifier: MIT */
#include "base/sync.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/log.h"

_Thread_local struct sync_self sync_self;

static const struct lock_class_info classes[] = {
#define LOCK_CLASS_INFO(name, sleeps, nests, what) [LOCK_##name] = {#name, what, sleeps, nests},
	LOCK_CLASSES(LOCK_CLASS_INFO)
#undef LOCK_CLASS_INFO
};

const struct lock_class_info *lock_class_info(enum lock_class class)
{
	return &classes[class];
}

static _Atomic uint64_t violations;

uint64_t sync_violations(void)
{
	return atomic_load_explicit(&violations, memory_order_relaxed);
}

void sync_violation(const char *what, enum lock_class class)
{
	atomic_fetch_add_explicit(&violations, 1, memory_order_relaxed);
#ifdef PINFS_LOCK_CHECKS
	log_error("%s while the thread holds the lock %s (%s)", what, classes[class].name, classes[class].what);
	abort();
#endif
}

#ifdef PINFS_LOCK_CHECKS
_Static_assert(LOCK_CLASS_COUNT <= 32, "classes fit a word");

/* The lowest lock in the order that the thread holds. */
static enum lock_class lowest(void)
{
	return (enum lock_class)(31 - __builtin_clz(sync_self.held));
}

void sync_lock_taken(enum lock_class class, bool tried)
{
	struct sync_self *self = &sync_self;

	/* Who only tries can't wait in a circle. */
	if (!tried && self->held && (lowest() > class || (lowest() == class && !classes[class].nests))) {
		log_error("the lock %s (%s) is taken under %s (%s)", classes[class].name, classes[class].what,
			classes[lowest()].name, classes[lowest()].what);
		abort();
	}
	self->held |= 1u << class;
	self->count[class]++;
	self->mm_held += class == LOCK_MM;
}

void sync_lock_dropped(enum lock_class class)
{
	struct sync_self *self = &sync_self;

	if (!self->count[class]) {
		log_error("the lock %s is dropped, but not held", classes[class].name);
		abort();
	}
	if (!--self->count[class])
		self->held &= ~(1u << class);
	self->mm_held -= class == LOCK_MM;
}

void sync_check_may_sleep(const char *what)
{
#define LOCK_CLASS_SLEEPS(name, sleeps, nests, what) (sleeps ? 1u << LOCK_##name : 0) |
	static const uint32_t allowed = LOCK_CLASSES(LOCK_CLASS_SLEEPS) 0;
#undef LOCK_CLASS_SLEEPS

	if (sync_self.held & ~allowed)
		sync_violation(what, (enum lock_class)__builtin_ctz(sync_self.held & ~allowed));
}
#endif

static long futex(struct a32 *p, int op, uint32_t value)
{
	return syscall(SYS_futex, &p->v, op, value, NULL, NULL, 0);
}

void a32_wait(struct a32 *p, uint32_t expected)
{
	sync_may_sleep("wait");
	futex(p, FUTEX_WAIT, expected);
}

void a32_wake(struct a32 *p, unsigned most)
{
	futex(p, FUTEX_WAKE, most > INT_MAX ? INT_MAX : most);
}

void sync_copy_torn(void *dst, const void *src, size_t len)
{
	const _Atomic uint64_t *s = src;
	uint64_t *d = dst;

	for (size_t i = 0; i < len / 8; i++)
		d[i] = atomic_load_explicit(&s[i], memory_order_relaxed);
}

void cond_init(struct cond *c)
{
	pthread_condattr_t attr;

	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&c->c, &attr);
	pthread_condattr_destroy(&attr);
}

void cond_wait_for(struct cond *c, struct mutex *m, unsigned ms)
{
	uint64_t until = now_ns() + (uint64_t)ms * 1000000;
	struct timespec t = {(time_t)(until / 1000000000), (long)(until % 1000000000)};

	sync_lock_dropped(m->class);
	sync_may_sleep("wait");
	pthread_cond_timedwait(&c->c, &m->m, &t);
	sync_lock_taken(m->class, false);
}

int thread_start(pthread_t *ret, void *(*fn)(void *), void *arg)
{
	sigset_t all, old;
	pthread_t t;
	int r;

	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &old);
	r = pthread_create(&t, NULL, fn, arg);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (r)
		return -r;
	*ret = t;
	return 0;
}
