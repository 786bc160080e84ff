/* SPDX-License-Identifier: MIT */
/* Connections, tokens, and the threads: one that reads, others that work. */
#include "share/internal.h"

#include <linux/userfaultfd.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#define THREADS 2u
#define CLIENTS_MOST 256u
#define SLOTS_MOST 1024u
#define PAGES_MOST ((uint64_t)1 << 24)
#define HELD_SHARE 8u
#define READ_BATCH 16u

/* Of an event: the client's number, and whether it is its faults. 0: the server ends. */
#define EVENT_OF(c, faults) ((c)->id << 1 | (faults))

/* ---- clients ---- */

static void watch_one(struct client *c, int fd, bool faults, bool want, bool *watched)
{
	struct epoll_event e = {.events = EPOLLIN, .data.u64 = EVENT_OF(c, faults)};

	if (fd < 0 || want == *watched)
		return;
	if (epoll_ctl(c->share->epoll, want ? EPOLL_CTL_ADD : EPOLL_CTL_DEL, fd, &e) == 0 || !want)
		*watched = want;
}

/* Under the share's lock, after something of it has changed. */
static void watch_locked(struct client *c)
{
	bool want = c->connected && !c->paused;

	watch_one(c, c->sock, false, want, &c->watched);
	watch_one(c, c->faults, true, want, &c->faults_watched);
}

void server_watch(struct client *c, int uffd)
{
	mutex_lock(&c->share->lock);
	c->faults = uffd;
	watch_locked(c);
	mutex_unlock(&c->share->lock);
}

void server_forget(struct client *c)
{
	mutex_lock(&c->share->lock);
	c->connected = false;
	watch_locked(c);
	c->faults = -1;
	mutex_unlock(&c->share->lock);
}

/* The last one leaves it to those who work: freeing may take long. */
static void client_put(struct client *c)
{
	struct share *s = c->share;

	mutex_lock(&s->lock);
	if (--c->refs == 0) {
		c->next = s->unused;
		s->unused = c;
		cond_signal(&s->work);
	}
	mutex_unlock(&s->lock);
}

/* Nothing is read from it any more; what is under way ends, then it is freed. why: NULL: it has left. */
static void client_cut(struct client *c, const char *why)
{
	struct share *s = c->share;
	bool mine;

	mutex_lock(&s->lock);
	mine = c->connected;
	c->connected = false;
	if (mine) {
		*(c->prev ? &c->prev->next : &s->clients) = c->next;
		if (c->next)
			c->next->prev = c->prev;
		c->next = c->prev = NULL;
		watch_locked(c);
	}
	mutex_unlock(&s->lock);
	if (!mine)
		return;
	if (why)
		log_error("%s: process %d of user %u, which has mapped files, is cut off: %s", s->options.name, (int)c->pid, (unsigned)c->uid, why);
	/* It hears of it, whatever it waits for. */
	shutdown(c->sock, SHUT_RDWR);
	client_put(c);
}

static void count_less(struct share *s)
{
	mutex_lock(&s->lock);
	s->client_count--;
	cond_broadcast(&s->gone);
	mutex_unlock(&s->lock);
}

int share_connect(struct share *s, int fd)
{
	struct client *c = NULL;
	bool room;
	int r;

	mutex_lock(&s->lock);
	room = !s->stopping && s->client_count < s->options.clients_most;
	s->client_count += room;
	mutex_unlock(&s->lock);
	r = room ? client_new(s, fd, &c) : -EUSERS;
	if (r < 0) {
		close(fd);
		if (room)
			count_less(s);
		return r;
	}
	mutex_lock(&s->lock);
	c->id = ++s->ids;
	c->refs = 2;
	c->connected = true;
	c->next = s->clients;
	if (c->next)
		c->next->prev = c;
	s->clients = c;
	watch_locked(c);
	r = c->watched ? 0 : -ENOMEM;
	/* Who ends the server has perhaps looked already. */
	if (s->stopping)
		r = -EUSERS;
	mutex_unlock(&s->lock);
	if (r < 0)
		client_cut(c, NULL);
	client_put(c);
	return r;
}

unsigned share_clients(struct share *s)
{
	unsigned n;

	mutex_lock(&s->lock);
	n = s->client_count;
	mutex_unlock(&s->lock);
	return n;
}

/* ---- jobs ---- */

static void job_push(struct share *s, struct job *j)
{
	struct client *c = j->client;

	mutex_lock(&s->lock);
	c->refs++;
	j->next = NULL;
	*s->last = j;
	s->last = &j->next;
	c->paused |= ++c->jobs >= JOBS_MOST;
	watch_locked(c);
	cond_signal(&s->work);
	mutex_unlock(&s->lock);
}

