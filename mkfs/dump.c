/* SPDX-License-Identifier: MIT */
#include "mkfs/dump.h"

#include <dirent.h>
#include <inttypes.h>

#include "codec/codec.h"
#include "mkfs/bitset.h"
#include "mkfs/space.h"

#define USERS_SHOWN 100u

struct dump {
	struct image *image;
	const struct image_info *info;
	FILE *out;
	bool json;
	bool first;	/* JSON: no element of the open object or list yet */
	unsigned depth; /* JSON */
	int error;	/* the first one */
};

/* ---- fields: "name  value" lines, or members of a JSON object ---- */

static void note_error(struct dump *d, int r)
{
	if (r < 0 && !d->error)
		d->error = r;
}

/* Begins an element; name: NULL in a list. */
static void element(struct dump *d, const char *name)
{
	if (d->json) {
		fprintf(d->out, "%s\n%*s", d->first ? "" : ",", (int)d->depth * 2, "");
		if (name)
			fprintf(d->out, "\"%s\": ", name);
	} else if (name) {
		fprintf(d->out, "  %-18s ", name);
	}
	d->first = false;
}

static void open_group(struct dump *d, const char *name, char bracket)
{
	if (d->json) {
		if (d->depth)
			element(d, name);
		putc(bracket, d->out);
		d->depth++;
		d->first = true;
	} else if (name) {
		fprintf(d->out, "%s\n", name);
	}
}

static void close_group(struct dump *d, char bracket)
{
	if (!d->json)
		return;
	d->depth--;
	fprintf(d->out, "\n%*s%c", (int)d->depth * 2, "", bracket);
	d->first = false;
}

static void field_number(struct dump *d, const char *name, uint64_t v)
{
	element(d, name);
	fprintf(d->out, "%" PRIu64 "%s", v, d->json ? "" : "\n");
}

static void field_bytes(struct dump *d, const char *name, uint64_t v)
{
	char size[32];

	if (d->json || v < 1024) {
		field_number(d, name, v);
		return;
	}
	element(d, name);
	fprintf(d->out, "%" PRIu64 "  (%s)\n", v, format_size(v, size, sizeof(size)));
}

/* A string of any bytes. */
static void field_string(struct dump *d, const char *name, const char *s, size_t len)
{
	_cleanup_free_ char *shown = d->json ? NULL : malloc(4 * len + 8);

	element(d, name);
	if (d->json)
		json_string(d->out, s, len);
	else
		fprintf(d->out, "%s\n", shown ? name_escape(s, len, shown, 4 * len + 8) : "");
}

static void field_text(struct dump *d, const char *name, const char *s)
{
	field_string(d, name, s, strlen(s));
}

static void field_hex64(struct dump *d, const char *name, uint64_t v)
{
	char text[20];

	snprintf(text, sizeof(text), "%016" PRIx64, v);
	field_text(d, name, text);
}

static void field_time(struct dump *d, const char *name, const struct timespec *ts)
{
	char text[80] = "", full[128];
	time_t seconds = ts->tv_sec;
	struct tm tm;

	if (gmtime_r(&seconds, &tm))
		strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &tm);
	else
		snprintf(text, sizeof(text), "%jd", (intmax_t)seconds);
	snprintf(full, sizeof(full), "%s.%09ldZ", text, ts->tv_nsec);
	field_text(d, name, full);
}

/* ---- superblock ---- */

struct feature {
	uint64_t bit;
	const char *name;
};

static void field_features(struct dump *d, const char *name, uint64_t v, const struct feature *known, size_t count)
{
	char text[256];
	size_t n = (size_t)snprintf(text, sizeof(text), "%#" PRIx64, v);

	for (size_t i = 0; i < count; i++) {
		if (v & known[i].bit)
			n += (size_t)snprintf(text + n, sizeof(text) - n, " %s", known[i].name);
		v &= ~known[i].bit;
	}
	if (v)
		snprintf(text + n, sizeof(text) - n, " unknown:%#" PRIx64, v);
	field_text(d, name, text);
}

static const char *filter_name(unsigned filter)
{
	return filter == PINFS_FILTER_NONE ? "none" : filter == PINFS_FILTER_DELTA ? "delta" : "unknown";
}

static double percent(uint64_t part, uint64_t whole)
{
	return whole ? 100.0 * (double)part / (double)whole : 0;
}

