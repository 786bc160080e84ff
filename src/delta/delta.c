/* SPDX-License-Identifier: MIT */
/* Making, opening and closing a delta; what is known of it. */
#include "delta/internal.h"

#include <stdarg.h>
#include <sys/random.h>
#include <time.h>

#define LOG_LEAST (1u << 20)
#define LOG_MOST (32u << 20)
#define LOG_SHARE 8u /* of a limited delta */
#define NODE_CACHE (16u << 20)
/* One that is just being made reaches no farther behind its log. */
#define UNFINISHED_MOST (8u << 20)

int delta_damaged(struct delta *d, uint64_t offset, const char *fmt, ...)
{
	char text[256];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (d->options.on_damage)
		d->options.on_damage(d->options.context, offset, text);
	return -EUCLEAN;
}

void delta_fail(struct delta *d, int error)
{
	/* No room would help, and nobody is to look for some. */
	bool space = error == -ENOSPC || error == -EDQUOT || error == -EFBIG;
	uint64_t none = 0;
	char text[160];

	if (!a64_cas(&d->failed, &none, (uint64_t)(space ? EIO : -error)) || !d->options.on_message)
		return;
	snprintf(text, sizeof(text), "the delta can't be written (%s): from now on nothing can be changed", strerror(-error));
	d->options.on_message(d->options.context, text);
}

int delta_failed(const struct delta *d)
{
	return -(int)a64_read(&d->failed);
}

struct store *delta_store(const struct delta *d)
{
	return d->store;
}

/* ---- the tree's way to its nodes ---- */

static int node_read(void *owner, uint64_t page, void *buf)
{
	struct delta *d = owner;

	return store_read(d->store, page * PINFS_PAGE_SIZE, buf, PINFS_DELTA_NODE_SIZE);
}

static int node_alloc(void *owner, uint64_t *ret)
{
	struct delta *d = owner;
	int r = space_alloc_run(d->space, PINFS_DELTA_NODE_PAGES, ret);

	if (r == 0)
		space_live(d->space, *ret, PINFS_DELTA_NODE_PAGES);
	return r;
}

static void node_free(void *owner, uint64_t page)
{
	struct delta *d = owner;

	if (!space_free(d->space, page, PINFS_DELTA_NODE_PAGES))
		delta_damaged(d, page * PINFS_PAGE_SIZE, "the pages of a node of the tree were free");
}

static void node_damaged(void *owner, uint64_t page, const char *what)
{
	delta_damaged(owner, page * PINFS_PAGE_SIZE, "%s", what);
}

static const struct tree_ops node_ops = {node_read, node_alloc, node_free, node_damaged};

/* ---- making ---- */

static int delta_new(struct store *store, const struct delta_options *o, struct delta **ret)
{
	struct delta *d = mem_alloc(sizeof(*d));

	if (!d)
		return -ENOMEM;
	d->options = *o;
	d->store = store;
	mutex_init(&d->checkpoint_lock, LOCK_CHECKPOINT);
	mutex_init(&d->lock, LOCK_DELTA);
	mutex_init(&d->flush_lock, LOCK_FLUSH);
	mutex_init(&d->thread_lock, LOCK_THREAD);
	cond_init(&d->wake);
	cond_init(&d->flushed);
	cond_init(&d->room);
	*ret = d;
	return 0;
}

/* All but the store. */
static void delta_drop(struct delta *d)
{
	if (!d)
		return;
	thread_end(d);
	tree_free(d->tree);
	space_free_all(d->space);
	txn_destroy(&d->txn);
	content_free_writers(d);
	free(d->logged);
	mem_free(d->map);
	cond_destroy(&d->room);
	cond_destroy(&d->flushed);
	cond_destroy(&d->wake);
	mutex_destroy(&d->thread_lock);
	mutex_destroy(&d->flush_lock);
	mutex_destroy(&d->lock);
	mutex_destroy(&d->checkpoint_lock);
	mem_free(d);
}

void delta_close(struct delta *d)
{
	struct store *store = d ? d->store : NULL;

	/* What the disk was asked for ahead is nobody's any more. Failure means that it stays. */
	if (d && !d->options.read_only && !a64_read(&d->failed)) {
		uint64_t given;

		thread_end(d);
		space_set_own(d->space, 0);
		trim_free(d, 0, UINT64_MAX, PUNCH_LEAST, 0, false, &given);
	}
	delta_drop(d);
	store_close(store);
}

