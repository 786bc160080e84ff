/* SPDX-License-Identifier: MIT */
/*
 * pinfs mount, and the same as mount(8)'s helper mount.pinfs.
 *
 *	pinfs mount ──fork──► daemon: opens the image, mounts, detaches from the terminal, says "ready", serves
 *	     │                   │
 *	     └──── waits ◄───────┘ then looks at the directory, so that it only returns when the mount answers
 *
 * An error is said on stderr by whoever meets it; the daemon's exit status before it is ready is that of the command.
 */
#include "cli/cli.h"

#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <malloc.h>
#include <mntent.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "base/log.h"
#include "cache/trace_file.h"
#include "cli/mount_options.h"
#include "fuse/server.h"
#include "mkfs/tool.h"
#include "pinfs/ioctl.h"

struct mount {
	struct mount_options options;
	bool foreground, debug, fake, sloppy, helper;
	const char *source, *dir, *namespace;
	char image[PATH_MAX], point[PATH_MAX]; /* absolute */
	char trace[PATH_MAX];		       /* absolute; "": none */
	char delta[PATH_MAX];		       /* absolute; "": none */
	bool writable;
	int log_fd, namespace_fd, home_fd;     /* -1: none */
};

static void mount_help(void)
{
	puts("Usage: pinfs mount [OPTION]... IMAGE DIR\n"
	     "Shows what is in an image as the directory DIR. Needs no root. End it with 'pinfs umount DIR'.\n"
	     "\n"
	     "  -o OPTION[,OPTION]...  mount options:\n"
	     "       rw                      changes are possible, and are kept in the file IMAGE.delta (default: ro)\n"
	     "       delta=FILE              …are kept in this file; with ro: are shown\n"
	     "       ephemeral               …are kept until it is unmounted\n"
	     "       size=SIZE               …may take so much room\n"
	     "       norecovery              refuse changes that were not unmounted, instead of recovering them\n"
	     "       noatime, strictatime    access times of what is read: never, always (default: relatime)\n"
	     "       sync, dirsync           each change, or each of names, is on the disk when the call returns\n"
	     "       uid=N, gid=N            show everything as owned by this user, this group\n"
	     "       uidmap=FROM:TO[:COUNT]  show some owners as others; gidmap= likewise; several with ';' between\n"
	     "       allow_other             other users may look, too (default if root mounts: noallow_other)\n"
	     "       allow_root              root may look, too\n"
	     "       offset=N                the image begins at byte N of its file (default: auto)\n"
	     "       cache_size=SIZE         memory for content (default: 1/64 of RAM, from 16M to 128M)\n"
	     "       cache=daemon            the kernel caches no content (default: kernel)\n"
	     "       cache=writeback         …caches what is written, too, until it likes to hand it on\n"
	     "       io=uring|pread          how the image is read (default: auto)\n"
	     "       image_io=direct|buffered  past the kernel's cache, or through it (default: auto)\n"
	     "       threads=N               serve at most N requests at a time\n"
	     "       log=FILE                messages go there (default: syslog)\n"
	     "       trace=FILE              write what the daemon's cache does into this new file\n"
	     "       fsname=NAME             what 'mount' and 'df' show as the source (default: the image)\n"
	     "       suid, dev, noexec, …    as for mount(8); suid and dev only for root\n"
	     "  -f, --foreground       stay in the foreground\n"
	     "  -d, --debug            the same, and show every request\n"
	     "  -h, --help             this text\n"
	     "  -V, --version          version of this program\n"
	     "\n"
	     "In /etc/fstab:  /srv/data.pinfs  /mnt/data  pinfs  noauto,user  0  0");
}

static void usage(void)
{
	fputs("Try 'pinfs mount --help'.\n", stderr);
}

/* ---- the daemon ---- */

static unsigned readahead_threads(void)
{
	return MIN(MAX(tool_cpus(), 2u), 4u);
}

static const char *temporary_dir(void)
{
	const char *dir = getenv("TMPDIR");

	return dir && *dir ? dir : "/var/tmp";
}

