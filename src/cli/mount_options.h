/* SPDX-License-Identifier: MIT */
/* What -o says, and what is handed on to libfuse because of it. */
#ifndef PINFS_CLI_MOUNT_OPTIONS_H
#define PINFS_CLI_MOUNT_OPTIONS_H

#include "vfs/vfs.h"

enum mount_owner_access {
	MOUNT_ACCESS_DEFAULT, /* everybody if root mounts, else the user alone */
	MOUNT_ACCESS_OWNER,
	MOUNT_ACCESS_OTHER,
	MOUNT_ACCESS_ROOT,
};

enum mount_cache {
	MOUNT_CACHE_KERNEL,    /* the kernel keeps content, and hands on at once what is written */
	MOUNT_CACHE_WRITEBACK, /* …later */
	MOUNT_CACHE_DAEMON,
};

struct mount_options {
	/* The image and how it is read. */
	uint64_t offset;
	enum io_engine engine;
	enum io_caching caching;
	/* The daemon. */
	size_t cache_size;
	enum mount_cache cache;
	unsigned threads;
	char *log_file, *trace_file;
	/* What programs see. */
	struct vfs_idmap uids, gids;
	char *fsname;
	enum mount_owner_access access;
	bool writable; /* rw was asked for */
	bool remount;  /* of a mount that there is: only what the kernel keeps can change */
	/* Changes. */
	char *delta_file;
	bool ephemeral, norecovery;
	uint64_t size; /* of the delta at most; 0: no limit */
	enum vfs_atime atime;
	bool suid, dev, noexec, noatime, nodiratime, nosymfollow, sync, dirsync;
};

void mount_options_init(struct mount_options *options);
void mount_options_free(struct mount_options *options);

/*
 * Adds one -o argument: names and name=value, separated by commas; a backslash takes the meaning from the character
 * after it. sloppy: unknown options are left out. Says what is wrong on stderr; 0 or -EINVAL.
 */
int mount_options_parse(struct mount_options *options, const char *text, bool sloppy);

/* The string for libfuse. source: for /proc/mounts, unless fsname= said something else. NULL: out of memory. */
char *mount_options_for_fuse(const struct mount_options *options, const char *source, bool writable);

#endif
