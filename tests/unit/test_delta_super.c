/* SPDX-License-Identifier: MIT */
/* Superblocks of a delta: lost ones, those of others, hostile ones; what is only read is not written. */
#include "delta_support.h"

static void one_superblock_is_enough(void **state)
{
	struct delta_options o = plain_options();
	uint8_t junk[PAGE];
	struct memstore m;
	struct delta *d;

	memset(junk, 0x5a, sizeof(junk));
	memstore_init(&m, 0);
	d = create_delta(&m, &o);
	make_inode(d, 500);
	for (unsigned gen = 0; gen < 4; gen++) {
		struct delta_info info;

		make_inode(d, 501 + gen);
		must(delta_checkpoint(d) == 0);
		delta_get_info(d, &info);
		for (unsigned bits = 0; bits < 16; bits++) {
			unsigned newest = 3u << 2 * (info.generation % 2);
			struct memstore h;
			struct delta *other;
			int r;

			memstore_clone(&m, &h);
			for (unsigned slot = 0; slot < PINFS_DELTA_SUPERS; slot++)
				if (bits & 1u << slot)
					memstore_put(&h, slot * PAGE + (gen % 2 ? 0 : 100), junk, PAGE - 100);
			r = try_delta(&h, &o, &other);
			if (bits == 15)
				must(r == (gen % 2 ? -EMEDIUMTYPE : -EUCLEAN));
			/* Both of the newest gone: an older state, or damage, but nothing else. */
			else if ((bits & newest) == newest)
				must(r == 0 || r == -EUCLEAN);
			else
				must(r == 0);
			if (r == 0) {
				if ((bits & newest) != newest) {
					struct delta_inode inode;

					delta_lock(other);
					must(delta_inode_get(other, 501 + gen, &inode) == 0);
					delta_unlock(other);
				}
				delta_close(other);
			}
			memstore_destroy(&h);
		}
	}
	delta_close(d);
	memstore_destroy(&m);
}

static void change_supers(struct memstore *m, void (*fn)(struct pinfs_delta_super *s))
{
	for (unsigned slot = 0; slot < PINFS_DELTA_SUPERS; slot++) {
		struct pinfs_delta_super s;

		memstore_get(m, slot * PAGE, &s, sizeof(s));
		fn(&s);
		s.checksum = pinfs_put64(codec_checksum(&s, sizeof(s) - sizeof(s.checksum)));
		memstore_put(m, slot * PAGE, &s, sizeof(s));
	}
}

static void later_version(struct pinfs_delta_super *s)
{
	s->version_major = pinfs_put16(2);
}

static void later_feature(struct pinfs_delta_super *s)
{
	s->incompat = pinfs_put64(1);
}

static void what_is_not_for_us_is_refused(void **state)
{
	static void (*const later[])(struct pinfs_delta_super *s) = {later_version, later_feature};
	struct delta_options o = plain_options(), other;
	struct memstore m, h;
	struct delta *d;

	memstore_init(&m, 0);
	d = create_delta(&m, &o);
	make_inode(d, 500);
	delta_close(d);
	other = o;
	other.image_uuid[3]++;
	assert_int_equal(try_delta(&m, &other, &d), -ESTALE);
	other = o;
	other.image_hash[3]++;
	assert_int_equal(try_delta(&m, &other, &d), -ESTALE);
	other = o;
	other.image_size++;
	assert_int_equal(try_delta(&m, &other, &d), -ESTALE);
	other = o;
	other.image_inodes++;
	assert_int_equal(try_delta(&m, &other, &d), -ESTALE);
	for (unsigned i = 0; i < ARRAY_SIZE(later); i++) {
		memstore_clone(&m, &h);
		change_supers(&h, later[i]);
		assert_int_equal(try_delta(&h, &o, &d), -EOPNOTSUPP);
		memstore_destroy(&h);
	}
	memstore_destroy(&m);
	memstore_init(&m, 0);
	memstore_put(&m, 0, "something else", 14);
	assert_int_equal(try_delta(&m, &o, &d), -EMEDIUMTYPE);
	memstore_destroy(&m);
}

