/* SPDX-License-Identifier: MIT */
/* mkfs: the command line, patterns, the containers, content from sources that fail, and doubles that are none. */
#include "support.h"

#include <elf.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "codec/codec.h"
#include "image/image.h"
#include "mkfs/mkfs.h"
#include "mkfs/options.h"

volatile sig_atomic_t mkfs_interrupted;

/* ---- the command line ---- */

static struct mkfs_options options;

/* Parses a line of words. Strings of the options point into it, so it lives until the next one. */
static int parse(const char *line)
{
	static char copy[2048];
	static char *argv[64];
	char *save = NULL;
	int argc = 0;

	options_free(&options);
	snprintf(copy, sizeof(copy), "mkfs.pinfs %s", line);
	for (char *w = strtok_r(copy, " ", &save); w; w = strtok_r(NULL, " ", &save))
		argv[argc++] = w;
	argv[argc] = NULL;
	optind = 0;
	return options_parse(&options, argc, argv);
}

static void defaults_depend_on_the_compression(void **state)
{
	uint32_t lz4;

	unsetenv("SOURCE_DATE_EPOCH");
	assert_int_equal(parse("src img"), 0);
	lz4 = options.block_size;
	assert_true(options.compress && options.level == CODEC_LEVEL_FAST);
	assert_true(is_power_of_two(lz4) && lz4 >= PINFS_BLOCK_SIZE_MIN && lz4 <= PINFS_BLOCK_SIZE_MAX);
	assert_int_equal(options.threads, tool_cpus());
	assert_string_equal(options.image, "img");
	assert_int_equal(options.sources.count, 1);
	assert_string_equal(options.sources.items[0], "src");
	assert_int_equal(parse("-z lz4hc src img"), 0);
	assert_true(options.compress && options.level >= 1 && options.level <= CODEC_HC_LEVEL_MAX);
	assert_true(options.block_size >= lz4);
	assert_int_equal(parse("-b 4K -z none src img"), 0);
	assert_true(!options.compress && options.block_size == 4096);
}

static void each_option_is_taken(void **state)
{
	assert_int_equal(parse("-b1MiB -zlz4hc,12 --xip=*.so,/bin/* --sort=size --no-dedup --no-pack --prepend=elf -e *.o "
			       "-e /tmp --exclude=x -x --skip-unreadable --no-xattrs --owner=5 --group=6 --uid-map=1:2:3 "
			       "--uid-map=7:8 --gid-map=0:100:50 -L label -U 6ba7b810-9dad-11d1-80b4-00c04fd430c8 -f -n -j 17 "
			       "-q --json a b c img"), 0);
	assert_int_equal(options.block_size, 1 << 20);
	assert_int_equal(options.level, 12);
	assert_int_equal(options.xip, XIP_LIST);
	assert_int_equal(options.xip_patterns.count, 2);
	assert_string_equal(options.xip_patterns.items[1], "/bin/*");
	assert_int_equal(options.sort, SORT_SIZE);
	assert_true(options.no_dedup && options.no_pack && options.one_file_system && options.skip_unreadable);
	assert_true(options.no_xattrs && options.force && options.dry_run && options.quiet && options.json);
	assert_string_equal(options.prepend, "elf");
	assert_int_equal(options.exclude.count, 3);
	assert_true(options.set_uid && options.uid == 5 && options.set_gid && options.gid == 6);
	assert_int_equal(options.uid_map_count, 2);
	assert_true(options.uid_maps[0].from == 1 && options.uid_maps[0].to == 2 && options.uid_maps[0].count == 3);
	assert_true(options.uid_maps[1].from == 7 && options.uid_maps[1].to == 8 && options.uid_maps[1].count == 1);
	assert_int_equal(options.gid_map_count, 1);
	assert_memory_equal(options.label, "label\0", 6);
	assert_true(options.have_uuid && options.uuid[0] == 0x6b && options.uuid[15] == 0xc8);
	assert_int_equal(options.threads, 17);
	assert_int_equal(options.progress, PROGRESS_NEVER);
	assert_int_equal(options.sources.count, 3);
}

static void the_last_one_of_several_wins(void **state)
{
	assert_int_equal(parse("-z none -z lz4 --xip=all --xip=a,b --xip=auto -U random -U content --sort=size --sort=path "
			       "-b 4K -b 8K src img"), 0);
	assert_true(options.compress);
	assert_int_equal(options.xip, XIP_AUTO);
	assert_int_equal(options.xip_patterns.count, 0);
	assert_false(options.random_uuid || options.have_uuid);
	assert_int_equal(options.sort, SORT_PATH);
	assert_int_equal(options.block_size, 8192);
}

