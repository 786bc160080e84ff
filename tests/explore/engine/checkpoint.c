/* SPDX-License-Identifier: MIT */
/*
 * Copies of the state on the way: of what setup() has made, and of every few steps of the search's path. The next run,
 * which shares the path up to a step, begins with the last copy before it instead of doing all of it again.
 *
 * Not while a story is told, since names and notes come from the code itself; and not under the address sanitizer,
 * which has a state of its own.
 */
#include "internal.h"

struct checkpoint {
	uint64_t step;
	unsigned spent, switches, holds, pending, last, allocs_until_failure;
	struct world world;
	struct region_sizes sizes;
	void *copy;
	size_t capacity;
};

/* In the order of steps; the first is step 0. Those behind `count` are kept for their memory. */
static struct checkpoint *points;
static size_t count, made;

static bool possible(void)
{
#ifdef EXPLORE_ASAN
	return false;
#else
	return !explore_telling;
#endif
}

static void no_memory(void)
{
	perror("explore");
	exit(2);
}

void checkpoint_take(void)
{
	struct checkpoint *c;
	size_t size;

	if (!possible())
		return;
	if (count == made) {
		points = realloc(points, (made + 1) * sizeof(*points));
		if (!points)
			no_memory();
		memset(&points[made++], 0, sizeof(*points));
	}
	c = &points[count++];
	c->step = engine.step;
	c->spent = engine.spent;
	c->switches = engine.switches;
	c->holds = engine.holds;
	c->pending = engine.pending;
	c->last = engine.last;
	c->allocs_until_failure = engine.allocs_until_failure;
	c->world = *WORLD;
	size = region_measure(&c->sizes);
	if (size > c->capacity) {
		free(c->copy);
		c->copy = malloc(size);
		if (!c->copy)
			no_memory();
		c->capacity = size;
	}
	region_save(&c->sizes, c->copy);
}

bool checkpoint_restore(uint64_t step)
{
	const struct checkpoint *c;

	if (!possible())
		return false;
	while (count && points[count - 1].step > step)
		count--;
	if (!count)
		return false;
	c = &points[count - 1];
	region_load(&c->sizes, c->copy);
	*WORLD = c->world;
	engine.step = c->step;
	engine.spent = c->spent;
	engine.switches = c->switches;
	engine.holds = c->holds;
	engine.pending = c->pending;
	engine.last = c->last;
	engine.allocs_until_failure = c->allocs_until_failure;
	return true;
}

void checkpoint_drop(void)
{
	while (made)
		free(points[--made].copy);
	free(points);
	points = NULL;
	count = 0;
}
