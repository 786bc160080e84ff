/* SPDX-License-Identifier: MIT */
/* Transactions: items and pages change at once, a record of each goes into a frame, and what it was before is kept until that is written. */
#include "delta/internal.h"

/* So many pages that only wait for a checkpoint are worth one. */
#define WAITING_MOST ((64u << 20) / PINFS_PAGE_SIZE)
/* What the first changes may want for content. */
#define FIRST_PAGES 64u
#define HEAD (PINFS_PAGE_SIZE + sizeof(struct pinfs_delta_frame))

static int array_room(uint8_t **p, size_t *capacity, size_t want)
{
	uint8_t *larger;
	size_t size;

	if (want <= *capacity)
		return 0;
	size = MAX(want, MAX(*capacity * 2, (size_t)16384));
	larger = realloc(*p, size);
	if (!larger)
		return -ENOMEM;
	*p = larger;
	*capacity = size;
	return 0;
}

void txn_destroy(struct txn *t)
{
	free(t->out);
	free(t->undo);
	free(t->old);
}

/* Room in all arrays, so that nothing fails between the change and its note. */
static int note_reserve(struct delta *d, size_t record, size_t old)
{
	struct txn *t = &d->txn;

	assert(t->active);
	if (t->error < 0)
		return t->error;
	/* A page behind it: the last page of a frame is padded. */
	if (array_room(&t->out, &t->capacity, HEAD + t->len + record + 2 * PINFS_PAGE_SIZE) < 0 ||
		array_room(&t->old, &t->old_capacity, t->old_len + old) < 0 ||
		array_reserve(&t->undo, &t->undo_capacity, t->undo_count + 1, sizeof(*t->undo)) < 0)
		return t->error = -ENOMEM;
	return 0;
}

static void note_record(struct txn *t, unsigned op, struct tree_key key, const void *value, size_t len, const void *more, size_t more_len)
{
	struct pinfs_delta_record r = {
		.op = pinfs_put32(op),
		.len = pinfs_put32((uint32_t)(len + more_len)),
		.key = {pinfs_put64(key.object), pinfs_put64(key.offset)},
	};
	uint8_t *at = t->out + HEAD + t->len;
	size_t total = align_up(sizeof(r) + len + more_len, 8);

	memcpy(at, &r, sizeof(r));
	if (len)
		memcpy(at + sizeof(r), value, len);
	if (more_len)
		memcpy(at + sizeof(r) + len, more, more_len);
	memset(at + sizeof(r) + len + more_len, 0, total - sizeof(r) - len - more_len);
	t->len += total;
}

/* What the item is now, for the undo list. */
static int note_old(struct delta *d, struct tree_key key, size_t record, const void **ret, size_t *ret_len)
{
	struct txn *t = &d->txn;
	const void *old = NULL;
	size_t len = 0;
	int r;

	r = note_reserve(d, record, PINFS_DELTA_ITEM_MAX);
	if (r < 0)
		return r;
	r = tree_get(d->tree, key, &old, &len);
	if (r < 0 && r != -ENOENT)
		return t->error = r;
	t->undo[t->undo_count] = (struct undo){.kind = UNDO_ITEM, .key = key, .existed = r == 0, .at = t->old_len, .len = len};
	if (len)
		memcpy(t->old + t->old_len, old, len);
	*ret = r == 0 ? old : NULL;
	*ret_len = len;
	return 0;
}

static void note_done(struct txn *t)
{
	t->old_len += t->undo[t->undo_count].len;
	t->undo_count++;
}

int txn_put_logged(struct delta *d, struct tree_key key, const void *value, size_t len, const void *log_value, size_t log_len,
	const void *data, size_t data_len)
{
	struct txn *t = &d->txn;
	const void *old;
	size_t old_len;
	int r;

	assert(len <= PINFS_DELTA_ITEM_MAX);
	r = note_old(d, key, sizeof(struct pinfs_delta_record) + log_len + data_len + 8, &old, &old_len);
	if (r < 0)
		return r;
	/* It is that already. */
	if (old && !data_len && old_len == len && !memcmp(old, value, len))
		return 0;
	r = tree_put(d->tree, key, value, len);
	if (r < 0)
		return t->error = r;
	note_done(t);
	note_record(t, PINFS_DELTA_PUT, key, log_value, log_len, data, data_len);
	return 0;
}

