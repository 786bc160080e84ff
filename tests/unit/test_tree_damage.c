/* SPDX-License-Identifier: MIT */
/* The delta's tree when its nodes are damaged, by chance or on purpose: each contradiction is found, nothing does harm, and pruning leaves what is whole. */
#include "tree_model.h"

#include "codec/codec.h"

static void node_seal(uint8_t *bytes)
{
	((struct pinfs_delta_node *)bytes)->checksum = pinfs_put64(codec_checksum(bytes + 8, PINFS_DELTA_NODE_SIZE - 8));
}

static void damage_begin(struct both *b, struct rng *rng, unsigned items)
{
	both_begin(b, 64u << 20);
	fill(b, rng, items);
}

static unsigned node_random(struct both *b, struct rng *rng)
{
	unsigned n;

	/* The root, or any. */
	if (rng_below(rng, 4) == 0)
		return place_of(b->disk, b->root.page);
	do
		n = (unsigned)rng_below(rng, DISK_NODES);
	while (b->disk->place[n] != PLACE_USED);
	return n;
}

static void each_bit_that_flips_is_found(void **state)
{
	struct rng rng = {13};
	struct both b;

	damage_begin(&b, &rng, 700);
	for (unsigned i = 0; i < 1500; i++) {
		unsigned n = node_random(&b, &rng), bit = (unsigned)rng_below(&rng, PINFS_DELTA_NODE_SIZE * 8);
		struct shape s = {0};
		uint64_t damaged = 0;

		b.disk->nodes[n][bit / 8] ^= (uint8_t)(1 << bit % 8);
		b.disk->damaged = 0;
		reopen(&b);
		must(tree_walk(b.tree, shape_visit, &s, &damaged) == 0);
		if (damaged != 1 || b.disk->damaged != 1)
			fail_msg("seed 13, round %u: node %u, bit %u is not found", i, n, bit);
		b.disk->nodes[n][bit / 8] ^= (uint8_t)(1 << bit % 8);
	}
	reopen(&b);
	compare_all(b.tree, &b.model);
	both_end(&b);
}

struct contradiction {
	const char *what;
	bool leaf;
	size_t at; /* where in the node; counted from its slots' beginning: SLOTS + … */
	uint64_t value;
	unsigned size;
};
#define SLOTS sizeof(struct pinfs_delta_node)
#define NODE_END PINFS_DELTA_NODE_SIZE

/* The leaf has three values of 100, 0 and 50 bytes, keys (5, 100), (5, 200), (5, 300); the root has at least three children. */
static const struct contradiction contradictions[] = {
	{"it is no node", true, 8, 0, 4},
	{"it is of another delta", true, 32, ID + 1, 8},
	{"it belongs elsewhere", true, 16, 4000, 8},
	{"it is of another checkpoint than its parent says", true, 24, 7, 8},
	{"its level is wrong", true, 12, 1, 2},
	{"reserved bytes are not zero", true, 63, 1, 1},
	{"it is empty", true, 14, 0, 2},
	{"its slots and values overlap", true, 40, NODE_END + 1, 4},
	{"its slots and values overlap", true, 40, SLOTS + 3 * 24 - 1, 4},
	{"its slots and values overlap", true, 14, 700, 2},
	{"an item is too long", true, SLOTS + 20, PINFS_DELTA_ITEM_MAX + 1, 4},
	{"an item's value is not among the values", true, SLOTS + 16, NODE_END - 151, 4},
	{"an item's value is not among the values", true, SLOTS + 16, NODE_END - 99, 4},
	{"an item's value is not among the values", true, SLOTS + 16, UINT32_MAX, 4},
	{"an item's value is not among the values", true, SLOTS + 24 + 16, NODE_END + 1, 4},
	{"two values overlap", true, SLOTS + 48 + 16, NODE_END - 149, 4},
	{"there are gaps between the values", true, 40, NODE_END - 151, 4},
	{"there are gaps between the values", true, SLOTS + 20, 99, 4},
	{"what is unused is not zero", true, SLOTS + 72, 1, 1},
	{"what is unused is not zero", true, NODE_END - 151, 1, 1},
	{"its keys are out of order", true, SLOTS + 24 + 8, 100, 8},
	{"its keys are out of order", true, SLOTS + 24 + 8, 301, 8},
	{"its keys are below its parent's", true, SLOTS + 8, 99, 8},
	{"its keys are above its parent's", true, SLOTS + 48 + 8, 400, 8},
	{"its keys are above its parent's", true, SLOTS + 48, 6, 8},
	{"it has too many slots", false, 40, NODE_END - 1, 4},
	{"it has too many slots", false, 14, 511, 2},
	{"it is empty", false, 14, 0, 2},
	{"a child has no place", false, SLOTS + 32 + 16, 0, 8},
	{"what is unused is not zero", false, NODE_END - 1, 1, 1},
	{"its keys are out of order", false, SLOTS + 64, 4, 8},
	{"its level is wrong", false, 12, 0, 2},
};

