/* SPDX-License-Identifier: MIT */
#include "cache/arena.h"

#include <assert.h>
#include <sys/mman.h>

int arena_init(struct arena *a, size_t capacity, size_t limit)
{
	capacity = align_up(capacity, (size_t)ARENA_PAGE_SIZE << (ARENA_ORDERS - 1));
	*a = (struct arena){.capacity = (uint32_t)(capacity >> ARENA_PAGE_SHIFT)};
	if (capacity >> ARENA_PAGE_SHIFT >= ARENA_NONE)
		return -ENOMEM;
	for (unsigned o = 0; o < ARENA_ORDERS; o++)
		a->heads[o] = ARENA_NONE;
	a->base = mmap(NULL, capacity, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (a->base == MAP_FAILED) {
		a->base = NULL;
		return -ENOMEM;
	}
	/* A core dump of a crashed daemon needs its structures, not the contents of files. */
	madvise(a->base, capacity, MADV_DONTDUMP);
	a->pages = calloc(a->capacity, sizeof(*a->pages));
	if (!a->pages) {
		munmap(a->base, capacity);
		a->base = NULL;
		return -ENOMEM;
	}
	mutex_init(&a->lock, LOCK_ARENA);
	a->limit = MIN((uint32_t)(limit >> ARENA_PAGE_SHIFT), a->capacity);
	return 0;
}

void arena_destroy(struct arena *a)
{
	if (!a->base)
		return;
	munmap(a->base, (size_t)a->capacity << ARENA_PAGE_SHIFT);
	free(a->pages);
	mutex_destroy(&a->lock);
	a->base = NULL;
}

void arena_raise_limit(struct arena *a, size_t limit)
{
	mutex_lock(&a->lock);
	a->limit = MIN(MAX(a->limit, (uint32_t)(limit >> ARENA_PAGE_SHIFT)), a->capacity);
	mutex_unlock(&a->lock);
}

static void list_push_locked(struct arena *a, uint32_t page, unsigned order)
{
	struct arena_page *p = &a->pages[page];

	*p = (struct arena_page){.next = a->heads[order], .prev = ARENA_NONE, .order = (uint8_t)order, .free = true};
	if (p->next != ARENA_NONE)
		a->pages[p->next].prev = page;
	a->heads[order] = page;
}

static void list_remove_locked(struct arena *a, uint32_t page)
{
	struct arena_page *p = &a->pages[page];

	if (p->prev != ARENA_NONE)
		a->pages[p->prev].next = p->next;
	else
		a->heads[p->order] = p->next;
	if (p->next != ARENA_NONE)
		a->pages[p->next].prev = p->prev;
	p->free = false;
}

/* Puts one aligned chunk on its list, merged with its buddy as often as that is free too. */
static void chunk_free_locked(struct arena *a, uint32_t page, unsigned order)
{
	while (order + 1 < ARENA_ORDERS) {
		uint32_t buddy = page ^ (1u << order);

		/* Pages that never were in use have not `free` set. */
		if (buddy >= a->capacity || !a->pages[buddy].free || a->pages[buddy].order != order)
			break;
		list_remove_locked(a, buddy);
		page &= ~(1u << order);
		order++;
	}
	list_push_locked(a, page, order);
}

static void range_free_locked(struct arena *a, uint32_t page, uint32_t count)
{
	while (count) {
		unsigned order = 0;

		while (order + 1 < ARENA_ORDERS && !(page & (1u << order)) && (2u << order) <= count)
			order++;
		chunk_free_locked(a, page, order);
		page += 1u << order;
		count -= 1u << order;
	}
}

/* Fresh memory for at least one chunk of this order: the pages up to it go on the lists. */
static bool grow_locked(struct arena *a, unsigned order)
{
	uint32_t end = (uint32_t)align_up(a->grown, 1u << order) + (1u << order);

	if (end > a->limit)
		return false;
	range_free_locked(a, a->grown, end - a->grown);
	a->grown = end;
	return true;
}

static uint32_t take_locked(struct arena *a, unsigned order, unsigned below)
{
	for (unsigned o = order; o < below; o++) {
		uint32_t page = a->heads[o];

		if (page == ARENA_NONE)
			continue;
		list_remove_locked(a, page);
		while (o > order) {
			o--;
			list_push_locked(a, page + (1u << o), o);
		}
		a->used += 1u << order;
		return page;
	}
	return ARENA_NONE;
}

uint32_t arena_alloc(struct arena *a, unsigned order, enum arena_source source, unsigned below)
{
	uint32_t page;

	assert(order < ARENA_ORDERS);
	mutex_lock(&a->lock);
	page = take_locked(a, order, source == ARENA_PARTIAL ? MIN(below, ARENA_ORDERS) : ARENA_ORDERS);
	if (page == ARENA_NONE && source == ARENA_FRESH && grow_locked(a, order))
		page = take_locked(a, order, ARENA_ORDERS);
	mutex_unlock(&a->lock);
	return page;
}

void arena_free(struct arena *a, uint32_t page, uint32_t count)
{
	mutex_lock(&a->lock);
	assert(count <= a->used && page < a->grown && count <= a->grown - page);
	a->used -= count;
	range_free_locked(a, page, count);
	mutex_unlock(&a->lock);
}

size_t arena_limit(struct arena *a)
{
	size_t n;

	mutex_lock(&a->lock);
	n = (size_t)a->limit << ARENA_PAGE_SHIFT;
	mutex_unlock(&a->lock);
	return n;
}

size_t arena_used(struct arena *a)
{
	size_t n;

	mutex_lock(&a->lock);
	n = (size_t)a->used << ARENA_PAGE_SHIFT;
	mutex_unlock(&a->lock);
	return n;
}
