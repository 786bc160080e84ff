/* SPDX-License-Identifier: MIT */
/* Opening, names and attributes. */
#include "vfs/internal.h"

#include <limits.h>
#include <stdatomic.h>
#include <sys/mman.h>

#include "base/mem.h"

#define DIRTY_EXPIRE_MS 5000u
/* How long another mount may take to end: 3 s. */
#define BUSY_TRIES 60u
#define BUSY_WAIT_US 50000u
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

static void on_delta_damage(void *context, uint64_t offset, const char *text)
{
	struct vfs *v = context;
	unsigned suppressed;

	if (!log_limit_pass(&v->damage_limit, VFS_DAMAGE_BURST, &suppressed))
		return;
	log_error("%s: byte %ju: %s", v->delta_name, (uintmax_t)offset, text);
}

static void on_delta_message(void *context, const char *text)
{
	struct vfs *v = context;

	log_error("%s: %s", v->delta_name, text);
}

static void delta_options_fill(struct vfs *v, const struct vfs_delta_options *o, struct delta_options *ret)
{
	const struct image_info *info = image_get_info(v->image);

	*ret = (struct delta_options){
		.image_size = info->image_size,
		.image_inodes = info->inode_count,
		.limit = o->size_limit,
		.no_flush = o->nosync || (!o->path && !o->store),
		.no_recovery = o->norecovery,
		.read_only = o->read_only,
		.no_thread = o->no_threads,
		.on_damage = on_delta_damage,
		.on_message = on_delta_message,
		.context = v,
	};
	memcpy(ret->image_uuid, info->uuid, sizeof(ret->image_uuid));
	memcpy(ret->image_hash, info->content_hash, sizeof(ret->image_hash));
}

/* The store that a delta lies in. *ret_new: there is nothing in it. */
static int delta_store_open(const struct vfs_delta_options *o, struct store **ret, bool *ret_new, char error[IMAGE_ERROR_SIZE])
{
	int r;

	if (o->store) {
		*ret = o->store;
		*ret_new = !store_size(o->store) || (!o->read_only && delta_unfinished(o->store));
		return 0;
	}
	*ret_new = !o->path;
	if (!o->path) {
		r = store_open_unnamed(o->dir, ret);
		if (r < 0)
			snprintf(error, IMAGE_ERROR_SIZE, "can't make a temporary file in %s: %s", o->dir, strerror(-r));
		return r;
	}
	/* umount(8) returns before the daemon has written the last of it. */
	for (unsigned tries = 0; tries < BUSY_TRIES; tries++) {
		r = store_open(o->path, o->read_only ? STORE_READ_ONLY : 0, ret);
		if (r != -EBUSY)
			break;
		usleep(BUSY_WAIT_US);
	}
	if (r == -ENOENT && !o->read_only) {
		r = store_open(o->path, STORE_CREATE, ret);
		*ret_new = true;
	} else if (r == 0 && !o->read_only && (!store_size(*ret) || delta_unfinished(*ret))) {
		/* Made by a mount that was interrupted, or empty and by the user. */
		*ret_new = true;
	}
	if (r == -EBUSY)
		snprintf(error, IMAGE_ERROR_SIZE, "the delta %s is in use by another mount, or by fsck", o->path);
	else if (r < 0)
		snprintf(error, IMAGE_ERROR_SIZE, "can't open the delta %s: %s", o->path, r == -ENOTBLK ? "it is no regular file" : strerror(-r));
	return r;
}

/* Without a root directory there is nothing to mount, and the kernel would mount it all the same. */
static int root_check(struct vfs *v)
{
	struct vfs_inode root;
	int r;

	vfs_lock(v);
	r = inode_load_dir(v, VFS_ROOT_INO, &root);
	vfs_unlock(v);
	return r == -ENOENT ? -EUCLEAN : r;
}

static int delta_attach(struct vfs *v, const struct vfs_delta_options *o, char error[IMAGE_ERROR_SIZE])
{
	char why[DELTA_ERROR_SIZE];
	struct delta_options options;
	struct store *store;
	bool new;
	int r;

	v->options = *o;
	v->delta_name = strdup(o->path ? o->path : "ephemeral delta");
	if (!v->delta_name) {
		snprintf(error, IMAGE_ERROR_SIZE, "out of memory");
		return -ENOMEM;
	}
	if (image_get_info(v->image)->ro_compat & ~PINFS_RO_COMPAT_KNOWN) {
		snprintf(error, IMAGE_ERROR_SIZE, "the image has features that this version can only read (%#jx)",
			(uintmax_t)image_get_info(v->image)->ro_compat);
		return -EOPNOTSUPP;
	}
	r = delta_store_open(o, &store, &new, error);
	if (r < 0)
		return r;
	delta_options_fill(v, o, &options);
	v->delta_new = new;
	r = new ? delta_create(store, &options, &v->delta, why) : delta_open(store, &options, &v->delta, why);
	if (r == 0 && new && o->path && !o->nosync) {
		/* Or a power cut would take it away, with all that was synced since. */
		r = store_sync_name(o->path);
		if (r < 0)
			snprintf(why, sizeof(why), "its directory can't be synced: %s", strerror(-r));
	}
	if (r < 0) {
		snprintf(error, IMAGE_ERROR_SIZE, "%.100s: %.300s", v->delta_name, why);
		/* Nothing was there, and nothing is. */
		if (new && o->path)
			unlink(o->path);
		if (!v->delta)
			store_close(store);
		return r;
	}
	/* Also of a delta that is only looked at, files have pages, which somebody has to let go. */
	r = nodes_init(v);
	if (r == 0)
		r = root_check(v);
	if (r == 0 && o->read_only)
		return 0;
	if (r == 0)
		r = orphans_recover(v);
	/* What the last mount has left in the log: the next one need not look at it again. (If there is no room, it does.) */
	if (r == 0 && delta_checkpoint(v->delta) == -EIO)
		r = -EIO;
	if (r < 0)
		snprintf(error, IMAGE_ERROR_SIZE, "%.100s: %s", v->delta_name, r == -EUCLEAN ? "it is damaged; fsck.pinfs says more" :
			r == -ENOSPC || r == -EDQUOT ? "there is no room for what the last mount has left to do" : strerror(-r));
	return r;
}

