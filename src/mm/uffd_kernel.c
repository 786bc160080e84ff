/* SPDX-License-Identifier: MIT */
#include "mm/uffd_kernel.h"

#include <linux/userfaultfd.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/sync.h"
#include "cache/page.h"
#include "mm/uffd.h"

/* Newer than the headers of some distributions. */
#ifndef UFFD_FEATURE_WP_HUGETLBFS_SHMEM
#define UFFD_FEATURE_WP_HUGETLBFS_SHMEM (1 << 12)
#endif
#ifndef UFFD_FEATURE_POISON
#define UFFD_FEATURE_POISON (1 << 14)
#endif
#ifndef UFFDIO_CONTINUE_MODE_WP
#define UFFDIO_CONTINUE_MODE_WP ((__u64)1 << 1)
#endif
#ifndef UFFDIO_POISON
struct uffdio_poison {
	struct uffdio_range range;
	__u64 mode;
	__s64 updated;
};
#define UFFDIO_POISON _IOWR(UFFDIO, 0x08, struct uffdio_poison)
#endif

/* While the process changes its address space, the kernel refuses changes of ours; it ends when the server has read the event. */
#define CHANGING_TRIES 100000u

/* ---- what the kernel has ---- */

static const struct {
	uint64_t bit;
	const char *name;
} needed[] = {
	{UFFD_FEATURE_MISSING_SHMEM, "missing pages of shared memory (Linux 4.11)"},
	{UFFD_FEATURE_MINOR_SHMEM, "minor faults of shared memory (Linux 5.14)"},
	{UFFD_FEATURE_WP_HUGETLBFS_SHMEM, "write protection of shared memory (Linux 5.19)"},
	{UFFD_FEATURE_POISON, "poisoned pages (Linux 6.6)"},
};

uint64_t uffd_missing(uint64_t features)
{
	uint64_t missing = 0;

	for (size_t i = 0; i < ARRAY_SIZE(needed); i++)
		missing |= needed[i].bit & ~features;
	return missing;
}

const char *uffd_feature_name(uint64_t missing)
{
	for (size_t i = 0; i < ARRAY_SIZE(needed); i++)
		if (missing & needed[i].bit)
			return needed[i].name;
	return "nothing";
}

/* ---- telling it ---- */

static int request(int fd, unsigned long what, void *arg)
{
	sync_may_sleep("userfaultfd");
	for (unsigned i = 0; i < CHANGING_TRIES; i++) {
		if (ioctl(fd, what, arg) == 0)
			return 0;
		if (errno != EAGAIN)
			return -errno;
		sched_yield();
	}
	return -EAGAIN;
}

int uffd_kernel_continue(int fd, uint64_t addr, bool off)
{
	struct uffdio_continue c = {
		.range = {.start = addr, .len = CACHE_PAGE_SIZE},
		.mode = off ? UFFDIO_CONTINUE_MODE_WP : 0,
	};

	return request(fd, UFFDIO_CONTINUE, &c);
}

int uffd_kernel_protect(int fd, uint64_t addr, uint64_t pages, bool off)
{
	struct uffdio_writeprotect w = {
		.range = {.start = addr, .len = pages << CACHE_PAGE_SHIFT},
		.mode = off ? UFFDIO_WRITEPROTECT_MODE_WP : 0,
	};

	return request(fd, UFFDIO_WRITEPROTECT, &w);
}

int uffd_kernel_wake(int fd, uint64_t addr)
{
	struct uffdio_range r = {.start = addr, .len = CACHE_PAGE_SIZE};

	return request(fd, UFFDIO_WAKE, &r);
}

int uffd_kernel_poison(int fd, uint64_t addr)
{
	struct uffdio_poison p = {.range = {.start = addr, .len = CACHE_PAGE_SIZE}};

	return request(fd, UFFDIO_POISON, &p);
}

void uffd_kernel_close(int fd)
{
	close(fd);
}
