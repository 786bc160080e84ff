/* SPDX-License-Identifier: MIT */
/*
 * pinfs diff: what a delta changes, as paths.
 *
 * The delta's items are gathered: names that went (`old`), names that came (`new`), inodes of the image that are not what they were. The paths of their
 * directories are found, then names of one inode of the image that went and came are paired (renamed), and what is left at one path
 * (replaced). Nothing is read of directories in which nothing changed, but for those on the way.
 */
#include "cli/cli.h"

#include <getopt.h>
#include <inttypes.h>
#include <sys/sysmacros.h>

#include "base/log.h"
#include "mkfs/tool.h"

struct change {
	char letter; /* A, D, M, T, C, R */
	uint8_t type; /* DT_*; of D the old one's */
	uint64_t ino, dir;
	char *name;  /* in dir; owned */
	char *path, *from; /* owned; from: of R */
	bool had, has;
	uint64_t old_size, new_size; /* if had, has */
};

struct changes {
	struct change *items;
	size_t count, capacity;
};

/* An inode of the image that is another one now. */
struct touched {
	uint32_t ino;
	char letter; /* M or C */
	uint8_t type;
};

struct inos {
	uint32_t *items;
	size_t count, capacity;
};

struct diff {
	struct image *image;
	struct delta *delta;
	uint64_t image_inodes;
	struct changes old, new, out;
	struct touched *touched;
	size_t touched_count, touched_capacity;
	struct cli_names dirs; /* the image's names of directories */
	size_t *new_by_ino; /* places in new.items, by ino: where directories are now */
};

static int change_add(struct changes *c, const struct change *item)
{
	int r = array_reserve(&c->items, &c->capacity, c->count + 1, sizeof(*c->items));

	if (r == 0)
		c->items[c->count++] = *item;
	return r;
}

static void changes_free(struct changes *c)
{
	for (size_t i = 0; i < c->count; i++) {
		free(c->items[i].name);
		free(c->items[i].path);
		free(c->items[i].from);
	}
	free(c->items);
}

static int name_add(struct changes *c, uint64_t dir, const char *name, uint64_t ino, uint8_t type)
{
	struct change item = {.dir = dir, .ino = ino, .type = type, .name = strdup(name)};
	int r = item.name ? change_add(c, &item) : -ENOMEM;

	if (r < 0)
		free(item.name);
	return r;
}

/* ---- what the delta says; all of it under its lock ---- */

/* A directory of the image that is gone: so are all its names. */
static int gather_gone(struct diff *d, const struct image_inode *dir)
{
	struct image_dir_iter iter;
	struct image_dirent e;
	int r = image_dir_iter_begin(d->image, dir, 0, &iter);

	if (r < 0)
		return r;
	while ((r = image_dir_iter_next(&iter, &e)) > 0) {
		r = name_add(&d->old, dir->ino, e.name, e.ino, e.type);
		if (r < 0)
			break;
	}
	image_dir_iter_end(&iter);
	return r;
}

static int gather_names(struct diff *d, uint64_t ino, const struct image_inode *image)
{
	struct delta_dirent e;
	uint64_t hash = 0;
	int r;

	while ((r = delta_dirent_next(d->delta, ino, hash, &e)) == 0) {
		struct image_dirent old = {0};

		hash = e.hash + 1;
		if (image) {
			r = image_dir_lookup(d->image, image, e.name, e.name_len, &old);
			if (r < 0 && r != -ENOENT)
				return r;
		}
		r = 0;
		if (old.ino == e.ino)
			continue;
		if (old.ino)
			r = name_add(&d->old, ino, e.name, old.ino, old.type);
		if (r == 0 && e.ino)
			r = name_add(&d->new, ino, e.name, e.ino, e.type);
		if (r < 0)
			return r;
	}
	return r == -ENOENT ? 0 : r;
}

