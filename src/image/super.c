/* SPDX-License-Identifier: MIT */
/* The superblock: finding it, checking it, and opening an image from it. */
#include "image/internal.h"

#include <stdarg.h>

#include "codec/codec.h"

#define AUTO_SEARCH (64u << 20)

int image_damaged(struct image *image, uint64_t offset, const char *fmt, ...)
{
	char text[IMAGE_ERROR_SIZE];
	va_list ap;

	if (!image->options.on_damage)
		return -EUCLEAN;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	image->options.on_damage(image->options.context, offset, text);
	return -EUCLEAN;
}

int image_io_read(struct image *image, uint64_t offset, size_t len, struct io_span *ret)
{
	int r = io_read(image->io, image->info.offset + offset, len, ret);

	if (r < 0 && image->options.on_damage) {
		char text[128];

		snprintf(text, sizeof(text), "can't read %zu bytes: %s", len, strerror(-r));
		image->options.on_damage(image->options.context, offset, text);
	}
	/* What a device says (ENODATA, ENXIO…) means something else to who asks for an attribute or for a hole. */
	return r < 0 && r != -ENOMEM ? -EIO : r;
}

#define REFUSE(code, ...)                                        \
	do {                                                     \
		snprintf(error, IMAGE_ERROR_SIZE, __VA_ARGS__);  \
		return code;                                     \
	} while (0)

static const struct {
	unsigned type;
	const char *name;
	uint32_t record_size;
} section_kinds[] = {
	{PINFS_SECTION_INODES, "inodes", sizeof(struct pinfs_inode)},
	{PINFS_SECTION_DIRS, "directories", 1},
	{PINFS_SECTION_BLOCKS, "block table", sizeof(struct pinfs_block)},
	{PINFS_SECTION_EXTENTS, "extents", sizeof(struct pinfs_extent)},
	{PINFS_SECTION_SYMLINKS, "symlinks", 1},
	{PINFS_SECTION_XATTRS, "xattrs", 1},
};

const char *image_section_name(unsigned type)
{
	for (size_t i = 0; i < ARRAY_SIZE(section_kinds); i++)
		if (section_kinds[i].type == type)
			return section_kinds[i].name;
	return "unknown";
}

static int section_decode(const struct pinfs_section *s, unsigned i, const struct image_info *info,
	struct image_section *ret, char error[IMAGE_ERROR_SIZE])
{
	struct image_section o = {
		.type = pinfs_get32(s->type),
		.filter = pinfs_get32(s->filter),
		.record_size = pinfs_get32(s->record_size),
		.chunk_size = pinfs_get32(s->chunk_size),
		.raw_size = pinfs_get64(s->raw_size),
		.stored_size = pinfs_get64(s->stored_size),
		.index_offset = pinfs_get64(s->index_offset),
		.index_pages = pinfs_get64(s->index_pages),
	};

	if (!o.type || (i && o.type <= ret[-1].type))
		REFUSE(-EUCLEAN, "superblock: section %u has type %u, out of order", i, o.type);
	for (size_t k = 0; k < ARRAY_SIZE(section_kinds); k++)
		if (section_kinds[k].type == o.type && section_kinds[k].record_size != o.record_size)
			REFUSE(-EUCLEAN, "superblock: section '%s' has records of %u bytes instead of %u",
				section_kinds[k].name, o.record_size, section_kinds[k].record_size);
	if (!o.record_size || !o.chunk_size || o.chunk_size > PINFS_CHUNK_SIZE_MAX || o.chunk_size % o.record_size ||
		o.raw_size % o.record_size)
		REFUSE(-EUCLEAN, "superblock: section %u has impossible sizes", o.type);
	if (o.filter > PINFS_FILTER_DELTA || (o.filter == PINFS_FILTER_DELTA && o.record_size % 4))
		REFUSE(-EUCLEAN, "superblock: section %u has unknown filter %u", o.type, o.filter);
	o.chunk_count = o.raw_size / o.chunk_size + !!(o.raw_size % o.chunk_size);
	/* The chunk cache has 55 bits for a chunk's number, and one that tells index pages from chunks. */
	if (o.chunk_count >> 55)
		REFUSE(-EUCLEAN, "superblock: section %u has too many chunks", o.type);
	if (o.index_pages != DIV_ROUND_UP(o.chunk_count, PINFS_INDEX_ENTRIES))
		REFUSE(-EUCLEAN, "superblock: section %u has %ju index pages for %ju chunks", o.type,
			(uintmax_t)o.index_pages, (uintmax_t)o.chunk_count);
	if (o.index_pages && (o.index_offset % PINFS_PAGE_SIZE || o.index_offset > info->image_size ||
		o.index_pages > (info->image_size - o.index_offset) / PINFS_PAGE_SIZE))
		REFUSE(-EUCLEAN, "superblock: the index of section %u lies outside the image", o.type);
	*ret = o;
	return 0;
}

