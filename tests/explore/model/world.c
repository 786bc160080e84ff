/* SPDX-License-Identifier: MIT */
#include "model/world.h"

#include "base/mem.h"
#include "model/process.h"

struct variants explore_variants;

/* ---- the oracle: values of a word ---- */

static struct value *word_add(struct world *w, struct word *word, uint64_t v)
{
	unsigned at = word->count;

	/* The oldest that is gone makes room. */
	for (unsigned i = 0; at == VALUES && i < VALUES; i++)
		if (word->values[i].died != UINT32_MAX)
			at = i;
	explore_check(at < VALUES, "the oracle has no room for more values");
	word->values[at] = (struct value){.v = v, .born = w->now, .died = UINT32_MAX};
	if (at == word->count)
		word->count++;
	return &word->values[at];
}

/* From now on it has only this value; or, while the page leaves, perhaps this one. */
static void word_set(struct world *w, struct page_model *p, struct word *word, uint64_t v)
{
	w->now++;
	for (unsigned i = 0; !p->leaving && i < word->count; i++)
		if (word->values[i].died == UINT32_MAX && !word->values[i].pending)
			word->values[i].died = w->now;
	word_add(w, word, v);
}

static bool word_may_be(const struct word *word, uint64_t v)
{
	for (unsigned i = 0; i < word->count; i++)
		if (word->values[i].v == v && word->values[i].died == UINT32_MAX)
			return true;
	return false;
}

/* Was it the value at some time after `since`? */
static bool word_was(const struct word *word, uint64_t v, uint32_t since)
{
	for (unsigned i = 0; i < word->count; i++)
		if (word->values[i].v == v && word->values[i].died > since)
			return true;
	return false;
}

static void word_is(struct world *w, struct page_model *p, struct word *word, uint64_t v, const char *who)
{
	explore_check(word_may_be(word, v), "%s sees %ju, which is not what is there", who, (uintmax_t)v);
	if (p->leaving)
		return;
	/* Now it is known which one, but for what is still on its way. */
	w->now++;
	for (unsigned i = 0; i < word->count; i++)
		if (word->values[i].v != v && word->values[i].died == UINT32_MAX && !word->values[i].pending)
			word->values[i].died = w->now;
}

static void page_leaves(struct world *w, struct page_model *p)
{
	w->now++;
	p->generation++;
	p->leaving++;
	for (unsigned k = 0; k < WORDS; k++) {
		for (unsigned i = 0; i < p->words[k].count; i++)
			p->words[k].values[i].before = true;
		word_add(w, &p->words[k], 0);
	}
}

static void page_left(struct world *w, struct page_model *p)
{
	w->now++;
	p->leaving--;
	for (unsigned k = 0; k < WORDS; k++) {
		struct word *word = &p->words[k];

		for (unsigned i = 0; i < word->count; i++) {
			if (!p->leaving && word->values[i].before && word->values[i].died == UINT32_MAX)
				word->values[i].died = w->now;
			if (!p->leaving)
				word->values[i].before = false;
		}
	}
}

uint64_t world_value(struct world *w)
{
	return ++w->stored + 100;
}

/* The page that an address is, and the place in it. */
static struct page_model *model_of(struct world *w, unsigned space, uint64_t addr)
{
	if (addr >= ANON_AT)
		return &w->anon[space];
	return &w->file_pages[(addr - (addr >= MOVED_AT ? MOVED_AT : SHARED_AT)) / PAGE];
}

/* Does a page of the file lie behind its end, and every truncation is over? */
static bool beyond_end(const struct world *w, const struct page_model *p)
{
	return p >= w->file_pages + w->pages && p < w->file_pages + PAGES && !p->leaving;
}

void world_observe(void *context, uint64_t addr, bool write, uint64_t value)
{
	struct observer *o = context;
	struct page_model *p;
	struct word *word;

	/* Private to who maps it: that one checks it. */
	if (addr >= COPY_AT && addr < COPY_AT + PAGE)
		return;
	p = model_of(o->w, o->space, addr);
	word = &p->words[addr % PAGE / 8];
	explore_check(!beyond_end(o->w, p), "a program gets at a page behind the end of the file");
	if (write) {
		explore_note("stores %ju", (uintmax_t)value);
		word_set(o->w, p, word, value);
	} else {
		explore_note("loads %ju", (uintmax_t)value);
		word_is(o->w, p, word, value, "a load");
	}
}

/* ---- the file's owner ---- */

