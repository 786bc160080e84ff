/* SPDX-License-Identifier: MIT */
#include "base/mem.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "base/sync.h"

void *mem_alloc(size_t size)
{
	sync_may_sleep("allocation");
	return calloc(1, size);
}

void mem_free(void *p)
{
	free(p);
}

/* A sealed memfd of this size, or -1: a limit on the size of files counts for it, too, and would end us with SIGXFSZ. */
static int region_fd(const char *name, size_t size)
{
	_cleanup_close_ int fd = -1;
	struct rlimit limit;

	if (getrlimit(RLIMIT_FSIZE, &limit) < 0 || limit.rlim_cur < size)
		return -1;
	fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0 || ftruncate(fd, (off_t)size) < 0)
		return -1;
	/* Who gets a description for reading can't make one for writing of it, unless that is us. */
	if (fchmod(fd, 0600) < 0)
		return -1;
	/* Who gets the descriptor can't cut it short under us. */
	if (fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
		return -1;
	return steal_fd(&fd);
}

int mem_region_new(const char *name, size_t size, struct mem_region *ret)
{
	_cleanup_close_ int fd = region_fd(name, size);
	void *base;

	base = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE | (fd < 0 ? MAP_ANONYMOUS : 0), fd, 0);
	if (base == MAP_FAILED)
		return -errno;
	madvise(base, size, MADV_DONTDUMP);
	*ret = (struct mem_region){.base = base, .size = size, .fd = steal_fd(&fd)};
	return 0;
}

void mem_region_return(const struct mem_region *r, size_t offset, size_t len)
{
	sync_may_sleep("giving memory back");
	/* Where it can't be done (a sandbox) the memory stays ours, which costs nothing but that. */
	if (madvise(r->base + offset, len, MADV_REMOVE) < 0)
		return;
}

void mem_region_free(struct mem_region *r)
{
	if (!r->base)
		return;
	munmap(r->base, r->size);
	if (r->fd >= 0)
		close(r->fd);
	*r = (struct mem_region){0};
}

/* ---- pressure ---- */

/* Windows of two seconds, or multiples of that, need no right. */
#define PRESSURE_TRIGGER "some 200000 2000000"

static int trigger_open(const char *path)
{
	_cleanup_close_ int fd = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);

	if (fd < 0 || write(fd, PRESSURE_TRIGGER, sizeof(PRESSURE_TRIGGER)) < 0)
		return -errno;
	return steal_fd(&fd);
}

/* Our control group's file, if there is a unified hierarchy in its usual place. */
static int group_path(char *ret, size_t size)
{
	_cleanup_close_ int fd = open("/proc/self/cgroup", O_RDONLY | O_CLOEXEC);
	char text[4096];
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);

	if (n < 0)
		return -errno;
	text[n] = '\0';
	for (char *line = text, *end; *line; line = end) {
		end = line + strcspn(line, "\n");
		if (*end)
			*end++ = '\0';
		/* The root has no file of its own: the system's is the same. */
		if (strncmp(line, "0::/", 4) || !line[4])
			continue;
		return (size_t)snprintf(ret, size, "/sys/fs/cgroup%s/memory.pressure", line + 3) < size ? 0 : -ENAMETOOLONG;
	}
	return -ENOENT;
}

int mem_pressure_open(void)
{
	char path[4096 + 64];
	int fd = group_path(path, sizeof(path));

	if (fd == 0)
		fd = trigger_open(path);
	return fd >= 0 ? fd : trigger_open("/proc/pressure/memory");
}
