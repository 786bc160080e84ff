/* SPDX-License-Identifier: MIT */
/*
 * Runs a fuzz target without libFuzzer, with any compiler: each file once (saved crashes, seeds), and then some
 * mutations of them, the same ones each time.
 *
 * usage: replay-TARGET [--mutate=N] [--seed=S] [--only=K] FILE|DIRECTORY...
 *
 * A mutation that crashes is left as a file; the command that replays it is the last line on stderr.
 */
#include "fuzz.h"

#include <dirent.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <sys/stat.h>

#define FILE_MOST (16u << 20)
#define GROWTH (256u << 10)

struct input {
	char *path;
	uint8_t *data;
	size_t size;
};

static struct input *inputs;
static size_t input_count, input_capacity;

/* What is running now, for the handler of its crash. */
static const char *running_file, *program;
static const uint8_t *running_data;
static size_t running_size;

static struct fuzz_random mutate_random = {1};

/* Stands in for libFuzzer's own; the tamperers in mutator.c call it for plain bytes. */
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size)
{
	if (!size)
		return 0;
	for (uint64_t n = 1 + fuzz_below(&mutate_random, 3); n--;)
		data[fuzz_below(&mutate_random, size)] = (uint8_t)fuzz_next(&mutate_random);
	return size;
}

static void on_death(void)
{
	char path[64] = "";
	int fd;

	if (running_file) {
		dprintf(STDERR_FILENO, "replay: %s '%s'\n", program, running_file);
	} else if (running_data) {
		snprintf(path, sizeof(path), "replay-crash-%ld", (long)getpid());
		fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
		if (fd >= 0 && write_all(fd, running_data, running_size) == 0)
			dprintf(STDERR_FILENO, "replay: %s %s\n", program, path);
	}
	running_file = NULL;
	running_data = NULL;
}

static void on_signal(int sig)
{
	on_death();
	signal(sig, SIG_DFL);
	raise(sig);
}

/* Sanitizers end the process in their own way; both lines are nothing without them. */
__attribute__((weak)) void __sanitizer_set_death_callback(void (*callback)(void));

static int load(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;
	int r;

	if (fd < 0 || fstat(fd, &st) < 0) {
		fprintf(stderr, "%s: %s: %s\n", program, path, strerror(errno));
		return -1;
	}
	if (!S_ISREG(st.st_mode) || st.st_size > FILE_MOST) {
		close(fd);
		return 0;
	}
	r = array_reserve(&inputs, &input_capacity, input_count + 1, sizeof(*inputs));
	if (r == 0) {
		struct input *i = &inputs[input_count];

		*i = (struct input){strdup(path), malloc((size_t)st.st_size + 1), (size_t)st.st_size};
		r = i->path && i->data ? pread_all(fd, i->data, i->size, 0) : -ENOMEM;
		input_count += r == 0;
	}
	close(fd);
	return r;
}

static int load_all(const char *path)
{
	struct dirent **names;
	char child[4096];
	int n = scandir(path, &names, NULL, alphasort), r = 0;

	if (n < 0 && errno == ENOTDIR)
		return load(path);
	if (n < 0) {
		fprintf(stderr, "%s: %s: %s\n", program, path, strerror(errno));
		return -1;
	}
	for (int i = 0; i < n; i++) {
		snprintf(child, sizeof(child), "%s/%s", path, names[i]->d_name);
		if (r == 0 && names[i]->d_name[0] != '.')
			r = load(child);
		free(names[i]);
	}
	free(names);
	return r;
}

/* On the heap and of the exact size, so that a sanitizer sees a read behind it. */
static void run_copy(const uint8_t *data, size_t size)
{
	uint8_t *copy = malloc(size ? size : 1);

	FUZZ_CHECK(copy);
	memcpy(copy, data, size);
	LLVMFuzzerTestOneInput(copy, size);
	free(copy);
}

static void run_mutation(uint64_t seed, uint64_t number, uint8_t *buffer)
{
	struct fuzz_random r = {seed * 0x100000001b3ull + number};
	const struct input *i = &inputs[fuzz_below(&r, input_count)];

	memcpy(buffer, i->data, i->size);
	mutate_random.state = fuzz_next(&r);
	running_size = i->size;
	for (uint64_t n = 1 + fuzz_below(&r, 4); n--;)
		running_size = LLVMFuzzerCustomMutator(buffer, running_size, i->size + GROWTH,
			(unsigned)fuzz_next(&r));
	running_data = buffer;
	run_copy(buffer, running_size);
	running_data = NULL;
}

static void usage(FILE *out)
{
	fprintf(out, "Usage: %s [--mutate=N] [--seed=S] [--only=K] FILE|DIRECTORY...\n"
		"Run a fuzz target over files, and N mutations of them (or only mutation K).\n", program);
}

static int options(int argc, char **argv, uint64_t *ret_mutate, uint64_t *ret_seed, uint64_t *ret_only)
{
	static const struct option longs[] = {
		{"mutate", required_argument, NULL, 'm'}, {"seed", required_argument, NULL, 's'},
		{"only", required_argument, NULL, 'o'}, {"help", no_argument, NULL, 'h'}, {0},
	};
	int c;

	while ((c = getopt_long(argc, argv, "h", longs, NULL)) != -1) {
		uint64_t *to = c == 'm' ? ret_mutate : c == 's' ? ret_seed : c == 'o' ? ret_only : NULL;

		if (c == 'h') {
			usage(stdout);
			exit(0);
		}
		if (!to || parse_u64(optarg, 0, UINT64_MAX - 1, to) < 0) {
			usage(stderr);
			return -EINVAL;
		}
	}
	return 0;
}

int main(int argc, char **argv)
{
	static const int deadly[] = {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGALRM};
	uint64_t mutate = 0, seed = 1, only = UINT64_MAX;
	uint8_t *buffer;

	program = argv[0];
	if (options(argc, argv, &mutate, &seed, &only) < 0)
		return 2;
	for (int i = optind; i < argc; i++)
		if (load_all(argv[i]) < 0)
			return 2;
	if (!input_count) {
		fprintf(stderr, "%s: no input\n", program);
		return 2;
	}
	for (size_t i = 0; i < ARRAY_SIZE(deadly); i++)
		signal(deadly[i], on_signal);
	if (__sanitizer_set_death_callback)
		__sanitizer_set_death_callback(on_death);
	for (size_t i = 0; i < input_count && only == UINT64_MAX; i++) {
		running_file = inputs[i].path;
		run_copy(inputs[i].data, inputs[i].size);
		running_file = NULL;
	}
	buffer = malloc(FILE_MOST + GROWTH);
	FUZZ_CHECK(buffer);
	for (uint64_t k = 0; k < mutate; k++)
		if (only == UINT64_MAX || only == k)
			run_mutation(seed, k, buffer);
	free(buffer);
	printf("%zu files, %ju mutations (seed %ju): no finding\n", input_count, (uintmax_t)mutate, (uintmax_t)seed);
	for (size_t i = 0; i < input_count; i++) {
		free(inputs[i].path);
		free(inputs[i].data);
	}
	free(inputs);
	return 0;
}
