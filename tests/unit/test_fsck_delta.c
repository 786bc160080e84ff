/* SPDX-License-Identifier: MIT */
/*
 * fsck of a delta: a sound one is sound; a changed byte is found or doesn't matter, and never becomes wrong data in a mount; items that
 * contradict each other, with right checksums, are found by name; what was repaired is sound.
 *
 * Everything lies in memory. A failing byte is named by FSCK_BYTE=N, which checks that one alone.
 */
#include "support.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/stat.h>

#include "base/log.h"
#include "base/sync.h"
#include "mkfs/fsck.h"
#include "vfs/vfs.h"

#define LIMIT (24u << 20)

static char *image_path;
static const struct vfs_cred cred = {0, 0, 022};

/* ---- a delta in memory ---- */

struct memory {
	uint8_t *bytes;
	size_t len;
};

static ssize_t memory_pread(void *context, void *buf, size_t len, uint64_t offset)
{
	struct memory *m = context;

	if (offset >= m->len)
		return 0;
	len = MIN(len, m->len - (size_t)offset);
	memcpy(buf, m->bytes + offset, len);
	return (ssize_t)len;
}

static ssize_t memory_pwrite(void *context, const void *buf, size_t len, uint64_t offset)
{
	struct memory *m = context;

	if (offset + len > 2 * LIMIT)
		return -ENOSPC;
	if (offset + len > m->len) {
		m->bytes = realloc(m->bytes, offset + len);
		must(m->bytes);
		memset(m->bytes + m->len, 0, offset + len - m->len);
		m->len = offset + len;
	}
	memcpy(m->bytes + offset, buf, len);
	return (ssize_t)len;
}

static int memory_flush(void *context)
{
	return 0;
}

static int memory_punch(void *context, uint64_t offset, uint64_t len)
{
	struct memory *m = context;

	if (offset < m->len)
		memset(m->bytes + offset, 0, MIN(len, m->len - offset));
	return 0;
}

static int memory_allocate(void *context, uint64_t offset, uint64_t len)
{
	return offset + len > 2 * LIMIT ? -ENOSPC : 0;
}

static int memory_available(void *context, uint64_t *ret)
{
	*ret = LIMIT;
	return 0;
}

static int memory_hole(void *context, uint64_t offset, uint64_t *ret)
{
	*ret = offset;
	return 0;
}

static void memory_close(void *context)
{
}

/* For several threads. With `at_super`, *at_super becomes a copy when the second superblock of a checkpoint has been written. */
struct busy {
	struct memory m;
	struct mutex lock;
	struct memory *at_super;
};

static ssize_t busy_pread(void *context, void *buf, size_t len, uint64_t offset)
{
	struct busy *b = context;
	ssize_t n;

	mutex_lock(&b->lock);
	n = memory_pread(&b->m, buf, len, offset);
	mutex_unlock(&b->lock);
	return n;
}

static ssize_t busy_pwrite(void *context, const void *buf, size_t len, uint64_t offset)
{
	struct busy *b = context;
	ssize_t n;

	mutex_lock(&b->lock);
	n = memory_pwrite(&b->m, buf, len, offset);
	if (b->at_super && (offset == 4096 || offset == 3 * 4096)) {
		free(b->at_super->bytes);
		b->at_super->bytes = malloc(b->m.len);
		must(b->at_super->bytes);
		memcpy(b->at_super->bytes, b->m.bytes, b->m.len);
		b->at_super->len = b->m.len;
	}
	mutex_unlock(&b->lock);
	return n;
}

static const struct store_ops memory_ops = {
	.pread = memory_pread,
	.pwrite = memory_pwrite,
	.flush = memory_flush,
	.punch = memory_punch,
	.allocate = memory_allocate,
	.available = memory_available,
	.hole = memory_hole,
	.close = memory_close,
};

static const struct store_ops busy_ops = {
	.pread = busy_pread,
	.pwrite = busy_pwrite,
	.flush = memory_flush,
	.punch = memory_punch,
	.allocate = memory_allocate,
	.available = memory_available,
	.hole = memory_hole,
	.close = memory_close,
};

static struct memory copy_of(const struct memory *m)
{
	struct memory c = {malloc(m->len + 1), m->len};

	assert_non_null(c.bytes);
	memcpy(c.bytes, m->bytes, m->len);
	return c;
}

static int open_memory(void *context, bool write, struct store **ret)
{
	struct memory *m = context;

	return store_open_ops(&memory_ops, m, m->len, ret);
}

/* ---- an image, a vfs over both ---- */

static int setup(void **state)
{
	_cleanup_free_ char *tree = temp_path("tree"), *d = temp_path("tree/d"), *deep = temp_path("tree/d/deep"), *in = temp_path("tree/d/in");
	_cleanup_free_ char *file = temp_path("tree/file"), *other = temp_path("tree/other"), *hard = temp_path("tree/hard"), *ln = temp_path("tree/ln");
	_cleanup_free_ char *gone = temp_path("tree/gone"), *gone_in = temp_path("tree/gone/in");
	_cleanup_free_ uint8_t *buf = malloc(100000);
	struct rng rng = {7};

	log_init("test_fsck_delta", LOG_LEVEL_ERROR);
	rng_text(&rng, buf, 100000);
	assert_int_equal(mkdir(tree, 0755), 0);
	assert_int_equal(mkdir(d, 0755), 0);
	assert_int_equal(mkdir(deep, 0755), 0);
	assert_int_equal(mkdir(gone, 0755), 0);
	write_file(file, buf, 100000);
	write_file(other, buf, 30000);
	write_file(in, "inside", 6);
	write_file(gone_in, "inside", 6);
	assert_int_equal(link(other, hard), 0);
	assert_int_equal(symlink("file", ln), 0);
	image_path = temp_path("image");
	return mkfs("-b4K", tree, image_path, NULL);
}

static int teardown(void **state)
{
	free(image_path);
	return support_end(state);
}

/* NULL: it does not open. */
static struct vfs *open_vfs_ops(const struct store_ops *ops, void *context, size_t len)
{
	struct vfs_delta_options d = {.size_limit = LIMIT, .atime = VFS_NOATIME};
	struct vfs_options o = {.name = "test", .offset = IMAGE_OFFSET_AUTO, .cache_limit = 8u << 20, .delta = &d};
	char error[IMAGE_ERROR_SIZE] = "";
	struct io_file *io;
	struct vfs *v;

	assert_int_equal(io_open(image_path, NULL, &io), 0);
	assert_int_equal(store_open_ops(ops, context, len, &d.store), 0);
	return vfs_new(io, &o, &v, error) < 0 ? NULL : v;
}

