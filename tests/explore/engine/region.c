/* SPDX-License-Identifier: MIT */
/*
 * The region: everything that a run changes, at a constant address. The heap hands out memory in an order that depends
 * on nothing but the order of calls: blocks of a size class are taken from the class's list of free ones, the last
 * freed first, else from the end of what is used. Between two blocks lies a header, freed memory is filled, and
 * both are looked at again; a map of what is allocated says whether a word that is used still is. All of it can be
 * copied, and put back.
 */
#include "internal.h"

#include <sys/mman.h>

#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif

#if defined(__clang__) || defined(__GNUC__)
#define NO_ASAN __attribute__((no_sanitize_address))
#endif

#define GRANULE 16u
#define FREED 0xddu
#define FREED_WORD 0xddddddddddddddddull
#define CLASSES 128u

enum { BLOCK_ALLOCATED = 0x616c, BLOCK_FREE = 0x6672 };

struct block {
	uint32_t size; /* that was asked for */
	uint32_t next; /* free: offset of the next one in the heap; 0: none */
	uint32_t room;
	uint16_t class, state;
};
_Static_assert(sizeof(struct block) == GRANULE, "headers keep the alignment");

/* At HEAP_BASE. */
struct heap {
	uint32_t used; /* bytes from HEAP_BASE */
	uint32_t blocks;
	uint32_t free[CLASSES];
};
#define HEAP ((struct heap *)(uintptr_t)HEAP_BASE)

/* A bit per granule that is allocated. It follows from the heap, so it is no part of the state. */
static uint8_t granules[HEAP_SIZE / GRANULE / 8];

/* ---- counters that are no part of the state ---- */

#define COUNTS_MAX 4096u
#define COUNT_SLOTS (4 * COUNTS_MAX)

/* Which words are counted is learned during a search, and kept; the values are the run's. */
static const void *count_words[COUNTS_MAX];
static uint64_t count_values[COUNTS_MAX];
static unsigned ncounts;
static uint16_t count_slots[COUNT_SLOTS]; /* index into these + 1 */

static unsigned count_slot(const void *word)
{
	unsigned i = (unsigned)(((uintptr_t)word >> 2) * 0x9e3779b1u >> 7) % COUNT_SLOTS;

	while (count_slots[i] && count_words[count_slots[i] - 1] != word)
		i = (i + 1) % COUNT_SLOTS;
	return i;
}

void explore_count(void *word, unsigned wide, uint64_t n)
{
	unsigned slot;

	if (!engine.running) {
		if (wide)
			*(uint64_t *)word += n;
		else
			*(uint32_t *)word += (uint32_t)n;
		return;
	}
	slot = count_slot(word);
	if (!count_slots[slot]) {
		if (ncounts == COUNTS_MAX)
			run_fail(EXPLORE_MISUSE, NULL, "more than %u counters", COUNTS_MAX);
		count_words[ncounts] = word;
		count_slots[slot] = (uint16_t)++ncounts;
	}
	count_values[count_slots[slot] - 1] += n;
}

uint64_t region_counted(const void *word, unsigned size)
{
	unsigned slot;

	if (likely(!ncounts))
		return 0;
	slot = count_slot(word);
	if (!count_slots[slot])
		return 0;
	return size == 8 ? count_values[count_slots[slot] - 1] : (uint32_t)count_values[count_slots[slot] - 1];
}

static void counts_forget(const void *p, size_t size)
{
	for (unsigned i = 0; i < ncounts; i++)
		if ((uintptr_t)count_words[i] - (uintptr_t)p < size)
			count_values[i] = 0;
}

/* ---- the map of what is allocated ---- */

static size_t granule_of(const void *p)
{
	return ((uintptr_t)p - HEAP_BASE) / GRANULE;
}

static void granules_mark(const void *p, size_t size, bool allocated)
{
	size_t i = granule_of(p), end = i + (size + GRANULE - 1) / GRANULE;

	for (; i < end && i % 8; i++)
		granules[i / 8] = (uint8_t)(allocated ? granules[i / 8] | 1u << i % 8 : granules[i / 8] & ~(1u << i % 8));
	if (i + 8 <= end) {
		memset(granules + i / 8, allocated ? 0xff : 0, (end - i) / 8);
		i += (end - i) / 8 * 8;
	}
	for (; i < end; i++)
		granules[i / 8] = (uint8_t)(allocated ? granules[i / 8] | 1u << i % 8 : granules[i / 8] & ~(1u << i % 8));
}

