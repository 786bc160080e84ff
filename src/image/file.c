/* SPDX-License-Identifier: MIT */
/* File content: from an offset in a file to a block, and from a block to its bytes. */
#include "image/internal.h"

#include "codec/codec.h"

static int map_damaged(struct image *img, const struct image_inode *i, const char *what)
{
	return image_damaged(img, section_where(img, PINFS_SECTION_INODES, (uint64_t)(i->ino - 1) * 64),
		"inode %u: %s", i->ino, what);
}

int image_extent_get(struct image *img, uint64_t index, struct image_extent *ret)
{
	struct pinfs_extent d;
	struct image_extent e;
	int r = section_read(img, PINFS_SECTION_EXTENTS, index * sizeof(d), &d, sizeof(d));

	if (r < 0)
		return r;
	e = (struct image_extent){pinfs_get64(d.lblk), pinfs_get32(d.block), pinfs_get32(d.count)};
	if (!e.count || e.lblk > (uint64_t)INT64_MAX / img->info.block_size || e.block >= img->info.block_count ||
		e.count > img->info.block_count - e.block)
		return image_damaged(img, section_where(img, PINFS_SECTION_EXTENTS, index * sizeof(d)),
			"extent %ju lies outside the image's blocks", (uintmax_t)index);
	*ret = e;
	return 0;
}

/*
 * The extent that covers file block lblk (*ret_found, and its number within the file), or else the first one after it
 * (*ret_found false; its lblk is UINT64_MAX if there is none).
 */
static int find_extent(struct image *img, const struct image_inode *i, uint64_t lblk, struct image_extent *ret,
	uint64_t *ret_number, bool *ret_found)
{
	uint64_t low = 0, high = i->arg0;
	struct image_extent e, after = {.lblk = UINT64_MAX};

	/* low: all before are at or before lblk; high: all from here are after it. */
	while (low < high) {
		uint64_t mid = low + (high - low) / 2;
		int r = image_extent_get(img, i->pos + mid, &e);

		if (r < 0)
			return r;
		if (e.lblk <= lblk && lblk - e.lblk < e.count) {
			*ret = e;
			*ret_number = mid;
			*ret_found = true;
			return 0;
		}
		if (e.lblk > lblk) {
			after = e;
			high = mid;
		} else {
			low = mid + 1;
		}
	}
	*ret = after;
	*ret_number = low;
	*ret_found = false;
	return 0;
}

int image_map(struct image *img, const struct image_inode *i, uint64_t offset, struct image_map *ret)
{
	uint32_t bs = img->info.block_size;
	uint64_t lblk = offset / bs, left = i->size - offset, number;
	struct image_extent e;
	bool found;
	int r;

	if (!S_ISREG(i->mode) || offset >= i->size)
		return -EINVAL;
	switch (i->layout) {
	case PINFS_LAYOUT_NONE:
		*ret = (struct image_map){.offset = offset, .length = left, .hole = true};
		return 0;
	case PINFS_LAYOUT_PACKED:
		*ret = (struct image_map){
			.offset = offset,
			.length = left,
			.block = (uint32_t)i->pos,
			.block_offset = (uint32_t)(i->arg0 + offset),
		};
		return 0;
	case PINFS_LAYOUT_RUN:
		*ret = (struct image_map){
			.offset = offset,
			.length = MIN(left, bs - offset % bs),
			.block = (uint32_t)(i->pos + lblk),
			.block_offset = (uint32_t)(offset % bs),
		};
		return 0;
	case PINFS_LAYOUT_EXTENTS:
		r = find_extent(img, i, lblk, &e, &number, &found);
		if (r < 0)
			return r;
		if (found)
			*ret = (struct image_map){
				.offset = offset,
				.length = MIN(left, bs - offset % bs),
				.block = (uint32_t)(e.block + (lblk - e.lblk)),
				.block_offset = (uint32_t)(offset % bs),
			};
		else
			*ret = (struct image_map){
				.offset = offset,
				.length = e.lblk == UINT64_MAX ? left : MIN(left, e.lblk * bs - offset),
				.hole = true,
			};
		return 0;
	default:
		return -EINVAL;
	}
}

/* The first byte after the extent and all those that follow it without a gap, one step for each. */
static int run_end(struct image *img, const struct image_inode *i, const struct image_extent *e, uint64_t number,
	uint64_t *ret)
{
	uint64_t end = e->lblk + e->count;

	while (++number < i->arg0) {
		struct image_extent next;
		int r = image_extent_get(img, i->pos + number, &next);

		if (r < 0)
			return r;
		if (next.lblk < end)
			return map_damaged(img, i, "its extents are out of order");
		if (next.lblk > end)
			break;
		end += next.count;
	}
	*ret = end * img->info.block_size;
	return 0;
}

static int seek_extents(struct image *img, const struct image_inode *i, uint64_t offset, bool hole, uint64_t *ret)
{
	uint32_t bs = img->info.block_size;
	uint64_t number = 0;
	struct image_extent e;
	bool found;
	int r = find_extent(img, i, offset / bs, &e, &number, &found);

	if (r < 0)
		return r;
	if (found != hole)
		*ret = offset;
	else if (found)
		return run_end(img, i, &e, number, ret);
	else
		*ret = e.lblk == UINT64_MAX ? UINT64_MAX : e.lblk * bs;
	return 0;
}

int image_seek(struct image *img, const struct image_inode *i, uint64_t offset, bool hole, uint64_t *ret)
{
	uint64_t at = 0;
	int r = 0;

	if (!S_ISREG(i->mode))
		return -EINVAL;
	if (offset >= i->size)
		return -ENXIO;
	if (i->layout == PINFS_LAYOUT_EXTENTS)
		r = seek_extents(img, i, offset, hole, &at);
	else
		at = hole == (i->layout == PINFS_LAYOUT_NONE) ? offset : UINT64_MAX;
	if (r < 0)
		return r;
	/* Behind the end there is one more hole, and no data. */
	if (at >= i->size && !hole)
		return -ENXIO;
	*ret = MIN(at, i->size);
	return 0;
}