static int random_bytes(void *to, size_t len)
{
	return getrandom(to, len, 0) == (ssize_t)len ? 0 : -EIO;
}

static uint64_t log_size(const struct delta_options *o)
{
	uint64_t size = o->log_size ? o->log_size : o->limit ? MIN(o->limit / LOG_SHARE, (uint64_t)LOG_MOST) : LOG_MOST;

	return align_up(MAX(size, (uint64_t)LOG_LEAST), PINFS_PAGE_SIZE);
}

static int delta_parts(struct delta *d, uint64_t log_first, uint64_t log_bytes, const struct tree_root *root)
{
	size_t cache = d->options.cache ? d->options.cache : NODE_CACHE;
	uint64_t limit = d->options.limit / PINFS_PAGE_SIZE;
	int r;

	memcpy(&d->id, d->uuid, sizeof(d->id));
	d->id = le64toh(d->id);
	r = space_new(d->store, (log_first + log_bytes) / PINFS_PAGE_SIZE, limit, &d->space);
	if (r == 0)
		r = tree_new(&node_ops, d, d->id, root, cache, &d->tree);
	return r;
}

int delta_create(struct store *store, const struct delta_options *o, struct delta **ret, char error[DELTA_ERROR_SIZE])
{
	uint64_t log_first = (uint64_t)PINFS_DELTA_SUPERS * PINFS_PAGE_SIZE, log_bytes = log_size(o);
	struct tree_root none = {0};
	struct delta *d;
	int r;

	if (o->limit && o->limit < log_first + log_bytes + (1u << 20)) {
		snprintf(error, DELTA_ERROR_SIZE, "a delta needs at least %u MiB", (unsigned)((log_first + log_bytes + (2u << 20)) >> 20));
		return -ENOSPC;
	}
	r = delta_new(store, o, &d);
	if (r < 0)
		goto fail;
	d->created = (uint64_t)time(NULL);
	r = random_bytes(d->uuid, sizeof(d->uuid));
	d->uuid[6] = (uint8_t)((d->uuid[6] & 0x0f) | 0x40);
	d->uuid[8] = (uint8_t)((d->uuid[8] & 0x3f) | 0x80);
	if (r == 0)
		r = random_bytes(&d->hash_seed, sizeof(d->hash_seed));
	if (r == 0)
		r = random_bytes(&d->ino_generation, sizeof(d->ino_generation));
	/* 1 is that of the image's inodes. */
	d->ino_generation = MAX(d->ino_generation, 2u);
	d->next_ino = o->image_inodes + 1;
	d->files = o->image_inodes;
	if (r == 0)
		r = delta_parts(d, log_first, log_bytes, &none);
	if (r == 0) {
		log_init_at(&d->log, log_first, log_bytes, 0, 1, 0);
		/* The log is there before anything else: making room never fails for want of a place to say so. */
		r = store_allocate(store, 0, log_first + d->log.limit);
		if (r == -EOPNOTSUPP) {
			uint8_t zeroes[PINFS_DELTA_SUPERS * PINFS_PAGE_SIZE] = {0};

			r = store_write(store, 0, zeroes, sizeof(zeroes));
			r = r < 0 ? r : log_ready(d);
		}
	}
	if (r == 0)
		r = checkpoint_make(d);
	if (r == 0 && !o->no_thread)
		r = delta_thread_start(d);
	if (r < 0)
		goto fail;
	txn_ask_ahead(d);
	*ret = d;
	return 0;
fail:
	snprintf(error, DELTA_ERROR_SIZE, "%s", strerror(-r));
	delta_drop(d);
	return r;
}

/* ---- opening ---- */

bool super_valid(const struct pinfs_delta_super *s, unsigned slot)
{
	return !memcmp(s->magic, PINFS_DELTA_MAGIC, sizeof(s->magic)) && pinfs_get32(s->slot) == slot &&
		pinfs_get64(s->generation) % 2 == slot / 2 &&
		pinfs_get64(s->checksum) == codec_checksum(s, sizeof(*s) - sizeof(s->checksum));
}