static void dump_sections(struct dump *d)
{
	if (!d->json)
		fprintf(d->out, "sections\n  %2s %-12s %-6s %6s %6s %14s %14s %8s %8s %12s %6s\n", "id", "name", "filter",
			"record", "chunk", "raw", "stored", "ratio", "chunks", "index at", "pages");
	else
		open_group(d, "sections", '[');
	for (unsigned i = 0; i < d->info->section_count; i++) {
		const struct image_section *s = &d->info->sections[i];

		if (!d->json) {
			fprintf(d->out, "  %2u %-12s %-6s %6u %6u %14" PRIu64 " %14" PRIu64 " %6.1f %% %8" PRIu64
					" %12" PRIu64 " %6" PRIu64 "\n", s->type, image_section_name(s->type),
				filter_name(s->filter), s->record_size, s->chunk_size, s->raw_size, s->stored_size,
				percent(s->stored_size, s->raw_size), s->chunk_count, s->index_offset,
				s->index_pages);
			continue;
		}
		open_group(d, NULL, '{');
		field_number(d, "type", s->type);
		field_text(d, "name", image_section_name(s->type));
		field_text(d, "filter", filter_name(s->filter));
		field_number(d, "record_size", s->record_size);
		field_number(d, "chunk_size", s->chunk_size);
		field_number(d, "raw_size", s->raw_size);
		field_number(d, "stored_size", s->stored_size);
		field_number(d, "chunk_count", s->chunk_count);
		field_number(d, "index_offset", s->index_offset);
		field_number(d, "index_pages", s->index_pages);
		close_group(d, '}');
	}
	close_group(d, ']');
}

static void dump_super(struct dump *d)
{
	static const struct feature compat[] = {
		{PINFS_COMPAT_XATTR, "xattr"}, {PINFS_COMPAT_ACL, "acl"}, {PINFS_COMPAT_XIP, "xip"}};
	static const struct feature incompat[] = {{PINFS_INCOMPAT_LZ4, "lz4"}};
	const struct image_info *i = d->info;
	char text[40];

	open_group(d, "superblock", '{');
	snprintf(text, sizeof(text), "%u.%u", i->version_major, i->version_minor);
	field_text(d, "version", text);
	field_text(d, "read_from", i->from_backup ? "the copy at the end; the first one is damaged" : "the beginning");
	field_features(d, "compat", i->compat, compat, ARRAY_SIZE(compat));
	field_features(d, "ro_compat", i->ro_compat, NULL, 0);
	field_features(d, "incompat", i->incompat, incompat, ARRAY_SIZE(incompat));
	uuid_format(i->uuid, text);
	field_text(d, "uuid", text);
	field_text(d, "label", i->label);
	field_number(d, "offset_in_file", i->offset);
	field_bytes(d, "image_size", i->image_size);
	field_number(d, "inode_count", i->inode_count);
	field_number(d, "block_count", i->block_count);
	field_bytes(d, "block_size", i->block_size);
	field_bytes(d, "file_bytes", i->file_bytes);
	field_number(d, "data_offset", i->data_offset);
	field_number(d, "data_end", i->data_end);
	field_number(d, "dir_restart", i->dir_restart);
	field_time(d, "created", &i->created);
	for (size_t k = 0; k < sizeof(i->content_hash); k++)
		snprintf(text + 2 * k, 3, "%02x", i->content_hash[k]);
	field_text(d, "content_hash", text);
	field_number(d, "section_count", i->section_count);
	close_group(d, '}');
	dump_sections(d);
}

/* ---- the map ---- */

/* What the totals are kept by. Sections come after these. */
enum { CAT_SUPER, CAT_LZ4, CAT_RAW, CAT_XIP, CAT_INDEX, CAT_PADDING, CAT_UNKNOWN, CAT_SECTIONS };
static const char *const category_names[] = {"superblocks", "data lz4", "data raw", "data xip", "index pages",
	"padding", "unknown"};

struct map {
	struct dump *d;
	struct bitset xip; /* blocks of XIP files */
	uint64_t end;
	uint64_t bytes[CAT_SECTIONS + PINFS_SECTIONS_MAX], count[CAT_SECTIONS + PINFS_SECTIONS_MAX];
	bool chunks_lost, blocks_lost; /* some descriptors are damaged: a gap is not always padding */
};

