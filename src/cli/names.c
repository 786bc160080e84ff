/* SPDX-License-Identifier: MIT */
/*
 * Which names an inode of the image has: an image leads from names to inodes only.
 *
 * mkfs.pinfs numbers the entries of a directory one after the other, and takes directories depth first. So the last new number in a
 * directory is greater than those of its elder siblings and all that is below them, and less than those below itself: a bisection at each
 * level finds the one directory where a number can be. The format doesn't promise that: where it doesn't lead to the inode, and
 * for inodes with several names, all directories are read.
 */
#include "cli/cli.h"

#include "base/log.h"

struct finder {
	struct image *image;
	const uint32_t *inos;
	size_t count;
	uint32_t *left; /* names that are still to be found, by place in inos */
	uint64_t left_sum;
	struct cli_names names;
};

struct dir_list {
	uint32_t *items;
	size_t count, capacity;
};

static int dir_list_add(struct dir_list *l, uint32_t ino)
{
	int r = array_reserve(&l->items, &l->capacity, l->count + 1, sizeof(*l->items));

	if (r == 0)
		l->items[l->count++] = ino;
	return r;
}

static size_t place_of(const struct finder *f, uint32_t ino)
{
	size_t low = 0, high = f->count;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (f->inos[mid] < ino)
			low = mid + 1;
		else
			high = mid;
	}
	return low < f->count && f->inos[low] == ino ? low : SIZE_MAX;
}

static int note(struct finder *f, uint32_t dir, const struct image_dirent *e)
{
	size_t place = place_of(f, e->ino);
	struct cli_names *n = &f->names;
	int r;

	if (place == SIZE_MAX || !f->left[place])
		return 0;
	r = array_reserve(&n->items, &n->capacity, n->count + 1, sizeof(*n->items));
	if (r < 0)
		return r;
	n->items[n->count] = (struct cli_name){.ino = e->ino, .dir = dir, .name = strdup(e->name)};
	if (!n->items[n->count].name)
		return -ENOMEM;
	n->count++;
	f->left[place]--;
	f->left_sum--;
	return 0;
}

/* Calls `entry` for each entry of the directory, until it returns nonzero. */
static int dir_walk(struct image *image, uint32_t ino, int (*entry)(void *context, uint32_t dir, const struct image_dirent *e), void *context)
{
	struct image_inode dir;
	struct image_dir_iter iter;
	struct image_dirent e;
	int r = image_inode_get(image, ino, &dir);

	if (r == 0 && !S_ISDIR(dir.mode))
		r = -EUCLEAN;
	if (r == 0)
		r = image_dir_iter_begin(image, &dir, 0, &iter);
	if (r < 0)
		return r;
	while ((r = image_dir_iter_next(&iter, &e)) > 0) {
		r = entry(context, ino, &e);
		if (r)
			break;
	}
	image_dir_iter_end(&iter);
	return r;
}

struct level {
	struct image *image;
	struct finder *finder; /* NULL: names are not noted */
	struct dir_list *subdirs;
	uint32_t last; /* greatest number; 0: empty */
};

static int level_entry(void *context, uint32_t dir, const struct image_dirent *e)
{
	struct level *l = context;
	struct image_inode child;
	int r = 0;

	l->last = MAX(l->last, e->ino);
	if (l->finder)
		r = note(l->finder, dir, e);
	if (r < 0 || !l->subdirs || e->type != S_IFDIR >> 12)
		return r;
	/* Each directory comes once, from its parent: else an image could have us walk in circles. */
	r = image_inode_get(l->image, e->ino, &child);
	if (r == 0 && (!S_ISDIR(child.mode) || child.arg1 != dir || child.ino <= dir))
		r = -EUCLEAN;
	return r < 0 ? r : dir_list_add(l->subdirs, e->ino);
}

static int dir_last(struct image *image, uint32_t ino, uint32_t *ret)
{
	struct level l = {.image = image};
	int r = dir_walk(image, ino, level_entry, &l);

	*ret = l.last;
	return r;
}

/* The first directory of the list whose last number is not less than ino; empty ones don't count. *ret: the list's length if there is none. */
static int bisect(struct image *image, const struct dir_list *dirs, uint32_t ino, size_t *ret)
{
	size_t low = 0, high = dirs->count, best = dirs->count;

	while (low < high) {
		size_t mid = low + (high - low) / 2, at = mid;
		uint32_t last = 0;
		int r;

		while (at < high) {
			r = dir_last(image, dirs->items[at], &last);
			if (r < 0)
				return r;
			if (last)
				break;
			at++;
		}
		if (last >= ino)
			best = at;
		if (!last || last >= ino)
			high = mid;
		else
			low = at + 1;
	}
	*ret = best;
	return 0;
}

