/* SPDX-License-Identifier: MIT */
/*
 * The scenarios: actors (actors.c) in twos and threes on the real rules; where allocations fail, where the disk does, and
 * where there is hardly any memory; fours for random runs; and for each losing design the ones that show
 * what is wrong with it.
 */
#include "model/scenarios.h"

#include <stdlib.h>

static void setup(void *data)
{
	const struct scenario *s = explore_param();

	explore_variants = (struct variants){0};
	world_begin(data, &s->options);
	/* Only what the threads do is done the losing way. */
	if (s->variant)
		*((bool *)&explore_variants + s->variant - 1) = true;
}

static void run(void *data)
{
	const struct scenario *s = explore_param();

	s->actors[explore_self()]->run(data);
}

static void check(void *data)
{
	world_end(data);
}

static const char *const start_names[] = {"cold:", "clean:", "", "shared-once:", "tight:"};

static struct scenario *scenario_new(const char *prefix, const struct actor *const *who, unsigned count, enum start start)
{
	struct scenario *s = calloc(1, sizeof(*s));
	size_t at;

	if (!s)
		exit(2);
	s->count = count;
	s->options = (struct world_options){.populate = start != COLD && start != TIGHT, .map = start >= CLEAN,
		.dirty = start >= DIRTY, .shared_once = start == SHARED_ONCE, .tight = start == TIGHT};
	at = (size_t)snprintf(s->name, sizeof(s->name), "%s%s", prefix, start_names[start]);
	for (unsigned i = 0; i < count; i++) {
		s->actors[i] = who[i];
		s->options.xip |= who[i]->xip;
		s->options.child |= who[i]->child;
		at += (size_t)snprintf(s->name + at, sizeof(s->name) - at, "%s%s", i ? "+" : "", who[i]->name);
		s->program.threads[i] = (struct explore_thread){who[i]->name, run};
	}
	/* In place only what nobody has stored to. */
	if (s->options.xip)
		s->options.map = s->options.dirty = false;
	s->program.name = s->name;
	s->program.text = s->text;
	s->program.data_size = sizeof(struct world);
	s->program.setup = setup;
	s->program.check = check;
	s->program.words = &scenario_words;
	s->program.param = s;
	return s;
}

static void list_add(struct list *l, struct scenario *s)
{
	if (l->count == l->room) {
		l->room = l->room ? 2 * l->room : 256;
		l->programs = realloc(l->programs, l->room * sizeof(*l->programs));
		if (!l->programs)
			exit(2);
	}
	l->programs[l->count++] = &s->program;
}

/* There is room for one child only. */
static bool together(const struct actor *a, const struct actor *b)
{
	bool fork_a = !strcmp(a->name, "fork"), fork_b = !strcmp(b->name, "fork");

	return !(fork_a && (fork_b || b->child)) && !(fork_b && a->child);
}

static void add_twos(struct list *l)
{
	for (unsigned i = 0; i < actor_count; i++) {
		for (unsigned k = i; k < actor_count; k++) {
			const struct actor *who[] = {&actors[i], &actors[k]};

			if (!together(who[0], who[1]))
				continue;
			for (enum start start = COLD; start <= SHARED_ONCE; start++) {
				struct scenario *s;

				if (start == SHARED_ONCE &&
					((!who[0]->space && !who[1]->space) || who[0]->child || who[1]->child))
					continue;
				s = scenario_new("two:", who, 2, start);

				s->program.bound = 2;
				list_add(l, s);
			}
		}
	}
}

/* ---- where something is missing ---- */

static bool writes_back(const struct actor *a)
{
	return a == actor_find("writeback") || a == actor_find("fsync") || a == actor_find("write-error");
}

