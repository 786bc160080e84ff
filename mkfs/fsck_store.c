/* SPDX-License-Identifier: MIT */
/* fsck, everything that is stored: index pages, chunks, data blocks, and what lies between them. */
#include "mkfs/fsck_internal.h"

#include "codec/codec.h"
#include "mkfs/space.h"

#define CHUNK_STEP 16u
#define BLOCK_STEP 4096u
#define ZERO_PIECE (64u << 10)

/* ---- index pages ---- */

struct index_check {
	struct codec_hash_state *hash;
	uint64_t stored; /* by all chunks of the section */
	uint64_t unread; /* index pages of all sections that could not be read, or are damaged */
};

/* Is the page what a reader will accept? Then its unused bytes are looked at as well. */
static bool index_page_whole(struct fsck *f, unsigned si, uint64_t page, const struct pinfs_index_page *p)
{
	const struct image_section *s = &f->info->sections[si];
	uint64_t first = page * PINFS_INDEX_ENTRIES;
	size_t used = (size_t)MIN((uint64_t)PINFS_INDEX_ENTRIES, s->chunk_count - first);

	if (codec_checksum(p, offsetof(struct pinfs_index_page, checksum)) != pinfs_get64(p->checksum) ||
		pinfs_get32(p->magic) != PINFS_INDEX_MAGIC || pinfs_get32(p->type) != s->type ||
		pinfs_get64(p->first) != first)
		return false;
	if (!fsck_all_zero(p->chunk + used, (PINFS_INDEX_ENTRIES - used) * sizeof(p->chunk[0])) ||
		!fsck_all_zero(p->reserved, sizeof(p->reserved)))
		fsck_problem(f, s->index_offset + page * PINFS_PAGE_SIZE,
			"index page %ju of section '%s': unused bytes are not zero", (uintmax_t)page,
			image_section_name(s->type));
	return true;
}

static int check_index_page(struct fsck *f, unsigned si, uint64_t page, struct index_check *c)
{
	const struct image_section *s = &f->info->sections[si];
	uint64_t at = s->index_offset + page * PINFS_PAGE_SIZE, first = page * PINFS_INDEX_ENTRIES;
	uint64_t end = MIN(first + PINFS_INDEX_ENTRIES, s->chunk_count);
	struct pinfs_index_page p;
	bool whole;
	int r;

	r = image_read_raw(f->image, at, sizeof(p), (uint8_t *)&p);
	fsck_forget_caught(); /* image_chunk_info() will say it again */
	if (r == 0)
		codec_hash_update(c->hash, &p, sizeof(p));
	whole = r == 0 && index_page_whole(f, si, page, &p);
	c->unread += !whole;
	for (uint64_t no = first; no < end; no++) {
		struct image_block b;

		r = image_chunk_info(f->image, si, no, &b);
		if (r < 0) {
			f->chunks_missing = true;
			r = fsck_problem_caught(f, r, at, whole ? "chunk %ju of section '%s'" : NULL, (uintmax_t)no,
				image_section_name(s->type));
			if (r < 0)
				return r;
			if (!whole)
				break;
			continue;
		}
		bitset_set(&f->chunks[si], no);
		c->stored += b.stored;
		f->lz4_used |= b.codec == PINFS_CODEC_LZ4;
		f->report->metadata_stored += b.stored;
		f->report->metadata_raw += b.raw;
	}
	return 0;
}

static int check_index(struct fsck *f, unsigned si, struct index_check *c)
{
	const struct image_section *s = &f->info->sections[si];
	uint64_t unread = c->unread;

	c->stored = 0;
	if (!s->index_pages && s->index_offset)
		fsck_problem(f, 0, "superblock: section '%s' is empty, but has an index",
			image_section_name(s->type));
	for (uint64_t page = 0; page < s->index_pages; page++) {
		int r = fsck_cancelled(f) ? -ECANCELED : check_index_page(f, si, page, c);

		if (r < 0)
			return r;
	}
	if (c->unread == unread && bitset_count(&f->chunks[si]) == s->chunk_count && c->stored != s->stored_size)
		fsck_problem(f, 0, "superblock: the chunks of section '%s' have %ju bytes, it says %ju",
			image_section_name(s->type), (uintmax_t)c->stored, (uintmax_t)s->stored_size);
	return 0;
}

