/* SPDX-License-Identifier: MIT */
/* The requests. Each ends with exactly one reply; a reply that fails has met an interrupted request: nobody waits. */
#include "fuse/internal.h"

#include "pinfs/ioctl.h"

/* In seconds. Nothing in an image changes; the kernel clamps what is beyond its clock. */
#define FOR_EVER 1e9
/* Node ids are never used again for another inode. */
#define GENERATION 1
/* The kernel asks for up to 1 MiB of names where it sees a large buffer; this much is enough for a round trip. */
#define READDIR_MAX (64u << 10)

static struct fuse_server *server_of(fuse_req_t req)
{
	return fuse_req_userdata(req);
}

static void reply_error(fuse_req_t req, int error)
{
	fuse_reply_err(req, error == -EUCLEAN ? EIO : -error);
}

static struct fuse_entry_param entry_for(const struct stat *st)
{
	return (struct fuse_entry_param){
		.ino = st->st_ino,
		.generation = GENERATION,
		.attr = *st,
		.attr_timeout = FOR_EVER,
		.entry_timeout = FOR_EVER,
	};
}

static void want(struct fuse_conn_info *conn, unsigned bits)
{
	conn->want |= conn->capable & bits;
}

static void op_init(void *userdata, struct fuse_conn_info *conn)
{
	struct fuse_server *s = userdata;

	want(conn, FUSE_CAP_ASYNC_READ | FUSE_CAP_ASYNC_DIO | FUSE_CAP_PARALLEL_DIROPS | FUSE_CAP_EXPORT_SUPPORT |
		FUSE_CAP_READDIRPLUS | FUSE_CAP_IOCTL_DIR | FUSE_CAP_NO_OPEN_SUPPORT |
		FUSE_CAP_NO_OPENDIR_SUPPORT | FUSE_CAP_CACHE_SYMLINKS);
	/* Content is in memory already, in many pieces: writev() moves it with one copy, as splice would. */
	conn->want &= ~(unsigned)(FUSE_CAP_SPLICE_READ | FUSE_CAP_SPLICE_WRITE | FUSE_CAP_SPLICE_MOVE);
	/*
	 * No page of what never changes is ever to be dropped. And names always come with attributes: that costs a
	 * microsecond for each, the lookup that it saves one round trip (cold find -ls: 281 ms against 214 ms).
	 */
	conn->want &= ~(unsigned)(FUSE_CAP_AUTO_INVAL_DATA | FUSE_CAP_READDIRPLUS_AUTO);
	if (vfs_has_acls(s->vfs))
		want(conn, FUSE_CAP_POSIX_ACL);
	s->no_open = !s->direct && conn->capable & FUSE_CAP_NO_OPEN_SUPPORT;
	s->no_opendir = conn->capable & FUSE_CAP_NO_OPENDIR_SUPPORT;
	conn->max_background = 64;
	conn->congestion_threshold = 48;
}

static void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct fuse_entry_param entry;
	struct stat st;
	int r = vfs_lookup(server_of(req)->vfs, parent, name, &st);

	if (r == -ENOENT) {
		/* An answer, too, and one that the kernel may keep. */
		entry = (struct fuse_entry_param){.entry_timeout = FOR_EVER};
	} else if (r < 0) {
		reply_error(req, r);
		return;
	} else {
		entry = entry_for(&st);
	}
	fuse_reply_entry(req, &entry);
}

static void op_forget(fuse_req_t req, fuse_ino_t ino, uint64_t nlookup)
{
	fuse_reply_none(req);
}

static void op_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
	fuse_reply_none(req);
}

static void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct stat st;
	int r = vfs_getattr(server_of(req)->vfs, ino, &st);

	if (r < 0)
		reply_error(req, r);
	else
		fuse_reply_attr(req, &st, FOR_EVER);
}

static void op_readlink(fuse_req_t req, fuse_ino_t ino)
{
	char target[PINFS_SYMLINK_MAX + 1];
	int r = vfs_readlink(server_of(req)->vfs, ino, target);

	if (r < 0)
		reply_error(req, r);
	else
		fuse_reply_readlink(req, target);
}

