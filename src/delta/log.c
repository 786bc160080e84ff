/* SPDX-License-Identifier: MIT */
/*
 * The log: a circle of frames. Each is written when its transaction ends, and is durable after the next flush.
 *
 * The page that a frame begins in is written whole, with what stands before it, so that the kernel never has to read it first. What stands
 * before it doesn't change by that: a torn write leaves it as it is.
 */
#include "delta/internal.h"

#define FRAME_ALIGN 8u
/* The head never comes nearer to the tail than this: the page that it is written with ends before that. */
#define GAP (2u * PINFS_PAGE_SIZE)
/* Parts of a log that were never written are, in such steps, so that a flush finds nothing to allocate. */
#define READY_STEP (256u << 10)
/* Less for the first frame, which somebody waits for who perhaps changes no more than that. */
#define READY_FIRST (32u << 10)
/* The log begins small, and grows where the disk lets it. */
#define LIMIT_STEP (1u << 20)

void log_init_at(struct log *log, uint64_t first, uint64_t bytes, uint64_t start, uint64_t sequence, uint64_t previous)
{
	*log = (struct log){
		.first = first,
		.bytes = bytes,
		.head = start,
		.tail = start,
		.sequence = sequence,
		.previous = previous,
		.limit = MIN(bytes, (uint64_t)LIMIT_STEP),
	};
}

/* Zeroes up to there. */
static int zero_until(struct delta *d, uint64_t end)
{
	struct log *log = &d->log;
	_cleanup_mem_ uint8_t *zeroes = NULL;
	size_t step = d->frames ? READY_STEP : READY_FIRST;

	if (end <= log->ready)
		return 0;
	zeroes = mem_alloc(step);
	if (!zeroes)
		return -ENOMEM;
	while (log->ready < end) {
		size_t n = (size_t)MIN((uint64_t)step, log->limit - log->ready);
		int r = store_write(d->store, log->first + log->ready, zeroes, n);

		if (r < 0)
			return r;
		log->ready += n;
	}
	return 0;
}

int log_ready(struct delta *d)
{
	return zero_until(d, d->log.limit);
}

int log_wipe(struct delta *d)
{
	_cleanup_mem_ uint8_t *buf = mem_alloc(READY_STEP), *zeroes = mem_alloc(READY_STEP);
	struct log *log = &d->log;
	uint64_t size = store_size(d->store), end = MIN(log->bytes, size > log->first ? size - log->first : 0);

	assert(!log->used);
	if (!buf || !zeroes)
		return -ENOMEM;
	for (uint64_t pos = 0; pos < end; pos += READY_STEP) {
		size_t n = (size_t)MIN((uint64_t)READY_STEP, end - pos);
		int r = store_read(d->store, log->first + pos, buf, n);

		/* Holes stay holes. */
		if (r == 0 && memcmp(buf, zeroes, n) != 0)
			r = store_write(d->store, log->first + pos, zeroes, n);
		if (r < 0)
			return r;
	}
	memset(log->page, 0, sizeof(log->page));
	return 0;
}

/* Zeroes ahead of the head, while the log is new. */
static int make_ready(struct delta *d, uint64_t end)
{
	return d->options.no_flush ? 0 : zero_until(d, end);
}

bool log_grow(struct delta *d)
{
	struct log *log = &d->log;
	uint64_t more = MIN((uint64_t)LIMIT_STEP, log->bytes - log->limit);
	int r;

	/* Behind older frames it would be of no use. */
	if (!more || log->head < log->tail)
		return false;
	r = store_allocate(d->store, log->first + log->limit, more);
	if (r < 0 && r != -EOPNOTSUPP)
		return false;
	log->limit += more;
	if (r == -EOPNOTSUPP && log_ready(d) < 0) {
		log->limit -= more;
		return false;
	}
	return true;
}

uint64_t log_room(const struct log *log)
{
	uint64_t taken = log->used + GAP;

	return taken < log->limit ? log->limit - taken : 0;
}

/* Writes a frame, whose bytes lie at txn.out + a page, at the head. */
static int frame_write(struct delta *d, size_t total)
{
	struct log *log = &d->log;
	size_t before = log->head % PINFS_PAGE_SIZE, all = before + total;
	uint8_t *from = d->txn.out + PINFS_PAGE_SIZE - before;
	size_t padded = (size_t)MIN(align_up(all, PINFS_PAGE_SIZE), log->bytes - (log->head - before));
	int r = make_ready(d, log->head + total);

	if (r < 0)
		return r;
	memcpy(from, log->page, before);
	memset(from + all, 0, padded - all);
	r = store_write(d->store, log->first + log->head - before, from, padded);
	if (r < 0)
		return r;
	log->head += total;
	log->used += total;
	memcpy(log->page, from + align_down(all, PINFS_PAGE_SIZE), all % PINFS_PAGE_SIZE);
	return 0;
}