int txn_put(struct delta *d, struct tree_key key, const void *value, size_t len)
{
	return txn_put_logged(d, key, value, len, value, len, NULL, 0);
}

int txn_delete(struct delta *d, struct tree_key key)
{
	struct txn *t = &d->txn;
	const void *old;
	size_t len;
	int r = note_old(d, key, sizeof(struct pinfs_delta_record), &old, &len);

	if (r < 0)
		return r;
	if (!old)
		return -ENOENT;
	r = tree_delete(d->tree, key);
	if (r < 0)
		return t->error = r;
	note_done(t);
	note_record(t, PINFS_DELTA_DELETE, key, NULL, 0, NULL, 0);
	return 0;
}

static int note_pages(struct delta *d, int kind, uint64_t first, uint64_t pages)
{
	bool alloc = kind != UNDO_FREE;
	struct tree_key key = {first, pages};
	struct txn *t = &d->txn;
	int r = note_reserve(d, sizeof(struct pinfs_delta_record), 0);

	if (r < 0)
		return r;
	if (!(alloc ? space_live(d->space, first, pages) : space_release(d->space, first, pages)))
		return t->error = delta_damaged(d, first * PINFS_PAGE_SIZE, "%s pages from there on are %s already", alloc ? "used" : "free", alloc ? "used" : "free");
	t->undo[t->undo_count++] = (struct undo){.kind = kind, .key = key};
	note_record(t, alloc ? PINFS_DELTA_ALLOC : PINFS_DELTA_FREE, key, NULL, 0, NULL, 0);
	return 0;
}

int txn_alloc(struct delta *d, uint64_t first, uint64_t pages)
{
	return note_pages(d, UNDO_ALLOC, first, pages);
}

int txn_take(struct delta *d, uint64_t first, uint64_t pages)
{
	return note_pages(d, UNDO_TAKE, first, pages);
}

int txn_free(struct delta *d, uint64_t first, uint64_t pages)
{
	return note_pages(d, UNDO_FREE, first, pages);
}

int txn_files(struct delta *d)
{
	int r = note_reserve(d, sizeof(struct pinfs_delta_record), 0);

	if (r == 0)
		note_record(&d->txn, PINFS_DELTA_FILES, (struct tree_key){0, d->files}, NULL, 0, NULL, 0);
	return r;
}

/* ---- beginning and ending ---- */

static int txn_reset(struct delta *d)
{
	struct txn *t = &d->txn;

	if (array_room(&t->out, &t->capacity, HEAD + 2 * PINFS_PAGE_SIZE) < 0)
		return -ENOMEM;
	t->active = true;
	t->len = t->undo_count = t->old_len = 0;
	t->error = 0;
	t->next_ino = d->next_ino;
	t->files = d->files;
	t->logged = d->logged_count;
	t->dirty = tree_dirty(d->tree);
	t->placed = false;
	return 0;
}

/* Pages that the next checkpoint needs, if so many more nodes become dirty. */
static uint64_t checkpoint_pages(const struct delta *d, unsigned more)
{
	return (tree_dirty(d->tree) + more) * PINFS_DELTA_NODE_PAGES + d->map_pages + CHECKPOINT_MARGIN;
}

void txn_ask_ahead(struct delta *d)
{
	if (d->options.read_only)
		return;
	mutex_lock(&d->lock);
	/* And memory. */
	tree_reserve(d->tree, UNDO_RESERVE);
	space_set_own(d->space, checkpoint_pages(d, TXN_NODES) + FIRST_PAGES);
	mutex_unlock(&d->lock);
}

