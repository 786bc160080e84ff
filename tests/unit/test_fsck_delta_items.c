/* SPDX-License-Identifier: MIT */
/*
 * fsck of a delta whose items contradict each other, with right checksums: that is found by name, and what was repaired is sound. FSCK_CASE=NAME checks
 * one of them alone.
 */
#include "fsck_support.h"

#include <dirent.h>
#include <linux/fs.h>
#include <sys/stat.h>

/* The vfs and its delta, while they are changed. */
struct hostile {
	struct delta *delta;
	uint64_t sub, random, text, shared, d, link;
};

static struct delta_inode inode_of(struct hostile *h, uint64_t ino)
{
	struct delta_inode i;

	assert_int_equal(delta_inode_get(h->delta, ino, &i), 0);
	return i;
}

#define CHANGE_INODE(name, which, change)                       \
	static void name(struct hostile *h)                     \
	{                                                       \
		struct delta_inode i = inode_of(h, h->which);   \
                                                                \
		change;                                         \
		assert_int_equal(delta_inode_put(h->delta, &i), 0); \
	}

CHANGE_INODE(links, text, i.nlink = 7)
CHANGE_INODE(no_links, text, i.nlink = 0)
CHANGE_INODE(entries, sub, i.entries += 3)
CHANGE_INODE(sub_links, sub, i.nlink++)
CHANGE_INODE(parent, sub, i.parent = h->d)
CHANGE_INODE(own_parent, sub, i.parent = h->sub)
CHANGE_INODE(pages, text, i.pages++)
CHANGE_INODE(image_end, text, i.image_end = 4096)
CHANGE_INODE(image_pages, text, i.image_pages = 5)
CHANGE_INODE(mode_none, text, i.mode = 0644)
CHANGE_INODE(mode_other, text, i.mode = S_IFDIR | 0755; i.parent = 1)
CHANGE_INODE(gone_new, text, i.gone = true)
CHANGE_INODE(xattrs_flag, random, i.own_xattrs = false)
CHANGE_INODE(size_short, random, i.size = 100)
CHANGE_INODE(link_size, link, i.size = 4)
CHANGE_INODE(nsec, text, i.mtime.tv_nsec = 2000000000)

#define DELETE_ITEM(name, ino, type, offset)                                                                   \
	static void name(struct hostile *h)                                                                    \
	{                                                                                                      \
		assert_int_equal(delta_item_delete(h->delta, (uint64_t)(ino) << 8 | (type), offset), 0);       \
	}
#define PUT_ITEM(name, ino, type, offset, value, len)                                                          \
	static void name(struct hostile *h)                                                                    \
	{                                                                                                      \
		assert_int_equal(delta_item_put(h->delta, (uint64_t)(ino) << 8 | (type), offset, value, len), 0); \
	}

DELETE_ITEM(lose_inode, h->random, PINFS_DELTA_INODE, 0)
DELETE_ITEM(lose_directory, h->sub, PINFS_DELTA_INODE, 0)
DELETE_ITEM(lose_image_directory, h->d, PINFS_DELTA_INODE, 0)
DELETE_ITEM(lose_target, h->link, PINFS_DELTA_SYMLINK, 0)
PUT_ITEM(unknown_type, h->text, 9, 3, "x", 1)
PUT_ITEM(unknown_global, 0, 7, 3, "x", 1)
PUT_ITEM(short_inode, h->text, PINFS_DELTA_INODE, 0, "x", 1)
PUT_ITEM(short_extent, h->text, PINFS_DELTA_EXTENT, 0, "x", 1)
PUT_ITEM(short_dirent, h->sub, PINFS_DELTA_DIRENT, 0x300, "x", 1)
PUT_ITEM(lone_piece, h->text, PINFS_DELTA_XVALUE + 2, 0x300, "x", 1)
PUT_ITEM(second_inode, h->text, PINFS_DELTA_INODE, 1, "x", 1)
PUT_ITEM(orphan_of_none, 0, PINFS_DELTA_ORPHAN, 99999, NULL, 0)
PUT_ITEM(target_of_file, h->text, PINFS_DELTA_SYMLINK, 0, "target", 6)

