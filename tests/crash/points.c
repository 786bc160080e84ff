/* SPDX-License-Identifier: MIT */
/*
 * A workload is recorded once. Then each of its crash points is looked at: what was flushed is there, of what was written since any
 * subset, in whole writes, pages or sectors. Writes to the same place never change their order: the later one wins, if it is there.
 */
#include "crash.h"

#include <assert.h>
#include <fcntl.h>
#include <linux/falloc.h>

#include "check.h"
#include "codec/codec.h"
#include "delta/internal.h"
#include "disk.h"
#include "support.h"

#define PAGE PINFS_PAGE_SIZE
#define LIMIT (8u << 20) /* of a delta: so its log is the smallest */
#define LIMIT_FULL (3u << 20)
#define CACHE (4u << 20)

uint8_t *image_bytes;
size_t image_size;

static struct base {
	struct disk *disk;
	struct model *model;
} bases[BASES];

static struct vfs *open_vfs(unsigned base, struct disk *disk, char error[IMAGE_ERROR_SIZE])
{
	struct vfs_delta_options delta = {.store = disk_store(disk), .size_limit = base == BASE_FULL ? LIMIT_FULL : LIMIT, .atime = VFS_NOATIME, .no_threads = true};
	struct vfs_options o = {.name = "crash", .offset = IMAGE_OFFSET_AUTO, .cache_limit = CACHE, .delta = &delta};
	struct io_file *io;
	struct vfs *v = NULL;

	must(io_open_memory(image_bytes, image_size, &io) == 0);
	error[0] = 0;
	return vfs_new(io, &o, &v, error) == 0 ? v : NULL;
}

/* ---- what there is in the beginning ---- */

static uint64_t make_file(struct vfs *v, const char *name, const void *data, size_t len)
{
	static const struct vfs_cred cred = {.uid = 0, .gid = 0};
	struct stat st;

	must(vfs_mknod(v, VFS_ROOT_INO, name, S_IFREG | 0644, 0, &cred, &st) == 0);
	must(vfs_write(v, st.st_ino, 0, data, len, 0) == (ssize_t)len);
	vfs_forget(v, st.st_ino, 1);
	return st.st_ino;
}

/* Files, and a log that is near its end. */
static void use(struct vfs *v, bool sync)
{
	static const struct vfs_cred cred = {.uid = 0, .gid = 0};
	static uint8_t buf[24 * PAGE];
	struct rng rng = {5};
	struct stat st;
	uint64_t ino;

	rng_text(&rng, buf, 12 * PAGE);
	rng_bytes(&rng, buf + 12 * PAGE, 12 * PAGE);
	make_file(v, "f", buf, sizeof(buf));
	make_file(v, "g", buf, 300);
	must(vfs_mkdir(v, VFS_ROOT_INO, "h", 0755, &cred, &st) == 0);
	vfs_forget(v, st.st_ino, 1);
	/* So many that the tree has several nodes. */
	for (unsigned i = 0; i < 40; i++) {
		char name[16];

		snprintf(name, sizeof(name), "user.x%02u", i);
		must(vfs_setxattr(v, st.st_ino, name, buf + i * 100, 1500, 0, false) == 0);
	}
	make_file(v, "r", buf, PAGE);
	ino = make_file(v, "scratch", buf, 5 * PAGE);
	must(vfs_sync(v) == 0);
	while (vfs_delta(v)->log.head < vfs_delta(v)->log.bytes - 72 * 1024) {
		rng_bytes(&rng, buf, PAGE);
		must(vfs_write(v, ino, rng_below(&rng, 5) * PAGE, buf, 8000, 0) == 8000);
		must(vfs_fsync(v, ino, NULL, false) == 0);
	}
	must(vfs_unlink(v, VFS_ROOT_INO, "scratch") == 0);
	must(vfs_sync(v) == 0);
	if (sync)
		must(delta_checkpoint(vfs_delta(v)) == 0);
}

