/* SPDX-License-Identifier: MIT */
/* pinfs ls: lists directories of an image. */
#include "cli/cli.h"

#include <dirent.h>
#include <getopt.h>
#include <grp.h>
#include <inttypes.h>
#include <pwd.h>

#include "base/log.h"
#include "mkfs/tool.h"

enum escape {
	ESCAPE_AUTO, /* on a terminal, which might obey them */
	ESCAPE_NEVER,
	ESCAPE_ALWAYS,
};

struct widths {
	int nlink, owner, group, size, ino;
};

/* The last name of an owner or group; one is enough, since files that follow each other mostly have the same. */
struct name_cache {
	uint32_t id;
	bool valid;
	char text[64];
};

struct ls {
	struct image *image;
	struct tool_damage *damage;
	bool long_format, recursive, numeric, inode_numbers, human, full_time, itself, json, json_begun, printed;
	enum escape escape;
	char end; /* after each name */
	struct widths widths;
	struct name_cache owner, group;
	char *path;    /* of the directory that is listed */
	size_t path_len, path_size;
	int status;
};

/* One directory on the way down: what is left of it to descend into. */
struct level {
	struct image_inode dir;
	struct image_dir_iter iter;
	size_t path_len;
};

static void ls_help(void)
{
	puts("Usage: pinfs ls [OPTION]... IMAGE [PATH]...\n"
	     "Lists files and directories in an image (its root if no PATH is given), one a line.\n"
	     "\n"
	     "  -l               type, permissions, links, owner, group, size, time, target; '+' after the\n"
	     "                   permissions: has an ACL, '@': has other extended attributes\n"
	     "  -R, --recursive  list what is in subdirectories, too\n"
	     "  -d, --directory  directories themselves, not what is in them\n"
	     "  -i, --inode      inode numbers\n"
	     "  -n               like -l, with owner and group as numbers\n"
	     "  -H, --human      like -l, with sizes such as 4.1 MiB\n"
	     "      --full-time  like -l, with nanoseconds and time zone\n"
	     "  -a               accepted; names that begin with a dot are always listed\n"
	     "  -b, --escape     unprintable bytes as \\ooo (the default on a terminal); -N, --literal: as they are\n"
	     "  -0, --null       end each line with a NUL byte; implies -N\n"
	     "      --json       for programs: an array of objects, names of extended attributes among them\n"
	     "      --offset=N   the image begins at byte N of its file (default: auto)\n"
	     "  -h, --help       this text");
}

static void print_name(const struct ls *ls, const char *name, size_t len)
{
	if (ls->escape == ESCAPE_ALWAYS) {
		_cleanup_free_ char *escaped = cli_escape(name, len);

		fputs(escaped, stdout);
	} else {
		fwrite(name, 1, len, stdout);
	}
}

/* path: what can't be listed, or NULL for the directory under way. */
static void ls_fail(struct ls *ls, const char *name, int error)
{
	_cleanup_free_ char *dir = cli_escape(ls->path, ls->path_len);
	_cleanup_free_ char *shown = cli_escape(name ? name : "", name ? strlen(name) : 0);

	fflush(stdout);
	log_error("%s%s%s: %s", dir, name && ls->path_len && ls->path[ls->path_len - 1] != '/' ? "/" : "", shown,
		cli_strerror(error));
	ls->status = CLI_FAIL;
}

/* Makes ls->path the first keep bytes of itself and a name. */
static int path_set(struct ls *ls, size_t keep, const char *name, size_t len)
{
	bool slash = keep && ls->path[keep - 1] != '/';
	int r = array_reserve(&ls->path, &ls->path_size, keep + len + 2, 1);

	if (r < 0)
		return r;
	if (slash)
		ls->path[keep++] = '/';
	memcpy(ls->path + keep, name, len);
	ls->path_len = keep + len;
	ls->path[ls->path_len] = 0;
	return 0;
}

/* ---- the columns of -l ---- */

static const char *owner_name(struct ls *ls, struct name_cache *cache, bool group, uint32_t id)
{
	struct passwd *pw = NULL;
	struct group *gr = NULL;

	if (cache->valid && cache->id == id)
		return cache->text;
	if (!ls->numeric && group)
		gr = getgrgid(id);
	else if (!ls->numeric)
		pw = getpwuid(id);
	if (gr || pw)
		snprintf(cache->text, sizeof(cache->text), "%s", gr ? gr->gr_name : pw->pw_name);
	else
		snprintf(cache->text, sizeof(cache->text), "%" PRIu32, id);
	cache->id = id;
	cache->valid = true;
	return cache->text;
}

