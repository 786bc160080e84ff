/* SPDX-License-Identifier: MIT */
/*
 * The explorer's engine: what it must find in small programs, and what it must not. With "--programs" as the first
 * argument, it explores them as any explorer does (engine.h, explore_main()).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "programs.h"

#include "base/sync.h"
#include "base/util.h"

#if defined(__SANITIZE_ADDRESS__)
#define UNDER_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define UNDER_ASAN 1
#endif
#endif

static struct explore_result explored;

static const struct explore_result *explore_with(const struct explore_program *program, struct explore_options options)
{
	explore_result_end(&explored);
	explore_search(program, &options, &explored);
	return &explored;
}

static const struct explore_result *explore(const struct explore_program *program, unsigned bound)
{
	return explore_with(program, (struct explore_options){.bound = bound});
}

/* All schedules, and none fails. */
static void holds(const struct explore_program *program)
{
	const struct explore_result *r = explore(program, EXPLORE_UNBOUNDED);

	if (r->failure)
		print_error("%s: %s: %s\n%s\n", program->name, r->schedule, r->text, r->story);
	assert_int_equal(r->failure, EXPLORE_OK);
	assert_true(r->complete && r->exhausted);
}

/* The first failure is this one, with these words in its text; it costs `cost`, so it isn't found with less. */
static void fails(const struct explore_program *program, enum explore_failure failure, unsigned cost, const char *words)
{
	const struct explore_result *r = explore(program, 3);

	assert_string_equal(explore_failure_name(r->failure), explore_failure_name(failure));
	assert_int_equal(r->cost, cost);
	assert_int_equal(r->bound, cost);
	if (!strstr(r->text, words))
		print_error("%s: \"%s\" is not in: %s\n%s", program->name, words, r->text, r->story);
	assert_non_null(strstr(r->text, words));
	if (!cost)
		return;
	r = explore(program, cost - 1);
	assert_int_equal(r->failure, EXPLORE_OK);
	assert_true(r->complete && !r->exhausted);
}

/* ---- weak memory ---- */

static void stores_are_held_back_unless_a_barrier_follows(void **state)
{
	fails(&store_buffering, EXPLORE_FAILED, 1, "both read 0");
	holds(&store_buffering_barrier);
}

static void additions_are_held_back_as_stores_are(void **state)
{
	fails(&store_buffering_add, EXPLORE_FAILED, 1, "both read 0");
	holds(&store_buffering_add_barrier);
}

static void additions_stay_atomic_when_they_are_held_back(void **state)
{
	holds(&buffered_adds);
	holds(&plain_and_add);
}

static void a_plain_store_may_come_after_a_later_one(void **state)
{
	fails(&plain_store_last, EXPLORE_FAILED, 1, "x is 1");
}

static void messages_come_before_their_flag(void **state)
{
	holds(&message_passing);
}

static void without_held_stores_memory_is_sequential(void **state)
{
	const struct explore_result *r =
		explore_with(&store_buffering, (struct explore_options){.bound = EXPLORE_UNBOUNDED, .no_hold = true});

	assert_int_equal(r->failure, EXPLORE_OK);
	assert_true(r->exhausted);
}

static void pages_are_copied_by_eight_bytes(void **state)
{
	fails(&torn, EXPLORE_FAILED, 1, "torn: 0, 1");
}

/* ---- locks and waiting ---- */

static void lost_updates_are_found_with_one_preemption(void **state)
{
	fails(&lost_update, EXPLORE_FAILED, 1, "value is 1");
	holds(&update_locked);
	holds(&update_added);
}

static void deadlocks_name_locks_and_holders(void **state)
{
	fails(&opposite_locks, EXPLORE_DEADLOCK, 1, "T1 down waits for lock INDEX of tree, which T2 up holds");
	explore(&opposite_locks, 1);
	assert_non_null(strstr(explored.text, "T2 up waits for lock RMAP of list, which T1 down holds"));
	assert_non_null(strstr(explored.text, "and holds lock INDEX of tree, taken at test_programs.c:"));
}

