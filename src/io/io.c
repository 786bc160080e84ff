/* SPDX-License-Identifier: MIT */
#include "io/io.h"

#include <fcntl.h>
#include <liburing.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/ioctl.h>
#include <linux/fs.h>

#include "base/log.h"
#include "base/sync.h"

#define IO_ALIGN 4096u
#define IO_LANES_DEFAULT 8u
#define IO_AGAIN_MAX 100u /* EAGAIN in a row, for a file that should block */
#define IO_MAX_READ_DEFAULT (1u << 20)

struct lane {
	struct io_uring ring;
	uint8_t *buffer;
	size_t buffer_size;
	bool has_ring, fixed_buffer, fixed_file;
	struct lane *next; /* in the free list; guarded by io_file.lock */
};

struct io_file {
	struct io_source source;
	int fd; /* -1 for a source that is not a file */
	struct io_options options;
	uint64_t size;
	atomic_bool direct;
	atomic_bool uring;
	const uint8_t *memory;

	struct mutex lock; /* "ring pool" in base/sync.h */
	struct cond freed;
	struct lane *free;    /* lock */
	unsigned made;	      /* lock */

	atomic_uint_fast64_t reads, bytes, errors;
};

static void lane_free(struct lane *l)
{
	if (!l)
		return;
	if (l->has_ring)
		io_uring_queue_exit(&l->ring);
	if (l->buffer)
		munmap(l->buffer, l->buffer_size);
	free(l);
}

/* The ring of a lane, with the file and the buffer registered where that is allowed. */
static int lane_setup_ring(struct io_file *f, struct lane *l)
{
	struct iovec iov = {l->buffer, l->buffer_size};
	int r;

	r = io_uring_queue_init(4, &l->ring, 0);
	if (r < 0)
		return r;
	l->has_ring = true;
	/* Both only save work per read; without them the ring works as well. */
	l->fixed_buffer = io_uring_register_buffers(&l->ring, &iov, 1) == 0;
	l->fixed_file = io_uring_register_files(&l->ring, &f->fd, 1) == 0;
	return 0;
}

static int lane_new(struct io_file *f, struct lane **ret)
{
	struct lane *l = calloc(1, sizeof(*l));
	int r;

	if (!l)
		return -ENOMEM;
	l->buffer_size = align_up(f->options.max_read, IO_ALIGN) + 2 * IO_ALIGN;
	l->buffer = mmap(NULL, l->buffer_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (l->buffer == MAP_FAILED) {
		l->buffer = NULL;
		lane_free(l);
		return -ENOMEM;
	}
	/* A daemon forks to mount and to unmount; the child must not inherit pages that a device writes. */
	madvise(l->buffer, l->buffer_size, MADV_DONTFORK);
	if (f->fd >= 0 && atomic_load(&f->uring)) {
		r = lane_setup_ring(f, l);
		if (r < 0 && f->options.engine == IO_ENGINE_URING) {
			lane_free(l);
			return r;
		}
		if (r < 0 && atomic_exchange(&f->uring, false))
			log_debug("io_uring is not available (%s); reading with pread", strerror(-r));
	}
	*ret = l;
	return 0;
}

static int lane_get(struct io_file *f, struct lane **ret)
{
	struct lane *l;
	int r;

	mutex_lock(&f->lock);
	while (!f->free && f->made >= f->options.lanes)
		cond_wait(&f->freed, &f->lock);
	l = f->free;
	if (l) {
		f->free = l->next;
		mutex_unlock(&f->lock);
		*ret = l;
		return 0;
	}
	f->made++;
	mutex_unlock(&f->lock);

	r = lane_new(f, ret);
	if (r < 0) {
		mutex_lock(&f->lock);
		f->made--;
		cond_signal(&f->freed);
		mutex_unlock(&f->lock);
	}
	return r;
}

static void lane_put(struct io_file *f, struct lane *l)
{
	mutex_lock(&f->lock);
	l->next = f->free;
	f->free = l;
	cond_signal(&f->freed);
	mutex_unlock(&f->lock);
}

static ssize_t uring_read(struct io_file *f, struct lane *l, uint8_t *buf, size_t len, uint64_t offset)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&l->ring);
	struct io_uring_cqe *cqe;
	int fd = l->fixed_file ? 0 : f->fd;
	int r;

	if (l->fixed_buffer)
		io_uring_prep_read_fixed(sqe, fd, buf, (unsigned)len, offset, 0);
	else
		io_uring_prep_read(sqe, fd, buf, (unsigned)len, offset);
	if (l->fixed_file)
		sqe->flags |= IOSQE_FIXED_FILE;
	do {
		r = io_uring_submit_and_wait(&l->ring, 1);
	} while (r == -EINTR || r == -EAGAIN);
	if (r < 0)
		return r;
	do {
		r = io_uring_wait_cqe(&l->ring, &cqe);
	} while (r == -EINTR);
	if (r < 0)
		return r;
	r = cqe->res;
	io_uring_cqe_seen(&l->ring, cqe);
	return r;
}

