/* SPDX-License-Identifier: MIT */
/*
 * Writable vfs against a model of its tree in memory: random operations, mounts that end with and without a sync. A failing seed is in the message;
 * PINFS_SEED=N runs that one alone.
 */
#include "vfs_model.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/xattr.h>
#include <unistd.h>

static struct mnode *any(struct model *md, bool (*fits)(const struct mnode *n))
{
	unsigned at = (unsigned)rng_below(&md->rng, md->count);

	for (unsigned i = 0; i < md->count; i++) {
		struct mnode *n = md->nodes[(at + i) % md->count];

		if (fits(n))
			return n;
	}
	return NULL;
}

static bool is_dir(const struct mnode *n)
{
	return S_ISDIR(n->mode);
}

static bool is_file(const struct mnode *n)
{
	return S_ISREG(n->mode);
}

static bool is_any(const struct mnode *n)
{
	return true;
}

static bool is_empty(const struct mnode *n)
{
	for (unsigned i = 0; i < NAMES; i++)
		if (n->names[i])
			return false;
	return true;
}

static void op_make(struct model *md)
{
	struct mnode *dir = any(md, is_dir), *n;
	unsigned i = (unsigned)rng_below(&md->rng, NAMES), kind = (unsigned)rng_below(&md->rng, 5);
	int r, want = !dir->nlink ? -ENOENT : dir->names[i] ? -EEXIST : 0;
	mode_t mode = (mode_t)rng_below(&md->rng, 01000);
	char name[300], target[64];
	struct stat st;

	if (md->count + 1 >= NODES_MOST)
		return;
	name_of(i, name);
	snprintf(target, sizeof(target), "target/%u", (unsigned)rng_below(&md->rng, 1000));
	if (kind == 0)
		r = vfs_mkdir(md->v, dir->ino, name, mode, &cred, &st);
	else if (kind == 1)
		r = vfs_symlink(md->v, dir->ino, name, target, &cred, &st);
	else if (kind == 2)
		r = vfs_mknod(md->v, dir->ino, name, S_IFIFO | mode, 0, &cred, &st);
	else
		r = vfs_mknod(md->v, dir->ino, name, S_IFREG | mode, 0, &cred, &st);
	must(r == want);
	if (r < 0)
		return;
	must(!by_ino(md, st.st_ino));
	must(st.st_uid == 1 && st.st_gid == (dir->mode & S_ISGID ? dir->gid : 2));
	n = mnode_new(md, &st);
	n->known = 1;
	if (kind == 1)
		strcpy(n->target, target);
	else
		must((st.st_mode & 07777) == ((mode & ~022u) | (kind == 0 ? dir->mode & S_ISGID : 0)));
	n->parent = dir;
	must(st.st_nlink == (kind == 0 ? 2 : 1));
	dir->names[i] = n;
	dir->nlink += kind == 0;
}

static void op_tmpfile(struct model *md)
{
	struct mnode *dir = any(md, is_dir), *n;
	struct stat st;
	int r;

	if (md->count + 1 >= NODES_MOST)
		return;
	r = vfs_tmpfile(md->v, dir->ino, 0600, &cred, &st);
	must(r == (dir->nlink ? 0 : -ENOENT));
	if (r < 0)
		return;
	n = mnode_new(md, &st);
	n->known = 1;
	must(!n->nlink);
}

static void op_link(struct model *md)
{
	struct mnode *dir = any(md, is_dir), *n = any(md, is_any);
	unsigned i = (unsigned)rng_below(&md->rng, NAMES);
	char name[300];
	struct stat st;
	int r, want = !dir->nlink ? -ENOENT : dir->names[i] ? -EEXIST : S_ISDIR(n->mode) ? -EPERM : 0;

	name_of(i, name);
	r = vfs_link(md->v, n->ino, dir->ino, name, &st);
	must(r == want);
	if (r < 0)
		return;
	must(st.st_ino == n->ino);
	n->nlink++;
	n->known++;
	dir->names[i] = n;
}

static void unname(struct model *md, struct mnode *n)
{
	n->nlink = S_ISDIR(n->mode) ? 0 : n->nlink - 1;
	mnode_check_gone(md, n);
}

