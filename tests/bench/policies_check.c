/* SPDX-License-Identifier: MIT */
/*
 * The policies once more, as plainly as can be: arrays that are searched and shifted. Nothing is shared with policies.c, so
 * that a mistake would have to be made twice.
 */
#include "policies.h"

#define CAPACITY_MAX 140
#define UNITS_MAX 200
#define LENGTH_MAX 800

struct item {
	uint32_t id;
	int uses;
	size_t came, used;
};

static struct item items[2 * CAPACITY_MAX];
static int count;

static int find(uint32_t id)
{
	for (int i = 0; i < count; i++)
		if (items[i].id == id)
			return i;
	return -1;
}

static struct item take(int at)
{
	struct item item = items[at];

	memmove(&items[at], &items[at + 1], sizeof(*items) * (size_t)(--count - at));
	return item;
}

static size_t next_use(const struct sequence *s, size_t after, uint32_t id)
{
	for (size_t i = after + 1; i < s->count; i++)
		if (s->accesses[i].id == id)
			return i;
	return SIZE_MAX;
}

static int least(size_t (*key)(const struct item *))
{
	int best = 0;

	for (int i = 1; i < count; i++)
		if (key(&items[i]) < key(&items[best]))
			best = i;
	return best;
}
static size_t by_came(const struct item *i)
{
	return i->came;
}
static size_t by_used(const struct item *i)
{
	return i->used;
}

/* The place of the victim among the items, which are in the order in which they came (or were put back). */
static int naive_victim(enum policy policy, const struct sequence *s, size_t now, int *hand)
{
	int best = 0;

	switch (policy) {
	case POLICY_LRU:
		return least(by_used);
	case POLICY_CLOCK:
		while (items[0].uses) {
			struct item first = take(0);

			first.uses = 0;
			items[count++] = first;
		}
		return 0;
	case POLICY_SIEVE:
		for (; items[*hand % count].uses; ++*hand)
			items[*hand % count].uses = 0;
		return *hand %= count;
	case POLICY_MIN:
		for (int i = 1; i < count; i++)
			if (next_use(s, now, items[i].id) > next_use(s, now, items[best].id))
				best = i;
		return best;
	default:
		return least(by_came);
	}
}

static uint64_t naive_hits(enum policy policy, const struct sequence *s, uint32_t capacity)
{
	uint64_t hits = 0;
	int hand = 0;

	count = 0;
	for (size_t now = 0; now < s->count; now++) {
		uint32_t id = s->accesses[now].id;
		int at = find(id);

		if (at >= 0) {
			hits++;
			items[at].uses = 1;
			items[at].used = now;
			continue;
		}
		if (count == (int)capacity) {
			/* A hand at the end begins again before anything new comes there. */
			at = naive_victim(policy, s, now, &hand);
			take(at);
			if (policy == POLICY_SIEVE && hand == count)
				hand = 0;
		}
		items[count++] = (struct item){id, 0, now, now};
	}
	return hits;
}

/* S3-FIFO has three queues; its naive form is that of the paper's listing, with strings of ids. */
struct string {
	uint32_t ids[LENGTH_MAX];
	int n;
};
static int string_find(const struct string *q, uint32_t id)
{
	for (int i = 0; i < q->n; i++)
		if (q->ids[i] == id)
			return i;
	return -1;
}
static uint32_t string_shift(struct string *q)
{
	uint32_t id = q->ids[0];

	memmove(q->ids, q->ids + 1, sizeof(*q->ids) * (size_t)--q->n);
	return id;
}
static void string_push(struct string *q, uint32_t id)
{
	q->ids[q->n++] = id;
}

