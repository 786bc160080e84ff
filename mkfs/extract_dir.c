/* SPDX-License-Identifier: MIT */
/*
 * The directories of the target. The rules that keep everything inside it:
 *
 * 1. A directory is opened by one name, relative to the descriptor of its parent, with O_NOFOLLOW and O_DIRECTORY.
 *    Only the target itself is opened by the user's path.
 * 2. One that is opened again (descriptors are bounded) must have the device and inode number of the first time.
 * 3. Names come from the image's decoder, which lets no "..", "." or slash pass.
 */
#include "mkfs/extract_internal.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/xattr.h>

#define DIR_FLAGS (O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
#define SLOTS_MIN 16u
#define SLOTS_MAX 256u

static size_t slots_wanted(const struct extract *x)
{
	/* Lanes of the image, files that are being written, and what the process has open anyway. */
	uint64_t others = 64 + 2 * tool_cpus() + 8 * (uint64_t)x->threads_wanted;
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur <= others + 2 * SLOTS_MIN)
		return SLOTS_MIN;
	return (size_t)MIN((limit.rlim_cur - others) / 2, (rlim_t)SLOTS_MAX);
}

static int dir_new(struct extract *x, struct extract_dir *parent, const char *name, size_t len, uint32_t ino,
	struct extract_dir **ret)
{
	struct extract_dir *d = calloc(1, sizeof(*d) + len + 1);

	if (!d)
		return -ENOMEM;
	d->parent = parent;
	d->fd = -1;
	d->ino = ino;
	d->name_len = (uint8_t)len;
	memcpy(d->name, name, len);
	*ret = d;
	return 0;
}

static void dir_publish(struct extract *x, struct extract_dir *d)
{
	d->older = x->newest;
	x->newest = d;
}

/* Takes from the descriptor what has to be known of a directory. created: by us, just now. */
static int dir_learn(struct extract *x, struct extract_dir *d, int fd, bool created)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return -errno;
	d->dev = st.st_dev;
	d->dev_ino = st.st_ino;
	if (created && d->parent && d->parent->default_acl) {
		fremovexattr(fd, "system.posix_acl_default");
		fremovexattr(fd, "system.posix_acl_access");
	} else if (!created) {
		d->existed = true;
		d->default_acl = fgetxattr(fd, "system.posix_acl_default", NULL, 0) > 0;
		/* Owned by us but read-only, as an earlier run has left it: it gets its mode again at the end. */
		if (d->apply && st.st_uid == x->uid && (st.st_mode & 0700) != 0700)
			fchmod(fd, (st.st_mode & 07777) | 0700);
	}
	/* With S_ISGID, or on a filesystem that is mounted with grpid, files get the directory's group. */
	d->plain = !d->default_acl && !(st.st_mode & S_ISGID) && st.st_gid == x->gid;
	return 0;
}

/* Whether the target has nothing in it. */
static bool dir_empty(int fd)
{
	int copy = openat(fd, ".", DIR_FLAGS);
	DIR *dir = copy < 0 ? NULL : fdopendir(copy);
	const struct dirent *e;
	bool empty = dir;

	if (!dir) {
		if (copy >= 0)
			close(copy);
		return false;
	}
	while (empty && (e = readdir(dir)))
		empty = !strcmp(e->d_name, ".") || !strcmp(e->d_name, "..");
	closedir(dir);
	return empty;
}

