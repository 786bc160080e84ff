/* SPDX-License-Identifier: MIT */
/*
 * The parts of fsx: fsx.c (options, the run), fsx_plan.c (which operation, with which ranges), fsx_run.c (does it),
 * fsx_model.c (what the files must hold, and the report when they do not).
 *
 * Each operation takes its random numbers from (seed, its number), and is chosen with a look at the model only. So the
 * same options give the same operations, and --replay-from can let the first ones happen in the model alone.
 */
#ifndef PINFS_MODEL_FSX_H
#define PINFS_MODEL_FSX_H

#include "base/util.h"
#include "random.h"

#define KEEP_SLOTS 4u
#define FILES_MAX 16u
#define HISTORY (1u << 18) /* operations that a report can name */

enum kind {
	OP_READ,
	OP_READV,
	OP_READ_DIRECT,
	OP_READ_MAPPED,
	OP_READ_URING,
	OP_READ_URING_DIRECT,
	OP_READ_SELF,
	OP_READ_SELF_DIRECT,
	OP_WRITE,
	OP_WRITEV,
	OP_APPEND,
	OP_WRITE_DIRECT,
	OP_WRITE_MAPPED,
	OP_WRITE_URING,
	OP_WRITE_URING_DIRECT,
	OP_WRITE_SELF,
	OP_WRITE_SELF_DIRECT,
	OP_MAP,
	OP_MAP_READ,
	OP_MAP_WRITE,
	OP_UNMAP,
	OP_TRUNCATE,
	OP_ALLOCATE,
	OP_ALLOCATE_KEEP,
	OP_PUNCH,
	OP_ZERO,
	OP_ZERO_KEEP,
	OP_COPY,
	OP_COPY_BETWEEN,
	OP_SEEK,
	OP_FSYNC,
	OP_FDATASYNC,
	OP_SYNC_RANGE,
	OP_DROP,
	OP_REOPEN,
	OP_COMPARE,
	OP_REMOUNT,
	OP_POLLUTE,
	OP_KINDS
};

enum content { CONTENT_NONE, CONTENT_RANDOM, CONTENT_ZERO, CONTENT_TEXT, CONTENT_MIXED };

/* off, len: the range that is read or changed; from: the file and offset of the source, where there is one. */
struct op {
	uint64_t n, off, len, from;
	uint32_t bits; /* random, for what kind leaves open */
	uint8_t kind, file, from_file, content, slot;
	bool skipped; /* nothing of the kind was possible */
};

/* A mapping that stays while other operations run. In a dry run addr is NULL. */
struct keep {
	bool used;
	uint8_t *addr;
	uint64_t off, len; /* whole pages */
};

struct file {
	char *path;
	uint8_t *data;	  /* limit bytes; zeros from size on */
	uint32_t *writer; /* the operation that wrote each byte last, 0: none or --initial */
	uint64_t size;
	uint64_t high; /* the furthest byte that was ever allocated */
	int fd, fd_append, fd_direct;
	struct keep keep[KEEP_SLOTS];
};

struct fsx {
	/* options */
	uint64_t ops, seed, limit, op_limit, every, replay_from, timeout;
	unsigned files;
	const char *remount, *log_path;
	bool initial, quiet, past_eof;
	bool need[OP_KINDS]; /* must not be refused */
	bool off[OP_KINDS];  /* not asked for, or refused by the filesystem */
	/* state */
	struct file *file;
	struct op *history; /* HISTORY operations, by number modulo HISTORY */
	struct op op;
	bool dry;	   /* only the model, as long as the operation's number is below --replay-from */
	uint8_t *out, *in; /* op_limit bytes and a bit, page aligned, registered with the ring */
	uint64_t page, direct_align;
	FILE *log;
	int argc;
	char **argv;
	uint64_t count[OP_KINDS];
};
extern struct fsx fsx;

extern const char *const op_names[OP_KINDS];

/* fsx_plan.c */
struct op plan(uint64_t n);
void op_describe(const struct op *op, char *buf, size_t size);

/* fsx_run.c: do it (0, or the operation was refused and is left out from now on: -EOPNOTSUPP), or end with a report. */
int run(const struct op *op);
void ring_open(void);
void ring_close(void);
int file_open(struct file *f, bool create);
void file_close(struct file *f, bool mappings);
void file_map(struct file *f, struct keep *k);
void file_compare(struct file *f, bool mapped);
void refuse(enum kind kind, const char *why);

/* fsx_model.c */
void content_fill(uint8_t *buf, uint64_t off, uint64_t len, const struct op *op);
void model_apply(const struct op *op, const uint8_t *out);
/* Compares bytes that were read at off with the model; ends the program with a report at a difference. */
void model_check(const struct file *f, uint64_t off, const uint8_t *found, uint64_t len, const char *how);
__attribute__((noreturn)) _printf_(1, 2) void report(const char *format, ...);

#endif
