/* SPDX-License-Identifier: MIT */
/* Operations on names and attributes. Each says first, from the model, which errno must come. */
#include <dirent.h>
#include <fcntl.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

#include "stress.h"

static mode_t pick_mode(bool dir)
{
	/* The owner keeps access: an ordinary user must be able to go on. */
	mode_t mode = rng_below(&worker.rng, 01000) | (dir ? 0700 : 0600);

	if (rng_one_in(&worker.rng, 8))
		mode |= dir ? S_ISVTX : abilities.root ? S_ISUID | S_ISGID : 0;
	return mode;
}

static bool too_many(void)
{
	return worker.nodes >= NODES_MAX;
}

/* A directory, a name in it, the path, and what is there. */
struct place {
	struct node *dir;
	char name[256], path[PATH_SIZE];
	struct entry *entry;
};

static void pick_place(struct place *p)
{
	p->dir = pick_dir();
	pick_name(p->dir, p->name);
	path_of(p->dir, p->name, p->path);
	p->entry = node_find(p->dir, p->name);
}

static void do_create(void)
{
	mode_t mode = pick_mode(false) & 0777;
	struct place p;
	int fd;

	pick_place(&p);
	if (too_many())
		return;
	doing("create %s %o", p.path, mode);
	fd = open(p.path, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, mode);
	if (outcome(fd, p.entry ? EEXIST : 0)) {
		close(fd);
		node_link(p.dir, p.name, node_new(S_IFREG | mode));
	}
}

static void do_mknod(void)
{
	static const mode_t types[] = {S_IFREG, S_IFIFO, S_IFSOCK, S_IFCHR, S_IFBLK};
	mode_t type = types[rng_below(&worker.rng, abilities.nodes ? 5 : 3)], mode = pick_mode(false) & 0777;
	dev_t dev = type == S_IFCHR || type == S_IFBLK
			    ? makedev(1 + rng_below(&worker.rng, 300), rng_below(&worker.rng, 1000))
			    : 0;
	struct place p;

	pick_place(&p);
	if (too_many())
		return;
	doing("mknod %s %o", p.path, type | mode);
	if (outcome(mknod(p.path, type | mode, dev), p.entry ? EEXIST : 0)) {
		struct node *n = node_new(type | mode);

		n->rdev = dev;
		node_link(p.dir, p.name, n);
	}
}

static void do_mkdir(void)
{
	mode_t mode = pick_mode(true) & 0777;
	struct place p;

	pick_place(&p);
	if (too_many() || node_depth(p.dir) >= DEPTH_MAX)
		return;
	doing("mkdir %s %o", p.path, mode);
	if (outcome(mkdir(p.path, mode), p.entry ? EEXIST : 0))
		node_link(p.dir, p.name, node_new(S_IFDIR | mode));
}

static void do_rmdir(void)
{
	struct place p;
	struct node *n;

	pick_place(&p);
	n = p.entry ? p.entry->node : NULL;
	doing("rmdir %s", p.path);
	if (outcome(rmdir(p.path), !n ? ENOENT : !S_ISDIR(n->mode) ? ENOTDIR : n->count ? ENOTEMPTY : 0)) {
		node_unlink(p.dir, p.entry);
		node_put(n);
	}
}

static void do_unlink(void)
{
	struct place p;
	struct node *n;

	pick_place(&p);
	n = p.entry ? p.entry->node : NULL;
	doing("unlink %s", p.path);
	if (outcome(unlink(p.path), !n ? ENOENT : S_ISDIR(n->mode) ? EISDIR : 0)) {
		node_unlink(p.dir, p.entry);
		node_put(n);
	}
}

static void do_link(void)
{
	char from[PATH_SIZE];
	struct node *dir, *n;
	struct entry *e = pick_entry(0, &dir);
	struct place p;

	if (!e)
		return;
	n = e->node;
	path_of(dir, e->name, from);
	pick_place(&p);
	doing("link %s %s", from, p.path);
	if (outcome(link(from, p.path), p.entry ? EEXIST : S_ISDIR(n->mode) ? EPERM : 0))
		node_link(p.dir, p.name, n);
}

static void do_symlink(void)
{
	size_t len = 1 + rng_below(&worker.rng, rng_one_in(&worker.rng, 4) ? 1000 : 80);
	char target[1024];
	struct place p;

	for (size_t i = 0; i < len; i++)
		target[i] = rng_one_in(&worker.rng, 9) ? '/' : 'a' + rng_below(&worker.rng, 26);
	target[len] = 0;
	pick_place(&p);
	if (too_many())
		return;
	doing("symlink %s", p.path);
	if (outcome(symlink(target, p.path), p.entry ? EEXIST : 0)) {
		struct node *n = node_new(S_IFLNK | 0777);

		n->target = strdup(target);
		n->size = len;
		node_link(p.dir, p.name, n);
	}
}

