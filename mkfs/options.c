/* SPDX-License-Identifier: MIT */
/* The command line of mkfs.pinfs. */
#include "mkfs/options.h"

#include <getopt.h>
#include <grp.h>
#include <pwd.h>

#include "base/log.h"
#include "codec/codec.h"

/* Half a percent smaller than 128K, in the same time; a random read decompresses twice as much. See mkfs.pinfs(8), -b. */
#define BLOCK_SIZE_DEFAULT (256u << 10)

static const char help[] =
	"Usage: mkfs.pinfs [OPTION]... SOURCE... IMAGE\n"
	"       mkfs.pinfs [OPTION]... --tar[=FILE] IMAGE\n"
	"       mkfs.pinfs [OPTION]... --empty IMAGE\n"
	"Make a pinfs image of a directory tree. One SOURCE directory becomes the root of the image; of several\n"
	"sources each becomes an entry of the root. Mount the image with: pinfs mount IMAGE DIR\n"
	"\n"
	"Content:\n"
	"  -b, --block-size=SIZE     4K to 1M, a power of two (default 256K). Larger: smaller image; smaller: faster\n"
	"                            random reads\n"
	"  -z, --compress=ALGORITHM  none, lz4 (default, fast) or lz4hc[,LEVEL] (LEVEL 1 to 12, default 6)\n"
	"      --xip=POLICY          store files uncompressed and page aligned, to be executed in place: none (default),\n"
	"                            auto (ELF programs and shared objects; sticky bit), all, GLOB[,GLOB...] or @LIST\n"
	"      --sort=ORDER          order of the content: path (default), extension, size or @LIST (paths of the files\n"
	"                            that are needed first, one a line; the rest by path)\n"
	"      --no-dedup            do not share equal blocks and files\n"
	"      --no-pack             give small files blocks of their own\n"
	"      --prepend=FILE        put FILE (an ELF runtime) in front of the image\n"
	"\n"
	"What is taken:\n"
	"      --tar[=FILE]          read an archive (tar, also compressed; cpio, zip, 7z, iso) from FILE or standard input\n"
	"      --empty               an image of an empty tree\n"
	"  -e, --exclude=PATTERN     leave out what matches; with a '/': the whole path in the image, else the name\n"
	"      --exclude-from=FILE   patterns from FILE, one a line\n"
	"  -x, --one-file-system     do not descend into other mounted filesystems\n"
	"      --skip-unreadable     leave out what may not be read, instead of failing\n"
	"      --no-xattrs           no extended attributes (ACLs and capabilities are among them)\n"
	"      --owner=USER          all files belong to USER (name or number); --group=GROUP likewise\n"
	"      --all-root            as --owner=0 --group=0\n"
	"      --uid-map=FROM:TO[:COUNT]  change owners; --gid-map likewise; may be repeated\n"
	"      --clamp-mtime         no time after SOURCE_DATE_EPOCH\n"
	"\n"
	"The image:\n"
	"  -L, --label=TEXT          up to 64 bytes\n"
	"  -U, --uuid=UUID           a UUID, 'random', or 'content' (default: derived from the content)\n"
	"  -f, --force               replace IMAGE if it exists; allow a block device\n"
	"  -n, --dry-run             write nothing, say how large the image would be\n"
	"  -j, --threads=N           compressing threads (default: one for each processor)\n"
	"  -q, --quiet               only errors and warnings\n"
	"      --progress            show progress even if standard error is no terminal; --no-progress: never\n"
	"      --json                a summary on standard output, for programs\n"
	"  -h, --help                this text;  -V, --version\n"
	"\n"
	"Exit status: 0 all is well; 1 no image was made; 2 the image is complete and sound, but files changed or\n"
	"vanished while they were read, or were skipped. The same tree and options give the same bytes; the\n"
	"environment variable SOURCE_DATE_EPOCH sets the image's time stamp.\n";

