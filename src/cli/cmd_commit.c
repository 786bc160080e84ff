/* SPDX-License-Identifier: MIT */
/* pinfs commit: image and delta become a new image. */
#include "cli/cli.h"

#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <sys/stat.h>

#include "base/log.h"
#include "cli/merge.h"
#include "mkfs/options.h"

#define CACHE_LIMIT (64u << 20)

volatile sig_atomic_t mkfs_interrupted;

struct commit {
	struct mkfs_options options;
	struct merge_options merge_options;
	const char *image_path, *delta_path, *offset;
	char *beside; /* owned */
	bool block_size_given, label_given;
	bool replaces; /* NEW is IMAGE */
	struct tool_damage damage;
	struct image *image;
	struct vfs *vfs;
	struct tree *tree;
	struct merge *merge;
	struct pack *pack;
	struct output out;
	struct progress *progress;
	struct pack_stats stats;
	struct meta_result meta;
};

static void commit_help(void)
{
	puts("Usage: pinfs commit [OPTION]... IMAGE [DELTA] -o NEW\n"
	     "Makes the image NEW of IMAGE and the changes in DELTA (IMAGE.delta, if none is named): what a mount of the two shows.\n"
	     "What the changes left alone is copied as it is stored, without being compressed again. IMAGE and DELTA stay as they are.\n"
	     "\n"
	     "  -o, --output=NEW          the image to be made; it appears when it is complete, or not at all\n"
	     "  -f, --force               replace NEW if it exists. NEW may be IMAGE; DELTA is of no use then any more\n"
	     "  -z, --compress=ALGORITHM  for what changed: none, lz4 (default, fast) or lz4hc[,LEVEL] (LEVEL 1 to 12, default 6)\n"
	     "      --scrub               leave nothing of removed small files in blocks that they shared with others\n"
	     "      --recompress          compress everything anew\n"
	     "  -b, --block-size=SIZE     another one than IMAGE's: everything is compressed anew\n"
	     "      --xip=POLICY          which new and changed files are stored to be executed in place: none, auto, all,\n"
	     "                            GLOB[,GLOB...] or @LIST (default: those that are in IMAGE)\n"
	     "      --prepend=FILE        put FILE (an ELF runtime) in front of the image\n"
	     "  -L, --label=TEXT          up to 64 bytes (default: IMAGE's)\n"
	     "  -U, --uuid=UUID           a UUID, 'random', or 'content' (default: derived from the content)\n"
	     "  -j, --threads=N           (default: one for each processor)\n"
	     "  -q, --quiet               only errors and warnings\n"
	     "      --progress            show progress even if standard error is no terminal; --no-progress: never\n"
	     "      --json                a summary on standard output, for programs\n"
	     "      --offset=N            IMAGE begins at byte N of its file (default: auto)\n"
	     "  -h, --help                this text\n"
	     "\n"
	     "The delta must not be in use by a writable mount. When NEW is what you wanted: pinfs discard DELTA.\n"
	     "Exit status: 0 NEW is there, 1 it isn't (it was said why), 2 wrong usage.");
}

/* ---- arguments ---- */

enum {
	OPTION_SCRUB = 256,
	OPTION_RECOMPRESS,
	OPTION_XIP,
	OPTION_PREPEND,
	OPTION_PROGRESS,
	OPTION_NO_PROGRESS,
	OPTION_JSON,
	OPTION_OFFSET,
};

static const struct option commit_options[] = {
	{"output", required_argument, NULL, 'o'},
	{"force", no_argument, NULL, 'f'},
	{"compress", required_argument, NULL, 'z'},
	{"scrub", no_argument, NULL, OPTION_SCRUB},
	{"recompress", no_argument, NULL, OPTION_RECOMPRESS},
	{"block-size", required_argument, NULL, 'b'},
	{"xip", required_argument, NULL, OPTION_XIP},
	{"prepend", required_argument, NULL, OPTION_PREPEND},
	{"label", required_argument, NULL, 'L'},
	{"uuid", required_argument, NULL, 'U'},
	{"threads", required_argument, NULL, 'j'},
	{"quiet", no_argument, NULL, 'q'},
	{"progress", no_argument, NULL, OPTION_PROGRESS},
	{"no-progress", no_argument, NULL, OPTION_NO_PROGRESS},
	{"json", no_argument, NULL, OPTION_JSON},
	{"offset", required_argument, NULL, OPTION_OFFSET},
	{"help", no_argument, NULL, 'h'},
	{0},
};

