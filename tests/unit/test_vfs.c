/* SPDX-License-Identifier: MIT */
/* vfs: the tree of an image as programs see it; content in pieces of cached blocks, names by cookies, owners mapped. */
#include "support.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include "base/log.h"
#include "base/sync.h"
#include "vfs/vfs.h"

#define BLOCK 4096u
#define NAMES 1000u

static char *image_path;
static bool have_xattrs;

/* name, length: rng_bytes() of the length as seed */
static const struct {
	const char *name;
	size_t len;
} files[] = {{"empty", 0}, {"one", 1}, {"small", 700}, {"block", BLOCK}, {"more", 3 * BLOCK + 17}, {"large", 3000000}};

static void content(size_t len, uint8_t *buf)
{
	struct rng rng = {len};

	rng_bytes(&rng, buf, len);
}

static int setup(void **state)
{
	_cleanup_free_ char *tree = temp_path("tree"), *names = temp_path("tree/names"), *link = temp_path("tree/link");
	_cleanup_free_ char *sparse = temp_path("tree/sparse"), *small = temp_path("tree/small");
	_cleanup_free_ uint8_t *buf = malloc(3000000);
	int fd;

	log_init("test_vfs", LOG_LEVEL_ERROR);
	assert_int_equal(mkdir(tree, 0755), 0);
	assert_int_equal(mkdir(names, 0700), 0);
	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		_cleanup_free_ char *path = NULL;

		assert_true(asprintf(&path, "%s/%s", tree, files[i].name) > 0);
		content(files[i].len, buf);
		write_file(path, buf, files[i].len);
	}
	for (unsigned i = 0; i < NAMES; i++) {
		_cleanup_free_ char *path = NULL;

		assert_true(asprintf(&path, "%s/name%04u", names, i) > 0);
		write_file(path, "", 0);
	}
	fd = open(sparse, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
	for (unsigned i = 0; i < 5; i++)
		assert_int_equal(pwrite_all(fd, "data", 4, (uint64_t)i * 10 * BLOCK), 0);
	assert_int_equal(ftruncate(fd, 4 * VFS_READ_MAX), 0);
	close(fd);
	assert_int_equal(symlink("some/target", link), 0);
	have_xattrs = setxattr(small, "user.one", "first", 5, 0) == 0;
	image_path = temp_path("image");
	return mkfs("-b4K", "-znone", tree, image_path, NULL);
}

static int teardown(void **state)
{
	free(image_path);
	return support_end(state);
}

static struct vfs *open_options(struct vfs_options o)
{
	char error[IMAGE_ERROR_SIZE];
	struct io_file *io;
	struct vfs *v;

	o.name = image_path;
	o.offset = IMAGE_OFFSET_AUTO;
	assert_int_equal(io_open(image_path, NULL, &io), 0);
	assert_int_equal(vfs_new(io, &o, &v, error), 0);
	return v;
}

static struct vfs *open_vfs(void)
{
	return open_options((struct vfs_options){.cache_limit = 1u << 20, .readahead_threads = 2});
}

static uint64_t find(struct vfs *v, const char *name)
{
	struct stat st;

	must(vfs_lookup(v, VFS_ROOT_INO, name, &st) == 0);
	return st.st_ino;
}

/* Reads through pieces into buf; the number of bytes, or the error. */
static ssize_t read_at(struct vfs *v, uint64_t ino, uint64_t offset, size_t len, uint8_t *buf)
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

static void every_range_reads_back(void **state)
{
	_cleanup_free_ uint8_t *want = malloc(3000000), *got = malloc(VFS_READ_MAX);
	struct vfs *v = open_vfs();
	struct rng rng = {7};

	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		uint64_t ino = find(v, files[i].name);

		content(files[i].len, want);
		for (unsigned k = 0; k < 300; k++) {
			uint64_t at = rng_below(&rng, files[i].len + 2);
			size_t len = 1 + rng_below(&rng, k % 2 ? 10000 : VFS_READ_MAX);
			size_t expected = at >= files[i].len ? 0 : MIN(len, files[i].len - at);

			assert_int_equal(read_at(v, ino, at, len, got), expected);
			assert_memory_equal(got, want + MIN(at, files[i].len), expected);
		}
	}
	vfs_free(v);
}

