/* SPDX-License-Identifier: MIT */
/* Sources that are directories and files: listing them, and then reading their content. */
#include "mkfs/mkfs.h"

#include <dirent.h>
#include <elf.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <limits.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

#include "base/log.h"

bool pattern_match(const struct string_list *patterns, const char *path, const char *name)
{
	for (size_t i = 0; i < patterns->count; i++) {
		const char *p = patterns->items[i];
		bool whole = strchr(p, '/') != NULL;

		if (fnmatch(*p == '/' ? p + 1 : p, whole ? path + 1 : name, 0) == 0)
			return true;
	}
	return false;
}

bool elf_is_loadable(const uint8_t *head, size_t len)
{
	const Elf64_Ehdr *h = (const void *)head; /* e_type is at the same place in ELF32 */
	unsigned type;

	if (len < 20 || memcmp(head, ELFMAG, SELFMAG))
		return false;
	type = head[EI_DATA] == ELFDATA2MSB ? (unsigned)head[16] << 8 | head[17] : le16toh(h->e_type);
	return type == ET_EXEC || type == ET_DYN;
}

bool xip_wanted(const struct mkfs_options *o, const struct inode *inode)
{
	char buf[PATH_MAX];

	if (!inode->size)
		return false;
	switch (o->xip) {
	case XIP_ALL:
		return true;
	case XIP_LIST:
		return pattern_match(&o->xip_patterns, tree_path(inode->name, buf, sizeof(buf)), inode->name->name);
	case XIP_AUTO:
		/* cramfs's convention for "execute in place". The ELF half is decided by the content. */
		return inode->mode & S_ISVTX;
	case XIP_NONE:
		break;
	}
	return false;
}

struct scan {
	struct tree *tree;
	dev_t dev;   /* of the source, for --one-file-system */
	bool noatime_refused; /* in this directory, to who is not the owner */
	size_t tiny; /* bytes of content read with the listing */
	char *names; /* reused buffer of listxattr */
	size_t names_size;
	char value[PINFS_XATTR_VALUE_MAX];
	struct xattr_build build;
};

static ssize_t list_attributes(int fd, const char *name, char *list, size_t size)
{
	return fd >= 0 ? flistxattr(fd, list, size) : llistxattr(name, list, size);
}

/* Makes s->names large enough and fills it. */
static ssize_t read_names(struct scan *s, int fd, const char *name)
{
	for (size_t want = MAX(s->names_size, (size_t)4096);; want *= 2) {
		ssize_t len;

		if (want > s->names_size) {
			free(s->names);
			s->names_size = 0;
			s->names = malloc(want);
			if (!s->names)
				return -ENOMEM;
			s->names_size = want;
		}
		len = list_attributes(fd, name, s->names, s->names_size);
		if (len >= 0)
			return len;
		if (errno != ERANGE || want >= (1u << 20))
			return errno == ENOTSUP || errno == ENOENT ? 0 : -errno;
	}
}

/* Reads the attributes of fd, or (fd < 0) of `name` in the current directory (fchdir: there is no llistxattrat). */
static int scan_xattrs(struct scan *s, int fd, const char *name, struct inode *inode)
{
	ssize_t len;
	int r = 0;

	if (s->tree->options->no_xattrs)
		return 0;
	len = read_names(s, fd, name);
	if (len < 0)
		return (int)len;
	for (const char *p = s->names, *end = s->names + len; p < end; p += strlen(p) + 1) {
		ssize_t n = fd >= 0 ? fgetxattr(fd, p, s->value, sizeof(s->value)) :
				      lgetxattr(name, p, s->value, sizeof(s->value));

		/* Removed meanwhile; or not ours to read (trusted.*), which is as if it were not there. */
		if (n < 0 && (errno == ENODATA || errno == EPERM || errno == EACCES || errno == ENOTSUP))
			continue;
		if (n < 0) {
			r = -errno;
			break;
		}
		r = xattr_build_add(&s->build, p, s->value, (size_t)n);
		if (r < 0)
			break;
	}
	if (r == 0)
		r = tree_xattr_set(s->tree, inode, &s->build);
	xattr_build_clear(&s->build);
	return r;
}

