/* SPDX-License-Identifier: MIT */
/*
 * replay: which part of the accesses that were recorded from mounts (pinfs mount -o trace=) a cache would have served, by
 * eviction policies that are simulated, by the best that there can be, and by the page cache itself.
 *
 * A simulated cache holds so many units of one size, however full they are; readahead is no part of it. The page cache is
 * given the same units, so its own policy, its queue of cold units and its readahead can be told apart.
 */
#include <fcntl.h>
#include <getopt.h>

#include "cache/trace_file.h"
#include "policies.h"

#define SIZES_MAX 16u
#define LEAST 8u /* units: the page cache takes no less */

enum format { TABLE, JSON, CSV };

struct input {
	const char *name;
	struct sequence seq;
	uint32_t *mapping; /* by id */
	uint64_t *number;  /* by id */
	uint32_t mappings, unit_size;
	uint64_t lost, found_hits;
	bool complete;
};

static const struct option longs[] = {
	{"sizes", required_argument, NULL, 's'}, {"json", no_argument, NULL, 'j'},  {"csv", no_argument, NULL, 'c'},
	{"strip", required_argument, NULL, 'S'}, {"self-check", no_argument, NULL, 'C'}, {"simulate", no_argument, NULL, 'm'},
	{"help", no_argument, NULL, 'h'},	 {0},
};

static void usage(FILE *out)
{
	fputs("usage: replay [OPTION]... TRACE...\n"
	      "Hit ratios of eviction policies, and of the page cache itself, over recorded traces.\n"
	      "\n"
	      "      --sizes=SIZE,...  of the cache: N% of all units that the trace has, or bytes (16M);\n"
	      "                        default: 5%,10%,20%,50%,8M,16M,32M,64M\n"
	      "      --simulate        the policies alone, not the page cache\n"
	      "      --json, --csv     for programs\n"
	      "      --strip=OUT       write what a replay needs of one trace into the file OUT\n"
	      "      --self-check      compare the policies with naive ones over random sequences\n", out);
}

__attribute__((noreturn)) static void die(const char *name, const char *what)
{
	fprintf(stderr, "replay: %s: %s\n", name, what);
	exit(2);
}

static uint8_t *read_whole(const char *name, size_t *ret_len)
{
	uint8_t *data;
	FILE *f = fopen(name, "re");
	long len;

	if (!f || fseek(f, 0, SEEK_END) || (len = ftell(f)) < 0)
		die(name, strerror(errno));
	rewind(f);
	data = malloc((size_t)len + 1);
	if (!data || fread(data, 1, (size_t)len, f) != (size_t)len)
		die(name, "can't be read");
	fclose(f);
	*ret_len = (size_t)len;
	return data;
}

/* ---- from a trace to a sequence ---- */

struct key {
	uint32_t mapping;
	uint64_t number;
};

static int compare_keys(const void *a, const void *b)
{
	const struct key *x = a, *y = b;

	return x->mapping != y->mapping ? (x->mapping > y->mapping) - (x->mapping < y->mapping) :
					  (x->number > y->number) - (x->number < y->number);
}

/* Ids for all (mapping, unit) that there are, in their order. */
static struct key *make_ids(struct input *in, const struct key *of, size_t count)
{
	struct key *keys = malloc(MAX(count, (size_t)1) * sizeof(*keys));
	uint32_t n = 0;

	if (!keys)
		die(in->name, "out of memory");
	memcpy(keys, of, count * sizeof(*keys));
	qsort(keys, count, sizeof(*keys), compare_keys);
	for (size_t i = 0; i < count; i++)
		if (!n || compare_keys(&keys[n - 1], &keys[i]))
			keys[n++] = keys[i];
	in->seq.units = n;
	in->mapping = calloc(MAX(n, 1u), sizeof(*in->mapping));
	in->number = calloc(MAX(n, 1u), sizeof(*in->number));
	if (!in->mapping || !in->number)
		die(in->name, "out of memory");
	for (uint32_t i = 0; i < n; i++) {
		in->mapping[i] = keys[i].mapping;
		in->number[i] = keys[i].number;
		in->mappings = MAX(in->mappings, keys[i].mapping);
	}
	return keys;
}

