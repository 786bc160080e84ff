/* SPDX-License-Identifier: MIT */
/* Metadata: numbers the inodes, writes the sections, their indexes and the superblocks. */
#include "mkfs/mkfs.h"

#include <sys/random.h>

#include "base/log.h"
#include "codec/codec.h"

#define CHUNK_SIZE 32768u
#define META_LEVEL 6 /* metadata is small: a better compressor costs next to nothing */

/* ---- sections ---- */

struct section_writer {
	unsigned type, filter;
	uint32_t record_size, chunk_size, used;
	uint64_t raw_size, stored_size;
	struct pinfs_block *chunks;
	size_t chunk_count, chunk_capacity;
	uint8_t *buf;
};

struct meta {
	struct tree *tree;
	struct pack *pack;
	struct output *out;
	struct codec_context *codec; /* NULL: nothing is compressed */
	uint8_t *filtered, *compressed;
	bool lz4_used, xip_used, xattr_used, acl_used;
	struct section_writer sections[PINFS_SECTION_TYPES]; /* by type; 0 is unused */

	struct inode **by_number; /* by_number[n]: inode n + 1 */
	size_t count, capacity;
	struct inode **dirs; /* in the order in which they are written */
	size_t dir_count, dir_capacity;
	uint64_t file_bytes;
	int64_t newest_sec;
	uint32_t newest_nsec;
	uint64_t extent_count;
};

static const struct {
	unsigned type, filter;
	uint32_t record_size;
} section_layout[] = {
	{PINFS_SECTION_INODES, PINFS_FILTER_DELTA, sizeof(struct pinfs_inode)},
	{PINFS_SECTION_DIRS, PINFS_FILTER_NONE, 1},
	{PINFS_SECTION_BLOCKS, PINFS_FILTER_DELTA, sizeof(struct pinfs_block)},
	{PINFS_SECTION_EXTENTS, PINFS_FILTER_DELTA, sizeof(struct pinfs_extent)},
	{PINFS_SECTION_SYMLINKS, PINFS_FILTER_NONE, 1},
	{PINFS_SECTION_XATTRS, PINFS_FILTER_NONE, 1},
};

static int section_flush(struct meta *m, struct section_writer *w)
{
	const uint8_t *data = w->buf;
	unsigned codec = PINFS_CODEC_RAW;
	uint32_t len = w->used;
	size_t n = 0;
	int r;

	if (!len)
		return 0;
	r = array_reserve(&w->chunks, &w->chunk_capacity, w->chunk_count + 1, sizeof(*w->chunks));
	if (r < 0)
		return r;
	if (w->filter == PINFS_FILTER_DELTA) {
		codec_filter_delta(w->buf, len, w->record_size, m->filtered);
		data = m->filtered;
	}
	if (m->codec)
		n = codec_compress_lz4(m->codec, data, len, m->compressed, len);
	if (n) {
		data = m->compressed;
		codec = PINFS_CODEC_LZ4;
		len = (uint32_t)n;
		m->lz4_used = true;
	}
	w->chunks[w->chunk_count++] = (struct pinfs_block){
		.offset = pinfs_put64(m->out->pos),
		.stored = pinfs_put32(len),
		.raw = pinfs_put32(w->used | codec << PINFS_BLOCK_CODEC_SHIFT),
		.checksum = pinfs_put64(codec_checksum(data, len)),
	};
	w->stored_size += len;
	w->used = 0;
	return output_write(m->out, data, len);
}

static int section_add(struct meta *m, unsigned type, const void *data, size_t len)
{
	struct section_writer *w = &m->sections[type];
	const uint8_t *p = data;

	while (len) {
		size_t n = MIN(len, (size_t)(w->chunk_size - w->used));

		memcpy(w->buf + w->used, p, n);
		w->used += (uint32_t)n;
		w->raw_size += n;
		p += n;
		len -= n;
		if (w->used == w->chunk_size) {
			int r = section_flush(m, w);

			if (r < 0)
				return r;
		}
	}
	return 0;
}

