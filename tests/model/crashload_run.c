/* SPDX-License-Identifier: MIT */
/*
 * The workers. Each writes to STATE what it is about to do, does it, and writes there what a sync has made safe. An I/O
 * error ends a worker and is no failure: the filesystem was taken away, as it should be.
 */
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>

#include "crashload.h"

struct job {
	const struct options *o;
	uint64_t worker;
	int state,
		dir; /* descriptors; the directory stays open, so that a mount that is gone can't be mistaken */
	struct rng rng;
	uint64_t version, last_file;
	uint64_t names[NAMES];	/* the file that each has, 0: none */
	uint32_t counts[NAMES]; /* its units */
	uint8_t *buf;
};

_printf_(2, 3) static void log_line(const struct job *j, const char *format, ...)
{
	char line[200];
	va_list ap;
	int n;

	va_start(ap, format);
	n = vsnprintf(line, sizeof(line) - 1, format, ap);
	va_end(ap);
	line[n++] = '\n';
	/* One write with O_APPEND: lines of several workers do not mix. */
	if (write(j->state, line, n) != n) {
		fprintf(stderr, "crashload: the state can't be written: %s\n", strerror(errno));
		_exit(1);
	}
}

static int reporting = -1;
static uint64_t reporting_worker;

static _Noreturn void end_of(const struct job *j, const char *call)
{
	static const int taken_away[] = {EIO, ENOTCONN, ESTALE, ECONNABORTED, ESHUTDOWN, EROFS, ENODEV};
	int error = errno;

	for (unsigned i = 0; i < ARRAY_SIZE(taken_away); i++)
		if (error == taken_away[i]) {
			log_line(j, "E %ju %s: %s", (uintmax_t)j->worker, call, strerror(error));
			_exit(0);
		}
	fprintf(stderr, "crashload: worker %ju: %s: %s\n", (uintmax_t)j->worker, call, strerror(error));
	_exit(1);
}

/* A page of a mapping can't be read any more. */
static void on_sigbus(int signal)
{
	char line[] = "E       mapping: SIGBUS\n";

	for (unsigned i = 0, w = reporting_worker; i < 5; i++, w /= 10)
		line[6 - i] = '0' + w % 10;
	_exit(write(reporting, line, sizeof(line) - 1) < 0);
}

static int open_name(const struct job *j, unsigned i, int flags)
{
	char name[16];
	int fd;

	name_of(i, name);
	fd = openat(j->dir, name, flags | O_CLOEXEC, 0644);
	if (fd < 0)
		end_of(j, "open");
	return fd;
}

/* ---- syncs ---- */

static void sync_file(struct job *j, int fd, uint64_t file)
{
	if (rng_one_in(&j->rng, 3) ? fdatasync(fd) : fsync(fd))
		end_of(j, "fsync");
	log_line(j, "A %ju file %ju", (uintmax_t)j->worker, (uintmax_t)file);
}

static void sync_dir(struct job *j)
{
	if (fsync(j->dir))
		end_of(j, "fsync of the directory");
	log_line(j, "A %ju dir", (uintmax_t)j->worker);
}

static void sync_all(struct job *j)
{
	if (j->o->no_syncfs)
		return;
	if (syncfs(j->dir))
		end_of(j, "syncfs");
	log_line(j, "A %ju all", (uintmax_t)j->worker);
}

/* ---- operations ---- */

static void put_mapped(struct job *j, int fd, uint64_t file, uint32_t first, uint32_t count)
{
	uint64_t unit = j->o->unit, page = sysconf(_SC_PAGESIZE), off = first * unit,
		 start = align_down(off, page);
	size_t len = off + count * unit - start;
	uint8_t *map = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, start);
	bool sync = rng_one_in(&j->rng, 2);

	if (map == MAP_FAILED)
		end_of(j, "mmap");
	memcpy(map + (off - start), j->buf, count * unit);
	if (sync && msync(map, len, MS_SYNC))
		end_of(j, "msync");
	munmap(map, len);
	if (sync)
		log_line(j, "A %ju range %ju %u %u", (uintmax_t)j->worker, (uintmax_t)file, first, count);
}

