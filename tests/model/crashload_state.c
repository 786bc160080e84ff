/* SPDX-License-Identifier: MIT */
/* From the records to the states that are allowed. */
#include "crashload.h"

void name_of(unsigned i, char buf[16])
{
	if (i < NAMES - NAMES_TMP)
		snprintf(buf, 16, "f%u", i);
	else
		snprintf(buf, 16, "t%u", i - (NAMES - NAMES_TMP));
}

static int name_index(const char *name)
{
	char buf[16];

	for (unsigned i = 0; i < NAMES; i++) {
		name_of(i, buf);
		if (!strcmp(buf, name))
			return i;
	}
	return -1;
}

/* ---- units ---- */

struct stamp {
	uint8_t magic[8];
	uint64_t file, version, index, check;
};

static uint64_t check_of(const uint8_t *buf, uint32_t unit)
{
	uint64_t h = 0x5eed;

	for (uint32_t i = 0; i < unit; i += 8) {
		uint64_t x;

		memcpy(&x, buf + i, 8);
		h = mix64(h ^ x);
	}
	return h;
}

void unit_fill(uint8_t *buf, uint32_t unit, uint64_t file, uint64_t version, uint32_t index)
{
	struct stamp s = {.file = file, .version = version, .index = index};

	memcpy(s.magic, "crshload", 8);
	for (uint32_t i = sizeof(s); i < unit; i += 8) {
		/* Every second version can be compressed. */
		uint64_t x =
			version & 1 ? mix64(file ^ (version << 20) ^ ((uint64_t)index << 44) ^ i) : version;

		memcpy(buf + i, &x, 8);
	}
	memcpy(buf, &s, sizeof(s));
	s.check = check_of(buf, unit);
	memcpy(buf, &s, sizeof(s));
}

bool unit_decode(
	const uint8_t *buf, uint32_t unit, uint64_t *ret_file, uint64_t *ret_version, uint32_t *ret_index)
{
	uint8_t copy[UNIT_MAX];
	struct stamp s;
	uint64_t check;

	memcpy(&s, buf, sizeof(s));
	if (memcmp(s.magic, "crshload", 8))
		return false;
	check = s.check;
	s.check = 0;
	memcpy(copy, buf, unit);
	memcpy(copy, &s, sizeof(s));
	if (check_of(copy, unit) != check)
		return false;
	*ret_file = s.file;
	*ret_version = s.version;
	*ret_index = (uint32_t)s.index;
	return true;
}

/* ---- records ---- */

static void push(struct versions *v, uint64_t x)
{
	if (array_reserve(&v->v, &v->capacity, v->count + 2, sizeof(*v->v)))
		abort();
	if (!v->count)
		v->v[v->count++] = 0; /* before the first intent there was nothing */
	v->v[v->count++] = x;
}

static void acknowledge(struct versions *v)
{
	if (v->count) {
		v->v[0] = v->v[v->count - 1];
		v->count = 1;
	}
}

static struct worker *get_worker(struct state *s, uint64_t i)
{
	if (i >= 1u << 16)
		return NULL;
	if (i >= s->count) {
		size_t old = s->capacity;

		if (array_reserve(&s->workers, &s->capacity, i + 1, sizeof(*s->workers)))
			abort();
		memset(s->workers + old, 0, (s->capacity - old) * sizeof(*s->workers));
		s->count = i + 1;
	}
	return &s->workers[i];
}

struct cfile *state_file(const struct state *s, uint64_t id)
{
	uint64_t worker = id >> 32, i = id & UINT32_MAX;

	return worker < s->count && i && i <= s->workers[worker].count ? s->workers[worker].files[i - 1]
								       : NULL;
}

static struct cfile *add_file(struct worker *w, uint64_t id)
{
	struct cfile *f = calloc(1, sizeof(*f));

	/* A worker numbers its files one after the other. */
	if (!f || (id & UINT32_MAX) != w->count + 1 ||
		array_reserve(&w->files, &w->capacity, w->count + 1, sizeof(*w->files))) {
		free(f);
		return NULL;
	}
	f->id = id;
	w->files[w->count++] = f;
	return f;
}

static bool intent_write(struct cfile *f, uint64_t first, uint64_t count, uint64_t version)
{
	if (!f || count > UNITS_MAX || first > UNITS_MAX - count)
		return false;
	if (first + count > f->count) {
		f->units = realloc(f->units, (first + count) * sizeof(*f->units));
		if (!f->units)
			abort();
		memset(f->units + f->count, 0, (first + count - f->count) * sizeof(*f->units));
		f->count = first + count;
	}
	for (uint64_t i = first; i < first + count; i++)
		push(&f->units[i].versions, version);
	return true;
}

/* The name's file loses this name, for good if it was not renamed. */
static void intent_remove(struct state *s, struct versions *name)
{
	struct cfile *f = state_file(s, versions_last(name));

	if (f)
		f->may_be_gone = true;
}

