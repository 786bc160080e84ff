/* SPDX-License-Identifier: MIT */
/* Requests about content. */
#include "fuse/internal.h"

/* What one copy_file_range(2) may take: its reply has 32 bits for the bytes, and read(2) and write(2) have the same limit. */
#define COPY_MAX ((size_t)0x7ffff000)
/* What the vfs wants to know of open(2)'s flags. */
#define OPEN_FLAGS (O_ACCMODE | O_APPEND | O_TRUNC)

static struct vfs_file *file_of(const struct fuse_file_info *fi)
{
	return fi ? (struct vfs_file *)(uintptr_t)fi->fh : NULL;
}

/* Reads and writes that the kernel doesn't do for its page cache have an owner; only they hold no folios. */
static bool past_cache(const struct fuse_file_info *fi)
{
	return fi->lock_owner;
}

/* keep: nothing that the kernel has of the file is out of date, since it made every change itself. */
static void opened(const struct fuse_server *s, struct vfs_file *file, struct fuse_file_info *fi)
{
	fi->fh = (uintptr_t)file;
	fi->direct_io = s->caching == FUSE_CACHE_DAEMON;
	fi->keep_cache = !fi->direct_io;
}

void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct fuse_server *s = server_of(req);
	struct vfs_file *file = NULL;
	int r = 0;

	/* The kernel takes ENOSYS for "always, and keep what is cached", and doesn't ask again. */
	if (s->no_open) {
		fuse_reply_err(req, ENOSYS);
		return;
	}
	if (s->writable)
		r = vfs_open(s->vfs, ino, fi->flags & OPEN_FLAGS, fuse_marks()->kill_priv, &file);
	if (r == 0 && fi->flags & O_TRUNC)
		r = vfs_settle(s->vfs, ino);
	if (r < 0) {
		if (file)
			vfs_release(s->vfs, file);
		reply_error(req, r);
		return;
	}
	opened(s, file, fi);
	if (fuse_reply_open(req, fi) && file)
		vfs_release(s->vfs, file);
}

/* Finds or makes the file of open(O_CREAT). ret_truncate: it was there before, so O_TRUNC has something to do. */
static int create_node(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, int flags, struct stat *ret,
	bool *ret_truncate)
{
	struct fuse_server *s = server_of(req);
	struct vfs_cred cred = fuse_caller_cred(req);
	int r;

	*ret_truncate = false;
	if (fuse_marks()->tmpfile)
		return vfs_tmpfile(s->vfs, parent, S_IFREG | (mode & 07777), &cred, ret);
	r = vfs_mknod(s->vfs, parent, name, S_IFREG | (mode & 07777), 0, &cred, ret);
	if (r != -EEXIST || flags & O_EXCL)
		return r;
	/* The kernel asks only for names that it knows not to exist; but it may have forgotten since. */
	r = vfs_lookup(s->vfs, parent, name, ret);
	if (r == 0 && !S_ISREG(ret->st_mode)) {
		vfs_forget(s->vfs, ret->st_ino, 1);
		return -EEXIST;
	}
	*ret_truncate = flags & O_TRUNC;
	return r;
}

void op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi)
{
	struct fuse_server *s = server_of(req);
	struct fuse_entry_param entry;
	struct vfs_file *file;
	struct stat st;
	bool truncate;
	int flags = fi->flags & OPEN_FLAGS & ~O_TRUNC, r;

	r = create_node(req, parent, name, mode, fi->flags, &st, &truncate);
	if (r < 0) {
		reply_error(req, r);
		return;
	}
	r = vfs_open(s->vfs, st.st_ino, flags | (truncate ? O_TRUNC : 0), fuse_marks()->kill_priv, &file);
	if (r == 0) {
		r = truncate ? vfs_getattr(s->vfs, st.st_ino, &st) : 0;
		r = settled(req, r, fuse_marks()->tmpfile ? st.st_ino : parent);
		if (r == 0 && truncate)
			r = vfs_settle(s->vfs, st.st_ino);
		if (r < 0)
			vfs_release(s->vfs, file);
	}
	if (r < 0) {
		vfs_forget(s->vfs, st.st_ino, 1);
		reply_error(req, r);
		return;
	}
	entry = fuse_entry_for(s, &st);
	opened(s, file, fi);
	if (fuse_reply_create(req, &entry, fi)) {
		vfs_release(s->vfs, file);
		vfs_forget(s->vfs, st.st_ino, 1);
	}
}

void op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	vfs_release(server_of(req)->vfs, file_of(fi));
	fuse_reply_err(req, 0);
}

