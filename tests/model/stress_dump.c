/* SPDX-License-Identifier: MIT */
/*
 * A tree as text, one line an inode's name, sorted by path, fields with tabs between:
 *
 *	path type mode uid gid links size mtime device content attributes same
 *
 * content is a hash of the bytes, or of a symbolic link's target; attributes one of all user.* names and values; same the
 * first path of the same inode. What a type does not have is "-".
 */
#include <dirent.h>
#include <fcntl.h>
#include <stdarg.h>
#include <sys/xattr.h>

#include "stress.h"

enum field { PATH, TYPE, MODE, UID, GID, LINKS, SIZE, MTIME, DEVICE, CONTENT, ATTRIBUTES, SAME, FIELDS };

static const char *const field_names[FIELDS] = {"path", "type", "mode", "uid", "gid", "links", "size",
	"mtime", "device", "content", "attributes", "same"};

struct line {
	char *field[FIELDS];
	dev_t dev;
	ino_t ino;
};

struct lines {
	struct line *line;
	size_t count, capacity;
	int error;
};

/* ---- hashes ---- */

static uint64_t hash_more(uint64_t h, const void *data, size_t len)
{
	const uint8_t *p = data;

	while (len >= 8) {
		uint64_t x;

		memcpy(&x, p, 8);
		h = mix64(h ^ x);
		p += 8;
		len -= 8;
	}
	while (len--)
		h = mix64(h ^ *p++ ^ 0x100);
	return h;
}

static int hash_file(const char *path, uint64_t *ret)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	static uint8_t buf[1u << 16];
	uint64_t h = 1;
	size_t have;

	if (fd < 0)
		return -errno;
	do {
		ssize_t n = 0;

		/* Whole buffers, however the reads come. */
		for (have = 0; have < sizeof(buf) && (n = read(fd, buf + have, sizeof(buf) - have)) > 0;
			have += n)
			;
		if (n < 0)
			return -errno;
		h = hash_more(h, buf, have);
	} while (have == sizeof(buf));
	*ret = h;
	return 0;
}

/* The order of a list of attributes means nothing, so the hashes of all are added. */
static int hash_xattrs(const char *path, uint64_t *ret)
{
	char list[8192], value[65536];
	ssize_t len = llistxattr(path, list, sizeof(list));

	*ret = 0;
	if (len < 0)
		return errno == EOPNOTSUPP ? 0 : -errno;
	for (const char *p = list; p < list + len; p += strlen(p) + 1) {
		ssize_t n;

		if (strncmp(p, "user.", 5))
			continue;
		n = lgetxattr(path, p, value, sizeof(value));
		if (n < 0)
			return -errno;
		*ret += hash_more(hash_more(3, p, strlen(p)), value, n);
	}
	return 0;
}

/* ---- a walk ---- */

_printf_(3, 4) static void set(struct line *l, enum field f, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	if (vasprintf(&l->field[f], format, ap) < 0)
		abort();
	va_end(ap);
}

static void set_hash(struct line *l, enum field f, int error, uint64_t hash)
{
	if (error)
		set(l, f, "%s", strerror(-error));
	else
		set(l, f, "%016jx", (uintmax_t)hash);
}

static void set_content(struct line *l, const char *full, const struct stat *st)
{
	char target[PATH_SIZE];
	uint64_t hash = 0;
	int r;

	if (S_ISREG(st->st_mode)) {
		r = hash_file(full, &hash);
		set_hash(l, CONTENT, r, hash);
	} else if (S_ISLNK(st->st_mode)) {
		ssize_t n = readlink(full, target, sizeof(target));

		set_hash(l, CONTENT, n < 0 ? -errno : 0, n < 0 ? 0 : hash_more(2, target, n));
	} else {
		set(l, CONTENT, "-");
	}
	r = S_ISREG(st->st_mode) || S_ISDIR(st->st_mode) ? hash_xattrs(full, &hash) : -ENODATA;
	if (r == -ENODATA)
		set(l, ATTRIBUTES, "-");
	else
		set_hash(l, ATTRIBUTES, r, hash);
}

static void add(struct lines *ls, const char *full, const char *path, const struct stat *st)
{
	size_t size = 4 * strlen(path) + 5;
	char *escaped = malloc(size);
	struct line *l;

	if (!escaped || array_reserve(&ls->line, &ls->capacity, ls->count + 1, sizeof(*ls->line)))
		abort();
	l = &ls->line[ls->count++];
	*l = (struct line){.dev = st->st_dev, .ino = st->st_ino};
	l->field[PATH] = name_escape(path, strlen(path), escaped, size);
	set(l, TYPE, "%c", "?pc?d?b?-?l?s???"[(st->st_mode & S_IFMT) >> 12]);
	set(l, MODE, "%04o", st->st_mode & 07777);
	set(l, UID, "%u", st->st_uid);
	set(l, GID, "%u", st->st_gid);
	set(l, LINKS, "%ju", (uintmax_t)st->st_nlink);
	if (S_ISDIR(st->st_mode))
		set(l, SIZE, "-");
	else
		set(l, SIZE, "%ju", (uintmax_t)st->st_size);
	set(l, MTIME, "%jd.%09ld", (intmax_t)st->st_mtim.tv_sec, st->st_mtim.tv_nsec);
	set(l, DEVICE, S_ISCHR(st->st_mode) || S_ISBLK(st->st_mode) ? "%jx" : "-", (uintmax_t)st->st_rdev);
	set_content(l, full, st);
	set(l, SAME, "-");
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

static void walk(struct lines *ls, const char *full, const char *path)
{
	struct dirent **names;
	int count = scandir(full, &names, NULL, by_name);

	if (count < 0) {
		fprintf(stderr, "stress: %s: %s\n", full, strerror(errno));
		ls->error = -errno;
		return;
	}
	for (int i = 0; i < count; i++) {
		_cleanup_free_ char *sub = NULL, *sub_path = NULL;
		_cleanup_free_ struct dirent *e = names[i];
		struct stat st;

		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..") ||
			(!*path && !strcmp(e->d_name, "lost+found")))
			continue;
		if (asprintf(&sub, "%s/%s", full, e->d_name) < 0 ||
			asprintf(&sub_path, "%s/%s", path, e->d_name) < 0)
			abort();
		if (lstat(sub, &st)) {
			fprintf(stderr, "stress: %s: %s\n", sub, strerror(errno));
			ls->error = -errno;
			continue;
		}
		add(ls, sub, sub_path, &st);
		if (S_ISDIR(st.st_mode))
			walk(ls, sub, sub_path);
	}
	free(names);
}