/* Each put belongs to the oldest access of its unit that has none so far. */
struct pairing {
	size_t *first, *last; /* by id: accesses that wait, 1 + their place; 0: none */
	size_t *next;	      /* by access */
};

static void pair(struct input *in, const struct trace_event *events, size_t count, const struct key *keys)
{
	struct pairing p = {calloc(in->seq.units + 1, sizeof(size_t)), calloc(in->seq.units + 1, sizeof(size_t)),
		calloc(count + 1, sizeof(size_t))};
	size_t n = 0;

	in->seq.accesses = calloc(count + 1, sizeof(*in->seq.accesses));
	if (!p.first || !p.last || !p.next || !in->seq.accesses)
		die(in->name, "out of memory");
	for (size_t i = 0; i < count; i++) {
		struct trace_use use = trace_use_unpack(events[i].b);
		struct key key = {use.mapping, events[i].a}, *at;
		uint32_t id;

		at = bsearch(&key, keys, in->seq.units, sizeof(*keys), compare_keys);
		id = (uint32_t)(at - keys);
		if (events[i].type == TRACE_access) {
			in->seq.accesses[n] = (struct access){id, (uint16_t)MAX(use.run, 1u), (uint8_t)use.what, false};
			in->found_hits += use.what != TRACE_MISSED;
			n++;
			if (p.first[id])
				p.next[p.last[id] - 1] = n;
			else
				p.first[id] = n;
			p.last[id] = n;
		} else if (p.first[id]) {
			in->seq.accesses[p.first[id] - 1].cold = use.what;
			p.first[id] = p.next[p.first[id] - 1];
		}
	}
	in->seq.count = n;
	free(p.first);
	free(p.last);
	free(p.next);
}

static void load(const char *name, struct input *in)
{
	struct trace_event *events = NULL, e;
	struct key *keys = NULL, *ids;
	size_t len, count = 0, room = 0, keys_room = 0;
	uint8_t *data = read_whole(name, &len);
	unsigned pages = 1;
	struct trace_reader r;
	int n;

	*in = (struct input){.name = name};
	if (trace_reader_init(&r, data, len) < 0)
		die(name, "is no trace");
	while ((n = trace_reader_next(&r, &e)) > 0) {
		struct trace_use use = trace_use_unpack(e.b);

		if (e.type != TRACE_access && e.type != TRACE_put)
			continue;
		if (!use.mapping || use.mapping > 1u << 20 || e.a >> 40)
			die(name, "is damaged");
		if (array_reserve(&events, &room, count + 1, sizeof(*events)) < 0 ||
			array_reserve(&keys, &keys_room, count + 1, sizeof(*keys)) < 0)
			die(name, "out of memory");
		keys[count] = (struct key){use.mapping, e.a};
		events[count++] = e;
		pages = MAX(pages, use.pages);
	}
	if (n < 0)
		die(name, "is damaged, or was cut short");
	while (!is_power_of_two(pages))
		pages++;
	in->unit_size = pages * r.page_size;
	in->lost = r.lost;
	in->complete = r.complete;
	ids = make_ids(in, keys, count);
	pair(in, events, count, ids);
	if (!in->seq.count)
		die(name, "has no accesses");
	free(ids);
	free(events);
	free(keys);
	free(data);
}

static void unload(struct input *in)
{
	free(in->seq.accesses);
	free(in->mapping);
	free(in->number);
}

/* ---- --strip ---- */

static void strip(const char *name, const char *to)
{
	static struct trace_writer w;
	struct trace_reader r;
	struct trace_event e;
	uint64_t lost = 0;
	size_t len;
	uint8_t *data = read_whole(name, &len);
	int n, fd = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

	if (fd < 0)
		die(to, strerror(errno));
	if (trace_reader_init(&r, data, len) < 0)
		die(name, "is no trace");
	trace_writer_init(&w, fd);
	while ((n = trace_reader_next(&r, &e)) > 0) {
		trace_writer_lost(&w, r.lost - lost);
		lost = r.lost;
		e.time = e.thread = 0;
		if (e.type == TRACE_access || e.type == TRACE_put)
			trace_writer_event(&w, &e);
	}
	if (n < 0 || !r.complete)
		die(name, "is not complete");
	if (trace_writer_end(&w) < 0 || close(fd) < 0)
		die(to, "can't be written");
	free(data);
}

