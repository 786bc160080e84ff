/* SPDX-License-Identifier: MIT */
/*
 * Writable vfs against a model of its tree in memory: random operations, mounts that end with and without a sync, faults of the disk below,
 * several threads at once. A failing seed is in the message; PINFS_SEED=N runs that one alone.
 */
#include "support.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdatomic.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/log.h"
#include "base/sync.h"
#include "memstore.h"
#include "vfs/vfs.h"

#define PAGE PINFS_PAGE_SIZE
#define FILE_MOST (300u << 10)
#define NODES_MOST 160u
#define NAMES 12u
#define XATTRS 6u

/* PINFS_TRACE=1: every operation on content. */
static bool tracing;
#define trace(...) do { if (tracing) fprintf(stderr, __VA_ARGS__); } while (0)

static char *image_path;
static const struct vfs_cred cred = {.uid = 1, .gid = 2, .umask = 022};

static int setup(void **state)
{
	static const char *const dirs[] = {"tree", "tree/n0", "tree/n1", "tree/n1/n2", "tree/n1/n2/n3"};
	_cleanup_free_ uint8_t *buf = malloc(FILE_MOST);
	struct rng rng = {99};

	tracing = getenv("PINFS_TRACE");
	log_init("test_vfs_write", LOG_LEVEL_ERROR);
	for (size_t i = 0; i < ARRAY_SIZE(dirs); i++) {
		_cleanup_free_ char *dir = temp_path(dirs[i]), *name = NULL, *other = NULL, *link_name = NULL;

		assert_int_equal(mkdir(dir, 0755), 0);
		for (unsigned j = 5; j < 9; j++) {
			size_t len = (size_t)rng_below(&rng, j % 2 ? 3000 : FILE_MOST);
			_cleanup_free_ char *path = NULL;

			assert_true(asprintf(&path, "%s/n%u", dir, j) > 0);
			if (j == 8)
				rng_bytes(&rng, buf, len);
			else
				rng_text(&rng, buf, len);
			/* Holes. */
			if (j == 6)
				memset(buf + len / 4, 0, len / 2);
			write_file(path, buf, len);
			if (j == 7)
				setxattr(path, "user.x1", buf, MIN(len, (size_t)2000), 0);
		}
		assert_true(asprintf(&name, "%s/n5", dir) > 0 && asprintf(&other, "%s/n9", dir) > 0 && asprintf(&link_name, "%s/n10", dir) > 0);
		assert_int_equal(link(name, other), 0);
		assert_int_equal(symlink("somewhere/else", link_name), 0);
	}
	image_path = temp_path("image");
	{
		_cleanup_free_ char *tree = temp_path("tree");

		return mkfs("-b16K", tree, image_path, NULL);
	}
}

static int teardown(void **state)
{
	free(image_path);
	return support_end(state);
}

static struct vfs *open_on(struct memstore *m, size_t cache, uint64_t limit)
{
	struct vfs_delta_options delta = {.store = memstore_open(m), .atime = VFS_RELATIME, .size_limit = limit};
	struct vfs_options o = {.name = image_path, .offset = IMAGE_OFFSET_AUTO, .cache_limit = cache, .delta = &delta};
	char error[IMAGE_ERROR_SIZE] = "";
	struct io_file *io;
	struct vfs *v;
	int r;

	must(io_open(image_path, NULL, &io) == 0);
	r = vfs_new(io, &o, &v, error);
	if (r < 0)
		fprintf(stderr, "%s: %s\n", strerror(-r), error);
	must(r == 0);
	return v;
}

/* ---- the model ---- */

struct mnode {
	uint64_t ino;
	mode_t mode;
	unsigned nlink, known, opens;
	uint64_t size;
	uint8_t *data; /* FILE_MOST + PAGE bytes; zero behind size */
	char target[64];
	bool dirty; /* content that may get lost */
	uid_t uid;
	gid_t gid;
	struct mnode *names[NAMES], *parent;
	struct {
		bool there;
		size_t len;
		uint8_t *value;
	} xattrs[XATTRS];
	bool acl;
	uint8_t acl_value[44];
	struct vfs_file *file;
};

struct model {
	struct vfs *v;
	struct memstore *m;
	struct rng rng;
	struct mnode *nodes[NODES_MOST];
	unsigned count;
	struct mnode *root;
	size_t cache;
	uint8_t buf[FILE_MOST + PAGE];
};

static void name_of(unsigned i, char ret[300])
{
	/* One of the longest. */
	if (i == NAMES - 1)
		memset(ret, 'x', 255), ret[255] = 0;
	else
		snprintf(ret, 300, "n%u", i);
}

static void xattr_name(unsigned i, char ret[64])
{
	snprintf(ret, 64, "user.x%u", i);
}

static struct mnode *mnode_new(struct model *md, const struct stat *st)
{
	struct mnode *n = calloc(1, sizeof(*n));

	must(n && md->count < NODES_MOST);
	n->ino = st->st_ino;
	n->mode = st->st_mode;
	n->nlink = st->st_nlink;
	n->uid = st->st_uid;
	n->gid = st->st_gid;
	n->size = S_ISREG(st->st_mode) ? (uint64_t)st->st_size : 0;
	if (S_ISREG(n->mode)) {
		n->data = calloc(1, FILE_MOST + PAGE);
		must(n->data && n->size <= FILE_MOST);
	}
	md->nodes[md->count++] = n;
	return n;
}

static void mnode_free(struct mnode *n)
{
	for (unsigned i = 0; i < XATTRS; i++)
		free(n->xattrs[i].value);
	free(n->data);
	free(n);
}

static bool is_gone(const struct mnode *n)
{
	return !n->nlink && !n->known && !n->opens;
}

/* What nobody can ask for any more. */
static void mnode_check_gone(struct model *md, struct mnode *n)
{
	struct stat st;

	if (!is_gone(n))
		return;
	must(vfs_getattr(md->v, n->ino, &st) == -ENOENT);
	for (unsigned i = 0; i < md->count; i++)
		if (md->nodes[i] == n)
			md->nodes[i] = md->nodes[--md->count];
	mnode_free(n);
}