/* Writes units with a new version, by one of several ways. */
static void put_units(struct job *j, int fd, unsigned i, uint32_t first, uint32_t count)
{
	uint64_t unit = j->o->unit, file = j->names[i], version = ++j->version, way = rng_below(&j->rng, 8);
	size_t len = count * unit, done = 0;

	for (uint32_t k = 0; k < count; k++)
		unit_fill(j->buf + k * unit, unit, file, version, first + k);
	log_line(j, "I %ju write %ju %u %u %ju", (uintmax_t)j->worker, (uintmax_t)file, first, count,
		(uintmax_t)version);
	if (way < 2 && first + count <= j->counts[i]) {
		put_mapped(j, fd, file, first, count);
		return;
	}
	while (done < len) {
		struct iovec vec = {j->buf + done, len - done};
		ssize_t n = pwritev2(fd, &vec, 1, first * unit + done, way == 2 ? RWF_DSYNC : 0);

		if (n <= 0)
			end_of(j, "write");
		done += n;
	}
	j->counts[i] = MAX(j->counts[i], first + count);
	if (way == 2)
		log_line(j, "A %ju range %ju %u %u", (uintmax_t)j->worker, (uintmax_t)file, first, count);
}

static uint32_t pick_count(struct job *j, uint32_t max)
{
	uint32_t scale = 1u << rng_below(&j->rng, 8), count = 1 + rng_below(&j->rng, scale);

	return MIN(count, max);
}

static void create(struct job *j, unsigned i)
{
	char name[16];
	int fd;

	name_of(i, name);
	j->names[i] = (j->worker << 32) | ++j->last_file;
	j->counts[i] = 0;
	log_line(j, "I %ju create %s %ju", (uintmax_t)j->worker, name, (uintmax_t)j->names[i]);
	fd = open_name(j, i, O_RDWR | O_CREAT | O_EXCL);
	if (!rng_one_in(&j->rng, 10))
		put_units(j, fd, i, 0, pick_count(j, UNITS_MAX / 2));
	if (rng_one_in(&j->rng, 2))
		sync_file(j, fd, j->names[i]);
	close(fd);
}

static void change(struct job *j, unsigned i, bool append)
{
	int fd = open_name(j, i, O_RDWR);
	uint32_t first = j->counts[i], room = UNITS_MAX - first;

	if (!append && j->counts[i]) {
		first = rng_below(&j->rng, j->counts[i]);
		room = UNITS_MAX - first;
	}
	if (room)
		put_units(j, fd, i, first, pick_count(j, room));
	if (rng_one_in(&j->rng, 2))
		sync_file(j, fd, j->names[i]);
	close(fd);
}

static void rename_to(struct job *j, unsigned from, unsigned to)
{
	char a[16], b[16];

	name_of(from, a);
	name_of(to, b);
	log_line(j, "I %ju rename %s %s", (uintmax_t)j->worker, a, b);
	if (renameat(j->dir, a, j->dir, b))
		end_of(j, "rename");
	j->names[to] = j->names[from];
	j->counts[to] = j->counts[from];
	j->names[from] = 0;
	j->counts[from] = 0;
}

/* As editors and databases do it: new content under another name, fsync, rename, fsync of the directory. */
static void replace(struct job *j, unsigned to)
{
	unsigned tmp = NAMES - NAMES_TMP + rng_below(&j->rng, NAMES_TMP);
	int fd;

	create(j, tmp);
	fd = open_name(j, tmp, O_RDWR);
	sync_file(j, fd, j->names[tmp]);
	close(fd);
	rename_to(j, tmp, to);
	sync_dir(j);
}

static void remove_name(struct job *j, unsigned i)
{
	char name[16];

	name_of(i, name);
	log_line(j, "I %ju unlink %s", (uintmax_t)j->worker, name);
	if (unlinkat(j->dir, name, 0))
		end_of(j, "unlink");
	j->names[i] = 0;
	j->counts[i] = 0;
}

static void step(struct job *j)
{
	unsigned i = rng_below(&j->rng, NAMES - NAMES_TMP), other = rng_below(&j->rng, NAMES - NAMES_TMP);
	unsigned pick = rng_below(&j->rng, 100);
	bool names = true;

	if (pick < 15)
		replace(j, i);
	else if (!j->names[i])
		create(j, i);
	else if (pick < 25)
		remove_name(j, i);
	else if (pick < 35 && other != i)
		rename_to(j, i, other);
	else {
		change(j, i, pick < 65);
		names = false;
	}
	if (names && rng_one_in(&j->rng, 2))
		sync_dir(j);
	if (rng_one_in(&j->rng, 60))
		sync_all(j);
}

