/* SPDX-License-Identifier: MIT */
/* Transactions, log, replay and checkpoints of a delta against a model of what was committed; names whose hashes collide. */
#include "delta_support.h"

/* 0: as it is; else all names have so many different hashes. */
static unsigned hashes;

uint64_t __real_codec_hash_seeded(const void *data, size_t len, uint64_t seed);
uint64_t __wrap_codec_hash_seeded(const void *data, size_t len, uint64_t seed);

uint64_t __wrap_codec_hash_seeded(const void *data, size_t len, uint64_t seed)
{
	uint64_t h = __real_codec_hash_seeded(data, len, seed);

	return hashes ? h % hashes << 8 : h;
}

#define INODES 40u
#define DIRS 4u
#define NAMES 60u
#define ATTRS 6u
#define FIRST_INO 1000u

struct state {
	struct {
		bool there;
		uint64_t size;
		uint32_t nlink;
	} inode[INODES];
	uint64_t name[DIRS][NAMES]; /* 0: not there */
	struct {
		bool there;
		uint32_t seed, len;
	} attr[DIRS][ATTRS];
	struct {
		uint32_t seed, len;
	} link[DIRS];
	bool orphan[INODES];
	uint64_t files;
};

static void name_of(unsigned i, char ret[PINFS_NAME_MAX + 1])
{
	snprintf(ret, PINFS_NAME_MAX + 1, "name-%u", i);
	/* Names of all lengths. */
	if (i % 3 == 0) {
		size_t len = strlen(ret);

		memset(ret + len, 'x', (size_t)MIN(i * 5, PINFS_NAME_MAX - (unsigned)len));
		ret[MIN(len + i * 5, (size_t)PINFS_NAME_MAX)] = 0;
	}
}

static void bytes_of(uint32_t seed, uint8_t *buf, size_t len)
{
	struct rng rng = {seed};

	rng_bytes(&rng, buf, len);
	for (size_t i = 0; i < len; i++)
		buf[i] |= 1;
}

static int change(struct delta *d, struct state *s, struct rng *rng)
{
	static const size_t sizes[] = {0, 1, 30, 3800, 3890, 3900, 3901, 7799, 7800, 7801, 20000, 65536};
	static uint8_t buf[65536 + 1];
	unsigned i = (unsigned)rng_below(rng, INODES), dir = (unsigned)rng_below(rng, DIRS), n = (unsigned)rng_below(rng, NAMES), a = n % ATTRS;
	char name[PINFS_NAME_MAX + 1], attr[16];
	int r;

	name_of(n, name);
	snprintf(attr, sizeof(attr), "user.%u", a);
	switch (rng_below(rng, 8)) {
	case 0: {
		struct delta_inode inode = {.ino = FIRST_INO + i, .mode = S_IFREG | 0644, .nlink = (uint32_t)rng_below(rng, 100), .size = rng_below(rng, 1u << 30)};

		r = delta_inode_put(d, &inode);
		s->inode[i].there = true;
		s->inode[i].nlink = inode.nlink;
		s->inode[i].size = inode.size;
		return r;
	}
	case 1: {
		bool more = true;

		if (!s->inode[i].there)
			return 0;
		r = delta_inode_delete(d, FIRST_INO + i, &more);
		must(r < 0 || !more);
		s->inode[i].there = false;
		return r;
	}
	case 2:
	case 3: {
		uint64_t ino = 1 + rng_below(rng, 1u << 20);

		s->name[dir][n] = ino;
		return delta_dirent_put(d, 10 + dir, name, strlen(name), ino, 8);
	}
	case 4:
		r = delta_dirent_delete(d, 10 + dir, name, strlen(name));
		must(r == (s->name[dir][n] ? 0 : -ENOENT) || r != -ENOENT);
		s->name[dir][n] = 0;
		return r == -ENOENT ? 0 : r;
	case 5:
		if (s->attr[dir][a].there && rng_below(rng, 2)) {
			s->attr[dir][a].there = false;
			return delta_xattr_delete(d, 20 + dir, attr);
		}
		s->attr[dir][a].there = true;
		s->attr[dir][a].seed = (uint32_t)rng_next(rng);
		s->attr[dir][a].len = (uint32_t)sizes[rng_below(rng, ARRAY_SIZE(sizes))];
		bytes_of(s->attr[dir][a].seed, buf, s->attr[dir][a].len);
		return delta_xattr_put(d, 20 + dir, attr, buf, s->attr[dir][a].len);
	case 6:
		s->orphan[i] = !s->orphan[i];
		return s->orphan[i] ? delta_orphan_add(d, FIRST_INO + i) : delta_orphan_remove(d, FIRST_INO + i);
	default:
		/* A link's target is put once. */
		if (!s->link[dir].len) {
			static const uint32_t lens[] = {1, 3899, 3900, 3901, 4095};

			s->link[dir].seed = (uint32_t)rng_next(rng);
			s->link[dir].len = lens[rng_below(rng, ARRAY_SIZE(lens))];
			bytes_of(s->link[dir].seed, buf, s->link[dir].len);
			buf[s->link[dir].len] = 0;
			return delta_symlink_put(d, 30 + dir, (char *)buf);
		}
		s->files++;
		return delta_files_add(d, 1);
	}
}