static void job_done(struct job *j)
{
	struct client *c = j->client;
	struct share *s = c->share;

	if (j->fd >= 0)
		close(j->fd);
	free(j);
	mutex_lock(&s->lock);
	if (--c->jobs < JOBS_MOST / 2)
		c->paused = false;
	watch_locked(c);
	mutex_unlock(&s->lock);
	client_put(c);
}

static struct job *job_new(struct client *c)
{
	struct job *j = calloc(1, sizeof(*j));

	if (j) {
		j->client = c;
		j->fd = -1;
	}
	return j;
}

static void *worker_main(void *arg)
{
	struct share *s = arg;

	for (;;) {
		const char *why = NULL;
		struct client *unused;
		struct job *j = NULL;

		mutex_lock(&s->lock);
		while (!s->first && !s->unused && !s->ended)
			cond_wait(&s->work, &s->lock);
		/* They have memory that others may be waiting for. */
		unused = s->unused;
		if (unused)
			s->unused = unused->next;
		else
			j = s->first;
		if (j) {
			s->first = j->next;
			if (!s->first)
				s->last = &s->first;
		}
		mutex_unlock(&s->lock);
		if (unused) {
			client_free(unused);
			count_less(s);
			continue;
		}
		if (!j)
			break;
		if (!client_job(j->client, j, &why))
			client_cut(j->client, why);
		job_done(j);
	}
	return NULL;
}

/* ---- reading ---- */

static void read_message(struct client *c)
{
	struct job *j = job_new(c);
	int r;

	if (!j) {
		client_cut(c, "no memory");
		return;
	}
	r = message_receive(c->sock, &j->msg, sizeof(j->msg), &j->fd, MSG_DONTWAIT);
	if (r == 0 && j->msg.size == sizeof(j->msg)) {
		job_push(c->share, j);
		return;
	}
	if (j->fd >= 0)
		close(j->fd);
	free(j);
	if (r != -EAGAIN)
		client_cut(c, r == 0 || r == -EPROTO ? "it sends what is no message" : NULL);
}

static void read_faults(struct client *c, int uffd)
{
	struct uffd_msg msgs[READ_BATCH];
	ssize_t n = read(uffd, msgs, sizeof(msgs));
	bool good = n > 0 ? n % (ssize_t)sizeof(msgs[0]) == 0 : n < 0 && (errno == EAGAIN || errno == EINTR);

	for (ssize_t i = 0; i < n / (ssize_t)sizeof(msgs[0]); i++) {
		const struct uffd_msg *m = &msgs[i];
		struct job *j;

		if (m->event == UFFD_EVENT_FORK)
			/* It has a descriptor for us, that we have not asked for. */
			close((int)m->arg.fork.ufd);
		j = m->event == UFFD_EVENT_PAGEFAULT ? job_new(c) : NULL;
		good &= j != NULL;
		if (!j)
			continue;
		j->fault = true;
		j->addr = m->arg.pagefault.address & ~(uint64_t)(PINFS_PAGE_SIZE - 1);
		j->write = m->arg.pagefault.flags & (UFFD_PAGEFAULT_FLAG_WRITE | UFFD_PAGEFAULT_FLAG_WP);
		job_push(c->share, j);
	}
	if (!good)
		client_cut(c, "its userfaultfd says what it must not");
}

/* The client that an event is of, if it is still connected, with a reference; and what its faults are read from. */
static struct client *client_hold(struct share *s, uint64_t event, int *ret_faults)
{
	struct client *c;

	mutex_lock(&s->lock);
	for (c = s->clients; c && c->id != event >> 1; c = c->next)
		;
	if (c) {
		c->refs++;
		*ret_faults = c->faults;
	}
	mutex_unlock(&s->lock);
	return c;
}

static void *reader_main(void *arg)
{
	struct share *s = arg;

	for (;;) {
		struct epoll_event events[READ_BATCH];
		int n = epoll_wait(s->epoll, events, READ_BATCH, -1);

		for (int i = 0; i < n; i++) {
			struct client *c;
			int faults = -1;

			if (!events[i].data.u64)
				return NULL;
			c = client_hold(s, events[i].data.u64, &faults);
			if (!c)
				continue;
			if (!(events[i].data.u64 & 1))
				read_message(c);
			else if (events[i].events & (EPOLLERR | EPOLLHUP))
				/* One that would have us wait when it is read, or none. */
				client_cut(c, "its userfaultfd can't be read");
			else
				read_faults(c, faults);
			client_put(c);
		}
	}
}

/* ---- tokens ---- */

