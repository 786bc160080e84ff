/* SPDX-License-Identifier: MIT */
/*
 * cache and mm with changed pages: mkwrite before dirty, pins, writeback from bounce copies, errors that are reported once,
 * pages that leave while they are pinned; on real threads, with the software MMU. tests/explore has all orders of it.
 */
#include "support.h"

#include "disk.h"
#include "mm/mm.h"
#include "mm/soft.h"

#define PAGES DISK_PAGES
#define PAGE DISK_PAGE
#define AT 0x10000000ull

struct fixture {
	struct disk *disk;
	struct cache *cache;
	struct cache_mapping *file;
	struct soft_mmu *mmu;
	struct mm *mm;
};

/* background: what the flusher leaves alone, in per cent. */
static struct fixture begin_with(unsigned frames, unsigned background)
{
	struct cache_options options = {.limit = (size_t)frames * PAGE, .dirty_background = background};
	struct fixture f = {.disk = disk_new(1)};
	struct soft_options soft = {.base = AT, .pages = 3 * PAGES};

	assert_int_equal(cache_new(&options, &f.cache), 0);
	assert_int_equal(cache_mapping_new(f.cache, &disk_ops, f.disk, PAGE, PAGES * PAGE, 0, &f.file), 0);
	assert_int_equal(soft_mmu_new(&soft, &f.mmu), 0);
	assert_int_equal(mm_new(f.cache, &soft_mmu_ops, f.mmu, &f.mm), 0);
	assert_int_equal(mm_map(f.mm, AT, PAGES * PAGE, VM_READ | VM_WRITE | VM_SHARED, f.file, 0, NULL), 0);
	return f;
}

/* Nothing is written but by what the test does. */
static struct fixture begin(unsigned frames)
{
	return begin_with(frames, 100);
}

static struct cache_counters count(struct fixture *f)
{
	struct cache_stats s;

	cache_get_stats(f->cache, &s);
	return s.count;
}

static uint64_t dirty(struct fixture *f)
{
	struct cache_stats s;

	cache_get_stats(f->cache, &s);
	return s.dirty / PAGE;
}

static void end(struct fixture *f)
{
	struct cache_stats s;

	mm_free(f->mm);
	soft_mmu_free(f->mmu);
	cache_mapping_free(f->file);
	for (unsigned p = 0; p < PAGES; p++)
		assert_int_equal(a32_read(&f->disk->reserved[p]), 0);
	cache_get_stats(f->cache, &s);
	assert_int_equal(s.used, 0);
	assert_int_equal(s.dirty, 0);
	cache_free(f->cache);
	free(f->disk);
	assert_int_equal(sync_violations(), 0);
}

static uint64_t load(struct fixture *f, unsigned page)
{
	uint64_t v = 0;

	assert_int_equal(soft_load(f->mm, AT + page * PAGE, &v), 0);
	return v;
}

static void a_store_is_announced_and_reaches_the_disk(void **state)
{
	struct fixture f = begin(32);

	assert_true(load(&f, 3) == 0x0404040404040404u);
	assert_int_equal(dirty(&f), 0);
	assert_int_equal(soft_store(f.mm, AT + 3 * PAGE, 77), 0);
	assert_int_equal(a32_read(&f.disk->reserved[3]), 1);
	assert_int_equal(soft_store(f.mm, AT + 3 * PAGE, 78), 0);
	assert_int_equal(count(&f).pgmkwrite, 1);
	assert_int_equal(dirty(&f), 1);
	assert_int_equal(cache_sync(f.file, 0, UINT64_MAX, NULL), 0);
	assert_true(disk_word(f.disk, 3) == 78);
	assert_int_equal(dirty(&f), 0);
	/* Write-protected by that: the next store is announced again. */
	assert_int_equal(soft_store(f.mm, AT + 3 * PAGE, 79), 0);
	assert_int_equal(count(&f).pgmkwrite, 2);
	assert_true(load(&f, 3) == 79);
	end(&f);
}

