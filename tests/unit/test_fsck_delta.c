/* SPDX-License-Identifier: MIT */
/* fsck of a delta as a whole: a sound one is sound, logs, superblocks; nothing is written without being asked for. */
#include "fsck_support.h"

#include <sys/stat.h>

static void sound_deltas_are_sound(void **state)
{
	struct memory m = {0}, before, after;
	struct vfs *v = open_vfs(&m);

	assert_clean(&m);
	change(v);
	before = copy_of(&m);
	assert_clean(&before);
	assert_int_equal(delta_checkpoint(vfs_delta(v)), 0);
	vfs_free(v);
	assert_clean(&m);
	free(before.bytes);
	free(m.bytes);
	after = make_delta(true);
	assert_clean(&after);
	/* Applied by a mount, it is so, too. */
	v = open_vfs(&after);
	assert_non_null(v);
	vfs_free(v);
	assert_clean(&after);
	free(after.bytes);
}

static void nothing_is_written_without_being_asked_for(void **state)
{
	struct memory m = make_delta(true), was = copy_of(&m);
	struct checked c;

	m.bytes[0] ^= 1;
	was.bytes[0] ^= 1;
	c = check(&m, false, false);
	fsck_delta_report_free(&c.report);
	assert_int_equal(m.len, was.len);
	assert_memory_equal(m.bytes, was.bytes, m.len);
	free(m.bytes);
	free(was.bytes);
}

struct writing {
	struct vfs *v;
	uint64_t ino;
	struct a64 stop;
};

static void *write_and_wait(void *context)
{
	struct writing *w = context;
	uint8_t bytes[3 * 4096];

	for (unsigned i = 0; !a64_read(&w->stop); i++) {
		memset(bytes, (int)i, sizeof(bytes));
		must(vfs_write(w->v, w->ino, i % 5 * 4096, bytes, sizeof(bytes), VFS_WRITE_SYNC) == sizeof(bytes));
	}
	return NULL;
}

/* What a checkpoint refers to is never in the part of the log that it gives up. */
static void checkpoints_leave_no_content_in_the_log(void **state)
{
	struct memory at_super = {0};
	struct busy b = {.at_super = &at_super};
	struct writing w = {0};
	pthread_t thread;

	mutex_init(&b.lock, LOCK_TEST);
	w.v = open_vfs_ops(&busy_ops, &b, 0);
	assert_non_null(w.v);
	w.ino = make(w.v, VFS_ROOT_INO, "busy", S_IFREG | 0644);
	assert_int_equal(thread_start(&thread, write_and_wait, &w), 0);
	for (unsigned i = 0; i < 150; i++) {
		struct memory snapshot;

		assert_int_equal(delta_checkpoint(vfs_delta(w.v)), 0);
		mutex_lock(&b.lock);
		snapshot = copy_of(&at_super);
		mutex_unlock(&b.lock);
		assert_clean(&snapshot);
		free(snapshot.bytes);
	}
	a64_set(&w.stop, 1);
	pthread_join(thread, NULL);
	vfs_free(w.v);
	mutex_destroy(&b.lock);
	free(at_super.bytes);
	free(b.m.bytes);
}

/* Writes a page that somebody waits for: it goes into the log. */
static void write_logged(struct vfs *v, uint64_t ino, unsigned from, unsigned to)
{
	uint8_t page[4096];

	for (unsigned i = from; i < to; i++) {
		memset(page, (int)(i % 251 + 1), sizeof(page));
		assert_int_equal(vfs_write(v, ino, i % 40 * 4096ull, page, sizeof(page), VFS_WRITE_SYNC), sizeof(page));
	}
}

