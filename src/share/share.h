/* SPDX-License-Identifier: MIT */
/*
 * share: the server of shared maps. Processes come with a token that an open file has given them, map that file's memfd, and hand us
 * their userfaultfd; threads of ours answer their page faults and what they ask (pinfs/protocol.h).
 *
 * Used by: fuse, tests. Uses: vfs, mm, cache, base.
 *
 * One thread reads what comes, from all sockets and userfaultfds; others do the work, which may sleep. No thread of FUSE is one of
 * them: a fault may have to wait for one of those, and the other way round.
 *
 * A client can only harm the content of files that it has open for writing. One that breaks the protocol, goes beyond its limits, or
 * does not read its replies, is cut off: a line in the log says which process, and why. It loses its maps and pins, as one that has died.
 */
#ifndef PINFS_SHARE_SHARE_H
#define PINFS_SHARE_SHARE_H

#include "pinfs/protocol.h"
#include "vfs/vfs.h"

struct share;

struct share_options {
	struct vfs *vfs;
	const char *name;	   /* of the image, for messages; stays the caller's */
	unsigned threads;	   /* that work; 0: 2 */
	unsigned clients_most;	   /* 0: 256 */
	unsigned files_most, maps_most; /* of each client; 0: 1,024 */
	uint64_t pages_most;	   /* of each client's maps; 0: 2^24 (64 GiB) */
	uint64_t held_most;	   /* pages that pins of each client may keep; 0: an eighth of the cache */
};

/* Starts its threads: not in front of a fork(). 0 or -errno. */
int share_new(const struct share_options *options, struct share **ret);
/* Cuts all clients off. NULL is allowed. */
void share_free(struct share *share);

/*
 * Who sends this token within a minute may map the file, once, as it was opened: write: for reading and writing. -EMFILE: too many are
 * about. Thread safe.
 */
int share_token(struct share *share, uint64_t ino, bool write, uint8_t ret[PINFS_TOKEN_SIZE]);
/* A process's end of a SOCK_SEQPACKET connection: it is the server's from now on, also on failure. -EUSERS: too many. Thread safe. */
int share_connect(struct share *share, int fd);
/* Processes that are connected. */
unsigned share_clients(struct share *share);

#endif
