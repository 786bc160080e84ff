/* SPDX-License-Identifier: MIT */
/*
 * What people read: the steps of a run in words, with names for objects. Only runs that are told do any of this
 * (explore_telling); what they do otherwise is the same.
 */
#include "internal.h"

#include <stdarg.h>

#define BUFFERS 12u
#define BUFFER_SIZE 192u

struct name {
	const void *p;
	size_t size;
	char *text;
};
static struct name *names;
static size_t nnames, names_capacity;

static FILE *story;
static char *story_told;
static size_t story_size;
static unsigned group; /* whose lines come now */

bool explore_brief;

/* ---- words ---- */

static const struct explore_words *words(void)
{
	return engine.program ? engine.program->words : NULL;
}

static bool brief(void)
{
	return explore_brief && words();
}

static char *buffer(void)
{
	static char buffers[BUFFERS][BUFFER_SIZE];
	static unsigned next;

	return buffers[next++ % BUFFERS];
}

static const char *thread_name(unsigned i)
{
	return i < engine.nthreads && engine.program->threads[i].name ? engine.program->threads[i].name : "";
}

const char *story_actor(unsigned i)
{
	char *b = buffer();

	if (i >= engine.nthreads)
		return "the program itself";
	snprintf(b, BUFFER_SIZE, "T%u %s", i + 1, thread_name(i));
	return b;
}

const char *story_value(uint64_t value)
{
	char *b = buffer();

	snprintf(b, BUFFER_SIZE, value < 1000 ? "%llu" : "%#llx", (unsigned long long)value);
	return b;
}

/* The smallest range with a name around p. */
static const struct name *name_find(const void *p)
{
	const struct name *best = NULL;

	for (size_t i = 0; i < nnames; i++)
		if ((uintptr_t)p - (uintptr_t)names[i].p < names[i].size && (!best || names[i].size <= best->size))
			best = &names[i];
	return best;
}

const char *story_object(const void *p)
{
	uintptr_t at = (uintptr_t)p, data = (uintptr_t)engine.data;
	const struct name *name = name_find(p);
	char *b = buffer();

	if (p && words() && words()->object(engine.data, p, "", b, BUFFER_SIZE) != EXPLORE_UNKNOWN)
		return b;
	if (name && name->p == p)
		snprintf(b, BUFFER_SIZE, "%s", name->text);
	else if (name)
		snprintf(b, BUFFER_SIZE, "%s+%zu", name->text, (size_t)(at - (uintptr_t)name->p));
	else if (data && at - data < engine.program->data_size)
		snprintf(b, BUFFER_SIZE, "data+%zu", (size_t)(at - data));
	else if (at - HEAP_BASE < HEAP_SIZE)
		snprintf(b, BUFFER_SIZE, "heap+%#llx", (unsigned long long)(at - HEAP_BASE));
	else if (at - STACKS_BASE < ACTORS * STACK_STRIDE)
		snprintf(b, BUFFER_SIZE, "stack of %s", story_actor((unsigned)((at - STACKS_BASE) / STACK_STRIDE)));
	else if (at - SCRATCH_BASE < SCRATCH_SIZE)
		snprintf(b, BUFFER_SIZE, "scratch+%#llx", (unsigned long long)(at - SCRATCH_BASE));
	else
		snprintf(b, BUFFER_SIZE, "%s", p ? "memory outside of the region" : "NULL");
	return b;
}

const char *story_word(const void *word, uint64_t value)
{
	char *b = buffer();

	return words() && words()->value(engine.data, word, value, b, BUFFER_SIZE) ? b : story_value(value);
}

const char *story_lock(const struct explore_mutex *m)
{
	char *b = buffer();

	if (words() && words()->object(engine.data, m, "", b, BUFFER_SIZE) != EXPLORE_UNKNOWN)
		return b;

	snprintf(b, BUFFER_SIZE, "%s of %.150s", m->magic == MUTEX_MAGIC && m->class < LOCK_CLASS_COUNT ?
		lock_class_info(m->class)->name : "?", story_object(m));
	return b;
}

const char *story_held(const struct held *held)
{
	return held->mutex ? story_lock(held->mutex) : lock_class_info(held->class)->name;
}

const char *story_place(const struct explore_site *site)
{
	static const char *const roots[] = {"src/", "tests/explore/", "tests/"};
	char *b = buffer();
	const char *file, *found = NULL;

	if (!site || !site->file)
		return "?";
	file = site->file;
	for (size_t i = 0; i < sizeof(roots) / sizeof(roots[0]) && !found; i++) {
		found = strstr(file, roots[i]);
		if (found)
			file = found + strlen(roots[i]);
	}
	snprintf(b, BUFFER_SIZE, "%s:%u", file, site->line);
	return b;
}

