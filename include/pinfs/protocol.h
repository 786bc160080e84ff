/* SPDX-License-Identifier: MIT */
/*
 * What a process that maps a file of a mount and the mount's daemon share: for each map a table in shared memory, with an entry for
 * each of its pages.
 *
 * The daemon says in `state` how the page is mapped; the client counts in `pins` who reads or writes the page's bytes. To pin a page
 * the client adds to its count first, then a full barrier, then it looks at the state: if what it needs isn't there, it asks the daemon,
 * and keeps its count meanwhile. The daemon clears the state first, then a full barrier, then it reads the count: a page that is
 * pinned for writing stays as it is, and dirty. (Rule R10.)
 *
 * A client that unpins takes from its count, then a full barrier, then it looks at the state: if the page is held, and the count is
 * 0 now, it tells the daemon.
 */
#ifndef PINFS_PROTOCOL_H
#define PINFS_PROTOCOL_H

#include <stdint.h>

/* Bits of `state`. */
enum {
	PINFS_PAGE_PRESENT = 1u << 0, /* mapped: the process can load from it without a fault */
	PINFS_PAGE_WRITE = 1u << 1,   /* and store into it: it is dirty, and the file has room for it */
	PINFS_PAGE_HELD = 1u << 2,    /* pins of this client have kept it: tell the daemon when the last one goes */
};

/* Units of `pins`: readers in the low half, writers in the high half. */
#define PINFS_PAGE_READER UINT32_C(1)
#define PINFS_PAGE_WRITER (UINT32_C(1) << 16)
#define PINFS_PAGE_READERS UINT32_C(0xffff)

struct pinfs_page {
	uint32_t state; /* the daemon writes, the client reads */
	uint32_t pins;	/* the client writes, the daemon reads */
};

#endif
