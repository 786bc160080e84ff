/* SPDX-License-Identifier: MIT */
/* cache: a file whose pages lie in memory of their own, as other processes map it: each at its place, and none longer than it has to. */
#include "support.h"

#include <sys/mman.h>
#include <sys/stat.h>

#include "base/mem.h"
#include "disk.h"

#define PAGE DISK_PAGE
#define PAGES DISK_PAGES

struct fixture {
	struct disk *disk;
	struct cache *cache;
	struct cache_mapping *file;
	struct mem_region memory; /* a memfd */
	struct cache_outside outside;
	const uint8_t *other; /* as another process maps it */
};

static void clear(void *context, uint64_t page, unsigned count)
{
	struct fixture *f = context;

	mem_region_return(&f->memory, page * PAGE, (size_t)count * PAGE);
}

static void begin(struct fixture *f, unsigned frames, unsigned unit_pages)
{
	struct cache_options options = {.limit = (size_t)frames * PAGE, .dirty_background = 100};

	*f = (struct fixture){.disk = disk_new(unit_pages)};
	assert_int_equal(cache_new(&options, &f->cache), 0);
	assert_int_equal(cache_mapping_new(f->cache, &disk_ops, f->disk, unit_pages * PAGE, PAGES * PAGE, 0, &f->file), 0);
	assert_int_equal(mem_region_new("test", PAGES * PAGE, &f->memory), 0);
	assert_true(f->memory.fd >= 0);
	f->other = mmap(NULL, f->memory.size, PROT_READ, MAP_SHARED, f->memory.fd, 0);
	assert_true(f->other != MAP_FAILED);
	f->outside = (struct cache_outside){.base = f->memory.base, .pages = PAGES, .clear = clear, .context = f};
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
	for (unsigned p = 0; p < PAGES; p++)
		assert_int_equal(a32_read(&f->disk->reserved[p]), 0);
	assert_int_equal(stats(f).used, 0);
	assert_int_equal(stats(f).dirty, 0);
	cache_free(f->cache);
	munmap((void *)f->other, f->memory.size);
	mem_region_free(&f->memory);
	free(f->disk);
	assert_int_equal(sync_violations(), 0);
}

/* Pages that the memfd has. */
static unsigned there(struct fixture *f)
{
	struct stat st;

	assert_int_equal(fstat(f->memory.fd, &st), 0);
	return (unsigned)(st.st_blocks / (PAGE / 512));
}

static uint8_t get(struct fixture *f, unsigned page)
{
	unsigned unit_pages = f->disk->unit_pages;
	struct cache_ref ref;
	uint8_t v;

	assert_int_equal(cache_get(f->file, page / unit_pages, &ref), 0);
	v = ref.data[page % unit_pages * PAGE];
	assert_int_equal(ref.data[page % unit_pages * PAGE + PAGE - 1], v);
	cache_put(f->file, &ref, CACHE_KEEP);
	return v;
}

static void put(struct fixture *f, unsigned page, uint8_t v)
{
	uint8_t bytes[PAGE];

	memset(bytes, v, sizeof(bytes));
	assert_int_equal(cache_write(f->file, page * PAGE, bytes, sizeof(bytes), NULL), 0);
}

