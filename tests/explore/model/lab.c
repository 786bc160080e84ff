/* SPDX-License-Identifier: MIT */
/*
 * pinfs lab: the explorer for people. One losing design with its story, all of them, or the real rules; the rest of the
 * command line is the engine's (engine/driver.c). The program pinfs starts this one, with "pinfs lab" as its name.
 */
#include "model/scenarios.h"

#include <stdlib.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>

#define WIDTH 92u

static void usage(FILE *f)
{
	fputs("Usage: pinfs lab NAME [--full]\n"
	      "       pinfs lab --list\n"
	      "       pinfs lab --rules [OPTION]... [PATTERN]...\n"
	      "       pinfs lab --losing [OPTION]... [PATTERN]...\n"
	      "       pinfs lab --replay=SCHEDULE [OPTION]... NAME\n"
	      "Runs the page cache's own code in all orders of its threads' steps, within a bound: with a design that lost a\n"
	      "debate about pins and page faults, until it fails, or on the real rules, which must not.\n"
	      "\n"
	      "  NAME                one losing design (or its letter): what it is, and how it fails, as a story\n"
	      "  --list              the losing designs; with --rules or --losing: the scenarios that PATTERN chooses\n"
	      "  --rules             the real rules: all scenarios of two and three threads, or those of PATTERN (*, ?, [])\n"
	      "  --losing            the losing designs, a line for each\n"
	      EXPLORE_OPTIONS_HELP
	      "  -v, --verbose       with --rules: a line for each scenario\n"
	      "  -h, --help          this text\n"
	      "\n"
	      "Exit status: 0 the losing design was caught, the rules hold; 1 not; 2 wrong usage.\n", f);
}

static void list_losing(void)
{
	for (unsigned i = 0; i < losing_count; i++)
		printf("(%c) %-22s debate %u: %s\n", losing_letter(&losing[i]), losing[i].name, losing_debate(&losing[i]),
			losing_instead(&losing[i]));
}

/* A paragraph, indented. */
static void say_text(const char *text)
{
	unsigned at = 0;

	while (*text) {
		size_t len = strcspn(text, " ");

		if (at && at + 1 + len > WIDTH) {
			putchar('\n');
			at = 0;
		}
		printf("%s%.*s", at ? " " : "  ", (int)len, text);
		at += (unsigned)len + (at ? 1 : 2);
		text += len + (text[len] == ' ');
	}
	putchar('\n');
}

static void say(const char *title, const char *text)
{
	printf("\n%s\n", title);
	say_text(text);
}

static const char *beginning(const struct scenario *s)
{
	if (s->options.shared_once)
		return "At the beginning page 0 of the file (frame 0) is in the cache, mapped and dirty; the private page (frame 2) "
		       "has been shared with a child that is gone again.";
	if (s->options.xip)
		return "At the beginning the file's pages lie in place in the image, and nothing is mapped so far.";
	if (s->options.dirty)
		return "At the beginning page 0 of the file (frame 0) and a private page (frame 2) are in memory, mapped and "
		       "stored to (101, 102).";
	if (s->options.map)
		return "At the beginning the file's pages are in the cache (frames 0 and 1), clean; page 0 is mapped, read-only.";
	return "At the beginning nothing is in the cache, and nothing is mapped.";
}

static void say_threads(const struct scenario *s)
{
	printf("\nThe threads\n");
	for (unsigned i = 0; i < s->count; i++) {
		const char *does = losing_actor(s->actors[i]->name);

		printf("  T%u %-18s  %s\n", i + 1, s->actors[i]->name, does ? does : "");
	}
	say_text(beginning(s));
	say_text("Page 0 of the file belongs at 0x100, the private page at 0x180. Each store has a value of its own, from 101 on.");
}

static void say_search(const struct explore_result *r)
{
	printf("\nThe search\n  %llu schedules were tried, %llu distinct states seen, in %.1f s.\n",
		(unsigned long long)r->schedules, (unsigned long long)r->states, r->seconds);
	if (!r->failure)
		printf("  Nothing has failed: this design was not caught.\n");
	else
		printf("  The cheapest one that fails costs %u and has %llu steps. Each time that a thread is interrupted costs 1,\n"
		       "  and so does each store that other threads see late.\n", r->cost, (unsigned long long)r->length);
}

/* The same threads on the real rules, at least as far as was needed to catch the losing design. */
static bool say_real(const struct explore_program *real, unsigned cost, const char *self)
{
	const struct scenario *s = real->param;
	struct explore_options options = {.bound = s->count < 3 ? 2 : 1};
	struct explore_result r;
	bool ok;

	if (options.bound < cost)
		options.bound = cost;
	printf("\nThe same threads on the real rules\n");
	fflush(stdout);
	explore_search(real, &options, &r);
	ok = !r.failure;
	printf("  %llu schedules, %llu distinct states, up to cost %u, in %.1f s: %s.\n", (unsigned long long)r.schedules,
		(unsigned long long)r.states, options.bound, r.seconds, ok ? "nothing goes wrong" : "SOMETHING GOES WRONG");
	if (!ok) {
		explore_print_story(&r);
		printf("replay: %s --replay=%s %s\n", self, r.schedule, real->name);
	}
	explore_result_end(&r);
	return ok;
}

