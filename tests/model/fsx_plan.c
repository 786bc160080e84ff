/* SPDX-License-Identifier: MIT */
/* Which operation comes next, and with which ranges. Looks at the model only, never at what the filesystem answered. */
#include "fsx.h"

#define TRIES 20u /* to find an operation that is possible now */

const char *const op_names[OP_KINDS] = {
	[OP_READ] = "read",
	[OP_READV] = "readv",
	[OP_READ_DIRECT] = "read-direct",
	[OP_READ_MAPPED] = "read-mapped",
	[OP_READ_URING] = "read-uring",
	[OP_READ_URING_DIRECT] = "read-uring-direct",
	[OP_READ_SELF] = "read-self",
	[OP_READ_SELF_DIRECT] = "read-self-direct",
	[OP_WRITE] = "write",
	[OP_WRITEV] = "writev",
	[OP_APPEND] = "append",
	[OP_WRITE_DIRECT] = "write-direct",
	[OP_WRITE_MAPPED] = "write-mapped",
	[OP_WRITE_URING] = "write-uring",
	[OP_WRITE_URING_DIRECT] = "write-uring-direct",
	[OP_WRITE_SELF] = "write-self",
	[OP_WRITE_SELF_DIRECT] = "write-self-direct",
	[OP_MAP] = "map",
	[OP_MAP_READ] = "map-read",
	[OP_MAP_WRITE] = "map-write",
	[OP_UNMAP] = "unmap",
	[OP_TRUNCATE] = "truncate",
	[OP_ALLOCATE] = "allocate",
	[OP_ALLOCATE_KEEP] = "allocate-keep",
	[OP_PUNCH] = "punch",
	[OP_ZERO] = "zero",
	[OP_ZERO_KEEP] = "zero-keep",
	[OP_COPY] = "copy",
	[OP_COPY_BETWEEN] = "copy-between",
	[OP_SEEK] = "seek",
	[OP_FSYNC] = "fsync",
	[OP_FDATASYNC] = "fdatasync",
	[OP_SYNC_RANGE] = "sync-range",
	[OP_DROP] = "drop",
	[OP_REOPEN] = "reopen",
	[OP_COMPARE] = "compare",
	[OP_REMOUNT] = "remount",
	[OP_POLLUTE] = "pollute",
};

static const uint8_t weights[OP_KINDS] = {
	[OP_READ] = 20,
	[OP_READV] = 6,
	[OP_READ_DIRECT] = 10,
	[OP_READ_MAPPED] = 14,
	[OP_READ_URING] = 8,
	[OP_READ_URING_DIRECT] = 6,
	[OP_READ_SELF] = 4,
	[OP_READ_SELF_DIRECT] = 4,
	[OP_WRITE] = 20,
	[OP_WRITEV] = 8,
	[OP_APPEND] = 8,
	[OP_WRITE_DIRECT] = 10,
	[OP_WRITE_MAPPED] = 14,
	[OP_WRITE_URING] = 8,
	[OP_WRITE_URING_DIRECT] = 6,
	[OP_WRITE_SELF] = 4,
	[OP_WRITE_SELF_DIRECT] = 4,
	[OP_MAP] = 5,
	[OP_MAP_READ] = 12,
	[OP_MAP_WRITE] = 14,
	[OP_UNMAP] = 4,
	[OP_TRUNCATE] = 14,
	[OP_ALLOCATE] = 5,
	[OP_ALLOCATE_KEEP] = 4,
	[OP_PUNCH] = 10,
	[OP_ZERO] = 6,
	[OP_ZERO_KEEP] = 4,
	[OP_COPY] = 7,
	[OP_COPY_BETWEEN] = 7,
	[OP_SEEK] = 8,
	[OP_FSYNC] = 3,
	[OP_FDATASYNC] = 3,
	[OP_SYNC_RANGE] = 3,
	[OP_DROP] = 5,
	[OP_REOPEN] = 4,
	[OP_COMPARE] = 1,
	[OP_REMOUNT] = 0, /* set apart: it takes a thousand times as long */
	[OP_POLLUTE] = 4,
};