static void pages_lie_where_they_are_in_the_file(void **state)
{
	for (unsigned unit_pages = 1; unit_pages <= 4; unit_pages *= 4) {
		struct fixture f;

		begin(&f, 64, unit_pages);
		assert_int_equal(get(&f, 5), 6);
		put(&f, 9, 99);
		assert_int_equal(there(&f), 0);
		assert_int_equal(cache_mapping_move(f.file, &f.outside), 0);
		/* What was dirty is written, and all has left the arena. */
		assert_int_equal(f.disk->bytes[9][0], 99);
		assert_int_equal(stats(&f).used, 0);
		assert_int_equal(get(&f, 5), 6);
		assert_int_equal(get(&f, 9), 99);
		put(&f, 17, 170);
		assert_int_equal(f.other[5 * PAGE], 6);
		assert_int_equal(f.other[9 * PAGE + PAGE - 1], 99);
		assert_int_equal(f.other[17 * PAGE], 170);
		/* Of the unit that was written in part the rest has not come so far. */
		assert_int_equal(there(&f), 2 * unit_pages + 1);
		assert_int_equal(stats(&f).used, 3 * unit_pages * PAGE);
		assert_int_equal(cache_sync(f.file, 0, UINT64_MAX, NULL), 0);
		assert_int_equal(f.disk->bytes[17][1], 170);
		/* And back. */
		put(&f, 18, 180);
		assert_int_equal(cache_mapping_move(f.file, NULL), 0);
		assert_int_equal(there(&f), 0);
		assert_int_equal(stats(&f).used, 0);
		assert_int_equal(get(&f, 18), 180);
		assert_int_equal(there(&f), 0);
		assert_int_equal(cache_mapping_move(f.file, NULL), 0);
		end(&f);
	}
}

static void what_leaves_is_gone_from_there(void **state)
{
	struct fixture f;

	begin(&f, 64, 1);
	assert_int_equal(cache_mapping_move(f.file, &f.outside), 0);
	for (unsigned p = 0; p < 32; p++)
		get(&f, p);
	assert_int_equal(there(&f), 32);
	cache_punch(f.file, 3, 2);
	assert_int_equal(there(&f), 30);
	cache_truncate(f.file, 10 * PAGE + 100);
	assert_int_equal(there(&f), 9);
	/* The rest of the last page is zero, for those who map it, too. */
	assert_int_equal(f.other[10 * PAGE + 99], 11);
	assert_int_equal(f.other[10 * PAGE + 100], 0);
	assert_int_equal(cache_invalidate(f.file, 0, 2), 0);
	assert_int_equal(there(&f), 7);
	assert_true(cache_reclaim(f.cache, 4 * PAGE) >= 4 * PAGE);
	assert_true(there(&f) <= 3);
	cache_mapping_drop(f.file);
	assert_int_equal(there(&f), 0);
	/* A read that fails leaves nothing. */
	a32_set(&f.disk->fail_reads, 1);
	for (unsigned p = 0; p < 4; p++) {
		struct cache_ref ref;

		assert_int_equal(cache_get(f.file, p, &ref), -EIO);
	}
	assert_int_equal(there(&f), 0);
	end(&f);
}

/* What a second file has in the arena and the first one outside is no more than the limit together. */
static void one_limit_holds_for_all(void **state)
{
	struct cache_mapping *second;
	struct disk *disk = disk_new(1);
	struct rng rng = {1};
	struct fixture f;

	begin(&f, 16, 1);
	assert_int_equal(cache_mapping_new(f.cache, &disk_ops, disk, PAGE, PAGES * PAGE, 0, &second), 0);
	/* The arena has touched all of its memory by then. */
	for (unsigned p = 0; p < PAGES; p++) {
		struct cache_ref ref;

		assert_int_equal(cache_get(second, p, &ref), 0);
		cache_put(second, &ref, CACHE_KEEP);
	}
	assert_int_equal(cache_mapping_move(f.file, &f.outside), 0);
	for (unsigned i = 0; i < 2000; i++) {
		unsigned p = (unsigned)rng_below(&rng, PAGES);
		struct cache_stats s;

		if (rng_below(&rng, 3)) {
			assert_int_equal(get(&f, p), p + 1);
		} else {
			struct cache_ref ref;

			assert_int_equal(cache_get(second, p, &ref), 0);
			assert_int_equal(ref.data[0], p + 1);
			cache_put(second, &ref, CACHE_KEEP);
		}
		s = stats(&f);
		assert_true(s.used <= s.limit && s.kept <= s.limit && s.used >= there(&f) * PAGE);
	}
	/* Nothing of the arena is touched where the pages outside count. */
	cache_mapping_drop(second);
	cache_shrink(f.cache);
	assert_int_equal(stats(&f).kept, there(&f) * PAGE);
	cache_mapping_free(second);
	free(disk);
	end(&f);
}

