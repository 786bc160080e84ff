/* SPDX-License-Identifier: MIT */
/*
 * The descriptors are read in the order of their numbers, which is nearly always that of their places: then what is
 * collected is sorted already. Should there be more ranges than `limit`, only the lowest ones are kept, given out,
 * and the descriptors are read again for those above: time instead of memory, at most SPACE_PASSES times or so.
 */
#include "mkfs/space.h"

#define SPACE_LIMIT_MIN (1u << 20)
#define SPACE_PASSES 8u

struct collector {
	struct image *image;
	const struct image_info *info;
	const struct space_options *options;
	void *context;
	struct space_range *ranges;
	size_t count, capacity, limit;
	struct space_range open; /* grows while neighbours come; open.length 0: none */
	struct space_range done; /* the last one given out; done.length 0: none */
	struct space_range cut;	 /* only what is below fits; cut.length 0: everything */
	bool chunks_missing, blocks_missing;
};

static int range_compare(const void *pa, const void *pb)
{
	const struct space_range *a = pa, *b = pb;

	if (a->offset != b->offset)
		return a->offset < b->offset ? -1 : 1;
	if (a->kind != b->kind)
		return a->kind < b->kind ? -1 : 1;
	if (a->section != b->section)
		return a->section < b->section ? -1 : 1;
	return (a->first > b->first) - (a->first < b->first);
}

/* Keeps the lowest `limit` ranges of twice as many. */
static void collector_prune(struct collector *c)
{
	qsort(c->ranges, c->count, sizeof(*c->ranges), range_compare);
	c->cut = c->ranges[c->limit];
	c->count = c->limit;
}

static int collector_store(struct collector *c, const struct space_range *r)
{
	int error;

	if (!r->length || (c->done.length && range_compare(r, &c->done) <= 0) ||
		(c->cut.length && range_compare(r, &c->cut) >= 0))
		return 0;
	if (c->count == 2 * c->limit) {
		collector_prune(c);
		if (range_compare(r, &c->cut) >= 0)
			return 0;
	}
	error = array_reserve(&c->ranges, &c->capacity, c->count + 1, sizeof(*c->ranges));
	if (error < 0)
		return error;
	c->ranges[c->count++] = *r;
	return 0;
}

static int collector_flush(struct collector *c)
{
	struct space_range r = c->open;

	c->open.length = 0;
	return collector_store(c, &r);
}

static int collector_add(struct collector *c, const struct space_range *r)
{
	struct space_range *o = &c->open;
	int error;

	if (c->options->merge && o->length && o->kind == r->kind && o->section == r->section &&
		r->first == o->first + o->count && r->offset == o->offset + o->length &&
		o->count <= UINT32_MAX - r->count) {
		o->length += r->length;
		o->count += r->count;
		return 0;
	}
	error = collector_flush(c);
	c->open = *r;
	return error;
}

static bool cancelled(const struct collector *c)
{
	return c->options->cancelled && c->options->cancelled(c->context);
}

static int collect_section(struct collector *c, unsigned si)
{
	const struct image_section *s = &c->info->sections[si];
	int r = 0;

	for (uint64_t page = 0; r == 0 && page < s->index_pages; page++)
		r = collector_add(c, &(struct space_range){
			.offset = s->index_offset + page * PINFS_PAGE_SIZE, .length = PINFS_PAGE_SIZE,
			.first = page, .count = 1, .kind = SPACE_INDEX, .section = (uint8_t)si});
	for (uint64_t no = 0; r == 0 && no < s->chunk_count; no++) {
		struct image_block b;

		if (no % PINFS_INDEX_ENTRIES == 0 && cancelled(c))
			return -ECANCELED;
		r = image_chunk_info(c->image, si, no, &b);
		if (r == -ENOMEM)
			return r;
		if (r < 0) {
			c->chunks_missing = true;
			r = 0;
			continue;
		}
		r = collector_add(c, &(struct space_range){.offset = b.offset, .length = b.stored, .first = no,
			.count = 1, .kind = SPACE_CHUNK, .section = (uint8_t)si});
	}
	return r;
}

