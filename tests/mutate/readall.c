/* SPDX-License-Identifier: MIT */
/*
 * Reads everything in an image, with the image library or through a mount, and prints each fact as one line:
 *
 *	KIND <tab> PATH[ @OFFSET | NAME] <tab> VALUE, or "error" and why
 *
 *	inode   type, permissions, owner, size, times, links, number
 *	data    hash of 64 KiB of the content, at each offset that is not in a hole
 *	names   number of names in a directory, after all of them could be read
 *	look    inode number by path, for the paths of --paths: "missing" is a fact, and a wrong one where a name was
 *	link    target;  xattrs: names;  xattr: hash of one value
 *
 * tests/mutate/mutate.py compares these lines with those of the image before it was damaged: each must be the same or
 * an error.
 */
#include <dirent.h>
#include <fcntl.h>
#include <getopt.h>
#include <sys/xattr.h>
#include <sys/sysmacros.h>

#include "base/util.h"
#include "codec/codec.h"
#include "image/image.h"

#define PIECE (64u << 10)

static bool no_verify; /* ignore checksums: for the test of the test */
static bool portable; /* leave out what a copy of the tree does not have: inode numbers, sizes of directories */
static FILE *write_paths;

/* ---- lines ---- */

static void key(const char *kind, const char *path)
{
	size_t len = strlen(path), size = 4 * len + 5;
	_cleanup_free_ char *text = malloc(size);

	if (!text)
		abort();
	printf("%s\t%s", kind, len ? name_escape(path, len, text, size) : "/");
}

static void fact_error(const char *kind, const char *path, int error)
{
	key(kind, path);
	printf("\terror %s\n", strerror(-error));
}

static void print_hash(const void *data, size_t len)
{
	struct codec_hash128 h = codec_hash128(data, len);

	printf("\t%016jx%016jx %zu\n", (uintmax_t)h.high, (uintmax_t)h.low, len);
}

static void fact_data(const char *path, uint64_t offset, const void *data, ssize_t n)
{
	key("data", path);
	printf(" @%ju", (uintmax_t)offset);
	if (n < 0)
		printf("\terror %s\n", strerror((int)-n));
	else
		print_hash(data, (size_t)n);
}

static void fact_text(const char *kind, const char *path, const char *text, size_t len)
{
	_cleanup_free_ char *escaped = malloc(4 * len + 5);

	if (!escaped)
		abort();
	key(kind, path);
	printf("\t%s\n", len ? name_escape(text, len, escaped, 4 * len + 5) : "");
}

static void fact_xattr(const char *path, const char *name, const void *value, ssize_t n)
{
	char escaped[4 * PINFS_XATTR_NAME_MAX + 5];

	key("xattr", path);
	printf(" %s", name_escape(name, strlen(name), escaped, sizeof(escaped)));
	if (n < 0)
		printf("\terror %s\n", strerror((int)-n));
	else
		print_hash(value, (size_t)n);
}

struct facts {
	mode_t mode;
	uint64_t ino, size, nlink;
	uint32_t uid, gid, major, minor;
	struct timespec mtime;
};

static void fact_inode(const char *path, const struct facts *f)
{
	bool dir = S_ISDIR(f->mode);

	if (write_paths)
		fwrite(path, 1, strlen(path) + 1, write_paths);
	key("inode", path);
	printf("\tmode %o uid %u gid %u mtime %jd.%09ld", f->mode, f->uid, f->gid, (intmax_t)f->mtime.tv_sec,
		f->mtime.tv_nsec);
	if (!portable)
		printf(" ino %ju", (uintmax_t)f->ino);
	if (!portable || !dir)
		printf(" nlink %ju size %ju", (uintmax_t)f->nlink, (uintmax_t)f->size);
	if (S_ISCHR(f->mode) || S_ISBLK(f->mode))
		printf(" device %u:%u", f->major, f->minor);
	putchar('\n');
}

static void fact_look(const char *path, int r, uint64_t ino)
{
	if (r < 0 && r != -ENOENT) {
		fact_error("look", path, r);
		return;
	}
	key("look", path);
	if (r < 0)
		printf("\tmissing\n");
	else
		printf("\t%ju\n", (uintmax_t)ino);
}