static int scan_symlink(struct scan *s, int dirfd, const char *name, struct inode *inode)
{
	char target[PINFS_SYMLINK_MAX + 1];
	ssize_t n = readlinkat(dirfd, name, target, sizeof(target));

	if (n < 0)
		return -errno;
	if (n == 0 || n > PINFS_SYMLINK_MAX)
		return -ENAMETOOLONG;
	inode->link.target = tree_alloc(s->tree, (size_t)n + 1);
	if (!inode->link.target)
		return -ENOMEM;
	memcpy(inode->link.target, target, (size_t)n);
	inode->size = (uint64_t)n;
	return 0;
}

/*
 * Most files are tiny, and most of what they cost is to look their names up: those are read when they are listed, as far
 * as there is memory for it. If the inode says the same after the read as before, that is what the file was.
 */
#define TINY 4096
#define TINY_MEMORY (32u << 20)

static int read_tiny(struct scan *s, int fd, const struct stat *before, struct inode *inode)
{
	uint8_t buf[TINY + 1], *copy;
	struct stat after;
	ssize_t n;

	if (before->st_size <= 0 || before->st_size > TINY || s->tiny + (size_t)before->st_size > TINY_MEMORY)
		return 0;
	/* One byte more than there is: a short read is the end. Whatever is odd takes the long way later. */
	n = pread(fd, buf, (size_t)before->st_size + 1, 0);
	if (n != before->st_size || fstat(fd, &after) < 0 || after.st_size != before->st_size ||
		after.st_mtim.tv_sec != before->st_mtim.tv_sec || after.st_mtim.tv_nsec != before->st_mtim.tv_nsec ||
		after.st_ctim.tv_sec != before->st_ctim.tv_sec || after.st_ctim.tv_nsec != before->st_ctim.tv_nsec)
		return 0;
	copy = tree_alloc(s->tree, (size_t)n);
	if (!copy)
		return -ENOMEM;
	memcpy(copy, buf, (size_t)n);
	inode->file.tiny = copy;
	s->tiny += (size_t)n;
	return 0;
}

/*
 * What `name` is; a regular file is opened for that (*ret_fd, else -1), if it can be: its attributes and perhaps its
 * content are wanted next, and a descriptor spares looking up the name.
 */
static int scan_stat(struct scan *s, int dirfd, const char *name, unsigned char type, struct stat *ret, int *ret_fd)
{
	int flags = O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, fd = -1;

	*ret_fd = -1;
	if (type == DT_REG) {
		/* O_NOATIME is for the owner and root only. */
		fd = openat(dirfd, name, flags | (s->noatime_refused ? 0 : O_NOATIME));
		if (fd < 0 && errno == EPERM && !s->noatime_refused) {
			s->noatime_refused = true;
			fd = openat(dirfd, name, flags);
		}
	}
	if (fd >= 0 && fstat(fd, ret) == 0) {
		*ret_fd = fd;
		return 0;
	}
	if (fd >= 0)
		close(fd);
	return fstatat(dirfd, name, ret, AT_SYMLINK_NOFOLLOW) < 0 ? -errno : 0;
}

/* Makes the inode (or finds it, for a further hard link) of `name` in the directory dirfd, which is also the
 * current directory. fd: of a regular file, or -1. */
static int scan_inode(struct scan *s, int dirfd, const char *name, int fd, const struct stat *st, struct inode **ret)
{
	struct tree *t = s->tree;
	struct inode *i;
	int r;

	if (!S_ISDIR(st->st_mode) && st->st_nlink > 1) {
		i = tree_link_find(t, st->st_dev, st->st_ino);
		if (i) {
			*ret = i;
			return 0;
		}
	}
	r = tree_inode_new(t, st, &i);
	if (r == 0 && S_ISLNK(st->st_mode))
		r = scan_symlink(s, dirfd, name, i);
	if (r == 0)
		r = scan_xattrs(s, fd, name, i);
	if (r == 0 && fd >= 0 && S_ISREG(st->st_mode))
		r = read_tiny(s, fd, st, i);
	if (r == 0 && !S_ISDIR(st->st_mode) && st->st_nlink > 1)
		r = tree_link_add(t, st->st_dev, st->st_ino, i);
	if (r < 0)
		return r;
	if (S_ISCHR(st->st_mode) || S_ISBLK(st->st_mode)) {
		i->device.major = major(st->st_rdev);
		i->device.minor = minor(st->st_rdev);
	} else if (S_ISREG(st->st_mode)) {
		t->file_count++;
		t->file_bytes += i->size;
	}
	*ret = i;
	return 0;
}

