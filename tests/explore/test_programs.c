/* SPDX-License-Identifier: MIT */
#include "programs.h"

#include <assert.h>
#include <string.h>

#include "base/sync.h"

/* Variants of one program differ in a constant. */
static bool variant(const char *name)
{
	return explore_param() && strstr(explore_param(), name);
}

/* ---- weak memory ---- */

struct words {
	struct a32 x, y, z;
	unsigned r[4];
	struct a64 wide;
};

static void words_named(void *data)
{
	struct words *w = data;

	explore_name(&w->x, sizeof(w->x), "x");
	explore_name(&w->y, sizeof(w->y), "y");
	explore_name(&w->z, sizeof(w->z), "z");
}

static void store_then_load(struct a32 *mine, struct a32 *other, unsigned *r)
{
	if (variant("add"))
		a32_fetch_add(mine, 1);
	else
		a32_set(mine, 1);
	if (variant("barrier"))
		sync_mb();
	*r = a32_read(other);
}
static void sb_left(void *data)
{
	struct words *w = data;

	store_then_load(&w->x, &w->y, &w->r[0]);
}
static void sb_right(void *data)
{
	struct words *w = data;

	store_then_load(&w->y, &w->x, &w->r[1]);
}
static void sb_check(void *data)
{
	struct words *w = data;

	explore_check(w->r[0] || w->r[1], "both read 0");
	explore_check(a32_read(&w->x) == 1 && a32_read(&w->y) == 1, "a store is lost");
}
#define STORE_BUFFERING(id, title, how)                                                                      \
	const struct explore_program id = {                                                                  \
		.name = title, .text = "x = 1, read y; y = 1, read x", .data_size = sizeof(struct words),    \
		.setup = words_named, .threads = {{"left", sb_left}, {"right", sb_right}}, .check = sb_check, \
		.param = how, .expect_failure = sizeof(how) < 6,                                             \
	}
STORE_BUFFERING(store_buffering, "store-buffering", "");
STORE_BUFFERING(store_buffering_barrier, "store-buffering-barrier", "barrier");
STORE_BUFFERING(store_buffering_add, "store-buffering-add", "add");
STORE_BUFFERING(store_buffering_add_barrier, "store-buffering-add-barrier", "add barrier");

static void mp_send(void *data)
{
	struct words *w = data;

	a32_set(&w->x, 1);
	w->r[0] = 1;
	a32_set_release(&w->y, 1);
}
static void mp_receive(void *data)
{
	struct words *w = data;

	if (a32_read_acquire(&w->y))
		explore_check(a32_read(&w->x) == 1 && w->r[0] == 1, "the flag came before the message");
}
const struct explore_program message_passing = {
	.name = "message-passing", .text = "a message, then a flag with release; read with acquire",
	.data_size = sizeof(struct words), .setup = words_named, .threads = {{"sender", mp_send}, {"receiver", mp_receive}},
};

/* Held back or not, additions are not lost. */
static void add_twice(void *data)
{
	struct words *w = data;

	a32_fetch_add(&w->x, 1);
	w->r[explore_self()] = a32_fetch_add(&w->x, 1);
}
static void added(void *data)
{
	struct words *w = data;

	explore_check(a32_read(&w->x) == 4, "x is %u", a32_read(&w->x));
	explore_check(w->r[0] != w->r[1], "both have seen %u", w->r[0]);
}
const struct explore_program buffered_adds = {
	.name = "buffered-adds", .text = "additions by two threads, whose writes may be held back",
	.data_size = sizeof(struct words), .setup = words_named, .threads = {{"one", add_twice}, {"two", add_twice}},
	.check = added,
};

