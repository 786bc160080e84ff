/* SPDX-License-Identifier: MIT */
#include "model/actors.h"

#include <stdlib.h>

#include "model/process.h"

static void read_fault(struct world *w)
{
	world_load(w, 0, SHARED_AT);
}

static void write_fault(struct world *w)
{
	world_store(w, 0, SHARED_AT);
}

static void write_fault_twice(struct world *w)
{
	world_store(w, 0, SHARED_AT);
	world_store(w, 0, SHARED_AT);
}

static void fuse_read(struct world *w)
{
	world_read(w, 0);
}

static void fuse_write(struct world *w)
{
	world_write(w, 0);
}

static void write_from_mapping(struct world *w)
{
	world_write_from_mapping(w, 0);
}

static void direct_read(struct world *w)
{
	world_dma(w, 0, SHARED_AT, 0, 1);
}

static void direct_write(struct world *w)
{
	world_dma_load(w, 0, SHARED_AT, false);
}

static void direct_write_after(struct world *w)
{
	world_dma_load(w, 0, SHARED_AT, true);
}

static void private_read(struct world *w)
{
	world_dma_load(w, 0, ANON_AT, true);
}

static void fuse_read_other(struct world *w)
{
	world_read(w, 1);
}

static void long_pin(struct world *w)
{
	world_dma(w, 0, SHARED_AT, PIN_LONGTERM, 2);
}

static void pin_nowait(struct world *w)
{
	world_dma(w, 0, SHARED_AT, PIN_NOWAIT, 1);
}

static void private_dma(struct world *w)
{
	world_dma(w, 0, ANON_AT, 0, 1);
}

static void private_store(struct world *w)
{
	world_store(w, 0, ANON_AT);
	world_load(w, 0, ANON_AT);
}

static void fork_child(struct world *w)
{
	world_fork(w);
	if (!w->mm[1])
		return;
	world_load(w, 1, ANON_AT);
	world_store(w, 1, ANON_AT);
}

static void protect(struct world *w)
{
	mm_protect(w->mm[0], ANON_AT, PAGE, VM_READ);
	mm_protect(w->mm[0], ANON_AT, PAGE, VM_READ | VM_WRITE);
}

static void protect_and_store(struct world *w)
{
	protect(w);
	world_store(w, 0, ANON_AT);
	world_load(w, 0, ANON_AT);
}

static void write_back(struct world *w)
{
	cache_writeback(w->file, 1);
}

static void sync_file(struct world *w)
{
	world_sync(w);
}

static void truncate_file(struct world *w)
{
	world_truncate(w, 0);
}

static void truncate_and_grow(struct world *w)
{
	world_truncate(w, 0);
	world_truncate(w, PAGES);
}

static void punch(struct world *w)
{
	world_punch(w, 0);
}

static void reclaim(struct world *w)
{
	cache_reclaim(w->cache, PAGES * PAGE);
}

static void invalidate(struct world *w)
{
	cache_invalidate(w->file, 0, 1);
}

static void unmap(struct world *w)
{
	if (mm_unmap(w->mm[0], SHARED_AT, PAGE) < 0)
		return;
	explore_check(world_load(w, 0, SHARED_AT) == -EFAULT, "what was unmapped can still be loaded");
}

static void remap(struct world *w)
{
	mm_remap(w->mm[0], SHARED_AT, PAGES * PAGE, MOVED_AT);
	world_load(w, 0, MOVED_AT);
}

static void write_fails(struct world *w)
{
	w->owner.fail_writes = 1;
	world_sync(w);
}

static void read_fails(struct world *w)
{
	w->owner.fail_reads = 1;
	world_read(w, 1);
}

static void no_space(struct world *w)
{
	w->owner.no_space = 1;
	world_store(w, 0, SHARED_AT);
}

static void xip_load(struct world *w)
{
	world_load(w, 0, SHARED_AT);
	world_load(w, 0, SHARED_AT);
}

