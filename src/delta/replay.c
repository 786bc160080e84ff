/* SPDX-License-Identifier: MIT */
/*
 * After a crash: applies what is in the log to the last checkpoint.
 *
 * A frame that holds may still refer to content that never reached the disk, if it was written after the last flush. So of frames behind that
 * (each says which were flushed before it) the content is checked too, and the first that doesn't hold is where the log ends. What was flushed is not
 * cut off, whatever has happened to it since: that is damage, which who reads it hears of.
 */
#include "delta/internal.h"

/* Numbers of frames that fsck leaves out, so that those behind a log that it has cut don't fit any more. */
#define SALVAGE_STEP (1u << 20)

struct replay {
	struct delta *delta;
	uint64_t durable; /* number of the last frame that is known to be */
	uint64_t last;	  /* number of the last one that holds */
	uint64_t next;
	uint8_t *buf;
};

static int note_durable(void *context, const struct log_frame *f)
{
	struct replay *r = context;

	if (f->durable < f->sequence)
		r->durable = MAX(r->durable, f->durable);
	r->last = f->sequence;
	return 0;
}

/* 1: its content isn't there. */
static int verify_frame(void *context, const struct log_frame *f)
{
	struct replay *r = context;
	struct log_record rec;
	size_t at = 0;
	int error = 0;

	if (f->sequence <= r->durable)
		return 0;
	if (r->delta->salvage.cut && f->sequence >= r->delta->salvage.cut)
		return 1;
	while (log_record_next(f, &at, &rec, &error)) {
		int e;

		if (rec.op != PINFS_DELTA_PUT || (rec.key.object & 0xff) != PINFS_DELTA_EXTENT || !(rec.key.object >> 8))
			continue;
		if (!extent_valid(rec.value, rec.len))
			break; /* said when it is applied */
		e = extent_verify(r->delta, rec.value, rec.len, r->buf);
		if (e == -EUCLEAN) {
			r->delta->log_no_content = true;
			return 1;
		}
		if (e < 0)
			return e;
	}
	r->next = f->sequence + 1;
	return 0;
}

/* In the tree an extent that lies in the log says where. */
static int apply_put(struct delta *d, const struct log_frame *f, const struct log_record *rec)
{
	struct pinfs_delta_extent e;

	if (rec->key.object >> 8 && (rec->key.object & 0xff) == PINFS_DELTA_EXTENT) {
		if (!extent_valid(rec->value, rec->len))
			return -EUCLEAN;
		memcpy(&e, rec->value, sizeof(e));
		if (e.kind == PINFS_DELTA_LOGGED) {
			/* It will have to move; who only reads moves nothing. */
			int r = d->options.read_only ? 0 : logged_note(d, rec->key.object >> 8, rec->key.offset);

			e.start = pinfs_put64(f->offset + (uint64_t)(rec->value - f->payload) + sizeof(e));
			return r < 0 ? r : tree_put(d->tree, rec->key, &e, sizeof(e));
		}
	}
	if (rec->len > PINFS_DELTA_ITEM_MAX)
		return -EUCLEAN;
	if (rec->key.object >> 8 > INO_MAX)
		return -EUCLEAN;
	if ((rec->key.object & 0xff) == PINFS_DELTA_INODE && rec->key.object >> 8)
		d->next_ino = MAX(d->next_ino, MIN((rec->key.object >> 8) + 1, INO_MAX - 1));
	return tree_put(d->tree, rec->key, rec->value, rec->len);
}

/* Pages are taken from low to high: none lies far behind all others, and the end of the delta. */
#define ALLOC_MOST ((uint64_t)1 << 20)
/* What a log may add to a delta in all, whose file the power cut perhaps left shorter: 256 GiB, for which the maps need 56 MiB. */
#define ALLOC_SPAN ((uint64_t)1 << 26)

static bool alloc_plausible(const struct delta *d, uint64_t first, uint64_t pages)
{
	return pages <= ALLOC_MOST && first <= d->alloc_end - pages;
}

static int apply_record(struct delta *d, const struct log_frame *f, const struct log_record *rec)
{
	int r;

	switch (rec->op) {
	case PINFS_DELTA_PUT:
		return apply_put(d, f, rec);
	case PINFS_DELTA_DELETE:
		r = tree_delete(d->tree, rec->key);
		return r == -ENOENT ? (d->salvage.lost_nodes ? 0 : -EUCLEAN) : r;
	case PINFS_DELTA_ALLOC:
		return alloc_plausible(d, rec->key.object, rec->key.offset) &&
			(space_live(d->space, rec->key.object, rec->key.offset) || d->salvage.map_lost) ? 0 : -EUCLEAN;
	case PINFS_DELTA_FREE:
		return space_release(d->space, rec->key.object, rec->key.offset) || d->salvage.map_lost ? 0 : -EUCLEAN;
	case PINFS_DELTA_FILES:
		d->files = rec->key.offset;
		return 0;
	default:
		return -EUCLEAN;
	}
}