int share_token(struct share *s, uint64_t ino, bool write, uint8_t ret[PINFS_TOKEN_SIZE])
{
	uint64_t now = now_ns();
	struct token t = {.ino = ino, .since = now, .write = write};
	int r = -EMFILE;

	if (getrandom(t.bytes, sizeof(t.bytes), 0) != sizeof(t.bytes))
		return -EIO;
	mutex_lock(&s->lock);
	for (size_t i = 0; r < 0 && i < TOKENS_MOST; i++) {
		if (s->tokens[i].since && now - s->tokens[i].since < TOKEN_NS)
			continue;
		s->tokens[i] = t;
		r = 0;
	}
	mutex_unlock(&s->lock);
	if (r == 0)
		memcpy(ret, t.bytes, sizeof(t.bytes));
	return r;
}

/* Takes as long whatever is wrong. */
static bool same_bytes(const uint8_t *a, const uint8_t *b, size_t n)
{
	uint8_t differ = 0;

	for (size_t i = 0; i < n; i++)
		differ |= a[i] ^ b[i];
	return !differ;
}

int token_take(struct share *s, const uint8_t bytes[PINFS_TOKEN_SIZE], uint64_t *ret_ino, bool *ret_write)
{
	int r = -EACCES;

	mutex_lock(&s->lock);
	for (size_t i = 0; i < TOKENS_MOST; i++) {
		struct token *t = &s->tokens[i];

		if (!t->since || now_ns() - t->since >= TOKEN_NS || !same_bytes(t->bytes, bytes, sizeof(t->bytes)))
			continue;
		*ret_ino = t->ino;
		*ret_write = t->write;
		*t = (struct token){0};
		r = 0;
	}
	mutex_unlock(&s->lock);
	return r;
}

/* ---- beginning and end ---- */

static void options_fill(struct share_options *o)
{
	struct cache_stats stats;

	cache_get_stats(vfs_cache(o->vfs), &stats);
	o->threads = o->threads ? o->threads : THREADS;
	o->clients_most = o->clients_most ? o->clients_most : CLIENTS_MOST;
	o->files_most = o->files_most ? o->files_most : SLOTS_MOST;
	o->maps_most = o->maps_most ? o->maps_most : SLOTS_MOST;
	o->pages_most = o->pages_most ? o->pages_most : PAGES_MOST;
	o->held_most = o->held_most ? o->held_most : MAX(stats.limit / PINFS_PAGE_SIZE / HELD_SHARE, (uint64_t)1);
}

int share_new(const struct share_options *options, struct share **ret)
{
	struct epoll_event e = {.events = EPOLLIN};
	struct share *s = calloc(1, sizeof(*s));
	int r = 0;

	if (!s)
		return -ENOMEM;
	s->options = *options;
	options_fill(&s->options);
	s->last = &s->first;
	mutex_init(&s->lock, LOCK_THREAD);
	cond_init(&s->work);
	cond_init(&s->gone);
	s->workers = calloc(s->options.threads, sizeof(*s->workers));
	s->epoll = epoll_create1(EPOLL_CLOEXEC);
	s->stop = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (!s->workers)
		r = -ENOMEM;
	else if (s->epoll < 0 || s->stop < 0 || epoll_ctl(s->epoll, EPOLL_CTL_ADD, s->stop, &e) < 0)
		r = -errno;
	if (r == 0) {
		r = thread_start(&s->reader, reader_main, s);
		s->reader_started = r == 0;
	}
	for (; r == 0 && s->worker_count < s->options.threads; s->worker_count += r == 0)
		r = thread_start(&s->workers[s->worker_count], worker_main, s);
	if (r < 0) {
		share_free(s);
		return r;
	}
	*ret = s;
	return 0;
}

void share_free(struct share *s)
{
	uint64_t one = 1;

	if (!s)
		return;
	mutex_lock(&s->lock);
	s->stopping = true;
	mutex_unlock(&s->lock);
	if (s->reader_started) {
		if (write(s->stop, &one, sizeof(one)) == sizeof(one))
			pthread_join(s->reader, NULL);
	}
	/* Whoever is left. Those that are being connected count, and go by themselves. */
	for (;;) {
		struct client *c;

		mutex_lock(&s->lock);
		c = s->clients;
		if (c)
			c->refs++;
		mutex_unlock(&s->lock);
		if (!c)
			break;
		client_cut(c, NULL);
		client_put(c);
	}
	mutex_lock(&s->lock);
	while (s->client_count)
		cond_wait(&s->gone, &s->lock);
	s->ended = true;
	cond_broadcast(&s->work);
	mutex_unlock(&s->lock);
	for (unsigned i = 0; i < s->worker_count; i++)
		pthread_join(s->workers[i], NULL);
	if (s->epoll >= 0)
		close(s->epoll);
	if (s->stop >= 0)
		close(s->stop);
	cond_destroy(&s->gone);
	cond_destroy(&s->work);
	mutex_destroy(&s->lock);
	free(s->workers);
	free(s);
}
