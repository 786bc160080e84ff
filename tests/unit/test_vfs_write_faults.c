/* SPDX-License-Identifier: MIT */
/* A writable vfs whose disk fails, or is full: who hears of it, and what is there afterwards. */
#include "vfs_support.h"

#include <fcntl.h>

static void each_open_file_hears_once_of_a_failed_writeback(void **state)
{
	enum { LEN = 40 * PAGE };
	_cleanup_free_ uint8_t *buf = malloc(LEN);
	struct vfs_file *a, *b, *late;
	struct rng rng = {4};
	struct memstore m;
	struct vfs *v;
	uint64_t ino;

	memstore_init(&m, 0);
	v = open_on(&m, 8u << 20, 0);
	ino = make_file(v, "f");
	assert_int_equal(vfs_open(v, ino, O_RDWR, false, &a), 0);
	assert_int_equal(vfs_open(v, ino, O_RDONLY, false, &b), 0);
	fill(&rng, v, ino, 0, buf, LEN);
	memstore_fail(&m, MEM_WRITE, 1, -EIO, false);
	assert_int_equal(vfs_fsync(v, ino, a, false), -EIO);
	assert_int_equal(vfs_open(v, ino, O_RDWR, false, &late), 0);
	assert_int_equal(vfs_fsync(v, ino, a, false), 0);
	assert_int_equal(vfs_fsync(v, ino, a, false), 0);
	assert_int_equal(vfs_fsync(v, ino, b, false), -EIO);
	assert_int_equal(vfs_fsync(v, ino, b, false), 0);
	/* Somebody has heard of it before it was opened. */
	assert_int_equal(vfs_fsync(v, ino, late, false), 0);
	assert_false(vfs_failed(v));
	vfs_release(v, a);
	vfs_release(v, b);
	vfs_release(v, late);
	vfs_free(v);
	v = open_on(&m, 8u << 20, 0);
	assert_true(file_is(v, find(v, "f"), buf, LEN));
	vfs_free(v);
	memstore_destroy(&m);
}

/* After any failure: what was synced before is there, and the vfs is one that can be read, and mounted again. */
static void after_failure(enum memstore_op op, unsigned nth, int error, bool forever)
{
	enum { FILES = 4, LEN = 30 * PAGE };
	uint8_t *now[FILES], *synced[FILES], *buf = malloc(LEN);
	bool clean[FILES] = {0}, any_synced[FILES] = {0};
	struct rng rng = {nth * 7 + (uint64_t)op};
	uint64_t ino[FILES];
	struct memstore m;
	struct vfs *v;
	bool failed = false;

	memstore_init(&m, 0);
	v = open_on(&m, 4u << 20, 0);
	for (unsigned i = 0; i < FILES; i++) {
		char name[8];

		snprintf(name, sizeof(name), "f%u", i);
		now[i] = calloc(1, LEN);
		synced[i] = calloc(1, LEN);
		ino[i] = make_file(v, name);
	}
	must(vfs_sync(v) == 0);
	memstore_fail(&m, op, nth, error, forever);
	for (unsigned step = 0; step < 60; step++) {
		unsigned i = (unsigned)rng_below(&rng, FILES);
		size_t offset = (size_t)rng_below(&rng, LEN), len = 1 + (size_t)rng_below(&rng, rng_below(&rng, 2) ? LEN - offset : MIN(LEN - offset, (size_t)3000));
		ssize_t n;

		rng_text(&rng, buf, len);
		n = vfs_write(v, ino[i], offset, buf, len, 0);
		must(n == (ssize_t)len || n < 0 || vfs_failed(v) || error);
		if (n > 0) {
			memcpy(now[i] + offset, buf, (size_t)n);
			clean[i] = false;
		}
		if (n != (ssize_t)len)
			failed = true;
		if (step % 3 == 0) {
			int r = vfs_fsync(v, ino[i], NULL, false);

			if (r == 0) {
				clean[i] = any_synced[i] = true;
				memcpy(synced[i], now[i], LEN);
			}
			must(r == 0 || !vfs_failed(v) || vfs_fsync(v, ino[i], NULL, false) < 0);
			failed |= r < 0;
		}
		if (step % 17 == 16)
			failed |= delta_checkpoint(vfs_delta(v)) < 0;
	}
	memstore_fail(&m, op, 0, 0, false);
	/* What can be read is what was written; unless the disk has failed: then perhaps it can't be read. */
	for (unsigned i = 0; i < FILES; i++) {
		ssize_t n = read_all(v, ino[i], 0, LEN, buf);

		must(n >= 0);
		must(!memcmp(buf, now[i], (size_t)n));
	}
	if (!vfs_failed(v)) {
		for (unsigned i = 0; i < FILES; i++)
			must(vfs_fsync(v, ino[i], NULL, false) == 0);
		must(vfs_sync(v) == 0);
		delta_account(vfs_delta(v));
		for (unsigned i = 0; i < FILES; i++) {
			memcpy(synced[i], now[i], LEN);
			clean[i] = any_synced[i] = true;
		}
	} else {
		must(failed);
	}
	vfs_free(v);
	v = open_on(&m, 4u << 20, 0);
	for (unsigned i = 0; i < FILES; i++) {
		char name[8];
		ssize_t n;

		snprintf(name, sizeof(name), "f%u", i);
		memset(buf, 0, LEN);
		n = read_all(v, find(v, name), 0, LEN, buf);
		must(n >= 0);
		/* Newer bytes may be there, too. */
		for (size_t at = 0; any_synced[i] && at < LEN; at++)
			must(buf[at] == synced[i][at] || (!clean[i] && buf[at] == now[i][at]) || !clean[i]);
	}
	delta_account(vfs_delta(v));
	vfs_free(v);
	memstore_destroy(&m);
	for (unsigned i = 0; i < FILES; i++) {
		free(now[i]);
		free(synced[i]);
	}
	free(buf);
}