static bool intent(struct state *s, struct worker *w, uint64_t worker, const char *line)
{
	char a[16], b[16];
	uint64_t id, first, count, version;
	int i, j;

	if (sscanf(line, "create %15s %ju", a, &id) == 2) {
		i = name_index(a);
		if (i < 0 || id >> 32 != worker || !add_file(w, id))
			return false;
		push(&w->names[i], id);
	} else if (sscanf(line, "write %ju %ju %ju %ju", &id, &first, &count, &version) == 4) {
		return intent_write(state_file(s, id), first, count, version);
	} else if (sscanf(line, "rename %15s %15s", a, b) == 2) {
		i = name_index(a);
		j = name_index(b);
		if (i < 0 || j < 0)
			return false;
		intent_remove(s, &w->names[j]);
		push(&w->names[j], versions_last(&w->names[i]));
		push(&w->names[i], 0);
	} else if (sscanf(line, "unlink %15s", a) == 1) {
		i = name_index(a);
		if (i < 0)
			return false;
		intent_remove(s, &w->names[i]);
		push(&w->names[i], 0);
	} else {
		return false;
	}
	return true;
}

static void ack_units(struct cfile *f, uint64_t first, uint64_t count)
{
	for (uint64_t i = first; i < first + count && i < f->count; i++)
		acknowledge(&f->units[i].versions);
	f->acked = MAX(f->acked, (uint32_t)MIN(first + count, (uint64_t)f->count));
}

static void ack_dir(struct state *s, struct worker *w)
{
	for (size_t i = 0; i < w->count; i++)
		w->files[i]->linked = false;
	for (unsigned i = 0; i < NAMES; i++) {
		struct cfile *f;

		acknowledge(&w->names[i]);
		f = state_file(s, versions_last(&w->names[i]));
		if (f) {
			f->linked = true;
			f->may_be_gone = false;
		}
	}
}

static bool ack(struct state *s, struct worker *w, const char *line)
{
	uint64_t id, first, count;
	struct cfile *f;

	if (sscanf(line, "file %ju", &id) == 1) {
		f = state_file(s, id);
		if (f)
			ack_units(f, 0, f->count);
		return f;
	}
	if (sscanf(line, "range %ju %ju %ju", &id, &first, &count) == 3) {
		f = state_file(s, id);
		if (f)
			ack_units(f, first, count);
		return f;
	}
	if (!strcmp(line, "all"))
		for (size_t i = 0; i < w->count; i++)
			ack_units(w->files[i], 0, w->files[i]->count);
	else if (strcmp(line, "dir"))
		return false;
	ack_dir(s, w);
	return true;
}

static bool record(struct state *s, char *line)
{
	struct worker *w;
	uint64_t worker;
	char kind;
	int at = 0;

	if (sscanf(line, "%c %ju %n", &kind, &worker, &at) < 2 || !at)
		return false;
	w = get_worker(s, worker);
	if (!w)
		return false;
	switch (kind) {
	case 'W':
		w->ready = true;
		return true;
	case 'I':
		s->intents++;
		return intent(s, w, worker, line + at);
	case 'A':
		s->acks++;
		return ack(s, w, line + at);
	case 'E':
		s->ended++;
		return true;
	default:
		return false;
	}
}

int state_read(const char *path, struct state *ret)
{
	_cleanup_free_ char *line = NULL;
	struct state s = {0};
	size_t size = 0, number = 0;
	ssize_t n;
	FILE *f = fopen(path, "re");
	int r = 0;

	if (!f)
		return -errno;
	while ((n = getline(&line, &size, f)) > 0 && line[n - 1] == '\n') {
		line[n - 1] = 0;
		if (!number++)
			r = sscanf(line, "crashload 1 %u %ju", &s.unit, &s.seed) == 2 && s.unit >= 64 &&
					    s.unit <= UNIT_MAX
				    ? 0
				    : -EINVAL;
		else if (!record(&s, line))
			r = -EINVAL;
		if (r) {
			fprintf(stderr, "crashload: %s:%zu: not a record: %s\n", path, number, line);
			break;
		}
	}
	fclose(f);
	if (!r && !number)
		r = -EINVAL;
	if (r)
		state_free(&s);
	else
		*ret = s;
	return r;
}

void state_free(struct state *s)
{
	for (size_t i = 0; i < s->count; i++) {
		struct worker *w = &s->workers[i];

		for (size_t j = 0; j < w->count; j++) {
			for (uint32_t k = 0; k < w->files[j]->count; k++)
				free(w->files[j]->units[k].versions.v);
			free(w->files[j]->units);
			free(w->files[j]);
		}
		for (unsigned j = 0; j < NAMES; j++)
			free(w->names[j].v);
		free(w->files);
	}
	free(s->workers);
	*s = (struct state){0};
}
