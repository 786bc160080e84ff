/* SPDX-License-Identifier: MIT */
/*
 * What the parts of fsck share. The passes, in order; each uses what the ones before it found out:
 *
 *	fsck.c         superblocks
 *	fsck_store.c   index pages ─► overlaps of metadata ─► chunks ─► block table ─► overlaps and padding ─► blocks
 *	fsck_inode.c   extents ─► inodes (and what they map) ─► xattr sets
 *	fsck_tree.c    directories ─► link counts ─► names of what is affected
 *	fsck.c         totals, features
 */
#ifndef PINFS_MKFS_FSCK_INTERNAL_H
#define PINFS_MKFS_FSCK_INTERNAL_H

#include "base/sync.h"
#include "mkfs/bitset.h"
#include "mkfs/fsck.h"

/* struct fsck.kinds: the low bits are mode >> 12, 0 for an inode that can't be read. */
#define KIND_TYPE 0x0fu
#define KIND_AFFECTED 0x10u /* something that belongs to it can't be read */
#define KIND_NAMED 0x20u    /* a directory that its parent has an entry for */

/* Extents are summed in groups, so that the sum of any run of them is found by reading two groups at most. */
#define EXTENT_GROUP 64u

struct affected_name {
	uint32_t dir;
	char *name;
};

struct fsck {
	struct image *image;
	const struct image_info *info;
	struct fsck_options options;
	unsigned threads;
	struct progress *progress;
	uint64_t metadata; /* bytes, as the superblock has it; the inode and tree passes show as much progress each */
	atomic_int error; /* the first one that ended a pass; all threads stop */

	struct mutex lock;
	struct fsck_report *report;	      /* lock */
	struct affected_name *affected_names; /* lock */
	size_t problem_capacity, affected_count, affected_capacity;

	int section_by_type[PINFS_SECTION_TYPES]; /* index into info->sections, or -1 */
	struct bitset chunks[PINFS_SECTIONS_MAX]; /* that can be read */
	bool chunks_missing, blocks_missing;	  /* some descriptors are unknown */
	bool lz4_used, acl_used;		  /* lock */

	/* One bit for each block. */
	struct bitset readable; /* nothing is wrong with it */
	struct bitset full;	/* raw size == block_size */
	struct bitset chained;	/* raw codec, and stored right after the block before, which has it too */
	struct bitset used;	/* some file needs it */

	/* One bit for each extent. */
	struct bitset extent_whole;    /* all its blocks are full */
	struct bitset extent_readable; /* it, and all its blocks */
	struct bitset extent_follows;  /* lies behind the extent before it */
	struct bitset extent_used;
	uint64_t *extent_sums; /* blocks in all groups before this one */

	/* One for each inode number, [0] is not used. Written with atomics from the tree pass on. */
	uint8_t *kinds;
	uint32_t *slots;	   /* directories: the parent; others: link count less the names found */
	struct bitset xattr_sets;  /* 8-byte units where some inode says that its set begins */
	uint64_t inodes_unknown;   /* lock */
	uint64_t dir_bytes;	   /* lock; from the tree pass on: what is left of DIRS to be walked */
	uint64_t dirs_damaged;	   /* lock */
};

/* ---- problems ---- */

/* Counts and tells one problem. */
void fsck_problem(struct fsck *f, uint64_t offset, const char *fmt, ...) _printf_(3, 4);
/*
 * After an image function has returned error: tells what it said to on_damage, or else strerror, after the
 * subject and a colon; subject may be NULL. offset: if it didn't say one. Returns -ENOMEM if that is what happened,
 * which is no problem of the image, and 0 for everything else.
 */
int fsck_problem_caught(struct fsck *f, int error, uint64_t offset, const char *subject, ...) _printf_(4, 5);
/* Has on_damage said something in this thread, and nobody told it yet? */
bool fsck_has_caught(void);
/* Forgets it: after a failure that is no news. */
void fsck_forget_caught(void);

/* ---- work in parallel ---- */

/*
 * Calls fn for [0, total) in pieces of `step`, in all threads. Each call gets `scratch` bytes of memory of its
 * thread, zeroed at first. Ends early if fn fails, or with -ECANCELED. Returns fn's first error.
 */
typedef int (*fsck_sweep_fn)(struct fsck *f, uint64_t from, uint64_t to, void *scratch);
int fsck_sweep(struct fsck *f, uint64_t total, uint64_t step, size_t scratch, fsck_sweep_fn fn);
bool fsck_cancelled(struct fsck *f);
/* Shows `part` of `whole` of a pass that counts as `bytes`. */
void fsck_progress(struct fsck *f, uint64_t bytes, uint64_t part, uint64_t whole);

/* ---- sections ---- */

static inline const struct image_section *fsck_section(const struct fsck *f, unsigned type)
{
	return f->section_by_type[type] < 0 ? NULL : &f->info->sections[f->section_by_type[type]];
}
/* Can all chunks of bytes [pos, pos + len) of the section be read? */
bool fsck_section_readable(struct fsck *f, unsigned type, uint64_t pos, uint64_t len);
/* Where the chunk with this byte is stored, for messages. */
uint64_t fsck_section_where(struct fsck *f, unsigned type, uint64_t pos);
static inline uint64_t fsck_inode_where(struct fsck *f, uint64_t ino)
{
	return fsck_section_where(f, PINFS_SECTION_INODES, (ino - 1) * sizeof(struct pinfs_inode));
}
/* Where one thread's raw reads are: the chunk that it read last. Zeroed: none. */
struct fsck_window {
	bool loaded;
	unsigned type;
	uint64_t no;
	uint8_t raw[PINFS_CHUNK_SIZE_MAX], plain[PINFS_CHUNK_SIZE_MAX], stored[PINFS_CHUNK_SIZE_MAX];
};
/* Raw bytes of a section, as they are; they must be readable (above). */
int fsck_section_read(struct fsck *f, struct fsck_window *window, unsigned type, uint64_t pos, void *buf, size_t len);

static inline bool fsck_all_zero(const void *data, size_t len)
{
	const uint8_t *p = data;

	return !len || (!p[0] && !memcmp(p, p + 1, len - 1));
}

/* ---- the passes ---- */

int fsck_check_indexes(struct fsck *f);
int fsck_check_store(struct fsck *f);
int fsck_check_inodes(struct fsck *f);
int fsck_check_tree(struct fsck *f);

#endif