static int gather_inode(struct diff *d, const struct delta_inode *i, const struct image_inode *image)
{
	struct touched t = {.ino = image->ino, .type = (uint8_t)(image->mode >> 12)};
	bool content;
	int r = cli_delta_has_content(d->delta, i, image, &content);

	if (r < 0)
		return r;
	if (content)
		t.letter = 'M';
	else if (i->mode != image->mode || i->uid != image->uid || i->gid != image->gid || i->own_xattrs || i->flags || i->project)
		t.letter = 'C';
	/* Those of a directory change with each name that comes or goes. */
	else if (!S_ISDIR(i->mode) && (i->mtime.tv_sec != image->mtime.tv_sec || i->mtime.tv_nsec != image->mtime.tv_nsec))
		t.letter = 'C';
	if (!t.letter)
		return 0;
	r = array_reserve(&d->touched, &d->touched_capacity, d->touched_count + 1, sizeof(*d->touched));
	if (r == 0)
		d->touched[d->touched_count++] = t;
	return r;
}

static int gather(struct diff *d)
{
	struct delta_inode i;
	int r;

	for (uint64_t ino = 1; (r = delta_inode_next(d->delta, ino, &i)) == 0; ino = i.ino + 1) {
		bool known = i.ino <= d->image_inodes, gone = i.gone || !i.nlink;
		struct image_inode image;

		if (known)
			r = image_inode_get(d->image, i.ino, &image);
		if (r == 0 && known && (image.mode & S_IFMT) != (i.mode & S_IFMT))
			r = -EUCLEAN;
		if (r == 0 && S_ISDIR(i.mode) && gone && known)
			r = gather_gone(d, &image);
		else if (r == 0 && S_ISDIR(i.mode) && !gone)
			r = gather_names(d, i.ino, known ? &image : NULL);
		if (r == 0 && known && !gone)
			r = gather_inode(d, &i, &image);
		if (r < 0)
			return r;
	}
	return r == -ENOENT ? 0 : r;
}

/* ---- paths ---- */

static int compare_u32(const void *pa, const void *pb)
{
	uint32_t a = *(const uint32_t *)pa, b = *(const uint32_t *)pb;

	return a < b ? -1 : a > b;
}

static int inos_add(struct inos *l, uint64_t ino)
{
	int r = array_reserve(&l->items, &l->capacity, l->count + 1, sizeof(*l->items));

	if (r == 0)
		l->items[l->count++] = (uint32_t)ino;
	return r;
}

static void inos_unique(struct inos *l)
{
	size_t n = 0;

	if (l->count)
		qsort(l->items, l->count, sizeof(*l->items), compare_u32);
	for (size_t i = 0; i < l->count; i++)
		if (!n || l->items[n - 1] != l->items[i])
			l->items[n++] = l->items[i];
	l->count = n;
}

static const struct change *new_name(const struct diff *d, uint64_t ino)
{
	size_t low = 0, high = d->new.count;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (d->new.items[d->new_by_ino[mid]].ino < ino)
			low = mid + 1;
		else
			high = mid;
	}
	return low < d->new.count && d->new.items[d->new_by_ino[low]].ino == ino ? &d->new.items[d->new_by_ino[low]] : NULL;
}

static int compare_places(const void *pa, const void *pb, void *context)
{
	const struct diff *d = context;
	uint64_t a = d->new.items[*(const size_t *)pa].ino, b = d->new.items[*(const size_t *)pb].ino;

	return a < b ? -1 : a > b;
}

/* The directory, and those above it, in the image and now. */
static int want_directory(struct diff *d, struct inos *want, uint64_t ino)
{
	int r = 0;

	/* In a sound image and delta this ends at the root. */
	for (unsigned depth = 0; r == 0 && ino != PINFS_ROOT_INO; depth++) {
		const struct change *moved = new_name(d, ino);
		struct image_inode image;

		if (depth > 100000)
			return -ELOOP;
		if (ino <= d->image_inodes) {
			r = inos_add(want, ino);
			if (r == 0)
				r = image_inode_get(d->image, ino, &image);
			if (r == 0 && !S_ISDIR(image.mode))
				r = -EUCLEAN;
			if (r == 0 && moved)
				r = want_directory(d, want, image.arg1);
			ino = moved ? moved->dir : image.arg1;
		} else if (moved) {
			ino = moved->dir;
		} else {
			return -EUCLEAN;
		}
	}
	return r;
}

