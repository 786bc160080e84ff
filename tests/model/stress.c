/* SPDX-License-Identifier: MIT */
/*
 * stress: random operations on names and files by several processes, each with an exact model of its own tree, and a
 * shared tree in which they race. The parent compares and remounts between rounds.
 *
 * Exit status: 0 all was right, 1 a difference, 2 usage, or the directory can't be used, 77 the filesystem lacks what --need names.
 */
#include <dirent.h>
#include <fcntl.h>
#include <getopt.h>
#include <linux/falloc.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <sys/xattr.h>

#include "options.h"
#include "stress.h"

struct options options = {.seed = 1, .ops = 1000, .procs = 4, .rounds = 1, .size = 128u << 10};
struct abilities abilities;
struct worker worker;

#define PROCS_MAX 64u
static struct {
	pid_t pid;
	int fd;
} procs[PROCS_MAX];
static char shared[PATH_SIZE];
static char moved[PATH_SIZE]; /* a name outside of all trees, for --self-check */

static const struct option longs[] = {
	{"seed", required_argument, NULL, 's'},
	{"ops", required_argument, NULL, 'o'},
	{"procs", required_argument, NULL, 'p'},
	{"rounds", required_argument, NULL, 'r'},
	{"remount", required_argument, NULL, 'm'},
	{"check-every", required_argument, NULL, 'c'},
	{"size", required_argument, NULL, 'S'},
	{"dump", required_argument, NULL, 'd'},
	{"verify", required_argument, NULL, 'v'},
	{"quiet", no_argument, NULL, 'q'},
	{"need", required_argument, NULL, 'n'},
	{"self-check", no_argument, NULL, 'C'},
	{"help", no_argument, NULL, 'h'},
	{0},
};

static void usage(FILE *out)
{
	fputs("usage: stress [OPTION]... DIR\n"
	      "       stress --verify=FILE DIR\n"
	      "Random operations by several processes in DIR, which must not have their directories w0 ... and shared yet.\n"
	      "\n"
	      "      --seed=N         of all random numbers (1)\n"
	      "      --ops=N          operations of each process in each round (1000; 0: only --dump)\n"
	      "      --procs=N        processes (4)\n"
	      "      --rounds=N       rounds (1); after each, everything is compared\n"
	      "      --remount=CMD    after each round, while nothing is open; then everything is compared again\n"
	      "      --check-every=N  each process compares its tree after each N operations (0: only after rounds)\n"
	      "      --size=SIZE      of the largest file (128K)\n"
	      "      --dump=FILE      the tree in the end, after a comparison and a syncfs, as text\n"
	      "      --verify=FILE    compare DIR with such a text, and print each difference\n"
	      "      --need=WHAT,...  exit status 77 if the filesystem lacks it: xattr, allocate, punch, zero, copy, noreplace,\n"
	      "                       exchange, tmpfile, nodes, dir-links, chown\n"
	      "      --quiet          no figures\n"
	      "      --self-check     damage the tree in several ways in the end, and expect a difference for each\n",
		out);
}

static void parse(int argc, char **argv)
{
	int c;

	options.argc = argc;
	options.argv = calloc(argc + 1, sizeof(*argv));
	memcpy(options.argv, argv, argc * sizeof(*argv));
	while ((c = getopt_long(argc, argv, "h", longs, NULL)) >= 0) {
		switch (c) {
		case 's':
			options.seed = option_number("stress", optarg, 0, UINT64_MAX);
			break;
		case 'o':
			options.ops = option_number("stress", optarg, 0, UINT64_MAX);
			break;
		case 'p':
			options.procs = option_number("stress", optarg, 1, PROCS_MAX);
			break;
		case 'r':
			options.rounds = option_number("stress", optarg, 1, UINT64_MAX);
			break;
		case 'm':
			options.remount = optarg;
			break;
		case 'c':
			options.check_every = option_number("stress", optarg, 0, UINT64_MAX);
			break;
		case 'S':
			options.size = option_size("stress", optarg, 1, 1u << 30);
			break;
		case 'd':
			options.dump = optarg;
			break;
		case 'v':
			options.verify = optarg;
			break;
		case 'n':
			options.need = optarg;
			break;
		case 'q':
			options.quiet = true;
			break;
		case 'C':
			options.self_check = true;
			break;
		case 'h':
			usage(stdout);
			exit(0);
		default:
			usage(stderr);
			exit(2);
		}
	}
	if (argc - optind != 1) {
		usage(stderr);
		exit(2);
	}
}

