/* SPDX-License-Identifier: MIT */
/* Operations on files: by path, and through descriptors that are held while names come and go. */
#include <fcntl.h>
#include <linux/falloc.h>

#include "stress.h"

/* A descriptor for a file: a held one, or a new one. */
struct use {
	struct node *node;
	int fd;
	bool opened;
	char path[PATH_SIZE];
};

static struct held *free_slot(void)
{
	for (unsigned i = 0; i < HELD; i++)
		if (!worker.held[i].node)
			return &worker.held[i];
	return NULL;
}

static bool use_open(struct use *u, const char *what, int flags)
{
	struct held *h = &worker.held[rng_below(&worker.rng, HELD)];
	struct node *dir;
	struct entry *e;

	if (h->node && rng_one_in(&worker.rng, 2)) {
		*u = (struct use){.node = h->node, .fd = h->fd};
		snprintf(u->path, sizeof(u->path), "held %u, %u links", (unsigned)(h - worker.held),
			h->node->nlink);
		doing("%s %s", what, u->path);
		return true;
	}
	e = pick_entry(S_IFREG, &dir);
	if (!e)
		return false;
	u->node = e->node;
	u->opened = true;
	path_of(dir, e->name, u->path);
	doing("%s %s (open %#x)", what, u->path, flags);
	u->fd = open(u->path, O_RDWR | O_CLOEXEC | flags);
	return outcome(u->fd, 0);
}

static void use_close(struct use *u)
{
	if (u->opened)
		outcome(close(u->fd), 0);
}

static void hold(int fd, struct node *n)
{
	struct held *h = free_slot();

	h->fd = fd;
	h->node = n;
	n->opens++;
}

static void drop(struct held *h)
{
	struct node *n = h->node;

	outcome(close(h->fd), 0);
	h->node = NULL;
	n->opens--;
	node_put(n);
}

void held_close_all(void)
{
	for (unsigned i = 0; i < HELD; i++)
		if (worker.held[i].node)
			drop(&worker.held[i]);
}

/* ---- content ---- */

static void fill(uint8_t *p, size_t len)
{
	unsigned kind = rng_below(&worker.rng, 3);
	uint64_t seed = rng_next(&worker.rng);

	for (size_t i = 0; i < len; i++)
		p[i] = kind == 0   ? 0
		       : kind == 1 ? "compressible text "[i % 18] ^ (i % 4096 < 8 ? seed >> (i % 8) : 0)
				   : mix64(seed + i);
}

static void do_write(void)
{
	static const int flags[] = {0, 0, 0, O_APPEND, O_SYNC, O_TRUNC};
	unsigned pick = rng_below(&worker.rng, ARRAY_SIZE(flags));
	uint64_t len = 1 + rng_below(&worker.rng, rng_one_in(&worker.rng, 4) ? 65536 : 5000), off;
	_cleanup_free_ uint8_t *buf = malloc(len);
	struct use u = {0};

	fill(buf, len);
	if (!use_open(&u, "write", flags[pick]))
		return;
	if (u.opened && flags[pick] == O_TRUNC) {
		node_resize(u.node, 0);
		changed(u.node);
	}
	off = rng_below(&worker.rng, u.node->size + 8192);
	if (u.opened && flags[pick] == O_APPEND)
		off = u.node->size;
	if (off + len > options.size) {
		use_close(&u);
		return;
	}
	doing("write %s %#jx+%#jx (open %#x)", u.path, (uintmax_t)off, (uintmax_t)len, flags[pick]);
	if (u.opened && flags[pick] == O_APPEND) {
		if ((uint64_t)write(u.fd, buf, len) != len)
			wrong("write: %s", strerror(errno));
	} else if ((uint64_t)pwrite(u.fd, buf, len, off) != len) {
		wrong("write: %s", strerror(errno));
	}
	if (off + len > u.node->size)
		node_resize(u.node, off + len);
	memcpy(u.node->data + off, buf, len);
	changed(u.node);
	use_close(&u);
}

static void do_truncate(void)
{
	struct use u = {0};
	uint64_t size;

	if (!use_open(&u, "truncate", 0))
		return;
	size = rng_below(&worker.rng, rng_one_in(&worker.rng, 4) ? options.size : u.node->size + 1000);
	size = MIN(size, options.size);
	doing("truncate %s %#jx", u.path, (uintmax_t)size);
	if (outcome(u.opened && rng_one_in(&worker.rng, 2) ? truncate(u.path, size) : ftruncate(u.fd, size),
		    0)) {
		node_resize(u.node, size);
		changed(u.node);
	}
	use_close(&u);
}

static void do_fallocate(void)
{
	unsigned pick = rng_below(&worker.rng, 4);
	static const int modes[] = {
		0, FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, FALLOC_FL_ZERO_RANGE};
	const bool able[] = {abilities.allocate, abilities.allocate, abilities.punch, abilities.zero_range};
	uint64_t off = rng_below(&worker.rng, options.size), len = 1 + rng_below(&worker.rng, 30000), end;
	struct use u = {0};

	len = MIN(len, options.size - off);
	if (!able[pick] || !use_open(&u, "fallocate", 0))
		return;
	doing("fallocate %s %#jx+%#jx mode %d", u.path, (uintmax_t)off, (uintmax_t)len, modes[pick]);
	if (outcome(fallocate(u.fd, modes[pick], off, len), 0)) {
		if ((pick == 0 || pick == 3) && off + len > u.node->size)
			node_resize(u.node, off + len);
		end = MIN(off + len, u.node->size);
		if (pick >= 2 && off < end)
			memset(u.node->data + off, 0, end - off);
		changed(u.node);
	}
	use_close(&u);
}

