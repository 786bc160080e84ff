/* SPDX-License-Identifier: MIT */
#include "cli/mount_options.h"

#include "base/log.h"

#define CACHE_SIZE_LEAST (1u << 20)
#define CACHE_SIZE_DEFAULT_LEAST (16u << 20)
#define CACHE_SIZE_DEFAULT_MOST (128u << 20)

struct option {
	const char *name;
	/* value: NULL if there was no '='. 0, or -EINVAL for a value that `wants` describes better. */
	int (*set)(struct mount_options *o, const char *value);
	const char *wants; /* what stands after '='; NULL: nothing may */
};

static int set_rw(struct mount_options *o, const char *value)
{
	o->writable = true;
	return 0;
}

static int set_ro(struct mount_options *o, const char *value)
{
	o->writable = false;
	return 0;
}

static int set_remount(struct mount_options *o, const char *value)
{
	o->remount = true;
	return 0;
}

static int set_offset(struct mount_options *o, const char *value)
{
	if (strcmp(value, "auto"))
		return parse_size(value, &o->offset) || o->offset > INT64_MAX ? -EINVAL : 0;
	o->offset = IMAGE_OFFSET_AUTO;
	return 0;
}

static int choose(const char *value, const char *const *names, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		if (!strcmp(value, names[i]))
			return (int)i;
	return -EINVAL;
}

static int set_io(struct mount_options *o, const char *value)
{
	static const char *const names[] = {
		[IO_ENGINE_AUTO] = "auto", [IO_ENGINE_URING] = "uring", [IO_ENGINE_PREAD] = "pread"};
	int r = choose(value, names, ARRAY_SIZE(names));

	if (r >= 0)
		o->engine = (enum io_engine)r;
	return r;
}

static int set_image_io(struct mount_options *o, const char *value)
{
	static const char *const names[] = {
		[IO_CACHING_AUTO] = "auto", [IO_CACHING_DIRECT] = "direct", [IO_CACHING_BUFFERED] = "buffered"};
	int r = choose(value, names, ARRAY_SIZE(names));

	if (r >= 0)
		o->caching = (enum io_caching)r;
	return r;
}

static int set_cache(struct mount_options *o, const char *value)
{
	static const char *const names[] = {
		[MOUNT_CACHE_KERNEL] = "kernel", [MOUNT_CACHE_WRITEBACK] = "writeback", [MOUNT_CACHE_DAEMON] = "daemon"};
	int r = choose(value, names, ARRAY_SIZE(names));

	if (r >= 0)
		o->cache = (enum mount_cache)r;
	return r;
}

static int set_cache_size(struct mount_options *o, const char *value)
{
	uint64_t size;

	if (parse_size(value, &size) || size < CACHE_SIZE_LEAST || size > (1ull << 40))
		return -EINVAL;
	o->cache_size = (size_t)size;
	return 0;
}

static int set_threads(struct mount_options *o, const char *value)
{
	uint64_t n;

	if (parse_u64(value, 1, 256, &n))
		return -EINVAL;
	o->threads = (unsigned)n;
	return 0;
}

static int set_string(char **to, const char *value)
{
	char *copy = *value ? strdup(value) : NULL;

	if (!copy)
		return -EINVAL;
	free(*to);
	*to = copy;
	return 0;
}

static int set_log(struct mount_options *o, const char *value)
{
	return set_string(&o->log_file, value);
}

static int set_trace(struct mount_options *o, const char *value)
{
	return set_string(&o->trace_file, value);
}

static int set_delta(struct mount_options *o, const char *value)
{
	return set_string(&o->delta_file, value);
}

#define DELTA_SIZE_LEAST (4u << 20)

static int set_size(struct mount_options *o, const char *value)
{
	uint64_t size;

	if (parse_size(value, &size) || size < DELTA_SIZE_LEAST || size > (uint64_t)INT64_MAX)
		return -EINVAL;
	o->size = size;
	return 0;
}

static int set_fsname(struct mount_options *o, const char *value)
{
	/* /proc/mounts has one line for each mount. */
	return strchr(value, '\n') ? -EINVAL : set_string(&o->fsname, value);
}

static int set_subtype(struct mount_options *o, const char *value)
{
	return strcmp(value, "pinfs") ? -EINVAL : 0;
}

static int set_id(struct vfs_idmap *map, const char *value)
{
	uint64_t id;

	if (parse_u64(value, 0, UINT32_MAX - 1, &id))
		return -EINVAL;
	map->all = true;
	map->all_as = (uint32_t)id;
	return 0;
}

static int set_uid(struct mount_options *o, const char *value)
{
	return set_id(&o->uids, value);
}

static int set_gid(struct mount_options *o, const char *value)
{
	return set_id(&o->gids, value);
}