static bool scan_excluded(struct scan *s, struct node *dir, const char *name)
{
	const struct string_list *x = &s->tree->options->exclude;
	char buf[PATH_MAX], path[PATH_MAX + PINFS_NAME_MAX + 2], *p;

	if (!x->count)
		return false;
	p = tree_path(dir, buf, sizeof(buf));
	snprintf(path, sizeof(path), "%s/%s", dir->parent ? p : "", name);
	return pattern_match(x, path, name);
}

/* One name: 0, or an error that ends the run; what has vanished is said and left out. */
static int scan_entry(struct scan *s, struct node *dir, int dirfd, const char *name, unsigned char type,
	struct node **ret)
{
	const struct mkfs_options *o = s->tree->options;
	char shown[PINFS_NAME_MAX * 4 + 1];
	_cleanup_close_ int fd = -1;
	struct inode *inode = NULL;
	struct stat st;
	int r;

	*ret = NULL;
	if (scan_excluded(s, dir, name))
		return 0;
	r = scan_stat(s, dirfd, name, type, &st, &fd);
	if (r == 0 && tree_is_left_out(s->tree, &st))
		return 0;
	if (r == 0)
		r = scan_inode(s, dirfd, name, fd, &st, &inode);
	if (r == -ENOENT) {
		tree_warn(s->tree, dir, "'%s' vanished before it was read; it is left out",
			name_escape(name, strlen(name), shown, sizeof(shown)));
		return 0;
	}
	if (r < 0) {
		char buf[PATH_MAX];

		log_error("can't read %s/%s: %s", tree_path(dir, buf, sizeof(buf)),
			name_escape(name, strlen(name), shown, sizeof(shown)), strerror(-r));
		return r;
	}
	r = tree_node_new(s->tree, dir, name, strlen(name), inode, ret);
	/* Another filesystem's mount point stays as an empty directory. */
	if (r == 0 && S_ISDIR(st.st_mode) && o->one_file_system && st.st_dev != s->dev)
		*ret = NULL;
	return r;
}

struct work {
	struct node **items;
	size_t count, capacity;
};

static int work_push(struct work *w, struct node *node)
{
	int r = array_reserve(&w->items, &w->capacity, w->count + 1, sizeof(*w->items));

	if (r == 0)
		w->items[w->count++] = node;
	return r;
}

static int unreadable(struct scan *s, struct node *node, int r)
{
	char buf[PATH_MAX];

	if (r == -ENOENT) {
		tree_warn(s->tree, node, "vanished before it was read; it is left out");
		node->inode->dead = true;
		return 0;
	}
	if (s->tree->options->skip_unreadable && (r == -EACCES || r == -EPERM)) {
		tree_warn(s->tree, node, "%s; its content is left out", strerror(-r));
		return 0;
	}
	log_error("can't read %s: %s%s", tree_path(node, buf, sizeof(buf)), strerror(-r),
		r == -EACCES ? " (run as root, or use --skip-unreadable or --exclude)" : "");
	return r;
}

/* Reads one directory; its subdirectories are pushed for later. */
static int scan_directory(struct scan *s, struct node *node, struct work *todo)
{
	struct dirent *e;
	DIR *d;
	int fd, r = 0;

	fd = tree_open(s->tree, node, O_RDONLY | O_DIRECTORY);
	if (fd < 0)
		return unreadable(s, node, fd);
	if (fchdir(fd) < 0 || !(d = fdopendir(fd))) {
		r = -errno;
		close(fd);
		return unreadable(s, node, r);
	}
	s->noatime_refused = false;
	while (r == 0 && !mkfs_interrupted) {
		struct node *child;

		errno = 0;
		e = readdir(d);
		if (!e) {
			r = errno ? unreadable(s, node, -errno) : 0;
			break;
		}
		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
			continue;
		r = scan_entry(s, node, fd, e->d_name, e->d_type, &child);
		if (r == 0 && child && S_ISDIR(child->inode->mode))
			r = work_push(todo, child);
	}
	closedir(d);
	tree_dir_sort(node->inode);
	/* Depth first, first name first: fewer distant directories at a time. */
	return mkfs_interrupted ? -EINTR : r;
}

