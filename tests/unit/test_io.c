/* SPDX-License-Identifier: MIT */
/* io: the bytes that were asked for, by every engine, or an error; never others, never a signal, never a hang. */
#include "support.h"

#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "base/sync.h"
#include "io/io.h"

#define FILE_SIZE (3u * (1u << 20) + 1234u)

static uint8_t *content;
static char *path;

static int setup(void **state)
{
	struct rng rng = {1};

	content = malloc(FILE_SIZE);
	path = temp_path("file");
	assert_non_null(content);
	rng_bytes(&rng, content, FILE_SIZE);
	write_file(path, content, FILE_SIZE);
	return 0;
}

static int teardown(void **state)
{
	free(content);
	free(path);
	return support_end(state);
}

/* Some systems forbid io_uring (containers), some filesystems O_DIRECT. */
static struct io_file *open_or_skip(const char *name, enum io_engine engine, enum io_caching caching)
{
	struct io_options options = {.engine = engine, .caching = caching};
	struct io_file *f;
	struct io_span span;
	int r = io_open(name, &options, &f);

	if (r == -EINVAL && caching == IO_CACHING_DIRECT) {
		print_message("no O_DIRECT in %s\n", temp_dir());
		skip();
	}
	assert_int_equal(r, 0);
	r = io_size(f) ? io_read(f, 0, 1, &span) : 0;
	if ((r == -EPERM || r == -ENOSYS) && engine == IO_ENGINE_URING) {
		io_close(f);
		print_message("io_uring is not permitted here\n");
		skip();
	}
	assert_int_equal(r, 0);
	if (io_size(f))
		io_span_put(f, &span);
	return f;
}

static void check_range(struct io_file *f, uint64_t offset, size_t len)
{
	struct io_span span;

	assert_int_equal(io_read(f, offset, len, &span), 0);
	assert_memory_equal(span.data, content + offset, len);
	io_span_put(f, &span);
}

static void read_everywhere(enum io_engine engine, enum io_caching caching)
{
	static const uint64_t edges[] = {0, 1, 511, 512, 4095, 4096, 4097, 8192, FILE_SIZE - 4097, FILE_SIZE - 1235,
		FILE_SIZE - 1234, FILE_SIZE - 1233, FILE_SIZE - 1, FILE_SIZE};
	static const size_t lengths[] = {0, 1, 2, 511, 4095, 4096, 4097, 65536, (1 << 20) - 1, 1 << 20};
	struct io_file *f = open_or_skip(path, engine, caching);
	struct rng rng = {2};

	assert_int_equal(io_size(f), FILE_SIZE);
	for (size_t i = 0; i < ARRAY_SIZE(edges); i++)
		for (size_t k = 0; k < ARRAY_SIZE(lengths); k++)
			if (edges[i] + lengths[k] <= FILE_SIZE)
				check_range(f, edges[i], lengths[k]);
	for (unsigned i = 0; i < 500; i++) {
		uint64_t offset = rng_below(&rng, FILE_SIZE), len = rng_below(&rng, 1 << 17);

		check_range(f, offset, MIN(len, FILE_SIZE - offset));
	}
	io_close(f);
}

static void pread_buffered_gives_the_bytes(void **state)
{
	read_everywhere(IO_ENGINE_PREAD, IO_CACHING_BUFFERED);
}

static void pread_direct_gives_the_bytes(void **state)
{
	read_everywhere(IO_ENGINE_PREAD, IO_CACHING_DIRECT);
}

static void uring_buffered_gives_the_bytes(void **state)
{
	read_everywhere(IO_ENGINE_URING, IO_CACHING_BUFFERED);
}

static void uring_direct_gives_the_bytes(void **state)
{
	read_everywhere(IO_ENGINE_URING, IO_CACHING_DIRECT);
}

