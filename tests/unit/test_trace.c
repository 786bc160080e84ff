/* SPDX-License-Identifier: MIT */
/* trace: events come out of the ring and out of the file as they went in; what is lost is counted. */
#include "support.h"

#include <fcntl.h>

#include "base/sync.h"
#include "cache/cache.h"
#include "cache/trace_file.h"

static struct trace ring;
static struct trace_writer writer;

static void off_it_has_no_memory_and_no_events(void **state)
{
	trace_init(&ring, 4);
	trace_event(&ring, access, 1, 2);
	assert_null(ring.slots);
	assert_int_equal(trace_end(&ring), 0);
	assert_int_equal(trace_switch(&ring, true), 0);
	trace_event(&ring, access, 1, 2);
	assert_int_equal(trace_end(&ring), 1);
	assert_int_equal(trace_switch(&ring, false), 0);
	trace_event(&ring, access, 1, 2);
	assert_int_equal(trace_end(&ring), 1);
	trace_destroy(&ring);
}

static void what_the_ring_overwrites_is_counted(void **state)
{
	uint64_t next = 0, lost = 0;
	struct trace_event e;
	unsigned n = 0;

	trace_init(&ring, 4);
	assert_int_equal(trace_switch(&ring, true), 0);
	for (unsigned i = 0; i < 40; i++)
		trace_event(&ring, reclaim, i, 2 * i);
	for (; trace_read(&ring, &next, &lost, &e); n++)
		assert_true(e.type == TRACE_reclaim && e.a == 24 + n && e.b == 2 * e.a);
	assert_int_equal(n, 16);
	assert_int_equal(lost, 24);
	assert_false(trace_read(&ring, &next, &lost, &e));
	trace_event(&ring, put, 7, 8);
	assert_true(trace_read(&ring, &next, &lost, &e) && e.type == TRACE_put && e.a == 7);
	trace_destroy(&ring);
}

static void an_event_being_written_is_waited_for(void **state)
{
	uint64_t next = 0, lost = 0;
	struct trace_event e;

	trace_init(&ring, 4);
	assert_int_equal(trace_switch(&ring, true), 0);
	/* A writer that has its number and nothing else. */
	a64_fetch_add(&ring.next, 1);
	trace_event(&ring, put, 1, 1);
	assert_false(trace_read(&ring, &next, &lost, &e));
	assert_true(next == 0 && lost == 0);
	/* A ring later nobody waits for it any more. */
	for (unsigned i = 0; i < 15; i++)
		trace_event(&ring, put, 2 + i, 1);
	assert_true(trace_read(&ring, &next, &lost, &e) && e.a == 1 && lost == 1);
	trace_destroy(&ring);
}

/* An event of each type, with numbers that are small, large and the same as before. */
static struct trace_event event_no(unsigned i)
{
	struct rng rng = {i * 77 + 1};

	return (struct trace_event){
		.type = (enum trace_type)(i % TRACE_TYPES),
		.time = 1000 * (i % 5 ? i : UINT64_MAX / 1000 - i),
		.thread = i / 3,
		.a = i % 7 ? rng_below(&rng, 1000) : rng_next(&rng),
		.b = i % 3 ? 5 : rng_next(&rng),
	};
}

static uint8_t *written(const char *path, size_t *ret_len)
{
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	uint8_t *data;

	assert_true(fd >= 0);
	trace_writer_init(&writer, fd);
	for (unsigned i = 0; i < 20000; i++) {
		struct trace_event e = event_no(i);

		trace_writer_lost(&writer, i % 1000 == 5 ? i : 0);
		trace_writer_event(&writer, &e);
	}
	assert_int_equal(trace_writer_end(&writer), 0);
	close(fd);
	data = read_file(path, ret_len);
	return data;
}

