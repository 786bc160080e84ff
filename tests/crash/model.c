/* SPDX-License-Identifier: MIT */
#include "model.h"

#include <assert.h>
#include <stdarg.h>

#include "codec/codec.h"

void problem_set(struct problem *p, const char *fmt, ...)
{
	va_list ap;

	if (p->text[0])
		return;
	va_start(ap, fmt);
	vsnprintf(p->text, sizeof(p->text), fmt, ap);
	va_end(ap);
}

/* ---- walking ---- */

#define NAMES_MAX 256u
#define PATH_LENGTH 256u

struct walk {
	struct vfs *v;
	struct snap *snap;
	struct problem *problem;
	char *lines[NAMES_MAX];
	unsigned count;
	struct seen {
		uint64_t ino;
		unsigned names, nlink;
		bool dir;
	} seen[NAMES_MAX];
	unsigned seen_count;
};

static struct seen *seen_find(struct walk *w, const struct stat *st)
{
	for (unsigned i = 0; i < w->seen_count; i++)
		if (w->seen[i].ino == st->st_ino)
			return &w->seen[i];
	assert(w->seen_count < NAMES_MAX);
	w->seen[w->seen_count] = (struct seen){.ino = st->st_ino, .nlink = (unsigned)st->st_nlink, .dir = S_ISDIR(st->st_mode)};
	return &w->seen[w->seen_count++];
}

