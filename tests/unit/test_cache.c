/* SPDX-License-Identifier: MIT */
/* cache: one fill for however many readers, bounded memory, the right victims, no reader who waits for ever. */
#include "support.h"

#include <time.h>

#include "base/sync.h"
#include "cache/cache.h"

#define BLOCK 65536u
#define COUNT 4096u

/* An owner of blocks that counts, and does as it is told. */
struct owner {
	uint32_t block_size;
	atomic_uint fills[COUNT]; /* how often each block was filled */
	atomic_uint under_way[COUNT];
	atomic_uint calls, longest;
	_Atomic(uint64_t) fails; /* this block's fills fail; UINT64_MAX: none */
	_Atomic(uint64_t) empty; /* this block's reads bring nothing, and say no error */
	bool short_blocks;	 /* every second block has 100 bytes */
	/* While `closed`, fills wait. */
	struct mutex lock;
	struct cond opened;
	bool closed;
	atomic_uint waiting;
};

static uint8_t byte_of(uint64_t index, uint32_t at)
{
	return (uint8_t)(index * 31 + at / 64 * 7 + 1);
}

static uint32_t length_of(const struct owner *o, uint64_t index)
{
	return o->short_blocks && index % 2 ? 100 : o->block_size;
}

static int size_of(void *owner, uint64_t index)
{
	return (int)length_of(owner, index);
}

static void fill(void *owner, uint64_t first, unsigned count, struct cache_fill *fills)
{
	struct owner *o = owner;

	mutex_lock(&o->lock);
	atomic_fetch_add(&o->waiting, 1);
	while (o->closed)
		cond_wait(&o->opened, &o->lock);
	atomic_fetch_sub(&o->waiting, 1);
	mutex_unlock(&o->lock);
	atomic_fetch_add(&o->calls, 1);
	if (count > atomic_load(&o->longest))
		atomic_store(&o->longest, count);
	for (unsigned i = 0; i < count; i++) {
		uint64_t index = first + i;

		must(index < COUNT);
		/* "never twice at once for the same block" */
		must(atomic_fetch_add(&o->under_way[index], 1) == 0);
		atomic_fetch_add(&o->fills[index], 1);
		if (index == atomic_load(&o->fails)) {
			fills[i].error = -EIO;
		} else if (index == atomic_load(&o->empty)) {
			fills[i].len = 0;
		} else {
			must(fills[i].len == length_of(o, index));
			for (uint32_t at = 0; at < fills[i].len; at += 64)
				fills[i].data[at] = byte_of(index, at);
		}
		atomic_fetch_sub(&o->under_way[index], 1);
	}
}

static void gate(struct owner *o, bool closed)
{
	mutex_lock(&o->lock);
	o->closed = closed;
	cond_broadcast(&o->opened);
	mutex_unlock(&o->lock);
}

static const struct cache_ops ops = {.size = size_of, .read = fill};

struct fixture {
	struct owner *owner;
	struct cache *cache;
	struct cache_mapping *mapping;
};

static struct fixture begin(uint32_t block_size, unsigned blocks, unsigned readahead)
{
	struct cache_options options = {.limit = (size_t)block_size * blocks, .readahead_threads = readahead};
	struct fixture f = {.owner = calloc(1, sizeof(*f.owner))};

	assert_non_null(f.owner);
	f.owner->block_size = block_size;
	f.owner->fails = f.owner->empty = UINT64_MAX;
	mutex_init(&f.owner->lock, LOCK_TEST);
	cond_init(&f.owner->opened);
	assert_int_equal(cache_new(&options, &f.cache), 0);
	assert_int_equal(cache_mapping_new(f.cache, &ops, f.owner, block_size, (uint64_t)COUNT * block_size, 0,
		&f.mapping), 0);
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
	cache_mapping_free(f->mapping);
	assert_int_equal(stats(f).used, 0);
	cache_free(f->cache);
	free(f->owner);
}

static void check(const struct owner *o, uint64_t index, const struct cache_ref *ref)
{
	must(ref->len == length_of(o, index));
	for (uint32_t at = 0; at < ref->len; at += 64)
		must(ref->data[at] == byte_of(index, at));
}

