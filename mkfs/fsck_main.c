/* SPDX-License-Identifier: MIT */
/* fsck.pinfs: options, messages and exit codes around fsck_run(). */
#include "mkfs/fsck.h"

#include <getopt.h>
#include <inttypes.h>
#include <signal.h>

#include "base/log.h"
#include "io/store.h"

#define METADATA_CACHE (32u << 20)

struct main_options {
	const char *path, *delta_path, *offset_text;
	bool repair, give_up, no_change, json, quiet, verbose;
	uint64_t threads;
	enum progress_mode progress;
};

static volatile sig_atomic_t interrupted;

static void on_signal(int number)
{
	interrupted = 1;
}

static bool is_cancelled(void *context)
{
	return interrupted;
}

static void help(void)
{
	puts("Usage: fsck.pinfs [OPTION]... IMAGE [DELTA]\n"
	     "Verifies every byte of a pinfs image: checksums, compressed data, directories, links, unused space.\n"
	     "With a DELTA: verifies the changes that a writable mount keeps there, and that they fit the image.\n"
	     "\n"
	     "  -n              change nothing (the default)\n"
	     "  -a, -p          repair. Of an image: restore a damaged superblock from its copy. Of a delta: back to a\n"
	     "                  sound state, and say what was lost; content with wrong checksums stays unreadable\n"
	     "  -y              the same, and of a delta: content with wrong checksums becomes zeroes\n"
	     "  -f              accepted: every check is a full one\n"
	     "  -v              print figures\n"
	     "  -q, --quiet     print problems only\n"
	     "      --json      print one JSON object on standard output, and no messages\n"
	     "      --offset=N  the image begins at byte N of its file (64K, 1M ...; default: auto)\n"
	     "  -j, --threads=N use N threads (default: one for each processor)\n"
	     "  -C, --progress  show progress even if standard error is no terminal; --no-progress: never\n"
	     "  -h, --help      print this\n"
	     "  -V, --version   print the version\n"
	     "\n"
	     "Exit status: 0 sound, 1 corrected, 4 damaged (5: corrected in part), 8 not checked, 16 wrong usage,\n"
	     "32 interrupted.");
}

static int usage_error(void)
{
	fputs("Try 'fsck.pinfs --help'.\n", stderr);
	return FSCK_USAGE;
}

enum { OPT_JSON = 256, OPT_OFFSET, OPT_NO_PROGRESS };

static const struct option long_options[] = {
	{"quiet", no_argument, NULL, 'q'},
	{"json", no_argument, NULL, OPT_JSON},
	{"offset", required_argument, NULL, OPT_OFFSET},
	{"threads", required_argument, NULL, 'j'},
	{"progress", no_argument, NULL, 'C'},
	{"no-progress", no_argument, NULL, OPT_NO_PROGRESS},
	{"verbose", no_argument, NULL, 'v'},
	{"help", no_argument, NULL, 'h'},
	{"version", no_argument, NULL, 'V'},
	{0},
};

/* -1: go on; else the exit code. */
static int parse_option(struct main_options *o, int c)
{
	switch (c) {
	case 'n':
		o->no_change = true;
		return -1;
	case 'y':
		o->give_up = true;
		/* fall through */
	case 'a':
	case 'p':
		o->repair = true;
		return -1;
	case 'f':
		return -1;
	case 'v':
		o->verbose = true;
		return -1;
	case 'q':
		o->quiet = true;
		return -1;
	case 'C': /* fsck(8) puts a file descriptor behind it, or 0; the line always goes to stderr */
		o->progress = PROGRESS_ALWAYS;
		return -1;
	case OPT_NO_PROGRESS:
		o->progress = PROGRESS_NEVER;
		return -1;
	case OPT_JSON:
		o->json = true;
		return -1;
	case OPT_OFFSET:
		o->offset_text = optarg;
		return -1;
	case 'j':
		if (parse_u64(optarg, 1, 1024, &o->threads) == 0)
			return -1;
		log_error("'%s' is not a number of threads from 1 to 1024", optarg);
		return usage_error();
	case 'h':
		help();
		return FSCK_OK;
	case 'V':
		printf("fsck.pinfs " PINFS_VERSION ", image format %u.%u\n", PINFS_VERSION_MAJOR, PINFS_VERSION_MINOR);
		return FSCK_OK;
	default:
		return usage_error();
	}
}

