/* SPDX-License-Identifier: MIT */
/* Inodes, names, links, attributes: from the items of the tree to structs and back. What comes out of the tree is checked here. */
#include "delta/internal.h"

static int bad_item(struct delta *d, uint64_t ino, const char *what)
{
	return delta_damaged(d, 0, "inode %ju: %s", (uintmax_t)ino, what);
}

/* ---- inodes ---- */

static bool time_decode(pinfs_le64 sec, pinfs_le32 nsec, struct timespec *ret)
{
	*ret = (struct timespec){(time_t)(int64_t)pinfs_get64(sec), pinfs_get32(nsec)};
	return ret->tv_nsec < 1000000000;
}

static bool inode_decode(const struct pinfs_delta_inode *i, uint64_t ino, struct delta_inode *ret)
{
	bool ok;

	*ret = (struct delta_inode){
		.ino = ino,
		.mode = pinfs_get32(i->mode),
		.nlink = pinfs_get32(i->nlink),
		.uid = pinfs_get32(i->uid),
		.gid = pinfs_get32(i->gid),
		.size = pinfs_get64(i->size),
		.major = pinfs_get32(i->major),
		.minor = pinfs_get32(i->minor),
		.flags = pinfs_get32(i->flags),
		.own_xattrs = pinfs_get32(i->state) & PINFS_DELTA_STATE_XATTRS,
		.gone = pinfs_get32(i->state) & PINFS_DELTA_STATE_GONE,
		.generation = pinfs_get32(i->generation),
		.project = pinfs_get32(i->project),
		.parent = pinfs_get64(i->parent),
		.entries = pinfs_get64(i->entries),
		.image_end = pinfs_get64(i->image_end),
		.pages = pinfs_get64(i->pages),
		.image_pages = pinfs_get64(i->image_pages),
	};
	ok = time_decode(i->atime_sec, i->atime_nsec, &ret->atime) && time_decode(i->mtime_sec, i->mtime_nsec, &ret->mtime) &&
		time_decode(i->ctime_sec, i->ctime_nsec, &ret->ctime) && time_decode(i->btime_sec, i->btime_nsec, &ret->btime);
	if (pinfs_get32(i->state) & ~(uint32_t)PINFS_DELTA_STATE_KNOWN || ret->size > PINFS_DELTA_FILE_MAX || ret->mode > 0177777)
		ok = false;
	switch (ret->mode & S_IFMT) {
	case S_IFDIR:
		ok &= ret->parent && ret->parent <= INO_MAX;
		break;
	case S_IFREG:
	case S_IFLNK:
	case S_IFCHR:
	case S_IFBLK:
	case S_IFIFO:
	case S_IFSOCK:
		break;
	default:
		ok = false;
	}
	return ok && ret->image_end <= PINFS_DELTA_FILE_MAX;
}

int inode_item_decode(struct delta *d, uint64_t ino, const void *value, size_t len, struct delta_inode *ret)
{
	struct pinfs_delta_inode raw;
	struct delta_inode inode;

	if (len != sizeof(raw))
		return bad_item(d, ino, "it has a wrong size");
	memcpy(&raw, value, sizeof(raw));
	if (!inode_decode(&raw, ino, &inode))
		return bad_item(d, ino, "its attributes can't be");
	*ret = inode;
	return 0;
}

int delta_inode_get(struct delta *d, uint64_t ino, struct delta_inode *ret)
{
	const void *value;
	size_t len;
	int r;

	if (!ino || ino > INO_MAX)
		return -ENOENT;
	r = tree_get(d->tree, KEY(ino, PINFS_DELTA_INODE, 0), &value, &len);
	return r < 0 ? r : inode_item_decode(d, ino, value, len, ret);
}

int delta_inode_next(struct delta *d, uint64_t ino, struct delta_inode *ret)
{
	struct tree_key key, end = KEY(INO_MAX, 0xff, UINT64_MAX);
	const void *value;
	size_t len;
	int r;

	/* What comes first may be another item of an inode that has no attributes here. */
	for (ino = MAX(ino, (uint64_t)1); ino <= INO_MAX; ino = (key.object >> 8) + 1) {
		r = tree_find(d->tree, KEY(ino, PINFS_DELTA_INODE, 0), end, &key, &value, &len);
		if (r < 0)
			return r;
		if ((key.object & 0xff) == PINFS_DELTA_INODE)
			return delta_inode_get(d, key.object >> 8, ret);
	}
	return -ENOENT;
}

