/* SPDX-License-Identifier: MIT */
/*
 * mkfs.pinfs: what its parts share.
 *
 *	scan.c   directories  ──►┐
 *	tar.c    an archive   ──►├─ tree.c (names, inodes, xattr sets) ──► meta.c (numbers, sections, superblocks)
 *	                         └─ pack.c (content → blocks: dedup, packing, compression, XIP) ──► output.c
 *
 * Used by: mkfs, cli (pinfs commit has a source of its own, src/cli/merge.c). Uses: image, codec, base. One thread builds the tree and reads content; pack.c has its
 * own worker and writer threads. Functions return 0 or -errno and have told the user what happened.
 */
#ifndef PINFS_MKFS_MKFS_H
#define PINFS_MKFS_MKFS_H

#include <signal.h>
#include <time.h>
#include <sys/stat.h>
#include <sys/uio.h>

#include "base/util.h"
#include "mkfs/tool.h"
#include "pinfs/format.h"

#define MKFS_EXIT_OK 0
#define MKFS_EXIT_FAIL 1    /* no image was made */
#define MKFS_EXIT_CHANGED 2 /* the image is complete and sound, but not all went as it should: files changed… */

/* ---- options ---- */

struct string_list {
	char **items;
	size_t count, capacity;
};
int string_list_add(struct string_list *list, const char *item);
/* One item a line; empty lines are skipped. */
int string_list_read(struct string_list *list, const char *path);
void string_list_free(struct string_list *list);

struct id_map {
	uint32_t from, to, count;
};

enum xip_policy { XIP_NONE, XIP_AUTO, XIP_ALL, XIP_LIST };
enum sort_order { SORT_PATH, SORT_EXTENSION, SORT_SIZE };

struct mkfs_options {
	struct string_list sources;
	const char *image;
	const char *tar; /* NULL, "-" or a file */
	const char *prepend;
	uint32_t block_size;
	bool compress;
	int level; /* CODEC_LEVEL_FAST or LZ4HC's */
	enum xip_policy xip;
	struct string_list xip_patterns;
	struct string_list exclude;
	enum sort_order sort;
	struct string_list sort_list;
	bool set_uid, set_gid;
	uint32_t uid, gid;
	struct id_map *uid_maps, *gid_maps;
	size_t uid_map_count, gid_map_count;
	bool clamp_mtime;
	bool have_epoch;
	int64_t epoch; /* SOURCE_DATE_EPOCH */
	bool have_uuid, random_uuid;
	uint8_t uuid[16];
	char label[PINFS_LABEL_SIZE];
	bool empty, no_dedup, no_pack, no_xattrs, one_file_system, skip_unreadable;
	bool force, dry_run, quiet, json;
	unsigned threads;
	enum progress_mode progress;
};

/* fnmatch(3): a pattern with '/' is matched against the whole path in the image, one without against the name. */
bool pattern_match(const struct string_list *patterns, const char *path, const char *name);

/* ---- the tree ---- */

struct content_extent {
	uint64_t lblk;
	uint64_t seq; /* number of a block in the order in which they were read; pack.c knows its final number */
	uint64_t count;
};

/* How a regular file's content is stored; filled by pack.c. */
enum content_kind {
	CONTENT_NONE,	 /* empty or one hole */
	CONTENT_BLOCKS,	 /* extents of whole blocks */
	CONTENT_PACKED,	 /* inside pack number `pack` at `offset` */
	CONTENT_STORED,	 /* inside the `pack`-th block read, at `offset` */
	CONTENT_SINGLE,	 /* alone in block `pack` (a final block number) at offset 0: a hash collision's way out */
};

struct node;

struct inode {
	mode_t mode;
	uint32_t nlink, uid, gid;
	uint64_t size;
	int64_t mtime_sec;
	uint32_t mtime_nsec;
	uint32_t xattr; /* 0, or 1 + number of its set in the tree */
	uint32_t ino;	/* 0 until meta.c numbers it */
	uint32_t source; /* of the source's device and inode number: is it still the same file? */
	uint8_t content, xip;
	bool dead; /* vanished or could not be read: all its names are left out */
	struct node *name; /* its first name, for reading and for messages */
	union {
		struct {
			uint64_t pack;
			uint32_t offset, extent_count;
			struct content_extent *extents;
			uint64_t alloc;
			union {
				const uint8_t *tiny; /* scan.c: all of its content, read with the listing; or NULL */
				uint64_t merged_ino; /* pinfs commit: its number in the merged tree */
			};
		} file;
		struct {
			struct node **children; /* sorted by name once the tree is complete */
			uint32_t count, capacity, subdirs, parent_ino;
			uint64_t pos, bytes; /* in DIRS */
		} dir;
		struct {
			char *target;
			uint64_t pos;
		} link;
		struct {
			uint32_t major, minor;
		} device;
	};
};

