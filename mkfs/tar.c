/* SPDX-License-Identifier: MIT */
/* A source that is an archive: tar in all its dialects, cpio, zip, 7z, ISO 9660; in one pass. */
#include "mkfs/mkfs.h"

#include "base/log.h"
#include "codec/codec.h"

#ifndef HAVE_LIBARCHIVE

int tar_read(struct tree *tree, struct pack *pack, struct progress *progress)
{
	log_error("this mkfs.pinfs was built without libarchive and can't read archives; unpack it and give the directory");
	return -EOPNOTSUPP;
}

#else

#include <archive.h>
#include <archive_entry.h>
#include <grp.h>
#include <linux/posix_acl.h>
#include <linux/posix_acl_xattr.h>
#include <pwd.h>

struct tar {
	struct tree *tree;
	struct pack *pack;
	struct archive *archive;
	struct hash_table *paths; /* path in the image → node */
	struct xattr_build build;

	/* The content of the current entry, as blocks with gaps. */
	const uint8_t *block;
	size_t block_len;
	uint64_t block_offset;
	bool at_end;
	bool sparse;
};

static int archive_error_said(struct tar *t)
{
	log_error("can't read the archive: %s",
		archive_error_string(t->archive) ? archive_error_string(t->archive) : "unknown error");
	return -EINVAL;
}

static struct node *path_get(struct tar *t, const char *path, size_t len)
{
	struct codec_hash128 h = codec_hash128(path, len);

	return (struct node *)(uintptr_t)hash_table_get(t->paths, h.low, h.high);
}

static int path_put(struct tar *t, const char *path, size_t len, struct node *node)
{
	struct codec_hash128 h = codec_hash128(path, len);

	return hash_table_put(t->paths, h.low, h.high, (uint64_t)(uintptr_t)node);
}

/* "./usr//bin/" → "usr/bin". -EINVAL for "..", which has no place in an image. The result is malloc()ed. */
static int path_normalize(const char *in, char **ret)
{
	char *out = malloc(strlen(in) + 1), *o = out;

	if (!out)
		return -ENOMEM;
	while (*in) {
		size_t n = strcspn(in, "/");

		if (n == 2 && in[0] == '.' && in[1] == '.') {
			free(out);
			return -EINVAL;
		}
		if (n > PINFS_NAME_MAX) {
			free(out);
			return -ENAMETOOLONG;
		}
		if (n && !(n == 1 && in[0] == '.')) {
			if (o != out)
				*o++ = '/';
			memcpy(o, in, n);
			o += n;
		}
		in += n;
		while (*in == '/')
			in++;
	}
	*o = 0;
	*ret = out;
	return 0;
}

/* The directory that `path` lies in, made with default attributes if the archive has not named it (yet). */
static int parent_get(struct tar *t, const char *path, struct node **ret, const char **ret_name)
{
	const struct stat st = {.st_mode = S_IFDIR | 0755};
	struct node *at = t->tree->root;
	const char *name = path, *slash;

	for (; (slash = strchr(name, '/')); name = slash + 1) {
		size_t len = (size_t)(slash - path);
		struct node *next = path_get(t, path, len);
		struct inode *inode;
		int r;

		if (next && !S_ISDIR(next->inode->mode)) {
			log_error("%.*s is used as a directory, but is none", (int)len, path);
			return -ENOTDIR;
		}
		if (!next) {
			r = tree_inode_new(t->tree, &st, &inode);
			if (r == 0)
				r = tree_node_new(t->tree, at, name, (size_t)(slash - name), inode, &next);
			if (r == 0)
				r = path_put(t, path, len, next);
			if (r < 0)
				return r;
		}
		at = next;
	}
	*ret = at;
	*ret_name = name;
	return 0;
}

/* ---- content ---- */

static int next_block(struct tar *t)
{
	const void *data;
	la_int64_t offset;
	size_t len;
	int r;

	do {
		r = archive_read_data_block(t->archive, &data, &len, &offset);
		if (r == ARCHIVE_EOF) {
			t->at_end = true;
			return 0;
		}
		if (r < ARCHIVE_WARN)
			return archive_error_said(t);
	} while (!len);
	t->block = data;
	t->block_len = len;
	t->block_offset = (uint64_t)offset;
	return 0;
}

