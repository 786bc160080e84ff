/* SPDX-License-Identifier: MIT */
/*
 * The delta of a writable mount, version 1: every type that stands on disk, and nothing else.
 *
 * delta_format.md beside this file explains it in words; the two change together, and with them the version or a feature
 * bit, and the golden delta in tests/golden.
 *
 * All integers are little-endian, all places are counted in pages of 4,096 bytes (or in bytes where it says so) from the
 * delta's beginning. Checksums are XXH3-64.
 *
 *	page 0 … 3	superblocks: generation g lies in pages 2 * (g % 2) and 2 * (g % 2) + 1, twice the same
 *	log		a circle of frames: what has changed since the checkpoint
 *	the rest	nodes of the tree, the map of what is used, and the content of files, in any order
 *
 * A checkpoint is a tree of items, a map, and the place in the log from which on frames are applied to both. What a
 * checkpoint refers to is never overwritten before the next one is durable.
 */
#ifndef PINFS_DELTA_FORMAT_H
#define PINFS_DELTA_FORMAT_H

#include "pinfs/format.h"

#define PINFS_DELTA_MAGIC "pinfs\x1a\xd1\n"
#define PINFS_DELTA_MAGIC_SIZE 8
#define PINFS_DELTA_VERSION_MAJOR 1
#define PINFS_DELTA_VERSION_MINOR 0

#define PINFS_DELTA_SUPERS 4u
#define PINFS_DELTA_LOG_END_MAX (1u << 20) /* the log ends before this page: within the first 4 GiB */
#define PINFS_DELTA_NODE_SIZE 16384u
#define PINFS_DELTA_NODE_PAGES (PINFS_DELTA_NODE_SIZE / PINFS_PAGE_SIZE)
#define PINFS_DELTA_ITEM_MAX 3900u    /* bytes of an item's value */
#define PINFS_DELTA_HEIGHT_MAX 12u
#define PINFS_DELTA_EXTENT_PAGES 16u  /* most pages that are compressed together */
#define PINFS_DELTA_RAW_PAGES 256u    /* most pages of one raw extent: each has a checksum in the item */
#define PINFS_DELTA_INLINE_MAX 2048u  /* content of a file of one page that lies in its item */
#define PINFS_DELTA_FILE_MAX (INT64_MAX & ~(uint64_t)(PINFS_PAGE_SIZE - 1)) /* bytes of a file */

/* Unknown bits: refuse the delta. There are none in version 1. */
#define PINFS_DELTA_INCOMPAT_KNOWN 0ull

/* Where a node of the tree lies, and the checkpoint that wrote it. page 0: no node, the tree is empty. */
struct pinfs_delta_ref {
	pinfs_le64 page;
	pinfs_le64 generation;
};

struct pinfs_delta_super {
	uint8_t magic[PINFS_DELTA_MAGIC_SIZE]; /* 0 */
	pinfs_le16 version_major;	       /* 8 */
	pinfs_le16 version_minor;	       /* 10 */
	pinfs_le32 slot;		       /* 12: the page that it lies in */
	pinfs_le64 incompat;		       /* 16 */
	pinfs_le64 generation;		       /* 24: of the checkpoint; from 1 */
	uint8_t uuid[16];		       /* 32: of the delta */
	uint8_t image_uuid[16];		       /* 48: the image that it belongs to, by… */
	uint8_t image_hash[16];		       /* 64: …its content_hash… */
	pinfs_le64 image_size;		       /* 80: …size… */
	pinfs_le64 image_inodes;	       /* 88: …and number of inodes */
	pinfs_le64 log_first;		       /* 96: first page of the log */
	pinfs_le64 log_pages;		       /* 104 */
	pinfs_le64 log_start;		       /* 112: byte in the log where the first frame to be applied lies, or will */
	pinfs_le64 log_sequence;	       /* 120: its number */
	pinfs_le64 log_previous;	       /* 128: checksum of the frame before it; 0: none */
	struct pinfs_delta_ref root;	       /* 136 */
	pinfs_le32 height;		       /* 152: levels of the tree; 0: empty */
	pinfs_le32 map_chunks;		       /* 156: of the map; 0: nothing is used but superblocks and log */
	pinfs_le64 map_first;		       /* 160: first page of the map */
	pinfs_le64 map_pages;		       /* 168: pages that it lies in */
	pinfs_le64 map_bits;		       /* 176: pages of the delta that it describes; those behind are free */
	pinfs_le64 map_checksum;	       /* 184: of its struct pinfs_delta_map_chunk[map_chunks] */
	pinfs_le64 next_ino;		       /* 192: lowest inode number that was never used */
	pinfs_le64 hash_seed;		       /* 200: of names */
	pinfs_le32 ino_generation;	       /* 208: of inodes made in this delta (file handles) */
	pinfs_le32 reserved0;		       /* 212: 0 */
	pinfs_le64 created_sec;		       /* 216 */
	pinfs_le64 items;		       /* 224: in the tree, for statistics and checks */
	pinfs_le64 unwritten;		       /* 232: pages of EXTENT_UNWRITTEN, for statistics */
	pinfs_le64 inodes;		       /* 240: files that there are, image and delta together */
	uint8_t reserved[3840];		       /* 248: 0 */
	pinfs_le64 checksum;		       /* 4088: of bytes 0 to 4087 */
};
static_assert(sizeof(struct pinfs_delta_super) == PINFS_PAGE_SIZE, "on-disk size");
static_assert(offsetof(struct pinfs_delta_super, log_first) == 96, "on-disk offset");
static_assert(offsetof(struct pinfs_delta_super, map_first) == 160, "on-disk offset");
static_assert(offsetof(struct pinfs_delta_super, inodes) == 240, "on-disk offset");
static_assert(offsetof(struct pinfs_delta_super, checksum) == 4088, "on-disk offset");