static void xip_store(struct world *w)
{
	world_store(w, 0, SHARED_AT);
	world_load(w, 0, SHARED_AT);
}

static void child_xip_load(struct world *w)
{
	world_load(w, 1, SHARED_AT);
	world_load(w, 1, SHARED_AT);
}

static void child_write_fault(struct world *w)
{
	world_store(w, 1, SHARED_AT);
}

const struct actor actors[] = {
	{"read-fault", read_fault, false, false, false, "R6 R7 R9"},
	{"write-fault", write_fault, false, false, false, "R1 R6 R7"},
	{"write-fault-twice", write_fault_twice, false, false, false, "R1 R2"},
	{"fuse-read", fuse_read, false, false, false, "R13"},
	{"fuse-read-other", fuse_read_other, false, false, false, "R4 R13"},
	{"fuse-write", fuse_write, false, false, false, "R1 R2"},
	{"write-from-mapping", write_from_mapping, false, false, false, "R6 R8"},
	{"direct-read", direct_read, false, false, false, "R1 R2 R3 R4 R10"},
	{"direct-write", direct_write, false, false, false, "R4 R10"},
	{"direct-write-after", direct_write_after, false, false, false, "R4 R10"},
	{"long-pin", long_pin, false, false, false, "R2 R3 R4 R5"},
	{"pin-nowait", pin_nowait, false, false, false, "R10"},
	{"private-dma", private_dma, false, true, false, "R10 R11 R12"},
	{"private-read", private_read, false, true, false, "R10 R11 R12"},
	{"private-store", private_store, false, true, false, "R11"},
	{"fork", fork_child, false, true, false, "R11 R12"},
	{"mprotect", protect, false, true, false, "R6 R11"},
	{"mprotect-store", protect_and_store, false, true, false, "R6 R11"},
	{"writeback", write_back, false, false, false, "R2 R3"},
	{"fsync", sync_file, false, false, false, "R2 R3 R13"},
	{"truncate", truncate_file, false, false, false, "R5"},
	{"truncate-grow", truncate_and_grow, false, false, false, "R5"},
	{"punch", punch, false, false, false, "R5"},
	{"reclaim", reclaim, false, false, false, "R4"},
	{"invalidate", invalidate, false, false, false, "R4"},
	{"munmap", unmap, false, false, false, "R6 R7"},
	{"mremap", remap, false, false, false, "R6 R7"},
	{"write-error", write_fails, false, false, false, "R13"},
	{"read-error", read_fails, false, false, false, "R13"},
	{"no-space", no_space, false, false, false, "R1"},
	{"xip-load", xip_load, true, false, false, "R9"},
	{"child-xip-load", child_xip_load, true, false, true, "R9"},
	{"child-write-fault", child_write_fault, false, false, true, "R1 R2 R6"},
	{"xip-store", xip_store, true, false, false, "R1 R9"},
};
const unsigned actor_count = ARRAY_SIZE(actors);

/* ---- disks that fail ---- */

static void short_read(struct world *w)
{
	w->owner.short_reads = 1;
	world_read(w, 1);
}

static void short_fault(struct world *w)
{
	w->owner.short_reads = 1;
	world_load(w, 0, SHARED_AT);
	world_store(w, 0, SHARED_AT);
}

static void write_is_torn(struct world *w)
{
	world_write(w, 1);
	w->owner.torn_writes = 1;
	world_sync(w);
}

static void write_fails_twice(struct world *w)
{
	struct world_file f;

	world_open(w, &f);
	w->owner.fail_writes = 2;
	world_sync_file(w, &f);
	world_sync_file(w, &f);
	world_sync_file(w, &f);
}

static void sync_twice(struct world *w)
{
	struct world_file f;

	world_open(w, &f);
	world_sync_file(w, &f);
	world_sync_file(w, &f);
}

/* Each of two open files hears of each failure. */
static void two_files_hear(struct world *w)
{
	struct world_file a, b;

	world_open(w, &a);
	world_open(w, &b);
	for (unsigned i = 0; i < 2; i++) {
		world_store(w, 0, SHARED_AT);
		w->owner.fail_writes = 1;
		world_sync_file(w, &a);
		world_sync_file(w, &b);
	}
	world_sync_file(w, &b);
}

