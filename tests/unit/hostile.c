/* SPDX-License-Identifier: MIT */
#include "hostile.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include "codec/codec.h"

char *image_path;
bool have_xattrs;

static void make(const char *dir, const char *name, size_t len)
{
	_cleanup_free_ char *path = NULL;
	uint8_t data[40000];
	struct rng rng = {len};

	assert_true(asprintf(&path, "%s/%s", dir, name) > 0);
	rng_bytes(&rng, data, len);
	write_file(path, data, len);
}

int hostile_setup(void **state)
{
	_cleanup_free_ char *tree = temp_path("tree"), *sub = temp_path("tree/dir"), *subsub = temp_path("tree/dir/sub");
	_cleanup_free_ char *sparse = temp_path("tree/extents"), *hole = temp_path("tree/hole");
	_cleanup_free_ char *packed = temp_path("tree/packed"), *fifo = temp_path("tree/fifo");
	_cleanup_free_ char *link = temp_path("tree/link");
	int fd;

	assert_int_equal(mkdir(tree, 0755), 0);
	assert_int_equal(mkdir(sub, 0755), 0);
	assert_int_equal(mkdir(subsub, 0755), 0);
	make(tree, "run", 10000);
	make(tree, "packed", 1000);
	make(tree, "packed2", 500);
	make(tree, "xip", 9000);
	for (unsigned i = 0; i < 70; i++) {
		char name[16];

		snprintf(name, sizeof(name), "entry%02u", i);
		make(sub, name, 0);
	}
	fd = open(sparse, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(pwrite_all(fd, sparse, 5, i * 3 * BLOCK), 0);
	assert_int_equal(ftruncate(fd, 20 * BLOCK), 0);
	close(fd);
	write_file(hole, "", 0);
	assert_int_equal(truncate(hole, 5 * BLOCK), 0);
	assert_int_equal(symlink("target", link), 0);
	assert_int_equal(mkfifo(fifo, 0644), 0);
	have_xattrs = setxattr(packed, "user.one", "first", 5, 0) == 0 && setxattr(packed, "user.two", "2", 1, 0) == 0;
	image_path = temp_path("image");
	return mkfs("-b4K", "-znone", "--xip=xip", tree, image_path, NULL);
}

int hostile_teardown(void **state)
{
	free(image_path);
	return support_end(state);
}

/* ---- opening what was forged ---- */

unsigned damages;
char last_damage[IMAGE_ERROR_SIZE], open_error[IMAGE_ERROR_SIZE];

static void on_damage(void *context, uint64_t offset, const char *text)
{
	damages++;
	snprintf(last_damage, sizeof(last_damage), "%s", text);
}

int open_bytes(const uint8_t *bytes, size_t len, uint64_t offset, struct image **ret)
{
	struct image_options options = {.offset = offset, .on_damage = on_damage};
	struct io_file *io;
	int r;

	damages = 0;
	*last_damage = *open_error = 0;
	assert_int_equal(io_open_memory(bytes, len, &io), 0);
	r = image_open(io, &options, ret, open_error);
	if (r < 0) {
		assert_true(*open_error);
		io_close(io);
	}
	return r;
}

void build(struct opened *o)
{
	o->bytes = forge_build(&o->forge, &o->len);
	assert_int_equal(open_bytes(o->bytes, o->len, 0, &o->img), 0);
}

void done(struct opened *o)
{
	image_close(o->img);
	free(o->bytes);
	o->img = NULL;
	o->bytes = NULL;
}

void done_all(struct opened *o)
{
	done(o);
	forge_free(&o->forge);
}

uint32_t look_up(struct image *img, uint32_t dir, const char *name)
{
	struct image_inode i;
	struct image_dirent e;

	assert_int_equal(image_inode_get(img, dir, &i), 0);
	assert_int_equal(image_dir_lookup(img, &i, name, strlen(name), &e), 0);
	return e.ino;
}

uint64_t read_everything(struct image *img, uint64_t *ret_errors)
{
	uint64_t count = image_get_info(img)->inode_count, sum = 0, errors = 0;
	static uint8_t buf[20 * BLOCK];
	char target[PINFS_SYMLINK_MAX + 1], value[256];

	for (uint64_t ino = 1; ino <= count; ino++) {
		struct image_inode i;
		ssize_t n;

		if (image_inode_get(img, ino, &i) < 0) {
			errors++;
			continue;
		}
		sum = sum * 31 + i.size + i.mode * 3ull + i.nlink * 5ull + i.uid * 7ull + i.gid * 11ull + i.alloc * 13ull +
			(uint64_t)i.mtime.tv_sec * 17 + (uint64_t)i.mtime.tv_nsec;
		n = image_xattr_list(img, &i, value, sizeof(value));
		if (n < 0)
			errors++;
		for (const char *p = value; n > 0 && p < value + n; p += strlen(p) + 1) {
			ssize_t m = image_xattr_get(img, &i, p, buf, sizeof(buf));

			if (m < 0)
				errors++;
			sum = sum * 31 + codec_checksum(p, strlen(p)) + (m > 0 ? codec_checksum(buf, (size_t)m) : 0);
		}
		if (S_ISDIR(i.mode)) {
			struct image_dir_iter it = {0};
			struct image_dirent e;
			int r = image_dir_iter_begin(img, &i, 0, &it);

			while (r >= 0 && (r = image_dir_iter_next(&it, &e)) == 1)
				sum = sum * 31 + e.ino + e.type * 3ull + codec_checksum(e.name, e.name_len);
			if (r < 0)
				errors++;
			image_dir_iter_end(&it);
		} else if (S_ISLNK(i.mode)) {
			if (image_readlink(img, &i, target) < 0)
				errors++;
			else
				sum = sum * 31 + codec_checksum(target, i.size);
		} else if (S_ISREG(i.mode)) {
			n = image_pread(img, &i, buf, sizeof(buf), 0);
			if (n < 0)
				errors++;
			else
				sum = sum * 31 + codec_checksum(buf, (size_t)n);
		} else {
			sum = sum * 31 + i.arg0 + i.arg1 * 3ull;
		}
	}
	*ret_errors = errors;
	return sum;
}
