/* SPDX-License-Identifier: MIT */
#include "client/connection.h"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/message.h"
#include "base/sync.h"

/* What the daemon needs to hear (mm/uffd.h): missing and minor faults of shared memory, write protection of it, poisoned pages. */
#define FEATURES ((uint64_t)1 << 5 | (uint64_t)1 << 10 | (uint64_t)1 << 12 | (uint64_t)1 << 14)
#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif
#ifndef USERFAULTFD_IOC_NEW
#define USERFAULTFD_IOC_NEW _IO(0xAA, 0x00)
#endif

/* Somebody who waits for a reply. */
struct call {
	struct call *next;
	struct pinfs_message *msg;
	int fd, error;
	bool done;
};

struct connection {
	struct connection *next; /* connections_lock */
	char name[104];
	unsigned users; /* connections_lock */
	struct a32 foreign; /* another process's: we are a child of its */
	struct a32 broken;  /* changes under lock */
	int sock, uffd;
	bool user_mode;

	struct mutex lock;
	struct cond changed;
	struct call *calls; /* lock */
	uint64_t tag;	    /* lock */
	bool reading;	    /* lock: somebody reads the socket */
};

static pthread_once_t once = PTHREAD_ONCE_INIT;
static struct mutex connections_lock;
static struct connection *connections; /* connections_lock */

static void before_fork(void)
{
	mutex_lock(&connections_lock);
}

static void after_fork(void)
{
	mutex_unlock(&connections_lock);
}

/* The parent's are not the child's: what it kept open would keep the parent's maps, when that has died. */
static void in_child(void)
{
	for (struct connection *c = connections; c; c = c->next) {
		if (c->sock >= 0)
			close(c->sock);
		if (c->uffd >= 0)
			close(c->uffd);
		c->sock = c->uffd = -1;
		a32_set(&c->foreign, 1);
	}
	mutex_unlock(&connections_lock);
}

static void start(void)
{
	mutex_init(&connections_lock, LOCK_THREAD);
	pthread_atfork(before_fork, after_fork, in_child);
}

/* ---- userfaultfd ---- */

static int uffd_try(int flags, bool by_device)
{
	int device, fd;

	if (!by_device) {
		fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | flags);
		return fd < 0 ? -errno : fd;
	}
	device = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
	if (device < 0)
		return -errno;
	fd = ioctl(device, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK | flags);
	if (fd < 0)
		fd = -errno;
	close(device);
	return fd;
}

/* The best there is: one that hears of accesses by the kernel, too. */
static int uffd_new(bool *ret_user_mode)
{
	struct uffdio_api api = {.api = UFFD_API, .features = FEATURES};
	int fd = uffd_try(0, false), r;

	*ret_user_mode = false;
	if (fd == -EPERM)
		fd = uffd_try(0, true);
	if (fd < 0) {
		fd = uffd_try(UFFD_USER_MODE_ONLY, false);
		*ret_user_mode = true;
	}
	if (fd < 0)
		return fd == -ENOSYS ? -EOPNOTSUPP : fd;
	if (ioctl(fd, UFFDIO_API, &api) == 0)
		return fd;
	r = errno == EINVAL ? -EOPNOTSUPP : -errno;
	close(fd);
	return r;
}

/* ---- requests ---- */

/* Hands a reply to who waits for it. */
static void deliver_locked(struct connection *c, const struct pinfs_message *msg, int fd)
{
	for (struct call *call = c->calls; call; call = call->next) {
		if (call->done || call->msg->tag != msg->tag)
			continue;
		*call->msg = *msg;
		call->fd = fd;
		call->error = msg->error;
		call->done = true;
		return;
	}
	if (fd >= 0)
		close(fd);
}

/* Nobody gets a reply any more. */
static void break_locked(struct connection *c)
{
	a32_set(&c->broken, 1);
	for (struct call *call = c->calls; call; call = call->next) {
		if (!call->done)
			call->error = -EPIPE;
		call->done = true;
	}
}

/* Reads one reply, whoever it is for. The lock is dropped meanwhile. */
static void read_locked(struct connection *c)
{
	struct pinfs_message msg;
	int fd = -1;
	bool good;

	c->reading = true;
	mutex_unlock(&c->lock);
	good = message_receive(c->sock, &msg, sizeof(msg), &fd, 0) == 0;
	mutex_lock(&c->lock);
	c->reading = false;
	if (good)
		deliver_locked(c, &msg, fd);
	else
		break_locked(c);
	cond_broadcast(&c->changed);
}

