/* SPDX-License-Identifier: MIT */
/* What is done for one client: its files, its maps, its faults and pins. */
#include "share/internal.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

/* A page that can't be had, and that others keep in the cache: so often it is tried at once. */
#define POISON_TRIES 64u

/* ---- files and maps, under the client's lock ---- */

static struct open_file *file_find_locked(struct client *c, uint64_t id)
{
	for (unsigned i = 0; id && i < c->share->options.files_most; i++)
		if (c->files[i].id == id && !c->files[i].closing)
			return &c->files[i];
	return NULL;
}

static struct open_map *map_find_locked(struct client *c, uint64_t id)
{
	for (unsigned i = 0; id && i < c->share->options.maps_most; i++)
		if (c->maps[i].id == id && !c->maps[i].closing)
			return &c->maps[i];
	return NULL;
}

static struct open_map *map_at_locked(struct client *c, uint64_t addr)
{
	for (unsigned i = 0; i < c->share->options.maps_most; i++) {
		struct open_map *m = &c->maps[i];

		if (m->id && !m->closing && addr >= m->start && addr - m->start < m->count * PINFS_PAGE_SIZE)
			return m;
	}
	return NULL;
}

/* A map that stays until map_put(); by its number, or (id 0) by an address in it. */
static struct open_map *map_get(struct client *c, uint64_t id, uint64_t addr)
{
	struct open_map *m;

	mutex_lock(&c->lock);
	m = id ? map_find_locked(c, id) : map_at_locked(c, addr);
	if (m)
		m->users++;
	mutex_unlock(&c->lock);
	return m;
}

static void map_put(struct client *c, struct open_map *m)
{
	mutex_lock(&c->lock);
	if (!--m->users)
		cond_broadcast(&c->idle);
	mutex_unlock(&c->lock);
}

/* Pages [page, page + count) of the map: is that so? */
static bool in_map(const struct open_map *m, uint64_t page, uint64_t count)
{
	return count && page < m->count && count <= m->count - page;
}

/* ---- faults ---- */

static uint64_t file_page(const struct open_map *m, uint64_t addr)
{
	return m->page + (addr - m->start) / PINFS_PAGE_SIZE;
}

/* The page is there now, or accesses of it fail. */
static void fault(struct client *c, const struct open_map *m, uint64_t addr, bool write)
{
	struct cache_mapping *mapping = m->file->shared.mapping;
	enum fault_result result;

	/* A page and what it is read from, at once: others wait meanwhile, none for ever. */
	if (cache_reserve(mapping, m->file->shared.reserve) == 0) {
		result = mm_fault(c->mm, addr, write);
		cache_unreserve(mapping, m->file->shared.reserve);
		if (result == FAULT_NOPAGE)
			return;
	}
	for (unsigned i = 0; i < POISON_TRIES && uffd_poison(c->uffd, addr) == -EBUSY; i++)
		cache_invalidate(mapping, file_page(m, addr), 1);
	/* If it was in use all the time, whoever waits for it comes again. */
	uffd_wake(c->uffd, addr);
}

/* ---- requests; each returns what the reply says ---- */

/* Reads and ioctls of anything else could do something else, or wait for somebody. */
static bool is_uffd(int fd)
{
	char path[sizeof("/proc/self/fd/") + 11], is[64] = "";

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return readlink(path, is, sizeof(is) - 1) > 0 && !strcmp(is, "anon_inode:[userfaultfd]");
}

static int do_hello(struct client *c, struct job *j)
{
	struct uffd_mmu *uffd = NULL;
	struct mm *mm = NULL;
	bool mine;
	int r;

	if (j->msg.id != PINFS_PROTOCOL_VERSION)
		return -EPROTONOSUPPORT;
	if (j->fd < 0 || !is_uffd(j->fd))
		return -EBADF;
	r = uffd_mmu_new(steal_fd(&j->fd), c->share->options.held_most, &uffd);
	if (r == 0)
		r = mm_new(vfs_cache(c->share->options.vfs), &uffd_mmu_ops, uffd, &mm);
	if (r < 0) {
		uffd_mmu_free(uffd);
		return r;
	}
	mutex_lock(&c->lock);
	mine = !c->uffd;
	if (mine) {
		c->uffd = uffd;
		c->mm = mm;
	}
	mutex_unlock(&c->lock);
	if (!mine) {
		mm_free(mm);
		uffd_mmu_free(uffd);
		return -EALREADY;
	}
	j->msg.id = PINFS_PROTOCOL_VERSION;
	server_watch(c, uffd_fd(uffd));
	return 0;
}

