/* SPDX-License-Identifier: MIT */
/*
 * What the operations do. Actors only say what they want (explore_op) and stop; all that follows runs on the
 * scheduler's stack: looking at the operation when it's announced, saying whether it is possible, and carrying it out.
 * Stores and the buffers that hold them back are here, too: the memory model is the one in engine.h.
 */
#include "internal.h"

/* ---- store buffers ---- */

static bool overlaps(const struct store *store, const void *p, size_t size)
{
	return (uintptr_t)store->word < (uintptr_t)p + size && (uintptr_t)p < (uintptr_t)store->word + store->size;
}

/* Whoever spins has something new to look at. */
static void changed(unsigned by)
{
	for (unsigned i = 0; i < engine.nthreads; i++)
		if (i != by)
			actor(i)->changed = true;
}

static void store_drain(unsigned i)
{
	struct actor *t = actor(i);
	struct store store = t->stores[0];

	t->nstores--;
	memmove(t->stores, t->stores + 1, t->nstores * sizeof(store));
	memset(&t->stores[t->nstores], 0, sizeof(store));
	engine.pending--;
	memcpy(store.word, &store.value, store.size);
	changed(i);
	if (unlikely(explore_telling))
		story_aside(i, "%s = %s reaches memory", story_object(store.word), story_word(store.word, store.value));
}

void op_drain_all(unsigned i)
{
	while (unlikely(actor(i)->nstores))
		store_drain(i);
}

/* Those of thread i up to and including the last one to the range; of those of read-change-writes only, if `only_rmw`. */
static void drain_until(unsigned i, const void *p, size_t size, bool only_rmw)
{
	struct actor *t = actor(i);
	unsigned n = t->nstores;

	while (n && !(overlaps(&t->stores[n - 1], p, size) && (t->stores[n - 1].rmw || !only_rmw)))
		n--;
	while (n--)
		store_drain(i);
}

/*
 * Before thread i's store. No store to a word may come between the read and the write of a read-change-write. So while
 * its write is in a buffer, no other buffer has a store to that word: what is there goes to memory before it reads, and
 * it goes there itself before another thread stores (here: only_rmw). If it does not go into a buffer, then a plain
 * store of another thread that is in one may stay: it comes later.
 */
static void drain_others(unsigned i, const struct op *op, unsigned size, bool only_rmw)
{
	for (unsigned other = 0; other < engine.nthreads; other++)
		if (other != i)
			drain_until(other, op->object, size, only_rmw);
}

void op_drain_range(const void *p, size_t size)
{
	for (unsigned i = 0; engine.pending && i < engine.nthreads; i++)
		drain_until(i, p, size, false);
}

/* What thread i reads: memory, and over it what it has stored itself. */
static uint64_t load(unsigned i, const void *word, unsigned size)
{
	const struct actor *t = actor(i);
	uint64_t v = 0;

	memcpy(&v, word, size);
	for (unsigned n = 0; unlikely(n < t->nstores); n++) {
		const struct store *store = &t->stores[n];

		for (unsigned byte = 0; byte < store->size; byte++) {
			uintptr_t at = (uintptr_t)store->word + byte - (uintptr_t)word;

			if (at < size)
				memcpy((char *)&v + at, (const char *)&store->value + byte, 1);
		}
	}
	return v;
}

static void store(unsigned i, const struct op *op, unsigned size, uint64_t value, bool rmw, bool hold)
{
	struct actor *t = actor(i);
	struct store *s;

	if (likely(!t->nstores && !hold)) {
		uint64_t before = 0;

		memcpy(&before, op->object, size);
		if (before != value) {
			memcpy((void *)(uintptr_t)op->object, &value, size);
			changed(i);
		}
		return;
	}
	if (t->nstores == EXPLORE_HELD_STORES)
		store_drain(i);
	s = &t->stores[t->nstores++];
	*s = (struct store){.word = (void *)(uintptr_t)op->object, .value = value, .site = op->site, .size = (uint8_t)size,
		.rmw = rmw};
	engine.pending++;
}

