/* SPDX-License-Identifier: MIT */
#include "cache/trace.h"

#include "base/mem.h"

int trace_init(struct trace *t, unsigned shift)
{
	*t = (struct trace){.shift = shift};
	t->slots = mem_alloc(sizeof(*t->slots) << shift);
	return t->slots ? 0 : -ENOMEM;
}

void trace_destroy(struct trace *t)
{
	mem_free(t->slots);
	t->slots = NULL;
}

void trace_switch(struct trace *t, bool on)
{
	a32_set(&t->on, on);
}

#ifndef PINFS_EXPLORE
void trace_record(struct trace *t, enum trace_type type, uint64_t a, uint64_t b)
{
	static _Thread_local uint32_t thread;
	uint64_t no = a64_fetch_add(&t->next, 1);
	struct trace_slot *s = &t->slots[no & ((1ull << t->shift) - 1)];

	if (!thread)
		thread = (uint32_t)gettid();
	a64_set(&s->seq, 0);
	sync_mb();
	a64_set(&s->time, now_ns());
	a64_set(&s->who, (uint64_t)thread << 32 | type);
	a64_set(&s->a, a);
	a64_set(&s->b, b);
	a64_set_release(&s->seq, no + 1);
}
#endif

bool trace_read(struct trace *t, uint64_t *next, struct trace_event *ret)
{
	uint64_t end = a64_read_acquire(&t->next), size = 1ull << t->shift;

	if (end > size && *next < end - size)
		*next = end - size;
	while (*next < end) {
		uint64_t no = (*next)++;
		const struct trace_slot *s = &t->slots[no & (size - 1)];
		struct trace_event e;

		if (a64_read_acquire(&s->seq) != no + 1)
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