static void holes_are_zeros(void **state)
{
	_cleanup_free_ uint8_t *got = malloc(VFS_READ_MAX);
	struct vfs *v = open_vfs();
	uint64_t ino = find(v, "sparse"), at = 99;

	for (uint64_t offset = 0; offset < 4 * VFS_READ_MAX; offset += VFS_READ_MAX) {
		assert_int_equal(read_at(v, ino, offset, VFS_READ_MAX, got), VFS_READ_MAX);
		for (uint64_t i = 0; i < VFS_READ_MAX; i++) {
			uint64_t in = (offset + i) % (10 * BLOCK);
			uint8_t want = offset + i < 50 * BLOCK && in < 4 ? (uint8_t)"data"[in] : 0;

			if (got[i] != want)
				fail_msg("byte %ju", (uintmax_t)(offset + i));
		}
	}
	assert_int_equal(vfs_seek(v, ino, BLOCK, false, &at), 0);
	assert_int_equal(at, 10 * BLOCK);
	assert_int_equal(vfs_seek(v, ino, 10 * BLOCK, true, &at), 0);
	assert_int_equal(at, 11 * BLOCK);
	assert_int_equal(vfs_seek(v, ino, 60 * BLOCK, false, &at), -ENXIO);
	vfs_free(v);
}

struct reader {
	pthread_t thread;
	struct vfs *v;
	uint64_t ino;
	const uint8_t *want;
	uint64_t seed;
};

static void *reader_main(void *arg)
{
	struct reader *r = arg;
	_cleanup_free_ uint8_t *got = malloc(VFS_READ_MAX);
	struct rng rng = {r->seed};

	for (unsigned i = 0; i < 200; i++) {
		uint64_t at = rng_below(&rng, 2000000);
		size_t len = 1 + rng_below(&rng, 900000);

		must(read_at(r->v, r->ino, at, len, got) == (ssize_t)len);
		must(!memcmp(got, r->want + at, len));
	}
	return NULL;
}

/* All of them hold hundreds of blocks at once, far more together than there is memory. */
static void large_reads_in_little_memory(void **state)
{
	_cleanup_free_ uint8_t *want = malloc(3000000);
	struct vfs *v = open_vfs();
	struct reader readers[12];

	content(3000000, want);
	for (size_t i = 0; i < ARRAY_SIZE(readers); i++) {
		readers[i] = (struct reader){.v = v, .ino = find(v, "large"), .want = want, .seed = i + 1};
		assert_int_equal(thread_start(&readers[i].thread, reader_main, &readers[i]), 0);
	}
	for (size_t i = 0; i < ARRAY_SIZE(readers); i++)
		pthread_join(readers[i].thread, NULL);
	vfs_free(v);
}

static void what_has_no_content_is_refused(void **state)
{
	struct vfs *v = open_vfs();
	uint8_t buf[16];

	assert_int_equal(read_at(v, VFS_ROOT_INO, 0, 16, buf), -EISDIR);
	assert_int_equal(read_at(v, find(v, "link"), 0, 16, buf), -EINVAL);
	assert_int_equal(read_at(v, 0, 0, 16, buf), -ENOENT);
	assert_int_equal(read_at(v, UINT64_MAX, 0, 16, buf), -ENOENT);
	vfs_free(v);
}

