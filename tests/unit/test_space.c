/* SPDX-License-Identifier: MIT */
/* space against an array with the state of each page: what is handed out is nobody's, counters add up, a full disk and a limit are known in time. */
#include "support.h"

#include "delta/space.h"
#include "memstore.h"

#define FIRST 100u
#define PAGES 3000u

enum state { FREE, FLIGHT, LIVE };

struct model {
	struct space *s;
	struct memstore m;
	struct store *store;
	struct rng rng;
	uint64_t limit;
	enum state state[PAGES];
	bool held[PAGES], drawn[PAGES]; /* by the checkpoint that is durable; by the one that is being made */
	bool drawing;
	uint64_t drawn_bits;
	uint8_t map[PAGES];
	uint64_t reserved, own;
	bool refuses; /* the disk promises nothing */
};

static void model_begin(struct model *md, uint64_t seed, uint64_t capacity, uint64_t limit)
{
	*md = (struct model){.rng = {seed}, .limit = limit};
	memstore_init(&md->m, capacity);
	md->store = memstore_open(&md->m);
	must(space_new(md->store, FIRST, limit, &md->s) == 0);
}

static void model_end(struct model *md)
{
	space_free_all(md->s);
	store_close(md->store);
	memstore_destroy(&md->m);
}

static void check(struct model *md)
{
	uint64_t live = 0, flight = 0, pending = 0, usable = 0;
	struct space_stats stats;

	for (unsigned p = 0; p < PAGES; p++) {
		live += md->state[p] == LIVE;
		flight += md->state[p] == FLIGHT;
		pending += md->state[p] == FREE && md->held[p];
		must(space_is_live(md->s, p) == (md->state[p] == LIVE));
		usable += p >= FIRST && md->state[p] == FREE && !md->held[p];
	}
	space_get_stats(md->s, &stats);
	must(stats.live == live && stats.flight == flight && stats.pending == pending && stats.reserved == md->reserved);
	must(stats.backed == space_ready(md->s));
	/* Promises are kept. */
	must(stats.backed >= md->reserved || md->own);
	if (md->limit)
		must(stats.free + stats.reserved <= usable && stats.bits <= md->limit);
	must(stats.free <= UINT32_MAX);
}

/* Pages that were handed out: nobody's, and the disk has them. */
static void take(struct model *md, uint64_t first, uint64_t n)
{
	must(!n || (first >= FIRST && first + n <= PAGES && (!md->limit || first + n <= md->limit)));
	for (uint64_t p = first; p < first + n; p++) {
		must(md->state[p] == FREE && !md->held[p]);
		must(md->refuses || (p < md->m.count && md->m.backed[p]));
		md->state[p] = FLIGHT;
	}
}

/* Gives back all that there is, in runs of at least `least`, but `keep` pages. */
static int trim(struct model *md, uint64_t least, uint64_t keep, uint64_t *ret)
{
	uint64_t end = UINT64_MAX, first, n;
	int r = 0;

	*ret = 0;
	while (r == 0 && (n = space_trim_begin(md->s, 0, &end, least, keep, true, &first)) > 0) {
		/* Nobody gets them meanwhile, and nobody has them. */
		for (uint64_t p = first; p < first + n; p++)
			must(p >= FIRST && !space_is_live(md->s, p));
		r = store_punch(md->store, first * PINFS_PAGE_SIZE, n * PINFS_PAGE_SIZE);
		space_trim_end(md->s, first, n, r == 0);
		*ret += r == 0 ? n : 0;
	}
	return r;
}

/* A run of pages of one state, from a random one on. */
static uint64_t run_of(struct model *md, enum state state, uint64_t *ret)
{
	uint64_t at = FIRST + rng_below(&md->rng, PAGES - FIRST), n = 0, most = 1 + rng_below(&md->rng, 20);

	for (unsigned i = 0; i < PAGES && md->state[at] != state; i++)
		at = at + 1 < PAGES ? at + 1 : FIRST;
	while (n < most && at + n < PAGES && md->state[at + n] == state)
		n++;
	*ret = at;
	return n;
}

static void set(struct model *md, uint64_t first, uint64_t n, enum state state)
{
	for (uint64_t p = first; p < first + n; p++)
		md->state[p] = state;
}