static void op_remove(struct model *md)
{
	struct mnode *dir = any(md, is_dir), *n;
	unsigned i = (unsigned)rng_below(&md->rng, NAMES);
	bool directory = rng_below(&md->rng, 2);
	char name[300];
	int r, want;

	name_of(i, name);
	n = dir->names[i];
	want = !n ? -ENOENT : directory && !S_ISDIR(n->mode) ? -ENOTDIR : !directory && S_ISDIR(n->mode) ? -EISDIR :
		directory && !is_empty(n) ? -ENOTEMPTY : 0;
	r = directory ? vfs_rmdir(md->v, dir->ino, name) : vfs_unlink(md->v, dir->ino, name);
	must(r == want);
	if (r < 0)
		return;
	dir->names[i] = NULL;
	dir->nlink -= S_ISDIR(n->mode);
	unname(md, n);
}

static bool lies_below(const struct mnode *n, const struct mnode *above)
{
	for (;; n = n->parent) {
		if (n == above)
			return true;
		if (n == n->parent)
			return false;
	}
}

static int rename_want(struct mnode *from, unsigned i, struct mnode *to, unsigned j, unsigned flags)
{
	struct mnode *n = from->names[i], *t = to->names[j];

	if (!from->nlink || !n)
		return -ENOENT;
	if (!to->nlink)
		return -ENOENT;
	if (flags & RENAME_EXCHANGE && !t)
		return -ENOENT;
	if (flags & RENAME_NOREPLACE && t)
		return -EEXIST;
	if (t == n)
		return 1;
	if (S_ISDIR(n->mode) && from != to && lies_below(to, n))
		return -EINVAL;
	if (flags & RENAME_EXCHANGE)
		return S_ISDIR(t->mode) && from != to && lies_below(from, t) ? -EINVAL : 0;
	if (!t)
		return 0;
	if (S_ISDIR(t->mode))
		return !S_ISDIR(n->mode) ? -EISDIR : is_empty(t) ? 0 : -ENOTEMPTY;
	return S_ISDIR(n->mode) ? -ENOTDIR : 0;
}

static void reparent(struct mnode *n, struct mnode *from, struct mnode *to)
{
	if (!S_ISDIR(n->mode))
		return;
	from->nlink--;
	to->nlink++;
	n->parent = to;
}

static void op_rename(struct model *md)
{
	static const unsigned kinds[] = {0, 0, 0, RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT, RENAME_WHITEOUT | RENAME_NOREPLACE};
	unsigned flags = kinds[rng_below(&md->rng, ARRAY_SIZE(kinds))], i = (unsigned)rng_below(&md->rng, NAMES),
		j = (unsigned)rng_below(&md->rng, NAMES);
	struct mnode *from = any(md, is_dir), *to = rng_below(&md->rng, 3) ? any(md, is_dir) : from, *n = from->names[i], *t = to->names[j];
	char name[300], new_name[300];
	int r, want;

	if (flags & RENAME_WHITEOUT && md->count + 1 >= NODES_MOST)
		return;
	name_of(i, name);
	name_of(j, new_name);
	want = rename_want(from, i, to, j, flags);
	r = vfs_rename(md->v, from->ino, name, to->ino, new_name, flags, &cred);
	if (r != MIN(want, 0))
		fprintf(stderr, "rename %x: %d, not %d\n", flags, r, want);
	must(r == MIN(want, 0));
	if (want)
		return;
	from->names[i] = flags & RENAME_EXCHANGE ? t : NULL;
	to->names[j] = n;
	reparent(n, from, to);
	if (flags & RENAME_EXCHANGE) {
		reparent(t, to, from);
		return;
	}
	if (flags & RENAME_WHITEOUT) {
		struct stat st;

		must(vfs_lookup(md->v, from->ino, name, &st) == 0);
		must(S_ISCHR(st.st_mode) && st.st_rdev == 0);
		from->names[i] = mnode_new(md, &st);
		from->names[i]->known = 1;
	}
	if (t) {
		to->nlink -= S_ISDIR(t->mode);
		unname(md, t);
	}
}

static void op_forget(struct model *md)
{
	struct mnode *n = any(md, is_any);

	if (n == md->root)
		return;
	vfs_forget(md->v, n->ino, n->known);
	n->known = 0;
	mnode_check_gone(md, n);
}