/* Makes room in the log and for the checkpoint: called under the lock, which it may drop. */
static int make_room(struct delta *d, unsigned flags)
{
	unsigned tries = 0;

	for (;;) {
		bool log_full = log_room(&d->log) < DELTA_TXN_MAX + (64u << 10) + d->logged_count * SETTLE_RECORDS, full = false;
		int r;

		if (log_full && log_grow(d))
			continue;
		if (a64_read(&d->failed))
			return -(int)a64_read(&d->failed);
		if (!log_full && tree_dirty(d->tree) < DIRTY_NODES_MOST) {
			r = space_set_own(d->space, checkpoint_pages(d, TXN_NODES));
			if (r == 0)
				return 0;
			full = true;
			/* What makes room may use the last pages: the checkpoint that follows needs no more than are left. */
			if (flags & (DELTA_SHRINKS | DELTA_PROMISED) && space_ready(d->space) >= checkpoint_pages(d, TXN_NODES / 2))
				return 0;
			if (tries)
				return r;
		}
		/* More often only if the log is full again. */
		if (tries++ > 8)
			return full ? -ENOSPC : -EIO;
		mutex_unlock(&d->lock);
		r = delta_checkpoint(d);
		mutex_lock(&d->lock);
		if (r < 0)
			return r;
	}
}

int delta_begin(struct delta *d, unsigned flags)
{
	int r;

	mutex_lock(&d->lock);
	assert(!d->txn.active);
	r = d->options.read_only ? -EROFS : make_room(d, flags);
	if (r == 0)
		r = tree_reserve(d->tree, UNDO_RESERVE);
	if (r == 0)
		r = txn_reset(d);
	if (r < 0)
		mutex_unlock(&d->lock);
	return r;
}

int txn_begin_settle(struct delta *d)
{
	int r;

	mutex_lock(&d->lock);
	r = a64_read(&d->failed) ? -(int)a64_read(&d->failed) : tree_reserve(d->tree, UNDO_RESERVE);
	if (r == 0)
		r = txn_reset(d);
	if (r < 0)
		mutex_unlock(&d->lock);
	return r;
}

/* Back to what it was before, last change first. */
static void txn_undo(struct delta *d)
{
	struct txn *t = &d->txn;

	for (size_t i = t->undo_count; i-- > 0;) {
		const struct undo *u = &t->undo[i];
		int r = 0;

		if (u->kind == UNDO_ALLOC || u->kind == UNDO_TAKE)
			space_unlive(d->space, u->key.object, u->key.offset);
		if (u->kind == UNDO_TAKE)
			space_cancel(d->space, u->key.object, u->key.offset);
		else if (u->kind == UNDO_FREE)
			space_unfree(d->space, u->key.object, u->key.offset);
		else if (u->kind == UNDO_ITEM && u->existed)
			r = tree_put(d->tree, u->key, t->old + u->at, u->len);
		else if (u->kind == UNDO_ITEM)
			r = tree_delete(d->tree, u->key);
		/* All nodes were looked at and there is memory in reserve: it can't. If it does, nothing here is to be trusted. */
		if (r < 0)
			delta_fail(d, r);
	}
	d->next_ino = t->next_ino;
	d->files = t->files;
	/* Nobody else can have noted any since: that takes the lock. */
	d->logged_count = t->logged;
}

void delta_abort(struct delta *d)
{
	assert(d->txn.active);
	txn_undo(d);
	d->txn.active = false;
	mutex_unlock(&d->lock);
}

int delta_commit(struct delta *d)
{
	struct txn *t = &d->txn;
	bool wake;
	int r = t->error;

	assert(t->active);
	if (r == 0 && a64_read(&d->failed))
		r = -(int)a64_read(&d->failed);
	if (r == 0 && t->len) {
		r = log_append(d);
		/* What the log has there is unknown now; a frame that follows would perhaps never be found. */
		if (r < 0 && r != -ENOMEM && r != -ENOSPC && r != -EDQUOT && r != -EFBIG && r != -EAGAIN)
			delta_fail(d, r);
	}
	if (r < 0) {
		delta_abort(d);
		return r;
	}
	t->active = false;
	if (t->len)
		a64_set_release(&d->written, d->log.sequence - 1);
	wake = d->log.used > d->log.bytes / 2 || tree_dirty(d->tree) > DIRTY_NODES_MOST / 2 || space_waiting(d->space) > WAITING_MOST;
	mutex_unlock(&d->lock);
	if (wake)
		thread_wake(d);
	return 0;
}

size_t delta_txn_size(const struct delta *d)
{
	return d->txn.len;
}

void delta_lock(struct delta *d)
{
	mutex_lock(&d->lock);
}

void delta_unlock(struct delta *d)
{
	mutex_unlock(&d->lock);
}
