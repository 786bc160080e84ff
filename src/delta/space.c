/* SPDX-License-Identifier: MIT */
#include "delta/space.h"

#include <assert.h>

#include "base/mem.h"
#include "pinfs/format.h"

/* How much is asked of the disk at once: a share of what is there; while the disk is nearly full, less and less. */
#define BACK_MOST 4096u
#define BACK_START 64u
#define BACK_SHARE 8u
#define BACK_LEAST 16u
#define ZERO_PAGES 64u
#define WORD 64u

struct space {
	struct store *store;
	uint64_t first, limit;
	/* One bit for each page, in words. */
	uint64_t *live, *held, *flight; /* held: used by the checkpoint that is durable */
	uint64_t *released, *leaving;	/* freed since the last checkpoint was frozen, and before that */
	uint64_t *punching;		/* between space_trim_begin() and space_trim_end() */
	uint64_t *backed;		/* the disk has promised it */
	uint64_t words;			/* in each of them */
	uint64_t bits;			/* pages up to the last one that was ever taken, or backed */
	uint64_t live_count, taken_count, flight_count;
	uint64_t waiting; /* released since the last checkpoint was frozen */
	uint64_t ready;	   /* free and backed */
	uint64_t reserved; /* of those, promised */
	uint64_t hint;	   /* word where a search begins */
	uint64_t own;	   /* pages kept for the next checkpoint: its nodes and map are written before the old ones are free */
	bool unsure;	   /* the disk promises nothing: what was written once is as good */
	bool looked;	   /* what already has its place on the disk counts as backed */
};

static bool bit_get(const uint64_t *map, uint64_t page)
{
	return map[page / WORD] >> page % WORD & 1;
}

static uint64_t taken_word(const struct space *s, uint64_t w)
{
	return s->live[w] | s->held[w] | s->flight[w] | s->released[w] | s->leaving[w] | s->punching[w];
}

static bool page_taken(const struct space *s, uint64_t page)
{
	return taken_word(s, page / WORD) >> page % WORD & 1;
}

int space_new(struct store *store, uint64_t first, uint64_t limit, struct space **ret)
{
	struct space *s = mem_alloc(sizeof(*s));

	if (!s)
		return -ENOMEM;
	s->store = store;
	s->first = first;
	s->limit = limit ? MAX(limit, first) : (uint64_t)INT64_MAX / PINFS_PAGE_SIZE;
	s->bits = first;
	s->hint = first / WORD;
	*ret = s;
	return 0;
}

void space_free_all(struct space *s)
{
	if (!s)
		return;
	mem_free(s->live);
	mem_free(s->held);
	mem_free(s->flight);
	mem_free(s->released);
	mem_free(s->leaving);
	mem_free(s->punching);
	mem_free(s->backed);
	mem_free(s);
}

static int grow_one(uint64_t **map, uint64_t old, uint64_t words)
{
	uint64_t *larger = mem_alloc(words * sizeof(uint64_t));

	if (!larger)
		return -ENOMEM;
	if (old)
		memcpy(larger, *map, old * sizeof(uint64_t));
	mem_free(*map);
	*map = larger;
	return 0;
}

/* Room in the maps for so many pages. */
static int maps_grow(struct space *s, uint64_t pages)
{
	uint64_t words = MAX(DIV_ROUND_UP(pages, WORD), s->words * 2);

	if (pages <= s->words * WORD)
		return 0;
	/* One that has grown before another one fails stays larger: no harm. */
	if (grow_one(&s->live, s->words, words) || grow_one(&s->held, s->words, words) ||
		grow_one(&s->flight, s->words, words) || grow_one(&s->backed, s->words, words) ||
		grow_one(&s->released, s->words, words) || grow_one(&s->leaving, s->words, words) || grow_one(&s->punching, s->words, words))
		return -ENOMEM;
	s->words = words;
	return 0;
}

/* ---- what the disk has promised ---- */

