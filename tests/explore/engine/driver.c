/* SPDX-License-Identifier: MIT */
/* The command line of programs that explore. */
#include "internal.h"

#include <fnmatch.h>
#include <getopt.h>

#include "base/util.h"

#define BOUND_DEFAULT 2u

static const char usage_text[] =
	"usage: %s [OPTION]... [NAME]...\n"
	"Runs small programs in all orders of their steps, within a bound, and tells the shortest one that fails.\n"
	"NAME: a program, or a pattern (*, ?, []); default: all.\n"
	"\n"
	"  --list              the programs, one in a line\n"
	"  --bound=N           preemptions and held stores at most; \"none\": all schedules (default: the program's, or 2)\n"
	"  --schedules=N       stop searching a program after N runs\n"
	"  --time=SECONDS      stop searching a program after this time, and its random runs after as much again\n"
	"  --memory=MIB        for the set of states (default: 1024)\n"
	"  --random=N          then N runs with random priorities (PCT), and N with uniform choices\n"
	"  --seed=S            of the random runs (default: 1)\n"
	"  --depth=D           of the random runs: D - 1 changes of priorities (default: 3)\n"
	"  --replay=SCHEDULE   run one schedule and tell its story\n"
	"  --no-prune          continue states that were met before\n"
	"  --no-hold           stores reach memory at once\n"
	"  --stories           tell also those of programs that are expected to fail\n"
	"  --json              results as JSON\n"
	"  -q, --quiet         only what fails\n"
	"  -h, --help          this text\n"
	"\n"
	"Exit status: 0 none failed, or all that should did; 1 some failed; 2 wrong usage.\n";

struct command {
	struct explore_options options;
	bool bound_given, list, json, quiet, stories;
	const char *replay, *self;
	char **patterns;
	size_t npatterns;
};

static bool number_option(const char *text, uint64_t min, uint64_t max, uint64_t *ret)
{
	if (!parse_u64(text, min, max, ret))
		return true;
	fprintf(stderr, "explore: %s is no number from %llu to %llu\n", text, (unsigned long long)min,
		(unsigned long long)max);
	return false;
}

enum { OPT_LIST = 256, OPT_BOUND, OPT_SCHEDULES, OPT_TIME, OPT_MEMORY, OPT_RANDOM, OPT_SEED, OPT_DEPTH, OPT_REPLAY,
	OPT_NO_PRUNE, OPT_NO_HOLD, OPT_STORIES, OPT_JSON };

static const struct option long_options[] = {
	{"list", no_argument, NULL, OPT_LIST},
	{"bound", required_argument, NULL, OPT_BOUND},
	{"schedules", required_argument, NULL, OPT_SCHEDULES},
	{"time", required_argument, NULL, OPT_TIME},
	{"memory", required_argument, NULL, OPT_MEMORY},
	{"random", required_argument, NULL, OPT_RANDOM},
	{"seed", required_argument, NULL, OPT_SEED},
	{"depth", required_argument, NULL, OPT_DEPTH},
	{"replay", required_argument, NULL, OPT_REPLAY},
	{"no-prune", no_argument, NULL, OPT_NO_PRUNE},
	{"no-hold", no_argument, NULL, OPT_NO_HOLD},
	{"stories", no_argument, NULL, OPT_STORIES},
	{"json", no_argument, NULL, OPT_JSON},
	{"quiet", no_argument, NULL, 'q'},
	{"help", no_argument, NULL, 'h'},
	{NULL, 0, NULL, 0},
};

static bool option_number(struct command *c, int option, const char *text)
{
	struct explore_options *o = &c->options;
	uint64_t v = 0;

	switch (option) {
	case OPT_BOUND:
		c->bound_given = true;
		if (!strcmp(text, "none")) {
			o->bound = EXPLORE_UNBOUNDED;
			return true;
		}
		if (!number_option(text, 0, EXPLORE_UNBOUNDED - 1, &v))
			return false;
		o->bound = (unsigned)v;
		return true;
	case OPT_SCHEDULES:
		return number_option(text, 1, UINT64_MAX, &o->schedules_max);
	case OPT_TIME:
		if (!number_option(text, 1, 1u << 30, &v))
			return false;
		o->seconds = (double)v;
		return true;
	case OPT_MEMORY:
		if (!number_option(text, 1, 1u << 30, &v))
			return false;
		o->memory = (size_t)v << 20;
		return true;
	case OPT_RANDOM:
		return number_option(text, 0, UINT64_MAX, &o->random);
	case OPT_SEED:
		return number_option(text, 0, UINT64_MAX, &o->seed);
	default:
		if (!number_option(text, 1, 16, &v))
			return false;
		o->depth = (unsigned)v;
		return true;
	}
}

