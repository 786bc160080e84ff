/* SPDX-License-Identifier: MIT */
/*
 * image: the one decoder of the pinfs format (include/pinfs/format.h, format.md).
 *
 * Used by: vfs, cli, mkfs (fsck, extract, dump), fuzzers, tests. Uses: codec, io, base. Never: the cache, FUSE.
 *
 * Everything that comes from the file is untrusted. It is decoded into the structs below, checked once, and only
 * then given out; raw on-disk structs never leave this folder. A wrong byte gives -EUCLEAN on what it hits and is
 * told to on_damage (where: byte in the image, and what was expected); a failed read gives -EIO or -ENOMEM, and what
 * the kernel said is told there. Output parameters are untouched on failure.
 *
 * Metadata is read when it is needed, in chunks that are checksummed, and kept in a bounded cache. All functions
 * are thread safe, sleep (they read), and are called without locks.
 */
#ifndef PINFS_IMAGE_IMAGE_H
#define PINFS_IMAGE_IMAGE_H

#include <time.h>
#include <sys/stat.h>

#include "base/util.h"
#include "io/io.h"
#include "pinfs/format.h"

struct image;

#define IMAGE_OFFSET_AUTO UINT64_MAX
#define IMAGE_ERROR_SIZE 512

struct image_options {
	uint64_t offset;       /* of the image in its file, or IMAGE_OFFSET_AUTO: at 0, else by its trailer, else a
				  search of the first 64 MiB */
	size_t metadata_cache; /* bytes; 0: 8 MiB */
	bool no_verify;	       /* fuzzers only: wrong checksums pass, so that mutations reach the decoder */
	/* Called without locks from any thread; may be NULL. offset: in the image. */
	void (*on_damage)(void *context, uint64_t offset, const char *text);
	void *context;
};

/*
 * Opens the image in io, which then belongs to the image. On failure io still belongs to the caller and error says
 * what is wrong and where, in words for people, without the file's name. -EMEDIUMTYPE: not an image. -EUCLEAN:
 * damaged or truncated. -EOPNOTSUPP: a later version or unknown features.
 */
int image_open(struct io_file *io, const struct image_options *options, struct image **ret,
	char error[IMAGE_ERROR_SIZE]);
void image_close(struct image *image);

struct image_info {
	uint64_t offset;	  /* of the image in its file */
	uint64_t image_size;
	uint16_t version_major, version_minor;
	uint64_t compat, ro_compat, incompat;
	uint8_t uuid[16];
	char label[PINFS_LABEL_SIZE + 1];
	uint64_t inode_count, block_count, file_bytes;
	uint64_t data_offset, data_end;
	struct timespec created;
	uint32_t block_size, dir_restart;
	uint8_t content_hash[16];
	bool from_backup; /* the first superblock is damaged; this is the copy at the end */
	unsigned section_count;
	struct image_section {
		unsigned type, filter;
		uint32_t record_size, chunk_size;
		uint64_t raw_size, stored_size, index_offset, index_pages, chunk_count;
	} sections[PINFS_SECTIONS_MAX];
};
const struct image_info *image_get_info(const struct image *image);
struct io_file *image_io(const struct image *image);
const char *image_section_name(unsigned type);

/* ---- inodes ---- */

struct image_inode {
	uint32_t ino;
	mode_t mode;
	uint32_t nlink, uid, gid;
	uint64_t size, alloc;
	struct timespec mtime;
	enum pinfs_layout layout;
	bool xip;
	uint32_t xattr;
	uint64_t pos;
	uint32_t arg0, arg1;
};

/* -ENOENT: no such number. */
int image_inode_get(struct image *image, uint64_t ino, struct image_inode *ret);

/* ---- directories ---- */

struct image_dirent {
	uint32_t ino;
	uint8_t type;	/* DT_* */
	uint8_t name_len;
	uint64_t index; /* 0 is the directory's first entry */
	char name[PINFS_NAME_MAX + 1]; /* terminated; never ".", "..", empty, or with '/' or NUL */
};

/* -ENOENT where there is no such name; -ENAMETOOLONG; -ENOTDIR. O(log n). */
int image_dir_lookup(struct image *image, const struct image_inode *dir, const char *name, size_t name_len,
	struct image_dirent *ret);

/*
 * Loads the inode that an entry of dir names, and checks that they fit: the type, and for a directory that dir is
 * its parent and has the smaller number. What comes through here can't have a cycle.
 */
