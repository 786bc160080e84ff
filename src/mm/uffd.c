/* SPDX-License-Identifier: MIT */
#include "mm/uffd.h"

#include "mm/internal.h"
#include "mm/uffd_kernel.h"

/* So often a page that was faulted in may be gone again before it is pinned. */
#define PIN_TRIES 64u

enum {
	ENTRY_PRESENT = 1u << 0,
	ENTRY_WRITE = 1u << 1, /* the process may be able to store, also if it is no longer PRESENT: a pin has kept it so */
	ENTRY_POISON = 1u << 2,
	ENTRY_HELD_WRITE = 1u << 3, /* `held` is pinned for writing */
	ENTRY_OLD = 1u << 4,	    /* and others of the page's place are, in the range's list */
};

/* What we know of a page; the table is the process's to scribble in. */
struct entry {
	uint32_t frame; /* if PRESENT or WRITE */
	uint32_t held;	/* what its pins keep; FRAME_NONE */
	uint32_t flags;
};

/* A hold of a page that has left its place since. */
struct old_hold {
	uint64_t page;
	uint32_t frame;
	bool write;
};

struct range {
	uint64_t start, pages;
	bool writable;
	struct pinfs_page *table;
	struct entry *entries;
	struct old_hold *old;
	size_t old_count, old_size;
	struct range *next;
};

struct uffd_mmu {
	int fd;
	uint64_t holds_most;
	struct a32 lost; /* -errno, positive */
	struct mutex lock;    /* PROCESS, of all below; also while the kernel is told */
	struct range *ranges;
	uint64_t holds;
};

/* ---- telling it ---- */

static void lose(struct uffd_mmu *u, int error)
{
	uint32_t none = 0;

	a32_cas(&u->lost, &none, (uint32_t)-error);
}

/* What a call has said: 0, -EEXIST, -EFAULT, -ENOMEM; -ENOENT: the process has nothing there any more; -ESRCH: it is lost. */
static int told(struct uffd_mmu *u, int error)
{
	switch (error) {
	case 0:
	case -EEXIST:
	case -EFAULT:
	case -ENOMEM:
		return error;
	case -EINVAL:
	case -ENOENT:
		return -ENOENT;
	case -ESRCH:
		lose(u, -ESRCH);
		return -ESRCH;
	default:
		/* No userfaultfd at all, or one whose process never stops changing. */
		lose(u, -EPROTO);
		return -ESRCH;
	}
}

/* Who is gone is told nothing any more. Who has gone too far is, until it has been cut off: what it could store into must not be found clean. */
static bool gone(const struct uffd_mmu *u)
{
	uint32_t lost = a32_read(&u->lost);

	return lost && lost != EDQUOT;
}

#define TELL(u, call) (gone(u) ? -ESRCH : told((u), (call)))

/* off: the right to store is taken away; else given, and whoever waits goes on. */
static int tell_writable(struct uffd_mmu *u, uint64_t start, uint64_t pages, bool off)
{
	return TELL(u, uffd_kernel_protect(u->fd, start, pages, off));
}

static void tell_wake(struct uffd_mmu *u, uint64_t addr)
{
	TELL(u, uffd_kernel_wake(u->fd, addr));
}

/* ---- ranges ---- */

static struct range *range_find_locked(const struct uffd_mmu *u, uint64_t addr)
{
	for (struct range *r = u->ranges; r; r = r->next)
		if (addr >= r->start && addr - r->start < r->pages << CACHE_PAGE_SHIFT)
			return r;
	return NULL;
}

static uint64_t address_of(const struct range *r, uint64_t page)
{
	return r->start + (page << CACHE_PAGE_SHIFT);
}

int uffd_mmu_new(int fd, uint64_t holds_most, struct uffd_mmu **ret)
{
	struct uffd_mmu *u = mem_alloc(sizeof(*u));

	if (!u) {
		uffd_kernel_close(fd);
		return -ENOMEM;
	}
	u->fd = fd;
	u->holds_most = holds_most;
	mutex_init(&u->lock, LOCK_PROCESS);
	*ret = u;
	return 0;
}

static void range_free(struct range *r)
{
	if (!r)
		return;
	mem_free(r->entries);
	mem_free(r->old);
	mem_free(r);
}

