/* SPDX-License-Identifier: MIT */
/* The tree that becomes the image: names, inodes, hard links and sets of extended attributes, in memory. */
#include "mkfs/mkfs.h"

#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>

#include "base/log.h"
#include "codec/codec.h"

/* ---- arena: ten million small objects without ten million malloc headers ---- */

#define ARENA_CHUNK (1u << 20)

struct arena {
	struct arena_chunk {
		struct arena_chunk *next;
		size_t used, size;
		uint8_t data[];
	} *head;
};

static void *arena_alloc(struct arena *a, size_t size)
{
	struct arena_chunk *c = a->head;
	void *p;

	size = align_up(size, 8);
	if (!c || c->size - c->used < size) {
		size_t want = MAX(size, (size_t)ARENA_CHUNK);

		c = calloc(1, sizeof(*c) + want);
		if (!c)
			return NULL;
		c->size = want;
		c->next = a->head;
		a->head = c;
	}
	p = c->data + c->used;
	c->used += size;
	return p;
}

static void arena_free(struct arena *a)
{
	while (a && a->head) {
		struct arena_chunk *c = a->head;

		a->head = c->next;
		free(c);
	}
	free(a);
}

/* ---- hash table ---- */

struct hash_entry {
	uint64_t low, high, value;
};

struct hash_table {
	struct hash_entry *entries;
	size_t mask, count;
};

struct hash_table *hash_table_new(void)
{
	struct hash_table *t = calloc(1, sizeof(*t));

	if (!t)
		return NULL;
	t->mask = 1023;
	t->entries = calloc(t->mask + 1, sizeof(*t->entries));
	if (!t->entries) {
		free(t);
		return NULL;
	}
	return t;
}

void hash_table_free(struct hash_table *t)
{
	if (t)
		free(t->entries);
	free(t);
}

static struct hash_entry *hash_slot(struct hash_entry *entries, size_t mask, uint64_t low, uint64_t high)
{
	size_t i = (size_t)(low ^ high * 0x9e3779b97f4a7c15ull) & mask;

	while (entries[i].value && (entries[i].low != low || entries[i].high != high))
		i = (i + 1) & mask;
	return &entries[i];
}

uint64_t hash_table_get(const struct hash_table *t, uint64_t low, uint64_t high)
{
	return hash_slot(t->entries, t->mask, low, high)->value;
}

int hash_table_put(struct hash_table *t, uint64_t low, uint64_t high, uint64_t value)
{
	struct hash_entry *slot;

	if ((t->count + 1) * 4 > (t->mask + 1) * 3) {
		size_t mask = t->mask * 2 + 1;
		struct hash_entry *entries = calloc(mask + 1, sizeof(*entries));

		if (!entries)
			return -ENOMEM;
		for (size_t i = 0; i <= t->mask; i++)
			if (t->entries[i].value)
				*hash_slot(entries, mask, t->entries[i].low, t->entries[i].high) =
					t->entries[i];
		free(t->entries);
		t->entries = entries;
		t->mask = mask;
	}
	slot = hash_slot(t->entries, t->mask, low, high);
	if (!slot->value)
		t->count++;
	*slot = (struct hash_entry){low, high, value};
	return 0;
}

/* ---- the tree ---- */

int mkfs_tree_new(const struct mkfs_options *options, struct tree **ret)
{
	struct tree *t = calloc(1, sizeof(*t));

	if (!t)
		return -ENOMEM;
	t->options = options;
	t->cwd = -1;
	t->arena = calloc(1, sizeof(*t->arena));
	t->xattr_table = hash_table_new();
	t->link_table = hash_table_new();
	if (!t->arena || !t->xattr_table || !t->link_table) {
		mkfs_tree_free(t);
		return -ENOMEM;
	}
	t->cwd = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
	*ret = t;
	return 0;
}

static void dir_free(struct inode *dir)
{
	free(dir->dir.children);
	dir->dir.children = NULL;
	dir->dir.count = 0;
}

/* Frees what is not in the arena, without recursion: the children arrays and extents. */
static void tree_free_nodes(struct tree *t)
{
	struct node *n = t->root;

	while (n) {
		struct inode *i = n->inode;
		struct node *up = n->parent;

		if (!i) {
			n = up;
			continue;
		}
		if (S_ISDIR(i->mode) && i->dir.count) {
			n = i->dir.children[--i->dir.count];
			continue;
		}
		if (S_ISDIR(i->mode))
			dir_free(i);
		else if (S_ISREG(i->mode)) {
			free(i->file.extents);
			i->file.extents = NULL;
		}
		n = up;
	}
}

