/* SPDX-License-Identifier: MIT */
/*
 * SIEVE: Zhang et al., NSDI 2024. S3-FIFO: Yang et al., SOSP 2023, with a small queue of a tenth, two bits of frequency, and
 * as many ghosts as the main queue has units. CLOCK has one bit.
 *
 * Probation: new units come into a queue of their own, of a quarter of the cache, but of 24 units if it has as many. What is
 * used there soon after it came is used by whoever it came for (a unit holds several small files, or much of a program), and
 * says nothing: uses count only when three quarters as many units have come since. At the end of the queue a unit that was
 * used goes on into the main queue, which is SIEVE; others go. The window is that of Clock2Q+ (Zhai et al., VLDB 2026).
 */
#include "policies.h"

#include <assert.h>

#define NONE UINT32_MAX

/* Lists of ids, oldest first. An id is in one at most. */
struct list {
	uint32_t oldest, newest, count;
};

struct sim {
	enum policy policy;
	const struct sequence *seq;
	uint32_t capacity;
	struct list main, small, cold;
	uint32_t *newer, *older; /* by id: neighbours in its list */
	uint8_t *where;		 /* by id: enum place */
	uint8_t *uses;		 /* by id: since it came, as far as the policy counts */
	uint32_t hand;		 /* SIEVE */
	/* S3-FIFO and probation: units that the small queue may keep; uses that lead on into the main queue. */
	uint32_t share, promoting;
	/* Probation: how many have come before, by id; and how many must have come since. */
	uint64_t *came, units_come;
	uint32_t window;
	/* S3-FIFO: ids that went lately, a ring; ghost[] has the number of the entry that counts, from 1. */
	uint64_t *ghost, ghosts_next;
	uint32_t ghosts;
	/* MIN */
	size_t *next; /* by access: when the unit is wanted again */
	size_t *wanted; /* by id */
	struct heap_entry {
		size_t when;
		uint32_t id;
	} *heap;
	size_t heap_count;
};
enum place { OUTSIDE, IN_MAIN, IN_SMALL, IN_COLD };

const char *policy_name(enum policy policy)
{
	static const char *const names[] = {"LRU", "FIFO", "CLOCK", "SIEVE", "S3-FIFO", "SIEVE, probation", "optimum"};

	return names[policy];
}

static void *must_alloc(size_t count, size_t size)
{
	void *p = calloc(MAX(count, (size_t)1), size);

	if (!p) {
		fputs("replay: out of memory\n", stderr);
		exit(2);
	}
	return p;
}

static struct list *list_of(struct sim *s, uint8_t where)
{
	return where == IN_MAIN ? &s->main : where == IN_SMALL ? &s->small : &s->cold;
}

static void list_add(struct sim *s, uint32_t id, enum place where)
{
	struct list *l = list_of(s, where);

	assert(s->where[id] == OUTSIDE);
	s->where[id] = (uint8_t)where;
	s->newer[id] = NONE;
	s->older[id] = l->newest;
	if (l->newest != NONE)
		s->newer[l->newest] = id;
	else
		l->oldest = id;
	l->newest = id;
	l->count++;
}

static void list_remove(struct sim *s, uint32_t id)
{
	struct list *l = list_of(s, s->where[id]);

	assert(s->where[id] != OUTSIDE);
	if (s->hand == id)
		s->hand = s->newer[id];
	if (s->newer[id] != NONE)
		s->older[s->newer[id]] = s->older[id];
	else
		l->newest = s->older[id];
	if (s->older[id] != NONE)
		s->newer[s->older[id]] = s->newer[id];
	else
		l->oldest = s->newer[id];
	l->count--;
	s->where[id] = OUTSIDE;
}

/* ---- MIN: a heap, the last wanted on top; entries that are out of date are passed over ---- */

static void heap_push(struct sim *s, size_t when, uint32_t id)
{
	size_t i = s->heap_count++;

	for (; i && s->heap[(i - 1) / 2].when < when; i = (i - 1) / 2)
		s->heap[i] = s->heap[(i - 1) / 2];
	s->heap[i] = (struct heap_entry){when, id};
}

static struct heap_entry heap_pop(struct sim *s)
{
	struct heap_entry top = s->heap[0], last = s->heap[--s->heap_count];
	size_t i = 0;

	for (size_t child; (child = 2 * i + 1) < s->heap_count; i = child) {
		if (child + 1 < s->heap_count && s->heap[child + 1].when > s->heap[child].when)
			child++;
		if (s->heap[child].when <= last.when)
			break;
		s->heap[i] = s->heap[child];
	}
	s->heap[i] = last;
	return top;
}

static void min_wanted(struct sim *s, uint32_t id, size_t now)
{
	s->wanted[id] = s->next[now];
	heap_push(s, s->wanted[id], id);
}

static uint32_t min_victim(struct sim *s)
{
	struct heap_entry e;

	do {
		e = heap_pop(s);
	} while (s->where[e.id] == OUTSIDE || s->wanted[e.id] != e.when);
	return e.id;
}

/* ---- the victims ---- */

static uint32_t clock_victim(struct sim *s)
{
	for (;;) {
		uint32_t id = s->main.oldest;

		if (!s->uses[id])
			return id;
		s->uses[id] = 0;
		list_remove(s, id);
		list_add(s, id, IN_MAIN);
	}
}

static uint32_t sieve_victim(struct sim *s)
{
	for (;;) {
		uint32_t id = s->hand != NONE ? s->hand : s->main.oldest;

		s->hand = s->newer[id];
		if (!s->uses[id])
			return id;
		s->uses[id] = 0;
	}
}

