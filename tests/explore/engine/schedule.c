/* SPDX-License-Identifier: MIT */
/*
 * Schedules: as text, followed again, and made shorter. A schedule is shortened by running the list of its actions with
 * a stretch of one thread removed or moved to another stretch of the same thread, as far as that is possible, and
 * keeping what fails in the same way and is shorter.
 */
#include "internal.h"

#include <ctype.h>

#define SHORTEN_STEPS 5000000u

/* ---- text ---- */

char *schedule_text(void)
{
	char *text = NULL;
	size_t size;
	FILE *f = open_memstream(&text, &size);
	const char *comma = "";

	if (!f)
		return NULL;
	for (uint64_t n = 0; n < engine.step; n++) {
		const struct node *node = &engine.path[n];
		struct action a = node->action;

		if (!node->deviates)
			continue;
		fprintf(f, "%s%llu:", comma, (unsigned long long)n);
		if (a.kind == ACT_DRAIN) {
			fprintf(f, "d%u", a.thread + 1);
		} else {
			if (a.thread != node->otherwise)
				fprintf(f, "%u", a.thread + 1);
			if (a.kind == ACT_HOLD)
				fputc('h', f);
			if (a.variant)
				fprintf(f, "c%u", a.variant);
		}
		comma = ",";
	}
	if (!*comma)
		fputc('-', f);
	if (engine.failure == EXPLORE_LIVELOCK)
		fprintf(f, "/%llu-%llu", (unsigned long long)engine.cycle, (unsigned long long)engine.cycle_end);
	fclose(f);
	return text;
}

/* A decimal number at *text, which is moved behind it. */
static bool number(const char **text, uint64_t max, uint64_t *ret)
{
	const char *s = *text;
	uint64_t v = 0;

	if (!isdigit((unsigned char)*s))
		return false;
	for (; isdigit((unsigned char)*s); s++) {
		v = 10 * v + (uint64_t)(*s - '0');
		if (v > max)
			return false;
	}
	*text = s;
	*ret = v;
	return true;
}

static bool choice_parse(const char **text, struct choice *ret)
{
	struct choice c = {.kind = ACT_RUN};
	uint64_t v;

	if (!number(text, UINT32_MAX, &c.step) || *(*text)++ != ':')
		return false;
	if (**text == 'd') {
		++*text;
		if (!number(text, EXPLORE_THREADS_MAX, &v) || !v)
			return false;
		c.kind = ACT_DRAIN;
		c.thread = (uint8_t)v;
		*ret = c;
		return true;
	}
	if (isdigit((unsigned char)**text)) {
		if (!number(text, EXPLORE_THREADS_MAX, &v) || !v)
			return false;
		c.thread = (uint8_t)v;
	}
	if (**text == 'h') {
		++*text;
		c.kind = ACT_HOLD;
	} else if (**text == 'c') {
		++*text;
		if (!number(text, CHOICES_MAX - 1, &v))
			return false;
		c.variant = (uint8_t)v;
	} else if (!c.thread) {
		return false;
	}
	*ret = c;
	return true;
}

static bool cycle_parse(const char *text, struct schedule *s)
{
	return number(&text, UINT32_MAX, &s->cycle) && *text++ == '-' && number(&text, UINT32_MAX, &s->cycle_end) && !*text &&
		s->cycle < s->cycle_end;
}

int schedule_parse(const char *text, struct schedule *ret)
{
	struct schedule s = {.choices = calloc(strlen(text) + 1, sizeof(*s.choices))};
	bool good = true;

	if (!s.choices)
		return -ENOMEM;
	if (*text == '-') {
		text++;
	} else {
		do {
			good = choice_parse(&text, &s.choices[s.count]) &&
				(!s.count || s.choices[s.count - 1].step < s.choices[s.count].step);
			s.count++;
		} while (good && *text == ',' && text++);
	}
	if (good && *text == '/')
		good = cycle_parse(text + 1, &s);
	else
		good = good && !*text;
	if (!good) {
		free(s.choices);
		return -EINVAL;
	}
	*ret = s;
	return 0;
}

/* ---- following ---- */

/* Of an action among the options, or -1. */
static int option_find(unsigned thread, unsigned kind, unsigned variant)
{
	for (unsigned i = 0; i < engine.noptions; i++) {
		struct action a = engine.options[i];

		if (a.thread == thread && a.kind == kind && a.variant == variant)
			return (int)i;
	}
	return -1;
}

/* Once more what the steps of the cycle did; then it's clear that it goes on so. */
static int choose_cycle(const struct schedule *s)
{
	const struct node *then = &engine.path[s->cycle + (engine.step - s->cycle_end)];
	struct action a = then->action;

	if (engine.step == 2 * s->cycle_end - s->cycle) {
		engine.cycle = s->cycle;
		engine.cycle_end = s->cycle_end;
		run_fail_livelock();
		return -1;
	}
	if (actor(a.thread)->op.site != then->site || actor(a.thread)->op.object != then->object)
		return -1;
	return option_find(a.thread, a.kind, a.variant);
}

int choose_by_schedule(void)
{
	struct schedule *s = engine.chooser_data;
	const struct choice *c = s->choices + s->next;
	int i = 0;

	if (s->cycle_end && engine.step >= s->cycle_end) {
		i = choose_cycle(s);
	} else if (s->next < s->count && c->step == engine.step) {
		s->next++;
		i = option_find(c->thread ? c->thread - 1u : engine.options[0].thread, c->kind, c->variant);
	}
	if (i < 0 && !engine.failure)
		run_fail(EXPLORE_DIVERGED, NULL, "step %llu can't be done as the schedule says: it is another program's, or from "
			"before a change", (unsigned long long)engine.step);
	return i;
}

