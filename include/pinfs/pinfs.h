/* SPDX-License-Identifier: MIT */
/*
 * libpinfs: maps files of a pinfs mount so that the daemon hears of each first touch and each first store, and pins their pages while a
 * device, or the kernel for an asynchronous request, reads or writes them.
 *
 * A map shows the daemon's own pages: what is stored is seen by everybody who reads the file, and what they write is seen here. Pages
 * come when they are touched and go when memory is short; while a page is pinned it stays, and while it is pinned for writing it
 * stays dirty and writable. I/O into a map without a pin may be lost: the page can be written, cleaned and dropped while it is under way.
 *
 *	fd = open("/mnt/data", O_RDWR);
 *	pinfs_map(fd, 0, size, PROT_READ | PROT_WRITE, NULL, &map);
 *	pinfs_pin(map, 0, 65536, PINFS_WRITE);
 *	read(socket, pinfs_map_address(map), 65536);	  or by io_uring, O_DIRECT, …
 *	pinfs_unpin(map, 0, 65536, PINFS_WRITE);
 *	pinfs_sync(map);
 *
 * Functions return 0 or a negative error number (never errno), unless they say otherwise. All may be called by several threads at
 * once; unmapping a map while it is used is an error of the caller. None starts a thread, and none handles a signal. A load or store
 * beyond the end of the file, of what can't be read, or for which there is no space, is SIGBUS, as with mmap(2).
 *
 * After fork(2) the child has no maps and no pins: the addresses are not mapped there. It may map files itself. mremap(2),
 * munmap(2), mprotect(2) and madvise(2) are not for these ranges.
 *
 * Needs Linux 6.6. Without privileges (CAP_SYS_PTRACE, or vm.unprivileged_userfaultfd=1, or access to /dev/userfaultfd) the kernel's own
 * accesses to pages that are not pinned fail with EFAULT: pinfs_needs_pins().
 */
#ifndef PINFS_PINFS_H
#define PINFS_PINFS_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define PINFS_API __attribute__((visibility("default")))

struct pinfs_map;

struct pinfs_map_options {
	uint32_t size; /* sizeof(struct pinfs_map_options) */
	uint32_t reserved; /* 0 */
	void *address;	   /* where it should be, page aligned: it is there, or -EEXIST; NULL: anywhere */
};

enum {
	PINFS_READ = 1u << 0,
	PINFS_WRITE = 1u << 1,
	PINFS_NOWAIT = 1u << 2, /* -EAGAIN instead of asking the daemon */
};

/*
 * Maps bytes [offset, offset + length) of an open file, both rounded outwards to pages. fd: as it was opened: for PROT_WRITE it has to
 * be open for reading and writing; it may be closed afterwards. The range may go beyond the end of the file, which may grow. options: NULL is
 * allowed.
 *
 * -ENOTTY: the file is on no pinfs mount that does this; -EACCES: prot asks for more than fd allows; -EINVAL; -EOPNOTSUPP: the kernel
 * is too old; -EPERM: userfaultfd is forbidden here; -ENOMEM, -EMFILE, -EDQUOT, -EUSERS: limits; -EPIPE: the daemon has gone.
 */
PINFS_API int pinfs_map(int fd, uint64_t offset, size_t length, int prot, const struct pinfs_map_options *options,
	struct pinfs_map **ret);
/* The first byte that was asked for. */
PINFS_API void *pinfs_map_address(const struct pinfs_map *map);
/* 1: accesses by the kernel (read(2) into it, io_uring) need a pin, or fail with EFAULT. 0: they are faults like any other. */
PINFS_API int pinfs_needs_pins(const struct pinfs_map *map);
/* -EBUSY: something is pinned. Otherwise the map is gone, whatever is returned; NULL is allowed. */
PINFS_API int pinfs_unmap(struct pinfs_map *map);

/*
 * Pins the pages of [offset, offset + length) of the map: flags is PINFS_READ or PINFS_WRITE, for the time in which somebody reads, or writes,
 * their bytes; with PINFS_NOWAIT. Pages that are there cost no system call. Pins add up: 65,535 of readers and of writers of each page
 * are too many (-EAGAIN). -EACCES: the map can't be written; -EFAULT: beyond the end, or it can't be had (as SIGBUS). None is pinned then.
 */
PINFS_API int pinfs_pin(struct pinfs_map *map, size_t offset, size_t length, unsigned flags);
/* Gives pins back that pinfs_pin() has given, with the same flags, also for parts of a range. -EINVAL: there are none. */
PINFS_API int pinfs_unpin(struct pinfs_map *map, size_t offset, size_t length, unsigned flags);
/* All that was stored before the call, in this map and through others, is durable when it returns. -EIO, -ENOSPC, …: some isn't. */
PINFS_API int pinfs_sync(struct pinfs_map *map);
/* Makes the pages accessible (PINFS_WRITE: also to store), as many as there are: no faults then, until they are cleaned or dropped. */
PINFS_API int pinfs_populate(struct pinfs_map *map, size_t offset, size_t length, unsigned flags);

enum {
	PINFS_IS_PRESENT = 1u << 0,  /* can be loaded from without a fault */
	PINFS_IS_WRITABLE = 1u << 1, /* can be stored to without a fault: it is dirty */
	PINFS_IS_HELD = 1u << 2,     /* pins of this process have kept it from being cleaned or dropped */
};
struct pinfs_page_info {
	uint32_t flags; /* PINFS_IS_* */
	uint16_t readers, writers; /* pins of this process */
};
/* What is known of each of the pages in [offset, offset + length), at some moment of the call: one entry for each. */
PINFS_API int pinfs_query(struct pinfs_map *map, size_t offset, size_t length, struct pinfs_page_info *ret);

#ifdef __cplusplus
}
#endif

#endif
