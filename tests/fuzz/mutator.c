/* SPDX-License-Identifier: MIT */
/*
 * Mutations that know the format: they change the raw records behind LZ4 and the delta filter, where a blind mutation
 * of the image would only break the compression. What they write is meant to be almost right.
 */
#include "container.h"

#include <dirent.h>

#include "codec/codec.h"

struct field {
	uint16_t offset, size; /* size: 1 to 8 bytes */
};

static const struct field super_fields[] = {
	{8, 2}, {10, 2}, {12, 4}, {16, 8}, {24, 8}, {32, 8}, {56, 8}, {120, 8}, {128, 8}, {136, 8}, {144, 8}, {152, 8},
	{160, 8}, {168, 8}, {176, 4}, {180, 4}, {184, 4}, {188, 4},
};
static const struct field section_fields[] = {{0, 4}, {4, 4}, {8, 4}, {12, 4}, {16, 8}, {24, 8}, {32, 8}, {40, 8}};
static const struct field block_fields[] = {{0, 8}, {8, 4}, {12, 3}, {15, 1}, {16, 8}};
static const struct field inode_fields[] = {
	{0, 2}, {2, 1}, {3, 1}, {4, 4}, {8, 4}, {12, 4}, {16, 8}, {24, 8}, {32, 4}, {36, 4}, {40, 8}, {48, 4}, {52, 4},
	{56, 8},
};
static const struct field extent_fields[] = {{0, 8}, {8, 4}, {12, 4}};

static uint64_t get(const uint8_t *p, unsigned size)
{
	uint64_t v = 0;

	for (unsigned i = 0; i < size; i++)
		v |= (uint64_t)p[i] << (8 * i);
	return v;
}

static void put(uint8_t *p, unsigned size, uint64_t v)
{
	for (unsigned i = 0; i < size; i++)
		p[i] = (uint8_t)(v >> (8 * i));
}

/* A number that means something in this image, or nearly. */
static uint64_t known_number(struct container *c, struct fuzz_random *r)
{
	const struct pinfs_super *sb = c->super;
	const struct pinfs_section *s = &sb->sections[fuzz_below(r, 6)];
	uint32_t record = MAX(pinfs_get32(s->record_size), 1u);

	switch (fuzz_below(r, 12)) {
	case 0:
		return pinfs_get64(sb->inode_count);
	case 1:
		return pinfs_get64(sb->block_count);
	case 2:
		return pinfs_get64(sb->data_offset);
	case 3:
		return pinfs_get64(sb->data_end);
	case 4:
		return pinfs_get32(sb->block_size);
	case 5:
		return pinfs_get64(sb->image_size);
	case 6:
		return fuzz_below(r, pinfs_get64(sb->inode_count)) + 1;
	case 7:
		return fuzz_below(r, pinfs_get64(sb->block_count));
	case 8:
		return pinfs_get64(s->raw_size);
	case 9:
		return fuzz_below(r, pinfs_get64(s->raw_size));
	case 10:
		return fuzz_below(r, pinfs_get64(s->raw_size) / record);
	default:
		return pinfs_get32(s->chunk_size);
	}
}

static uint64_t new_number(struct container *c, struct fuzz_random *r, uint64_t old, unsigned size)
{
	switch (fuzz_below(r, 9)) {
	case 0:
		return old + 1;
	case 1:
		return old - 1;
	case 2:
		return old ^ 1ull << fuzz_below(r, 8 * size);
	case 3:
		return fuzz_next(r) >> fuzz_below(r, 64);
	case 4:
		return (1ull << fuzz_below(r, 8 * size)) + fuzz_below(r, 3) - 1;
	case 5:
		return fuzz_below(r, 17);
	case 6:
		return ~0ull >> fuzz_below(r, 2) << fuzz_below(r, 2);
	case 7:
		return old << fuzz_below(r, 8) >> fuzz_below(r, 8);
	default:
		return known_number(c, r) + fuzz_below(r, 3) - 1;
	}
}

static void mutate_number(struct container *c, struct fuzz_random *r, uint8_t *p, unsigned size)
{
	put(p, size, new_number(c, r, get(p, size), size));
}

