/* SPDX-License-Identifier: MIT */
/*
 * What the tree was after each operation. Names and attributes are taken from the vfs itself (that each operation does what it
 * should is for others to test); content is kept here, byte for byte.
 */
#ifndef PINFS_TESTS_CRASH_MODEL_H
#define PINFS_TESTS_CRASH_MODEL_H

#include "vfs/vfs.h"

#define FILE_PAGES 160u
#define FILES_MAX 96u
#define OPS_MAX 64u
#define PROBLEM_SIZE 1024

/* Why a state is wrong; the first thing that was found. */
struct problem {
	char text[PROBLEM_SIZE];
};
void problem_set(struct problem *p, const char *fmt, ...) _printf_(2, 3);

/* ---- the tree at one time ---- */

struct snap_file {
	uint64_t ino, size;
	struct timespec mtime, ctime;
};
struct snap {
	char *text; /* a line for each name, sorted */
	uint64_t hash;
	struct snap_file files[FILES_MAX]; /* regular ones */
	unsigned count;
};
/* Walks everything; says what contradicts itself. */
void snap_take(struct vfs *vfs, struct snap *ret, struct problem *problem);
void snap_free(struct snap *snap);

/* ---- content ---- */

/* A page is never changed: versions that have the same one point to it. NULL: zeroes. */
struct version {
	int op; /* after this one */
	bool whole; /* as it was when the operation had ended; else on the way there */
	uint64_t size;
	const uint8_t *pages[FILE_PAGES];
	struct timespec mtime, ctime;
};
/* An operation has taken pages away or put them there, in the delta itself. */
struct change {
	int op;
	unsigned first, end;
	bool size;
};
struct file {
	uint64_t ino;
	uint64_t size;
	const uint8_t *pages[FILE_PAGES];
	struct version *versions;
	unsigned count, capacity;
	struct change changes[OPS_MAX];
	unsigned change_count;
	int uncertain; /* 0; or the operation that found no room, and may have been done in part */
	int synced[OPS_MAX];
	unsigned sync_count;
};
struct model {
	struct file files[FILES_MAX];
	unsigned count;
	struct snap snaps[OPS_MAX + 1]; /* [i]: after i operations */
	struct chunk *chunks;
};
void model_free(struct model *model);
/* NULL: none */
struct file *model_find(struct model *model, uint64_t ino);
struct file *model_file(struct model *model, uint64_t ino);
/* As it is at the beginning. */
void model_load(struct model *model, struct vfs *vfs, struct problem *problem);
/* Begins with the content that `base`, which stays longer, was loaded with: so nothing has to be read. */
void model_begin(struct model *model, const struct model *base, struct vfs *vfs, struct problem *problem);
/* The tree after `op` operations. */
void model_after(struct model *model, struct vfs *vfs, int op, struct problem *problem);
/* One on the way to what operation `op` does. */
void model_between(struct model *model, struct vfs *vfs, struct file *file, int op);

void file_write(struct model *model, struct file *file, uint64_t offset, const uint8_t *data, size_t len);
void file_zero(struct model *model, struct file *file, uint64_t offset, uint64_t len);
void file_truncate(struct model *model, struct file *file, uint64_t size);
/* Whole pages [first, end) are changed by `op`, or the size. */
void file_change(struct file *file, int op, uint64_t first, uint64_t end, bool size);

/* Reads up to FILE_PAGES pages; the number of bytes, or -errno. */
ssize_t read_whole(struct vfs *vfs, uint64_t ino, uint8_t *buf);

#endif
