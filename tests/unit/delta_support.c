/* SPDX-License-Identifier: MIT */
#include "delta_support.h"

unsigned damages;
char damage[256];

void on_damage(void *context, uint64_t offset, const char *text)
{
	damages++;
	snprintf(damage, sizeof(damage), "%s", text);
}

struct delta_options plain_options(void)
{
	struct delta_options o = {.image_size = 12345, .image_inodes = 100, .log_size = 1u << 20, .no_thread = true, .on_damage = on_damage};

	memset(o.image_uuid, 7, sizeof(o.image_uuid));
	memset(o.image_hash, 8, sizeof(o.image_hash));
	return o;
}

struct delta *create_delta(struct memstore *m, const struct delta_options *o)
{
	char error[DELTA_ERROR_SIZE] = "";
	struct delta *d;
	int r = delta_create(memstore_open(m), o, &d, error);

	if (r < 0)
		fprintf(stderr, "%s\n", error);
	must(r == 0);
	return d;
}

int try_delta(struct memstore *m, const struct delta_options *o, struct delta **ret)
{
	char error[DELTA_ERROR_SIZE] = "";
	struct store *s = memstore_open(m);
	int r = delta_open(s, o, ret, error);

	if (r < 0) {
		must(error[0]);
		store_close(s);
	}
	return r;
}

struct delta *reopen_delta(struct delta *d, struct memstore *m, const struct delta_options *o)
{
	int r;

	delta_close(d);
	r = try_delta(m, o, &d);
	if (r < 0)
		fprintf(stderr, "opening: %s (%s)\n", strerror(-r), damage);
	must(r == 0);
	return d;
}

int frame_of(struct delta *d, uint64_t ino, size_t bytes)
{
	static _Atomic(uint64_t) counter;
	uint8_t value[PINFS_DELTA_ITEM_MAX] __attribute__((aligned(8)));
	int r = delta_begin(d, 0);

	if (r < 0)
		return r;
	memset(value, (int)ino, sizeof(value));
	for (size_t i = 0; r == 0 && i * PINFS_DELTA_ITEM_MAX < bytes; i++) {
		size_t n = MIN(bytes - i * PINFS_DELTA_ITEM_MAX, (size_t)PINFS_DELTA_ITEM_MAX);

		/* Another value than the last time, or there is nothing to say. */
		if (n >= 8)
			*(uint64_t *)value = counter++;
		else
			value[0] = (uint8_t)counter++;
		r = txn_put(d, KEY(ino, PINFS_DELTA_XVALUE, i), value, n);
	}
	if (r < 0) {
		delta_abort(d);
		return r;
	}
	return delta_commit(d);
}

int size_grows(void *context, struct delta_inode *inode, uint64_t end)
{
	inode->size = MAX(inode->size, end);
	return 0;
}

void make_inode(struct delta *d, uint64_t ino)
{
	struct delta_inode inode = {.ino = ino, .mode = S_IFREG | 0644, .nlink = 1};

	must(delta_begin(d, 0) == 0);
	must(delta_inode_put(d, &inode) == 0);
	must(delta_commit(d) == 0);
}

int write_logged_page(struct delta *d, uint64_t ino, uint64_t page, uint8_t byte)
{
	uint8_t buf[PAGE];
	const uint8_t *data[1] = {buf};
	struct delta_write w = {.ino = ino, .page = page, .count = 1, .data = data, .bytes = PAGE, .reserved = 1, .sync = true};
	int r = delta_reserve(d, 1);

	memset(buf, byte, sizeof(buf));
	if (r == 0) {
		r = delta_write(d, &w, size_grows, NULL);
		if (r < 0)
			delta_unreserve(d, 1);
	}
	return r;
}

int page_is(struct delta *d, uint64_t ino, uint64_t page, uint8_t byte)
{
	uint8_t buf[PAGE], *data[1] = {buf};
	struct delta_extent e;
	int r;

	delta_lock(d);
	r = delta_extent_get(d, ino, page, &e);
	delta_unlock(d);
	if (r == 0)
		r = delta_extent_read(d, ino, &e, page, 1, data);
	for (unsigned i = 0; r == 0 && i < PAGE; i++)
		if (buf[i] != byte)
			r = -EILSEQ;
	return r;
}