/* Gets, verifies and puts one block. */
static int touch(struct fixture *f, uint64_t index, enum cache_hint hint)
{
	struct cache_ref ref;
	int r = cache_get(f->mapping, index, &ref);

	if (r < 0)
		return r;
	check(f->owner, index, &ref);
	cache_put(f->mapping, &ref, hint);
	return 0;
}

static void wait_until(bool (*condition)(struct fixture *), struct fixture *f)
{
	for (unsigned i = 0; !condition(f); i++) {
		struct timespec t = {0, 1000000};

		must(i < 20000);
		nanosleep(&t, NULL);
	}
}

static void second_get_is_a_hit(void **state)
{
	struct fixture f = begin(BLOCK, 16, 0);

	assert_int_equal(touch(&f, 5, CACHE_KEEP), 0);
	assert_int_equal(touch(&f, 5, CACHE_KEEP), 0);
	assert_int_equal(f.owner->fills[5], 1);
	assert_int_equal(stats(&f).count.cache_hit, 1);
	assert_int_equal(stats(&f).count.cache_miss, 1);
	end(&f);
}

static void failed_fill_leaves_nothing(void **state)
{
	struct fixture f = begin(BLOCK, 16, 0);

	f.owner->fails = 7;
	f.owner->empty = 8;
	assert_int_equal(touch(&f, 7, CACHE_KEEP), -EIO);
	assert_int_equal(touch(&f, 8, CACHE_KEEP), -EIO);
	assert_int_equal(stats(&f).used, 0);
	assert_int_equal(stats(&f).count.pgpgin_error, 2);
	f.owner->fails = f.owner->empty = UINT64_MAX;
	assert_int_equal(touch(&f, 7, CACHE_KEEP), 0);
	assert_int_equal(touch(&f, 8, CACHE_KEEP), 0);
	end(&f);
}

struct reader {
	pthread_t thread;
	struct fixture *f;
	uint64_t index;
	int result;
};

static void *reader_main(void *arg)
{
	struct reader *r = arg;

	r->result = touch(r->f, r->index, CACHE_KEEP);
	return NULL;
}

static bool seven_wait(struct fixture *f)
{
	return stats(f).count.cache_wait == 7;
}

static void readers_of_one_block(uint64_t fails, int expected)
{
	struct fixture f = begin(BLOCK, 16, 0);
	struct reader readers[8];

	f.owner->fails = fails;
	gate(f.owner, true);
	for (size_t i = 0; i < ARRAY_SIZE(readers); i++) {
		readers[i] = (struct reader){.f = &f, .index = 3};
		assert_int_equal(thread_start(&readers[i].thread, reader_main, &readers[i]), 0);
	}
	wait_until(seven_wait, &f);
	gate(f.owner, false);
	for (size_t i = 0; i < ARRAY_SIZE(readers); i++) {
		pthread_join(readers[i].thread, NULL);
		assert_int_equal(readers[i].result, expected);
	}
	assert_int_equal(f.owner->fills[3], 1);
	end(&f);
}

static void readers_of_one_block_share_its_fill(void **state)
{
	readers_of_one_block(UINT64_MAX, 0);
}

static void readers_of_one_block_share_its_error(void **state)
{
	readers_of_one_block(3, -EIO);
}

static void memory_stays_in_the_limit(void **state)
{
	struct fixture f = begin(BLOCK, 16, 0);

	for (uint64_t i = 0; i < 1000; i++) {
		assert_int_equal(touch(&f, i, CACHE_KEEP), 0);
		assert_true(stats(&f).used <= 16 * BLOCK);
	}
	assert_int_equal(stats(&f).count.pgsteal, 1000 - 16);
	end(&f);
}

static void referenced_blocks_stay(void **state)
{
	struct fixture f = begin(BLOCK, 16, 0);
	struct cache_ref held;

	assert_int_equal(cache_get(f.mapping, 0, &held), 0);
	for (uint64_t i = 1; i < 200; i++)
		assert_int_equal(touch(&f, i, CACHE_KEEP), 0);
	check(f.owner, 0, &held);
	cache_put(f.mapping, &held, CACHE_KEEP);
	assert_int_equal(touch(&f, 0, CACHE_KEEP), 0);
	assert_int_equal(f.owner->fills[0], 1);
	end(&f);
}

