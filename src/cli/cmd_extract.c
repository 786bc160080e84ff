/* SPDX-License-Identifier: MIT */
/* pinfs extract: unpacks an image into a directory. */
#include "cli/cli.h"

#include <getopt.h>
#include <inttypes.h>
#include <signal.h>

#include "base/log.h"
#include "mkfs/extract.h"

#define THREADS_MAX 64

static void extract_help(void)
{
	puts("Usage: pinfs extract [OPTION]... IMAGE DIR [PATH]...\n"
	     "  or:  pinfs extract [OPTION]... -d DIR IMAGE [PATH]...\n"
	     "Unpacks an image, or only the PATHs inside it, into the directory DIR, which is made if it isn't there.\n"
	     "\n"
	     "  -d, --directory=DIR    where to\n"
	     "  -f, --force            replace files that are in the way (else they stay, and it is an error)\n"
	     "  -e, --exclude=PATTERN  leave out what matches, as 'a/b/*.o' or, for every directory, '*.o'\n"
	     "      --no-same-owner    files belong to you; the default for all but root\n"
	     "      --same-owner       set owner and group; the default for root\n"
	     "      --no-xattrs        no extended attributes, ACLs and capabilities\n"
	     "      --keep-damaged     keep files with damaged content, with zeros for what can't be read\n"
	     "  -j, --threads=N        (default: one for each processor)\n"
	     "  -v, --verbose          print each path\n"
	     "  -q, --quiet            errors only\n"
	     "      --progress         show progress also if standard error is not a terminal; --no-progress: never\n"
	     "      --json             print a summary for programs\n"
	     "      --offset=N         the image begins at byte N of its file (default: auto)\n"
	     "  -h, --help             this text\n"
	     "\n"
	     "Exit status: 0 everything is there, 1 something is missing (it is said what), 2 wrong usage.");
}

/* Set by the signal handler, read by all threads. */
static atomic_bool stop;
static volatile sig_atomic_t stop_signal;

static void on_signal(int signal)
{
	stop_signal = signal;
	atomic_store(&stop, true);
}

static void catch_signals(void)
{
	/* The second one ends the program as usual. */
	struct sigaction sa = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND | SA_RESTART}, old;
	static const int signals[] = {SIGINT, SIGTERM, SIGHUP};

	sigemptyset(&sa.sa_mask);
	for (size_t i = 0; i < ARRAY_SIZE(signals); i++)
		if (sigaction(signals[i], NULL, &old) == 0 && old.sa_handler != SIG_IGN)
			sigaction(signals[i], &sa, NULL);
}

struct arguments {
	struct extract_options options;
	char **excludes;
	size_t exclude_capacity;
	const char *image, *offset;
	bool quiet, json, verbose;
};

enum {
	OPTION_SAME_OWNER = 256,
	OPTION_NO_SAME_OWNER,
	OPTION_NO_XATTRS,
	OPTION_KEEP_DAMAGED,
	OPTION_PROGRESS,
	OPTION_NO_PROGRESS,
	OPTION_JSON,
	OPTION_OFFSET,
};

static const struct option extract_options[] = {
	{"directory", required_argument, NULL, 'd'},
	{"force", no_argument, NULL, 'f'},
	{"exclude", required_argument, NULL, 'e'},
	{"same-owner", no_argument, NULL, OPTION_SAME_OWNER},
	{"no-same-owner", no_argument, NULL, OPTION_NO_SAME_OWNER},
	{"no-xattrs", no_argument, NULL, OPTION_NO_XATTRS},
	{"keep-damaged", no_argument, NULL, OPTION_KEEP_DAMAGED},
	{"threads", required_argument, NULL, 'j'},
	{"verbose", no_argument, NULL, 'v'},
	{"quiet", no_argument, NULL, 'q'},
	{"progress", no_argument, NULL, OPTION_PROGRESS},
	{"no-progress", no_argument, NULL, OPTION_NO_PROGRESS},
	{"json", no_argument, NULL, OPTION_JSON},
	{"offset", required_argument, NULL, OPTION_OFFSET},
	{"help", no_argument, NULL, 'h'},
	{0},
};

static int parse_threads(const char *text, unsigned *ret)
{
	uint64_t n;

	if (parse_u64(text, 1, THREADS_MAX, &n) < 0) {
		log_error("extract: --threads takes a number from 1 to %d, not '%s'", THREADS_MAX, text);
		return -EINVAL;
	}
	*ret = (unsigned)n;
	return 0;
}

static int add_exclude(struct arguments *a, char *pattern)
{
	size_t n = a->options.exclude_count;

	if (array_reserve(&a->excludes, &a->exclude_capacity, n + 1, sizeof(*a->excludes)) < 0) {
		log_error("out of memory");
		return -ENOMEM;
	}
	a->excludes[n] = pattern;
	a->options.excludes = a->excludes;
	a->options.exclude_count = n + 1;
	return 0;
}