static void draw(struct model *md)
{
	md->drawn_bits = space_bits(md->s);
	must(space_map_bytes(md->drawn_bits) <= sizeof(md->map));
	space_snapshot(md->s, md->drawn_bits, md->map);
	for (unsigned p = 0; p < PAGES; p++) {
		md->drawn[p] = md->state[p] == LIVE;
		if (p < md->drawn_bits)
			must((md->map[p / 8] >> p % 8 & 1) == md->drawn[p]);
		else
			must(!md->drawn[p]);
	}
	md->drawing = true;
}

static void step(struct model *md)
{
	uint64_t first = 0, n, want = 1 + rng_below(&md->rng, 40), least, given;
	int r;

	switch (rng_below(&md->rng, 12)) {
	case 0:
		r = space_reserve(md->s, want);
		must(r == 0 || r == -ENOSPC);
		md->reserved += r == 0 ? want : 0;
		break;
	case 1:
		n = MIN(want, md->reserved);
		space_unreserve(md->s, n);
		md->reserved -= n;
		break;
	case 2:
	case 3:
		/* As who writes: no more than was promised to him. */
		want = MIN(want, md->reserved);
		least = 1 + rng_below(&md->rng, want + 1);
		n = want ? space_alloc(md->s, want, least, &first) : 0;
		must(n == 0 || (n >= least && n <= want));
		take(md, first, n);
		space_unreserve(md->s, n);
		md->reserved -= n;
		/* One page there is, if it was promised. */
		if (want && least == 1)
			must(n);
		break;
	case 4:
		n = run_of(md, FLIGHT, &first);
		space_cancel(md->s, first, n);
		set(md, first, n, FREE);
		break;
	case 5:
	case 6:
		n = run_of(md, FLIGHT, &first);
		must(!n || space_live(md->s, first, n));
		set(md, first, n, LIVE);
		break;
	case 7:
		n = run_of(md, LIVE, &first);
		if (!n)
			break;
		must(space_free(md->s, first, n));
		/* Undone, or not; not twice in any case. */
		must(!space_free(md->s, first, n));
		if (rng_below(&md->rng, 3) == 0)
			space_unfree(md->s, first, n);
		else
			set(md, first, n, FREE);
		break;
	case 8:
		n = run_of(md, LIVE, &first);
		must(!n || !space_live(md->s, first, n));
		if (n && rng_below(&md->rng, 4) == 0) {
			space_unlive(md->s, first, n);
			set(md, first, n, FLIGHT);
		}
		break;
	case 9:
		if (!md->drawing) {
			draw(md);
			break;
		}
		space_checkpointed(md->s, md->map, md->drawn_bits);
		memcpy(md->held, md->drawn, sizeof(md->held));
		md->drawing = false;
		break;
	case 10:
		r = trim(md, want, 0, &given);
		must(r == 0);
		break;
	default:
		r = space_set_own(md->s, want);
		must(r == 0 || r == -ENOSPC);
		md->own = want;
	}
}

static void run_model(uint64_t seed, uint64_t capacity, uint64_t limit, bool refuses)
{
	struct model md;

	model_begin(&md, seed, capacity, limit);
	md.refuses = refuses;
	if (refuses)
		memstore_fail(&md.m, MEM_ALLOCATE, 1, -EOPNOTSUPP, true);
	for (unsigned i = 0; i < 6000; i++) {
		step(&md);
		check(&md);
	}
	model_end(&md);
}

static void what_is_handed_out_is_free_and_all_adds_up(void **state)
{
	run_model(1, 1500, 0, false);
	run_model(2, 0, 1000, false);
	run_model(3, 400, 0, false);
	run_model(4, 300, 500, false);
	run_model(5, 0, 1200, true);
}

static void a_map_that_was_drawn_is_the_same_when_it_is_loaded(void **state)
{
	struct model md;
	uint64_t first;

	model_begin(&md, 6, 1500, 0);
	for (unsigned i = 0; i < 3000; i++) {
		step(&md);
		check(&md);
	}
	draw(&md);
	space_free_all(md.s);
	must(space_new(md.store, FIRST, 0, &md.s) == 0);
	assert_int_equal(space_load(md.s, md.map, md.drawn_bits), 0);
	for (unsigned p = 0; p < PAGES; p++) {
		md.held[p] = md.drawn[p];
		md.state[p] = md.drawn[p] ? LIVE : FREE;
	}
	md.reserved = md.own = 0;
	check(&md);
	/* Nothing of it is handed out, though it is freed, before the next checkpoint. */
	for (unsigned p = FIRST; p < PAGES; p++)
		if (md.state[p] == LIVE && p % 2) {
			must(space_free(md.s, p, 1));
			md.state[p] = FREE;
		}
	while (space_reserve(md.s, 1) == 0) {
		md.reserved++;
		must(space_alloc(md.s, 1, 1, &first) == 1);
		take(&md, first, 1);
		space_unreserve(md.s, 1);
		md.reserved--;
	}
	check(&md);
	model_end(&md);
}