/* A frame's header, in front of len bytes of payload. */
static void frame_seal(struct delta *d, size_t len, uint32_t flags)
{
	struct pinfs_delta_frame *f = (struct pinfs_delta_frame *)(d->txn.out + PINFS_PAGE_SIZE);
	size_t total = sizeof(*f) + len;

	*f = (struct pinfs_delta_frame){
		.magic = pinfs_put32(PINFS_DELTA_FRAME_MAGIC),
		.len = pinfs_put32((uint32_t)len),
		.sequence = pinfs_put64(d->log.sequence),
		.previous = pinfs_put64(d->log.previous),
		.durable = pinfs_put64(a64_read(&d->durable)),
		.delta = pinfs_put64(d->id),
		.flags = pinfs_put32(flags),
	};
	f->checksum = pinfs_put64(codec_checksum((uint8_t *)f + sizeof(f->checksum), total - sizeof(f->checksum)));
	memset((uint8_t *)f + total, 0, align_up(total, FRAME_ALIGN) - total);
}

static int frame_out(struct delta *d, size_t len, uint32_t flags)
{
	const struct pinfs_delta_frame *f = (const struct pinfs_delta_frame *)(d->txn.out + PINFS_PAGE_SIZE);
	struct log *log = &d->log;
	int r;

	if (log->sequence + 1 >= COUNT_MOST)
		return -EFBIG;
	frame_seal(d, len, flags);
	r = frame_write(d, align_up(sizeof(*f) + len, FRAME_ALIGN));
	if (r < 0)
		return r;
	log->previous = pinfs_get64(f->checksum);
	log->sequence++;
	d->frames++;
	return 0;
}

/* How much a frame may take before the circle begins anew: with room for the one that says so, unless it is really the end. */
static uint64_t log_rest(const struct log *log)
{
	uint64_t rest = log->limit - log->head, wrap = log->limit < log->bytes ? sizeof(struct pinfs_delta_frame) : 0;

	return rest > wrap ? rest - wrap : 0;
}

/* The rest of the circle is too small: the next frame lies at its beginning. */
static int log_wrap(struct delta *d)
{
	struct log *log = &d->log;
	uint64_t rest = log->limit - log->head;
	struct pinfs_delta_frame *f = (struct pinfs_delta_frame *)(d->txn.out + PINFS_PAGE_SIZE);
	int r = 0;

	if (rest >= sizeof(*f)) {
		uint8_t saved[sizeof(*f)];

		/* The payload is there already; a header of its own only takes the header's place. */
		_Static_assert(sizeof(*f) % FRAME_ALIGN == 0, "frames are aligned");
		memcpy(saved, f, sizeof(saved));
		r = frame_out(d, 0, PINFS_DELTA_FRAME_WRAP);
		memcpy(f, saved, sizeof(saved));
		rest -= sizeof(*f);
	}
	if (r < 0)
		return r;
	log->used += rest;
	log->head = 0;
	return 0;
}

int log_prepare(struct delta *d, size_t bytes)
{
	struct log *log = &d->log;
	uint64_t rest = log_rest(log);

	d->txn.placed = true;
	if (rest >= bytes)
		return 0;
	assert(!d->txn.len);
	return log->limit - log->head + bytes > log_room(log) ? -ENOSPC : log_wrap(d);
}

uint64_t log_position(const struct delta *d)
{
	return d->log.first + d->log.head + sizeof(struct pinfs_delta_frame) + d->txn.len;
}

int log_append(struct delta *d)
{
	struct log *log = &d->log;
	size_t total = align_up(sizeof(struct pinfs_delta_frame) + d->txn.len, FRAME_ALIGN);
	bool wrap = log_rest(log) < total;
	int r = 0;

	if (total > PINFS_DELTA_FRAME_MAX || total + (wrap ? log->limit - log->head : 0) > log_room(log))
		return -ENOSPC;
	if (wrap && d->txn.placed)
		return -EAGAIN;
	if (wrap) {
		_cleanup_mem_ uint8_t *payload = mem_alloc(d->txn.len);

		/* Padding behind the wrapping frame would overwrite what is to follow. */
		if (!payload)
			return -ENOMEM;
		memcpy(payload, d->txn.out + PINFS_PAGE_SIZE + sizeof(struct pinfs_delta_frame), d->txn.len);
		r = log_wrap(d);
		memcpy(d->txn.out + PINFS_PAGE_SIZE + sizeof(struct pinfs_delta_frame), payload, d->txn.len);
	}
	if (r == 0)
		r = frame_out(d, d->txn.len, 0);
	return r;
}

/* ---- reading ---- */