/*
 * Where the kernel caches writes, our end of the file may lie before its own: in a direct read, or a copy, of what lies between
 * we would see none. Then it has to write back first; what lies before the end of the read it has written already. (A page that it reads into its own cache it fills up itself.)
 */
static bool end_unsure(struct fuse_server *s, fuse_ino_t ino, off_t *ret_end)
{
	struct stat st;

	if (s->caching != FUSE_CACHE_WRITEBACK || !vfs_has_writers(s->vfs, ino) || vfs_getattr(s->vfs, ino, &st) < 0)
		return false;
	*ret_end = st.st_size;
	return true;
}

static void read_reply(fuse_req_t req, fuse_ino_t ino, struct vfs_read *read, int flags)
{
	struct fuse_server *s = server_of(req);

	/* Before the reply: who asks for it then gets it. */
	if (s->writable && !(flags & O_NOATIME))
		vfs_accessed(s->vfs, ino);
	if (read->count)
		fuse_reply_iov(req, read->iov, (int)read->count);
	else
		fuse_reply_buf(req, NULL, 0);
	vfs_read_end(s->vfs, read, s->caching != FUSE_CACHE_DAEMON && !(flags & O_DIRECT));
}

static void late_read(const struct fuse_late *l)
{
	struct vfs_read read;
	int r = vfs_read_begin(server_of(l->req)->vfs, l->ino, (uint64_t)l->offset, l->size, &read);

	if (r < 0)
		reply_error(l->req, r);
	else
		read_reply(l->req, l->ino, &read, l->flags);
}

void op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi)
{
	struct fuse_server *s = server_of(req);
	struct vfs_read read;
	off_t end;
	int r;

	size = MIN(size, (size_t)VFS_READ_MAX);
	if (fi->fh && !past_cache(fi))
		vfs_note_cached(file_of(fi));
	r = vfs_read_begin(s->vfs, ino, (uint64_t)offset, size, &read);
	if (r < 0) {
		reply_error(req, r);
		return;
	}
	/* See past_cache(): those into it, of a file opened with O_DIRECT and mapped, hold folios. */
	if (read.bytes < size && past_cache(fi) && end_unsure(s, ino, &end)) {
		vfs_read_end(s->vfs, &read, false);
		fuse_late_add(&(struct fuse_late){.req = req, .ino = ino, .from = offset + (off_t)size, .answer = late_read, .size = size, .offset = offset, .flags = fi->flags});
		return;
	}
	read_reply(req, ino, &read, fi->flags);
}

static void late_write(const struct fuse_late *l)
{
	fuse_reply_write(l->req, l->size);
}

/*
 * The kernel's offset is that of the end with O_APPEND, too: it holds the inode's lock from looking at the size to the end of
 * the write, and is the only one who changes it. (In writeback mode pages come at any time, from files opened with O_APPEND
 * as from others.)
 */
void op_write(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t size, off_t offset, struct fuse_file_info *fi)
{
	struct fuse_server *s = server_of(req);
	unsigned flags = fuse_marks()->kill_priv ? VFS_WRITE_KILL_PRIV : 0;
	ssize_t n;

	/*
	 * Pages that were written through a mapping come this way in each mode; only in this one the kernel keeps times.
	 * O_SYNC: newer kernels send an fsync after a write that went through their cache, but none after a direct one.
	 */
	if (fi->writepage)
		flags |= VFS_WRITE_PAGE;
	/* What goes past its cache the kernel leaves to us: root's writes, too, take file capabilities away. */
	else if (s->caching == FUSE_CACHE_DAEMON && fuse_wire_kills_priv(s))
		flags |= VFS_WRITE_KILL_CAPS;
	if (fi->writepage && s->caching == FUSE_CACHE_WRITEBACK)
		flags |= VFS_WRITE_CACHED;
	else if (!fi->writepage && (fi->flags & O_SYNC) == O_SYNC)
		flags |= VFS_WRITE_SYNC;
	else if (!fi->writepage && fi->flags & O_DSYNC)
		flags |= VFS_WRITE_DSYNC;
	atomic_fetch_add(&s->leave.writes_begun, 1);
	n = vfs_write(s->vfs, ino, (uint64_t)offset, buf, size, flags);
	if (n >= 0 && !fi->writepage && !(flags & (VFS_WRITE_SYNC | VFS_WRITE_DSYNC))) {
		int r = vfs_settle(s->vfs, ino);

		n = r < 0 ? r : n;
	}
	if (n < 0)
		reply_error(req, (int)n);
	/*
	 * The kernel drops what it has of these pages before a direct write, and, if somebody waits for the call, after it; not so after an
	 * asynchronous one. What others have read in between would stay.
	 */
	else if (n > 0 && past_cache(fi) && fi->fh && vfs_may_be_cached(file_of(fi)))
		fuse_late_add(&(struct fuse_late){.req = req, .ino = ino, .from = offset, .length = n, .answer = late_write, .size = (size_t)n});
	else
		fuse_reply_write(req, (size_t)n);
	atomic_fetch_add(&s->leave.writes_done, 1);
}