struct node {
	struct node *parent; /* NULL for the root */
	struct inode *inode; /* NULL: another name took its place */
	const char *source;  /* the path that this node was given by on the command line, or NULL */
	uint8_t name_len;
	char name[];	     /* terminated */
};

struct xattr_set {
	uint8_t *data; /* as in the image */
	uint32_t size;
	bool acl, used; /* used: some inode in the image has it */
	uint64_t pos;
};

struct tree {
	const struct mkfs_options *options;
	struct node *root;
	uint64_t inode_count; /* as scanned; meta.c counts what is left */
	uint64_t file_count, file_bytes;
	struct xattr_set *xattrs;
	size_t xattr_count, xattr_capacity;
	uint64_t warnings; /* changed, vanished, skipped */
	int cwd;	   /* where relative sources begin */
	struct arena *arena;
	struct hash_table *xattr_table, *link_table;
	struct {
		dev_t dev;
		ino_t ino;
	} left_out[2]; /* the image itself, and the one that it replaces */
	unsigned left_out_count;
};

int mkfs_tree_new(const struct mkfs_options *options, struct tree **ret);
void mkfs_tree_free(struct tree *tree);
void *tree_alloc(struct tree *tree, size_t size); /* zeroed; lives as long as the tree */
/* Inode with mode, owner, time and size from st, owners mapped and times clamped. */
int tree_inode_new(struct tree *tree, const struct stat *st, struct inode **ret);
/* Takes mode, owner and time anew: the source is not what it was when it was listed. */
void tree_inode_update(struct tree *tree, struct inode *inode, const struct stat *st);
/* This file does not come into the image. */
void tree_leave_out(struct tree *tree, const struct stat *st);
bool tree_is_left_out(const struct tree *tree, const struct stat *st);
/* A name for inode in dir (NULL: the root). -EEXIST is not checked here. */
int tree_node_new(struct tree *tree, struct node *dir, const char *name, size_t len, struct inode *inode,
	struct node **ret);
/* Sorts the names of one directory; drops those whose inode is NULL (replaced) or dead (vanished). */
void tree_dir_sort(struct inode *dir);
/* "/usr/bin/gcc": the path in the image; buf of at least PATH_MAX; longer ones are shortened from the left. */
char *tree_path(const struct node *node, char *buf, size_t size);
/* Opens the source of a node, also where its path is longer than PATH_MAX. Descriptor or -errno. */
int tree_open(struct tree *tree, const struct node *node, int flags);
/* Known inode of a source file with several links, or NULL. */
struct inode *tree_link_find(struct tree *tree, dev_t dev, ino_t ino);
int tree_link_add(struct tree *tree, dev_t dev, ino_t ino, struct inode *inode);
/* Calls fn for each inode of regular files once, in depth-first order of names; stops at the first error. */
int tree_for_each_file(struct tree *tree, int (*fn)(struct inode *inode, void *context), void *context);

/* A set of extended attributes under construction. */
struct xattr_build {
	struct xattr_item {
		char *name;
		uint8_t *value;
		size_t size;
	} *items;
	size_t count, capacity;
};
int xattr_build_add(struct xattr_build *build, const char *name, const void *value, size_t size);
void xattr_build_clear(struct xattr_build *build);
/* Gives the inode this set, shared with equal sets. */
int tree_xattr_set(struct tree *tree, struct inode *inode, struct xattr_build *build);

void tree_warn(struct tree *tree, const struct node *node, const char *fmt, ...) _printf_(3, 4);

/* ---- output ---- */

struct output {
	int fd;
	bool dry_run, device;
	char *temporary;
	uint64_t base; /* bytes of --prepend before the image, rounded up to a page */
	uint64_t pos;  /* next byte of the image */
	uint64_t flushed;
};
int output_open(const struct mkfs_options *options, struct output *out);
/* Bytes at out->pos, which moves on. */
int output_write(struct output *out, const void *data, size_t len);
int output_writev(struct output *out, struct iovec *iov, int count);
int output_pwrite(struct output *out, uint64_t offset, const void *data, size_t len);
int output_pread(struct output *out, uint64_t offset, void *data, size_t len);
/* Zeroes up to the next multiple of align (in the file that holds the image). */
int output_align(struct output *out, uint64_t align);
/* Makes the image durable and gives it its name. */
int output_commit(struct output *out, const struct mkfs_options *options);
/* Removes what was written; harmless after a commit. */
void output_discard(struct output *out);
/* For signal handlers: the name to unlink, or NULL. */
extern const char *volatile output_temporary_name;

