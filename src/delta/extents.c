/* SPDX-License-Identifier: MIT */
/*
 * Extents: which pages of a file lie where. Items of a file never overlap; what is written takes those under it away, and the pages that
 * nothing refers to any more are free.
 */
#include "delta/internal.h"

bool extent_has_pages(unsigned kind)
{
	return kind == PINFS_DELTA_RAW || kind == PINFS_DELTA_UNWRITTEN || kind == PINFS_DELTA_LZ4;
}

static size_t extent_size(const struct pinfs_delta_extent *e)
{
	size_t n = pinfs_get32(e->pages);

	return sizeof(*e) + (e->kind == PINFS_DELTA_RAW ? n * sizeof(pinfs_le64) :
				e->kind == PINFS_DELTA_INLINE ? pinfs_get32(e->stored) : 0);
}

/* Pages of the delta that it refers to. */
uint64_t extent_stored_pages(const struct pinfs_delta_extent *e)
{
	return e->kind == PINFS_DELTA_LZ4 ? DIV_ROUND_UP(pinfs_get32(e->stored), PINFS_PAGE_SIZE) : pinfs_get32(e->pages);
}

/* What it counts for in its inode: one that lies in the tree or in the log is a page, as long as that is so. */
uint64_t extent_counted_pages(const struct pinfs_delta_extent *e)
{
	return extent_has_pages(e->kind) ? extent_stored_pages(e) : e->kind == PINFS_DELTA_INLINE || e->kind == PINFS_DELTA_LOGGED;
}

bool extent_valid(const void *value, size_t len)
{
	struct pinfs_delta_extent e;
	uint64_t pages, most = (uint64_t)INT64_MAX / PINFS_PAGE_SIZE / 2;

	if (len < sizeof(e))
		return false;
	memcpy(&e, value, sizeof(e));
	pages = pinfs_get32(e.pages);
	if (!pages || pinfs_get64(e.start) > (e.kind == PINFS_DELTA_LOGGED ? INT64_MAX : most))
		return false;
	switch (e.kind) {
	case PINFS_DELTA_HOLE:
	case PINFS_DELTA_IMAGE:
	case PINFS_DELTA_UNWRITTEN:
		return len == sizeof(e);
	case PINFS_DELTA_RAW:
		return pages <= PINFS_DELTA_RAW_PAGES && len == extent_size(&e);
	case PINFS_DELTA_LZ4:
		return len == sizeof(e) && pinfs_get32(e.raw_pages) <= PINFS_DELTA_EXTENT_PAGES && pages <= pinfs_get32(e.raw_pages) &&
			pinfs_get32(e.skip) <= pinfs_get32(e.raw_pages) - pages && pinfs_get32(e.stored) &&
			pinfs_get32(e.stored) < pinfs_get32(e.raw_pages) * PINFS_PAGE_SIZE;
	case PINFS_DELTA_INLINE:
		return pages == 1 && pinfs_get32(e.stored) <= PINFS_DELTA_INLINE_MAX && len == extent_size(&e) && pinfs_get32(e.raw_pages) <= 1;
	case PINFS_DELTA_LOGGED:
		/* In the log with its bytes; in the tree they are where `start` says. */
		return pages == 1 && (len == sizeof(e) || len == sizeof(e) + PINFS_PAGE_SIZE);
	default:
		return false;
	}
}

struct item {
	uint64_t page; /* of the file: its key */
	struct pinfs_delta_extent e;
	pinfs_le64 sums[PINFS_DELTA_RAW_PAGES]; /* RAW */
};

static int item_decode(struct delta *d, uint64_t ino, struct tree_key key, const void *value, size_t len, struct item *ret)
{
	if (!extent_valid(value, len) || key.offset > PINFS_DELTA_FILE_MAX / PINFS_PAGE_SIZE) {
		struct pinfs_delta_extent e = {0};

		memcpy(&e, value, MIN(len, sizeof(e)));
		return delta_damaged(d, 0, "inode %ju: an extent can't be: page %ju, kind %u, %u pages, %zu bytes", (uintmax_t)ino,
			(uintmax_t)key.offset, e.kind, pinfs_get32(e.pages), len);
	}
	ret->page = key.offset;
	memcpy(&ret->e, value, sizeof(ret->e));
	if (ret->e.kind == PINFS_DELTA_RAW)
		memcpy(ret->sums, (const uint8_t *)value + sizeof(ret->e), len - sizeof(ret->e));
	return 0;
}