bool region_holds(const void *p, size_t size)
{
	uintptr_t at = (uintptr_t)p;

	if (likely(at - HEAP_BASE < HEAP_SIZE)) {
		size_t first = granule_of(p), last = (at + size - 1 - HEAP_BASE) / GRANULE;

		return last < sizeof(granules) * 8 && granules[first / 8] >> first % 8 & 1 && granules[last / 8] >> last % 8 & 1;
	}
	if (at - SCRATCH_BASE < engine.scratch_used)
		return true;
	if (at - STACKS_BASE >= ACTORS * STACK_STRIDE)
		return false;
	return (at - STACKS_BASE) % STACK_STRIDE >= STACK_STRIDE - STACK_SIZE;
}

/* ---- the allocator ---- */

/* Multiples of the granule up to 1 KiB, from there four classes for each doubling. */
static unsigned size_class(size_t size, size_t *ret_room)
{
	size_t room = (size + GRANULE - 1) / GRANULE * GRANULE;
	unsigned class = (unsigned)(room / GRANULE);

	if (room > 1024) {
		unsigned shift = 63 - (unsigned)__builtin_clzll(room - 1) - 2; /* a quarter of the power of two below */

		room = (((room - 1) >> shift) + 1) << shift;
		class = 64 + (shift - 8) * 4 + (unsigned)((room - 1) >> shift) - 3;
	}
	*ret_room = room;
	return class;
}

static struct block *block_at(uint32_t offset)
{
	return (struct block *)(uintptr_t)(HEAP_BASE + offset);
}

/* The first free block of the class that lies right. */
NO_ASAN static struct block *block_reuse(unsigned class, size_t align)
{
	uint32_t *link = &HEAP->free[class];

	for (; *link; link = &block_at(*link)->next) {
		struct block *block = block_at(*link);

		if (!(((uintptr_t)block + GRANULE) & (align - 1))) {
			*link = block->next;
			return block;
		}
	}
	return NULL;
}

NO_ASAN static struct block *block_new(unsigned class, size_t room, size_t align)
{
	uintptr_t data = (HEAP_BASE + HEAP->used + GRANULE + align - 1) & ~(align - 1);
	struct block *block = (struct block *)(data - GRANULE);

	if (data + room > HEAP_BASE + HEAP_SIZE)
		return NULL;
	block->class = (uint16_t)class;
	block->room = (uint32_t)room;
	HEAP->used = (uint32_t)(data + room - HEAP_BASE);
	return block;
}

NO_ASAN static bool block_untouched(const struct block *block)
{
	const uint64_t *data = (const uint64_t *)(block + 1);

	for (size_t i = 0; i < block->room / 8; i++)
		if (data[i] != FREED_WORD)
			return false;
	return true;
}

NO_ASAN static void *allocate(size_t size, size_t align)
{
	size_t room;
	unsigned class;
	struct block *block;

	if (size > HEAP_SIZE / 2 || align > HEAP_SIZE / 2)
		return NULL;
	class = size_class(size ? size : 1, &room);
	block = block_reuse(class, align);
	if (block && !block_untouched(block))
		run_fail(EXPLORE_MISUSE, NULL, "freed memory was written to: %s", story_object(block + 1));
	if (!block)
		block = block_new(class, room, align);
	if (!block)
		return NULL;
	block->size = (uint32_t)size;
	block->state = BLOCK_ALLOCATED;
	block->next = 0;
	HEAP->blocks++;
	granules_mark(block + 1, size ? size : 1, true);
	ASAN_UNPOISON_MEMORY_REGION(block + 1, room);
	memset(block + 1, 0, room);
	if (size < room)
		ASAN_POISON_MEMORY_REGION((char *)(block + 1) + size, room - size);
	return block + 1;
}

static bool failure_injected(void)
{
	if (engine.allocs_until_failure && !--engine.allocs_until_failure)
		return true;
	if (engine.alone || !WORLD->alloc_failures)
		return false;
	return explore_op(EXPLORE_ALLOC, NULL, 2, 0, NULL);
}

