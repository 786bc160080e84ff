/* SPDX-License-Identifier: MIT */
/*
 * Content: from pages to places in the delta, and back.
 *
 * What is written goes to new places, compressed in runs of up to 16 pages where that saves a page; a transaction then has the file refer to
 * them. What somebody waits for, if it is little, goes into the log itself, so that one short write and one flush make it durable; the next
 * checkpoint moves it out of there, once, however often it was written.
 */
#include "delta/internal.h"

#define CHUNK PINFS_DELTA_EXTENT_PAGES
#define CHUNK_BYTES ((size_t)CHUNK * PINFS_PAGE_SIZE)
/* Pages that are written in one transaction: as many as the cache writes at once. */
#define GROUP 256u
#define LOGGED_MOST 16u
/* Content from here on is worth to be sent to the disk at once. */
#define HURRY ((size_t)128 << 10)

/* ---- reading ---- */

/* Has an extent changed since `e` was got? 0: no, so what was read is damaged. */
static int still_there(struct delta *d, uint64_t ino, const struct delta_extent *e, uint64_t page)
{
	struct delta_extent now;
	int r;

	mutex_lock(&d->lock);
	r = delta_extent_get(d, ino, page, &now);
	mutex_unlock(&d->lock);
	if (r < 0)
		return r;
	return now.kind == e->kind && now.checksum == e->checksum && now.start == e->start + (e->kind == PINFS_DELTA_RAW ? page - e->page : 0) ? 0 : -ESTALE;
}

static int read_damaged(struct delta *d, uint64_t ino, const struct delta_extent *e, uint64_t page, uint64_t offset)
{
	int r = still_there(d, ino, e, page);

	return r < 0 ? r : delta_damaged(d, offset, "inode %ju: page %ju of its content has a wrong checksum", (uintmax_t)ino, (uintmax_t)page);
}

static int read_raw(struct delta *d, uint64_t ino, const struct delta_extent *e, uint64_t page, unsigned count, uint8_t *const *data)
{
	_cleanup_free_ uint64_t *sums = malloc(count * sizeof(*sums));
	uint64_t start = e->start + (page - e->page);
	_cleanup_free_ uint8_t *buf = count > 1 ? malloc((size_t)count * PINFS_PAGE_SIZE) : NULL;
	int r;

	if (!sums || (count > 1 && !buf))
		return -ENOMEM;
	mutex_lock(&d->lock);
	r = extent_checksums(d, ino, page, count, e, sums);
	mutex_unlock(&d->lock);
	if (r == 0)
		r = store_read(d->store, start * PINFS_PAGE_SIZE, buf ? buf : data[0], (size_t)count * PINFS_PAGE_SIZE);
	for (unsigned i = 0; r == 0 && i < count; i++) {
		if (buf)
			memcpy(data[i], buf + (size_t)i * PINFS_PAGE_SIZE, PINFS_PAGE_SIZE);
		if (codec_checksum(data[i], PINFS_PAGE_SIZE) != sums[i])
			r = read_damaged(d, ino, e, page + i, (start + i) * PINFS_PAGE_SIZE);
	}
	return r;
}

static int read_lz4(struct delta *d, uint64_t ino, const struct delta_extent *e, uint64_t page, unsigned count, uint8_t *const *data)
{
	size_t raw_len = (size_t)e->raw_pages * PINFS_PAGE_SIZE;
	_cleanup_free_ uint8_t *stored = malloc(e->stored), *raw = malloc(raw_len);
	uint64_t offset = e->start * PINFS_PAGE_SIZE;
	int r;

	if (!stored || !raw)
		return -ENOMEM;
	r = store_read(d->store, offset, stored, e->stored);
	if (r < 0)
		return r;
	if (codec_checksum(stored, e->stored) != e->checksum)
		return read_damaged(d, ino, e, page, offset);
	if (codec_by_id(PINFS_CODEC_LZ4)->decompress(stored, e->stored, raw, raw_len) < 0)
		return delta_damaged(d, offset, "inode %ju: page %ju of its content can't be decompressed", (uintmax_t)ino, (uintmax_t)page);
	for (unsigned i = 0; i < count; i++)
		memcpy(data[i], raw + (size_t)(e->skip + (page - e->page) + i) * PINFS_PAGE_SIZE, PINFS_PAGE_SIZE);
	return 0;
}