static void do_copy(void)
{
	struct use from = {0}, to = {0};
	uint64_t len, done = 0;
	off_t in, out;

	if (!abilities.copy || !use_open(&from, "copy from", 0))
		return;
	if (!from.node->size || !use_open(&to, "copy to", 0)) {
		use_close(&from);
		return;
	}
	in = rng_below(&worker.rng, from.node->size);
	out = rng_below(&worker.rng, to.node->size + 4096);
	len = MIN(from.node->size - in, 1 + (uint64_t)in * 7 % 60000);
	if (from.node != to.node && out + len <= options.size) {
		doing("copy %s %#jx to %s %#jx, %#jx", from.path, (uintmax_t)in, to.path, (uintmax_t)out,
			(uintmax_t)len);
		if ((uint64_t)out + len > to.node->size)
			node_resize(to.node, out + len);
		memcpy(to.node->data + out, from.node->data + in, len);
		while (done < len) {
			ssize_t n = copy_file_range(from.fd, &in, to.fd, &out, len - done, 0);

			if (n <= 0)
				wrong("copy_file_range: %zd %s", n, strerror(errno));
			done += n;
		}
		changed(to.node);
	}
	use_close(&from);
	use_close(&to);
}

void read_and_compare(int fd, struct node *n, const char *path)
{
	_cleanup_free_ uint8_t *buf = malloc(n->size + 1);
	uint64_t done = 0;
	ssize_t got;

	while ((got = pread(fd, buf + done, n->size + 1 - done, done)) > 0)
		done += got;
	if (got < 0)
		differs(path, "read: %s", strerror(errno));
	else if (done != n->size)
		differs(path, "%s bytes than its size of %ju", done < n->size ? "less" : "more",
			(uintmax_t)n->size);
	else if (memcmp(buf, n->data, done))
		for (uint64_t i = 0; i < done; i++)
			if (buf[i] != n->data[i]) {
				differs(path, "offset %#jx: %#x instead of %#x", (uintmax_t)i, buf[i],
					n->data[i]);
				return;
			}
}

static void do_read(void)
{
	uint64_t before = worker.differences;
	struct use u = {0};

	if (!use_open(&u, "read", 0))
		return;
	if (!u.node->data)
		node_resize(u.node, 0);
	read_and_compare(u.fd, u.node, u.path);
	if (worker.differences != before)
		wrong("%s reads wrong", u.path);
	use_close(&u);
}

static void do_fsync(void)
{
	struct use u = {0};

	if (!use_open(&u, "fsync", 0))
		return;
	outcome(rng_one_in(&worker.rng, 2) ? fsync(u.fd) : fdatasync(u.fd), 0);
	use_close(&u);
}

/* ---- files without a name ---- */

static void do_hold(void)
{
	struct node *dir;
	struct entry *e = pick_entry(S_IFREG, &dir);
	char path[PATH_SIZE];
	int fd;

	if (!e || !free_slot())
		return;
	path_of(dir, e->name, path);
	doing("hold %s", path);
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (!outcome(fd, 0))
		return;
	hold(fd, e->node);
	if (rng_one_in(&worker.rng, 2)) {
		doing("hold and unlink %s", path);
		outcome(unlink(path), 0);
		node_unlink(dir, e);
	}
}

static void do_tmpfile(void)
{
	struct node *dir = pick_dir(), *n;
	char path[PATH_SIZE];
	int fd;

	if (!abilities.tmpfile || !free_slot() || worker.nodes >= NODES_MAX)
		return;
	path_of(dir, NULL, path);
	doing("tmpfile in %s", path);
	fd = open(path, O_TMPFILE | O_RDWR | O_CLOEXEC, 0640);
	if (!outcome(fd, 0))
		return;
	n = node_new(S_IFREG | 0640);
	n->tmpfile = true;
	hold(fd, n);
}

/* Gives a held file a name again; only one that never had any may have it. */
static void do_link_held(void)
{
	struct held *h = &worker.held[rng_below(&worker.rng, HELD)];
	struct node *dir = pick_dir();
	char name[256], path[PATH_SIZE], from[64];
	int want = 0;

	if (!h->node)
		return;
	pick_name(dir, name);
	path_of(dir, name, path);
	snprintf(from, sizeof(from), "/proc/self/fd/%d", h->fd);
	if (node_find(dir, name))
		want = EEXIST;
	else if (!h->node->nlink && !h->node->tmpfile)
		want = ENOENT;
	doing("link held %u to %s", (unsigned)(h - worker.held), path);
	if (outcome(linkat(AT_FDCWD, from, AT_FDCWD, path, AT_SYMLINK_FOLLOW), want))
		node_link(dir, name, h->node);
}

static void do_stat_held(void)
{
	struct held *h = &worker.held[rng_below(&worker.rng, HELD)];
	uint64_t before = worker.differences;
	struct stat st;

	if (!h->node)
		return;
	doing("fstat held %u", (unsigned)(h - worker.held));
	if (outcome(fstat(h->fd, &st), 0))
		compare_stat(h->node, &st, "held file");
	if (worker.differences != before)
		wrong("fstat of a held file");
}

static void do_drop(void)
{
	struct held *h = &worker.held[rng_below(&worker.rng, HELD)];

	if (!h->node)
		return;
	doing("close held %u", (unsigned)(h - worker.held));
	drop(h);
}

void data_step(unsigned pick)
{
	static const struct step steps[] = {{14, do_write}, {4, do_truncate}, {4, do_fallocate}, {4, do_copy}, {4, do_read},
		{1, do_fsync}, {2, do_hold}, {1, do_tmpfile}, {2, do_link_held}, {2, do_stat_held},
		{2, do_drop}};

	take_step(steps, ARRAY_SIZE(steps), pick);
}
