/* SPDX-License-Identifier: MIT */
/* Does one operation on the real file, and compares what it reads with the model. */
#include <fcntl.h>
#include <liburing.h>
#include <linux/falloc.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>

#include "fsx.h"

#define PIECES 4u

static struct io_uring ring;
static bool have_ring, have_buffers;

/* Bits of op->bits. */
#define BIT_SYNC 1u   /* msync before munmap, wait in sync_file_range */
#define BIT_FIXED 2u  /* registered buffers */
#define BIT_SINGLE 4u /* not in pieces */
#define BIT_FLUSH 8u  /* fdatasync before fadvise */

void refuse(enum kind kind, const char *why)
{
	if (fsx.off[kind])
		return;
	fsx.off[kind] = true;
	fprintf(stderr, "fsx: note: %s is left out: %s\n", op_names[kind], why);
	if (fsx.need[kind])
		exit(77);
}

static _Noreturn void failed(const struct op *op, const char *call)
{
	report("%s: %s: %s", fsx.file[op->file].path, call, strerror(errno));
}

static void expect(const struct op *op, const char *call, ssize_t got, uint64_t want)
{
	if (got < 0)
		failed(op, call);
	if ((uint64_t)got != want)
		report("%s: %s: %zd bytes instead of %ju", fsx.file[op->file].path, call, got,
			(uintmax_t)want);
}

static uint64_t readable(const struct file *f, const struct op *op)
{
	return op->off >= f->size ? 0 : MIN(op->len, f->size - op->off);
}

/* ---- files and mappings ---- */

static int open_or_report(const struct file *f, int flags)
{
	int fd = open(f->path, flags | O_CLOEXEC, 0644);

	if (fd < 0)
		report("%s: open: %s", f->path, strerror(errno));
	return fd;
}

static void direct_refused(void)
{
	static const enum kind kinds[] = {OP_READ_DIRECT, OP_READ_URING_DIRECT, OP_WRITE_DIRECT,
		OP_WRITE_URING_DIRECT, OP_READ_SELF_DIRECT, OP_WRITE_SELF_DIRECT};

	for (unsigned i = 0; i < ARRAY_SIZE(kinds); i++)
		refuse(kinds[i], "no O_DIRECT here");
}

int file_open(struct file *f, bool create)
{
	f->fd = open_or_report(f, O_RDWR | (create ? O_CREAT | O_TRUNC : 0));
	f->fd_append = open_or_report(f, O_WRONLY | O_APPEND);
	f->fd_direct = -1;
	if (fsx.off[OP_READ_DIRECT] && fsx.off[OP_WRITE_DIRECT] && fsx.off[OP_READ_URING_DIRECT] &&
		fsx.off[OP_WRITE_URING_DIRECT])
		return 0;
	f->fd_direct = open(f->path, O_RDWR | O_DIRECT | O_CLOEXEC);
	if (f->fd_direct < 0) {
		if (errno != EINVAL)
			report("%s: open with O_DIRECT: %s", f->path, strerror(errno));
		direct_refused();
	}
	return 0;
}

void file_close(struct file *f, bool mappings)
{
	int fds[] = {f->fd, f->fd_append, f->fd_direct};

	for (unsigned i = 0; i < ARRAY_SIZE(fds); i++)
		if (fds[i] >= 0 && close(fds[i]))
			report("%s: close: %s", f->path, strerror(errno));
	f->fd = f->fd_append = f->fd_direct = -1;
	for (unsigned i = 0; mappings && i < KEEP_SLOTS; i++)
		if (f->keep[i].addr) {
			munmap(f->keep[i].addr, f->keep[i].len);
			f->keep[i].addr = NULL;
		}
}

void file_map(struct file *f, struct keep *k)
{
	k->addr = mmap(NULL, k->len, PROT_READ | PROT_WRITE, MAP_SHARED, f->fd, k->off);
	if (k->addr == MAP_FAILED)
		report("%s: mmap: %s", f->path, strerror(errno));
}

/* A mapping for one operation: whole pages around off, len. */
struct view {
	uint8_t *base, *at;
	size_t len;
};

static struct view view_open(const struct op *op, uint64_t off, uint64_t len, int prot)
{
	uint64_t start = align_down(off, fsx.page);
	struct view v = {.len = off + len - start};

	v.base = mmap(NULL, v.len, prot, MAP_SHARED, fsx.file[op->file].fd, start);
	if (v.base == MAP_FAILED)
		failed(op, "mmap");
	v.at = v.base + (off - start);
	return v;
}