static int do_open(struct client *c, struct job *j, int *ret_fd)
{
	struct open_file *f = NULL;
	struct vfs_shared shared;
	_cleanup_close_ int fd = -1;
	uint64_t ino = 0;
	bool write = false;
	int r = token_take(c->share, j->msg.token, &ino, &write);

	if (r == 0)
		r = vfs_share(c->share->options.vfs, ino, &shared);
	if (r < 0)
		return r;
	/* Who may not store gets a description that can't be mapped for that. Before anybody can close the file. */
	fd = vfs_shared_open(&shared, write);
	mutex_lock(&c->lock);
	for (unsigned i = 0; fd >= 0 && !f && i < c->share->options.files_most; i++)
		f = c->files[i].id ? NULL : &c->files[i];
	if (f) {
		*f = (struct open_file){.id = ++c->ids, .shared = shared, .ino = ino, .write = write};
		j->msg.id = f->id;
	}
	mutex_unlock(&c->lock);
	if (!f) {
		vfs_unshare(c->share->options.vfs, &shared);
		return fd < 0 ? fd : -EMFILE;
	}
	j->msg.flags = write ? PINFS_OPEN_WRITE : 0;
	j->msg.count = shared.pages;
	*ret_fd = steal_fd(&fd);
	return 0;
}

/* Takes the slot away from everybody; its content is the caller's. */
static int do_close(struct client *c, const struct job *j)
{
	struct vfs_shared shared = {0};
	struct open_file *f;
	int r = -EBADF;

	mutex_lock(&c->lock);
	f = file_find_locked(c, j->msg.id);
	if (f) {
		r = f->users ? -EBUSY : 0;
		if (r == 0) {
			shared = f->shared;
			*f = (struct open_file){0};
		}
	}
	mutex_unlock(&c->lock);
	vfs_unshare(c->share->options.vfs, &shared);
	return r;
}

/* A slot for the map, which nobody finds so far. */
static int map_reserve(struct client *c, const struct pinfs_message *msg, struct open_map **ret)
{
	const struct share_options *o = &c->share->options;
	struct open_map *m = NULL;
	struct open_file *f;
	int r = 0;

	mutex_lock(&c->lock);
	f = file_find_locked(c, msg->id);
	for (unsigned i = 0; !m && i < o->maps_most; i++)
		m = c->maps[i].id ? NULL : &c->maps[i];
	if (!f || !c->mm)
		r = f ? -ENOTCONN : -EBADF;
	else if (!m || !msg->count || msg->count > o->pages_most - c->pages)
		r = msg->count ? -EDQUOT : -EINVAL;
	else if (msg->page >= f->shared.pages || msg->count > f->shared.pages - msg->page || msg->address % PINFS_PAGE_SIZE ||
		msg->address > UINT64_MAX - msg->count * PINFS_PAGE_SIZE)
		r = -EINVAL;
	if (r == 0) {
		*m = (struct open_map){.id = ++c->ids, .file = f, .start = msg->address, .page = msg->page, .count = msg->count,
			.users = 1, .closing = true};
		f->users++;
		c->pages += m->count;
	}
	mutex_unlock(&c->lock);
	if (r == 0)
		*ret = m;
	return r;
}

static void map_drop(struct client *c, struct open_map *m)
{
	struct mem_region table = m->table;

	mutex_lock(&c->lock);
	m->file->users--;
	c->pages -= m->count;
	*m = (struct open_map){0};
	mutex_unlock(&c->lock);
	mem_region_free(&table);
}

