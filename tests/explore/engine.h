/* SPDX-License-Identifier: MIT */
/*
 * The interleaving explorer: runs a small program of up to six threads again and again, each time with its steps in
 * another order, until each order within a bound was seen or one fails; then tells the shortest failing one as a story.
 *
 * Who uses it: scenarios (a table of struct explore_program, handed to explore_main()), and code under test that is
 * compiled with tests/explore/shim before src in the include path, so that its base/sync.h is the explorer's.
 *
 *
 * A SCENARIO
 *
 *	struct counter {
 *		struct a32 value;
 *	};
 *	static void add_one(void *data)
 *	{
 *		struct counter *c = data;
 *
 *		a32_set(&c->value, a32_read(&c->value) + 1);
 *	}
 *	static void both_are_counted(void *data)
 *	{
 *		struct counter *c = data;
 *
 *		explore_check(a32_read(&c->value) == 2, "the value is %u", a32_read(&c->value));
 *	}
 *	static const struct explore_program lost_update = {
 *		.name = "lost-update", .text = "two threads add one without a lock", .data_size = sizeof(struct counter),
 *		.threads = {{"adder", add_one}, {"other", add_one}}, .check = both_are_counted, .expect_failure = true,
 *	};
 *
 * Each run begins with zeroed memory and setup(), runs the threads, and calls check() when all have ended. setup() and
 * check() run alone; the operations of base/sync.h may be used there and are no switch points, explore_choose() is 0.
 * What setup() has made is kept, and copied for the next run, as is what the first steps have done that two runs have in
 * common: so the code is called more rarely than runs begin.
 *
 *
 * WHAT A SCENARIO AND THE CODE UNDER TEST MUST KEEP TO
 *
 *  - Everything that a run changes lies in the engine's region: what explore_alloc() gave, the program's data, local
 *    variables. No globals that change, no malloc() that lives across a switch point, no thread-local variables, no
 *    files. What is outside the region is neither reset between runs nor part of the state that is compared.
 *  - What happens depends on nothing but that memory and the engine's choices: no clock, no random numbers (take
 *    explore_choose()), no order of addresses outside of the region.
 *  - Threads share plain memory only under a lock, or as base/sync.h allows: the engine sees the operations of
 *    base/sync.h, not plain loads and stores. What stands between two of them is one step and runs at once.
 *  - A word that is used through a32_ or a64_ is used only so once threads run.
 *  - A loop that waits for another thread has sync_relax() in it.
 *
 *
 * STEPS AND SWITCH POINTS
 *
 * A thread stops before each lock, trylock, unlock, atomic operation, barrier, wait, wake and word of sync_copy_torn(),
 * and at explore_point(). What it is about to do is known to the scheduler, which picks one thread, carries its
 * operation out and lets it run to its next stop: that is one step. What a thread does before its first stop is done
 * before the first step. No stop: _count, _init, _destroy, sync_may_sleep, explore_note and the other explore_
 * functions.
 *
 * Not ready to go on are: a lock that another thread holds; a sleeper in a32_wait() or cond_wait() that nobody has
 * woken (there are no wake-ups without a reason); sync_relax() while no other thread has changed anything that is
 * shared (a word's value, a lock, a wake-up) since this thread's last sync_relax(). a32_wake() and cond_signal() wake
 * the one who has slept longest first; for cond_signal() each other sleeper is a choice, too.
 *
 * The thread that ran goes on while it can: that is the default, and costs nothing. If it can't, any other may go on,
 * and costs nothing. To switch while it could go on is a preemption and costs 1. A search with bound B tries all
 * schedules that cost at most B.
 *
 *
 * THE MEMORY MODEL
 *
 * Stores (_set, _set_release, and the write part of operations that read, change and write) go through a first-in,
 * first-out buffer that each thread has. By default a store reaches memory at once. That it stays in the empty buffer
 * is a choice that costs 1, like a preemption; what the thread stores afterwards queues up behind it. From then on, that
 * the oldest store reaches memory is a choice before each step, which costs nothing.
 *
 *  - A thread reads its own stores, the youngest first; others read memory.
 *  - The whole buffer reaches memory before the thread's own sync_mb(), lock, trylock, unlock, wait and wake, and when
 *    it holds more than EXPLORE_HELD_STORES. The end of a thread does not force it out; it's empty before check().
 *  - Operations that read, change and write are atomic. Before one whose write goes into a buffer, other buffers reach
 *    memory up to and including their last store to that word; and it reaches memory itself, with what is before it,
 *    before another thread stores to that word in whatever way. Otherwise a plain store in a buffer forces nobody and is
 *    forced by nobody: it may reach memory after another thread's later store to that word, and then replaces it.
 *  - Such an operation that changes nothing is not held back: nobody could tell. What goes to a block that somebody
 *    frees reaches memory before.
 *
 * This is the x86 model (TSO), with the difference that operations which read, change and write are no barriers: their
 * store may be seen after the thread's later loads, as the C standard allows for acquire-release and ARM does.
 *
 * Not covered: loads that pass earlier loads or later stores that pass loads (an acquire that is missing is not
 * found), relaxed stores that pass each other (a release that is missing is not found), stores that reach different
 * threads at different times, and plain stores, which reach memory at once: they are seen before a store that is held
 * back, even if it came earlier in the program.
 *
 *
 * PRUNING, AND WHY IT LOSES NOTHING
 *
 * Before each choice the engine computes a 128-bit hash of all that decides what can happen from here: the used part
 * of the heap with the program's data, each thread's stack from the frame upwards that has called the operation, with
 * the registers that a call preserves (the others are dead by the ABI), each thread's pending operation, what it holds and
 * waits for, its buffered stores, the order of sleepers, and which thread runs if it could go on (what others cost
 * depends on that). Two runs that arrive at the same state have the same continuations, and a continuation fails or
 * not by the state alone: failures are found in the memory, not in the path. If the state was met before with at least
 * as much of the bound left, all its continuations are, or will be, tried from there, and this run ends. (The limit of
 * steps is about the path, but is there for programs that never end only.) This is exact but for two different states
 * with one hash: 2^-128 for each pair. Bytes on the stack that nobody reads any more, as padding, may make two equal
 * states look different, which costs time and loses nothing.
 * A run that comes back to a state of its own is a cycle, which a scheduler could repeat for ever. It is a livelock if
 * no thread was ready all the time without running, no store stayed in a buffer, and no preemption was spent; what an
 * unfair scheduler only could do is dropped. Where there are no choices, states are looked at every 32 steps.
 * When the set of states is full, the search goes on and is as complete, but meets states more than once.
 * Code addresses and addresses of constants are in the stacks, so the hashes differ from process to process if the
 * program is position independent; which of them are equal does not, and nothing else is asked of them.
 *
 * The search begins with bound 0. If it finds a failure it looks on within that bound for a while, and then tries to
 * remove and join stretches of the schedule: the shortest is the one with the lowest cost, then the fewest stores that
 * are held back, then the fewest switches, then the fewest steps.
 *
 * Not part of the state: counters (_count), names, notes, explore_scratch().
 *
 *
 * SCHEDULES
 *
 * A schedule is the list of choices that differ from the default, joined by commas; steps count from 0:
 *	12:2	at step 12, thread T2 goes on
 *	12:h	... the store of step 12 stays in the buffer	(12:2h: both)
 *	12:d1	at step 12, T1's oldest buffered store reaches memory
 *	12:c3	the choice of step 12 is number 3		(12:2c3: both)
 * and, after a slash, for a livelock, the steps that repeat: /34-57, where step 57 is step 34 again.
 * "-" is the empty list. The program, its steps and the engine's rules for defaults decide the rest.
 */
