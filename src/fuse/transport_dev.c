/* SPDX-License-Identifier: MIT */
/* Requests through read(2) and write(2) on /dev/fuse, by several threads with a descriptor each. */
#include "fuse/internal.h"

#include <sched.h>

/* Threads sleep in reads of the image, so there are more than processors; a few hundred KiB of memory for each. */
static unsigned threads_default(void)
{
	cpu_set_t set;
	int cpus = sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : 1;

	return (unsigned)MIN(MAX(4 * cpus, 10), 32);
}

static int run_threads(struct fuse_server *s)
{
	unsigned threads = s->threads ? s->threads : threads_default();
	int r;

	if (threads == 1)
		return fuse_session_loop(s->session);
#if FUSE_VERSION >= FUSE_MAKE_VERSION(3, 12)
	struct fuse_loop_config *config = fuse_loop_cfg_create();

	if (!config)
		return -ENOMEM;
	fuse_loop_cfg_set_clone_fd(config, 1);
	fuse_loop_cfg_set_max_threads(config, threads);
	r = fuse_session_loop_mt(s->session, config);
	fuse_loop_cfg_destroy(config);
#else
	struct fuse_loop_config config = {.clone_fd = 1, .max_idle_threads = threads};

	r = fuse_session_loop_mt(s->session, &config);
#endif
	return r;
}

const struct fuse_transport_ops fuse_transport_dev = {.name = "dev", .run = run_threads};