static void no_space_is_said_to_who_stores(void **state)
{
	struct fixture f = begin(32);

	a32_set(&f.disk->no_space, 1);
	assert_int_equal(soft_store(f.mm, AT, 1), -EFAULT);
	assert_int_equal(cache_write(f.file, 0, "x", 1, NULL), -ENOSPC);
	assert_int_equal(dirty(&f), 0);
	assert_int_equal(count(&f).pgmkwrite_refused, 2);
	a32_set(&f.disk->no_space, 0);
	assert_int_equal(soft_store(f.mm, AT, 1), 0);
	end(&f);
}

static void a_pinned_page_is_copied_and_stays_dirty(void **state)
{
	struct fixture f = begin(32);
	uint32_t frame;

	assert_int_equal(mm_pin(f.mm, AT, 1, PIN_FOR_WRITE, &frame), 0);
	assert_int_equal(dirty(&f), 1); /* mkwrite came first (R1) */
	soft_dma_store(f.cache, frame, 0, 5);
	assert_int_equal(cache_sync(f.file, 0, UINT64_MAX, NULL), 0);
	assert_true(disk_word(f.disk, 0) == 5);
	assert_int_equal(count(&f).pgbounce, 1);
	assert_int_equal(count(&f).pgdirty_pinned, 1);
	assert_int_equal(dirty(&f), 1); /* R3 */
	soft_dma_store(f.cache, frame, 0, 6);
	mm_unpin(f.mm, &frame, 1, PIN_FOR_WRITE);
	assert_int_equal(cache_sync(f.file, 0, UINT64_MAX, NULL), 0);
	assert_true(disk_word(f.disk, 0) == 6);
	assert_int_equal(dirty(&f), 0);
	assert_int_equal(count(&f).pgbounce, 1);
	end(&f);
}

static void a_pinned_page_outlives_its_file(void **state)
{
	struct fixture f = begin(32);
	struct cache_stats s;
	uint32_t frame;

	assert_int_equal(mm_pin(f.mm, AT + 5 * PAGE, 1, PIN_FOR_WRITE, &frame), 0);
	cache_truncate(f.file, 5 * PAGE);
	assert_int_equal(dirty(&f), 0);
	assert_int_equal(soft_store(f.mm, AT + 5 * PAGE, 1), -EFAULT);
	memset(f.disk->bytes[5], 0, PAGE);
	cache_truncate(f.file, PAGES * PAGE);
	soft_dma_store(f.cache, frame, 0, 99);
	assert_true(load(&f, 5) == 0); /* R5: reaches nobody */
	cache_get_stats(f.cache, &s);
	assert_int_equal(s.used, 2 * PAGE);
	mm_unpin(f.mm, &frame, 1, PIN_FOR_WRITE);
	cache_get_stats(f.cache, &s);
	assert_int_equal(s.used, PAGE);
	assert_int_equal(count(&f).pgpark_free, 1);
	end(&f);
}

static void a_pinned_page_is_not_reclaimed(void **state)
{
	struct fixture f = begin(32);
	uint32_t frame;

	assert_int_equal(mm_pin(f.mm, AT, 1, 0, &frame), 0);
	assert_int_equal(cache_reclaim(f.cache, PAGE), 0);
	assert_true(count(&f).pgsteal_pinned > 0);
	assert_int_equal(cache_invalidate(f.file, 0, PAGES), 1);
	mm_unpin(f.mm, &frame, 1, 0);
	assert_int_equal(cache_reclaim(f.cache, PAGE), PAGE);
	end(&f);
}