void *explore_alloc_aligned(size_t size, size_t align)
{
	if (failure_injected()) {
		if (explore_telling)
			story_aside(engine.self, "an allocation of %zu bytes fails", size);
		return NULL;
	}
	return allocate(size, align < GRANULE ? GRANULE : align);
}

void *explore_alloc(size_t size)
{
	return explore_alloc_aligned(size, GRANULE);
}

void explore_alloc_fail_at(unsigned n)
{
	engine.allocs_until_failure = n;
}

unsigned explore_blocks(void)
{
	return HEAP->blocks - (engine.program->data_size ? 1 : 0);
}

NO_ASAN void explore_free(void *p)
{
	struct block *block;

	if (!p)
		return;
	block = (struct block *)p - 1;
	if ((uintptr_t)p - HEAP_BASE >= HEAP_SIZE || (uintptr_t)p % GRANULE || !region_holds(p, 1) ||
		block->state != BLOCK_ALLOCATED)
		run_fail(EXPLORE_MISUSE, NULL, "what is freed is no allocated block: %s", story_object(p));
	/* Somebody wrote there; a lock or a barrier has to come between in any real program, or this is the bug. */
	op_drain_range(p, block->size);
	counts_forget(p, block->size);
	story_names_forget(p, block->size);
	granules_mark(p, block->size ? block->size : 1, false);
	ASAN_UNPOISON_MEMORY_REGION(p, block->room);
	memset(p, FREED, block->room);
	ASAN_POISON_MEMORY_REGION(p, block->room);
	block->state = BLOCK_FREE;
	block->next = HEAP->free[block->class];
	HEAP->free[block->class] = (uint32_t)((uintptr_t)block - HEAP_BASE);
	HEAP->blocks--;
}

NO_ASAN void region_heap_check(void)
{
	for (unsigned class = 0; class < CLASSES; class++)
		for (uint32_t at = HEAP->free[class]; at; at = block_at(at)->next)
			if (!block_untouched(block_at(at))) {
				run_fail(EXPLORE_MISUSE, NULL, "freed memory was written to: %s", story_object(block_at(at) + 1));
				return;
			}
}

size_t region_heap_used(void)
{
	return HEAP->used;
}

void *explore_scratch(size_t size)
{
	void *p = (void *)(uintptr_t)(SCRATCH_BASE + engine.scratch_used);

	size = (size + GRANULE - 1) / GRANULE * GRANULE;
	if (size > SCRATCH_SIZE - engine.scratch_used)
		run_fail(EXPLORE_MISUSE, NULL, "no scratch memory is left");
	engine.scratch_used += size;
	return p;
}

/* ---- the region ---- */

static void map_part(uint64_t address, size_t size)
{
	if (mprotect((void *)(uintptr_t)address, size, PROT_READ | PROT_WRITE)) {
		perror("explore: memory for the region");
		exit(2);
	}
}

