/* SPDX-License-Identifier: MIT */
/*
 * The engine's inside: the region and what lies in it (struct world), one run (struct engine), and who does what:
 *
 *	region.c	the region, the allocator, scratch memory
 *	checkpoint.c	copies of the state, to begin a run with
 *	context.c	coroutines: their stacks, and switching
 *	ops.c		what each operation does; which are possible; the store buffers
 *	run.c		one run, from setup() to check(), with a chooser that decides at each step
 *	search.c	the chooser of the depth-first search, the bounds, pruning
 *	state.c		the hash of a state, and the set of those seen
 *	random.c	the choosers that roll dice
 *	schedule.c	schedules as text, the chooser that follows one, shortening
 *	story.c		what people read
 *	driver.c	the command line
 *
 * All engine state of a run that decides anything is in struct world, in the region, zeroed at the beginning of each
 * run. struct engine is outside; there is one, since the shim's operations have no parameter for it.
 */
#ifndef PINFS_EXPLORE_INTERNAL_H
#define PINFS_EXPLORE_INTERNAL_H

#include "base/sync.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "../engine.h"

#if defined(__SANITIZE_ADDRESS__)
#define EXPLORE_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define EXPLORE_ASAN 1
#endif
#endif
#ifdef EXPLORE_ASAN
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(p, size) ((void)(p), (void)(size))
#define ASAN_UNPOISON_MEMORY_REGION(p, size) ((void)(p), (void)(size))
#endif

#if defined(__has_include)
#if __has_include(<valgrind/memcheck.h>)
#include <valgrind/memcheck.h>
#endif
#endif
#ifndef RUNNING_ON_VALGRIND
#define RUNNING_ON_VALGRIND 0
#define VALGRIND_MAKE_MEM_DEFINED(p, size) ((void)(p), (void)(size))
#endif

/*
 * Where the region is: the same address in each process, free in each layout of an address space that Linux or valgrind
 * makes (a program far below or far above, stack and libraries at the top), and no shadow of the address sanitizer.
 */
#ifdef EXPLORE_ASAN
#define REGION_BASE 0x200000000000ull
#define STACK_SIZE (512ull << 10)
#else
#define REGION_BASE 0x2000000000ull
#define STACK_SIZE (128ull << 10)
#endif
#define HEAP_BASE (REGION_BASE + (1ull << 20))
#define HEAP_SIZE (16ull << 20)
#define SCRATCH_BASE (REGION_BASE + (32ull << 20))
#define SCRATCH_SIZE (16ull << 20)
#define STACKS_BASE (REGION_BASE + (64ull << 20))
#define STACK_STRIDE (1ull << 20) /* what lies between two stacks can't be touched */
#define ALONE EXPLORE_THREADS_MAX /* who runs setup(), invariant() and check() */
#define ACTORS (EXPLORE_THREADS_MAX + 1)
#define REGION_SIZE ((64ull << 20) + ACTORS * STACK_STRIDE)

#define STEPS_MAX_DEFAULT 20000u
#define CHOICES_MAX 16u
#define HELD_MAX 16u
#define MUTEX_MAGIC 0x6d757478u
#define COND_MAGIC 0x636f6e64u

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

/* ---- in the region ---- */

struct op {
	const void *object;
	uint64_t a, b;
	const struct explore_site *site;
	unsigned code; /* enum explore_op, and EXPLORE_WIDE */
};

enum actor_state {
	ACTOR_NONE,
	ACTOR_READY,   /* op is what it does next, when that is possible */
	ACTOR_ASLEEP,  /* in a32_wait(); op says where */
	ACTOR_WAITING, /* in cond_wait() */
	ACTOR_ENDED,
};

struct held {
	struct explore_mutex *mutex; /* NULL: a lock made of words, of which only the class is known */
	const struct explore_site *site; /* where it was taken */
	unsigned class;
};

/* A store that has not reached memory. */
struct store {
	void *word;
	uint64_t value;
	const struct explore_site *site;
	uint8_t size;
	bool rmw; /* of an operation that read the word, too: nobody may write it before this */
};

struct actor {
	enum actor_state state;
	bool changed; /* somebody else has changed something since this one's last sync_relax() */
	struct op op;
	uint64_t result; /* of the operation; dead at the next */
	void *sp;	 /* while it does not run */
	void *live;	 /* from here its stack is part of the state */
	struct sync_self self;
	unsigned nheld;
	struct held held[HELD_MAX];
	unsigned nstores;
	struct store stores[EXPLORE_HELD_STORES]; /* the oldest first */
};

