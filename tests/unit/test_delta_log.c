/* SPDX-License-Identifier: MIT */
/* The log of a delta: frames of all sizes, round and round; torn ones, and those that somebody hostile made. */
#include "delta_support.h"

static void a_wrapped_log_that_has_not_grown_is_not_full_after_replay(void **state)
{
	struct delta_options o = plain_options();
	struct delta_info info;
	struct memstore m;
	struct delta *d;

	o.log_size = 32u << 20;
	memstore_init(&m, 0);
	d = create_delta(&m, &o);
	make_inode(d, 500);
	for (unsigned i = 0; i < 50; i++)
		must(frame_of(d, 600 + i % 4, 12000) == 0);
	must(delta_checkpoint(d) == 0);
	for (unsigned i = 0; i < 40; i++)
		must(frame_of(d, 600 + i % 4, 12000) == 0);
	assert_int_equal(write_logged_page(d, 500, 0, 'a'), 0);
	/* It went round. */
	assert_true(d->log.head < d->log.tail);
	d = reopen_delta(d, &m, &o);
	delta_get_info(d, &info);
	assert_true(info.log_used < 1u << 20);
	assert_int_equal(delta_checkpoint(d), 0);
	assert_int_equal(page_is(d, 500, 0, 'a'), 0);
	delta_account(d);
	delta_close(d);
	memstore_destroy(&m);
}

static void frames_of_all_sizes_go_round_the_log(void **state)
{
	struct delta_options o = plain_options();
	struct delta_info info;
	struct memstore m;
	struct delta *d;

	for (unsigned grow = 0; grow < 2; grow++) {
		unsigned rounds = 0;
		uint64_t head = 0;

		o.log_size = grow ? 3u << 20 : 1u << 20;
		memstore_init(&m, 0);
		d = create_delta(&m, &o);
		for (unsigned i = 0; i < (grow ? 1500u : 700u); i++) {
			/* Every length of the last item, so that each rest of a page and of the log is met. */
			must(frame_of(d, 700 + i % 3, 1 + (size_t)i * 37 % 30000) == 0);
			rounds += d->log.head < head;
			head = d->log.head;
			if (i % 50 == 7) {
				d = reopen_delta(d, &m, &o);
				/* No frame is lost, none is new. */
				must(frame_of(d, 800, 3000 + i) == 0);
			}
		}
		assert_true(rounds > 2);
		delta_get_info(d, &info);
		assert_int_equal(info.log_bytes, o.log_size);
		delta_account(d);
		delta_close(d);
		memstore_destroy(&m);
	}
}

static void a_transaction_that_is_too_long_changes_nothing(void **state)
{
	struct delta_options o = plain_options();
	struct delta_info before, after;
	struct memstore m;
	struct delta *d;

	memstore_init(&m, 0);
	d = create_delta(&m, &o);
	must(frame_of(d, 600, 100) == 0);
	delta_get_info(d, &before);
	assert_int_equal(frame_of(d, 601, 2u << 20), -ENOSPC);
	delta_get_info(d, &after);
	assert_int_equal(after.items, before.items);
	assert_int_equal(delta_failed(d), 0);
	must(frame_of(d, 602, 100) == 0);
	d = reopen_delta(d, &m, &o);
	delta_get_info(d, &after);
	assert_int_equal(after.items, before.items + 1);
	delta_close(d);
	memstore_destroy(&m);
}

static void a_torn_last_frame_never_was(void **state)
{
	struct delta_options o = plain_options();
	struct memstore m;
	struct delta *d;

	memstore_init(&m, 0);
	d = create_delta(&m, &o);
	for (unsigned i = 0; i < 5; i++)
		must(frame_of(d, 600 + i, 5000) == 0);
	for (unsigned cut = 0; cut < 10000; cut += 333) {
		uint64_t head = d->log.first + d->log.head, end;
		struct delta_info before, after;
		struct memstore torn;
		struct delta *other;

		delta_get_info(d, &before);
		must(frame_of(d, 700 + cut, 9000) == 0);
		end = d->log.first + d->log.head;
		memstore_clone(&m, &torn);
		{
			uint8_t zeroes[16384] = {0};
			uint64_t from = MIN(head + cut, end - 1);

			/* One byte, or all from there on. */
			memstore_put(&torn, from, zeroes, cut % 2 ? (size_t)(end - from) : 1);
			if (cut % 2 == 0) {
				uint8_t x;

				memstore_get(&m, from, &x, 1);
				x ^= 0x40;
				memstore_put(&torn, from, &x, 1);
			}
		}
		must(try_delta(&torn, &o, &other) == 0);
		delta_get_info(other, &after);
		/* The padding behind a frame is nobody's. */
		must(after.items == before.items || head + cut >= end - 8);
		must(frame_of(other, 99999, 100) == 0);
		other = reopen_delta(other, &torn, &o);
		delta_account(other);
		delta_close(other);
		memstore_destroy(&torn);
		must(delta_checkpoint(d) == 0);
	}
	delta_close(d);
	memstore_destroy(&m);
}

