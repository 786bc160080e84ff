/* SPDX-License-Identifier: MIT */
/* What the files of src/fuse share. */
#ifndef PINFS_FUSE_INTERNAL_H
#define PINFS_FUSE_INTERNAL_H

#define FUSE_USE_VERSION 312
#include <fuse3/fuse_lowlevel.h>

#include <signal.h>
#include <stdatomic.h>

#include "base/log.h"
#include "base/sync.h"
#include "fuse/server.h"

/* The way of requests and replies between the kernel and the operations. */
struct fuse_transport_ops {
	const char *name;
	/* Serves until fuse_session_exit() or the end of the mount. 0 or -errno. */
	int (*run)(struct fuse_server *server);
};

extern const struct fuse_transport_ops fuse_transport_dev;

/* leave.c; of the main thread before the watcher is there, then of that, but for what is atomic. */
struct fuse_leave {
	sigset_t signals; /* that end it; blocked in all threads */
	int some_signal;  /* one of them; 0: there is none */
	char *dir;	  /* where it is mounted */
	dev_t device;	  /* number of the mounted filesystem; 0: not known */
	pthread_t main, watcher, syncfs;
	bool watching, syncfs_started, aborted;
	atomic_bool ended;			 /* nobody serves any more */
	atomic_bool syncfs_done, notify_done, moved, stop;
	_Atomic(uint64_t) writes_begun, writes_done; /* requests */
	uint64_t last_begun, quiet_since;
};

struct fuse_server {
	struct vfs *vfs;
	struct fuse_session *session;
	const struct fuse_transport_ops *transport;
	char *image, *mount_options;
	unsigned threads;
	enum fuse_cache_mode caching;
	bool writable, debug, elsewhere;
	bool mounted;
	struct fuse_leave leave;
	/* Set by INIT, before any other request comes. */
	bool no_open, no_opendir;
	struct fuse_late_queue *late; /* while a writable mount is served */
	uint64_t init_offered, init_extra; /* wire.c: the kernel's flags; which of them are accepted past libfuse */
};

/* ---- wire.c: what the protocol has and libfuse hasn't ---- */

/* What the request says, that this thread serves, beyond what libfuse hands on. All false without custom I/O. */
struct fuse_marks {
	bool init;
	bool tmpfile;	    /* it came as FUSE_TMPFILE and goes on as FUSE_CREATE */
	bool kill_priv;	    /* setuid and setgid go: of write, open, create and setattr */
	bool acl_kill_sgid; /* of setxattr */
	bool noatime;	    /* of readdir: it was opened with O_NOATIME */
};
const struct fuse_marks *fuse_marks(void);

/* Goes between libfuse and the mounted session's descriptor. 0 or -errno. */
int fuse_wire_attach(struct fuse_server *server);
/* In INIT: what is wanted of the kernel besides libfuse's capabilities. */
void fuse_wire_want(struct fuse_server *server);
/* It is this daemon that takes setuid and setgid away, not the kernel. */
bool fuse_wire_kills_priv(const struct fuse_server *server);

/* ---- leave.c: the end by a signal ---- */

/* Before it is mounted: signals wait from now on. */
void fuse_leave_prepare(struct fuse_server *server);
void fuse_leave_mounted(struct fuse_server *server, const char *dir);
/* A signal ends the session from now on, once what the kernel has to write is here. 0 or -errno. By the thread that serves. */
int fuse_leave_watch(struct fuse_server *server);
/* Nothing is served any more. */
void fuse_leave_served(struct fuse_server *server);
/* After libfuse has unmounted. */
void fuse_leave_end(struct fuse_server *server);

/* ---- caller.c: who asks ---- */

/* The user, in the daemon's user namespace; (uid_t)-1 if that can't be known. */
uid_t fuse_caller_uid(fuse_req_t req);
bool fuse_caller_has_fsetid(fuse_req_t req);
bool fuse_caller_has_admin(fuse_req_t req);
/* Bytes of the caller's memory, which waits for the reply meanwhile. 0 or -errno. */
int fuse_caller_read(fuse_req_t req, const void *address, void *ret, size_t size);
struct vfs_cred fuse_caller_cred(fuse_req_t req);

