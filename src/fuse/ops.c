/* SPDX-License-Identifier: MIT */
/*
 * The requests. Each ends with exactly one reply; a reply that fails has met an interrupted request: nobody waits, and what
 * it would have made known or open is undone.
 */
#include "fuse/internal.h"

/* Of node ids on a read-only mount, which are never used again for another inode. */
#define GENERATION 1

/*
 * How long the kernel may believe attributes. It is told of few changes (FS_IOC_SETFLAGS), since all come through it: after each of its
 * own requests it forgets (or, from the reply, knows) what that has changed: write, fallocate, copy and open with O_TRUNC
 * size, blocks, mtime and ctime; reading the atime; a change of a directory all of the directory's; link, unlink and
 * rename also the inode's links and ctime; setxattr the ctime, an ACL everything. Two things it does not:
 *
 * - A write that takes setuid or setgid away leaves its copy of the mode as it was, and exec would go by that.
 * - When it writes back itself, it doesn't look at the blocks again until the file is closed: it is told so after an fsync.
 */
double fuse_attr_timeout(const struct fuse_server *s, const struct stat *st)
{
	if (!s->writable || !S_ISREG(st->st_mode))
		return FUSE_FOR_EVER;
	if (st->st_mode & (S_ISUID | S_ISGID) && fuse_wire_kills_priv(s))
		return 0;
	/* Not 0: the kernel asks before each write that finds them old. Only the number of blocks lags, which changes when it writes back. */
	return s->caching == FUSE_CACHE_WRITEBACK ? 1 : FUSE_FOR_EVER;
}

struct fuse_entry_param fuse_entry_for(struct fuse_server *s, const struct stat *st)
{
	return (struct fuse_entry_param){
		.ino = st->st_ino,
		.generation = s->writable ? vfs_generation(s->vfs, st->st_ino) : GENERATION,
		.attr = *st,
		.attr_timeout = fuse_attr_timeout(s, st),
		.entry_timeout = FUSE_FOR_EVER,
	};
}

void fuse_reply_found(fuse_req_t req, int r, const struct stat *st)
{
	struct fuse_server *s = server_of(req);
	struct fuse_entry_param entry;

	if (r < 0) {
		reply_error(req, r);
		return;
	}
	entry = fuse_entry_for(s, st);
	if (fuse_reply_entry(req, &entry) && s->writable)
		vfs_forget(s->vfs, st->st_ino, 1);
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
	 * No page of what only this kernel changes is ever to be dropped. And names always come with attributes: that
	 * costs a microsecond for each, the lookup that it saves one round trip (cold find -ls: 281 ms against 214 ms).
	 */
	conn->want &= ~(unsigned)(FUSE_CAP_AUTO_INVAL_DATA | FUSE_CAP_READDIRPLUS_AUTO);
	if (s->writable) {
		want(conn, FUSE_CAP_DONT_MASK | FUSE_CAP_POSIX_ACL);
		/* The first version of it would have us take setuid away from root's writes, too. */
		conn->want &= ~(unsigned)FUSE_CAP_HANDLE_KILLPRIV;
		if (s->caching == FUSE_CACHE_WRITEBACK && conn->capable & FUSE_CAP_WRITEBACK_CACHE) {
			want(conn, FUSE_CAP_WRITEBACK_CACHE);
			vfs_kernel_times(s->vfs);
		} else if (s->caching == FUSE_CACHE_WRITEBACK) {
			s->caching = FUSE_CACHE_KERNEL;
		}
		fuse_wire_want(s);
		/* Where the kernel takes setuid away, it does so in the setattr that follows the open. */
		if (fuse_wire_kills_priv(s))
			want(conn, FUSE_CAP_ATOMIC_O_TRUNC);
		else
			conn->want &= ~(unsigned)FUSE_CAP_ATOMIC_O_TRUNC;
	} else if (vfs_has_acls(s->vfs)) {
		want(conn, FUSE_CAP_POSIX_ACL);
	}
	s->no_open = !s->writable && s->caching != FUSE_CACHE_DAEMON && conn->capable & FUSE_CAP_NO_OPEN_SUPPORT;
	s->no_opendir = conn->capable & FUSE_CAP_NO_OPENDIR_SUPPORT;
	conn->max_background = 64;
	conn->congestion_threshold = 48;
}

#define READING                             \
	.init = op_init,                    \
	.lookup = op_lookup,                \
	.forget = op_forget,                \
	.forget_multi = op_forget_multi,    \
	.getattr = op_getattr,              \
	.readlink = op_readlink,            \
	.open = op_open,                    \
	.opendir = op_opendir,              \
	.read = op_read,                    \
	.readdir = op_readdir,              \
	.readdirplus = op_readdirplus,      \
	.statfs = op_statfs,                \
	.getxattr = op_getxattr,            \
	.listxattr = op_listxattr,          \
	.lseek = op_lseek,                  \
	.ioctl = op_ioctl

const struct fuse_lowlevel_ops fuse_ops_readonly = {READING};

/*
 * Not there: flush, since close(2) has nothing to tell us (the kernel writes its dirty pages back before it would ask, and
 * after the first ENOSYS doesn't ask again); locks, which the kernel then keeps itself, all kinds of them.
 */
const struct fuse_lowlevel_ops fuse_ops_writable = {
	READING,
	.mknod = op_mknod,
	.mkdir = op_mkdir,
	.symlink = op_symlink,
	.link = op_link,
	.unlink = op_unlink,
	.rmdir = op_rmdir,
	.rename = op_rename,
	.setattr = op_setattr,
	.setxattr = op_setxattr,
	.removexattr = op_removexattr,
	.create = op_create,
	.release = op_release,
	.write = op_write,
	.fsync = op_fsync,
	.fsyncdir = op_fsyncdir,
	.fallocate = op_fallocate,
	.copy_file_range = op_copy_file_range,
};