static struct vfs *open_vfs(struct memory *m)
{
	return open_vfs_ops(&memory_ops, m, m->len);
}

static uint64_t find(struct vfs *v, uint64_t dir, const char *name)
{
	struct stat st;

	assert_int_equal(vfs_lookup(v, dir, name, &st), 0);
	vfs_forget(v, st.st_ino, 1);
	return st.st_ino;
}

static uint64_t make(struct vfs *v, uint64_t dir, const char *name, mode_t mode)
{
	struct stat st;

	if (S_ISDIR(mode))
		assert_int_equal(vfs_mkdir(v, dir, name, mode, &cred, &st), 0);
	else
		assert_int_equal(vfs_mknod(v, dir, name, mode, 0, &cred, &st), 0);
	vfs_forget(v, st.st_ino, 1);
	return st.st_ino;
}

static void put(struct vfs *v, uint64_t ino, uint64_t offset, size_t len, bool text)
{
	_cleanup_free_ uint8_t *buf = malloc(len);
	struct rng rng = {ino * 131 + offset};

	if (text)
		rng_text(&rng, buf, len);
	else
		rng_bytes(&rng, buf, len);
	assert_int_equal(vfs_write(v, ino, offset, buf, len, 0), (ssize_t)len);
}

/* Some of everything that a delta can hold. */
static void change(struct vfs *v)
{
	uint64_t root = VFS_ROOT_INO, d = find(v, root, "d"), sub = make(v, root, "sub", S_IFDIR | 0755), f, g;
	struct vfs_setattr size = {.valid = VFS_SET_SIZE, .size = 50001};
	_cleanup_free_ char *value = calloc(1, 20000);
	struct stat st;
	char name[64];

	put(v, find(v, root, "file"), 8192, 9000, true);
	f = make(v, sub, "random", S_IFREG | 0644);
	put(v, f, 0, 60000, false);
	g = make(v, sub, "text", S_IFREG | 0600);
	put(v, g, 0, 200000, true);
	put(v, make(v, sub, "tiny", S_IFREG | 0600), 0, 20, true);
	assert_int_equal(vfs_sync(v), 0);
	assert_int_equal(vfs_copy_range(v, f, 0, make(v, sub, "shared", S_IFREG | 0644), 0, 40960), 40960);
	assert_int_equal(vfs_copy_range(v, find(v, root, "file"), 65536, make(v, sub, "of image", S_IFREG | 0644), 0, 16384), 16384);
	put(v, g, 70000, 5000, true);
	assert_int_equal(vfs_fallocate(v, g, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 16384, 8192), 0);
	assert_int_equal(vfs_fallocate(v, make(v, sub, "kept", S_IFREG | 0644), 0, 0, 65536), 0);
	assert_int_equal(vfs_setattr(v, find(v, root, "file"), &size, &st), 0);
	assert_int_equal(vfs_symlink(v, sub, "link", "to/somewhere", &cred, &st), 0);
	vfs_forget(v, st.st_ino, 1);
	memset(value, 'v', 20000);
	assert_int_equal(vfs_setxattr(v, f, "user.long", value, 20000, 0, false), 0);
	assert_int_equal(vfs_setxattr(v, find(v, root, "other"), "user.short", value, 10, 0, false), 0);
	assert_int_equal(vfs_unlink(v, root, "hard"), 0);
	assert_int_equal(vfs_unlink(v, find(v, root, "gone"), "in"), 0);
	assert_int_equal(vfs_rmdir(v, root, "gone"), 0);
	assert_int_equal(vfs_rename(v, d, "deep", sub, "deep", 0, &cred), 0);
	assert_int_equal(vfs_link(v, f, d, "random too", &st), 0);
	vfs_forget(v, st.st_ino, 1);
	for (unsigned i = 0; i < 150; i++) {
		snprintf(name, sizeof(name), "a name that is long enough to fill nodes, number %u", i);
		make(v, i % 2 ? sub : d, name, S_IFREG | 0644);
	}
	assert_int_equal(vfs_sync(v), 0);
}

/* `frames`: with some in the log that no checkpoint has. */
static struct memory make_delta(bool frames)
{
	struct memory m = {0}, c;
	struct vfs *v = open_vfs(&m);

	assert_non_null(v);
	change(v);
	assert_int_equal(delta_checkpoint(vfs_delta(v)), 0);
	if (frames) {
		uint64_t sub = find(v, VFS_ROOT_INO, "sub");

		put(v, make(v, sub, "late", S_IFREG | 0644), 0, 30000, true);
		assert_int_equal(vfs_sync(v), 0);
		assert_int_equal(vfs_unlink(v, sub, "text"), 0);
		make(v, sub, "latest", S_IFREG | 0644);
		assert_int_equal(vfs_sync(v), 0);
		make(v, sub, "last", S_IFREG | 0644);
	}
	/* As if the process had died here. */
	c = copy_of(&m);
	vfs_free(v);
	free(m.bytes);
	return c;
}

/* ---- all that a mount shows ---- */

struct dump {
	char *text;
	size_t len;
};

static uint64_t content_hash(struct vfs *v, uint64_t ino, uint64_t size, bool *ret_error)
{
	_cleanup_free_ struct vfs_read *r = malloc(sizeof(*r));
	uint64_t sum = size;

	for (uint64_t at = 0; at < size; at += 65536) {
		if (vfs_read_begin(v, ino, at, 65536, r) < 0) {
			*ret_error = true;
			continue;
		}
		for (unsigned i = 0; i < r->count; i++)
			for (size_t b = 0; b < r->iov[i].iov_len; b++)
				sum = sum * 31 + ((const uint8_t *)r->iov[i].iov_base)[b];
		vfs_read_end(v, r, false);
	}
	return sum;
}