/* Little is free, and most of it in single pages. */
static void fill(struct vfs *v)
{
	static const struct vfs_cred cred = {.uid = 0, .gid = 0};
	static uint8_t buf[32 * PAGE];
	uint64_t inos[16];
	struct rng rng = {6};
	unsigned n = 0;
	ssize_t got;

	do {
		char name[16];
		struct stat st;

		snprintf(name, sizeof(name), "full%02u", n);
		rng_bytes(&rng, buf, sizeof(buf));
		must(vfs_mknod(v, VFS_ROOT_INO, name, S_IFREG | 0644, 0, &cred, &st) == 0);
		vfs_forget(v, st.st_ino, 1);
		inos[n++] = st.st_ino;
		got = vfs_write(v, st.st_ino, 0, buf, sizeof(buf), 0);
		must(vfs_sync(v) == 0);
	} while (got == sizeof(buf) && n < ARRAY_SIZE(inos));
	for (unsigned i = 0; i < MIN(n, 2u); i++)
		for (unsigned page = 1; page < 32; page += 2)
			must(vfs_fallocate(v, inos[i], FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, page * PAGE, PAGE) == 0);
	must(vfs_sync(v) == 0 && delta_checkpoint(vfs_delta(v)) == 0);
}

void bases_make(void)
{
	struct problem problem = {""};
	char error[IMAGE_ERROR_SIZE];

	watch_errors(&problem);
	for (unsigned i = 0; i < BASES; i++) {
		struct disk *fork;
		struct vfs *v;

		world_reset(100 + i);
		bases[i].disk = disk_new();
		if (i > 0) {
			v = open_vfs(i, bases[i].disk, error);
			must(v);
			if (i > 1)
				use(v, i != 3);
			if (i == BASE_FULL)
				fill(v);
			vfs_free(v);
		}
		fork = disk_fork(bases[i].disk);
		v = open_vfs(i, fork, error);
		must(v);
		bases[i].model = calloc(1, sizeof(*bases[i].model));
		must(bases[i].model);
		model_load(bases[i].model, v, &problem);
		vfs_free(v);
		disk_free(fork);
		if (problem.text[0])
			fprintf(stderr, "base %u: %s\n", i, problem.text);
		must(!problem.text[0]);
		disk_hash(bases[i].disk);
	}
	watch_errors(NULL);
}

void bases_free(void)
{
	for (unsigned i = 0; i < BASES; i++) {
		model_free(bases[i].model);
		disk_free(bases[i].disk);
	}
}

/* ---- recording ---- */

struct recording {
	const struct workload *w;
	struct disk *from, *disk;
	struct model *model;
	struct bounds fixed; /* of a nested one */
	bool nested;
	const char *prefix;  /* of what names its states */
};

enum { MARK_BEGIN, MARK_END }; /* what: MARK_END + enum durable */

static bool record(const struct workload *w, struct recording *ret, struct problem *problem)
{
	struct base *base = &bases[w->base];
	struct world world = {.model = calloc(1, sizeof(struct model))};
	char error[IMAGE_ERROR_SIZE];
	struct disk *disk = disk_fork(base->disk);

	assert(world.model);
	world_reset(1000);
	txn_scale = w->base == 3 ? 64 : 1;
	watch_errors(problem);
	disk->logging = true;
	world.vfs = open_vfs(w->base, disk, error);
	if (!world.vfs) {
		problem_set(problem, "it can't be opened: %s", error);
	} else {
		model_begin(world.model, base->model, world.vfs, problem);
		for (unsigned i = 0; i < w->count; i++) {
			enum durable durable;

			disk_mark(disk, (int)i + 1, MARK_BEGIN);
			durable = op_run(&world, w->ops[i], (int)i + 1, problem);
			model_after(world.model, world.vfs, (int)i + 1, problem);
			disk_mark(disk, (int)i + 1, MARK_END + (int)durable);
		}
		disk->logging = false;
		watch_errors(NULL);
		world_close(&world);
		vfs_free(world.vfs);
	}
	*ret = (struct recording){.w = w, .from = base->disk, .disk = disk, .model = world.model};
	return !problem->text[0];
}

/* ---- states ---- */

static struct {
	bool on;
	long event, state;
	char nested[64];
} only;