/* The first extent that reaches behind `page`. -ENOENT. */
static int item_at(struct delta *d, uint64_t ino, uint64_t page, struct item *ret)
{
	struct tree_key key;
	const void *value;
	size_t len;
	int r;

	r = tree_find_last(d->tree, KEY(ino, PINFS_DELTA_EXTENT, 0), KEY(ino, PINFS_DELTA_EXTENT, page), &key, &value, &len);
	if (r == 0)
		r = item_decode(d, ino, key, value, len, ret);
	if (r < 0 && r != -ENOENT)
		return r;
	if (r == 0 && ret->page + pinfs_get32(ret->e.pages) > page)
		return 0;
	r = tree_find(d->tree, KEY(ino, PINFS_DELTA_EXTENT, page), KEY(ino, PINFS_DELTA_EXTENT + 1, 0), &key, &value, &len);
	return r < 0 ? r : item_decode(d, ino, key, value, len, ret);
}

static int item_put(struct delta *d, uint64_t ino, const struct item *i)
{
	uint8_t buf[sizeof(i->e) + sizeof(i->sums)];

	/* An inline one is never cut, nor moved. */
	assert(i->e.kind != PINFS_DELTA_INLINE);
	memcpy(buf, &i->e, sizeof(i->e));
	if (i->e.kind == PINFS_DELTA_RAW)
		memcpy(buf + sizeof(i->e), i->sums, pinfs_get32(i->e.pages) * sizeof(i->sums[0]));
	return txn_put(d, KEY(ino, PINFS_DELTA_EXTENT, i->page), buf, extent_size(&i->e));
}

/* Pages [from, to) of an extent, as an extent. */
static void item_cut(const struct item *i, uint64_t from, uint64_t to, struct item *ret)
{
	uint64_t skip = from - i->page, n = to - from;

	*ret = *i;
	ret->page = from;
	ret->e.pages = pinfs_put32((uint32_t)n);
	switch (i->e.kind) {
	case PINFS_DELTA_RAW:
		memmove(ret->sums, i->sums + skip, n * sizeof(i->sums[0]));
		/* fall through */
	case PINFS_DELTA_UNWRITTEN:
	case PINFS_DELTA_IMAGE:
		ret->e.start = pinfs_put64(pinfs_get64(i->e.start) + skip);
		break;
	case PINFS_DELTA_LZ4:
		ret->e.skip = pinfs_put32(pinfs_get32(i->e.skip) + (uint32_t)skip);
		break;
	}
}

/* ---- pages that several extents refer to ---- */

struct shared {
	uint64_t first, pages;
	uint32_t refs;
};

/* The first shared run that reaches behind `page`. */
static int shared_at(struct delta *d, uint64_t page, struct shared *ret)
{
	struct pinfs_delta_shared s;
	struct tree_key key;
	const void *value;
	size_t len;
	int r;

	r = tree_find_last(d->tree, KEY(0, PINFS_DELTA_SHARED, 0), KEY(0, PINFS_DELTA_SHARED, page), &key, &value, &len);
	for (unsigned i = 0; i < 2; i++) {
		if (r == 0) {
			if (len != sizeof(s))
				return delta_damaged(d, 0, "a count of references has a wrong size");
			memcpy(&s, value, sizeof(s));
			*ret = (struct shared){key.offset, pinfs_get32(s.pages), pinfs_get32(s.refs)};
			if (!ret->pages || ret->refs < 2 || ret->first > UINT64_MAX - ret->pages)
				return delta_damaged(d, key.offset * PINFS_PAGE_SIZE, "a count of references can't be");
			if (ret->first + ret->pages > page)
				return 0;
		} else if (r != -ENOENT) {
			return r;
		}
		if (i == 0)
			r = tree_find(d->tree, KEY(0, PINFS_DELTA_SHARED, page), KEY(0, PINFS_DELTA_SHARED + 1, 0), &key, &value, &len);
	}
	return -ENOENT;
}

static int shared_put(struct delta *d, uint64_t first, uint64_t pages, uint32_t refs)
{
	struct pinfs_delta_shared s = {pinfs_put32((uint32_t)pages), pinfs_put32(refs)};

	return pages && refs > 1 ? txn_put(d, KEY(0, PINFS_DELTA_SHARED, first), &s, sizeof(s)) : 0;
}

