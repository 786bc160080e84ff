/* SPDX-License-Identifier: MIT */
/* Faults: from an address that can't be accessed to an entry in the page table. */
#include "mm/fault.h"

/* Pages that a read fault maps at once, if they are there; a power of two. */
#ifndef MM_AROUND_PAGES
#define MM_AROUND_PAGES 16
#endif
#define AROUND_PAGES MIN((uint64_t)MM_AROUND_PAGES, (uint64_t)TABLE_FAN)

static enum fault_result result_of(struct cache *c, int error)
{
	if (error == -ENOMEM) {
		counter_inc(c, fault_oom);
		return FAULT_OOM;
	}
	counter_inc(c, fault_sigbus);
	return FAULT_SIGBUS;
}

/* ---- installing ---- */

/*
 * Takes the mm lock, if the range is still what it was when the fault began, and the table's lock. Between the fault's
 * beginning and this nothing was locked, so this is the only place where what was found then may be used (R6, R7).
 */
static bool install_begin(struct fault *f)
{
	struct mm *mm = f->vma->mm;

	if (!variant(callback_under_lock))
		mutex_lock(&mm->lock);
	/* The losing design has dropped the lock, takes it again, and goes on as if nothing had happened. */
	if (a32_read(&f->vma->seq) != f->seq && !variant(lock_upgrade)) {
		if (!variant(callback_under_lock))
			mutex_unlock(&mm->lock);
		return false;
	}
	mutex_lock(&f->table->lock);
	return true;
}

static void install_end(struct fault *f)
{
	mutex_unlock(&f->table->lock);
	if (!variant(callback_under_lock))
		mutex_unlock(&f->vma->mm->lock);
}

/* Before the mm lock is dropped, and after the back end has been told. */
static void install_enter(struct vma *vma)
{
	a32_fetch_add(&vma->installing, 1);
}

static void install_leave(struct vma *vma)
{
	if (a32_fetch_add(&vma->installing, (uint32_t)-1) == (INSTALL_WAITER | 1))
		a32_wake(&vma->installing, UINT32_MAX);
}

static bool same_page(uint64_t a, uint64_t b)
{
	return a & b & PTE_PRESENT && pte_number(a) == pte_number(b) &&
		(a & (PTE_XIP | PTE_PRIVATE)) == (b & (PTE_XIP | PTE_PRIVATE));
}

/*
 * Maps a page of a file. R9: the same page is there already: as good as done; another one: whoever has ours drops it.
 * What is mapped in place gives way to the page of the cache that a store has made of it. Unless it is RETRY, the caller
 * tells the back end, and then calls install_leave().
 */
static enum fault_result install_file(struct fault *f, uint64_t new)
{
	struct a64 *entry = table_entry(f->table, f->addr);
	struct cache *c = f->vma->mm->cache;
	enum fault_result result = FAULT_LOCKED;
	uint64_t there;

	if (!install_begin(f))
		return FAULT_RETRY;
	install_enter(f->vma);
	there = a64_read(entry);
	if (!there) {
		a64_set_release(entry, new);
	} else if (same_page(there, new)) {
		a64_set_release(entry, there | new);
		counter_inc(c, fault_same);
		result = FAULT_NOPAGE;
	} else if (there & PTE_XIP && !(new & PTE_XIP)) {
		a64_set_release(entry, new);
		counter_inc(c, xip_moved);
	} else if (variant(busy_is_success)) {
		result = FAULT_NOPAGE;
	} else {
		counter_inc(c, fault_other);
		result = FAULT_RETRY;
	}
	if (result == FAULT_RETRY)
		install_leave(f->vma);
	install_end(f);
	return result;
}

/*
 * Maps a private page in place of what was seen (`old`), and tells the back end under the lock. The new entry takes over
 * the caller's reference; that of what was there goes.
 */
static enum fault_result install_private(struct fault *f, uint64_t old, uint64_t new)
{
	struct a64 *entry = table_entry(f->table, f->addr);
	struct mm *mm = f->vma->mm;
	bool same;

	/* R11: who may store where the page is has it alone. */
	assert(!(new & PTE_WRITE) || new & PTE_EXCLUSIVE);
	if (!install_begin(f))
		return FAULT_RETRY;
	same = a64_read(entry) == old;
	if (same) {
		a64_set_release(entry, new);
		mm->mmu->install(mm, f->addr, pte_page(new), new & PTE_WRITE);
	} else {
		counter_inc(mm->cache, fault_other);
	}
	install_end(f);
	if (!same)
		return FAULT_RETRY;
	if (old & PTE_PRIVATE)
		folio_put(mm->cache, frame_folio(mm->cache, (uint32_t)pte_number(old)));
	return FAULT_NOPAGE;
}