static ssize_t tar_content_read(void *context, void *buf, size_t len, uint64_t offset)
{
	struct tar *t = context;
	uint8_t *out = buf;
	size_t done = 0;

	while (done < len) {
		uint64_t at = offset + done;

		if (!t->at_end && t->block_offset + t->block_len <= at) {
			int r = next_block(t);

			if (r < 0)
				return r;
			continue;
		}
		if (t->at_end || t->block_offset > at) {
			uint64_t gap = t->at_end ? len - done : MIN(t->block_offset - at, (uint64_t)(len - done));

			memset(out + done, 0, gap);
			done += gap;
		} else {
			size_t skip = (size_t)(at - t->block_offset), n = MIN(t->block_len - skip, len - done);

			memcpy(out + done, t->block + skip, n);
			done += n;
		}
	}
	return (ssize_t)done;
}

static uint64_t tar_next_data(void *context, uint64_t offset)
{
	struct tar *t = context;

	while (!t->at_end && t->block_offset + t->block_len <= offset)
		if (next_block(t) < 0)
			return offset; /* read() meets the error again */
	return t->at_end ? UINT64_MAX : MAX(t->block_offset, offset);
}

static bool entry_xip(struct tar *t, const struct inode *inode)
{
	const struct mkfs_options *o = t->tree->options;

	if (t->sparse)
		return false;
	if (xip_wanted(o, inode))
		return true;
	if (o->xip != XIP_AUTO || inode->size < PINFS_PAGE_SIZE)
		return false;
	if (!t->at_end && !t->block_len && next_block(t) < 0)
		return false;
	return !t->at_end && t->block_offset == 0 && elf_is_loadable(t->block, t->block_len);
}

static int store_content(struct tar *t, struct archive_entry *e, struct inode *inode)
{
	struct content_source source = {tar_content_read, tar_next_data, t};

	t->block = NULL;
	t->block_len = 0;
	t->block_offset = 0;
	t->at_end = false;
	t->sparse = archive_entry_sparse_count(e) > 0;
	if (!inode->size)
		return 0;
	t->tree->file_count++;
	return pack_file(t->pack, inode, &source, entry_xip(t, inode));
}

/* ---- attributes ---- */

/* GNU tar writes names without numbers: what they mean is up to this machine, as when tar extracts. */
static bool acl_id(int tag, int qual, const char *name, uint32_t *ret)
{
	const struct passwd *p;
	const struct group *g;
	uint64_t number;

	if (tag != ARCHIVE_ENTRY_ACL_USER && tag != ARCHIVE_ENTRY_ACL_GROUP) {
		*ret = UINT32_MAX;
		return true;
	}
	if (qual != -1) {
		*ret = (uint32_t)qual;
		return true;
	}
	if (!name)
		return false;
	if (parse_u64(name, 0, UINT32_MAX - 1, &number) == 0) {
		*ret = (uint32_t)number; /* tar --numeric-owner */
		return true;
	}
	if (tag == ARCHIVE_ENTRY_ACL_USER) {
		p = getpwnam(name);
		*ret = p ? p->pw_uid : 0;
		return p;
	}
	g = getgrnam(name);
	*ret = g ? g->gr_gid : 0;
	return g;
}