/* No plain store comes between the read and the write of an addition, wherever the two are held back. */
static void store_plain(void *data)
{
	struct words *w = data;

	a32_set(&w->y, 1);
	a32_set(&w->x, 1);
}
static void add_to_plain(void *data)
{
	struct words *w = data;

	a32_set(&w->z, 1);
	w->r[0] = a32_fetch_add(&w->x, 10);
	w->r[1] = a32_fetch_add(&w->y, 10);
}
static void read_both(void *data)
{
	struct words *w = data;

	w->r[2] = a32_read(&w->x);
	w->r[3] = a32_read(&w->y);
}
static void plain_and_added(void *data)
{
	struct words *w = data;
	unsigned x = a32_read(&w->x), y = a32_read(&w->y);

	explore_check((x == 1 && !w->r[0]) || (x == 11 && w->r[0] == 1), "x is %u, %u was read", x, w->r[0]);
	explore_check((y == 1 && !w->r[1]) || (y == 11 && w->r[1] == 1), "y is %u, %u was read", y, w->r[1]);
	explore_check(!w->r[0] || w->r[1], "x was added to before y was set");
	explore_check(w->r[2] != 1 || w->r[3], "x was seen before y");
}
const struct explore_program plain_and_add = {
	.name = "plain-and-add", .text = "stores and additions to two words", .data_size = sizeof(struct words),
	.setup = words_named, .threads = {{"stores", store_plain}, {"adds", add_to_plain}, {"reads", read_both}},
	.check = plain_and_added,
};

/* A plain store that is held back may reach memory after a later one of another thread to the same word. */
static void plain_first(void *data)
{
	struct words *w = data;

	a32_set(&w->x, 1);
	w->r[0] = a32_read(&w->y);
}
static void plain_second(void *data)
{
	struct words *w = data;

	a32_set(&w->y, 1);
	sync_mb();
	a32_set(&w->x, 2);
}
static void plain_check(void *data)
{
	struct words *w = data;

	explore_check(w->r[0] || a32_read(&w->x) == 2, "x is 1, though its writer has seen y before the other one's store");
}
const struct explore_program plain_store_last = {
	.name = "plain-store-last", .text = "two stores to one word, the first of them held back",
	.data_size = sizeof(struct words), .setup = words_named,
	.threads = {{"first", plain_first}, {"second", plain_second}}, .check = plain_check, .expect_failure = true,
};

/* ---- updates and locks ---- */

struct shared {
	struct mutex m, n;
	struct cond c;
	struct a32 value, word, flag, done;
	unsigned plain, got[EXPLORE_THREADS_MAX];
	uint64_t page[2], copy[2];
	char *block;
};

static void shared_init(void *data)
{
	struct shared *s = data;

	mutex_init(&s->m, LOCK_RMAP);
	mutex_init(&s->n, LOCK_INDEX);
	cond_init(&s->c);
	explore_name(&s->m, sizeof(s->m), "list");
	explore_name(&s->n, sizeof(s->n), "tree");
	explore_name(&s->c, sizeof(s->c), "condition");
	explore_name(&s->value, sizeof(s->value), "value");
	explore_name(&s->word, sizeof(s->word), "word");
	explore_name(&s->flag, sizeof(s->flag), "flag");
}
#define SHARED .data_size = sizeof(struct shared), .setup = shared_init

static void update(void *data)
{
	struct shared *s = data;

	if (variant("add")) {
		a32_fetch_add(&s->value, 1);
		return;
	}
	if (variant("lock"))
		mutex_lock(&s->m);
	a32_set(&s->value, a32_read(&s->value) + 1);
	if (variant("lock"))
		mutex_unlock(&s->m);
}
static void updated(void *data)
{
	struct shared *s = data;

	explore_check(a32_read(&s->value) == 2, "value is %u", a32_read(&s->value));
}
#define UPDATE(id, title, how)                                                                      \
	const struct explore_program id = {                                                         \
		.name = title, .text = "two threads add one", SHARED,                               \
		.threads = {{"adder", update}, {"other", update}}, .check = updated, .param = how,  \
		.expect_failure = sizeof(how) == 1,                                                            \
	}
UPDATE(lost_update, "lost-update", "");
UPDATE(update_locked, "update-locked", "lock");
UPDATE(update_added, "update-added", "add");

static void list_then_tree(void *data)
{
	struct shared *s = data;

	mutex_lock(&s->m);
	mutex_lock(&s->n);
	mutex_unlock(&s->n);
	mutex_unlock(&s->m);
}
static void tree_then_list(void *data)
{
	struct shared *s = data;

	mutex_lock(&s->n);
	mutex_lock(&s->m);
	mutex_unlock(&s->m);
	mutex_unlock(&s->n);
}
#define OPPOSITE(id, title, unchecked)                                                                         \
	const struct explore_program id = {                                                                    \
		.name = title, .text = "two locks in opposite orders", SHARED, .expect_failure = true,         \
		.threads = {{"down", list_then_tree}, {"up", tree_then_list}}, .no_lock_order = unchecked,     \
	}