enum {
	OPT_XIP = 256,
	OPT_SORT,
	OPT_NO_DEDUP,
	OPT_NO_PACK,
	OPT_PREPEND,
	OPT_TAR,
	OPT_EMPTY,
	OPT_EXCLUDE_FROM,
	OPT_SKIP_UNREADABLE,
	OPT_NO_XATTRS,
	OPT_OWNER,
	OPT_GROUP,
	OPT_ALL_ROOT,
	OPT_UID_MAP,
	OPT_GID_MAP,
	OPT_CLAMP_MTIME,
	OPT_PROGRESS,
	OPT_NO_PROGRESS,
	OPT_JSON,
};

static const struct option long_options[] = {
	{"block-size", required_argument, NULL, 'b'},
	{"compress", required_argument, NULL, 'z'},
	{"xip", required_argument, NULL, OPT_XIP},
	{"sort", required_argument, NULL, OPT_SORT},
	{"no-dedup", no_argument, NULL, OPT_NO_DEDUP},
	{"no-pack", no_argument, NULL, OPT_NO_PACK},
	{"prepend", required_argument, NULL, OPT_PREPEND},
	{"tar", optional_argument, NULL, OPT_TAR},
	{"empty", no_argument, NULL, OPT_EMPTY},
	{"exclude", required_argument, NULL, 'e'},
	{"exclude-from", required_argument, NULL, OPT_EXCLUDE_FROM},
	{"one-file-system", no_argument, NULL, 'x'},
	{"skip-unreadable", no_argument, NULL, OPT_SKIP_UNREADABLE},
	{"no-xattrs", no_argument, NULL, OPT_NO_XATTRS},
	{"owner", required_argument, NULL, OPT_OWNER},
	{"group", required_argument, NULL, OPT_GROUP},
	{"all-root", no_argument, NULL, OPT_ALL_ROOT},
	{"uid-map", required_argument, NULL, OPT_UID_MAP},
	{"gid-map", required_argument, NULL, OPT_GID_MAP},
	{"clamp-mtime", no_argument, NULL, OPT_CLAMP_MTIME},
	{"label", required_argument, NULL, 'L'},
	{"uuid", required_argument, NULL, 'U'},
	{"force", no_argument, NULL, 'f'},
	{"dry-run", no_argument, NULL, 'n'},
	{"threads", required_argument, NULL, 'j'},
	{"quiet", no_argument, NULL, 'q'},
	{"progress", no_argument, NULL, OPT_PROGRESS},
	{"no-progress", no_argument, NULL, OPT_NO_PROGRESS},
	{"json", no_argument, NULL, OPT_JSON},
	{"help", no_argument, NULL, 'h'},
	{"version", no_argument, NULL, 'V'},
	{0},
};

#define REFUSE(...)                     \
	do {                            \
		log_error(__VA_ARGS__); \
		return -EINVAL;         \
	} while (0)

int string_list_add(struct string_list *l, const char *item)
{
	char *copy = strdup(item);
	int r = copy ? array_reserve(&l->items, &l->capacity, l->count + 1, sizeof(*l->items)) : -ENOMEM;

	if (r < 0) {
		free(copy);
		return r;
	}
	l->items[l->count++] = copy;
	return 0;
}

int string_list_read(struct string_list *l, const char *path)
{
	FILE *f = strcmp(path, "-") ? fopen(path, "re") : stdin;
	char *line = NULL;
	size_t size = 0;
	ssize_t n;
	int r = 0;

	if (!f) {
		r = -errno;
		log_error("can't read %s: %s", path, strerror(-r));
		return r;
	}
	while (r == 0 && (n = getline(&line, &size, f)) >= 0) {
		if (n && line[n - 1] == '\n')
			line[--n] = 0;
		if (n)
			r = string_list_add(l, line);
	}
	if (r == 0 && ferror(f)) {
		r = -EIO;
		log_error("can't read %s: %s", path, strerror(errno));
	}
	free(line);
	if (f != stdin)
		fclose(f);
	return r;
}