static int sections_init(struct meta *m)
{
	for (size_t i = 0; i < ARRAY_SIZE(section_layout); i++) {
		struct section_writer *w = &m->sections[section_layout[i].type];

		w->type = section_layout[i].type;
		w->filter = section_layout[i].filter;
		w->record_size = section_layout[i].record_size;
		w->chunk_size = CHUNK_SIZE / w->record_size * w->record_size;
		w->buf = malloc(w->chunk_size);
		if (!w->buf)
			return -ENOMEM;
	}
	m->filtered = malloc(CHUNK_SIZE);
	m->compressed = malloc(CHUNK_SIZE);
	if (!m->filtered || !m->compressed)
		return -ENOMEM;
	return m->tree->options->compress ? codec_context_new(META_LEVEL, &m->codec) : 0;
}

/* ---- numbering ---- */

static int number(struct meta *m, struct inode *inode)
{
	int r;

	if (inode->ino)
		return 0;
	r = array_reserve(&m->by_number, &m->capacity, m->count + 1, sizeof(*m->by_number));
	if (r < 0)
		return r;
	m->by_number[m->count++] = inode;
	inode->ino = (uint32_t)m->count;
	if (S_ISREG(inode->mode))
		m->file_bytes += inode->size;
	if (inode->xattr) {
		struct xattr_set *x = &m->tree->xattrs[inode->xattr - 1];

		x->used = m->xattr_used = true;
		m->acl_used |= x->acl;
	}
	if (m->count == 1 || inode->mtime_sec > m->newest_sec ||
		(inode->mtime_sec == m->newest_sec && inode->mtime_nsec > m->newest_nsec)) {
		m->newest_sec = inode->mtime_sec;
		m->newest_nsec = inode->mtime_nsec;
	}
	return 0;
}

/* The names of one directory get consecutive numbers, all greater than its own. */
static int number_directory(struct meta *m, struct inode *dir)
{
	int r = array_reserve(&m->dirs, &m->dir_capacity, m->dir_count + 1, sizeof(*m->dirs));

	if (r < 0)
		return r;
	m->dirs[m->dir_count++] = dir;
	tree_dir_sort(dir); /* also drops what has vanished */
	for (uint32_t i = 0; r == 0 && i < dir->dir.count; i++) {
		struct inode *child = dir->dir.children[i]->inode;

		r = number(m, child);
		if (S_ISDIR(child->mode)) {
			child->dir.parent_ino = dir->ino;
			dir->dir.subdirs++;
		} else {
			child->nlink++;
		}
	}
	return r;
}

static int number_all(struct meta *m)
{
	struct inode **stack = NULL;
	size_t depth = 0, capacity = 0;
	int r = number(m, m->tree->root->inode);

	m->tree->root->inode->dir.parent_ino = PINFS_ROOT_INO;
	if (r == 0)
		r = array_reserve(&stack, &capacity, 1, sizeof(*stack));
	if (r == 0)
		stack[depth++] = m->tree->root->inode;
	while (r == 0 && depth) {
		struct inode *dir = stack[--depth];

		r = number_directory(m, dir);
		/* Last name first onto the stack: the first is taken first, depth first. */
		for (uint32_t i = dir->dir.count; r == 0 && i-- > 0;) {
			struct inode *child = dir->dir.children[i]->inode;

			if (!S_ISDIR(child->mode))
				continue;
			r = array_reserve(&stack, &capacity, depth + 1, sizeof(*stack));
			if (r == 0)
				stack[depth++] = child;
		}
	}
	free(stack);
	return r;
}

/* ---- directories ---- */

struct bytes {
	uint8_t *data;
	size_t size, capacity;
};

static int bytes_add(struct bytes *b, const void *data, size_t len)
{
	int r = array_reserve(&b->data, &b->capacity, b->size + len, 1);

	if (r < 0)
		return r;
	memcpy(b->data + b->size, data, len);
	b->size += len;
	return 0;
}