static void each_contradiction_is_named(void **state)
{
	struct both b;
	uint32_t lens[] = {100, 0, 50};
	uint8_t good[PINFS_DELTA_NODE_SIZE], *bytes;

	/* Full leaves around one that has room: (5, 100) is its first key, (5, 400) that of the next. */
	both_begin(&b, 0);
	for (unsigned i = 0; i < 4; i++)
		must(both_put(&b, (struct tree_key){5, 10 + i}, PINFS_DELTA_ITEM_MAX) == 0);
	for (unsigned i = 0; i < 4; i++)
		must(both_put(&b, (struct tree_key){5, 100 + i}, PINFS_DELTA_ITEM_MAX) == 0);
	for (unsigned i = 0; i < 4; i++)
		must(both_put(&b, (struct tree_key){5, 400 + i}, PINFS_DELTA_ITEM_MAX) == 0);
	for (unsigned i = 0; i < 3; i++)
		must(both_put(&b, (struct tree_key){5, 100 * (i + 1)}, lens[i]) == 0);
	for (unsigned i = 1; i < 4; i++)
		must(both_delete(&b, (struct tree_key){5, 100 + i}) == 0);
	checkpoint(&b);
	assert_int_equal(b.disk->used, 4);
	for (unsigned i = 0; i < ARRAY_SIZE(contradictions); i++) {
		const struct contradiction *c = &contradictions[i];
		struct pinfs_delta_inner_slot *s =
			(struct pinfs_delta_inner_slot *)(b.disk->nodes[place_of(b.disk, b.root.page)] + SLOTS);
		uint64_t value = htole64(c->value);
		const void *p;
		size_t len;

		bytes = b.disk->nodes[place_of(b.disk, c->leaf ? pinfs_get64(s[1].child.page) : b.root.page)];
		memcpy(good, bytes, sizeof(good));
		memcpy(bytes + c->at, &value, c->size);
		node_seal(bytes);
		b.disk->what = "nothing";
		reopen(&b);
		if (tree_get(b.tree, (struct tree_key){5, 300}, &p, &len) != -EUCLEAN || strcmp(b.disk->what, c->what))
			fail_msg("contradiction %u, \"%s\": \"%s\" is found", i, c->what, b.disk->what);
		assert_int_equal(tree_put(b.tree, (struct tree_key){5, 300}, "", 1), -EUCLEAN);
		assert_int_equal(tree_delete(b.tree, (struct tree_key){5, 300}), -EUCLEAN);
		assert_int_equal(tree_dirty(b.tree), 0);
		memcpy(bytes, good, sizeof(good));
	}
	reopen(&b);
	compare_all(b.tree, &b.model);
	both_end(&b);
}

static void mutate(struct rng *rng, uint8_t *bytes)
{
	struct pinfs_delta_node *h = (struct pinfs_delta_node *)bytes;
	static const uint64_t odd[] = {0, 1, 4, 63, 64, 100, 509, 510, 511, 3900, 3901, 16383, 16384, 16385, 65535, UINT32_MAX,
		INT64_MAX, UINT64_MAX};
	size_t slots = pinfs_get16(h->level) ? 32 : 24, count = MAX(pinfs_get16(h->count), 1), at;
	uint64_t value = odd[rng_below(rng, ARRAY_SIZE(odd))];

	switch (rng_below(rng, 6)) {
	case 0:
		at = 8 + rng_below(rng, 56);
		bytes[at] = (uint8_t)value;
		break;
	case 1:
		h->count = pinfs_put16((uint16_t)(rng_below(rng, 2) ? value : (uint64_t)(count + rng_below(rng, 5) - 2)));
		break;
	case 2:
		h->low = pinfs_put32((uint32_t)(rng_below(rng, 2) ? value : pinfs_get32(h->low) + rng_below(rng, 64) - 32));
		break;
	default:
		/* A field of a slot. */
		at = MIN(64 + rng_below(rng, count) * slots + rng_below(rng, slots / 4) * 4, (size_t)PINFS_DELTA_NODE_SIZE - 8);
		if (rng_below(rng, 2))
			memcpy(bytes + at, &value, rng_below(rng, 2) ? 8 : 4);
		else
			bytes[at] ^= (uint8_t)(1 << rng_below(rng, 8));
	}
	if (rng_below(rng, 3) == 0)
		/* Another node's place, or its own. */
		memcpy(bytes + MIN(64 + rng_below(rng, count) * slots + 16, (size_t)PINFS_DELTA_NODE_SIZE - 8), bytes + 16, 8);
}

