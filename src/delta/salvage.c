/* SPDX-License-Identifier: MIT */
/* What fsck needs: superblocks, the log's end, items as they are, pages in use; and writing all of it anew. */
#include "delta/internal.h"

/* ---- superblocks ---- */

int delta_supers_read(struct store *store, struct delta_super_info ret[PINFS_DELTA_SUPERS])
{
	for (unsigned slot = 0; slot < PINFS_DELTA_SUPERS; slot++) {
		struct pinfs_delta_super s;
		const uint8_t *bytes = (const uint8_t *)&s;
		int r = store_read(store, (uint64_t)slot * PINFS_PAGE_SIZE, &s, sizeof(s));

		if (r < 0)
			return r;
		ret[slot] = (struct delta_super_info){
			.valid = super_valid(&s, slot),
			.empty = !bytes[0] && !memcmp(bytes, bytes + 1, sizeof(s) - 1),
			.generation = pinfs_get64(s.generation),
		};
	}
	return 0;
}

/* ---- the tree ---- */

int salvage_tree(struct delta *d)
{
	return tree_prune(d->tree, &d->salvage.lost_nodes);
}

void delta_get_salvage(const struct delta *d, struct delta_salvage *ret)
{
	*ret = d->salvage;
}

/* ---- the log's end ---- */

#define SCAN_BYTES ((size_t)1 << 20)

/* Is a whole frame there, with a number from `sequence` on? */
static bool frame_at(struct delta *d, uint64_t pos, const struct pinfs_delta_frame *f, uint8_t *buf)
{
	size_t total = sizeof(*f) + pinfs_get32(f->len);

	if (total > PINFS_DELTA_FRAME_MAX || total > d->log.bytes - pos ||
		store_read(d->store, d->log.first + pos, buf, total) < 0)
		return false;
	return pinfs_get64(f->checksum) == codec_checksum(buf + sizeof(f->checksum), total - sizeof(f->checksum));
}

static void scan_frame(struct delta *d, uint64_t pos, const uint8_t *at, uint8_t *buf, uint64_t *budget, struct delta_log_end *end)
{
	struct pinfs_delta_frame f;
	uint64_t sequence;
	bool whole;

	memcpy(&f, at, sizeof(f));
	sequence = pinfs_get64(f.sequence);
	if (pinfs_get32(f.magic) != PINFS_DELTA_FRAME_MAGIC || pinfs_get64(f.delta) != d->id || sequence < end->sequence)
		return;
	/* Whole frames don't overlap: more bytes than that are nothing but headers. */
	if (pinfs_get32(f.len) > *budget)
		return;
	*budget -= pinfs_get32(f.len);
	whole = frame_at(d, pos, &f, buf);
	if (sequence == end->sequence && d->log.first + pos == end->offset)
		end->torn = !whole;
	else if (whole)
		end->behind++;
	if (whole && sequence > end->sequence && pinfs_get64(f.durable) >= end->sequence)
		end->flushed = true;
}

int delta_log_end(struct delta *d, struct delta_log_end *ret)
{
	_cleanup_free_ uint8_t *in = malloc(SCAN_BYTES + sizeof(struct pinfs_delta_frame)), *buf = malloc(PINFS_DELTA_FRAME_MAX);
	struct delta_log_end end = {.offset = d->log.first + d->log.head, .sequence = d->log.sequence, .no_content = d->log_no_content};
	uint64_t size = store_size(d->store), budget;
	uint64_t bytes = MIN(d->log.bytes, size > d->log.first ? size - d->log.first : 0);

	if (!in || !buf)
		return -ENOMEM;
	budget = 4 * bytes;
	for (uint64_t pos = 0; pos < bytes; pos += SCAN_BYTES) {
		size_t n = (size_t)MIN((uint64_t)SCAN_BYTES + sizeof(struct pinfs_delta_frame), bytes - pos);
		int r = store_read(d->store, d->log.first + pos, in, n);

		if (r < 0)
			return r;
		for (size_t i = 0; i < SCAN_BYTES && i + sizeof(struct pinfs_delta_frame) <= n; i += 8) {
			pinfs_le32 magic;

			memcpy(&magic, in + i + offsetof(struct pinfs_delta_frame, magic), sizeof(magic));
			if (pinfs_get32(magic) == PINFS_DELTA_FRAME_MAGIC)
				scan_frame(d, pos + i, in + i, buf, &budget, &end);
		}
	}
	*ret = end;
	return 0;
}

/* ---- items ---- */

/* Pages behind this one were never written. */
static uint64_t store_end(struct delta *d)
{
	return MAX(DIV_ROUND_UP(store_size(d->store), PINFS_PAGE_SIZE), space_bits(d->space));
}