static void a_failed_writeback_loses_nothing_and_is_reported_once(void **state)
{
	struct fixture f = begin(32);
	struct cache_errseq before, other, after;

	cache_errseq_sample(f.file, &before);
	cache_errseq_sample(f.file, &other);
	assert_int_equal(soft_store(f.mm, AT, 1), 0);
	a32_set(&f.disk->fail_writes, 1);
	assert_int_equal(cache_writeback(f.file, 10), 1);
	assert_int_equal(dirty(&f), 1);
	a32_set(&f.disk->fail_writes, 0);
	/* It can be written now, but each who had the file open hears of it, once. */
	assert_int_equal(cache_sync(f.file, 0, UINT64_MAX, &before), -EIO);
	assert_int_equal(cache_sync(f.file, 0, UINT64_MAX, &before), 0);
	cache_errseq_sample(f.file, &after);
	assert_int_equal(cache_sync(f.file, 0, UINT64_MAX, &after), 0);
	assert_int_equal(cache_sync(f.file, 0, UINT64_MAX, &other), -EIO);
	assert_int_equal(cache_sync(f.file, 0, UINT64_MAX, &other), 0);
	assert_true(disk_word(f.disk, 0) == 1);
	end(&f);
}

/* Pages 1, 3 to 5 and 7 are three writes of one batch; what is wrong with the second is not the others' fault. */
static void an_error_in_the_middle_of_a_batch(void **state)
{
	static const unsigned pages[] = {1, 3, 4, 5, 7};
	struct fixture f = begin(32);

	for (size_t i = 0; i < ARRAY_SIZE(pages); i++)
		assert_int_equal(soft_store(f.mm, AT + pages[i] * PAGE, 100 + pages[i]), 0);
	for (unsigned failing = 3; failing <= 5; failing++) {
		a32_set(&f.disk->fail_page, 1 + failing);
		assert_int_equal(cache_sync(f.file, 0, UINT64_MAX, NULL), -EIO);
		assert_int_equal(dirty(&f), 3);
	}
	assert_true(disk_word(f.disk, 1) == 101 && disk_word(f.disk, 7) == 107);
	assert_int_equal(count(&f).pgpgout, 2);
	assert_int_equal(count(&f).pgpgout_error, 3);
	for (size_t i = 0; i < ARRAY_SIZE(pages); i++)
		assert_true(load(&f, pages[i]) == 100 + pages[i]);
	a32_set(&f.disk->fail_page, 0);
	assert_int_equal(cache_sync(f.file, 0, UINT64_MAX, NULL), 0);
	for (size_t i = 0; i < ARRAY_SIZE(pages); i++)
		assert_true(disk_word(f.disk, pages[i]) == 100 + pages[i]);
	assert_int_equal(count(&f).pgmkwrite, 5);
	end(&f);
}

/* R11: what fork has made common is not stored into where it is, whichever way a program comes back to it. */
static void a_shared_private_page_is_copied_where_it_has_moved_to(void **state)
{
	struct soft_options soft = {.base = AT, .pages = PAGES + 4};
	const uint64_t at = AT + PAGES * PAGE, moved = at + 2 * PAGE;
	struct fixture f = begin(32);
	struct soft_mmu *mmu, *mine;
	struct mm *child, *mm;
	uint64_t v;

	assert_int_equal(soft_mmu_new(&soft, &mine), 0);
	assert_int_equal(soft_mmu_new(&soft, &mmu), 0);
	assert_int_equal(mm_new(f.cache, &soft_mmu_ops, mine, &mm), 0);
	assert_int_equal(mm_map(mm, at, PAGE, VM_READ | VM_WRITE, NULL, 0, NULL), 0);
	assert_int_equal(soft_store(mm, at, 1), 0);
	assert_int_equal(mm_fork(mm, mmu, &child), 0);
	/* There the load brings back what the page table says of it. */
	assert_int_equal(mm_remap(mm, at, PAGE, moved), 0);
	assert_int_equal(soft_load(mm, moved, &v), 0);
	assert_true(v == 1);
	assert_int_equal(soft_store(mm, moved, 2), 0);
	assert_int_equal(soft_load(child, at, &v), 0);
	assert_true(v == 1);
	assert_int_equal(soft_load(mm, moved, &v), 0);
	assert_true(v == 2);
	mm_free(child);
	mm_free(mm);
	soft_mmu_free(mmu);
	soft_mmu_free(mine);
	end(&f);
}

