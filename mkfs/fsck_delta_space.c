/* SPDX-License-Identifier: MIT */
/*
 * fsck of a delta: which pages are used, by whom. Uses are sorted by their places; one sweep over them goes along with the SHARED items and with the
 * map, both of which are in that order.
 */
#include "mkfs/fsck_delta_internal.h"

/* Uses of a run of pages, all the same. */
struct run {
	uint64_t first, end;
	uint32_t content, nodes; /* how many of each; the map counts as a node */
};

/* What stands beside the sweep: where it is in the SHARED items, and in the map. */
struct sweep {
	struct fsck_delta *f;
	struct delta_item_shared shared; /* pages: 0: no more */
	struct delta_item item;		 /* of it */
	uint64_t live_first, live_end;	 /* a run of used pages; both UINT64_MAX: no more */
	bool shared_bad;
	/* What is wrong goes on in the next run: it is told once. */
	const char *telling;
	uint64_t telling_first, telling_end;
	uint32_t telling_a, telling_b;
	struct run *clashes; /* of content with nodes */
	size_t clash_count, clash_capacity;
	struct delta_item_shared *right; /* as the SHARED items should be */
	size_t right_count, right_capacity;
};

int fsck_use_add(struct fsck_delta *f, uint64_t first, uint64_t pages, unsigned kind)
{
	if (array_reserve(&f->uses, &f->use_capacity, f->use_count + 2, sizeof(*f->uses)) < 0)
		return -ENOMEM;
	f->uses[f->use_count++] = (struct use){first, 1, (uint8_t)kind};
	f->uses[f->use_count++] = (struct use){first + pages, -1, (uint8_t)kind};
	return 0;
}

static int add_place(void *context, uint64_t first, uint64_t pages, bool map)
{
	struct fsck_delta *f = context;

	f->report->nodes += !map;
	return fsck_use_add(f, first, pages, map ? 2 : 1);
}

static int use_compare(const void *pa, const void *pb)
{
	const struct use *a = pa, *b = pb;

	return a->page != b->page ? (a->page < b->page ? -1 : 1) : 0;
}

static int shared_next(struct sweep *s)
{
	struct fsck_delta *f = s->f;
	int r;

	for (;;) {
		uint64_t from = s->shared.pages ? s->item.offset + 1 : 0, end = s->shared.first + s->shared.pages;

		r = delta_item_next(f->delta, PINFS_DELTA_SHARED, from, &s->item);
		if (r == -ENOENT || (r == 0 && s->item.object != PINFS_DELTA_SHARED)) {
			s->shared = (struct delta_item_shared){.first = UINT64_MAX};
			return 0;
		}
		if (r < 0)
			return r;
		/* Those that can't be were told. */
		if (delta_item_shared(f->delta, &s->item, &s->shared) == 0) {
			if (s->shared.first < end) {
				fsck_delta_problem(f, s->item.place, "the counts of references to page %ju and to those before page %ju overlap",
					(uintmax_t)s->shared.first, (uintmax_t)end);
				s->shared_bad = true;
			}
			return 0;
		}
		fsck_delta_caught(f, 0, 0, NULL);
		s->shared = (struct delta_item_shared){s->item.offset, 1, 0};
		s->shared_bad = true;
	}
}

static void live_next(struct sweep *s)
{
	uint64_t first, pages;

	if (delta_live_next(s->f->delta, s->live_end, &first, &pages) < 0) {
		s->live_first = s->live_end = UINT64_MAX;
		return;
	}
	s->live_first = first;
	s->live_end = first + pages;
	s->f->report->live_pages += pages;
}

static void tell_flush(struct sweep *s)
{
	if (s->telling)
		fsck_delta_problem(s->f, s->telling_first * PINFS_PAGE_SIZE, s->telling, (uintmax_t)s->telling_first, (uintmax_t)(s->telling_end - 1),
			s->telling_a, s->telling_b);
	s->telling = NULL;
}

/* `what` takes the first and the last page, and two numbers. */
static void tell(struct sweep *s, const char *what, uint64_t first, uint64_t end, uint32_t a, uint32_t b)
{
	if (s->telling == what && s->telling_end == first && s->telling_a == a && s->telling_b == b) {
		s->telling_end = end;
		return;
	}
	tell_flush(s);
	s->telling = what;
	s->telling_first = first;
	s->telling_end = end;
	s->telling_a = a;
	s->telling_b = b;
}

/* Pages [first, end), about which map and SHARED items each say one thing. */
static void judge(struct sweep *s, const struct run *u, uint64_t first, uint64_t end, uint32_t refs, bool live)
{
	static const char *const messages[] = {
		"pages %ju to %ju are a node of the tree, or the map, twice or more (%u)",
		"pages %ju to %ju are content of a file, and a node of the tree or the map",
		"pages %ju to %ju: %u extents refer to them, and no count says so",
		"pages %ju to %ju: %u extents refer to them, but the count says %u",
		"pages %ju to %ju are in use, but the map calls them free",
		"pages %ju to %ju are used by nobody, but the map calls them used",
	};
	struct fsck_delta *f = s->f;

	if (u->nodes > 1)
		tell(s, messages[0], first, end, u->nodes, 0);
	if (u->nodes && u->content)
		tell(s, messages[1], first, end, 0, 0);
	if (refs != (u->content > 1 ? u->content : 0)) {
		/* A part of the tree that is lost had references, too. */
		if (!f->lost_nodes || u->content > refs)
			tell(s, refs ? messages[3] : messages[2], first, end, u->content, refs);
		s->shared_bad = true;
	}
	if (!f->map_lost && !live && (u->nodes || u->content))
		tell(s, messages[4], first, end, 0, 0);
	if (!f->map_lost && live && !u->nodes && !u->content && !f->lost_nodes)
		tell(s, messages[5], first, end, 0, 0);
}

