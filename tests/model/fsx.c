/* SPDX-License-Identifier: MIT */
/*
 * fsx: random operations on one file or a few, each compared with a model of their bytes in memory. Works in any directory
 * of any filesystem; what the filesystem refuses is noticed once and left out.
 *
 * Exit status: 0 all was right, 1 a difference (with the operations that led to it and a command that replays it), 2 usage,
 * 77 the filesystem refuses an operation that --need names.
 */
#include <fcntl.h>
#include <getopt.h>
#include <linux/falloc.h>
#include <pthread.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "fsx.h"
#include "options.h"

struct fsx fsx = {.ops = 10000, .seed = 1, .limit = 256u << 10, .files = 1, .replay_from = 1, .timeout = 300};

static const struct option longs[] = {
	{"ops", required_argument, NULL, 'o'},
	{"seed", required_argument, NULL, 's'},
	{"size", required_argument, NULL, 'S'},
	{"op-size", required_argument, NULL, 'O'},
	{"files", required_argument, NULL, 'f'},
	{"modes", required_argument, NULL, 'm'},
	{"no", required_argument, NULL, 'n'},
	{"need", required_argument, NULL, 'N'},
	{"remount", required_argument, NULL, 'r'},
	{"every", required_argument, NULL, 'e'},
	{"initial", no_argument, NULL, 'i'},
	{"direct-self", no_argument, NULL, 'd'},
	{"pollute-eof", no_argument, NULL, 'p'},
	{"direct-past-eof", no_argument, NULL, 'P'},
	{"quiet", no_argument, NULL, 'q'},
	{"replay-from", required_argument, NULL, 'R'},
	{"log", required_argument, NULL, 'l'},
	{"timeout", required_argument, NULL, 't'},
	{"self-check", no_argument, NULL, 'C'},
	{"help", no_argument, NULL, 'h'},
	{0},
};

static void usage(FILE *out)
{
	fputs("usage: fsx [OPTION]... FILE...\n"
	      "Random operations on FILE, compared with a model in memory.\n"
	      "\n"
	      "      --ops=N          operations (10000)\n"
	      "      --seed=N         of all random numbers (1); the same seed does the same operations\n"
	      "      --size=SIZE      no file grows beyond (256K)\n"
	      "      --op-size=SIZE   of the largest operation (half of --size)\n"
	      "      --files=N        files: FILE, FILE.1, FILE.2 ... (1)\n"
	      "      --modes=OP,...   only these operations\n"
	      "      --no=OP,...      not these\n"
	      "      --need=OP,...    exit status 77 if one of these is refused\n"
	      "      --remount=CMD    once in about 1,000 operations, with nothing open, and at the end\n"
	      "      --every=N        compare whole files each N operations (1000; 0: never)\n"
	      "      --initial        keep what the files hold at first, and begin with it\n"
	      "      --direct-self    O_DIRECT with a mapping of the same file as buffer\n"
	      "      --direct-past-eof O_DIRECT reads that go on past the last block\n"
	      "      --pollute-eof    write behind the end of the file through a mapping\n"
	      "      --replay-from=N  do the operations before N in the model only, then write its state at once\n"
	      "      --log=FILE       each operation, before it is done\n"
	      "      --timeout=N      seconds that one operation may take (300; 0: no limit)\n"
	      "      --quiet          no figures at the end\n"
	      "      --self-check     damage the file in several ways and expect a report for each\n"
	      "operations:",
		out);
	for (unsigned i = 0; i < OP_KINDS; i++)
		fprintf(out, "%s %s", i % 8 ? "" : "\n ", op_names[i]);
	fputc('\n', out);
}

/* Sets what a list names. */
static void set_modes(char *list, bool *flags, bool value)
{
	char *save = NULL;

	for (char *name = strtok_r(list, ",", &save); name; name = strtok_r(NULL, ",", &save)) {
		unsigned i = 0;

		while (i < OP_KINDS && strcmp(op_names[i], name))
			i++;
		if (i == OP_KINDS)
			bad_usage("fsx", "no such operation", name);
		flags[i] = value;
	}
}