static char *join(const char *dir, const char *name)
{
	char *path;

	if (asprintf(&path, "%s/%s", dir, name) < 0)
		abort();
	return path;
}

/* Calls fn(path) for each path of a file written with --write-paths. */
static int for_each_path(const char *file, void (*fn)(const char *path, void *context), void *context)
{
	FILE *f = fopen(file, "r");
	char *line = NULL;
	size_t size = 0;

	if (!f) {
		fprintf(stderr, "readall: %s: %s\n", file, strerror(errno));
		return -1;
	}
	while (getdelim(&line, &size, 0, f) > 0)
		fn(line, context);
	free(line);
	fclose(f);
	return 0;
}

/* ---- by the image library ---- */

/* Not on the stack: directories may be some thousands deep. */
static uint8_t piece[PIECE], value[PINFS_XATTR_VALUE_MAX];
static char list[1u << 20], target[PINFS_SYMLINK_MAX + 1];

static void image_content(struct image *img, const char *path, const struct image_inode *i)
{
	uint64_t at = 0;

	while (at < i->size) {
		int r = image_seek(img, i, at, false, &at);

		if (r == -ENXIO)
			return;
		if (r < 0) {
			fact_data(path, at, NULL, r);
			return;
		}
		at = align_down(at, PIECE);
		fact_data(path, at, piece, image_pread(img, i, piece, PIECE, at));
		at += PIECE;
	}
}

static void image_attributes(struct image *img, const char *path, const struct image_inode *i)
{
	ssize_t n = image_xattr_list(img, i, list, sizeof(list));

	if (n < 0) {
		fact_error("xattrs", path, (int)n);
		return;
	}
	if (n)
		fact_text("xattrs", path, list, (size_t)n);
	for (const char *p = list; p < list + n; p += strlen(p) + 1)
		fact_xattr(path, p, value, image_xattr_get(img, i, p, value, sizeof(value)));
}

static void image_dir(struct image *img, const char *path, const struct image_inode *dir);

static void image_one(struct image *img, const char *path, const struct image_inode *i)
{
	bool device = S_ISCHR(i->mode) || S_ISBLK(i->mode);

	fact_inode(path, &(struct facts){
		.mode = i->mode, .ino = i->ino, .size = i->size, .nlink = i->nlink, .uid = i->uid, .gid = i->gid,
		.major = device ? i->arg0 : 0, .minor = device ? i->arg1 : 0, .mtime = i->mtime});
	image_attributes(img, path, i);
	if (S_ISREG(i->mode)) {
		image_content(img, path, i);
	} else if (S_ISDIR(i->mode)) {
		image_dir(img, path, i);
	} else if (S_ISLNK(i->mode)) {
		int r = image_readlink(img, i, target);

		if (r < 0)
			fact_error("link", path, r);
		else
			fact_text("link", path, target, strlen(target));
	}
}

static void image_entry(struct image *img, const char *path, const struct image_inode *dir,
	const struct image_dirent *e)
{
	_cleanup_free_ char *child_path = join(path, e->name);
	struct image_inode child;
	int r = image_dir_child(img, dir, e, &child);

	if (r < 0)
		fact_error("inode", child_path, r);
	else
		image_one(img, child_path, &child);
}

static void image_dir(struct image *img, const char *path, const struct image_inode *dir)
{
	struct image_dir_iter it;
	struct image_dirent e;
	uint64_t count = 0;
	int r = image_dir_iter_begin(img, dir, 0, &it);

	while (r >= 0 && (r = image_dir_iter_next(&it, &e)) > 0) {
		image_entry(img, path, dir, &e);
		count++;
	}
	if (r < 0) {
		fact_error("names", path, r);
	} else {
		key("names", path);
		printf("\t%ju\n", (uintmax_t)count);
	}
	image_dir_iter_end(&it);
}