static void view_close(const struct op *op, struct view *v, bool sync)
{
	if (sync && msync(v->base, v->len, MS_SYNC))
		failed(op, "msync");
	munmap(v->base, v->len);
}

void file_compare(struct file *f, bool mapped)
{
	uint64_t step = fsx.op_limit;

	for (uint64_t off = 0; off < f->size; off += step) {
		struct op op = {.file = f - fsx.file, .off = off, .len = MIN(step, f->size - off)};

		if (mapped) {
			struct view v = view_open(&op, off, op.len, PROT_READ);

			model_check(f, off, v.at, op.len, "whole file, mapped");
			view_close(&op, &v, false);
		} else {
			expect(&op, "read", pread(f->fd, fsx.in, op.len, off), op.len);
			model_check(f, off, fsx.in, op.len, "whole file, read");
		}
	}
	if (pread(f->fd, fsx.in, 1, f->size) != 0)
		report("%s: there is more than %ju bytes", f->path, (uintmax_t)f->size);
}

/* ---- io_uring ---- */

void ring_open(void)
{
	struct iovec vecs[2] = {{fsx.out, fsx.op_limit}, {fsx.in, fsx.op_limit}};
	int r;

	if (fsx.off[OP_READ_URING] && fsx.off[OP_WRITE_URING] && fsx.off[OP_READ_URING_DIRECT] &&
		fsx.off[OP_WRITE_URING_DIRECT])
		return;
	r = io_uring_queue_init(2 * PIECES, &ring, 0);
	if (r) {
		static const enum kind kinds[] = {
			OP_READ_URING, OP_WRITE_URING, OP_READ_URING_DIRECT, OP_WRITE_URING_DIRECT};

		for (unsigned i = 0; i < ARRAY_SIZE(kinds); i++)
			refuse(kinds[i], strerror(-r));
		return;
	}
	have_ring = true;
	r = io_uring_register_buffers(&ring, vecs, 2);
	have_buffers = !r;
	if (r)
		fprintf(stderr, "fsx: note: no registered buffers: %s\n", strerror(-r));
}

void ring_close(void)
{
	if (have_ring)
		io_uring_queue_exit(&ring);
	have_ring = false;
}

/* Queues one piece of the transfer. */
static void ring_push(const struct op *op, int fd, bool write, uint64_t at, uint64_t len, uint64_t tag)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);
	bool fixed = have_buffers && (op->bits & BIT_FIXED);
	uint8_t *buf = (write ? fsx.out : fsx.in) + at;

	if (write && fixed)
		io_uring_prep_write_fixed(sqe, fd, buf, len, op->off + at, 0);
	else if (write)
		io_uring_prep_write(sqe, fd, buf, len, op->off + at);
	else if (fixed)
		io_uring_prep_read_fixed(sqe, fd, buf, len, op->off + at, 1);
	else
		io_uring_prep_read(sqe, fd, buf, len, op->off + at);
	io_uring_sqe_set_data(sqe, (void *)(uintptr_t)tag);
}

/* Up to PIECES requests at once; want bytes must be transferred, in as many steps as it takes. */
static void ring_transfer(const struct op *op, int fd, bool write, uint64_t want, uint64_t align)
{
	uint64_t at[PIECES], left[PIECES], step;
	unsigned pieces = op->bits & BIT_SINGLE ? 1 : PIECES, busy = 0;

	step = align_up(DIV_ROUND_UP(MAX(op->len, (uint64_t)1), pieces), align);
	for (unsigned i = 0; i < pieces; i++) {
		uint64_t start = MIN(i * step, op->len), end = MIN(start + step, op->len);

		at[i] = start;
		left[i] = MIN(end, MAX(want, start)) - start;
		if (end > start) {
			ring_push(op, fd, write, start, end - start, i);
			busy++;
		}
	}
	while (busy) {
		struct io_uring_cqe *cqe;
		int r = io_uring_submit_and_wait(&ring, 1);

		if (r < 0 && r != -EINTR)
			report("io_uring_submit: %s", strerror(-r));
		while (!io_uring_peek_cqe(&ring, &cqe)) {
			unsigned i = (uintptr_t)io_uring_cqe_get_data(cqe);
			int res = cqe->res;

			io_uring_cqe_seen(&ring, cqe);
			busy--;
			if (res < 0 || (!res && left[i]) || (uint64_t)res > left[i])
				report("%s: io_uring %s of %#jx+: %d (%s), %ju bytes were left",
					fsx.file[op->file].path, write ? "write" : "read",
					(uintmax_t)(op->off + at[i]), res, res < 0 ? strerror(-res) : "bytes",
					(uintmax_t)left[i]);
			at[i] += res;
			left[i] -= res;
			if (left[i]) {
				ring_push(op, fd, write, at[i], align_up(left[i], align), i);
				busy++;
			}
		}
	}
}

