/* SPDX-License-Identifier: MIT */
/*
 * fsck, the tree: directories, link counts, and names for what is damaged.
 *
 * Directories are walked in the order of their inode numbers, by all threads, without recursion. That still proves
 * a tree that hangs together: every directory but the root has exactly one entry, in the directory that it names as
 * its parent, whose number is smaller; so following the parents always ends at the root.
 */
#include "mkfs/fsck_internal.h"

#include <dirent.h>

#define DIR_STEP 256u
#define LINK_STEP 65536u
#define SHOWN_NAME (4 * PINFS_NAME_MAX + 8)
#define PATH_SIZE 4096u
/* Entries that may be read to find the paths of what is affected. */
#define PATH_BUDGET 20000000u

struct dir_walk {
	struct fsck *f;
	const struct image_inode *dir;
	struct image_dir_iter it;
	uint64_t groups, subdirs, names;
	bool whole; /* all its entries were seen */
	uint8_t prev_len;
	char prev[PINFS_NAME_MAX];
};

#define dir_problem(w, fmt, ...)                                                            \
	fsck_problem((w)->f, fsck_section_where((w)->f, PINFS_SECTION_DIRS, (w)->dir->pos), \
		"directory inode %u: " fmt, (w)->dir->ino, ##__VA_ARGS__)

/* Notes that `name` in directory dir can't be read whole. */
static int affected_add(struct fsck *f, uint32_t dir, const char *name)
{
	struct affected_name a = {.dir = dir};
	int r = 0;

	mutex_lock(&f->lock);
	f->report->affected++;
	if (f->affected_count < f->options.max_problems) {
		r = array_reserve(&f->affected_names, &f->affected_capacity, f->affected_count + 1, sizeof(a));
		if (r == 0 && !(a.name = strdup(name)))
			r = -ENOMEM;
		if (r == 0)
			f->affected_names[f->affected_count++] = a;
	}
	mutex_unlock(&f->lock);
	return r;
}

static void check_child_directory(struct dir_walk *w, const struct image_dirent *e)
{
	struct fsck *f = w->f;
	char name[SHOWN_NAME];

	if (f->slots[e->ino] != w->dir->ino || e->ino <= w->dir->ino)
		dir_problem(w, "'%s' is directory inode %u, which belongs to directory %u",
			name_escape(e->name, e->name_len, name, sizeof(name)), e->ino, f->slots[e->ino]);
	else if (__atomic_fetch_or(&f->kinds[e->ino], KIND_NAMED, __ATOMIC_RELAXED) & KIND_NAMED)
		dir_problem(w, "'%s' is directory inode %u, which has another name already",
			name_escape(e->name, e->name_len, name, sizeof(name)), e->ino);
}

static int check_entry(struct dir_walk *w, const struct image_dirent *e)
{
	struct fsck *f = w->f;
	uint8_t kind = __atomic_load_n(&f->kinds[e->ino], __ATOMIC_RELAXED);
	char name[SHOWN_NAME];
	int c;

	c = memcmp(w->prev, e->name, MIN(w->prev_len, e->name_len));
	if (c > 0 || (c == 0 && w->prev_len >= e->name_len))
		dir_problem(w, "'%s' is out of order, or there twice",
			name_escape(e->name, e->name_len, name, sizeof(name)));
	memcpy(w->prev, e->name, e->name_len);
	w->prev_len = e->name_len;
	w->names++;
	w->subdirs += e->type == DT_DIR;
	if ((kind & KIND_TYPE) && (kind & KIND_TYPE) != e->type)
		dir_problem(w, "'%s' has type %u, its inode %u has type %u",
			name_escape(e->name, e->name_len, name, sizeof(name)), e->type, e->ino, kind & KIND_TYPE);
	else if (e->type == DT_DIR && (kind & KIND_TYPE))
		check_child_directory(w, e);
	if ((kind & KIND_TYPE) != DT_DIR && (kind & KIND_TYPE))
		__atomic_fetch_sub(&f->slots[e->ino], 1, __ATOMIC_RELAXED);
	return kind & KIND_AFFECTED || !(kind & KIND_TYPE) ? affected_add(f, w->dir->ino, e->name) : 0;
}

/* The next entry begins a group: is that where the table says? */
static int check_restart(struct dir_walk *w)
{
	struct image_dir_iter probe;
	int r = image_dir_iter_begin(w->f->image, w->dir, w->it.index, &probe);

	if (r < 0)
		return r;
	if (probe.pos != w->it.pos)
		dir_problem(w, "restart point %ju is at byte %ju, its entry at byte %ju",
			(uintmax_t)(w->it.index / w->f->info->dir_restart), (uintmax_t)(probe.pos - probe.base),
			(uintmax_t)(w->it.pos - w->it.base));
	image_dir_iter_end(&probe);
	return 0;
}

/* From w->it to the end of the directory, or to the first error, which is returned. */
static int walk_entries(struct dir_walk *w)
{
	struct image_dirent e;
	int r;

	for (;;) {
		if (w->groups > 1 && w->it.index < w->it.count && w->it.index % w->f->info->dir_restart == 0) {
			if (w->it.index % 4096 == 0 && fsck_cancelled(w->f))
				return -ECANCELED;
			r = check_restart(w);
			if (r < 0)
				return r;
		}
		r = image_dir_iter_next(&w->it, &e);
		if (r <= 0)
			return r;
		r = check_entry(w, &e);
		if (r < 0)
			return r;
	}
}

/* After damage the walk goes on at the next restart point. 0 or an error that ends the check. */
static int walk_directory(struct dir_walk *w)
{
	struct fsck *f = w->f;
	bool readable = fsck_section_readable(f, PINFS_SECTION_DIRS, w->dir->pos, w->dir->size);
	uint64_t index = 0;

	w->whole = true;
	while (index < w->dir->arg0) {
		int r = image_dir_iter_begin(f->image, w->dir, index, &w->it);

		if (r == 0) {
			r = walk_entries(w);
			index = MAX(index, w->it.index);
			image_dir_iter_end(&w->it);
		}
		if (r == 0)
			return 0;
		if (r == -ECANCELED || r == -ENOMEM)
			return r;
		/* The chunk that can't be read has been told already. */
		if (readable && fsck_problem_caught(f, r, 0, "directory inode %u", w->dir->ino) < 0)
			return -ENOMEM;
		fsck_forget_caught();
		w->whole = false;
		w->prev_len = 0;
		index = (index / f->info->dir_restart + 1) * f->info->dir_restart;
	}
	return 0;
}

/* Takes the directory's bytes from those that the section has: overlapping ones could else be walked for ever. */
static bool take_bytes(struct fsck *f, const struct image_inode *dir)
{
	bool ok;

	mutex_lock(&f->lock);
	ok = f->dir_bytes >= dir->size;
	f->dir_bytes -= ok ? dir->size : 0;
	f->dirs_damaged += !ok;
	mutex_unlock(&f->lock);
	return ok;
}

static int check_dir(struct fsck *f, uint32_t ino)
{
	struct image_inode dir;
	struct dir_walk w = {.f = f, .dir = &dir};
	int r = image_inode_get(f->image, ino, &dir);

	if (r < 0)
		return fsck_problem_caught(f, r, 0, NULL);
	if (!take_bytes(f, &dir))
		return 0;
	w.groups = DIV_ROUND_UP((uint64_t)dir.arg0, f->info->dir_restart);
	r = walk_directory(&w);
	if (r < 0)
		return r;
	if (w.whole && dir.nlink != 2 + w.subdirs)
		dir_problem(&w, "its link count is %u, but with %ju subdirectories it must be %ju", dir.nlink,
			(uintmax_t)w.subdirs, (uintmax_t)w.subdirs + 2);
	mutex_lock(&f->lock);
	f->report->names += w.names;
	f->dirs_damaged += !w.whole;
	mutex_unlock(&f->lock);
	return 0;
}

static int dir_sweep(struct fsck *f, uint64_t from, uint64_t to, void *scratch)
{
	int r = 0;

	for (uint64_t n = from; r == 0 && n < to; n++)
		if ((__atomic_load_n(&f->kinds[n + 1], __ATOMIC_RELAXED) & KIND_TYPE) == DT_DIR)
			r = check_dir(f, (uint32_t)n + 1);
	fsck_progress(f, f->metadata, to - from, f->info->inode_count);
	return r;
}

/* ---- link counts ---- */

static int check_links(struct fsck *f, uint32_t ino)
{
	uint32_t left = f->slots[ino];
	struct image_inode i;
	int r;

	/* More names than links wraps around to a number that is greater than the count. */
	r = image_inode_get(f->image, ino, &i);
	if (r < 0)
		return fsck_problem_caught(f, r, 0, NULL);
	if (left <= i.nlink && (f->dirs_damaged || f->inodes_unknown)) {
		mutex_lock(&f->lock);
		f->report->unreached++;
		mutex_unlock(&f->lock);
	} else if (left == i.nlink) {
		fsck_problem(f, fsck_inode_where(f, ino), "inode %u: no directory has a name for it", ino);
	} else {
		fsck_problem(f, fsck_inode_where(f, ino), "inode %u: its link count is %u, but it has %u names", ino,
			i.nlink, i.nlink - left);
	}
	return 0;
}

static int check_directory_named(struct fsck *f, uint32_t ino)
{
	if (f->dirs_damaged || f->inodes_unknown) {
		mutex_lock(&f->lock);
		f->report->unreached++;
		mutex_unlock(&f->lock);
	} else {
		fsck_problem(f, fsck_inode_where(f, ino), "directory inode %u: its parent, inode %u, has no name for it",
			ino, f->slots[ino]);
	}
	return 0;
}

static int link_sweep(struct fsck *f, uint64_t from, uint64_t to, void *scratch)
{
	int r = 0;

	for (uint64_t n = from; r == 0 && n < to; n++) {
		uint32_t ino = (uint32_t)n + 1;
		uint8_t kind = f->kinds[ino];

		if ((kind & KIND_TYPE) == DT_DIR)
			r = ino == PINFS_ROOT_INO || kind & KIND_NAMED ? 0 : check_directory_named(f, ino);
		else if ((kind & KIND_TYPE) && f->slots[ino])
			r = check_links(f, ino);
	}
	return r;
}

/* ---- names of what is affected ---- */

/* The name that directory `parent` has for inode ino. 1: found. */
static int find_name(struct fsck *f, uint32_t parent, uint32_t ino, uint64_t *budget, struct image_dirent *ret)
{
	struct image_dir_iter it;
	struct image_inode dir;
	int r = image_inode_get(f->image, parent, &dir);

	if (r == 0)
		r = image_dir_iter_begin(f->image, &dir, 0, &it);
	if (r < 0)
		return r;
	while (*budget && (r = image_dir_iter_next(&it, ret)) > 0 && ret->ino != ino)
		--*budget;
	image_dir_iter_end(&it);
	return *budget ? r : 0;
}

/* Puts s before what is in buf from *at on; false if it does not fit. */
static bool prepend(char *buf, size_t *at, const char *s)
{
	size_t len = strlen(s);

	if (len > *at)
		return false;
	*at -= len;
	memcpy(buf + *at, s, len);
	return true;
}

static char *affected_path(struct fsck *f, const struct affected_name *a, uint64_t *budget)
{
	char buf[PATH_SIZE], above[32];
	size_t at = sizeof(buf);
	uint32_t dir = a->dir;
	bool ok = true;

	buf[--at] = 0;
	prepend(buf, &at, a->name);
	prepend(buf, &at, "/");
	while (ok && dir != PINFS_ROOT_INO) {
		uint32_t parent = f->slots[dir];
		struct image_dirent e;

		ok = parent < dir && (f->kinds[parent] & KIND_TYPE) == DT_DIR && at > 2 * PINFS_NAME_MAX &&
			find_name(f, parent, dir, budget, &e) > 0 && prepend(buf, &at, e.name) &&
			prepend(buf, &at, "/");
		dir = ok ? parent : dir;
	}
	if (!ok) {
		snprintf(above, sizeof(above), "(inode %u)", dir);
		prepend(buf, &at, above);
	}
	return strdup(buf + at);
}

static int path_compare(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static int name_affected(struct fsck *f)
{
	struct fsck_report *rep = f->report;
	uint64_t budget = PATH_BUDGET;

	if (!f->affected_count)
		return 0;
	rep->affected_paths = calloc(f->affected_count, sizeof(*rep->affected_paths));
	if (!rep->affected_paths)
		return -ENOMEM;
	for (size_t i = 0; i < f->affected_count; i++) {
		char *path = affected_path(f, &f->affected_names[i], &budget);

		fsck_forget_caught();
		if (!path)
			return -ENOMEM;
		rep->affected_paths[rep->affected_count++] = path;
	}
	qsort(rep->affected_paths, rep->affected_count, sizeof(*rep->affected_paths), path_compare);
	return 0;
}

int fsck_check_tree(struct fsck *f)
{
	const struct image_section *s = fsck_section(f, PINFS_SECTION_DIRS);
	uint8_t root = f->kinds[PINFS_ROOT_INO] & KIND_TYPE;
	int r;

	if (root && root != DT_DIR)
		fsck_problem(f, fsck_inode_where(f, PINFS_ROOT_INO), "inode 1: the root is not a directory");
	if (f->dir_bytes > s->raw_size)
		fsck_problem(f, fsck_section_where(f, PINFS_SECTION_DIRS, 0),
			"the directories have %ju bytes in all, their section has %ju: some overlap",
			(uintmax_t)f->dir_bytes, (uintmax_t)s->raw_size);
	f->dir_bytes = s->raw_size;
	/* Nobody has an entry for the root. */
	r = f->kinds[PINFS_ROOT_INO] & KIND_AFFECTED || !root ? affected_add(f, PINFS_ROOT_INO, "") : 0;
	if (r == 0)
		r = fsck_sweep(f, f->info->inode_count, DIR_STEP, 0, dir_sweep);
	if (r == 0)
		r = fsck_sweep(f, f->info->inode_count, LINK_STEP, 0, link_sweep);
	if (r == 0)
		r = name_affected(f);
	return r;
}