static int read_inline(struct delta *d, uint64_t ino, uint64_t page, uint8_t *data)
{
	uint8_t buf[PINFS_DELTA_INLINE_MAX];
	uint32_t len;
	bool lz4;
	int r;

	mutex_lock(&d->lock);
	r = extent_inline(d, ino, page, buf, &len, &lz4);
	mutex_unlock(&d->lock);
	if (r < 0)
		return r;
	if (lz4)
		return codec_by_id(PINFS_CODEC_LZ4)->decompress(buf, len, data, PINFS_PAGE_SIZE) < 0 ?
			delta_damaged(d, 0, "inode %ju: its content can't be decompressed", (uintmax_t)ino) : 0;
	memcpy(data, buf, len);
	memset(data + len, 0, PINFS_PAGE_SIZE - len);
	return 0;
}

static int read_logged(struct delta *d, uint64_t ino, const struct delta_extent *e, uint8_t *data)
{
	int r = store_read(d->store, e->start, data, PINFS_PAGE_SIZE);

	if (r < 0)
		return r;
	return codec_checksum(data, PINFS_PAGE_SIZE) == e->checksum ? 0 : read_damaged(d, ino, e, e->page, e->start);
}

int delta_extent_read(struct delta *d, uint64_t ino, const struct delta_extent *e, uint64_t page, unsigned count, uint8_t *const *data)
{
	assert(page >= e->page && count && page + count <= e->page + e->pages);
	switch (e->kind) {
	case PINFS_DELTA_RAW:
		return read_raw(d, ino, e, page, count, data);
	case PINFS_DELTA_LZ4:
		return read_lz4(d, ino, e, page, count, data);
	case PINFS_DELTA_INLINE:
		return read_inline(d, ino, page, data[0]);
	case PINFS_DELTA_LOGGED:
		return read_logged(d, ino, e, data[0]);
	default:
		return -EINVAL;
	}
}

int extent_verify(struct delta *d, const void *value, size_t len, uint8_t *buf)
{
	struct pinfs_delta_extent e;
	size_t pages;
	int r;

	memcpy(&e, value, sizeof(e));
	pages = pinfs_get32(e.pages);
	if (e.kind == PINFS_DELTA_LZ4) {
		size_t stored = pinfs_get32(e.stored);

		r = store_read(d->store, pinfs_get64(e.start) * PINFS_PAGE_SIZE, buf, stored);
		return r < 0 ? r : codec_checksum(buf, stored) == pinfs_get64(e.checksum) ? 0 : -EUCLEAN;
	}
	if (e.kind != PINFS_DELTA_RAW)
		return 0;
	r = store_read(d->store, pinfs_get64(e.start) * PINFS_PAGE_SIZE, buf, pages * PINFS_PAGE_SIZE);
	for (size_t i = 0; r == 0 && i < pages; i++) {
		pinfs_le64 sum;

		memcpy(&sum, (const uint8_t *)value + sizeof(e) + i * sizeof(sum), sizeof(sum));
		if (codec_checksum(buf + i * PINFS_PAGE_SIZE, PINFS_PAGE_SIZE) != pinfs_get64(sum))
			r = -EUCLEAN;
	}
	return r;
}

/* ---- writing ---- */

/* Some pages as they will be stored. */
struct piece {
	uint64_t page;
	unsigned pages;	       /* of the file */
	struct pinfs_delta_extent e;
	const uint8_t *stored; /* the bytes, filled up to whole pages */
	unsigned stored_pages;
	unsigned put; /* of `pages`: those that the file refers to */
	pinfs_le64 sums[CHUNK];
	uint8_t small[PINFS_DELTA_INLINE_MAX]; /* INLINE */
};

