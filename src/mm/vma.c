/* SPDX-License-Identifier: MIT */
/*
 * Address ranges. The mm lock is a leaf: what is needed is allocated before it is taken, what is dropped is freed after,
 * and who uses a range without it has a reference and its sequence count.
 */
#include "mm/internal.h"

/* One address space may pin this part of the memory for long: what is pinned can't be reclaimed. */
#define LONGTERM_SHARE 8

const char *fault_result_name(enum fault_result result)
{
	static const char *const names[] = {"LOCKED", "NOPAGE", "RETRY", "SIGBUS", "OOM"};

	return names[result];
}

int mm_new(struct cache *cache, const struct mmu_ops *mmu, void *context, struct mm **ret)
{
	struct mm *mm = mem_alloc(sizeof(*mm));
	struct cache_stats stats;

	if (!mm)
		return -ENOMEM;
	mm->cache = cache;
	mm->mmu = mmu;
	mm->context = context;
	cache_get_stats(cache, &stats);
	mm->longterm_limit = (stats.limit >> CACHE_PAGE_SHIFT) / LONGTERM_SHARE;
	mm->top = table_new();
	if (!mm->top) {
		mem_free(mm);
		return -ENOMEM;
	}
	mutex_init(&mm->lock, LOCK_MM);
	*ret = mm;
	return 0;
}

void *mm_context(const struct mm *mm)
{
	return mm->context;
}

void mm_free(struct mm *mm)
{
	if (!mm)
		return;
	mm_unmap(mm, 0, UINT64_MAX & ~(CACHE_PAGE_SIZE - 1));
	table_free(mm->top, MM_LEVELS - 1);
	mutex_destroy(&mm->lock);
	mem_free(mm);
}

/* ---- the treap: a binary tree by start, a heap by weight ---- */

static void tree_split(struct vma *t, uint64_t start, struct vma **ret_less, struct vma **ret_rest)
{
	if (!t) {
		*ret_less = *ret_rest = NULL;
	} else if (t->start < start) {
		tree_split(t->right, start, &t->right, ret_rest);
		*ret_less = t;
	} else {
		tree_split(t->left, start, ret_less, &t->left);
		*ret_rest = t;
	}
}

static struct vma *tree_join(struct vma *less, struct vma *rest)
{
	if (!less || !rest)
		return less ? less : rest;
	if (less->weight > rest->weight) {
		less->right = tree_join(less->right, rest);
		return less;
	}
	rest->left = tree_join(less, rest->left);
	return rest;
}

static void tree_insert_locked(struct mm *mm, struct vma *vma)
{
	struct vma *less, *rest;

	mm->weights = mm->weights * 1664525u + 1013904223u;
	vma->weight = mm->weights;
	vma->left = vma->right = NULL;
	tree_split(mm->ranges, vma->start, &less, &rest);
	/* The node's own weight keeps the heap: join sinks it to its place. */
	mm->ranges = tree_join(tree_join(less, vma), rest);
}

static void tree_remove_locked(struct mm *mm, struct vma *vma)
{
	struct vma **p = &mm->ranges;

	while (*p != vma)
		p = vma->start < (*p)->start ? &(*p)->left : &(*p)->right;
	*p = tree_join(vma->left, vma->right);
	vma->left = vma->right = NULL;
}

struct vma *vma_next_locked(struct mm *mm, uint64_t addr)
{
	struct vma *v = mm->ranges, *best = NULL;

	while (v) {
		if (v->end > addr) {
			best = v;
			v = v->left;
		} else {
			v = v->right;
		}
	}
	return best;
}

struct vma *vma_find_locked(struct mm *mm, uint64_t addr)
{
	struct vma *v = vma_next_locked(mm, addr);

	return v && v->start <= addr ? v : NULL;
}

/* ---- one range ---- */

void vma_get(struct vma *vma)
{
	a32_fetch_add(&vma->refs, 1);
}

void vma_put(struct vma *vma)
{
	if (a32_fetch_add(&vma->refs, (uint32_t)-1) == 1)
		mem_free(vma);
}

/* The part of the range that maps these pages. False: none. */
static bool rmap_addresses(struct cache_rmap *r, uint64_t page, unsigned count, uint64_t *ret_start, uint64_t *ret_end)
{
	struct vma *vma = (struct vma *)((char *)r - offsetof(struct vma, rmap));

	*ret_start = vma->start + ((page - r->first) << CACHE_PAGE_SHIFT);
	*ret_end = *ret_start + ((uint64_t)count << CACHE_PAGE_SHIFT);
	return count != 0;
}

static void rmap_mkclean(struct cache_rmap *r, uint64_t page, unsigned count)
{
	struct vma *vma = (struct vma *)((char *)r - offsetof(struct vma, rmap));
	uint64_t start, end;

	if (vma->flags & VM_SHARED && rmap_addresses(r, page, count, &start, &end))
		table_wrprotect(vma->mm, start, end);
}