#ifndef PINFS_EXPLORE_ENGINE_H
#define PINFS_EXPLORE_ENGINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define EXPLORE_THREADS_MAX 6u
#define EXPLORE_HELD_STORES 8u /* in each thread's buffer */
#define EXPLORE_UNBOUNDED 200u

/* ---- programs ---- */

struct explore_thread {
	const char *name;
	void (*run)(void *data);
};

/*
 * What the objects of a program are called and what their values mean, so that a story can be read without knowing the
 * code, and what is worth a line in a short one. Called only while a story is told; must not change anything.
 */
enum explore_interest {
	EXPLORE_UNKNOWN, /* it has no name here */
	EXPLORE_DETAIL,	 /* not for a short story */
	EXPLORE_CHANGES, /* short stories tell when its value changes */
	EXPLORE_ALWAYS,
};
struct explore_words {
	/* The word, lock or memory at p, as `function` uses it; p NULL: a full barrier there. */
	enum explore_interest (*object)(void *data, const void *p, const char *function, char *buf, size_t size);
	/* False: the number says it. */
	bool (*value)(void *data, const void *p, uint64_t value, char *buf, size_t size);
	/* What explore_note() was given, in better words. False: not for a short story. */
	bool (*note)(const char *note, char *buf, size_t size);
};

