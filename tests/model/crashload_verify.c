/* SPDX-License-Identifier: MIT */
/* Compares a directory with the states that STATE allows; and the test of that. */
#include <dirent.h>
#include <fcntl.h>
#include <stdarg.h>
#include <sys/stat.h>

#include "crashload.h"

struct check {
	struct state *s;
	const struct worker *w;
	const char *dir;
	uint64_t worker;
	int dir_fd;
	FILE *out;
	uint64_t problems, files, units, acked, newer, unsynced, absent;
};

_printf_(3, 4) static void problem(struct check *c, const char *name, const char *format, ...)
{
	va_list ap;

	c->problems++;
	fprintf(c->out, "%s/w%ju%s%s: ", c->dir, (uintmax_t)c->worker, name ? "/" : "", name ? name : "");
	va_start(ap, format);
	vfprintf(c->out, format, ap);
	va_end(ap);
	fputc('\n', c->out);
}

static bool all_zero(const uint8_t *p, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (p[i])
			return false;
	return true;
}

static void check_unit(struct check *c, const char *name, const struct cfile *f, uint32_t i, const uint8_t *p)
{
	const struct versions *v = &f->units[i].versions;
	uint64_t file, version;
	uint32_t index, unit = c->s->unit;
	uint8_t want[UNIT_MAX];

	c->units++;
	c->acked += i < f->acked && v->v[0];
	if (!unit_decode(p, unit, &file, &version, &index)) {
		if (!v->v[0] && all_zero(p, unit))
			c->unsynced++;
		else
			problem(c, name, "offset %u: %s; version %ju was acknowledged", i * unit,
				all_zero(p, unit) ? "zeros" : "garbage", (uintmax_t)v->v[0]);
		return;
	}
	unit_fill(want, unit, f->id, version, i);
	if (file != f->id || index != i || memcmp(want, p, unit))
		problem(c, name, "offset %u: data of file %#jx, version %ju, offset %u; the file is %#jx",
			i * unit, (uintmax_t)file, (uintmax_t)version, index * unit, (uintmax_t)f->id);
	else if (!versions_allow(v, version) || !version)
		problem(c, name,
			"offset %u: version %ju; version %ju was acknowledged, the last that was intended is %ju",
			i * unit, (uintmax_t)version, (uintmax_t)v->v[0], (uintmax_t)versions_last(v));
	else if (version != v->v[0])
		c->newer++;
}

static void check_data(
	struct check *c, const char *name, const struct cfile *f, const uint8_t *data, uint64_t size)
{
	uint32_t unit = c->s->unit;

	if (size % unit || size / unit > f->count || size / unit < f->acked)
		problem(c, name, "size %ju; %u was acknowledged, at most %u intended", (uintmax_t)size,
			f->acked * unit, f->count * unit);
	for (uint32_t i = 0; i < f->count && (uint64_t)(i + 1) * unit <= size; i++)
		check_unit(c, name, f, i, data + (size_t)i * unit);
}

/* The file that the data say they are; NULL if no unit can be read. */
static struct cfile *identify(struct check *c, const uint8_t *data, uint64_t size, bool *ret_foreign)
{
	uint32_t unit = c->s->unit, index;
	uint64_t file, version;

	*ret_foreign = false;
	for (uint64_t at = 0; at + unit <= size; at += unit)
		if (unit_decode(data + at, unit, &file, &version, &index)) {
			struct cfile *f = state_file(c->s, file);

			*ret_foreign = !f;
			return f;
		}
	return NULL;
}

static void check_present(struct check *c, unsigned i, const char *name, const uint8_t *data, uint64_t size)
{
	const struct versions *v = &c->w->names[i];
	bool foreign;
	struct cfile *f = identify(c, data, size, &foreign);

	c->files++;
	if (foreign) {
		problem(c, name, "data of a file that there never was");
		return;
	}
	if (f) {
		f->found++;
		if (!versions_allow(v, f->id))
			problem(c, name,
				"is file %#jx; file %#jx was acknowledged, the last that was intended is %#jx",
				(uintmax_t)f->id, (uintmax_t)(v->count ? v->v[0] : 0),
				(uintmax_t)versions_last(v));
		check_data(c, name, f, data, size);
		return;
	}
	/* Nothing says which file it is: it may be any that has no acknowledged data. */
	for (size_t j = 0; j < v->count; j++) {
		f = state_file(c->s, v->v[j]);
		if (f && !f->acked && size % c->s->unit == 0 && size / c->s->unit <= f->count &&
			all_zero(data, size)) {
			c->unsynced++;
			return;
		}
	}
	if (!v->count || (v->count == 1 && !v->v[0]))
		problem(c, name, "exists; its removal was acknowledged, or it was never created");
	else
		problem(c, name, "none of its acknowledged data, size %ju", (uintmax_t)size);
}

