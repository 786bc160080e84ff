/* SPDX-License-Identifier: MIT */
/*
 * The depth-first search. The path of the last run is a stack of decisions: the next run repeats it up to the deepest
 * one that has an option left, takes that, and from there always the default, noting what else was possible. A state
 * that was met before ends the run. Bounds are tried one after the other, so the first failure is one of the cheapest.
 */
#include "internal.h"

#include <time.h>

#define MEMORY_DEFAULT (1ull << 30)
#define SHORTEN_RUNS 3000u
#define LOOK_BACK 32u /* steps without a choice may go round in a circle, too */
#define LOOK_ON_MIN 2000u
#define LOOK_ON_MAX 50000u

struct search {
	unsigned bound;
	bool prune;
	bool cut; /* something costs more than the bound */
	bool full;
	uint64_t pruned;
	struct states *states;
	struct action *options; /* of all nodes of the path */
	size_t noptions, capacity;
};

static void options_keep(struct search *s, struct node *node, unsigned count)
{
	if (s->noptions + count > s->capacity) {
		s->capacity = 2 * (s->capacity + ACTIONS_MAX);
		s->options = realloc(s->options, s->capacity * sizeof(*s->options));
		if (!s->options) {
			perror("explore");
			exit(2);
		}
	}
	memcpy(s->options + s->noptions, engine.options, count * sizeof(*s->options));
	node->first = (unsigned)s->noptions;
	node->count = count;
	node->index = 0;
	s->noptions += count;
}

enum cycle { NO_CYCLE, UNFAIR_CYCLE, LIVELOCK };

/*
 * Whether the state is the one of an earlier step of this run: it comes back for ever if the scheduler repeats what it
 * did. A fair one may, if nobody was ready all the time without running; and if no preemption was spent on it, since
 * code that tries again after each interruption is none to complain about.
 */
static enum cycle cycle_find(const struct node *now)
{
	unsigned always = engine.ready, ran = 0;

	for (uint64_t n = engine.step; n--;) {
		const struct node *node = &engine.path[n];

		always &= node->ready;
		ran |= 1u << node->action.thread;
		if (!node->hashed || node->hash[0] != now->hash[0] || node->hash[1] != now->hash[1])
			continue;
		engine.cycle = n;
		engine.cycle_end = engine.step;
		/* A store that stays in a buffer all the time is not fair, either. */
		return (always & ~ran) || engine.pending || node->spent != now->spent ? UNFAIR_CYCLE : LIVELOCK;
	}
	return NO_CYCLE;
}

static bool same_step(uint64_t a, uint64_t b)
{
	const struct node *x = &engine.path[a], *y = &engine.path[b];

	return !memcmp(&x->action, &y->action, sizeof(x->action)) && x->site == y->site && x->object == y->object;
}

/* States are looked at now and then only: the cycle may be shorter, and begin earlier. */
static void cycle_trim(void)
{
	uint64_t from = engine.cycle, length = engine.cycle_end - from, period = 1, n;

	for (;; period++) {
		for (n = from; n + period < from + length && same_step(n, n + period); n++)
			;
		if (length % period == 0 && n + period == from + length)
			break;
	}
	while (from && same_step(from - 1, from - 1 + period))
		from--;
	engine.cycle = from;
	engine.cycle_end = from + period;
}

/* Whether the run ends here: all that can follow is, or will be, tried from the same state elsewhere. */
static bool state_known(struct search *s, struct node *node)
{
	enum seen seen;

	node->hashed = true;
	state_hash(node->hash);
	seen = states_see(s->states, node->hash, s->bound - engine.spent);
	s->full |= seen == SEEN_FULL;
	if (seen == SEEN_NEW || seen == SEEN_MORE)
		return false;
	switch (cycle_find(node)) {
	case NO_CYCLE:
		if (seen == SEEN_FULL)
			return false;
		break;
	case LIVELOCK:
		cycle_trim();
		run_fail_livelock();
		return true;
	case UNFAIR_CYCLE:
		break;
	}
	s->pruned++;
	return true;
}

static int choose_deeper(void)
{
	struct search *s = engine.chooser_data;
	struct node *node = &engine.path[engine.step];
	unsigned count = 0;

	for (unsigned i = 0; i < engine.noptions; i++) {
		if (engine.spent + engine.options[i].cost <= s->bound)
			engine.options[count++] = engine.options[i];
		else
			s->cut = true;
	}
	if (s->prune && (count > 1 || engine.step % LOOK_BACK == LOOK_BACK - 1) && state_known(s, node))
		return -1;
	options_keep(s, node, count);
	return 0;
}

/* Prepares the run that takes the next option of the deepest node that has one; false: all were taken. */
static bool backtrack(struct search *s)
{
	for (uint64_t n = engine.step; n--;) {
		struct node *node = &engine.path[n];

		if (node->index + 1 < node->count) {
			node->index++;
			node->action = s->options[node->first + node->index];
			node->deviates = true;
			s->noptions = node->first + node->count;
			engine.prefix = n + 1;
			return true;
		}
		s->noptions = node->first;
	}
	return false;
}

void search_count_steps(struct explore_result *ret)
{
	ret->steps += engine.step - engine.restored;
	if (engine.step > ret->depth)
		ret->depth = engine.step;
}

