/* SPDX-License-Identifier: MIT */
/* The whole tree of a worker against its model: both ways, everything that the model knows. */
#include <dirent.h>
#include <fcntl.h>
#include <stdarg.h>
#include <sys/xattr.h>

#include "stress.h"

#define PRINTED_MAX 40u

void differs(const char *path, const char *format, ...)
{
	char text[400], escaped[1024], where[600];
	va_list ap;

	if (worker.differences++ >= PRINTED_MAX || options.quiet)
		return;
	va_start(ap, format);
	vsnprintf(text, sizeof(text), format, ap);
	va_end(ap);
	name_escape(path, strlen(path), where, sizeof(where));
	name_escape(text, strlen(text), escaped, sizeof(escaped));
	fprintf(stderr, "stress: seed %ju, worker %ju: %s: %s\n", (uintmax_t)options.seed,
		(uintmax_t)worker.index, where, escaped);
}

void compare_stat(const struct node *n, const struct stat *st, const char *path)
{
	if (st->st_mode != n->mode)
		differs(path, "mode %o instead of %o", st->st_mode, n->mode);
	if (st->st_uid != n->uid || st->st_gid != n->gid)
		differs(path, "owner %u:%u instead of %u:%u", st->st_uid, st->st_gid, n->uid, n->gid);
	if (!S_ISDIR(n->mode) && (uint64_t)st->st_size != n->size)
		differs(path, "size %ju instead of %ju", (uintmax_t)st->st_size, (uintmax_t)n->size);
	if (!S_ISDIR(n->mode) && st->st_nlink != n->nlink)
		differs(path, "%ju links instead of %u", (uintmax_t)st->st_nlink, n->nlink);
	if (S_ISDIR(n->mode) && abilities.counts_dirs && st->st_nlink != 2 + node_subdirs(n))
		differs(path, "%ju links instead of %u", (uintmax_t)st->st_nlink, 2 + node_subdirs(n));
	if (n->mtime_known &&
		(st->st_mtim.tv_sec != n->mtime.tv_sec || st->st_mtim.tv_nsec != n->mtime.tv_nsec))
		differs(path, "mtime %jd.%09ld instead of %jd.%09ld", (intmax_t)st->st_mtim.tv_sec,
			st->st_mtim.tv_nsec, (intmax_t)n->mtime.tv_sec, n->mtime.tv_nsec);
	if ((S_ISCHR(n->mode) || S_ISBLK(n->mode)) && st->st_rdev != n->rdev)
		differs(path, "device %#jx instead of %#jx", (uintmax_t)st->st_rdev, (uintmax_t)n->rdev);
}

static void compare_xattrs(const struct node *n, const char *path)
{
	char list[4096], value[65536];
	ssize_t len = listxattr(path, list, sizeof(list));
	unsigned listed = 0, expected = 0;

	if (len < 0) {
		differs(path, "listxattr: %s", strerror(errno));
		return;
	}
	for (const char *p = list; p < list + len; p += strlen(p) + 1) {
		unsigned i;

		if (strncmp(p, "user.", 5))
			continue;
		listed++;
		if (sscanf(p, "user.x%u", &i) != 1 || i >= XATTRS || !n->xattrs[i].value)
			differs(path, "has %s", p);
	}
	for (unsigned i = 0; i < XATTRS; i++) {
		char name[32];
		ssize_t got;

		if (!n->xattrs[i].value)
			continue;
		expected++;
		snprintf(name, sizeof(name), "user.x%u", i);
		got = getxattr(path, name, value, sizeof(value));
		if (got < 0)
			differs(path, "%s: %s", name, strerror(errno));
		else if ((size_t)got != n->xattrs[i].len || memcmp(value, n->xattrs[i].value, got))
			differs(path, "%s: another value", name);
	}
	if (listed != expected)
		differs(path, "%u attributes instead of %u", listed, expected);
}

static void compare_target(const struct node *n, const char *path)
{
	char target[4096];
	ssize_t len = readlink(path, target, sizeof(target));

	if (len < 0)
		differs(path, "readlink: %s", strerror(errno));
	else if ((size_t)len != strlen(n->target) || memcmp(target, n->target, len))
		differs(path, "another target");
}

static void compare_content(struct node *n, const char *path)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);

	if (!n->data)
		node_resize(n, 0);
	if (fd < 0)
		differs(path, "open: %s", strerror(errno));
	else
		read_and_compare(fd, n, path);
}

static void compare_dir(struct node *dir);

static void compare_node(struct node *n, const char *path, ino_t listed)
{
	struct stat st;

	if (lstat(path, &st)) {
		differs(path, "%s", strerror(errno));
		return;
	}
	if (listed && listed != st.st_ino)
		differs(path, "inode %ju, listed as %ju", (uintmax_t)st.st_ino, (uintmax_t)listed);
	compare_stat(n, &st, path);
	if ((st.st_mode & S_IFMT) != (n->mode & S_IFMT))
		return;
	/* All names of a file show the same inode; its content is compared once. */
	if (n->pass == worker.pass) {
		if (n->ino != st.st_ino)
			differs(path, "inode %ju, by another name %ju", (uintmax_t)st.st_ino,
				(uintmax_t)n->ino);
		return;
	}
	n->pass = worker.pass;
	n->ino = st.st_ino;
	if (S_ISLNK(n->mode))
		compare_target(n, path);
	if (S_ISREG(n->mode))
		compare_content(n, path);
	if (abilities.xattr && (S_ISREG(n->mode) || S_ISDIR(n->mode)))
		compare_xattrs(n, path);
	if (S_ISDIR(n->mode))
		compare_dir(n);
}

static void compare_dir(struct node *dir)
{
	_cleanup_free_ ino_t *listed = calloc(dir->count + 1, sizeof(*listed));
	char path[PATH_SIZE], child[PATH_SIZE];
	struct dirent *e;
	DIR *d;

	path_of(dir, NULL, path);
	d = opendir(path);
	if (!d) {
		differs(path, "opendir: %s", strerror(errno));
		return;
	}
	while ((errno = 0, e = readdir(d))) {
		struct entry *known = node_find(dir, e->d_name);

		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
			continue;
		if (!known)
			differs(path, "lists %s, which is not there", e->d_name);
		else if (listed[known - dir->entries])
			differs(path, "lists %s twice", e->d_name);
		else
			listed[known - dir->entries] = e->d_ino;
		if (known && e->d_type != DT_UNKNOWN && e->d_type != IFTODT(known->node->mode))
			differs(path, "lists %s with type %u", e->d_name, e->d_type);
	}
	if (errno)
		differs(path, "readdir: %s", strerror(errno));
	closedir(d);
	for (size_t i = 0; i < dir->count; i++) {
		path_of(dir, dir->entries[i].name, child);
		if (!listed[i])
			differs(child, "is not listed");
		compare_node(dir->entries[i].node, child, listed[i]);
	}
}

uint64_t compare_tree(void)
{
	worker.differences = 0;
	worker.pass++;
	compare_node(worker.root, worker.base, 0);
	return worker.differences;
}
