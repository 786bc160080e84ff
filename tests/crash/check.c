/* SPDX-License-Identifier: MIT */
#include "check.h"

#include <assert.h>

#include "delta/internal.h"

/* ---- the delta in itself ---- */

#define PAGES_MAX 4096u

struct audit {
	struct delta *d;
	struct problem *problem;
	uint64_t image_inodes;
	unsigned refs[PAGES_MAX], shared[PAGES_MAX];
	unsigned nodes;
	int64_t files;
	/* The inode whose items come now. */
	uint64_t ino;
	bool present, gone;
	uint64_t size, pages, counted, end;
};

static void audit_extent(struct audit *a, struct tree_key key, const void *value, size_t len)
{
	struct pinfs_delta_extent e;
	uint64_t pages, start, stored;

	if (!extent_valid(value, len)) {
		problem_set(a->problem, "inode %ju: the extent at page %ju can't be", (uintmax_t)a->ino, (uintmax_t)key.offset);
		return;
	}
	memcpy(&e, value, sizeof(e));
	pages = pinfs_get32(e.pages);
	start = pinfs_get64(e.start);
	stored = e.kind == PINFS_DELTA_LZ4 ? DIV_ROUND_UP(pinfs_get32(e.stored), PINFS_PAGE_SIZE) : pages;
	if (key.offset < a->end)
		problem_set(a->problem, "inode %ju: extents overlap at page %ju", (uintmax_t)a->ino, (uintmax_t)key.offset);
	a->end = key.offset + pages;
	if (e.kind != PINFS_DELTA_UNWRITTEN && e.kind != PINFS_DELTA_HOLE && a->end > DIV_ROUND_UP(a->size, PINFS_PAGE_SIZE))
		problem_set(a->problem, "inode %ju of %ju bytes: content (kind %u) at pages %ju to %ju", (uintmax_t)a->ino, (uintmax_t)a->size, e.kind,
			(uintmax_t)key.offset, (uintmax_t)a->end);
	if (e.kind == PINFS_DELTA_LOGGED)
		problem_set(a->problem, "inode %ju: page %ju still lies in the log", (uintmax_t)a->ino, (uintmax_t)key.offset);
	if (e.kind == PINFS_DELTA_INLINE || e.kind == PINFS_DELTA_LOGGED)
		a->counted++;
	if (e.kind != PINFS_DELTA_RAW && e.kind != PINFS_DELTA_UNWRITTEN && e.kind != PINFS_DELTA_LZ4)
		return;
	a->counted += stored;
	if (start + stored > PAGES_MAX) {
		problem_set(a->problem, "inode %ju: pages from %ju on", (uintmax_t)a->ino, (uintmax_t)start);
		return;
	}
	for (uint64_t p = start; p < start + stored; p++)
		a->refs[p]++;
}

static void audit_inode_end(struct audit *a)
{
	if (a->present && a->counted != a->pages)
		problem_set(a->problem, "inode %ju counts %ju pages, and has %ju", (uintmax_t)a->ino, (uintmax_t)a->pages, (uintmax_t)a->counted);
	a->present = a->gone = false;
	a->counted = a->end = 0;
}

static void audit_inode(struct audit *a, const void *value, size_t len)
{
	struct pinfs_delta_inode i;

	if (len != sizeof(i)) {
		problem_set(a->problem, "inode %ju has a wrong size", (uintmax_t)a->ino);
		return;
	}
	memcpy(&i, value, sizeof(i));
	a->present = true;
	a->gone = pinfs_get32(i.state) & PINFS_DELTA_STATE_GONE;
	a->size = pinfs_get64(i.size);
	a->pages = pinfs_get64(i.pages);
	a->files += a->ino > a->image_inodes;
	a->files -= a->gone;
	if (!a->gone && !pinfs_get32(i.nlink))
		problem_set(a->problem, "inode %ju has no name", (uintmax_t)a->ino);
	if (a->ino >= a->d->next_ino)
		problem_set(a->problem, "inode %ju was never given out", (uintmax_t)a->ino);
}

static void audit_item(struct audit *a, struct tree_key key, const void *value, size_t len)
{
	unsigned type = key.object & 0xff;
	uint64_t ino = key.object >> 8;

	if (!ino && type == PINFS_DELTA_ORPHAN) {
		problem_set(a->problem, "inode %ju is left without a name", (uintmax_t)key.offset);
		return;
	}
	if (!ino && type == PINFS_DELTA_SHARED && len == sizeof(struct pinfs_delta_shared)) {
		struct pinfs_delta_shared s;

		memcpy(&s, value, sizeof(s));
		for (uint64_t p = key.offset; p < key.offset + pinfs_get32(s.pages) && p < PAGES_MAX; p++)
			a->shared[p] += pinfs_get32(s.refs);
		return;
	}
	if (ino != a->ino) {
		audit_inode_end(a);
		a->ino = ino;
	}
	if (type == PINFS_DELTA_INODE) {
		audit_inode(a, value, len);
		return;
	}
	if (!a->present || a->gone)
		problem_set(a->problem, "inode %ju, which isn't there, has an item of type %u", (uintmax_t)ino, type);
	if (type == PINFS_DELTA_EXTENT)
		audit_extent(a, key, value, len);
}