static void what_is_used_is_said(void **state)
{
	struct io_file *f = open_or_skip(path, IO_ENGINE_PREAD, IO_CACHING_BUFFERED);

	assert_string_equal(io_describe(f), "pread, buffered");
	io_close(f);
	f = open_or_skip(path, IO_ENGINE_URING, IO_CACHING_BUFFERED);
	assert_string_equal(io_describe(f), "io_uring, buffered");
	io_close(f);
	f = open_or_skip(path, IO_ENGINE_URING, IO_CACHING_DIRECT);
	assert_string_equal(io_describe(f), "io_uring, O_DIRECT");
	io_close(f);
}

static void memory_is_a_file(void **state)
{
	struct io_file *f;
	struct io_span span;

	assert_int_equal(io_open_memory(content, 10000, &f), 0);
	assert_int_equal(io_size(f), 10000);
	assert_int_equal(io_fd(f), -1);
	check_range(f, 0, 10000);
	check_range(f, 9999, 1);
	check_range(f, 10000, 0);
	assert_int_equal(io_read(f, 9999, 2, &span), -EIO);
	assert_int_equal(io_read(f, 10001, 0, &span), -EIO);
	assert_int_equal(io_read(f, UINT64_MAX, 1, &span), -EIO);
	io_close(f);
	io_close(NULL);
}

static void only_files_and_block_devices_are_opened(void **state)
{
	_cleanup_free_ char *fifo = temp_path("fifo"), *missing = temp_path("missing");
	struct io_file *f = NULL;

	assert_int_equal(mkfifo(fifo, 0600), 0);
	for (enum io_caching c = IO_CACHING_AUTO; c <= IO_CACHING_BUFFERED; c++) {
		struct io_options o = {.caching = c};
		bool direct = c == IO_CACHING_DIRECT;

		assert_int_equal(io_open(missing, &o, &f), -ENOENT);
		/* With O_DIRECT asked for, some of them already fail at that. None may hang. */
		assert_true(io_open(temp_dir(), &o, &f) == (direct ? -EINVAL : -EISDIR));
		assert_true(io_open(fifo, &o, &f) == (direct ? -EINVAL : -ENOTBLK));
		assert_true(io_open("/dev/null", &o, &f) == -ENOTBLK || direct);
	}
	assert_null(f);
}

static void the_descriptor_blocks_and_is_not_inherited(void **state)
{
	struct io_file *f = open_or_skip(path, IO_ENGINE_AUTO, IO_CACHING_AUTO);

	assert_true(fcntl(io_fd(f), F_GETFD) & FD_CLOEXEC);
	assert_false(fcntl(io_fd(f), F_GETFL) & O_NONBLOCK);
	io_close(f);
}

static void an_empty_file_has_no_byte(void **state)
{
	_cleanup_free_ char *empty = temp_path("empty");
	struct io_file *f;
	struct io_span span;

	write_file(empty, "", 0);
	assert_int_equal(io_open(empty, NULL, &f), 0);
	assert_int_equal(io_size(f), 0);
	assert_int_equal(io_read(f, 0, 1, &span), -EIO);
	io_close(f);
}

static void a_file_that_shrinks_gives_eio(enum io_engine engine, enum io_caching caching)
{
	_cleanup_free_ char *name = temp_path("shrinks");
	static const uint64_t ends[] = {300000, 299008, 4096, 1, 0};
	struct io_stats stats;
	struct io_file *f;
	struct io_span span;
	uint64_t errors = 0;

	write_file(name, content, 1 << 20);
	f = open_or_skip(name, engine, caching);
	check_range(f, 500000, 10000);
	for (size_t i = 0; i < ARRAY_SIZE(ends); i++) {
		uint64_t end = ends[i];

		assert_int_equal(truncate(name, (off_t)end), 0);
		for (uint64_t offset = end > 5000 ? end - 5000 : 0; offset < end + 5000; offset += 777) {
			int r = io_read(f, offset, 1000, &span);

			if (offset + 1000 <= end) {
				assert_int_equal(r, 0);
				assert_memory_equal(span.data, content + offset, 1000);
				io_span_put(f, &span);
			} else {
				assert_int_equal(r, -EIO);
				errors++;
			}
		}
	}
	io_get_stats(f, &stats);
	assert_int_equal(stats.errors, errors);
	io_close(f);
}

