/* SPDX-License-Identifier: MIT */
#include "disk.h"

#include <assert.h>
#include <fcntl.h>

#include "codec/codec.h"

struct disk *disk_new(void)
{
	struct disk *d = calloc(1, sizeof(*d));

	assert(d);
	return d;
}

struct disk *disk_fork(const struct disk *from)
{
	struct disk *d = disk_new();

	*d = *from;
	memset(d->own, 0, sizeof(d->own));
	d->logging = false;
	d->events = NULL;
	d->count = d->capacity = 0;
	return d;
}

void disk_free(struct disk *d)
{
	if (!d)
		return;
	for (size_t i = 0; i < DISK_PAGES; i++)
		if (d->own[i])
			free(d->pages[i]);
	for (size_t i = 0; i < d->count; i++)
		free(d->events[i].data);
	free(d->events);
	free(d);
}

static void page_stale(struct disk *d, uint64_t page)
{
	if (d->stale[page])
		return;
	d->stale[page] = true;
	d->stales[d->stale_count++] = (uint16_t)page;
	d->hash ^= d->hashes[page];
	d->hashes[page] = 0;
}

uint64_t disk_hash(struct disk *d)
{
	while (d->stale_count) {
		uint64_t p = d->stales[--d->stale_count];

		d->stale[p] = false;
		d->hashes[p] = d->pages[p] ? codec_hash_seeded(d->pages[p], PINFS_PAGE_SIZE, p) : 0;
		d->hash ^= d->hashes[p];
	}
	return d->hash;
}

/* The page's bytes, to be changed. */
static uint8_t *page_own(struct disk *d, uint64_t page)
{
	page_stale(d, page);
	if (!d->own[page]) {
		uint8_t *copy = calloc(1, PINFS_PAGE_SIZE);

		assert(copy);
		if (d->pages[page])
			memcpy(copy, d->pages[page], PINFS_PAGE_SIZE);
		d->pages[page] = copy;
		d->own[page] = true;
	}
	return d->pages[page];
}

static void put(struct disk *d, uint64_t offset, const uint8_t *from, uint64_t len)
{
	d->size = MAX(d->size, offset + len);
	while (len) {
		uint64_t in = offset % PINFS_PAGE_SIZE, n = MIN(len, PINFS_PAGE_SIZE - in);

		memcpy(page_own(d, offset / PINFS_PAGE_SIZE) + in, from, n);
		offset += n;
		from += n;
		len -= n;
	}
}

/* Whole pages are holes again, parts of pages zero. */
static void punch(struct disk *d, uint64_t offset, uint64_t len)
{
	while (len) {
		uint64_t in = offset % PINFS_PAGE_SIZE, n = MIN(len, PINFS_PAGE_SIZE - in), page = offset / PINFS_PAGE_SIZE;

		if (n == PINFS_PAGE_SIZE) {
			page_stale(d, page);
			if (d->own[page])
				free(d->pages[page]);
			d->pages[page] = NULL;
			d->own[page] = false;
		} else if (d->pages[page]) {
			memset(page_own(d, page) + in, 0, n);
		}
		offset += n;
		len -= n;
	}
}

void disk_apply(struct disk *d, const struct event *e, uint64_t from, uint64_t len)
{
	if (e->kind == EVENT_WRITE)
		put(d, e->offset + from, e->data + from, len);
	else if (e->kind == EVENT_PUNCH)
		punch(d, e->offset + from, len);
}

static void note(struct disk *d, struct event e)
{
	if (!d->logging) {
		free(e.data);
		return;
	}
	if (d->count == d->capacity) {
		d->capacity = MAX(d->capacity * 2, (size_t)64);
		d->events = realloc(d->events, d->capacity * sizeof(*d->events));
		assert(d->events);
	}
	d->events[d->count++] = e;
}

void disk_mark(struct disk *d, int op, int what)
{
	note(d, (struct event){.kind = EVENT_MARK, .op = op, .what = what});
}

void disk_save(const struct disk *d, const char *path)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

	if (fd < 0)
		return;
	for (uint64_t i = 0; i < DISK_PAGES; i++)
		if (d->pages[i])
			pwrite_all(fd, d->pages[i], PINFS_PAGE_SIZE, i * PINFS_PAGE_SIZE);
	if (ftruncate(fd, (off_t)d->size) < 0)
		perror(path);
	close(fd);
}

/* ---- as a store ---- */

static ssize_t op_pread(void *context, void *buf, size_t len, uint64_t offset)
{
	struct disk *d = context;
	uint8_t *to = buf;

	len = offset < d->size ? (size_t)MIN((uint64_t)len, d->size - offset) : 0;
	for (size_t done = 0; done < len;) {
		uint64_t at = offset + done, in = at % PINFS_PAGE_SIZE;
		size_t n = (size_t)MIN((uint64_t)(len - done), PINFS_PAGE_SIZE - in);
		const uint8_t *page = d->pages[at / PINFS_PAGE_SIZE];

		if (page)
			memcpy(to + done, page + in, n);
		else
			memset(to + done, 0, n);
		done += n;
	}
	return (ssize_t)len;
}

static ssize_t op_pwrite(void *context, const void *buf, size_t len, uint64_t offset)
{
	struct disk *d = context;
	struct event e = {.kind = EVENT_WRITE, .offset = offset, .len = len};

	if (offset + len > (uint64_t)DISK_PAGES * PINFS_PAGE_SIZE)
		return -ENOSPC;
	if (d->logging) {
		e.data = malloc(len);
		assert(e.data);
		memcpy(e.data, buf, len);
	}
	put(d, offset, buf, len);
	note(d, e);
	return (ssize_t)len;
}

static int op_flush(void *context)
{
	note(context, (struct event){.kind = EVENT_FLUSH});
	return 0;
}

static int op_punch(void *context, uint64_t offset, uint64_t len)
{
	struct disk *d = context;
	uint64_t end = (uint64_t)DISK_PAGES * PINFS_PAGE_SIZE;

	if (offset >= end)
		return 0;
	len = MIN(len, end - offset);
	punch(d, offset, len);
	note(d, (struct event){.kind = EVENT_PUNCH, .offset = offset, .len = len});
	return 0;
}

/* Like fallocate(2): places without content, which no crash has to leave there. */
static int op_allocate(void *context, uint64_t offset, uint64_t len)
{
	struct disk *d = context;

	if (offset + len > (uint64_t)DISK_PAGES * PINFS_PAGE_SIZE)
		return -ENOSPC;
	d->size = MAX(d->size, offset + len);
	return 0;
}

static int op_available(void *context, uint64_t *ret)
{
	struct disk *d = context;

	*ret = (uint64_t)DISK_PAGES * PINFS_PAGE_SIZE - d->size;
	return 0;
}

static int op_hole(void *context, uint64_t offset, uint64_t *ret)
{
	struct disk *d = context;
	uint64_t page = offset / PINFS_PAGE_SIZE;

	while (page < DISK_PAGES && page * PINFS_PAGE_SIZE < d->size && d->pages[page])
		page++;
	*ret = MAX(offset, MIN(page * PINFS_PAGE_SIZE, d->size));
	return 0;
}

static void op_close(void *context)
{
}

struct store *disk_store(struct disk *d)
{
	static const struct store_ops ops = {
		.pread = op_pread,
		.pwrite = op_pwrite,
		.flush = op_flush,
		.punch = op_punch,
		.allocate = op_allocate,
		.available = op_available,
		.hole = op_hole,
		.close = op_close,
	};
	struct store *s;
	int r = store_open_ops(&ops, d, d->size, &s);

	assert(r == 0);
	return s;
}
