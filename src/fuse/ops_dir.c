/* SPDX-License-Identifier: MIT */
/* Requests about directories. */
#include "fuse/internal.h"

/* The kernel asks for up to 1 MiB of names where it sees a large buffer; this much is enough for a round trip. */
#define READDIR_MAX (64u << 10)
/* An entry with attributes takes more bytes than this. */
#define DIRENT_PLUS_LEAST 128

/* A reply in the making, and what it makes known. */
struct listing {
	struct vfs_dir dir;
	bool plus;
	char *buf;
	size_t size, used;
	unsigned known_count;
	uint64_t known[READDIR_MAX / DIRENT_PLUS_LEAST];
};

/* The kernel takes ENOSYS for "always, and keep the list", and doesn't ask again. It knows itself when a list has changed. */
void op_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	if (server_of(req)->no_opendir) {
		fuse_reply_err(req, ENOSYS);
		return;
	}
	fi->keep_cache = 1;
	fi->cache_readdir = 1;
	fuse_reply_open(req, fi);
}

/* Appends one entry; false if it does not fit any more. */
static bool listing_add(fuse_req_t req, struct listing *l, const struct vfs_dirent *e)
{
	struct stat st = {.st_ino = e->ino, .st_mode = (mode_t)e->type << 12};
	struct fuse_entry_param entry = {.attr = st};
	char *buf = l->buf + l->used;
	size_t size = l->size - l->used, need;

	if (l->plus)
		need = fuse_add_direntry_plus(req, NULL, 0, e->name, NULL, 0);
	else
		need = fuse_add_direntry(req, NULL, 0, e->name, NULL, 0);
	if (need > size)
		return false;
	l->used += need;
	if (!l->plus) {
		fuse_add_direntry(req, buf, size, e->name, &st, (off_t)e->cookie);
		return true;
	}
	/*
	 * The kernel takes no attributes for "." and ".."; and what can't be read is listed without them (ino 0): the
	 * error comes from the lookup of that name alone.
	 */
	if (e->cookie > 2 && vfs_dir_getattr(&l->dir, e, &st) == 0) {
		entry = fuse_entry_for(server_of(req), &st);
		l->known[l->known_count++] = st.st_ino;
	}
	fuse_add_direntry_plus(req, buf, size, e->name, &entry, (off_t)e->cookie);
	return true;
}

static void do_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t cookie, bool plus)
{
	struct fuse_server *s = server_of(req);
	_cleanup_free_ char *buf = NULL;
	struct listing l = {.plus = plus};
	struct vfs_dirent e;
	int r;

	l.size = MIN(size, (size_t)READDIR_MAX);
	l.buf = buf = malloc(l.size);
	r = buf ? vfs_dir_begin(s->vfs, ino, (uint64_t)cookie, &l.dir) : -ENOMEM;
	if (r < 0) {
		reply_error(req, r);
		return;
	}
	while ((r = vfs_dir_next(&l.dir, &e)) > 0)
		if (!listing_add(req, &l, &e))
			break;
	vfs_dir_end(&l.dir);
	if (r >= 0 && s->writable && !fuse_marks()->noatime)
		vfs_accessed(s->vfs, ino);
	/* What was read before an error is given out; the next call begins with the error. */
	if (r < 0 && !l.used)
		reply_error(req, r);
	else if (fuse_reply_buf(req, buf, l.used) && s->writable)
		for (unsigned i = 0; i < l.known_count; i++)
			vfs_forget(s->vfs, l.known[i], 1);
}

void op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t cookie, struct fuse_file_info *fi)
{
	do_readdir(req, ino, size, cookie, false);
}

void op_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t cookie, struct fuse_file_info *fi)
{
	do_readdir(req, ino, size, cookie, true);
}

void op_fsyncdir(fuse_req_t req, fuse_ino_t ino, int data_only, struct fuse_file_info *fi)
{
	reply_error(req, vfs_fsync(server_of(req)->vfs, ino, NULL, data_only));
}
