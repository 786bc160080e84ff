/* SPDX-License-Identifier: MIT */
#include "io/store.h"

#include <fcntl.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <stdatomic.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <linux/magic.h>

#include "base/log.h"
#include "base/sync.h"

struct store {
	const struct store_ops *ops;
	void *context;
	uint64_t size;
	int fd; /* of fd_ops */
	int direct_fd;	  /* the same, past the page cache; -1 */
	atomic_bool direct; /* that works */
	atomic_uint_fast64_t reads, read_bytes, writes, written_bytes, flushes, punched_bytes;
};

/* ---- a file ---- */

static ssize_t fd_pread(void *context, void *buf, size_t len, uint64_t offset)
{
	struct store *s = context;
	ssize_t n = pread(s->fd, buf, len, (off_t)offset);

	return n < 0 ? -errno : n;
}

/* Much that is written at once is not read again soon: the page cache would cost more than the disk. */
#define DIRECT_LEAST ((size_t)64 << 10)
#define DIRECT_ALIGN 4096u

static bool for_direct(const struct store *s, const void *buf, size_t len, uint64_t offset)
{
	return len >= DIRECT_LEAST && !(((uintptr_t)buf | len | offset) % DIRECT_ALIGN) &&
		atomic_load_explicit(&s->direct, memory_order_relaxed);
}

static ssize_t fd_pwrite(void *context, const void *buf, size_t len, uint64_t offset)
{
	struct store *s = context;
	ssize_t n;

	if (for_direct(s, buf, len, offset)) {
		n = pwrite(s->direct_fd, buf, len, (off_t)offset);
		if (n >= 0)
			return n;
		if (errno == EINVAL || errno == EOPNOTSUPP)
			/* It wants other boundaries, or can't at all. */
			atomic_store_explicit(&s->direct, false, memory_order_relaxed);
		/* What fails for another reason fails again, now or with the flush: then all hear of it in the same way. */
	}
	n = pwrite(s->fd, buf, len, (off_t)offset);
	return n < 0 ? -errno : n;
}

static int fd_flush(void *context)
{
	struct store *s = context;

	return fdatasync(s->fd) < 0 ? -errno : 0;
}

static void fd_hurry(void *context, uint64_t offset, uint64_t len)
{
	struct store *s = context;

	sync_file_range(s->fd, (off_t)offset, (off_t)len, SYNC_FILE_RANGE_WRITE);
}

static int fd_punch(void *context, uint64_t offset, uint64_t len)
{
	struct store *s = context;

	return fallocate(s->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)len) < 0 ? -errno : 0;
}

static int fd_allocate(void *context, uint64_t offset, uint64_t len)
{
	struct store *s = context;

	if (fallocate(s->fd, 0, (off_t)offset, (off_t)len) == 0)
		return 0;
	/* Bytes are written to have a place then: past the page cache that takes blocks which nobody knows of, where the disk gets full. */
	if (errno == EOPNOTSUPP)
		atomic_store_explicit(&s->direct, false, memory_order_relaxed);
	return -errno;
}

static int fd_available(void *context, uint64_t *ret)
{
	struct store *s = context;
	struct statvfs fs;

	if (fstatvfs(s->fd, &fs) < 0)
		return -errno;
	*ret = (uint64_t)(geteuid() ? fs.f_bavail : fs.f_bfree) * fs.f_frsize;
	return 0;
}

static int fd_hole(void *context, uint64_t offset, uint64_t *ret)
{
	struct store *s = context;
	off_t at = lseek(s->fd, (off_t)offset, SEEK_HOLE);

	if (at < 0)
		return -errno;
	*ret = (uint64_t)at;
	return 0;
}

/* Where an extent lies may change when it is written, or it may be a promise only. */
#define MOVES (FIEMAP_EXTENT_UNKNOWN | FIEMAP_EXTENT_DELALLOC | FIEMAP_EXTENT_ENCODED | FIEMAP_EXTENT_DATA_INLINE | FIEMAP_EXTENT_DATA_TAIL | FIEMAP_EXTENT_SHARED)

/* What was written already is written elsewhere the next time: all files of some filesystems, unless they are told not to. */
static bool copies_on_write(struct store *s)
{
	struct statfs fs;
	int flags;

	if (fstatfs(s->fd, &fs) < 0 || fs.f_type != BTRFS_SUPER_MAGIC)
		return false;
	return ioctl(s->fd, FS_IOC_GETFLAGS, &flags) < 0 || !(flags & FS_NOCOW_FL);
}

