/* SPDX-License-Identifier: MIT */
/*
 * Small things that every layer uses: cleanup attributes, rounding, parsing of numbers that people type.
 * base is below all layers and includes none of them.
 */
#ifndef PINFS_BASE_UTIL_H
#define PINFS_BASE_UTIL_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))
#define DIV_ROUND_UP(a, b) (((a) + (b) - 1) / (b))

#define _printf_(a, b) __attribute__((format(printf, a, b)))
#define _unused_ __attribute__((unused))
#define _cleanup_(f) __attribute__((cleanup(f)))

static inline uint64_t align_up(uint64_t x, uint64_t a)
{
	return (x + a - 1) & ~(a - 1);
}
static inline uint64_t align_down(uint64_t x, uint64_t a)
{
	return x & ~(a - 1);
}
static inline bool is_power_of_two(uint64_t x)
{
	return x && !(x & (x - 1));
}

static inline void cleanup_free(void *p)
{
	free(*(void **)p);
}
static inline void cleanup_close(int *fd)
{
	if (*fd >= 0) {
		int saved = errno;

		close(*fd);
		errno = saved;
	}
}
#define _cleanup_free_ _cleanup_(cleanup_free)
#define _cleanup_close_ _cleanup_(cleanup_close)

/* Hands a resource on, so that its cleanup attribute finds nothing: return steal_pointer(&p). */
#define steal_pointer(pp)                   \
	({                                  \
		typeof(*(pp)) stolen_ = *(pp); \
		*(pp) = NULL;               \
		stolen_;                    \
	})
static inline int steal_fd(int *fd)
{
	int stolen = *fd;

	*fd = -1;
	return stolen;
}

/* Grows *array (element size `size`, *capacity elements) to at least `want`. Returns 0 or -ENOMEM. */
int array_reserve(void *array, size_t *capacity, size_t want, size_t size);

/* "64K", "1MiB", "2g": bytes. Returns 0, -EINVAL (not a size) or -ERANGE; *ret is untouched on failure. */
int parse_size(const char *text, uint64_t *ret);
/* A whole decimal number from min to max. Same errors. */
int parse_u64(const char *text, uint64_t min, uint64_t max, uint64_t *ret);

/* "405.3 MiB" into a caller's buffer of at least 16 bytes; returns buf. */
char *format_size(uint64_t bytes, char *buf, size_t size);

/* 36 characters and a NUL, as RFC 9562 writes it; parse returns 0 or -EINVAL. */
void uuid_format(const uint8_t uuid[16], char ret[37]);
int uuid_parse(const char *text, uint8_t ret[16]);

/* Writes a string as a JSON string with its quotes; bytes that are not UTF-8 become \udcXX, as Python does. */
void json_string(FILE *out, const char *s, size_t len);

/* Names for people: bytes that are not printable become \ooo. Returns buf, always terminated. */
char *name_escape(const char *name, size_t len, char *buf, size_t size);

/*
 * Puts /dev/null where descriptors 0, 1 or 2 are closed (cron, init scripts): otherwise a file that is opened next gets
 * that number, and messages are written into it. Every program calls it first.
 */
void ensure_standard_descriptors(void);

/* CLOCK_MONOTONIC in nanoseconds. */
uint64_t now_ns(void);

/* Reads or writes exactly len bytes, repeating after EINTR and short transfers. 0, -errno; -EIO at end of file. */
int write_all(int fd, const void *buf, size_t len);
int pwrite_all(int fd, const void *buf, size_t len, uint64_t offset);
int pread_all(int fd, void *buf, size_t len, uint64_t offset);

#endif
