/* SPDX-License-Identifier: MIT */
/*
 * Files that other processes map: all their pages lie in one memfd, each at the place that it has in the file.
 *
 *	pages in the arena ──vfs_share()──► in the memfd ──last vfs_unshare()──► in the arena
 *	                                         │                                  ▲
 *	                                         └─ some are pinned, or can't be written: the janitor tries again ─┘
 */
#include "vfs/internal.h"

#include <fcntl.h>
#include <linux/fs.h>

/* Address space for a file's pages, at least: it may grow so far while it is mapped. A memfd takes no memory for what nobody has touched. */
#define ROOM_LEAST ((uint64_t)64 << 30)
#define ROOM_GROWTH 4u
/* Where that isn't to be had (RLIMIT_AS, many files): as much as the file needs, and this. */
#define ROOM_SPARE ((uint64_t)1 << 30)

static void shared_clear(void *context, uint64_t page, unsigned count)
{
	struct vfs_node *n = context;

	mem_region_return(&n->memory, page * PINFS_PAGE_SIZE, (size_t)count * PINFS_PAGE_SIZE);
}

/* A memfd with room for a file of this size. */
static int room_make(struct vfs_node *n, uint64_t size)
{
	uint64_t need = align_up(MAX(size, (uint64_t)1), PINFS_PAGE_SIZE);
	uint64_t sizes[] = {MAX(ROOM_LEAST, MIN(need, UINT64_MAX / 2 / ROOM_GROWTH) * ROOM_GROWTH), need + ROOM_SPARE};
	int r = -EFBIG;

	for (size_t i = 0; r < 0 && i < ARRAY_SIZE(sizes); i++) {
		if (sizes[i] < need || sizes[i] > (uint64_t)INT64_MAX)
			continue;
		r = mem_region_new("pinfs file", (size_t)sizes[i], &n->memory);
		if (r < 0 || n->memory.fd >= 0)
			continue;
		/* Nothing that another process could map. */
		mem_region_free(&n->memory);
		r = -EOPNOTSUPP;
	}
	return r;
}

static void room_end_locked(struct vfs_node *n)
{
	if (n->memory.base && !n->shares && cache_mapping_move(n->mapping, NULL) == 0)
		mem_region_free(&n->memory);
}

void node_room_end(struct vfs_node *n)
{
	mutex_lock(&n->lock);
	room_end_locked(n);
	mutex_unlock(&n->lock);
}

/* Under node->lock. */
static int share_locked(struct vfs_node *n)
{
	struct cache_outside o = {.clear = shared_clear, .context = n, .untrusted = true};
	struct vfs *v = n->vfs;
	struct vfs_inode inode;
	int r;

	vfs_lock(v);
	r = inode_load(v, n->ino, &inode);
	vfs_unlock(v);
	if (r == 0 && !S_ISREG(inode.i.mode))
		r = S_ISDIR(inode.i.mode) ? -EISDIR : -EINVAL;
	if (r == 0)
		r = node_map(n);
	if (r == 0 && !n->memory.base)
		r = room_make(n, inode.size);
	if (r < 0)
		return r;
	o.base = n->memory.base;
	o.pages = n->memory.size / PINFS_PAGE_SIZE;
	r = cache_mapping_move(n->mapping, &o);
	if (r < 0)
		room_end_locked(n);
	return r;
}

int vfs_share(struct vfs *v, uint64_t ino, struct vfs_shared *ret)
{
	struct vfs_node *n;
	int r;

	if (v->delta && delta_failed(v->delta) == -ESHUTDOWN)
		return -EIO;
	r = node_get(v, ino, &n);
	if (r < 0)
		return r;
	mutex_lock(&n->lock);
	if (!n->shares)
		r = share_locked(n);
	if (r == 0) {
		n->shares++;
		/* As an open file it keeps the inode alive. */
		mutex_lock(&v->nodes_lock);
		n->opens++;
		mutex_unlock(&v->nodes_lock);
		*ret = (struct vfs_shared){
			.node = n,
			.mapping = n->mapping,
			.memfd = n->memory.fd,
			.pages = n->memory.size / PINFS_PAGE_SIZE,
			.reserve = NODE_RESERVE,
		};
	}
	mutex_unlock(&n->lock);
	if (r < 0)
		node_put(n);
	return r;
}

int vfs_shared_open(const struct vfs_shared *s, bool write)
{
	char path[sizeof("/proc/self/fd/") + 11];
	int fd;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", s->memfd);
	fd = open(path, (write ? O_RDWR : O_RDONLY) | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

void vfs_unshare(struct vfs *v, struct vfs_shared *s)
{
	struct vfs_node *n = s->node;

	if (!n)
		return;
	mutex_lock(&n->lock);
	n->shares--;
	room_end_locked(n);
	mutex_unlock(&n->lock);
	node_closed(n, false);
	*s = (struct vfs_shared){0};
}

bool vfs_is_shared(struct vfs *v, uint64_t ino)
{
	struct vfs_node *n = node_find(v, ino);
	bool yes;

	if (!n)
		return false;
	mutex_lock(&n->lock);
	yes = n->shares > 0;
	mutex_unlock(&n->lock);
	node_put(n);
	return yes;
}