int extract_dir_open_root(struct extract *x, bool selected)
{
	const char *target = x->options->target;
	bool created = mkdir(target, selected ? 0700 : 0777 & ~x->umask) == 0;
	struct extract_dir *d;
	int fd, r;

	if (!created && errno != EEXIST) {
		r = -errno;
		log_error("can't make %s: %s%s", target, strerror(-r),
			r == -ENOENT ? "; the directory above it must exist" : "");
		return r;
	}
	/* Here a symbolic link may be followed: the user has named it. */
	fd = open(target, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0) {
		r = -errno;
		log_error("can't open directory %s: %s", target, strerror(-r));
		return r;
	}
	x->slot_count = slots_wanted(x);
	x->slots = calloc(x->slot_count, sizeof(*x->slots));
	r = x->slots ? dir_new(x, NULL, "", 0, PINFS_ROOT_INO, &d) : -ENOMEM;
	if (r < 0) {
		close(fd);
		log_error("out of memory");
		return r;
	}
	/* Whoever unpacks into /tmp or "." doesn't expect that to change; who made an empty one for this does. */
	d->apply = selected && (created || dir_empty(fd));
	r = dir_learn(x, d, fd, created);
	d->fd = fd;
	x->root = d;
	dir_publish(x, d);
	if (r < 0)
		log_error("can't look at directory %s: %s", target, strerror(-r));
	return r;
}

void extract_dir_free_all(struct extract *x)
{
	while (x->newest) {
		struct extract_dir *d = x->newest;

		x->newest = d->older;
		if (d->fd >= 0)
			close(d->fd);
		free(d);
	}
	free(x->slots);
	x->slots = NULL;
}

/* A free slot, found by the clock; waits for the workers when they use all of them. */
static int slot_take(struct extract *x, struct extract_dir ***ret)
{
	do {
		for (size_t n = 0; n < 2 * x->slot_count; n++) {
			struct extract_dir **slot = &x->slots[x->hand], *d = *slot;

			x->hand = (x->hand + 1) % x->slot_count;
			if (d && atomic_load_explicit(&d->users, memory_order_acquire))
				continue;
			if (d && d->visited) {
				d->visited = false;
				continue;
			}
			if (d) {
				close(d->fd);
				d->fd = -1;
				*slot = NULL;
			}
			*ret = slot;
			return 0;
		}
	} while (extract_file_wait_some(x));
	return -EMFILE;
}

static void slot_fill(struct extract_dir **slot, struct extract_dir *d, int fd)
{
	*slot = d;
	d->fd = fd;
	d->visited = true;
}

/* Opens again a directory whose parent has a user. */
static int dir_reopen(struct extract *x, struct extract_dir *d)
{
	struct extract_dir **slot;
	struct stat st;
	int fd, r;

	r = slot_take(x, &slot);
	if (r < 0)
		return r;
	fd = openat(d->parent->fd, d->name, DIR_FLAGS);
	if (fd < 0)
		return errno == ELOOP || errno == ENOTDIR || errno == ENOENT ? -ESTALE : -errno;
	if (fstat(fd, &st) < 0 || st.st_dev != d->dev || st.st_ino != d->dev_ino) {
		close(fd);
		return -ESTALE;
	}
	slot_fill(slot, d, fd);
	return 0;
}

int extract_dir_get(struct extract *x, struct extract_dir *dir)
{
	_cleanup_free_ struct extract_dir **way = NULL;
	size_t depth = 0, capacity = 0;
	struct extract_dir *at = dir;
	int r = 0;

	for (; at->fd < 0; at = at->parent) {
		r = array_reserve(&way, &capacity, depth + 1, sizeof(struct extract_dir *));
		if (r < 0)
			return r;
		way[depth++] = at;
	}
	extract_dir_dup(at);
	while (depth && r == 0) {
		struct extract_dir *next = way[--depth];

		r = extract_stopped(x) ? -EINTR : dir_reopen(x, next);
		if (r == 0)
			extract_dir_dup(next);
		extract_dir_put(at);
		at = next;
	}
	dir->visited = true;
	return r;
}

void extract_dir_put(struct extract_dir *dir)
{
	atomic_fetch_sub_explicit(&dir->users, 1, memory_order_release);
}

void extract_dir_dup(struct extract_dir *dir)
{
	atomic_fetch_add_explicit(&dir->users, 1, memory_order_relaxed);
}