/* FROM:TO[:COUNT], several with ';' between. */
static int set_map(struct vfs_idmap *map, const char *value)
{
	while (*value) {
		unsigned long v[3] = {0, 0, 1};
		unsigned n = 0;

		for (;; value++) {
			char *end;

			if (n == 3 || *value < '0' || *value > '9')
				return -EINVAL;
			errno = 0;
			v[n++] = strtoul(value, &end, 10);
			value = end;
			if (errno || v[n - 1] > UINT32_MAX)
				return -EINVAL;
			if (*value != ':')
				break;
		}
		if (n < 2 || !v[2] || v[0] + v[2] > UINT32_MAX || v[1] + v[2] > UINT32_MAX ||
			map->count == VFS_IDMAP_RANGES || (*value && *value != ';'))
			return -EINVAL;
		value += *value == ';';
		map->ranges[map->count++] =
			(struct vfs_idmap_range){(uint32_t)v[0], (uint32_t)v[1], (uint32_t)v[2]};
	}
	return map->count ? 0 : -EINVAL;
}

static int set_uidmap(struct mount_options *o, const char *value)
{
	return set_map(&o->uids, value);
}

static int set_gidmap(struct mount_options *o, const char *value)
{
	return set_map(&o->gids, value);
}

#define ACCESS(name, value_)                                               \
	static int set_##name(struct mount_options *o, const char *value)  \
	{                                                                  \
		o->access = value_;                                        \
		return 0;                                                  \
	}
ACCESS(allow_other, MOUNT_ACCESS_OTHER)
ACCESS(noallow_other, MOUNT_ACCESS_OWNER)
ACCESS(allow_root, MOUNT_ACCESS_ROOT)

#define FLAG(name, field, value_)                                          \
	static int set_##name(struct mount_options *o, const char *value)  \
	{                                                                  \
		o->field = value_;                                         \
		return 0;                                                  \
	}
#define ATIME(name, noatime_, value_)                                      \
	static int set_##name(struct mount_options *o, const char *value)  \
	{                                                                  \
		o->noatime = noatime_;                                     \
		o->atime = value_;                                         \
		return 0;                                                  \
	}
ATIME(noatime, true, VFS_NOATIME)
ATIME(atime, false, VFS_RELATIME)
ATIME(relatime, false, VFS_RELATIME)
ATIME(strictatime, false, VFS_STRICTATIME)
FLAG(ephemeral, ephemeral, true)
FLAG(norecovery, norecovery, true)
FLAG(suid, suid, true)
FLAG(nosuid, suid, false)
FLAG(dev, dev, true)
FLAG(nodev, dev, false)
FLAG(exec, noexec, false)
FLAG(noexec, noexec, true)
FLAG(diratime, nodiratime, false)
FLAG(nodiratime, nodiratime, true)
FLAG(symfollow, nosymfollow, false)
FLAG(nosymfollow, nosymfollow, true)
FLAG(sync, sync, true)
FLAG(async, sync, false)
FLAG(dirsync, dirsync, true)

static const struct option options_known[] = {
	{"ro", set_ro, NULL},
	{"rw", set_rw, NULL},
	{"remount", set_remount, NULL},
	{"offset", set_offset, "a number of bytes, or 'auto'"},
	{"io", set_io, "'auto', 'uring' or 'pread'"},
	{"image_io", set_image_io, "'auto', 'direct' or 'buffered'"},
	{"cache", set_cache, "'kernel', 'writeback' or 'daemon'"},
	{"delta", set_delta, "the name of a file"},
	{"ephemeral", set_ephemeral, NULL},
	{"size", set_size, "a size from 4M on"},
	{"norecovery", set_norecovery, NULL},
	{"relatime", set_relatime, NULL},
	{"strictatime", set_strictatime, NULL},
	{"cache_size", set_cache_size, "a size from 1M on"},
	{"threads", set_threads, "a number from 1 to 256"},
	{"log", set_log, "the name of a file"},
	{"trace", set_trace, "the name of a new file"},
	{"fsname", set_fsname, "a name"},
	{"subtype", set_subtype, "'pinfs', nothing else"},
	{"uid", set_uid, "the number of a user"},
	{"gid", set_gid, "the number of a group"},
	{"uidmap", set_uidmap, "FROM:TO[:COUNT], at most 32 with ';' between"},
	{"gidmap", set_gidmap, "FROM:TO[:COUNT], at most 32 with ';' between"},
	{"allow_other", set_allow_other, NULL},
	{"noallow_other", set_noallow_other, NULL},
	{"allow_root", set_allow_root, NULL},
	{"suid", set_suid, NULL},
	{"nosuid", set_nosuid, NULL},
	{"dev", set_dev, NULL},
	{"nodev", set_nodev, NULL},
	{"exec", set_exec, NULL},
	{"noexec", set_noexec, NULL},
	{"atime", set_atime, NULL},
	{"noatime", set_noatime, NULL},
	{"diratime", set_diratime, NULL},
	{"nodiratime", set_nodiratime, NULL},
	{"symfollow", set_symfollow, NULL},
	{"nosymfollow", set_nosymfollow, NULL},
	{"sync", set_sync, NULL},
	{"async", set_async, NULL},
	{"dirsync", set_dirsync, NULL},
};

