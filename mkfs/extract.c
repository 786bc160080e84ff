/* SPDX-License-Identifier: MIT */
/* The way through the image, and what is made of each entry. */
#include "mkfs/extract_internal.h"

#include <fnmatch.h>

/*
 * What of the image is wanted: a tree of names. A node without children stands for itself and all below; in a node
 * with children nothing but them is looked at.
 */
struct selection {
	char *name;
	struct selection *child, *next;
	bool everything;
};

/* A directory on the way down. */
struct level {
	struct image_inode inode;
	struct extract_dir *dir;
	struct image_dir_iter iter;	    /* unless select */
	const struct selection *select;	    /* the next one to be looked up */
	bool selected;			    /* all of it is wanted */
	size_t path_len;
};

struct walk {
	struct extract *x;
	struct level *levels;
	size_t depth, capacity;
	uint8_t *seen; /* directories that were entered, one bit each */
	char *path;    /* in the image, of the entry under way; without a slash at its beginning */
	size_t path_len, path_size;
};

/* ---- messages ---- */

char *extract_path(const struct extract *x, const struct extract_dir *dir, const char *name)
{
	size_t len = strlen(x->options->target), n = name ? strlen(name) + 1 : 0, at;
	char *plain, *escaped;

	for (const struct extract_dir *d = dir; d && d->parent; d = d->parent)
		n += d->name_len + 1u;
	plain = malloc(len + n + 1);
	escaped = malloc(4 * (len + n) + 8);
	if (!plain || !escaped) {
		log_error("out of memory");
		abort();
	}
	memcpy(plain, x->options->target, len);
	at = len + n;
	if (name) {
		at -= strlen(name);
		memcpy(plain + at, name, strlen(name));
		plain[--at] = '/';
	}
	for (const struct extract_dir *d = dir; d && d->parent; d = d->parent) {
		at -= d->name_len;
		memcpy(plain + at, d->name, d->name_len);
		plain[--at] = '/';
	}
	name_escape(plain, len + n, escaped, 4 * (len + n) + 8);
	free(plain);
	return escaped;
}

static const char *hint(const struct extract *x, const char *what, int error)
{
	bool device = strstr(what, "device");

	switch (-error) {
	case EEXIST:
		return " (--force replaces it)";
	case ENOTEMPTY:
		return " (a directory with something in it is in the way)";
	case ESTALE:
		return " (something else was put in its place meanwhile)";
	case EPERM:
		return device && x->uid != 0 ? " (only root can make devices)" : "";
	case EINVAL:
		return strstr(what, "owner") ? " (not a valid owner here; --no-same-owner does without)" : "";
	case EOPNOTSUPP:
		return strstr(what, "extended") ? " (not supported by the filesystem; --no-xattrs does without)" : "";
	case ENOSYS:
		return " (/proc is needed)";
	case EFBIG:
		return " (the filesystem there does not allow such a size)";
	case EUCLEAN:
		return " in the image; fsck.pinfs tells more";
	default:
		return "";
	}
}

void extract_fail(struct extract *x, const struct extract_dir *dir, const char *name, const char *what, int error)
{
	_cleanup_free_ char *path = extract_path(x, dir, name);

	extract_count(&x->stats.errors, 1);
	log_error("can't %s %s: %s%s", what, path, error == -EUCLEAN ? "damaged" : strerror(-error),
		hint(x, what, error));
}

/* ---- what is wanted ---- */

static void selection_free(struct selection *s)
{
	/* Without recursion: a path may have any number of components. */
	while (s) {
		struct selection *next = s->next, *last = s->child;

		if (last) {
			while (last->next)
				last = last->next;
			last->next = next;
			next = s->child;
		}
		free(s->name);
		free(s);
		s = next;
	}
}

static struct selection *selection_child(struct selection *s, const char *name, size_t len)
{
	struct selection **p = &s->child;

	while (*p && (strlen((*p)->name) != len || memcmp((*p)->name, name, len)))
		p = &(*p)->next;
	if (!*p) {
		struct selection *child = calloc(1, sizeof(*child));

		if (!child)
			return NULL;
		child->name = strndup(name, len);
		if (!child->name) {
			free(child);
			return NULL;
		}
		*p = child;
	}
	return *p;
}

static int selection_add(struct selection *root, const char *path)
{
	struct selection *at = root;

	for (;;) {
		size_t len;

		path += strspn(path, "/");
		len = strcspn(path, "/");
		if (!len)
			break;
		if (len == 2 && path[0] == '.' && path[1] == '.') {
			log_error("'..' is not allowed in a path to extract");
			return -EINVAL;
		}
		if (len != 1 || path[0] != '.')
			at = selection_child(at, path, len);
		if (!at)
			return -ENOMEM;
		path += len;
	}
	at->everything = true;
	return 0;
}