static void dirent_raw(struct hostile *h, uint64_t dir, const char *name, uint64_t ino, uint8_t type, uint64_t slot)
{
	struct {
		struct pinfs_delta_dirent head;
		char name[256];
	} __attribute__((packed)) item = {.head = {.ino = pinfs_put64(ino), .type = type, .name_len = (uint8_t)strlen(name)}};
	size_t len = strlen(name);

	memcpy(item.name, name, len);
	slot += delta_name_hash(h->delta, name, len);
	assert_int_equal(delta_item_put(h->delta, dir << 8 | PINFS_DELTA_DIRENT, slot, &item, sizeof(item.head) + len), 0);
}

static void name_of_nothing(struct hostile *h)
{
	dirent_raw(h, h->sub, "nothing", 88888, DT_REG, 0);
}

static void name_of_wrong_type(struct hostile *h)
{
	dirent_raw(h, h->sub, "text", h->text, DT_FIFO, 0);
}

static void name_twice(struct hostile *h)
{
	dirent_raw(h, h->sub, "text", h->text, DT_REG, 1);
}

static void name_elsewhere(struct hostile *h)
{
	dirent_raw(h, h->sub, "elsewhere", h->text, DT_REG, 0x1000);
}

static void name_of_file(struct hostile *h)
{
	dirent_raw(h, h->text, "below a file", h->random, DT_REG, 0);
}

static void hides_nothing(struct hostile *h)
{
	dirent_raw(h, h->sub, "never was", 0, 0, 0);
}

static void second_name_of_directory(struct hostile *h)
{
	dirent_raw(h, h->d, "sub again", h->sub, DT_DIR, 0);
}

static void dot(struct hostile *h)
{
	dirent_raw(h, h->sub, "..", 1, DT_DIR, 0);
}

static void lose_name(struct hostile *h)
{
	assert_int_equal(delta_dirent_delete(h->delta, h->sub, "text", 4), 0);
}

static void lose_directory_name(struct hostile *h)
{
	assert_int_equal(delta_dirent_delete(h->delta, 1, "sub", 3), 0);
}

static void unhide(struct hostile *h)
{
	assert_int_equal(delta_dirent_delete(h->delta, 1, "gone", 4), 0);
}

/* sub/a and sub/a/b: a's name goes into b. */
static void cycle(struct hostile *h)
{
	struct delta_inode a = {.ino = delta_ino_new(h->delta), .mode = S_IFDIR | 0755, .nlink = 3, .own_xattrs = true, .entries = 1}, b = a;

	b.ino = delta_ino_new(h->delta);
	a.parent = b.ino;
	b.parent = a.ino;
	assert_int_equal(delta_inode_put(h->delta, &a), 0);
	assert_int_equal(delta_inode_put(h->delta, &b), 0);
	dirent_raw(h, a.ino, "b", b.ino, DT_DIR, 0);
	dirent_raw(h, b.ino, "a", a.ino, DT_DIR, 0);
	assert_int_equal(delta_files_add(h->delta, 2), 0);
}

static void files(struct hostile *h)
{
	assert_int_equal(delta_files_set(h->delta, 12345), 0);
}

/* The first extent of a file with pages. */
static struct delta_item extent_of(struct hostile *h, uint64_t ino, unsigned kind)
{
	struct delta_item item;
	struct delta_extent e;
	uint64_t page = 0;
	struct pinfs_delta_extent raw;

	for (;;) {
		assert_int_equal(delta_extent_get(h->delta, ino, page, &e), 0);
		assert_true(e.pages < 1u << 30);
		/* One that was not cut. */
		if (e.kind == kind && e.pages == e.raw_pages)
			break;
		page += e.pages;
	}
	/* As an item: of those, the lock is ours already. */
	raw = (struct pinfs_delta_extent){.pages = pinfs_put32((uint32_t)e.pages), .kind = e.kind, .start = pinfs_put64(e.start), .skip = pinfs_put32(e.skip),
		.raw_pages = pinfs_put32(e.raw_pages), .stored = pinfs_put32(e.stored), .image_ino = pinfs_put32(e.image_ino), .checksum = pinfs_put64(e.checksum)};
	item = (struct delta_item){.object = ino << 8 | PINFS_DELTA_EXTENT, .offset = e.key, .len = sizeof(raw)};
	memcpy(item.value, &raw, sizeof(raw));
	return item;
}