/* Most are mkfs.pinfs's, and mean the same. */
static int parse_option(struct commit *x, int c)
{
	switch (c) {
	case '?':
		return -EINVAL;
	case 'o':
		x->options.image = optarg;
		return 0;
	case OPTION_SCRUB:
		x->merge_options.scrub = true;
		return 0;
	case OPTION_RECOMPRESS:
		x->merge_options.recompress = true;
		return 0;
	case OPTION_OFFSET:
		x->offset = optarg;
		return 0;
	case 'b':
		x->block_size_given = true;
		break;
	case 'L':
		x->label_given = true;
		break;
	case OPTION_XIP:
		x->merge_options.xip_given = true;
		break;
	}
	for (const struct option *l = commit_options; l->name; l++)
		if (l->val == c)
			return options_set(&x->options, l->name, optarg);
	return -EINVAL;
}

static int parse_operands(struct commit *x, int argc, char **argv)
{
	int n = argc - optind;

	if (n < 1 || n > 2) {
		log_error(n < 1 ? "commit: an image is needed" : "commit: too many arguments: '%s'", n < 1 ? "" : argv[optind + 2]);
		return -EINVAL;
	}
	if (!x->options.image || !*x->options.image) {
		log_error("commit: what shall the new image be called? -o NEW");
		return -EINVAL;
	}
	x->image_path = argv[optind];
	x->delta_path = n > 1 ? argv[optind + 1] : NULL;
	return 0;
}

/* ---- work ---- */