static void sources_and_image_are_told_apart(void **state)
{
	assert_int_equal(parse("--tar img"), 0);
	assert_string_equal(options.tar, "-");
	assert_int_equal(parse("--tar=file img"), 0);
	assert_string_equal(options.tar, "file");
	assert_int_equal(parse("- img"), 0);
	assert_string_equal(options.tar, "-");
	assert_int_equal(parse("--empty img"), 0);
	assert_true(options.empty && !strcmp(options.image, "img"));
	/* A dry run needs no image's name. */
	assert_int_equal(parse("-n src"), 0);
	assert_true(!options.image && options.sources.count == 1);
	assert_int_equal(parse("-n --tar"), 0);
	assert_null(options.image);
	assert_int_equal(parse("-n --empty"), 0);
	assert_int_equal(parse("-n src img"), 0);
	assert_string_equal(options.image, "img");
}

static void wrong_usage_is_refused(void **state)
{
	static const char *const lines[] = {"", "src", "--empty", "--tar", "-n", "--empty src img", "--tar=x src img",
		"--tar=x --empty img", "- src img", "-b 0 src img", "-b 2K src img", "-b 4095 src img", "-b 2M src img",
		"-b 12K src img", "-b x src img", "-b 99999999999999999999 src img", "-z lzma src img", "-z lz4,3 src img",
		"-z lz4hc,0 src img", "-z lz4hc,13 src img", "-z lz4hc, src img", "-z lz4hc,x src img", "-z LZ4 src img",
		"-j 0 src img", "-j 257 src img", "-j -1 src img", "-j two src img", "-U x src img", "-U src img",
		"--owner=-1 src img", "--owner=4294967295 src img", "--owner=no-such-user-here src img",
		"--group=no-such-group-here src img", "--uid-map=x:1 src img", "--uid-map=1 src img", "--uid-map=1:2:0 src img",
		"--uid-map=1:2:3:4 src img", "--uid-map=4294967294:0:2 src img", "--gid-map=0:4294967290:10 src img",
		"--uid-map= src img", "--sort= src img", "--sort=random src img", "--sort=@/nowhere/at/all src img",
		"--xip=@/nowhere/at/all src img", "--exclude-from=/nowhere/at/all src img", "--clamp-mtime src img",
		"--no-such-option src img", "-Z src img", "--block-size"};

	for (size_t i = 0; i < ARRAY_SIZE(lines); i++)
		if (parse(lines[i]) != -EINVAL && parse(lines[i]) != -ENOENT)
			fail_msg("'%s' was accepted", lines[i]);
}

static void the_epoch_is_a_number_of_seconds(void **state)
{
	static const char *const bad[] = {"x", "-1", "1.5", "99999999999999999999", " 1"};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		setenv("SOURCE_DATE_EPOCH", bad[i], 1);
		assert_int_equal(parse("src img"), -EINVAL);
	}
	setenv("SOURCE_DATE_EPOCH", "1234567890", 1);
	assert_int_equal(parse("--clamp-mtime src img"), 0);
	assert_true(options.have_epoch && options.epoch == 1234567890 && options.clamp_mtime);
	setenv("SOURCE_DATE_EPOCH", "", 1);
	assert_int_equal(parse("src img"), 0);
	assert_false(options.have_epoch);
	unsetenv("SOURCE_DATE_EPOCH");
}

static void lists_come_from_files(void **state)
{
	_cleanup_free_ char *path = temp_path("list"), *line = NULL;

	write_file(path, "one\n\n  two \nthree", 17);
	assert_true(asprintf(&line, "--exclude-from=%s -e four src img", path) > 0);
	assert_int_equal(parse(line), 0);
	assert_int_equal(options.exclude.count, 4);
	assert_string_equal(options.exclude.items[1], "  two ");
	assert_string_equal(options.exclude.items[2], "three");
}