static void names_are_found(void **state)
{
	struct vfs *v = open_vfs();
	char target[PINFS_SYMLINK_MAX + 1];
	struct stat st, dir;

	assert_int_equal(vfs_lookup(v, VFS_ROOT_INO, "names", &dir), 0);
	assert_true(S_ISDIR(dir.st_mode));
	assert_int_equal(dir.st_mode & 07777, 0700);
	assert_int_equal(vfs_lookup(v, dir.st_ino, ".", &st), 0);
	assert_int_equal(st.st_ino, dir.st_ino);
	assert_int_equal(vfs_lookup(v, dir.st_ino, "..", &st), 0);
	assert_int_equal(st.st_ino, VFS_ROOT_INO);
	assert_int_equal(vfs_lookup(v, VFS_ROOT_INO, "..", &st), 0);
	assert_int_equal(st.st_ino, VFS_ROOT_INO);
	/* A file handle of a file is looked up as its ".". */
	assert_int_equal(vfs_lookup(v, find(v, "one"), ".", &st), 0);
	assert_int_equal(st.st_size, 1);
	assert_int_equal(vfs_lookup(v, find(v, "one"), "x", &st), -ENOTDIR);
	assert_int_equal(vfs_lookup(v, dir.st_ino, "name", &st), -ENOENT);
	assert_int_equal(vfs_lookup(v, dir.st_ino, "name9999", &st), -ENOENT);
	assert_int_equal(vfs_lookup(v, 1u << 30, "x", &st), -ENOENT);
	assert_int_equal(vfs_readlink(v, find(v, "link"), target), 0);
	assert_string_equal(target, "some/target");
	assert_int_equal(vfs_readlink(v, dir.st_ino, target), -EINVAL);
	vfs_free(v);
}

/* From each cookie the walk goes on with the entry after it. */
static void a_walk_can_go_on_anywhere(void **state)
{
	static char names[NAMES + 2][16];
	struct vfs *v = open_vfs();
	uint64_t ino = find(v, "names");
	uint64_t cookies[NAMES + 2];
	struct vfs_dirent e;
	struct vfs_dir d;
	unsigned n = 0;

	assert_int_equal(vfs_dir_begin(v, ino, 0, &d), 0);
	while (vfs_dir_next(&d, &e) > 0) {
		struct stat st;

		assert_true(n < ARRAY_SIZE(names));
		assert_int_equal(vfs_dir_getattr(&d, &e, &st), 0);
		assert_int_equal(st.st_ino, e.ino);
		assert_int_equal(st.st_mode >> 12, e.type);
		snprintf(names[n], sizeof(names[n]), "%s", e.name);
		cookies[n++] = e.cookie;
	}
	vfs_dir_end(&d);
	assert_int_equal(n, NAMES + 2);
	assert_string_equal(names[0], ".");
	assert_string_equal(names[1], "..");
	assert_string_equal(names[NAMES + 1], "name0999");
	for (unsigned i = 0; i < n; i++) {
		assert_int_equal(vfs_dir_begin(v, ino, cookies[i], &d), 0);
		assert_int_equal(vfs_dir_next(&d, &e), i + 1 < n);
		if (i + 1 < n)
			assert_string_equal(e.name, names[i + 1]);
		vfs_dir_end(&d);
	}
	assert_int_equal(vfs_dir_begin(v, ino, UINT64_MAX, &d), 0);
	assert_int_equal(vfs_dir_next(&d, &e), 0);
	vfs_dir_end(&d);
	assert_int_equal(vfs_dir_begin(v, find(v, "one"), 0, &d), -ENOTDIR);
	vfs_free(v);
}

static void owners_are_mapped(void **state)
{
	struct vfs *v = open_vfs();
	struct stat st;
	uint32_t uid, gid;

	assert_int_equal(vfs_getattr(v, VFS_ROOT_INO, &st), 0);
	uid = st.st_uid;
	gid = st.st_gid;
	vfs_free(v);
	v = open_options((struct vfs_options){
		.uids = {.count = 2, .ranges = {{uid + 1, 0, 5}, {uid, 70000, 1}}}, .gids = {.all = true, .all_as = 42}});
	assert_int_equal(vfs_getattr(v, VFS_ROOT_INO, &st), 0);
	assert_int_equal(st.st_uid, 70000);
	assert_int_equal(st.st_gid, 42);
	vfs_free(v);
	v = open_options((struct vfs_options){.gids = {.count = 1, .ranges = {{gid + 1, 0, 1}}}});
	assert_int_equal(vfs_getattr(v, VFS_ROOT_INO, &st), 0);
	assert_int_equal(st.st_uid, uid);
	assert_int_equal(st.st_gid, gid);
	vfs_free(v);
}