static void put_extent(struct hostile *h, const struct delta_item *item, uint64_t page, void (*alter)(struct hostile *, struct pinfs_delta_extent *))
{
	struct pinfs_delta_extent raw;

	memcpy(&raw, item->value, sizeof(raw));
	if (alter)
		alter(h, &raw);
	assert_int_equal(delta_item_put(h->delta, item->object, page, &raw, sizeof(raw)), 0);
}

static void extents_overlap(struct hostile *h)
{
	struct delta_item item = extent_of(h, h->text, PINFS_DELTA_LZ4);

	put_extent(h, &item, item.offset + 1, NULL);
}

/* Two refer to the same pages, and nothing says so. */
static void extents_of_same_pages(struct hostile *h)
{
	struct delta_item item = extent_of(h, h->text, PINFS_DELTA_LZ4);

	put_extent(h, &item, 1000, NULL);
}

static void to_far(struct hostile *h, struct pinfs_delta_extent *e)
{
	e->start = pinfs_put64(1u << 30);
}

static void extent_far_away(struct hostile *h)
{
	struct delta_item item = extent_of(h, h->text, PINFS_DELTA_LZ4);

	put_extent(h, &item, item.offset, to_far);
}

static void to_log(struct hostile *h, struct pinfs_delta_extent *e)
{
	e->start = pinfs_put64(6);
}

static void extent_in_log(struct hostile *h)
{
	struct delta_item item = extent_of(h, h->text, PINFS_DELTA_LZ4);

	put_extent(h, &item, item.offset, to_log);
}

static void wrong_sum(struct hostile *h, struct pinfs_delta_extent *e)
{
	e->checksum = pinfs_put64(42);
}

static void content_wrong(struct hostile *h)
{
	struct delta_item item = extent_of(h, h->text, PINFS_DELTA_LZ4);

	put_extent(h, &item, item.offset, wrong_sum);
}

static void to_hole(struct hostile *h, struct pinfs_delta_extent *e)
{
	*e = (struct pinfs_delta_extent){.pages = e->pages, .kind = PINFS_DELTA_HOLE};
}

static void lose_pages(struct hostile *h)
{
	struct delta_item item = extent_of(h, h->text, PINFS_DELTA_LZ4);

	put_extent(h, &item, item.offset, to_hole);
}

static void of_no_image(struct hostile *h, struct pinfs_delta_extent *e)
{
	*e = (struct pinfs_delta_extent){.pages = e->pages, .kind = PINFS_DELTA_IMAGE, .image_ino = pinfs_put32(777)};
}

static void extent_of_no_image(struct hostile *h)
{
	struct delta_item item = extent_of(h, h->text, PINFS_DELTA_LZ4);

	put_extent(h, &item, item.offset, of_no_image);
}

static uint64_t first_shared;

static void shared_count(struct hostile *h)
{
	struct pinfs_delta_shared s = {pinfs_put32(10), pinfs_put32(9)};

	assert_int_equal(delta_item_put(h->delta, PINFS_DELTA_SHARED, first_shared, &s, sizeof(s)), 0);
}

DELETE_ITEM(shared_lost, 0, PINFS_DELTA_SHARED, first_shared)

static void shared_of_nothing(struct hostile *h)
{
	struct pinfs_delta_shared s = {pinfs_put32(10), pinfs_put32(2)};

	assert_int_equal(delta_item_put(h->delta, PINFS_DELTA_SHARED, 5000, &s, sizeof(s)), 0);
}

static void root_gone(struct hostile *h)
{
	struct delta_inode i = {.ino = VFS_ROOT_INO, .mode = S_IFDIR | 0755, .parent = VFS_ROOT_INO, .gone = true};

	assert_int_equal(delta_inode_put(h->delta, &i), 0);
}

static void image_gone(struct hostile *h)
{
	struct delta_inode i = {.ino = h->d, .mode = S_IFDIR | 0755, .parent = 1, .gone = true};

	assert_int_equal(delta_inode_put(h->delta, &i), 0);
}