static void run_uring(const struct op *op)
{
	struct file *f = &fsx.file[op->file];
	bool direct = op->kind == OP_READ_URING_DIRECT || op->kind == OP_WRITE_URING_DIRECT;
	bool write = op->kind == OP_WRITE_URING || op->kind == OP_WRITE_URING_DIRECT;
	uint64_t want = write ? op->len : readable(f, op);

	ring_transfer(op, direct ? f->fd_direct : f->fd, write, want, direct ? fsx.direct_align : 1);
	if (!write)
		model_check(f, op->off, fsx.in, want, op_names[op->kind]);
}

/* ---- reads and writes ---- */

/* Cuts a buffer in up to three at places that depend on bits. */
static int cut(const struct op *op, uint8_t *buf, struct iovec vecs[3])
{
	uint64_t a = op->bits % (op->len + 1), b = a + (op->bits >> 8) % (op->len - a + 1);

	vecs[0] = (struct iovec){buf, a};
	vecs[1] = (struct iovec){buf + a, b - a};
	vecs[2] = (struct iovec){buf + b, op->len - b};
	return 3;
}

static void run_read(const struct op *op)
{
	struct file *f = &fsx.file[op->file];
	struct iovec vecs[3];
	ssize_t n;

	memset(fsx.in, 0xa5, op->len);
	if (op->kind == OP_READV)
		n = preadv(f->fd, vecs, cut(op, fsx.in, vecs), op->off);
	else
		n = pread(op->kind == OP_READ_DIRECT ? f->fd_direct : f->fd, fsx.in, op->len, op->off);
	expect(op, op_names[op->kind], n, readable(f, op));
	model_check(f, op->off, fsx.in, readable(f, op), op_names[op->kind]);
}

static void run_write(const struct op *op)
{
	struct file *f = &fsx.file[op->file];
	struct iovec vecs[3];
	ssize_t n;

	if (op->kind == OP_APPEND)
		n = write(f->fd_append, fsx.out, op->len);
	else if (op->kind == OP_WRITEV)
		n = pwritev(f->fd, vecs, cut(op, fsx.out, vecs), op->off);
	else
		n = pwrite(op->kind == OP_WRITE_DIRECT ? f->fd_direct : f->fd, fsx.out, op->len, op->off);
	expect(op, op_names[op->kind], n, op->len);
	if (op->kind == OP_APPEND)
		expect(op, "position after append", lseek(f->fd_append, 0, SEEK_CUR), op->off + op->len);
}

/* The rest of the last page is zeros to whoever maps it. */
static void check_tail(const struct op *op)
{
	struct file *f = &fsx.file[op->file];
	uint64_t rest = align_up(f->size, fsx.page) - f->size;
	struct view v;

	if (!rest || !fsx.off[OP_POLLUTE])
		return;
	v = view_open(op, f->size, rest, PROT_READ);
	for (uint64_t i = 0; i < rest; i++)
		if (v.at[i])
			report("%s: mapped byte %#jx, behind the end %#jx, is 0x%02x", f->path,
				(uintmax_t)(f->size + i), (uintmax_t)f->size, v.at[i]);
	view_close(op, &v, false);
}

static void run_mapped(const struct op *op)
{
	struct file *f = &fsx.file[op->file];
	bool write = op->kind == OP_WRITE_MAPPED;
	struct view v = view_open(op, op->off, op->len, write ? PROT_READ | PROT_WRITE : PROT_READ);

	if (write)
		memcpy(v.at, fsx.out, op->len);
	else
		model_check(f, op->off, v.at, op->len, op_names[op->kind]);
	view_close(op, &v, write && (op->bits & BIT_SYNC));
	check_tail(op);
}

/* The buffer of the transfer is a mapping of the same file, at another place. */
static void run_self(const struct op *op)
{
	struct file *f = &fsx.file[op->file];
	bool direct = op->kind == OP_READ_SELF_DIRECT || op->kind == OP_WRITE_SELF_DIRECT;
	bool write = op->kind == OP_WRITE_SELF || op->kind == OP_WRITE_SELF_DIRECT;
	struct view v = view_open(
		op, write ? op->from : op->off, op->len, write ? PROT_READ : PROT_READ | PROT_WRITE);
	int fd = direct ? f->fd_direct : f->fd;
	uint64_t done = 0;

	while (done < op->len) {
		ssize_t n = write ? pwrite(fd, v.at + done, op->len - done, op->off + done)
				  : pread(fd, v.at + done, op->len - done, op->from + done);

		if (n <= 0)
			expect(op, op_names[op->kind], n, op->len - done);
		done += n;
	}
	view_close(op, &v, op->bits & BIT_SYNC);
}