void region_map(void)
{
	static bool mapped;
	void *want = (void *)(uintptr_t)REGION_BASE, *p;

	if (mapped)
		return;
	p = mmap(want, REGION_SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
	if (p != want) {
		fprintf(stderr, "explore: the address %p is taken; the explorer needs %llu MiB there\n", want,
			(unsigned long long)REGION_SIZE >> 20);
		exit(2);
	}
	mapped = true;
	map_part(REGION_BASE, (sizeof(struct world) + 4095) & ~4095ull);
	map_part(HEAP_BASE, HEAP_SIZE);
	map_part(SCRATCH_BASE, SCRATCH_SIZE);
	for (unsigned i = 0; i < ACTORS; i++) {
		map_part(stack_bottom(i), STACK_SIZE);
		engine.stack_low[i] = stack_top(i);
	}
	ASAN_POISON_MEMORY_REGION((void *)(uintptr_t)(HEAP_BASE + sizeof(struct heap)), HEAP_SIZE - sizeof(struct heap));
}

/*
 * How far the stack was used is not known, only where switches found its pointer. What lies within a page below the
 * lowest byte that is not zero was not touched, nearly always; if it was, old bytes remain where a later run may leave
 * them unwritten: its states differ from the same ones of other runs, which costs time and loses nothing.
 */
static void stack_reset(unsigned i)
{
	uintptr_t low = engine.stack_low[i] & ~63ull, at = low, bottom = stack_bottom(i);

	if (engine.stack_low[i] == stack_top(i))
		return;
	ASAN_UNPOISON_MEMORY_REGION((void *)bottom, STACK_SIZE);
	VALGRIND_MAKE_MEM_DEFINED((void *)bottom, STACK_SIZE); /* what was popped is nobody's there */
	while (at > bottom && low - at < 4096) {
		const uint64_t *words = (const uint64_t *)(at -= 64);

		if (words[0] | words[1] | words[2] | words[3] | words[4] | words[5] | words[6] | words[7])
			low = at;
	}
	memset((void *)low, 0, stack_top(i) - low);
	engine.stack_low[i] = stack_top(i);
}

/* Zeroes what the last run used, but for the first `keep` bytes of the heap, which are overwritten. */
static void reset(size_t keep)
{
	size_t used = region_heap_used();

	for (unsigned i = 0; i < ACTORS; i++)
		stack_reset(i);
	memset((void *)(uintptr_t)SCRATCH_BASE, 0, engine.scratch_used);
	engine.scratch_used = 0;
	ASAN_UNPOISON_MEMORY_REGION(HEAP, used);
	if (used > keep) {
		memset((char *)HEAP + keep, 0, used - keep);
		memset(granules + keep / GRANULE / 8, 0, (used - keep) / GRANULE / 8 + 2);
	}
	memset(count_values, 0, ncounts * sizeof(count_values[0]));
}

void region_reset(void)
{
	size_t used = region_heap_used();

	reset(0);
	memset(WORLD, 0, sizeof(struct world));
	ASAN_POISON_MEMORY_REGION(HEAP + 1, used > sizeof(struct heap) ? used - sizeof(struct heap) : 0);
	HEAP->used = (uint32_t)((sizeof(struct heap) + GRANULE - 1) / GRANULE * GRANULE);
}

void region_forget(void)
{
	memset(count_slots, 0, sizeof(count_slots));
	memset(count_values, 0, sizeof(count_values));
	ncounts = 0;
}

/* ---- copies ---- */

#define PARTS_MAX (ACTORS + 4)
struct part {
	void *p;
	size_t size;
};

/* What there is to copy, for a region whose sizes are these. */
static size_t parts(const struct region_sizes *sizes, struct part ret[PARTS_MAX])
{
	size_t n = 0;

	ret[n++] = (struct part){HEAP, sizes->heap};
	ret[n++] = (struct part){granules, sizes->heap / GRANULE / 8 + 1};
	ret[n++] = (struct part){(void *)(uintptr_t)SCRATCH_BASE, sizes->scratch};
	ret[n++] = (struct part){count_values, sizes->counts * sizeof(count_values[0])};
	for (unsigned i = 0; i < ACTORS; i++)
		ret[n++] = (struct part){(void *)(stack_top(i) - sizes->stacks[i]), sizes->stacks[i]};
	return n;
}

size_t region_measure(struct region_sizes *ret)
{
	struct part part[PARTS_MAX];
	size_t n, total = 0;

	*ret = (struct region_sizes){.heap = region_heap_used(), .scratch = engine.scratch_used, .counts = ncounts};
	for (unsigned i = 0; i < ACTORS; i++)
		ret->stacks[i] = actor(i)->sp ? stack_top(i) - (uintptr_t)actor(i)->sp : 0;
	n = parts(ret, part);
	while (n--)
		total += part[n].size;
	return total;
}

void region_save(const struct region_sizes *sizes, void *to)
{
	struct part part[PARTS_MAX];
	size_t n = parts(sizes, part);
	char *at = to;

	for (size_t i = 0; i < n; i++) {
		memcpy(at, part[i].p, part[i].size);
		at += part[i].size;
	}
}

void region_load(const struct region_sizes *sizes, const void *from)
{
	struct part part[PARTS_MAX];
	const char *at = from;
	size_t n;

	reset(sizes->heap);
	n = parts(sizes, part);
	for (size_t i = 0; i < n; i++) {
		memcpy(part[i].p, at, part[i].size);
		at += part[i].size;
	}
	engine.scratch_used = sizes->scratch;
	for (unsigned i = 0; i < ACTORS; i++)
		engine.stack_low[i] = stack_top(i) - sizes->stacks[i];
}