/* One that can't be opened is said here, all else in `error`. */
static int open_image(const struct mount *m, const struct vfs_options *options, struct vfs **ret, char error[IMAGE_ERROR_SIZE])
{
	struct io_options io_options = {.engine = m->options.engine, .caching = m->options.caching, .lanes = 8};
	struct io_file *io;
	int r = io_open(m->image, &io_options, &io);

	error[0] = 0;
	if (r == 0)
		return vfs_new(io, options, ret, error);
	log_error("can't open %s: %s", m->source,
		r == -EISDIR  ? "it is a directory; the image comes first: pinfs mount IMAGE DIR" :
		r == -ENOTBLK ? "it is neither a file nor a block device" :
				strerror(-r));
	return r;
}

static int open_vfs(struct mount *m, struct vfs **ret)
{
	const struct mount_options *o = &m->options;
	struct vfs_options options = {
		.name = m->image,
		.offset = o->offset,
		.cache_limit = o->cache_size,
		.readahead_threads = readahead_threads(),
		.uids = o->uids,
		.gids = o->gids,
	};
	struct vfs_delta_options delta = {
		.path = *m->delta ? m->delta : NULL,
		.dir = temporary_dir(),
		.size_limit = o->size,
		.atime = o->atime,
		.nodiratime = o->nodiratime,
		.sync = o->sync,
		.dirsync = o->dirsync,
		.norecovery = o->norecovery,
		.read_only = !m->writable,
	};
	char error[IMAGE_ERROR_SIZE];
	int r;

	if (m->writable || *m->delta)
		options.delta = &delta;
	r = open_image(m, &options, ret, error);
	/* Who can't change anything as long as there is no room has his files all the same. A delta that was only made now is gone again. */
	if ((r == -ENOSPC || r == -EDQUOT) && m->writable && *m->delta && access(m->delta, F_OK) == 0) {
		log_warning("%s: %s; it is mounted read-only: make room, and mount it again", m->source, error);
		m->writable = false;
		delta.read_only = true;
		r = open_image(m, &options, ret, error);
	}
	if (r < 0) {
		if (error[0])
			log_error("%s: %s", m->source, error);
		return r;
	}
	if (vfs_image_info(*ret)->from_backup)
		log_warning("%s: the first superblock is damaged; using the copy at the end", m->source);
	return 0;
}

static bool program_exists(const char *name)
{
	_cleanup_free_ char *path = NULL;
	char *rest;

	if (!getenv("PATH"))
		return true; /* can't know */
	path = strdup(getenv("PATH"));
	rest = path;
	for (char *dir; rest && (dir = strsep(&rest, ":"));) {
		char file[PATH_MAX];

		if ((size_t)snprintf(file, sizeof(file), "%s/%s", *dir ? dir : ".", name) < sizeof(file) &&
			access(file, X_OK) == 0)
			return true;
	}
	return access("/usr/bin/fusermount3", X_OK) == 0 || access("/bin/fusermount3", X_OK) == 0;
}

/* Says why mounting failed, and what helps. */
static void explain_mount_failure(const struct mount *m, const char *reason)
{
	if (access("/dev/fuse", F_OK) < 0)
		log_error("can't mount on %s: there is no /dev/fuse; as root: modprobe fuse (in a container: start it "
			  "with --device /dev/fuse)", m->dir);
	else if (access("/dev/fuse", R_OK | W_OK) < 0)
		log_error("can't mount on %s: no permission to open /dev/fuse; as root: chmod 666 /dev/fuse", m->dir);
	else if (*reason)
		log_error("can't mount on %s: %s", m->dir, reason);
	else
		log_error("can't mount on %s", m->dir);
}

/*
 * mount -N: the mount appears in another mount namespace, the image is found in this one. The daemon doesn't stay
 * there: it would keep the namespace, with its own mount in it, for ever.
 */
static int namespace_enter(const struct mount *m, int fd)
{
	if (fd < 0 || setns(fd, CLONE_NEWNS) == 0)
		return 0;
	log_error("can't enter mount namespace %s: %s", m->namespace, strerror(errno));
	return -errno;
}