static int parse(struct main_options *o, int argc, char **argv)
{
	int c;

	while ((c = getopt_long(argc, argv, "nyapfvqC::j:hV", long_options, NULL)) != -1) {
		int r = parse_option(o, c);

		if (r >= 0)
			return r;
	}
	if (argc - optind < 1 || argc - optind > 2) {
		log_error(argc == optind ? "no image was given" : "more than an image and a delta were given");
		return usage_error();
	}
	if (o->repair && o->no_change) {
		log_error("-n (change nothing) and -y, -a or -p (repair) exclude each other");
		return usage_error();
	}
	o->path = argv[optind];
	o->delta_path = argv[optind + 1];
	return -1;
}

/* ---- results ---- */

static void on_problem(void *context, const struct fsck_problem *p)
{
	const struct main_options *o = context;

	if (!o->json)
		log_error("%s: byte %ju: %s", o->path, (uintmax_t)p->offset, p->text);
}

static void json_strings(char **list, size_t count)
{
	putchar('[');
	for (size_t i = 0; i < count; i++) {
		fputs(i ? ", " : "", stdout);
		json_string(stdout, list[i], strlen(list[i]));
	}
	putchar(']');
}

static void json_figures(const struct fsck_report *r)
{
	const struct {
		const char *name;
		uint64_t value;
	} figures[] = {
		{"regular_files", r->regular}, {"directories", r->directories}, {"symlinks", r->symlinks},
		{"devices", r->devices}, {"fifos", r->fifos}, {"sockets", r->sockets},
		{"unreadable_inodes", r->unreadable_inodes}, {"unreached_inodes", r->unreached}, {"names", r->names},
		{"hard_links", r->hard_links}, {"xip_files", r->xip_files}, {"xattr_sets", r->xattr_sets},
		{"extents", r->extents}, {"file_bytes", r->file_bytes}, {"blocks", r->blocks},
		{"blocks_not_compressed", r->blocks_raw_codec}, {"blocks_unreferenced", r->blocks_unreferenced},
		{"block_bytes_stored", r->block_stored}, {"block_bytes_raw", r->block_raw},
		{"metadata_bytes_stored", r->metadata_stored}, {"metadata_bytes_raw", r->metadata_raw},
		{"padding_bytes", r->padding},
	};

	fputs(",\n  \"figures\": {", stdout);
	for (size_t i = 0; i < ARRAY_SIZE(figures); i++)
		printf("\n    \"%s\": %" PRIu64 ",", figures[i].name, figures[i].value);
	printf("\n    \"seconds\": %.3f\n  }", r->seconds);
}

/* info: NULL if the image could not be opened, for the reason `error`. */
static void print_json(const struct main_options *o, const struct image_info *info, const struct fsck_report *r,
	const char *error, int status)
{
	bool whole = !error;

	fputs("{\n  \"path\": ", stdout);
	json_string(stdout, o->path, strlen(o->path));
	if (info)
		printf(",\n  \"offset\": %" PRIu64, info->offset);
	printf(",\n  \"ok\": %s,\n  \"exit_status\": %d", whole && !(status & ~FSCK_CORRECTED) ? "true" : "false",
		status);
	printf(",\n  \"corrected\": %s,\n  \"errors\": %" PRIu64, status & FSCK_CORRECTED ? "true" : "false",
		r->errors);
	if (error) {
		fputs(",\n  \"error\": ", stdout);
		json_string(stdout, error, strlen(error));
	}
	fputs(",\n  \"problems\": [", stdout);
	for (size_t i = 0; i < r->problem_count; i++) {
		printf("%s\n    {\"offset\": %" PRIu64 ", \"text\": ", i ? "," : "", r->problems[i].offset);
		json_string(stdout, r->problems[i].text, strlen(r->problems[i].text));
		putchar('}');
	}
	printf("%s],\n  \"affected\": %" PRIu64 ",\n  \"affected_paths\": ", r->problem_count ? "\n  " : "",
		r->affected);
	json_strings(r->affected_paths, r->affected_count);
	if (info)
		json_figures(r);
	puts("\n}");
}

static void print_damage(const struct main_options *o, const struct fsck_report *r, bool super_left)
{
	if (r->errors > r->problem_count)
		log_error("%s: %ju more problems are not shown", o->path, (uintmax_t)(r->errors - r->problem_count));
	for (size_t i = 0; i < r->affected_count; i++) {
		char *shown = malloc(4 * strlen(r->affected_paths[i]) + 8);

		if (shown)
			log_error("%s: not whole: %s", o->path, name_escape(r->affected_paths[i],
				strlen(r->affected_paths[i]), shown, 4 * strlen(r->affected_paths[i]) + 8));
		free(shown);
	}
	if (r->affected > r->affected_count)
		log_error("%s: %ju more names are not whole", o->path, (uintmax_t)(r->affected - r->affected_count));
	if (r->unreached)
		log_error("%s: %ju inodes have lost names, which may stand in what can't be read", o->path,
			(uintmax_t)r->unreached);
	if (super_left && r->super_damaged[0] != r->super_damaged[1])
		log_error("%s: 'fsck.pinfs -y' restores the %s superblock from its copy", o->path,
			r->super_damaged[0] ? "first" : "second");
}

