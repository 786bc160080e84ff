/* SPDX-License-Identifier: MIT */
/* Opening, names and attributes. */
#include "vfs/internal.h"

#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/sysmacros.h>

#include "base/mem.h"

#define DAMAGE_REPEAT_NS 10000000000ull

static void on_damage(void *context, uint64_t offset, const char *text)
{
	struct vfs *v = context;
	uint64_t now = now_ns();
	unsigned suppressed;

	/* Every read of a damaged block finds it again: once in ten seconds is enough. (Two threads may both say it.) */
	if (offset == atomic_load(&v->damage_last) && now - atomic_load(&v->damage_time) < DAMAGE_REPEAT_NS)
		return;
	atomic_store(&v->damage_last, offset);
	atomic_store(&v->damage_time, now);
	if (!log_limit_pass(&v->damage_limit, VFS_DAMAGE_BURST, &suppressed))
		return;
	if (suppressed)
		log_error("%s: %u more messages about damage were not shown", v->name, suppressed);
	log_error("%s: byte %ju: %s", v->name, (uintmax_t)offset, text);
}

int vfs_damaged(struct vfs *v, const struct image_inode *inode, const char *what)
{
	const struct image_info *info = image_get_info(v->image);
	struct image_block chunk = {0};
	char text[128];

	/* Where the inode is kept: the chunk of its section. */
	for (unsigned i = 0; i < info->section_count; i++) {
		const struct image_section *s = &info->sections[i];

		if (s->type == PINFS_SECTION_INODES)
			image_chunk_info(v->image, i, (uint64_t)(inode->ino - 1) * s->record_size / s->chunk_size, &chunk);
	}
	snprintf(text, sizeof(text), "inode %u: %s", inode->ino, what);
	on_damage(v, chunk.offset, text);
	return -EUCLEAN;
}

