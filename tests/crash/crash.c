/* SPDX-License-Identifier: MIT */
/*
 * Cuts the power at any point of what is written to a delta, loses any part of what was not flushed, and looks at what is left. README.md
 * beside this file says how.
 */
#include "crash.h"

#include <assert.h>
#include <getopt.h>
#include <limits.h>
#include <malloc.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#include "codec/codec.h"
#include "support.h"

/* A prime number that has nothing to do with how many sequences there are. */
#define STRIDE 1000003u

struct totals totals;
struct options options = {.seed = 1, .per_point = 40, .all = 6, .torn = 10, .go_on = 4, .nested = 50, .parts = 1};
/* Sequences up to this length have all been run, or all of the part. */
static unsigned complete;
static uint64_t deadline;
static char current_id[1024];

static const char *program;

/* ---- workloads ---- */

const char *workload_text(const struct workload *w)
{
	static char buf[512];
	size_t n = (size_t)snprintf(buf, sizeof(buf), "%u:", w->base);

	for (unsigned i = 0; i < w->count; i++)
		n += (size_t)snprintf(buf + n, sizeof(buf) - n, "%s%u", i ? "," : "", w->ops[i]);
	return buf;
}

static bool workload_parse(const char *text, struct workload *ret, const char **ret_rest)
{
	char *end;

	*ret = (struct workload){.base = (unsigned)strtoul(text, &end, 10)};
	if (*end != ':' || ret->base >= BASES)
		return false;
	while (*end && *end != '@' && ret->count < OPS_MAX) {
		if (end[1] == 0 || end[1] == '@')
			break;
		ret->ops[ret->count] = (unsigned)strtoul(end + 1, &end, 10);
		if (ret->ops[ret->count++] >= op_count)
			return false;
	}
	*ret_rest = strchr(text, '@') ? strchr(text, '@') + 1 : "";
	return true;
}

/* ---- saying what happens ---- */

void set_current(const struct workload *w, const char *where)
{
	snprintf(current_id, sizeof(current_id), "%s%s", workload_text(w), where);
}

static void on_signal(int sig)
{
	dprintf(STDERR_FILENO, "%s: signal %d\nreplay: %s --replay %s\n", program, sig, program, current_id);
	signal(sig, SIG_DFL);
	raise(sig);
}

void violation(const struct workload *w, const char *where, const char *text)
{
	totals.violations++;
	if (totals.violations > options.most_violations && options.most_violations)
		return;
	printf("violation: %s\n\treplay: %s%s%s --replay %s%s\n\t", text, program, options.mutant ? " --mutant " : "",
		options.mutant ? options.mutant : "", workload_text(w), where);
	for (unsigned i = 0; i < w->count; i++)
		printf("%s%s", i ? "; " : "", op_text(w->ops[i]));
	printf("\n");
	fflush(stdout);
}

static void figures(void)
{
	printf("workloads %ju, crash points %ju, states %ju, opened %ju, violations %ju\n", (uintmax_t)totals.workloads, (uintmax_t)totals.points,
		(uintmax_t)totals.states, (uintmax_t)totals.opened, (uintmax_t)totals.violations);
	if (complete && options.parts > 1)
		printf("all sequences of up to %u operations, part %u of %u\n", complete, options.part + 1, options.parts);
	else if (complete)
		printf("all sequences of up to %u operations\n", complete);
}

bool time_is_up(void)
{
	return (deadline && now_ns() > deadline) || (options.most_violations && totals.violations >= options.most_violations);
}

/* ---- which workloads ---- */

/* With something that makes it durable behind each operation, behind all, or nowhere. */
static unsigned persisting(struct rng *rng)
{
	unsigned op;

	do {
		op = (unsigned)rng_below(rng, op_count);
	} while (!op_persists(op));
	return op;
}

static void run_single(unsigned base, struct workload *w)
{
	if (time_is_up())
		return;
	w->base = base;
	workload_run(w);
}

/* What has found something, or finds a mutant, in the shortest form that is known. */
static const char *const known[] = {
	"0:0,87",		   /* a delta that is just being made; its count of files */
	"0:77,90",		   /* ctime of a link, over that of a write */
	"2:75,85",		   /* pages that are shared over others: neither old nor new */
	"1:7,26,90",		   /* the end moves past pages that are only in the cache */
	"1:0,12,95,12,95,12,95,87", /* a freed page is used again in front of the next checkpoint */
	"3:70,21,3,18,92,83,6,94,16,63,36,57,89,4,95,3,59,66,96", /* a page promised to what lies in the log is used by a later frame */
	"2:84,17,84",		   /* what lies in the log finds no place in one piece */
	"2:97,86",		   /* synced while a checkpoint begins */
};