void uffd_mmu_free(struct uffd_mmu *u)
{
	if (!u)
		return;
	assert(!u->ranges && !u->holds);
	uffd_kernel_close(u->fd);
	mutex_destroy(&u->lock);
	mem_free(u);
}

int uffd_fd(const struct uffd_mmu *u)
{
	return u->fd;
}

int uffd_lost(const struct uffd_mmu *u)
{
	return -(int)a32_read(&u->lost);
}

int uffd_range_add(struct uffd_mmu *u, uint64_t start, uint64_t pages, bool writable, struct pinfs_page *table)
{
	struct range *new = mem_alloc(sizeof(*new));
	bool free;

	if (new)
		new->entries = mem_alloc((size_t)pages * sizeof(*new->entries));
	if (!new || !new->entries) {
		range_free(new);
		return -ENOMEM;
	}
	new->start = start;
	new->pages = pages;
	new->writable = writable;
	new->table = table;
	for (uint64_t i = 0; i < pages; i++)
		new->entries[i].held = FRAME_NONE;
	mutex_lock(&u->lock);
	free = true;
	for (struct range *r = u->ranges; r && free; r = r->next)
		free = start >= address_of(r, r->pages) || address_of(new, pages) <= r->start;
	if (free) {
		new->next = u->ranges;
		u->ranges = new;
	}
	mutex_unlock(&u->lock);
	if (!free)
		range_free(new);
	return free ? 0 : -EEXIST;
}

/* ---- pins, and what they hold ---- */

/* Both words of an entry are shared with the process. */
_Static_assert(sizeof(struct a32) == sizeof(uint32_t), "an atomic word is a word");

/* The process's own count; and, as the daemon's half of R10, after the state was changed. */
static uint32_t pins_of(const struct range *r, uint64_t page)
{
	sync_mb();
	return a32_read_acquire((const struct a32 *)&r->table[page].pins);
}

static bool pins_write(uint32_t pins)
{
	return pins & ~PINFS_PAGE_READERS;
}

static void state_set(struct range *r, uint64_t page)
{
	const struct entry *e = &r->entries[page];
	uint32_t state = (e->flags & ENTRY_PRESENT ? PINFS_PAGE_PRESENT : 0) |
		(e->flags & ENTRY_PRESENT && e->flags & ENTRY_WRITE ? PINFS_PAGE_WRITE : 0) |
		(e->held != FRAME_NONE || e->flags & ENTRY_OLD ? PINFS_PAGE_HELD : 0);

	a32_set_release((struct a32 *)&r->table[page].state, state);
}

static bool hold_locked(struct uffd_mmu *u, struct cache *c, struct entry *e, bool write)
{
	if (e->held == e->frame && (!write || e->flags & ENTRY_HELD_WRITE))
		return true;
	if ((e->held != e->frame && u->holds >= u->holds_most) || frame_pin(c, e->frame, write) < 0) {
		lose(u, -EDQUOT);
		return false;
	}
	if (e->held == e->frame)
		frame_unpin(c, e->held, e->flags & ENTRY_HELD_WRITE);
	else
		u->holds++;
	e->held = e->frame;
	e->flags = (e->flags & ~ENTRY_HELD_WRITE) | (write ? (uint32_t)ENTRY_HELD_WRITE : 0);
	return true;
}

static void unhold_locked(struct uffd_mmu *u, struct cache *c, struct range *r, uint64_t page)
{
	struct entry *e = &r->entries[page];
	size_t kept = 0;

	if (e->held != FRAME_NONE) {
		frame_unpin(c, e->held, e->flags & ENTRY_HELD_WRITE);
		e->held = FRAME_NONE;
		e->flags &= ~ENTRY_HELD_WRITE;
		u->holds--;
	}
	for (size_t i = 0; e->flags & ENTRY_OLD && i < r->old_count; i++) {
		if (r->old[i].page != page) {
			r->old[kept++] = r->old[i];
			continue;
		}
		frame_unpin(c, r->old[i].frame, r->old[i].write);
		u->holds--;
	}
	if (e->flags & ENTRY_OLD)
		r->old_count = kept;
	e->flags &= ~(uint32_t)ENTRY_OLD;
}