static void back_pages(struct space *s, uint64_t first, uint64_t pages)
{
	for (uint64_t p = first; p < first + pages; p++) {
		if (bit_get(s->backed, p))
			continue;
		s->backed[p / WORD] |= 1ull << p % WORD;
		if (!page_taken(s, p))
			s->ready++;
	}
	s->bits = MAX(s->bits, first + pages);
	/* They may lie before all that could be handed out so far. */
	s->hint = MIN(s->hint, first / WORD);
}

/* The first run of pages that are free but not backed, at most `most` long; the end of the delta counts. */
static uint64_t find_unbacked(const struct space *s, uint64_t most, uint64_t *ret)
{
	uint64_t end = MIN(s->bits, s->limit), p = s->first;

	for (; p < end; p++) {
		uint64_t w = p / WORD, n = 0;

		if (p % WORD == 0 && (taken_word(s, w) | s->backed[w]) == UINT64_MAX) {
			p += WORD - 1;
			continue;
		}
		while (n < most && p + n < end && !page_taken(s, p + n) && !bit_get(s->backed, p + n))
			n++;
		if (!n)
			continue;
		/* It may go on behind all that was ever used. */
		if (p + n == end)
			n = MIN(most, s->limit - p);
		*ret = p;
		return n;
	}
	*ret = p;
	return MIN(most, s->limit - p);
}

/*
 * Free pages that the file has from earlier: its owner before a crash, or this one, had them promised. Some filesystems want as much free space
 * again as they are asked to promise, even if it is there (XFS), so where there is none left, this is the only way to know.
 */
static bool back_placed(struct space *s)
{
	uint64_t at = s->first * PINFS_PAGE_SIZE, end = MIN(s->limit, store_size(s->store) / PINFS_PAGE_SIZE), before = s->ready, first, len;

	if (s->looked || maps_grow(s, end) < 0)
		return false;
	s->looked = true;
	while (store_placed(s->store, at, &first, &len) == 0) {
		uint64_t from = DIV_ROUND_UP(first, PINFS_PAGE_SIZE), to = MIN((first + len) / PINFS_PAGE_SIZE, end);

		if (from < to)
			back_pages(s, from, to - from);
		if (to >= end)
			break;
		at = first + len;
	}
	return s->ready > before;
}

/* Where nobody promises a place, bytes have one once they are written. What is written instead later goes over them in memory, mostly. */
static int write_zeroes(struct space *s, uint64_t first, uint64_t pages)
{
	uint64_t most = MIN(pages, (uint64_t)ZERO_PAGES), n;
	uint8_t *zeroes = mem_alloc((size_t)most * PINFS_PAGE_SIZE);
	int r = zeroes ? 0 : -ENOMEM;

	for (; r == 0 && pages; first += n, pages -= n) {
		n = MIN(pages, most);
		r = store_write(s->store, first * PINFS_PAGE_SIZE, zeroes, (size_t)n * PINFS_PAGE_SIZE);
	}
	mem_free(zeroes);
	return r;
}

static int promise(struct space *s, uint64_t first, uint64_t pages)
{
	int r = s->unsure ? -EOPNOTSUPP : store_allocate(s->store, first * PINFS_PAGE_SIZE, pages * PINFS_PAGE_SIZE);

	if (r != -EOPNOTSUPP)
		return r;
	s->unsure = true;
	return write_zeroes(s, first, pages);
}

/* Has the disk promise some more pages. */
static int back_more(struct space *s, uint64_t want)
{
	uint64_t share = MIN(MAX(s->taken_count / BACK_SHARE, (uint64_t)BACK_START), (uint64_t)BACK_MOST);
	uint64_t most = MIN(MAX(want, share), (uint64_t)BACK_MOST * 16), first, n;
	int r;

	for (;;) {
		n = find_unbacked(s, most, &first);
		if (!n)
			return -ENOSPC;
		r = maps_grow(s, first + n);
		if (r < 0)
			return r;
		r = promise(s, first, n);
		if (r == 0) {
			back_pages(s, first, n);
			return 0;
		}
		/* As much as there is left, then nothing more. A limit of files' sizes (EFBIG) is like one of the disk's. */
		if (r != -ENOSPC && r != -EDQUOT && r != -EFBIG)
			return r;
		if (back_placed(s))
			return 0;
		if (n <= BACK_LEAST)
			return r;
		most = MAX(n / 4, (uint64_t)BACK_LEAST);
	}
}

