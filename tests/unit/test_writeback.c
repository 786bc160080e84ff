/* SPDX-License-Identifier: MIT */
/*
 * cache: who writes dirty pages and when (the flusher, writers that have gone too far), what happens if that fails; writes
 * to a part of a unit; memory that goes back to the system; pages that a fault maps beside its own.
 */
#include "support.h"

#include <sys/socket.h>
#include <time.h>

#include "base/mem.h"
#include "disk.h"
#include "mm/mm.h"
#include "mm/soft.h"

#define PAGE DISK_PAGE
#define AT 0x10000000ull

struct fixture {
	struct disk *disk;
	struct cache *cache;
	struct cache_mapping *file;
};

static struct fixture begin(struct cache_options options, unsigned unit_pages)
{
	struct fixture f = {.disk = disk_new(unit_pages)};

	assert_int_equal(cache_new(&options, &f.cache), 0);
	assert_int_equal(cache_mapping_new(f.cache, &disk_ops, f.disk, unit_pages * PAGE, DISK_PAGES * PAGE, 0, &f.file), 0);
	return f;
}

static struct cache_stats stats(struct fixture *f)
{
	struct cache_stats s;

	cache_get_stats(f->cache, &s);
	return s;
}

static void end(struct fixture *f)
{
	cache_mapping_free(f->file);
	for (unsigned p = 0; p < DISK_PAGES; p++)
		assert_int_equal(a32_read(&f->disk->reserved[p]), 0);
	assert_int_equal(stats(f).used, 0);
	assert_int_equal(stats(f).dirty, 0);
	cache_free(f->cache);
	free(f->disk);
	assert_int_equal(sync_violations(), 0);
}

static void wait_until(bool (*condition)(struct fixture *), struct fixture *f)
{
	for (unsigned i = 0; !condition(f); i++) {
		struct timespec t = {0, 1000000};

		must(i < 30000);
		nanosleep(&t, NULL);
	}
}

static bool nothing_dirty(struct fixture *f)
{
	return !stats(f).dirty;
}

static int put_word(struct fixture *f, unsigned page, uint64_t value)
{
	return cache_write(f->file, page * PAGE, &value, sizeof(value), NULL);
}

/* ---- who writes ---- */

static void what_is_old_is_written(void **state)
{
	struct fixture f = begin((struct cache_options){.limit = 64 * PAGE, .dirty_expire_ms = 30, .dirty_interval_ms = 10}, 1);

	assert_int_equal(put_word(&f, 3, 77), 0);
	wait_until(nothing_dirty, &f);
	/* It is being written, or was; nothing is left for this but to wait. */
	assert_int_equal(cache_sync(f.file, 0, UINT64_MAX, NULL), 0);
	assert_true(disk_word(f.disk, 3) == 77);
	assert_int_equal(a32_read(&f.disk->writes), 1);
	end(&f);
}

static bool in_the_background(struct fixture *f)
{
	return stats(f).dirty <= 8 * PAGE;
}

static void too_much_is_written_before_it_is_old(void **state)
{
	/* 64 frames: from 7 dirty pages on the flusher writes, from 16 on the writers. */
	struct fixture f = begin((struct cache_options){.limit = 64 * PAGE, .dirty_expire_ms = 1u << 30}, 1);

	for (unsigned p = 0; p < 14; p++)
		assert_int_equal(put_word(&f, p, p), 0);
	wait_until(in_the_background, &f);
	assert_int_equal(stats(&f).count.throttled, 0);
	end(&f);
}

static void what_is_young_and_little_stays(void **state)
{
	struct fixture f = begin((struct cache_options){.limit = 64 * PAGE, .dirty_expire_ms = 1u << 30,
		.dirty_interval_ms = 1}, 1);

	assert_int_equal(put_word(&f, 3, 77), 0);
	/* The flusher has looked at it, more than once. */
	while (stats(&f).count.flusher_runs < 3)
		nanosleep(&(struct timespec){0, 1000000}, NULL);
	assert_int_equal(stats(&f).dirty, PAGE);
	assert_int_equal(a32_read(&f.disk->writes), 0);
	end(&f);
}

