/* SPDX-License-Identifier: MIT */
/* What the linker puts in the place of other functions: clocks and random numbers that repeat, messages that are noticed, mutants. */
#include "crash.h"

#include <stdarg.h>
#include <sys/random.h>
#include <time.h>

#include "base/log.h"
#include "delta/internal.h"
#include "support.h"

int mutant;

static struct rng rng;
static uint64_t ticks;
static struct problem *watcher;

void world_reset(uint64_t seed)
{
	rng.state = seed;
	ticks = seed * 1000000;
}

int __real_clock_gettime(clockid_t id, struct timespec *ret);
int __wrap_clock_gettime(clockid_t id, struct timespec *ret);
int __wrap_clock_gettime(clockid_t id, struct timespec *ret)
{
	if (id != CLOCK_REALTIME_COARSE)
		return __real_clock_gettime(id, ret);
	ticks++;
	*ret = (struct timespec){1700000000 + (time_t)(ticks / 1000), (long)(ticks % 1000) * 1000000};
	return 0;
}

ssize_t __wrap_getrandom(void *buf, size_t len, unsigned flags);
ssize_t __wrap_getrandom(void *buf, size_t len, unsigned flags)
{
	rng_bytes(&rng, buf, len);
	return (ssize_t)len;
}

/* Closing such a file takes longer than all the rest. */
int __wrap_mem_pressure_open(void);
int __wrap_mem_pressure_open(void)
{
	return -ENOSYS;
}

void watch_errors(struct problem *p)
{
	watcher = p;
}

void __wrap_log_msg(enum log_level level, const char *fmt, ...);
void __wrap_log_msg(enum log_level level, const char *fmt, ...)
{
	char text[512];
	va_list ap;

	if (level != LOG_LEVEL_ERROR || !watcher)
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	problem_set(watcher, "it says: %s", text);
}

/* ---- mutants ---- */

int __real_extent_verify(struct delta *d, const void *value, size_t len, uint8_t *buf);
int __wrap_extent_verify(struct delta *d, const void *value, size_t len, uint8_t *buf);
int __wrap_extent_verify(struct delta *d, const void *value, size_t len, uint8_t *buf)
{
	return mutant == MUTANT_VERIFY ? 0 : __real_extent_verify(d, value, len, buf);
}

/* ---- transactions that end early, and a write that comes in between ---- */

unsigned txn_scale = 1;

size_t __real_delta_txn_size(const struct delta *d);
size_t __wrap_delta_txn_size(const struct delta *d);
size_t __wrap_delta_txn_size(const struct delta *d)
{
	return __real_delta_txn_size(d) * txn_scale;
}

uint64_t race_ino;
static uint8_t race_page[PINFS_PAGE_SIZE];

static int race_update(void *context, struct delta_inode *inode, uint64_t end)
{
	inode->size = MAX(inode->size, end);
	return 0;
}

int __real_content_settle(struct delta *d);
int __wrap_content_settle(struct delta *d);
int __wrap_content_settle(struct delta *d)
{
	const uint8_t *data[1] = {race_page};
	struct delta_write w = {.ino = race_ino, .count = 1, .data = data, .bytes = PINFS_PAGE_SIZE, .reserved = 1, .sync = true};
	int r = __real_content_settle(d);

	if (!race_ino || r < 0)
		return r;
	/* What another thread syncs at this very moment. */
	memset(race_page, 'R', sizeof(race_page));
	race_ino = 0;
	r = delta_reserve(d, 1);
	return r < 0 ? r : delta_write(d, &w, race_update, NULL);
}

bool __real_space_release(struct space *s, uint64_t first, uint64_t pages);
bool __wrap_space_release(struct space *s, uint64_t first, uint64_t pages);
bool __wrap_space_release(struct space *s, uint64_t first, uint64_t pages)
{
	return mutant == MUTANT_REUSE ? space_free(s, first, pages) : __real_space_release(s, first, pages);
}

int mutant_choose(const char *name)
{
	static const char *const names[] = {"none", "noflush", "superflush", "verify", "strict", "reuse"};

	for (int i = 0; name && i < (int)ARRAY_SIZE(names); i++)
		if (!strcmp(name, names[i])) {
			mutant = i;
			return 0;
		}
	return name ? -EINVAL : 0;
}
