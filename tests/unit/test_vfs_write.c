/* SPDX-License-Identifier: MIT */
/* Single behaviours of a writable vfs: sizes, blocks, files without names, ACLs that are inherited; a delta that is only looked at. */
#include "vfs_support.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>

static void a_size_stays_when_the_pages_that_brought_it_are_punched(void **state)
{
	static const uint8_t zeroes[3 * PAGE];
	uint8_t buf[3 * PAGE];
	struct rng rng = {1};
	struct memstore m;
	struct vfs *v;
	uint64_t ino;

	memstore_init(&m, 0);
	v = open_on(&m, 8u << 20, 0);
	ino = make_file(v, "f");
	fill(&rng, v, ino, 0, buf, sizeof(buf));
	assert_int_equal(vfs_fallocate(v, ino, FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE, 0, sizeof(buf)), 0);
	assert_int_equal(vfs_fsync(v, ino, NULL, false), 0);
	vfs_free(v);
	v = open_on(&m, 8u << 20, 0);
	assert_true(file_is(v, find(v, "f"), zeroes, sizeof(zeroes)));
	vfs_free(v);
	memstore_destroy(&m);
}

/* What has no root directory can't be mounted: that is said before it is. */
static void a_delta_without_root_directory_is_refused(void **state)
{
	struct delta_inode inode = {.ino = VFS_ROOT_INO, .mode = S_IFDIR | 0755, .parent = VFS_ROOT_INO, .gone = true};
	struct memstore m;
	struct vfs *v;

	memstore_init(&m, 0);
	v = open_on(&m, 8u << 20, 0);
	assert_int_equal(delta_begin(vfs_delta(v), 0), 0);
	assert_int_equal(delta_inode_put(vfs_delta(v), &inode), 0);
	assert_int_equal(delta_commit(vfs_delta(v)), 0);
	vfs_free(v);
	for (unsigned read_only = 0; read_only < 2; read_only++) {
		struct vfs_delta_options delta = {.store = memstore_open(&m), .read_only = read_only};
		struct vfs_options o = {.name = image_path, .offset = IMAGE_OFFSET_AUTO, .cache_limit = 8u << 20, .delta = &delta};
		char error[IMAGE_ERROR_SIZE] = "";
		struct io_file *io;

		assert_int_equal(io_open(image_path, NULL, &io), 0);
		assert_int_equal(vfs_new(io, &o, &v, error), -EUCLEAN);
		assert_non_null(strstr(error, "damaged"));
	}
	memstore_destroy(&m);
}

/* A crash amid a cut that takes several transactions leaves word of it. Somebody may have made the file immutable meanwhile. */
static void a_cut_that_was_begun_is_ended_whatever_the_flags_are(void **state)
{
	static const uint32_t flags[] = {0, FS_IMMUTABLE_FL, FS_APPEND_FL};
	uint8_t buf[3 * PAGE];
	struct rng rng = {3};
	struct memstore m;
	struct vfs *v;

	for (size_t i = 0; i < ARRAY_SIZE(flags); i++) {
		struct delta_inode inode;
		uint64_t ino, mark;

		memstore_init(&m, 0);
		v = open_on(&m, 8u << 20, 0);
		ino = make_file(v, "f");
		fill(&rng, v, ino, 0, buf, sizeof(buf));
		assert_int_equal(vfs_fsync(v, ino, NULL, false), 0);
		assert_int_equal(vfs_setflags(v, ino, flags[i], 0), 0);
		/* As the first of its transactions leaves it. */
		assert_int_equal(delta_begin(vfs_delta(v), 0), 0);
		assert_int_equal(delta_inode_get(vfs_delta(v), ino, &inode), 0);
		inode.size = PAGE;
		assert_int_equal(delta_inode_put(vfs_delta(v), &inode), 0);
		assert_int_equal(delta_orphan_add(vfs_delta(v), ino), 0);
		assert_int_equal(delta_commit(vfs_delta(v)), 0);
		vfs_free(v);
		v = open_on(&m, 8u << 20, 0);
		assert_true(file_is(v, find(v, "f"), buf, PAGE));
		delta_lock(vfs_delta(v));
		assert_int_equal(delta_orphan_next(vfs_delta(v), 0, &mark), -ENOENT);
		assert_int_equal(delta_inode_get(vfs_delta(v), ino, &inode), 0);
		delta_unlock(vfs_delta(v));
		assert_int_equal(inode.pages, 1);
		vfs_free(v);
		memstore_destroy(&m);
	}
}