static int back_enough(struct space *s, uint64_t pages)
{
	while (s->ready < pages) {
		int r = back_more(s, pages - s->ready);

		if (r < 0)
			return r == -EFBIG ? -ENOSPC : r;
	}
	return 0;
}

int space_reserve(struct space *s, uint64_t pages)
{
	int r = back_enough(s, s->reserved + s->own + pages);

	if (r == 0)
		s->reserved += pages;
	return r;
}

int space_reserve_last(struct space *s)
{
	if (s->ready <= s->reserved)
		return -ENOSPC;
	s->reserved++;
	return 0;
}

int space_set_own(struct space *s, uint64_t pages)
{
	s->own = pages;
	/* A writer whose pages are in flight has not given up the promise so far: they would count twice. */
	return back_enough(s, s->reserved - MIN(s->reserved, s->flight_count) + pages);
}

uint64_t space_ready(const struct space *s)
{
	return s->ready;
}

void space_unreserve(struct space *s, uint64_t pages)
{
	assert(s->reserved >= pages);
	s->reserved -= pages;
}

/* ---- taking and giving up ---- */

static void set_bits(struct space *s, uint64_t *map, uint64_t first, uint64_t pages)
{
	for (uint64_t p = first; p < first + pages; p++) {
		if (!page_taken(s, p)) {
			s->taken_count++;
			s->ready -= bit_get(s->backed, p);
		}
		map[p / WORD] |= 1ull << p % WORD;
	}
	s->bits = MAX(s->bits, first + pages);
}

static void clear_bits(struct space *s, uint64_t *map, uint64_t first, uint64_t pages)
{
	for (uint64_t p = first; p < first + pages; p++) {
		map[p / WORD] &= ~(1ull << p % WORD);
		if (!page_taken(s, p)) {
			s->taken_count--;
			s->ready += bit_get(s->backed, p);
		}
	}
	/* What lies low is used again first, so that the end can be given back. */
	s->hint = MIN(s->hint, first / WORD);
}

static bool usable(const struct space *s, uint64_t page)
{
	return !page_taken(s, page) && bit_get(s->backed, page);
}

uint64_t space_alloc(struct space *s, uint64_t want, uint64_t least, uint64_t *ret)
{
	uint64_t end = MIN(MIN(s->bits, s->limit), s->words * WORD), best = 0, best_len = 0;
	uint64_t first_free = UINT64_MAX;

	for (uint64_t p = MAX(s->hint * WORD, s->first); p < end && best_len < want;) {
		uint64_t w = p / WORD, n = 0;

		if (p % WORD == 0 && (taken_word(s, w) | ~s->backed[w]) == UINT64_MAX) {
			p += WORD;
			continue;
		}
		while (n < want && p + n < end && usable(s, p + n))
			n++;
		if (n && first_free == UINT64_MAX)
			first_free = p;
		if (n > best_len) {
			best = p;
			best_len = n;
		}
		p += n + 1;
	}
	/* Nothing lies before the first free page: the next search begins there. */
	if (first_free != UINT64_MAX)
		s->hint = first_free / WORD;
	if (best_len < least || !best_len)
		return 0;
	set_bits(s, s->flight, best, best_len);
	s->flight_count += best_len;
	*ret = best;
	return best_len;
}

int space_alloc_run(struct space *s, uint64_t pages, uint64_t *ret)
{
	int r;

	while (!space_alloc(s, pages, pages, ret)) {
		r = back_more(s, pages);
		if (r < 0)
			return r == -EFBIG ? -ENOSPC : r;
	}
	return 0;
}

