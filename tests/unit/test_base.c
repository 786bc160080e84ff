/* SPDX-License-Identifier: MIT */
/* base: numbers that people type, escaping, UUIDs, limits on messages, exact reads and writes, threads. */
#include "support.h"

#include <limits.h>

#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>

#include "base/log.h"
#include "base/sync.h"

static void sizes_are_decimal_with_a_binary_unit(void **state)
{
	static const struct {
		const char *text;
		uint64_t want;
	} good[] = {
		{"0", 0}, {"1", 1}, {"007", 7}, {"64K", 65536}, {"64k", 65536}, {"64KB", 65536}, {"64KiB", 65536},
		{"64kib", 65536}, {"1M", 1 << 20}, {"2g", 2ull << 30}, {"3TiB", 3ull << 40}, {"4P", 4ull << 50},
		{"15E", 15ull << 60}, {"0E", 0}, {"18446744073709551615", UINT64_MAX},
		{"18014398509481983K", 18014398509481983ull << 10},
	};

	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		uint64_t v = 4711;

		assert_int_equal(parse_size(good[i].text, &v), 0);
		assert_int_equal(v, good[i].want);
	}
}

static void sizes_refuse_everything_else_and_leave_the_result_alone(void **state)
{
	static const char *const invalid[] = {"", " ", " 1", "-1", "+1", "K", "1 K", "1KK", "1Kb i", "1KiBs", "1iB", "1b",
		"0x10", "1.5M", "1e3", "1,000", "ten", "1\n", "1K\n", "٣"};
	static const char *const huge[] = {"18446744073709551616", "99999999999999999999999999", "16E", "16384P",
		"18014398509481984K"};
	uint64_t v = 4711;

	for (size_t i = 0; i < ARRAY_SIZE(invalid); i++)
		assert_int_equal(parse_size(invalid[i], &v), -EINVAL);
	for (size_t i = 0; i < ARRAY_SIZE(huge); i++)
		assert_int_equal(parse_size(huge[i], &v), -ERANGE);
	assert_int_equal(parse_size(NULL, &v), -EINVAL);
	assert_int_equal(v, 4711);
}

static void numbers_keep_to_their_range(void **state)
{
	uint64_t v = 4711;

	assert_int_equal(parse_u64("1", 2, 5, &v), -ERANGE);
	assert_int_equal(parse_u64("6", 2, 5, &v), -ERANGE);
	assert_int_equal(parse_u64("18446744073709551616", 0, UINT64_MAX, &v), -ERANGE);
	assert_int_equal(parse_u64("5k", 0, UINT64_MAX, &v), -EINVAL);
	assert_int_equal(parse_u64("-1", 0, UINT64_MAX, &v), -EINVAL);
	assert_int_equal(parse_u64("", 0, UINT64_MAX, &v), -EINVAL);
	assert_int_equal(parse_u64(NULL, 0, UINT64_MAX, &v), -EINVAL);
	assert_int_equal(v, 4711);
	assert_int_equal(parse_u64("2", 2, 5, &v), 0);
	assert_int_equal(v, 2);
	assert_int_equal(parse_u64("18446744073709551615", 0, UINT64_MAX, &v), 0);
	assert_true(v == UINT64_MAX);
}

static void sizes_are_shown_with_one_digit(void **state)
{
	static const struct {
		uint64_t bytes;
		const char *want;
	} cases[] = {{0, "0 B"}, {1023, "1023 B"}, {1024, "1.0 KiB"}, {1536, "1.5 KiB"}, {405ull << 20, "405.0 MiB"},
		{UINT64_MAX, "16.0 EiB"}};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char buf[16];

		assert_string_equal(format_size(cases[i].bytes, buf, sizeof(buf)), cases[i].want);
	}
}

static void uuids_come_back(void **state)
{
	static const char text[] = "6ba7b810-9dad-11d1-80b4-00c04fd430c8";
	uint8_t u[16], again[16];
	char shown[37];

	assert_int_equal(uuid_parse(text, u), 0);
	assert_int_equal(u[0], 0x6b);
	assert_int_equal(u[15], 0xc8);
	uuid_format(u, shown);
	assert_string_equal(shown, text);
	assert_int_equal(uuid_parse("6BA7B8109DAD11D180B400C04FD430C8", again), 0);
	assert_memory_equal(u, again, 16);
}

