/* SPDX-License-Identifier: MIT */
/*
 * The cost of the page cache itself, as ratios in one run: a hit against a bare copy of the page, by one thread and by
 * two; a fast pin with its unpin; write-protecting 4,096 pages that are mapped; memory for descriptors.
 *
 * usage: bench_cache [ROUNDS]      medians of so many rounds (default 5), each of the two beside each other
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/sync.h"
#include "cache/internal.h"
#include "mm/mm.h"
#include "mm/soft.h"

#define PAGES 16384u /* 64 MiB: more than the processor's caches hold */
#define PAGE 4096u
#define TOUCHES 400000u
#define AT 0x10000000ull
#define MAPPED 4096u
#define ROUNDS_MAX 99u

static void must(bool ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "bench_cache: %s\n", what);
	exit(2);
}

static void owner_read(void *owner, uint64_t first, unsigned count, struct cache_fill *fills)
{
	for (unsigned i = 0; i < count; i++)
		memset(fills[i].data, (int)(first + i), PAGE);
}

static int owner_mkwrite(void *owner, uint64_t page, unsigned count)
{
	return 0;
}

static int owner_writeback(void *owner, const struct cache_write *w)
{
	return 0;
}

static const struct cache_ops ops = {.read = owner_read, .mkwrite = owner_mkwrite, .writeback = owner_writeback};

struct run {
	struct cache_mapping *file;
	const uint8_t *plain;
	pthread_t thread;
	unsigned seed;
	bool cached;
	uint8_t page[PAGE];
};

static void *touch(void *arg)
{
	struct run *r = arg;
	uint64_t x = r->seed * 2654435761u + 1;

	for (unsigned i = 0; i < TOUCHES; i++) {
		uint64_t no;

		x = x * 6364136223846793005ull + 1442695040888963407ull;
		no = (x >> 33) % PAGES;
		if (r->cached) {
			struct cache_ref ref;

			must(cache_get(r->file, no, &ref) == 0, "a page is gone");
			memcpy(r->page, ref.data, PAGE);
			cache_put(r->file, &ref, CACHE_KEEP);
		} else {
			memcpy(r->page, r->plain + no * PAGE, PAGE);
		}
		__asm__ volatile("" : : "r"(r->page) : "memory");
	}
	return NULL;
}

/* Nanoseconds for each touch, by all threads together. */
static double time_touches(struct run *r, unsigned threads, bool cached)
{
	uint64_t start = now_ns();

	for (unsigned i = 0; i < threads; i++) {
		r[i].cached = cached;
		must(thread_start(&r[i].thread, touch, &r[i]) == 0, "no thread");
	}
	for (unsigned i = 0; i < threads; i++)
		pthread_join(r[i].thread, NULL);
	return (double)(now_ns() - start) / TOUCHES / threads;
}

static double time_pins(struct mm *mm)
{
	const unsigned times = 2000000;
	uint64_t start = now_ns();

	for (unsigned i = 0; i < times; i++) {
		uint32_t frame;

		must(mm_pin_fast(mm, AT + (i % 64) * PAGE, false, &frame), "a fast pin failed");
		mm_unpin(mm, &frame, 1, 0);
	}
	return (double)(now_ns() - start) / times;
}

static void store_to_all(struct mm *mm)
{
	for (unsigned i = 0; i < MAPPED; i++)
		must(soft_store(mm, AT + i * PAGE, i) == 0, "a store failed");
}

static double ms_since(uint64_t start)
{
	return (double)(now_ns() - start) / 1e6;
}