static const struct cli_name *image_name(const struct cli_names *n, uint64_t ino)
{
	size_t low = 0, high = n->count;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (n->items[mid].ino < ino)
			low = mid + 1;
		else
			high = mid;
	}
	return low < n->count && n->items[low].ino == ino ? &n->items[low] : NULL;
}

/* name in directory dir, as a path without a slash in front; now, or in the image. */
static int path_make(const struct diff *d, bool now, uint64_t dir, const char *name, char **ret)
{
	size_t size = 4096, at, len = strlen(name);
	char *buf = malloc(size);
	int r = buf ? 0 : -ENOMEM;

	if (r < 0)
		return r;
	at = size - len - 1;
	memcpy(buf + at, name, len + 1);
	while (dir != PINFS_ROOT_INO) {
		const struct change *moved = now ? new_name(d, dir) : NULL;
		const struct cli_name *n = moved ? NULL : image_name(&d->dirs, dir);

		name = moved ? moved->name : n ? n->name : NULL;
		if (!name || size > 1u << 28) {
			free(buf);
			return -EUCLEAN;
		}
		len = strlen(name);
		if (at < len + 1) {
			char *larger = malloc(size * 2);

			if (!larger) {
				free(buf);
				return -ENOMEM;
			}
			memcpy(larger + size + at, buf + at, size - at);
			free(buf);
			buf = larger;
			at += size;
			size *= 2;
		}
		buf[--at] = '/';
		at -= len;
		memcpy(buf + at, name, len);
		dir = moved ? moved->dir : n->dir;
	}
	memmove(buf, buf + at, size - at);
	*ret = buf;
	return 0;
}

/* Has a name of the image gone, or does it lead elsewhere now? */
static int name_is_gone(struct diff *d, const struct cli_name *n, bool *ret)
{
	struct delta_inode dir;
	struct delta_dirent e;
	int r = delta_inode_get(d->delta, n->dir, &dir);

	*ret = r == 0 && (dir.gone || !dir.nlink);
	if (r == 0 && !*ret) {
		r = delta_dirent_get(d->delta, n->dir, n->name, strlen(n->name), &e);
		*ret = r == 0 && e.ino != n->ino;
	}
	return r == -ENOENT ? 0 : r;
}

/* The names of the image that changed inodes still have. */
static int touched_names(struct diff *d, const struct cli_names *names)
{
	int r = 0;

	for (size_t k = 0; r == 0 && k < d->touched_count; k++) {
		const struct touched *t = &d->touched[k];
		const struct cli_name *n = image_name(names, t->ino), *end = names->items + names->count;
		struct change c = {.letter = t->letter, .ino = t->ino, .type = t->type};
		bool gone;

		if (t->ino == PINFS_ROOT_INO) {
			c.path = strdup(".");
			r = c.path ? change_add(&d->out, &c) : -ENOMEM;
		}
		for (; r == 0 && n && n < end && n->ino == t->ino; n++) {
			r = name_is_gone(d, n, &gone);
			if (r < 0 || gone)
				continue;
			r = path_make(d, true, n->dir, n->name, &c.path);
			if (r == 0)
				r = change_add(&d->out, &c);
		}
	}
	return r;
}