/* What a writer needs, kept for the next one: memory that is fresh from the system costs more than what is done with it. */
struct writer_memory {
	struct writer_memory *next;
	struct codec_context *codec;
	uint8_t *buf; /* GROUP pages, on a page's boundary */
	struct piece pieces[GROUP + 1];
};

struct writer {
	struct delta *d;
	struct writer_memory *memory;
	const struct delta_write *w;
	int (*update)(void *context, struct delta_inode *inode, uint64_t end);
	void *context;
	struct codec_context *codec;
	uint8_t *buf; /* GROUP pages */
	struct piece *pieces;
	unsigned count;
};

/* One page, alone in its file, that is small enough to lie in its item. */
static bool encode_inline(struct writer *w, const uint8_t *data, size_t len, struct piece *p)
{
	size_t n = 0;

	while (len && !data[len - 1])
		len--;
	if (len > 256)
		n = codec_compress_lz4(w->codec, data, PINFS_PAGE_SIZE, p->small, sizeof(p->small));
	if (!n && len > PINFS_DELTA_INLINE_MAX)
		return false;
	/* As they are, if that is no longer. */
	if (!n || len <= n) {
		memcpy(p->small, data, len);
		n = 0;
	}
	p->e.kind = PINFS_DELTA_INLINE;
	p->e.raw_pages = pinfs_put32(n > 0);
	p->e.stored = pinfs_put32((uint32_t)(n ? n : len));
	return true;
}

/* Pages in one piece: where they are, if they lie in a row, else in `buf`. */
static const uint8_t *in_a_row(const uint8_t *const *data, unsigned n, uint8_t *buf)
{
	unsigned i = 1;

	while (i < n && data[i] == data[0] + (size_t)i * PINFS_PAGE_SIZE)
		i++;
	if (i == n)
		return data[0];
	for (i = 0; i < n; i++)
		memcpy(buf + (size_t)i * PINFS_PAGE_SIZE, data[i], PINFS_PAGE_SIZE);
	return buf;
}

/* Pages [first, first + n) of the write, to `to`. */
static void encode(struct writer *w, unsigned first, unsigned n, uint8_t *to, struct piece *p)
{
	size_t len = (size_t)n * PINFS_PAGE_SIZE, packed = 0;
	uint8_t buf[CHUNK_BYTES];
	const uint8_t *raw;

	p->page = w->w->page + first;
	p->pages = n;
	p->stored = NULL;
	p->stored_pages = p->put = 0;
	p->e = (struct pinfs_delta_extent){.pages = pinfs_put32(n)};
	if (w->w->whole && w->w->page == 0 && w->w->count == 1 && encode_inline(w, w->w->data[first], PINFS_PAGE_SIZE, p))
		return;
	raw = in_a_row(w->w->data + first, n, buf);
	p->stored = to;
	if (n > 1)
		packed = codec_compress_lz4(w->codec, raw, len, to, len - PINFS_PAGE_SIZE);
	if (packed) {
		p->e.kind = PINFS_DELTA_LZ4;
		p->e.raw_pages = pinfs_put32(n);
		p->e.stored = pinfs_put32((uint32_t)packed);
		p->e.checksum = pinfs_put64(codec_checksum(to, packed));
		p->stored_pages = (unsigned)DIV_ROUND_UP(packed, PINFS_PAGE_SIZE);
		memset(to + packed, 0, (size_t)p->stored_pages * PINFS_PAGE_SIZE - packed);
		return;
	}
	memcpy(to, raw, len);
	p->e.kind = PINFS_DELTA_RAW;
	p->stored_pages = n;
	for (unsigned i = 0; i < n; i++)
		p->sums[i] = pinfs_put64(codec_checksum(raw + (size_t)i * PINFS_PAGE_SIZE, PINFS_PAGE_SIZE));
}