struct explore_program {
	const char *name; /* for the command line: no spaces */
	const char *text; /* one line for people */
	size_t data_size; /* of the zeroed block that all functions get */
	void (*setup)(void *data);					     /* may be NULL */
	struct explore_thread threads[EXPLORE_THREADS_MAX];		     /* up to the first without a function */
	void (*invariant)(void *data);					     /* after each step; may be NULL; must not change anything */
	void (*check)(void *data);					     /* at the end; may be NULL */
	const struct explore_words *words;				     /* may be NULL */
	const void *param;						     /* explore_param(): what variants of one program differ in */
	unsigned steps_max;						     /* a longer run fails; 0: 20,000 */
	unsigned bound;							     /* unless the command line has another; 0: 2 */
	unsigned alloc_failures;					     /* how many explore_alloc() of the threads may fail, as a choice that costs nothing */
	bool expect_failure;						     /* finding one is this program's success */
	bool sampled;							     /* too large to be searched, unless a bound is asked for: one schedule, and --random */
	bool no_lock_order;						     /* don't check the order of locks */
	bool no_hold;							     /* stores reach memory at once */
};

/* ---- for scenarios and the code under test ---- */

/*
 * Memory of the run, zeroed; freed memory is filled and checked. Aligned to 16 bytes, or to `align` (a power of two).
 * NULL where a failure is injected, or if the region (16 MiB) is used up. explore_free takes NULL.
 */
void *explore_alloc(size_t size);
void *explore_alloc_aligned(size_t size, size_t align);
void explore_free(void *p);
/* The n-th allocation from here on fails, counted from 1; 0: none. */
void explore_alloc_fail_at(unsigned n);
/* Allocations that are not freed, not counting the program's data. */
unsigned explore_blocks(void);
/* Zeroed in each run, but no part of the state: for traces and statistics on which no decision depends. */
void *explore_scratch(size_t size);

/* Which thread runs: 0 to 5, or -1 in setup(), invariant() and check(). */
int explore_self(void);
/* The program's `param`. */
const void *explore_param(void);

/* A switch point, for callbacks and I/O that is simulated. The text must be a constant. */
#define explore_point(text) ((void)explore_op(EXPLORE_POINT, (text), 0, 0, EXPLORE_SITE()))
/* 0 to n - 1 (n up to 16): each is tried, which costs nothing. The default is 0. No switch point. */
#define explore_choose(n, text) ((unsigned)explore_op(EXPLORE_CHOOSE, (text), (n), 0, EXPLORE_SITE()))

/* The run fails, with this text. */
#define explore_fail(...) explore_fail_at(EXPLORE_SITE(), __VA_ARGS__)
#define explore_check(condition, ...)              \
	do {                                       \
		if (!(condition))                  \
			explore_fail(__VA_ARGS__); \
	} while (0)

/*
 * For stories only: nothing is evaluated or formatted while searching, so arguments must have no side effects.
 * explore_name: what objects in [p, p + size) are called, until the end of the run or until p's block is freed; the
 * smallest range around an object counts.
 */
#define explore_name(p, size, ...)                                  \
	do {                                                        \
		if (__builtin_expect(explore_telling, 0))           \
			explore_name_it((p), (size), __VA_ARGS__);  \
	} while (0)