static void owner_read(void *owner, uint64_t first, unsigned count, struct cache_fill *fills)
{
	struct world *w = owner;
	unsigned pages = w->unit / PAGE;

	explore_point("reads the disk");
	for (unsigned i = 0; i < count; i++) {
		if (w->owner.fail_reads) {
			w->owner.fail_reads--;
			fills[i].error = -EIO;
		} else if (w->owner.short_reads) {
			w->owner.short_reads--;
			fills[i].len = 8;
		}
		if (fills[i].error || fills[i].len < w->unit) {
			w->owner.reads_failed++;
			w->owner.failed_by[explore_self()]++;
		}
		if (!fills[i].error)
			memcpy(fills[i].data, w->owner.disk[(first + i) * pages], fills[i].len);
	}
}

static int owner_mkwrite(void *owner, uint64_t page, unsigned count)
{
	struct world *w = owner;

	explore_point("mkwrite: reserves space");
	if (w->owner.no_space) {
		w->owner.no_space--;
		w->owner.refused++;
		return -ENOSPC;
	}
	for (unsigned i = 0; i < count; i++) {
		w->owner.reserved[page + i]++;
		w->owner.moved[page + i] = true;
	}
	return 0;
}

static void owner_mkwrite_undo(void *owner, uint64_t page, unsigned count)
{
	struct world *w = owner;

	explore_point("gives space back");
	for (unsigned i = 0; i < count; i++)
		explore_check(w->owner.reserved[page + i]-- > 0, "page %ju gives back what was not reserved",
			(uintmax_t)page + i);
}

/* Checksums, then writes: the bytes must be the same both times (R2), and the space was reserved before (R1). */
static int owner_writeback(void *owner, const struct cache_write *write)
{
	struct world *w = owner;
	uint64_t seen[PAGES][WORDS];

	for (unsigned i = 0; i < write->count; i++)
		memcpy(seen[i], write->data[i], PAGE);
	explore_note("checksums %u pages from %ju", write->count, (uintmax_t)write->page);
	explore_point("writes the disk");
	for (unsigned i = 0; i < write->count; i++) {
		explore_check(!memcmp(seen[i], write->data[i], PAGE),
			"page %ju changed between its checksum and its writing (R2)", (uintmax_t)write->page + i);
		explore_check(w->owner.reserved[write->page + i] > 0,
			"page %ju is written, but mkwrite was never asked (R1)", (uintmax_t)write->page + i);
	}
	if (w->owner.fail_writes) {
		w->owner.fail_writes--;
		w->owner.writes_failed++;
		return -EIO;
	}
	if (w->owner.torn_writes) {
		/* Of several pages the first one arrives, of one its first word. */
		w->owner.torn_writes--;
		w->owner.writes_failed++;
		memcpy(w->owner.disk[write->page], write->data[0], write->count > 1 ? PAGE : 8);
		return -EIO;
	}
	for (unsigned i = 0; i < write->count; i++) {
		memcpy(w->owner.disk[write->page + i], write->data[i], PAGE);
		w->owner.reserved[write->page + i]--;
	}
	return 0;
}

static void owner_cut(void *owner, uint64_t from, uint64_t to)
{
	struct world *w = owner;

	explore_point("drops the file's bytes");
	for (uint64_t p = from / PAGE; p < PAGES && p * PAGE < to; p++) {
		memset(w->owner.disk[p], 0, PAGE);
		w->owner.moved[p] = true;
	}
}

static bool owner_in_place(void *owner, uint64_t page)
{
	struct world *w = owner;

	return !w->owner.moved[page];
}

static const struct cache_ops file_ops = {
	.read = owner_read,
	.mkwrite = owner_mkwrite,
	.mkwrite_undo = owner_mkwrite_undo,
	.writeback = owner_writeback,
	.cut = owner_cut,
};
static const struct cache_ops xip_ops = {
	.read = owner_read,
	.mkwrite = owner_mkwrite,
	.mkwrite_undo = owner_mkwrite_undo,
	.writeback = owner_writeback,
	.cut = owner_cut,
	.in_place = owner_in_place,
};

/* ---- the software MMU, but a back end that needs memory for pages of a file ---- */

static int world_install(struct mm *mm, uint64_t addr, struct mmu_page page, bool writable)
{
	if (addr < COPY_AT && page.frame != FRAME_NONE) {
		void *p = mem_alloc(8);

		if (!p)
			return -ENOMEM;
		mem_free(p);
	}
	return soft_mmu_ops.install(mm, addr, page, writable);
}