/* Places for pieces from `first` on, as many as fit into the run that was found; in *ret how many. */
static int place_locked(struct writer *w, unsigned first, unsigned *ret)
{
	struct delta *d = w->d;
	uint64_t want = 0, start = 0, got;
	unsigned n = first;

	/* What a checkpoint that went wrong has given up may be on the disk all the same, and is not to be written over. */
	if (a64_read(&d->failed))
		return -(int)a64_read(&d->failed);
	for (unsigned i = first; i < w->count; i++)
		want += w->pieces[i].stored_pages;
	got = want ? space_alloc(d->space, want, MAX(w->pieces[first].stored_pages, 1u), &start) : 0;
	/* The promised pages lie scattered: others perhaps don't. */
	if (want && !got && w->pieces[first].stored_pages > 1 &&
		space_alloc_run(d->space, w->pieces[first].stored_pages, &start) == 0)
		got = w->pieces[first].stored_pages;
	while (n < w->count && w->pieces[n].stored_pages <= got) {
		w->pieces[n].e.start = pinfs_put64(w->pieces[n].stored_pages ? start : 0);
		start += w->pieces[n].stored_pages;
		got -= w->pieces[n].stored_pages;
		n++;
	}
	if (got && n > first)
		space_cancel(d->space, start, got);
	*ret = n - first;
	return n > first ? 0 : -ENOSPC;
}

static int place(struct writer *w, unsigned first, unsigned *ret)
{
	int r;

	mutex_lock(&w->d->lock);
	r = place_locked(w, first, ret);
	mutex_unlock(&w->d->lock);
	return r;
}

/* Places that the file doesn't refer to. */
static void unplace(struct writer *w, unsigned first, unsigned n)
{
	for (unsigned i = first; i < first + n; i++) {
		const struct piece *p = &w->pieces[i];
		unsigned live = p->e.kind == PINFS_DELTA_LZ4 && p->put ? p->stored_pages : p->put;

		if (p->stored_pages > live)
			space_cancel(w->d->space, pinfs_get64(p->e.start) + live, p->stored_pages - live);
	}
}

/* Writes the bytes of pieces that lie in a row. */
static int write_bytes(struct writer *w, unsigned first, unsigned n)
{
	int r = 0;

	for (unsigned i = first, m; r == 0 && i < first + n; i += m) {
		uint64_t start = pinfs_get64(w->pieces[i].e.start), offset = start * PINFS_PAGE_SIZE;
		size_t pages = w->pieces[i].stored_pages;

		for (m = 1; i + m < first + n && w->pieces[i + m].stored == w->pieces[i].stored + pages * PINFS_PAGE_SIZE &&
			pinfs_get64(w->pieces[i + m].e.start) == start + pages; m++)
			pages += w->pieces[i + m].stored_pages;
		if (!pages)
			continue;
		r = store_write(w->d->store, offset, w->pieces[i].stored, pages * PINFS_PAGE_SIZE);
		if (r == 0 && pages * PINFS_PAGE_SIZE >= HURRY)
			store_hurry(w->d->store, offset, pages * PINFS_PAGE_SIZE);
	}
	return r;
}

/* Within a transaction: the file refers to some pages more of a piece, of which it has *put; to all, unless the transaction gets long. */
static int put_piece(struct writer *w, struct delta_inode *inode, const struct piece *p, bool in_place, unsigned *put)
{
	int r;

	if (!in_place && p->stored_pages)
		return extent_put_some(w->d, inode, p->page, &p->e, p->sums, *put, put);
	if (in_place)
		r = extent_put_in_place(w->d, inode, p->page, &p->e, p->sums, p->pages * sizeof(p->sums[0]));
	else
		r = extent_put(w->d, inode, p->page, &p->e, p->small, pinfs_get32(p->e.stored), NULL, 0);
	if (r == 0)
		*put = p->pages;
	return r;
}

/*
 * The same, as a transaction of its own: pieces from *at on, before `end`, as many as it should have. Each page that they replace may be one of those that
 * others refer to as well, whose counts lie anywhere in the tree.
 */