static void the_own_reserve_is_kept_back_and_its_last_page_can_be_had(void **state)
{
	struct model md;
	uint64_t got = 0;

	model_begin(&md, 7, 200, 0);
	assert_int_equal(space_set_own(md.s, 50), 0);
	while (space_reserve(md.s, 1) == 0)
		got++;
	/* The disk is not asked for its very last pages one by one. */
	assert_in_range(got, 150 - 16, 150);
	/* Those of the reserve, one by one. */
	for (unsigned i = 0; i < 50; i++)
		assert_int_equal(space_reserve_last(md.s), 0);
	assert_int_equal(space_reserve_last(md.s), -ENOSPC);
	space_unreserve(md.s, got + 50);
	/* More than there is: it keeps what there is. */
	assert_int_equal(space_set_own(md.s, 500), -ENOSPC);
	assert_int_equal(space_reserve(md.s, 1), -ENOSPC);
	assert_int_equal(space_set_own(md.s, 0), 0);
	assert_int_equal(space_reserve(md.s, got + 50), 0);
	assert_int_equal(space_reserve(md.s, 1), -ENOSPC);
	model_end(&md);
}

static void room_that_comes_later_is_found(void **state)
{
	struct model md;
	uint64_t first;

	model_begin(&md, 8, 64, 0);
	assert_int_equal(space_reserve(md.s, 64), 0);
	assert_int_equal(space_reserve(md.s, 1), -ENOSPC);
	md.m.capacity = 96;
	assert_int_equal(space_reserve(md.s, 32), 0);
	assert_int_equal(space_reserve(md.s, 1), -ENOSPC);
	assert_int_equal(space_alloc_run(md.s, 96, &first), 0);
	space_unreserve(md.s, 96);
	{
		uint64_t none;

		assert_int_equal(space_alloc_run(md.s, 1, &none), -ENOSPC);
	}
	must(space_live(md.s, first, 96));
	must(space_free(md.s, first, 96));
	/* Nothing that a checkpoint refers to: free at once. */
	assert_int_equal(space_reserve(md.s, 96), 0);
	model_end(&md);
}

static void errors_of_the_disk_are_told_and_promise_nothing(void **state)
{
	static const struct {
		int error, want;
	} cases[] = {{-EIO, -EIO}, {-EDQUOT, -EDQUOT}, {-EFBIG, -ENOSPC}, {-ENOSPC, -ENOSPC}, {-EROFS, -EROFS}};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct space_stats stats;
		struct model md;

		model_begin(&md, 9, 0, 0);
		memstore_fail(&md.m, MEM_ALLOCATE, 1, cases[i].error, true);
		assert_int_equal(space_reserve(md.s, 10), cases[i].want);
		space_get_stats(md.s, &stats);
		assert_int_equal(stats.reserved, 0);
		assert_int_equal(stats.backed, 0);
		memstore_fail(&md.m, MEM_ALLOCATE, 0, 0, false);
		assert_int_equal(space_reserve(md.s, 10), 0);
		model_end(&md);
	}
}

static void what_is_given_back_is_holes_and_never_what_was_promised(void **state)
{
	struct model md;
	uint64_t first, given;

	model_begin(&md, 10, 1000, 0);
	assert_int_equal(space_alloc_run(md.s, 300, &first), 0);
	must(space_live(md.s, first, 300));
	/* Every third run of ten stays. */
	for (uint64_t p = first; p < first + 300; p += 10)
		if (p / 10 % 3)
			must(space_free(md.s, p, 10));
	assert_int_equal(space_reserve(md.s, 150), 0);
	assert_int_equal(trim(&md, 5, 0, &given), 0);
	assert_true(space_ready(md.s) >= 150);
	space_unreserve(md.s, 150);
	assert_int_equal(trim(&md, 5, 0, &given), 0);
	assert_int_equal(space_ready(md.s), 0);
	for (uint64_t p = first; p < first + 300; p++)
		assert_int_equal(md.m.backed[p], space_is_live(md.s, p));
	/* A punch that fails is no harm. */
	assert_int_equal(space_reserve(md.s, 100), 0);
	space_unreserve(md.s, 100);
	given = space_ready(md.s);
	memstore_fail(&md.m, MEM_PUNCH, 1, -EOPNOTSUPP, true);
	assert_int_equal(trim(&md, 1, 0, &first), -EOPNOTSUPP);
	assert_int_equal(space_ready(md.s), given);
	model_end(&md);
}

