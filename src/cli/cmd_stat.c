/* SPDX-License-Identifier: MIT */
/* pinfs stat: what a mount has counted since it began. */
#include "cli/cli.h"

#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <sys/ioctl.h>

#include "base/log.h"
#include "cache/cache.h"
#include "pinfs/ioctl.h"

static const struct {
	const char *name, *what;
} known[] = {
	{"cache_limit", "bytes of memory for content, at most"},
	{"cache_used", "bytes of them in use"},
	{"cache_kept", "bytes that the system doesn't have: in use, or free but touched"},
	{"cache_dirty", "bytes that have to be written"},
#define COUNTER(name, what) {#name, what},
	CACHE_COUNTERS(COUNTER)
#undef COUNTER
	{"delta_failed", "number of the error (errno) since which nothing is written any more"},
	{"delta_generation", "checkpoints of the delta, ever"},
	{"delta_checkpoints", "of them, by this mount"},
	{"delta_flushes", "flushes of the disk"},
	{"delta_frames", "transactions written"},
	{"delta_replayed", "transactions of the log that were applied when it was mounted"},
	{"delta_written", "number of the last transaction"},
	{"delta_durable", "number of the last one that is known to be on the disk"},
	{"delta_log_bytes", "length of the log"},
	{"delta_log_used", "bytes of the log that the next checkpoint frees"},
	{"delta_items", "items of the tree"},
	{"delta_files", "files, directories and all else that there is"},
	{"delta_pages_live", "pages of 4 KiB in use"},
	{"delta_pages_pending", "pages that are free after the next checkpoint"},
	{"delta_pages_reserved", "pages promised to content that is dirty"},
	{"delta_pages_free", "pages that could be had"},
};

static const char *describe(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(known); i++)
		if (!strcmp(known[i].name, name))
			return known[i].what;
	return "";
}

static void stat_help(void)
{
	puts("Usage: pinfs stat [OPTION]... DIR\n"
	     "Shows what the mount on DIR has counted since it was mounted; R1 to R13 are the rules of its page cache.\n"
	     "\n"
	     "  -a, --all        also what is zero\n"
	     "      --json       for programs: all, as one object\n"
	     "  -h, --help       this text");
}

static int ask(const char *dir, struct pinfs_ioc_stat *ret)
{
	_cleanup_close_ int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0) {
		log_error("%s: %s", dir, strerror(errno));
		return -errno;
	}
	*ret = (struct pinfs_ioc_stat){.size = sizeof(*ret)};
	if (ioctl(fd, PINFS_IOC_STAT, ret) < 0) {
		bool other = errno == ENOTTY || errno == EINVAL || errno == EOPNOTSUPP;

		log_error("%s: %s", dir, other ? "no pinfs is mounted there (or one of an earlier version): name the directory that it is mounted on" : strerror(errno));
		return -errno;
	}
	/* Nobody's word for it. */
	if (ret->length >= sizeof(ret->text))
		ret->length = sizeof(ret->text) - 1;
	ret->text[ret->length] = 0;
	return 0;
}

/* A line, cut into name and number. False: it is none. */
static bool parse(char *line, const char **ret_name, uint64_t *ret)
{
	char *space = strchr(line, ' '), *end;

	if (!space || space == line || line + strspn(line, "abcdefghijklmnopqrstuvwxyz0123456789_") != space)
		return false;
	*space = 0;
	*ret_name = line;
	errno = 0;
	*ret = strtoull(space + 1, &end, 10);
	return !errno && end != space + 1 && !*end;
}

int cmd_stat(int argc, char **argv)
{
	static const struct option options[] = {
		{"all", no_argument, NULL, 'a'},
		{"json", no_argument, NULL, 'j'},
		{"help", no_argument, NULL, 'h'},
		{0},
	};
	bool all = false, json = false, first = true;
	struct pinfs_ioc_stat stat;
	char *rest = stat.text, *line;
	int c;

	while ((c = getopt_long(argc, argv, "ah", options, NULL)) != -1) {
		switch (c) {
		case 'a':
			all = true;
			break;
		case 'j':
			json = true;
			break;
		case 'h':
			stat_help();
			return CLI_OK;
		default:
			return cli_usage_error(argv[0]);
		}
	}
	if (argc - optind != 1) {
		log_error(argc == optind ? "stat: the directory of a mount is needed" : "stat: one mount at a time");
		return cli_usage_error(argv[0]);
	}
	if (ask(argv[optind], &stat) < 0)
		return CLI_FAIL;
	if (json)
		putchar('{');
	while ((line = strsep(&rest, "\n"))) {
		const char *name;
		uint64_t value;

		if (!parse(line, &name, &value))
			continue;
		if (json)
			printf("%s\n  \"%s\": %" PRIu64, first ? "" : ",", name, value);
		else if (value || all)
			printf("%-22s %12" PRIu64 "  %s\n", name, value, describe(name));
		first = false;
	}
	if (json)
		puts("\n}");
	return CLI_OK;
}