static int vfs_init(struct vfs *v, const struct vfs_options *o, char error[IMAGE_ERROR_SIZE])
{
	/* Reads of the largest size shall fit, with blocks to spare for readers beside them. */
	struct cache_options cache_options = {
		.limit = MAX(o->cache_limit, (size_t)4 * VFS_READ_MAX),
		.readahead_threads = o->readahead_threads,
	};
	const struct image_info *info = image_get_info(v->image);
	struct image_inode root;
	int r;

	r = image_inode_get(v->image, VFS_ROOT_INO, &root);
	if (r == 0 && !S_ISDIR(root.mode))
		r = -EUCLEAN;
	if (r < 0) {
		snprintf(error, IMAGE_ERROR_SIZE, "the root directory can't be read: %s", strerror(-r));
		return r;
	}
	v->zeros = mmap(NULL, VFS_READ_MAX, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (v->zeros == MAP_FAILED) {
		v->zeros = NULL;
		r = -ENOMEM;
	}
	if (r == 0) {
		int fd = mem_pressure_open();

		/* Without it (an old kernel, a sandbox) the cache keeps what it has. */
		cache_options.pressure_fd = fd > 0 ? fd : 0;
		r = cache_new(&cache_options, &v->cache);
	}
	if (r == 0)
		r = cache_mapping_new(v->cache, &vfs_image_ops, v, info->block_size,
			info->block_count * info->block_size, 0, &v->blocks);
	if (r < 0)
		snprintf(error, IMAGE_ERROR_SIZE, "out of memory");
	return r;
}

int vfs_new(struct io_file *io, const struct vfs_options *o, struct vfs **ret, char error[IMAGE_ERROR_SIZE])
{
	struct vfs *v = calloc(1, sizeof(*v));
	struct image_options options = {.offset = o->offset, .on_damage = on_damage, .context = v};
	int r;

	if (!v || !(v->name = strdup(o->name))) {
		free(v);
		io_close(io);
		snprintf(error, IMAGE_ERROR_SIZE, "out of memory");
		return -ENOMEM;
	}
	v->uids = o->uids;
	v->gids = o->gids;
	r = image_open(io, &options, &v->image, error);
	if (r < 0)
		io_close(io);
	else
		r = vfs_init(v, o, error);
	if (r < 0) {
		vfs_free(v);
		return r;
	}
	*ret = v;
	return 0;
}

void vfs_free(struct vfs *v)
{
	if (!v)
		return;
	cache_mapping_free(v->blocks);
	cache_free(v->cache);
	image_close(v->image);
	if (v->zeros)
		munmap(v->zeros, VFS_READ_MAX);
	free(v->name);
	free(v);
}

const struct image_info *vfs_image_info(const struct vfs *v)
{
	return image_get_info(v->image);
}

struct io_file *vfs_io(const struct vfs *v)
{
	return image_io(v->image);
}

void vfs_cache_stats(struct vfs *v, struct cache_stats *ret)
{
	cache_get_stats(v->cache, ret);
}

struct trace *vfs_trace(struct vfs *v)
{
	return cache_trace(v->cache);
}

uint32_t vfs_map_id(const struct vfs_idmap *map, uint32_t id)
{
	if (map->all)
		return map->all_as;
	for (unsigned i = 0; i < map->count; i++) {
		const struct vfs_idmap_range *r = &map->ranges[i];

		if (id >= r->from && id - r->from < r->count)
			return r->to + (id - r->from);
	}
	return id;
}

void vfs_fill_stat(const struct vfs *v, const struct image_inode *i, struct stat *ret)
{
	bool device = S_ISCHR(i->mode) || S_ISBLK(i->mode);

	*ret = (struct stat){
		.st_ino = i->ino,
		.st_mode = i->mode,
		.st_nlink = i->nlink,
		.st_uid = vfs_map_id(&v->uids, i->uid),
		.st_gid = vfs_map_id(&v->gids, i->gid),
		.st_rdev = device ? makedev(i->arg0, i->arg1) : 0,
		.st_size = (off_t)i->size,
		.st_blksize = PINFS_PAGE_SIZE,
		.st_blocks = (blkcnt_t)DIV_ROUND_UP(i->alloc, 512),
		.st_atim = i->mtime,
		.st_mtim = i->mtime,
		.st_ctim = i->mtime,
	};
}

int vfs_getattr(struct vfs *v, uint64_t ino, struct stat *ret)
{
	struct image_inode i;
	int r = image_inode_get(v->image, ino, &i);

	if (r < 0)
		return r;
	vfs_fill_stat(v, &i, ret);
	return 0;
}

int vfs_lookup(struct vfs *v, uint64_t parent, const char *name, struct stat *ret)
{
	struct image_inode dir, child;
	struct image_dirent entry;
	int r;

	r = image_inode_get(v->image, parent, &dir);
	if (r < 0)
		return r;
	/* Who holds nothing but a file handle asks for these; "." also of what is not a directory. */
	if (!strcmp(name, ".")) {
		vfs_fill_stat(v, &dir, ret);
		return 0;
	}
	if (!S_ISDIR(dir.mode))
		return -ENOTDIR;
	if (!strcmp(name, ".."))
		return vfs_getattr(v, dir.arg1, ret);
	r = image_dir_lookup(v->image, &dir, name, strlen(name), &entry);
	if (r == 0)
		r = image_dir_child(v->image, &dir, &entry, &child);
	if (r < 0)
		return r;
	vfs_fill_stat(v, &child, ret);
	return 0;
}

int vfs_readlink(struct vfs *v, uint64_t ino, char ret[PINFS_SYMLINK_MAX + 1])
{
	struct image_inode i;
	int r = image_inode_get(v->image, ino, &i);

	return r < 0 ? r : image_readlink(v->image, &i, ret);
}

int vfs_statfs(struct vfs *v, struct statvfs *ret)
{
	const struct image_info *info = image_get_info(v->image);

	*ret = (struct statvfs){
		.f_bsize = info->block_size,
		.f_frsize = PINFS_PAGE_SIZE,
		.f_blocks = DIV_ROUND_UP(info->file_bytes, PINFS_PAGE_SIZE),
		.f_files = info->inode_count,
		.f_namemax = PINFS_NAME_MAX,
	};
	return 0;
}

bool vfs_has_xattrs(const struct vfs *v)
{
	return image_get_info(v->image)->compat & PINFS_COMPAT_XATTR;
}

bool vfs_has_acls(const struct vfs *v)
{
	return image_get_info(v->image)->compat & PINFS_COMPAT_ACL;
}

/* The kernel's form of an ACL: a version, then entries of tag, permissions and id, little-endian. */
static void map_acl(const struct vfs *v, uint8_t *value, size_t size)
{
	struct {
		pinfs_le16 tag, perm;
		pinfs_le32 id;
	} entry;

	for (size_t at = sizeof(pinfs_le32); at + sizeof(entry) <= size; at += sizeof(entry)) {
		const struct vfs_idmap *map;

		memcpy(&entry, value + at, sizeof(entry));
		map = pinfs_get16(entry.tag) == 0x02 ? &v->uids : pinfs_get16(entry.tag) == 0x08 ? &v->gids : NULL;
		if (!map)
			continue;
		entry.id = pinfs_put32(vfs_map_id(map, pinfs_get32(entry.id)));
		memcpy(value + at, &entry, sizeof(entry));
	}
}

ssize_t vfs_getxattr(struct vfs *v, uint64_t ino, const char *name, void *value, size_t size)
{
	struct image_inode i;
	ssize_t n = image_inode_get(v->image, ino, &i);

	if (n == 0)
		n = image_xattr_get(v->image, &i, name, value, size);
	if (n > 0 && size && (!strcmp(name, "system.posix_acl_access") || !strcmp(name, "system.posix_acl_default")))
		map_acl(v, value, (size_t)n);
	return n;
}

ssize_t vfs_listxattr(struct vfs *v, uint64_t ino, char *list, size_t size)
{
	struct image_inode i;
	int r = image_inode_get(v->image, ino, &i);

	return r < 0 ? r : image_xattr_list(v->image, &i, list, size);
}

/* ---- directories ---- */

int vfs_dir_begin(struct vfs *v, uint64_t ino, uint64_t cookie, struct vfs_dir *ret)
{
	struct image_inode i;
	int r = image_inode_get(v->image, ino, &i);

	if (r < 0)
		return r;
	if (!S_ISDIR(i.mode))
		return -ENOTDIR;
	*ret = (struct vfs_dir){.vfs = v, .inode = i, .cookie = cookie};
	return 0;
}

int vfs_dir_next(struct vfs_dir *d, struct vfs_dirent *ret)
{
	int r;

	if (d->cookie < 2) {
		bool self = d->cookie == 0;

		d->cookie++;
		*ret = (struct vfs_dirent){
			.name = self ? "." : "..",
			.ino = self ? d->inode.ino : d->inode.arg1,
			.type = S_IFDIR >> 12,
			.cookie = d->cookie,
		};
		return 1;
	}
	if (!d->began) {
		r = image_dir_iter_begin(d->vfs->image, &d->inode, d->cookie - 2, &d->iter);
		if (r < 0)
			return r;
		d->began = true;
	}
	r = image_dir_iter_next(&d->iter, &d->entry);
	if (r <= 0)
		return r;
	d->cookie = d->entry.index + 3;
	*ret = (struct vfs_dirent){
		.name = d->entry.name,
		.ino = d->entry.ino,
		.type = d->entry.type,
		.cookie = d->cookie,
	};
	return 1;
}

int vfs_dir_getattr(struct vfs_dir *d, const struct vfs_dirent *entry, struct stat *ret)
{
	struct image_inode child;
	int r;

	if (entry->cookie <= 2)
		return vfs_getattr(d->vfs, entry->ino, ret);
	r = image_dir_child(d->vfs->image, &d->inode, &d->entry, &child);
	if (r < 0)
		return r;
	vfs_fill_stat(d->vfs, &child, ret);
	return 0;
}

void vfs_dir_end(struct vfs_dir *d)
{
	if (d->began)
		image_dir_iter_end(&d->iter);
	d->began = false;
}