/* Another page comes to the place of one that is held. */
static int hold_grows_old_locked(struct range *r, uint64_t page)
{
	struct entry *e = &r->entries[page];

	if (r->old_count == r->old_size) {
		size_t size = MAX(2 * r->old_size, (size_t)16);
		struct old_hold *larger = mem_alloc(size * sizeof(*larger));

		if (!larger)
			return -ENOMEM;
		if (r->old_count)
			memcpy(larger, r->old, r->old_count * sizeof(*larger));
		mem_free(r->old);
		r->old = larger;
		r->old_size = size;
	}
	r->old[r->old_count++] = (struct old_hold){page, e->held, e->flags & ENTRY_HELD_WRITE};
	e->held = FRAME_NONE;
	e->flags = (e->flags & ~(uint32_t)ENTRY_HELD_WRITE) | ENTRY_OLD;
	return 0;
}

/* What we know of the page. 0: nothing there. */
static uint32_t flags_at(struct uffd_mmu *u, uint64_t addr)
{
	uint32_t flags = 0;
	struct range *r;

	mutex_lock(&u->lock);
	r = range_find_locked(u, addr);
	if (r)
		flags = r->entries[(addr - r->start) >> CACHE_PAGE_SHIFT].flags;
	mutex_unlock(&u->lock);
	return flags;
}

int uffd_pin(struct mm *mm, uint64_t addr, unsigned flags)
{
	uint32_t need = ENTRY_PRESENT | (flags & PIN_FOR_WRITE ? (unsigned)ENTRY_WRITE : 0), frame;
	struct uffd_mmu *u = mm_context(mm);
	int r = mm_pin(mm, addr, 1, flags & (PIN_FOR_WRITE | PIN_NOWAIT), &frame);

	if (r < 0)
		return r;
	/* Ours keeps it from being cleaned or taken while we look. Our tables may have it while the process's are not told so far. */
	for (unsigned tries = 0; r == 0 && (flags_at(u, addr) & need) != need; tries++) {
		enum fault_result fault = flags & PIN_NOWAIT ? FAULT_RETRY : mm_fault(mm, addr, flags & PIN_FOR_WRITE);

		r = uffd_lost(u) ? uffd_lost(u) : fault == FAULT_NOPAGE ? 0 : fault == FAULT_RETRY ? -EAGAIN : fault == FAULT_OOM ? -ENOMEM : -EFAULT;
		/* The process has nothing there, or has not registered it. */
		if (r == 0 && tries == PIN_TRIES)
			r = -EFAULT;
	}
	mm_unpin(mm, &frame, 1, flags & PIN_FOR_WRITE);
	return r;
}

/* The kernel has no memory for it: the page can be stored to, and so it stays dirty, until somebody tries again. */
static void stays_writable_locked(struct uffd_mmu *u, struct cache *c, struct range *r, uint64_t page)
{
	struct entry *e = &r->entries[page];

	e->flags |= ENTRY_WRITE;
	hold_locked(u, c, e, true);
	state_set(r, page);
}

/* Nobody can store into these pages any more; of those that the process has no longer there is nothing to say. */
static void protect_run_locked(struct uffd_mmu *u, struct cache *c, struct range *r, uint64_t page, uint64_t count)
{
	int error = count ? tell_writable(u, address_of(r, page), count, true) : 0;

	if (error != -ENOENT && error != -ENOMEM)
		return;
	for (uint64_t i = page; i < page + count; i++)
		if (tell_writable(u, address_of(r, i), 1, true) == -ENOMEM)
			stays_writable_locked(u, c, r, i);
}

/*
 * Who writes the page back may just have seen that it is pinned, and so has left it writable: before the pin goes, so does that right. Then
 * it can be found clean.
 */
static void let_go_locked(struct uffd_mmu *u, struct cache *c, struct range *r, uint64_t page)
{
	struct entry *e = &r->entries[page];

	if (pins_of(r, page))
		return;
	if (e->held != FRAME_NONE && e->flags & ENTRY_WRITE) {
		e->flags &= ~(uint32_t)ENTRY_WRITE;
		state_set(r, page);
		if (pins_of(r, page)) {
			e->flags |= ENTRY_WRITE;
			state_set(r, page);
			return;
		}
		protect_run_locked(u, c, r, page, 1);
		if (e->flags & ENTRY_WRITE)
			return;
	}
	unhold_locked(u, c, r, page);
	state_set(r, page);
}