static void print_figures(const struct fsck_report *r)
{
	uint64_t inodes = r->regular + r->directories + r->symlinks + r->devices + r->fifos + r->sockets;
	char a[32], b[32];

	printf("  inodes     %" PRIu64 ": %" PRIu64 " files, %" PRIu64 " directories, %" PRIu64 " symbolic links, %" PRIu64
	       " devices, %" PRIu64 " FIFOs, %" PRIu64 " sockets\n",
		inodes, r->regular, r->directories, r->symlinks, r->devices, r->fifos, r->sockets);
	printf("  names      %" PRIu64 ", of them %" PRIu64 " hard links to a file with another name\n", r->names,
		r->hard_links);
	printf("  content    %s in files, %" PRIu64 " extents, %" PRIu64 " files for execution in place\n",
		format_size(r->file_bytes, a, sizeof(a)), r->extents, r->xip_files);
	printf("  blocks     %" PRIu64 ": %s stored for %s, %" PRIu64 " not compressed, %" PRIu64 " not used\n", r->blocks,
		format_size(r->block_stored, a, sizeof(a)), format_size(r->block_raw, b, sizeof(b)),
		r->blocks_raw_codec, r->blocks_unreferenced);
	printf("  metadata   %s stored for %s, %" PRIu64 " sets of extended attributes\n",
		format_size(r->metadata_stored, a, sizeof(a)), format_size(r->metadata_raw, b, sizeof(b)),
		r->xattr_sets);
	printf("  padding    %s\n", format_size(r->padding, a, sizeof(a)));
}

static void print_summary(const struct main_options *o, const struct image_info *info, const struct fsck_report *r,
	int status)
{
	char size[32];

	if (status & FSCK_UNCORRECTED)
		printf("%s: DAMAGED: %" PRIu64 " problem%s", o->path, r->errors, r->errors == 1 ? "" : "s");
	else
		printf("%s: %s: %" PRIu64 " inodes, %" PRIu64 " blocks", o->path,
			status & FSCK_CORRECTED ? "corrected" : "sound", info->inode_count, info->block_count);
	printf(", %s checked in %.2f s\n", format_size(info->image_size, size, sizeof(size)), r->seconds);
	if (o->verbose)
		print_figures(r);
	else if (r->blocks_unreferenced && !r->errors)
		printf("%s: %" PRIu64 " blocks belong to no file; that wastes space and does no harm\n", o->path,
			r->blocks_unreferenced);
}

/* ---- the work ---- */

/* What could be done about the superblocks. Returns how many problems are gone. */
static unsigned repair(const struct main_options *o, struct image *image, const struct fsck_report *rep)
{
	static const char *const name[] = {"first", "second"};
	unsigned fixed = 0;

	for (unsigned i = 0; i < 2; i++) {
		int r;

		if (!rep->super_damaged[i])
			continue;
		r = rep->super_damaged[!i] ? -EUCLEAN : fsck_repair_super(image, o->path, i);
		if (r == 0) {
			fixed++;
			if (!o->json)
				log_info("%s: the %s superblock was restored from its copy", o->path, name[i]);
		} else {
			log_error("%s: can't restore the %s superblock: %s", o->path, name[i],
				r == -EUCLEAN ? "its copy is damaged too" :
				r == -ESTALE  ? "the file was replaced meanwhile; run fsck.pinfs again" :
						strerror(-r));
		}
	}
	return fixed;
}

static int check(const struct main_options *o, struct image *image)
{
	struct fsck_options options = {
		.threads = (unsigned)o->threads,
		.progress = o->progress,
		.cancelled = is_cancelled,
		.on_problem = on_problem,
		.context = (void *)o,
	};
	struct fsck_report report;
	const char *error = NULL;
	int r = fsck_run(image, &options, &report), status = FSCK_OK;
	unsigned fixed = 0;

	if (r < 0) {
		status = r == -ECANCELED ? FSCK_CANCELLED : FSCK_ERROR;
		error = r == -ECANCELED ? "interrupted before everything was checked" : strerror(-r);
		if (!o->json)
			log_error("%s: %s", o->path, error);
	} else if (o->repair) {
		fixed = repair(o, image, &report);
	}
	status |= (fixed ? FSCK_CORRECTED : 0) | (report.errors > fixed ? FSCK_UNCORRECTED : 0);
	if (o->json) {
		print_json(o, image_get_info(image), &report, error, status);
	} else {
		print_damage(o, &report, !fixed);
		if (!o->quiet && r == 0)
			print_summary(o, image_get_info(image), &report, status);
	}
	fsck_report_free(&report);
	return status;
}