/* -1: go on; else the exit status. */
static int command_parse(struct command *c, int argc, char **argv)
{
	int option;

	optind = 1;
	while ((option = getopt_long(argc, argv, "qh", long_options, NULL)) != -1) {
		switch (option) {
		case 'h':
			printf(usage_text, argv[0]);
			return 0;
		case '?':
			fprintf(stderr, "try %s --help\n", argv[0]);
			return 2;
		case 'q':
			c->quiet = true;
			break;
		case OPT_LIST:
			c->list = true;
			break;
		case OPT_REPLAY:
			c->replay = optarg;
			break;
		case OPT_NO_PRUNE:
			c->options.no_prune = true;
			break;
		case OPT_NO_HOLD:
			c->options.no_hold = true;
			break;
		case OPT_STORIES:
			c->stories = true;
			break;
		case OPT_JSON:
			c->json = true;
			break;
		default:
			if (!option_number(c, option, optarg))
				return 2;
		}
	}
	c->patterns = argv + optind;
	c->npatterns = (size_t)(argc - optind);
	c->self = argv[0];
	return -1;
}

static bool is_chosen(const struct command *c, const struct explore_program *p)
{
	for (size_t i = 0; i < c->npatterns; i++)
		if (!fnmatch(c->patterns[i], p->name, 0))
			return true;
	return !c->npatterns;
}

/* ---- output ---- */

static const char *reached(const struct explore_result *r, char *buf, size_t size)
{
	if (!r->any_bound)
		snprintf(buf, size, "-");
	else if (r->exhausted)
		snprintf(buf, size, "all");
	else if (r->bound == EXPLORE_UNBOUNDED)
		snprintf(buf, size, "none");
	else if (r->complete || r->failure)
		snprintf(buf, size, "%u", r->bound);
	else
		snprintf(buf, size, "%u+", r->bound);
	return buf;
}

static void print_head(void)
{
	printf("%-36s %6s %10s %10s %12s %6s  %s\n", "program", "bound", "schedules", "states", "steps", "depth", "result");
}

static void print_line(const struct explore_program *p, const struct explore_result *r)
{
	char bound[16];

	printf("%-36s %6s %10llu %10llu %12llu %6llu  ", p->name, reached(r, bound, sizeof(bound)),
		(unsigned long long)r->schedules, (unsigned long long)r->states, (unsigned long long)r->steps,
		(unsigned long long)r->depth);
	if (r->failure)
		printf("%s: %s, cost %u, %u switches, %llu steps", p->expect_failure ? "found" : "FAILED",
			explore_failure_name(r->failure), r->cost, r->switches, (unsigned long long)r->length);
	else
		printf("%s%s", p->expect_failure ? "FAILED: nothing was found" : "ok",
			r->complete ? "" : ", incomplete");
	if (r->memory_full)
		printf("; the set of states is full");
	if (r->pct.runs || r->uniform.runs)
		printf("; random: %llu of %llu, uniform %llu of %llu", (unsigned long long)r->pct.failures,
			(unsigned long long)r->pct.runs, (unsigned long long)r->uniform.failures,
			(unsigned long long)r->uniform.runs);
	putchar('\n');
	fflush(stdout);
}

static void print_story(const struct command *c, const struct explore_program *p, const struct explore_result *r)
{
	printf("\n%s: %s\n\n%s\n", p->name, p->text ? p->text : "", r->story);
	if (r->failure)
		printf("%s: %s\n", explore_failure_name(r->failure), r->text);
	else
		printf("nothing fails\n");
	printf("replay: %s --replay=%s %s\n\n", c->self, r->schedule, p->name);
	fflush(stdout);
}

static void json_text(const char *key, const char *text)
{
	printf(", \"%s\": ", key);
	if (text)
		json_string(stdout, text, strlen(text));
	else
		printf("null");
}

