/* SPDX-License-Identifier: MIT */
/* The image file: written under a temporary name, made durable, then given its name. */
#include "mkfs/mkfs.h"

#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <sys/file.h>

#include "base/log.h"

#define FLUSH_STEP (16u << 20)

const char *volatile output_temporary_name;

static const uint8_t zeroes[65536];

static int fail(const struct output *out, int r, const char *what)
{
	log_error("can't %s %s: %s", what, out->temporary ? out->temporary : "the image", strerror(-r));
	return r;
}

static int copy_prepend(struct output *out, const char *path)
{
	_cleanup_free_ uint8_t *buf = malloc(1u << 20);
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
	uint64_t at = 0;
	struct stat st;

	if (!buf)
		return -ENOMEM;
	if (fd < 0 || fstat(fd, &st) < 0) {
		int r = -errno;

		log_error("can't read %s: %s", path, strerror(-r));
		return r;
	}
	for (;;) {
		ssize_t n = read(fd, buf, 1u << 20);
		int r;

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			r = -errno;
			log_error("can't read %s: %s", path, strerror(-r));
			return r;
		}
		if (!n)
			break;
		r = out->dry_run ? 0 : pwrite_all(out->fd, buf, (size_t)n, at);
		if (r < 0)
			return fail(out, r, "write");
		at += (uint64_t)n;
	}
	if (!out->dry_run && !out->device && fchmod(out->fd, (st.st_mode & 0777) | 0600) < 0)
		return fail(out, -errno, "set the mode of");
	out->base = align_up(at, PINFS_PAGE_SIZE);
	return 0;
}

static int open_device(const struct mkfs_options *o, struct output *out)
{
	if (!o->force) {
		log_error("%s is a block device; --force writes the image onto it", o->image);
		return -EEXIST;
	}
	out->device = true;
	out->fd = open(o->image, O_RDWR | O_EXCL | O_CLOEXEC);
	if (out->fd < 0) {
		int r = -errno;

		log_error("can't open %s: %s", o->image, r == -EBUSY ? "it is mounted or in use" : strerror(-r));
		return r;
	}
	return 0;
}

static int open_temporary(const struct mkfs_options *o, struct output *out)
{
	mode_t mask = umask(0);

	umask(mask);
	if (asprintf(&out->temporary, "%s.tmp-XXXXXX", o->image) < 0) {
		out->temporary = NULL;
		return -ENOMEM;
	}
	out->fd = mkostemp(out->temporary, O_CLOEXEC);
	if (out->fd < 0) {
		int r = -errno;

		log_error("can't create %s: %s", out->temporary, strerror(-r));
		free(out->temporary);
		out->temporary = NULL;
		return r;
	}
	output_temporary_name = out->temporary;
	if (fchmod(out->fd, 0666 & ~mask) < 0)
		return fail(out, -errno, "set the mode of");
	return 0;
}

int output_open(const struct mkfs_options *o, struct output *out)
{
	struct stat st;
	/* A symbolic link that leads nowhere is in the way, too. */
	bool exists = o->image && (stat(o->image, &st) == 0 || lstat(o->image, &st) == 0);
	int r = 0;

	*out = (struct output){.fd = -1, .dry_run = o->dry_run};
	if (!o->dry_run) {
		if (exists && S_ISBLK(st.st_mode)) {
			r = open_device(o, out);
		} else if (exists && !S_ISREG(st.st_mode) && !S_ISLNK(st.st_mode)) {
			log_error("%s exists and is not a regular file", o->image);
			r = -EEXIST;
		} else if (exists && !o->force) {
			log_error("%s exists; --force replaces it", o->image);
			r = -EEXIST;
		} else {
			r = open_temporary(o, out);
		}
	}
	if (r == 0 && o->prepend)
		r = copy_prepend(out, o->prepend);
	return r;
}

