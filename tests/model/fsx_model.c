/* SPDX-License-Identifier: MIT */
/*
 * What the files must hold. Content depends on seed, operation and place in the file, so bytes that are found where they
 * should not be can be traced to the operation that wrote them, even if they look random.
 */
#include <stdarg.h>

#include "fsx.h"

#define RECORD 32u	/* bytes of content that are made together */
#define MIXED_RUN 4096u /* of one kind in mixed content */

static void put_hex(uint8_t *p, unsigned digits, uint64_t v)
{
	while (digits--) {
		p[digits] = "0123456789abcdef"[v & 15];
		v >>= 4;
	}
}

static void fill_record(uint8_t record[RECORD], uint64_t at, const struct op *op)
{
	unsigned content = op->content;

	if (content == CONTENT_MIXED)
		content = CONTENT_RANDOM + mix64(op->n * 31 + at / MIXED_RUN) % 3;
	if (content == CONTENT_ZERO) {
		memset(record, 0, RECORD);
	} else if (content == CONTENT_TEXT) {
		memcpy(record, "op ******** wrote at **********\n", RECORD);
		put_hex(record + 3, 8, op->n);
		put_hex(record + 21, 10, at);
	} else {
		uint64_t x = mix64(fsx.seed ^ mix64(op->n)) + at;

		for (unsigned i = 0; i < RECORD / 8; i++) {
			uint64_t v = mix64(x + 8 * i);

			memcpy(record + 8 * i, &v, 8);
		}
	}
}

void content_fill(uint8_t *buf, uint64_t off, uint64_t len, const struct op *op)
{
	uint8_t record[RECORD];

	while (len) {
		uint64_t skip = off % RECORD, n = MIN(len, RECORD - skip);

		fill_record(record, off - skip, op);
		memcpy(buf, record + skip, n);
		buf += n;
		off += n;
		len -= n;
	}
}

/* ---- changes ---- */

static void set_writer(struct file *f, uint64_t off, uint64_t len, uint64_t n)
{
	for (uint64_t i = 0; i < len; i++)
		f->writer[off + i] = (uint32_t)n;
}

static void grow(struct file *f, uint64_t size)
{
	f->size = MAX(f->size, size);
	f->high = MAX(f->high, size);
}

static void put(struct file *f, const struct op *op, const uint8_t *bytes)
{
	memmove(f->data + op->off, bytes, op->len);
	set_writer(f, op->off, op->len, op->n);
	grow(f, op->off + op->len);
}

static void zero(struct file *f, uint64_t off, uint64_t len, uint64_t n)
{
	memset(f->data + off, 0, len);
	set_writer(f, off, len, n);
}

static uint64_t within(const struct file *f, const struct op *op)
{
	return op->off >= f->size ? 0 : MIN(op->len, f->size - op->off);
}

static void apply_keep(const struct op *op)
{
	struct file *f = &fsx.file[op->file];
	struct keep *k = &f->keep[op->slot];

	if (op->kind == OP_UNMAP) {
		*k = (struct keep){0};
	} else {
		k->used = true; /* run() has put the address there */
		k->off = op->off;
		k->len = op->len;
	}
}

void model_apply(const struct op *op, const uint8_t *out)
{
	struct file *f = &fsx.file[op->file];

	switch (op->kind) {
	case OP_WRITE:
	case OP_WRITEV:
	case OP_APPEND:
	case OP_WRITE_DIRECT:
	case OP_WRITE_MAPPED:
	case OP_WRITE_URING:
	case OP_WRITE_URING_DIRECT:
	case OP_MAP_WRITE:
		put(f, op, out);
		break;
	case OP_READ_SELF:
	case OP_READ_SELF_DIRECT:
	case OP_WRITE_SELF:
	case OP_WRITE_SELF_DIRECT:
	case OP_COPY:
	case OP_COPY_BETWEEN:
		put(f, op, fsx.file[op->from_file].data + op->from);
		break;
	case OP_TRUNCATE:
		if (op->off < f->size)
			zero(f, op->off, f->size - op->off, op->n);
		f->size = op->off;
		f->high = MAX(f->high, op->off);
		break;
	case OP_ALLOCATE:
		grow(f, op->off + op->len);
		break;
	case OP_ALLOCATE_KEEP:
		f->high = MAX(f->high, op->off + op->len);
		break;
	case OP_ZERO:
		zero(f, op->off, op->len, op->n);
		grow(f, op->off + op->len);
		break;
	case OP_ZERO_KEEP:
		f->high = MAX(f->high, op->off + op->len);
		/* fall through */
	case OP_PUNCH:
		zero(f, op->off, within(f, op), op->n);
		break;
	case OP_MAP:
	case OP_UNMAP:
		apply_keep(op);
		break;
	case OP_REMOUNT:
		for (unsigned i = 0; i < fsx.files; i++)
			memset(fsx.file[i].keep, 0, sizeof(fsx.file[i].keep));
		break;
	default:
		break;
	}
}

/* ---- reports ---- */

static const struct op *history_op(uint64_t n)
{
	const struct op *op = &fsx.history[n % HISTORY];

	return n && op->n == n ? op : NULL;
}