static void world_protect(struct mm *mm, uint64_t addr, unsigned pages)
{
	soft_mmu_ops.protect(mm, addr, pages);
}

/*
 * As with userfaultfd: from a process that maps memory outside only the right to store can be taken. Loads go on until that memory
 * is cleared.
 */
static void world_zap(struct mm *mm, uint64_t addr, unsigned pages)
{
	const struct observer *o = soft_mmu_context(mm_context(mm));

	if (o->w->outside && addr < COPY_AT)
		soft_mmu_ops.protect(mm, addr, pages);
	else
		soft_mmu_ops.zap(mm, addr, pages);
}

/* ---- memory outside the arena ---- */

/* A hole in a memfd. What a device has pinned is its own from now on: see world_dma(). */
static void world_clear(void *context, uint64_t page, unsigned count)
{
	struct world *w = context;

	explore_point("clears the memory");
	explore_note("clears %u pages from %ju", count, (uintmax_t)page);
	for (unsigned s = 0; s < SPACES; s++) {
		if (!w->mm[s])
			continue;
		soft_mmu_ops.zap(w->mm[s], SHARED_AT + page * PAGE, count);
		soft_mmu_ops.zap(w->mm[s], MOVED_AT + page * PAGE, count);
	}
	process_clear(w, page, count);
	memset(w->memory[page], 0, count * PAGE);
}


static const struct mmu_ops world_mmu = {.install = world_install, .protect = world_protect, .zap = world_zap};

/* ---- beginning and end ---- */

static int space_new(struct world *w, unsigned space)
{
	struct soft_options o = {
		.base = WINDOW_AT,
		.pages = WINDOW_PAGES,
		.image = (const uint8_t *)w->image,
		.observe = world_observe,
		.context = &w->observers[space],
	};

	w->observers[space] = (struct observer){w, space};
	return soft_mmu_new(&o, &w->mmu[space]);
}

static void take_memory(struct world *w, unsigned spare)
{
	struct cache_stats stats;

	cache_get_stats(w->cache, &stats);
	assert(stats.limit == FRAMES * PAGE);
	for (unsigned i = 0, n = (unsigned)((stats.limit - stats.used) / PAGE); i + spare < n; i++)
		explore_check(cache_private_new(w->cache, &w->ballast[i]) == 0, "no memory");
}

void world_begin(struct world *w, const struct world_options *o)
{
	struct cache_options co = {.limit = FRAMES * PAGE};
	const struct mm_xip xip = {.valid = o->xip};
	struct cache_ref ref;

	mutex_init(&w->inode, LOCK_INODE);
	mutex_init(&w->guard, LOCK_TEST);
	explore_name(&w->inode, sizeof(w->inode), "the inode lock");
	w->pages = PAGES;
	w->unit = o->one_unit ? PAGES * PAGE : PAGE;
	for (unsigned p = 0; p < PAGES; p++) {
		for (unsigned k = 0; k < WORDS; k++) {
			w->owner.disk[p][k] = w->image[p][k] = 10 * (p + 1) + k;
			word_set(w, &w->file_pages[p], &w->file_pages[p].words[k], w->owner.disk[p][k]);
		}
	}
	for (unsigned k = 0; k < WORDS; k++)
		word_set(w, &w->anon[0], &w->anon[0].words[k], 0);
	explore_check(cache_new(&co, &w->cache) == 0 &&
		cache_mapping_new(w->cache, o->xip ? &xip_ops : &file_ops, w, w->unit, PAGES * PAGE, 0, &w->file) == 0,
		"no memory");
	explore_check(space_new(w, 0) == 0 && mm_new(w->cache, &world_mmu, w->mmu[0], &w->mm[0]) == 0 &&
		mm_map(w->mm[0], SHARED_AT, PAGES * PAGE, VM_READ | VM_WRITE | VM_SHARED | (o->around ? 0 : VM_RANDOM), w->file, 0,
			&xip) == 0 &&
		mm_map(w->mm[0], ANON_AT, PAGE, VM_READ | VM_WRITE, NULL, 0, NULL) == 0, "no memory");
	w->anon_mapped[0] = true;
	w->outside = o->outside;
	if (w->outside)
		world_move(w, true);
	if (o->process)
		process_begin(w);
	for (unsigned p = 0; o->populate && p < PAGES; p += w->unit / PAGE) {
		explore_check(cache_get(w->file, p * PAGE / w->unit, &ref) == 0, "can't read");
		cache_put(w->file, &ref, CACHE_KEEP);
	}
	/* What is populated when it is mapped comes by faults again after that. */
	if (o->xip) {
		mm_remap(w->mm[0], SHARED_AT, PAGES * PAGE, MOVED_AT);
		mm_remap(w->mm[0], MOVED_AT, PAGES * PAGE, SHARED_AT);
	}
	if (o->map)
		world_load(w, 0, SHARED_AT);
	if (o->dirty) {
		world_store(w, 0, SHARED_AT);
		world_store(w, 0, ANON_AT);
	}
	if (o->child)
		world_fork(w);
	if (o->shared_once) {
		world_fork(w);
		mm_free(w->mm[1]);
		soft_mmu_free(w->mmu[1]);
		w->mm[1] = NULL;
		w->mmu[1] = NULL;
		w->anon_mapped[1] = false;
	}
	if (o->tight)
		take_memory(w, o->spare);
	w->oom = o->oom;
}

