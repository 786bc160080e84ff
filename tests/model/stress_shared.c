/* SPDX-License-Identifier: MIT */
/*
 * All workers race for the same few names. Nobody knows what must come, but which errors may; and in the end names,
 * directories and link counts must agree.
 *
 * s0 ... hold anything but directories with content, d0 and d1 are directories (or nothing), and they have s0 ..., too.
 */
#include <dirent.h>
#include <fcntl.h>
#include <sys/xattr.h>

#include "stress.h"

#define SHARED_NAMES 6u
#define SHARED_DIRS 2u
#define SHARED_INODES 4096u

int shared_create(const char *dir)
{
	char path[PATH_SIZE];

	if (mkdir(dir, 0755))
		return -errno;
	for (unsigned i = 0; i < SHARED_DIRS; i++) {
		snprintf(path, sizeof(path), "%s/d%u", dir, i);
		if (mkdir(path, 0755))
			return -errno;
	}
	return 0;
}

static void pick_path(const char *dir, struct rng *r, char path[PATH_SIZE])
{
	unsigned at = rng_below(r, SHARED_DIRS + 1), name = rng_below(r, SHARED_NAMES);

	if (at < SHARED_DIRS)
		snprintf(path, PATH_SIZE, "%s/d%u/s%u", dir, at, name);
	else
		snprintf(path, PATH_SIZE, "%s/s%u", dir, name);
}

static void pick_shared_dir(const char *dir, struct rng *r, char path[PATH_SIZE])
{
	snprintf(path, PATH_SIZE, "%s/d%u", dir, (unsigned)rng_below(r, SHARED_DIRS));
}

/* Ends the worker if the errno is none of these (a list that ends with 0). */
static void legal(const char *call, const char *path, long ret, const int *errors)
{
	if (ret >= 0)
		return;
	for (; *errors; errors++)
		if (errno == *errors)
			return;
	wrong("%s %s: %s, which can't come of a race", call, path, strerror(errno));
}
#define LEGAL(call, path, ret, ...) legal(call, path, ret, (const int[]){__VA_ARGS__, 0})

static void shared_write(const char *path, struct rng *r)
{
	static const int flags[] = {O_CREAT, O_CREAT | O_TRUNC, 0, O_APPEND, O_TRUNC};
	char text[3000];
	ssize_t n;
	int fd;

	memset(text, 'a' + worker.index % 26, sizeof(text));
	fd = open(path, O_RDWR | O_NOFOLLOW | O_CLOEXEC | flags[rng_below(r, ARRAY_SIZE(flags))], 0644);
	LEGAL("open", path, fd, ENOENT, EISDIR, ENOTDIR, ELOOP);
	if (fd < 0)
		return;
	n = write(fd, text, 1 + rng_below(r, sizeof(text)));
	if (n <= 0)
		wrong("write to %s: %s", path, strerror(errno));
	if (rng_one_in(r, 8) && fsync(fd))
		wrong("fsync of %s: %s", path, strerror(errno));
	close(fd);
}

static void shared_rename(const char *dir, struct rng *r, char a[PATH_SIZE], char b[PATH_SIZE])
{
	static const unsigned kinds[] = {0, 0, 0, RENAME_NOREPLACE, RENAME_EXCHANGE};
	unsigned flags = kinds[rng_below(r, ARRAY_SIZE(kinds))];

	if (rng_one_in(r, 6)) {
		pick_shared_dir(dir, r, a);
		pick_shared_dir(dir, r, b);
	}
	if ((flags == RENAME_NOREPLACE && !abilities.noreplace) ||
		(flags == RENAME_EXCHANGE && !abilities.exchange))
		flags = 0;
	LEGAL("rename", a, renameat2(AT_FDCWD, a, AT_FDCWD, b, flags), ENOENT, EEXIST, EISDIR, ENOTDIR,
		ENOTEMPTY);
}