/* Readers keep half of the memory, however long the disk refuses; and then nothing was lost. */
static void what_cannot_be_written_does_not_fill_the_memory(void **state)
{
	struct fixture f = begin((struct cache_options){.limit = 16 * PAGE, .dirty_expire_ms = 1u << 30, .dirty_background = 100}, 1);
	unsigned accepted = 0;
	int r = 0;

	a32_set(&f.disk->fail_writes, 1);
	while (accepted < DISK_PAGES && (r = put_word(&f, accepted, 1000 + accepted)) == 0)
		accepted++;
	assert_int_equal(r, -EIO);
	assert_in_range(accepted, 4, 9);
	assert_true(stats(&f).count.throttle_refused >= 1);
	for (unsigned round = 0; round < 2; round++) {
		for (unsigned p = 0; p < DISK_PAGES; p++) {
			struct cache_ref ref;

			assert_int_equal(cache_get(f.file, p, &ref), 0);
			assert_int_equal(ref.data[8], p + 1);
			cache_put(f.file, &ref, CACHE_KEEP);
		}
	}
	/* What could not be written is still there, and is, once it can be. */
	assert_int_equal(stats(&f).dirty, accepted * PAGE);
	a32_set(&f.disk->fail_writes, 0);
	assert_int_equal(put_word(&f, accepted, 1000 + accepted), 0);
	assert_int_equal(cache_sync(f.file, 0, UINT64_MAX, NULL), 0);
	for (unsigned p = 0; p <= accepted; p++)
		assert_true(disk_word(f.disk, p) == 1000 + p);
	end(&f);
}

static void during_slow_failure(void *context)
{
	/* Long enough for the flusher to look, and to find that nothing is dirty. */
	nanosleep(&(struct timespec){0, 50000000}, NULL);
}

/* While a page is being written nothing is dirty; if that fails, the flusher has to hear of it. */
static void what_has_failed_is_tried_again_by_age(void **state)
{
	struct fixture f = begin((struct cache_options){.limit = 64 * PAGE, .dirty_expire_ms = 20, .dirty_interval_ms = 5}, 1);

	f.disk->during_write = during_slow_failure;
	a32_set(&f.disk->fail_writes, 1);
	assert_int_equal(put_word(&f, 3, 77), 0);
	cache_sync(f.file, 0, UINT64_MAX, NULL);
	a32_set(&f.disk->fail_writes, 0);
	wait_until(nothing_dirty, &f);
	assert_int_equal(cache_sync(f.file, 0, UINT64_MAX, NULL), 0);
	assert_true(disk_word(f.disk, 3) == 77);
	end(&f);
}

/* Where one file can't be written, and the next has nothing to write, the search for some that can be comes to an end. */
static void a_disk_that_fails_is_asked_once(void **state)
{
	struct fixture f = begin((struct cache_options){.limit = 16 * PAGE, .dirty_expire_ms = 1u << 30, .dirty_background = 100}, 1);
	struct disk *others[3];
	struct cache_mapping *files[3];
	int r = 0;

	for (unsigned i = 0; i < 3; i++) {
		others[i] = disk_new(1);
		a32_set(&others[i]->fail_writes, 1);
		assert_int_equal(cache_mapping_new(f.cache, &disk_ops, others[i], PAGE, DISK_PAGES * PAGE, 0, &files[i]), 0);
	}
	for (unsigned p = 0; p < 4; p++)
		for (unsigned i = 0; i < 3 && r == 0; i++)
			r = cache_write(files[i], p * PAGE, "x", 1, NULL);
	assert_int_equal(r, -EIO);
	/* It is this file that is asked first, and clean then. */
	assert_int_equal(put_word(&f, 0, 1), -EIO);
	for (unsigned i = 0; i < 3; i++) {
		cache_mapping_free(files[i]);
		free(others[i]);
	}
	end(&f);
}