static bool parse(int argc, char **argv)
{
	bool self_check = false;
	int c;

	fsx.argc = argc;
	fsx.argv = calloc(argc + 1, sizeof(*argv));
	memcpy(fsx.argv, argv, argc * sizeof(*argv));
	fsx.every = 1000;
	fsx.off[OP_REMOUNT] = fsx.off[OP_POLLUTE] = true;
	fsx.off[OP_READ_SELF_DIRECT] = fsx.off[OP_WRITE_SELF_DIRECT] = true;
	while ((c = getopt_long(argc, argv, "h", longs, NULL)) >= 0) {
		switch (c) {
		case 'o':
			fsx.ops = option_number("fsx", optarg, 1, UINT32_MAX);
			break;
		case 's':
			fsx.seed = option_number("fsx", optarg, 0, UINT64_MAX);
			break;
		case 'S':
			fsx.limit = option_size("fsx", optarg, 1, 1u << 30);
			break;
		case 'O':
			fsx.op_limit = option_size("fsx", optarg, 1, 1u << 30);
			break;
		case 'f':
			fsx.files = option_number("fsx", optarg, 1, FILES_MAX);
			break;
		case 'm':
			memset(fsx.off, true, sizeof(fsx.off));
			set_modes(strdupa(optarg), fsx.off, false);
			break;
		case 'n':
			set_modes(strdupa(optarg), fsx.off, true);
			break;
		case 'N':
			set_modes(strdupa(optarg), fsx.need, true);
			break;
		case 'r':
			fsx.remount = optarg;
			fsx.off[OP_REMOUNT] = false;
			break;
		case 'e':
			fsx.every = option_number("fsx", optarg, 0, UINT64_MAX);
			break;
		case 'i':
			fsx.initial = true;
			break;
		case 'd':
			fsx.off[OP_READ_SELF_DIRECT] = fsx.off[OP_WRITE_SELF_DIRECT] = false;
			break;
		case 'p':
			fsx.off[OP_POLLUTE] = false;
			break;
		case 'P':
			fsx.past_eof = true;
			break;
		case 'R':
			fsx.replay_from = option_number("fsx", optarg, 1, UINT32_MAX);
			break;
		case 'l':
			fsx.log_path = optarg;
			break;
		case 't':
			fsx.timeout = option_number("fsx", optarg, 0, 1u << 20);
			break;
		case 'q':
			fsx.quiet = true;
			break;
		case 'C':
			self_check = true;
			break;
		case 'h':
			usage(stdout);
			exit(0);
		default:
			usage(stderr);
			exit(2);
		}
	}
	if (optind >= argc || argc - optind > (int)FILES_MAX) {
		usage(stderr);
		exit(2);
	}
	if (!fsx.remount)
		fsx.off[OP_REMOUNT] = true;
	return self_check;
}

/* ---- begin ---- */

static char *name_file(char **names, int given, unsigned i)
{
	char *path;

	if ((int)i < given)
		return strdup(names[i]);
	if (asprintf(&path, "%s.%u", names[0], i) < 0)
		abort();
	return path;
}

/* All sizes must be known before the operations are planned. */
static void find_sizes(void)
{
	for (unsigned i = 0; fsx.initial && i < fsx.files; i++) {
		struct stat st;

		if (stat(fsx.file[i].path, &st))
			bad_usage("fsx", fsx.file[i].path, strerror(errno));
		fsx.file[i].size = fsx.file[i].high = st.st_size;
		fsx.limit = MAX(fsx.limit, (uint64_t)st.st_size);
	}
	if (!fsx.op_limit)
		fsx.op_limit = MAX(fsx.limit / 2, (uint64_t)1);
	fsx.op_limit = align_up(fsx.op_limit, fsx.page);
}

static void allocate(void)
{
	fsx.history = calloc(HISTORY, sizeof(*fsx.history));
	if (!fsx.history || posix_memalign((void **)&fsx.out, fsx.page, fsx.op_limit + fsx.page) ||
		posix_memalign((void **)&fsx.in, fsx.page, fsx.op_limit + fsx.page))
		abort();
	for (unsigned i = 0; i < fsx.files; i++) {
		struct file *f = &fsx.file[i];

		f->data = calloc(1, fsx.limit + 1);
		f->writer = calloc(fsx.limit + 1, sizeof(*f->writer));
		f->fd = f->fd_append = f->fd_direct = -1;
		if (!f->data || !f->writer)
			abort();
	}
}