static size_t varint_put(uint8_t *out, uint32_t v)
{
	size_t n = 0;

	for (; v >= 0x80; v >>= 7)
		out[n++] = (uint8_t)(v | 0x80);
	out[n++] = (uint8_t)v;
	return n;
}

static int encode_entry(struct bytes *b, const struct node *n, bool restart, uint32_t *prev)
{
	uint8_t entry[5 + 2 + PINFS_NAME_MAX];
	uint32_t ino = n->inode->ino;
	size_t len;

	if (restart) {
		pinfs_le32 le = pinfs_put32(ino);

		memcpy(entry, &le, sizeof(le));
		len = sizeof(le);
	} else {
		uint32_t d = ino - (*prev + 1);

		len = varint_put(entry, d << 1 ^ (0u - (d >> 31)));
	}
	*prev = ino;
	entry[len++] = (uint8_t)(n->inode->mode >> 12);
	entry[len++] = n->name_len;
	memcpy(entry + len, n->name, n->name_len);
	return bytes_add(b, entry, len + n->name_len);
}

static int write_directory(struct meta *m, struct inode *dir, struct bytes *table, struct bytes *entries)
{
	uint32_t prev = 0;
	int r = 0;

	table->size = entries->size = 0;
	for (uint32_t i = 0; r == 0 && i < dir->dir.count; i++) {
		bool restart = i % PINFS_DIR_RESTART == 0;

		if (restart) {
			pinfs_le32 le = pinfs_put32((uint32_t)entries->size);

			if (entries->size > UINT32_MAX) {
				log_error("a directory has too many names");
				return -EFBIG;
			}
			r = bytes_add(table, &le, sizeof(le));
		}
		if (r == 0)
			r = encode_entry(entries, dir->dir.children[i], restart, &prev);
	}
	if (r < 0)
		return r;
	if (dir->dir.count <= PINFS_DIR_RESTART)
		table->size = 0;
	dir->dir.pos = m->sections[PINFS_SECTION_DIRS].raw_size;
	dir->dir.bytes = table->size + entries->size;
	r = section_add(m, PINFS_SECTION_DIRS, table->data, table->size);
	return r < 0 ? r : section_add(m, PINFS_SECTION_DIRS, entries->data, entries->size);
}

static int write_directories(struct meta *m)
{
	struct bytes table = {0}, entries = {0};
	int r = 0;

	for (size_t i = 0; r == 0 && i < m->dir_count; i++)
		r = write_directory(m, m->dirs[i], &table, &entries);
	free(table.data);
	free(entries.data);
	return r;
}

/* ---- the other sections ---- */

static int write_xattrs(struct meta *m)
{
	static const uint8_t zero[8];

	for (size_t i = 0; i < m->tree->xattr_count; i++) {
		struct xattr_set *x = &m->tree->xattrs[i];
		int r;

		if (!x->used)
			continue;
		x->pos = m->sections[PINFS_SECTION_XATTRS].raw_size;
		if (x->pos / 8 >= UINT32_MAX) {
			log_error("more than 32 GiB of extended attributes");
			return -EFBIG;
		}
		r = section_add(m, PINFS_SECTION_XATTRS, x->data, x->size);
		if (r == 0)
			r = section_add(m, PINFS_SECTION_XATTRS, zero, (size_t)(align_up(x->size, 8) - x->size));
		if (r < 0)
			return r;
	}
	return 0;
}

static int flush_extent(struct meta *m, struct pinfs_extent e, uint32_t *count)
{
	++*count;
	m->extent_count++;
	return section_add(m, PINFS_SECTION_EXTENTS, &e, sizeof(e));
}

