/* SPDX-License-Identifier: MIT */
/* What things in the world are called in stories, and which of them are worth a line in a short one. */
#include "model/scenarios.h"

#include <inttypes.h>

#include "cache/internal.h"
#undef counter_inc /* that of mm is another one */
#include "mm/internal.h"

struct bit {
	uint64_t bit;
	const char *name;
};

static bool inside(const void *p, const void *from, size_t size)
{
	return (uintptr_t)p - (uintptr_t)from < size;
}

/* "uptodate, dirty", or what `none` says. */
static void say_bits(const struct bit *bits, unsigned count, uint64_t value, const char *none, char *buf, size_t size)
{
	size_t at = 0;

	snprintf(buf, size, "%s", none);
	for (unsigned i = 0; i < count; i++)
		if (value & bits[i].bit && at < size)
			at += (size_t)snprintf(buf + at, size - at, "%s%s", at ? ", " : "", bits[i].name);
}

static const char *whose(const struct world *w, unsigned space)
{
	return !w->mm[1] ? "" : space ? "the child's " : "the parent's ";
}

/* ---- descriptors and page memory ---- */

static const char *holds(const struct folio *f, char *buf, size_t size)
{
	uint32_t flags = f->flags.v;

	if (flags & FOLIO_PRIVATE)
		return "private";
	if (flags & FOLIO_DETACHED)
		return "no longer in the file";
	snprintf(buf, size, "page %" PRIu64 " of the file", f->unit);
	return buf;
}

static uint32_t frame_of(const struct arena *a, const void *p)
{
	return (uint32_t)(((uintptr_t)p - (uintptr_t)a->frames) / sizeof(*a->frames));
}

static bool one_of(const char *const *names, const char *name)
{
	for (; *names; names++)
		if (!strcmp(*names, name))
			return true;
	return false;
}

static enum explore_interest frame_object(const struct world *w, const void *p, char *buf, size_t size)
{
	const struct arena *a = &w->cache->arena;
	uint32_t frame = frame_of(a, p);
	const struct folio *f = &a->frames[frame];
	const struct scenario *s = explore_param();
	char what[64];

	if (p == &f->pins) {
		snprintf(buf, size, "the pins of frame %u (%s)", frame, holds(f, what, sizeof(what)));
		return EXPLORE_ALWAYS;
	}
	if (p == &f->state) {
		snprintf(buf, size, "frame %u (%s)", frame, holds(f, what, sizeof(what)));
		return EXPLORE_CHANGES;
	}
	snprintf(buf, size, "the %s of frame %u (%s)", p == &f->refs ? "reference count" : p == &f->flags ? "flags" : "descriptor",
		frame, holds(f, what, sizeof(what)));
	return p == &f->refs && s->counts && f->flags.v & FOLIO_PRIVATE ? EXPLORE_ALWAYS : EXPLORE_DETAIL;
}

static enum explore_interest cache_object(const struct world *w, const void *p, char *buf, size_t size)
{
	const struct arena *a = &w->cache->arena;
	size_t at = (size_t)((const uint8_t *)p - a->memory);

	if (inside(p, a->frames, a->capacity * sizeof(*a->frames)))
		return frame_object(w, p, buf, size);
	if (inside(p, a->memory, (size_t)a->capacity << CACHE_PAGE_SHIFT)) {
		snprintf(buf, size, "word %zu of frame %zu", at % CACHE_PAGE_SIZE / 8, at >> CACHE_PAGE_SHIFT);
		return EXPLORE_ALWAYS;
	}
	return EXPLORE_UNKNOWN;
}

/* ---- address spaces ---- */

static struct table *below(const struct table *t, unsigned i)
{
	return (struct table *)(uintptr_t)t->entries[i].v;
}

/* Where an entry is read to decide something; elsewhere it is read on the way to changing it. */
static const char *const entry_readers[] = {"mm_pin_fast", "pin_locked", "fault_once", "install_file", "install_private",
	"xip_fault", "fork_entry", NULL};

static enum explore_interest table_object(const struct table *t, unsigned level, uint64_t addr, const char *who,
	const void *p, const char *function, char *buf, size_t size)
{
	uint64_t step = (uint64_t)CACHE_PAGE_SIZE << level * MM_TABLE_SHIFT;

	if (inside(p, t, sizeof(*t))) {
		uint64_t entry = (uint64_t)((const struct a64 *)p - t->entries);

		if (p == &t->lock)
			snprintf(buf, size, "%spage table's lock", *who ? who : "the ");
		else
			snprintf(buf, size, level ? "%sentry to the page table of %#" PRIx64 : "%sPTE of %#" PRIx64,
				*who ? who : "the ", addr + entry * step);
		if (p == &t->lock || level)
			return EXPLORE_DETAIL;
		return one_of(entry_readers, function) ? EXPLORE_ALWAYS : EXPLORE_CHANGES;
	}
	for (unsigned i = 0; level && i < TABLE_FAN; i++) {
		enum explore_interest found = EXPLORE_UNKNOWN;

		if (below(t, i))
			found = table_object(below(t, i), level - 1, addr + i * step, who, p, function, buf, size);
		if (found)
			return found;
	}
	return EXPLORE_UNKNOWN;
}