static int by_path(const void *a, const void *b)
{
	return strcmp(((const struct line *)a)->field[PATH], ((const struct line *)b)->field[PATH]);
}

static int by_inode(const void *a, const void *b)
{
	const struct line *x = *(struct line *const *)a, *y = *(struct line *const *)b;

	if (x->ino != y->ino)
		return x->ino < y->ino ? -1 : 1;
	return x < y ? -1 : x > y;
}

/* Inode numbers may differ from mount to mount, but not which names are the same file. */
static void name_groups(struct lines *ls)
{
	struct line **sorted = calloc(ls->count + 1, sizeof(*sorted));

	if (!sorted)
		abort();
	for (size_t i = 0; i < ls->count; i++)
		sorted[i] = &ls->line[i];
	qsort(sorted, ls->count, sizeof(*sorted), by_inode);
	for (size_t i = 1, first = 0; i < ls->count; i++) {
		if (sorted[i]->ino != sorted[first]->ino || sorted[i]->dev != sorted[first]->dev) {
			first = i;
			continue;
		}
		free(sorted[i]->field[SAME]);
		set(sorted[i], SAME, "%s", sorted[first]->field[PATH]);
	}
	free(sorted);
}

static struct lines scan(const char *dir)
{
	struct lines ls = {0};

	walk(&ls, dir, "");
	qsort(ls.line, ls.count, sizeof(*ls.line), by_path);
	name_groups(&ls);
	return ls;
}

static void lines_free(struct lines *ls)
{
	for (size_t i = 0; i < ls->count; i++)
		for (unsigned f = 0; f < FIELDS; f++)
			free(ls->line[i].field[f]);
	free(ls->line);
}

int dump_write(const char *file, const char *dir)
{
	struct lines ls = scan(dir);
	FILE *out = fopen(file, "we");
	int r = ls.error ? 2 : 0;

	for (size_t i = 0; out && i < ls.count; i++)
		for (unsigned f = 0; f < FIELDS; f++)
			fprintf(out, "%s%c", ls.line[i].field[f], f + 1 < FIELDS ? '\t' : '\n');
	if (!out || ferror(out) || fclose(out)) {
		fprintf(stderr, "stress: %s: %s\n", file, strerror(errno));
		r = 2;
	}
	lines_free(&ls);
	return r;
}

/* ---- comparison ---- */

static int load(const char *file, struct lines *ret)
{
	_cleanup_free_ char *text = NULL;
	size_t size = 0;
	ssize_t n;
	FILE *in = fopen(file, "re");

	if (!in)
		return -errno;
	while ((n = getline(&text, &size, in)) > 0 && text[n - 1] == '\n') {
		struct line l = {0};
		char *rest = text;

		text[n - 1] = 0;
		for (unsigned f = 0; f < FIELDS; f++) {
			char *field = strsep(&rest, "\t");

			l.field[f] = strdup(field ? field : "");
		}
		if (array_reserve(&ret->line, &ret->capacity, ret->count + 1, sizeof(*ret->line)))
			abort();
		ret->line[ret->count++] = l;
	}
	fclose(in);
	return 0;
}

static uint64_t compare_line(const struct line *expected, const struct line *found, FILE *out)
{
	uint64_t differences = 0;

	for (unsigned f = TYPE; f < FIELDS; f++)
		if (strcmp(expected->field[f], found->field[f])) {
			fprintf(out, "%s: %s: %s instead of %s\n", expected->field[PATH], field_names[f],
				found->field[f], expected->field[f]);
			differences++;
		}
	return differences;
}

int dump_verify(const char *file, const char *dir, FILE *out)
{
	struct lines want = {0}, have = {0};
	uint64_t differences = 0;
	size_t i = 0, j = 0;
	int r = load(file, &want);

	if (r) {
		fprintf(stderr, "stress: %s: %s\n", file, strerror(-r));
		return 2;
	}
	have = scan(dir);
	while (i < want.count || j < have.count) {
		int order = i == want.count   ? 1
			    : j == have.count ? -1
					      : by_path(&want.line[i], &have.line[j]);

		if (order < 0)
			fprintf(out, "%s: is missing\n", want.line[i++].field[PATH]);
		else if (order > 0)
			fprintf(out, "%s: should not be there\n", have.line[j++].field[PATH]);
		else
			differences += compare_line(&want.line[i++], &have.line[j++], out);
		differences += order != 0;
	}
	if (!options.quiet)
		fprintf(out, "stress: %zu names, %ju differences\n", want.count, (uintmax_t)differences);
	r = differences || have.error ? 1 : 0;
	lines_free(&want);
	lines_free(&have);
	return r;
}