static void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct fuse_server *s = server_of(req);

	/* The kernel takes ENOSYS for "always, and keep what is cached", and doesn't ask again. */
	if (s->no_open) {
		fuse_reply_err(req, ENOSYS);
		return;
	}
	fi->direct_io = s->direct;
	fi->keep_cache = !s->direct;
	fuse_reply_open(req, fi);
}

static void op_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	if (server_of(req)->no_opendir) {
		fuse_reply_err(req, ENOSYS);
		return;
	}
	fi->keep_cache = 1;
	fi->cache_readdir = 1;
	fuse_reply_open(req, fi);
}

static void op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi)
{
	struct fuse_server *s = server_of(req);
	struct vfs_read read;
	int r = vfs_read_begin(s->vfs, ino, (uint64_t)offset, MIN(size, (size_t)VFS_READ_MAX), &read);

	if (r < 0) {
		reply_error(req, r);
		return;
	}
	if (read.count)
		fuse_reply_iov(req, read.iov, (int)read.count);
	else
		fuse_reply_buf(req, NULL, 0);
	vfs_read_end(s->vfs, &read, !s->direct && !(fi->flags & O_DIRECT));
}

/* Appends one entry; 0 if it does not fit any more. */
static size_t dirent_add(fuse_req_t req, struct vfs_dir *dir, const struct vfs_dirent *e, bool plus, char *buf,
	size_t size)
{
	struct stat st = {.st_ino = e->ino, .st_mode = (mode_t)e->type << 12};
	struct fuse_entry_param entry = {.attr = st};
	size_t need;

	if (!plus) {
		need = fuse_add_direntry(req, buf, size, e->name, &st, (off_t)e->cookie);
		return need <= size ? need : 0;
	}
	need = fuse_add_direntry_plus(req, NULL, 0, e->name, NULL, 0);
	if (need > size)
		return 0;
	/*
	 * The kernel takes no attributes for "." and ".."; and what can't be read is listed without them (ino 0): the
	 * error comes from the lookup of that name alone.
	 */
	if (e->cookie > 2 && vfs_dir_getattr(dir, e, &st) == 0)
		entry = entry_for(&st);
	return fuse_add_direntry_plus(req, buf, size, e->name, &entry, (off_t)e->cookie);
}

static void do_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t cookie, bool plus)
{
	_cleanup_free_ char *buf = NULL;
	struct vfs_dirent e;
	struct vfs_dir dir;
	size_t used = 0;
	int r;

	size = MIN(size, (size_t)READDIR_MAX);
	buf = malloc(size);
	r = buf ? vfs_dir_begin(server_of(req)->vfs, ino, (uint64_t)cookie, &dir) : -ENOMEM;
	if (r < 0) {
		reply_error(req, r);
		return;
	}
	while ((r = vfs_dir_next(&dir, &e)) > 0) {
		size_t n = dirent_add(req, &dir, &e, plus, buf + used, size - used);

		if (!n)
			break;
		used += n;
	}
	vfs_dir_end(&dir);
	/* What was read before an error is given out; the next call begins with the error. */
	if (r < 0 && !used)
		reply_error(req, r);
	else
		fuse_reply_buf(req, buf, used);
}

static void op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t cookie, struct fuse_file_info *fi)
{
	do_readdir(req, ino, size, cookie, false);
}

static void op_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t cookie, struct fuse_file_info *fi)
{
	do_readdir(req, ino, size, cookie, true);
}

static void op_statfs(fuse_req_t req, fuse_ino_t ino)
{
	struct statvfs st;
	int r = vfs_statfs(server_of(req)->vfs, &st);

	if (r < 0)
		reply_error(req, r);
	else
		fuse_reply_statfs(req, &st);
}

static void reply_xattr(fuse_req_t req, ssize_t n, const char *buf, size_t size)
{
	if (n < 0)
		reply_error(req, (int)n);
	else if (!size)
		fuse_reply_xattr(req, (size_t)n);
	else
		fuse_reply_buf(req, buf, (size_t)n);
}