void string_list_free(struct string_list *l)
{
	for (size_t i = 0; i < l->count; i++)
		free(l->items[i]);
	free(l->items);
	*l = (struct string_list){0};
}

static int parse_block_size(struct mkfs_options *o, const char *arg)
{
	uint64_t v;

	if (parse_size(arg, &v) < 0 || !is_power_of_two(v) || v < PINFS_BLOCK_SIZE_MIN || v > PINFS_BLOCK_SIZE_MAX)
		REFUSE("block size '%s' is not a power of two from 4K to 1M", arg);
	o->block_size = (uint32_t)v;
	return 0;
}

static int parse_compress(struct mkfs_options *o, const char *arg)
{
	uint64_t level;

	if (!strcmp(arg, "none")) {
		o->compress = false;
	} else if (!strcmp(arg, "lz4")) {
		o->compress = true;
		o->level = CODEC_LEVEL_FAST;
	} else if (!strcmp(arg, "lz4hc")) {
		o->compress = true;
		o->level = CODEC_HC_LEVEL_DEFAULT;
	} else if (!strncmp(arg, "lz4hc,", 6)) {
		const char *l = arg + 6;

		if (!strncmp(l, "level=", 6))
			l += 6;
		if (parse_u64(l, 1, CODEC_HC_LEVEL_MAX, &level) < 0)
			REFUSE("'%s': LZ4HC's level is a number from 1 to %d", arg, CODEC_HC_LEVEL_MAX);
		o->compress = true;
		o->level = (int)level;
	} else {
		REFUSE("unknown compression '%s'; there are none, lz4 and lz4hc[,LEVEL]", arg);
	}
	return 0;
}

static int parse_xip(struct mkfs_options *o, const char *arg)
{
	_cleanup_free_ char *copy = NULL;
	char *save = NULL;
	int r = 0;

	string_list_free(&o->xip_patterns);
	if (!strcmp(arg, "none") || !strcmp(arg, "auto") || !strcmp(arg, "all")) {
		o->xip = arg[0] == 'n' ? XIP_NONE : arg[1] == 'u' ? XIP_AUTO : XIP_ALL;
		return 0;
	}
	o->xip = XIP_LIST;
	if (*arg == '@')
		return string_list_read(&o->xip_patterns, arg + 1);
	copy = strdup(arg);
	if (!copy)
		return -ENOMEM;
	for (char *p = strtok_r(copy, ",", &save); r == 0 && p; p = strtok_r(NULL, ",", &save))
		r = string_list_add(&o->xip_patterns, p);
	return r;
}

static int parse_sort(struct mkfs_options *o, const char *arg)
{
	string_list_free(&o->sort_list);
	o->sort = SORT_PATH;
	if (*arg == '@')
		return string_list_read(&o->sort_list, arg + 1);
	if (!strcmp(arg, "extension"))
		o->sort = SORT_EXTENSION;
	else if (!strcmp(arg, "size"))
		o->sort = SORT_SIZE;
	else if (strcmp(arg, "path"))
		REFUSE("unknown order '%s'; there are path, extension, size and @LIST", arg);
	return 0;
}

static int parse_owner(const char *arg, bool group, bool *set, uint32_t *ret)
{
	uint64_t v;

	*set = true;
	if (parse_u64(arg, 0, UINT32_MAX - 1, &v) == 0) {
		*ret = (uint32_t)v;
		return 0;
	}
	if (group) {
		struct group *g = getgrnam(arg);

		if (!g)
			REFUSE("there is no group '%s'", arg);
		*ret = g->gr_gid;
	} else {
		struct passwd *p = getpwnam(arg);

		if (!p)
			REFUSE("there is no user '%s'", arg);
		*ret = p->pw_uid;
	}
	return 0;
}