/* Seals the frame at `at` anew. */
static void reseal(struct memstore *m, uint64_t at)
{
	struct pinfs_delta_frame f;
	uint8_t *bytes;
	size_t total;

	memstore_get(m, at, &f, sizeof(f));
	total = sizeof(f) + MIN(pinfs_get32(f.len), 1u << 20);
	bytes = malloc(total);
	memstore_get(m, at, bytes, total);
	((struct pinfs_delta_frame *)bytes)->checksum = pinfs_put64(codec_checksum(bytes + 8, total - 8));
	memstore_put(m, at, bytes, total);
	free(bytes);
}

static void a_hostile_log_is_damage_and_never_worse(void **state)
{
	struct delta_options o = plain_options();
	struct rng rng = {11};
	struct memstore m;
	uint64_t at, end;
	struct delta *d;
	unsigned bad = 0, good = 0;

	memstore_init(&m, 0);
	d = create_delta(&m, &o);
	make_inode(d, 500);
	must(delta_checkpoint(d) == 0);
	at = d->log.first + d->log.head;
	must(delta_begin(d, 0) == 0);
	{
		struct delta_inode inode;
		uint64_t got;

		must(delta_inode_get(d, 500, &inode) == 0);
		must(delta_extent_allocate(d, &inode, 3, 5, &got) == 0);
		must(delta_extent_hole(d, &inode, 20, 5) == 0);
		must(delta_extent_image(d, &inode, 40, 5, 3, 0) == 0);
		must(delta_dirent_put(d, 5, "name", 4, 7, 8) == 0);
		must(delta_xattr_put(d, 500, "user.x", "value", 5) == 0);
		must(delta_symlink_put(d, 501, "target") == 0);
		must(delta_orphan_add(d, 500) == 0);
		must(delta_files_add(d, 3) == 0);
		must(delta_inode_put(d, &inode) == 0);
	}
	must(delta_commit(d) == 0);
	end = d->log.first + d->log.head;
	delta_close(d);
	for (unsigned i = 0; i < 3000; i++) {
		struct memstore h;
		struct delta *other = NULL;
		int r;

		memstore_clone(&m, &h);
		for (unsigned n = 1 + (unsigned)rng_below(&rng, 3); n--;) {
			uint64_t where = at + 12 + rng_below(&rng, end - at - 12);
			uint8_t x = (uint8_t)rng_next(&rng);

			where = rng_below(&rng, 3) ? where - where % 8 + rng_below(&rng, 2) * 4 : where;
			x = rng_below(&rng, 3) == 0 ? 0xff : x;
			memstore_put(&h, where, &x, 1);
		}
		reseal(&h, at);
		r = try_delta(&h, &o, &other);
		must(r == 0 || r == -EUCLEAN || r == -ENOSPC);
		good += r == 0;
		bad += r < 0;
		if (r == 0) {
			uint8_t page[PAGE], *data[1] = {page};
			struct delta_extent e;
			char text[PINFS_SYMLINK_MAX + 1], value[100];
			struct delta_inode inode;
			struct delta_dirent dirent;

			delta_lock(other);
			delta_inode_get(other, 500, &inode);
			delta_dirent_get(other, 5, "name", 4, &dirent);
			delta_dirent_next(other, 5, 0, &dirent);
			delta_xattr_get(other, 500, "user.x", value, sizeof(value));
			delta_symlink_get(other, 501, text);
			delta_unlock(other);
			for (uint64_t p = 0; p < 50; p++) {
				delta_lock(other);
				r = delta_extent_get(other, 500, p, &e);
				delta_unlock(other);
				if (r == 0 && e.kind >= PINFS_DELTA_RAW && e.kind != PINFS_DELTA_IMAGE)
					delta_extent_read(other, 500, &e, p, 1, data);
			}
			if (delta_begin(other, 0) == 0) {
				uint64_t done;

				r = delta_inode_get(other, 500, &inode);
				if (r == 0)
					r = delta_extent_drop(other, &inode, 0, UINT64_MAX, &done);
				if (r == 0)
					delta_commit(other);
				else
					delta_abort(other);
			}
			delta_checkpoint(other);
			delta_close(other);
		}
		memstore_destroy(&h);
	}
	assert_true(bad > 100 && good > 100);
	memstore_destroy(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_wrapped_log_that_has_not_grown_is_not_full_after_replay),
		cmocka_unit_test(frames_of_all_sizes_go_round_the_log),
		cmocka_unit_test(a_transaction_that_is_too_long_changes_nothing),
		cmocka_unit_test(a_torn_last_frame_never_was),
		cmocka_unit_test(a_hostile_log_is_damage_and_never_worse),
	};

	if (getenv("PINFS_TEST"))
		cmocka_set_test_filter(getenv("PINFS_TEST"));
	return cmocka_run_group_tests_name("delta_log", tests, NULL, NULL);
}