void replay_at(const char *where)
{
	only.event = only.state = -1;
	only.on = sscanf(where, "%ld.%ld/%60s", &only.event, &only.state, only.nested) > 0;
}

/* Which states were looked at already. */
#define SEEN_SIZE (1u << 16)
static uint64_t seen[SEEN_SIZE];
static unsigned seen_count;

static bool seen_before(uint64_t key)
{
	unsigned i = (unsigned)(key % SEEN_SIZE);

	if (seen_count > SEEN_SIZE / 2) {
		memset(seen, 0, sizeof(seen));
		seen_count = 0;
	}
	key |= 1;
	while (seen[i] && seen[i] != key)
		i = (i + 1) % SEEN_SIZE;
	if (seen[i])
		return true;
	seen[i] = key;
	seen_count++;
	return false;
}

/* What is written since the last flush. */
struct point {
	const struct recording *rec;
	struct disk *durable;
	size_t event;
	const struct event **pending;
	unsigned count;
	bool last; /* the last one is new: all states without it were looked at before */
	struct bounds bounds;
};

/* Some units of a write, each with a chance of `num` in 16; or all but one, or those up to one. */
static void apply_torn(struct disk *disk, const struct event *e, uint64_t unit, struct rng *rng, unsigned how)
{
	uint64_t begin = e->offset / unit * unit, units = DIV_ROUND_UP(e->offset + e->len - begin, unit), pick = rng_below(rng, units);

	for (uint64_t i = 0; i < units; i++) {
		uint64_t from = MAX(begin + i * unit, e->offset), to = MIN(begin + (i + 1) * unit, e->offset + e->len);
		bool there = how == 0 ? i < pick : how == 1 ? i != pick : how == 2 ? i == pick : rng_below(rng, 16) < how;

		if (there)
			disk_apply(disk, e, from - e->offset, to - from);
	}
}

static void state_torn(const struct point *p, unsigned k, struct rng *rng, struct disk *disk)
{
	uint64_t unit = k % 2 ? PAGE : DISK_SECTOR;
	unsigned how = k / 2;

	for (unsigned i = 0; i < p->count; i++) {
		const struct event *e = p->pending[i];
		/* The last one is torn, or all of them are. */
		bool whole = how < 3 && i + 1 < p->count;

		if (whole)
			disk_apply(disk, e, 0, e->len);
		else
			apply_torn(disk, e, unit, rng, how < 3 ? how : how % 2 ? 8 : 14);
	}
}

/* State k of a point. False: there are no more. */
static bool state_make(const struct point *p, unsigned k, struct disk *disk)
{
	unsigned n = p->count, subsets = n <= options.all ? 1u << n : 3 + 2 * MIN(n, 40u) + 12;
	struct rng rng = {codec_hash_seeded(workload_text(p->rec->w), strlen(workload_text(p->rec->w)), p->event * 1000 + k)};

	if (k >= subsets + (n ? options.torn : 0))
		return false;
	if (k >= subsets) {
		state_torn(p, k - subsets, &rng, disk);
		return true;
	}
	for (unsigned i = 0; i < n; i++) {
		unsigned m = k - 3;
		bool there;

		if (n <= options.all)
			there = (subsets - 1 - k) >> i & 1;
		else if (k < 2)
			there = k == 0;
		else if (k == 2)
			there = i >= n - 2;
		else if (m < MIN(n, 40u))
			there = i != n - 1 - m;
		else if ((m -= MIN(n, 40u)) < MIN(n, 40u))
			there = i == n - 1 - m;
		else
			there = rng_below(&rng, 16) < (m % 3 == 0 ? 8 : m % 3 == 1 ? 14 : 3);
		if (there)
			disk_apply(disk, p->pending[i], 0, p->pending[i]->len);
	}
	return true;
}

/* ---- one state ---- */

static void points_run(const struct recording *rec);