/* ---- what the filesystem does ---- */

static bool is_listed(const char *list, const char *what)
{
	size_t len = strlen(what);

	for (const char *p = list; p; p = strchr(p, ',') ? strchr(p, ',') + 1 : NULL)
		if (!strncmp(p, what, len) && (!p[len] || p[len] == ','))
			return true;
	return false;
}

static void note(bool able, const char *what)
{
	if (!able && !options.quiet)
		fprintf(stderr, "stress: note: left out here: %s\n", what);
	if (!able && options.need && is_listed(options.need, what))
		exit(77);
}

static void probe_file(int fd, const char *path)
{
	off_t from = 0, to = 8192;

	abilities.xattr = !setxattr(path, "user.x0", "", 0, 0);
	abilities.allocate = !fallocate(fd, 0, 0, 4096) && !fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, 8192);
	abilities.punch = !fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096);
	abilities.zero_range = !fallocate(fd, FALLOC_FL_ZERO_RANGE, 0, 4096);
	if (ftruncate(fd, 4096))
		exit(2);
	abilities.copy = copy_file_range(fd, &from, fd, &to, 4096, 0) > 0;
	note(abilities.xattr, "xattr");
	note(abilities.allocate, "allocate");
	note(abilities.punch, "punch");
	note(abilities.zero_range, "zero");
	note(abilities.copy, "copy");
}

static void probe_names(const char *dir, const char *path)
{
	char other[PATH_SIZE + 16];
	struct stat st;
	int fd;

	snprintf(other, sizeof(other), "%s.other", path);
	abilities.noreplace = renameat2(AT_FDCWD, path, AT_FDCWD, other, RENAME_NOREPLACE) == 0;
	if (abilities.noreplace && rename(other, path))
		exit(2);
	abilities.exchange = !mkdir(other, 0700) &&
			     !renameat2(AT_FDCWD, path, AT_FDCWD, other, RENAME_EXCHANGE) &&
			     !renameat2(AT_FDCWD, path, AT_FDCWD, other, RENAME_EXCHANGE);
	abilities.root = geteuid() == 0;
	snprintf(other + strlen(other), 8, "/x");
	abilities.nodes = abilities.root && !mknod(other, S_IFCHR | 0600, makedev(1, 3));
	unlink(other);
	other[strlen(other) - 2] = 0;
	abilities.counts_dirs = !stat(other, &st) && st.st_nlink == 2;
	rmdir(other);
	fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	abilities.tmpfile = fd >= 0;
	if (fd >= 0)
		close(fd);
	note(abilities.noreplace, "noreplace");
	note(abilities.exchange, "exchange");
	note(abilities.tmpfile, "tmpfile");
	note(abilities.nodes, "nodes");
	note(abilities.counts_dirs, "dir-links");
	note(abilities.root, "chown");
}

static void probe(const char *dir)
{
	char path[PATH_SIZE];
	int fd;

	snprintf(path, sizeof(path), "%s/probe", dir);
	fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0) {
		fprintf(stderr, "stress: %s: %s\n", path, strerror(errno));
		exit(2);
	}
	probe_file(fd, path);
	close(fd);
	probe_names(dir, path);
	unlink(path);
}

/* ---- a worker ---- */

