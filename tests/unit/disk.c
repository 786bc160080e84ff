/* SPDX-License-Identifier: MIT */
#include "disk.h"

#include "support.h"

static void disk_read(void *owner, uint64_t first, unsigned count, struct cache_fill *fills)
{
	struct disk *d = owner;

	for (unsigned i = 0; i < count; i++) {
		uint64_t page = (first + i) * d->unit_pages;

		a32_count(&d->reads, d->unit_pages);
		if (a32_read(&d->fail_reads))
			fills[i].error = -EIO;
		mutex_lock(&d->lock);
		if (!fills[i].error)
			memcpy(fills[i].data, d->bytes[page], (size_t)d->unit_pages * DISK_PAGE);
		mutex_unlock(&d->lock);
	}
}

static int disk_mkwrite(void *owner, uint64_t page, unsigned count)
{
	struct disk *d = owner;

	if (a32_read(&d->no_space))
		return -ENOSPC;
	for (unsigned i = 0; i < count; i++)
		a32_fetch_add(&d->reserved[page + i], 1);
	return 0;
}

static void disk_undo(void *owner, uint64_t page, unsigned count)
{
	struct disk *d = owner;

	for (unsigned i = 0; i < count; i++)
		must(a32_fetch_add(&d->reserved[page + i], (uint32_t)-1) > 0);
}

static int disk_writeback(void *owner, const struct cache_write *w)
{
	struct disk *d = owner;

	if (d->during_write)
		d->during_write(d->context);
	if (a32_read(&d->fail_writes) || a32_read(&d->fail_page) - 1 - w->page < w->count)
		return -EIO;
	must(w->bytes > (size_t)(w->count - 1) * DISK_PAGE && w->bytes <= (size_t)w->count * DISK_PAGE);
	for (unsigned i = 0; i < w->count; i++) {
		size_t bytes = MIN(w->bytes - (size_t)i * DISK_PAGE, (size_t)DISK_PAGE);

		/* R1, and R2: the same bytes twice. */
		must(a32_fetch_add(&d->reserved[w->page + i], (uint32_t)-1) > 0);
		mutex_lock(&d->lock);
		memcpy(d->bytes[w->page + i], w->data[i], bytes);
		must(!memcmp(d->bytes[w->page + i], w->data[i], bytes));
		mutex_unlock(&d->lock);
	}
	a32_count(&d->writes, w->count);
	return 0;
}

const struct cache_ops disk_ops = {
	.read = disk_read,
	.mkwrite = disk_mkwrite,
	.mkwrite_undo = disk_undo,
	.writeback = disk_writeback,
};

struct disk *disk_new(unsigned unit_pages)
{
	struct disk *d = calloc(1, sizeof(*d));

	must(d);
	d->unit_pages = unit_pages;
	mutex_init(&d->lock, LOCK_TEST);
	for (unsigned p = 0; p < DISK_PAGES; p++)
		memset(d->bytes[p], (int)p + 1, DISK_PAGE);
	return d;
}

uint64_t disk_word(const struct disk *d, unsigned page)
{
	uint64_t v;

	memcpy(&v, d->bytes[page], 8);
	return v;
}