/* Each field of a superblock, with a right checksum, at its worst. */
static void a_hostile_superblock_is_damage_and_never_worse(void **state)
{
	static const uint64_t values[] = {0, 1, 7, 1u << 20, UINT32_MAX, (uint64_t)1 << 40, INT64_MAX, UINT64_MAX};
	struct delta_options o = plain_options();
	struct memstore m;
	struct delta *d;

	memstore_init(&m, 0);
	d = create_delta(&m, &o);
	make_inode(d, 500);
	must(delta_checkpoint(d) == 0);
	make_inode(d, 501);
	delta_close(d);
	for (unsigned at = 96; at < 248; at += 8)
		for (unsigned v = 0; v < ARRAY_SIZE(values); v++) {
			struct memstore h;
			struct delta *other;
			int r;

			memstore_clone(&m, &h);
			for (unsigned slot = 0; slot < PINFS_DELTA_SUPERS; slot++) {
				struct pinfs_delta_super s;
				pinfs_le64 le = pinfs_put64(values[v]);

				memstore_get(&h, slot * PAGE, &s, sizeof(s));
				memcpy((uint8_t *)&s + at, &le, sizeof(le));
				s.checksum = pinfs_put64(codec_checksum(&s, sizeof(s) - sizeof(s.checksum)));
				memstore_put(&h, slot * PAGE, &s, sizeof(s));
			}
			r = try_delta(&h, &o, &other);
			must(r == 0 || r == -EUCLEAN || r == -ENOMEM);
			if (r == 0) {
				struct delta_inode inode;

				delta_lock(other);
				delta_inode_get(other, 500, &inode);
				delta_unlock(other);
				delta_close(other);
			}
			memstore_destroy(&h);
		}
	memstore_destroy(&m);
}

static void read_only_writes_nothing_and_shows_what_the_log_has(void **state)
{
	struct delta_options o = plain_options(), ro = o, strict = o;
	uint64_t given;
	struct memstore m;
	struct delta *d;

	memstore_init(&m, 0);
	d = create_delta(&m, &o);
	make_inode(d, 500);
	must(delta_checkpoint(d) == 0);
	assert_int_equal(write_logged_page(d, 500, 0, 'x'), 0);
	delta_close(d);
	strict.no_recovery = true;
	assert_int_equal(try_delta(&m, &strict, &d), -EUCLEAN);
	ro.read_only = true;
	m.read_only = true;
	assert_int_equal(try_delta(&m, &ro, &d), 0);
	assert_int_equal(page_is(d, 500, 0, 'x'), 0);
	assert_int_equal(delta_begin(d, 0), -EROFS);
	assert_int_equal(delta_flush(d), 0);
	assert_int_equal(delta_checkpoint(d), -EROFS);
	assert_int_equal(delta_trim(d, 0, UINT64_MAX, 0, &given), -EROFS);
	assert_int_equal(page_is(d, 500, 0, 'x'), 0);
	delta_close(d);
	m.read_only = false;
	assert_int_equal(try_delta(&m, &o, &d), 0);
	must(delta_checkpoint(d) == 0);
	delta_close(d);
	assert_int_equal(try_delta(&m, &strict, &d), 0);
	assert_int_equal(page_is(d, 500, 0, 'x'), 0);
	delta_close(d);
	memstore_destroy(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_superblock_is_enough),
		cmocka_unit_test(what_is_not_for_us_is_refused),
		cmocka_unit_test(a_hostile_superblock_is_damage_and_never_worse),
		cmocka_unit_test(read_only_writes_nothing_and_shows_what_the_log_has),
	};

	if (getenv("PINFS_TEST"))
		cmocka_set_test_filter(getenv("PINFS_TEST"));
	return cmocka_run_group_tests_name("delta_super", tests, NULL, NULL);
}