static void round_of_work(struct rng *shared_rng)
{
	for (uint64_t i = 0; i < options.ops; i++) {
		unsigned pick = rng_below(&worker.rng, NAMES_WEIGHT + DATA_WEIGHT);

		worker.op++;
		worker.recent[worker.op % RECENT][0] = 0;
		if (pick < NAMES_WEIGHT)
			names_step(pick);
		else
			data_step(pick - NAMES_WEIGHT);
		if (rng_one_in(shared_rng, 5)) {
			worker.op++;
			shared_step(shared, shared_rng);
		}
		if (options.check_every && (i + 1) % options.check_every == 0 && compare_tree())
			wrong("the tree differs from the model");
	}
	worker.op++;
	doing("the end of the round");
	held_close_all();
}

/* The parent says what to do with one letter: r round, c compare, q compare, quietly, e end. */
static _Noreturn void work(const char *dir, uint64_t index, int fd)
{
	struct rng shared_rng = rng_new(options.seed ^ 0x5a5a, index);
	char what;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	worker.index = index;
	worker.rng = rng_new(options.seed, index);
	snprintf(worker.base, sizeof(worker.base), "%s/w%ju", dir, (uintmax_t)index);
	worker.root = node_new(S_IFDIR | 0755);
	worker.root->nlink = 1;
	while (read(fd, &what, 1) == 1 && what != 'e') {
		uint64_t differences = 0;
		bool quiet = options.quiet;

		options.quiet |= what == 'q';
		if (what == 'r')
			round_of_work(&shared_rng);
		else
			differences = compare_tree();
		options.quiet = quiet;
		if (write(fd, &differences, sizeof(differences)) != sizeof(differences))
			break;
	}
	_exit(0);
}

/* ---- the parent ---- */

static void start(const char *dir)
{
	snprintf(shared, sizeof(shared), "%s/shared", dir);
	if (shared_create(shared)) {
		fprintf(stderr, "stress: %s: %s\n", shared, strerror(errno));
		exit(2);
	}
	fflush(NULL);
	for (uint64_t i = 0; i < options.procs; i++) {
		char path[PATH_SIZE];
		int fds[2];

		snprintf(path, sizeof(path), "%s/w%ju", dir, (uintmax_t)i);
		if (mkdir(path, 0755) || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) ||
			(procs[i].pid = fork()) < 0) {
			fprintf(stderr, "stress: %s: %s\n", path, strerror(errno));
			exit(2);
		}
		if (!procs[i].pid) {
			close(fds[0]);
			for (uint64_t j = 0; j < i; j++)
				close(procs[j].fd);
			/* Nothing may be in use while the filesystem is mounted again. */
			work(chdir("/") ? "" : dir, i, fds[1]);
		}
		close(fds[1]);
		procs[i].fd = fds[0];
	}
}

/* All workers do it at once. Returns the number of differences; a worker that has failed has said why. */
static uint64_t all_do(char what)
{
	uint64_t differences = 0, n;

	for (uint64_t i = 0; i < options.procs; i++)
		if (send(procs[i].fd, &what, 1, MSG_NOSIGNAL) != 1)
			differences++;
	for (uint64_t i = 0; what != 'e' && i < options.procs; i++) {
		if (recv(procs[i].fd, &n, sizeof(n), MSG_WAITALL) != sizeof(n)) {
			fprintf(stderr, "stress: worker %ju has ended\n", (uintmax_t)i);
			exit(1);
		}
		differences += n;
	}
	return differences;
}

static uint64_t compare_all(const char *when)
{
	uint64_t differences = all_do('c') + shared_check(shared);

	if (differences)
		fprintf(stderr, "stress: seed %ju: %ju differences %s\n", (uintmax_t)options.seed,
			(uintmax_t)differences, when);
	return differences;
}

static int rounds(void)
{
	for (uint64_t i = 0; i < options.rounds; i++) {
		if (all_do('r') || compare_all("after a round"))
			return 1;
		if (!options.remount)
			continue;
		int status = system(options.remount);

		if (status) {
			fprintf(stderr, "stress: '%s' ended with status %#x\n", options.remount, status);
			return 1;
		}
		if (compare_all("after remounting"))
			return 1;
	}
	return 0;
}