/* The blocks of a file of the image that is partly overwritten, again and again, are those that it has. */
static void blocks_are_counted_once_however_often_a_page_is_written(void **state)
{
	struct vfs_setattr cut = {.valid = VFS_SET_SIZE};
	struct stat before, after;
	uint8_t buf[PAGE];
	struct rng rng = {2};
	struct memstore m;
	struct vfs *v;
	uint64_t ino;

	memstore_init(&m, 0);
	v = open_on(&m, 8u << 20, 0);
	ino = find(v, "n8");
	assert_int_equal(vfs_getattr(v, ino, &before), 0);
	assert_true(before.st_size > 10 * (off_t)PAGE);
	for (unsigned i = 0; i < 5; i++) {
		fill(&rng, v, ino, 0, buf, sizeof(buf));
		assert_int_equal(vfs_fsync(v, ino, NULL, false), 0);
	}
	assert_int_equal(delta_checkpoint(vfs_delta(v)), 0);
	assert_int_equal(vfs_getattr(v, ino, &after), 0);
	assert_in_range(after.st_blocks, before.st_blocks - 8, before.st_blocks + 8);
	/* Twice the same hole. */
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(vfs_fallocate(v, ino, FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE, PAGE, 4 * PAGE), 0);
	assert_int_equal(vfs_getattr(v, ino, &after), 0);
	assert_in_range(after.st_blocks, before.st_blocks - 40, before.st_blocks - 24);
	assert_int_equal(vfs_setattr(v, ino, &cut, &after), 0);
	assert_int_equal(after.st_blocks, 0);
	vfs_free(v);
	memstore_destroy(&m);
}

static void a_file_without_name_lives_as_long_as_somebody_knows_it(void **state)
{
	_cleanup_free_ uint8_t *buf = malloc(64 * PAGE);
	struct rng rng = {3};
	struct vfs_file *f;
	struct memstore m;
	struct stat st;
	uint64_t ino, base, full;
	struct vfs *v;

	memstore_init(&m, 0);
	v = open_on(&m, 8u << 20, 0);
	make_file(v, "other");
	base = live_pages(v);
	for (unsigned how = 0; how < 4; how++) {
		ino = make_file(v, "f");
		fill(&rng, v, ino, 0, buf, 64 * PAGE);
		full = live_pages(v);
		assert_true(full >= base + 64);
		assert_int_equal(vfs_open(v, ino, O_RDWR, false, &f), 0);
		assert_int_equal(find(v, "f"), ino);
		/* By its own unlink, or by what is renamed over it. */
		if (how % 2) {
			assert_int_equal(vfs_unlink(v, VFS_ROOT_INO, "f"), 0);
		} else {
			vfs_forget(v, make_file(v, "g"), 1);
			assert_int_equal(vfs_rename(v, VFS_ROOT_INO, "g", VFS_ROOT_INO, "f", 0, &cred), 0);
			assert_int_equal(vfs_unlink(v, VFS_ROOT_INO, "f"), 0);
		}
		assert_true(live_pages(v) + 8 >= full);
		assert_true(file_is(v, ino, buf, 64 * PAGE));
		if (how < 2) {
			vfs_forget(v, ino, 1);
			assert_int_equal(vfs_getattr(v, ino, &st), 0);
			vfs_forget(v, ino, 1);
			assert_int_equal(vfs_getattr(v, ino, &st), 0);
			vfs_release(v, f);
		} else {
			vfs_release(v, f);
			assert_int_equal(vfs_getattr(v, ino, &st), 0);
			vfs_forget(v, ino, 2);
		}
		assert_int_equal(vfs_getattr(v, ino, &st), -ENOENT);
		assert_true(live_pages(v) <= base + 8);
		delta_account(vfs_delta(v));
	}
	vfs_free(v);
	memstore_destroy(&m);
}

static void a_name_that_was_not_made_leaves_nothing_known(void **state)
{
	struct memstore m;
	struct stat st;
	uint64_t ino;
	struct vfs *v;
	int r = 0;

	memstore_init(&m, 0);
	v = open_on(&m, 8u << 20, 0);
	/* The log can't be written: nothing is lost by that, if there was no room. */
	memstore_fail(&m, MEM_WRITE, 1, -ENOSPC, true);
	r = vfs_mknod(v, VFS_ROOT_INO, "f", S_IFREG | 0644, 0, &cred, &st);
	memstore_fail(&m, MEM_WRITE, 0, 0, false);
	assert_int_equal(r, -ENOSPC);
	assert_int_equal(vfs_lookup(v, VFS_ROOT_INO, "f", &st), -ENOENT);
	ino = make_file(v, "f");
	assert_int_equal(vfs_unlink(v, VFS_ROOT_INO, "f"), 0);
	assert_int_equal(vfs_getattr(v, ino, &st), 0);
	vfs_forget(v, ino, 1);
	assert_int_equal(vfs_getattr(v, ino, &st), -ENOENT);
	vfs_free(v);
	memstore_destroy(&m);
}

