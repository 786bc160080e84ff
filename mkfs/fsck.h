/* SPDX-License-Identifier: MIT */
/*
 * fsck: verifies everything in an image.
 *
 * Used by: fsck.pinfs, fuzzers, tests. Uses: image, io, codec, base.
 *
 * What holds after a check without a problem:
 *
 *	- both superblocks are whole and say the same; every index page, chunk and data block has its checksum and
 *	  can be decompressed; no two of them overlap, and every byte between them is zero. So no byte of the image
 *	  differs from what mkfs wrote.
 *	- the directories are one tree; every inode has as many names as its link count says; names are valid and
 *	  sorted, and every restart point is where an entry begins.
 *	- every byte of every file is mapped to a raw byte that exists, or is a hole; extents, XIP files, symbolic
 *	  links and extended attributes keep what format.h promises.
 *
 * One problem never hides another elsewhere: what can't be read is left out of the rest of the check, and what only
 * follows from it (files that a damaged block belongs to) is listed by name, but not counted as a problem.
 *
 * Memory: 5 bytes an inode, half a byte a block, three bits an extent, one bit for each 8 bytes of XATTRS; none of it
 * for inodes and blocks that can't be read. Work grows with the size of the image and of its sections, whatever
 * a hostile image claims.
 */
#ifndef PINFS_MKFS_FSCK_H
#define PINFS_MKFS_FSCK_H

#include "image/image.h"
#include "mkfs/tool.h"

struct fsck_problem {
	uint64_t offset; /* in the image */
	char *text;
};

struct fsck_options {
	unsigned threads; /* 0: tool_cpus() */
	enum progress_mode progress;
	unsigned max_problems; /* how many are kept with their text; 0: 100. All are counted */
	/* Asked by all threads; true ends the check with -ECANCELED. May be NULL. */
	bool (*cancelled)(void *context);
	/* Called for each problem that is kept, when it is found, one at a time; may be NULL. */
	void (*on_problem)(void *context, const struct fsck_problem *problem);
	void *context;
};

struct fsck_report {
	uint64_t errors; /* 0: the image is sound */
	struct fsck_problem *problems; /* the first max_problems, by offset once fsck_run() is over */
	size_t problem_count;
	/* Names that can't be read, or not whole, because of what was found; paths while max_problems lasts. */
	uint64_t affected;
	char **affected_paths;
	size_t affected_count;
	/* Inodes without all their names; these may stand in directories that can't be read. */
	uint64_t unreached;

	/* The first and the second superblock. From an intact one the other can be made: fsck_repair_super(). */
	bool super_damaged[2];

	/* Figures: what could be read of it. */
	uint64_t regular, directories, symlinks, devices, fifos, sockets, unreadable_inodes;
	uint64_t names;		       /* entries of all directories */
	uint64_t hard_links;	       /* names beyond the first one of an inode */
	uint64_t xip_files, xattr_sets, extents;
	uint64_t file_bytes;
	uint64_t blocks, blocks_raw_codec, blocks_unreferenced;
	uint64_t block_stored, block_raw; /* bytes */
	uint64_t metadata_stored, metadata_raw;
	uint64_t padding;
	double seconds;
};

/*
 * Checks the image. Its options should have on_damage = fsck_on_damage, or messages say less. 0: the check is
 * complete and *ret says what it found. -ENOMEM, -ECANCELED: it is not, and *ret is what was found until then.
 * Free *ret with fsck_report_free() either way. Starts its own threads; the image may be used by others meanwhile.
 */
int fsck_run(struct image *image, const struct fsck_options *options, struct fsck_report *ret);
void fsck_report_free(struct fsck_report *report);

/* For image_options.on_damage. Needs no context. */
void fsck_on_damage(void *context, uint64_t offset, const char *text);

/*
 * Writes superblock `which` (0: the first, 1: the second) anew from the other one, which is checked once more before,
 * into the file `path`, which must be the one that the image was opened from. It is durable on return. 0 or -errno:
 * -ESTALE if path is another file now, -EUCLEAN if the other one is damaged too.
 */
int fsck_repair_super(struct image *image, const char *path, unsigned which);

/* ---- a delta (fsck_delta.c) ---- */

struct store;

struct fsck_delta_options {
	bool repair;	       /* what can be made right again without giving anything up that could still be read */
	bool give_up;	       /* -y: with that, pages whose content doesn't hold become zeroes */
	unsigned max_problems; /* as fsck_options */
	bool (*cancelled)(void *context);
	void (*on_problem)(void *context, const struct fsck_problem *problem);
	/* Something to know that is no problem; and each repair, when it is made. May be NULL. */
	void (*on_note)(void *context, const char *text);
	void *context;
	/* Opens the delta's file; called up to three times, each time after what it gave was closed. -EBUSY: it is in use. */
	int (*open)(void *open_context, bool write, struct store **ret);
	void *open_context;
};

struct fsck_delta_report {
	uint64_t errors, left; /* found at first; left after the repair (without one: the same) */
	bool corrected;	       /* fewer are left */
	char error[512];       /* if it could not be checked: why */
	struct fsck_problem *problems;
	size_t problem_count, problem_capacity;
	uint64_t affected; /* files with content that doesn't hold */
	char **affected_paths;
	size_t affected_count, affected_capacity;

	bool empty;	  /* the file is: nothing was changed so far */
	uint64_t replayed; /* frames of the log that the next mount applies */
	uint64_t items, inodes, new_inodes, gone, names, hidden, extents, xattrs, orphans, shared;
	uint64_t content_pages, verified_pages, nodes, live_pages, generation;
	double seconds;
};

/*
 * Checks the delta of an image. The image's on_damage should be fsck_on_damage. 0: the check is complete. -EBUSY: in use. -ECANCELED, -ENOMEM.
 * Others: report->error says why it can't be opened: -EUCLEAN (beyond repair), -ESTALE (of another image), -EMEDIUMTYPE, -EOPNOTSUPP. What holds after a
 * check without a problem is listed in fsck_delta.c. Free the report either way.
 */
int fsck_delta_run(struct image *image, const struct fsck_delta_options *options, struct fsck_delta_report *ret);
void fsck_delta_report_free(struct fsck_delta_report *report);

#endif