int delta_inode_put(struct delta *d, const struct delta_inode *i)
{
	struct pinfs_delta_inode raw = {
		.mode = pinfs_put32(i->mode),
		.nlink = pinfs_put32(i->nlink),
		.uid = pinfs_put32(i->uid),
		.gid = pinfs_put32(i->gid),
		.size = pinfs_put64(i->size),
		.atime_sec = pinfs_put64((uint64_t)i->atime.tv_sec),
		.mtime_sec = pinfs_put64((uint64_t)i->mtime.tv_sec),
		.ctime_sec = pinfs_put64((uint64_t)i->ctime.tv_sec),
		.btime_sec = pinfs_put64((uint64_t)i->btime.tv_sec),
		.atime_nsec = pinfs_put32((uint32_t)i->atime.tv_nsec),
		.mtime_nsec = pinfs_put32((uint32_t)i->mtime.tv_nsec),
		.ctime_nsec = pinfs_put32((uint32_t)i->ctime.tv_nsec),
		.btime_nsec = pinfs_put32((uint32_t)i->btime.tv_nsec),
		.major = pinfs_put32(i->major),
		.minor = pinfs_put32(i->minor),
		.flags = pinfs_put32(i->flags),
		.state = pinfs_put32((i->own_xattrs ? PINFS_DELTA_STATE_XATTRS : 0) | (i->gone ? PINFS_DELTA_STATE_GONE : 0)),
		.generation = pinfs_put32(i->generation),
		.project = pinfs_put32(i->project),
		.parent = pinfs_put64(i->parent),
		.entries = pinfs_put64(i->entries),
		.image_end = pinfs_put64(i->image_end),
		.pages = pinfs_put64(i->pages),
		.image_pages = pinfs_put64(i->image_pages),
	};

	return txn_put(d, KEY(i->ino, PINFS_DELTA_INODE, 0), &raw, sizeof(raw));
}

int delta_inode_delete(struct delta *d, uint64_t ino, bool *ret_more)
{
	struct tree_key key;
	const void *value;
	size_t len;
	int r;

	/* Itself last. */
	while ((r = tree_find(d->tree, KEY(ino, PINFS_DELTA_INODE + 1, 0), KEY(ino + 1, 0, 0), &key, &value, &len)) == 0) {
		if ((key.object & 0xff) == PINFS_DELTA_EXTENT)
			return bad_item(d, ino, "it has content, but goes");
		r = txn_delete(d, key);
		if (r < 0)
			return r;
		if (txn_long(d)) {
			*ret_more = true;
			return 0;
		}
	}
	if (r == -ENOENT)
		r = txn_delete(d, KEY(ino, PINFS_DELTA_INODE, 0));
	*ret_more = false;
	return r;
}

uint64_t delta_ino_new(struct delta *d)
{
	/* Only what was forged comes near its end. */
	return d->next_ino < INO_MAX - 1 ? d->next_ino++ : 0;
}

uint32_t delta_ino_generation(const struct delta *d)
{
	return d->ino_generation;
}

int delta_files_add(struct delta *d, int64_t n)
{
	d->files += (uint64_t)n;
	return txn_files(d);
}

int delta_files_set(struct delta *d, uint64_t n)
{
	d->files = n;
	return txn_files(d);
}

/* ---- orphans ---- */

int delta_orphan_add(struct delta *d, uint64_t ino)
{
	return txn_put(d, KEY(0, PINFS_DELTA_ORPHAN, ino), NULL, 0);
}

int delta_orphan_remove(struct delta *d, uint64_t ino)
{
	return txn_delete(d, KEY(0, PINFS_DELTA_ORPHAN, ino));
}

int delta_orphan_next(struct delta *d, uint64_t ino, uint64_t *ret)
{
	struct tree_key key;
	const void *value;
	size_t len;
	int r = tree_find(d->tree, KEY(0, PINFS_DELTA_ORPHAN, ino), KEY(0, PINFS_DELTA_ORPHAN + 1, 0), &key, &value, &len);

	if (r == 0)
		*ret = key.offset;
	return r;
}

