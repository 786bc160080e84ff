/* SPDX-License-Identifier: MIT */
/*
 * ioctl(2). The kernel sends what the command's number says: its direction and its size. Flags of files are asked for by the
 * kernel itself, on behalf of a program: then there is no address of an argument (arg), and owner and capabilities are checked.
 */
#include "fuse/internal.h"

#include <linux/fs.h>

#include "pinfs/ioctl.h"

/* XFS's, which ext4, f2fs and others have, too; no public header names it for all. */
#define IOC_SHUTDOWN _IOR('X', 125, uint32_t)
enum {
	SHUTDOWN_FLUSH,	   /* write everything first */
	SHUTDOWN_LOGFLUSH, /* write the log first: for us the same */
	SHUTDOWN_NOFLUSH,
};

/* One for one; the same names in two rows of numbers. */
static const struct {
	uint32_t xflag, flag;
} xflags[] = {
	{FS_XFLAG_IMMUTABLE, FS_IMMUTABLE_FL},
	{FS_XFLAG_APPEND, FS_APPEND_FL},
	{FS_XFLAG_SYNC, FS_SYNC_FL},
	{FS_XFLAG_NOATIME, FS_NOATIME_FL},
	{FS_XFLAG_NODUMP, FS_NODUMP_FL},
	{FS_XFLAG_PROJINHERIT, FS_PROJINHERIT_FL},
};

static void reply_done(fuse_req_t req, int r)
{
	if (r < 0)
		reply_error(req, r);
	else
		fuse_reply_ioctl(req, 0, NULL, 0);
}