/* ---- a delta ---- */

static int open_delta(void *context, bool write, struct store **ret)
{
	const struct main_options *o = context;

	return store_open(o->delta_path, write ? 0 : STORE_READ_ONLY, ret);
}

static void on_delta_problem(void *context, const struct fsck_problem *p)
{
	const struct main_options *o = context;

	if (!o->json)
		log_error("%s: byte %ju: %s", o->delta_path, (uintmax_t)p->offset, p->text);
}

static void on_delta_note(void *context, const char *text)
{
	const struct main_options *o = context;

	if (!o->json && !o->quiet)
		log_info("%s: %s", o->delta_path, text);
}

static void print_delta_json(const struct main_options *o, const struct fsck_delta_report *r, int status)
{
	const struct {
		const char *name;
		uint64_t value;
	} figures[] = {
		{"items", r->items}, {"inodes", r->inodes}, {"new_inodes", r->new_inodes}, {"removed_inodes", r->gone}, {"names", r->names},
		{"hidden_names", r->hidden}, {"extents", r->extents}, {"xattrs", r->xattrs}, {"inodes_without_name", r->orphans},
		{"shared_runs", r->shared}, {"content_pages", r->content_pages}, {"nodes", r->nodes}, {"used_pages", r->live_pages},
		{"frames_to_apply", r->replayed}, {"generation", r->generation},
	};

	fputs("{\n  \"path\": ", stdout);
	json_string(stdout, o->delta_path, strlen(o->delta_path));
	printf(",\n  \"ok\": %s,\n  \"exit_status\": %d,\n  \"corrected\": %s,\n  \"errors\": %" PRIu64, status & ~FSCK_CORRECTED ? "false" : "true",
		status, r->corrected ? "true" : "false", r->errors);
	if (r->error[0]) {
		fputs(",\n  \"error\": ", stdout);
		json_string(stdout, r->error, strlen(r->error));
	}
	fputs(",\n  \"problems\": [", stdout);
	for (size_t i = 0; i < r->problem_count; i++) {
		printf("%s\n    {\"offset\": %" PRIu64 ", \"text\": ", i ? "," : "", r->problems[i].offset);
		json_string(stdout, r->problems[i].text, strlen(r->problems[i].text));
		putchar('}');
	}
	printf("%s],\n  \"affected\": %" PRIu64 ",\n  \"affected_paths\": ", r->problem_count ? "\n  " : "", r->affected);
	json_strings(r->affected_paths, r->affected_count);
	fputs(",\n  \"figures\": {", stdout);
	for (size_t i = 0; i < ARRAY_SIZE(figures); i++)
		printf("\n    \"%s\": %" PRIu64 ",", figures[i].name, figures[i].value);
	printf("\n    \"seconds\": %.3f\n  }\n}\n", r->seconds);
}

static void print_delta(const struct main_options *o, const struct fsck_delta_report *r, int status)
{
	if (r->errors > r->problem_count)
		log_error("%s: %ju more problems are not shown", o->delta_path, (uintmax_t)(r->errors - r->problem_count));
	for (size_t i = 0; i < r->affected_count; i++) {
		size_t size = 4 * strlen(r->affected_paths[i]) + 8;
		char *shown = malloc(size);

		if (shown)
			log_error("%s: not whole: %s", o->delta_path, name_escape(r->affected_paths[i], strlen(r->affected_paths[i]), shown, size));
		free(shown);
	}
	if (r->affected > r->affected_count)
		log_error("%s: %ju more files are not whole", o->delta_path, (uintmax_t)(r->affected - r->affected_count));
	if (r->error[0])
		log_error("%s: %s", o->delta_path, r->error);
	else if (r->left && !o->give_up)
		log_error("%s: 'fsck.pinfs -y' %s", o->delta_path, o->repair ? "gives up what can't be read" : "repairs it");
	if (o->quiet || r->error[0])
		return;
	printf("%s: ", o->delta_path);
	if (status & FSCK_UNCORRECTED)
		printf("DAMAGED: %" PRIu64 " problem%s", r->left, r->left == 1 ? "" : "s");
	else
		printf("%s: %" PRIu64 " inodes changed", status & FSCK_CORRECTED ? "corrected" : "sound", r->inodes);
	printf(", %" PRIu64 " items checked in %.2f s\n", r->items, r->seconds);
	if (!o->verbose)
		return;
	printf("  inodes     %" PRIu64 ": %" PRIu64 " new, %" PRIu64 " removed, %" PRIu64 " without a name\n", r->inodes, r->new_inodes, r->gone, r->orphans);
	printf("  names      %" PRIu64 " new, %" PRIu64 " hidden\n", r->names, r->hidden);
	printf("  content    %" PRIu64 " extents, %" PRIu64 " pages, %" PRIu64 " runs of them shared; %" PRIu64 " extended attributes\n", r->extents, r->content_pages,
		r->shared, r->xattrs);
	printf("  pages      %" PRIu64 " used, %" PRIu64 " nodes of the tree; checkpoint %" PRIu64 ", %" PRIu64 " frames to apply\n", r->live_pages, r->nodes,
		r->generation, r->replayed);
}