/* ---- late.c: requests that are answered when the kernel has written back, and dropped, what it has of a file ---- */

struct fuse_late {
	fuse_req_t req;
	fuse_ino_t ino; /* the file */
	off_t from, length; /* from this byte on; so many, 0: up to the end */
	void (*answer)(const struct fuse_late *late); /* then; in another thread */
	/* For that. */
	size_t size;
	off_t offset, to_offset;
	fuse_ino_t to;
	int flags;
	struct fuse_late *next;
};

int fuse_late_start(struct fuse_server *server);
/* After the last request was served, before the mount is taken away. */
void fuse_late_stop(struct fuse_server *server);
/* Copies *request. Answers it at once if there is no memory. */
void fuse_late_add(const struct fuse_late *request);

/* ---- replies ---- */

static inline struct fuse_server *server_of(fuse_req_t req)
{
	return fuse_req_userdata(req);
}

/* error: 0 or -errno. */
static inline void reply_error(fuse_req_t req, int error)
{
	fuse_reply_err(req, error == -EUCLEAN ? EIO : -error);
}

/* In seconds. Nobody but the kernel that asks changes anything; it clamps what is beyond its clock. */
#define FUSE_FOR_EVER 1e9

double fuse_attr_timeout(const struct fuse_server *server, const struct stat *st);
struct fuse_entry_param fuse_entry_for(struct fuse_server *server, const struct stat *st);
/* r < 0: the error. Else st, which the vfs has counted as known, and does no more if the kernel didn't take it. */
void fuse_reply_found(fuse_req_t req, int r, const struct stat *st);

/* After a change of an inode, or of names in a directory: r, or why it could not be made durable, where that was asked for. */
static inline int settled(fuse_req_t req, int r, uint64_t ino)
{
	return r < 0 ? r : vfs_settle(server_of(req)->vfs, ino);
}

/* ---- the operations, as libfuse declares them ---- */

/* ops_name.c */
void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name);
void op_forget(fuse_req_t req, fuse_ino_t ino, uint64_t count);
void op_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets);
void op_readlink(fuse_req_t req, fuse_ino_t ino);
void op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev);
void op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode);
void op_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name);
void op_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t parent, const char *name);
void op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name);
void op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name);
void op_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t new_parent, const char *new_name,
	unsigned flags);

/* ops_dir.c */
void op_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t cookie, struct fuse_file_info *fi);
void op_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t cookie, struct fuse_file_info *fi);
void op_fsyncdir(fuse_req_t req, fuse_ino_t ino, int data_only, struct fuse_file_info *fi);

/* ops_attr.c */
void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set, struct fuse_file_info *fi);
void op_statfs(fuse_req_t req, fuse_ino_t ino);
void op_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size);
void op_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size);
void op_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size, int flags);
void op_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name);

/* ops_file.c */
void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi);
void op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi);
void op_write(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t size, off_t offset, struct fuse_file_info *fi);
void op_fsync(fuse_req_t req, fuse_ino_t ino, int data_only, struct fuse_file_info *fi);
void op_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t offset, off_t length, struct fuse_file_info *fi);
void op_copy_file_range(fuse_req_t req, fuse_ino_t from, off_t from_offset, struct fuse_file_info *from_fi, fuse_ino_t to,
	off_t to_offset, struct fuse_file_info *to_fi, size_t len, int flags);
void op_lseek(fuse_req_t req, fuse_ino_t ino, off_t offset, int whence, struct fuse_file_info *fi);

/* ioctl.c */
void op_ioctl(fuse_req_t req, fuse_ino_t ino, unsigned cmd, void *arg, struct fuse_file_info *fi, unsigned flags,
	const void *in, size_t in_size, size_t out_size);

/* ops.c: a read-only mount answers ENOSYS to what changes something, as libfuse does for what isn't there. */
extern const struct fuse_lowlevel_ops fuse_ops_readonly, fuse_ops_writable;

#endif