static void namespace_close(struct mount *m)
{
	if (m->namespace_fd >= 0)
		close(m->namespace_fd);
	if (m->home_fd >= 0)
		close(m->home_fd);
	m->namespace_fd = m->home_fd = -1;
}

static int daemon_mount(struct mount *m, struct vfs *vfs, struct fuse_server **ret)
{
	_cleanup_free_ char *fuse_options = mount_options_for_fuse(&m->options, m->image, m->writable);
	struct fuse_server_options options = {
		.image = m->image,
		.mount_options = fuse_options,
		.caching = m->options.cache == MOUNT_CACHE_DAEMON ? FUSE_CACHE_DAEMON :
			m->options.cache == MOUNT_CACHE_WRITEBACK ? FUSE_CACHE_WRITEBACK : FUSE_CACHE_KERNEL,
		.threads = m->options.threads,
		.debug = m->debug,
		.elsewhere = m->namespace_fd >= 0,
	};
	struct fuse_server *server;
	const char *reason;
	int r;

	if (!fuse_options || fuse_server_new(vfs, &options, &server) < 0) {
		log_error("can't start a FUSE session: out of memory");
		return MOUNT_SYSTEM;
	}
	if (geteuid() && !program_exists("fusermount3")) {
		log_error("fusermount3 is missing, through which ordinary users mount; install the package fuse3");
		fuse_server_free(server);
		return MOUNT_FAIL;
	}
	r = namespace_enter(m, m->namespace_fd);
	if (r == 0) {
		r = fuse_server_mount(server, m->point, &reason);
		if (r < 0)
			explain_mount_failure(m, reason);
		if (namespace_enter(m, m->home_fd) < 0)
			r = -EPERM;
		namespace_close(m);
	}
	if (r < 0) {
		fuse_server_free(server);
		return MOUNT_FAIL;
	}
	*ret = server;
	return MOUNT_OK;
}

/* Leaves the terminal: nobody reads it any more, and a pipe that somebody does read must see its end. */
static void detach(const struct mount *m)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (null >= 0) {
		dup2(null, STDIN_FILENO);
		dup2(null, STDOUT_FILENO);
		dup2(m->log_fd >= 0 ? m->log_fd : null, STDERR_FILENO);
		close(null);
	}
	if (m->log_fd < 0)
		log_to_syslog();
}

/*
 * -o trace: a new file, which nobody else can read, since it tells what is read from the mount. With O_EXCL no link is
 * followed, and no file of the user's is lost by a slip.
 */