static void op_open(struct model *md)
{
	static const int flags[] = {O_RDONLY, O_WRONLY, O_RDWR, O_RDWR | O_TRUNC};
	struct mnode *n = any(md, is_file);

	if (!n)
		return;
	if (n->file) {
		vfs_release(md->v, steal_pointer(&n->file));
		n->opens--;
		mnode_check_gone(md, n);
		return;
	}
	{
		int f = flags[rng_below(&md->rng, ARRAY_SIZE(flags))];

		trace("%ju: open %x of %ju\n", (uintmax_t)n->ino, f, (uintmax_t)n->size);
		must(vfs_open(md->v, n->ino, f, false, &n->file) == 0);
		n->opens++;
		if (f & O_TRUNC) {
			memset(n->data, 0, n->size);
			n->size = 0;
		}
	}
}

static void some_bytes(struct rng *rng, uint8_t *buf, size_t len)
{
	switch (rng_below(rng, 4)) {
	case 0:
		rng_bytes(rng, buf, len);
		break;
	case 1:
		memset(buf, 0, len);
		break;
	default:
		rng_text(rng, buf, len);
	}
}

static void some_range(struct model *md, uint64_t *ret_offset, size_t *ret_len)
{
	uint64_t offset = rng_below(&md->rng, FILE_MOST), len = 1 + rng_below(&md->rng, rng_below(&md->rng, 3) ? 20000 : 150000);

	if (rng_below(&md->rng, 3) == 0)
		offset = rng_below(&md->rng, 5000);
	if (rng_below(&md->rng, 2)) {
		offset -= offset % PAGE;
		len = align_up(len, PAGE);
	}
	*ret_offset = offset;
	*ret_len = (size_t)MIN(len, FILE_MOST - offset);
}

static void op_write(struct model *md)
{
	static const unsigned kinds[] = {0, 0, 0, VFS_WRITE_CACHED, VFS_WRITE_SYNC, VFS_WRITE_DSYNC, VFS_WRITE_APPEND, VFS_WRITE_KILL_PRIV};
	unsigned flags = kinds[rng_below(&md->rng, ARRAY_SIZE(kinds))];
	struct mnode *n = any(md, is_file);
	uint64_t offset;
	size_t len;

	if (!n)
		return;
	some_range(md, &offset, &len);
	if (flags & VFS_WRITE_APPEND) {
		offset = n->size;
		len = (size_t)MIN((uint64_t)len, FILE_MOST - offset);
	}
	if (!len)
		return;
	some_bytes(&md->rng, md->buf, len);
	trace("%ju: write %x [%ju, +%zu)\n", (uintmax_t)n->ino, flags, (uintmax_t)offset, len);
	must(vfs_write(md->v, n->ino, flags & VFS_WRITE_APPEND ? 77 : offset, md->buf, len, flags) == (ssize_t)len);
	memcpy(n->data + offset, md->buf, len);
	n->size = MAX(n->size, offset + len);
	n->dirty = !(flags & (VFS_WRITE_SYNC | VFS_WRITE_DSYNC));
	if (flags & VFS_WRITE_KILL_PRIV) {
		n->mode &= ~(mode_t)S_ISUID;
		if (n->mode & S_IXGRP)
			n->mode &= ~(mode_t)S_ISGID;
	}
}

static void op_truncate(struct model *md)
{
	struct vfs_setattr set = {.valid = VFS_SET_SIZE};
	struct mnode *n = any(md, is_file);
	struct stat st;

	if (!n)
		return;
	set.size = rng_below(&md->rng, 3) ? rng_below(&md->rng, n->size + 1) : rng_below(&md->rng, FILE_MOST);
	if (rng_below(&md->rng, 4) == 0)
		set.size -= set.size % PAGE;
	trace("%ju: truncate %ju -> %ju\n", (uintmax_t)n->ino, (uintmax_t)n->size, (uintmax_t)set.size);
	must(vfs_setattr(md->v, n->ino, &set, &st) == 0);
	must((uint64_t)st.st_size == set.size);
	if (set.size < n->size)
		memset(n->data + set.size, 0, n->size - set.size);
	n->size = set.size;
}