static void run_known(void)
{
	const char *rest;

	for (unsigned i = 0; i < ARRAY_SIZE(known) && !time_is_up(); i++) {
		struct workload w;

		must(workload_parse(known[i], &w, &rest));
		workload_run(&w);
	}
}

/* Is `op` about one of these files? */
static bool concerns(const struct op *op, const char *path)
{
	return path && ((op->path && !strcmp(op->path, path)) || (op->to && !strcmp(op->to, path)));
}

/* One sequence, with each way of making it durable behind each of its operations. */
static void run_sequence(unsigned base, const unsigned *pick, unsigned length)
{
	const struct op *last = &ops[pick[length - 1]];

	if (op_persists(pick[0]))
		return;
	for (unsigned at = 0; at < length; at++) {
		/* What comes before the last operation is a shorter sequence, and that one's own writes are the same whatever follows. */
		unsigned from = at < length - 1 ? length + 1 : length > 1 ? length : 0;

		for (unsigned p = 0; p < op_count; p++) {
			struct workload w = {0};

			/* Of fsync those that concern the last operation, and one that doesn't. */
			if (!op_persists(p) || ops[p].kind == OP_OSYNC ||
				(ops[p].kind == OP_FSYNC && *ops[p].path && !concerns(&ops[p], last->path) && !concerns(&ops[p], last->to)))
				continue;
			for (unsigned i = 0; i < length; i++) {
				w.ops[w.count++] = pick[i];
				if (i == at)
					w.ops[w.count++] = p;
			}
			w.from = from;
			run_single(base, &w);
			from = length + 1;
		}
	}
}

/* All of a length, on all bases: in an order that leaves no part out for long, if time ends before they do. */
static void run_sequences(unsigned length)
{
	uint64_t total = BASES, at = options.seed - 1;

	for (unsigned i = 0; i < length; i++)
		total *= op_count;
	for (uint64_t n = 0; n < total && !time_is_up(); n++) {
		uint64_t rest = at = (at + STRIDE) % total;
		unsigned pick[3], base = (unsigned)(rest % BASES);

		rest /= BASES;
		for (unsigned i = 0; i < length; i++) {
			pick[i] = (unsigned)(rest % op_count);
			rest /= op_count;
		}
		/* In the first base there is little more than in the second one. */
		if ((base || length == 1) && n % options.parts == options.part)
			run_sequence(base, pick, length);
	}
	if (!time_is_up())
		complete = length;
}

static void run_random(uint64_t seed, uint64_t number)
{
	/* Mostly on what has been used. */
	static const unsigned on[8] = {0, 1, 4, 2, 2, 4, 3, 3};
	struct rng rng = {seed * 0x9e3779b97f4a7c15ull + number * 0xbf58476d1ce4e5b9ull + 1};
	struct workload w = {.base = on[rng_below(&rng, 8)]};
	unsigned length = rng_below(&rng, 3) ? 3 + (unsigned)rng_below(&rng, 5) : 10 + (unsigned)rng_below(&rng, 31);
	unsigned often = 2 + (unsigned)rng_below(&rng, 8);
	const char *focus[2] = {ops[rng_below(&rng, op_count)].path, ops[rng_below(&rng, op_count)].path};

	while (w.count < length) {
		unsigned op = rng_below(&rng, often) ? (unsigned)rng_below(&rng, op_count) : persisting(&rng);

		/* Operations that have nothing to do with each other find less. */
		if (concerns(&ops[op], focus[0]) || concerns(&ops[op], focus[1]) || !ops[op].path || !rng_below(&rng, 4))
			w.ops[w.count++] = op;
	}
	run_single(w.base, &w);
}

/* ---- the image, and what the deltas are in the beginning ---- */

static void make_image(void)
{
	_cleanup_free_ char *tree = temp_path("tree"), *d = temp_path("tree/d"), *e = temp_path("tree/e"), *l = temp_path("tree/l");
	_cleanup_free_ char *a = temp_path("tree/a"), *b = temp_path("tree/b"), *c = temp_path("tree/d/c"), *image = temp_path("image");
	_cleanup_free_ uint8_t *buf = malloc(6 * 4096);
	struct rng rng = {1};

	assert(buf);
	must(mkdir(tree, 0755) == 0 && mkdir(d, 0755) == 0 && mkdir(e, 0755) == 0);
	rng_text(&rng, buf, 6 * 4096);
	write_file(a, buf, 5 * 4096 + 100);
	rng_bytes(&rng, buf, 4096);
	write_file(b, buf, 700);
	rng_text(&rng, buf, 2 * 4096);
	write_file(c, buf, 2 * 4096);
	must(symlink("a", l) == 0);
	must(mkfs("-b4K", tree, image, NULL) == 0);
	image_bytes = read_file(image, &image_size);
}