/* One allocation of the threads fails, whichever it is. */
static void add_oom(struct list *l)
{
	for (unsigned i = 0; i < actor_count; i++) {
		for (unsigned k = i; k < actor_count; k++) {
			const struct actor *who[] = {&actors[i], &actors[k]};

			for (enum start start = COLD; together(who[0], who[1]) && start <= DIRTY; start++) {
				struct scenario *s;

				/* What is there already is allocated by nobody. */
				if (start == CLEAN)
					continue;
				s = scenario_new("oom:", who, 2, start);
				s->options.oom = true;
				s->program.alloc_failures = 1;
				/* No copy, and the device stores while it is written: interrupted both. */
				s->program.bound = start == DIRTY && who[0] == actor_find("long-pin") && writes_back(who[1]) ? 2 : 1;
				list_add(l, s);
			}
		}
	}
}

/* Where two who write back meet, it may take both to be interrupted; once the first of them twice. */
static unsigned failing_bound(const struct actor *failing, const struct actor *with, enum start start)
{
	bool fails = with >= failing_actors && with < failing_actors + failing_actor_count;

	if (failing == actor_find("write-error-twice") && with == actor_find("writeback"))
		return 3;
	return start == DIRTY && (fails || writes_back(with)) ? 2 : 1;
}

/* Disks that fail, with each other and with everybody. */
static void add_failing(struct list *l)
{
	static const char *const threes[][3] = {
		{"fsync-twice", "fsync-twice", "write-error"},
		{"fsync-twice", "write-error-twice", "long-pin"},
		{"fsync-twice", "write-torn", "truncate-grow"},
		{"fuse-read-other", "fuse-read-other", "read-error"},
		{"fuse-read-other", "short-read", "truncate-grow"},
		{"read-fault", "write-fault", "short-fault"},
	};

	for (unsigned i = 0; i < failing_actor_count; i++) {
		for (unsigned k = 0; k < failing_actor_count - i + actor_count; k++) {
			const struct actor *with = k < actor_count ? &actors[k] : &failing_actors[i + k - actor_count];
			const struct actor *who[] = {&failing_actors[i], with};

			for (enum start start = COLD; !with->xip && start <= DIRTY; start++) {
				struct scenario *s;

				if (start == CLEAN)
					continue;
				s = scenario_new("io:", who, 2, start);
				s->program.bound = failing_bound(who[0], with, start);
				list_add(l, s);
			}
		}
	}
	for (size_t i = 0; i < ARRAY_SIZE(threes); i++) {
		const struct actor *who[] = {actor_find(threes[i][0]), actor_find(threes[i][1]), actor_find(threes[i][2])};

		for (enum start start = COLD; start <= DIRTY; start += DIRTY - COLD) {
			struct scenario *s = scenario_new("io:", who, 3, start);

			s->program.bound = 1;
			list_add(l, s);
		}
	}
}

/* Frames that an actor may have to itself for long, or for good. */
static unsigned spare_of(const struct actor *a)
{
	/* A parent and a child have a private page each, and the one that they shared while they copy it. */
	if (a->child || a == actor_find("fork"))
		return 2;
	/* It faults while it has a pin: on a page that perhaps has left the file. */
	return a == actor_find("direct-write-after");
}

/* All of the file has one frame, so everybody waits for everybody. Nobody may do so for ever. */
static void add_tight(struct list *l)
{
	static const char *const threes[][3] = {
		{"fuse-read-other", "direct-write", "reclaim"},
		{"fuse-read-other", "direct-write", "invalidate"},
		{"fuse-read-other", "fuse-read-other", "long-pin"},
		{"fuse-read-other", "fuse-read-other", "truncate-grow"},
	};
	const struct actor *other = actor_find("fuse-read-other");

	for (size_t i = 0; i < ARRAY_SIZE(threes); i++) {
		const struct actor *who[] = {actor_find(threes[i][0]), actor_find(threes[i][1]), actor_find(threes[i][2])};
		struct scenario *s = scenario_new("", who, 3, TIGHT);

		s->program.bound = 2;
		list_add(l, s);
	}
	for (unsigned i = 0; i < actor_count; i++) {
		for (unsigned k = i; k < actor_count; k++) {
			const struct actor *who[] = {&actors[i], &actors[k]};
			struct scenario *s;

			if (!together(who[0], who[1]) || who[0]->xip || who[1]->xip)
				continue;
			/* What can't be written stays, and then there is nothing to wait for. */
			if (who[0] == actor_find("write-error") || who[1] == actor_find("write-error"))
				continue;
			s = scenario_new("", who, 2, TIGHT);
			for (unsigned n = 0; n < 2; n++)
				s->options.spare = MAX(s->options.spare, spare_of(who[n]));
			s->program.bound = who[0] == other || who[1] == other ? 2 : 1;
			list_add(l, s);
		}
	}
}

