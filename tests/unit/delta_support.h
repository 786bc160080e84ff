/* SPDX-License-Identifier: MIT */
/* What the tests of deltas share: a delta on a disk in memory, made, opened, and closed and opened again; frames and pages for it. */
#ifndef PINFS_TESTS_DELTA_SUPPORT_H
#define PINFS_TESTS_DELTA_SUPPORT_H

#include "support.h"

#include "delta/internal.h"
#include "memstore.h"

#define PAGE PINFS_PAGE_SIZE

/* What was told to be damaged: how often, and the last of it. */
extern unsigned damages;
extern char damage[256];
void on_damage(void *context, uint64_t offset, const char *text);

/* A small log, and nothing in the background. */
struct delta_options plain_options(void);
struct delta *create_delta(struct memstore *m, const struct delta_options *o);
/* As delta_open(), with an error's text if it fails. */
int try_delta(struct memstore *m, const struct delta_options *o, struct delta **ret);
/* Closes it and opens it again. */
struct delta *reopen_delta(struct delta *d, struct memstore *m, const struct delta_options *o);

/* One frame of about `bytes`, other ones each time, in items of `ino`. */
int frame_of(struct delta *d, uint64_t ino, size_t bytes);
/* For delta_write(): the file reaches as far as what is written. */
int size_grows(void *context, struct delta_inode *inode, uint64_t end);
void make_inode(struct delta *d, uint64_t ino);
/* One page full of `byte`, into the log. */
int write_logged_page(struct delta *d, uint64_t ino, uint64_t page, uint8_t byte);
/* -EILSEQ: it isn't full of `byte`. */
int page_is(struct delta *d, uint64_t ino, uint64_t page, uint8_t byte);

#endif