static void the_order_of_locks_is_checked_without_a_deadlock(void **state)
{
	fails(&opposite_locks_checked, EXPLORE_LOCK_ORDER, 0, "T2 up takes lock RMAP of list under INDEX of tree");
}

static void locks_made_of_words_have_an_order_too(void **state)
{
	holds(&word_locks);
	fails(&word_locks_order, EXPLORE_LOCK_ORDER, 0, "T2 up takes lock RMAP under INDEX, which it took at test_programs.c:");
	fails(&word_locks_kept, EXPLORE_MISUSE, 0, "T1 keeper ends, but holds lock RMAP");
}

static void trying_a_lock_succeeds_or_fails(void **state)
{
	fails(&trylock_both, EXPLORE_FAILED, 1, "in vain");
	holds(&trylock_excludes);
}

static void lost_wake_ups_are_deadlocks(void **state)
{
	fails(&lost_wake, EXPLORE_DEADLOCK, 1, "T1 waiter sleeps at word");
	holds(&futex_wake);
}

static void conditions_wake_who_waits(void **state)
{
	holds(&condition_loop);
	fails(&missed_signal, EXPLORE_DEADLOCK, 0, "T1 consumer waits for condition");
}

static void a_signal_may_wake_any_waiter(void **state)
{
	fails(&wrong_waiter, EXPLORE_DEADLOCK, 0, "T2 other waits for condition");
}

static void spinning_ends_when_somebody_changes_something(void **state)
{
	holds(&spin);
	holds(&spin_three);
	holds(&spin_held);
	fails(&spin_alone, EXPLORE_DEADLOCK, 0, "nobody changes anything");
}

static void fair_cycles_are_livelocks_and_unfair_ones_are_not(void **state)
{
	fails(&livelock, EXPLORE_LIVELOCK, 0, "repeat for ever");
	holds(&polite_locks);
	holds(&unfair);
}

static void endless_runs_end_at_the_step_limit(void **state)
{
	fails(&endless, EXPLORE_STEPS, 0, "more than 500 steps");
}

/* ---- counting ---- */

static void interleavings_are_the_binomial_number(void **state)
{
	struct explore_options all = {.bound = EXPLORE_UNBOUNDED, .no_prune = true};

	assert_int_equal(explore_with(&two_by_four, all)->schedules, 70);     /* 8! / 4! 4! */
	assert_int_equal(explored.steps, 70 * 8);
	assert_int_equal(explore_with(&three_by_three, all)->schedules, 1680); /* 9! / 3! 3! 3! */
	assert_int_equal(explored.ended, 1680);
	assert_true(explored.exhausted);
}

/* Two threads, one preemption: the first thread, then where it is interrupted. */
static void bounds_count_preemptions(void **state)
{
	struct explore_options o = {.no_prune = true, .only_bound = true};

	assert_int_equal(explore_with(&two_by_four, o)->schedules, 2);
	o.bound = 1;
	assert_int_equal(explore_with(&two_by_four, o)->schedules, 2 + 2 * 3);
	o.bound = 7;
	assert_int_equal(explore_with(&two_by_four, o)->schedules, 70);
	assert_true(explored.exhausted);
}

static void pruning_meets_each_state_once(void **state)
{
	const struct explore_result *r = explore(&two_by_four, EXPLORE_UNBOUNDED);

	/* Who has gone how far, where both can go on, and who ran last: nobody at first. */
	assert_int_equal(r->states, 1 + 2 * 4 * 4 - 4 - 4);
	assert_true(r->exhausted && r->ended < 70);
}

static void pruning_loses_no_failure(void **state)
{
	static const struct explore_program *const buggy[] = {&store_buffering, &store_buffering_add, &lost_update,
		&opposite_locks, &trylock_both, &lost_wake, &missed_signal, &wrong_waiter, &torn, &use_after_free, &asserts,
		&alloc_unchecked, &invariant_breaks, &plain_store_last, &foreign_unlock};

	for (size_t i = 0; i < ARRAY_SIZE(buggy); i++) {
		struct explore_options o = {.bound = 3};
		struct explore_result pruned;

		explore_search(buggy[i], &o, &pruned);
		o.no_prune = true;
		explore_with(buggy[i], o);
		assert_true(pruned.failure);
		assert_int_equal(pruned.failure, explored.failure);
		assert_int_equal(pruned.cost, explored.cost);
		assert_int_equal(pruned.bound, explored.bound);
		explore_result_end(&pruned);
	}
}

