/* SPDX-License-Identifier: MIT */
/* What the linker puts in the place of other functions: clocks and random numbers that repeat, messages that are noticed, mutants. */
#include "crash.h"

#include <assert.h>
#include <stdarg.h>
#include <sys/random.h>
#include <time.h>

#include "base/log.h"
#include "codec/codec.h"
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

/* No threads: nothing is written but by what an operation does. (The flusher's is the only one; who makes pages dirty does without it.) */
int __wrap_thread_start(pthread_t *ret, void *(*run)(void *arg), void *arg);
int __wrap_thread_start(pthread_t *ret, void *(*run)(void *arg), void *arg)
{
	(void)ret;
	(void)run;
	(void)arg;
	return -EAGAIN;
}

/*
 * Page memory is used again, for some thousand caches a second: having it given and taken by the kernel takes half of the time. The frames'
 * descriptors are zeroed as a new region is; the pages keep what was in them, as pages of a cache that has been in use do.
 */
#define REGION_ZEROED ((size_t)256 << 10) /* descriptors, up to the pages of a cache of 16 MiB */
#define REGION_MOST ((size_t)17 << 20)
static struct mem_region spare[2];
static unsigned reused;

int __real_mem_region_new(const char *name, size_t size, struct mem_region *ret);
int __wrap_mem_region_new(const char *name, size_t size, struct mem_region *ret);
int __wrap_mem_region_new(const char *name, size_t size, struct mem_region *ret)
{
	for (unsigned i = 0; i < ARRAY_SIZE(spare); i++)
		if (spare[i].size == size) {
			*ret = spare[i];
			spare[i] = (struct mem_region){0};
			assert(size <= REGION_MOST);
			memset(ret->base, 0, REGION_ZEROED);
			/* What was right in the state before could make up for what isn't read in this one. */
			if (++reused % 16 == 0)
				memset(ret->base + REGION_ZEROED, 0xa5, size - REGION_ZEROED);
			return 0;
		}
	return __real_mem_region_new(name, size, ret);
}

void __real_mem_region_free(struct mem_region *r);
void __wrap_mem_region_free(struct mem_region *r);
void __wrap_mem_region_free(struct mem_region *r)
{
	for (unsigned i = 0; i < ARRAY_SIZE(spare) && r->base; i++)
		if (!spare[i].base) {
			spare[i] = *r;
			*r = (struct mem_region){0};
			return;
		}
	__real_mem_region_free(r);
}

/* The same few blocks are read in each state: what they unpack to is kept. Only for exactly the same bytes, so a damaged block is not taken for it. */
#define UNPACKED_SLOTS 256u
static struct unpacked {
	char *bytes; /* packed, then unpacked */
	int packed, unpacked;
} unpacked_slots[UNPACKED_SLOTS];

int __real_LZ4_decompress_safe(const char *src, char *dst, int src_len, int dst_len);
int __wrap_LZ4_decompress_safe(const char *src, char *dst, int src_len, int dst_len);
int __wrap_LZ4_decompress_safe(const char *src, char *dst, int src_len, int dst_len)
{
	struct unpacked *u = &unpacked_slots[codec_hash_seeded(src, (size_t)src_len, 0) % UNPACKED_SLOTS];
	int n;

	if (u->bytes && u->packed == src_len && u->unpacked <= dst_len && !memcmp(u->bytes, src, (size_t)src_len)) {
		memcpy(dst, u->bytes + src_len, (size_t)u->unpacked);
		return u->unpacked;
	}
	n = __real_LZ4_decompress_safe(src, dst, src_len, dst_len);
	if (n <= 0)
		return n;
	free(u->bytes);
	*u = (struct unpacked){.bytes = malloc((size_t)src_len + (size_t)n), .packed = src_len, .unpacked = n};
	if (u->bytes) {
		memcpy(u->bytes, src, (size_t)src_len);
		memcpy(u->bytes + src_len, dst, (size_t)n);
	}
	return n;
}

void world_end(void)
{
	for (unsigned i = 0; i < ARRAY_SIZE(spare); i++)
		__real_mem_region_free(&spare[i]);
	for (unsigned i = 0; i < UNPACKED_SLOTS; i++)
		free(unpacked_slots[i].bytes);
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
bool race_lost;
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
	delta_lock(d);
	r = space_reserve(d->space, 1);
	delta_unlock(d);
	/* No room: who writes waits until this checkpoint has made some (delta_reserve()), and so for us. */
	race_lost = r < 0;
	return r < 0 ? 0 : delta_write(d, &w, race_update, NULL);
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
