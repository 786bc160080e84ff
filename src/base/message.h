/* SPDX-License-Identifier: MIT */
/*
 * One message of a SOCK_SEQPACKET socket, and a descriptor that may go with it.
 *
 * Used by: share, client. flags: as sendmsg(2) and recvmsg(2).
 */
#ifndef PINFS_BASE_MESSAGE_H
#define PINFS_BASE_MESSAGE_H

#include "base/util.h"

/* fd: -1: none goes with it; it stays the caller's. No SIGPIPE. 0 or -errno. */
int message_send(int sock, const void *buf, size_t len, int fd, int flags);
/*
 * A message of just this length. *ret_fd: what came with it, the caller's, close-on-exec; -1: none. 0; -ECONNRESET: the other end is closed;
 * -EPROTO: another length, or several descriptors, which are closed; -errno.
 */
int message_receive(int sock, void *buf, size_t len, int *ret_fd, int flags);

#endif
