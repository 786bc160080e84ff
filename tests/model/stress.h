/* SPDX-License-Identifier: MIT */
/*
 * The parts of stress: stress.c (options, rounds, processes), stress_tree.c (the model of a tree), stress_names.c and
 * stress_data.c (operations on names and on files), stress_compare.c (model and reality), stress_shared.c (races for the
 * same names), stress_dump.c (--dump and --verify).
 *
 * Each worker has a tree of its own, of which it knows everything, so it says before each operation which errno must come.
 * Its random numbers do not depend on the other workers. Between rounds a worker has nothing open.
 */
#ifndef PINFS_MODEL_STRESS_H
#define PINFS_MODEL_STRESS_H

#include <sys/stat.h>

#include "base/util.h"
#include "random.h"

#define XATTRS 5u
#define HELD 8u
#define NODES_MAX 300u
#define DEPTH_MAX 6u
#define RECENT 20u
#define PATH_SIZE 4096u

struct options {
	uint64_t seed, ops, procs, rounds, check_every, size;
	const char *remount, *dump, *verify, *need;
	bool quiet, self_check;
	int argc;
	char **argv;
};
extern struct options options;

/* What the filesystem does, found out before the workers begin. */
struct abilities {
	bool xattr, tmpfile, zero_range, punch, allocate, copy, exchange, noreplace, nodes, counts_dirs, root;
};
extern struct abilities abilities;

struct node;
struct entry {
	char *name;
	struct node *node;
};

struct node {
	mode_t mode; /* with its type */
	uid_t uid;
	gid_t gid;
	unsigned nlink, opens;
	dev_t rdev;
	bool mtime_known; /* set by utimensat, and nothing has changed it since */
	bool tmpfile;	  /* may be linked although it has no name */
	struct timespec mtime;
	struct {
		uint8_t *value; /* NULL: not set */
		size_t len;
	} xattrs[XATTRS];
	/* files */
	uint8_t *data;
	uint64_t size;
	/* symbolic links */
	char *target;
	/* directories */
	struct node *parent;
	const char *name; /* in the parent */
	struct entry *entries;
	size_t count, capacity;
	/* the comparison that runs */
	uint64_t pass;
	ino_t ino;
};

struct held {
	int fd;
	struct node *node;
};

struct worker {
	uint64_t index, op;
	char base[PATH_SIZE];
	struct rng rng;
	struct node *root;
	unsigned nodes;
	struct held held[HELD];
	char recent[RECENT][160];
	uint64_t pass, differences;
};
extern struct worker worker;

/* stress_tree.c */
struct node *node_new(mode_t mode);
void node_put(struct node *n); /* frees it if it has no name and is not open */
struct entry *node_find(struct node *dir, const char *name);
void node_link(struct node *dir, const char *name, struct node *n);
void node_unlink(struct node *dir, struct entry *e);
void node_resize(struct node *n, uint64_t size);
bool node_is_above(const struct node *above, const struct node *n); /* or the same */
unsigned node_depth(const struct node *n);
unsigned node_subdirs(const struct node *dir);
void path_of(const struct node *dir, const char *name, char path[PATH_SIZE]);
struct node *pick_dir(void);
void pick_name(const struct node *dir, char name[256]);
/* An entry of the type (0: any); NULL if a few tries find none. */
struct entry *pick_entry(mode_t type, struct node **ret_dir);
void changed(struct node *n);

/* Says what is about to be done. */
_printf_(1, 2) void doing(const char *format, ...);
/* Ends the worker with a report. */
_printf_(1, 2) __attribute__((noreturn)) void wrong(const char *format, ...);
/* Kinds of operations, by weight: `pick`, which is below their sum, says which one. */
struct step {
	unsigned weight;
	void (*run)(void);
};
void take_step(const struct step *steps, size_t count, unsigned pick);
/* Checks that a call that returned ret gave the errno that it had to give; true if it succeeded. */
bool outcome(long ret, int want);

/* stress_names.c, stress_data.c */
void names_step(unsigned pick);
void data_step(unsigned pick);
#define NAMES_WEIGHT 60u
#define DATA_WEIGHT 40u
void held_close_all(void);
void read_and_compare(int fd, struct node *n, const char *path);

/* stress_compare.c */
uint64_t compare_tree(void);
void compare_stat(const struct node *n, const struct stat *st, const char *path);
_printf_(2, 3) void differs(const char *path, const char *format, ...);

/* stress_shared.c */
int shared_create(const char *dir);
void shared_step(const char *dir, struct rng *r);
/* Returns the number of problems, after printing each. */
uint64_t shared_check(const char *dir);

/* stress_dump.c: 0, 1 (differences, verify only), 2 */
int dump_write(const char *file, const char *dir);
int dump_verify(const char *file, const char *dir, FILE *out);

#endif
