/* SPDX-License-Identifier: MIT */
/*
 * What the parts of the check of a delta share. The passes of a round, in order:
 *
 *	fsck_delta.c        superblocks ─► open: damaged nodes, map, log (delta's own salvage) ─► …totals
 *	fsck_delta_items.c  every item: its form, what its inode says of it, content
 *	fsck_delta_names.c  what names lead to ─► link counts, entries, parents ─► cycles ─► orphans
 *	fsck_delta_space.c  who refers to which pages ─► SHARED counts, the map
 *
 * A repair is such a round, too, with `fix` set: what is found wrong is put right at once, each in a transaction of its own, so that a round may
 * bring up what only follows from it; rounds go on until one has nothing to do. The file itself changes with the checkpoint at the end.
 */
#ifndef PINFS_MKFS_FSCK_DELTA_INTERNAL_H
#define PINFS_MKFS_FSCK_DELTA_INTERNAL_H

#include "delta/delta.h"
#include "mkfs/fsck.h"
#include "vfs/overlay.h"

enum {
	INODE_DELTA = 1u << 0,	 /* the delta has attributes of it */
	INODE_GONE = 1u << 1,
	INODE_ORPHAN = 1u << 2,
	INODE_AFFECTED = 1u << 3, /* some of its content doesn't hold */
	INODE_SEEN = 1u << 4,	 /* climb: leads to the root, or was told */
	INODE_CLIMB = 1u << 5,	 /* climb: on the way */
	INODE_NAMED = 1u << 6,	 /* a directory whose one name has been seen */
};

/* What is known of an inode that the delta has anything to do with. */
struct inode_entry {
	uint64_t ino;	   /* 0: the slot is free */
	uint64_t parent;   /* directory, with INODE_DELTA: as its attributes say */
	uint64_t named_in; /* the directory of the last name that the delta has for it */
	uint64_t entries;  /* directory: as its attributes say… */
	int64_t more;	   /* …names in it that the delta adds, less those that it hides */
	int32_t more_dirs; /* the same of directories */
	uint32_t nlink;	   /* as its attributes say */
	uint32_t added;	   /* names that the delta has for it */
	uint32_t hidden;   /* names that the image has for it, and the delta hides */
	uint8_t type;	   /* mode >> 12, with INODE_DELTA */
	uint8_t flags;
};

/* Where a use of pages begins, or ends. */
struct use {
	uint64_t page;
	int8_t change; /* 1, -1 */
	uint8_t kind;  /* 0: content, 1: node, 2: map */
};

struct fsck_delta {
	struct image *image;
	const struct image_info *info;
	struct delta *delta;
	const struct fsck_delta_options *options;
	struct fsck_delta_report *report;
	bool fix;	  /* this is a repair */
	bool fix_content; /* among others, of content */
	bool silent;	  /* problems are counted, and not told */
	uint64_t found, fixed; /* in this round */
	uint64_t lost_nodes;   /* of the tree: what is only a consequence isn't told as a leak */
	bool map_lost;

	struct inode_entry *inodes; /* by hash of the number; a power of two */
	size_t inode_slots, inode_count;
	struct use *uses;
	size_t use_count, use_capacity;
	uint64_t highest, new_inodes, gone; /* inode numbers */
	bool has_image_problem;
};

/* ---- problems ---- */

void fsck_delta_problem(struct fsck_delta *f, uint64_t offset, const char *fmt, ...) _printf_(3, 4);
void fsck_delta_note(struct fsck_delta *f, const char *fmt, ...) _printf_(2, 3);
/* After a decoder's, or the image's -EUCLEAN: tells what it said. Returns errors that end the check, else 0. */
int fsck_delta_caught(struct fsck_delta *f, int error, uint64_t offset, const char *subject);
bool fsck_delta_cancelled(const struct fsck_delta *f);

/* ---- inodes ---- */

/* What is known of an inode; made if need be (NULL: no memory), or not. Until the next one is made. */
struct inode_entry *fsck_inode(struct fsck_delta *f, uint64_t ino);
struct inode_entry *fsck_inode_find(const struct fsck_delta *f, uint64_t ino);
/* The image's inode of that number. -ENOENT: there is none, or it can't be read (which was told). */
int fsck_image_inode(struct fsck_delta *f, uint64_t ino, struct image_inode *ret);

/* ---- repairs: each is a transaction; nothing happens unless this is a repair ---- */

int fsck_fix_delete(struct fsck_delta *f, uint64_t object, uint64_t offset);
int fsck_fix_inode(struct fsck_delta *f, const struct delta_inode *inode);
/* Everything of an inode. */
int fsck_fix_forget(struct fsck_delta *f, uint64_t ino);

#define ITEM_KEY(ino, type) ((uint64_t)(ino) << 8 | (type))

/* ---- the passes ---- */

int fsck_delta_items(struct fsck_delta *f);
int fsck_delta_names(struct fsck_delta *f);
int fsck_delta_space(struct fsck_delta *f);
/* Of what is affected, by name. */
int fsck_delta_paths(struct fsck_delta *f);
int fsck_use_add(struct fsck_delta *f, uint64_t first, uint64_t pages, unsigned kind);

#endif
