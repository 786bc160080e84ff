/* SPDX-License-Identifier: MIT */
/* What the files of extract share. */
#ifndef PINFS_MKFS_EXTRACT_INTERNAL_H
#define PINFS_MKFS_EXTRACT_INTERNAL_H

#include "base/log.h"
#include "base/sync.h"
#include "mkfs/content.h"
#include "mkfs/extract.h"

/*
 * A directory in the target. All of them live until the end: they get their attributes last, and hard links find
 * the way back by them. Descriptors are opened when needed and closed when there are too many (the slots).
 * Fields without another word belong to the main thread and don't change while a worker can see them.
 */
struct extract_dir {
	struct extract_dir *parent; /* NULL: the target itself */
	struct extract_dir *older;  /* made just before this one: a chain from the newest, children before parents */
	dev_t dev;		    /* what it was when it was made, to notice that somebody has put another one there */
	ino_t dev_ino;
	uint32_t ino;		    /* in the image */
	int fd;			    /* -1: closed; stays open while users > 0 */
	atomic_uint users;	    /* the main thread adds, workers subtract: release; eviction reads it: acquire */
	bool visited;		    /* second chance of the clock */
	bool existed;		    /* before this run */
	bool apply;		    /* gets the image's attributes at the end */
	bool plain;		    /* what is made in it has our owner and group and no inherited ACL */
	bool default_acl;	    /* what is made in it inherits an ACL */
	uint8_t name_len;
	char name[];
};

/* An inode with several names: where the first one is. */
struct extract_link {
	struct extract_link *next; /* in its bucket */
	struct extract_dir *dir;
	uint32_t ino;
	atomic_bool failed; /* a worker could not make it */
	char name[];
};

struct extract_link_later {
	struct extract_link_later *next;
	struct extract_link *source;
	struct extract_dir *dir;
	char name[];
};

struct extract_job;

struct extract {
	struct image *image;
	const struct extract_options *options;
	uid_t uid; /* effective */
	gid_t gid;
	mode_t umask; /* before this run */
	unsigned threads_wanted;
	struct progress *progress;

	/* extract_dir.c; main thread */
	struct extract_dir *root, *newest;
	struct extract_dir **slots; /* with an open descriptor; the root has none */
	size_t slot_count, hand;

	/* extract_link.c; main thread */
	struct extract_link **link_buckets;
	size_t link_bucket_count, link_count;
	struct extract_link_later *later, **later_end;

	/* extract_file.c */
	struct extract_job *batch; /* main thread: small files that are being collected */
	struct mutex lock;	   /* guards what follows */
	struct cond work, room;
	struct extract_job *queue, **queue_end;
	unsigned queued, queue_limit, running;
	uint64_t finished; /* jobs */
	bool closing;
	pthread_t *threads;
	struct content_reader **readers; /* one for each thread; one more than none */
	unsigned thread_count, reader_count;

	/* atomic counters, relaxed */
	struct extract_stats stats;
	uint64_t xattr_unsupported;
};

static inline void extract_count(uint64_t *counter, uint64_t n)
{
	__atomic_add_fetch(counter, n, __ATOMIC_RELAXED);
}

static inline bool extract_stopped(const struct extract *x)
{
	return x->options->stop && atomic_load_explicit(x->options->stop, memory_order_relaxed);
}

/* ---- extract.c ---- */

/* The path of a name for messages, escaped; freed by the caller; never NULL. name NULL: the directory itself. */
char *extract_path(const struct extract *x, const struct extract_dir *dir, const char *name);

/* "can't WHAT PATH: error", counted. Thread safe. */
void extract_fail(struct extract *x, const struct extract_dir *dir, const char *name, const char *what, int error);

/* ---- extract_dir.c; main thread only, except extract_dir_put() ---- */

/* Opens or makes the target directory. selected: it gets the image's attributes, if it is empty. Said on failure. */
int extract_dir_open_root(struct extract *x, bool selected);
void extract_dir_free_all(struct extract *x);

/* Makes sure that dir->fd is open and stays so until extract_dir_put(). -ESTALE: another directory is there now. */
int extract_dir_get(struct extract *x, struct extract_dir *dir);
/* Any thread. */
void extract_dir_put(struct extract_dir *dir);
/* One more user of a directory that has one. */
void extract_dir_dup(struct extract_dir *dir);

/*
 * Makes a directory, or takes the one that is there. selected: it gets the image's attributes also if it was there.
 * Said on failure.
 */
int extract_dir_make(struct extract *x, struct extract_dir *parent, const char *name, size_t len,
	const struct image_inode *inode, bool selected, struct extract_dir **ret);

/* Removes what stands in the way of a new file; dir has a user. 0: try again. -EEXIST: without --force. */
int extract_dir_clear_way(struct extract *x, struct extract_dir *dir, const char *name);

/* The attributes of all directories, deepest first. */
void extract_dir_apply_all(struct extract *x);

/* ---- extract_meta.c; any thread ---- */

/* Whether a new file in dir already has the owner that it shall have. */
bool extract_owner_fits(const struct extract *x, const struct extract_dir *dir, const struct image_inode *inode);

/*
 * Owner, extended attributes, mode, time, in this order: each of them would undo one that comes later. fd: of the
 * file; path_only: opened with O_PATH. in: the directory of the name. name NULL: `in` itself.
 */
void extract_meta_apply(struct extract *x, int fd, bool path_only, const struct extract_dir *in, const char *name,
	const struct image_inode *inode);
/* The time alone. */
void extract_meta_time(struct extract *x, int fd, bool path_only, const struct extract_dir *in, const char *name,
	const struct image_inode *inode);

/* ---- extract_node.c; main thread ---- */

/* Symbolic links, devices, FIFOs and sockets. 0, or -1: said. */
int extract_node_make(struct extract *x, struct extract_dir *dir, const char *name, const struct image_inode *inode);

/* ---- extract_link.c; main thread ---- */

/*
 * For inodes with several names. 1: this is a further name, made later by extract_link_make_all(); 0: the first one,
 * *ret to be marked if it fails; -ENOMEM.
 */
int extract_link_note(struct extract *x, struct extract_dir *dir, const char *name, const struct image_inode *inode,
	struct extract_link **ret);
void extract_link_make_all(struct extract *x);
void extract_link_free_all(struct extract *x);

/* ---- extract_file.c; main thread ---- */

int extract_file_start(struct extract *x);
/* Makes a regular file, some time. link: NULL if it has one name. 0 or -errno (said). */
int extract_file_add(struct extract *x, struct extract_dir *dir, const char *name, const struct image_inode *inode,
	struct extract_link *link);
/* Waits until some job has given back its directories. False: there is none under way. */
bool extract_file_wait_some(struct extract *x);
/* Finishes all that was added and ends the workers. */
void extract_file_finish(struct extract *x);

#endif