static uint64_t log_end_page(const struct delta *d)
{
	return (d->log.first + d->log.bytes) / PINFS_PAGE_SIZE;
}

int delta_item_next(struct delta *d, uint64_t object, uint64_t offset, struct delta_item *ret)
{
	struct tree_key from = {object, offset}, end = {UINT64_MAX, UINT64_MAX}, key;
	const void *value;
	size_t len;
	int r;

	mutex_lock(&d->lock);
	r = tree_find(d->tree, from, end, &key, &value, &len);
	if (r == 0) {
		ret->object = key.object;
		ret->offset = key.offset;
		ret->len = len;
		memcpy(ret->value, value, len);
		ret->place = tree_where(d->tree, key);
	}
	mutex_unlock(&d->lock);
	return r;
}

int delta_item_inode(struct delta *d, const struct delta_item *item, struct delta_inode *ret)
{
	return item->offset ? delta_damaged(d, item->place, "inode %ju: its attributes have a wrong key", (uintmax_t)delta_item_ino(item)) :
		inode_item_decode(d, delta_item_ino(item), item->value, item->len, ret);
}

int delta_item_dirent(struct delta *d, const struct delta_item *item, struct delta_dirent *ret)
{
	return dirent_decode(d, delta_item_ino(item), item->offset, item->value, item->len, ret);
}

int delta_item_xattr(struct delta *d, const struct delta_item *item, struct delta_item_xattr *ret)
{
	struct xattr_item x;
	int r = xattr_decode(d, delta_item_ino(item), item->offset, item->value, item->len, &x);

	if (r < 0)
		return r;
	ret->name_len = x.name_len;
	ret->size = x.size;
	ret->pieces = x.pieces;
	memcpy(ret->name, x.name, x.name_len);
	ret->name[x.name_len] = 0;
	return 0;
}

/* Among the frames that the next checkpoint has to look after? */
static bool in_log(const struct delta *d, uint64_t offset)
{
	const struct log *log = &d->log;
	uint64_t pos = offset - log->first;

	if (offset < log->first || pos >= log->bytes || !log->used)
		return false;
	return log->tail < log->head ? pos >= log->tail && pos < log->head : pos >= log->tail || pos < log->head;
}

int delta_item_extent(struct delta *d, const struct delta_item *item, struct delta_item_extent *ret)
{
	uint64_t most = PINFS_DELTA_FILE_MAX / PINFS_PAGE_SIZE;
	struct delta_item_extent out;
	struct pinfs_delta_extent e;

	if (!extent_valid(item->value, item->len) || item->offset > most)
		return delta_damaged(d, item->place, "inode %ju: the extent of page %ju can't be", (uintmax_t)delta_item_ino(item),
			(uintmax_t)item->offset);
	memcpy(&e, item->value, sizeof(e));
	out = (struct delta_item_extent){
		.extent = {
			.page = item->offset,
			.pages = pinfs_get32(e.pages),
			.kind = e.kind,
			.start = pinfs_get64(e.start),
			.skip = pinfs_get32(e.skip),
			.raw_pages = pinfs_get32(e.raw_pages),
			.stored = pinfs_get32(e.stored),
			.image_ino = pinfs_get32(e.image_ino),
			.key = item->offset,
			.checksum = pinfs_get64(e.checksum),
		},
		.first = pinfs_get64(e.start),
		.stored = extent_has_pages(e.kind) ? extent_stored_pages(&e) : 0,
		.counted = extent_counted_pages(&e),
	};
	if (out.stored && (out.first < log_end_page(d) || out.first + out.stored > store_end(d)))
		return delta_damaged(d, item->place, "inode %ju: the extent of page %ju lies at page %ju, outside of what the delta has for content",
			(uintmax_t)delta_item_ino(item), (uintmax_t)item->offset, (uintmax_t)out.first);
	if (e.kind == PINFS_DELTA_LOGGED && !in_log(d, pinfs_get64(e.start)))
		return delta_damaged(d, item->place, "inode %ju: page %ju lies at byte %ju, in no part of the log that counts",
			(uintmax_t)delta_item_ino(item), (uintmax_t)item->offset, (uintmax_t)pinfs_get64(e.start));
	*ret = out;
	return 0;
}

int delta_item_shared(struct delta *d, const struct delta_item *item, struct delta_item_shared *ret)
{
	struct pinfs_delta_shared s;

	if (item->len != sizeof(s))
		return delta_damaged(d, item->place, "the count of references to page %ju has a wrong size", (uintmax_t)item->offset);
	memcpy(&s, item->value, sizeof(s));
	if (!pinfs_get32(s.pages) || pinfs_get32(s.refs) < 2 || item->offset > INT64_MAX / PINFS_PAGE_SIZE)
		return delta_damaged(d, item->place, "the count of references to page %ju can't be", (uintmax_t)item->offset);
	*ret = (struct delta_item_shared){item->offset, pinfs_get32(s.pages), pinfs_get32(s.refs)};
	return 0;
}