/* The oldest of all is in use, and the kernel's: it keeps nobody from what comes after it. */
static void a_cold_block_in_use_blocks_nobody(void **state)
{
	struct fixture f = begin(BLOCK, 16, 0);
	struct cache_ref held;

	assert_int_equal(cache_get(f.mapping, 0, &held), 0);
	assert_int_equal(touch(&f, 0, CACHE_COLD), 0);
	for (uint64_t i = 1; i < 200; i++)
		assert_int_equal(touch(&f, i, CACHE_KEEP), 0);
	check(f.owner, 0, &held);
	cache_put(f.mapping, &held, CACHE_KEEP);
	end(&f);
}

static void short_blocks_share_memory(void **state)
{
	struct fixture f = begin(BLOCK, 16, 0);

	f.owner->short_blocks = true;
	/* Eight whole blocks, and 100 bytes each of a hundred others: a page for each is enough. */
	for (uint64_t i = 0; i < 16; i += 2)
		assert_int_equal(touch(&f, i, CACHE_KEEP), 0);
	for (uint64_t i = 101; i < 301; i += 2)
		assert_int_equal(touch(&f, i, CACHE_KEEP), 0);
	assert_int_equal(stats(&f).used, 8 * BLOCK + 100 * 4096);
	assert_int_equal(stats(&f).count.pgsteal, 0);
	end(&f);
}

/* What was read twice survives a scan through many times the memory. */
static void a_scan_spares_what_is_in_use(void **state)
{
	struct fixture f = begin(BLOCK, 512, 0);

	for (unsigned round = 0; round < 2; round++)
		for (uint64_t i = 0; i < 64; i++)
			assert_int_equal(touch(&f, i, CACHE_KEEP), 0);
	for (uint64_t i = 1000; i < 1000 + 2 * 512; i++) {
		assert_int_equal(touch(&f, i, CACHE_KEEP), 0);
		/* The others stay in use. */
		assert_int_equal(touch(&f, i % 64, CACHE_KEEP), 0);
	}
	for (uint64_t i = 0; i < 64; i++)
		assert_int_equal(f.owner->fills[i], 1);
	end(&f);
}

/* What the kernel has taken over does not take fresh memory beyond its share, nor the place of what was there before. */
static void cold_blocks_stay_in_their_share(void **state)
{
	struct fixture f = begin(BLOCK, 1024, 0);

	for (uint64_t i = 0; i < 100; i++)
		assert_int_equal(touch(&f, i, CACHE_KEEP), 0);
	for (uint64_t i = 1000; i < 4000; i++)
		assert_int_equal(touch(&f, i, CACHE_COLD), 0);
	for (uint64_t i = 0; i < 100; i++)
		assert_int_equal(f.owner->fills[i], 1);
	assert_true(stats(&f).used <= (100 + 256 + 2) * BLOCK);
	end(&f);
}

static bool two_ahead(struct fixture *f)
{
	return stats(f).count.pgreadahead >= 2;
}

static uint64_t wanted;
static bool wanted_is_filled(struct fixture *f)
{
	return f->owner->fills[wanted];
}

static void ascending_reads_are_read_ahead(void **state)
{
	struct fixture f = begin(BLOCK, 512, 2);
	uint64_t misses;

	assert_int_equal(touch(&f, 10, CACHE_KEEP), 0);
	assert_int_equal(touch(&f, 11, CACHE_KEEP), 0);
	misses = stats(&f).count.cache_miss;
	/* A reader who gives it time finds everything there. */
	for (wanted = 12; wanted < 300; wanted++) {
		wait_until(wanted_is_filled, &f);
		assert_int_equal(touch(&f, wanted, CACHE_KEEP), 0);
	}
	assert_int_equal(stats(&f).count.cache_miss, misses);
	assert_true(f.owner->longest > 1);
	for (uint64_t i = 0; i < COUNT; i++)
		assert_true(f.owner->fills[i] <= 1);
	end(&f);
}