/* One reference more, or less, to each of these pages; those to which there is none any more are free. */
static int pages_refer(struct delta *d, uint64_t first, uint64_t pages, bool more)
{
	uint64_t end = first + pages, page = first;
	int r = 0;

	while (r == 0 && page < end) {
		struct shared s = {0};
		uint64_t to;

		r = shared_at(d, page, &s);
		if (r < 0 && r != -ENOENT)
			return r;
		if (r == -ENOENT || s.first > page) {
			/* Once so far. */
			to = r == -ENOENT ? end : MIN(end, s.first);
			r = more ? shared_put(d, page, to - page, 2) : txn_free(d, page, to - page);
			page = to;
			continue;
		}
		to = MIN(end, s.first + s.pages);
		if (more && s.refs == UINT32_MAX)
			return -EMLINK;
		/* What of the run lies before and behind keeps its count. */
		if (page == s.first || (r = shared_put(d, s.first, page - s.first, s.refs)) == 0)
			r = shared_put(d, to, s.first + s.pages - to, s.refs);
		if (r == 0) {
			uint32_t refs = more ? s.refs + 1 : s.refs - 1;

			r = refs > 1 ? shared_put(d, page, to - page, refs) :
				page == s.first ? txn_delete(d, KEY(0, PINFS_DELTA_SHARED, page)) : 0;
		}
		page = to;
	}
	return r;
}

/* ---- taking away ---- */

/* The pages of the delta that an extent stops referring to, if [from, to) of it goes. */
static int item_release(struct delta *d, struct delta_inode *inode, const struct item *i, uint64_t from, uint64_t to)
{
	uint64_t end = i->page + pinfs_get32(i->e.pages), pages = extent_stored_pages(&i->e), start = pinfs_get64(i->e.start);
	bool left = from > i->page, right = to < end;
	int r = 0;

	if (!extent_has_pages(i->e.kind)) {
		inode->pages -= MIN(extent_counted_pages(&i->e), inode->pages);
		return 0;
	}
	if (i->e.kind == PINFS_DELTA_LZ4) {
		/* They go with the last piece that refers to them. */
		if (left && right)
			r = pages_refer(d, start, pages, true);
		else if (!left && !right)
			r = pages_refer(d, start, pages, false);
		if (r == 0 && left && right)
			inode->pages += pages;
		else if (r == 0 && !left && !right)
			inode->pages -= MIN(pages, inode->pages);
		return r;
	}
	r = pages_refer(d, start + (from - i->page), to - from, false);
	if (r == 0)
		inode->pages -= MIN(to - from, inode->pages);
	return r;
}

/* Takes [first, end) out of one extent, which meets it. */
static int item_drop(struct delta *d, struct delta_inode *inode, const struct item *i, uint64_t first, uint64_t end)
{
	uint64_t item_end = i->page + pinfs_get32(i->e.pages), from = MAX(first, i->page), to = MIN(end, item_end);
	struct item piece;
	int r;

	r = item_release(d, inode, i, from, to);
	if (r == 0 && from > i->page) {
		item_cut(i, i->page, from, &piece);
		r = item_put(d, inode->ino, &piece);
	} else if (r == 0) {
		r = txn_delete(d, KEY(inode->ino, PINFS_DELTA_EXTENT, i->page));
	}
	if (r == 0 && to < item_end) {
		item_cut(i, to, item_end, &piece);
		r = item_put(d, inode->ino, &piece);
	}
	return r;
}

int delta_extent_drop(struct delta *d, struct delta_inode *inode, uint64_t first, uint64_t end, uint64_t *ret)
{
	struct item i;
	int r;

	*ret = first;
	while (first < end) {
		uint64_t next;

		r = item_at(d, inode->ino, first, &i);
		if (r == -ENOENT || (r == 0 && i.page >= end))
			break;
		if (r < 0)
			return r;
		next = MIN(end, i.page + pinfs_get32(i.e.pages));
		r = item_drop(d, inode, &i, first, end);
		if (r < 0)
			return r;
		first = next;
		if (txn_long(d)) {
			*ret = first;
			return 0;
		}
	}
	*ret = end;
	return 0;
}

/* The same, all of it: for what a single write covers. */
static int drop_all(struct delta *d, struct delta_inode *inode, uint64_t first, uint64_t end)
{
	uint64_t done = first;
	int r = 0;

	while (r == 0 && done < end)
		r = delta_extent_drop(d, inode, done, end, &done);
	return r;
}

/* ---- finding and making ---- */

static void extent_out(const struct item *i, uint64_t page, struct delta_extent *ret)
{
	struct item piece;

	item_cut(i, page, i->page + pinfs_get32(i->e.pages), &piece);
	*ret = (struct delta_extent){
		.page = page,
		.pages = pinfs_get32(piece.e.pages),
		.kind = piece.e.kind,
		.start = pinfs_get64(piece.e.start),
		.skip = pinfs_get32(piece.e.skip),
		.raw_pages = pinfs_get32(piece.e.raw_pages),
		.stored = pinfs_get32(piece.e.stored),
		.image_ino = pinfs_get32(piece.e.image_ino),
		.key = i->page,
		.checksum = pinfs_get64(piece.e.checksum),
	};
}