/* Not by whole units: late stores of a device into a hole (R5). */
static bool exact_in_units(const struct actor *a, const struct actor *b)
{
	return a != actor_find("punch") || (b != actor_find("direct-read") && b != actor_find("long-pin") &&
		b != actor_find("pin-nowait"));
}

/* The file is one unit of two pages, of which one is written whole while nothing is in the cache. */
static void add_units(struct list *l)
{
	static const char *const with[] = {"page-write-other", "read-fault", "fuse-read-other", "fuse-write", "writeback", "fsync",
		"truncate-grow", "punch", "reclaim", "invalidate", "direct-read", "read-error", "write-error", "no-space"};
	const struct actor *who[3];

	for (unsigned n = 0; n < 2; n++) {
		who[0] = actor_find(n ? "page-write-other" : "page-write");
		for (unsigned i = 0; i < actor_count + page_actor_count; i++) {
			struct scenario *s;

			who[1] = i < actor_count ? &actors[i] : &page_actors[i - actor_count];
			if (who[1]->xip || who[1]->child)
				continue;
			s = scenario_new("unit:", who, 2, COLD);
			s->options.one_unit = s->options.around = true;
			s->program.bound = 2;
			list_add(l, s);
		}
	}
	who[0] = actor_find("page-write");
	for (size_t i = 0; i < ARRAY_SIZE(with); i++) {
		for (size_t k = i; k < ARRAY_SIZE(with); k++) {
			struct scenario *s;

			who[1] = actor_find(with[i]);
			who[2] = actor_find(with[k]);
			if (!exact_in_units(who[1], who[2]) || !exact_in_units(who[2], who[1]))
				continue;
			s = scenario_new("unit:", who, 3, COLD);
			s->options.one_unit = s->options.around = true;
			s->program.bound = 1;
			list_add(l, s);
		}
	}
}

/* Both pages are in the cache, and a fault on one maps the other, too. */
static void add_around(struct list *l)
{
	static const char *const first[] = {"fault-both", "fault-then-dma"};

	for (unsigned i = 0; i < actor_count + page_actor_count; i++) {
		for (unsigned k = 0; k < ARRAY_SIZE(first); k++) {
			const struct actor *who[] = {actor_find(first[k]), i < actor_count ? &actors[i] : &page_actors[i - actor_count]};
			struct scenario *s;

			if (who[1]->xip || who[1]->child)
				continue;
			s = scenario_new("around:", who, 2, COLD);
			s->options.populate = s->options.around = true;
			/* With the file as one unit: its end may lie in it. */
			s->options.one_unit = who[1] == actor_find("truncate-one");
			s->program.bound = 2;
			list_add(l, s);
		}
	}
}

