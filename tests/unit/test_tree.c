/* SPDX-License-Identifier: MIT */
/*
 * The delta's tree against a sorted array: random changes, checkpoints to a disk in memory, trees opened again from there; changes
 * while a checkpoint is written; checkpoints, reads, allocations of places and of memory that fail.
 */
#include "tree_model.h"

#include <pthread.h>

#include "codec/codec.h"

static void random_steps(size_t cache, unsigned rounds, uint64_t seed)
{
	struct rng rng = {seed};
	struct both b;

	both_begin(&b, cache);
	if (tall)
		fill(&b, &rng, 4000);
	for (unsigned round = 0; round < rounds; round++) {
		unsigned shrink = round % 20 < 12 ? 30 : 75;
		unsigned steps = 1 + (unsigned)rng_below(&rng, 800);

		for (unsigned i = 0; i < steps; i++) {
			int r = step(&b, &rng, shrink);

			must(r == 0 || r == -ENOENT);
		}
		checkpoint(&b);
		if (round % 3 == 0) {
			reopen(&b);
			compare_all(b.tree, &b.model);
		}
	}
	/* Down to nothing. */
	while (b.model.count) {
		must(both_delete(&b, key_there(&b, &rng)) == 0);
		if (b.model.count % 500 == 0)
			checkpoint(&b);
	}
	checkpoint(&b);
	assert_int_equal(b.root.height, 0);
	assert_true(b.root.page == 0);
	assert_int_equal(b.disk->used, 0);
	assert_int_equal(b.disk->damaged, 0);
	both_end(&b);
}

static void it_is_what_a_sorted_array_is(void **state)
{
	random_steps(64u << 20, 60, 1);
}

static void so_it_is_with_hardly_any_memory(void **state)
{
	random_steps(16 * PINFS_DELTA_NODE_SIZE, 60, 2);
	random_steps(0, 20, 3);
}

/* ---- orders ---- */

static void insertion_in_order_fills_nodes(void **state)
{
	enum { COUNT = 40000, LEN = 100 };
	const double full = (double)(COUNT * (LEN + 24)) / (PINFS_DELTA_NODE_SIZE - 64);
	struct both b;
	struct shape s;

	/* Ascending at the tree's end. */
	both_begin(&b, 1u << 20);
	for (unsigned i = 0; i < COUNT; i++) {
		must(both_put(&b, (struct tree_key){5, i}, LEN) == 0);
		if (i % 5000 == 0)
			checkpoint(&b);
	}
	checkpoint(&b);
	s = shape_of(&b);
	assert_true((double)s.leaves < full * 1.02);
	reopen(&b);
	compare_all(b.tree, &b.model);
	both_end(&b);

	/* Ascending in front of others. */
	both_begin(&b, 1u << 20);
	for (unsigned i = 0; i < 50; i++)
		must(both_put(&b, (struct tree_key){9, i}, LEN) == 0);
	for (unsigned i = 0; i < COUNT; i++)
		must(both_put(&b, (struct tree_key){5, i}, LEN) == 0);
	s = shape_of(&b);
	assert_true((double)s.leaves < full * 1.05);
	checkpoint(&b);
	reopen(&b);
	compare_all(b.tree, &b.model);
	both_end(&b);

	/* Descending. */
	both_begin(&b, 1u << 20);
	for (unsigned i = COUNT; i-- > 0;)
		must(both_put(&b, (struct tree_key){5, i}, LEN) == 0);
	s = shape_of(&b);
	assert_true((double)s.leaves < full * 2.1);
	compare_all(b.tree, &b.model);
	both_end(&b);
}