static void op_fallocate(struct model *md)
{
	static const int modes[] = {0, FALLOC_FL_KEEP_SIZE, FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE, FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE,
		FALLOC_FL_ZERO_RANGE, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE};
	int mode = modes[rng_below(&md->rng, ARRAY_SIZE(modes))];
	struct mnode *n = any(md, is_file);
	uint64_t offset;
	size_t len;

	if (!n)
		return;
	some_range(md, &offset, &len);
	trace("%ju: fallocate %x [%ju, +%zu) of %ju\n", (uintmax_t)n->ino, mode, (uintmax_t)offset, len, (uintmax_t)n->size);
	must(vfs_fallocate(md->v, n->ino, mode, offset, len) == 0);
	if (mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE) && offset < n->size)
		memset(n->data + offset, 0, MIN((uint64_t)len, n->size - offset));
	if (!(mode & FALLOC_FL_KEEP_SIZE))
		n->size = MAX(n->size, offset + len);
	/* Zeros that parts of pages became lie in the cache. */
	n->dirty = true;
}

static void op_copy(struct model *md)
{
	struct mnode *a = any(md, is_file), *b = any(md, is_file);
	uint64_t from, to;
	size_t len, want;
	ssize_t n;

	if (!a || a == b)
		return;
	some_range(md, &from, &len);
	some_range(md, &to, &want);
	len = (size_t)MIN((uint64_t)len, FILE_MOST - to);
	if (rng_below(&md->rng, 2))
		from -= from % PAGE, to -= to % PAGE, len = align_down(len, PAGE);
	want = from < a->size ? (size_t)MIN((uint64_t)len, a->size - from) : 0;
	trace("%ju: copy %ju [%ju, +%zu) to %ju of %ju\n", (uintmax_t)b->ino, (uintmax_t)a->ino, (uintmax_t)from, len, (uintmax_t)to, (uintmax_t)b->size);
	n = vfs_copy_range(md->v, a->ino, from, b->ino, to, len);
	if (n != (ssize_t)want)
		fprintf(stderr, "copied %zd of %zu\n", n, want);
	must(n == (ssize_t)want);
	if (!want)
		return;
	memcpy(b->data + to, a->data + from, want);
	b->size = MAX(b->size, to + want);
	b->dirty = true;
}

static void op_read(struct model *md)
{
	struct mnode *n = any(md, is_file);
	uint64_t offset;
	size_t len, want;

	if (!n)
		return;
	some_range(md, &offset, &len);
	want = offset < n->size ? (size_t)MIN((uint64_t)len, n->size - offset) : 0;
	trace("%ju: read [%ju, +%zu) of %ju\n", (uintmax_t)n->ino, (uintmax_t)offset, len, (uintmax_t)n->size);
	must(read_all(md->v, n->ino, offset, len, md->buf) == (ssize_t)want);
	must(!memcmp(md->buf, n->data + offset, want));
}

static void op_seek(struct model *md)
{
	struct mnode *n = any(md, is_file);
	bool hole = rng_below(&md->rng, 2);
	uint64_t offset, at = 0, end;
	size_t len;
	int r;

	if (!n)
		return;
	some_range(md, &offset, &len);
	r = vfs_seek(md->v, n->ino, offset, hole, &at);
	if (offset >= n->size) {
		must(r == -ENXIO);
		return;
	}
	/* All that is skipped looking for data is zero; a hole is zero up to its page's end. */
	must(r == 0 || (!hole && r == -ENXIO));
	end = r < 0 ? n->size : at;
	must(end >= offset && end <= n->size);
	if (hole) {
		offset = at;
		end = MIN(n->size, align_down(at, PAGE) + PAGE);
	}
	for (uint64_t i = offset; i < end; i++)
		if (n->data[i]) {
			fprintf(stderr, "inode %ju: byte %ju is no hole (%s: %d, %ju)\n", (uintmax_t)n->ino, (uintmax_t)i, hole ? "hole" : "data", r,
				(uintmax_t)at);
			must(!"hole");
		}
}

