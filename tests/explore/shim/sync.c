/* SPDX-License-Identifier: MIT */
/* What src/base/sync.c has besides operations: the table of lock classes. sync_self is the engine's. */
#include "base/sync.h"

static const struct lock_class_info classes[] = {
#define LOCK_CLASS_INFO(name, sleeps, nests, what) [LOCK_##name] = {#name, what, sleeps, nests},
	LOCK_CLASSES(LOCK_CLASS_INFO)
#undef LOCK_CLASS_INFO
};

const struct lock_class_info *lock_class_info(enum lock_class class)
{
	return &classes[class];
}

uint64_t sync_violations(void)
{
	return 0;
}

int thread_start(pthread_t *ret, void *(*fn)(void *), void *arg)
{
	explore_fail("thread_start(): the threads of a program are in its table");
}
