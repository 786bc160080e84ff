/* SPDX-License-Identifier: MIT */
/*
 * The scenarios: actors (actors.c) in twos and threes on the real rules, and for each losing design the ones that show
 * what is wrong with it.
 */
#include "model/actors.h"

#include <stdlib.h>

struct scenario {
	struct explore_program program;
	char name[96], text[192];
	struct world_options options;
	const struct actor *actors[3];
	unsigned count;
	size_t variant; /* offset of its flag in struct variants, plus one; 0: the real rules */
};

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

/* What is there when the threads begin. */
enum start { COLD, CLEAN, DIRTY, SHARED_ONCE };
static const char *const start_names[] = {"cold:", "clean:", "", "shared-once:"};

static struct scenario *scenario_new(const char *prefix, const struct actor *const *who, unsigned count, enum start start)
{
	struct scenario *s = calloc(1, sizeof(*s));
	size_t at;

	if (!s)
		exit(2);
	s->count = count;
	s->options = (struct world_options){.populate = start != COLD, .map = start >= CLEAN, .dirty = start >= DIRTY,
		.shared_once = start == SHARED_ONCE};
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
	s->program.param = s;
	return s;
}

struct list {
	const struct explore_program **programs;
	size_t count, room;
};

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

/* The losing designs, and with whom each goes wrong. */
static const struct {
	size_t flag;
	const char *name, *what;
	const char *who[3];
	enum start start;
} losing[] = {
#define LOSING(name, ...) {offsetof(struct variants, name), #name, __VA_ARGS__}
	LOSING(cow_by_page_count, "COW by page count", {"private-dma", "mprotect-store"}, DIRTY),
	LOSING(cow_by_mapcount, "COW by map count", {"private-read", "fork"}, SHARED_ONCE),
	LOSING(bounce_too_late, "bounce too late", {"direct-read", "fsync"}, DIRTY),
	LOSING(dirty_at_unpin, "dirty at unpin", {"direct-read", "fsync"}, CLEAN),
	LOSING(lock_upgrade, "lock upgrade", {"read-fault", "munmap"}, COLD),
	LOSING(busy_is_success, "EBUSY is success", {"xip-load", "xip-store"}, COLD),
	LOSING(callback_under_lock, "callbacks under the mm lock", {"write-fault", "write-from-mapping"}, COLD),
	LOSING(fork_protects_pinned, "fork protects pinned pages", {"private-dma", "fork", "private-store"}, DIRTY),
	LOSING(pin_without_barrier, "fast pin without barrier", {"direct-read", "fsync"}, DIRTY),
	LOSING(reclaim_tests_first, "reclaim tests pins first", {"direct-write-after", "reclaim"}, CLEAN),
	LOSING(clean_pinned, "writeback cleans pinned pages", {"long-pin", "fsync"}, DIRTY),
	LOSING(truncate_reuses, "truncate reuses pinned pages", {"long-pin", "truncate-grow", "read-fault"}, DIRTY),
};

static void add_losing(struct list *l)
{
	for (size_t i = 0; i < ARRAY_SIZE(losing); i++) {
		const struct actor *who[3];
		struct scenario *s;
		unsigned n = 0;

		for (; n < 3 && losing[i].who[n]; n++)
			who[n] = actor_find(losing[i].who[n]);
		s = scenario_new("", who, n, losing[i].start);
		snprintf(s->name, sizeof(s->name), "losing:%s", losing[i].name);
		snprintf(s->text, sizeof(s->text), "%s", losing[i].what);
		s->variant = losing[i].flag + 1;
		s->program.bound = 3;
		s->program.expect_failure = true;
		list_add(l, s);
	}
}

int main(int argc, char **argv)
{
	struct list list = {0};
	int status;

	add_losing(&list);
	add_twos(&list);
	add_threes(&list);
	status = explore_main(list.programs, list.count, argc, argv);
	for (size_t i = 0; i < list.count; i++)
		free((void *)list.programs[i]->param);
	free(list.programs);
	return status;
}
