/* SPDX-License-Identifier: MIT */
/* mount options: what -o means, what is refused, and what libfuse is told. */
#include "support.h"

#include "base/log.h"
#include "cli/mount_options.h"

static struct mount_options options;

static int begin(void **state)
{
	mount_options_init(&options);
	/* Refusals are expected here; they would only hide real findings. */
	log_init("test", LOG_LEVEL_ERROR);
	return 0;
}

static int end(void **state)
{
	mount_options_free(&options);
	return 0;
}

static void nothing_is_the_default(void **state)
{
	assert_int_equal(mount_options_parse(&options, "", false), 0);
	assert_int_equal(mount_options_parse(&options, ",,", false), 0);
	assert_true(options.offset == IMAGE_OFFSET_AUTO);
	assert_true(options.cache_size >= 16u << 20 && options.cache_size <= 128u << 20);
	assert_false(options.writable || options.cache == MOUNT_CACHE_DAEMON || options.suid || options.dev || options.uids.all);
}

static void values_are_taken(void **state)
{
	assert_int_equal(mount_options_parse(&options, "offset=4K,cache_size=8M,io=pread,image_io=buffered,cache=daemon",
				 false), 0);
	assert_int_equal(mount_options_parse(&options, "trace=a,trace=b\\,c", false), 0);
	assert_string_equal(options.trace_file, "b,c");
	assert_int_equal(mount_options_parse(&options, "threads=3,uid=5,gidmap=0:100:10;50:7,fsname=x\\,y=z", false), 0);
	assert_int_equal(options.offset, 4096);
	assert_int_equal(options.cache_size, 8u << 20);
	assert_int_equal(options.engine, IO_ENGINE_PREAD);
	assert_int_equal(options.caching, IO_CACHING_BUFFERED);
	assert_true(options.cache == MOUNT_CACHE_DAEMON);
	assert_int_equal(options.threads, 3);
	assert_true(options.uids.all && options.uids.all_as == 5);
	assert_int_equal(options.gids.count, 2);
	assert_int_equal(options.gids.ranges[0].from, 0);
	assert_int_equal(options.gids.ranges[0].to, 100);
	assert_int_equal(options.gids.ranges[0].count, 10);
	assert_int_equal(options.gids.ranges[1].count, 1);
	assert_string_equal(options.fsname, "x,y=z");
}

static void the_last_one_counts(void **state)
{
	assert_int_equal(mount_options_parse(&options, "rw,suid,noexec,allow_other", false), 0);
	assert_int_equal(mount_options_parse(&options, "ro,nosuid,exec,noallow_other", false), 0);
	assert_false(options.writable || options.suid || options.noexec);
	assert_int_equal(options.access, MOUNT_ACCESS_OWNER);
}

static void what_fstab_holds_is_ignored(void **state)
{
	assert_int_equal(mount_options_parse(&options, "defaults,noauto,user=joe,nofail,_netdev,x-systemd.automount,"
						       "X-any=thing,comment=a b,relatime,lazytime,default_permissions",
				 false), 0);
}

static void what_is_wrong_is_refused(void **state)
{
	static const char *const wrong[] = {
		"unknown", "unknown=1", "ro=1", "offset", "offset=", "offset=x", "offset=16E", "cache_size=1", "cache_size=2M2",
		"io=", "io=fast", "image_io=raw", "cache=none", "threads=0", "threads=257", "threads=-1", "uid=", "uid=-1",
		"uid=4294967295", "uid=root", "uidmap=", "uidmap=1", "uidmap=1:2:3:4", "uidmap=1:2:0", "uidmap=1::3",
		"uidmap=1:2:4294967295", "uidmap=1:2,uidmap=x", "fsname=", "fsname=a\nb", "subtype=other", "remount=1", "=", "=x",
		"log=", "trace", "trace=", "nosuid=1", " ro",
	};
	char many[1024] = "uidmap=0:0";

	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		struct mount_options o;

		mount_options_init(&o);
		if (mount_options_parse(&o, wrong[i], false) != -EINVAL)
			fail_msg("accepted: %s", wrong[i]);
		mount_options_free(&o);
	}
	for (unsigned i = 0; i < VFS_IDMAP_RANGES; i++)
		strcat(many, ";1:1");
	assert_int_equal(mount_options_parse(&options, many, false), -EINVAL);
}

static void sloppy_leaves_out_the_unknown_only(void **state)
{
	assert_int_equal(mount_options_parse(&options, "unknown,threads=5", true), 0);
	assert_int_equal(options.threads, 5);
	assert_int_equal(mount_options_parse(&options, "threads=x", true), -EINVAL);
}

static void libfuse_gets_escaped_names(void **state)
{
	_cleanup_free_ char *text = mount_options_for_fuse(&options, "/a,b\\c d", false);

	assert_non_null(strstr(text, "fsname=/a\\,b\\\\c d,"));
	assert_non_null(strstr(text, "ro,default_permissions,subtype=pinfs"));
	assert_non_null(strstr(text, "nosuid,nodev"));
	assert_true(!strstr(text, "allow_other") == (geteuid() != 0));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(nothing_is_the_default, begin, end),
		cmocka_unit_test_setup_teardown(values_are_taken, begin, end),
		cmocka_unit_test_setup_teardown(the_last_one_counts, begin, end),
		cmocka_unit_test_setup_teardown(what_fstab_holds_is_ignored, begin, end),
		cmocka_unit_test_setup_teardown(what_is_wrong_is_refused, begin, end),
		cmocka_unit_test_setup_teardown(sloppy_leaves_out_the_unknown_only, begin, end),
		cmocka_unit_test_setup_teardown(libfuse_gets_escaped_names, begin, end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