static void readahead_stops_at_the_end(void **state)
{
	struct fixture f = begin(BLOCK, 512, 2);

	/* fill() itself checks that no block beyond COUNT is asked for. */
	for (uint64_t i = COUNT - 20; i < COUNT; i++)
		assert_int_equal(touch(&f, i, CACHE_KEEP), 0);
	end(&f);
}

static void scattered_reads_are_not_read_ahead(void **state)
{
	struct fixture f = begin(BLOCK, 512, 2);

	for (uint64_t i = 0; i < 300; i++)
		assert_int_equal(touch(&f, i * 1009 % COUNT, CACHE_KEEP), 0);
	assert_int_equal(stats(&f).count.pgreadahead, 0);
	end(&f);
}

static bool one_failed(struct fixture *f)
{
	return stats(f).count.pgpgin_error;
}

static bool two_failed(struct fixture *f)
{
	return stats(f).count.pgpgin_error >= 2;
}

/* A block that could not be read ahead is tried again by who wants it. */
static void failed_readahead_is_not_the_readers_error(void **state)
{
	struct fixture f = begin(BLOCK, 512, 2);

	f.owner->fails = 12;
	assert_int_equal(touch(&f, 10, CACHE_KEEP), 0);
	assert_int_equal(touch(&f, 11, CACHE_KEEP), 0);
	wait_until(two_ahead, &f);
	wait_until(one_failed, &f);
	f.owner->fails = UINT64_MAX;
	assert_int_equal(touch(&f, 12, CACHE_KEEP), 0);
	end(&f);
}

/* Units of one read have results of their own: one fails, one is short, and those around them are there. */
static void an_error_in_the_middle_of_a_batch(void **state)
{
	struct fixture f = begin(4096, 512, 1);

	f.owner->fails = 13;
	f.owner->empty = 14;
	assert_int_equal(touch(&f, 10, CACHE_KEEP), 0);
	assert_int_equal(touch(&f, 11, CACHE_KEEP), 0);
	wait_until(two_failed, &f);
	assert_true(f.owner->longest > 3);
	f.owner->fails = f.owner->empty = UINT64_MAX;
	for (uint64_t i = 12; i < 17; i++)
		assert_int_equal(touch(&f, i, CACHE_KEEP), 0);
	assert_int_equal(f.owner->fills[12], 1);
	assert_int_equal(f.owner->fills[13], 2);
	assert_int_equal(f.owner->fills[14], 2);
	assert_int_equal(f.owner->fills[15], 1);
	end(&f);
}

static void a_mapping_ends_with_readahead_under_way(void **state)
{
	for (unsigned round = 0; round < 50; round++) {
		struct fixture f = begin(BLOCK, 512, 4);

		for (uint64_t i = 0; i < 20; i++)
			assert_int_equal(touch(&f, i, CACHE_KEEP), 0);
		end(&f);
	}
}

static void too_large_a_reservation_is_refused(void **state)
{
	struct fixture f = begin(BLOCK, 16, 0);

	assert_int_equal(cache_reserve(f.mapping, 17), -ENOMEM);
	assert_int_equal(cache_reserve(f.mapping, 16), 0);
	cache_unreserve(f.mapping, 16);
	end(&f);
}

/* All that may be reserved can be had at once, however the memory is divided. */
static void all_that_is_reserved_can_be_had(void **state)
{
	for (unsigned blocks = 8; blocks < 30; blocks++) {
		struct fixture f = begin(BLOCK, blocks, 0);
		struct cache_ref refs[30];
		unsigned most = blocks;

		while (cache_reserve(f.mapping, most) < 0)
			most--;
		assert_true(most >= blocks - 1);
		alarm(60);
		for (unsigned i = 0; i < most; i++)
			assert_int_equal(cache_get(f.mapping, i, &refs[i]), 0);
		alarm(0);
		for (unsigned i = 0; i < most; i++)
			cache_put(f.mapping, &refs[i], CACHE_KEEP);
		cache_unreserve(f.mapping, most);
		end(&f);
	}
}

/* A file whose pages can be changed, on a disk that takes no write any more. */

static unsigned pages_filled;