static void check_disk(struct world *w, uint32_t since, const char *when)
{
	for (unsigned p = 0; p < PAGES; p++) {
		if (p * PAGE >= cache_size(w->file) || w->file_pages[p].leaving)
			continue;
		for (unsigned k = 0; k < WORDS; k++)
			explore_check(word_was(&w->file_pages[p].words[k], w->owner.disk[p][k], since),
				"%s, word %u of page %u is %ju on the disk: a store was lost", when, k, p,
				(uintmax_t)w->owner.disk[p][k]);
	}
}

void world_end(struct world *w)
{
	struct cache_stats stats;

	w->owner.fail_reads = w->owner.fail_writes = w->owner.no_space = 0;
	w->owner.short_reads = w->owner.torn_writes = 0;
	w->oom = false;
	/* What was stored is seen by all, and is on the disk after a sync. */
	for (unsigned p = 0; p < PAGES; p++)
		if (p * PAGE < cache_size(w->file))
			world_read(w, p);
	/* What nobody pins any more can be cleaned. */
	explore_check(cache_sync(w->file, 0, UINT64_MAX, NULL) == 0, "the last sync failed");
	check_disk(w, w->now, "at the end");
	if (w->process.mm)
		process_end(w);
	for (unsigned s = 0; s < SPACES; s++) {
		if (w->anon_mapped[s] && w->mm[s])
			explore_check(world_load(w, s, ANON_AT) == 0, "a private page is gone");
		mm_free(w->mm[s]);
		soft_mmu_free(w->mmu[s]);
		w->mm[s] = NULL;
	}
	for (unsigned i = 0; i < FRAMES; i++)
		if (w->ballast[i])
			folio_put(w->cache, w->ballast[i]);
	explore_check(!sync_violations(), "something slept under a lock that forbids it (R8)");
	cache_mapping_free(w->file);
	for (unsigned p = 0; p < PAGES; p++)
		explore_check(!w->owner.reserved[p], "page %u has %d reservations left", p, w->owner.reserved[p]);
	cache_get_stats(w->cache, &stats);
	explore_check(!stats.used && !stats.dirty, "%ju bytes of memory were not freed", (uintmax_t)stats.used);
	cache_free(w->cache);
	explore_check(!explore_blocks(), "%u allocations were not freed", explore_blocks());
}

/* ---- what actors do ---- */

int world_over(struct world *w, int r)
{
	uint8_t *failed = &w->owner.failed_by[MAX(explore_self(), 0)];

	explore_check(r != -ENOMEM || w->oom, "there is no memory, and nobody has taken it away");
	w->owner.reads_over += *failed;
	*failed = 0;
	return r;
}

/* R13: who hears of a failed read was there before the one who read it had heard of it. */
static int read_over(struct world *w, int r, unsigned before)
{
	explore_check(r != -EIO || w->owner.reads_failed > before, "a failed read is an error of those who come later");
	return world_over(w, r);
}

int world_load(struct world *w, unsigned space, uint64_t addr)
{
	uint64_t v;

	return world_over(w, soft_load(w->mm[space], addr, &v));
}

int world_store(struct world *w, unsigned space, uint64_t addr)
{
	return world_over(w, soft_store(w->mm[space], addr, world_value(w)));
}

void world_stored(struct world *w, struct page_model *p, unsigned word, uint64_t v, unsigned generation, bool leaving)
{
	if (p->generation == generation && !leaving)
		word_set(w, p, &p->words[word], v);
	else if (leaving || p->leaving)
		word_add(w, &p->words[word], v);
	/* It has left the file since: the store reaches nobody (R5). */
}