static int image_walk(struct image *img, const char *path, struct image_inode *ret)
{
	struct image_inode i;
	int r = image_inode_get(img, PINFS_ROOT_INO, &i);

	while (r >= 0 && *path) {
		size_t len = strcspn(++path, "/");
		struct image_dirent e;

		r = image_dir_lookup(img, &i, path, len, &e);
		if (r >= 0)
			r = image_dir_child(img, &i, &e, &i);
		path += len;
	}
	if (r < 0)
		return r;
	*ret = i;
	return 0;
}

static void image_look(const char *path, void *context)
{
	struct image_inode i = {0};
	int r = image_walk(context, path, &i);

	fact_look(path, r, i.ino);
}

static int read_image(const char *file, const char *paths)
{
	struct image_options options = {.offset = IMAGE_OFFSET_AUTO, .no_verify = no_verify};
	char error[IMAGE_ERROR_SIZE];
	struct image_inode root;
	struct image *img;
	struct io_file *io;
	int r = io_open(file, &(struct io_options){.caching = IO_CACHING_BUFFERED, .engine = IO_ENGINE_PREAD}, &io);

	if (r < 0) {
		fprintf(stderr, "readall: %s: %s\n", file, strerror(-r));
		return 2;
	}
	if (image_open(io, &options, &img, error) < 0) {
		fprintf(stderr, "readall: %s: %s\n", file, error);
		io_close(io);
		return 1;
	}
	r = image_inode_get(img, PINFS_ROOT_INO, &root);
	if (r < 0)
		fact_error("inode", "", r);
	else
		image_one(img, "", &root);
	if (paths && for_each_path(paths, image_look, img) < 0)
		return 2;
	image_close(img);
	return 0;
}

/* ---- through the mount, or any directory ---- */

/* The kernel gives what comes before a page in error: a short read is not the end. */
static ssize_t read_piece(int fd, size_t len, uint64_t at)
{
	size_t done = 0;

	while (done < len) {
		ssize_t n = pread(fd, piece + done, len - done, (off_t)(at + done));

		if (n < 0)
			return -errno;
		if (n == 0)
			break; /* shorter than its size: a wrong fact */
		done += (size_t)n;
	}
	return (ssize_t)done;
}