/* What a store or read-change-write makes of `old`; false: nothing (a compare-and-swap that fails). */
static bool op_changes(const struct op *op, unsigned size, uint64_t old, uint64_t *ret_new)
{
	uint64_t v;

	switch (op_kind(op)) {
	case EXPLORE_SET:
	case EXPLORE_SET_RELEASE:
	case EXPLORE_EXCHANGE:
		v = op->a;
		break;
	case EXPLORE_ADD:
		v = old + op->a;
		break;
	case EXPLORE_OR:
		v = old | op->a;
		break;
	case EXPLORE_AND:
		v = old & op->a;
		break;
	case EXPLORE_CAS:
		if (old != op->a)
			return false;
		v = op->b;
		break;
	default:
		return false;
	}
	*ret_new = size == 4 ? (uint32_t)v : v;
	return true;
}

static bool op_is_store(unsigned kind)
{
	return kind >= EXPLORE_SET && kind <= EXPLORE_CAS;
}

static bool op_is_rmw(unsigned kind)
{
	return kind >= EXPLORE_ADD && kind <= EXPLORE_CAS;
}

static unsigned op_size(const struct op *op)
{
	return op->code & EXPLORE_WIDE ? 8 : 4;
}

/* ---- locks ---- */

static bool mutex_ok(const struct op *op, const struct explore_mutex *m, const char *what)
{
	if (likely(region_holds(m, sizeof(*m)) && m->magic == MUTEX_MAGIC))
		return true;
	run_fail(EXPLORE_MISUSE, op->site, "%s what is no mutex: %s is not initialised, was destroyed or freed", what,
		story_object(m));
	return false;
}

static bool cond_ok(const struct op *op)
{
	const struct explore_cond *c = op->object;

	if (likely(region_holds(c, sizeof(*c)) && c->magic == COND_MAGIC))
		return true;
	run_fail(EXPLORE_MISUSE, op->site, "what is no condition is used as one: %s is not initialised, was destroyed or freed",
		story_object(c));
	return false;
}

/* What the lock is called in messages: by its name, if it is a mutex. */
static const char *lock_name(const struct explore_mutex *m, unsigned class)
{
	return m ? story_lock(m) : lock_class_info(class)->name;
}

static void lock_order_check(unsigned i, const struct explore_mutex *m, unsigned class, const struct explore_site *site)
{
	const struct actor *t = actor(i);

	if (m && m->owner == i + 1) {
		run_fail(EXPLORE_MISUSE, site, "%s takes lock %s again", story_actor(i), story_lock(m));
		return;
	}
	if (engine.program->no_lock_order)
		return;
	for (unsigned n = 0; n < t->nheld; n++) {
		unsigned under = t->held[n].class;

		if (under > class || (under == class && !lock_class_info(under)->nests)) {
			run_fail(EXPLORE_LOCK_ORDER, site, "%s takes lock %s under %s, which it took at %s", story_actor(i),
				lock_name(m, class), story_held(&t->held[n]), story_place(t->held[n].site));
			return;
		}
	}
}

static void held_add(unsigned i, struct explore_mutex *m, unsigned class, const struct explore_site *site)
{
	struct actor *t = actor(i);

	if (t->nheld == HELD_MAX) {
		run_fail(EXPLORE_MISUSE, site, "%s holds more than %u locks", story_actor(i), HELD_MAX);
		return;
	}
	t->held[t->nheld++] = (struct held){m, site, class};
	t->self.held |= 1u << class;
	t->self.count[class]++;
	t->self.mm_held += class == LOCK_MM;
}

/* The last one of the class, if m is NULL. False: it was not held. */
static bool held_remove(unsigned i, const struct explore_mutex *m, unsigned class, const struct explore_site *site)
{
	struct actor *t = actor(i);
	unsigned n = t->nheld;

	while (n && (t->held[n - 1].mutex != m || t->held[n - 1].class != class))
		n--;
	if (!n) {
		run_fail(EXPLORE_MISUSE, site, "%s drops lock %s, which it does not hold", story_actor(i), lock_name(m, class));
		return false;
	}
	memmove(t->held + n - 1, t->held + n, (t->nheld - n) * sizeof(t->held[0]));
	memset(&t->held[--t->nheld], 0, sizeof(t->held[0]));
	if (!--t->self.count[class])
		t->self.held &= ~(1u << class);
	t->self.mm_held -= class == LOCK_MM;
	return true;
}

static void lock_take(unsigned i, struct explore_mutex *m, const struct explore_site *site)
{
	held_add(i, m, m->class, site);
	m->owner = (uint8_t)(i + 1);
	changed(i);
}

static bool lock_drop(unsigned i, struct explore_mutex *m, const struct explore_site *site)
{
	if (!held_remove(i, m, m->class, site))
		return false;
	m->owner = 0;
	changed(i);
	return true;
}