/*
 * Programs made at random: what each thread has read, and what words are at the end, is noted for each run that ends.
 * With pruning some runs don't, but each outcome must be there.
 */
#define MADE_STEPS 4u
struct made_step {
	uint8_t kind, word, value;
};
struct made {
	unsigned nthreads;
	struct made_step steps[3][MADE_STEPS];
};
struct made_data {
	struct a32 words[3];
	struct mutex m;
	uint32_t got[3]; /* all that was read, in decimal places */
};
#define OUTCOMES_MAX 65536u
static uint64_t outcomes[2][OUTCOMES_MAX];
static size_t noutcomes[2];
static unsigned outcomes_of;

static void made_init(void *data)
{
	struct made_data *d = data;

	mutex_init(&d->m, LOCK_TEST);
}

static void made_do(struct made_data *d, struct made_step s, uint32_t *got)
{
	struct a32 *w = &d->words[s.word];
	uint32_t expected = s.value - 1u;

	switch (s.kind) {
	case 0:
	case 1:
		*got = 10 * *got + a32_read(w);
		break;
	case 2:
		a32_set(w, s.value);
		break;
	case 3:
		a32_set(w, s.value + explore_choose(2, "value"));
		break;
	case 4:
		*got = 10 * *got + a32_fetch_add(w, 1);
		break;
	case 5:
		*got = 10 * *got + a32_cas(w, &expected, s.value);
		break;
	case 6:
		sync_mb();
		break;
	default:
		mutex_lock(&d->m);
		a32_set(w, a32_read(w) + 1);
		mutex_unlock(&d->m);
	}
}

static void made_run(void *data)
{
	const struct made *made = explore_param();
	struct made_data *d = data;
	int self = explore_self();

	for (unsigned i = 0; i < MADE_STEPS; i++)
		made_do(d, made->steps[self][i], &d->got[self]);
}

static void made_end(void *data)
{
	const struct made_data *d = data;
	uint64_t o = 0;
	size_t i = 0, n = noutcomes[outcomes_of];

	for (unsigned t = 0; t < 3; t++)
		o = o * 100000 + d->got[t];
	for (unsigned w = 0; w < 3; w++)
		o = o * 8 + a32_read(&d->words[w]);
	while (i < n && outcomes[outcomes_of][i] != o)
		i++;
	if (i < n || n == OUTCOMES_MAX)
		return;
	outcomes[outcomes_of][n] = o;
	noutcomes[outcomes_of]++;
}