static int parse_map(const char *arg, struct id_map **maps, size_t *count)
{
	uint64_t v[3] = {0, 0, 1};
	char *copy = strdup(arg), *save = NULL;
	struct id_map *grown;
	unsigned n = 0;

	if (!copy)
		return -ENOMEM;
	for (char *p = strtok_r(copy, ":", &save); p; p = strtok_r(NULL, ":", &save), n++) {
		if (n == 3 || parse_u64(p, n == 2, UINT32_MAX - 1, &v[n]) < 0) {
			n = 0;
			break;
		}
	}
	free(copy);
	if (n < 2 || v[0] + v[2] > UINT32_MAX || v[1] + v[2] > UINT32_MAX)
		REFUSE("'%s' is not FROM:TO or FROM:TO:COUNT", arg);
	grown = realloc(*maps, (*count + 1) * sizeof(**maps));
	if (!grown)
		return -ENOMEM;
	*maps = grown;
	grown[(*count)++] = (struct id_map){(uint32_t)v[0], (uint32_t)v[1], (uint32_t)v[2]};
	return 0;
}

static int parse_uuid(struct mkfs_options *o, const char *arg)
{
	o->have_uuid = o->random_uuid = false;
	if (!strcmp(arg, "random"))
		o->random_uuid = true;
	else if (strcmp(arg, "content")) {
		if (uuid_parse(arg, o->uuid) < 0)
			REFUSE("'%s' is not a UUID", arg);
		o->have_uuid = true;
	}
	return 0;
}

static int parse_threads(struct mkfs_options *o, const char *arg)
{
	uint64_t v;

	if (parse_u64(arg, 1, 256, &v) < 0)
		REFUSE("'%s' is not a number of threads from 1 to 256", arg);
	o->threads = (unsigned)v;
	return 0;
}

static int parse_label(struct mkfs_options *o, const char *arg)
{
	if (strlen(arg) > PINFS_LABEL_SIZE)
		REFUSE("the label is longer than %d bytes", PINFS_LABEL_SIZE);
	memset(o->label, 0, sizeof(o->label));
	memcpy(o->label, arg, strlen(arg));
	return 0;
}

static int parse_one(struct mkfs_options *o, int c, const char *arg)
{
	switch (c) {
	case 'b':
		return parse_block_size(o, arg);
	case 'z':
		return parse_compress(o, arg);
	case OPT_XIP:
		return parse_xip(o, arg);
	case OPT_SORT:
		return parse_sort(o, arg);
	case OPT_NO_DEDUP:
		o->no_dedup = true;
		return 0;
	case OPT_NO_PACK:
		o->no_pack = true;
		return 0;
	case OPT_PREPEND:
		o->prepend = arg;
		return 0;
	case OPT_TAR:
		o->tar = arg ? arg : "-";
		return 0;
	case OPT_EMPTY:
		o->empty = true;
		return 0;
	case 'e':
		return string_list_add(&o->exclude, arg);
	case OPT_EXCLUDE_FROM:
		return string_list_read(&o->exclude, arg);
	case 'x':
		o->one_file_system = true;
		return 0;
	case OPT_SKIP_UNREADABLE:
		o->skip_unreadable = true;
		return 0;
	case OPT_NO_XATTRS:
		o->no_xattrs = true;
		return 0;
	case OPT_OWNER:
		return parse_owner(arg, false, &o->set_uid, &o->uid);
	case OPT_GROUP:
		return parse_owner(arg, true, &o->set_gid, &o->gid);
	case OPT_ALL_ROOT:
		o->set_uid = o->set_gid = true;
		o->uid = o->gid = 0;
		return 0;
	case OPT_UID_MAP:
		return parse_map(arg, &o->uid_maps, &o->uid_map_count);
	case OPT_GID_MAP:
		return parse_map(arg, &o->gid_maps, &o->gid_map_count);
	case OPT_CLAMP_MTIME:
		o->clamp_mtime = true;
		return 0;
	case 'L':
		return parse_label(o, arg);
	case 'U':
		return parse_uuid(o, arg);
	case 'f':
		o->force = true;
		return 0;
	case 'n':
		o->dry_run = true;
		return 0;
	case 'j':
		return parse_threads(o, arg);
	case 'q':
		o->quiet = true;
		return 0;
	case OPT_PROGRESS:
		o->progress = PROGRESS_ALWAYS;
		return 0;
	case OPT_NO_PROGRESS:
		o->progress = PROGRESS_NEVER;
		return 0;
	case OPT_JSON:
		o->json = true;
		return 0;
	default:
		log_error("see 'mkfs.pinfs --help'");
		return -EINVAL;
	}
}

