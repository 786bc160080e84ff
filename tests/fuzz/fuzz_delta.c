/* SPDX-License-Identifier: MIT */
/*
 * The input is a packed delta (packed.h) of the image FUZZ_IMAGE. It is opened for reading, and every item decoded and its content read; checked
 * and repaired by fsck; mounted, walked, and written to. Beside crashes and endless loops a finding is: what fsck calls sound, or says to have repaired, can't be
 * mounted, or something in it can't be read; output that changes on failure.
 */
#include "packed.h"

#include "base/log.h"
#include "cache/cache.h"
#include "delta/delta.h"
#include "io/io.h"
#include "mkfs/fsck.h"
#include "vfs/vfs.h"

#include <fcntl.h>
#include <linux/falloc.h>

#define ITEMS_MOST 3000u
#define STEPS 800u
#define READ_MOST (256u << 10) /* of a file */

static uint8_t *image_bytes;
static size_t image_size;

static void load_image(void)
{
	int fd = open(FUZZ_IMAGE, O_RDONLY | O_CLOEXEC);
	struct stat st;

	FUZZ_CHECK(fd >= 0 && fstat(fd, &st) == 0);
	image_size = (size_t)st.st_size;
	image_bytes = malloc(image_size);
	FUZZ_CHECK(image_bytes && pread_all(fd, image_bytes, image_size, 0) == 0);
	close(fd);
}

/* Nobody reads what is logged, and taking leave of the kernel's pressure costs ten times as much as all the rest. */
void __wrap_log_msg(enum log_level level, const char *fmt, ...);
void __wrap_log_msg(enum log_level level, const char *fmt, ...)
{
}
int __wrap_mem_pressure_open(void);
int __wrap_mem_pressure_open(void)
{
	return -ENOTSUP;
}

static struct image *open_image(void)
{
	struct image_options o = {.offset = IMAGE_OFFSET_AUTO, .on_damage = fsck_on_damage};
	struct image *image = fuzz_image_open(image_bytes, image_size, &o);

	FUZZ_CHECK(image);
	return image;
}

static void on_damage(void *context, uint64_t offset, const char *text)
{
	FUZZ_CHECK(text && text[0]);
}

/* ---- items ---- */

static void read_extent(struct delta *d, const struct delta_item *item)
{
	struct delta_item_extent e;
	struct delta_bad_pages bad;
	uint8_t buf[PINFS_PAGE_SIZE], *data[1] = {buf};
	struct delta_extent got;
	int r;

	fuzz_fill(&e);
	r = delta_item_extent(d, item, &e);
	if (r < 0) {
		FUZZ_UNTOUCHED(&e);
		return;
	}
	FUZZ_CHECK(delta_item_verify(d, item, &bad) != -EINVAL);
	for (uint64_t i = 0; i < MIN(e.extent.pages, (uint64_t)20); i++) {
		delta_lock(d);
		r = delta_extent_get(d, delta_item_ino(item), e.extent.page + i, &got);
		delta_unlock(d);
		if (r == 0 && got.kind)
			delta_extent_read(d, delta_item_ino(item), &got, got.page, 1, data);
	}
}

static void read_item(struct delta *d, const struct delta_item *item)
{
	struct delta_inode inode;
	struct delta_dirent dirent;
	struct delta_item_xattr xattr;
	struct delta_item_shared shared;

	if (!delta_item_ino(item)) {
		if (delta_item_type(item) == PINFS_DELTA_SHARED)
			delta_item_shared(d, item, &shared);
		return;
	}
	switch (delta_item_type(item)) {
	case PINFS_DELTA_INODE:
		delta_item_inode(d, item, &inode);
		break;
	case PINFS_DELTA_DIRENT:
		if (delta_item_dirent(d, item, &dirent) == 0)
			FUZZ_CHECK(strlen(dirent.name) == dirent.name_len && !strchr(dirent.name, '/'));
		break;
	case PINFS_DELTA_XATTR:
		if (delta_item_xattr(d, item, &xattr) == 0)
			FUZZ_CHECK(strlen(xattr.name) == xattr.name_len);
		break;
	case PINFS_DELTA_EXTENT:
		read_extent(d, item);
		break;
	default:
		break;
	}
}