void mkfs_tree_free(struct tree *t)
{
	if (!t)
		return;
	tree_free_nodes(t);
	for (size_t i = 0; i < t->xattr_count; i++)
		free(t->xattrs[i].data);
	free(t->xattrs);
	hash_table_free(t->xattr_table);
	hash_table_free(t->link_table);
	arena_free(t->arena);
	if (t->cwd >= 0)
		close(t->cwd);
	free(t);
}

void *tree_alloc(struct tree *t, size_t size)
{
	return arena_alloc(t->arena, size);
}

static uint32_t map_id(uint32_t id, bool set, uint32_t to, const struct id_map *maps, size_t count)
{
	if (set)
		return to;
	for (size_t i = 0; i < count; i++)
		if (id >= maps[i].from && id - maps[i].from < maps[i].count)
			return maps[i].to + (id - maps[i].from);
	return id;
}

static uint32_t source_tag(const struct stat *st)
{
	return (uint32_t)((st->st_ino ^ (uint64_t)st->st_dev << 40) * 0x9e3779b97f4a7c15ull >> 32);
}

void tree_leave_out(struct tree *t, const struct stat *st)
{
	t->left_out[t->left_out_count].dev = st->st_dev;
	t->left_out[t->left_out_count++].ino = st->st_ino;
}

bool tree_is_left_out(const struct tree *t, const struct stat *st)
{
	for (unsigned i = 0; i < t->left_out_count; i++)
		if (t->left_out[i].dev == st->st_dev && t->left_out[i].ino == st->st_ino)
			return true;
	return false;
}

void tree_inode_update(struct tree *t, struct inode *i, const struct stat *st)
{
	const struct mkfs_options *o = t->options;

	i->source = source_tag(st);
	i->mode = st->st_mode & (S_IFMT | 07777); /* a damaged archive may have more */
	i->uid = map_id(st->st_uid, o->set_uid, o->uid, o->uid_maps, o->uid_map_count);
	i->gid = map_id(st->st_gid, o->set_gid, o->gid, o->gid_maps, o->gid_map_count);
	i->mtime_sec = st->st_mtim.tv_sec;
	i->mtime_nsec = (uint32_t)st->st_mtim.tv_nsec;
	if (o->clamp_mtime && o->have_epoch && i->mtime_sec >= o->epoch) {
		i->mtime_sec = o->epoch;
		i->mtime_nsec = 0;
	}
}

int tree_inode_new(struct tree *t, const struct stat *st, struct inode **ret)
{
	struct inode *i;

	if (t->inode_count >= UINT32_MAX - 1) {
		log_error("more than %u files: an image can't number them", UINT32_MAX - 1);
		return -EFBIG;
	}
	i = tree_alloc(t, sizeof(*i));
	if (!i)
		return -ENOMEM;
	tree_inode_update(t, i, st);
	if (S_ISREG(st->st_mode))
		i->size = (uint64_t)st->st_size;
	t->inode_count++;
	*ret = i;
	return 0;
}

int tree_node_new(struct tree *t, struct node *dir, const char *name, size_t len, struct inode *inode,
	struct node **ret)
{
	struct node *n = tree_alloc(t, sizeof(*n) + len + 1);

	if (!n)
		return -ENOMEM;
	n->parent = dir;
	n->inode = inode;
	n->name_len = (uint8_t)len;
	memcpy(n->name, name, len);
	if (!inode->name)
		inode->name = n;
	if (dir) {
		struct inode *d = dir->inode;
		size_t capacity = d->dir.capacity;
		int r = array_reserve(&d->dir.children, &capacity, (size_t)d->dir.count + 1,
			sizeof(*d->dir.children));

		if (r < 0)
			return r;
		d->dir.capacity = (uint32_t)capacity;
		d->dir.children[d->dir.count++] = n;
	}
	*ret = n;
	return 0;
}

static int node_compare(const struct node *a, const struct node *b)
{
	int c = memcmp(a->name, b->name, MIN(a->name_len, b->name_len));

	return c ? c : (int)a->name_len - (int)b->name_len;
}

static int node_compare_qsort(const void *a, const void *b)
{
	return node_compare(*(struct node *const *)a, *(struct node *const *)b);
}

