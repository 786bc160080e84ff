/* SPDX-License-Identifier: MIT */
/* pinfs info: what an image says about itself. */
#include "cli/cli.h"

#include <getopt.h>
#include <inttypes.h>

#include "base/log.h"
#include "mkfs/tool.h"

static const struct {
	unsigned type;
	const char *name, *many; /* for JSON; for people */
} kinds[] = {
	{S_IFREG >> 12, "files", "regular files"},
	{S_IFDIR >> 12, "directories", "directories"},
	{S_IFLNK >> 12, "symlinks", "symbolic links"},
	{S_IFCHR >> 12, "character_devices", "character devices"},
	{S_IFBLK >> 12, "block_devices", "block devices"},
	{S_IFIFO >> 12, "fifos", "FIFOs"},
	{S_IFSOCK >> 12, "sockets", "sockets"},
};

struct info_counts {
	uint64_t kinds[16], hard_linked, xattr, xip, xip_bytes, allocated, unreadable;
};

static const struct {
	uint64_t bit;
	enum { INCOMPAT, COMPAT } word;
	const char *name, *text;
} features[] = {
	{PINFS_INCOMPAT_LZ4, INCOMPAT, "lz4", "LZ4 compression"},
	{PINFS_COMPAT_XATTR, COMPAT, "xattr", "extended attributes"},
	{PINFS_COMPAT_ACL, COMPAT, "acl", "access control lists"},
	{PINFS_COMPAT_XIP, COMPAT, "xip", "files that can be executed in place"},
};

static void info_help(void)
{
	puts("Usage: pinfs info [OPTION]... IMAGE\n"
	     "Says what an image is: label, UUID, sizes, features.\n"
	     "\n"
	     "  -c, --count      count files, directories, … (reads all inodes)\n"
	     "      --json       for programs\n"
	     "      --offset=N   the image begins at byte N of its file (default: auto)\n"
	     "  -h, --help       this text");
}

static void count_inodes(struct image *image, struct info_counts *ret)
{
	const struct image_info *info = image_get_info(image);
	struct info_counts n = {0};

	for (uint64_t ino = 1; ino <= info->inode_count; ino++) {
		struct image_inode inode;

		if (image_inode_get(image, ino, &inode) < 0) {
			n.unreadable++;
			continue;
		}
		n.kinds[inode.mode >> 12 & 15]++;
		n.hard_linked += !S_ISDIR(inode.mode) && inode.nlink > 1;
		n.xattr += inode.xattr != 0;
		n.xip += inode.xip;
		n.xip_bytes += inode.xip ? inode.size : 0;
		n.allocated += inode.alloc;
	}
	*ret = n;
}

static uint64_t metadata_bytes(const struct image_info *info)
{
	uint64_t sum = 2 * PINFS_SUPER_SIZE;

	for (unsigned i = 0; i < info->section_count; i++)
		sum += info->sections[i].stored_size + info->sections[i].index_pages * PINFS_PAGE_SIZE;
	return sum;
}

static bool feature_set(const struct image_info *info, size_t i)
{
	return (features[i].word == INCOMPAT ? info->incompat : info->compat) & features[i].bit;
}

static uint64_t features_unknown(const struct image_info *info)
{
	uint64_t unknown = info->compat;

	for (size_t i = 0; i < ARRAY_SIZE(features); i++)
		if (features[i].word == COMPAT)
			unknown &= ~features[i].bit;
	return unknown;
}

static const char *format_time(const struct timespec *ts, char *buf, size_t size)
{
	struct tm tm;

	if (!localtime_r(&ts->tv_sec, &tm) || !strftime(buf, size, "%Y-%m-%d %H:%M:%S %z", &tm))
		snprintf(buf, size, "@%jd", (intmax_t)ts->tv_sec);
	return buf;
}

/* "405.3 MiB (425021440 bytes)" */
static void print_size(const char *what, uint64_t bytes)
{
	char size[32];

	format_size(bytes, size, sizeof(size));
	if (bytes < 1024)
		printf("%-14s %s\n", what, size);
	else
		printf("%-14s %s (%" PRIu64 " bytes)\n", what, size, bytes);
}

static void print_ratio(const struct image_info *info)
{
	double percent = 100.0 * (double)info->image_size / (double)info->file_bytes;

	if (!info->file_bytes)
		return;
	if (info->image_size <= info->file_bytes)
		printf("%-14s %.2f to 1 (the image has %.*f %% of the content's size)\n", "Ratio:",
			(double)info->file_bytes / (double)info->image_size, percent < 10 ? 1 : 0, percent);
	else
		printf("%-14s none, the image is larger than the content (%.0f %%)\n", "Ratio:", percent);
}

