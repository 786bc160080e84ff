/* SPDX-License-Identifier: MIT */
#ifndef PINFS_MKFS_OPTIONS_H
#define PINFS_MKFS_OPTIONS_H

#include "mkfs/mkfs.h"

/* 0: go on; 1: --help or --version was answered; <0: wrong, and said. Strings point into argv. */
int options_parse(struct mkfs_options *options, int argc, char **argv);
void options_free(struct mkfs_options *options);

#endif
