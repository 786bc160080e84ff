/* SPDX-License-Identifier: MIT */
/*
 * delta: transactions, log, replay, checkpoints, flushes, against a model of what was committed; names whose hashes collide; logs and superblocks
 * that were damaged or made by somebody hostile; disks that fail and are full.
 */
#include "support.h"

#include <stdatomic.h>

#include "delta/internal.h"
#include "memstore.h"

#define PAGE PINFS_PAGE_SIZE

/* 0: as it is; else all names have so many different hashes. */
static unsigned hashes;

uint64_t __real_codec_hash_seeded(const void *data, size_t len, uint64_t seed);
uint64_t __wrap_codec_hash_seeded(const void *data, size_t len, uint64_t seed);

uint64_t __wrap_codec_hash_seeded(const void *data, size_t len, uint64_t seed)
{
	uint64_t h = __real_codec_hash_seeded(data, len, seed);

	return hashes ? h % hashes << 8 : h;
}

static unsigned damages;
static char damage[256];

static void on_damage(void *context, uint64_t offset, const char *text)
{
	damages++;
	snprintf(damage, sizeof(damage), "%s", text);
}

static struct delta_options plain(void)
{
	struct delta_options o = {.image_size = 12345, .image_inodes = 100, .log_size = 1u << 20, .no_thread = true, .on_damage = on_damage};

	memset(o.image_uuid, 7, sizeof(o.image_uuid));
	memset(o.image_hash, 8, sizeof(o.image_hash));
	return o;
}

static struct delta *create(struct memstore *m, const struct delta_options *o)
{
	char error[DELTA_ERROR_SIZE] = "";
	struct delta *d;
	int r = delta_create(memstore_open(m), o, &d, error);

	if (r < 0)
		fprintf(stderr, "%s\n", error);
	must(r == 0);
	return d;
}

static int try_open(struct memstore *m, const struct delta_options *o, struct delta **ret)
{
	char error[DELTA_ERROR_SIZE] = "";
	struct store *s = memstore_open(m);
	int r = delta_open(s, o, ret, error);

	if (r < 0) {
		must(error[0]);
		store_close(s);
	}
	return r;
}

static struct delta *reopen(struct delta *d, struct memstore *m, const struct delta_options *o)
{
	int r;

	delta_close(d);
	r = try_open(m, o, &d);
	if (r < 0)
		fprintf(stderr, "opening: %s (%s)\n", strerror(-r), damage);
	must(r == 0);
	return d;
}

/* ---- the model ---- */

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
	struct delta_options o = plain();
	struct rng rng = {seed};
	struct state s = {0};
	struct memstore m;
	struct delta *d;

	o.log_size = log_size;
	memstore_init(&m, 0);
	m.jitter = jitter;
	d = create(&m, &o);
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
			d = reopen(d, &m, &o);
			compare(d, &s);
		}
		if (step % 100 == 0)
			compare(d, &s);
	}
	d = reopen(d, &m, &o);
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
	struct delta_options o = plain();
	struct delta_dirent e;
	struct memstore m;
	struct delta *d;
	char name[16];
	int len;

	hashes = 1;
	memstore_init(&m, 0);
	d = create(&m, &o);
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
	d = reopen(d, &m, &o);
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

/* ---- the log ---- */

/* One frame of about `bytes`. */
static int frame_of(struct delta *d, uint64_t ino, size_t bytes)
{
	static _Atomic(uint64_t) counter;
	uint8_t value[PINFS_DELTA_ITEM_MAX] __attribute__((aligned(8)));
	int r = delta_begin(d, 0);

	if (r < 0)
		return r;
	memset(value, (int)ino, sizeof(value));
	for (size_t i = 0; r == 0 && i * PINFS_DELTA_ITEM_MAX < bytes; i++) {
		size_t n = MIN(bytes - i * PINFS_DELTA_ITEM_MAX, (size_t)PINFS_DELTA_ITEM_MAX);

		/* Another value than the last time, or there is nothing to say. */
		if (n >= 8)
			*(uint64_t *)value = counter++;
		else
			value[0] = (uint8_t)counter++;
		r = txn_put(d, KEY(ino, PINFS_DELTA_XVALUE, i), value, n);
	}
	if (r < 0) {
		delta_abort(d);
		return r;
	}
	return delta_commit(d);
}

static int nothing_more(void *context, struct delta_inode *inode, uint64_t end)
{
	inode->size = MAX(inode->size, end);
	return 0;
}