static void ioctl_info(fuse_req_t req, const void *in, size_t in_size, size_t out_size)
{
	struct fuse_server *s = server_of(req);
	struct pinfs_ioc_info info = {
		.abi_version = PINFS_ABI_VERSION,
		/* Pid 0 of the caller: it is not in our PID namespace, and our number means another process there. */
		.pid = fuse_req_ctx(req)->pid ? (uint32_t)getpid() : 0,
		.writable = s->writable,
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

static void ioctl_stat(fuse_req_t req, const void *in, size_t in_size, size_t out_size)
{
	_cleanup_free_ struct pinfs_ioc_stat *stat = calloc(1, sizeof(*stat));
	size_t head = offsetof(struct pinfs_ioc_stat, text), room;
	uint32_t size;

	if (!stat || in_size < sizeof(size)) {
		fuse_reply_err(req, stat ? EINVAL : ENOMEM);
		return;
	}
	memcpy(&size, in, sizeof(size));
	room = MIN(MIN((size_t)size, out_size), sizeof(*stat));
	if (room <= head) {
		fuse_reply_err(req, EINVAL);
		return;
	}
	stat->length = (uint32_t)vfs_stat_text(server_of(req)->vfs, stat->text, room - head);
	stat->size = (uint32_t)room;
	fuse_reply_ioctl(req, 0, stat, room);
}

/* The command's size is that of a long, what is passed that of an int: it was always so. */
static void ioctl_getflags(fuse_req_t req, fuse_ino_t ino, size_t out_size)
{
	uint32_t flags, project;
	int r = out_size < sizeof(flags) ? -EINVAL : vfs_getflags(server_of(req)->vfs, ino, &flags, &project);

	if (r < 0)
		reply_error(req, r);
	else
		fuse_reply_ioctl(req, 0, &flags, sizeof(flags));
}

/* The kernel doesn't know that this changes the ctime. */
static void flags_changed(fuse_req_t req, fuse_ino_t ino, int r)
{
	if (r == 0)
		fuse_lowlevel_notify_inval_inode(server_of(req)->session, ino, -1, 0);
}

static void ioctl_setflags(fuse_req_t req, fuse_ino_t ino, const void *in, size_t in_size)
{
	struct vfs *vfs = server_of(req)->vfs;
	uint32_t flags, old, project;
	int r = in_size < sizeof(flags) ? -EINVAL : vfs_getflags(vfs, ino, &old, &project);

	if (r == 0) {
		memcpy(&flags, in, sizeof(flags));
		r = vfs_setflags(vfs, ino, flags, project);
	}
	flags_changed(req, ino, r);
	reply_done(req, settled(req, r, ino));
}

static void ioctl_getxflags(fuse_req_t req, fuse_ino_t ino, size_t out_size)
{
	struct fsxattr x = {0};
	uint32_t flags;
	int r = out_size < sizeof(x) ? -EINVAL : vfs_getflags(server_of(req)->vfs, ino, &flags, &x.fsx_projid);

	if (r < 0) {
		reply_error(req, r);
		return;
	}
	for (size_t i = 0; i < ARRAY_SIZE(xflags); i++)
		x.fsx_xflags |= flags & xflags[i].flag ? xflags[i].xflag : 0;
	fuse_reply_ioctl(req, 0, &x, sizeof(x));
}

static void ioctl_setxflags(fuse_req_t req, fuse_ino_t ino, const void *in, size_t in_size)
{
	struct vfs *vfs = server_of(req)->vfs;
	uint32_t flags, project, unknown;
	struct fsxattr x;
	int r = in_size < sizeof(x) ? -EINVAL : vfs_getflags(vfs, ino, &flags, &project);

	if (r == 0) {
		memcpy(&x, in, sizeof(x));
		unknown = x.fsx_xflags;
		/* Flags that this struct has no names for stay. */
		for (size_t i = 0; i < ARRAY_SIZE(xflags); i++) {
			flags &= ~xflags[i].flag;
			flags |= x.fsx_xflags & xflags[i].xflag ? xflags[i].flag : 0;
			unknown &= ~xflags[i].xflag;
		}
		r = unknown || x.fsx_extsize || x.fsx_cowextsize ? -EOPNOTSUPP :
								    vfs_setflags(vfs, ino, flags, x.fsx_projid);
	}
	flags_changed(req, ino, r);
	reply_done(req, settled(req, r, ino));
}

static void ioctl_trim(fuse_req_t req, const void *in, size_t in_size, size_t out_size)
{
	struct fstrim_range range;
	int r = fuse_caller_uid(req) ? -EPERM : in_size < sizeof(range) || out_size < sizeof(range) ? -EINVAL : 0;
	uint64_t bytes;

	if (r == 0) {
		memcpy(&range, in, sizeof(range));
		r = vfs_trim(server_of(req)->vfs, range.start, range.len, range.minlen, &bytes);
	}
	if (r < 0) {
		reply_error(req, r);
		return;
	}
	range.len = bytes;
	fuse_reply_ioctl(req, 0, &range, sizeof(range));
}

/*
 * The command's number says "read", though the kind of shutdown lies at arg: the kernel sends the address alone. Where the
 * caller's memory may not be looked at, it is the kind that writes nothing any more.
 */
static void ioctl_shutdown(fuse_req_t req, const void *arg)
{
	uid_t uid = fuse_caller_uid(req);
	uint32_t kind;
	int r;

	if (uid == (uid_t)-1 || (uid != 0 && uid != geteuid())) {
		fuse_reply_err(req, EPERM);
		return;
	}
	if (fuse_caller_read(req, arg, &kind, sizeof(kind)) < 0)
		kind = SHUTDOWN_NOFLUSH;
	r = kind > SHUTDOWN_NOFLUSH ? -EINVAL : vfs_shutdown(server_of(req)->vfs, kind != SHUTDOWN_NOFLUSH);
	reply_done(req, r);
}

void op_ioctl(fuse_req_t req, fuse_ino_t ino, unsigned cmd, void *arg, struct fuse_file_info *fi, unsigned flags,
	const void *in, size_t in_size, size_t out_size)
{
	/* The size in cmd may be that of an older or newer struct; 32-bit programs have the same one. */
	if (ino == FUSE_ROOT_ID && _IOC_TYPE(cmd) == PINFS_IOC_MAGIC && _IOC_NR(cmd) == _IOC_NR(PINFS_IOC_INFO)) {
		ioctl_info(req, in, in_size, out_size);
		return;
	}
	if (ino == FUSE_ROOT_ID && _IOC_TYPE(cmd) == PINFS_IOC_MAGIC && _IOC_NR(cmd) == _IOC_NR(PINFS_IOC_STAT)) {
		ioctl_stat(req, in, in_size, out_size);
		return;
	}
	if (!server_of(req)->writable) {
		fuse_reply_err(req, ENOTTY);
		return;
	}
	if (cmd == FS_IOC_GETFLAGS || cmd == FS_IOC32_GETFLAGS)
		ioctl_getflags(req, ino, out_size);
	else if (cmd == FS_IOC_FSGETXATTR)
		ioctl_getxflags(req, ino, out_size);
	/* Kernels before 5.13 check nothing and send what any program says: with its address. */
	else if (cmd == FS_IOC_SETFLAGS && !arg)
		ioctl_setflags(req, ino, in, in_size);
	else if (cmd == FS_IOC_FSSETXATTR && !arg)
		ioctl_setxflags(req, ino, in, in_size);
	else if (cmd == FITRIM)
		ioctl_trim(req, in, in_size, out_size);
	else if (cmd == IOC_SHUTDOWN)
		ioctl_shutdown(req, arg);
	else
		fuse_reply_err(req, ENOTTY);
}