static int tracing_begin(const struct mount *m, struct vfs *vfs, struct trace_drain **ret)
{
	int fd, r;

	if (!*m->trace)
		return 0;
	fd = open(m->trace, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	r = fd < 0 ? -errno : trace_drain_start(vfs_trace(vfs), fd, ret);
	if (r == 0)
		return 0;
	if (fd >= 0)
		unlink(m->trace);
	log_error("can't write the trace %s: %s", m->options.trace_file, strerror(-r));
	return r;
}

/* served: there is something to keep. */
static void tracing_end(const struct mount *m, struct trace_drain *drain, bool served)
{
	struct trace_drain_result result;

	if (!drain)
		return;
	trace_drain_stop(drain, &result);
	if (!served)
		unlink(m->trace);
	else if (result.error < 0)
		log_error("the trace %s is not complete: %s", m->trace, strerror(-result.error));
	else if (result.lost)
		log_warning("the trace %s lacks %ju of %ju events, which came faster than it was written", m->trace,
			(uintmax_t)result.lost, (uintmax_t)(result.lost + result.events));
}

/* The end of a writable mount: all of it on the disk, and nothing to recover the next time. */
static int save(const struct mount *m, struct vfs *vfs)
{
	int r;

	if (!m->writable || !*m->delta || vfs_failed(vfs))
		return MOUNT_OK;
	r = vfs_sync(vfs);
	if (r == 0)
		r = delta_checkpoint(vfs_delta(vfs));
	if (r == 0)
		return MOUNT_OK;
	log_error("%s: not all changes could be written: %s", m->delta, strerror(-r));
	return MOUNT_SYSTEM;
}

/* Serves in this process. ready: tells the parent, or -1. Returns the exit status. */
static int daemon_run(struct mount *m, int ready)
{
	struct trace_drain *trace = NULL;
	struct fuse_server *server;
	struct vfs *vfs;
	int status, r;

	prctl(PR_SET_NAME, "pinfs");
	/* A limit of files' sizes (ulimit -f) is an error of the write that meets it, not the end. */
	signal(SIGXFSZ, SIG_IGN);
	/* A heap for each thread would be memory that nobody bounds. */
	mallopt(M_ARENA_MAX, 2);
	if (open_vfs(m, &vfs) < 0)
		return MOUNT_FAIL;
	status = tracing_begin(m, vfs, &trace) < 0 ? MOUNT_USAGE : daemon_mount(m, vfs, &server);
	if (status != MOUNT_OK) {
		tracing_end(m, trace, false);
		vfs_abandon(vfs);
		vfs_free(vfs);
		return status;
	}
	if (ready >= 0) {
		detach(m);
		if (write(ready, "", 1) < 0) {
			/* The command was interrupted: the user doesn't want this mount. */
			fuse_server_free(server);
			tracing_end(m, trace, false);
			vfs_free(vfs);
			return MOUNT_USER;
		}
		close(ready);
	}
	r = fuse_server_run(server);
	if (r < 0)
		log_error("%s: serving ended: %s", m->image, strerror(-r));
	status = save(m, vfs);
	fuse_server_free(server);
	tracing_end(m, trace, true);
	vfs_free(vfs);
	return r < 0 ? MOUNT_SYSTEM : status;
}

/* ---- the command ---- */

/* Everything from fd 3 on: the daemon must not hold open what a script had open. */
static void close_others(void)
{
#ifdef SYS_close_range
	syscall(SYS_close_range, 3u, ~0u, 0u);
#endif
}

/* Waits until the daemon is ready or gone; then asks the mount. */
static int wait_ready(const struct mount *m, pid_t daemon, int ready)
{
	struct statfs fs;
	struct stat st;
	ssize_t n;
	char byte;
	int status;

	do {
		n = read(ready, &byte, 1);
	} while (n < 0 && errno == EINTR);
	if (n == 1 && namespace_enter(m, m->namespace_fd) == 0) {
		/* Answered by the daemon; if that dies, the kernel answers in its place. */
		if (statfs(m->point, &fs) == 0 && stat(m->point, &st) == 0)
			return MOUNT_OK;
		log_error("%s is mounted, but does not answer: %s; the system log may say why", m->dir, strerror(errno));
	}
	if (n == 1)
		return MOUNT_FAIL;
	while (waitpid(daemon, &status, 0) < 0 && errno == EINTR)
		;
	if (WIFEXITED(status) && WEXITSTATUS(status))
		return WEXITSTATUS(status); /* it has said why */
	log_error("the daemon ended before it was ready (wait status %#x)", status);
	return MOUNT_SYSTEM;
}

static int run_in_background(struct mount *m)
{
	int fds[2], status;
	pid_t pid;

	if (pipe2(fds, O_CLOEXEC) < 0 || (pid = fork()) < 0) {
		log_error("can't start the daemon: %s", strerror(errno));
		return MOUNT_SYSTEM;
	}
	if (pid == 0) {
		close(fds[0]);
		setsid();
		status = daemon_run(m, fds[1]);
		fflush(NULL);
		_exit(status);
	}
	close(fds[1]);
	status = wait_ready(m, pid, fds[0]);
	close(fds[0]);
	return status;
}

static int check_image(struct mount *m)
{
	if (!realpath(m->source, m->image)) {
		log_error("can't open %s: %s", m->source, strerror(errno));
		return MOUNT_FAIL;
	}
	return MOUNT_OK;
}

/* The daemon works in another directory. */
static bool absolute(const char *name, char ret[PATH_MAX])
{
	char here[PATH_MAX];

	return *name == '/' ? (size_t)snprintf(ret, PATH_MAX, "%s", name) < PATH_MAX :
			      getcwd(here, sizeof(here)) && (size_t)snprintf(ret, PATH_MAX, "%s/%s", here, name) < PATH_MAX;
}

static int check_trace(struct mount *m)
{
	const char *name = m->options.trace_file;

	if (!name || absolute(name, m->trace))
		return MOUNT_OK;
	log_error("can't write the trace %s: %s", name, strerror(ENAMETOOLONG));
	return MOUNT_USAGE;
}

/* Where changes go. The image's name is known. */
static int check_delta(struct mount *m)
{
	const struct mount_options *o = &m->options;
	bool fits = true, beside;

	if (o->ephemeral && o->delta_file) {
		log_error("ephemeral changes are kept in no file: leave out 'delta=' or 'ephemeral'");
		return MOUNT_USAGE;
	}
	m->writable = o->writable || o->ephemeral;
	if (o->delta_file)
		fits = absolute(o->delta_file, m->delta);
	else if (!o->ephemeral)
		fits = (size_t)snprintf(m->delta, sizeof(m->delta), "%s.delta", m->image) < sizeof(m->delta);
	if (!fits) {
		log_error("the name of the delta is too long");
		return MOUNT_USAGE;
	}
	beside = !o->delta_file && *m->delta && access(m->delta, F_OK) == 0;
	/* mount(8) says rw unless ro was asked for: that alone makes no new file. */
	if (m->helper && m->writable && !o->delta_file && !o->ephemeral && !beside) {
		log_msg(LOG_LEVEL_WARNING, "%s is mounted read-only; 'delta=FILE' or 'ephemeral' would make it writable", m->source);
		m->writable = false;
	}
	if (!m->writable && !o->delta_file) {
		if (beside && !m->helper)
			log_msg(LOG_LEVEL_WARNING, "the changes in %s are not shown; 'rw' or 'ro,delta=FILE' would", m->delta);
		m->delta[0] = 0;
	}
	if (m->writable && (vfs_idmap_ambiguous(&o->uids) || vfs_idmap_ambiguous(&o->gids))) {
		log_error("%s= maps one owner twice: of what is changed it would not be known whose it is; mount with 'ro', or leave one out",
			vfs_idmap_ambiguous(&o->uids) ? "uidmap" : "gidmap");
		return MOUNT_USAGE;
	}
	if (o->size && !m->writable) {
		log_error("size= is for writable mounts: add 'rw'");
		return MOUNT_USAGE;
	}
	return MOUNT_OK;
}

static int check_dir(struct mount *m)
{
	struct statfs fs;
	struct stat st;

	if (namespace_enter(m, m->namespace_fd) < 0)
		return MOUNT_SYSTEM;
	/* statfs(): the attributes of a dead mount may still be cached. */
	if (!realpath(m->dir, m->point) || statfs(m->point, &fs) < 0 || stat(m->point, &st) < 0) {
		if (errno == ENOENT)
			log_error("there is no directory %s; make it first: mkdir %s", m->dir, m->dir);
		else if (errno == ENOTCONN)
			log_error("%s is a mount whose daemon is dead; remove it first: pinfs umount %s", m->dir, m->dir);
		else
			log_error("can't mount on %s: %s", m->dir, strerror(errno));
		return MOUNT_FAIL;
	}
	if (!S_ISDIR(st.st_mode)) {
		log_error("can't mount on %s: it is not a directory", m->dir);
		return MOUNT_FAIL;
	}
	return namespace_enter(m, m->home_fd) < 0 ? MOUNT_SYSTEM : MOUNT_OK;
}

static int check_options(const struct mount *m)
{
	const struct mount_options *o = &m->options;

	if (geteuid() && (o->suid || o->dev)) {
		log_error("only root may use the mount option '%s'", o->suid ? "suid" : "dev");
		return MOUNT_USAGE;
	}
	return MOUNT_OK;
}

static int namespace_open(struct mount *m)
{
	char path[PATH_MAX];
	uint64_t pid;

	if (!m->namespace)
		return MOUNT_OK;
	if (parse_u64(m->namespace, 1, INT32_MAX, &pid) == 0)
		snprintf(path, sizeof(path), "/proc/%s/ns/mnt", m->namespace);
	else
		snprintf(path, sizeof(path), "%s", m->namespace);
	m->home_fd = open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC);
	m->namespace_fd = open(path, O_RDONLY | O_CLOEXEC);
	if (m->home_fd >= 0 && m->namespace_fd >= 0)
		return MOUNT_OK;
	log_error("can't open mount namespace %s: %s", m->namespace, strerror(errno));
	return MOUNT_SYSTEM;
}

