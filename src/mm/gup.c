/* SPDX-License-Identifier: MIT */
/* Pins: from addresses to frames whose bytes stay where they are. */
#include "mm/fault.h"

/* May what this entry maps be pinned as it is? A private page only if no other address space can come to share it. */
static bool pte_allows(const struct mm *mm, uint64_t pte, bool write)
{
	if (!(pte & PTE_PRESENT) || pte & (PTE_XIP | PTE_COW))
		return false;
	/* The losing design takes a page for its own if nobody else maps it now, which fork may be about to change. */
	if (pte & PTE_PRIVATE && !(pte & PTE_EXCLUSIVE) &&
		!(variant(cow_by_mapcount) && a32_read(&frame_folio(mm->cache, (uint32_t)pte_number(pte))->refs) == 1))
		return false;
	/* The losing design pins what is mapped read-only, and sets it dirty when it is done. */
	return !write || pte & PTE_WRITE || (variant(dirty_at_unpin) && !(pte & PTE_PRIVATE));
}

bool mm_pin_fast(struct mm *mm, uint64_t addr, bool write, uint32_t *ret_frame)
{
	struct table *t = table_find(mm, addr);
	struct a64 *entry;
	uint64_t pte;

	if (!t)
		return false;
	entry = table_entry(t, addr);
	pte = a64_read_acquire(entry);
	if (!pte_allows(mm, pte, write) || frame_pin_fast(mm->cache, (uint32_t)pte_number(pte), write) < 0)
		return false;
	/* R10: whoever has changed the entry since has seen the count, or we see the change. */
	if (a64_read_acquire(entry) != pte) {
		frame_unpin(mm->cache, (uint32_t)pte_number(pte), write);
		counter_inc(mm->cache, pin_fast_retry);
		return false;
	}
	counter_inc(mm->cache, pin_fast);
	*ret_frame = (uint32_t)pte_number(pte);
	return true;
}

/* Under the table's lock the entry, and so the page, can't go. 1: pinned; 0: a fault is needed; -EAGAIN. */
static int pin_locked(struct mm *mm, struct table *t, uint64_t addr, bool write, uint32_t *ret_frame)
{
	int r = 0;

	mutex_lock(&t->lock);
	if (pte_allows(mm, a64_read(table_entry(t, addr)), write)) {
		uint32_t frame = (uint32_t)pte_number(a64_read(table_entry(t, addr)));

		r = frame_pin(mm->cache, frame, write);
		if (r == 0) {
			*ret_frame = frame;
			r = 1;
		}
	}
	mutex_unlock(&t->lock);
	return r;
}

static int pin_slow(struct mm *mm, uint64_t addr, unsigned flags, uint32_t *ret_frame)
{
	bool write = flags & PIN_FOR_WRITE;

	for (;;) {
		struct table *t = table_find(mm, addr);
		int r = t ? pin_locked(mm, t, addr, write, ret_frame) : 0;

		if (r)
			return r < 0 ? r : 0;
		if (flags & PIN_NOWAIT)
			return -EAGAIN;
		switch (mm_fault_flags(mm, addr, write, true)) {
		case FAULT_OOM:
			return -ENOMEM;
		case FAULT_SIGBUS:
			return -EFAULT;
		default:
			break;
		}
	}
}

int mm_pin(struct mm *mm, uint64_t addr, unsigned count, unsigned flags, uint32_t *ret_frames)
{
	bool write = flags & PIN_FOR_WRITE;

	if (flags & PIN_LONGTERM) {
		uint64_t before = a64_fetch_add(&mm->longterm, count);

		if (before + count > mm->longterm_limit) {
			a64_fetch_add(&mm->longterm, 0 - (uint64_t)count);
			counter_inc(mm->cache, pin_limit);
			return -EAGAIN;
		}
	}
	for (unsigned i = 0; i < count; i++) {
		uint64_t at = addr + ((uint64_t)i << CACHE_PAGE_SHIFT);
		int r = mm_pin_fast(mm, at, write, &ret_frames[i]) ? 0 : pin_slow(mm, at, flags, &ret_frames[i]);

		if (r < 0) {
			mm_unpin(mm, ret_frames, i, flags & PIN_FOR_WRITE);
			if (flags & PIN_LONGTERM)
				a64_fetch_add(&mm->longterm, 0 - (uint64_t)count);
			return r;
		}
	}
	return 0;
}

void mm_unpin(struct mm *mm, const uint32_t *frames, unsigned count, unsigned flags)
{
	for (unsigned i = 0; i < count; i++) {
		if (variant(dirty_at_unpin) && flags & PIN_FOR_WRITE)
			variant_set_dirty(mm->cache, frames[i]);
		frame_unpin(mm->cache, frames[i], flags & PIN_FOR_WRITE);
	}
	if (flags & PIN_LONGTERM)
		a64_fetch_add(&mm->longterm, 0 - (uint64_t)count);
}