static void print_op(const char *what, uint64_t n)
{
	const struct op *op = history_op(n);
	char text[200];

	if (!n)
		fprintf(stderr, "  %s: no operation (%s)\n", what,
			fsx.initial ? "what the file held at first" : "never written");
	else if (!op)
		fprintf(stderr, "  %s: operation %ju\n", what, (uintmax_t)n);
	else {
		op_describe(op, text, sizeof(text));
		fprintf(stderr, "  %s: operation %ju: %s\n", what, (uintmax_t)n, text);
	}
}

static bool all_zero(const uint8_t *p, uint64_t len)
{
	for (uint64_t i = 0; i < len; i++)
		if (p[i])
			return false;
	return true;
}

/* The newest operation with just these bytes for just this place, or 0. */
static uint64_t find_writer(const struct file *f, uint64_t off, const uint8_t *found, uint64_t len)
{
	uint64_t last = fsx.op.n;
	uint8_t bytes[16];

	len = MIN(len, sizeof(bytes));
	for (uint64_t n = last; n > 0 && last - n < HISTORY; n--) {
		const struct op *op = history_op(n);

		if (!op || op->skipped || op->content == CONTENT_NONE || &fsx.file[op->file] != f ||
			off < op->off || off >= op->off + op->len)
			continue;
		uint64_t common = MIN(len, op->off + op->len - off);

		content_fill(bytes, off, common, op);
		if (!memcmp(bytes, found, common))
			return n;
	}
	return 0;
}

static void print_found(const struct file *f, uint64_t off, const uint8_t *found, uint64_t len)
{
	uint64_t n = find_writer(f, off, found, len);
	const char *stamp;
	unsigned stamped;
	uint64_t at;

	if (n)
		print_op("found bytes of", n);
	else if (all_zero(found, MIN(len, 16u)))
		fprintf(stderr, "  found bytes of: none, they are zeros\n");
	stamp = memmem(found, MIN(len, 2 * RECORD), "op ", 3);
	if (stamp && sscanf(stamp, "op %8x wrote at %10jx", &stamped, &at) == 2)
		fprintf(stderr, "  found a stamp of operation %u, written at offset %#jx\n", stamped,
			(uintmax_t)at);
}

static void print_bytes(const char *what, const uint8_t *p, uint64_t len)
{
	fprintf(stderr, "  %s:", what);
	for (uint64_t i = 0; i < MIN(len, 16u); i++)
		fprintf(stderr, " %02x", p[i]);
	fputc('\n', stderr);
}

static void print_replay(void)
{
	fprintf(stderr, "replay:");
	for (int i = 0; i < fsx.argc; i++) {
		bool plain = fsx.argv[i][strcspn(fsx.argv[i], " ;&|$*?'\"<>()")] == 0;

		if (!strcmp(fsx.argv[i], "--self-check"))
			continue;
		fprintf(stderr, plain ? " %s" : " '%s'", fsx.argv[i]);
	}
	fprintf(stderr, " --seed %ju --ops %ju%s\n", (uintmax_t)fsx.seed,
		(uintmax_t)MAX(fsx.op.n, (uint64_t)1),
		fsx.initial ? "   (with the files as they were at first)" : "");
}

void report(const char *format, ...)
{
	uint64_t n = fsx.op.n, first = n > 20 ? n - 19 : 1;
	char label[32];
	va_list ap;

	fflush(stdout);
	fprintf(stderr, "fsx: seed %ju, operation %ju: ", (uintmax_t)fsx.seed, (uintmax_t)n);
	va_start(ap, format);
	vfprintf(stderr, format, ap);
	va_end(ap);
	fputs("\nlast operations:\n", stderr);
	for (uint64_t i = first; i <= n; i++) {
		const struct op *op = history_op(i);
		char text[200];

		if (!op)
			continue;
		op_describe(op, text, sizeof(text));
		snprintf(label, sizeof(label), "%ju", (uintmax_t)i);
		fprintf(stderr, "  %8s %s\n", label, text);
	}
	print_replay();
	if (fsx.log)
		fclose(fsx.log);
	exit(1);
}

void model_check(const struct file *f, uint64_t off, const uint8_t *found, uint64_t len, const char *how)
{
	const uint8_t *expected = f->data + off;
	uint64_t first = 0, wrong = 0, last = 0;

	if (!memcmp(expected, found, len))
		return;
	while (expected[first] == found[first])
		first++;
	for (uint64_t i = first; i < len; i++)
		if (expected[i] != found[i]) {
			wrong++;
			last = i;
		}
	fprintf(stderr, "%s: wrong bytes (%s of %#jx+%#jx, file size %#jx)\n", f->path, how, (uintmax_t)off,
		(uintmax_t)len, (uintmax_t)f->size);
	fprintf(stderr, "  first at offset %#jx, last at %#jx, %ju differ\n", (uintmax_t)(off + first),
		(uintmax_t)(off + last), (uintmax_t)wrong);
	print_bytes("expected", expected + first, len - first);
	print_bytes("found   ", found + first, len - first);
	print_op("expected bytes of", f->writer[off + first]);
	print_found(f, off + first, found + first, len - first);
	report("%s: offset %#jx: expected 0x%02x, found 0x%02x", f->path, (uintmax_t)(off + first),
		expected[first], found[first]);
}
