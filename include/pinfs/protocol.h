/* SPDX-License-Identifier: MIT */
/*
 * What a process that maps files of a mount and the mount's daemon say to each other, and what they share.
 *
 * The messages go over a SOCK_SEQPACKET socket, one struct pinfs_message each, in the byte order of the machine. Each request has a
 * reply of the same type and tag; replies may come in any order. What is no such message, or is sent too fast to be answered, ends the
 * connection, and with it all that the process has mapped and pinned.
 *
 *	type		request						reply
 *	HELLO		id: version;					id: the daemon's version
 *			descriptor: the process's userfaultfd,
 *			after UFFDIO_API
 *	OPEN		token						id: of the file; flags: PINFS_OPEN_WRITE: it may be stored to;
 *									count: pages that it has room for; descriptor: its memfd, to
 *									be mapped from offset 0 of the file on (without WRITE: for reading)
 *	CLOSE		id of a file that is not mapped any more
 *	MAP		id of a file; page, count: of the file;		id: of the map; descriptor: its table, of
 *			address: where they are mapped, and		`count` struct pinfs_page
 *			registered with the userfaultfd for missing
 *			and minor faults (and, to store, for write
 *			protection)
 *	UNMAP		id of a map
 *	PIN		id of a map; page, count: of the map;		error; count: of pages that are pinned
 *			flags: PINFS_PIN_WRITE; their pins are
 *			counted already
 *	UNHOLD		id of a map; page, count: whose last pin
 *			has gone
 *	SYNC		id of a map: all of its file is durable
 *			when the reply comes
 *	POPULATE	id of a map; page, count; flags:		count: of pages that are mapped
 *			PINFS_PIN_WRITE: to store into
 *
 * For each map there is a table in shared memory, with an entry for each of its pages.
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

#define PINFS_PROTOCOL_VERSION 1
#define PINFS_TOKEN_SIZE 16

enum pinfs_message_type {
	PINFS_HELLO = 1,
	PINFS_OPEN,
	PINFS_CLOSE,
	PINFS_MAP,
	PINFS_UNMAP,
	PINFS_PIN,
	PINFS_UNHOLD,
	PINFS_SYNC,
	PINFS_POPULATE,
};

enum {
	PINFS_OPEN_WRITE = 1u << 0,
	PINFS_PIN_WRITE = 1u << 0,
};

struct pinfs_message {
	uint32_t size; /* sizeof(struct pinfs_message) */
	uint32_t type; /* PINFS_* */
	uint64_t tag;  /* the client's; the reply's is the same */
	int32_t error; /* in replies: 0 or -errno */
	uint32_t flags;
	uint64_t id, page, count, address;
	uint8_t token[PINFS_TOKEN_SIZE];
};
_Static_assert(sizeof(struct pinfs_message) == 72, "the same in all builds");
_Static_assert(sizeof(struct pinfs_page) == 8, "the same in all builds");

#endif