/* The kernel's order of checks. */
static int rename_errno(const struct place *from, const struct place *to, unsigned flags)
{
	const struct node *a = from->entry ? from->entry->node : NULL,
			  *b = to->entry ? to->entry->node : NULL;

	if (!a)
		return ENOENT;
	if (b && (flags & RENAME_NOREPLACE))
		return EEXIST;
	if (!b && (flags & RENAME_EXCHANGE))
		return ENOENT;
	if (node_is_above(a, to->dir))
		return EINVAL;
	if (b && node_is_above(b, from->dir))
		return flags & RENAME_EXCHANGE ? EINVAL : ENOTEMPTY;
	if (!b || a == b || (flags & RENAME_EXCHANGE))
		return 0;
	if (S_ISDIR(a->mode) && !S_ISDIR(b->mode))
		return ENOTDIR;
	if (!S_ISDIR(a->mode) && S_ISDIR(b->mode))
		return EISDIR;
	return S_ISDIR(b->mode) && b->count ? ENOTEMPTY : 0;
}

static void exchange(struct place *from, struct place *to)
{
	struct node *a = from->entry->node, *b = to->entry->node;

	from->entry->node = b;
	to->entry->node = a;
	/* XFS takes a directory that gets another parent in an exchange for modified. */
	if (S_ISDIR(a->mode) && from->dir != to->dir)
		changed(a);
	if (S_ISDIR(b->mode) && from->dir != to->dir)
		changed(b);
	if (S_ISDIR(a->mode)) {
		a->parent = to->dir;
		a->name = to->entry->name;
	}
	if (S_ISDIR(b->mode)) {
		b->parent = from->dir;
		b->name = from->entry->name;
	}
	changed(from->dir);
	changed(to->dir);
}

static unsigned height(const struct node *n)
{
	unsigned most = 0;

	for (size_t i = 0; i < n->count; i++) {
		unsigned h = height(n->entries[i].node) + 1;

		most = MAX(most, h);
	}
	return most;
}

static bool too_deep(const struct place *from, const struct place *to)
{
	return from->entry && node_depth(to->dir) + 1 + height(from->entry->node) > DEPTH_MAX + 1;
}

static void do_rename(void)
{
	unsigned flags = 0, pick = rng_below(&worker.rng, 6);
	struct place from, to;
	struct node *old;
	int want, r;

	if (pick == 0 && abilities.noreplace)
		flags = RENAME_NOREPLACE;
	else if (pick == 1 && abilities.exchange)
		flags = RENAME_EXCHANGE;
	pick_place(&from);
	pick_place(&to);
	if (too_deep(&from, &to) || (flags == RENAME_EXCHANGE && too_deep(&to, &from)))
		return;
	want = rename_errno(&from, &to, flags);
	doing("rename %s %s %u", from.path, to.path, flags);
	r = renameat2(AT_FDCWD, from.path, AT_FDCWD, to.path, flags);
	/* POSIX leaves the choice, and XFS makes another one. */
	if (r && want == ENOTEMPTY && errno == EEXIST)
		return;
	if (!outcome(r, want))
		return;
	if (to.entry && to.entry->node == from.entry->node)
		return;
	if (flags == RENAME_EXCHANGE) {
		exchange(&from, &to);
		return;
	}
	old = to.entry ? to.entry->node : NULL;
	if (old)
		node_unlink(to.dir, to.entry);
	from.entry = node_find(from.dir, from.name); /* it may have moved */
	struct node *n = from.entry->node;

	node_unlink(from.dir, from.entry);
	node_link(to.dir, to.name, n);
	node_put(old);
}

/* ---- attributes ---- */

/* An entry and its path, or the worker's root now and then. */
static struct node *pick_node(mode_t type, char path[PATH_SIZE])
{
	struct node *dir;
	struct entry *e = pick_entry(type, &dir);

	if (!e)
		return NULL;
	path_of(dir, e->name, path);
	return e->node;
}

static void do_chmod(void)
{
	char path[PATH_SIZE];
	struct node *n = pick_node(0, path);
	mode_t mode;

	if (!n || S_ISLNK(n->mode))
		return;
	mode = pick_mode(S_ISDIR(n->mode));
	if (!S_ISREG(n->mode) && !S_ISDIR(n->mode))
		mode &= 0777;
	doing("chmod %s %o", path, mode);
	if (outcome(chmod(path, mode), 0))
		n->mode = (n->mode & S_IFMT) | mode;
}

static void do_chown(void)
{
	char path[PATH_SIZE];
	struct node *n = pick_node(0, path);
	uid_t uid = rng_one_in(&worker.rng, 3) ? (uid_t)-1 : rng_below(&worker.rng, 70000);
	gid_t gid = rng_one_in(&worker.rng, 3) ? (gid_t)-1 : rng_below(&worker.rng, 70000);

	if (!n || !abilities.root || (uid == (uid_t)-1 && gid == (gid_t)-1))
		return;
	doing("chown %s %d %d", path, (int)uid, (int)gid);
	if (!outcome(lchown(path, uid, gid), 0))
		return;
	if (uid != (uid_t)-1)
		n->uid = uid;
	if (gid != (gid_t)-1)
		n->gid = gid;
	if (S_ISDIR(n->mode))
		return;
	n->mode &= ~S_ISUID;
	if (n->mode & S_IXGRP)
		n->mode &= ~S_ISGID;
}