#define explore_note(...)                                           \
	do {                                                        \
		if (__builtin_expect(explore_telling, 0))           \
			explore_note_it(__VA_ARGS__);               \
	} while (0)

/* ---- the search ---- */

/* Stories are short: what a program's words call a detail is left out. Without words they are whole in any case. */
extern bool explore_brief;

struct explore_options {
	unsigned bound;		/* iterates 0, 1, ... up to here; EXPLORE_UNBOUNDED at once: all schedules */
	bool only_bound;	/* begins with `bound` */
	bool no_prune;		/* for tests of the engine */
	bool no_checkpoints;	/* for tests of the engine: each run begins with its first step */
	bool no_hold;		/* as the program's */
	uint64_t schedules_max; /* 0: no limit */
	double seconds;		/* 0: no limit */
	size_t memory;		/* for the set of states; 0: 1 GiB */
	uint64_t random;	/* runs with random priorities (PCT), and as many with uniform choices, after the search */
	uint64_t seed;
	unsigned depth; /* of PCT: 1 + how many changes of priority; 0: 3 */
};

enum explore_failure {
	EXPLORE_OK,
	EXPLORE_FAILED,	    /* explore_fail() */
	EXPLORE_ASSERTED,   /* assert() */
	EXPLORE_DEADLOCK,   /* nobody can go on */
	EXPLORE_LIVELOCK,   /* a cycle that a fair scheduler may repeat for ever */
	EXPLORE_STEPS,	    /* more than steps_max */
	EXPLORE_LOCK_ORDER, /* base/lock_order.h */
	EXPLORE_SLEPT,	    /* under a lock that does not allow it */
	EXPLORE_MISUSE,	    /* of a lock, a word, or memory */
	EXPLORE_CRASHED,    /* a signal */
	EXPLORE_DIVERGED,   /* a replay could not do what the schedule says */
};

struct explore_random {
	uint64_t runs, failures;
	uint64_t first; /* the run that failed first, from 1 */
};

struct explore_result {
	/* The search. */
	uint64_t schedules; /* executions, also those that were pruned */
	uint64_t ended;	    /* ... that came to their end */
	uint64_t steps;	    /* that were carried out */
	uint64_t states; /* distinct ones at choices */
	uint64_t pruned;
	uint64_t depth;	      /* steps of the longest run */
	unsigned bound;	      /* the last one that was searched completely, or that failed; */
	bool any_bound;	      /* ... if there is one */
	bool complete;	      /* all schedules within the bound that was asked for */
	bool exhausted;	      /* ... and there are no others beyond it */
	bool memory_full;     /* the set of states did not take them all */
	bool out_of_time;     /* or schedules_max was reached */
	double seconds;
	struct explore_random pct, uniform;

	/* The shortest failing run. */
	enum explore_failure failure;
	unsigned cost, switches;
	uint64_t length; /* steps */
	char *text;	 /* what failed; these three are freed by explore_result_end() */
	char *schedule;
	char *story;
};

/* Searches, then tries at random, as the options say; and tells the story. */
void explore_search(const struct explore_program *program, const struct explore_options *options,
	struct explore_result *ret);
/* Runs one schedule; ret->story is told also if nothing failed. -EINVAL: the schedule can't be read. */
int explore_replay(const struct explore_program *program, const char *schedule, struct explore_result *ret);
void explore_result_end(struct explore_result *result);
const char *explore_failure_name(enum explore_failure failure);

/* The story, and what failed. */
void explore_print_story(const struct explore_result *result);

/*
 * The whole program: see --help. Returns the exit status: 0 none failed (or all that should did), 1 some failed,
 * 2 usage.
 */