static int compare_u64(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static void pruning_loses_no_outcome(void **state)
{
	struct explore_program p = {.name = "made", .data_size = sizeof(struct made_data), .setup = made_init,
		.check = made_end, .threads = {{"a", made_run}, {"b", made_run}, {"c", made_run}}};
	uint64_t seed = 1, different = 0;

	for (unsigned n = 0; n < 150; n++) {
		struct made made = {.nthreads = 2 + n % 3 / 2};

		for (unsigned t = 0; t < made.nthreads; t++) {
			for (unsigned i = 0; i < MADE_STEPS; i++) {
				seed = seed * 6364136223846793005ull + 1442695040888963407ull;
				made.steps[t][i] = (struct made_step){seed >> 33 & 7, (seed >> 40) % 3, 1 + (seed >> 50) % 3};
			}
		}
		p.param = &made;
		p.threads[2].run = made.nthreads == 3 ? made_run : NULL;
		for (outcomes_of = 0; outcomes_of < 2; outcomes_of++) {
			noutcomes[outcomes_of] = 0;
			explore_with(&p, (struct explore_options){.bound = made.nthreads == 3 ? 1 : 3, .only_bound = true,
				.no_prune = outcomes_of});
			assert_true(!explored.failure && explored.complete);
			qsort(outcomes[outcomes_of], noutcomes[outcomes_of], sizeof(outcomes[0][0]), compare_u64);
		}
		assert_int_equal(noutcomes[0], noutcomes[1]);
		assert_memory_equal(outcomes[0], outcomes[1], noutcomes[0] * sizeof(outcomes[0][0]));
		different += noutcomes[0] > 1;
	}
	assert_true(different > 100);
}

static void checkpoints_change_nothing(void **state)
{
	static const struct explore_program *const long_ones[] = {&polite_locks, &heavy, &spin_three, &condition_loop,
		&plain_and_add, &counters_on, &torn};

	for (size_t i = 0; i < ARRAY_SIZE(long_ones); i++) {
		struct explore_options o = {.bound = 3, .schedules_max = 2000};
		struct explore_result with;

		explore_search(long_ones[i], &o, &with);
		o.no_checkpoints = true;
		explore_with(long_ones[i], o);
		assert_int_equal(with.schedules, explored.schedules);
		assert_int_equal(with.states, explored.states);
		assert_int_equal(with.pruned, explored.pruned);
		assert_int_equal(with.depth, explored.depth);
		assert_int_equal(with.failure, explored.failure);
		assert_true(with.steps <= explored.steps);
		explore_result_end(&with);
	}
}

static void choices_are_all_tried(void **state)
{
	struct explore_program p = choices;

	holds(&choices);
	assert_int_equal(explore_with(&choices, (struct explore_options){.no_prune = true})->schedules, 12);
	p.param = "fail";
	fails(&p, EXPLORE_FAILED, 0, "2 and 3");
	assert_string_equal(explored.schedule, "0:c2,1:c3");
}

static void counters_are_no_part_of_the_state(void **state)
{
	uint64_t states;

	holds(&counters_on);
	states = explored.states;
	holds(&counters_off);
	assert_int_equal(states, explored.states);
}

static void what_calls_leave_on_the_stack_is_no_part_of_the_state(void **state)
{
#if defined(EXPLORE_UCONTEXT) || defined(UNDER_ASAN)
	skip(); /* the first lacks what is assembly elsewhere, the second makes frames larger than what is cleared */
#else
	struct explore_program clean = dead_stack;
	uint64_t states;

	holds(&dead_stack);
	states = explored.states;
	clean.param = "clean";
	holds(&clean);
	assert_int_equal(explored.states, states);
	/* As in pruning_meets_each_state_once(), with 7 steps; and the choices of both. */
	assert_int_equal(states, 1 + 2 * 7 * 7 - 7 - 7 + 2);
#endif
}

static void a_full_set_of_states_is_reported(void **state)
{
	struct explore_options o = {.bound = 3, .memory = 1, .schedules_max = 100000};
	const struct explore_result *r = explore_with(&heavy, o);

	assert_true(r->memory_full && !r->complete);
	assert_int_equal(r->states, 3072);
}

static void limits_are_kept(void **state)
{
	const struct explore_result *r = explore_with(&heavy, (struct explore_options){.bound = 3, .schedules_max = 1000});

	assert_int_equal(r->schedules, 1000);
	assert_true(r->out_of_time && !r->complete && !r->failure);
}

/* ---- stories and schedules ---- */

static void replays_tell_the_same_story(void **state)
{
	for (size_t i = 0; i < test_programs_count; i++) {
		const struct explore_program *p = test_programs[i];
		struct explore_result replay;

		if (!p->expect_failure)
			continue;
		explore(p, 2);
		assert_true(explored.failure);
		for (int again = 0; again < 2; again++) {
			assert_int_equal(explore_replay(p, explored.schedule, &replay), 0);
			assert_int_equal(replay.failure, explored.failure);
			assert_string_equal(replay.story, explored.story);
			assert_string_equal(replay.text, explored.text);
			assert_string_equal(replay.schedule, explored.schedule);
			explore_result_end(&replay);
		}
	}
}

static void what_is_no_schedule_is_refused(void **state)
{
	static const char *const bad[] = {"", "1", "1:", ":1", "1:7", "1:0", "x", "1:1,", "1:1,,2:2", "2:1,1:2", "1:1,1:2", "1:d",
		"1:d7", "1:c", "1:c16", "1:hc1", "- ", "-,1:1", "1:1/", "1:1/3", "1:1/5-3", "1:1/3-5x", "99999999999:1"};
	struct explore_result r;

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(explore_replay(&lost_update, bad[i], &r), -EINVAL);
	/* It can be read, but not be done. */
	assert_int_equal(explore_replay(&lost_update, "0:3", &r), 0);
	assert_int_equal(r.failure, EXPLORE_DIVERGED);
	explore_result_end(&r);
	assert_int_equal(explore_replay(&lost_update, "0:h", &r), 0);
	assert_int_equal(r.failure, EXPLORE_DIVERGED);
	explore_result_end(&r);
}

static void stories_name_threads_objects_and_places(void **state)
{
	static const char *const parts[] = {"T1 adder", "T2 other", "reads value: 0", "sets value: 0 -> 1",
		"sets value: 1 -> 1", "(is interrupted here)", "test_programs.c:"};

	explore(&lost_update, 1);
	for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
		if (!strstr(explored.story, parts[i]))
			print_error("\"%s\" is not in\n%s", parts[i], explored.story);
		assert_non_null(strstr(explored.story, parts[i]));
	}
	/* The shortest: two threads with two steps, one of them interrupted. */
	assert_int_equal(explored.length, 4);
	assert_int_equal(explored.switches, 2);
	explore(&store_buffering, 1);
	assert_non_null(strstr(explored.story, "sets x: 0 -> 1; stays in the buffer"));
	assert_non_null(strstr(explored.story, "x = 1 reaches memory"));
}