static void a_file_that_shrinks_gives_eio_by_pread(void **state)
{
	a_file_that_shrinks_gives_eio(IO_ENGINE_PREAD, IO_CACHING_BUFFERED);
}

static void a_file_that_shrinks_gives_eio_by_direct_pread(void **state)
{
	a_file_that_shrinks_gives_eio(IO_ENGINE_PREAD, IO_CACHING_DIRECT);
}

static void a_file_that_shrinks_gives_eio_by_uring(void **state)
{
	a_file_that_shrinks_gives_eio(IO_ENGINE_URING, IO_CACHING_BUFFERED);
}

static void a_file_that_shrinks_gives_eio_by_direct_uring(void **state)
{
	a_file_that_shrinks_gives_eio(IO_ENGINE_URING, IO_CACHING_DIRECT);
}

static void the_longest_read_can_be_changed(void **state)
{
	struct io_file *f = open_or_skip(path, IO_ENGINE_AUTO, IO_CACHING_AUTO);
	struct io_span span;

	assert_int_equal(io_max_read(f), 1 << 20);
	assert_int_equal(io_read(f, 0, (1 << 20) + 1, &span), -EIO);
	io_set_max_read(f, 2 << 20);
	check_range(f, 12345, 2 << 20);
	io_set_max_read(f, 4096);
	assert_int_equal(io_read(f, 0, 4097, &span), -EIO);
	check_range(f, 12345, 4096);
	io_close(f);
}

/* ---- faults below ---- */

struct faulty {
	struct rng rng;
	uint64_t bad_from, bad_to; /* reads that touch these bytes fail with -EIO */
	uint64_t end;		   /* the file ends here, whatever was said before */
	unsigned interrupted, again, shortened; /* in 100 */
	unsigned calls;
};

static ssize_t faulty_pread(void *context, void *buf, size_t len, uint64_t offset)
{
	struct faulty *f = context;
	unsigned dice = (unsigned)rng_below(&f->rng, 100);

	f->calls++;
	if (dice < f->interrupted)
		return -EINTR;
	if (dice < f->interrupted + f->again)
		return -EAGAIN;
	if (offset < f->bad_to && offset + len > f->bad_from)
		return -EIO;
	if (offset >= f->end)
		return 0;
	len = MIN(len, f->end - offset);
	if (dice < f->interrupted + f->again + f->shortened && len > 1)
		len = 1 + rng_below(&f->rng, len - 1);
	memcpy(buf, content + offset, len);
	return (ssize_t)len;
}

static struct io_file *open_faulty(struct faulty *f, unsigned lanes)
{
	struct io_source source = {faulty_pread, f, FILE_SIZE};
	struct io_options options = {.lanes = lanes};
	struct io_file *io;

	assert_int_equal(io_open_source(&source, &options, &io), 0);
	return io;
}

static void interrupted_and_short_reads_go_on(void **state)
{
	struct faulty faulty = {.rng = {3}, .end = FILE_SIZE, .interrupted = 25, .again = 15, .shortened = 50};
	struct io_file *f = open_faulty(&faulty, 1);
	struct rng rng = {4};

	for (unsigned i = 0; i < 2000; i++) {
		uint64_t offset = rng_below(&rng, FILE_SIZE), len = rng_below(&rng, 5000);

		check_range(f, offset, MIN(len, FILE_SIZE - offset));
	}
	assert_true(faulty.calls > 4000);
	io_close(f);
}

