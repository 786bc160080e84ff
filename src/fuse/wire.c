/* SPDX-License-Identifier: MIT */
/*
 * What the protocol has and libfuse hasn't. libfuse lets us read each request and write each reply (custom I/O, since 3.13),
 * always in the thread that serves the request. So flags that it drops are noted for the operation, requests that it
 * doesn't know become those that it does, and the reply to INIT accepts more.
 *
 * Not here: FUSE_SYNCFS (50), which kernels send to virtiofs and block devices only (struct fuse_conn.sync_fs in Linux's
 * fs/fuse): syncfs(2) and sync(2) of a mount like ours write the kernel's dirty pages and end there. FUSE_STATX (52) and
 * FUSE_COPY_FILE_RANGE_64 (53) get libfuse's ENOSYS, after which the kernel asks in the old way.
 */
#include "fuse/internal.h"

#if FUSE_VERSION >= FUSE_MAKE_VERSION(3, 13)

#include <linux/fuse.h>
#include <stddef.h>

/* From Linux's include/uapi/linux/fuse.h, protocol 7.39 and 7.41. */
#ifndef FUSE_DIRECT_IO_ALLOW_MMAP
#define FUSE_DIRECT_IO_ALLOW_MMAP (1ULL << 36)
#endif
#ifndef FUSE_ALLOW_IDMAP
#define FUSE_ALLOW_IDMAP (1ULL << 40)
#endif

static _Thread_local struct fuse_marks marks;

const struct fuse_marks *fuse_marks(void)
{
	return &marks;
}

bool fuse_wire_kills_priv(const struct fuse_server *s)
{
	return s->init_extra & FUSE_HANDLE_KILLPRIV_V2;
}

void fuse_wire_want(struct fuse_server *s)
{
	/*
	 * IDMAP: the kernel takes it only with default_permissions, and that is in our mount options.
	 * PARALLEL_DIROPS: libfuse 3.14 has a capability of this name, but never says so to the kernel.
	 */
	uint64_t want = FUSE_HANDLE_KILLPRIV_V2 | FUSE_SETXATTR_EXT | FUSE_ALLOW_IDMAP | FUSE_PARALLEL_DIROPS;

	/* Mappings shared for writing, of files that have no page cache else */
	if (s->caching == FUSE_CACHE_DAEMON)
		want |= FUSE_DIRECT_IO_ALLOW_MMAP;
	s->init_extra = want & s->init_offered;
}

/* An argument of a request, NULL if the request is too short for it. */
static void *argument(void *request, size_t len, size_t size)
{
	return len >= sizeof(struct fuse_in_header) + size ? (char *)request + sizeof(struct fuse_in_header) : NULL;
}

static void note_init(struct fuse_server *s, const struct fuse_init_in *in, size_t len)
{
	marks.init = true;
	s->init_offered = in->flags;
	if (in->flags & FUSE_INIT_EXT &&
		len >= sizeof(struct fuse_in_header) + offsetof(struct fuse_init_in, flags2) + sizeof(in->flags2))
		s->init_offered |= (uint64_t)in->flags2 << 32;
}

/* libfuse takes the name to be where it was before there were setxattr_flags. Returns the new length. */
static size_t shorten_setxattr(struct fuse_in_header *h, struct fuse_setxattr_in *in, size_t len)
{
	size_t more = sizeof(*in) - FUSE_COMPAT_SETXATTR_IN_SIZE;
	char *rest = (char *)(in + 1);

	marks.acl_kill_sgid = in->setxattr_flags & FUSE_SETXATTR_ACL_KILL_SGID;
	memmove(rest - more, rest, len - sizeof(*h) - sizeof(*in));
	h->len -= (uint32_t)more;
	return len - more;
}