/*
 * The map: one bit for each page, 1 where the checkpoint (its own map included) uses it, bit 0 of byte 0 is page 0. It is cut into chunks of
 * PINFS_DELTA_MAP_CHUNK bytes, each compressed by itself. First come all descriptors, then the stored bytes one after the other.
 */
#define PINFS_DELTA_MAP_CHUNK 65536u
struct pinfs_delta_map_chunk {
	pinfs_le32 stored;   /* bytes; high bit set: as they are, else LZ4. 0: all bits are 0 */
	pinfs_le32 reserved; /* 0 */
	pinfs_le64 checksum; /* of the stored bytes */
};
static_assert(sizeof(struct pinfs_delta_map_chunk) == 16, "on-disk size");
#define PINFS_DELTA_MAP_RAW (1u << 31)

/* ---- the tree ---- */

/* Items are ordered by object, then offset, as unsigned numbers. object: inode number << 8 | enum pinfs_delta_type. */
struct pinfs_delta_key {
	pinfs_le64 object;
	pinfs_le64 offset;
};

/* A node: this header, then count slots in ascending order, their data from the end of the node downwards. */
#define PINFS_DELTA_NODE_MAGIC 0x444f4e50u /* "PNOD" */
struct pinfs_delta_node {
	pinfs_le64 checksum;   /* 0: of all bytes behind it */
	pinfs_le32 magic;      /* 8 */
	pinfs_le16 level;      /* 12: 0 is a leaf */
	pinfs_le16 count;      /* 14: slots */
	pinfs_le64 page;       /* 16: where this node lies */
	pinfs_le64 generation; /* 24: of the checkpoint that wrote it */
	pinfs_le64 delta;      /* 32: the first 8 bytes of the delta's UUID */
	pinfs_le32 low;	       /* 40: leaf: the lowest byte that data uses; others: the node's size */
	uint8_t reserved[20];  /* 44: 0; what lies between slots and data is 0, too */
};
static_assert(sizeof(struct pinfs_delta_node) == 64, "on-disk size");
struct pinfs_delta_leaf_slot {
	struct pinfs_delta_key key;
	pinfs_le32 where; /* byte of the node where the value begins; values may lie in any order, without gaps */
	pinfs_le32 len;
};
static_assert(sizeof(struct pinfs_delta_leaf_slot) == 24, "on-disk size");
/* All keys below child i are >= key i (but for i = 0, which stands for "from the beginning") and < key i + 1. */
struct pinfs_delta_inner_slot {
	struct pinfs_delta_key key;
	struct pinfs_delta_ref child;
};
static_assert(sizeof(struct pinfs_delta_inner_slot) == 32, "on-disk size");