static void a_child_gets_copies_of_pinned_pages(void **state)
{
	struct soft_options soft = {.base = AT, .pages = PAGES + 2};
	const uint64_t at = AT + PAGES * PAGE;
	struct fixture f = begin(32);
	struct soft_mmu *mmu, *mine;
	struct mm *child, *mm;
	uint32_t frame;
	uint64_t v;

	assert_int_equal(soft_mmu_new(&soft, &mine), 0);
	assert_int_equal(soft_mmu_new(&soft, &mmu), 0);
	assert_int_equal(mm_new(f.cache, &soft_mmu_ops, mine, &mm), 0);
	assert_int_equal(mm_map(mm, at, 2 * PAGE, VM_READ | VM_WRITE, NULL, 0, NULL), 0);
	assert_int_equal(soft_store(mm, at, 1), 0);
	assert_int_equal(soft_store(mm, at + PAGE, 1), 0);
	assert_int_equal(mm_pin(mm, at, 1, PIN_FOR_WRITE, &frame), 0);
	assert_int_equal(mm_fork(mm, mmu, &child), 0);
	assert_int_equal(count(&f).fork_copy_pinned, 1);
	/* R12: the parent has the very page that the device stores into. */
	soft_dma_store(f.cache, frame, 0, 2);
	assert_int_equal(soft_store(mm, at + PAGE, 2), 0);
	assert_int_equal(soft_load(mm, at, &v), 0);
	assert_true(v == 2);
	assert_int_equal(soft_load(child, at, &v), 0);
	assert_true(v == 1);
	assert_int_equal(soft_load(child, at + PAGE, &v), 0);
	assert_true(v == 1);
	mm_unpin(mm, &frame, 1, PIN_FOR_WRITE);
	mm_free(child);
	mm_free(mm);
	soft_mmu_free(mmu);
	soft_mmu_free(mine);
	end(&f);
}

static void ranges_are_cut_and_moved(void **state)
{
	struct fixture f = begin(32);
	uint64_t v;

	assert_int_equal(mm_map(f.mm, AT + PAGE, PAGE, VM_READ, NULL, 0, NULL), -EEXIST);
	assert_int_equal(soft_store(f.mm, AT + 9 * PAGE, 9), 0);
	assert_int_equal(mm_unmap(f.mm, AT + 4 * PAGE, 4 * PAGE), 0);
	assert_int_equal(soft_load(f.mm, AT + 4 * PAGE, &v), -EFAULT);
	assert_int_equal(soft_load(f.mm, AT + 7 * PAGE, &v), -EFAULT);
	assert_true(load(&f, 3) == 0x0404040404040404u);
	assert_true(load(&f, 8) == 0x0909090909090909u);
	assert_int_equal(mm_protect(f.mm, AT, 2 * PAGE, VM_READ), 0);
	assert_int_equal(soft_store(f.mm, AT, 1), -EFAULT);
	assert_int_equal(soft_store(f.mm, AT + 2 * PAGE, 1), 0);
	assert_int_equal(mm_map(f.mm, AT + 5 * PAGE, PAGE, VM_READ | VM_WRITE, NULL, 0, NULL), 0);
	assert_int_equal(soft_store(f.mm, AT + 5 * PAGE, 55), 0);
	assert_int_equal(mm_remap(f.mm, AT + 5 * PAGE, PAGE, AT + 3 * PAGE), -EEXIST);
	assert_int_equal(mm_remap(f.mm, AT + 5 * PAGE, PAGE, AT + 6 * PAGE), 0);
	assert_int_equal(soft_load(f.mm, AT + 5 * PAGE, &v), -EFAULT);
	assert_int_equal(soft_load(f.mm, AT + 6 * PAGE, &v), 0);
	assert_true(v == 55);
	end(&f);
}