int fsck_check_indexes(struct fsck *f)
{
	struct index_check c = {.hash = codec_hash_new()};
	uint8_t hash[16];
	int r = c.hash ? 0 : -ENOMEM;

	for (unsigned i = 0; r == 0 && i < f->info->section_count; i++)
		r = check_index(f, i, &c);
	if (r == 0 && !c.unread) {
		codec_hash128_bytes(codec_hash_digest(c.hash), hash);
		if (memcmp(hash, f->info->content_hash, sizeof(hash)))
			fsck_problem(f, 0, "superblock: the content hash is not that of the index pages");
	}
	codec_hash_free(c.hash);
	return r;
}

/* ---- overlaps and padding ---- */

struct space_check {
	struct fsck *f;
	bool metadata_only;
	uint64_t end;		 /* of what was seen until now */
	struct space_range last; /* which ends there */
	uint8_t *buf;
};

/* The part of a range's things that begins before `end` overlaps what ends there: it won't be read. */
static int drop_overlapped(struct space_check *c, const struct space_range *r)
{
	struct fsck *f = c->f;

	for (uint64_t no = r->first; no < r->first + r->count; no++) {
		struct image_block b;
		int error = r->kind == SPACE_BLOCK ? image_block_get(f->image, no, &b) :
						     image_chunk_info(f->image, r->section, no, &b);

		fsck_forget_caught();
		if (error == -ENOMEM)
			return error;
		if (error == 0 && b.offset >= c->end)
			break;
		bitset_clear(r->kind == SPACE_BLOCK ? &f->readable : &f->chunks[r->section], no);
	}
	return 0;
}

static int check_overlap(struct space_check *c, const struct space_range *r)
{
	char what[128], other[128];

	/* Metadata among itself was looked at before. */
	if (c->metadata_only || r->kind == SPACE_BLOCK || c->last.kind == SPACE_BLOCK)
		fsck_problem(c->f, r->offset, "%s (%ju bytes) overlaps %s, which ends at byte %ju",
			space_describe(c->f->info, r, what, sizeof(what)), (uintmax_t)r->length,
			space_describe(c->f->info, &c->last, other, sizeof(other)), (uintmax_t)c->end);
	return r->kind == SPACE_BLOCK || r->kind == SPACE_CHUNK ? drop_overlapped(c, r) : 0;
}

/* The end of the hole in the file that begins at `from`, at most `to`: what need not be read to know that it is zero. */
static uint64_t skip_hole(struct fsck *f, uint64_t from, uint64_t to)
{
	int fd = io_fd(image_io(f->image));
	off_t data;

	if (fd < 0)
		return from;
	data = lseek(fd, (off_t)(f->info->offset + from), SEEK_DATA);
	if (data < 0)
		return errno == ENXIO ? to : from;
	return MIN(MAX((uint64_t)data - f->info->offset, from), to);
}

static int check_gap(struct space_check *c, uint64_t from, uint64_t to)
{
	struct fsck *f = c->f;
	bool blocks = to > f->info->data_offset && from < f->info->data_end;
	bool chunks = from < f->info->data_offset || to > f->info->data_end;
	uint64_t at = from;

	f->report->padding += to - from;
	/* It may belong to something whose descriptor is lost. */
	if ((blocks && f->blocks_missing) || (chunks && f->chunks_missing))
		return 0;
	while ((at = skip_hole(f, at, to)) < to) {
		size_t n = (size_t)MIN(to - at, (uint64_t)ZERO_PIECE), i = 0;
		int r;

		if (fsck_cancelled(f))
			return -ECANCELED;
		r = image_read_raw(f->image, at, n, c->buf);
		if (r < 0) {
			r = fsck_problem_caught(f, r, at, "padding");
			if (r < 0)
				return r;
		} else if (!fsck_all_zero(c->buf, n)) {
			while (!c->buf[i])
				i++;
			fsck_problem(f, at + i, "bytes %ju to %ju belong to nothing, but are not zero",
				(uintmax_t)from, (uintmax_t)to - 1);
			return 0;
		}
		at += n;
	}
	return 0;
}

