/* SPDX-License-Identifier: MIT */
#include "mm/soft.h"

#include "mm/internal.h"

/* A translation: PTE bits and a number as in the page table, and in the high half the accesses that use it. */
#define USER ((uint64_t)1 << 48)
#define TRANSLATION (USER - 1)

struct soft_mmu {
	struct soft_options o;
	struct a64 translations[];
};

int soft_mmu_new(const struct soft_options *options, struct soft_mmu **ret)
{
	struct soft_mmu *m = mem_alloc(sizeof(*m) + options->pages * sizeof(m->translations[0]));

	if (!m)
		return -ENOMEM;
	m->o = *options;
	*ret = m;
	return 0;
}

/*
 * A word that programs and devices load and store as they like. In the explorer it is memory itself, without the buffers
 * of its model: what it checks is who may store when, and each access is one step with the translation that allows it.
 */
#ifdef PINFS_EXPLORE
static uint64_t word_load(const void *p)
{
	return *(const uint64_t *)p;
}
static void word_store(void *p, uint64_t value)
{
	*(uint64_t *)p = value;
}
#else
static uint64_t word_load(const void *p)
{
	return a64_read_acquire(p);
}
static void word_store(void *p, uint64_t value)
{
	a64_set_release(p, value);
}
#endif

void *soft_mmu_context(const struct soft_mmu *m)
{
	return m->o.context;
}

void soft_mmu_free(struct soft_mmu *m)
{
	mem_free(m);
}

static struct a64 *translation(struct soft_mmu *m, uint64_t addr)
{
	uint64_t no = (addr - m->o.base) >> CACHE_PAGE_SHIFT;

	assert(addr >= m->o.base && no < m->o.pages);
	return &m->translations[no];
}

/* Waits for the accesses that still go by what was there. */
static void shootdown(struct a64 *t)
{
	while (a64_read_acquire(t) >= USER)
		sync_relax();
}

static void change(struct a64 *t, uint64_t keep, uint64_t add)
{
	uint64_t old = a64_read(t);

	while (!a64_cas(t, &old, (old & (keep | ~TRANSLATION)) | add))
		;
	if (old & TRANSLATION & ~keep)
		shootdown(t);
}

void soft_mmu_install(struct soft_mmu *m, uint64_t addr, struct mmu_page page, bool writable)
{
	uint64_t new = page.frame == FRAME_NONE ? pte_make(page.xip, PTE_XIP) : pte_make(page.frame, 0);
	struct a64 *t = translation(m, addr);

	change(t, a64_read(t) & TRANSLATION & new & ~(uint64_t)PTE_WRITE, new | (writable ? (unsigned)PTE_WRITE : 0));
}

static int soft_install(struct mm *mm, uint64_t addr, struct mmu_page page, bool writable)
{
	soft_mmu_install(mm_context(mm), addr, page, writable);
	return 0;
}

/* Only what lies in the window can have a translation. */
static void each(struct soft_mmu *m, uint64_t addr, uint64_t pages, uint64_t keep)
{
	uint64_t from = MAX(addr, m->o.base), bytes = pages << CACHE_PAGE_SHIFT;
	uint64_t end = MIN(addr + bytes < addr ? UINT64_MAX : addr + bytes, m->o.base + ((uint64_t)m->o.pages << CACHE_PAGE_SHIFT));

	for (uint64_t at = from; at < end; at += CACHE_PAGE_SIZE) {
		struct a64 *t = translation(m, at);

		if (a64_read(t) & TRANSLATION & ~keep)
			change(t, keep, 0);
		else
			/* Taken away by another, who may be waiting still: so do we. */
			shootdown(t);
	}
}

void soft_mmu_protect(struct soft_mmu *m, uint64_t addr, uint64_t pages)
{
	each(m, addr, pages, TRANSLATION & ~(uint64_t)PTE_WRITE);
}

void soft_mmu_zap(struct soft_mmu *m, uint64_t addr, uint64_t pages)
{
	each(m, addr, pages, 0);
}

bool soft_mmu_allows(struct soft_mmu *m, uint64_t addr, bool write)
{
	uint64_t need = PTE_PRESENT | (write ? (unsigned)PTE_WRITE : 0);

	return (a64_read(translation(m, addr)) & need) == need;
}

static void soft_protect(struct mm *mm, uint64_t addr, unsigned pages)
{
	soft_mmu_protect(mm_context(mm), addr, pages);
}

static void soft_zap(struct mm *mm, uint64_t addr, unsigned pages)
{
	soft_mmu_zap(mm_context(mm), addr, pages);
}

const struct mmu_ops soft_mmu_ops = {.install = soft_install, .protect = soft_protect, .zap = soft_zap};

/* The word at addr, with the translation in use; or NULL, and *ret_error. */
static void *access_begin(struct soft_mmu *m, struct mm *mm, uint64_t addr, bool write, int *ret_error)
{
	struct a64 *t = translation(m, addr);
	unsigned need = PTE_PRESENT | (write ? (unsigned)PTE_WRITE : 0);

	assert(addr % 8 == 0);
	for (;;) {
		uint64_t now = a64_read(t);
		uint8_t *page;

		while ((now & need) == need && !a64_cas(t, &now, now + USER))
			;
		if ((now & need) == need) {
			page = now & PTE_XIP ? (uint8_t *)m->o.image + (pte_number(now & TRANSLATION) << CACHE_PAGE_SHIFT) :
					       frame_data(mm->cache, (uint32_t)pte_number(now & TRANSLATION));
			return page + (addr & (CACHE_PAGE_SIZE - 1));
		}
		switch (mm_fault(mm, addr, write)) {
		case FAULT_NOPAGE:
			break;
		case FAULT_OOM:
			*ret_error = -ENOMEM;
			return NULL;
		default:
			*ret_error = -EFAULT;
			return NULL;
		}
	}
}

static void access_end(struct soft_mmu *m, uint64_t addr, bool write, uint64_t value)
{
	if (m->o.observe)
		m->o.observe(m->o.context, addr, write, value);
	a64_fetch_add(translation(m, addr), 0 - USER);
}

int soft_mmu_load(struct soft_mmu *m, struct mm *mm, uint64_t addr, uint64_t *ret)
{
	int r = 0;
	const void *word = access_begin(m, mm, addr, false, &r);

	if (!word)
		return r;
	*ret = word_load(word);
	access_end(m, addr, false, *ret);
	return 0;
}

int soft_mmu_store(struct soft_mmu *m, struct mm *mm, uint64_t addr, uint64_t value)
{
	int r = 0;
	void *word = access_begin(m, mm, addr, true, &r);

	if (!word)
		return r;
	word_store(word, value);
	access_end(m, addr, true, value);
	return 0;
}

int soft_load(struct mm *mm, uint64_t addr, uint64_t *ret)
{
	return soft_mmu_load(mm_context(mm), mm, addr, ret);
}

int soft_store(struct mm *mm, uint64_t addr, uint64_t value)
{
	return soft_mmu_store(mm_context(mm), mm, addr, value);
}

uint64_t soft_dma_load(struct cache *c, uint32_t frame, unsigned offset)
{
	return word_load(frame_data(c, frame) + offset);
}

void soft_dma_store(struct cache *c, uint32_t frame, unsigned offset, uint64_t value)
{
	word_store(frame_data(c, frame) + offset, value);
}