/* ---- results ---- */

/* What is replayed: the policies alone, with the hints in two ways, then the page cache. */
struct contestant {
	const char *name;
	int policy;	/* enum policy; -1: the page cache */
	enum hint hint; /* page cache: HINT_FIRST is as recorded */
	unsigned readahead;
};
static const struct contestant contestants[] = {
	{"LRU", POLICY_LRU, HINT_NOTHING, 0},
	{"FIFO", POLICY_FIFO, HINT_NOTHING, 0},
	{"CLOCK", POLICY_CLOCK, HINT_NOTHING, 0},
	{"SIEVE", POLICY_SIEVE, HINT_NOTHING, 0},
	{"S3-FIFO", POLICY_S3FIFO, HINT_NOTHING, 0},
	{"SIEVE, probation", POLICY_PROBATION, HINT_NOTHING, 0},
	{"optimum", POLICY_MIN, HINT_NOTHING, 0},
	{"SIEVE, cold first", POLICY_SIEVE, HINT_FIRST, 0},
	{"SIEVE, cold forgets", POLICY_SIEVE, HINT_FORGET, 0},
	{"S3-FIFO, cold forgets", POLICY_S3FIFO, HINT_FORGET, 0},
	{"probation, cold first", POLICY_PROBATION, HINT_FIRST, 0},
	{"probation, cold forgets", POLICY_PROBATION, HINT_FORGET, 0},
	{"pinfs without hints", -1, HINT_NOTHING, 0},
	{"pinfs", -1, HINT_FIRST, 0},
	{"pinfs, readahead, no hints", -1, HINT_NOTHING, 2},
	{"pinfs, readahead", -1, HINT_FIRST, 2},
};

struct size {
	double percent; /* 0: bytes count */
	uint64_t bytes;
	uint32_t units;
};

struct run {
	struct size sizes[SIZES_MAX];
	unsigned count;
	enum format format;
	bool simulate;
	uint64_t records;
};

static void parse_sizes(struct run *run, char *text)
{
	run->count = 0;
	for (char *word; (word = strsep(&text, ","));) {
		struct size *s = &run->sizes[run->count++];
		char *end;

		*s = (struct size){.percent = strtod(word, &end)};
		if (end != word && !strcmp(end, "%") && s->percent > 0 && s->percent <= 100) {
			;
		} else {
			s->percent = 0;
			if (parse_size(word, &s->bytes) < 0 || !s->bytes)
				die(word, "is no size");
		}
		if (run->count == SIZES_MAX)
			break;
	}
}

/* The share of all accesses that were hits; units read go to *ret_reads. */
static double contest(const struct input *in, const struct contestant *c, uint32_t units, uint64_t *ret_reads)
{
	struct cache_replay how = {.readahead_threads = c->readahead, .hints = c->hint == HINT_FIRST, .unit_size = in->unit_size,
		.mapping = in->mapping, .number = in->number, .mappings = in->mappings};
	struct cache_replay_result r;

	if (c->policy < 0) {
		cache_replay(&how, &in->seq, units, &r);
	} else {
		r.hits = policy_hits((enum policy)c->policy, &in->seq, units, c->hint);
		r.reads = in->seq.count - r.hits;
	}
	*ret_reads = r.reads;
	return (double)r.hits / (double)in->seq.count;
}

static void begin(const struct run *run, const struct input *in)
{
	char unit[16], all[16];

	if (run->format != TABLE)
		return;
	printf("\n%s: %zu accesses to %u units of %s, %s in all; %.1f %% hits when it was recorded%s%s\n", in->name,
		in->seq.count, in->seq.units, format_size(in->unit_size, unit, sizeof(unit)),
		format_size((uint64_t)in->seq.units * in->unit_size, all, sizeof(all)),
		100.0 * (double)in->found_hits / (double)in->seq.count, in->lost ? "; events are missing" : "",
		in->complete ? "" : "; the end is missing");
	printf("%-28s", "cache");
	for (unsigned i = 0; i < run->count; i++) {
		char text[32];

		if (run->sizes[i].percent)
			snprintf(text, sizeof(text), "%g %%", run->sizes[i].percent);
		else
			format_size(run->sizes[i].bytes, text, sizeof(text));
		printf(" %9s", run->sizes[i].units ? text : "");
	}
	putchar('\n');
}