/* What pins keep dirty does not fill the memory either. */
static void pinned_pages_leave_half_of_the_memory(void **state)
{
	struct fixture f = begin((struct cache_options){.limit = 16 * PAGE, .dirty_expire_ms = 1u << 30}, 1);
	struct soft_options soft = {.base = AT, .pages = DISK_PAGES};
	uint32_t frames[16];
	struct soft_mmu *mmu;
	unsigned n = 0;
	struct mm *mm;
	int r = 0;

	assert_int_equal(soft_mmu_new(&soft, &mmu), 0);
	assert_int_equal(mm_new(f.cache, &soft_mmu_ops, mmu, &mm), 0);
	assert_int_equal(mm_map(mm, AT, DISK_PAGES * PAGE, VM_READ | VM_WRITE | VM_SHARED, f.file, 0, NULL), 0);
	while (n < 16 && (r = mm_pin(mm, AT + n * PAGE, 1, PIN_FOR_WRITE, &frames[n])) == 0)
		n++;
	assert_int_equal(r, -ENOMEM);
	assert_in_range(n, 8, 10);
	for (unsigned p = 20; p < 60; p++) {
		struct cache_ref ref;

		assert_int_equal(cache_get(f.file, p, &ref), 0);
		cache_put(f.file, &ref, CACHE_KEEP);
	}
	mm_unpin(mm, frames, n, PIN_FOR_WRITE);
	assert_int_equal(put_word(&f, 30, 1), 0);
	mm_free(mm);
	soft_mmu_free(mmu);
	end(&f);
}

/* Of the first file that can be written on, readers are promised the high zone alone: who has more than that gives it back first. */
static void promises_to_readers_shrink_with_the_first_writable_file(void **state)
{
	static const struct cache_ops read_only = {0};
	struct cache_options options = {.limit = 16 * PAGE};
	struct cache_mapping *a, *b;
	struct cache *cache;

	assert_int_equal(cache_new(&options, &cache), 0);
	assert_int_equal(cache_mapping_new(cache, &read_only, NULL, PAGE, PAGE, 0, &a), 0);
	assert_int_equal(cache_reserve(a, 12), 0);
	assert_int_equal(cache_mapping_new(cache, &disk_ops, NULL, PAGE, PAGE, 0, &b), 0);
	assert_int_equal(cache_reserve(a, 7), -ENOMEM);
	cache_unreserve(a, 12);
	assert_int_equal(cache_reserve(b, 6), 0);
	cache_unreserve(b, 6);
	cache_mapping_free(a);
	cache_mapping_free(b);
	cache_free(cache);
}

/* ---- writes to a part of a unit ---- */

static uint8_t byte_at(struct fixture *f, size_t at)
{
	struct cache_ref ref;
	uint8_t b;

	assert_int_equal(cache_get(f->file, at / (f->disk->unit_pages * PAGE), &ref), 0);
	b = ref.data[at % (f->disk->unit_pages * PAGE)];
	cache_put(f->file, &ref, CACHE_KEEP);
	return b;
}

