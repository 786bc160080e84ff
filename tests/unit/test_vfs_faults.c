/* SPDX-License-Identifier: MIT */
/* vfs, when something is missing: memory for all readers, bytes from below, a root directory. */
#include "support.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "base/sync.h"
#include "vfs/vfs.h"

#define BIG (5u * (1u << 20) + 321u)

static char *image_path;
static uint8_t *big;

static int setup(void **state)
{
	_cleanup_free_ char *tree = temp_path("tree"), *b = temp_path("tree/big"), *stripes = temp_path("tree/stripes");
	struct rng rng = {1};
	int fd;

	big = malloc(BIG);
	rng_text(&rng, big, BIG / 2);
	rng_bytes(&rng, big + BIG / 2, BIG - BIG / 2);
	assert_int_equal(mkdir(tree, 0755), 0);
	write_file(b, big, BIG);
	/* Data and hole by turns, a page each: the most pieces that a read can have. */
	fd = open(stripes, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
	for (unsigned i = 0; i < 600; i += 2)
		assert_int_equal(pwrite_all(fd, big + i * 4096, 4096, i * 4096), 0);
	assert_int_equal(ftruncate(fd, 600 * 4096), 0);
	close(fd);
	image_path = temp_path("image");
	return mkfs("-b4K", tree, image_path, NULL);
}

static int teardown(void **state)
{
	free(image_path);
	free(big);
	return support_end(state);
}

static struct vfs *open_vfs_io(struct io_file *io, size_t cache_limit, unsigned readahead)
{
	struct vfs_options options = {
		.name = "test", .offset = IMAGE_OFFSET_AUTO, .cache_limit = cache_limit, .readahead_threads = readahead};
	char error[IMAGE_ERROR_SIZE] = "";
	struct vfs *v;
	int r = vfs_new(io, &options, &v, error);

	if (r < 0)
		print_error("%s\n", error);
	assert_int_equal(r, 0);
	return v;
}

static struct vfs *open_vfs(size_t cache_limit)
{
	struct io_file *io;

	assert_int_equal(io_open(image_path, NULL, &io), 0);
	return open_vfs_io(io, cache_limit, 2);
}

static uint64_t find(struct vfs *v, uint64_t dir, const char *name)
{
	struct stat st;

	assert_int_equal(vfs_lookup(v, dir, name, &st), 0);
	return st.st_ino;
}

/* Does a read give `want`? Usable in threads. Returns 0, -errno, or -EILSEQ for wrong bytes. */
static int read_is(struct vfs *v, uint64_t ino, uint64_t offset, size_t len, const uint8_t *want, size_t want_len)
{
	struct vfs_read *r = malloc(sizeof(*r));
	int result = vfs_read_begin(v, ino, offset, len, r);
	size_t at = 0;

	if (result == 0) {
		if (r->bytes != want_len || r->count > VFS_READ_PIECES)
			result = -EILSEQ;
		for (unsigned i = 0; result == 0 && i < r->count; i++) {
			if (memcmp(r->iov[i].iov_base, want + at, r->iov[i].iov_len))
				result = -EILSEQ;
			at += r->iov[i].iov_len;
		}
		if (result == 0 && at != want_len)
			result = -EILSEQ;
		vfs_read_end(v, r, offset % 3 == 0);
	}
	free(r);
	return result;
}

static int read_big(struct vfs *v, uint64_t ino, uint64_t offset, size_t len)
{
	size_t there = offset < BIG ? (size_t)MIN((uint64_t)len, BIG - offset) : 0;

	return read_is(v, ino, offset, len, big + (there ? offset : 0), there);
}

static void the_smallest_pieces_fit_into_one_read(void **state)
{
	struct vfs *v = open_vfs(8 << 20);
	uint64_t ino = find(v, VFS_ROOT_INO, "stripes");
	uint8_t *want = calloc(600, 4096);

	for (unsigned i = 0; i < 600; i += 2)
		memcpy(want + i * 4096, big + i * 4096, 4096);
	for (uint64_t offset = 0; offset < 600 * 4096; offset += 12345)
		assert_int_equal(read_is(v, ino, offset, VFS_READ_MAX, want + offset,
			(size_t)MIN((uint64_t)VFS_READ_MAX, 600 * 4096 - offset)), 0);
	free(want);
	vfs_free(v);
}

/* ---- what fails ---- */

struct flaky {
	uint8_t *bytes;
	size_t len;
	atomic_uint failing; /* in 100 */
	atomic_uint dice;
};

static ssize_t flaky_pread(void *context, void *buf, size_t len, uint64_t offset)
{
	struct flaky *f = context;
	unsigned n = atomic_fetch_add(&f->dice, 37) % 100;

	if (n < f->failing)
		return -EIO;
	if (offset >= f->len)
		return 0;
	len = (size_t)MIN((uint64_t)len, f->len - offset);
	memcpy(buf, f->bytes + offset, len);
	return (ssize_t)len;
}

static struct vfs *open_flaky(struct flaky *f, size_t cache_limit, unsigned readahead)
{
	struct io_options options = {.lanes = 4};
	struct io_source source;
	struct io_file *io;

	f->bytes = read_file(image_path, &f->len);
	source = (struct io_source){flaky_pread, f, f->len};
	assert_int_equal(io_open_source(&source, &options, &io), 0);
	return open_vfs_io(io, cache_limit, readahead);
}

static void a_failed_read_is_repeated_by_the_next_reader(void **state)
{
	struct flaky f = {0};
	/* No readahead: who comes upon a read that fails already shares its error. */
	struct vfs *v = open_flaky(&f, 4 << 20, 0);
	uint64_t ino = find(v, VFS_ROOT_INO, "big");
	struct stat st;

	f.failing = 100;
	assert_int_equal(read_big(v, ino, 1000000, 4096), -EIO);
	assert_int_equal(read_big(v, ino, 1000000, VFS_READ_MAX), -EIO);
	assert_int_equal(vfs_getattr(v, VFS_ROOT_INO, &st), 0);
	f.failing = 0;
	assert_int_equal(read_big(v, ino, 1000000, VFS_READ_MAX), 0);
	/* What was read stays. */
	f.failing = 100;
	assert_int_equal(read_big(v, ino, 1000000, 100000), 0);
	vfs_free(v);
	free(f.bytes);
}

struct crowd {
	struct vfs *v;
	uint64_t ino, seed;
	bool may_fail;
	unsigned good;
};

static void *crowd_main(void *arg)
{
	struct crowd *c = arg;
	struct rng rng = {c->seed};

	for (unsigned i = 0; i < 60; i++) {
		uint64_t offset = rng_below(&rng, BIG);
		int r = read_big(c->v, c->ino, offset, i % 2 ? VFS_READ_MAX : 1 + rng_below(&rng, 70000));

		must(r == 0 || (c->may_fail && r == -EIO));
		c->good += r == 0;
	}
	return NULL;
}

static void run_crowd(struct vfs *v, bool may_fail)
{
	struct crowd c[12];
	pthread_t t[12];
	unsigned good = 0;

	for (unsigned i = 0; i < ARRAY_SIZE(t); i++) {
		c[i] = (struct crowd){v, find(v, VFS_ROOT_INO, "big"), i, may_fail, 0};
		assert_int_equal(thread_start(&t[i], crowd_main, &c[i]), 0);
	}
	for (unsigned i = 0; i < ARRAY_SIZE(t); i++) {
		pthread_join(t[i], NULL);
		good += c[i].good;
	}
	assert_true(good > 0);
}

/* Each reader holds up to 1 MiB of blocks at once; together they want three times what there is. */
static void more_readers_than_memory_wait_for_each_other_and_end(void **state)
{
	struct cache_stats stats;
	struct vfs *v = open_vfs(1);

	run_crowd(v, false);
	vfs_cache_stats(v, &stats);
	assert_true(stats.used <= stats.limit && stats.count.pgsteal > 0);
	vfs_free(v);
}

static void failing_reads_leave_nobody_waiting(void **state)
{
	struct flaky f = {0};
	struct vfs *v = open_flaky(&f, 1, 2);

	f.failing = 5;
	run_crowd(v, true);
	/* Again: what is still being read ahead may fail for some, but not for ever. */
	f.failing = 0;
	run_crowd(v, true);
	run_crowd(v, false);
	vfs_free(v);
	free(f.bytes);
}

static void a_root_that_is_none_is_refused(void **state)
{
	struct vfs_options options = {.name = "test", .cache_limit = 8 << 20};
	char error[IMAGE_ERROR_SIZE] = "";
	struct forge f;
	struct io_file *io;
	struct vfs *v;
	uint8_t *bytes;
	size_t len;

	forge_open(image_path, &f);
	forge_inode(&f, 1)->mode = pinfs_put16(S_IFIFO | 0755);
	forge_inode(&f, 1)->layout = PINFS_LAYOUT_NONE;
	bytes = forge_build(&f, &len);
	assert_int_equal(io_open_memory(bytes, len, &io), 0);
	assert_int_equal(vfs_new(io, &options, &v, error), -EUCLEAN);
	assert_non_null(strstr(error, "root"));
	free(bytes);
	forge_free(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_smallest_pieces_fit_into_one_read),
		cmocka_unit_test(a_failed_read_is_repeated_by_the_next_reader),
		cmocka_unit_test(more_readers_than_memory_wait_for_each_other_and_end),
		cmocka_unit_test(failing_reads_leave_nobody_waiting),
		cmocka_unit_test(a_root_that_is_none_is_refused),
	};

	return cmocka_run_group_tests_name("vfs_faults", tests, setup, teardown);
}
