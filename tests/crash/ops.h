/* SPDX-License-Identifier: MIT */
/* The operations that workloads are made of. Each is a number: a list of numbers says all of a workload. */
#ifndef PINFS_TESTS_CRASH_OPS_H
#define PINFS_TESTS_CRASH_OPS_H

#include "model.h"

enum op_kind {
	OP_CREAT, OP_MKDIR, OP_WRITE, OP_APPEND, OP_TRUNCATE, OP_UNLINK, OP_RMDIR, OP_RENAME, OP_LINK, OP_SYMLINK, OP_CHMOD, OP_CHOWN,
	OP_UTIMES, OP_SETXATTR, OP_REMOVEXATTR, OP_FALLOCATE, OP_COPY, OP_TMPFILE, OP_OPEN,
	/* From here on: what makes something durable, or goes that way. */
	OP_OSYNC, OP_FSYNC, OP_SYNC, OP_CHECKPOINT, OP_WRITEBACK, OP_TRIM, OP_RACE,
};
struct op {
	enum op_kind kind;
	const char *path, *to;
	uint64_t offset, len;
	int flags; /* rename, fallocate; write: 1: doesn't compress; OSYNC: 1: data only */
};
extern const struct op ops[];
extern const unsigned op_count;
/* "write a 0+4096", in a buffer of its own for the next call. */
const char *op_text(unsigned op);
static inline bool op_persists(unsigned op)
{
	return ops[op].kind >= OP_OSYNC;
}

/* What an operation that has ended has made durable. */
enum durable {
	DURABLE_NOTHING,
	DURABLE_NAMES,	 /* all transactions so far */
	DURABLE_FILE,	 /* and the content of one file */
	DURABLE_CONTENT, /* and that of all files */
};

struct world {
	struct vfs *vfs;
	struct model *model;
	struct vfs_file *open[OPS_MAX];
	unsigned opens;
};
void world_close(struct world *world);
/* Does operation number `step` (from 1), which is ops[op], and says what it did to the model. */
enum durable op_run(struct world *world, unsigned op, int step, struct problem *problem);

#endif