void space_cancel(struct space *s, uint64_t first, uint64_t pages)
{
	clear_bits(s, s->flight, first, pages);
	s->flight_count -= pages;
}

bool space_live(struct space *s, uint64_t first, uint64_t pages)
{
	if (first < s->first || pages > s->limit || first > s->limit - pages || maps_grow(s, first + pages) < 0)
		return false;
	for (uint64_t p = first; p < first + pages; p++)
		if (bit_get(s->live, p))
			return false;
	set_bits(s, s->live, first, pages);
	for (uint64_t p = first; p < first + pages; p++) {
		/* What was written has its place. */
		s->backed[p / WORD] |= 1ull << p % WORD;
		if (bit_get(s->flight, p)) {
			s->flight[p / WORD] &= ~(1ull << p % WORD);
			s->flight_count--;
		}
	}
	s->live_count += pages;
	return true;
}

bool space_free(struct space *s, uint64_t first, uint64_t pages)
{
	if (pages > s->words * WORD || first > s->words * WORD - pages)
		return false;
	for (uint64_t p = first; p < first + pages; p++)
		if (!bit_get(s->live, p))
			return false;
	clear_bits(s, s->live, first, pages);
	s->live_count -= pages;
	return true;
}

bool space_release(struct space *s, uint64_t first, uint64_t pages)
{
	if (!space_free(s, first, pages))
		return false;
	set_bits(s, s->released, first, pages);
	s->waiting += pages;
	return true;
}

uint64_t space_waiting(const struct space *s)
{
	return s->waiting;
}

void space_unfree(struct space *s, uint64_t first, uint64_t pages)
{
	set_bits(s, s->live, first, pages);
	s->live_count += pages;
	clear_bits(s, s->released, first, pages);
	s->waiting -= pages;
}

void space_unlive(struct space *s, uint64_t first, uint64_t pages)
{
	set_bits(s, s->flight, first, pages);
	s->flight_count += pages;
	clear_bits(s, s->live, first, pages);
	s->live_count -= pages;
}

bool space_is_live(const struct space *s, uint64_t page)
{
	return page < s->words * WORD && bit_get(s->live, page);
}

/* ---- checkpoints ---- */

uint64_t space_bits(const struct space *s)
{
	return MIN(s->bits, s->words * WORD);
}

void space_snapshot(const struct space *s, uint64_t bits, uint8_t *map)
{
	size_t bytes = space_map_bytes(bits);

	memset(map, 0, bytes);
	for (uint64_t w = 0; w < s->words && w * 8 < bytes; w++) {
		uint64_t le = htole64(s->live[w]);

		memcpy(map + w * 8, &le, MIN((size_t)8, bytes - w * 8));
	}
}

static uint64_t map_word(const uint8_t *map, uint64_t bits, uint64_t w)
{
	size_t bytes = space_map_bytes(bits);
	uint64_t le = 0;

	if (w * 8 < bytes)
		memcpy(&le, map + w * 8, MIN((size_t)8, bytes - w * 8));
	return le64toh(le);
}

static void recount(struct space *s)
{
	s->live_count = s->taken_count = s->flight_count = s->ready = 0;
	for (uint64_t w = 0; w < s->words; w++) {
		uint64_t taken = taken_word(s, w);

		s->live_count += (uint64_t)__builtin_popcountll(s->live[w]);
		s->flight_count += (uint64_t)__builtin_popcountll(s->flight[w]);
		s->taken_count += (uint64_t)__builtin_popcountll(taken);
		s->ready += (uint64_t)__builtin_popcountll(s->backed[w] & ~taken);
	}
}

void space_frozen(struct space *s)
{
	/* After one that failed there is something in both. */
	for (uint64_t w = 0; w < s->words; w++) {
		s->leaving[w] |= s->released[w];
		s->released[w] = 0;
	}
	s->waiting = 0;
}