static void result(struct run *run, const struct input *in, const struct contestant *c, const struct size *s, double ratio,
	uint64_t reads)
{
	switch (run->format) {
	case TABLE:
		printf("   %6.2f", 100 * ratio);
		break;
	case CSV:
		if (!run->records)
			puts("trace,accesses,units,unit_size,policy,cache_units,hit_ratio,units_read");
		printf("%s,%zu,%u,%u,\"%s\",%u,%.6f,%ju\n", in->name, in->seq.count, in->seq.units, in->unit_size, c->name,
			s->units, ratio, (uintmax_t)reads);
		break;
	case JSON:
		printf("%s{\"trace\": ", run->records ? ",\n" : "[");
		json_string(stdout, in->name, strlen(in->name));
		printf(", \"accesses\": %zu, \"units\": %u, \"unit_size\": %u, \"policy\": \"%s\", \"cache_units\": %u, "
		       "\"hit_ratio\": %.6f, \"units_read\": %ju}", in->seq.count, in->seq.units, in->unit_size, c->name,
			s->units, ratio, (uintmax_t)reads);
		break;
	}
	run->records++;
}

static void replay(struct run *run, const struct input *in)
{
	for (unsigned i = 0; i < run->count; i++) {
		struct size *s = &run->sizes[i];
		double units = s->percent ? in->seq.units * s->percent / 100 : (double)(s->bytes / in->unit_size);

		/* A cache that holds everything says nothing of policies. */
		s->units = units < in->seq.units ? (uint32_t)MAX(units, (double)LEAST) : 0;
	}
	begin(run, in);
	for (size_t k = 0; k < ARRAY_SIZE(contestants); k++) {
		const struct contestant *c = &contestants[k];
		uint64_t reads[SIZES_MAX] = {0};

		if (c->policy < 0 && run->simulate)
			continue;
		if (run->format == TABLE)
			printf("%-28s", c->name);
		for (unsigned i = 0; i < run->count; i++)
			if (run->sizes[i].units) {
				double ratio = contest(in, c, run->sizes[i].units, &reads[i]);

				result(run, in, c, &run->sizes[i], ratio, reads[i]);
			} else if (run->format == TABLE) {
				printf(" %9s", "");
			}
		if (run->format == TABLE && c->readahead) {
			printf("\n%-28s", "  units read per access");
			for (unsigned i = 0; i < run->count; i++)
				if (run->sizes[i].units)
					printf("   %6.3f", (double)reads[i] / (double)in->seq.count);
				else
					printf(" %9s", "");
		}
		if (run->format == TABLE)
			putchar('\n');
	}
}

int main(int argc, char **argv)
{
	char default_sizes[] = "5%,10%,20%,50%,8M,16M,32M,64M";
	const char *to = NULL;
	struct run run = {0};
	struct input in;
	int c;

	parse_sizes(&run, default_sizes);
	while ((c = getopt_long(argc, argv, "h", longs, NULL)) != -1) {
		switch (c) {
		case 's':
			parse_sizes(&run, optarg);
			break;
		case 'j':
			run.format = JSON;
			break;
		case 'c':
			run.format = CSV;
			break;
		case 'm':
			run.simulate = true;
			break;
		case 'S':
			to = optarg;
			break;
		case 'C':
			if (!policies_check())
				return 1;
			puts("replay: the policies are right");
			return 0;
		case 'h':
			usage(stdout);
			return 0;
		default:
			usage(stderr);
			return 2;
		}
	}
	if (optind == argc || (to && argc - optind != 1)) {
		usage(stderr);
		return 2;
	}
	if (to)
		strip(argv[optind++], to);
	for (; optind < argc; optind++) {
		load(argv[optind], &in);
		replay(&run, &in);
		unload(&in);
	}
	if (run.format == JSON)
		puts(run.records ? "]" : "[]");
	return 0;
}