int extract_dir_clear_way(struct extract *x, struct extract_dir *dir, const char *name)
{
	if (!x->options->force)
		return -EEXIST;
	if (unlinkat(dir->fd, name, 0) == 0 || errno == ENOENT)
		return 0;
	if (errno != EISDIR && errno != EPERM)
		return -errno;
	return unlinkat(dir->fd, name, AT_REMOVEDIR) == 0 || errno == ENOENT ? 0 : -errno;
}

/* A directory of an earlier run, whose mode locks out even its owner. */
static int dir_unlock(const struct extract *x, const struct extract_dir *parent, const char *name)
{
	_cleanup_close_ int path = openat(parent->fd, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	char proc[32];
	struct stat st;
	int fd;

	if (path < 0 || fstat(path, &st) < 0)
		return -errno;
	snprintf(proc, sizeof(proc), "/proc/self/fd/%d", path);
	if (st.st_uid != x->uid || chmod(proc, (st.st_mode & 07777) | 0700) < 0)
		return -EACCES;
	fd = openat(parent->fd, name, DIR_FLAGS);
	return fd < 0 ? -errno : fd;
}

/* parent has a user. *ret_created: it was not there before. Returns a descriptor or -errno. */
static int dir_create(struct extract *x, struct extract_dir *parent, const char *name, bool *ret_created)
{
	bool created = mkdirat(parent->fd, name, 0700) == 0;
	int fd, r;

	if (!created && errno != EEXIST)
		return -errno;
	fd = openat(parent->fd, name, DIR_FLAGS);
	if (fd < 0 && !created && (errno == ELOOP || errno == ENOTDIR)) {
		/* A file or a symbolic link; that one is replaced at most, never followed. */
		r = extract_dir_clear_way(x, parent, name);
		if (r < 0)
			return r;
		if (mkdirat(parent->fd, name, 0700) < 0)
			return -errno;
		created = true;
		fd = openat(parent->fd, name, DIR_FLAGS);
	}
	*ret_created = created;
	if (fd < 0 && errno == EACCES && x->options->force)
		return dir_unlock(x, parent, name);
	return fd < 0 ? -errno : fd;
}

int extract_dir_make(struct extract *x, struct extract_dir *parent, const char *name, size_t len,
	const struct image_inode *inode, bool selected, struct extract_dir **ret)
{
	struct extract_dir **slot, *d = NULL;
	bool created = false;
	int fd = -1, r;

	r = dir_new(x, parent, name, len, inode->ino, &d);
	if (r == 0)
		r = extract_dir_get(x, parent);
	if (r < 0)
		goto fail;
	r = slot_take(x, &slot);
	if (r == 0)
		r = fd = dir_create(x, parent, name, &created);
	if (r >= 0) {
		d->apply = created || selected;
		r = dir_learn(x, d, fd, created);
		if (r < 0)
			close(fd);
	}
	extract_dir_put(parent);
	if (r < 0)
		goto fail;
	slot_fill(slot, d, fd);
	dir_publish(x, d);
	extract_count(&x->stats.directories, 1);
	*ret = d;
	return 0;
fail:
	if (r != -EINTR)
		extract_fail(x, parent, name, "make directory", r);
	free(d);
	return r;
}

void extract_dir_apply_all(struct extract *x)
{
	for (struct extract_dir *d = x->newest; d; d = d->older) {
		struct image_inode inode;
		int r;

		/* After an interruption too, the target shall not stay closed to all others. */
		if (!d->apply || (d->parent && extract_stopped(x)))
			continue;
		r = image_inode_get(x->image, d->ino, &inode);
		if (r == 0)
			r = extract_dir_get(x, d);
		if (r < 0) {
			if (r != -EINTR)
				extract_fail(x, d, NULL, "set the attributes of", r);
			continue;
		}
		extract_meta_apply(x, d->fd, false, d, NULL, &inode);
		extract_dir_put(d);
	}
}
