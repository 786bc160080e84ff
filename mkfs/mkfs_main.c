/* SPDX-License-Identifier: MIT */
/* mkfs.pinfs: a directory tree or an archive becomes an image. */
#include "mkfs/options.h"

#include <sys/resource.h>

#include "base/log.h"

volatile sig_atomic_t mkfs_interrupted;

/* The first signal ends the run in order; the second at once. Either way no half image is left. */
static void on_signal(int sig)
{
	if (mkfs_interrupted++) {
		if (output_temporary_name)
			unlink(output_temporary_name);
		_exit(MKFS_EXIT_FAIL);
	}
}

struct run {
	struct mkfs_options options;
	struct tree *tree;
	struct pack *pack;
	struct output out;
	struct progress *progress;
	struct pack_stats stats;
	struct meta_result meta;
	uint64_t start;
};

static int make_empty(struct tree *t)
{
	const struct stat st = {.st_mode = S_IFDIR | 0755, .st_uid = getuid(), .st_gid = getgid()};
	struct inode *inode;
	int r = tree_inode_new(t, &st, &inode);

	return r < 0 ? r : tree_node_new(t, NULL, "", 0, inode, &t->root);
}

static int store_content(struct run *x)
{
	int r;

	x->progress = progress_begin(x->options.progress, "mkfs.pinfs", x->tree->file_bytes);
	r = pack_new(&x->options, &x->out, x->progress, &x->pack);
	if (r < 0)
		return r;
	if (x->options.tar)
		r = tar_read(x->tree, x->pack, x->progress);
	else if (!x->options.empty)
		r = scan_store(x->tree, x->pack);
	if (r == 0)
		r = pack_finish(x->pack);
	if (r == 0)
		pack_get_stats(x->pack, &x->stats);
	return r;
}

static int make(struct run *x)
{
	struct stat st;
	uint64_t data_end;
	int r = mkfs_tree_new(&x->options, &x->tree);

	if (r == 0)
		r = output_open(&x->options, &x->out);
	if (r < 0)
		return r;
	if (x->out.fd >= 0 && fstat(x->out.fd, &st) == 0)
		tree_leave_out(x->tree, &st);
	/* Nor does an image that this one replaces become part of it. */
	if (x->options.image && stat(x->options.image, &st) == 0)
		tree_leave_out(x->tree, &st);
	if (x->options.empty)
		r = make_empty(x->tree);
	else if (!x->options.tar)
		r = scan_sources(x->tree);
	if (r < 0)
		return r;
	/* The superblock comes last, so that an image without one is an image that was not finished. */
	x->out.pos = PINFS_SUPER_SIZE;
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

static void print_json(const struct run *x, double seconds)
{
	char uuid[37];

	uuid_format(x->meta.uuid, uuid);
	printf("{\"image\": ");
	if (x->options.image)
		json_string(stdout, x->options.image, strlen(x->options.image));
	else
		printf("null");
	printf(", \"uuid\": \"%s\", \"label\": ", uuid);
	json_string(stdout, x->options.label, strnlen(x->options.label, PINFS_LABEL_SIZE));
	printf(", \"dry_run\": %s, \"image_bytes\": %ju, \"file_bytes_read\": %ju, \"data_bytes\": %ju, "
	       "\"metadata_bytes\": %ju, \"block_size\": %u, \"inodes\": %ju, \"files\": %ju, \"blocks\": %ju, "
	       "\"raw_blocks\": %ju, \"packed_files\": %ju, \"xip_files\": %ju, \"duplicates\": %ju, "
	       "\"duplicate_bytes\": %ju, \"hole_blocks\": %ju, \"warnings\": %ju, \"seconds\": %.3f}\n",
		x->options.dry_run ? "true" : "false", (uintmax_t)x->meta.image_size, (uintmax_t)x->stats.bytes_read,
		(uintmax_t)x->stats.bytes_stored, (uintmax_t)x->meta.metadata_bytes, x->options.block_size,
		(uintmax_t)x->meta.inodes, (uintmax_t)x->tree->file_count, (uintmax_t)x->stats.blocks,
		(uintmax_t)x->stats.raw_blocks, (uintmax_t)x->stats.packed_files, (uintmax_t)x->stats.xip_files,
		(uintmax_t)x->stats.duplicates, (uintmax_t)x->stats.duplicate_bytes, (uintmax_t)x->stats.holes,
		(uintmax_t)x->tree->warnings, seconds);
}

static void print_summary(const struct run *x, double seconds)
{
	char image[32], content[32], meta[32], shared[32];
	uint64_t read = x->stats.bytes_read;

	printf("%s%s: %s from %s", x->options.dry_run ? "would be " : "",
		x->options.image ? x->options.image : "the image",
		format_size(x->meta.image_size, image, sizeof(image)), format_size(read, content, sizeof(content)));
	if (read)
		printf(" (%.1f %%)", 100.0 * (double)x->meta.image_size / (double)read);
	printf(", %ju inodes in %s, %ju duplicates (%s), %.1f s\n", (uintmax_t)x->meta.inodes,
		format_size(x->meta.metadata_bytes, meta, sizeof(meta)), (uintmax_t)x->stats.duplicates,
		format_size(x->stats.duplicate_bytes, shared, sizeof(shared)), seconds);
}

static int report(struct run *x, int r)
{
	double seconds = (double)(now_ns() - x->start) / 1e9;

	if (r < 0) {
		if (r == -EINTR)
			log_error("interrupted; no image was made");
		else
			log_error("no image was made");
		return MKFS_EXIT_FAIL;
	}
	if (x->options.json)
		print_json(x, seconds);
	else if (!x->options.quiet)
		print_summary(x, seconds);
	if (fflush(stdout) || ferror(stdout)) {
		log_error("the image is made, but the summary can't be written: %s", strerror(errno));
		return MKFS_EXIT_CHANGED;
	}
	if (x->tree->warnings) {
		log_warning("%ju file%s changed, vanished or could not be read; the image is sound without them",
			(uintmax_t)x->tree->warnings, x->tree->warnings == 1 ? "" : "s");
		return MKFS_EXIT_CHANGED;
	}
	return MKFS_EXIT_OK;
}

int main(int argc, char **argv)
{
	struct sigaction action = {.sa_handler = on_signal};
	struct run x = {.out.fd = -1, .start = now_ns()};
	int r, code;

	ensure_standard_descriptors();
	log_init("mkfs.pinfs", LOG_LEVEL_INFO);
	r = options_parse(&x.options, argc, argv);
	if (r != 0) {
		options_free(&x.options);
		return r > 0 ? MKFS_EXIT_OK : MKFS_EXIT_FAIL;
	}
	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGHUP, &action, NULL);
	signal(SIGPIPE, SIG_IGN);

	r = make(&x);
	progress_end(x.progress);
	code = report(&x, r);
	pack_free(x.pack);
	output_discard(&x.out);
	mkfs_tree_free(x.tree);
	options_free(&x.options);
	return code;
}