static bool is_ghost(const struct sim *s, uint32_t id)
{
	return s->ghost[id] && s->ghosts_next - s->ghost[id] < s->ghosts;
}

/* From the small queue, if it has its share; what was used goes on. NONE: nothing is left there. */
static uint32_t small_victim(struct sim *s)
{
	while (s->small.count) {
		uint32_t id = s->small.oldest;

		if (s->uses[id] < s->promoting)
			return id;
		s->uses[id] = 0;
		list_remove(s, id);
		list_add(s, id, IN_MAIN);
	}
	return NONE;
}

static uint32_t s3fifo_main_victim(struct sim *s)
{
	for (;;) {
		uint32_t id = s->main.oldest;

		if (!s->uses[id])
			return id;
		s->uses[id]--;
		list_remove(s, id);
		list_add(s, id, IN_MAIN);
	}
}

static uint32_t queues_victim(struct sim *s)
{
	/* The main queue may be empty where cold units have taken the rest. */
	uint32_t id = s->small.count >= s->share || !s->main.count ? small_victim(s) : NONE;

	if (id == NONE)
		return s->policy == POLICY_S3FIFO ? s3fifo_main_victim(s) : sieve_victim(s);
	if (s->ghosts)
		s->ghost[id] = ++s->ghosts_next;
	return id;
}

static uint32_t victim(struct sim *s)
{
	switch (s->policy) {
	case POLICY_CLOCK:
		return clock_victim(s);
	case POLICY_SIEVE:
		return sieve_victim(s);
	case POLICY_S3FIFO:
	case POLICY_PROBATION:
		return queues_victim(s);
	case POLICY_MIN:
		return min_victim(s);
	default:
		return s->main.oldest;
	}
}

static void insert(struct sim *s, uint32_t id)
{
	s->uses[id] = 0;
	s->came[id] = ++s->units_come;
	list_add(s, id, s->share && !is_ghost(s, id) ? IN_SMALL : IN_MAIN);
	s->ghost[id] = 0;
}

static void hit(struct sim *s, uint32_t id)
{
	if (s->policy == POLICY_LRU && s->where[id] == IN_MAIN) {
		list_remove(s, id);
		list_add(s, id, IN_MAIN);
	}
	if (s->where[id] == IN_SMALL && s->units_come - s->came[id] < s->window)
		return;
	if (s->uses[id] < (s->policy == POLICY_S3FIFO ? 3 : 1))
		s->uses[id]++;
}

static void evict(struct sim *s)
{
	while (s->cold.count) {
		uint32_t id = s->cold.oldest;
		bool wanted = s->uses[id];

		list_remove(s, id);
		if (!wanted)
			return;
		insert(s, id);
		s->uses[id] = 1;
	}
	list_remove(s, victim(s));
}

static void sim_free(struct sim *s)
{
	free(s->newer);
	free(s->older);
	free(s->where);
	free(s->uses);
	free(s->came);
	free(s->ghost);
	free(s->next);
	free(s->wanted);
	free(s->heap);
}

static void sim_init(struct sim *s, enum policy policy, const struct sequence *seq, uint32_t capacity)
{
	struct list empty = {NONE, NONE, 0};

	*s = (struct sim){.policy = policy, .seq = seq, .capacity = capacity, .main = empty, .small = empty, .cold = empty,
		.hand = NONE};
	if (policy == POLICY_S3FIFO) {
		s->share = MAX(capacity / 10, 1u);
		s->promoting = 2;
		s->ghosts = capacity - capacity / 10;
	} else if (policy == POLICY_PROBATION) {
		s->share = MAX(MIN(MAX(capacity / 4, 24u), capacity * 9 / 10), 1u);
		s->promoting = 1;
		s->window = s->share * 3 / 4;
	}
	s->newer = must_alloc(seq->units, sizeof(*s->newer));
	s->older = must_alloc(seq->units, sizeof(*s->older));
	s->where = must_alloc(seq->units, 1);
	s->uses = must_alloc(seq->units, 1);
	s->came = must_alloc(seq->units, sizeof(*s->came));
	s->ghost = must_alloc(seq->units, sizeof(*s->ghost));
	if (policy != POLICY_MIN)
		return;
	s->next = must_alloc(seq->count, sizeof(*s->next));
	s->wanted = must_alloc(seq->units, sizeof(*s->wanted));
	s->heap = must_alloc(seq->count, sizeof(*s->heap));
	for (uint32_t i = 0; i < seq->units; i++)
		s->wanted[i] = SIZE_MAX;
	for (size_t i = seq->count; i--;) {
		s->next[i] = s->wanted[seq->accesses[i].id];
		s->wanted[seq->accesses[i].id] = i;
	}
}

uint64_t policy_hits(enum policy policy, const struct sequence *seq, uint32_t capacity, enum hint hint)
{
	uint64_t hits = 0;
	struct sim s;

	sim_init(&s, policy, seq, capacity);
	for (size_t i = 0; i < seq->count; i++) {
		uint32_t id = seq->accesses[i].id;

		if (s.where[id] != OUTSIDE) {
			hits++;
			hit(&s, id);
		} else {
			if (s.main.count + s.small.count + s.cold.count == capacity)
				evict(&s);
			insert(&s, id);
		}
		if (policy == POLICY_MIN)
			min_wanted(&s, id, i);
		if (hint == HINT_NOTHING || !seq->accesses[i].cold || s.where[id] == IN_COLD)
			continue;
		s.uses[id] = 0;
		if (hint == HINT_FIRST) {
			list_remove(&s, id);
			list_add(&s, id, IN_COLD);
		}
	}
	sim_free(&s);
	return hits;
}
