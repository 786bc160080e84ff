/* SPDX-License-Identifier: MIT */
#include "fsck_support.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/stat.h>

#include "base/log.h"

char *image_path;
static const struct vfs_cred cred = {0, 0, 022};

/* ---- a delta in memory ---- */

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

const struct store_ops memory_ops = {
	.pread = memory_pread,
	.pwrite = memory_pwrite,
	.flush = memory_flush,
	.punch = memory_punch,
	.allocate = memory_allocate,
	.available = memory_available,
	.hole = memory_hole,
	.close = memory_close,
};

const struct store_ops busy_ops = {
	.pread = busy_pread,
	.pwrite = busy_pwrite,
	.flush = memory_flush,
	.punch = memory_punch,
	.allocate = memory_allocate,
	.available = memory_available,
	.hole = memory_hole,
	.close = memory_close,
};

struct memory copy_of(const struct memory *m)
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

int fsck_setup(void **state)
{
	_cleanup_free_ char *tree = temp_path("tree"), *d = temp_path("tree/d"), *deep = temp_path("tree/d/deep"), *in = temp_path("tree/d/in");
	_cleanup_free_ char *file = temp_path("tree/file"), *other = temp_path("tree/other"), *hard = temp_path("tree/hard"), *ln = temp_path("tree/ln");
	_cleanup_free_ char *gone = temp_path("tree/gone"), *gone_in = temp_path("tree/gone/in");
	_cleanup_free_ uint8_t *buf = malloc(100000);
	struct rng rng = {7};

	log_init("test_fsck", LOG_LEVEL_ERROR);
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

int fsck_teardown(void **state)
{
	free(image_path);
	return support_end(state);
}

struct vfs *open_vfs_ops(const struct store_ops *ops, void *context, size_t len)
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

struct vfs *open_vfs(struct memory *m)
{
	return open_vfs_ops(&memory_ops, m, m->len);
}

uint64_t find(struct vfs *v, uint64_t dir, const char *name)
{
	struct stat st;

	assert_int_equal(vfs_lookup(v, dir, name, &st), 0);
	vfs_forget(v, st.st_ino, 1);
	return st.st_ino;
}

uint64_t make(struct vfs *v, uint64_t dir, const char *name, mode_t mode)
{
	struct stat st;

	if (S_ISDIR(mode))
		assert_int_equal(vfs_mkdir(v, dir, name, mode, &cred, &st), 0);
	else
		assert_int_equal(vfs_mknod(v, dir, name, mode, 0, &cred, &st), 0);
	vfs_forget(v, st.st_ino, 1);
	return st.st_ino;
}

void put(struct vfs *v, uint64_t ino, uint64_t offset, size_t len, bool text)
{
	_cleanup_free_ uint8_t *buf = malloc(len);
	struct rng rng = {ino * 131 + offset};

	if (text)
		rng_text(&rng, buf, len);
	else
		rng_bytes(&rng, buf, len);
	assert_int_equal(vfs_write(v, ino, offset, buf, len, 0), (ssize_t)len);
}

void change(struct vfs *v)
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

struct memory make_delta(bool frames)
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

struct dump dump_of(struct vfs *v)
{
	struct dump d = {0};
	FILE *out = open_memstream(&d.text, &d.len);

	dump_dir(v, out, VFS_ROOT_INO, "", 0);
	fclose(out);
	return d;
}

/* ---- checking ---- */

bool has_text(const struct fsck_delta_report *r, const char *text)
{
	for (size_t i = 0; i < r->problem_count; i++)
		if (strstr(r->problems[i].text, text))
			return true;
	return strstr(r->error, text);
}

void print_problems(const struct fsck_delta_report *r)
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

struct checked check(struct memory *m, bool repair, bool give_up)
{
	struct fsck_delta_options o = {.repair = repair, .give_up = give_up, .open = open_memory, .open_context = m, .on_note = on_note};
	struct image *image = open_image();
	struct checked c;

	c.result = fsck_delta_run(image, &o, &c.report);
	image_close(image);
	return c;
}

void assert_clean(struct memory *m)
{
	struct checked c = check(m, false, false);

	if (c.result || c.report.errors)
		print_problems(&c.report);
	assert_int_equal(c.result, 0);
	assert_int_equal(c.report.errors, 0);
	fsck_delta_report_free(&c.report);
}