/* Private copies stay: they are the process's own. */
static void rmap_zap(struct cache_rmap *r, uint64_t page, unsigned count)
{
	struct vma *vma = (struct vma *)((char *)r - offsetof(struct vma, rmap));
	uint64_t start, end;

	if (rmap_addresses(r, page, count, &start, &end))
		table_zap_file(vma->mm, start, end);
}

static const struct cache_rmap_ops rmap_ops = {.mkclean = rmap_mkclean, .zap = rmap_zap};

struct vma *vma_new(struct mm *mm, uint64_t start, uint64_t end, unsigned flags, struct cache_mapping *mapping,
	uint64_t page, const struct mm_xip *xip)
{
	struct vma *vma = mem_alloc(sizeof(*vma));

	if (!vma)
		return NULL;
	vma->mm = mm;
	vma->start = start;
	vma->end = end;
	vma->flags = flags;
	vma->mapping = mapping;
	vma->page = page;
	if (xip)
		vma->xip = *xip;
	a32_set(&vma->refs, 1);
	vma->rmap = (struct cache_rmap){.ops = &rmap_ops, .mapping = mapping, .first = page,
		.count = (end - start) >> CACHE_PAGE_SHIFT};
	return vma;
}

/* Puts a range in; its reference becomes the tree's. First the way from the file to it, then the range: whatever is mapped can be cleaned and taken. */
int vma_insert(struct mm *mm, struct vma *vma)
{
	struct vma *next;
	int r = 0;

	if (vma->mapping)
		cache_rmap_add(&vma->rmap);
	mutex_lock(&mm->lock);
	next = vma_next_locked(mm, vma->start);
	if (next && next->start < vma->end)
		r = -EEXIST;
	else
		tree_insert_locked(mm, vma);
	mutex_unlock(&mm->lock);
	if (r < 0 && vma->mapping)
		cache_rmap_remove(&vma->rmap);
	return r;
}

/* Does it lie where the tables reach, and can its pages be counted by an unsigned int? */
static bool range_fits(uint64_t addr, uint64_t len)
{
	const uint64_t end = 1ull << (MM_LEVELS * MM_TABLE_SHIFT + CACHE_PAGE_SHIFT);

	return len && !(addr % CACHE_PAGE_SIZE) && !(len % CACHE_PAGE_SIZE) && addr < end && len <= end - addr &&
		len >> CACHE_PAGE_SHIFT <= INT32_MAX;
}

int mm_map(struct mm *mm, uint64_t addr, uint64_t len, unsigned flags, struct cache_mapping *mapping, uint64_t page,
	const struct mm_xip *xip)
{
	struct vma *vma;
	int r;

	if (!range_fits(addr, len))
		return -EINVAL;
	if (page > (UINT64_MAX >> CACHE_PAGE_SHIFT) - (len >> CACHE_PAGE_SHIFT))
		return -EOVERFLOW;
	vma = vma_new(mm, addr, addr + len, flags, mapping, page, xip);
	if (!vma)
		return -ENOMEM;
	vma_get(vma);
	r = vma_insert(mm, vma);
	if (r < 0)
		vma_put(vma);
	else
		xip_populate(vma);
	vma_put(vma);
	return r;
}

/* ---- taking away and changing ---- */

/*
 * A range never changes: it is replaced. Meanwhile it stays in the tree, busy, so that nothing else comes to its
 * addresses, and faults in it begin again; its sequence count tells those that are on their way.
 */

void vma_wait(struct vma *vma)
{
	while (a32_read_acquire(&vma->busy))
		a32_wait(&vma->busy, 1);
}

/* Faults that saw the range as it was may be telling the back end right now: what comes after must come after that. */
static void wait_for_installs(struct vma *vma)
{
	uint32_t n = a32_fetch_or(&vma->installing, INSTALL_WAITER) | INSTALL_WAITER;

	while (n != INSTALL_WAITER) {
		a32_wait(&vma->installing, n);
		n = a32_read_acquire(&vma->installing);
	}
	a32_fetch_and(&vma->installing, ~INSTALL_WAITER);
}

struct vma *change_begin(struct mm *mm, uint64_t start, uint64_t end)
{
	for (;;) {
		struct vma *vma;

		mutex_lock(&mm->lock);
		vma = vma_next_locked(mm, start);
		if (!vma || vma->start >= end) {
			mutex_unlock(&mm->lock);
			return NULL;
		}
		vma_get(vma);
		if (!a32_read(&vma->busy)) {
			a32_set(&vma->busy, 1);
			a32_set(&vma->seq, a32_read(&vma->seq) + 1);
			mutex_unlock(&mm->lock);
			wait_for_installs(vma);
			return vma;
		}
		mutex_unlock(&mm->lock);
		vma_wait(vma);
		vma_put(vma);
	}
}

/* Called with the mm lock; who sleeps looks the range up again. */
static void change_over(struct vma *vma)
{
	a32_set_release(&vma->busy, 0);
	a32_wake(&vma->busy, UINT32_MAX);
}