enum pinfs_delta_type {
	/* Of inode number 0. */
	PINFS_DELTA_ORPHAN = 1, /* offset: inode number. No value: the inode has no name, or has extents behind its end */
	PINFS_DELTA_SHARED = 2, /* offset: page. struct pinfs_delta_shared: several extents refer to these pages */
	/* Of an inode. */
	PINFS_DELTA_INODE = 1,	 /* offset 0. struct pinfs_delta_inode */
	PINFS_DELTA_DIRENT = 2,	 /* offset: hash of the name. struct pinfs_delta_dirent */
	PINFS_DELTA_XATTR = 3,	 /* offset: hash of the name. struct pinfs_delta_xattr */
	PINFS_DELTA_EXTENT = 4,	 /* offset: page of the file. struct pinfs_delta_extent */
	PINFS_DELTA_SYMLINK = 5, /* offset: 0, or 1 for bytes from PINFS_DELTA_ITEM_MAX on. The target */
	PINFS_DELTA_XVALUE = 16, /* 16 + n: offset as its XATTR. Piece n of a value that does not fit into that */
	PINFS_DELTA_XVALUE_LAST = 33,
};

/*
 * The hash of a name: bits 8 to 61 are those of its XXH3-64 with the superblock's seed; bits 0 to 7 tell names of the same
 * hash apart: the lowest number that is free.
 */
#define PINFS_DELTA_HASH_MASK 0x3fffffffffffff00ull

/* An inode that is new, or an inode of the image whose attributes are these now. */
struct pinfs_delta_inode {
	pinfs_le32 mode;	/* 0: type and permissions, as st_mode */
	pinfs_le32 nlink;	/* 4 */
	pinfs_le32 uid, gid;	/* 8 */
	pinfs_le64 size;	/* 16 */
	pinfs_le64 atime_sec, mtime_sec, ctime_sec, btime_sec;	   /* 24: signed */
	pinfs_le32 atime_nsec, mtime_nsec, ctime_nsec, btime_nsec; /* 56 */
	pinfs_le32 major, minor; /* 72: of a device */
	pinfs_le32 flags;	 /* 80: FS_IMMUTABLE_FL and the like, as FS_IOC_GETFLAGS */
	pinfs_le32 state;	 /* 84: PINFS_DELTA_STATE_* */
	pinfs_le32 generation;	 /* 88 */
	pinfs_le32 project;	 /* 92 */
	pinfs_le64 parent;	 /* 96: directory: its parent */
	pinfs_le64 entries;	 /* 104: directory: names in it */
	pinfs_le64 image_end;	 /* 112: file of the image: its bytes below this are the image's, where no extent says otherwise */
	pinfs_le64 pages;	 /* 120: of the delta, that its extents hold; INLINE and LOGGED: one for each */
	pinfs_le64 image_pages;	 /* 128: with content of the image that is still in use */
	pinfs_le64 reserved[3];	 /* 136: 0 */
};
static_assert(sizeof(struct pinfs_delta_inode) == 160, "on-disk size");
static_assert(offsetof(struct pinfs_delta_inode, generation) == 88, "on-disk offset");
/* The inode's extended attributes are those in the delta, not the image's. */
#define PINFS_DELTA_STATE_XATTRS (1u << 0)
/* An inode of the image that was removed: there is nothing of it any more. */
#define PINFS_DELTA_STATE_GONE (1u << 1)
#define PINFS_DELTA_STATE_KNOWN (PINFS_DELTA_STATE_XATTRS | PINFS_DELTA_STATE_GONE)

/* A name that is new, or hides one of the image. */
struct pinfs_delta_dirent {
	pinfs_le64 ino;	  /* 0: the image's name is gone */
	uint8_t type;	  /* 8: mode >> 12, as DT_* */
	uint8_t name_len; /* 9 */
	/* 10: the name */
} __attribute__((packed));
static_assert(sizeof(struct pinfs_delta_dirent) == 10, "on-disk size");

struct pinfs_delta_xattr {
	pinfs_le32 value_size; /* 0 */
	uint8_t name_len;      /* 4: full name with its prefix */
	uint8_t pieces;	       /* 5: 0: the value is here; else in so many XVALUE items, all but the last full */
	/* 6: the name, then the value */
} __attribute__((packed));
static_assert(sizeof(struct pinfs_delta_xattr) == 6, "on-disk size");