static enum explore_interest range_word(const struct vma *v, const char *who, const void *p, const char *function, char *buf,
	size_t size)
{
	const struct scenario *s = explore_param();

	snprintf(buf, size, "the %s of %srange %#" PRIx64,
		p == &v->seq	      ? "sequence count" :
		p == &v->busy	      ? "busy mark" :
		p == &v->refs	      ? "reference count" :
		p == &v->installing ? "count of installs" :
					"descriptor",
		*who ? who : "the ", v->start);
	if (!s->ranges)
		return EXPLORE_DETAIL;
	if (p == &v->seq)
		return strcmp(function, "install_begin") ? EXPLORE_CHANGES : EXPLORE_ALWAYS;
	return p == &v->busy ? EXPLORE_CHANGES : EXPLORE_DETAIL;
}

/*
 * Ranges that were seen in an address space: faults still look at one that has been taken out. `start` says that it is
 * none of another story: freed memory is filled.
 */
static struct known_range {
	const struct vma *vma;
	uint64_t start;
} known[16];

static void range_learn(const struct vma *v)
{
	unsigned i = 0;

	while (i < ARRAY_SIZE(known) - 1 && known[i].vma && known[i].vma != v)
		i++;
	known[i] = (struct known_range){v, v->start};
}

static enum explore_interest range_object(const struct mm *mm, const struct vma *v, const char *who, const void *p,
	const char *function, char *buf, size_t size)
{
	enum explore_interest found;

	if (!v)
		return EXPLORE_UNKNOWN;
	range_learn(v);
	found = range_object(mm, v->left, who, p, function, buf, size);
	if (!found)
		found = range_object(mm, v->right, who, p, function, buf, size);
	return !found && inside(p, v, sizeof(*v)) ? range_word(v, who, p, function, buf, size) : found;
}

__attribute__((no_sanitize_address)) static enum explore_interest range_known(const struct mm *mm, const char *who,
	const void *p, const char *function, char *buf, size_t size)
{
	for (size_t i = 0; i < ARRAY_SIZE(known) && known[i].vma; i++)
		if (inside(p, known[i].vma, sizeof(*known[i].vma)) && known[i].vma->mm == mm && known[i].vma->start == known[i].start)
			return range_word(known[i].vma, who, p, function, buf, size);
	return EXPLORE_UNKNOWN;
}

/* soft.c: the options, then one word for each page. */
static const struct a64 *translations(const struct soft_mmu *mmu)
{
	return (const struct a64 *)((const uint8_t *)mmu + sizeof(struct soft_options));
}

static bool is_translation(const struct world *w, unsigned space, const void *p)
{
	return w->mmu[space] && inside(p, translations(w->mmu[space]), WINDOW_PAGES * sizeof(struct a64));
}

static enum explore_interest space_object(const struct world *w, unsigned space, const void *p, const char *function,
	char *buf, size_t size)
{
	const struct scenario *s = explore_param();
	const struct mm *mm = w->mm[space];
	const char *who = whose(w, space);
	enum explore_interest found;

	if (is_translation(w, space, p)) {
		snprintf(buf, size, "%sTLB entry of %#" PRIx64, *who ? who : "the ",
			WINDOW_AT + (uint64_t)((const struct a64 *)p - translations(w->mmu[space])) * CACHE_PAGE_SIZE);
		/* How many accesses go by it is told by their loads and stores. */
		return strncmp(function, "access_", 7) ? EXPLORE_CHANGES : EXPLORE_DETAIL;
	}
	if (!mm)
		return EXPLORE_UNKNOWN;
	if (p == &mm->lock) {
		snprintf(buf, size, "%smm lock", *who ? who : "the ");
		return s->locks ? EXPLORE_ALWAYS : EXPLORE_DETAIL;
	}
	found = range_object(mm, mm->ranges, who, p, function, buf, size);
	if (!found)
		found = table_object(mm->top, MM_LEVELS - 1, 0, who, p, function, buf, size);
	return found ? found : range_known(mm, who, p, function, buf, size);
}

/* ---- what the engine asks ---- */

static enum explore_interest name_object(void *data, const void *p, const char *function, char *buf, size_t size)
{
	/* Barriers between a change and a look at somebody else's word; the others wake sleepers. */
	static const char *const orders[] = {"frame_pin_fast", "fork_entry", "folio_begin", "evict", NULL};
	const struct scenario *s = explore_param();
	const struct world *w = data;
	enum explore_interest found = EXPLORE_UNKNOWN;

	if (!p)
		return one_of(orders, function) ? EXPLORE_ALWAYS : EXPLORE_DETAIL;
	/* While setup() and check() run, parts of the world are not there yet, or no longer. */
	if (!w || explore_self() < 0)
		return EXPLORE_UNKNOWN;
	if (p == &w->inode) {
		snprintf(buf, size, "the inode lock");
		return s->locks ? EXPLORE_ALWAYS : EXPLORE_DETAIL;
	}
	if (w->cache && w->cache->arena.frames)
		found = cache_object(w, p, buf, size);
	for (unsigned i = 0; i < SPACES && !found; i++)
		found = space_object(w, i, p, function, buf, size);
	if (!found && w->file && p == &w->file->size) {
		snprintf(buf, size, "the file's size");
		return EXPLORE_CHANGES;
	}
	return found;
}