static int read_epoch(struct mkfs_options *o)
{
	const char *text = getenv("SOURCE_DATE_EPOCH");
	uint64_t v;

	if (!text || !*text) {
		if (o->clamp_mtime)
			REFUSE("--clamp-mtime needs the environment variable SOURCE_DATE_EPOCH");
		return 0;
	}
	if (parse_u64(text, 0, INT64_MAX, &v) < 0)
		REFUSE("SOURCE_DATE_EPOCH is '%s', not a number of seconds", text);
	o->have_epoch = true;
	o->epoch = (int64_t)v;
	return 0;
}

/* The arguments that are no options: sources, and the image last. */
static int take_names(struct mkfs_options *o, int count, char **names)
{
	int r = 0;

	/* A dry run names no image, unless the last argument is plainly none of the sources. */
	if (count < 1 && !(o->dry_run && (o->tar || o->empty)))
		REFUSE("no image named; see 'mkfs.pinfs --help'");
	if (count)
		o->image = names[--count];
	if (o->image && !*o->image)
		REFUSE("the image's name is empty");
	if (o->dry_run && count == 0 && !o->tar && !o->empty) {
		r = string_list_add(&o->sources, o->image);
		o->image = NULL;
	}
	for (int i = 0; r == 0 && i < count; i++) {
		if (!strcmp(names[i], "-"))
			o->tar = "-";
		else
			r = string_list_add(&o->sources, names[i]);
	}
	if (r < 0)
		return r;
	if ((o->tar != NULL) + o->empty + (o->sources.count > 0) > 1)
		REFUSE("sources, --tar and --empty exclude each other");
	if (!o->tar && !o->empty && !o->sources.count)
		REFUSE("no source named; give SOURCE... IMAGE (or --empty for an empty image)");
	return 0;
}

void options_init(struct mkfs_options *o)
{
	*o = (struct mkfs_options){.compress = true, .level = CODEC_LEVEL_FAST};
}

int options_set(struct mkfs_options *o, const char *name, const char *arg)
{
	for (const struct option *l = long_options; l->name; l++)
		if (!strcmp(l->name, name))
			return parse_one(o, l->val, arg);
	return -EINVAL;
}

int options_finish(struct mkfs_options *o)
{
	int r = read_epoch(o);

	if (r < 0)
		return r;
	if (!o->block_size)
		o->block_size = BLOCK_SIZE_DEFAULT;
	if (!o->threads)
		o->threads = tool_cpus();
	if (o->quiet)
		o->progress = PROGRESS_NEVER;
	return 0;
}

int options_parse(struct mkfs_options *o, int argc, char **argv)
{
	int c, r;

	options_init(o);
	while ((c = getopt_long(argc, argv, "b:z:e:xL:U:fnj:qhV", long_options, NULL)) != -1) {
		if (c == 'h') {
			fputs(help, stdout);
			return 1;
		}
		if (c == 'V') {
			printf("mkfs.pinfs %s (image format %d.%d)\n", PINFS_VERSION, PINFS_VERSION_MAJOR,
				PINFS_VERSION_MINOR);
			return 1;
		}
		r = parse_one(o, c, optarg);
		if (r < 0)
			return r;
	}
	r = options_finish(o);
	return r < 0 ? r : take_names(o, argc - optind, argv + optind);
}

void options_free(struct mkfs_options *o)
{
	string_list_free(&o->sources);
	string_list_free(&o->xip_patterns);
	string_list_free(&o->exclude);
	string_list_free(&o->sort_list);
	free(o->uid_maps);
	free(o->gid_maps);
}