static int do_map(struct client *c, struct job *j, int *ret_fd)
{
	struct open_map *m;
	unsigned flags = VM_READ | VM_SHARED;
	int r = map_reserve(c, &j->msg, &m);

	if (r < 0)
		return r;
	flags |= m->file->write ? (unsigned)VM_WRITE : 0;
	r = mem_region_new("pinfs map", (size_t)align_up(m->count * sizeof(struct pinfs_page), PINFS_PAGE_SIZE), &m->table);
	if (r == 0 && m->table.fd < 0)
		r = -EOPNOTSUPP;
	if (r == 0)
		r = uffd_range_add(c->uffd, m->start, m->count, m->file->write, (struct pinfs_page *)m->table.base);
	if (r == 0) {
		r = mm_map(c->mm, m->start, m->count * PINFS_PAGE_SIZE, flags, m->file->shared.mapping, m->page, NULL);
		if (r < 0)
			uffd_range_remove(c->uffd, vfs_cache(c->share->options.vfs), m->start);
	}
	/* The reply's own, before anybody can unmap it. */
	if (r == 0) {
		*ret_fd = fcntl(m->table.fd, F_DUPFD_CLOEXEC, 0);
		r = *ret_fd < 0 ? -errno : 0;
		if (r < 0) {
			mm_unmap(c->mm, m->start, m->count * PINFS_PAGE_SIZE);
			uffd_range_remove(c->uffd, vfs_cache(c->share->options.vfs), m->start);
		}
	}
	if (r < 0) {
		map_drop(c, m);
		return r;
	}
	j->msg.id = m->id;
	mutex_lock(&c->lock);
	m->users--;
	m->closing = false;
	mutex_unlock(&c->lock);
	return 0;
}

/* Nobody finds it any more, and nobody works on it. */
static void map_end(struct client *c, struct open_map *m)
{
	mutex_lock(&c->lock);
	while (m->users)
		cond_wait(&c->idle, &c->lock);
	mutex_unlock(&c->lock);
	mm_unmap(c->mm, m->start, m->count * PINFS_PAGE_SIZE);
	uffd_range_remove(c->uffd, vfs_cache(c->share->options.vfs), m->start);
	map_drop(c, m);
}

static int do_unmap(struct client *c, const struct job *j)
{
	struct open_map *m;

	mutex_lock(&c->lock);
	m = map_find_locked(c, j->msg.id);
	if (m)
		m->closing = true;
	mutex_unlock(&c->lock);
	if (!m)
		return -EBADF;
	map_end(c, m);
	return 0;
}

static int do_pin(struct client *c, const struct open_map *m, struct job *j)
{
	struct cache_mapping *mapping = m->file->shared.mapping;
	unsigned flags = j->msg.flags & PINFS_PIN_WRITE ? PIN_FOR_WRITE : 0;
	uint64_t want = j->msg.count;
	int r = 0;

	for (j->msg.count = 0; r == 0 && j->msg.count < want; j->msg.count += r == 0) {
		r = cache_reserve(mapping, m->file->shared.reserve);
		if (r < 0)
			break;
		r = uffd_pin(c->mm, m->start + (j->msg.page + j->msg.count) * PINFS_PAGE_SIZE, flags);
		cache_unreserve(mapping, m->file->shared.reserve);
	}
	return r;
}

static int do_populate(struct client *c, const struct open_map *m, struct job *j)
{
	struct cache_mapping *mapping = m->file->shared.mapping;
	uint64_t want = j->msg.count;
	int r = 0;

	for (j->msg.count = 0; r == 0 && j->msg.count < want; j->msg.count += r == 0) {
		enum fault_result result;

		r = cache_reserve(mapping, m->file->shared.reserve);
		if (r < 0)
			break;
		result = mm_fault(c->mm, m->start + (j->msg.page + j->msg.count) * PINFS_PAGE_SIZE, j->msg.flags & PINFS_PIN_WRITE);
		cache_unreserve(mapping, m->file->shared.reserve);
		r = result == FAULT_NOPAGE ? uffd_lost(c->uffd) : result == FAULT_OOM ? -ENOMEM : -EFAULT;
	}
	/* What is there is there. */
	return j->msg.count ? 0 : r;
}

static int on_map(struct client *c, struct job *j)
{
	struct open_map *m = map_get(c, j->msg.id, 0);
	int r = -EINVAL;

	if (!m)
		return -EBADF;
	if (j->msg.type == PINFS_SYNC) {
		r = vfs_fsync(c->share->options.vfs, m->file->ino, NULL, true);
	} else if (in_map(m, j->msg.page, j->msg.count)) {
		switch (j->msg.type) {
		case PINFS_PIN:
			r = do_pin(c, m, j);
			break;
		case PINFS_POPULATE:
			r = do_populate(c, m, j);
			break;
		default:
			uffd_unhold(c->uffd, vfs_cache(c->share->options.vfs), m->start + j->msg.page * PINFS_PAGE_SIZE, j->msg.count);
			r = 0;
		}
	}
	map_put(c, m);
	return r;
}