uint64_t delta_name_hash(const struct delta *d, const char *name, size_t len)
{
	return name_hash(d, name, len);
}

static void verify_pages(struct delta *d, const struct delta_item *item, const struct delta_extent *e, struct delta_bad_pages *ret)
{
	uint8_t buf[PINFS_PAGE_SIZE];

	ret->offset = e->start * PINFS_PAGE_SIZE;
	for (uint64_t i = 0; i < e->pages; i++) {
		const uint8_t *sum_at = item->value + sizeof(struct pinfs_delta_extent) + i * sizeof(pinfs_le64);
		int r = store_read(d->store, (e->start + i) * PINFS_PAGE_SIZE, buf, PINFS_PAGE_SIZE);
		pinfs_le64 sum;

		memcpy(&sum, sum_at, sizeof(sum));
		if (r == 0 && codec_checksum(buf, PINFS_PAGE_SIZE) != pinfs_get64(sum))
			r = -EUCLEAN;
		if (r == 0)
			continue;
		if (!ret->count++) {
			ret->first = i;
			ret->offset = (e->start + i) * PINFS_PAGE_SIZE;
			ret->error = r;
		}
		ret->bad[i] = true;
	}
}

static int verify_lz4(struct delta *d, const struct delta_extent *e)
{
	size_t raw_len = (size_t)e->raw_pages * PINFS_PAGE_SIZE;
	_cleanup_free_ uint8_t *stored = malloc(e->stored), *raw = malloc(raw_len);
	int r;

	if (!stored || !raw)
		return -ENOMEM;
	r = store_read(d->store, e->start * PINFS_PAGE_SIZE, stored, e->stored);
	if (r == 0 && codec_checksum(stored, e->stored) != e->checksum)
		r = -EUCLEAN;
	return r < 0 ? r : codec_by_id(PINFS_CODEC_LZ4)->decompress(stored, e->stored, raw, raw_len) < 0 ? -EUCLEAN : 0;
}

/* Of an extent that holds as a whole or not at all. */
static int verify_whole(struct delta *d, const struct delta_item *item, const struct delta_extent *e, uint64_t *ret_offset)
{
	const struct codec_ops *lz4 = codec_by_id(PINFS_CODEC_LZ4);
	uint8_t buf[PINFS_PAGE_SIZE];
	int r;

	switch (e->kind) {
	case PINFS_DELTA_LZ4:
		*ret_offset = e->start * PINFS_PAGE_SIZE;
		return verify_lz4(d, e);
	case PINFS_DELTA_INLINE:
		*ret_offset = item->place;
		return e->raw_pages && lz4->decompress(item->value + sizeof(struct pinfs_delta_extent), e->stored, buf, PINFS_PAGE_SIZE) < 0 ? -EUCLEAN : 0;
	case PINFS_DELTA_LOGGED:
		*ret_offset = e->start;
		r = store_read(d->store, e->start, buf, PINFS_PAGE_SIZE);
		return r < 0 ? r : codec_checksum(buf, PINFS_PAGE_SIZE) == e->checksum ? 0 : -EUCLEAN;
	default:
		return 0;
	}
}

int delta_item_verify(struct delta *d, const struct delta_item *item, struct delta_bad_pages *ret)
{
	struct delta_item_extent e;
	int r;

	*ret = (struct delta_bad_pages){0};
	r = delta_item_extent(d, item, &e);
	if (r < 0)
		return r;
	if (e.extent.kind == PINFS_DELTA_RAW) {
		verify_pages(d, item, &e.extent, ret);
		return 0;
	}
	ret->error = verify_whole(d, item, &e.extent, &ret->offset);
	if (ret->error == -ENOMEM)
		return -ENOMEM;
	for (; ret->error < 0 && ret->count < e.extent.pages; ret->count++)
		ret->bad[ret->count] = true;
	return 0;
}

int delta_item_put(struct delta *d, uint64_t object, uint64_t offset, const void *value, size_t len)
{
	return txn_put(d, (struct tree_key){object, offset}, value, len);
}

int delta_item_delete(struct delta *d, uint64_t object, uint64_t offset)
{
	return txn_delete(d, (struct tree_key){object, offset});
}

void delta_ino_raise(struct delta *d, uint64_t ino)
{
	mutex_lock(&d->lock);
	d->next_ino = MAX(d->next_ino, MIN(ino, INO_MAX - 1));
	mutex_unlock(&d->lock);
}