static const struct {
	const char *name;
	void (*change)(struct hostile *h);
	const char *text;
} contradictions[] = {
	{"links", links, "its link count is 7, but it has 1 names"},
	{"no links", no_links, "its link count is 0, but it has 1 names"},
	{"entries", entries, "names, but has"},
	{"links of a directory", sub_links, "but with 1 subdirectories it must be 3"},
	{"parent", parent, "is its parent, but its name is in inode 1"},
	{"own parent", own_parent, "it lies below itself"},
	{"pages", pages, "its extents have"},
	{"image end", image_end, "of the image's content, but there are none"},
	{"image pages", image_pages, "pages of the image, which has 0"},
	{"mode of no kind", mode_none, "its attributes can't be"},
	{"mode of another kind", mode_other, "it is a directory, but has content"},
	{"root gone", root_gone, "it is the root directory, and marked as gone"},
	{"gone, but new", gone_new, "marked as gone, but the image has no such inode"},
	{"attributes of a new inode", xattrs_flag, "it is new, but has the image's extended attributes"},
	{"content behind the end", size_short, "there is content behind its end"},
	{"size of a link", link_size, "a symbolic link of 4 bytes, whose target has 12"},
	{"nanoseconds", nsec, "its attributes can't be"},
	{"lost inode", lose_inode, "of it, but no attributes"},
	{"lost directory", lose_directory, "the delta has names of it, but no attributes"},
	{"lost directory of the image", lose_image_directory, "the delta has names of it, but no attributes"},
	{"lost target", lose_target, "whose target has 0"},
	{"unknown type", unknown_type, "an item of unknown type 9"},
	{"unknown type of nobody", unknown_global, "an item of unknown type 7"},
	{"short inode", short_inode, "it has a wrong size"},
	{"short extent", short_extent, "the extent of page 0 can't be"},
	{"short name", short_dirent, "a name in it has a wrong size"},
	{"lone piece", lone_piece, "piece 2 of an extended attribute with 1 bytes belongs to none"},
	{"second inode", second_inode, "an item of unknown type 1"},
	{"orphan of none", orphan_of_none, "inode 99999 is noted as one without a name, but is not there"},
	{"target of a file", target_of_file, "a target that can't be"},
	{"name of nothing", name_of_nothing, "'nothing' leads to inode 88888, which is not there"},
	{"name of a wrong type", name_of_wrong_type, "'text' has type 1"},
	{"name twice", name_twice, "the name 'text' is there twice"},
	{"name elsewhere", name_elsewhere, "'elsewhere' lies at hash"},
	{"name below a file", name_of_file, "it is a file, but has names"},
	{"hides nothing", hides_nothing, "'never was' hides a name that the image doesn't have"},
	{"second name of a directory", second_name_of_directory, "is one more name of directory inode"},
	{"dot dot", dot, "it has an entry '..'"},
	{"lost name", lose_name, "no directory has a name for it"},
	{"lost name of a directory", lose_directory_name, "no directory has a name for it"},
	{"unhidden", unhide, "is marked as gone, but 1 names of the image are left"},
	{"cycle", cycle, "it lies below itself"},
	{"files", files, "it counts 12345 files"},
	{"extents overlap", extents_overlap, "overlap"},
	{"the same pages", extents_of_same_pages, "2 extents refer to them, and no count says so"},
	{"far away", extent_far_away, "outside of what the delta has for content"},
	{"in the log", extent_in_log, "outside of what the delta has for content"},
	{"wrong content", content_wrong, "are not what was written: a wrong checksum"},
	{"lost pages", lose_pages, "are used by nobody, but the map calls them used"},
	{"of no image", extent_of_no_image, "of the image's inode 777, which has none"},
	{"count of references", shared_count, "2 extents refer to them, but the count says 9"},
	{"lost count", shared_lost, "2 extents refer to them, and no count says so"},
	{"count of nothing", shared_of_nothing, "0 extents refer to them, but the count says 2"},
	{"gone, but with names", image_gone, "is marked as gone, but 1 names of the image are left"},
};

static void open_hostile(struct vfs *v, struct hostile *h)
{
	struct delta_item item;

	h->delta = vfs_delta(v);
	h->d = find(v, VFS_ROOT_INO, "d");
	h->sub = find(v, VFS_ROOT_INO, "sub");
	h->random = find(v, h->sub, "random");
	h->text = find(v, h->sub, "text");
	h->shared = find(v, h->sub, "shared");
	h->link = find(v, h->sub, "link");
	assert_int_equal(delta_item_next(h->delta, PINFS_DELTA_SHARED, 0, &item), 0);
	first_shared = item.offset;
}