static uint64_t section_records(const struct image_info *info, unsigned type)
{
	for (unsigned i = 0; i < info->section_count; i++)
		if (info->sections[i].type == type)
			return info->sections[i].raw_size / info->sections[i].record_size;
	return 0;
}

static int super_check_version(const struct pinfs_super *sb, char error[IMAGE_ERROR_SIZE])
{
	uint64_t unknown = pinfs_get64(sb->incompat) & ~PINFS_INCOMPAT_KNOWN;

	if (pinfs_get16(sb->version_major) != PINFS_VERSION_MAJOR)
		REFUSE(-EOPNOTSUPP, "format version %u.%u is not supported (this program reads %u.x); "
			"use the pinfs that made the image, or a newer one",
			pinfs_get16(sb->version_major), pinfs_get16(sb->version_minor), PINFS_VERSION_MAJOR);
	if (unknown)
		REFUSE(-EOPNOTSUPP, "the image needs features that this program does not know (bits %#jx); "
			"use a newer pinfs", (uintmax_t)unknown);
	return 0;
}

int super_decode(const struct pinfs_super *sb, bool no_verify, struct image_info *ret, char error[IMAGE_ERROR_SIZE])
{
	struct image_info o = {0};
	int r;

	if (memcmp(sb->magic, PINFS_MAGIC, PINFS_MAGIC_SIZE))
		REFUSE(-EMEDIUMTYPE, "not a pinfs image (no superblock at its beginning)");
	if (!no_verify && codec_checksum(sb, offsetof(struct pinfs_super, checksum)) != pinfs_get64(sb->checksum))
		REFUSE(-EUCLEAN, "the superblock is damaged (wrong checksum)");
	r = super_check_version(sb, error);
	if (r < 0)
		return r;

	o.version_major = pinfs_get16(sb->version_major);
	o.version_minor = pinfs_get16(sb->version_minor);
	o.compat = pinfs_get64(sb->compat);
	o.ro_compat = pinfs_get64(sb->ro_compat);
	o.incompat = pinfs_get64(sb->incompat);
	memcpy(o.uuid, sb->uuid, sizeof(o.uuid));
	memcpy(o.label, sb->label, PINFS_LABEL_SIZE);
	o.image_size = pinfs_get64(sb->image_size);
	o.inode_count = pinfs_get64(sb->inode_count);
	o.block_count = pinfs_get64(sb->block_count);
	o.file_bytes = pinfs_get64(sb->file_bytes);
	o.data_offset = pinfs_get64(sb->data_offset);
	o.data_end = pinfs_get64(sb->data_end);
	o.created.tv_sec = (time_t)pinfs_get64(sb->created_sec);
	o.created.tv_nsec = pinfs_get32(sb->created_nsec);
	o.block_size = pinfs_get32(sb->block_size);
	o.dir_restart = pinfs_get32(sb->dir_restart);
	o.section_count = pinfs_get32(sb->section_count);
	memcpy(o.content_hash, sb->content_hash, sizeof(o.content_hash));

	if (o.image_size < 2 * PINFS_SUPER_SIZE || o.image_size % PINFS_PAGE_SIZE || o.image_size > INT64_MAX)
		REFUSE(-EUCLEAN, "superblock: impossible image size %ju", (uintmax_t)o.image_size);
	if (!is_power_of_two(o.block_size) || o.block_size < PINFS_BLOCK_SIZE_MIN ||
		o.block_size > PINFS_BLOCK_SIZE_MAX)
		REFUSE(-EUCLEAN, "superblock: impossible block size %u", o.block_size);
	if (!o.dir_restart || o.dir_restart > 65536 || o.section_count > PINFS_SECTIONS_MAX ||
		o.created.tv_nsec > 999999999)
		REFUSE(-EUCLEAN, "superblock: impossible values");
	if (o.data_offset < PINFS_SUPER_SIZE || o.data_offset > o.data_end || o.data_end > o.image_size)
		REFUSE(-EUCLEAN, "superblock: the data area lies outside the image");
	for (unsigned i = 0; i < o.section_count; i++) {
		r = section_decode(&sb->sections[i], i, &o, &o.sections[i], error);
		if (r < 0)
			return r;
	}
	if (!o.inode_count || o.inode_count > UINT32_MAX - 1 || o.block_count > UINT32_MAX ||
		section_records(&o, PINFS_SECTION_INODES) != o.inode_count ||
		section_records(&o, PINFS_SECTION_BLOCKS) != o.block_count)
		REFUSE(-EUCLEAN, "superblock: %ju inodes and %ju blocks do not fit its sections",
			(uintmax_t)o.inode_count, (uintmax_t)o.block_count);
	*ret = o;
	return 0;
}