static void there_is_room_for_so_many_pages(void **state)
{
	struct cache_ref ref;
	uint8_t byte = 1;
	struct fixture f;

	begin(&f, 64, 1);
	f.outside.pages = 8;
	assert_int_equal(cache_mapping_move(f.file, &f.outside), 0);
	assert_int_equal(get(&f, 7), 8);
	assert_int_equal(cache_get(f.file, 8, &ref), -EFBIG);
	assert_int_equal(cache_write(f.file, 8 * PAGE, &byte, 1, NULL), -EFBIG);
	assert_int_equal(cache_mapping_move(f.file, NULL), 0);
	assert_int_equal(get(&f, 8), 9);
	end(&f);
}

static void what_cannot_be_written_does_not_move(void **state)
{
	struct fixture f;

	begin(&f, 64, 1);
	put(&f, 4, 44);
	a32_set(&f.disk->fail_writes, 1);
	assert_int_equal(cache_mapping_move(f.file, &f.outside), -EIO);
	assert_int_equal(get(&f, 4), 44);
	assert_int_equal(there(&f), 0);
	a32_set(&f.disk->fail_writes, 0);
	assert_int_equal(cache_mapping_move(f.file, &f.outside), 0);
	assert_int_equal(get(&f, 4), 44);
	put(&f, 4, 45);
	a32_set(&f.disk->fail_writes, 1);
	assert_int_equal(cache_mapping_move(f.file, NULL), -EIO);
	assert_int_equal(f.other[4 * PAGE], 45);
	a32_set(&f.disk->fail_writes, 0);
	assert_int_equal(cache_mapping_move(f.file, NULL), 0);
	assert_int_equal(f.disk->bytes[4][0], 45);
	end(&f);
}

static uint32_t pin(struct fixture *f, unsigned page)
{
	struct folio *folio;
	uint32_t frame;

	assert_int_equal(cache_page_get(f->file, page, &folio), 0);
	frame = folio_page_frame(f->cache, f->file, folio, page);
	assert_int_equal(frame_pin(f->cache, frame, false), 0);
	folio_put(f->cache, folio);
	return frame;
}

static void what_is_pinned_moves_later(void **state)
{
	uint32_t frame;
	struct fixture f;

	begin(&f, 64, 1);
	frame = pin(&f, 6);
	get(&f, 7);
	assert_int_equal(cache_mapping_move(f.file, &f.outside), -EBUSY);
	/* It is where it was, others are there already. */
	assert_int_equal(frame_data(f.cache, frame)[0], 7);
	assert_int_equal(get(&f, 6), 7);
	assert_int_equal(get(&f, 7), 8);
	assert_int_equal(f.other[7 * PAGE], 8);
	assert_int_equal(cache_mapping_move(f.file, &f.outside), -EBUSY);
	frame_unpin(f.cache, frame, false);
	assert_int_equal(cache_mapping_move(f.file, &f.outside), 0);
	assert_int_equal(get(&f, 6), 7);
	assert_int_equal(f.other[6 * PAGE], 7);
	/* The same on the way back; a pin there is counted on, when the page has left its file. */
	frame = pin(&f, 6);
	assert_int_equal(cache_mapping_move(f.file, NULL), -EBUSY);
	assert_int_equal(cache_mapping_move(f.file, &f.outside), -EBUSY);
	assert_int_equal(f.other[6 * PAGE], 7);
	cache_punch(f.file, 6, 1);
	assert_int_equal(f.other[6 * PAGE], 0);
	assert_int_equal(stats(&f).used, PAGE);
	assert_int_equal(cache_mapping_move(f.file, NULL), -EBUSY);
	frame_unpin(f.cache, frame, false);
	assert_int_equal(stats(&f).used, 0);
	assert_int_equal(cache_mapping_move(f.file, NULL), 0);
	assert_int_equal(cache_mapping_move(f.file, &f.outside), 0);
	end(&f);
}

struct reader {
	struct fixture *f;
	struct cache_ref ref;
	struct a32 moving;
};

