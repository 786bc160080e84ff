/* SPDX-License-Identifier: MIT */
/* index: the radix tree against a plain array, its marks, its nodes; and readers without a lock beside a writer. */
#include "support.h"

#include "base/sync.h"
#include "cache/index.h"

static struct index_pool pool;
static struct index tree;
static struct mutex lock;

static int setup(void **state)
{
	mutex_init(&lock, LOCK_INDEX);
	return index_pool_init(&pool);
}

static int teardown(void **state)
{
	index_pool_destroy(&pool);
	return 0;
}

static void insert(uint64_t unit, uint32_t frame)
{
	unsigned nodes;

	must(index_reserve(&pool, &nodes) == 0);
	mutex_lock(&lock);
	index_insert_locked(&pool, &tree, unit, frame, &nodes);
	mutex_unlock(&lock);
	index_unreserve(&pool, nodes);
}

static void take(uint64_t unit)
{
	mutex_lock(&lock);
	index_remove_locked(&pool, &tree, unit);
	mutex_unlock(&lock);
}

static uint32_t next(uint64_t *unit, bool dirty)
{
	uint32_t frame;

	mutex_lock(&lock);
	frame = index_next_locked(&pool, &tree, unit, dirty);
	mutex_unlock(&lock);
	return frame;
}

/* Units that lie close, far apart, and at the end of what there is. */
static uint64_t unit_of(unsigned i)
{
	static const uint64_t bases[] = {0, 60, 4090, 1ull << 20, (1ull << 40) - 3, 1ull << 51, UINT64_MAX - 40};

	return bases[i / 32 % ARRAY_SIZE(bases)] + i % 32;
}

/* A way down from a high root, all of it new: each time. */
static void a_low_unit_comes_into_a_high_tree(void **state)
{
	for (unsigned shift = 0; shift < 64; shift += 3) {
		for (unsigned low = 0; low < shift; low += 5) {
			insert(1ull << shift, 1);
			insert((1ull << low) - 1, 2);
			assert_int_equal(index_find(&pool, &tree, (1ull << low) - 1), 2);
			assert_int_equal(index_find(&pool, &tree, 1ull << shift), 1);
			take((1ull << low) - 1);
			take(1ull << shift);
		}
	}
}

static void it_is_what_an_array_is(void **state)
{
	enum { UNITS = 32 * 7 };
	bool there[UNITS] = {false}, dirty[UNITS] = {false};
	struct rng rng = {11};

	for (unsigned round = 0; round < 20000; round++) {
		unsigned i = (unsigned)rng_below(&rng, UNITS);

		if (!there[i]) {
			insert(unit_of(i), i);
			there[i] = true;
			dirty[i] = false;
		} else if (rng_below(&rng, 2)) {
			dirty[i] = !dirty[i];
			mutex_lock(&lock);
			index_mark_locked(&pool, &tree, unit_of(i), dirty[i]);
			mutex_unlock(&lock);
		} else {
			take(unit_of(i));
			there[i] = false;
		}
		if (round % 100)
			continue;
		for (unsigned only = 0; only < 2; only++) {
			uint64_t at = 0;
			bool last = false;

			for (unsigned k = 0; k < UNITS; k++) {
				assert_int_equal(index_find(&pool, &tree, unit_of(k)), there[k] ? k : FRAME_NONE);
				if (!there[k] || (only && !dirty[k]))
					continue;
				assert_false(last);
				assert_int_equal(next(&at, only), k);
				assert_true(at == unit_of(k));
				last = ++at == 0;
			}
			if (!last)
				assert_int_equal(next(&at, only), FRAME_NONE);
		}
	}
	for (unsigned k = 0; k < UNITS; k++)
		if (there[k])
			take(unit_of(k));
	/* Every node is back. */
	assert_int_equal(a32_read(&tree.root), 0);
	assert_int_equal(pool.free_count, a32_read(&pool.count));
	assert_int_equal(pool.reserved, 0);
}

static void dense_units_cost_little(void **state)
{
	uint32_t before = pool.free_count, used;

	for (uint64_t u = 0; u < 64 * 64; u++)
		insert(u, (uint32_t)u);
	used = a32_read(&pool.count) - pool.free_count;
	assert_true(used <= 66);
	for (uint64_t u = 0; u < 64 * 64; u++)
		take(u);
	assert_true(pool.free_count >= before);
}

static struct a32 stop;

/* Unit 5 is always there. */
static void *reader(void *arg)
{
	struct rng rng = {(uintptr_t)arg};
	uint64_t found = 0;

	/* Also if it runs for the first time when the writer has ended: then it finds what is there. */
	while (!a32_read(&stop) || !found) {
		uint64_t unit = rng_below(&rng, 2) ? 5 : unit_of((unsigned)rng_below(&rng, 224));
		uint32_t frame = index_find(&pool, &tree, unit);

		/* It may go astray where nodes are reused, but never out of bounds. */
		must(frame < 224 || frame == FRAME_NONE);
		found += frame != FRAME_NONE;
	}
	return NULL;
}

static void readers_take_no_lock(void **state)
{
	pthread_t threads[2];
	struct rng rng = {5};
	bool there[224] = {false};

	insert(5, 5);
	for (uintptr_t i = 0; i < 2; i++)
		assert_int_equal(thread_start(&threads[i], reader, (void *)(i + 1)), 0);
	for (unsigned round = 0; round < 50000; round++) {
		unsigned i = (unsigned)rng_below(&rng, 224);

		if (unit_of(i) == 5)
			continue;
		if (there[i])
			take(unit_of(i));
		else
			insert(unit_of(i), i);
		there[i] = !there[i];
	}
	a32_set(&stop, 1);
	for (unsigned i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	for (unsigned i = 0; i < 224; i++)
		if (there[i])
			take(unit_of(i));
	take(5);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_low_unit_comes_into_a_high_tree),
		cmocka_unit_test(it_is_what_an_array_is),
		cmocka_unit_test(dense_units_cost_little),
		cmocka_unit_test(readers_take_no_lock),
	};

	return cmocka_run_group_tests_name("index", tests, setup, teardown);
}