static void what_was_synced_survives_each_failure_of_the_disk(void **state)
{
	static const struct {
		enum memstore_op op;
		int error;
	} kinds[] = {{MEM_WRITE, -EIO}, {MEM_WRITE, -ENOSPC}, {MEM_FLUSH, -EIO}, {MEM_ALLOCATE, -ENOSPC}, {MEM_ALLOCATE, -EDQUOT},
		{MEM_ALLOCATE, -EIO}, {MEM_READ, -EIO}, {MEM_PUNCH, -EIO}};

	for (size_t k = 0; k < ARRAY_SIZE(kinds); k++)
		for (unsigned nth = 1; nth < 40; nth += kinds[k].op == MEM_WRITE ? 1 : 3)
			for (unsigned forever = 0; forever < 2; forever++) {
				if (tracing)
					fprintf(stderr, "op %u, call %u: %s%s\n", kinds[k].op, nth, strerror(-kinds[k].error), forever ? " for ever" : "");
				after_failure(kinds[k].op, nth, kinds[k].error, forever);
			}
}

static void a_full_disk_loses_nothing_and_takes_deletions(void **state)
{
	enum { MOST = 400, LEN = 12 * PAGE };
	_cleanup_free_ uint8_t *buf = malloc(LEN);
	struct memstore m;
	struct stat st;
	char name[16];

	for (unsigned limited = 0; limited < 2; limited++) {
		struct vfs *v;

		/* 12 MiB: by the disk, or by the mount's option. */
		memstore_init(&m, limited ? 0 : 3072);
		v = open_on(&m, 4u << 20, limited ? 12u << 20 : 0);
		for (unsigned round = 0; round < 3; round++) {
			unsigned made = 0, whole = 0;
			struct rng rng = {round};
			uint64_t ino[MOST];
			int r = 0;

			for (; made < MOST && r == 0; made++) {
				ssize_t n = 0;

				snprintf(name, sizeof(name), "f%u", made);
				r = vfs_mknod(v, VFS_ROOT_INO, name, S_IFREG | 0644, 0, &cred, &st);
				if (r < 0)
					break;
				ino[made] = st.st_ino;
				rng_bytes(&rng, buf, LEN);
				n = vfs_write(v, st.st_ino, 0, buf, LEN, 0);
				whole += n == LEN;
				r = n == LEN ? 0 : -ENOSPC;
			}
			assert_int_equal(r, -ENOSPC);
			trace("limited %u, round %u: %u made, %u whole\n", limited, round, made, whole);
			assert_true(whole > 60 && made < MOST);
			/* What was taken is written; nothing fails later. */
			assert_int_equal(vfs_sync(v), 0);
			assert_false(vfs_failed(v));
			/* Overwriting needs room, and may fail: at once, not when it is synced. */
			for (unsigned i = 0; i < whole; i += 7) {
				uint8_t page[100];

				memset(page, 'x', sizeof(page));
				r = (int)vfs_write(v, ino[i], 0, page, sizeof(page), 0);
				assert_true(r == sizeof(page) || r == -ENOSPC);
				assert_int_equal(vfs_fsync(v, ino[i], NULL, false), 0);
			}
			vfs_free(v);
			v = open_on(&m, 4u << 20, limited ? 12u << 20 : 0);
			rng = (struct rng){round};
			for (unsigned i = 0; i < whole; i++) {
				uint8_t got[LEN];

				rng_bytes(&rng, buf, LEN);
				assert_int_equal(read_all(v, ino[i], 0, LEN, got), LEN);
				assert_memory_equal(got + 100, buf + 100, LEN - 100);
			}
			/* Cutting off and removing go on. */
			for (unsigned i = 0; i < whole; i += 3) {
				struct vfs_setattr set = {.valid = VFS_SET_SIZE, .size = i % 2 ? 5000 : 0};

				assert_int_equal(vfs_setattr(v, ino[i], &set, &st), 0);
			}
			for (unsigned i = 0; i <= made; i++) {
				snprintf(name, sizeof(name), "f%u", i);
				r = vfs_unlink(v, VFS_ROOT_INO, name);
				assert_true(r == 0 || (r == -ENOENT && i >= made));
				vfs_forget(v, i < made ? ino[i] : 1, 100);
			}
			assert_int_equal(vfs_sync(v), 0);
			delta_account(vfs_delta(v));
		}
		vfs_free(v);
		memstore_destroy(&m);
	}
}