static void contradiction_is_found(const struct memory *good, size_t n, bool in_log)
{
	struct memory m = copy_of(good), c2;
	struct vfs *v = open_vfs(&m);
	struct hostile h;
	struct checked c;
	struct dump d;
	bool found;

	assert_non_null(v);
	open_hostile(v, &h);
	assert_int_equal(delta_begin(h.delta, 0), 0);
	contradictions[n].change(&h);
	assert_int_equal(delta_commit(h.delta), 0);
	if (!in_log)
		assert_int_equal(delta_checkpoint(h.delta), 0);
	c2 = copy_of(&m);
	vfs_free(v);
	free(m.bytes);
	m = copy_of(&c2);
	c = check(&m, false, false);
	/* What a frame can't say at all, the log is cut before. */
	found = has_text(&c.report, contradictions[n].text) || (in_log && has_text(&c.report, "of the log contradicts what stands before it"));
	if (c.result || !found) {
		print_error("%s: '%s' is not among:\n", contradictions[n].name, contradictions[n].text);
		print_problems(&c.report);
	}
	assert_int_equal(c.result, 0);
	assert_true(found);
	fsck_delta_report_free(&c.report);
	/* A mount of it does no harm to itself. */
	v = open_vfs(&c2);
	if (v) {
		d = dump_of(v);
		free(d.text);
		vfs_free(v);
	}
	free(c2.bytes);
	c = check(&m, true, true);
	if (c.result || c.report.left) {
		print_error("%s: not repaired\n", contradictions[n].name);
		print_problems(&c.report);
	}
	fsck_delta_report_free(&c.report);
	c = check(&m, false, false);
	if (c.report.errors) {
		print_error("%s: left:\n", contradictions[n].name);
		print_problems(&c.report);
	}
	assert_int_equal(c.result, 0);
	assert_int_equal(c.report.errors, 0);
	fsck_delta_report_free(&c.report);
	v = open_vfs(&m);
	assert_non_null(v);
	d = dump_of(v);
	free(d.text);
	assert_int_equal(vfs_sync(v), 0);
	make(v, VFS_ROOT_INO, "after all", S_IFREG | 0644);
	assert_int_equal(delta_checkpoint(vfs_delta(v)), 0);
	vfs_free(v);
	assert_clean(&m);
	free(m.bytes);
}

static void contradictions_are_found_by_name(void **state)
{
	struct memory good = make_delta(false);
	const char *only = getenv("FSCK_CASE");

	for (size_t i = 0; i < ARRAY_SIZE(contradictions); i++) {
		if (only && strcmp(only, contradictions[i].name))
			continue;
		contradiction_is_found(&good, i, false);
		/* A frame whose content isn't there is where a log ends. */
		if (contradictions[i].change != content_wrong && contradictions[i].change != extent_far_away && contradictions[i].change != extent_in_log)
			contradiction_is_found(&good, i, true);
	}
	free(good.bytes);
}

static void content_is_given_up_only_with_y(void **state)
{
	struct memory m = make_delta(false), c2;
	struct vfs *v = open_vfs(&m);
	struct hostile h;
	struct checked c;

	open_hostile(v, &h);
	assert_int_equal(delta_begin(h.delta, 0), 0);
	content_wrong(&h);
	assert_int_equal(delta_commit(h.delta), 0);
	assert_int_equal(delta_checkpoint(h.delta), 0);
	c2 = copy_of(&m);
	vfs_free(v);
	free(m.bytes);
	c = check(&c2, true, false);
	assert_int_equal(c.result, 0);
	assert_int_equal(c.report.left, 1);
	assert_int_equal(c.report.affected_count, 1);
	assert_string_equal(c.report.affected_paths[0], "/sub/text");
	fsck_delta_report_free(&c.report);
	c = check(&c2, true, true);
	assert_int_equal(c.report.left, 0);
	fsck_delta_report_free(&c.report);
	free(c2.bytes);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(content_is_given_up_only_with_y),
		cmocka_unit_test(contradictions_are_found_by_name),
	};

	if (getenv("FSCK_FILTER"))
		cmocka_set_test_filter(getenv("FSCK_FILTER"));
	return cmocka_run_group_tests_name("fsck_delta_items", tests, fsck_setup, fsck_teardown);
}
