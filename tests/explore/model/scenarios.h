/* SPDX-License-Identifier: MIT */
/*
 * The scenarios, and the table of the designs that lost.
 *
 * Used by: lab.c, the program. Uses: actors.h, world.h, engine.h.
 */
#ifndef PINFS_EXPLORE_SCENARIOS_H
#define PINFS_EXPLORE_SCENARIOS_H

#include "model/actors.h"

/* What is there when the threads begin. */
enum start { COLD, CLEAN, DIRTY, SHARED_ONCE, TIGHT };

/* What a program's `param` is. */
struct scenario {
	struct explore_program program;
	char name[96], text[192];
	struct world_options options;
	const struct actor *actors[4];
	unsigned count;
	size_t variant; /* offset of its flag in struct variants, plus one; 0: the real rules */
	/* Stories tell of: the mm lock and the inode lock; private pages' reference counts; changes of address ranges. */
	bool locks, counts, ranges;
};

struct list {
	const struct explore_program **programs;
	size_t count, room;
};

/* All scenarios on the real rules. These end the program if memory is out. */
void scenarios_rules(struct list *list);
/* One for each of losing[]; real: the same threads, but on the real rules ("rules:NAME"). */
void scenarios_losing(struct list *list, bool real);
void scenarios_end(struct list *list);

/* names.c */
extern const struct explore_words scenario_words;

/* ---- losing.c ---- */

struct losing {
	const char *name;   /* for the command line */
	size_t flag;	    /* offset in struct variants */
	const char *who[3]; /* the actors with whom it goes wrong */
	enum start start;
	bool locks, counts, ranges; /* as in struct scenario */
	/* For people; each one a paragraph. */
	const char *wish;  /* what it is, and why somebody would want it */
	const char *rule;  /* which rule pinfs has instead */
	const char *said;  /* what the mail says */
	const char *shown; /* what the story shows, and what was expected */
};
/* In the order of variant.h: (a), (b), ... */
extern const struct losing losing[];
extern const unsigned losing_count;
/* By name or letter; NULL: there is none. */
const struct losing *losing_find(const char *name);
char losing_letter(const struct losing *design);
unsigned losing_debate(const struct losing *design);
/* What it does instead of the rule: one line. */
const char *losing_instead(const struct losing *design);
/* The mail of a debate: author, date, subject, as far as they are known. */
const char *losing_mail(unsigned debate);
/* What an actor does, in a few words; NULL: its name says it. */
const char *losing_actor(const char *actor);

#endif