static int find_paths(struct diff *d)
{
	struct inos want = {0}, files = {0};
	struct cli_names names = {0};
	int r = 0;

	d->new_by_ino = calloc(MAX(d->new.count, (size_t)1), sizeof(*d->new_by_ino));
	if (!d->new_by_ino)
		return -ENOMEM;
	for (size_t i = 0; i < d->new.count; i++)
		d->new_by_ino[i] = i;
	qsort_r(d->new_by_ino, d->new.count, sizeof(*d->new_by_ino), compare_places, d);
	for (size_t i = 0; r == 0 && i < d->touched_count; i++)
		if (d->touched[i].ino != PINFS_ROOT_INO)
			r = inos_add(&files, d->touched[i].ino);
	inos_unique(&files);
	if (r == 0)
		r = cli_names_find(d->image, files.items, files.count, &names);
	for (size_t i = 0; r == 0 && i < names.count; i++)
		r = want_directory(d, &want, names.items[i].dir);
	for (size_t i = 0; r == 0 && i < d->old.count; i++)
		r = want_directory(d, &want, d->old.items[i].dir);
	for (size_t i = 0; r == 0 && i < d->new.count; i++)
		r = want_directory(d, &want, d->new.items[i].dir);
	inos_unique(&want);
	if (r == 0)
		r = cli_names_find(d->image, want.items, want.count, &d->dirs);
	for (size_t i = 0; r == 0 && i < d->old.count; i++)
		r = path_make(d, false, d->old.items[i].dir, d->old.items[i].name, &d->old.items[i].path);
	for (size_t i = 0; r == 0 && i < d->new.count; i++)
		r = path_make(d, true, d->new.items[i].dir, d->new.items[i].name, &d->new.items[i].path);
	if (r == 0)
		r = touched_names(d, &names);
	cli_names_free(&names);
	free(want.items);
	free(files.items);
	return r;
}

/* ---- which names that went belong to which that came ---- */

static int by_ino_and_path(const void *pa, const void *pb)
{
	const struct change *a = pa, *b = pb;

	if (a->ino != b->ino)
		return a->ino < b->ino ? -1 : 1;
	return strcmp(a->path, b->path);
}

static int by_path(const void *pa, const void *pb)
{
	const struct change *a = pa, *b = pb;
	int c = strcmp(a->path, b->path);

	/* What went, what came in its place, what became of that. */
	static const char order[] = "DRATMC";

	return c ? c : (int)(strchr(order, a->letter) - order) - (int)(strchr(order, b->letter) - order);
}

static void sort_changes(struct changes *c, int (*compare)(const void *a, const void *b))
{
	if (c->count)
		qsort(c->items, c->count, sizeof(*c->items), compare);
}

/* Moves the item's path. */
static int emit(struct diff *d, struct change *from, char letter, char *source)
{
	struct change c = {.letter = letter, .type = from->type, .ino = from->ino, .path = from->path, .from = source};
	int r = change_add(&d->out, &c);

	if (r == 0)
		from->path = NULL;
	return r;
}

static int pair_renamed(struct diff *d)
{
	size_t o = 0, n = 0;
	int r = 0;

	sort_changes(&d->old, by_ino_and_path);
	sort_changes(&d->new, by_ino_and_path);
	while (r == 0 && o < d->old.count && n < d->new.count) {
		struct change *a = &d->old.items[o], *b = &d->new.items[n];

		if (a->ino == b->ino) {
			r = emit(d, b, 'R', a->path);
			if (r == 0)
				a->path = NULL;
			o++;
			n++;
		} else if (a->ino < b->ino) {
			o++;
		} else {
			n++;
		}
	}
	return r;
}

/* What was renamed and changed has two lines. */
static int touched_renamed(struct diff *d)
{
	size_t count = d->out.count;
	int r = 0;

	for (size_t i = 0; r == 0 && i < count; i++) {
		size_t low = 0, high = d->touched_count;
		struct change c = d->out.items[i];

		while (c.letter == 'R' && low < high) {
			size_t mid = low + (high - low) / 2;

			if (d->touched[mid].ino < c.ino)
				low = mid + 1;
			else
				high = mid;
		}
		if (c.letter != 'R' || low == d->touched_count || d->touched[low].ino != c.ino)
			continue;
		c = (struct change){.letter = d->touched[low].letter, .ino = c.ino, .type = c.type, .path = strdup(c.path)};
		r = c.path ? change_add(&d->out, &c) : -ENOMEM;
	}
	return r;
}

