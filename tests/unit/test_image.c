/* SPDX-License-Identifier: MIT */
/* image: everything that mkfs.pinfs was given comes back through the decoder, for each way of storing it. */
#include "support.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/xattr.h>

#include "base/sync.h"
#include "image/image.h"

static char *source;

/* ---- the source tree ---- */

static int source_fd(const char *name)
{
	int dir = open(source, O_RDONLY | O_DIRECTORY | O_CLOEXEC), fd = openat(dir, name, O_RDWR | O_CREAT | O_CLOEXEC, 0644);

	assert_true(fd >= 0);
	close(dir);
	return fd;
}

static void make_file(const char *name, size_t len, bool text)
{
	struct rng rng = {len + text};
	uint8_t *data = malloc(len + 1);
	int fd = source_fd(name);

	assert_non_null(data);
	if (text)
		rng_text(&rng, data, len);
	else
		rng_bytes(&rng, data, len);
	assert_int_equal(write_all(fd, data, len), 0);
	close(fd);
	free(data);
}

static void make_sparse_files(void)
{
	static const struct {
		const char *name;
		off_t at[5], size;
	} files[] = {
		{"hole only", {-1}, 1ll << 30},
		{"hole in front", {9 << 20, -1}, 10 << 20},
		{"hole behind", {0, -1}, 10 << 20},
		{"islands", {4096, 1000000, 5 << 20, 7000001, -1}, (7 << 20) + 5},
		{"far end", {(1ll << 33) - 10, -1}, 1ll << 33},
	};
	uint8_t *zero = calloc(1, 300000);

	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		int fd = source_fd(files[i].name);

		for (size_t k = 0; k < 5 && files[i].at[k] >= 0; k++)
			assert_int_equal(pwrite_all(fd, "island", 6, (uint64_t)files[i].at[k]), 0);
		assert_int_equal(ftruncate(fd, files[i].size), 0);
		close(fd);
	}
	for (int small = 0; small < 2; small++) {
		int fd = source_fd(small ? "small zeros" : "zeros");

		assert_int_equal(write_all(fd, zero, small ? 100 : 300000), 0);
		close(fd);
	}
	free(zero);
}

static void make_special_files(int dir)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	char target[PINFS_SYMLINK_MAX + 1];
	int s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_int_equal(mkfifoat(dir, "fifo", 0640), 0);
	snprintf(address.sun_path, sizeof(address.sun_path), "%s/socket", source);
	assert_int_equal(bind(s, (struct sockaddr *)&address, sizeof(address)), 0);
	close(s);
	assert_int_equal(symlinkat("plain/../target", dir, "link"), 0);
	memset(target, 't', sizeof(target) - 1);
	target[sizeof(target) - 1] = 0;
	assert_int_equal(symlinkat(target, dir, "longest link"), 0);
	assert_int_equal(linkat(dir, "1000000", dir, "hard link", 0), 0);
	assert_int_equal(linkat(dir, "fifo", dir, "hard fifo", 0), 0);
	if (getuid() == 0) {
		assert_int_equal(mknodat(dir, "char", S_IFCHR | 0600, makedev(511, 1048575)), 0);
		assert_int_equal(mknodat(dir, "block", S_IFBLK | 0600, makedev(7, 3)), 0);
		assert_int_equal(fchownat(dir, "fifo", 4000000000u, 1, 0), 0);
	}
}