#define REMOUNT_ONE_IN 1000u

/* ---- ranges ---- */

/* Small ones, ones around a page, ones around a compressed block, any. */
static uint64_t pick_len(struct rng *r, uint64_t max)
{
	static const uint64_t scales[] = {16, 600, 4096, 8192, 32768, 65536, 131072, UINT64_MAX};
	uint64_t scale = scales[rng_below(r, ARRAY_SIZE(scales))]; /* MIN evaluates twice */
	uint64_t len = 1 + rng_below(r, MIN(scale, max));

	if (rng_one_in(r, 4))
		len = align_up(len, fsx.page);
	return MAX(MIN(len, max), (uint64_t)1);
}

/* 0 to limit, with a liking for pages, blocks of 64 KiB, the end of the file, and one byte beside them. */
static uint64_t pick_off(struct rng *r, uint64_t limit, uint64_t size)
{
	uint64_t off = rng_below(r, limit + 1);

	switch (rng_below(r, 6)) {
	case 0:
		off = align_down(off, fsx.page);
		break;
	case 1:
		off = align_down(off, 65536);
		break;
	case 2:
		off = size;
		break;
	default:
		return off;
	}
	if (rng_one_in(r, 4))
		off += 1;
	else if (rng_one_in(r, 4) && off)
		off -= 1;
	return MIN(off, limit);
}

/* A range within 0 to limit; false if there is none. */
static bool pick_range(struct rng *r, uint64_t limit, uint64_t size, uint64_t align, struct op *op)
{
	uint64_t room;

	limit = align_down(limit, align);
	if (!limit)
		return false;
	op->off = align_down(pick_off(r, limit, size), align);
	op->off = MIN(op->off, limit - align);
	room = MIN(limit - op->off, align_down(fsx.op_limit, align));
	op->len = align_up(pick_len(r, room), align);
	op->len = MIN(op->len, room);
	return true;
}

/* A source for op's range: within the size of its file, and apart from the range if that is in the same file. */
static bool pick_source(struct rng *r, uint64_t align, struct op *op)
{
	const struct file *from = &fsx.file[op->from_file];
	uint64_t size = align_down(from->size, align);

	op->len = MIN(op->len, align_down(size / 2, align));
	if (!op->len)
		return false;
	for (unsigned i = 0; i < 8; i++) {
		op->from = align_down(rng_below(r, size - op->len + 1), align);
		if (op->from_file != op->file || op->from >= op->off + op->len ||
			op->off >= op->from + op->len)
			return true;
	}
	return false;
}

/* ---- operations ---- */

static bool plan_write(struct rng *r, struct op *op, uint64_t align)
{
	const struct file *f = &fsx.file[op->file];

	/* Mostly near to what is there, or files would always have their full size. */
	uint64_t limit = rng_one_in(r, 4) ? fsx.limit : MIN(fsx.limit, f->size + fsx.limit / 8);

	op->content = CONTENT_RANDOM + rng_below(r, 4);
	return pick_range(r, limit, f->size, align, op);
}

static bool plan_within(struct rng *r, struct op *op, bool write)
{
	const struct file *f = &fsx.file[op->file];

	if (write)
		op->content = CONTENT_RANDOM + rng_below(r, 4);
	return pick_range(r, f->size, f->size, 1, op);
}

static bool plan_append(struct rng *r, struct op *op)
{
	const struct file *f = &fsx.file[op->file];

	if (f->size >= fsx.limit)
		return false;
	op->content = CONTENT_RANDOM + rng_below(r, 4);
	op->off = f->size;
	op->len = pick_len(r, MIN(fsx.limit - f->size, fsx.op_limit));
	return true;
}