static void a_file_that_never_blocks_does_not_hang(void **state)
{
	struct faulty faulty = {.rng = {3}, .end = FILE_SIZE, .again = 100};
	struct io_file *f = open_faulty(&faulty, 1);
	struct io_span span;

	assert_int_equal(io_read(f, 0, 100, &span), -EAGAIN);
	faulty.again = 0;
	check_range(f, 0, 100);
	io_close(f);
}

static void a_bad_sector_hits_only_what_touches_it(void **state)
{
	struct faulty faulty = {.rng = {5}, .end = FILE_SIZE, .bad_from = 8192, .bad_to = 8704};
	struct io_file *f = open_faulty(&faulty, 2);
	struct io_span span;

	for (unsigned i = 0; i < 50; i++) {
		/* More failures than there are lanes: each gives its lane back. */
		assert_int_equal(io_read(f, 8000, 1000, &span), -EIO);
		assert_int_equal(io_read(f, 8703, 1, &span), -EIO);
		check_range(f, 0, 8192);
		check_range(f, 8704, 4096);
	}
	io_close(f);
}

static void an_early_end_is_an_error(void **state)
{
	struct faulty faulty = {.rng = {6}, .end = 100000};
	struct io_file *f = open_faulty(&faulty, 1);
	struct io_span span;

	check_range(f, 99000, 1000);
	assert_int_equal(io_read(f, 99001, 1000, &span), -EIO);
	assert_int_equal(io_read(f, 200000, 1, &span), -EIO);
	io_close(f);
}

/* ---- many threads ---- */

struct crowd {
	struct io_file *file;
	atomic_uint holding, most;
};

static void *crowd_read(void *arg)
{
	struct crowd *c = arg;
	struct rng rng = {(uint64_t)(uintptr_t)&rng};

	for (unsigned i = 0; i < 400; i++) {
		uint64_t offset = rng_below(&rng, FILE_SIZE - 5000);
		struct io_span span;
		unsigned now, most;

		must(io_read(c->file, offset, 5000, &span) == 0);
		now = atomic_fetch_add(&c->holding, 1) + 1;
		for (most = c->most; now > most && !atomic_compare_exchange_weak(&c->most, &most, now);)
			;
		must(!memcmp(span.data, content + offset, 5000));
		atomic_fetch_sub(&c->holding, 1);
		io_span_put(c->file, &span);
	}
	return NULL;
}

static void more_readers_than_lanes_take_turns(enum io_engine engine, unsigned lanes)
{
	struct io_options options = {.engine = engine, .lanes = lanes};
	struct crowd crowd = {0};
	struct io_stats stats;
	pthread_t t[16];

	io_close(open_or_skip(path, engine, IO_CACHING_AUTO));
	assert_int_equal(io_open(path, &options, &crowd.file), 0);
	for (size_t i = 0; i < ARRAY_SIZE(t); i++)
		assert_int_equal(thread_start(&t[i], crowd_read, &crowd), 0);
	for (size_t i = 0; i < ARRAY_SIZE(t); i++)
		pthread_join(t[i], NULL);
	assert_true(crowd.most >= 1 && crowd.most <= lanes);
	io_get_stats(crowd.file, &stats);
	assert_int_equal(stats.reads, ARRAY_SIZE(t) * 400);
	assert_true(stats.bytes >= stats.reads * 5000);
	assert_int_equal(stats.errors, 0);
	io_close(crowd.file);
}

static void more_readers_than_lanes_take_turns_by_pread(void **state)
{
	more_readers_than_lanes_take_turns(IO_ENGINE_PREAD, 1);
	more_readers_than_lanes_take_turns(IO_ENGINE_PREAD, 3);
}

static void more_readers_than_lanes_take_turns_by_uring(void **state)
{
	more_readers_than_lanes_take_turns(IO_ENGINE_URING, 1);
	more_readers_than_lanes_take_turns(IO_ENGINE_URING, 3);
}

/* ---- where io_uring is not permitted ---- */

