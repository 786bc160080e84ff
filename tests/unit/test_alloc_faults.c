/* SPDX-License-Identifier: MIT */
/*
 * Allocations that fail: one whole life of a cache, with mappings, address spaces, pins, fork and writeback, is run again and
 * again; the first time its first allocation fails, then its second, until it goes through without one. Each time what
 * met the failure says ENOMEM and has done nothing, what was acknowledged is there, the next try succeeds, and all is freed.
 *
 * Linked with --wrap for the functions of base/mem.h.
 */
#include "support.h"

#include "base/mem.h"
#include "base/sync.h"
#include "cache/cache.h"
#include "mm/mm.h"
#include "mm/soft.h"

#define PAGES 64u	   /* that are kept; what lies behind them is made when it is read */
#define FILE_PAGES 20000u  /* leaves of the index: more than the nodes that are allocated at once */
#define PAGE 4096u
#define AT 0x10000000ull
#define PRIVATE_AT (AT + PAGES * PAGE)
#define ANON_AT (AT + 2 * PAGES * PAGE)
#define XIP_AT (ANON_AT + 16 * PAGE)
/* Far away: tables of its own. */
#define FAR_AT 0x4000000000ull
#define WINDOW (2 * PAGES + 32)

/* ---- the allocations ---- */

static atomic_uint made, fail_at, live;
static atomic_bool met;

static bool fails(void)
{
	if (atomic_fetch_add(&made, 1) + 1 != atomic_load(&fail_at))
		return false;
	atomic_store(&met, true);
	return true;
}

void *__real_mem_alloc(size_t size);
void *__wrap_mem_alloc(size_t size);
void __real_mem_free(void *p);
void __wrap_mem_free(void *p);
int __real_mem_region_new(const char *name, size_t size, struct mem_region *ret);
int __wrap_mem_region_new(const char *name, size_t size, struct mem_region *ret);
void __real_mem_region_free(struct mem_region *region);
void __wrap_mem_region_free(struct mem_region *region);

void *__wrap_mem_alloc(size_t size)
{
	void *p = fails() ? NULL : __real_mem_alloc(size);

	if (p)
		atomic_fetch_add(&live, 1);
	return p;
}

void __wrap_mem_free(void *p)
{
	if (p)
		atomic_fetch_sub(&live, 1);
	__real_mem_free(p);
}

int __wrap_mem_region_new(const char *name, size_t size, struct mem_region *ret)
{
	int r = fails() ? -ENOMEM : __real_mem_region_new(name, size, ret);

	if (r == 0)
		atomic_fetch_add(&live, 1);
	return r;
}

void __wrap_mem_region_free(struct mem_region *region)
{
	if (region->base)
		atomic_fetch_sub(&live, 1);
	__real_mem_region_free(region);
}

/* Once more if it has met the failure; it says so then, and the next time it succeeds. */
static int tried(int first, int second)
{
	must(first == 0 || (first == -ENOMEM && atomic_load(&met)));
	must(second == 0);
	return second;
}
#define try(call)                                    \
	do {                                         \
		int first_ = (call);                 \
		tried(first_, first_ ? (call) : 0);  \
	} while (0)

/* ---- a disk ---- */

struct life {
	uint64_t disk[PAGES];	  /* the first word of each page; the others are the same */
	int reserved[PAGES];
	uint64_t wanted[PAGES];	  /* what was acknowledged */
	struct cache *cache;
	struct cache_mapping *file, *xip_file, *others[20];
	struct soft_mmu *mmu, *child_mmu;
	struct mm *mm, *child;
	uint8_t image[2 * PAGE];
};

static void disk_read(void *owner, uint64_t first, unsigned count, struct cache_fill *fills)
{
	struct life *l = owner;

	for (unsigned i = 0; i < count; i++) {
		uint64_t word = first + i < PAGES ? l->disk[first + i] : first + i;

		for (unsigned at = 0; at < PAGE; at += 8)
			memcpy(fills[i].data + at, &word, 8);
	}
}

static int disk_mkwrite(void *owner, uint64_t page, unsigned count)
{
	struct life *l = owner;

	for (unsigned i = 0; i < count; i++)
		l->reserved[page + i]++;
	return 0;
}

static void disk_undo(void *owner, uint64_t page, unsigned count)
{
	struct life *l = owner;

	for (unsigned i = 0; i < count; i++)
		must(l->reserved[page + i]-- > 0);
}

