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

static struct a64 *translation(const struct mm *mm, uint64_t addr)
{
	struct soft_mmu *m = mm_context(mm);
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

static int soft_install(struct mm *mm, uint64_t addr, struct mmu_page page, bool writable)
{
	uint64_t new = page.frame == FRAME_NONE ? pte_make(page.xip, PTE_XIP) : pte_make(page.frame, 0);
	struct a64 *t = translation(mm, addr);

	change(t, a64_read(t) & TRANSLATION & new & ~(uint64_t)PTE_WRITE, new | (writable ? (unsigned)PTE_WRITE : 0));
	return 0;
}

/* Only what lies in the window can have a translation. */
static void each(struct mm *mm, uint64_t addr, unsigned pages, uint64_t keep)
{
	struct soft_mmu *m = mm_context(mm);
	uint64_t from = MAX(addr, m->o.base), bytes = (uint64_t)pages << CACHE_PAGE_SHIFT;
	uint64_t end = MIN(addr + bytes < addr ? UINT64_MAX : addr + bytes, m->o.base + ((uint64_t)m->o.pages << CACHE_PAGE_SHIFT));

	for (uint64_t at = from; at < end; at += CACHE_PAGE_SIZE) {
		struct a64 *t = translation(mm, at);

		if (a64_read(t) & TRANSLATION & ~keep)
			change(t, keep, 0);
		else
			/* Taken away by another, who may be waiting still: so do we. */
			shootdown(t);
	}
}

static void soft_protect(struct mm *mm, uint64_t addr, unsigned pages)
{
	each(mm, addr, pages, TRANSLATION & ~(uint64_t)PTE_WRITE);
}

static void soft_zap(struct mm *mm, uint64_t addr, unsigned pages)
{
	each(mm, addr, pages, 0);
}

const struct mmu_ops soft_mmu_ops = {.install = soft_install, .protect = soft_protect, .zap = soft_zap};

/* The word at addr, with the translation in use; or NULL, and *ret_error. */
static void *access_begin(struct mm *mm, uint64_t addr, bool write, int *ret_error)
{
	const struct soft_mmu *m = mm_context(mm);
	struct a64 *t = translation(mm, addr);
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

static void access_end(struct mm *mm, uint64_t addr, bool write, uint64_t value)
{
	const struct soft_mmu *m = mm_context(mm);

	if (m->o.observe)
		m->o.observe(m->o.context, addr, write, value);
	a64_fetch_add(translation(mm, addr), 0 - USER);
}

int soft_load(struct mm *mm, uint64_t addr, uint64_t *ret)
{
	int r = 0;
	const void *word = access_begin(mm, addr, false, &r);

	if (!word)
		return r;
	*ret = word_load(word);
	access_end(mm, addr, false, *ret);
	return 0;
}

int soft_store(struct mm *mm, uint64_t addr, uint64_t value)
{
	int r = 0;
	void *word = access_begin(mm, addr, true, &r);

	if (!word)
		return r;
	word_store(word, value);
	access_end(mm, addr, true, value);
	return 0;
}

uint64_t soft_dma_load(struct cache *c, uint32_t frame, unsigned offset)
{
	return word_load(frame_data(c, frame) + offset);
}

void soft_dma_store(struct cache *c, uint32_t frame, unsigned offset, uint64_t value)
{
	word_store(frame_data(c, frame) + offset, value);
}
