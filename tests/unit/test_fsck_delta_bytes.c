/* SPDX-License-Identifier: MIT */
/*
 * fsck of a delta of which a byte has changed: it is found or doesn't matter, and never becomes wrong data in a mount; what was repaired is sound.
 * A failing byte is named by FSCK_BYTE=N, which checks that one alone.
 */
#include "fsck_support.h"

static bool has_line(const struct dump *d, const char *line, size_t len)
{
	for (const char *at = d->text; at && *at; at = strchr(at, '\n') + 1)
		if (!strncmp(at, line, len))
			return true;
	return false;
}

/* All of a dump is as in one of others; lines may be missing. */
static bool all_known(const struct dump *d, const struct dump *states, unsigned count)
{
	for (const char *at = d->text; at && *at; at = strchr(at, '\n') + 1) {
		size_t len = (size_t)(strchr(at, '\n') - at) + 1;

		bool known = false;

		for (unsigned i = 0; i < count && !known; i++)
			known = has_line(&states[i], at, len);
		if (!known) {
			print_error("neither before nor after: %.*s", (int)len, at);
			return false;
		}
	}
	return true;
}

struct flips {
	struct memory good;
	struct dump states[64]; /* the image alone; everything; and up to each frame of the log */
	unsigned count;
	uint64_t noticed, harmless, beyond_repair;
};

static void flip_one(struct flips *f, uint64_t at)
{
	struct memory m = copy_of(&f->good), again;
	struct checked c;
	struct dump d;
	struct vfs *v;

	m.bytes[at] ^= (uint8_t)(1u << at % 8);
	again = copy_of(&m);
	c = check(&m, false, false);
	f->noticed += c.result || c.report.errors;
	f->harmless += !c.result && !c.report.errors;
	v = open_vfs(&again);
	/* What fsck has nothing to say about opens, and nothing is missing that was on the disk. */
	if (!c.result && !c.report.errors)
		assert_non_null(v);
	if (v) {
		d = dump_of(v);
		assert_true(all_known(&d, f->states, f->count));
		/* One of those states, and nothing else. */
		for (unsigned i = 1; !c.result && !c.report.errors; i++) {
			assert_true(i < f->count);
			if (!strcmp(d.text, f->states[i].text))
				break;
		}
		free(d.text);
		vfs_free(v);
	}
	fsck_delta_report_free(&c.report);
	c = check(&m, true, true);
	f->beyond_repair += c.result < 0;
	if (c.result == 0) {
		if (c.report.left)
			print_problems(&c.report);
		assert_int_equal(c.report.left, 0);
		assert_clean(&m);
		v = open_vfs(&m);
		assert_non_null(v);
		vfs_free(v);
		assert_clean(&m);
	}
	fsck_delta_report_free(&c.report);
	free(m.bytes);
	free(again.bytes);
}

static struct dump dump_memory(struct memory m)
{
	struct vfs *v = open_vfs(&m);
	struct dump d;

	assert_non_null(v);
	d = dump_of(v);
	vfs_free(v);
	free(m.bytes);
	return d;
}

/* Byte of the delta from which on frames count. */
static uint64_t log_start(const struct memory *m)
{
	const struct pinfs_delta_super *a = (const void *)m->bytes, *b = (const void *)(m->bytes + 2 * 4096);

	return 4 * 4096 + pinfs_get64((pinfs_get64(a->generation) > pinfs_get64(b->generation) ? a : b)->log_start);
}

/* PINFS_FLIPS: more of them. */
static unsigned flips(void)
{
	const char *n = getenv("PINFS_FLIPS");

	return n ? (unsigned)atoi(n) : 120;
}

static void flip_some(bool frames, unsigned count, uint64_t seed)
{
	struct flips f = {.good = make_delta(frames)};
	struct memory none = {0};
	const char *only = getenv("FSCK_BYTE");
	struct rng rng = {seed};

	f.states[f.count++] = dump_memory(none);
	f.states[f.count++] = dump_memory(copy_of(&f.good));
	/* Without a frame, what is left is what was before it. */
	for (uint64_t at = log_start(&f.good); frames && at + 8 <= 4 * 4096 + LIMIT / 8 && f.count < ARRAY_SIZE(f.states); at += 8)
		if (!memcmp(f.good.bytes + at, "PFRM", 4)) {
			struct memory m = copy_of(&f.good);

			m.bytes[at] = 0;
			f.states[f.count++] = dump_memory(m);
		}
	for (unsigned i = 0; i < count; i++) {
		uint64_t at;

		/* Bytes that are something. */
		do {
			at = i % 4 == 0 ? rng_below(&rng, 4 * 4096) : rng_below(&rng, f.good.len);
		} while (!f.good.bytes[at] && rng_below(&rng, 50));
		if (only)
			at = strtoull(only, NULL, 0);
		if (getenv("FSCK_TRACE"))
			print_message("FSCK_BYTE=%ju\n", (uintmax_t)at);
		flip_one(&f, at);
		if (only)
			break;
	}
	print_message("%u bytes: %ju noticed, %ju did no harm, %ju beyond repair\n", count, (uintmax_t)f.noticed, (uintmax_t)f.harmless,
		(uintmax_t)f.beyond_repair);
	assert_int_equal(f.beyond_repair, 0);
	assert_true(only || f.noticed > count / 4);
	while (f.count)
		free(f.states[--f.count].text);
	free(f.good.bytes);
}

static void every_byte_of_a_checkpoint_counts(void **state)
{
	flip_some(false, flips(), 1);
}

static void every_byte_of_a_log_counts(void **state)
{
	flip_some(true, flips(), 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_byte_of_a_checkpoint_counts),
		cmocka_unit_test(every_byte_of_a_log_counts),
	};

	if (getenv("FSCK_FILTER"))
		cmocka_set_test_filter(getenv("FSCK_FILTER"));
	return cmocka_run_group_tests_name("fsck_delta_bytes", tests, fsck_setup, fsck_teardown);
}