OPPOSITE(opposite_locks, "opposite-locks", true);
OPPOSITE(opposite_locks_checked, "opposite-locks-checked", false);

/* A lock that is a word, and whoever finds it taken sleeps there. */
static void word_lock(struct a32 *word, enum lock_class class)
{
	sync_lock_taken(class, false);
	while (a32_exchange(word, 1)) {
		sync_lock_dropped(class);
		a32_wait(word, 1);
		sync_lock_taken(class, false);
	}
}
static void word_unlock(struct a32 *word, enum lock_class class)
{
	a32_set_release(word, 0);
	sync_lock_dropped(class);
	a32_wake(word, 1);
}
static void word_update(void *data)
{
	struct shared *s = data;

	word_lock(&s->word, LOCK_RMAP);
	explore_check(sync_self.held == 1u << LOCK_RMAP && sync_self.count[LOCK_RMAP] == 1, "the lock is not known");
	s->plain++;
	explore_point("works");
	explore_check(s->plain-- == 1, "two hold the lock");
	word_unlock(&s->word, LOCK_RMAP);
	explore_check(!sync_self.held, "the lock is still known");
}
static void words_down(void *data)
{
	struct shared *s = data;

	word_lock(&s->word, LOCK_RMAP);
	word_lock(&s->flag, LOCK_INDEX);
	word_unlock(&s->flag, LOCK_INDEX);
	word_unlock(&s->word, LOCK_RMAP);
}
static void words_up(void *data)
{
	struct shared *s = data;

	word_lock(&s->flag, LOCK_INDEX);
	word_lock(&s->word, LOCK_RMAP);
}
static void words_keep(void *data)
{
	struct shared *s = data;

	word_lock(&s->word, LOCK_RMAP);
}
const struct explore_program word_locks = {
	.name = "word-locks", .text = "locks that are words", SHARED,
	.threads = {{"one", word_update}, {"two", word_update}},
};
const struct explore_program word_locks_order = {
	.name = "word-locks-order", .text = "locks that are words, in opposite orders", SHARED, .expect_failure = true,
	.threads = {{"down", words_down}, {"up", words_up}},
};
const struct explore_program word_locks_kept = {
	.name = "word-locks-kept", .text = "a lock that is a word is not dropped", SHARED, .expect_failure = true,
	.threads = {{"keeper", words_keep}},
};

static void try_both(void *data)
{
	struct shared *s = data;
	bool taken = mutex_trylock(&s->m);

	s->got[explore_self()] = taken;
	if (taken) {
		explore_check(!s->plain++, "two hold the lock");
		explore_point("works");
		s->plain--;
		mutex_unlock(&s->m);
	}
}
static void one_failed(void *data)
{
	struct shared *s = data;

	explore_check(s->got[0] && s->got[1], "one has tried in vain");
}
const struct explore_program trylock_both = {
	.name = "trylock-both", .text = "somebody tries a lock in vain, sometimes", SHARED, .expect_failure = true,
	.threads = {{"one", try_both}, {"two", try_both}}, .check = one_failed,
};
const struct explore_program trylock_excludes = {
	.name = "trylock-excludes", .text = "never do two hold a lock", SHARED,
	.threads = {{"one", try_both}, {"two", try_both}, {"three", try_both}},
};

/* ---- waiting ---- */

static void wait_for_flag(void *data)
{
	struct shared *s = data;
	struct a32 *where = variant("other word") ? &s->word : &s->flag;

	while (!a32_read_acquire(&s->flag))
		a32_wait(where, 0);
}
static void raise_flag(void *data)
{
	struct shared *s = data;

	a32_set_release(&s->flag, 1);
	a32_wake(variant("other word") ? &s->word : &s->flag, 1);
}
const struct explore_program lost_wake = {
	.name = "lost-wake", .text = "sleeps at another word than it has looked at", SHARED, .param = "other word",
	.threads = {{"waiter", wait_for_flag}, {"waker", raise_flag}}, .expect_failure = true,
};
const struct explore_program futex_wake = {
	.name = "futex-wake", .text = "sleeps at the word that it has looked at", SHARED,
	.threads = {{"waiter", wait_for_flag}, {"waker", raise_flag}},
};