static void print_features(const struct image_info *info)
{
	const char *separator = "";

	printf("%-14s ", "Features:");
	for (size_t i = 0; i < ARRAY_SIZE(features); i++) {
		if (feature_set(info, i)) {
			printf("%s%s", separator, features[i].text);
			separator = ", ";
		}
	}
	if (features_unknown(info)) {
		printf("%sunknown to this version (%#" PRIx64 ")", separator, features_unknown(info));
		separator = ", ";
	}
	puts(*separator ? "" : "none");
}

static void print_counts(const struct info_counts *n)
{
	puts("\nWhat is in it:");
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
		if (n->kinds[kinds[i].type])
			printf("  %12" PRIu64 "  %s\n", n->kinds[kinds[i].type], kinds[i].many);
	if (n->hard_linked)
		printf("  %12" PRIu64 "  of them with several names (hard links)\n", n->hard_linked);
	if (n->xattr)
		printf("  %12" PRIu64 "  of them with extended attributes\n", n->xattr);
	if (n->xip) {
		char size[32];

		printf("  %12" PRIu64 "  of them can be executed in place (%s)\n", n->xip,
			format_size(n->xip_bytes, size, sizeof(size)));
	}
	if (n->unreadable)
		printf("  %12" PRIu64 "  can't be read; fsck.pinfs tells more\n", n->unreadable);
}

static void print_sections(const struct image_info *info)
{
	puts("\nMetadata:                 raw         stored  chunks of");
	for (unsigned i = 0; i < info->section_count; i++) {
		const struct image_section *s = &info->sections[i];
		char raw[32], stored[32], chunk[32];

		printf("  %-16s %11s    %11s  %9s\n", image_section_name(s->type),
			format_size(s->raw_size, raw, sizeof(raw)),
			format_size(s->stored_size, stored, sizeof(stored)),
			format_size(s->chunk_size, chunk, sizeof(chunk)));
	}
}

static void print_info(const char *path, const struct image_info *info, const struct info_counts *counts)
{
	_cleanup_free_ char *shown = cli_escape(path, strlen(path));
	_cleanup_free_ char *label = cli_escape(info->label, strlen(info->label));
	char uuid[37], time[64];

	uuid_format(info->uuid, uuid);
	printf("%-14s %s\n", "Image:", shown);
	printf("%-14s %s\n", "Label:", *label ? label : "(none)");
	printf("%-14s %s\n", "UUID:", uuid);
	printf("%-14s %u.%u\n", "Format:", info->version_major, info->version_minor);
	print_features(info);
	printf("%-14s %s\n", "Created:", format_time(&info->created, time, sizeof(time)));
	if (info->offset)
		printf("%-14s byte %" PRIu64 " of the file\n", "Begins at:", info->offset);
	print_size("Image size:", info->image_size);
	print_size("Content:", info->file_bytes);
	print_ratio(info);
	print_size("Stored data:", info->data_end - info->data_offset);
	print_size("Metadata:", metadata_bytes(info));
	print_size("Block size:", info->block_size);
	printf("%-14s %" PRIu64 "\n", "Blocks:", info->block_count);
	printf("%-14s %" PRIu64 " (files, directories and all else)\n", "Inodes:", info->inode_count);
	printf("%-14s ", "Content hash:");
	for (size_t i = 0; i < sizeof(info->content_hash); i++)
		printf("%02x", info->content_hash[i]);
	putchar('\n');
	if (info->from_backup)
		printf("%-14s the first superblock; this is the copy at the end\n", "Damaged:");
	if (counts)
		print_counts(counts);
	print_sections(info);
}

static void json_counts(const struct info_counts *n)
{
	printf(",\n  \"counts\": {");
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
		printf("\"%s\": %" PRIu64 ", ", kinds[i].name, n->kinds[kinds[i].type]);
	printf("\"hard_linked\": %" PRIu64 ", \"with_xattrs\": %" PRIu64 ", \"xip\": %" PRIu64
	       ", \"xip_bytes\": %" PRIu64 ", \"allocated_bytes\": %" PRIu64 ", \"unreadable\": %" PRIu64 "}",
		n->hard_linked, n->xattr, n->xip, n->xip_bytes, n->allocated, n->unreadable);
}

