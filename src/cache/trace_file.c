/* SPDX-License-Identifier: MIT */
#include "cache/trace_file.h"

#include <poll.h>
#include <sys/eventfd.h>

#include "base/mem.h"
#include "cache/page.h"

/* A record at most: a byte and four varints. */
#define RECORD_MAX 48u
/* The ring holds what a busy mount does in some hundred milliseconds. */
#define DRAIN_MS 10
/* How often stopping looks again for a writer that is at work. */
#define DRAIN_LAST 100u

static uint64_t zigzag(uint64_t difference)
{
	return difference << 1 ^ (uint64_t)((int64_t)difference >> 63);
}
static uint64_t unzigzag(uint64_t v)
{
	return v >> 1 ^ (0 - (v & 1));
}

/* ---- writing ---- */

static void put_byte(struct trace_writer *w, unsigned v)
{
	w->buf[w->len++] = (uint8_t)v;
}

static void put_varint(struct trace_writer *w, uint64_t v)
{
	for (; v >= 0x80; v >>= 7)
		put_byte(w, (unsigned)v | 0x80);
	put_byte(w, (unsigned)v);
}

static void put_le32(struct trace_writer *w, uint32_t v)
{
	for (unsigned i = 0; i < 4; i++)
		put_byte(w, v >> 8 * i & 0xff);
}

static void put_string(struct trace_writer *w, const char *s)
{
	do {
		put_byte(w, (uint8_t)*s);
	} while (*s++);
}

int trace_writer_flush(struct trace_writer *w)
{
	if (!w->error && w->len)
		w->error = write_all(w->fd, w->buf, w->len);
	w->len = 0;
	return w->error;
}

static void make_room(struct trace_writer *w)
{
	if (w->len > sizeof(w->buf) - RECORD_MAX)
		trace_writer_flush(w);
}

void trace_writer_init(struct trace_writer *w, int fd)
{
	const char *a, *b, *other, *unused;

	memset(w, 0, offsetof(struct trace_writer, buf));
	w->fd = fd;
	memcpy(w->buf, TRACE_FILE_MAGIC, 8);
	w->len = 8;
	put_le32(w, TRACE_FILE_VERSION);
	put_le32(w, CACHE_PAGE_SIZE);
	put_byte(w, TRACE_TYPES);
	for (unsigned i = 0; i < TRACE_TYPES; i++) {
		trace_fields((enum trace_type)i, &a, &b);
		put_string(w, trace_name((enum trace_type)i));
		put_string(w, a);
		put_string(w, b);
		do {
			trace_fields((enum trace_type)w->space[i], &other, &unused);
		} while (strcmp(a, other) && ++w->space[i]);
	}
}

void trace_writer_event(struct trace_writer *w, const struct trace_event *e)
{
	struct trace_file_state *s = &w->state;
	uint64_t time = e->time / 1000, *a = &s->a[w->space[e->type]], *b = &s->b[e->type];
	unsigned flags = (time != s->time ? TRACE_FILE_TIME : 0u) | (e->thread != s->thread ? TRACE_FILE_THREAD : 0u) |
		(e->b != *b ? TRACE_FILE_B : 0u);

	make_room(w);
	put_byte(w, (unsigned)e->type | flags);
	if (flags & TRACE_FILE_TIME)
		put_varint(w, zigzag(time - s->time));
	if (flags & TRACE_FILE_THREAD)
		put_varint(w, e->thread);
	put_varint(w, zigzag(e->a - *a));
	if (flags & TRACE_FILE_B)
		put_varint(w, zigzag(e->b - *b));
	s->time = time;
	s->thread = e->thread;
	*a = e->a;
	*b = e->b;
	w->events++;
}

void trace_writer_lost(struct trace_writer *w, uint64_t count)
{
	if (!count)
		return;
	make_room(w);
	put_byte(w, TRACE_FILE_LOST);
	put_varint(w, count);
	w->lost += count;
}

int trace_writer_end(struct trace_writer *w)
{
	make_room(w);
	put_byte(w, TRACE_FILE_END);
	put_varint(w, w->events);
	put_varint(w, w->lost);
	return trace_writer_flush(w);
}

/* ---- reading ---- */

static int get_byte(struct trace_reader *r, unsigned *ret)
{
	if (r->at == r->end)
		return -EUCLEAN;
	*ret = *r->at++;
	return 0;
}

static int get_varint(struct trace_reader *r, uint64_t *ret)
{
	uint64_t v = 0;
	unsigned byte;

	for (unsigned shift = 0; shift < 64; shift += 7) {
		if (get_byte(r, &byte) < 0)
			return -EUCLEAN;
		v |= (uint64_t)(byte & 0x7f) << shift;
		if (!(byte & 0x80)) {
			*ret = v;
			return 0;
		}
	}
	return -EUCLEAN;
}

static int get_string(struct trace_reader *r, const char **ret)
{
	const uint8_t *nul = memchr(r->at, 0, (size_t)(r->end - r->at));

	if (!nul)
		return -EUCLEAN;
	*ret = (const char *)r->at;
	r->at = nul + 1;
	return 0;
}

static int read_type(struct trace_reader *r, unsigned i, const char **names)
{
	const char *name, *b;

	if (get_string(r, &name) < 0 || get_string(r, &names[i]) < 0 || get_string(r, &b) < 0)
		return -EUCLEAN;
	r->type[i] = -1;
	for (unsigned k = 0; k < TRACE_TYPES; k++)
		if (!strcmp(trace_name((enum trace_type)k), name))
			r->type[i] = (int)k;
	while (strcmp(names[i], names[r->space[i]]))
		r->space[i]++;
	return 0;
}