static size_t keep_unpaired(struct changes *c)
{
	size_t kept = 0;

	for (size_t i = 0; i < c->count; i++) {
		if (c->items[i].path)
			c->items[kept++] = c->items[i];
		else
			free(c->items[i].name);
	}
	c->count = kept;
	return kept;
}

/* Are two directories the same but for what is in them? */
static int replaced_letter(struct diff *d, const struct change *old, const struct change *new, char *ret)
{
	struct image_inode image;
	struct delta_inode i;
	int r;

	*ret = old->type != new->type ? 'T' : 'M';
	if (*ret != 'M' || new->type != S_IFDIR >> 12)
		return 0;
	r = image_inode_get(d->image, old->ino, &image);
	if (r == 0)
		r = delta_inode_get(d->delta, new->ino, &i);
	if (r == 0)
		*ret = i.mode != image.mode || i.uid != image.uid || i.gid != image.gid || image.xattr ? 'C' : 0;
	return r;
}

static int pair_replaced(struct diff *d)
{
	size_t o = 0, n = 0, olds = keep_unpaired(&d->old), news = keep_unpaired(&d->new);
	int r = 0;

	sort_changes(&d->old, by_path);
	sort_changes(&d->new, by_path);
	while (r == 0 && (o < olds || n < news)) {
		struct change *a = o < olds ? &d->old.items[o] : NULL, *b = n < news ? &d->new.items[n] : NULL;
		int c = !a ? 1 : !b ? -1 : strcmp(a->path, b->path);
		char letter;

		if (c == 0) {
			r = replaced_letter(d, a, b, &letter);
			if (r == 0 && letter)
				r = emit(d, b, letter, NULL);
			if (r == 0 && letter) {
				struct image_inode image;

				r = image_inode_get(d->image, a->ino, &image);
				d->out.items[d->out.count - 1].had = r == 0 && S_ISREG(image.mode);
				d->out.items[d->out.count - 1].old_size = r == 0 ? image.size : 0;
			}
		} else {
			r = c < 0 ? emit(d, a, 'D', NULL) : emit(d, b, 'A', NULL);
		}
		o += c <= 0;
		n += c >= 0;
	}
	return r;
}

/* Sizes of regular files, before and after. */
static int find_sizes(struct diff *d)
{
	for (size_t k = 0; k < d->out.count; k++) {
		struct change *c = &d->out.items[k];
		struct image_inode image;
		struct delta_inode i;
		int r = -ENOENT;

		if (c->letter != 'D')
			r = delta_inode_get(d->delta, c->ino, &i);
		if (r == 0 && S_ISREG(i.mode)) {
			c->has = true;
			c->new_size = i.size;
		} else if (r < 0 && r != -ENOENT) {
			return r;
		}
		if (c->ino > d->image_inodes)
			continue;
		r = image_inode_get(d->image, c->ino, &image);
		if (r < 0)
			return r;
		if (!S_ISREG(image.mode))
			continue;
		if (!c->has && c->letter != 'D') {
			c->has = true;
			c->new_size = image.size;
		}
		if (c->letter != 'A') {
			c->had = true;
			c->old_size = image.size;
		}
	}
	return 0;
}

/* ---- output ---- */

struct options {
	const char *offset;
	bool json, null, stat, escape;
	char **paths;
	size_t path_count;
};

/* Is it one of the paths that were asked for, or below one? */
static bool path_wanted(const struct options *o, const char *path)
{
	if (!o->path_count)
		return true;
	for (size_t i = 0; i < o->path_count; i++) {
		const char *p = o->paths[i] + strspn(o->paths[i], "/");
		size_t len;

		while (p[0] == '.' && (p[1] == '/' || !p[1]))
			p += 1 + strspn(p + 1, "/");
		len = strlen(p);
		while (len && p[len - 1] == '/')
			len--;
		if (!len || (!strncmp(path, p, len) && (!path[len] || path[len] == '/')))
			return true;
	}
	return false;
}