static bool plan_self(struct rng *r, struct op *op)
{
	const struct file *f = &fsx.file[op->file];
	bool direct = op->kind == OP_READ_SELF_DIRECT || op->kind == OP_WRITE_SELF_DIRECT;
	uint64_t align = direct ? fsx.page : 1;

	op->from_file = op->file;
	/* A mapping that is read into ends with the file. */
	if (op->kind == OP_READ_SELF || op->kind == OP_READ_SELF_DIRECT)
		return pick_range(r, f->size, f->size, align, op) && pick_source(r, align, op);
	return plan_write(r, op, align) && (op->content = CONTENT_NONE, true) && pick_source(r, align, op);
}

static bool plan_copy(struct rng *r, struct op *op)
{
	uint64_t align = rng_one_in(r, 3) ? fsx.page : 1; /* whole blocks can be shared */

	op->from_file = op->file;
	if (op->kind == OP_COPY_BETWEEN) {
		if (fsx.files < 2)
			return false;
		op->from_file = (op->file + 1 + rng_below(r, fsx.files - 1)) % fsx.files;
	}
	return plan_write(r, op, align) && (op->content = CONTENT_NONE, true) && pick_source(r, align, op);
}

static bool plan_map(struct rng *r, struct op *op)
{
	const struct file *f = &fsx.file[op->file];

	op->slot = rng_below(r, KEEP_SLOTS);
	if (f->keep[op->slot].used || !f->size)
		return false;
	op->off = align_down(rng_below(r, f->size), fsx.page);
	op->len = align_up(1 + rng_below(r, fsx.limit), fsx.page);
	return true;
}

static bool plan_map_use(struct rng *r, struct op *op, bool write)
{
	const struct file *f = &fsx.file[op->file];
	const struct keep *k;
	uint64_t end;

	op->slot = rng_below(r, KEEP_SLOTS);
	k = &f->keep[op->slot];
	if (!k->used || k->off >= f->size)
		return false;
	/* Pages past the end of the file can't be touched: the mapping may have become longer than the file. */
	end = MIN(f->size, k->off + k->len);
	op->off = k->off + rng_below(r, end - k->off);
	op->len = pick_len(r, MIN(end - op->off, fsx.op_limit));
	if (write)
		op->content = CONTENT_RANDOM + rng_below(r, 4);
	return true;
}

static bool plan_truncate(struct rng *r, struct op *op)
{
	const struct file *f = &fsx.file[op->file];

	op->off = pick_off(
		r, rng_one_in(r, 3) ? fsx.limit : MIN(fsx.limit, f->size + f->size / 4 + 8192), f->size);
	op->len = 0;
	return true;
}

static bool plan_drop(struct rng *r, struct op *op)
{
	op->off = op->len = 0; /* the whole file */
	if (!rng_one_in(r, 3))
		pick_range(r, fsx.limit, fsx.file[op->file].size, 1, op);
	return true;
}

