/* SPDX-License-Identifier: MIT */
/*
 * The flusher: a thread that writes what has been dirty for long, or is too much, so that nobody else has to wait for
 * that; and that gives memory back when the system is short of it. While nothing is dirty it sleeps and costs nothing.
 */
#include "cache/internal.h"

#include <poll.h>
#include <sys/eventfd.h>

#define EXPIRE_MS 30000u
#define INTERVAL_MS 5000u
/* After one answer to a shortage the effect is waited for. */
#define PRESSURE_PAUSE_MS 1000u

uint64_t flusher_now(void)
{
	return now_ns();
}

int flusher_init(struct cache *c, const struct cache_options *o)
{
	struct flusher *f = &c->flusher;

	f->pressure_fd = o->pressure_fd > 0 ? o->pressure_fd : -1;
	f->expire_ms = o->dirty_expire_ms ? o->dirty_expire_ms : EXPIRE_MS;
	f->interval_ms = o->dirty_interval_ms ? o->dirty_interval_ms : INTERVAL_MS;
	mutex_init(&f->lock, LOCK_READAHEAD);
	f->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	return f->wake_fd < 0 ? -errno : 0;
}

void flusher_wake(struct cache *c)
{
	struct flusher *f = &c->flusher;
	uint64_t one = 1;

	/* Pairs with flusher_sleep(): it sees what is dirty, or we see that it has not been asked. */
	sync_mb();
	if (a32_read(&f->asked) || a32_exchange(&f->asked, 1))
		return;
	/* It can't be full: `asked` lets one in. */
	if (write(f->wake_fd, &one, sizeof(one)) < 0)
		assert(errno == EAGAIN);
}

/* Sleeps until there is something to do. True: memory is short. */
static bool flusher_sleep(struct cache *c)
{
	struct flusher *f = &c->flusher;
	struct pollfd fds[] = {{.fd = f->wake_fd, .events = POLLIN}, {.fd = f->pressure_fd, .events = POLLPRI}};
	uint64_t n;

	if (poll(fds, ARRAY_SIZE(fds), a64_read(&c->dirty) ? (int)f->interval_ms : -1) < 0)
		return false;
	if (fds[0].revents && read(f->wake_fd, &n, sizeof(n)) < 0)
		assert(errno == EAGAIN);
	/* From now on who makes pages dirty wakes us again; what it did before is seen by us. */
	a32_set(&f->asked, 0);
	sync_mb();
	/* A file that is no source of such events any more (its control group is gone) would wake us for ever. */
	if (fds[1].revents & (POLLERR | POLLHUP | POLLNVAL)) {
		close(f->pressure_fd);
		f->pressure_fd = -1;
		return false;
	}
	return fds[1].revents & POLLPRI;
}

static void *flusher_thread(void *arg)
{
	struct cache *c = arg;
	struct flusher *f = &c->flusher;
	uint64_t eased = 0;

	while (!a32_read_acquire(&f->stop)) {
		bool pressure = flusher_sleep(c);
		uint64_t now = flusher_now(), expire = (uint64_t)f->expire_ms * 1000000;

		if (pressure && now >= eased) {
			counter_inc(c, pressure);
			cache_shrink(c);
			eased = flusher_now() + (uint64_t)PRESSURE_PAUSE_MS * 1000000;
		}
		if (!a64_read(&c->dirty) || a32_read_acquire(&f->stop))
			continue;
		counter_inc(c, flusher_runs);
		writeback_background(c, c->dirty_background);
		if (now > expire)
			writeback_old(c, now - expire);
	}
	return NULL;
}

void flusher_start(struct cache *c)
{
	struct flusher *f = &c->flusher;

	if (__builtin_expect(a32_read(&f->started), 1))
		return;
	mutex_lock(&f->lock);
	/* If there can be no thread now, the next who comes tries again; until then writers write themselves. */
	if (!a32_read(&f->started) && thread_start(&f->thread, flusher_thread, c) == 0)
		a32_set(&f->started, 1);
	mutex_unlock(&f->lock);
}

void cache_start(struct cache *c)
{
	flusher_start(c);
}

void flusher_destroy(struct cache *c)
{
	struct flusher *f = &c->flusher;
	uint64_t one = 1;

	if (a32_read(&f->started)) {
		a32_set_release(&f->stop, 1);
		while (write(f->wake_fd, &one, sizeof(one)) < 0 && errno == EINTR)
			continue;
		pthread_join(f->thread, NULL);
	}
	if (f->wake_fd >= 0)
		close(f->wake_fd);
	if (f->pressure_fd >= 0)
		close(f->pressure_fd);
	mutex_destroy(&f->lock);
}
