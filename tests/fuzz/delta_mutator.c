/* SPDX-License-Identifier: MIT */
/*
 * Mutations of a packed delta: of a field of a superblock, a node, an item, a frame or a record, with a number that means something there; then
 * the checksums of all that holds it are made right again, so that it reaches what decides by it.
 */
#include "packed.h"

#include "codec/codec.h"
#include "pinfs/delta_format.h"

struct delta_file {
	struct packed p;
	struct fuzz_random r;
	uint64_t log_first, log_bytes;
};

static uint64_t number(struct delta_file *f, uint64_t old)
{
	static const uint64_t odd[] = {0, 1, 2, 4, 255, 256, 257, 4095, 4096, 4097, 16384, 65536, UINT32_MAX, 1ull << 32, 1ull << 51, INT64_MAX, UINT64_MAX};

	switch (fuzz_below(&f->r, 6)) {
	case 0:
		return odd[fuzz_below(&f->r, ARRAY_SIZE(odd))];
	case 1:
		return old + 1;
	case 2:
		return old - 1;
	case 3:
		/* A page, or an inode. */
		return fuzz_below(&f->r, fuzz_chance(&f->r, 50) ? f->p.size / PINFS_PAGE_SIZE + 2 : 40);
	case 4:
		return old ^ 1ull << fuzz_below(&f->r, 64);
	default:
		return fuzz_next(&f->r) >> fuzz_below(&f->r, 64);
	}
}

/* Some aligned field within [from, to). */
static void mutate_field(struct delta_file *f, uint64_t from, uint64_t to)
{
	static const uint8_t sizes[] = {1, 2, 4, 4, 8, 8};
	unsigned size = sizes[fuzz_below(&f->r, ARRAY_SIZE(sizes))];
	uint64_t at, v = 0;

	if (to - from < size)
		return;
	at = from + fuzz_below(&f->r, (to - from) / size) * size;
	if (!packed_get(&f->p, at, &v, size))
		return;
	v = htole64(number(f, le64toh(v)));
	packed_put(&f->p, at, &v, size);
}

/* ---- checksums ---- */

/* Of the content that an extent refers to. */
static void mend_extent(struct delta_file *f, uint64_t at, size_t len)
{
	struct pinfs_delta_extent e;
	uint8_t buf[PINFS_DELTA_EXTENT_PAGES * PINFS_PAGE_SIZE];
	uint64_t start;

	if (len < sizeof(e) || !packed_get(&f->p, at, &e, sizeof(e)))
		return;
	start = pinfs_get64(e.start);
	if (start >= PACKED_PAGES)
		return;
	if (e.kind == PINFS_DELTA_LZ4 && pinfs_get32(e.stored) <= sizeof(buf) && packed_get(&f->p, start * PINFS_PAGE_SIZE, buf, pinfs_get32(e.stored)))
		e.checksum = pinfs_put64(codec_checksum(buf, pinfs_get32(e.stored)));
	packed_put(&f->p, at, &e, sizeof(e));
	for (uint32_t i = 0; e.kind == PINFS_DELTA_RAW && i < pinfs_get32(e.pages) && sizeof(e) + (i + 1) * 8 <= len; i++) {
		pinfs_le64 sum;

		if (!packed_get(&f->p, (start + i) * PINFS_PAGE_SIZE, buf, PINFS_PAGE_SIZE))
			return;
		sum = pinfs_put64(codec_checksum(buf, PINFS_PAGE_SIZE));
		packed_put(&f->p, at + sizeof(e) + i * sizeof(sum), &sum, sizeof(sum));
	}
}

static bool is_extent(uint64_t object)
{
	return object >> 8 && (object & 0xff) == PINFS_DELTA_EXTENT;
}

static void mend_node(struct delta_file *f, uint64_t at, bool content)
{
	uint8_t node[PINFS_DELTA_NODE_SIZE];
	struct pinfs_delta_node *n = (void *)node;

	if (!packed_get(&f->p, at, node, sizeof(node)))
		return;
	for (size_t i = 0; content && !pinfs_get16(n->level) && i < pinfs_get16(n->count); i++) {
		struct pinfs_delta_leaf_slot s;

		if (sizeof(*n) + (i + 1) * sizeof(s) > sizeof(node))
			break;
		memcpy(&s, node + sizeof(*n) + i * sizeof(s), sizeof(s));
		if (is_extent(pinfs_get64(s.key.object)) && pinfs_get32(s.where) < sizeof(node) && pinfs_get32(s.len) <= sizeof(node) - pinfs_get32(s.where))
			mend_extent(f, at + pinfs_get32(s.where), pinfs_get32(s.len));
	}
	if (packed_get(&f->p, at, node, sizeof(node))) {
		n->checksum = pinfs_put64(codec_checksum(node + 8, sizeof(node) - 8));
		packed_put(&f->p, at, &n->checksum, sizeof(n->checksum));
	}
}

