/* SPDX-License-Identifier: MIT */
/* What the command lines of fsx, stress and crashload have in common. */
#ifndef PINFS_MODEL_OPTIONS_H
#define PINFS_MODEL_OPTIONS_H

#include <stdio.h>
#include <stdlib.h>

#include "base/util.h"

__attribute__((noreturn)) static inline void bad_usage(const char *program, const char *what, const char *arg)
{
	fprintf(stderr, "%s: %s: %s\n", program, what, arg);
	exit(2);
}

/* A whole number, or the end of the program. */
static inline uint64_t option_number(const char *program, const char *arg, uint64_t min, uint64_t max)
{
	uint64_t v;

	if (parse_u64(arg, min, max, &v) < 0)
		bad_usage(program, "bad number", arg);
	return v;
}

/* "128K" is one, too. */
static inline uint64_t option_size(const char *program, const char *arg, uint64_t min, uint64_t max)
{
	uint64_t v;

	if (parse_size(arg, &v) < 0 || v < min || v > max)
		bad_usage(program, "bad size", arg);
	return v;
}

#endif