static int scan_below(struct scan *s, struct node *top)
{
	struct work todo = {0};
	int r = work_push(&todo, top);

	while (r == 0 && todo.count)
		r = scan_directory(s, todo.items[--todo.count], &todo);
	free(todo.items);
	return r;
}

static int source_stat(struct tree *t, const char *path, struct stat *ret)
{
	/* A symbolic link on the command line means what it points to, as for mksquashfs and tar -h. */
	if (fstatat(t->cwd, path, ret, 0) < 0) {
		int r = -errno;

		log_error("can't read %s: %s", path, strerror(-r));
		return r;
	}
	return 0;
}

/* xattrs of a directory that is itself a source, and so not an entry of one that we have read. */
static int source_xattrs(struct scan *s, struct node *node)
{
	_cleanup_close_ int fd = tree_open(s->tree, node, O_RDONLY | O_DIRECTORY);

	/* A failure is said when it is listed. */
	return fd < 0 ? 0 : scan_xattrs(s, fd, NULL, node->inode);
}

/*
 * The inode of a source that is no directory, found as an entry of the directory that it really lies in, so that it
 * has all that an entry has: attributes, further links, a device number.
 */
static int source_inode(struct scan *s, const char *path, struct inode **ret, char **ret_path)
{
	_cleanup_free_ char *real = NULL;
	_cleanup_close_ int dirfd = -1;
	struct stat st;
	char *slash;
	int r;

	/* Scanning another source has changed the working directory. */
	if (fchdir(s->tree->cwd) < 0 || !(real = realpath(path, NULL)))
		return -errno;
	slash = strrchr(real, '/');
	*slash = 0;
	dirfd = open(*real ? real : "/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	*slash = '/';
	if (dirfd < 0 || fchdir(dirfd) < 0 || fstatat(dirfd, slash + 1, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return -errno;
	r = scan_inode(s, dirfd, slash + 1, -1, &st, ret);
	if (r < 0)
		return r;
	*ret_path = tree_alloc(s->tree, strlen(real) + 1);
	if (!*ret_path)
		return -ENOMEM;
	strcpy(*ret_path, real);
	return 0;
}

static const char *source_name(const char *path, size_t *ret_len)
{
	size_t len = strlen(path), start;

	while (len > 1 && path[len - 1] == '/')
		len--;
	for (start = len; start && path[start - 1] != '/'; start--)
		;
	*ret_len = len - start;
	return path + start;
}

static int add_source(struct scan *s, struct node *root, const char *path)
{
	struct tree *t = s->tree;
	const char *name;
	struct inode *inode;
	struct node *node;
	char *real = NULL;
	struct stat st;
	size_t len;
	int r;

	r = source_stat(t, path, &st);
	if (r < 0)
		return r;
	name = source_name(path, &len);
	if (!len || len > PINFS_NAME_MAX || (len <= 2 && !strncmp(name, "..", len))) {
		log_error("%s has no name of its own; with several sources each becomes an entry of the root: "
			"give a path that ends in a name", path);
		return -EINVAL;
	}
	for (uint32_t i = 0; i < root->inode->dir.count; i++) {
		struct node *other = root->inode->dir.children[i];

		if (other->name_len == len && !memcmp(other->name, name, len)) {
			log_error("%s and %s would have the same name in the image", other->source, path);
			return -EEXIST;
		}
	}
	if (scan_excluded(s, root, name))
		return 0;
	if (S_ISDIR(st.st_mode)) {
		r = tree_inode_new(t, &st, &inode);
	} else {
		r = source_inode(s, path, &inode, &real);
		if (r < 0)
			log_error("can't read %s: %s", path, strerror(-r));
	}
	if (r == 0)
		r = tree_node_new(t, root, name, len, inode, &node);
	if (r < 0)
		return r;
	node->source = real ? real : path;
	s->dev = st.st_dev;
	if (st.st_mtim.tv_sec > root->inode->mtime_sec)
		root->inode->mtime_sec = st.st_mtim.tv_sec;
	if (!S_ISDIR(st.st_mode))
		return 0;
	r = source_xattrs(s, node);
	return r < 0 ? r : scan_below(s, node);
}

static int make_root(struct tree *t, const struct stat *st, const char *source)
{
	struct inode *inode;
	int r = tree_inode_new(t, st, &inode);

	if (r == 0)
		r = tree_node_new(t, NULL, "", 0, inode, &t->root);
	if (r == 0)
		t->root->source = source;
	return r;
}

int scan_sources(struct tree *t)
{
	const struct string_list *sources = &t->options->sources;
	struct stat root = {.st_mode = S_IFDIR | 0755, .st_uid = getuid(), .st_gid = getgid()};
	struct scan *s = calloc(1, sizeof(*s));
	struct stat st;
	int r = 0;

	if (!s)
		return -ENOMEM;
	s->tree = t;
	if (sources->count == 1)
		r = source_stat(t, sources->items[0], &st);
	if (r == 0 && sources->count == 1 && S_ISDIR(st.st_mode)) {
		r = make_root(t, &st, sources->items[0]);
		s->dev = st.st_dev;
		if (r == 0)
			r = source_xattrs(s, t->root);
		if (r == 0)
			r = scan_below(s, t->root);
	} else if (r == 0) {
		r = make_root(t, &root, NULL);
		for (size_t i = 0; r == 0 && i < sources->count; i++)
			r = add_source(s, t->root, sources->items[i]);
		if (r == 0)
			tree_dir_sort(t->root->inode);
	}
	if (fchdir(t->cwd) < 0 && r == 0) {
		r = -errno;
		log_error("can't go back to the working directory: %s", strerror(-r));
	}
	free(s->names);
	free(s);
	return r;
}

/* ---- content ---- */

static ssize_t fd_read(void *context, void *buf, size_t len, uint64_t offset)
{
	int fd = *(int *)context;
	size_t done = 0;

	while (done < len) {
		ssize_t n = pread(fd, (char *)buf + done, len - done, (off_t)(offset + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		done += (size_t)n;
	}
	return (ssize_t)done;
}

static uint64_t fd_next_data(void *context, uint64_t offset)
{
	off_t at = lseek(*(int *)context, (off_t)offset, SEEK_DATA);

	if (at >= 0)
		return (uint64_t)at;
	return errno == ENXIO ? UINT64_MAX : offset;
}

/* Does the inode say what it said when it was listed? Mind what --clamp-mtime and the like make of it. */
static bool as_listed(const struct inode *was, const struct inode *now, const struct stat *st)
{
	return was->source == now->source && was->mode == now->mode && was->mtime_sec == now->mtime_sec &&
		was->mtime_nsec == now->mtime_nsec && was->uid == now->uid && was->gid == now->gid &&
		was->size == (uint64_t)st->st_size;
}

static ssize_t tiny_read(void *context, void *buf, size_t len, uint64_t offset)
{
	const struct inode *i = context;

	if (offset >= i->size)
		return 0;
	len = (size_t)MIN((uint64_t)len, i->size - offset);
	memcpy(buf, i->file.tiny + offset, len);
	return (ssize_t)len;
}

static int store_tiny(struct pack *pack, struct inode *inode)
{
	struct content_source source = {tiny_read, NULL, inode};

	return pack_file(pack, inode, &source, false);
}

static int store_one(struct tree *t, struct pack *pack, struct inode *inode, bool xip)
{
	const struct inode was = *inode;
	struct stat before, after;
	_cleanup_close_ int fd = tree_open(t, inode->name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOATIME);
	struct content_source source = {fd_read, fd_next_data, &fd};
	int r;

	/* O_NOATIME is for the owner and root only. */
	if (fd == -EPERM)
		fd = tree_open(t, inode->name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
	if (fd < 0) {
		struct scan s = {.tree = t};

		r = unreadable(&s, inode->name, fd == -ELOOP ? -ENOENT : fd);
		inode->size = 0;
		inode->dead = r == 0;
		return r;
	}
	if (fstat(fd, &before) < 0)
		return -errno;
	if (S_ISREG(before.st_mode))
		tree_inode_update(t, inode, &before);
	if (!S_ISREG(before.st_mode)) {
		tree_warn(t, inode->name, "is no longer a regular file; it is left out");
		inode->dead = true;
		inode->size = 0;
		return 0;
	}
	if (!as_listed(&was, inode, &before)) {
		struct scan s = {.tree = t};

		tree_warn(t, inode->name, "is not what it was when it was listed; the image has it as it is now");
		inode->xattr = 0;
		r = scan_xattrs(&s, fd, NULL, inode);
		free(s.names);
		if (r < 0)
			return r;
	}
	inode->size = (uint64_t)before.st_size;
	if ((uint64_t)before.st_blocks * 512 >= inode->size)
		source.next_data = NULL;
	/* A file with real holes could be far larger than the disk: it is not stored whole. */
	else if (xip && lseek(fd, 0, SEEK_HOLE) < before.st_size)
		xip = false;
	r = pack_file(pack, inode, &source, xip);
	if (r == -EIO) {
		char buf[PATH_MAX];

		log_error("can't read %s: %s", tree_path(inode->name, buf, sizeof(buf)), strerror(-r));
	}
	if (r < 0)
		return r;
	if (fstat(fd, &after) < 0)
		return -errno;
	if (after.st_size != before.st_size || after.st_mtim.tv_sec != before.st_mtim.tv_sec ||
		after.st_mtim.tv_nsec != before.st_mtim.tv_nsec || inode->size != (uint64_t)before.st_size)
		tree_warn(t, inode->name, "changed while it was read; the image has what was read");
	return 0;
}

struct store {
	struct tree *tree;
	struct inode **files, **xip;
	size_t count, capacity, xip_count, xip_capacity;
	struct hash_table *order; /* inode → place in --sort=@LIST */
};

static bool is_elf(struct tree *t, const struct inode *inode)
{
	uint8_t head[64];
	_cleanup_close_ int fd = tree_open(t, inode->name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
	ssize_t n;

	if (fd < 0)
		return false;
	n = pread(fd, head, sizeof(head), 0);
	return n > 0 && elf_is_loadable(head, (size_t)n);
}

static int collect(struct inode *inode, void *context)
{
	struct store *s = context;
	const struct mkfs_options *o = s->tree->options;
	bool xip = xip_wanted(o, inode) ||
		(o->xip == XIP_AUTO && inode->size >= PINFS_PAGE_SIZE && is_elf(s->tree, inode));
	int r;

	if (mkfs_interrupted)
		return -EINTR;
	r = xip ? array_reserve(&s->xip, &s->xip_capacity, s->xip_count + 1, sizeof(*s->xip)) :
		  array_reserve(&s->files, &s->capacity, s->count + 1, sizeof(*s->files));
	if (r < 0)
		return r;
	if (xip)
		s->xip[s->xip_count++] = inode;
	else
		s->files[s->count++] = inode;
	return 0;
}

/* Keys are compared first; the order of the paths, in which the array comes, decides between equal ones. */
struct sort_item {
	struct inode *inode;
	const char *extension;
	uint64_t place;
	size_t index;
};

static int compare_items(const void *pa, const void *pb)
{
	const struct sort_item *a = pa, *b = pb;
	int c;

	if (a->place != b->place)
		return a->place < b->place ? -1 : 1;
	c = strcmp(a->extension, b->extension);
	if (c)
		return c;
	return a->index < b->index ? -1 : 1;
}

/* Only an order hangs on it: two paths with one hash share a place. */
static uint64_t path_hash(const char *p)
{
	uint64_t h = 14695981039346656037ull;

	for (; *p; p++)
		h = (h ^ (unsigned char)*p) * 1099511628211ull;
	return h;
}

static int build_order(struct store *s)
{
	const struct string_list *list = &s->tree->options->sort_list;
	struct hash_table *wanted = NULL;
	int r = 0;

	if (!list->count)
		return 0;
	s->order = hash_table_new();
	wanted = hash_table_new();
	if (!s->order || !wanted)
		r = -ENOMEM;
	for (size_t i = 0; r == 0 && i < list->count; i++) {
		const char *p = list->items[i];

		uint64_t h;

		while (*p == '/')
			p++;
		h = path_hash(p);
		if (!hash_table_get(wanted, h, 1))
			r = hash_table_put(wanted, h, 1, i + 1);
	}
	for (size_t k = 0; r == 0 && k < s->count; k++) {
		char buf[PATH_MAX];
		uint64_t place = hash_table_get(wanted, path_hash(tree_path(s->files[k]->name, buf, sizeof(buf)) + 1), 1);

		if (place)
			r = hash_table_put(s->order, (uint64_t)(uintptr_t)s->files[k], 0, place);
	}
	hash_table_free(wanted);
	return r;
}

static int sort_files(struct store *s)
{
	enum sort_order sort = s->tree->options->sort;
	_cleanup_free_ struct sort_item *items = NULL;
	int r = build_order(s);

	if (r < 0 || !s->count)
		return r;
	items = calloc(s->count, sizeof(*items));
	if (!items)
		return -ENOMEM;
	for (size_t i = 0; i < s->count; i++) {
		struct inode *f = s->files[i];
		const char *dot = strrchr(f->name->name, '.');
		uint64_t listed = s->order ? hash_table_get(s->order, (uint64_t)(uintptr_t)f, 0) : 0;

		items[i] = (struct sort_item){.inode = f, .extension = "", .index = i, .place = UINT64_MAX};
		if (listed)
			items[i].place = listed;
		else if (sort == SORT_SIZE)
			items[i].place = f->size + s->tree->options->sort_list.count + 1;
		else if (sort == SORT_EXTENSION && dot)
			items[i].extension = dot;
	}
	qsort(items, s->count, sizeof(*items), compare_items);
	for (size_t i = 0; i < s->count; i++)
		s->files[i] = items[i].inode;
	return 0;
}

static int by_size_descending(const void *pa, const void *pb)
{
	const struct inode *a = *(struct inode *const *)pa, *b = *(struct inode *const *)pb;

	if (a->size != b->size)
		return a->size > b->size ? -1 : 1;
	return a->ino < b->ino ? -1 : 1;
}

/*
 * Files of 2 MiB and more are aligned to 2 MiB; the gap after each is filled with the largest small ones that fit,
 * so that alignment costs little. The arrays are in path order, which makes the result reproducible.
 */
static int store_xip(struct store *s, struct pack *pack)
{
	size_t big = 0, small;
	uint64_t gap;
	int r = 0;

	for (size_t i = 0; i < s->xip_count; i++)
		s->xip[i]->ino = (uint32_t)i; /* not numbered yet: the tie breaker */
	if (s->xip_count)
		qsort(s->xip, s->xip_count, sizeof(*s->xip), by_size_descending);
	for (size_t i = 0; i < s->xip_count; i++)
		s->xip[i]->ino = 0;
	while (big < s->xip_count && s->xip[big]->size >= PINFS_HUGE_ALIGN)
		big++;
	small = big;
	for (size_t i = 0; r == 0 && i < big; i++) {
		r = store_one(s->tree, pack, s->xip[i], true);
		gap = align_up(s->xip[i]->size, PINFS_HUGE_ALIGN) - align_up(s->xip[i]->size, PINFS_PAGE_SIZE);
		for (size_t k = small; r == 0 && i + 1 < big && k < s->xip_count; k++) {
			struct inode *x = s->xip[k];

			if (!x || align_up(x->size, PINFS_PAGE_SIZE) > gap)
				continue;
			gap -= align_up(x->size, PINFS_PAGE_SIZE);
			r = store_one(s->tree, pack, x, true);
			s->xip[k] = NULL;
		}
	}
	for (size_t k = small; r == 0 && k < s->xip_count; k++)
		if (s->xip[k])
			r = store_one(s->tree, pack, s->xip[k], true);
	return r;
}

int scan_store(struct tree *t, struct pack *pack)
{
	struct store s = {.tree = t};
	int r = tree_for_each_file(t, collect, &s);

	if (r == 0)
		r = sort_files(&s);
	if (r == 0)
		r = store_xip(&s, pack);
	for (size_t i = 0; r == 0 && i < s.count; i++) {
		if (mkfs_interrupted)
			r = -EINTR;
		else if (s.files[i]->file.tiny)
			r = store_tiny(pack, s.files[i]);
		else
			r = store_one(t, pack, s.files[i], false);
	}
	free(s.files);
	free(s.xip);
	hash_table_free(s.order);
	return r;
}