static void pinned_write_fails(struct world *w)
{
	uint32_t frame;

	if (mm_pin(w->mm[0], SHARED_AT, 1, PIN_FOR_WRITE, &frame) < 0)
		return;
	w->owner.fail_writes = 1;
	world_sync(w);
	mm_unpin(w->mm[0], &frame, 1, PIN_FOR_WRITE);
	world_sync(w);
}

const struct actor failing_actors[] = {
	{"short-read", short_read, false, false, false, "R13"},
	{"short-fault", short_fault, false, false, false, "R1 R13"},
	{"write-torn", write_is_torn, false, false, false, "R13"},
	{"write-error-twice", write_fails_twice, false, false, false, "R13"},
	{"fsync-twice", sync_twice, false, false, false, "R13"},
	{"two-files", two_files_hear, false, false, false, "R13"},
	{"pinned-write-error", pinned_write_fails, false, false, false, "R3 R13"},
};
const unsigned failing_actor_count = ARRAY_SIZE(failing_actors);

static void page_write(struct world *w)
{
	world_write_page(w, 0);
}

static void page_write_other(struct world *w)
{
	world_write_page(w, 1);
}

static void fault_both(struct world *w)
{
	world_load(w, 0, SHARED_AT);
	world_load(w, 0, SHARED_AT + PAGE);
}

/* The fault maps the other page, too; a device stores there. */
static void fault_then_dma(struct world *w)
{
	world_load(w, 0, SHARED_AT);
	world_dma(w, 0, SHARED_AT + PAGE, 0, 1);
}

/* The file ends in the middle of its unit. */
static void truncate_one(struct world *w)
{
	world_truncate(w, 1);
}

static void unmap_private(struct world *w)
{
	mm_unmap(w->mm[0], ANON_AT, PAGE);
	w->anon_mapped[0] = false;
}

static void remap_private(struct world *w)
{
	mm_remap(w->mm[0], ANON_AT, PAGE, ANON_AT + PAGE);
	mm_remap(w->mm[0], ANON_AT + PAGE, PAGE, ANON_AT);
}

/* What is pinned is nobody else's, however much memory others take. */
static void fast_private(struct world *w)
{
	struct folio *others[FRAMES];
	struct cache_stats stats;
	unsigned n = 0;
	uint32_t frame;

	if (!mm_pin_fast(w->mm[0], ANON_AT, true, &frame))
		return;
	explore_point("the device stores");
	cache_get_stats(w->cache, &stats);
	for (unsigned most = (unsigned)((stats.limit - stats.used) / PAGE); n < most; n++)
		if (cache_private_new(w->cache, &others[n]) < 0)
			break;
	for (unsigned i = 0; i < n; i++)
		explore_check(folio_frame(w->cache, others[i]) != frame, "a pinned frame was given to somebody else (R4)");
	while (n--)
		folio_put(w->cache, others[n]);
	mm_unpin(w->mm[0], &frame, 1, PIN_FOR_WRITE);
}

/* A device that is to read from a private copy of the file sees what the program stores there, whatever was mapped before. */
static void private_file(struct world *w)
{
	uint32_t frame;
	uint64_t v;

	if (mm_map(w->mm[0], COPY_AT, PAGE, VM_READ | VM_WRITE, w->file, 0, NULL) < 0)
		return;
	if (soft_load(w->mm[0], COPY_AT, &v) == 0 && mm_pin(w->mm[0], COPY_AT, 1, 0, &frame) == 0) {
		v = world_value(w);
		explore_check(soft_store(w->mm[0], COPY_AT, v) == 0, "a pinned page can't be stored to");
		explore_check(soft_dma_load(w->cache, frame, 0) == v, "a device reads what the program has no more (R11)");
		mm_unpin(w->mm[0], &frame, 1, 0);
	}
	mm_unmap(w->mm[0], COPY_AT, PAGE);
}

