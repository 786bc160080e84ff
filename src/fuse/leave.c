/* SPDX-License-Identifier: MIT */
/*
 * The end by a signal. What programs stored through mappings, and where the kernel caches writes all that they wrote, is in
 * the kernel alone: it has to hand that over while requests are still served.
 *
 *	signal ─► watcher ─► flusher: has the kernel write back
 *	             │                    │
 *	             ▼ when that is done, another signal comes, or nothing comes of it for a while
 *	          main thread: leaves its loop, unmounts
 *
 * A thread that waits for the kernel to write back can't be killed, and while it has a descriptor of /dev/fuse the kernel
 * waits for us in turn, even if all others are gone. So most of the waiting is done by syncfs(2) in a thread with descriptors
 * of its own, none of them the device's. It only begins the writing of FUSE files, and needs the mount's directory; the
 * notifications that come after it reach every file, and find little left to wait for.
 */
#include "fuse/internal.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

/* Interrupts the main thread; nobody else gets it. */
#define WAKE SIGUSR1
#define STEP_NS 10000000l
/* Nothing was written for so long: somebody hangs. */
#define PATIENCE_NS 20000000000ull
/* Nothing was on its way for so long: the kernel has nothing more. */
#define QUIET_NS 50000000ull

static void woken(int signal)
{
}

/* Signals that somebody has chosen to ignore (nohup) stay that. */
static void add_signal(struct fuse_leave *l, int signal)
{
	struct sigaction old;

	if (sigaction(signal, NULL, &old) < 0 || old.sa_handler == SIG_IGN)
		return;
	sigaddset(&l->signals, signal);
	l->some_signal = signal;
}

void fuse_leave_prepare(struct fuse_server *s)
{
	struct sigaction action = {.sa_handler = woken};
	struct fuse_leave *l = &s->leave;
	sigset_t wake;

	sigemptyset(&l->signals);
	add_signal(l, SIGTERM);
	add_signal(l, SIGINT);
	add_signal(l, SIGHUP);
	pthread_sigmask(SIG_BLOCK, &l->signals, NULL);
	signal(SIGPIPE, SIG_IGN);
	/* No SA_RESTART. */
	sigaction(WAKE, &action, NULL);
	sigemptyset(&wake);
	sigaddset(&wake, WAKE);
	pthread_sigmask(SIG_UNBLOCK, &wake, NULL);
}

/* The number of the filesystem that a path leads to, without asking its daemon. 0: not known. */
static dev_t device_of(const char *path)
{
	struct statx st;

	return statx(AT_FDCWD, path, AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT, 0, &st) == 0 ? makedev(st.stx_dev_major, st.stx_dev_minor) : 0;
}

void fuse_leave_mounted(struct fuse_server *s, const char *dir)
{
	s->leave.dir = strdup(dir);
	s->leave.device = device_of(dir);
}