static void usage(FILE *to)
{
	fprintf(to, "Usage: %s [OPTION]...\n"
		"Cuts the power at any point of what is written to a delta, and checks what is left.\n\n"
		"  --sequences=N    all sequences of up to N operations (1, 2 or 3)\n"
		"  --part=K/N       of these the Kth of N parts, from 1: for several processes, or days\n"
		"  --random=N       N random sequences of 3 to 40 operations\n"
		"  --from=N         the first random one\n"
		"  --seed=N         of them\n"
		"  --seconds=N      ends after that time\n"
		"  --states=N       states for each crash point at most (40)\n"
		"  --replay=ID      one workload, crash point or state, as a violation names it\n"
		"  --keep=FILE      with --replay of a state: writes FILE.image and FILE.delta\n"
		"  --mutant=NAME    breaks a rule: noflush, superflush, verify, strict, reuse. Finding nothing is the error then\n"
		"  --stop=N         ends after N violations (10; 0: never)\n"
		"  --quiet          figures only if something is wrong\n"
		"  --list           says what the operations are\n", program);
}

static int parse(int argc, char **argv)
{
	static const struct option longs[] = {{"sequences", required_argument, NULL, 'q'}, {"part", required_argument, NULL, 'P'}, {"random", required_argument, NULL, 'r'},
		{"seed", required_argument, NULL, 's'}, {"seconds", required_argument, NULL, 't'}, {"states", required_argument, NULL, 'n'},
		{"replay", required_argument, NULL, 'p'}, {"keep", required_argument, NULL, 'k'}, {"mutant", required_argument, NULL, 'm'},
		{"stop", required_argument, NULL, 'x'}, {"quiet", no_argument, NULL, 'Q'}, {"list", no_argument, NULL, 'l'},
		{"from", required_argument, NULL, 'f'}, {"help", no_argument, NULL, 'h'}, {0}};
	int c;

	options.most_violations = 10;
	while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		unsigned long n = optarg ? strtoul(optarg, NULL, 10) : 0;

		switch (c) {
		case 'q': options.sequences = (unsigned)MIN(n, 3ul); break;
		case 'r': options.random = n; break;
		case 'P':
			if (sscanf(optarg, "%u/%u", &options.part, &options.parts) != 2 || !options.part || options.part > options.parts) {
				usage(stderr);
				return 2;
			}
			options.part--;
			break;
		case 'f': options.from = n; break;
		case 's': options.seed = n; break;
		case 't': options.seconds = (unsigned)n; break;
		case 'n': options.per_point = (unsigned)n; break;
		case 'p': options.replay = optarg; break;
		case 'k': options.keep = optarg; break;
		case 'm': options.mutant = optarg; break;
		case 'x': options.most_violations = (unsigned)n; break;
		case 'Q': options.quiet = true; break;
		case 'l':
			for (unsigned i = 0; i < op_count; i++)
				printf("%u\t%s\n", i, op_text(i));
			exit(0);
		case 'h': usage(stdout); exit(0);
		default: usage(stderr); return 2;
		}
	}
	return 0;
}

int main(int argc, char **argv)
{
	program = argv[0];
	if (parse(argc, argv) || mutant_choose(options.mutant) < 0) {
		usage(stderr);
		return 2;
	}
	if (options.seconds)
		deadline = now_ns() + (uint64_t)options.seconds * 1000000000;
	/* What is freed is taken again at once, and needs not come from the kernel each time. */
	mallopt(M_MMAP_THRESHOLD, 1 << 30);
	mallopt(M_TRIM_THRESHOLD, INT_MAX);
	make_image();
	bases_make();
	signal(SIGABRT, on_signal);
	signal(SIGSEGV, on_signal);
	if (options.replay) {
		struct workload w;
		const char *rest;

		if (!workload_parse(options.replay, &w, &rest)) {
			fprintf(stderr, "%s: %s is no workload\n", program, options.replay);
			return 2;
		}
		replay_at(rest);
		workload_run(&w);
	} else {
		run_known();
		for (unsigned length = 1; length <= options.sequences; length++)
			run_sequences(length);
		for (uint64_t i = options.from; (i < options.from + options.random || (options.seconds && !options.random)) && !time_is_up(); i++)
			run_random(options.seed, i);
	}
	bases_free();
	world_end();
	free(image_bytes);
	support_end(NULL);
	if (!options.quiet || !!totals.violations != !!options.mutant)
		figures();
	if (options.mutant)
		return totals.violations ? 0 : 1;
	return totals.violations ? 1 : 0;
}
