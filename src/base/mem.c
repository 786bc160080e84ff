/* SPDX-License-Identifier: MIT */
#include "base/mem.h"

#include <fcntl.h>
#include <sys/mman.h>

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

int mem_region_new(const char *name, size_t size, struct mem_region *ret)
{
	_cleanup_close_ int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
	void *base;

	if (fd < 0)
		return -errno;
	if (ftruncate(fd, (off_t)size) < 0)
		return -errno;
	/* Who gets the descriptor can't cut it short under us. */
	if (fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
		return -errno;
	base = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
	if (base == MAP_FAILED)
		return -errno;
	madvise(base, size, MADV_DONTDUMP);
	*ret = (struct mem_region){.base = base, .size = size, .fd = steal_fd(&fd)};
	return 0;
}

void mem_region_free(struct mem_region *r)
{
	if (!r->base)
		return;
	munmap(r->base, r->size);
	close(r->fd);
	*r = (struct mem_region){0};
}

void mem_region_release(struct mem_region *r, size_t offset, size_t len)
{
	/* Only an attempt to be modest: that it fails changes nothing. */
	if (fallocate(r->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)len) < 0)
		return;
}
