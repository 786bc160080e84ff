/* SPDX-License-Identifier: MIT */
#include "vfs_model.h"

void name_of(unsigned i, char ret[300])
{
	/* One of the longest. */
	if (i == NAMES - 1)
		memset(ret, 'x', 255), ret[255] = 0;
	else
		snprintf(ret, 300, "n%u", i);
}

void xattr_name(unsigned i, char ret[64])
{
	snprintf(ret, 64, "user.x%u", i);
}

struct mnode *mnode_new(struct model *md, const struct stat *st)
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

bool is_gone(const struct mnode *n)
{
	return !n->nlink && !n->known && !n->opens;
}

void mnode_check_gone(struct model *md, struct mnode *n)
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

struct mnode *by_ino(struct model *md, uint64_t ino)
{
	for (unsigned i = 0; i < md->count; i++)
		if (md->nodes[i]->ino == ino)
			return md->nodes[i];
	return NULL;
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

void model_begin(struct model *md, struct memstore *m, uint64_t seed, size_t cache)
{
	struct stat st;

	*md = (struct model){.m = m, .rng = {seed}, .cache = cache};
	md->v = open_on(m, cache, 0);
	must(vfs_getattr(md->v, VFS_ROOT_INO, &st) == 0);
	md->root = mnode_new(md, &st);
	md->root->parent = md->root;
	model_load(md, md->root);
}

void model_end(struct model *md)
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

void compare_all(struct model *md)
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