int image_dir_child(struct image *image, const struct image_inode *dir, const struct image_dirent *entry,
	struct image_inode *ret);

/* Walks a directory in the order of its names. Not thread safe; each walker has its own. */
struct image_dir_iter {
	struct image *image;
	uint64_t base, end, pos; /* bytes in DIRS: first entry, one past the last, next entry */
	uint64_t index, count;
	uint32_t prev_ino;
	struct image_chunk *chunk; /* the chunk under pos, referenced */
	uint64_t chunk_no;
};
/*
 * Starts at entry `index` (>= count: at the end). End it with image_dir_iter_end(), also after an error of _next();
 * where _begin() itself fails there is nothing to end, and *ret is as it was. Ending
 * gives back the memory and keeps the position: a walker may go on from there, and end it again.
 */
int image_dir_iter_begin(struct image *image, const struct image_inode *dir, uint64_t index,
	struct image_dir_iter *ret);
/* 1: *ret is the next entry; 0: no more; <0: error. */
int image_dir_iter_next(struct image_dir_iter *iter, struct image_dirent *ret);
void image_dir_iter_end(struct image_dir_iter *iter);

/* ---- symbolic links and extended attributes ---- */

/* The target, terminated. */
int image_readlink(struct image *image, const struct image_inode *inode, char ret[PINFS_SYMLINK_MAX + 1]);

/* Contracts of getxattr(2) and listxattr(2) with -errno: size 0 asks for the length; -ERANGE, -ENODATA. */
ssize_t image_xattr_get(struct image *image, const struct image_inode *inode, const char *name, void *value,
	size_t size);
ssize_t image_xattr_list(struct image *image, const struct image_inode *inode, char *list, size_t size);

/* ---- content ---- */

/* What a file's bytes from `offset` on are. */
struct image_map {
	uint64_t offset, length; /* the run of the file: all of it is of one kind */
	bool hole;
	uint32_t block;	       /* !hole: the data block… */
	uint32_t block_offset; /* … and where in its raw bytes `offset` is; the run ends within this block */
};
/* offset < inode->size. The run of a hole may be long, that of data never crosses a block. */
int image_map(struct image *image, const struct image_inode *inode, uint64_t offset, struct image_map *ret);

/* SEEK_DATA / SEEK_HOLE; -ENXIO as lseek(2). */
int image_seek(struct image *image, const struct image_inode *inode, uint64_t offset, bool hole, uint64_t *ret);

struct image_block {
	uint64_t offset; /* in the image */
	uint32_t stored, raw;
	unsigned codec;
	uint64_t checksum;
};
int image_block_get(struct image *image, uint64_t block, struct image_block *ret);

struct image_read {
	uint8_t *data; /* at least block_size bytes, the caller's */
	uint32_t raw;  /* out: raw bytes that are there now */
	int error;     /* out: 0 or -errno, for this block alone */
};
/*
 * Reads, verifies and decompresses blocks first … first + count - 1; neighbours in the file are read together.
 * Each element has its own result; a damaged one doesn't touch the others.
 */
void image_read_blocks(struct image *image, uint64_t first, unsigned count, struct image_read *reads);

/* Copies file bytes without any cache; for tools. Returns the number of bytes (short only at the end of file). */
ssize_t image_pread(struct image *image, const struct image_inode *inode, void *buf, size_t len, uint64_t offset);

/* For XIP inodes: where the content lies in the file that holds the image. -EINVAL for others. */
int image_xip_offset(struct image *image, const struct image_inode *inode, uint64_t *ret);

/* ---- for fsck and dump: the raw structure ---- */

/* The descriptor of one chunk of a section. */
int image_chunk_info(struct image *image, unsigned section_index, uint64_t chunk_no, struct image_block *ret);
/* Loads, verifies and decodes one chunk, leaving no trace in the cache. */
int image_chunk_check(struct image *image, unsigned section_index, uint64_t chunk_no);
/* One extent of an EXTENTS inode. */
struct image_extent {
	uint64_t lblk;
	uint32_t block, count;
};
int image_extent_get(struct image *image, uint64_t index, struct image_extent *ret);
/* Reads bytes of the image as they are (len at most the longest read). For padding checks. */
int image_read_raw(struct image *image, uint64_t offset, size_t len, uint8_t *buf);
/* Checks one of the two superblocks against the one in use. 0, -EUCLEAN or a read error. */
int image_super_check(struct image *image, bool backup);

#endif
