/* SPDX-License-Identifier: MIT */
/*
 * Makes packed deltas of an image (make-corpus.sh's "kinds"): seeds for the fuzzer.
 *
 * usage: make-delta IMAGE KIND OUTPUT      KIND: log, tree, both, large
 */
#include "packed.h"

#include <fcntl.h>
#include <linux/falloc.h>

#include "io/io.h"
#include "vfs/vfs.h"

static const struct vfs_cred cred = {.uid = 0, .gid = 0, .umask = 022};

static uint64_t make(struct vfs *v, const char *name, mode_t mode)
{
	struct stat st;

	FUZZ_CHECK((S_ISDIR(mode) ? vfs_mkdir(v, VFS_ROOT_INO, name, mode, &cred, &st) : vfs_mknod(v, VFS_ROOT_INO, name, mode, 0, &cred, &st)) == 0);
	vfs_forget(v, st.st_ino, 1);
	return st.st_ino;
}

static uint64_t find(struct vfs *v, const char *name)
{
	struct stat st;

	FUZZ_CHECK(vfs_lookup(v, VFS_ROOT_INO, name, &st) == 0);
	vfs_forget(v, st.st_ino, 1);
	return st.st_ino;
}

/* text: it can be compressed. */
static void put(struct vfs *v, uint64_t ino, uint64_t offset, size_t len, bool text)
{
	struct fuzz_random r = {ino + offset};
	uint8_t *buf = malloc(len);

	FUZZ_CHECK(buf);
	for (size_t i = 0; i < len; i++)
		buf[i] = (uint8_t)(text ? 'a' + i % 23 : fuzz_next(&r));
	FUZZ_CHECK(vfs_write(v, ino, offset, buf, len, 0) == (ssize_t)len);
	free(buf);
}

static void change(struct vfs *v)
{
	uint64_t raw = make(v, "raw", S_IFREG | 0644), text = make(v, "text", S_IFREG | 0600), tiny = make(v, "tiny", S_IFREG | 0600);
	char value[5000] = "v";
	struct stat st;

	put(v, raw, 0, 5 * 4096 + 100, false);
	put(v, text, 0, 12 * 4096, true);
	put(v, tiny, 0, 50, true);
	put(v, find(v, "small"), 50, 100, true);
	FUZZ_CHECK(vfs_sync(v) == 0);
	FUZZ_CHECK(vfs_copy_range(v, raw, 0, make(v, "shared", S_IFREG | 0644), 0, 8192) == 8192);
	FUZZ_CHECK(vfs_fallocate(v, text, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 8192, 8192) == 0);
	FUZZ_CHECK(vfs_fallocate(v, make(v, "kept", S_IFREG | 0644), 0, 0, 16384) == 0);
	FUZZ_CHECK(vfs_symlink(v, VFS_ROOT_INO, "ln", "to/somewhere", &cred, &st) == 0);
	vfs_forget(v, st.st_ino, 1);
	FUZZ_CHECK(vfs_setxattr(v, raw, "user.long", value, sizeof(value), 0, false) == 0);
	FUZZ_CHECK(vfs_setxattr(v, find(v, "small"), "user.short", "x", 1, 0, false) == 0);
	FUZZ_CHECK(vfs_link(v, raw, find(v, "dir"), "hard too", &st) == 0);
	vfs_forget(v, st.st_ino, 1);
	FUZZ_CHECK(vfs_unlink(v, VFS_ROOT_INO, "empty") == 0);
	FUZZ_CHECK(vfs_rmdir(v, VFS_ROOT_INO, "empty-dir") == 0);
	FUZZ_CHECK(vfs_rename(v, VFS_ROOT_INO, "zeros", find(v, "dir"), "moved", 0, &cred) == 0);
	make(v, "new dir", S_IFDIR | 0755);
}

static void many(struct vfs *v)
{
	char name[200];

	memset(name, 'n', sizeof(name));
	for (unsigned i = 0; i < 120; i++) {
		snprintf(name + 180, 20, "%u", i);
		make(v, name, S_IFREG | 0644);
	}
}

int main(int argc, char **argv)
{
	struct packed p = {0};
	struct vfs_delta_options d = {.size_limit = 8u << 20, .atime = VFS_NOATIME, .no_threads = true, .store = packed_store(&p)};
	struct vfs_options o = {.name = "image", .offset = IMAGE_OFFSET_AUTO, .cache_limit = 8u << 20, .delta = &d};
	char error[IMAGE_ERROR_SIZE] = "";
	uint8_t *out = malloc(4u << 20);
	struct io_file *io;
	struct vfs *v;
	size_t n;
	int fd;

	FUZZ_CHECK(argc == 4 && out);
	FUZZ_CHECK(io_open(argv[1], NULL, &io) == 0);
	if (vfs_new(io, &o, &v, error) < 0) {
		fprintf(stderr, "%s\n", error);
		return 1;
	}
	if (strcmp(argv[2], "log") != 0) {
		change(v);
		if (!strcmp(argv[2], "large"))
			many(v);
		FUZZ_CHECK(vfs_sync(v) == 0 && delta_checkpoint(vfs_delta(v)) == 0);
	}
	if (!strcmp(argv[2], "log"))
		change(v);
	if (strcmp(argv[2], "tree") != 0) {
		put(v, find(v, "raw"), 4096, 3000, false);
		FUZZ_CHECK(vfs_sync(v) == 0);
		FUZZ_CHECK(vfs_unlink(v, VFS_ROOT_INO, "text") == 0);
		make(v, "late", S_IFREG | 0644);
	}
	n = packed_save(&p, out, 4u << 20);
	FUZZ_CHECK(n);
	fd = open(argv[3], O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	FUZZ_CHECK(fd >= 0 && write_all(fd, out, n) == 0 && close(fd) == 0);
	vfs_free(v);
	packed_free(&p);
	free(out);
	return 0;
}