static void whole_pages_are_written_without_reading(void **state)
{
	struct fixture f = begin((struct cache_options){.limit = 1024 * PAGE, .dirty_expire_ms = 1u << 30}, 16);
	uint8_t buf[3 * PAGE];
	struct folio *folio;

	memset(buf, 0xaa, sizeof(buf));
	assert_int_equal(cache_write(f.file, 18 * PAGE, buf, sizeof(buf), NULL), 0);
	assert_int_equal(a32_read(&f.disk->reads), 0);
	/* One of them alone needs no read either, nor does its writing. */
	assert_int_equal(cache_page_get(f.file, 19, &folio), 0);
	folio_put(f.cache, folio);
	assert_int_equal(cache_sync(f.file, 0, UINT64_MAX, NULL), 0);
	assert_int_equal(a32_read(&f.disk->reads), 0);
	assert_int_equal(a32_read(&f.disk->writes), 3);
	assert_int_equal(f.disk->bytes[19][5], 0xaa);
	/* Their neighbours come when they are wanted, once, and don't replace what was written. */
	assert_int_equal(put_word(&f, 18, 5), 0);
	assert_int_equal(byte_at(&f, 17 * PAGE), 18);
	assert_int_equal(byte_at(&f, 18 * PAGE), 5);
	assert_int_equal(byte_at(&f, 18 * PAGE + 8), 0xaa);
	assert_int_equal(byte_at(&f, 21 * PAGE - 1), 0xaa);
	assert_int_equal(byte_at(&f, 21 * PAGE), 22);
	assert_int_equal(a32_read(&f.disk->reads), 16);
	end(&f);
}

static void parts_of_pages_are_read_first(void **state)
{
	struct fixture f = begin((struct cache_options){.limit = 1024 * PAGE, .dirty_expire_ms = 1u << 30}, 16);
	uint8_t buf[PAGE + 2];

	memset(buf, 0xbb, sizeof(buf));
	assert_int_equal(cache_write(f.file, 4 * PAGE - 1, buf, sizeof(buf), NULL), 0);
	assert_int_equal(a32_read(&f.disk->reads), 16);
	assert_int_equal(byte_at(&f, 4 * PAGE - 2), 4);
	assert_int_equal(byte_at(&f, 4 * PAGE - 1), 0xbb);
	assert_int_equal(byte_at(&f, 5 * PAGE), 0xbb);
	assert_int_equal(byte_at(&f, 5 * PAGE + 1), 6);
	end(&f);
}

static void a_failed_read_of_the_rest_loses_nothing(void **state)
{
	struct fixture f = begin((struct cache_options){.limit = 1024 * PAGE, .dirty_expire_ms = 1u << 30}, 16);
	uint8_t buf[PAGE];
	struct cache_ref ref;

	memset(buf, 0xcc, sizeof(buf));
	assert_int_equal(cache_write(f.file, 2 * PAGE, buf, sizeof(buf), NULL), 0);
	a32_set(&f.disk->fail_reads, 1);
	assert_int_equal(cache_get(f.file, 0, &ref), -EIO);
	assert_int_equal(put_word(&f, 3, 1), -EIO);
	assert_int_equal(stats(&f).dirty, PAGE);
	assert_int_equal(cache_sync(f.file, 0, UINT64_MAX, NULL), 0);
	assert_int_equal(f.disk->bytes[2][77], 0xcc);
	a32_set(&f.disk->fail_reads, 0);
	assert_int_equal(byte_at(&f, 2 * PAGE), 0xcc);
	assert_int_equal(byte_at(&f, 3 * PAGE), 4);
	end(&f);
}

static void what_lies_behind_the_end_is_zero(void **state)
{
	struct fixture f = begin((struct cache_options){.limit = 1024 * PAGE, .dirty_expire_ms = 1u << 30}, 16);

	cache_truncate(f.file, 5 * PAGE + 100);
	/* (The disk has no `cut`: it would bring what was there.) */
	assert_int_equal(cache_write(f.file, 6 * PAGE + 10, "new", 3, NULL), 0);
	assert_int_equal(a32_read(&f.disk->reads), 0);
	assert_int_equal(cache_size(f.file), 6 * PAGE + 13);
	memset(f.disk->bytes[6], 0, PAGE);
	memset(f.disk->bytes[5] + 100, 0, PAGE - 100);
	assert_int_equal(byte_at(&f, 5 * PAGE + 99), 6);
	assert_int_equal(byte_at(&f, 5 * PAGE + 100), 0);
	assert_int_equal(byte_at(&f, 6 * PAGE + 9), 0);
	assert_int_equal(byte_at(&f, 6 * PAGE + 10), 'n');
	assert_int_equal(byte_at(&f, 6 * PAGE + 13), 0);
	end(&f);
}