static void patterns_match_names_or_whole_paths(void **state)
{
	static const struct {
		const char *pattern, *path;
		bool want;
	} cases[] = {
		{"*.o", "/a/b/x.o", true}, {"*.o", "/x.o", true}, {"*.o", "/x.o.c", false}, {"b", "/a/b", true},
		{"b", "/b/a", false}, {"/b", "/b", true}, {"/b", "/a/b", false}, {"a/b", "/a/b", true}, {"/a/*", "/a/b", true},
		{"/a/*", "/a/b/c", true}, {"/*", "/anything", true}, {"?", "/a", true}, {"?", "/ab", false},
		{"[ab]", "/b", true}, {"\\*", "/*", true}, {"\\*", "/x", false}, {"", "/x", false}, {".*", "/.hidden", true},
		{"*", "/.hidden", true},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct string_list list = {0};

		assert_int_equal(string_list_add(&list, "never this one"), 0);
		assert_int_equal(string_list_add(&list, cases[i].pattern), 0);
		if (pattern_match(&list, cases[i].path, strrchr(cases[i].path, '/') + 1) != cases[i].want)
			fail_msg("'%s' and %s", cases[i].pattern, cases[i].path);
		string_list_free(&list);
	}
}

/* ---- small parts ---- */

static void programs_and_libraries_are_recognised(void **state)
{
	static const struct {
		unsigned type;
		bool want;
	} types[] = {{ET_NONE, false}, {ET_REL, false}, {ET_EXEC, true}, {ET_DYN, true}, {ET_CORE, false}};
	uint8_t head[64] = {0x7f, 'E', 'L', 'F'};

	for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
		head[EI_DATA] = ELFDATA2LSB;
		head[16] = (uint8_t)types[i].type;
		head[17] = 0;
		assert_int_equal(elf_is_loadable(head, sizeof(head)), types[i].want);
		head[EI_DATA] = ELFDATA2MSB;
		head[16] = 0;
		head[17] = (uint8_t)types[i].type;
		assert_int_equal(elf_is_loadable(head, sizeof(head)), types[i].want);
	}
	head[17] = ET_EXEC;
	for (size_t len = 0; len < 18; len++)
		assert_false(elf_is_loadable(head, len));
	head[0] = '#';
	assert_false(elf_is_loadable(head, sizeof(head)));
}

static void the_hash_table_keeps_what_was_put(void **state)
{
	struct hash_table *t = hash_table_new();
	struct rng rng = {1};

	assert_non_null(t);
	assert_int_equal(hash_table_get(t, 0, 0), 0);
	for (uint64_t i = 0; i < 100000; i++)
		assert_int_equal(hash_table_put(t, rng_next(&rng), i, i + 1), 0);
	/* Keys that differ in one half only, and the zero key. */
	for (uint64_t i = 1; i < 2000; i++) {
		assert_int_equal(hash_table_put(t, 42, i << 40, i), 0);
		assert_int_equal(hash_table_put(t, i << 40, 42, i + 5000), 0);
	}
	assert_int_equal(hash_table_put(t, 0, 0, 7), 0);
	assert_int_equal(hash_table_put(t, 0, 0, 8), 0);
	rng = (struct rng){1};
	for (uint64_t i = 0; i < 100000; i++)
		assert_int_equal(hash_table_get(t, rng_next(&rng), i), i + 1);
	for (uint64_t i = 1; i < 2000; i++) {
		assert_int_equal(hash_table_get(t, 42, i << 40), i);
		assert_int_equal(hash_table_get(t, i << 40, 42), i + 5000);
	}
	assert_int_equal(hash_table_get(t, 0, 0), 8);
	assert_int_equal(hash_table_get(t, 12345, 67890), 0);
	hash_table_free(t);
	hash_table_free(NULL);
}

/* ---- content ---- */

struct feed {
	const uint8_t *data;
	uint64_t size, fails_at; /* UINT64_MAX: never */
};

static ssize_t feed_read(void *context, void *buf, size_t len, uint64_t offset)
{
	const struct feed *f = context;

	if (offset + len > f->fails_at)
		return -EIO;
	if (offset >= f->size)
		return 0;
	len = (size_t)MIN((uint64_t)len, f->size - offset);
	memcpy(buf, f->data + offset, len);
	return (ssize_t)len;
}

struct packing {
	struct output out;
	struct pack *pack;
};

static void packing_begin(struct packing *p, const char *line)
{
	_cleanup_free_ char *image = temp_path("packed"), *whole = NULL;

	assert_true(asprintf(&whole, "%s -f src %s", line, image) > 0);
	assert_int_equal(parse(whole), 0);
	assert_int_equal(output_open(&options, &p->out), 0);
	p->out.pos = PINFS_SUPER_SIZE;
	assert_int_equal(pack_new(&options, &p->out, NULL, &p->pack), 0);
}

static void packing_end(struct packing *p)
{
	pack_free(p->pack);
	output_discard(&p->out);
}