static void shared_read(const char *path, struct rng *r)
{
	int fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	struct stat a;
	char buf[4096];

	LEGAL("open", path, fd, ENOENT, ENOTDIR, ELOOP);
	if (fd < 0)
		return;
	if (fstat(fd, &a))
		wrong("fstat of %s: %s", path, strerror(errno));
	if (S_ISREG(a.st_mode)) {
		ssize_t n = read(fd, buf, sizeof(buf));

		if (n < 0)
			wrong("read of %s: %s", path, strerror(errno));
		/* Only such bytes were ever written, and O_APPEND leaves no holes. */
		for (ssize_t i = 0; i < n; i++)
			if (buf[i] && (buf[i] < 'a' || buf[i] > 'z'))
				wrong("read of %s: byte %#x at %zd", path, buf[i], i);
	}
	close(fd);
}

static void shared_list(const char *dir, struct rng *r)
{
	char path[PATH_SIZE];
	struct dirent *e;
	DIR *d;

	pick_shared_dir(dir, r, path);
	d = opendir(rng_one_in(r, 2) ? dir : path);
	if (!d) {
		LEGAL("opendir", path, -1, ENOENT);
		return;
	}
	while ((errno = 0, e = readdir(d)))
		if (e->d_name[0] != '.' && e->d_name[0] != 's' && e->d_name[0] != 'd')
			wrong("%s lists %s", path, e->d_name);
	if (errno)
		LEGAL("readdir", path, -1, ENOENT);
	closedir(d);
}

static void shared_xattr(const char *path, struct rng *r)
{
	if (!abilities.xattr)
		return;
	if (rng_one_in(r, 2))
		LEGAL("setxattr", path, lsetxattr(path, "user.s", path, rng_below(r, 100), 0), ENOENT,
			ENOTDIR, EPERM);
	else
		LEGAL("removexattr", path, lremovexattr(path, "user.s"), ENOENT, ENOTDIR, EPERM, ENODATA);
}

void shared_step(const char *dir, struct rng *r)
{
	char a[PATH_SIZE], b[PATH_SIZE];
	struct stat st;

	pick_path(dir, r, a);
	pick_path(dir, r, b);
	doing("shared, near %s and %s", a, b);
	switch (rng_below(r, 16)) {
	case 0:
	case 1:
	case 2:
		shared_write(a, r);
		break;
	case 3:
		LEGAL("unlink", a, unlink(a), ENOENT, EISDIR, ENOTDIR);
		break;
	case 4:
		LEGAL("mkdir", a, mkdir(a, 0755), EEXIST, ENOENT, ENOTDIR);
		break;
	case 5:
		LEGAL("rmdir", a, rmdir(a), ENOENT, ENOTDIR, ENOTEMPTY);
		break;
	case 6:
	case 7:
		LEGAL("link", a, link(a, b), ENOENT, EEXIST, EPERM, ENOTDIR);
		break;
	case 8:
		LEGAL("symlink", a, symlink("s0", a), EEXIST, ENOENT, ENOTDIR);
		break;
	case 9:
	case 10:
	case 11:
		shared_rename(dir, r, a, b);
		break;
	case 12:
		LEGAL("stat", a, lstat(a, &st), ENOENT, ENOTDIR);
		break;
	case 13:
		shared_read(a, r);
		break;
	case 14:
		shared_xattr(a, r);
		break;
	default:
		shared_list(dir, r);
		/* The directories themselves come and go, too. */
		pick_shared_dir(dir, r, a);
		if (rng_one_in(r, 3))
			LEGAL("rmdir", a, rmdir(a), ENOENT, ENOTEMPTY);
		else
			LEGAL("mkdir", a, mkdir(a, 0755), EEXIST);
	}
}

/* ---- after the race ---- */

struct count {
	ino_t ino;
	nlink_t links;
	unsigned names;
};

struct counts {
	struct count all[SHARED_INODES];
	unsigned used;
	uint64_t problems;
};

static void problem(struct counts *c, const char *path, const char *what)
{
	c->problems++;
	if (!options.quiet)
		fprintf(stderr, "stress: %s: %s\n", path, what);
}