static void find_xip_blocks(struct map *m)
{
	struct dump *d = m->d;

	if (!(d->info->compat & PINFS_COMPAT_XIP))
		return;
	for (uint64_t ino = 1; ino <= d->info->inode_count; ino++) {
		uint32_t bs = d->info->block_size;
		struct image_inode i;
		int r = image_inode_get(d->image, ino, &i);

		note_error(d, r);
		if (r == 0 && i.xip)
			bitset_fill(&m->xip, i.pos, i.pos + i.size / bs + !!(i.size % bs));
	}
}

static void map_line(struct dump *d, uint64_t from, uint64_t to, const char *what, const char *detail)
{
	if (!d->json) {
		fprintf(d->out, "  %12" PRIu64 " %12" PRIu64 " %10" PRIu64 "  %s%s%s\n", from, to, to - from, what,
			detail[0] ? "  " : "", detail);
		return;
	}
	element(d, NULL);
	fprintf(d->out, "{\"start\": %" PRIu64 ", \"end\": %" PRIu64 ", \"what\": ", from, to);
	json_string(d->out, what, strlen(what));
	if (detail[0]) {
		fputs(", \"detail\": ", d->out);
		json_string(d->out, detail, strlen(detail));
	}
	putc('}', d->out);
}

static const char *codec_name(unsigned codec)
{
	return codec == PINFS_CODEC_RAW ? "raw" : codec_by_id(codec) ? codec_by_id(codec)->name : "unknown";
}

static void detail_block(const struct image_block *b, char *buf, size_t size)
{
	if (b->codec == PINFS_CODEC_RAW)
		snprintf(buf, size, "raw %u", b->raw);
	else
		snprintf(buf, size, "%s %u -> %u (%.1f %%)", codec_name(b->codec), b->raw, b->stored,
			percent(b->stored, b->raw));
}

/* The category of a range, what it is, and how it is stored. */
static unsigned map_classify(struct map *m, const struct space_range *r, char *what, size_t size, char *detail,
	size_t detail_size)
{
	struct dump *d = m->d;
	struct image_block b;
	bool xip;

	detail[0] = 0;
	space_describe(d->info, r, what, size);
	switch ((enum space_kind)r->kind) {
	case SPACE_INDEX:
		return CAT_INDEX;
	case SPACE_CHUNK:
		if (image_chunk_info(d->image, r->section, r->first, &b) == 0)
			detail_block(&b, detail, detail_size);
		return CAT_SECTIONS + r->section;
	case SPACE_BLOCK:
		if (image_block_get(d->image, r->first, &b) < 0)
			return CAT_UNKNOWN;
		detail_block(&b, detail, detail_size);
		xip = bitset_test(&m->xip, r->first);
		if (xip)
			snprintf(what, size, "xip block %" PRIu64, r->first);
		return xip ? CAT_XIP : b.codec == PINFS_CODEC_RAW ? CAT_RAW : CAT_LZ4;
	default:
		return CAT_SUPER;
	}
}

static void map_gap(struct map *m, uint64_t to)
{
	bool lost = m->chunks_lost || m->blocks_lost;
	unsigned category = lost ? CAT_UNKNOWN : CAT_PADDING;

	if (to <= m->end)
		return;
	map_line(m->d, m->end, to, lost ? "padding, or something whose descriptor is damaged" : "padding", "");
	m->bytes[category] += to - m->end;
	m->count[category]++;
	m->end = to;
}

static int map_range(void *context, const struct space_range *r)
{
	struct map *m = context;
	char what[128], detail[128];
	uint64_t to = r->offset + r->length, from = MAX(r->offset, m->end);
	unsigned category = map_classify(m, r, what, sizeof(what), detail, sizeof(detail));

	map_gap(m, r->offset);
	if (from > r->offset)
		snprintf(detail + strlen(detail), sizeof(detail) - strlen(detail), "%sOVERLAPS what is before it",
			detail[0] ? ", " : "");
	map_line(m->d, r->offset, to, what, detail);
	/* Each byte is counted once, also where a damaged image uses it twice: the totals add up. */
	m->count[category]++;
	if (to > from) {
		m->bytes[category] += to - from;
		m->end = to;
	}
	return ferror(m->d->out) ? -EIO : 0;
}

static void map_total(struct map *m, unsigned category, const char *name, uint64_t *sum)
{
	struct dump *d = m->d;
	uint64_t bytes = m->bytes[category];

	*sum += bytes;
	if (!m->count[category])
		return;
	if (!d->json) {
		fprintf(d->out, "  %-18s %10" PRIu64 " %14" PRIu64 " %7.3f %%\n", name, m->count[category], bytes,
			percent(bytes, d->info->image_size));
		return;
	}
	open_group(d, name, '{');
	field_number(d, "count", m->count[category]);
	field_number(d, "bytes", bytes);
	close_group(d, '}');
}

