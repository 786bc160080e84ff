/* SPDX-License-Identifier: MIT */
/*
 * The pinfs image, version 1: every type that stands on disk, and nothing else.
 *
 * format.md beside this file explains each of them in words, with hexdumps; the two change together, and
 * with them the version or a feature bit, and the golden images in tests/golden.
 *
 * All integers are little-endian. All offsets are bytes from the first byte of the superblock ("the image's
 * base"), which may itself lie at an offset in a file. Raw structs never leave src/image and mkfs.
 */
#ifndef PINFS_FORMAT_H
#define PINFS_FORMAT_H

#include <assert.h>
#include <endian.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
	uint16_t v;
} __attribute__((packed)) pinfs_le16;
typedef struct {
	uint32_t v;
} __attribute__((packed)) pinfs_le32;
typedef struct {
	uint64_t v;
} __attribute__((packed)) pinfs_le64;

static inline uint16_t pinfs_get16(pinfs_le16 x)
{
	return le16toh(x.v);
}
static inline uint32_t pinfs_get32(pinfs_le32 x)
{
	return le32toh(x.v);
}
static inline uint64_t pinfs_get64(pinfs_le64 x)
{
	return le64toh(x.v);
}
static inline pinfs_le16 pinfs_put16(uint16_t x)
{
	return (pinfs_le16){htole16(x)};
}
static inline pinfs_le32 pinfs_put32(uint32_t x)
{
	return (pinfs_le32){htole32(x)};
}
static inline pinfs_le64 pinfs_put64(uint64_t x)
{
	return (pinfs_le64){htole64(x)};
}

/* Eight bytes that a text-mode transfer breaks: letters, CR LF, Ctrl-Z. */
#define PINFS_MAGIC "pinfs\r\n\x1a"
#define PINFS_MAGIC_SIZE 8

/* A reader refuses another major version. A higher minor version only adds what old readers may ignore. */
#define PINFS_VERSION_MAJOR 1
#define PINFS_VERSION_MINOR 0

#define PINFS_PAGE_SIZE 4096u
#define PINFS_SUPER_SIZE 4096u
#define PINFS_BLOCK_SIZE_MIN 4096u
#define PINFS_BLOCK_SIZE_MAX (1u << 20)
#define PINFS_CHUNK_SIZE_MAX (1u << 16)
#define PINFS_HUGE_ALIGN (2u << 20)
#define PINFS_LABEL_SIZE 64
#define PINFS_NAME_MAX 255
#define PINFS_SYMLINK_MAX 4095
#define PINFS_XATTR_NAME_MAX 255
#define PINFS_XATTR_VALUE_MAX 65536u
#define PINFS_XATTR_LIST_MAX 65536u /* all names of one inode, each with a NUL: what listxattr(2) can return */
#define PINFS_ROOT_INO 1
#define PINFS_SECTIONS_MAX 48

/*
 * Feature bits. Unknown incompatible bits: refuse the image. Unknown read-only-compatible bits: refuse
 * writable mounts. Unknown compatible bits: ignore.
 */
#define PINFS_INCOMPAT_LZ4 (1ull << 0) /* some block or chunk is LZ4 compressed */
#define PINFS_INCOMPAT_KNOWN (PINFS_INCOMPAT_LZ4)
#define PINFS_RO_COMPAT_KNOWN 0ull
#define PINFS_COMPAT_XATTR (1ull << 0) /* some inode has extended attributes */
#define PINFS_COMPAT_ACL (1ull << 1)   /* among them POSIX ACLs */
#define PINFS_COMPAT_XIP (1ull << 2)   /* some inode has PINFS_INODE_XIP */

/* How the stored bytes of a block or a chunk become its raw bytes. */
enum pinfs_codec {
	PINFS_CODEC_RAW = 0, /* stored as is: stored_size == raw_size */
	PINFS_CODEC_LZ4 = 1, /* one LZ4 block (the LZ4 block format, no frame) */
};

/* What was done to a section's chunk before it was compressed. */
enum pinfs_filter {
	PINFS_FILTER_NONE = 0,
	/*
	 * For arrays of records of record_size bytes. Each record is seen as 32-bit words; each word but the
	 * first record's becomes its difference (mod 2^32) to the same word of the record before; then the
	 * chunk is transposed, so that byte 0 of all records comes first, then byte 1 of all, and so on.
	 */
	PINFS_FILTER_DELTA = 1,
};

enum pinfs_section_type {
	PINFS_SECTION_INODES = 1,  /* struct pinfs_inode[inode_count], inode number 1 first */
	PINFS_SECTION_DIRS = 2,	   /* directories: restart tables and entries */
	PINFS_SECTION_BLOCKS = 3,  /* struct pinfs_block[block_count]: where each data block is stored */
	PINFS_SECTION_EXTENTS = 4, /* struct pinfs_extent[]: files that are not one run of blocks */
	PINFS_SECTION_SYMLINKS = 5, /* targets, no terminator */
	PINFS_SECTION_XATTRS = 6,  /* sets of extended attributes, each aligned to 8 */
};
#define PINFS_SECTION_TYPES 7

