/* SPDX-License-Identifier: MIT */
/*
 * fsck of a delta: opening what is damaged, problems and how they are told, rounds of repair; the passes are in fsck_delta_*.c.
 *
 * What holds after a check without a problem:
 *
 *	- all four superblocks are whole (but for those that were never written); the delta belongs to the image; every node of the tree and the map
 *	  have their checksums; the log's frames can be applied, and it ends where a crash may have ended it.
 *	- each page that the map calls used is a node's, the map's own, or content's, and no other page is; pages that several extents refer to have
 *	  that count.
 *	- every item has its form and an inode that it fits; image and delta together are one tree: every name leads to an inode of its type,
 *	  hides something if it hides, and is found under its hash; link counts, numbers of names, parents, numbers of pages are what they say;
 *	  every directory leads up to the root.
 *	- all content in the delta has its checksums.
 *
 * Memory: 64 to 128 bytes for each inode that the delta has to do with, 32 for each extent with pages, and a bit for each page of the delta.
 */
#include "mkfs/fsck_delta_internal.h"

#include <stdarg.h>

#include "mkfs/fsck_internal.h"

#define PROBLEMS_DEFAULT 100u
#define TEXT_SIZE 1400
/* Repairs bring up others; after so many rounds what is left is said to be left. */
#define ROUNDS 12u

/* ---- problems ---- */

/* What the delta's or the image's functions have told last. One thread only. */
static _Thread_local struct {
	bool set;
	uint64_t offset;
	char text[IMAGE_ERROR_SIZE];
} caught;

static void on_damage(void *context, uint64_t offset, const char *text)
{
	if (caught.set)
		return;
	caught.set = true;
	caught.offset = offset;
	snprintf(caught.text, sizeof(caught.text), "%s", text);
}

/* While the delta is opened, each of its messages is a problem of its own. */
static void on_open_damage(void *context, uint64_t offset, const char *text)
{
	struct fsck_delta *f = context;

	if (f->delta)
		on_damage(NULL, offset, text);
	else
		fsck_delta_problem(f, offset, "%s", text);
}

void fsck_delta_problem(struct fsck_delta *f, uint64_t offset, const char *fmt, ...)
{
	struct fsck_delta_report *rep = f->report;
	struct fsck_problem p = {.offset = offset};
	char text[TEXT_SIZE];
	va_list ap;

	f->found++;
	if (f->silent)
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	rep->errors++;
	if (rep->problem_count >= (f->options->max_problems ? f->options->max_problems : PROBLEMS_DEFAULT) ||
		array_reserve(&rep->problems, &rep->problem_capacity, rep->problem_count + 1, sizeof(p)) < 0 || !(p.text = strdup(text)))
		return;
	rep->problems[rep->problem_count++] = p;
	if (f->options->on_problem)
		f->options->on_problem(f->options->context, &p);
}

void fsck_delta_note(struct fsck_delta *f, const char *fmt, ...)
{
	char text[TEXT_SIZE];
	va_list ap;

	if (!f->options->on_note || (f->silent && !f->fix))
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	f->options->on_note(f->options->context, text);
}

int fsck_delta_caught(struct fsck_delta *f, int error, uint64_t offset, const char *subject)
{
	if (error == -ENOMEM) {
		caught.set = false;
		return error;
	}
	if (error < 0)
		fsck_delta_problem(f, caught.set && caught.offset ? caught.offset : offset, "%s%s%s", subject ? subject : "", subject ? ": " : "",
			caught.set ? caught.text : strerror(-error));
	fsck_forget_caught();
	caught.set = false;
	return 0;
}

bool fsck_delta_cancelled(const struct fsck_delta *f)
{
	return f->options->cancelled && f->options->cancelled(f->options->context);
}

/* ---- inodes ---- */

static size_t slot_of(const struct fsck_delta *f, uint64_t ino)
{
	size_t i = (size_t)(ino * 0x9e3779b97f4a7c15ull >> 20) & (f->inode_slots - 1);

	while (f->inodes[i].ino && f->inodes[i].ino != ino)
		i = (i + 1) & (f->inode_slots - 1);
	return i;
}

struct inode_entry *fsck_inode_find(const struct fsck_delta *f, uint64_t ino)
{
	size_t i = f->inode_slots ? slot_of(f, ino) : 0;

	return f->inode_slots && f->inodes[i].ino ? &f->inodes[i] : NULL;
}