/* ---- names ---- */

void explore_name_it(const void *p, size_t size, const char *format, ...)
{
	struct name name = {p, size, NULL};
	va_list ap;

	va_start(ap, format);
	if (vasprintf(&name.text, format, ap) < 0)
		name.text = NULL;
	va_end(ap);
	if (nnames == names_capacity) {
		names_capacity = names_capacity ? 2 * names_capacity : 64;
		names = realloc(names, names_capacity * sizeof(*names));
	}
	if (!names || !name.text) {
		perror("explore");
		exit(2);
	}
	names[nnames++] = name;
}

void story_names_forget(const void *p, size_t size)
{
	size_t kept = 0;

	for (size_t i = 0; i < nnames; i++) {
		if ((uintptr_t)names[i].p - (uintptr_t)p < size)
			free(names[i].text);
		else
			names[kept++] = names[i];
	}
	nnames = kept;
}

void story_names_reset(void)
{
	for (size_t i = 0; i < nnames; i++)
		free(names[i].text);
	nnames = 0;
}

/* ---- lines ---- */

void story_begin(void)
{
	story = open_memstream(&story_told, &story_size);
	if (!story) {
		perror("explore");
		exit(2);
	}
	group = ACTORS;
	explore_telling = true;
}

char *story_end(void)
{
	explore_telling = false;
	fclose(story);
	story = NULL;
	story_names_reset();
	return story_told;
}

/* The first line of a group names the thread. */
static void line(const char *number, unsigned i, const struct explore_site *site, const char *text)
{
	bool first = i != group;
	char who[32] = "";

	if (first) {
		if (group != ACTORS)
			fputc('\n', story);
		snprintf(who, sizeof(who), "%s", i < engine.nthreads ? story_actor(i) : brief() ? "at the end" : "setup, check");
		group = i;
	}
	if (brief()) {
		if (first)
			fprintf(story, "%s\n", who);
		fprintf(story, "%5s  %-22s  %s\n", number, site ? site->function : "", text);
	} else if (site) {
		fprintf(story, "%5s  %-14s %-66s  %s\n", number, who, text, story_place(site));
	} else {
		fprintf(story, "%5s  %-14s %s\n", number, who, text);
	}
}

/* Notes come from the code between two steps, or from setup() and check(). */
void explore_note_it(const char *format, ...)
{
	char text[512] = "| ", better[512] = "| ";
	va_list ap;

	va_start(ap, format);
	vsnprintf(text + 2, sizeof(text) - 2, format, ap);
	va_end(ap);
	/* What setup() does, the program's text says. */
	if (brief() && engine.alone && !engine.step)
		return;
	if (words() && words()->note(text + 2, better + 2, sizeof(better) - 2))
		line("", engine.alone ? ALONE : engine.self, NULL, better);
	else if (!brief())
		line("", engine.alone ? ALONE : engine.self, NULL, text);
}

void story_aside(unsigned i, const char *format, ...)
{
	char text[512];
	va_list ap;
	int n;

	n = snprintf(text, sizeof(text), i == group ? "(" : "(%s: ", story_actor(i));
	va_start(ap, format);
	vsnprintf(text + n, sizeof(text) - (size_t)n, format, ap);
	va_end(ap);
	if (strlen(text) + 1 < sizeof(text))
		strcat(text, ")");
	line("", group == ACTORS ? i : group, NULL, text);
}

void story_step(struct action action)
{
	unsigned before = WORLD->current;

	if (before < engine.nthreads && before != action.thread && engine.ready >> before & 1)
		story_aside(before, "is interrupted here");
}

static const char *reach(struct action action)
{
	return action.kind != ACT_HOLD ? "" : brief() ? "; held back: others don't see it yet" :
							"; stays in the buffer";
}

/* What the word is when the operation has been done. */
static uint64_t word_after(const struct op *op, uint64_t before)
{
	uint64_t mask = op->code & EXPLORE_WIDE ? UINT64_MAX : UINT32_MAX;

	switch (op_kind(op)) {
	case EXPLORE_READ:
	case EXPLORE_READ_ACQUIRE:
		return before;
	case EXPLORE_ADD:
		return (before + op->a) & mask;
	case EXPLORE_OR:
		return before | op->a;
	case EXPLORE_AND:
		return before & op->a;
	case EXPLORE_CAS:
		return before == op->a ? op->b : before;
	default:
		return op->a;
	}
}

