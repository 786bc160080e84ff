/* SPDX-License-Identifier: MIT */
/* What a mount has counted, as text. */
#include "vfs/internal.h"

#include <inttypes.h>

struct text {
	char *buf;
	size_t size, len;
};

static void put(struct text *t, const char *name, uint64_t value)
{
	int n = snprintf(t->buf + t->len, t->size - t->len, "%s %" PRIu64 "\n", name, value);

	/* A line that doesn't fit is left out whole. */
	if (n > 0 && (size_t)n < t->size - t->len)
		t->len += (size_t)n;
	else
		t->buf[t->len] = 0;
}

static void put_cache(struct text *t, struct cache *cache)
{
	struct cache_stats s;

	cache_get_stats(cache, &s);
	put(t, "cache_limit", s.limit);
	put(t, "cache_used", s.used);
	put(t, "cache_kept", s.kept);
	put(t, "cache_dirty", s.dirty);
#define PUT(name, what) put(t, #name, s.count.name);
	CACHE_COUNTERS(PUT)
#undef PUT
}

static void put_delta(struct text *t, struct delta *delta)
{
	struct delta_info i;

	delta_get_info(delta, &i);
	put(t, "delta_failed", (uint64_t)-delta_failed(delta));
	put(t, "delta_generation", i.generation);
	put(t, "delta_checkpoints", i.checkpoints);
	put(t, "delta_flushes", i.flushes);
	put(t, "delta_frames", i.frames);
	put(t, "delta_replayed", i.replayed);
	put(t, "delta_written", i.written);
	put(t, "delta_durable", i.durable);
	put(t, "delta_log_bytes", i.log_bytes);
	put(t, "delta_log_used", i.log_used);
	put(t, "delta_items", i.items);
	put(t, "delta_files", i.files);
	put(t, "delta_pages_live", i.live_pages);
	put(t, "delta_pages_pending", i.pending_pages);
	put(t, "delta_pages_reserved", i.reserved_pages);
	put(t, "delta_pages_free", i.free_pages);
}

size_t vfs_stat_text(struct vfs *v, char *buf, size_t size)
{
	struct text t = {.buf = buf, .size = size};

	buf[0] = 0;
	put_cache(&t, v->cache);
	if (v->delta)
		put_delta(&t, v->delta);
	return t.len;
}
