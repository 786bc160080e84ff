/* SPDX-License-Identifier: MIT */
#include "model/process.h"

#include "mm/uffd_kernel.h"

/* The same in each run: nothing that a run changes. */
static struct world *the_world;

static uint64_t address_of(unsigned page)
{
	return SHARED_AT + (uint64_t)page * PAGE;
}

/* ---- the kernel ---- */

int uffd_kernel_continue(int fd, uint64_t addr, bool off)
{
	struct process *p = &the_world->process;
	struct mmu_page page = {FRAME_NONE, (addr - SHARED_AT) / PAGE};

	explore_point("the kernel maps a page of the process");
	if (soft_mmu_allows(p->mmu, addr, false))
		return -EEXIST;
	soft_mmu_install(p->mmu, addr, page, !off);
	return 0;
}

int uffd_kernel_protect(int fd, uint64_t addr, uint64_t pages, bool off)
{
	struct process *p = &the_world->process;

	explore_point(off ? "the kernel write-protects pages of the process" : "the kernel makes pages of the process writable");
	if (off)
		soft_mmu_protect(p->mmu, addr, pages);
	for (uint64_t at = addr; !off && at < addr + pages * PAGE; at += PAGE)
		if (soft_mmu_allows(p->mmu, at, false))
			soft_mmu_install(p->mmu, at, (struct mmu_page){FRAME_NONE, (at - SHARED_AT) / PAGE}, true);
	return 0;
}

int uffd_kernel_wake(int fd, uint64_t addr)
{
	/* Who has faulted looks again by itself. */
	return 0;
}

int uffd_kernel_poison(int fd, uint64_t addr)
{
	return 0;
}

void uffd_kernel_close(int fd)
{
}

void process_clear(struct world *w, uint64_t page, unsigned count)
{
	for (uint64_t i = page; i < page + count; i++)
		w->cleared[i]++;
	if (w->process.mmu)
		soft_mmu_zap(w->process.mmu, address_of((unsigned)page), count);
}

/* ---- beginning and end ---- */

void process_begin(struct world *w)
{
	struct process *p = &w->process;
	struct soft_options o = {
		.base = WINDOW_AT,
		.pages = WINDOW_PAGES,
		.image = (const uint8_t *)w->memory,
		.observe = world_observe,
		.context = &w->observers[0],
	};

	the_world = w;
	for (unsigned i = 0; i < PAGES; i++) {
		explore_name(&p->table[i].state, sizeof(p->table[i].state), "the process's state of page %u", i);
		explore_name(&p->table[i].pins, sizeof(p->table[i].pins), "the process's pins of page %u", i);
	}
	explore_check(soft_mmu_new(&o, &p->mmu) == 0 && uffd_mmu_new(0, PAGES, &p->uffd) == 0 &&
		mm_new(w->cache, &uffd_mmu_ops, p->uffd, &p->mm) == 0 &&
		uffd_range_add(p->uffd, SHARED_AT, PAGES, true, p->table) == 0 &&
		mm_map(p->mm, SHARED_AT, PAGES * PAGE, VM_READ | VM_WRITE | VM_SHARED | VM_RANDOM, w->file, 0, NULL) == 0, "no memory");
}

void process_end(struct world *w)
{
	struct process *p = &w->process;

	for (unsigned i = 0; i < PAGES; i++)
		explore_check(!p->table[i].pins, "a pin was not given back");
	explore_check(!uffd_lost(p->uffd), "the process was cut off");
	mm_unmap(p->mm, SHARED_AT, PAGES * PAGE);
	uffd_range_remove(p->uffd, w->cache, SHARED_AT);
	mm_free(p->mm);
	uffd_mmu_free(p->uffd);
	soft_mmu_free(p->mmu);
	*p = (struct process){0};
}

/* ---- what it does ---- */

void process_load(struct world *w, unsigned page)
{
	uint64_t v;

	world_over(w, soft_mmu_load(w->process.mmu, w->process.mm, address_of(page), &v));
}

void process_store(struct world *w, unsigned page)
{
	world_over(w, soft_mmu_store(w->process.mmu, w->process.mm, address_of(page), world_value(w)));
}

static struct a32 *pins_of(struct world *w, unsigned page)
{
	return (struct a32 *)&w->process.table[page].pins;
}

static uint32_t state_of(struct world *w, unsigned page)
{
	return a32_read_acquire((struct a32 *)&w->process.table[page].state);
}

static void unpin(struct world *w, unsigned page, uint32_t unit)
{
	uint32_t before = a32_fetch_add(pins_of(w, page), 0 - unit);

	sync_mb();
	if (before == unit && state_of(w, page) & PINFS_PAGE_HELD)
		uffd_unhold(w->process.uffd, w->cache, address_of(page), 1);
}

static int pin(struct world *w, unsigned page, bool write)
{
	uint32_t need = PINFS_PAGE_PRESENT | (write ? (uint32_t)PINFS_PAGE_WRITE : 0), unit = write ? PINFS_PAGE_WRITER : PINFS_PAGE_READER;
	int r;

	a32_fetch_add(pins_of(w, page), unit);
	sync_mb();
	if ((state_of(w, page) & need) == need)
		return 0;
	r = world_over(w, uffd_pin(w->process.mm, address_of(page), write ? PIN_FOR_WRITE : 0));
	if (r < 0)
		unpin(w, page, unit);
	return r;
}

/* A page that the kernel has got for a device. */
struct got {
	struct page_model *model;
	unsigned cleared, generation;
	bool leaving;
};

/* before: as it was before it was pinned. False: it is not there, which must not be, unless it has left the file since then. */
static bool get_page(struct world *w, unsigned page, bool write, const struct got *before, struct got *ret)
{
	struct page_model *m = &w->file_pages[page];
	bool allowed;

	explore_point("the kernel looks for the page");
	allowed = soft_mmu_allows(w->process.mmu, address_of(page), write);
	*ret = (struct got){m, w->cleared[page], m->generation, before->leaving || m->leaving || m->generation != before->generation};
	explore_check(allowed || ret->leaving || page >= w->pages, "a pinned page is not there, or can't be written to (EFAULT)");
	return allowed;
}

void process_dma(struct world *w, unsigned page, unsigned stores)
{
	const struct got before = {.generation = w->file_pages[page].generation, .leaving = w->file_pages[page].leaving};
	struct got got;

	if (pin(w, page, true) < 0)
		return;
	if (get_page(w, page, true, &before, &got)) {
		while (stores--) {
			uint64_t v = world_value(w);

			explore_point("the device stores");
			/* What was cleared since is its own. */
			if (w->cleared[page] != got.cleared)
				continue;
			explore_note("stores %ju", (uintmax_t)v);
			w->memory[page][0] = v;
			world_stored(w, got.model, 0, v, got.generation, got.leaving);
		}
	}
	unpin(w, page, PINFS_PAGE_WRITER);
}

void process_dma_load(struct world *w, unsigned page)
{
	const struct got before = {.generation = w->file_pages[page].generation, .leaving = w->file_pages[page].leaving};
	struct got got;

	if (pin(w, page, false) < 0)
		return;
	if (get_page(w, page, false, &before, &got)) {
		explore_point("the device loads");
		if (w->cleared[page] == got.cleared && !got.leaving && got.model->generation == got.generation) {
			explore_note("loads %ju", (uintmax_t)w->memory[page][0]);
			world_loaded(w, got.model, 0, w->memory[page][0]);
		}
	}
	unpin(w, page, PINFS_PAGE_READER);
}