static void map_totals(struct map *m)
{
	struct dump *d = m->d;
	uint64_t sum = 0;

	if (d->json)
		open_group(d, "totals", '{');
	else
		fprintf(d->out, "totals\n  %-18s %10s %14s\n", "", "count", "bytes");
	for (unsigned c = 0; c < CAT_SECTIONS; c++)
		map_total(m, c, category_names[c], &sum);
	for (unsigned i = 0; i < d->info->section_count; i++) {
		char name[48];

		snprintf(name, sizeof(name), "%s", image_section_name(d->info->sections[i].type));
		if (!strcmp(name, "unknown"))
			snprintf(name, sizeof(name), "section type %u", d->info->sections[i].type);
		map_total(m, CAT_SECTIONS + i, name, &sum);
	}
	if (d->json)
		field_number(d, "sum", sum);
	else
		fprintf(d->out, "  %-18s %10s %14" PRIu64 " %7.3f %%\n", "sum", "", sum,
			percent(sum, d->info->image_size));
	close_group(d, '}');
}

static int dump_map(struct dump *d)
{
	struct map m = {.d = d};
	struct space_options o = {0};
	int r = bitset_init(&m.xip, d->info->block_count);

	if (r < 0)
		return r;
	find_xip_blocks(&m);
	if (d->json)
		open_group(d, "map", '[');
	else
		fprintf(d->out, "map\n  %12s %12s %10s\n", "start", "end", "bytes");
	r = space_walk(d->image, &o, map_range, &m, &m.chunks_lost, &m.blocks_lost);
	close_group(d, ']');
	if (r == 0) {
		if (m.chunks_lost || m.blocks_lost)
			note_error(d, -EUCLEAN);
		map_totals(&m);
	}
	bitset_destroy(&m.xip);
	return r;
}

/* ---- one inode ---- */

static const char *type_name(mode_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFREG:
		return "regular file";
	case S_IFDIR:
		return "directory";
	case S_IFLNK:
		return "symbolic link";
	case S_IFCHR:
		return "character device";
	case S_IFBLK:
		return "block device";
	case S_IFIFO:
		return "FIFO";
	case S_IFSOCK:
		return "socket";
	default:
		return "unknown";
	}
}

static const char *layout_name(enum pinfs_layout layout)
{
	static const char *const names[] = {"none", "run", "packed", "extents", "dir", "symlink", "device"};

	return layout < ARRAY_SIZE(names) ? names[layout] : "unknown";
}

/* What pos, arg0 and arg1 mean here. */
static void dump_layout(struct dump *d, const struct image_inode *i)
{
	field_text(d, "layout", layout_name(i->layout));
	switch (i->layout) {
	case PINFS_LAYOUT_RUN:
		field_number(d, "first_block", i->pos);
		break;
	case PINFS_LAYOUT_PACKED:
		field_number(d, "block", i->pos);
		field_number(d, "offset_in_block", i->arg0);
		break;
	case PINFS_LAYOUT_EXTENTS:
		field_number(d, "first_extent", i->pos);
		field_number(d, "extent_count", i->arg0);
		break;
	case PINFS_LAYOUT_DIR:
		field_number(d, "pos_in_dirs", i->pos);
		field_number(d, "entry_count", i->arg0);
		field_number(d, "parent", i->arg1);
		break;
	case PINFS_LAYOUT_SYMLINK:
		field_number(d, "pos_in_symlinks", i->pos);
		break;
	case PINFS_LAYOUT_DEVICE:
		field_number(d, "major", i->arg0);
		field_number(d, "minor", i->arg1);
		break;
	default:
		break;
	}
}

static void dump_xattrs(struct dump *d, const struct image_inode *i)
{
	ssize_t len = image_xattr_list(d->image, i, NULL, 0);
	_cleanup_free_ char *list = len > 0 ? malloc((size_t)len) : NULL;

	note_error(d, (int)MIN(len, 0));
	if (!list || image_xattr_list(d->image, i, list, (size_t)len) < 0)
		return;
	open_group(d, "xattrs", '{');
	for (const char *name = list; name < list + len; name += strlen(name) + 1) {
		ssize_t size = image_xattr_get(d->image, i, name, NULL, 0);
		char text[32];

		if (d->json) {
			fprintf(d->out, "%s\n%*s", d->first ? "" : ",", (int)d->depth * 2, "");
			json_string(d->out, name, strlen(name));
			fprintf(d->out, ": %zd", size);
			d->first = false;
			continue;
		}
		snprintf(text, sizeof(text), "%zd bytes", size);
		fprintf(d->out, "  ");
		field_text(d, name, text);
	}
	close_group(d, '}');
}