static void nodes_stay_half_full(void **state)
{
	enum { COUNT = 30000 };
	struct rng rng = {7};
	struct both b;
	struct shape s;
	uint64_t bytes = 0;

	both_begin(&b, 1u << 20);
	for (unsigned i = 0; i < COUNT; i++)
		must(both_put(&b, (struct tree_key){rng_below(&rng, 5), rng_below(&rng, 1000000)}, 100) == 0);
	s = shape_of(&b);
	assert_true((double)s.leaves < (double)b.model.count * 124 / (PINFS_DELTA_NODE_SIZE - 64) / 0.6);
	/* Nine of ten go. */
	while (b.model.count > COUNT / 10)
		must(both_delete(&b, key_there(&b, &rng)) == 0);
	for (size_t i = 0; i < b.model.count; i++)
		bytes += b.model.entries[i].len + 24;
	s = shape_of(&b);
	assert_true((double)s.leaves < (double)bytes / (PINFS_DELTA_NODE_SIZE - 64) / 0.36);
	checkpoint(&b);
	both_end(&b);
}

/*
 * Full nodes throughout, three levels: an inner node loses its first child, gets items that belong there, and is merged; and changes
 * that copy and split all nodes on their way, out of what was reserved.
 */
static void inner_nodes_are_split_and_merged(void **state)
{
	enum { FANOUT = 510, LEAF = 4, BELOW = FANOUT * LEAF, COUNT = 3 * BELOW };
	struct both b;
	struct tree_root root;
	struct shape s;

	for (unsigned order = 0; order < 2; order++) {
		both_begin(&b, 1u << 20);
		for (unsigned i = 0; i < COUNT; i++)
			must(both_put(&b, (struct tree_key){1, i * 10}, PINFS_DELTA_ITEM_MAX) == 0);
		s = shape_of(&b);
		assert_int_equal(s.leaves, 3 * FANOUT);
		assert_int_equal(s.nodes, s.leaves + 4);
		must(tree_freeze(b.tree, ++b.generation, &root) == 0);
		assert_int_equal(root.height, 3);
		write_frozen(&b);
		must(tree_reserve(b.tree, 3) == 0);
		mem_fail_at = mem_made + 1;
		for (unsigned i = 0; i < 3; i++)
			must(both_put(&b, (struct tree_key){1, (i * BELOW + BELOW / 2) * 10 + 5}, PINFS_DELTA_ITEM_MAX) == 0);
		mem_fail_at = 0;
		thaw_written(&b, &root);
		assert_int_equal(shape_of(&b).nodes, s.nodes + 6);
		/* Back to what was written. */
		reopen(&b);
		for (unsigned i = 0; i < 3; i++)
			model_delete(&b.model, model_find(&b.model, (struct tree_key){1, (i * BELOW + BELOW / 2) * 10 + 5}));
		for (unsigned i = 0; i < DISK_NODES; i++)
			must((b.disk->place[i] == PLACE_USED) == b.disk->durable[i]);

		for (unsigned i = 0; i < LEAF; i++)
			must(both_delete(&b, (struct tree_key){1, (BELOW + i) * 10}) == 0);
		for (unsigned i = 0; i < LEAF; i++)
			must(both_put(&b, (struct tree_key){1, (BELOW + i) * 10 + 5}, 10) == 0);
		for (unsigned i = LEAF; i < BELOW - LEAF; i++)
			must(both_delete(&b, (struct tree_key){1, ((order ? 2 * BELOW - 1 : 0) + (order ? -1 : 1) * i) * 10}) == 0);
		for (unsigned i = LEAF; i < BELOW - LEAF; i++) {
			int r = both_delete(&b, (struct tree_key){1, ((order ? 0 : BELOW) + i) * 10});

			must(r == 0);
		}
		compare_all(b.tree, &b.model);
		s = shape_of(&b);
		assert_int_equal(s.nodes - s.leaves, 3);
		for (size_t i = 0; i < b.model.count; i++)
			must(both_get(&b, b.model.entries[i].key) == 0);
		checkpoint(&b);
		reopen(&b);
		compare_all(b.tree, &b.model);
		both_end(&b);
	}
}

/* ---- while a checkpoint is written ---- */

struct frozen_sums {
	uint64_t page[4096], sum[4096];
	size_t count;
};