static void *mover_main(void *arg)
{
	struct reader *r = arg;

	a32_set_release(&r->moving, 1);
	must(cache_mapping_move(r->f->file, &r->f->outside) == 0);
	a32_set_release(&r->moving, 2);
	return NULL;
}

static void who_reads_is_waited_for(void **state)
{
	struct reader r = {0};
	pthread_t thread;
	struct fixture f;

	begin(&f, 64, 1);
	r.f = &f;
	assert_int_equal(cache_get(f.file, 3, &r.ref), 0);
	assert_int_equal(thread_start(&thread, mover_main, &r), 0);
	/* New ones lie outside as soon as it is under way. */
	while (!there(&f)) {
		get(&f, 8);
		cache_invalidate(f.file, 8, 1);
		get(&f, 8);
	}
	assert_int_equal(a32_read(&r.moving), 1);
	assert_int_equal(r.ref.data[5], 4);
	cache_put(f.file, &r.ref, CACHE_KEEP);
	pthread_join(thread, NULL);
	assert_int_equal(get(&f, 3), 4);
	assert_int_equal(f.other[3 * PAGE], 4);
	end(&f);
}

/* ---- all at once ---- */

#define WORKERS 4u

struct worker {
	struct fixture *f;
	struct a32 *stop, *stored;
	unsigned no;
	pthread_t thread;
};

/* Each has its own pages, in which it knows every byte. */
static void *worker_main(void *arg)
{
	struct worker *w = arg;
	struct rng rng = {w->no + 1};
	uint8_t mine[PAGES];

	for (unsigned p = 0; p < PAGES; p++)
		mine[p] = (uint8_t)(p + 1);
	while (!a32_read(w->stop)) {
		unsigned p = (unsigned)rng_below(&rng, PAGES / WORKERS) * WORKERS + w->no;

		switch (rng_below(&rng, 4)) {
		case 0:
			mine[p] = (uint8_t)rng_next(&rng);
			put(w->f, p, mine[p]);
			a32_count(w->stored, 1);
			break;
		case 1:
			cache_invalidate(w->f->file, p, 2);
			break;
		default:
			must(get(w->f, p) == mine[p]);
		}
	}
	for (unsigned p = w->no; p < PAGES; p += WORKERS)
		must(get(w->f, p) == mine[p]);
	return NULL;
}

static void a_file_moves_while_it_is_used(void **state)
{
	struct a32 stop = {0}, stored = {0};
	struct worker w[WORKERS];
	struct fixture f;
	unsigned moves = 0;

	/* Less memory than the file has. */
	begin(&f, 32, 1);
	for (unsigned i = 0; i < WORKERS; i++) {
		w[i] = (struct worker){.f = &f, .stop = &stop, .stored = &stored, .no = i};
		assert_int_equal(thread_start(&w[i].thread, worker_main, &w[i]), 0);
	}
	while (moves < 200 || a32_read(&stored) < 2000) {
		assert_int_equal(cache_mapping_move(f.file, moves % 2 ? NULL : &f.outside), 0);
		/* Nobody uses what was left. */
		if (moves % 2)
			assert_int_equal(there(&f), 0);
		moves++;
	}
	a32_set(&stop, 1);
	for (unsigned i = 0; i < WORKERS; i++)
		pthread_join(w[i].thread, NULL);
	assert_int_equal(cache_sync(f.file, 0, UINT64_MAX, NULL), 0);
	end(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(pages_lie_where_they_are_in_the_file),
		cmocka_unit_test(what_leaves_is_gone_from_there),
		cmocka_unit_test(one_limit_holds_for_all),
		cmocka_unit_test(there_is_room_for_so_many_pages),
		cmocka_unit_test(what_cannot_be_written_does_not_move),
		cmocka_unit_test(what_is_pinned_moves_later),
		cmocka_unit_test(who_reads_is_waited_for),
		cmocka_unit_test(a_file_moves_while_it_is_used),
	};

	return cmocka_run_group_tests_name("outside", tests, NULL, support_end);
}