static int apply_frame(void *context, const struct log_frame *f)
{
	struct replay *r = context;
	struct log_record rec;
	size_t at = 0;
	int error = 0;

	if (f->sequence >= r->next || (r->delta->salvage.cut && f->sequence >= r->delta->salvage.cut))
		return 1;
	while (error == 0 && log_record_next(f, &at, &rec, &error))
		error = apply_record(r->delta, f, &rec);
	if (error == -EUCLEAN && r->delta->options.salvage) {
		r->delta->salvage.cut = f->sequence;
		r->delta->salvage.cut_offset = f->offset;
	}
	if (error == -EUCLEAN)
		delta_damaged(r->delta, f->offset + at, "frame %ju of the log contradicts what stands before it", (uintmax_t)f->sequence);
	if (error < 0)
		return error;
	r->delta->replayed++;
	return 0;
}

static int logged_compare(const void *a, const void *b)
{
	const struct logged *x = a, *y = b;

	return x->ino != y->ino ? (x->ino < y->ino ? -1 : 1) : x->page != y->page ? (x->page < y->page ? -1 : 1) : 0;
}

/*
 * Of the pages that lay in the log some were written again since, or have moved to places of their own, in a checkpoint that the crash has
 * interrupted: on a full disk there is no second place for them.
 */
static int logged_left(struct delta *d)
{
	size_t count = d->logged_count, n = 0;

	if (count)
		qsort(d->logged, count, sizeof(*d->logged), logged_compare);
	for (size_t i = 0; i < count; i++) {
		struct logged l = d->logged[i];
		struct delta_extent e;
		int r;

		if (i + 1 < count && !logged_compare(&l, &d->logged[i + 1]))
			continue;
		r = delta_extent_get(d, l.ino, l.page, &e);
		if (r == 0 && e.kind == PINFS_DELTA_LOGGED)
			d->logged[n++] = l;
		else if (r < 0 && r != -EUCLEAN)
			return r;
	}
	d->logged_count = n;
	return 0;
}

int replay_log(struct delta *d, char error[DELTA_ERROR_SIZE])
{
	_cleanup_free_ uint8_t *buf = malloc(2 * EXTENT_BUFFER);
	struct replay r = {.delta = d, .buf = buf, .next = d->log.sequence};
	int e;

	if (!buf)
		return -ENOMEM;
	/* All before the checkpoint are. */
	r.durable = d->log.sequence - 1;
	e = log_walk(d, false, note_durable, &r);
	if (e == 0) {
		r.next = MAX(r.next, MIN(r.durable, r.last) + 1);
		e = log_walk(d, false, verify_frame, &r);
	}
	if (e == 0 && r.next > d->log.sequence && d->options.no_recovery) {
		snprintf(error, DELTA_ERROR_SIZE, "its log has to be applied first: it was not unmounted; mount it without 'norecovery'");
		return -EUCLEAN;
	}
	/* By what was there before: each frame could lead a little further. */
	d->alloc_end = MAX(space_bits(d->space), store_size(d->store) / PINFS_PAGE_SIZE) + ALLOC_SPAN;
	if (e == 0)
		e = log_walk(d, true, apply_frame, &r);
	if (e == 0)
		e = logged_left(d);
	/*
	 * Each of them needs a page to move to; not before all others that are used are known, or one of those would be promised. Those that were found stay
	 * the delta's: the next mount wants them, too.
	 */
	if (e == 0) {
		e = space_reserve(d->space, d->logged_count);
		if (e == -ENOSPC || e == -EDQUOT)
			snprintf(error, DELTA_ERROR_SIZE, "there is no room for the %zu pages of content that lie in its log (%s)", d->logged_count, strerror(-e));
	}
	if (e < 0)
		return e;
	/* What stands behind the end is not to be found again. */
	if (d->options.salvage && !d->options.read_only && d->log.sequence < COUNT_MOST - 2 * SALVAGE_STEP)
		d->log.sequence += SALVAGE_STEP;
	a64_set(&d->written, d->log.sequence - 1);
	a64_set(&d->durable, MIN(r.durable, d->log.sequence - 1));
	return 0;
}