static int selection_build(const struct extract_options *o, struct selection *root)
{
	root->everything = !o->path_count;
	for (size_t i = 0; i < o->path_count; i++) {
		int r = selection_add(root, o->paths[i]);

		if (r < 0)
			return r;
	}
	return 0;
}

static bool excluded(const struct walk *w, const char *name)
{
	const struct extract_options *o = w->x->options;

	for (size_t i = 0; i < o->exclude_count; i++) {
		const char *pattern = o->excludes[i];

		if (!fnmatch(pattern + (pattern[0] == '/'), strchr(pattern, '/') ? w->path : name, 0))
			return true;
	}
	return false;
}

/* What the user asked for is not there. The path is that in the image, since nothing else is known of it. */
static void selection_failed(const struct walk *w, const struct level *l, const char *name, int error)
{
	size_t size = 4 * (l->path_len + strlen(name)) + 16;
	_cleanup_free_ char *escaped = malloc(2 * size);
	const char *what = strerror(-error);

	extract_count(&w->x->stats.errors, 1);
	if (error == -ENOENT)
		what = "no such file or directory";
	else if (error == -ENOTDIR)
		what = "not a directory";
	else if (error == -EUCLEAN)
		what = "damaged";
	if (escaped)
		log_error("%s%s%s: %s in the image",
			name_escape(w->path ? w->path : "", l->path_len, escaped, size), l->path_len ? "/" : "",
			name_escape(name, strlen(name), escaped + size, size), what);
}

/* ---- the walk ---- */

static bool seen_before(uint8_t *seen, uint32_t ino)
{
	uint8_t bit = (uint8_t)(1u << ino % 8), before = seen[ino / 8];

	seen[ino / 8] |= bit;
	return before & bit;
}

static int walk_enter(struct walk *w, const struct image_inode *inode, struct extract_dir *dir,
	const struct selection *select)
{
	struct level l = {.inode = *inode, .dir = dir, .path_len = w->path_len};
	int r = array_reserve(&w->levels, &w->capacity, w->depth + 1, sizeof(*w->levels));

	if (r < 0)
		return r;
	l.selected = !select || select->everything;
	l.select = l.selected ? NULL : select->child;
	r = image_dir_iter_begin(w->x->image, inode, 0, &l.iter);
	if (r == 0)
		w->levels[w->depth++] = l;
	return r;
}

/* 1: *ret is the next entry, *ret_select what is wanted of it; 0: no more. */
static int walk_next(struct walk *w, struct level *l, struct image_dirent *ret, const struct selection **ret_select)
{
	while (!l->selected) {
		const struct selection *s = l->select;
		int r;

		if (!s)
			return 0;
		l->select = s->next;
		r = image_dir_lookup(w->x->image, &l->inode, s->name, strlen(s->name), ret);
		*ret_select = s;
		if (r == 0)
			return 1;
		selection_failed(w, l, s->name, r);
	}
	*ret_select = NULL;
	return image_dir_iter_next(&l->iter, ret);
}

static int walk_set_path(struct walk *w, const struct level *l, const struct image_dirent *e)
{
	size_t at = l->path_len;
	int r = array_reserve(&w->path, &w->path_size, at + e->name_len + 2u, 1);

	if (r < 0)
		return r;
	if (at)
		w->path[at++] = '/';
	memcpy(w->path + at, e->name, e->name_len);
	w->path_len = at + e->name_len;
	w->path[w->path_len] = 0;
	return 0;
}

static void print_path(const struct walk *w)
{
	FILE *out = w->x->options->verbose;

	if (isatty(fileno(out))) {
		size_t size = 4 * w->path_len + 8;
		_cleanup_free_ char *escaped = malloc(size);

		if (escaped)
			fputs(name_escape(w->path, w->path_len, escaped, size), out);
	} else {
		fwrite(w->path, 1, w->path_len, out);
	}
	putc('\n', out);
}

static int make_directory(struct walk *w, struct level *l, const struct image_dirent *e,
	const struct image_inode *inode, const struct selection *select)
{
	struct extract_dir *dir;
	int r;

	/* A damaged image may name it twice, and that again in each of them: it would never end. */
	if (seen_before(w->seen, inode->ino)) {
		extract_fail(w->x, l->dir, e->name, "make directory", -EUCLEAN);
		return 0;
	}
	/* The position stays; the chunk would only hold memory, one for each level. */
	image_dir_iter_end(&l->iter);
	if (extract_dir_make(w->x, l->dir, e->name, e->name_len, inode, !select || select->everything, &dir) < 0)
		return 0;
	r = walk_enter(w, inode, dir, select);
	if (r < 0)
		extract_fail(w->x, dir, NULL, "read directory", r);
	return r == -ENOMEM ? r : 0;
}