void change_give_up(struct mm *mm, struct vma *vma)
{
	mutex_lock(&mm->lock);
	change_over(vma);
	mutex_unlock(&mm->lock);
	vma_put(vma);
}

/* What takes a range's place, up to three. */
struct parts {
	struct vma *vma[3];
	unsigned count;
};

static int parts_add(struct parts *p, const struct vma *old, uint64_t start, uint64_t end, unsigned flags, uint64_t at)
{
	struct vma *v;

	if (start >= end)
		return 0;
	v = vma_new(old->mm, at, at + (end - start), flags, old->mapping, vma_page(old, start), &old->xip);
	if (!v)
		return -ENOMEM;
	if (v->mapping)
		cache_rmap_add(&v->rmap);
	p->vma[p->count++] = v;
	return 0;
}

static void parts_drop(struct parts *p)
{
	for (unsigned i = 0; i < p->count; i++) {
		if (p->vma[i]->mapping)
			cache_rmap_remove(&p->vma[i]->rmap);
		vma_put(p->vma[i]);
	}
}

/* The parts come into the tree, the old range goes, with the reference of change_begin(). */
static void change_end(struct mm *mm, struct vma *old, struct parts *p)
{
	mutex_lock(&mm->lock);
	tree_remove_locked(mm, old);
	for (unsigned i = 0; i < p->count; i++)
		tree_insert_locked(mm, p->vma[i]);
	change_over(old);
	mutex_unlock(&mm->lock);
	if (old->mapping)
		cache_rmap_remove(&old->rmap);
	vma_put(old); /* the tree's */
	vma_put(old);
}

/* keep: the middle stays, with other flags; else it is unmapped. */
static int change_one(struct mm *mm, struct vma *old, uint64_t from, uint64_t to, bool keep, unsigned flags)
{
	struct parts parts = {0};
	int r;

	from = MAX(from, old->start);
	to = MIN(to, old->end);
	r = parts_add(&parts, old, old->start, from, old->flags, old->start);
	if (r == 0 && keep)
		r = parts_add(&parts, old, from, to, flags | (old->flags & ~(unsigned)(VM_READ | VM_WRITE)), from);
	if (r == 0)
		r = parts_add(&parts, old, to, old->end, old->flags, to);
	if (r < 0) {
		parts_drop(&parts);
		change_give_up(mm, old);
		return r;
	}
	if (!keep)
		table_zap(mm, from, to);
	else if (!(flags & VM_WRITE))
		table_wrprotect(mm, from, to);
	change_end(mm, old, &parts);
	return 0;
}

static int change_range(struct mm *mm, uint64_t addr, uint64_t len, bool keep, unsigned flags)
{
	uint64_t end = addr + len;
	struct vma *vma;

	if (addr % CACHE_PAGE_SIZE || len % CACHE_PAGE_SIZE || end < addr)
		return -EINVAL;
	while (addr < end && (vma = change_begin(mm, addr, end))) {
		uint64_t next = vma->end;
		int r = change_one(mm, vma, addr, end, keep, flags);

		if (r < 0)
			return r;
		addr = next;
	}
	return 0;
}

int mm_unmap(struct mm *mm, uint64_t addr, uint64_t len)
{
	return change_range(mm, addr, len, false, 0);
}

int mm_protect(struct mm *mm, uint64_t addr, uint64_t len, unsigned flags)
{
	if (flags & ~(unsigned)VM_WRITE & ~(unsigned)VM_READ || !(flags & VM_READ))
		return -EINVAL;
	return change_range(mm, addr, len, true, flags);
}

int mm_remap(struct mm *mm, uint64_t addr, uint64_t len, uint64_t to)
{
	struct vma *old = change_begin(mm, addr, addr + len), *next;
	struct parts parts = {0};
	int r = 0;

	if (!old)
		return -EFAULT;
	if (old->start != addr || old->end != addr + len || !range_fits(to, len))
		r = -EINVAL;
	if (r == 0)
		r = parts_add(&parts, old, old->start, old->end, old->flags, to);
	if (r == 0)
		r = table_reserve_range(mm, to, to + len);
	if (r == 0) {
		/* Its new place is taken now, and busy until its private pages have moved. */
		a32_set(&parts.vma[0]->busy, 1);
		mutex_lock(&mm->lock);
		next = vma_next_locked(mm, to);
		if (next && next->start < to + len)
			r = -EEXIST;
		else
			tree_insert_locked(mm, parts.vma[0]);
		mutex_unlock(&mm->lock);
	}
	if (r < 0) {
		parts_drop(&parts);
		change_give_up(mm, old);
		return r;
	}
	table_move(mm, addr, addr + len, to);
	mutex_lock(&mm->lock);
	change_over(parts.vma[0]);
	mutex_unlock(&mm->lock);
	parts.count = 0;
	change_end(mm, old, &parts);
	return 0;
}