static void consume(void *data)
{
	struct shared *s = data;

	mutex_lock(&s->m);
	if (variant("blind"))
		cond_wait(&s->c, &s->m);
	while (!s->plain)
		cond_wait(&s->c, &s->m);
	s->plain--;
	mutex_unlock(&s->m);
}
static void produce(void *data)
{
	struct shared *s = data;

	mutex_lock(&s->m);
	s->plain++;
	mutex_unlock(&s->m);
	cond_signal(&s->c);
}
static void consume_even(void *data)
{
	struct shared *s = data;

	mutex_lock(&s->m);
	while (s->plain != 2)
		cond_wait(&s->c, &s->m);
	mutex_unlock(&s->m);
}
const struct explore_program condition_loop = {
	.name = "condition-loop", .text = "waits in a loop for something to consume", SHARED,
	.threads = {{"consumer", consume}, {"consumer", consume}, {"producer", produce}, {"producer", produce}},
};
const struct explore_program missed_signal = {
	.name = "missed-signal", .text = "waits without looking first", SHARED, .param = "blind", .expect_failure = true,
	.threads = {{"consumer", consume}, {"producer", produce}},
};
const struct explore_program wrong_waiter = {
	.name = "wrong-waiter", .text = "one signal, two who wait for different things", SHARED, .expect_failure = true,
	.threads = {{"consumer", consume}, {"other", consume_even}, {"producer", produce}},
};

static void spin_for_flag(void *data)
{
	struct shared *s = data;

	while (!a32_read_acquire(&s->flag))
		if (!variant("busy"))
			sync_relax();
}
const struct explore_program spin = {
	.name = "spin", .text = "spins for a flag", SHARED, .threads = {{"spinner", spin_for_flag}, {"setter", raise_flag}},
};
const struct explore_program spin_three = {
	.name = "spin-three", .text = "two spin for a flag", SHARED,
	.threads = {{"spinner", spin_for_flag}, {"spinner", spin_for_flag}, {"setter", raise_flag}},
};
/* The store stays in the buffer after its thread has ended. */
static void set_flag(void *data)
{
	struct shared *s = data;

	a32_set_release(&s->flag, 1);
}
const struct explore_program spin_held = {
	.name = "spin-held", .text = "spins for a flag that reaches memory late", SHARED,
	.threads = {{"spinner", spin_for_flag}, {"setter", set_flag}},
};
const struct explore_program spin_alone = {
	.name = "spin-alone", .text = "spins for a flag that nobody sets", SHARED, .expect_failure = true,
	.threads = {{"spinner", spin_for_flag}, {"spinner", spin_for_flag}},
};

/* Each holds one lock, tries the other one, and gives up: for ever, if they keep step. */
static void polite(struct mutex *mine, struct mutex *other, struct a32 *done)
{
	for (;;) {
		mutex_lock(mine);
		explore_point("holds one");
		if (mutex_trylock(other))
			break;
		mutex_unlock(mine);
		sync_relax();
	}
	mutex_unlock(other);
	mutex_unlock(mine);
	a32_set(done, 1);
}
static void polite_list(void *data)
{
	struct shared *s = data;

	while (!a32_read(&s->flag)) {
		mutex_lock(&s->m);
		mutex_unlock(&s->m);
		sync_relax();
	}
}
const struct explore_program livelock = {
	.name = "livelock", .text = "two look for each other's flag under a lock, and nobody raises it", SHARED,
	.threads = {{"one", polite_list}, {"two", polite_list}}, .expect_failure = true,
};
/* They could go on so for ever, but no fair scheduler lets the third one wait so long. */
const struct explore_program unfair = {
	.name = "unfair", .text = "two look for a flag under a lock, and a third one raises it", SHARED,
	.threads = {{"one", polite_list}, {"two", polite_list}, {"three", raise_flag}},
};
static void polite_tree(void *data)
{
	struct shared *s = data;

	polite(&s->n, &s->m, &s->done);
}
static void polite_down(void *data)
{
	struct shared *s = data;

	polite(&s->m, &s->n, &s->done);
}
/* Correct, but each interruption makes it try again. */
const struct explore_program polite_locks = {
	.name = "polite-locks", .text = "two who give up what they hold", SHARED,
	.threads = {{"down", polite_down}, {"up", polite_tree}},
};