void world_loaded(struct world *w, struct page_model *p, unsigned word, uint64_t v)
{
	word_is(w, p, &p->words[word], v, "a device");
}

/* Was the page cleared since it was pinned? Then its folio has left the file, and nothing is in its place. */
static bool is_cleared(const struct world *w, uint32_t frame)
{
	const struct folio *f = frame_folio(w->cache, frame);

	return f->outside && !folio_attached(f, w->file);
}

int world_dma(struct world *w, unsigned space, uint64_t addr, unsigned flags, unsigned stores)
{
	struct page_model *p = model_of(w, space, addr);
	unsigned generation = p->generation;
	bool leaving = p->leaving, beyond = beyond_end(w, p);
	uint32_t frame;
	int r = world_over(w, mm_pin(w->mm[space], addr, 1, flags | PIN_FOR_WRITE, &frame));

	if (r < 0)
		return r;
	explore_check(!beyond || !beyond_end(w, p) || p->generation != generation, "a page behind the end is pinned");
	/* Pinned while it left the file: before or after, nobody knows. */
	leaving = leaving || p->generation != generation;
	generation = p->generation;
	while (stores--) {
		uint64_t v = world_value(w);

		explore_point("the device stores");
		/* What was cleared is its own; the place in memory may be another page's by now. */
		if (is_cleared(w, frame))
			continue;
		explore_note("stores %ju", (uintmax_t)v);
		soft_dma_store(w->cache, frame, (unsigned)(addr % PAGE), v);
		world_stored(w, p, (unsigned)(addr % PAGE / 8), v, generation, leaving);
	}
	mm_unpin(w->mm[space], &frame, 1, flags | PIN_FOR_WRITE);
	return 0;
}

int world_dma_load(struct world *w, unsigned space, uint64_t addr, bool store)
{
	struct page_model *p = model_of(w, space, addr);
	unsigned generation = p->generation;
	bool leaving = p->leaving;
	uint32_t frame;
	uint64_t v;
	int r = world_over(w, mm_pin(w->mm[space], addr, 1, 0, &frame));

	if (r < 0)
		return r;
	leaving = leaving || p->generation != generation;
	generation = p->generation;
	if (store)
		world_store(w, space, addr);
	explore_point("the device loads");
	if (is_cleared(w, frame)) {
		mm_unpin(w->mm[space], &frame, 1, 0);
		return 0;
	}
	v = soft_dma_load(w->cache, frame, (unsigned)(addr % PAGE));
	explore_note("loads %ju", (uintmax_t)v);
	if (!leaving && p->generation == generation)
		word_is(w, p, &p->words[addr % PAGE / 8], v, "a device");
	mm_unpin(w->mm[space], &frame, 1, 0);
	return 0;
}

void world_read(struct world *w, unsigned page)
{
	unsigned before = w->owner.reads_over;
	struct cache_ref ref;
	int r = read_over(w, cache_get(w->file, page * PAGE / w->unit, &ref), before);

	if (r < 0) {
		explore_check(r == -EIO || r == -ENOMEM, "a read fails with %d", r);
		return;
	}
	for (unsigned k = 0; k < WORDS && page * PAGE < cache_size(w->file); k++) {
		uint64_t v;

		/* What has left the file while it was referenced is as it was. */
		if (!folio_attached(ref.folio, w->file))
			break;
		memcpy(&v, ref.data + page * PAGE % w->unit + 8 * k, 8);
		word_is(w, &w->file_pages[page], &w->file_pages[page].words[k], v, "a read");
	}
	/* The second page is one that the kernel keeps. */
	cache_put(w->file, &ref, page ? CACHE_COLD : CACHE_KEEP);
}

/* Under the inode lock, so nothing leaves the file meanwhile; other words of the page may change. */
static void write_words(struct world *w, unsigned page, unsigned first, unsigned count, const uint64_t *values)
{
	struct word *words = &w->file_pages[page].words[first];
	unsigned before = w->owner.reads_over;
	struct value *mine[WORDS];
	bool written;

	/* They may be seen from some moment on in here; what was there before is gone afterwards. */
	w->now++;
	for (unsigned k = 0; k < count; k++) {
		mine[k] = word_add(w, &words[k], values[k]);
		mine[k]->pending = true;
	}
	w->pages = MAX(w->pages, page + 1);
	written = read_over(w, cache_write(w->file, page * PAGE + 8 * first, values, 8 * count, NULL), before) == 0;
	w->now++;
	for (unsigned k = 0; k < count; k++) {
		mine[k]->pending = false;
		for (unsigned i = 0; written && i < words[k].count; i++)
			if (words[k].values[i].born < mine[k]->born && words[k].values[i].died == UINT32_MAX)
				words[k].values[i].died = w->now;
		if (!written)
			mine[k]->died = mine[k]->born;
	}
	explore_check(!written || cache_size(w->file) >= page * PAGE + 8 * (first + count), "a write did not make the file longer");
}