static char type_letter(mode_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFREG:
		return '-';
	case S_IFDIR:
		return 'd';
	case S_IFLNK:
		return 'l';
	case S_IFCHR:
		return 'c';
	case S_IFBLK:
		return 'b';
	case S_IFIFO:
		return 'p';
	default:
		return 's';
	}
}

static void format_mode(mode_t mode, char ret[11])
{
	static const char letters[] = "rwxrwxrwx";

	ret[0] = type_letter(mode);
	for (unsigned i = 0; i < 9; i++)
		ret[i + 1] = mode & (0400u >> i) ? letters[i] : '-';
	if (mode & S_ISUID)
		ret[3] = mode & S_IXUSR ? 's' : 'S';
	if (mode & S_ISGID)
		ret[6] = mode & S_IXGRP ? 's' : 'S';
	if (mode & S_ISVTX)
		ret[9] = mode & S_IXOTH ? 't' : 'T';
	ret[10] = 0;
}

static char xattr_marker(struct ls *ls, const struct image_inode *inode)
{
	if (!inode->xattr)
		return ' ';
	return image_xattr_get(ls->image, inode, "system.posix_acl_access", NULL, 0) >= 0 ||
			image_xattr_get(ls->image, inode, "system.posix_acl_default", NULL, 0) >= 0 ?
		'+' :
		'@';
}

static const char *size_text(const struct ls *ls, const struct image_inode *inode, char buf[32])
{
	if (S_ISCHR(inode->mode) || S_ISBLK(inode->mode))
		snprintf(buf, 32, "%" PRIu32 ", %" PRIu32, inode->arg0, inode->arg1);
	else if (ls->human)
		format_size(inode->size, buf, 32);
	else
		snprintf(buf, 32, "%" PRIu64, inode->size);
	return buf;
}

static const char *time_text(const struct ls *ls, const struct image_inode *inode, char buf[64])
{
	struct tm tm;
	size_t n;

	if (!localtime_r(&inode->mtime.tv_sec, &tm)) {
		snprintf(buf, 64, "@%jd", (intmax_t)inode->mtime.tv_sec);
		return buf;
	}
	if (!ls->full_time) {
		strftime(buf, 64, "%Y-%m-%d %H:%M", &tm);
		return buf;
	}
	n = strftime(buf, 64, "%Y-%m-%d %H:%M:%S", &tm);
	n += (size_t)snprintf(buf + n, 64 - n, ".%09ld", (long)inode->mtime.tv_nsec);
	strftime(buf + n, 64 - n, " %z", &tm);
	return buf;
}

static int digits(uint64_t n)
{
	int d = 1;

	while (n /= 10)
		d++;
	return d;
}

static void widths_add(struct ls *ls, const struct image_inode *inode)
{
	struct widths *w = &ls->widths;
	char buf[32];

	w->ino = MAX(w->ino, digits(inode->ino));
	if (!ls->long_format)
		return;
	w->nlink = MAX(w->nlink, digits(inode->nlink));
	w->owner = MAX(w->owner, (int)strlen(owner_name(ls, &ls->owner, false, inode->uid)));
	w->group = MAX(w->group, (int)strlen(owner_name(ls, &ls->group, true, inode->gid)));
	w->size = MAX(w->size, (int)strlen(size_text(ls, inode, buf)));
}

static void print_columns(struct ls *ls, const struct image_inode *inode)
{
	const struct widths *w = &ls->widths;
	char mode[11], size[32], time[64];

	if (ls->inode_numbers)
		printf("%*" PRIu32 " ", w->ino, inode->ino);
	if (!ls->long_format)
		return;
	format_mode(inode->mode, mode);
	printf("%s%c %*" PRIu32 " ", mode, xattr_marker(ls, inode), w->nlink, inode->nlink);
	printf("%-*s ", w->owner, owner_name(ls, &ls->owner, false, inode->uid));
	printf("%-*s ", w->group, owner_name(ls, &ls->group, true, inode->gid));
	printf("%*s %s ", w->size, size_text(ls, inode, size), time_text(ls, inode, time));
}

