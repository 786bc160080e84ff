/* SPDX-License-Identifier: MIT */
#include "crash.h"

#include <assert.h>
#include <fcntl.h>
#include <stdio.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/xattr.h>

#define PAGE PINFS_PAGE_SIZE
#define PUNCH (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)

/*
 * Of the image: a (5 pages and 100 bytes), b (700 bytes), d/c (2 pages), directory e, symbolic link l. Of the delta, in a base that has been used:
 * f (24 pages), g (300 bytes), directory h. New: n, d/m, x, …
 *
 * New ones are only ever put at the end: workloads are known by these numbers.
 */
const struct op ops[] = {
	{OP_CREAT, "n"},
	{OP_CREAT, "d/m"},
	{OP_CREAT, "x/m"},
	{OP_MKDIR, "x"},
	{OP_MKDIR, "d/y"},
	{OP_WRITE, "a", NULL, 0, PAGE},
	{OP_WRITE, "a", NULL, 4000, 200},
	{OP_WRITE, "a", NULL, 2 * PAGE, 20 * PAGE},
	{OP_WRITE, "b", NULL, 100, 300},
	{OP_WRITE, "b", NULL, 0, 40 * PAGE, 1},
	{OP_WRITE, "d/c", NULL, 3 * PAGE, 1000},
	{OP_WRITE, "n", NULL, 0, 300},
	{OP_WRITE, "n", NULL, 0, PAGE, 1},
	{OP_WRITE, "n", NULL, 0, 16 * PAGE},
	{OP_WRITE, "n", NULL, 2 * PAGE + 5, 10 * PAGE, 1},
	{OP_WRITE, "d/m", NULL, 1000, 5000},
	{OP_WRITE, "f", NULL, 3 * PAGE, 2 * PAGE},
	{OP_WRITE, "f", NULL, 5 * PAGE + 77, 9 * PAGE, 1},
	{OP_WRITE, "g", NULL, 10, 20},
	{OP_WRITE, "g", NULL, 0, 3 * PAGE},
	{OP_APPEND, "a", NULL, 0, 700},
	{OP_APPEND, "b", NULL, 0, 5000},
	{OP_APPEND, "n", NULL, 0, 3 * PAGE},
	{OP_APPEND, "f", NULL, 0, 6000, 1},
	{OP_TRUNCATE, "a", NULL, 5000},
	{OP_TRUNCATE, "a", NULL, 0},
	{OP_TRUNCATE, "a", NULL, 12 * PAGE + 9},
	{OP_TRUNCATE, "b", NULL, 200},
	{OP_TRUNCATE, "n", NULL, 100},
	{OP_TRUNCATE, "n", NULL, 7 * PAGE},
	{OP_TRUNCATE, "f", NULL, 9000},
	{OP_TRUNCATE, "f", NULL, 40 * PAGE},
	{OP_TRUNCATE, "g", NULL, 2 * PAGE},
	{OP_UNLINK, "a"},
	{OP_UNLINK, "b"},
	{OP_UNLINK, "d/c"},
	{OP_UNLINK, "n"},
	{OP_UNLINK, "f"},
	{OP_UNLINK, "g"},
	{OP_UNLINK, "l"},
	{OP_RMDIR, "e"},
	{OP_RMDIR, "x"},
	{OP_RENAME, "n", "a"},
	{OP_RENAME, "a", "n"},
	{OP_RENAME, "a", "b"},
	{OP_RENAME, "d/c", "c"},
	{OP_RENAME, "f", "g"},
	{OP_RENAME, "n", "d/c"},
	{OP_RENAME, "e", "d/e"},
	{OP_RENAME, "x", "e"},
	{OP_RENAME, "d", "x"},
	{OP_RENAME, "b", "d", 0, 0, RENAME_EXCHANGE},
	{OP_RENAME, "a", "n", 0, 0, RENAME_EXCHANGE},
	{OP_RENAME, "n", "z", 0, 0, RENAME_NOREPLACE},
	{OP_LINK, "a", "al"},
	{OP_LINK, "n", "d/nl"},
	{OP_SYMLINK, "s", "somewhere/else"},
	{OP_CHMOD, "a", NULL, 0, 0, 0600},
	{OP_CHMOD, "n", NULL, 0, 0, 0755},
	{OP_CHOWN, "d", NULL, 0, 0, 17},
	{OP_UTIMES, "a"},
	{OP_SETXATTR, "a", "user.one", 0, 40},
	{OP_SETXATTR, "n", "user.long", 0, 9000},
	{OP_SETXATTR, "d", "user.dir", 0, 10},
	{OP_REMOVEXATTR, "b", "user.image"},
	{OP_REMOVEXATTR, "a", "user.one"},
	{OP_FALLOCATE, "n", NULL, 0, 8 * PAGE},
	{OP_FALLOCATE, "a", NULL, 4 * PAGE, 8 * PAGE, FALLOC_FL_KEEP_SIZE},
	{OP_FALLOCATE, "a", NULL, PAGE, 2 * PAGE, PUNCH},
	{OP_FALLOCATE, "f", NULL, 5000, 20000, PUNCH},
	{OP_FALLOCATE, "n", NULL, 100, 9000, PUNCH},
	{OP_FALLOCATE, "f", NULL, 0, 10000, FALLOC_FL_ZERO_RANGE},
	{OP_FALLOCATE, "a", NULL, 3 * PAGE, 9 * PAGE, FALLOC_FL_ZERO_RANGE},
	{OP_COPY, "a", "n", 0, 5 * PAGE + 100},
	{OP_COPY, "f", "n", PAGE, 12 * PAGE},
	{OP_COPY, "f", "a", 0, 8 * PAGE},
	{OP_COPY, "n", "a", 0, 6 * PAGE},
	{OP_TMPFILE, "", "t", 0, 5000},
	{OP_TMPFILE, "", NULL, 0, 5000},
	{OP_OPEN, "a"},
	{OP_OPEN, "n"},
	{OP_OPEN, "f"},
	{OP_OSYNC, "a", NULL, 300, 5000},
	{OP_OSYNC, "n", NULL, 0, 12 * PAGE, 1},
	{OP_OSYNC, "f", NULL, 2 * PAGE, 3 * PAGE, 1},
	{OP_FSYNC, "a"},
	{OP_FSYNC, "b"},
	{OP_FSYNC, "n"},
	{OP_FSYNC, "f"},
	{OP_FSYNC, "g"},
	{OP_FSYNC, ""},
	{OP_FSYNC, "d"},
	{OP_FSYNC, "d/m"},
	{OP_SYNC},
	{OP_CHECKPOINT},
	{OP_WRITEBACK},
	{OP_TRIM},
	{OP_RACE, "r"},
	{OP_SETXATTR, "h", "user.x07", 0, 900},
	{OP_SETXATTR, "h", "user.x40", 0, 3000},
	{OP_REMOVEXATTR, "h", "user.x20"},
	{OP_RENAME, "a", "h/a"},
	{OP_WRITE, "f", NULL, 6 * PAGE, PAGE},
	{OP_WRITE, "f", NULL, 8 * PAGE, PAGE},
	{OP_WRITE, "f", NULL, 10 * PAGE, PAGE, 1},
	{OP_FALLOCATE, "f", NULL, 11 * PAGE, PAGE, PUNCH},
	{OP_FALLOCATE, "f", NULL, 13 * PAGE, PAGE, PUNCH},
	{OP_RMDIR, "h"},
};
const unsigned op_count = ARRAY_SIZE(ops);