/* Of three files only the last one has dirty pages that can be reclaimed once they are written. */
static void memory_comes_from_whatever_file_has_some(void **state)
{
	struct fixture f = begin(24);
	struct cache_mapping *files[2];
	struct cache_ref held[12], ref;
	uint32_t frames[10];

	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(cache_mapping_new(f.cache, &disk_ops, f.disk, PAGE, PAGES * PAGE, 0, &files[i]), 0);
		assert_int_equal(mm_map(f.mm, AT + (i + 1) * PAGES * PAGE, PAGES * PAGE, VM_READ | VM_WRITE | VM_SHARED,
			files[i], 0, NULL), 0);
	}
	/* Half of the memory is dirty, not more: so who stores writes only its own file's. Each file has pages of the disk to itself. */
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(cache_write(files[1], (20 + i) * PAGE, "x", 1, NULL), 0);
	assert_int_equal(mm_pin(f.mm, AT, 5, PIN_FOR_WRITE, frames), 0);
	assert_int_equal(mm_pin(f.mm, AT + (PAGES + 10) * PAGE, 5, PIN_FOR_WRITE, frames + 5), 0);
	assert_int_equal(dirty(&f), 12);
	assert_int_equal(count(&f).pgpgout, 0);
	for (unsigned i = 0; i < 12; i++)
		assert_int_equal(cache_get(f.file, 30 + i, &held[i]), 0);
	for (unsigned i = 0; i < 10; i++) {
		assert_int_equal(cache_get(files[i % 2], 30 + i, &ref), 0);
		cache_put(files[i % 2], &ref, CACHE_KEEP);
	}
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(f.disk->bytes[20 + i][0], 'x');
	for (unsigned i = 0; i < 12; i++)
		cache_put(f.file, &held[i], CACHE_KEEP);
	mm_unpin(f.mm, frames, 10, PIN_FOR_WRITE);
	assert_int_equal(mm_unmap(f.mm, AT, 3 * PAGES * PAGE), 0);
	for (unsigned i = 0; i < 2; i++)
		cache_mapping_free(files[i]);
	end(&f);
}

static void long_pins_have_a_limit(void **state)
{
	struct fixture f = begin(64);
	uint32_t frames[PAGES];

	assert_int_equal(mm_pin(f.mm, AT, 8, PIN_LONGTERM, frames), 0);
	assert_int_equal(mm_pin(f.mm, AT, 1, PIN_LONGTERM, frames + 8), -EAGAIN);
	assert_int_equal(mm_pin(f.mm, AT, 1, 0, frames + 8), 0);
	mm_unpin(f.mm, frames + 8, 1, 0);
	mm_unpin(f.mm, frames, 8, PIN_LONGTERM);
	assert_int_equal(mm_pin(f.mm, AT, 1, PIN_LONGTERM, frames), 0);
	mm_unpin(f.mm, frames, 1, PIN_LONGTERM);
	end(&f);
}

/* ---- the limits of pins ---- */

static uint64_t pin_one(bool write)
{
	return write ? PIN_WRITE : PIN_READ;
}

/* A frame that page `page` has, with so many pins more than it has got. */
static uint32_t pins_preset(struct fixture *f, unsigned page, uint64_t pins)
{
	uint32_t frame;

	assert_int_equal(mm_pin(f->mm, AT + page * PAGE, 1, PIN_FOR_WRITE, &frame), 0);
	mm_unpin(f->mm, &frame, 1, PIN_FOR_WRITE);
	a64_fetch_add(&frame_folio(f->cache, frame)->pins, pins);
	return frame;
}