#define EXPLORE_OPTIONS_HELP                                                                                         \
	"  --bound=N           preemptions and held stores at most; \"none\": all schedules (default: the program's, or 2)\n" \
	"  --schedules=N       stop searching a program after N runs\n"                                             \
	"  --time=SECONDS      stop searching a program after this time, and its random runs after as much again\n" \
	"  --memory=MIB        for the set of states (default: 1024)\n"                                             \
	"  --jobs=N            so many processes at once (default: 1)\n"                                            \
	"  --random=N          then N runs with random priorities (PCT), and N with uniform choices\n"              \
	"  --seed=S            of the random runs (default: 1)\n"                                                   \
	"  --depth=D           of the random runs: D - 1 changes of priorities (default: 3)\n"                      \
	"  --replay=SCHEDULE   run one schedule and tell its story\n"                                               \
	"  --no-prune          continue states that were met before\n"                                              \
	"  --no-hold           stores reach memory at once\n"                                                       \
	"  --stories           tell also those of programs that are expected to fail\n"                             \
	"  --full              stories with all steps\n"                                                            \
	"  --json              results as JSON\n"                                                                   \
	"  -q, --quiet         only what fails, and the sums\n"
int explore_main(const struct explore_program *const *programs, size_t count, int argc, char **argv);

/* ---- for the shim and the macros above ---- */

struct explore_site {
	const char *file, *function;
	unsigned line;
};
#define EXPLORE_SITE()                                                                             \
	({                                                                                         \
		static const struct explore_site explore_site_ = {__FILE__, __func__, __LINE__};   \
		&explore_site_;                                                                    \
	})

enum explore_op {
	EXPLORE_NONE,
	EXPLORE_LOCK,
	EXPLORE_TRYLOCK, /* returns whether it was taken */
	EXPLORE_UNLOCK,
	EXPLORE_COND_WAIT, /* a: the mutex */
	EXPLORE_SIGNAL,
	EXPLORE_BROADCAST,
	EXPLORE_READ, /* returns the value */
	EXPLORE_READ_ACQUIRE,
	EXPLORE_SET, /* a: the value */
	EXPLORE_SET_RELEASE,
	EXPLORE_ADD, /* a: the operand; returns the value before; so do the next four */
	EXPLORE_OR,
	EXPLORE_AND,
	EXPLORE_EXCHANGE,
	EXPLORE_CAS, /* a: expected, b: wanted */
	EXPLORE_MB,
	EXPLORE_RELAX,
	EXPLORE_WAIT, /* a: expected */
	EXPLORE_WAKE, /* a: how many */
	EXPLORE_COPY, /* a: where the 8 bytes go */
	EXPLORE_POINT,
	EXPLORE_CHOOSE, /* a: how many */
	/* The engine's own. */
	EXPLORE_WOKEN, /* a sleeper of a32_wait() that may go on */
	EXPLORE_ALLOC, /* an allocation that may fail */
	EXPLORE_END,
	EXPLORE_OPS,
	EXPLORE_WIDE = 0x80, /* flag: the word has 8 bytes, not 4 */
};

/* Stops before the operation; returns its result after it was carried out. */
uint64_t explore_op(unsigned op, const void *object, uint64_t a, uint64_t b, const struct explore_site *site);
void explore_count(void *word, unsigned wide, uint64_t n);

struct explore_mutex {
	uint32_t magic;
	uint8_t owner; /* thread + 1; 0: free */
	uint8_t class;
	uint16_t zero;
};
void explore_mutex_init(struct explore_mutex *m, unsigned class, const struct explore_site *site);
void explore_mutex_destroy(struct explore_mutex *m, const struct explore_site *site);
struct explore_cond {
	uint32_t magic;
};
void explore_cond_init(struct explore_cond *c, const struct explore_site *site);
void explore_cond_destroy(struct explore_cond *c, const struct explore_site *site);

void explore_lock_taken(unsigned class, bool tried, const struct explore_site *site);
void explore_lock_dropped(unsigned class, const struct explore_site *site);
void explore_may_sleep(const char *what, const struct explore_site *site);
void explore_slept(const char *what, unsigned class, const struct explore_site *site) __attribute__((noreturn));

void explore_fail_at(const struct explore_site *site, const char *format, ...)
	__attribute__((noreturn, format(printf, 2, 3)));
extern bool explore_telling;
void explore_name_it(const void *p, size_t size, const char *format, ...) __attribute__((format(printf, 3, 4)));
void explore_note_it(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
