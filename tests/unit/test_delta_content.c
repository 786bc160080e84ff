/* SPDX-License-Identifier: MIT */
/*
 * Content of files in a delta against the bytes that were written: extents written, overwritten, shared, cut, dropped, in the log and out of it,
 * in any order; free space in pieces; wrong bytes on the disk.
 */
#include "delta_support.h"

#define FILES 5u
#define PAGES 90u
#define FIRST_INO 200u

/* Transactions are too long at once: what may be cut in several is. */
static bool cut;

size_t __real_delta_txn_size(const struct delta *d);
size_t __wrap_delta_txn_size(const struct delta *d);

size_t __wrap_delta_txn_size(const struct delta *d)
{
	return cut ? DELTA_TXN_MAX : __real_delta_txn_size(d);
}

/* With empty files. */
static struct delta *create(struct memstore *m, const struct delta_options *o)
{
	struct delta *d = create_delta(m, o);

	for (unsigned i = 0; i < FILES; i++)
		make_inode(d, FIRST_INO + i);
	return d;
}

/* Pages [page, page + n) from buf, reserved before. */
static int write_pages(struct delta *d, uint64_t ino, uint64_t page, unsigned n, const uint8_t *buf, bool sync, bool whole)
{
	const uint8_t *data[PAGES];
	struct delta_write w = {.ino = ino, .page = page, .count = n, .data = data, .bytes = (size_t)n * PAGE, .reserved = n, .sync = sync, .whole = whole};
	int r = delta_reserve(d, n);

	if (r < 0)
		return r;
	for (unsigned i = 0; i < n; i++)
		data[i] = buf + (size_t)i * PAGE;
	r = delta_write(d, &w, size_grows, NULL);
	if (r < 0)
		delta_unreserve(d, n);
	return r;
}

/* A page as it is by its extent; 1: the delta says nothing of it. */
static int read_page(struct delta *d, uint64_t ino, uint64_t page, uint8_t *buf)
{
	uint8_t *data[1] = {buf};
	struct delta_extent e;
	int r;

	delta_lock(d);
	r = delta_extent_get(d, ino, page, &e);
	delta_unlock(d);
	if (r < 0)
		return r;
	switch (e.kind) {
	case DELTA_NOTHING:
		return 1;
	case PINFS_DELTA_HOLE:
	case PINFS_DELTA_UNWRITTEN:
		memset(buf, 0, PAGE);
		return 0;
	case PINFS_DELTA_IMAGE:
		/* As the model has it. */
		memset(buf, (int)(e.start + e.image_ino), PAGE);
		return 0;
	default:
		return delta_extent_read(d, ino, &e, page, 1, data);
	}
}

struct file {
	uint8_t data[PAGES][PAGE];
	bool there[PAGES];
};

static void compare(struct delta *d, const struct file *f)
{
	uint8_t buf[PAGE];

	for (unsigned i = 0; i < FILES; i++)
		for (unsigned p = 0; p < PAGES; p++) {
			int r = read_page(d, FIRST_INO + i, p, buf);

			if (r != !f[i].there[p] || (r == 0 && memcmp(buf, f[i].data[p], PAGE)))
				fprintf(stderr, "file %u, page %u: %d\n", i, p, r);
			must(r == !f[i].there[p]);
			must(r == 1 || !memcmp(buf, f[i].data[p], PAGE));
		}
}

/* Several pages at once, as a reader does. */
static void read_run(struct delta *d, const struct file *f, unsigned i, unsigned page)
{
	static uint8_t buf[PAGES][PAGE];
	uint8_t *data[PAGES];
	struct delta_extent e;
	unsigned n;

	delta_lock(d);
	must(delta_extent_get(d, FIRST_INO + i, page, &e) == 0);
	delta_unlock(d);
	if (e.kind < PINFS_DELTA_RAW || e.kind == PINFS_DELTA_IMAGE)
		return;
	n = (unsigned)MIN(e.pages, (uint64_t)PAGES - page);
	for (unsigned p = 0; p < n; p++)
		data[p] = buf[p];
	must(delta_extent_read(d, FIRST_INO + i, &e, page, n, data) == 0);
	for (unsigned p = 0; p < n; p++)
		must(!memcmp(buf[p], f[i].data[page + p], PAGE));
}