static int sync_tree(const char *dir)
{
	_cleanup_close_ int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0 || syncfs(fd)) {
		fprintf(stderr, "stress: %s: %s\n", dir, strerror(errno));
		return 2;
	}
	return 0;
}

/* ---- the test of the test ---- */

enum damage { FLIP, LONGER, MODE, OWNER, MTIME, XATTR, GONE, STRANGER, LINK, TARGET, DAMAGES };

static const char *const damage_names[] = {"a byte", "a size", "a mode", "an owner", "a time", "an attribute",
	"a name gone", "a name more", "a link more", "another target"};

/* A file with some bytes and known time, or a symbolic link, somewhere in the first worker's tree. */
static bool find_victim(const char *dir, mode_t type, char path[PATH_SIZE])
{
	struct dirent *e;
	bool found = false;
	DIR *d = opendir(dir);

	while (d && !found && (e = readdir(d))) {
		struct stat st;

		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
			continue;
		snprintf(path, PATH_SIZE, "%s/%s", dir, e->d_name);
		if (lstat(path, &st))
			continue;
		if (S_ISDIR(st.st_mode)) {
			char sub[PATH_SIZE];

			snprintf(sub, sizeof(sub), "%s", path);
			found = find_victim(sub, type, path);
		} else {
			/* One name: a link that is made anew can't have two. */
			found = (st.st_mode & S_IFMT) == type && st.st_size > 10 && st.st_nlink == 1;
		}
	}
	if (d)
		closedir(d);
	return found;
}

/* Does the damage, or undoes it. */
static bool damage(enum damage d, const char *path, struct stat *st, bool undo)
{
	char other[PATH_SIZE + 16], target[PATH_SIZE] = "";
	static char kept[PATH_SIZE];
	_cleanup_close_ int fd = -1;
	uint8_t byte;

	snprintf(other, sizeof(other), "%.*s/stranger", (int)(strrchr(path, '/') - path), path);
	switch (d) {
	case FLIP:
		fd = open(path, O_RDWR | O_CLOEXEC);
		return pread(fd, &byte, 1, st->st_size / 2) == 1 &&
		       (byte ^= 1, pwrite(fd, &byte, 1, st->st_size / 2) == 1);
	case LONGER:
		return !truncate(path, st->st_size + !undo);
	case MODE:
		return !chmod(path, (st->st_mode ^ (undo ? 0 : S_IXOTH)) & 07777);
	case OWNER:
		return !lchown(path, st->st_uid + !undo, st->st_gid) && !chmod(path, st->st_mode & 07777);
	case XATTR:
		return undo ? !removexattr(path, "user.stranger")
			    : !setxattr(path, "user.stranger", "x", 1, 0);
	case GONE:
		return undo ? !rename(moved, path) : !rename(path, moved);
	case STRANGER:
		return undo ? !unlink(other) : !mknod(other, S_IFREG | 0600, 0);
	case LINK:
		return undo ? !unlink(moved) : !link(path, moved);
	case TARGET:
		if (undo)
			return !unlink(path) && !symlink(kept, path) && !lchown(path, st->st_uid, st->st_gid);
		memset(kept, 0, sizeof(kept));
		return readlink(path, kept, sizeof(kept) - 1) > 0 &&
		       (memcpy(target, kept, sizeof(target)), target[0] ^= 1, true) && !unlink(path) &&
		       !symlink(target, path) && !lchown(path, st->st_uid, st->st_gid);
	default:
		return true;
	}
}

static void set_time(const char *path, struct timespec mtime)
{
	struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, mtime};

	utimensat(AT_FDCWD, path, times, AT_SYMLINK_NOFOLLOW);
}