static int fd_placed(void *context, uint64_t offset, uint64_t *ret_first, uint64_t *ret_len)
{
	struct store *s = context;
	bool cow = copies_on_write(s);
	struct {
		struct fiemap map;
		struct fiemap_extent extents[64];
	} f;

	for (;;) {
		memset(&f, 0, sizeof(f));
		f.map.fm_start = offset;
		/* What only the kernel's cache has, so far, has a place then. */
		f.map.fm_flags = FIEMAP_FLAG_SYNC;
		f.map.fm_length = FIEMAP_MAX_OFFSET - offset;
		f.map.fm_extent_count = ARRAY_SIZE(f.extents);
		if (ioctl(s->fd, FS_IOC_FIEMAP, &f.map) < 0)
			return errno == ENOTTY || errno == EBADR ? -EOPNOTSUPP : -errno;
		if (!f.map.fm_mapped_extents)
			return -ENXIO;
		for (uint32_t i = 0; i < f.map.fm_mapped_extents; i++) {
			const struct fiemap_extent *e = &f.map.fm_extents[i];
			uint64_t first = MAX((uint64_t)e->fe_logical, offset), end = e->fe_logical + e->fe_length;

			if (!(e->fe_flags & MOVES) && end > first && (!cow || e->fe_flags & FIEMAP_EXTENT_UNWRITTEN)) {
				*ret_first = first;
				*ret_len = end - first;
				return 0;
			}
			offset = MAX(offset, end);
			if (e->fe_flags & FIEMAP_EXTENT_LAST)
				return -ENXIO;
		}
	}
}

static void fd_close(void *context)
{
	struct store *s = context;

	if (s->direct_fd >= 0)
		close(s->direct_fd);
	close(s->fd);
}

static const struct store_ops fd_ops = {
	.pread = fd_pread,
	.pwrite = fd_pwrite,
	.flush = fd_flush,
	.hurry = fd_hurry,
	.punch = fd_punch,
	.allocate = fd_allocate,
	.available = fd_available,
	.hole = fd_hole,
	.placed = fd_placed,
	.close = fd_close,
};

/* ---- opening ---- */

static int store_new(const struct store_ops *ops, void *context, uint64_t size, struct store **ret)
{
	struct store *s = calloc(1, sizeof(*s));

	if (!s)
		return -ENOMEM;
	s->ops = ops;
	s->context = context ? context : s;
	s->size = size;
	s->fd = s->direct_fd = -1;
	*ret = s;
	return 0;
}

int store_open_ops(const struct store_ops *ops, void *context, uint64_t size, struct store **ret)
{
	return store_new(ops, context, size, ret);
}

/* flock(2); where the filesystem has none, nobody can be kept out. */
static int lock_file(int fd, bool shared)
{
	if (flock(fd, (shared ? LOCK_SH : LOCK_EX) | LOCK_NB) < 0 && errno == EWOULDBLOCK)
		return -EBUSY;
	return 0;
}

/* A second descriptor of the same file. Where there can't be one, all goes through the page cache. */
static void open_direct(struct store *s)
{
	char path[sizeof("/proc/self/fd/") + 11];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", s->fd);
	s->direct_fd = open(path, O_WRONLY | O_DIRECT | O_CLOEXEC);
	atomic_init(&s->direct, s->direct_fd >= 0);
}

static int adopt(int fd, struct store **ret)
{
	struct store *s;
	struct stat st;
	int r;

	if (fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode))
		return S_ISDIR(st.st_mode) ? -EISDIR : -ENOTBLK;
	r = store_new(&fd_ops, NULL, (uint64_t)st.st_size, &s);
	if (r < 0)
		return r;
	s->fd = fd;
	if ((fcntl(fd, F_GETFL) & O_ACCMODE) == O_RDWR)
		open_direct(s);
	*ret = s;
	return 0;
}

/*
 * Where each write would go to a new place (btrfs), what the delta writes over, its log, could fail for want of space at any time; and each of
 * its pages has a checksum already. Others know no such flag. Only as long as the file is empty.
 */
static void write_in_place(int fd)
{
	int flags;

	if (ioctl(fd, FS_IOC_GETFLAGS, &flags) < 0 || flags & FS_NOCOW_FL)
		return;
	flags |= FS_NOCOW_FL;
	if (ioctl(fd, FS_IOC_SETFLAGS, &flags) < 0)
		log_debug("the delta is copied on write: %s", strerror(errno));
}

/*
 * What somebody wrote before us may have failed to reach the disk since, and nobody was told: the first fsync says so, once. Then the kernel's
 * cache has bytes that the disk hasn't, and that are gone some day. What is read from now on is what the disk has.
 */
static int settle_earlier(int fd)
{
	if (fdatasync(fd) == 0)
		return 0;
	posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	return fdatasync(fd) < 0 ? -errno : 0;
}