static void mutate_field(struct container *c, struct fuzz_random *r, uint8_t *record, const struct field *fields,
	size_t count)
{
	const struct field *f = &fields[fuzz_below(r, count)];

	mutate_number(c, r, record + f->offset, f->size);
}

/* One record of an array: a field, or a field or the whole of another record. */
static void mutate_record(struct container *c, struct fuzz_random *r, uint8_t *raw, size_t len, size_t record_size,
	const struct field *fields, size_t count)
{
	size_t n = len / record_size;
	uint8_t *to, *from;

	if (!n)
		return;
	to = raw + fuzz_below(r, n) * record_size;
	from = raw + fuzz_below(r, n) * record_size;
	if (fuzz_chance(r, 10)) {
		memmove(to, from, record_size);
	} else if (fuzz_chance(r, 15)) {
		const struct field *f = &fields[fuzz_below(r, count)];

		memmove(to + f->offset, from + f->offset, f->size);
	} else {
		mutate_field(c, r, to, fields, count);
	}
}

/* An inode becomes another kind of thing, with fields that nearly fit. */
static void mutate_inode_kind(struct container *c, struct fuzz_random *r, uint8_t *raw, size_t len)
{
	static const struct {
		uint16_t type;
		uint8_t layout;
	} kinds[] = {
		{S_IFREG, PINFS_LAYOUT_NONE}, {S_IFREG, PINFS_LAYOUT_RUN}, {S_IFREG, PINFS_LAYOUT_PACKED},
		{S_IFREG, PINFS_LAYOUT_EXTENTS}, {S_IFDIR, PINFS_LAYOUT_DIR}, {S_IFLNK, PINFS_LAYOUT_SYMLINK},
		{S_IFCHR, PINFS_LAYOUT_DEVICE}, {S_IFIFO, PINFS_LAYOUT_NONE},
	};
	static const unsigned sections[] = {
		[PINFS_LAYOUT_RUN] = PINFS_SECTION_BLOCKS, [PINFS_LAYOUT_PACKED] = PINFS_SECTION_BLOCKS,
		[PINFS_LAYOUT_EXTENTS] = PINFS_SECTION_EXTENTS, [PINFS_LAYOUT_DIR] = PINFS_SECTION_DIRS,
		[PINFS_LAYOUT_SYMLINK] = PINFS_SECTION_SYMLINKS, [PINFS_LAYOUT_DEVICE] = 0,
	};
	size_t n = len / sizeof(struct pinfs_inode), k = fuzz_below(r, ARRAY_SIZE(kinds));
	const struct pinfs_section *s = container_section(c, sections[kinds[k].layout]);
	uint64_t records = s ? pinfs_get64(s->raw_size) / MAX(pinfs_get32(s->record_size), 1u) : 1, pos;
	struct pinfs_inode *i;

	if (!n)
		return;
	i = (struct pinfs_inode *)raw + fuzz_below(r, n);
	i->mode = pinfs_put16((uint16_t)(kinds[k].type | (pinfs_get16(i->mode) & 07777)));
	i->layout = kinds[k].layout;
	i->flags = fuzz_chance(r, 20);
	pos = fuzz_below(r, records);
	i->pos = pinfs_put64(pos);
	i->arg0 = pinfs_put32((uint32_t)fuzz_below(r, records - pos + 2));
	if (kinds[k].layout == PINFS_LAYOUT_PACKED)
		i->arg0 = pinfs_put32((uint32_t)fuzz_below(r, pinfs_get32(c->super->block_size)));
	if (fuzz_chance(r, 60)) {
		uint64_t most = s && pinfs_get32(s->record_size) == 1 ?
			records - pos + 1 : (records + 1) * pinfs_get32(c->super->block_size);

		i->size = pinfs_put64(fuzz_below(r, most));
	}
	if (fuzz_chance(r, 30))
		i->arg1 = pinfs_put32((uint32_t)fuzz_below(r, pinfs_get64(c->super->inode_count)) + 1);
}

