/* SPDX-License-Identifier: MIT */
/* Files whose pages lie in a memfd that others map: what these see, what becomes of it, and when it ends. */
#include "vfs_support.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include "base/sync.h"

#define CACHE (8u << 20)

/* As a client: the first pages of the memfd, writable if `write`. */
static uint8_t *client_map(const struct vfs_shared *s, size_t pages, bool write)
{
	uint8_t *p = mmap(NULL, pages * PAGE, PROT_READ | (write ? PROT_WRITE : 0), MAP_SHARED, s->memfd, 0);

	assert_true(p != MAP_FAILED);
	return p;
}

/* What a fault does: the page is there, and if `write` may be stored to. */
static int fault(struct vfs *v, const struct vfs_shared *s, uint64_t page, bool write)
{
	struct folio *f = NULL;
	int r = cache_reserve(s->mapping, s->reserve);

	assert_int_equal(r, 0);
	r = cache_page_get(s->mapping, page, &f);
	if (r == 0 && write) {
		folio_lock(f);
		r = folio_attached(f, s->mapping) ? folio_mkwrite(vfs_cache(v), f, 0, 1) : -EAGAIN;
		folio_unlock(f);
	}
	if (f)
		folio_put(vfs_cache(v), f);
	cache_unreserve(s->mapping, s->reserve);
	return r;
}

/* The memfd's pages that take memory. */
static unsigned memfd_pages(const struct vfs_shared *s)
{
	struct stat st;

	assert_int_equal(fstat(s->memfd, &st), 0);
	return (unsigned)(st.st_blocks / (PAGE / 512));
}

static void what_is_mapped_is_what_is_read_and_written(void **state)
{
	enum { PAGES = 20 };
	uint8_t buf[PAGES * PAGE], more[PAGE];
	struct vfs_shared s = {0};
	struct rng rng = {1};
	struct memstore m;
	uint64_t ino;
	uint8_t *map;
	struct vfs *v;

	memstore_init(&m, 0);
	v = open_on(&m, CACHE, 0);
	ino = make_file(v, "f");
	fill(&rng, v, ino, 0, buf, sizeof(buf) - 100);
	memset(buf + sizeof(buf) - 100, 0, 100);
	assert_false(vfs_is_shared(v, ino));
	assert_int_equal(vfs_share(v, ino, &s), 0);
	assert_true(vfs_is_shared(v, ino));
	map = client_map(&s, PAGES + 1, true);
	for (unsigned p = 0; p < PAGES; p++)
		assert_int_equal(fault(v, &s, p, false), 0);
	assert_memory_equal(map, buf, sizeof(buf));
	/* A write is seen there, a store here and on the disk. */
	rng_bytes(&rng, more, sizeof(more));
	assert_int_equal(vfs_write(v, ino, 3 * PAGE + 10, more, 500, 0), 500);
	memcpy(buf + 3 * PAGE + 10, more, 500);
	assert_memory_equal(map, buf, sizeof(buf));
	assert_int_equal(fault(v, &s, 7, true), 0);
	memcpy(map + 7 * PAGE, more, PAGE);
	memcpy(buf + 7 * PAGE, more, PAGE);
	assert_true(file_is(v, ino, buf, sizeof(buf) - 100));
	assert_int_equal(vfs_fsync(v, ino, NULL, false), 0);
	/* Longer: what a client has stored behind the end does not appear. */
	assert_int_equal(fault(v, &s, PAGES - 1, true), 0);
	map[PAGES * PAGE - 50] = 'x';
	assert_int_equal(vfs_write(v, ino, PAGES * PAGE, "y", 1, 0), 1);
	assert_int_equal(map[PAGES * PAGE - 50], 0);
	assert_int_equal(map[PAGES * PAGE], 'y');
	/* A hole, and a shorter file. */
	assert_int_equal(vfs_fallocate(v, ino, FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE, 2 * PAGE, 2 * PAGE), 0);
	memset(buf + 2 * PAGE, 0, 2 * PAGE);
	assert_int_equal(memfd_pages(&s), PAGES + 1 - 2);
	assert_int_equal(vfs_setattr(v, ino, &(struct vfs_setattr){.valid = VFS_SET_SIZE, .size = 10 * PAGE + 5}, &(struct stat){0}), 0);
	assert_int_equal(memfd_pages(&s), 9);
	assert_int_equal(fault(v, &s, 11, false), -EFAULT);
	munmap(map, (PAGES + 1) * PAGE);
	vfs_unshare(v, &s);
	assert_false(vfs_is_shared(v, ino));
	assert_true(file_is(v, ino, buf, 10 * PAGE + 5));
	assert_int_equal(vfs_sync(v), 0);
	vfs_free(v);
	v = open_on(&m, CACHE, 0);
	assert_true(file_is(v, find(v, "f"), buf, 10 * PAGE + 5));
	vfs_free(v);
	memstore_destroy(&m);
}