struct growth {
	struct fixture *f;
	pthread_t thread;
	struct a32 began;
};

static void *grow_main(void *arg)
{
	struct growth *g = arg;

	a32_set(&g->began, 1);
	cache_truncate(g->f->file, 8 * PAGE);
	return NULL;
}

/* In the middle of its writeback the file becomes longer. */
static void during_write_grow(void *context)
{
	struct growth *g = context;

	g->f->disk->during_write = NULL;
	must(thread_start(&g->thread, grow_main, g) == 0);
	while (!a32_read(&g->began))
		sched_yield();
	nanosleep(&(struct timespec){0, 20000000}, NULL);
}

/* Bytes that a program has stored behind the end, by its mapping, never become the file's: neither here nor on the disk. */
static void stores_behind_the_end_stay_there(void **state)
{
	struct fixture f = begin((struct cache_options){.limit = 64 * PAGE, .dirty_background = 100, .dirty_expire_ms = 1u << 30}, 1);
	struct soft_options soft = {.base = AT, .pages = DISK_PAGES};
	struct growth g = {.f = &f};
	struct soft_mmu *mmu;
	struct mm *mm;

	assert_int_equal(soft_mmu_new(&soft, &mmu), 0);
	assert_int_equal(mm_new(f.cache, &soft_mmu_ops, mmu, &mm), 0);
	assert_int_equal(mm_map(mm, AT, DISK_PAGES * PAGE, VM_READ | VM_WRITE | VM_SHARED, f.file, 0, NULL), 0);
	/* The file grows: by truncation; by that during a writeback; by a write behind the end. */
	for (unsigned way = 0; way < 3; way++) {
		cache_truncate(f.file, 5 * PAGE + 100);
		memset(f.disk->bytes[5] + 100, 0, PAGE - 100);
		assert_int_equal(soft_store(mm, AT + 5 * PAGE + 200, 0x4141414141414141u), 0);
		if (way == 0)
			cache_truncate(f.file, 8 * PAGE);
		if (way == 1) {
			/* It becomes longer between the two that are written. */
			assert_int_equal(put_word(&f, 0, 1), 0);
			a32_set(&g.began, 0);
			f.disk->context = &g;
			f.disk->during_write = during_write_grow;
			assert_int_equal(cache_sync(f.file, 0, UINT64_MAX, NULL), 0);
			pthread_join(g.thread, NULL);
		}
		if (way == 2)
			assert_int_equal(cache_write(f.file, 6 * PAGE, "x", 1, NULL), 0);
		assert_int_equal(byte_at(&f, 5 * PAGE + 200), 0);
		assert_int_equal(cache_sync(f.file, 0, UINT64_MAX, NULL), 0);
		assert_int_equal(f.disk->bytes[5][200], 0);
	}
	mm_free(mm);
	soft_mmu_free(mmu);
	end(&f);
}

static void no_space_leaves_no_trace_of_a_new_unit(void **state)
{
	struct fixture f = begin((struct cache_options){.limit = 1024 * PAGE, .dirty_expire_ms = 1u << 30}, 16);
	uint8_t buf[PAGE];

	memset(buf, 0xdd, sizeof(buf));
	a32_set(&f.disk->no_space, 1);
	assert_int_equal(cache_write(f.file, 2 * PAGE, buf, sizeof(buf), NULL), -ENOSPC);
	assert_int_equal(stats(&f).used, 0);
	a32_set(&f.disk->no_space, 0);
	assert_int_equal(byte_at(&f, 2 * PAGE), 3);
	end(&f);
}