/* Looks at a request before libfuse does; returns its length. One that is shorter than it should be is left to libfuse. */
static size_t request_note(struct fuse_server *s, void *request, size_t len)
{
	struct fuse_in_header *h = request;
	union {
		void *any;
		struct fuse_init_in *init;
		struct fuse_open_in *open;
		struct fuse_create_in *create;
		struct fuse_write_in *write;
		struct fuse_read_in *read;
		struct fuse_setattr_in *setattr;
		struct fuse_setxattr_in *setxattr;
	} in;

	if (len < sizeof(*h))
		return len;
	switch (h->opcode) {
	case FUSE_INIT:
		if ((in.any = argument(request, len, offsetof(struct fuse_init_in, flags2))))
			note_init(s, in.init, len);
		break;
	case FUSE_OPEN:
		if ((in.any = argument(request, len, sizeof(*in.open))))
			marks.kill_priv = in.open->open_flags & FUSE_OPEN_KILL_SUIDGID;
		break;
	case FUSE_TMPFILE:
		/* The same arguments; the name means nothing. */
		h->opcode = FUSE_CREATE;
		marks.tmpfile = true;
		/* fall through */
	case FUSE_CREATE:
		if ((in.any = argument(request, len, sizeof(*in.create))))
			marks.kill_priv = in.create->open_flags & FUSE_OPEN_KILL_SUIDGID;
		break;
	case FUSE_WRITE:
		if ((in.any = argument(request, len, sizeof(*in.write))))
			marks.kill_priv = in.write->write_flags & FUSE_WRITE_KILL_SUIDGID;
		break;
	case FUSE_READDIR:
	case FUSE_READDIRPLUS:
		if ((in.any = argument(request, len, sizeof(*in.read))))
			marks.noatime = in.read->flags & O_NOATIME;
		break;
	case FUSE_SETATTR:
		if ((in.any = argument(request, len, sizeof(*in.setattr))))
			marks.kill_priv = in.setattr->valid & FATTR_KILL_SUIDGID;
		break;
	case FUSE_SETXATTR:
		if (s->init_extra & FUSE_SETXATTR_EXT && (in.any = argument(request, len, sizeof(*in.setxattr))))
			return shorten_setxattr(h, in.setxattr, len);
		break;
	}
	return len;
}

static ssize_t wire_read(int fd, void *buf, size_t size, void *userdata)
{
	ssize_t n = read(fd, buf, size);

	marks = (struct fuse_marks){0};
	return n < 0 ? n : (ssize_t)request_note(userdata, buf, (size_t)n);
}

/* Accepts what was wanted of what was offered, if this is libfuse's reply in full. */
static void init_reply_extend(struct fuse_server *s, const struct iovec *iov, int count)
{
	const struct fuse_out_header *h = iov[0].iov_base;
	struct fuse_init_out *out = count == 2 ? iov[1].iov_base : NULL;

	if (!out || iov[0].iov_len != sizeof(*h) || h->error || iov[1].iov_len < sizeof(*out)) {
		s->init_extra = 0;
		return;
	}
	out->flags |= (uint32_t)s->init_extra;
	if (s->init_extra >> 32) {
		out->flags |= FUSE_INIT_EXT;
		out->flags2 |= (uint32_t)(s->init_extra >> 32);
	}
	if (s->debug)
		log_debug("INIT: offered %#jx, accepted %#jx", (uintmax_t)s->init_offered,
			(uintmax_t)(out->flags | (uint64_t)out->flags2 << 32));
}

static ssize_t wire_writev(int fd, struct iovec *iov, int count, void *userdata)
{
	if (marks.init && count > 0)
		init_reply_extend(userdata, iov, count);
	return writev(fd, iov, count);
}

int fuse_wire_attach(struct fuse_server *s)
{
	static const struct fuse_custom_io io = {.read = wire_read, .writev = wire_writev};

	return fuse_session_custom_io(s->session, &io, fuse_session_fd(s->session));
}

#else

/* The kernel then takes setuid and setgid away itself, and says EOPNOTSUPP to O_TMPFILE. */
const struct fuse_marks *fuse_marks(void)
{
	static const struct fuse_marks none;

	return &none;
}

bool fuse_wire_kills_priv(const struct fuse_server *s)
{
	return false;
}

void fuse_wire_want(struct fuse_server *s)
{
}

int fuse_wire_attach(struct fuse_server *s)
{
	return 0;
}

#endif