static const char *type_name(uint8_t type)
{
	switch ((mode_t)type << 12) {
	case S_IFREG:
		return "file";
	case S_IFDIR:
		return "directory";
	case S_IFLNK:
		return "symlink";
	case S_IFCHR:
		return "character device";
	case S_IFBLK:
		return "block device";
	case S_IFIFO:
		return "fifo";
	default:
		return "socket";
	}
}

/* A directory has a slash behind it, as ls -p. */
static void print_path(const struct options *o, const char *path, uint8_t type)
{
	const char *slash = type == S_IFDIR >> 12 && !o->null ? "/" : "";

	if (o->escape) {
		_cleanup_free_ char *shown = cli_escape(path, strlen(path));

		printf("%s%s", shown, slash);
	} else {
		printf("%s%s", path, slash);
	}
}

static void print_json(const struct change *c, bool first)
{
	printf("%s\n  {\"change\": \"%c\", \"type\": \"%s\", \"path\": ", first ? "" : ",", c->letter, type_name(c->type));
	json_string(stdout, c->path, strlen(c->path));
	if (c->from) {
		printf(", \"from\": ");
		json_string(stdout, c->from, strlen(c->from));
	}
	if (c->had)
		printf(", \"old_size\": %" PRIu64, c->old_size);
	if (c->has)
		printf(", \"size\": %" PRIu64, c->new_size);
	putchar('}');
}

static void print_sizes(const struct change *c)
{
	char old[32] = "-", new[32] = "-";

	if (c->had)
		format_size(c->old_size, old, sizeof(old));
	if (c->has)
		format_size(c->new_size, new, sizeof(new));
	printf("%10s %10s  ", old, new);
}

static void print_line(const struct options *o, const struct change *c)
{
	if (o->null) {
		printf("%c%c%s%c", c->letter, 0, c->from ? c->from : c->path, 0);
		if (c->from)
			printf("%s%c", c->path, 0);
		return;
	}
	printf("%c\t", c->letter);
	if (o->stat)
		print_sizes(c);
	if (c->from) {
		print_path(o, c->from, c->type);
		printf(o->escape || o->stat ? " -> " : "\t");
	}
	print_path(o, c->path, c->type);
	putchar('\n');
}

static void print_totals(const uint64_t counts[128], uint64_t before, uint64_t after)
{
	static const struct {
		char letter;
		const char *word;
	} words[] = {{'A', "added"}, {'D', "deleted"}, {'M', "modified"}, {'T', "of another type"}, {'R', "renamed"},
		{'C', "with other attributes"}};
	const char *separator = "";
	char old[32], new[32];

	for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
		if (!counts[(int)words[i].letter])
			continue;
		printf("%s%" PRIu64 " %s", separator, counts[(int)words[i].letter], words[i].word);
		separator = ", ";
	}
	if (!*separator) {
		puts("no changes");
		return;
	}
	printf("; files of %s became %s\n", format_size(before, old, sizeof(old)), format_size(after, new, sizeof(new)));
}

static void print(const struct options *o, const struct diff *d)
{
	uint64_t counts[128] = {0}, before = 0, after = 0;
	bool first = true;

	if (o->json)
		putchar('[');
	for (size_t i = 0; i < d->out.count; i++) {
		const struct change *c = &d->out.items[i];

		if (!path_wanted(o, c->path) && !(c->from && path_wanted(o, c->from)))
			continue;
		if (o->json)
			print_json(c, first);
		else
			print_line(o, c);
		first = false;
		counts[(int)c->letter]++;
		if (strchr("ADMT", c->letter)) {
			before += c->had ? c->old_size : 0;
			after += c->has ? c->new_size : 0;
		}
	}
	if (o->json)
		printf("%s]\n", first ? "" : "\n");
	else if (o->stat)
		print_totals(counts, before, after);
}

/* ---- the command ---- */