/* What an interrupted mount has left to do wants room, that another program has taken meanwhile: its files can be looked at all the same. */
static void a_mount_that_finds_no_room_can_be_read_only(void **state)
{
	enum { LEN = 12 * PAGE };

	for (unsigned orphan = 0; orphan < 2; orphan++) {
		uint8_t buf[LEN], old[LEN];
		struct memstore m, full;
		struct rng rng = {6};
		struct vfs_file *f;
		uint64_t ino, gone;
		struct stat st;
		struct vfs *v;

		memstore_init(&m, 0);
		v = open_on(&m, 8u << 20, 0);
		ino = make_file(v, "f");
		fill(&rng, v, ino, 0, buf, LEN);
		assert_int_equal(vfs_fsync(v, ino, NULL, false), 0);
		if (orphan) {
			gone = make_file(v, "gone");
			fill(&rng, v, gone, 0, old, LEN);
			assert_int_equal(vfs_open(v, gone, O_RDWR, false, &f), 0);
			assert_int_equal(vfs_unlink(v, VFS_ROOT_INO, "gone"), 0);
			assert_int_equal(vfs_sync(v), 0);
			assert_int_equal(delta_checkpoint(vfs_delta(v)), 0);
		}
		memstore_clone_full(&m, &full);
		if (orphan)
			vfs_release(v, f);
		vfs_free(v);
		memstore_destroy(&m);
		for (unsigned round = 0; round < 2; round++) {
			if (round == 0)
				assert_int_equal(try_on(&full, false, &v), -ENOSPC);
			assert_int_equal(try_on(&full, !round, &v), 0);
			assert_int_equal(vfs_writable(v), round);
			assert_true(file_is(v, find(v, "f"), buf, LEN));
			assert_int_equal(vfs_write(v, ino, 0, "x", 1, 0), round ? 1 : -EROFS);
			assert_int_equal(vfs_mkdir(v, VFS_ROOT_INO, "d", 0755, &cred, &st), round ? 0 : -EROFS);
			assert_int_equal(vfs_unlink(v, VFS_ROOT_INO, "f"), round ? 0 : -EROFS);
			assert_int_equal(vfs_sync(v), 0);
			assert_false(vfs_failed(v));
			if (round)
				delta_account(vfs_delta(v));
			vfs_free(v);
			full.capacity += 2000;
		}
		memstore_destroy(&full);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_open_file_hears_once_of_a_failed_writeback),
		cmocka_unit_test(what_was_synced_survives_each_failure_of_the_disk),
		cmocka_unit_test(a_mount_that_finds_no_room_can_be_read_only),
		cmocka_unit_test(a_full_disk_loses_nothing_and_takes_deletions),
	};

	if (getenv("PINFS_TEST"))
		cmocka_set_test_filter(getenv("PINFS_TEST"));
	return cmocka_run_group_tests_name("vfs_write_faults", tests, vfs_setup, vfs_teardown);
}