static void print_json(const struct explore_program *p, const struct explore_result *r, bool ok)
{
	printf("{\"name\": ");
	json_string(stdout, p->name, strlen(p->name));
	json_text("text", p->text);
	printf(", \"ok\": %s, \"expect_failure\": %s", ok ? "true" : "false", p->expect_failure ? "true" : "false");
	printf(", \"schedules\": %llu, \"ended\": %llu, \"pruned\": %llu, \"states\": %llu, \"steps\": %llu, \"depth\": %llu",
		(unsigned long long)r->schedules, (unsigned long long)r->ended, (unsigned long long)r->pruned,
		(unsigned long long)r->states, (unsigned long long)r->steps, (unsigned long long)r->depth);
	printf(", \"bound\": %u, \"complete\": %s, \"exhausted\": %s, \"memory_full\": %s, \"seconds\": %.3f", r->bound,
		r->complete ? "true" : "false", r->exhausted ? "true" : "false", r->memory_full ? "true" : "false",
		r->seconds);
	printf(", \"random\": {\"runs\": %llu, \"failures\": %llu, \"first\": %llu}", (unsigned long long)r->pct.runs,
		(unsigned long long)r->pct.failures, (unsigned long long)r->pct.first);
	printf(", \"uniform\": {\"runs\": %llu, \"failures\": %llu, \"first\": %llu}", (unsigned long long)r->uniform.runs,
		(unsigned long long)r->uniform.failures, (unsigned long long)r->uniform.first);
	if (r->failure) {
		printf(", \"failure\": \"%s\", \"cost\": %u, \"switches\": %u, \"length\": %llu",
			explore_failure_name(r->failure), r->cost, r->switches, (unsigned long long)r->length);
		json_text("what", r->text);
		json_text("schedule", r->schedule);
		json_text("story", r->story);
	}
	putchar('}');
	fflush(stdout);
}

/* ---- what is asked for ---- */

static bool explore_one(const struct command *c, const struct explore_program *p, bool first)
{
	struct explore_options options = c->options;
	struct explore_result result;
	bool ok;

	if (!c->bound_given)
		options.bound = p->bound ? p->bound : BOUND_DEFAULT;
	if (p->sampled && !c->bound_given && !options.schedules_max)
		options.schedules_max = 1;
	explore_search(p, &options, &result);
	ok = (result.failure != EXPLORE_OK) == p->expect_failure && result.failure != EXPLORE_DIVERGED;
	if (c->json) {
		printf("%s", first ? "" : ",\n");
		print_json(p, &result, ok);
	} else {
		if (!ok || !c->quiet)
			print_line(p, &result);
		if (result.failure && (!ok || c->stories))
			print_story(c, p, &result);
	}
	explore_result_end(&result);
	return ok;
}

static int replay(const struct command *c, const struct explore_program *p)
{
	struct explore_result result;
	bool failed;

	if (explore_replay(p, c->replay, &result)) {
		fprintf(stderr, "explore: this is no schedule: %s\n", c->replay);
		return 2;
	}
	failed = result.failure != EXPLORE_OK;
	if (c->json) {
		print_json(p, &result, failed == p->expect_failure);
		putchar('\n');
	} else {
		print_story(c, p, &result);
	}
	explore_result_end(&result);
	return failed;
}

static int explore_chosen(const struct command *c, const struct explore_program *const *programs, size_t count)
{
	size_t done = 0, failed = 0;

	if (c->json)
		printf("{\"seed\": %llu, \"programs\": [\n", (unsigned long long)c->options.seed);
	else if (!c->quiet)
		print_head();
	if (!c->json && c->options.random)
		printf("random runs: %llu for each, seed %llu\n", (unsigned long long)c->options.random,
			(unsigned long long)c->options.seed);
	for (size_t i = 0; i < count; i++)
		if (is_chosen(c, programs[i]))
			failed += !explore_one(c, programs[i], !done++);
	if (c->json)
		printf("\n], \"count\": %zu, \"failed\": %zu}\n", done, failed);
	else if (failed || !c->quiet)
		printf("%zu programs, %zu failed\n", done, failed);
	return failed != 0;
}

int explore_main(const struct explore_program *const *programs, size_t count, int argc, char **argv)
{
	struct command c = {.options = {.seed = 1}};
	const struct explore_program *only = NULL;
	size_t chosen = 0;
	int status = command_parse(&c, argc, argv);

	if (status >= 0)
		return status;
	for (size_t i = 0; i < count; i++) {
		if (is_chosen(&c, programs[i])) {
			chosen++;
			only = programs[i];
			if (c.list)
				printf("%-36s %s%s\n", only->name, only->text ? only->text : "",
					only->expect_failure ? " (fails)" : "");
		}
	}
	if (!chosen) {
		fprintf(stderr, "explore: no program has such a name; %s --list shows them\n", argv[0]);
		return 2;
	}
	if (c.list)
		return 0;
	if (c.replay && chosen != 1) {
		fprintf(stderr, "explore: --replay needs the name of one program\n");
		return 2;
	}
	return c.replay ? replay(&c, only) : explore_chosen(&c, programs, count);
}
