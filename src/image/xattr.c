/* SPDX-License-Identifier: MIT */
/* Extended attributes. */
#include "image/internal.h"

struct xattr_iter {
	struct image *image;
	uint64_t pos, end;
	uint32_t left;
	size_t names; /* bytes so far */
};

struct xattr_entry {
	char name[PINFS_XATTR_NAME_MAX + 1];
	size_t name_len;
	uint64_t value_pos;
	uint32_t value_size;
};

static int xattr_damaged(struct image *img, uint64_t pos, const char *what)
{
	return image_damaged(img, section_where(img, PINFS_SECTION_XATTRS, pos), "extended attributes at byte %ju: %s",
		(uintmax_t)pos, what);
}

static int xattr_begin(struct image *img, const struct image_inode *inode, struct xattr_iter *ret)
{
	const struct image_section *s = section_get(img, PINFS_SECTION_XATTRS);
	uint64_t pos = (uint64_t)(inode->xattr - 1) * 8;
	struct pinfs_xattr_set set;
	int r;

	r = section_read(img, PINFS_SECTION_XATTRS, pos, &set, sizeof(set));
	if (r < 0)
		return r;
	if (pinfs_get32(set.size) < sizeof(set) || pinfs_get32(set.size) > s->raw_size - pos)
		return xattr_damaged(img, pos, "the set is longer than its section");
	*ret = (struct xattr_iter){
		.image = img,
		.pos = pos + sizeof(set),
		.end = pos + pinfs_get32(set.size),
		.left = pinfs_get32(set.count),
	};
	return 0;
}

/* 1: *ret is the next attribute; 0: no more. */
static int xattr_next(struct xattr_iter *it, struct xattr_entry *ret)
{
	struct pinfs_xattr_entry d;
	int r;

	if (!it->left)
		return 0;
	if (it->end - it->pos < sizeof(d))
		return xattr_damaged(it->image, it->pos, "an attribute runs over the end of its set");
	r = section_read(it->image, PINFS_SECTION_XATTRS, it->pos, &d, sizeof(d));
	if (r < 0)
		return r;
	ret->name_len = d.name_len;
	ret->value_size = pinfs_get32(d.value_size);
	it->names += d.name_len + 1u;
	if (it->names > PINFS_XATTR_LIST_MAX)
		return xattr_damaged(it->image, it->pos, "a set has more names than can be listed");
	if (!d.name_len || ret->value_size > PINFS_XATTR_VALUE_MAX ||
		sizeof(d) + d.name_len + ret->value_size > it->end - it->pos)
		return xattr_damaged(it->image, it->pos, "an attribute runs over the end of its set");
	r = section_read(it->image, PINFS_SECTION_XATTRS, it->pos + sizeof(d), ret->name, d.name_len);
	if (r < 0)
		return r;
	if (memchr(ret->name, 0, d.name_len))
		return xattr_damaged(it->image, it->pos, "a NUL byte in a name");
	ret->name[d.name_len] = 0;
	ret->value_pos = it->pos + sizeof(d) + d.name_len;
	it->pos = ret->value_pos + ret->value_size;
	it->left--;
	return 1;
}

ssize_t image_xattr_get(struct image *img, const struct image_inode *inode, const char *name, void *value, size_t size)
{
	struct xattr_entry e;
	struct xattr_iter it = {0};
	int r;

	if (!inode->xattr)
		return -ENODATA;
	r = xattr_begin(img, inode, &it);
	if (r < 0)
		return r;
	while ((r = xattr_next(&it, &e)) > 0) {
		if (strcmp(e.name, name))
			continue;
		if (!size)
			return e.value_size;
		if (size < e.value_size)
			return -ERANGE;
		r = section_read(img, PINFS_SECTION_XATTRS, e.value_pos, value, e.value_size);
		return r < 0 ? r : (ssize_t)e.value_size;
	}
	return r < 0 ? r : -ENODATA;
}

ssize_t image_xattr_list(struct image *img, const struct image_inode *inode, char *list, size_t size)
{
	struct xattr_entry e;
	struct xattr_iter it = {0};
	size_t used = 0;
	int r;

	if (!inode->xattr)
		return 0;
	r = xattr_begin(img, inode, &it);
	if (r < 0)
		return r;
	while ((r = xattr_next(&it, &e)) > 0) {
		if (size) {
			if (e.name_len + 1 > size - used)
				return -ERANGE;
			memcpy(list + used, e.name, e.name_len + 1);
		}
		used += e.name_len + 1;
	}
	return r < 0 ? r : (ssize_t)used;
}
