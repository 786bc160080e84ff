/* SPDX-License-Identifier: MIT */
/* pinfs: finds the command and calls it. */
#include "cli/cli.h"

#include "base/log.h"

struct command {
	const char *name;
	int (*run)(int argc, char **argv);
	const char *arguments, *summary;
	const char *also; /* names that people try, separated by spaces: only for suggestions */
};

static const struct group {
	const char *title;
	struct command commands[6];
} groups[] = {
	{"Mounting", {
		{"mount", cmd_mount, "IMAGE DIR", "show what is in an image as a directory", "attach open"},
		{"umount", cmd_umount, "DIR", "take it away again", "unmount detach close"},
		{"stat", cmd_stat, "DIR", "what a mount has counted", "counters statistics vmstat top"},
	}},
	{"Looking into an image without mounting it", {
		{"ls", cmd_ls, "IMAGE [PATH]...", "list directories", "list dir ll tree find"},
		{"cat", cmd_cat, "IMAGE PATH...", "write the content of files to standard output", "print type read"},
		{"info", cmd_info, "IMAGE", "label, sizes, features", "show status inspect file"},
		{"extract", cmd_extract, "IMAGE DIR [PATH]...", "unpack into a directory", "unpack unsquash x cp copy"},
	}},
	{"Changes that a writable mount has made", {
		{"diff", cmd_diff, "IMAGE [DELTA] [PATH]...", "what was added, changed, removed, renamed", "status changes log"},
		{"commit", cmd_commit, "IMAGE [DELTA] -o NEW", "a new image with the changes in it", "merge flatten squash save"},
		{"discard", cmd_discard, "DELTA", "drop the changes", "reset revert rollback drop undo"},
	}},
	{"For those who work on the format", {
		{"dump", cmd_dump, "IMAGE", "the structure of an image, piece by piece", "debug hexdump"},
	}},
	{"For those who work on filesystems and memory management", {
		{"lab", cmd_lab, "NAME...", "see designs of a page cache fail, and the rules hold", "explore test explorer"},
	}},
};

static const struct command *command_find(const char *name)
{
	for (size_t g = 0; g < ARRAY_SIZE(groups); g++)
		for (const struct command *c = groups[g].commands; c->name; c++)
			if (!strcmp(c->name, name))
				return c;
	return NULL;
}

static void help(void)
{
	puts("Usage: pinfs COMMAND [OPTION]... [ARGUMENT]...\n"
	     "Mounts compressed images as directories, without root, and looks into them.");
	for (size_t g = 0; g < ARRAY_SIZE(groups); g++) {
		printf("\n%s:\n", groups[g].title);
		for (const struct command *c = groups[g].commands; c->name; c++) {
			char left[40];

			snprintf(left, sizeof(left), "%s %s", c->name, c->arguments);
			printf("  %-28s %s\n", left, c->summary);
		}
	}
	puts("\nHelp:\n"
	     "  help COMMAND                 options of a command (also: pinfs COMMAND --help)\n"
	     "  --version                    version of this program and of the image format\n"
	     "\nExamples:\n"
	     "  mkfs.pinfs photos photos.pinfs           make an image of a directory\n"
	     "  pinfs mount photos.pinfs ~/mnt           look at it; programs read it as usual\n"
	     "  pinfs umount ~/mnt\n"
	     "  pinfs ls -l photos.pinfs 2024\n"
	     "  pinfs extract photos.pinfs out 2024      unpack one folder of it into 'out'\n"
	     "\nImages are made by mkfs.pinfs and checked by fsck.pinfs. Manual: man pinfs.");
}

static void version(void)
{
	printf("pinfs " PINFS_VERSION ", image format %u.%u\n", PINFS_VERSION_MAJOR, PINFS_VERSION_MINOR);
}