void space_checkpointed(struct space *s, const uint8_t *map, uint64_t bits)
{
	for (uint64_t w = 0; w < s->words; w++) {
		s->held[w] = map_word(map, bits, w);
		s->leaving[w] = 0;
	}
	s->hint = s->first / WORD;
	recount(s);
}

int space_load(struct space *s, const uint8_t *map, uint64_t bits)
{
	int r = maps_grow(s, bits);

	if (r < 0)
		return r;
	for (uint64_t w = 0; w < s->words; w++)
		s->live[w] = s->held[w] = s->backed[w] = map_word(map, bits, w);
	s->bits = MAX(s->bits, bits);
	s->hint = s->first / WORD;
	recount(s);
	return 0;
}

/* ---- giving back ---- */

/* So many at once: others may want them, or wait for the disk. */
#define TRIM_MOST 16384u

uint64_t space_trim_begin(struct space *s, uint64_t first, uint64_t *end, uint64_t least, uint64_t keep, bool all, uint64_t *ret)
{
	uint64_t kept = s->reserved + s->own + keep, spare = s->ready > kept ? s->ready - kept : 0, p = MIN(*end, space_bits(s));

	first = MAX(first, s->first);
	while (p > first) {
		uint64_t n = 0, backed = 0;

		if (p % WORD == 0 && p - first >= WORD && taken_word(s, p / WORD - 1) == UINT64_MAX) {
			p -= WORD;
			continue;
		}
		while (n < TRIM_MOST && p - n > first && !page_taken(s, p - n - 1)) {
			bool is = bit_get(s->backed, p - n - 1);

			if (is ? backed == spare : !all)
				break;
			backed += is;
			n++;
		}
		if (n && n >= least) {
			set_bits(s, s->punching, p - n, n);
			*end = *ret = p - n;
			return n;
		}
		p -= MIN(n + 1, p - first);
	}
	*end = first;
	return 0;
}

void space_trim_end(struct space *s, uint64_t first, uint64_t pages, bool given)
{
	for (uint64_t p = first; given && p < first + pages; p++)
		s->backed[p / WORD] &= ~(1ull << p % WORD);
	clear_bits(s, s->punching, first, pages);
}

void space_get_stats(struct space *s, struct space_stats *ret)
{
	uint64_t available = 0, free, in_limit = s->limit - s->first, used = s->taken_count;

	if (store_available(s->store, &available) < 0)
		available = 0;
	free = s->ready + available / PINFS_PAGE_SIZE;
	free = MIN(free, in_limit - MIN(in_limit, used));
	*ret = (struct space_stats){
		.live = s->live_count,
		.pending = s->taken_count - s->live_count - s->flight_count,
		.flight = s->flight_count,
		.reserved = s->reserved,
		.free = free - MIN(free, s->reserved + s->own),
		.bits = s->bits,
		.backed = s->ready,
	};
}

/* ---- for fsck ---- */

uint64_t space_live_next(const struct space *s, uint64_t page, uint64_t *ret)
{
	uint64_t end = s->words * WORD, n = 0;

	while (page < end && !bit_get(s->live, page))
		page += page % WORD == 0 && !s->live[page / WORD] ? WORD : 1;
	while (page + n < end && bit_get(s->live, page + n))
		n++;
	*ret = page;
	return n;
}

int space_rebuild(struct space *s, const uint8_t *map, uint64_t bits, uint64_t end)
{
	int r = maps_grow(s, MAX(bits, end));

	if (r < 0)
		return r;
	for (uint64_t w = 0; w < s->words; w++) {
		s->live[w] = map_word(map, bits, w);
		s->backed[w] |= s->live[w];
	}
	for (uint64_t p = s->first; p < end; p++)
		s->held[p / WORD] |= 1ull << p % WORD;
	s->bits = MAX(s->bits, MAX(bits, end));
	recount(s);
	/* What was promised lay there, perhaps. */
	return back_enough(s, s->reserved + s->own);
}