static void run_keep(const struct op *op)
{
	struct file *f = &fsx.file[op->file];
	struct keep *k = &f->keep[op->slot], fresh = {.off = op->off, .len = op->len};

	switch (op->kind) {
	case OP_MAP:
		file_map(f, &fresh);
		k->addr = fresh.addr;
		break;
	case OP_MAP_READ:
		model_check(f, op->off, k->addr + (op->off - k->off), op->len, "kept mapping");
		break;
	case OP_MAP_WRITE:
		memcpy(k->addr + (op->off - k->off), fsx.out, op->len);
		break;
	default:
		if ((op->bits & BIT_SYNC) &&
			msync(k->addr, k->len, op->bits & BIT_FIXED ? MS_SYNC : MS_ASYNC))
			failed(op, "msync");
		munmap(k->addr, k->len);
		k->addr = NULL;
	}
}

/* Bytes of the last page past the end: they must never become part of the file. */
static void run_pollute(const struct op *op)
{
	struct file *f = &fsx.file[op->file];
	uint64_t rest = fsx.page - f->size % fsx.page;
	struct view v = view_open(op, f->size, rest, PROT_READ | PROT_WRITE);

	memset(v.at, 0x5a, rest);
	view_close(op, &v, op->bits & BIT_SYNC);
}

/* ---- the rest ---- */

static int run_allocate(const struct op *op)
{
	static const int modes[OP_KINDS] = {
		[OP_ALLOCATE_KEEP] = FALLOC_FL_KEEP_SIZE,
		[OP_PUNCH] = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
		[OP_ZERO] = FALLOC_FL_ZERO_RANGE,
		[OP_ZERO_KEEP] = FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE,
	};

	if (!fallocate(fsx.file[op->file].fd, modes[op->kind], op->off, op->len))
		return 0;
	if (errno != EOPNOTSUPP && errno != ENOSYS)
		failed(op, "fallocate");
	refuse(op->kind, strerror(errno));
	return -EOPNOTSUPP;
}

static int run_copy(const struct op *op)
{
	uint64_t done = 0;

	while (done < op->len) {
		off_t from = op->from + done, to = op->off + done;
		ssize_t n = copy_file_range(
			fsx.file[op->from_file].fd, &from, fsx.file[op->file].fd, &to, op->len - done, 0);

		if (n < 0 && !done && (errno == EOPNOTSUPP || errno == ENOSYS || errno == EXDEV)) {
			refuse(op->kind, strerror(errno));
			return -EOPNOTSUPP;
		}
		if (n <= 0)
			expect(op, "copy_file_range", n, op->len - done);
		if ((uint64_t)n > op->len - done)
			expect(op, "copy_file_range", n, op->len - done);
		done += n;
	}
	return 0;
}

static void check_hole(const struct op *op, const struct file *f, uint64_t from, uint64_t to)
{
	for (uint64_t i = from; i < to; i++)
		if (f->data[i])
			report("%s: SEEK_DATA says that %#jx to %#jx is a hole, but there is data at %#jx, of operation %u",
				f->path, (uintmax_t)from, (uintmax_t)to, (uintmax_t)i, f->writer[i]);
}

/* Walks all data and holes from op->off on. */
static void run_seek(const struct op *op)
{
	const struct file *f = &fsx.file[op->file];
	uint64_t off = op->off;

	while (off < f->size) {
		off_t data = lseek(f->fd, off, SEEK_DATA), hole;

		if (data < 0 && errno == ENXIO) {
			check_hole(op, f, off, f->size);
			off = f->size;
			break;
		}
		if (data < 0)
			failed(op, "SEEK_DATA");
		if ((uint64_t)data < off || (uint64_t)data >= f->size)
			report("%s: SEEK_DATA from %#jx: %#jx, size %#jx", f->path, (uintmax_t)off,
				(uintmax_t)data, (uintmax_t)f->size);
		check_hole(op, f, off, data);
		if ((uint64_t)data > off && lseek(f->fd, off, SEEK_HOLE) != (off_t)off)
			report("%s: SEEK_HOLE in the hole at %#jx: %#jx", f->path, (uintmax_t)off,
				(uintmax_t)lseek(f->fd, 0, SEEK_CUR));
		hole = lseek(f->fd, data, SEEK_HOLE);
		if (hole <= data || (uint64_t)hole > f->size)
			report("%s: SEEK_HOLE from %#jx: %#jx, size %#jx", f->path, (uintmax_t)data,
				(uintmax_t)hole, (uintmax_t)f->size);
		off = hole;
	}
	if (lseek(f->fd, MAX(off, f->size), SEEK_DATA) >= 0 || errno != ENXIO)
		report("%s: SEEK_DATA at or past the end %#jx does not give ENXIO", f->path,
			(uintmax_t)f->size);
	if (lseek(f->fd, MAX(off, f->size), SEEK_HOLE) >= 0 || errno != ENXIO)
		report("%s: SEEK_HOLE at or past the end %#jx does not give ENXIO", f->path,
			(uintmax_t)f->size);
}