static void two_searches_have_the_same_figures(void **state)
{
	for (size_t i = 0; i < test_programs_count; i++) {
		struct explore_options o = {.bound = 2, .random = 50, .seed = 7};
		struct explore_result first;

		if (test_programs[i] == &heavy)
			o.schedules_max = 500;
		explore_search(test_programs[i], &o, &first);
		explore_with(test_programs[i], o);
		assert_int_equal(first.schedules, explored.schedules);
		assert_int_equal(first.steps, explored.steps);
		assert_int_equal(first.states, explored.states);
		assert_int_equal(first.pruned, explored.pruned);
		assert_int_equal(first.pct.failures, explored.pct.failures);
		assert_int_equal(first.uniform.failures, explored.uniform.failures);
		assert_int_equal(first.failure, explored.failure);
		if (first.failure)
			assert_string_equal(first.schedule, explored.schedule);
		explore_result_end(&first);
	}
}

/* ---- random ---- */

static void random_runs_find_and_shorten(void **state)
{
	/* The search itself stays below the bound that it needs. */
	struct explore_options o = {.bound = 0, .random = 300, .seed = 1};
	const struct explore_result *r = explore_with(&lost_update, o);
	uint64_t first;

	assert_true(r->pct.failures && r->uniform.failures && r->pct.runs == 300);
	assert_int_equal(r->failure, EXPLORE_FAILED);
	assert_int_equal(r->length, 4);
	assert_int_equal(r->switches, 2);
	assert_int_equal(r->cost, 1);
	first = r->pct.first;
	assert_int_equal(explore_with(&lost_update, o)->pct.first, first);
	/* Stores are held back there, too. */
	assert_true(explore_with(&store_buffering, o)->pct.failures);
	assert_int_equal(explore_with(&store_buffering_barrier, o)->pct.failures, 0);
	assert_int_equal(explore_with(&spin_three, o)->pct.failures, 0);
	assert_int_equal(explored.uniform.failures, 0);
	assert_int_equal(explore_with(&unfair, o)->pct.failures, 0);
	assert_int_equal(explored.uniform.failures, 0);
}

/* ---- memory, misuse, crashes ---- */

static void allocations_fail_where_that_is_asked_for(void **state)
{
	fails(&alloc_unchecked, EXPLORE_FAILED, 0, "no memory");
	holds(&alloc_nth);
	assert_true(explored.ended > 1);
}