void tree_dir_sort(struct inode *dir)
{
	uint32_t kept = 0;

	for (uint32_t i = 0; i < dir->dir.count; i++)
		if (dir->dir.children[i]->inode && !dir->dir.children[i]->inode->dead)
			dir->dir.children[kept++] = dir->dir.children[i];
	dir->dir.count = kept;
	if (kept)
		qsort(dir->dir.children, dir->dir.count, sizeof(*dir->dir.children), node_compare_qsort);
}

char *tree_path(const struct node *node, char *buf, size_t size)
{
	char *p = buf + size - 1;

	*p = 0;
	if (!node->parent)
		*--p = '/';
	for (; node->parent; node = node->parent) {
		if ((size_t)(p - buf) < (size_t)node->name_len + 5) {
			p -= 4;
			memcpy(p, "/...", 4);
			break;
		}
		p -= node->name_len;
		memcpy(p, node->name, node->name_len);
		*--p = '/';
	}
	return p;
}

/* One component after the other: for paths that are too long for one call. */
static int open_stepwise(struct tree *t, const struct node **chain, size_t depth, const char *source, int flags)
{
	_cleanup_close_ int at = openat(t->cwd, source, O_PATH | O_DIRECTORY | O_CLOEXEC);

	if (at < 0)
		return -errno;
	while (depth--) {
		int next = openat(at, chain[depth]->name, depth ? O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC : flags);

		if (next < 0)
			return -errno;
		close(at);
		at = next;
	}
	return steal_fd(&at);
}

int tree_open(struct tree *t, const struct node *node, int flags)
{
	char buf[PATH_MAX], *p = buf + sizeof(buf) - 1;
	const struct node *n = node;
	size_t source_len;
	bool fits = true;
	size_t depth = 0;
	int fd;

	*p = 0;
	for (; !n->source; n = n->parent, depth++) {
		if ((size_t)(p - buf) < (size_t)n->name_len + 1)
			fits = false;
		if (!fits)
			continue;
		p -= n->name_len;
		memcpy(p, n->name, n->name_len);
		*--p = '/';
	}
	source_len = strlen(n->source);
	if (fits && (size_t)(p - buf) >= source_len) {
		p -= source_len;
		memcpy(p, n->source, source_len);
		/* A source that is itself a symbolic link to a directory is meant to be followed. */
		fd = openat(t->cwd, p, flags | O_CLOEXEC | (depth ? O_NOFOLLOW : 0));
		return fd < 0 ? -errno : fd;
	}
	{
		_cleanup_free_ const struct node **chain = calloc(depth, sizeof(*chain));
		size_t i = 0;

		if (!chain)
			return -ENOMEM;
		for (const struct node *c = node; i < depth; c = c->parent)
			chain[i++] = c;
		return open_stepwise(t, chain, depth, n->source, flags | O_CLOEXEC | O_NOFOLLOW);
	}
}

struct inode *tree_link_find(struct tree *t, dev_t dev, ino_t ino)
{
	return (struct inode *)(uintptr_t)hash_table_get(t->link_table, ino, dev);
}

int tree_link_add(struct tree *t, dev_t dev, ino_t ino, struct inode *inode)
{
	return hash_table_put(t->link_table, ino, dev, (uint64_t)(uintptr_t)inode);
}

int tree_for_each_file(struct tree *t, int (*fn)(struct inode *inode, void *context), void *context)
{
	struct frame {
		struct inode *dir;
		uint32_t next;
	} *stack = NULL;
	size_t depth = 0, capacity = 0;
	int r = 0;

	r = array_reserve(&stack, &capacity, 1, sizeof(*stack));
	if (r < 0)
		return r;
	stack[depth++] = (struct frame){t->root->inode, 0};
	while (depth && r == 0) {
		struct frame *f = &stack[depth - 1];
		struct node *n;

		if (f->next == f->dir->dir.count) {
			depth--;
			continue;
		}
		n = f->dir->dir.children[f->next++];
		if (S_ISREG(n->inode->mode) && n->inode->name == n) {
			r = fn(n->inode, context);
		} else if (S_ISDIR(n->inode->mode)) {
			r = array_reserve(&stack, &capacity, depth + 1, sizeof(*stack));
			if (r == 0)
				stack[depth++] = (struct frame){n->inode, 0};
		}
	}
	free(stack);
	return r;
}

/* ---- extended attributes ---- */

int xattr_build_add(struct xattr_build *b, const char *name, const void *value, size_t size)
{
	struct xattr_item item = {.size = size};
	int r = array_reserve(&b->items, &b->capacity, b->count + 1, sizeof(*b->items));

	if (r < 0)
		return r;
	item.name = strdup(name);
	item.value = malloc(MAX(size, (size_t)1));
	if (!item.name || !item.value) {
		free(item.name);
		free(item.value);
		return -ENOMEM;
	}
	if (size)
		memcpy(item.value, value, size);
	b->items[b->count++] = item;
	return 0;
}