/* A run of the file that lies in one block. */
static void map_data(struct dump *d, const struct image_map *m)
{
	char what[96], detail[96] = "descriptor damaged";
	struct image_block b;
	int r = image_block_get(d->image, m->block, &b);

	note_error(d, r);
	snprintf(what, sizeof(what), "block %u", m->block);
	if (m->block_offset)
		snprintf(what, sizeof(what), "block %u + %u", m->block, m->block_offset);
	if (r == 0) {
		int n = snprintf(detail, sizeof(detail), "at %" PRIu64 ", ", b.offset);

		detail_block(&b, detail + n, sizeof(detail) - (size_t)n);
	}
	map_line(d, m->offset, m->offset + m->length, what, detail);
}

static void dump_block_map(struct dump *d, const struct image_inode *i)
{
	uint64_t at = 0;

	if (d->json)
		open_group(d, "block_map", '[');
	else
		fprintf(d->out, "block map\n  %12s %12s %10s\n", "start", "end", "bytes");
	while (at < i->size && !ferror(d->out)) {
		struct image_map m;
		int r = image_map(d->image, i, at, &m);

		if (r < 0) {
			note_error(d, r);
			/* The damage is known by now; how far it goes is not. */
			map_line(d, at, i->size, "unknown", "an extent is damaged");
			break;
		}
		if (m.hole)
			map_line(d, at, at + m.length, "hole", "");
		else
			map_data(d, &m);
		at += m.length;
	}
	close_group(d, ']');
}

static void dump_entries(struct dump *d, const struct image_inode *dir)
{
	struct image_dir_iter it;
	struct image_dirent e;
	int r = image_dir_iter_begin(d->image, dir, 0, &it);

	note_error(d, r);
	if (r < 0)
		return;
	if (d->json)
		open_group(d, "entries", '[');
	else
		fprintf(d->out, "entries\n  %10s %10s %4s  name\n", "at", "inode", "type");
	for (uint64_t at = 0; at = it.pos - it.base, (r = image_dir_iter_next(&it, &e)) > 0 && !ferror(d->out);) {
		char shown[4 * PINFS_NAME_MAX + 8];

		if (!d->json) {
			fprintf(d->out, "  %10" PRIu64 " %10u %4u  %s\n", at, e.ino, e.type,
				name_escape(e.name, e.name_len, shown, sizeof(shown)));
			continue;
		}
		element(d, NULL);
		fprintf(d->out, "{\"at\": %" PRIu64 ", \"inode\": %u, \"type\": %u, \"name\": ", at, e.ino, e.type);
		json_string(d->out, e.name, e.name_len);
		putc('}', d->out);
	}
	note_error(d, r);
	image_dir_iter_end(&it);
	close_group(d, ']');
}

static int dump_inode(struct dump *d, uint64_t ino)
{
	char target[PINFS_SYMLINK_MAX + 1], mode[16];
	struct image_inode i;
	uint64_t xip;
	int r = image_inode_get(d->image, ino, &i);

	if (r < 0)
		return r;
	open_group(d, "inode", '{');
	field_number(d, "number", i.ino);
	field_text(d, "type", type_name(i.mode));
	snprintf(mode, sizeof(mode), "%06o", (unsigned)i.mode);
	field_text(d, "mode", mode);
	field_number(d, "nlink", i.nlink);
	field_number(d, "uid", i.uid);
	field_number(d, "gid", i.gid);
	field_number(d, "size", i.size);
	field_number(d, "alloc", i.alloc);
	field_time(d, "mtime", &i.mtime);
	dump_layout(d, &i);
	if (i.xattr)
		field_number(d, "pos_in_xattrs", (uint64_t)(i.xattr - 1) * 8);
	if (i.xip && (r = image_xip_offset(d->image, &i, &xip)) == 0)
		field_number(d, "xip_offset_in_file", xip);
	note_error(d, r);
	if (S_ISLNK(i.mode)) {
		r = image_readlink(d->image, &i, target);
		note_error(d, r);
		if (r == 0)
			field_string(d, "target", target, i.size);
	}
	if (i.xattr)
		dump_xattrs(d, &i);
	if (S_ISREG(i.mode))
		dump_block_map(d, &i);
	if (S_ISDIR(i.mode))
		dump_entries(d, &i);
	close_group(d, '}');
	return 0;
}