static int super_read(struct io_file *io, uint64_t offset, struct pinfs_super *ret)
{
	struct io_span span;
	int r;

	if (io_size(io) < PINFS_SUPER_SIZE || offset > io_size(io) - PINFS_SUPER_SIZE)
		return -EMEDIUMTYPE;
	r = io_read(io, offset, sizeof(*ret), &span);
	if (r < 0)
		return r;
	memcpy(ret, span.data, sizeof(*ret));
	io_span_put(io, &span);
	return 0;
}

static bool super_plausible(const struct pinfs_super *sb)
{
	return !memcmp(sb->magic, PINFS_MAGIC, PINFS_MAGIC_SIZE) &&
		codec_checksum(sb, offsetof(struct pinfs_super, checksum)) == pinfs_get64(sb->checksum);
}

/* The trailer is the copy of the superblock that ends the file; it says how long the image is. */
static bool trailer_find(struct io_file *io, uint64_t *ret_base, struct pinfs_super *ret)
{
	struct pinfs_super sb;
	uint64_t size;

	if (io_size(io) < PINFS_SUPER_SIZE || super_read(io, io_size(io) - PINFS_SUPER_SIZE, &sb) < 0 ||
		!super_plausible(&sb) || !pinfs_get32(sb.is_backup))
		return false;
	size = pinfs_get64(sb.image_size);
	if (size > io_size(io))
		return false;
	*ret_base = io_size(io) - size;
	*ret = sb;
	return true;
}

static int search(struct io_file *io, uint64_t *ret_base)
{
	uint64_t end = MIN(io_size(io), (uint64_t)AUTO_SEARCH);
	size_t step = MIN(io_max_read(io), (size_t)1 << 20);

	step = align_down(step, PINFS_PAGE_SIZE);
	for (uint64_t at = 0; at + PINFS_SUPER_SIZE <= end; at += step) {
		size_t len = (size_t)MIN((uint64_t)step, end - at);
		struct io_span span;
		int r = io_read(io, at, len, &span);

		if (r < 0)
			return r;
		for (size_t i = 0; i + PINFS_SUPER_SIZE <= len; i += PINFS_PAGE_SIZE) {
			const struct pinfs_super *sb = (const void *)(span.data + i);

			if (super_plausible(sb) && !pinfs_get32(sb->is_backup)) {
				*ret_base = at + i;
				io_span_put(io, &span);
				return 0;
			}
		}
		io_span_put(io, &span);
	}
	return -EMEDIUMTYPE;
}

/* Finds the superblock to go by, and where the image begins. */
static int super_find(struct io_file *io, const struct image_options *options, uint64_t *ret_base,
	struct pinfs_super *ret, bool *ret_backup, char error[IMAGE_ERROR_SIZE])
{
	bool automatic = options->offset == IMAGE_OFFSET_AUTO;
	uint64_t base = automatic ? 0 : options->offset;
	struct pinfs_super sb, trailer;
	uint64_t trailer_base;
	int r;