static void misuse_of_memory_is_found(void **state)
{
	fails(&use_after_free, EXPLORE_MISUSE, 0, "not in memory that is allocated");
	fails(&double_free, EXPLORE_MISUSE, 0, "no allocated block");
#ifndef UNDER_ASAN /* which sees the store itself */
	fails(&write_after_free, EXPLORE_MISUSE, 0, "freed memory was written to");
	fails(&write_after_free_again, EXPLORE_MISUSE, 0, "freed memory was written to");
#endif
}

static void misuse_of_locks_is_found(void **state)
{
	fails(&ends_with_lock, EXPLORE_MISUSE, 0, "T1 keeper ends, but holds lock RMAP of list");
	fails(&locks_twice, EXPLORE_MISUSE, 0, "T1 one takes lock RMAP of list again");
	fails(&foreign_unlock, EXPLORE_MISUSE, 0, "T2 dropper drops lock RMAP of list, which it does not hold");
	fails(&uninitialised, EXPLORE_MISUSE, 0, "is not initialised");
	fails(&sleeps_under_mm, EXPLORE_SLEPT, 0, "I/O while it holds lock MM");
}

static void assertions_and_invariants_fail_the_run(void **state)
{
	fails(&asserts, EXPLORE_ASSERTED, 0, "a32_fetch_add(&s->value, 1)");
	fails(&invariant_breaks, EXPLORE_FAILED, 1, "plain is 2");
}

static void crashes_fail_the_run(void **state)
{
#ifdef UNDER_ASAN
	skip(); /* its own report comes first */
#else
	fails(&crashes, EXPLORE_CRASHED, 0, "at address 0");
	fails(&overflows, EXPLORE_CRASHED, 0, "the stack of T1 one overflowed");
#endif
}

static void programs_that_are_not_deterministic_are_found_out(void **state)
{
	assert_int_equal(explore(&not_deterministic, 2)->failure, EXPLORE_DIVERGED);
}

/* ---- the command line ---- */

/* Runs this very program, at other addresses if it's position independent; its standard output. */
static char *command(const char *arguments, int *ret_status)
{
	char *line = NULL, *out = NULL;
	size_t size, n;
	FILE *f = open_memstream(&out, &size), *p;
	char buf[4096], self[4096];
	ssize_t len = readlink("/proc/self/exe", self, sizeof(self) - 1);

	assert_non_null(f);
	assert_true(len > 0);
	self[len] = 0;
	assert_true(asprintf(&line, "'%s' --programs %s 2>/dev/null", self, arguments) > 0);
	p = popen(line, "r");
	assert_non_null(p);
	while ((n = fread(buf, 1, sizeof(buf), p)) > 0)
		fwrite(buf, 1, n, f);
	*ret_status = pclose(p);
	*ret_status = WIFEXITED(*ret_status) ? WEXITSTATUS(*ret_status) : -1;
	fclose(f);
	free(line);
	return out;
}

static void assert_status(const char *arguments, int status)
{
	int got;

	free(command(arguments, &got));
	assert_int_equal(got, status);
}

static void exit_status_tells_what_failed(void **state)
{
	assert_status("--help", 0);
	assert_status("--list", 0);
	assert_status("lost-update", 0); /* is to fail */
	assert_status("--bound=0 lost-update", 1);
	assert_status("'spin*' update-locked", 0);
	assert_status("--replay=- lost-update", 1); /* it is to fail, and not so */
	assert_status("--replay=0:3 lost-update", 1); /* there is no such thread */
	assert_status("--replay=- update-locked", 0);
	assert_status("--bound=x", 2);
	assert_status("--nonsense", 2);
	assert_status("no-such-program", 2);
	assert_status("--replay=x lost-update", 2);
	assert_status("--replay=-", 2);
}

static void processes_have_the_same_figures(void **state)
{
	static const char *const arguments[] = {"--bound=2 --schedules=3000 --random=20 --stories",
		"--jobs=3 --bound=2 --schedules=3000 --random=20 --stories"};
	int status;
	char *first = command(arguments[0], &status);

	assert_true(strlen(first) > 1000);
	for (unsigned i = 0; i < 2; i++) {
		char *again = command(arguments[i], &status), *took = strstr(first, " violations, in "),
		     *took_again = strstr(again, " violations, in ");

		/* But for how long they took. */
		assert_true(took && took_again);
		*took = *took_again = 0;
		assert_string_equal(first, again);
		*took = ' ';
		free(again);
	}
	free(first);
}

