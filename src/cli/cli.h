/* SPDX-License-Identifier: MIT */
/*
 * cli: the program `pinfs` and its commands.
 *
 * Used by: nobody. Uses: everything to its right (mount: fuse; the others: mkfs/tool.h, image).
 *
 * main.c finds the command and calls it with argv[0] = "pinfs COMMAND" (so that getopt's messages are right) and
 * argv[1…] as typed; log_init() has been called. Each command understands -h and --help (usage on stdout, exit 0)
 * and returns the exit status of the program. What it wrote to stdout with stdio is flushed and checked by
 * main.c, which turns a failed write into a message and a failure.
 */
#ifndef PINFS_CLI_CLI_H
#define PINFS_CLI_CLI_H

#include "delta/delta.h"
#include "image/image.h"

int cmd_mount(int argc, char **argv);
int cmd_umount(int argc, char **argv);
int cmd_ls(int argc, char **argv);
int cmd_cat(int argc, char **argv);
int cmd_info(int argc, char **argv);
int cmd_stat(int argc, char **argv);
int cmd_extract(int argc, char **argv);
int cmd_dump(int argc, char **argv);
int cmd_diff(int argc, char **argv);
int cmd_commit(int argc, char **argv);
int cmd_discard(int argc, char **argv);
/* Becomes another program; returns only if that can't be started. */
int cmd_lab(int argc, char **argv);

/* mount.pinfs and mount.fuse.pinfs as mount(8) calls them: SOURCE DIR [-sfnv] [-N ns] [-o OPTIONS] [-t TYPE].
 * argv[0] is the name as it was called. Returns mount(8)'s exit codes. */
int mount_helper_main(int argc, char **argv);

/* Exit codes of all commands but mount, umount and lab. */
enum cli_exit {
	CLI_OK = 0,
	CLI_FAIL = 1,  /* something could not be done; it was said */
	CLI_USAGE = 2,
};

/* ---- for commands that look into an image (src/cli/path.c) ---- */

/* "Try 'pinfs ls --help'." on stderr; returns CLI_USAGE. command: argv[0]. */
int cli_usage_error(const char *command);

/*
 * Finds a path inside the image as a program that is chroot(2)ed into it would: symbolic links on the way are
 * followed inside the image, the last one only if follow, or if a slash comes after it. -ENOENT, -ENOTDIR, -ELOOP.
 */
int cli_path_find(struct image *image, const char *path, bool follow, struct image_inode *ret);

/* Allocates name_escape()d text; never NULL (says so and aborts when memory is out). */
char *cli_escape(const char *name, size_t len);

/* "damaged" and such for -EUCLEAN, strerror() for the rest. error: 0 or -errno. */
const char *cli_strerror(int error);

/* ---- for commands that look into a delta (src/cli/delta.c) ---- */

/* Where a mount of the image keeps its changes, if it isn't told otherwise; allocated, or NULL (already said). */
char *cli_delta_beside(const char *image);

enum {
	CLI_DELTA_EXCLUSIVE = 1u << 0, /* no mount uses it, not even a read-only one */
	CLI_DELTA_QUIET = 1u << 1,     /* -EMEDIUMTYPE is no message */
};
/*
 * Opens the delta in `path` to look at it; nothing in it is changed. image: what it has to belong to; NULL: it doesn't matter. path must outlive it: it is
 * in messages about damage. 0 or -errno, already said. For delta_close().
 */
int cli_delta_open(const char *path, struct image *image, unsigned flags, struct delta **ret);

/* Has an inode content of its own in the delta, or another length? Under the delta's lock. image: the inode there, or NULL. */
int cli_delta_has_content(struct delta *delta, const struct delta_inode *inode, const struct image_inode *image, bool *ret);

/* ---- names of the image's inodes (src/cli/names.c) ---- */

struct cli_name {
	uint32_t ino, dir;
	char *name; /* owned by the list */
};
struct cli_names {
	struct cli_name *items; /* ordered by ino, then as found */
	size_t count, capacity;
};
/*
 * All names of these inodes of the image. inos: in ascending order, each once; directories may be among them. What is read for an inode with one name are the
 * directories on the way to it (of an image that mkfs.pinfs has made); for one with several names it can be all directories.
 */
int cli_names_find(struct image *image, const uint32_t *inos, size_t count, struct cli_names *ret);
void cli_names_free(struct cli_names *names);

#endif