static int refer_some(struct writer *w, unsigned *at, unsigned end, bool in_place)
{
	const struct delta_write *in = w->w;
	unsigned i = *at, put = w->pieces[i].put;
	struct delta_inode inode;
	struct delta *d = w->d;
	uint64_t done = 0;
	int r = delta_begin(d, DELTA_PROMISED);

	if (r < 0)
		return r;
	r = delta_inode_get(d, in->ino, &inode);
	while (r == 0 && i < end && (!done || !txn_long(d))) {
		r = put_piece(w, &inode, &w->pieces[i], in_place, &put);
		done = (w->pieces[i].page + put) * PINFS_PAGE_SIZE;
		if (r == 0 && put == w->pieces[i].pages) {
			i++;
			put = 0;
		}
	}
	if (r == 0)
		r = w->update(w->context, &inode, MIN(done, in->page * PINFS_PAGE_SIZE + in->bytes));
	if (r == 0)
		r = delta_inode_put(d, &inode);
	if (r < 0) {
		delta_abort(d);
		return r;
	}
	r = delta_commit(d);
	if (r < 0)
		return r;
	for (; *at < i; (*at)++)
		w->pieces[*at].put = w->pieces[*at].pages;
	if (i < end)
		w->pieces[i].put = put;
	return 0;
}

static int refer(struct writer *w, unsigned first, unsigned n, bool in_place)
{
	unsigned at = first;
	int r = 0;

	while (r == 0 && at < first + n)
		r = refer_some(w, &at, first + n, in_place);
	return r;
}

/* Content at new places, in pieces of at most `chunk` pages. *ret_done: how many pages are there. 1: the next piece finds no place. */
static int write_pieces(struct writer *w, unsigned first, unsigned n, unsigned chunk, unsigned *ret_done)
{
	uint8_t *to = w->buf;
	unsigned done = 0;
	int r = 0;

	*ret_done = 0;
	w->count = 0;
	for (unsigned i = 0, m; i < n; i += m) {
		uint64_t page = w->w->page + first + i;

		m = (unsigned)MIN((uint64_t)(n - i), chunk - page % chunk);
		encode(w, first + i, m, to, &w->pieces[w->count]);
		to += (size_t)w->pieces[w->count].stored_pages * PINFS_PAGE_SIZE;
		w->count++;
	}
	while (r == 0 && done < w->count) {
		unsigned m;

		r = place(w, done, &m);
		if (r < 0)
			return r == -ENOSPC ? 1 : r;
		r = write_bytes(w, done, m);
		if (r == 0)
			r = refer(w, done, m, false);
		if (r < 0) {
			mutex_lock(&w->d->lock);
			unplace(w, done, m);
			mutex_unlock(&w->d->lock);
		}
		for (; r == 0 && m; m--)
			*ret_done += w->pieces[done++].pages;
	}
	return r;
}

/* One group. Each page has a promised one: in pieces that are small enough all of them find a place, however scattered those lie. */
static int write_group(struct writer *w, unsigned first, unsigned n)
{
	unsigned end = first + n, chunk = CHUNK, done;
	int r;

	do {
		r = write_pieces(w, first, end - first, chunk, &done);
		first += done;
		chunk /= 2;
	} while (r == 1 && chunk);
	return r == 1 ? -ENOSPC : r;
}

/* Pages that have places of their own already. */
static int write_in_place(struct writer *w, unsigned first, unsigned n, uint64_t start)
{
	uint8_t *to = w->buf;
	int r;

	w->count = 0;
	for (unsigned i = 0, m; i < n; i += m) {
		struct piece *p = &w->pieces[w->count++];

		m = MIN(n - i, CHUNK);
		*p = (struct piece){.page = w->w->page + first + i, .pages = m, .stored = to, .stored_pages = m};
		p->e.pages = pinfs_put32(m);
		p->e.kind = PINFS_DELTA_RAW;
		p->e.start = pinfs_put64(start + i);
		for (unsigned j = 0; j < m; j++) {
			memcpy(to, w->w->data[first + i + j], PINFS_PAGE_SIZE);
			p->sums[j] = pinfs_put64(codec_checksum(to, PINFS_PAGE_SIZE));
			to += PINFS_PAGE_SIZE;
		}
	}
	r = write_bytes(w, 0, w->count);
	return r < 0 ? r : refer(w, 0, w->count, true);
}