/* A file with data has blocks, once it is written back. Small files may be kept in their inodes. */
static void check_has_blocks(const struct file *f)
{
	struct stat st;

	for (uint64_t i = 65536; i < f->size; i++)
		if (f->data[i]) {
			if (!fstat(f->fd, &st) && !st.st_blocks)
				report("%s: no blocks after fsync, but there is data at %#jx", f->path,
					(uintmax_t)i);
			return;
		}
}

static void run_sync(const struct op *op)
{
	struct file *f = &fsx.file[op->file];

	switch (op->kind) {
	case OP_FSYNC:
		if (fsync(f->fd))
			failed(op, "fsync");
		check_has_blocks(f);
		break;
	case OP_FDATASYNC:
		if (fdatasync(f->fd))
			failed(op, "fdatasync");
		break;
	case OP_SYNC_RANGE:
		if (sync_file_range(f->fd, op->off, op->len,
			    op->bits & BIT_SYNC ? SYNC_FILE_RANGE_WRITE_AND_WAIT : SYNC_FILE_RANGE_WRITE))
			failed(op, "sync_file_range");
		break;
	default:
		if ((op->bits & BIT_FLUSH) && fdatasync(f->fd))
			failed(op, "fdatasync");
		if ((errno = posix_fadvise(f->fd, op->off, op->len, POSIX_FADV_DONTNEED)))
			failed(op, "posix_fadvise");
	}
}

static void run_remount(void)
{
	int status;

	for (unsigned i = 0; i < fsx.files; i++)
		file_close(&fsx.file[i], true);
	fflush(NULL);
	status = system(fsx.remount);
	if (status)
		report("remount: '%s' ended with status %#x", fsx.remount, status);
	for (unsigned i = 0; i < fsx.files; i++) {
		file_open(&fsx.file[i], false);
		file_compare(&fsx.file[i], false);
	}
}

int run(const struct op *op)
{
	struct file *f = &fsx.file[op->file];

	switch (op->kind) {
	case OP_READ:
	case OP_READV:
	case OP_READ_DIRECT:
		run_read(op);
		return 0;
	case OP_WRITE:
	case OP_WRITEV:
	case OP_APPEND:
	case OP_WRITE_DIRECT:
		run_write(op);
		return 0;
	case OP_READ_URING:
	case OP_READ_URING_DIRECT:
	case OP_WRITE_URING:
	case OP_WRITE_URING_DIRECT:
		run_uring(op);
		return 0;
	case OP_READ_MAPPED:
	case OP_WRITE_MAPPED:
		run_mapped(op);
		return 0;
	case OP_READ_SELF:
	case OP_READ_SELF_DIRECT:
	case OP_WRITE_SELF:
	case OP_WRITE_SELF_DIRECT:
		run_self(op);
		return 0;
	case OP_MAP:
	case OP_MAP_READ:
	case OP_MAP_WRITE:
	case OP_UNMAP:
		run_keep(op);
		return 0;
	case OP_TRUNCATE:
		if (op->bits & BIT_SYNC ? truncate(f->path, op->off) : ftruncate(f->fd, op->off))
			failed(op, "truncate");
		return 0;
	case OP_ALLOCATE:
	case OP_ALLOCATE_KEEP:
	case OP_PUNCH:
	case OP_ZERO:
	case OP_ZERO_KEEP:
		return run_allocate(op);
	case OP_COPY:
	case OP_COPY_BETWEEN:
		return run_copy(op);
	case OP_SEEK:
		run_seek(op);
		return 0;
	case OP_REOPEN:
		file_close(f, false);
		file_open(f, false);
		return 0;
	case OP_COMPARE:
		file_compare(f, op->bits & BIT_SYNC);
		return 0;
	case OP_REMOUNT:
		run_remount();
		return 0;
	case OP_POLLUTE:
		run_pollute(op);
		return 0;
	default:
		run_sync(op);
		return 0;
	}
}
