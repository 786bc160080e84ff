/* SPDX-License-Identifier: MIT */
/* The model of a worker's tree. */
#include <stdarg.h>

#include "stress.h"

struct node *node_new(mode_t mode)
{
	struct node *n = calloc(1, sizeof(*n));

	if (!n)
		abort();
	n->mode = mode;
	n->uid = geteuid();
	n->gid = getegid();
	worker.nodes++;
	return n;
}

void node_put(struct node *n)
{
	if (!n || n->nlink || n->opens)
		return;
	for (unsigned i = 0; i < XATTRS; i++)
		free(n->xattrs[i].value);
	free(n->data);
	free(n->target);
	free(n->entries);
	free(n);
	worker.nodes--;
}

struct entry *node_find(struct node *dir, const char *name)
{
	for (size_t i = 0; i < dir->count; i++)
		if (!strcmp(dir->entries[i].name, name))
			return &dir->entries[i];
	return NULL;
}

void node_link(struct node *dir, const char *name, struct node *n)
{
	struct entry *e;

	if (array_reserve(&dir->entries, &dir->capacity, dir->count + 1, sizeof(*dir->entries)))
		abort();
	e = &dir->entries[dir->count++];
	*e = (struct entry){strdup(name), n};
	n->nlink++;
	n->tmpfile = false;
	if (S_ISDIR(n->mode)) {
		n->parent = dir;
		n->name = e->name;
	}
	changed(dir);
}

void node_unlink(struct node *dir, struct entry *e)
{
	struct node *n = e->node;

	free(e->name);
	*e = dir->entries[--dir->count];
	n->nlink--;
	if (S_ISDIR(n->mode))
		n->name = NULL;
	changed(dir);
}

void node_resize(struct node *n, uint64_t size)
{
	uint8_t *data = realloc(n->data, size + 1);

	if (!data)
		abort();
	if (size > n->size)
		memset(data + n->size, 0, size - n->size);
	n->data = data;
	n->size = size;
}

bool node_is_above(const struct node *above, const struct node *n)
{
	for (; n; n = n->parent)
		if (n == above)
			return true;
	return false;
}

unsigned node_depth(const struct node *n)
{
	unsigned depth = 0;

	for (; n->parent; n = n->parent)
		depth++;
	return depth;
}

unsigned node_subdirs(const struct node *dir)
{
	unsigned count = 0;

	for (size_t i = 0; i < dir->count; i++)
		count += S_ISDIR(dir->entries[i].node->mode);
	return count;
}

void changed(struct node *n)
{
	n->mtime_known = false;
}

static size_t path_put(const struct node *dir, char *path)
{
	size_t at;

	if (!dir->parent)
		return (size_t)snprintf(path, PATH_SIZE, "%s", worker.base);
	at = path_put(dir->parent, path);
	return at + (size_t)snprintf(path + at, PATH_SIZE - at, "/%s", dir->name);
}

void path_of(const struct node *dir, const char *name, char path[PATH_SIZE])
{
	size_t at = path_put(dir, path);

	if (name)
		snprintf(path + at, PATH_SIZE - at, "/%s", name);
}

/* ---- choices ---- */

struct node *pick_dir(void)
{
	struct node *dir = worker.root;

	for (;;) {
		unsigned subdirs = node_subdirs(dir), pick;

		if (!subdirs || rng_one_in(&worker.rng, 3))
			return dir;
		pick = rng_below(&worker.rng, subdirs);
		for (size_t i = 0; i < dir->count; i++)
			if (S_ISDIR(dir->entries[i].node->mode) && !pick--) {
				dir = dir->entries[i].node;
				break;
			}
	}
}