int image_block_get(struct image *img, uint64_t block, struct image_block *ret)
{
	uint64_t pos = block * sizeof(struct pinfs_block);
	struct pinfs_block d;
	int r;

	if (block >= img->info.block_count)
		return image_damaged(img, 0, "something refers to block %ju; there are only %ju", (uintmax_t)block,
			(uintmax_t)img->info.block_count);
	r = section_read(img, PINFS_SECTION_BLOCKS, pos, &d, sizeof(d));
	if (r < 0)
		return r;
	return block_decode(img, &d, section_where(img, PINFS_SECTION_BLOCKS, pos), img->info.block_size,
		img->info.data_offset, img->info.data_end, ret);
}

/* Verifies and decompresses one block from its stored bytes. */
static int block_unpack(struct image *img, uint64_t no, const struct image_block *b, const uint8_t *stored,
	struct image_read *out)
{
	if (!img->options.no_verify && codec_checksum(stored, b->stored) != b->checksum)
		return image_damaged(img, b->offset, "wrong checksum of block %ju (%u bytes)", (uintmax_t)no,
			b->stored);
	if (codec_by_id(b->codec)->decompress(stored, b->stored, out->data, b->raw) < 0)
		return image_damaged(img, b->offset, "block %ju can't be decompressed", (uintmax_t)no);
	out->raw = b->raw;
	return 0;
}

static int read_one(struct image *img, uint64_t no, const struct image_block *b, struct image_read *out)
{
	struct io_span span;
	int r = image_io_read(img, b->offset, b->stored, &span);

	if (r < 0)
		return r;
	r = block_unpack(img, no, b, span.data, out);
	io_span_put(img->io, &span);
	return r;
}

#define READ_BATCH 64u

/* Blocks first … first + n - 1 are stored one after another; `bytes` in all. */
static void read_run(struct image *img, uint64_t first, const struct image_block *b, unsigned n, size_t bytes,
	struct image_read *reads)
{
	struct io_span span;

	if (n > 1 && io_read(img->io, img->info.offset + b[0].offset, bytes, &span) == 0) {
		for (unsigned i = 0; i < n; i++)
			reads[i].error = block_unpack(img, first + i, &b[i], span.data + (b[i].offset - b[0].offset),
				&reads[i]);
		io_span_put(img->io, &span);
		return;
	}
	/* One block, or a failed read: find out which block it hits. */
	for (unsigned i = 0; i < n; i++)
		reads[i].error = read_one(img, first + i, &b[i], &reads[i]);
}

void image_read_blocks(struct image *img, uint64_t first, unsigned count, struct image_read *reads)
{
	while (count) {
		unsigned batch = MIN(count, READ_BATCH), i = 0;
		struct image_block b[READ_BATCH];

		for (unsigned k = 0; k < batch; k++)
			reads[k].error = image_block_get(img, first + k, &b[k]);
		while (i < batch) {
			unsigned n = 1;
			size_t bytes;

			if (reads[i].error < 0) {
				i++;
				continue;
			}
			bytes = b[i].stored;
			while (i + n < batch && reads[i + n].error == 0 &&
				b[i + n].offset == b[i + n - 1].offset + b[i + n - 1].stored &&
				bytes + b[i + n].stored <= io_max_read(img->io)) {
				bytes += b[i + n].stored;
				n++;
			}
			read_run(img, first + i, b + i, n, bytes, reads + i);
			i += n;
		}
		first += batch;
		count -= batch;
		reads += batch;
	}
}

ssize_t image_pread(struct image *img, const struct image_inode *i, void *buf, size_t len, uint64_t offset)
{
	_cleanup_free_ uint8_t *block = NULL;
	uint8_t *out = buf;
	size_t done = 0;

	if (offset >= i->size)
		return 0;
	len = (size_t)MIN((uint64_t)len, i->size - offset);
	while (done < len) {
		struct image_map m;
		size_t n;
		int r = image_map(img, i, offset + done, &m);

		if (r < 0)
			return r;
		n = (size_t)MIN((uint64_t)(len - done), m.length);
		if (m.hole) {
			memset(out + done, 0, n);
		} else {
			struct image_read rd;

			if (!block && !(block = malloc(img->info.block_size)))
				return -ENOMEM;
			rd.data = block;
			image_read_blocks(img, m.block, 1, &rd);
			if (rd.error < 0)
				return rd.error;
			if (m.block_offset > rd.raw || n > rd.raw - m.block_offset)
				return map_damaged(img, i, "its content runs over the end of a block");
			memcpy(out + done, block + m.block_offset, n);
		}
		done += n;
	}
	return (ssize_t)done;
}

int image_xip_offset(struct image *img, const struct image_inode *i, uint64_t *ret)
{
	struct image_block b;
	int r;

	if (!i->xip)
		return -EINVAL;
	r = image_block_get(img, i->pos, &b);
	if (r < 0)
		return r;
	if (b.codec != PINFS_CODEC_RAW || (img->info.offset + b.offset) % PINFS_PAGE_SIZE)
		return map_damaged(img, i, "marked for execution in place, but not stored page aligned");
	/* What is mapped must not show what lies behind the blocks; that they follow each other, fsck proves. */
	if (i->size > img->info.data_end - b.offset)
		return map_damaged(img, i, "marked for execution in place, but longer than what is stored");
	*ret = img->info.offset + b.offset;
	return 0;
}
