/* SPDX-License-Identifier: MIT */
/* Inodes and symbolic links. */
#include "image/internal.h"

static int inode_damaged(struct image *img, const struct image_inode *i, const char *what)
{
	return image_damaged(img, section_where(img, PINFS_SECTION_INODES, (uint64_t)(i->ino - 1) * 64),
		"inode %u: %s", i->ino, what);
}

static uint64_t section_size(const struct image *img, unsigned type)
{
	const struct image_section *s = section_get(img, type);

	return s ? s->raw_size : 0;
}

static bool range_inside(uint64_t pos, uint64_t len, uint64_t size)
{
	return pos <= size && len <= size - pos;
}

static bool regular_valid(const struct image *img, const struct image_inode *i)
{
	uint32_t bs = img->info.block_size;
	uint64_t blocks = i->size / bs + !!(i->size % bs);

	if (i->xip && i->layout != PINFS_LAYOUT_RUN)
		return false;
	switch (i->layout) {
	case PINFS_LAYOUT_NONE:
		return true;
	case PINFS_LAYOUT_RUN:
		return blocks && range_inside(i->pos, blocks, img->info.block_count);
	case PINFS_LAYOUT_PACKED:
		return i->size && i->pos < img->info.block_count && range_inside(i->arg0, i->size, bs);
	case PINFS_LAYOUT_EXTENTS:
		return blocks && i->arg0 &&
			range_inside(i->pos, i->arg0,
				section_size(img, PINFS_SECTION_EXTENTS) / sizeof(struct pinfs_extent));
	default:
		return false;
	}
}

/* NULL if layout, size and position fit the type. */
static const char *inode_problem(const struct image *img, const struct image_inode *i)
{
	uint64_t xattr_size = section_size(img, PINFS_SECTION_XATTRS);

	if (i->size > INT64_MAX || i->mtime.tv_nsec > 999999999 || !i->nlink || i->alloc > INT64_MAX ||
		(i->mode & ~(mode_t)(S_IFMT | 07777)))
		return "impossible values";
	if (i->xattr && !range_inside((uint64_t)(i->xattr - 1) * 8, sizeof(struct pinfs_xattr_set), xattr_size))
		return "its extended attributes lie outside their section";
	switch (i->mode & S_IFMT) {
	case S_IFREG:
		return regular_valid(img, i) ? NULL : "its content lies outside the image's blocks";
	case S_IFDIR:
		/* The smallest entry has 4 bytes: varint, type, length, one letter. */
		return i->layout == PINFS_LAYOUT_DIR && i->arg0 <= i->size / 4 && i->arg1 && i->arg1 <= i->ino &&
				range_inside(i->pos, i->size, section_size(img, PINFS_SECTION_DIRS)) ?
			NULL :
			"its directory lies outside its section";
	case S_IFLNK:
		return i->layout == PINFS_LAYOUT_SYMLINK && i->size && i->size <= PINFS_SYMLINK_MAX &&
				range_inside(i->pos, i->size, section_size(img, PINFS_SECTION_SYMLINKS)) ?
			NULL :
			"its target lies outside its section";
	case S_IFCHR:
	case S_IFBLK:
		return i->layout == PINFS_LAYOUT_DEVICE ? NULL : "a device without a device number";
	case S_IFIFO:
	case S_IFSOCK:
		return i->layout == PINFS_LAYOUT_NONE ? NULL : "a FIFO or socket with content";
	default:
		return "unknown file type";
	}
}

int image_inode_get(struct image *img, uint64_t ino, struct image_inode *ret)
{
	struct image_inode o;
	struct pinfs_inode d;
	const char *problem;
	int r;

	if (ino < 1 || ino > img->info.inode_count)
		return -ENOENT;
	r = section_read(img, PINFS_SECTION_INODES, (ino - 1) * sizeof(d), &d, sizeof(d));
	if (r < 0)
		return r;
	o = (struct image_inode){
		.ino = (uint32_t)ino,
		.mode = pinfs_get16(d.mode),
		.nlink = pinfs_get32(d.nlink),
		.uid = pinfs_get32(d.uid),
		.gid = pinfs_get32(d.gid),
		.size = pinfs_get64(d.size),
		.alloc = pinfs_get64(d.alloc),
		.mtime = {.tv_sec = (time_t)pinfs_get64(d.mtime_sec), .tv_nsec = pinfs_get32(d.mtime_nsec)},
		.layout = d.layout,
		.xip = d.flags & PINFS_INODE_XIP,
		.xattr = pinfs_get32(d.xattr),
		.pos = pinfs_get64(d.pos),
		.arg0 = pinfs_get32(d.arg0),
		.arg1 = pinfs_get32(d.arg1),
	};
	problem = inode_problem(img, &o);
	if (problem)
		return inode_damaged(img, &o, problem);
	*ret = o;
	return 0;
}

int image_readlink(struct image *img, const struct image_inode *i, char ret[PINFS_SYMLINK_MAX + 1])
{
	char target[PINFS_SYMLINK_MAX];
	int r;

	if (!S_ISLNK(i->mode))
		return -EINVAL;
	r = section_read(img, PINFS_SECTION_SYMLINKS, i->pos, target, i->size);
	if (r < 0)
		return r;
	if (memchr(target, 0, i->size))
		return inode_damaged(img, i, "a NUL byte in a symbolic link");
	memcpy(ret, target, i->size);
	ret[i->size] = 0;
	return 0;
}
