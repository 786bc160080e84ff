/* SPDX-License-Identifier: MIT */
#include "base/message.h"

#include <sys/socket.h>
#include <sys/uio.h>

int message_send(int sock, const void *buf, size_t len, int fd, int flags)
{
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(int))];
	} control = {.header = {.cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS}};
	struct iovec iov = {(void *)buf, len};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};
	ssize_t n;

	if (fd >= 0) {
		memcpy(CMSG_DATA(&control.header), &fd, sizeof(fd));
		m.msg_control = &control;
		m.msg_controllen = sizeof(control);
	}
	do {
		n = sendmsg(sock, &m, flags | MSG_NOSIGNAL);
	} while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n == (ssize_t)len ? 0 : -EIO;
}

/* The descriptors that came: the only one, if there is one; more than that are closed, all but the first. How many. */
static unsigned take_fds(struct msghdr *m, int *ret_fd)
{
	unsigned count = 0;

	for (struct cmsghdr *h = CMSG_FIRSTHDR(m); h; h = CMSG_NXTHDR(m, h)) {
		if (h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t i = 0; i < (h->cmsg_len - CMSG_LEN(0)) / sizeof(int); i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(h) + i * sizeof(int), sizeof(int));
			if (count++)
				close(fd);
			else
				*ret_fd = fd;
		}
	}
	return count;
}

int message_receive(int sock, void *buf, size_t len, int *ret_fd, int flags)
{
	/* Room for two, since padding has that for one: so that a second one is seen, and closed. */
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(2 * sizeof(int))];
	} control;
	struct iovec iov = {buf, len};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
	_cleanup_close_ int fd = -1;
	unsigned fds;
	ssize_t n;

	do {
		n = recvmsg(sock, &m, flags | MSG_CMSG_CLOEXEC);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	fds = take_fds(&m, &fd);
	if (n == 0)
		return -ECONNRESET;
	if (fds > 1 || n != (ssize_t)len || m.msg_flags & (MSG_TRUNC | MSG_CTRUNC))
		return -EPROTO;
	*ret_fd = steal_fd(&fd);
	return 0;
}