/* ---- into the log ---- */

int logged_note(struct delta *d, uint64_t ino, uint64_t page)
{
	if (array_reserve(&d->logged, &d->logged_capacity, d->logged_count + 1, sizeof(*d->logged)) < 0)
		return -ENOMEM;
	d->logged[d->logged_count++] = (struct logged){ino, page};
	return 0;
}

static int write_logged(struct writer *w)
{
	const struct delta_write *in = w->w;
	struct delta_inode inode;
	struct delta *d = w->d;
	int r = delta_begin(d, DELTA_PROMISED);

	if (r < 0)
		return r;
	/* What the checkpoint would find in the tree then is in a part of the log that it gives up. */
	if (d->settling) {
		delta_abort(d);
		return -EAGAIN;
	}
	/* Each page, and what is left of an extent on both sides of it. */
	r = log_prepare(d, in->count * (PINFS_PAGE_SIZE + PINFS_DELTA_RAW_PAGES * 2 * sizeof(pinfs_le64) + 512) + 4096);
	if (r == 0)
		r = delta_inode_get(d, in->ino, &inode);
	for (unsigned i = 0; r == 0 && i < in->count; i++) {
		struct pinfs_delta_extent e = {.pages = pinfs_put32(1), .kind = PINFS_DELTA_LOGGED};
		struct delta_extent under;

		e.checksum = pinfs_put64(codec_checksum(in->data[i], PINFS_PAGE_SIZE));
		/* What is taken away comes first in the frame: then it is known where the bytes will lie. */
		r = delta_extent_get(d, in->ino, in->page + i, &under);
		if (r == 0 && under.kind) {
			uint64_t done;

			r = delta_extent_drop(d, &inode, in->page + i, in->page + i + 1, &done);
		}
		e.start = pinfs_put64(log_position(d) + sizeof(struct pinfs_delta_record) + sizeof(e));
		if (r == 0)
			r = extent_put(d, &inode, in->page + i, &e, NULL, 0, in->data[i], PINFS_PAGE_SIZE);
		if (r == 0)
			r = logged_note(d, in->ino, in->page + i);
		/* In several transactions, then, and in places of their own. */
		if (r == 0 && txn_wide(d))
			r = -EAGAIN;
	}
	if (r == 0)
		r = w->update(w->context, &inode, in->page * PINFS_PAGE_SIZE + in->bytes);
	if (r == 0)
		r = delta_inode_put(d, &inode);
	if (r < 0) {
		delta_abort(d);
		return r;
	}
	return delta_commit(d);
}

/* ---- all ways ---- */

/* So many are kept: the flusher's, and one of who has to write himself. */
#define WRITERS_KEPT 2u

static void memory_free(struct writer_memory *m)
{
	if (!m)
		return;
	codec_context_free(m->codec);
	free(m->buf);
	free(m);
}

void content_free_writers(struct delta *d)
{
	while (d->writers) {
		struct writer_memory *m = d->writers;

		d->writers = m->next;
		memory_free(m);
	}
	d->writers_count = 0;
}

static int memory_new(struct writer_memory **ret)
{
	struct writer_memory *m = malloc(sizeof(*m));
	int r;

	if (!m)
		return -ENOMEM;
	m->codec = NULL;
	m->buf = aligned_alloc(PINFS_PAGE_SIZE, (size_t)GROUP * PINFS_PAGE_SIZE);
	r = m->buf ? codec_context_new(CODEC_LEVEL_FAST, &m->codec) : -ENOMEM;
	if (r < 0) {
		memory_free(m);
		return r;
	}
	*ret = m;
	return 0;
}