int delta_extent_get(struct delta *d, uint64_t ino, uint64_t page, struct delta_extent *ret)
{
	struct item i;
	int r = item_at(d, ino, page, &i);

	if (r < 0 && r != -ENOENT)
		return r;
	if (r == -ENOENT || i.page > page)
		*ret = (struct delta_extent){.page = page, .pages = r == -ENOENT ? UINT64_MAX - page : i.page - page};
	else
		extent_out(&i, page, ret);
	return 0;
}

/* Puts an extent where nothing of the delta may stay. */
static int extent_set(struct delta *d, struct delta_inode *inode, const struct item *i)
{
	uint64_t n = pinfs_get32(i->e.pages);
	int r = drop_all(d, inode, i->page, i->page + n);

	if (r == 0)
		r = item_put(d, inode->ino, i);
	if (r == 0)
		inode->pages += extent_counted_pages(&i->e);
	return r;
}

static int plain_set(struct delta *d, struct delta_inode *inode, uint64_t first, uint64_t pages, uint8_t kind, uint64_t start, uint32_t image_ino)
{
	struct item i = {.e = {.kind = kind, .image_ino = pinfs_put32(image_ino)}};
	int r = 0;

	while (r == 0 && pages) {
		uint32_t n = (uint32_t)MIN(pages, (uint64_t)1 << 30);

		i.page = first;
		i.e.pages = pinfs_put32(n);
		i.e.start = pinfs_put64(start);
		r = extent_set(d, inode, &i);
		first += n;
		start += kind == PINFS_DELTA_IMAGE ? n : 0;
		pages -= n;
	}
	return r;
}

int delta_extent_hole(struct delta *d, struct delta_inode *inode, uint64_t first, uint64_t pages)
{
	return plain_set(d, inode, first, pages, PINFS_DELTA_HOLE, 0, 0);
}

int delta_extent_image(struct delta *d, struct delta_inode *inode, uint64_t first, uint64_t pages, uint32_t image_ino, uint64_t image_page)
{
	return plain_set(d, inode, first, pages, PINFS_DELTA_IMAGE, image_page, image_ino);
}

int delta_extent_share(struct delta *d, struct delta_inode *inode, uint64_t first, uint64_t pages, uint64_t from_ino,
	const struct delta_extent *from, uint64_t *ret)
{
	struct item i, piece, part;
	uint64_t done;
	int r;

	r = item_at(d, from_ino, from->page, &i);
	if (r < 0)
		return r == -ENOENT ? -ESTALE : r;
	if (i.page > from->page || i.page + pinfs_get32(i.e.pages) < from->page + pages || !extent_has_pages(i.e.kind) ||
		i.e.kind == PINFS_DELTA_UNWRITTEN)
		return -ESTALE;
	item_cut(&i, from->page, from->page + pages, &piece);
	/* Before anything goes: it may lie under what it replaces. */
	r = pages_refer(d, pinfs_get64(piece.e.start), extent_stored_pages(&piece.e), true);
	piece.page = first;
	if (r == 0)
		r = delta_extent_drop(d, inode, first, first + pages, &done);
	if (r < 0)
		return r;
	item_cut(&piece, first, done, &part);
	/* Pages that are compressed together are referred to by each part of them. */
	if (done < first + pages && i.e.kind == PINFS_DELTA_RAW)
		r = pages_refer(d, pinfs_get64(piece.e.start) + (done - first), first + pages - done, false);
	if (r == 0)
		r = item_put(d, inode->ino, &part);
	if (r < 0)
		return r;
	inode->pages += extent_counted_pages(&part.e);
	*ret = done - first;
	return 0;
}

int delta_extent_allocate(struct delta *d, struct delta_inode *inode, uint64_t first, uint64_t pages, uint64_t *ret)
{
	struct item i = {.page = first, .e = {.kind = PINFS_DELTA_UNWRITTEN}};
	uint64_t want = MIN(pages, (uint64_t)65536), start, got;
	int r = space_reserve(d->space, want);

	if (r < 0)
		return r;
	got = space_alloc(d->space, want, 1, &start);
	space_unreserve(d->space, want);
	if (!got)
		return -ENOSPC;
	r = txn_take(d, start, got);
	if (r < 0) {
		space_cancel(d->space, start, got);
		return r;
	}
	i.e.pages = pinfs_put32((uint32_t)got);
	i.e.start = pinfs_put64(start);
	r = extent_set(d, inode, &i);
	if (r == 0)
		*ret = got;
	return r;
}

