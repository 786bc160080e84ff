/* SPDX-License-Identifier: MIT */
/*
 * pinfs umount: unmounts, and returns when the daemon has closed its files and is gone, which umount(8) alone does
 * not wait for. Also umount(8)'s helper, as umount.pinfs and umount.fuse.pinfs.
 */
#include "cli/cli.h"

#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <poll.h>
#include <spawn.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "base/log.h"
#include "mkfs/tool.h"
#include "pinfs/ioctl.h"

extern char **environ;

/* Longer than this, and the user is told what is waited for. */
#define PATIENCE_MS 3000

static void umount_help(void)
{
	puts("Usage: pinfs umount [OPTION]... DIR...\n"
	     "Ends what 'pinfs mount' began; returns when the daemon is gone and the image is closed.\n"
	     "\n"
	     "  -l, --lazy     take DIR away now, end when nobody uses it any more; doesn't wait\n"
	     "  -f, --force    fail what programs are still reading, don't wait for the daemon (root only)\n"
	     "  -q, --quiet    say nothing where DIR isn't mounted, and call that success\n"
	     "  -h, --help     this text\n"
	     "  -V, --version  version of this program");
}

/* ---- finding the mount ---- */

struct mount_entry {
	char point[PATH_MAX];
	char device[32]; /* major:minor of the superblock */
	bool pinfs;
	uint32_t uid, gid; /* who mounted it */
};

/* The kernel writes space, tab, newline and backslash as \ooo. */
static void unescape(char *s)
{
	char *out = s;

	for (; *s; s++) {
		if (s[0] == '\\' && s[1] >= '0' && s[1] <= '3' && s[2] >= '0' && s[2] <= '7' && s[3] >= '0' && s[3] <= '7') {
			*out++ = (char)((s[1] - '0') << 6 | (s[2] - '0') << 3 | (s[3] - '0'));
			s += 3;
		} else {
			*out++ = *s;
		}
	}
	*out = 0;
}

/* id parent major:minor root point options [fields]... - type source superoptions */
static bool mountinfo_parse(char *line, struct mount_entry *ret)
{
	char *save, *word = strtok_r(line, " \n", &save), *super;
	unsigned uid = 0, gid = 0;

	for (unsigned i = 0; word && i < 5; i++, word = strtok_r(NULL, " \n", &save)) {
		if (i == 2)
			snprintf(ret->device, sizeof(ret->device), "%s", word);
		if (i == 4) {
			unescape(word);
			snprintf(ret->point, sizeof(ret->point), "%s", word);
		}
	}
	while (word && strcmp(word, "-"))
		word = strtok_r(NULL, " \n", &save);
	word = word ? strtok_r(NULL, " \n", &save) : NULL;
	ret->pinfs = word && !strcmp(word, "fuse.pinfs");
	strtok_r(NULL, " \n", &save);
	super = strtok_r(NULL, " \n", &save);
	if (super && strstr(super, "user_id="))
		sscanf(strstr(super, "user_id="), "user_id=%u,group_id=%u", &uid, &gid);
	ret->uid = uid;
	ret->gid = gid;
	return word;
}

/*
 * The topmost mount on `point`: the last one in the list. count: mounts of the same superblock, that one included.
 * 0, -ENOENT, or -errno.
 */
static int mount_find(const char *point, struct mount_entry *ret, unsigned *ret_count)
{
	_cleanup_free_ struct mount_entry *e = calloc(1, sizeof(*e));
	_cleanup_free_ char *line = NULL;
	size_t size = 0;
	bool found = false;
	FILE *f;

	f = fopen("/proc/self/mountinfo", "re");
	if (!f || !e) {
		if (f)
			fclose(f);
		return -ENOMEM;
	}
	while (getline(&line, &size, f) > 0) {
		if (mountinfo_parse(line, e) && !strcmp(e->point, point)) {
			*ret = *e;
			found = true;
		}
	}
	*ret_count = 0;
	rewind(f);
	while (found && getline(&line, &size, f) > 0)
		if (mountinfo_parse(line, e) && !strcmp(e->device, ret->device))
			++*ret_count;
	fclose(f);
	return found ? 0 : -ENOENT;
}

