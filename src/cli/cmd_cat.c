/* SPDX-License-Identifier: MIT */
/* pinfs cat: the content of files, on stdout. */
#include "cli/cli.h"

#include <getopt.h>

#include "base/log.h"
#include "mkfs/content.h"
#include "mkfs/tool.h"

static void cat_help(void)
{
	puts("Usage: pinfs cat [OPTION]... IMAGE PATH...\n"
	     "Writes the content of files in an image to standard output, one after the other.\n"
	     "Symbolic links are followed inside the image.\n"
	     "\n"
	     "      --offset=N   the image begins at byte N of its file (default: auto)\n"
	     "  -h, --help       this text");
}

static int write_zeros(uint64_t length)
{
	static const uint8_t zeros[1u << 16];

	while (length) {
		size_t n = (size_t)MIN(length, (uint64_t)sizeof(zeros));
		int r = write_all(STDOUT_FILENO, zeros, n);

		if (r < 0)
			return r;
		length -= n;
	}
	return 0;
}

/* *ret_output: whether it is stdout that failed. */
static int cat_content(struct content_reader *reader, const struct image_inode *inode, uint64_t *ret_at,
	bool *ret_output)
{
	uint64_t at = 0;
	int r = 0;

	*ret_output = false;
	while (at < inode->size) {
		struct content_piece piece;

		r = content_next(reader, inode, at, inode->size, &piece);
		if (r == 0)
			r = piece.error;
		if (r < 0)
			break;
		r = piece.data ? write_all(STDOUT_FILENO, piece.data, piece.length) : write_zeros(piece.length);
		if (r < 0) {
			*ret_output = true;
			break;
		}
		at += piece.length;
	}
	*ret_at = at;
	return r;
}

/* 0, -errno; said. *ret_output as above: then there is no use in going on. */
static int cat_file(struct image *image, struct content_reader *reader, const char *path, bool *ret_output)
{
	_cleanup_free_ char *shown = cli_escape(path, strlen(path));
	struct image_inode inode;
	uint64_t at;
	int r = cli_path_find(image, path, true, &inode);

	*ret_output = false;
	if (r < 0) {
		log_error("%s: %s", shown, cli_strerror(r));
		return r;
	}
	if (!S_ISREG(inode.mode)) {
		log_error("%s: %s", shown, S_ISDIR(inode.mode) ? "is a directory; 'pinfs ls' lists it" :
			"is not a regular file and has no content");
		return -EINVAL;
	}
	r = cat_content(reader, &inode, &at, ret_output);
	if (r < 0 && *ret_output)
		log_error("can't write to standard output: %s", strerror(-r));
	else if (r < 0)
		log_error("%s: can't be read at byte %ju: %s", shown, (uintmax_t)at, cli_strerror(r));
	return r;
}

int cmd_cat(int argc, char **argv)
{
	static const struct option options[] = {
		{"offset", required_argument, NULL, 'O'},
		{"help", no_argument, NULL, 'h'},
		{0},
	};
	struct tool_damage damage = {0};
	const char *offset = NULL;
	struct content_reader *reader;
	struct image *image;
	int c, status = CLI_OK;
	bool output = false;

	while ((c = getopt_long(argc, argv, "h", options, NULL)) != -1) {
		switch (c) {
		case 'O':
			offset = optarg;
			break;
		case 'h':
			cat_help();
			return CLI_OK;
		default:
			return cli_usage_error(argv[0]);
		}
	}
	if (argc - optind < 2) {
		log_error(argc == optind ? "cat: an image and at least one path are needed" :
					   "cat: at least one path inside the image is needed");
		return cli_usage_error(argv[0]);
	}
	if (tool_image_open(argv[optind], offset, &damage, &image) < 0)
		return CLI_FAIL;
	if (content_reader_new(image, &reader) < 0) {
		log_error("out of memory");
		image_close(image);
		return CLI_FAIL;
	}
	for (int i = optind + 1; i < argc && !output; i++)
		if (cat_file(image, reader, argv[i], &output) < 0)
			status = CLI_FAIL;
	content_reader_free(reader);
	image_close(image);
	return status;
}