static void run_on(void *data)
{
	struct shared *s = data;

	for (;;)
		a32_fetch_add(&s->value, 1);
}
const struct explore_program endless = {
	.name = "endless", .text = "counts for ever", SHARED, .threads = {{"counter", run_on}}, .steps_max = 500,
	.expect_failure = true,
};

/* ---- counting schedules ---- */

static void four_points(void *data)
{
	for (int i = 0; i < 4; i++)
		explore_point("step");
}
static void three_points(void *data)
{
	for (int i = 0; i < 3; i++)
		explore_point("step");
}
const struct explore_program two_by_four = {
	.name = "two-by-four", .text = "2 threads with 4 steps", .threads = {{"a", four_points}, {"b", four_points}},
};
const struct explore_program three_by_three = {
	.name = "three-by-three", .text = "3 threads with 3 steps",
	.threads = {{"a", three_points}, {"b", three_points}, {"c", three_points}},
};

static void choose_twice(void *data)
{
	struct shared *s = data;
	unsigned a = explore_choose(3, "a"), b = explore_choose(4, "b");

	explore_check(a != 2 || b != 3 || !variant("fail"), "2 and 3");
	s->plain = 4 * a + b;
}
const struct explore_program choices = {
	.name = "choices", .text = "3 times 4 choices", SHARED, .threads = {{"chooser", choose_twice}},
};

static void count(void *data)
{
	struct shared *s = data;

	for (int i = 0; i < 12; i++) {
		explore_point("one");
		if (variant("counted"))
			a32_count(&s->value, explore_self() ? 10 : 1);
	}
}
static void counted_right(void *data)
{
	struct shared *s = data;

	explore_check(!variant("counted") || a32_read(&s->value) == 132, "counted %u", a32_read(&s->value));
}
const struct explore_program counters_on = {
	.name = "counters-on", .text = "statistics", SHARED, .threads = {{"a", count}, {"b", count}},
	.check = counted_right, .param = "counted",
};
const struct explore_program counters_off = {
	.name = "counters-off", .text = "no statistics", SHARED, .threads = {{"a", count}, {"b", count}},
	.check = counted_right,
};

/* Leaves something on the stack, or not; the next function leaves most of its own part of it unwritten. */
static __attribute__((noinline)) void litter(void)
{
	volatile char room[400];

	for (size_t i = 0; i < sizeof(room); i++)
		room[i] = 1;
}
static __attribute__((noinline)) void walk(struct shared *s)
{
	volatile char room[300];

	room[5] = 1;
	for (int i = 0; i < 5; i++)
		explore_point("step");
	s->plain += (unsigned)room[5];
}
static void litter_or_not(void *data)
{
	if (explore_choose(2, "litter") && !variant("clean"))
		litter();
	explore_point("between");
	walk(data);
}
const struct explore_program dead_stack = {
	.name = "dead-stack", .text = "what calls leave on the stack", SHARED,
	.threads = {{"one", litter_or_not}, {"two", litter_or_not}},
};

/* ---- memory ---- */

static void allocate(void *data)
{
	unsigned *p = explore_alloc(16), *q;

	explore_point("between");
	q = explore_alloc(16);
	if (variant("checked") && (!p || !q)) {
		explore_free(p);
		explore_free(q);
		return;
	}
	explore_check(p && q, "no memory");
	*p = *q = 1;
	explore_free(p);
	explore_free(q);
}
static void nothing_left(void *data)
{
	explore_check(!explore_blocks(), "%u blocks are left", explore_blocks());
}
const struct explore_program alloc_unchecked = {
	.name = "alloc-unchecked", .text = "an allocation's failure is not expected", SHARED, .alloc_failures = 1,
	.threads = {{"user", allocate}, {"user", allocate}}, .check = nothing_left, .expect_failure = true,
};
static void fail_second(void *data)
{
	struct shared *s = data;

	shared_init(data);
	explore_alloc_fail_at(2);
	s->block = explore_alloc(1);
	explore_check(s->block && !explore_alloc(1) && explore_blocks() == 1, "not the second one");
	explore_free(s->block);
	explore_alloc_fail_at(3);
}
const struct explore_program alloc_nth = {
	.name = "alloc-nth", .text = "the third allocation fails", .data_size = sizeof(struct shared), .setup = fail_second,
	.threads = {{"user", allocate}, {"user", allocate}}, .check = nothing_left, .param = "checked",
};

