/* SPDX-License-Identifier: MIT */
/*
 * fork: the child gets the parent's ranges. A file's pages come back by faults; private pages are shared, read-only and
 * not exclusive any more, except those that are pinned: they stay the parent's, as they are, and the child gets a copy at
 * once (R12).
 */
#include "mm/fault.h"

struct forking {
	struct mm *parent, *child;
	struct folio *spare; /* for the copy of a pinned page; got without locks */
};

/* One entry, both tables locked. False: a spare page is needed, nothing was done. */
static bool fork_entry(struct forking *k, struct a64 *from, struct a64 *to, uint64_t addr)
{
	struct cache *c = k->parent->cache;
	uint64_t pte = a64_read(from);
	uint32_t frame = (uint32_t)pte_number(pte);
	bool pinned;

	if (!(pte & PTE_PRIVATE))
		return true;
	a64_fetch_and(from, ~(uint64_t)(PTE_WRITE | PTE_EXCLUSIVE));
	k->parent->mmu->protect(k->parent, addr, 1);
	/* Pairs with mm_pin_fast(): it finds the entry changed, or we find its count. */
	sync_mb();
	pinned = pte & PTE_EXCLUSIVE && frame_pins(c, frame);
	if (!pinned || variant(fork_protects_pinned)) {
		folio_get(frame_folio(c, frame));
		a64_set_release(to, pte_make(frame, PTE_PRIVATE));
		return true;
	}
	/* The parent's again. A fast pin that meanwhile has found the entry changed takes the slow way. */
	a64_set_release(from, pte);
	k->parent->mmu->install(k->parent, addr, pte_page(pte), pte & PTE_WRITE);
	if (!k->spare)
		return false;
	sync_copy_torn(frame_data(c, folio_frame(c, k->spare)), frame_data(c, frame), CACHE_PAGE_SIZE);
	a64_set_release(to, pte_make(folio_frame(c, k->spare), PTE_PRIVATE | PTE_EXCLUSIVE));
	k->spare = NULL;
	counter_inc(c, fork_copy_pinned);
	trace_event(cache_trace(c), fork_copy, addr, frame_pins(c, frame));
	return true;
}

static int fork_range(struct forking *k, const struct vma *vma)
{
	for (uint64_t at = vma->start; at < vma->end; at += CACHE_PAGE_SIZE) {
		struct table *from = table_find(k->parent, at), *to;
		bool done;

		if (!from || !(a64_read_acquire(table_entry(from, at)) & PTE_PRIVATE))
			continue;
		to = table_reserve(k->child, at);
		if (!to)
			return -ENOMEM;
		do {
			mutex_lock(&from->lock);
			mutex_lock(&to->lock);
			done = fork_entry(k, table_entry(from, at), table_entry(to, at), at);
			mutex_unlock(&to->lock);
			mutex_unlock(&from->lock);
			if (!done) {
				int r = cache_private_new(k->parent->cache, &k->spare);

				if (r < 0)
					return r;
			}
		} while (!done);
	}
	return 0;
}

static int fork_vma(struct forking *k, struct vma *vma)
{
	struct vma *copy = vma_new(k->child, vma->start, vma->end, vma->flags, vma->mapping, vma->page, &vma->xip);
	int r;

	if (!copy)
		return -ENOMEM;
	r = vma_insert(k->child, copy);
	if (r < 0) {
		vma_put(copy);
		return r;
	}
	return fork_range(k, vma);
}

int mm_fork(struct mm *parent, void *context, struct mm **ret)
{
	struct forking k = {.parent = parent};
	uint64_t at = 0;
	struct vma *vma;
	int r;

	r = mm_new(parent->cache, parent->mmu, context, &k.child);
	if (r < 0)
		return r;
	/* Each range is busy while its pages are shared out: no fault changes an entry that was looked at. */
	while (r == 0 && (vma = change_begin(parent, at, UINT64_MAX))) {
		at = vma->end;
		r = fork_vma(&k, vma);
		change_give_up(parent, vma);
	}
	if (k.spare)
		folio_put(parent->cache, k.spare);
	if (r < 0) {
		mm_free(k.child);
		return r;
	}
	*ret = k.child;
	return 0;
}
