/* SPDX-License-Identifier: MIT */
/*
 * Further names of a file. They are made when all files are there, since the first name may still be a worker's,
 * and before the directories get their modes, since these may lock their own owner out.
 */
#include "mkfs/extract_internal.h"

#include <fcntl.h>

static struct extract_link **link_bucket(const struct extract *x, uint32_t ino)
{
	return &x->link_buckets[(ino * 0x9e3779b1u) & (x->link_bucket_count - 1)];
}

static int link_grow(struct extract *x)
{
	struct extract_link **old = x->link_buckets;
	size_t count = x->link_bucket_count;

	if (x->link_count < count)
		return 0;
	x->link_buckets = calloc(count ? 2 * count : 256, sizeof(struct extract_link *));
	if (!x->link_buckets) {
		x->link_buckets = old;
		return -ENOMEM;
	}
	x->link_bucket_count = count ? 2 * count : 256;
	for (size_t i = 0; i < count; i++) {
		while (old[i]) {
			struct extract_link *l = old[i], **bucket = link_bucket(x, l->ino);

			old[i] = l->next;
			l->next = *bucket;
			*bucket = l;
		}
	}
	free(old);
	return 0;
}

static struct extract_link *link_find(const struct extract *x, uint32_t ino)
{
	struct extract_link *l = x->link_bucket_count ? *link_bucket(x, ino) : NULL;

	while (l && l->ino != ino)
		l = l->next;
	return l;
}

int extract_link_note(struct extract *x, struct extract_dir *dir, const char *name, const struct image_inode *inode,
	struct extract_link **ret)
{
	struct extract_link *first = link_find(x, inode->ino), **bucket;
	size_t size = strlen(name) + 1;

	if (first) {
		struct extract_link_later *later = malloc(sizeof(*later) + size);

		if (!later)
			return -ENOMEM;
		*later = (struct extract_link_later){.source = first, .dir = dir};
		memcpy(later->name, name, size);
		*x->later_end = later;
		x->later_end = &later->next;
		return 1;
	}
	if (link_grow(x) < 0)
		return -ENOMEM;
	first = calloc(1, sizeof(*first) + size);
	if (!first)
		return -ENOMEM;
	first->dir = dir;
	first->ino = inode->ino;
	memcpy(first->name, name, size);
	bucket = link_bucket(x, inode->ino);
	first->next = *bucket;
	*bucket = first;
	x->link_count++;
	*ret = first;
	return 0;
}

static int link_make(struct extract *x, const struct extract_link_later *l)
{
	const struct extract_link *from = l->source;
	int r = extract_dir_get(x, from->dir);

	if (r < 0)
		return r;
	r = extract_dir_get(x, l->dir);
	if (r == 0) {
		/* No AT_SYMLINK_FOLLOW: a symbolic link may have several names itself. */
		if (linkat(from->dir->fd, from->name, l->dir->fd, l->name, 0) < 0)
			r = -errno;
		if (r == -EEXIST) {
			r = extract_dir_clear_way(x, l->dir, l->name);
			if (r == 0 && linkat(from->dir->fd, from->name, l->dir->fd, l->name, 0) < 0)
				r = -errno;
		}
		extract_dir_put(l->dir);
	}
	extract_dir_put(from->dir);
	return r;
}

void extract_link_make_all(struct extract *x)
{
	for (const struct extract_link_later *l = x->later; l && !extract_stopped(x); l = l->next) {
		int r;

		if (l->source->failed) {
			_cleanup_free_ char *first = extract_path(x, l->source->dir, l->source->name);
			_cleanup_free_ char *path = extract_path(x, l->dir, l->name);

			log_error("can't make %s: it is another name of %s, which failed", path, first);
			extract_count(&x->stats.errors, 1);
			continue;
		}
		r = link_make(x, l);
		if (r == 0)
			extract_count(&x->stats.hard_links, 1);
		else if (r != -EINTR)
			extract_fail(x, l->dir, l->name, "make hard link", r);
	}
}

void extract_link_free_all(struct extract *x)
{
	for (size_t i = 0; i < x->link_bucket_count; i++) {
		while (x->link_buckets[i]) {
			struct extract_link *l = x->link_buckets[i];

			x->link_buckets[i] = l->next;
			free(l);
		}
	}
	free(x->link_buckets);
	while (x->later) {
		struct extract_link_later *l = x->later;

		x->later = l->next;
		free(l);
	}
}