static void fill_page(void *owner, uint64_t first, unsigned count, struct cache_fill *fills)
{
	(void)owner;
	pages_filled += count;
	for (unsigned i = 0; i < count; i++)
		memset(fills[i].data, (int)(first + i), fills[i].len);
}

static int allow(void *owner, uint64_t page, unsigned count)
{
	(void)owner;
	(void)page;
	(void)count;
	return 0;
}

static int refuse(void *owner, const struct cache_write *write)
{
	(void)owner;
	(void)write;
	return -EIO;
}

static const struct cache_ops broken_ops = {.read = fill_page, .mkwrite = allow, .writeback = refuse};

/* What stays dirty lies all over the memory: blocks find room all the same, as many as may be referenced at once. */
static void pages_that_stay_dirty_leave_room_for_blocks(void **state)
{
	const unsigned pages = BLOCK / 4096 * 64;
	struct fixture f = begin(BLOCK, 64, 0);
	struct cache_mapping *file;
	struct cache_ref refs[64];
	unsigned most = 64, dirty;

	assert_int_equal(cache_mapping_new(f.cache, &broken_ops, NULL, 4096, (uint64_t)pages * 4096, 0, &file), 0);
	for (unsigned i = 0; i < pages; i++) {
		struct cache_ref ref;

		assert_int_equal(cache_get(file, i, &ref), 0);
		cache_put(file, &ref, CACHE_KEEP);
	}
	for (unsigned i = 0; i < pages; i += BLOCK / 4096)
		assert_int_equal(cache_write(file, (uint64_t)i * 4096, "x", 1, NULL), 0);
	dirty = (unsigned)(stats(&f).dirty / 4096);
	assert_true(dirty >= pages / (BLOCK / 4096) / 2);
	/* Who waits for memory that never comes is ended, and that fails the test. */
	alarm(60);
	while (cache_reserve(f.mapping, most) < 0)
		most--;
	assert_true(most >= 8);
	for (unsigned i = 0; i < most; i++) {
		assert_int_equal(cache_get(f.mapping, i, &refs[i]), 0);
		check(f.owner, i, &refs[i]);
	}
	for (unsigned i = 0; i < most; i++)
		cache_put(f.mapping, &refs[i], CACHE_KEEP);
	cache_unreserve(f.mapping, most);
	alarm(0);
	assert_int_equal(stats(&f).dirty / 4096, dirty);
	cache_mapping_free(file);
	end(&f);
}

static void touch_pages(struct cache_mapping *file, unsigned from, unsigned to)
{
	for (unsigned i = from; i < to; i++) {
		struct cache_ref ref;

		assert_int_equal(cache_get(file, i, &ref), 0);
		cache_put(file, &ref, CACHE_KEEP);
	}
}

/* Pages that are read again and again stay, though others have been there for long, and new blocks come all the time, which lie elsewhere. */
static void pages_in_use_stay_beside_new_blocks(void **state)
{
	enum { PAGES = 1024, OLD = 5120, PER_BLOCK = 32 };
	struct fixture f = begin(2 * BLOCK, 256, 0);
	struct cache_mapping *file;
	unsigned block = 0;

	assert_int_equal(cache_mapping_new(f.cache, &broken_ops, NULL, 4096, (uint64_t)(PAGES + OLD) * 4096, 0, &file), 0);
	while (block < 64)
		assert_int_equal(touch(&f, block++, CACHE_KEEP), 0);
	for (unsigned i = 0; i < 4; i++)
		touch_pages(file, PAGES, PAGES + OLD);
	for (unsigned round = 0; round < 12; round++) {
		pages_filled = 0;
		for (unsigned at = 0; at < PAGES; at += PER_BLOCK) {
			assert_int_equal(touch(&f, block++, CACHE_KEEP), 0);
			touch_pages(file, at, at + PER_BLOCK);
		}
	}
	print_message("of %d pages, the twelfth time: %u read again\n", PAGES, pages_filled);
	assert_true(pages_filled < PAGES / 4);
	cache_mapping_free(file);
	end(&f);
}

struct hammer {
	pthread_t thread;
	struct fixture *f;
	uint64_t seed;
	unsigned rounds, most;
};