/* What some pages of a file are; where no extent is, they are the image's (below image_end), or a hole. */
enum pinfs_delta_extent_kind {
	PINFS_DELTA_HOLE = 1,	   /* zeroes, in spite of the image */
	PINFS_DELTA_UNWRITTEN = 2, /* zeroes, with pages that are kept for them */
	PINFS_DELTA_RAW = 3,	   /* as they are */
	PINFS_DELTA_LZ4 = 4,	   /* pages [skip, skip + pages) of raw_pages that were compressed together */
	PINFS_DELTA_IMAGE = 5,	   /* those of the file image_ino of the image, from its page `start` on */
	PINFS_DELTA_INLINE = 6,	   /* one page, whose bytes (what is behind them is zero) follow here: LZ4 if raw_pages is 1, else as they are */
	PINFS_DELTA_LOGGED = 7,	   /* in the log only: one page, whose bytes follow here */
};
struct pinfs_delta_extent {
	pinfs_le32 pages;     /* 0: of the file, at least 1 */
	uint8_t kind;	      /* 4 */
	uint8_t reserved[3];  /* 5: 0 */
	pinfs_le64 start;     /* 8: first page in the delta; for IMAGE in the image's file */
	pinfs_le32 skip;      /* 16 */
	pinfs_le32 raw_pages; /* 20 */
	pinfs_le32 stored;    /* 24: LZ4, INLINE: bytes that are stored */
	pinfs_le32 image_ino; /* 28 */
	pinfs_le64 checksum;  /* 32: LZ4: of the stored bytes; LOGGED: of the page. Others: 0 */
	/* 40: RAW: pinfs_le64 checksum[pages], each of a page. INLINE, LOGGED: the bytes */
};
static_assert(sizeof(struct pinfs_delta_extent) == 40, "on-disk size");

/* Pages from the key's offset on, to which `refs` extents refer, two or more. Pages that are used and not here: one. */
struct pinfs_delta_shared {
	pinfs_le32 pages;
	pinfs_le32 refs;
};
static_assert(sizeof(struct pinfs_delta_shared) == 8, "on-disk size");

/* ---- the log ---- */

/*
 * A frame: whole transactions, which are applied together or not at all. Frames lie one after the other, aligned to 8 bytes, none
 * crosses the log's end: one with PINFS_DELTA_FRAME_WRAP and no payload says that the next one lies at the log's first byte; where not even
 * such a one fits, it lies there too.
 */
#define PINFS_DELTA_FRAME_MAGIC 0x4d524650u /* "PFRM" */
struct pinfs_delta_frame {
	pinfs_le64 checksum; /* 0: of all bytes behind it, to the payload's end */
	pinfs_le32 magic;    /* 8 */
	pinfs_le32 len;	     /* 12: bytes of payload; the next frame lies at the next multiple of 8 behind it */
	pinfs_le64 sequence; /* 16: one more than the frame before */
	pinfs_le64 previous; /* 24: the checksum of the frame before */
	pinfs_le64 durable;  /* 32: all frames to this number, and the content that they refer to, were flushed before this one was written */
	pinfs_le64 delta;    /* 40: the first 8 bytes of the delta's UUID */
	pinfs_le32 flags;    /* 48: PINFS_DELTA_FRAME_* */
	pinfs_le32 reserved; /* 52: 0 */
};
static_assert(sizeof(struct pinfs_delta_frame) == 56, "on-disk size");
#define PINFS_DELTA_FRAME_WRAP (1u << 0)
#define PINFS_DELTA_FRAME_MAX (4u << 20) /* bytes of a frame */

/* The payload: records, each aligned to 8 bytes. */
enum pinfs_delta_op {
	PINFS_DELTA_PUT = 1,	/* the item with this key has this value now */
	PINFS_DELTA_DELETE = 2, /* the item with this key, which there is, is gone */
	PINFS_DELTA_ALLOC = 3,	/* object: first page, offset: number of pages that are used now */
	PINFS_DELTA_FREE = 4,	/* …that are not used any more */
	PINFS_DELTA_FILES = 5,	/* offset: files that there are now, image and delta together */
};
struct pinfs_delta_record {
	pinfs_le32 op;
	pinfs_le32 len; /* of the value that follows */
	struct pinfs_delta_key key;
};
static_assert(sizeof(struct pinfs_delta_record) == 24, "on-disk size");

#endif