static void do_utimens(void)
{
	char path[PATH_SIZE];
	struct node *n = pick_node(0, path);
	struct timespec times[2] = {
		{.tv_sec = rng_below(&worker.rng, 1u << 31), .tv_nsec = rng_below(&worker.rng, 1000000000)},
		{.tv_sec = rng_below(&worker.rng, 1u << 31), .tv_nsec = rng_below(&worker.rng, 1000000000)}};

	if (!n)
		return;
	if (rng_one_in(&worker.rng, 4))
		times[0].tv_nsec = UTIME_OMIT;
	doing("utimens %s %jd.%09ld", path, (intmax_t)times[1].tv_sec, times[1].tv_nsec);
	if (outcome(utimensat(AT_FDCWD, path, times, AT_SYMLINK_NOFOLLOW), 0)) {
		n->mtime = times[1];
		n->mtime_known = true;
	}
}

static void do_setxattr(void)
{
	char path[PATH_SIZE], name[32];
	struct node *n = pick_node(rng_one_in(&worker.rng, 3) ? S_IFDIR : S_IFREG, path);
	unsigned i = rng_below(&worker.rng, XATTRS), pick = rng_below(&worker.rng, 4);
	size_t len = rng_below(&worker.rng, 400);
	int flags = pick == 0 ? XATTR_CREATE : pick == 1 ? XATTR_REPLACE : 0;
	uint8_t *value;

	if (!n || !abilities.xattr)
		return;
	value = malloc(len + 1);
	for (size_t j = 0; j < len; j++)
		value[j] = rng_next(&worker.rng);
	snprintf(name, sizeof(name), "user.x%u", i);
	doing("setxattr %s %s %zu %d", path, name, len, flags);
	if (!outcome(setxattr(path, name, value, len, flags), pick == 0 && n->xattrs[i].value	 ? EEXIST
							      : pick == 1 && !n->xattrs[i].value ? ENODATA
												 : 0)) {
		free(value);
		return;
	}
	free(n->xattrs[i].value);
	n->xattrs[i].value = value;
	n->xattrs[i].len = len;
}

static void do_removexattr(void)
{
	char path[PATH_SIZE], name[32];
	struct node *n = pick_node(rng_one_in(&worker.rng, 3) ? S_IFDIR : S_IFREG, path);
	unsigned i = rng_below(&worker.rng, XATTRS);

	if (!n || !abilities.xattr)
		return;
	snprintf(name, sizeof(name), "user.x%u", i);
	doing("removexattr %s %s", path, name);
	if (outcome(removexattr(path, name), n->xattrs[i].value ? 0 : ENODATA)) {
		free(n->xattrs[i].value);
		n->xattrs[i].value = NULL;
	}
}

/* ---- looking ---- */

static void do_stat(void)
{
	struct place p;
	struct stat st;

	pick_place(&p);
	doing("stat %s", p.path);
	if (outcome(lstat(p.path, &st), p.entry ? 0 : ENOENT)) {
		uint64_t before = worker.differences;

		compare_stat(p.entry->node, &st, p.path);
		if (worker.differences != before)
			wrong("stat of %s", p.path);
	}
}

static void do_readdir(void)
{
	struct node *dir = pick_dir();
	char path[PATH_SIZE];
	struct dirent *e;
	size_t count = 0;
	DIR *d;

	path_of(dir, NULL, path);
	doing("readdir %s", path);
	d = opendir(path);
	if (!d)
		outcome(-1, 0);
	while ((errno = 0, e = readdir(d))) {
		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
			continue;
		if (!node_find(dir, e->d_name))
			wrong("%s lists %s, which is not there", path, e->d_name);
		count++;
	}
	if (errno)
		outcome(-1, 0);
	closedir(d);
	if (count != dir->count)
		wrong("%s lists %zu names instead of %zu", path, count, dir->count);
}

static void do_fsync_dir(void)
{
	struct node *dir = pick_dir();
	char path[PATH_SIZE];
	int fd;

	path_of(dir, NULL, path);
	doing("fsync %s", path);
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (outcome(fd, 0)) {
		outcome(fsync(fd), 0);
		close(fd);
	}
}

void names_step(unsigned pick)
{
	static const struct step steps[] = {{8, do_create}, {3, do_mknod}, {5, do_mkdir}, {4, do_rmdir}, {6, do_unlink}, {5, do_link},
		{3, do_symlink}, {9, do_rename}, {2, do_chmod}, {2, do_chown}, {2, do_utimens},
		{3, do_setxattr}, {1, do_removexattr}, {4, do_stat}, {2, do_readdir}, {1, do_fsync_dir}};

	take_step(steps, ARRAY_SIZE(steps), pick);
}
