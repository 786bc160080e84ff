/* SPDX-License-Identifier: MIT */
/* ACLs against what POSIX.1e (draft 17, 23.1.6 and 23.5) makes of them, computed by hand. */
#include "support.h"

#include "vfs/internal.h"

enum { U = 0x01, USER = 0x02, G = 0x04, GROUP = 0x08, M = 0x10, O = 0x20 };

#define ENTRIES 8

struct entry {
	unsigned tag, perm;
};

/* In the kernel's form. */
static size_t acl_of(const struct entry *e, uint8_t ret[4 + ENTRIES * 8])
{
	size_t n = 4;

	memset(ret, 0, 4 + ENTRIES * 8);
	ret[0] = 2;
	for (; e->tag; e++, n += 8) {
		ret[n] = (uint8_t)e->tag;
		ret[n + 1] = (uint8_t)(e->tag >> 8);
		ret[n + 2] = (uint8_t)e->perm;
		ret[n + 3] = (uint8_t)(e->perm >> 8);
		memset(ret + n + 4, e->tag == USER || e->tag == GROUP ? 1 : 0xff, 4);
	}
	return n;
}

static void an_acl_has_its_three_entries_once_and_a_mask_if_others_are_named(void **state)
{
	static const struct {
		struct entry e[ENTRIES];
		bool valid;
	} cases[] = {
		{{{0}}, true},
		{{{U, 7}, {G, 5}, {O, 4}}, true},
		{{{U, 0}, {G, 0}, {O, 0}}, true},
		{{{U, 7}, {G, 5}, {M, 5}, {O, 4}}, true},
		{{{U, 7}, {USER, 6}, {G, 5}, {M, 7}, {O, 4}}, true},
		{{{U, 7}, {USER, 6}, {USER, 1}, {G, 5}, {GROUP, 1}, {M, 7}, {O, 4}}, true},
		{{{U, 7}, {G, 5}}, false},
		{{{U, 7}, {O, 5}}, false},
		{{{G, 7}, {O, 5}}, false},
		{{{M, 7}}, false},
		{{{U, 7}, {U, 7}, {G, 5}, {O, 4}}, false},
		{{{U, 7}, {G, 5}, {G, 5}, {O, 4}}, false},
		{{{U, 7}, {G, 5}, {O, 4}, {O, 4}}, false},
		{{{U, 7}, {G, 5}, {M, 1}, {M, 1}, {O, 4}}, false},
		{{{U, 7}, {USER, 6}, {G, 5}, {O, 4}}, false},
		{{{U, 7}, {G, 5}, {GROUP, 6}, {O, 4}}, false},
		{{{U, 8}, {G, 5}, {O, 4}}, false},
		{{{U, 7}, {G, 0x107}, {O, 4}}, false},
		{{{U, 7}, {G, 5}, {O, 4}, {0x40, 4}}, false},
		{{{U, 7}, {G, 5}, {O, 4}, {U | G, 4}}, false},
		{{{U, 7}, {G, 5}, {O, 4}, {0x100, 4}}, false},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		uint8_t acl[4 + ENTRIES * 8];
		size_t n = acl_of(cases[i].e, acl);

		if (acl_valid(acl, n) != cases[i].valid)
			fail_msg("case %zu", i);
		/* No piece of it more or less is one. */
		for (size_t len = 0; len < n; len++)
			if ((len - 4) % 8)
				assert_false(acl_valid(acl, len));
		acl[0] = 1;
		assert_false(acl_valid(acl, n));
		acl[0] = 2;
		acl[3] = 1;
		assert_false(acl_valid(acl, n));
	}
}

static void the_mode_says_what_owner_mask_and_others_may(void **state)
{
	static const struct {
		struct entry e[ENTRIES];
		mode_t before, after;
		bool plain;
	} cases[] = {
		{{{0}}, 0640, 0640, true},
		{{{U, 7}, {G, 5}, {O, 4}}, 0, 0754, true},
		{{{U, 0}, {G, 0}, {O, 0}}, 0777, 0, true},
		{{{O, 1}, {G, 2}, {U, 4}}, 07000, 07421, true},
		{{{U, 6}, {G, 7}, {M, 4}, {O, 0}}, 0, 0640, false},
		{{{U, 6}, {M, 4}, {G, 7}, {O, 0}}, 0, 0640, false},
		{{{U, 7}, {USER, 7}, {G, 5}, {M, 1}, {O, 0}}, 0, 0710, false},
		{{{U, 7}, {G, 0}, {GROUP, 7}, {M, 6}, {O, 2}}, 0, 0762, false},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		mode_t mode = S_IFREG | cases[i].before;
		uint8_t acl[4 + ENTRIES * 8];
		size_t n = acl_of(cases[i].e, acl);

		if (acl_mode(acl, n, &mode) != cases[i].plain || mode != (S_IFREG | cases[i].after))
			fail_msg("case %zu: %o", i, mode);
	}
}