/* Locks made of words: what they do to memory is done by operations on these. */
void explore_lock_taken(unsigned class, bool tried, const struct explore_site *site)
{
	if (!engine.running)
		return;
	if (!tried)
		lock_order_check(engine.self, NULL, class, site);
	held_add(engine.self, NULL, class, site);
	sync_self = actor(engine.self)->self;
}

void explore_lock_dropped(unsigned class, const struct explore_site *site)
{
	if (!engine.running)
		return;
	held_remove(engine.self, NULL, class, site);
	sync_self = actor(engine.self)->self;
}

static void sleep_check(unsigned i, const char *what, const struct explore_mutex *except, const struct explore_site *site)
{
	const struct actor *t = actor(i);

	for (unsigned n = 0; unlikely(n < t->nheld); n++) {
		if ((except && t->held[n].mutex == except) || lock_class_info(t->held[n].class)->sleeps)
			continue;
		run_fail(EXPLORE_SLEPT, site, "%s: %s while it holds lock %s, taken at %s", story_actor(i), what,
			story_held(&t->held[n]), story_place(t->held[n].site));
		return;
	}
}

void explore_may_sleep(const char *what, const struct explore_site *site)
{
	if (likely(engine.running))
		sleep_check(engine.self, what, NULL, site);
}

void explore_slept(const char *what, unsigned class, const struct explore_site *site)
{
	run_fail(EXPLORE_SLEPT, site, "%s: %s under lock class %s", story_actor(engine.self), what,
		lock_class_info(class)->name);
	abort();
}

/* Who is about to use the object, or sleeps there: -1 nobody. */
static int user_of(const void *object)
{
	for (unsigned i = 0; i < engine.nthreads; i++) {
		const struct actor *t = actor(i);

		if (t->state == ACTOR_WAITING && (t->op.object == object || (void *)(uintptr_t)t->op.a == object))
			return (int)i;
		if (t->state == ACTOR_READY && t->op.object == object && i != engine.self)
			return (int)i;
	}
	return -1;
}

void explore_mutex_init(struct explore_mutex *m, unsigned class, const struct explore_site *site)
{
	if (engine.running && m->magic == MUTEX_MAGIC && m->owner)
		run_fail(EXPLORE_MISUSE, site, "lock %s is initialised again while %s holds it", story_lock(m),
			story_actor(m->owner - 1u));
	*m = (struct explore_mutex){.magic = MUTEX_MAGIC, .class = (uint8_t)class};
}

void explore_mutex_destroy(struct explore_mutex *m, const struct explore_site *site)
{
	if (!engine.running)
		return;
	if (m->magic != MUTEX_MAGIC)
		run_fail(EXPLORE_MISUSE, site, "what is no mutex is destroyed: %s", story_object(m));
	if (m->owner)
		run_fail(EXPLORE_MISUSE, site, "lock %s is destroyed while %s holds it", story_lock(m),
			story_actor(m->owner - 1u));
	if (user_of(m) >= 0)
		run_fail(EXPLORE_MISUSE, site, "lock %s is destroyed while %s is about to take it", story_lock(m),
			story_actor((unsigned)user_of(m)));
	m->magic = 0;
}

void explore_cond_init(struct explore_cond *c, const struct explore_site *site)
{
	*c = (struct explore_cond){.magic = COND_MAGIC};
}

void explore_cond_destroy(struct explore_cond *c, const struct explore_site *site)
{
	if (!engine.running)
		return;
	if (c->magic != COND_MAGIC)
		run_fail(EXPLORE_MISUSE, site, "what is no condition is destroyed: %s", story_object(c));
	if (user_of(c) >= 0)
		run_fail(EXPLORE_MISUSE, site, "condition %s is destroyed while %s uses it", story_object(c),
			story_actor((unsigned)user_of(c)));
	c->magic = 0;
}

/* ---- sleepers ---- */

static void sleeper_add(unsigned i, enum actor_state state)
{
	actor(i)->state = state;
	WORLD->sleepers[WORLD->nsleepers++] = (uint8_t)i;
}

static bool sleeps_at(unsigned i, const void *object, enum actor_state state)
{
	return actor(i)->state == state && actor(i)->op.object == object;
}

static unsigned sleepers_at(const void *object, enum actor_state state)
{
	unsigned count = 0;

	for (unsigned n = 0; n < WORLD->nsleepers; n++)
		count += sleeps_at(WORLD->sleepers[n], object, state);
	return count;
}