/* False: it doesn't read its replies. Who has left needs none. */
static bool reply(const struct client *c, const struct pinfs_message *msg, int fd)
{
	int r = message_send(c->sock, msg, sizeof(*msg), fd, MSG_DONTWAIT);

	return r == 0 || r == -EPIPE || r == -ECONNRESET;
}

static bool request(struct client *c, struct job *j, const char **ret_why)
{
	int r, fd = -1;
	bool sent;

	switch (j->msg.type) {
	case PINFS_HELLO:
		r = do_hello(c, j);
		break;
	case PINFS_OPEN:
		r = do_open(c, j, &fd);
		break;
	case PINFS_CLOSE:
		r = do_close(c, j);
		break;
	case PINFS_MAP:
		r = do_map(c, j, &fd);
		break;
	case PINFS_UNMAP:
		r = do_unmap(c, j);
		break;
	case PINFS_PIN:
	case PINFS_UNHOLD:
	case PINFS_SYNC:
	case PINFS_POPULATE:
		r = on_map(c, j);
		break;
	default:
		*ret_why = "it sends what is no message";
		return false;
	}
	j->msg.error = r;
	sent = reply(c, &j->msg, fd);
	if (fd >= 0)
		close(fd);
	if (!sent)
		*ret_why = "it doesn't read the replies to what it asks";
	return sent;
}

static const char *lost_why(int error)
{
	return error == -EDQUOT ? "it has more pinned than it may" :
		error == -ESRCH ? NULL : "its userfaultfd doesn't do what one does";
}

/* Another thread may be about to hear its HELLO. */
static int lost_of(struct client *c)
{
	struct uffd_mmu *uffd;

	mutex_lock(&c->lock);
	uffd = c->uffd;
	mutex_unlock(&c->lock);
	return uffd ? uffd_lost(uffd) : 0;
}

bool client_job(struct client *c, struct job *j, const char **ret_why)
{
	struct open_map *m;
	bool good = true;
	int lost;

	if (j->fault) {
		m = map_get(c, 0, j->addr);
		if (m) {
			fault(c, m, j->addr, j->write);
			map_put(c, m);
		} else {
			/* Not one of ours, or no longer. */
			uffd_wake(c->uffd, j->addr);
		}
	} else {
		good = request(c, j, ret_why);
	}
	lost = lost_of(c);
	if (good && lost) {
		*ret_why = lost_why(lost);
		good = false;
	}
	return good;
}

/* ---- beginning and end ---- */

int client_new(struct share *s, int sock, struct client **ret)
{
	struct client *c = calloc(1, sizeof(*c));
	struct ucred cred = {0};
	socklen_t len = sizeof(cred);

	if (c) {
		c->files = calloc(s->options.files_most, sizeof(*c->files));
		c->maps = calloc(s->options.maps_most, sizeof(*c->maps));
	}
	if (!c || !c->files || !c->maps) {
		if (c) {
			free(c->files);
			free(c->maps);
		}
		free(c);
		return -ENOMEM;
	}
	if (getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &cred, &len) == 0) {
		c->pid = cred.pid;
		c->uid = cred.uid;
	}
	c->share = s;
	c->sock = sock;
	c->faults = -1;
	mutex_init(&c->lock, LOCK_THREAD);
	cond_init(&c->idle);
	*ret = c;
	return 0;
}

void client_free(struct client *c)
{
	server_forget(c);
	for (unsigned i = 0; i < c->share->options.maps_most; i++)
		if (c->maps[i].id)
			map_end(c, &c->maps[i]);
	mm_free(c->mm);
	uffd_mmu_free(c->uffd);
	for (unsigned i = 0; i < c->share->options.files_most; i++)
		vfs_unshare(c->share->options.vfs, &c->files[i].shared);
	close(c->sock);
	cond_destroy(&c->idle);
	mutex_destroy(&c->lock);
	free(c->files);
	free(c->maps);
	free(c);
}