static void what_is_given_back_leaves_a_reserve_and_is_nobodys_meanwhile(void **state)
{
	struct model md;
	uint64_t first, end = UINT64_MAX, at, n, other, given;

	model_begin(&md, 12, 1000, 0);
	assert_int_equal(space_alloc_run(md.s, 400, &first), 0);
	must(space_live(md.s, first, 400));
	must(space_free(md.s, first, 400));
	given = space_ready(md.s);
	assert_true(given >= 400);
	assert_int_equal(trim(&md, 1, 100, &n), 0);
	assert_int_equal(space_ready(md.s), 100);
	assert_int_equal(n, given - 100);
	/* The last ones went: the first ones are those that are used again. */
	assert_int_equal(space_alloc(md.s, 100, 100, &at), 100);
	assert_int_equal(at, first);
	space_cancel(md.s, at, 100);
	/* What lies between begin and end is neither handed out nor lost. */
	n = space_trim_begin(md.s, 0, &end, 1, 40, false, &at);
	assert_int_equal(n, 60);
	assert_int_equal(space_ready(md.s), 40);
	while ((given = space_alloc(md.s, 40, 1, &other)) > 0)
		assert_true(other + given <= at || other >= at + n);
	space_trim_end(md.s, at, n, false);
	assert_int_equal(space_ready(md.s), 60);
	assert_int_equal(space_alloc(md.s, 60, 60, &other), 60);
	assert_int_equal(other, at);
	model_end(&md);
}

static void what_was_given_back_and_is_promised_again_is_handed_out(void **state)
{
	struct model md;
	uint64_t first, last, given;

	model_begin(&md, 12, 0, 2000);
	assert_int_equal(space_alloc_run(md.s, 512, &first), 0);
	must(space_live(md.s, first, 512));
	must(space_free(md.s, first, 128));
	assert_int_equal(trim(&md, 1, 0, &given), 0);
	assert_int_equal(space_ready(md.s), 0);
	/* The search goes on behind the hole. */
	must(space_free(md.s, first + 400, 1));
	assert_int_equal(space_alloc(md.s, 1, 1, &last), 1);
	assert_int_equal(last, first + 400);
	/* Then the disk promises the hole again. */
	assert_int_equal(space_reserve(md.s, 100), 0);
	assert_int_equal(space_alloc(md.s, 100, 1, &last), 100);
	model_end(&md);
}

static void pages_outside_are_nobodys(void **state)
{
	static const struct {
		uint64_t first, pages;
	} cases[] = {{0, 1}, {FIRST - 1, 2}, {999, 2}, {1000, 1}, {UINT64_MAX, 1}, {UINT64_MAX, 2}, {500, UINT64_MAX}, {1, UINT64_MAX}};
	struct model md;

	model_begin(&md, 11, 0, 1000);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		assert_false(space_live(md.s, cases[i].first, cases[i].pages));
		assert_false(space_free(md.s, cases[i].first, cases[i].pages));
		assert_false(space_is_live(md.s, cases[i].first));
	}
	check(&md);
	model_end(&md);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_handed_out_is_free_and_all_adds_up),
		cmocka_unit_test(a_map_that_was_drawn_is_the_same_when_it_is_loaded),
		cmocka_unit_test(the_own_reserve_is_kept_back_and_its_last_page_can_be_had),
		cmocka_unit_test(room_that_comes_later_is_found),
		cmocka_unit_test(errors_of_the_disk_are_told_and_promise_nothing),
		cmocka_unit_test(what_is_given_back_is_holes_and_never_what_was_promised),
		cmocka_unit_test(what_is_given_back_leaves_a_reserve_and_is_nobodys_meanwhile),
		cmocka_unit_test(what_was_given_back_and_is_promised_again_is_handed_out),
		cmocka_unit_test(pages_outside_are_nobodys),
	};

	return cmocka_run_group_tests_name("space", tests, NULL, NULL);
}