/* Only what nobody can do anything about is returned: -ENOMEM. */
static int make_entry(struct walk *w, struct level *l, const struct image_dirent *e, const struct image_inode *inode,
	const struct selection *select)
{
	struct extract_link *link = NULL;
	int r;

	if (w->x->options->verbose)
		print_path(w);
	if (S_ISDIR(inode->mode))
		return make_directory(w, l, e, inode, select);
	if (select && !select->everything) {
		selection_failed(w, l, e->name, -ENOTDIR);
		return 0;
	}
	if (inode->nlink > 1) {
		r = extract_link_note(w->x, l->dir, e->name, inode, &link);
		if (r)
			return r < 0 ? r : 0;
	}
	if (S_ISREG(inode->mode))
		extract_file_add(w->x, l->dir, e->name, inode, link);
	else if (extract_node_make(w->x, l->dir, e->name, inode) < 0 && link)
		link->failed = true;
	return 0;
}

static int walk_step(struct walk *w)
{
	struct level *l = &w->levels[w->depth - 1];
	const struct selection *select;
	struct image_inode inode;
	struct image_dirent e;
	int r = walk_next(w, l, &e, &select);

	if (r <= 0) {
		if (r < 0)
			extract_fail(w->x, l->dir, NULL, "read all of directory", r);
		image_dir_iter_end(&l->iter);
		w->depth--;
		return 0;
	}
	r = walk_set_path(w, l, &e);
	if (r < 0)
		return r;
	if (excluded(w, e.name))
		return 0;
	r = image_dir_child(w->x->image, &l->inode, &e, &inode);
	if (r < 0) {
		extract_fail(w->x, l->dir, e.name, "extract", r);
		return 0;
	}
	return make_entry(w, l, &e, &inode, select);
}

static int walk_all(struct extract *x, const struct image_inode *root, const struct selection *selection)
{
	struct walk w = {.x = x};
	int r;

	w.seen = calloc(image_get_info(x->image)->inode_count / 8 + 1, 1);
	r = w.seen ? walk_enter(&w, root, x->root, selection) : -ENOMEM;
	if (r < 0)
		extract_fail(x, x->root, NULL, "read directory", r);
	while (r == 0 && w.depth && !extract_stopped(x))
		r = walk_step(&w);
	if (r == -ENOMEM)
		extract_fail(x, x->root, NULL, "go on in", r);
	while (w.depth)
		image_dir_iter_end(&w.levels[--w.depth].iter);
	free(w.levels);
	free(w.seen);
	free(w.path);
	return r;
}

static void extract_all(struct extract *x, const struct image_inode *root, const struct selection *selection)
{
	const struct image_info *info = image_get_info(x->image);

	x->progress = progress_begin(x->options->progress, "extract",
		selection->everything && !x->options->exclude_count ? info->file_bytes : 0);
	walk_all(x, root, selection);
	extract_file_finish(x);
	extract_link_make_all(x);
	extract_dir_apply_all(x);
	progress_end(x->progress);
	if (x->xattr_unsupported > 1)
		log_error("%ju more extended attributes could not be set on this filesystem",
			(uintmax_t)x->xattr_unsupported - 1);
}

int extract_run(struct image *image, const struct extract_options *options, struct extract_stats *ret)
{
	struct extract x = {
		.image = image,
		.options = options,
		.uid = geteuid(),
		.gid = getegid(),
		.threads_wanted = options->threads ? options->threads : tool_cpus(),
		.umask = umask(0),
		.later_end = &x.later,
	};
	struct selection selection = {0};
	struct image_inode root;
	int r;

	r = selection_build(options, &selection);
	if (r == 0)
		r = image_inode_get(image, PINFS_ROOT_INO, &root);
	if (r == 0 && !S_ISDIR(root.mode))
		r = -EUCLEAN;
	if (r < 0 && r != -EINVAL)
		log_error("can't begin: %s", r == -EUCLEAN ? "the image's root directory is damaged" : strerror(-r));
	if (r == 0)
		r = extract_dir_open_root(&x, selection.everything);
	if (r == 0) {
		r = extract_file_start(&x);
		if (r < 0) {
			log_error("out of memory");
			extract_file_finish(&x);
		}
	}
	if (r == 0)
		extract_all(&x, &root, &selection);
	extract_link_free_all(&x);
	extract_dir_free_all(&x);
	selection_free(selection.child);
	umask(x.umask);
	*ret = x.stats;
	return r < 0 ? r : extract_stopped(&x) ? -EINTR : 0;
}
