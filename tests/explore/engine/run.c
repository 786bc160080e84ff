/* SPDX-License-Identifier: MIT */
/*
 * One run: zeroed memory, setup(), each thread up to its first stop, then step after step as the chooser says, then
 * check(). Whatever fails ends the run: run_fail() notes it and, if an actor called it, never returns there.
 */
#include "internal.h"

#include <assert.h>
#include <stdarg.h>

#define CHECKPOINT_EVERY 16u

struct engine engine;
struct sync_self sync_self;
bool explore_telling;

static const char *const failure_names[] = {
	[EXPLORE_OK] = "ok",
	[EXPLORE_FAILED] = "failed",
	[EXPLORE_ASSERTED] = "assertion",
	[EXPLORE_DEADLOCK] = "deadlock",
	[EXPLORE_LIVELOCK] = "livelock",
	[EXPLORE_STEPS] = "too many steps",
	[EXPLORE_LOCK_ORDER] = "lock order",
	[EXPLORE_SLEPT] = "slept under a lock",
	[EXPLORE_MISUSE] = "misuse",
	[EXPLORE_CRASHED] = "crash",
	[EXPLORE_DIVERGED] = "not deterministic",
};

const char *explore_failure_name(enum explore_failure failure)
{
	return failure_names[failure];
}

/* ---- failures ---- */

static void vfail(enum explore_failure kind, const struct explore_site *site, const char *format, va_list ap)
{
	if (!engine.running) {
		fputs("explore: outside of a run: ", stderr);
		vfprintf(stderr, format, ap);
		fputc('\n', stderr);
		abort();
	}
	if (!engine.failure) {
		engine.failure = kind;
		engine.failure_site = site ? *site : (struct explore_site){NULL, NULL, 0};
		if (explore_telling && vasprintf(&engine.failure_text, format, ap) < 0)
			engine.failure_text = NULL;
	}
	if (engine.inside) {
		context_leave();
		abort(); /* a run that has failed is not entered again */
	}
}

void run_fail(enum explore_failure kind, const struct explore_site *site, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	vfail(kind, site, format, ap);
	va_end(ap);
}

void run_fail_livelock(void)
{
	run_fail(EXPLORE_LIVELOCK, NULL, "steps %llu to %llu repeat for ever: threads run, but get nowhere",
		(unsigned long long)engine.cycle, (unsigned long long)engine.cycle_end - 1);
}

void explore_fail_at(const struct explore_site *site, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	vfail(EXPLORE_FAILED, site, format, ap);
	va_end(ap);
	abort(); /* the scheduler itself does not call this */
}

/* Instead of the C library's: assert() in the code under test. */
void __assert_fail(const char *assertion, const char *file, unsigned line, const char *function)
{
	struct explore_site site = {file, function, line};

	if (engine.inside)
		run_fail(EXPLORE_ASSERTED, &site, "assertion failed: %s (%s, %s())", assertion, story_place(&site),
			function ? function : "?");
	fprintf(stderr, "%s:%u: %s: assertion failed: %s\n", file, line, function ? function : "?", assertion);
	abort();
}

int explore_self(void)
{
	return engine.alone ? -1 : (int)engine.self;
}

const void *explore_param(void)
{
	return engine.program->param;
}

/* ---- actors ---- */

static void alone_entry(unsigned i)
{
	for (;;) {
		engine.alone_fn(engine.data);
		context_leave();
	}
}

static void alone(void (*fn)(void *data))
{
	if (!fn)
		return;
	engine.alone = true;
	engine.alone_fn = fn;
	context_enter(ALONE);
	engine.alone = false;
	if (unlikely(actor(ALONE)->nheld))
		run_fail(EXPLORE_MISUSE, actor(ALONE)->held[0].site, "setup() or check() ends, but holds lock %s",
			story_held(&actor(ALONE)->held[0]));
}

static void thread_entry(unsigned i)
{
	engine.program->threads[i].run(engine.data);
	op_end(i);
	context_leave();
}

static void run_reset(void)
{
	engine.step = 0;
	engine.spent = engine.switches = engine.holds = engine.pending = 0;
	engine.failure = EXPLORE_OK;
	free(engine.failure_text);
	engine.failure_text = NULL;
	engine.stopped = false;
	engine.last = ALONE;
	engine.running = true;
	story_names_reset();
}

