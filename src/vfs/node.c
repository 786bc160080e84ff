/* SPDX-License-Identifier: MIT */
/*
 * Nodes: files that are open, or have pages in the cache. And who still knows an inode that has no name any more.
 *
 *	open, write ──► used ──last user goes──► idle ──janitor, or too many──► written, freed
 *	                 ▲                         │
 *	                 └─────────────────────────┘
 */
#include "vfs/internal.h"

#include <fcntl.h>
#include <linux/fs.h>

/* What was closed is written after this time, so that closing and opening again costs nothing. */
#define IDLE_NS 1000000000ull
#define JANITOR_MS 500u
/* Times of so many files are written in one transaction. */
#define TIMES_MOST 8u

/* ---- what the kernel knows ---- */

static size_t known_slot(const struct known *k, uint64_t ino)
{
	/* Fibonacci hashing: neighbours go far apart. */
	size_t i = (size_t)(ino * 0x9e3779b97f4a7c15ull >> 32) & (k->size - 1);

	while (k->entries[i].ino && k->entries[i].ino != ino)
		i = (i + 1) & (k->size - 1);
	return i;
}

static int known_grow(struct known *k)
{
	struct known larger = {.size = MAX(k->size * 2, (size_t)1024), .used = k->used};

	larger.entries = calloc(larger.size, sizeof(*larger.entries));
	if (!larger.entries)
		return -ENOMEM;
	for (size_t i = 0; i < k->size; i++)
		if (k->entries[i].ino)
			larger.entries[known_slot(&larger, k->entries[i].ino)] = k->entries[i];
	free(k->entries);
	*k = larger;
	return 0;
}

int known_add(struct vfs *v, uint64_t ino)
{
	struct known *k = &v->known;
	int r = 0;
	size_t i;

	mutex_lock(&v->nodes_lock);
	if (k->used * 2 >= k->size)
		r = known_grow(k);
	if (r == 0 || k->used + 1 < k->size) {
		i = known_slot(k, ino);
		k->used += !k->entries[i].ino;
		k->entries[i].ino = ino;
		k->entries[i].count++;
		r = 0;
	}
	mutex_unlock(&v->nodes_lock);
	return r;
}

/* Takes an entry out, and moves those up that only lie where they do because of it. */
static void known_remove(struct known *k, size_t i)
{
	size_t j = i;

	for (;;) {
		size_t home;

		j = (j + 1) & (k->size - 1);
		if (!k->entries[j].ino)
			break;
		home = (size_t)(k->entries[j].ino * 0x9e3779b97f4a7c15ull >> 32) & (k->size - 1);
		if (((j - home) & (k->size - 1)) >= ((j - i) & (k->size - 1))) {
			k->entries[i] = k->entries[j];
			i = j;
		}
	}
	k->entries[i] = (struct known_entry){0};
	k->used--;
}

static bool known_locked(const struct vfs *v, uint64_t ino)
{
	return v->known.size && v->known.entries[known_slot(&v->known, ino)].ino;
}

/* ---- the table ---- */

static struct vfs_node **bucket_of(struct vfs *v, uint64_t ino)
{
	return &v->buckets[ino % NODE_BUCKETS];
}

static struct vfs_node *find_locked(struct vfs *v, uint64_t ino)
{
	struct vfs_node *n;

	for (n = *bucket_of(v, ino); n && n->ino != ino; n = n->next)
		;
	return n;
}

static void idle_remove(struct vfs_node *n)
{
	struct vfs *v = n->vfs;

	if (!n->idle)
		return;
	if (n->newer)
		n->newer->older = n->older;
	else
		v->idle_newest = n->older;
	if (n->older)
		n->older->newer = n->newer;
	else
		v->idle_oldest = n->newer;
	n->newer = n->older = NULL;
	n->idle = false;
	v->idle_count--;
}

static void idle_add(struct vfs_node *n)
{
	struct vfs *v = n->vfs;

	n->idle = true;
	n->idle_since = now_ns();
	n->newer = NULL;
	n->older = v->idle_newest;
	if (n->older)
		n->older->newer = n;
	else
		v->idle_oldest = n;
	v->idle_newest = n;
	v->idle_count++;
}

static void take_locked(struct vfs_node *n)
{
	idle_remove(n);
	n->users++;
}

