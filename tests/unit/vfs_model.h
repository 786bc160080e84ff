/* SPDX-License-Identifier: MIT */
/* A model of a vfs's tree in memory: what there is, made from what the vfs shows at first, and the comparison. Operations change both. */
#ifndef PINFS_TESTS_VFS_MODEL_H
#define PINFS_TESTS_VFS_MODEL_H

#include "vfs_support.h"

#define NODES_MOST 160u
#define NAMES 12u
#define XATTRS 6u

struct mnode {
	uint64_t ino;
	mode_t mode;
	unsigned nlink, known, opens;
	uint64_t size;
	uint8_t *data; /* FILE_MOST + PAGE bytes; zero behind size */
	char target[64];
	bool dirty; /* content that may get lost */
	uid_t uid;
	gid_t gid;
	struct mnode *names[NAMES], *parent;
	struct {
		bool there;
		size_t len;
		uint8_t *value;
	} xattrs[XATTRS];
	bool acl;
	uint8_t acl_value[44];
	struct vfs_file *file;
};

struct model {
	struct vfs *v;
	struct memstore *m;
	struct rng rng;
	struct mnode *nodes[NODES_MOST];
	unsigned count;
	struct mnode *root;
	size_t cache;
	uint8_t buf[FILE_MOST + PAGE];
};

/* The last one is one of the longest. */
void name_of(unsigned i, char ret[300]);
void xattr_name(unsigned i, char ret[64]);
struct mnode *mnode_new(struct model *md, const struct stat *st);
bool is_gone(const struct mnode *n);
/* What nobody can ask for any more. */
void mnode_check_gone(struct model *md, struct mnode *n);
struct mnode *by_ino(struct model *md, uint64_t ino);
/* The tree as the vfs shows it, on this disk, is the model. */
void model_begin(struct model *md, struct memstore *m, uint64_t seed, size_t cache);
void model_end(struct model *md);
/* The vfs shows what the model is. Ends the program if not. */
void compare_all(struct model *md);

#endif