/* The frame at `pos` of the log, into *buf. 0: valid; 1: there is none. */
static int frame_read(struct delta *d, uint64_t pos, uint64_t sequence, uint64_t previous, uint8_t **buf, size_t *capacity,
	size_t *ret_total)
{
	const struct log *log = &d->log;
	struct pinfs_delta_frame f;
	size_t total;
	int r;

	if (log->bytes - pos < sizeof(f))
		return 1;
	r = store_read(d->store, log->first + pos, &f, sizeof(f));
	if (r < 0)
		return r;
	total = sizeof(f) + pinfs_get32(f.len);
	if (pinfs_get32(f.magic) != PINFS_DELTA_FRAME_MAGIC || pinfs_get64(f.delta) != d->id ||
		pinfs_get64(f.sequence) != sequence || pinfs_get64(f.previous) != previous ||
		total > PINFS_DELTA_FRAME_MAX || total > log->bytes - pos)
		return 1;
	if (array_reserve(buf, capacity, total, 1) < 0)
		return -ENOMEM;
	r = store_read(d->store, log->first + pos, *buf, total);
	if (r < 0)
		return r;
	if (memcmp(*buf, &f, sizeof(f)) != 0 ||
		pinfs_get64(f.checksum) != codec_checksum(*buf + sizeof(f.checksum), total - sizeof(f.checksum)))
		return 1;
	*ret_total = total;
	return 0;
}

int log_walk(struct delta *d, bool take, int (*frame)(void *context, const struct log_frame *frame), void *context)
{
	_cleanup_free_ uint8_t *buf = NULL;
	struct log *log = &d->log;
	uint64_t pos = log->tail, sequence = log->sequence, previous = log->previous, used = 0, limit = 0;
	size_t capacity = 0, total = 0;
	int r;

	for (;;) {
		const struct pinfs_delta_frame *f;
		struct log_frame info;

		/* Where not even a header fits, the next frame is at the beginning. */
		if (log->bytes - pos < sizeof(*f)) {
			used += log->bytes - pos;
			limit = log->bytes;
			pos = 0;
		}
		r = frame_read(d, pos, sequence, previous, &buf, &capacity, &total);
		if (r)
			break;
		/* It can't go round more than once. */
		if (used + align_up(total, FRAME_ALIGN) > log->bytes)
			break;
		f = (const struct pinfs_delta_frame *)buf;
		info = (struct log_frame){
			.sequence = sequence,
			.durable = pinfs_get64(f->durable),
			.offset = log->first + pos + sizeof(*f),
			.payload = buf + sizeof(*f),
			.len = total - sizeof(*f),
		};
		r = frame(context, &info);
		if (r)
			break;
		previous = pinfs_get64(f->checksum);
		sequence++;
		if (pinfs_get32(f->flags) & PINFS_DELTA_FRAME_WRAP) {
			/* So large was the log then; it doesn't grow while frames lie in front of its head. */
			limit = MIN(align_up(pos + total, LIMIT_STEP), log->bytes);
			used += limit - pos;
			pos = 0;
		} else {
			used += align_up(total, FRAME_ALIGN);
			pos += align_up(total, FRAME_ALIGN);
		}
	}
	if (r < 0)
		return r;
	if (take) {
		if (pos == log->bytes)
			pos = 0;
		log->head = pos;
		log->used = used;
		/* A copy of the file may have holes where there were zeroes: what was written is not written over to make it ready. */
		log->ready = MAX(log->ready, limit ? limit : MIN(align_up(pos, PINFS_PAGE_SIZE), log->bytes));
		/*
		 * It was at least so large; of a circle that is closed the room is counted by where it was. Behind the frames whole steps
		 * count alone: of one that found no room some may have been written.
		 */
		log->limit = limit ? limit :
				     MIN(MAX(MAX(align_up(pos, LIMIT_STEP), align_down(log->ready, LIMIT_STEP)), (uint64_t)LIMIT_STEP), log->bytes);
		log->sequence = sequence;
		log->previous = previous;
		return store_read(d->store, log->first + align_down(pos, PINFS_PAGE_SIZE), log->page, PINFS_PAGE_SIZE);
	}
	return 0;
}

bool log_record_next(const struct log_frame *f, size_t *at, struct log_record *ret, int *error)
{
	struct pinfs_delta_record r;
	size_t len;

	if (*at >= f->len)
		return false;
	if (f->len - *at < sizeof(r)) {
		*error = -EUCLEAN;
		return false;
	}
	memcpy(&r, f->payload + *at, sizeof(r));
	len = pinfs_get32(r.len);
	if (len > f->len - *at - sizeof(r)) {
		*error = -EUCLEAN;
		return false;
	}
	*ret = (struct log_record){
		.op = pinfs_get32(r.op),
		.key = {pinfs_get64(r.key.object), pinfs_get64(r.key.offset)},
		.value = f->payload + *at + sizeof(r),
		.len = len,
	};
	*at += align_up(sizeof(r) + len, FRAME_ALIGN);
	return true;
}