static int check_range(void *context, const struct space_range *r)
{
	struct space_check *c = context;
	int error = 0;

	fsck_forget_caught(); /* what space_walk() could not decode is known already */
	if (r->offset < c->end)
		error = check_overlap(c, r);
	else if (r->offset > c->end && !c->metadata_only)
		error = check_gap(c, c->end, r->offset);
	if (r->offset + r->length > c->end) {
		c->end = r->offset + r->length;
		c->last = *r;
	}
	return error;
}

static bool space_cancelled(void *context)
{
	struct space_check *c = context;

	return fsck_cancelled(c->f);
}

static int check_space(struct fsck *f, bool metadata_only)
{
	struct space_options o = {.metadata_only = metadata_only, .merge = true, .cancelled = space_cancelled};
	struct space_check c = {.f = f, .metadata_only = metadata_only};
	bool chunks_missing, blocks_missing;
	int r;

	c.buf = malloc(ZERO_PIECE);
	if (!c.buf)
		return -ENOMEM;
	r = space_walk(f->image, &o, check_range, &c, &chunks_missing, &blocks_missing);
	fsck_forget_caught();
	free(c.buf);
	return r;
}

/* ---- chunks ---- */


static int check_chunks(struct fsck *f, unsigned si, uint64_t from, uint64_t to)
{
	uint64_t stored = 0;

	for (uint64_t no = from; no < to; no++) {
		struct image_block b = {0};
		int r;

		if (!bitset_test(&f->chunks[si], no))
			continue;
		r = image_chunk_check(f->image, si, no);
		if (r < 0) {
			bitset_clear(&f->chunks[si], no);
			r = fsck_problem_caught(f, r, 0, r == -EUCLEAN ? NULL : "chunk %ju of section '%s'",
				(uintmax_t)no, image_section_name(f->info->sections[si].type));
			if (r < 0)
				return r;
		}
		if (image_chunk_info(f->image, si, no, &b) == 0)
			stored += b.stored;
		fsck_forget_caught();
	}
	progress_add(f->progress, stored);
	return 0;
}

/* All sections are one row of pieces, so that small ones don't each wait for all threads. */
static uint64_t section_pieces(const struct fsck *f, unsigned si)
{
	return DIV_ROUND_UP(f->info->sections[si].chunk_count, (uint64_t)CHUNK_STEP);
}

static int chunk_sweep(struct fsck *f, uint64_t from, uint64_t to, void *scratch)
{
	for (unsigned si = 0; si < f->info->section_count; si++) {
		uint64_t pieces = section_pieces(f, si);

		if (from < pieces)
			return check_chunks(f, si, from * CHUNK_STEP,
				MIN((from + 1) * CHUNK_STEP, f->info->sections[si].chunk_count));
		from -= pieces;
	}
	return 0;
}

/* ---- the block table ---- */

struct block_tally {
	uint64_t stored, raw, raw_codec, count;
	bool lz4, missing;
};

static bool follows(const struct image_block *before, const struct image_block *b)
{
	return before->codec == PINFS_CODEC_RAW && b->codec == PINFS_CODEC_RAW && before->stored &&
		b->offset == before->offset + before->stored;
}

static void table_note(struct fsck *f, uint64_t n, const struct image_block *before, const struct image_block *b,
	struct block_tally *t)
{
	bitset_set(&f->readable, n);
	if (b->raw == f->info->block_size)
		bitset_set(&f->full, n);
	if (follows(before, b))
		bitset_set(&f->chained, n);
	t->count++;
	t->stored += b->stored;
	t->raw += b->raw;
	t->raw_codec += b->codec == PINFS_CODEC_RAW;
	t->lz4 |= b->codec == PINFS_CODEC_LZ4;
}