static void op_xattr(struct model *md)
{
	static const size_t sizes[] = {0, 1, 100, 3000, 3885, 3886, 3887, 3888, 3889, 3890, 3900, 7800, 7801, 30000, 65535, 65536};
	struct mnode *n = any(md, is_any);
	unsigned x = (unsigned)rng_below(&md->rng, XATTRS);
	int flags = (int)rng_below(&md->rng, 5), r;
	bool there = n->xattrs[x].there;
	size_t len = sizes[rng_below(&md->rng, ARRAY_SIZE(sizes))];
	char name[64];

	xattr_name(x, name);
	if (rng_below(&md->rng, 3) == 0) {
		r = vfs_removexattr(md->v, n->ino, name);
		must(r == (there ? 0 : -ENODATA));
		n->xattrs[x].there = false;
		return;
	}
	rng_bytes(&md->rng, md->buf, len);
	flags = flags > 2 ? 0 : flags; /* XATTR_CREATE 1, XATTR_REPLACE 2 */
	r = vfs_setxattr(md->v, n->ino, name, md->buf, len, flags, false);
	must(r == (flags == XATTR_CREATE && there ? -EEXIST : flags == XATTR_REPLACE && !there ? -ENODATA : 0));
	if (r < 0)
		return;
	free(n->xattrs[x].value);
	n->xattrs[x].value = memcpy(malloc(len + 1), md->buf, len);
	n->xattrs[x].len = len;
	n->xattrs[x].there = true;
}

/* user::, user:1000:, group::, mask::, other:: */
static void op_acl(struct model *md)
{
	struct mnode *n = any(md, is_any);
	mode_t mode = (mode_t)rng_below(&md->rng, 01000);

	if (S_ISLNK(n->mode))
		return;
	if (n->acl && rng_below(&md->rng, 2)) {
		must(vfs_removexattr(md->v, n->ino, "system.posix_acl_access") == 0);
		n->acl = false;
		return;
	}
	n->acl = true;
	memset(n->acl_value, 0, sizeof(n->acl_value));
	n->acl_value[0] = 2;
	acl_entry(n->acl_value + 4, 1, mode >> 6 & 7, UINT32_MAX);
	acl_entry(n->acl_value + 12, 2, 5, 1000);
	acl_entry(n->acl_value + 20, 4, 3, UINT32_MAX);
	acl_entry(n->acl_value + 28, 16, mode >> 3 & 7, UINT32_MAX);
	acl_entry(n->acl_value + 36, 32, mode & 7, UINT32_MAX);
	must(vfs_setxattr(md->v, n->ino, "system.posix_acl_access", n->acl_value, sizeof(n->acl_value), 0, false) == 0);
	n->mode = (n->mode & ~0777u) | mode;
}

static void op_setattr(struct model *md)
{
	struct vfs_setattr set = {.valid = VFS_SET_MODE};
	struct mnode *n = any(md, is_any);
	struct stat st;

	if (S_ISLNK(n->mode))
		return;
	set.mode = (mode_t)rng_below(&md->rng, 010000);
	if (rng_below(&md->rng, 2)) {
		set.valid |= VFS_SET_UID | VFS_SET_GID | VFS_SET_MTIME;
		set.uid = n->uid = (uid_t)rng_below(&md->rng, 100000);
		set.gid = n->gid = (gid_t)rng_below(&md->rng, 100000);
		set.mtime = (struct timespec){-5, 17};
	}
	must(vfs_setattr(md->v, n->ino, &set, &st) == 0);
	n->mode = (n->mode & S_IFMT) | set.mode;
	must(st.st_mode == n->mode && (!(set.valid & VFS_SET_MTIME) || (st.st_mtim.tv_sec == -5 && st.st_mtim.tv_nsec == 17)));
	if (n->acl) {
		n->acl_value[6] = n->mode >> 6 & 7;
		n->acl_value[30] = n->mode >> 3 & 7;
		n->acl_value[38] = n->mode & 7;
	}
}

static void op_fsync(struct model *md)
{
	struct mnode *n = any(md, is_any);

	trace("%ju: fsync\n", (uintmax_t)n->ino);
	must(vfs_fsync(md->v, n->ino, n->file, rng_below(&md->rng, 2)) == 0);
	n->dirty = false;
}