/* archive_entry's ACL → the kernel's binary form of system.posix_acl_*. */
static int add_acl(struct tar *t, struct archive_entry *e, int type, const char *name, const struct inode *inode)
{
	static const struct {
		int tag, value;
	} tags[] = {
		{ARCHIVE_ENTRY_ACL_USER_OBJ, ACL_USER_OBJ}, {ARCHIVE_ENTRY_ACL_USER, ACL_USER},
		{ARCHIVE_ENTRY_ACL_GROUP_OBJ, ACL_GROUP_OBJ}, {ARCHIVE_ENTRY_ACL_GROUP, ACL_GROUP},
		{ARCHIVE_ENTRY_ACL_MASK, ACL_MASK}, {ARCHIVE_ENTRY_ACL_OTHER, ACL_OTHER},
	};
	struct acl_item {
		uint16_t tag, perm;
		uint32_t id;
	} *items;
	_cleanup_free_ uint8_t *blob = NULL;
	int count = archive_entry_acl_reset(e, type), n = 0;
	uint32_t version = htole32(POSIX_ACL_XATTR_VERSION);
	int etype, perm, tag, qual;
	const char *qname;

	/* Three entries are only the mode bits; ACCESS and DEFAULT lists may both be set. */
	if (count <= 0 || (type == ARCHIVE_ENTRY_ACL_TYPE_ACCESS && count <= 3))
		return 0;
	blob = malloc(sizeof(version) + (size_t)count * sizeof(*items));
	if (!blob)
		return -ENOMEM;
	memcpy(blob, &version, sizeof(version));
	items = (struct acl_item *)(blob + sizeof(version));
	/* The kernel wants them in the order of the tags, and by id within one. */
	for (size_t k = 0; k < ARRAY_SIZE(tags); k++) {
		int first = n;

		archive_entry_acl_reset(e, type);
		while (archive_entry_acl_next(e, type, &etype, &perm, &tag, &qual, &qname) == ARCHIVE_OK) {
			int at = n;
			uint32_t id;

			if (tag != tags[k].tag || n == count)
				continue;
			if (!acl_id(tag, qual, qname, &id)) {
				tree_warn(t->tree, inode->name, "its ACL names '%.64s', whom this system does not "
					"know; the ACL is left out", qname ? qname : "nobody");
				return 0;
			}
			for (; at > first && le32toh(items[at - 1].id) > id; at--)
				items[at] = items[at - 1];
			items[at] = (struct acl_item){htole16((uint16_t)tags[k].value), htole16((uint16_t)(perm & 7)),
				htole32(id)};
			n++;
		}
	}
	return xattr_build_add(&t->build, name, blob, sizeof(version) + (size_t)n * sizeof(*items));
}

static int set_xattrs(struct tar *t, struct archive_entry *e, struct inode *inode)
{
	bool access = false, other = false; /* ACLs that came as the attributes that they are */
	const char *name;
	const void *value;
	size_t size;
	int r = 0;

	if (t->tree->options->no_xattrs)
		return 0;
	archive_entry_xattr_reset(e);
	while (r == 0 && archive_entry_xattr_next(e, &name, &value, &size) == ARCHIVE_OK) {
		if (!name)
			continue;
		access |= !strcmp(name, "system.posix_acl_access");
		other |= !strcmp(name, "system.posix_acl_default");
		if (strlen(name) > PINFS_XATTR_NAME_MAX || size > PINFS_XATTR_VALUE_MAX) {
			tree_warn(t->tree, inode->name, "attribute '%.64s' is too long; it is left out", name);
			continue;
		}
		r = xattr_build_add(&t->build, name, value, size);
	}
	if (r == 0 && !access)
		r = add_acl(t, e, ARCHIVE_ENTRY_ACL_TYPE_ACCESS, "system.posix_acl_access", inode);
	if (r == 0 && !other)
		r = add_acl(t, e, ARCHIVE_ENTRY_ACL_TYPE_DEFAULT, "system.posix_acl_default", inode);
	if (r == 0)
		r = tree_xattr_set(t->tree, inode, &t->build);
	xattr_build_clear(&t->build);
	return r;
}

static void entry_stat(struct archive_entry *e, struct stat *ret)
{
	*ret = (struct stat){
		.st_mode = archive_entry_mode(e),
		.st_uid = (uid_t)archive_entry_uid(e),
		.st_gid = (gid_t)archive_entry_gid(e),
		.st_size = archive_entry_size_is_set(e) ? archive_entry_size(e) : 0,
		.st_mtim = {.tv_sec = archive_entry_mtime(e), .tv_nsec = archive_entry_mtime_nsec(e)},
	};
}