/* Cuts a run where map or SHARED items change. */
static int sweep_run(struct sweep *s, const struct run *u)
{
	uint64_t page = u->first;
	int r = 0;

	while (r == 0 && page < u->end) {
		uint64_t end = u->end;
		uint32_t refs = 0;
		bool live = false;

		while (r == 0 && s->shared.first != UINT64_MAX && s->shared.first + s->shared.pages <= page)
			r = shared_next(s);
		while (s->live_end <= page && s->live_end != UINT64_MAX)
			live_next(s);
		if (r < 0)
			break;
		if (s->shared.first <= page && s->shared.first != UINT64_MAX) {
			refs = s->shared.refs;
			end = MIN(end, s->shared.first + s->shared.pages);
		} else {
			end = MIN(end, s->shared.first);
		}
		if (s->live_first <= page && s->live_first != UINT64_MAX) {
			live = true;
			end = MIN(end, s->live_end);
		} else {
			end = MIN(end, s->live_first);
		}
		judge(s, u, page, end, refs, live);
		page = end;
	}
	if (r == 0 && u->nodes && u->content) {
		if (array_reserve(&s->clashes, &s->clash_capacity, s->clash_count + 1, sizeof(*u)) < 0)
			return -ENOMEM;
		s->clashes[s->clash_count++] = *u;
	}
	if (r == 0 && u->content > 1) {
		if (array_reserve(&s->right, &s->right_capacity, s->right_count + 1, sizeof(*s->right)) < 0)
			return -ENOMEM;
		s->right[s->right_count++] = (struct delta_item_shared){u->first, u->end - u->first, u->content};
	}
	return r;
}

static int sweep_all(struct sweep *s)
{
	struct fsck_delta *f = s->f;
	struct run u = {0};
	int r = shared_next(s);

	live_next(s);
	for (size_t i = 0; r == 0 && i <= f->use_count; i++) {
		uint64_t page = i < f->use_count ? f->uses[i].page : UINT64_MAX;

		if (page != u.first) {
			u.end = page;
			r = sweep_run(s, &u);
			u.first = page;
		}
		if (i == f->use_count)
			break;
		if (f->uses[i].kind)
			u.nodes += (uint32_t)f->uses[i].change;
		else
			u.content += (uint32_t)f->uses[i].change;
	}
	tell_flush(s);
	return r;
}

/* ---- repairs ---- */

/* Content that lies where a node does can't be its own. */
static int fix_clashes(struct sweep *s)
{
	_cleanup_free_ struct delta_item *item = malloc(sizeof(*item));
	uint64_t object = 0, offset = 0;
	struct fsck_delta *f = s->f;
	int r = item ? 0 : -ENOMEM;

	while (r == 0 && s->clash_count && (r = delta_item_next(f->delta, object, offset, item)) == 0) {
		struct delta_item_extent e;
		bool clash = false;

		if (delta_item_ino(item) && delta_item_type(item) == PINFS_DELTA_EXTENT && delta_item_extent(f->delta, item, &e) == 0)
			for (size_t i = 0; i < s->clash_count; i++)
				clash |= e.first < s->clashes[i].end && e.first + e.stored > s->clashes[i].first;
		if (clash) {
			r = fsck_fix_delete(f, item->object, item->offset);
			fsck_delta_note(f, "inode %ju: content from page %ju on is lost: its place was used for something else",
				(uintmax_t)delta_item_ino(item), (uintmax_t)item->offset);
		}
		object = item->object + (item->offset == UINT64_MAX);
		offset = item->offset + 1;
	}
	return r == -ENOENT ? 0 : r;
}

static int fix_shared(struct sweep *s)
{
	struct fsck_delta *f = s->f;
	struct delta_item item;
	int r;

	while ((r = delta_item_next(f->delta, PINFS_DELTA_SHARED, 0, &item)) == 0 && item.object == PINFS_DELTA_SHARED) {
		r = fsck_fix_delete(f, item.object, item.offset);
		if (r < 0)
			return r;
	}
	for (size_t i = 0; (r == 0 || r == -ENOENT) && i < s->right_count; i++) {
		struct pinfs_delta_shared raw = {pinfs_put32((uint32_t)s->right[i].pages), pinfs_put32(s->right[i].refs)};

		r = delta_begin(f->delta, 0);
		if (r < 0)
			break;
		r = delta_item_put(f->delta, PINFS_DELTA_SHARED, s->right[i].first, &raw, sizeof(raw));
		if (r == 0)
			r = delta_commit(f->delta);
		else
			delta_abort(f->delta);
		f->fixed++;
	}
	return r == -ENOENT ? 0 : r;
}

int fsck_delta_space(struct fsck_delta *f)
{
	_cleanup_free_ struct sweep *s = calloc(1, sizeof(*s));
	int r = s ? delta_walk_places(f->delta, add_place, f) : -ENOMEM;

	if (r < 0)
		return r;
	s->f = f;
	if (f->use_count)
		qsort(f->uses, f->use_count, sizeof(*f->uses), use_compare);
	r = sweep_all(s);
	if (r == 0 && f->fix && s->clash_count)
		r = fix_clashes(s);
	else if (r == 0 && f->fix && s->shared_bad)
		r = fix_shared(s);
	free(s->clashes);
	free(s->right);
	return r;
}
