/* SPDX-License-Identifier: MIT */
#include "packed.h"

bool packed_open(struct packed *p, const uint8_t *data, size_t size)
{
	*p = (struct packed){0};
	if (size < PACKED_MAGIC_SIZE || memcmp(data, PACKED_MAGIC, PACKED_MAGIC_SIZE) != 0)
		return false;
	for (size_t at = PACKED_MAGIC_SIZE; size - at >= PACKED_ENTRY; at += PACKED_ENTRY) {
		uint32_t page;

		memcpy(&page, data + at, sizeof(page));
		page = le32toh(page);
		if (page >= PACKED_PAGES)
			continue;
		if (!p->pages[page])
			p->pages[page] = malloc(PINFS_PAGE_SIZE);
		FUZZ_CHECK(p->pages[page]);
		memcpy(p->pages[page], data + at + 4, PINFS_PAGE_SIZE);
		p->size = MAX(p->size, ((uint64_t)page + 1) * PINFS_PAGE_SIZE);
	}
	return true;
}

void packed_copy(const struct packed *p, struct packed *ret)
{
	*ret = (struct packed){.size = p->size};
	for (unsigned i = 0; i < PACKED_PAGES; i++) {
		if (!p->pages[i])
			continue;
		ret->pages[i] = malloc(PINFS_PAGE_SIZE);
		FUZZ_CHECK(ret->pages[i]);
		memcpy(ret->pages[i], p->pages[i], PINFS_PAGE_SIZE);
	}
}

void packed_free(struct packed *p)
{
	for (unsigned i = 0; i < PACKED_PAGES; i++)
		free(p->pages[i]);
	*p = (struct packed){0};
}

size_t packed_save(const struct packed *p, uint8_t *to, size_t capacity)
{
	static const uint8_t zero[PINFS_PAGE_SIZE];
	size_t at = PACKED_MAGIC_SIZE;

	if (capacity < at)
		return 0;
	memcpy(to, PACKED_MAGIC, PACKED_MAGIC_SIZE);
	for (uint32_t i = 0; i < PACKED_PAGES; i++) {
		uint32_t page = htole32(i);

		if (!p->pages[i] || !memcmp(p->pages[i], zero, sizeof(zero)))
			continue;
		if (capacity - at < PACKED_ENTRY)
			return 0;
		memcpy(to + at, &page, sizeof(page));
		memcpy(to + at + 4, p->pages[i], PINFS_PAGE_SIZE);
		at += PACKED_ENTRY;
	}
	return at;
}

bool packed_get(const struct packed *p, uint64_t offset, void *buf, size_t len)
{
	uint8_t *to = buf;

	if (offset > (uint64_t)PACKED_PAGES * PINFS_PAGE_SIZE || len > (uint64_t)PACKED_PAGES * PINFS_PAGE_SIZE - offset)
		return false;
	while (len) {
		size_t in = offset % PINFS_PAGE_SIZE, n = MIN(len, PINFS_PAGE_SIZE - in);
		const uint8_t *page = p->pages[offset / PINFS_PAGE_SIZE];

		if (page)
			memcpy(to, page + in, n);
		else
			memset(to, 0, n);
		to += n;
		offset += n;
		len -= n;
	}
	return true;
}

bool packed_put(struct packed *p, uint64_t offset, const void *buf, size_t len)
{
	const uint8_t *from = buf;

	if (offset > (uint64_t)PACKED_PAGES * PINFS_PAGE_SIZE || len > (uint64_t)PACKED_PAGES * PINFS_PAGE_SIZE - offset)
		return false;
	p->size = MAX(p->size, offset + len);
	while (len) {
		size_t in = offset % PINFS_PAGE_SIZE, n = MIN(len, PINFS_PAGE_SIZE - in);
		uint8_t **page = &p->pages[offset / PINFS_PAGE_SIZE];

		if (!*page)
			*page = calloc(1, PINFS_PAGE_SIZE);
		FUZZ_CHECK(*page);
		memcpy(*page + in, from, n);
		from += n;
		offset += n;
		len -= n;
	}
	return true;
}

/* ---- a disk ---- */

static ssize_t packed_pread(void *context, void *buf, size_t len, uint64_t offset)
{
	struct packed *p = context;

	if (offset >= p->size)
		return 0;
	len = (size_t)MIN((uint64_t)len, p->size - offset);
	FUZZ_CHECK(packed_get(p, offset, buf, len));
	return (ssize_t)len;
}

static ssize_t packed_pwrite(void *context, const void *buf, size_t len, uint64_t offset)
{
	return packed_put(context, offset, buf, len) ? (ssize_t)len : -ENOSPC;
}

static int packed_flush(void *context)
{
	return 0;
}

static int packed_punch(void *context, uint64_t offset, uint64_t len)
{
	struct packed *p = context;

	FUZZ_CHECK(offset % PINFS_PAGE_SIZE == 0 && len % PINFS_PAGE_SIZE == 0);
	for (uint64_t i = offset / PINFS_PAGE_SIZE; i < MIN((offset + len) / PINFS_PAGE_SIZE, (uint64_t)PACKED_PAGES); i++) {
		free(p->pages[i]);
		p->pages[i] = NULL;
	}
	return 0;
}

static int packed_allocate(void *context, uint64_t offset, uint64_t len)
{
	struct packed *p = context;

	if (len > (uint64_t)PACKED_PAGES * PINFS_PAGE_SIZE || offset > (uint64_t)PACKED_PAGES * PINFS_PAGE_SIZE - len)
		return -ENOSPC;
	p->size = MAX(p->size, offset + len);
	return 0;
}

static int packed_available(void *context, uint64_t *ret)
{
	*ret = 1u << 20;
	return 0;
}

static int packed_hole(void *context, uint64_t offset, uint64_t *ret)
{
	*ret = offset;
	return 0;
}

static const struct store_ops packed_ops = {
	.pread = packed_pread,
	.pwrite = packed_pwrite,
	.flush = packed_flush,
	.punch = packed_punch,
	.allocate = packed_allocate,
	.available = packed_available,
	.hole = packed_hole,
};

struct store *packed_store(struct packed *p)
{
	struct store *store;

	FUZZ_CHECK(store_open_ops(&packed_ops, p, p->size, &store) == 0);
	return store;
}