static void compare(struct delta *d, const struct state *s)
{
	static uint8_t want[65537], got[65537];
	struct delta_info info;
	uint64_t ino;

	delta_lock(d);
	for (unsigned i = 0; i < INODES; i++) {
		struct delta_inode inode;
		int r = delta_inode_get(d, FIRST_INO + i, &inode);

		must(r == (s->inode[i].there ? 0 : -ENOENT));
		if (r == 0)
			must(inode.size == s->inode[i].size && inode.nlink == s->inode[i].nlink);
		r = delta_orphan_next(d, FIRST_INO + i, &ino);
		must(s->orphan[i] == (r == 0 && ino == FIRST_INO + i));
	}
	for (unsigned dir = 0; dir < DIRS; dir++) {
		char name[PINFS_NAME_MAX + 1], target[PINFS_SYMLINK_MAX + 1];
		struct delta_dirent e;
		uint64_t hash = 0, count = 0, there = 0;
		size_t size;
		int r;

		for (unsigned n = 0; n < NAMES; n++) {
			name_of(n, name);
			r = delta_dirent_get(d, 10 + dir, name, strlen(name), &e);
			must(r == (s->name[dir][n] ? 0 : -ENOENT));
			must(r < 0 || (e.ino == s->name[dir][n] && !strcmp(e.name, name)));
			there += r == 0;
		}
		while ((r = delta_dirent_next(d, 10 + dir, hash, &e)) == 0) {
			hash = e.hash + 1;
			count++;
		}
		must(r == -ENOENT && count == there);
		for (unsigned a = 0; a < ATTRS; a++) {
			ssize_t len;

			snprintf(name, sizeof(name), "user.%u", a);
			len = delta_xattr_get(d, 20 + dir, name, got, sizeof(got));
			must(len == (s->attr[dir][a].there ? (ssize_t)s->attr[dir][a].len : -ENODATA));
			bytes_of(s->attr[dir][a].seed, want, s->attr[dir][a].len);
			must(len < 0 || !memcmp(want, got, (size_t)len));
		}
		for (hash = count = 0; (r = delta_xattr_next(d, 20 + dir, hash, &hash, name, &size)) == 0; hash++)
			count++;
		must(r == -ENOENT);
		for (unsigned a = 0; a < ATTRS; a++)
			count -= s->attr[dir][a].there;
		must(count == 0);
		if (s->link[dir].len) {
			must(delta_symlink_get(d, 30 + dir, target) == 0);
			bytes_of(s->link[dir].seed, want, s->link[dir].len);
			want[s->link[dir].len] = 0;
			must(!strcmp(target, (char *)want));
		}
	}
	delta_unlock(d);
	delta_get_info(d, &info);
	must(info.files == 100 + s->files); /* the image's, and those that were made */
}

