/* SPDX-License-Identifier: MIT */
#include "cache/arena.h"

int arena_init(struct arena *a, size_t capacity, size_t limit)
{
	size_t frames, table;
	int r;

	capacity = align_up(capacity, (size_t)CACHE_PAGE_SIZE << CACHE_ORDER_MAX);
	frames = capacity >> CACHE_PAGE_SHIFT;
	if (frames >= FRAME_NONE)
		return -ENOMEM;
	*a = (struct arena){.capacity = (uint32_t)frames};
	/* The page memory begins as aligned as its largest folio, for those who map it. */
	table = align_up(frames * sizeof(struct folio), (size_t)CACHE_PAGE_SIZE << CACHE_ORDER_MAX);
	r = mem_region_new("pinfs cache", table + capacity, &a->region);
	if (r < 0)
		return r;
	a->frames = (void *)a->region.base;
	a->memory = a->region.base + table;
	a->split = (uint32_t)align_up(frames - ARENA_HIGH(frames), (size_t)1 << CACHE_ORDER_MAX);
	a->zones[1].grown = a->split;
	for (unsigned o = 0; o < ARENA_ORDERS; o++)
		for (unsigned z = 0; z < 2; z++)
			a->zones[z].heads[0][o] = a->zones[z].heads[1][o] = FRAME_NONE;
	mutex_init(&a->lock, LOCK_ARENA);
	a->limit = MIN((uint32_t)(limit >> CACHE_PAGE_SHIFT), a->capacity);
	return 0;
}

void arena_destroy(struct arena *a)
{
	if (!a->region.base)
		return;
	mem_region_free(&a->region);
	mutex_destroy(&a->lock);
}

void arena_raise_limit(struct arena *a, size_t limit)
{
	mutex_lock(&a->lock);
	a->limit = MIN(MAX(a->limit, (uint32_t)(limit >> CACHE_PAGE_SHIFT)), a->capacity);
	mutex_unlock(&a->lock);
}

static struct arena_zone *zone_of(struct arena *a, uint32_t frame)
{
	return &a->zones[frame >= a->split];
}

/* The end of what may be given out of each zone: what the limit leaves of its address space. */
static uint32_t zone_end_locked(const struct arena *a, unsigned zone)
{
	uint32_t high = MIN((uint32_t)ARENA_HIGH(a->limit), a->capacity - a->split);

	return zone ? a->split + high : MIN(a->limit - high, a->split);
}

/* `free` of a free chunk's first frame. */
enum { FREE_TOUCHED = 1, FREE_RETURNED };

static void list_push_locked(struct arena *a, uint32_t frame, unsigned order, bool returned)
{
	struct folio *f = &a->frames[frame];
	uint32_t *head = &zone_of(a, frame)->heads[returned][order];

	f->next = *head;
	f->prev = FRAME_NONE;
	f->order = (uint8_t)order;
	f->free = returned ? FREE_RETURNED : FREE_TOUCHED;
	if (f->next != FRAME_NONE)
		a->frames[f->next].prev = frame;
	*head = frame;
	if (returned)
		a->returned += 1u << order;
}

static void list_remove_locked(struct arena *a, uint32_t frame)
{
	struct folio *f = &a->frames[frame];
	bool returned = f->free == FREE_RETURNED;

	if (f->prev != FRAME_NONE)
		a->frames[f->prev].next = f->next;
	else
		zone_of(a, frame)->heads[returned][f->order] = f->next;
	if (f->next != FRAME_NONE)
		a->frames[f->next].prev = f->prev;
	f->free = 0;
	if (returned)
		a->returned -= 1u << f->order;
}

/* Puts one aligned chunk on its list, merged with its buddy as often as that is free too. What is touched in part counts as that. */
static void chunk_free_locked(struct arena *a, uint32_t frame, unsigned order, bool returned)
{
	while (order + 1 < ARENA_ORDERS) {
		uint32_t buddy = frame ^ (1u << order);

		/* Frames that never were in use have not `free` set. Zones end where the largest chunks do. */
		if (buddy >= a->capacity || !a->frames[buddy].free || a->frames[buddy].order != order)
			break;
		returned = returned && a->frames[buddy].free == FREE_RETURNED;
		list_remove_locked(a, buddy);
		frame &= ~(1u << order);
		order++;
	}
	list_push_locked(a, frame, order, returned);
}

/* The run in chunks as large as their alignment allows. */
static void range_free_locked(struct arena *a, uint32_t frame, uint32_t count, bool returned)
{
	while (count) {
		unsigned order = 0;

		while (order + 1 < ARENA_ORDERS && !(frame & ((2u << order) - 1)) && (2u << order) <= count)
			order++;
		chunk_free_locked(a, frame, order, returned);
		frame += 1u << order;
		count -= 1u << order;
	}
}

/* Fresh memory for at least one chunk of this order: the frames up to it go on the lists. */
static bool grow_locked(struct arena *a, unsigned zone, unsigned order)
{
	struct arena_zone *z = &a->zones[zone];
	uint32_t end = (uint32_t)align_up(z->grown, 1u << order) + (1u << order);

	if (end > zone_end_locked(a, zone))
		return false;
	range_free_locked(a, z->grown, end - z->grown, true);
	z->grown = end;
	return true;
}