/* io_uring_setup(2) fails from now on in this process, as under kernel.io_uring_disabled=2 or in a container. */
static void forbid_uring(int error)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_io_uring_setup, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (unsigned)error),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = {ARRAY_SIZE(filter), filter};

	must(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
	must(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0);
}

static void read_without_uring(void *context)
{
	struct io_options automatic = {.lanes = 2}, insisting = {.engine = IO_ENGINE_URING, .lanes = 2};
	int error = *(int *)context;
	struct io_span span;
	struct io_file *f;

	forbid_uring(error);
	must(io_open(path, &automatic, &f) == 0);
	for (unsigned i = 0; i < 20; i++) {
		must(io_read(f, 5000 + i, 100000, &span) == 0);
		must(!memcmp(span.data, content + 5000 + i, 100000));
		io_span_put(f, &span);
	}
	must(!strncmp(io_describe(f), "pread", 5));
	io_close(f);
	must(io_open(path, &insisting, &f) == 0);
	/* More often than there are lanes: a lane that can't be made is not lost. */
	for (unsigned i = 0; i < 20; i++)
		must(io_read(f, 0, 1, &span) == -error);
	io_close(f);
}

static void a_forbidden_uring_falls_back_to_pread(void **state)
{
	int errors[] = {EPERM, ENOSYS, ENOMEM};

	for (size_t i = 0; i < ARRAY_SIZE(errors); i++)
		assert_true(in_child(read_without_uring, &errors[i]));
}

static void read_without_locked_memory(void *context)
{
	struct rlimit none = {0, 0};
	struct io_span span;
	struct io_file *f;

	must(setrlimit(RLIMIT_MEMLOCK, &none) == 0);
	/* root may lock what it likes. */
	if (getuid() == 0)
		must(setresgid(65534, 65534, 65534) == 0 && setresuid(65534, 65534, 65534) == 0);
	must(io_open(path, NULL, &f) == 0);
	must(io_read(f, 1234, 100000, &span) == 0);
	must(!memcmp(span.data, content + 1234, 100000));
	io_span_put(f, &span);
	io_close(f);
}

static void without_locked_memory_reads_go_on(void **state)
{
	chmod(temp_dir(), 0755);
	assert_true(in_child(read_without_locked_memory, NULL));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(pread_buffered_gives_the_bytes),
		cmocka_unit_test(pread_direct_gives_the_bytes),
		cmocka_unit_test(uring_buffered_gives_the_bytes),
		cmocka_unit_test(uring_direct_gives_the_bytes),
		cmocka_unit_test(what_is_used_is_said),
		cmocka_unit_test(memory_is_a_file),
		cmocka_unit_test(only_files_and_block_devices_are_opened),
		cmocka_unit_test(the_descriptor_blocks_and_is_not_inherited),
		cmocka_unit_test(an_empty_file_has_no_byte),
		cmocka_unit_test(a_file_that_shrinks_gives_eio_by_pread),
		cmocka_unit_test(a_file_that_shrinks_gives_eio_by_direct_pread),
		cmocka_unit_test(a_file_that_shrinks_gives_eio_by_uring),
		cmocka_unit_test(a_file_that_shrinks_gives_eio_by_direct_uring),
		cmocka_unit_test(the_longest_read_can_be_changed),
		cmocka_unit_test(interrupted_and_short_reads_go_on),
		cmocka_unit_test(a_file_that_never_blocks_does_not_hang),
		cmocka_unit_test(a_bad_sector_hits_only_what_touches_it),
		cmocka_unit_test(an_early_end_is_an_error),
		cmocka_unit_test(more_readers_than_lanes_take_turns_by_pread),
		cmocka_unit_test(more_readers_than_lanes_take_turns_by_uring),
		cmocka_unit_test(a_forbidden_uring_falls_back_to_pread),
		cmocka_unit_test(without_locked_memory_reads_go_on),
	};

	return cmocka_run_group_tests_name("io", tests, setup, teardown);
}