/* In a thread with descriptors of its own, which logs nothing: the log's descriptor is not among them. */
static void *syncfs_main(void *arg)
{
	struct fuse_server *s = arg;
	struct fuse_leave *l = &s->leave;
	int fd = -1;

#ifdef SYS_close_range
	if (unshare(CLONE_FILES) == 0 && syscall(SYS_close_range, 0u, ~0u, 0u) == 0)
		fd = open(l->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
#endif
	if (fd >= 0) {
		/* Something else may lie over it by now. */
		if (device_of(l->dir) == l->device)
			syncfs(fd);
		close(fd);
	}
	atomic_store(&l->syncfs_done, true);
	return NULL;
}

/* Requests to write, all that came and those that are being served. */
static uint64_t writes_begun(struct fuse_server *s)
{
	return atomic_load(&s->leave.writes_begun);
}

static bool writes_under_way(struct fuse_server *s)
{
	return atomic_load(&s->leave.writes_done) != writes_begun(s);
}

/* Sleeps a little; false: a signal came. */
static bool wait_step(struct fuse_server *s)
{
	struct timespec step = {.tv_nsec = STEP_NS};

	return sigtimedwait(&s->leave.signals, NULL, &step) < 0 || atomic_load(&s->leave.ended);
}

/* Waits while `going` says so. False: another signal came, or nothing moves. */
static bool wait_while(struct fuse_server *s, bool (*going)(struct fuse_server *s))
{
	uint64_t seen = writes_begun(s), moved = now_ns();

	while (going(s)) {
		if (!wait_step(s))
			return false;
		if (seen != writes_begun(s) || atomic_exchange(&s->leave.moved, false)) {
			seen = writes_begun(s);
			moved = now_ns();
		} else if (now_ns() - moved > PATIENCE_NS) {
			log_error("%s: what the kernel has to write doesn't come; it is lost", s->image);
			return false;
		}
	}
	return true;
}

static bool syncfs_goes_on(struct fuse_server *s)
{
	return !atomic_load(&s->leave.syncfs_done) && !atomic_load(&s->leave.ended);
}

/* Whether requests are still on their way. */
static bool writes_go_on(struct fuse_server *s)
{
	struct fuse_leave *l = &s->leave;
	uint64_t begun = writes_begun(s);

	if (begun != l->last_begun || writes_under_way(s)) {
		l->last_begun = begun;
		l->quiet_since = now_ns();
	}
	return now_ns() - l->quiet_since < QUIET_NS && !atomic_load(&l->ended);
}

static void *notify_main(void *arg)
{
	struct fuse_server *s = arg;
	struct fuse_leave *l = &s->leave;

	/* A file that nobody has open for writing any more was written back when it was closed. */
	for (uint64_t ino = 0; !atomic_load(&l->stop) && vfs_next_writer(s->vfs, ino, &ino) == 0;) {
		fuse_lowlevel_notify_inval_inode(s->session, ino, 0, 0);
		atomic_store(&l->moved, true);
	}
	atomic_store(&l->notify_done, true);
	return NULL;
}

static bool notify_goes_on(struct fuse_server *s)
{
	return !atomic_load(&s->leave.notify_done);
}

/* All requests end with an error, and whoever waits for one goes on. */
static void abort_connection(struct fuse_server *s)
{
	struct fuse_leave *l = &s->leave;
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/sys/fs/fuse/connections/%u/abort", minor(l->device));
	fd = l->device && !major(l->device) ? open(path, O_WRONLY | O_CLOEXEC) : -1;
	if (fd >= 0 && write(fd, "1", 1) < 0)
		log_warning("%s: %s", path, strerror(errno));
	if (fd >= 0)
		close(fd);
	else if (!s->elsewhere && device_of(l->dir) == l->device)
		umount2(l->dir, MNT_FORCE);
	l->aborted = true;
}

/* libfuse takes a connection that was aborted for one that was unmounted. */
static void unmount(struct fuse_server *s)
{
	char *const argv[] = {"fusermount3", "-u", "-q", "-z", "--", s->leave.dir, NULL};
	pid_t pid;

	if (s->elsewhere || !s->leave.device || device_of(s->leave.dir) != s->leave.device)
		return;
	if (geteuid() == 0)
		umount2(s->leave.dir, MNT_DETACH);
	else if (posix_spawnp(&pid, argv[0], NULL, NULL, argv, environ) == 0)
		waitpid(pid, NULL, 0);
}

/* Has the kernel hand over what it has. */
static void flush(struct fuse_server *s)
{
	struct fuse_leave *l = &s->leave;
	pthread_t notify;

	l->quiet_since = now_ns();
	l->last_begun = writes_begun(s);
	if (!s->elsewhere && l->device) {
		l->syncfs_started = thread_start(&l->syncfs, syncfs_main, s) == 0;
		if (l->syncfs_started && !(wait_while(s, syncfs_goes_on) && wait_while(s, writes_go_on)))
			return;
	}
	if (thread_start(&notify, notify_main, s) < 0) {
		log_error("%s: out of memory: what the kernel has to write is lost", s->image);
		return;
	}
	if (!wait_while(s, notify_goes_on)) {
		atomic_store(&l->stop, true);
		/* It can't be left behind; and where this fails, it must be waited for. */
		abort_connection(s);
	}
	pthread_join(notify, NULL);
}

static bool has_something(struct fuse_server *s)
{
	uint64_t ino;

	/* Where the kernel caches writes, times of files that were closed, too. */
	return s->writable && !vfs_failed(s->vfs) && (s->caching == FUSE_CACHE_WRITEBACK || vfs_next_writer(s->vfs, 0, &ino) == 0);
}

static void *watcher_main(void *arg)
{
	struct fuse_server *s = arg;
	struct fuse_leave *l = &s->leave;
	struct timespec step = {.tv_nsec = STEP_NS};
	int signal;

	do {
		if (sigwait(&l->signals, &signal))
			signal = 0;
	} while (!signal && !atomic_load(&l->ended));
	if (!atomic_load(&l->ended) && has_something(s))
		flush(s);
	/* It looks at the flag before it sleeps: a wake in between comes too early. */
	while (!atomic_load(&l->ended)) {
		fuse_session_exit(s->session);
		pthread_kill(l->main, WAKE);
		nanosleep(&step, NULL);
	}
	return NULL;
}

int fuse_leave_watch(struct fuse_server *s)
{
	struct fuse_leave *l = &s->leave;
	int r;

	if (!l->some_signal)
		return 0;
	l->main = pthread_self();
	r = thread_start(&l->watcher, watcher_main, s);
	l->watching = r == 0;
	return r;
}

void fuse_leave_served(struct fuse_server *s)
{
	struct fuse_leave *l = &s->leave;

	if (!l->watching)
		return;
	atomic_store(&l->ended, true);
	/* It takes this for one more. */
	pthread_kill(l->watcher, l->some_signal);
	pthread_join(l->watcher, NULL);
	l->watching = false;
}

void fuse_leave_end(struct fuse_server *s)
{
	struct fuse_leave *l = &s->leave;

	if (l->aborted)
		unmount(s);
	l->aborted = false;
	/* The connection is closed: nothing keeps it. */
	if (l->syncfs_started)
		pthread_join(l->syncfs, NULL);
	l->syncfs_started = false;
}