/* Where entries of a directory begin, as far as it can be followed. dir: its bytes; entry[0] is after the table. */
static size_t find_entries(const uint8_t *dir, size_t len, uint32_t count, uint32_t restart, size_t *entry,
	size_t most)
{
	size_t groups = restart ? (count + (uint64_t)restart - 1) / restart : 0, at = groups > 1 ? groups * 4 : 0, n;

	for (n = 0; n < most && n < count && at < len; n++) {
		size_t start = at;

		if (n % restart == 0)
			at += 4;
		else
			while (at < len && dir[at++] & 0x80)
				;
		if (at + 2 > len || at + 2 + dir[at + 1] > len)
			break;
		entry[n] = start;
		at += 2 + dir[at + 1];
	}
	return n;
}

#define ENTRIES_MOST 512

static void mutate_entry(struct container *c, struct fuzz_random *r, uint8_t *dir, size_t len, uint32_t count)
{
	static const char *const names[] = {".", "..", "/", "", "a/b", "\xff", "\n"};
	uint32_t restart = pinfs_get32(c->super->dir_restart);
	size_t entry[ENTRIES_MOST], n = find_entries(dir, len, count, restart, entry, ENTRIES_MOST), k, at, head;
	const char *name = names[fuzz_below(r, ARRAY_SIZE(names))];

	if (!n)
		return;
	k = fuzz_below(r, n);
	at = entry[k];
	head = at + 4;
	if (k % restart)
		for (head = at; dir[head++] & 0x80;)
			;
	switch (fuzz_below(r, 8)) {
	case 0: /* the inode number */
		if (k % restart == 0)
			mutate_number(c, r, dir + at, 4);
		else
			dir[at] ^= (uint8_t)(1u << fuzz_below(r, 8));
		break;
	case 1:
		dir[at] = (uint8_t)fuzz_next(r);
		break;
	case 2: /* the type */
		dir[head] = (uint8_t)fuzz_below(r, 17);
		break;
	case 3: /* the name's length */
		dir[head + 1] = (uint8_t)new_number(c, r, dir[head + 1], 1);
		break;
	case 4: /* the name */
		if (dir[head + 1] == strlen(name) || fuzz_chance(r, 20)) {
			dir[head + 1] = (uint8_t)strlen(name);
			memcpy(dir + head + 2, name, MIN(strlen(name), len - head - 2));
		} else if (dir[head + 1]) {
			dir[head + 2 + fuzz_below(r, dir[head + 1])] = (uint8_t)fuzz_next(r) * (uint8_t)fuzz_below(r, 2);
		}
		break;
	case 5: /* the table of restart points */
		if (count > restart)
			mutate_number(c, r, dir + 4 * fuzz_below(r, entry[0] / 4), 4);
		break;
	case 6: /* two entries change places */
		if (n > 2) {
			size_t a = fuzz_below(r, n - 1), l0 = entry[a + 1] - entry[a], end = a + 2 < n ? entry[a + 2] : len;
			uint8_t copy[5 + 2 + PINFS_NAME_MAX];

			if (l0 > sizeof(copy))
				break;
			memcpy(copy, dir + entry[a], l0);
			memmove(dir + entry[a], dir + entry[a + 1], end - entry[a + 1]);
			memcpy(dir + end - l0, copy, l0);
		}
		break;
	default: /* an overlong varint */
		for (size_t i = 0; i < 5 && at + i < len; i++)
			dir[at + i] |= 0x80;
	}
}

/* Some directory that lies in the first chunk: [*ret_pos, *ret_pos + *ret_len), *ret_count entries. */
static bool pick_directory(struct container *c, struct fuzz_random *r, size_t limit, size_t *ret_pos, size_t *ret_len,
	uint32_t *ret_count)
{
	struct pinfs_section *s = container_section(c, PINFS_SECTION_INODES);
	size_t len, found = 0;
	_cleanup_free_ struct pinfs_inode *inodes = s ? (void *)container_load(c, s, 0, &len) : NULL;

	for (size_t i = 0; inodes && i < len / sizeof(*inodes); i++) {
		uint64_t pos = pinfs_get64(inodes[i].pos), size = pinfs_get64(inodes[i].size);

		if (inodes[i].layout != PINFS_LAYOUT_DIR || pos >= limit || size > limit - pos || size < 4 ||
			fuzz_below(r, ++found))
			continue;
		*ret_pos = (size_t)pos;
		*ret_len = (size_t)size;
		*ret_count = pinfs_get32(inodes[i].arg0);
	}
	return found;
}