static ssize_t fd_pread(void *context, void *buf, size_t len, uint64_t offset)
{
	struct io_file *f = context;
	ssize_t n = pread(f->fd, buf, len, (off_t)offset);

	return n < 0 ? -errno : n;
}

static ssize_t memory_pread(void *context, void *buf, size_t len, uint64_t offset)
{
	struct io_file *f = context;

	if (offset >= f->size)
		return 0;
	len = MIN(len, f->size - offset);
	memcpy(buf, f->memory + offset, len);
	return (ssize_t)len;
}

/* O_DIRECT was promised at open but this file refuses it now (some stacked filesystems): go on without. */
static bool direct_give_up(struct io_file *f)
{
	int flags;

	if (!atomic_load(&f->direct) || f->options.caching == IO_CACHING_DIRECT)
		return false;
	flags = fcntl(f->fd, F_GETFL);
	if (flags < 0 || fcntl(f->fd, F_SETFL, flags & ~O_DIRECT) < 0)
		return false;
	atomic_store(&f->direct, false);
	return true;
}

/* Reads until at least `need` of the `len` bytes at offset are there. */
static int lane_read(struct io_file *f, struct lane *l, size_t len, size_t need, uint64_t offset)
{
	unsigned again = 0;
	size_t done = 0;

	while (done < need) {
		/* io_uring says EAGAIN where it would have to wait for memory or for a full queue; pread(2) waits. */
		ssize_t n = l->has_ring && !again ?
			uring_read(f, l, l->buffer + done, len - done, offset + done) :
			f->source.pread(f->source.context, l->buffer + done, len - done, offset + done);

		if (n == -EINTR || (n == -EAGAIN && again++ < IO_AGAIN_MAX))
			continue;
		if (n == -EINVAL && done == 0 && direct_give_up(f))
			continue;
		if (n < 0)
			return (int)n;
		if (n == 0)
			return -EIO; /* the file ends here: it has shrunk */
		done += (size_t)n;
		again = 0;
		if (done < need && atomic_load(&f->direct) && done % IO_ALIGN) {
			/* A short direct read that stops inside a page has met the end of the file. */
			return -EIO;
		}
	}
	return 0;
}

int io_read(struct io_file *f, uint64_t offset, size_t len, struct io_span *ret)
{
	uint64_t start = atomic_load(&f->direct) ? align_down(offset, IO_ALIGN) : offset;
	struct lane *l;
	size_t skip = (size_t)(offset - start), span;
	int r;

	sync_may_sleep("I/O");
	if (len > f->options.max_read || offset > f->size || len > f->size - offset) {
		atomic_fetch_add(&f->errors, 1);
		return -EIO;
	}
	r = lane_get(f, &l);
	if (r < 0)
		return r;
	span = atomic_load(&f->direct) ? align_up(skip + len, IO_ALIGN) : skip + len;
	r = lane_read(f, l, span, skip + len, start);
	if (r < 0) {
		atomic_fetch_add(&f->errors, 1);
		lane_put(f, l);
		return r;
	}
	atomic_fetch_add_explicit(&f->reads, 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&f->bytes, span, memory_order_relaxed);
	*ret = (struct io_span){.data = l->buffer + skip, .lane = l};
	return 0;
}

void io_span_put(struct io_file *f, struct io_span *span)
{
	if (span->lane)
		lane_put(f, span->lane);
	*span = (struct io_span){0};
}

static int file_new(const struct io_options *options, struct io_file **ret)
{
	struct io_file *f = calloc(1, sizeof(*f));

	if (!f)
		return -ENOMEM;
	f->fd = -1;
	if (options)
		f->options = *options;
	if (!f->options.lanes)
		f->options.lanes = IO_LANES_DEFAULT;
	if (!f->options.max_read)
		f->options.max_read = IO_MAX_READ_DEFAULT;
	mutex_init(&f->lock, LOCK_LANES);
	cond_init(&f->freed);
	*ret = f;
	return 0;
}

