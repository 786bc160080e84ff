/* SPDX-License-Identifier: MIT */
/*
 * What the tests of fsck share: an image, a delta in memory with some of everything, a mount's view of both as text, and the check itself.
 */
#ifndef PINFS_TESTS_FSCK_SUPPORT_H
#define PINFS_TESTS_FSCK_SUPPORT_H

#include "support.h"

#include "base/sync.h"
#include "mkfs/fsck.h"
#include "vfs/vfs.h"

/* Bytes of a delta. */
#define LIMIT (24u << 20)

/* For a group of tests: the image, made and gone. */
int fsck_setup(void **state);
int fsck_teardown(void **state);
extern char *image_path;

/* ---- a delta in memory ---- */

struct memory {
	uint8_t *bytes;
	size_t len;
};
extern const struct store_ops memory_ops;

/* For several threads. With `at_super`, *at_super becomes a copy when the second superblock of a checkpoint has been written. */
struct busy {
	struct memory m;
	struct mutex lock;
	struct memory *at_super;
};
extern const struct store_ops busy_ops;

struct memory copy_of(const struct memory *m);
/* `frames`: with some in the log that no checkpoint has. */
struct memory make_delta(bool frames);

/* ---- a vfs over image and delta ---- */

/* NULL: it does not open. */
struct vfs *open_vfs_ops(const struct store_ops *ops, void *context, size_t len);
struct vfs *open_vfs(struct memory *m);
uint64_t find(struct vfs *v, uint64_t dir, const char *name);
uint64_t make(struct vfs *v, uint64_t dir, const char *name, mode_t mode);
void put(struct vfs *v, uint64_t ino, uint64_t offset, size_t len, bool text);
/* Some of everything that a delta can hold. */
void change(struct vfs *v);

/* What can be read without an error, a line each. */
struct dump {
	char *text;
	size_t len;
};
struct dump dump_of(struct vfs *v);

/* ---- checking ---- */

struct checked {
	struct fsck_delta_report report;
	int result;
};
struct checked check(struct memory *m, bool repair, bool give_up);
void assert_clean(struct memory *m);
bool has_text(const struct fsck_delta_report *r, const char *text);
void print_problems(const struct fsck_delta_report *r);

#endif