/* ---- processes ---- */

static _Noreturn void work(struct job *j, uint64_t until)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	reporting = j->state;
	reporting_worker = j->worker;
	signal(SIGBUS, on_sigbus);
	j->rng = rng_new(j->o->seed, j->worker);
	j->buf = malloc((size_t)UNITS_MAX * j->o->unit);
	if (!j->buf)
		abort();
	for (uint64_t n = 0; (!j->o->ops || n < j->o->ops) && now_ns() < until; n++)
		step(j);
	_exit(0);
}

/* A worker's directory, which is there for good before it begins. */
static int make_dir(const char *dir, uint64_t worker)
{
	_cleanup_free_ char *path = NULL;
	_cleanup_close_ int parent = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int fd;

	if (parent < 0 || asprintf(&path, "w%ju", (uintmax_t)worker) < 0)
		return -1;
	/* One that ended before it was noted that there is such a worker may have left its directory: an empty one. */
	if (unlinkat(parent, path, AT_REMOVEDIR) && errno != ENOENT)
		return -1;
	if (mkdirat(parent, path, 0755))
		return -1;
	fd = openat(parent, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || fsync(fd) || fsync(parent))
		return -1;
	return fd;
}

/* A state that is there is continued, by workers with new numbers. */
static int open_state(const char *path, struct options *o, uint64_t *ret_first)
{
	struct state s;
	struct job j = {0};

	*ret_first = 0;
	j.state = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC | (o->sync_state ? O_DSYNC : 0), 0644);
	if (j.state < 0)
		return -1;
	if (lseek(j.state, 0, SEEK_END) == 0) {
		log_line(&j, "crashload 1 %u %ju", o->unit, (uintmax_t)o->seed);
	} else {
		int r = state_read(path, &s);

		if (r) {
			close(j.state);
			errno = -r;
			return -1;
		}
		*ret_first = s.count;
		o->unit = s.unit;
		state_free(&s);
	}
	return j.state;
}

static int wait_for(pid_t *pids, unsigned count, uint64_t until)
{
	unsigned failed = 0, left = count;

	while (left) {
		int status;
		pid_t pid = waitpid(-1, &status, until == UINT64_MAX ? 0 : WNOHANG);

		if (pid > 0) {
			left--;
			failed += status != 0;
			for (unsigned i = 0; i < count; i++)
				if (pids[i] == pid)
					pids[i] = 0;
			continue;
		}
		if (now_ns() > until) {
			fprintf(stderr, "crashload: %u workers do not end\n", left);
			for (unsigned i = 0; i < count; i++)
				if (pids[i])
					kill(pids[i], SIGKILL);
			return 1;
		}
		usleep(10000);
	}
	return failed ? 1 : 0;
}

int cmd_run(const char *dir, const char *state_path, const struct options *given)
{
	struct options o = *given;
	uint64_t first, until = o.seconds ? now_ns() + o.seconds * 1000000000u : UINT64_MAX;
	pid_t *pids = calloc(o.procs, sizeof(*pids));
	int state = open_state(state_path, &o, &first), r;

	if (state < 0 || !pids) {
		fprintf(stderr, "crashload: %s: %s\n", state_path, strerror(errno));
		return 2;
	}
	for (uint64_t i = 0; i < o.procs; i++) {
		struct job j = {
			.o = &o, .worker = first + i, .state = state, .dir = make_dir(dir, first + i)};

		if (j.dir < 0) {
			fprintf(stderr, "crashload: %s/w%ju: %s\n", dir, (uintmax_t)j.worker,
				strerror(errno));
			return 2;
		}
		log_line(&j, "W %ju", (uintmax_t)j.worker);
		pids[i] = fork();
		if (pids[i] < 0)
			return 2;
		if (!pids[i])
			work(&j, until);
		close(j.dir);
	}
	r = wait_for(pids, o.procs, until == UINT64_MAX ? until : until + 60 * 1000000000ull);
	close(state);
	free(pids);
	if (!o.quiet)
		printf("crashload: seed %ju: workers %ju to %ju have ended\n", (uintmax_t)o.seed,
			(uintmax_t)first, (uintmax_t)(first + o.procs - 1));
	return r;
}