const char *op_text(unsigned op)
{
	static const char *const names[] = {"creat", "mkdir", "write", "append", "truncate", "unlink", "rmdir", "rename", "link", "symlink", "chmod",
		"chown", "utimes", "setxattr", "removexattr", "fallocate", "copy", "tmpfile", "open", "osync", "fsync", "sync", "checkpoint",
		"writeback", "trim", "race"};
	const struct op *o = &ops[op];
	static char buf[160];
	size_t n = (size_t)snprintf(buf, sizeof(buf), "%s", names[o->kind]);

	if (o->path)
		n += (size_t)snprintf(buf + n, sizeof(buf) - n, " %s", *o->path ? o->path : "/");
	if (o->to)
		n += (size_t)snprintf(buf + n, sizeof(buf) - n, " %s", o->to);
	if (o->len || o->offset || o->kind == OP_TRUNCATE)
		n += (size_t)snprintf(buf + n, sizeof(buf) - n, " %ju+%ju", (uintmax_t)o->offset, (uintmax_t)o->len);
	if (o->flags)
		snprintf(buf + n, sizeof(buf) - n, " (%o)", o->flags);
	return buf;
}

/* ---- doing them ---- */

static const struct vfs_cred cred = {.uid = 1000, .gid = 1000, .umask = 022};

/* Follows a path of the tree; who wants to keep the inode opens it. */
static int resolve(struct vfs *v, const char *path, struct stat *ret)
{
	char buf[64], *name, *rest = buf;
	int r = vfs_getattr(v, VFS_ROOT_INO, ret);

	snprintf(buf, sizeof(buf), "%s", path);
	while (r == 0 && (name = strsep(&rest, "/")) && *name) {
		r = vfs_lookup(v, ret->st_ino, name, ret);
		if (r == 0)
			vfs_forget(v, ret->st_ino, 1);
	}
	return r;
}

