/* SPDX-License-Identifier: MIT */
/* fsck: problems and how they are told, threads, superblocks, totals; the passes are in fsck_*.c. */
#include "mkfs/fsck_internal.h"

#include <fcntl.h>
#include <stdarg.h>

#include "codec/codec.h"

#define PROBLEMS_DEFAULT 100u
#define TEXT_SIZE 640

/* ---- problems ---- */

/*
 * What an image function of this thread has last told on_damage. The callback knows nothing of the call that led to
 * it, and only the caller knows what it was looking at; so the text is kept until the caller adds its subject.
 */
static _Thread_local struct {
	bool set;
	uint64_t offset;
	char text[IMAGE_ERROR_SIZE];
} caught;

void fsck_on_damage(void *context, uint64_t offset, const char *text)
{
	/* The first one is the cause. */
	if (caught.set)
		return;
	caught.set = true;
	caught.offset = offset;
	snprintf(caught.text, sizeof(caught.text), "%s", text);
}

bool fsck_has_caught(void)
{
	return caught.set;
}

void fsck_forget_caught(void)
{
	caught.set = false;
}

static void problem_add(struct fsck *f, uint64_t offset, const char *text)
{
	struct fsck_report *rep = f->report;
	struct fsck_problem p = {.offset = offset};

	mutex_lock(&f->lock);
	rep->errors++;
	if (rep->problem_count < f->options.max_problems && (p.text = strdup(text))) {
		if (array_reserve(&rep->problems, &f->problem_capacity, rep->problem_count + 1, sizeof(p)) < 0) {
			free(p.text);
		} else {
			rep->problems[rep->problem_count++] = p;
			if (f->options.on_problem)
				f->options.on_problem(f->options.context, &p);
		}
	}
	mutex_unlock(&f->lock);
}

void fsck_problem(struct fsck *f, uint64_t offset, const char *fmt, ...)
{
	char text[TEXT_SIZE];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	problem_add(f, offset, text);
}

int fsck_problem_caught(struct fsck *f, int error, uint64_t offset, const char *subject, ...)
{
	char text[TEXT_SIZE + IMAGE_ERROR_SIZE];
	size_t n = 0;

	if (error == -ENOMEM) {
		caught.set = false;
		return error;
	}
	if (subject) {
		va_list ap;

		va_start(ap, subject);
		vsnprintf(text, TEXT_SIZE, subject, ap);
		va_end(ap);
		n = strlen(text);
		n += (size_t)snprintf(text + n, 3, ": ");
	}
	if (caught.set)
		snprintf(text + n, sizeof(text) - n, "%s", caught.text);
	else
		snprintf(text + n, sizeof(text) - n, "%s", error == -EUCLEAN ? "damaged" : strerror(-error));
	problem_add(f, caught.set && caught.offset ? caught.offset : offset, text);
	caught.set = false;
	return 0;
}

/* ---- work in parallel ---- */

struct sweep {
	struct fsck *f;
	uint64_t total, step;
	size_t scratch;
	fsck_sweep_fn fn;
	atomic_uint_fast64_t next;
};

bool fsck_cancelled(struct fsck *f)
{
	return atomic_load_explicit(&f->error, memory_order_relaxed) ||
		(f->options.cancelled && f->options.cancelled(f->options.context));
}

static int sweep_worker(void *context, unsigned worker)
{
	struct sweep *s = context;
	_cleanup_free_ void *scratch = NULL;
	int r = 0, none = 0;

	if (s->scratch && !(scratch = calloc(1, s->scratch)))
		r = -ENOMEM;
	fsck_forget_caught();
	while (r == 0) {
		uint64_t from = atomic_fetch_add(&s->next, s->step);

		if (from >= s->total)
			break;
		if (fsck_cancelled(s->f))
			r = -ECANCELED;
		else
			r = s->fn(s->f, from, MIN(from + s->step, s->total), scratch);
	}
	if (r < 0)
		atomic_compare_exchange_strong(&s->f->error, &none, r);
	return r;
}