static void check_name(struct check *c, unsigned i)
{
	size_t limit = (size_t)UNITS_MAX * c->s->unit + 1;
	_cleanup_free_ uint8_t *data = malloc(limit);
	_cleanup_close_ int fd = -1;
	size_t size = 0;
	char name[16];
	ssize_t n = 0;
	struct stat st;

	name_of(i, name);
	fd = openat(c->dir_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0 && errno == ENOENT) {
		c->absent++;
		if (!versions_allow(&c->w->names[i], 0))
			problem(c, name, "is missing; file %#jx was acknowledged",
				(uintmax_t)c->w->names[i].v[0]);
		return;
	}
	if (fd < 0 || !data || fstat(fd, &st)) {
		problem(c, name, "%s", strerror(errno));
		return;
	}
	while (size < limit && (n = read(fd, data + size, limit - size)) > 0)
		size += n;
	if (n < 0)
		problem(c, name, "offset %zu: %s", size, strerror(errno));
	else if (size < limit && size != (uint64_t)st.st_size)
		problem(c, name, "size %ju, but %zu bytes", (uintmax_t)st.st_size, size);
	else
		check_present(c, i, name, data, size);
	if (st.st_nlink != 1)
		problem(c, name, "%ju links", (uintmax_t)st.st_nlink);
}