static int check_delta(const struct main_options *o, struct image *image)
{
	struct fsck_delta_options options = {
		.repair = o->repair,
		.give_up = o->give_up,
		.cancelled = is_cancelled,
		.on_problem = on_delta_problem,
		.on_note = on_delta_note,
		.context = (void *)o,
		.open = open_delta,
		.open_context = (void *)o,
	};
	struct fsck_delta_report report;
	int r = fsck_delta_run(image, &options, &report), status = FSCK_OK;

	if (r < 0)
		status = r == -ECANCELED ? FSCK_CANCELLED : r == -EUCLEAN ? FSCK_UNCORRECTED : FSCK_ERROR;
	status |= (report.corrected ? FSCK_CORRECTED : 0) | (report.left ? FSCK_UNCORRECTED : 0);
	if (o->json)
		print_delta_json(o, &report, status);
	else
		print_delta(o, &report, status);
	fsck_delta_report_free(&report);
	return status;
}

/* Says what is wrong with the file as a whole; returns the exit code. */
static int refuse(const struct main_options *o, int r, const char *error)
{
	int status = r == -EUCLEAN ? FSCK_UNCORRECTED : FSCK_ERROR;
	struct fsck_report none = {.errors = r == -EUCLEAN};

	if (o->json)
		print_json(o, NULL, &none, error, status);
	else
		log_error("%s: %s", o->path, error);
	return status;
}

static int check_path(const struct main_options *o)
{
	unsigned threads = o->threads ? (unsigned)o->threads : tool_cpus();
	struct io_options io_options = {.caching = IO_CACHING_BUFFERED, .lanes = 2 * threads};
	struct image_options options = {.offset = IMAGE_OFFSET_AUTO, .metadata_cache = METADATA_CACHE,
		.on_damage = fsck_on_damage};
	char error[IMAGE_ERROR_SIZE];
	struct image *image;
	struct io_file *io;
	int r;

	if (o->offset_text && strcmp(o->offset_text, "auto") && parse_size(o->offset_text, &options.offset) < 0) {
		log_error("offset '%s' is neither a number of bytes nor 'auto'", o->offset_text);
		return usage_error();
	}
	r = io_open(o->path, &io_options, &io);
	if (r < 0)
		return refuse(o, r == -EUCLEAN ? -EIO : r, r == -ENOTBLK ? "neither a file nor a block device" :
			strerror(-r));
	r = image_open(io, &options, &image, error);
	if (r < 0) {
		io_close(io);
		return refuse(o, r, error);
	}
	r = o->delta_path ? check_delta(o, image) : check(o, image);
	image_close(image);
	return r;
}

int main(int argc, char **argv)
{
	struct sigaction action = {.sa_handler = on_signal};
	struct main_options o = {0};
	int status;

	ensure_standard_descriptors();
	log_init("fsck.pinfs", LOG_LEVEL_INFO);
	status = parse(&o, argc, argv);
	if (status < 0) {
		if (o.quiet || o.json)
			o.progress = o.progress == PROGRESS_ALWAYS ? PROGRESS_ALWAYS : PROGRESS_NEVER;
		sigaction(SIGINT, &action, NULL);
		sigaction(SIGTERM, &action, NULL);
		status = check_path(&o);
	}
	if (fflush(stdout) || ferror(stdout)) {
		log_error("can't write to standard output: %s", strerror(errno));
		status |= FSCK_ERROR;
	}
	return status;
}