static int set_target(struct tar *t, struct archive_entry *e, struct inode *inode)
{
	const char *target = archive_entry_symlink(e);
	size_t len = target ? strlen(target) : 0;

	if (!len || len > PINFS_SYMLINK_MAX) {
		log_error("symbolic link with an impossible target in the archive");
		return -EINVAL;
	}
	inode->link.target = tree_alloc(t->tree, len + 1);
	if (!inode->link.target)
		return -ENOMEM;
	memcpy(inode->link.target, target, len);
	inode->size = len;
	return 0;
}

/* ---- entries ---- */

static int hard_link(struct tar *t, struct archive_entry *e, struct node *dir, const char *name, const char *path,
	struct node **ret)
{
	_cleanup_free_ char *target = NULL;
	struct node *other;
	int r = path_normalize(archive_entry_hardlink(e), &target);

	if (r < 0)
		return r;
	other = path_get(t, target, strlen(target));
	if (!other || !other->inode || S_ISDIR(other->inode->mode)) {
		log_error("%s is a hard link to %s, which is not in the archive before it", path, target);
		return -EINVAL;
	}
	r = tree_node_new(t->tree, dir, name, strlen(name), other->inode, ret);
	/* Some dialects (cpio, pax with data) carry the content with a link. */
	if (r == 0 && archive_entry_size(e) > 0 && S_ISREG(other->inode->mode) && !other->inode->size) {
		other->inode->size = (uint64_t)archive_entry_size(e);
		r = store_content(t, e, other->inode);
	}
	return r;
}

/* A directory that is named again gets the newer attributes and keeps its entries. */
static int update_directory(struct tar *t, struct archive_entry *e, struct node *node)
{
	struct inode *fresh, *i = node->inode;
	struct stat st;
	int r;

	entry_stat(e, &st);
	r = tree_inode_new(t->tree, &st, &fresh);
	if (r < 0)
		return r;
	t->tree->inode_count--;
	i->mode = fresh->mode;
	i->uid = fresh->uid;
	i->gid = fresh->gid;
	i->mtime_sec = fresh->mtime_sec;
	i->mtime_nsec = fresh->mtime_nsec;
	i->xattr = 0;
	return set_xattrs(t, e, i);
}

static int new_entry(struct tar *t, struct archive_entry *e, struct node *dir, const char *name, struct node **ret)
{
	struct inode *inode;
	struct stat st;
	int r;

	entry_stat(e, &st);
	switch (st.st_mode & S_IFMT) {
	case S_IFREG:
	case S_IFDIR:
	case S_IFLNK:
	case S_IFCHR:
	case S_IFBLK:
	case S_IFIFO:
	case S_IFSOCK:
		break;
	default:
		log_warning("%s: unknown kind of file in the archive; it is left out", name);
		t->tree->warnings++;
		*ret = NULL;
		return 0;
	}
	r = tree_inode_new(t->tree, &st, &inode);
	if (r == 0)
		r = tree_node_new(t->tree, dir, name, strlen(name), inode, ret);
	if (r == 0)
		r = set_xattrs(t, e, inode);
	if (r == 0 && S_ISLNK(st.st_mode))
		r = set_target(t, e, inode);
	if (r == 0 && S_ISREG(st.st_mode))
		r = store_content(t, e, inode);
	if (S_ISCHR(st.st_mode) || S_ISBLK(st.st_mode)) {
		inode->device.major = (uint32_t)archive_entry_rdevmajor(e);
		inode->device.minor = (uint32_t)archive_entry_rdevminor(e);
	}
	return r;
}

/* Is the path, or a directory that it lies in, left out? */
static bool excluded(struct tar *t, const char *path)
{
	const struct string_list *patterns = &t->tree->options->exclude;
	_cleanup_free_ char *copy = NULL;

	if (!patterns->count || asprintf(&copy, "/%s", path) < 0)
		return false;
	for (char *name = copy, *end; name; name = end) {
		bool match;

		end = strchr(name + 1, '/');
		if (end)
			*end = 0;
		match = pattern_match(patterns, copy, name + 1);
		if (match)
			return true;
		if (end)
			*end = '/';
	}
	return false;
}