struct world {
	struct actor actors[ACTORS];
	unsigned current; /* who ran last */
	unsigned nsleepers;
	uint8_t sleepers[EXPLORE_THREADS_MAX]; /* asleep or waiting, who has slept longest first */
	unsigned alloc_failures;	       /* how many may still fail by choice */
};
#define WORLD ((struct world *)(uintptr_t)REGION_BASE)

/* ---- actions: what a chooser decides on ---- */

enum action_kind {
	ACT_RUN,   /* the thread's operation, in the variant `variant` */
	ACT_HOLD,  /* ... and its store stays in the buffer */
	ACT_DRAIN, /* the thread's oldest buffered store reaches memory */
};
struct action {
	uint8_t thread, kind, variant, cost;
};
#define ACTIONS_MAX (EXPLORE_THREADS_MAX * (CHOICES_MAX + 2))

/* One step of the run that is under way, or was the last. */
struct node {
	struct action action;
	uint8_t ready;	    /* bit per thread that could have gone on */
	uint8_t otherwise;  /* the thread of the default */
	bool deviates;	    /* from the default */
	bool hashed;
	unsigned spent; /* before this step */
	/* The search's: its options[first] to [first + count - 1], of which `index` is under way. */
	unsigned first, count, index;
	uint64_t hash[2];
	const struct explore_site *site; /* what the thread did; runs that differ here are not deterministic */
	const void *object;
};

/* ---- the engine ---- */

/*
 * Decides on step engine.step; the possible actions are in engine.options, the default first. Returns the index of
 * one, or -1 to end the run here.
 */
typedef int chooser_fn(void);

#define engine explore_engine /* the symbol says whose it is */
struct engine {
	const struct explore_program *program;
	const struct explore_options *given;
	chooser_fn *choose;
	void *chooser_data;
	unsigned nthreads;
	uint64_t steps_max;
	bool no_hold;

	/* The run. */
	bool running; /* setup() has begun */
	bool alone;   /* setup(), invariant() or check() runs */
	bool inside;  /* a coroutine runs */
	bool acting;  /* step `step` is being carried out */
	unsigned self;
	uint64_t step;
	unsigned spent, switches, holds;
	unsigned pending; /* stores in all buffers */
	unsigned allocs_until_failure;
	void *data;			 /* the program's */
	void (*alone_fn)(void *data);	 /* what the one who is alone does next */
	unsigned last;			 /* whose step was the last */
	uint64_t cycle, cycle_end;	 /* of a livelock: the steps that repeat, and the one after them */
	bool checkpoints;		 /* are taken on the way */
	uint64_t restored;		 /* the step that this run began with */
	uint64_t prefix;		 /* steps to repeat from path, without asking the chooser */
	struct action options[ACTIONS_MAX];
	unsigned noptions, ready;
	struct node *path;
	size_t path_capacity;
	enum explore_failure failure;
	struct explore_site failure_site;
	bool stopped; /* by the chooser */
	void *scheduler_sp;

	/* How far down each stack was touched: zeroed at the next run. */
	uintptr_t stack_low[ACTORS];
	size_t scratch_used;
	char *failure_text; /* only if explore_telling */
};
extern struct engine engine;

static inline struct actor *actor(unsigned i)
{
	return &WORLD->actors[i];
}
static inline unsigned op_kind(const struct op *op)
{
	return op->code & ~(unsigned)EXPLORE_WIDE;
}

/* region.c */
void region_map(void);
/* Zeroes what the last run used, and begins anew. */
void region_reset(void);
/* When another program comes. */
void region_forget(void);
/* Copies: the sizes of what is used now, and their sum; the bytes; and back again, except for struct world. */
struct region_sizes {
	size_t heap, scratch, counts, stacks[ACTORS];
};
size_t region_measure(struct region_sizes *ret);
void region_save(const struct region_sizes *sizes, void *to);
void region_load(const struct region_sizes *sizes, const void *from);
/* The heap from its beginning to what is used. */
size_t region_heap_used(void);
/* Whether [p, p + size) is allocated memory, scratch memory or somebody's stack. */
bool region_holds(const void *p, size_t size);
/* At the end of a run: fails it if freed memory was written to. */
void region_heap_check(void);
static inline uintptr_t stack_top(unsigned i)
{
	return STACKS_BASE + (i + 1) * STACK_STRIDE;
}
static inline uintptr_t stack_bottom(unsigned i)
{
	return stack_top(i) - STACK_SIZE;
}
/* What explore_count() has added to the word, which it does not have itself. */
uint64_t region_counted(const void *word, unsigned size);