/* ---- names: in slots of their hash ---- */

#define HASH_SLOTS 256u

uint64_t name_hash(const struct delta *d, const char *name, size_t len)
{
	return codec_hash_seeded(name, len, d->hash_seed) & PINFS_DELTA_HASH_MASK;
}

/* The slot of a name among those of its hash, and its item's value; or -ENOENT, and in *ret_slot the first that is free (HASH_SLOTS: none). */
static int slot_find(struct delta *d, uint64_t ino, unsigned type, size_t header, const char *name, size_t len, uint64_t *ret_slot,
	const uint8_t **ret, size_t *ret_len)
{
	uint64_t hash = name_hash(d, name, len), free = 0;
	struct tree_key from = KEY(ino, type, hash), end = KEY(ino, type, hash + HASH_SLOTS), key;
	const void *value;
	size_t value_len;
	int r;

	while ((r = tree_find(d->tree, from, end, &key, &value, &value_len)) == 0) {
		const uint8_t *v = value;
		/* Both kinds of item have the name's length before the name; a check of the form comes when it is decoded. */
		size_t name_len = value_len < header ? 0 : type == PINFS_DELTA_DIRENT ? v[9] : v[4];

		if (name_len == len && value_len >= header + len && !memcmp(v + header, name, len)) {
			*ret_slot = key.offset;
			*ret = v;
			*ret_len = value_len;
			return 0;
		}
		if (key.offset - hash == free)
			free++;
		if (key.offset == end.offset - 1)
			break;
		from.offset = key.offset + 1;
	}
	if (r < 0 && r != -ENOENT)
		return r;
	*ret_slot = free == HASH_SLOTS ? UINT64_MAX : hash + free;
	return -ENOENT;
}

int dirent_decode(struct delta *d, uint64_t dir, uint64_t slot, const uint8_t *value, size_t len, struct delta_dirent *ret)
{
	struct pinfs_delta_dirent raw;

	if (len < sizeof(raw))
		return bad_item(d, dir, "a name in it has a wrong size");
	memcpy(&raw, value, sizeof(raw));
	if (!raw.name_len || len != sizeof(raw) + raw.name_len || memchr(value + sizeof(raw), '/', raw.name_len) ||
		memchr(value + sizeof(raw), 0, raw.name_len) || pinfs_get64(raw.ino) > INO_MAX)
		return bad_item(d, dir, "a name in it can't be");
	*ret = (struct delta_dirent){
		.ino = pinfs_get64(raw.ino),
		.type = raw.type,
		.name_len = raw.name_len,
		.hash = slot,
	};
	memcpy(ret->name, value + sizeof(raw), raw.name_len);
	ret->name[raw.name_len] = 0;
	return 0;
}

int delta_dirent_get(struct delta *d, uint64_t dir, const char *name, size_t len, struct delta_dirent *ret)
{
	const uint8_t *value;
	uint64_t slot;
	size_t n;
	int r = slot_find(d, dir, PINFS_DELTA_DIRENT, sizeof(struct pinfs_delta_dirent), name, len, &slot, &value, &n);

	return r < 0 ? r : dirent_decode(d, dir, slot, value, n, ret);
}

int delta_dirent_put(struct delta *d, uint64_t dir, const char *name, size_t len, uint64_t ino, uint8_t type)
{
	struct {
		struct pinfs_delta_dirent head;
		char name[PINFS_NAME_MAX];
	} __attribute__((packed)) item = {.head = {.ino = pinfs_put64(ino), .type = type, .name_len = (uint8_t)len}};
	const uint8_t *value;
	uint64_t slot;
	size_t n;
	int r;

	assert(len && len <= PINFS_NAME_MAX);
	r = slot_find(d, dir, PINFS_DELTA_DIRENT, sizeof(item.head), name, len, &slot, &value, &n);
	if (r < 0 && r != -ENOENT)
		return r;
	if (slot == UINT64_MAX)
		return -ENOSPC;
	memcpy(item.name, name, len);
	return txn_put(d, KEY(dir, PINFS_DELTA_DIRENT, slot), &item, sizeof(item.head) + len);
}

