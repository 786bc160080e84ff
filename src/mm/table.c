/* SPDX-License-Identifier: MIT */
/* Page tables: a tree that only grows, with a lock for each lowest table. */
#include "mm/internal.h"

#define TABLE_BYTES (CACHE_PAGE_SIZE << MM_TABLE_SHIFT) /* of address that a lowest table covers */

struct table *table_new(void)
{
	struct table *t = mem_alloc(sizeof(*t));

	if (t)
		mutex_init(&t->lock, LOCK_PT);
	return t;
}

static struct table *table_at(uint64_t entry)
{
	return (struct table *)(uintptr_t)entry;
}

void table_free(struct table *t, unsigned level)
{
	if (!t)
		return;
	for (unsigned i = 0; level && i < TABLE_FAN; i++)
		table_free(table_at(a64_read(&t->entries[i])), level - 1);
	mutex_destroy(&t->lock);
	mem_free(t);
}

static struct a64 *entry_of(struct table *t, uint64_t addr, unsigned level)
{
	return &t->entries[addr >> (CACHE_PAGE_SHIFT + level * MM_TABLE_SHIFT) & (TABLE_FAN - 1)];
}

struct table *table_reserve(struct mm *mm, uint64_t addr)
{
	struct table *t = mm->top;

	for (unsigned level = MM_LEVELS - 1; level; level--) {
		struct a64 *e = entry_of(t, addr, level);
		uint64_t there = a64_read_acquire(e);

		if (!there) {
			struct table *new = table_new();

			if (!new)
				return NULL;
			if (a64_cas(e, &there, (uint64_t)(uintptr_t)new))
				there = (uint64_t)(uintptr_t)new;
			else
				table_free(new, 0);
		}
		t = table_at(there);
	}
	return t;
}

struct table *table_find(const struct mm *mm, uint64_t addr)
{
	struct table *t = mm->top;

	for (unsigned level = MM_LEVELS - 1; t && level; level--)
		t = table_at(a64_read_acquire(entry_of(t, addr, level)));
	return t;
}

/* Calls fn for each present entry of [start, end), under its table's lock; n pages were visited. */
static void table_walk(struct mm *mm, uint64_t start, uint64_t end,
	void (*fn)(struct mm *mm, struct a64 *entry, uint64_t addr))
{
	for (uint64_t at = start; at < end;) {
		uint64_t next = MIN(align_down(at, TABLE_BYTES) + TABLE_BYTES, end);
		struct table *t = table_find(mm, at);

		if (t) {
			mutex_lock(&t->lock);
			for (uint64_t a = at; a < next; a += CACHE_PAGE_SIZE)
				if (a64_read(table_entry(t, a)) & PTE_PRESENT)
					fn(mm, table_entry(t, a), a);
			mutex_unlock(&t->lock);
		}
		at = next;
	}
}

/* The back end is told of private pages at once, under the lock: their content changes hands with the entry. */
static void zap_one(struct mm *mm, struct a64 *entry, uint64_t addr)
{
	uint64_t pte = a64_exchange(entry, 0);

	if (!(pte & PTE_PRIVATE))
		return;
	mm->mmu->zap(mm, addr, 1);
	folio_put(mm->cache, frame_folio(mm->cache, (uint32_t)pte_number(pte)));
}

void table_zap(struct mm *mm, uint64_t start, uint64_t end)
{
	table_walk(mm, start, end, zap_one);
	mm->mmu->zap(mm, start, (unsigned)((end - start) >> CACHE_PAGE_SHIFT));
}

static void zap_file_one(struct mm *mm, struct a64 *entry, uint64_t addr)
{
	if (!(a64_read(entry) & PTE_PRIVATE))
		a64_set_release(entry, 0);
}

void table_zap_file(struct mm *mm, uint64_t start, uint64_t end)
{
	table_walk(mm, start, end, zap_file_one);
	mm->mmu->zap(mm, start, (unsigned)((end - start) >> CACHE_PAGE_SHIFT));
}

int table_reserve_range(struct mm *mm, uint64_t start, uint64_t end)
{
	for (uint64_t at = start; at < end; at = align_down(at, TABLE_BYTES) + TABLE_BYTES)
		if (!table_reserve(mm, at))
			return -ENOMEM;
	return 0;
}

void table_move(struct mm *mm, uint64_t start, uint64_t end, uint64_t to)
{
	for (uint64_t at = start; at < end; at += CACHE_PAGE_SIZE) {
		struct table *t = table_find(mm, at), *there = table_find(mm, to + (at - start));
		uint64_t pte = 0;

		if (t) {
			mutex_lock(&t->lock);
			pte = a64_exchange(table_entry(t, at), 0);
			mm->mmu->zap(mm, at, 1);
			mutex_unlock(&t->lock);
		}
		if (!(pte & PTE_PRIVATE))
			continue;
		/* A fault makes it accessible there. */
		mutex_lock(&there->lock);
		a64_set_release(table_entry(there, to + (at - start)), pte);
		mutex_unlock(&there->lock);
	}
}

static void wrprotect_one(struct mm *mm, struct a64 *entry, uint64_t addr)
{
	if (a64_read(entry) & PTE_WRITE)
		a64_fetch_and(entry, ~(uint64_t)PTE_WRITE);
}

void table_wrprotect(struct mm *mm, uint64_t start, uint64_t end)
{
	table_walk(mm, start, end, wrprotect_one);
	mm->mmu->protect(mm, start, (unsigned)((end - start) >> CACHE_PAGE_SHIFT));
}