static void two_share_one_memfd(void **state)
{
	struct vfs_shared a = {0}, b = {0}, none = {0};
	struct memstore m;
	struct vfs *v;
	uint64_t ino;

	memstore_init(&m, 0);
	v = open_on(&m, CACHE, 0);
	ino = make_file(v, "f");
	assert_int_equal(vfs_write(v, ino, 0, "content", 7, 0), 7);
	assert_int_equal(vfs_share(v, ino, &a), 0);
	assert_int_equal(vfs_share(v, ino, &b), 0);
	assert_int_equal(a.memfd, b.memfd);
	assert_true(a.mapping == b.mapping);
	vfs_unshare(v, &a);
	assert_true(vfs_is_shared(v, ino));
	assert_int_equal(fault(v, &b, 0, false), 0);
	assert_int_equal(memfd_pages(&b), 1);
	vfs_unshare(v, &b);
	vfs_unshare(v, &none);
	assert_false(vfs_is_shared(v, ino));
	assert_true(file_is(v, ino, (const uint8_t *)"content", 7));
	vfs_free(v);
	memstore_destroy(&m);
}

/* As one that is open. */
static void a_file_without_a_name_lives_while_it_is_shared(void **state)
{
	struct vfs_shared s = {0};
	struct memstore m;
	struct stat st;
	struct vfs *v;
	uint64_t ino;

	memstore_init(&m, 0);
	v = open_on(&m, CACHE, 0);
	ino = make_file(v, "f");
	assert_int_equal(vfs_write(v, ino, 0, "content", 7, 0), 7);
	assert_int_equal(vfs_share(v, ino, &s), 0);
	assert_int_equal(vfs_unlink(v, VFS_ROOT_INO, "f"), 0);
	vfs_forget(v, ino, 1);
	assert_int_equal(fault(v, &s, 0, false), 0);
	assert_true(file_is(v, ino, (const uint8_t *)"content", 7));
	vfs_unshare(v, &s);
	assert_int_equal(vfs_getattr(v, ino, &st), -ENOENT);
	delta_account(vfs_delta(v));
	vfs_free(v);
	memstore_destroy(&m);
}

static void what_is_no_file_is_not_shared(void **state)
{
	struct vfs_shared s = {0};
	struct memstore m;
	struct stat st;
	struct vfs *v;

	memstore_init(&m, 0);
	v = open_on(&m, CACHE, 0);
	assert_int_equal(vfs_share(v, VFS_ROOT_INO, &s), -EISDIR);
	assert_int_equal(vfs_symlink(v, VFS_ROOT_INO, "link", "f", &cred, &st), 0);
	assert_int_equal(vfs_share(v, st.st_ino, &s), -EINVAL);
	assert_int_equal(vfs_share(v, 1u << 30, &s), -ENOENT);
	assert_null(s.node);
	vfs_free(v);
	memstore_destroy(&m);
}

static void a_limit_on_files_is_said(void **state)
{
	struct rlimit old, small;
	struct vfs_shared s = {0};
	struct memstore m;
	struct vfs *v;
	uint64_t ino;

	memstore_init(&m, 0);
	v = open_on(&m, CACHE, 0);
	ino = make_file(v, "f");
	assert_int_equal(vfs_write(v, ino, 0, "content", 7, 0), 7);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
	small = old;
	small.rlim_cur = 1u << 20;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
	assert_int_equal(vfs_share(v, ino, &s), -EOPNOTSUPP);
	/* Less room than usual is room, too. */
	small.rlim_cur = 2u << 30;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
	assert_int_equal(vfs_share(v, ino, &s), 0);
	assert_in_range(s.pages, 1, (2u << 30) / PAGE);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
	/* And no more than that. */
	assert_int_equal(vfs_write(v, ino, s.pages * PAGE, "x", 1, 0), -EFBIG);
	assert_int_equal(vfs_write(v, ino, s.pages * PAGE - 1, "x", 1, 0), 1);
	vfs_unshare(v, &s);
	assert_int_equal(vfs_write(v, ino, (uint64_t)8 << 30, "x", 1, 0), 1);
	vfs_free(v);
	memstore_destroy(&m);
}