static void make_inode(struct delta *d, uint64_t ino)
{
	struct delta_inode inode = {.ino = ino, .mode = S_IFREG | 0644, .nlink = 1};

	must(delta_begin(d, 0) == 0);
	must(delta_inode_put(d, &inode) == 0);
	must(delta_commit(d) == 0);
}

/* One page, into the log. */
static int write_logged_page(struct delta *d, uint64_t ino, uint64_t page, uint8_t byte)
{
	uint8_t buf[PAGE];
	const uint8_t *data[1] = {buf};
	struct delta_write w = {.ino = ino, .page = page, .count = 1, .data = data, .bytes = PAGE, .reserved = 1, .sync = true};
	int r = delta_reserve(d, 1);

	memset(buf, byte, sizeof(buf));
	if (r == 0) {
		r = delta_write(d, &w, nothing_more, NULL);
		if (r < 0)
			delta_unreserve(d, 1);
	}
	return r;
}

static int page_is(struct delta *d, uint64_t ino, uint64_t page, uint8_t byte)
{
	uint8_t buf[PAGE], *data[1] = {buf};
	struct delta_extent e;
	int r;

	delta_lock(d);
	r = delta_extent_get(d, ino, page, &e);
	delta_unlock(d);
	if (r == 0)
		r = delta_extent_read(d, ino, &e, page, 1, data);
	for (unsigned i = 0; r == 0 && i < PAGE; i++)
		if (buf[i] != byte)
			r = -EILSEQ;
	return r;
}