/* ---- JSON ---- */

static void json_xattrs(struct ls *ls, const struct image_inode *inode)
{
	ssize_t size = image_xattr_list(ls->image, inode, NULL, 0);
	_cleanup_free_ char *list = size > 0 ? malloc((size_t)size) : NULL;

	if (list)
		size = image_xattr_list(ls->image, inode, list, (size_t)size);
	if (!list || size < 0)
		return;
	fputs(", \"xattrs\": [", stdout);
	for (char *p = list; p < list + size; p += strlen(p) + 1) {
		fputs(p == list ? "" : ", ", stdout);
		json_string(stdout, p, strlen(p));
	}
	putchar(']');
}

static const char *type_name(mode_t mode)
{
	switch (type_letter(mode)) {
	case '-':
		return "file";
	case 'd':
		return "directory";
	case 'l':
		return "symlink";
	case 'c':
		return "character_device";
	case 'b':
		return "block_device";
	case 'p':
		return "fifo";
	default:
		return "socket";
	}
}

static void json_entry(struct ls *ls, const char *path, size_t len, const struct image_inode *inode,
	const char *target)
{
	fputs(ls->json_begun ? ",\n{\"path\": " : "[\n{\"path\": ", stdout);
	ls->json_begun = true;
	json_string(stdout, path, len);
	printf(", \"type\": \"%s\", \"mode\": \"%04o\", \"ino\": %" PRIu32 ", \"nlink\": %" PRIu32 ", \"uid\": %" PRIu32
	       ", \"gid\": %" PRIu32 ", \"size\": %" PRIu64 ", \"allocated\": %" PRIu64
	       ", \"mtime_sec\": %jd, \"mtime_nsec\": %ld",
		type_name(inode->mode), (unsigned)inode->mode & 07777, inode->ino, inode->nlink, inode->uid,
		inode->gid, inode->size, inode->alloc, (intmax_t)inode->mtime.tv_sec, (long)inode->mtime.tv_nsec);
	if (S_ISCHR(inode->mode) || S_ISBLK(inode->mode))
		printf(", \"major\": %" PRIu32 ", \"minor\": %" PRIu32, inode->arg0, inode->arg1);
	if (S_ISLNK(inode->mode)) {
		fputs(", \"target\": ", stdout);
		json_string(stdout, target, strlen(target));
	}
	if (inode->xattr)
		json_xattrs(ls, inode);
	putchar('}');
}

/* ---- directories ---- */

/* name: as it is to be shown; in JSON it is the whole path. */
static void print_entry(struct ls *ls, const char *name, size_t len, const struct image_inode *inode)
{
	char target[PINFS_SYMLINK_MAX + 1] = "";

	if (S_ISLNK(inode->mode) && (ls->long_format || ls->json)) {
		int r = image_readlink(ls->image, inode, target);

		if (r < 0)
			ls_fail(ls, name, r);
	}
	if (ls->json) {
		json_entry(ls, name, len, inode, target);
		return;
	}
	print_columns(ls, inode);
	print_name(ls, name, len);
	if (ls->long_format && S_ISLNK(inode->mode)) {
		fputs(" -> ", stdout);
		print_name(ls, target, strlen(target));
	}
	putchar(ls->end);
}

/* Whether names alone are enough: then no inode is read. */
static bool names_only(const struct ls *ls)
{
	return !ls->json && !ls->long_format;
}

static void list_entry(struct ls *ls, const struct image_inode *dir, const struct image_dirent *e, bool measure)
{
	struct image_inode inode = {.ino = e->ino};
	size_t keep = ls->path_len;
	int r = names_only(ls) ? 0 : image_dir_child(ls->image, dir, e, &inode);

	if (r < 0) {
		if (!measure)
			ls_fail(ls, e->name, r);
		return;
	}
	if (measure) {
		widths_add(ls, &inode);
	} else if (ls->json) {
		if (path_set(ls, keep, e->name, e->name_len) == 0)
			print_entry(ls, ls->path, ls->path_len, &inode);
		ls->path_len = keep;
	} else {
		print_entry(ls, e->name, e->name_len, &inode);
	}
}