static int disk_write(void *owner, const struct cache_write *w)
{
	struct life *l = owner;

	for (unsigned i = 0; i < w->count; i++) {
		must(l->reserved[w->page + i]-- > 0);
		memcpy(&l->disk[w->page + i], w->data[i], 8);
	}
	return 0;
}

static bool in_place(void *owner, uint64_t page)
{
	return true;
}

static const struct cache_ops ops = {.read = disk_read, .mkwrite = disk_mkwrite, .mkwrite_undo = disk_undo,
	.writeback = disk_write};
static const struct cache_ops xip_ops = {.read = disk_read, .in_place = in_place};

/* ---- one life ---- */

static int read_unit(struct life *l, uint64_t unit)
{
	struct cache_ref ref;
	uint64_t word;
	int r = cache_get(l->file, unit, &ref);

	if (r < 0)
		return r;
	memcpy(&word, ref.data, 8);
	must(word == (unit < PAGES ? l->wanted[unit] : unit));
	cache_put(l->file, &ref, CACHE_KEEP);
	return 0;
}

static int write_unit(struct life *l, unsigned page, uint64_t value)
{
	int r = cache_write(l->file, (uint64_t)page * PAGE, &value, 8, NULL);

	if (r == 0)
		l->wanted[page] = value;
	return r;
}

static int store(struct life *l, unsigned page, uint64_t value)
{
	int r = soft_store(l->mm, AT + page * PAGE, value);

	if (r == 0)
		l->wanted[page] = value;
	return r;
}

static int loads(struct mm *mm, uint64_t addr, uint64_t value)
{
	uint64_t v;
	int r = soft_load(mm, addr, &v);

	must(r < 0 || v == value);
	return r;
}

static int sync_all(struct life *l)
{
	int r = cache_sync(l->file, 0, UINT64_MAX, NULL);

	for (unsigned p = 0; r == 0 && p < PAGES; p++)
		must(l->disk[p] == l->wanted[p]);
	return r;
}

static void begin(struct life *l)
{
	struct cache_options options = {.limit = 256 * PAGE, .readahead_threads = 1};
	struct soft_options soft = {.base = AT, .pages = WINDOW, .image = l->image};
	const struct mm_xip xip = {.valid = true};

	try(cache_new(&options, &l->cache));
	try(cache_mapping_new(l->cache, &ops, l, PAGE, (uint64_t)FILE_PAGES * PAGE, 0, &l->file));
	try(cache_mapping_new(l->cache, &xip_ops, l, PAGE, 2 * PAGE, 0, &l->xip_file));
	/* More than the table of mappings has room for at first. */
	for (unsigned i = 0; i < ARRAY_SIZE(l->others); i++)
		try(cache_mapping_new(l->cache, &ops, l, PAGE, PAGE, 0, &l->others[i]));
	try(soft_mmu_new(&soft, &l->mmu));
	try(soft_mmu_new(&soft, &l->child_mmu));
	try(mm_new(l->cache, &soft_mmu_ops, l->mmu, &l->mm));
	try(mm_map(l->mm, AT, PAGES * PAGE, VM_READ | VM_WRITE | VM_SHARED, l->file, 0, NULL));
	try(mm_map(l->mm, PRIVATE_AT, PAGES * PAGE, VM_READ | VM_WRITE, l->file, 0, NULL));
	try(mm_map(l->mm, ANON_AT, 8 * PAGE, VM_READ | VM_WRITE, NULL, 0, NULL));
	try(mm_map(l->mm, XIP_AT, 2 * PAGE, VM_READ | VM_SHARED, l->xip_file, 0, &xip));
}

static void use_file(struct life *l)
{
	uint32_t frames[2];

	for (unsigned i = 0; i < 30; i++)
		try(read_unit(l, 100 + i));
	for (unsigned i = 0; i < 130; i++)
		try(read_unit(l, 64 * (i + 2)));
	for (unsigned p = 0; p < 8; p++)
		try(write_unit(l, p, 1000 + p));
	for (unsigned p = 4; p < 12; p++)
		try(store(l, p, 2000 + p));
	try(loads(l->mm, XIP_AT, 0));
	try(loads(l->mm, PRIVATE_AT + 5 * PAGE, l->wanted[5]));
	try(soft_store(l->mm, PRIVATE_AT + 5 * PAGE, 5));
	/* What is pinned is written from copies. */
	try(mm_pin(l->mm, AT + 6 * PAGE, 2, PIN_FOR_WRITE, frames));
	soft_dma_store(l->cache, frames[0], 0, 3006);
	l->wanted[6] = 3006;
	try(sync_all(l));
	soft_dma_store(l->cache, frames[1], 0, 3007);
	l->wanted[7] = 3007;
	mm_unpin(l->mm, frames, 2, PIN_FOR_WRITE);
	try(sync_all(l));
	try(loads(l->mm, PRIVATE_AT + 5 * PAGE, 5));
}