static void too_many_pins(bool write)
{
	const uint64_t one = pin_one(write), others = 5 * pin_one(!write), full = PIN_LIMIT * one + others;
	unsigned flags = write ? PIN_FOR_WRITE : 0;
	struct soft_options soft = {.base = AT, .pages = PAGES};
	struct fixture f = begin(32);
	uint32_t frame = pins_preset(&f, 1, full - one), got, frames[3];
	struct soft_mmu *mmu;
	struct mm *mm;

	assert_true(mm_pin_fast(f.mm, AT + PAGE, write, &got));
	assert_int_equal(got, frame);
	assert_true(frame_pins(f.cache, frame) == full);
	/* One too many: the fast way, the slow one, the one with a fault before it, and in the middle of others. */
	assert_false(mm_pin_fast(f.mm, AT + PAGE, write, &got));
	assert_int_equal(mm_pin(f.mm, AT + PAGE, 1, flags, &got), -EAGAIN);
	assert_int_equal(mm_pin(f.mm, AT + PAGE, 1, flags | PIN_NOWAIT, &got), -EAGAIN);
	assert_int_equal(mm_pin(f.mm, AT + PAGE, 1, flags | PIN_LONGTERM, &got), -EAGAIN);
	assert_int_equal(soft_mmu_new(&soft, &mmu), 0);
	assert_int_equal(mm_new(f.cache, &soft_mmu_ops, mmu, &mm), 0);
	assert_int_equal(mm_map(mm, AT, PAGES * PAGE, VM_READ | VM_WRITE | VM_SHARED, f.file, 0, NULL), 0);
	assert_int_equal(mm_pin(mm, AT + PAGE, 1, flags, &got), -EAGAIN);
	assert_int_equal(mm_pin(mm, AT, 3, flags, frames), -EAGAIN);
	assert_true(frame_pins(f.cache, frame) == full);
	assert_true(count(&f).pin_limit >= 6);
	assert_int_equal(mm_pin(mm, AT, 1, flags, frames), 0);
	assert_true(frame_pins(f.cache, frames[0]) == one);
	mm_unpin(mm, frames, 1, flags);
	/* The other half has room, and a pin less makes some in this one. */
	assert_int_equal(frame_pin(f.cache, frame, !write), 0);
	assert_true(frame_pins(f.cache, frame) == full + pin_one(!write));
	frame_unpin(f.cache, frame, !write);
	frame_unpin(f.cache, frame, write);
	assert_int_equal(mm_pin(f.mm, AT + PAGE, 1, flags, &got), 0);
	assert_true(frame_pins(f.cache, frame) == full);
	a64_set(&frame_folio(f.cache, frame)->pins, 0);
	mm_free(mm);
	soft_mmu_free(mmu);
	end(&f);
}

static void too_many_readers_are_refused(void **state)
{
	too_many_pins(false);
}

static void too_many_writers_are_refused(void **state)
{
	too_many_pins(true);
}

#define PINNERS 4u
#define PIN_ROOM 2u

struct pinner {
	struct fixture *f;
	pthread_t thread;
	unsigned flags, pages;	 /* of each pin */
	struct a32 *held;	 /* by all */
	unsigned room;		 /* at most so many at once */
};

static void *pinner_main(void *arg)
{
	struct pinner *p = arg;
	uint32_t frames[4];

	for (unsigned i = 0; i < 20000; i++) {
		int r = mm_pin(p->f->mm, AT + PAGE, p->pages, p->flags, frames);

		must(r == 0 || r == -EAGAIN);
		if (r < 0)
			continue;
		must(a32_fetch_add(p->held, 1) < p->room);
		a32_fetch_add(p->held, (uint32_t)-1);
		mm_unpin(p->f->mm, frames, p->pages, p->flags);
	}
	return NULL;
}

/* Threads that try at once never have more than there is room for. */
static void pin_race(struct fixture *f, unsigned flags, unsigned pages, unsigned room)
{
	struct pinner p[PINNERS];
	struct a32 held = {0};

	for (unsigned i = 0; i < PINNERS; i++) {
		p[i] = (struct pinner){.f = f, .flags = flags, .pages = pages, .held = &held, .room = room};
		assert_int_equal(thread_start(&p[i].thread, pinner_main, &p[i]), 0);
	}
	for (unsigned i = 0; i < PINNERS; i++)
		pthread_join(p[i].thread, NULL);
}