/* The absolute name without asking the mount itself, whose daemon may be dead, or not let us in. */
static int absolute_unasked(const char *dir, char ret[PATH_MAX])
{
	_cleanup_free_ char *copy = strdup(dir);
	char parent[PATH_MAX], *slash;
	size_t len = copy ? strlen(copy) : 0;
	const char *base;

	while (len > 1 && copy[len - 1] == '/')
		copy[--len] = 0;
	if (!len)
		return -ENOENT;
	slash = strrchr(copy, '/');
	base = slash ? slash + 1 : copy;
	if (!*base || !strcmp(base, ".") || !strcmp(base, ".."))
		return -EINVAL;
	if (slash)
		*slash = 0;
	if (!realpath(!slash ? "." : *copy ? copy : "/", parent))
		return -errno;
	if ((size_t)snprintf(ret, PATH_MAX, "%s/%s", strcmp(parent, "/") ? parent : "", base) >= PATH_MAX)
		return -ENAMETOOLONG;
	return 0;
}

static int find(const char *dir, struct mount_entry *ret, unsigned *ret_count)
{
	char path[PATH_MAX];
	int r = absolute_unasked(dir, path);

	if (r == 0)
		r = mount_find(path, ret, ret_count);
	if (r < 0) {
		/* "." or a symbolic link. */
		if (!realpath(dir, path))
			return -errno;
		r = mount_find(path, ret, ret_count);
	}
	return r == -ENOENT ? -EINVAL : r;
}

/* ---- finding the daemon ---- */

static pid_t ask_daemon_here(const char *point)
{
	struct pinfs_ioc_info info = {.size = sizeof(info)};
	_cleanup_close_ int fd = open(point, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0 || ioctl(fd, PINFS_IOC_INFO, &info) < 0)
		return 0;
	return (pid_t)info.pid;
}

/* The daemon's process, 0 if that can't be known. A private mount of a user lets nobody else in, not even root. */
static pid_t ask_daemon(const struct mount_entry *e)
{
	pid_t pid = ask_daemon_here(e->point), child;
	int fds[2];

	if (pid || geteuid() != 0 || e->uid == 0 || pipe2(fds, O_CLOEXEC) < 0)
		return pid;
	child = fork();
	if (child == 0) {
		if (setresgid(e->gid, e->gid, e->gid) == 0 && setresuid(e->uid, e->uid, e->uid) == 0)
			pid = ask_daemon_here(e->point);
		_exit(write(fds[1], &pid, sizeof(pid)) < 0);
	}
	close(fds[1]);
	if (child < 0 || read(fds[0], &pid, sizeof(pid)) != sizeof(pid))
		pid = 0;
	close(fds[0]);
	if (child > 0)
		waitpid(child, NULL, 0);
	return pid;
}

/*
 * A descriptor of the daemon, to wait for its end; -1 if it isn't known. The number came from whoever serves the
 * mount: it must be a process called pinfs of the user who mounted it.
 */
static int daemon_open(const struct mount_entry *e)
{
	_cleanup_close_ int fd = -1, comm = -1;
	pid_t pid = ask_daemon(e);
	char path[64], name[16];
	struct stat st;

	if (pid <= 1)
		return -1;
	fd = (int)syscall(SYS_pidfd_open, pid, 0);
	snprintf(path, sizeof(path), "/proc/%d/comm", pid);
	comm = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || comm < 0 || fstat(comm, &st) < 0 || st.st_uid != e->uid || read(comm, name, sizeof(name)) != 6 ||
		memcmp(name, "pinfs\n", 6))
		return -1;
	return steal_fd(&fd);
}

static void daemon_wait(int pidfd, const char *dir)
{
	struct pollfd p = {.fd = pidfd, .events = POLLIN};
	int timeout = PATIENCE_MS, r;

	while ((r = poll(&p, 1, timeout)) <= 0) {
		if (r < 0 && errno != EINTR)
			return;
		if (r == 0) {
			log_info("%s is unmounted; waiting for its daemon, which still writes, or serves another mount namespace", dir);
			timeout = -1;
		}
	}
}

/* ---- unmounting ---- */