/* The newest valid superblock. *ret_magic: some page begins like one. */
static int super_find(struct store *store, struct pinfs_delta_super *ret, bool *ret_magic, unsigned *ret_bad)
{
	bool found = false;

	*ret_magic = false;
	*ret_bad = 0;
	for (unsigned slot = 0; slot < PINFS_DELTA_SUPERS; slot++) {
		struct pinfs_delta_super s;
		int r = store_read(store, (uint64_t)slot * PINFS_PAGE_SIZE, &s, sizeof(s));

		if (r < 0)
			return r;
		*ret_magic |= !memcmp(s.magic, PINFS_DELTA_MAGIC, sizeof(s.magic));
		if (!super_valid(&s, slot)) {
			*ret_bad |= 1u << slot;
			continue;
		}
		if (!found || pinfs_get64(s.generation) > pinfs_get64(ret->generation))
			*ret = s;
		found = true;
	}
	return found ? 0 : *ret_magic ? -EUCLEAN : -EMEDIUMTYPE;
}

static bool is_zero(const uint8_t *p, size_t len)
{
	return !len || (!p[0] && !memcmp(p, p + 1, len - 1));
}

/*
 * What makes a delta writes the first generation's two superblocks before anything else but the map, which lies behind the log. So where one
 * that isn't there or is torn stands in zeroes, nothing was ever told to be durable. A file of anything else isn't like that.
 */
bool delta_unfinished(struct store *store)
{
	size_t bytes = PINFS_DELTA_SUPERS * PINFS_PAGE_SIZE + LOG_LEAST, sector = 512;
	_cleanup_mem_ uint8_t *buf = mem_alloc(bytes);
	struct pinfs_delta_super s;
	unsigned bad;
	bool magic;
	int r;

	if (!buf || store_size(store) > LOG_MOST + UNFINISHED_MOST)
		return false;
	r = super_find(store, &s, &magic, &bad);
	if ((r != -EUCLEAN && r != -EMEDIUMTYPE) || store_read(store, 0, buf, bytes) < 0)
		return false;
	/* Of these pages the first sector and the last 8 bytes are all that isn't zero. */
	for (unsigned slot = 2; slot < PINFS_DELTA_SUPERS; slot++) {
		uint8_t *page = buf + slot * PINFS_PAGE_SIZE;

		if (!memcmp(page, PINFS_DELTA_MAGIC, PINFS_DELTA_MAGIC_SIZE))
			memset(page, 0, sector);
		memset(page + PINFS_PAGE_SIZE - sizeof(s.checksum), 0, sizeof(s.checksum));
	}
	return is_zero(buf, bytes);
}

static int super_check(const struct pinfs_delta_super *s, const struct delta_options *o, char error[DELTA_ERROR_SIZE])
{
	char uuid[37];

	if (pinfs_get16(s->version_major) != PINFS_DELTA_VERSION_MAJOR || pinfs_get64(s->incompat) & ~PINFS_DELTA_INCOMPAT_KNOWN) {
		snprintf(error, DELTA_ERROR_SIZE, "it was written by a later version of pinfs (format %u.%u, features %#jx)",
			pinfs_get16(s->version_major), pinfs_get16(s->version_minor), (uintmax_t)pinfs_get64(s->incompat));
		return -EOPNOTSUPP;
	}
	if (o->any_image)
		return 0;
	if (memcmp(s->image_uuid, o->image_uuid, 16) != 0 || memcmp(s->image_hash, o->image_hash, 16) != 0 ||
		pinfs_get64(s->image_size) != o->image_size || pinfs_get64(s->image_inodes) != o->image_inodes) {
		uuid_format(s->image_uuid, uuid);
		snprintf(error, DELTA_ERROR_SIZE, "it belongs to another image (with UUID %s)", uuid);
		return -ESTALE;
	}
	return 0;
}