static void free_it(void *data)
{
	struct shared *s = data;

	explore_point("before");
	explore_free(s->block);
	if (variant("double"))
		explore_free(s->block);
}
static void use_it(void *data)
{
	struct shared *s = data;

	a32_set((struct a32 *)(void *)s->block, 1);
}
static void block_init(void *data)
{
	struct shared *s = data;

	shared_init(data);
	s->block = explore_alloc(100);
}
const struct explore_program use_after_free = {
	.name = "use-after-free", .text = "a word in freed memory", .data_size = sizeof(struct shared),
	.setup = block_init, .threads = {{"user", use_it}, {"owner", free_it}}, .expect_failure = true,
};
const struct explore_program double_free = {
	.name = "double-free", .text = "memory is freed twice", .data_size = sizeof(struct shared), .setup = block_init,
	.threads = {{"owner", free_it}}, .param = "double", .expect_failure = true,
};

static void write_freed(void *data)
{
	struct shared *s = data;

	explore_free(s->block);
	s->block[50] = 1;
	if (variant("again"))
		s->block = explore_alloc(100);
}
const struct explore_program write_after_free = {
	.name = "write-after-free", .text = "plain stores to freed memory", .data_size = sizeof(struct shared),
	.setup = block_init, .threads = {{"owner", write_freed}}, .expect_failure = true,
};
const struct explore_program write_after_free_again = {
	.name = "write-after-free-again", .text = "plain stores to freed memory, which is used again",
	.data_size = sizeof(struct shared), .setup = block_init, .threads = {{"owner", write_freed}}, .param = "again",
	.expect_failure = true,
};

static void copy_page(void *data)
{
	struct shared *s = data;

	sync_copy_torn(s->copy, s->page, sizeof(s->copy));
	explore_check(s->copy[0] == s->copy[1], "torn: %llu, %llu", (unsigned long long)s->copy[0],
		(unsigned long long)s->copy[1]);
}
static void write_page(void *data)
{
	struct shared *s = data;

	explore_point("writes");
	s->page[0] = s->page[1] = 1;
}
const struct explore_program torn = {
	.name = "torn", .text = "a page is copied while it changes", SHARED, .expect_failure = true,
	.threads = {{"reader", copy_page}, {"writer", write_page}},
};

/* ---- misuse, crashes ---- */

static void keep_lock(void *data)
{
	struct shared *s = data;

	mutex_lock(&s->m);
}
const struct explore_program ends_with_lock = {
	.name = "ends-with-lock", .text = "a thread ends and holds a lock", SHARED, .threads = {{"keeper", keep_lock}},
	.expect_failure = true,
};
static void lock_twice(void *data)
{
	struct shared *s = data;

	mutex_lock(&s->m);
	mutex_lock(&s->m);
}
const struct explore_program locks_twice = {
	.name = "locks-twice", .text = "a thread takes a lock that it holds", SHARED, .threads = {{"one", lock_twice}},
	.no_lock_order = true, .expect_failure = true,
};
static void drop_lock(void *data)
{
	struct shared *s = data;

	mutex_unlock(&s->m);
}
const struct explore_program foreign_unlock = {
	.name = "foreign-unlock", .text = "a lock is dropped that another thread holds", SHARED,
	.threads = {{"keeper", list_then_tree}, {"dropper", drop_lock}}, .expect_failure = true,
};
static void sleep_locked(void *data)
{
	struct shared *s = data;

	mutex_lock(&s->m);
	sync_may_sleep("I/O");
	mutex_unlock(&s->m);
}
static void mm_init(void *data)
{
	struct shared *s = data;

	mutex_init(&s->m, LOCK_MM);
}
const struct explore_program sleeps_under_mm = {
	.name = "sleeps-under-mm", .text = "I/O under the mm lock", .data_size = sizeof(struct shared), .setup = mm_init,
	.threads = {{"reader", sleep_locked}}, .expect_failure = true,
};
const struct explore_program uninitialised = {
	.name = "uninitialised", .text = "a mutex without mutex_init()", .data_size = sizeof(struct shared),
	.threads = {{"user", list_then_tree}}, .expect_failure = true,
};
static void assert_one(void *data)
{
	struct shared *s = data;

	assert(a32_fetch_add(&s->value, 1) == 0);
}
const struct explore_program asserts = {
	.name = "asserts", .text = "an assertion in the code under test", SHARED,
	.threads = {{"one", assert_one}, {"two", assert_one}}, .expect_failure = true,
};
static void crash(void *data)
{
	struct shared *s = data;

	if (a32_fetch_add(&s->value, 1) == 1)
		*(volatile int *)(uintptr_t)a32_read(&s->flag) = 1;
}
const struct explore_program crashes = {
	.name = "crashes", .text = "a null pointer is used", SHARED, .threads = {{"one", crash}, {"two", crash}},
	.expect_failure = true,
};
static unsigned deeper(volatile unsigned *p)
{
	volatile unsigned room[1000];

	room[0] = *p + 1;
	return room[0] ? deeper(room) + room[999] : 0;
}
static void overflow(void *data)
{
	struct shared *s = data;

	explore_point("before");
	s->plain = 1;
	s->plain = deeper(&s->plain);
}
const struct explore_program overflows = {
	.name = "overflows", .text = "a stack overflows", SHARED, .threads = {{"one", overflow}}, .expect_failure = true,
};