static void a_file_gives_back_what_was_written(void **state)
{
	_cleanup_free_ char *path = temp_path("trace");
	struct trace_reader r;
	struct trace_event e;
	size_t len;
	_cleanup_free_ uint8_t *data = written(path, &len);

	assert_int_equal(trace_reader_init(&r, data, len), 0);
	assert_int_equal(r.page_size, CACHE_PAGE_SIZE);
	for (unsigned i = 0; i < 20000; i++) {
		struct trace_event want = event_no(i);

		assert_int_equal(trace_reader_next(&r, &e), 1);
		assert_true(e.type == want.type && e.time == want.time && e.thread == want.thread && e.a == want.a &&
			e.b == want.b);
	}
	assert_int_equal(trace_reader_next(&r, &e), 0);
	assert_true(r.complete);
	assert_int_equal(r.events, 20000);
	assert_true(r.lost && r.lost == writer.lost);
}

/* All that a reader makes of these bytes; it must not read beside them. */
static int read_all(const uint8_t *bytes, size_t len, bool *ret_complete)
{
	struct guard g = guard_new(len, true);
	struct trace_reader r;
	struct trace_event e;
	int n;

	memcpy(g.data, bytes, len);
	n = trace_reader_init(&r, g.data, len);
	if (n == 0)
		while ((n = trace_reader_next(&r, &e)) > 0)
			assert_true((unsigned)e.type < TRACE_TYPES);
	*ret_complete = n == 0 && r.complete;
	guard_free(&g);
	return n;
}

static void damaged_and_cut_files_are_refused(void **state)
{
	_cleanup_free_ char *path = temp_path("trace");
	struct rng rng = {5};
	bool complete;
	size_t len;
	_cleanup_free_ uint8_t *data = written(path, &len);

	for (unsigned i = 0; i < 200; i++) {
		size_t at = i < 100 ? i : (size_t)rng_below(&rng, len);
		int n = read_all(data, at, &complete);

		assert_true(!complete && (n == 0 || n == -EUCLEAN));
	}
	for (unsigned i = 0; i < 300; i++) {
		size_t at = i < 150 ? i : (size_t)rng_below(&rng, len);
		uint8_t before = data[at];
		int n;

		data[at] ^= (uint8_t)(1 + rng_below(&rng, 255));
		n = read_all(data, at + MIN(len - at, (size_t)2000), &complete);
		assert_true(n == 0 || n == -EUCLEAN);
		data[at] = before;
	}
	assert_int_equal(read_all(data, len, &complete), 0);
	assert_true(complete);
}

static void a_type_that_is_not_known_is_passed_over(void **state)
{
	_cleanup_free_ char *path = temp_path("trace");
	struct trace_reader r;
	struct trace_event e;
	unsigned n = 0;
	size_t len;
	_cleanup_free_ uint8_t *data = written(path, &len);

	/* The first type's name begins after the count. */
	assert_memory_equal(data + 17, "access", 6);
	data[17] = 'X';
	assert_int_equal(trace_reader_init(&r, data, len), 0);
	for (; trace_reader_next(&r, &e) == 1; n++)
		assert_true(e.type != TRACE_access);
	assert_true(r.complete);
	assert_int_equal(n, 20000 - DIV_ROUND_UP(20000, TRACE_TYPES));
}

static void *make_events(void *arg)
{
	for (uint64_t i = 0; i < 100000; i++)
		trace_event(&ring, access, i, (uint64_t)(uintptr_t)arg);
	return NULL;
}

static void a_drain_keeps_or_counts_what_threads_do(void **state)
{
	_cleanup_free_ char *path = temp_path("drained");
	uint64_t last[3] = {0}, seen = 0;
	struct trace_drain_result result;
	struct trace_drain *drain;
	struct trace_reader r;
	struct trace_event e;
	pthread_t threads[3];
	size_t len;

	trace_init(&ring, 10);
	assert_int_equal(trace_drain_start(&ring, open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600), &drain), 0);
	for (uintptr_t i = 0; i < 3; i++)
		assert_int_equal(thread_start(&threads[i], make_events, (void *)i), 0);
	for (unsigned i = 0; i < 3; i++)
		pthread_join(threads[i], NULL);
	trace_drain_stop(drain, &result);
	trace_destroy(&ring);
	assert_int_equal(result.error, 0);
	assert_int_equal(result.events + result.lost, 300000);
	_cleanup_free_ uint8_t *data = read_file(path, &len);
	assert_int_equal(trace_reader_init(&r, data, len), 0);
	for (; trace_reader_next(&r, &e) == 1; seen++) {
		assert_true(e.type == TRACE_access && e.b < 3);
		/* Each thread's own in their order. */
		assert_true(!last[e.b] || e.a > last[e.b]);
		last[e.b] = e.a;
	}
	assert_true(r.complete && seen == result.events && r.lost == result.lost && seen >= 1 << 10);
}