static void diff_help(void)
{
	puts("Usage: pinfs diff [OPTION]... IMAGE [DELTA [PATH]...]\n"
	     "Says what a writable mount of IMAGE has changed: what is in DELTA (IMAGE.delta, if none is named).\n"
	     "One line for each path, in their order; with PATHs, only those and what is below them:\n"
	     "\n"
	     "  A  added        D  deleted        M  other content (or replaced by another file)\n"
	     "  T  a file of another type         R  renamed; the old path comes first\n"
	     "  C  other attributes: permissions, owner, extended attributes, modification time\n"
	     "\n"
	     "What was renamed and changed has two lines. Directories end with a slash; their times are not looked at.\n"
	     "\n"
	     "      --stat       with sizes before and after, and totals\n"
	     "      --json       for programs\n"
	     "  -0, --null       a NUL after each letter and path, instead of tabs and newlines\n"
	     "      --offset=N   the image begins at byte N of its file (default: auto)\n"
	     "  -h, --help       this text\n"
	     "\n"
	     "Nothing is mounted or changed; the delta must not be in use by a writable mount.\n"
	     "Next: pinfs commit makes a new image with the changes, pinfs discard drops them.\n"
	     "Exit status: 0 it was said, 1 something can't be read, 2 wrong usage.");
}

static int compute(struct diff *d)
{
	int r;

	delta_lock(d->delta);
	r = gather(d);
	if (r == 0)
		r = find_paths(d);
	/* All paths are known before pairing moves the names about. */
	if (r == 0)
		r = pair_renamed(d);
	if (r == 0)
		r = touched_renamed(d);
	if (r == 0)
		r = pair_replaced(d);
	if (r == 0)
		r = find_sizes(d);
	delta_unlock(d->delta);
	if (r == 0)
		sort_changes(&d->out, by_path);
	return r;
}

static int run(const struct options *o, const char *image_path, const char *delta_path)
{
	struct tool_damage damage = {0};
	struct diff d = {0};
	int r;

	if (tool_image_open(image_path, o->offset, &damage, &d.image) < 0)
		return CLI_FAIL;
	d.image_inodes = image_get_info(d.image)->inode_count;
	r = cli_delta_open(delta_path, d.image, 0, &d.delta);
	if (r == 0) {
		r = compute(&d);
		if (r == 0)
			print(o, &d);
		else
			log_error("can't compare %s with %s: %s", delta_path, image_path, cli_strerror(r));
	}
	changes_free(&d.old);
	changes_free(&d.new);
	changes_free(&d.out);
	free(d.touched);
	free(d.new_by_ino);
	cli_names_free(&d.dirs);
	delta_close(d.delta);
	image_close(d.image);
	return r < 0 ? CLI_FAIL : CLI_OK;
}

int cmd_diff(int argc, char **argv)
{
	static const struct option options[] = {
		{"stat", no_argument, NULL, 's'},
		{"json", no_argument, NULL, 'j'},
		{"null", no_argument, NULL, '0'},
		{"offset", required_argument, NULL, 'O'},
		{"help", no_argument, NULL, 'h'},
		{0},
	};
	struct options o = {.escape = isatty(STDOUT_FILENO)};
	_cleanup_free_ char *beside = NULL;
	int c;

	while ((c = getopt_long(argc, argv, "0h", options, NULL)) != -1) {
		switch (c) {
		case 's':
			o.stat = true;
			break;
		case 'j':
			o.json = true;
			break;
		case '0':
			o.null = true;
			break;
		case 'O':
			o.offset = optarg;
			break;
		case 'h':
			diff_help();
			return CLI_OK;
		default:
			return cli_usage_error(argv[0]);
		}
	}
	if (optind == argc) {
		log_error("diff: an image is needed");
		return cli_usage_error(argv[0]);
	}
	if (o.null && (o.json || o.stat)) {
		log_error("diff: --null, --json and --stat exclude each other");
		return cli_usage_error(argv[0]);
	}
	if (argc - optind > 2) {
		o.paths = argv + optind + 2;
		o.path_count = (size_t)(argc - optind - 2);
	}
	if (argc - optind == 1 && !(beside = cli_delta_beside(argv[optind])))
		return CLI_FAIL;
	return run(&o, argv[optind], beside ? beside : argv[optind + 1]);
}