static void use_ranges(struct life *l)
{
	uint32_t frame;

	try(soft_store(l->mm, ANON_AT, 1));
	try(soft_store(l->mm, ANON_AT + PAGE, 2));
	try(mm_pin(l->mm, ANON_AT, 1, PIN_FOR_WRITE, &frame));
	try(mm_fork(l->mm, l->child_mmu, &l->child));
	try(loads(l->child, ANON_AT, 1));
	try(soft_store(l->child, ANON_AT + PAGE, 3));
	soft_dma_store(l->cache, frame, 0, 4);
	mm_unpin(l->mm, &frame, 1, PIN_FOR_WRITE);
	try(loads(l->mm, ANON_AT, 4));
	try(loads(l->mm, ANON_AT + PAGE, 2));
	try(loads(l->child, ANON_AT, 1));
	try(mm_protect(l->mm, ANON_AT + PAGE, PAGE, VM_READ));
	must(soft_store(l->mm, ANON_AT + PAGE, 9) == -EFAULT);
	try(mm_protect(l->mm, ANON_AT + PAGE, PAGE, VM_READ | VM_WRITE));
	try(mm_unmap(l->mm, ANON_AT + 2 * PAGE, PAGE));
	try(mm_remap(l->mm, ANON_AT, PAGE, ANON_AT + 9 * PAGE));
	try(loads(l->mm, ANON_AT + 9 * PAGE, 4));
	try(mm_remap(l->mm, ANON_AT + 9 * PAGE, PAGE, FAR_AT));
	try(mm_remap(l->mm, FAR_AT, PAGE, ANON_AT));
	try(loads(l->mm, ANON_AT, 4));
}

static void end(struct life *l)
{
	struct cache_stats s;

	/* What was acknowledged is there, by all ways. */
	for (unsigned p = 0; p < PAGES; p++) {
		try(read_unit(l, p));
		try(loads(l->mm, AT + p * PAGE, l->wanted[p]));
	}
	try(store(l, 9, 99));
	cache_truncate(l->file, 20 * PAGE);
	cache_punch(l->file, 2, 1);
	l->disk[2] = l->wanted[2] = 0;
	for (unsigned p = 20; p < PAGES; p++)
		l->disk[p] = l->wanted[p] = 0;
	try(sync_all(l));
	mm_free(l->child);
	mm_free(l->mm);
	soft_mmu_free(l->child_mmu);
	soft_mmu_free(l->mmu);
	for (unsigned i = 0; i < ARRAY_SIZE(l->others); i++)
		cache_mapping_free(l->others[i]);
	cache_mapping_free(l->xip_file);
	cache_mapping_free(l->file);
	for (unsigned p = 0; p < PAGES; p++)
		must(!l->reserved[p]);
	cache_get_stats(l->cache, &s);
	must(!s.used && !s.dirty);
	cache_free(l->cache);
	must(!sync_violations());
}

/* The n-th allocation fails. False: there were not so many. */
static bool live_once(unsigned n)
{
	struct life *l = calloc(1, sizeof(*l));

	must(l);
	for (unsigned p = 0; p < PAGES; p++)
		l->disk[p] = l->wanted[p] = p + 1;
	atomic_store(&made, 0);
	atomic_store(&met, false);
	atomic_store(&fail_at, n);
	begin(l);
	use_file(l);
	use_ranges(l);
	end(l);
	free(l);
	if (atomic_load(&live))
		fail_msg("the %u-th allocation fails: %u are not freed", n, atomic_load(&live));
	return atomic_load(&met);
}

static void each_allocation_may_fail(void **state)
{
	unsigned n = 1;

	while (live_once(n))
		n++;
	print_message("%u allocations failed, one at a time\n", n - 1);
	assert_true(n > 60);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_allocation_may_fail),
	};

	return cmocka_run_group_tests_name("alloc_faults", tests, NULL, support_end);
}