/* Writes on, and cuts the power again behind the last flush: what was synced is there. */
static void go_on(unsigned base, struct vfs *v, struct disk *from, struct disk *disk, struct problem *problem)
{
	static const struct vfs_cred cred = {.uid = 1, .gid = 1};
	static uint8_t buf[5000], got[FILE_PAGES * PAGE];
	struct vfs_setattr set = {.valid = VFS_SET_MODE, .mode = 0700};
	char error[IMAGE_ERROR_SIZE];
	struct snap before, after;
	struct disk *durable;
	struct stat st, root;
	size_t flushed = 0;
	int r;

	memset(buf, 'Z', sizeof(buf));
	r = vfs_mknod(v, VFS_ROOT_INO, "zz", S_IFREG | 0644, 0, &cred, &st);
	if (r == 0)
		r = vfs_write(v, st.st_ino, 0, buf, sizeof(buf), 0) == sizeof(buf) ? 0 : -ENOSPC;
	if (r == 0)
		r = vfs_setattr(v, VFS_ROOT_INO, &set, &root);
	if (r == 0)
		r = vfs_fsync(v, st.st_ino, NULL, false);
	if (r == -ENOSPC && base == BASE_FULL)
		return;
	if (r < 0) {
		problem_set(problem, "writing goes on, but fails: %s", strerror(-r));
		return;
	}
	vfs_forget(v, st.st_ino, 1);
	snap_take(v, &before, problem);
	durable = disk_fork(from);
	for (size_t i = 0; i < disk->count; i++)
		if (disk->events[i].kind == EVENT_FLUSH)
			flushed = i;
	for (size_t i = 0; i < flushed; i++)
		disk_apply(durable, &disk->events[i], 0, disk->events[i].len);
	v = open_vfs(base, durable, error);
	totals.opened++;
	if (!v) {
		problem_set(problem, "after writing went on it can't be opened: %s", error);
	} else {
		audit(v, problem);
		snap_take(v, &after, problem);
		if (before.hash != after.hash)
			problem_set(problem, "after writing went on and a crash the tree is another one:\n%s\n%s", before.text, after.text);
		if (read_whole(v, st.st_ino, got) != sizeof(buf) || memcmp(got, buf, sizeof(buf)) != 0)
			problem_set(problem, "after writing went on and a crash a new file has other content");
		snap_free(&after);
		vfs_free(v);
	}
	snap_free(&before);
	disk_free(durable);
}

static void keep(const struct disk *disk)
{
	char path[512];

	snprintf(path, sizeof(path), "%s.delta", options.keep);
	disk_save(disk, path);
	snprintf(path, sizeof(path), "%s.image", options.keep);
	write_file(path, image_bytes, image_size);
}

static void state_check(const struct point *p, unsigned k, struct disk *state)
{
	const struct recording *rec = p->rec;
	struct problem problem = {""};
	char error[IMAGE_ERROR_SIZE], where[96];
	struct disk *disk = disk_fork(state);
	bool further = !rec->nested && (only.on || totals.states % options.nested == 0);
	struct vfs *v;

	snprintf(where, sizeof(where), "%s%zu.%u", rec->nested ? rec->prefix : "@", p->event, k);
	set_current(rec->w, where);
	if (options.keep && only.on && !rec->nested)
		keep(state);
	totals.states++;
	totals.opened++;
	disk->logging = true;
	watch_errors(&problem);
	v = open_vfs(rec->w->base, disk, error);
	if (!v) {
		problem_set(&problem, "it can't be opened: %s", error);
	} else {
		if (further)
			disk_mark(disk, 0, MARK_END + DURABLE_NAMES);
		audit(v, &problem);
		check_state(v, rec->model, &p->bounds, NULL, &problem);
		if (!problem.text[0] && !further && (only.on || k == 0 || totals.states % options.go_on == 0))
			go_on(rec->w->base, v, state, disk, &problem);
		disk->logging = false;
		watch_errors(NULL);
		vfs_free(v);
	}
	watch_errors(NULL);
	if (problem.text[0]) {
		violation(rec->w, where, problem.text);
	} else if (further && (!only.on || only.nested[0])) {
		struct recording again = {.w = rec->w, .from = state, .disk = disk, .model = rec->model, .fixed = p->bounds, .nested = true};
		char prefix[80];

		snprintf(prefix, sizeof(prefix), "@%zu.%u/", p->event, k);
		again.prefix = prefix;
		points_run(&again);
	}
	disk_free(disk);
}