void uffd_unhold(struct uffd_mmu *u, struct cache *c, uint64_t addr, uint64_t pages)
{
	struct range *r;

	mutex_lock(&u->lock);
	r = range_find_locked(u, addr);
	for (uint64_t i = 0, page; r && i < pages; i++) {
		page = ((addr - r->start) >> CACHE_PAGE_SHIFT) + i;
		if (page >= r->pages)
			break;
		let_go_locked(u, c, r, page);
	}
	mutex_unlock(&u->lock);
}

void uffd_range_remove(struct uffd_mmu *u, struct cache *c, uint64_t start)
{
	struct range **p, *r;

	mutex_lock(&u->lock);
	for (p = &u->ranges; *p && (*p)->start != start; p = &(*p)->next)
		;
	r = *p;
	if (r) {
		*p = r->next;
		for (uint64_t page = 0; page < r->pages; page++)
			unhold_locked(u, c, r, page);
	}
	mutex_unlock(&u->lock);
	range_free(r);
}

/* ---- the back end ---- */

/* The process's table gets the page. -EEXIST: it has it. */
static int continue_page(struct uffd_mmu *u, struct mm *mm, const struct range *r, uint64_t addr, uint32_t frame, bool writable)
{
	bool off = r->writable && !writable;
	int e = TELL(u, uffd_kernel_continue(u->fd, addr, off));

	if (e != -EFAULT)
		return e;
	/* The process has punched a hole under us: what we touch is there again, and zero. */
	(void)*(volatile const uint8_t *)frame_data(mm->cache, frame);
	e = TELL(u, uffd_kernel_continue(u->fd, addr, off));
	if (e == -EFAULT)
		lose(u, -EPROTO);
	return e;
}

static int install_locked(struct uffd_mmu *u, struct mm *mm, struct range *r, uint64_t addr, uint32_t frame, bool writable)
{
	uint64_t page = (addr - r->start) >> CACHE_PAGE_SHIFT;
	struct entry *e = &r->entries[page];
	int error = e->held != FRAME_NONE && e->held != frame ? hold_grows_old_locked(r, page) : 0;

	if (error < 0)
		return error;
	writable = writable && r->writable;
	if (writable && e->flags & ENTRY_PRESENT && !(e->flags & ENTRY_WRITE) && e->frame == frame) {
		error = tell_writable(u, addr, 1, false);
	} else {
		/* Also what it has, as far as we know: it may have dropped it, or punched a hole. */
		error = continue_page(u, mm, r, addr, frame, writable);
		/* It was there all the time, without the right to store: nobody has taken it out of the memfd. */
		if (error == -EEXIST)
			error = writable ? tell_writable(u, addr, 1, false) : 0;
	}
	if (error == -ENOMEM)
		return error;
	/* Who had faulted on it, and found it there by now. */
	tell_wake(u, addr);
	if (error < 0)
		return -ENOENT;
	/* What was there was cleared, whoever could store into it. */
	if (e->frame != frame)
		e->flags &= ~(uint32_t)ENTRY_WRITE;
	e->frame = frame;
	e->flags = (e->flags & ~(uint32_t)ENTRY_POISON) | ENTRY_PRESENT | (writable ? (uint32_t)ENTRY_WRITE : 0);
	state_set(r, page);
	return 0;
}

static int uffd_install(struct mm *mm, uint64_t addr, struct mmu_page page, bool writable)
{
	struct uffd_mmu *u = mm_context(mm);
	struct range *r;
	int error = -ENOENT;

	sync_may_sleep("userfaultfd");
	assert(page.frame != FRAME_NONE);
	mutex_lock(&u->lock);
	r = range_find_locked(u, addr);
	if (r)
		error = install_locked(u, mm, r, addr, page.frame, writable);
	mutex_unlock(&u->lock);
	return error;
}

/*
 * Takes the right to store away from a page; and, if `zap`, all. What is pinned for writing, and can be written, stays so, and is held;
 * a zap also holds what is pinned for reading. True: the kernel has to be told.
 */