int fsck_sweep(struct fsck *f, uint64_t total, uint64_t step, size_t scratch, fsck_sweep_fn fn)
{
	struct sweep s = {.f = f, .total = total, .step = step, .scratch = scratch, .fn = fn};
	uint64_t pieces = total / step + !!(total % step);
	int r;

	if (!total)
		return 0;
	r = tool_parallel((unsigned)MIN((uint64_t)f->threads, pieces), sweep_worker, &s);
	/* Of several errors, the one that made the others stop. */
	return r < 0 && f->error ? f->error : r;
}

void fsck_progress(struct fsck *f, uint64_t bytes, uint64_t part, uint64_t whole)
{
	progress_add(f->progress, (uint64_t)((double)bytes * (double)part / (double)whole));
}

/* ---- superblocks ---- */

static uint64_t super_offset(const struct image_info *info, unsigned which)
{
	return which ? info->image_size - PINFS_SUPER_SIZE : 0;
}

/* The bytes of a superblock that mean nothing. NULL: all are zero. */
static const char *super_reserved(const struct pinfs_super *sb)
{
	unsigned count = MIN(pinfs_get32(sb->section_count), PINFS_SECTIONS_MAX);
	size_t label = strnlen((const char *)sb->label, PINFS_LABEL_SIZE);

	if (!fsck_all_zero(sb->reserved, sizeof(sb->reserved)) || !fsck_all_zero(sb->reserved2, sizeof(sb->reserved2)))
		return "reserved bytes are not zero";
	if (!fsck_all_zero(sb->sections + count, (PINFS_SECTIONS_MAX - count) * sizeof(sb->sections[0])))
		return "sections that are not in use are not zero";
	for (unsigned i = 0; i < count; i++)
		if (!fsck_all_zero(sb->sections[i].reserved, sizeof(sb->sections[i].reserved)))
			return "reserved bytes of a section are not zero";
	if (!fsck_all_zero(sb->label + label, PINFS_LABEL_SIZE - label))
		return "bytes after the end of the label are not zero";
	return NULL;
}

/* Two superblocks but for what makes one the copy. */
static bool super_same(const struct pinfs_super *a, const struct pinfs_super *b)
{
	struct pinfs_super x = *a, y = *b;

	x.is_backup = y.is_backup;
	x.checksum = y.checksum;
	return !memcmp(&x, &y, sizeof(x));
}

/* 0, or the error that has been told; -ENOMEM. */
static int check_super(struct fsck *f, unsigned which, struct pinfs_super *ret)
{
	const char *name = which ? "second" : "first", *what;
	uint64_t at = super_offset(f->info, which);
	int r;

	r = image_read_raw(f->image, at, sizeof(*ret), (uint8_t *)ret);
	if (r < 0) {
		f->report->super_damaged[which] = true;
		return fsck_problem_caught(f, r, at, "%s superblock", name) < 0 ? -ENOMEM : r;
	}
	r = image_super_check(f->image, which == 1);
	if (r < 0) {
		/* Not only different: then it is known which one is right, and the other can be made from it. */
		f->report->super_damaged[which] =
			codec_checksum(ret, offsetof(struct pinfs_super, checksum)) != pinfs_get64(ret->checksum);
		return fsck_problem_caught(f, r, at, fsck_has_caught() ? NULL : "%s superblock", name) < 0 ? -ENOMEM : r;
	}
	what = super_reserved(ret);
	if (what)
		fsck_problem(f, at, "%s superblock: %s", name, what);
	return 0;
}

static int check_supers(struct fsck *f)
{
	struct pinfs_super first, second;
	int a = check_super(f, 0, &first), b = a == -ENOMEM ? a : check_super(f, 1, &second);

	if (a == 0 && b == 0 && !super_same(&first, &second))
		fsck_problem(f, super_offset(f->info, 1), "the two superblocks differ");
	return b == -ENOMEM ? b : 0;
}