/* Private memory that goes away, moves, or is a copy of the file; and memory that goes back to the system. */
static void add_private(struct list *l)
{
	for (unsigned i = 0; i < private_actor_count; i++) {
		for (unsigned k = 0; k < private_actor_count - i + actor_count; k++) {
			const struct actor *with = k < actor_count ? &actors[k] : &private_actors[i + k - actor_count];
			const struct actor *who[] = {&private_actors[i], with};
			struct scenario *s;

			/* What the child has is told from what its parent had, at one address. */
			if (with->child || (i < 2 && with == actor_find("fork")))
				continue;
			/* Two who want all memory wait for each other. */
			if (with == &private_actors[i] && with == actor_find("fast-private"))
				continue;
			s = scenario_new("private:", who, 2, DIRTY);
			s->program.bound = k >= actor_count ? 3 : with->space || with == actor_find("reclaim") ? 2 : 1;
			list_add(l, s);
		}
	}
	for (unsigned i = 0; i < actor_count; i++) {
		const struct actor *who[] = {&actors[i], actor_find("shrink")};
		struct scenario *s;

		if (who[0]->child || who[0]->xip || who[0]->space || who[0] == actor_find("write-error"))
			continue;
		s = scenario_new("", who, 2, TIGHT);
		s->options.spare = spare_of(who[0]);
		s->program.bound = 2;
		list_add(l, s);
	}
}

/* Has it to do with the file's pages in the cache, as its only address space maps them? */
static bool in_the_cache(const struct actor *a)
{
	return !a->xip && !a->child && !a->space;
}

/* Takes the process's own translations away: what the back end of a process that maps memory outside is not asked for. */
static bool unmaps(const struct actor *a)
{
	return a == actor_find("munmap") || a == actor_find("mremap");
}

/* Takes pages out of their places. */
static bool clears(const struct actor *a)
{
	static const char *const names[] = {"truncate", "truncate-grow", "truncate-one", "punch", "reclaim", "invalidate", "read-error"};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (!strcmp(a->name, names[i]))
			return true;
	return false;
}

/* The file's pages lie in memory of its own, and come back to the same place; whoever maps them keeps his loads until it is cleared. */
static void add_outside(struct list *l)
{
	for (unsigned i = 0; i < actor_count; i++) {
		for (unsigned k = i; k < actor_count + page_actor_count; k++) {
			const struct actor *who[] = {&actors[i], k < actor_count ? &actors[k] : &page_actors[k - actor_count]};

			if (!in_the_cache(who[0]) || !in_the_cache(who[1]) || unmaps(who[0]) || unmaps(who[1]))
				continue;
			for (enum start start = COLD; start <= DIRTY; start++) {
				struct scenario *s;

				if (start == CLEAN)
					continue;
				s = scenario_new("outside:", who, 2, start);
				s->options.outside = true;
				/* Where nothing leaves its place it is as in the arena. */
				s->program.bound = clears(who[0]) || clears(who[1]) ? 2 : 1;
				list_add(l, s);
			}
		}
	}
	for (unsigned n = 0; n < moving_actor_count; n++) {
		for (unsigned k = 0; k < actor_count; k++) {
			const struct actor *who[] = {&moving_actors[n], &actors[k]};

			for (enum start start = COLD; in_the_cache(who[1]) && start <= DIRTY; start++) {
				struct scenario *s = scenario_new("outside:", who, 2, start);

				s->program.bound = 2;
				list_add(l, s);
			}
		}
	}
}