/* ---- pages of a file ---- */

/* The page, its folio locked and still in the file. LOCKED, or why not. */
static enum fault_result file_page(struct fault *f, struct folio **ret)
{
	struct cache_mapping *m = f->vma->mapping;
	uint64_t page = vma_page(f->vma, f->addr);
	struct cache *c = f->vma->mm->cache;
	struct folio *folio;
	int r = cache_page_get(m, page, &folio);

	if (r < 0)
		return result_of(c, r);
	folio_lock(folio);
	if (!folio_attached(folio, m) || page >= DIV_ROUND_UP(cache_size(m), CACHE_PAGE_SIZE)) {
		folio_unlock(folio);
		folio_put(c, folio);
		return FAULT_RETRY;
	}
	*ret = folio;
	return FAULT_LOCKED;
}

static unsigned cow_bit(const struct vma *vma)
{
	return vma->flags & VM_SHARED ? 0 : PTE_COW;
}

/* One page beside the one that was asked for, if that needs no waiting. False: the range has changed, no more of it. */
static bool around_one(const struct fault *asked, uint64_t addr)
{
	struct fault f = *asked;
	struct vma *vma = f.vma;
	uint64_t page = vma_page(vma, addr);
	struct cache *c = vma->mm->cache;
	struct folio *folio = cache_page_find(vma->mapping, page);
	enum fault_result result = FAULT_NOPAGE;

	f.addr = addr;
	if (!folio)
		return true;
	if (folio_trylock(folio)) {
		uint32_t frame = folio_page_frame(c, vma->mapping, folio, page);

		if (folio_attached(folio, vma->mapping) && frame_uptodate(c, frame) &&
			page < DIV_ROUND_UP(cache_size(vma->mapping), CACHE_PAGE_SIZE)) {
			result = install_file(&f, pte_make(frame, cow_bit(vma)));
			if (result == FAULT_LOCKED) {
				vma->mm->mmu->install(vma->mm, addr, pte_page(pte_make(frame, 0)), false);
				counter_inc(c, fault_around);
			}
			if (result != FAULT_RETRY)
				install_leave(vma);
		}
		folio_unlock(folio);
	}
	folio_put(c, folio);
	return result != FAULT_RETRY;
}

/* Maps what lies around a page that was read, and is in the cache: it will be wanted, and a fault costs more (R6 to R9). */
static void fault_around(const struct fault *f)
{
	const struct vma *vma = f->vma;
	/* Not beyond one table: it is the one that we have. */
	uint64_t window = align_down(f->addr, AROUND_PAGES << CACHE_PAGE_SHIFT);
	uint64_t end = MIN(window + (AROUND_PAGES << CACHE_PAGE_SHIFT), vma->end);

	for (uint64_t addr = MAX(window, vma->start); addr < end; addr += CACHE_PAGE_SIZE)
		if (addr != f->addr && !a64_read(table_entry(f->table, addr)) && !around_one(f, addr))
			break;
}

static enum fault_result file_fault(struct fault *f, bool writable)
{
	struct cache_mapping *m = f->vma->mapping;
	uint64_t page = vma_page(f->vma, f->addr), pte;
	struct mm *mm = f->vma->mm;
	enum fault_result result;
	struct folio *folio;
	uint32_t frame;
	int r = writable ? cache_throttle(m) : 0;

	/* Before the page is dirty: its own writeback would take away what this fault is for, again and again. */
	if (r < 0)
		return result_of(mm->cache, r);
	result = file_page(f, &folio);
	if (result != FAULT_LOCKED)
		return result;
	frame = folio_page_frame(mm->cache, m, folio, page);
	/* R1: first the filesystem agrees, then the page can become dirty. */
	if (writable)
		r = folio_mkwrite(mm->cache, folio, frame - folio_frame(mm->cache, folio), 1);
	if (r < 0) {
		result = result_of(mm->cache, r);
	} else {
		pte = pte_make(frame, (writable ? PTE_WRITE : 0) | cow_bit(f->vma));
		result = install_file(f, pte);
		if (result != FAULT_RETRY) {
			r = mm->mmu->install(mm, f->addr, pte_page(pte), writable);
			install_leave(f->vma);
			result = r == -ENOMEM ? result_of(mm->cache, r) : FAULT_NOPAGE;
		}
	}
	folio_unlock(folio);
	folio_put(mm->cache, folio);
	if (result == FAULT_NOPAGE && !writable && !(f->vma->flags & VM_RANDOM))
		fault_around(f);
	return result;
}