static int vfs_init(struct vfs *v, const struct vfs_options *o, char error[IMAGE_ERROR_SIZE])
{
	/* Reads of the largest size shall fit, with blocks to spare for readers beside them. */
	struct cache_options cache_options = {
		.limit = MAX(o->cache_limit, (size_t)4 * VFS_READ_MAX),
		.readahead_threads = o->readahead_threads,
		/* sync(2) doesn't reach a FUSE filesystem: what is written shall not wait long for a program that does more. */
		.dirty_expire_ms = o->delta ? DIRTY_EXPIRE_MS : 0,
		.dirty_interval_ms = o->delta ? DIRTY_EXPIRE_MS / 5 : 0,
	};
	const struct image_info *info = image_get_info(v->image);
	struct image_inode root;
	int r;

	/* The flusher sleeps for weeks. */
	if (o->delta && o->delta->no_threads)
		cache_options.dirty_expire_ms = cache_options.dirty_interval_ms = INT_MAX;
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
	if (r < 0) {
		snprintf(error, IMAGE_ERROR_SIZE, "out of memory");
		return r;
	}
	return o->delta ? delta_attach(v, o->delta, error) : 0;
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
	mutex_init(&v->nodes_lock, LOCK_NODES);
	mutex_init(&v->janitor_lock, LOCK_THREAD);
	cond_init(&v->janitor_wake);
	cond_init(&v->node_freed);
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

void vfs_start(struct vfs *v)
{
	cache_start(v->cache);
}

void vfs_free(struct vfs *v)
{
	if (!v)
		return;
	nodes_destroy(v);
	cache_mapping_free(v->blocks);
	cache_free(v->cache);
	delta_close(v->delta);
	image_close(v->image);
	cond_destroy(&v->node_freed);
	cond_destroy(&v->janitor_wake);
	mutex_destroy(&v->janitor_lock);
	mutex_destroy(&v->nodes_lock);
	if (v->zeros)
		munmap(v->zeros, VFS_READ_MAX);
	free(v->delta_name);
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

struct cache *vfs_cache(struct vfs *v)
{
	return v->cache;
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

int vfs_unmap_id(const struct vfs_idmap *map, uint32_t id, uint32_t *ret)
{
	bool shown = true;

	/* The kernel's "nobody that is known here". */
	if (id == UINT32_MAX)
		return -EOVERFLOW;
	for (unsigned i = 0; i < map->count && !map->all; i++) {
		const struct vfs_idmap_range *r = &map->ranges[i];

		if (id >= r->to && id - r->to < r->count) {
			*ret = r->from + (id - r->to);
			return 0;
		}
		shown &= id < r->from || id - r->from >= r->count;
	}
	if (!shown)
		return -EOVERFLOW;
	*ret = id;
	return 0;
}

static bool overlap(uint32_t a, uint32_t a_count, uint32_t b, uint32_t b_count)
{
	return a < b ? b - a < a_count : a - b < b_count;
}

bool vfs_idmap_ambiguous(const struct vfs_idmap *map)
{
	for (unsigned i = 0; i < map->count; i++)
		for (unsigned j = 0; j < i; j++) {
			const struct vfs_idmap_range *a = &map->ranges[i], *b = &map->ranges[j];

			if (overlap(a->from, a->count, b->from, b->count) || overlap(a->to, a->count, b->to, b->count))
				return true;
		}
	return false;
}

/* ---- writable mounts ---- */

bool vfs_writable(const struct vfs *v)
{
	return v->delta && !v->options.read_only;
}

bool vfs_failed(const struct vfs *v)
{
	return v->delta && delta_failed(v->delta);
}

void vfs_abandon(struct vfs *v)
{
	if (v->delta && v->delta_new && v->options.path)
		unlink(v->options.path);
}

struct delta *vfs_delta(const struct vfs *v)
{
	return v->delta;
}

int vfs_trim(struct vfs *v, uint64_t start, uint64_t len, uint64_t least, uint64_t *ret)
{
	return v->delta ? delta_trim(v->delta, start, len, least, ret) : -EROFS;
}

int vfs_shutdown(struct vfs *v, bool flush)
{
	if (!v->delta)
		return -EROFS;
	if (flush)
		vfs_sync(v);
	delta_fail(v->delta, -ESHUTDOWN);
	return 0;
}