struct change {
	struct entry e[ENTRIES];
	mode_t mode;
	struct entry after[ENTRIES];
	mode_t mode_after; /* create */
	bool plain;
};

static void chmod_changes_owner_mask_and_others(void **state)
{
	static const struct change cases[] = {
		{{{0}}, 0777, {{0}}, 0, false},
		{{{U, 7}, {G, 5}, {O, 4}}, 0123, {{U, 1}, {G, 2}, {O, 3}}, 0, false},
		{{{U, 7}, {G, 5}, {M, 5}, {O, 4}}, 0123, {{U, 1}, {G, 5}, {M, 2}, {O, 3}}, 0, false},
		{{{U, 7}, {USER, 6}, {G, 5}, {GROUP, 3}, {M, 7}, {O, 4}}, 07000, {{U, 0}, {USER, 6}, {G, 5}, {GROUP, 3}, {M, 0}, {O, 0}}, 0, false},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		uint8_t acl[4 + ENTRIES * 8], want[4 + ENTRIES * 8];
		size_t n = acl_of(cases[i].e, acl);

		assert_int_equal(acl_of(cases[i].after, want), n);
		acl_chmod(acl, n, S_IFREG | cases[i].mode);
		if (memcmp(acl, want, n))
			fail_msg("case %zu", i);
	}
}

/* No entry grants what was not asked for; named ones are bounded by the mask. The umask has no say. */
static void a_new_file_has_what_the_default_acl_grants_and_the_program_asked_for(void **state)
{
	static const struct change cases[] = {
		{{{0}}, 0666, {{0}}, 0666, true},
		{{{U, 7}, {G, 5}, {O, 4}}, 0666, {{U, 6}, {G, 4}, {O, 4}}, 0644, true},
		{{{U, 7}, {G, 7}, {O, 7}}, 0, {{U, 0}, {G, 0}, {O, 0}}, 0, true},
		{{{U, 7}, {G, 7}, {O, 7}}, 01750, {{U, 7}, {G, 5}, {O, 0}}, 01750, true},
		{{{U, 7}, {G, 5}, {M, 7}, {O, 4}}, 0666, {{U, 6}, {G, 5}, {M, 6}, {O, 4}}, 0664, false},
		{{{U, 7}, {USER, 7}, {G, 5}, {M, 5}, {O, 1}}, 0640, {{U, 6}, {USER, 7}, {G, 5}, {M, 4}, {O, 0}}, 0640, false},
		{{{U, 5}, {USER, 7}, {G, 0}, {GROUP, 2}, {M, 7}, {O, 0}}, 0777, {{U, 5}, {USER, 7}, {G, 0}, {GROUP, 2}, {M, 7}, {O, 0}}, 0570, false},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		uint8_t acl[4 + ENTRIES * 8], want[4 + ENTRIES * 8];
		size_t n = acl_of(cases[i].e, acl);
		mode_t mode = S_IFREG | cases[i].mode;

		acl_of(cases[i].after, want);
		if (acl_create(acl, n, &mode) != cases[i].plain || memcmp(acl, want, n) || mode != (S_IFREG | cases[i].mode_after))
			fail_msg("case %zu: %o", i, mode);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_acl_has_its_three_entries_once_and_a_mask_if_others_are_named),
		cmocka_unit_test(the_mode_says_what_owner_mask_and_others_may),
		cmocka_unit_test(chmod_changes_owner_mask_and_others),
		cmocka_unit_test(a_new_file_has_what_the_default_acl_grants_and_the_program_asked_for),
	};

	return cmocka_run_group_tests_name("acl", tests, NULL, NULL);
}