/* Whether a short story has a line about it. */
static bool matters(struct action action, const struct op *op, uint64_t before)
{
	unsigned kind = op_kind(op);
	const char *function = op->site ? op->site->function : "";
	enum explore_interest interest = EXPLORE_DETAIL;
	char name[BUFFER_SIZE];

	if (action.kind == ACT_HOLD)
		return true;
	switch (kind) {
	case EXPLORE_POINT:
		return true;
	case EXPLORE_CHOOSE:
	case EXPLORE_ALLOC:
		return action.variant != 0;
	case EXPLORE_COND_WAIT:
	case EXPLORE_WAIT:
		return actor(action.thread)->state != ACTOR_READY;
	case EXPLORE_MB:
		return words()->object(engine.data, NULL, function, name, sizeof(name)) > EXPLORE_DETAIL;
	case EXPLORE_LOCK:
	case EXPLORE_TRYLOCK:
	case EXPLORE_UNLOCK:
	case EXPLORE_COPY:
		return words()->object(engine.data, op->object, function, name, sizeof(name)) == EXPLORE_ALWAYS;
	default:
		if (kind >= EXPLORE_READ && kind <= EXPLORE_CAS)
			interest = words()->object(engine.data, op->object, function, name, sizeof(name));
		return interest == EXPLORE_ALWAYS || (interest == EXPLORE_CHANGES && word_after(op, before) != before);
	}
}

static void say_word(char *text, size_t size, struct action action, const struct op *op, uint64_t before)
{
	const char *word = story_object(op->object), *was = story_word(op->object, before), *a = story_value(op->a);
	uint64_t mask = op->code & EXPLORE_WIDE ? UINT64_MAX : UINT32_MAX, after = word_after(op, before);

	if (op_kind(op) <= EXPLORE_READ_ACQUIRE) {
		snprintf(text, size, "reads %s: %s", word, story_word(op->object, actor(action.thread)->result));
		return;
	}
	/* What was done to it says less than what it is then. */
	if (brief() && after != before) {
		snprintf(text, size, "%s: %s -> %s%s", word, was, story_word(op->object, after), reach(action));
		return;
	}
	if (brief() && op_kind(op) != EXPLORE_CAS) {
		snprintf(text, size, "%s: %s, as before%s", word, was, reach(action));
		return;
	}
	switch (op_kind(op)) {
	case EXPLORE_SET:
	case EXPLORE_SET_RELEASE:
		snprintf(text, size, "sets %s: %s -> %s%s", word, was, story_word(op->object, op->a), reach(action));
		break;
	case EXPLORE_ADD:
		if ((op->a & mask) > mask / 2)
			snprintf(text, size, "takes %s from %s: %s -> %s%s", story_value(-op->a & mask), word, was,
				story_value((before + op->a) & mask), reach(action));
		else
			snprintf(text, size, "adds %s to %s: %s -> %s%s", a, word, was,
				story_value((before + op->a) & mask), reach(action));
		break;
	case EXPLORE_OR:
		snprintf(text, size, "sets bits %s of %s: %s -> %s%s", a, word, was, story_value(before | op->a),
			reach(action));
		break;
	case EXPLORE_AND:
		snprintf(text, size, "clears bits %s of %s: %s -> %s%s", story_value(~op->a & mask), word, was,
			story_value(before & op->a), reach(action));
		break;
	case EXPLORE_EXCHANGE:
		snprintf(text, size, "exchanges %s: %s -> %s%s", word, was, a, reach(action));
		break;
	default:
		if (before == op->a)
			snprintf(text, size, "compares and swaps %s: %s -> %s%s", word, was, story_value(op->b),
				reach(action));
		else
			snprintf(text, size, "compares %s: it is %s, not %s", word, was, a);
	}
}

static void say_lock(char *text, size_t size, struct action action, const struct op *op)
{
	const struct explore_mutex *m = op->object;
	const struct actor *t = actor(action.thread);

	switch (op_kind(op)) {
	case EXPLORE_LOCK:
		snprintf(text, size, words() ? "takes %s" : "takes lock %s", story_lock(m));
		break;
	case EXPLORE_UNLOCK:
		snprintf(text, size, words() ? "drops %s" : "drops lock %s", story_lock(m));
		break;
	default:
		if (t->result)
			snprintf(text, size, "tries lock %s: takes it", story_lock(m));
		else
			snprintf(text, size, "tries lock %s: %s holds it", story_lock(m),
				m->owner ? story_actor(m->owner - 1u) : "nobody");
	}
}