static int inodes_grow(struct fsck_delta *f)
{
	struct inode_entry *old = f->inodes;
	size_t slots = f->inode_slots;

	f->inodes = calloc(MAX(slots * 2, (size_t)256), sizeof(*old));
	if (!f->inodes) {
		f->inodes = old;
		return -ENOMEM;
	}
	f->inode_slots = MAX(slots * 2, (size_t)256);
	for (size_t i = 0; i < slots; i++)
		if (old[i].ino)
			f->inodes[slot_of(f, old[i].ino)] = old[i];
	free(old);
	return 0;
}

struct inode_entry *fsck_inode(struct fsck_delta *f, uint64_t ino)
{
	size_t i;

	if (f->inode_count * 4 >= f->inode_slots * 3 && inodes_grow(f) < 0)
		return NULL;
	i = slot_of(f, ino);
	if (!f->inodes[i].ino) {
		f->inodes[i].ino = ino;
		f->inode_count++;
	}
	return &f->inodes[i];
}

int fsck_image_inode(struct fsck_delta *f, uint64_t ino, struct image_inode *ret)
{
	int r = ino && ino <= f->info->inode_count ? image_inode_get(f->image, ino, ret) : -ENOENT;

	if (r == 0 || r == -ENOENT || r == -ENOMEM)
		return r;
	/* Whatever the image lacks, fsck of the image says. */
	fsck_forget_caught();
	if (!f->has_image_problem)
		fsck_delta_problem(f, 0, "inode %ju of the image can't be read: check the image, too", (uintmax_t)ino);
	f->has_image_problem = true;
	return -ENOENT;
}

/* ---- repairs ---- */

static int fix_end(struct fsck_delta *f, int r)
{
	f->fixed++;
	if (r == 0)
		return delta_commit(f->delta);
	delta_abort(f->delta);
	return r;
}

int fsck_fix_delete(struct fsck_delta *f, uint64_t object, uint64_t offset)
{
	int r = f->fix ? delta_begin(f->delta, DELTA_SHRINKS) : 0;

	if (!f->fix || r < 0)
		return r;
	r = delta_item_delete(f->delta, object, offset);
	return fix_end(f, r == -ENOENT ? 0 : r);
}

int fsck_fix_inode(struct fsck_delta *f, const struct delta_inode *inode)
{
	int r = f->fix ? delta_begin(f->delta, 0) : 0;

	return !f->fix || r < 0 ? r : fix_end(f, delta_inode_put(f->delta, inode));
}

int fsck_fix_forget(struct fsck_delta *f, uint64_t ino)
{
	struct delta_item item;
	int r = 0;

	fsck_delta_note(f, "inode %ju: what the delta had of it is lost%s", (uintmax_t)ino,
		ino <= f->info->inode_count ? "; it is as in the image again" : "");
	while (r == 0 && (r = delta_item_next(f->delta, ITEM_KEY(ino, 0), 0, &item)) == 0 && delta_item_ino(&item) == ino)
		r = fsck_fix_delete(f, item.object, item.offset);
	return r == -ENOENT ? 0 : r;
}

/* ---- one round ---- */

static void check_totals(struct fsck_delta *f, const struct delta_info *info)
{
	uint64_t files = f->info->inode_count + f->new_inodes - f->gone;

	if (info->next_ino <= f->highest || info->next_ino <= f->info->inode_count) {
		fsck_delta_problem(f, 0, "the next new inode would be number %ju, but %ju is used", (uintmax_t)info->next_ino,
			(uintmax_t)MAX(f->highest, f->info->inode_count));
		if (f->fix) {
			delta_ino_raise(f->delta, MAX(f->highest, f->info->inode_count) + 1);
			f->fixed++;
		}
	}
	if (info->files != files)
		fsck_delta_problem(f, 0, "it counts %ju files, image and delta together have %ju", (uintmax_t)info->files, (uintmax_t)files);
	if (info->files != files && f->fix && delta_begin(f->delta, 0) == 0)
		fix_end(f, delta_files_set(f->delta, files));
	if (info->items != f->report->items)
		fsck_delta_problem(f, 0, "the tree is said to have %ju items, it has %ju", (uintmax_t)info->items, (uintmax_t)f->report->items);
	f->report->new_inodes = f->new_inodes;
	f->report->gone = f->gone;
	f->report->generation = info->generation;
}