/* The directory that a path's last name is in. */
static int resolve_parent(struct vfs *v, const char *path, uint64_t *ret, const char **ret_name)
{
	const char *slash = strrchr(path, '/');
	char dir[64] = "";
	struct stat st;
	int r;

	if (slash)
		snprintf(dir, sizeof(dir), "%.*s", (int)(slash - path), path);
	r = resolve(v, dir, &st);
	*ret = st.st_ino;
	*ret_name = slash ? slash + 1 : path;
	return r;
}

/* Bytes that no other operation writes; those that compress do so about ten to one. */
static void pattern(uint8_t *buf, size_t len, uint64_t offset, int step, bool random)
{
	for (size_t i = 0; i < len; i++) {
		uint64_t at = offset + i, word = at / 8 * 0x9e3779b97f4a7c15ull + (uint64_t)step * 0xd6e8feb86659fd93ull;

		word ^= word >> 29;
		word *= 0xbf58476d1ce4e5b9ull;
		word ^= word >> 32;
		buf[i] = random ? (uint8_t)(word >> at % 8 * 8) : at % 64 < 6 ? (uint8_t)(word >> at % 8 * 8) | 1 : (uint8_t)('a' + step % 26);
	}
}

static int do_write(struct world *w, const struct op *o, uint64_t ino, int step, unsigned flags)
{
	static uint8_t buf[64 * PAGE];
	struct file *f = model_file(w->model, ino);
	uint64_t offset = flags & VFS_WRITE_APPEND ? f->size : o->offset;
	size_t len = (size_t)o->len;
	ssize_t n;

	assert(len <= sizeof(buf));
	if (offset + len > (uint64_t)FILE_PAGES * PAGE)
		return -EFBIG;
	pattern(buf, len, offset, step, o->flags & 1 && o->kind != OP_OSYNC);
	n = vfs_write(w->vfs, ino, offset, buf, len, flags);
	if (n > 0)
		file_write(w->model, f, offset, buf, (size_t)n);
	return n < 0 ? (int)n : 0;
}

static int do_fallocate(struct world *w, const struct op *o, uint64_t ino, int step)
{
	struct file *f = model_file(w->model, ino);
	uint64_t end = o->offset + o->len;
	int r = vfs_fallocate(w->vfs, ino, o->flags, o->offset, o->len);

	if (r < 0)
		return r;
	if (o->flags & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) {
		file_zero(w->model, f, o->offset, o->len);
		file_change(f, step, DIV_ROUND_UP(o->offset, PAGE), end / PAGE, false);
	}
	if (!(o->flags & FALLOC_FL_KEEP_SIZE) && end > f->size) {
		f->size = end;
		file_change(f, step, 0, 0, true);
	}
	return 0;
}

static int do_copy(struct world *w, const struct op *o, uint64_t from, int step)
{
	static uint8_t buf[FILE_PAGES * PAGE];
	struct file *a = model_file(w->model, from), *b;
	size_t len, whole;
	struct stat st;
	ssize_t n;
	int r = resolve(w->vfs, o->to, &st);

	if (r < 0)
		return r;
	if (!S_ISREG(st.st_mode) || st.st_ino == from)
		return -EINVAL;
	b = model_file(w->model, st.st_ino);
	n = vfs_copy_range(w->vfs, from, o->offset, b->ino, 0, (size_t)o->len);
	if (n <= 0)
		return (int)n;
	len = (size_t)n;
	whole = len >= 4 * PAGE ? len / PAGE * PAGE : 0;
	if (whole > b->size) {
		/* It grows first. */
		b->size = whole;
		model_between(w->model, w->vfs, b, step);
	}
	for (size_t i = 0; i < len; i++) {
		uint64_t at = o->offset + i;

		buf[i] = a->pages[at / PAGE] ? a->pages[at / PAGE][at % PAGE] : 0;
	}
	file_write(w->model, b, 0, buf, len);
	/* What is shared is there at once, but for inline and logged pages: these are copied, as if by write. */
	return 0;
}

static void set_mode(struct vfs *v, uint64_t ino, mode_t mode)
{
	struct vfs_setattr set = {.valid = VFS_SET_MODE, .mode = mode};
	struct stat st;

	vfs_setattr(v, ino, &set, &st);
}