/* How many letters have to be inserted, removed, changed or swapped with a neighbour to make b of a. */
static unsigned edit_distance(const char *a, const char *b)
{
	enum { MAX_LEN = 16 };
	unsigned d[MAX_LEN + 1][MAX_LEN + 1];
	size_t n = strlen(a), m = strlen(b);

	if (n > MAX_LEN || m > MAX_LEN)
		return MAX_LEN;
	for (size_t i = 0; i <= n; i++) {
		for (size_t j = 0; j <= m; j++) {
			if (!i || !j) {
				d[i][j] = (unsigned)(i + j);
				continue;
			}
			d[i][j] = MIN(d[i - 1][j], d[i][j - 1]) + 1;
			d[i][j] = MIN(d[i][j], d[i - 1][j - 1] + (a[i - 1] != b[j - 1]));
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
				d[i][j] = MIN(d[i][j], d[i - 2][j - 2] + 1);
		}
	}
	return d[n][m];
}

static bool word_in(const char *words, const char *word)
{
	size_t len = strlen(word);

	for (const char *p = words; p && len; p = strchr(p, ' ')) {
		p += *p == ' ';
		if (!strncmp(p, word, len) && (p[len] == ' ' || !p[len]))
			return true;
	}
	return false;
}

static const char *suggestion(const char *name)
{
	unsigned best = strlen(name) < 4 ? 2 : 3; /* less than this is near enough */
	const char *ret = NULL;

	for (size_t g = 0; g < ARRAY_SIZE(groups); g++) {
		for (const struct command *c = groups[g].commands; c->name; c++) {
			unsigned d = word_in(c->also, name) ? 0 : edit_distance(name, c->name);

			if (d < best) {
				best = d;
				ret = c->name;
			}
		}
	}
	return ret;
}

static int unknown_command(const char *name)
{
	const char *near = suggestion(name);

	if (name[0] == '-')
		log_error("unknown option '%s'; options of a command come after its name", name);
	else if (near)
		log_error("'%s' is not a command of pinfs; did you mean 'pinfs %s'?", name, near);
	else if (access(name, F_OK) == 0)
		log_error("'%s' is not a command of pinfs; to mount it: pinfs mount %s DIR", name, name);
	else
		log_error("'%s' is not a command of pinfs", name);
	fputs("Try 'pinfs --help'.\n", stderr);
	return 1;
}

static int command_run(const struct command *c, int argc, char **argv)
{
	char name[32];

	snprintf(name, sizeof(name), "pinfs %s", c->name);
	argv[0] = name;
	return c->run(argc, argv);
}

static int command_help(int argc, char **argv)
{
	char option[] = "--help", *args[] = {NULL, option, NULL};
	const struct command *c;

	if (argc < 2) {
		help();
		return 0;
	}
	c = command_find(argv[1]);
	return c ? command_run(c, 2, args) : unknown_command(argv[1]);
}

static int dispatch(int argc, char **argv)
{
	const struct command *c;

	if (argc < 2) {
		fputs("Usage: pinfs COMMAND [OPTION]... [ARGUMENT]...\nTry 'pinfs --help'.\n", stderr);
		return 1;
	}
	if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h")) {
		help();
		return 0;
	}
	if (!strcmp(argv[1], "--version") || !strcmp(argv[1], "-V") || !strcmp(argv[1], "version")) {
		version();
		return 0;
	}
	if (!strcmp(argv[1], "help"))
		return command_help(argc - 1, argv + 1);
	c = command_find(argv[1]);
	return c ? command_run(c, argc - 1, argv + 1) : unknown_command(argv[1]);
}

/* A full disk or a closed pipe shows itself only now. */
static int finish(int status)
{
	bool failed = ferror(stdout);

	errno = 0;
	if (fflush(stdout) || failed) {
		log_error("can't write to standard output: %s", errno ? strerror(errno) : "write error");
		return status ? status : 1;
	}
	return status;
}

int main(int argc, char **argv)
{
	const char *name = argc && argv[0] ? argv[0] : "pinfs";

	ensure_standard_descriptors();
	name = strrchr(name, '/') ? strrchr(name, '/') + 1 : name;
	if (!strcmp(name, "mount.pinfs") || !strcmp(name, "mount.fuse.pinfs")) {
		log_init(name, LOG_LEVEL_INFO);
		return finish(mount_helper_main(argc, argv));
	}
	if (!strcmp(name, "umount.pinfs") || !strcmp(name, "umount.fuse.pinfs")) {
		log_init(name, LOG_LEVEL_INFO);
		return finish(cmd_umount(argc, argv));
	}
	log_init("pinfs", LOG_LEVEL_INFO);
	return finish(dispatch(argc, argv));
}