/* Milliseconds to write-protect the mapped pages, which are writable, in one call; one by one; and as part of a cache_sync(). */
static void time_mkclean(struct mm *mm, struct cache_mapping *file, double *ret_once, double *ret_each, double *ret_sync)
{
	uint64_t start;

	store_to_all(mm);
	start = now_ns();
	mapping_mkclean(file, 0, MAPPED);
	*ret_once = ms_since(start);
	store_to_all(mm);
	start = now_ns();
	for (unsigned i = 0; i < MAPPED; i++)
		mapping_mkclean(file, i, 1);
	*ret_each = ms_since(start);
	store_to_all(mm);
	start = now_ns();
	must(cache_sync(file, 0, UINT64_MAX, NULL) == 0, "cache_sync");
	*ret_sync = ms_since(start);
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double report(const char *what, double *values, unsigned n)
{
	qsort(values, n, sizeof(*values), compare);
	printf("%-44s %9.2f (%.2f to %.2f)\n", what, values[n / 2], values[0], values[n - 1]);
	return values[n / 2];
}

int main(int argc, char **argv)
{
	/* Nobody writes but cache_sync(). */
	struct cache_options options = {.limit = (size_t)2 * PAGES * PAGE, .dirty_background = 100, .dirty_expire_ms = UINT32_MAX};
	struct soft_options soft = {.base = AT, .pages = MAPPED};
	static double plain[ROUNDS_MAX], hit[ROUNDS_MAX], two[ROUNDS_MAX], plain2[ROUNDS_MAX], pin[ROUNDS_MAX],
		once[ROUNDS_MAX], each[ROUNDS_MAX], sync_ms[ROUNDS_MAX];
	unsigned rounds = argc > 1 ? (unsigned)atoi(argv[1]) : 5;
	uint8_t *memory = malloc((size_t)PAGES * PAGE);
	struct cache_mapping *file;
	static struct run runs[2];
	struct soft_mmu *mmu;
	struct cache *cache;
	struct mm *mm;

	must(memory && rounds && rounds <= ROUNDS_MAX, "usage: bench_cache [ROUNDS]");
	must(cache_new(&options, &cache) == 0 &&
		cache_mapping_new(cache, &ops, NULL, PAGE, (uint64_t)PAGES * PAGE, 0, &file) == 0 &&
		soft_mmu_new(&soft, &mmu) == 0 && mm_new(cache, &soft_mmu_ops, mmu, &mm) == 0 &&
		mm_map(mm, AT, MAPPED * PAGE, VM_READ | VM_WRITE | VM_SHARED, file, 0, NULL) == 0, "no memory");
	memset(memory, 1, (size_t)PAGES * PAGE);
	for (unsigned i = 0; i < 2; i++)
		runs[i] = (struct run){.file = file, .plain = memory, .seed = i + 1};
	for (unsigned i = 0; i < PAGES; i++) {
		struct cache_ref ref;

		must(cache_get(file, i, &ref) == 0, "no page");
		cache_put(file, &ref, CACHE_KEEP);
	}
	for (unsigned i = 0; i < 64; i++)
		must(mm_fault(mm, AT + i * PAGE, false) == FAULT_NOPAGE, "a fault failed");
	for (unsigned k = 0; k < rounds; k++) {
		plain[k] = time_touches(runs, 1, false);
		hit[k] = time_touches(runs, 1, true);
		plain2[k] = time_touches(runs, 2, false);
		two[k] = time_touches(runs, 2, true);
		time_mkclean(mm, file, &once[k], &each[k], &sync_ms[k]);
		pin[k] = time_pins(mm);
	}
	printf("medians of %u rounds (least to greatest)\n", rounds);
	double p = report("copy of a page [ns]", plain, rounds), h = report("hit, with the copy [ns]", hit, rounds);
	double p2 = report("copies by two threads, each [ns]", plain2, rounds);
	double h2 = report("hits by two threads, each [ns]", two, rounds);

	report("fast pin and unpin [ns]", pin, rounds);
	report("mkclean of 4,096 mapped pages, at once [ms]", once, rounds);
	report("mkclean of 4,096 mapped pages, each [ms]", each, rounds);
	report("cache_sync of 4,096 dirty mapped pages [ms]", sync_ms, rounds);
	printf("%-44s %9.2f\n", "hit / copy", h / p);
	printf("%-44s %9.2f (copies alone: %.2f)\n", "two threads / one", h / h2, p / p2);
	printf("%-44s %8.2f %%\n", "descriptors and index / page memory",
		100.0 * (sizeof(struct folio) + 328.0 / 64) / PAGE);
	mm_free(mm);
	soft_mmu_free(mmu);
	cache_mapping_free(file);
	cache_free(cache);
	free(memory);
	return 0;
}
