/* SPDX-License-Identifier: MIT */
/* What the files of src/fuse share. */
#ifndef PINFS_FUSE_INTERNAL_H
#define PINFS_FUSE_INTERNAL_H

#define FUSE_USE_VERSION 312
#include <fuse3/fuse_lowlevel.h>

#include "base/log.h"
#include "fuse/server.h"

/* The way of requests and replies between the kernel and the operations. */
struct fuse_transport_ops {
	const char *name;
	/* Serves until fuse_session_exit() or the end of the mount. 0 or -errno. */
	int (*run)(struct fuse_server *server);
};

extern const struct fuse_transport_ops fuse_transport_dev;

struct fuse_server {
	struct vfs *vfs;
	struct fuse_session *session;
	const struct fuse_transport_ops *transport;
	char *image, *mount_options;
	unsigned threads;
	bool direct, debug, elsewhere;
	bool mounted, signals;
	/* Set by INIT, before any other request comes. */
	bool no_open, no_opendir;
};

extern const struct fuse_lowlevel_ops fuse_server_ops;

#endif