static void what_is_no_uuid_is_refused(void **state)
{
	static const char *const bad[] = {"", "6ba7b810", "6ba7b810-9dad-11d1-80b4-00c04fd430c", "6ba7b810-9dad-11d1-80b4-"
		"00c04fd430c88", "6ba7b810-9dad-11d1-80b4-00c04fd430cg", "6ba7b81-09dad-11d1-80b4-00c04fd430c8",
		"{6ba7b810-9dad-11d1-80b4-00c04fd430c8}", "6ba7b810-9dad-11d1-80b4-00c04fd430c8 ", "-", "6ba7b810--9dad"};
	uint8_t u[16];

	memset(u, 0x5a, sizeof(u));
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(uuid_parse(bad[i], u), -EINVAL);
	for (size_t i = 0; i < sizeof(u); i++)
		assert_int_equal(u[i], 0x5a);
}

static void check_json(const char *bytes, size_t len, const char *want)
{
	char *out = NULL;
	size_t size = 0;
	FILE *f = open_memstream(&out, &size);

	assert_non_null(f);
	json_string(f, bytes, len);
	fclose(f);
	assert_string_equal(out, want);
	free(out);
}

static void json_strings_are_valid_whatever_the_bytes(void **state)
{
	check_json("", 0, "\"\"");
	check_json("plain", 5, "\"plain\"");
	check_json("q\"b\\s/", 6, "\"q\\\"b\\\\s/\"");
	check_json("\0\n\t\x1f\x7f", 5, "\"\\u0000\\u000a\\u0009\\u001f\\u007f\"");
	check_json("äöü€😀", 13, "\"äöü€😀\"");
	/* Not UTF-8: a lone continuation, overlong forms, surrogates, beyond Unicode, cut off. */
	check_json("\x80", 1, "\"\\udc80\"");
	check_json("\xc0\xaf", 2, "\"\\udcc0\\udcaf\"");
	check_json("\xe0\x80\xaf", 3, "\"\\udce0\\udc80\\udcaf\"");
	check_json("\xed\xa0\x80", 3, "\"\\udced\\udca0\\udc80\"");
	check_json("\xf4\x90\x80\x80", 4, "\"\\udcf4\\udc90\\udc80\\udc80\"");
	check_json("a\xe2\x82", 3, "\"a\\udce2\\udc82\"");
	check_json("\xff\xfe", 2, "\"\\udcff\\udcfe\"");
}

static void names_are_escaped_and_always_fit(void **state)
{
	char buf[256], guard[64];

	assert_string_equal(name_escape("a b\\\n\x7f\xff", 7, buf, sizeof(buf)), "a b\\134\\012\\177\\377");
	assert_string_equal(name_escape("größe", 7, buf, sizeof(buf)), "größe");
	assert_string_equal(name_escape("", 0, buf, sizeof(buf)), "");
	/* For each size of the buffer: terminated inside, nothing written behind it, no sequence cut in two. */
	for (size_t size = 1; size < 40; size++) {
		memset(guard, 0x5a, sizeof(guard));
		name_escape("\x01\x02ää€😀\xff\xff\xffzzzzzzzzzzzzzzzz", 34, guard, size);
		assert_non_null(memchr(guard, 0, size));
		for (size_t i = size; i < sizeof(guard); i++)
			assert_int_equal(guard[i], 0x5a);
	}
}

static void repeated_messages_are_limited_and_counted(void **state)
{
	struct log_limit limit;
	unsigned suppressed, passed, before, after;

	/* All in one period of ten seconds; one that ends meanwhile is no result. */
	do {
		limit = (struct log_limit){0};
		suppressed = 4711;
		before = (unsigned)(now_ns() / 10000000000ull);
		passed = 0;
		for (unsigned i = 0; i < 100; i++)
			passed += log_limit_pass(&limit, 5, &suppressed);
		after = (unsigned)(now_ns() / 10000000000ull);
	} while (before != after);
	assert_int_equal(passed, 5);
	assert_int_equal(suppressed, 0);
	/* The next period tells how many were missed. */
	limit.window--;
	assert_true(log_limit_pass(&limit, 5, &suppressed));
	assert_int_equal(suppressed, 95);
}

