/* SPDX-License-Identifier: MIT */
/*
 * pinfs lab: starts the laboratory, a program of its own, since it has the page cache compiled against another
 * base/sync.h (tests/explore).
 */
#include "cli/cli.h"

#include <fcntl.h>
#include <sys/auxv.h>

#include "base/log.h"

/* Where it is: in a build directory, installed anywhere (beside the program's folder), installed here. */
static const char *const beside[] = {"tests/explore/lab", "../" PINFS_LIBEXECDIR "/pinfs/lab"};

/* The folder of this program; false: unknown. */
static bool own_folder(char *buf, size_t size)
{
	ssize_t n = readlink("/proc/self/exe", buf, size - 1);
	char *slash;

	if (n <= 0 || (size_t)n >= size - 1)
		return false;
	buf[n] = 0;
	slash = strrchr(buf, '/');
	if (slash)
		*slash = 0;
	return slash;
}

/* Whose program this is, his is what lies beside it: a folder that all may write to brings in nobody else's. */
static bool same_owner(int fd)
{
	struct stat own, st;

	return !stat("/proc/self/exe", &own) && !fstat(fd, &st) && S_ISREG(st.st_mode) &&
		(st.st_uid == own.st_uid || st.st_uid == 0) && !(st.st_mode & S_IWOTH);
}

/* Returns only if it is not there, or can't be executed: -errno. */
static int lab_exec(const char *path, char **argv, bool trusted)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	if (!trusted && !same_owner(fd))
		return -ENOENT;
	fexecve(fd, argv, environ);
	return -errno;
}

int cmd_lab(int argc, char **argv)
{
	char folder[4096], path[4200];
	int r = -ENOENT;

	(void)argc;
	if (!getauxval(AT_SECURE) && own_folder(folder, sizeof(folder))) {
		for (size_t i = 0; r == -ENOENT && i < ARRAY_SIZE(beside); i++) {
			snprintf(path, sizeof(path), "%s/%s", folder, beside[i]);
			r = lab_exec(path, argv, false);
		}
	}
	if (r == -ENOENT) {
		snprintf(path, sizeof(path), "%s", PINFS_LAB);
		r = lab_exec(path, argv, true);
	}
	if (r == -ENOENT)
		log_error("the laboratory is not installed: there is no %s; build and install pinfs with it (ninja install; it is "
			  "left out with -Db_sanitize=thread and -Dfuzz=true)", PINFS_LAB);
	else
		log_error("can't start %s: %s", path, strerror(-r));
	return CLI_FAIL;
}