static void say_sleep(char *text, size_t size, struct action action, const struct op *op, uint64_t before)
{
	const struct actor *t = actor(action.thread);

	switch (op_kind(op)) {
	case EXPLORE_COND_WAIT:
		snprintf(text, size, "drops lock %s and waits for %s", story_lock((void *)(uintptr_t)op->a),
			story_object(op->object));
		break;
	case EXPLORE_SIGNAL:
		snprintf(text, size, "signals %s", story_object(op->object));
		break;
	case EXPLORE_BROADCAST:
		snprintf(text, size, "signals %s to all", story_object(op->object));
		break;
	case EXPLORE_WAIT:
		if (t->state == ACTOR_ASLEEP)
			snprintf(text, size, "sleeps at %s, which is %s", story_object(op->object), story_value(before));
		else
			snprintf(text, size, "does not sleep at %s: it is %s, not %s", story_object(op->object),
				story_value(before), story_value(op->a));
		break;
	default:
		snprintf(text, size, "wakes %s at %s: %llu", op->a >= UINT32_MAX >> 1 ? "all" : story_value(op->a),
			story_object(op->object), (unsigned long long)t->result);
	}
}

static void say_other(char *text, size_t size, struct action action, const struct op *op)
{
	switch (op_kind(op)) {
	case EXPLORE_MB:
		snprintf(text, size, "full barrier");
		break;
	case EXPLORE_RELAX:
		snprintf(text, size, "looks again");
		break;
	case EXPLORE_COPY:
		if (brief())
			snprintf(text, size, "copies %s: %llu", story_object(op->object),
				(unsigned long long)actor(action.thread)->result);
		else
			snprintf(text, size, "copies 8 bytes of %s: %#llx", story_object(op->object),
				(unsigned long long)actor(action.thread)->result);
		break;
	case EXPLORE_POINT:
		snprintf(text, size, "%s", (const char *)op->object);
		break;
	case EXPLORE_CHOOSE:
		snprintf(text, size, "chooses %u of %llu: %s", action.variant, (unsigned long long)op->a,
			(const char *)op->object);
		break;
	case EXPLORE_ALLOC:
		snprintf(text, size, action.variant ? "an allocation fails" : "an allocation succeeds");
		break;
	default:
		snprintf(text, size, "goes on");
	}
}

void story_done(struct action action, const struct op *op, uint64_t before)
{
	char text[512], number[24];
	unsigned kind = op_kind(op);

	if (brief() && !matters(action, op, before))
		return;
	if (kind >= EXPLORE_READ && kind <= EXPLORE_CAS)
		say_word(text, sizeof(text), action, op, before);
	else if (kind >= EXPLORE_LOCK && kind <= EXPLORE_UNLOCK)
		say_lock(text, sizeof(text), action, op);
	else if ((kind >= EXPLORE_COND_WAIT && kind <= EXPLORE_BROADCAST) || kind == EXPLORE_WAIT || kind == EXPLORE_WAKE)
		say_sleep(text, sizeof(text), action, op, before);
	else
		say_other(text, sizeof(text), action, op);
	snprintf(number, sizeof(number), "%llu", (unsigned long long)engine.step);
	line(number, action.thread, op->site, text);
}

/* ---- who waits for what ---- */

static void say_waiting(FILE *f, unsigned i)
{
	const struct actor *t = actor(i);
	const struct explore_mutex *m = t->op.object;

	fprintf(f, "\n    %s ", story_actor(i));
	if (t->state == ACTOR_ASLEEP)
		fprintf(f, "sleeps at %s", story_object(t->op.object));
	else if (t->state == ACTOR_WAITING)
		fprintf(f, "waits for %s, with lock %s", story_object(t->op.object),
			story_lock((void *)(uintptr_t)t->op.a));
	else if (op_kind(&t->op) == EXPLORE_RELAX)
		fprintf(f, "looks again and again, but nobody changes anything");
	else
		fprintf(f, "waits for lock %s, which %s holds", story_lock(m), story_actor(m->owner - 1u));
	fprintf(f, "; at %s", story_place(t->op.site));
	for (unsigned n = 0; n < t->nheld; n++)
		fprintf(f, "\n        and holds lock %s, taken at %s", story_held(&t->held[n]), story_place(t->held[n].site));
}

char *story_deadlock(void)
{
	char *text = NULL;
	size_t size;
	FILE *f = open_memstream(&text, &size);

	if (!f)
		return NULL;
	for (unsigned i = 0; i < engine.nthreads; i++)
		if (actor(i)->state != ACTOR_ENDED)
			say_waiting(f, i);
	fclose(f);
	return text;
}