static void the_limit_of_pins_holds_for_threads(void **state)
{
	for (unsigned write = 0; write < 2; write++) {
		const uint64_t preset = (PIN_LIMIT - PIN_ROOM) * pin_one(write) + 7 * pin_one(!write);
		struct fixture f = begin(32);
		uint32_t frame = pins_preset(&f, 1, preset);

		pin_race(&f, write ? PIN_FOR_WRITE : 0, 1, PIN_ROOM);
		assert_true(frame_pins(f.cache, frame) == preset);
		a64_set(&frame_folio(f.cache, frame)->pins, 0);
		end(&f);
	}
}

static void the_limit_of_long_pins_holds_for_threads(void **state)
{
	struct fixture f = begin(64);
	uint32_t frames[9];

	/* Eight pages in all. */
	pin_race(&f, PIN_LONGTERM, 3, 2);
	assert_int_equal(mm_pin(f.mm, AT, 9, PIN_LONGTERM, frames), -EAGAIN);
	assert_int_equal(mm_pin(f.mm, AT, 8, PIN_LONGTERM, frames), 0);
	mm_unpin(f.mm, frames, 8, PIN_LONGTERM);
	for (unsigned i = 0; i < 8; i++)
		assert_true(frame_pins(f.cache, frames[i]) == 0);
	end(&f);
}

/* ---- everything at once ---- */

struct hammer {
	struct fixture *f;
	pthread_t thread;
	unsigned seed, kind;
};

static struct a32 stop;

/* Thread k alone changes word k of each page, so each knows what it must find there. */
#define HAMMERS 4u

static void hammer_once(struct hammer *h, struct rng *rng, uint64_t *mine)
{
	unsigned page = (unsigned)rng_below(rng, PAGES - 8);
	uint64_t at = AT + page * PAGE + 8 * h->seed, v;
	struct cache_ref ref;
	uint32_t frame;

	switch (rng_below(rng, 6)) {
	case 0:
		v = mine[page] + 1;
		must(soft_store(h->f->mm, at, v) == 0);
		mine[page] = v;
		break;
	case 4:
		v = mine[page] + 1;
		must(cache_write(h->f->file, page * PAGE + 8 * h->seed, &v, sizeof(v), NULL) == 0);
		mine[page] = v;
		break;
	case 5:
		must(cache_get(h->f->file, page, &ref) == 0);
		memcpy(&v, ref.data + 8 * h->seed, sizeof(v));
		must(v == mine[page]);
		cache_put(h->f->file, &ref, rng_below(rng, 2) ? CACHE_KEEP : CACHE_COLD);
		break;
	case 1:
		must(soft_load(h->f->mm, at, &v) == 0);
		must(v == mine[page]);
		break;
	case 2:
		must(mm_pin(h->f->mm, at & ~(uint64_t)(PAGE - 1), 1, PIN_FOR_WRITE, &frame) == 0);
		v = mine[page] + 1;
		soft_dma_store(h->f->cache, frame, 8 * h->seed, v);
		mine[page] = v;
		mm_unpin(h->f->mm, &frame, 1, PIN_FOR_WRITE);
		break;
	default:
		must(mm_pin(h->f->mm, at & ~(uint64_t)(PAGE - 1), 1, 0, &frame) == 0);
		must(soft_dma_load(h->f->cache, frame, 8 * h->seed) == mine[page]);
		mm_unpin(h->f->mm, &frame, 1, 0);
	}
}

static void *hammer_main(void *arg)
{
	struct hammer *h = arg;
	struct rng rng = {h->seed + 1};
	uint64_t mine[PAGES];

	for (unsigned p = 0; p < PAGES; p++)
		memset(&mine[p], (int)p + 1, 8);
	while (!a32_read(&stop))
		hammer_once(h, &rng, mine);
	/* What was stored is what the file has, by any way. */
	for (unsigned p = 0; p < PAGES - 8; p++) {
		uint64_t v;

		must(soft_load(h->f->mm, AT + p * PAGE + 8 * h->seed, &v) == 0);
		must(v == mine[p]);
	}
	return NULL;
}