/* Against a plain array: writes, holes, truncations, reads, writeback, reclaim, on units of 8 pages. */
static void as_a_plain_array(void **state)
{
	for (uint64_t seed = 1; seed <= 20; seed++) {
		struct fixture f = begin((struct cache_options){.limit = 40 * PAGE, .dirty_expire_ms = 1u << 30}, 8);
		static uint8_t model[DISK_PAGES * PAGE], buf[DISK_PAGES * PAGE];
		struct rng rng = {seed};

		memcpy(model, f.disk->bytes, sizeof(model));
		for (unsigned i = 0; i < 400; i++) {
			size_t at = rng_below(&rng, 2) ? rng_below(&rng, sizeof(model)) : rng_below(&rng, DISK_PAGES) * PAGE;
			size_t len = rng_below(&rng, 2) ? 1 + rng_below(&rng, 5 * PAGE) : (1 + rng_below(&rng, 9)) * PAGE;
			struct cache_ref ref;

			len = MIN(len, sizeof(model) - at);
			switch (rng_below(&rng, 5)) {
			case 0:
			case 1:
				memset(buf, (int)i, len);
				assert_int_equal(cache_write(f.file, at, buf, len, NULL), 0);
				memcpy(model + at, buf, len);
				break;
			case 2:
				assert_int_equal(cache_get(f.file, at / (8 * PAGE), &ref), 0);
				assert_memory_equal(ref.data, model + at / (8 * PAGE) * 8 * PAGE, 8 * PAGE);
				cache_put(f.file, &ref, CACHE_KEEP);
				break;
			case 3:
				cache_writeback(f.file, (unsigned)rng_below(&rng, 8));
				break;
			default:
				cache_reclaim(f.cache, rng_below(&rng, 20) * PAGE);
				break;
			}
		}
		assert_int_equal(cache_sync(f.file, 0, UINT64_MAX, NULL), 0);
		assert_memory_equal(f.disk->bytes, model, sizeof(model));
		end(&f);
	}
}

/* Each thread has every fourth page for itself; units have pages of all. */
#define WRITERS 4u

struct writer {
	struct fixture *f;
	pthread_t thread;
	unsigned no;
};

static struct a32 stop;

static void *writer_main(void *arg)
{
	struct writer *w = arg;
	struct rng rng = {w->no + 1};
	uint8_t mine[DISK_PAGES], buf[PAGE];

	for (unsigned p = 0; p < DISK_PAGES; p++)
		mine[p] = (uint8_t)(p + 1);
	while (!a32_read(&stop)) {
		unsigned page = (unsigned)rng_below(&rng, DISK_PAGES / WRITERS) * WRITERS + w->no;
		struct folio *folio;
		uint32_t frame;

		if (rng_below(&rng, 2)) {
			mine[page]++;
			memset(buf, mine[page], PAGE);
			must(cache_write(w->f->file, page * PAGE, buf, PAGE, NULL) == 0);
			continue;
		}
		must(cache_page_get(w->f->file, page, &folio) == 0);
		frame = folio_page_frame(w->f->cache, w->f->file, folio, page);
		must(frame_data(w->f->cache, frame)[rng_below(&rng, PAGE)] == mine[page]);
		folio_put(w->f->cache, folio);
	}
	for (unsigned p = w->no; p < DISK_PAGES; p += WRITERS) {
		must(cache_sync(w->f->file, p, 1, NULL) == 0);
		must(w->f->disk->bytes[p][PAGE - 1] == mine[p]);
	}
	return NULL;
}

static void parts_of_units_by_many_at_once(void **state)
{
	struct fixture f = begin((struct cache_options){.limit = 40 * PAGE, .dirty_expire_ms = 1, .dirty_interval_ms = 1}, 4);
	const char *rounds = getenv("PINFS_HAMMER_ROUNDS");
	unsigned want = rounds ? (unsigned)atoi(rounds) : 2000;
	struct writer w[WRITERS];
	uint64_t drops = 0;

	a32_set(&stop, 0);
	for (unsigned i = 0; i < WRITERS; i++) {
		w[i] = (struct writer){.f = &f, .no = i};
		assert_int_equal(thread_start(&w[i].thread, writer_main, &w[i]), 0);
	}
	while (stats(&f).count.pgpgout < want || stats(&f).count.pgsteal < want / 4 || a32_read(&f.disk->reads) < want) {
		if (drops++ % 64 == 0)
			cache_shrink(f.cache);
		cache_reclaim(f.cache, 8 * PAGE);
		sched_yield();
	}
	a32_set(&stop, 1);
	for (unsigned i = 0; i < WRITERS; i++)
		pthread_join(w[i].thread, NULL);
	end(&f);
}

