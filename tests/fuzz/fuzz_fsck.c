/* SPDX-License-Identifier: MIT */
/*
 * The input is an image for fsck_run(), with checksums ignored so that mutations reach its passes. Beside crashes and
 * endless loops a finding is: a report that contradicts itself, and an image that fsck calls sound but image.h can't
 * read all of.
 */
#include "fuzz.h"

#include "mkfs/fsck.h"

#define PROBLEMS_MOST 20u
#define INODES_MOST 300u
#define STEPS_MOST 400u

struct told {
	size_t count;
};

static void on_problem(void *context, const struct fsck_problem *p)
{
	struct told *told = context;

	FUZZ_CHECK(p->text && p->text[0]);
	told->count++;
}

/* ---- what fsck calls sound can be read ---- */

static void read_content(struct image *img, const struct image_inode *i)
{
	uint64_t offset = 0, end;
	uint8_t buf[512];

	for (unsigned n = 0; n < STEPS_MOST && offset < i->size; n++) {
		struct image_map m;

		FUZZ_CHECK(image_map(img, i, offset, &m) == 0);
		FUZZ_CHECK(image_pread(img, i, buf, 1, offset) == 1);
		FUZZ_CHECK(image_pread(img, i, buf, 1, offset + m.length - 1) == 1);
		offset += m.length;
	}
	FUZZ_CHECK(image_pread(img, i, buf, sizeof(buf), i->size - MIN(i->size, (uint64_t)sizeof(buf))) >= 0);
	if (i->xip)
		FUZZ_CHECK(image_xip_offset(img, i, &end) == 0);
}

static void read_dir(struct image *img, const struct image_inode *dir)
{
	struct image_dir_iter it;
	struct image_dirent e, found;
	struct image_inode child;
	int r = image_dir_iter_begin(img, dir, 0, &it);

	FUZZ_CHECK(r == 0);
	for (unsigned n = 0; n < STEPS_MOST && (r = image_dir_iter_next(&it, &e)) > 0; n++) {
		FUZZ_CHECK(image_dir_child(img, dir, &e, &child) == 0);
		FUZZ_CHECK(image_dir_lookup(img, dir, e.name, e.name_len, &found) == 0);
		FUZZ_CHECK(found.ino == e.ino && found.index == e.index && found.type == e.type);
	}
	FUZZ_CHECK(r >= 0);
	image_dir_iter_end(&it);
}

static void read_xattrs(struct image *img, const struct image_inode *i)
{
	ssize_t n = image_xattr_list(img, i, NULL, 0), at = 0;
	char *list;

	FUZZ_CHECK(n >= 0);
	if (n > (1 << 20))
		return;
	list = malloc((size_t)n + 1);
	FUZZ_CHECK(list && image_xattr_list(img, i, list, (size_t)n + 1) == n);
	for (unsigned k = 0; k < 16 && at < n; k++) {
		FUZZ_CHECK(image_xattr_get(img, i, list + at, NULL, 0) >= 0);
		at += (ssize_t)strlen(list + at) + 1;
	}
	free(list);
}

static void read_all(struct image *img)
{
	const struct image_info *info = image_get_info(img);

	for (uint64_t ino = 1; ino <= MIN(info->inode_count, (uint64_t)INODES_MOST); ino++) {
		char target[PINFS_SYMLINK_MAX + 1];
		struct image_inode i;

		FUZZ_CHECK(image_inode_get(img, ino, &i) == 0);
		read_xattrs(img, &i);
		if (S_ISREG(i.mode))
			read_content(img, &i);
		else if (S_ISDIR(i.mode))
			read_dir(img, &i);
		else if (S_ISLNK(i.mode))
			FUZZ_CHECK(image_readlink(img, &i, target) == 0);
	}
}

/* ---- the report ---- */

static void check_report(const struct fsck_report *rep, const struct told *told)
{
	FUZZ_CHECK(rep->problem_count <= PROBLEMS_MOST && rep->problem_count <= rep->errors);
	FUZZ_CHECK(rep->problem_count == told->count);
	FUZZ_CHECK(rep->problem_count == MIN(rep->errors, (uint64_t)PROBLEMS_MOST));
	for (size_t i = 0; i < rep->problem_count; i++) {
		FUZZ_CHECK(rep->problems[i].text && rep->problems[i].text[0]);
		FUZZ_CHECK(!i || rep->problems[i].offset >= rep->problems[i - 1].offset);
	}
	for (size_t i = 0; i < rep->affected_count; i++)
		FUZZ_CHECK(rep->affected_paths[i] && rep->affected_paths[i][0]);
	FUZZ_CHECK(rep->affected_count <= rep->affected);
	/* What follows from a problem is told only if there is one. */
	if (!rep->errors)
		FUZZ_CHECK(!rep->affected && !rep->unreached && !rep->unreadable_inodes && !rep->super_damaged[0] &&
			!rep->super_damaged[1]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct image_options lax = {.no_verify = true, .on_damage = fsck_on_damage};
	struct told told = {0};
	struct fsck_options options = {
		.threads = 1,
		.progress = PROGRESS_NEVER,
		.max_problems = PROBLEMS_MOST,
		.on_problem = on_problem,
		.context = &told,
	};
	struct fsck_report rep;
	struct image *image = fuzz_image_open(data, size, &lax);

	if (!image)
		return 0;
	FUZZ_CHECK(fsck_run(image, &options, &rep) == 0);
	check_report(&rep, &told);
	if (!rep.errors)
		read_all(image);
	fsck_report_free(&rep);
	image_close(image);
	return 0;
}