static int audit_node(void *context, const struct tree_node_info *info)
{
	struct audit *a = context;

	a->nodes++;
	if (info->page && info->page + PINFS_DELTA_NODE_PAGES <= PAGES_MAX)
		for (uint64_t p = info->page; p < info->page + PINFS_DELTA_NODE_PAGES; p++)
			a->refs[p]++;
	return 0;
}

static void audit_pages(struct audit *a)
{
	struct delta *d = a->d;
	uint64_t live = 0;

	for (uint64_t p = d->map_first; p < d->map_first + d->map_pages && p < PAGES_MAX; p++)
		a->refs[p]++;
	for (uint64_t p = 0; p < PAGES_MAX; p++) {
		bool is = space_is_live(d->space, p);

		live += is;
		if (is != (a->refs[p] > 0))
			problem_set(a->problem, "page %ju of the delta is %s, with %u references", (uintmax_t)p, is ? "used" : "free", a->refs[p]);
		if (a->refs[p] > 1 ? a->shared[p] != a->refs[p] : a->shared[p] != 0)
			problem_set(a->problem, "page %ju of the delta has %u references, and a count of %u", (uintmax_t)p, a->refs[p], a->shared[p]);
	}
}

void audit(struct vfs *v, struct problem *problem)
{
	static struct audit a;
	struct delta *d = vfs_delta(v);
	struct tree_key from = {0}, key;
	uint64_t damaged = 0, items = 0;
	struct space_stats stats;
	const void *value;
	size_t len;
	int r;

	a = (struct audit){.d = d, .problem = problem, .image_inodes = vfs_image_info(v)->inode_count};
	a.files = (int64_t)a.image_inodes;
	delta_lock(d);
	while ((r = tree_find(d->tree, from, (struct tree_key){UINT64_MAX, UINT64_MAX}, &key, &value, &len)) == 0) {
		audit_item(&a, key, value, len);
		items++;
		from = key;
		if (!++from.offset)
			from.object++;
	}
	audit_inode_end(&a);
	if (r != -ENOENT)
		problem_set(problem, "the tree can't be read: %s", strerror(-r));
	r = tree_walk(d->tree, audit_node, &a, &damaged);
	if (r < 0 || damaged)
		problem_set(problem, "%ju nodes of the tree are damaged", (uintmax_t)damaged);
	if (items != tree_items(d->tree))
		problem_set(problem, "the tree has %ju items, and counts %ju", (uintmax_t)items, (uintmax_t)tree_items(d->tree));
	if (a.files != (int64_t)d->files)
		problem_set(problem, "there are %jd files, counted are %ju", (intmax_t)a.files, (uintmax_t)d->files);
	/* A dirty node's old place can't be told from others. */
	if (!tree_dirty(d->tree))
		audit_pages(&a);
	space_get_stats(d->space, &stats);
	if (stats.flight)
		problem_set(problem, "%ju pages of the delta are in flight", (uintmax_t)stats.flight);
	delta_unlock(d);
}

/* ---- against what was done ---- */

/* The lines that two trees differ in. */
static void tell_difference(const char *want, const char *got, struct problem *problem, int low, int high)
{
	char text[PROBLEM_SIZE - 200];
	size_t n = 0;

	text[0] = 0;
	for (unsigned side = 0; side < 2; side++) {
		const char *from = side ? got : want, *in = side ? want : got;

		for (const char *line = from; *line && n < sizeof(text) - 2;) {
			size_t len = strcspn(line, "\n");
			_cleanup_free_ char *copy = strndup(line, len);

			if (copy && !strstr(in, copy))
				n += (size_t)snprintf(text + n, sizeof(text) - n, "\n\t%c %s", side ? '+' : '-', copy);
			n = MIN(n, sizeof(text) - 1);
			line += len + (line[len] == '\n');
		}
	}
	problem_set(problem, "the tree is none of those after operations %d to %d; from the last one it differs by%s", low, high, text);
}

struct window {
	unsigned first, end; /* versions */
};

static bool version_has(const struct version *v, uint64_t page, const uint8_t *data, size_t len)
{
	static const uint8_t zeroes[PINFS_PAGE_SIZE];

	return v->size >= page * PINFS_PAGE_SIZE + len && !memcmp(v->pages[page] ? v->pages[page] : zeroes, data, len);
}

/* The first version of a file that a page, or the size (page FILE_PAGES), may be of. */
static unsigned version_floor(const struct file *f, const struct bounds *b, int names, unsigned page)
{
	int op = 0;
	unsigned i;

	for (i = 0; i < f->sync_count; i++)
		if (f->synced[i] <= b->names)
			op = MAX(op, f->synced[i]);
	for (i = 0; i < f->change_count; i++) {
		const struct change *c = &f->changes[i];

		if (c->op <= names && (page == FILE_PAGES ? c->size : page >= c->first && page < c->end))
			op = MAX(op, c->op);
	}
	for (i = 0; i < f->count; i++)
		if (f->versions[i].op >= op && f->versions[i].whole)
			break;
	/* Its first version may be one that was on the way. */
	return op ? MIN(i, f->count) : 0;
}