static void some_bytes(struct rng *rng, uint8_t *buf, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		switch (rng_below(rng, 4)) {
		case 0:
			rng_bytes(rng, buf + (size_t)i * PAGE, PAGE);
			break;
		case 1:
			memset(buf + (size_t)i * PAGE, (int)rng_below(rng, 3), PAGE);
			break;
		default:
			rng_text(rng, buf + (size_t)i * PAGE, PAGE);
		}
}

/* One transaction on the extents of a file; or one that is undone. */
static void change_extents(struct delta *d, struct file *f, struct rng *rng)
{
	unsigned i = (unsigned)rng_below(rng, FILES), page = (unsigned)rng_below(rng, PAGES), n = 1 + (unsigned)rng_below(rng, MIN(PAGES - page, 30u));
	unsigned from = (unsigned)rng_below(rng, FILES), from_page = (unsigned)rng_below(rng, PAGES);
	bool undo = rng_below(rng, 5) == 0;
	struct delta_inode inode;
	static struct file saved;
	struct delta_extent e;
	uint64_t done = page, got;

	saved = f[i];
	must(delta_begin(d, 0) == 0);
	must(delta_inode_get(d, FIRST_INO + i, &inode) == 0);
	switch (rng_below(rng, 5)) {
	case 0:
		must(delta_extent_drop(d, &inode, page, page + n, &done) == 0 && done == page + n);
		memset(f[i].there + page, 0, n);
		break;
	case 1:
		must(delta_extent_drop(d, &inode, page, page + n, &done) == 0);
		must(delta_extent_hole(d, &inode, page, n) == 0);
		memset(f[i].data[page], 0, (size_t)n * PAGE);
		memset(f[i].there + page, 1, n);
		break;
	case 2:
		must(delta_extent_image(d, &inode, page, n, 7, from_page) == 0);
		for (unsigned p = 0; p < n; p++)
			memset(f[i].data[page + p], (int)(from_page + p + 7), PAGE);
		memset(f[i].there + page, 1, n);
		break;
	case 3:
		must(delta_extent_allocate(d, &inode, page, n, &got) == 0 && got && got <= n);
		memset(f[i].data[page], 0, (size_t)got * PAGE);
		memset(f[i].there + page, 1, (size_t)got);
		break;
	default:
		must(delta_extent_get(d, FIRST_INO + from, from_page, &e) == 0);
		n = (unsigned)MIN(MIN((uint64_t)n, e.pages), PAGES - from_page);
		if (e.kind == PINFS_DELTA_RAW || e.kind == PINFS_DELTA_LZ4) {
			struct file *source = &f[from];

			if (from == i)
				break;
			cut = rng_below(rng, 2);
			must(delta_extent_share(d, &inode, page, n, FIRST_INO + from, &e, &got) == 0 && got && (cut ? got <= n : got == n));
			cut = false;
			memcpy(f[i].data[page], source->data[from_page], (size_t)got * PAGE);
			memset(f[i].there + page, 1, (size_t)got);
		}
	}
	must(delta_inode_put(d, &inode) == 0);
	if (undo) {
		delta_abort(d);
		f[i] = saved;
	} else {
		must(delta_commit(d) == 0);
	}
}