static void a_file_that_shrinks_becomes_what_was_read(void **state)
{
	static const uint64_t sizes[] = {0, 1, 5000, 65536, 65537, 200000};
	uint8_t *data = malloc(300000);
	struct rng rng = {3};

	rng_text(&rng, data, 300000);
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		struct feed feed = {data, sizes[i], UINT64_MAX};
		struct content_source source = {feed_read, NULL, &feed};
		/* It was said to be longer. */
		struct inode big = {.mode = S_IFREG | 0644, .size = 300000}, small = {.mode = S_IFREG, .size = 4000};
		struct packing p;

		packing_begin(&p, "-b 64K");
		assert_int_equal(pack_file(p.pack, &big, &source, false), 0);
		assert_int_equal(pack_file(p.pack, &small, &source, false), 0);
		assert_int_equal(pack_finish(p.pack), 0);
		assert_int_equal(big.size, sizes[i]);
		assert_int_equal(small.size, MIN(sizes[i], (uint64_t)4000));
		free(big.file.extents);
		free(small.file.extents);
		packing_end(&p);
	}
	free(data);
}

static void an_unreadable_file_is_an_error_and_nothing_hangs(void **state)
{
	uint8_t *data = malloc(3000000);
	struct rng rng = {4};

	rng_text(&rng, data, 3000000);
	for (uint64_t at = 0; at < 3000000; at += 333333) {
		struct feed feed = {data, 3000000, at};
		struct content_source source = {feed_read, NULL, &feed};
		struct inode inode = {.mode = S_IFREG | 0644, .size = 3000000};
		struct packing p;

		packing_begin(&p, "-b 16K -j 3");
		assert_int_equal(pack_file(p.pack, &inode, &source, false), -EIO);
		/* With and without an orderly end. */
		if (at % 2)
			pack_finish(p.pack);
		free(inode.file.extents);
		packing_end(&p);
	}
	free(data);
}

static void a_full_disk_ends_all_threads(void **state)
{
	uint8_t *data = malloc(3000000);
	struct feed feed = {data, 3000000, UINT64_MAX};
	struct content_source source = {feed_read, NULL, &feed};
	struct inode inode = {.mode = S_IFREG | 0644, .size = 3000000};
	struct rng rng = {5};
	struct packing p;
	int fd, r;

	rng_bytes(&rng, data, 3000000);
	packing_begin(&p, "-b 16K -j 3");
	/* What is written goes to /dev/full from now on. */
	fd = open("/dev/full", O_WRONLY | O_CLOEXEC);
	assert_true(fd >= 0 && dup3(fd, p.out.fd, O_CLOEXEC) >= 0);
	close(fd);
	r = pack_file(p.pack, &inode, &source, false);
	assert_true(r == 0 || r == -ENOSPC);
	assert_int_equal(pack_finish(p.pack), -ENOSPC);
	free(inode.file.extents);
	packing_end(&p);
	free(data);
}

/* ---- doubles ---- */

static void write_blocks(const char *dir, const char *name, const char *blocks, size_t block, size_t tail)
{
	_cleanup_free_ char *path = NULL;
	size_t n = strlen(blocks);
	uint8_t *data = malloc(n * block + tail + 1);

	assert_true(asprintf(&path, "%s/%s", dir, name) > 0);
	for (size_t i = 0; i < n; i++)
		memset(data + i * block, blocks[i], block);
	memset(data + n * block, 'T', tail);
	write_file(path, data, n * block + tail);
	free(data);
}

static void make_doubles(const char *dir)
{
	assert_int_equal(mkdir(dir, 0755), 0);
	write_blocks(dir, "a", "ABCABCAAA", 4096, 100);
	write_blocks(dir, "b", "ABCABCAAA", 4096, 100);
	write_blocks(dir, "c", "CBAABC", 4096, 0);
	write_blocks(dir, "d", "XYZ", 4096, 4095);
	write_blocks(dir, "s1", "A", 1000, 0);
	write_blocks(dir, "s2", "B", 1000, 0);
	write_blocks(dir, "s3", "A", 1000, 0);
	for (unsigned i = 0; i < 200; i++) {
		char name[16], blocks[2] = {(char)('a' + i % 26), 0};

		snprintf(name, sizeof(name), "t%03u", i);
		write_blocks(dir, name, blocks, 500 + i / 50, 0);
	}
	/* Equal beginnings, other lengths. */
	write_blocks(dir, "u1", "AAA", 4096, 1);
	write_blocks(dir, "u2", "AAA", 4096, 2);
}