static uint64_t naive_s3fifo(const struct sequence *s, uint32_t capacity)
{
	static struct string small, large, ghost;
	int freq[UNITS_MAX] = {0}, share = MAX((int)capacity / 10, 1), ghosts = (int)(capacity - capacity / 10);
	uint64_t hits = 0;

	small.n = large.n = ghost.n = 0;
	for (size_t i = 0; i < s->count; i++) {
		uint32_t id = s->accesses[i].id;
		bool evicted = small.n + large.n < (int)capacity;
		int was;

		if (string_find(&small, id) >= 0 || string_find(&large, id) >= 0) {
			hits++;
			freq[id] = MIN(freq[id] + 1, 3);
			continue;
		}
		if (!evicted && small.n >= share) {
			while (!evicted && small.n) {
				uint32_t t = string_shift(&small);

				if (freq[t] > 1) {
					freq[t] = 0;
					string_push(&large, t);
				} else {
					int old = string_find(&ghost, t);

					/* The newest entry of a unit counts; an older one would take a place all the same. */
					if (old >= 0)
						ghost.ids[old] = UINT32_MAX;
					string_push(&ghost, t);
					while (ghost.n > ghosts)
						string_shift(&ghost);
					evicted = true;
				}
			}
		}
		while (!evicted) {
			uint32_t t = string_shift(&large);

			if (freq[t]) {
				freq[t]--;
				string_push(&large, t);
			} else {
				evicted = true;
			}
		}
		freq[id] = 0;
		was = string_find(&ghost, id);
		string_push(was >= 0 ? &large : &small, id);
		if (was >= 0)
			ghost.ids[was] = UINT32_MAX;
	}
	return hits;
}

/* Probation: two strings, a hand, and the age of each unit, counted up one by one. */
static uint64_t naive_probation(const struct sequence *s, uint32_t capacity)
{
	static struct string small, large;
	int age[UNITS_MAX] = {0}, hand = 0, share = (int)capacity / 4, window;
	bool used[UNITS_MAX] = {false};
	uint64_t hits = 0;

	if (share < 24)
		share = (int)capacity * 9 / 10 < 24 ? (int)capacity * 9 / 10 : 24;
	if (share == 0)
		share = 1;
	window = share * 3 / 4;
	small.n = large.n = 0;
	for (size_t i = 0; i < s->count; i++) {
		uint32_t id = s->accesses[i].id;
		bool full = small.n + large.n == (int)capacity;

		if (string_find(&small, id) >= 0 || string_find(&large, id) >= 0) {
			hits++;
			used[id] |= string_find(&large, id) >= 0 || age[id] >= window;
			continue;
		}
		for (int left = small.n >= share ? small.n : 0; full && left; left--) {
			uint32_t t = string_shift(&small);

			full = used[t];
			used[t] = false;
			if (full)
				string_push(&large, t);
		}
		if (full) {
			for (; used[large.ids[hand % large.n]]; hand++)
				used[large.ids[hand % large.n]] = false;
			hand %= large.n;
			memmove(large.ids + hand, large.ids + hand + 1, sizeof(*large.ids) * (size_t)(--large.n - hand));
			if (hand == large.n)
				hand = 0;
		}
		for (uint32_t u = 0; u < s->units; u++)
			age[u]++;
		age[id] = 0;
		used[id] = false;
		string_push(&small, id);
	}
	return hits;
}

/* The most hits that any choice of victims gives, by trying all: units are bits of `in`. */
static unsigned best_hits(const struct sequence *s, size_t now, unsigned in, uint32_t capacity)
{
	static short known[16][1 << 7];
	unsigned bit, best = 0;

	if (now == 0)
		memset(known, -1, sizeof(known));
	if (now == s->count)
		return 0;
	if (known[now][in] >= 0)
		return (unsigned)known[now][in];
	bit = 1u << s->accesses[now].id;
	if (in & bit)
		best = 1 + best_hits(s, now + 1, in, capacity);
	else if ((uint32_t)__builtin_popcount(in) < capacity)
		best = best_hits(s, now + 1, in | bit, capacity);
	else
		for (unsigned v = 0; v < s->units; v++)
			if (in & 1u << v)
				best = MAX(best, best_hits(s, now + 1, (in & ~(1u << v)) | bit, capacity));
	known[now][in] = (short)best;
	return best;
}

