/* SPDX-License-Identifier: MIT */
#ifndef PINFS_MKFS_OPTIONS_H
#define PINFS_MKFS_OPTIONS_H

#include "mkfs/mkfs.h"

/* 0: go on; 1: --help or --version was answered; <0: wrong, and said. Strings point into argv. */
int options_parse(struct mkfs_options *options, int argc, char **argv);
/* In parts, for programs with a command line of their own: the defaults, one option by its long name, what is still open. */
void options_init(struct mkfs_options *options);
int options_set(struct mkfs_options *options, const char *name, const char *arg);
int options_finish(struct mkfs_options *options);
void options_free(struct mkfs_options *options);

#endif