static int do_setattr(struct world *w, const struct op *o, uint64_t ino, int step)
{
	struct vfs_setattr set = {0};
	struct stat st;
	int r;

	switch (o->kind) {
	case OP_CHMOD:
		set.valid = VFS_SET_MODE;
		set.mode = (mode_t)o->flags;
		break;
	case OP_CHOWN:
		set.valid = VFS_SET_UID | VFS_SET_GID;
		set.uid = set.gid = (uid_t)o->flags;
		break;
	case OP_UTIMES:
		set.valid = VFS_SET_MTIME | VFS_SET_ATIME;
		set.mtime = (struct timespec){1000000 + step, 5};
		set.atime = (struct timespec){2000000, 6};
		break;
	default:
		set.valid = VFS_SET_SIZE;
		set.size = o->offset;
	}
	r = vfs_setattr(w->vfs, ino, &set, &st);
	if (r == 0 && o->kind == OP_TRUNCATE) {
		struct file *f = model_file(w->model, ino);
		uint64_t old = f->size;

		file_truncate(w->model, f, o->offset);
		file_change(f, step, DIV_ROUND_UP(MIN(old, o->offset), PAGE), FILE_PAGES, true);
	}
	return r;
}

static int do_tmpfile(struct world *w, const struct op *o, int step)
{
	struct vfs *v = w->vfs;
	struct stat st, linked;
	int r = vfs_tmpfile(v, VFS_ROOT_INO, 0640, &cred, &st);

	if (r < 0)
		return r;
	model_between(w->model, v, model_file(w->model, st.st_ino), step);
	r = do_write(w, o, st.st_ino, step, 0);
	if (r == 0 && o->to) {
		r = vfs_link(v, st.st_ino, VFS_ROOT_INO, o->to, &linked);
		if (r == 0)
			vfs_forget(v, st.st_ino, 1);
	}
	vfs_forget(v, st.st_ino, 1);
	return r;
}

/* Names. */
static int do_name(struct world *w, const struct op *o, int step)
{
	uint64_t parent, to_parent = 0;
	const char *name, *to_name = NULL;
	struct vfs *v = w->vfs;
	struct stat st;
	int r = resolve_parent(v, o->path, &parent, &name);

	if (r == 0 && (o->kind == OP_RENAME || o->kind == OP_LINK))
		r = resolve_parent(v, o->to, &to_parent, &to_name);
	if (r < 0)
		return r;
	switch (o->kind) {
	case OP_CREAT:
		r = vfs_mknod(v, parent, name, S_IFREG | 0644, 0, &cred, &st);
		break;
	case OP_MKDIR:
		r = vfs_mkdir(v, parent, name, 0755, &cred, &st);
		break;
	case OP_SYMLINK:
		r = vfs_symlink(v, parent, name, o->to, &cred, &st);
		break;
	case OP_UNLINK:
		return vfs_unlink(v, parent, name);
	case OP_RMDIR:
		return vfs_rmdir(v, parent, name);
	case OP_RENAME:
		return vfs_rename(v, parent, name, to_parent, to_name, (unsigned)o->flags, &cred);
	default:
		r = resolve(v, o->path, &st);
		if (r == 0)
			r = vfs_link(v, st.st_ino, to_parent, to_name, &st);
	}
	if (r == 0)
		vfs_forget(v, st.st_ino, 1);
	if (r == 0 && o->kind == OP_CREAT)
		model_file(w->model, st.st_ino);
	return r;
}

static int do_open(struct world *w, uint64_t ino)
{
	int r = vfs_open(w->vfs, ino, O_RDWR, false, &w->open[w->opens]);

	if (r == 0)
		w->opens++;
	return r;
}

/* What concerns an inode that is there. */
static int do_inode(struct world *w, const struct op *o, uint64_t ino, int step)
{
	static char value[9000];

	switch (o->kind) {
	case OP_WRITE:
		return do_write(w, o, ino, step, 0);
	case OP_APPEND:
		return do_write(w, o, ino, step, VFS_WRITE_APPEND);
	case OP_OSYNC:
		return do_write(w, o, ino, step, o->flags & 1 ? VFS_WRITE_DSYNC : VFS_WRITE_SYNC);
	case OP_SETXATTR:
		memset(value, 'A' + step % 26, sizeof(value));
		return vfs_setxattr(w->vfs, ino, o->to, value, (size_t)o->len, 0, false);
	case OP_REMOVEXATTR:
		return vfs_removexattr(w->vfs, ino, o->to);
	case OP_FALLOCATE:
		return do_fallocate(w, o, ino, step);
	case OP_COPY:
		return do_copy(w, o, ino, step);
	case OP_OPEN:
		return do_open(w, ino);
	case OP_FSYNC:
		return vfs_fsync(w->vfs, ino, NULL, false);
	default:
		return do_setattr(w, o, ino, step);
	}
}

