/* SPDX-License-Identifier: MIT */
/*
 * Requests that are answered late: first the kernel has to write back what it has of a file.
 *
 * It does so while we wait in a notification, by requests that must be served meanwhile. So a thread that does nothing else waits for
 * it, and answers afterwards; those that serve requests never wait for the kernel. (To
 * have it forget attributes alone takes no waiting.)
 *
 * Nothing may come here that holds a folio of the kernel's locked, such as a read into its page cache: the notification would wait for that
 * folio, and the answer for the notification.
 *
 * The kernel has no notification that writes back without dropping, and it drops a page also while a direct read from elsewhere goes into
 * a mapping of it: what that read brings is lost then. So the range is as small as it can be.
 */
#include "fuse/internal.h"

#include <poll.h>

#include "base/sync.h"

struct fuse_late_queue {
	struct fuse_server *server;
	pthread_t thread;
	struct mutex lock; /* guards all below */
	struct cond more;
	struct fuse_late *first, **last;
	bool busy, stop;
};

static void *late_run(void *arg)
{
	struct fuse_late_queue *q = arg;
	struct fuse_late *late;

	mutex_lock(&q->lock);
	for (;;) {
		while (!q->first && !q->stop)
			cond_wait(&q->more, &q->lock);
		late = q->first;
		if (!late)
			break;
		q->first = late->next;
		if (!q->first)
			q->last = &q->first;
		q->busy = true;
		mutex_unlock(&q->lock);
		/* Of a file that the kernel doesn't know any more there is nothing to write back; and a mount that ends has no use for the answer. */
		fuse_lowlevel_notify_inval_inode(q->server->session, late->ino, late->from, late->length);
		late->answer(late);
		free(late);
		mutex_lock(&q->lock);
		q->busy = false;
	}
	mutex_unlock(&q->lock);
	return NULL;
}

int fuse_late_start(struct fuse_server *s)
{
	struct fuse_late_queue *q = calloc(1, sizeof(*q));
	int r;

	if (!q)
		return -ENOMEM;
	q->server = s;
	q->last = &q->first;
	mutex_init(&q->lock, LOCK_THREAD);
	cond_init(&q->more);
	r = thread_start(&q->thread, late_run, q);
	if (r < 0) {
		cond_destroy(&q->more);
		mutex_destroy(&q->lock);
		free(q);
		return r;
	}
	s->late = q;
	return 0;
}

void fuse_late_add(const struct fuse_late *request)
{
	struct fuse_late_queue *q = server_of(request->req)->late;
	struct fuse_late *late = malloc(sizeof(*late));

	if (!late) {
		reply_error(request->req, -ENOMEM);
		return;
	}
	*late = *request;
	late->next = NULL;
	mutex_lock(&q->lock);
	*q->last = late;
	q->last = &late->next;
	cond_signal(&q->more);
	mutex_unlock(&q->lock);
}

static bool late_idle(struct fuse_late_queue *q)
{
	bool idle;

	mutex_lock(&q->lock);
	idle = !q->busy && !q->first;
	mutex_unlock(&q->lock);
	return idle;
}

/* Serves what the kernel needs to end a notification, for nobody else does any more. */
static void serve_until_idle(struct fuse_late_queue *q)
{
	struct fuse_session *session = q->server->session;
	struct pollfd p = {.fd = fuse_session_fd(session), .events = POLLIN};
	struct fuse_buf buf = {0};

	while (!late_idle(q)) {
		if (poll(&p, 1, 10) > 0 && p.revents & POLLIN && fuse_session_receive_buf(session, &buf) > 0)
			fuse_session_process_buf(session, &buf);
		/* The connection has been cut: that ends the notification, too. */
		if (p.revents & (POLLERR | POLLHUP | POLLNVAL))
			break;
	}
	free(buf.mem);
}

void fuse_late_stop(struct fuse_server *s)
{
	struct fuse_late_queue *q = s->late;

	if (!q)
		return;
	serve_until_idle(q);
	mutex_lock(&q->lock);
	q->stop = true;
	cond_signal(&q->more);
	mutex_unlock(&q->lock);
	pthread_join(q->thread, NULL);
	cond_destroy(&q->more);
	mutex_destroy(&q->lock);
	free(q);
	s->late = NULL;
}