static void make_names(int dir)
{
	char name[PINFS_NAME_MAX + 1] = "x";
	int sub;

	assert_int_equal(mkdirat(dir, "names", 0711), 0);
	sub = openat(dir, "names", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	for (int c = 1; c < 256; c++) {
		name[0] = name[1] = (char)c;
		name[2] = 0;
		if (c != '/' && c != '.')
			close(openat(sub, name, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
	}
	memset(name, 0xff, PINFS_NAME_MAX);
	name[PINFS_NAME_MAX] = 0;
	close(openat(sub, name, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
	close(sub);
}

/* Directories whose number of entries lies around the points where lookups may restart. */
static const unsigned dir_sizes[] = {0, 1, 2, 31, 32, 33, 63, 64, 65, 95, 96, 97, 1000};

static void make_directories(int dir)
{
	char name[32];

	for (size_t i = 0; i < ARRAY_SIZE(dir_sizes); i++) {
		int sub;

		snprintf(name, sizeof(name), "dir %u", dir_sizes[i]);
		assert_int_equal(mkdirat(dir, name, 0755), 0);
		sub = openat(dir, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		for (unsigned k = 0; k < dir_sizes[i]; k++) {
			/* Odd numbers only, so that there is a name that is missing on both sides of each. */
			snprintf(name, sizeof(name), "n%06u", 2 * k + 1);
			close(openat(sub, name, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
		}
		close(sub);
	}
	for (int depth = 0, fd = dup(dir); depth < 200; depth++) {
		int sub;

		assert_int_equal(mkdirat(fd, "deep", 0755), 0);
		sub = openat(fd, "deep", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		close(fd);
		fd = sub;
		if (depth == 199)
			close(fd);
	}
}

static void make_attributes(int dir)
{
	static const struct {
		const char *name;
		time_t sec;
		long nsec;
	} times[] = {{"1", 0, 0}, {"100", -1, 999999999}, {"4095", -2000000000, 1}, {"4096", 4000000000, 123456789}};
	uint8_t *value = malloc(3000);
	struct rng rng = {9};
	int fd = source_fd("100");

	rng_bytes(&rng, value, 3000);
	/* Not on every filesystem; what is there is compared. */
	fsetxattr(fd, "user.empty", "", 0, 0);
	fsetxattr(fd, "user.big", value, 3000, 0);
	fsetxattr(fd, "user.ümläut", "\0\1\2", 3, 0);
	close(fd);
	fd = source_fd("4097");
	fsetxattr(fd, "user.same", "same", 4, 0);
	close(fd);
	fd = source_fd("4096");
	fsetxattr(fd, "user.same", "same", 4, 0);
	close(fd);
	free(value);
	assert_int_equal(fchmodat(dir, "4097", 07777, 0), 0);
	/* Only root can read what nobody may read. */
	assert_int_equal(fchmodat(dir, "4096", getuid() ? 0400 : 0, 0), 0);
	for (size_t i = 0; i < ARRAY_SIZE(times); i++) {
		const struct timespec t[2] = {{times[i].sec, times[i].nsec}, {times[i].sec, times[i].nsec}};

		assert_int_equal(utimensat(dir, times[i].name, t, 0), 0);
	}
}

static int setup(void **state)
{
	static const size_t sizes[] = {0, 1, 100, 4095, 4096, 4097, 8192, 131071, 131072, 131073, 1000000, 1 << 20,
		(3 << 20) + 17};
	char name[32];
	int dir;

	source = temp_path("source");
	assert_int_equal(mkdir(source, 0755), 0);
	dir = open(source, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		snprintf(name, sizeof(name), "%zu", sizes[i]);
		make_file(name, sizes[i], true);
		snprintf(name, sizeof(name), "random %zu", sizes[i]);
		make_file(name, sizes[i], false);
		snprintf(name, sizeof(name), "double %zu", sizes[i]);
		make_file(name, sizes[i], true);
	}
	for (unsigned i = 0; i < 300; i++) {
		snprintf(name, sizeof(name), "small %u", i);
		make_file(name, 13 * i, i % 3);
	}
	make_sparse_files();
	make_special_files(dir);
	make_names(dir);
	make_directories(dir);
	make_attributes(dir);
	close(dir);
	return 0;
}

static int teardown(void **state)
{
	free(source);
	return support_end(state);
}

/* ---- comparing ---- */

static void on_damage(void *context, uint64_t offset, const char *text)
{
	fprintf(stderr, "damage at byte %ju: %s\n", (uintmax_t)offset, text);
	++*(unsigned *)context;
}

static unsigned damages;

static struct image *open_image_with(const char *path, struct image_options options, const struct io_options *io_options)
{
	char error[IMAGE_ERROR_SIZE] = "";
	struct image *img;
	struct io_file *io;
	int r;

	options.on_damage = on_damage;
	options.context = &damages;
	damages = 0;
	assert_int_equal(io_open(path, io_options, &io), 0);
	r = image_open(io, &options, &img, error);
	if (r < 0)
		print_error("%s\n", error);
	assert_int_equal(r, 0);
	return img;
}

static struct image *open_image(const char *path)
{
	return open_image_with(path, (struct image_options){.offset = IMAGE_OFFSET_AUTO}, NULL);
}

/* The pieces of the map cover the file, one after another, and agree with what SEEK_DATA and SEEK_HOLE say. */
static void check_map(struct image *img, const struct image_inode *i)
{
	uint64_t at = 0, data, hole;

	while (at < i->size) {
		struct image_map m;

		assert_int_equal(image_map(img, i, at, &m), 0);
		assert_true(m.offset == at && m.length > 0 && m.length <= i->size - at);
		if (m.hole) {
			int r = image_seek(img, i, at, false, &data);

			assert_true(r == -ENXIO || (r == 0 && data >= at + m.length));
			assert_int_equal(image_seek(img, i, at, true, &hole), 0);
			assert_true(hole == at);
		} else {
			assert_int_equal(image_seek(img, i, at, false, &data), 0);
			assert_true(data == at);
			assert_int_equal(image_seek(img, i, at, true, &hole), 0);
			assert_true(hole >= at + m.length);
			assert_true(m.block < image_get_info(img)->block_count);
		}
		at += m.length;
	}
	assert_int_equal(image_seek(img, i, i->size, true, &hole), -ENXIO);
	assert_int_equal(image_seek(img, i, i->size, false, &hole), -ENXIO);
	if (i->size) {
		struct image_map m;

		assert_int_equal(image_map(img, i, i->size, &m), -EINVAL);
	}
}

static void check_bytes(struct image *img, const struct image_inode *i, int fd, uint64_t offset, size_t len)
{
	uint8_t *got = malloc(len + 1), *want = malloc(len + 1);
	size_t there = offset < i->size ? (size_t)MIN((uint64_t)len, i->size - offset) : 0;

	assert_non_null(got);
	assert_non_null(want);
	assert_int_equal(image_pread(img, i, got, len, offset), there);
	assert_int_equal(pread_all(fd, want, there, offset), 0);
	assert_memory_equal(got, want, there);
	free(got);
	free(want);
}

static void check_content(struct image *img, const struct image_inode *i, int dir, const char *name)
{
	int fd = openat(dir, name, O_RDONLY | O_CLOEXEC);
	struct rng rng = {i->ino};

	assert_true(fd >= 0);
	check_map(img, i);
	if (i->size <= 8 << 20) {
		check_bytes(img, i, fd, 0, i->size + 10);
	} else {
		/* Big ones are sparse: around their islands, and at the end. */
		for (off_t at = lseek(fd, 0, SEEK_DATA); at >= 0;) {
			check_bytes(img, i, fd, at > 5000 ? (uint64_t)at - 5000 : 0, 10000);
			at = lseek(fd, lseek(fd, at, SEEK_HOLE), SEEK_DATA);
		}
		check_bytes(img, i, fd, i->size - 5000, 10000);
	}
	for (unsigned k = 0; k < 5 && i->size; k++)
		check_bytes(img, i, fd, rng_below(&rng, i->size), 9000);
	close(fd);
}

static int compare_strings(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static void check_xattrs(struct image *img, const struct image_inode *i, const char *path)
{
	char names[2048], got_names[2048], value[4096], got[4096];
	ssize_t len = llistxattr(path, names, sizeof(names)), listed, total = 0;

	listed = image_xattr_list(img, i, got_names, sizeof(got_names));
	assert_true(listed >= 0);
	assert_int_equal(image_xattr_list(img, i, NULL, 0), listed);
	if (listed > 0)
		assert_int_equal(image_xattr_list(img, i, got_names, (size_t)listed - 1), -ERANGE);
	for (const char *p = names; len > 0 && p < names + len; p += strlen(p) + 1) {
		ssize_t n = lgetxattr(path, p, value, sizeof(value));

		if (n < 0)
			continue;
		total += (ssize_t)strlen(p) + 1;
		assert_int_equal(image_xattr_get(img, i, p, NULL, 0), n);
		assert_int_equal(image_xattr_get(img, i, p, got, sizeof(got)), n);
		assert_memory_equal(got, value, n);
		if (n > 1)
			assert_int_equal(image_xattr_get(img, i, p, got, (size_t)n - 1), -ERANGE);
	}
	assert_int_equal(listed, total);
	assert_int_equal(image_xattr_get(img, i, "user.not there", got, sizeof(got)), -ENODATA);
	assert_int_equal(image_xattr_get(img, i, "user", got, sizeof(got)), -ENODATA);
}

struct compared {
	struct image *img;
	unsigned inodes;
	uint64_t ino_a, ino_b; /* of a hard link's two names */
};

static void check_directory(struct compared *c, const struct image_inode *i, int parent, const char *name);

static void check_inode(struct compared *c, const struct image_inode *i, int dir, const char *name)
{
	char link[PINFS_SYMLINK_MAX + 2], got[PINFS_SYMLINK_MAX + 1], path[64 + PINFS_NAME_MAX];
	struct stat st;

	c->inodes++;
	assert_int_equal(fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW), 0);
	assert_int_equal(i->mode, st.st_mode);
	assert_int_equal(i->uid, st.st_uid);
	assert_int_equal(i->gid, st.st_gid);
	assert_true(i->mtime.tv_sec == st.st_mtim.tv_sec && i->mtime.tv_nsec == st.st_mtim.tv_nsec);
	snprintf(path, sizeof(path), "/proc/self/fd/%d/%s", dir, name);
	check_xattrs(c->img, i, path);
	if (!S_ISDIR(st.st_mode)) {
		assert_int_equal(i->nlink, st.st_nlink);
		assert_int_equal(i->size, st.st_size);
	}
	switch (st.st_mode & S_IFMT) {
	case S_IFREG:
		check_content(c->img, i, dir, name);
		break;
	case S_IFDIR:
		check_directory(c, i, dir, name);
		break;
	case S_IFLNK:
		assert_int_equal(readlinkat(dir, name, link, sizeof(link)), st.st_size);
		link[st.st_size] = 0;
		assert_int_equal(image_readlink(c->img, i, got), 0);
		assert_string_equal(got, link);
		break;
	case S_IFCHR:
	case S_IFBLK:
		assert_int_equal(makedev(i->arg0, i->arg1), st.st_rdev);
		break;
	}
	if (!S_ISLNK(st.st_mode))
		assert_int_equal(image_readlink(c->img, i, got), -EINVAL);
	if (!strcmp(name, "1000000"))
		c->ino_a = i->ino;
	if (!strcmp(name, "hard link"))
		c->ino_b = i->ino;
}

/* Names of a directory in the order of bytes. */
static char **list_source(int dir, size_t *ret_count)
{
	size_t count = 0, capacity = 0;
	char **names = NULL;
	DIR *d = fdopendir(dup(dir));
	struct dirent *e;

	assert_non_null(d);
	rewinddir(d);
	while ((e = readdir(d))) {
		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
			continue;
		assert_int_equal(array_reserve(&names, &capacity, count + 1, sizeof(*names)), 0);
		names[count++] = strdup(e->d_name);
	}
	closedir(d);
	if (count)
		qsort(names, count, sizeof(*names), compare_strings);
	*ret_count = count;
	return names;
}

static void check_directory(struct compared *c, const struct image_inode *i, int parent, const char *name)
{
	int dir = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	struct image_dirent e, found;
	struct image_dir_iter it;
	unsigned subdirs = 0;
	size_t count;
	char **names;

	assert_true(dir >= 0);
	names = list_source(dir, &count);
	assert_int_equal(i->arg0, count);
	assert_int_equal(image_dir_iter_begin(c->img, i, 0, &it), 0);
	for (size_t k = 0; k < count; k++) {
		struct image_inode child;

		assert_int_equal(image_dir_iter_next(&it, &e), 1);
		assert_int_equal(e.index, k);
		assert_string_equal(e.name, names[k]);
		assert_int_equal(e.name_len, strlen(names[k]));
		assert_int_equal(image_dir_lookup(c->img, i, names[k], strlen(names[k]), &found), 0);
		assert_int_equal(found.ino, e.ino);
		assert_int_equal(image_dir_child(c->img, i, &e, &child), 0);
		check_inode(c, &child, dir, names[k]);
		subdirs += S_ISDIR(child.mode);
		free(names[k]);
	}
	free(names);
	assert_int_equal(image_dir_iter_next(&it, &e), 0);
	assert_int_equal(image_dir_iter_next(&it, &e), 0);
	image_dir_iter_end(&it);
	assert_int_equal(i->nlink, 2 + subdirs);
	close(dir);
}

/* Compares the whole image with the source tree. */
static void check_image(struct image *img)
{
	struct compared c = {.img = img};
	struct image_inode root;

	assert_int_equal(image_inode_get(img, PINFS_ROOT_INO, &root), 0);
	assert_int_equal(root.arg1, PINFS_ROOT_INO);
	check_inode(&c, &root, AT_FDCWD, source);
	assert_true(c.inodes > 1500);
	assert_true(c.ino_a && c.ino_a == c.ino_b);
	assert_int_equal(image_inode_get(img, 0, &root), -ENOENT);
	assert_int_equal(image_inode_get(img, image_get_info(img)->inode_count + 1, &root), -ENOENT);
	assert_int_equal(image_inode_get(img, UINT64_MAX, &root), -ENOENT);
	assert_int_equal(image_super_check(img, false), 0);
	assert_int_equal(image_super_check(img, true), 0);
	assert_int_equal(damages, 0);
}

static void check_made_with(const char *a, const char *b, const char *c)
{
	_cleanup_free_ char *path = temp_path("image");
	struct image *img;
	int r = !a ? mkfs(source, path, NULL) : !b ? mkfs(a, source, path, NULL) :
		!c				      ? mkfs(a, b, source, path, NULL) :
							mkfs(a, b, c, source, path, NULL);

	assert_int_equal(r, 0);
	img = open_image(path);
	check_image(img);
	image_close(img);
}

static void the_default_image_is_the_tree(void **state)
{
	check_made_with(NULL, NULL, NULL);
}

static void small_blocks_uncompressed_are_the_tree(void **state)
{
	check_made_with("-b4K", "-znone", NULL);
}

static void big_blocks_with_lz4hc_are_the_tree(void **state)
{
	check_made_with("-b1M", "-zlz4hc,3", NULL);
}

/* All but what begins with f or h: a file in place has no holes, and "far end" would take 8 GiB. */
#define XIP_MOST "--xip=[!fh]*"

static void all_in_place_is_the_tree(void **state)
{
	check_made_with(XIP_MOST, "-b64K", NULL);
}

static void without_sharing_and_packing_it_is_the_tree(void **state)
{
	check_made_with("--no-dedup", "--no-pack", "-b8K");
}

static void sorted_by_size_it_is_the_tree(void **state)
{
	check_made_with("--sort=size", "-j3", "-b16K");
}

static void the_tree_comes_through_every_engine(void **state)
{
	static const struct io_options engines[] = {
		{.engine = IO_ENGINE_PREAD, .caching = IO_CACHING_BUFFERED},
		{.engine = IO_ENGINE_PREAD, .caching = IO_CACHING_AUTO, .lanes = 1},
		{.engine = IO_ENGINE_AUTO, .caching = IO_CACHING_BUFFERED, .lanes = 1},
		{.engine = IO_ENGINE_AUTO, .caching = IO_CACHING_AUTO},
	};
	_cleanup_free_ char *path = temp_path("image");

	assert_int_equal(mkfs("-b32K", source, path, NULL), 0);
	for (size_t i = 0; i < ARRAY_SIZE(engines); i++) {
		struct image *img = open_image_with(path, (struct image_options){0}, &engines[i]);

		check_image(img);
		image_close(img);
	}
}

static void a_tiny_metadata_cache_only_costs_time(void **state)
{
	_cleanup_free_ char *path = temp_path("image");
	struct image *img;

	assert_int_equal(mkfs(source, path, NULL), 0);
	img = open_image_with(path, (struct image_options){.metadata_cache = 1}, NULL);
	check_image(img);
	image_close(img);
}

/* ---- directories ---- */

static struct image_inode find(struct image *img, const char *name)
{
	struct image_inode root, i;
	struct image_dirent e;

	assert_int_equal(image_inode_get(img, PINFS_ROOT_INO, &root), 0);
	assert_int_equal(image_dir_lookup(img, &root, name, strlen(name), &e), 0);
	assert_int_equal(image_dir_child(img, &root, &e, &i), 0);
	return i;
}

static void names_are_found_and_missed_at_each_restart(void **state)
{
	_cleanup_free_ char *path = temp_path("image");
	struct image *img;

	assert_int_equal(mkfs(source, path, NULL), 0);
	img = open_image(path);
	for (size_t i = 0; i < ARRAY_SIZE(dir_sizes); i++) {
		char name[PINFS_NAME_MAX + 2];
		struct image_inode dir;
		struct image_dirent e;

		snprintf(name, sizeof(name), "dir %u", dir_sizes[i]);
		dir = find(img, name);
		for (unsigned k = 0; k <= 2 * dir_sizes[i] + 1; k++) {
			int want = k % 2 && k < 2 * dir_sizes[i] ? 0 : -ENOENT;

			snprintf(name, sizeof(name), "n%06u", k);
			assert_int_equal(image_dir_lookup(img, &dir, name, 7, &e), want);
			/* Neither what begins like it nor what it begins with. */
			assert_int_equal(image_dir_lookup(img, &dir, name, 6, &e), -ENOENT);
			name[7] = 0;
			assert_int_equal(image_dir_lookup(img, &dir, name, 8, &e), -ENOENT);
		}
		assert_int_equal(image_dir_lookup(img, &dir, "", 0, &e), -ENOENT);
		assert_int_equal(image_dir_lookup(img, &dir, ".", 1, &e), -ENOENT);
		assert_int_equal(image_dir_lookup(img, &dir, "\xff\xff", 2, &e), -ENOENT);
		assert_int_equal(image_dir_lookup(img, &dir, "\1", 1, &e), -ENOENT);
		memset(name, 'n', sizeof(name));
		assert_int_equal(image_dir_lookup(img, &dir, name, PINFS_NAME_MAX, &e), -ENOENT);
		assert_int_equal(image_dir_lookup(img, &dir, name, PINFS_NAME_MAX + 1, &e), -ENAMETOOLONG);
	}
	assert_int_equal(damages, 0);
	image_close(img);
}

static void a_walk_may_begin_anywhere(void **state)
{
	_cleanup_free_ char *path = temp_path("image");
	struct image_inode file;
	struct image_dir_iter it;
	struct image_dirent e;
	struct image *img;

	assert_int_equal(mkfs(source, path, NULL), 0);
	img = open_image(path);
	for (size_t i = 0; i < ARRAY_SIZE(dir_sizes); i++) {
		struct image_inode dir;
		char name[32];

		snprintf(name, sizeof(name), "dir %u", dir_sizes[i]);
		dir = find(img, name);
		for (unsigned start = 0; start <= dir_sizes[i] + 2; start++) {
			unsigned k = start;

			assert_int_equal(image_dir_iter_begin(img, &dir, start, &it), 0);
			while (image_dir_iter_next(&it, &e) == 1) {
				snprintf(name, sizeof(name), "n%06u", 2 * k + 1);
				assert_string_equal(e.name, name);
				assert_int_equal(e.index, k);
				k++;
				/* Ending gives back memory, not the place. */
				if (k % 5 == 0)
					image_dir_iter_end(&it);
			}
			assert_int_equal(k, MAX(start, dir_sizes[i]));
			image_dir_iter_end(&it);
			image_dir_iter_end(&it);
		}
		assert_int_equal(image_dir_iter_begin(img, &dir, UINT64_MAX, &it), 0);
		assert_int_equal(image_dir_iter_next(&it, &e), 0);
		image_dir_iter_end(&it);
	}
	file = find(img, "100");
	assert_int_equal(image_dir_iter_begin(img, &file, 0, &it), -ENOTDIR);
	assert_int_equal(image_dir_lookup(img, &file, "x", 1, &e), -ENOTDIR);
	assert_int_equal(damages, 0);
	image_close(img);
}

#define MANY 200000u

static void two_hundred_thousand_names_are_all_found(void **state)
{
	_cleanup_free_ char *path = temp_path("image"), *tree = temp_path("many");
	struct image_inode root;
	struct image_dir_iter it;
	struct image_dirent e;
	struct image *img;
	char name[32];
	unsigned seen = 0;
	int dir;

	assert_int_equal(mkdir(tree, 0755), 0);
	dir = open(tree, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	for (unsigned i = 0; i < MANY; i++) {
		snprintf(name, sizeof(name), "%u", i * 2);
		assert_int_equal(mknodat(dir, name, S_IFREG | 0600, 0), 0);
	}
	close(dir);
	assert_int_equal(mkfs(tree, path, NULL), 0);
	remove_tree(tree);
	img = open_image(path);
	assert_int_equal(image_inode_get(img, PINFS_ROOT_INO, &root), 0);
	for (unsigned i = 0; i < MANY * 2 + 2; i++) {
		int n = snprintf(name, sizeof(name), "%u", i);

		assert_int_equal(image_dir_lookup(img, &root, name, (size_t)n, &e),
			i % 2 == 0 && i < MANY * 2 ? 0 : -ENOENT);
	}
	assert_int_equal(image_dir_iter_begin(img, &root, 0, &it), 0);
	for (char last[32] = ""; image_dir_iter_next(&it, &e) == 1; seen++) {
		assert_true(strcmp(last, e.name) < 0);
		strcpy(last, e.name);
	}
	image_dir_iter_end(&it);
	assert_int_equal(seen, MANY);
	assert_int_equal(damages, 0);
	image_close(img);
}

/* ---- where the image lies ---- */

static void an_image_behind_something_else_is_found(void **state)
{
	_cleanup_free_ char *path = temp_path("image"), *front = temp_path("front");
	static const size_t sizes[] = {1, 4096, 4097, 3 << 20};
	uint8_t *junk = malloc(3 << 20);
	struct rng rng = {11};

	rng_bytes(&rng, junk, 3 << 20);
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		_cleanup_free_ char *option = NULL;
		uint64_t base = align_up(sizes[i], PINFS_PAGE_SIZE);
		char error[IMAGE_ERROR_SIZE];
		struct image_options wrong = {.offset = base + PINFS_PAGE_SIZE};
		struct image *img;
		struct io_file *io;

		write_file(front, junk, sizes[i]);
		assert_true(asprintf(&option, "--prepend=%s", front) > 0);
		assert_int_equal(mkfs(option, XIP_MOST, source, path, NULL), 0);
		img = open_image(path);
		assert_int_equal(image_get_info(img)->offset, base);
		if (i == 2)
			check_image(img);
		image_close(img);
		img = open_image_with(path, (struct image_options){.offset = base}, NULL);
		image_close(img);
		/* Something is appended: no trailer at the end any more, but the first superblock is near the beginning. */
		{
			int fd = open(path, O_WRONLY | O_APPEND | O_CLOEXEC);

			assert_int_equal(write_all(fd, junk, 5000), 0);
			close(fd);
		}
		img = open_image(path);
		assert_int_equal(image_get_info(img)->offset, base);
		image_close(img);
		assert_int_equal(io_open(path, NULL, &io), 0);
		assert_int_equal(image_open(io, &wrong, &img, error), -EMEDIUMTYPE);
		io_close(io);
	}
	free(junk);
}

static void files_in_place_lie_there_page_aligned(void **state)
{
	_cleanup_free_ char *path = temp_path("image");
	struct image_inode i, last;
	uint64_t offset;
	struct image *img;
	size_t len;
	uint8_t *bytes;

	assert_int_equal(mkfs(XIP_MOST, source, path, NULL), 0);
	img = open_image(path);
	bytes = read_file(path, &len);
	i = find(img, "3145745");
	assert_true(i.xip);
	assert_int_equal(image_xip_offset(img, &i, &offset), 0);
	assert_int_equal(offset % PINFS_HUGE_ALIGN, 0);
	i = find(img, "131073");
	assert_int_equal(image_xip_offset(img, &i, &offset), 0);
	assert_int_equal(offset % PINFS_PAGE_SIZE, 0);
	for (uint64_t at = 0; at < i.size; at += 4096) {
		uint8_t block[4096];
		ssize_t n = image_pread(img, &i, block, sizeof(block), at);

		assert_true(n > 0);
		assert_memory_equal(bytes + offset + at, block, n);
	}
	/* What is mapped with the last page is zero. */
	for (uint64_t at = i.size; at % PINFS_PAGE_SIZE; at++)
		assert_int_equal(bytes[offset + at], 0);
	last = find(img, "dir 0");
	assert_int_equal(image_xip_offset(img, &last, &offset), -EINVAL);
	free(bytes);
	image_close(img);
}

/* ---- threads ---- */

struct crowd {
	struct image *img;
	uint64_t sum; /* what one thread alone found */
	unsigned start;
};

/* Goes through all inodes from `start` on, and adds up what it sees. */
static uint64_t read_all(struct image *img, unsigned start)
{
	uint64_t count = image_get_info(img)->inode_count, sum = 0;
	uint8_t *buf = malloc(65536);

	for (uint64_t n = 0; n < count; n++) {
		struct image_inode i;
		ssize_t got;

		must(image_inode_get(img, 1 + (start + n) % count, &i) == 0);
		sum += i.ino * i.size + i.mode;
		if (S_ISDIR(i.mode)) {
			struct image_dirent e, found;
			struct image_dir_iter it;

			must(image_dir_iter_begin(img, &i, 0, &it) == 0);
			while (image_dir_iter_next(&it, &e) == 1) {
				must(image_dir_lookup(img, &i, e.name, e.name_len, &found) == 0 && found.ino == e.ino);
				sum += e.ino;
			}
			image_dir_iter_end(&it);
		}
		if (!S_ISREG(i.mode))
			continue;
		got = image_pread(img, &i, buf, 65536, i.size / 2);
		must(got >= 0);
		for (ssize_t k = 0; k < got; k += 97)
			sum += buf[k];
	}
	free(buf);
	return sum;
}

static void *crowd_main(void *arg)
{
	struct crowd *c = arg;

	must(read_all(c->img, c->start) == c->sum);
	return NULL;
}

static void many_threads_read_one_image(void **state)
{
	_cleanup_free_ char *path = temp_path("image");
	struct crowd crowd[8];
	pthread_t t[8];
	struct image *img;
	uint64_t sum;

	assert_int_equal(mkfs("-b16K", source, path, NULL), 0);
	/* A cache so small that chunks go while others use them. */
	img = open_image_with(path, (struct image_options){.metadata_cache = 1}, NULL);
	sum = read_all(img, 0);
	for (unsigned i = 0; i < ARRAY_SIZE(t); i++) {
		crowd[i] = (struct crowd){img, sum, i * 211};
		assert_int_equal(thread_start(&t[i], crowd_main, &crowd[i]), 0);
	}
	for (unsigned i = 0; i < ARRAY_SIZE(t); i++)
		pthread_join(t[i], NULL);
	image_close(img);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_default_image_is_the_tree),
		cmocka_unit_test(small_blocks_uncompressed_are_the_tree),
		cmocka_unit_test(big_blocks_with_lz4hc_are_the_tree),
		cmocka_unit_test(all_in_place_is_the_tree),
		cmocka_unit_test(without_sharing_and_packing_it_is_the_tree),
		cmocka_unit_test(sorted_by_size_it_is_the_tree),
		cmocka_unit_test(the_tree_comes_through_every_engine),
		cmocka_unit_test(a_tiny_metadata_cache_only_costs_time),
		cmocka_unit_test(names_are_found_and_missed_at_each_restart),
		cmocka_unit_test(a_walk_may_begin_anywhere),
		cmocka_unit_test(two_hundred_thousand_names_are_all_found),
		cmocka_unit_test(an_image_behind_something_else_is_found),
		cmocka_unit_test(files_in_place_lie_there_page_aligned),
		cmocka_unit_test(many_threads_read_one_image),
	};

	return cmocka_run_group_tests_name("image", tests, setup, teardown);
}