static void attributes_follow_getxattr(void **state)
{
	struct vfs *v = open_vfs();
	char buf[32];

	assert_int_equal(vfs_has_xattrs(v), have_xattrs);
	if (!have_xattrs) {
		vfs_free(v);
		print_message("no user attributes in %s\n", temp_dir());
		skip();
	}
	assert_int_equal(vfs_getxattr(v, find(v, "small"), "user.one", NULL, 0), 5);
	assert_int_equal(vfs_getxattr(v, find(v, "small"), "user.one", buf, 4), -ERANGE);
	assert_int_equal(vfs_getxattr(v, find(v, "small"), "user.one", buf, sizeof(buf)), 5);
	assert_memory_equal(buf, "first", 5);
	assert_int_equal(vfs_getxattr(v, find(v, "small"), "user.two", buf, sizeof(buf)), -ENODATA);
	assert_int_equal(vfs_getxattr(v, find(v, "one"), "user.one", buf, sizeof(buf)), -ENODATA);
	assert_int_equal(vfs_listxattr(v, find(v, "one"), buf, sizeof(buf)), 0);
	assert_true(vfs_listxattr(v, find(v, "small"), buf, sizeof(buf)) >= (ssize_t)sizeof("user.one"));
	vfs_free(v);
}

/* Checksums are right, but a file claims bytes that its block doesn't have. */
static void a_file_beyond_its_block_is_damage(void **state)
{
	struct vfs_options o = {.name = "forged", .cache_limit = 1u << 20};
	char error[IMAGE_ERROR_SIZE];
	struct pinfs_inode *inode;
	struct forge forge;
	struct io_file *io;
	struct vfs *v;
	uint8_t *bytes, buf[BLOCK];
	uint64_t ino;
	size_t len;

	v = open_vfs();
	ino = find(v, "small");
	vfs_free(v);
	forge_open(image_path, &forge);
	inode = forge_inode(&forge, (uint32_t)ino);
	assert_int_equal(inode->layout, PINFS_LAYOUT_PACKED);
	inode->arg0 = pinfs_put32(0);
	inode->size = pinfs_put64(BLOCK);
	bytes = forge_build(&forge, &len);
	assert_int_equal(io_open_memory(bytes, len, &io), 0);
	assert_int_equal(vfs_new(io, &o, &v, error), 0);
	log_init("test_vfs", LOG_LEVEL_ERROR);
	assert_int_equal(read_at(v, ino, 0, BLOCK, buf), -EUCLEAN);
	/* The part that is there, is; and the error held no memory back. */
	assert_int_equal(read_at(v, ino, 0, 10, buf), 10);
	for (unsigned i = 0; i < 2000; i++)
		assert_int_equal(read_at(v, ino, 0, BLOCK, buf), -EUCLEAN);
	vfs_free(v);
	free(bytes);
	forge_free(&forge);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_range_reads_back),
		cmocka_unit_test(holes_are_zeros),
		cmocka_unit_test(large_reads_in_little_memory),
		cmocka_unit_test(what_has_no_content_is_refused),
		cmocka_unit_test(names_are_found),
		cmocka_unit_test(a_walk_can_go_on_anywhere),
		cmocka_unit_test(owners_are_mapped),
		cmocka_unit_test(attributes_follow_getxattr),
		cmocka_unit_test(a_file_beyond_its_block_is_damage),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