/* Goes through a directory: once for the widths of the columns, once to print; so its size is no matter. */
static void list_pass(struct ls *ls, const struct image_inode *dir, bool measure)
{
	struct image_dir_iter iter;
	struct image_dirent e;
	int r;

	ls->damage->quiet = measure;
	r = image_dir_iter_begin(ls->image, dir, 0, &iter);
	if (r == 0) {
		while ((r = image_dir_iter_next(&iter, &e)) > 0)
			list_entry(ls, dir, &e, measure);
		image_dir_iter_end(&iter);
	}
	ls->damage->quiet = false;
	if (r < 0 && !measure)
		ls_fail(ls, NULL, r);
}

static void list_directory(struct ls *ls, const struct image_inode *dir)
{
	ls->widths = (struct widths){0};
	if (!ls->json && (ls->long_format || ls->inode_numbers))
		list_pass(ls, dir, true);
	list_pass(ls, dir, false);
}

/* Between blocks of names an empty line, before them the directory's path if there is more than one. */
static void print_header(struct ls *ls, bool name)
{
	if (ls->json)
		return;
	if (ls->printed)
		putchar(ls->end);
	if (name) {
		print_name(ls, ls->path, ls->path_len);
		putchar(':');
		putchar(ls->end);
	}
	ls->printed = true;
}

/* 1: *ret is the next subdirectory of the level; 0: no more. */
static int next_subdirectory(struct ls *ls, struct level *level, struct image_dirent *ret_entry,
	struct image_inode *ret)
{
	int r;

	/* What can't be read was said when it was listed. */
	ls->damage->quiet = true;
	while ((r = image_dir_iter_next(&level->iter, ret_entry)) > 0)
		if (ret_entry->type == DT_DIR && image_dir_child(ls->image, &level->dir, ret_entry, ret) == 0)
			break;
	/* The position stays; the chunk would only hold memory, one for each level. */
	image_dir_iter_end(&level->iter);
	ls->damage->quiet = false;
	return r > 0;
}

/* A damaged image may name a directory twice, and that again in each of them: then the listing would never end. */
static bool seen_before(uint8_t *seen, uint32_t ino)
{
	uint8_t bit = (uint8_t)(1u << ino % 8), before = seen[ino / 8];

	seen[ino / 8] |= bit;
	return before & bit;
}

/*
 * Goes to the next directory in the order of names, parents first: *dir and ls->path become it. levels: the way down
 * to the directory that was before, itself included. Returns 1, 0 if there is no more, or -ENOMEM.
 */
static int next_directory(struct ls *ls, struct level *levels, size_t *depth, uint8_t *seen, struct image_inode *dir)
{
	while (*depth) {
		struct level *level = &levels[*depth - 1];
		struct image_dirent e;
		int r;

		ls->path_len = level->path_len;
		if (!next_subdirectory(ls, level, &e, dir)) {
			--*depth;
			continue;
		}
		r = path_set(ls, ls->path_len, e.name, e.name_len);
		if (r < 0)
			return r;
		if (!seen_before(seen, dir->ino))
			return 1;
		ls_fail(ls, NULL, -EUCLEAN);
	}
	return 0;
}

/* All directories below the one at ls->path, and itself. */
static int list_tree(struct ls *ls, const struct image_inode *top)
{
	_cleanup_free_ uint8_t *seen = calloc(image_get_info(ls->image)->inode_count / 8 + 1, 1);
	_cleanup_free_ struct level *levels = NULL;
	struct image_inode dir = *top;
	size_t depth = 0, capacity = 0;
	int r = seen ? 1 : -ENOMEM;

	while (r > 0) {
		print_header(ls, true);
		list_directory(ls, &dir);
		r = array_reserve(&levels, &capacity, depth + 1, sizeof(*levels));
		if (r < 0)
			break;
		levels[depth] = (struct level){.dir = dir, .path_len = ls->path_len};
		if (image_dir_iter_begin(ls->image, &dir, 0, &levels[depth].iter) == 0)
			depth++;
		r = next_directory(ls, levels, &depth, seen, &dir);
	}
	return r;
}