static int tell(const struct losing *d, const struct explore_program *p, const struct explore_program *real,
	const char *self)
{
	const struct explore_options options = {.bound = p->bound};
	struct explore_result r;
	bool caught, holds;

	printf("%s, losing design (%c) of debate %u: %s\n", d->name, losing_letter(d), losing_debate(d), losing_instead(d));
	say("Why somebody would want it", d->wish);
	say("What pinfs does instead", d->rule);
	say("What was said", losing_mail(losing_debate(d)));
	say("In short", d->said);
	say_threads(p->param);
	fflush(stdout);
	explore_search(p, &options, &r);
	say_search(&r);
	caught = r.failure != EXPLORE_OK && r.failure != EXPLORE_DIVERGED;
	if (r.failure) {
		printf("\nThe story: step, function, what it does%s\n\n",
			explore_brief ? " (steps that decide nothing are left out; --full tells all)" : "");
		explore_print_story(&r);
		say("What you see", d->shown);
	}
	holds = say_real(real, r.cost, self);
	if (r.schedule)
		printf("\nreplay: %s --replay=%s %s\n", self, r.schedule, p->name);
	explore_result_end(&r);
	return caught && holds ? 0 : 1;
}

/* ---- the command line ---- */

struct request {
	bool rules, losing, list, replay, help, verbose, quiet, json;
	unsigned names, options; /* of the rest */
	char **rest;		 /* for the engine, with argv[0] and NULL */
	int count;
};

static bool take(struct request *r, const char *word)
{
	const struct {
		const char *word;
		bool *flag;
	} words[] = {{"--rules", &r->rules}, {"--losing", &r->losing}, {"--help", &r->help}, {"-h", &r->help},
		{"--verbose", &r->verbose}, {"-v", &r->verbose}};

	for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
		if (!strcmp(word, words[i].word)) {
			*words[i].flag = true;
			return true;
		}
	}
	return false;
}

static bool request_parse(struct request *r, int argc, char **argv)
{
	bool only_names = false;

	r->rest = calloc((size_t)argc + 4, sizeof(*r->rest));
	if (!r->rest)
		return false;
	r->rest[r->count++] = argc ? argv[0] : "lab";
	for (int i = 1; i < argc; i++) {
		const char *word = argv[i];

		if (!only_names && take(r, word))
			continue;
		if (only_names || word[0] != '-')
			r->names++;
		else if (!strcmp(word, "--list"))
			r->list = true;
		else if (!strcmp(word, "--full"))
			explore_brief = false;
		else if (!strcmp(word, "--"))
			only_names = true;
		else
			r->options++;
		r->replay |= word[0] == '-' && !strncmp(word, "--replay", 8);
		r->quiet |= !strcmp(word, "-q") || !strcmp(word, "--quiet");
		r->json |= !strcmp(word, "--json");
		r->rest[r->count++] = argv[i];
	}
	return true;
}

/* As many as there are processors for it. */
static unsigned processors(void)
{
	cpu_set_t set;

	return sched_getaffinity(0, sizeof(set), &set) || CPU_COUNT(&set) < 1 ? 1 : (unsigned)CPU_COUNT(&set);
}

static int explore_list(struct request *r)
{
	static char quiet[] = "-q", jobs[32];
	struct list l = {0};
	int status;

	if (r->losing || !r->rules)
		scenarios_losing(&l, false);
	if (!r->losing && !r->rules)
		scenarios_losing(&l, true);
	if (r->rules || !r->losing)
		scenarios_rules(&l);
	/* Before the rest, which may say otherwise. */
	if (r->rules && !r->list) {
		snprintf(jobs, sizeof(jobs), "--jobs=%u", processors());
		memmove(r->rest + 3, r->rest + 1, (size_t)r->count * sizeof(*r->rest));
		r->rest[1] = jobs;
		r->rest[2] = r->verbose ? jobs : quiet;
		r->count += 2;
	}
	/* A letter is as good as a name. */
	for (int i = 1; i < r->count; i++)
		if (r->rest[i][0] && !r->rest[i][1] && losing_find(r->rest[i]))
			r->rest[i] = (char *)losing_find(r->rest[i])->name;
	status = explore_main(l.programs, l.count, r->count, r->rest);
	scenarios_end(&l);
	return status;
}

static int tell_chosen(const struct request *r)
{
	struct list losers = {0}, real = {0};
	int status = 0;

	scenarios_losing(&losers, false);
	scenarios_losing(&real, true);
	for (int i = 1; i < r->count && status != 2; i++) {
		const struct losing *d = losing_find(r->rest[i]);

		if (r->rest[i][0] == '-')
			continue;
		if (d) {
			status |= tell(d, losers.programs[d - losing], real.programs[d - losing], r->rest[0]);
		} else {
			fprintf(stderr, "%s: there is no losing design '%s'; %s --list shows them, %s --rules --list the scenarios\n",
				r->rest[0], r->rest[i], r->rest[0], r->rest[0]);
			status = 2;
		}
	}
	scenarios_end(&losers);
	scenarios_end(&real);
	return status;
}

int main(int argc, char **argv)
{
	struct request r = {0};
	int status = 0;

	explore_brief = true;
	if (!request_parse(&r, argc, argv)) {
		perror("lab");
		return 2;
	}
	if (r.help)
		usage(stdout);
	else if (r.rules || r.losing || r.replay || (r.options && (r.names || r.list)))
		status = explore_list(&r);
	else if (r.list)
		list_losing();
	else if (r.names && !r.options)
		status = tell_chosen(&r);
	else {
		usage(stderr);
		status = 2;
	}
	free(r.rest);
	return fflush(stdout) || ferror(stdout) ? 2 : status;
}