/*
 * A section is one array of bytes or records, cut into chunks of chunk_size raw bytes (the last may be
 * shorter). Each chunk is stored by itself and described by a struct pinfs_block in the section's index.
 */
struct pinfs_section {
	pinfs_le32 type;	 /* 0: enum pinfs_section_type */
	pinfs_le32 filter;	 /* 4: enum pinfs_filter */
	pinfs_le32 record_size;	 /* 8: 1 for byte sections */
	pinfs_le32 chunk_size;	 /* 12: raw bytes, a multiple of record_size, at most PINFS_CHUNK_SIZE_MAX */
	pinfs_le64 raw_size;	 /* 16: bytes in the whole section */
	pinfs_le64 stored_size;	 /* 24: bytes of all its chunks as stored (for statistics) */
	pinfs_le64 index_offset; /* 32: of its first index page, page aligned; 0 if the section is empty */
	pinfs_le64 index_pages;	 /* 40 */
	pinfs_le64 reserved[2];	 /* 48: 0 */
};
static_assert(sizeof(struct pinfs_section) == 64, "on-disk size");
static_assert(offsetof(struct pinfs_section, raw_size) == 16, "on-disk offset");
static_assert(offsetof(struct pinfs_section, index_pages) == 40, "on-disk offset");

/* The superblock: at the base, and a copy (is_backup = 1) in the last 4,096 bytes of the image. */
struct pinfs_super {
	uint8_t magic[PINFS_MAGIC_SIZE]; /* 0 */
	pinfs_le16 version_major;	 /* 8 */
	pinfs_le16 version_minor;	 /* 10 */
	pinfs_le32 is_backup;		 /* 12: 0 at the base, 1 at the end */
	pinfs_le64 compat;		 /* 16 */
	pinfs_le64 ro_compat;		 /* 24 */
	pinfs_le64 incompat;		 /* 32 */
	uint8_t uuid[16];		 /* 40: big-endian fields, as in RFC 9562 */
	uint8_t label[PINFS_LABEL_SIZE]; /* 56: UTF-8, filled up with NUL */
	pinfs_le64 image_size;		 /* 120: bytes, both superblocks included; a multiple of 4,096 */
	pinfs_le64 inode_count;		 /* 128: inode numbers are 1 to inode_count */
	pinfs_le64 block_count;		 /* 136 */
	pinfs_le64 file_bytes;		 /* 144: sum of the sizes of all regular files (for statfs) */
	pinfs_le64 data_offset;		 /* 152: the blocks are stored in [data_offset, data_end) */
	pinfs_le64 data_end;		 /* 160 */
	pinfs_le64 created_sec;		 /* 168: signed; SOURCE_DATE_EPOCH or the newest mtime in the tree */
	pinfs_le32 created_nsec;	 /* 176 */
	pinfs_le32 block_size;		 /* 180: a power of two, PINFS_BLOCK_SIZE_MIN to _MAX */
	pinfs_le32 section_count;	 /* 184 */
	pinfs_le32 dir_restart;		 /* 188: directory entries between two restart points */
	uint8_t content_hash[16];	 /* 192: XXH3-128 of all index pages, in section order (canonical form) */
	uint8_t reserved[304];		 /* 208: 0 */
	struct pinfs_section sections[PINFS_SECTIONS_MAX]; /* 512: in ascending order of type; unused ones 0 */
	uint8_t reserved2[504];				   /* 3584: 0 */
	pinfs_le64 checksum;				   /* 4088: XXH3-64 of bytes 0 to 4087 */
};
static_assert(sizeof(struct pinfs_super) == PINFS_SUPER_SIZE, "on-disk size");
static_assert(offsetof(struct pinfs_super, uuid) == 40, "on-disk offset");
static_assert(offsetof(struct pinfs_super, image_size) == 120, "on-disk offset");
static_assert(offsetof(struct pinfs_super, created_sec) == 168, "on-disk offset");
static_assert(offsetof(struct pinfs_super, content_hash) == 192, "on-disk offset");
static_assert(offsetof(struct pinfs_super, sections) == 512, "on-disk offset");
static_assert(offsetof(struct pinfs_super, checksum) == 4088, "on-disk offset");

/* Where and how one data block, or one chunk of a section, is stored. */
struct pinfs_block {
	pinfs_le64 offset;   /* 0 */
	pinfs_le32 stored;   /* 8: stored size in bytes, 1 to PINFS_BLOCK_SIZE_MAX */
	pinfs_le32 raw;	     /* 12: low 24 bits: raw size in bytes; high 8 bits: enum pinfs_codec */
	pinfs_le64 checksum; /* 16: XXH3-64 of the stored bytes */
};
static_assert(sizeof(struct pinfs_block) == 24, "on-disk size");
#define PINFS_BLOCK_RAW_MASK 0xffffffu
#define PINFS_BLOCK_CODEC_SHIFT 24