static void a_wrapped_log_that_has_not_grown_is_not_full_after_replay(void **state)
{
	struct delta_options o = plain();
	struct delta_info info;
	struct memstore m;
	struct delta *d;

	o.log_size = 32u << 20;
	memstore_init(&m, 0);
	d = create(&m, &o);
	make_inode(d, 500);
	for (unsigned i = 0; i < 50; i++)
		must(frame_of(d, 600 + i % 4, 12000) == 0);
	must(delta_checkpoint(d) == 0);
	for (unsigned i = 0; i < 40; i++)
		must(frame_of(d, 600 + i % 4, 12000) == 0);
	assert_int_equal(write_logged_page(d, 500, 0, 'a'), 0);
	/* It went round. */
	assert_true(d->log.head < d->log.tail);
	d = reopen(d, &m, &o);
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
	struct delta_options o = plain();
	struct delta_info info;
	struct memstore m;
	struct delta *d;

	for (unsigned grow = 0; grow < 2; grow++) {
		unsigned rounds = 0;
		uint64_t head = 0;

		o.log_size = grow ? 3u << 20 : 1u << 20;
		memstore_init(&m, 0);
		d = create(&m, &o);
		for (unsigned i = 0; i < (grow ? 1500u : 700u); i++) {
			/* Every length of the last item, so that each rest of a page and of the log is met. */
			must(frame_of(d, 700 + i % 3, 1 + (size_t)i * 37 % 30000) == 0);
			rounds += d->log.head < head;
			head = d->log.head;
			if (i % 50 == 7) {
				d = reopen(d, &m, &o);
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
	struct delta_options o = plain();
	struct delta_info before, after;
	struct memstore m;
	struct delta *d;

	memstore_init(&m, 0);
	d = create(&m, &o);
	must(frame_of(d, 600, 100) == 0);
	delta_get_info(d, &before);
	assert_int_equal(frame_of(d, 601, 2u << 20), -ENOSPC);
	delta_get_info(d, &after);
	assert_int_equal(after.items, before.items);
	assert_int_equal(delta_failed(d), 0);
	must(frame_of(d, 602, 100) == 0);
	d = reopen(d, &m, &o);
	delta_get_info(d, &after);
	assert_int_equal(after.items, before.items + 1);
	delta_close(d);
	memstore_destroy(&m);
}

static void a_torn_last_frame_never_was(void **state)
{
	struct delta_options o = plain();
	struct memstore m;
	struct delta *d;

	memstore_init(&m, 0);
	d = create(&m, &o);
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
		must(try_open(&torn, &o, &other) == 0);
		delta_get_info(other, &after);
		/* The padding behind a frame is nobody's. */
		must(after.items == before.items || head + cut >= end - 8);
		must(frame_of(other, 99999, 100) == 0);
		other = reopen(other, &torn, &o);
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
	struct delta_options o = plain();
	struct rng rng = {11};
	struct memstore m;
	uint64_t at, end;
	struct delta *d;
	unsigned bad = 0, good = 0;

	memstore_init(&m, 0);
	d = create(&m, &o);
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
		r = try_open(&h, &o, &other);
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

/* ---- superblocks ---- */

static void one_superblock_is_enough(void **state)
{
	struct delta_options o = plain();
	uint8_t junk[PAGE];
	struct memstore m;
	struct delta *d;

	memset(junk, 0x5a, sizeof(junk));
	memstore_init(&m, 0);
	d = create(&m, &o);
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
			r = try_open(&h, &o, &other);
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
	struct delta_options o = plain(), other;
	struct memstore m, h;
	struct delta *d;

	memstore_init(&m, 0);
	d = create(&m, &o);
	make_inode(d, 500);
	delta_close(d);
	other = o;
	other.image_uuid[3]++;
	assert_int_equal(try_open(&m, &other, &d), -ESTALE);
	other = o;
	other.image_hash[3]++;
	assert_int_equal(try_open(&m, &other, &d), -ESTALE);
	other = o;
	other.image_size++;
	assert_int_equal(try_open(&m, &other, &d), -ESTALE);
	other = o;
	other.image_inodes++;
	assert_int_equal(try_open(&m, &other, &d), -ESTALE);
	for (unsigned i = 0; i < ARRAY_SIZE(later); i++) {
		memstore_clone(&m, &h);
		change_supers(&h, later[i]);
		assert_int_equal(try_open(&h, &o, &d), -EOPNOTSUPP);
		memstore_destroy(&h);
	}
	memstore_destroy(&m);
	memstore_init(&m, 0);
	memstore_put(&m, 0, "something else", 14);
	assert_int_equal(try_open(&m, &o, &d), -EMEDIUMTYPE);
	memstore_destroy(&m);
}

/* Each field of a superblock, with a right checksum, at its worst. */
static void a_hostile_superblock_is_damage_and_never_worse(void **state)
{
	static const uint64_t values[] = {0, 1, 7, 1u << 20, UINT32_MAX, (uint64_t)1 << 40, INT64_MAX, UINT64_MAX};
	struct delta_options o = plain();
	struct memstore m;
	struct delta *d;

	memstore_init(&m, 0);
	d = create(&m, &o);
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
			r = try_open(&h, &o, &other);
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
	struct delta_options o = plain(), ro = o, strict = o;
	uint64_t given;
	struct memstore m;
	struct delta *d;

	memstore_init(&m, 0);
	d = create(&m, &o);
	make_inode(d, 500);
	must(delta_checkpoint(d) == 0);
	assert_int_equal(write_logged_page(d, 500, 0, 'x'), 0);
	delta_close(d);
	strict.no_recovery = true;
	assert_int_equal(try_open(&m, &strict, &d), -EUCLEAN);
	ro.read_only = true;
	m.read_only = true;
	assert_int_equal(try_open(&m, &ro, &d), 0);
	assert_int_equal(page_is(d, 500, 0, 'x'), 0);
	assert_int_equal(delta_begin(d, 0), -EROFS);
	assert_int_equal(delta_flush(d), 0);
	assert_int_equal(delta_checkpoint(d), -EROFS);
	assert_int_equal(delta_trim(d, 0, UINT64_MAX, 0, &given), -EROFS);
	assert_int_equal(page_is(d, 500, 0, 'x'), 0);
	delta_close(d);
	m.read_only = false;
	assert_int_equal(try_open(&m, &o, &d), 0);
	must(delta_checkpoint(d) == 0);
	delta_close(d);
	assert_int_equal(try_open(&m, &strict, &d), 0);
	assert_int_equal(page_is(d, 500, 0, 'x'), 0);
	delta_close(d);
	memstore_destroy(&m);
}

/* ---- flushing ---- */

struct flusher {
	struct delta *d;
	uint64_t ino;
	atomic_uint *committed;
	int result;
};

static void *flusher_main(void *arg)
{
	struct flusher *f = arg;

	must(frame_of(f->d, f->ino, 100) == 0);
	atomic_fetch_add(f->committed, 1);
	f->result = delta_flush(f->d);
	return NULL;
}

static void who_waits_shares_a_flush(void **state)
{
	enum { CROWD = 12 };

	for (unsigned fail = 0; fail < 2; fail++) {
		struct delta_options o = plain();
		struct flusher f[CROWD + 1];
		pthread_t threads[CROWD + 1];
		atomic_uint committed = 0;
		uint64_t before;
		struct memstore m;
		struct delta *d;

		memstore_init(&m, 0);
		d = create(&m, &o);
		before = memstore_count(&m, MEM_FLUSH);
		memstore_hold(&m, true);
		for (unsigned i = 0; i <= CROWD; i++) {
			f[i] = (struct flusher){d, 900 + i, &committed, 1};
			must(thread_start(&threads[i], flusher_main, &f[i]) == 0);
			/* The first is in its flush when the others come. */
			if (i == 0)
				memstore_wait_flushes(&m, 1);
		}
		while (atomic_load(&committed) <= CROWD)
			sched_yield();
		if (fail)
			memstore_fail(&m, MEM_FLUSH, 1, -EIO, false);
		memstore_hold(&m, false);
		for (unsigned i = 0; i <= CROWD; i++) {
			pthread_join(threads[i], NULL);
			assert_int_equal(f[i].result, fail ? -EIO : 0);
		}
		assert_int_equal(memstore_count(&m, MEM_FLUSH) - before, fail ? 1 : 2);
		assert_int_equal(delta_failed(d), fail ? -EIO : 0);
		if (fail) {
			assert_int_equal(delta_begin(d, 0), -EIO);
			assert_int_equal(delta_flush(d), -EIO);
			assert_int_equal(delta_checkpoint(d), -EIO);
			assert_int_equal(delta_reserve(d, 1), -EIO);
		}
		/* Its process has written them all the same. */
		d = reopen(d, &m, &o);
		for (unsigned i = 0; i <= CROWD; i++) {
			const void *value;
			size_t len;

			delta_lock(d);
			assert_int_equal(tree_get(d->tree, KEY(900 + i, PINFS_DELTA_XVALUE, 0), &value, &len), 0);
			delta_unlock(d);
		}
		delta_close(d);
		memstore_destroy(&m);
	}
}

static void *checkpoint_main(void *arg)
{
	struct flusher *f = arg;

	atomic_fetch_add(f->committed, 1);
	f->result = delta_checkpoint(f->d);
	return NULL;
}

/* The kernel tells one of them only. */
static void a_failed_flush_is_the_failure_of_a_checkpoint_beside_it(void **state)
{
	for (unsigned i = 0; i < 20; i++) {
		struct delta_options o = plain();
		struct flusher f, c;
		pthread_t a, b;
		atomic_uint ready = 0;
		struct memstore m;
		struct delta *d;

		memstore_init(&m, 0);
		d = create(&m, &o);
		f = (struct flusher){d, 900, &ready, 1};
		c = (struct flusher){d, 0, &ready, 1};
		memstore_hold(&m, true);
		must(thread_start(&a, flusher_main, &f) == 0);
		memstore_wait_flushes(&m, 1);
		must(thread_start(&b, checkpoint_main, &c) == 0);
		while (atomic_load(&ready) < 2)
			sched_yield();
		for (unsigned n = 0; n < 1000 * (i % 4); n++)
			sched_yield();
		memstore_fail(&m, MEM_FLUSH, 1, -EIO, false);
		memstore_hold(&m, false);
		pthread_join(a, NULL);
		pthread_join(b, NULL);
		assert_int_equal(f.result, -EIO);
		assert_int_equal(c.result, -EIO);
		delta_close(d);
		memstore_destroy(&m);
	}
}

struct worker {
	struct delta *d;
	unsigned self, done;
	atomic_uint *stop;
};

/* Counts up, each number one transaction: in an item, and in the pages that it holds. */
static void *worker_main(void *arg)
{
	struct worker *w = arg;
	uint64_t ino = 1000 + w->self;

	while (!*w->stop) {
		struct delta_inode inode;

		must(delta_begin(w->d, 0) == 0);
		must(delta_inode_get(w->d, ino, &inode) == 0);
		inode.size = ++w->done;
		must(delta_inode_put(w->d, &inode) == 0);
		if (w->done % 5 == 0) {
			delta_abort(w->d);
			w->done--;
			must(frame_of(w->d, ino + 100, 500 + w->done % 8000) == 0);
			must(write_logged_page(w->d, ino, w->done % 7, (uint8_t)w->done) == 0);
			must(page_is(w->d, ino, w->done % 7, (uint8_t)w->done) == 0);
			must(delta_begin(w->d, 0) == 0);
			must(delta_inode_get(w->d, ino, &inode) == 0);
			inode.size = ++w->done;
			must(delta_inode_put(w->d, &inode) == 0);
		}
		must(delta_commit(w->d) == 0);
		if (w->done % 31 == 0)
			must(delta_flush(w->d) == 0);
	}
	return NULL;
}

static void *checkpointer_main(void *arg)
{
	struct worker *w = arg;

	while (!*w->stop) {
		must(delta_checkpoint(w->d) == 0);
		w->done++;
	}
	return NULL;
}

static void checkpoints_and_transactions_of_several_threads(void **state)
{
	struct delta_options o = plain();
	atomic_uint stop = 0;
	struct worker w[4];
	pthread_t t[4];
	struct memstore m;
	struct delta *d;

	o.no_thread = false;
	o.commit_ms = 5;
	memstore_init(&m, 0);
	d = create(&m, &o);
	for (unsigned i = 0; i < 4; i++) {
		w[i] = (struct worker){d, i, 0, &stop};
		make_inode(d, 1000 + i);
		must(thread_start(&t[i], i == 3 ? checkpointer_main : worker_main, &w[i]) == 0);
	}
	for (;;) {
		struct delta_info info;

		delta_get_info(d, &info);
		if (info.frames > 15000 && info.checkpoints > 30)
			break;
		sched_yield();
	}
	stop = 1;
	for (unsigned i = 0; i < 4; i++)
		pthread_join(t[i], NULL);
	d = reopen(d, &m, &o);
	for (unsigned i = 0; i < 3; i++) {
		struct delta_inode inode;

		delta_lock(d);
		must(delta_inode_get(d, 1000 + i, &inode) == 0);
		delta_unlock(d);
		assert_int_equal(inode.size >= w[i].done, 1);
	}
	delta_account(d);
	delta_close(d);
	memstore_destroy(&m);
}

/* ---- no room ---- */

static void a_log_that_may_not_grow_is_no_failure(void **state)
{
	static const int errors[] = {-ENOSPC, -EDQUOT, -EFBIG, -EIO};

	for (unsigned e = 0; e < ARRAY_SIZE(errors); e++) {
		struct delta_options o = plain();
		struct memstore m;
		struct delta *d;

		o.log_size = 8u << 20;
		memstore_init(&m, 0);
		d = create(&m, &o);
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

static void an_aborted_allocation_leaves_no_page_taken(void **state)
{
	struct delta_options o = plain();
	struct space_stats stats;
	struct memstore m;
	struct delta *d;

	memstore_init(&m, 0);
	d = create(&m, &o);
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
	struct delta_options o = plain();
	struct memstore m;
	struct delta *d;

	for (unsigned round = 0; round < 2; round++) {
		unsigned made = 0;
		int r = 0;

		o.limit = round ? 6u << 20 : 0;
		memstore_init(&m, round ? 0 : 1500);
		d = create(&m, &o);
		while (r == 0 && made < 5000) {
			r = frame_of(d, 2000 + made, 5000);
			made += r == 0;
		}
		assert_int_equal(r, -ENOSPC);
		assert_true(made > 150 && made < 1500);
		assert_int_equal(delta_failed(d), 0);
		d = reopen(d, &m, &o);
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
		cmocka_unit_test(what_was_committed_is_there_and_what_was_aborted_is_not),
		cmocka_unit_test(names_of_equal_hashes_are_told_apart),
		cmocka_unit_test(more_names_of_one_hash_than_there_are_slots_are_refused),
		cmocka_unit_test(a_wrapped_log_that_has_not_grown_is_not_full_after_replay),
		cmocka_unit_test(frames_of_all_sizes_go_round_the_log),
		cmocka_unit_test(a_transaction_that_is_too_long_changes_nothing),
		cmocka_unit_test(a_torn_last_frame_never_was),
		cmocka_unit_test(a_hostile_log_is_damage_and_never_worse),
		cmocka_unit_test(one_superblock_is_enough),
		cmocka_unit_test(what_is_not_for_us_is_refused),
		cmocka_unit_test(a_hostile_superblock_is_damage_and_never_worse),
		cmocka_unit_test(read_only_writes_nothing_and_shows_what_the_log_has),
		cmocka_unit_test(who_waits_shares_a_flush),
		cmocka_unit_test(a_failed_flush_is_the_failure_of_a_checkpoint_beside_it),
		cmocka_unit_test(checkpoints_and_transactions_of_several_threads),
		cmocka_unit_test(a_log_that_may_not_grow_is_no_failure),
		cmocka_unit_test(an_aborted_allocation_leaves_no_page_taken),
		cmocka_unit_test(a_full_disk_keeps_what_was_acknowledged_and_takes_deletions),
	};

	if (getenv("PINFS_TEST"))
		cmocka_set_test_filter(getenv("PINFS_TEST"));
	return cmocka_run_group_tests_name("delta", tests, NULL, NULL);
}