static void shrink(struct world *w)
{
	cache_shrink(w->cache);
}

const struct actor private_actors[] = {
	{"munmap-private", unmap_private, false, true, false, "R4 R10"},
	{"mremap-private", remap_private, false, true, false, "R6 R7"},
	{"fast-private", fast_private, false, true, false, "R4 R10"},
	{"private-file", private_file, false, true, false, "R11"},
	{"shrink", shrink, false, false, false, "R4"},
};
const unsigned private_actor_count = ARRAY_SIZE(private_actors);

static void move_out(struct world *w)
{
	world_move(w, true);
}

static void move_out_and_back(struct world *w)
{
	world_move(w, true);
	world_read(w, 1);
	world_move(w, false);
}

static void process_loads(struct world *w)
{
	process_load(w, 0);
}

static void process_stores(struct world *w)
{
	process_store(w, 0);
}

static void process_stores_twice(struct world *w)
{
	process_store(w, 0);
	process_store(w, 0);
}

static void process_direct_read(struct world *w)
{
	process_dma(w, 0, 1);
}

/* The second one finds the page as the first has left it. */
static void process_direct_reads(struct world *w)
{
	process_dma(w, 0, 1);
	process_dma(w, 0, 1);
}

static void process_long_pin(struct world *w)
{
	process_dma(w, 0, 2);
}

static void process_direct_write(struct world *w)
{
	process_dma_load(w, 0);
}

const struct actor process_actors[] = {
	{"process-load", process_loads, false, false, false, "R6 R9"},
	{"process-store", process_stores, false, false, false, "R1 R2"},
	{"process-store-twice", process_stores_twice, false, false, false, "R1 R2"},
	{"process-read", process_direct_read, false, false, false, "R1 R2 R3 R4 R10"},
	{"process-reads", process_direct_reads, false, false, false, "R1 R2 R3 R4 R10"},
	{"process-long-pin", process_long_pin, false, false, false, "R2 R3 R4 R5"},
	{"process-write", process_direct_write, false, false, false, "R4 R10"},
};
const unsigned process_actor_count = ARRAY_SIZE(process_actors);

/* One moves it at a time: they are in no scenario together. */
const struct actor moving_actors[] = {
	{"move", move_out, false, false, false, "R4"},
	{"move-back", move_out_and_back, false, false, false, "R4"},
};
const unsigned moving_actor_count = ARRAY_SIZE(moving_actors);

const struct actor page_actors[] = {
	{"page-write", page_write, false, false, false, "R1 R2 R13"},
	{"page-write-other", page_write_other, false, false, false, "R1 R2 R13"},
	{"fault-both", fault_both, false, false, false, "R6 R7 R9"},
	{"fault-then-dma", fault_then_dma, false, false, false, "R1 R10"},
	{"truncate-one", truncate_one, false, false, false, "R5"},
};
const unsigned page_actor_count = ARRAY_SIZE(page_actors);

const struct actor *actor_find(const char *name)
{
	for (unsigned i = 0; i < private_actor_count; i++)
		if (!strcmp(private_actors[i].name, name))
			return &private_actors[i];
	for (unsigned i = 0; i < process_actor_count; i++)
		if (!strcmp(process_actors[i].name, name))
			return &process_actors[i];
	for (unsigned i = 0; i < moving_actor_count; i++)
		if (!strcmp(moving_actors[i].name, name))
			return &moving_actors[i];
	for (unsigned i = 0; i < page_actor_count; i++)
		if (!strcmp(page_actors[i].name, name))
			return &page_actors[i];
	for (unsigned i = 0; i < actor_count; i++)
		if (!strcmp(actors[i].name, name))
			return &actors[i];
	for (unsigned i = 0; i < failing_actor_count; i++)
		if (!strcmp(failing_actors[i].name, name))
			return &failing_actors[i];
	fprintf(stderr, "there is no actor '%s'\n", name);
	exit(2);
}