struct vfs_node *node_find(struct vfs *v, uint64_t ino)
{
	struct vfs_node *n;

	mutex_lock(&v->nodes_lock);
	n = find_locked(v, ino);
	if (n)
		take_locked(n);
	mutex_unlock(&v->nodes_lock);
	return n;
}

int node_get(struct vfs *v, uint64_t ino, struct vfs_node **ret)
{
	struct vfs_node *new = NULL, *n;

	n = node_find(v, ino);
	if (!n) {
		new = calloc(1, sizeof(*new));
		if (!new)
			return -ENOMEM;
		new->vfs = v;
		new->ino = ino;
		mutex_init(&new->lock, LOCK_INODE);
		mutex_lock(&v->nodes_lock);
		n = find_locked(v, ino);
		if (!n) {
			n = steal_pointer(&new);
			n->next = *bucket_of(v, ino);
			*bucket_of(v, ino) = n;
		}
		take_locked(n);
		mutex_unlock(&v->nodes_lock);
	}
	if (new) {
		mutex_destroy(&new->lock);
		free(new);
	}
	*ret = n;
	return 0;
}

static void janitor_wake(struct vfs *v)
{
	if (v->options.no_threads)
		return;
	mutex_lock(&v->janitor_lock);
	v->janitor_asked = true;
	cond_signal(&v->janitor_wake);
	mutex_unlock(&v->janitor_lock);
}

/* Out of the table: nobody uses it, and nothing is left of it. */
static void unlink_locked(struct vfs_node *n)
{
	struct vfs_node **p = bucket_of(n->vfs, n->ino);

	while (*p != n)
		p = &(*p)->next;
	*p = n->next;
	cond_broadcast(&n->vfs->node_freed);
}

static void node_free(struct vfs_node *n)
{
	assert(!n->shares);
	cache_mapping_free(n->mapping);
	mem_region_free(&n->memory);
	mutex_destroy(&n->lock);
	free(n);
}

void node_put(struct vfs_node *n)
{
	struct vfs *v = n->vfs;
	bool gone = false, wake = false;

	mutex_lock(&v->nodes_lock);
	if (--n->users == 0) {
		/* One that has no pages has nothing to keep. Without a delta there are none but to be shared, and no janitor. */
		gone = (!n->mapping || !v->delta) && !n->mtime_dirty && !n->atime_dirty;
		if (gone)
			unlink_locked(n);
		else
			idle_add(n);
		wake = v->idle_count > NODES_IDLE;
	}
	mutex_unlock(&v->nodes_lock);
	if (gone)
		node_free(n);
	if (wake)
		janitor_wake(v);
}

/* ---- writing what a node knows ---- */