static void read_items(struct packed *p, bool any)
{
	struct delta_options o = {.read_only = true, .no_thread = true, .any_image = true, .salvage = any, .on_damage = on_damage};
	char error[DELTA_ERROR_SIZE] = "";
	struct store *store = packed_store(p);
	struct delta_log_end end;
	struct delta_item item;
	struct delta *d;
	uint64_t object = 0, offset = 0;

	if (delta_open(store, &o, &d, error) < 0) {
		FUZZ_CHECK(error[0]);
		store_close(store);
		return;
	}
	for (unsigned n = 0; n < ITEMS_MOST && delta_item_next(d, object, offset, &item) == 0; n++) {
		FUZZ_CHECK(item.object > object || (item.object == object && item.offset >= offset));
		read_item(d, &item);
		object = item.object + (item.offset == UINT64_MAX);
		offset = item.offset + 1;
	}
	delta_log_end(d, &end);
	delta_close(d);
}

/* ---- a mount ---- */

struct walk {
	struct vfs *v;
	unsigned steps;
	bool sound; /* nothing may fail */
};

static bool good(struct walk *w, int64_t r)
{
	FUZZ_CHECK(r >= 0 || !w->sound || r == -ENODATA);
	return r >= 0;
}

static void walk_file(struct walk *w, uint64_t ino, uint64_t size)
{
	_cleanup_free_ struct vfs_read *r = malloc(sizeof(*r));
	uint64_t at = 0, next;

	FUZZ_CHECK(r);
	for (; at < MIN(size, (uint64_t)READ_MOST) && w->steps; w->steps--, at += 65536) {
		if (!good(w, vfs_read_begin(w->v, ino, at, 65536, r)))
			continue;
		FUZZ_CHECK(r->bytes == MIN((uint64_t)65536, size - at));
		vfs_read_end(w->v, r, false);
	}
	at = 0;
	for (unsigned i = 0; i < 20 && at < size && w->steps; i++, w->steps--) {
		int e = vfs_seek(w->v, ino, at, i % 2, &next);

		if (e < 0) {
			FUZZ_CHECK(!w->sound || e == -ENXIO);
			break;
		}
		FUZZ_CHECK(next >= at && next <= size);
		at = next;
	}
}

static void walk_xattrs(struct walk *w, uint64_t ino)
{
	_cleanup_free_ char *list = malloc(70000), *value = malloc(70000);
	ssize_t n = vfs_listxattr(w->v, ino, list, 70000), at = 0;

	if (n == -ERANGE || !good(w, n))
		return;
	while (at < n && w->steps) {
		w->steps--;
		good(w, vfs_getxattr(w->v, ino, list + at, value, 70000));
		at += (ssize_t)strlen(list + at) + 1;
	}
}

static void walk_dir(struct walk *w, uint64_t ino, unsigned depth)
{
	char target[PINFS_SYMLINK_MAX + 1];
	struct vfs_dirent e;
	struct vfs_dir dir;
	struct stat st;
	int r;

	if (!good(w, vfs_dir_begin(w->v, ino, 0, &dir)))
		return;
	while (w->steps && (r = vfs_dir_next(&dir, &e)) != 0) {
		w->steps--;
		if (!good(w, r))
			break;
		if (!strcmp(e.name, ".") || !strcmp(e.name, ".."))
			continue;
		if (!good(w, vfs_lookup(w->v, ino, e.name, &st)))
			continue;
		vfs_forget(w->v, st.st_ino, 1);
		walk_xattrs(w, st.st_ino);
		if (S_ISLNK(st.st_mode))
			good(w, vfs_readlink(w->v, st.st_ino, target));
		else if (S_ISREG(st.st_mode))
			walk_file(w, st.st_ino, (uint64_t)st.st_size);
		else if (S_ISDIR(st.st_mode) && depth < 30)
			walk_dir(w, st.st_ino, depth + 1);
	}
	vfs_dir_end(&dir);
}

static const struct vfs_cred cred = {.uid = 1000, .gid = 1000, .umask = 022};