/* Of a mount without a delta: the same pages, and none can be stored to. */
static void files_of_read_only_mounts_are_shared(void **state)
{
	struct vfs_options o = {.name = image_path, .offset = IMAGE_OFFSET_AUTO, .cache_limit = CACHE};
	_cleanup_free_ uint8_t *buf = malloc(FILE_MOST);
	char error[IMAGE_ERROR_SIZE] = "";
	struct vfs_shared s = {0};
	struct io_file *io;
	struct stat st;
	struct vfs *v;

	for (unsigned round = 0; round < 3; round++) {
		static const char *const names[] = {"n5", "n6", "n8"};
		uint8_t *map;
		size_t pages;

		assert_int_equal(io_open(image_path, NULL, &io), 0);
		assert_int_equal(vfs_new(io, &o, &v, error), 0);
		assert_int_equal(vfs_lookup(v, VFS_ROOT_INO, names[round], &st), 0);
		pages = DIV_ROUND_UP((size_t)st.st_size, PAGE);
		assert_int_equal(read_all(v, st.st_ino, 0, FILE_MOST, buf), st.st_size);
		assert_int_equal(vfs_share(v, st.st_ino, &s), 0);
		map = client_map(&s, pages, false);
		for (size_t p = 0; p < pages; p++)
			assert_int_equal(fault(v, &s, p, false), 0);
		assert_memory_equal(map, buf, (size_t)st.st_size);
		for (size_t i = (size_t)st.st_size; i < pages * PAGE; i++)
			assert_int_equal(map[i], 0);
		assert_int_equal(fault(v, &s, 0, true), -EROFS);
		assert_int_equal(fault(v, &s, pages, false), -EFAULT);
		munmap(map, pages * PAGE);
		vfs_unshare(v, &s);
		assert_int_equal(read_all(v, st.st_ino, 0, FILE_MOST, buf), st.st_size);
		vfs_free(v);
	}
}

/* Pages that are pinned when the last one leaves stay where they are; the janitor comes for them, or who shares the file again. */
static void what_is_pinned_keeps_the_memfd(void **state)
{
	struct vfs_shared s = {0};
	struct memstore m;
	struct folio *f;
	uint32_t frame;
	struct vfs *v;
	uint64_t ino;
	int memfd;

	memstore_init(&m, 0);
	v = open_on(&m, CACHE, 0);
	ino = make_file(v, "f");
	assert_int_equal(vfs_write(v, ino, 0, "content", 7, 0), 7);
	assert_int_equal(vfs_share(v, ino, &s), 0);
	memfd = s.memfd;
	assert_int_equal(cache_page_get(s.mapping, 0, &f), 0);
	frame = folio_page_frame(vfs_cache(v), s.mapping, f, 0);
	assert_int_equal(frame_pin(vfs_cache(v), frame, false), 0);
	folio_put(vfs_cache(v), f);
	vfs_unshare(v, &s);
	assert_true(file_is(v, ino, (const uint8_t *)"content", 7));
	assert_int_equal(vfs_share(v, ino, &s), -EBUSY);
	frame_unpin(vfs_cache(v), frame, false);
	assert_int_equal(vfs_share(v, ino, &s), 0);
	assert_int_equal(s.memfd, memfd);
	vfs_unshare(v, &s);
	assert_true(fcntl(memfd, F_GETFD) < 0 && errno == EBADF);
	assert_true(file_is(v, ino, (const uint8_t *)"content", 7));
	vfs_free(v);
	memstore_destroy(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_mapped_is_what_is_read_and_written),
		cmocka_unit_test(two_share_one_memfd),
		cmocka_unit_test(a_file_without_a_name_lives_while_it_is_shared),
		cmocka_unit_test(what_is_no_file_is_not_shared),
		cmocka_unit_test(a_limit_on_files_is_said),
		cmocka_unit_test(files_of_read_only_mounts_are_shared),
		cmocka_unit_test(what_is_pinned_keeps_the_memfd),
	};

	return cmocka_run_group_tests_name("vfs_shared", tests, vfs_setup, vfs_teardown);
}