static void dump_dir(struct vfs *v, FILE *out, uint64_t ino, const char *path, unsigned depth)
{
	struct vfs_dir dir;
	struct vfs_dirent e;
	int r;

	if (depth > 20 || vfs_dir_begin(v, ino, 0, &dir) < 0)
		return;
	for (unsigned n = 0; n < 10000 && (r = vfs_dir_next(&dir, &e)) > 0; n++) {
		char below[1024], target[PINFS_SYMLINK_MAX + 1] = "", value[32768];
		bool error = false;
		struct stat st;

		if (!strcmp(e.name, ".") || !strcmp(e.name, ".."))
			continue;
		snprintf(below, sizeof(below), "%s/%s", path, e.name);
		if (vfs_lookup(v, ino, e.name, &st) < 0)
			continue;
		vfs_forget(v, st.st_ino, 1);
		if (S_ISLNK(st.st_mode) && vfs_readlink(v, st.st_ino, target) < 0)
			continue;
		if (S_ISREG(st.st_mode)) {
			uint64_t hash = content_hash(v, st.st_ino, (uint64_t)st.st_size, &error);
			ssize_t x = vfs_getxattr(v, st.st_ino, "user.long", value, sizeof(value));

			if (!error && x >= 0 - ENODATA)
				fprintf(out, "%s %o %ju %jx\n", below, st.st_mode, (uintmax_t)st.st_size, (uintmax_t)hash);
		} else {
			fprintf(out, "%s %o %s\n", below, st.st_mode, target);
		}
		if (S_ISDIR(st.st_mode))
			dump_dir(v, out, st.st_ino, below, depth + 1);
	}
	vfs_dir_end(&dir);
}

/* What can be read without an error, a line each. */
static struct dump dump_of(struct vfs *v)
{
	struct dump d = {0};
	FILE *out = open_memstream(&d.text, &d.len);

	dump_dir(v, out, VFS_ROOT_INO, "", 0);
	fclose(out);
	return d;
}

static bool has_line(const struct dump *d, const char *line, size_t len)
{
	for (const char *at = d->text; at && *at; at = strchr(at, '\n') + 1)
		if (!strncmp(at, line, len))
			return true;
	return false;
}

/* All of a dump is as in one of others; lines may be missing. */
static bool all_known(const struct dump *d, const struct dump *states, unsigned count)
{
	for (const char *at = d->text; at && *at; at = strchr(at, '\n') + 1) {
		size_t len = (size_t)(strchr(at, '\n') - at) + 1;

		bool known = false;

		for (unsigned i = 0; i < count && !known; i++)
			known = has_line(&states[i], at, len);
		if (!known) {
			print_error("neither before nor after: %.*s", (int)len, at);
			return false;
		}
	}
	return true;
}

/* ---- checking ---- */

struct checked {
	struct fsck_delta_report report;
	int result;
};

static bool has_text(const struct fsck_delta_report *r, const char *text)
{
	for (size_t i = 0; i < r->problem_count; i++)
		if (strstr(r->problems[i].text, text))
			return true;
	return strstr(r->error, text);
}

static void print_problems(const struct fsck_delta_report *r)
{
	for (size_t i = 0; i < r->problem_count; i++)
		print_error("byte %ju: %s\n", (uintmax_t)r->problems[i].offset, r->problems[i].text);
	print_error("%s\n", r->error);
}

static struct image *open_image(void)
{
	struct image_options o = {.offset = IMAGE_OFFSET_AUTO, .on_damage = fsck_on_damage};
	char error[IMAGE_ERROR_SIZE];
	struct io_file *io;
	struct image *image;

	assert_int_equal(io_open(image_path, NULL, &io), 0);
	assert_int_equal(image_open(io, &o, &image, error), 0);
	return image;
}

static void on_note(void *context, const char *text)
{
	if (getenv("FSCK_NOTES"))
		print_message("note: %s\n", text);
}

static struct checked check(struct memory *m, bool repair, bool give_up)
{
	struct fsck_delta_options o = {.repair = repair, .give_up = give_up, .open = open_memory, .open_context = m, .on_note = on_note};
	struct image *image = open_image();
	struct checked c;

	c.result = fsck_delta_run(image, &o, &c.report);
	image_close(image);
	return c;
}

static void assert_clean(struct memory *m)
{
	struct checked c = check(m, false, false);

	if (c.result || c.report.errors)
		print_problems(&c.report);
	assert_int_equal(c.result, 0);
	assert_int_equal(c.report.errors, 0);
	fsck_delta_report_free(&c.report);
}

static void sound_deltas_are_sound(void **state)
{
	struct memory m = {0}, before, after;
	struct vfs *v = open_vfs(&m);

	assert_clean(&m);
	change(v);
	before = copy_of(&m);
	assert_clean(&before);
	assert_int_equal(delta_checkpoint(vfs_delta(v)), 0);
	vfs_free(v);
	assert_clean(&m);
	free(before.bytes);
	free(m.bytes);
	after = make_delta(true);
	assert_clean(&after);
	/* Applied by a mount, it is so, too. */
	v = open_vfs(&after);
	assert_non_null(v);
	vfs_free(v);
	assert_clean(&after);
	free(after.bytes);
}

static void nothing_is_written_without_being_asked_for(void **state)
{
	struct memory m = make_delta(true), was = copy_of(&m);
	struct checked c;

	m.bytes[0] ^= 1;
	was.bytes[0] ^= 1;
	c = check(&m, false, false);
	fsck_delta_report_free(&c.report);
	assert_int_equal(m.len, was.len);
	assert_memory_equal(m.bytes, was.bytes, m.len);
	free(m.bytes);
	free(was.bytes);
}

/* ---- a changed byte ---- */

struct flips {
	struct memory good;
	struct dump states[64]; /* the image alone; everything; and up to each frame of the log */
	unsigned count;
	uint64_t noticed, harmless, beyond_repair;
};

static void flip_one(struct flips *f, uint64_t at)
{
	struct memory m = copy_of(&f->good), again;
	struct checked c;
	struct dump d;
	struct vfs *v;

	m.bytes[at] ^= (uint8_t)(1u << at % 8);
	again = copy_of(&m);
	c = check(&m, false, false);
	f->noticed += c.result || c.report.errors;
	f->harmless += !c.result && !c.report.errors;
	v = open_vfs(&again);
	/* What fsck has nothing to say about opens, and nothing is missing that was on the disk. */
	if (!c.result && !c.report.errors)
		assert_non_null(v);
	if (v) {
		d = dump_of(v);
		assert_true(all_known(&d, f->states, f->count));
		/* One of those states, and nothing else. */
		for (unsigned i = 1; !c.result && !c.report.errors; i++) {
			assert_true(i < f->count);
			if (!strcmp(d.text, f->states[i].text))
				break;
		}
		free(d.text);
		vfs_free(v);
	}
	fsck_delta_report_free(&c.report);
	c = check(&m, true, true);
	f->beyond_repair += c.result < 0;
	if (c.result == 0) {
		if (c.report.left)
			print_problems(&c.report);
		assert_int_equal(c.report.left, 0);
		assert_clean(&m);
		v = open_vfs(&m);
		assert_non_null(v);
		vfs_free(v);
		assert_clean(&m);
	}
	fsck_delta_report_free(&c.report);
	free(m.bytes);
	free(again.bytes);
}