int extent_put_some(struct delta *d, struct delta_inode *inode, uint64_t page, const struct pinfs_delta_extent *e, const pinfs_le64 *sums,
	unsigned skip, unsigned *ret)
{
	struct item i = {.page = page, .e = *e}, part;
	uint64_t from = page + skip, end = page + pinfs_get32(e->pages), done;
	int r = delta_extent_drop(d, inode, from, end, &done);

	if (r < 0)
		return r;
	if (e->kind == PINFS_DELTA_RAW)
		memcpy(i.sums, sums, pinfs_get32(e->pages) * sizeof(i.sums[0]));
	item_cut(&i, from, done, &part);
	/* Pages that are compressed together came with the first part. */
	if (e->kind == PINFS_DELTA_LZ4 && skip)
		r = pages_refer(d, pinfs_get64(e->start), extent_stored_pages(e), true);
	else
		r = txn_alloc(d, pinfs_get64(part.e.start), extent_stored_pages(&part.e));
	if (r == 0)
		r = item_put(d, inode->ino, &part);
	if (r < 0)
		return r;
	inode->pages += extent_counted_pages(&part.e);
	*ret = (unsigned)(done - page);
	return 0;
}

int extent_put(struct delta *d, struct delta_inode *inode, uint64_t page, const struct pinfs_delta_extent *e, const void *more, size_t more_len,
	const void *log_data, size_t log_len)
{
	uint8_t buf[PINFS_DELTA_ITEM_MAX];
	int r = drop_all(d, inode, page, page + pinfs_get32(e->pages));

	assert(sizeof(*e) + more_len <= sizeof(buf));
	if (r < 0)
		return r;
	memcpy(buf, e, sizeof(*e));
	if (more_len)
		memcpy(buf + sizeof(*e), more, more_len);
	inode->pages += extent_counted_pages(e);
	return txn_put_logged(d, KEY(inode->ino, PINFS_DELTA_EXTENT, page), buf, sizeof(*e) + more_len, buf, sizeof(*e) + more_len, log_data, log_len);
}

int extent_put_in_place(struct delta *d, struct delta_inode *inode, uint64_t page, const struct pinfs_delta_extent *e, const void *more, size_t more_len)
{
	/* Twice for a moment, so that they are not free in between. */
	int r = pages_refer(d, pinfs_get64(e->start), pinfs_get32(e->pages), true);

	return r < 0 ? r : extent_put(d, inode, page, e, more, more_len, NULL, 0);
}

int extent_checksums(struct delta *d, uint64_t ino, uint64_t page, unsigned count, const struct delta_extent *expected, uint64_t *ret)
{
	struct item i;
	int r = item_at(d, ino, page, &i);

	if (r < 0)
		return r == -ENOENT ? -ESTALE : r;
	if (i.page > page || i.e.kind != PINFS_DELTA_RAW || i.page + pinfs_get32(i.e.pages) < page + count ||
		pinfs_get64(i.e.start) + (page - i.page) != expected->start + (page - expected->page))
		return -ESTALE;
	for (unsigned n = 0; n < count; n++)
		ret[n] = pinfs_get64(i.sums[page - i.page + n]);
	return 0;
}

/* Where the item of a page lies in the tree, as it is; of the kind that it should have. */
static int item_value(struct delta *d, uint64_t ino, uint64_t page, uint8_t kind, const uint8_t **ret, struct pinfs_delta_extent *ret_extent)
{
	const void *value;
	size_t len;
	int r = tree_get(d->tree, KEY(ino, PINFS_DELTA_EXTENT, page), &value, &len);

	if (r < 0)
		return r == -ENOENT ? -ESTALE : r;
	if (!extent_valid(value, len))
		return delta_damaged(d, 0, "inode %ju: an extent can't be", (uintmax_t)ino);
	memcpy(ret_extent, value, sizeof(*ret_extent));
	*ret = value;
	return ret_extent->kind == kind ? 0 : -ESTALE;
}

int extent_inline(struct delta *d, uint64_t ino, uint64_t page, uint8_t buf[PINFS_DELTA_INLINE_MAX], uint32_t *ret_len, bool *ret_lz4)
{
	struct pinfs_delta_extent e = {0};
	const uint8_t *value = NULL;
	int r = item_value(d, ino, page, PINFS_DELTA_INLINE, &value, &e);

	if (r < 0)
		return r;
	*ret_len = pinfs_get32(e.stored);
	*ret_lz4 = pinfs_get32(e.raw_pages);
	memcpy(buf, value + sizeof(e), *ret_len);
	return 0;
}