static int writer_init(struct writer *w)
{
	struct delta *d = w->d;
	int r;

	mutex_lock(&d->lock);
	w->memory = d->writers;
	if (w->memory) {
		d->writers = w->memory->next;
		d->writers_count--;
	}
	mutex_unlock(&d->lock);
	if (!w->memory) {
		r = memory_new(&w->memory);
		if (r < 0)
			return r;
	}
	w->codec = w->memory->codec;
	w->buf = w->memory->buf;
	w->pieces = w->memory->pieces;
	return 0;
}

static void writer_destroy(struct writer *w)
{
	struct delta *d = w->d;

	if (!w->memory)
		return;
	mutex_lock(&d->lock);
	if (d->writers_count < WRITERS_KEPT) {
		w->memory->next = d->writers;
		d->writers = w->memory;
		d->writers_count++;
		w->memory = NULL;
	}
	mutex_unlock(&d->lock);
	memory_free(w->memory);
}

/* How many pages from `first` on are of one sort: with places of their own (*ret_start), or without (0). */
static int next_run(struct writer *w, unsigned first, unsigned *ret_n, uint64_t *ret_start)
{
	uint64_t page = w->w->page + first;
	unsigned left = MIN(w->w->count - first, GROUP), n = 0;
	struct delta_extent e;
	int r = 0;

	*ret_start = 0;
	mutex_lock(&w->d->lock);
	while (r == 0 && n < left) {
		r = delta_extent_get(w->d, w->w->ino, page + n, &e);
		if (r < 0)
			break;
		if (e.kind == PINFS_DELTA_UNWRITTEN) {
			if (!n) {
				n = (unsigned)MIN((uint64_t)left, e.pages);
				*ret_start = e.start;
			}
			break;
		}
		n = (unsigned)MIN((uint64_t)left, n + e.pages);
	}
	mutex_unlock(&w->d->lock);
	*ret_n = n;
	return r;
}

int delta_write(struct delta *d, const struct delta_write *in, int (*update)(void *context, struct delta_inode *inode, uint64_t end), void *context)
{
	struct writer w = {.d = d, .w = in, .update = update, .context = context};
	bool logged = in->sync && in->count <= LOGGED_MOST && in->reserved >= in->count && !d->options.no_flush;
	int r;

	r = logged ? write_logged(&w) : -EAGAIN;
	if (r != -EAGAIN) {
		/* Their promised pages stay with them. */
		if (r == 0 && in->reserved > in->count)
			delta_unreserve(d, in->reserved - in->count);
		if (r != -EAGAIN)
			return r == -ENOENT ? -ESTALE : r;
	}
	r = writer_init(&w);
	for (unsigned done = 0, n; r == 0 && done < in->count; done += n) {
		uint64_t start;

		r = next_run(&w, done, &n, &start);
		if (r == 0)
			r = start ? write_in_place(&w, done, n, start) : write_group(&w, done, n);
	}
	writer_destroy(&w);
	if (r == 0 && in->reserved)
		delta_unreserve(d, in->reserved);
	return r == -ENOENT ? -ESTALE : r;
}

/* ---- out of the log ---- */