static struct dump dump_memory(struct memory m)
{
	struct vfs *v = open_vfs(&m);
	struct dump d;

	assert_non_null(v);
	d = dump_of(v);
	vfs_free(v);
	free(m.bytes);
	return d;
}

/* Byte of the delta from which on frames count. */
static uint64_t log_start(const struct memory *m)
{
	const struct pinfs_delta_super *a = (const void *)m->bytes, *b = (const void *)(m->bytes + 2 * 4096);

	return 4 * 4096 + pinfs_get64((pinfs_get64(a->generation) > pinfs_get64(b->generation) ? a : b)->log_start);
}

/* PINFS_FLIPS: more of them. */
static unsigned flips(void)
{
	const char *n = getenv("PINFS_FLIPS");

	return n ? (unsigned)atoi(n) : 120;
}

static void flip_some(bool frames, unsigned count, uint64_t seed)
{
	struct flips f = {.good = make_delta(frames)};
	struct memory none = {0};
	const char *only = getenv("FSCK_BYTE");
	struct rng rng = {seed};

	f.states[f.count++] = dump_memory(none);
	f.states[f.count++] = dump_memory(copy_of(&f.good));
	/* Without a frame, what is left is what was before it. */
	for (uint64_t at = log_start(&f.good); frames && at + 8 <= 4 * 4096 + LIMIT / 8 && f.count < ARRAY_SIZE(f.states); at += 8)
		if (!memcmp(f.good.bytes + at, "PFRM", 4)) {
			struct memory m = copy_of(&f.good);

			m.bytes[at] = 0;
			f.states[f.count++] = dump_memory(m);
		}
	for (unsigned i = 0; i < count; i++) {
		uint64_t at;

		/* Bytes that are something. */
		do {
			at = i % 4 == 0 ? rng_below(&rng, 4 * 4096) : rng_below(&rng, f.good.len);
		} while (!f.good.bytes[at] && rng_below(&rng, 50));
		if (only)
			at = strtoull(only, NULL, 0);
		if (getenv("FSCK_TRACE"))
			print_message("FSCK_BYTE=%ju\n", (uintmax_t)at);
		flip_one(&f, at);
		if (only)
			break;
	}
	print_message("%u bytes: %ju noticed, %ju did no harm, %ju beyond repair\n", count, (uintmax_t)f.noticed, (uintmax_t)f.harmless,
		(uintmax_t)f.beyond_repair);
	assert_int_equal(f.beyond_repair, 0);
	assert_true(only || f.noticed > count / 4);
	while (f.count)
		free(f.states[--f.count].text);
	free(f.good.bytes);
}

static void every_byte_of_a_checkpoint_counts(void **state)
{
	flip_some(false, flips(), 1);
}

static void every_byte_of_a_log_counts(void **state)
{
	flip_some(true, flips(), 2);
}

/* ---- items that contradict each other ---- */

/* The vfs and its delta, while they are changed. */
struct hostile {
	struct delta *delta;
	uint64_t sub, random, text, shared, d, link;
};

static struct delta_inode inode_of(struct hostile *h, uint64_t ino)
{
	struct delta_inode i;

	assert_int_equal(delta_inode_get(h->delta, ino, &i), 0);
	return i;
}

#define CHANGE_INODE(name, which, change)                       \
	static void name(struct hostile *h)                     \
	{                                                       \
		struct delta_inode i = inode_of(h, h->which);   \
                                                                \
		change;                                         \
		assert_int_equal(delta_inode_put(h->delta, &i), 0); \
	}

CHANGE_INODE(links, text, i.nlink = 7)
CHANGE_INODE(no_links, text, i.nlink = 0)
CHANGE_INODE(entries, sub, i.entries += 3)
CHANGE_INODE(sub_links, sub, i.nlink++)
CHANGE_INODE(parent, sub, i.parent = h->d)
CHANGE_INODE(own_parent, sub, i.parent = h->sub)
CHANGE_INODE(pages, text, i.pages++)
CHANGE_INODE(image_end, text, i.image_end = 4096)
CHANGE_INODE(image_pages, text, i.image_pages = 5)
CHANGE_INODE(mode_none, text, i.mode = 0644)
CHANGE_INODE(mode_other, text, i.mode = S_IFDIR | 0755; i.parent = 1)
CHANGE_INODE(gone_new, text, i.gone = true)
CHANGE_INODE(xattrs_flag, random, i.own_xattrs = false)
CHANGE_INODE(size_short, random, i.size = 100)
CHANGE_INODE(link_size, link, i.size = 4)
CHANGE_INODE(nsec, text, i.mtime.tv_nsec = 2000000000)

#define DELETE_ITEM(name, ino, type, offset)                                                                   \
	static void name(struct hostile *h)                                                                    \
	{                                                                                                      \
		assert_int_equal(delta_item_delete(h->delta, (uint64_t)(ino) << 8 | (type), offset), 0);       \
	}
#define PUT_ITEM(name, ino, type, offset, value, len)                                                          \
	static void name(struct hostile *h)                                                                    \
	{                                                                                                      \
		assert_int_equal(delta_item_put(h->delta, (uint64_t)(ino) << 8 | (type), offset, value, len), 0); \
	}

DELETE_ITEM(lose_inode, h->random, PINFS_DELTA_INODE, 0)
DELETE_ITEM(lose_directory, h->sub, PINFS_DELTA_INODE, 0)
DELETE_ITEM(lose_image_directory, h->d, PINFS_DELTA_INODE, 0)
DELETE_ITEM(lose_target, h->link, PINFS_DELTA_SYMLINK, 0)
PUT_ITEM(unknown_type, h->text, 9, 3, "x", 1)
PUT_ITEM(unknown_global, 0, 7, 3, "x", 1)
PUT_ITEM(short_inode, h->text, PINFS_DELTA_INODE, 0, "x", 1)
PUT_ITEM(short_extent, h->text, PINFS_DELTA_EXTENT, 0, "x", 1)
PUT_ITEM(short_dirent, h->sub, PINFS_DELTA_DIRENT, 0x300, "x", 1)
PUT_ITEM(lone_piece, h->text, PINFS_DELTA_XVALUE + 2, 0x300, "x", 1)
PUT_ITEM(second_inode, h->text, PINFS_DELTA_INODE, 1, "x", 1)
PUT_ITEM(orphan_of_none, 0, PINFS_DELTA_ORPHAN, 99999, NULL, 0)
PUT_ITEM(target_of_file, h->text, PINFS_DELTA_SYMLINK, 0, "target", 6)