/* The section that holds the block table, or -1. */
static int block_section(const struct image_info *info)
{
	for (unsigned i = 0; i < info->section_count; i++)
		if (info->sections[i].type == PINFS_SECTION_BLOCKS)
			return (int)i;
	return -1;
}

static int collect_blocks(struct collector *c)
{
	int si = block_section(c->info), r = 0;
	uint32_t per_chunk;

	if (si < 0)
		return 0;
	per_chunk = c->info->sections[si].chunk_size / sizeof(struct pinfs_block);
	for (uint64_t n = 0; r == 0 && n < c->info->block_count; n++) {
		struct image_block b;

		if (n % per_chunk == 0 && cancelled(c))
			return -ECANCELED;
		r = image_block_get(c->image, n, &b);
		if (r == -ENOMEM)
			return r;
		if (r < 0) {
			c->blocks_missing = true;
			/* If it is the whole chunk, the next ones needn't be tried. */
			if (image_chunk_check(c->image, (unsigned)si, n / per_chunk) < 0)
				n = n / per_chunk * per_chunk + per_chunk - 1;
			r = 0;
			continue;
		}
		r = collector_add(c, &(struct space_range){.offset = b.offset, .length = b.stored, .first = n,
			.count = 1, .kind = SPACE_BLOCK});
	}
	return r;
}

static int collect(struct collector *c)
{
	int r;

	c->count = 0;
	c->cut.length = 0;
	r = collector_add(c, &(struct space_range){.offset = 0, .length = PINFS_SUPER_SIZE, .count = 1,
		.kind = SPACE_SUPER});
	for (unsigned i = 0; r == 0 && i < c->info->section_count; i++)
		r = collect_section(c, i);
	if (r == 0 && !c->options->metadata_only)
		r = collect_blocks(c);
	if (r == 0)
		r = collector_add(c, &(struct space_range){.offset = c->info->image_size - PINFS_SUPER_SIZE,
			.length = PINFS_SUPER_SIZE, .count = 1, .kind = SPACE_BACKUP});
	if (r == 0)
		r = collector_flush(c);
	if (r == 0 && c->count > c->limit)
		collector_prune(c);
	else if (r == 0)
		qsort(c->ranges, c->count, sizeof(*c->ranges), range_compare);
	return r;
}

int space_walk(struct image *image, const struct space_options *options,
	int (*fn)(void *context, const struct space_range *range), void *context, bool *ret_chunks_missing,
	bool *ret_blocks_missing)
{
	struct collector c = {.image = image, .info = image_get_info(image), .options = options, .context = context};
	int r;

	c.limit = (size_t)MAX(c.info->block_count / SPACE_PASSES, (uint64_t)SPACE_LIMIT_MIN);
	do {
		r = collect(&c);
		*ret_chunks_missing = c.chunks_missing;
		*ret_blocks_missing = c.blocks_missing;
		for (size_t i = 0; r == 0 && i < c.count; i++)
			r = fn(context, &c.ranges[i]);
		if (c.count)
			c.done = c.ranges[c.count - 1];
	} while (r == 0 && c.cut.length);
	free(c.ranges);
	return r;
}

char *space_describe(const struct image_info *info, const struct space_range *r, char *buf, size_t size)
{
	uintmax_t last = r->first + r->count - 1;
	const char *section = r->kind == SPACE_INDEX || r->kind == SPACE_CHUNK ?
		image_section_name(info->sections[r->section].type) : "";
	char number[48];

	snprintf(number, sizeof(number), r->count > 1 ? "s %ju to %ju" : " %ju", (uintmax_t)r->first, last);
	switch ((enum space_kind)r->kind) {
	case SPACE_SUPER:
		snprintf(buf, size, "the first superblock");
		break;
	case SPACE_BACKUP:
		snprintf(buf, size, "the second superblock");
		break;
	case SPACE_INDEX:
		snprintf(buf, size, "index page%s of section '%s'", number, section);
		break;
	case SPACE_CHUNK:
		snprintf(buf, size, "chunk%s of section '%s'", number, section);
		break;
	case SPACE_BLOCK:
		snprintf(buf, size, "data block%s", number);
		break;
	default:
		snprintf(buf, size, "padding");
	}
	return buf;
}