/* Content that was not synced is what it is. */
static void settle_content(struct model *md, struct mnode *n)
{
	ssize_t got = read_all(md->v, n->ino, 0, FILE_MOST + PAGE, md->buf);

	must(got >= 0 && got <= (ssize_t)FILE_MOST);
	memset(n->data, 0, FILE_MOST + PAGE);
	memcpy(n->data, md->buf, (size_t)got);
	n->size = (uint64_t)got;
	n->dirty = false;
}

static void op_remount(struct model *md)
{
	bool sync = rng_below(&md->rng, 2);

	for (unsigned i = 0; i < md->count; i++) {
		if (md->nodes[i]->file)
			vfs_release(md->v, steal_pointer(&md->nodes[i]->file));
		md->nodes[i]->opens = 0;
	}
	for (unsigned i = md->count; i-- > 0;)
		if (is_gone(md->nodes[i]))
			mnode_check_gone(md, md->nodes[i]);
	trace("remount %d\n", sync);
	if (sync)
		must(vfs_sync(md->v) == 0);
	vfs_free(md->v);
	md->v = open_on(md->m, md->cache, 0);
	for (unsigned i = md->count; i-- > 0;) {
		md->nodes[i]->known = 0;
		if (is_gone(md->nodes[i]))
			mnode_check_gone(md, md->nodes[i]);
		else if (sync)
			md->nodes[i]->dirty = false;
		else if (md->nodes[i]->dirty)
			settle_content(md, md->nodes[i]);
	}
}

static void op_sync(struct model *md)
{
	must(vfs_sync(md->v) == 0);
	for (unsigned i = 0; i < md->count; i++)
		md->nodes[i]->dirty = false;
	delta_account(vfs_delta(md->v));
}

static const struct {
	void (*run)(struct model *md);
	unsigned weight;
} ops[] = {
	{op_make, 14}, {op_tmpfile, 2}, {op_link, 4}, {op_remove, 10}, {op_rename, 14}, {op_forget, 6}, {op_open, 8}, {op_write, 24},
	{op_truncate, 8}, {op_fallocate, 8}, {op_copy, 10}, {op_read, 10}, {op_seek, 5}, {op_xattr, 8}, {op_acl, 4}, {op_setattr, 5},
	{op_fsync, 5}, {op_remount, 1}, {op_sync, 1},
};

static void run_model(uint64_t seed, unsigned steps, size_t cache, unsigned jitter)
{
	unsigned sum = 0;
	struct memstore m;
	struct model *md = calloc(1, sizeof(*md));

	for (size_t i = 0; i < ARRAY_SIZE(ops); i++)
		sum += ops[i].weight;
	memstore_init(&m, 0);
	m.jitter = jitter;
	model_begin(md, &m, seed, cache);
	for (unsigned step = 0; step < steps; step++) {
		unsigned x = (unsigned)rng_below(&md->rng, sum), i = 0;

		while (x >= ops[i].weight)
			x -= ops[i++].weight;
		ops[i].run(md);
		if (step % 200 == 199)
			compare_all(md);
	}
	op_remount(md);
	compare_all(md);
	op_sync(md);
	model_end(md);
	free(md);
	memstore_destroy(&m);
}

static void run_seeds(uint64_t first, unsigned count, unsigned steps, size_t cache, unsigned jitter)
{
	const char *only = getenv("PINFS_SEED");

	if (only) {
		first = strtoull(only, NULL, 0);
		count = 1;
	}
	for (uint64_t seed = first; seed < first + count; seed++) {
		fprintf(stderr, "seed %ju (PINFS_SEED=%ju replays it)\r", (uintmax_t)seed, (uintmax_t)seed);
		run_model(seed, steps, cache, jitter);
	}
	fprintf(stderr, "\n");
}

static void it_is_what_the_model_is(void **state)
{
	run_seeds(1, 6, 1500, 32u << 20, 0);
}

static void so_it_is_with_little_memory_and_short_writes(void **state)
{
	run_seeds(100, 3, 1000, 1, 10);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(it_is_what_the_model_is),
		cmocka_unit_test(so_it_is_with_little_memory_and_short_writes),
	};

	if (getenv("PINFS_TEST"))
		cmocka_set_test_filter(getenv("PINFS_TEST"));
	return cmocka_run_group_tests_name("vfs_model", tests, vfs_setup, vfs_teardown);
}