static void mutate_dirs(struct container *c, struct fuzz_random *r, uint8_t *raw, size_t len)
{
	size_t pos = 0, dir_len = 0;
	uint32_t count = 0;

	if (pinfs_get32(c->super->dir_restart) && pick_directory(c, r, len, &pos, &dir_len, &count))
		mutate_entry(c, r, raw + pos, dir_len, count);
}

static void mutate_bytes(struct container *c, struct fuzz_random *r, uint8_t *raw, size_t len)
{
	size_t at = fuzz_below(r, len), n = 1 + fuzz_below(r, MIN(len - at, (size_t)16));

	switch (fuzz_below(r, 5)) {
	case 0:
		raw[at] ^= (uint8_t)(1u << fuzz_below(r, 8));
		break;
	case 1:
		memset(raw + at, (int)(fuzz_chance(r, 50) ? 0 : fuzz_next(r)), n);
		break;
	case 2:
		memmove(raw + at, raw + fuzz_below(r, len - n + 1), n);
		break;
	case 3:
		at &= ~(size_t)3;
		if (len - at >= 4)
			mutate_number(c, r, raw + at, 4);
		break;
	default:
		LLVMFuzzerMutate(raw + at, n, n);
	}
}

/* Byte sections may end earlier or later; arrays keep whole records, and the counts that must agree with them. */
static size_t resize(struct container *c, struct fuzz_random *r, const struct pinfs_section *s, uint8_t *raw, size_t len,
	size_t capacity)
{
	size_t record = MAX(pinfs_get32(s->record_size), 1u), n;

	if (record > len)
		return len;
	capacity -= capacity % record;
	n = fuzz_chance(r, 50) ? len + record * fuzz_below(r, 16) : len - MIN(len, record * fuzz_below(r, 16));
	n = MAX(MIN(n, capacity), record);
	if (n > len)
		for (size_t i = len; i < n; i++)
			raw[i] = raw[i - record];
	if (pinfs_get32(s->type) == PINFS_SECTION_INODES)
		c->super->inode_count = pinfs_put64(pinfs_get64(c->super->inode_count) + n / record - len / record);
	if (pinfs_get32(s->type) == PINFS_SECTION_BLOCKS)
		c->super->block_count = pinfs_put64(pinfs_get64(c->super->block_count) + n / record - len / record);
	return n;
}

static void mutate_chunk(struct container *c, struct fuzz_random *r)
{
	static const unsigned types[] = {
		PINFS_SECTION_INODES, PINFS_SECTION_INODES, PINFS_SECTION_INODES, PINFS_SECTION_DIRS,
		PINFS_SECTION_DIRS, PINFS_SECTION_BLOCKS, PINFS_SECTION_EXTENTS, PINFS_SECTION_EXTENTS,
		PINFS_SECTION_SYMLINKS, PINFS_SECTION_XATTRS, PINFS_SECTION_XATTRS,
	};
	unsigned type = types[fuzz_below(r, ARRAY_SIZE(types))];
	struct pinfs_section *s = container_section(c, type);
	uint64_t chunks = s ? container_chunk_count(s) : 0, chunk = fuzz_below(r, chunks);
	_cleanup_free_ uint8_t *raw = NULL;
	size_t len, capacity;

	if (!chunks || !(raw = container_load(c, s, chunk, &len)))
		return;
	capacity = MAX(len, pinfs_get32(s->chunk_size));
	if (capacity > PINFS_CHUNK_SIZE_MAX)
		return;
	if (capacity > len) {
		uint8_t *larger = realloc(raw, capacity);

		FUZZ_CHECK(larger);
		raw = larger;
	}
	for (uint64_t n = 1 + fuzz_below(r, 3); n--;) {
		if (fuzz_chance(r, 15))
			mutate_bytes(c, r, raw, len);
		else if (type == PINFS_SECTION_INODES && fuzz_chance(r, 30))
			mutate_inode_kind(c, r, raw, len);
		else if (type == PINFS_SECTION_INODES)
			mutate_record(c, r, raw, len, sizeof(struct pinfs_inode), inode_fields,
				ARRAY_SIZE(inode_fields));
		else if (type == PINFS_SECTION_BLOCKS)
			mutate_record(c, r, raw, len, sizeof(struct pinfs_block), block_fields,
				ARRAY_SIZE(block_fields));
		else if (type == PINFS_SECTION_EXTENTS)
			mutate_record(c, r, raw, len, sizeof(struct pinfs_extent), extent_fields,
				ARRAY_SIZE(extent_fields));
		else if (type == PINFS_SECTION_DIRS)
			mutate_dirs(c, r, raw, len);
		else
			mutate_bytes(c, r, raw, len);
	}
	if (chunk == chunks - 1 && fuzz_chance(r, 10))
		len = resize(c, r, s, raw, len, capacity);
	container_store(c, s, chunk, raw, len);
}