static void setup(void)
{
	const struct explore_program *program = engine.program;

	region_reset();
	engine.allocs_until_failure = 0;
	engine.alone = true;
	engine.data = program->data_size ? explore_alloc(program->data_size) : NULL;
	engine.alone = false;
	if (program->data_size && !engine.data)
		run_fail(EXPLORE_MISUSE, NULL, "the program's data don't fit into the heap");
	context_make(ALONE, alone_entry);
	WORLD->current = ALONE;
	if (!engine.failure)
		alone(program->setup);
}

static void threads_begin(void)
{
	WORLD->alloc_failures = engine.program->alloc_failures;
	for (unsigned i = 0; i < engine.nthreads && !engine.failure; i++) {
		struct actor *t = actor(i);

		context_make(i, thread_entry);
		t->state = ACTOR_READY;
		context_enter(i);
		if (t->state == ACTOR_READY && !engine.failure)
			op_announce(i);
	}
	if (!engine.failure && engine.program->invariant)
		alone(engine.program->invariant);
}

/* ---- steps ---- */

static void run_end(void)
{
	for (unsigned i = 0; i < engine.nthreads; i++) {
		if (actor(i)->state != ACTOR_ENDED) {
			char *who = explore_telling ? story_deadlock() : NULL;

			run_fail(EXPLORE_DEADLOCK, NULL, "nobody can go on%s", who ? who : "");
			free(who);
			return;
		}
	}
	region_heap_check();
	if (!engine.failure)
		alone(engine.program->check);
}

static struct node *path_node(void)
{
	if (engine.step == engine.path_capacity) {
		engine.path_capacity = engine.path_capacity ? 2 * engine.path_capacity : 1024;
		engine.path = realloc(engine.path, engine.path_capacity * sizeof(*engine.path));
		if (!engine.path) {
			perror("explore");
			exit(2);
		}
	}
	return &engine.path[engine.step];
}

/* The step as the run before did it: false, if it can't be done. */
static bool step_repeat(struct node *node)
{
	const struct actor *t = actor(node->action.thread);

	/* The last one of the prefix is done another way than before. */
	if (engine.step + 1 == engine.prefix) {
		node->site = t->op.site;
		node->object = t->op.object;
	}
	if (node->action.kind == ACT_DRAIN ? t->nstores != 0 :
					     op_ready(node->action.thread) && t->op.site == node->site &&
						     t->op.object == node->object)
		return true;
	run_fail(EXPLORE_DIVERGED, NULL, "step %llu is another one than it was in the run before: something decides that is "
		"neither in the region nor in the schedule", (unsigned long long)engine.step);
	return false;
}

/* Asks the chooser; false: the run ends here. */
static bool step_choose(struct node *node)
{
	int index;

	op_options();
	if (!engine.noptions) {
		run_end();
		return false;
	}
	if (engine.step >= engine.steps_max) {
		run_fail(EXPLORE_STEPS, NULL, "more than %llu steps: something goes on for ever, or waits without sync_relax()",
			(unsigned long long)engine.steps_max);
		return false;
	}
	node->hashed = false;
	node->spent = engine.spent;
	node->ready = (uint8_t)engine.ready;
	node->otherwise = engine.options[0].thread;
	index = engine.choose();
	if (index < 0) {
		engine.stopped = true;
		return false;
	}
	node->action = engine.options[index];
	node->deviates = index != 0;
	node->site = actor(node->action.thread)->op.site;
	node->object = actor(node->action.thread)->op.object;
	return true;
}

static bool step(void)
{
	struct node *node = path_node();
	struct action action;

	if (engine.checkpoints && engine.step % CHECKPOINT_EVERY == 0 && engine.step > engine.restored &&
		engine.step >= engine.prefix)
		checkpoint_take();
	if (engine.step < engine.prefix ? !step_repeat(node) : !step_choose(node))
		return false;
	action = node->action;
	engine.spent += action.cost;
	engine.holds += action.kind == ACT_HOLD;
	if (action.kind != ACT_DRAIN) {
		engine.switches += action.thread != engine.last && engine.last != ALONE;
		engine.last = action.thread;
	}
	engine.acting = true;
	op_act(action);
	engine.acting = false;
	engine.step++;
	/* What is repeated has been looked at before. */
	if (!engine.failure && engine.program->invariant && engine.step >= engine.prefix)
		alone(engine.program->invariant);
	return !engine.failure;
}

void run_once(void)
{
	run_reset();
	/* The last step of the prefix is another one than in the run before; until then nothing has changed. */
	if (!checkpoint_restore(engine.prefix ? engine.prefix - 1 : 0)) {
		setup();
		if (!engine.failure)
			threads_begin();
		if (!engine.failure)
			checkpoint_take();
	}
	engine.restored = engine.step;
	while (!engine.failure && step())
		;
	engine.running = false;
}