static void a_delta_that_is_looked_at_is_read_and_never_written(void **state)
{
	struct vfs_setattr set = {.valid = VFS_SET_SIZE, .size = 10};
	uint8_t buf[3 * PAGE];
	struct rng rng = {5};
	struct vfs_file *f;
	struct memstore m;
	struct stat st;
	uint64_t ino, old, given;
	struct vfs *v;

	memstore_init(&m, 0);
	v = open_on(&m, 8u << 20, 0);
	ino = make_file(v, "f");
	fill(&rng, v, ino, 0, buf, sizeof(buf));
	/* Into the log, where it stays. */
	assert_int_equal(vfs_fsync(v, ino, NULL, false), 0);
	vfs_free(v);
	m.read_only = true;
	assert_int_equal(try_on(&m, true, &v), 0);
	assert_false(vfs_writable(v));
	assert_true(file_is(v, ino, buf, sizeof(buf)));
	old = find(v, "n6");
	assert_int_equal(vfs_open(v, ino, O_RDONLY, false, &f), 0);
	assert_int_equal(vfs_fsync(v, ino, f, false), 0);
	vfs_release(v, f);
	assert_int_equal(vfs_sync(v), 0);
	for (unsigned i = 0; i < 2; i++) {
		uint64_t n = i ? old : ino;

		assert_int_equal(vfs_open(v, n, O_RDWR, false, &f), -EROFS);
		assert_int_equal(vfs_write(v, n, 0, "x", 1, 0), -EROFS);
		assert_int_equal(vfs_setattr(v, n, &set, &st), -EROFS);
		assert_int_equal(vfs_fallocate(v, n, FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE, 0, PAGE), -EROFS);
		assert_int_equal(vfs_fallocate(v, n, 0, 0, PAGE), -EROFS);
		assert_int_equal(vfs_copy_range(v, old, 0, n, 0, 10), -EROFS);
		assert_int_equal(vfs_setxattr(v, n, "user.a", "", 0, 0, false), -EROFS);
		assert_int_equal(vfs_removexattr(v, n, "user.a"), -EROFS);
		assert_int_equal(vfs_setflags(v, n, 0, 0), -EROFS);
		assert_int_equal(vfs_link(v, n, VFS_ROOT_INO, "new", &st), -EROFS);
	}
	assert_int_equal(vfs_mkdir(v, VFS_ROOT_INO, "new", 0755, &cred, &st), -EROFS);
	assert_int_equal(vfs_tmpfile(v, VFS_ROOT_INO, 0755, &cred, &st), -EROFS);
	assert_int_equal(vfs_unlink(v, VFS_ROOT_INO, "f"), -EROFS);
	assert_int_equal(vfs_rename(v, VFS_ROOT_INO, "f", VFS_ROOT_INO, "g", 0, &cred), -EROFS);
	assert_int_equal(vfs_trim(v, 0, UINT64_MAX, 0, &given), -EROFS);
	assert_true(file_is(v, ino, buf, sizeof(buf)));
	assert_int_equal(vfs_sync(v), 0);
	vfs_free(v);
	m.read_only = false;
	memstore_destroy(&m);
}

static ssize_t acl_bytes(uint8_t *acl, const unsigned (*entries)[2], unsigned n)
{
	memset(acl, 0, 4);
	acl[0] = 2;
	for (unsigned i = 0; i < n; i++) {
		memset(acl + 4 + i * 8, 0, 8);
		acl_entry(acl + 4 + i * 8, entries[i][0], entries[i][1], entries[i][0] == 2 ? 1000 : UINT32_MAX);
	}
	return (ssize_t)(4 + n * 8);
}