static void mend_records(struct delta_file *f, uint64_t at, uint64_t end)
{
	struct pinfs_delta_record r;

	while (end - at >= sizeof(r) && packed_get(&f->p, at, &r, sizeof(r))) {
		uint64_t len = pinfs_get32(r.len);

		if (len > end - at - sizeof(r))
			return;
		if (pinfs_get32(r.op) == PINFS_DELTA_PUT && is_extent(pinfs_get64(r.key.object)))
			mend_extent(f, at + sizeof(r), len);
		at += MIN(align_up(sizeof(r) + len, 8), end - at);
	}
}

static bool frame_get(struct delta_file *f, uint64_t at, struct pinfs_delta_frame *ret)
{
	return at + sizeof(*ret) <= f->log_first + f->log_bytes && packed_get(&f->p, at, ret, sizeof(*ret)) &&
		pinfs_get32(ret->magic) == PINFS_DELTA_FRAME_MAGIC && pinfs_get32(ret->len) <= f->log_first + f->log_bytes - at - sizeof(*ret);
}

/* The frames that lie one behind the other, from there on. Where the last one ends. */
static uint64_t mend_frames(struct delta_file *f, uint64_t at, bool content)
{
	struct pinfs_delta_frame h;
	uint64_t previous = 0;
	bool first = true;

	while (frame_get(f, at, &h)) {
		size_t total = sizeof(h) + pinfs_get32(h.len);
		_cleanup_free_ uint8_t *buf = malloc(total);

		FUZZ_CHECK(buf);
		if (!first)
			h.previous = pinfs_put64(previous);
		packed_put(&f->p, at, &h, sizeof(h));
		if (content)
			mend_records(f, at + sizeof(h), at + total);
		packed_get(&f->p, at, buf, total);
		h.checksum = pinfs_put64(codec_checksum(buf + 8, total - 8));
		packed_put(&f->p, at, &h.checksum, sizeof(h.checksum));
		previous = pinfs_get64(h.checksum);
		first = false;
		at += align_up(total, 8);
	}
	return at;
}

static bool is_node(struct delta_file *f, uint64_t page)
{
	struct pinfs_delta_node n;

	return f->p.pages[page] && packed_get(&f->p, page * PINFS_PAGE_SIZE, &n, sizeof(n)) && pinfs_get32(n.magic) == PINFS_DELTA_NODE_MAGIC;
}

static void mend(struct delta_file *f, bool content)
{
	for (uint64_t page = PINFS_DELTA_SUPERS; page < PACKED_PAGES; page++)
		if (is_node(f, page))
			mend_node(f, page * PINFS_PAGE_SIZE, content);
	for (uint64_t at = f->log_first; at < MIN(f->log_first + f->log_bytes, f->p.size);) {
		uint64_t end = f->p.pages[at / PINFS_PAGE_SIZE] ? mend_frames(f, at, content) : at;

		at = end > at ? end : f->p.pages[at / PINFS_PAGE_SIZE] ? at + 8 : align_up(at + 1, PINFS_PAGE_SIZE);
	}
	for (unsigned slot = 0; slot < PINFS_DELTA_SUPERS; slot++) {
		struct pinfs_delta_super s;

		if (!f->p.pages[slot])
			continue;
		packed_get(&f->p, slot * PINFS_PAGE_SIZE, &s, sizeof(s));
		s.checksum = pinfs_put64(codec_checksum(&s, sizeof(s) - sizeof(s.checksum)));
		packed_put(&f->p, slot * PINFS_PAGE_SIZE, &s, sizeof(s));
	}
}

/* ---- one mutation ---- */

/* A superblock, but for what says which image it belongs to; its copy the same. */
static void mutate_super(struct delta_file *f)
{
	uint64_t slot = fuzz_below(&f->r, PINFS_DELTA_SUPERS);
	struct pinfs_delta_super s;

	mutate_field(f, slot * PINFS_PAGE_SIZE + 96, slot * PINFS_PAGE_SIZE + 248);
	if (fuzz_chance(&f->r, 70) && f->p.pages[slot]) {
		packed_get(&f->p, slot * PINFS_PAGE_SIZE, &s, sizeof(s));
		s.slot = pinfs_put32((uint32_t)slot ^ 1);
		packed_put(&f->p, (slot ^ 1) * PINFS_PAGE_SIZE, &s, sizeof(s));
	}
}