/* After a crash: the frames lie at the end of the circle, and at its beginning; the file may have been copied, with holes for zeroes. */
static void a_log_that_went_round_is_applied(void **state)
{
	struct memory m = {0}, crashed;
	struct vfs *v = open_vfs(&m);
	struct vfs_read *r = malloc(sizeof(*r));
	uint64_t ino = make(v, VFS_ROOT_INO, "round", S_IFREG | 0644);

	write_logged(v, ino, 0, 150);
	assert_int_equal(delta_checkpoint(vfs_delta(v)), 0);
	write_logged(v, ino, 150, 300);
	crashed = copy_of(&m);
	vfs_free(v);
	assert_clean(&crashed);
	v = open_vfs(&crashed);
	assert_non_null(v);
	for (unsigned i = 260; i < 300; i++) {
		assert_int_equal(vfs_read_begin(v, ino, i % 40 * 4096ull, 4096, r), 0);
		assert_int_equal(*(const uint8_t *)r->iov[0].iov_base, i % 251 + 1);
		vfs_read_end(v, r, false);
	}
	vfs_free(v);
	assert_clean(&crashed);
	free(crashed.bytes);
	free(m.bytes);
	free(r);
}

/* Frames behind a damaged one still lie in the log, with numbers that later ones have again: they are not taken for those. */
static void frames_that_a_repair_gave_up_are_gone(void **state)
{
	struct memory m = {0}, crashed;
	struct vfs *v = open_vfs(&m);
	uint64_t ino = make(v, VFS_ROOT_INO, "logged", S_IFREG | 0644);
	unsigned frames = 0;
	struct checked c;

	assert_int_equal(delta_checkpoint(vfs_delta(v)), 0);
	write_logged(v, ino, 0, 30);
	crashed = copy_of(&m);
	vfs_free(v);
	free(m.bytes);
	for (size_t at = 4 * 4096; at + 8 <= crashed.len && frames < 10; at += 8)
		if (!memcmp(crashed.bytes + at, "PFRM", 4) && ++frames == 10)
			crashed.bytes[at + 100] ^= 1;
	assert_int_equal(frames, 10);
	c = check(&crashed, true, true);
	assert_int_equal(c.result, 0);
	assert_non_null(strstr(c.report.problems[0].text, "of the log is damaged"));
	assert_int_equal(c.report.left, 0);
	fsck_delta_report_free(&c.report);
	assert_clean(&crashed);
	for (size_t at = 4 * 4096; at + 8 <= crashed.len; at += 8)
		assert_memory_not_equal(crashed.bytes + at, "PFRM", 4);
	v = open_vfs(&crashed);
	assert_non_null(v);
	for (unsigned i = 0; i < 25; i++) {
		write_logged(v, ino, i, i + 1);
		m = copy_of(&crashed);
		assert_clean(&m);
		free(m.bytes);
	}
	vfs_free(v);
	assert_clean(&crashed);
	free(crashed.bytes);
}

/* A mount that only looks applies the log in memory. */
static void a_log_is_applied_without_writing(void **state)
{
	struct vfs_delta_options d = {.read_only = true};
	struct vfs_options o = {.name = "test", .offset = IMAGE_OFFSET_AUTO, .cache_limit = 8u << 20, .delta = &d};
	struct memory m = {0}, crashed, was;
	struct vfs *v = open_vfs(&m);
	struct vfs_read *r = malloc(sizeof(*r));
	uint64_t ino = make(v, VFS_ROOT_INO, "logged", S_IFREG | 0644);
	struct store_ops read_only = memory_ops;
	char error[IMAGE_ERROR_SIZE];
	struct io_file *io;

	write_logged(v, ino, 0, 3);
	crashed = copy_of(&m);
	was = copy_of(&m);
	vfs_free(v);
	read_only.allocate = NULL;
	read_only.pwrite = NULL;
	assert_int_equal(io_open(image_path, NULL, &io), 0);
	assert_int_equal(store_open_ops(&read_only, &crashed, crashed.len, &d.store), 0);
	assert_int_equal(vfs_new(io, &o, &v, error), 0);
	assert_int_equal(vfs_read_begin(v, ino, 2 * 4096, 4096, r), 0);
	assert_int_equal(*(const uint8_t *)r->iov[0].iov_base, 3);
	vfs_read_end(v, r, false);
	vfs_free(v);
	assert_memory_equal(crashed.bytes, was.bytes, was.len);
	free(crashed.bytes);
	free(was.bytes);
	free(m.bytes);
	free(r);
}

static unsigned tree_damages;

static void on_tree_damage(void *context, uint64_t offset, const char *text)
{
	print_error("byte %ju: %s\n", (uintmax_t)offset, text);
	tree_damages++;
}

