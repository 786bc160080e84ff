/* SPDX-License-Identifier: MIT */
#include "cache/trace.h"

#include "base/mem.h"

void trace_init(struct trace *t, unsigned shift)
{
	*t = (struct trace){.shift = shift};
}

void trace_destroy(struct trace *t)
{
	mem_free(t->slots);
	t->slots = NULL;
}

int trace_switch(struct trace *t, bool on)
{
	if (on && !t->slots) {
		t->slots = mem_alloc(sizeof(*t->slots) << t->shift);
		if (!t->slots)
			return -ENOMEM;
	}
	/* Pairs with trace_record(): who sees that it is on sees the slots. They stay, since late writers use them. */
	a32_set_release(&t->on, on);
	return 0;
}

#ifndef PINFS_EXPLORE
void trace_record(struct trace *t, enum trace_type type, uint64_t a, uint64_t b)
{
	static _Thread_local uint32_t thread;
	struct trace_slot *s;
	uint64_t no, seen;

	if (!a32_read_acquire(&t->on))
		return;
	no = a64_fetch_add(&t->next, 1);
	s = &t->slots[no & ((1ull << t->shift) - 1)];
	seen = a64_read(&s->seq);
	/* Held up for a whole ring, or behind one who is: see struct trace_slot. TRACE_BUSY is larger than all numbers. */
	if (seen > no || !a64_cas(&s->seq, &seen, TRACE_BUSY))
		return;
	if (!thread)
		thread = (uint32_t)gettid();
	a64_set(&s->time, now_ns());
	a64_set(&s->who, (uint64_t)thread << 32 | type);
	a64_set(&s->a, a);
	a64_set(&s->b, b);
	a64_set_release(&s->seq, no + 1);
}
#endif

uint64_t trace_end(const struct trace *t)
{
	return a64_read_acquire(&t->next);
}

bool trace_read(struct trace *t, uint64_t *next, uint64_t *lost, struct trace_event *ret)
{
	uint64_t end = trace_end(t), size = 1ull << t->shift;

	if (end > size && *next < end - size) {
		*lost += end - size - *next;
		*next = end - size;
	}
	for (; *next < end; (*next)++, (*lost)++) {
		uint64_t no = *next, seq;
		const struct trace_slot *s = &t->slots[no & (size - 1)];
		struct trace_event e;

		seq = a64_read_acquire(&s->seq);
		/* Its writer is at work; or has given up, then one of a ring later passes it. */
		if (seq <= no || (seq == TRACE_BUSY && trace_end(t) - no <= size))
			return false;
		if (seq != no + 1)
			continue;
		e = (struct trace_event){
			.time = a64_read(&s->time),
			.thread = (uint32_t)(a64_read(&s->who) >> 32),
			.type = (enum trace_type)(uint32_t)a64_read(&s->who),
			.a = a64_read(&s->a),
			.b = a64_read(&s->b),
		};
		sync_mb();
		if (a64_read(&s->seq) == no + 1) {
			*ret = e;
			(*next)++;
			return true;
		}
	}
	return false;
}

static const struct {
	const char *name, *a, *b;
} types[] = {
#define TRACE_TYPE(name, a, b) {#name, a, b},
	TRACE_EVENTS(TRACE_TYPE)
#undef TRACE_TYPE
};

const char *trace_name(enum trace_type type)
{
	return types[type].name;
}

void trace_fields(enum trace_type type, const char **ret_a, const char **ret_b)
{
	*ret_a = types[type].a;
	*ret_b = types[type].b;
}