static int size_of(int fd, uint64_t *ret)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return -errno;
	if (S_ISDIR(st.st_mode))
		return -EISDIR;
	if (S_ISBLK(st.st_mode)) {
		if (ioctl(fd, BLKGETSIZE64, ret) < 0)
			return -errno;
		return 0;
	}
	if (!S_ISREG(st.st_mode))
		return -ENOTBLK;
	*ret = (uint64_t)st.st_size;
	return 0;
}

/* Does a direct read of the first page work? Opening with O_DIRECT says little on stacked filesystems. */
static bool direct_works(int fd)
{
	_cleanup_free_ void *page = NULL;

	if (posix_memalign(&page, IO_ALIGN, IO_ALIGN))
		return false;
	return pread(fd, page, IO_ALIGN, 0) >= 0;
}

/* O_NONBLOCK has done its work at open; io_uring would take it as "fail with EAGAIN instead of reading". */
static int blocking(int fd)
{
	int flags = fcntl(fd, F_GETFL);

	if (flags < 0 || fcntl(fd, F_SETFL, flags & ~O_NONBLOCK) < 0) {
		int r = -errno;

		close(fd);
		return r;
	}
	return fd;
}

static int open_fd(const char *path, enum io_caching caching, bool *ret_direct)
{
	int fd;

	*ret_direct = false;
	if (caching != IO_CACHING_BUFFERED) {
		fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_DIRECT);
		if (fd >= 0 && direct_works(fd)) {
			*ret_direct = true;
			return blocking(fd);
		}
		if (fd >= 0)
			close(fd);
		else if (errno != EINVAL)
			return -errno;
		if (caching == IO_CACHING_DIRECT)
			return -EINVAL;
	}
	/* O_NONBLOCK: opening a FIFO by mistake must not hang; size_of() refuses it. */
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	return fd < 0 ? -errno : blocking(fd);
}

int io_open(const char *path, const struct io_options *options, struct io_file **ret)
{
	struct io_file *f;
	bool direct;
	int r;

	r = file_new(options, &f);
	if (r < 0)
		return r;
	f->fd = open_fd(path, f->options.caching, &direct);
	if (f->fd < 0) {
		r = f->fd;
		goto fail;
	}
	r = size_of(f->fd, &f->size);
	if (r < 0)
		goto fail;
	atomic_store(&f->direct, direct);
	atomic_store(&f->uring, f->options.engine != IO_ENGINE_PREAD);
	f->source = (struct io_source){fd_pread, f, f->size};
	*ret = f;
	return 0;
fail:
	io_close(f);
	return r;
}

int io_open_memory(const void *data, size_t size, struct io_file **ret)
{
	struct io_file *f;
	int r = file_new(NULL, &f);

	if (r < 0)
		return r;
	f->memory = data;
	f->size = size;
	f->source = (struct io_source){memory_pread, f, size};
	*ret = f;
	return 0;
}

int io_open_source(const struct io_source *source, const struct io_options *options, struct io_file **ret)
{
	struct io_file *f;
	int r = file_new(options, &f);

	if (r < 0)
		return r;
	f->source = *source;
	f->size = source->size;
	*ret = f;
	return 0;
}

void io_close(struct io_file *f)
{
	if (!f)
		return;
	while (f->free) {
		struct lane *l = f->free;

		f->free = l->next;
		lane_free(l);
	}
	if (f->fd >= 0)
		close(f->fd);
	mutex_destroy(&f->lock);
	cond_destroy(&f->freed);
	free(f);
}

void io_set_max_read(struct io_file *f, size_t max_read)
{
	struct lane *l;

	mutex_lock(&f->lock);
	/* Lanes made for the old size go; opening the image has used one to read the superblock. */
	while ((l = f->free)) {
		f->free = l->next;
		f->made--;
		lane_free(l);
	}
	f->options.max_read = max_read;
	mutex_unlock(&f->lock);
}

size_t io_max_read(const struct io_file *f)
{
	return f->options.max_read;
}

uint64_t io_size(const struct io_file *f)
{
	return f->size;
}

int io_fd(const struct io_file *f)
{
	return f->fd;
}

const char *io_describe(const struct io_file *f)
{
	bool direct = atomic_load(&f->direct);

	if (f->fd < 0)
		return "memory";
	if (atomic_load(&f->uring))
		return direct ? "io_uring, O_DIRECT" : "io_uring, buffered";
	return direct ? "pread, O_DIRECT" : "pread, buffered";
}

void io_get_stats(const struct io_file *f, struct io_stats *ret)
{
	*ret = (struct io_stats){.reads = f->reads, .bytes = f->bytes, .errors = f->errors};
}
