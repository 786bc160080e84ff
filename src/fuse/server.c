/* SPDX-License-Identifier: MIT */
/* The session: made, mounted, run, ended. */
#include "fuse/internal.h"

#include <stdarg.h>

/* What libfuse said last while mounting; it has one log function for the process. Written by the main thread alone. */
static char mount_reason[256];
static bool mounting;

static void on_fuse_log(enum fuse_log_level level, const char *fmt, va_list ap)
{
	char text[sizeof(mount_reason)];
	const char *p = text;

	vsnprintf(text, sizeof(text), fmt, ap);
	text[strcspn(text, "\n")] = 0;
	if (!strncmp(p, "fuse: ", 6))
		p += 6;
	if (mounting)
		snprintf(mount_reason, sizeof(mount_reason), "%s", p);
	else
		log_msg(level <= FUSE_LOG_ERR ? LOG_LEVEL_ERROR : level <= FUSE_LOG_WARNING ? LOG_LEVEL_WARNING :
											      LOG_LEVEL_DEBUG, "%s", p);
}

static int session_new(struct fuse_server *s)
{
	struct fuse_args args = FUSE_ARGS_INIT(0, NULL);
	int r = 0;

	if (fuse_opt_add_arg(&args, "pinfs") || fuse_opt_add_arg(&args, "-o") ||
		fuse_opt_add_arg(&args, s->mount_options) || (s->debug && fuse_opt_add_arg(&args, "-d")))
		r = -ENOMEM;
	if (r == 0) {
		const struct fuse_lowlevel_ops *ops = s->writable ? &fuse_ops_writable : &fuse_ops_readonly;

		s->session = fuse_session_new(&args, ops, sizeof(*ops), s);
		if (!s->session)
			r = -EINVAL;
	}
	fuse_opt_free_args(&args);
	return r;
}

int fuse_server_new(struct vfs *vfs, const struct fuse_server_options *o, struct fuse_server **ret)
{
	struct fuse_server *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return -ENOMEM;
	s->vfs = vfs;
	s->transport = &fuse_transport_dev;
	s->threads = o->threads;
	s->caching = o->caching;
	s->writable = vfs_writable(vfs);
	s->debug = o->debug;
	s->elsewhere = o->elsewhere;
	s->image = strdup(o->image);
	s->mount_options = strdup(o->mount_options);
	fuse_set_log_func(on_fuse_log);
	r = s->image && s->mount_options ? session_new(s) : -ENOMEM;
	if (r < 0) {
		fuse_server_free(s);
		return r;
	}
	*ret = s;
	return 0;
}

int fuse_server_mount(struct fuse_server *s, const char *dir, const char **ret_reason)
{
	int r;

	mount_reason[0] = 0;
	*ret_reason = mount_reason;
	fuse_leave_prepare(s);
	mounting = true;
	r = fuse_session_mount(s->session, dir);
	mounting = false;
	s->mounted = r == 0;
	if (s->mounted)
		fuse_leave_mounted(s, dir);
	return r == 0 && s->writable ? fuse_wire_attach(s) : r;
}

int fuse_server_run(struct fuse_server *s)
{
	int r = fuse_leave_watch(s);

	if (r == 0 && s->writable)
		r = fuse_late_start(s);
	vfs_start(s->vfs);
	if (r == 0)
		r = s->transport->run(s);
	fuse_late_stop(s);
	fuse_leave_served(s);
	if (!s->elsewhere)
		fuse_session_unmount(s->session);
	s->mounted = false;
	fuse_leave_end(s);
	/* Positive: the signal that ended it, which is a way to be asked. */
	return MIN(r, 0);
}

void fuse_server_free(struct fuse_server *s)
{
	if (!s)
		return;
	if (s->mounted && !s->elsewhere)
		fuse_session_unmount(s->session);
	if (s->session)
		fuse_session_destroy(s->session);
	free(s->leave.dir);
	free(s->image);
	free(s->mount_options);
	free(s);
}