static bool same_time(struct timespec a, struct timespec b)
{
	return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

void times_stored(struct vfs_node *n, const struct delta_inode *i)
{
	mutex_lock(&n->vfs->nodes_lock);
	/* Unless they are others by now. */
	if (same_time(n->mtime, i->mtime))
		n->mtime_dirty = false;
	if (same_time(n->atime, i->atime))
		n->atime_dirty = false;
	mutex_unlock(&n->vfs->nodes_lock);
}

void times_not_stored(struct vfs_node *n, const struct delta_inode *i)
{
	mutex_lock(&n->vfs->nodes_lock);
	/* If they are what the delta has anyway, to say it twice does no harm. */
	if (same_time(n->mtime, i->mtime))
		n->mtime_dirty = true;
	if (same_time(n->atime, i->atime))
		n->atime_dirty = true;
	mutex_unlock(&n->vfs->nodes_lock);
}

static bool times_dirty(struct vfs_node *n)
{
	bool dirty;

	mutex_lock(&n->vfs->nodes_lock);
	dirty = n->mtime_dirty || n->atime_dirty;
	mutex_unlock(&n->vfs->nodes_lock);
	return dirty;
}

/* Times that only the nodes know, at most TIMES_MOST of them, go into the delta, in one transaction. */
static int times_flush(struct vfs_node *const *nodes, unsigned count)
{
	struct vfs *v = nodes[0]->vfs;
	struct vfs_inode inodes[TIMES_MOST];
	unsigned stored = 0;
	int r = 0;

	while (stored < count && !times_dirty(nodes[stored]))
		stored++;
	if (stored == count)
		return 0;
	r = delta_begin(v->delta, DELTA_PROMISED);
	if (r < 0)
		return r;
	for (unsigned i = 0; r == 0 && i < count; i++) {
		inodes[i].i.ino = 0;
		if (!times_dirty(nodes[i]))
			continue;
		r = inode_load(v, nodes[i]->ino, &inodes[i]);
		if (r == 0)
			r = inode_store(v, &inodes[i]);
		/* It is gone. */
		if (r == -ENOENT)
			r = 0;
	}
	/* They are the delta's before anybody can change them again. */
	for (unsigned i = 0; r == 0 && i < count; i++)
		if (inodes[i].i.ino)
			times_stored(nodes[i], &inodes[i].i);
	if (r < 0) {
		delta_abort(v->delta);
		return r;
	}
	return delta_commit(v->delta);
}

int node_sync(struct vfs_node *n, struct cache_errseq *seen)
{
	int r = 0, e;

	if (n->mapping) {
		mutex_lock(&n->vfs->nodes_lock);
		n->syncing++;
		mutex_unlock(&n->vfs->nodes_lock);
		r = cache_sync(n->mapping, 0, UINT64_MAX, seen);
		mutex_lock(&n->vfs->nodes_lock);
		n->syncing--;
		mutex_unlock(&n->vfs->nodes_lock);
	}
	e = times_flush(&n, 1);
	return r < 0 ? r : e;
}

/* ---- the janitor ---- */

/* The next idle node to look after: too many are there, or it has been that for a while. With a user. */
static struct vfs_node *janitor_next(struct vfs *v, bool all)
{
	struct vfs_node *n;

	mutex_lock(&v->nodes_lock);
	n = v->idle_oldest;
	if (n && !all && v->idle_count <= NODES_IDLE && now_ns() - n->idle_since < IDLE_NS)
		n = NULL;
	if (n)
		take_locked(n);
	mutex_unlock(&v->nodes_lock);
	return n;
}

/* Nobody but the janitor uses it, and it is written: it may go. Else it becomes idle again, as the newest. */
static void janitor_put(struct vfs_node *n, bool may_free)
{
	struct vfs *v = n->vfs;
	bool gone = false;

	mutex_lock(&v->nodes_lock);
	if (--n->users == 0) {
		gone = may_free && !n->mtime_dirty && !n->atime_dirty && !cache_mapping_dirty(n->mapping);
		if (gone)
			unlink_locked(n);
		else
			idle_add(n);
	}
	mutex_unlock(&v->nodes_lock);
	if (gone)
		node_free(n);
}

static bool node_dirty(struct vfs_node *n)
{
	bool dirty;

	mutex_lock(&n->vfs->nodes_lock);
	dirty = n->mtime_dirty || n->atime_dirty || cache_mapping_dirty(n->mapping);
	mutex_unlock(&n->vfs->nodes_lock);
	return dirty;
}

static void janitor_put_all(struct vfs *v, struct vfs_node **nodes, unsigned *count)
{
	bool many;

	if (*count)
		times_flush(nodes, *count);
	for (unsigned i = 0; i < *count; i++) {
		mutex_lock(&v->nodes_lock);
		many = v->idle_count >= NODES_IDLE;
		mutex_unlock(&v->nodes_lock);
		janitor_put(nodes[i], many);
	}
	*count = 0;
}

static void janitor_round(struct vfs *v)
{
	struct vfs_node *nodes[TIMES_MOST], *n;
	unsigned most, count = 0;

	mutex_lock(&v->nodes_lock);
	most = v->idle_count;
	mutex_unlock(&v->nodes_lock);
	while (most-- && (n = janitor_next(v, false))) {
		/* Errors are kept for who opens it again (errseq); what could not be written stays. */
		if (node_dirty(n) && n->mapping)
			cache_sync(n->mapping, 0, UINT64_MAX, NULL);
		node_room_end(n);
		nodes[count++] = n;
		if (count == TIMES_MOST)
			janitor_put_all(v, nodes, &count);
	}
	janitor_put_all(v, nodes, &count);
}

static void *janitor_main(void *arg)
{
	struct vfs *v = arg;

	mutex_lock(&v->janitor_lock);
	while (!v->janitor_stop) {
		if (!v->janitor_asked)
			cond_wait_for(&v->janitor_wake, &v->janitor_lock, JANITOR_MS);
		v->janitor_asked = false;
		if (v->janitor_stop)
			break;
		mutex_unlock(&v->janitor_lock);
		janitor_round(v);
		mutex_lock(&v->janitor_lock);
	}
	mutex_unlock(&v->janitor_lock);
	return NULL;
}

int nodes_init(struct vfs *v)
{
	int r;

	if (v->options.no_threads)
		return 0;
	r = thread_start(&v->janitor, janitor_main, v);
	v->janitor_started = r == 0;
	return r;
}

void nodes_destroy(struct vfs *v)
{
	if (v->janitor_started) {
		mutex_lock(&v->janitor_lock);
		v->janitor_stop = true;
		cond_signal(&v->janitor_wake);
		mutex_unlock(&v->janitor_lock);
		pthread_join(v->janitor, NULL);
		v->janitor_started = false;
	}
	for (size_t b = 0; b < NODE_BUCKETS; b++) {
		while (v->buckets[b]) {
			struct vfs_node *n = v->buckets[b];

			v->buckets[b] = n->next;
			node_free(n);
		}
	}
	free(v->known.entries);
	v->known = (struct known){0};
}

int vfs_sync(struct vfs *v)
{
	int r = 0, e;

	if (!v->delta)
		return 0;
	for (size_t b = 0; b < NODE_BUCKETS; b++) {
		uint64_t after = 0;

		/* In the order of their numbers, so that those that come and go meanwhile don't matter. */
		for (;;) {
			struct vfs_node *next = NULL;

			mutex_lock(&v->nodes_lock);
			for (struct vfs_node *n = v->buckets[b]; n; n = n->next)
				if (n->ino > after && (!next || n->ino < next->ino))
					next = n;
			if (next)
				take_locked(next);
			mutex_unlock(&v->nodes_lock);
			if (!next)
				break;
			after = next->ino;
			e = node_sync(next, NULL);
			r = r < 0 ? r : e;
			node_put(next);
		}
	}
	e = delta_flush(v->delta);
	return r < 0 ? r : e;
}

/* ---- inodes without a name ---- */

/* Is somebody there who could still want it? */
static bool wanted(struct vfs *v, uint64_t ino)
{
	struct vfs_node *n;
	bool yes;

	mutex_lock(&v->nodes_lock);
	n = find_locked(v, ino);
	yes = known_locked(v, ino) || (n && n->opens);
	mutex_unlock(&v->nodes_lock);
	return yes;
}

/* Within a transaction: some of it goes, its content first. */
static int destroy_step(struct vfs *v, uint64_t ino, uint64_t *done, bool *ret_more)
{
	struct vfs_inode inode;
	int r = inode_load(v, ino, &inode);

	if (r == 0 && *done < UINT64_MAX) {
		r = delta_extent_drop(v->delta, &inode.i, *done, UINT64_MAX, done);
		if (r < 0 || *done < UINT64_MAX)
			return r < 0 ? r : inode_store(v, &inode);
	}
	if (r == 0)
		r = delta_inode_delete(v->delta, ino, ret_more);
	if (r < 0 || *ret_more)
		return r;
	r = delta_orphan_remove(v->delta, ino);
	/* The image still has it: the delta has to say that it is gone. */
	if (r == 0 && inode.has_image) {
		inode.i = (struct delta_inode){.ino = ino, .mode = inode.i.mode, .parent = inode.i.parent, .gone = true};
		r = inode_store(v, &inode);
	}
	return r < 0 ? r : delta_files_add(v->delta, -1);
}

/* What is left of an inode that has no name. */
int node_destroy(struct vfs *v, uint64_t ino)
{
	struct vfs_inode inode;
	struct vfs_node *n;
	uint64_t done = 0;
	bool more = true;
	int r;

	r = node_get(v, ino, &n);
	if (r < 0)
		return r;
	mutex_lock(&n->lock);
	vfs_lock(v);
	r = inode_load(v, ino, &inode);
	vfs_unlock(v);
	/* Somebody has opened it, or given it a name, or another thread was here first. */
	if (r == 0 && (inode.i.nlink || wanted(v, ino)))
		r = -EBUSY;
	if (r == 0 && n->mapping)
		cache_mapping_drop(n->mapping);
	while (r == 0 && more) {
		r = delta_begin(v->delta, DELTA_SHRINKS);
		if (r < 0)
			break;
		r = destroy_step(v, ino, &done, &more);
		if (r < 0)
			delta_abort(v->delta);
		else
			r = delta_commit(v->delta);
	}
	mutex_lock(&v->nodes_lock);
	if (r == 0) {
		n->mtime_dirty = n->atime_dirty = false;
		v->orphans--;
	}
	mutex_unlock(&v->nodes_lock);
	mutex_unlock(&n->lock);
	if (r == 0)
		janitor_put(n, true);
	else
		node_put(n);
	return r;
}

static void destroy_unwanted(struct vfs *v, uint64_t ino)
{
	int r;

	if (wanted(v, ino))
		return;
	r = node_destroy(v, ino);
	/* It is found again when the delta is opened the next time. */
	if (r < 0 && r != -EBUSY && r != -ENOENT && !delta_failed(v->delta))
		log_error("%s: inode %ju, which has no name any more, can't be removed: %s", v->name, (uintmax_t)ino, strerror(-r));
}

/* Is it one that lost its last name? */
static bool is_orphan(struct vfs *v, uint64_t ino)
{
	struct vfs_inode inode;
	bool yes;

	mutex_lock(&v->nodes_lock);
	yes = v->orphans > 0;
	mutex_unlock(&v->nodes_lock);
	if (!yes)
		return false;
	vfs_lock(v);
	yes = inode_load(v, ino, &inode) == 0 && !inode.i.nlink;
	vfs_unlock(v);
	return yes;
}

void orphan_new(struct vfs *v, uint64_t ino)
{
	mutex_lock(&v->nodes_lock);
	v->orphans++;
	mutex_unlock(&v->nodes_lock);
	destroy_unwanted(v, ino);
}

void orphan_named(struct vfs *v)
{
	mutex_lock(&v->nodes_lock);
	v->orphans--;
	mutex_unlock(&v->nodes_lock);
}

void vfs_forget(struct vfs *v, uint64_t ino, uint64_t count)
{
	bool gone = false;

	if (!v->delta)
		return;
	mutex_lock(&v->nodes_lock);
	if (v->known.size) {
		size_t i = known_slot(&v->known, ino);

		if (v->known.entries[i].ino) {
			v->known.entries[i].count -= MIN(count, v->known.entries[i].count);
			gone = !v->known.entries[i].count;
			if (gone)
				known_remove(&v->known, i);
		}
	}
	mutex_unlock(&v->nodes_lock);
	if (gone && is_orphan(v, ino))
		destroy_unwanted(v, ino);
}

int orphans_recover(struct vfs *v)
{
	uint64_t ino = 0;
	int r;

	for (;;) {
		struct vfs_inode inode;

		vfs_lock(v);
		r = delta_orphan_next(v->delta, ino, &ino);
		if (r == 0)
			r = inode_load(v, ino, &inode);
		vfs_unlock(v);
		if (r < 0)
			break;
		if (!inode.i.nlink) {
			v->orphans++;
			r = node_destroy(v, ino);
		} else {
			struct vfs_node *n;

			/* It was being cut off at its end. */
			r = node_get(v, ino, &n);
			if (r == 0) {
				mutex_lock(&n->lock);
				r = node_finish_cut(n, inode.size);
				mutex_unlock(&n->lock);
				node_put(n);
			}
		}
		if (r < 0)
			break;
		ino++;
	}
	return r == -ENOENT ? 0 : r;
}

/* ---- open files ---- */

int vfs_open(struct vfs *v, uint64_t ino, int flags, bool kill_priv, struct vfs_file **ret)
{
	bool write = (flags & O_ACCMODE) != O_RDONLY;
	/* O_TRUNC alone is undefined in POSIX, and truncates in Linux. */
	bool change = write || flags & O_TRUNC;
	_cleanup_free_ struct vfs_file *f = calloc(1, sizeof(*f));
	struct vfs_inode inode;
	struct vfs_node *n;
	int r;

	if (!f)
		return -ENOMEM;
	if (write && !vfs_writable(v))
		return -EROFS;
	if (v->delta && change && delta_failed(v->delta))
		return delta_failed(v->delta);
	r = node_get(v, ino, &n);
	if (r < 0)
		return r;
	mutex_lock(&n->lock);
	vfs_lock(v);
	r = inode_load(v, ino, &inode);
	if (r == 0 && S_ISDIR(inode.i.mode) && change)
		r = -EISDIR;
	if (r == 0 && change)
		r = inode_may_change(&inode);
	if (r == 0 && change && inode.i.flags & FS_APPEND_FL && (!(flags & O_APPEND) || flags & O_TRUNC))
		r = -EPERM;
	if (r == 0) {
		/* Before anybody who takes its last name away looks. */
		mutex_lock(&v->nodes_lock);
		n->opens++;
		n->writers += write;
		mutex_unlock(&v->nodes_lock);
	}
	vfs_unlock(v);
	mutex_unlock(&n->lock);
	if (r < 0) {
		node_put(n);
		return r;
	}
	f->node = n;
	f->flags = flags;
	if (n->mapping) {
		cache_errseq_sample(n->mapping, &f->seen);
		f->errseq = true;
	}
	if (change && flags & O_TRUNC && S_ISREG(inode.i.mode)) {
		struct vfs_setattr set = {.valid = VFS_SET_SIZE | (kill_priv ? VFS_SET_KILL_PRIV : 0)};
		struct stat st;

		r = vfs_setattr(v, ino, &set, &st);
		if (r < 0) {
			vfs_release(v, steal_pointer(&f));
			return r;
		}
	}
	*ret = steal_pointer(&f);
	return 0;
}

void vfs_note_cached(struct vfs_file *f)
{
	if (!a32_read(&f->node->cached))
		a32_set(&f->node->cached, 1);
	/* With that in vfs_may_be_cached(): either the read comes after the write, or the writer sees this. */
	sync_mb();
}

bool vfs_may_be_cached(struct vfs_file *f)
{
	sync_mb();
	return a32_read(&f->node->cached);
}

bool vfs_has_writers(struct vfs *v, uint64_t ino)
{
	struct vfs_node *n;
	bool yes;

	mutex_lock(&v->nodes_lock);
	n = find_locked(v, ino);
	yes = n && n->writers;
	mutex_unlock(&v->nodes_lock);
	return yes;
}

int vfs_next_writer(struct vfs *v, uint64_t ino, uint64_t *ret)
{
	uint64_t next = UINT64_MAX;

	mutex_lock(&v->nodes_lock);
	for (size_t b = 0; b < NODE_BUCKETS; b++)
		for (struct vfs_node *n = v->buckets[b]; n; n = n->next)
			if (n->writers && n->ino > ino)
				next = MIN(next, n->ino);
	mutex_unlock(&v->nodes_lock);
	if (next == UINT64_MAX)
		return -ENOENT;
	*ret = next;
	return 0;
}

void node_closed(struct vfs_node *n, bool write)
{
	struct vfs *v = n->vfs;
	uint64_t ino = n->ino;
	bool last;

	mutex_lock(&v->nodes_lock);
	last = --n->opens == 0;
	n->writers -= write;
	mutex_unlock(&v->nodes_lock);
	node_put(n);
	if (last && v->delta && is_orphan(v, ino))
		destroy_unwanted(v, ino);
}

void vfs_release(struct vfs *v, struct vfs_file *f)
{
	node_closed(f->node, (f->flags & O_ACCMODE) != O_RDONLY);
	free(f);
}

int vfs_fsync(struct vfs *v, uint64_t ino, struct vfs_file *f, bool data_only)
{
	struct vfs_node *n;
	int r = 0, e;

	if (!v->delta)
		return 0;
	/* Since syncfs(2) doesn't reach us: of the root directory it is all that there is. */
	if (ino == VFS_ROOT_INO)
		return vfs_sync(v);
	n = node_find(v, ino);
	if (n) {
		/* A file that was opened before it had any page has seen none of its errors. */
		r = node_sync(n, f && (n->mapping || f->errseq) ? &f->seen : NULL);
		node_put(n);
	}
	e = delta_flush(v->delta);
	return r < 0 ? r : e;
}