/* ---- totals ---- */

static void check_feature(struct fsck *f, uint64_t features, uint64_t bit, bool used, const char *name)
{
	if (used && !(features & bit))
		fsck_problem(f, 0, "superblock: the image uses %s, but the feature's bit is not set", name);
}

static void check_totals(struct fsck *f)
{
	const struct image_info *info = f->info;
	struct fsck_report *rep = f->report;

	check_feature(f, info->incompat, PINFS_INCOMPAT_LZ4, f->lz4_used, "LZ4");
	check_feature(f, info->compat, PINFS_COMPAT_XATTR, rep->xattr_sets, "extended attributes");
	check_feature(f, info->compat, PINFS_COMPAT_ACL, f->acl_used, "ACLs");
	check_feature(f, info->compat, PINFS_COMPAT_XIP, rep->xip_files, "execution in place");
	if (!f->inodes_unknown && rep->file_bytes != info->file_bytes)
		fsck_problem(f, 0, "superblock: the files have %ju bytes in all, it says %ju",
			(uintmax_t)rep->file_bytes, (uintmax_t)info->file_bytes);
	rep->unreadable_inodes = f->inodes_unknown;
}

/* ---- the whole ---- */

static int bitsets_init(struct fsck *f)
{
	const struct image_section *e = fsck_section(f, PINFS_SECTION_EXTENTS);
	const struct image_section *x = fsck_section(f, PINFS_SECTION_XATTRS);
	uint64_t blocks = f->info->block_count, extents = e ? e->raw_size / sizeof(struct pinfs_extent) : 0;
	struct {
		struct bitset *set;
		uint64_t bits;
	} all[] = {
		{&f->readable, blocks}, {&f->full, blocks}, {&f->chained, blocks}, {&f->used, blocks},
		{&f->extent_whole, extents}, {&f->extent_readable, extents}, {&f->extent_follows, extents},
		{&f->extent_used, extents}, {&f->xattr_sets, x ? x->raw_size / 8 : 0},
	};

	for (size_t i = 0; i < ARRAY_SIZE(all); i++)
		if (bitset_init(all[i].set, all[i].bits) < 0)
			return -ENOMEM;
	for (unsigned i = 0; i < f->info->section_count; i++)
		if (bitset_init(&f->chunks[i], f->info->sections[i].chunk_count) < 0)
			return -ENOMEM;
	f->extent_sums = calloc(extents / EXTENT_GROUP + 1, sizeof(*f->extent_sums));
	/* One element more than inodes: numbers begin at 1. */
	f->kinds = calloc(f->info->inode_count + 1, sizeof(*f->kinds));
	f->slots = calloc(f->info->inode_count + 1, sizeof(*f->slots));
	return f->extent_sums && f->kinds && f->slots ? 0 : -ENOMEM;
}

static int fsck_begin(struct fsck *f)
{
	for (unsigned t = 0; t < PINFS_SECTION_TYPES; t++)
		f->section_by_type[t] = -1;
	for (unsigned i = 0; i < f->info->section_count; i++) {
		/* For the progress display only: what it says is checked later. */
		f->metadata += MIN(f->info->sections[i].stored_size, f->info->image_size);
		if (f->info->sections[i].type < PINFS_SECTION_TYPES)
			f->section_by_type[f->info->sections[i].type] = (int)i;
	}
	f->progress = progress_begin(f->options.progress, "checking",
		f->info->data_end - f->info->data_offset + 3 * f->metadata);
	return bitsets_init(f);
}