static void compare_files(const char *image, const char *dir)
{
	char error[IMAGE_ERROR_SIZE];
	struct image_inode root;
	struct image_dir_iter it;
	struct image_dirent e;
	struct image *img;
	struct io_file *io;
	unsigned files = 0;

	assert_int_equal(io_open(image, NULL, &io), 0);
	assert_int_equal(image_open(io, &(struct image_options){0}, &img, error), 0);
	assert_int_equal(image_inode_get(img, PINFS_ROOT_INO, &root), 0);
	assert_int_equal(image_dir_iter_begin(img, &root, 0, &it), 0);
	for (; image_dir_iter_next(&it, &e) == 1; files++) {
		_cleanup_free_ char *path = NULL;
		struct image_inode i;
		size_t len;
		uint8_t *want, *got;

		assert_true(asprintf(&path, "%s/%s", dir, e.name) > 0);
		want = read_file(path, &len);
		assert_int_equal(image_dir_child(img, &root, &e, &i), 0);
		assert_int_equal(i.size, len);
		got = malloc(len + 1);
		assert_int_equal(image_pread(img, &i, got, len, 0), len);
		if (memcmp(got, want, len))
			fail_msg("%s is not what it was", e.name);
		free(got);
		free(want);
	}
	assert_int_equal(files, 209);
	image_dir_iter_end(&it);
	image_close(img);
}

static size_t file_size(const char *path)
{
	struct stat st;

	assert_int_equal(stat(path, &st), 0);
	return (size_t)st.st_size;
}

static void doubles_are_stored_once_and_only_real_ones(void **state)
{
	_cleanup_free_ char *dir = temp_path("doubles"), *shared = temp_path("shared"), *plain = temp_path("plain");
	_cleanup_free_ char *weak = temp_path("weak"), *again = temp_path("again"), *strong = NULL;
	const char *program = getenv("PINFS_MKFS_WEAK");

	make_doubles(dir);
	assert_int_equal(mkfs("-b4K", "-znone", dir, shared, NULL), 0);
	assert_int_equal(mkfs("-b4K", "-znone", "--no-dedup", dir, plain, NULL), 0);
	compare_files(shared, dir);
	compare_files(plain, dir);
	/* a and b share all, c shares its blocks, and the small ones share, too. */
	assert_true(file_size(shared) + 80000 < file_size(plain));
	if (!program) {
		print_message("PINFS_MKFS_WEAK is not set: not tried with a hash that lies\n");
		return;
	}
	if (getenv("PINFS_MKFS"))
		strong = strdup(getenv("PINFS_MKFS"));
	setenv("PINFS_MKFS", program, 1);
	for (unsigned i = 0; i < 5; i++) {
		static const char *const how[][2] = {{"-znone", "-j1"}, {"-zlz4", "-j2"}, {"-zlz4hc,3", "-j5"},
			{"--xip=a", "-j2"}, {"--no-pack", "-j2"}};

		assert_int_equal(mkfs("-b4K", how[i][0], how[i][1], dir, weak, NULL), 0);
		compare_files(weak, dir);
		/* And however many threads take part, the same bytes. */
		assert_int_equal(mkfs("-b4K", how[i][0], "-j3", dir, again, NULL), 0);
		assert_int_equal(file_size(weak), file_size(again));
	}
	if (strong)
		setenv("PINFS_MKFS", strong, 1);
	else
		unsetenv("PINFS_MKFS");
}

static int teardown(void **state)
{
	options_free(&options);
	return support_end(state);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(defaults_depend_on_the_compression),
		cmocka_unit_test(each_option_is_taken),
		cmocka_unit_test(the_last_one_of_several_wins),
		cmocka_unit_test(sources_and_image_are_told_apart),
		cmocka_unit_test(wrong_usage_is_refused),
		cmocka_unit_test(the_epoch_is_a_number_of_seconds),
		cmocka_unit_test(lists_come_from_files),
		cmocka_unit_test(patterns_match_names_or_whole_paths),
		cmocka_unit_test(programs_and_libraries_are_recognised),
		cmocka_unit_test(the_hash_table_keeps_what_was_put),
		cmocka_unit_test(a_file_that_shrinks_becomes_what_was_read),
		cmocka_unit_test(an_unreadable_file_is_an_error_and_nothing_hangs),
		cmocka_unit_test(a_full_disk_ends_all_threads),
		cmocka_unit_test(doubles_are_stored_once_and_only_real_ones),
	};

	return cmocka_run_group_tests_name("mkfs", tests, NULL, teardown);
}