/* ---- shortening ---- */

static bool shorter_than(const struct best *best)
{
	if (engine.spent != best->cost)
		return engine.spent < best->cost;
	/* What happens in any memory model is easier to follow. */
	if (engine.holds != best->holds)
		return engine.holds < best->holds;
	if (engine.switches != best->switches)
		return engine.switches < best->switches;
	return engine.step < best->length;
}

bool best_offer(struct best *best)
{
	if (!engine.failure || (best->failure && !shorter_than(best)))
		return false;
	best->failure = engine.failure;
	best->site = engine.failure_site;
	best->cost = engine.spent;
	best->holds = engine.holds;
	best->switches = engine.switches;
	best->length = engine.step;
	free(best->schedule);
	best->schedule = schedule_text();
	free(best->actions);
	best->actions = calloc(best->length + 1, sizeof(*best->actions));
	if (!best->schedule || !best->actions) {
		perror("explore");
		exit(2);
	}
	for (uint64_t n = 0; n < best->length; n++)
		best->actions[n] = engine.path[n].action;
	return true;
}

void best_end(struct best *best)
{
	free(best->actions);
	free(best->schedule);
}

/* A list of actions that is followed as far as possible. */
struct wish {
	struct action *actions;
	uint64_t count, next;
};

static int choose_by_wish(void)
{
	struct wish *w = engine.chooser_data;
	unsigned kind = op_kind(&actor(engine.options[0].thread)->op);

	/* The thread's own choice comes now, whoever was to be next. */
	if ((kind == EXPLORE_CHOOSE || kind == EXPLORE_ALLOC) && engine.options[0].thread == WORLD->current &&
		(w->next == w->count || w->actions[w->next].thread != WORLD->current))
		return 0;
	while (w->next < w->count) {
		struct action a = w->actions[w->next++];
		int i = option_find(a.thread, a.kind, a.variant);

		if (i < 0 && a.kind != ACT_DRAIN)
			i = option_find(a.thread, ACT_RUN, 0);
		if (i >= 0)
			return i;
	}
	return 0;
}

static bool same_stretch(struct action a, struct action b)
{
	return a.thread == b.thread && (a.kind == ACT_DRAIN) == (b.kind == ACT_DRAIN);
}

static uint64_t stretch_end(const struct best *best, uint64_t from)
{
	uint64_t to = from + 1;

	while (to < best->length && same_stretch(best->actions[to], best->actions[from]))
		to++;
	return to;
}

/* [from, to) goes to `where` in the list, or is removed if that is UINT64_MAX. */
static void wish_make(struct wish *w, const struct best *best, uint64_t from, uint64_t to, uint64_t where)
{
	w->count = w->next = 0;
	for (uint64_t n = 0; n <= best->length; n++) {
		if (n == where)
			for (uint64_t m = from; m < to; m++)
				w->actions[w->count++] = best->actions[m];
		if (n < best->length && (n < from || n >= to))
			w->actions[w->count++] = best->actions[n];
	}
}

static bool wish_try(struct wish *w, struct best *best, struct explore_result *ret)
{
	engine.choose = choose_by_wish;
	engine.chooser_data = w;
	engine.prefix = 0;
	run_once();
	search_count_steps(ret);
	return engine.failure == best->failure && engine.failure_site.line == best->site.line &&
		engine.failure_site.file == best->site.file && best_offer(best);
}

/* Tries all changes to the stretch that begins at `from`. True: the best is another one now. */
static bool stretch_improve(struct wish *w, struct best *best, uint64_t from, uint64_t *runs, struct explore_result *ret)
{
	uint64_t to = stretch_end(best, from);

	for (uint64_t at = 0; at <= best->length && *runs; at = at < best->length ? stretch_end(best, at) : at + 1) {
		uint64_t where = at == from ? UINT64_MAX : at;

		if (at == to)
			continue;
		wish_make(w, best, from, to, where);
		--*runs;
		if (wish_try(w, best, ret))
			return true;
	}
	for (uint64_t n = from; n < to && *runs; n++) {
		if (best->actions[n].kind != ACT_HOLD && !best->actions[n].variant)
			continue;
		wish_make(w, best, 0, 0, UINT64_MAX);
		w->actions[n].kind = ACT_RUN;
		w->actions[n].variant = 0;
		--*runs;
		if (wish_try(w, best, ret))
			return true;
	}
	return false;
}

void best_shorten(struct best *best, uint64_t runs, struct explore_result *ret)
{
	struct wish w = {.actions = calloc(best->length + 1, sizeof(*w.actions))};
	uint64_t from = 0;

	/* The states of these are only known to the search; and what isn't deterministic does not get better. */
	if (!w.actions || best->failure == EXPLORE_LIVELOCK || best->failure == EXPLORE_DIVERGED) {
		free(w.actions);
		return;
	}
	/* Long ones must not take for ever. */
	if (best->length > SHORTEN_STEPS / runs)
		runs = SHORTEN_STEPS / best->length;
	while (from < best->length && runs) {
		if (stretch_improve(&w, best, from, &runs, ret)) {
			from = 0;
			free(w.actions);
			w.actions = calloc(best->length + 1, sizeof(*w.actions));
			if (!w.actions)
				return;
		} else {
			from = stretch_end(best, from);
		}
	}
	free(w.actions);
}