static void run_model(uint64_t seed, unsigned steps, uint64_t limit)
{
	struct file *f = calloc(FILES, sizeof(*f));
	_cleanup_free_ uint8_t *buf = malloc((size_t)PAGES * PAGE);
	struct delta_options o = plain_options();
	struct rng rng = {seed};
	struct memstore m;
	struct delta *d;

	o.limit = limit;
	memstore_init(&m, 0);
	d = create(&m, &o);
	for (unsigned step = 0; step < steps; step++) {
		unsigned i = (unsigned)rng_below(&rng, FILES), page = (unsigned)rng_below(&rng, PAGES);
		unsigned n = 1 + (unsigned)rng_below(&rng, rng_below(&rng, 2) ? PAGES - page : MIN(PAGES - page, 3u));
		bool whole = rng_below(&rng, 4) == 0;

		if (rng_below(&rng, 3)) {
			change_extents(d, f, &rng);
		} else {
			bool sync = rng_below(&rng, 2);

			if (whole)
				page = 0, n = 1;
			some_bytes(&rng, buf, n);
			cut = rng_below(&rng, 3) == 0;
			must(write_pages(d, FIRST_INO + i, page, n, buf, sync, whole) == 0);
			cut = false;
			memcpy(f[i].data[page], buf, (size_t)n * PAGE);
			memset(f[i].there + page, 1, n);
		}
		read_run(d, f, (unsigned)rng_below(&rng, FILES), (unsigned)rng_below(&rng, PAGES));
		if (rng_below(&rng, 10) == 0)
			delta_account(d);
		if (rng_below(&rng, 25) == 0)
			d = reopen_delta(d, &m, &o);
		if (rng_below(&rng, 20) == 0)
			compare(d, f);
	}
	compare(d, f);
	/* Down to nothing. */
	for (unsigned i = 0; i < FILES; i++) {
		struct delta_inode inode;
		uint64_t done;

		must(delta_begin(d, DELTA_SHRINKS) == 0);
		must(delta_inode_get(d, FIRST_INO + i, &inode) == 0);
		must(delta_extent_drop(d, &inode, 0, UINT64_MAX, &done) == 0 && done == UINT64_MAX);
		must(inode.pages == 0);
		must(delta_inode_put(d, &inode) == 0);
		must(delta_commit(d) == 0);
	}
	delta_account(d);
	delta_lock(d);
	{
		struct space_stats stats;

		space_get_stats(d->space, &stats);
		must(stats.reserved == 0 && stats.live < 16);
	}
	delta_unlock(d);
	must(damages == 0);
	delta_close(d);
	memstore_destroy(&m);
	free(f);
}

static void files_have_the_bytes_that_they_were_given(void **state)
{
	run_model(1, 500, 0);
	run_model(2, 500, 0);
	run_model(3, 500, 12u << 20);
}

/* ---- free space in pieces ---- */

static void promised_pages_that_lie_scattered_are_enough(void **state)
{
	enum { MOST = 4000 };
	struct delta_options o = plain_options();
	_cleanup_free_ uint8_t *buf = malloc((size_t)PAGES * PAGE);
	struct rng rng = {5};

	for (unsigned how = 0; how < 4; how++) {
		bool sync = how & 1, text = how & 2;
		uint8_t got[PAGE];
		struct memstore m;
		struct delta *d;
		uint64_t made = 0, n = 0;
		int r = 0;

		memstore_init(&m, 1800);
		d = create(&m, &o);
		/* Single pages until the disk is full, then every other one goes. */
		for (; r == 0 && made < MOST; made++) {
			rng_bytes(&rng, buf, PAGE);
			r = write_pages(d, FIRST_INO, made, 1, buf, false, false);
		}
		assert_int_equal(r, -ENOSPC);
		made--;
		for (uint64_t page = 0; page < made; page += 2) {
			struct delta_inode inode;
			uint64_t done;

			must(delta_begin(d, DELTA_SHRINKS) == 0);
			must(delta_inode_get(d, FIRST_INO, &inode) == 0);
			must(delta_extent_drop(d, &inode, page, page + 1, &done) == 0);
			must(delta_inode_put(d, &inode) == 0);
			must(delta_commit(d) == 0);
		}
		must(delta_checkpoint(d) == 0);
		/* What is promised can be written, in whatever form. */
		for (; n < PAGES; n += 10) {
			if (text)
				rng_text(&rng, buf + n * PAGE, 10 * PAGE);
			else
				rng_bytes(&rng, buf + n * PAGE, 10 * PAGE);
			r = write_pages(d, FIRST_INO + 1, n, 10, buf + n * PAGE, sync, false);
			assert_int_equal(r, 0);
		}
		assert_int_equal(delta_checkpoint(d), 0);
		for (unsigned p = 0; p < PAGES; p++) {
			must(read_page(d, FIRST_INO + 1, p, got) == 0);
			must(!memcmp(got, buf + (size_t)p * PAGE, PAGE));
		}
		delta_account(d);
		delta_close(d);
		memstore_destroy(&m);
	}
}