static bool entry_value(uint64_t value, char *buf, size_t size)
{
	static const struct bit bits[] = {
		{PTE_PRIVATE, "private"}, {PTE_EXCLUSIVE, "exclusive"}, {PTE_WRITE, "writable"}};
	uint64_t number = pte_number(value & (((uint64_t)1 << 48) - 1));
	char more[64];

	if (!(value & PTE_PRESENT)) {
		snprintf(buf, size, "nothing");
		return true;
	}
	say_bits(bits, ARRAY_SIZE(bits), value, "read-only", more, sizeof(more));
	if (!(value & PTE_WRITE) && value & PTE_PRIVATE)
		strcat(more, ", read-only");
	snprintf(buf, size, value & PTE_XIP ? "page %" PRIu64 " in place, %s" : "frame %" PRIu64 ", %s", number, more);
	return true;
}

static bool name_value(void *data, const void *p, uint64_t value, char *buf, size_t size)
{
	static const struct bit states[] = {{PAGE_UPTODATE, "uptodate"}, {PAGE_DIRTY, "dirty"}, {PAGE_WRITEBACK, "in writeback"},
		{PAGE_BOUNCED, "from a bounce copy"}, {PAGE_WAITERS, "waited for"}};
	const struct world *w = explore_self() < 0 ? NULL : data;
	const struct arena *a = w && w->cache ? &w->cache->arena : NULL;
	char name[128];

	if (a && a->frames && inside(p, a->frames, a->capacity * sizeof(*a->frames))) {
		const struct folio *f = &a->frames[frame_of(a, p)];

		if (p == &f->state) {
			say_bits(states, ARRAY_SIZE(states), value, "empty", buf, size);
			if (value & PAGE_UPTODATE && !(value & PAGE_DIRTY) && strlen(buf) + 8 < size)
				strcat(buf, ", clean");
			return true;
		}
		if (p == &f->pins) {
			if (!value)
				snprintf(buf, size, "none");
			else if (!pins_writing(value))
				snprintf(buf, size, "%u for reading", pins_reading(value));
			else if (!pins_reading(value))
				snprintf(buf, size, "%u for writing", pins_writing(value));
			else
				snprintf(buf, size, "%u for reading, %u for writing", pins_reading(value), pins_writing(value));
			return true;
		}
		return false;
	}
	for (unsigned i = 0; w && i < SPACES; i++)
		if (is_translation(w, i, p) || (w->mm[i] &&
			table_object(w->mm[i]->top, MM_LEVELS - 1, 0, "", p, "", name, sizeof(name)) == EXPLORE_CHANGES))
			return entry_value(value, buf, size);
	return false;
}

/* The events of cache/trace.h; other notes are good as they are. */
static bool name_note(const char *note, char *buf, size_t size)
{
	static const char *const details[] = {"read_begin", "read_end", "mkwrite", "pin", "unpin", NULL};
	static const struct {
		const char *event, *text;
	} events[] = {
		{"mkclean", "page %ju of the file is write-protected wherever it is mapped"},
		{"writeback_begin", "writeback of page %ju begins"},
		{"writeback_end", "writeback of page %ju is over"},
		{"bounce", "page %ju is pinned: its bytes are copied, and the copy is written"},
		{"detach", "page %ju leaves the file"},
		{"park", "frame %ju has lost its last reference, but is pinned: its memory stays"},
		{"reclaim", "page %ju is reclaimed: its memory is free"},
		{"fork_copy", "the page at %#jx is pinned: the child gets a copy"},
	};
	uintmax_t a, b;
	char event[32];

	if (sscanf(note, "checksums %ju pages from %ju", &a, &b) == 2) {
		snprintf(buf, size, a == 1 ? "takes the checksum of page %ju" : "takes the checksums of pages %ju to %ju", b, b + a - 1);
		return true;
	}
	if (sscanf(note, "%31s %ju %ju", event, &a, &b) != 3) {
		snprintf(buf, size, "%s", note);
		return true;
	}
	if (one_of(details, event))
		return false;
	for (size_t i = 0; i < ARRAY_SIZE(events); i++) {
		if (!strcmp(event, events[i].event)) {
			snprintf(buf, size, events[i].text, a);
			return true;
		}
	}
	if (!strcmp(event, "fault_begin"))
		snprintf(buf, size, "a fault at %#jx, to %s", a, b ? "store" : "load");
	else if (!strcmp(event, "fault_end"))
		snprintf(buf, size, "the fault at %#jx ends: %s", a, fault_result_name((enum fault_result)b));
	else
		snprintf(buf, size, "%s", note);
	return true;
}

const struct explore_words scenario_words = {.object = name_object, .value = name_value, .note = name_note};