static void dir_content(const char *path, const char *real, uint64_t size)
{
	int fd = open(real, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	uint64_t at = 0;

	if (fd < 0) {
		fact_data(path, 0, NULL, -errno);
		return;
	}
	while (at < size) {
		off_t next = lseek(fd, (off_t)at, SEEK_DATA);

		if (next < 0 && errno == ENXIO)
			break;
		if (next < 0) {
			fact_data(path, at, NULL, -errno);
			break;
		}
		at = align_down((uint64_t)next, PIECE);
		fact_data(path, at, piece, read_piece(fd, (size_t)MIN((uint64_t)PIECE, size - at), at));
		at += PIECE;
	}
	close(fd);
}

static void dir_attributes(const char *path, const char *real)
{
	ssize_t n = llistxattr(real, list, sizeof(list));

	if (n < 0 && errno != ENOTSUP)
		fact_error("xattrs", path, -errno);
	if (n <= 0)
		return;
	fact_text("xattrs", path, list, (size_t)n);
	for (const char *p = list; p < list + n; p += strlen(p) + 1) {
		ssize_t len = lgetxattr(real, p, value, sizeof(value));

		fact_xattr(path, p, value, len < 0 ? -errno : len);
	}
}

static void dir_one(const char *root, const char *path);

static int compare_names(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static void dir_names(const char *root, const char *path, const char *real)
{
	DIR *d = opendir(real);
	size_t count = 0, capacity = 0;
	char **names = NULL;
	struct dirent *e;
	int error = d ? 0 : -errno;

	while (d && (errno = 0, e = readdir(d))) {
		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
			continue;
		if (array_reserve(&names, &capacity, count + 1, sizeof(*names)) < 0)
			abort();
		names[count++] = strdup(e->d_name);
	}
	if (d) {
		error = -errno;
		closedir(d);
	}
	if (count)
		qsort(names, count, sizeof(*names), compare_names);
	for (size_t i = 0; i < count; i++) {
		_cleanup_free_ char *child = join(path, names[i]);

		dir_one(root, child);
		free(names[i]);
	}
	free(names);
	if (error < 0) {
		fact_error("names", path, error);
	} else {
		key("names", path);
		printf("\t%zu\n", count);
	}
}

static void dir_one(const char *root, const char *path)
{
	_cleanup_free_ char *real = join(root, *path ? path + 1 : ".");
	struct stat st;
	ssize_t n;

	if (lstat(real, &st) < 0) {
		if (errno != ENOENT) {
			fact_error("inode", path, -errno);
			return;
		}
		/* A name that was listed must be there: no error, a wrong fact. */
		key("inode", path);
		printf("\tmissing\n");
		return;
	}
	fact_inode(path, &(struct facts){
		.mode = st.st_mode, .ino = st.st_ino, .size = (uint64_t)st.st_size, .nlink = st.st_nlink,
		.uid = st.st_uid, .gid = st.st_gid, .major = major(st.st_rdev), .minor = minor(st.st_rdev),
		.mtime = st.st_mtim});
	dir_attributes(path, real);
	if (S_ISREG(st.st_mode)) {
		dir_content(path, real, (uint64_t)st.st_size);
	} else if (S_ISDIR(st.st_mode)) {
		dir_names(root, path, real);
	} else if (S_ISLNK(st.st_mode)) {
		n = readlink(real, target, sizeof(target));
		if (n < 0)
			fact_error("link", path, -errno);
		else
			fact_text("link", path, target, (size_t)n);
	}
}

static void dir_look(const char *path, void *context)
{
	_cleanup_free_ char *real = join(context, *path ? path + 1 : ".");
	struct stat st = {0};
	int r = lstat(real, &st) < 0 ? -errno : 0;

	fact_look(path, r, st.st_ino);
}

/* ---- the command ---- */

static const char help[] =
	"Usage: readall [OPTION]... IMAGE\n"
	"       readall [OPTION]... --dir DIRECTORY\n"
	"Print everything in an image, or in a directory, as lines that can be compared.\n"
	"\n"
	"      --dir               read a mounted image (or any tree) with system calls\n"
	"      --portable          leave out inode numbers and sizes of directories\n"
	"      --paths=FILE        look up these paths, too\n"
	"      --write-paths=FILE  write all paths for --paths\n"
	"      --no-verify         ignore wrong checksums, to see whether their work would be missed\n"
	"\n"
	"Exit status: 0 all was tried (errors are lines); 1 not an image, or too damaged to open; 2 trouble.\n";

int main(int argc, char **argv)
{
	static const struct option longs[] = {
		{"dir", no_argument, NULL, 'd'}, {"no-verify", no_argument, NULL, 'n'}, {"portable", no_argument, NULL, 'p'},
		{"paths", required_argument, NULL, 'l'}, {"write-paths", required_argument, NULL, 'w'},
		{"help", no_argument, NULL, 'h'}, {0},
	};
	const char *paths = NULL;
	bool dir = false;
	int c, r = 0;

	while ((c = getopt_long(argc, argv, "h", longs, NULL)) != -1) {
		if (c == 'd') {
			dir = true;
		} else if (c == 'n') {
			no_verify = true;
		} else if (c == 'p') {
			portable = true;
		} else if (c == 'l') {
			paths = optarg;
		} else if (c == 'w') {
			write_paths = fopen(optarg, "w");
			if (!write_paths) {
				fprintf(stderr, "readall: %s: %s\n", optarg, strerror(errno));
				return 2;
			}
		} else {
			fputs(help, c == 'h' ? stdout : stderr);
			return c == 'h' ? 0 : 2;
		}
	}
	if (argc - optind != 1) {
		fputs(help, stderr);
		return 2;
	}
	if (!dir) {
		r = read_image(argv[optind], paths);
	} else {
		dir_one(argv[optind], "");
		if (paths && for_each_path(paths, dir_look, argv[optind]) < 0)
			r = 2;
	}
	if (write_paths && fclose(write_paths))
		r = 2;
	return fflush(stdout) || ferror(stdout) ? 2 : r;
}