/* ---- pages ---- */

int delta_live_next(struct delta *d, uint64_t page, uint64_t *ret_first, uint64_t *ret_pages)
{
	uint64_t first, n;

	mutex_lock(&d->lock);
	n = space_live_next(d->space, page, &first);
	mutex_unlock(&d->lock);
	if (!n)
		return -ENOENT;
	*ret_first = first;
	*ret_pages = n;
	return 0;
}

struct places {
	int (*visit)(void *context, uint64_t first, uint64_t pages, bool map);
	void *context;
};

static int visit_node(void *context, const struct tree_node_info *info)
{
	struct places *p = context;

	return info->page ? p->visit(p->context, info->page, PINFS_DELTA_NODE_PAGES, false) : 0;
}

int delta_walk_places(struct delta *d, int (*visit)(void *context, uint64_t first, uint64_t pages, bool map), void *context)
{
	struct places p = {visit, context};
	uint64_t damaged;
	const uint64_t *gone;
	size_t count;
	int r;

	mutex_lock(&d->lock);
	r = tree_walk(d->tree, visit_node, &p, &damaged);
	count = tree_gone(d->tree, &gone);
	for (size_t i = 0; r == 0 && i < count; i++)
		r = visit(context, gone[i], PINFS_DELTA_NODE_PAGES, false);
	if (r == 0 && d->map_pages)
		r = visit(context, d->map_first, d->map_pages, true);
	mutex_unlock(&d->lock);
	return r;
}

struct page_map {
	uint8_t *bytes;
	size_t capacity;
	uint64_t bits;
};

/* No delta can be larger than that: its own store ends before. */
static int map_mark(struct page_map *m, uint64_t first, uint64_t pages)
{
	size_t old = (size_t)DIV_ROUND_UP(m->bits, 8), want = (size_t)DIV_ROUND_UP(first + pages, 8);

	if (want > old) {
		if (array_reserve(&m->bytes, &m->capacity, want, 1) < 0)
			return -ENOMEM;
		memset(m->bytes + old, 0, want - old);
		m->bits = (uint64_t)want * 8;
	}
	for (uint64_t p = first; p < first + pages; p++)
		m->bytes[p / 8] |= (uint8_t)(1u << p % 8);
	return 0;
}

static int mark_node(void *context, const struct tree_node_info *info)
{
	return info->page ? map_mark(context, info->page, PINFS_DELTA_NODE_PAGES) : 0;
}

static int mark_extents(struct delta *d, struct page_map *m, uint64_t end)
{
	struct tree_key key, from = {0}, last = {UINT64_MAX, UINT64_MAX};
	const void *value;
	size_t len;
	int r;

	while ((r = tree_find(d->tree, from, last, &key, &value, &len)) == 0) {
		struct pinfs_delta_extent e;

		if (key.object >> 8 && (key.object & 0xff) == PINFS_DELTA_EXTENT && extent_valid(value, len)) {
			memcpy(&e, value, sizeof(e));
			/* One that lies elsewhere is an item to be taken away. */
			if (extent_has_pages(e.kind) && pinfs_get64(e.start) >= log_end_page(d) && pinfs_get64(e.start) + extent_stored_pages(&e) <= end)
				r = map_mark(m, pinfs_get64(e.start), extent_stored_pages(&e));
			if (r < 0)
				return r;
		}
		from = (struct tree_key){key.object, key.offset + 1};
		if (!from.offset)
			from.object++;
	}
	return r == -ENOENT ? 0 : r;
}

int delta_rebuild_space(struct delta *d)
{
	uint64_t damaged, end;
	struct page_map m = {0};
	int r;

	mutex_lock(&d->lock);
	end = store_end(d);
	r = tree_walk(d->tree, mark_node, &m, &damaged);
	if (r == 0)
		r = mark_extents(d, &m, end);
	if (r == 0)
		r = space_rebuild(d->space, m.bytes, m.bits, MAX(end, m.bits));
	if (r == 0) {
		/* What only the checkpoint uses is not handed out either, and free after the next one. */
		tree_forget_gone(d->tree);
		d->map_pages = 0;
	}
	mutex_unlock(&d->lock);
	free(m.bytes);
	return r;
}

int delta_rewrite(struct delta *d)
{
	int r;

	mutex_lock(&d->checkpoint_lock);
	r = checkpoint_force(d);
	if (r == 0)
		r = checkpoint_force(d);
	if (r == 0)
		r = log_wipe(d);
	if (r == 0)
		r = store_flush(d->store);
	mutex_unlock(&d->checkpoint_lock);
	return r;
}