static void run_model(uint64_t seed, unsigned steps, uint64_t log_size, unsigned jitter)
{
	struct delta_options o = plain_options();
	struct rng rng = {seed};
	struct state s = {0};
	struct memstore m;
	struct delta *d;

	o.log_size = log_size;
	memstore_init(&m, 0);
	m.jitter = jitter;
	d = create_delta(&m, &o);
	for (unsigned step = 0; step < steps; step++) {
		struct state before = s;
		struct delta_info info, after;
		unsigned n = (unsigned)rng_below(&rng, 6), i;
		int r = 0;

		delta_get_info(d, &info);
		must(delta_begin(d, 0) == 0);
		for (i = 0; i < n && r == 0; i++)
			r = change(d, &s, &rng);
		/* Numbers are not lost by what was undone. */
		if (rng_below(&rng, 2))
			delta_ino_new(d);
		must(r == 0 || (hashes && r == -ENOSPC));
		if (r < 0 || rng_below(&rng, 4) == 0) {
			delta_abort(d);
			s = before;
			delta_get_info(d, &after);
			must(after.next_ino == info.next_ino && after.files == info.files && after.items == info.items);
		} else {
			must(delta_commit(d) == 0);
		}
		if (rng_below(&rng, 40) == 0)
			must(delta_checkpoint(d) == 0);
		if (rng_below(&rng, 40) == 0)
			must(delta_flush(d) == 0);
		if (rng_below(&rng, 60) == 0) {
			d = reopen_delta(d, &m, &o);
			compare(d, &s);
		}
		if (step % 100 == 0)
			compare(d, &s);
	}
	d = reopen_delta(d, &m, &o);
	compare(d, &s);
	delta_account(d);
	compare(d, &s);
	delta_close(d);
	memstore_destroy(&m);
}

static void what_was_committed_is_there_and_what_was_aborted_is_not(void **state)
{
	run_model(1, 2500, 1u << 20, 0);
	run_model(2, 1000, 3u << 20, 0);
	run_model(3, 600, 1u << 20, 8);
}

static void names_of_equal_hashes_are_told_apart(void **state)
{
	hashes = 1;
	run_model(4, 800, 1u << 20, 0);
	hashes = 7;
	run_model(5, 800, 1u << 20, 0);
	hashes = 0;
}

static void more_names_of_one_hash_than_there_are_slots_are_refused(void **state)
{
	struct delta_options o = plain_options();
	struct delta_dirent e;
	struct memstore m;
	struct delta *d;
	char name[16];
	int len;

	hashes = 1;
	memstore_init(&m, 0);
	d = create_delta(&m, &o);
	assert_int_equal(delta_begin(d, 0), 0);
	for (unsigned i = 0; i < 256; i++) {
		len = snprintf(name, sizeof(name), "%u", i);
		assert_int_equal(delta_dirent_put(d, 5, name, (size_t)len, i + 1, 8), 0);
	}
	assert_int_equal(delta_dirent_put(d, 5, "more", 4, 9999, 8), -ENOSPC);
	/* One that is there can be changed; one that went makes room. */
	assert_int_equal(delta_dirent_put(d, 5, "17", 2, 4711, 8), 0);
	assert_int_equal(delta_dirent_delete(d, 5, "200", 3), 0);
	assert_int_equal(delta_dirent_put(d, 5, "more", 4, 9999, 8), 0);
	assert_int_equal(delta_commit(d), 0);
	d = reopen_delta(d, &m, &o);
	delta_lock(d);
	assert_int_equal(delta_dirent_get(d, 5, "17", 2, &e), 0);
	assert_int_equal(e.ino, 4711);
	assert_int_equal(delta_dirent_get(d, 5, "200", 3, &e), -ENOENT);
	assert_int_equal(delta_dirent_get(d, 5, "more", 4, &e), 0);
	delta_unlock(d);
	hashes = 0;
	delta_close(d);
	memstore_destroy(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_was_committed_is_there_and_what_was_aborted_is_not),
		cmocka_unit_test(names_of_equal_hashes_are_told_apart),
		cmocka_unit_test(more_names_of_one_hash_than_there_are_slots_are_refused),
	};

	if (getenv("PINFS_TEST"))
		cmocka_set_test_filter(getenv("PINFS_TEST"));
	return cmocka_run_group_tests_name("delta_items", tests, NULL, NULL);
}