/* A page of a section's index: the descriptors of up to PINFS_INDEX_ENTRIES consecutive chunks. */
#define PINFS_INDEX_MAGIC 0x58444950u /* "PIDX" */
#define PINFS_INDEX_ENTRIES 169u
struct pinfs_index_page {
	pinfs_le32 magic;				 /* 0 */
	pinfs_le32 type;				 /* 4: the section's type */
	pinfs_le64 first;				 /* 8: number of the first chunk described here */
	struct pinfs_block chunk[PINFS_INDEX_ENTRIES];	 /* 16: unused ones 0 */
	uint8_t reserved[16];				 /* 4072: 0 */
	pinfs_le64 checksum;				 /* 4088: XXH3-64 of bytes 0 to 4087 */
};
static_assert(sizeof(struct pinfs_index_page) == PINFS_PAGE_SIZE, "on-disk size");
static_assert(offsetof(struct pinfs_index_page, checksum) == 4088, "on-disk offset");

/* What pos, arg0 and arg1 of an inode mean. */
enum pinfs_layout {
	PINFS_LAYOUT_NONE = 0,	  /* FIFO, socket; regular file without any data block: empty or one hole */
	PINFS_LAYOUT_RUN = 1,	  /* pos: first block; arg0 = 0: the file is ceil(size / block_size) blocks */
	PINFS_LAYOUT_PACKED = 2,  /* pos: block, arg0: offset in its raw bytes: the file lies inside one block */
	PINFS_LAYOUT_EXTENTS = 3, /* pos: index of its first extent, arg0: number of extents; gaps are holes */
	PINFS_LAYOUT_DIR = 4,	  /* pos: byte in DIRS, arg0: number of entries, arg1: parent; size: bytes there */
	PINFS_LAYOUT_SYMLINK = 5, /* pos: byte in SYMLINKS; size: length */
	PINFS_LAYOUT_DEVICE = 6,  /* arg0: major, arg1: minor */
};

/* The blocks of this RUN are stored raw, page aligned and contiguous, so that the image itself can be mapped.
 * From 2 MiB on the first byte is aligned to 2 MiB in the file that holds the image. */
#define PINFS_INODE_XIP 1u

struct pinfs_inode {
	pinfs_le16 mode;       /* 0: type and permissions, as st_mode */
	uint8_t layout;	       /* 2: enum pinfs_layout */
	uint8_t flags;	       /* 3: PINFS_INODE_* */
	pinfs_le32 nlink;      /* 4 */
	pinfs_le32 uid;	       /* 8 */
	pinfs_le32 gid;	       /* 12 */
	pinfs_le64 size;       /* 16 */
	pinfs_le64 mtime_sec;  /* 24: signed */
	pinfs_le32 mtime_nsec; /* 32 */
	pinfs_le32 xattr;      /* 36: 0: none; else 1 + position in XATTRS / 8 */
	pinfs_le64 pos;	       /* 40 */
	pinfs_le32 arg0;       /* 48 */
	pinfs_le32 arg1;       /* 52 */
	pinfs_le64 alloc;      /* 56: bytes that are not holes (st_blocks * 512, rounded up) */
};
static_assert(sizeof(struct pinfs_inode) == 64, "on-disk size");
static_assert(offsetof(struct pinfs_inode, pos) == 40, "on-disk offset");
static_assert(offsetof(struct pinfs_inode, alloc) == 56, "on-disk offset");

struct pinfs_extent {
	pinfs_le64 lblk;  /* 0: first block of the file, in units of block_size */
	pinfs_le32 block; /* 8: first data block */
	pinfs_le32 count; /* 12: blocks, at least 1 */
};
static_assert(sizeof(struct pinfs_extent) == 16, "on-disk size");

/*
 * A directory in DIRS: its entries, sorted by name (bytes compared as unsigned), in groups of dir_restart.
 * If there is more than one group, a table of pinfs_le32 comes first: where each group begins, counted from
 * the end of the table. Each entry:
 *
 *	first of its group:  pinfs_le32 inode number
 *	others:              inode number - (the entry before's + 1), zigzag, as a LEB128 varint of at most 5 bytes
 *	uint8_t  type        (mode >> 12, as DT_*)
 *	uint8_t  name_len    (1 to 255)
 *	uint8_t  name[name_len]
 *
 * A directory's inode number is always greater than its parent's: that is what makes every image a tree.
 */
#define PINFS_DIR_RESTART 32u

/* A set of extended attributes in XATTRS: this header, then count entries, sorted by full name. */
struct pinfs_xattr_set {
	pinfs_le32 size;  /* 0: bytes of the whole set, this header included */
	pinfs_le32 count; /* 4 */
};
static_assert(sizeof(struct pinfs_xattr_set) == 8, "on-disk size");
struct pinfs_xattr_entry {
	pinfs_le32 value_size; /* 0 */
	uint8_t name_len;      /* 4: full name with its prefix ("user.…"), no terminator */
	uint8_t reserved[3];   /* 5: 0; then the name, then the value */
};
static_assert(sizeof(struct pinfs_xattr_entry) == 8, "on-disk size");

#endif