void world_write_page(struct world *w, unsigned page)
{
	uint64_t values[WORDS];

	mutex_lock(&w->inode);
	for (unsigned k = 0; k < WORDS; k++)
		values[k] = world_value(w);
	write_words(w, page, 0, WORDS, values);
	mutex_unlock(&w->inode);
}

void world_write(struct world *w, unsigned page)
{
	uint64_t v;

	mutex_lock(&w->inode);
	v = world_value(w);
	write_words(w, page, 1, 1, &v);
	mutex_unlock(&w->inode);
}

void world_write_from_mapping(struct world *w, unsigned page)
{
	uint64_t v;

	mutex_lock(&w->inode);
	/* The kernel copies from the program's memory, and may have to fault it in. */
	if (world_over(w, soft_load(w->mm[0], SHARED_AT + page * PAGE, &v)) == 0)
		write_words(w, page, 1, 1, &v);
	mutex_unlock(&w->inode);
}

void world_open(struct world *w, struct world_file *ret)
{
	cache_errseq_sample(w->file, &ret->errors);
	/* What nobody has heard of is news for who opens the file now, too. */
	ret->before = 0;
	ret->after = w->owner.writes_failed;
}

void world_sync_file(struct world *w, struct world_file *f)
{
	unsigned failed = w->owner.writes_failed;
	uint32_t since = w->now;
	int r = world_over(w, cache_sync(w->file, 0, UINT64_MAX, &f->errors));

	explore_check(r < 0 || failed <= f->after, "a failed writeback is not heard of (R13)");
	explore_check(r == 0 || w->owner.writes_failed > f->before || w->owner.refused || w->oom,
		"a failed writeback is heard of twice (R13)");
	f->before = failed;
	f->after = w->owner.writes_failed;
	if (r == 0)
		check_disk(w, since, "after fsync");
}

void world_sync(struct world *w)
{
	struct world_file f;

	world_open(w, &f);
	world_sync_file(w, &f);
}

void world_truncate(struct world *w, unsigned pages)
{
	uint64_t old;

	mutex_lock(&w->inode);
	old = cache_size(w->file) / PAGE;
	w->pages = MAX(w->pages, pages);
	for (unsigned p = pages; p < old; p++)
		page_leaves(w, &w->file_pages[p]);
	cache_truncate(w->file, pages * PAGE);
	w->pages = pages;
	for (unsigned p = pages; p < old; p++)
		page_left(w, &w->file_pages[p]);
	mutex_unlock(&w->inode);
}

void world_punch(struct world *w, unsigned page)
{
	mutex_lock(&w->inode);
	page_leaves(w, &w->file_pages[page]);
	cache_punch(w->file, page, 1);
	page_left(w, &w->file_pages[page]);
	mutex_unlock(&w->inode);
}

void world_move(struct world *w, bool outside)
{
	struct cache_outside o = {.base = (uint8_t *)w->memory, .pages = PAGES, .clear = world_clear, .context = w};
	int r = world_over(w, cache_mapping_move(w->file, outside ? &o : NULL));

	explore_check(r == 0 || r == -EBUSY || r == -ENOMEM || (r == -EIO && w->owner.writes_failed) || (r == -ENOSPC && w->owner.refused),
		"moving the file fails with %d", r);
}

void world_fork(struct world *w)
{
	uint32_t since = w->now;

	if (world_over(w, space_new(w, 1)) < 0)
		return;
	if (world_over(w, mm_fork(w->mm[0], w->mmu[1], &w->mm[1])) < 0) {
		soft_mmu_free(w->mmu[1]);
		w->mmu[1] = NULL;
		return;
	}
	/* The child has what the parent had at some moment of the fork. */
	for (unsigned k = 0; k < WORDS; k++) {
		struct word *to = &w->anon[1].words[k];

		to->count = 0;
		for (unsigned i = 0; i < w->anon[0].words[k].count; i++)
			if (w->anon[0].words[k].values[i].died > since)
				word_add(w, to, w->anon[0].words[k].values[i].v);
	}
	w->anon_mapped[1] = true;
}