static void frozen_sum(struct both *b, struct frozen_sums *s, bool check)
{
	size_t cursor = 0, i = 0;
	uint64_t page;
	const void *bytes;

	for (; tree_frozen_next(b->tree, &cursor, &page, &bytes); i++) {
		uint64_t sum = codec_checksum(bytes, PINFS_DELTA_NODE_SIZE);

		must(i < ARRAY_SIZE(s->sum));
		if (check)
			must(s->page[i] == page && s->sum[i] == sum);
		s->page[i] = page;
		s->sum[i] = sum;
	}
	must(!check || s->count == i);
	s->count = i;
}

static void frozen_rounds(size_t cache, unsigned rounds, uint64_t seed)
{
	static struct frozen_sums sums;
	struct rng rng = {seed};
	struct both b;

	both_begin(&b, cache);
	if (tall)
		fill(&b, &rng, 3000);
	for (unsigned round = 0; round < rounds; round++) {
		unsigned shrink = round % 30 < 18 ? 25 : 85, steps = (unsigned)rng_below(&rng, 300);
		bool written = rng_below(&rng, 3) > 0, late = rng_below(&rng, 2);
		struct model frozen_model;
		struct tree_root root;
		struct tree *other;

		for (unsigned i = 0; i < steps; i++)
			step(&b, &rng, shrink);
		must(tree_freeze(b.tree, ++b.generation, &root) == 0);
		frozen_model = model_copy(&b.model);
		frozen_sum(&b, &sums, false);
		if (!late)
			write_frozen(&b);
		steps = (unsigned)rng_below(&rng, 300);
		for (unsigned i = 0; i < steps; i++)
			step(&b, &rng, shrink);
		frozen_sum(&b, &sums, true);
		if (!late || !written)
			check_dirty(&b);
		if (written) {
			if (late)
				write_frozen(&b);
			thaw_written(&b, &root);
		} else {
			tree_thaw(b.tree, false);
		}
		check_dirty(&b);
		compare_all(b.tree, &b.model);
		if (written) {
			/* The checkpoint is what the tree was when it was frozen, whatever happened since. */
			must(tree_new(&model_ops, b.disk, ID, &root, cache, &other) == 0);
			compare_all(other, &frozen_model);
			tree_free(other);
			if (rng_below(&rng, 8) == 0) {
				/* A crash: what came later is lost, and its places with it. */
				model_free(&b.model);
				b.model = model_copy(&frozen_model);
				reopen(&b);
				for (unsigned i = 0; i < DISK_NODES; i++) {
					b.disk->used += b.disk->durable[i] - (b.disk->place[i] == PLACE_USED);
					b.disk->place[i] = b.disk->durable[i] ? PLACE_USED : PLACE_FREE;
				}
				check_places(&b);
			}
		}
		model_free(&frozen_model);
	}
	checkpoint(&b);
	reopen(&b);
	compare_all(b.tree, &b.model);
	both_end(&b);
}

static void frozen_nodes_stay_as_they_are(void **state)
{
	frozen_rounds(64u << 20, 150, 4);
	frozen_rounds(16 * PINFS_DELTA_NODE_SIZE, 150, 5);
}

static void *write_thread(void *arg)
{
	write_frozen(arg);
	return NULL;
}

static void another_thread_may_write_them(void **state)
{
	struct rng rng = {6};
	struct both b;

	both_begin(&b, 16 * PINFS_DELTA_NODE_SIZE);
	for (unsigned round = 0; round < 30; round++) {
		struct tree_root root;
		pthread_t thread;

		for (unsigned i = 0; i < 400; i++)
			step(&b, &rng, 30);
		must(tree_freeze(b.tree, ++b.generation, &root) == 0);
		must(pthread_create(&thread, NULL, write_thread, &b) == 0);
		/* What is in memory, or on the disk for longer: no place changes hands meanwhile. */
		for (unsigned i = 0; i < 200; i++)
			step(&b, &rng, 60);
		pthread_join(thread, NULL);
		thaw_written(&b, &root);
	}
	checkpoint(&b);
	reopen(&b);
	compare_all(b.tree, &b.model);
	both_end(&b);
}

/* ---- failures ---- */

