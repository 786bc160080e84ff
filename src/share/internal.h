/* SPDX-License-Identifier: MIT */
/* What the files of src/share share. */
#ifndef PINFS_SHARE_INTERNAL_H
#define PINFS_SHARE_INTERNAL_H

#include "base/log.h"
#include "base/mem.h"
#include "base/message.h"
#include "base/sync.h"
#include "mm/uffd.h"
#include "share/share.h"

/* Of one client, that were read and are not done: a client that sends more has to wait. */
#define JOBS_MOST 256u

struct client;

/* Something that a client wants. */
struct job {
	struct job *next;
	struct client *client; /* referenced */
	bool fault;
	uint64_t addr; /* of a fault */
	bool write;
	struct pinfs_message msg;
	int fd; /* that came with it; -1 */
};

struct open_file {
	uint64_t id; /* 0: free */
	struct vfs_shared shared;
	uint64_t ino;
	bool write;
	unsigned users; /* maps, and jobs that work on it */
	bool closing;
};

struct open_map {
	uint64_t id; /* 0: free */
	struct open_file *file;
	uint64_t start, page, count;
	struct mem_region table;
	unsigned users; /* jobs that work on it */
	bool closing;
};

struct client {
	struct share *share;
	struct client *next, *prev; /* share.lock: among those that are connected, or (next) that nobody uses any more */
	uint64_t id;		    /* of no other client ever */
	int sock;
	int faults;	   /* share.lock: what its faults are read from; -1 */
	pid_t pid;
	uid_t uid;
	unsigned refs;	   /* share.lock: being connected, and jobs */
	unsigned jobs;	   /* share.lock */
	bool paused;	   /* share.lock: nothing is read from it */
	bool connected;	   /* share.lock */
	bool watched, faults_watched; /* share.lock: by epoll */

	struct mutex lock; /* all below, but what its users have */
	struct cond idle;
	struct uffd_mmu *uffd; /* set once */
	struct mm *mm;
	uint64_t ids;
	struct open_file *files; /* share.options.files_most */
	struct open_map *maps;	 /* share.options.maps_most */
	uint64_t pages;		 /* of its maps */
};

#define TOKENS_MOST 4096u
#define TOKEN_NS (60 * 1000000000ull)

struct token {
	uint8_t bytes[PINFS_TOKEN_SIZE];
	uint64_t ino, since; /* now_ns(); 0: free */
	bool write;
};

struct share {
	struct share_options options;
	int epoll, stop;
	pthread_t reader, *workers;
	unsigned worker_count;
	bool reader_started;

	struct mutex lock;
	struct cond work, gone;
	struct job *first, **last; /* lock */
	struct client *clients;	   /* lock */
	struct client *unused;	   /* lock: to be freed, by those who work */
	unsigned client_count;	   /* lock */
	uint64_t ids;		   /* lock */
	bool stopping;		   /* lock: nobody connects any more */
	bool ended;		   /* lock: and there is nobody */
	struct token tokens[TOKENS_MOST]; /* lock */
};

/* ---- client.c: what is done for a client ---- */

int client_new(struct share *share, int sock, struct client **ret);
/* Nobody uses it any more: what it has goes. */
void client_free(struct client *client);
/* Does it, and replies. False: the client has to be cut off, *ret_why. */
bool client_job(struct client *client, struct job *job, const char **ret_why);

/* ---- server.c ---- */

/* The file that a token stands for; the token is used up. */
int token_take(struct share *share, const uint8_t bytes[PINFS_TOKEN_SIZE], uint64_t *ret_ino, bool *ret_write);
/* Its faults are read from now on: from uffd, which stays open until client_free(). */
void server_watch(struct client *client, int uffd);
/* Nothing is any more: before its descriptors are closed. */
void server_forget(struct client *client);

#endif