static void not_two(void *data)
{
	struct shared *s = data;

	explore_check(s->plain != 2, "plain is 2");
}
static void raise_plain(void *data)
{
	struct shared *s = data;

	explore_point("up");
	s->plain++;
	explore_point("down");
	s->plain--;
}
const struct explore_program invariant_breaks = {
	.name = "invariant-breaks", .text = "something that holds at the end, but not always", SHARED,
	.threads = {{"one", raise_plain}, {"two", raise_plain}}, .invariant = not_two, .expect_failure = true,
};

static unsigned outside;
static void depends_on_outside(void *data)
{
	struct shared *s = data;

	a32_read(&s->flag);
	if (outside++ % 3)
		a32_read(&s->value);
	a32_read(&s->word);
}
const struct explore_program not_deterministic = {
	.name = "not-deterministic", .text = "a global decides", SHARED, .expect_failure = true,
	.threads = {{"one", depends_on_outside}, {"two", depends_on_outside}},
};

/* ---- speed ---- */

struct heavy {
	struct mutex m;
	struct a32 words[16];
	uint64_t *memory;
};
#define HEAVY_MEMORY (64u << 10)

static void heavy_init(void *data)
{
	struct heavy *h = data;

	mutex_init(&h->m, LOCK_TEST);
	h->memory = explore_alloc(HEAVY_MEMORY - 2048);
	for (unsigned i = 0; i < (HEAVY_MEMORY - 2048) / 8; i++)
		h->memory[i] = i;
}
static void heavy_work(void *data)
{
	struct heavy *h = data;

	for (unsigned i = 0; i < 12; i++) {
		a32_fetch_add(&h->words[(i + 5u * (unsigned)explore_self()) % 16], 1);
		if (i % 4 == 3) {
			mutex_lock(&h->m);
			h->memory[i * 500] += i;
			mutex_unlock(&h->m);
		} else {
			a32_read(&h->words[i]);
		}
	}
}
const struct explore_program heavy = {
	.name = "heavy", .text = "64 KiB of memory, to measure speed", .data_size = sizeof(struct heavy),
	.setup = heavy_init, .threads = {{"a", heavy_work}, {"b", heavy_work}, {"c", heavy_work}},
};

const struct explore_program *const test_programs[] = {&store_buffering, &store_buffering_barrier,
	&store_buffering_add, &store_buffering_add_barrier, &message_passing, &buffered_adds, &plain_and_add,
	&plain_store_last, &lost_update, &update_locked, &update_added, &opposite_locks, &opposite_locks_checked,
	&word_locks, &word_locks_order, &word_locks_kept, &trylock_both, &trylock_excludes, &lost_wake, &futex_wake,
	&missed_signal, &condition_loop, &wrong_waiter, &spin, &spin_three, &spin_held, &spin_alone, &unfair,
	&livelock, &polite_locks, &endless, &two_by_four, &three_by_three, &choices, &counters_on, &counters_off,
	&dead_stack, &alloc_unchecked, &alloc_nth, &torn, &use_after_free, &double_free, &ends_with_lock,
	&locks_twice, &foreign_unlock, &sleeps_under_mm, &uninitialised, &asserts, &invariant_breaks, &heavy};
const size_t test_programs_count = sizeof(test_programs) / sizeof(test_programs[0]);