static void round_begin(struct fsck_delta *f)
{
	struct fsck_delta_report *r = f->report;

	free(f->inodes);
	free(f->uses);
	f->inodes = NULL;
	f->uses = NULL;
	f->inode_slots = f->inode_count = f->use_count = f->use_capacity = 0;
	f->highest = f->new_inodes = f->gone = f->fixed = 0;
	r->items = r->inodes = r->names = r->hidden = r->extents = r->xattrs = r->orphans = r->shared = r->content_pages = r->verified_pages =
		r->nodes = r->live_pages = 0;
	caught.set = false;
	fsck_forget_caught();
}

static int run_round(struct fsck_delta *f)
{
	struct delta_info info;
	int r;

	round_begin(f);
	delta_get_info(f->delta, &info);
	r = fsck_delta_items(f);
	if (r == 0)
		r = fsck_delta_names(f);
	if (r == 0)
		r = fsck_delta_space(f);
	if (r == 0)
		check_totals(f, &info);
	return r;
}

/* ---- superblocks, log ---- */

static int check_supers(struct fsck_delta *f, struct store *store)
{
	struct delta_super_info s[PINFS_DELTA_SUPERS];
	uint64_t newest = 0;
	int r = delta_supers_read(store, s);

	if (r < 0)
		return r;
	for (unsigned i = 0; i < PINFS_DELTA_SUPERS; i++)
		newest = s[i].valid ? MAX(newest, s[i].generation) : newest;
	/* With none at all it can't be opened; that says so. */
	for (unsigned i = 0; newest && i < PINFS_DELTA_SUPERS; i++) {
		bool first = newest == 1 && i / 2 == 0;

		if (!s[i].valid && !(first && s[i].empty))
			fsck_delta_problem(f, (uint64_t)i * PINFS_PAGE_SIZE, "superblock %u is damaged; its copy is %s", i, s[i ^ 1].valid ? "whole" : "damaged, too");
		else if (s[i].valid && i / 2 == newest % 2 && s[i].generation != newest)
			fsck_delta_note(f, "superblock %u was to be written when the last mount ended", i);
	}
	return 0;
}

static int check_log(struct fsck_delta *f)
{
	struct delta_log_end end;
	struct delta_info info;
	struct delta_salvage s;
	int r = delta_log_end(f->delta, &end);

	if (r < 0)
		return r;
	delta_get_info(f->delta, &info);
	delta_get_salvage(f->delta, &s);
	f->lost_nodes = s.lost_nodes;
	f->map_lost = s.map_lost;
	f->report->replayed = info.replayed;
	if (info.replayed)
		fsck_delta_note(f, "%ju frames of the log are to be applied: the next mount does it", (uintmax_t)info.replayed);
	if (s.cut)
		return 0;
	if (end.flushed)
		fsck_delta_problem(f, end.offset, "frame %ju of the log is damaged: it was on the disk, and %ju that followed it are lost with it", (uintmax_t)end.sequence,
			(uintmax_t)end.behind);
	else if (end.no_content)
		fsck_delta_note(f, "byte %ju: frame %ju of the log, and what followed, is left out: its content did not reach the disk", (uintmax_t)end.offset,
			(uintmax_t)end.sequence);
	else if (end.torn || end.behind)
		fsck_delta_note(f, "byte %ju: the log ends in frame %ju, which is not whole, as a power cut leaves it", (uintmax_t)end.offset, (uintmax_t)end.sequence);
	return 0;
}

/* ---- opening ---- */

static void options_fill(struct fsck_delta *f, bool write, struct delta_options *ret)
{
	*ret = (struct delta_options){
		.image_size = f->info->image_size,
		.image_inodes = f->info->inode_count,
		.read_only = !write,
		.no_thread = true,
		.salvage = true,
		.on_damage = on_open_damage,
		.context = f,
	};
	memcpy(ret->image_uuid, f->info->uuid, sizeof(ret->image_uuid));
	memcpy(ret->image_hash, f->info->content_hash, sizeof(ret->image_hash));
}

static int open_store(struct fsck_delta *f, bool write, struct store **ret)
{
	int r = f->options->open(f->options->open_context, write, ret);

	if (r < 0)
		snprintf(f->report->error, sizeof(f->report->error), "%s", r == -EBUSY ? "it is in use: a mount writes to it; unmount first" : strerror(-r));
	return r;
}