/* What the filesystem can't do is asked before, so that a replay which begins later leaves out the same operations. */
static void probe(void)
{
	static const struct {
		enum kind kind;
		int mode;
	} modes[] = {
		{OP_ALLOCATE, 0},
		{OP_ALLOCATE_KEEP, FALLOC_FL_KEEP_SIZE},
		{OP_PUNCH, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE},
		{OP_ZERO, FALLOC_FL_ZERO_RANGE},
		{OP_ZERO_KEEP, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE},
	};
	_cleanup_free_ char *path = NULL;
	_cleanup_close_ int fd = -1;
	off_t from = 0, to = 8192;

	if (asprintf(&path, "%s.probe", fsx.file[0].path) < 0)
		abort();
	fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		bad_usage("fsx", path, strerror(errno));
	if (pwrite(fd, fsx.in, 4096, 0) != 4096)
		bad_usage("fsx", path, strerror(errno));
	for (unsigned i = 0; i < ARRAY_SIZE(modes); i++)
		if (!fsx.off[modes[i].kind] && fallocate(fd, modes[i].mode, 0, 4096) &&
			(errno == EOPNOTSUPP || errno == ENOSYS))
			refuse(modes[i].kind, strerror(errno));
	if (copy_file_range(fd, &from, fd, &to, 4096, 0) < 0) {
		refuse(OP_COPY, strerror(errno));
		refuse(OP_COPY_BETWEEN, strerror(errno));
	}
	unlink(path);
}

static void find_alignment(void)
{
	fsx.direct_align = fsx.page;
#ifdef STATX_DIOALIGN
	struct statx stx;

	if (!statx(AT_FDCWD, fsx.file[0].path, 0, STATX_DIOALIGN, &stx) && (stx.stx_mask & STATX_DIOALIGN) &&
		is_power_of_two(stx.stx_dio_offset_align) && stx.stx_dio_offset_align < fsx.page)
		fsx.direct_align = MAX(stx.stx_dio_offset_align, stx.stx_dio_mem_align);
#endif
}

static void open_all(void)
{
	for (unsigned i = 0; i < fsx.files; i++) {
		struct file *f = &fsx.file[i];

		file_open(f, !fsx.initial);
		if (fsx.initial && f->size && pread_all(f->fd, f->data, f->size, 0))
			bad_usage("fsx", f->path, "can't be read");
	}
}

/* ---- the run ---- */

static uint64_t progress; /* atomic: the operation that runs */

/* Says where it hangs; a test that only hangs tells nobody. */
static void *watch(void *arg)
{
	uint64_t seen = 0, since = 0;

	for (;;) {
		uint64_t n = __atomic_load_n(&progress, __ATOMIC_RELAXED);

		sleep(1);
		since = n == seen ? since + 1 : 0;
		seen = n;
		if (since < fsx.timeout)
			continue;
		char text[200];

		op_describe(&fsx.op, text, sizeof(text));
		fprintf(stderr, "fsx: seed %ju, operation %ju: no end after %ju seconds: %s\n",
			(uintmax_t)fsx.seed, (uintmax_t)n, (uintmax_t)fsx.timeout, text);
		_exit(1);
	}
	return arg;
}

static void check_sizes(void)
{
	for (unsigned i = 0; i < fsx.files; i++) {
		const struct file *f = &fsx.file[i];
		struct stat st;

		if (fstat(f->fd, &st))
			report("%s: fstat: %s", f->path, strerror(errno));
		if ((uint64_t)st.st_size != f->size)
			report("%s: size %ju instead of %ju", f->path, (uintmax_t)st.st_size,
				(uintmax_t)f->size);
		/* Preallocation may double it, and more on its way. */
		if ((uint64_t)st.st_blocks > (4 * f->high + (64u << 20)) / 512)
			report("%s: %ju blocks, with a size of %ju", f->path, (uintmax_t)st.st_blocks,
				(uintmax_t)f->size);
	}
}

static void compare_all(bool mapped)
{
	for (unsigned i = 0; i < fsx.files; i++)
		file_compare(&fsx.file[i], mapped);
}