void xattr_build_clear(struct xattr_build *b)
{
	for (size_t i = 0; i < b->count; i++) {
		free(b->items[i].name);
		free(b->items[i].value);
	}
	free(b->items);
	*b = (struct xattr_build){0};
}

static int item_compare(const void *a, const void *b)
{
	return strcmp(((const struct xattr_item *)a)->name, ((const struct xattr_item *)b)->name);
}

/* Some archives have each attribute in two dialects (bsdtar): of equal names, which are neighbours, one stays. */
static void xattr_build_unique(struct xattr_build *b)
{
	size_t kept = 0;

	for (size_t i = 0; i < b->count; i++) {
		if (kept && !strcmp(b->items[kept - 1].name, b->items[i].name)) {
			free(b->items[i].name);
			free(b->items[i].value);
		} else {
			b->items[kept++] = b->items[i];
		}
	}
	b->count = kept;
}

static size_t xattr_build_names(const struct xattr_build *b)
{
	size_t size = 0;

	for (size_t i = 0; i < b->count; i++)
		size += strlen(b->items[i].name) + 1;
	return size;
}

static uint8_t *xattr_encode(struct xattr_build *b, size_t *ret_size)
{
	size_t size = sizeof(struct pinfs_xattr_set);
	uint8_t *data, *p;

	for (size_t i = 0; i < b->count; i++)
		size += sizeof(struct pinfs_xattr_entry) + strlen(b->items[i].name) + b->items[i].size;
	data = p = calloc(1, size);
	if (!data)
		return NULL;
	*(struct pinfs_xattr_set *)p = (struct pinfs_xattr_set){pinfs_put32((uint32_t)size),
		pinfs_put32((uint32_t)b->count)};
	p += sizeof(struct pinfs_xattr_set);
	for (size_t i = 0; i < b->count; i++) {
		const struct xattr_item *x = &b->items[i];
		struct pinfs_xattr_entry e = {.value_size = pinfs_put32((uint32_t)x->size),
			.name_len = (uint8_t)strlen(x->name)};

		memcpy(p, &e, sizeof(e));
		memcpy(p + sizeof(e), x->name, e.name_len);
		memcpy(p + sizeof(e) + e.name_len, x->value, x->size);
		p += sizeof(e) + e.name_len + x->size;
	}
	*ret_size = size;
	return data;
}

int tree_xattr_set(struct tree *t, struct inode *inode, struct xattr_build *b)
{
	struct codec_hash128 h;
	uint8_t *data;
	uint64_t known;
	bool acl = false;
	size_t size;
	int r;

	if (!b->count)
		return 0;
	qsort(b->items, b->count, sizeof(*b->items), item_compare);
	xattr_build_unique(b);
	if (xattr_build_names(b) > PINFS_XATTR_LIST_MAX) {
		tree_warn(t, inode->name, "more than 64 KiB of names of attributes; all of them are left out");
		return 0;
	}
	for (size_t i = 0; i < b->count; i++)
		if (!strncmp(b->items[i].name, "system.posix_acl_", 17))
			acl = true;
	data = xattr_encode(b, &size);
	if (!data)
		return -ENOMEM;
	h = codec_hash128(data, size);
	known = hash_table_get(t->xattr_table, h.low, h.high);
	if (known && t->xattrs[known - 1].size == size && !memcmp(t->xattrs[known - 1].data, data, size)) {
		free(data);
		inode->xattr = (uint32_t)known;
		return 0;
	}
	r = array_reserve(&t->xattrs, &t->xattr_capacity, t->xattr_count + 1, sizeof(*t->xattrs));
	if (r == 0)
		r = hash_table_put(t->xattr_table, h.low, h.high, t->xattr_count + 1);
	if (r < 0) {
		free(data);
		return r;
	}
	t->xattrs[t->xattr_count++] = (struct xattr_set){.data = data, .size = (uint32_t)size, .acl = acl};
	inode->xattr = (uint32_t)t->xattr_count;
	return 0;
}

void tree_warn(struct tree *t, const struct node *node, const char *fmt, ...)
{
	char path[PATH_MAX], shown[PATH_MAX], text[256], *p = tree_path(node, path, sizeof(path));
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	t->warnings++;
	log_warning("%s: %s", name_escape(p, strlen(p), shown, sizeof(shown)), text);
}