/* checkpoint.c */
/* Copies the state before step engine.step; those of later steps must be gone. */
void checkpoint_take(void);
/* Drops those of later steps than this, and goes back to the last one that is left; false: there is none. */
bool checkpoint_restore(uint64_t step);
void checkpoint_drop(void);

/* context.c */
void context_begin(void);
/* Prepares an actor whose first resume calls entry(i). */
void context_make(unsigned i, void (*entry)(unsigned i));
/* From the scheduler: runs the actor until it calls context_leave(). */
void context_enter(unsigned i);
/* From the actor: back to the scheduler. */
void context_leave(void);
/* Crashes of the code under test become failures of the run, until crash_catch_end(). */
void crash_catch(void);
void crash_catch_end(void);

/* ops.c */
/* The actor has stopped before its operation, which is looked at before it is carried out: the order of locks. */
void op_announce(unsigned i);
bool op_ready(unsigned i);
/* Fills engine.options, the default first, and engine.ready. */
void op_options(void);
void op_act(struct action action);
/* The operation of the one who is alone. */
uint64_t op_alone(const struct op *op);
/* What explore_op() does, for whom `live` is where the state of the stack begins. */
uint64_t op_stop(unsigned code, const void *object, uint64_t a, uint64_t b, const struct explore_site *site, void *live);
void op_drain_all(unsigned i);
/* Of any thread, to the block. */
void op_drain_range(const void *p, size_t size);
/* The actor has ended. */
void op_end(unsigned i);

/* run.c */
/* One run with engine.choose. engine.failure, .stopped, .step, .spent and .path are what came of it. */
void run_once(void);
/* From wherever it is found; from the actor it does not return. */
void run_fail(enum explore_failure kind, const struct explore_site *site, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
void run_fail_livelock(void);

/* state.c */
struct states;
struct states *states_new(size_t memory);
void states_free(struct states *states);
/* Of the state of the run. */
void state_hash(uint64_t ret[2]);
enum seen { SEEN_NEW, SEEN_MORE, SEEN_BEFORE, SEEN_FULL };
/*
 * SEEN_BEFORE: with at least this much left of the bound. SEEN_MORE: with less; noted. SEEN_FULL: new, but not noted.
 */
enum seen states_see(struct states *states, const uint64_t hash[2], unsigned left);
uint64_t states_count(const struct states *states);

/* schedule.c */
/* Of the run that was the last; malloc()ed. */
char *schedule_text(void);
struct choice {
	uint64_t step;
	uint8_t thread; /* + 1; 0: the default's */
	uint8_t kind, variant;
};
struct schedule {
	struct choice *choices; /* free() it */
	size_t count, next;
	uint64_t cycle, cycle_end; /* of a livelock; cycle_end is 0 if it is none */
};
int schedule_parse(const char *text, struct schedule *ret);
/* Follows engine.chooser_data, a struct schedule. */
chooser_fn choose_by_schedule;
/* The shortest failing run so far. */
struct best {
	enum explore_failure failure; /* EXPLORE_OK: there is none */
	struct explore_site site;
	struct action *actions;
	uint64_t length;
	unsigned cost, switches, holds;
	char *schedule;
};
/* Takes the run that was the last, if it failed and is shorter. */
bool best_offer(struct best *best);
/* Tries shorter ones that fail in the same way, for up to `runs` runs. */
void best_shorten(struct best *best, uint64_t runs, struct explore_result *ret);
void best_end(struct best *best);

/* random.c */
void random_runs(struct explore_result *ret, struct best *best);

/* search.c */
/* Counts the steps of the run that was the last. */
void search_count_steps(struct explore_result *ret);
/* Looks at the clock now and then only: `runs` counts calls. */
bool search_out_of_time(uint64_t runs);

/* story.c */
/* Begins a story; until story_end(), explore_telling is set. */
void story_begin(void);
char *story_end(void);
void story_names_reset(void);
void story_names_forget(const void *p, size_t size);
/* Before the step is carried out, and after: `before` is what the word was. */
void story_step(struct action action);
void story_done(struct action action, const struct op *op, uint64_t before);
void story_aside(unsigned i, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* "T2 flusher", "setup". These return one of a few static buffers in turn. */
const char *story_actor(unsigned i);
const char *story_object(const void *p);
const char *story_lock(const struct explore_mutex *m);
const char *story_held(const struct held *held);
const char *story_place(const struct explore_site *site);
/* "17", "0x1f400"; and what it says in this word. */
const char *story_value(uint64_t value);
const char *story_word(const void *word, uint64_t value);
/* Who waits for what; malloc()ed, one line for each. */
char *story_deadlock(void);

#endif