/* What a superblock with a right checksum says could still be nonsense. */
static bool super_plausible(const struct pinfs_delta_super *s)
{
	uint64_t first = pinfs_get64(s->log_first), pages = pinfs_get64(s->log_pages), bytes = pages * PINFS_PAGE_SIZE;
	uint64_t root = pinfs_get64(s->root.page), height = pinfs_get32(s->height), most = (uint64_t)INT64_MAX / PINFS_PAGE_SIZE / 2;

	return first >= PINFS_DELTA_SUPERS && first < PINFS_DELTA_LOG_END_MAX && pages >= LOG_LEAST / PINFS_PAGE_SIZE / 4 &&
		pages <= PINFS_DELTA_LOG_END_MAX - first &&
		pinfs_get64(s->log_start) <= bytes && pinfs_get64(s->log_start) % 8 == 0 && height <= PINFS_DELTA_HEIGHT_MAX &&
		!root == !height && root < most && pinfs_get64(s->map_first) < most && pinfs_get64(s->map_bits) < most &&
		pinfs_get64(s->map_pages) < most && pinfs_get64(s->next_ino) < INO_MAX &&
		pinfs_get64(s->generation) < COUNT_MOST && pinfs_get64(s->log_sequence) < COUNT_MOST;
}

static int super_take(struct delta *d, const struct pinfs_delta_super *s)
{
	uint64_t log_first = pinfs_get64(s->log_first) * PINFS_PAGE_SIZE, log_bytes = pinfs_get64(s->log_pages) * PINFS_PAGE_SIZE;
	struct tree_root root = {
		.page = pinfs_get64(s->root.page),
		.generation = pinfs_get64(s->root.generation),
		.height = pinfs_get32(s->height),
		.items = pinfs_get64(s->items),
	};
	uint64_t ready;
	int r;

	memcpy(d->uuid, s->uuid, sizeof(d->uuid));
	memcpy(d->options.image_uuid, s->image_uuid, sizeof(d->options.image_uuid));
	memcpy(d->options.image_hash, s->image_hash, sizeof(d->options.image_hash));
	d->options.image_size = pinfs_get64(s->image_size);
	d->options.image_inodes = pinfs_get64(s->image_inodes);
	d->hash_seed = pinfs_get64(s->hash_seed);
	d->created = pinfs_get64(s->created_sec);
	d->ino_generation = pinfs_get32(s->ino_generation);
	d->generation = pinfs_get64(s->generation);
	d->next_ino = pinfs_get64(s->next_ino);
	d->files = pinfs_get64(s->inodes);
	d->map_first = pinfs_get64(s->map_first);
	d->map_pages = pinfs_get64(s->map_pages);
	r = delta_parts(d, log_first, log_bytes, &root);
	if (r < 0)
		return r;
	log_init_at(&d->log, log_first, log_bytes, pinfs_get64(s->log_start), pinfs_get64(s->log_sequence), pinfs_get64(s->log_previous));
	if (store_hole(d->store, log_first, &ready) == 0 && ready > log_first)
		d->log.ready = align_down(MIN(ready - log_first, log_bytes), PINFS_PAGE_SIZE);
	r = map_load(d, s);
	if (r == -EUCLEAN && d->options.salvage) {
		d->salvage.map_lost = true;
		d->map_pages = 0;
		r = 0;
	}
	if (r == 0 && d->map_pages && !space_is_live(d->space, d->map_first))
		r = delta_damaged(d, d->map_first * PINFS_PAGE_SIZE, "the map of used pages doesn't know itself");
	return r;
}

/* What is in the store, up to a frame of the log. */
static int open_until(struct store *store, const struct delta_options *o, const struct pinfs_delta_super *s, const struct delta_salvage *salvage,
	struct delta **ret, struct delta_salvage *ret_salvage, char error[DELTA_ERROR_SIZE])
{
	struct delta *d;
	int r = delta_new(store, o, &d);

	if (r < 0)
		return r;
	d->salvage.cut = salvage->cut;
	d->salvage.cut_offset = salvage->cut_offset;
	if (!super_plausible(s))
		r = delta_damaged(d, pinfs_get32(s->slot) * PINFS_PAGE_SIZE, "the superblock contradicts itself");
	if (r == 0)
		r = super_take(d, s);
	if (r == 0 && o->salvage)
		r = salvage_tree(d);
	if (r == 0)
		r = replay_log(d, error);
	if (r == 0 && o->salvage && !o->read_only)
		r = delta_rebuild_space(d);
	*ret_salvage = d->salvage;
	if (r < 0)
		delta_drop(d);
	else
		*ret = d;
	return r;
}

