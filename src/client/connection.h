/* SPDX-License-Identifier: MIT */
/*
 * A process's connection to a daemon: requests and their replies, and the userfaultfd that all its maps are registered with.
 *
 * Used by: client. Private to libpinfs. Thread safe: whoever waits for a reply reads the socket if nobody else does, and hands over what is
 * another's.
 */
#ifndef PINFS_CLIENT_CONNECTION_H
#define PINFS_CLIENT_CONNECTION_H

#include "base/util.h"
#include "pinfs/protocol.h"

struct connection;

/* The process's one to the daemon with this socket, made if need be; connection_put() gives it back. -errno as pinfs_map(). */
int connection_get(const char *socket_name, struct connection **ret);
/* One over a socket that is connected already, and belongs to it from now on, also on failure. */
int connection_new(int sock, struct connection **ret);
void connection_put(struct connection *connection);
/* Its userfaultfd; user_mode: it hears of no accesses by the kernel. */
int connection_uffd(const struct connection *connection, bool *ret_user_mode);
/* Made by this process, and not by one that it was forked from? */
bool connection_mine(const struct connection *connection);

/*
 * Sends the message, whose tag and size are set here, and waits for the reply, which takes its place. *ret_fd: a descriptor that came with it,
 * or -1; may be NULL if none can. The reply's error, or -EPIPE: the daemon has gone, or cut us off.
 */
int connection_ask(struct connection *connection, struct pinfs_message *message, int fd, int *ret_fd);

#endif