static struct mnode *by_ino(struct model *md, uint64_t ino)
{
	for (unsigned i = 0; i < md->count; i++)
		if (md->nodes[i]->ino == ino)
			return md->nodes[i];
	return NULL;
}

static ssize_t read_all(struct vfs *v, uint64_t ino, uint64_t offset, size_t len, uint8_t *buf)
{
	_cleanup_free_ struct vfs_read *read = malloc(sizeof(*read));
	size_t n = 0;
	int r;

	must(read);
	r = vfs_read_begin(v, ino, offset, len, read);
	if (r < 0)
		return r;
	for (unsigned i = 0; i < read->count; i++) {
		memcpy(buf + n, read->iov[i].iov_base, read->iov[i].iov_len);
		n += read->iov[i].iov_len;
	}
	must(n == read->bytes);
	vfs_read_end(v, read, offset % 2);
	return (ssize_t)n;
}

/* The tree below a directory, as the vfs shows it, becomes the model. */
static void model_load(struct model *md, struct mnode *dir)
{
	struct vfs_dirent e;
	struct vfs_dir d;
	int r;

	must(vfs_dir_begin(md->v, dir->ino, 0, &d) == 0);
	while ((r = vfs_dir_next(&d, &e)) == 1) {
		unsigned i = e.name[0] == 'x' ? NAMES - 1 : (unsigned)atoi(e.name + 1);
		struct mnode *n;
		struct stat st;

		if (e.name[0] == '.')
			continue;
		must(vfs_getattr(md->v, e.ino, &st) == 0);
		n = by_ino(md, e.ino);
		if (!n) {
			n = mnode_new(md, &st);
			n->parent = dir;
			if (n->data)
				must(read_all(md->v, n->ino, 0, FILE_MOST, n->data) == (ssize_t)n->size);
			if (S_ISLNK(n->mode))
				must(vfs_readlink(md->v, n->ino, (char *)md->buf) == 0 && strlen((char *)md->buf) < sizeof(n->target) &&
					strcpy(n->target, (char *)md->buf));
			for (unsigned x = 0; x < XATTRS; x++) {
				char name[64];
				ssize_t len;

				xattr_name(x, name);
				len = vfs_getxattr(md->v, n->ino, name, md->buf, sizeof(md->buf));
				must(len >= 0 || len == -ENODATA);
				n->xattrs[x].there = len >= 0;
				n->xattrs[x].len = len > 0 ? (size_t)len : 0;
				n->xattrs[x].value = memcpy(malloc(n->xattrs[x].len + 1), md->buf, n->xattrs[x].len);
			}
			if (S_ISDIR(n->mode))
				model_load(md, n);
		}
		dir->names[i] = n;
	}
	must(r == 0);
	vfs_dir_end(&d);
}

static void model_begin(struct model *md, struct memstore *m, uint64_t seed, size_t cache)
{
	struct stat st;

	*md = (struct model){.m = m, .rng = {seed}, .cache = cache};
	md->v = open_on(m, cache, 0);
	must(vfs_getattr(md->v, VFS_ROOT_INO, &st) == 0);
	md->root = mnode_new(md, &st);
	md->root->parent = md->root;
	model_load(md, md->root);
}

static void model_end(struct model *md)
{
	for (unsigned i = 0; i < md->count; i++) {
		if (md->nodes[i]->file)
			vfs_release(md->v, md->nodes[i]->file);
		mnode_free(md->nodes[i]);
	}
	vfs_free(md->v);
}

/* ---- comparing ---- */

static void compare_content(struct model *md, struct mnode *n)
{
	ssize_t got = read_all(md->v, n->ino, 0, FILE_MOST + PAGE, md->buf);

	if (got != (ssize_t)n->size)
		fprintf(stderr, "inode %ju: %zd bytes, not %ju\n", (uintmax_t)n->ino, got, (uintmax_t)n->size);
	must(got == (ssize_t)n->size);
	for (size_t i = 0; i < n->size; i++)
		if (md->buf[i] != n->data[i]) {
			fprintf(stderr, "inode %ju: byte %zu of %ju (page %zu) is %02x, not %02x\n", (uintmax_t)n->ino, i, (uintmax_t)n->size,
				i / PAGE, md->buf[i], n->data[i]);
			must(!"content");
		}
}

static void compare_node(struct model *md, struct mnode *n)
{
	uint32_t there = 0;
	struct stat st;
	ssize_t len;

	must(vfs_getattr(md->v, n->ino, &st) == 0);
	if (st.st_mode != n->mode || st.st_nlink != n->nlink)
		fprintf(stderr, "inode %ju: mode %o, links %u; not %o, %u\n", (uintmax_t)n->ino, st.st_mode, (unsigned)st.st_nlink, n->mode, n->nlink);
	if (S_ISREG(n->mode) && (uint64_t)st.st_size != n->size)
		fprintf(stderr, "inode %ju: size %ju, not %ju\n", (uintmax_t)n->ino, (uintmax_t)st.st_size, (uintmax_t)n->size);
	must(st.st_mode == n->mode && st.st_nlink == n->nlink && st.st_uid == n->uid && st.st_gid == n->gid);
	if (S_ISREG(n->mode)) {
		must((uint64_t)st.st_size == n->size);
		compare_content(md, n);
	}
	if (S_ISLNK(n->mode)) {
		must(vfs_readlink(md->v, n->ino, (char *)md->buf) == 0);
		must(!strcmp((char *)md->buf, n->target) && st.st_size == (off_t)strlen(n->target));
	}
	for (unsigned i = 0; i < XATTRS; i++) {
		char name[64];

		xattr_name(i, name);
		len = vfs_getxattr(md->v, n->ino, name, md->buf, sizeof(md->buf));
		must(len == (n->xattrs[i].there ? (ssize_t)n->xattrs[i].len : -ENODATA));
		if (len >= 0)
			must(!memcmp(md->buf, n->xattrs[i].value, (size_t)len));
		there += n->xattrs[i].there ? (uint32_t)strlen(name) + 1 : 0;
	}
	len = vfs_getxattr(md->v, n->ino, "system.posix_acl_access", md->buf, sizeof(md->buf));
	must(len == (n->acl ? (ssize_t)sizeof(n->acl_value) : -ENODATA));
	if (n->acl) {
		must(!memcmp(md->buf, n->acl_value, sizeof(n->acl_value)));
		there += sizeof("system.posix_acl_access");
	}
	must(vfs_listxattr(md->v, n->ino, NULL, 0) == (ssize_t)there);
}