/* Whatever is in the nodes, no call goes out of bounds, and each ends. */
static void hostile_round(struct both *b, struct rng *rng, unsigned round)
{
	struct shape s = {0};
	struct tree_key key;
	struct tree_root root;
	uint64_t damaged, lost;
	const void *value;
	size_t len;
	uint8_t buf[PINFS_DELTA_ITEM_MAX] = {0};

	if (round % 3)
		tree_walk(b->tree, shape_visit, &s, &damaged);
	if (round % 5 == 0)
		must(tree_prune(b->tree, &lost) == 0);
	for (unsigned i = 0; i < 150; i++) {
		struct tree_key k = rng_below(rng, 2) ? key_random(rng) : key_there(b, rng);
		int r;

		switch (rng_below(rng, 5)) {
		case 0:
			r = tree_get(b->tree, k, &value, &len);
			break;
		case 1:
			r = tree_find(b->tree, k, (struct tree_key){UINT64_MAX, UINT64_MAX}, &key, &value, &len);
			break;
		case 2:
			r = tree_find_last(b->tree, (struct tree_key){0}, k, &key, &value, &len);
			break;
		case 3:
			r = tree_put(b->tree, k, buf, len_random(rng));
			break;
		default:
			r = tree_delete(b->tree, k);
		}
		must(r == 0 || r == -ENOENT || r == -EUCLEAN || r == -EIO);
		if (r == 0 && rng_below(rng, 40) == 0) {
			must(tree_freeze(b->tree, b->generation + 1, &root) == 0);
			tree_thaw(b->tree, false);
		}
	}
	must(tree_prune(b->tree, &lost) == 0);
	memset(&s, 0, sizeof(s));
	must(tree_walk(b->tree, shape_visit, &s, &damaged) == 0 && !damaged);
	must(s.items == tree_items(b->tree));
}

static void hostile_rounds(unsigned rounds, unsigned items)
{
	struct rng rng = {14};
	struct both b;

	damage_begin(&b, &rng, items);
	for (unsigned round = 0; round < rounds; round++) {
		struct disk *copy = calloc(1, sizeof(*copy)), *whole = b.disk;

		must(copy);
		*copy = *whole;
		copy->hostile = true;
		for (unsigned i = 0; i < DISK_NODES; i++)
			if (copy->nodes[i]) {
				copy->nodes[i] = malloc(PINFS_DELTA_NODE_SIZE);
				memcpy(copy->nodes[i], whole->nodes[i], PINFS_DELTA_NODE_SIZE);
			}
		for (unsigned n = 1 + (unsigned)rng_below(&rng, 3); n > 0; n--) {
			uint8_t *bytes = copy->nodes[node_random(&b, &rng)];

			mutate(&rng, bytes);
			node_seal(bytes);
		}
		b.disk = copy;
		reopen(&b);
		hostile_round(&b, &rng, round);
		b.disk = whole;
		reopen(&b);
		disk_end(copy);
	}
	both_end(&b);
}

static void hostile_nodes_do_no_harm(void **state)
{
	hostile_rounds(400, 700);
}

static void roots_that_can_not_be_are_refused(void **state)
{
	static const struct tree_root roots[] = {
		{.page = 4, .generation = 1, .height = 0, .items = 1},
		{.page = 0, .generation = 1, .height = 1, .items = 1},
		{.page = 4, .generation = 1, .height = PINFS_DELTA_HEIGHT_MAX + 1, .items = 1},
		{.page = 0, .generation = 0, .height = 0, .items = 1},
	};
	struct tree *tree = NULL;

	for (unsigned i = 0; i < ARRAY_SIZE(roots); i++) {
		assert_int_equal(tree_new(&model_ops, NULL, ID, &roots[i], 0, &tree), -EUCLEAN);
		assert_null(tree);
	}
	assert_int_equal(mem_live, 0);
}