/* One option. 0, or -EINVAL: wrong usage. */
static int parse_option(struct arguments *a, int c)
{
	struct extract_options *o = &a->options;

	switch (c) {
	case 'd':
		o->target = optarg;
		return 0;
	case 'f':
		o->force = true;
		return 0;
	case 'e':
		return add_exclude(a, optarg);
	case 'j':
		return parse_threads(optarg, &o->threads);
	case 'v':
		a->verbose = true;
		return 0;
	case 'q':
		a->quiet = true;
		o->progress = PROGRESS_NEVER;
		return 0;
	case OPTION_SAME_OWNER:
	case OPTION_NO_SAME_OWNER:
		o->same_owner = c == OPTION_SAME_OWNER;
		return 0;
	case OPTION_NO_XATTRS:
		o->no_xattrs = true;
		return 0;
	case OPTION_KEEP_DAMAGED:
		o->keep_damaged = true;
		return 0;
	case OPTION_PROGRESS:
	case OPTION_NO_PROGRESS:
		o->progress = c == OPTION_PROGRESS ? PROGRESS_ALWAYS : PROGRESS_NEVER;
		return 0;
	case OPTION_JSON:
		a->json = true;
		return 0;
	case OPTION_OFFSET:
		a->offset = optarg;
		return 0;
	default:
		return -EINVAL;
	}
}

/* IMAGE [DIR] [PATH]... */
static int parse_operands(struct arguments *a, int argc, char **argv)
{
	struct extract_options *o = &a->options;
	int i = optind;

	if (i == argc) {
		log_error("extract: an image is needed, and a directory to unpack it into");
		return -EINVAL;
	}
	a->image = argv[i++];
	if (!o->target && i == argc) {
		log_error("extract: into which directory? For the current one: pinfs extract %s .", a->image);
		return -EINVAL;
	}
	if (!o->target)
		o->target = argv[i++];
	if (!*o->target) {
		log_error("extract: the name of the directory is empty");
		return -EINVAL;
	}
	o->paths = argv + i;
	o->path_count = (size_t)(argc - i);
	if (a->verbose && !a->quiet)
		o->verbose = a->json ? stderr : stdout;
	return 0;
}

static void json_summary(const struct arguments *a, const struct extract_stats *s, int result, double seconds)
{
	const struct {
		const char *name;
		uint64_t value;
	} numbers[] = {
		{"files", s->files},
		{"directories", s->directories},
		{"symlinks", s->symlinks},
		{"hard_links", s->hard_links},
		{"devices", s->devices},
		{"fifos", s->fifos},
		{"sockets", s->sockets},
		{"bytes", s->bytes},
		{"errors", s->errors},
		{"damaged", s->damaged},
		{"xattrs_skipped", s->xattrs_skipped},
	};

	printf("{\"image\": ");
	json_string(stdout, a->image, strlen(a->image));
	printf(", \"directory\": ");
	json_string(stdout, a->options.target, strlen(a->options.target));
	for (size_t i = 0; i < ARRAY_SIZE(numbers); i++)
		printf(", \"%s\": %" PRIu64, numbers[i].name, numbers[i].value);
	printf(", \"interrupted\": %s, \"seconds\": %.3f}\n", result == -EINTR ? "true" : "false", seconds);
}

static void summary(const struct arguments *a, const struct extract_stats *s, int result)
{
	uint64_t others = s->symlinks + s->hard_links + s->devices + s->fifos + s->sockets;
	char size[32];

	if (s->xattrs_skipped && !a->quiet)
		log_info("%" PRIu64 " extended attributes (security.*, trusted.*) were left out: only root can set them",
			s->xattrs_skipped);
	if (s->damaged && !a->options.keep_damaged)
		log_error("%" PRIu64 " files were damaged in the image; --keep-damaged keeps what can be read of them",
			s->damaged);
	if (result == -EINTR)
		log_error("interrupted; %s is not complete", a->options.target);
	else if (s->errors)
		log_error("%s is not complete: %" PRIu64 " error%s", a->options.target, s->errors,
			s->errors == 1 ? "" : "s");
	else if (!a->quiet && isatty(STDERR_FILENO))
		log_info("%" PRIu64 " files, %" PRIu64 " directories, %" PRIu64 " others; %s", s->files,
			s->directories, others, format_size(s->bytes, size, sizeof(size)));
}

static int run(struct arguments *a)
{
	struct extract_stats stats = {0};
	struct tool_damage damage = {0};
	uint64_t start = now_ns();
	struct image *image;
	int r;

	if (tool_image_open(a->image, a->offset, &damage, &image) < 0)
		return CLI_FAIL;
	catch_signals();
	r = extract_run(image, &a->options, &stats);
	image_close(image);
	if (r == 0 || r == -EINTR) {
		if (a->json)
			json_summary(a, &stats, r, (double)(now_ns() - start) / 1e9);
		summary(a, &stats, r);
	}
	if (stop_signal) {
		/* Whoever waits for us shall see why we ended. */
		fflush(stdout);
		signal(stop_signal, SIG_DFL);
		raise(stop_signal);
	}
	return r < 0 || stats.errors ? CLI_FAIL : CLI_OK;
}

int cmd_extract(int argc, char **argv)
{
	struct arguments a = {.options = {.same_owner = geteuid() == 0, .stop = &stop}};
	int c, status;

	while ((c = getopt_long(argc, argv, "d:fe:j:vqh", extract_options, NULL)) != -1) {
		if (c == 'h') {
			extract_help();
			free(a.excludes);
			return CLI_OK;
		}
		if (parse_option(&a, c) < 0) {
			free(a.excludes);
			return cli_usage_error(argv[0]);
		}
	}
	if (parse_operands(&a, argc, argv) < 0)
		status = cli_usage_error(argv[0]);
	else
		status = run(&a);
	free(a.excludes);
	return status;
}