static void dirent_raw(struct hostile *h, uint64_t dir, const char *name, uint64_t ino, uint8_t type, uint64_t slot)
{
	struct {
		struct pinfs_delta_dirent head;
		char name[256];
	} __attribute__((packed)) item = {.head = {.ino = pinfs_put64(ino), .type = type, .name_len = (uint8_t)strlen(name)}};
	size_t len = strlen(name);

	memcpy(item.name, name, len);
	slot += delta_name_hash(h->delta, name, len);
	assert_int_equal(delta_item_put(h->delta, dir << 8 | PINFS_DELTA_DIRENT, slot, &item, sizeof(item.head) + len), 0);
}

static void name_of_nothing(struct hostile *h)
{
	dirent_raw(h, h->sub, "nothing", 88888, DT_REG, 0);
}

static void name_of_wrong_type(struct hostile *h)
{
	dirent_raw(h, h->sub, "text", h->text, DT_FIFO, 0);
}

static void name_twice(struct hostile *h)
{
	dirent_raw(h, h->sub, "text", h->text, DT_REG, 1);
}

static void name_elsewhere(struct hostile *h)
{
	dirent_raw(h, h->sub, "elsewhere", h->text, DT_REG, 0x1000);
}

static void name_of_file(struct hostile *h)
{
	dirent_raw(h, h->text, "below a file", h->random, DT_REG, 0);
}

static void hides_nothing(struct hostile *h)
{
	dirent_raw(h, h->sub, "never was", 0, 0, 0);
}

static void second_name_of_directory(struct hostile *h)
{
	dirent_raw(h, h->d, "sub again", h->sub, DT_DIR, 0);
}

static void dot(struct hostile *h)
{
	dirent_raw(h, h->sub, "..", 1, DT_DIR, 0);
}

static void lose_name(struct hostile *h)
{
	assert_int_equal(delta_dirent_delete(h->delta, h->sub, "text", 4), 0);
}

static void lose_directory_name(struct hostile *h)
{
	assert_int_equal(delta_dirent_delete(h->delta, 1, "sub", 3), 0);
}

static void unhide(struct hostile *h)
{
	assert_int_equal(delta_dirent_delete(h->delta, 1, "gone", 4), 0);
}

/* sub/a and sub/a/b: a's name goes into b. */
static void cycle(struct hostile *h)
{
	struct delta_inode a = {.ino = delta_ino_new(h->delta), .mode = S_IFDIR | 0755, .nlink = 3, .own_xattrs = true, .entries = 1}, b = a;

	b.ino = delta_ino_new(h->delta);
	a.parent = b.ino;
	b.parent = a.ino;
	assert_int_equal(delta_inode_put(h->delta, &a), 0);
	assert_int_equal(delta_inode_put(h->delta, &b), 0);
	dirent_raw(h, a.ino, "b", b.ino, DT_DIR, 0);
	dirent_raw(h, b.ino, "a", a.ino, DT_DIR, 0);
	assert_int_equal(delta_files_add(h->delta, 2), 0);
}

static void files(struct hostile *h)
{
	assert_int_equal(delta_files_set(h->delta, 12345), 0);
}

/* The first extent of a file with pages. */
static struct delta_item extent_of(struct hostile *h, uint64_t ino, unsigned kind)
{
	struct delta_item item;
	struct delta_extent e;
	uint64_t page = 0;
	struct pinfs_delta_extent raw;

	for (;;) {
		assert_int_equal(delta_extent_get(h->delta, ino, page, &e), 0);
		assert_true(e.pages < 1u << 30);
		/* One that was not cut. */
		if (e.kind == kind && e.pages == e.raw_pages)
			break;
		page += e.pages;
	}
	/* As an item: of those, the lock is ours already. */
	raw = (struct pinfs_delta_extent){.pages = pinfs_put32((uint32_t)e.pages), .kind = e.kind, .start = pinfs_put64(e.start), .skip = pinfs_put32(e.skip),
		.raw_pages = pinfs_put32(e.raw_pages), .stored = pinfs_put32(e.stored), .image_ino = pinfs_put32(e.image_ino), .checksum = pinfs_put64(e.checksum)};
	item = (struct delta_item){.object = ino << 8 | PINFS_DELTA_EXTENT, .offset = e.key, .len = sizeof(raw)};
	memcpy(item.value, &raw, sizeof(raw));
	return item;
}

static void put_extent(struct hostile *h, const struct delta_item *item, uint64_t page, void (*alter)(struct hostile *, struct pinfs_delta_extent *))
{
	struct pinfs_delta_extent raw;

	memcpy(&raw, item->value, sizeof(raw));
	if (alter)
		alter(h, &raw);
	assert_int_equal(delta_item_put(h->delta, item->object, page, &raw, sizeof(raw)), 0);
}

static void extents_overlap(struct hostile *h)
{
	struct delta_item item = extent_of(h, h->text, PINFS_DELTA_LZ4);

	put_extent(h, &item, item.offset + 1, NULL);
}

/* Two refer to the same pages, and nothing says so. */
static void extents_of_same_pages(struct hostile *h)
{
	struct delta_item item = extent_of(h, h->text, PINFS_DELTA_LZ4);

	put_extent(h, &item, 1000, NULL);
}

static void to_far(struct hostile *h, struct pinfs_delta_extent *e)
{
	e->start = pinfs_put64(1u << 30);
}

static void extent_far_away(struct hostile *h)
{
	struct delta_item item = extent_of(h, h->text, PINFS_DELTA_LZ4);

	put_extent(h, &item, item.offset, to_far);
}

static void to_log(struct hostile *h, struct pinfs_delta_extent *e)
{
	e->start = pinfs_put64(6);
}

static void extent_in_log(struct hostile *h)
{
	struct delta_item item = extent_of(h, h->text, PINFS_DELTA_LZ4);

	put_extent(h, &item, item.offset, to_log);
}

static void wrong_sum(struct hostile *h, struct pinfs_delta_extent *e)
{
	e->checksum = pinfs_put64(42);
}

static void content_wrong(struct hostile *h)
{
	struct delta_item item = extent_of(h, h->text, PINFS_DELTA_LZ4);

	put_extent(h, &item, item.offset, wrong_sum);
}

static void to_hole(struct hostile *h, struct pinfs_delta_extent *e)
{
	*e = (struct pinfs_delta_extent){.pages = e->pages, .kind = PINFS_DELTA_HOLE};
}