/* ---- content ---- */

struct pack;
/* Where a file's bytes come from. */
struct content_source {
	/* As pread(2) with -errno; short only at the end of the content. */
	ssize_t (*read)(void *context, void *buf, size_t len, uint64_t offset);
	/* The first byte at or after offset that is not in a hole, or UINT64_MAX. May be NULL. */
	uint64_t (*next_data)(void *context, uint64_t offset);
	void *context;
	/* True: the len bytes at offset, a whole block or the file's last one, are the *ret_seq-th block already (pack_take). May be NULL. */
	bool (*stored)(void *context, uint64_t offset, uint32_t len, uint64_t *ret_seq);
};

struct pack_stats {
	uint64_t bytes_read, blocks, bytes_stored, holes, duplicates, duplicate_bytes, packed_files, xip_files,
		raw_blocks, taken_blocks, taken_bytes;
};

int pack_new(const struct mkfs_options *options, struct output *out, struct progress *progress, struct pack **ret);
void pack_free(struct pack *pack);
/* Stores one regular file. inode->size is what was expected; it becomes what was read. */
int pack_file(struct pack *pack, struct inode *inode, const struct content_source *source, bool xip);
/*
 * Takes a block of an image of the same block size over as it is stored there, neither decompressed nor compressed; its checksum is verified by the workers, and
 * a wrong one fails pack_finish() or an earlier call with -EUCLEAN: pack_bad_block() says which it is. The image stays open until pack_finish().
 */
struct pack_stored {
	struct image *image;
	uint64_t block;
	uint32_t align; /* the block begins at a multiple of it, in the file that holds the new image; 0: anywhere */
	bool align_after; /* as XIP's last block: the next one begins a page */
};
int pack_take(struct pack *pack, const struct pack_stored *stored, uint64_t *ret_seq);
bool pack_bad_block(const struct pack *pack, uint64_t *ret_block);
/* What has gone wrong in its threads so far (0: nothing), of which they have told the user. */
int pack_error(struct pack *pack);
/* Block lblk of the file is the seq-th block. In ascending order. */
int pack_extent_add(struct inode *inode, uint64_t lblk, uint64_t seq);
/* Ends all threads; after it the results below are final. */
int pack_finish(struct pack *pack);
uint64_t pack_block_count(const struct pack *pack);
const struct pinfs_block *pack_blocks(const struct pack *pack);
/* Final number of the seq-th block read, and of a pack. */
uint32_t pack_seq_block(const struct pack *pack, uint64_t seq);
uint32_t pack_number_block(const struct pack *pack, uint64_t number);
void pack_get_stats(const struct pack *pack, struct pack_stats *ret);

/* ---- sources ---- */

int scan_sources(struct tree *tree);
/* Stores the content of all files that scan_sources() found, in the order that was asked for. */
int scan_store(struct tree *tree, struct pack *pack);
/* Does this file's beginning look like an ELF executable or shared object? */
bool elf_is_loadable(const uint8_t *head, size_t len);
int tar_read(struct tree *tree, struct pack *pack, struct progress *progress);
bool xip_wanted(const struct mkfs_options *options, const struct inode *inode);

/* ---- metadata ---- */

struct meta_result {
	uint64_t inodes, image_size, metadata_bytes;
	uint8_t uuid[16];
};
int meta_write(struct tree *tree, struct pack *pack, struct output *out, uint64_t data_offset, uint64_t data_end,
	struct meta_result *ret);

/* Set by SIGINT and SIGTERM: loops stop with -EINTR. */
extern volatile sig_atomic_t mkfs_interrupted;

/* ---- small containers (tree.c) ---- */

struct arena;
struct hash_table;
/* Open addressing from a 128-bit key to a value that is not 0. */
struct hash_table *hash_table_new(void);
void hash_table_free(struct hash_table *table);
uint64_t hash_table_get(const struct hash_table *table, uint64_t low, uint64_t high);
int hash_table_put(struct hash_table *table, uint64_t low, uint64_t high, uint64_t value);

#endif
