/* SPDX-License-Identifier: MIT */
/*
 * The programs that test the engine: small ones with known bugs, and the same ones without. test_programs.c has them;
 * test_engine.c says what the engine must find.
 */
#ifndef PINFS_EXPLORE_PROGRAMS_H
#define PINFS_EXPLORE_PROGRAMS_H

#include "engine.h"

extern const struct explore_program store_buffering, store_buffering_barrier, store_buffering_add,
	store_buffering_add_barrier, message_passing, lost_update, update_locked, update_added, opposite_locks,
	opposite_locks_checked, word_locks, word_locks_order, word_locks_kept, lost_wake, futex_wake, missed_signal,
	condition_loop, wrong_waiter, trylock_both, trylock_excludes, spin, spin_three, spin_held, spin_alone,
	unfair, livelock, endless, two_by_four, three_by_three, alloc_unchecked, alloc_nth, choices, use_after_free,
	double_free, write_after_free, write_after_free_again, ends_with_lock, locks_twice, foreign_unlock,
	sleeps_under_mm, asserts, crashes, overflows, buffered_adds, plain_and_add, plain_store_last, counters_on,
	counters_off, torn, polite_locks, invariant_breaks, uninitialised, not_deterministic, dead_stack, heavy;

extern const struct explore_program *const test_programs[];
extern const size_t test_programs_count;

#endif