static void lose_pages(struct hostile *h)
{
	struct delta_item item = extent_of(h, h->text, PINFS_DELTA_LZ4);

	put_extent(h, &item, item.offset, to_hole);
}

static void of_no_image(struct hostile *h, struct pinfs_delta_extent *e)
{
	*e = (struct pinfs_delta_extent){.pages = e->pages, .kind = PINFS_DELTA_IMAGE, .image_ino = pinfs_put32(777)};
}

static void extent_of_no_image(struct hostile *h)
{
	struct delta_item item = extent_of(h, h->text, PINFS_DELTA_LZ4);

	put_extent(h, &item, item.offset, of_no_image);
}

static uint64_t first_shared;

static void shared_count(struct hostile *h)
{
	struct pinfs_delta_shared s = {pinfs_put32(10), pinfs_put32(9)};

	assert_int_equal(delta_item_put(h->delta, PINFS_DELTA_SHARED, first_shared, &s, sizeof(s)), 0);
}

DELETE_ITEM(shared_lost, 0, PINFS_DELTA_SHARED, first_shared)

static void shared_of_nothing(struct hostile *h)
{
	struct pinfs_delta_shared s = {pinfs_put32(10), pinfs_put32(2)};

	assert_int_equal(delta_item_put(h->delta, PINFS_DELTA_SHARED, 5000, &s, sizeof(s)), 0);
}

static void image_gone(struct hostile *h)
{
	struct delta_inode i = {.ino = h->d, .mode = S_IFDIR | 0755, .parent = 1, .gone = true};

	assert_int_equal(delta_inode_put(h->delta, &i), 0);
}

static const struct {
	const char *name;
	void (*change)(struct hostile *h);
	const char *text;
} contradictions[] = {
	{"links", links, "its link count is 7, but it has 1 names"},
	{"no links", no_links, "its link count is 0, but it has 1 names"},
	{"entries", entries, "names, but has"},
	{"links of a directory", sub_links, "but with 1 subdirectories it must be 3"},
	{"parent", parent, "is its parent, but its name is in inode 1"},
	{"own parent", own_parent, "it lies below itself"},
	{"pages", pages, "its extents have"},
	{"image end", image_end, "of the image's content, but there are none"},
	{"image pages", image_pages, "pages of the image, which has 0"},
	{"mode of no kind", mode_none, "its attributes can't be"},
	{"mode of another kind", mode_other, "it is a directory, but has content"},
	{"gone, but new", gone_new, "marked as gone, but the image has no such inode"},
	{"attributes of a new inode", xattrs_flag, "it is new, but has the image's extended attributes"},
	{"content behind the end", size_short, "there is content behind its end"},
	{"size of a link", link_size, "a symbolic link of 4 bytes, whose target has 12"},
	{"nanoseconds", nsec, "its attributes can't be"},
	{"lost inode", lose_inode, "of it, but no attributes"},
	{"lost directory", lose_directory, "the delta has names of it, but no attributes"},
	{"lost directory of the image", lose_image_directory, "the delta has names of it, but no attributes"},
	{"lost target", lose_target, "whose target has 0"},
	{"unknown type", unknown_type, "an item of unknown type 9"},
	{"unknown type of nobody", unknown_global, "an item of unknown type 7"},
	{"short inode", short_inode, "it has a wrong size"},
	{"short extent", short_extent, "the extent of page 0 can't be"},
	{"short name", short_dirent, "a name in it has a wrong size"},
	{"lone piece", lone_piece, "piece 2 of an extended attribute with 1 bytes belongs to none"},
	{"second inode", second_inode, "an item of unknown type 1"},
	{"orphan of none", orphan_of_none, "inode 99999 is noted as one without a name, but is not there"},
	{"target of a file", target_of_file, "a target that can't be"},
	{"name of nothing", name_of_nothing, "'nothing' leads to inode 88888, which is not there"},
	{"name of a wrong type", name_of_wrong_type, "'text' has type 1"},
	{"name twice", name_twice, "the name 'text' is there twice"},
	{"name elsewhere", name_elsewhere, "'elsewhere' lies at hash"},
	{"name below a file", name_of_file, "it is a file, but has names"},
	{"hides nothing", hides_nothing, "'never was' hides a name that the image doesn't have"},
	{"second name of a directory", second_name_of_directory, "is one more name of directory inode"},
	{"dot dot", dot, "it has an entry '..'"},
	{"lost name", lose_name, "no directory has a name for it"},
	{"lost name of a directory", lose_directory_name, "no directory has a name for it"},
	{"unhidden", unhide, "is marked as gone, but 1 names of the image are left"},
	{"cycle", cycle, "it lies below itself"},
	{"files", files, "it counts 12345 files"},
	{"extents overlap", extents_overlap, "overlap"},
	{"the same pages", extents_of_same_pages, "2 extents refer to them, and no count says so"},
	{"far away", extent_far_away, "outside of what the delta has for content"},
	{"in the log", extent_in_log, "outside of what the delta has for content"},
	{"wrong content", content_wrong, "are not what was written: a wrong checksum"},
	{"lost pages", lose_pages, "are used by nobody, but the map calls them used"},
	{"of no image", extent_of_no_image, "of the image's inode 777, which has none"},
	{"count of references", shared_count, "2 extents refer to them, but the count says 9"},
	{"lost count", shared_lost, "2 extents refer to them, and no count says so"},
	{"count of nothing", shared_of_nothing, "0 extents refer to them, but the count says 2"},
	{"gone, but with names", image_gone, "is marked as gone, but 1 names of the image are left"},
};

static void open_hostile(struct vfs *v, struct hostile *h)
{
	struct delta_item item;

	h->delta = vfs_delta(v);
	h->d = find(v, VFS_ROOT_INO, "d");
	h->sub = find(v, VFS_ROOT_INO, "sub");
	h->random = find(v, h->sub, "random");
	h->text = find(v, h->sub, "text");
	h->shared = find(v, h->sub, "shared");
	h->link = find(v, h->sub, "link");
	assert_int_equal(delta_item_next(h->delta, PINFS_DELTA_SHARED, 0, &item), 0);
	first_shared = item.offset;
}

