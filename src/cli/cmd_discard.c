/* SPDX-License-Identifier: MIT */
/* pinfs discard: drops a delta, after it was said what is in it. */
#include "cli/cli.h"

#include <getopt.h>
#include <inttypes.h>
#include <sys/stat.h>

#include "base/log.h"

struct discard {
	char *path; /* of the delta; owned, no symbolic link */
	struct delta *delta;
	bool damaged;
	uint64_t added, added_bytes, changed, attributes, removed, directories;
	uint64_t disk_bytes;
};

static void discard_help(void)
{
	puts("Usage: pinfs discard [OPTION]... DELTA\n"
	     "  or:  pinfs discard [OPTION]... IMAGE\n"
	     "Drops the changes that a writable mount has made: removes the file DELTA (IMAGE.delta, if an image is named), after it\n"
	     "was said how much is lost. The image itself is not touched; it has never been written.\n"
	     "\n"
	     "  -y, --yes    don't ask; needed where standard input is no terminal\n"
	     "  -q, --quiet  say nothing but errors\n"
	     "  -h, --help   this text\n"
	     "\n"
	     "A delta in use by a mount is refused: unmount first. What the changes are, path by path: pinfs diff IMAGE DELTA.\n"
	     "Exit status: 0 it is gone, 1 it is still there, 2 wrong usage.");
}

static int count_inode(struct discard *x, const struct delta_inode *i, uint64_t image_inodes)
{
	struct delta_extent e;
	int r;

	if (i->gone || !i->nlink) {
		x->removed += i->ino <= image_inodes;
		return 0;
	}
	if (i->ino > image_inodes) {
		x->added++;
		x->added_bytes += S_ISREG(i->mode) ? i->size : 0;
		return 0;
	}
	if (S_ISDIR(i->mode)) {
		struct delta_dirent name;

		r = delta_dirent_next(x->delta, i->ino, 0, &name);
		x->directories += r == 0;
		return r == -ENOENT ? 0 : r;
	}
	r = delta_extent_get(x->delta, i->ino, 0, &e);
	if (r < 0)
		return r;
	if (S_ISREG(i->mode) && (e.kind != DELTA_NOTHING || e.pages < PINFS_DELTA_FILE_MAX / PINFS_PAGE_SIZE || i->size != i->image_end))
		x->changed++;
	else
		x->attributes++;
	return 0;
}

static int count(struct discard *x)
{
	struct delta_inode i;
	struct delta_info info;
	int r;

	delta_get_info(x->delta, &info);
	delta_lock(x->delta);
	for (uint64_t ino = 1; (r = delta_inode_next(x->delta, ino, &i)) == 0; ino = i.ino + 1) {
		r = count_inode(x, &i, info.image_inodes);
		if (r < 0)
			break;
	}
	delta_unlock(x->delta);
	return r == -ENOENT ? 0 : r;
}

static void show_number(uint64_t n, const char *one, const char *many)
{
	if (n)
		printf("  %10" PRIu64 "  %s\n", n, n == 1 ? one : many);
}

static void show(const struct discard *x)
{
	char size[32], bytes[32];

	printf("%s, %s on the disk, has:\n", x->path, format_size(x->disk_bytes, size, sizeof(size)));
	if (x->damaged) {
		puts("  what can't be told: it is damaged");
		return;
	}
	show_number(x->added, "new file or directory", "new files and directories");
	if (x->added_bytes)
		printf("              (%s of content)\n", format_size(x->added_bytes, bytes, sizeof(bytes)));
	show_number(x->changed, "file of the image with other content", "files of the image with other content");
	show_number(x->attributes, "other file of the image with other attributes or times", "other files of the image with other attributes or times");
	show_number(x->removed, "file or directory of the image removed", "files and directories of the image removed");
	show_number(x->directories, "directory of the image in which names changed", "directories of the image in which names changed");
	if (!x->added && !x->changed && !x->attributes && !x->removed && !x->directories)
		puts("  no changes");
}

/* "y" or "yes". */
static bool asked(void)
{
	char line[16] = "";

	printf("Drop it? It can't be brought back. [y/N] ");
	fflush(stdout);
	return fgets(line, sizeof(line), stdin) && (!strcmp(line, "y\n") || !strcmp(line, "Y\n") || !strcmp(line, "yes\n"));
}

/* The delta is locked: whoever opens this name now finds it in use, until the name is gone. */
static int drop(struct discard *x)
{
	if (unlink(x->path) == 0)
		return 0;
	log_error("can't remove %s: %s", x->path, strerror(errno));
	return -errno;
}

/* A damaged one may go, too; what is none may not. */
static int open_delta(struct discard *x)
{
	struct stat st;
	int r = cli_delta_open(x->path, NULL, CLI_DELTA_EXCLUSIVE | CLI_DELTA_QUIET, &x->delta);

	if (r == -EUCLEAN) {
		x->damaged = true;
		r = 0;
	}
	if (r == 0 && stat(x->path, &st) == 0)
		x->disk_bytes = (uint64_t)st.st_blocks * 512;
	return r;
}

/* The argument is a delta, or an image with one beside it. */
static int find_delta(struct discard *x, const char *arg)
{
	_cleanup_free_ char *beside = NULL;
	int r;

	x->path = realpath(arg, NULL);
	if (!x->path) {
		r = -errno;
		log_error("can't open %s: %s", arg, strerror(-r));
		return r;
	}
	r = open_delta(x);
	if (r != -EMEDIUMTYPE)
		return r;
	beside = cli_delta_beside(arg);
	if (!beside)
		return -ENOENT;
	if (access(beside, F_OK) < 0) {
		log_error("%s is no delta, and there is none beside it (%s)", arg, beside);
		return r;
	}
	free(x->path);
	x->path = realpath(beside, NULL);
	if (!x->path)
		return -errno;
	r = open_delta(x);
	if (r == -EMEDIUMTYPE)
		log_error("%s is no pinfs delta", x->path);
	return r;
}

static int run(const char *arg, bool yes, bool quiet)
{
	struct discard x = {0};
	int r = find_delta(&x, arg);

	if (r == 0 && x.delta && count(&x) < 0)
		x.damaged = true;
	if (r == 0 && (!quiet || !yes))
		show(&x);
	/* What comes on standard error comes after it. */
	fflush(stdout);
	if (r == 0 && !yes && !isatty(STDIN_FILENO)) {
		log_error("nothing was dropped; 'pinfs discard --yes %s' does it without asking", arg);
		r = -EPERM;
	}
	if (r == 0 && !yes && !asked()) {
		log_error("nothing was dropped");
		r = -ECANCELED;
	}
	if (r == 0)
		r = drop(&x);
	delta_close(x.delta);
	free(x.path);
	return r < 0 ? CLI_FAIL : CLI_OK;
}

int cmd_discard(int argc, char **argv)
{
	static const struct option options[] = {
		{"yes", no_argument, NULL, 'y'},
		{"quiet", no_argument, NULL, 'q'},
		{"help", no_argument, NULL, 'h'},
		{0},
	};
	bool yes = false, quiet = false;
	int c;

	while ((c = getopt_long(argc, argv, "yqh", options, NULL)) != -1) {
		switch (c) {
		case 'y':
			yes = true;
			break;
		case 'q':
			quiet = true;
			break;
		case 'h':
			discard_help();
			return CLI_OK;
		default:
			return cli_usage_error(argv[0]);
		}
	}
	if (argc - optind != 1) {
		log_error(argc == optind ? "discard: a delta is needed, or an image with one beside it" : "discard: one delta at a time");
		return cli_usage_error(argv[0]);
	}
	return run(argv[optind], yes, quiet);
}