static uint64_t next_random(uint64_t *x)
{
	*x = *x * 6364136223846793005ull + 1442695040888963407ull;
	return *x >> 33;
}

/* Some uniform, some skewed, some in loops, and mixtures of them. */
static void make(struct sequence *s, uint64_t *x, size_t length, uint32_t units)
{
	unsigned kind = (unsigned)(next_random(x) % 4);

	s->count = length;
	s->units = units;
	for (size_t i = 0; i < length; i++) {
		uint32_t r = (uint32_t)(next_random(x) % units);

		s->accesses[i] = (struct access){
			.id = kind == 0 ? r :
				kind == 1 ? (uint32_t)((uint64_t)r * (next_random(x) % units) / units) :
				kind == 2 ? (uint32_t)(i % units) :
					    (next_random(x) % 3 ? r / 4 : (uint32_t)(i % units)),
			.run = 1,
		};
	}
}

static bool same(const char *what, uint64_t seed, const struct sequence *s, uint32_t capacity, uint64_t is, uint64_t should)
{
	if (is == should)
		return true;
	fprintf(stderr, "replay: %s, sequence %ju of %zu accesses to %u units, capacity %u: %ju hits, should be %ju\n", what,
		(uintmax_t)seed, s->count, s->units, capacity, (uintmax_t)is, (uintmax_t)should);
	return false;
}

static uint64_t naive(enum policy policy, const struct sequence *s, uint32_t capacity)
{
	return policy == POLICY_S3FIFO ? naive_s3fifo(s, capacity) :
		policy == POLICY_PROBATION ? naive_probation(s, capacity) : naive_hits(policy, s, capacity);
}

/* The page cache without hints is SIEVE with probation. */
static bool check_cache(uint64_t seed, const struct sequence *s, uint32_t capacity)
{
	static const uint32_t mapping[UNITS_MAX] = {[0 ... UNITS_MAX - 1] = 1};
	static uint64_t number[UNITS_MAX];
	struct cache_replay how = {.unit_size = 4096, .mapping = mapping, .number = number, .mappings = 1};
	struct cache_replay_result r;

	for (unsigned i = 0; i < UNITS_MAX; i++)
		number[i] = i;
	cache_replay(&how, s, capacity, &r);
	return same("the page cache", seed, s, capacity, r.hits, naive(POLICY_PROBATION, s, capacity)) &&
		same("reads of the page cache", seed, s, capacity, r.reads, s->count - r.hits);
}

bool policies_check(void)
{
	static struct access accesses[LENGTH_MAX];
	struct sequence s = {.accesses = accesses};

	for (uint64_t seed = 1; seed <= 3000; seed++) {
		uint64_t x = seed;
		uint32_t capacity = 1 + (uint32_t)(next_random(&x) % CAPACITY_MAX), k;

		make(&s, &x, 1 + next_random(&x) % LENGTH_MAX, 1 + (uint32_t)(next_random(&x) % UNITS_MAX));
		for (enum policy p = 0; p < POLICIES; p++) {
			uint64_t hits = policy_hits(p, &s, capacity, HINT_NOTHING);

			if (!same(policy_name(p), seed, &s, capacity, hits, naive(p, &s, capacity)))
				return false;
			/* Hints that nobody gives change nothing. */
			if (p != POLICY_MIN && !same("hints", seed, &s, capacity, policy_hits(p, &s, capacity, HINT_FIRST), hits))
				return false;
		}
		if (capacity >= 8 && seed % 10 == 0 && !check_cache(seed, &s, capacity))
			return false;
		make(&s, &x, 1 + next_random(&x) % 16, 2 + (uint32_t)(next_random(&x) % 6));
		k = 1 + (uint32_t)(next_random(&x) % 5);
		if (!same("MIN beside a search", seed, &s, k, policy_hits(POLICY_MIN, &s, k, HINT_NOTHING), best_hits(&s, 0, 0, k)))
			return false;
	}
	return true;
}