/* ---- wrong bytes ---- */

static void wrong_bytes_are_damage_and_never_content(void **state)
{
	_cleanup_free_ uint8_t *buf = malloc((size_t)PAGES * PAGE);
	struct delta_options o = plain_options();
	struct rng rng = {6};

	/* RAW, LZ4, LOGGED. */
	for (unsigned kind = 0; kind < 3; kind++) {
		uint8_t got[PAGE], was, x;
		struct delta_extent e;
		struct memstore m;
		struct delta *d;
		uint64_t at;
		unsigned before;

		memstore_init(&m, 0);
		d = create(&m, &o);
		if (kind == 1)
			rng_text(&rng, buf, 16 * PAGE);
		else
			rng_bytes(&rng, buf, 16 * PAGE);
		must(write_pages(d, FIRST_INO, 0, kind == 2 ? 4 : 16, buf, kind == 2, false) == 0);
		delta_lock(d);
		must(delta_extent_get(d, FIRST_INO, 2, &e) == 0);
		delta_unlock(d);
		assert_int_equal(e.kind, kind == 0 ? PINFS_DELTA_RAW : kind == 1 ? PINFS_DELTA_LZ4 : PINFS_DELTA_LOGGED);
		at = (kind == 2 ? e.start : e.start * PAGE) + 1234;
		memstore_get(&m, at, &was, 1);
		x = was ^ 1;
		memstore_put(&m, at, &x, 1);
		before = damages;
		assert_int_equal(read_page(d, FIRST_INO, 2, got), -EUCLEAN);
		assert_int_equal(damages, before + 1);
		assert_non_null(strstr(damage, "checksum"));
		/* Others are what they are. */
		if (kind != 1) {
			assert_int_equal(read_page(d, FIRST_INO, 1, got), 0);
			assert_memory_equal(got, buf + PAGE, PAGE);
		}
		/* What lies in the log can't be moved out of it, and nothing else is put into its place. */
		assert_int_equal(delta_checkpoint(d), kind == 2 ? -EUCLEAN : 0);
		memstore_put(&m, at, &was, 1);
		assert_int_equal(delta_checkpoint(d), 0);
		assert_int_equal(read_page(d, FIRST_INO, 2, got), 0);
		assert_memory_equal(got, buf + 2 * PAGE, PAGE);
		delta_account(d);
		delta_close(d);
		memstore_destroy(&m);
	}
	damages = 0;
}

/* After a crash: content of the last frames that isn't there ends the log; what was flushed before doesn't. */
static void frames_whose_content_is_missing_never_were(void **state)
{
	_cleanup_free_ uint8_t *buf = malloc((size_t)PAGES * PAGE);
	struct delta_options o = plain_options();
	struct rng rng = {7};

	for (unsigned durable = 0; durable < 2; durable++) {
		uint8_t got[PAGE], zero[PAGE] = {0};
		struct delta_extent e;
		struct memstore m;
		struct delta *d;

		memstore_init(&m, 0);
		d = create(&m, &o);
		rng_bytes(&rng, buf, 16 * PAGE);
		must(write_pages(d, FIRST_INO, 0, 16, buf, false, false) == 0);
		if (durable) {
			must(delta_flush(d) == 0);
			/* The next frame says so. */
			must(write_pages(d, FIRST_INO + 1, 0, 1, buf, false, true) == 0);
		}
		delta_lock(d);
		must(delta_extent_get(d, FIRST_INO, 5, &e) == 0);
		delta_unlock(d);
		memstore_put(&m, e.start * PAGE, zero, PAGE);
		d = reopen_delta(d, &m, &o);
		assert_int_equal(read_page(d, FIRST_INO, 5, got), durable ? -EUCLEAN : 1);
		assert_int_equal(read_page(d, FIRST_INO, 4, got), durable ? 0 : 1);
		assert_int_equal(read_page(d, FIRST_INO + 1, 0, got), durable ? 0 : 1);
		delta_account(d);
		delta_close(d);
		memstore_destroy(&m);
	}
	damages = 0;
}