/* Wakes the one who has slept longest of those at the object, after `skip` others. False: there is none. */
static bool sleeper_wake(unsigned by, const void *object, enum actor_state state, unsigned skip)
{
	unsigned n = 0, i;
	struct actor *t;

	while (n < WORLD->nsleepers && (!sleeps_at(WORLD->sleepers[n], object, state) || skip--))
		n++;
	if (n == WORLD->nsleepers)
		return false;
	i = WORLD->sleepers[n];
	WORLD->nsleepers--;
	memmove(WORLD->sleepers + n, WORLD->sleepers + n + 1, WORLD->nsleepers - n);
	WORLD->sleepers[WORLD->nsleepers] = 0;
	t = actor(i);
	t->state = ACTOR_READY;
	if (state == ACTOR_ASLEEP) {
		t->op.code = EXPLORE_WOKEN;
	} else {
		t->op.code = EXPLORE_LOCK;
		t->op.object = (const void *)(uintptr_t)t->op.a;
		t->op.a = 0;
		if (mutex_ok(&t->op, t->op.object, "a sleeper wakes up and takes"))
			lock_order_check(i, t->op.object, ((const struct explore_mutex *)t->op.object)->class, t->op.site);
	}
	changed(by);
	if (unlikely(explore_telling))
		story_aside(i, "is woken");
	return true;
}

/* ---- before ---- */

void op_announce(unsigned i)
{
	struct actor *t = actor(i);
	struct explore_mutex *m = (void *)(uintptr_t)t->op.object;

	if (op_kind(&t->op) == EXPLORE_LOCK) {
		if (mutex_ok(&t->op, m, "taking"))
			lock_order_check(i, m, m->class, t->op.site);
	} else if (op_kind(&t->op) == EXPLORE_COND_WAIT) {
		sleep_check(i, "wait", (void *)(uintptr_t)t->op.a, t->op.site);
	} else if (op_kind(&t->op) == EXPLORE_CHOOSE && (!t->op.a || t->op.a > CHOICES_MAX)) {
		run_fail(EXPLORE_MISUSE, t->op.site, "a choice of %llu", (unsigned long long)t->op.a);
	}
}

bool op_ready(unsigned i)
{
	const struct actor *t = actor(i);
	const struct explore_mutex *m;

	if (t->state != ACTOR_READY)
		return false;
	if (op_kind(&t->op) == EXPLORE_LOCK) {
		/* A mutex that was destroyed meanwhile: the misuse is found when it is taken. */
		m = t->op.object;
		return m->owner == 0 || m->magic != MUTEX_MAGIC;
	}
	return op_kind(&t->op) != EXPLORE_RELAX || t->changed;
}

static void option_add(unsigned i, enum action_kind kind, unsigned variant, unsigned cost)
{
	engine.options[engine.noptions++] = (struct action){(uint8_t)i, (uint8_t)kind, (uint8_t)variant, (uint8_t)cost};
}

/* Whether it makes a difference if thread i's store stays in the buffer: engine.h says when. */
static bool may_hold(unsigned i)
{
	const struct actor *t = actor(i);
	unsigned kind = op_kind(&t->op), size = op_size(&t->op);
	uint64_t old = 0, new;

	if (engine.no_hold || t->nstores || !op_is_store(kind))
		return false;
	if (!op_is_rmw(kind))
		return true;
	if (!region_holds(t->op.object, size))
		return false;
	/* What an operation would read that is still in another's buffer comes to memory first. */
	for (unsigned other = 0; engine.pending && other < engine.nthreads; other++)
		for (unsigned n = 0; n < actor(other)->nstores; n++)
			if (overlaps(&actor(other)->stores[n], t->op.object, size))
				return true;
	memcpy(&old, t->op.object, size);
	return op_changes(&t->op, size, old, &new) && new != old;
}

static void options_of(unsigned i, unsigned cost)
{
	const struct actor *t = actor(i);
	unsigned kind = op_kind(&t->op), variants = 1;

	if (unlikely(kind == EXPLORE_CHOOSE || kind == EXPLORE_ALLOC))
		variants = (unsigned)t->op.a;
	else if (unlikely(kind == EXPLORE_SIGNAL))
		variants = sleepers_at(t->op.object, ACTOR_WAITING);
	option_add(i, ACT_RUN, 0, cost);
	for (unsigned v = 1; unlikely(v < variants); v++)
		option_add(i, ACT_RUN, v, cost);
	if (may_hold(i))
		option_add(i, ACT_HOLD, 0, cost + 1);
}