/* Has the mount such an option? The last one of that directory counts. */
static bool mount_has(const char *dir, const char *option)
{
	FILE *f = setmntent("/proc/self/mounts", "r");
	char path[PATH_MAX];
	struct mntent *e;
	bool has = false;

	while (f && realpath(dir, path) && (e = getmntent(f)))
		if (!strcmp(e->mnt_dir, path))
			has = hasmntopt(e, option);
	if (f)
		endmntent(f);
	return has;
}

/* mount -o remount: the kernel's own flags of a mount that there is. */
static int do_remount(struct mount *m)
{
	const struct mount_options *o = &m->options;
	unsigned long flags = MS_REMOUNT | (o->writable ? 0 : MS_RDONLY) | (o->suid ? 0 : MS_NOSUID) | (o->dev ? 0 : MS_NODEV) |
		(o->noexec ? MS_NOEXEC : 0) | (o->noatime ? MS_NOATIME : 0) | (o->nodiratime ? MS_NODIRATIME : 0);
	struct pinfs_ioc_info info = {.size = sizeof(info)};
	int fd = open(m->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC), r;

	r = fd < 0 ? -1 : ioctl(fd, PINFS_IOC_INFO, &info);
	if (r == 0 && !o->writable)
		/* What programs have written is on the disk before it becomes read-only. */
		r = fsync(fd);
	if (fd >= 0)
		close(fd);
	if (r < 0) {
		log_error("can't remount %s: %s", m->dir, errno == ENOTTY ? "it is no mount of pinfs" : strerror(errno));
		return MOUNT_FAIL;
	}
	if (o->writable && !info.writable) {
		log_error("can't remount %s writable: it has no delta; unmount it, and mount it with 'rw'", m->dir);
		return MOUNT_FAIL;
	}
	/* The daemon has its part in these, and takes no new options. */
	if ((o->sync && !mount_has(m->dir, "sync")) || (o->dirsync && !mount_has(m->dir, "dirsync"))) {
		log_error("can't remount %s with 'sync' or 'dirsync'; unmount it, and mount it with that", m->dir);
		return MOUNT_FAIL;
	}
	flags |= (mount_has(m->dir, "sync") ? MS_SYNCHRONOUS : 0) | (mount_has(m->dir, "dirsync") ? MS_DIRSYNC : 0);
	if (mount(NULL, m->dir, NULL, flags, NULL) == 0)
		return MOUNT_OK;
	log_error("can't remount %s: %s", m->dir, errno == EPERM ? "only root may do that" : strerror(errno));
	return MOUNT_FAIL;
}