static void a_failing_program_prints_its_replay(void **state)
{
	int status;
	char *out = command("--stories --bound=1 lost-update", &status), *replay = strstr(out, "--replay="), *again;

	assert_non_null(replay);
	replay[strcspn(replay, "\n")] = 0;
	again = command(replay, &status);
	assert_int_equal(status, 0);
	assert_non_null(strstr(again, "value is 1"));
	free(again);
	free(out);
}

static int end(void **state)
{
	explore_result_end(&explored);
	return 0;
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(stores_are_held_back_unless_a_barrier_follows),
		cmocka_unit_test(additions_are_held_back_as_stores_are),
		cmocka_unit_test(additions_stay_atomic_when_they_are_held_back),
		cmocka_unit_test(a_plain_store_may_come_after_a_later_one),
		cmocka_unit_test(messages_come_before_their_flag),
		cmocka_unit_test(without_held_stores_memory_is_sequential),
		cmocka_unit_test(pages_are_copied_by_eight_bytes),
		cmocka_unit_test(lost_updates_are_found_with_one_preemption),
		cmocka_unit_test(deadlocks_name_locks_and_holders),
		cmocka_unit_test(the_order_of_locks_is_checked_without_a_deadlock),
		cmocka_unit_test(locks_made_of_words_have_an_order_too),
		cmocka_unit_test(trying_a_lock_succeeds_or_fails),
		cmocka_unit_test(lost_wake_ups_are_deadlocks),
		cmocka_unit_test(conditions_wake_who_waits),
		cmocka_unit_test(a_signal_may_wake_any_waiter),
		cmocka_unit_test(spinning_ends_when_somebody_changes_something),
		cmocka_unit_test(fair_cycles_are_livelocks_and_unfair_ones_are_not),
		cmocka_unit_test(endless_runs_end_at_the_step_limit),
		cmocka_unit_test(interleavings_are_the_binomial_number),
		cmocka_unit_test(bounds_count_preemptions),
		cmocka_unit_test(pruning_meets_each_state_once),
		cmocka_unit_test(pruning_loses_no_failure),
		cmocka_unit_test(pruning_loses_no_outcome),
		cmocka_unit_test(checkpoints_change_nothing),
		cmocka_unit_test(choices_are_all_tried),
		cmocka_unit_test(counters_are_no_part_of_the_state),
		cmocka_unit_test(what_calls_leave_on_the_stack_is_no_part_of_the_state),
		cmocka_unit_test(a_full_set_of_states_is_reported),
		cmocka_unit_test(limits_are_kept),
		cmocka_unit_test(replays_tell_the_same_story),
		cmocka_unit_test(what_is_no_schedule_is_refused),
		cmocka_unit_test(stories_name_threads_objects_and_places),
		cmocka_unit_test(two_searches_have_the_same_figures),
		cmocka_unit_test(random_runs_find_and_shorten),
		cmocka_unit_test(allocations_fail_where_that_is_asked_for),
		cmocka_unit_test(misuse_of_memory_is_found),
		cmocka_unit_test(misuse_of_locks_is_found),
		cmocka_unit_test(assertions_and_invariants_fail_the_run),
		cmocka_unit_test(crashes_fail_the_run),
		cmocka_unit_test(programs_that_are_not_deterministic_are_found_out),
		cmocka_unit_test(exit_status_tells_what_failed),
		cmocka_unit_test(processes_have_the_same_figures),
		cmocka_unit_test(a_failing_program_prints_its_replay),
	};

	if (argc > 1 && !strcmp(argv[1], "--programs")) {
		argv[1] = argv[0];
		return explore_main(test_programs, test_programs_count, argc - 1, argv + 1);
	}
	return cmocka_run_group_tests_name("explorer's engine", tests, NULL, end);
}