/* Names that were never intended. */
static void check_strangers(struct check *c)
{
	DIR *d = fdopendir(openat(c->dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
	bool listed[NAMES] = {false};
	struct dirent *e;

	if (!d) {
		problem(c, NULL, "%s", strerror(errno));
		return;
	}
	while ((errno = 0, e = readdir(d))) {
		unsigned i = 0;
		char name[16];

		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
			continue;
		for (; i < NAMES; i++) {
			name_of(i, name);
			if (!strcmp(name, e->d_name))
				break;
		}
		if (i == NAMES)
			problem(c, e->d_name, "was never created");
		else if (listed[i])
			problem(c, e->d_name, "is listed twice");
		else if (faccessat(c->dir_fd, e->d_name, F_OK, AT_SYMLINK_NOFOLLOW))
			problem(c, e->d_name, "is listed, but %s", strerror(errno));
		else
			listed[i] = true;
	}
	if (errno)
		problem(c, NULL, "readdir: %s", strerror(errno));
	for (unsigned i = 0; i < NAMES; i++) {
		char name[16];

		name_of(i, name);
		if (!listed[i] && !faccessat(c->dir_fd, name, F_OK, AT_SYMLINK_NOFOLLOW))
			problem(c, name, "is there, but not listed");
	}
	closedir(d);
}

static void check_worker(struct check *c)
{
	_cleanup_free_ char *path = NULL;
	_cleanup_close_ int fd = -1;

	if (asprintf(&path, "%s/w%ju", c->dir, (uintmax_t)c->worker) < 0)
		abort();
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0) {
		if (c->w->ready)
			problem(c, NULL, "%s", strerror(errno));
		return;
	}
	c->dir_fd = fd;
	for (size_t i = 0; i < c->w->count; i++)
		c->w->files[i]->found = 0;
	for (unsigned i = 0; i < NAMES; i++)
		check_name(c, i);
	check_strangers(c);
	for (size_t i = 0; i < c->w->count; i++) {
		const struct cfile *f = c->w->files[i];

		/* A rename moves: never both names, never none. A file without acknowledged data can't be told. */
		if (f->found > 1)
			problem(c, NULL, "file %#jx has %u names", (uintmax_t)f->id, f->found);
		if (!f->found && f->linked && !f->may_be_gone && f->acked)
			problem(c, NULL, "file %#jx is lost: its name was acknowledged, and never taken away",
				(uintmax_t)f->id);
	}
}

static struct check verify(const char *dir, struct state *s, FILE *out)
{
	struct check c = {.s = s, .dir = dir, .out = out};

	for (size_t i = 0; i < s->count; i++) {
		c.worker = i;
		c.w = &s->workers[i];
		check_worker(&c);
	}
	return c;
}

int cmd_verify(const char *dir, const char *state_path, const struct options *o)
{
	struct state s;
	struct check c;
	int r = state_read(state_path, &s);

	if (r) {
		fprintf(stderr, "crashload: %s: %s\n", state_path, strerror(-r));
		return 2;
	}
	c = verify(dir, &s, stderr);
	if (!o->quiet || c.problems)
		printf("crashload: seed %ju: %zu workers, %ju intents, %ju acknowledgements; %ju files, %ju names without a file, "
		       "%ju units: %ju acknowledged, %ju newer, %ju files or units never synced and empty; %ju problems\n",
			(uintmax_t)s.seed, s.count, (uintmax_t)s.intents, (uintmax_t)s.acks,
			(uintmax_t)c.files, (uintmax_t)c.absent, (uintmax_t)c.units, (uintmax_t)c.acked,
			(uintmax_t)c.newer, (uintmax_t)c.unsynced, (uintmax_t)c.problems);
	if (c.problems)
		fprintf(stderr, "replay: crashload verify %s %s\n", dir, state_path);
	state_free(&s);
	return c.problems ? 1 : 0;
}

/* ---- the test of the test ---- */

/* A name whose file has at least two acknowledged units and no intent later; -1 if there is none. */
static int find_settled(const struct check *c, const struct cfile **ret)
{
	for (unsigned i = 0; i < NAMES; i++) {
		const struct versions *v = &c->w->names[i];
		const struct cfile *f = v->count == 1 ? state_file(c->s, v->v[0]) : NULL;
		bool settled = f && f->acked >= 2 && f->acked == f->count;

		for (uint32_t j = 0; settled && j < f->count; j++)
			settled = f->units[j].versions.count == 1 && f->units[j].versions.v[0] > 1;
		if (settled) {
			*ret = f;
			return i;
		}
	}
	return -1;
}

static int find_removed(const struct check *c)
{
	for (unsigned i = 0; i < NAMES; i++)
		if (c->w->names[i].count <= 1 && !versions_last(&c->w->names[i]))
			return i;
	return -1;
}

enum damage { FLIP, OLD, FOREIGN, ZEROS, SHORTER, LONGER, GONE, AGAIN, STRANGER, TWICE, DAMAGES };

static const char *const damage_names[] = {"a byte", "an older version", "another file's unit", "zeros",
	"one unit less", "one unit more", "a name gone", "a removed name", "a name never created",
	"two names"};

/* Does the damage, or undoes it. */
static bool damage(const struct check *c, enum damage d, const char *name, const char *removed,
	const struct cfile *f, bool undo)
{
	uint32_t unit = c->s->unit;
	_cleanup_close_ int fd = openat(c->dir_fd, d == GONE && undo ? "x" : name, O_RDWR | O_CLOEXEC);
	uint64_t version = f->units[1].versions.v[0];
	uint8_t buf[UNIT_MAX];

	unit_fill(buf, unit, f->id, version, 1);
	switch (d) {
	case FLIP:
		buf[unit - 1] ^= !undo;
		return pwrite(fd, buf, unit, unit) == unit;
	case OLD:
	case FOREIGN:
		if (!undo)
			unit_fill(buf, unit, f->id + (d == FOREIGN), version - (d == OLD), 1);
		return pwrite(fd, buf, unit, unit) == unit;
	case ZEROS:
		if (!undo)
			memset(buf, 0, unit);
		return pwrite(fd, buf, unit, unit) == unit;
	case SHORTER:
		if (!undo)
			return !ftruncate(fd, (f->count - 1) * unit);
		unit_fill(buf, unit, f->id, f->units[f->count - 1].versions.v[0], f->count - 1);
		return pwrite(fd, buf, unit, (f->count - 1) * unit) == unit;
	case LONGER:
		return !ftruncate(fd, (f->count + !undo) * unit);
	case GONE:
		return !renameat(c->dir_fd, undo ? "x" : name, c->dir_fd, undo ? name : "x");
	case STRANGER:
		removed = "stranger";
		/* fall through */
	case AGAIN:
		if (undo)
			return !unlinkat(c->dir_fd, removed, 0);
		return !mknodat(c->dir_fd, removed, S_IFREG | 0600, 0);
	default:
		return undo ? !unlinkat(c->dir_fd, "f", 0) : !linkat(c->dir_fd, name, c->dir_fd, "f", 0);
	}
}

int cmd_self_check(const char *dir, const char *state_path, const struct options *o)
{
	_cleanup_free_ char *path = NULL;
	const struct cfile *f = NULL;
	char name[16], removed[16];
	struct state s;
	struct check c;
	int found, gone, missed = 0;
	FILE *null = fopen("/dev/null", "we");

	if (!null || state_read(state_path, &s))
		return 2;
	c = verify(dir, &s, stderr);
	c.worker = 0;
	c.w = &s.workers[0];
	found = find_settled(&c, &f);
	gone = find_removed(&c);
	if (c.problems || found < 0 || gone < 0 || asprintf(&path, "%s/w0", dir) < 0) {
		fprintf(stderr, "crashload: %s: wrong from the beginning, or too little in it\n", dir);
		return 2;
	}
	name_of(found, name);
	name_of(gone, removed);
	c.dir_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	for (unsigned d = 0; d < DAMAGES; d++) {
		bool done = damage(&c, d, name, removed, f, false), seen = verify(dir, &s, null).problems;
		bool undone = damage(&c, d, name, removed, f, true) && !verify(dir, &s, stderr).problems;

		if (!done || !seen || !undone) {
			fprintf(stderr, "crashload: self-check: %s: %s\n", damage_names[d],
				!done	? "could not be done"
				: !seen ? "not noticed"
					: "could not be undone");
			missed++;
		}
	}
	printf("crashload: self-check: %u kinds of damage, %d missed\n", DAMAGES, missed);
	close(c.dir_fd);
	fclose(null);
	state_free(&s);
	return missed ? 1 : 0;
}