static int do_mount(struct mount *m)
{
	int status = check_options(m);

	m->log_fd = m->namespace_fd = m->home_fd = -1;
	if (!m->foreground)
		close_others();
	if (status == MOUNT_OK && m->options.remount)
		return do_remount(m);
	if (status == MOUNT_OK)
		status = check_image(m);
	if (status == MOUNT_OK)
		status = check_trace(m);
	if (status == MOUNT_OK)
		status = check_delta(m);
	if (status == MOUNT_OK)
		status = namespace_open(m);
	if (status == MOUNT_OK)
		status = check_dir(m);
	if (status != MOUNT_OK || m->fake)
		return status;
	if (m->options.log_file) {
		m->log_fd = open(m->options.log_file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
		if (m->log_fd < 0) {
			log_error("can't open the log %s: %s", m->options.log_file, strerror(errno));
			return MOUNT_USAGE;
		}
	}
	if (m->foreground) {
		if (m->log_fd >= 0)
			dup2(m->log_fd, STDERR_FILENO);
		return daemon_run(m, -1);
	}
	if (chdir("/") < 0)
		log_debug("can't change to /");
	return run_in_background(m);
}

/* Source and directory; more or less of them is an error. */
static int take_arguments(struct mount *m, int argc, char **argv)
{
	if (argc - optind != 2) {
		log_error(argc - optind < 2 ? "an image and a directory are needed" : "too many arguments: '%s'",
			argc - optind < 2 ? "" : argv[optind + 2]);
		return -EINVAL;
	}
	m->source = argv[optind];
	m->dir = argv[optind + 1];
	return 0;
}

int cmd_mount(int argc, char **argv)
{
	static const struct option longs[] = {
		{"options", required_argument, NULL, 'o'},
		{"foreground", no_argument, NULL, 'f'},
		{"debug", no_argument, NULL, 'd'},
		{"help", no_argument, NULL, 'h'},
		{"version", no_argument, NULL, 'V'},
		{0},
	};
	_cleanup_free_ struct mount *m = calloc(1, sizeof(*m));
	int c, status = MOUNT_USAGE;

	if (!m)
		return MOUNT_SYSTEM;
	mount_options_init(&m->options);
	while ((c = getopt_long(argc, argv, "o:fdhVr", longs, NULL)) != -1) {
		switch (c) {
		case 'o':
			if (mount_options_parse(&m->options, optarg, false) < 0)
				goto out;
			break;
		case 'r':
			m->options.writable = false;
			break;
		case 'd':
			m->debug = true;
			log_init("pinfs", LOG_LEVEL_DEBUG);
			/* fall through */
		case 'f':
			m->foreground = true;
			break;
		case 'h':
			mount_help();
			status = MOUNT_OK;
			goto out;
		case 'V':
			puts("pinfs " PINFS_VERSION);
			status = MOUNT_OK;
			goto out;
		default:
			usage();
			goto out;
		}
	}
	if (take_arguments(m, argc, argv) < 0)
		usage();
	else
		status = do_mount(m);
out:
	mount_options_free(&m->options);
	return status;
}

int mount_helper_main(int argc, char **argv)
{
	_cleanup_free_ struct mount *m = calloc(1, sizeof(*m));
	const char *options[32];
	int c, count = 0, status = MOUNT_USAGE;

	if (!m)
		return MOUNT_SYSTEM;
	m->helper = true;
	mount_options_init(&m->options);
	while ((c = getopt(argc, argv, "sfnvrwo:t:N:hV")) != -1) {
		switch (c) {
		case 's':
			m->sloppy = true;
			break;
		case 'f':
			m->fake = true;
			break;
		case 'r':
			options[count++] = "ro";
			break;
		case 'w':
			options[count++] = "rw";
			break;
		case 'o':
			options[count++] = optarg;
			break;
		case 'N':
			m->namespace = optarg;
			break;
		case 'n': /* there is no /etc/mtab any more */
		case 'v':
		case 't':
			break;
		case 'h':
			mount_help();
			status = MOUNT_OK;
			goto out;
		case 'V':
			puts("pinfs " PINFS_VERSION);
			status = MOUNT_OK;
			goto out;
		default:
			usage();
			goto out;
		}
		if (count == ARRAY_SIZE(options))
			goto out;
	}
	/* -s may come after -o. */
	for (int i = 0; i < count; i++)
		if (mount_options_parse(&m->options, options[i], m->sloppy) < 0)
			goto out;
	if (take_arguments(m, argc, argv) == 0)
		status = do_mount(m);
out:
	mount_options_free(&m->options);
	return status;
}