/* Runs of blocks, mostly one after another, several held at once: as many as there are threads want all memory. */
static void *hammer_main(void *arg)
{
	struct hammer *h = arg;
	struct rng rng = {h->seed};
	uint64_t at = rng_below(&rng, COUNT);

	for (unsigned i = 0; i < h->rounds; i++) {
		unsigned run = 1 + (unsigned)rng_below(&rng, h->most), got = 0;
		struct cache_ref refs[8];

		if (rng_below(&rng, 16) == 0 || at + run > COUNT)
			at = rng_below(&rng, COUNT - run);
		must(cache_reserve(h->f->mapping, run) == 0);
		for (; got < run; got++) {
			int r = cache_get_run(h->f->mapping, at + got, run - got, &refs[got]);

			must(r == 0 || (r == -EIO && at + got == h->f->owner->fails));
			if (r < 0)
				break;
		}
		for (unsigned k = 0; k < got; k++) {
			check(h->f->owner, at + k, &refs[k]);
			cache_put(h->f->mapping, &refs[k], rng_below(&rng, 3) ? CACHE_KEEP : CACHE_COLD);
		}
		cache_unreserve(h->f->mapping, run);
		at += run;
	}
	return NULL;
}

static void hammer(uint32_t block_size, unsigned blocks, unsigned readahead, unsigned rounds, unsigned most)
{
	struct fixture f = begin(block_size, blocks, readahead);
	struct hammer h[12];
	struct cache_stats s;

	f.owner->short_blocks = block_size > 4096;
	f.owner->fails = 77;
	for (size_t i = 0; i < ARRAY_SIZE(h); i++) {
		h[i] = (struct hammer){.f = &f, .seed = i + 1, .rounds = rounds, .most = most};
		assert_int_equal(thread_start(&h[i].thread, hammer_main, &h[i]), 0);
	}
	for (size_t i = 0; i < ARRAY_SIZE(h); i++)
		pthread_join(h[i].thread, NULL);
	s = stats(&f);
	assert_true(s.used <= s.limit);
	end(&f);
}

static void many_readers_of_a_small_cache(void **state)
{
	/* Eight blocks, and twelve threads that hold up to four: without reservations they would wait for ever. */
	hammer(4096, 8, 0, 2000, 4);
	hammer(4096, 8, 3, 2000, 4);
	hammer(BLOCK, 8, 3, 1000, 4);
	hammer(1u << 20, 8, 2, 50, 4);
}

static void many_readers_of_a_larger_cache(void **state)
{
	hammer(4096, 1024, 3, 5000, 8);
	hammer(BLOCK, 256, 3, 2000, 8);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(second_get_is_a_hit),
		cmocka_unit_test(failed_fill_leaves_nothing),
		cmocka_unit_test(readers_of_one_block_share_its_fill),
		cmocka_unit_test(readers_of_one_block_share_its_error),
		cmocka_unit_test(memory_stays_in_the_limit),
		cmocka_unit_test(referenced_blocks_stay),
		cmocka_unit_test(a_cold_block_in_use_blocks_nobody),
		cmocka_unit_test(short_blocks_share_memory),
		cmocka_unit_test(a_scan_spares_what_is_in_use),
		cmocka_unit_test(cold_blocks_stay_in_their_share),
		cmocka_unit_test(ascending_reads_are_read_ahead),
		cmocka_unit_test(readahead_stops_at_the_end),
		cmocka_unit_test(scattered_reads_are_not_read_ahead),
		cmocka_unit_test(failed_readahead_is_not_the_readers_error),
		cmocka_unit_test(an_error_in_the_middle_of_a_batch),
		cmocka_unit_test(a_mapping_ends_with_readahead_under_way),
		cmocka_unit_test(too_large_a_reservation_is_refused),
		cmocka_unit_test(all_that_is_reserved_can_be_had),
		cmocka_unit_test(pages_that_stay_dirty_leave_room_for_blocks),
		cmocka_unit_test(pages_in_use_stay_beside_new_blocks),
		cmocka_unit_test(many_readers_of_a_small_cache),
		cmocka_unit_test(many_readers_of_a_larger_cache),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