/* A disk that can't be read or written for a moment leaves content, promises and counts as they were. */
static void failures_change_nothing_by_halves(void **state)
{
	_cleanup_free_ uint8_t *buf = malloc((size_t)PAGES * PAGE), *other = malloc((size_t)PAGES * PAGE);
	struct delta_options o = plain_options();
	struct rng rng = {8};

	for (unsigned nth = 1; nth < 12; nth++)
		for (unsigned sync = 0; sync < 2; sync++) {
			struct space_stats stats;
			uint8_t got[PAGE];
			struct memstore m;
			struct delta *d;
			int r;

			memstore_init(&m, 0);
			d = create(&m, &o);
			rng_bytes(&rng, buf, 40 * PAGE);
			rng_text(&rng, other, 40 * PAGE);
			must(write_pages(d, FIRST_INO, 0, 40, buf, false, false) == 0);
			memstore_fail(&m, MEM_WRITE, nth, -ENOSPC, false);
			r = write_pages(d, FIRST_INO, 0, sync ? 10 : 40, other, sync, false);
			must(r == 0 || r == -ENOSPC);
			if (r == 0)
				r = delta_checkpoint(d);
			must(r == 0 || r == -ENOSPC || delta_failed(d));
			memstore_fail(&m, MEM_WRITE, 0, 0, false);
			for (unsigned p = 0; p < 40; p++) {
				must(read_page(d, FIRST_INO, p, got) == 0);
				must(!memcmp(got, buf + (size_t)p * PAGE, PAGE) || !memcmp(got, other + (size_t)p * PAGE, PAGE));
			}
			if (!delta_failed(d)) {
				delta_account(d);
				delta_lock(d);
				space_get_stats(d->space, &stats);
				delta_unlock(d);
				assert_int_equal(stats.reserved, 0);
				must(write_pages(d, FIRST_INO, 0, 40, other, false, false) == 0);
				must(read_page(d, FIRST_INO, 39, got) == 0 && !memcmp(got, other + 39 * PAGE, PAGE));
			}
			d = reopen_delta(d, &m, &o);
			delta_account(d);
			delta_close(d);
			memstore_destroy(&m);
		}
}

/* Extents of one page each, whose pages others refer to as well: each drop changes a count, and these lie all over the tree. */
static void what_is_dropped_changes_no_more_nodes_than_a_checkpoint_has_room_for(void **state)
{
	enum { COUNTS = 20000, EXTENTS = 1000 };
	struct delta_options o = plain_options();
	unsigned pieces = 0;
	uint64_t done = 0;
	struct memstore m;
	struct delta *d;

	memstore_init(&m, 0);
	d = create(&m, &o);
	for (uint64_t i = 0; i < COUNTS; i++) {
		struct pinfs_delta_shared s = {pinfs_put32(1), pinfs_put32(3)};
		struct pinfs_delta_extent e = {.kind = PINFS_DELTA_UNWRITTEN, .pages = pinfs_put32(1), .start = pinfs_put64(1000 + 2 * i)};
		uint64_t page = i / (COUNTS / EXTENTS);

		must(delta_begin(d, 0) == 0);
		must(txn_put(d, KEY(0, PINFS_DELTA_SHARED, 1000 + 2 * i), &s, sizeof(s)) == 0);
		if (i % (COUNTS / EXTENTS) == 0)
			must(txn_put(d, KEY(FIRST_INO, PINFS_DELTA_EXTENT, page), &e, sizeof(e)) == 0);
		must(delta_commit(d) == 0);
	}
	while (done < UINT64_MAX) {
		struct delta_inode inode;
		size_t before;

		assert_int_equal(delta_checkpoint(d), 0);
		must(delta_begin(d, DELTA_SHRINKS) == 0);
		before = tree_dirty(d->tree);
		must(delta_inode_get(d, FIRST_INO, &inode) == 0);
		must(delta_extent_drop(d, &inode, done, UINT64_MAX, &done) == 0);
		must(delta_inode_put(d, &inode) == 0);
		assert_true(tree_dirty(d->tree) <= before + TXN_NODES);
		must(delta_commit(d) == 0);
		pieces++;
	}
	assert_true(pieces > 1);
	delta_close(d);
	memstore_destroy(&m);
}

