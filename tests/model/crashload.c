/* SPDX-License-Identifier: MIT */
/*
 * crashload: what is left after the filesystem was killed. "run" works in DIR and writes to STATE, a file outside, what it
 * is about to do and what a sync has made safe; the filesystem may be killed at any time meanwhile, and is mounted again;
 * "verify" then decides for every file whether it may be as it is. Both can be repeated with the same DIR and STATE.
 *
 * Exit status: 0 all is right, 1 something is not, 2 usage, or the directory can't be used.
 */
#include <getopt.h>

#include "crashload.h"
#include "options.h"

static const struct option longs[] = {
	{"seed", required_argument, NULL, 's'},
	{"procs", required_argument, NULL, 'p'},
	{"seconds", required_argument, NULL, 't'},
	{"ops", required_argument, NULL, 'o'},
	{"unit", required_argument, NULL, 'u'},
	{"sync-state", no_argument, NULL, 'S'},
	{"no-syncfs", no_argument, NULL, 'F'},
	{"quiet", no_argument, NULL, 'q'},
	{"help", no_argument, NULL, 'h'},
	{0},
};

static void usage(FILE *out)
{
	fputs("usage: crashload run DIR STATE [OPTION]...\n"
	      "       crashload verify DIR STATE [--quiet]\n"
	      "       crashload self-check DIR STATE\n"
	      "Small files under changes that are synced, and what must be left of them after a crash.\n"
	      "\n"
	      "      --seed=N      of all random numbers (1)\n"
	      "      --procs=N     workers (4)\n"
	      "      --seconds=N   how long (10, if --ops is not given)\n"
	      "      --ops=N       operations of each worker\n"
	      "      --unit=BYTES  that must be old or new as one: 512, 1024, 2048 or 4096 (512)\n"
	      "      --sync-state  STATE survives a power failure, too\n"
	      "      --no-syncfs   syncfs(2) promises nothing there, as on FUSE\n"
	      "      --quiet       no figures\n"
	      "self-check damages what a run has left in several ways, and expects verify to notice.\n",
		out);
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		int (*run)(const char *dir, const char *state_path, const struct options *o);
	} commands[] = {{"run", cmd_run}, {"verify", cmd_verify}, {"self-check", cmd_self_check}};
	struct options o = {.seed = 1, .procs = 4, .unit = 512};
	int c;

	while ((c = getopt_long(argc, argv, "h", longs, NULL)) >= 0) {
		switch (c) {
		case 's':
			o.seed = option_number("crashload", optarg, 0, UINT64_MAX);
			break;
		case 'p':
			o.procs = option_number("crashload", optarg, 1, 1024);
			break;
		case 't':
			o.seconds = option_number("crashload", optarg, 1, 1u << 30);
			break;
		case 'o':
			o.ops = option_number("crashload", optarg, 1, UINT64_MAX);
			break;
		case 'u':
			o.unit = option_number("crashload", optarg, 512, UNIT_MAX);
			break;
		case 'S':
			o.sync_state = true;
			break;
		case 'F':
			o.no_syncfs = true;
			break;
		case 'q':
			o.quiet = true;
			break;
		case 'h':
			usage(stdout);
			return 0;
		default:
			usage(stderr);
			return 2;
		}
	}
	if (!o.ops && !o.seconds)
		o.seconds = 10;
	for (unsigned i = 0; argc - optind == 3 && is_power_of_two(o.unit) && i < ARRAY_SIZE(commands); i++)
		if (!strcmp(argv[optind], commands[i].name))
			return commands[i].run(argv[optind + 1], argv[optind + 2], &o);
	usage(stderr);
	return 2;
}