/* Within a transaction: of pages [page, page + n) of a file those that lie in the log go to places of their own. */
static int settle_pages(struct writer *w, struct delta_inode *inode, uint64_t page, unsigned n, uint8_t *in)
{
	const uint8_t *data[CHUNK];
	struct delta_write write = {.ino = inode->ino, .data = data};
	struct delta *d = w->d;
	int r = 0;

	w->w = &write;
	for (unsigned i = 0; r == 0 && i < n; i += MAX(write.count, 1u)) {
		struct delta_extent e;
		unsigned placed;

		write.page = page + i;
		write.count = 0;
		while (r == 0 && i + write.count < n) {
			uint8_t *to = in + (size_t)write.count * PINFS_PAGE_SIZE;

			r = delta_extent_get(d, inode->ino, write.page + write.count, &e);
			if (r < 0 || e.kind != PINFS_DELTA_LOGGED)
				break;
			r = store_read(d->store, e.start, to, PINFS_PAGE_SIZE);
			if (r == 0 && codec_checksum(to, PINFS_PAGE_SIZE) != e.checksum)
				r = delta_damaged(d, e.start, "inode %ju: page %ju of its content, in the log, has a wrong checksum",
					(uintmax_t)inode->ino, (uintmax_t)(write.page + write.count));
			data[write.count++] = to;
		}
		if (r < 0 || !write.count)
			continue;
		encode(w, 0, write.count, w->buf, &w->pieces[w->count++]);
		/* In smaller pieces, if that is what there is. */
		while ((r = place_locked(w, w->count - 1, &placed)) == -ENOSPC && write.count > 1) {
			write.count /= 2;
			encode(w, 0, write.count, w->buf, &w->pieces[w->count - 1]);
		}
		if (r < 0) {
			w->count--;
			break;
		}
		r = write_bytes(w, w->count - 1, 1);
		for (unsigned put = 0; r == 0 && put < write.count;)
			r = put_piece(w, inode, &w->pieces[w->count - 1], false, &put);
	}
	return r;
}

static int settle_run(struct writer *w, uint64_t ino, uint64_t page, unsigned n, uint8_t *in)
{
	struct delta_inode inode;
	struct delta *d = w->d;
	int r = txn_begin_settle(d);

	if (r < 0)
		return r;
	w->count = 0;
	r = delta_inode_get(d, ino, &inode);
	if (r == 0)
		r = settle_pages(w, &inode, page, n, in);
	if (r == 0)
		r = delta_inode_put(d, &inode);
	if (r < 0)
		delta_abort(d);
	else
		r = delta_commit(d);
	if (r < 0) {
		mutex_lock(&d->lock);
		unplace(w, 0, w->count);
		mutex_unlock(&d->lock);
	}
	/* The file is gone, and they with it. */
	return r == -ENOENT ? 0 : r;
}

static int logged_compare(const void *a, const void *b)
{
	const struct logged *x = a, *y = b;

	return x->ino != y->ino ? (x->ino < y->ino ? -1 : 1) : x->page != y->page ? (x->page < y->page ? -1 : 1) : 0;
}

/* Those of list[at…] that lie in one chunk of a file, some perhaps several times: how many entries. */
static size_t settle_extent(const struct logged *list, size_t left, unsigned *ret_pages)
{
	size_t n = 1;

	while (n < left && list[n].ino == list[0].ino && list[n].page / CHUNK == list[0].page / CHUNK)
		n++;
	*ret_pages = (unsigned)(list[n - 1].page - list[0].page + 1);
	return n;
}

int content_settle(struct delta *d)
{
	_cleanup_free_ struct logged *list = NULL;
	_cleanup_free_ uint8_t *in = NULL;
	struct writer w = {.d = d};
	size_t count, done = 0;
	int r;

	mutex_lock(&d->lock);
	d->settling = true;
	list = steal_pointer(&d->logged);
	count = d->logged_count;
	d->logged_count = d->logged_capacity = 0;
	d->settling = true;
	mutex_unlock(&d->lock);
	if (!count)
		return 0;
	r = writer_init(&w);
	in = malloc(CHUNK_BYTES);
	if (!in)
		r = -ENOMEM;
	qsort(list, count, sizeof(*list), logged_compare);
	while (r == 0 && done < count) {
		unsigned pages;
		size_t n = settle_extent(list + done, count - done, &pages);

		r = settle_run(&w, list[done].ino, list[done].page, pages, in);
		if (r < 0)
			break;
		delta_unreserve(d, n);
		done += n;
	}
	writer_destroy(&w);
	/* The others wait for the next time, with their promised pages. */
	mutex_lock(&d->lock);
	for (; done < count; done++)
		if (logged_note(d, list[done].ino, list[done].page) < 0)
			delta_fail(d, -ENOMEM);
	mutex_unlock(&d->lock);
	return r;
}