/* Meant for mount(8) and systemd, or without effect on what never changes. Some come with a value. */
static const char *const options_ignored[] = {
	"defaults", "default_permissions", "auto", "noauto", "_netdev", "nofail", "user", "nouser", "users", "nousers",
	"owner", "noowner", "group", "nogroup", "comment", "uhelper", "norelatime", "nostrictatime", "lazytime", "nolazytime", "mand", "nomand", "iversion", "noiversion",
	"silent", "loud", "nonempty",
};

static bool option_ignored(const char *name)
{
	if (!strncmp(name, "x-", 2) || !strncmp(name, "X-", 2))
		return true;
	for (size_t i = 0; i < ARRAY_SIZE(options_ignored); i++)
		if (!strcmp(name, options_ignored[i]))
			return true;
	return false;
}

static const struct option *option_find(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(options_known); i++)
		if (!strcmp(options_known[i].name, name))
			return &options_known[i];
	return NULL;
}

static int option_apply(struct mount_options *o, const char *name, const char *value, bool sloppy)
{
	const struct option *def = option_find(name);
	int r;

	if (!def) {
		if (option_ignored(name) || sloppy)
			return 0;
		log_error("unknown mount option '%s'; 'pinfs mount --help' lists those that there are", name);
		return -EINVAL;
	}
	if (!def->wants && value) {
		log_error("mount option '%s' takes no value", name);
		return -EINVAL;
	}
	r = def->wants && !value ? -EINVAL : def->set(o, value);
	if (r >= 0)
		return 0;
	if (def->wants)
		log_error("mount option '%s%s%s': after '=' comes %s", name, value ? "=" : "", value ? value : "",
			def->wants);
	return -EINVAL;
}

int mount_options_parse(struct mount_options *o, const char *text, bool sloppy)
{
	_cleanup_free_ char *word = malloc(strlen(text) + 1);
	int r = 0;

	if (!word) {
		log_error("out of memory");
		return -EINVAL;
	}
	while (*text && r == 0) {
		char *out = word, *value = NULL;

		for (; *text && *text != ','; text++) {
			if (*text == '\\' && text[1])
				text++;
			else if (*text == '=' && !value) {
				*out++ = 0;
				value = out;
				continue;
			}
			*out++ = *text;
		}
		*out = 0;
		text += *text == ',';
		if (*word || value)
			r = option_apply(o, word, value, sloppy);
	}
	return r;
}

void mount_options_init(struct mount_options *o)
{
	long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
	size_t ram = pages > 0 && page > 0 ? (size_t)pages * (size_t)page : 0;

	*o = (struct mount_options){
		.offset = IMAGE_OFFSET_AUTO,
		.cache_size = MIN(MAX(ram / 64, (size_t)CACHE_SIZE_DEFAULT_LEAST), (size_t)CACHE_SIZE_DEFAULT_MOST),
	};
}

void mount_options_free(struct mount_options *o)
{
	free(o->log_file);
	free(o->trace_file);
	free(o->fsname);
	free(o->delta_file);
}

/* What libfuse and fusermount3 take a special meaning from. */
static void put_escaped(FILE *f, const char *s)
{
	for (; *s; s++) {
		if (*s == ',' || *s == '\\')
			putc('\\', f);
		putc(*s, f);
	}
}

char *mount_options_for_fuse(const struct mount_options *o, const char *source, bool writable)
{
	bool root = geteuid() == 0;
	enum mount_owner_access access = o->access;
	char *text = NULL;
	size_t size;
	FILE *f = open_memstream(&text, &size);

	if (!f)
		return NULL;
	if (access == MOUNT_ACCESS_DEFAULT)
		access = root ? MOUNT_ACCESS_OTHER : MOUNT_ACCESS_OWNER;
	fputs(writable ? "rw" : "ro", f);
	fputs(",default_permissions,subtype=pinfs,fsname=", f);
	put_escaped(f, o->fsname ? o->fsname : source);
	if (access == MOUNT_ACCESS_OTHER)
		fputs(",allow_other", f);
	if (access == MOUNT_ACCESS_ROOT)
		fputs(",allow_root", f);
	fputs(o->suid ? ",suid" : ",nosuid", f);
	fputs(o->dev ? ",dev" : ",nodev", f);
	if (o->noexec)
		fputs(",noexec", f);
	if (o->noatime)
		fputs(",noatime", f);
	if (o->nosymfollow)
		fputs(",nosymfollow", f);
	/* So that the kernel hands on what it would keep for a while. */
	if (writable && o->sync)
		fputs(",sync", f);
	if (writable && o->dirsync)
		fputs(",dirsync", f);
	if (fclose(f)) {
		free(text);
		return NULL;
	}
	return text;
}
