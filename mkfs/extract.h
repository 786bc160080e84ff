/* SPDX-License-Identifier: MIT */
/*
 * extract: unpacks an image, or a part of it, into a directory.
 *
 * Used by: cli, tests. Uses: content, tool, image, base.
 *
 * The image is not trusted and neither is what is already in the target: nothing is ever written outside of the
 * target directory. Every name is used relative to a directory that was opened by this run without following
 * symbolic links (extract_dir.c); content and attributes go through descriptors, not through names.
 *
 * Order: the calling thread walks the image, makes directories (0700) and special files, and hands regular files to
 * the workers; then it makes the hard links; then the directories get their attributes, deepest first. Memory: about
 * 100 bytes for each directory, as much for each name of a file with several names, and a few MiB for each worker.
 */
#ifndef PINFS_MKFS_EXTRACT_H
#define PINFS_MKFS_EXTRACT_H

#include <stdatomic.h>

#include "image/image.h"
#include "mkfs/tool.h"

struct extract_options {
	const char *target;	    /* made if it is not there */
	char *const *paths;	    /* of what shall be extracted; none: all. Without ".." */
	size_t path_count;
	char *const *excludes;	    /* patterns of fnmatch(3): with a slash for whole paths, else for each name */
	size_t exclude_count;
	unsigned threads;	    /* workers; 0: one for each processor */
	bool force;		    /* replace what is in the way */
	bool same_owner;	    /* chown; else owner and group are those of the process */
	bool no_xattrs;
	bool keep_damaged;	    /* files with unreadable blocks stay, with zeros there */
	FILE *verbose;		    /* each path, when its turn comes; NULL: none */
	enum progress_mode progress;
	const atomic_bool *stop;    /* set by a signal handler: finish soon, remove unfinished files; may be NULL */
};

struct extract_stats {
	uint64_t files, directories, symlinks, hard_links, devices, fifos, sockets;
	uint64_t bytes;		 /* of content written, holes not counted */
	uint64_t errors;	 /* each was said */
	uint64_t damaged;	 /* files with unreadable content; counted in errors, too */
	uint64_t xattrs_skipped; /* only root can set them */
};

/*
 * Extracts. Changes the process's umask while it runs. What fails is said on stderr and counted, and the rest goes
 * on. Returns 0 when it went through; look at stats for errors. -EINTR: stopped. Other -errno (said): it could not
 * begin.
 */
int extract_run(struct image *image, const struct extract_options *options, struct extract_stats *ret);

#endif