/* ---- pages in place ---- */

/*
 * Nothing is locked for a page in place: its way into the cache is seen under the table's lock. Who moves it has said so
 * before it takes it from all tables, so either we see that, or it finds what we map.
 */
static enum fault_result xip_fault(struct fault *f)
{
	struct vma *vma = f->vma;
	struct mm *mm = vma->mm;
	uint64_t page = vma_page(vma, f->addr), pte = pte_make(vma->xip.first + page, PTE_XIP), there;
	struct a64 *entry = table_entry(f->table, f->addr);
	bool mapped;

	if (!install_begin(f))
		return FAULT_RETRY;
	there = a64_read(entry);
	mapped = cache_in_place(vma->mapping, page) && (!there || there == pte);
	/* R9: another page is there, and that counts as success: what we bring is not what the file has. */
	if (variant(busy_is_success) && there)
		mapped = true;
	if (mapped) {
		if (!there)
			a64_set_release(entry, pte);
		mm->mmu->install(mm, f->addr, pte_page(pte), false);
		counter_inc(mm->cache, xip_mapped);
	} else {
		counter_inc(mm->cache, fault_other);
	}
	install_end(f);
	return mapped ? FAULT_NOPAGE : FAULT_RETRY;
}

void xip_populate(struct vma *vma)
{
	struct fault f = {.vma = vma, .seq = a32_read(&vma->seq)};

	if (!vma->xip.valid)
		return;
	for (f.addr = vma->start; f.addr < vma->end; f.addr += CACHE_PAGE_SIZE) {
		f.table = table_reserve(vma->mm, f.addr);
		if (!f.table)
			break;
		/* What can't be mapped now comes by a fault. */
		if (cache_in_place(vma->mapping, vma_page(vma, f.addr)))
			xip_fault(&f);
	}
}

/* ---- private pages ---- */

static enum fault_result private_new(struct fault *f, struct folio **ret)
{
	struct cache *c = f->vma->mm->cache;
	int r = cache_private_new(c, ret);

	return r < 0 ? result_of(c, r) : FAULT_LOCKED;
}

static unsigned private_bits(const struct fault *f)
{
	return PTE_PRIVATE | PTE_EXCLUSIVE | (f->write ? (unsigned)PTE_WRITE : 0);
}

/* Puts the copy in, or drops it. */
static enum fault_result private_done(struct fault *f, uint64_t old, struct folio *copy)
{
	struct cache *c = f->vma->mm->cache;
	enum fault_result result = install_private(f, old, pte_make(folio_frame(c, copy), private_bits(f)));

	if (result == FAULT_RETRY)
		folio_put(c, copy);
	return result;
}

static enum fault_result anon_fault(struct fault *f)
{
	struct cache *c = f->vma->mm->cache;
	enum fault_result result;
	struct folio *new;

	result = private_new(f, &new);
	if (result != FAULT_LOCKED)
		return result;
	memset(frame_data(c, folio_frame(c, new)), 0, CACHE_PAGE_SIZE);
	f->write = f->vma->flags & VM_WRITE;
	return private_done(f, 0, new);
}

/* A private copy of a file's page, in place of what maps that (old), if anything does. */
static enum fault_result cow_file(struct fault *f, uint64_t old)
{
	struct cache *c = f->vma->mm->cache;
	struct folio *folio, *new;
	enum fault_result result;

	result = private_new(f, &new);
	if (result != FAULT_LOCKED)
		return result;
	result = file_page(f, &folio);
	if (result != FAULT_LOCKED) {
		folio_put(c, new);
		return result;
	}
	sync_copy_torn(frame_data(c, folio_frame(c, new)),
		frame_data(c, folio_page_frame(c, f->vma->mapping, folio, vma_page(f->vma, f->addr))), CACHE_PAGE_SIZE);
	folio_unlock(folio);
	folio_put(c, folio);
	counter_inc(c, cow_copy);
	return private_done(f, old, new);
}

/*
 * R11: may the page be written where it is? Looked at under the table's lock; the losing designs count instead, and one
 * of them does not even take the lock.
 */