static void mutate_index(struct container *c, struct fuzz_random *r)
{
	struct pinfs_section *s = container_section(c, 1 + (unsigned)fuzz_below(r, PINFS_SECTION_TYPES - 1));
	struct pinfs_block *b = s ? container_descriptor(c, s, fuzz_below(r, container_chunk_count(s))) : NULL;

	if (b)
		mutate_field(c, r, (uint8_t *)b, block_fields, ARRAY_SIZE(block_fields));
}

/* The stored bytes of some block: mostly LZ4. */
static void mutate_data(struct container *c, struct fuzz_random *r)
{
	uint64_t from = pinfs_get64(c->super->data_offset), to = pinfs_get64(c->super->data_end);
	size_t n;

	if (from >= c->size || to > c->size || from >= to)
		return;
	n = 1 + fuzz_below(r, MIN(to - from, (uint64_t)8));
	LLVMFuzzerMutate(c->data + from + fuzz_below(r, to - from - n + 1), n, n);
}

static size_t mutate_once(struct container *c, struct fuzz_random *r)
{
	uint64_t what = fuzz_below(r, 100);

	if (what < 60)
		mutate_chunk(c, r);
	else if (what < 70)
		mutate_index(c, r);
	else if (what < 80)
		mutate_data(c, r);
	else if (what < 87)
		mutate_field(c, r, (uint8_t *)c->super, super_fields, ARRAY_SIZE(super_fields));
	else if (what < 95)
		mutate_field(c, r, (uint8_t *)&c->super->sections[fuzz_below(r, PINFS_SECTION_TYPES)], section_fields,
			ARRAY_SIZE(section_fields));
	else
		c->size = LLVMFuzzerMutate(c->data, c->size, c->capacity);
	return c->size;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned int seed)
{
	struct fuzz_random r = {seed};
	struct container c;

	for (uint64_t n = 1 + fuzz_below(&r, 4); n--;) {
		if (!container_open(&c, data, size, max_size))
			return LLVMFuzzerMutate(data, size, max_size);
		size = mutate_once(&c, &r);
	}
	if (fuzz_chance(&r, 50) && container_open(&c, data, size, max_size))
		container_seal(&c);
	return size;
}

/* One image, with a chunk of the other one. */
size_t LLVMFuzzerCustomCrossOver(const uint8_t *data1, size_t size1, const uint8_t *data2, size_t size2, uint8_t *out,
	size_t max_size, unsigned int seed)
{
	_cleanup_free_ uint8_t *other = malloc(size2 + 1), *raw = NULL;
	unsigned type = 1 + seed % (PINFS_SECTION_TYPES - 1);
	struct pinfs_section *to, *from;
	struct container c1, c2;
	size_t len;

	FUZZ_CHECK(other);
	if (size1 > max_size)
		return 0;
	memcpy(out, data1, size1);
	memcpy(other, data2, size2);
	if (container_open(&c1, out, size1, max_size) && container_open(&c2, other, size2, size2) &&
		(to = container_section(&c1, type)) && (from = container_section(&c2, type)) &&
		(raw = container_load(&c2, from, 0, &len))) {
		if (len > pinfs_get32(to->chunk_size))
			len = pinfs_get32(to->chunk_size);
		container_store(&c1, to, 0, raw, len);
		if (container_chunk_count(to) == 1 && type == PINFS_SECTION_INODES)
			c1.super->inode_count = pinfs_put64(len / sizeof(struct pinfs_inode));
		if (container_chunk_count(to) == 1 && type == PINFS_SECTION_BLOCKS)
			c1.super->block_count = pinfs_put64(len / sizeof(struct pinfs_block));
		return c1.size;
	}
	return size1;
}