/* For ordinary users. 0; -EBUSY; -ENOENT: not installed; other errors have been said. */
static int fusermount(const char *point, bool lazy)
{
	char program[] = "fusermount3", u[] = "-u", z[] = "-z", dashes[] = "--", text[512];
	_cleanup_free_ char *dir = strdup(point);
	char *with[] = {program, u, z, dashes, dir, NULL}, *without[] = {program, u, dashes, dir, NULL};
	posix_spawn_file_actions_t actions;
	int fds[2], status = 0, r;
	size_t len = 0;
	ssize_t n;
	pid_t pid;

	if (!dir || pipe2(fds, O_CLOEXEC) < 0)
		return -ENOMEM;
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, fds[1], STDERR_FILENO);
	r = posix_spawnp(&pid, program, &actions, NULL, lazy ? with : without, environ);
	posix_spawn_file_actions_destroy(&actions);
	close(fds[1]);
	while (r == 0 && (n = read(fds[0], text + len, sizeof(text) - 1 - len)) > 0)
		len += (size_t)n;
	close(fds[0]);
	if (r)
		return -r;
	text[len] = 0;
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (WIFEXITED(status) && !WEXITSTATUS(status))
		return 0;
	if (strstr(text, "busy"))
		return -EBUSY;
	text[strcspn(text, "\n")] = 0;
	log_error("can't unmount %s: %s", point, len ? text : "fusermount3 failed");
	return -ECANCELED;
}

static int unmount(const char *point, bool lazy, bool force)
{
	int flags = UMOUNT_NOFOLLOW | (lazy ? MNT_DETACH : 0) | (force ? MNT_FORCE : 0), r;

	/* Who was let down by MNT_FORCE needs a moment to leave. */
	for (unsigned i = 0; (r = umount2(point, flags)) < 0 && errno == EBUSY && force && i < 50; i++)
		usleep(20000);
	if (r == 0)
		return 0;
	if (errno != EPERM)
		return -errno;
	r = fusermount(point, lazy);
	if (r == -ENOENT)
		log_error("fusermount3 is missing, through which ordinary users unmount; install the package fuse3");
	return r == -ENOENT ? -ECANCELED : r;
}

struct umount_options {
	bool lazy, force, quiet;
};

static int umount_one(const char *dir, const struct umount_options *o)
{
	_cleanup_free_ struct mount_entry *e = calloc(1, sizeof(*e));
	_cleanup_close_ int daemon = -1;
	unsigned count;
	int r = e ? find(dir, e, &count) : -ENOMEM;

	if (r < 0 || !e->pinfs) {
		if (o->quiet && (r == -EINVAL || r == -ENOENT))
			return MOUNT_OK;
		if (r == -EINVAL)
			log_error("%s is not mounted", dir);
		else
			log_error("%s%s%s", dir, r < 0 ? ": " : " is a mount, but not of pinfs; use umount", r < 0 ? strerror(-r) : "");
		return MOUNT_FAIL;
	}
	/*
	 * With another mount of the same superblock the daemon goes on. A dead daemon can't be asked: nothing to wait
	 * for. One that hangs would not answer: that is what --force is for.
	 */
	if (!o->lazy && !o->force && count == 1)
		daemon = daemon_open(e);
	r = unmount(e->point, o->lazy, o->force);
	if (r == -EBUSY)
		log_error("%s is busy: a program has a file open or its current directory there; 'fuser -vm %s' lists them, "
			  "'pinfs umount -l' doesn't wait for them", dir, dir);
	else if (r < 0 && r != -ECANCELED)
		log_error("can't unmount %s: %s", dir, strerror(-r));
	if (r < 0)
		return MOUNT_FAIL;
	if (daemon >= 0)
		daemon_wait(daemon, dir);
	return MOUNT_OK;
}

int cmd_umount(int argc, char **argv)
{
	static const struct option longs[] = {
		{"lazy", no_argument, NULL, 'l'},
		{"force", no_argument, NULL, 'f'},
		{"quiet", no_argument, NULL, 'q'},
		{"help", no_argument, NULL, 'h'},
		{"version", no_argument, NULL, 'V'},
		{0},
	};
	struct umount_options o = {0};
	int c, status = MOUNT_OK;

	/* n, r, v, t, N, i: what umount(8) hands to its helpers. */
	while ((c = getopt_long(argc, argv, "lfqhVnrvit:N:", longs, NULL)) != -1) {
		switch (c) {
		case 'l':
			o.lazy = true;
			break;
		case 'f':
			o.force = true;
			break;
		case 'q':
			o.quiet = true;
			break;
		case 'h':
			umount_help();
			return MOUNT_OK;
		case 'V':
			puts("pinfs " PINFS_VERSION);
			return MOUNT_OK;
		case '?':
			fputs("Try 'pinfs umount --help'.\n", stderr);
			return MOUNT_USAGE;
		default:
			break;
		}
	}
	if (optind == argc) {
		log_error("a directory is needed");
		fputs("Try 'pinfs umount --help'.\n", stderr);
		return MOUNT_USAGE;
	}
	for (; optind < argc; optind++) {
		int r = umount_one(argv[optind], &o);

		status = r ? r : status;
	}
	return status;
}