void op_options(void)
{
	unsigned n = engine.nthreads, current = WORLD->current, first = current < n ? current : 0;
	unsigned kind = current < n ? op_kind(&actor(current)->op) : EXPLORE_NONE;
	bool goes_on;

	engine.noptions = engine.ready = 0;
	for (unsigned i = 0; i < n; i++)
		engine.ready |= (unsigned)op_ready(i) << i;
	goes_on = current < n && engine.ready >> current & 1;
	if (unlikely(goes_on && (kind == EXPLORE_CHOOSE || kind == EXPLORE_ALLOC))) {
		options_of(current, 0);
		return;
	}
	for (unsigned k = 0; k < n; k++) {
		unsigned i = first + k < n ? first + k : first + k - n;

		if (engine.ready >> i & 1)
			options_of(i, goes_on && i != current);
	}
	for (unsigned i = 0; unlikely(engine.pending) && i < n; i++)
		if (actor(i)->nstores)
			option_add(i, ACT_DRAIN, 0, 0);
}

/* ---- carrying out ---- */

static bool word_ok(const struct op *op, unsigned size)
{
	if (likely(region_holds(op->object, size) && (uintptr_t)op->object % size == 0))
		return true;
	run_fail(EXPLORE_MISUSE, op->site, "the word at %p (%s) is %s", op->object, story_object(op->object),
		(uintptr_t)op->object % size ? "not aligned" : "not in memory that is allocated");
	return false;
}

static void do_word(unsigned i, const struct op *op, bool hold)
{
	struct actor *t = actor(i);
	unsigned kind = op_kind(op), size = op_size(op);
	uint64_t old, new;

	if (!word_ok(op, size))
		return;
	if (unlikely(engine.pending) && op_is_store(kind))
		drain_others(i, op, size, !op_is_rmw(kind) || !(hold || t->nstores));
	old = load(i, op->object, size);
	t->result = old;
	if (op_changes(op, size, old, &new))
		store(i, op, size, new, op_is_rmw(kind), hold);
	else if (kind < EXPLORE_SET)
		t->result += region_counted(op->object, size);
}

static void do_lock(unsigned i, const struct op *op)
{
	struct actor *t = actor(i);
	struct explore_mutex *m = (void *)(uintptr_t)op->object;

	op_drain_all(i);
	if (!mutex_ok(op, m, op_kind(op) == EXPLORE_UNLOCK ? "dropping" : "taking"))
		return;
	if (op_kind(op) == EXPLORE_UNLOCK) {
		lock_drop(i, m, op->site);
		return;
	}
	t->result = m->owner == 0;
	if (!m->owner)
		lock_take(i, m, op->site);
}

static void do_cond(unsigned i, const struct op *op, unsigned variant)
{
	op_drain_all(i);
	if (!cond_ok(op))
		return;
	switch (op_kind(op)) {
	case EXPLORE_COND_WAIT:
		if (mutex_ok(op, (void *)(uintptr_t)op->a, "waiting with") &&
			lock_drop(i, (void *)(uintptr_t)op->a, op->site))
			sleeper_add(i, ACTOR_WAITING);
		break;
	case EXPLORE_SIGNAL:
		sleeper_wake(i, op->object, ACTOR_WAITING, variant);
		break;
	default:
		while (sleeper_wake(i, op->object, ACTOR_WAITING, 0))
			;
	}
}

static void do_futex(unsigned i, const struct op *op)
{
	struct actor *t = actor(i);

	op_drain_all(i);
	if (!word_ok(op, 4))
		return;
	if (op_kind(op) == EXPLORE_WAIT) {
		if (load(i, op->object, 4) == (uint32_t)op->a)
			sleeper_add(i, ACTOR_ASLEEP);
		return;
	}
	t->result = 0;
	while (t->result < (uint32_t)op->a && sleeper_wake(i, op->object, ACTOR_ASLEEP, 0))
		t->result++;
}

