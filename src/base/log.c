/* SPDX-License-Identifier: MIT */
#include "base/log.h"
#include "base/sync.h"

#include <stdarg.h>
#include <syslog.h>

static struct {
	const char *program;
	enum log_level max;
	bool use_syslog;
	atomic_bool progress;
	pthread_mutex_t lock;
} log_state = {.program = "pinfs", .max = LOG_LEVEL_INFO, .lock = PTHREAD_MUTEX_INITIALIZER};

void log_init(const char *program, enum log_level max)
{
	log_state.program = program;
	log_state.max = max;
}

void log_to_syslog(void)
{
	openlog(log_state.program, LOG_PID, LOG_DAEMON);
	log_state.use_syslog = true;
}

void log_progress_active(bool active)
{
	atomic_store(&log_state.progress, active);
}

void log_msg(enum log_level level, const char *fmt, ...)
{
	static const int priority[] = {LOG_ERR, LOG_WARNING, LOG_INFO, LOG_DEBUG};
	static const char *const prefix[] = {"", "warning: ", "", "debug: "};
	int saved = errno;
	va_list ap;

	if (level > log_state.max)
		return;
	va_start(ap, fmt);
	if (log_state.use_syslog) {
		vsyslog(priority[level], fmt, ap);
	} else {
		pthread_mutex_lock(&log_state.lock);
		if (atomic_load(&log_state.progress))
			fputs("\r\033[K", stderr);
		fprintf(stderr, "%s: %s", log_state.program, prefix[level]);
		vfprintf(stderr, fmt, ap);
		putc('\n', stderr);
		pthread_mutex_unlock(&log_state.lock);
	}
	va_end(ap);
	errno = saved;
}

bool log_limit_pass(struct log_limit *limit, unsigned burst, unsigned *ret_suppressed)
{
	uint64_t window = now_ns() / 10000000000ull + 1;
	bool pass;

	pthread_mutex_lock(&log_state.lock);
	if (limit->window != window) {
		limit->window = window;
		limit->count = 0;
	}
	pass = limit->count < burst;
	if (pass) {
		limit->count++;
		*ret_suppressed = limit->suppressed;
		limit->suppressed = 0;
	} else {
		limit->suppressed++;
	}
	pthread_mutex_unlock(&log_state.lock);
	return pass;
}