static uint32_t take_locked(struct arena *a, unsigned zone, unsigned order, bool returned)
{
	for (unsigned o = order; o < ARENA_ORDERS; o++) {
		uint32_t frame = a->zones[zone].heads[returned][o];

		if (frame == FRAME_NONE)
			continue;
		list_remove_locked(a, frame);
		while (o > order) {
			o--;
			list_push_locked(a, frame + (1u << o), o, returned);
		}
		return frame;
	}
	return FRAME_NONE;
}

/* What nobody else can have comes first: the high zone. */
static uint32_t take_touched_locked(struct arena *a, bool high, unsigned order)
{
	uint32_t frame = FRAME_NONE;

	for (unsigned z = high; frame == FRAME_NONE && z <= high; z--)
		frame = take_locked(a, z, order, false);
	return frame;
}

static uint32_t take_fresh_locked(struct arena *a, bool high, unsigned order)
{
	uint32_t frame = FRAME_NONE;

	for (unsigned z = high; frame == FRAME_NONE && z <= high; z--) {
		frame = take_locked(a, z, order, true);
		if (frame == FRAME_NONE && grow_locked(a, z, order))
			frame = take_locked(a, z, order, true);
	}
	return frame;
}

static void chunk_return(struct arena *a, uint32_t frame, unsigned order)
{
	mem_region_return(&a->region, (size_t)(arena_address(a, frame) - a->region.base), (size_t)CACHE_PAGE_SIZE << order);
}

uint32_t arena_alloc(struct arena *a, uint32_t count, bool high, enum arena_source source)
{
	unsigned order = arena_order((size_t)count << CACHE_PAGE_SHIFT);
	bool fresh = source == ARENA_NUMBERS;
	uint32_t frame;

	assert(count && order < ARENA_ORDERS);
	mutex_lock(&a->lock);
	frame = fresh ? take_fresh_locked(a, high, order) : take_touched_locked(a, high, order);
	if (frame == FRAME_NONE && source != ARENA_USED_BEFORE) {
		fresh = !fresh;
		frame = fresh ? take_fresh_locked(a, high, order) : take_touched_locked(a, high, order);
	}
	if (frame != FRAME_NONE)
		a->used += count;
	if (frame != FRAME_NONE && source == ARENA_NUMBERS && !fresh) {
		mutex_unlock(&a->lock);
		chunk_return(a, frame, order);
		mutex_lock(&a->lock);
		fresh = true;
	}
	if (frame != FRAME_NONE)
		range_free_locked(a, frame + count, (1u << order) - count, fresh);
	mutex_unlock(&a->lock);
	return frame;
}

void arena_free(struct arena *a, uint32_t frame, uint32_t count, bool numbers)
{
	mutex_lock(&a->lock);
	assert(count <= a->used && frame < zone_of(a, frame)->grown && count <= zone_of(a, frame)->grown - frame);
	a->used -= count;
	range_free_locked(a, frame, count, numbers);
	mutex_unlock(&a->lock);
}

/* Takes the largest chunk that is free and touched; nobody else can have it meanwhile. */
static uint32_t touched_take(struct arena *a, unsigned *ret_order)
{
	uint32_t frame = FRAME_NONE;

	mutex_lock(&a->lock);
	for (unsigned i = 2 * ARENA_ORDERS; i-- && frame == FRAME_NONE;) {
		frame = a->zones[i % 2].heads[0][i / 2];
		*ret_order = i / 2;
	}
	if (frame != FRAME_NONE)
		list_remove_locked(a, frame);
	mutex_unlock(&a->lock);
	return frame;
}

uint32_t arena_return(struct arena *a)
{
	uint32_t frame, count = 0;
	unsigned order;

	while ((frame = touched_take(a, &order)) != FRAME_NONE) {
		chunk_return(a, frame, order);
		mutex_lock(&a->lock);
		chunk_free_locked(a, frame, order, true);
		mutex_unlock(&a->lock);
		count += 1u << order;
	}
	return count;
}

size_t arena_limit(struct arena *a)
{
	size_t n;

	mutex_lock(&a->lock);
	n = (size_t)a->limit << CACHE_PAGE_SHIFT;
	mutex_unlock(&a->lock);
	return n;
}

size_t arena_high(struct arena *a)
{
	size_t n;

	mutex_lock(&a->lock);
	n = (size_t)(zone_end_locked(a, 1) - a->split) << CACHE_PAGE_SHIFT;
	mutex_unlock(&a->lock);
	return n;
}

size_t arena_kept(struct arena *a)
{
	size_t n;

	mutex_lock(&a->lock);
	n = (size_t)(a->zones[0].grown + (a->zones[1].grown - a->split) - a->returned) << CACHE_PAGE_SHIFT;
	mutex_unlock(&a->lock);
	return n;
}

size_t arena_used(struct arena *a)
{
	size_t n;

	mutex_lock(&a->lock);
	n = (size_t)a->used << CACHE_PAGE_SHIFT;
	mutex_unlock(&a->lock);
	return n;
}