/* Reads the directories on the way to an inode, and with them the names of others that are wanted. */
static int descend(struct finder *f, size_t place)
{
	uint32_t at = PINFS_ROOT_INO, ino = f->inos[place];
	struct dir_list dirs = {0};
	int r = 0;

	while (r == 0) {
		struct level l = {.image = f->image, .finder = f, .subdirs = &dirs};
		size_t next = 0;
		uint32_t last = 0;

		dirs.count = 0;
		r = dir_walk(f->image, at, level_entry, &l);
		if (r < 0 || !f->left[place] || ino <= l.last)
			break;
		r = bisect(f->image, &dirs, ino, &next);
		if (r == 0 && next < dirs.count) {
			l.subdirs = NULL;
			r = dir_walk(f->image, dirs.items[next], level_entry, &l);
		}
		if (r < 0 || !f->left[place])
			break;
		while (r == 0 && next-- > 0 && !last)
			r = dir_last(f->image, dirs.items[next], &last);
		if (!last)
			break;
		at = dirs.items[next + 1];
	}
	free(dirs.items);
	return r;
}

/* All directories, one after the other, until nothing is left to be found. */
static int scan(struct finder *f)
{
	struct dir_list dirs = {0};
	int r = dir_list_add(&dirs, PINFS_ROOT_INO);

	while (r == 0 && dirs.count && f->left_sum) {
		struct level l = {.image = f->image, .finder = f, .subdirs = &dirs};

		r = dir_walk(f->image, dirs.items[--dirs.count], level_entry, &l);
	}
	free(dirs.items);
	return r;
}

static int compare_names(const void *pa, const void *pb)
{
	const struct cli_name *a = pa, *b = pb;

	if (a->ino != b->ino)
		return a->ino < b->ino ? -1 : 1;
	if (a->dir != b->dir)
		return a->dir < b->dir ? -1 : 1;
	return strcmp(a->name, b->name);
}

/* Directories are found in their parents; each of these is read once. */
static int find_directories(struct finder *f)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < f->count; i++) {
		struct image_inode inode;
		struct level l = {.image = f->image, .finder = f};

		if (!f->left[i])
			continue;
		r = image_inode_get(f->image, f->inos[i], &inode);
		if (r == 0 && S_ISDIR(inode.mode) && inode.ino != PINFS_ROOT_INO)
			r = dir_walk(f->image, inode.arg1, level_entry, &l);
	}
	return r;
}

int cli_names_find(struct image *image, const uint32_t *inos, size_t count, struct cli_names *ret)
{
	struct finder f = {.image = image, .inos = inos, .count = count};
	bool several = false;
	int r = 0;

	f.left = calloc(MAX(count, (size_t)1), sizeof(*f.left));
	if (!f.left)
		return -ENOMEM;
	for (size_t i = 0; r == 0 && i < count; i++) {
		struct image_inode inode;

		r = image_inode_get(image, inos[i], &inode);
		if (r == 0 && inos[i] != PINFS_ROOT_INO)
			f.left[i] = S_ISDIR(inode.mode) ? 1 : inode.nlink;
		f.left_sum += f.left[i];
		several |= f.left[i] > 1;
	}
	if (r == 0)
		r = find_directories(&f);
	for (size_t i = 0; r == 0 && !several && i < count; i++)
		if (f.left[i])
			r = descend(&f, i);
	if (r == 0 && f.left_sum) {
		/* From the beginning: which of several names were found already doesn't matter then. */
		for (size_t i = 0; i < count; i++) {
			struct image_inode inode;

			r = r < 0 ? r : image_inode_get(image, inos[i], &inode);
			f.left[i] = r < 0 || inos[i] == PINFS_ROOT_INO ? 0 : S_ISDIR(inode.mode) ? 1 : inode.nlink;
		}
		cli_names_free(&f.names);
		f.left_sum = 0;
		for (size_t i = 0; i < count; i++)
			f.left_sum += f.left[i];
		if (r == 0)
			r = scan(&f);
	}
	free(f.left);
	if (r < 0) {
		cli_names_free(&f.names);
		return r;
	}
	if (f.names.count)
		qsort(f.names.items, f.names.count, sizeof(*f.names.items), compare_names);
	*ret = f.names;
	return 0;
}

void cli_names_free(struct cli_names *n)
{
	for (size_t i = 0; i < n->count; i++)
		free(n->items[i].name);
	free(n->items);
	*n = (struct cli_names){0};
}