static void no_space_changes_nothing(void **state)
{
	struct rng rng = {8};
	struct both b;
	unsigned failed = 0;

	both_begin(&b, 1u << 20);
	for (unsigned round = 0; round < 40; round++) {
		struct tree_root root;
		int r;

		for (unsigned i = 0; i < 200; i++)
			step(&b, &rng, round < 25 ? 20 : 80);
		for (unsigned n = 1;; n += 1 + n / 4) {
			size_t dirty = tree_dirty(b.tree);
			unsigned used = b.disk->used, frees = b.disk->frees;

			b.disk->allocs = 0;
			b.disk->fail_alloc_at = n;
			r = tree_freeze(b.tree, ++b.generation, &root);
			if (r == 0)
				break;
			must(r == -ENOSPC && tree_dirty(b.tree) == dirty && b.disk->used == used);
			must(b.disk->frees == frees + n - 1);
			failed++;
			if (n == 1)
				compare_all(b.tree, &b.model);
		}
		b.disk->fail_alloc_at = 0;
		write_frozen(&b);
		thaw_written(&b, &root);
		check_places(&b);
		reopen(&b);
		compare_all(b.tree, &b.model);
	}
	assert_true(failed > 100);
	both_end(&b);
}

static void failing_reads(unsigned rounds)
{
	struct rng rng = {9};
	struct both b;
	unsigned failed = 0;

	both_begin(&b, 16 * PINFS_DELTA_NODE_SIZE);
	fill(&b, &rng, 3000);
	for (unsigned round = 0; round < rounds; round++) {
		checkpoint(&b);
		reopen(&b);
		for (unsigned i = 0; i < 100; i++) {
			int r;

			b.disk->reads = 0;
			b.disk->fail_read_at = 1 + (unsigned)rng_below(&rng, 4);
			r = step(&b, &rng, 60);
			failed += r == -EIO;
			must(r == 0 || r == -ENOENT || r == -EIO);
			b.disk->fail_read_at = 0;
		}
		compare_all(b.tree, &b.model);
	}
	assert_true(failed > 100);
	both_end(&b);
}

static void a_read_that_fails_changes_nothing(void **state)
{
	failing_reads(40);
}

static void failing_memory(unsigned rounds)
{
	struct rng rng = {10};
	struct both b;
	unsigned failed = 0;

	both_begin(&b, 16 * PINFS_DELTA_NODE_SIZE);
	if (tall)
		fill(&b, &rng, 2200);
	for (unsigned round = 0; round < rounds; round++) {
		struct tree_root root;

		for (unsigned i = 0; i < 150; i++) {
			int r;

			mem_fail_at = mem_made + 1 + rng_below(&rng, 5);
			r = step(&b, &rng, round < rounds / 2 ? 20 : 70);
			must(r == 0 || r == -ENOENT || r == -ENOMEM);
			failed += r == -ENOMEM;
		}
		mem_fail_at = mem_made + 1;
		must(!tree_dirty(b.tree) || tree_freeze(b.tree, ++b.generation, &root) == -ENOMEM);
		mem_fail_at = 0;
		compare_all(b.tree, &b.model);
		/* While it is frozen, too. */
		must(tree_freeze(b.tree, ++b.generation, &root) == 0);
		for (unsigned i = 0; i < 50; i++) {
			mem_fail_at = mem_made + 1 + rng_below(&rng, 5);
			failed += step(&b, &rng, 50) == -ENOMEM;
		}
		mem_fail_at = 0;
		compare_all(b.tree, &b.model);
		write_frozen(&b);
		thaw_written(&b, &root);
		compare_all(b.tree, &b.model);
	}
	assert_true(failed > 100);
	both_end(&b);
}

static void memory_that_fails_changes_nothing(void **state)
{
	failing_memory(60);
}

