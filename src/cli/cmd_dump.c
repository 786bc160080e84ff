/* SPDX-License-Identifier: MIT */
/* pinfs dump: the structure of an image. */
#include "cli/cli.h"

#include <getopt.h>

#include "base/log.h"
#include "mkfs/dump.h"
#include "mkfs/tool.h"

static void help(void)
{
	puts("Usage: pinfs dump [OPTION]... IMAGE\n"
	     "Shows the structure of an image: superblock, features and sections, or what is asked for.\n"
	     "\n"
	     "      --map        also what each byte of the image holds, and totals\n"
	     "      --inode=N    inode number N: its fields, block map, entries\n"
	     "      --block=N    data block N: its descriptor, and which inodes use it\n"
	     "      --json       one JSON object with the same fields\n"
	     "      --offset=N   the image begins at byte N of its file (default: auto)\n"
	     "  -h, --help       print this\n"
	     "\n"
	     "Exit status: 0 all was shown, 1 something is damaged or missing, 2 wrong usage.");
}

enum { OPT_MAP = 256, OPT_INODE, OPT_BLOCK, OPT_JSON, OPT_OFFSET };

/* -1: go on; else the exit code. */
static int parse(int argc, char **argv, struct dump_options *o, const char **ret_offset)
{
	static const struct option options[] = {
		{"map", no_argument, NULL, OPT_MAP},
		{"inode", required_argument, NULL, OPT_INODE},
		{"block", required_argument, NULL, OPT_BLOCK},
		{"json", no_argument, NULL, OPT_JSON},
		{"offset", required_argument, NULL, OPT_OFFSET},
		{"help", no_argument, NULL, 'h'},
		{0},
	};
	int c;

	while ((c = getopt_long(argc, argv, "h", options, NULL)) != -1) {
		switch (c) {
		case OPT_MAP:
			o->map = true;
			break;
		case OPT_INODE:
			if (parse_u64(optarg, 1, UINT32_MAX, &o->inode) == 0)
				break;
			log_error("'%s' is not an inode number", optarg);
			return cli_usage_error(argv[0]);
		case OPT_BLOCK:
			if (parse_u64(optarg, 0, UINT32_MAX, &o->block) == 0) {
				o->has_block = true;
				break;
			}
			log_error("'%s' is not a block number", optarg);
			return cli_usage_error(argv[0]);
		case OPT_JSON:
			o->json = true;
			break;
		case OPT_OFFSET:
			*ret_offset = optarg;
			break;
		case 'h':
			help();
			return CLI_OK;
		default:
			return cli_usage_error(argv[0]);
		}
	}
	if (argc - optind == 1)
		return -1;
	log_error(argc == optind ? "no image was given" : "more than one image was given");
	return cli_usage_error(argv[0]);
}

static int report(const char *path, const struct dump_options *o, const struct image_info *info, int r)
{
	if (r == 0)
		return CLI_OK;
	if (ferror(stdout))
		return CLI_FAIL; /* main() says so; it isn't the image's fault */
	if (r == -ENOENT && o->inode > info->inode_count)
		log_error("%s: there is no inode %ju; they are 1 to %ju", path, (uintmax_t)o->inode,
			(uintmax_t)info->inode_count);
	else if (r == -ENOENT && !info->block_count)
		log_error("%s: the image has no data blocks", path);
	else if (r == -ENOENT)
		log_error("%s: there is no block %ju; they are 0 to %ju", path, (uintmax_t)o->block,
			(uintmax_t)info->block_count - 1);
	else if (r == -EUCLEAN)
		log_error("%s: not everything could be shown; run fsck.pinfs on it", path);
	else
		log_error("%s: %s", path, cli_strerror(r));
	return CLI_FAIL;
}

int cmd_dump(int argc, char **argv)
{
	struct dump_options o = {0};
	struct tool_damage damage = {0};
	const char *offset = NULL;
	struct image *image;
	int r = parse(argc, argv, &o, &offset);

	if (r >= 0)
		return r;
	o.super = !o.inode && !o.has_block;
	if (tool_image_open(argv[optind], offset, &damage, &image) < 0)
		return CLI_FAIL;
	r = report(argv[optind], &o, image_get_info(image), dump_image(image, &o, stdout));
	image_close(image);
	return r;
}