int trace_reader_init(struct trace_reader *r, const void *data, size_t len)
{
	const char *names[TRACE_FILE_TYPES];
	uint32_t words[2] = {0};

	*r = (struct trace_reader){.at = data, .end = (const uint8_t *)data + len};
	if (len < 17 || memcmp(data, TRACE_FILE_MAGIC, 8))
		return -EUCLEAN;
	r->at += 8;
	for (unsigned i = 0; i < 8; i++)
		words[i / 4] |= (uint32_t)*r->at++ << 8 * (i % 4);
	r->page_size = words[1];
	r->types = *r->at++;
	if (words[0] != TRACE_FILE_VERSION || !is_power_of_two(r->page_size) || r->types > TRACE_FILE_TYPES)
		return -EUCLEAN;
	for (unsigned i = 0; i < r->types; i++)
		if (read_type(r, i, names) < 0)
			return -EUCLEAN;
	return 0;
}

static int read_event(struct trace_reader *r, unsigned byte, struct trace_event *ret)
{
	unsigned type = byte & TRACE_FILE_TYPE;
	struct trace_file_state *s = &r->state;
	uint64_t time = 0, thread = s->thread, a, b = 0;

	if (type >= r->types || (byte & TRACE_FILE_TIME && get_varint(r, &time) < 0) ||
		(byte & TRACE_FILE_THREAD && get_varint(r, &thread) < 0) || get_varint(r, &a) < 0 ||
		(byte & TRACE_FILE_B && get_varint(r, &b) < 0))
		return -EUCLEAN;
	s->time += unzigzag(time);
	s->thread = (uint32_t)thread;
	s->a[r->space[type]] += unzigzag(a);
	s->b[type] += unzigzag(b);
	r->events++;
	if (r->type[type] < 0)
		return 0;
	*ret = (struct trace_event){
		.time = s->time * 1000,
		.thread = s->thread,
		.type = (enum trace_type)r->type[type],
		.a = s->a[r->space[type]],
		.b = s->b[type],
	};
	return 1;
}

int trace_reader_next(struct trace_reader *r, struct trace_event *ret)
{
	int n = 0;

	while (n == 0 && r->at != r->end && !r->complete) {
		uint64_t count, lost;
		unsigned byte;

		if (get_byte(r, &byte) < 0)
			return -EUCLEAN;
		if (byte == TRACE_FILE_LOST) {
			if (get_varint(r, &count) < 0)
				return -EUCLEAN;
			r->lost += count;
		} else if (byte == TRACE_FILE_END) {
			if (get_varint(r, &count) < 0 || get_varint(r, &lost) < 0 || count != r->events ||
				lost != r->lost || r->at != r->end)
				return -EUCLEAN;
			r->complete = true;
		} else {
			n = read_event(r, byte, ret);
		}
	}
	return n;
}

/* ---- from a ring to a file ---- */

struct trace_drain {
	struct trace *trace;
	int fd, stop; /* stop: an eventfd */
	pthread_t thread;
	uint64_t next;
	struct trace_writer writer;
};

/* All that is whole by now. */
static void drain(struct trace_drain *d)
{
	struct trace_event e;
	uint64_t lost = 0;
	bool more;

	do {
		more = trace_read(d->trace, &d->next, &lost, &e);
		trace_writer_lost(&d->writer, lost);
		lost = 0;
		if (more)
			trace_writer_event(&d->writer, &e);
	} while (more);
}

static void *drain_thread(void *arg)
{
	struct trace_drain *d = arg;
	struct pollfd stop = {.fd = d->stop, .events = POLLIN};

	/* A signal can't come: they are blocked, SIGXFSZ too, so a file that grows too large is an error like no space. */
	while (poll(&stop, 1, DRAIN_MS) == 0) {
		drain(d);
		if (trace_writer_flush(&d->writer) < 0)
			trace_switch(d->trace, false);
	}
	return NULL;
}

static void drain_free(struct trace_drain *d)
{
	if (d->fd >= 0)
		close(d->fd);
	if (d->stop >= 0)
		close(d->stop);
	mem_free(d);
}

int trace_drain_start(struct trace *t, int fd, struct trace_drain **ret)
{
	struct trace_drain *d = mem_alloc(sizeof(*d));
	int r;

	if (!d) {
		close(fd);
		return -ENOMEM;
	}
	d->trace = t;
	d->fd = fd;
	d->next = trace_end(t);
	trace_writer_init(&d->writer, fd);
	d->stop = eventfd(0, EFD_CLOEXEC);
	r = d->stop < 0 ? -errno : trace_switch(t, true);
	if (r == 0)
		r = thread_start(&d->thread, drain_thread, d);
	if (r < 0) {
		trace_switch(t, false);
		drain_free(d);
		return r;
	}
	*ret = d;
	return 0;
}

void trace_drain_stop(struct trace_drain *d, struct trace_drain_result *ret)
{
	uint64_t one = 1;

	if (!d)
		return;
	trace_switch(d->trace, false);
	/* It can't fail: the counter is far from its limit. */
	while (write(d->stop, &one, sizeof(one)) < 0 && errno == EINTR)
		;
	pthread_join(d->thread, NULL);
	drain(d);
	for (unsigned i = 0; d->next < trace_end(d->trace) && i < DRAIN_LAST; i++) {
		poll(NULL, 0, 1);
		drain(d);
	}
	trace_writer_lost(&d->writer, trace_end(d->trace) - d->next);
	*ret = (struct trace_drain_result){d->writer.events, d->writer.lost, trace_writer_end(&d->writer)};
	if (close(steal_fd(&d->fd)) < 0 && ret->error == 0)
		ret->error = -errno;
	drain_free(d);
}