static void op_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
	struct fuse_server *s = server_of(req);
	_cleanup_free_ char *buf = NULL;
	ssize_t n;

	/* ENOSYS: the kernel doesn't ask again, for any file. */
	if (!vfs_has_xattrs(s->vfs)) {
		fuse_reply_err(req, ENOSYS);
		return;
	}
	size = MIN(size, (size_t)PINFS_XATTR_VALUE_MAX);
	buf = size ? malloc(size) : NULL;
	n = size && !buf ? -ENOMEM : vfs_getxattr(s->vfs, ino, name, buf, size);
	reply_xattr(req, n, buf, size);
}

static void op_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
	struct fuse_server *s = server_of(req);
	_cleanup_free_ char *buf = NULL;
	ssize_t n;

	if (!vfs_has_xattrs(s->vfs)) {
		fuse_reply_err(req, ENOSYS);
		return;
	}
	size = MIN(size, (size_t)PINFS_XATTR_VALUE_MAX);
	buf = size ? malloc(size) : NULL;
	n = size && !buf ? -ENOMEM : vfs_listxattr(s->vfs, ino, buf, size);
	reply_xattr(req, n, buf, size);
}

static void op_lseek(fuse_req_t req, fuse_ino_t ino, off_t offset, int whence, struct fuse_file_info *fi)
{
	uint64_t at;
	int r;

	if (whence != SEEK_DATA && whence != SEEK_HOLE) {
		fuse_reply_err(req, EINVAL);
		return;
	}
	r = offset < 0 ? -ENXIO : vfs_seek(server_of(req)->vfs, ino, (uint64_t)offset, whence == SEEK_HOLE, &at);
	if (r < 0)
		reply_error(req, r);
	else
		fuse_reply_lseek(req, (off_t)at);
}

static void ioctl_info(fuse_req_t req, const void *in, size_t in_size, size_t out_size)
{
	struct fuse_server *s = server_of(req);
	struct pinfs_ioc_info info = {
		.abi_version = PINFS_ABI_VERSION,
		/* Pid 0 of the caller: it is not in our PID namespace, and our number means another process there. */
		.pid = fuse_req_ctx(req)->pid ? (uint32_t)getpid() : 0,
		.image_offset = vfs_image_info(s->vfs)->offset,
	};
	struct cache_stats stats;
	uint32_t size;

	if (in_size < sizeof(size)) {
		fuse_reply_err(req, EINVAL);
		return;
	}
	memcpy(&size, in, sizeof(size));
	vfs_cache_stats(s->vfs, &stats);
	info.cache_limit = stats.limit;
	info.cache_used = stats.used;
	memcpy(info.uuid, vfs_image_info(s->vfs)->uuid, sizeof(info.uuid));
	snprintf(info.transport, sizeof(info.transport), "%s", s->transport->name);
	snprintf(info.io, sizeof(info.io), "%s", io_describe(vfs_io(s->vfs)));
	snprintf(info.version, sizeof(info.version), "%s", PINFS_VERSION);
	snprintf(info.image, sizeof(info.image), "%s", s->image);
	info.size = (uint32_t)MIN(MIN((size_t)size, out_size), sizeof(info));
	fuse_reply_ioctl(req, 0, &info, info.size);
}

static void op_ioctl(fuse_req_t req, fuse_ino_t ino, unsigned cmd, void *arg, struct fuse_file_info *fi,
	unsigned flags, const void *in, size_t in_size, size_t out_size)
{
	/* The size in cmd may be that of an older or newer struct; 32-bit programs have the same one. */
	if (ino == FUSE_ROOT_ID && _IOC_TYPE(cmd) == PINFS_IOC_MAGIC &&
		_IOC_NR(cmd) == _IOC_NR(PINFS_IOC_INFO))
		ioctl_info(req, in, in_size, out_size);
	else
		fuse_reply_err(req, ENOTTY);
}

const struct fuse_lowlevel_ops fuse_server_ops = {
	.init = op_init,
	.lookup = op_lookup,
	.forget = op_forget,
	.forget_multi = op_forget_multi,
	.getattr = op_getattr,
	.readlink = op_readlink,
	.open = op_open,
	.opendir = op_opendir,
	.read = op_read,
	.readdir = op_readdir,
	.readdirplus = op_readdirplus,
	.statfs = op_statfs,
	.getxattr = op_getxattr,
	.listxattr = op_listxattr,
	.lseek = op_lseek,
	.ioctl = op_ioctl,
};