void pick_name(const struct node *dir, char name[256])
{
	static const char *const odd[] = {
		"a b", "\xc3\xa4", "\xff\x01", "new\nline", "-rf", "...", ".x", "%s"};
	unsigned i = rng_below(&worker.rng, 25), pick = rng_below(&worker.rng, 20);

	if (pick < 9 && dir->count) {
		snprintf(name, 256, "%s", dir->entries[rng_below(&worker.rng, dir->count)].name);
	} else if (pick == 19) {
		snprintf(name, 256, "%s", odd[i % ARRAY_SIZE(odd)]);
	} else if (pick == 18) {
		/* The longest name that there may be, and one a bit shorter. */
		memset(name, 'a' + i % 3, 255);
		name[i % 2 ? 255 : 200] = 0;
	} else {
		snprintf(name, 256, "n%u", i);
	}
}

struct entry *pick_entry(mode_t type, struct node **ret_dir)
{
	for (unsigned i = 0; i < 12; i++) {
		struct node *dir = pick_dir();
		struct entry *e;

		if (!dir->count)
			continue;
		e = &dir->entries[rng_below(&worker.rng, dir->count)];
		if (!type || (e->node->mode & S_IFMT) == type) {
			*ret_dir = dir;
			return e;
		}
	}
	return NULL;
}

/* ---- reports ---- */

/* Paths without the worker's directory, long names as "a{255}". */
static void shorten(char *text)
{
	size_t base = strlen(worker.base), run;
	char *out = text, count[32];

	for (const char *in = text; *in; in += run) {
		if (!strncmp(in, worker.base, base) && (!in[base] || in[base] == '/' || in[base] == ' ')) {
			*out++ = '@';
			run = base;
			continue;
		}
		for (run = 1; in[run] == in[0];)
			run++;
		*out++ = in[0];
		if (run < 10) {
			run = 1;
			continue;
		}
		snprintf(count, sizeof(count), "{%zu}", run);
		memcpy(out, count, strlen(count));
		out += strlen(count);
	}
	*out = 0;
}

void doing(const char *format, ...)
{
	static char text[3 * PATH_SIZE];
	char *line = worker.recent[worker.op % RECENT];
	va_list ap;
	int n;

	va_start(ap, format);
	vsnprintf(text, sizeof(text), format, ap);
	va_end(ap);
	shorten(text);
	n = snprintf(line, sizeof(worker.recent[0]), "%ju ", (uintmax_t)worker.op);
	name_escape(text, strlen(text), line + n, sizeof(worker.recent[0]) - n);
}

static void print_replay(void)
{
	fputs("replay:", stderr);
	for (int i = 0; i < options.argc; i++) {
		bool plain = options.argv[i][strcspn(options.argv[i], " ;&|$*?'\"<>()")] == 0;

		fprintf(stderr, plain ? " %s" : " '%s'", options.argv[i]);
	}
	fprintf(stderr, " --seed %ju   (in an empty directory)\n", (uintmax_t)options.seed);
}

void wrong(const char *format, ...)
{
	va_list ap;

	flockfile(stderr);
	fprintf(stderr, "stress: seed %ju, worker %ju, operation %ju: ", (uintmax_t)options.seed,
		(uintmax_t)worker.index, (uintmax_t)worker.op);
	va_start(ap, format);
	vfprintf(stderr, format, ap);
	va_end(ap);
	fprintf(stderr, "\nlast operations (@ is %s):\n", worker.base);
	for (uint64_t i = worker.op >= RECENT ? worker.op - RECENT + 1 : 0; i <= worker.op; i++)
		if (worker.recent[i % RECENT][0])
			fprintf(stderr, "  %s\n", worker.recent[i % RECENT]);
	print_replay();
	funlockfile(stderr);
	_exit(1);
}

bool outcome(long ret, int want)
{
	int error = ret < 0 ? errno : 0;

	if (error != want)
		wrong("%s instead of %s", error ? strerror(error) : "success",
			want ? strerror(want) : "success");
	return !error;
}

void take_step(const struct step *steps, size_t count, unsigned pick)
{
	for (size_t i = 0; i < count; i++) {
		if (pick < steps[i].weight) {
			steps[i].run();
			return;
		}
		pick -= steps[i].weight;
	}
	abort();
}