/* Transactions that are undone while there is no memory at all. */
static void undo_rounds(unsigned rounds)
{
	enum { CHANGES = 12 };
	struct rng rng = {11};
	struct both b;

	both_begin(&b, 16 * PINFS_DELTA_NODE_SIZE);
	if (tall)
		fill(&b, &rng, 2200);
	for (unsigned round = 0; round < rounds; round++) {
		struct tree_root root;
		struct entry old[CHANGES];
		bool was[CHANGES];
		uint8_t buf[PINFS_DELTA_ITEM_MAX];
		unsigned count;

		for (unsigned i = 0; i < 30; i++)
			step(&b, &rng, round < rounds / 2 ? 20 : 60);
		must(tree_freeze(b.tree, ++b.generation, &root) == 0);
		write_frozen(&b);
		must(tree_reserve(b.tree, 2 * CHANGES) == 0);
		for (count = 0; count < CHANGES; count++) {
			struct tree_key key = rng_below(&rng, 2) ? key_random(&rng) : key_there(&b, &rng);
			size_t at = model_find(&b.model, key);
			int r;

			/* Looked at before. */
			r = both_get(&b, key);
			must(r == 0 || r == -ENOENT);
			was[count] = model_has(&b.model, at, key);
			old[count] = was[count] ? b.model.entries[at] : (struct entry){.key = key};
			mem_fail_at = mem_made + 1;
			r = was[count] && rng_below(&rng, 2) ? both_delete(&b, key) : both_put(&b, key, len_random(&rng));
			must(r == 0);
			mem_fail_at = 0;
		}
		while (count-- > 0) {
			mem_fail_at = mem_made + 1;
			if (was[count]) {
				value_make(&old[count], buf);
				must(tree_put(b.tree, old[count].key, buf, old[count].len) == 0);
				model_put(&b.model, old[count]);
			} else {
				must(both_delete(&b, old[count].key) == 0);
			}
			mem_fail_at = 0;
		}
		if (rng_below(&rng, 2))
			thaw_written(&b, &root);
		else
			tree_thaw(b.tree, false);
		compare_all(b.tree, &b.model);
	}
	both_end(&b);
}

static void what_was_reserved_can_be_undone(void **state)
{
	undo_rounds(400);
}

static void results_stay_for_eight_calls(void **state)
{
	struct rng rng = {12};
	struct both b;
	struct {
		struct entry entry;
		const void *value;
		size_t len;
	} results[9];

	both_begin(&b, 0);
	while (b.model.count < 20000)
		both_put(&b, (struct tree_key){1, rng_below(&rng, 1000000)}, 100);
	checkpoint(&b);
	for (unsigned i = 0; i < 20000; i++) {
		size_t at = rng_below(&rng, b.model.count);
		unsigned r = i % 9;

		results[r].entry = b.model.entries[at];
		must(tree_get(b.tree, results[r].entry.key, &results[r].value, &results[r].len) == 0);
		for (unsigned k = 0; k < 9 && k <= i; k++)
			value_check(&results[k].entry, results[k].value, results[k].len);
	}
	/* A value that is put may be in the tree. */
	for (unsigned i = 0; i < 2000; i++) {
		struct entry e = b.model.entries[rng_below(&rng, b.model.count)], copy;
		struct tree_key key = {1, 2000000 + rng_below(&rng, 1000)};
		const void *value;
		size_t len, at;
		uint8_t buf[PINFS_DELTA_ITEM_MAX];

		must(tree_get(b.tree, e.key, &value, &len) == 0);
		memcpy(buf, value, len);
		must(tree_put(b.tree, key, value, len) == 0);
		must(tree_get(b.tree, key, &value, &at) == 0 && at == len && memcmp(value, buf, len) == 0);
		copy = e;
		copy.key = key;
		must(tree_delete(b.tree, copy.key) == 0);
	}
	both_end(&b);
}

/* The same once more, with three levels. */
static void tall_trees_are_no_different(void **state)
{
	tall = true;
	random_steps(16 * PINFS_DELTA_NODE_SIZE, 12, 21);
	random_steps(64u << 20, 12, 22);
	frozen_rounds(16 * PINFS_DELTA_NODE_SIZE, 25, 23);
	failing_reads(10);
	failing_memory(12);
	undo_rounds(40);
	tall = false;
}

