/* SPDX-License-Identifier: MIT */
/* What threads of the scenarios do: one line each, to be combined with any other. */
#ifndef PINFS_EXPLORE_ACTORS_H
#define PINFS_EXPLORE_ACTORS_H

#include "model/world.h"

struct actor {
	const char *name;
	void (*run)(struct world *w);
	bool xip;	   /* wants the file's pages in place */
	bool space;	   /* works on an address space's private page */
	bool child;	   /* is a child's, which was forked before */
	const char *rules; /* that it is there for */
};

extern const struct actor actors[];
extern const unsigned actor_count;
/* What the disk does to them: in the scenarios about that only. */
extern const struct actor failing_actors[];
extern const unsigned failing_actor_count;
/* On the whole file: where its pages are one unit, or a fault maps both. */
extern const struct actor page_actors[];
extern const unsigned page_actor_count;
/* On private memory, and on memory as such. */
extern const struct actor private_actors[];
extern const unsigned private_actor_count;
/* What a process does that maps the file through userfaultfd. */
extern const struct actor process_actors[];
extern const unsigned process_actor_count;
/* The file's pages move out of the arena, and back. */
extern const struct actor moving_actors[];
extern const unsigned moving_actor_count;
/* By name; ends the program if there is none. */
const struct actor *actor_find(const char *name);

#endif