static void compare_dir(struct model *md, struct mnode *n)
{
	unsigned seen = 0, want = 0;
	struct vfs_dirent e;
	struct vfs_dir d;
	int r;

	must(vfs_dir_begin(md->v, n->ino, 0, &d) == 0);
	while ((r = vfs_dir_next(&d, &e)) == 1) {
		unsigned i = e.name[0] == 'x' ? NAMES - 1 : (unsigned)atoi(e.name + 1);

		if (!strcmp(e.name, ".") || !strcmp(e.name, "..")) {
			must(e.ino == (e.name[1] ? n->parent->ino : n->ino));
			continue;
		}
		must(i < NAMES && !(seen & 1u << i) && n->names[i] && n->names[i]->ino == e.ino);
		must(e.type == (n->names[i]->mode & S_IFMT) >> 12);
		seen |= 1u << i;
	}
	must(r == 0);
	vfs_dir_end(&d);
	for (unsigned i = 0; i < NAMES; i++) {
		char name[300];
		struct stat st;

		want |= n->names[i] ? 1u << i : 0;
		name_of(i, name);
		r = vfs_lookup(md->v, n->ino, name, &st);
		must(r == (n->names[i] ? 0 : -ENOENT));
		if (r == 0) {
			must(st.st_ino == n->names[i]->ino);
			n->names[i]->known++;
		}
	}
	must(seen == want);
}

static void compare_all(struct model *md)
{
	struct delta_info info;

	for (unsigned i = 0; i < md->count; i++) {
		compare_node(md, md->nodes[i]);
		if (S_ISDIR(md->nodes[i]->mode))
			compare_dir(md, md->nodes[i]);
	}
	delta_get_info(vfs_delta(md->v), &info);
	if (info.files != md->count)
		fprintf(stderr, "%ju files, not %u\n", (uintmax_t)info.files, md->count);
	must(info.files == md->count);
}

/* ---- operations ---- */

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