/* The end of a dry run: the real files become what the model says. */
static void catch_up(void)
{
	fsx.dry = false;
	for (unsigned i = 0; i < fsx.files; i++) {
		struct file *f = &fsx.file[i];

		if (ftruncate(f->fd, 0) || pwrite_all(f->fd, f->data, f->size, 0))
			report("%s: write: %s", f->path, strerror(errno));
		for (unsigned j = 0; j < KEEP_SLOTS; j++)
			if (f->keep[j].used)
				file_map(f, &f->keep[j]);
	}
}

static void log_op(const struct op *op)
{
	char text[200];

	op_describe(op, text, sizeof(text));
	fprintf(fsx.log, "%ju %s\n", (uintmax_t)op->n, text);
	fflush(fsx.log);
}

static void step(uint64_t n)
{
	struct op *kept = &fsx.history[n % HISTORY];
	int r = 0;

	if (fsx.dry && n >= fsx.replay_from)
		catch_up();
	fsx.op = plan(n);
	*kept = fsx.op;
	__atomic_store_n(&progress, n, __ATOMIC_RELAXED);
	if (fsx.log)
		log_op(&fsx.op);
	if (fsx.op.content)
		content_fill(fsx.out, fsx.op.off, fsx.op.len, &fsx.op);
	if (!fsx.dry)
		r = run(&fsx.op);
	if (r) {
		kept->skipped = true;
		return;
	}
	fsx.count[fsx.op.kind]++;
	model_apply(&fsx.op, fsx.out);
	if (fsx.dry)
		return;
	check_sizes();
	if (fsx.every && n % fsx.every == 0)
		compare_all(n / fsx.every % 2);
}

static void steps(void)
{
	fsx.dry = fsx.replay_from > 1;
	for (uint64_t n = 1; n <= fsx.ops; n++)
		step(n);
	if (fsx.dry)
		catch_up();
	compare_all(false);
	compare_all(true);
	if (fsx.remount) {
		struct op op = {.kind = OP_REMOUNT};

		run(&op);
		model_apply(&op, NULL);
	}
}

static void figures(void)
{
	printf("fsx: seed %ju: %ju operations, all as the model says:", (uintmax_t)fsx.seed,
		(uintmax_t)fsx.ops);
	for (unsigned i = 0; i < OP_KINDS; i++)
		if (fsx.count[i])
			printf(" %s %ju", op_names[i], (uintmax_t)fsx.count[i]);
	putchar('\n');
}

/* ---- the test of the test ---- */

enum damage { DAMAGE_NONE, DAMAGE_BYTE, DAMAGE_OLD, DAMAGE_SHORT, DAMAGE_LONG, DAMAGE_HOLE };

static const struct {
	enum damage damage;
	enum kind check; /* OP_KINDS: the check of the size */
	const char *name;
} damages[] = {
	{DAMAGE_NONE, OP_COMPARE, "nothing"},
	{DAMAGE_BYTE, OP_READ, "a byte, read"},
	{DAMAGE_BYTE, OP_READV, "a byte, preadv"},
	{DAMAGE_BYTE, OP_READ_DIRECT, "a byte, O_DIRECT"},
	{DAMAGE_BYTE, OP_READ_MAPPED, "a byte, mapping"},
	{DAMAGE_BYTE, OP_READ_URING, "a byte, io_uring"},
	{DAMAGE_BYTE, OP_READ_URING_DIRECT, "a byte, io_uring and O_DIRECT"},
	{DAMAGE_BYTE, OP_COMPARE, "a byte, whole file"},
	{DAMAGE_OLD, OP_COMPARE, "an earlier operation's bytes"},
	{DAMAGE_HOLE, OP_SEEK, "a hole where data was"},
	{DAMAGE_SHORT, OP_KINDS, "the size, one less"},
	{DAMAGE_LONG, OP_KINDS, "the size, one more"},
};

/* Data at the beginning that no later operation changes before the damage is done. */
static void write_again(unsigned content, uint64_t n)
{
	fsx.op = (struct op){
		.n = n, .kind = OP_WRITE, .len = MIN(fsx.op_limit, fsx.limit), .content = content};
	fsx.history[n % HISTORY] = fsx.op;
	content_fill(fsx.out, 0, fsx.op.len, &fsx.op);
	run(&fsx.op);
	model_apply(&fsx.op, fsx.out);
}