/* ---- memory for others ---- */

static void fill_memory(struct fixture *f)
{
	for (unsigned p = 0; p < DISK_PAGES; p += f->disk->unit_pages) {
		struct cache_ref ref;

		assert_int_equal(cache_get(f->file, p / f->disk->unit_pages, &ref), 0);
		cache_put(f->file, &ref, CACHE_KEEP);
	}
}

static void free_memory_goes_back(void **state)
{
	struct fixture f = begin((struct cache_options){.limit = DISK_PAGES * PAGE}, 1);
	size_t before, given;

	fill_memory(&f);
	before = stats(&f).kept;
	assert_true(before >= DISK_PAGES * PAGE);
	given = cache_shrink(f.cache);
	assert_in_range(given, DISK_PAGES / 4 * PAGE, before);
	assert_int_equal(stats(&f).kept, before - given);
	assert_int_equal(stats(&f).kept, stats(&f).used);
	assert_int_equal(stats(&f).count.pgreturned, given / PAGE);
	/* And comes again. */
	fill_memory(&f);
	assert_int_equal(stats(&f).used, DISK_PAGES * PAGE);
	for (unsigned p = 0; p < DISK_PAGES; p++)
		assert_int_equal(byte_at(&f, p * PAGE + 9), p + 1);
	end(&f);
}

static void what_is_dirty_or_in_use_is_not_given_away(void **state)
{
	struct fixture f = begin((struct cache_options){.limit = DISK_PAGES * PAGE, .dirty_expire_ms = 1u << 30}, 1);
	struct cache_ref held;

	fill_memory(&f);
	assert_int_equal(cache_get(f.file, 7, &held), 0);
	assert_int_equal(put_word(&f, 9, 4711), 0);
	for (unsigned i = 0; i < 40; i++)
		cache_shrink(f.cache);
	assert_int_equal(held.data[0], 8);
	assert_int_equal(stats(&f).dirty, PAGE);
	cache_put(f.file, &held, CACHE_KEEP);
	assert_int_equal(cache_sync(f.file, 0, UINT64_MAX, NULL), 0);
	assert_true(disk_word(f.disk, 9) == 4711);
	end(&f);
}

static bool has_shrunk(struct fixture *f)
{
	return stats(f).count.pressure && stats(f).count.pgreturned;
}