static void mutate_node(struct delta_file *f, uint64_t page)
{
	uint64_t at = page * PINFS_PAGE_SIZE;
	struct pinfs_delta_leaf_slot s;
	struct pinfs_delta_node n;
	uint64_t count, i;

	packed_get(&f->p, at, &n, sizeof(n));
	count = MIN(pinfs_get16(n.count), (PINFS_DELTA_NODE_SIZE - sizeof(n)) / sizeof(s));
	if (!count || fuzz_chance(&f->r, 5)) {
		mutate_field(f, at + 8, at + 64);
		return;
	}
	i = fuzz_below(&f->r, count);
	if (pinfs_get16(n.level)) {
		mutate_field(f, at + sizeof(n) + i * sizeof(struct pinfs_delta_inner_slot), at + sizeof(n) + (i + 1) * sizeof(struct pinfs_delta_inner_slot));
		return;
	}
	packed_get(&f->p, at + sizeof(n) + i * sizeof(s), &s, sizeof(s));
	if (fuzz_chance(&f->r, 20) || pinfs_get32(s.where) > PINFS_DELTA_NODE_SIZE || pinfs_get32(s.len) > PINFS_DELTA_NODE_SIZE - pinfs_get32(s.where))
		mutate_field(f, at + sizeof(n) + i * sizeof(s), at + sizeof(n) + (i + 1) * sizeof(s));
	else
		mutate_field(f, at + pinfs_get32(s.where), at + pinfs_get32(s.where) + MIN(pinfs_get32(s.len), 200u));
}

static void mutate_frame(struct delta_file *f)
{
	uint64_t at = f->log_first, chosen = 0, seen = 0;
	struct pinfs_delta_frame h;

	while (frame_get(f, at, &h)) {
		if (!fuzz_below(&f->r, ++seen))
			chosen = at;
		at += align_up(sizeof(h) + pinfs_get32(h.len), 8);
	}
	if (!chosen || !frame_get(f, chosen, &h))
		return;
	if (fuzz_chance(&f->r, 10))
		mutate_field(f, chosen + 8, chosen + sizeof(h));
	else
		mutate_field(f, chosen + sizeof(h), chosen + sizeof(h) + pinfs_get32(h.len));
}

static void mutate_once(struct delta_file *f)
{
	uint64_t page = fuzz_below(&f->r, MAX(MIN(f->p.size / PINFS_PAGE_SIZE, (uint64_t)PACKED_PAGES), 1u));

	switch (fuzz_below(&f->r, 10)) {
	case 0:
		mutate_super(f);
		return;
	case 1:
	case 2:
	case 3:
		mutate_frame(f);
		return;
	case 4:
		/* Anything that is there. */
		for (; page < PACKED_PAGES && !f->p.pages[page]; page++)
			;
		if (page < PACKED_PAGES)
			mutate_field(f, page * PINFS_PAGE_SIZE, (page + 1) * PINFS_PAGE_SIZE);
		return;
	default:
		for (uint64_t i = 0; i < PACKED_PAGES; i++) {
			uint64_t at = (page + i) % PACKED_PAGES;

			if (at >= PINFS_DELTA_SUPERS && is_node(f, at)) {
				mutate_node(f, at);
				return;
			}
		}
	}
}

static void find_log(struct delta_file *f)
{
	f->log_first = PINFS_DELTA_SUPERS * PINFS_PAGE_SIZE;
	f->log_bytes = 1u << 20;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned int seed)
{
	struct delta_file f = {.r = {seed}};
	size_t n;

	if (!packed_open(&f.p, data, size))
		return LLVMFuzzerMutate(data, size, max_size);
	find_log(&f);
	for (uint64_t i = 1 + fuzz_below(&f.r, 4); i--;)
		mutate_once(&f);
	if (fuzz_chance(&f.r, 90))
		mend(&f, fuzz_chance(&f.r, 60));
	n = packed_save(&f.p, data, max_size);
	packed_free(&f.p);
	return n ? n : size;
}

/* The first one, with pages of the other. */
size_t LLVMFuzzerCustomCrossOver(const uint8_t *data1, size_t size1, const uint8_t *data2, size_t size2, uint8_t *out, size_t max_size,
	unsigned int seed)
{
	struct delta_file f = {.r = {seed}};
	struct packed other;
	size_t n;

	if (!packed_open(&f.p, data1, size1))
		return 0;
	if (packed_open(&other, data2, size2)) {
		for (uint64_t i = 0; i < PACKED_PAGES; i++)
			if (other.pages[i] && fuzz_chance(&f.r, 20))
				packed_put(&f.p, i * PINFS_PAGE_SIZE, other.pages[i], PINFS_PAGE_SIZE);
		packed_free(&other);
	}
	find_log(&f);
	mend(&f, true);
	n = packed_save(&f.p, out, max_size);
	packed_free(&f.p);
	return n;
}