/* The nodes that a transaction has made dirty so far; each of a write ends with this. */
struct spread {
	struct delta *d;
	size_t most;
	unsigned transactions;
};

static int note_spread(void *context, struct delta_inode *inode, uint64_t end)
{
	struct spread *s = context;

	s->most = MAX(s->most, tree_dirty(s->d->tree) - s->d->txn.dirty);
	s->transactions++;
	return size_grows(NULL, inode, end);
}

#define SPREAD 12000u /* pages of the first file, each shared with one of the second, in another order */
#define SPREAD_STEP 7411u

static void share_spread(struct delta *d)
{
	_cleanup_free_ uint8_t *page = calloc(1, PAGE);
	struct rng rng = {7};

	rng_bytes(&rng, page, PAGE);
	for (uint64_t i = 0; i < SPREAD; i++) {
		memcpy(page, &i, sizeof(i));
		must(write_pages(d, FIRST_INO, i, 1, page, false, false) == 0);
	}
	for (uint64_t i = 0; i < SPREAD; i++) {
		struct delta_inode inode;
		struct delta_extent e;
		uint64_t n;

		must(delta_begin(d, 0) == 0);
		must(delta_inode_get(d, FIRST_INO + 1, &inode) == 0);
		must(delta_extent_get(d, FIRST_INO, i * SPREAD_STEP % SPREAD, &e) == 0 && e.kind == PINFS_DELTA_RAW);
		must(delta_extent_share(d, &inode, i, 1, FIRST_INO, &e, &n) == 0 && n == 1);
		inode.size = (uint64_t)SPREAD * PAGE;
		must(delta_inode_put(d, &inode) == 0);
		must(delta_commit(d) == 0);
	}
}

/* What a write lies over are pages that others refer to as well, and their counts lie all over the tree. */
static void what_is_written_changes_no_more_nodes_than_a_checkpoint_has_room_for(void **state)
{
	enum { MOST = 200 };
	const struct {
		unsigned page, n;
		bool text, sync;
		unsigned least; /* transactions */
	} writes[] = {{100, MOST, true, false, 2}, {1000, MOST, false, false, 2}, {2000, 16, true, true, 1}, {108, 9, false, false, 1},
		{4000, 16, true, false, 2}, {96, MOST, true, false, 1}};
	_cleanup_free_ uint8_t *buf = malloc((size_t)MOST * PAGE), *got = malloc(PAGE);
	const uint8_t *data[MOST];
	struct delta_options o = plain_options();
	struct spread s = {0};
	struct rng rng = {8};
	struct delta_inode inode;
	struct delta_extent e;
	struct memstore m;
	uint64_t at = 0;

	o.log_size = 8u << 20;
	memstore_init(&m, 0);
	s.d = create(&m, &o);
	share_spread(s.d);
	for (size_t i = 0; i < ARRAY_SIZE(writes); i++) {
		struct delta_write w = {.ino = FIRST_INO + 1, .page = writes[i].page, .count = writes[i].n, .data = data, .bytes = writes[i].n * PAGE,
			.reserved = writes[i].n, .sync = writes[i].sync};

		for (unsigned p = 0; p < w.count; p++) {
			uint8_t *page = buf + (size_t)p * PAGE;

			data[p] = page;
			if (writes[i].text)
				rng_text(&rng, page, PAGE);
			else
				rng_bytes(&rng, page, PAGE);
		}
		s.transactions = 0;
		must(delta_checkpoint(s.d) == 0);
		must(delta_reserve(s.d, w.count) == 0);
		must(delta_write(s.d, &w, note_spread, &s) == 0);
		assert_in_range(s.most, 1, TXN_NODES - 2);
		assert_true(s.transactions >= writes[i].least);
		for (unsigned p = 0; p < w.count; p++) {
			assert_int_equal(read_page(s.d, FIRST_INO + 1, w.page + p, got), 0);
			assert_memory_equal(got, data[p], PAGE);
		}
	}
	delta_account(s.d);
	s.d = reopen_delta(s.d, &m, &o);
	/* Sixteen pages that are compressed together, shared over those that lie apart. */
	must(delta_begin(s.d, 0) == 0);
	must(delta_inode_get(s.d, FIRST_INO + 1, &inode) == 0);
	must(delta_extent_get(s.d, FIRST_INO + 1, 192, &e) == 0 && e.kind == PINFS_DELTA_LZ4);
	must(delta_extent_share(s.d, &inode, 5000, e.pages, FIRST_INO + 1, &e, &at) == 0 && at);
	must(note_spread(&s, &inode, 0) == 0);
	must(delta_inode_put(s.d, &inode) == 0);
	must(delta_commit(s.d) == 0);
	delta_account(s.d);
	assert_in_range(s.most, 1, TXN_NODES - 2);
	delta_close(s.d);
	memstore_destroy(&m);
}