/* Returns 0 noticed, 1 not, 77 not possible here. */
static int check_damage(const char *dir, const char *dump, enum damage d, FILE *null)
{
	char path[PATH_SIZE], base[PATH_SIZE], parent[PATH_SIZE];
	struct stat st, parent_st;
	bool model = true, text = true, undone;

	snprintf(base, sizeof(base), "%s/w0", dir);
	if ((d == OWNER && !abilities.root) || (d == XATTR && !abilities.xattr) ||
		!find_victim(base, d == TARGET ? S_IFLNK : S_IFREG, path))
		return 77;
	snprintf(parent, sizeof(parent), "%.*s", (int)(strrchr(path, '/') - path), path);
	if (lstat(path, &st) || lstat(parent, &parent_st))
		return 1;
	if (!damage(d, path, &st, false)) {
		fprintf(stderr, "stress: self-check: %s: could not be done: %s\n", damage_names[d],
			strerror(errno));
		return 1;
	}
	if (d != MTIME) {
		set_time(path, st.st_mtim);
		model = all_do('q') != 0;
	} else {
		/* The model knows some times only; the text has all. */
		set_time(path, (struct timespec){1, 2});
	}
	text = dump_verify(dump, dir, null) == 1;
	undone = damage(d, path, &st, true);
	set_time(path, st.st_mtim);
	set_time(parent, parent_st.st_mtim);
	undone = undone && !all_do('c') && !dump_verify(dump, dir, stderr);
	if (!model || !text || !undone)
		fprintf(stderr, "stress: self-check: %s: %s\n", damage_names[d],
			!model	? "the model does not notice"
			: !text ? "--verify does not notice"
				: "could not be undone");
	return !model || !text || !undone;
}

/* The same for the shared tree: a name that nobody made, and a link that no name counts for. */
static int check_shared_damage(void)
{
	char path[PATH_SIZE + 8];
	bool name, links = true;

	snprintf(path, sizeof(path), "%s/s99", shared);
	name = !mknod(path, S_IFREG | 0600, 0) && shared_check(shared);
	unlink(path);
	if (find_victim(shared, S_IFREG, path))
		links = !link(path, moved) && shared_check(shared) && !unlink(moved);
	if (!name || !links || shared_check(shared))
		fprintf(stderr, "stress: self-check: shared tree: %s\n",
			!name ? "a name more is not noticed" : !links ? "a link more is not noticed" : "not undone");
	return !name || !links || shared_check(shared);
}

static int self_check(const char *dir)
{
	unsigned found = 0, skipped = 0, missed = 0;
	FILE *null = fopen("/dev/null", "we");
	char dump[PATH_SIZE];
	int fd;

	snprintf(dump, sizeof(dump), "%s/stress-XXXXXX", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
	fd = mkstemp(dump);
	snprintf(moved, sizeof(moved), "%s/moved", dir);
	options.quiet = true;
	if (!null || fd < 0 || dump_write(dump, dir))
		return 2;
	close(fd);
	for (unsigned d = 0; d < DAMAGES; d++) {
		int r = check_damage(dir, dump, d, null);

		found += r == 0;
		skipped += r == 77;
		missed += r == 1;
	}
	if (check_shared_damage())
		missed++;
	else
		found++;
	unlink(dump);
	fclose(null);
	printf("stress: self-check: %u as expected, %u not possible here, %u missed\n", found, skipped,
		missed);
	return missed ? 1 : 0;
}

int main(int argc, char **argv)
{
	char *dir;
	int r = 0;

	parse(argc, argv);
	umask(0);
	dir = realpath(argv[optind], NULL);
	if (!dir) {
		fprintf(stderr, "stress: %s: %s\n", argv[optind], strerror(errno));
		return 2;
	}
	if (options.verify)
		return dump_verify(options.verify, dir, stdout);
	if (options.ops) {
		probe(dir);
		start(dir);
		r = rounds();
	}
	if (!r)
		r = sync_tree(dir);
	if (!r && options.dump)
		r = dump_write(options.dump, dir);
	if (!r && options.self_check)
		r = self_check(dir);
	if (options.ops)
		all_do('e');
	while (wait(NULL) > 0)
		;
	if (!r && !options.quiet)
		printf("stress: seed %ju: %ju processes, %ju rounds of %ju operations: all as the models say\n",
			(uintmax_t)options.seed, (uintmax_t)options.procs, (uintmax_t)options.rounds,
			(uintmax_t)options.ops);
	free(dir);
	return r;
}