/* A socket's urgent byte is as POLLPRI as the kernel's PSI. */
static void a_shortage_makes_the_cache_shrink(void **state)
{
	struct fixture f;
	int fds[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	if (send(fds[0], "!", 1, MSG_OOB) < 0)
		skip(); /* before Linux 5.15 */
	f = begin((struct cache_options){.limit = DISK_PAGES * PAGE, .pressure_fd = fds[1]}, 1);
	fill_memory(&f);
	wait_until(has_shrunk, &f);
	/* Who makes it possible goes away: it is not asked for ever. */
	close(fds[0]);
	fill_memory(&f);
	end(&f);
}

static void the_kernel_says_when_memory_is_short(void **state)
{
	int fd = mem_pressure_open();

	if (fd < 0) {
		assert_true(access("/proc/pressure/memory", W_OK) < 0);
		skip();
	}
	close(fd);
}

/* ---- faults ---- */

static void a_fault_maps_what_is_there_around_it(void **state)
{
	struct fixture f = begin((struct cache_options){.limit = 128 * PAGE}, 1);
	struct soft_options soft = {.base = AT, .pages = DISK_PAGES};
	struct soft_mmu *mmu;
	struct mm *mm;
	uint64_t v, faults;

	assert_int_equal(soft_mmu_new(&soft, &mmu), 0);
	assert_int_equal(mm_new(f.cache, &soft_mmu_ops, mmu, &mm), 0);
	assert_int_equal(mm_map(mm, AT, DISK_PAGES * PAGE, VM_READ | VM_WRITE | VM_SHARED, f.file, 0, NULL), 0);
	fill_memory(&f);
	assert_int_equal(soft_load(mm, AT + 20 * PAGE, &v), 0);
	assert_int_equal(stats(&f).count.fault_around, 15);
	faults = stats(&f).count.pgfault;
	for (unsigned p = 16; p < 32; p++) {
		assert_int_equal(soft_load(mm, AT + p * PAGE, &v), 0);
		assert_int_equal(v & 0xff, p + 1);
	}
	assert_int_equal(stats(&f).count.pgfault, faults);
	/* They may be read only: a store is announced. */
	assert_int_equal(soft_store(mm, AT + 21 * PAGE, 1), 0);
	assert_int_equal(stats(&f).count.pgmkwrite, 1);
	assert_int_equal(stats(&f).count.pgfault, faults + 1);
	mm_free(mm);
	soft_mmu_free(mmu);
	end(&f);
}

static void a_fault_reads_nothing_around_it(void **state)
{
	struct fixture f = begin((struct cache_options){.limit = 128 * PAGE}, 1);
	struct soft_options soft = {.base = AT, .pages = DISK_PAGES};
	struct soft_mmu *mmu;
	struct mm *mm;
	uint64_t v;

	assert_int_equal(soft_mmu_new(&soft, &mmu), 0);
	assert_int_equal(mm_new(f.cache, &soft_mmu_ops, mmu, &mm), 0);
	assert_int_equal(mm_map(mm, AT, DISK_PAGES * PAGE, VM_READ | VM_SHARED, f.file, 0, NULL), 0);
	assert_int_equal(soft_load(mm, AT + 20 * PAGE, &v), 0);
	assert_int_equal(a32_read(&f.disk->reads), 1);
	assert_int_equal(stats(&f).count.fault_around, 0);
	mm_free(mm);
	soft_mmu_free(mmu);
	end(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_old_is_written),
		cmocka_unit_test(too_much_is_written_before_it_is_old),
		cmocka_unit_test(what_is_young_and_little_stays),
		cmocka_unit_test(what_cannot_be_written_does_not_fill_the_memory),
		cmocka_unit_test(what_has_failed_is_tried_again_by_age),
		cmocka_unit_test(a_disk_that_fails_is_asked_once),
		cmocka_unit_test(pinned_pages_leave_half_of_the_memory),
		cmocka_unit_test(promises_to_readers_shrink_with_the_first_writable_file),
		cmocka_unit_test(stores_behind_the_end_stay_there),
		cmocka_unit_test(whole_pages_are_written_without_reading),
		cmocka_unit_test(parts_of_pages_are_read_first),
		cmocka_unit_test(a_failed_read_of_the_rest_loses_nothing),
		cmocka_unit_test(what_lies_behind_the_end_is_zero),
		cmocka_unit_test(no_space_leaves_no_trace_of_a_new_unit),
		cmocka_unit_test(as_a_plain_array),
		cmocka_unit_test(parts_of_units_by_many_at_once),
		cmocka_unit_test(free_memory_goes_back),
		cmocka_unit_test(what_is_dirty_or_in_use_is_not_given_away),
		cmocka_unit_test(a_shortage_makes_the_cache_shrink),
		cmocka_unit_test(the_kernel_says_when_memory_is_short),
		cmocka_unit_test(a_fault_maps_what_is_there_around_it),
		cmocka_unit_test(a_fault_reads_nothing_around_it),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