	if (io_size(io) == 0)
		REFUSE(-EMEDIUMTYPE, "not a pinfs image: the file is empty");
	r = super_read(io, base, &sb);
	*ret_base = base;
	*ret_backup = false;
	if (r == 0 && (super_plausible(&sb) || options->no_verify)) {
		*ret = sb;
		return 0;
	}
	if (trailer_find(io, &trailer_base, &trailer) && (automatic || trailer_base == base)) {
		/* Also where the first one can't be read: a dead sector is what the copy is for. */
		*ret_backup = super_read(io, trailer_base, &sb) < 0 || !super_plausible(&sb);
		*ret_base = trailer_base;
		*ret = *ret_backup ? trailer : sb;
		return 0;
	}
	if (r < 0 && r != -EMEDIUMTYPE)
		REFUSE(r, "can't read the superblock at offset %ju: %s", (uintmax_t)base, strerror(-r));
	if (r == 0 && !memcmp(sb.magic, PINFS_MAGIC, PINFS_MAGIC_SIZE)) {
		*ret = sb; /* damaged, and no copy: super_decode() says so */
		return 0;
	}
	if (automatic && search(io, &base) == 0) {
		r = super_read(io, base, ret);
		if (r < 0)
			REFUSE(r, "can't read the superblock at offset %ju: %s", (uintmax_t)base, strerror(-r));
		*ret_base = base;
		return 0;
	}
	REFUSE(-EMEDIUMTYPE, "not a pinfs image (no superblock at offset %ju%s)", (uintmax_t)*ret_base,
		automatic ? ", none at its end, none in its first 64 MiB" : "");
}

static int image_init(struct image *img, char error[IMAGE_ERROR_SIZE])
{
	static const unsigned required[] = {PINFS_SECTION_INODES, PINFS_SECTION_DIRS};
	struct pinfs_super sb;
	uint64_t base, have;
	bool backup;
	int r;

	r = super_find(img->io, &img->options, &base, &sb, &backup, error);
	if (r < 0)
		return r;
	r = super_decode(&sb, img->options.no_verify, &img->info, error);
	if (r < 0)
		return r;
	img->info.offset = base;
	img->info.from_backup = backup;
	have = io_size(img->io) - base;
	if (img->info.image_size > have)
		REFUSE(-EUCLEAN, "the image is truncated: it says that it has %ju bytes, there are %ju%s",
			(uintmax_t)img->info.image_size, (uintmax_t)have, "; copy it again");
	for (unsigned t = 0; t < PINFS_SECTION_TYPES; t++)
		img->section_by_type[t] = -1;
	for (unsigned i = 0; i < img->info.section_count; i++)
		if (img->info.sections[i].type < PINFS_SECTION_TYPES)
			img->section_by_type[img->info.sections[i].type] = (int)i;
	for (size_t i = 0; i < ARRAY_SIZE(required); i++)
		if (img->section_by_type[required[i]] < 0)
			REFUSE(-EUCLEAN, "superblock: section '%s' is missing", image_section_name(required[i]));
	r = chunk_cache_init(&img->cache, img->options.metadata_cache);
	if (r < 0)
		REFUSE(r, "out of memory");
	return 0;
}

int image_open(struct io_file *io, const struct image_options *options, struct image **ret,
	char error[IMAGE_ERROR_SIZE])
{
	struct image *img = calloc(1, sizeof(*img));
	int r;

	if (!img)
		REFUSE(-ENOMEM, "out of memory");
	img->io = io;
	if (options)
		img->options = *options;
	r = image_init(img, error);
	if (r < 0) {
		img->io = NULL;
		image_close(img);
		return r;
	}
	*ret = img;
	return 0;
}

void image_close(struct image *img)
{
	if (!img)
		return;
	chunk_cache_destroy(&img->cache);
	io_close(img->io);
	free(img);
}

const struct image_info *image_get_info(const struct image *img)
{
	return &img->info;
}

struct io_file *image_io(const struct image *img)
{
	return img->io;
}

int image_super_check(struct image *img, bool backup)
{
	uint64_t at = backup ? img->info.image_size - PINFS_SUPER_SIZE : 0;
	char error[IMAGE_ERROR_SIZE];
	struct image_info info;
	struct pinfs_super sb;
	int r;

	r = super_read(img->io, img->info.offset + at, &sb);
	if (r < 0)
		return r;
	r = super_decode(&sb, img->options.no_verify, &info, error);
	if (r < 0)
		return image_damaged(img, at, "%s superblock: %s", backup ? "second" : "first", error);
	if (memcmp(info.uuid, img->info.uuid, 16) || memcmp(info.content_hash, img->info.content_hash, 16) ||
		info.image_size != img->info.image_size || pinfs_get32(sb.is_backup) != backup)
		return image_damaged(img, at, "the two superblocks differ");
	return 0;
}

int image_read_raw(struct image *img, uint64_t offset, size_t len, uint8_t *buf)
{
	struct io_span span;
	int r = image_io_read(img, offset, len, &span);

	if (r < 0)
		return r;
	memcpy(buf, span.data, len);
	io_span_put(img->io, &span);
	return 0;
}