/* Of a write that is cut in several transactions a later one fails: what it was to refer to is free. */
static void what_a_write_that_failed_did_not_refer_to_is_free(void **state)
{
	_cleanup_free_ uint8_t *buf = malloc(64 * PAGE);
	unsigned failed = 0;

	for (unsigned text = 0; text < 2; text++)
		for (unsigned nth = 1; nth < 60; nth++) {
			struct delta_options o = plain_options();
			struct rng rng = {nth};
			struct space_stats stats;
			struct memstore m;
			struct delta *d;

			memstore_init(&m, 0);
			d = create(&m, &o);
			for (unsigned i = 0; i < 64; i += 3) {
				rng_bytes(&rng, buf, PAGE);
				must(write_pages(d, FIRST_INO, i, 1, buf, false, false) == 0);
			}
			if (text)
				rng_text(&rng, buf, 64 * PAGE);
			else
				rng_bytes(&rng, buf, 64 * PAGE);
			cut = true;
			memstore_fail(&m, MEM_WRITE, nth, -ENOSPC, false);
			failed += write_pages(d, FIRST_INO, 0, 64, buf, false, false) == -ENOSPC;
			memstore_fail(&m, MEM_WRITE, 0, 0, false);
			delta_lock(d);
			space_get_stats(d->space, &stats);
			delta_unlock(d);
			assert_int_equal(stats.flight, 0);
			assert_int_equal(stats.reserved, 0);
			delta_account(d);
			must(write_pages(d, FIRST_INO, 0, 64, buf, false, false) == 0);
			cut = false;
			d = reopen_delta(d, &m, &o);
			for (unsigned p = 0; p < 64; p++) {
				uint8_t got[PAGE];

				assert_int_equal(read_page(d, FIRST_INO, p, got), 0);
				assert_memory_equal(got, buf + (size_t)p * PAGE, PAGE);
			}
			delta_account(d);
			delta_close(d);
			memstore_destroy(&m);
		}
	assert_true(failed > 40);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(files_have_the_bytes_that_they_were_given),
		cmocka_unit_test(promised_pages_that_lie_scattered_are_enough),
		cmocka_unit_test(wrong_bytes_are_damage_and_never_content),
		cmocka_unit_test(frames_whose_content_is_missing_never_were),
		cmocka_unit_test(failures_change_nothing_by_halves),
		cmocka_unit_test(what_is_dropped_changes_no_more_nodes_than_a_checkpoint_has_room_for),
		cmocka_unit_test(what_is_written_changes_no_more_nodes_than_a_checkpoint_has_room_for),
		cmocka_unit_test(what_a_write_that_failed_did_not_refer_to_is_free),
	};

	if (getenv("PINFS_TEST"))
		cmocka_set_test_filter(getenv("PINFS_TEST"));
	return cmocka_run_group_tests_name("delta_content", tests, NULL, NULL);
}