static void check_content(const struct file *f, const struct bounds *b, int names, unsigned end, const uint8_t *data, uint64_t size, const char *what,
	struct problem *problem)
{
	unsigned floor = version_floor(f, b, names, FILE_PAGES);
	bool found = false;

	for (unsigned i = floor; i < end; i++) {
		const struct version *v = &f->versions[i];

		found |= v->size == size;
		/* While it grows page by page. */
		if (i + 1 < end && size % PINFS_PAGE_SIZE == 0)
			found |= size > v->size && size < f->versions[i + 1].size;
	}
	if (!found)
		problem_set(problem, "%s: its size of %ju bytes is none that it had from operation %d to %d", what, (uintmax_t)size,
			floor < f->count ? f->versions[floor].op : -1, b->begun);
	for (unsigned p = 0; p < DIV_ROUND_UP(size, PINFS_PAGE_SIZE); p++) {
		size_t len = (size_t)MIN(size - (uint64_t)p * PINFS_PAGE_SIZE, (uint64_t)PINFS_PAGE_SIZE);
		int older = -1;

		floor = version_floor(f, b, names, p);
		found = false;
		for (unsigned i = floor; !found && i < end; i++)
			found = version_has(&f->versions[i], p, data + (size_t)p * PINFS_PAGE_SIZE, len);
		for (unsigned i = 0; !found && i < f->count; i++)
			if (version_has(&f->versions[i], p, data + (size_t)p * PINFS_PAGE_SIZE, len))
				older = f->versions[i].op;
		if (!found)
			problem_set(problem, "%s of %ju bytes: page %u is none of operations %d to %d%s (begins with %02x%02x%02x%02x)", what,
				(uintmax_t)size, p, floor < f->count ? f->versions[floor].op : -1, end ? f->versions[end - 1].op : -1,
				older < 0 ? ", nor of any other" : ", but of an older one", data[(size_t)p * PINFS_PAGE_SIZE],
				data[(size_t)p * PINFS_PAGE_SIZE + 1], data[(size_t)p * PINFS_PAGE_SIZE + 2], data[(size_t)p * PINFS_PAGE_SIZE + 3]);
	}
}

static bool time_is(struct timespec a, struct timespec b)
{
	return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

static void check_times(const struct file *f, const struct bounds *b, unsigned end, const struct snap_file *s, struct problem *problem)
{
	bool mtime = false, ctime = false;

	for (unsigned i = version_floor(f, b, -1, FILE_PAGES); i < end; i++) {
		mtime |= time_is(f->versions[i].mtime, s->mtime);
		ctime |= time_is(f->versions[i].ctime, s->ctime);
	}
	if (!mtime || !ctime)
		problem_set(problem, "inode %ju: its %s %jd.%09ld is none that it had", (uintmax_t)f->ino, mtime ? "ctime" : "mtime",
			(intmax_t)(mtime ? s->ctime : s->mtime).tv_sec, (mtime ? s->ctime : s->mtime).tv_nsec);
}

void check_state(struct vfs *v, const struct model *m, const struct bounds *b, struct snap *ret, struct problem *problem)
{
	static uint8_t data[FILE_PAGES * PINFS_PAGE_SIZE];
	int low = -1, high = -1;
	struct snap s;

	snap_take(v, &s, problem);
	for (int i = b->names; i <= b->begun; i++)
		if (s.text && m->snaps[i].hash == s.hash) {
			low = low < 0 ? i : low;
			high = i;
		}
	if (low < 0 && s.text)
		tell_difference(m->snaps[b->begun].text, s.text, problem, b->names, b->begun);
	for (unsigned i = 0; i < s.count && low >= 0; i++) {
		const struct file *f = model_find((struct model *)m, s.files[i].ino);
		unsigned end = 0;
		char what[32];
		ssize_t n;

		snprintf(what, sizeof(what), "inode %ju", (uintmax_t)s.files[i].ino);
		if (!f) {
			problem_set(problem, "%s was never there", what);
			continue;
		}
		/* Nothing of what came after an operation that isn't there; the next one may have begun. */
		while (end < f->count && f->versions[end].op <= MIN(b->begun, high + 1))
			end++;
		n = read_whole(v, f->ino, data);
		if (n < 0 || (uint64_t)n != s.files[i].size) {
			problem_set(problem, "%s of %ju bytes can't be read: %s", what, (uintmax_t)s.files[i].size, n < 0 ? strerror((int)-n) : "too short");
			continue;
		}
		if (f->uncertain && f->uncertain <= b->begun)
			continue;
		check_content(f, b, low, end, data, s.files[i].size, what, problem);
		check_times(f, b, end, &s.files[i], problem);
	}
	if (ret)
		*ret = s;
	else
		snap_free(&s);
}