/* Freed while it is frozen, with copies made since. */
static void a_frozen_tree_can_be_freed(void **state)
{
	struct rng rng = {18};
	struct tree_root root;
	struct both b;

	both_begin(&b, 0);
	fill(&b, &rng, 2000);
	for (unsigned i = 0; i < 100; i++)
		step(&b, &rng, 50);
	must(tree_freeze(b.tree, ++b.generation, &root) == 0);
	for (unsigned i = 0; i < 500; i++)
		step(&b, &rng, 80);
	both_end(&b);
	tree_free(NULL);
}

/* ---- how fast ---- */

/* PINFS_BENCH=1: a million items of 100 bytes. */
static void how_fast_it_is(void **state)
{
	enum { COUNT = 1000000 };
	struct rng rng = {16};
	struct tree_root root = {0};
	struct disk *d;
	struct tree *tree;
	uint8_t value[100] = {1};
	const void *p;
	size_t len;
	uint64_t start, sum = 0;

	if (!getenv("PINFS_BENCH"))
		skip();
	for (unsigned order = 0; order < 2; order++) {
		d = disk_new();
		must(tree_new(&model_ops, d, ID, &root, 256u << 20, &tree) == 0);
		start = now_ns();
		for (unsigned i = 0; i < COUNT; i++)
			must(tree_put(tree, (struct tree_key){order ? rng_next(&rng) : 1, i}, value, sizeof(value)) == 0);
		print_message("%s: put %.0f ns", order ? "random" : "ascending", (double)(now_ns() - start) / COUNT);
		start = now_ns();
		must(tree_freeze(tree, 1, &root) == 0);
		print_message(", freeze %.1f ms for %u nodes", (double)(now_ns() - start) / 1e6, d->used);
		tree_thaw(tree, false);
		rng.state = 16;
		start = now_ns();
		for (unsigned i = 0; i < COUNT; i++) {
			uint64_t r = rng_next(&rng);
			struct tree_key key = {order ? r : 1, order ? i : r % COUNT};

			must(tree_get(tree, key, &p, &len) == 0);
			sum += *(const uint8_t *)p;
		}
		print_message(", random get %.0f ns", (double)(now_ns() - start) / COUNT);
		rng.state = 16;
		start = now_ns();
		for (unsigned i = 0; i < COUNT; i++) {
			uint64_t r = rng_next(&rng);
			struct tree_key key = {order ? r : 1, order ? i : r % COUNT};

			must(tree_put(tree, key, value, sizeof(value)) == 0);
		}
		print_message(", replace %.0f ns", (double)(now_ns() - start) / COUNT);
		rng.state = 16;
		start = now_ns();
		for (unsigned i = 0; i < COUNT; i++)
			must(tree_delete(tree, (struct tree_key){order ? rng_next(&rng) : 1, i}) == 0);
		print_message(", delete %.0f ns\n", (double)(now_ns() - start) / COUNT);
		must(sum && tree_items(tree) == 0);
		tree_free(tree);
		disk_end(d);
		root = (struct tree_root){0};
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(it_is_what_a_sorted_array_is),
		cmocka_unit_test(so_it_is_with_hardly_any_memory),
		cmocka_unit_test(insertion_in_order_fills_nodes),
		cmocka_unit_test(nodes_stay_half_full),
		cmocka_unit_test(inner_nodes_are_split_and_merged),
		cmocka_unit_test(frozen_nodes_stay_as_they_are),
		cmocka_unit_test(another_thread_may_write_them),
		cmocka_unit_test(no_space_changes_nothing),
		cmocka_unit_test(a_read_that_fails_changes_nothing),
		cmocka_unit_test(memory_that_fails_changes_nothing),
		cmocka_unit_test(what_was_reserved_can_be_undone),
		cmocka_unit_test(results_stay_for_eight_calls),
		cmocka_unit_test(tall_trees_are_no_different),
		cmocka_unit_test(a_frozen_tree_can_be_freed),
		cmocka_unit_test(how_fast_it_is),
	};

	return cmocka_run_group_tests_name("tree", tests, NULL, support_end);
}