/* Has the kernel begin to write while there is still work to do, so that the final fsync is short. */
static void flush_early(struct output *out)
{
	if (out->pos - out->flushed < FLUSH_STEP)
		return;
	sync_file_range(out->fd, (off_t)(out->base + out->flushed), (off_t)(out->pos - out->flushed),
		SYNC_FILE_RANGE_WRITE);
	out->flushed = out->pos;
}

int output_pwrite(struct output *out, uint64_t offset, const void *data, size_t len)
{
	int r;

	if (out->dry_run)
		return 0;
	r = pwrite_all(out->fd, data, len, out->base + offset);
	return r < 0 ? fail(out, r, "write") : 0;
}

int output_write(struct output *out, const void *data, size_t len)
{
	int r = output_pwrite(out, out->pos, data, len);

	if (r < 0)
		return r;
	out->pos += len;
	if (!out->dry_run)
		flush_early(out);
	return 0;
}

int output_writev(struct output *out, struct iovec *iov, int count)
{
	while (count) {
		ssize_t n;

		if (out->dry_run) {
			n = (ssize_t)iov->iov_len;
		} else {
			n = pwritev(out->fd, iov, count, (off_t)(out->base + out->pos));
			if (n < 0 && errno == EINTR)
				continue;
			if (n < 0)
				return fail(out, -errno, "write");
		}
		out->pos += (uint64_t)n;
		for (; count && (size_t)n >= iov->iov_len; iov++, count--)
			n -= (ssize_t)iov->iov_len;
		if (count) {
			iov->iov_base = (uint8_t *)iov->iov_base + n;
			iov->iov_len -= (size_t)n;
		}
	}
	if (!out->dry_run)
		flush_early(out);
	return 0;
}

int output_pread(struct output *out, uint64_t offset, void *data, size_t len)
{
	int r = pread_all(out->fd, data, len, out->base + offset);

	return r < 0 ? fail(out, r, "read back") : 0;
}

int output_align(struct output *out, uint64_t align)
{
	uint64_t gap = align_up(out->base + out->pos, align) - (out->base + out->pos);

	/* Big gaps stay holes of the file: it is new, so they read as zeroes. A device has old bytes. */
	if (gap > sizeof(zeroes) && !out->device) {
		out->pos += gap;
		return 0;
	}
	while (gap) {
		size_t n = (size_t)MIN(gap, (uint64_t)sizeof(zeroes));
		int r = output_write(out, zeroes, n);

		if (r < 0)
			return r;
		gap -= n;
	}
	return 0;
}

static int sync_directory(const char *image)
{
	_cleanup_free_ char *copy = strdup(image);
	_cleanup_close_ int fd = -1;

	if (!copy)
		return -ENOMEM;
	fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	/* Some filesystems can't sync a directory; the image itself is durable. */
	if (fd < 0 || (fsync(fd) < 0 && errno != EINVAL))
		return -errno;
	return 0;
}

int output_commit(struct output *out, const struct mkfs_options *o)
{
	int r;

	if (out->dry_run)
		return 0;
	if (fsync(out->fd) < 0)
		return fail(out, -errno, "write");
	if (out->device)
		return 0;
	/* Without --force another program's file that came up meanwhile is not replaced either. */
	if (o->force ? rename(out->temporary, o->image) < 0 :
		       renameat2(AT_FDCWD, out->temporary, AT_FDCWD, o->image, RENAME_NOREPLACE) < 0 &&
			(errno != EINVAL || rename(out->temporary, o->image) < 0)) {
		r = -errno;
		log_error("can't give %s its name %s: %s", out->temporary, o->image, strerror(-r));
		return r;
	}
	output_temporary_name = NULL;
	free(out->temporary);
	out->temporary = NULL;
	r = sync_directory(o->image);
	if (r < 0)
		log_error("can't sync the directory of %s: %s", o->image, strerror(-r));
	return r;
}

void output_discard(struct output *out)
{
	if (out->fd >= 0)
		close(out->fd);
	out->fd = -1;
	if (out->temporary)
		unlink(out->temporary);
	output_temporary_name = NULL;
	free(out->temporary);
	out->temporary = NULL;
}