int store_open(const char *path, unsigned flags, struct store **ret)
{
	bool read_only = flags & STORE_READ_ONLY;
	struct store *s = NULL;
	int fd, r;

	/* O_NONBLOCK: a FIFO of that name must not make us wait. */
	fd = open(path, (read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW * !!(flags & STORE_CREATE) |
		(flags & STORE_CREATE ? O_CREAT | O_EXCL : 0), 0600);
	if (fd < 0)
		return -errno;
	r = lock_file(fd, read_only);
	if (r == 0 && flags & STORE_CREATE)
		write_in_place(fd);
	if (r == 0)
		r = adopt(fd, &s);
	if (r < 0) {
		close(fd);
		return r;
	}
	if (!(flags & STORE_CREATE) && !read_only)
		r = settle_earlier(fd);
	if (r < 0) {
		store_close(s);
		return r;
	}
	*ret = s;
	return 0;
}

int store_sync_name(const char *path)
{
	_cleanup_free_ char *real = realpath(path, NULL);
	char *slash = real ? strrchr(real, '/') : NULL;
	int fd, r = 0;

	if (!slash)
		return real ? -EINVAL : -errno;
	slash[slash == real] = 0;
	fd = open(real, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return errno == EACCES || errno == EPERM ? 0 : -errno;
	if (fsync(fd) < 0 && errno != EINVAL && errno != EOPNOTSUPP && errno != ENOSYS)
		r = -errno;
	close(fd);
	return r;
}

int store_open_unnamed(const char *dir, struct store **ret)
{
	char name[4096];
	int fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600), r;

	/* Some filesystems don't know such files. */
	if (fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR || errno == EINVAL)) {
		if ((size_t)snprintf(name, sizeof(name), "%s/.pinfs-XXXXXX", dir) >= sizeof(name))
			return -ENAMETOOLONG;
		fd = mkostemp(name, O_CLOEXEC);
		if (fd >= 0)
			unlink(name);
	}
	if (fd < 0)
		return -errno;
	write_in_place(fd);
	r = adopt(fd, ret);
	if (r < 0)
		close(fd);
	return r;
}

void store_close(struct store *s)
{
	if (!s)
		return;
	if (s->ops->close)
		s->ops->close(s->context);
	free(s);
}

uint64_t store_size(const struct store *s)
{
	return s->size;
}

/* ---- using it ---- */

int store_read(struct store *s, uint64_t offset, void *buf, size_t len)
{
	uint8_t *to = buf;
	size_t done = 0;

	sync_may_sleep("I/O");
	while (done < len) {
		ssize_t n = s->ops->pread(s->context, to + done, len - done, offset + done);

		if (n == -EINTR)
			continue;
		if (n < 0)
			return (int)n;
		if (n == 0) {
			memset(to + done, 0, len - done);
			break;
		}
		done += (size_t)n;
	}
	atomic_fetch_add_explicit(&s->reads, 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&s->read_bytes, len, memory_order_relaxed);
	return 0;
}

int store_write(struct store *s, uint64_t offset, const void *buf, size_t len)
{
	const uint8_t *from = buf;
	size_t done = 0;

	sync_may_sleep("I/O");
	while (done < len) {
		ssize_t n = s->ops->pwrite(s->context, from + done, len - done, offset + done);

		if (n == -EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? (int)n : -EIO;
		done += (size_t)n;
	}
	atomic_fetch_add_explicit(&s->writes, 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&s->written_bytes, len, memory_order_relaxed);
	return 0;
}

int store_flush(struct store *s)
{
	sync_may_sleep("I/O");
	atomic_fetch_add_explicit(&s->flushes, 1, memory_order_relaxed);
	/* Not repeated after EINTR, or anything else: what failed once may say that all is well the next time. */
	return s->ops->flush(s->context);
}

void store_hurry(struct store *s, uint64_t offset, uint64_t len)
{
	if (s->ops->hurry)
		s->ops->hurry(s->context, offset, len);
}

int store_punch(struct store *s, uint64_t offset, uint64_t len)
{
	int r = s->ops->punch(s->context, offset, len);

	if (r == 0)
		atomic_fetch_add_explicit(&s->punched_bytes, len, memory_order_relaxed);
	return r;
}

int store_allocate(struct store *s, uint64_t offset, uint64_t len)
{
	int r;

	do {
		r = s->ops->allocate(s->context, offset, len);
	} while (r == -EINTR);
	return r == -ENOSYS ? -EOPNOTSUPP : r;
}

int store_available(struct store *s, uint64_t *ret)
{
	return s->ops->available(s->context, ret);
}

int store_hole(struct store *s, uint64_t offset, uint64_t *ret)
{
	return s->ops->hole(s->context, offset, ret);
}

int store_placed(struct store *s, uint64_t offset, uint64_t *ret_first, uint64_t *ret_len)
{
	return s->ops->placed ? s->ops->placed(s->context, offset, ret_first, ret_len) : -EOPNOTSUPP;
}

void store_get_stats(const struct store *s, struct store_stats *ret)
{
	*ret = (struct store_stats){
		.reads = s->reads,
		.read_bytes = s->read_bytes,
		.writes = s->writes,
		.written_bytes = s->written_bytes,
		.flushes = s->flushes,
		.punched_bytes = s->punched_bytes,
	};
}