static void count_name(struct counts *c, const struct stat *st)
{
	unsigned i = 0;

	while (i < c->used && c->all[i].ino != st->st_ino)
		i++;
	if (i == SHARED_INODES)
		abort();
	if (i == c->used)
		c->all[c->used++] = (struct count){.ino = st->st_ino, .links = st->st_nlink};
	c->all[i].names++;
}

static void check_file(struct counts *c, const char *path, const struct stat *st)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	char buf[65536];
	uint64_t size = 0;
	ssize_t n;

	if (fd < 0) {
		problem(c, path, strerror(errno));
		return;
	}
	while ((n = read(fd, buf, sizeof(buf))) > 0)
		size += n;
	if (n < 0)
		problem(c, path, strerror(errno));
	else if (size != (uint64_t)st->st_size)
		problem(c, path, "not as many bytes as its size");
}

static void check_shared_dir(struct counts *c, const char *dir, unsigned depth);

static void check_listed(struct counts *c, const char *path, const struct dirent *e, unsigned depth)
{
	struct stat st;

	if (lstat(path, &st)) {
		problem(c, path, "is listed, but can't be looked up");
		return;
	}
	if (st.st_ino != e->d_ino)
		problem(c, path, "is listed with another inode number");
	if (e->d_type != DT_UNKNOWN && e->d_type != IFTODT(st.st_mode))
		problem(c, path, "is listed with another type");
	if (S_ISDIR(st.st_mode)) {
		check_shared_dir(c, path, depth + 1);
		return;
	}
	count_name(c, &st);
	if (S_ISREG(st.st_mode))
		check_file(c, path, &st);
}

static void check_shared_dir(struct counts *c, const char *dir, unsigned depth)
{
	bool listed[2][SHARED_NAMES] = {{false}};
	unsigned subdirs = 0, i;
	char path[PATH_SIZE];
	struct dirent *e;
	struct stat st;
	DIR *d = opendir(dir);

	if (!d) {
		problem(c, dir, strerror(errno));
		return;
	}
	while ((errno = 0, e = readdir(d))) {
		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
			continue;
		snprintf(path, sizeof(path), "%s/%s", dir, e->d_name);
		if ((e->d_name[0] != 's' && e->d_name[0] != 'd') || sscanf(e->d_name + 1, "%u", &i) != 1 ||
			i >= SHARED_NAMES) {
			problem(c, path, "was never created");
			continue;
		}
		if (listed[e->d_name[0] == 'd'][i])
			problem(c, path, "is listed twice");
		listed[e->d_name[0] == 'd'][i] = true;
		check_listed(c, path, e, depth);
		subdirs += !lstat(path, &st) && S_ISDIR(st.st_mode);
	}
	if (errno)
		problem(c, dir, strerror(errno));
	closedir(d);
	for (unsigned k = 0; k < 2 * SHARED_NAMES; k++) {
		snprintf(path, sizeof(path), "%s/%c%u", dir, k % 2 ? 'd' : 's', k / 2);
		if (!listed[k % 2][k / 2] && !lstat(path, &st))
			problem(c, path, "can be looked up, but is not listed");
	}
	if (abilities.counts_dirs && (stat(dir, &st) || st.st_nlink != 2 + subdirs))
		problem(c, dir, "the number of links is not that of its directories");
}

uint64_t shared_check(const char *dir)
{
	struct counts *c = calloc(1, sizeof(*c));
	uint64_t problems;

	if (!c)
		abort();
	check_shared_dir(c, dir, 0);
	for (unsigned i = 0; i < c->used; i++)
		if (c->all[i].links != c->all[i].names) {
			char text[100];

			snprintf(text, sizeof(text), "inode %ju: %ju links, %u names",
				(uintmax_t)c->all[i].ino, (uintmax_t)c->all[i].links, c->all[i].names);
			problem(c, dir, text);
		}
	problems = c->problems;
	free(c);
	return problems;
}