/* Leaves that are damaged are taken out; all that was in others is there. */
static void prune_rounds(unsigned rounds, unsigned items)
{
	struct rng rng = {15};
	struct both b;

	for (unsigned round = 0; round < rounds; round++) {
		struct model left = {0};
		uint64_t lost, damaged;
		struct shape s = {0};
		unsigned broken = 1 + (unsigned)rng_below(&rng, 5), before;

		damage_begin(&b, &rng, items);
		before = b.disk->used;
		for (unsigned i = 0; i < broken; i++)
			b.disk->nodes[node_random(&b, &rng)][rng_below(&rng, PINFS_DELTA_NODE_SIZE)] ^= 1;
		reopen(&b);
		for (size_t i = 0; i < b.model.count; i++) {
			const void *value;
			size_t len;
			int r = tree_get(b.tree, b.model.entries[i].key, &value, &len);

			must(r == 0 || r == -EUCLEAN);
			if (r == 0)
				model_put(&left, b.model.entries[i]);
		}
		must(tree_prune(b.tree, &lost) == 0);
		must(lost <= broken && (lost > 0 || left.count == b.model.count));
		compare_all(b.tree, &left);
		must(tree_walk(b.tree, shape_visit, &s, &damaged) == 0 && !damaged && s.nodes <= before);
		/* What is lost keeps its place: it is not known to be its own. */
		{
			struct tree_root root;

			must(tree_freeze(b.tree, ++b.generation, &root) == 0);
			write_frozen(&b);
			thaw_written(&b, &root);
		}
		reopen(&b);
		compare_all(b.tree, &left);
		model_free(&left);
		both_end(&b);
	}
}

static void prune_keeps_what_is_whole(void **state)
{
	prune_rounds(20, 500);
}

/* All leaves below an inner node are lost: it goes, too. */
static void prune_takes_what_becomes_empty(void **state)
{
	struct rng rng = {17};
	struct both b;
	uint64_t lost, damaged;
	struct shape s = {0};
	struct tree_root root;

	tall = true;
	for (unsigned round = 0; round < 4; round++) {
		unsigned leaves = 0, inner = 0, keep = round < 2 ? round : 100;

		damage_begin(&b, &rng, 3000);
		for (unsigned n = 1; n < DISK_NODES; n++) {
			if (b.disk->place[n] != PLACE_USED || pinfs_get16(((struct pinfs_delta_node *)b.disk->nodes[n])->level)) {
				inner += b.disk->place[n] == PLACE_USED;
				continue;
			}
			if (leaves++ >= keep)
				b.disk->nodes[n][100] ^= 1;
		}
		must(leaves > 600 && inner > 2);
		reopen(&b);
		/* A root that can't be read is as good as damaged. */
		b.disk->reads = 0;
		b.disk->fail_read_at = round == 3 ? 1 : 0;
		must(tree_walk(b.tree, shape_visit, &s, &damaged) == 0);
		must(damaged == (round == 3 ? 1 : leaves - keep));
		must(tree_prune(b.tree, &lost) == 0 && lost == leaves - keep);
		s = (struct shape){0};
		must(tree_walk(b.tree, shape_visit, &s, &damaged) == 0 && !damaged && s.leaves == keep);
		must(s.items == tree_items(b.tree));
		must(tree_freeze(b.tree, ++b.generation, &root) == 0);
		must(root.height == (keep == 0 ? 0u : keep == 1 ? 1u : root.height));
		write_frozen(&b);
		thaw_written(&b, &root);
		both_end(&b);
	}
	tall = false;
}

static void tall_trees_are_no_different(void **state)
{
	tall = true;
	hostile_rounds(60, 2200);
	prune_rounds(3, 2200);
	tall = false;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_bit_that_flips_is_found),
		cmocka_unit_test(each_contradiction_is_named),
		cmocka_unit_test(hostile_nodes_do_no_harm),
		cmocka_unit_test(roots_that_can_not_be_are_refused),
		cmocka_unit_test(prune_keeps_what_is_whole),
		cmocka_unit_test(prune_takes_what_becomes_empty),
		cmocka_unit_test(tall_trees_are_no_different),
	};

	return cmocka_run_group_tests_name("tree_damage", tests, NULL, support_end);
}