int delta_open(struct store *store, const struct delta_options *o, struct delta **ret, char error[DELTA_ERROR_SIZE])
{
	struct delta_salvage salvage = {0}, found = {0};
	struct pinfs_delta_super s;
	struct delta *d = NULL;
	unsigned bad;
	bool magic;
	int r;

	r = super_find(store, &s, &magic, &bad);
	if (r < 0) {
		snprintf(error, DELTA_ERROR_SIZE, "%s", r == -EMEDIUMTYPE ? "it is no pinfs delta" :
			r == -EUCLEAN ? "all four of its superblocks are damaged" : strerror(-r));
		return r;
	}
	r = super_check(&s, o, error);
	if (r < 0)
		return r;
	error[0] = 0;
	r = open_until(store, o, &s, &salvage, &d, &found, error);
	/* The same again, without the frame that could be applied in part only, and those behind it. */
	if (r == -EUCLEAN && o->salvage && found.cut) {
		salvage = found;
		r = open_until(store, o, &s, &salvage, &d, &found, error);
	}
	if (r == 0 && !o->no_thread && !o->read_only) {
		r = delta_thread_start(d);
		if (r < 0)
			delta_drop(d);
	}
	if (r < 0) {
		if (!error[0])
			snprintf(error, DELTA_ERROR_SIZE, "%s", r == -EUCLEAN ? "it is damaged; fsck.pinfs says more" : strerror(-r));
		return r;
	}
	txn_ask_ahead(d);
	*ret = d;
	return 0;
}

void delta_get_info(struct delta *d, struct delta_info *ret)
{
	struct space_stats space;
	struct store_stats store;

	mutex_lock(&d->lock);
	space_get_stats(d->space, &space);
	store_get_stats(d->store, &store);
	*ret = (struct delta_info){
		.image_inodes = d->options.image_inodes,
		.generation = d->generation,
		.log_bytes = d->log.bytes,
		.log_used = d->log.used,
		.frames = d->frames,
		.replayed = d->replayed,
		.items = tree_items(d->tree),
		.next_ino = d->next_ino,
		.files = d->files,
		.ino_generation = d->ino_generation,
		.hash_seed = d->hash_seed,
		.live_pages = space.live,
		.pending_pages = space.pending,
		.free_pages = space.free,
		.reserved_pages = space.reserved,
		.flushes = store.flushes,
		.checkpoints = d->checkpoints,
		.durable = a64_read(&d->durable),
		.written = a64_read(&d->written),
	};
	memcpy(ret->uuid, d->uuid, sizeof(ret->uuid));
	memcpy(ret->image_uuid, d->options.image_uuid, sizeof(ret->image_uuid));
	mutex_unlock(&d->lock);
}

int delta_reserve(struct delta *d, uint64_t pages)
{
	int r;

	if (a64_read(&d->failed))
		return -(int)a64_read(&d->failed);
	mutex_lock(&d->lock);
	r = space_reserve(d->space, pages);
	for (unsigned tries = 0; r < 0 && tries < 2; tries++) {
		struct space_stats stats;

		space_get_stats(d->space, &stats);
		if (!stats.pending)
			break;
		/* What was given up lately is free after a checkpoint. */
		mutex_unlock(&d->lock);
		delta_checkpoint(d);
		mutex_lock(&d->lock);
		r = space_reserve(d->space, pages);
	}
	mutex_unlock(&d->lock);
	return r;
}

int delta_reserve_last(struct delta *d)
{
	int r = delta_reserve(d, 1);

	if (r == 0)
		return 0;
	mutex_lock(&d->lock);
	r = space_reserve_last(d->space);
	mutex_unlock(&d->lock);
	return r;
}

void delta_unreserve(struct delta *d, uint64_t pages)
{
	mutex_lock(&d->lock);
	space_unreserve(d->space, pages);
	mutex_unlock(&d->lock);
}

int delta_trim(struct delta *d, uint64_t start, uint64_t len, uint64_t least, uint64_t *ret)
{
	uint64_t first = DIV_ROUND_UP(start, PINFS_PAGE_SIZE), end = len > UINT64_MAX - start ? UINT64_MAX : (start + len) / PINFS_PAGE_SIZE, given = 0;
	int r = delta_checkpoint(d);

	if (r < 0)
		return r;
	mutex_lock(&d->checkpoint_lock);
	r = trim_free(d, first, end, MAX(DIV_ROUND_UP(least, PINFS_PAGE_SIZE), (uint64_t)1), 0, true, &given);
	mutex_unlock(&d->checkpoint_lock);
	*ret = given * PINFS_PAGE_SIZE;
	return r;
}