static void arrays_grow_and_keep_their_content(void **state)
{
	_cleanup_free_ uint32_t *a = NULL;
	size_t capacity = 0;

	for (uint32_t i = 0; i < 10000; i++) {
		assert_int_equal(array_reserve(&a, &capacity, i + 1, sizeof(*a)), 0);
		assert_true(capacity > i);
		a[i] = i;
	}
	for (uint32_t i = 0; i < 10000; i++)
		assert_int_equal(a[i], i);
	assert_int_equal(array_reserve(&a, &capacity, SIZE_MAX / 2, sizeof(*a)), -ENOMEM);
	assert_int_equal(a[9999], 9999);
}

static void *feed_in_pieces(void *arg)
{
	int fd = *(int *)arg;

	for (unsigned i = 0; i < 1000; i++)
		must(write_all(fd, "0123456789", 10) == 0);
	close(fd);
	return NULL;
}

static void exact_writes_and_reads_survive_short_ones(void **state)
{
	int fds[2], small = 4096;
	char got[10000];
	pthread_t t;
	size_t n = 0;

	/* A socket with little room: write(2) is short, or blocks, many times. */
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	setsockopt(fds[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
	assert_int_equal(thread_start(&t, feed_in_pieces, &fds[0]), 0);
	for (ssize_t r; (r = read(fds[1], got + n, MIN((size_t)7, sizeof(got) - n))) > 0; n += (size_t)r)
		;
	pthread_join(t, NULL);
	close(fds[1]);
	assert_int_equal(n, sizeof(got));
	for (size_t i = 0; i < n; i++)
		assert_int_equal(got[i], '0' + (int)(i % 10));
}

static void reading_over_the_end_of_a_file_is_an_error(void **state)
{
	_cleanup_free_ char *path = temp_path("short");
	_cleanup_close_ int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	char buf[8];

	assert_int_equal(pwrite_all(fd, "abcd", 4, 0), 0);
	assert_int_equal(pread_all(fd, buf, 4, 0), 0);
	assert_memory_equal(buf, "abcd", 4);
	assert_int_equal(pread_all(fd, buf, 5, 0), -EIO);
	assert_int_equal(pread_all(fd, buf, 1, 4), -EIO);
	assert_int_equal(pread_all(fd, buf, 0, 4), 0);
	assert_int_equal(pread_all(-1, buf, 1, 0), -EBADF);
	assert_int_equal(write_all(-1, buf, 1), -EBADF);
}

static void *signals_blocked(void *arg)
{
	sigset_t set;

	pthread_sigmask(SIG_BLOCK, NULL, &set);
	*(bool *)arg = sigismember(&set, SIGTERM) && sigismember(&set, SIGINT) && sigismember(&set, SIGUSR1);
	return NULL;
}

static void threads_leave_signals_to_the_main_thread(void **state)
{
	bool blocked = false;
	sigset_t set;
	pthread_t t;

	assert_int_equal(thread_start(&t, signals_blocked, &blocked), 0);
	pthread_join(t, NULL);
	assert_true(blocked);
	pthread_sigmask(SIG_BLOCK, NULL, &set);
	assert_false(sigismember(&set, SIGTERM));
}

static void cleanup_attributes_keep_errno_and_stolen_things(void **state)
{
	_cleanup_free_ char *kept = NULL;
	int fd_kept;

	{
		_cleanup_free_ char *p = strdup("x");
		_cleanup_close_ int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

		kept = steal_pointer(&p);
		assert_null(p);
		fd_kept = steal_fd(&fd);
		assert_int_equal(fd, -1);
		errno = EILSEQ;
	}
	assert_int_equal(errno, EILSEQ);
	{
		_cleanup_close_ int fd = fd_kept;

		(void)fd;
		errno = EILSEQ;
	}
	assert_int_equal(errno, EILSEQ);
	assert_int_equal(fcntl(fd_kept, F_GETFD), -1);
	assert_string_equal(kept, "x");
}

static void rounding_is_exact_at_the_edges(void **state)
{
	assert_int_equal(align_up(0, 4096), 0);
	assert_int_equal(align_up(1, 4096), 4096);
	assert_int_equal(align_up(4096, 4096), 4096);
	assert_int_equal(align_down(4095, 4096), 0);
	assert_int_equal(align_down(UINT64_MAX, 4096), UINT64_MAX - 4095);
	assert_false(is_power_of_two(0));
	assert_true(is_power_of_two(1));
	assert_true(is_power_of_two(1ull << 63));
	assert_false(is_power_of_two((1ull << 63) + 1));
}

/* ---- locks: what the validator refuses ---- */

static struct mutex outer, inner, second, mm;

static void locks_init(void)
{
	mutex_init(&outer, LOCK_FOLIO);
	mutex_init(&second, LOCK_INDEX);
	mutex_init(&inner, LOCK_INDEX);
	mutex_init(&mm, LOCK_MM);
}

static void take_in_order(void *context)
{
	mutex_lock(&outer);
	mutex_lock(&inner);
	mutex_unlock(&outer); /* dropped in any order */
	mutex_unlock(&inner);
	mutex_lock(&outer);
	sync_may_sleep("I/O"); /* the table allows it */
	mutex_unlock(&outer);
	mutex_lock(&inner);
	must(mutex_trylock(&outer)); /* who only tries can't wait in a circle */
	mutex_unlock(&outer);
	mutex_unlock(&inner);
	mutex_lock(&mm);
	must(sync_self.mm_held == 1);
	mutex_unlock(&mm);
	must(sync_self.mm_held == 0 && sync_violations() == 0);
}

static void take_against_order(void *context)
{
	mutex_lock(&inner);
	mutex_lock(&outer);
}

static void take_two_of_one_class(void *context)
{
	mutex_lock(&inner);
	mutex_lock(&second);
}

static void sleep_under_mm(void *context)
{
	mutex_lock(&mm);
	sync_may_sleep("I/O");
	must(sync_violations() == 1);
}

static void the_order_of_locks_is_checked(void **state)
{
	locks_init();
	assert_true(in_child(take_in_order, NULL));
#ifdef PINFS_LOCK_CHECKS
	assert_false(in_child(sleep_under_mm, NULL));
	assert_false(in_child(take_against_order, NULL));
	assert_false(in_child(take_two_of_one_class, NULL));
#else
	/* Counted in every build (R8). */
	assert_true(in_child(sleep_under_mm, NULL));
	(void)take_against_order;
	(void)take_two_of_one_class;
#endif
}

static struct a32 word;

static void *sleeper(void *arg)
{
	while (a32_read_acquire(&word) == 0)
		a32_wait(&word, 0);
	return NULL;
}

static void who_waits_for_a_word_is_woken(void **state)
{
	pthread_t threads[3];

	for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
		assert_int_equal(thread_start(&threads[i], sleeper, NULL), 0);
	a32_set_release(&word, 1);
	a32_wake(&word, UINT_MAX);
	for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
		pthread_join(threads[i], NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sizes_are_decimal_with_a_binary_unit),
		cmocka_unit_test(sizes_refuse_everything_else_and_leave_the_result_alone),
		cmocka_unit_test(numbers_keep_to_their_range),
		cmocka_unit_test(sizes_are_shown_with_one_digit),
		cmocka_unit_test(uuids_come_back),
		cmocka_unit_test(what_is_no_uuid_is_refused),
		cmocka_unit_test(json_strings_are_valid_whatever_the_bytes),
		cmocka_unit_test(names_are_escaped_and_always_fit),
		cmocka_unit_test(repeated_messages_are_limited_and_counted),
		cmocka_unit_test(arrays_grow_and_keep_their_content),
		cmocka_unit_test(exact_writes_and_reads_survive_short_ones),
		cmocka_unit_test(reading_over_the_end_of_a_file_is_an_error),
		cmocka_unit_test(threads_leave_signals_to_the_main_thread),
		cmocka_unit_test(cleanup_attributes_keep_errno_and_stolen_things),
		cmocka_unit_test(rounding_is_exact_at_the_edges),
		cmocka_unit_test(the_order_of_locks_is_checked),
		cmocka_unit_test(who_waits_for_a_word_is_woken),
	};

	return cmocka_run_group_tests_name("base", tests, NULL, support_end);
}