static void contradiction_is_found(const struct memory *good, size_t n, bool in_log)
{
	struct memory m = copy_of(good), c2;
	struct vfs *v = open_vfs(&m);
	struct hostile h;
	struct checked c;
	struct dump d;
	bool found;

	assert_non_null(v);
	open_hostile(v, &h);
	assert_int_equal(delta_begin(h.delta, 0), 0);
	contradictions[n].change(&h);
	assert_int_equal(delta_commit(h.delta), 0);
	if (!in_log)
		assert_int_equal(delta_checkpoint(h.delta), 0);
	c2 = copy_of(&m);
	vfs_free(v);
	free(m.bytes);
	m = copy_of(&c2);
	c = check(&m, false, false);
	/* What a frame can't say at all, the log is cut before. */
	found = has_text(&c.report, contradictions[n].text) || (in_log && has_text(&c.report, "of the log contradicts what stands before it"));
	if (c.result || !found) {
		print_error("%s: '%s' is not among:\n", contradictions[n].name, contradictions[n].text);
		print_problems(&c.report);
	}
	assert_int_equal(c.result, 0);
	assert_true(found);
	fsck_delta_report_free(&c.report);
	/* A mount of it does no harm to itself. */
	v = open_vfs(&c2);
	if (v) {
		d = dump_of(v);
		free(d.text);
		vfs_free(v);
	}
	free(c2.bytes);
	c = check(&m, true, true);
	if (c.result || c.report.left) {
		print_error("%s: not repaired\n", contradictions[n].name);
		print_problems(&c.report);
	}
	fsck_delta_report_free(&c.report);
	c = check(&m, false, false);
	if (c.report.errors) {
		print_error("%s: left:\n", contradictions[n].name);
		print_problems(&c.report);
	}
	assert_int_equal(c.result, 0);
	assert_int_equal(c.report.errors, 0);
	fsck_delta_report_free(&c.report);
	v = open_vfs(&m);
	assert_non_null(v);
	d = dump_of(v);
	free(d.text);
	assert_int_equal(vfs_sync(v), 0);
	make(v, VFS_ROOT_INO, "after all", S_IFREG | 0644);
	assert_int_equal(delta_checkpoint(vfs_delta(v)), 0);
	vfs_free(v);
	assert_clean(&m);
	free(m.bytes);
}

static void contradictions_are_found_by_name(void **state)
{
	struct memory good = make_delta(false);
	const char *only = getenv("FSCK_CASE");

	for (size_t i = 0; i < ARRAY_SIZE(contradictions); i++) {
		if (only && strcmp(only, contradictions[i].name))
			continue;
		contradiction_is_found(&good, i, false);
		/* A frame whose content isn't there is where a log ends. */
		if (contradictions[i].change != content_wrong && contradictions[i].change != extent_far_away && contradictions[i].change != extent_in_log)
			contradiction_is_found(&good, i, true);
	}
	free(good.bytes);
}

/* ---- as a whole ---- */

/* ---- content in the log, while checkpoints are made ---- */

struct writing {
	struct vfs *v;
	uint64_t ino;
	struct a64 stop;
};

static void *write_and_wait(void *context)
{
	struct writing *w = context;
	uint8_t bytes[3 * 4096];

	for (unsigned i = 0; !a64_read(&w->stop); i++) {
		memset(bytes, (int)i, sizeof(bytes));
		must(vfs_write(w->v, w->ino, i % 5 * 4096, bytes, sizeof(bytes), VFS_WRITE_SYNC) == sizeof(bytes));
	}
	return NULL;
}

/* What a checkpoint refers to is never in the part of the log that it gives up. */
static void checkpoints_leave_no_content_in_the_log(void **state)
{
	struct memory at_super = {0};
	struct busy b = {.at_super = &at_super};
	struct writing w = {0};
	pthread_t thread;

	mutex_init(&b.lock, LOCK_TEST);
	w.v = open_vfs_ops(&busy_ops, &b, 0);
	assert_non_null(w.v);
	w.ino = make(w.v, VFS_ROOT_INO, "busy", S_IFREG | 0644);
	assert_int_equal(thread_start(&thread, write_and_wait, &w), 0);
	for (unsigned i = 0; i < 150; i++) {
		struct memory snapshot;

		assert_int_equal(delta_checkpoint(vfs_delta(w.v)), 0);
		mutex_lock(&b.lock);
		snapshot = copy_of(&at_super);
		mutex_unlock(&b.lock);
		assert_clean(&snapshot);
		free(snapshot.bytes);
	}
	a64_set(&w.stop, 1);
	pthread_join(thread, NULL);
	vfs_free(w.v);
	mutex_destroy(&b.lock);
	free(at_super.bytes);
	free(b.m.bytes);
}

/* Writes a page that somebody waits for: it goes into the log. */
static void write_logged(struct vfs *v, uint64_t ino, unsigned from, unsigned to)
{
	uint8_t page[4096];

	for (unsigned i = from; i < to; i++) {
		memset(page, (int)(i % 251 + 1), sizeof(page));
		assert_int_equal(vfs_write(v, ino, i % 40 * 4096ull, page, sizeof(page), VFS_WRITE_SYNC), sizeof(page));
	}
}

/* After a crash: the frames lie at the end of the circle, and at its beginning; the file may have been copied, with holes for zeroes. */
static void a_log_that_went_round_is_applied(void **state)
{
	struct memory m = {0}, crashed;
	struct vfs *v = open_vfs(&m);
	struct vfs_read *r = malloc(sizeof(*r));
	uint64_t ino = make(v, VFS_ROOT_INO, "round", S_IFREG | 0644);

	write_logged(v, ino, 0, 150);
	assert_int_equal(delta_checkpoint(vfs_delta(v)), 0);
	write_logged(v, ino, 150, 300);
	crashed = copy_of(&m);
	vfs_free(v);
	assert_clean(&crashed);
	v = open_vfs(&crashed);
	assert_non_null(v);
	for (unsigned i = 260; i < 300; i++) {
		assert_int_equal(vfs_read_begin(v, ino, i % 40 * 4096ull, 4096, r), 0);
		assert_int_equal(*(const uint8_t *)r->iov[0].iov_base, i % 251 + 1);
		vfs_read_end(v, r, false);
	}
	vfs_free(v);
	assert_clean(&crashed);
	free(crashed.bytes);
	free(m.bytes);
	free(r);
}