static bool take_locked(struct uffd_mmu *u, struct cache *c, struct range *r, uint64_t page, bool zap)
{
	struct entry *e = &r->entries[page];
	bool known = e->flags & (ENTRY_PRESENT | ENTRY_WRITE), was = e->flags & ENTRY_WRITE, stays;

	if (!known && e->held == FRAME_NONE)
		return false;
	for (unsigned tries = 0;; tries++) {
		uint32_t pins;

		e->flags &= ~(uint32_t)(ENTRY_WRITE | (zap ? (unsigned)ENTRY_PRESENT : 0));
		state_set(r, page);
		/* Pairs with the client's barrier between its count and its look at the state (R10). */
		pins = pins_of(r, page);
		stays = was && pins_write(pins);
		if (!known || !(stays || (zap && pins)) || !hold_locked(u, c, e, stays))
			break;
		e->flags |= stays ? (uint32_t)ENTRY_WRITE : 0;
		state_set(r, page);
		/*
		 * Pairs with the client's barrier between its count and its look for HELD. If it has gone on without having seen
		 * that, the hold goes when somebody looks the next time.
		 */
		if (tries || pins_of(r, page))
			return was && !stays;
	}
	if (pins_of(r, page) || (e->held == FRAME_NONE && !(e->flags & ENTRY_OLD)))
		return was;
	/* First the right, then the pin: as in let_go_locked(). */
	if (was)
		protect_run_locked(u, c, r, page, 1);
	if (!(e->flags & ENTRY_WRITE))
		unhold_locked(u, c, r, page);
	state_set(r, page);
	return false;
}

static void take(struct mm *mm, uint64_t addr, unsigned pages, bool zap)
{
	struct uffd_mmu *u = mm_context(mm);
	uint64_t end = addr + ((uint64_t)pages << CACHE_PAGE_SHIFT);

	sync_may_sleep("userfaultfd");
	mutex_lock(&u->lock);
	for (struct range *r = u->ranges; r; r = r->next) {
		uint64_t from = MAX(addr, r->start), to = MIN(end, address_of(r, r->pages)), run = 0, page;

		for (page = (from - r->start) >> CACHE_PAGE_SHIFT; from < to && page < (to - r->start) >> CACHE_PAGE_SHIFT; page++) {
			if (take_locked(u, mm->cache, r, page, zap)) {
				run++;
				continue;
			}
			protect_run_locked(u, mm->cache, r, page - run, run);
			run = 0;
		}
		protect_run_locked(u, mm->cache, r, page - run, run);
	}
	mutex_unlock(&u->lock);
}

static void uffd_protect(struct mm *mm, uint64_t addr, unsigned pages)
{
	take(mm, addr, pages, false);
}

static void uffd_zap(struct mm *mm, uint64_t addr, unsigned pages)
{
	take(mm, addr, pages, true);
}

const struct mmu_ops uffd_mmu_ops = {.install = uffd_install, .protect = uffd_protect, .zap = uffd_zap};

/* ---- what can't be had ---- */

static int poison_locked(struct uffd_mmu *u, struct range *r, uint64_t addr)
{
	struct entry *e = &r->entries[(addr - r->start) >> CACHE_PAGE_SHIFT];
	int error;

	if (e->flags & (ENTRY_PRESENT | ENTRY_WRITE))
		return -EBUSY;
	error = TELL(u, uffd_kernel_poison(u->fd, addr));
	if (error == -EEXIST && e->flags & ENTRY_POISON)
		error = 0;
	if (error == -EEXIST) {
		/*
		 * Either the mark of a page that was write-protected when it left: without it there is nothing. Or the page itself, which
		 * the cache has kept: nobody may store into it for that.
		 */
		error = TELL(u, uffd_kernel_continue(u->fd, addr, r->writable));
		if (error == -EFAULT && r->writable)
			error = tell_writable(u, addr, 1, false);
		else
			return -EBUSY;
		if (error == 0)
			error = TELL(u, uffd_kernel_poison(u->fd, addr));
	}
	if (error == 0)
		e->flags |= ENTRY_POISON;
	return error == -EEXIST ? -EBUSY : 0;
}

int uffd_poison(struct uffd_mmu *u, uint64_t addr)
{
	struct range *r;
	int error = 0;

	mutex_lock(&u->lock);
	r = range_find_locked(u, addr);
	if (r)
		error = poison_locked(u, r, addr);
	if (r && error == 0)
		tell_wake(u, addr);
	mutex_unlock(&u->lock);
	return error;
}

void uffd_wake(struct uffd_mmu *u, uint64_t addr)
{
	tell_wake(u, addr);
}
