/* SPDX-License-Identifier: MIT */
/*
 * merge: the tree that a mount of image and delta would show, as a source of mkfs beside directories and archives. Private to cli.
 *
 *	merge_scan     names and attributes ──► mkfs/tree.c; what becomes of each file's content is decided
 *	merge_store    blocks of the image that stay ──► pack_take(), in their order; then files with other content ──► pack_file()
 *
 * Functions return 0 or -errno and have told the user what happened.
 */
#ifndef PINFS_CLI_MERGE_H
#define PINFS_CLI_MERGE_H

#include "mkfs/mkfs.h"
#include "vfs/vfs.h"

struct merge;

struct merge_options {
	struct vfs *vfs;     /* of image and delta, read-only */
	struct image *image; /* the same image once more */
	const char *image_name;
	bool scrub;	     /* blocks that hold anything of files that are gone are not taken over */
	bool recompress;     /* no block is */
	bool xip_given;	     /* mkfs_options.xip is for changed files, too, which else stay as they are */
};

struct merge_stats {
	uint64_t files, files_taken; /* with content; of which all blocks stay */
	uint64_t total;		     /* bytes that merge_store() will go through */
};

int merge_new(const struct merge_options *options, struct tree *tree, struct merge **ret);
void merge_free(struct merge *merge);
int merge_scan(struct merge *merge);
/* After it: pack_finish(), and if that fails, merge_explain(). */
int merge_store(struct merge *merge, struct pack *pack);
/* Says which file a block belongs to that could not be taken over. */
void merge_explain(struct merge *merge, const struct pack *pack);
void merge_get_stats(const struct merge *merge, struct merge_stats *ret);

#endif