static void fsck_end(struct fsck *f)
{
	struct bitset *sets[] = {&f->readable, &f->full, &f->chained, &f->used, &f->extent_whole, &f->extent_readable,
		&f->extent_follows, &f->extent_used, &f->xattr_sets};

	progress_end(f->progress);
	for (size_t i = 0; i < ARRAY_SIZE(sets); i++)
		bitset_destroy(sets[i]);
	for (unsigned i = 0; i < PINFS_SECTIONS_MAX; i++)
		bitset_destroy(&f->chunks[i]);
	for (size_t i = 0; i < f->affected_count; i++)
		free(f->affected_names[i].name);
	free(f->affected_names);
	free(f->extent_sums);
	free(f->kinds);
	free(f->slots);
	mutex_destroy(&f->lock);
}

static int problem_compare(const void *pa, const void *pb)
{
	const struct fsck_problem *a = pa, *b = pb;

	if (a->offset != b->offset)
		return a->offset < b->offset ? -1 : 1;
	return strcmp(a->text, b->text);
}

int fsck_run(struct image *image, const struct fsck_options *options, struct fsck_report *ret)
{
	static int (*const passes[])(struct fsck *) = {check_supers, fsck_check_indexes, fsck_check_store,
		fsck_check_inodes, fsck_check_tree};
	struct fsck f = {.image = image, .info = image_get_info(image), .report = ret};
	uint64_t start = now_ns();
	int r;

	*ret = (struct fsck_report){0};
	if (options)
		f.options = *options;
	if (!f.options.max_problems)
		f.options.max_problems = PROBLEMS_DEFAULT;
	f.threads = f.options.threads ? f.options.threads : tool_cpus();
	mutex_init(&f.lock, LOCK_QUEUE);
	fsck_forget_caught();
	r = fsck_begin(&f);
	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(passes); i++)
		r = fsck_cancelled(&f) ? -ECANCELED : passes[i](&f);
	if (r == 0)
		check_totals(&f);
	fsck_end(&f);
	if (ret->problem_count)
		qsort(ret->problems, ret->problem_count, sizeof(*ret->problems), problem_compare);
	ret->seconds = (double)(now_ns() - start) / 1e9;
	return r;
}

void fsck_report_free(struct fsck_report *rep)
{
	for (size_t i = 0; i < rep->problem_count; i++)
		free(rep->problems[i].text);
	for (size_t i = 0; i < rep->affected_count; i++)
		free(rep->affected_paths[i]);
	free(rep->problems);
	free(rep->affected_paths);
	*rep = (struct fsck_report){0};
}

/* ---- repair ---- */

/* The file of that name, if it is the one that io reads. */
static int open_for_repair(struct io_file *io, const char *path, int *ret)
{
	_cleanup_close_ int fd = open(path, O_RDWR | O_CLOEXEC | O_NOCTTY);
	struct stat a, b;

	if (fd < 0)
		return -errno;
	if (io_fd(io) < 0 || fstat(fd, &a) < 0 || fstat(io_fd(io), &b) < 0)
		return -ESTALE;
	if (a.st_dev != b.st_dev || a.st_ino != b.st_ino || a.st_rdev != b.st_rdev)
		return -ESTALE;
	*ret = steal_fd(&fd);
	return 0;
}

int fsck_repair_super(struct image *image, const char *path, unsigned which)
{
	const struct image_info *info = image_get_info(image);
	_cleanup_close_ int fd = -1;
	struct pinfs_super sb;
	int r;

	r = image_super_check(image, which == 0);
	if (r == 0)
		r = image_read_raw(image, super_offset(info, !which), sizeof(sb), (uint8_t *)&sb);
	if (r == 0)
		r = open_for_repair(image_io(image), path, &fd);
	if (r < 0)
		return r;
	sb.is_backup = pinfs_put32(which);
	sb.checksum = pinfs_put64(codec_checksum(&sb, offsetof(struct pinfs_super, checksum)));
	r = pwrite_all(fd, &sb, sizeof(sb), info->offset + super_offset(info, which));
	if (r < 0)
		return r;
	if (fsync(fd) < 0)
		return -errno;
	return image_super_check(image, which == 1);
}