int delta_dirent_delete(struct delta *d, uint64_t dir, const char *name, size_t len)
{
	const uint8_t *value;
	uint64_t slot;
	size_t n;
	int r = slot_find(d, dir, PINFS_DELTA_DIRENT, sizeof(struct pinfs_delta_dirent), name, len, &slot, &value, &n);

	return r < 0 ? r : txn_delete(d, KEY(dir, PINFS_DELTA_DIRENT, slot));
}

int delta_dirent_next(struct delta *d, uint64_t dir, uint64_t hash, struct delta_dirent *ret)
{
	struct tree_key key;
	const void *value;
	size_t len;
	int r;

	if (hash > INT64_MAX)
		return -ENOENT;
	r = tree_find(d->tree, KEY(dir, PINFS_DELTA_DIRENT, hash), KEY(dir, PINFS_DELTA_DIRENT + 1, 0), &key, &value, &len);
	return r < 0 ? r : dirent_decode(d, dir, key.offset, value, len, ret);
}

/* ---- symbolic links ---- */

int delta_symlink_get(struct delta *d, uint64_t ino, char ret[PINFS_SYMLINK_MAX + 1])
{
	size_t done = 0, len;
	const void *value;
	int r;

	for (unsigned piece = 0; piece < 2; piece++) {
		r = tree_get(d->tree, KEY(ino, PINFS_DELTA_SYMLINK, piece), &value, &len);
		if (r == -ENOENT && piece)
			break;
		if (r == -ENOENT || (r == 0 && (!len || len > PINFS_SYMLINK_MAX - done || memchr(value, 0, len))))
			return bad_item(d, ino, "its target can't be");
		if (r < 0)
			return r;
		memcpy(ret + done, value, len);
		done += len;
	}
	ret[done] = 0;
	return 0;
}

int delta_symlink_put(struct delta *d, uint64_t ino, const char *target)
{
	size_t len = strlen(target), first = MIN(len, (size_t)PINFS_DELTA_ITEM_MAX);
	int r = txn_put(d, KEY(ino, PINFS_DELTA_SYMLINK, 0), target, first);

	if (r == 0 && len > first)
		r = txn_put(d, KEY(ino, PINFS_DELTA_SYMLINK, 1), target + first, len - first);
	return r;
}

/* ---- extended attributes ---- */

int xattr_decode(struct delta *d, uint64_t ino, uint64_t slot, const uint8_t *value, size_t len, struct xattr_item *ret)
{
	struct pinfs_delta_xattr raw;
	size_t size;

	if (len < sizeof(raw))
		return bad_item(d, ino, "an extended attribute has a wrong size");
	memcpy(&raw, value, sizeof(raw));
	size = pinfs_get32(raw.value_size);
	if (!raw.name_len || len < sizeof(raw) + raw.name_len || size > PINFS_XATTR_VALUE_MAX ||
		memchr(value + sizeof(raw), 0, raw.name_len) ||
		raw.pieces != (len > sizeof(raw) + raw.name_len || !size ? 0 : DIV_ROUND_UP(size, PINFS_DELTA_ITEM_MAX)) ||
		(!raw.pieces && len != sizeof(raw) + raw.name_len + size) || (raw.pieces && len != sizeof(raw) + raw.name_len))
		return bad_item(d, ino, "an extended attribute can't be");
	*ret = (struct xattr_item){slot, size, raw.name_len, raw.pieces, value + sizeof(raw), value + sizeof(raw) + raw.name_len};
	return 0;
}

static int xattr_find(struct delta *d, uint64_t ino, const char *name, struct xattr_item *ret, uint64_t *ret_slot)
{
	size_t len = strlen(name), n;
	const uint8_t *value;
	int r;

	if (!len || len > PINFS_XATTR_NAME_MAX)
		return -ERANGE;
	r = slot_find(d, ino, PINFS_DELTA_XATTR, sizeof(struct pinfs_delta_xattr), name, len, ret_slot, &value, &n);
	return r < 0 ? r : xattr_decode(d, ino, *ret_slot, value, n, ret);
}