static void sync_note(struct model *m, uint64_t ino, int step)
{
	for (unsigned i = 0; i < m->count; i++)
		if (!ino || m->files[i].ino == ino)
			m->files[i].synced[m->files[i].sync_count++] = step;
}

/* What is dirty is written, and nothing is flushed. */
static void writeback(struct world *w)
{
	for (unsigned i = 0; i < w->model->count; i++) {
		uint64_t at;

		vfs_seek(w->vfs, w->model->files[i].ino, 0, false, &at);
	}
}

/* A checkpoint, during which a page that nobody else knows is synced. */
static int do_race(struct world *w, const struct op *o, int step)
{
	static uint8_t page[PAGE];
	struct file *f;
	struct stat st;
	int r = resolve(w->vfs, o->path, &st);

	if (r < 0)
		return r;
	f = model_file(w->model, st.st_ino);
	race_ino = st.st_ino;
	race_lost = false;
	/* Nothing else was written: so that there is something to make one of. */
	set_mode(w->vfs, VFS_ROOT_INO, 0755);
	r = delta_checkpoint(vfs_delta(w->vfs));
	race_ino = 0;
	if (race_lost)
		return r < 0 ? r : delta_flush(vfs_delta(w->vfs));
	memset(page, 'R', sizeof(page));
	file_write(w->model, f, 0, page, sizeof(page));
	model_between(w->model, w->vfs, f, step);
	return r < 0 ? r : delta_flush(vfs_delta(w->vfs));
}

/* Who finds no room may have done a part. */
static void no_room(struct world *w, const struct op *o, int step)
{
	const char *path = o->kind == OP_COPY ? o->to : o->path;
	struct stat st;

	if (path && resolve(w->vfs, path, &st) == 0 && S_ISREG(st.st_mode))
		model_file(w->model, st.st_ino)->uncertain = step;
}

enum durable op_run(struct world *w, unsigned op, int step, struct problem *problem)
{
	const struct op *o = &ops[op];
	uint64_t bytes;
	struct stat st;
	int r = 0;

	switch (o->kind) {
	case OP_SYNC:
		r = vfs_sync(w->vfs);
		if (r == 0)
			sync_note(w->model, 0, step);
		break;
	case OP_CHECKPOINT:
		r = delta_checkpoint(vfs_delta(w->vfs));
		break;
	case OP_WRITEBACK:
		writeback(w);
		return DURABLE_NOTHING;
	case OP_RACE:
		r = do_race(w, o, step);
		break;
	case OP_TRIM:
		r = vfs_trim(w->vfs, 0, UINT64_MAX, 0, &bytes);
		break;
	case OP_TMPFILE:
		r = do_tmpfile(w, o, step);
		break;
	case OP_CREAT: case OP_MKDIR: case OP_SYMLINK: case OP_UNLINK: case OP_RMDIR: case OP_RENAME: case OP_LINK:
		r = do_name(w, o, step);
		break;
	default:
		r = resolve(w->vfs, o->path, &st);
		if (r == 0 && o->kind != OP_FSYNC && !S_ISREG(st.st_mode) && (o->kind <= OP_TRUNCATE || o->kind == OP_FALLOCATE ||
			o->kind == OP_COPY || o->kind == OP_OPEN || o->kind == OP_OSYNC))
			r = -EISDIR;
		if (r == 0)
			r = do_inode(w, o, st.st_ino, step);
		if (r == 0 && (o->kind == OP_FSYNC || o->kind == OP_OSYNC))
			sync_note(w->model, st.st_ino, step);
	}
	if (r == -ENOSPC && (!op_persists(op) || o->kind == OP_OSYNC || o->kind == OP_RACE)) {
		no_room(w, o, step);
		return DURABLE_NOTHING;
	}
	/* What isn't there can't be changed; anything else should work. */
	if (r < 0 && r != -ENOENT && r != -EEXIST && r != -ENOTDIR && r != -EISDIR && r != -ENOTEMPTY && r != -ENODATA && r != -EFBIG && r != -EINVAL &&
		r != -EPERM)
		problem_set(problem, "operation %d (%s) fails: %s", step, op_text(op), strerror(-r));
	if (r < 0 || !op_persists(op))
		return DURABLE_NOTHING;
	return o->kind == OP_SYNC ? DURABLE_CONTENT : o->kind == OP_CHECKPOINT || o->kind == OP_TRIM || o->kind == OP_RACE ? DURABLE_NAMES : DURABLE_FILE;
}

void world_close(struct world *w)
{
	while (w->opens)
		vfs_release(w->vfs, w->open[--w->opens]);
}