static int string_compare(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Of all its attributes, in any order. */
static uint64_t xattrs_hash(struct walk *w, uint64_t ino, const char *path, unsigned *ret_count)
{
	static char list[65536], value[65536];
	ssize_t n = vfs_listxattr(w->v, ino, list, sizeof(list));
	uint64_t sum = 0;

	*ret_count = 0;
	if (n < 0) {
		problem_set(w->problem, "%s: listxattr: %s", path, strerror((int)-n));
		return 0;
	}
	for (const char *p = list; p < list + n; p += strlen(p) + 1) {
		ssize_t len = vfs_getxattr(w->v, ino, p, value, sizeof(value));

		if (len < 0) {
			problem_set(w->problem, "%s: attribute %s is listed, but: %s", path, p, strerror((int)-len));
			continue;
		}
		sum += codec_hash_seeded(value, (size_t)len, codec_checksum(p, strlen(p)));
		++*ret_count;
	}
	return sum;
}

static void add_line(struct walk *w, const char *path, const struct stat *st)
{
	char target[PINFS_SYMLINK_MAX + 1] = "", times[96] = "";
	unsigned xattrs;
	uint64_t hash = xattrs_hash(w, st->st_ino, path, &xattrs);
	int r = S_ISLNK(st->st_mode) ? vfs_readlink(w->v, st->st_ino, target) : 0;

	if (r < 0)
		problem_set(w->problem, "%s: readlink: %s", path, strerror(-r));
	/* Those of a file change with its content, and are looked at with that. */
	if (!S_ISREG(st->st_mode))
		snprintf(times, sizeof(times), " mtime %jd.%09ld ctime %jd.%09ld", (intmax_t)st->st_mtim.tv_sec, st->st_mtim.tv_nsec,
			(intmax_t)st->st_ctim.tv_sec, st->st_ctim.tv_nsec);
	assert(w->count < NAMES_MAX);
	if (asprintf(&w->lines[w->count], "%s inode %ju mode %o links %ju owner %u:%u%s xattrs %u (%016jx) %.200s\n", path, (uintmax_t)st->st_ino,
		st->st_mode, (uintmax_t)st->st_nlink, st->st_uid, st->st_gid, times, xattrs, (uintmax_t)hash, target) < 0)
		abort();
	w->count++;
}

static void walk_dir(struct walk *w, uint64_t ino, const char *path, unsigned depth, const struct stat *self);

static void walk_name(struct walk *w, uint64_t parent, const char *path, const struct vfs_dirent *e, unsigned depth)
{
	char full[PATH_LENGTH];
	struct seen *seen;
	struct stat st;
	int r = vfs_lookup(w->v, parent, e->name, &st);

	snprintf(full, sizeof(full), "%s/%.200s", path, e->name);
	if (r < 0) {
		problem_set(w->problem, "%s is listed (inode %ju), but can't be looked up: %s", full, (uintmax_t)e->ino, strerror(-r));
		return;
	}
	vfs_forget(w->v, st.st_ino, 1);
	if (st.st_ino != e->ino || (st.st_mode & S_IFMT) >> 12 != e->type)
		problem_set(w->problem, "%s is listed as inode %ju, type %u, and found as inode %ju, mode %o", full, (uintmax_t)e->ino,
			e->type, (uintmax_t)st.st_ino, st.st_mode);
	seen = seen_find(w, &st);
	seen->names++;
	if (seen->dir && seen->names > 1) {
		problem_set(w->problem, "directory %s has two names", full);
		return;
	}
	add_line(w, full, &st);
	if (S_ISREG(st.st_mode) && seen->names == 1) {
		assert(w->snap->count < FILES_MAX);
		w->snap->files[w->snap->count++] = (struct snap_file){st.st_ino, (uint64_t)st.st_size, st.st_mtim, st.st_ctim};
	}
	if (seen->dir)
		walk_dir(w, st.st_ino, full, depth + 1, &st);
}

static void walk_dir(struct walk *w, uint64_t ino, const char *path, unsigned depth, const struct stat *self)
{
	unsigned names = 0, dirs = 0;
	struct delta_inode i;
	struct vfs_dirent e;
	struct vfs_dir d;
	struct stat up;
	int r = depth > 16 ? -ELOOP : vfs_dir_begin(w->v, ino, 0, &d);

	if (r < 0) {
		problem_set(w->problem, "%s/ can't be read: %s", path, strerror(-r));
		return;
	}
	while ((r = vfs_dir_next(&d, &e)) > 0) {
		if (!strcmp(e.name, ".") || !strcmp(e.name, ".."))
			continue;
		names++;
		dirs += e.type == S_IFDIR >> 12;
		walk_name(w, ino, path, &e, depth);
	}
	vfs_dir_end(&d);
	if (r < 0)
		problem_set(w->problem, "%s/ can't be read: %s", path, strerror(-r));
	if (self->st_nlink != dirs + 2)
		problem_set(w->problem, "%s/ has %u directories and %ju links", path, dirs, (uintmax_t)self->st_nlink);
	delta_lock(vfs_delta(w->v));
	r = delta_inode_get(vfs_delta(w->v), ino, &i);
	delta_unlock(vfs_delta(w->v));
	if (r == 0 && i.entries != names)
		problem_set(w->problem, "%s/ has %u names, and counts %ju", path, names, (uintmax_t)i.entries);
	r = vfs_lookup(w->v, ino, "..", &up);
	if (r < 0)
		problem_set(w->problem, "%s/..: %s", path, strerror(-r));
	else
		vfs_forget(w->v, up.st_ino, 1);
}

void snap_take(struct vfs *v, struct snap *ret, struct problem *problem)
{
	struct walk w = {.v = v, .snap = ret, .problem = problem};
	size_t len = 0, at = 0;
	struct stat st;

	*ret = (struct snap){0};
	if (vfs_getattr(v, VFS_ROOT_INO, &st) < 0) {
		problem_set(problem, "the root directory can't be read");
		return;
	}
	add_line(&w, "", &st);
	walk_dir(&w, VFS_ROOT_INO, "", 0, &st);
	for (unsigned i = 0; i < w.seen_count; i++)
		if (!w.seen[i].dir && w.seen[i].names != w.seen[i].nlink)
			problem_set(problem, "inode %ju has %u names and %u links", (uintmax_t)w.seen[i].ino, w.seen[i].names, w.seen[i].nlink);
	qsort(w.lines, w.count, sizeof(w.lines[0]), string_compare);
	for (unsigned i = 0; i < w.count; i++)
		len += strlen(w.lines[i]);
	ret->text = malloc(len + 1);
	assert(ret->text);
	for (unsigned i = 0; i < w.count; i++) {
		memcpy(ret->text + at, w.lines[i], strlen(w.lines[i]));
		at += strlen(w.lines[i]);
		free(w.lines[i]);
	}
	ret->text[len] = 0;
	ret->hash = codec_checksum(ret->text, len);
}

void snap_free(struct snap *s)
{
	free(s->text);
	s->text = NULL;
}

/* ---- content ---- */

struct chunk {
	struct chunk *next;
	unsigned used;
	uint8_t pages[64][PINFS_PAGE_SIZE];
};

static uint8_t *page_new(struct model *m)
{
	if (!m->chunks || m->chunks->used == ARRAY_SIZE(m->chunks->pages)) {
		struct chunk *c = malloc(sizeof(*c));

		assert(c);
		c->next = m->chunks;
		c->used = 0;
		m->chunks = c;
	}
	return m->chunks->pages[m->chunks->used++];
}

void model_free(struct model *m)
{
	while (m->chunks) {
		struct chunk *c = m->chunks;

		m->chunks = c->next;
		free(c);
	}
	for (unsigned i = 0; i < m->count; i++)
		free(m->files[i].versions);
	for (unsigned i = 0; i <= OPS_MAX; i++)
		snap_free(&m->snaps[i]);
	free(m);
}

struct file *model_find(struct model *m, uint64_t ino)
{
	for (unsigned i = 0; i < m->count; i++)
		if (m->files[i].ino == ino)
			return &m->files[i];
	return NULL;
}

struct file *model_file(struct model *m, uint64_t ino)
{
	struct file *f = model_find(m, ino);

	if (f)
		return f;
	assert(m->count < FILES_MAX);
	m->files[m->count].ino = ino;
	return &m->files[m->count++];
}

static uint8_t *page_change(struct model *m, struct file *f, uint64_t page)
{
	uint8_t *p = page_new(m);

	assert(page < FILE_PAGES);
	if (f->pages[page])
		memcpy(p, f->pages[page], PINFS_PAGE_SIZE);
	else
		memset(p, 0, PINFS_PAGE_SIZE);
	f->pages[page] = p;
	return p;
}

void file_write(struct model *m, struct file *f, uint64_t offset, const uint8_t *data, size_t len)
{
	f->size = MAX(f->size, offset + len);
	while (len) {
		uint64_t in = offset % PINFS_PAGE_SIZE;
		size_t n = (size_t)MIN((uint64_t)len, PINFS_PAGE_SIZE - in);

		memcpy(page_change(m, f, offset / PINFS_PAGE_SIZE) + in, data, n);
		offset += n;
		data += n;
		len -= n;
	}
}

void file_zero(struct model *m, struct file *f, uint64_t offset, uint64_t len)
{
	uint64_t end = MIN(offset + len, (uint64_t)FILE_PAGES * PINFS_PAGE_SIZE);

	while (offset < end) {
		uint64_t in = offset % PINFS_PAGE_SIZE, n = MIN(end - offset, PINFS_PAGE_SIZE - in), page = offset / PINFS_PAGE_SIZE;

		if (n == PINFS_PAGE_SIZE)
			f->pages[page] = NULL;
		else if (f->pages[page])
			memset(page_change(m, f, page) + in, 0, (size_t)n);
		offset += n;
	}
}

void file_truncate(struct model *m, struct file *f, uint64_t size)
{
	if (size < f->size)
		file_zero(m, f, size, UINT64_MAX - size);
	f->size = size;
}

void file_change(struct file *f, int op, uint64_t first, uint64_t end, bool size)
{
	assert(f->change_count < OPS_MAX);
	f->changes[f->change_count++] = (struct change){op, (unsigned)MIN(first, (uint64_t)FILE_PAGES), (unsigned)MIN(end, (uint64_t)FILE_PAGES), size};
}

static void version_add(struct file *f, int op, bool whole, struct timespec mtime, struct timespec ctime)
{
	struct version *v;

	if (f->count == f->capacity) {
		f->capacity = MAX(f->capacity * 2, 4u);
		f->versions = realloc(f->versions, f->capacity * sizeof(*f->versions));
		assert(f->versions);
	}
	v = &f->versions[f->count++];
	*v = (struct version){.op = op, .whole = whole, .size = f->size, .mtime = mtime, .ctime = ctime};
	memcpy(v->pages, f->pages, sizeof(v->pages));
}

void model_between(struct model *m, struct vfs *v, struct file *f, int op)
{
	struct stat st = {0};

	vfs_getattr(v, f->ino, &st);
	version_add(f, op, false, st.st_mtim, st.st_ctim);
}

void model_after(struct model *m, struct vfs *v, int op, struct problem *problem)
{
	struct snap *s = &m->snaps[op];

	snap_take(v, s, problem);
	for (unsigned i = 0; i < s->count; i++) {
		struct file *f = model_file(m, s->files[i].ino);

		if (f->uncertain)
			f->size = s->files[i].size;
		if (f->size != s->files[i].size)
			problem_set(problem, "after operation %d inode %ju has %ju bytes, not %ju", op, (uintmax_t)f->ino,
				(uintmax_t)s->files[i].size, (uintmax_t)f->size);
		version_add(f, op, true, s->files[i].mtime, s->files[i].ctime);
	}
}

ssize_t read_whole(struct vfs *v, uint64_t ino, uint8_t *buf)
{
	static struct vfs_read read;
	size_t done = 0, most = (size_t)FILE_PAGES * PINFS_PAGE_SIZE;
	int r = vfs_read_begin(v, ino, 0, most, &read);

	if (r < 0)
		return r;
	for (unsigned i = 0; i < read.count; i++) {
		memcpy(buf + done, read.iov[i].iov_base, read.iov[i].iov_len);
		done += read.iov[i].iov_len;
	}
	vfs_read_end(v, &read, false);
	return (ssize_t)done;
}

void model_load(struct model *m, struct vfs *v, struct problem *problem)
{
	static uint8_t buf[FILE_PAGES * PINFS_PAGE_SIZE];
	struct snap s;

	snap_take(v, &s, problem);
	for (unsigned i = 0; i < s.count; i++) {
		struct file *f = model_file(m, s.files[i].ino);
		ssize_t n = read_whole(v, f->ino, buf);

		if (n < 0)
			problem_set(problem, "inode %ju can't be read: %s", (uintmax_t)f->ino, strerror((int)-n));
		else
			file_write(m, f, 0, buf, (size_t)n);
		f->size = s.files[i].size;
	}
	snap_free(&s);
	model_after(m, v, 0, problem);
}

void model_begin(struct model *m, const struct model *base, struct vfs *v, struct problem *problem)
{
	for (unsigned i = 0; i < base->count; i++) {
		struct file *f = model_file(m, base->files[i].ino);

		f->size = base->files[i].size;
		memcpy(f->pages, base->files[i].pages, sizeof(f->pages));
	}
	model_after(m, v, 0, problem);
}