/* Runs of final block numbers; one run that is the whole file needs no extent. */
static int encode_blocks(struct meta *m, const struct inode *i, struct pinfs_inode *d)
{
	uint64_t blocks = DIV_ROUND_UP(i->size, m->tree->options->block_size), first_extent = m->extent_count;
	uint64_t lblk = 0, count = 0;
	uint32_t block = 0, extents = 0;
	int r = 0;

	for (uint32_t k = 0; k < i->file.extent_count; k++) {
		const struct content_extent *e = &i->file.extents[k];

		for (uint64_t n = 0; n < e->count; n++) {
			uint32_t b = pack_seq_block(m->pack, e->seq + n);

			if (count && lblk + count == e->lblk + n && block + count == b && count < UINT32_MAX) {
				count++;
				continue;
			}
			if (count)
				r = flush_extent(m, (struct pinfs_extent){pinfs_put64(lblk), pinfs_put32(block),
					pinfs_put32((uint32_t)count)}, &extents);
			if (r < 0)
				return r;
			lblk = e->lblk + n;
			block = b;
			count = 1;
		}
	}
	if (!extents && lblk == 0 && count == blocks) {
		d->layout = PINFS_LAYOUT_RUN;
		d->pos = pinfs_put64(block);
		return 0;
	}
	r = flush_extent(m, (struct pinfs_extent){pinfs_put64(lblk), pinfs_put32(block), pinfs_put32((uint32_t)count)},
		&extents);
	d->layout = PINFS_LAYOUT_EXTENTS;
	d->pos = pinfs_put64(first_extent);
	d->arg0 = pinfs_put32(extents);
	return r;
}

static int encode_file(struct meta *m, const struct inode *i, struct pinfs_inode *d)
{
	d->alloc = pinfs_put64(i->file.alloc);
	switch ((enum content_kind)i->content) {
	case CONTENT_NONE:
		d->layout = PINFS_LAYOUT_NONE;
		return 0;
	case CONTENT_BLOCKS:
		if (i->xip) {
			d->flags |= PINFS_INODE_XIP;
			m->xip_used = true;
		}
		return encode_blocks(m, i, d);
	case CONTENT_PACKED:
	case CONTENT_STORED:
	case CONTENT_SINGLE:
		d->layout = PINFS_LAYOUT_PACKED;
		d->pos = pinfs_put64(i->content == CONTENT_SINGLE ? i->file.pack :
				     i->content == CONTENT_STORED ? pack_seq_block(m->pack, i->file.pack) :
								    pack_number_block(m->pack, i->file.pack));
		d->arg0 = pinfs_put32(i->file.offset);
		return 0;
	}
	return -EINVAL;
}

static int encode_link(struct meta *m, struct inode *i, struct pinfs_inode *d)
{
	d->layout = PINFS_LAYOUT_SYMLINK;
	d->pos = pinfs_put64(m->sections[PINFS_SECTION_SYMLINKS].raw_size);
	d->alloc = pinfs_put64(0);
	return section_add(m, PINFS_SECTION_SYMLINKS, i->link.target, i->size);
}

static int write_inode(struct meta *m, struct inode *i)
{
	struct pinfs_inode d = {
		.mode = pinfs_put16((uint16_t)i->mode),
		.nlink = pinfs_put32(S_ISDIR(i->mode) ? 2 + i->dir.subdirs : i->nlink),
		.uid = pinfs_put32(i->uid),
		.gid = pinfs_put32(i->gid),
		.size = pinfs_put64(S_ISDIR(i->mode) ? i->dir.bytes : i->size),
		.mtime_sec = pinfs_put64((uint64_t)i->mtime_sec),
		.mtime_nsec = pinfs_put32(i->mtime_nsec),
	};
	int r = 0;

	if (i->xattr)
		d.xattr = pinfs_put32((uint32_t)(m->tree->xattrs[i->xattr - 1].pos / 8 + 1));
	switch (i->mode & S_IFMT) {
	case S_IFREG:
		r = encode_file(m, i, &d);
		break;
	case S_IFDIR:
		d.layout = PINFS_LAYOUT_DIR;
		d.pos = pinfs_put64(i->dir.pos);
		d.arg0 = pinfs_put32(i->dir.count);
		d.arg1 = pinfs_put32(i->dir.parent_ino);
		break;
	case S_IFLNK:
		r = encode_link(m, i, &d);
		break;
	case S_IFCHR:
	case S_IFBLK:
		d.layout = PINFS_LAYOUT_DEVICE;
		d.arg0 = pinfs_put32(i->device.major);
		d.arg1 = pinfs_put32(i->device.minor);
		break;
	default:
		d.layout = PINFS_LAYOUT_NONE;
		break;
	}
	return r < 0 ? r : section_add(m, PINFS_SECTION_INODES, &d, sizeof(d));
}

