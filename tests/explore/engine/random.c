/* SPDX-License-Identifier: MIT */
/*
 * Runs at random, where the search does not come to: with random priorities of threads that change at a few random
 * steps (PCT: a bug that needs d such points is hit with a probability that can be given, 1 / (n * steps^(d-1))), and
 * with uniform choices, to compare. Each run has a seed of its own, which follows from the one that was given.
 */
#include "internal.h"

#define DEPTH_DEFAULT 3u
#define DEPTH_MAX 16u
#define HOLD_ONE_IN 8u
#define DRAIN_ONE_IN 8u

struct dice {
	uint64_t state;
	uint64_t steps; /* of a run, so far as is known */
	bool holds;	/* stores are held back in this run */
	unsigned depth;
	int priority[EXPLORE_THREADS_MAX]; /* the highest runs; above DEPTH_MAX at first */
	uint64_t change[DEPTH_MAX];	   /* the thread that runs at this step gets priority DEPTH_MAX - 1 - index */
	int lowest;			   /* what yields gets a lower one each time */
};

/* splitmix64 */
static uint64_t dice_next(struct dice *d)
{
	uint64_t z = d->state += 0x9e3779b97f4a7c15ull;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

static uint64_t dice_below(struct dice *d, uint64_t below)
{
	return dice_next(d) % below;
}

static void dice_begin(struct dice *d, uint64_t seed, uint64_t run)
{
	d->state = seed * 0xd1342543de82ef95ull + run;
	d->holds = dice_below(d, 2);
	d->lowest = 0;
	for (unsigned i = 0; i < engine.nthreads; i++) {
		unsigned j = (unsigned)dice_below(d, i + 1);

		d->priority[i] = d->priority[j];
		d->priority[j] = (int)(DEPTH_MAX + i);
	}
	for (unsigned k = 0; k + 1 < d->depth; k++)
		d->change[k] = dice_below(d, d->steps);
}

/* How the thread does it: the place among the options. */
static int how(struct dice *d, unsigned thread)
{
	int found = -1, seen = 0;

	for (unsigned i = 0; i < engine.noptions; i++) {
		struct action a = engine.options[i];

		if (a.thread != thread || a.kind == ACT_DRAIN)
			continue;
		if (a.kind == ACT_HOLD) {
			if (d->holds && !dice_below(d, HOLD_ONE_IN))
				return (int)i;
		} else if (!dice_below(d, (unsigned)++seen)) {
			found = (int)i;
		}
	}
	return found;
}

/* A buffered store that reaches memory now, or -1. */
static int drain(struct dice *d)
{
	unsigned first = engine.noptions, count;

	while (first && engine.options[first - 1].kind == ACT_DRAIN)
		first--;
	count = engine.noptions - first;
	if (!count || (first && dice_below(d, DRAIN_ONE_IN)))
		return -1;
	return (int)(first + dice_below(d, count));
}

static unsigned threads_possible(void)
{
	unsigned mask = 0;

	for (unsigned i = 0; i < engine.noptions; i++)
		if (engine.options[i].kind != ACT_DRAIN)
			mask |= 1u << engine.options[i].thread;
	return mask;
}

static unsigned highest(const struct dice *d, unsigned mask)
{
	unsigned best = EXPLORE_THREADS_MAX;

	for (unsigned i = 0; i < engine.nthreads; i++)
		if (mask >> i & 1 && (best == EXPLORE_THREADS_MAX || d->priority[i] > d->priority[best]))
			best = i;
	return best;
}

static int choose_pct(void)
{
	struct dice *d = engine.chooser_data;
	int i = drain(d);
	unsigned mask = threads_possible(), thread;

	if (i >= 0)
		return i;
	thread = highest(d, mask);
	for (unsigned k = 0; k + 1 < d->depth; k++) {
		if (d->change[k] == engine.step) {
			d->priority[thread] = (int)(DEPTH_MAX - 1 - k);
			thread = highest(d, mask);
		}
	}
	/* Who waits for others goes behind all. */
	if (op_kind(&actor(thread)->op) == EXPLORE_RELAX)
		d->priority[thread] = --d->lowest;
	return how(d, thread);
}

static int choose_uniform(void)
{
	struct dice *d = engine.chooser_data;
	int i = drain(d);
	unsigned mask = threads_possible(), nth;

	if (i >= 0)
		return i;
	nth = (unsigned)dice_below(d, (unsigned)__builtin_popcount(mask));
	while (nth--)
		mask &= mask - 1;
	return how(d, (unsigned)__builtin_ctz(mask));
}

static void runs(chooser_fn *choose, struct explore_random *ret, struct explore_result *result, struct best *best)
{
	const struct explore_options *o = engine.given;
	struct dice d = {.steps = result->depth ? result->depth : 1, .depth = o->depth ? o->depth : DEPTH_DEFAULT};

	if (d.depth > DEPTH_MAX)
		d.depth = DEPTH_MAX;
	for (uint64_t n = 0; n < o->random && !search_out_of_time(n); n++) {
		dice_begin(&d, o->seed, n);
		engine.choose = choose;
		engine.chooser_data = &d;
		run_once();
		ret->runs++;
		search_count_steps(result);
		if (engine.step > d.steps)
			d.steps = engine.step;
		if (!engine.failure)
			continue;
		if (!ret->failures++)
			ret->first = n + 1;
		best_offer(best);
	}
}

void random_runs(struct explore_result *ret, struct best *best)
{
	runs(choose_pct, &ret->pct, ret, best);
	runs(choose_uniform, &ret->uniform, ret, best);
}