static void *flusher_main(void *arg)
{
	struct fixture *f = arg;

	while (!a32_read(&stop)) {
		cache_writeback(f->file, 8);
		must(cache_sync(f->file, 0, UINT64_MAX, NULL) == 0);
		cache_reclaim(f->cache, 4 * PAGE);
		cache_shrink(f->cache);
	}
	return NULL;
}

/* The last eight pages come and go. */
static void *cutter_main(void *arg)
{
	struct fixture *f = arg;

	while (!a32_read(&stop)) {
		uint64_t v;

		cache_truncate(f->file, (PAGES - 8) * PAGE);
		for (unsigned p = PAGES - 8; p < PAGES; p++)
			memset(f->disk->bytes[p], 0, PAGE);
		cache_truncate(f->file, PAGES * PAGE);
		must(soft_load(f->mm, AT + (PAGES - 1) * PAGE, &v) == 0 && v == 0);
		must(soft_store(f->mm, AT + (PAGES - 1) * PAGE, 1) == 0);
		cache_punch(f->file, PAGES - 1, 1);
		memset(f->disk->bytes[PAGES - 1], 0, PAGE);
	}
	return NULL;
}

static void everything_at_once(void **state)
{
	struct fixture f = begin_with(64, 0);
	struct hammer h[HAMMERS];
	pthread_t flusher, cutter;
	const char *rounds = getenv("PINFS_HAMMER_ROUNDS");
	unsigned want = rounds ? (unsigned)atoi(rounds) : 2000;

	a32_set(&stop, 0);
	assert_int_equal(thread_start(&flusher, flusher_main, &f), 0);
	assert_int_equal(thread_start(&cutter, cutter_main, &f), 0);
	for (unsigned i = 0; i < HAMMERS; i++) {
		h[i] = (struct hammer){.f = &f, .seed = i};
		assert_int_equal(thread_start(&h[i].thread, hammer_main, &h[i]), 0);
	}
	/* Until so many pages were written back, bounced and reclaimed. */
	while (count(&f).pgpgout < want || count(&f).pgsteal < want / 4 || count(&f).pin_fast < want)
		sched_yield();
	a32_set(&stop, 1);
	for (unsigned i = 0; i < HAMMERS; i++)
		pthread_join(h[i].thread, NULL);
	pthread_join(flusher, NULL);
	pthread_join(cutter, NULL);
	assert_int_equal(cache_sync(f.file, 0, UINT64_MAX, NULL), 0);
	end(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_store_is_announced_and_reaches_the_disk),
		cmocka_unit_test(no_space_is_said_to_who_stores),
		cmocka_unit_test(a_pinned_page_is_copied_and_stays_dirty),
		cmocka_unit_test(a_pinned_page_outlives_its_file),
		cmocka_unit_test(a_pinned_page_is_not_reclaimed),
		cmocka_unit_test(a_failed_writeback_loses_nothing_and_is_reported_once),
		cmocka_unit_test(an_error_in_the_middle_of_a_batch),
		cmocka_unit_test(a_shared_private_page_is_copied_where_it_has_moved_to),
		cmocka_unit_test(a_child_gets_copies_of_pinned_pages),
		cmocka_unit_test(ranges_are_cut_and_moved),
		cmocka_unit_test(memory_comes_from_whatever_file_has_some),
		cmocka_unit_test(long_pins_have_a_limit),
		cmocka_unit_test(too_many_readers_are_refused),
		cmocka_unit_test(too_many_writers_are_refused),
		cmocka_unit_test(the_limit_of_pins_holds_for_threads),
		cmocka_unit_test(the_limit_of_long_pins_holds_for_threads),
		cmocka_unit_test(everything_at_once),
	};

	return cmocka_run_group_tests_name("pages", tests, NULL, support_end);
}