static void acl_entry(uint8_t *at, unsigned tag, unsigned perm, uint32_t id)
{
	at[0] = (uint8_t)tag;
	at[2] = (uint8_t)perm;
	for (unsigned i = 0; i < 4; i++)
		at[4 + i] = (uint8_t)(id >> 8 * i);
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

/* ---- single behaviours ---- */

static uint64_t make_file(struct vfs *v, const char *name)
{
	struct stat st;

	must(vfs_mknod(v, VFS_ROOT_INO, name, S_IFREG | 0644, 0, &cred, &st) == 0);
	return st.st_ino;
}

static uint64_t find(struct vfs *v, const char *name)
{
	struct stat st;

	must(vfs_lookup(v, VFS_ROOT_INO, name, &st) == 0);
	return st.st_ino;
}

static void fill(struct rng *rng, struct vfs *v, uint64_t ino, uint64_t offset, uint8_t *buf, size_t len)
{
	rng_bytes(rng, buf, len);
	must(vfs_write(v, ino, offset, buf, len, 0) == (ssize_t)len);
}

static bool file_is(struct vfs *v, uint64_t ino, const uint8_t *want, size_t len)
{
	_cleanup_free_ uint8_t *buf = malloc(len + 1);

	must(buf);
	return read_all(v, ino, 0, len + 1, buf) == (ssize_t)len && !memcmp(buf, want, len);
}

static uint64_t live_pages(struct vfs *v)
{
	struct delta_info info;

	must(vfs_sync(v) == 0);
	must(delta_checkpoint(vfs_delta(v)) == 0);
	delta_get_info(vfs_delta(v), &info);
	return info.live_pages;
}

static void a_size_stays_when_the_pages_that_brought_it_are_punched(void **state)
{
	static const uint8_t zeroes[3 * PAGE];
	uint8_t buf[3 * PAGE];
	struct rng rng = {1};
	struct memstore m;
	struct vfs *v;
	uint64_t ino;

	memstore_init(&m, 0);
	v = open_on(&m, 8u << 20, 0);
	ino = make_file(v, "f");
	fill(&rng, v, ino, 0, buf, sizeof(buf));
	assert_int_equal(vfs_fallocate(v, ino, FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE, 0, sizeof(buf)), 0);
	assert_int_equal(vfs_fsync(v, ino, NULL, false), 0);
	vfs_free(v);
	v = open_on(&m, 8u << 20, 0);
	assert_true(file_is(v, find(v, "f"), zeroes, sizeof(zeroes)));
	vfs_free(v);
	memstore_destroy(&m);
}

/* The blocks of a file of the image that is partly overwritten, again and again, are those that it has. */
static void blocks_are_counted_once_however_often_a_page_is_written(void **state)
{
	struct vfs_setattr cut = {.valid = VFS_SET_SIZE};
	struct stat before, after;
	uint8_t buf[PAGE];
	struct rng rng = {2};
	struct memstore m;
	struct vfs *v;
	uint64_t ino;

	memstore_init(&m, 0);
	v = open_on(&m, 8u << 20, 0);
	ino = find(v, "n8");
	assert_int_equal(vfs_getattr(v, ino, &before), 0);
	assert_true(before.st_size > 10 * (off_t)PAGE);
	for (unsigned i = 0; i < 5; i++) {
		fill(&rng, v, ino, 0, buf, sizeof(buf));
		assert_int_equal(vfs_fsync(v, ino, NULL, false), 0);
	}
	assert_int_equal(delta_checkpoint(vfs_delta(v)), 0);
	assert_int_equal(vfs_getattr(v, ino, &after), 0);
	assert_in_range(after.st_blocks, before.st_blocks - 8, before.st_blocks + 8);
	/* Twice the same hole. */
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(vfs_fallocate(v, ino, FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE, PAGE, 4 * PAGE), 0);
	assert_int_equal(vfs_getattr(v, ino, &after), 0);
	assert_in_range(after.st_blocks, before.st_blocks - 40, before.st_blocks - 24);
	assert_int_equal(vfs_setattr(v, ino, &cut, &after), 0);
	assert_int_equal(after.st_blocks, 0);
	vfs_free(v);
	memstore_destroy(&m);
}

static void a_file_without_name_lives_as_long_as_somebody_knows_it(void **state)
{
	_cleanup_free_ uint8_t *buf = malloc(64 * PAGE);
	struct rng rng = {3};
	struct vfs_file *f;
	struct memstore m;
	struct stat st;
	uint64_t ino, base, full;
	struct vfs *v;

	memstore_init(&m, 0);
	v = open_on(&m, 8u << 20, 0);
	make_file(v, "other");
	base = live_pages(v);
	for (unsigned how = 0; how < 4; how++) {
		ino = make_file(v, "f");
		fill(&rng, v, ino, 0, buf, 64 * PAGE);
		full = live_pages(v);
		assert_true(full >= base + 64);
		assert_int_equal(vfs_open(v, ino, O_RDWR, false, &f), 0);
		assert_int_equal(find(v, "f"), ino);
		/* By its own unlink, or by what is renamed over it. */
		if (how % 2) {
			assert_int_equal(vfs_unlink(v, VFS_ROOT_INO, "f"), 0);
		} else {
			vfs_forget(v, make_file(v, "g"), 1);
			assert_int_equal(vfs_rename(v, VFS_ROOT_INO, "g", VFS_ROOT_INO, "f", 0, &cred), 0);
			assert_int_equal(vfs_unlink(v, VFS_ROOT_INO, "f"), 0);
		}
		assert_true(live_pages(v) + 8 >= full);
		assert_true(file_is(v, ino, buf, 64 * PAGE));
		if (how < 2) {
			vfs_forget(v, ino, 1);
			assert_int_equal(vfs_getattr(v, ino, &st), 0);
			vfs_forget(v, ino, 1);
			assert_int_equal(vfs_getattr(v, ino, &st), 0);
			vfs_release(v, f);
		} else {
			vfs_release(v, f);
			assert_int_equal(vfs_getattr(v, ino, &st), 0);
			vfs_forget(v, ino, 2);
		}
		assert_int_equal(vfs_getattr(v, ino, &st), -ENOENT);
		assert_true(live_pages(v) <= base + 8);
		delta_account(vfs_delta(v));
	}
	vfs_free(v);
	memstore_destroy(&m);
}

static void a_name_that_was_not_made_leaves_nothing_known(void **state)
{
	struct memstore m;
	struct stat st;
	uint64_t ino;
	struct vfs *v;
	int r = 0;

	memstore_init(&m, 0);
	v = open_on(&m, 8u << 20, 0);
	/* The log can't be written: nothing is lost by that, if there was no room. */
	memstore_fail(&m, MEM_WRITE, 1, -ENOSPC, true);
	r = vfs_mknod(v, VFS_ROOT_INO, "f", S_IFREG | 0644, 0, &cred, &st);
	memstore_fail(&m, MEM_WRITE, 0, 0, false);
	assert_int_equal(r, -ENOSPC);
	assert_int_equal(vfs_lookup(v, VFS_ROOT_INO, "f", &st), -ENOENT);
	ino = make_file(v, "f");
	assert_int_equal(vfs_unlink(v, VFS_ROOT_INO, "f"), 0);
	assert_int_equal(vfs_getattr(v, ino, &st), 0);
	vfs_forget(v, ino, 1);
	assert_int_equal(vfs_getattr(v, ino, &st), -ENOENT);
	vfs_free(v);
	memstore_destroy(&m);
}

static struct vfs *open_read_only(struct memstore *m)
{
	struct vfs_delta_options delta = {.store = memstore_open(m), .read_only = true};
	struct vfs_options o = {.name = image_path, .offset = IMAGE_OFFSET_AUTO, .cache_limit = 4u << 20, .delta = &delta};
	char error[IMAGE_ERROR_SIZE] = "";
	struct io_file *io;
	struct vfs *v;

	must(io_open(image_path, NULL, &io) == 0);
	must(vfs_new(io, &o, &v, error) == 0);
	return v;
}

static void a_delta_that_is_looked_at_is_read_and_never_written(void **state)
{
	struct vfs_setattr set = {.valid = VFS_SET_SIZE, .size = 10};
	uint8_t buf[3 * PAGE];
	struct rng rng = {5};
	struct vfs_file *f;
	struct memstore m;
	struct stat st;
	uint64_t ino, old, given;
	struct vfs *v;

	memstore_init(&m, 0);
	v = open_on(&m, 8u << 20, 0);
	ino = make_file(v, "f");
	fill(&rng, v, ino, 0, buf, sizeof(buf));
	/* Into the log, where it stays. */
	assert_int_equal(vfs_fsync(v, ino, NULL, false), 0);
	vfs_free(v);
	m.read_only = true;
	v = open_read_only(&m);
	assert_false(vfs_writable(v));
	assert_true(file_is(v, ino, buf, sizeof(buf)));
	old = find(v, "n6");
	assert_int_equal(vfs_open(v, ino, O_RDONLY, false, &f), 0);
	assert_int_equal(vfs_fsync(v, ino, f, false), 0);
	vfs_release(v, f);
	assert_int_equal(vfs_sync(v), 0);
	for (unsigned i = 0; i < 2; i++) {
		uint64_t n = i ? old : ino;

		assert_int_equal(vfs_open(v, n, O_RDWR, false, &f), -EROFS);
		assert_int_equal(vfs_write(v, n, 0, "x", 1, 0), -EROFS);
		assert_int_equal(vfs_setattr(v, n, &set, &st), -EROFS);
		assert_int_equal(vfs_fallocate(v, n, FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE, 0, PAGE), -EROFS);
		assert_int_equal(vfs_fallocate(v, n, 0, 0, PAGE), -EROFS);
		assert_int_equal(vfs_copy_range(v, old, 0, n, 0, 10), -EROFS);
		assert_int_equal(vfs_setxattr(v, n, "user.a", "", 0, 0, false), -EROFS);
		assert_int_equal(vfs_removexattr(v, n, "user.a"), -EROFS);
		assert_int_equal(vfs_setflags(v, n, 0, 0), -EROFS);
		assert_int_equal(vfs_link(v, n, VFS_ROOT_INO, "new", &st), -EROFS);
	}
	assert_int_equal(vfs_mkdir(v, VFS_ROOT_INO, "new", 0755, &cred, &st), -EROFS);
	assert_int_equal(vfs_tmpfile(v, VFS_ROOT_INO, 0755, &cred, &st), -EROFS);
	assert_int_equal(vfs_unlink(v, VFS_ROOT_INO, "f"), -EROFS);
	assert_int_equal(vfs_rename(v, VFS_ROOT_INO, "f", VFS_ROOT_INO, "g", 0, &cred), -EROFS);
	assert_int_equal(vfs_trim(v, 0, UINT64_MAX, 0, &given), -EROFS);
	assert_true(file_is(v, ino, buf, sizeof(buf)));
	assert_int_equal(vfs_sync(v), 0);
	vfs_free(v);
	m.read_only = false;
	memstore_destroy(&m);
}

static ssize_t acl_bytes(uint8_t *acl, const unsigned (*entries)[2], unsigned n)
{
	memset(acl, 0, 4);
	acl[0] = 2;
	for (unsigned i = 0; i < n; i++) {
		memset(acl + 4 + i * 8, 0, 8);
		acl_entry(acl + 4 + i * 8, entries[i][0], entries[i][1], entries[i][0] == 2 ? 1000 : UINT32_MAX);
	}
	return (ssize_t)(4 + n * 8);
}

static void new_files_inherit_the_default_acl_of_their_directory(void **state)
{
	static const unsigned with_mask[][2] = {{1, 7}, {2, 7}, {4, 5}, {16, 7}, {32, 4}}, file[][2] = {{1, 6}, {2, 7}, {4, 5}, {16, 6}, {32, 0}},
		dir[][2] = {{1, 7}, {2, 7}, {4, 5}, {16, 5}, {32, 4}}, plain[][2] = {{1, 7}, {4, 5}, {32, 0}};
	uint8_t acl[64], got[64];
	struct memstore m;
	struct stat d, st;
	struct vfs *v;
	ssize_t n;

	memstore_init(&m, 0);
	v = open_on(&m, 8u << 20, 0);
	assert_int_equal(vfs_mkdir(v, VFS_ROOT_INO, "d", 0755, &cred, &d), 0);
	n = acl_bytes(acl, with_mask, 5);
	assert_int_equal(vfs_setxattr(v, d.st_ino, "system.posix_acl_default", acl, (size_t)n, 0, false), 0);
	/* The umask (022) has no say. */
	assert_int_equal(vfs_mknod(v, d.st_ino, "f", S_IFREG | 0660, 0, &cred, &st), 0);
	assert_int_equal(st.st_mode, S_IFREG | 0660);
	n = acl_bytes(acl, file, 5);
	assert_int_equal(vfs_getxattr(v, st.st_ino, "system.posix_acl_access", got, sizeof(got)), n);
	assert_memory_equal(got, acl, (size_t)n);
	assert_int_equal(vfs_getxattr(v, st.st_ino, "system.posix_acl_default", got, sizeof(got)), -ENODATA);
	assert_int_equal(vfs_mkdir(v, d.st_ino, "sub", 0755, &cred, &st), 0);
	assert_int_equal(st.st_mode, S_IFDIR | 0754);
	n = acl_bytes(acl, dir, 5);
	assert_int_equal(vfs_getxattr(v, st.st_ino, "system.posix_acl_access", got, sizeof(got)), n);
	assert_memory_equal(got, acl, (size_t)n);
	n = acl_bytes(acl, with_mask, 5);
	assert_int_equal(vfs_getxattr(v, st.st_ino, "system.posix_acl_default", got, sizeof(got)), n);
	assert_memory_equal(got, acl, (size_t)n);
	/* One that a mode can say becomes one. */
	n = acl_bytes(acl, plain, 3);
	assert_int_equal(vfs_setxattr(v, d.st_ino, "system.posix_acl_default", acl, (size_t)n, 0, false), 0);
	assert_int_equal(vfs_mknod(v, d.st_ino, "g", S_IFREG | 0666, 0, &cred, &st), 0);
	assert_int_equal(st.st_mode, S_IFREG | 0640);
	assert_int_equal(vfs_getxattr(v, st.st_ino, "system.posix_acl_access", got, sizeof(got)), -ENODATA);
	/* Set as an access ACL it takes the one that was there away. */
	n = acl_bytes(acl, with_mask, 5);
	assert_int_equal(vfs_setxattr(v, st.st_ino, "system.posix_acl_access", acl, (size_t)n, 0, false), 0);
	n = acl_bytes(acl, plain, 3);
	assert_int_equal(vfs_setxattr(v, st.st_ino, "system.posix_acl_access", acl, (size_t)n, 0, false), 0);
	assert_int_equal(vfs_getxattr(v, st.st_ino, "system.posix_acl_access", got, sizeof(got)), -ENODATA);
	assert_int_equal(vfs_getattr(v, st.st_ino, &st), 0);
	assert_int_equal(st.st_mode, S_IFREG | 0750);
	/* Only directories have default ones; nonsense is none. */
	assert_int_equal(vfs_setxattr(v, st.st_ino, "system.posix_acl_default", acl, (size_t)n, 0, false), -EACCES);
	assert_int_equal(vfs_setxattr(v, st.st_ino, "system.posix_acl_access", acl, 3, 0, false), -EINVAL);
	assert_int_equal(vfs_setxattr(v, st.st_ino, "system.posix_acl_access", acl, (size_t)n - 8, 0, false), -EINVAL);
	vfs_free(v);
	memstore_destroy(&m);
}

static void each_open_file_hears_once_of_a_failed_writeback(void **state)
{
	enum { LEN = 40 * PAGE };
	_cleanup_free_ uint8_t *buf = malloc(LEN);
	struct vfs_file *a, *b, *late;
	struct rng rng = {4};
	struct memstore m;
	struct vfs *v;
	uint64_t ino;

	memstore_init(&m, 0);
	v = open_on(&m, 8u << 20, 0);
	ino = make_file(v, "f");
	assert_int_equal(vfs_open(v, ino, O_RDWR, false, &a), 0);
	assert_int_equal(vfs_open(v, ino, O_RDONLY, false, &b), 0);
	fill(&rng, v, ino, 0, buf, LEN);
	memstore_fail(&m, MEM_WRITE, 1, -EIO, false);
	assert_int_equal(vfs_fsync(v, ino, a, false), -EIO);
	assert_int_equal(vfs_open(v, ino, O_RDWR, false, &late), 0);
	assert_int_equal(vfs_fsync(v, ino, a, false), 0);
	assert_int_equal(vfs_fsync(v, ino, a, false), 0);
	assert_int_equal(vfs_fsync(v, ino, b, false), -EIO);
	assert_int_equal(vfs_fsync(v, ino, b, false), 0);
	/* Somebody has heard of it before it was opened. */
	assert_int_equal(vfs_fsync(v, ino, late, false), 0);
	assert_false(vfs_failed(v));
	vfs_release(v, a);
	vfs_release(v, b);
	vfs_release(v, late);
	vfs_free(v);
	v = open_on(&m, 8u << 20, 0);
	assert_true(file_is(v, find(v, "f"), buf, LEN));
	vfs_free(v);
	memstore_destroy(&m);
}

/* After any failure: what was synced before is there, and the vfs is one that can be read, and mounted again. */
static void after_failure(enum memstore_op op, unsigned nth, int error, bool forever)
{
	enum { FILES = 4, LEN = 30 * PAGE };
	uint8_t *now[FILES], *synced[FILES], *buf = malloc(LEN);
	bool clean[FILES] = {0}, any_synced[FILES] = {0};
	struct rng rng = {nth * 7 + (uint64_t)op};
	uint64_t ino[FILES];
	struct memstore m;
	struct vfs *v;
	bool failed = false;

	memstore_init(&m, 0);
	v = open_on(&m, 4u << 20, 0);
	for (unsigned i = 0; i < FILES; i++) {
		char name[8];

		snprintf(name, sizeof(name), "f%u", i);
		now[i] = calloc(1, LEN);
		synced[i] = calloc(1, LEN);
		ino[i] = make_file(v, name);
	}
	must(vfs_sync(v) == 0);
	memstore_fail(&m, op, nth, error, forever);
	for (unsigned step = 0; step < 60; step++) {
		unsigned i = (unsigned)rng_below(&rng, FILES);
		size_t offset = (size_t)rng_below(&rng, LEN), len = 1 + (size_t)rng_below(&rng, rng_below(&rng, 2) ? LEN - offset : MIN(LEN - offset, (size_t)3000));
		ssize_t n;

		rng_text(&rng, buf, len);
		n = vfs_write(v, ino[i], offset, buf, len, 0);
		must(n == (ssize_t)len || n < 0 || vfs_failed(v) || error);
		if (n > 0) {
			memcpy(now[i] + offset, buf, (size_t)n);
			clean[i] = false;
		}
		if (n != (ssize_t)len)
			failed = true;
		if (step % 3 == 0) {
			int r = vfs_fsync(v, ino[i], NULL, false);

			if (r == 0) {
				clean[i] = any_synced[i] = true;
				memcpy(synced[i], now[i], LEN);
			}
			must(r == 0 || !vfs_failed(v) || vfs_fsync(v, ino[i], NULL, false) < 0);
			failed |= r < 0;
		}
		if (step % 17 == 16)
			failed |= delta_checkpoint(vfs_delta(v)) < 0;
	}
	memstore_fail(&m, op, 0, 0, false);
	/* What can be read is what was written; unless the disk has failed: then perhaps it can't be read. */
	for (unsigned i = 0; i < FILES; i++) {
		ssize_t n = read_all(v, ino[i], 0, LEN, buf);

		must(n >= 0);
		must(!memcmp(buf, now[i], (size_t)n));
	}
	if (!vfs_failed(v)) {
		for (unsigned i = 0; i < FILES; i++)
			must(vfs_fsync(v, ino[i], NULL, false) == 0);
		must(vfs_sync(v) == 0);
		delta_account(vfs_delta(v));
		for (unsigned i = 0; i < FILES; i++) {
			memcpy(synced[i], now[i], LEN);
			clean[i] = any_synced[i] = true;
		}
	} else {
		must(failed);
	}
	vfs_free(v);
	v = open_on(&m, 4u << 20, 0);
	for (unsigned i = 0; i < FILES; i++) {
		char name[8];
		ssize_t n;

		snprintf(name, sizeof(name), "f%u", i);
		memset(buf, 0, LEN);
		n = read_all(v, find(v, name), 0, LEN, buf);
		must(n >= 0);
		/* Newer bytes may be there, too. */
		for (size_t at = 0; any_synced[i] && at < LEN; at++)
			must(buf[at] == synced[i][at] || (!clean[i] && buf[at] == now[i][at]) || !clean[i]);
	}
	delta_account(vfs_delta(v));
	vfs_free(v);
	memstore_destroy(&m);
	for (unsigned i = 0; i < FILES; i++) {
		free(now[i]);
		free(synced[i]);
	}
	free(buf);
}

static void what_was_synced_survives_each_failure_of_the_disk(void **state)
{
	static const struct {
		enum memstore_op op;
		int error;
	} kinds[] = {{MEM_WRITE, -EIO}, {MEM_WRITE, -ENOSPC}, {MEM_FLUSH, -EIO}, {MEM_ALLOCATE, -ENOSPC}, {MEM_ALLOCATE, -EDQUOT},
		{MEM_ALLOCATE, -EIO}, {MEM_READ, -EIO}, {MEM_PUNCH, -EIO}};

	for (size_t k = 0; k < ARRAY_SIZE(kinds); k++)
		for (unsigned nth = 1; nth < 40; nth += kinds[k].op == MEM_WRITE ? 1 : 3)
			for (unsigned forever = 0; forever < 2; forever++) {
				if (tracing)
					fprintf(stderr, "op %u, call %u: %s%s\n", kinds[k].op, nth, strerror(-kinds[k].error), forever ? " for ever" : "");
				after_failure(kinds[k].op, nth, kinds[k].error, forever);
			}
}

/* ---- a full disk ---- */

static void a_full_disk_loses_nothing_and_takes_deletions(void **state)
{
	enum { MOST = 400, LEN = 12 * PAGE };
	_cleanup_free_ uint8_t *buf = malloc(LEN);
	struct memstore m;
	struct stat st;
	char name[16];

	for (unsigned limited = 0; limited < 2; limited++) {
		struct vfs *v;

		/* 12 MiB: by the disk, or by the mount's option. */
		memstore_init(&m, limited ? 0 : 3072);
		v = open_on(&m, 4u << 20, limited ? 12u << 20 : 0);
		for (unsigned round = 0; round < 3; round++) {
			unsigned made = 0, whole = 0;
			struct rng rng = {round};
			uint64_t ino[MOST];
			int r = 0;

			for (; made < MOST && r == 0; made++) {
				ssize_t n = 0;

				snprintf(name, sizeof(name), "f%u", made);
				r = vfs_mknod(v, VFS_ROOT_INO, name, S_IFREG | 0644, 0, &cred, &st);
				if (r < 0)
					break;
				ino[made] = st.st_ino;
				rng_bytes(&rng, buf, LEN);
				n = vfs_write(v, st.st_ino, 0, buf, LEN, 0);
				whole += n == LEN;
				r = n == LEN ? 0 : -ENOSPC;
			}
			assert_int_equal(r, -ENOSPC);
			trace("limited %u, round %u: %u made, %u whole\n", limited, round, made, whole);
			assert_true(whole > 60 && made < MOST);
			/* What was taken is written; nothing fails later. */
			assert_int_equal(vfs_sync(v), 0);
			assert_false(vfs_failed(v));
			/* Overwriting needs room, and may fail: at once, not when it is synced. */
			for (unsigned i = 0; i < whole; i += 7) {
				uint8_t page[100];

				memset(page, 'x', sizeof(page));
				r = (int)vfs_write(v, ino[i], 0, page, sizeof(page), 0);
				assert_true(r == sizeof(page) || r == -ENOSPC);
				assert_int_equal(vfs_fsync(v, ino[i], NULL, false), 0);
			}
			vfs_free(v);
			v = open_on(&m, 4u << 20, limited ? 12u << 20 : 0);
			rng = (struct rng){round};
			for (unsigned i = 0; i < whole; i++) {
				uint8_t got[LEN];

				rng_bytes(&rng, buf, LEN);
				assert_int_equal(read_all(v, ino[i], 0, LEN, got), LEN);
				assert_memory_equal(got + 100, buf + 100, LEN - 100);
			}
			/* Cutting off and removing go on. */
			for (unsigned i = 0; i < whole; i += 3) {
				struct vfs_setattr set = {.valid = VFS_SET_SIZE, .size = i % 2 ? 5000 : 0};

				assert_int_equal(vfs_setattr(v, ino[i], &set, &st), 0);
			}
			for (unsigned i = 0; i <= made; i++) {
				snprintf(name, sizeof(name), "f%u", i);
				r = vfs_unlink(v, VFS_ROOT_INO, name);
				assert_true(r == 0 || (r == -ENOENT && i >= made));
				vfs_forget(v, i < made ? ino[i] : 1, 100);
			}
			assert_int_equal(vfs_sync(v), 0);
			delta_account(vfs_delta(v));
		}
		vfs_free(v);
		memstore_destroy(&m);
	}
}

/* ---- several threads ---- */

#define CROWD_FILES 6u
#define CROWD_LEN (24u * PAGE)

struct crowd {
	struct vfs *v;
	uint64_t ino[CROWD_FILES], dir[2];
	atomic_uint stop;
};

/* Letters and zeroes are all that is ever written: whoever reads sees nothing else. */
static bool all_letters(const uint8_t *page)
{
	for (unsigned i = 0; i < PAGE; i++)
		if (page[i] && (page[i] < 'a' || page[i] > 'z'))
			return false;
	return true;
}

static void *crowd_writer(void *arg)
{
	static atomic_uint seed;
	struct rng rng = {100 + seed++};
	struct crowd *c = arg;
	uint8_t buf[8 * PAGE];

	while (!c->stop) {
		uint64_t ino = c->ino[rng_below(&rng, CROWD_FILES)], page = rng_below(&rng, 16);
		unsigned n = 1 + (unsigned)rng_below(&rng, 8);
		struct vfs_setattr set = {.valid = VFS_SET_SIZE, .size = (8 + rng_below(&rng, 16)) * PAGE};
		struct stat st;

		for (unsigned i = 0; i < n; i++)
			memset(buf + i * PAGE, 'a' + (int)rng_below(&rng, 26), PAGE);
		switch (rng_below(&rng, 10)) {
		case 0:
			must(vfs_setattr(c->v, ino, &set, &st) == 0);
			break;
		case 1:
			must(vfs_fallocate(c->v, ino, FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE, page * PAGE, n * PAGE) == 0);
			break;
		case 2:
			must(vfs_fallocate(c->v, ino, FALLOC_FL_KEEP_SIZE, page * PAGE, n * PAGE) == 0);
			break;
		case 3:
			must(vfs_fsync(c->v, ino, NULL, false) == 0);
			break;
		case 4:
			must(vfs_copy_range(c->v, c->ino[rng_below(&rng, CROWD_FILES)], 0, ino, 0, 8 * PAGE) >= 0);
			break;
		case 5:
			must(delta_checkpoint(vfs_delta(c->v)) == 0);
			break;
		default:
			must(vfs_write(c->v, ino, page * PAGE, buf, n * PAGE, page % 5 ? 0 : VFS_WRITE_SYNC) == (ssize_t)(n * PAGE));
		}
	}
	return NULL;
}

static void *crowd_reader(void *arg)
{
	static atomic_uint seed;
	struct rng rng = {200 + seed++};
	struct crowd *c = arg;
	_cleanup_free_ uint8_t *buf = malloc(CROWD_LEN);
	uint64_t at;

	while (!c->stop) {
		uint64_t ino = c->ino[rng_below(&rng, CROWD_FILES)];
		ssize_t n = read_all(c->v, ino, 0, CROWD_LEN, buf);
		struct vfs_file *f;
		struct stat st;
		int r;

		must(n >= 0 && n % PAGE == 0);
		for (ssize_t i = 0; i < n; i += PAGE)
			must(all_letters(buf + i));
		must(vfs_open(c->v, ino, O_RDONLY, false, &f) == 0);
		must(vfs_getattr(c->v, ino, &st) == 0 && st.st_size <= (off_t)CROWD_LEN);
		r = vfs_seek(c->v, ino, 0, rng_below(&rng, 2), &at);
		must(r == 0 || r == -ENXIO);
		vfs_release(c->v, f);
	}
	return NULL;
}

static void *crowd_renamer(void *arg)
{
	static atomic_uint seed;
	unsigned self = seed++;
	struct rng rng = {300 + self};
	struct crowd *c = arg;
	uint8_t byte = 1;

	while (!c->stop) {
		uint64_t from = c->dir[rng_below(&rng, 2)], to = c->dir[rng_below(&rng, 2)];
		char a[32], b[32];
		struct stat st;
		int r;

		snprintf(a, sizeof(a), "n%u", (unsigned)rng_below(&rng, 6));
		snprintf(b, sizeof(b), "n%u", (unsigned)rng_below(&rng, 6));
		switch (rng_below(&rng, 6)) {
		case 0:
			r = vfs_mknod(c->v, from, a, S_IFREG | 0600, 0, &cred, &st);
			must(r == 0 || r == -EEXIST);
			if (r == 0) {
				must(vfs_write(c->v, st.st_ino, 0, &byte, 1, 0) == 1);
				vfs_forget(c->v, st.st_ino, 1);
			}
			break;
		case 1:
			r = vfs_unlink(c->v, from, a);
			must(r == 0 || r == -ENOENT);
			break;
		case 2:
			r = vfs_lookup(c->v, from, a, &st);
			must(r == 0 || r == -ENOENT);
			if (r == 0) {
				struct stat again;

				must(vfs_getattr(c->v, st.st_ino, &again) == 0);
				r = vfs_link(c->v, st.st_ino, to, b, &again);
				must(r == 0 || r == -EEXIST);
				vfs_forget(c->v, st.st_ino, r == 0 ? 2 : 1);
			}
			break;
		default:
			r = vfs_rename(c->v, from, a, to, b, rng_below(&rng, 4) ? 0 : RENAME_EXCHANGE, &cred);
			must(r == 0 || r == -ENOENT);
		}
	}
	return NULL;
}

static void readers_writers_and_renamers_at_once(void **state)
{
	static void *(*const mains[])(void *) = {crowd_writer, crowd_writer, crowd_reader, crowd_reader, crowd_renamer, crowd_renamer};
	pthread_t threads[ARRAY_SIZE(mains)];
	struct timespec begin, now;
	struct crowd c = {0};
	struct memstore m;
	struct stat st;

	memstore_init(&m, 0);
	c.v = open_on(&m, 4u << 20, 0);
	for (unsigned i = 0; i < CROWD_FILES; i++) {
		char name[16];

		snprintf(name, sizeof(name), "crowd%u", i);
		c.ino[i] = make_file(c.v, name);
	}
	for (unsigned i = 0; i < 2; i++) {
		must(vfs_mkdir(c.v, VFS_ROOT_INO, i ? "d1" : "d0", 0755, &cred, &st) == 0);
		c.dir[i] = st.st_ino;
	}
	for (unsigned i = 0; i < ARRAY_SIZE(threads); i++)
		must(thread_start(&threads[i], mains[i], &c) == 0);
	clock_gettime(CLOCK_MONOTONIC, &begin);
	do {
		usleep(20000);
		clock_gettime(CLOCK_MONOTONIC, &now);
	} while (now.tv_sec - begin.tv_sec < 3);
	c.stop = 1;
	for (unsigned i = 0; i < ARRAY_SIZE(threads); i++)
		pthread_join(threads[i], NULL);
	must(vfs_sync(c.v) == 0);
	delta_account(vfs_delta(c.v));
	vfs_free(c.v);
	c.v = open_on(&m, 4u << 20, 0);
	delta_account(vfs_delta(c.v));
	vfs_free(c.v);
	memstore_destroy(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(it_is_what_the_model_is),
		cmocka_unit_test(so_it_is_with_little_memory_and_short_writes),
		cmocka_unit_test(a_size_stays_when_the_pages_that_brought_it_are_punched),
		cmocka_unit_test(blocks_are_counted_once_however_often_a_page_is_written),
		cmocka_unit_test(a_file_without_name_lives_as_long_as_somebody_knows_it),
		cmocka_unit_test(a_name_that_was_not_made_leaves_nothing_known),
		cmocka_unit_test(a_delta_that_is_looked_at_is_read_and_never_written),
		cmocka_unit_test(new_files_inherit_the_default_acl_of_their_directory),
		cmocka_unit_test(each_open_file_hears_once_of_a_failed_writeback),
		cmocka_unit_test(what_was_synced_survives_each_failure_of_the_disk),
		cmocka_unit_test(a_full_disk_loses_nothing_and_takes_deletions),
		cmocka_unit_test(readers_writers_and_renamers_at_once),
	};

	if (getenv("PINFS_TEST"))
		cmocka_set_test_filter(getenv("PINFS_TEST"));
	return cmocka_run_group_tests_name("vfs_write", tests, setup, teardown);
}