/* A mount that only looks applies the log in memory. */
static void a_log_is_applied_without_writing(void **state)
{
	struct vfs_delta_options d = {.read_only = true};
	struct vfs_options o = {.name = "test", .offset = IMAGE_OFFSET_AUTO, .cache_limit = 8u << 20, .delta = &d};
	struct memory m = {0}, crashed, was;
	struct vfs *v = open_vfs(&m);
	struct vfs_read *r = malloc(sizeof(*r));
	uint64_t ino = make(v, VFS_ROOT_INO, "logged", S_IFREG | 0644);
	struct store_ops read_only = memory_ops;
	char error[IMAGE_ERROR_SIZE];
	struct io_file *io;

	write_logged(v, ino, 0, 3);
	crashed = copy_of(&m);
	was = copy_of(&m);
	vfs_free(v);
	read_only.allocate = NULL;
	read_only.pwrite = NULL;
	assert_int_equal(io_open(image_path, NULL, &io), 0);
	assert_int_equal(store_open_ops(&read_only, &crashed, crashed.len, &d.store), 0);
	assert_int_equal(vfs_new(io, &o, &v, error), 0);
	assert_int_equal(vfs_read_begin(v, ino, 2 * 4096, 4096, r), 0);
	assert_int_equal(*(const uint8_t *)r->iov[0].iov_base, 3);
	vfs_read_end(v, r, false);
	vfs_free(v);
	assert_memory_equal(crashed.bytes, was.bytes, was.len);
	free(crashed.bytes);
	free(was.bytes);
	free(m.bytes);
	free(r);
}

static unsigned tree_damages;

static void on_tree_damage(void *context, uint64_t offset, const char *text)
{
	print_error("byte %ju: %s\n", (uintmax_t)offset, text);
	tree_damages++;
}

/* A leaf that lies first below its parent gets empty, and what is put in front of the next one later splits that: the parent's keys stay in order. */
static void trees_stay_in_order_where_their_beginning_went(void **state)
{
	struct delta_options o = {.image_inodes = 10, .no_thread = true, .on_damage = on_tree_damage};
	uint64_t object = 500 << 8 | PINFS_DELTA_XVALUE;
	char error[DELTA_ERROR_SIZE];
	struct delta_item item;
	struct memory m = {0};
	struct store *store;
	struct delta *d;
	uint8_t value[3000] = {1};
	unsigned found = 0;

	assert_int_equal(store_open_ops(&memory_ops, &m, 0, &store), 0);
	assert_int_equal(delta_create(store, &o, &d, error), 0);
	assert_int_equal(delta_begin(d, 0), 0);
	for (unsigned i = 0; i < 15; i++)
		assert_int_equal(delta_item_put(d, object, 1000 + i, value, sizeof(value)), 0);
	for (unsigned i = 0; i < 5; i++)
		assert_int_equal(delta_item_delete(d, object, 1000 + i), 0);
	for (unsigned i = 0; i < 5; i++)
		assert_int_equal(delta_item_put(d, object, 904 - i, value, sizeof(value)), 0);
	assert_int_equal(delta_commit(d), 0);
	assert_int_equal(delta_checkpoint(d), 0);
	delta_close(d);
	assert_int_equal(store_open_ops(&memory_ops, &m, m.len, &store), 0);
	assert_int_equal(delta_open(store, &o, &d, error), 0);
	for (uint64_t offset = 0; delta_item_next(d, object, offset, &item) == 0; offset = item.offset + 1)
		found++;
	assert_int_equal(tree_damages, 0);
	assert_int_equal(found, 15);
	delta_close(d);
	free(m.bytes);
}

static void lost_superblocks_are_said_to_be(void **state)
{
	struct memory m = make_delta(false);
	struct checked c;

	memset(m.bytes, 0, 16384);
	c = check(&m, true, true);
	assert_int_equal(c.result, -EMEDIUMTYPE);
	fsck_delta_report_free(&c.report);
	free(m.bytes);
	m = make_delta(false);
	for (unsigned i = 0; i < 4; i++)
		m.bytes[i * 4096 + 100] ^= 1;
	c = check(&m, true, true);
	assert_int_equal(c.result, -EUCLEAN);
	assert_non_null(strstr(c.report.error, "pinfs discard"));
	fsck_delta_report_free(&c.report);
	free(m.bytes);
}

/* One superblock of each pair: the other one is enough, and both are made again. */
static void superblocks_are_restored(void **state)
{
	for (unsigned i = 0; i < 4; i++) {
		struct memory m = make_delta(true);
		struct checked c;

		m.bytes[i * 4096 + 200] ^= 1;
		c = check(&m, false, false);
		assert_true(has_text(&c.report, "is damaged; its copy is whole"));
		assert_int_equal(c.report.errors, 1);
		fsck_delta_report_free(&c.report);
		c = check(&m, true, false);
		assert_int_equal(c.result, 0);
		assert_int_equal(c.report.left, 0);
		fsck_delta_report_free(&c.report);
		assert_clean(&m);
		free(m.bytes);
	}
}

static void content_is_given_up_only_with_y(void **state)
{
	struct memory m = make_delta(false), c2;
	struct vfs *v = open_vfs(&m);
	struct hostile h;
	struct checked c;

	open_hostile(v, &h);
	assert_int_equal(delta_begin(h.delta, 0), 0);
	content_wrong(&h);
	assert_int_equal(delta_commit(h.delta), 0);
	assert_int_equal(delta_checkpoint(h.delta), 0);
	c2 = copy_of(&m);
	vfs_free(v);
	free(m.bytes);
	c = check(&c2, true, false);
	assert_int_equal(c.result, 0);
	assert_int_equal(c.report.left, 1);
	assert_int_equal(c.report.affected_count, 1);
	assert_string_equal(c.report.affected_paths[0], "/sub/text");
	fsck_delta_report_free(&c.report);
	c = check(&c2, true, true);
	assert_int_equal(c.report.left, 0);
	fsck_delta_report_free(&c.report);
	free(c2.bytes);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sound_deltas_are_sound),
		cmocka_unit_test(nothing_is_written_without_being_asked_for),
		cmocka_unit_test(checkpoints_leave_no_content_in_the_log),
		cmocka_unit_test(a_log_that_went_round_is_applied),
		cmocka_unit_test(a_log_is_applied_without_writing),
		cmocka_unit_test(trees_stay_in_order_where_their_beginning_went),
		cmocka_unit_test(lost_superblocks_are_said_to_be),
		cmocka_unit_test(superblocks_are_restored),
		cmocka_unit_test(content_is_given_up_only_with_y),
		cmocka_unit_test(contradictions_are_found_by_name),
		cmocka_unit_test(every_byte_of_a_checkpoint_counts),
		cmocka_unit_test(every_byte_of_a_log_counts),
	};

	if (getenv("FSCK_FILTER"))
		cmocka_set_test_filter(getenv("FSCK_FILTER"));
	return cmocka_run_group_tests(tests, setup, teardown);
}