static int list_path(struct ls *ls, const char *path, bool directories, bool header)
{
	struct image_inode inode;
	int r = path_set(ls, 0, path, strlen(path));

	if (r < 0)
		return r;
	ls->damage->quiet = directories; /* second time */
	r = cli_path_find(ls->image, path, false, &inode);
	ls->damage->quiet = false;
	if (r < 0 && !directories)
		ls_fail(ls, NULL, r);
	if (r < 0 || directories == (ls->itself || !S_ISDIR(inode.mode)))
		return 0;
	if (!directories) {
		ls->widths = (struct widths){0};
		widths_add(ls, &inode);
		print_entry(ls, ls->path, ls->path_len, &inode);
		ls->printed = true;
		return 0;
	}
	if (ls->recursive)
		return list_tree(ls, &inode);
	print_header(ls, header);
	list_directory(ls, &inode);
	return 0;
}

static int run(struct ls *ls, char **paths, int count)
{
	int r = 0;

	/* As ls(1): first what is not a directory, then the directories. */
	for (int pass = 0; pass < 2; pass++)
		for (int i = 0; i < count && r == 0; i++)
			r = list_path(ls, paths[i], pass, count > 1);
	if (r < 0)
		log_error("%s", strerror(-r));
	if (ls->json)
		fputs(ls->json_begun ? "\n]\n" : "[]\n", stdout);
	free(ls->path);
	return r < 0 ? CLI_FAIL : ls->status;
}

enum {
	OPTION_JSON = 256,
	OPTION_OFFSET,
	OPTION_FULL_TIME,
};

static const struct option ls_options[] = {
	{"recursive", no_argument, NULL, 'R'},
	{"directory", no_argument, NULL, 'd'},
	{"all", no_argument, NULL, 'a'},
	{"inode", no_argument, NULL, 'i'},
	{"numeric-uid-gid", no_argument, NULL, 'n'},
	{"human", no_argument, NULL, 'H'},
	{"human-readable", no_argument, NULL, 'H'},
	{"full-time", no_argument, NULL, OPTION_FULL_TIME},
	{"escape", no_argument, NULL, 'b'},
	{"literal", no_argument, NULL, 'N'},
	{"null", no_argument, NULL, '0'},
	{"json", no_argument, NULL, OPTION_JSON},
	{"offset", required_argument, NULL, OPTION_OFFSET},
	{"help", no_argument, NULL, 'h'},
	{0},
};

/* -1: go on; else the exit status. */
static int parse(struct ls *ls, int argc, char **argv, const char **ret_offset)
{
	int c;

	while ((c = getopt_long(argc, argv, "lRdainHbN01Ah", ls_options, NULL)) != -1) {
		ls->long_format |= c == 'l' || c == 'n' || c == 'H' || c == OPTION_FULL_TIME;
		ls->recursive |= c == 'R';
		ls->itself |= c == 'd';
		ls->inode_numbers |= c == 'i';
		ls->numeric |= c == 'n';
		ls->human |= c == 'H';
		ls->full_time |= c == OPTION_FULL_TIME;
		ls->json |= c == OPTION_JSON;
		if (c == 'b')
			ls->escape = ESCAPE_ALWAYS;
		if (c == 'N' || c == '0')
			ls->escape = ESCAPE_NEVER;
		if (c == '0')
			ls->end = 0;
		if (c == OPTION_OFFSET)
			*ret_offset = optarg;
		if (c == 'h') {
			ls_help();
			return CLI_OK;
		}
		if (c == '?')
			return cli_usage_error(argv[0]);
	}
	if (optind == argc) {
		log_error("ls: an image is needed");
		return cli_usage_error(argv[0]);
	}
	return -1;
}

int cmd_ls(int argc, char **argv)
{
	struct tool_damage damage = {0};
	struct ls ls = {.damage = &damage, .end = '\n'};
	char root[] = "/", *everything[] = {root};
	const char *offset = NULL;
	int r = parse(&ls, argc, argv, &offset);

	if (r >= 0)
		return r;
	if (ls.escape == ESCAPE_AUTO)
		ls.escape = isatty(STDOUT_FILENO) ? ESCAPE_ALWAYS : ESCAPE_NEVER;
	if (tool_image_open(argv[optind], offset, &damage, &ls.image) < 0)
		return CLI_FAIL;
	if (optind + 1 < argc)
		r = run(&ls, argv + optind + 1, argc - optind - 1);
	else
		r = run(&ls, everything, 1);
	image_close(ls.image);
	return r;
}