static void new_files_inherit_the_default_acl_of_their_directory(void **state)
{
	static const unsigned with_mask[][2] = {{1, 7}, {2, 7}, {4, 5}, {16, 7}, {32, 4}}, file[][2] = {{1, 6}, {2, 7}, {4, 5}, {16, 6}, {32, 0}},
		dir[][2] = {{1, 7}, {2, 7}, {4, 5}, {16, 5}, {32, 4}}, plain[][2] = {{1, 7}, {4, 5}, {32, 0}};
	uint8_t acl[64], got[64];
	struct memstore m;
	struct stat d, st;
	struct vfs *v;
	ssize_t n;

	memstore_init(&m, 0);
	v = open_on(&m, 8u << 20, 0);
	assert_int_equal(vfs_mkdir(v, VFS_ROOT_INO, "d", 0755, &cred, &d), 0);
	n = acl_bytes(acl, with_mask, 5);
	assert_int_equal(vfs_setxattr(v, d.st_ino, "system.posix_acl_default", acl, (size_t)n, 0, false), 0);
	/* The umask (022) has no say. */
	assert_int_equal(vfs_mknod(v, d.st_ino, "f", S_IFREG | 0660, 0, &cred, &st), 0);
	assert_int_equal(st.st_mode, S_IFREG | 0660);
	n = acl_bytes(acl, file, 5);
	assert_int_equal(vfs_getxattr(v, st.st_ino, "system.posix_acl_access", got, sizeof(got)), n);
	assert_memory_equal(got, acl, (size_t)n);
	assert_int_equal(vfs_getxattr(v, st.st_ino, "system.posix_acl_default", got, sizeof(got)), -ENODATA);
	assert_int_equal(vfs_mkdir(v, d.st_ino, "sub", 0755, &cred, &st), 0);
	assert_int_equal(st.st_mode, S_IFDIR | 0754);
	n = acl_bytes(acl, dir, 5);
	assert_int_equal(vfs_getxattr(v, st.st_ino, "system.posix_acl_access", got, sizeof(got)), n);
	assert_memory_equal(got, acl, (size_t)n);
	n = acl_bytes(acl, with_mask, 5);
	assert_int_equal(vfs_getxattr(v, st.st_ino, "system.posix_acl_default", got, sizeof(got)), n);
	assert_memory_equal(got, acl, (size_t)n);
	/* One that a mode can say becomes one. */
	n = acl_bytes(acl, plain, 3);
	assert_int_equal(vfs_setxattr(v, d.st_ino, "system.posix_acl_default", acl, (size_t)n, 0, false), 0);
	assert_int_equal(vfs_mknod(v, d.st_ino, "g", S_IFREG | 0666, 0, &cred, &st), 0);
	assert_int_equal(st.st_mode, S_IFREG | 0640);
	assert_int_equal(vfs_getxattr(v, st.st_ino, "system.posix_acl_access", got, sizeof(got)), -ENODATA);
	/* Set as an access ACL it takes the one that was there away. */
	n = acl_bytes(acl, with_mask, 5);
	assert_int_equal(vfs_setxattr(v, st.st_ino, "system.posix_acl_access", acl, (size_t)n, 0, false), 0);
	n = acl_bytes(acl, plain, 3);
	assert_int_equal(vfs_setxattr(v, st.st_ino, "system.posix_acl_access", acl, (size_t)n, 0, false), 0);
	assert_int_equal(vfs_getxattr(v, st.st_ino, "system.posix_acl_access", got, sizeof(got)), -ENODATA);
	assert_int_equal(vfs_getattr(v, st.st_ino, &st), 0);
	assert_int_equal(st.st_mode, S_IFREG | 0750);
	/* Only directories have default ones; nonsense is none. */
	assert_int_equal(vfs_setxattr(v, st.st_ino, "system.posix_acl_default", acl, (size_t)n, 0, false), -EACCES);
	assert_int_equal(vfs_setxattr(v, st.st_ino, "system.posix_acl_access", acl, 3, 0, false), -EINVAL);
	assert_int_equal(vfs_setxattr(v, st.st_ino, "system.posix_acl_access", acl, (size_t)n - 8, 0, false), -EINVAL);
	vfs_free(v);
	memstore_destroy(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_size_stays_when_the_pages_that_brought_it_are_punched),
		cmocka_unit_test(a_delta_without_root_directory_is_refused),
		cmocka_unit_test(a_cut_that_was_begun_is_ended_whatever_the_flags_are),
		cmocka_unit_test(blocks_are_counted_once_however_often_a_page_is_written),
		cmocka_unit_test(a_file_without_name_lives_as_long_as_somebody_knows_it),
		cmocka_unit_test(a_name_that_was_not_made_leaves_nothing_known),
		cmocka_unit_test(a_delta_that_is_looked_at_is_read_and_never_written),
		cmocka_unit_test(new_files_inherit_the_default_acl_of_their_directory),
	};

	if (getenv("PINFS_TEST"))
		cmocka_set_test_filter(getenv("PINFS_TEST"));
	return cmocka_run_group_tests_name("vfs_write", tests, vfs_setup, vfs_teardown);
}
