/* SPDX-License-Identifier: MIT */
/* A delta whose disk is full, or has less and less room. */
#include "delta_support.h"

static void a_log_that_may_not_grow_is_no_failure(void **state)
{
	static const int errors[] = {-ENOSPC, -EDQUOT, -EFBIG, -EIO};

	for (unsigned e = 0; e < ARRAY_SIZE(errors); e++) {
		struct delta_options o = plain_options();
		struct memstore m;
		struct delta *d;

		o.log_size = 8u << 20;
		memstore_init(&m, 0);
		d = create_delta(&m, &o);
		for (unsigned i = 0; i < 2; i++) {
			must(frame_of(d, 600, 90000) == 0);
			must(delta_checkpoint(d) == 0);
		}
		memstore_fail(&m, MEM_ALLOCATE, 1, errors[e], true);
		for (unsigned i = 0; i < 30; i++)
			must(frame_of(d, 600, 90000) == 0);
		assert_int_equal(d->log.limit, 1u << 20);
		assert_int_equal(delta_failed(d), 0);
		delta_close(d);
		memstore_destroy(&m);
	}
}

/* Where nothing can be promised, zeroes are: some of a step, then the disk is full. The next one doesn't take what was not written for a place. */
static void a_step_of_the_log_that_was_written_in_part_is_none(void **state)
{
	struct delta_options o = plain_options();
	struct memstore m;
	struct delta *d;
	uint64_t limit;

	o.log_size = 8u << 20;
	memstore_init(&m, 0);
	memstore_fail(&m, MEM_ALLOCATE, 1, -EOPNOTSUPP, true);
	d = create_delta(&m, &o);
	for (unsigned i = 0; i < 2; i++) {
		must(frame_of(d, 600, 90000) == 0);
		must(delta_checkpoint(d) == 0);
	}
	limit = d->log.limit;
	assert_int_equal(limit, 1u << 20);
	m.capacity = m.taken + 100;
	assert_false(log_grow(d));
	assert_int_equal(d->log.limit, limit);
	assert_true(d->log.ready > limit);
	delta_close(d);
	/* All else is taken by another. */
	m.capacity = m.taken;
	assert_int_equal(try_delta(&m, &o, &d), 0);
	assert_true(d->log.ready > limit);
	assert_int_equal(d->log.limit, limit);
	for (unsigned i = 0; i < 30; i++) {
		int r = frame_of(d, 600, 90000);

		must(r == 0 || r == -ENOSPC);
	}
	assert_int_equal(d->log.limit, limit);
	assert_int_equal(delta_failed(d), 0);
	delta_close(d);
	memstore_destroy(&m);
}

/* Another program has taken the room that the content in the log was to move to. */
static void a_log_that_finds_no_room_can_be_looked_at(void **state)
{
	enum { PAGES = 40 };
	struct delta_options o = plain_options(), ro = o;
	struct memstore m, full;
	struct delta *d;

	ro.read_only = true;
	memstore_init(&m, 0);
	d = create_delta(&m, &o);
	make_inode(d, 500);
	for (unsigned i = 0; i < PAGES; i++)
		must(write_logged_page(d, 500, i, (uint8_t)(i + 1)) == 0);
	memstore_clone_full(&m, &full);
	delta_close(d);
	memstore_destroy(&m);
	for (unsigned round = 0; round < 2; round++) {
		/* In the second one there is room for some of it. */
		full.capacity += round * PAGES / 2;
		assert_int_equal(try_delta(&full, &o, &d), -ENOSPC);
		assert_int_equal(try_delta(&full, &ro, &d), 0);
		for (unsigned i = 0; i < PAGES; i++)
			assert_int_equal(page_is(d, 500, i, (uint8_t)(i + 1)), 0);
		delta_close(d);
	}
	full.capacity += 1000;
	assert_int_equal(try_delta(&full, &o, &d), 0);
	assert_int_equal(write_logged_page(d, 500, PAGES, 'x'), 0);
	assert_int_equal(delta_checkpoint(d), 0);
	for (unsigned i = 0; i < PAGES; i++)
		assert_int_equal(page_is(d, 500, i, (uint8_t)(i + 1)), 0);
	delta_account(d);
	delta_close(d);
	memstore_destroy(&full);
}

static void an_aborted_allocation_leaves_no_page_taken(void **state)
{
	struct delta_options o = plain_options();
	struct space_stats stats;
	struct memstore m;
	struct delta *d;

	memstore_init(&m, 0);
	d = create_delta(&m, &o);
	make_inode(d, 500);
	for (unsigned i = 0; i < 3; i++) {
		struct delta_inode inode;
		uint64_t got;

		must(delta_begin(d, 0) == 0);
		must(delta_inode_get(d, 500, &inode) == 0);
		must(delta_extent_allocate(d, &inode, 0, 100, &got) == 0);
		delta_abort(d);
		delta_lock(d);
		space_get_stats(d->space, &stats);
		delta_unlock(d);
		assert_int_equal(stats.flight, 0);
	}
	delta_account(d);
	delta_close(d);
	memstore_destroy(&m);
}

static void a_full_disk_keeps_what_was_acknowledged_and_takes_deletions(void **state)
{
	struct delta_options o = plain_options();
	struct memstore m;
	struct delta *d;

	for (unsigned round = 0; round < 2; round++) {
		unsigned made = 0;
		int r = 0;

		o.limit = round ? 6u << 20 : 0;
		memstore_init(&m, round ? 0 : 1500);
		d = create_delta(&m, &o);
		while (r == 0 && made < 5000) {
			r = frame_of(d, 2000 + made, 5000);
			made += r == 0;
		}
		assert_int_equal(r, -ENOSPC);
		assert_true(made > 150 && made < 1500);
		assert_int_equal(delta_failed(d), 0);
		d = reopen_delta(d, &m, &o);
		for (unsigned i = 0; i < made; i++) {
			bool more = true;
			const void *value;
			size_t len;

			delta_lock(d);
			assert_int_equal(tree_get(d->tree, KEY(2000 + i, PINFS_DELTA_XVALUE, 0), &value, &len), 0);
			delta_unlock(d);
			assert_int_equal(delta_begin(d, DELTA_SHRINKS), 0);
			assert_int_equal(txn_delete(d, KEY(2000 + i, PINFS_DELTA_XVALUE, 0)), 0);
			assert_int_equal(txn_delete(d, KEY(2000 + i, PINFS_DELTA_XVALUE, 1)), 0);
			assert_int_equal(delta_commit(d), 0);
			(void)more;
		}
		/* There is room again. */
		for (unsigned i = 0; i < made / 2; i++)
			assert_int_equal(frame_of(d, 2000 + i, 5000), 0);
		delta_account(d);
		delta_close(d);
		memstore_destroy(&m);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_log_that_may_not_grow_is_no_failure),
		cmocka_unit_test(a_step_of_the_log_that_was_written_in_part_is_none),
		cmocka_unit_test(a_log_that_finds_no_room_can_be_looked_at),
		cmocka_unit_test(an_aborted_allocation_leaves_no_page_taken),
		cmocka_unit_test(a_full_disk_keeps_what_was_acknowledged_and_takes_deletions),
	};

	if (getenv("PINFS_TEST"))
		cmocka_set_test_filter(getenv("PINFS_TEST"));
	return cmocka_run_group_tests_name("delta_full", tests, NULL, NULL);
}