/* Some of each change, to what is there and to what is new. Any may fail. */
static void change(struct vfs *v)
{
	static const char *const names[] = {"small", "dir", "zeros", "new", "sparse", "moved"};
	struct vfs_setattr cut = {.valid = VFS_SET_SIZE, .size = 5000};
	uint8_t *buf = malloc(40000);
	uint64_t last = 0, spare;
	struct stat st;

	FUZZ_CHECK(buf);
	memset(buf, 'f', 40000);
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		if (vfs_lookup(v, VFS_ROOT_INO, names[i], &st) < 0)
			continue;
		vfs_write(v, st.st_ino, 3000, buf, 9000, 0);
		vfs_fallocate(v, st.st_ino, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 4096, 8192);
		if (last)
			vfs_copy_range(v, last, 0, st.st_ino, 8192, 16384);
		vfs_setattr(v, st.st_ino, &cut, &st);
		vfs_setxattr(v, st.st_ino, "user.fuzz", buf, 3000, 0, false);
		last = st.st_ino;
		vfs_forget(v, st.st_ino, 1);
	}
	if (vfs_mknod(v, VFS_ROOT_INO, "fuzzed", S_IFREG | 0644, 0, &cred, &st) == 0) {
		vfs_write(v, st.st_ino, 0, buf, 40000, 0);
		vfs_fsync(v, st.st_ino, NULL, false);
		vfs_forget(v, st.st_ino, 1);
	}
	vfs_rename(v, VFS_ROOT_INO, "small", VFS_ROOT_INO, "new", 0, &cred);
	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (vfs_unlink(v, VFS_ROOT_INO, names[i]) == -EISDIR)
			vfs_rmdir(v, VFS_ROOT_INO, names[i]);
	vfs_sync(v);
	delta_checkpoint(vfs_delta(v));
	vfs_trim(v, 0, UINT64_MAX, 0, &spare);
	free(buf);
}

static void mount(struct packed *p, bool sound, bool write)
{
	struct vfs_delta_options d = {.atime = VFS_NOATIME, .no_threads = true, .read_only = !write, .store = packed_store(p)};
	struct vfs_options o = {.name = "fuzz", .offset = IMAGE_OFFSET_AUTO, .cache_limit = 4u << 20, .delta = &d};
	char error[IMAGE_ERROR_SIZE] = "";
	struct walk w = {.steps = STEPS, .sound = sound};
	struct io_file *io;
	int r;

	FUZZ_CHECK(io_open_memory(image_bytes, image_size, &io) == 0);
	r = vfs_new(io, &o, &w.v, error);
	if (r < 0) {
		if (sound)
			fprintf(stderr, "%s: %s\n", strerror(-r), error);
		FUZZ_CHECK(!sound || r == -ENOSPC);
		return;
	}
	walk_dir(&w, VFS_ROOT_INO, 0);
	if (write)
		change(w.v);
	vfs_free(w.v);
}

/* ---- fsck ---- */

static int open_packed(void *context, bool write, struct store **ret)
{
	*ret = packed_store(context);
	return 0;
}

static bool check(struct image *image, struct packed *p, bool repair, bool told)
{
	struct fsck_delta_options o = {.repair = repair, .give_up = repair, .max_problems = 20, .open = open_packed, .open_context = p};
	struct fsck_delta_report rep;
	int r = fsck_delta_run(image, &o, &rep);
	bool sound;

	FUZZ_CHECK(rep.problem_count <= 20 && rep.problem_count <= rep.errors);
	FUZZ_CHECK(r == 0 || rep.error[0]);
	for (size_t i = 0; i < rep.problem_count; i++) {
		FUZZ_CHECK(rep.problems[i].text && rep.problems[i].text[0]);
		if (told)
			fprintf(stderr, "%s\n", rep.problems[i].text);
	}
	sound = r == 0 && !rep.left;
	fsck_delta_report_free(&rep);
	return sound;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct packed p, copy;
	struct image *image;
	bool sound;

	if (!image_bytes)
		load_image();
	if (!packed_open(&p, data, size))
		return 0;
	read_items(&p, false);
	read_items(&p, true);
	image = open_image();
	sound = p.size && check(image, &p, false, false);
	mount(&p, sound, false);
	packed_copy(&p, &copy);
	if (p.size)
		mount(&copy, sound, true);
	packed_free(&copy);
	packed_copy(&p, &copy);
	if (p.size && check(image, &copy, true, false)) {
		FUZZ_CHECK(check(image, &copy, false, true));
		mount(&copy, true, true);
		FUZZ_CHECK(check(image, &copy, false, true));
	}
	packed_free(&copy);
	image_close(image);
	packed_free(&p);
	return 0;
}