static void no_space_is_reported_and_ends_the_trace(void **state)
{
	struct trace_drain_result result;
	struct trace_drain *drain;
	int fd = open("/dev/full", O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		skip();
	trace_init(&ring, 10);
	assert_int_equal(trace_drain_start(&ring, fd, &drain), 0);
	trace_event(&ring, put, 1, 2);
	trace_drain_stop(drain, &result);
	assert_int_equal(result.error, -ENOSPC);
	assert_false(a32_read(&ring.on));
	trace_destroy(&ring);
}

static void uses_fit_their_number(void **state)
{
	struct trace_use u = {.mapping = UINT32_MAX, .run = 0xffff, .pages = 256, .what = TRACE_MISSED}, v;

	v = trace_use_unpack(trace_use_pack(u));
	assert_true(v.mapping == u.mapping && v.run == u.run && v.pages == u.pages && v.what == u.what);
	u.run = 1 << 20;
	assert_int_equal(trace_use_unpack(trace_use_pack(u)).run, 0xffff);
}

static void no_read(void *owner, uint64_t first, unsigned count, struct cache_fill *fills)
{
	memset(fills->data, 1, fills->len);
}

static void the_cache_says_what_was_found_and_how_it_was_left(void **state)
{
	static const struct cache_ops ops = {.read = no_read};
	struct cache_options options = {.limit = 1 << 20};
	struct cache_mapping *m;
	struct trace_event e;
	struct cache_ref ref;
	struct cache *c;
	struct {
		enum trace_type type;
		unsigned what, run;
	} want[] = {{TRACE_access, TRACE_MISSED, 3}, {TRACE_read_begin, 0, 0}, {TRACE_read_end, 0, 0},
		{TRACE_put, CACHE_KEEP, 0}, {TRACE_access, TRACE_HIT, 1}, {TRACE_put, CACHE_COLD, 0}};
	uint64_t next = 0, lost = 0;

	assert_int_equal(cache_new(&options, &c), 0);
	assert_int_equal(cache_mapping_new(c, &ops, NULL, 8192, 1 << 20, 0, &m), 0);
	assert_int_equal(trace_switch(cache_trace(c), true), 0);
	assert_int_equal(cache_get_run(m, 5, 3, &ref), 0);
	cache_put(m, &ref, CACHE_KEEP);
	assert_int_equal(cache_get(m, 5, &ref), 0);
	cache_put(m, &ref, CACHE_COLD);
	for (size_t i = 0; i < ARRAY_SIZE(want); i++) {
		struct trace_use u;

		assert_true(trace_read(cache_trace(c), &next, &lost, &e));
		u = trace_use_unpack(e.b);
		assert_true(e.type == want[i].type && e.a == 5);
		if (e.type == TRACE_access || e.type == TRACE_put)
			assert_true(u.what == want[i].what && u.run == want[i].run && u.pages == 2 && u.mapping == 1);
	}
	assert_false(trace_read(cache_trace(c), &next, &lost, &e));
	cache_mapping_free(m);
	cache_free(c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(off_it_has_no_memory_and_no_events),
		cmocka_unit_test(what_the_ring_overwrites_is_counted),
		cmocka_unit_test(an_event_being_written_is_waited_for),
		cmocka_unit_test(a_file_gives_back_what_was_written),
		cmocka_unit_test(damaged_and_cut_files_are_refused),
		cmocka_unit_test(a_type_that_is_not_known_is_passed_over),
		cmocka_unit_test(a_drain_keeps_or_counts_what_threads_do),
		cmocka_unit_test(no_space_is_reported_and_ends_the_trace),
		cmocka_unit_test(uses_fit_their_number),
		cmocka_unit_test(the_cache_says_what_was_found_and_how_it_was_left),
	};

	return cmocka_run_group_tests(tests, NULL, support_end);
}
