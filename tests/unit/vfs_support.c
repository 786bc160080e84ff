/* SPDX-License-Identifier: MIT */
#include "vfs_support.h"

#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/log.h"

bool tracing;

char *image_path;
const struct vfs_cred cred = {.uid = 1, .gid = 2, .umask = 022};

int vfs_setup(void **state)
{
	static const char *const dirs[] = {"tree", "tree/n0", "tree/n1", "tree/n1/n2", "tree/n1/n2/n3"};
	_cleanup_free_ uint8_t *buf = malloc(FILE_MOST);
	struct rng rng = {99};

	tracing = getenv("PINFS_TRACE");
	log_init("test_vfs", LOG_LEVEL_ERROR);
	for (size_t i = 0; i < ARRAY_SIZE(dirs); i++) {
		_cleanup_free_ char *dir = temp_path(dirs[i]), *name = NULL, *other = NULL, *link_name = NULL;

		assert_int_equal(mkdir(dir, 0755), 0);
		for (unsigned j = 5; j < 9; j++) {
			size_t len = (size_t)rng_below(&rng, j % 2 ? 3000 : FILE_MOST);
			_cleanup_free_ char *path = NULL;

			assert_true(asprintf(&path, "%s/n%u", dir, j) > 0);
			if (j == 8)
				rng_bytes(&rng, buf, len);
			else
				rng_text(&rng, buf, len);
			/* Holes. */
			if (j == 6)
				memset(buf + len / 4, 0, len / 2);
			write_file(path, buf, len);
			if (j == 7)
				setxattr(path, "user.x1", buf, MIN(len, (size_t)2000), 0);
		}
		assert_true(asprintf(&name, "%s/n5", dir) > 0 && asprintf(&other, "%s/n9", dir) > 0 && asprintf(&link_name, "%s/n10", dir) > 0);
		assert_int_equal(link(name, other), 0);
		assert_int_equal(symlink("somewhere/else", link_name), 0);
	}
	image_path = temp_path("image");
	{
		_cleanup_free_ char *tree = temp_path("tree");

		return mkfs("-b16K", tree, image_path, NULL);
	}
}

int vfs_teardown(void **state)
{
	free(image_path);
	return support_end(state);
}

static int try_with(struct vfs_delta_options *delta, size_t cache, struct vfs **ret)
{
	struct vfs_options o = {.name = image_path, .offset = IMAGE_OFFSET_AUTO, .cache_limit = cache, .delta = delta};
	char error[IMAGE_ERROR_SIZE] = "";
	struct io_file *io;
	int r;

	must(io_open(image_path, NULL, &io) == 0);
	r = vfs_new(io, &o, ret, error);
	must((r < 0) == (error[0] != 0));
	if (r < 0)
		fprintf(stderr, "%s: %s\n", strerror(-r), error);
	return r;
}

struct vfs *open_on(struct memstore *m, size_t cache, uint64_t limit)
{
	struct vfs_delta_options delta = {.store = memstore_open(m), .atime = VFS_RELATIME, .size_limit = limit};
	struct vfs *v = NULL;

	must(try_with(&delta, cache, &v) == 0);
	return v;
}

int try_on(struct memstore *m, bool read_only, struct vfs **ret)
{
	struct vfs_delta_options delta = {.store = memstore_open(m), .read_only = read_only};

	return try_with(&delta, 4u << 20, ret);
}

ssize_t read_all(struct vfs *v, uint64_t ino, uint64_t offset, size_t len, uint8_t *buf)
{
	_cleanup_free_ struct vfs_read *read = malloc(sizeof(*read));
	size_t n = 0;
	int r;

	must(read);
	r = vfs_read_begin(v, ino, offset, len, read);
	if (r < 0)
		return r;
	for (unsigned i = 0; i < read->count; i++) {
		memcpy(buf + n, read->iov[i].iov_base, read->iov[i].iov_len);
		n += read->iov[i].iov_len;
	}
	must(n == read->bytes);
	vfs_read_end(v, read, offset % 2);
	return (ssize_t)n;
}

void acl_entry(uint8_t *at, unsigned tag, unsigned perm, uint32_t id)
{
	at[0] = (uint8_t)tag;
	at[2] = (uint8_t)perm;
	for (unsigned i = 0; i < 4; i++)
		at[4 + i] = (uint8_t)(id >> 8 * i);
}

uint64_t make_file(struct vfs *v, const char *name)
{
	struct stat st;

	must(vfs_mknod(v, VFS_ROOT_INO, name, S_IFREG | 0644, 0, &cred, &st) == 0);
	return st.st_ino;
}

uint64_t find(struct vfs *v, const char *name)
{
	struct stat st;

	must(vfs_lookup(v, VFS_ROOT_INO, name, &st) == 0);
	return st.st_ino;
}

void fill(struct rng *rng, struct vfs *v, uint64_t ino, uint64_t offset, uint8_t *buf, size_t len)
{
	rng_bytes(rng, buf, len);
	must(vfs_write(v, ino, offset, buf, len, 0) == (ssize_t)len);
}

bool file_is(struct vfs *v, uint64_t ino, const uint8_t *want, size_t len)
{
	_cleanup_free_ uint8_t *buf = malloc(len + 1);

	must(buf);
	return read_all(v, ino, 0, len + 1, buf) == (ssize_t)len && !memcmp(buf, want, len);
}

uint64_t live_pages(struct vfs *v)
{
	struct delta_info info;

	must(vfs_sync(v) == 0);
	must(delta_checkpoint(vfs_delta(v)) == 0);
	delta_get_info(vfs_delta(v), &info);
	return info.live_pages;
}