/* A process maps the file through userfaultfd, beside all that others do with it. */
static void add_process(struct list *l)
{
	static const char *const threes[][3] = {
		{"process-read", "process-read", "fsync"},
		{"process-read", "fsync", "reclaim"},
		{"process-read", "process-store", "fsync"},
		{"process-read", "fsync", "fsync"},
		{"process-long-pin", "fsync", "truncate-grow"},
		{"process-long-pin", "process-read", "punch"},
		{"process-read", "process-write", "reclaim"},
		{"process-store", "fsync", "reclaim"},
		{"process-store", "process-store", "writeback"},
		{"process-read", "write-fault", "fsync"},
		{"process-read", "direct-read", "fsync"},
	};

	for (unsigned i = 0; i < process_actor_count; i++) {
		for (unsigned k = 0; k < process_actor_count - i + actor_count; k++) {
			const struct actor *with = k < actor_count ? &actors[k] : &process_actors[i + k - actor_count];
			const struct actor *who[] = {&process_actors[i], with};

			for (enum start start = COLD; in_the_cache(with) && !unmaps(with) && start <= DIRTY; start++) {
				struct scenario *s;

				if (start == CLEAN)
					continue;
				s = scenario_new("process:", who, 2, start);
				s->options.outside = s->options.process = true;
				s->program.bound = 2;
				list_add(l, s);
			}
		}
	}
	for (size_t i = 0; i < ARRAY_SIZE(threes); i++) {
		const struct actor *who[] = {actor_find(threes[i][0]), actor_find(threes[i][1]), actor_find(threes[i][2])};

		for (enum start start = COLD; start <= DIRTY; start += DIRTY - COLD) {
			struct scenario *s = scenario_new("process:", who, 3, start);

			s->options.outside = s->options.process = true;
			s->program.bound = 2;
			list_add(l, s);
		}
	}
}

/* Too many orders to try them all: for random runs. */
static void add_fours(struct list *l)
{
	static const char *const names[] = {"write-fault", "direct-read", "long-pin", "private-dma", "private-store", "fork",
		"fsync", "truncate-grow", "reclaim"};

	for (unsigned set = 0; set < 1u << ARRAY_SIZE(names); set++) {
		const struct actor *who[4];
		struct scenario *s;
		unsigned n = 0;

		if (__builtin_popcount(set) != 4)
			continue;
		for (unsigned i = 0; i < ARRAY_SIZE(names); i++)
			if (set >> i & 1)
				who[n++] = actor_find(names[i]);
		s = scenario_new("four:", who, 4, DIRTY);
		s->program.sampled = true;
		list_add(l, s);
	}
}

static void add_threes(struct list *l)
{
	for (unsigned i = 0; i < actor_count; i++) {
		for (unsigned k = i; k < actor_count; k++) {
			for (unsigned m = k; m < actor_count; m++) {
				const struct actor *who[] = {&actors[i], &actors[k], &actors[m]};
				struct scenario *s;

				if (!together(who[0], who[1]) || !together(who[1], who[2]) || !together(who[0], who[2]))
					continue;
				s = scenario_new("three:", who, 3, DIRTY);
				s->program.bound = 1;
				list_add(l, s);
			}
		}
	}
}

/* Its threads with the losing design, or on the real rules. */
static void add_design(struct list *l, const struct losing *d, bool real)
{
	const struct actor *who[3];
	struct scenario *s;
	unsigned n = 0;

	for (; n < 3 && d->who[n]; n++)
		who[n] = actor_find(d->who[n]);
	s = scenario_new("", who, n, d->start);
	snprintf(s->name, sizeof(s->name), "%s%s", real ? "rules:" : "", d->name);
	snprintf(s->text, sizeof(s->text), "%s%s", real ? "the same threads on the real rules, which don't do this: " : "",
		losing_instead(d));
	s->locks = d->locks;
	s->counts = d->counts;
	s->ranges = d->ranges;
	s->program.bound = 3;
	if (!real) {
		s->variant = d->flag + 1;
		s->program.expect_failure = true;
	}
	list_add(l, s);
}

void scenarios_losing(struct list *l, bool real)
{
	for (unsigned i = 0; i < losing_count; i++)
		add_design(l, &losing[i], real);
}

void scenarios_rules(struct list *l)
{
	add_twos(l);
	add_threes(l);
	add_oom(l);
	add_failing(l);
	add_tight(l);
	add_units(l);
	add_around(l);
	add_private(l);
	add_outside(l);
	add_process(l);
	add_fours(l);
}

void scenarios_end(struct list *l)
{
	for (size_t i = 0; i < l->count; i++)
		free((void *)l->programs[i]->param);
	free(l->programs);
	*l = (struct list){0};
}
