/* SPDX-License-Identifier: MIT */
/* The command line of programs that explore. */
#include "internal.h"

#include <fcntl.h>
#include <fnmatch.h>
#include <getopt.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/util.h"

#define BOUND_DEFAULT 2u
#define JOBS_MAX 256u

static const char usage_text[] =
	"usage: %s [OPTION]... [NAME]...\n"
	"Runs small programs in all orders of their steps, within a bound, and tells the shortest one that fails.\n"
	"NAME: a program, or a pattern (*, ?, []); default: all.\n"
	"\n"
	"  --list              the programs, one in a line\n"
	EXPLORE_OPTIONS_HELP
	"  -h, --help          this text\n"
	"\n"
	"Exit status: 0 none failed, or all that should did; 1 some failed; 2 wrong usage.\n";
struct command {
	struct explore_options options;
	bool bound_given, list, json, quiet, stories;
	unsigned jobs;
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

enum { OPT_LIST = 256, OPT_JOBS, OPT_FULL, OPT_BOUND, OPT_SCHEDULES, OPT_TIME, OPT_MEMORY, OPT_RANDOM, OPT_SEED, OPT_DEPTH,
	OPT_REPLAY, OPT_NO_PRUNE, OPT_NO_HOLD, OPT_STORIES, OPT_JSON };

static const struct option long_options[] = {
	{"list", no_argument, NULL, OPT_LIST},
	{"jobs", required_argument, NULL, OPT_JOBS},
	{"full", no_argument, NULL, OPT_FULL},
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
	case OPT_JOBS:
		if (!number_option(text, 1, JOBS_MAX, &v))
			return false;
		c->jobs = (unsigned)v;
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
		case OPT_FULL:
			explore_brief = false;
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
		printf("%s: cost %u, %llu steps, schedule %s (%s)", p->expect_failure ? "caught" : "FAILED", r->cost,
			(unsigned long long)r->length, r->schedule, explore_failure_name(r->failure));
	else
		printf("%s%s", p->expect_failure ? "FAILED: not caught" : "ok",
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

void explore_print_story(const struct explore_result *r)
{
	printf("%s\n", r->story);
	if (r->failure)
		printf("%s: %s\n", explore_failure_name(r->failure), r->text);
	else
		printf("nothing fails\n");
}

static void print_story(const struct command *c, const struct explore_program *p, const struct explore_result *r)
{
	printf("\n%s: %s\n\n", p->name, p->text ? p->text : "");
	explore_print_story(r);
	printf("replay: %s --replay=%s '%s'\n\n", c->self, r->schedule, p->name);
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

/* ---- the work, by one process or several ---- */

struct totals {
	size_t programs, failed;	  /* failed: not as they should */
	uint64_t found;			  /* ... of those that should not fail */
	uint64_t schedules, states, steps;
	double began;
};

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void explore_one(const struct command *c, const struct explore_program *p, struct explore_result *ret)
{
	struct explore_options options = c->options;

	if (!c->bound_given)
		options.bound = p->bound ? p->bound : BOUND_DEFAULT;
	if (p->sampled && !c->bound_given && !options.schedules_max)
		options.schedules_max = 1;
	explore_search(p, &options, ret);
}

/* On a terminal only, and only where lines of results don't say it. */
static void show_progress(const struct command *c, const struct explore_program *p, size_t done, size_t count)
{
	if (!c->quiet || c->json || !isatty(STDERR_FILENO))
		return;
	if (p)
		fprintf(stderr, "\r\033[K%zu of %zu: %.60s", done, count, p->name);
	else
		fputs("\r\033[K", stderr);
}

static void report(const struct command *c, const struct explore_program *p, struct explore_result *result, struct totals *t)
{
	bool ok = (result->failure != EXPLORE_OK) == p->expect_failure && result->failure != EXPLORE_DIVERGED;

	if (c->json) {
		printf("%s", t->programs ? ",\n" : "");
		print_json(p, result, ok);
	} else {
		if (!ok)
			show_progress(c, NULL, 0, 0);
		if (!ok || !c->quiet)
			print_line(p, result);
		if (result->failure && (!ok || c->stories))
			print_story(c, p, result);
	}
	t->programs++;
	t->failed += !ok;
	t->found += result->failure && !p->expect_failure;
	t->schedules += result->schedules;
	t->states += result->states;
	t->steps += result->steps;
	explore_result_end(result);
}

/* A result on its way through a pipe: the struct, then its texts. */
static const size_t texts[] = {offsetof(struct explore_result, text), offsetof(struct explore_result, schedule),
	offsetof(struct explore_result, story)};

static char **text_of(struct explore_result *r, size_t i)
{
	return (char **)((char *)r + texts[i]);
}

static bool result_send(FILE *f, size_t program, struct explore_result *r)
{
	bool ok = fwrite(&program, sizeof(program), 1, f) == 1 && fwrite(r, sizeof(*r), 1, f) == 1;

	for (size_t i = 0; ok && i < ARRAY_SIZE(texts); i++) {
		size_t len = *text_of(r, i) ? strlen(*text_of(r, i)) : 0;

		ok = fwrite(&len, sizeof(len), 1, f) == 1 && (!len || fwrite(*text_of(r, i), 1, len, f) == len);
	}
	return ok && !fflush(f);
}

static bool result_receive(FILE *f, size_t *ret_program, struct explore_result *ret)
{
	bool ok = fread(ret_program, sizeof(*ret_program), 1, f) == 1 && fread(ret, sizeof(*ret), 1, f) == 1;

	for (size_t i = 0; ok && i < ARRAY_SIZE(texts); i++) {
		bool had = *text_of(ret, i);
		size_t len;
		char *text = NULL;

		ok = fread(&len, sizeof(len), 1, f) == 1;
		if (ok && had) {
			text = calloc(1, len + 1);
			ok = text && fread(text, 1, len, f) == len;
		}
		*text_of(ret, i) = text;
	}
	return ok;
}

struct job {
	pid_t pid;
	FILE *results;
};

/* Every jobs-th program, so that who reads in turn knows where the next result comes from. */
static int job_run(const struct command *c, const struct explore_program *const *programs, size_t count, unsigned job, FILE *f)
{
	for (size_t i = job; i < count; i += c->jobs) {
		struct explore_result result;
		bool sent;

		explore_one(c, programs[i], &result);
		sent = result_send(f, i, &result);
		explore_result_end(&result);
		if (!sent)
			return 2;
	}
	return 0;
}

static int job_start(const struct command *c, const struct explore_program *const *programs, size_t count, unsigned no,
	struct job *ret)
{
	int fds[2];

	if (pipe2(fds, O_CLOEXEC))
		return -errno;
	fflush(NULL);
	ret->pid = fork();
	if (ret->pid < 0) {
		int r = -errno;

		close(fds[0]);
		close(fds[1]);
		return r;
	}
	if (!ret->pid) {
		FILE *f = fdopen(fds[1], "w");

		close(fds[0]);
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		_exit(f ? job_run(c, programs, count, no, f) : 2);
	}
	close(fds[1]);
	ret->results = fdopen(fds[0], "r");
	return ret->results ? 0 : -errno;
}

/* False: a process ended before its time, or could not be started. */
static bool explore_by_jobs(const struct command *c, const struct explore_program *const *programs, size_t count,
	struct totals *t)
{
	struct job jobs[JOBS_MAX] = {0};
	bool ok = true;

	for (unsigned i = 0; ok && i < c->jobs; i++)
		ok = job_start(c, programs, count, i, &jobs[i]) == 0;
	for (size_t i = 0; ok && i < count; i++) {
		struct explore_result result;
		size_t program;

		show_progress(c, programs[i], i + 1, count);
		ok = result_receive(jobs[i % c->jobs].results, &program, &result) && program == i;
		if (ok)
			report(c, programs[i], &result, t);
		else
			fprintf(stderr, "explore: the process for %s has ended: memory, perhaps?\n", programs[i]->name);
	}
	for (unsigned i = 0; i < c->jobs; i++) {
		int status;

		if (jobs[i].results)
			fclose(jobs[i].results);
		if (jobs[i].pid > 0)
			waitpid(jobs[i].pid, &status, 0);
	}
	return ok;
}

static void explore_alone(const struct command *c, const struct explore_program *const *programs, size_t count,
	struct totals *t)
{
	for (size_t i = 0; i < count; i++) {
		struct explore_result result;

		show_progress(c, programs[i], i + 1, count);
		explore_one(c, programs[i], &result);
		report(c, programs[i], &result, t);
	}
}

/* ---- what is asked for ---- */

static int replay(const struct command *c, const struct explore_program *p)
{
	struct explore_result result;
	bool failed, ok;

	if (explore_replay(p, c->replay, &result)) {
		fprintf(stderr, "explore: this is no schedule: %s\n", c->replay);
		return 2;
	}
	failed = result.failure != EXPLORE_OK;
	ok = failed == p->expect_failure && result.failure != EXPLORE_DIVERGED;
	if (c->json) {
		print_json(p, &result, ok);
		putchar('\n');
	} else {
		print_story(c, p, &result);
	}
	explore_result_end(&result);
	return !ok;
}

static void print_totals(const struct command *c, const struct totals *t)
{
	double seconds = now() - t->began;

	if (c->json)
		printf("\n], \"count\": %zu, \"failed\": %zu, \"violations\": %llu, \"schedules\": %llu, \"states\": %llu, "
		       "\"steps\": %llu, \"seconds\": %.3f}\n",
			t->programs, t->failed, (unsigned long long)t->found, (unsigned long long)t->schedules,
			(unsigned long long)t->states, (unsigned long long)t->steps, seconds);
	else
		printf("%zu scenarios, %zu failed: %llu schedules, %llu distinct states, %llu steps, %llu violations, in %.1f s\n",
			t->programs, t->failed, (unsigned long long)t->schedules, (unsigned long long)t->states,
			(unsigned long long)t->steps, (unsigned long long)t->found, seconds);
}

static int explore_chosen(struct command *c, const struct explore_program *const *programs, size_t count)
{
	struct totals t = {.began = now()};
	bool ok = true;

	if (c->jobs > count)
		c->jobs = (unsigned)count;
	if (c->json)
		printf("{\"seed\": %llu, \"programs\": [\n", (unsigned long long)c->options.seed);
	else if (!c->quiet)
		print_head();
	if (!c->json && c->options.random)
		printf("random runs: %llu for each, seed %llu\n", (unsigned long long)c->options.random,
			(unsigned long long)c->options.seed);
	if (c->jobs > 1)
		ok = explore_by_jobs(c, programs, count, &t);
	else
		explore_alone(c, programs, count, &t);
	show_progress(c, NULL, 0, 0);
	print_totals(c, &t);
	return !ok || t.failed;
}

int explore_main(const struct explore_program *const *programs, size_t count, int argc, char **argv)
{
	struct command c = {.options = {.seed = 1}};
	const struct explore_program **chosen;
	size_t n = 0;
	int status = command_parse(&c, argc, argv);

	if (status >= 0)
		return status;
	chosen = calloc(count + 1, sizeof(*chosen));
	if (!chosen) {
		perror("explore");
		return 2;
	}
	for (size_t i = 0; i < count; i++)
		if (is_chosen(&c, programs[i]))
			chosen[n++] = programs[i];
	for (size_t i = 0; c.list && i < n; i++)
		printf("%-36s %s%s\n", chosen[i]->name, chosen[i]->text ? chosen[i]->text : "",
			chosen[i]->expect_failure ? " (fails)" : "");
	if (!n) {
		fprintf(stderr, "explore: there is no scenario of such a name; --list shows them\n");
		status = 2;
	} else if (c.list) {
		status = 0;
	} else if (c.replay && n != 1) {
		fprintf(stderr, "explore: --replay needs the name of one program\n");
		status = 2;
	} else {
		status = c.replay ? replay(&c, chosen[0]) : explore_chosen(&c, chosen, n);
	}
	free(chosen);
	return status;
}
