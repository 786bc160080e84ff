/* SPDX-License-Identifier: MIT */
/* store: bytes written in any way, past the page cache or through it, are what is read; one writer at a time. */
#include "support.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "io/store.h"
#include "pinfs/format.h"

#define SIZE (4u << 20)
#define PAGE PINFS_PAGE_SIZE

static uint8_t *model, *buf;

static int setup(void **state)
{
	model = aligned_alloc(PAGE, SIZE);
	buf = aligned_alloc(PAGE, SIZE);
	assert_non_null(model);
	assert_non_null(buf);
	return 0;
}

static int teardown(void **state)
{
	free(model);
	free(buf);
	return support_end(state);
}

static void change(struct store *s, struct rng *rng)
{
	/* Half of them on pages' boundaries, from such memory, and long. */
	bool whole = rng_below(rng, 2);
	size_t unit = whole ? PAGE : 1, len = (1 + rng_below(rng, whole ? 128 : 20000)) * unit, at = rng_below(rng, (SIZE - len) / unit + 1) * unit;
	uint64_t first = at / PAGE * PAGE, pages = (at + len - first) / PAGE;

	switch (rng_below(rng, 8)) {
	case 0:
		assert_int_equal(store_flush(s), 0);
		break;
	case 1:
		if (store_punch(s, first, pages * PAGE) == 0)
			memset(model + first, 0, pages * PAGE);
		break;
	case 2:
		/* What is there stays. */
		if (pages)
			store_allocate(s, first, pages * PAGE);
		break;
	default:
		rng_bytes(rng, buf, len);
		assert_int_equal(store_write(s, at, buf, len), 0);
		memcpy(model + at, buf, len);
		store_hurry(s, at, len);
	}
}

static void compare(struct store *s, uint64_t at, size_t len)
{
	assert_int_equal(store_read(s, at, buf, len), 0);
	assert_memory_equal(buf, model + at, len);
}

static void any_mix_of_writes_reads_as_one(const char *path)
{
	struct rng rng = {7};
	struct store *s;

	memset(model, 0, SIZE);
	unlink(path);
	assert_int_equal(store_open(path, STORE_CREATE, &s), 0);
	for (unsigned i = 0; i < 2000; i++) {
		size_t at = rng_below(&rng, SIZE), len = rng_below(&rng, SIZE - at);

		change(s, &rng);
		if (i % 8 == 0)
			compare(s, at, len);
		if (i % 500 == 0) {
			compare(s, 0, SIZE);
			store_close(s);
			assert_int_equal(store_open(path, 0, &s), 0);
		}
	}
	compare(s, 0, SIZE);
	store_close(s);
	unlink(path);
}

static void on_the_disk_any_mix_of_writes_reads_as_one(void **state)
{
	_cleanup_free_ char *path = temp_path("store");

	any_mix_of_writes_reads_as_one(path);
}

static void in_memory_any_mix_of_writes_reads_as_one(void **state)
{
	char path[64];

	snprintf(path, sizeof(path), "/dev/shm/pinfs-test-%d", (int)getpid());
	if (access("/dev/shm", W_OK) < 0)
		skip();
	any_mix_of_writes_reads_as_one(path);
}

static void an_unnamed_one_is_a_store_too(void **state)
{
	struct store *s;

	memset(model, 0, SIZE);
	assert_int_equal(store_open_unnamed(temp_dir(), &s), 0);
	memset(buf, 0x55, SIZE);
	assert_int_equal(store_write(s, PAGE, buf, SIZE - PAGE), 0);
	memset(model + PAGE, 0x55, SIZE - PAGE);
	compare(s, 0, SIZE);
	store_close(s);
}

static void one_writes_or_several_read(void **state)
{
	_cleanup_free_ char *path = temp_path("lock");
	struct store *s, *other;

	assert_int_equal(store_open(path, STORE_CREATE, &s), 0);
	assert_int_equal(store_open(path, STORE_CREATE, &other), -EEXIST);
	assert_int_equal(store_open(path, 0, &other), -EBUSY);
	assert_int_equal(store_open(path, STORE_READ_ONLY, &other), -EBUSY);
	assert_int_equal(store_write(s, 0, "x", 1), 0);
	store_close(s);
	assert_int_equal(store_open(path, STORE_READ_ONLY, &s), 0);
	assert_int_equal(store_open(path, STORE_READ_ONLY, &other), 0);
	assert_int_equal(store_write(s, 0, "y", 1), -EBADF);
	assert_int_equal(store_write(s, 0, buf, SIZE), -EBADF);
	store_close(other);
	store_close(s);
	assert_int_equal(store_open(temp_dir(), STORE_READ_ONLY, &s), -EISDIR);
	unlink(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(on_the_disk_any_mix_of_writes_reads_as_one),
		cmocka_unit_test(in_memory_any_mix_of_writes_reads_as_one),
		cmocka_unit_test(an_unnamed_one_is_a_store_too),
		cmocka_unit_test(one_writes_or_several_read),
	};

	return cmocka_run_group_tests_name("store", tests, setup, teardown);
}