static int open_delta(struct fsck_delta *f, bool write, struct store *store)
{
	char why[DELTA_ERROR_SIZE] = "";
	struct delta_options o;
	struct delta *d;
	int r;

	options_fill(f, write, &o);
	r = delta_open(store, &o, &d, why);
	if (r < 0) {
		snprintf(f->report->error, sizeof(f->report->error), "%.400s%s", r == -EUCLEAN && f->report->errors ? "it can't be opened" : why,
			r == -EUCLEAN ? "; it can't be repaired: 'pinfs discard' gives up its changes" : "");
		store_close(store);
		return r;
	}
	f->delta = d;
	return 0;
}

static void close_delta(struct fsck_delta *f)
{
	delta_close(f->delta);
	f->delta = NULL;
}

/* Everything once, changing nothing. */
static int verify(struct fsck_delta *f)
{
	struct store *store;
	int r = open_store(f, false, &store);

	f->found = 0;
	if (r < 0)
		return r;
	if (!store_size(store)) {
		fsck_delta_note(f, "it is empty: nothing was changed so far");
		f->report->empty = true;
		store_close(store);
		return 0;
	}
	r = check_supers(f, store);
	if (r < 0) {
		store_close(store);
		return r;
	}
	r = open_delta(f, false, store);
	if (r < 0)
		return r;
	r = check_log(f);
	if (r == 0)
		r = run_round(f);
	if (r == 0 && !f->silent)
		r = fsck_delta_paths(f);
	close_delta(f);
	return r;
}

/* ---- repair ---- */

static int repair_rounds(struct fsck_delta *f)
{
	int r = 0;

	for (unsigned i = 0; r == 0 && i < ROUNDS; i++) {
		/* Content is given up last, when what refers to it is right. */
		r = run_round(f);
		if (r == 0 && f->fixed)
			r = delta_rebuild_space(f->delta);
		if (f->fixed)
			continue;
		if (f->fix_content || !f->options->give_up)
			break;
		f->fix_content = true;
	}
	return r;
}

static int repair(struct fsck_delta *f)
{
	struct store *store;
	int r = open_store(f, true, &store);

	if (r < 0)
		return r;
	f->silent = f->fix = true;
	r = open_delta(f, true, store);
	if (r < 0)
		return r;
	r = repair_rounds(f);
	if (r == 0)
		r = delta_rebuild_space(f->delta);
	if (r == 0)
		r = delta_rewrite(f->delta);
	if (r < 0 && r != -ECANCELED)
		snprintf(f->report->error, sizeof(f->report->error), "it can't be repaired: %s", strerror(-r));
	close_delta(f);
	f->fix = f->fix_content = false;
	return r;
}

static int problem_compare(const void *pa, const void *pb)
{
	const struct fsck_problem *a = pa, *b = pb;

	return a->offset != b->offset ? (a->offset < b->offset ? -1 : 1) : strcmp(a->text, b->text);
}

int fsck_delta_run(struct image *image, const struct fsck_delta_options *options, struct fsck_delta_report *ret)
{
	struct fsck_delta f = {.image = image, .info = image_get_info(image), .options = options, .report = ret};
	uint64_t start = now_ns();
	int r;

	*ret = (struct fsck_delta_report){0};
	r = verify(&f);
	ret->left = ret->errors;
	if (r == 0 && ret->errors && (options->repair || options->give_up)) {
		r = repair(&f);
		if (r == 0)
			r = verify(&f);
		ret->left = r == 0 ? f.found : ret->errors;
		ret->corrected = ret->left < ret->errors;
	}
	if (r < 0 && !ret->error[0])
		snprintf(ret->error, sizeof(ret->error), "%s", r == -ECANCELED ? "interrupted before everything was checked" : strerror(-r));
	free(f.inodes);
	free(f.uses);
	if (ret->problem_count)
		qsort(ret->problems, ret->problem_count, sizeof(*ret->problems), problem_compare);
	ret->seconds = (double)(now_ns() - start) / 1e9;
	return r;
}

void fsck_delta_report_free(struct fsck_delta_report *rep)
{
	for (size_t i = 0; i < rep->problem_count; i++)
		free(rep->problems[i].text);
	for (size_t i = 0; i < rep->affected_count; i++)
		free(rep->affected_paths[i]);
	free(rep->problems);
	free(rep->affected_paths);
	*rep = (struct fsck_delta_report){0};
}