int connection_ask(struct connection *c, struct pinfs_message *msg, int fd, int *ret_fd)
{
	struct call call = {.msg = msg, .fd = -1}, **p;
	struct pinfs_message sent;

	if (!connection_mine(c) || a32_read(&c->broken))
		return -EPIPE;
	mutex_lock(&c->lock);
	msg->size = sizeof(*msg);
	msg->tag = ++c->tag;
	sent = *msg;
	call.next = c->calls;
	c->calls = &call;
	mutex_unlock(&c->lock);
	if (message_send(c->sock, &sent, sizeof(sent), fd, 0) < 0) {
		mutex_lock(&c->lock);
		break_locked(c);
		cond_broadcast(&c->changed);
		mutex_unlock(&c->lock);
	}
	mutex_lock(&c->lock);
	/* One that was broken before it knew of this call tells it nothing. */
	if (a32_read(&c->broken))
		break_locked(c);
	while (!call.done) {
		if (c->reading)
			cond_wait(&c->changed, &c->lock);
		else
			read_locked(c);
	}
	for (p = &c->calls; *p != &call; p = &(*p)->next)
		;
	*p = call.next;
	mutex_unlock(&c->lock);
	if (ret_fd)
		*ret_fd = call.fd;
	else if (call.fd >= 0)
		close(call.fd);
	return call.error;
}

/* ---- making one ---- */

static void connection_free(struct connection *c)
{
	if (c->sock >= 0)
		close(c->sock);
	if (c->uffd >= 0)
		close(c->uffd);
	/* In a child somebody seems to wait there, who is the parent's. */
	if (connection_mine(c)) {
		cond_destroy(&c->changed);
		mutex_destroy(&c->lock);
	}
	free(c);
}

static int hello(struct connection *c)
{
	struct pinfs_message msg = {.type = PINFS_HELLO, .id = PINFS_PROTOCOL_VERSION};

	c->uffd = uffd_new(&c->user_mode);
	return c->uffd < 0 ? c->uffd : connection_ask(c, &msg, c->uffd, NULL);
}

int connection_new(int sock, struct connection **ret)
{
	struct connection *c = calloc(1, sizeof(*c));
	int r;

	pthread_once(&once, start);
	if (!c) {
		close(sock);
		return -ENOMEM;
	}
	c->sock = sock;
	c->uffd = -1;
	c->users = 1;
	mutex_init(&c->lock, LOCK_THREAD);
	cond_init(&c->changed);
	r = hello(c);
	if (r < 0) {
		connection_free(c);
		return r;
	}
	mutex_lock(&connections_lock);
	c->next = connections;
	connections = c;
	mutex_unlock(&connections_lock);
	*ret = c;
	return 0;
}

static int connect_to(const char *name)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	size_t len = strnlen(name, sizeof(a.sun_path) - 1);
	int sock;

	memcpy(a.sun_path + 1, name, len);
	sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (sock < 0)
		return -errno;
	if (connect(sock, (struct sockaddr *)&a, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + len)) < 0) {
		int r = errno == ECONNREFUSED ? -EPIPE : -errno;

		close(sock);
		return r;
	}
	return sock;
}

int connection_get(const char *name, struct connection **ret)
{
	struct connection *c;
	int sock, r;

	pthread_once(&once, start);
	mutex_lock(&connections_lock);
	for (c = connections; c; c = c->next)
		if (connection_mine(c) && !a32_read(&c->broken) && !strncmp(c->name, name, sizeof(c->name)))
			break;
	if (c)
		c->users++;
	mutex_unlock(&connections_lock);
	if (c) {
		*ret = c;
		return 0;
	}
	sock = connect_to(name);
	if (sock < 0)
		return sock;
	r = connection_new(sock, &c);
	if (r < 0)
		return r;
	mutex_lock(&connections_lock);
	memcpy(c->name, name, strnlen(name, sizeof(c->name) - 1));
	mutex_unlock(&connections_lock);
	*ret = c;
	return 0;
}

void connection_put(struct connection *c)
{
	struct connection **p;
	bool last;

	if (!c)
		return;
	mutex_lock(&connections_lock);
	last = --c->users == 0;
	if (last) {
		for (p = &connections; *p != c; p = &(*p)->next)
			;
		*p = c->next;
	}
	mutex_unlock(&connections_lock);
	if (last)
		connection_free(c);
}

int connection_uffd(const struct connection *c, bool *ret_user_mode)
{
	*ret_user_mode = c->user_mode;
	return c->uffd;
}

bool connection_mine(const struct connection *c)
{
	return !a32_read(&c->foreign);
}