static void result_count(struct explore_result *ret)
{
	ret->schedules++;
	ret->ended += !engine.stopped && !engine.failure;
	search_count_steps(ret);
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* When the search began, or the random runs. */
static double began;

bool search_out_of_time(uint64_t n)
{
	return engine.given->seconds > 0 && n % 64 == 0 && now() - began > engine.given->seconds;
}

/* One bound. Returns whether all was tried. */
static bool search_bound(struct search *s, struct explore_result *ret, struct best *best)
{
	uint64_t until = UINT64_MAX;

	s->cut = false;
	s->noptions = 0;
	engine.prefix = 0;
	do {
		engine.choose = choose_deeper;
		engine.chooser_data = s;
		run_once();
		result_count(ret);
		if (engine.failure == EXPLORE_DIVERGED) {
			best_offer(best);
			return false;
		}
		/* Another one may be shorter. */
		if (engine.failure && best_offer(best) && until == UINT64_MAX)
			until = ret->schedules + (ret->schedules < LOOK_ON_MIN ? LOOK_ON_MIN :
						 ret->schedules > LOOK_ON_MAX  ? LOOK_ON_MAX :
										 ret->schedules);
		if (search_out_of_time(ret->schedules) || ret->schedules == engine.given->schedules_max) {
			ret->out_of_time = true;
			return false;
		}
	} while (ret->schedules < until && backtrack(s));
	return !best->failure;
}

static void search(struct explore_result *ret, struct best *best)
{
	const struct explore_options *o = engine.given;
	struct search s = {.prune = !o->no_prune};
	unsigned bound = o->only_bound || o->bound == EXPLORE_UNBOUNDED ? o->bound : 0;

	engine.checkpoints = !o->no_checkpoints;
	s.states = states_new(o->memory ? o->memory : MEMORY_DEFAULT);
	for (;; bound++) {
		s.bound = bound;
		if (!search_bound(&s, ret, best)) {
			if (best->failure) {
				ret->bound = bound;
				ret->any_bound = true;
			}
			break;
		}
		ret->bound = bound;
		ret->any_bound = true;
		ret->exhausted = !s.cut;
		if (bound >= o->bound || ret->exhausted) {
			ret->complete = true;
			break;
		}
	}
	ret->pruned = s.pruned;
	ret->states = states_count(s.states);
	ret->memory_full = s.full;
	engine.prefix = 0;
	engine.checkpoints = false;
	states_free(s.states);
	free(s.options);
}

static void engine_begin(const struct explore_program *program, const struct explore_options *options)
{
	region_map();
	region_forget();
	context_begin();
	engine.program = program;
	engine.given = options;
	engine.steps_max = program->steps_max ? program->steps_max : STEPS_MAX_DEFAULT;
	engine.no_hold = program->no_hold || options->no_hold;
	engine.prefix = 0;
	engine.nthreads = 0;
	while (engine.nthreads < EXPLORE_THREADS_MAX && program->threads[engine.nthreads].run)
		engine.nthreads++;
	crash_catch();
}

static void engine_end(void)
{
	crash_catch_end();
	checkpoint_drop();
	free(engine.path);
	engine.path = NULL;
	engine.path_capacity = 0;
	free(engine.failure_text);
	engine.failure_text = NULL;
	engine.program = NULL;
	engine.given = NULL;
}

/* Runs the schedule and takes what is told of it. */
static void tell(struct schedule *schedule, struct explore_result *ret)
{
	engine.choose = choose_by_schedule;
	engine.chooser_data = schedule;
	engine.prefix = 0;
	story_begin();
	run_once();
	ret->story = story_end();
	ret->failure = engine.failure;
	ret->cost = engine.spent;
	ret->switches = engine.switches;
	ret->length = engine.step;
	if (engine.failure)
		ret->text = strdup(engine.failure_text ? engine.failure_text : "?");
}

static void tell_best(const struct best *best, struct explore_result *ret)
{
	struct schedule schedule;

	ret->schedule = strdup(best->schedule);
	if (!ret->schedule || schedule_parse(best->schedule, &schedule))
		abort(); /* it is our own */
	tell(&schedule, ret);
	free(schedule.choices);
	/* It failed when it was found, and no longer: what else than the schedule decides? */
	if (ret->failure != best->failure) {
		ret->failure = EXPLORE_DIVERGED;
		free(ret->text);
		if (asprintf(&ret->text, "this schedule has failed (%s), but does not when it is run again: the program is not "
			"deterministic", explore_failure_name(best->failure)) < 0)
			ret->text = NULL;
	}
}

void explore_search(const struct explore_program *program, const struct explore_options *options,
	struct explore_result *ret)
{
	struct best best = {.failure = EXPLORE_OK};
	double start = now();

	memset(ret, 0, sizeof(*ret));
	began = start;
	engine_begin(program, options);
	search(ret, &best);
	began = now();
	if (!best.failure && options->random)
		random_runs(ret, &best);
	if (best.failure) {
		best_shorten(&best, SHORTEN_RUNS, ret);
		tell_best(&best, ret);
	}
	best_end(&best);
	engine_end();
	ret->seconds = now() - start;
}

int explore_replay(const struct explore_program *program, const char *text, struct explore_result *ret)
{
	static const struct explore_options none;
	struct schedule schedule;
	int r;

	memset(ret, 0, sizeof(*ret));
	r = schedule_parse(text, &schedule);
	if (r)
		return r;
	engine_begin(program, &none);
	tell(&schedule, ret);
	result_count(ret);
	ret->schedule = schedule_text();
	free(schedule.choices);
	engine_end();
	return 0;
}

void explore_result_end(struct explore_result *ret)
{
	free(ret->text);
	free(ret->schedule);
	free(ret->story);
	memset(ret, 0, sizeof(*ret));
}