static bool plan_kind(struct rng *r, struct op *op)
{
	const struct file *f = &fsx.file[op->file];

	switch (op->kind) {
	case OP_READ:
	case OP_READV:
	case OP_READ_URING:
	case OP_SEEK:
		return pick_range(r, fsx.limit, f->size, 1, op);
	case OP_READ_DIRECT:
	case OP_READ_URING_DIRECT:
		/* XFS gives EIO where a read goes on into blocks past the end that are not allocated yet. */
		return pick_range(r,
			fsx.past_eof ? fsx.limit : MIN(fsx.limit, align_up(f->size, fsx.direct_align)),
			f->size, fsx.direct_align, op);
	case OP_READ_MAPPED:
	case OP_WRITE_MAPPED:
		return plan_within(r, op, op->kind == OP_WRITE_MAPPED);
	case OP_WRITE:
	case OP_WRITEV:
	case OP_WRITE_URING:
		return plan_write(r, op, 1);
	case OP_WRITE_DIRECT:
	case OP_WRITE_URING_DIRECT:
		return plan_write(r, op, fsx.direct_align);
	case OP_APPEND:
		return plan_append(r, op);
	case OP_READ_SELF:
	case OP_READ_SELF_DIRECT:
	case OP_WRITE_SELF:
	case OP_WRITE_SELF_DIRECT:
		return plan_self(r, op);
	case OP_MAP:
		return plan_map(r, op);
	case OP_MAP_READ:
	case OP_MAP_WRITE:
		return plan_map_use(r, op, op->kind == OP_MAP_WRITE);
	case OP_UNMAP:
		op->slot = rng_below(r, KEEP_SLOTS);
		return f->keep[op->slot].used;
	case OP_TRUNCATE:
		return plan_truncate(r, op);
	case OP_ALLOCATE:
	case OP_ALLOCATE_KEEP:
	case OP_PUNCH:
	case OP_ZERO:
	case OP_ZERO_KEEP:
		return plan_write(r, op, rng_one_in(r, 3) ? fsx.page : 1) &&
		       (op->content = CONTENT_NONE, true);
	case OP_COPY:
	case OP_COPY_BETWEEN:
		return plan_copy(r, op);
	case OP_SYNC_RANGE:
	case OP_DROP:
		return plan_drop(r, op);
	case OP_POLLUTE:
		return f->size % fsx.page != 0;
	default:
		return true;
	}
}

static unsigned pick_kind(struct rng *r)
{
	unsigned total = 0, pick;

	for (unsigned i = 0; i < OP_KINDS; i++)
		total += fsx.off[i] ? 0 : weights[i];
	if (!total)
		return OP_COMPARE;
	pick = rng_below(r, total);
	for (unsigned i = 0;; i++) {
		unsigned w = fsx.off[i] ? 0 : weights[i];

		if (pick < w)
			return i;
		pick -= w;
	}
}

struct op plan(uint64_t n)
{
	struct rng r = rng_new(fsx.seed, n);
	struct op op = {0};
	bool remount = rng_one_in(&r, REMOUNT_ONE_IN);

	for (unsigned i = 0; i < TRIES; i++) {
		op = (struct op){.n = n, .bits = (uint32_t)rng_next(&r)};
		op.file = rng_below(&r, fsx.files);
		op.kind = remount && !fsx.off[OP_REMOUNT] ? OP_REMOUNT : pick_kind(&r);
		if (plan_kind(&r, &op))
			return op;
	}
	op.kind = OP_COMPARE;
	op.off = op.len = 0;
	op.content = CONTENT_NONE;
	return op;
}

void op_describe(const struct op *op, char *buf, size_t size)
{
	static const char *const contents[] = {"", " random", " zeros", " text", " mixed"};
	int n = snprintf(buf, size, "%s", op_names[op->kind]);
	char *p = buf + n;

	size -= n;
	if (fsx.files > 1)
		n = snprintf(p, size, " file %u", op->file), p += n, size -= n;
	if (op->kind == OP_TRUNCATE)
		n = snprintf(p, size, " to %#jx", (uintmax_t)op->off);
	else
		n = snprintf(p, size, " %#jx+%#jx%s", (uintmax_t)op->off, (uintmax_t)op->len,
			contents[op->content]);
	p += n, size -= n;
	if (op->kind == OP_COPY_BETWEEN)
		n = snprintf(p, size, " from file %u %#jx", op->from_file, (uintmax_t)op->from), p += n,
		size -= n;
	else if (op->kind == OP_COPY || op->kind == OP_READ_SELF || op->kind == OP_READ_SELF_DIRECT ||
		 op->kind == OP_WRITE_SELF || op->kind == OP_WRITE_SELF_DIRECT)
		n = snprintf(p, size, " from %#jx", (uintmax_t)op->from), p += n, size -= n;
	else if (op->kind >= OP_MAP && op->kind <= OP_UNMAP)
		n = snprintf(p, size, " mapping %u", op->slot), p += n, size -= n;
	snprintf(p, size, op->skipped ? " (left out)" : "");
}
