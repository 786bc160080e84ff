/* SPDX-License-Identifier: MIT */
/*
 * Messages for people. Tools write to stderr; a daemon in the background to syslog. Libraries below cli and
 * mkfs only ever call log_msg() for damage and for what a user must know; they never exit.
 */
#ifndef PINFS_BASE_LOG_H
#define PINFS_BASE_LOG_H

#include "base/util.h"

enum log_level {
	LOG_LEVEL_ERROR,
	LOG_LEVEL_WARNING,
	LOG_LEVEL_INFO,
	LOG_LEVEL_DEBUG,
};

/* The program's name is put before each line. Not thread safe: call it at the start. */
void log_init(const char *program, enum log_level max);
/* From now on everything goes to syslog(3) (facility daemon). Not thread safe. */
void log_to_syslog(void);
/* A descriptor for the lines of a terminal progress display, or -1: it is wiped before each message. */
void log_progress_active(bool active);

void log_msg(enum log_level level, const char *fmt, ...) _printf_(2, 3);
#define log_error(...) log_msg(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warning(...) log_msg(LOG_LEVEL_WARNING, __VA_ARGS__)
#define log_info(...) log_msg(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...) log_msg(LOG_LEVEL_DEBUG, __VA_ARGS__)

/* At most `burst` true answers in each period of ten seconds; *ret_suppressed: how many were refused before
 * this true answer. Thread safe. For messages that a hostile image could repeat without end. */
struct log_limit {
	uint64_t window;
	unsigned count, suppressed;
};
bool log_limit_pass(struct log_limit *limit, unsigned burst, unsigned *ret_suppressed);

#endif