static int one_entry(struct tar *t, struct archive_entry *e)
{
	const char *raw = archive_entry_pathname(e), *name;
	_cleanup_free_ char *path = NULL;
	struct node *dir, *old, *node = NULL;
	int r;

	if (!raw) {
		log_error("an entry of the archive has no name");
		return -EINVAL;
	}
	r = path_normalize(raw, &path);
	if (r < 0) {
		log_error("%s: %s", raw, r == -EINVAL ? "names with '..' are refused" : strerror(-r));
		return r;
	}
	if (!*path)
		return archive_entry_filetype(e) == AE_IFDIR ? update_directory(t, e, t->tree->root) : 0;
	if (excluded(t, path))
		return 0;
	/* Cut to 32 bits, a made-up number could become root's. */
	if (archive_entry_uid(e) < 0 || archive_entry_uid(e) >= UINT32_MAX || archive_entry_gid(e) < 0 ||
		archive_entry_gid(e) >= UINT32_MAX) {
		log_error("%s belongs to user %jd, group %jd; these numbers go from 0 to %u", path, (intmax_t)archive_entry_uid(e), (intmax_t)archive_entry_gid(e),
			UINT32_MAX - 1);
		return -EOVERFLOW;
	}
	r = parent_get(t, path, &dir, &name);
	if (r < 0)
		return r;
	old = path_get(t, path, strlen(path));
	if (old && old->inode && S_ISDIR(old->inode->mode)) {
		if (archive_entry_filetype(e) == AE_IFDIR && !archive_entry_hardlink(e))
			return update_directory(t, e, old);
		log_error("%s is a directory and later something else in the archive", path);
		return -EEXIST;
	}
	r = archive_entry_hardlink(e) ? hard_link(t, e, dir, name, path, &node) : new_entry(t, e, dir, name, &node);
	if (r < 0 || !node)
		return r;
	if (old && old != node)
		old->inode = NULL; /* as when tar extracts: the later entry wins */
	return path_put(t, path, strlen(path), node);
}

static int open_archive(struct tar *t)
{
	const char *from = t->tree->options->tar;

	t->archive = archive_read_new();
	if (!t->archive)
		return -ENOMEM;
	archive_read_support_filter_all(t->archive);
	/* Not all that libarchive knows: an mtree, for example, only describes files, and they would come out as zeroes. */
	archive_read_support_format_tar(t->archive);
	archive_read_support_format_gnutar(t->archive);
	archive_read_support_format_cpio(t->archive);
	archive_read_support_format_zip(t->archive);
	archive_read_support_format_7zip(t->archive);
	archive_read_support_format_iso9660(t->archive);
	if (archive_read_open_filename(t->archive, strcmp(from, "-") ? from : NULL, 1u << 17) != ARCHIVE_OK)
		return archive_error_said(t);
	return 0;
}

static int read_entries(struct tar *t)
{
	while (!mkfs_interrupted) {
		struct archive_entry *e;
		int a = archive_read_next_header(t->archive, &e), r;

		if (a == ARCHIVE_EOF)
			return 0;
		if (a < ARCHIVE_WARN)
			return archive_error_said(t);
		/* Names are taken as the bytes that they are; libarchive would also like to translate them. */
		if (a == ARCHIVE_WARN) {
			const char *why = archive_error_string(t->archive);

			if (why && !strstr(why, "can't be converted"))
				log_warning("archive: %s", why);
		}
		r = one_entry(t, e);
		if (r < 0) {
			if (r == -ENOMEM)
				log_error("out of memory");
			return r;
		}
	}
	return -EINTR;
}

int tar_read(struct tree *tree, struct pack *pack, struct progress *progress)
{
	const struct stat root = {.st_mode = S_IFDIR | 0755};
	struct tar t = {.tree = tree, .pack = pack};
	struct inode *inode;
	int r = tree_inode_new(tree, &root, &inode);

	if (r == 0)
		r = tree_node_new(tree, NULL, "", 0, inode, &tree->root);
	t.paths = hash_table_new();
	if (r == 0 && !t.paths)
		r = -ENOMEM;
	if (r == 0)
		r = open_archive(&t);
	if (r == 0)
		r = read_entries(&t);
	if (t.archive)
		archive_read_free(t.archive);
	hash_table_free(t.paths);
	xattr_build_clear(&t.build);
	return r;
}

#endif