static bool may_reuse(const struct cache *c, uint64_t pte)
{
	const struct folio *folio = frame_folio(c, (uint32_t)pte_number(pte));

	if (variant(cow_by_page_count))
		return a32_read(&folio->refs) == 1 && !a64_read(&folio->pins);
	if (variant(cow_by_mapcount))
		return a32_read(&folio->refs) == 1;
	return pte & PTE_EXCLUSIVE;
}

/* A store to, or an exclusive wish for, a private page that is mapped; or a back end that has lost it. */
static enum fault_result private_fault(struct fault *f, uint64_t seen)
{
	struct a64 *entry = table_entry(f->table, f->addr);
	struct mm *mm = f->vma->mm;
	struct cache *c = mm->cache;
	bool early = variant(cow_by_mapcount) && may_reuse(c, seen), reuse;
	struct folio *old = NULL, *new;
	enum fault_result result;
	uint64_t pte;

	if (!install_begin(f))
		return FAULT_RETRY;
	pte = a64_read(entry);
	if (!(pte & PTE_PRIVATE)) {
		install_end(f);
		return FAULT_RETRY;
	}
	reuse = (!f->write && !f->unshare) || (variant(cow_by_mapcount) ? early : may_reuse(c, pte));
	if (reuse) {
		if (f->write) {
			pte |= PTE_WRITE | PTE_EXCLUSIVE;
			counter_inc(c, cow_reuse);
		}
		a64_set_release(entry, pte);
		mm->mmu->install(mm, f->addr, pte_page(pte), pte & PTE_WRITE);
	} else {
		old = frame_folio(c, (uint32_t)pte_number(pte));
		folio_get(old);
	}
	install_end(f);
	if (reuse)
		return FAULT_NOPAGE;

	result = private_new(f, &new);
	if (result == FAULT_LOCKED) {
		sync_copy_torn(frame_data(c, folio_frame(c, new)), frame_data(c, folio_frame(c, old)), CACHE_PAGE_SIZE);
		counter_inc(c, cow_copy);
		result = private_done(f, pte, new);
	}
	folio_put(c, old);
	return result;
}

/* ---- which one it is ---- */

static enum fault_result fault_once(struct fault *f)
{
	struct vma *vma = f->vma;
	uint64_t pte;

	f->table = table_reserve(vma->mm, f->addr);
	if (!f->table)
		return result_of(vma->mm->cache, -ENOMEM);
	pte = a64_read_acquire(table_entry(f->table, f->addr));
	if (pte & PTE_PRIVATE)
		return private_fault(f, pte);
	if (!vma->mapping)
		return anon_fault(f);
	if (!(vma->flags & VM_SHARED) && (f->write || f->unshare))
		return cow_file(f, pte);
	/* A page of the cache that is there already stays: a pin has brought it. */
	if (vma->xip.valid && !f->write && !f->unshare && (!pte || pte & PTE_XIP) &&
		cache_in_place(vma->mapping, vma_page(vma, f->addr)))
		return xip_fault(f);
	return file_fault(f, f->write);
}

enum fault_result mm_fault_flags(struct mm *mm, uint64_t addr, bool write, bool unshare)
{
	enum fault_result result;

	counter_inc(mm->cache, pgfault);
	trace_event(cache_trace(mm->cache), fault_begin, addr, write);
	do {
		struct fault f = {.addr = align_down(addr, CACHE_PAGE_SIZE), .write = write, .unshare = unshare};
		bool busy;

		mutex_lock(&mm->lock);
		f.vma = vma_find_locked(mm, f.addr);
		if (!f.vma || !(f.vma->flags & (write ? VM_WRITE : VM_READ))) {
			mutex_unlock(&mm->lock);
			return result_of(mm->cache, -EFAULT);
		}
		busy = a32_read(&f.vma->busy);
		f.seq = a32_read(&f.vma->seq);
		vma_get(f.vma);
		if (!variant(callback_under_lock))
			mutex_unlock(&mm->lock);
		result = busy ? FAULT_RETRY : fault_once(&f);
		if (variant(callback_under_lock))
			mutex_unlock(&mm->lock);
		if (result == FAULT_RETRY)
			counter_inc(mm->cache, fault_retry);
		if (busy)
			vma_wait(f.vma);
		vma_put(f.vma);
	} while (result == FAULT_RETRY);
	trace_event(cache_trace(mm->cache), fault_end, addr, result);
	return result;
}

enum fault_result mm_fault(struct mm *mm, uint64_t addr, bool write)
{
	return mm_fault_flags(mm, addr, write, false);
}