/* Descriptors [from, to) of the block table. */
static int table_sweep(struct fsck *f, uint64_t from, uint64_t to, void *scratch)
{
	struct image_block before = {0}, b;
	struct block_tally t = {0};

	if (from && fsck_section_readable(f, PINFS_SECTION_BLOCKS, (from - 1) * sizeof(struct pinfs_block),
		sizeof(struct pinfs_block)) && image_block_get(f->image, from - 1, &before) < 0)
		before = (struct image_block){0};
	fsck_forget_caught();
	for (uint64_t n = from; n < to; n++) {
		uint64_t pos = n * sizeof(struct pinfs_block);
		int r = -EUCLEAN;

		if (fsck_section_readable(f, PINFS_SECTION_BLOCKS, pos, sizeof(struct pinfs_block))) {
			r = image_block_get(f->image, n, &b);
			if (r == 0)
				table_note(f, n, &before, &b, &t);
			else if (fsck_problem_caught(f, r, 0, "block %ju", (uintmax_t)n) < 0)
				return -ENOMEM;
		}
		t.missing |= r < 0;
		before = r < 0 ? (struct image_block){0} : b;
	}
	mutex_lock(&f->lock);
	f->report->blocks += t.count;
	f->report->block_stored += t.stored;
	f->report->block_raw += t.raw;
	f->report->blocks_raw_codec += t.raw_codec;
	f->lz4_used |= t.lz4;
	f->blocks_missing |= t.missing;
	mutex_unlock(&f->lock);
	return 0;
}

/* ---- data blocks ---- */

static unsigned data_batch(const struct fsck *f)
{
	return MAX(4u, MIN(64u, (1u << 20) / f->info->block_size));
}

/* After a failed read: what was it, and where? The block is read once more for it, alone. */
static int data_problem(struct fsck *f, uint64_t n, int error, uint8_t *buf)
{
	struct image_read again = {.data = buf};
	struct image_block b;
	uint64_t where = image_block_get(f->image, n, &b) == 0 ? b.offset : f->info->data_offset;

	bitset_clear(&f->readable, n);
	fsck_forget_caught();
	image_read_blocks(f->image, n, 1, &again);
	/* Of damage on_damage was told with the block's number. */
	return fsck_problem_caught(f, error, where, error == -EUCLEAN && fsck_has_caught() ? NULL : "block %ju",
		(uintmax_t)n);
}

/* Blocks [from, to), at most data_batch() of them. */
static int data_sweep(struct fsck *f, uint64_t from, uint64_t to, void *scratch)
{
	struct image_read reads[64];
	uint8_t *buf = scratch;

	for (uint64_t n = from, end; (n = bitset_next_set(&f->readable, n, to)) < to; n = end) {
		unsigned count;

		end = bitset_next_clear(&f->readable, n, to);
		count = (unsigned)(end - n);
		for (unsigned i = 0; i < count; i++)
			reads[i].data = buf + (size_t)i * f->info->block_size;
		image_read_blocks(f->image, n, count, reads);
		for (unsigned i = 0; i < count; i++) {
			int r = reads[i].error;

			if (r < 0)
				r = data_problem(f, n + i, r, reads[i].data);
			if (r < 0)
				return r;
		}
		fsck_forget_caught();
	}
	/* Near enough for a display: the blocks' mean. */
	fsck_progress(f, f->info->data_end - f->info->data_offset, to - from, f->info->block_count);
	return 0;
}

int fsck_check_store(struct fsck *f)
{
	uint64_t pieces = 0, blocks = f->info->block_count;
	int r;

	for (unsigned i = 0; i < f->info->section_count; i++)
		pieces += section_pieces(f, i);
	/* Overlaps first: else one compressed byte sequence could be a million chunks, or blocks. */
	r = check_space(f, true);
	if (r == 0)
		r = fsck_sweep(f, pieces, 1, 0, chunk_sweep);
	if (r == 0)
		r = fsck_sweep(f, blocks, BLOCK_STEP, 0, table_sweep);
	if (r == 0)
		r = check_space(f, false);
	if (r == 0)
		r = fsck_sweep(f, blocks, data_batch(f), (size_t)data_batch(f) * f->info->block_size, data_sweep);
	return r;
}