static void do_copy(unsigned i, const struct op *op)
{
	uint64_t v;

	if (!word_ok(op, 8))
		return;
	if (!region_holds((void *)(uintptr_t)op->a, 8) || op->a % 8) {
		run_fail(EXPLORE_MISUSE, op->site, "a copy goes to %#llx, which is %s", (unsigned long long)op->a,
			op->a % 8 ? "not aligned" : "not in memory that is allocated");
		return;
	}
	v = load(i, op->object, 8);
	memcpy((void *)(uintptr_t)op->a, &v, 8);
	actor(i)->result = v;
}

static void op_do(unsigned i, const struct op *op, unsigned variant, bool hold)
{
	struct actor *t = actor(i);

	t->result = 0;
	switch (op_kind(op)) {
	case EXPLORE_READ:
	case EXPLORE_READ_ACQUIRE:
	case EXPLORE_SET:
	case EXPLORE_SET_RELEASE:
	case EXPLORE_ADD:
	case EXPLORE_OR:
	case EXPLORE_AND:
	case EXPLORE_EXCHANGE:
	case EXPLORE_CAS:
		do_word(i, op, hold);
		break;
	case EXPLORE_LOCK:
	case EXPLORE_TRYLOCK:
	case EXPLORE_UNLOCK:
		do_lock(i, op);
		break;
	case EXPLORE_COND_WAIT:
	case EXPLORE_SIGNAL:
	case EXPLORE_BROADCAST:
		do_cond(i, op, variant);
		break;
	case EXPLORE_WAIT:
	case EXPLORE_WAKE:
		do_futex(i, op);
		break;
	case EXPLORE_MB:
		op_drain_all(i);
		break;
	case EXPLORE_RELAX:
		t->changed = false;
		break;
	case EXPLORE_COPY:
		do_copy(i, op);
		break;
	case EXPLORE_POINT:
		changed(i);
		break;
	case EXPLORE_ALLOC:
		WORLD->alloc_failures -= variant;
		t->result = variant;
		break;
	case EXPLORE_CHOOSE:
		t->result = variant;
		break;
	default: /* EXPLORE_WOKEN: it only goes on */
		break;
	}
}

void op_end(unsigned i)
{
	struct actor *t = actor(i);

	if (t->nheld)
		run_fail(EXPLORE_MISUSE, t->held[0].site, "%s ends, but holds lock %s, taken at %s", story_actor(i),
			story_held(&t->held[0]), story_place(t->held[0].site));
	t->op = (struct op){.code = EXPLORE_END};
	t->state = ACTOR_ENDED;
	changed(i);
}

void op_act(struct action action)
{
	unsigned i = action.thread;
	struct actor *t = actor(i);
	struct op op = t->op;
	uint64_t before = 0;

	if (action.kind == ACT_DRAIN) {
		store_drain(i);
		return;
	}
	if (unlikely(explore_telling)) {
		story_step(action);
		if (region_holds(op.object, op_size(&op)))
			before = load(i, op.object, op_size(&op));
	}
	WORLD->current = i;
	op_do(i, &op, action.variant, action.kind == ACT_HOLD);
	if (unlikely(explore_telling))
		story_done(action, &op, before);
	if (engine.failure || t->state != ACTOR_READY)
		return;
	context_enter(i);
	if (t->state == ACTOR_READY && !engine.failure)
		op_announce(i);
}

uint64_t op_alone(const struct op *op)
{
	struct actor *t = actor(ALONE);

	t->op = *op;
	t->state = ACTOR_READY;
	op_announce(ALONE);
	if (!op_ready(ALONE) || op_kind(op) == EXPLORE_COND_WAIT)
		run_fail(EXPLORE_MISUSE, op->site, "setup() or check() waits, but it is alone");
	op_do(ALONE, op, 0, false);
	if (t->state == ACTOR_ASLEEP)
		run_fail(EXPLORE_MISUSE, op->site, "setup() or check() sleeps, but it is alone");
	sync_self = t->self;
	return t->result;
}

uint64_t op_stop(unsigned code, const void *object, uint64_t a, uint64_t b, const struct explore_site *site, void *live)
{
	struct actor *t = actor(engine.self);

	if (unlikely(!engine.inside)) {
		fprintf(stderr, "explore: %s:%u: an operation of base/sync.h outside of a run\n", site ? site->file : "?",
			site ? site->line : 0);
		abort();
	}
	if (unlikely(engine.alone)) {
		struct op op = {object, a, b, site, code};

		return op_alone(&op);
	}
	t->op.object = object;
	t->op.a = a;
	t->op.b = b;
	t->op.site = site;
	t->op.code = code;
	t->live = live;
	context_leave();
	return t->result;
}