/* ---- one block ---- */

/* Does the file need the block? Extents are sorted, but not by block. */
static bool uses_block(struct dump *d, const struct image_inode *i, uint64_t block)
{
	uint32_t bs = d->info->block_size;

	if (!S_ISREG(i->mode))
		return false;
	switch (i->layout) {
	case PINFS_LAYOUT_RUN:
		return block >= i->pos && block - i->pos < i->size / bs + !!(i->size % bs);
	case PINFS_LAYOUT_PACKED:
		return block == i->pos;
	case PINFS_LAYOUT_EXTENTS:
		for (uint32_t k = 0; k < i->arg0; k++) {
			struct image_extent e;
			int r = image_extent_get(d->image, i->pos + k, &e);

			note_error(d, r);
			if (r == 0 && block >= e.block && block - e.block < e.count)
				return true;
		}
		return false;
	default:
		return false;
	}
}

static void dump_users(struct dump *d, uint64_t block)
{
	uint64_t count = 0;

	open_group(d, "used_by", '[');
	for (uint64_t ino = 1; ino <= d->info->inode_count; ino++) {
		struct image_inode i;
		int r = image_inode_get(d->image, ino, &i);

		note_error(d, r);
		if (r < 0 || !uses_block(d, &i, block) || count++ >= USERS_SHOWN)
			continue;
		if (d->json) {
			element(d, NULL);
			fprintf(d->out, "%" PRIu64, ino);
		} else {
			fprintf(d->out, "  inode %" PRIu64 "\n", ino);
		}
	}
	close_group(d, ']');
	field_number(d, "users", count);
}

static void dump_first_bytes(struct dump *d, const struct image_block *b)
{
	uint32_t n = MIN(b->stored, 64u);
	uint8_t buf[64];
	char hex[3 * 64 + 1];
	int r = image_read_raw(d->image, b->offset, n, buf);

	note_error(d, r);
	if (r < 0)
		return;
	for (uint32_t i = 0; i < n; i++)
		snprintf(hex + 3 * i, 4, "%02x ", buf[i]);
	field_string(d, "first_bytes", hex, 3 * n - 1);
}

static int dump_block(struct dump *d, uint64_t no)
{
	_cleanup_free_ uint8_t *raw = malloc(d->info->block_size);
	struct image_read read = {.data = raw};
	struct image_block b;
	int r;

	if (no >= d->info->block_count)
		return -ENOENT;
	r = raw ? image_block_get(d->image, no, &b) : -ENOMEM;
	if (r < 0)
		return r;
	open_group(d, "block", '{');
	field_number(d, "number", no);
	field_number(d, "offset", b.offset);
	field_number(d, "offset_in_file", d->info->offset + b.offset);
	field_number(d, "end", b.offset + b.stored);
	field_text(d, "codec", codec_name(b.codec));
	field_number(d, "stored_size", b.stored);
	field_number(d, "raw_size", b.raw);
	field_hex64(d, "checksum", b.checksum);
	image_read_blocks(d->image, no, 1, &read);
	note_error(d, read.error);
	field_text(d, "content", read.error == 0 ? "sound" : read.error == -EUCLEAN ? "damaged" : strerror(-read.error));
	if (read.error == 0)
		field_hex64(d, "raw_checksum", codec_checksum(raw, read.raw));
	dump_first_bytes(d, &b);
	dump_users(d, no);
	close_group(d, '}');
	return 0;
}

int dump_image(struct image *image, const struct dump_options *o, FILE *out)
{
	struct dump d = {.image = image, .info = image_get_info(image), .out = out, .json = o->json};
	int r = 0;

	/* What isn't there is found out before anything is written. */
	if (o->inode > d.info->inode_count || (o->has_block && o->block >= d.info->block_count))
		return -ENOENT;
	open_group(&d, NULL, '{');
	if (o->super)
		dump_super(&d);
	if (o->inode)
		r = dump_inode(&d, o->inode);
	if (r == 0 && o->has_block)
		r = dump_block(&d, o->block);
	if (r == 0 && o->map)
		r = dump_map(&d);
	close_group(&d, '}');
	if (d.json)
		putc('\n', out);
	return r < 0 ? r : d.error;
}