ssize_t delta_xattr_get(struct delta *d, uint64_t ino, const char *name, void *value, size_t size)
{
	struct xattr_item x;
	uint64_t slot;
	int r = xattr_find(d, ino, name, &x, &slot);

	if (r < 0)
		return r == -ENOENT ? -ENODATA : r;
	if (!size)
		return (ssize_t)x.size;
	if (x.size > size)
		return -ERANGE;
	if (!x.pieces)
		memcpy(value, x.value, x.size);
	for (unsigned i = 0; i < x.pieces; i++) {
		size_t done = (size_t)i * PINFS_DELTA_ITEM_MAX, want = MIN(x.size - done, (size_t)PINFS_DELTA_ITEM_MAX), len;
		const void *piece;

		r = tree_get(d->tree, KEY(ino, PINFS_DELTA_XVALUE + i, slot), &piece, &len);
		if (r == -ENOENT || (r == 0 && len != want))
			return bad_item(d, ino, "a part of an extended attribute is missing");
		if (r < 0)
			return r;
		memcpy((uint8_t *)value + done, piece, len);
	}
	return (ssize_t)x.size;
}

static int pieces_delete(struct delta *d, uint64_t ino, const struct xattr_item *x, unsigned from)
{
	int r = 0;

	for (unsigned i = from; r == 0 && i < x->pieces; i++)
		r = txn_delete(d, KEY(ino, PINFS_DELTA_XVALUE + i, x->slot));
	return r;
}

int delta_xattr_put(struct delta *d, uint64_t ino, const char *name, const void *value, size_t size)
{
	struct pinfs_delta_xattr head = {.value_size = pinfs_put32((uint32_t)size), .name_len = (uint8_t)strlen(name)};
	uint8_t item[PINFS_DELTA_ITEM_MAX];
	size_t len = sizeof(head) + head.name_len;
	struct xattr_item x = {0};
	uint64_t slot;
	int r = xattr_find(d, ino, name, &x, &slot);

	if (r < 0 && r != -ENOENT)
		return r;
	if (slot == UINT64_MAX || size > PINFS_XATTR_VALUE_MAX)
		return -ENOSPC;
	/* It is copied before anything changes, since x points into the tree. */
	x.slot = slot;
	if (len + size > sizeof(item))
		head.pieces = (uint8_t)DIV_ROUND_UP(size, PINFS_DELTA_ITEM_MAX);
	memcpy(item, &head, sizeof(head));
	memcpy(item + sizeof(head), name, head.name_len);
	if (!head.pieces && size) {
		memcpy(item + len, value, size);
		len += size;
	}
	r = pieces_delete(d, ino, &x, head.pieces);
	for (unsigned i = 0; r == 0 && i < head.pieces; i++) {
		size_t done = (size_t)i * PINFS_DELTA_ITEM_MAX;

		r = txn_put(d, KEY(ino, PINFS_DELTA_XVALUE + i, slot), (const uint8_t *)value + done, MIN(size - done, (size_t)PINFS_DELTA_ITEM_MAX));
	}
	return r < 0 ? r : txn_put(d, KEY(ino, PINFS_DELTA_XATTR, slot), item, len);
}

int delta_xattr_delete(struct delta *d, uint64_t ino, const char *name)
{
	struct xattr_item x;
	uint64_t slot;
	int r = xattr_find(d, ino, name, &x, &slot);

	if (r == 0)
		r = pieces_delete(d, ino, &x, 0);
	if (r == 0)
		r = txn_delete(d, KEY(ino, PINFS_DELTA_XATTR, slot));
	return r == -ENOENT ? -ENODATA : r;
}

int delta_xattr_next(struct delta *d, uint64_t ino, uint64_t hash, uint64_t *ret_hash, char ret_name[PINFS_XATTR_NAME_MAX + 1], size_t *ret_size)
{
	struct xattr_item x;
	struct tree_key key;
	const void *value;
	size_t len;
	int r = tree_find(d->tree, KEY(ino, PINFS_DELTA_XATTR, hash), KEY(ino, PINFS_DELTA_XATTR + 1, 0), &key, &value, &len);

	if (r == 0)
		r = xattr_decode(d, ino, key.offset, value, len, &x);
	if (r < 0)
		return r;
	*ret_hash = key.offset;
	memcpy(ret_name, x.name, x.name_len);
	ret_name[x.name_len] = 0;
	*ret_size = x.size;
	return 0;
}