static bool same_file(const char *a, const char *b)
{
	struct stat x, y;

	return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

static int open_vfs(struct commit *x)
{
	struct io_options io_options = {.caching = IO_CACHING_BUFFERED};
	struct vfs_delta_options delta = {.path = x->delta_path, .read_only = true, .atime = VFS_NOATIME};
	struct vfs_options options = {
		.name = x->image_path,
		.offset = image_get_info(x->image)->offset,
		.cache_limit = CACHE_LIMIT,
		.readahead_threads = 1,
		.delta = &delta,
	};
	const struct image_info *a = image_get_info(x->image), *b;
	char error[IMAGE_ERROR_SIZE];
	struct io_file *io;
	int r = io_open(x->image_path, &io_options, &io);

	if (r < 0) {
		log_error("can't open %s: %s", x->image_path, strerror(-r));
		return r;
	}
	r = vfs_new(io, &options, &x->vfs, error);
	if (r < 0) {
		log_error("%s", error);
		return r;
	}
	b = vfs_image_info(x->vfs);
	if (memcmp(a->uuid, b->uuid, sizeof(a->uuid)) != 0 || memcmp(a->content_hash, b->content_hash, sizeof(a->content_hash)) != 0) {
		log_error("%s was replaced just now", x->image_path);
		return -ESTALE;
	}
	return 0;
}

static int open_sources(struct commit *x)
{
	const struct image_info *info;
	int r;

	if (!x->delta_path) {
		x->beside = cli_delta_beside(x->image_path);
		if (!x->beside)
			return -ENOENT;
		x->delta_path = x->beside;
	}
	if (same_file(x->options.image, x->delta_path)) {
		log_error("%s is the delta: the new image needs another name", x->options.image);
		return -EINVAL;
	}
	r = tool_image_open(x->image_path, x->offset, &x->damage, &x->image);
	if (r < 0)
		return r;
	x->replaces = same_file(x->options.image, x->image_path);
	info = image_get_info(x->image);
	if (!x->block_size_given)
		x->options.block_size = info->block_size;
	if (!x->label_given)
		memcpy(x->options.label, info->label, sizeof(x->options.label));
	if (info->offset && !x->options.prepend)
		log_warning("the %ju bytes in front of %s will not be in front of the new image; --prepend=FILE puts some there",
			(uintmax_t)info->offset, x->image_path);
	return open_vfs(x);
}

static int store_content(struct commit *x)
{
	struct merge_stats stats;
	int r, e;

	merge_get_stats(x->merge, &stats);
	x->progress = progress_begin(x->options.progress, "pinfs commit", stats.total);
	r = pack_new(&x->options, &x->out, x->progress, &x->pack);
	if (r < 0)
		return r;
	r = merge_store(x->merge, x->pack);
	e = pack_finish(x->pack);
	/* Whoever asked for the next job has only heard that something went wrong. */
	merge_explain(x->merge, x->pack);
	pack_get_stats(x->pack, &x->stats);
	return r < 0 ? r : e;
}

static int make(struct commit *x)
{
	uint64_t data_end;
	int r = open_sources(x);

	if (r == 0)
		r = mkfs_tree_new(&x->options, &x->tree);
	if (r == 0)
		r = output_open(&x->options, &x->out);
	if (r < 0)
		return r;
	x->merge_options.vfs = x->vfs;
	x->merge_options.image = x->image;
	x->merge_options.image_name = x->image_path;
	r = merge_new(&x->merge_options, x->tree, &x->merge);
	if (r == 0)
		r = merge_scan(x->merge);
	/* The superblock comes last, as in mkfs.pinfs. */
	x->out.pos = PINFS_SUPER_SIZE;
	if (r == 0)
		r = store_content(x);
	if (r == 0)
		r = output_align(&x->out, PINFS_PAGE_SIZE);
	if (r < 0)
		return r;
	data_end = x->out.pos;
	r = meta_write(x->tree, x->pack, &x->out, PINFS_SUPER_SIZE, data_end, &x->meta);
	if (r == 0 && mkfs_interrupted)
		r = -EINTR;
	return r < 0 ? r : output_commit(&x->out, &x->options);
}

/* ---- report ---- */

static void print_json(const struct commit *x, double seconds)
{
	struct merge_stats merge;
	char uuid[37];

	merge_get_stats(x->merge, &merge);
	uuid_format(x->meta.uuid, uuid);
	printf("{\"image\": ");
	json_string(stdout, x->options.image, strlen(x->options.image));
	printf(", \"uuid\": \"%s\", \"label\": ", uuid);
	json_string(stdout, x->options.label, strnlen(x->options.label, PINFS_LABEL_SIZE));
	printf(", \"image_bytes\": %" PRIu64 ", \"metadata_bytes\": %" PRIu64 ", \"block_size\": %u, \"inodes\": %" PRIu64
	       ", \"files\": %" PRIu64 ", \"files_taken\": %" PRIu64 ", \"blocks\": %" PRIu64 ", \"blocks_taken\": %" PRIu64
	       ", \"bytes_taken\": %" PRIu64 ", \"bytes_read\": %" PRIu64 ", \"seconds\": %.3f}\n",
		x->meta.image_size, x->meta.metadata_bytes, x->options.block_size, x->meta.inodes, merge.files, merge.files_taken,
		x->stats.blocks, x->stats.taken_blocks, x->stats.taken_bytes, x->stats.bytes_read, seconds);
}

static void print_summary(const struct commit *x, double seconds)
{
	char image[32], taken[32], read[32];
	struct merge_stats merge;

	merge_get_stats(x->merge, &merge);
	printf("%s: %s; %s taken over as it was, %s compressed anew (%" PRIu64 " of %" PRIu64 " files), %.1f s\n", x->options.image,
		format_size(x->meta.image_size, image, sizeof(image)), format_size(x->stats.taken_bytes, taken, sizeof(taken)),
		format_size(x->stats.bytes_read, read, sizeof(read)), merge.files - merge.files_taken, merge.files, seconds);
}

static int report(const struct commit *x, int r, double seconds)
{
	if (r == -ENOMEM)
		log_error("out of memory");
	if (r < 0) {
		log_error(r == -EINTR ? "interrupted; no image was made" : "no image was made");
		return CLI_FAIL;
	}
	if (x->options.json)
		print_json(x, seconds);
	else if (!x->options.quiet)
		print_summary(x, seconds);
	if (x->replaces)
		log_warning("%s is another image now; %s belongs to the one that it replaced, and is of no use any more (pinfs discard)", x->image_path,
			x->delta_path);
	return CLI_OK;
}

/* As in mkfs.pinfs: the first one ends the run in order, the second at once. Either way no half image is left. */
static void on_signal(int sig)
{
	if (mkfs_interrupted++) {
		if (output_temporary_name)
			unlink(output_temporary_name);
		_exit(CLI_FAIL);
	}
}

static int run(struct commit *x)
{
	struct sigaction action = {.sa_handler = on_signal};
	uint64_t start = now_ns();
	int r, status;

	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGHUP, &action, NULL);
	r = make(x);
	progress_end(x->progress);
	status = report(x, r, (double)(now_ns() - start) / 1e9);
	pack_free(x->pack);
	merge_free(x->merge);
	output_discard(&x->out);
	mkfs_tree_free(x->tree);
	vfs_free(x->vfs);
	image_close(x->image);
	return status;
}

int cmd_commit(int argc, char **argv)
{
	struct commit x = {.out.fd = -1};
	int c, status = -1;

	options_init(&x.options);
	while (status < 0 && (c = getopt_long(argc, argv, "o:fz:b:L:U:j:qh", commit_options, NULL)) != -1) {
		if (c == 'h') {
			commit_help();
			status = CLI_OK;
		} else if (parse_option(&x, c) < 0) {
			status = cli_usage_error(argv[0]);
		}
	}
	if (status < 0 && (parse_operands(&x, argc, argv) < 0 || options_finish(&x.options) < 0))
		status = cli_usage_error(argv[0]);
	if (status < 0) {
		/* The image's, or what was given. */
		if (!x.block_size_given)
			x.options.block_size = 0;
		status = run(&x);
	}
	free(x.beside);
	options_free(&x.options);
	return status;
}
