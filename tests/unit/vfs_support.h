/* SPDX-License-Identifier: MIT */
/* What the tests of a writable vfs share: an image with a small tree, a vfs over it with a delta in memory, files in that. */
#ifndef PINFS_TESTS_VFS_SUPPORT_H
#define PINFS_TESTS_VFS_SUPPORT_H

#include "support.h"

#include "memstore.h"
#include "vfs/vfs.h"

#define PAGE PINFS_PAGE_SIZE
/* Bytes of the largest file of the image. */
#define FILE_MOST (300u << 10)

/* PINFS_TRACE=1: every operation on content. */
extern bool tracing;
#define trace(...) do { if (tracing) fprintf(stderr, __VA_ARGS__); } while (0)

/* For a group of tests: the image, whose names are n0 to n10, and gone. */
int vfs_setup(void **state);
int vfs_teardown(void **state);
extern char *image_path;
extern const struct vfs_cred cred;

/* cache, limit: bytes; limit 0: what the disk has. */
struct vfs *open_on(struct memstore *m, size_t cache, uint64_t limit);
/* The same, or why not. */
int try_on(struct memstore *m, bool read_only, struct vfs **ret);

/* Up to `len` bytes of a file: how many, or an error. */
ssize_t read_all(struct vfs *v, uint64_t ino, uint64_t offset, size_t len, uint8_t *buf);
/* In the root directory; with one lookup that is never forgotten. */
uint64_t make_file(struct vfs *v, const char *name);
uint64_t find(struct vfs *v, const char *name);
/* Random bytes, to the file and to `buf`. */
void fill(struct rng *rng, struct vfs *v, uint64_t ino, uint64_t offset, uint8_t *buf, size_t len);
/* It has these bytes, and no others. */
bool file_is(struct vfs *v, uint64_t ino, const uint8_t *want, size_t len);
/* Pages that the delta uses, once everything is written. */
uint64_t live_pages(struct vfs *v);
/* One entry of an ACL as an extended attribute has it: 8 bytes. */
void acl_entry(uint8_t *at, unsigned tag, unsigned perm, uint32_t id);

#endif