static int write_sections(struct meta *m)
{
	int r = write_directories(m);

	if (r == 0)
		r = write_xattrs(m);
	for (size_t i = 0; r == 0 && i < m->count; i++)
		r = write_inode(m, m->by_number[i]);
	if (r == 0)
		r = section_add(m, PINFS_SECTION_BLOCKS, pack_blocks(m->pack),
			pack_block_count(m->pack) * sizeof(struct pinfs_block));
	for (unsigned t = 1; r == 0 && t < PINFS_SECTION_TYPES; t++)
		r = section_flush(m, &m->sections[t]);
	return r;
}

/* ---- index and superblocks ---- */

static int write_index(struct meta *m, struct section_writer *w, struct codec_hash_state *hash,
	struct pinfs_section *ret)
{
	*ret = (struct pinfs_section){
		.type = pinfs_put32(w->type),
		.filter = pinfs_put32(w->filter),
		.record_size = pinfs_put32(w->record_size),
		.chunk_size = pinfs_put32(w->chunk_size),
		.raw_size = pinfs_put64(w->raw_size),
		.stored_size = pinfs_put64(w->stored_size),
		.index_offset = pinfs_put64(w->chunk_count ? m->out->pos : 0),
		.index_pages = pinfs_put64(DIV_ROUND_UP(w->chunk_count, PINFS_INDEX_ENTRIES)),
	};
	for (size_t first = 0; first < w->chunk_count; first += PINFS_INDEX_ENTRIES) {
		struct pinfs_index_page page = {
			.magic = pinfs_put32(PINFS_INDEX_MAGIC),
			.type = pinfs_put32(w->type),
			.first = pinfs_put64(first),
		};
		size_t n = MIN(w->chunk_count - first, (size_t)PINFS_INDEX_ENTRIES);
		int r;

		memcpy(page.chunk, w->chunks + first, n * sizeof(page.chunk[0]));
		page.checksum = pinfs_put64(codec_checksum(&page, offsetof(struct pinfs_index_page, checksum)));
		codec_hash_update(hash, &page, sizeof(page));
		r = output_write(m->out, &page, sizeof(page));
		if (r < 0)
			return r;
	}
	return 0;
}

static void choose_uuid(struct meta *m, const struct pinfs_super *sb, uint8_t ret[16])
{
	const struct mkfs_options *o = m->tree->options;

	if (o->have_uuid) {
		memcpy(ret, o->uuid, 16);
		return;
	}
	if (o->random_uuid && getrandom(ret, 16, 0) == 16) {
		ret[6] = (uint8_t)((ret[6] & 0x0f) | 0x40);
	} else {
		/* From the content, so that the same tree gives the same image. The superblock has no UUID yet. */
		codec_hash128_bytes(codec_hash128(sb, sizeof(*sb)), ret);
		ret[6] = (uint8_t)((ret[6] & 0x0f) | 0x80);
	}
	ret[8] = (uint8_t)((ret[8] & 0x3f) | 0x80);
}

static int write_superblocks(struct meta *m, struct pinfs_super *sb, struct meta_result *ret)
{
	int r;

	choose_uuid(m, sb, sb->uuid);
	memcpy(ret->uuid, sb->uuid, 16);
	sb->is_backup = pinfs_put32(1);
	sb->checksum = pinfs_put64(codec_checksum(sb, offsetof(struct pinfs_super, checksum)));
	r = output_write(m->out, sb, sizeof(*sb));
	if (r < 0)
		return r;
	sb->is_backup = pinfs_put32(0);
	sb->checksum = pinfs_put64(codec_checksum(sb, offsetof(struct pinfs_super, checksum)));
	return output_pwrite(m->out, 0, sb, sizeof(*sb));
}