static void json_sections(const struct image_info *info)
{
	printf(",\n  \"sections\": [");
	for (unsigned i = 0; i < info->section_count; i++) {
		const struct image_section *s = &info->sections[i];

		printf("%s\n    {\"type\": %u, \"name\": \"%s\"", i ? "," : "", s->type, image_section_name(s->type));
		printf(", \"raw_size\": %" PRIu64 ", \"stored_size\": %" PRIu64 ", \"chunk_size\": %" PRIu32
		       ", \"chunks\": %" PRIu64 ", \"filter\": %u, \"index_offset\": %" PRIu64
		       ", \"index_pages\": %" PRIu64 "}",
			s->raw_size, s->stored_size, s->chunk_size, s->chunk_count, s->filter, s->index_offset,
			s->index_pages);
	}
	printf("\n  ]");
}

static void json_info(const char *path, const struct image_info *info, const struct info_counts *counts)
{
	const char *separator = "";
	char uuid[37];

	uuid_format(info->uuid, uuid);
	printf("{\n  \"image\": ");
	json_string(stdout, path, strlen(path));
	printf(",\n  \"label\": ");
	json_string(stdout, info->label, strlen(info->label));
	printf(",\n  \"uuid\": \"%s\",\n  \"version\": \"%u.%u\",\n  \"features\": [", uuid, info->version_major,
		info->version_minor);
	for (size_t i = 0; i < ARRAY_SIZE(features); i++) {
		if (feature_set(info, i)) {
			printf("%s\"%s\"", separator, features[i].name);
			separator = ", ";
		}
	}
	printf("],\n  \"compat\": %" PRIu64 ",\n  \"ro_compat\": %" PRIu64 ",\n  \"incompat\": %" PRIu64, info->compat,
		info->ro_compat, info->incompat);
	printf(",\n  \"created_sec\": %jd,\n  \"created_nsec\": %ld", (intmax_t)info->created.tv_sec,
		(long)info->created.tv_nsec);
	printf(",\n  \"offset\": %" PRIu64 ",\n  \"image_size\": %" PRIu64 ",\n  \"content_bytes\": %" PRIu64
	       ",\n  \"data_offset\": %" PRIu64 ",\n  \"data_end\": %" PRIu64 ",\n  \"metadata_bytes\": %" PRIu64
	       ",\n  \"block_size\": %" PRIu32 ",\n  \"blocks\": %" PRIu64 ",\n  \"inodes\": %" PRIu64,
		info->offset, info->image_size, info->file_bytes, info->data_offset, info->data_end,
		metadata_bytes(info), info->block_size, info->block_count, info->inode_count);
	printf(",\n  \"content_hash\": \"");
	for (size_t i = 0; i < sizeof(info->content_hash); i++)
		printf("%02x", info->content_hash[i]);
	printf("\",\n  \"first_superblock_damaged\": %s", info->from_backup ? "true" : "false");
	if (counts)
		json_counts(counts);
	json_sections(info);
	puts("\n}");
}

int cmd_info(int argc, char **argv)
{
	static const struct option options[] = {
		{"count", no_argument, NULL, 'c'},
		{"json", no_argument, NULL, 'j'},
		{"offset", required_argument, NULL, 'O'},
		{"help", no_argument, NULL, 'h'},
		{0},
	};
	struct tool_damage damage = {0};
	struct info_counts counts = {0};
	bool json = false, count = false;
	const char *offset = NULL;
	struct image *image;
	int c;

	while ((c = getopt_long(argc, argv, "ch", options, NULL)) != -1) {
		switch (c) {
		case 'c':
			count = true;
			break;
		case 'j':
			json = true;
			break;
		case 'O':
			offset = optarg;
			break;
		case 'h':
			info_help();
			return CLI_OK;
		default:
			return cli_usage_error(argv[0]);
		}
	}
	if (argc - optind != 1) {
		log_error(argc == optind ? "info: an image is needed" : "info: one image at a time");
		return cli_usage_error(argv[0]);
	}
	if (tool_image_open(argv[optind], offset, &damage, &image) < 0)
		return CLI_FAIL;
	if (count)
		count_inodes(image, &counts);
	(json ? json_info : print_info)(argv[optind], image_get_info(image), count ? &counts : NULL);
	image_close(image);
	return counts.unreadable ? CLI_FAIL : CLI_OK;
}