static void do_damage(enum damage damage)
{
	struct file *f = &fsx.file[0];
	uint64_t at = f->size / 3;
	uint8_t byte = f->data[at] ^ 1;
	bool done = true;

	write_again(CONTENT_TEXT, fsx.ops + 1);
	if (damage == DAMAGE_OLD) {
		uint64_t len = MIN((uint64_t)512, f->size);

		content_fill(fsx.in, 0, len, &fsx.op);
		write_again(CONTENT_RANDOM, fsx.ops + 2);
		done = pwrite(f->fd, fsx.in, len, 0) == (ssize_t)len;
	} else if (damage == DAMAGE_BYTE) {
		at = f->size / 3 % fsx.op_limit;
		byte = f->data[at] ^ 1;
		done = pwrite(f->fd, &byte, 1, at) == 1;
	} else if (damage == DAMAGE_HOLE) {
		done = !ftruncate(f->fd, 0) && !ftruncate(f->fd, f->size);
	} else if (damage != DAMAGE_NONE) {
		done = !ftruncate(f->fd, f->size + (damage == DAMAGE_LONG ? 1 : -1));
	}
	if (!done)
		bad_usage("fsx", "the damage could not be done", strerror(errno));
}

static void damaged_run(unsigned i)
{
	struct op op = {.kind = damages[i].check};

	ring_open();
	open_all();
	steps();
	for (unsigned j = 0; j < KEEP_SLOTS; j++)
		fsx.file[0].keep[j].used = false;
	do_damage(damages[i].damage);
	op.len = MIN(fsx.op_limit, fsx.file[0].size);
	fsx.op.n++;
	if (damages[i].check == OP_KINDS)
		check_sizes();
	else if (fsx.off[op.kind])
		exit(77);
	else
		run(&op);
	exit(0);
}

/* Returns the exit status of a run with a damage, 3 if it failed without saying how to replay it. */
static int damaged_child(unsigned i)
{
	_cleanup_free_ char *text = calloc(1, 65536);
	int fds[2], status;
	size_t len = 0;
	ssize_t n;
	pid_t pid;

	fflush(NULL);
	if (!text || pipe(fds) || (pid = fork()) < 0)
		abort();
	if (!pid) {
		dup2(fds[1], 2);
		close(fds[0]);
		close(fds[1]);
		damaged_run(i);
	}
	close(fds[1]);
	while ((n = read(fds[0], text + len, 65535 - len)) > 0)
		len += n;
	close(fds[0]);
	if (waitpid(pid, &status, 0) != pid || !WIFEXITED(status))
		return 3;
	return WEXITSTATUS(status) == 1 && !strstr(text, "replay:") ? 3 : WEXITSTATUS(status);
}

static int self_check(void)
{
	unsigned found = 0, skipped = 0, missed = 0;

	for (unsigned i = 0; i < ARRAY_SIZE(damages); i++) {
		int status = damaged_child(i), want = damages[i].damage != DAMAGE_NONE;

		if (status == 77)
			skipped++;
		else if (status == want)
			found++;
		else {
			fprintf(stderr, "fsx: self-check: %s: exit status %d instead of %d\n",
				damages[i].name, status, want);
			missed++;
		}
	}
	printf("fsx: self-check: %u as expected, %u not possible here, %u missed\n", found, skipped, missed);
	return missed ? 1 : 0;
}

int main(int argc, char **argv)
{
	bool check = parse(argc, argv);
	pthread_t thread;

	fsx.page = sysconf(_SC_PAGESIZE);
	fsx.files = MAX(fsx.files, (unsigned)(argc - optind));
	fsx.file = calloc(fsx.files, sizeof(*fsx.file));
	for (unsigned i = 0; i < fsx.files; i++)
		fsx.file[i].path = name_file(argv + optind, argc - optind, i);
	find_sizes();
	allocate();
	probe();
	if (fsx.files < 2)
		fsx.off[OP_COPY_BETWEEN] = true;
	open_all();
	find_alignment();
	if (check)
		return self_check();
	if (fsx.log_path && !(fsx.log = fopen(fsx.log_path, "we")))
		bad_usage("fsx", fsx.log_path, strerror(errno));
	ring_open();
	if (fsx.timeout && pthread_create(&thread, NULL, watch, NULL))
		abort();
	steps();
	ring_close();
	if (fsx.log)
		fclose(fsx.log);
	if (!fsx.quiet)
		figures();
	return 0;
}