void op_fsync(fuse_req_t req, fuse_ino_t ino, int data_only, struct fuse_file_info *fi)
{
	struct fuse_server *s = server_of(req);
	int r = vfs_fsync(s->vfs, ino, file_of(fi), data_only);

	/* Where the kernel keeps attributes itself it doesn't ask for those that writing back has changed: st_blocks. */
	if (s->caching == FUSE_CACHE_WRITEBACK && !data_only)
		fuse_lowlevel_notify_inval_inode(s->session, ino, -1, 0);
	reply_error(req, r);
}

/*
 * Fallocate and copy change content, but the kernel neither takes setuid and setgid away, once it knows that we do, nor
 * says that it should be done.
 */
static int kill_priv(fuse_req_t req, fuse_ino_t ino)
{
	struct fuse_server *s = server_of(req);
	struct vfs_setattr set = {.valid = VFS_SET_KILL_PRIV};
	struct stat st;
	int r;

	if (!fuse_wire_kills_priv(s))
		return 0;
	r = vfs_getattr(s->vfs, ino, &st);
	if (r < 0 || !(st.st_mode & (S_ISUID | S_ISGID)) || fuse_caller_has_fsetid(req))
		return r;
	return vfs_setattr(s->vfs, ino, &set, &st);
}

void op_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t offset, off_t length, struct fuse_file_info *fi)
{
	int r = kill_priv(req, ino);

	if (r == 0)
		r = vfs_fallocate(server_of(req)->vfs, ino, mode, (uint64_t)offset, (uint64_t)length);
	reply_error(req, settled(req, r, ino));
}

static void copy(const struct fuse_late *c)
{
	struct vfs *v = server_of(c->req)->vfs;
	ssize_t n = vfs_copy_range(v, c->ino, (uint64_t)c->offset, c->to, (uint64_t)c->to_offset, c->size);
	int r = n < 0 ? 0 : vfs_settle(v, c->to);

	n = r < 0 ? r : n;
	if (n < 0)
		reply_error(c->req, (int)n);
	else
		fuse_reply_write(c->req, (size_t)n);
}

void op_copy_file_range(fuse_req_t req, fuse_ino_t from, off_t from_offset, struct fuse_file_info *from_fi, fuse_ino_t to,
	off_t to_offset, struct fuse_file_info *to_fi, size_t len, int flags)
{
	struct fuse_server *s = server_of(req);
	struct fuse_late c = {.req = req, .ino = from, .answer = copy, .size = MIN(len, COPY_MAX), .offset = from_offset, .to = to, .to_offset = to_offset};
	int r = flags ? -EINVAL : kill_priv(req, to);
	off_t end;

	if (r < 0) {
		reply_error(req, r);
	} else if (end_unsure(s, from, &end) && (uint64_t)end < (uint64_t)from_offset + c.size) {
		c.from = from_offset + (off_t)c.size;
		fuse_late_add(&c);
	} else {
		copy(&c);
	}
}

static void seek(const struct fuse_late *l)
{
	uint64_t at;
	int r = vfs_seek(server_of(l->req)->vfs, l->ino, (uint64_t)l->offset, l->flags == SEEK_HOLE, &at);

	if (r < 0)
		reply_error(l->req, r);
	else
		fuse_reply_lseek(l->req, (off_t)at);
}

void op_lseek(fuse_req_t req, fuse_ino_t ino, off_t offset, int whence, struct fuse_file_info *fi)
{
	struct fuse_server *s = server_of(req);
	struct fuse_late l = {.req = req, .ino = ino, .from = offset, .answer = seek, .offset = offset, .flags = whence};

	if (whence != SEEK_DATA && whence != SEEK_HOLE)
		reply_error(req, -EINVAL);
	else if (offset < 0)
		reply_error(req, -ENXIO);
	/*
	 * The kernel asks without writing back first what it has: what programs stored through a mapping, and, when it caches
	 * writes, all of that.
	 */
	else if (s->writable && vfs_has_writers(s->vfs, ino))
		fuse_late_add(&l);
	else
		seek(&l);
}