/* A leaf that lies first below its parent gets empty, and what is put in front of the next one later splits that: the parent's keys stay in order. */
static void trees_stay_in_order_where_their_beginning_went(void **state)
{
	struct delta_options o = {.image_inodes = 10, .no_thread = true, .on_damage = on_tree_damage};
	uint64_t object = 500 << 8 | PINFS_DELTA_XVALUE;
	char error[DELTA_ERROR_SIZE];
	struct delta_item item;
	struct memory m = {0};
	struct store *store;
	struct delta *d;
	uint8_t value[3000] = {1};
	unsigned found = 0;

	assert_int_equal(store_open_ops(&memory_ops, &m, 0, &store), 0);
	assert_int_equal(delta_create(store, &o, &d, error), 0);
	assert_int_equal(delta_begin(d, 0), 0);
	for (unsigned i = 0; i < 15; i++)
		assert_int_equal(delta_item_put(d, object, 1000 + i, value, sizeof(value)), 0);
	for (unsigned i = 0; i < 5; i++)
		assert_int_equal(delta_item_delete(d, object, 1000 + i), 0);
	for (unsigned i = 0; i < 5; i++)
		assert_int_equal(delta_item_put(d, object, 904 - i, value, sizeof(value)), 0);
	assert_int_equal(delta_commit(d), 0);
	assert_int_equal(delta_checkpoint(d), 0);
	delta_close(d);
	assert_int_equal(store_open_ops(&memory_ops, &m, m.len, &store), 0);
	assert_int_equal(delta_open(store, &o, &d, error), 0);
	for (uint64_t offset = 0; delta_item_next(d, object, offset, &item) == 0; offset = item.offset + 1)
		found++;
	assert_int_equal(tree_damages, 0);
	assert_int_equal(found, 15);
	delta_close(d);
	free(m.bytes);
}

static void lost_superblocks_are_said_to_be(void **state)
{
	struct memory m = make_delta(false);
	struct checked c;

	memset(m.bytes, 0, 16384);
	c = check(&m, true, true);
	assert_int_equal(c.result, -EMEDIUMTYPE);
	fsck_delta_report_free(&c.report);
	free(m.bytes);
	m = make_delta(false);
	for (unsigned i = 0; i < 4; i++)
		m.bytes[i * 4096 + 100] ^= 1;
	c = check(&m, true, true);
	assert_int_equal(c.result, -EUCLEAN);
	assert_non_null(strstr(c.report.error, "pinfs discard"));
	fsck_delta_report_free(&c.report);
	free(m.bytes);
}

/* One superblock of each pair: the other one is enough, and both are made again. */
static void superblocks_are_restored(void **state)
{
	for (unsigned i = 0; i < 4; i++) {
		struct memory m = make_delta(true);
		struct checked c;

		m.bytes[i * 4096 + 200] ^= 1;
		c = check(&m, false, false);
		assert_true(has_text(&c.report, "is damaged; its copy is whole"));
		assert_int_equal(c.report.errors, 1);
		fsck_delta_report_free(&c.report);
		c = check(&m, true, false);
		assert_int_equal(c.result, 0);
		assert_int_equal(c.report.left, 0);
		fsck_delta_report_free(&c.report);
		assert_clean(&m);
		free(m.bytes);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sound_deltas_are_sound),
		cmocka_unit_test(nothing_is_written_without_being_asked_for),
		cmocka_unit_test(checkpoints_leave_no_content_in_the_log),
		cmocka_unit_test(a_log_that_went_round_is_applied),
		cmocka_unit_test(frames_that_a_repair_gave_up_are_gone),
		cmocka_unit_test(a_log_is_applied_without_writing),
		cmocka_unit_test(trees_stay_in_order_where_their_beginning_went),
		cmocka_unit_test(lost_superblocks_are_said_to_be),
		cmocka_unit_test(superblocks_are_restored),
	};

	if (getenv("FSCK_FILTER"))
		cmocka_set_test_filter(getenv("FSCK_FILTER"));
	return cmocka_run_group_tests_name("fsck_delta", tests, fsck_setup, fsck_teardown);
}