static bool blocks_use_lz4(const struct pack *pack)
{
	for (uint64_t i = 0; i < pack_block_count(pack); i++)
		if (pinfs_get32(pack_blocks(pack)[i].raw) >> PINFS_BLOCK_CODEC_SHIFT == PINFS_CODEC_LZ4)
			return true;
	return false;
}

static int finish(struct meta *m, uint64_t data_offset, uint64_t data_end, struct meta_result *ret)
{
	const struct mkfs_options *o = m->tree->options;
	struct codec_hash_state *hash = codec_hash_new();
	struct pinfs_super sb = {
		.version_major = pinfs_put16(PINFS_VERSION_MAJOR),
		.version_minor = pinfs_put16(PINFS_VERSION_MINOR),
		.inode_count = pinfs_put64(m->count),
		.block_count = pinfs_put64(pack_block_count(m->pack)),
		.file_bytes = pinfs_put64(m->file_bytes),
		.data_offset = pinfs_put64(data_offset),
		.data_end = pinfs_put64(data_end),
		.created_sec = pinfs_put64((uint64_t)(o->have_epoch ? o->epoch : m->newest_sec)),
		.created_nsec = pinfs_put32(o->have_epoch ? 0 : m->newest_nsec),
		.block_size = pinfs_put32(o->block_size),
		.section_count = pinfs_put32(ARRAY_SIZE(section_layout)),
		.dir_restart = pinfs_put32(PINFS_DIR_RESTART),
	};
	int r;

	if (!hash)
		return -ENOMEM;
	memcpy(sb.magic, PINFS_MAGIC, PINFS_MAGIC_SIZE);
	memcpy(sb.label, o->label, PINFS_LABEL_SIZE);
	sb.incompat = pinfs_put64(m->lz4_used || blocks_use_lz4(m->pack) ? PINFS_INCOMPAT_LZ4 : 0);
	sb.compat = pinfs_put64((m->xattr_used ? PINFS_COMPAT_XATTR : 0) |
		(m->acl_used ? PINFS_COMPAT_ACL : 0) | (m->xip_used ? PINFS_COMPAT_XIP : 0));
	r = output_align(m->out, PINFS_PAGE_SIZE);
	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(section_layout); i++)
		r = write_index(m, &m->sections[section_layout[i].type], hash, &sb.sections[i]);
	codec_hash128_bytes(codec_hash_digest(hash), sb.content_hash);
	codec_hash_free(hash);
	sb.image_size = pinfs_put64(m->out->pos + PINFS_SUPER_SIZE);
	if (r == 0)
		r = write_superblocks(m, &sb, ret);
	ret->inodes = m->count;
	ret->image_size = pinfs_get64(sb.image_size);
	ret->metadata_bytes = ret->image_size - data_end;
	return r;
}

int meta_write(struct tree *tree, struct pack *pack, struct output *out, uint64_t data_offset, uint64_t data_end,
	struct meta_result *ret)
{
	struct meta m = {.tree = tree, .pack = pack, .out = out};
	int r = sections_init(&m);

	if (r == 0)
		r = number_all(&m);
	if (r == 0)
		r = write_sections(&m);
	if (r == 0)
		r = finish(&m, data_offset, data_end, ret);
	if (r == -ENOMEM)
		log_error("out of memory for the metadata");
	for (unsigned t = 0; t < PINFS_SECTION_TYPES; t++) {
		free(m.sections[t].buf);
		free(m.sections[t].chunks);
	}
	codec_context_free(m.codec);
	free(m.filtered);
	free(m.compressed);
	free(m.by_number);
	free(m.dirs);
	return r;
}