/* What a state is looked at for: before the first operation that is the same in all workloads. */
static uint64_t state_key(const struct point *p, struct disk *state)
{
	const char *text = workload_text(p->rec->w);

	return disk_hash(state) ^ codec_hash_seeded(text, p->bounds.begun ? strlen(text) : 1, (uint64_t)(p->bounds.names * 100 + p->bounds.begun));
}

static void point_run(const struct point *p)
{
	unsigned budget = p->rec->nested ? 12 : options.per_point;
	uint64_t violations = totals.violations;

	totals.points++;
	for (unsigned k = 0; only.on || (budget && !time_is_up() && totals.violations == violations); k++) {
		struct disk *state;

		if (only.on && !p->rec->nested && only.state >= 0 && k > only.state)
			break;
		state = disk_fork(p->durable);
		if (!state_make(p, k, state)) {
			disk_free(state);
			break;
		}
		if (only.on ? p->rec->nested || only.state < 0 || k == only.state :
!seen_before(state_key(p, state))) {
			state_check(p, k, state);
			budget -= budget > 0;
		}
		disk_free(state);
	}
}

/* Of the events from `from` to `to` those that write. */
static unsigned pending_collect(const struct disk *disk, size_t from, size_t to, const struct event **ret)
{
	unsigned n = 0;

	for (size_t i = from; i <= to; i++)
		if (disk->events[i].kind == EVENT_WRITE || disk->events[i].kind == EVENT_PUNCH)
			ret[n++] = &disk->events[i];
	return n;
}

/* A disk that lies: what it was asked to flush isn't. */
static bool flush_ignored(const struct disk *disk, size_t i)
{
	if (mutant == MUTANT_NOFLUSH)
		return true;
	return mutant == MUTANT_SUPERFLUSH && i + 1 < disk->count && disk->events[i + 1].kind == EVENT_WRITE &&
		disk->events[i + 1].offset < PINFS_DELTA_SUPERS * PAGE;
}

static void points_run(const struct recording *rec)
{
	const struct disk *disk = rec->disk;
	const struct event **pending = malloc((disk->count + 1) * sizeof(*pending));
	struct point p = {.rec = rec, .durable = disk_fork(rec->from), .pending = pending, .bounds = rec->fixed};
	uint64_t violations = totals.violations;
	size_t since = 0;

	assert(pending);
	/* One of a workload is enough. */
	for (size_t i = 0; i < disk->count && (only.on || (!time_is_up() && totals.violations == violations)); i++) {
		const struct event *e = &disk->events[i];
		bool acked = false;

		if (e->kind == EVENT_FLUSH) {
			p.count = pending_collect(disk, since, i, pending);
			for (unsigned k = 0; k < p.count && !flush_ignored(disk, i); k++)
				disk_apply(p.durable, pending[k], 0, pending[k]->len);
			if (!flush_ignored(disk, i))
				since = i + 1;
			continue;
		}
		if (e->kind == EVENT_MARK && !rec->nested) {
			acked = e->what > MARK_END;
			if (e->what == MARK_BEGIN)
				p.bounds.begun = e->op;
			else if (acked || mutant == MUTANT_STRICT)
				p.bounds.names = e->op;
		}
		if (e->kind == EVENT_MARK && !acked)
			continue;
		if (only.on && !rec->nested && only.event >= 0 && (size_t)only.event != i)
			continue;
		if (!only.on && !rec->nested && p.bounds.begun < (int)rec->w->from)
			continue;
		p.event = i;
		p.last = e->kind != EVENT_MARK;
		p.count = pending_collect(disk, since, i, pending);
		point_run(&p);
	}
	disk_free(p.durable);
	free(pending);
}

void workload_run(const struct workload *w)
{
	struct problem problem = {""};
	struct recording rec;

	totals.workloads++;
	set_current(w, "");
	if (!record(w, &rec, &problem))
		violation(w, "", problem.text);
	else
		points_run(&rec);
	model_free(rec.model);
	disk_free(rec.disk);
}
