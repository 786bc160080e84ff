/* SPDX-License-Identifier: MIT */
/* The hash of all that decides what a run can still do, and the set of those that were seen. engine.h says why. */
#include "internal.h"

#if defined(EXPLORE_XXH_DISPATCH)
#include <xxh_x86dispatch.h> /* the same hash with the widest registers that the processor has */
#else
#include <xxhash.h>
#endif

/* ---- the hash ---- */

#define WORDS_PER_ACTOR (7 + HELD_MAX + 3 * EXPLORE_HELD_STORES)

static size_t actor_words(unsigned i, uint64_t *words)
{
	const struct actor *t = actor(i);
	XXH128_hash_t stack;
	size_t n = 0;

	words[n++] = (uint64_t)t->state | (uint64_t)t->op.code << 8 | (uint64_t)t->changed << 16 |
		(uint64_t)t->nheld << 24 | (uint64_t)t->nstores << 32;
	if (t->state == ACTOR_ENDED && !t->nstores)
		return n;
	words[n++] = (uintptr_t)t->op.object;
	words[n++] = t->op.a;
	words[n++] = t->op.b;
	for (unsigned k = 0; k < t->nheld; k++)
		words[n++] = t->held[k].mutex ? (uintptr_t)t->held[k].mutex : t->held[k].class;
	for (unsigned k = 0; k < t->nstores; k++) {
		words[n++] = (uintptr_t)t->stores[k].word;
		words[n++] = t->stores[k].value;
		words[n++] = t->stores[k].size | (uint64_t)t->stores[k].rmw << 8;
	}
	if (t->state == ACTOR_ENDED)
		return n;
	/* Where the stack ends says how much of it is live. */
	words[n++] = (uintptr_t)t->live;
	stack = XXH3_128bits(t->live, stack_top(i) - (uintptr_t)t->live);
	words[n++] = stack.low64;
	words[n++] = stack.high64;
	return n;
}

void state_hash(uint64_t ret[2])
{
	uint64_t words[EXPLORE_THREADS_MAX * WORDS_PER_ACTOR + 5];
	unsigned current = WORLD->current;
	XXH128_hash_t h;
	size_t n = 0;

	/* Who ran last matters only if it could go on: then others cost. */
	words[n++] = current < engine.nthreads && engine.ready >> current & 1 ? current : ALONE;
	words[n] = 0;
	memcpy(&words[n++], WORLD->sleepers, WORLD->nsleepers);
	words[n++] = WORLD->nsleepers | (uint64_t)WORLD->alloc_failures << 8 |
		(uint64_t)engine.allocs_until_failure << 32;
	for (unsigned i = 0; i < engine.nthreads; i++)
		n += actor_words(i, words + n);
	h = XXH3_128bits((const void *)(uintptr_t)HEAP_BASE, region_heap_used());
	words[n++] = h.low64;
	words[n++] = h.high64;
	h = XXH3_128bits(words, n * sizeof(*words));
	ret[0] = h.low64;
	ret[1] = h.high64;
	/* Padding that nobody has written is in there; it only ever makes states differ. */
	VALGRIND_MAKE_MEM_DEFINED(ret, 16);
}

/* ---- the set ---- */

/* Open addressing; a key that is zero is a free slot. */
struct states {
	uint64_t (*keys)[2];
	uint8_t *left; /* of the bound, when it was met */
	size_t slots, count, memory;
};

#define SLOT_SIZE (2 * sizeof(uint64_t) + 1)

static bool states_alloc(struct states *s, size_t slots)
{
	s->keys = calloc(slots, sizeof(*s->keys));
	s->left = calloc(slots, 1);
	s->slots = slots;
	if (s->keys && s->left)
		return true;
	free(s->keys);
	free(s->left);
	return false;
}

struct states *states_new(size_t memory)
{
	struct states *s = calloc(1, sizeof(*s));

	if (!s || !states_alloc(s, 1 << 12)) {
		perror("explore");
		exit(2);
	}
	s->memory = memory;
	return s;
}

void states_free(struct states *s)
{
	if (!s)
		return;
	free(s->keys);
	free(s->left);
	free(s);
}

static size_t slot_find(const struct states *s, const uint64_t key[2])
{
	size_t i = (size_t)key[0] & (s->slots - 1);

	while ((s->keys[i][0] || s->keys[i][1]) && (s->keys[i][0] != key[0] || s->keys[i][1] != key[1]))
		i = (i + 1) & (s->slots - 1);
	return i;
}

/* False: it stays as it is. */
static bool states_grow(struct states *s)
{
	struct states bigger = *s;

	if (3 * s->slots * SLOT_SIZE > s->memory || !states_alloc(&bigger, 2 * s->slots))
		return false;
	for (size_t i = 0; i < s->slots; i++) {
		if (s->keys[i][0] || s->keys[i][1]) {
			size_t to = slot_find(&bigger, s->keys[i]);

			memcpy(bigger.keys[to], s->keys[i], sizeof(*s->keys));
			bigger.left[to] = s->left[i];
		}
	}
	free(s->keys);
	free(s->left);
	*s = bigger;
	return true;
}

enum seen states_see(struct states *s, const uint64_t hash[2], unsigned left)
{
	uint64_t key[2] = {hash[0], hash[1] | !hash[0]};
	size_t i = slot_find(s, key);

	if (s->keys[i][0] || s->keys[i][1]) {
		if (s->left[i] >= left)
			return SEEN_BEFORE;
		s->left[i] = (uint8_t)left;
		return SEEN_MORE;
	}
	if (s->count >= s->slots / 4 * 3) {
		if (!states_grow(s))
			return SEEN_FULL;
		i = slot_find(s, key);
	}
	memcpy(s->keys[i], key, sizeof(key));
	s->left[i] = (uint8_t)left;
	s->count++;
	return SEEN_NEW;
}

uint64_t states_count(const struct states *s)
{
	return s->count;
}
