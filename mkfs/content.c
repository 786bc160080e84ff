/* SPDX-License-Identifier: MIT */
#include "mkfs/content.h"

#define WINDOW_BYTES (1u << 20)
#define PACKED_BYTES (2u << 20)
#define PACKED_MAX 32u

/* Consecutive data blocks that were read together. */
struct window {
	uint64_t used; /* time of the last use, of those in reader->packed */
	uint32_t first;
	unsigned count, capacity; /* count 0: empty */
	uint8_t *data;		  /* capacity blocks */
	struct image_read *reads; /* capacity */
};

struct content_reader {
	struct image *image;
	uint32_t block_size;
	struct window run; /* of a large file */
	/*
	 * One block each, which small files share. Files that follow each other mostly lie in the same one, but
	 * those that are equal to an earlier one lie where that is.
	 */
	struct window packed[PACKED_MAX];
	unsigned packed_count;
	uint64_t clock;
};

static void window_destroy(struct window *w)
{
	free(w->data);
	free(w->reads);
}

static int window_init(struct window *w, unsigned capacity, uint32_t block_size)
{
	w->capacity = capacity;
	w->data = malloc((size_t)capacity * block_size);
	w->reads = calloc(capacity, sizeof(*w->reads));
	if (!w->data || !w->reads)
		return -ENOMEM;
	for (unsigned i = 0; i < capacity; i++)
		w->reads[i].data = w->data + (size_t)i * block_size;
	return 0;
}

int content_reader_new(struct image *image, struct content_reader **ret)
{
	struct content_reader *c = calloc(1, sizeof(*c));
	int r;

	if (!c)
		return -ENOMEM;
	c->image = image;
	c->block_size = image_get_info(image)->block_size;
	c->packed_count = MIN(MAX(PACKED_BYTES / c->block_size, 2u), PACKED_MAX);
	r = window_init(&c->run, MAX(WINDOW_BYTES / c->block_size, 1u), c->block_size);
	for (unsigned i = 0; i < c->packed_count && r == 0; i++)
		r = window_init(&c->packed[i], 1, c->block_size);
	if (r < 0) {
		content_reader_free(c);
		return r;
	}
	*ret = c;
	return 0;
}

void content_reader_free(struct content_reader *c)
{
	if (!c)
		return;
	window_destroy(&c->run);
	for (unsigned i = 0; i < c->packed_count; i++)
		window_destroy(&c->packed[i]);
	free(c);
}

/* The window that holds the block, or else the one that was used longest ago. */
static struct window *packed_window(struct content_reader *c, uint32_t block)
{
	struct window *oldest = &c->packed[0];

	for (unsigned i = 0; i < c->packed_count; i++) {
		struct window *w = &c->packed[i];

		if (w->count && w->first == block) {
			oldest = w;
			break;
		}
		if (w->used < oldest->used)
			oldest = w;
	}
	oldest->used = ++c->clock;
	return oldest;
}

static void window_load(struct content_reader *c, struct window *w, uint32_t first, unsigned count)
{
	if (w->count && first >= w->first && first - w->first < w->count)
		return;
	w->first = first;
	w->count = count;
	image_read_blocks(c->image, first, count, w->reads);
}

/* How many blocks from m->block on hold consecutive bytes of the file, up to the window's capacity. */
static int run_length(struct content_reader *c, const struct image_inode *inode, const struct image_map *m,
	uint64_t end, unsigned *ret)
{
	unsigned n = 1;

	while (n < c->run.capacity) {
		uint64_t offset = m->offset + (uint64_t)n * c->block_size;
		struct image_map next;
		int r;

		if (offset >= end)
			break;
		r = image_map(c->image, inode, offset, &next);
		if (r < 0)
			return r;
		if (next.hole || next.block_offset || next.block != m->block + n)
			break;
		n++;
	}
	*ret = n;
	return 0;
}

/* Joins what lies in the window, at most count blocks, as long as it is readable; or tells of one that is not. */
static void window_piece(const struct content_reader *c, const struct window *w, const struct image_map *m,
	unsigned count, uint64_t end, struct content_piece *ret)
{
	unsigned first = m->block - w->first;
	uint64_t at = m->block_offset, left = end - m->offset, length = 0;
	int error = 0;

	count = MIN(count, w->count - first);
	for (unsigned i = 0; i < count && left; i++) {
		const struct image_read *read = &w->reads[first + i];
		uint64_t want = MIN(left, c->block_size - at);

		error = read->error;
		if (!error && (at > read->raw || want > read->raw - at))
			error = -EUCLEAN;
		if (error && i) {
			error = 0;
			break;
		}
		length += want;
		left -= want;
		at = 0;
		if (error)
			break;
	}
	*ret = (struct content_piece){
		.offset = m->offset,
		.length = length,
		.data = error ? NULL : w->reads[first].data + m->block_offset,
		.error = error,
	};
}

int content_next(struct content_reader *c, const struct image_inode *inode, uint64_t offset, uint64_t end,
	struct content_piece *ret)
{
	bool packed = inode->layout == PINFS_LAYOUT_PACKED;
	struct window *w = &c->run;
	struct image_map m;
	unsigned count = 1;
	int r = image_map(c->image, inode, offset, &m);

	if (r < 0)
		return r;
	if (m.hole) {
		*ret = (struct content_piece){.offset = offset, .length = MIN(m.length, end - offset)};
		return 0;
	}
	if (packed)
		w = packed_window(c, m.block);
	else
		r = run_length(c, inode, &m, end, &count);
	if (r < 0)
		return r;
	window_load(c, w, m.block, count);
	window_piece(c, w, &m, count, end, ret);
	return 0;
}
